"""World of facts: its equation, its truth, and that a layer built by hand keeps its facts where it is told to."""

import pytest
import torch
import torch.nn.functional as F
from fact_finder.cases import by_hand

from moe_lesson import TrainingConfig, train
from moe_lesson.measure.facts import (
    CONTEXT,
    FactsModel,
    FactsWorld,
    answered,
    breadth_cost,
    knowledge,
    memory,
    remembering,
    survival,
)
from moe_lesson.measure.skills import VALIDATION_STEP
from moe_lesson.moe.recipes import Dense, Sparse
from moe_lesson.moe.routing import Routing


def test_what_a_layer_was_given_is_found_again_and_goes_with_its_expert():
    world, model = by_hand(num_answers=16)
    found = memory(model, world)
    assert found["recall"] == 1 and "common" not in found and 0 < found["bits"] <= 32 * 4
    assert found["bits_per_parameter"] == pytest.approx(found["bits"] / sum(p.numel() for p in model.parameters()))
    found = knowledge(model, world, torch.arange(32).repeat(40))
    assert found["hybridity"] == pytest.approx(1) and found["hybridity_shuffled"] > 3
    assert found["untouched"] == 0.75, "each of four experts has a fourth of the facts"
    assert 0.75 <= found["facts_survive"] < 0.82, "another expert hits one of sixteen answers now and then"
    assert found["same_experts"] == 1 and found["same_experts_null"] == pytest.approx(7 / 8), "the next fact is of the same topic"
    assert found["breadth_cost"] == 0, "no expert forgets"
    assert not any(name.startswith("common") for name in found)


def test_another_context_is_another_one():
    world = FactsWorld(topics=4, per_topic=8)
    assert knowledge(FactsModel(Sparse(8, 2, 4), world), world, torch.arange(32))["same_experts"] < 1


def test_recall_is_the_share_of_facts_that_a_layer_has():
    world, model = by_hand(num_answers=16)
    with torch.no_grad():
        model.layer.experts.w_out[0].neg_()
    assert answered(model, world.ask())[0].nonzero().flatten().tolist() == list(range(8, 32))
    assert memory(model, world)["recall"] == 0.75


def test_of_identical_experts_every_fact_survives():
    world = FactsWorld(per_topic=16)
    model = FactsModel(Sparse(8, 2, 4, num_shared=1), world)
    w_in, w_out = model.layer.experts.w_in, model.layer.experts.w_out
    with torch.no_grad():
        for weights in (w_in, w_out):
            weights.copy_(weights[:1].expand_as(weights))
    facts, common, untouched = survival(model, world.ask()).tolist()
    assert facts == common == pytest.approx(1) and untouched < 0.8
    with torch.no_grad():
        w_out.zero_()
    found, whole = knowledge(model, world, torch.randperm(512)), memory(model, world)
    assert [found["recall_of_shared_alone"], found["common_of_shared_alone"]] != [0, 0]
    assert whole["recall"] == pytest.approx(found["recall_of_shared_alone"], abs=0.01), "the routed ones say nothing"


def test_an_expert_alone_has_what_is_lost_with_it():
    world, model = by_hand(num_answers=16)
    facts, _, untouched = survival(model, world.ask(), parts=2).tolist()
    assert untouched == 0.5 <= facts < 0.6


def test_the_cost_of_breadth_is_what_the_experts_of_many_topics_forget():
    """Experts 0 and 1 serve a topic each and forget every fourth fact; 2 and 3 share the other two and forget the half."""
    topics = torch.arange(4).repeat(100)
    ids = torch.where(topics < 2, topics, torch.arange(400) // 4 % 2 + 2)
    right = torch.where(topics < 2, torch.arange(400) // 4 % 4 != 0, torch.arange(400) // 8 % 2 == 0).float()
    routing = Routing(torch.zeros(400, 4), ids[:, None], torch.ones(400, 1))
    assert breadth_cost(routing, F.one_hot(topics), right) == pytest.approx(0.25, abs=0.01)


def test_the_questions_are_the_equation_and_the_answers_the_facts():
    world = FactsWorld(topics=3, per_topic=5)
    asked = world.ask(torch.tensor([7, 2, 7]))
    assert asked.facts.tolist() == [7, 2, 7] and torch.equal(asked.answers, world.answer_of[asked.facts])
    assert torch.equal(asked.x[0, CONTEXT:], asked.x[2, CONTEXT:]) and not torch.equal(asked.x[0], asked.x[2])
    (a, b), context = world.common_ab, 2 * asked.x[:, :CONTEXT]
    assert torch.equal(asked.common, (torch.tanh(context @ a) @ b).argmax(dim=1))
    assert FactsWorld().ask().x[:, :CONTEXT].std().item() == pytest.approx(0.5, abs=0.02)
    assert world.ask().facts.tolist() == list(range(15)), "every fact once, unless asked for some"


def test_facts_of_a_topic_share_its_mark():
    world = FactsWorld(topics=2, per_topic=200)
    middle = torch.stack([world.questions[:200].mean(dim=0), world.questions[200:].mean(dim=0)])
    assert torch.allclose(middle, world.marks / 2 ** 0.5, atol=0.25)
    assert FactsWorld(topics=200, per_topic=2).questions.var().item() == pytest.approx(1, abs=0.05)


def test_the_same_arguments_make_the_same_world_and_another_seed_another():
    one, same, other = FactsWorld(), FactsWorld(), FactsWorld(seed=1)
    assert torch.equal(one.ask().x, same.ask().x) and torch.equal(one.sampler(8, seed=3)(7), same.sampler(8, seed=3)(7))
    assert not torch.equal(one.answer_of, other.answer_of) and not torch.equal(one.questions, other.questions)
    assert not torch.equal(one.ask().x, one.ask(step=VALIDATION_STEP).x)
    assert not torch.equal(one.sampler(8)(0), one.sampler(8)(1)) and not torch.equal(one.sampler(8)(0), one.sampler(8, seed=1)(0))


def test_the_control_world_asks_the_same_facts_and_nothing_about_the_context():
    whole, bare = FactsWorld(), FactsWorld(common_units=0)
    assert torch.equal(whole.ask().x, bare.ask().x) and torch.equal(whole.answer_of, bare.answer_of)
    model = FactsModel(Dense(8), bare)
    answers, common, _ = model(bare.ask().x)
    assert common.shape[1] == 0 and not answered(model, bare.ask())[1].any()
    loss, _ = remembering()(model, bare.sampler(64)(0))
    batch = bare.sampler(64)(0)
    assert loss.item() == pytest.approx(F.cross_entropy(model(batch[:, :-2])[0], batch[:, -2].long()).item())


def test_a_batch_holds_both_right_answers_and_the_objective_adds_their_losses():
    world = FactsWorld(topics=2, per_topic=3)
    batch, model = world.sampler(50)(0), FactsModel(Sparse(4, 2, 4), world)
    asked = [world.questions, world.answer_of]
    for row in batch:
        fact = (asked[0] - row[CONTEXT:-2]).abs().sum(dim=1).argmin()
        assert row[-2] == asked[1][fact]
    assert torch.equal(batch[:, -1].long(), world.common_scores(batch[:, :-2]).argmax(dim=1))
    answers, common, _ = model(batch[:, :-2])
    expected = F.cross_entropy(answers, batch[:, -2].long()) + F.cross_entropy(common, batch[:, -1].long())
    assert remembering({})(model, batch)[0].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("recipe", [Dense(64), Sparse(8, 2, 16)])
def test_a_model_learns_the_facts(recipe):
    torch.manual_seed(0)
    world = FactsWorld(topics=4, per_topic=8)
    model = FactsModel(recipe, world)
    before = memory(model, world)
    train(model, world.sampler(256), TrainingConfig(60, 2e-2), objective=remembering(), progress=False)
    after = memory(model, world)
    assert before["recall"] < 0.3 and after["recall"] > 0.9 and after["common"] > before["common"] + 0.1
    assert before["bits"] < 20 and 0.9 * 32 * 8 < after["bits"] <= 32 * 8


@pytest.mark.parametrize("arguments, message", [
    (dict(topics=0), "topics 0"), (dict(num_answers=1), "num_answers 1"), (dict(common_units=-1), "common_units is -1"),
    (dict(width=CONTEXT), f"width is {CONTEXT}"),
])
def test_impossible_worlds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FactsWorld(**arguments)
