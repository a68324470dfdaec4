"""The capacity view: what it refuses, and by meaning what it shows; test_every_widget_browser.py asks the rest."""

import math

import numpy as np
import pytest
import torch
from capacity_view.cases import chosen, crowd, view_of
from router_microscope.cases import decided_model
from routings import logits_of, routing_of
from widget_harness import made, marked, put, status, write, written

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.moe.balance import capacity_for, keep_within
from moe_lesson.moe.routing import Routing
from moe_lesson.widgets import CapacityView
from moe_lesson.widgets.capacity_view.data import BATCHES, FACTORS, RULES, SHUFFLES

# --- what it refuses ---------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = routing_of(logits_of(5, 4), 2)
    broken = Routing(one.logits, one.expert_ids, one.weights.clone(), one.tokens)
    broken.weights[2, 1] = math.nan
    for words, routings, named in (
            ("seed is -1; expected a whole number", [one], {"seed": -1}),
            ("seed is 0.5", [one], {"seed": 0.5}),
            ("routings is Routing; expected a list, one Routing per MoE layer", one, {}),
            ("routings is empty", [], {}),
            (r"routings\[1\] is str; expected a Routing", [one, "x"], {}),
            ("no token texts; add them with", [Routing(one.logits, one.expert_ids, one.weights)], {}),
            (r"routings\[0\] has no token; route a text", [routing_of(logits_of(0, 4), 2)], {}),
            (r"has 301 tokens; the map shows 1 … 300, route a piece", [routing_of(logits_of(301, 4), 2)], {}),
            ("other tokens", [one, one.with_tokens("vwxyz")], {}),
            ("K = 0", [routing_of(logits_of(5, 4), 0)], {}),
            ("K = 3, .* has 2", [one, routing_of(logits_of(5, 4), 3)], {}),
            ("weights hold NaN, infinity or a negative", [broken], {}),
            ("weights hold NaN, infinity or a negative", [one.reweighted(-one.weights)], {})):
        with pytest.raises(ValueError, match=words):
            CapacityView(routings, **named)


def test_the_view_of_a_model_shows_its_own_choices():
    sparse = Sparse(8, 2, 8)
    model = LanguageModel(ModelConfig((Dense(16), sparse, sparse), layers=3, width=16, heads=2, context=24)).eval()
    view = CapacityView.of_model(model, "a b c", origin="toy", title="x", seed=5)
    routings = [routing for routing in model.route("a b c") if routing is not None]
    assert view.expert_ids == b"".join(routing.expert_ids.numpy().astype(np.int32).tobytes() for routing in routings)
    assert (view.tokens, view.sizes, view.origin, view.title, view.seed) == (["a", "␣b", "␣c"], [8, 8], "toy", "x", 5)
    with pytest.raises(ValueError, match="the text is empty"):
        CapacityView.of_model(model, "")


def test_layers_may_differ_in_their_experts_and_share_their_limits(show):
    page = show(CapacityView([routing_of(logits_of(30, n), 3) for n in (12, 5)], origin="toy"))
    for layer in (1, 0):
        assert "72 tokens" in dict(written(page, {"layer": layer}))  # 4 · 3·30/5 seats in the smaller layer


def test_shuffles_are_permutations_and_a_seed_is_a_set_of_them():
    first, again, other = (view_of(seed=seed).shuffles for seed in (0, 0, 1))
    queues = np.frombuffer(first, np.int32).reshape(SHUFFLES, 21)
    assert all(sorted(queue) == list(range(21)) for queue in queues) and len({queue.tobytes() for queue in queues}) == SHUFFLES
    assert first == again != other


# --- mathematics: the browser queues as the package does -----------------------------------------------------------------


def golden(name: str, routing: Routing, factor, by: str, queue: np.ndarray) -> dict:
    """Who is kept, by the package: the tokens stand in the order of the queue, and come back to the text's."""
    order = torch.from_numpy(queue)
    stood = Routing(routing.logits[order], routing.expert_ids[order], routing.weights[order])
    room = capacity_for(routing, factor) if factor else None
    kept = torch.ones_like(routing.expert_ids, dtype=torch.bool)
    if room is not None:
        kept[order] = keep_within(stood, room, by)
    lost = (~kept).sum(1)
    T, K = kept.shape
    return {"name": name, "T": T, "N": routing.num_experts, "k": K, "ids": routing.expert_ids.flatten().tolist(),
            "weights": routing.weights.flatten().tolist(), "queue": queue.tolist(), "factor": factor, "by": by, "room": room,
            "kept": kept.int().flatten().tolist(), "dropped": int(lost.sum()), "stranded": int((lost == K).sum()),
            "late": int(lost[order][(T + 1) // 2:].sum()),
            "weight": float(routing.weights[~kept].sum() / (routing.weights.sum() or 1)),
            "empty": None if room is None else routing.num_experts * room - int(kept.sum())}


def golden_limits() -> dict:
    """Of layers where one has the larger rooms, another the largest weight, and a crowd the highest load."""
    crowd_of_41 = chosen(np.zeros((41, 2), int), np.full((41, 2), 0.5), 9)
    routings = [routing_of(logits_of(41, 12), 2), routing_of(logits_of(41, 6), 2), crowd_of_41]
    layers = [{"T": 41, "N": one.num_experts, "k": 2, "ids": one.expert_ids.flatten().tolist(),
               "weights": one.weights.double().flatten().tolist()} for one in routings]
    rooms, loads = [capacity_for(one, 4.0) for one in routings], [int(one.load.max()) for one in routings]
    return {"layers": layers, "factors": FACTORS, "load": max(rooms + loads),
            "weight": max(float(one.weights.max()) for one in routings)}


def test_javascript_drops_what_python_drops(node):
    text, queues = np.arange(41), {"as written": np.arange(41), "reversed": np.arange(41)[::-1].copy(),
                                   "shuffled": np.random.default_rng(0).permutation(41)}
    cases = [golden(f"{by}, {batch}, {factor}", routing_of(logits_of(41, 6), 2), factor, by, queue)
             for by in RULES for batch, queue in queues.items() for factor in FACTORS]
    cases += [golden(f"ties, {by}", chosen(np.zeros((41, 1), int), np.ones((41, 1)), 4), 1.0, by, text) for by in RULES]
    cases += [golden(f"no weight, {by}", chosen(np.zeros((41, 1), int), np.zeros((41, 1)), 4), 1.0, by, text) for by in RULES]
    cases += [golden("all experts", routing_of(logits_of(41, 6), 6), 0.5, "order", text)]
    printed = node("capacity_view/capacity_view.test.mjs", {"cases": cases, "limits": golden_limits()})
    assert f"pass {len(cases) + 1}" in printed  # every case ran


# --- what it shows -----------------------------------------------------------------------------------------------------


def test_first_come_the_order_of_the_batch_decides_who_is_dropped(show):
    page = show(crowd())  # 8 tokens want one expert, which has room for 2
    assert marked(page, "chosen") == [2, 3, 4, 5, 6, 7]
    page.get_by_label("reversed").check()
    assert marked(page, "chosen") == [0, 1, 2, 3, 4, 5]
    page.get_by_label("highest weight").check()
    for batch in BATCHES:
        page.get_by_label(batch).check()
        assert marked(page, "chosen") == [0, 1, 2, 3, 4, 5]


def test_the_numbers_are_true(show):
    view = made(crowd(), batch="reversed")
    assert status(show(view)) == (
        "Layer 1 of 1. Room for 2 tokens in each expert: 6 of 8 (75.0%) choices are dropped, 4 of them in the batch's later "
        "half, with 58.3% of the weight; 6 tokens are left without any expert. 6 of 8 (75.0%) seats stay empty.")
    words = status(show(made(view, factor=None)))
    assert "No limit: 0 of 8 (0.0%) choices are dropped, with 0.0%" in words and "No seats are reserved." in words


def test_a_token_hears_which_of_its_experts_kept_it(show):
    routing = chosen([[0, 1], [0, 2], [0, 1]], [[0.75, 0.25], [0.5, 0.5], [0.9, 0.1]], 3)
    page = show(CapacityView([routing], origin="toy"))  # room for 2
    page.get_by_role("application").focus()
    page.keyboard.press("End")
    assert "token 2 'c' at place 2 of the batch is kept by expert 1 (0.10), dropped by expert 0 (0.90)." in status(page)
    assert page.locator(".moe-alike").all_inner_texts() == ["c"] and marked(page, "chosen") == []
    page.keyboard.press("Enter")
    status(page)
    assert page.evaluate("model.get('locked_token')") == 2
    page.keyboard.press("Escape")
    assert "seats stay empty" in status(page)


def test_the_mouse_points_in_the_map_and_in_the_text(show):
    page = show(crowd())
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 5 + 18 * 3.5)
    assert "token 3 'd'" in status(page)
    page.get_by_label("reversed").check()
    page.mouse.move(box["x"] + 200, box["y"] + 5 + 18 * 0.5)
    assert "token 7 'h' at place 0" in status(page) and "is kept by expert 0 (1.00)." in status(page)
    page.get_by_role("option").nth(1).hover()
    assert "token 1 'b'" in status(page) and "It passes the layer by on the residual." in status(page)


def test_a_shuffle_can_be_chosen_where_there_is_one(show):
    page = show(view_of())
    page.get_by_text("More", exact=True).click()
    assert page.get_by_label("which shuffle").is_disabled()
    page.get_by_label("shuffled", exact=True).check()
    status(page)
    assert page.get_by_label("which shuffle").is_enabled()


# --- another text, which the model reads in the browser ------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary,text", [(256, "中 the moon and the sea"), (1024, "中 return the moon, and the value of 😀")])
def test_a_texts_tokens_are_dropped_as_python_drops_them(show, vocabulary, text):
    model = decided_model(vocabulary=vocabulary)
    view = CapacityView.of_model(model, "a b c", origin="toy")
    page = show(view)
    write(page, "Your text", text)
    routings = model.route(text)
    T = routings[0].num_tokens
    page.wait_for_function(f"document.querySelectorAll('.moe-token').length === {T}")
    shuffled = [token for token in np.frombuffer(view.shuffles, np.int32).reshape(SHUFFLES, -1)[2] if token < T]
    queues = {"as written": range(T), "reversed": range(T)[::-1], "shuffled": shuffled}
    assert sorted(shuffled) == list(range(T)) != shuffled
    for layer, routing in enumerate(routings):
        for batch, queue in queues.items():
            for by in RULES:
                put(page, layer=layer, batch=batch, by=by, shuffle=3, factor=0.75, locked_token=None)
                true = golden("", routing, 0.75, by, np.array(queue))
                left = np.array(true["kept"]).reshape(T, -1).sum(1)
                assert marked(page, "chosen") == np.flatnonzero(left == 0).tolist()
                assert marked(page, "alike") == np.flatnonzero((0 < left) & (left < 3)).tolist()
                assert f"{true['dropped']} of {3 * T} ({true['dropped'] / (3 * T):.1%}) choices are dropped" in status(page)
                assert f"{true['late']} of them in the batch's later half, with {true['weight']:.1%} of" in status(page)
    page.get_by_role("button", name="Reset").click()
    status(page)
    assert "".join(page.get_by_role("option").all_inner_texts()) == "a␣b␣c"
