"""The redundancy lens in Python, and JavaScript beside it: what it refuses, reads, says and draws."""

import base64
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from redundancy_lens.cases import UNMERGED, alike, lens_of, made, merging_of
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson.measure.merging import merging, random_similarity
from moe_lesson.moe.layers import MoE
from moe_lesson.widgets import RedundancyLens
from moe_lesson.widgets.kit.base import VIEW
from moe_lesson.widgets.redundancy_lens.data import (
    COLUMNS,
    KINDS,
    ORDERS,
    contours,
    digits_for,
    draw_lens,
    even_ticks,
    leaders,
    log_ticks,
    loss_axis,
    loss_title,
    merges_words,
    met_at,
    table_rows,
    table_title,
    tree_order,
    whole_ticks,
)

PNG = b"\x89PNG\r\n"


def with_losses(losses: list[float], control: list, **more) -> RedundancyLens:
    """A lens of one kind whose losses are given."""
    one = merging_of(alike(len(losses), 2, 0.8), 0.3)
    return RedundancyLens({"outputs": replace(one, losses=tuple(losses))}, control=control,
                          **{"origin": "toy", "unit": "loss", **more})


# --- what the learner shall discover ---------------------------------------------------------------------------------


def test_the_default_state_shows_a_quarter_of_the_experts_merged_by_their_outputs():
    lens = lens_of()
    assert (lens.kind, lens.merges, lens.order, lens.pair) == ("outputs", 4, "by number", None)
    assert len(lens.groups) == 12 and lens.loss == pytest.approx(UNMERGED + 0.3 * (4 / 15) ** 2)
    assert [kind["name"] for kind in lens.kinds] == list(KINDS)  # whatever order they came in


def test_every_state_shows_what_the_merging_recorded():
    mergings = {"outputs": merging_of(alike(12, 4, 0.8), 0.3), "co-routing": merging_of(alike(12, 3, 0.4, 5), 0.6)}
    lens = RedundancyLens(mergings, origin="toy", control=mergings["outputs"].losses, unit="loss")
    for kind, record in mergings.items():
        made(lens, kind=kind)
        for merges, groups in enumerate(record.groups):
            made(lens, merges=merges)
            assert lens.groups == [list(group) for group in groups] and lens.loss == record.losses[merges]
            if merges:
                assert table_rows(lens)[list(mergings).index(kind)][1] == f"{record.thresholds[merges]:.2f}"


def test_a_lens_of_a_real_layer_tells_twins_from_strangers():
    torch.manual_seed(0)
    layer = MoE(8, 6, 2, 4)
    with torch.no_grad():
        for weights in (layer.experts.w_in, layer.experts.w_out):
            weights[5] = weights[2]  # twins: merging them changes nothing
    x_TD = torch.randn(200, 8)
    target_TD, load_N = layer(x_TD)[0].detach(), torch.arange(6)
    twins = torch.eye(6)
    twins[2, 5] = twins[5, 2] = 0.9
    records = [merging(layer, similarity, load_N, lambda one: (one(x_TD)[0] - target_TD).square().mean().item(), 3)
               for similarity in (twins, random_similarity(6, 1), random_similarity(6, 2))]
    lens = made(RedundancyLens({"outputs": records[0]}, origin="toy", control=[one.losses for one in records[1:]],
                               unit="mean squared error"), merges=1)
    assert "+0.00" in lens.summary and "below every random draw" in lens.summary and "One expert each: 2+5." in lens.summary


@pytest.mark.parametrize("loss,place", [(1.1, "below every random draw"), (1.2, "within the range of random draws"),
                                        (1.3, "within the range of random draws"), (1.5, "above every random draw")])
def test_the_verdict_compares_with_every_draw(loss, place):
    lens = made(with_losses([1.0, loss, 2.0], [[1.0, 1.2, 2.0], [1.0, 1.4, 2.0], [1.0, 1.3, 2.0]]), merges=1)
    assert f"1.300 on average, 1.200 … 1.400 over 3 draws. The loss of merging by outputs is {place}." in lens.summary


def test_one_draw_has_no_range():
    lens = made(with_losses([1.0, 1.25, 2.0], [1.0, 1.5, 2.0]), merges=1)
    assert "random pairs: 1.500 in one draw. The loss of merging by outputs is below every random draw." in lens.summary
    assert table_rows(lens)[-1][0] == "random pairs"


def test_a_pair_is_named_with_its_similarity_in_all_kinds_and_the_merge_it_meets_at():
    lens = lens_of()
    first, second = lens.now["joins"][2]
    made(lens, pair=[second, first])
    words = [f"{matrix[second, first]:.2f} by {kind}" for kind, matrix in zip(KINDS, lens.matrices)]
    assert lens.summary.endswith(f" Experts {second} and {first}: {', '.join(words)}; by outputs they become one at merge 3.")
    assert made(lens, pair=[4, 4]).summary.endswith(" Expert 4 with itself: 1 by definition.")
    few = made(lens_of(merges=3), pair=[0, 15])
    assert few.summary.endswith("by outputs they stay apart in all 3 recorded.")


def test_nothing_is_merged_at_0_and_nothing_is_compared():
    lens = made(lens_of(), merges=0)
    assert lens.summary == ("16 experts of one layer (synthetic), alike by outputs: no merge, 16 experts left. "
                            "Measured test loss (mean squared error): 0.5000, unmerged.")
    assert [row[1:] for row in table_rows(lens)] == [["–", "0.5000", "–"]] * 4


def test_the_table_has_no_number_that_was_not_recorded():
    one, other = merging_of(alike(8, 2, 0.8), 0.3), merging_of(alike(8, 2, 0.5), 0.3, merges=2)
    lens = RedundancyLens({"outputs": one, "weights": other}, origin="toy", control=one.losses, unit="loss")
    assert table_rows(made(lens, merges=2))[1][1] != "–"
    assert table_rows(made(lens, merges=3))[1] == ["weights", "–", "–", "–"]


def test_another_kind_with_fewer_merges_takes_the_slider_back():
    one, other = merging_of(alike(8, 2, 0.8), 0.3), merging_of(alike(8, 2, 0.5), 0.3, merges=2)
    lens = made(RedundancyLens({"outputs": one, "weights": other}, origin="toy", control=one.losses, unit="loss"), merges=6)
    lens.set_state({"kind": "weights"})
    assert lens.merges == 2
    lens.set_state({"kind": "outputs", "merges": 7})
    assert (lens.kind, lens.merges) == ("outputs", 7)


def test_a_change_of_nearly_nothing_is_not_minus_zero():
    lens = made(with_losses([1.0, 1.0 - 1e-9, 2.0], [1.0, 1.0, 2.0]), merges=1)
    assert "1.000, +0.000 against 1.000" in lens.summary
    assert "-0.0041" in made(with_losses([0.5, 0.4959, 0.6], [0.5, 0.5, 0.6]), merges=1).summary


# --- order and outlines ----------------------------------------------------------------------------------------------


def test_by_group_the_experts_of_every_group_of_every_merge_stand_side_by_side():
    lens = made(lens_of(24), order="by group")
    assert sorted(lens.rows) == list(range(24))
    places = {tuple(lens.rows)}
    for merges in range(24):
        made(lens, merges=merges)
        places.add(tuple(lens.rows))
        for group in lens.groups:
            rows = sorted(lens.rows.index(n) for n in group)
            assert rows == list(range(rows[0], rows[0] + len(rows)))
    assert len(places) == 1  # the slider moves no row


def test_by_number_the_rows_are_the_experts():
    assert lens_of().rows == list(range(16))


def test_the_outlines_are_around_the_cells_of_merged_experts_and_no_others():
    assert contours([0, 1, 2]) == []
    square = {(0, 0, 0, 1), (0, 1, 0, 2), (2, 0, 2, 1), (2, 1, 2, 2), (0, 0, 1, 0), (1, 0, 2, 0), (0, 2, 1, 2), (1, 2, 2, 2)}
    assert set(map(tuple, contours([0, 0, 2]))) == square  # neighbours share one outline
    assert len(contours([0, 1, 0])) == 4 * 4  # strangers between: four cells by themselves


def test_two_experts_meet_at_the_merge_that_joins_their_groups():
    joins = [[1, 3], [0, 2], [0, 1]]
    assert [met_at(joins, 5, *pair) for pair in ((1, 3), (0, 2), (2, 3), (0, 4))] == [1, 2, 3, None]
    assert leaders(joins, 5, 2) == [0, 1, 0, 1, 4] and tree_order(joins, 5) == [0, 2, 1, 3, 4]


# --- axes ------------------------------------------------------------------------------------------------------------


def test_the_axis_holds_every_loss_and_no_setting_moves_it():
    lens = lens_of()
    axis = dict(lens.axes["loss"])
    every = [loss for kind in lens.kinds for loss in kind["losses"]] + lens.control["low"] + lens.control["high"]
    assert axis["low"] < min(every) and max(every) < axis["high"] and not axis["log"]
    figures = [draw_lens(made(lens, kind=kind, merges=merges)) for kind, merges in (("outputs", 0), ("co-routing", 15))]
    limits = [[ax.get_ylim() for ax in part.axes] for figure in figures for part in figure.subfigs[1:]]
    assert limits[0] == limits[1]
    assert {image.get_clim() for figure in figures for image in figure.subfigs[0].axes[0].images} == {(-1, 1)}


def test_losses_that_differ_many_times_get_a_logarithmic_axis_that_says_so():
    assert not loss_axis([1.0, 7.9])["log"] and loss_axis([1.0, 8.1])["log"]
    assert not loss_axis([0.0, 8.1])["log"] and not loss_axis([-1.0, 100.0])["log"]
    lens = with_losses([0.01, 0.1, 4.0], [0.01, 0.2, 5.0])
    assert loss_title(lens).endswith(", log axis") and draw_lens(lens).subfigs[1].axes[0].get_yscale() == "log"
    assert lens.axes["loss"]["low"] < 0.01 and lens.axes["loss"]["high"] > 5


def test_ticks_are_few_round_and_inside():
    for i in range(200):
        low, high = -0.47 * 1.07**i, 0.41 * 1.09**i
        ticks = even_ticks(low, high)
        assert 2 <= len(ticks) <= 6 and low <= ticks[0] < ticks[-1] <= high
    for i in range(8, 400):
        low, high = 0.0137, 0.0137 * 1.13 ** (i + 10)
        ticks = log_ticks(low, high)
        assert 2 <= len(ticks) <= 6 and low <= ticks[0] < ticks[-1] <= high
    assert [len(whole_ticks(last)) <= 8 and whole_ticks(last)[0] == 0 for last in range(1, 128)] == [True] * 127


@pytest.mark.parametrize("losses,digits", [([0.5, 1.4], 4), ([1.9, 5.0], 3), ([0.0123, 3.0], 5), ([2.0, 2.0], 3),
                                           ([0.0, 0.0], 3), ([900.0, 4000.0], 3), ([2.0, 2.004], 6), ([0.0, 0.02], 5)])
def test_a_loss_has_as_many_digits_as_its_changes_need(losses, digits):
    assert digits_for(losses, losses[0]) == digits


# --- validation ------------------------------------------------------------------------------------------------------


def refused(words: str, mergings, **named):
    with pytest.raises(ValueError, match=words):
        RedundancyLens(mergings, **{"origin": "toy", "control": [UNMERGED] * 16, "unit": "loss", **named})


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = merging_of(alike(8, 2, 0.8), 0.3)
    good = {"outputs": one}
    refused("origin is 'real'; .* trained, toy, synthetic", good, origin="real")
    refused("unit is ' '; say what the loss is", good, unit=" ")
    refused("mergings is {}; expected a Merging", {})
    refused("expected a Merging for one or more of outputs, weights, co-routing", one)
    refused("unknown kind of similarity looks; choose from outputs, weights", {**good, "looks": one})
    refused("by weights is str; expected a Merging", {**good, "weights": "x"})
    refused("by weights has 6 experts, that by outputs has 8", {**good, "weights": merging_of(alike(6, 2, 0.8), 0.3)})
    refused("by weights starts at loss 0.7, that by outputs at 0.5; measure the unmerged layer once",
            {**good, "weights": replace(one, losses=(0.7,) + one.losses[1:])})


def changed(one, **fields):
    return {"outputs": replace(one, **fields)}


def test_a_merging_that_contradicts_itself_is_refused():
    one = merging_of(alike(8, 2, 0.8), 0.3)
    steps, marks, losses = one.groups, one.thresholds, one.losses
    refused("has 8 thresholds, 8 groups and 7 losses; expected M", changed(one, losses=losses[:-1]))
    refused("expected M \\+ 1 of each, with M >= 1", changed(one, losses=losses[:1], groups=steps[:1], thresholds=marks[:1]))
    refused("a loss of the merging by outputs is NaN or infinite", changed(one, losses=losses[:-1] + (math.nan,)))
    refused("thresholds .* are 0.9, .* expected inf, then falling", changed(one, thresholds=(0.9,) + marks[1:]))
    refused("expected inf, then falling numbers", changed(one, thresholds=marks[:1] + marks[:0:-1]))
    refused("expected inf, then falling numbers", changed(one, thresholds=marks[:-1] + (math.nan,)))
    refused("must start with every expert of 0 … 7 in a group", changed(one, groups=steps[1:] + steps[-1:]))
    refused("merge 2 .* does not join two groups", changed(one, groups=steps[:2] + steps[1:2] + steps[3:]))
    refused("merge 1 .* does not join two groups", changed(one, groups=steps[:1] + steps[2:] + steps[-1:]))
    wrong = tuple((n,) for n in range(6)) + ((6, 8),)
    refused(r"merge 1 .*: \[6\], \[7\] became \[6, 8\]", changed(one, groups=steps[:1] + (wrong,) + steps[2:]))


def test_thresholds_may_rise_by_a_rounding():
    one = merging_of(alike(8, 2, 0.8), 0.3)
    marks = list(one.thresholds)
    marks[3] = marks[2] + 1e-7
    lens = RedundancyLens(changed(one, thresholds=tuple(marks)), origin="toy", control=one.losses, unit="loss")
    assert lens.merges == 2


def test_a_similarity_that_is_none_is_refused():
    one = merging_of(alike(8, 2, 0.8), 0.3)
    for words, similarity in ((r"shape \(8, 7\); expected \[N, N\]", one.similarity[:, :7]),
                              ("holds NaN", one.similarity.clone().fill_diagonal_(math.nan)),
                              ("reaches 2; expected -1 … 1", 2 * torch.eye(8)),
                              ("is not symmetric", one.similarity.triu())):
        refused(words, changed(one, similarity=similarity))
    lone = replace(one, similarity=torch.ones(1, 1), groups=(((0,),), ((0,),)), losses=(1.0, 1.0), thresholds=(math.inf, 0.0))
    refused("merge 1 .* does not join two groups", {"outputs": lone})


def test_an_expert_that_nobody_calls_may_have_no_similarity_even_with_itself():
    idle = alike(8, 2, 0.8)
    idle[3] = idle[:, 3] = 0
    one = merging_of(idle, 0.3)
    assert RedundancyLens({"co-routing": one}, origin="toy", control=one.losses, unit="loss").kind == "co-routing"


def test_more_experts_than_can_be_seen_are_refused():
    refused(r"shape \(129, 129\); expected \[N, N\] with N of 2 … 128", {"outputs": merging_of(alike(129, 2, 0.5), 0.3, 1)})


@pytest.mark.parametrize("words,control", [
    ("expected 8 losses or more", [0.5] * 7), ("expected 8 losses or more", []), ("expected 8 losses or more", [[[0.5] * 8]]),
    ("expected losses, as many for every draw", [[0.5] * 8, [0.5] * 7]), ("control is 'no'", "no"), ("expected 8 losses", None),
    ("is NaN or infinite", [0.5] * 7 + [math.inf]), ("starts at loss 0.4, the mergings at 0.5", [0.4] * 8)])
def test_a_control_that_is_none_is_refused(words, control):
    refused(words, {"outputs": merging_of(alike(8, 2, 0.8), 0.3)}, control=control)


def test_a_control_may_be_longer_and_of_any_sequence():
    one = merging_of(alike(8, 2, 0.8), 0.3, merges=4)
    for control in ([UNMERGED] * 8, np.full((3, 8), UNMERGED), [tuple([UNMERGED] * 5)], torch.full((2, 5), UNMERGED)):
        lens = RedundancyLens({"outputs": one}, origin="toy", control=control, unit="loss")
        assert len(lens.control["mean"]) == 5


@pytest.mark.parametrize("trait,value", [("kind", "looks"), ("merges", -1), ("merges", 16), ("order", "by size"), ("pair", [1]),
                                         ("pair", [0, 16]), ("pair", [-1, 3]), ("pair", [1, 2, 3])])
def test_a_control_out_of_range_is_refused_and_nothing_moves(trait, value):
    lens = lens_of()
    before = lens.summary
    with pytest.raises(TraitError, match=f"{trait} is "):
        setattr(lens, trait, value)
    assert lens.summary == before


# --- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experts,merges", [(2, 1), (8, 1), (8, 7), (64, 63), (128, 5)])
def test_every_control_works_at_its_ends(experts, merges):
    lens = lens_of(experts, merges)
    for kind in KINDS:
        made(lens, kind=kind, pair=[0, experts - 1])
        for order, now in zip(ORDERS, (0, merges)):
            made(lens, order=order, merges=now)
            assert len(lens.groups) == experts - now
            assert lens.summary.startswith(f"{experts} experts of one layer (synthetic), alike by {kind}: ")
        assert lens.picture().startswith(PNG)


@pytest.mark.parametrize("losses", [[0.0] * 3, [0.0, 1e-12, 2e-12], [-3.0, 0.0, 4.0], [1e-9, 1.0, 1e9], [5.0, 4.0, 3.0]])
def test_any_losses_can_be_drawn_and_read(losses):
    lens = with_losses(losses, losses, unit="$x$ </b>")
    for merges in range(3):
        assert made(lens, merges=merges).picture().startswith(PNG) and "nan" not in lens.summary


def test_one_kind_is_enough():
    one = merging_of(alike(8, 2, 0.8), 0.3)
    lens = RedundancyLens({"weights": one}, origin="toy", control=one.losses, unit="loss")
    assert lens.kind == "weights" and len(table_rows(lens)) == 2 and lens.picture().startswith(PNG)


# --- what a notebook stores ------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_view_and_a_picture():
    lens = lens_of()
    bundle = lens._repr_mimebundle_()[0]
    assert base64.b64decode(bundle["image/png"]).startswith(PNG) and bundle[VIEW]["model_id"] == lens.model_id
    lens.close()
    assert set(lens._repr_mimebundle_()[0]) == {"text/plain", "image/png"}


def test_the_text_form_names_no_instance_and_the_picture_is_the_same_each_time():
    assert repr(lens_of()) == repr(made(lens_of(), merges=9)) == (
        "RedundancyLens('redundancy lens', synthetic: 16 experts; outputs (15 merges), weights (15 merges), "
        "co-routing (15 merges))")
    assert lens_of().picture() == lens_of().picture() != made(lens_of(), merges=5).picture()


def test_the_picture_says_whose_it_is_and_shows_the_table_and_the_outlines():
    figure = draw_lens(lens_of(origin="trained", title="the $layer"))
    assert figure.get_suptitle() == "the $layer · 16 experts of one layer · trained"
    heat, right = figure.subfigs
    assert "alike by outputs · order: by number" in heat.axes[0].get_title()
    assert len(heat.axes[0].collections[0].get_segments()) == len(contours(leaders(lens_of().now["joins"], 16, 4)))
    texts = [cell.get_text().get_text() for cell in right.axes[1].tables[0].get_celld().values()]
    assert all(word in texts for row in table_rows(lens_of()) for word in row)


def test_the_module_needs_nothing_from_elsewhere():
    source = RedundancyLens._esm
    assert not any(line.lstrip().startswith("import ") for line in source.splitlines())
    assert not any(word in source for word in ("http://", "https://", "innerHTML", "fetch(", "eval(", "import("))
    assert source.count("export default") == 1


# --- JavaScript computes the same and says the same -------------------------------------------------------------------


def cases() -> dict[str, RedundancyLens]:
    """The corners where two implementations part ways."""
    ties = torch.ones(8, 8) / 2 + torch.eye(8) / 2
    same = {kind: merging_of(ties, 0.3) for kind in KINDS}
    short = {"outputs": merging_of(alike(8, 2, 0.8), 0.3), "weights": merging_of(alike(8, 2, 0.5), 0.3, merges=2)}
    toy = {"origin": "toy", "control": short["outputs"].losses, "unit": "nats per byte"}
    return {
        "as opened": lens_of(),
        **{f"{kind}, {order}, {merges} merges": made(lens_of(24), kind=kind, order=order, merges=merges, pair=[3, 19])
           for kind in KINDS for order in ORDERS for merges in (0, 1, 11, 23)},
        "an expert with itself": made(lens_of(), pair=[7, 7]),
        "ties": made(RedundancyLens(same, **toy), merges=5, order="by group", pair=[6, 1]),
        "one draw": lens_of(draws=1),
        "one kind": RedundancyLens({"co-routing": short["outputs"]}, **toy),
        "fewer merges of another kind": made(RedundancyLens(short, **toy), merges=6, pair=[0, 7]),
        "the last merge of few": made(RedundancyLens(short, **toy), kind="weights", merges=2, pair=[0, 7]),
        "two experts": made(lens_of(2), pair=[1, 0]),
        "many experts, many groups": made(lens_of(64), merges=24, pair=[63, 0]),
        "log axis": made(with_losses([0.01, 0.1, 4.0], [[0.01, 0.2, 5.0], [0.01, 0.3, 3.0]]), merges=2),
        "losses all 0": with_losses([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        "a gain too small to see": made(with_losses([1.0, 1.0 - 1e-9, 2.0], [1.0, 1.0, 2.0]), merges=1),
        "a gain": made(with_losses([1.0, 0.9375, 2.0], [1.0, 1.0625, 2.0]), merges=1),
        "negative losses": made(with_losses([-3.0, -2.5, 4.0], [-3.0, 0.0, 4.0]), merges=2),
        "tiny losses": made(with_losses([1e-9, 2e-9, 4e-9], [1e-9, 3e-9, 4e-9]), merges=1),
        "hostile words": with_losses([1.0, 1.1, 1.2], [1.0, 1.1, 1.2], unit="<b>$x$</b>", title="</style>"),
    }


def height_of(axis: dict, loss: float) -> float:
    """Where matplotlib would draw a loss, 0 … 1."""
    low, high, loss = (math.log(x) if axis["log"] else x for x in (axis["low"], axis["high"], loss))
    return (loss - low) / (high - low)


def golden(name: str, lens: RedundancyLens) -> dict:
    leader = leaders(lens.now["joins"], lens.num_experts, lens.merges)
    return {"name": name, "state": browser_state(lens), "groups": lens.groups, "rows": lens.rows,
            "edges": contours([leader[n] for n in lens.rows]), "slider": merges_words(lens.merges, lens.now["thresholds"]),
            "title": [table_title(lens), loss_title(lens)], "numbers": table_rows(lens),
            "curve": [[loss, height_of(lens.axes["loss"], loss)] for loss in lens.now["losses"] + lens.control["high"]],
            "summary": lens.summary}


def test_javascript_computes_and_says_what_python_does(tmp_path):
    vectors = {"cases": [golden(name, lens) for name, lens in cases().items()], "columns": list(COLUMNS),
               "diverging": [to_hex(colour) for colour in colormaps["RdBu"](range(256))]}
    printed = run_node("redundancy_lens", RedundancyLens._esm, vectors, tmp_path)
    assert f"pass {len(vectors['cases']) + 5}" in printed  # every case ran


def test_the_lens_of_a_layer_measures_what_it_shows():
    torch.manual_seed(0)
    layer, x = MoE(8, 5, 2, 4), torch.randn(50, 8)
    with torch.no_grad():
        for weights in (layer.experts.w_in, layer.experts.w_out):
            weights[3] = weights[1]  # twins
    wanted = layer(x)[0].detach()

    def error(changed):
        return (changed(x)[0] - wanted).square().mean().item()

    lens = RedundancyLens.of_layer(layer, x, error, merges=2, draws=3, origin="toy", unit="squared error")
    assert [kind["name"] for kind in lens.kinds] == ["outputs", "weights", "co-routing"] and lens.control["draws"] == 3
    lens.merges = 1
    assert [1, 3] in lens.groups and lens.loss == pytest.approx(0, abs=1e-9), "twins are merged first, at no cost"
    lens.merges = 2
    assert lens.loss > 1e-6
