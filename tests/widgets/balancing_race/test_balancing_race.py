"""The balancing race: what it refuses and reads, and by meaning what it shows; test_every_widget_browser.py asks the rest."""

import dataclasses

import numpy as np
import pytest
import torch
from balancing_race.cases import METHODS, STEPS, race_of, runs_of, write_runs
from widget_harness import put, status

from moe_lesson.moe.routing import max_violation
from moe_lesson.widgets import BalanceRuns, BalancingRace

# --- tables and refusals ----------------------------------------------------------------------------------------------


def test_the_tables_of_the_experiment_come_back_as_they_were(tmp_path):
    runs = runs_of(seeds=2)
    write_runs(tmp_path, runs)
    race = BalancingRace(BalanceRuns.of_tables(folder=tmp_path))
    assert (race.runs.methods, race.runs.seeds, race.steps, race.origin) == (METHODS, (0, 1), list(STEPS), "trained")
    assert torch.equal(race.runs.loads, runs.loads) and torch.allclose(race.runs.losses, runs.losses.float(), rtol=1e-5)


def test_tables_that_are_missing_or_unfinished_are_refused_with_the_remedy(tmp_path):
    runs = runs_of(methods=("none", "bias"), seeds=2, steps=(0, 20))
    write_runs(tmp_path, runs, leave_out=[("bias", 1, 20)])
    with pytest.raises(ValueError, match=r"balance-cpu have no row for bias, 1, 20 .*; let the experiment run to its end"):
        BalanceRuns.of_tables(folder=tmp_path)
    with pytest.raises(ValueError, match="no result table 'balance-gpu-curves' .* there are balance-cpu-curves"):
        BalanceRuns.of_tables("balance-gpu", tmp_path)
    write_runs(tmp_path, dataclasses.replace(runs, seeds=(0, 1)))
    assert BalanceRuns.of_tables(folder=tmp_path).steps.tolist() == [0, 20]


@pytest.mark.parametrize("words,change", [
    ("origin is 'real'; say where .* trained, toy, synthetic", {"origin": "real"}),
    ("methods is empty", {"methods": ()}),
    (r"methods are \['none', 'none'\]; expected a name for each, and none twice", {"methods": ("none", "none")}),
    (r"methods are \['none', 3\]", {"methods": ("none", 3)}),
    (r"seeds are \[0.5\]; expected a whole number", {"seeds": (0.5,)}),
    (r"steps are \[0, 0\]; expected whole numbers from 0 on", {"steps": torch.tensor([0, 0])}),
    (r"steps are \[-1, 0\]", {"steps": torch.tensor([-1, 0])}),
    (r"steps are \[0.0, 1.0\]", {"steps": torch.tensor([0.0, 1.0])}),
    (r"losses have shape \(2, 2\); expected .* = \[2, 1, 2\]", {"losses": torch.ones(2, 2)}),
    (r"loads have shape \(2, 1, 2, 3\); expected .*\[2, 1, 2\]", {"loads": torch.ones(2, 1, 2, 3)}),
    (r"loads have shape \(2, 1, 2, 0, 3\)", {"loads": torch.ones(2, 1, 2, 0, 3)}),
    ("losses hold NaN or infinity; leave a training that diverged out", {"losses": torch.full((2, 1, 2), torch.nan)}),
    ("not a count of tokens; expected whole numbers, 0 … 16777216", {"loads": torch.full((2, 1, 2, 1, 3), -1)}),
    ("not a count of tokens", {"loads": torch.full((2, 1, 2, 1, 3), 0.5)}),
    ("not a count of tokens", {"loads": torch.full((2, 1, 2, 1, 3), torch.nan)}),
    ("not a count of tokens", {"loads": torch.full((2, 1, 2, 1, 3), 2**25)}),
    ("sum to 0 here and to 0 there", {"loads": torch.zeros(2, 1, 2, 1, 3)}),
    ("sum to 3 here and to 6 there; expected the same K·T for all",
     {"loads": torch.tensor([[[[[1, 1, 1]], [[2, 2, 2]]]], [[[[1, 1, 1]], [[2, 2, 2]]]]])}),
])
def test_runs_that_no_training_gives_are_refused_with_value_and_remedy(words, change):
    good = {"methods": ("none", "bias"), "seeds": (0,), "steps": torch.tensor([0, 1]), "loads": torch.ones(2, 1, 2, 1, 3),
            "losses": torch.ones(2, 1, 2), "origin": "synthetic"}
    BalanceRuns(**good)
    with pytest.raises(ValueError, match=words):
        BalanceRuns(**good | change)


def test_only_runs_are_taken():
    with pytest.raises(ValueError, match=r"runs is str; expected BalanceRuns, or use BalanceRuns.of_tables\(\)"):
        BalancingRace("balance-cpu")


# --- mathematics ---------------------------------------------------------------------------------------------------------


def test_javascript_reads_the_runs_as_they_are(node):
    runs, race = runs_of(seeds=2, layers=3), race_of(seeds=2, layers=3)
    loads, losses = (np.frombuffer(data, np.float32).tolist() for data in (race.loads, race.losses))
    cases = []
    for seed, layer, step in ((0, 0, 0), (1, 2, 480), (1, 0, 19), (0, 1, 20)):
        here = runs.loads[:, seed, :, layer]
        state = {name: getattr(race, name) for name in ("methods", "seeds", "steps", "num_layers", "num_experts")}
        cases.append({"state": state | {"seed": seed, "layer": layer, "step": step},
                      "loads": here[:, STEPS.index(step)].tolist(),
                      "violations": [[max_violation(load) for load in of_method] for of_method in here]})
    printed = node("balancing_race/balancing_race.test.mjs", {"cases": cases, "loads": loads, "losses": losses})
    assert f"pass {len(cases) + 2}" in printed  # every case ran


# --- what it shows -----------------------------------------------------------------------------------------------------


def test_the_words_are_true(show):
    runs = runs_of()
    violations = [max_violation(load) for load in runs.loads[:, 0, -1, -1]]
    worst = METHODS[0]
    first = max_violation(runs.loads[0, 0, 0, -1])
    load = runs.loads[0, 0, -1, -1]
    most_even = min(range(len(METHODS)), key=lambda m: violations[m])
    page = show(BalancingRace(runs))
    assert status(page).startswith(
        f"Step 480, layer 2, seed 0. {worst}: MaxVio {violations[0]:.2f} ({first:.2f} at step 0), {int((load == 0).sum())} of 16 "
        f"experts idle, the busiest chosen by {int(load.max()):,} tokens where the mean is 256.0. "
        f"The most even is {METHODS[most_even]} with MaxVio {violations[most_even]:.2f}, its training loss ")
    page.get_by_label(METHODS[most_even], exact=True).check()
    least_even = max(range(len(METHODS)), key=lambda m: violations[m])
    assert f"None is more even; the least even is {METHODS[least_even]} with" in status(page)


def test_a_race_of_one_and_equal_loads_have_words_too(show):
    assert status(show(race_of(methods=("one",), seeds=1, steps=(0,), layers=1, experts=1))).endswith("the mean is 4096.0.")
    assert "All methods are equally even at this step." in status(show(race_of([[[2, 2]], [[2, 2]]])))


def test_panels_show_the_loads_the_largest_in_digits_and_an_idle_expert_has_a_cross(show):
    loads = [[[6, 1, 1], [4, 4, 0]], [[6, 1, 1], [8, 0, 0]]]  # [M, P, N]
    page = show(race_of(loads))
    read = """() => [...document.querySelectorAll(".moe-panel")].map((panel) => [
      [...panel.querySelectorAll("rect.moe-bar")].slice(0, 3).map((bar) => bar.getAttribute("height")),
      [...panel.querySelectorAll(".moe-word")].map((word) => word.textContent).sort().join(" ")])"""
    for step, words in ((0, ["6", "6"]), (1, ["4 ×", "8 × ×"])):
        put(page, step=step)
        for (heights, read_here), load, expected in zip(page.evaluate(read), [one[step] for one in loads], words):
            assert np.array(heights, float) / np.sum(np.array(heights, float)) == pytest.approx(np.array(load) / 8, abs=1e-6)
            assert read_here == expected


def test_a_click_on_a_panel_emphasises_its_method(show):
    race = race_of()
    page = show(race, live=True)
    page.locator(".moe-panel").nth(3).click()
    assert METHODS[3] + ": MaxVio" in status(page)
    assert page.locator(".moe-panel.moe-looked .moe-panel-name").inner_text() == METHODS[3]
    page.wait_for_function("model.saved.length > 0")
    assert race.method == METHODS[3]


def test_the_mouse_on_a_curve_or_its_name_reads_it_and_a_click_emphasises_it(show):
    runs, race = runs_of(), race_of()
    page = show(race, live=True)
    status(page)
    words = page.locator(".moe-race .moe-word")
    name = page.locator(".moe-race").get_by_text("bias", exact=True).first  # each chart has one
    name.hover()
    status(page)
    m = METHODS.index("bias")
    read = [max_violation(runs.loads[m, 0, -1, -1]), runs.losses[m, 0, -3:].mean()]  # a loss is averaged with its neighbours
    assert [text for text in words.all_text_contents() if "step" in text] == [f"bias, step 480: {value:.2f}" for value in read]
    name.click()
    assert "bias: MaxVio" in status(page)
    page.wait_for_function("model.saved.length > 0")
    assert race.method == "bias"
    page.mouse.move(2, 2)
    status(page)
    assert sorted(words.all_text_contents()) == sorted(2 * METHODS)


def test_a_step_has_its_place_by_its_square_root_whichever_steps_were_recorded(show):
    page = show(race_of(steps=(0, 5, 20, 80)))
    line = page.locator(".moe-race path.moe-line").last.get_attribute("d")
    places = [float(point.split(",")[0]) for point in line.lstrip("M").split("L")]
    assert [place / places[-1] for place in places] == pytest.approx([0, 1 / 4, 1 / 2, 1], abs=1e-2)


def test_on_a_phone_no_tick_stands_on_another(show):
    page = show(race_of(steps=(0, 10, 50, 100, 200, 300, 400, 480)), viewport={"width": 340, "height": 844})
    rows = page.locator(".moe-race svg").evaluate_all("""(charts) => charts.map((chart) => {
      const boxes = [...chart.querySelectorAll(".tick text")].map((word) => word.getBoundingClientRect());
      const low = Math.max(...boxes.map((box) => box.bottom)); // the words under the chart, from the left
      return boxes.filter((box) => box.width && box.bottom > low - 2).map((box) => [box.left, box.right])
        .sort(([a], [b]) => a - b);
    })""")
    rows = [row for row in rows if len(row) > 1]
    assert rows and all(right < left for row in rows for (_, right), (left, _) in zip(row, row[1:])), rows


# --- the film ------------------------------------------------------------------------------------------------------------


def step(page) -> int:
    return page.evaluate("model.get('step')")


def test_play_runs_from_the_first_step_to_the_last_and_python_hears_where_it_stopped(show_timed):
    page = show_timed(race_of(steps=(0, 1, 2, 3, 20)))
    page.clock.run_for(2000)
    assert step(page) == 20  # nothing plays until it is asked to
    page.get_by_role("button", name="Play").press("Enter")
    page.clock.run_for(2 * 160 + 20)
    assert step(page) == 2 and page.evaluate("model.saved.length") == 0
    assert page.locator(".moe-status").get_attribute("aria-live") == "off"
    page.clock.run_for(3 * 160)
    assert step(page) == 20 and page.evaluate("model.saved.at(-1)")["step"] == 20
    assert page.locator(".moe-status").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("hand", ["Step", "Reset"])
def test_a_hand_on_the_step_or_reset_stops_the_film(show_timed, hand):
    page = show_timed(race_of())
    page.get_by_role("button", name="Play").press("Enter")
    page.clock.run_for(340)
    part = page.get_by_label("Step", exact=True) if hand == "Step" else page.get_by_role("button", name="Reset")
    part.press("End" if hand == "Step" else "Enter")
    page.clock.run_for(900)
    assert step(page) == 480 and page.get_by_role("button", name="Play").is_visible()


def test_where_motion_is_to_be_reduced_the_film_is_a_few_jumps(show_timed):
    page = show_timed(race_of(), reduced_motion="reduce")
    page.get_by_role("button", name="Play").press("Enter")
    stops = []
    for _ in range(3):
        stops.append(step(page))
        page.clock.run_for(1200)
    assert stops == [0, 8, 16]


def test_a_film_that_nobody_sees_waits(show_timed):
    page = show_timed(race_of())
    page.get_by_role("button", name="Play").press("Enter")
    page.clock.run_for(340)
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.clock.run_for(900)
    assert step(page) == 2
    page.evaluate("delete document.hidden")
    page.clock.run_for(160)
    assert step(page) > 2


def test_a_film_whose_step_another_view_or_python_moves_stops_there(show_timed):
    page = show_timed(race_of())
    page.get_by_role("button", name="Play").press("Enter")
    page.clock.run_for(340)
    page.evaluate("model.receive({ step: 240 })")
    page.clock.run_for(900)
    assert step(page) == 240 and page.get_by_role("button", name="Play").is_visible()


def test_a_view_that_is_closed_plays_no_more(show_timed):
    page = show_timed(race_of())
    page.get_by_role("button", name="Play").press("Enter")
    page.clock.run_for(340)
    page.evaluate("cleanup()")
    page.clock.run_for(900)
    assert step(page) == 2
