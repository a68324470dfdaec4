"""The capacity view in Python, and JavaScript beside it: what it refuses, computes, says and draws."""

import base64
import math

import numpy as np
import pytest
import torch
from capacity_view.cases import chosen, crowd, made, view_of
from routings import HOSTILE, logits_of, routing_of
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.lm.checkpoints import shipped_model
from moe_lesson.moe.balance import capacity_for, keep_within, with_capacity
from moe_lesson.moe.routing import Routing
from moe_lesson.widgets import CapacityView
from moe_lesson.widgets.capacity_view.data import BATCHES, FACTORS, RULES, SHUFFLES, draw_capacity, facts
from moe_lesson.widgets.kit.base import VIEW

PNG = b"\x89PNG\r\n"
TEXT = "The capacity of an expert is the number of tokens it can take; whoever comes late is dropped."


def dropped_tokens(view: CapacityView) -> list[int]:
    """The tokens that lost an expert, in the order of the text."""
    return np.flatnonzero(view.shown.left_T < view.top_k).tolist()


@pytest.fixture(scope="module")
def model():
    return shipped_model("topk")[0]


# --- what the learner shall discover ---------------------------------------------------------------------------------


def test_first_come_the_order_of_the_batch_decides_who_is_dropped():
    view = crowd()  # 8 tokens want one expert, which has room for 2
    assert dropped_tokens(view) == [2, 3, 4, 5, 6, 7]
    assert dropped_tokens(made(view, batch="reversed")) == [0, 1, 2, 3, 4, 5]
    shuffled = {tuple(dropped_tokens(made(view, batch="shuffled", shuffle=shuffle))) for shuffle in (1, 2, 3)}
    assert len(shuffled) == 3
    assert view.shown.kept_TK[view.queue[:2]].all()  # whoever stands first is kept, wherever the text has it


def test_with_the_highest_weight_first_the_order_decides_nothing():
    view = made(crowd(), by="weight")
    for batch in BATCHES:
        assert dropped_tokens(made(view, batch=batch)) == [0, 1, 2, 3, 4, 5]


def test_who_comes_first_changes_which_choices_are_dropped_and_never_how_many():
    view = view_of(60)
    found = {(by, batch): made(view, by=by, batch=batch).shown for by in RULES for batch in BATCHES}
    assert len({shown.dropped for shown in found.values()}) == 1
    assert len({shown.kept_TK.tobytes() for shown in found.values()}) == 4  # by weight, all batches drop the same
    lost = {by: found[by, "as written"].weight_dropped[0] for by in RULES}
    assert lost["weight"] < lost["order"]


def test_a_larger_factor_drops_less_and_leaves_more_seats_empty():
    view = view_of(60)
    shown = [made(view, factor=factor).shown for factor in FACTORS[:-1]]
    dropped = [one.dropped for one in shown]
    empty = [one.seats - int(one.kept_TK.sum()) for one in shown]
    assert dropped == sorted(dropped, reverse=True) and empty == sorted(empty) and dropped[0] > dropped[-1] == 0
    view.factor = None
    assert view.shown.dropped == 0 and view.shown.seats is None and "seats left empty: no seats are reserved" in view.summary


def test_the_shipped_router_drops_late_tokens_first_on_one_sentence(model):
    view = CapacityView.of_model(model, TEXT)
    shown = view.shown
    load = shown.routing.load
    assert view.summary.startswith("Layer 1 of 2, trained router: 93 tokens, K = 2 of 16 experts. ") and shown.capacity == 12
    assert shown.dropped > 15 and shown.late > 0.6 * shown.dropped  # the two prices show at once
    assert load.max() > 1.5 * load.double().mean()  # balanced over batches, not over a sentence
    by_weight = made(view, by="weight").shown
    assert by_weight.late < shown.late and by_weight.dropped == shown.dropped


def test_it_drops_what_the_reference_drops():
    routing = routing_of(logits_of(40, 6), 2)
    view = CapacityView([routing], origin="synthetic")
    for factor in FACTORS[:-1]:
        for by in RULES:
            shown = made(view, factor=factor, by=by).shown
            assert np.array_equal(shown.kept_TK, with_capacity(routing, factor, by).weights.numpy() > 0)
            assert shown.capacity == capacity_for(routing, factor)


def test_the_numbers_are_true():
    shown = made(view_of(60, 32), factor=0.25, batch="shuffled", shuffle=3).shown
    lost = ~shown.kept_TK
    late = sum(int(lost[token].sum()) for token in shown.queue_T[30:])
    assert facts(shown) == {
        "choices dropped": f"{lost.sum()} of 180 ({100 * lost.sum() / 180:.1f}%)",
        "dropped in the later half": f"{late} of {lost.sum()}",
        "gate weight dropped": f"{100 * shown.routing.weights.numpy()[lost].sum() / 60:.1f}%",
        "tokens left without any expert": f"{lost.all(1).sum()} of 60 ({100 * lost.all(1).mean():.1f}%)",
        "seats left empty": f"{64 - (180 - lost.sum())} of 64 ({100 * (64 - 180 + lost.sum()) / 64:.1f}%)"}
    assert 0 < late < lost.sum() and 0 < lost.all(1).sum() and 64 > 180 - lost.sum()


def test_a_selected_token_hears_which_of_its_experts_kept_it():
    routing = chosen([[0, 1], [0, 2], [0, 1]], [[0.7, 0.3], [0.6, 0.4], [0.9, 0.1]], 3)
    view = made(CapacityView([routing], origin="toy"), factor=0.5)  # room for 1
    assert made(view, locked_token=0).summary.endswith("Token 0 'a' at place 0 of the batch: kept by experts 0 (0.70), 1 (0.30).")
    assert made(view, locked_token=1).summary.endswith(": kept by expert 2 (0.40), dropped by expert 0 (0.60).")
    assert made(view, locked_token=2).summary.endswith(
        "Token 2 'c' at place 2 of the batch: dropped by experts 0 (0.90), 1 (0.10). It passes the layer by on the residual.")
    assert "Token 2 'c' at place 0 of the batch: kept by experts 0" in made(view, batch="reversed").summary


def test_shuffles_are_permutations_and_a_seed_is_a_set_of_them():
    first, again, other = (made(view_of(seed=seed), batch="shuffled") for seed in (0, 0, 1))
    queues = [made(first, shuffle=shuffle).queue for shuffle in range(1, SHUFFLES + 1)]
    assert all(sorted(queue) == list(range(21)) for queue in queues) and len({queue.tobytes() for queue in queues}) == SHUFFLES
    assert first.shuffles == again.shuffles != other.shuffles
    assert "batch shuffled (shuffle 1, seed 1)" in other.summary


# --- validation ------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = routing_of(logits_of(5, 4), 2)
    broken = Routing(one.logits, one.expert_ids, one.weights.clone(), one.tokens)
    broken.weights[2, 1] = math.nan
    outside = Routing(one.logits, one.expert_ids + 2, one.weights, one.tokens)
    for words, routings, named in (
            ("origin is 'real'; say where .* trained, toy, synthetic", [one], {"origin": "real"}),
            ("seed is -1; expected a whole number", [one], {"seed": -1}),
            ("seed is 0.5", [one], {"seed": 0.5}),
            ("routings is Routing; expected a list, one Routing per MoE layer", one, {}),
            ("routings is empty", [], {}),
            (r"routings\[1\] is str; expected a Routing", [one, "x"], {}),
            ("no token texts; add them with", [Routing(one.logits, one.expert_ids, one.weights)], {}),
            (r"has 0 tokens; the map shows 1 … 300", [routing_of(logits_of(0, 4), 2)], {}),
            (r"has 301 tokens; the map shows 1 … 300, route a piece", [routing_of(logits_of(301, 4), 2)], {}),
            ("other tokens", [one, one.with_tokens("vwxyz")], {}),
            ("K = 0", [routing_of(logits_of(5, 4), 0)], {}),
            ("K = 3, .* has 2", [one, routing_of(logits_of(5, 4), 3)], {}),
            ("expert ids run from 2 to 5; expected 0 to 3", [outside], {}),
            ("weights hold NaN, infinity or a negative", [broken], {}),
            ("weights hold NaN, infinity or a negative", [one.reweighted(-one.weights)], {})):
        with pytest.raises(ValueError, match=words):
            CapacityView(routings, **named)


@pytest.mark.parametrize("trait,value", [("layer", 2), ("layer", -1), ("factor", 0.3), ("factor", -1.0), ("factor", math.nan),
                                         ("by", "luck"), ("batch", "sorted"), ("shuffle", 0), ("shuffle", 21),
                                         ("locked_token", 21), ("locked_token", -1)])
def test_a_control_out_of_range_is_refused_and_nothing_moves(trait, value):
    view = view_of()
    before = view.summary
    with pytest.raises(TraitError, match=f"{trait} is "):
        setattr(view, trait, value)
    assert view.summary == before


def test_the_view_of_a_model_shows_its_own_choices():
    sparse = Sparse(8, 2, 8)
    model = LanguageModel(ModelConfig((Dense(16), sparse, sparse), layers=3, width=16, heads=2, context=24)).eval()
    view = CapacityView.of_model(model, "abc", origin="toy", title="x", seed=5)
    for layer, routing in enumerate(routing for routing in model.route("abc") if routing is not None):
        assert torch.equal(made(view, layer=layer).shown.routing.expert_ids, routing.expert_ids)
    assert (view.tokens, view.sizes, view.origin, view.title, view.seed) == (["a", "b", "c"], [8, 8], "toy", "x", 5)
    for words, wrong, text in (("no MoE layer", LanguageModel(ModelConfig(Dense(16), layers=1, width=16, heads=2)), "abc"),
                               ("the text is empty", model, "")):
        with pytest.raises(ValueError, match=words):
            CapacityView.of_model(wrong, text)


# --- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 21, 300])
@pytest.mark.parametrize("experts,k", [(1, 1), (12, 1), (12, 12), (200, 3)])
def test_every_control_works_at_its_ends(tokens, experts, k):
    view = view_of(tokens, experts, k)
    for layer, factor, by, batch, shuffle in (
            (0, FACTORS[0], "order", "reversed", 1), (1, FACTORS[-2], "weight", "shuffled", SHUFFLES),
            (1, None, "order", "shuffled", 1)):
        made(view, layer=layer, factor=factor, by=by, batch=batch, shuffle=shuffle, locked_token=tokens - 1)
        shown = view.shown
        assert shown.kept_TK.shape == (tokens, k) and (shown.seats is None) == (factor is None)
        assert shown.routing.load.max() <= view.load_limit and (shown.capacity or 0) <= view.load_limit
        assert view.summary.startswith(f"Layer {layer + 1} of 2, synthetic router: {tokens} token")
    assert made(view, factor=FACTORS[0]).picture().startswith(PNG)


def test_layers_may_differ_in_their_experts_and_share_their_limits():
    routings = [routing_of(logits_of(30, n), 3) for n in (12, 5)]
    view = CapacityView(routings, origin="toy")
    assert view.load_limit == 72  # 4 · 3·30/5 seats in the smaller layer
    assert made(view, layer=1).shown.routing.num_experts == 5 and "K = 3 of 5 experts" in view.summary


def test_weights_of_nothing_are_shown_and_any_float_type_is_read():
    one = routing_of(logits_of(9, 4), 2)
    assert "gate weight dropped: 0.0%" in CapacityView([one.reweighted(0 * one.weights)], origin="toy").summary
    half = Routing(one.logits, one.expert_ids, one.weights.bfloat16(), one.tokens)
    kept = keep_within(half, capacity_for(half, 1.0), "weight")
    assert np.array_equal(made(CapacityView([half]), by="weight").shown.kept_TK, kept.numpy())


def test_any_token_survives_the_trip():
    view = view_of(HOSTILE)
    for token in range(len(HOSTILE)):
        (made(view, locked_token=token).summary + repr(view)).encode("utf-8")  # a lone surrogate would raise
    assert view.picture().startswith(PNG)


# --- what a notebook stores ------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_view_and_a_picture():
    view = view_of()
    bundle = view._repr_mimebundle_()[0]
    assert base64.b64decode(bundle["image/png"]).startswith(PNG) and bundle[VIEW]["model_id"] == view.model_id
    view.close()
    assert set(view._repr_mimebundle_()[0]) == {"text/plain", "image/png"}


def test_the_text_form_names_no_instance_and_the_picture_is_the_same_each_time():
    assert repr(view_of()) == repr(view_of()) == "CapacityView('capacity', synthetic: 2 layers, 21 tokens, 3 of 12 experts)"
    assert view_of().picture() == view_of().picture() != made(view_of(), batch="reversed").picture()


def test_the_picture_says_what_it_shows_and_keeps_its_limits():
    view = view_of(60)
    figure, other = draw_capacity(view), draw_capacity(made(view_of(60), layer=1, factor=4.0, batch="shuffled"))
    assert "synthetic router" in figure.get_suptitle() and "capacity factor 1.00: room for 15" in figure.get_suptitle()
    assert "shuffle 1, seed 0" in other.get_suptitle()
    assert [ax.get_ylim() for ax in figure.axes[:3]] == [ax.get_ylim() for ax in other.axes[:3]]
    for name, words in facts(view.shown).items():
        assert f"{name}: {words}" in figure.axes[2].get_xlabel()


def test_the_picture_frames_what_is_dropped_and_marks_its_letters():
    view = view_of(60)
    text, cells, _ = draw_capacity(view).axes[:3]
    assert len(cells.collections[0].get_paths()) == view.shown.dropped > 0
    assert len(text.patches) == len(dropped_tokens(view))
    text, cells, _ = draw_capacity(made(view, factor=None)).axes[:3]
    assert len(cells.collections[0].get_paths()) == len(text.patches) == 0


def test_the_module_needs_nothing_from_elsewhere():
    source = CapacityView._esm
    assert not any(line.lstrip().startswith("import ") for line in source.splitlines())
    assert not any(word in source for word in ("http://", "https://", "innerHTML", "fetch(", "eval(", "import("))
    assert source.count("export default") == 1


# --- JavaScript computes the same and says the same -------------------------------------------------------------------


def cases() -> dict[str, CapacityView]:
    """The corners where two implementations part ways."""
    ties = routing_of(np.random.default_rng(1).integers(0, 2, (40, 6)).astype(np.float32), 2)
    return {
        "the default": view_of(),
        **{f"{by}, {batch}, factor {factor}": made(view_of(40), by=by, batch=batch, factor=factor, shuffle=7, locked_token=33)
           for by in RULES for batch in BATCHES for factor in (0.25, 1.0, 4.0, None)},
        **{f"ties, {by}, {batch}": made(CapacityView([ties], origin="toy"), by=by, batch=batch, locked_token=20)
           for by in RULES for batch in BATCHES},
        **{f"K = 1, {by}": made(view_of(30, 12, 1), by=by, factor=0.5, layer=1, locked_token=29) for by in RULES},
        **{f"K = N, {by}": made(view_of(30, 6, 6), by=by, factor=0.5, locked_token=3) for by in RULES},
        "one token": made(view_of(1), locked_token=0),
        "one expert": made(view_of(5, 1, 1, 1), factor=0.25, locked_token=4),
        "more experts than tokens": view_of(3, 200, 2),
        "a batch of an odd length": made(view_of(7, 3, 1), factor=0.25),
        "layers of different size": made(CapacityView([routing_of(logits_of(30, n), 3) for n in (12, 5)], origin="toy"), layer=1),
        "shares that end in a 5": CapacityView([chosen([[0]] * 16, [[0.25]] * 16, 2)], origin="toy"),
        "weights of nothing": CapacityView([chosen([[0]] * 6, [[0.0]] * 6, 2)], origin="toy"),
        "hostile token": made(view_of(HOSTILE), locked_token=1),
    }


def golden(name: str, view: CapacityView) -> dict:
    shown = view.shown
    return {"name": name, "state": browser_state(view), "queue": shown.queue_T.tolist(), "capacity": shown.capacity,
            "kept": shown.kept_TK.astype(int).flatten().tolist(), "load": shown.routing.load.tolist(),
            "weights": list(shown.weight_dropped), "facts": [list(fact) for fact in facts(shown).items()],
            "summary": view.summary}


def queues() -> list[dict]:
    """Capacities that no slider reaches, against `keep_within` itself: none at all, one seat, and more than tokens."""
    found = []
    ids = torch.from_numpy(np.random.default_rng(2).permuted(np.tile(np.arange(6), (25, 1)), axis=1))
    for k in (1, 2, 6):
        weights = torch.from_numpy(np.random.default_rng(k).integers(0, 4, (25, k)) / 4)  # many ties
        routing = Routing(torch.zeros(25, 6), ids[:, :k], weights)
        for capacity in (0, 1, 3, 25, 40):
            for by in RULES:
                found.append({"name": f"K = {k}, room for {capacity}, {by}", "T": 25, "N": 6, "k": k,
                              "ids": ids[:, :k].flatten().tolist(), "weights": weights.flatten().tolist(),
                              "queue": list(range(25)), "capacity": capacity, "by": by,
                              "kept": keep_within(routing, capacity, by).int().flatten().tolist()})
    return found


def rooms() -> list[dict]:
    sizes = [(1, 1, 1), (93, 16, 2), (30, 200, 3), (7, 3, 3), (300, 64, 6), (49, 7, 5)]
    return [{"T": T, "N": N, "k": k, "factor": factor, "capacity": capacity_for(routing_of(np.zeros((T, N)), k), factor)}
            for T, N, k in sizes for factor in (0, 0.1, 1 / 3, *FACTORS[:-1])]


def test_javascript_computes_and_says_what_python_does(tmp_path):
    vectors = {"cases": [golden(name, view) for name, view in cases().items()], "queues": queues(), "rooms": rooms()}
    printed = run_node("capacity_view", CapacityView._esm, vectors, tmp_path)
    assert f"pass {len(vectors['cases']) + len(vectors['queues']) + 3}" in printed  # every case ran
