"""The ladder explorer: what it refuses and reads, and by meaning what it shows; test_every_widget_browser.py asks the rest.

All numbers are made up: the tables written here are fixtures, no training has given them.
"""

import dataclasses
import math

import pytest
from ladder_explorer.cases import DOMAINS, ladder_of, rungs_of, two, write_ladder
from widget_harness import made, status, table

from moe_lesson.measure.evidence import interval, welch_difference
from moe_lesson.widgets import LadderExplorer, RungRuns
from moe_lesson.widgets.ladder_explorer.data import MEAN, RUNGS, runs_of_tables

# --- tables and refusals ----------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="ladder-cpu has no row for dense of total size; let the experiment run to its end"):
        LadderExplorer.of_tables(tmp_path)
    runs = rungs_of()
    write_ladder(tmp_path, runs)
    write_ladder(tmp_path, {name: runs[name] for name in RUNGS[1:]}, tables=["ladder-speed-cpu"])
    with pytest.raises(ValueError, match="ladder-speed-cpu has no row for dense; let"):
        LadderExplorer.of_tables(tmp_path)


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
    with pytest.raises(ValueError, match="rung and beside are both 'dense'; choose two"):
        LadderExplorer(runs, origin="synthetic", rung="dense", beside="dense")
    for words, sizes in ((r"switch has seeds \[0, 1\], dense has \[0, 1, 2, 3, 4\]; expected the same", {"seeds": 2}),
                         (r"switch has steps \[1, 2\]", {"steps": (1, 2)}), (r"switch has domains \['a'\]", {"domains": ("a",)})):
        with pytest.raises(ValueError, match=words):
            LadderExplorer({"dense": runs["dense"], **rungs_of(("switch",), **sizes)}, origin="synthetic")


def test_a_rung_is_never_beside_itself():
    explorer = ladder_of()
    assert made(explorer, rung="gshard").beside == "deepseekmoe"
    assert made(explorer, beside="gshard").rung == "deepseekmoe"
    explorer.set_state({"rung": "gshard", "beside": "deepseekmoe"})  # as the browser sends it
    assert (explorer.rung, explorer.beside) == ("gshard", "deepseekmoe")


# --- mathematics: the browser compares as the package does -----------------------------------------------------------------


def state_of(explorer: LadderExplorer) -> dict:
    """The traits that the comparison reads."""
    read = ("rung", "beside", "seed", "seeds", "steps", "domain", "quantiles", "rungs")
    return {name: getattr(explorer, name) for name in read}


def intervals(explorer: LadderExplorer) -> dict:
    """The test losses of both and their difference, as `measure.evidence` computes them."""
    named = {rung["name"]: rung["test"][explorer.domain] for rung in explorer.rungs}
    mine, other = named[explorer.rung], named[explorer.beside]
    found = interval(mine), interval(other), welch_difference(mine, other)[0]
    return {"state": state_of(explorer), "test": [[one.mean, one.low, one.high] for one in found]}


def test_javascript_compares_as_python_does(node):
    falling = [[4.0, 3.0, 2.0, 1.0]] * 2
    pairs = (
        (two(*falling, costs=((1e6, 10.0), (2e6, 35.0)), steps=(10, 20, 30, 40)), "steps", [40, 40], True, 0),
        (two(*falling, costs=((1e6, 10.0), (2e6, 35.0)), steps=(10, 20, 30, 40)), "FLOPs", [40, 20], False, -2),
        (two(*falling, costs=((1e6, 10.0), (2e6, 35.0)), steps=(10, 20, 30, 40)), "seconds", [40, 10], False, -3),
        (two(*falling, costs=((2e6, 35.0), (1e6, 10.0)), steps=(10, 20, 30, 40)), "seconds", [10, 40], False, 3),
        (two(costs=((1e6, 10.0), (1e6, 10.299))), "seconds", [100, 100], True, -0.5),
        (two(costs=((1e6, 10.0), (1e6, 10.301))), "seconds", [100, 50], False, -1),
        (two(costs=((1e6, 10.0), (1e6, 90.0))), "seconds", [100, None], False, None))
    equal = [{"state": state_of(explorer), "axis": axis, "steps": steps, "alike": alike, "gap": gap}
             for explorer, axis, steps, alike, gap in pairs]
    seeds = [intervals(made(ladder_of(), domain=domain)) for domain in (MEAN, *DOMAINS)]
    printed = node("ladder_explorer/ladder_explorer.test.mjs", {"equal": equal, "seeds": seeds})
    assert f"pass {len(equal) + len(seeds) + 1}" in printed  # every case ran


# --- what it shows -----------------------------------------------------------------------------------------------------


def test_the_shipped_ladder_sets_alike_per_step_beside_worse_per_second(show):
    page = show(LadderExplorer.of_tables())
    assert status(page).startswith(
        "Validation loss (mean of the domains, 10 seeds) at 3,000\u00a0steps, where both end: deepseekmoe is 0.0")
    assert status(page).count("], the seeds cannot tell.") == 1  # of validation text: its interval reaches beyond the margin
    assert status(page).endswith("]: alike, within 0.01.")  # of test text, as lesson 07 says
    page.get_by_label("seconds", exact=True).check()
    assert "gshard ends at " in status(page) and "deepseekmoe was then at step 2500" in status(page)
    includes_zero = ["[-" in row[3] and ", +" in row[3].replace("\u00a0", " ") for row in table(page)]
    assert includes_zero == [True, True, True, False] and table(page)[3][3].startswith("+")


def test_losses_and_their_difference_are_those_of_evidence(show):
    explorer = ladder_of()
    (mine, other, gap) = intervals(explorer)["test"]
    page = show(explorer)
    assert table(page)[0] == ["test, at the end", *(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in (mine, other)),
                              "{:+.3f} [{:+.3f}, {:+.3f}]".format(*gap)]
    page.get_by_label("2", exact=True).check()
    named = {rung["name"]: rung["test"][MEAN][2] for rung in explorer.rungs}
    assert table(page)[0][1:3] == [f"{named['deepseekmoe']:.3f}", f"{named['gshard']:.3f}"]
    assert "(mean of the domains, seed 2 alone, so no interval)" in status(page) and "[" not in status(page)


@pytest.mark.parametrize("loss, difference", [(1.0004, "0.000"), (0.9996, "0.000"), (1.01, "-0.010"), (0.99, "+0.010")])
def test_a_difference_that_rounds_to_nothing_has_no_sign(show, loss, difference):
    assert table(show(two(second=(2.0, loss))))[0][1:] == ["1.000", f"{loss:.3f}", difference]


def test_what_was_not_followed_that_early_is_not_made_up(show):
    page = show(made(two(costs=((1e6, 10.0), (1e6, 90.0))), axis="seconds"))
    assert "a ends at 1\u00a0seconds; b was not followed that early: nothing to compare." in status(page)
    assert table(page)[3] == ["validation at 1 seconds", "1.000", "not followed", "–"]


def strokes(page) -> list[str]:
    status(page)
    return page.locator("path.moe-line").evaluate_all("(nodes) => nodes.map((node) => node.getAttribute('stroke'))")


def test_the_two_have_their_model_s_colour_and_their_seeds_all_others_are_grey_and_each_has_its_band(show):
    page = show(ladder_of())
    assert strokes(page) == ["currentColor", *["#808790"] * (len(RUNGS) - 2), "#d9660a", "#2f6fb3"]
    assert page.locator("path.moe-band").count() == len(RUNGS)
    assert page.locator("circle.moe-dot").count() == 2 + 2 * 5  # means, seeds
    page.get_by_label("2", exact=True).check()
    assert len(strokes(page)) == len(RUNGS) + 1 and page.locator("path.moe-band").count() == 0


def test_the_mouse_on_a_curve_or_its_name_reads_it(show):
    explorer = ladder_of()
    page = show(explorer)
    name = page.locator(".moe-word", has_text="switch")
    name.hover()
    losses = {rung["name"]: rung["validation"][MEAN] for rung in explorer.rungs}
    at_end = "switch at 1,000\u00a0steps: " + f"{sum(of_seed[-1] for of_seed in losses['switch']) / 5:.3f}"
    assert "#cc79a7" in strokes(page) and page.locator(".moe-word").last.text_content() == at_end
    dot = page.locator("circle.moe-dot").first.bounding_box()  # deepseekmoe at its end
    page.mouse.move(dot["x"] + 5, dot["y"] + 5)
    assert "#cc79a7" not in strokes(page)
    assert page.locator(".moe-word").last.text_content().startswith("deepseekmoe at 1,000\u00a0steps: ")
    page.mouse.move(2, 2)
    assert len(strokes(page)) == len(RUNGS) + 1 and page.locator(".moe-word").count() == len(RUNGS)


def test_a_click_on_a_name_compares_it_and_the_menus_never_compare_a_rung_with_itself(show):
    explorer = ladder_of()
    page = show(explorer, live=True)
    status(page)
    page.locator(".moe-word", has_text="switch").click()
    assert "switch is " in status(page)
    page.get_by_label("with", exact=True).select_option("switch")
    status(page)
    page.wait_for_function("model.get('rung') === 'gshard' && model.get('beside') === 'switch'")
    page.get_by_role("button", name="Swap").click()
    status(page)
    page.wait_for_function("model.get('rung') === 'switch'")
    assert (explorer.rung, explorer.beside) == ("switch", "gshard")
