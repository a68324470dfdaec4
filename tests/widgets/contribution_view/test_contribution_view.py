"""The contribution view in Python, and JavaScript beside it: what it refuses, computes, says and draws."""

import base64
import math

import numpy as np
import pytest
import torch
from contribution_view.cases import MIXED, contribution_of, lengths, made, toy, view_of
from routings import HOSTILE, logits_of, routing_of
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.lm.checkpoints import shipped_model
from moe_lesson.measure.instruments import layer_inputs
from moe_lesson.moe.layers import moe_layers
from moe_lesson.widgets import Contribution, ContributionView
from moe_lesson.widgets.contribution_view.data import (
    BY_SHARE,
    COLUMNS,
    IN_TEXT,
    KINDS,
    ORDERS,
    contributions,
    draw_contributions,
    kind_of,
    table_rows,
    table_title,
)
from moe_lesson.widgets.kit.base import VIEW

PNG = b"\x89PNG\r\n"
ENGLISH = "The experts that every token visits are called shared; what do the others add?"
PYTHON = "def route(x, k=2):\n    return x.topk(k)[1]  # experts"


def small(num_shared: int = 2, layers: int = 2) -> LanguageModel:
    sparse = Sparse(8, 2, 8, num_shared=num_shared)
    return LanguageModel(ModelConfig(sparse, layers=layers, width=16, heads=2, context=24), seed=3).eval()


@pytest.fixture(scope="module")
def model():
    return shipped_model("deepseekmoe")[0]


# --- what the learner shall discover ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [ENGLISH, PYTHON])
def test_training_turns_the_split_around_and_spaces_stand_out(model, text):
    view = ContributionView.of_model(model, text, name="deepseekmoe")
    kinds = np.array(view.kinds)
    spaces, letters = ([], [])
    for layer in (0, 1):
        share, null = made(view, layer=layer).shown.share_T, view.shown_null.share_T
        assert np.median(share) < 0.3 < 0.6 < np.median(null)  # untrained, two whole experts drown an average of six
        assert np.median(view.shown.cosine_T) > 0.2 > 0.15 > abs(np.median(view.shown_null.cosine_T))
        spaces.append(np.median(share[kinds == "space"]))
        letters.append(np.median(share[kinds == "letter"]))
    assert spaces[0] > letters[0] + 0.2 and spaces[1] < letters[1]  # no constant: loud for spaces first, quiet for them later


def test_the_parts_of_a_layer_add_up_to_its_output(model):
    ids = torch.tensor([list(ENGLISH.encode())])
    for one, layer, x_TD in zip(contributions(model, ENGLISH), moe_layers(model), layer_inputs(model, ids)):
        with torch.no_grad():
            (out_TD, routing), shared_TD = layer(x_TD), layer.shared(x_TD)
        assert np.allclose(one.shared_T, shared_TD.norm(dim=1).numpy(), rtol=1e-5)
        assert np.allclose(one.routed_T, (out_TD - shared_TD).norm(dim=1).numpy(), rtol=1e-4)
        assert np.array_equal(one.expert_ids, routing.expert_ids.numpy())
        # |s + r|² = |s|² + |r|² + 2 |s| |r| cos
        whole = one.shared_T ** 2 + one.routed_T ** 2 + 2 * one.shared_T * one.routed_T * one.cosine_T
        assert np.allclose(whole, out_TD.double().square().sum(dim=1).numpy(), rtol=1e-3)


def test_the_null_is_an_untrained_model_of_the_same_sizes_and_a_seed():
    model = small()
    first, again, other = (ContributionView.of_model(model, "abc", seed) for seed in (0, 0, 1))
    expected = contributions(LanguageModel(model.config, 1), "abc")
    assert np.array_equal(other.shown_null.shared_T, expected[0].shared_T)
    assert np.array_equal(first.shown_null.routed_T, again.shown_null.routed_T)
    assert not np.array_equal(first.shown_null.routed_T, other.shown_null.routed_T)
    assert np.array_equal(first.shown.routed_T, other.shown.routed_T)
    assert "untrained (seed 1)" in other.summary and table_title(other).endswith("untrained (seed 1)")


def test_a_model_in_training_mode_is_read_in_evaluation_and_left_as_it_was():
    sparse = Sparse(8, 2, 8, num_shared=1, noisy=True)
    model = LanguageModel(ModelConfig(sparse, layers=1, width=16, heads=2, context=24))
    with torch.no_grad():
        moe_layers(model)[0].router.noise.fill_(5.0)
    first, second = contributions(model.train(), "abcdef"), contributions(model, "abcdef")
    assert np.array_equal(first[0].expert_ids, second[0].expert_ids) and np.array_equal(first[0].routed_T, second[0].routed_T)
    assert model.training


def test_lengths_share_and_cosine_of_known_parts():
    shared, routed = torch.tensor([[3.0, 0, 4], [1, 0, 0], [2, 0, 0]]), torch.tensor([[6.0, 0, 8], [0, 3, 0], [-2, 0, 0]])
    one = Contribution.of(shared, routed, routing_of(logits_of(3, 4), 1))
    assert one.shared_T.tolist() == [5, 1, 2] and one.routed_T.tolist() == [10, 3, 2]
    assert np.allclose(one.cosine_T, [1, 0, -1]) and np.allclose(one.share_T, [1 / 3, 1 / 4, 1 / 2])


def test_the_order_by_share_puts_first_where_routing_adds_most_and_ties_stay():
    view = toy(lengths([1, 1, 3, 1], [1, 4, 1, 4]))
    assert view.columns == [0, 1, 2, 3] and made(view, order=BY_SHARE).columns == [1, 3, 0, 2]
    long = made(view_of(200, layers=2), order=BY_SHARE)
    by_layer = []
    for layer in (0, 1):
        share = made(long, layer=layer).shown.share_T[long.columns]
        assert (np.diff(share) >= 0).all() and sorted(long.columns) == list(range(200))
        by_layer.append(long.columns)
    assert by_layer[0] != by_layer[1]  # each layer by its own share


def test_a_selected_token_hears_whether_its_parts_agree_and_who_it_goes_to():
    view = toy(lengths([1, 1, 1], [3, 1, 9], [0.51, 0.5, -0.9], k=2), lengths([2, 2, 2], [1, 1, 1], [0.1, 0.1, -0.001], k=2))
    assert made(view, locked_token=0).summary.endswith(  # D = 16: random directions are within ±0.5
        "Token 0 'a': shared 1.00, routed 3.00, share 25%; cosine 0.51, they agree. Untrained: shared 2.00, routed 1.00, "
        "cosine 0.10. Routed to experts 0 (0.50), 1 (0.50) of this layer.")
    assert "cosine 0.50, about at right angles, as two random" in made(view, locked_token=1).summary
    words = made(view, locked_token=2).summary
    assert "cosine -0.90, they cancel in part. Untrained: shared 2.00, routed 1.00, cosine 0.00. " in words
    assert "Routed to expert 0 (1.00) of" in made(toy(lengths([1], [1])), locked_token=0).summary


def test_the_summary_is_true():
    view = toy(lengths([1, 1, 3], [3, 1, 1], [0.2, -0.4, 0.9]), lengths([9, 8, 7], [1, 2, 3], [0, 0.1, 0.3]), seed=5)
    assert view.summary == (
        "Layer 1 of 1, toy model: 3 tokens, 1 shared expert for all, K = 1 of 4 routed experts. "
        "Median share of the shared part, |shared| / (|shared| + |routed|): 50% toy, 80% untrained (seed 5). "
        "Median cosine of the two parts: 0.20 toy, 0.10 untrained. "
        "The share runs from 25% (token 0 'a') to 75% (token 2 'c'). Lengths: shared 1.00 … 3.00; routed 1.00 … 3.00.")


def test_the_table_has_the_medians_of_the_kinds_that_the_text_has():
    view = toy(lengths([1, 1, 3, 1], [3, 1, 1, 9], [0.1, 0.2, 0.3, 0.4]), lengths([1] * 4, [1] * 4), tokens=["x", "␣", "⏎", "7"])
    assert table_rows(view) == [["all", "4", "38%", "50%", "0.25", "0.00"], ["letter", "1", "25%", "50%", "0.10", "0.00"],
                                ["space", "2", "63%", "50%", "0.25", "0.00"], ["digit", "1", "10%", "50%", "0.40", "0.00"]]
    assert [row[0] for row in table_rows(view_of())] == ["all", *KINDS]
    assert [kind_of(token) for token in ("q", "Z", "␣", "⏎", "⇥", " ", "0", ";", "é 1/2", "中 1/3", "0xff", "", "ab", "é")] == [
        "letter", "letter", "space", "space", "space", "space", "digit", "sign", *["other"] * 6]


# --- validation ------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = lengths([1, 2], [1, 2])
    nan, minus, mute = lengths([1, math.nan], [1, 2]), lengths([1, -2], [1, 9]), lengths([1, 0], [1, 0])
    for words, layers, named in (
            ("origin is 'real'; say where .* trained, toy, synthetic", [one], {"origin": "real"}),
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


@pytest.mark.parametrize("wrong", [small(0), LanguageModel(ModelConfig(Dense(16), layers=1, width=16, heads=2)),
                                   LanguageModel(ModelConfig((Sparse(8, 2, 8, num_shared=1), Sparse(8, 2, 8)), layers=2,
                                                             width=16, heads=2))])
def test_a_model_without_shared_experts_gets_one_sentence_that_says_what_to_do(wrong):
    with pytest.raises(ValueError, match=r'no two parts to compare; take a model .* shipped_model\("deepseekmoe"\)$'):
        ContributionView.of_model(wrong, "abc")


def test_empty_and_long_text_are_refused():
    with pytest.raises(ValueError, match="the text is empty"):
        ContributionView.of_model(small(), "")
    with pytest.raises(ValueError, match="25 tokens is longer than the model's context of 24; shorten"):
        ContributionView.of_model(small(), "x" * 25)


@pytest.mark.parametrize("trait,value", [("layer", 2), ("layer", -1), ("order", "sorted"), ("locked_token", 19),
                                         ("locked_token", -1)])
def test_a_control_out_of_range_is_refused_and_nothing_moves(trait, value):
    view = view_of()
    before = view.summary
    with pytest.raises(TraitError, match=f"{trait} is "):
        setattr(view, trait, value)
    assert view.summary == before


def test_the_view_of_a_model_shows_its_own_choices_and_names_it():
    model = small()
    view = ContributionView.of_model(model, "a b", 5, origin="toy", title="x")
    for layer, routing in enumerate(model.route("a b")):
        assert np.array_equal(made(view, layer=layer).shown.expert_ids, routing.expert_ids.numpy())
        assert np.allclose(view.shown.weights, routing.weights.numpy())
    assert (view.tokens, view.kinds, view.sizes, view.top_k) == (["a", "␣", "b"], ["letter", "space", "letter"], [8, 8], 2)
    assert (view.origin, view.title, view.seed, view.num_shared, view.width) == ("toy", "x", 5, 2, 16)
    assert view.name == "2-layer MoE of 8 + 2 experts"


# --- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 300])
@pytest.mark.parametrize("experts,k", [(1, 1), (12, 12), (200, 3)])
def test_every_control_works_at_its_ends(tokens, experts, k):
    view = view_of(tokens, experts, k)
    for layer, order in ((0, IN_TEXT), (1, BY_SHARE)):
        made(view, layer=layer, order=order, locked_token=tokens - 1)
        assert view.summary.startswith(f"Layer {layer + 1} of 2, synthetic dice: {tokens} token")
        assert view.shown.shared_T.max() <= view.axis["shared"] and view.shown.routed_T.max() <= view.axis["routed"]
    assert view.picture().startswith(PNG)


def test_the_axes_hold_both_layers_and_the_untrained_model():
    quiet, loud = lengths([0.1, 0.2], [0.3, 0.1]), lengths([7, 1], [1, 30])
    views = [ContributionView([quiet, quiet], [quiet, loud], "ab", width=16, sizes=[4, 4], num_shared=1),
             ContributionView([loud, quiet], [quiet, quiet], "ab", width=16, sizes=[4, 4], num_shared=1)]
    for view in views:
        assert (view.axis["shared"], view.axis["routed"]) == (7, 30)
        assert [label for _, label in view.axis["ticks"]] == ["1", "4", "9", "16", "25"]
    for top in (1e-6, 0.05, 1, 3.99, 4000, 1e9):
        assert 2 <= len(toy(lengths([top / 2], [top])).axis["ticks"]) <= 6
    assert toy(lengths([0.0], [2.0])).axis["shared"] == 1.0


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
    assert repr(view_of()) == repr(view_of()) == (
        "ContributionView('dice', synthetic: 2 layers, 19 tokens, 3 of 12 routed experts + 2 shared)")
    assert view_of().picture() == view_of().picture() != made(view_of(), order=BY_SHARE).picture()


def test_the_picture_says_what_it_shows_and_keeps_its_limits():
    view = view_of(seed=4)
    figure, other = draw_contributions(view), draw_contributions(made(view_of(seed=4), layer=1, order=BY_SHARE))
    assert "synthetic: dice" in figure.get_suptitle() and "untrained model (seed 4)" in figure.get_suptitle()
    assert "largest share of the routed part first" in other.get_suptitle()
    for ax, same in zip(figure.axes[:3], other.axes[:3]):
        assert (ax.get_ylim(), ax.get_xlim()) == (same.get_ylim(), same.get_xlim())
    table = figure.axes[3].tables[0].get_celld()
    rows = table_rows(view)
    assert [[table[row, column].get_text().get_text() for column in range(6)] for row in range(len(rows) + 1)] == [
        list(COLUMNS), *rows]


def test_the_picture_has_a_bar_of_each_part_and_a_step_of_the_null_for_each_token():
    view = view_of()
    figure = draw_contributions(view)
    figure.draw_without_rendering()
    lengths_ax, share, cosine = figure.axes[:3]
    routed, shared = ([bar.get_height() for bar in bars] for bars in lengths_ax.containers)
    assert np.allclose(np.square(routed), view.shown.routed_T) and np.allclose(np.square(shared), view.shown.shared_T)
    assert np.allclose([bar.get_height() for bar in share.containers[0]], view.shown.share_T)
    assert np.allclose([bar.get_height() for bar in cosine.containers[0]], view.shown.cosine_T)
    steps = [segment[0][1] for segment in share.collections[-1].get_segments()]
    assert np.allclose(steps, view.shown_null.share_T) and not np.allclose(steps, view.shown.share_T)
    right = figure.bbox.width
    assert all(ax._left_title.get_window_extent().x1 <= right for ax in figure.axes)  # no title is cut


def test_the_module_needs_nothing_from_elsewhere():
    source = ContributionView._esm
    assert not any(line.lstrip().startswith("import ") for line in source.splitlines())
    assert not any(word in source for word in ("http://", "https://", "innerHTML", "fetch(", "eval(", "import("))
    assert source.count("export default") == 1


# --- JavaScript computes the same and says the same -------------------------------------------------------------------


def cases() -> dict[str, ContributionView]:
    """The corners where two implementations part ways."""
    ties = lengths([1, 2, 1, 0, 3, 2], [1, 2, 3, 5, 9, 6], [0, -0.001, 0.5, -0.5, 0.005, 0.125])
    sizes = [contribution_of(30, n, 3, n) for n in (12, 5)]
    return {
        "the default": view_of(),
        **{f"layer {layer + 1}, {order}": made(view_of(), layer=layer, order=order, locked_token=7)
           for layer in (0, 1) for order in ORDERS},
        **{f"ties, token {token}": made(toy(ties), order=BY_SHARE, locked_token=token) for token in range(6)},
        "one token": made(view_of(1), locked_token=0),
        "two tokens": made(view_of(2), order=BY_SHARE, locked_token=1),
        "one expert": made(view_of(5, 1, 1, 1), locked_token=4),
        "more chosen than a sentence lists": made(view_of(9, 12, 12), locked_token=3),
        "many tokens": made(view_of(300, 64, 6, seed=9), layer=1, order=BY_SHARE, locked_token=299),
        "layers of different size": made(ContributionView(sizes, sizes, "x" * 30, width=16, sizes=[12, 5], num_shared=1), layer=1,
                                         locked_token=2),
        "shares that end in a 5": toy(lengths([1, 3, 5], [7, 5, 3], [0.125, 0.375, -0.625])),
        "hostile tokens": made(view_of(HOSTILE), locked_token=1),
    }


def golden(name: str, view: ContributionView) -> dict:
    return {"name": name, "state": browser_state(view), "columns": view.columns, "share": view.shown.share_T.tolist(),
            "null_share": view.shown_null.share_T.tolist(), "ids": view.shown.expert_ids.flatten().tolist(),
            "rows": table_rows(view), "title": table_title(view), "summary": view.summary}


def test_javascript_computes_and_says_what_python_does(tmp_path):
    assert set(map(kind_of, MIXED)) == set(KINDS)
    vectors = {"cases": [golden(name, view) for name, view in cases().items()],
               "names": {"orders": ORDERS, "kinds": KINDS, "columns": COLUMNS}}
    printed = run_node("contribution_view", ContributionView._esm, vectors, tmp_path)
    assert f"pass {len(vectors['cases']) + 3}" in printed  # every case ran
