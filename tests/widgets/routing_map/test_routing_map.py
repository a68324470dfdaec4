"""The routing map: what it refuses, and by meaning what it shows. test_every_widget_browser.py asks the rest."""

import base64
import math

import pytest
import torch
from every_widget import map_of_a_model, small_map
from routing_map.cases import map_of
from routings import PLAIN, logits_of, routing_of
from traitlets import TraitError
from widget_harness import browser_state, dots, marked, put, status, write, written

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.measure.nulls import route_beside_null
from moe_lesson.moe.layers import Router
from moe_lesson.moe.routing import Routing
from moe_lesson.widgets import RoutingMap
from moe_lesson.widgets.kit.gates import Gate
from moe_lesson.widgets.kit.weights import weights_of

# --- what it refuses --------------------------------------------------------------------------------------------------


def refused(words, *args, **named):
    with pytest.raises(ValueError, match=words):
        RoutingMap(*args, **named)


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = routing_of(logits_of(5, 4), 2)
    refused("origin is 'real'; say where .* trained, toy, synthetic", [one], origin="real")
    refused("routings is empty", [])
    refused("routings is Routing; expected a list, one Routing per MoE layer", one)
    refused(r"routings\[0\] is str; expected a Routing", ["x"])
    refused("no token texts; add them with", [Routing(one.logits, one.expert_ids, one.weights)])
    refused("has no token; route a text", [routing_of(logits_of(0, 4), 2)])
    refused("other tokens", [one, one.with_tokens("vwxyz")])
    refused("K = 3, .* has 2", [one, routing_of(logits_of(5, 4), 3)])
    refused("null has .* same size", [one], null=[routing_of(logits_of(5, 6), 2)])
    refused("null has 2 layers; expected 1", [one], null=[one, one])
    refused("routings has 1 layers; expected 2", [one], routers=[PLAIN, PLAIN])
    refused("4 experts, but the bias has 3 numbers", [one], routers=[Gate(bias=(0, 0, 0))])
    for words, wrong in (("unknown score 'relu'; choose one of softmax, sigmoid", {"score": "relu"}),
                         ("scale is 0", {"scale": 0}), ("bias holds NaN", {"bias": (0, 0, 0, math.nan)})):
        with pytest.raises(ValueError, match=words):
            Gate(**wrong)
    refused("num_shared is -1", [one], num_shared=-1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused(value):
    routing = routing_of(logits_of(5, 4), 2)
    routing.logits[2, 1] = value
    refused("hold NaN or infinity", [routing])


@pytest.mark.parametrize("wrong", [{"score": "sigmoid"}, {"renormalise": False}, {"scale": 2.0}, {"bias": (9, 0, 0, 0)}])
def test_a_gate_that_does_not_reproduce_the_record_is_refused(wrong):
    refused("does not follow from its logits", [routing_of(logits_of(9, 4), 2)], routers=[Gate(**wrong)])


def test_a_bfloat16_routing_is_read():
    torch.manual_seed(0)
    with torch.no_grad():
        routing = Router(16, 12, 3)(torch.randn(30, 16))
    RoutingMap([type(routing)(routing.logits, routing.expert_ids, routing.weights.bfloat16(), ("t",) * 30)])


def test_an_empty_text_has_no_map():
    with pytest.raises(ValueError, match="the text is empty"):
        small_map(text="")


def test_without_a_null_there_is_no_random_router():
    with pytest.raises(TraitError, match="router is .*; choose one of model"):
        map_of(null=False).router = "null"


@pytest.mark.parametrize("change", [{"layer": 1}, {"router": "null"}])
def test_an_expert_is_let_go_where_its_number_means_another(change):
    widget = map_of()
    widget.locked_expert, widget.locked_token = 3, 4
    widget.set_state(change)  # as the browser sends it
    assert widget.locked_expert is None and widget.locked_token == 4


def test_layers_may_differ_in_their_experts():
    widget = RoutingMap([routing_of(logits_of(6, n), 3) for n in (12, 5)], origin="toy")
    widget.k = 9
    widget.layer = 1
    assert widget.k == 5


def test_it_opens_with_a_letter_that_comes_back():
    assert map_of(["a", "b", "\u2423", "b", "\u2423", "\u2423"]).locked_token == 1 and map_of(["a", "b"]).locked_token is None


# --- what it shows ----------------------------------------------------------------------------------------------------


def routing_shown(layer: int = 0, tokens: int = 21):
    return routing_of(logits_of(tokens, 12, layer), 3)


def heat_map(page):
    return page.get_by_role("application")


def test_it_says_which_expert_is_busiest_and_where_the_data_comes_from(show):
    page = show(map_of(num_shared=2))
    load = routing_shown().load
    assert f"Busiest: expert {int(load.argmax())}, chosen by {int(load.max())} of 21 tokens" in status(page)
    assert "2 shared experts see every token" in status(page)
    assert page.locator(".moe-badge").inner_text() == "synthetic" and page.get_by_text("K = 3 (as recorded)").is_visible()


def test_sliders_answer_to_keys_and_tell_python_the_settled_value(show):
    page = show(map_of())
    page.get_by_label("K, experts per token").focus()
    page.keyboard.press("ArrowRight")
    assert "K = 4 of 12 experts" in status(page) and "a what-if: the model ran with K = 3" in status(page)
    page.keyboard.press("End")
    page.get_by_label("Layer").focus()
    page.keyboard.press("ArrowRight")
    assert status(page).startswith("Layer 2 of 2, K = 12")
    saved = {name: value for message in page.evaluate("model.saved") for name, value in message.items()}
    assert (saved["layer"], saved["k"], saved["locked_expert"]) == (1, 12, None)


def test_the_random_router_is_never_shown_as_the_models(show):
    page = show(map_of(origin="trained"))
    assert page.locator(".moe-badge").inner_text() == "trained" and "trained router" in status(page)
    page.get_by_label("random (null)").check()
    assert "random router (null)" in status(page) and "trained router" not in status(page)
    assert page.locator(".moe-badge").inner_text() == "random router (null)"


def test_arrow_keys_read_the_map_and_enter_keeps_a_cell(show):
    page = show(map_of())
    routing = routing_shown()
    heat_map(page).focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    chosen = 1 in routing.expert_ids[2].tolist()
    assert ("Token 2 'c' gives expert 1" if chosen else "Token 2 'c' did not choose expert 1") in status(page)
    page.keyboard.press("Enter")
    page.get_by_label("K, experts per token").focus()
    assert "Token 2 'c'" in status(page)  # locked: it stays when the focus goes
    heat_map(page).focus()
    page.keyboard.press("Escape")
    assert "Busiest" in status(page)
    assert page.evaluate("[model.get('locked_token'), model.get('locked_expert')]") == [None, None]


def test_the_cursor_stays_in_sight_in_a_long_text(show):
    page = show(map_of(240))
    heat_map(page).focus()
    for _ in range(12):
        page.keyboard.press("PageDown")
    assert "Token 120" in status(page)
    top, height = page.locator(".moe-scroller").evaluate("(node) => [node.scrollTop, node.clientHeight]")
    assert top <= 120 * 18 and 121 * 18 <= top + height


def test_the_strip_is_one_tab_stop_and_arrow_keys_walk_it(show):
    page = show(map_of())
    options = page.get_by_role("option")
    assert options.count() == 21 and page.locator(".moe-token[tabindex='0']").count() == 1
    options.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert "Token 1 'b'" in status(page)
    page.keyboard.press("Enter")
    status(page)
    assert options.nth(1).get_attribute("aria-selected") == "true" and page.evaluate("model.get('locked_token')") == 1
    page.keyboard.press("Enter")
    assert page.evaluate("model.get('locked_token')") is None


def test_an_expert_lights_up_its_tokens_and_a_token_those_that_travel_with_it(show):
    routing = routing_shown()
    expert, ids = int(routing.load.argmax()), routing.expert_ids.tolist()
    page = show(map_of())
    assert f"Expert {expert} is chosen by {int(routing.load.max())} of 21 tokens" in put(page, locked_expert=expert)
    assert marked(page, "chosen") == [t for t in range(21) if expert in ids[t]]
    put(page, locked_token=4, locked_expert=None)
    assert marked(page, "alike") == [t for t in range(21) if t != 4 and 2 * len(set(ids[t]) & set(ids[4])) >= 3]
    best = ids[4][0]
    assert f"Token 4 'e' goes to experts {best} ({routing.weights[4, 0]:.2f})" in status(page)


def test_ribbons_lead_from_the_token_to_its_experts_whose_numbers_stand_there(show):
    page, orange = show(map_of(experts=40)), (217, 102, 10)
    bare = dots(page, orange)
    chosen = set(map(str, routing_of(logits_of(21, 40), 3).expert_ids[4].tolist()))
    assert {text for text, _ in written(page, {"locked_token": 4})} >= chosen
    assert dots(page, orange) > bare + 300
    put(page, locked_token=None)
    assert dots(page, orange) == bare and not {text for text, _ in written(page, {"k": 2})} >= chosen


def test_the_mouse_points_and_clicks(show):
    page = show(map_of())
    box = page.locator(".moe-heat").bounding_box()
    x, y = box["x"] + 112 + 5.5 * (box["width"] - 120) / 12, box["y"] + 3 * 18 + 9
    for move, words in ((page.mouse.move, "Token 3 'd'"), (page.mouse.click, "Token 3 'd'")):
        move(x, y)
        assert words in status(page) and "expert 5" in status(page)
    page.mouse.move(5, 5)
    assert "Token 3 'd'" in status(page)
    page.keyboard.press("ArrowRight")  # from where it was clicked, wherever the keyboard stood before
    assert "Token 3 'd'" in status(page) and "expert 6" in status(page)
    page.keyboard.press("ArrowLeft")
    page.mouse.click(x, y)
    page.mouse.move(5, 5)
    assert "Busiest" in status(page)
    bars = page.locator(".moe-load").bounding_box()
    page.mouse.click(x, bars["y"] + 30)
    page.mouse.move(5, 5)
    assert "Expert 5 is chosen by" in status(page)


# --- another text, which the model reads in the browser ------------------------------------------------------------------


def test_the_routings_of_a_text_sent_and_computed_are_the_packages(node):
    config = ModelConfig((Sparse(5, 2, 8), Sparse(8, 2, 8, scale=2.0)), layers=2, width=16, heads=2, context=24)
    model = LanguageModel(config).eval()
    texts = []
    for text, sent in (("a b c", True), ("a b c", False), ("the 中 moon", False)):
        both = dict(zip(("model", "null"), route_beside_null(model, text)))
        every = [routing for layers in both.values() for routing in layers]
        limits = [max(one.weights.max().item() for one in every),
                  math.ceil(max((one.load.max() * one.num_experts / one.load.sum()).item() for one in every))]
        routers = {name: [{"k": 2, "ids": one.expert_ids.flatten().tolist(), "weights": one.weights.flatten().tolist()}
                          for one in layers] for name, layers in both.items()}
        texts.append({"text": text, "sent": sent, "tokens": list(every[0].tokens), "routers": routers, "limits": limits})
    vectors = {"state": browser_state(RoutingMap.of_model(model, "a b c", origin="toy")), "texts": texts, "k": 2,
               "file": base64.b64encode(weights_of(model).data).decode()}
    assert "pass 3" in node("routing_map/routing_map.test.mjs", vectors)


def test_a_model_that_could_not_be_fetched_is_asked_for_again_when_something_is_typed(show):
    model = LanguageModel(ModelConfig(Sparse(8, 2, 8), layers=1, width=16, heads=2, context=24, vocabulary=256)).eval()
    page = show(RoutingMap.of_model(model, "a b c", origin="toy"))
    page.evaluate("""() => { const { get_model } = model.widget_manager; window.calls = 0;
      model.widget_manager = { get_model: (id) => (++calls === 1 ? Promise.reject(new Error("offline")) : get_model(id)) }; }""")
    write(page, "Your text", "sea")
    page.get_by_text("could not be fetched: type again").wait_for()
    assert page.evaluate("calls") == 1 and page.locator(".moe-token").count() == 5
    page.locator(".moe-token").first.hover()  # another drawing takes nothing away
    status(page)
    assert page.get_by_label("Your text").input_value() == "sea" and page.get_by_text("type again").is_visible()
    write(page, "Your text", "seas")
    page.wait_for_function("document.querySelectorAll('.moe-token').length === 4")


@pytest.mark.parametrize("vocabulary,tokens", [(256, 8), (1024, 6)])  # ␣m and on are tokens
def test_a_text_is_routed_as_the_model_routes_it(show, vocabulary, tokens):
    model = LanguageModel(ModelConfig((Dense(16), Sparse(8, 2, 8, scale=2.0)), layers=2, width=16, heads=2, context=24,
                                      vocabulary=vocabulary)).eval()
    page = show(RoutingMap.of_model(model, "a b c", origin="toy"))
    for router in ("model", "null"):
        put(page, router=router, locked_token=None)
        write(page, "Your text", "中 moon")
        page.wait_for_function(f"document.querySelectorAll('.moe-token').length === {tokens}")
        put(page, locked_token=5)
        trained, null = route_beside_null(model, "中 moon")
        routing = (trained if router == "model" else null)[0]
        goes = ", ".join(f"{n} ({weight:.2f})" for n, weight in zip(routing.expert_ids[5].tolist(), routing.weights[5].tolist()))
        assert f"goes to experts {goes}." in status(page)
        page.get_by_role("button", name="Reset").click()
    assert "".join(page.get_by_role("option").all_inner_texts()) == "a␣b␣c"


def test_without_a_model_there_is_no_text_field(show):
    assert not show(map_of()).locator("input[type=text]").is_visible()
    assert show(map_of_a_model()).locator("input[type=text]").is_visible()
