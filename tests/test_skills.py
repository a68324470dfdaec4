"""Skills world: its equation, its truth, and that a layer can learn it."""

import pytest
import torch
import torch.nn.functional as F

from moe_lesson import DenseFFN, MoE, TrainingConfig, train
from moe_lesson.skills import SkillsWorld, regression


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
