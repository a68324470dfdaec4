"""What is counted of a real model's reading is what a count by hand gives."""

import itertools

import pytest
import torch

from moe_lesson.lm.corpora import Document
from moe_lesson.measure.merging import merging, with_merged_experts
from moe_lesson.measure.real_reading import (
    Reading,
    kind_of,
    losses_without,
    mass,
    read_documents,
    real_mergings,
    repeated_first_choice,
)
from moe_lesson.moe.routing import Routing, expert_load

pytest.importorskip("transformers")
from moe_lesson import shipped_model  # noqa: E402
from moe_lesson.lm.real import moe_blocks  # noqa: E402
from moe_lesson.lm.real_models import own_model, read_by  # noqa: E402

IDS = torch.tensor([[0, 1], [0, 2], [1, 0], [1, 2]])
ROUTING = Routing(torch.zeros(4, 3), IDS, torch.tensor([[0.75, 0.25], [0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]))
READING = Reading(("a", "B", "a", "7"), ("x", "y"), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]), {"m": ROUTING}, {})


def test_calls_are_counted_by_label():
    assert READING.calls(ROUTING, "domain").tolist() == [[2, 1], [1, 2], [1, 1]]
    assert READING.labels("kind")[1] == ("number", "capital", "small letter") and READING.labels("token")[1] == ("a", "B", "7")
    assert READING.calls(ROUTING, "token").tolist() == [[2, 1, 0], [2, 0, 1], [0, 1, 1]]
    with pytest.raises(ValueError, match="unknown label 'byte'"):
        READING.labels("byte")


def test_repeats_are_counted_within_a_piece_and_chance_comes_from_the_load():
    # 0-0 yes, 0-1 no, 1-1 is over an edge; in the first passage one pair of three is alike, in the last there is none
    assert repeated_first_choice(ROUTING, READING.passage_T) == pytest.approx((0.5, 1 / 3, 0.5))
    drawn = Routing(torch.zeros(5000, 3), torch.randint(3, (5000, 1)), torch.ones(5000, 1))
    found, in_passage, by_load = repeated_first_choice(drawn, torch.arange(5000) // 10)
    assert found == pytest.approx(by_load, abs=0.03) and in_passage == pytest.approx(by_load, abs=0.02)


def test_mass_is_weight_not_calls():
    assert mass(ROUTING, READING.domain_T, 2).tolist() == [[0.625, 0.125, 0.25], [0.0, 0.75, 0.25]]


def test_blanks_before_a_word_say_nothing_of_its_kind():
    assert [kind_of(t) for t in ("Ġthe", "▁12", "0xff", " ", "", "\n\n", "_x")] == [
        "small letter", "number", "sign", "blank", "blank", "blank", "sign"]


def test_a_model_reads_documents_piece_by_piece_beside_random_routers():
    real = own_model()
    documents = [Document("x", "a", "the cat sat on the mat, " * 5, "test"), Document("y", "b", "x = 1\n" * 30, "test")]
    reading = read_documents(real, documents, characters=60, passages=2, draws=2)
    assert len(reading.tokens) == len(reading.passage_T) == len(reading.domain_T)
    assert set(reading.passage_T.tolist()) == {0, 1, 2, 3} and reading.domain_T.tolist() == sorted(reading.domain_T.tolist())
    first = real.route(documents[0].text[:60])
    for name, routing in reading.routings.items():
        torch.testing.assert_close(routing.gates[:first[name].num_tokens], first[name].gates)
        ids = [routing.expert_ids, *(other.expert_ids for other in reading.random[name])]
        assert len(ids) == 3 and len({one.shape for one in ids}) == 1
        assert not any(torch.equal(one, other) for one, other in itertools.combinations(ids, 2)), "each draw is another router"
    with pytest.raises(ValueError, match="no document"):
        read_documents(real, [])


def test_a_measure_of_the_trained_router_has_its_place_among_those_of_random_ones():
    one = own_model().route("the cat")
    name, routing = next(iter(one.items()))
    others = [routing.reweighted(routing.weights * factor) for factor in (2, 3)]
    reading = Reading((), (), torch.tensor([]), torch.tensor([]), {name: routing}, {name: others})
    between = 2.5 * routing.weights.sum().item()
    for measure, above in ((lambda one: one.weights.sum().item(), 0), (lambda one: -one.weights.sum().item(), 2),
                           (lambda one: between if one is routing else one.weights.sum().item(), 1)):
        lowest, highest = sorted(map(measure, others))
        assert reading.beside_random(measure) == [{"mixture": name, "trained": measure(routing), "random, lowest": lowest,
                                                   "highest": highest, "trained is above": f"{above} of 2"}]


def test_without_an_expert_the_loss_changes_where_it_is_called_and_nowhere_else():
    real, text = own_model(), "the cat sat on the mat"
    losses, whole = losses_without(real, [text]), real.loss(text)
    for name, routing in real.route(text).items():
        changed = (losses[name] - whole).abs() > 1e-6
        called = expert_load(routing.expert_ids[:-1], routing.num_experts) > 0  # what follows the last token is not known
        assert torch.equal(changed, called), name


def test_merging_a_real_models_experts_costs_what_merging_ours_does():
    ours, real, text = shipped_model("ladder-gshard")[0], own_model("ladder-gshard"), "def route(x): return x"
    mergings, control = real_mergings(real, moe_blocks(real.model)[1], [text], merges=3, draws=2)
    ids = read_by(ours, text)[0][None]

    assert len(control) == 2 and set(mergings) == {"outputs", "co-routing"}
    for found in mergings.values():
        load = real.route(text)["model.layers.1.mlp"].load

        def loss_of(groups, load=load):
            merged = with_merged_experts(ours, groups, load, layer=1)
            return torch.nn.functional.cross_entropy(merged(ids)[0][0, :-1], ids[0, 1:]).item()

        with torch.no_grad():
            wanted = merging(found.similarity, 3, loss_of)
        assert found.groups == wanted.groups and found.losses == pytest.approx(wanted.losses, abs=1e-4)
