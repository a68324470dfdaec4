"""The redundancy lens: what it refuses, and by meaning what it shows. test_every_widget_browser.py asks the rest."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from redundancy_lens.cases import UNMERGED, alike, lens_of, merging_of, mergings_of
from widget_harness import picture, put, status, table, written

from moe_lesson.moe.layers import MoE
from moe_lesson.widgets import RedundancyLens
from moe_lesson.widgets.redundancy_lens.data import KINDS

SLIDER = "merges, most similar first"


def one_kind(losses: list[float], control: list, **more) -> RedundancyLens:
    """A lens of one kind whose losses are given."""
    one = merging_of(alike(len(losses), 2, 0.8), 0.3)
    return RedundancyLens({"outputs": replace(one, losses=tuple(losses))}, control=control,
                          **{"origin": "toy", "unit": "loss", **more})


def two_kinds() -> RedundancyLens:
    """7 merges by outputs, but 2 by weights."""
    one, other = merging_of(alike(8, 2, 0.8), 0.3), merging_of(alike(8, 2, 0.5), 0.3, merges=2)
    return RedundancyLens({"outputs": one, "weights": other}, origin="toy", control=one.losses, unit="loss")


# --- what it refuses --------------------------------------------------------------------------------------------------


def refused(words, mergings, **more):
    with pytest.raises(ValueError, match=words):
        RedundancyLens(mergings, **{"origin": "toy", "control": [UNMERGED] * 9, "unit": "loss", **more})


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = merging_of(alike(8, 2, 0.8), 0.3)
    good = {"outputs": one}
    refused("unit is ''; say what the loss is", good, unit="")
    refused("mergings is {}; expected a Merging for one or more of outputs, weights, co-routing", {})
    refused("expected a Merging for one or more", {"looks": one})
    refused("merging by outputs is str; expected a Merging", {"outputs": "x"})
    refused(r"have \[8, 6\] experts; show one layer", {**good, "weights": merging_of(alike(6, 2, 0.5), 0.3)})
    refused("start at losses .*0.25.*; measure the unmerged layer once",
            {**good, "weights": replace(one, losses=(0.25, *one.losses[1:]))})


def test_a_merging_that_contradicts_itself_is_refused():
    one = merging_of(alike(8, 2, 0.8), 0.3)
    steps, marks = one.groups, one.thresholds
    for words, change in (
            ("8 thresholds, 8 groups and 7 losses; expected as many of each", {"losses": one.losses[:-1]}),
            ("and at least two", {"losses": one.losses[:1], "groups": steps[:1], "thresholds": marks[:1]}),
            ("a loss of the merging by outputs is NaN", {"losses": one.losses[:-1] + (math.nan,)}),
            ("expected inf for no merge, then numbers", {"thresholds": (0.9,) + marks[1:]}),
            ("expected inf for no merge, then numbers", {"thresholds": marks[:-1] + (math.nan,)}),
            ("after 0 merges .* expected 8, with each of 8 experts once", {"groups": steps[1:] + steps[-1:]}),
            ("after 1 merges .* expected 7", {"groups": steps[:1] + (steps[1][1:] + ((9,),),) + steps[2:]})):
        refused(words, {"outputs": replace(one, **change)})


def test_a_similarity_that_is_none_is_refused():
    one = merging_of(alike(8, 2, 0.8), 0.3)
    for words, similarity in ((r"shape \(8, 7\); expected \[N, N\]", one.similarity[:, :7]),
                              ("holds NaN", one.similarity.clone().fill_diagonal_(math.nan)),
                              ("reaches 2; expected -1 … 1", 2 * torch.eye(8)),
                              ("is not symmetric", one.similarity.triu())):
        refused(words, {"outputs": replace(one, similarity=similarity)})
    refused(r"shape \(129, 129\); expected \[N, N\] with N of 2 … 128", {"outputs": merging_of(alike(129, 2, 0.5), 0.3, 1)})


@pytest.mark.parametrize("words,control", [
    ("expected 8 losses or more", [0.5] * 7), ("expected 8 losses or more", [[[0.5] * 8]]), ("control is 'no'", "no"),
    ("expected losses, as many for every draw", [[0.5] * 8, [0.5] * 7]), ("expected 8 losses", None),
    ("is NaN or infinite", [0.5] * 7 + [math.inf]), ("start at losses", [0.4] * 8)])
def test_a_control_that_is_none_is_refused(words, control):
    refused(words, {"outputs": merging_of(alike(8, 2, 0.8), 0.3)}, control=control)


def test_a_control_may_be_longer_and_of_any_sequence():
    one = merging_of(alike(8, 2, 0.8), 0.3, merges=4)
    for control in (np.full((3, 8), UNMERGED), [tuple([UNMERGED] * 5)], torch.full((2, 5), UNMERGED)):
        assert len(RedundancyLens({"outputs": one}, origin="toy", control=control, unit="loss").control["mean"]) == 5


def test_the_lens_of_a_layer_measures_what_it_shows():
    torch.manual_seed(0)
    layer, x = MoE(8, 5, 2, 4), torch.randn(50, 8)
    with torch.no_grad():
        for weights in (layer.experts.w_in, layer.experts.w_out):
            weights[3] = weights[1]  # twins
    wanted = layer(x)[0].detach()
    lens = RedundancyLens.of_layer(layer, x, lambda changed: (changed(x)[0] - wanted).square().mean().item(), merges=2, draws=3,
                                   origin="toy", unit="squared error")
    assert [kind["name"] for kind in lens.kinds] == list(KINDS) and lens.control["draws"] == 3
    by_outputs = lens.kinds[0]
    assert by_outputs["leaders"][1] == [0, 1, 2, 1, 4] and by_outputs["losses"][1] == pytest.approx(0, abs=1e-9)
    assert by_outputs["losses"][2] > 1e-6
    with pytest.raises(ValueError, match="layer is 1; this model has 1 MoE layers, counted from 0"):
        RedundancyLens.of_layer(layer, x, lambda changed: 0.0, layer=1, origin="toy", unit="loss")


# --- what it shows ----------------------------------------------------------------------------------------------------


def cell_at(page, row: int, column: int, experts: int = 16) -> tuple[float, float]:
    """The middle of a cell of the map, for the mouse."""
    box = page.locator(".moe-stage canvas").bounding_box()
    cell = (box["width"] - 40) / experts
    return box["x"] + 34 + (column + 0.5) * cell, box["y"] + 4 + (row + 0.5) * cell


def test_it_opens_with_a_quarter_of_the_experts_merged_by_their_outputs(show):
    page, record = show(lens_of()), mergings_of()["outputs"]
    loss = record.losses[4]
    low, high = (UNMERGED + cost * (4 / 15) ** 2 for cost in (0.7, 0.9))
    assert f"4 merges by outputs, 12 of 16 experts left: test loss (mean squared error) {loss:.4f}" in status(page)
    assert f"+{loss - UNMERGED:.4f} against {UNMERGED:.4f} unmerged." in status(page)
    assert f"Random pairs: {low:.4f} … {high:.4f} in 3 draws" in status(page)
    merged = [group for group in record.groups[4] if len(group) > 1]
    assert f"One expert each: {', '.join('+'.join(map(str, group)) for group in merged)}." in status(page)
    assert page.get_by_text(f"4 merges, down to similarity {record.thresholds[4]:.2f}").is_visible()
    assert page.get_by_text("outputs: cosine of two experts' outputs").is_visible()


def test_the_table_has_the_record_of_every_kind_and_the_mean_of_the_draws(show):
    page = show(lens_of())
    for merges in (0, 7, 15):
        put(page, merges=merges)
        rows, records = table(page), mergings_of()
        for name, (kind, similarity, loss, change) in zip(KINDS, rows):
            record = records[name]
            assert (kind, loss) == (name, f"{record.losses[merges]:.4f}")
            assert similarity == (f"{record.thresholds[merges]:.2f}" if merges else "–")
            assert change == (f"+{record.losses[merges] - UNMERGED:.4f}" if merges else "–")
        assert rows[-1][:3] == ["random pairs, mean", "–", f"{UNMERGED + 0.8 * (merges / 15) ** 2:.4f}"]


def test_the_curves_stand_at_their_losses_and_no_setting_moves_them(show):
    page = show(lens_of())
    status(page)
    paths = "(nodes) => nodes.map((node) => node.getAttribute('d')).sort()"
    before = page.locator("path.moe-line").evaluate_all(paths)
    put(page, kind="co-routing", merges=15)
    assert page.locator("path.moe-line").evaluate_all(paths) == before and len(before) == 4
    heights = page.locator("circle.moe-dot").evaluate_all("(nodes) => nodes.map((node) => Number(node.getAttribute('cy')))")
    losses = [mergings_of()[name].losses[15] for name in KINDS]
    places = np.polyfit(losses, heights, 1)
    assert places[0] < 0 and np.polyval(places, losses) == pytest.approx(heights, abs=0.01)


@pytest.mark.parametrize("losses,log", [([1.0, 2.0, 7.9], False), ([1.0, 2.0, 8.1], True), ([0.0, 1.0, 9.0], False)])
def test_losses_that_differ_many_times_get_a_logarithmic_axis_that_says_so(show, losses, log):
    assert show(one_kind(losses, losses)).get_by_text("measured loss, log axis").is_visible() is log


@pytest.mark.parametrize("loss,place", [(1.1, "costs less"), (1.2, "lies within"),
                                        (1.3, "lies within"), (1.5, "costs more")])
def test_the_verdict_compares_with_every_draw(show, loss, place):
    page = show(one_kind([1.0, loss, 2.0], [[1.0, 1.2, 2.0], [1.0, 1.4, 2.0], [1.0, 1.3, 2.0]]))
    assert f"Random pairs: 1.200 … 1.400 in 3 draws; merging by outputs {place}." in status(page)


def test_one_draw_has_no_range_and_a_change_of_nearly_nothing_is_not_minus_zero(show):
    page = show(one_kind([1.0, 1.0 - 1e-9, 2.0], [1.0, 1.5, 2.0]))
    assert "1.000, +0.000 against 1.000" in status(page)
    assert "Random pairs: 1.500 in one draw; merging by outputs costs less." in status(page)


@pytest.mark.parametrize("losses", [[0.0] * 3, [-3.0, 0.0, 4.0], [1e-9, 1.0, 1e9]])
def test_any_losses_can_be_drawn_and_read(show, losses):
    page = show(one_kind(losses, losses))
    assert "NaN" not in status(page) and "NaN" not in page.locator(".moe-chart").inner_html()


def test_another_kind_shows_other_similarities_and_takes_the_slider_back_if_it_has_fewer_merges(show):
    lens = two_kinds()
    lens.merges = 6
    page = show(lens, live=True)
    assert table(page)[1] == ["weights", "–", "–", "–"]
    before = picture(page)
    page.get_by_label("outputs", exact=True).press("ArrowRight")
    assert "2 merges by weights, 6 of 8 experts left" in status(page) and picture(page) != before
    assert page.evaluate("model.saved") == [{"kind": "weights", "merges": 2}] and (lens.kind, lens.merges) == ("weights", 2)
    assert page.get_by_label(SLIDER).get_attribute("max") == "2"


def test_cells_with_room_say_how_alike_two_experts_are(show):
    for experts, all_told in ((8, True), (16, False)):
        lens = lens_of(experts)
        texts = [text for text, _ in written(show(lens), {"merges": 1})]
        one = mergings_of(experts)["outputs"].similarity.numpy()
        told = sorted(text for text in texts if "." in text)
        assert told == (sorted(f"{value + 0.0:.2f}".replace("-0.00", "0.00") for value in one[~np.eye(experts, dtype=bool)])
                        if all_told else [])


def test_a_pair_is_named_with_its_similarity_in_all_kinds_and_the_merge_it_meets_at(show):
    page, records = show(lens_of(merges=8)), mergings_of(merges=8)
    for first, second in ((14, 8), (3, 3), (0, 15)):
        page.mouse.move(*cell_at(page, first, second))
        if first == second:
            assert status(page).endswith("Expert 3 with itself: 1 by definition.")
            continue
        alike_by = ", ".join(f"{records[kind].similarity[first, second]:.2f} by {kind}" for kind in KINDS)
        met = [merges for merges, groups in enumerate(records["outputs"].groups)
               if any({first, second} <= set(group) for group in groups)]
        when = f"become one at merge {met[0]}" if met else "stay apart in all 8 recorded merges"
        assert status(page).endswith(f" Experts {first} and {second}: {alike_by}; by outputs they {when}.")


def test_arrow_keys_walk_the_map_enter_keeps_a_pair_and_escape_lets_go(show):
    lens = lens_of()
    page = show(lens, live=True)
    stage = page.get_by_role("application")
    stage.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert "Experts 2 and 1: " in status(page) and lens.pair is None
    page.keyboard.press("Enter")
    page.get_by_label(SLIDER).press("End")
    assert "Experts 2 and 1: " in status(page) and lens.pair == [2, 1]
    stage.press("Escape")
    assert "Experts" not in status(page) and lens.pair is None


def test_the_mouse_keeps_a_pair_and_lets_it_go(show):
    page = show(lens_of())
    for kept in ([14, 8], None):
        page.mouse.click(*cell_at(page, 14, 8))
        page.mouse.move(5, 5)
        assert ("Experts 14 and 8" in status(page)) is bool(kept) and page.evaluate("model.get('pair')") == kept


def test_rows_outlines_and_groups_are_those_of_the_merges(node):
    groups = {name: [[list(group) for group in groups if len(group) > 1] for groups in record.groups]
              for name, record in mergings_of(24).items()}
    vectors = {"state": {"kinds": lens_of(24).kinds, "num_experts": 24}, "groups": groups}
    assert "pass 2" in node("redundancy_lens/redundancy_lens.test.mjs", vectors)
