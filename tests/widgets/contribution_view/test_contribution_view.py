"""The contribution view: what it refuses, what it measures, and by meaning what it shows."""

import base64
import math
import re

import numpy as np
import pytest
import torch
from contribution_view.cases import MIXED, lengths, model_of, model_view, toy, view_of
from routings import logits_of, routing_of
from widget_harness import made, picture, put, status, table, write

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.base.tokens import TOKEN_BYTES, encode, token_texts
from moe_lesson.lm.checkpoints import shipped_model
from moe_lesson.moe.layers import moe_layers
from moe_lesson.widgets import Contribution, ContributionView
from moe_lesson.widgets.contribution_view.data import BY_SHARE, contributions
from moe_lesson.widgets.kit.weights import weights_of

ENGLISH = "The results of 3 or 4 experiments are in the table.\nIt has 12 rows and 5 columns.\n\nThe moon rose over the sea.\n"
PYTHON = "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total\n\nmean([1, 2])\n"


def share(one: Contribution) -> np.ndarray:
    return one.shared_T / (one.shared_T + one.routed_T)


@pytest.fixture(scope="module")
def model():
    return shipped_model("ladder-deepseekmoe")[0]


# --- what the learner is to discover -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [ENGLISH, PYTHON])
def test_training_turns_the_split_around_and_numbers_stand_out(model, text):
    trained, null = contributions(model, text), contributions(LanguageModel(model.config, 0), text)
    tokens = [TOKEN_BYTES[i] for i in encode(text)]
    number = np.array([token.strip().isdigit() for token in tokens])
    line_end = np.array([token.startswith(b"\n") for token in tokens])
    for one, none in zip(trained, null):
        assert np.median(share(one)) < 0.35 < 0.6 < np.median(share(none))  # untrained, two whole experts drown an average of six
    assert np.median(trained[0].cosine_T) > 0.2 > 0.15 > abs(np.median(null[0].cosine_T))
    assert np.median(share(trained[0])[number]) > 2 * np.median(share(trained[0])[line_end])


def test_lengths_and_cosine_of_known_parts():
    shared, routed = torch.tensor([[3.0, 0, 4], [1, 0, 0], [2, 0, 0]]), torch.tensor([[6.0, 0, 8], [0, 3, 0], [-2, 0, 0]])
    one = Contribution.of(shared, routed, routing_of(logits_of(3, 4), 1))
    assert one.shared_T.tolist() == [5, 1, 2] and one.routed_T.tolist() == [10, 3, 2] and np.allclose(one.cosine_T, [1, 0, -1])


def test_the_null_is_an_untrained_model_of_the_same_sizes_and_a_seed():
    first, again, other = (ContributionView.of_model(model_of(), "abc", seed) for seed in (0, 0, 1))
    assert first.parts == again.parts and first.untrained == again.untrained != other.untrained
    trained, null = np.frombuffer(other.parts).reshape(2, 2, 3, 3)  # group, layer, part, token
    assert np.array_equal(trained[0, 0], contributions(model_of(), "abc")[0].shared_T)
    expected = contributions(LanguageModel(model_of().config, 1), "abc")[0].shared_T
    assert np.allclose(null[0, 0], expected, rtol=1e-2) and not np.allclose(trained[0, 0], expected, rtol=1e-2)


def test_a_model_in_training_mode_is_read_in_evaluation_and_left_as_it_was():
    sparse = Sparse(8, 2, 8, num_shared=1, noisy=True)
    model = LanguageModel(ModelConfig(sparse, layers=1, width=16, heads=2, context=24))
    with torch.no_grad():
        moe_layers(model)[0].router.noise.fill_(5.0)
    first, second = contributions(model.train(), "abcdef"), contributions(model, "abcdef")
    assert torch.equal(first[0].expert_ids, second[0].expert_ids) and np.array_equal(first[0].routed_T, second[0].routed_T)
    assert model.training


# --- what it refuses ---------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = lengths([1, 2], [1, 2])
    nan, minus, mute = lengths([1, math.nan], [1, 2]), lengths([1, -2], [1, 9]), lengths([1, 0], [1, 0])
    for words, layers, named in (
            ("width is 0; expected", [one], {"width": 0}),
            ("num_shared is 0; expected at least 1", [one], {"num_shared": 0}),
            ("seed is -1; expected a whole number", [one], {"seed": -1}),
            ("layers is empty or no list", [], {}),
            ("layers is empty or no list", one, {}),
            ("layers has 1 layer, sizes has 2; give one each", [one], {"sizes": [4, 4]}),
            (r"layers\[0\] is str; expected a Contribution", ["x"], {}),
            (r"there are 0 tokens; the view shows 1 … 300", [one], {"tokens": ""}),
            (r"there are 301 tokens; .* take a piece", [one], {"tokens": "x" * 301}),
            (r"layers\[0\].shared_T has shape \(2,\); expected one number for each of 3", [one], {"tokens": "abc"}),
            ("shared_T holds NaN or infinity", [nan], {}),
            ("has a negative length", [minus], {}),
            (r"both parts have length 0 for token \[1\]", [mute], {}),
            (r"layers\[1\] has experts \(2, 2\) .* expected \[T, K\] = \(2, 1\)", [one, lengths([1, 1], [1, 1], k=2)],
             {"sizes": [4, 4]}),
            ("expert ids run from 0 to 2; expected 0 to 1", [lengths([1, 1], [1, 1], k=3)], {"sizes": [2]})):
        tokens = named.pop("tokens", "ab")
        with pytest.raises(ValueError, match=words):
            ContributionView(layers, layers, tokens, **{"width": 16, "sizes": [4], "num_shared": 1, **named})
    with pytest.raises(ValueError, match=r"null\[0\].routed_T holds NaN"):
        toy(one, lengths([1, 1], [1, math.nan]))


def test_a_wrong_model_or_text_is_refused():
    half = LanguageModel(ModelConfig((Sparse(8, 2, 8, num_shared=1), Sparse(8, 2, 8)), layers=2, width=16, heads=2))
    for wrong in (model_of(0), LanguageModel(ModelConfig(Dense(16), layers=1, width=16, heads=2)), half):
        with pytest.raises(ValueError, match=r'no two parts to compare; take a model .* shipped_model\("ladder-deepseekmoe"\)$'):
            ContributionView.of_model(wrong, "abc")
    with pytest.raises(ValueError, match="the text is empty"):
        model_view("")


# --- what it shows -----------------------------------------------------------------------------------------------------


def heights(page, chart: int, curve: int) -> np.ndarray:
    """[T] where each step of a curve of a chart stands, in pixels from the top."""
    status(page)
    path = page.locator(".moe-contribution .moe-chart").nth(chart).locator(".moe-line").nth(curve).get_attribute("d")
    return np.array([float(y) for _, y in re.findall(r"([-0-9.e]+),([-0-9.e]+)", path)])[:-1:2]


def test_it_says_how_the_lengths_are_split_beside_no_training(show):
    page = show(toy(lengths([1, 1, 3], [3, 1, 1], [0.2, -0.4, 0.9]), lengths([9, 8, 7], [1, 2, 3], [0, 0.1, 0.3]), seed=5))
    assert status(page) == (
        "Layer 1 of 1: the shared part has 50% of the two lengths, median over 3 tokens, toy; untrained (seed 5) it has 80%. "
        "It runs from 25% (token 0 'a') to 75% (token 2 'c'). Median cosine of the two parts: 0.20, untrained 0.10.")
    assert page.locator(".moe-badge").inner_text() == "toy: model" and page.get_by_text("untrained model, seed 5").is_visible()
    assert page.get_by_text("shared part: 1 expert, one FFN").is_visible()


def test_a_token_hears_whether_its_parts_agree_and_who_it_goes_to(show):
    page = show(toy(lengths([1, 1, 1], [3, 1, 9], [0.51, 0.5, -0.9], k=2), lengths([2, 2, 2], [1, 1, 1], k=2)), live=True)
    for token, words in ((0, "cosine 0.51, they agree"), (1, "cosine 0.50, as of two random"), (2, "cosine -0.90, they cancel")):
        page.locator(".moe-token").nth(token).click()  # D = 16: random directions are within ±0.5
        assert words in status(page)
    assert status(page).startswith("Layer 1 of 1. Token 2 'c': shared part 1.00 long, routed 9.00, share 10%, untrained 67%; ")
    assert status(page).endswith("Routed to experts 0 (0.50), 1 (0.50).")


def test_steps_stand_where_the_numbers_say_on_one_scale_up_and_down(show):
    one, none = lengths([4, 1, 0, 4], [4, 9, 1, 0], [0, 0.5, -1, 1]), lengths([1] * 4, [1, 4, 4, 1], [0.25] * 4)
    page = show(toy(one, none))
    routed, shared, *null = (heights(page, 0, curve) for curve in range(4))
    root = (heights(page, 0, 0)[3] - routed[1]) / 3  # pixels per √ of a length; token 3 has no routed part
    zero = routed[3]
    for found, expected in ((routed, one.routed_T), (shared, -one.shared_T), (null[0], none.routed_T), (null[1], -none.shared_T)):
        assert np.allclose(zero - found, root * np.sign(expected) * np.sqrt(np.abs(expected)), atol=0.1)
    bottom, top = heights(page, 1, 1)[2], heights(page, 1, 1)[3]  # shares of 0 and 1
    assert np.allclose(bottom - heights(page, 1, 1), (bottom - top) * share(one), atol=0.1)
    assert np.allclose(bottom - heights(page, 1, 2), (bottom - top) * share(none), atol=0.1)
    middle, unit = heights(page, 2, 0)[0], heights(page, 2, 0)[0] - heights(page, 2, 0)[3]
    assert np.allclose(middle - heights(page, 2, 0), unit * one.cosine_T, atol=0.1)
    assert np.allclose(middle - heights(page, 2, 3), unit * none.cosine_T, atol=0.1)
    assert np.allclose([middle - heights(page, 2, 1)[0], heights(page, 2, 2)[0] - middle], unit * 2 / math.sqrt(16), atol=0.1)


def test_the_scales_hold_both_layers_and_the_untrained_model(show):
    quiet, loud = lengths([0.1, 0.2], [0.3, 0.1]), lengths([7, 1], [1, 30])
    ticks = [show(ContributionView(layers, null, "ab", width=16, sizes=[4, 4], num_shared=1)).locator(
        ".moe-chart").first.locator(".moe-y .tick").all_text_contents()
        for layers, null in (([quiet, quiet], [quiet, loud]), ([loud, quiet], [quiet, quiet]))]
    assert ticks[0] == ticks[1] and {*ticks[0]} == {"0", "1", "4", "9", "16", "25"}


def test_the_order_by_share_puts_first_where_routing_adds_most_and_ties_stay(show):
    page = show(toy(lengths([1, 1, 3, 1], [1, 4, 1, 4]), tokens=["a", "m", "中 1/3", "d"]), live=True)
    letters = page.locator(".moe-word")
    assert status(page) and letters.all_text_contents() == ["a", "m", "中 1/3", "d"]
    before = picture(page)
    page.get_by_label("by the routed part's share").check()
    assert picture(page) != before and letters.all_text_contents() == ["m", "d", "a", "中 1/3"]
    assert page.locator(".moe-strip .moe-token").all_inner_texts() == ["a", "m", "中 1/3", "d"]  # the text stays as written


def test_the_table_has_the_medians_of_the_kinds_that_the_text_has(show):
    one = lengths([1, 1, 3, 1], [3, 1, 1, 9], [0.1, 0.2, 0.3, 0.4])
    page = show(toy(one, lengths([1] * 4, [1] * 4), tokens=["x", " ", "\n", "7"]))
    page.locator("details summary").click()  # what is folded is filled once it is open
    assert table(page) == [["all", "4", "38%", "50%", "0.25", "0.00"], ["words", "1", "25%", "50%", "0.10", "0.00"],
                           ["spaces", "2", "63%", "50%", "0.25", "0.00"], ["digits", "1", "10%", "50%", "0.40", "0.00"]]


def test_pointing_walks_the_columns_in_their_order_and_clicking_keeps(show):
    view = made(view_of(), order=BY_SHARE)
    page = show(view, live=True)
    parts = np.frombuffer(view.parts).reshape(2, 2, 3, len(MIXED))[0, 0]
    third = int(np.argsort(parts[0] / (parts[0] + parts[1]), kind="stable")[2])
    page.get_by_role("application").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert f"Token {third} '" in status(page) and view.locked_token is None
    page.keyboard.press("Enter")
    page.get_by_label("Layer", exact=True).press("End")
    assert view.locked_token == third and status(page).startswith(f"Layer 2 of 2. Token {third} '")
    page.get_by_role("application").press("Escape")
    assert "Token" not in status(page) and view.locked_token is None
    page.get_by_label("as in the text").check()
    box = page.locator(".moe-chart").nth(2).bounding_box()
    page.mouse.click(box["x"] + 54 + 3.5 * (box["width"] - 62) / len(MIXED), box["y"] + 40)
    page.mouse.move(5, 5)
    assert "Token 3 'a'" in status(page) and view.locked_token == 3
    page.mouse.move(box["x"] + 20, box["y"] + 40)
    assert "Token 3 'a'" in status(page)  # beside the columns is no token


def test_another_text_is_read_by_both_models(show, model):
    view = ContributionView.of_model(model, "abc", name="ladder-deepseekmoe")
    page = show(view, live=True)
    write(page, "Your text", "中 moon")
    last = len(encode("中 moon")) - 1
    page.wait_for_function(f"document.querySelectorAll('.moe-token').length === {last + 1}")
    untrained = contributions(LanguageModel(model.config, 0), "中 moon")
    for layer, (one, none) in enumerate(zip(contributions(model, "中 moon"), untrained)):
        said = put(page, layer=layer, locked_token=last)
        chosen = ", ".join(f"{n} ({weight:.{max(2, 1 - math.floor(math.log10(weight)))}f})"
                           for n, weight in zip(one.expert_ids[last], one.weights[last]))
        assert f"shared part {one.shared_T[last]:.2f} long, routed {one.routed_T[last]:.2f}, share {share(one)[last]:.0%}" in said
        assert f"untrained {share(none)[last]:.0%}; cosine {one.cosine_T[last]:.2f}, " in said
        assert said.endswith(f"experts {chosen}.")
    assert view.text == "中 moon"
    page.get_by_role("button", name="Reset").click()
    assert f"median over {len(encode('abc'))} token" in status(page)


def named_parts(one: Contribution) -> dict:
    parts = {"shared": one.shared_T, "routed": one.routed_T, "cosine": one.cosine_T, "share": share(one)}
    return {name: part.tolist() for name, part in parts.items()}


def test_kinds_of_tokens_and_both_parts_in_the_browser(node):
    named = {"words": ("q", "Z", "ab", "␣the"), "spaces": ("␣", "⏎", "⇥", "⏎␣␣␣␣"), "digits": ("0", "␣12"),
             "signs": (";", "␣==", "__", "`~"), "other": ("é 1/2", "0xff", "", "é", "␣x中 1/3", "中")}
    kinds = {token: kind for kind, tokens in named.items() for token in tokens}
    given = torch.tensor([[[3.0, 0, 4], [1, 0, 0], [2, 0.5, 0]], [[6.0, 0, 8], [0, 3, 0], [-2, 0, 1]]])
    both = [model_of(vocabulary=1024), LanguageModel(model_of(vocabulary=1024).config, seed=9).eval()]
    read = zip(*(contributions(model, "def moon: 中") for model in both))
    vectors = {"kinds": kinds, "parts": {"given": given.tolist(), "found": named_parts(
        Contribution.of(*given, routing_of(logits_of(3, 4), 1)))}, "read": {
            "text": "def moon: 中", "tokens": token_texts(encode("def moon: 中")),
            "files": [base64.b64encode(weights_of(model).data).decode() for model in both],
            "layers": [{"one": named_parts(one), "none": named_parts(none), "ids": one.expert_ids.flatten().tolist(),
                        "weights": one.weights.flatten().tolist()} for one, none in read]}}
    assert "pass 3" in node("contribution_view/contribution_view.test.mjs", vectors)
