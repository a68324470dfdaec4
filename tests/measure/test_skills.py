"""Skills world: its equation, its truth, and that a layer can learn it."""

import pytest
import torch
import torch.nn.functional as F

from moe_lesson import DenseFFN, MoE, TrainingConfig, train
from moe_lesson.measure.skills import UNSEEN, VALIDATION_STEP, SkillsWorld, diagnosis, regression, squared_error
from moe_lesson.moe.dispatch import ffn


def test_the_answer_is_the_equation():
    world = SkillsWorld(num_skills=5, per_token=2, width=8)
    tokens = world.tokens(20)
    for x, y, skills in zip(tokens.x, tokens.y, tokens.skills):
        parts = [world.shared(x[None])[0]] + [world.each_skill(x[None])[s, 0] for s in skills]
        assert torch.allclose(y, sum(parts) / 3**0.5, atol=1e-5)


def test_every_token_carries_different_skills_and_shows_their_marks():
    world = SkillsWorld(num_skills=6, per_token=3, noise=0.0)
    tokens = world.tokens(200)
    assert all(len(set(skills)) == 3 for skills in tokens.skills.tolist())
    assert torch.allclose(tokens.x, 1.5 / 3**0.5 * world.marks[tokens.skills].sum(1), atol=1e-5)
    counts = torch.bincount(tokens.skills.flatten(), minlength=6)
    assert counts.min() > 70, "all skills are about equally frequent"


def test_the_same_arguments_make_the_same_world_and_another_seed_another():
    one, same, other = SkillsWorld(), SkillsWorld(), SkillsWorld(seed=1)
    assert torch.equal(one.tokens(10).y, same.tokens(10).y) and not torch.equal(one.tokens(10).y, other.tokens(10).y)
    assert torch.equal(one.sampler(4, seed=3)(7), same.sampler(4, seed=3)(7))


def test_batches_differ_by_step_and_seed_and_hold_x_and_y():
    world = SkillsWorld()
    batch_at = world.sampler(16)
    assert batch_at(0).shape == (16, 64)
    assert not torch.equal(batch_at(0), batch_at(1)) and not torch.equal(batch_at(0), world.sampler(16, seed=1)(0))
    tokens = world.tokens(16, step=0)
    assert torch.equal(batch_at(0), torch.cat([tokens.x, tokens.y], dim=1))
    assert not torch.equal(batch_at(0)[:, :32], world.tokens(16).x), "test tokens are no training tokens"


def test_without_a_shared_part_nothing_is_shared():
    world = SkillsWorld(shared_units=0, num_skills=4, per_token=1)
    tokens = world.tokens(10)
    assert not world.shared(tokens.x).any()
    own = world.each_skill(tokens.x)[tokens.skills[:, 0], torch.arange(10)]
    assert torch.allclose(tokens.y, own / 2**0.5, atol=1e-6)


def test_a_world_without_a_shared_part_is_the_same_world_otherwise():
    whole, bare = SkillsWorld(), SkillsWorld(shared_units=0)
    x = whole.tokens(10)
    assert torch.equal(x.x, bare.tokens(10).x) and torch.equal(whole.each_skill(x.x), bare.each_skill(x.x))
    assert torch.allclose(x.y - bare.tokens(10).y, whole.shared(x.x) / 3**0.5, atol=1e-5)


def test_no_part_of_a_world_repeats_the_numbers_of_another_or_of_a_batch():
    world = SkillsWorld(width=16, num_skills=16, shared_units=16, skill_units=16)
    parts = [world.marks, *world.shared_ab, world.skill_ab[0][0], world.skill_ab[1][0]]
    drawn = [part.flatten()[:16] / part.std() for part in parts] + [world.tokens(1, step=step).x[0] for step in range(5)]
    same = torch.corrcoef(torch.stack(drawn)).abs().fill_diagonal_(0)
    assert same.max() < 0.9


def test_validation_tokens_are_no_test_tokens():
    world = SkillsWorld()
    assert not torch.equal(world.tokens(4).x, world.tokens(4, step=VALIDATION_STEP).x)


def test_a_layer_of_identical_experts_is_found_out():
    world, layer = SkillsWorld(), MoE(32, 8, 2, 16)
    with torch.no_grad():
        for weights in (layer.experts.w_in, layer.experts.w_out):
            weights.copy_(weights[:1].expand_as(weights))
    found = diagnosis(layer, world.tokens(500), lambda x: ffn(x, layer.experts.w_in[0], layer.experts.w_out[0]))
    assert found["probe"] == pytest.approx(1, abs=1e-4), "each of them tells what the first one says"
    assert found["probe_null"] < 0.9
    assert found["similarity"] == pytest.approx(1, abs=1e-5) and found["cka"] == pytest.approx(1, abs=1e-5)
    unchanged = ("error_masked_random", "error_merged_outputs", "error_merged_co_routing", "error_merged_random")
    error = squared_error(layer, world.tokens(500))
    assert [found[name] for name in unchanged] == pytest.approx([error] * 4, abs=1e-4), "all say the same, whoever is missing"


def test_where_a_token_chooses_one_expert_there_is_no_co_routing_to_merge_by():
    world = SkillsWorld()
    assert "error_merged_co_routing" not in diagnosis(MoE(32, 8, 1, 4), world.tokens(200), world.shared)


def test_the_error_of_the_mean_answer_is_that_of_a_layer_that_says_it():
    world = SkillsWorld()
    tokens = world.tokens(500)
    says = tokens.y.mean(dim=0).expand_as(tokens.y)
    found = diagnosis(MoE(32, 8, 2, 4), tokens, world.shared)["error_mean_answer"]
    assert found == pytest.approx(F.mse_loss(says, tokens.y).item(), rel=1e-5)


def test_the_skills_that_a_known_router_serves_are_counted_exactly():
    """One skill a token and no noise: a gate that reads the marks sends skill s to expert s // 2."""
    world = SkillsWorld(num_skills=8, per_token=1, noise=0.0)
    layer = MoE(32, 4, 1, 4)
    with torch.no_grad():
        layer.router.weight.copy_(torch.linalg.lstsq(world.marks, torch.eye(8)).solution.view(32, 4, 2).sum(-1))
    found = diagnosis(layer, world.tokens(4000), world.shared)
    assert found["hybridity"] == pytest.approx(2, abs=0.01) and found["hybridity_shuffled"] > 7.5
    assert found["hybridity"] + 1 < found["hybridity_random"] < found["hybridity_shuffled"]


def test_the_null_of_the_probe_is_a_shared_part_that_nothing_was_trained_on():
    found = diagnosis(MoE(32, 8, 2, 4), SkillsWorld().tokens(300), SkillsWorld(seed=UNSEEN).shared)
    assert found["probe"] == found["probe_null"]


def test_noise_is_as_loud_as_it_says():
    assert SkillsWorld(signal=0.0, noise=2.0).tokens(4000).x.std().item() == pytest.approx(2, abs=0.05)


def test_the_parts_are_about_equally_loud():
    world = SkillsWorld()
    x = world.tokens(4000).x
    loud = torch.cat([world.shared(x)[None], world.each_skill(x)]).var(dim=(1, 2))
    assert 0.5 < loud.min() / loud.mean() and loud.max() / loud.mean() < 2


@pytest.mark.parametrize("layer", [DenseFFN(32, 32), MoE(32, 16, 2, 16)])
def test_a_layer_learns_it(layer):
    world = SkillsWorld()
    history = train(layer, world.sampler(128), TrainingConfig(60, 1e-2), objective=regression(), progress=False)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert ("load" in history.rows[0]) == isinstance(layer, MoE)


def test_the_objective_is_the_mean_squared_error():
    world, layer = SkillsWorld(), DenseFFN(32, 8)
    tokens = world.tokens(32)
    loss, figures = regression()(layer, torch.cat([tokens.x, tokens.y], 1))
    assert loss.item() == pytest.approx(F.mse_loss(layer(tokens.x), tokens.y).item()) == figures["loss"].item()


@pytest.mark.parametrize("arguments, message", [
    (dict(num_skills=0), "num_skills 0"), (dict(per_token=17), "per_token is 17; a token carries 1 … 16"),
    (dict(skill_units=-1), "skill_units -1"), (dict(noise=-1.0), "noise -1.0"),
])
def test_impossible_worlds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SkillsWorld(**arguments)


def test_no_tokens_are_refused():
    with pytest.raises(ValueError, match="count is 0"):
        SkillsWorld().tokens(0)
