"""The router microscope in Python, and JavaScript beside it: what it refuses, computes, says and draws."""

import base64
import math

import numpy as np
import pytest
import torch
from router_microscope.cases import scope_of
from routings import HOSTILE, logits_of, routing_of
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.moe.layers import Router
from moe_lesson.moe.routing import Routing
from moe_lesson.widgets import RouterMicroscope
from moe_lesson.widgets.kit.base import VIEW
from moe_lesson.widgets.kit.gates import Gate, fixed
from moe_lesson.widgets.router_microscope.data import DRAWS, ORDERS, draw_microscope

PNG = b"\x89PNG\r\n"
BARE, RENORMALISED, LATE = ORDERS
MASKED = [[0.0, -math.inf, 1.0, 0.5], [2.0, -math.inf, -math.inf, -math.inf]]


def made(scope: RouterMicroscope, **settings) -> RouterMicroscope:
    for name, value in settings.items():
        setattr(scope, name, value)
    return scope


# --- what the learner shall discover ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_temperature_changes_weights_and_never_the_choice(noise):
    scope = scope_of()
    choices, weights = set(), set()
    for temperature in (0.1, 0.5, 1.0, 3.0, 10.0):
        shown = made(scope, temperature=temperature, noise=noise, draw=7).shown
        choices.add(tuple(shown.ids_K))
        weights.add(tuple(shown.weights_K.round(6)))
    assert len(choices) == 1 and len(weights) == 5


def test_noise_changes_the_choice_the_more_the_closer_the_logits():
    scope = scope_of(logits=[[0.0, gap] for gap in (0.01, 0.3, 1.0)], k=1)
    assert [made(scope, token=token).exploration[1] for token in range(3)] == [0, 0, 0]
    others = [made(scope, token=token, noise=0.4).exploration[1] for token in range(3)]
    assert others[0] > others[1] > others[2] and 35 <= others[0] <= 65


@pytest.mark.parametrize("k", [1, 3, 12])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_renormalising_is_top_k_first_and_leaving_it_out_gives_less_than_1(k, temperature):
    weights = {order: made(scope_of(), k=k, temperature=temperature, order=order).shown.weights_K for order in ORDERS}
    assert np.allclose(weights[RENORMALISED], weights[LATE], rtol=1e-12, atol=0)
    assert weights[LATE].sum() == pytest.approx(1)
    assert (weights[BARE].sum() < 1 - 1e-9) == (k < 12)


def test_the_default_state_is_what_the_router_did():
    torch.manual_seed(0)
    for renormalise, order in ((True, RENORMALISED), (False, BARE)):
        with torch.no_grad():
            routing = Router(16, 12, 3, renormalise=renormalise)(torch.randn(30, 16)).with_tokens(["t"] * 30)
        scope = RouterMicroscope(routing, token=4)
        assert scope.order == order and ": as recorded." in scope.summary
        assert scope.shown.ids_K.tolist() == routing.expert_ids[4].tolist()
        assert np.allclose(scope.shown.weights_K, routing.weights[4], atol=1e-6)


@pytest.mark.parametrize("what_if", [{"k": 4}, {"temperature": 2.0}, {"noise": 0.1}, {"order": BARE}])
def test_what_the_router_did_not_do_is_called_a_what_if(what_if):
    scope = scope_of()
    assert ": as recorded." in scope.summary and ": as recorded." in made(scope, token=3, draw=9, by_logit=True).summary
    assert ": a what-if." in made(scope, **what_if).summary


def test_the_words_are_true():
    scope = made(scope_of(), token=4, k=2)
    best, second, third = scope.quiet_logits.argsort()[::-1][:3]
    gap = scope.quiet_logits[second] - scope.quiet_logits[third]
    assert f"Chosen: experts {best} (" in scope.summary and f", {second} (" in scope.summary
    assert f"the last chosen leads the next by {gap:.2f}." in scope.summary and "draw" not in scope.summary
    made(scope, noise=1.0, locked_expert=int(third))
    counts, others = scope.exploration
    assert counts.sum() == 2 * DRAWS and 0 < others < DRAWS
    assert f"{others} of 100 draws choose others. Expert {third}: " in scope.summary
    assert scope.summary.endswith(f"chosen in {counts[third]} of 100 draws.")


def test_each_draw_is_one_of_those_that_are_counted():
    scope = scope_of()
    usual = set(scope.shown.ids_K)
    made(scope, noise=1.0)
    swapping = sum(set(made(scope, draw=draw).shown.ids_K) != usual for draw in range(1, DRAWS + 1))
    assert swapping == scope.exploration[1]


def test_a_seed_is_a_set_of_draws():
    first, again, other = (made(scope_of(seed=seed), noise=1.0).summary for seed in (0, 0, 1))
    assert first == again != other


# --- validation ------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = routing_of(logits_of(5, 4), 2)
    for words, routing, named in (
            ("origin is 'real'; say where .* trained, toy, synthetic", one, {"origin": "real"}),
            ("seed is -1; expected a whole number", one, {"seed": -1}),
            ("seed is 0.5", one, {"seed": 0.5}),
            (r"token is 5; expected 0 … 4", one, {"token": 5}),
            ("routing is str; expected a Routing", "x", {}),
            ("no token texts; add them with", Routing(one.logits, one.expert_ids, one.weights), {}),
            ("no token; the microscope looks at one", routing_of(logits_of(0, 4), 2), {}),
            ("K = 0", routing_of(logits_of(5, 4), 0), {}),
            ("does not follow from its logits with a softmax", routing_of(logits_of(5, 4), 2, Gate("sigmoid")), {}),
            ("does not follow from its logits", routing_of(logits_of(5, 4), 2, Gate(scale=2.0)), {}),
            ("does not follow from its logits", routing_of(logits_of(5, 4), 2, Gate(bias=(9, 0, 0, 0))), {}),
            ("hold NaN or infinity", routing_of(np.full((2, 3), np.nan, np.float32), 2), {})):
        with pytest.raises(ValueError, match=words):
            RouterMicroscope(routing, **named)


@pytest.mark.parametrize("trait,value", [("token", 21), ("token", -1), ("k", 0), ("k", 13), ("temperature", 0.0),
                                         ("temperature", math.nan), ("temperature", 11.0), ("noise", -0.1), ("noise", 99.0),
                                         ("draw", 0), ("draw", 101), ("locked_expert", 12), ("order", "top-k")])
def test_a_control_out_of_range_is_refused_and_nothing_moves(trait, value):
    scope = scope_of()
    before = scope.summary
    with pytest.raises(TraitError, match=f"{trait} is "):
        setattr(scope, trait, value)
    assert scope.summary == before


def sparse_model(**router):
    sparse = Sparse(8, 2, 8, **router)
    return LanguageModel(ModelConfig((Dense(16), sparse, sparse), layers=3, width=16, heads=2, context=24)).eval()


def test_the_microscope_of_a_model_shows_the_layer_it_is_asked_for():
    model = sparse_model()
    routings = [routing for routing in model.route("abc") if routing is not None]
    for layer in (0, 1):
        scope = RouterMicroscope.of_model(model, "abc", layer, origin="toy", token=2, seed=5)
        assert scope.shown.ids_K.tolist() == routings[layer].expert_ids[2].tolist()
        assert (scope.title, scope.origin, scope.seed) == (f"router microscope · layer {layer + 1} of 2", "toy", 5)


def test_a_model_that_the_microscope_cannot_show_is_refused_with_the_reason():
    biased = sparse_model()
    biased.blocks[1].ffn.router.bias[3] = 0.1
    dense = LanguageModel(ModelConfig(Dense(16), layers=1, width=16, heads=2))
    for words, model, arguments in (
            ("no MoE layer", dense, ("abc",)),
            ("scores with a sigmoid; the microscope shows softmax", sparse_model(score="sigmoid"), ("abc",)),
            ("multiplies its weights by 2; ", sparse_model(scale=2.0), ("abc",)),
            ("chooses with a bias", biased, ("abc",)),
            (r"layer is 2; this model's MoE layers are 0 … 1", sparse_model(), ("abc", 2)),
            ("layer is -1", sparse_model(), ("abc", -1)),
            ("the text is empty", sparse_model(), ("",))):
        with pytest.raises(ValueError, match=words):
            RouterMicroscope.of_model(model, *arguments)


# --- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 21])
@pytest.mark.parametrize("experts,k", [(1, 1), (12, 1), (12, 12), (200, 64)])
def test_every_control_works_at_its_ends(tokens, experts, k):
    scope = scope_of(tokens, experts, k)
    for order in ORDERS:
        made(scope, order=order, token=tokens - 1, locked_expert=experts - 1)
        for temperature, noise, draw, now in ((0.1, 0.0, 1, 1), (10.0, scope.noise_limit, DRAWS, experts)):
            made(scope, temperature=temperature, noise=noise, draw=draw, k=now)
            assert len(scope.shown.weights_K) == now and np.isfinite(scope.shown.weights_K).all()
            assert scope.summary.startswith(f"Token {tokens - 1} '") and f"K = {now} of {experts} expert" in scope.summary
    assert scope.picture().startswith(PNG)


@pytest.mark.parametrize("spread", [1e-4, 0.02, 1.0, 300.0])
def test_the_scales_follow_the_logits_and_differences_can_be_read(spread):
    logits = logits_of(9, 12, spread=spread)
    scope = scope_of(logits=logits)
    assert 2 * logits.std() / 1.3 < scope.noise_limit < 2 * logits.std() * 1.7
    low, high = scope.logit_limits
    assert low < logits.min() and logits.max() < high
    assert float(fixed(scope.noise_limit / 50, scope.digits)) > 0


@pytest.mark.parametrize("logit", [0.0, 0.1, -7.7])
def test_equal_logits_leave_room_for_noise(logit):
    scope = scope_of(logits=np.full((2, 7), logit), k=2)
    assert scope.noise_limit == 2 and scope.shown.ids_K.tolist() == [0, 1]  # ties go to the lower id


def test_a_masked_expert_has_no_probability_and_no_noise_brings_it_back():
    scope = made(scope_of(logits=MASKED, k=2), noise=0.5, k=4, locked_expert=1)
    assert scope.shown.probabilities_N[1] == 0 and "logit -∞ (masked), with noise -∞ (masked)" in scope.summary
    made(scope, k=3)
    assert scope.exploration[0].tolist() == [100, 0, 100, 100]
    assert made(scope, token=1, k=2).picture().startswith(PNG)


def test_any_token_survives_the_trip():
    scope = scope_of(HOSTILE)
    for token in range(len(HOSTILE)):
        (made(scope, token=token).summary + repr(scope)).encode("utf-8")  # a lone surrogate would raise


def test_a_formula_in_a_token_is_not_read_as_one():
    scope = scope_of(["$x^2$", "$\\frac$"])
    assert all(made(scope, token=token).picture().startswith(PNG) for token in (0, 1))


# --- what a notebook stores ------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_view_and_a_picture():
    scope = scope_of()
    bundle = scope._repr_mimebundle_()[0]
    assert base64.b64decode(bundle["image/png"]).startswith(PNG) and bundle[VIEW]["model_id"] == scope.model_id
    scope.close()
    assert set(scope._repr_mimebundle_()[0]) == {"text/plain", "image/png"}


def test_the_text_form_names_no_instance_and_the_picture_is_the_same_each_time():
    assert repr(scope_of()) == repr(scope_of()) == (
        "RouterMicroscope('router microscope', synthetic: 21 tokens, 3 of 12 experts)")
    assert scope_of().picture() == scope_of().picture() != made(scope_of(), k=4).picture()


def test_the_picture_keeps_its_limits_and_has_a_row_of_draws_when_there_is_noise():
    scope = scope_of()
    quiet, noisy = draw_microscope(scope), draw_microscope(made(scope, noise=1.0, temperature=0.1, k=7, token=5))
    assert len(quiet.axes) == 3 and len(noisy.axes) == 4
    assert [ax.get_ylim() for ax in quiet.axes] == [ax.get_ylim() for ax in noisy.axes[:3]]
    assert "synthetic router" in quiet.get_suptitle()


def test_the_module_needs_nothing_from_elsewhere():
    source = RouterMicroscope._esm
    assert not any(line.lstrip().startswith("import ") for line in source.splitlines())
    assert not any(word in source for word in ("http://", "https://", "innerHTML", "fetch(", "eval(", "import("))
    assert source.count("export default") == 1


# --- JavaScript computes the same and says the same -------------------------------------------------------------------


def cases() -> dict[str, RouterMicroscope]:
    """The corners where two implementations part ways."""
    ties = np.random.default_rng(1).integers(0, 3, (5, 12))
    settings = {"token": 2, "noise": 0.7, "draw": 31, "k": 5, "temperature": 0.3}
    return {
        "as recorded": scope_of(),
        **{f"noise, {order}": made(scope_of(), order=order, locked_expert=3, **settings) for order in ORDERS},
        "ties": made(scope_of(logits=ties, k=4), token=3, locked_expert=2),
        "ties, noise": made(scope_of(logits=ties, k=4), noise=0.5, draw=100, by_logit=True),
        "all logits equal: weights of exactly 1/8": made(scope_of(logits=np.zeros((2, 16)), k=8), locked_expert=9),
        **{f"k = N, {order}": made(scope_of(), k=12, order=order, noise=1.0, locked_expert=11) for order in ORDERS},
        **{f"k = 1, {order}": made(scope_of(), k=1, order=order) for order in ORDERS},
        **{f"a tiny temperature, {order}": made(scope_of(logits=1e4 * logits_of(9, 12)), temperature=0.1, order=order)
           for order in ORDERS},
        "a temperature near infinity": made(scope_of(logits=1e-6 * logits_of(9, 12)), temperature=10.0, noise=1e-6),
        **{f"masked experts, {order}": made(scope_of(logits=MASKED, k=2), k=3, order=order, noise=0.5, locked_expert=1)
           for order in ORDERS},
        "all but one masked": made(scope_of(logits=MASKED, k=2), token=1, k=4, order=LATE),
        "all but one masked, noise": made(scope_of(logits=MASKED, k=2), token=1, k=1, noise=0.5),
        "one token": scope_of(1),
        "one expert": made(scope_of(5, 1, 1), noise=0.5, locked_expert=0),
        "many experts": made(scope_of(5, 200, 64), noise=2.0, locked_expert=199),
        "a logit of minus zero": made(scope_of(logits=[[-0.0, 1.0, -0.001]], k=1), locked_expert=0),
        "not renormalised": scope_of(gate=Gate(renormalise=False)),
        "hostile token": made(scope_of(HOSTILE), token=1, locked_expert=1),
    }


def golden(name: str, scope: RouterMicroscope) -> dict:
    shown, (counts, others) = scope.shown, scope.exploration
    return {"name": name, "state": browser_state(scope), "ids": shown.ids_K.tolist(), "weights": shown.weights_K.tolist(),
            "probabilities": shown.probabilities_N.tolist(), "counts": counts.tolist(), "others": others,
            "summary": scope.summary}


def test_javascript_computes_and_says_what_python_does(tmp_path):
    vectors = {"cases": [golden(name, scope) for name, scope in cases().items()], "orders": list(ORDERS), "draws": DRAWS}
    printed = run_node("router_microscope", RouterMicroscope._esm, vectors, tmp_path)
    assert f"pass {len(vectors['cases']) + 4}" in printed  # every case ran
