"""The router microscope: what it refuses, and what it shows; test_every_widget_browser.py asks the rest."""

import math

import numpy as np
import pytest
import torch
from router_microscope.cases import decided_model, scope_of
from routings import logits_of, routing_of
from widget_harness import made, put, status, write

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.moe.layers import Router
from moe_lesson.moe.routing import Routing
from moe_lesson.widgets import RouterMicroscope
from moe_lesson.widgets.kit.gates import Gate
from moe_lesson.widgets.router_microscope.data import DRAWS, ORDERS

BARE, RENORMALISED, LATE = ORDERS
MASKED = [[0.0, -math.inf, 1.0, 0.5], [2.0, -math.inf, -math.inf, -math.inf]]


# --- validation ------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = routing_of(logits_of(5, 4), 2)
    for words, routing, named in (
            ("seed is -1; expected a whole number", one, {"seed": -1}),
            ("seed is 0.5", one, {"seed": 0.5}),
            (r"token is 5; expected 0 … 4", one, {"token": 5}),
            ("routing is str; expected a Routing", "x", {}),
            ("no token texts; add them with", Routing(one.logits, one.expert_ids, one.weights), {}),
            ("routing has no token; route a text", routing_of(logits_of(0, 4), 2), {}),
            ("K = 0", routing_of(logits_of(5, 4), 0), {}),
            ("does not follow from its logits with a softmax", routing_of(logits_of(5, 4), 2, Gate("sigmoid")), {}),
            ("does not follow from its logits", routing_of(logits_of(5, 4), 2, Gate(scale=2.0)), {}),
            ("does not follow from its logits", routing_of(logits_of(5, 4), 2, Gate(bias=(9, 0, 0, 0))), {}),
            ("hold NaN or infinity", routing_of(np.full((2, 3), np.nan, np.float32), 2), {})):
        with pytest.raises(ValueError, match=words):
            RouterMicroscope(routing, **named)


def sparse_model(**router):
    sparse = Sparse(8, 2, 8, **router)
    return LanguageModel(ModelConfig((Dense(16), sparse, sparse), layers=3, width=16, heads=2, context=24)).eval()


def test_the_microscope_of_a_model_shows_the_layer_it_is_asked_for():
    model = sparse_model()
    routings = [routing for routing in model.route("a b c") if routing is not None]
    for layer in (0, 1):
        scope = RouterMicroscope.of_model(model, "a b c", layer, origin="toy", token=2, seed=5)
        assert scope.logits == routings[layer].logits.numpy().tobytes() and (scope.token, scope.k) == (2, 2)
        assert (scope.title, scope.origin, scope.seed) == (f"router microscope · layer {layer + 1} of 2", "toy", 5)


def test_a_model_that_the_microscope_cannot_show_is_refused_with_the_reason():
    biased = sparse_model()
    biased.blocks[1].ffn.router.bias[3] = 0.1
    for words, model, arguments in (
            ("scores with a sigmoid; the microscope shows softmax", sparse_model(score="sigmoid"), ("abc",)),
            ("chooses with a bias", biased, ("abc",)),
            (r"layer is 2; this model's MoE layers are 0 … 1", sparse_model(), ("abc", 2)),
            ("layer is -1", sparse_model(), ("abc", -1)),
            ("the text is empty", sparse_model(), ("",))):
        with pytest.raises(ValueError, match=words):
            RouterMicroscope.of_model(model, *arguments)


@pytest.mark.parametrize("spread", [1e-4, 0.02, 1.0, 300.0])
def test_the_scales_follow_the_logits_and_differences_can_be_read(spread):
    logits = logits_of(9, 12, spread=spread)
    scope = scope_of(logits=logits)
    assert 2 * logits.std() / 1.3 < scope.noise_limit < 2 * logits.std() * 1.7
    assert float(f"{scope.noise_limit / 50:.{scope.digits}f}") > 0


@pytest.mark.parametrize("logit", [0.0, 0.1, -7.7])
def test_equal_logits_leave_room_for_noise(logit):
    assert scope_of(logits=np.full((2, 7), logit), k=2).noise_limit == 2


def test_a_seed_is_a_set_of_draws():
    first, again, other = (scope_of(seed=seed).draws for seed in (0, 0, 1))
    assert first == again != other


# --- mathematics: the browser does what the package does -----------------------------------------------------------------


def cases() -> dict[str, RouterMicroscope]:
    """The corners where two implementations part ways."""
    settings = {"token": 2, "noise": 0.7, "draw": 31, "k": 5, "temperature": 0.3}
    return {
        "as recorded": scope_of(),
        **{f"noise, {order}": made(scope_of(), order=order, **settings) for order in ORDERS},
        **{f"k = N, {order}": made(scope_of(), k=12, order=order, noise=1.0) for order in ORDERS},
        **{f"k = 1, {order}": made(scope_of(), k=1, order=order) for order in ORDERS},
        **{f"a tiny temperature, {order}": made(scope_of(logits=1e4 * logits_of(9, 12)), temperature=0.1, order=order)
           for order in ORDERS},
        "a temperature near infinity": made(scope_of(logits=1e-6 * logits_of(9, 12)), temperature=10.0, noise=1e-6),
        "masked experts": made(scope_of(logits=MASKED, k=2), k=3, noise=0.5),
        "one expert": made(scope_of(5, 1, 1), noise=0.5),
        "many experts": made(scope_of(5, 200, 64), noise=2.0),
    }


def golden(name: str, scope: RouterMicroscope) -> dict:
    """What a router with these logits does: the package's own top-k and softmax, in float64."""
    N = scope.num_experts
    quiet = torch.from_numpy(np.frombuffer(scope.logits, np.float32).reshape(-1, N)[scope.token].astype(np.float64))
    draws = torch.from_numpy(np.frombuffer(scope.draws, np.float32).reshape(DRAWS, N).astype(np.float64))

    def routed(logits):
        scaled = logits[None] / scope.temperature
        ids = logits.topk(scope.k).indices[None]
        weights = Gate(renormalise=scope.order != BARE).route(scaled, scope.k).weights if scope.order != LATE else (
            scaled.gather(1, ids).softmax(-1))
        return ids[0], weights[0].sort(descending=True).values

    ids, weights = routed(quiet + scope.noise * draws[scope.draw - 1])
    chosen = [routed(quiet + scope.noise * draw)[0] for draw in draws]
    return {"name": name, "logits": [logit if math.isfinite(logit) else None for logit in quiet.tolist()],
            "draws": draws.flatten().tolist(), "ids": ids.tolist(),
            "state": {"token": 0, "num_experts": N, "noise": scope.noise, "draw": scope.draw, "k": scope.k,
                      "temperature": scope.temperature, "order": scope.order},
            "weights": weights.tolist(), "counts": torch.stack(chosen).flatten().bincount(minlength=N).tolist(),
            "others": sum(set(one.tolist()) != set(routed(quiet)[0].tolist()) for one in chosen)}


def test_javascript_computes_what_python_does(node):
    vectors = {"cases": [golden(name, scope) for name, scope in cases().items()]}
    printed = node("router_microscope/router_microscope.test.mjs", vectors)
    assert f"pass {len(vectors['cases']) + 3}" in printed  # every case ran


# --- what it shows -----------------------------------------------------------------------------------------------------


def test_the_default_state_is_what_the_router_did(show):
    torch.manual_seed(0)
    for renormalise, order in ((True, RENORMALISED), (False, BARE)):
        with torch.no_grad():
            routing = Router(16, 12, 3, renormalise=renormalise)(torch.randn(30, 16)).with_tokens(["t"] * 30)
        page = show(RouterMicroscope(routing, token=4))
        goes = ", ".join(f"{n} ({weight:.2f})" for n, weight in zip(routing.expert_ids[4].tolist(), routing.weights[4].tolist()))
        assert f"as the router does it. Chosen: experts {goes}." in status(page)
        assert page.get_by_label(order, exact=True).is_checked()


@pytest.mark.parametrize("what_if", [{"k": 4}, {"temperature": 2.0}, {"noise": 0.1}, {"order": BARE}])
def test_what_the_router_did_not_do_is_called_a_what_if(show, what_if):
    page = show(made(scope_of(), token=3, draw=9, by_logit=True))
    assert ", as the router does it." in status(page)
    assert ", a what-if." in put(page, **what_if)


def test_an_expert_is_read_with_its_logit_its_probability_and_its_weight(show):
    scope = scope_of(token=4)
    logits = torch.from_numpy(np.frombuffer(scope.logits, np.float32).reshape(21, 12)[4].copy())
    (best,), page = logits.topk(1).indices.tolist(), show(scope)
    page.get_by_role("application").focus()
    for _ in range(best + 1):
        page.keyboard.press("ArrowRight")
    weight = logits.topk(3).values.softmax(-1)[0]
    probability = logits.softmax(-1)[best]
    assert f"Expert {best}: logit {logits[best]:.2f}, probability {probability:.3f}, weight {weight:.2f}." in status(page)
    page.keyboard.press("Enter")
    status(page)
    assert page.evaluate("model.get('locked_expert')") == best


def test_bars_are_as_high_as_their_numbers_and_sorting_moves_them(show):
    scope = scope_of(token=4)
    logits = np.frombuffer(scope.logits, np.float32).reshape(21, 12)[4]
    page = show(scope)
    read = """() => [...document.querySelectorAll(".moe-chart")[1].querySelectorAll("rect.moe-bar")]
      .map((bar) => [Number(bar.getAttribute("x")), Number(bar.getAttribute("height"))]).sort((a, b) => a[0] - b[0])"""
    status(page)
    heights = [height for _, height in page.evaluate(read)]
    shares = np.exp(logits) / np.exp(logits).sum()
    assert np.array(heights) / sum(heights) == pytest.approx(shares, abs=1e-6)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("sort the experts by logit").check()
    status(page)
    sorted_heights = [height for _, height in page.evaluate(read)]
    assert sorted_heights == pytest.approx(sorted(heights, reverse=True)) and sorted_heights != pytest.approx(heights)


def test_the_whole_sentence_stands_there_and_a_click_chooses_a_token(show):
    scope = scope_of(token=4)
    page = show(scope, live=True)
    assert page.locator(".moe-strip").inner_text() == "abcdefghijklmnopqrstu"
    page.get_by_role("option").nth(7).click()
    assert status(page).startswith("Token 7 'h'") and page.locator(".moe-strip .moe-looked").inner_text() == "h"
    page.keyboard.press("Escape")
    assert status(page).startswith("Token 7 'h'")
    page.wait_for_function("model.saved.length > 0")
    assert scope.token == 7


# --- another text, which the model reads in the browser ------------------------------------------------------------------

BARS = """() => [...document.querySelector(".moe-chart").querySelectorAll("rect.moe-bar")]
  .sort((a, b) => a.getAttribute("x") - b.getAttribute("x")).map((bar) => Number(bar.getAttribute("height")))"""


@pytest.mark.parametrize("vocabulary,text", [(256, "中 moon"), (1024, "中 return the moon, 😀"), (1024, "x")])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_text_is_routed_as_the_model_routes_it(show, vocabulary, text, layer):
    model = decided_model(vocabulary=vocabulary)
    page = show(RouterMicroscope.of_model(model, "a b c", layer, origin="toy"))
    write(page, "Your text", text)
    routing = model.route(text)[layer]
    page.wait_for_function(f"document.querySelectorAll('.moe-token').length === {routing.num_tokens}")
    for token in range(routing.num_tokens):
        said = put(page, token=token)
        weights = 4 * routing.weights[token]  # the router's scale is a quarter
        goes = ", ".join(f"{n} ({weight:.2f})" for n, weight in zip(routing.expert_ids[token].tolist(), weights.tolist()))
        assert said.startswith(f"Token {token} '{routing.tokens[token]}', K = 3 of 12 experts, as the router does it. "
                               f"Chosen: experts {goes}. The weights sum to 1.00 (the router then multiplies them by 0.25)")
        heights = np.array(page.evaluate(BARS))  # no bar leaves the axis
        assert heights / heights.sum() == pytest.approx((routing.logits[token].abs() / routing.logits[token].abs().sum()).numpy(),
                                                        abs=1e-5)
    page.get_by_role("button", name="Reset").click()
    assert status(page).startswith("Token 0 'a'") and "".join(page.get_by_role("option").all_inner_texts()) == "a␣b␣c"


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_titles_stay_within_a_phone(show, noise):
    page = show(made(scope_of(), noise=noise, draw=31), viewport={"width": 390, "height": 844})
    status(page)
    root = page.locator(".moe-root").bounding_box()
    assert all(box["x"] + box["width"] < root["x"] + root["width"] - 4
               for box in (word.bounding_box() for word in page.locator(".moe-word").all()))
