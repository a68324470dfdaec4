"""The ladder explorer in Python, and JavaScript beside it: what it refuses, reads, computes, says and draws.

All numbers are made up: the tables written here are fixtures, no training has given them.
"""

import base64
import dataclasses
import json
import math

import pytest
from ladder_explorer.cases import DOMAINS, STEPS, ladder_of, made, rungs_of, two, write_ladder
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson.measure.evidence import Interval, interval, paired_difference
from moe_lesson.widgets import LadderExplorer, RungRuns
from moe_lesson.widgets.kit.base import VIEW
from moe_lesson.widgets.ladder_explorer.data import (
    ALIKE,
    AXES,
    DIGITS,
    HIGHLIGHTED,
    MEAN,
    RUNGS,
    draw_ladder,
    heading,
    label_places,
    quantile_of,
    rounded,
    runs_of_tables,
    spread,
    table_rows,
)

PNG = b"\x89PNG\r\n"


# --- what the learner shall discover ---------------------------------------------------------------------------------


def test_the_default_state_sets_better_per_step_beside_worse_per_second():
    explorer = ladder_of()
    assert (explorer.rung, explorer.beside, explorer.seed, explorer.axis, explorer.domain) == (
        "deepseekmoe", "gshard", None, "steps", MEAN)
    test, steps, flops, seconds = (row[-1] for row in table_rows(explorer))
    assert test.startswith("-0.0") and steps.startswith("-0.0") and flops.startswith("-0.0") and seconds.startswith("+0.1")


def test_the_dense_model_of_total_size_is_far_behind_per_flop():
    explorer = made(ladder_of(), beside="dense of total size", axis="FLOPs")
    found = explorer.at_equal_cost["FLOPs"]
    assert found.steps == (1000, 200) and found.first and found.difference.high < -0.5
    assert explorer.cost_axes["FLOPs"]["high"] == pytest.approx(8.77, abs=0.01) and found.cost == pytest.approx(2.41, abs=0.01)


def test_domains_differ():
    explorer = ladder_of()
    losses = [made(explorer, domain=domain).test[0].mean for domain in (*DOMAINS, MEAN)]
    assert losses[:4] == sorted(losses[:4]) and losses[3] - losses[0] > 0.2
    assert losses[4] == pytest.approx(sum(losses[:4]) / 4)


def test_test_losses_and_their_difference_are_those_of_evidence():
    explorer, runs = made(ladder_of(), domain="cpp"), rungs_of()
    mine, other = (runs[name].test["cpp"] for name in ("deepseekmoe", "gshard"))
    assert explorer.test == (interval(mine), interval(other), paired_difference(mine, other))
    one = made(explorer, seed=3).test
    assert one[0] == Interval(mine[3], -math.inf, math.inf, 1) and one[2].mean == mine[3] - other[3] and one[2].n == 1


# --- at the same cost ------------------------------------------------------------------------------------------------


def test_the_other_is_read_at_its_last_followed_step_that_costs_no_more():
    losses = [[4.0, 3.0, 2.0, 1.0]] * 2
    explorer = two(*losses, costs=((1e6, 10.0), (2e6, 35.0)), steps=(10, 20, 30, 40))
    found = explorer.at_equal_cost
    assert [found[axis].steps for axis in AXES] == [(40, 40), (40, 20), (40, 10)]
    assert [found[axis].losses[1].mean for axis in AXES] == [1.0, 3.0, 4.0]
    assert [found[axis].alike for axis in AXES] == [True, False, False] and all(found[axis].first for axis in AXES)
    assert found["seconds"].cost == pytest.approx(0.4) and found["FLOPs"].cost == pytest.approx(120)  # 10⁹: 3 × 1e6 × 1000 × 40
    turned = made(explorer, rung="b", beside="a").at_equal_cost["seconds"]
    assert turned.steps == (10, 40) and not turned.first and turned.difference.mean == 3.0


@pytest.mark.parametrize("more,steps,alike", [(1 + ALIKE - 1e-6, (100, 100), True), (1 + ALIKE + 1e-6, (100, 50), False)])
def test_costs_that_differ_by_less_than_the_limit_count_as_equal(more, steps, alike):
    found = two(costs=((1e6, 10.0), (1e6, 10.0 * more))).at_equal_cost["seconds"]
    assert found.steps == steps and found.alike is alike


def test_what_was_not_followed_that_early_is_not_made_up():
    explorer = made(two(costs=((1e6, 10.0), (1e6, 90.0))), axis="seconds")
    found = explorer.at_equal_cost["seconds"]
    assert found.steps == (100, None) and found.losses[1] is None and found.difference is None
    assert explorer.summary.endswith("a ends at 1.00\u00a0seconds with 1.000; b was not followed that early: nothing to compare.")
    assert table_rows(explorer)[3] == ["validation at 1.00\u00a0seconds", "1.000", "not followed", "–"]
    assert explorer.picture().startswith(PNG)


def test_a_step_costs_three_forward_passes_of_its_tokens():
    runs = rungs_of()["dense"]
    assert runs.cost_per_step == {"steps": 1.0, "FLOPs": 3 * 401408 * 2048, "seconds": 0.06}


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_words_are_true():
    explorer = two([[2.0, 1.0], [2.0, 1.2]], [[2.5, 1.4], [2.5, 1.62]], costs=((1e6, 20.0), (1e6, 10.0)), seeds=(0, 7))
    assert explorer.summary == (
        f"a beside b: {MEAN}, mean of 2 seeds, synthetic. Final test loss, nats per byte: a 1.100 [-0.171,\u00a02.371], b 1.510 "
        "[0.112,\u00a02.908]; paired by seed, a is 0.410 lower: [-0.537,\u00a0-0.283] excludes 0. Validation at the same steps: "
        "both end at 100\u00a0steps, a with 1.100, b with 1.510; paired by seed, a is 0.410 lower: [-0.537,\u00a0-0.283] "
        "excludes 0.")
    assert made(explorer, axis="FLOPs").summary.endswith(
        "Validation at the same FLOPs: both end, within 3%, at 300\u00a0·\u00a010⁹ FLOPs, a with 1.100, b with 1.510; paired by "
        "seed, a is 0.410 lower: [-0.537,\u00a0-0.283] excludes 0.")
    assert made(explorer, axis="seconds").summary.endswith(
        "b ends at 1.00\u00a0seconds with 1.510; a then had 2.000, read at step 50, the last one followed by then; paired by "
        "seed, a is 0.490 higher: [-0.908,\u00a0+1.888] includes 0, so these seeds do not tell them apart.")
    one = made(explorer, seed=7, domain="code", axis="steps").summary
    assert one == ("a beside b: code, seed 7 alone, synthetic. Final test loss, nats per byte: a 1.200, b 1.620; a is 0.420 "
                   "lower; one seed has no interval. Validation at the same steps: both end at 100\u00a0steps, a with 1.200, b "
                   "with 1.620; a is 0.420 lower; one seed has no interval.")


def test_a_difference_that_would_read_zero_is_called_none():
    assert "a is the same to 0.001; one seed" in two((2.0, 1.0), (2.0, 1.0004)).summary
    assert table_rows(two((2.0, 1.0), (2.0, 1.0004)))[0] == ["final test loss", "1.000", "1.000", "0.000"]


def test_the_table_says_at_which_step_it_was_read():
    explorer = two((2.0, 1.0), (3.0, 1.5), costs=((1e6, 20.0), (1e6, 10.0)), seeds=(0, 1))
    assert table_rows(explorer)[3] == ["validation at 1.00\u00a0seconds", "2.000 (step\u00a050)", "1.500",
                                       "+0.500 [+0.500,\u00a0+0.500]"]


def test_what_summing_in_another_order_changes_is_not_shown():
    assert rounded(0.1 + 0.2, 1) == "0.3" and rounded(1.0125 + 1e-15) == rounded(1.0125 - 1e-15) and rounded(-1e-9) == "0.000"


def test_the_heading_names_domain_seeds_and_unit():
    explorer = made(ladder_of(), domain="yaml")
    assert heading(explorer) == "validation loss, yaml, nats per byte; mean of the seeds thick, each seed thin"
    assert heading(made(explorer, seed=4)) == "validation loss, yaml, nats per byte; seed 4"


# --- the tables, made up -----------------------------------------------------------------------------------------------


def test_the_tables_come_back_as_they_were_and_other_rungs_are_left_out(tmp_path):
    runs = rungs_of((*RUNGS, "cut in 2", "1 shared"))
    write_ladder(tmp_path, runs)
    explorer = LadderExplorer.of_tables(tmp_path)
    assert [rung["name"] for rung in explorer.rungs] == list(RUNGS) and explorer.origin == "trained"
    assert (explorer.rung, explorer.beside, explorer.domains) == ("deepseekmoe", "gshard", [MEAN, *DOMAINS])
    for name, read in runs_of_tables(tmp_path).items():
        for field in dataclasses.fields(RungRuns):
            mine, its = getattr(runs[name], field.name), getattr(read, field.name)
            if isinstance(mine, dict):
                assert list(mine) == list(its)
                for domain, losses in mine.items():
                    assert its[domain] == (pytest.approx(losses, rel=1e-5) if field.name == "test" else
                                           [pytest.approx(of_seed, rel=1e-5) for of_seed in losses])
            else:
                assert its == pytest.approx(mine, rel=1e-5)


@pytest.mark.parametrize("gone", range(3))
def test_a_missing_table_is_one_clear_sentence(tmp_path, gone):
    tables = ["ladder-cpu", "ladder-cpu-followed", "ladder-speed-cpu"]
    write_ladder(tmp_path, rungs_of(seeds=1), tables=tables[:gone] + tables[gone + 1:])
    with pytest.raises(ValueError, match=rf"^the ladder explorer reads the tables ladder-cpu, ladder-cpu-followed and "
                                         rf"ladder-speed-cpu: no result table '{tables[gone]}' in .*; there are [^.]*$"):
        LadderExplorer.of_tables(tmp_path)


def test_unfinished_tables_are_refused_with_the_remedy(tmp_path):
    write_ladder(tmp_path, rungs_of(), leave_out=[("fine", 2, 300)])
    with pytest.raises(ValueError, match="ladder-cpu-followed has no row for fine, seed 2 and step 300, .*; let the experiment"):
        LadderExplorer.of_tables(tmp_path)
    write_ladder(tmp_path, rungs_of(RUNGS[:-1]))
    with pytest.raises(ValueError, match="ladder-cpu has no row for half active; let the experiment run to its end"):
        LadderExplorer.of_tables(tmp_path)
    runs = rungs_of()
    write_ladder(tmp_path, runs)
    write_ladder(tmp_path, {name: runs[name] for name in RUNGS[1:]}, tables=["ladder-speed-cpu"])
    with pytest.raises(ValueError, match="ladder-speed-cpu has no row for dense; let"):
        LadderExplorer.of_tables(tmp_path)


# --- validation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words,change", [
    ("forward_flops is 0; expected a positive number", {"forward_flops": 0}),
    ("tokens_per_step is nan; expected a positive", {"tokens_per_step": math.nan}),
    ("ms_per_step is -1; expected a positive", {"ms_per_step": -1}),
    (r"seeds are \[\]; expected at least one", {"seeds": ()}),
    (r"seeds are \[1, 1\]; expected at least one, and none twice", {"seeds": (1, 1)}),
    (r"steps are \[\]; expected whole numbers from 1", {"steps": ()}),
    (r"steps are \[2, 1\]; expected .* each larger", {"steps": (2, 1)}),
    (r"steps are \[0, 1\]", {"steps": (0, 1)}),
    ("validation has the domains none, test has code", {"validation": {}}),
    ("validation has the domains code, test has text; expected the same", {"test": {"text": [1.0]}}),
    ("'mean of the domains' is not a domain", {"validation": {MEAN: [[2.0, 1.0]]}, "test": {MEAN: [1.0]}}),
    (r"validation losses of code have shape \[1, 1\]; expected .* = \[1, 2\]", {"validation": {"code": [[1.0]]}}),
    (r"validation losses of code have shape \[2, 1, 2\]", {"validation": {"code": [[2.0, 1.0], [1.0]]}}),
    ("test losses of code are 2; expected 1, one for each seed", {"test": {"code": [1.0, 2.0]}}),
    ("a loss of code is NaN or infinite; leave a training that diverged out", {"test": {"code": [math.inf]}}),
])
def test_runs_that_no_training_gives_are_refused_with_value_and_remedy(words, change):
    good = {"forward_flops": 1e6, "tokens_per_step": 10, "ms_per_step": 5.0, "seeds": (0,), "steps": (1, 2),
            "validation": {"code": [[2.0, 1.0]]}, "test": {"code": [1.0]}}
    RungRuns(**good)
    with pytest.raises(ValueError, match=words):
        RungRuns(**good | change)


def test_rungs_that_can_not_be_compared_are_refused():
    runs = rungs_of(("dense", "gshard"))
    with pytest.raises(ValueError, match=r"rungs is str; expected a mapping .* or use LadderExplorer.of_tables\(\)"):
        LadderExplorer("ladder-cpu", origin="trained")
    with pytest.raises(ValueError, match="expected a mapping from two names or more"):
        LadderExplorer({"dense": runs["dense"]}, origin="synthetic")
    with pytest.raises(ValueError, match="origin is 'real'"):
        LadderExplorer(runs, origin="real")
    with pytest.raises(ValueError, match="rung and beside are both 'dense'; choose two"):
        LadderExplorer(runs, origin="synthetic", rung="dense", beside="dense")
    for words, sizes in ((r"switch has seeds \[0, 1\], dense has \[0, 1, 2, 3, 4\]; expected the same", {"seeds": 2}),
                         (r"switch has steps \[1, 2\]", {"steps": (1, 2)}), (r"switch has domains \['a'\]", {"domains": ("a",)})):
        with pytest.raises(ValueError, match=words):
            LadderExplorer({"dense": runs["dense"], **rungs_of(("switch",), **sizes)}, origin="synthetic")


@pytest.mark.parametrize("trait,value", [("rung", "luck"), ("beside", ""), ("seed", 5), ("axis", "hours"), ("domain", "rust")])
def test_a_control_out_of_range_is_refused_and_nothing_moves(trait, value):
    explorer = ladder_of()
    before = explorer.summary
    with pytest.raises(TraitError, match=f"{trait} is .*; choose one of "):
        setattr(explorer, trait, value)
    assert explorer.summary == before


def test_a_rung_is_never_beside_itself():
    explorer = ladder_of()
    assert made(explorer, rung="gshard").beside == "deepseekmoe"
    assert made(explorer, beside="gshard").rung == "deepseekmoe"
    explorer.set_state({"rung": "gshard", "beside": "deepseekmoe"})  # as the browser sends it
    assert (explorer.rung, explorer.beside) == ("gshard", "deepseekmoe")


# --- extremes --------------------------------------------------------------------------------------------------------


SIZES = [{}, {"names": ("deepseekmoe", "gshard"), "seeds": 1, "steps": (7,), "domains": ("a",)},
         {"names": ("deepseekmoe", "gshard", "one & two", "$x^2$", "a very long name without an end"), "seeds": 2}]


@pytest.mark.parametrize("sizes", SIZES)
def test_every_control_works_at_its_ends(sizes):
    explorer = ladder_of(**sizes)
    for end in (0, -1):
        for axis in AXES:
            made(explorer, seed=explorer.seeds[end], axis=axis, domain=explorer.domains[end], rung=explorer.rungs[end]["name"])
            assert explorer.summary.startswith(f"{explorer.rung} beside ") and f"the same {axis}: " in explorer.summary
            assert explorer.picture().startswith(PNG)
    assert made(explorer, seed=None).picture().startswith(PNG)


def test_no_rung_seed_or_axis_moves_the_loss_axis_and_each_cost_has_its_own_limits():
    explorer, limits = ladder_of(), {}
    for domain in explorer.domains:
        for settings in ({}, {"seed": 4}, {"seed": None, "rung": "dense"}, {"beside": "half active"}, {"axis": "FLOPs"},
                         {"axis": "seconds"}, {"axis": "steps"}):
            ax = draw_ladder(made(explorer, domain=domain, **settings)).axes[0]
            limits.setdefault(domain, set()).add(ax.get_ylim())
            limits.setdefault(explorer.axis, set()).add(ax.get_xlim())
    assert all(len(found) == 1 for found in limits.values()) and len(set.union(*(limits[d] for d in explorer.domains))) == 5


def test_the_axes_hold_all_but_the_first_fifth_of_the_training():
    explorer = ladder_of()
    for domain in explorer.domains:
        axis = explorer.loss_axes[domain]
        for rung in explorer.rungs:
            for losses_P in rung["validation"][domain]:
                assert all(axis["low"] < loss < axis["high"] for loss in losses_P[STEPS.index(200):])
    assert any(rung["validation"]["yaml"][0][0] > explorer.loss_axes["yaml"]["high"] for rung in explorer.rungs)
    for axis in AXES:
        ends = [1000 * rung["per_step"][axis] for rung in explorer.rungs]
        assert explorer.cost_axes[axis]["high"] == pytest.approx(max(ends)) and explorer.cost_axes[axis]["ticks"][0][0] == 0


def test_equal_losses_have_an_axis_too():
    explorer = two((1.0, 1.0), (1.0, 1.0))
    assert explorer.loss_axes["code"]["low"] < 1 < explorer.loss_axes["code"]["high"] and explorer.picture().startswith(PNG)


def test_the_quantile_is_that_of_evidence():
    for n in (2, 5, 31, 32):
        values = [float(value) for value in range(n)]
        found = interval(values)
        deviation = math.sqrt(sum((value - found.mean) ** 2 for value in values) / (n - 1))
        assert quantile_of(n) * deviation / math.sqrt(n) == pytest.approx(found.high - found.mean)


# --- names at the ends -----------------------------------------------------------------------------------------------


def test_names_move_as_little_as_keeps_them_apart_and_within():
    assert spread([10.0, 50.0], 18, 0, 100) == [10.0, 50.0]
    assert spread([50.0, 50.0], 18, 0, 100) == [41.0, 59.0]
    assert spread([95.0, 99.0], 18, 0, 100) == [82.0, 100.0]
    assert spread([0.0, 1.0, 90.0], 18, 0, 100) == [0.0, 18.0, 90.0]
    assert spread([50.0, 50.0, 50.0], 40, 0, 60) == [0.0, 40.0, 80.0]  # no room: the first ones win


def test_names_fall_from_left_to_right_and_near_ends_share_a_column():
    places = label_places([(0.0, 80.0), (4.0, 60.0), (50.0, 70.0), (300.0, 70.0)], 100, 10, 18, 0, 200)
    assert places[1] == (4.0, 52.0) and places[0] == (4.0, 70.0) and places[2] == (50.0, 88.0)
    assert places[3] == (300.0, 70.0)  # too far away to be in the way


# --- the picture -----------------------------------------------------------------------------------------------------


def test_the_picture_shows_the_two_in_colour_and_all_names():
    explorer = made(ladder_of(), axis="seconds")
    figure = draw_ladder(explorer)
    ax, numbers = figure.axes
    assert [text.get_text() for text in ax.texts] == [rung["name"] for rung in explorer.rungs]
    assert [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"] == ["gshard", "deepseekmoe"]
    mine = [line for line in ax.lines if line.get_color() == HIGHLIGHTED]
    assert len(mine) == 1 + 5 + 1  # the mean, the seeds, and the point that is read
    assert mine[-1].get_xdata() == [pytest.approx(67.5)] and "synthetic" in figure.get_suptitle()
    cells = numbers.tables[0].get_celld()
    assert cells[4, 3].get_text().get_text() == table_rows(explorer)[3][3]
    assert [row for row in range(1, 5) if cells[row, 1].get_text().get_fontweight() == "bold"] == [4]


# --- what a notebook stores ------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_view_and_a_picture():
    explorer = ladder_of()
    bundle = explorer._repr_mimebundle_()[0]
    assert base64.b64decode(bundle["image/png"]).startswith(PNG) and bundle[VIEW]["model_id"] == explorer.model_id
    explorer.close()
    assert set(explorer._repr_mimebundle_()[0]) == {"text/plain", "image/png"}


def test_the_text_form_names_no_instance_and_the_picture_is_the_same_each_time():
    assert repr(ladder_of()) == repr(ladder_of()) == (
        "LadderExplorer('ladder explorer', synthetic: 8 rungs, 5 seeds, 10 followed steps, 4 domains)")
    assert ladder_of().picture() == ladder_of().picture() != made(ladder_of(), axis="FLOPs").picture()


def test_the_module_needs_nothing_from_elsewhere():
    source = LadderExplorer._esm
    assert not any(line.lstrip().startswith("import ") for line in source.splitlines())
    assert not any(word in source for word in ("http://", "https://", "innerHTML", "fetch(", "eval(", "import("))
    assert source.count("export default") == 1 and "http" not in LadderExplorer._css


# --- JavaScript computes the same and says the same -------------------------------------------------------------------


def cases() -> dict[str, LadderExplorer]:
    """The corners where two implementations part ways."""
    apart = {"costs": ((1e6, 20.0), (3e6, 10.0)), "steps": (10, 20, 30)}
    return {
        "as it opens": ladder_of(),
        **{f"{rung} beside {RUNGS[m - 1]} over {AXES[m % 3]}": made(
            ladder_of(rung, RUNGS[m - 1]), axis=AXES[m % 3], seed=(None, 0, 4)[m // 3], domain=(MEAN, *DOMAINS)[m % 5])
           for m, rung in enumerate(RUNGS)},
        "one seed, step and domain": ladder_of(**SIZES[1]),
        "two seeds, long names": made(ladder_of(**SIZES[2]), axis="FLOPs", rung="$x^2$"),
        "the second ends first": made(two((3.0, 2.0, 1.0), (3.0, 2.5, 2.0), **apart), axis="seconds"),
        "not followed that early": made(two((3.0, 2.0, 1.0), (3.0, 2.5, 2.0), **{**apart, "costs": ((1e6, 1.0), (9e6, 1.0))}),
                                        axis="FLOPs"),
        "within the limit": made(two(costs=((1e6, 10.0), (1e6, 10.2))), axis="seconds"),
        "just beyond the limit": made(two(costs=((1e6, 10.31), (1e6, 10.0))), axis="seconds"),
        "an interval with 0": two([[2.0, 1.0], [2.0, 1.5]], [[2.0, 1.2], [2.0, 1.1]], seeds=(0, 1)),
        "all the same": two((1.0, 1.0), (1.0, 1.0), seeds=(0, 1, 2)),
        "nearly the same": two((2.0, 1.0), (2.0, 1.0004)),
        "numbers that end in a half": two((2.0, 1.0125), (2.0, 1.0135)),
        "33 seeds": ladder_of(seeds=33),
        "few FLOPs": made(two(costs=((0.01, 1e-3), (0.02, 2e-3))), axis="FLOPs"),
    }


def golden(name: str, explorer: LadderExplorer) -> dict:
    def numbers(found: Interval | None):
        return found and [found.mean, *([found.low, found.high] if found.n > 1 else []), found.n]

    equal = {axis: {"cost": found.cost, "alike": found.alike, "first": found.first, "steps": found.steps,
                    "losses": list(map(numbers, found.losses)), "difference": numbers(found.difference)}
             for axis, found in explorer.at_equal_cost.items()}
    return {"name": name, "state": browser_state(explorer), "test": list(map(numbers, explorer.test)), "equal": equal,
            "rows": table_rows(explorer), "heading": heading(explorer), "summary": explorer.summary}


ENDS = [[(0.0, 80.0), (4.0, 60.0), (50.0, 70.0), (300.0, 70.0)], [(5.0, 5.0)] * 3, [(9.0, 0.0)],
        [(float(7 * m % 40), float(11 * m % 60)) for m in range(9)], [(float(7 * m % 40), float(97 * m % 390)) for m in range(9)]]


def test_javascript_computes_and_says_what_python_does(tmp_path):
    places = [{"ends": ends, "places": label_places(ends, 25, 6, 18, 9, 400)} for ends in ENDS]
    vectors = {"cases": [golden(name, explorer) for name, explorer in cases().items()], "places": places, "digits": DIGITS}
    printed = run_node("ladder_explorer", LadderExplorer._esm, json.loads(json.dumps(vectors)), tmp_path)
    assert f"pass {len(vectors['cases']) + 4}" in printed  # every case ran
