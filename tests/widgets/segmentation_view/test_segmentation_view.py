"""Segmentation: what it refuses, and by meaning what it shows. test_every_widget_browser.py asks the rest.

All losses here are made up; cases.py makes them.
"""

import itertools
import math
from dataclasses import replace

import pytest
from segmentation_view.cases import BUDGETS, made_up, view_of, world_of, write_made_up_tables
from widget_harness import put, status

from moe_lesson.lm.ledger import ffn_cost, ffn_parts
from moe_lesson.measure.evidence import interval
from moe_lesson.moe.recipes import Sparse
from moe_lesson.widgets import SegmentationView
from moe_lesson.widgets.segmentation_view.data import SLOTS, TABLES, World

CUT, SHARE = "m, pieces of each expert", "Ks, shared pieces"

# --- the tables, and what it refuses ------------------------------------------------------------------------------------


def test_the_tables_of_the_experiments_give_the_worlds(tmp_path):
    write_made_up_tables(tmp_path)
    view = SegmentationView.of_tables(tmp_path)
    assert view.origin == "trained" and list(view.worlds) == list(BUDGETS)
    for name, world in view.worlds.items():
        expected = world_of(name).to_dict()
        assert (world["unit"], world["pays"]) == (expected["unit"], expected["pays"])
        for mine, theirs in zip(world["settings"], expected["settings"]):
            near = {measure: theirs[measure] and {name: pytest.approx(value, rel=1e-4) for name, value in theirs[measure].items()}
                    for measure in ("loss", "hybridity")}
            assert mine == theirs | near


def test_the_recipes_of_the_tables_cost_a_token_the_budget():
    for name, (width, budget) in BUDGETS.items():
        world = world_of(name)
        assert world.to_dict()["pays"] == ffn_cost(budget.experts(top_k=2, segments=4), width).active
        for slot, setting in zip(SLOTS, world.to_dict()["settings"]):
            assert setting["costs"] == {part: cost.active for part, cost in ffn_parts(world.recipe(slot), width).items()}
            assert sum(setting["costs"].values()) == pytest.approx(world.to_dict()["pays"], rel=0.07)


def test_tables_that_are_missing_unfinished_or_of_other_sizes_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="no result tables in"):
        SegmentationView.of_tables(tmp_path)
    write_made_up_tables(tmp_path, leave_out=("4 shared",))
    with pytest.raises(ValueError, match="ladder-cpu has no final run of '4 shared'; let the experiment run to its end"):
        SegmentationView.of_tables(tmp_path)
    write_made_up_tables(tmp_path, total=1)
    with pytest.raises(ValueError, match=r"'gshard' has \d+.* parameters in ladder-cpu, and \d+ in .*; run the experiment again"):
        SegmentationView.of_tables(tmp_path)


def test_measurements_that_cannot_be_are_refused_with_value_and_remedy():
    good = [0.9, 1.0, 1.1]
    for words, change in [
        (r"\(m, Ks\) = \(1, 2\) is not a setting of the widget", {"loss": {(1, 2): good}}),
        (r"\(m, Ks\) = \(3, 0\) is not a setting", {"hybridity": {(3, 0): good}}),
        (r"loss of \(m, Ks\) = \(4, 1\) is .*; expected a finite number for each", {"loss": {(4, 1): [1.0, math.nan]}}),
        (r"loss of \(m, Ks\) = \(4, 1\) is 1.5; expected", {"loss": {(4, 1): 1.5}}),
        (r"hybridity of \(m, Ks\) = \(4, 1\) is \[1.0\]; expected a finite", {"hybridity": {(4, 1): [1.0]}}),
        ("no setting has a loss; give at least one", {"loss": {}}),
        ("can't be 2 of a whole number of experts", {"budget": Sparse(16, 3, 24)}),
    ]:
        with pytest.raises(ValueError, match=words):
            replace(world_of("text"), **change)


def test_worlds_are_checked():
    for worlds in ({}, {"text": [1]}, "text"):
        with pytest.raises(ValueError, match=r"expected name -> World, at least one, or use SegmentationView.of_tables\(\)"):
            SegmentationView(worlds, origin="synthetic")


# --- what it shows ----------------------------------------------------------------------------------------------------


def boxes(page, chart: int) -> list[dict]:
    """The rectangles of a chart, in the order they were drawn."""
    return page.locator(".moe-chart").nth(chart).locator("rect.moe-bar").evaluate_all(
        """(nodes) => nodes.map((node) => ({ x: node.x.baseVal.value, width: node.width.baseVal.value,
          fill: node.getAttribute("fill"), stroke: node.getAttribute("stroke") }))""")


def test_cutting_makes_billions_of_routes_and_sharing_takes_most_of_them_away(show):
    page = show(view_of())
    assert page.locator(".moe-cut-routes").inner_text() == "C(64, 8) = 4,426,165,368 routes"
    assert page.get_by_text("About 36.9 million times the 120 of uncut experts", exact=True).is_visible()
    for (segments, shared), (n, k), words in (
            ((1, 0), (16, 2), ""), ((2, 0), (32, 4), ", about 300 times the 120"), ((8, 0), (128, 16), "trillion times"),
            ((4, 1), (63, 7), ", 8 times fewer than with Ks = 0, about 4.61 million times"), ((4, 4), (60, 4), "times fewer")):
        said = put(page, segments=segments, num_shared=shared)
        assert f"C({n}, {k}) = {math.comb(n, k):,} routes{words if words.startswith(',') else ''}" in said and words in said


@pytest.mark.parametrize("name", BUDGETS)
def test_what_a_token_pays_is_said_and_drawn_in_its_parts_against_the_budget(show, name):
    page, world = show(view_of(world=name)), world_of(name)
    budget = world.to_dict()["pays"]
    for slot in ((4, 0), (8, 2), (4, 4)):
        costs = {part: cost.active for part, cost in ffn_parts(world.recipe(slot), world.width).items()}
        said = put(page, segments=slot[0], num_shared=slot[1])
        parts = ", ".join(f"{part} {cost:,}" for part, cost in costs.items() if cost)
        assert f"A token pays {sum(costs.values()):,} parameters ({parts})," in said
        over = 100 * (sum(costs.values()) / budget - 1)
        away = f"{abs(over):.1f}% {'over' if over > 0 else 'under'} the budget of {budget:,}"
        assert (away if over else "the whole budget") in said
        *drawn, outline = boxes(page, 1)
        pixel = outline["width"] / budget
        assert [box["width"] for box in drawn] == pytest.approx([cost * pixel for cost in costs.values()], abs=0.01)
        ends = itertools.accumulate(costs.values(), initial=0)
        assert [box["x"] for box in drawn] == pytest.approx([end * pixel for end in ends][:-1], abs=0.01)


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("slot", [(4, 0), (4, 1), (2, 0), (8, 4)])
def test_what_was_measured_has_its_interval_and_what_was_not_says_so(show, name, slot):
    page = show(view_of(world=name))
    said = put(page, segments=slot[0], num_shared=slot[1])
    measured = slot in TABLES[name][2]
    charts = {"test": ("est loss", 2), "hybridity": ("ybridity", 3)}
    for column, (words, chart) in charts.items():
        place = page.locator(".moe-chart").nth(chart)
        values = made_up(name, *slot).get(column) if measured else None
        if column == "hybridity" and name == "text":
            assert place.count() == 0 and words not in said
            continue
        found = values and interval(values)
        expected = f"{words} {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]" if found else f"{words} not measured"
        assert expected in said and expected in place.locator(".moe-y-title").text_content()
        assert (place.locator("rect.moe-bar").get_attribute("stroke-dasharray") == "none") is measured  # the frame
    assert ("95% over 5 seeds" in said) is measured


def test_every_measured_setting_stands_at_its_mean_beside_its_seeds_and_no_setting_moves_it(show):
    page = show(view_of())
    chart = page.locator(".moe-chart").nth(2)
    read = "(nodes) => nodes.map((node) => [node.cx.baseVal.value, node.cy.baseVal.value])"
    measured = [made_up("text", *slot)["test"] for slot in SLOTS if slot in TABLES["text"][2]]
    drawn = chart.locator("circle").evaluate_all(read)
    dots, rings = drawn[:len(measured)], drawn[len(measured):]
    ticks = chart.locator(".moe-y .tick").evaluate_all(
        "(nodes) => nodes.map((node) => [Number(node.textContent), node.transform.baseVal[0].matrix.f])")
    (first, top), (last, bottom) = ticks[0], ticks[-1]
    height = lambda loss: top + (loss - first) / (last - first) * (bottom - top)  # noqa: E731
    assert [y for _, y in dots] == pytest.approx([height(interval(seeds).mean) for seeds in measured], abs=1)
    assert [y for _, y in rings] == pytest.approx([height(loss) for seeds in measured for loss in seeds], abs=1)
    assert [dot[0] for dot in dots] == sorted(dot[0] for dot in dots)
    put(page, segments=8, num_shared=4)
    assert chart.locator("circle").evaluate_all(read) == drawn
    frame, = chart.locator("rect.moe-bar").evaluate_all("(nodes) => nodes.map((node) => node.x.baseVal.value + 10)")
    assert frame > max(dot[0] for dot in dots)  # the last place
    put(page, segments=4, num_shared=2)
    frame, = chart.locator("rect.moe-bar").evaluate_all("(nodes) => nodes.map((node) => node.x.baseVal.value + 10)")
    mean = dots[[slot for slot in SLOTS if slot in TABLES["text"][2]].index((4, 2))]
    assert frame == pytest.approx(mean[0] - 3)  # which stands beside its seeds


@pytest.mark.parametrize("segments,num_shared,active,shared", [(1, 0, 2, 0), (4, 2, 6, 2), (8, 4, 12, 4)])
def test_a_box_for_every_expert_outlined_where_a_token_goes(show, segments, num_shared, active, shared):
    page = show(view_of(segments=2))
    put(page, segments=segments, num_shared=num_shared)
    _, *drawn = boxes(page, 0)  # the first is the router
    outlined = [box["fill"] for box in drawn if box["stroke"] == "currentColor"]
    assert len(drawn) == 16 + 16 * segments
    assert sorted(outlined.count(fill) for fill in set(outlined)) == sorted(filter(None, (active, shared)))


def test_sliders_answer_to_keys_and_more_shared_pieces_than_can_be_are_refused_in_words(show):
    view = view_of(num_shared=4)
    page = show(view, live=True)
    slider = page.get_by_label(SHARE, exact=True)
    assert slider.get_attribute("aria-valuetext") == "Ks = 4 of 8 active pieces shared"
    page.get_by_label(CUT, exact=True).press("Home")
    assert status(page).endswith("Ks is 1, not 4: of 2 active pieces at least one must be routed.")
    assert slider.get_attribute("aria-valuetext") == "Ks = 1, not 4: one must be routed" and slider.input_value() == "3"
    page.get_by_label(CUT, exact=True).press("End")
    assert "m = 8, Ks = 4" in status(page) and "not 4" not in status(page)
    page.get_by_label("text", exact=True).press("ArrowRight")
    assert "Skills world, m = 8" in status(page) and (view.world, view.segments, view.num_shared) == ("skills world", 8, 4)


def test_one_world_of_one_measurement_is_enough(show):
    world = World(64, Sparse(8, 4, 100), "nats", {(1, 0): [1.25, 1.25]})
    page = show(SegmentationView({"one": world}, origin="toy"))
    assert "C(16, 8) = 12,870 routes" in status(page) and "Test loss not measured." in status(page)
    assert "Test loss 1.250 [1.250, 1.250], 95% over 2 seeds (rings)." in put(page, segments=1)


def test_javascript_counts_what_python_does(node):
    sizes = [(16, 2), (64, 8), (63, 7), (128, 16), (5, 5), (1, 1), (256, 8), (512, 100)]
    vectors = {"routes": [[n, k, str(math.comb(n, k))] for n, k in sizes], "worlds": view_of().worlds}
    assert "pass 4" in node("segmentation_view/segmentation_view.test.mjs", vectors)
