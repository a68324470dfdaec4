"""The balancing race in Python, and JavaScript beside it: what it refuses, reads, computes, says and draws."""

import base64
import dataclasses
import json

import numpy as np
import pytest
import torch
from balancing_race.cases import METHODS, STEPS, made, race_of, runs_of, write_runs
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson.widgets import BalanceRuns, BalancingRace
from moe_lesson.widgets.balancing_race.data import SMOOTHED, draw_race, smoothed
from moe_lesson.widgets.kit.base import VIEW

PNG = b"\x89PNG\r\n"
TWO = [[[4, 4, 0], [6, 2, 0]], [[4, 3, 1], [3, 3, 2]]]  # [M, P, N]
LOSSES = [[2.0, 1.5], [2.0, 1.375]]


# --- what the learner shall discover ---------------------------------------------------------------------------------


def test_the_default_state_shows_the_last_step_of_the_last_layer_and_what_became_of_the_first_method():
    race = race_of()
    assert (race.step, race.layer, race.seed, race.method, race.by_load) == (480, 1, 0, "none", False)
    now = [line[-1] for line in race.standing.violations_MP]
    assert now == sorted(now, reverse=True) and f"none: MaxVio {now[0]:.2f} (" in race.summary


def test_collapse_is_seen_along_the_first_steps():
    race, seen = race_of(), []
    for step in (0, 5, 10, 19, 100):
        seen.append(made(race, step=step).standing.violations_MP[0][race.position])
    assert seen == sorted(seen) and seen[0] < 0.3 and seen[3] > 2


def test_the_words_are_true():
    race = race_of(TWO, LOSSES)
    assert race.summary == (
        "Step 1, layer 1 of 1, seed 0, synthetic. none: MaxVio 1.25 (0.50 at step 0), 1 of 3 experts idle, the busiest chosen by "
        "6 tokens where the mean is 2.7, training loss 1.75. The most even method at this step is noise with MaxVio 0.13; its "
        "training loss is 0.06 lower.")
    assert made(race, method="noise").summary.endswith(
        "No method is more even at this step; the least even is none with MaxVio 1.25; its training loss is 0.06 higher.")
    assert "MaxVio 0.50, 0 of 3 experts idle" in made(race, step=0).summary
    assert "All methods are equally even" in race.summary


def test_a_difference_that_would_read_zero_is_called_none():
    assert "its training loss is the same to 0.01." in race_of(TWO, [[1.0, 1.0], [1.0, 1.008]]).summary


def test_a_race_of_one_has_no_rival():
    assert race_of(TWO[:1]).summary.endswith("training loss 0.00.")


def test_a_loss_is_averaged_with_its_neighbours_as_far_as_there_are_any():
    assert smoothed([3.0, 0.0, 0.0, 6.0, 0.0, 0.0]) == [1.0, 2.25, 1.8, 1.2, 1.5, 2.0]
    assert smoothed([7.0]) == [7.0]


def test_every_setting_reads_its_own_part_of_the_runs():
    runs, race = runs_of(seeds=2, layers=3), race_of(seeds=2, layers=3)
    for seed, layer, step in ((0, 0, 0), (1, 2, 480), (1, 0, 19), (0, 1, 20)):
        made(race, seed=seed, layer=layer, step=step)
        assert torch.equal(race.standing.loads_MN, runs.loads[:, seed, STEPS.index(step), layer])


# --- the tables ------------------------------------------------------------------------------------------------------


def test_the_tables_of_the_experiment_come_back_as_they_were(tmp_path):
    runs = runs_of(seeds=2)
    write_runs(tmp_path, runs)
    race = BalancingRace.of_tables(folder=tmp_path)
    assert (race.runs.methods, race.runs.seeds, race.steps, race.origin) == (METHODS, (0, 1), list(STEPS), "trained")
    assert torch.equal(race.runs.loads, runs.loads) and torch.allclose(race.runs.losses, runs.losses.float(), rtol=1e-5)
    assert race.summary == made(BalancingRace(runs)).summary.replace("synthetic", "trained")


def test_tables_that_are_missing_or_unfinished_are_refused_with_the_remedy(tmp_path):
    runs = runs_of(methods=("none", "bias"), seeds=2, steps=(0, 20))
    write_runs(tmp_path, runs, leave_out=[("bias", 1, 20)])
    with pytest.raises(ValueError, match=r"balance-cpu have no row for bias, 1, 20 .*; let the experiment run to its end"):
        BalancingRace.of_tables(folder=tmp_path)
    with pytest.raises(ValueError, match="no result table 'balance-gpu-curves' .* there are balance-cpu-curves"):
        BalancingRace.of_tables("balance-gpu", tmp_path)
    write_runs(tmp_path, dataclasses.replace(runs, seeds=(0, 1)))
    assert BalancingRace.of_tables(folder=tmp_path).steps == [0, 20]


# --- validation ------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=r"runs is str; expected BalanceRuns, or use BalancingRace.of_tables\(\)"):
        BalancingRace("balance-cpu")


@pytest.mark.parametrize("trait,value", [("step", 21), ("step", -1), ("step", 500), ("layer", 2), ("layer", -1), ("seed", 3),
                                         ("method", "luck")])
def test_a_control_out_of_range_is_refused_and_nothing_moves(trait, value):
    race = race_of()
    before = race.summary
    with pytest.raises(TraitError, match=f"{trait} is .*; choose one of "):
        setattr(race, trait, value)
    assert race.summary == before


# --- extremes --------------------------------------------------------------------------------------------------------


SIZES = [{}, {"methods": ("a",), "seeds": 1, "steps": (7,), "layers": 1, "experts": 1}, {"methods": (*METHODS, "an eighth")},
         {"methods": ("one & two", "$x^2$", "a very long name without an end"), "experts": 64, "layers": 6}]


@pytest.mark.parametrize("sizes", SIZES)
def test_every_control_works_at_its_ends(sizes):
    race = race_of(**sizes)
    for end in (0, -1):
        made(race, step=race.steps[end], layer=range(race.num_layers)[end], seed=race.seeds[end], method=race.methods[end],
             by_load=end == 0)
        assert race.summary.startswith(f"Step {race.steps[end]}, layer ") and f"{race.methods[end]}: MaxVio " in race.summary
        assert race.picture().startswith(PNG)


def test_the_axes_hold_everything_and_no_setting_moves_them():
    race = race_of()
    runs, limits = race.runs, set()
    assert race.load_ticks[0] == 0 and race.load_ticks[-1] >= runs.loads.max()
    assert race.loss_ticks[0] <= runs.losses.min() and race.loss_ticks[-1] >= runs.losses.max()
    for settings in ({}, {"step": 0}, {"layer": 0}, {"seed": 2}, {"method": "bias"}, {"by_load": True}):
        figure = draw_race(made(race, **settings))
        limits.add(tuple(ax.get_ylim() for ax in figure.axes))
        assert max(map(max, race.standing.violations_MP)) <= race.violation_ticks[-1]
    assert len(limits) == 1 and len(set(limits.pop()[:7])) == 1


def test_equal_loads_and_losses_have_axes_too():
    race = race_of(np.full((2, 3, 4), 5), np.full((2, 3), 1.25))
    assert race.violation_ticks[-1] >= 1 and race.loss_ticks[0] < 1.25 < race.loss_ticks[-1]
    assert race.picture().startswith(PNG) and "equally even" in race.summary


def test_the_picture_marks_the_chosen_method_and_the_idle_experts():
    race = made(race_of(TWO, LOSSES), by_load=True)
    none, noise = draw_race(race).axes[:2]
    crosses = [ax.collections[0].get_offsets()[:, 0].tolist() for ax in (none, noise)]
    assert crosses == [[2.0], []]
    assert [ax.spines["top"].get_visible() for ax in (none, noise)] == [True, False]
    assert none.get_title(loc="left") == "none\nMaxVio 1.25\nloss 1.75"
    assert [bar.get_height() for bar in noise.patches] == [3, 3, 2]
    assert "synthetic" in draw_race(race).get_suptitle()


# --- what a notebook stores ------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_view_and_a_picture():
    race = race_of()
    bundle = race._repr_mimebundle_()[0]
    assert base64.b64decode(bundle["image/png"]).startswith(PNG) and bundle[VIEW]["model_id"] == race.model_id
    race.close()
    assert set(race._repr_mimebundle_()[0]) == {"text/plain", "image/png"}


def test_the_text_form_names_no_instance_and_the_picture_is_the_same_each_time():
    assert repr(race_of()) == repr(race_of()) == (
        "BalancingRace('balancing race', synthetic: 7 methods, 3 seeds, 44 steps, 2 layers of 16 experts)")
    assert race_of().picture() == race_of().picture() != made(race_of(), method="bias").picture()


def test_the_module_needs_nothing_from_elsewhere():
    source = BalancingRace._esm
    assert not any(line.lstrip().startswith("import ") for line in source.splitlines())
    assert not any(word in source for word in ("http://", "https://", "innerHTML", "fetch(", "eval(", "import("))
    assert source.count("export default") == 1


# --- JavaScript computes the same and says the same -------------------------------------------------------------------


def cases() -> dict[str, BalancingRace]:
    """The corners where two implementations part ways."""
    ties = np.array([[[4, 4, 4, 0]] * 7, [[6, 0, 6, 0]] * 7, [[6, 0, 6, 0]] * 7])
    return {
        "as it opens": race_of(),
        **{f"{method}, step {step}": made(race_of(), method=method, step=step, layer=step % 2, seed=step % 3)
           for method, step in zip(METHODS, (0, 1, 2, 19, 20, 40, 460))},
        "sorted": made(race_of(), by_load=True, step=60),
        "ties, sorted": made(race_of(ties), by_load=True),
        "ties, emphasis on one of two that are least even": made(race_of(ties), method="z-loss"),
        "all the same": race_of(np.full((3, 6, 4), 2)),
        "numbers that end in a half": race_of([[[9, 7, 8, 8], [9, 7, 8, 8]]] * 2, [[0.125, 0.125], [0.375, 0.25]]),
        "one method, seed, step, layer and expert": race_of(**SIZES[1]),
        "64 experts in 6 layers": made(race_of(**SIZES[3]), layer=3, seed=1, step=9),
        "a mean that is no whole number": race_of(TWO, LOSSES),
    }


def golden(name: str, race: BalancingRace) -> dict:
    standing = race.standing
    columns = [np.argsort(-load_N, kind="stable").tolist() if race.by_load else list(range(race.num_experts))
               for load_N in standing.loads_MN.numpy()]
    return {"name": name, "state": browser_state(race), "position": race.position, "mean": race.runs.mean_load,
            "loads": standing.loads_MN.tolist(), "violations": standing.violations_MP, "losses": standing.losses_MP,
            "columns": columns, "summary": race.summary}


def test_javascript_computes_and_says_what_python_does(tmp_path):
    vectors = {"cases": [golden(name, race) for name, race in cases().items()], "smoothed": SMOOTHED}
    printed = run_node("balancing_race", BalancingRace._esm, json.loads(json.dumps(vectors)), tmp_path)
    assert f"pass {len(vectors['cases']) + 4}" in printed  # every case ran
