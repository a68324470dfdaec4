"""The segmentation widget in Python and, through node, in JavaScript: what it counts, reads, says, refuses and draws.

All losses here are made up; tests/widgets/segmentation_view/cases.py makes them.
"""

import base64
import math
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from segmentation_view.cases import BUDGETS, LOSSES, SPREAD, made, made_up, setting_of, view_of, world_of, write_made_up_tables
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson.lm.ledger import ffn_cost, ffn_parts
from moe_lesson.measure.evidence import Interval, interval
from moe_lesson.moe.recipes import Sparse
from moe_lesson.widgets import SegmentationView
from moe_lesson.widgets.kit.base import VIEW
from moe_lesson.widgets.segmentation_view.data import (
    MEASURES,
    SEGMENTS,
    SHARED,
    SLOTS,
    World,
    allowed,
    draw_segmentation,
    example,
    places,
    routes,
    times,
)

PNG = b"\x89PNG\r\n"


# --- what the learner shall discover ---------------------------------------------------------------------------------


@pytest.mark.parametrize("world", BUDGETS)
def test_cutting_makes_billions_of_routes_and_sharing_takes_most_of_them_away(world):
    view = view_of(world=world)
    seen = [made(view, segments=segments, num_shared=shared).routes for segments, shared in
            ((1, 0), (2, 0), (4, 0), (4, 1), (4, 2), (4, 4), (8, 0))]
    assert seen == [120, 35_960, 4_426_165_368, 553_270_671, 61_474_519, 487_635, math.comb(128, 16)]


def test_the_router_grows_at_the_cost_of_the_experts_and_a_token_pays_the_same():
    for world in BUDGETS:
        view, routers = view_of(world=world), []
        for segments in SEGMENTS:
            costs = view.here.costs(made(view, segments=segments).setting)
            routers.append(costs["router"])
            assert sum(costs.values()) == pytest.approx(view.here.pays, rel=0.07)
        assert routers == [segments * routers[0] for segments in SEGMENTS]


def test_the_default_state_shows_the_fine_experts_of_the_first_world():
    view = view_of()
    assert (view.world, view.segments, view.num_shared) == ("text", 4, 0) and view.setting.recipe.num_experts == 64


def test_the_words_are_true():
    view = view_of(num_shared=1)
    loss = interval(made_up("text", 4, 1)["test"])
    assert view.summary == (
        "Text, synthetic, m = 4, Ks = 1: 63 routed experts of 24 hidden units, 7 active for each token, and 1 shared, always on. "
        "C(63, 7) = 553,270,671 routes; 8 times fewer than with nothing shared; about 4.61 million times the 120 of uncut "
        "experts. A token pays 40,896 parameters, 0.2% under the budget of 40,960: router 4,032 (10%), routed 32,256 (79%), "
        f"shared 4,608 (11%). Test loss {loss.mean:.3f} [{loss.low:.3f}, {loss.high:.3f}] nats per byte, 95% interval over 5 "
        "seeds.")
    assert "C(16, 2) = 120 routes. A token pays 40,960 parameters, exactly the budget: router" in made(
        view, segments=1, num_shared=0).summary
    skills = view_of(world="skills world", segments=8)
    assert "6.3% over the budget of 8,192: router 4,096 (47%)" in skills.summary
    assert "Hybridity 2.001 [1.9" in skills.summary and "skills that an expert serves" in skills.summary


@pytest.mark.parametrize("world", BUDGETS)
@pytest.mark.parametrize("slot", SLOTS)
def test_what_was_not_measured_says_so_and_has_no_number(world, slot):
    view = view_of(world=world, segments=slot[0], num_shared=slot[1])
    measured = slot in LOSSES
    assert ("Test loss not measured." in view.summary) is not measured
    assert ("seeds" in view.summary) is measured
    assert ("Hybridity" in view.summary) is (world == "skills world")
    if world == "skills world":
        assert ("Hybridity not measured." in view.summary) is not measured
    if not measured:
        assert view.setting.loss is None and view.setting.hybridity is None
        assert view.setting.recipe == view.here.computed(*slot)


def test_ratios_are_exact_or_say_about():
    assert [times(more, fewer) for more, fewer in (
        (960, 120), (5, 2), (7, 3), (999_999, 1), (1_000_000, 1), (12_345_678, 1), (4_426_165_368, 120), (10 ** 20, 1))] == [
        "8", "about 3", "about 2", "999,999", "about 1.00 million", "about 12.3 million", "about 36.9 million",
        "about 100 quintillion"]


@pytest.mark.parametrize("num_experts,top_k", [(16, 2), (15, 1), (127, 15), (124, 12), (5, 5), (7, 5), (1, 1), (60, 4)])
def test_the_example_token_has_k_different_experts(num_experts, top_k):
    chosen = example(num_experts, top_k)
    assert len(set(chosen)) == top_k and set(chosen) <= set(range(num_experts))


# --- the tables ------------------------------------------------------------------------------------------------------


def test_the_tables_of_the_experiments_give_recipes_and_intervals(tmp_path):
    write_made_up_tables(tmp_path)
    view = SegmentationView.of_tables(tmp_path)
    assert view.origin == "trained" and list(view.measured) == list(BUDGETS)
    for name, (width, budget) in BUDGETS.items():
        world = view.measured[name]
        assert (world.width, world.unit) == (width, world_of(name).unit)
        assert world.pays == ffn_cost(budget.experts(top_k=2, segments=4), width).active
        assert {(one.segments, one.num_shared) for one in world.settings} == set(LOSSES)
        for one in world.settings:
            expected = setting_of(name, one.segments, one.num_shared)
            assert one.recipe == expected.recipe
            for measure in MEASURES:
                mine, theirs = getattr(one, measure), getattr(expected, measure)
                assert (mine is None) == (theirs is None)
                assert mine is None or (mine.mean, mine.low, mine.high, mine.n) == pytest.approx(
                    (theirs.mean, theirs.low, theirs.high, len(SPREAD)), rel=1e-4)


def test_tables_that_are_missing_unfinished_or_of_other_sizes_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="no result tables in"):
        SegmentationView.of_tables(tmp_path)
    write_made_up_tables(tmp_path, leave_out=("4 shared",))
    with pytest.raises(ValueError, match="ladder-cpu has no final run of '4 shared'; let the experiment run to its end"):
        SegmentationView.of_tables(tmp_path)
    write_made_up_tables(tmp_path, total=1)
    with pytest.raises(ValueError, match=r"'gshard' has \d+ parameters in ladder-cpu, and \d+ in .*; run the experiment again"):
        SegmentationView.of_tables(tmp_path)


# --- validation ------------------------------------------------------------------------------------------------------


def test_settings_that_cannot_be_are_refused_with_value_and_remedy():
    good, one = world_of("text"), setting_of("text", 4, 1)
    for words, settings in [
        (r"settings \(m, Ks\) are .*; give each once", [one, one]),
        ("m = 1, Ks = 2 is not a setting of the widget", [replace(one, segments=1, num_shared=2)]),
        ("m = 3, Ks = 0 is not a setting", [replace(one, segments=3, num_shared=0)]),
        ("recipe of m = 4, Ks = 2 has 7 of 63 experts and 1 shared; expected 6 of 62 and 2", [replace(one, num_shared=2)]),
        ("recipe of m = 2, Ks = 1 has 7 of 63 .* expected 3 of 31", [replace(one, segments=2)]),
        ("loss of m = 4, Ks = 1 is .*; expected a mean within its interval",
         [replace(one, loss=Interval(math.nan, 0.0, 1.0, 3))]),
        ("loss of m = 4, Ks = 1 is 1.5; expected", [replace(one, loss=1.5)]),
        ("hybridity of m = 4, Ks = 1 is .* expected a mean", [replace(one, hybridity=Interval(2.0, 0.0, 1.0, 3))]),
        ("no setting has a loss; give at least one", []),
        ("no setting has a loss", [replace(one, loss=None)]),
    ]:
        with pytest.raises(ValueError, match=words):
            replace(good, settings=settings)
    with pytest.raises(ValueError, match="can't be 2 of a whole number of experts"):
        World(64, Sparse(16, 3, 24), "nats", [one])


def test_worlds_and_origin_are_checked():
    for worlds in ({}, {"text": [setting_of("text", 4, 0)]}, "text"):
        with pytest.raises(ValueError, match=r"expected name -> World, at least one, or use SegmentationView.of_tables\(\)"):
            SegmentationView(worlds, origin="synthetic")
    with pytest.raises(ValueError, match="origin is 'real'; say where"):
        SegmentationView({"text": world_of("text")}, origin="real")


@pytest.mark.parametrize("trait,value", [("world", "none"), ("segments", 3), ("segments", 0), ("num_shared", 3),
                                         ("num_shared", -1)])
def test_a_value_that_the_control_has_not_is_refused_and_nothing_moves(trait, value):
    view = view_of()
    before = view.summary
    with pytest.raises(TraitError, match=f"{trait} is .*; choose one of \\w+"):
        setattr(view, trait, value)
    assert view.summary == before


def test_more_shared_pieces_than_can_be_are_fewer_and_a_sentence_says_so():
    view = view_of(num_shared=4)
    assert [(made(view, segments=segments).shared, "not 4" in view.summary) for segments in SEGMENTS] == [
        (1, True), (2, True), (4, False), (4, False)]
    assert made(view, segments=1).summary.endswith("Ks is 1, not 4: of 2 active pieces at least one must be routed.")
    assert made(view, segments=4).shared == 4  # the wish is kept


# --- extremes and the picture ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", BUDGETS)
@pytest.mark.parametrize("segments", (1, 8))
@pytest.mark.parametrize("num_shared", (0, 4))
def test_every_control_works_at_its_ends(world, segments, num_shared):
    view = view_of(world=world, segments=segments, num_shared=num_shared)
    assert view.picture().startswith(PNG) and view.setting.recipe.num_shared == view.shared
    assert sum(view.here.costs(view.setting).values()) == ffn_cost(view.setting.recipe, view.here.width).active


def test_the_axes_hold_everything_and_no_setting_moves_them():
    for world in BUDGETS:
        limits = set()
        for slot in SLOTS:
            view = view_of(world=world, segments=slot[0], num_shared=slot[1])
            figure = draw_segmentation(view)
            limits.add(tuple((ax.get_xlim(), ax.get_ylim()) for ax in figure.axes))
            assert sum(view.here.costs(view.setting).values()) <= view.worlds[world]["top"]
        assert len(limits) == 1
        for (_, (low, high)), measure in zip(limits.pop()[2:], MEASURES):
            values = [getattr(one, measure) for one in world_of(world).settings]
            assert low <= min(value.low for value in values) and high >= max(value.high for value in values)


def test_measurements_that_are_all_the_same_have_an_axis_too():
    point = Interval(1.25, 1.25, 1.25, 2)
    view = SegmentationView({"text": replace(world_of("text"), settings=[replace(setting_of("text", 4, 0), loss=point)])},
                            origin="toy")
    ticks = view.worlds["text"]["axes"]["loss"]["ticks"]
    assert ticks[0][0] < 1.25 < ticks[-1][0] and view.picture().startswith(PNG)
    assert "Test loss 1.250 [1.250, 1.250]" in view.summary


def test_the_picture_shows_every_measured_setting_in_its_place_and_frames_the_one_shown():
    for slot, line in (((4, 1), "-"), ((8, 4), "--")):
        view = view_of(world="skills world", segments=slot[0], num_shared=slot[1])
        layer, bar, *charts = draw_segmentation(view).axes
        assert len(charts) == 2
        for ax, measure in zip(charts, MEASURES):
            dots = {one.get_xdata()[0]: one.get_ydata()[0] for one in ax.lines if one.get_marker() in "os"}
            assert dots == {places()[SLOTS.index((one.segments, one.num_shared))]: getattr(one, measure).mean
                            for one in view.here.settings}
            (frame,) = ax.patches
            assert frame.get_x() + frame.get_width() / 2 == pytest.approx(places()[SLOTS.index(slot)])
            assert frame.get_linestyle() == line
            assert ("not measured" in [text.get_text() for text in ax.texts]) is (line == "--")
            assert ax.get_title(loc="left").endswith("not measured") is (line == "--")


def test_the_picture_has_a_box_for_every_expert_and_a_bar_for_what_a_token_pays():
    view = view_of(num_shared=2)
    layer, bar, _ = draw_segmentation(view).axes
    router, *boxes = layer.patches
    outlined = [box for box in boxes if box.get_linewidth() == 1.6]
    assert len(boxes) == 16 + 64 and len([box for box in boxes if box.get_hatch()]) == 2 and len(outlined) == 8
    parts = ffn_parts(view.setting.recipe, 64)
    assert router.get_width() * 3 * 64 == parts["router"].active
    assert [part[0].get_width() for part in bar.containers] == [
        *(parts[part].active for part in ("router", "routed", "shared")), view.here.pays]


@pytest.mark.parametrize("settings", [{}, {"world": "skills world", "segments": 8, "num_shared": 2}, {"segments": 1}])
def test_no_text_leaves_the_picture(settings):
    figure = draw_segmentation(view_of(**settings))
    FigureCanvasAgg(figure).draw()
    for text in figure.findobj(Text):
        if text.get_text().strip():
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text.get_text()


# --- what a notebook stores ------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_view_and_a_picture():
    view = view_of()
    bundle = view._repr_mimebundle_()[0]
    assert base64.b64decode(bundle["image/png"]).startswith(PNG) and bundle[VIEW]["model_id"] == view.model_id
    view.close()
    assert set(view._repr_mimebundle_()[0]) == {"text/plain", "image/png"}


def test_the_text_form_names_no_instance_and_the_picture_is_the_same_each_time():
    assert repr(view_of()) == repr(view_of()) == (
        "SegmentationView('segmentation', synthetic: text, m = 4, Ks = 0: C(64, 8) = 4,426,165,368 routes; test loss 1.551 "
        "[1.535, 1.567] nats per byte, 95% interval over 5 seeds)")
    assert view_of().picture() == view_of().picture() != view_of(segments=8).picture()


def test_the_module_needs_nothing_from_elsewhere():
    source = SegmentationView._esm
    assert not any(line.lstrip().startswith("import ") for line in source.splitlines())
    assert not any(word in source for word in ("http://", "https://", "innerHTML", "fetch(", "eval(", "import("))
    assert source.count("export default") == 1


RERUN = textwrap.dedent("""
    import gc, sys
    sys.path.insert(0, "tests/widgets")
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    for _ in range(50):
        shell.run_cell("from segmentation_view.cases import view_of; view = view_of()", store_history=True).raise_error()
    from moe_lesson.widgets.kit.base import LIVE
    gc.collect()
    print(len(LIVE))
""")


def test_fifty_runs_of_a_cell_leave_one_widget(pytestconfig):
    done = subprocess.run([sys.executable, "-c", RERUN], capture_output=True, text=True, cwd=pytestconfig.rootpath)
    assert done.stdout.splitlines() == ["1"], done.stderr


# --- JavaScript ------------------------------------------------------------------------------------------------------


def cases() -> dict[str, SegmentationView]:
    """Every state of the controls, and where two implementations part ways."""
    views = {f"{world}, m = {segments}, Ks = {shared}": view_of(world=world, segments=segments, num_shared=shared)
             for world in BUDGETS for segments in SEGMENTS for shared in SHARED}
    narrow = World(64, Sparse(8, 4, 100), "nats", [replace(setting_of("text", 4, 0), recipe=Sparse(16, 8, 50))])
    halves = replace(setting_of("text", 4, 0), loss=Interval(-0.0004, -0.5, 0.12345, 2))
    return views | {
        "four uncut experts": SegmentationView({"": narrow}, origin="toy"),
        "a mean that rounds to minus zero": SegmentationView({"ß": replace(world_of("text"), settings=[halves])}, origin="toy"),
    }


def golden(name: str, view: SegmentationView) -> dict:
    recipe = view.setting.recipe
    return {"name": name, "state": browser_state(view), "shared": view.shared, "routes": str(view.routes),
            "example": example(recipe.num_experts, recipe.top_k), "summary": view.summary}


def test_javascript_counts_and_says_what_python_does(tmp_path):
    ratios = [(120, 120), (5, 2), (7, 3), (999_999, 1), (1_999_999, 2), (12_345_678, 1), (999_999_999, 1), (10 ** 20, 7)]
    sizes = [(16, 2), (64, 8), (63, 7), (128, 16), (127, 15), (5, 5), (1, 1), (256, 8), (512, 100)]
    vectors = {"cases": [golden(name, view) for name, view in cases().items()],
               "routes": [[n, k, str(routes(Sparse(n, k, 8)))] for n, k in sizes],
               "times": [[str(more), str(fewer), times(more, fewer)] for more, fewer in ratios],
               "allowed": [[wish, segments, allowed(wish, segments)] for wish in SHARED for segments in SEGMENTS]}
    assert [["16", "2", "120"], ["64", "8", "4426165368"], ["63", "7", "553270671"]] == [
        list(map(str, one)) for one in vectors["routes"][:3]]
    printed = run_node("segmentation_view", SegmentationView._esm, vectors, tmp_path)
    assert f"pass {len(vectors['cases']) + 5}" in printed  # every case ran
