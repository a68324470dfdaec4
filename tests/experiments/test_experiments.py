"""The experiment command: fair tuning, a test split that tuning never sees, resuming, provenance, clear refusals."""

import math
import pathlib
import re
import statistics
import subprocess
from collections import Counter
from dataclasses import replace

import pytest
import torch
from filelock import FileLock, Timeout

from moe_lesson import LanguageModel, ModelConfig, load_model, machine_corpus, model_cost, result_table, save_model
from moe_lesson.experiments import EXPERIMENTS, diagnoses, provenance, run_experiment, tasks
from moe_lesson.experiments import run as running
from moe_lesson.experiments.__main__ import main
from moe_lesson.experiments.catalogue import Experiment
from moe_lesson.experiments.tasks import TextTask
from moe_lesson.lm.checkpoints import shipped_snapshots
from moe_lesson.lm.corpora import Corpus
from moe_lesson.lm.training import TrainingDiverged
from moe_lesson.measure.facts import FactsWorld
from moe_lesson.measure.skills import TEST_STEP, VALIDATION_STEP, SkillsWorld

NAME = "two"  # rungs, for the tests alone


@pytest.fixture(scope="module")
def corpus():
    return machine_corpus(max_bytes=60_000)


@pytest.fixture
def small(monkeypatch):
    """A small experiment with two rungs."""
    ladder = EXPERIMENTS["ladder"]
    preset = replace(ladder.presets["cpu"], steps=3, lrs=(1e-3, 4e-3), tuning_seeds=1, finalists=None, evaluated=320, batch=2,
                     context=32)
    rungs = {rung: ladder.rungs[rung] for rung in ("dense", "deepseekmoe")}
    monkeypatch.setitem(EXPERIMENTS, NAME, Experiment("Which?", rungs, {"cpu": preset}, ships={rung: rung for rung in rungs}))
    return preset


def run(tmp_path, corpus, **options):
    return run_experiment(NAME, device="cpu", out=f"{tmp_path}/data", work=f"{tmp_path}/runs", corpus=corpus, progress=False,
                          **{"seeds": 2} | options)


def test_one_run_end_to_end(small, corpus, tmp_path, capsys):
    run(tmp_path, corpus)
    table = result_table(f"{NAME}-cpu", tmp_path / "data" / "results")
    tuned = [row for row in table.rows if row["stage"] == "tune"]
    finals = [row for row in table.rows if row["stage"] == "final"]
    assert len(tuned) == 2 + 4, "two learning rates for the dense rung, times two gate scales for the sparse one"
    assert [(row["rung"], row["seed"]) for row in finals] == [("dense", 0), ("dense", 1), ("deepseekmoe", 0), ("deepseekmoe", 1)]
    assert {row["seed"] for row in tuned} == {running.TUNING_SEED}
    for rung in ("dense", "deepseekmoe"):
        best = min((row for row in tuned if row["rung"] == rung), key=lambda row: row["validation"])
        assert all((row["lr"], row["scale"]) == (best["lr"], best["scale"]) for row in finals if row["rung"] == rung)
    made = table.provenance
    assert {"command", "commit", "versions", "device", "seconds", "date", "preset", "corpus"} <= made.keys()
    assert made["command"].startswith("python -m moe_lesson.experiments two --preset cpu --seeds 2")
    model, about = load_model(tmp_path / "data" / "checkpoints" / "deepseekmoe.safetensors")
    assert model_cost(model.config).active == finals[2]["active"] and about["run"]["seed"] == 0
    assert sorted((tmp_path / "data" / "checkpoints" / "SHA256SUMS").read_text().split()[1::2]) == [
        "deepseekmoe.safetensors", "dense.safetensors"]
    # once more: everything is there already, nothing is trained, nothing changes
    capsys.readouterr()
    before = (tmp_path / "data" / "results" / f"{NAME}-cpu.csv").read_bytes()
    run(tmp_path, corpus)
    assert "tune" not in capsys.readouterr().out
    assert (tmp_path / "data" / "results" / f"{NAME}-cpu.csv").read_bytes() == before


def test_tuning_never_sees_the_test_split(small, corpus, tmp_path):
    class NoTest(Corpus):
        def stream(self, domain, split, *least):
            assert split != "test", "tuning read the test split"
            return super().stream(domain, split, *least)

    blind = NoTest(corpus.documents)
    arguments = (EXPERIMENTS[NAME], small)
    for tuning_run in running.tuning_runs(*arguments):
        assert "test" not in running.run_once(*arguments, tuning_run, blind, "cpu", tmp_path, False)["row"]
    with pytest.raises(AssertionError, match="tuning read the test split"):  # so the guard above does see a reading
        running.run_once(*arguments, replace(tuning_run, stage="final"), blind, "cpu", tmp_path, False)


def test_a_run_is_known_by_all_that_its_result_holds(small, corpus, tmp_path):
    experiment, run = EXPERIMENTS[NAME], running.Run("final", "deepseekmoe", 1e-3, 1.0, 0)
    for other in (experiment, replace(experiment, kept=(0.25,)), replace(experiment, follow=1)):
        running.run_once(other, small, run, corpus, "cpu", tmp_path, False)
    assert len(list(tmp_path.glob("final-*/result.json"))) == 3


def test_tuning_never_draws_the_test_tokens_of_a_skills_world(tmp_path, monkeypatch):
    experiment, drawn = EXPERIMENTS["skills"], []
    real = SkillsWorld.tokens
    monkeypatch.setattr(SkillsWorld, "tokens", lambda self, count, seed=0, step=TEST_STEP: (
        drawn.append(step) or real(self, count, seed, step)))
    preset = replace(experiment.presets["cpu"], steps=1, evaluated=200)
    for stage in ("tune", "final"):
        drawn.clear()
        running.run_once(experiment, preset, running.Run(stage, "2 of 16", 1e-2, 1.0, 0), None, "cpu", tmp_path, False)
        assert (TEST_STEP in drawn) == (stage == "final") and VALIDATION_STEP in drawn


def test_an_interrupted_experiment_goes_on_where_it_stopped(small, corpus, tmp_path, monkeypatch):
    real, calls = running.train, []

    def stops_once(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(running, "train", stops_once)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, corpus, seeds=1)
    run(tmp_path, corpus, seeds=1)
    assert len(calls) == 4 + (8 - 3), "the three finished runs are not trained again"


def test_other_settings_are_other_runs(small, corpus, tmp_path, monkeypatch):
    run(tmp_path, corpus, seeds=1)
    first = len(list((tmp_path / "runs").rglob("result.json")))
    monkeypatch.setitem(EXPERIMENTS[NAME].presets, "cpu", replace(small, steps=4))
    run(tmp_path, corpus, seeds=1)
    assert len(list((tmp_path / "runs").rglob("result.json"))) == 2 * first


@pytest.fixture
def short_ladder(monkeypatch):
    """The ladder with three rungs and a few steps; its census and ablations are stand-ins."""
    monkeypatch.setattr(diagnoses, "MASKED", (1 / 8,))
    monkeypatch.setattr(diagnoses, "census_of", lambda model, corpus, seed: iter([{"what": "census", "of": seed}]))
    monkeypatch.setattr(diagnoses, "ablations_of", lambda model, corpus, seed: iter([{"what": "ablations", "of": seed}]))
    ladder = EXPERIMENTS["ladder"]
    preset = replace(ladder.presets["cpu"], steps=4, lrs=(4e-3,), evaluated=640, batch=2, context=32)
    rungs = {rung: ladder.rungs[rung] for rung in ("dense", "deepseekmoe", "1 shared")}
    monkeypatch.setitem(EXPERIMENTS, "ladder", replace(ladder, rungs=rungs, presets={"cpu": preset}, follow=2, widens=False,
                                                       fewer_seeds={"1 shared": 1}, changed=("deepseekmoe",),
                                                       census=("deepseekmoe",), ablated=("deepseekmoe",), read_again=("dense",)))
    return preset


def test_a_ladder_is_followed_changed_and_shipped_with_its_snapshots(short_ladder, corpus, tmp_path, monkeypatch):
    options = {"device": "cpu", "out": tmp_path / "data", "work": tmp_path / "runs", "corpus": corpus, "progress": False}
    run_experiment("ladder", seeds=2, **options)
    table, followed, changed, counted = (result_table(f"ladder-cpu{part}", tmp_path / "data" / "results")
                                         for part in ("", "-followed", "-changes", "-baselines"))
    assert {stage: set(table.column("tokens", stage=stage)) for stage in ("tune", "final")} == {"tune": {256}, "final": {256}}
    tried = Counter(table.column("scale", stage="tune", rung="deepseekmoe"))
    assert tried == {1.0: 3, 4.0: 3}, "both are finalists: one seed, then two more"
    assert not any(row["rung"] == "1 shared" for row in table.rows if row["stage"] == "tune"), "it takes deepseekmoe's settings"
    assert table.column("seed", rung="1 shared") == [0] and table.column("seed", rung="dense", stage="final") == [0, 1]
    overlap = result_table("ladder-cpu-repeats", tmp_path / "data" / "results").rows
    assert [row["domain"] for row in overlap] == list(corpus.domains) and all(0 <= row["80 bytes"] <= row["40 bytes"] < 1
                                                                               for row in overlap)
    assert counted.column("model")[0] == "gzip" and counted.column("test_maths")[0] > 0
    for part in ("census", "ablations"):
        rows = result_table(f"ladder-cpu-{part}", tmp_path / "data" / "results").rows
        assert [(row["rung"], row["seed"], row["what"], row["of"]) for row in rows] == [
            ("deepseekmoe", seed, part, seed) for seed in (0, 1)]
    [read] = [row for row in result_table("ladder-cpu-texts", tmp_path / "data" / "results").rows if row["seed"] == 1]
    assert read["rung"] == "dense" and 2 < read["outside"] < 5 and 0 < read["over_documents"] < 1
    assert followed.column("step", rung="dense", seed=1) == [2, 4] and "validation_maths" in followed.rows[0]
    mine = [row for row in changed.rows if row["seed"] == 1]
    assert {row["rung"] for row in mine} == {"deepseekmoe"}
    assert [row["amount"] for row in mine if row["change"] == "active"] == [1, 2, 3, 4, 5, 6]
    assert {row["change"] for row in mine} == {"mask top", "mask random", "active", "without shared"}
    unchanged = next(row["test"] for row in mine if row["change"] == "active" and row["amount"] == 6)
    folder = tmp_path / "data" / "checkpoints"
    model, about = load_model(folder / "ladder-deepseekmoe.safetensors")
    again = TextTask(corpus, short_ladder.evaluated // 5)
    assert about["run"]["seed"] == 0 and next(model.parameters()).dtype == torch.float32
    assert again.test(model)["test"] == pytest.approx(next(
        row["test"] for row in changed.rows if (row["seed"], row["change"], row["amount"]) == (0, "active", 6)), rel=1e-4)
    assert 2 < unchanged < 4
    monkeypatch.setattr("moe_lesson.lm.checkpoints.DATA", tmp_path / "data")
    snapshots = shipped_snapshots("ladder-deepseekmoe")
    assert list(snapshots) == [0, 2, 4] and [ids.shape for ids in snapshots[4]] == [(4 * 2 * 32, 6)] * 2
    assert snapshots[4][1].tolist() == again.chosen(load_model(next(
        path for path in (tmp_path / "runs").rglob("final-seed0-*/model.safetensors")
        if model_cost(load_model(path)[0].config).total == table.column("total", rung="deepseekmoe")[0]))[0])[1]
    assert not (folder / "ladder-dense-snapshots.safetensors").exists()
    monkeypatch.setattr(diagnoses, "changes_of", lambda model: pytest.fail("measured again"))
    run_experiment("ladder", seeds=2, **options)


def test_tuning_takes_the_mean_over_its_seeds():
    def row(lr, validation):
        return {"rung": "a", "lr": lr, "scale": None, "strength": None, "validation": validation}

    tuned = [row(1, 1.0), row(1, 3.0), row(2, 1.8), row(2, 1.8), row(3, 2.1), row(3, 2.2)]
    assert running.best_setting(tuned, "a") == (2, None, None), "one lucky seed does not decide"


PRESETS = [(name, preset) for name, experiment in EXPERIMENTS.items() for preset in experiment.presets]


def costs_of(name, preset):
    experiment, sizes = EXPERIMENTS[name], EXPERIMENTS[name].presets[preset]
    return {rung: experiment.task(sizes, rung, 0, None).cost(config_of(sizes, 1.0))
            for rung, config_of in experiment.rungs.items()}


@pytest.mark.parametrize("name, preset", [pair for pair in PRESETS if "dense" in EXPERIMENTS[pair[0]].rungs])
def test_no_rung_has_more_active_parameters_than_the_dense_one(name, preset):
    costs = costs_of(name, preset)
    dense = costs.pop("dense")
    sized = ("dense of total size", "gshard ×1.5", "half active")  # of another size on purpose
    costs = {rung: cost for rung, cost in costs.items() if not rung.startswith(sized)}
    # in a layer that small the router is a large part; where it is paid for, the dense rung has the size of "cut in 8"
    most = {"skills": 0.3, "pieces": 0.15, "crowded": 0.15, "ladder": 0.04, "facts": 0.1}.get(name, 0.025)
    assert all(0 <= dense.active - cost.active < most * dense.active for cost in costs.values())


def test_the_dense_layer_of_total_size_has_no_fewer_parameters_than_any_mixture_in_its_world():
    costs = costs_of("pieces", "cpu")
    dense = costs.pop("dense of total size")
    assert dense.total >= max(cost.total for cost in costs.values()) > 0.97 * dense.total


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_the_rungs_of_the_ladder_cost_a_token_the_same_router_included(preset):
    costs = costs_of("ladder", preset)
    total, bound = costs.pop("dense of total size"), costs["deepseekmoe"]
    assert costs["gshard"].active >= costs["deepseekmoe"].active and costs["gshard"].total >= costs["deepseekmoe"].total
    assert 0 <= total.total - bound.total < 0.01 * bound.total
    assert costs.pop("half active").active < 0.8 * bound.active and costs.pop("gshard ×1.5").total > 1.4 * bound.total
    dense, quiet, total_quiet = (costs.pop(rung) for rung in ("dense", "dense, quiet", "dense of total size, quiet"))
    assert 0.94 * dense.active < quiet.active <= dense.active and 0.98 * total.total < total_quiet.total <= total.total
    assert all(abs(cost.active / bound.active - 1) < 0.02 for cost in costs.values())


def test_the_dense_layers_with_a_gate_cost_what_they_cost_without():
    gated, plain = costs_of("loud", "cpu"), costs_of("facts", "cpu")
    assert all(0.99 * plain[rung].active < cost.active <= plain[rung].active for rung, cost in gated.items())
    assert EXPERIMENTS["loud"].worlds["dense, fewer facts"] == EXPERIMENTS["facts"].worlds["dense, fewer facts"]


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_more_experts_add_to_the_total_alone(preset):
    costs = costs_of("ladder", preset)
    few, some, many = (costs[rung] for rung in ("2 of 4", "2 of 8", "gshard"))
    assert few.total < some.total < many.total and many.total > 2 * few.total - costs["dense"].total


def test_expert_widths_suit_the_tensor_cores_of_a_gpu():
    for config_of in EXPERIMENTS["ladder"].rungs.values():
        recipe = config_of(EXPERIMENTS["ladder"].presets["gpu"], 1.0).recipes[0]
        assert getattr(recipe, "expert_width", 16) % 16 == 0


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_ways_to_balance_differ_in_the_table_of_the_noise_alone(preset):
    costs = costs_of("balance", preset)
    sizes = EXPERIMENTS["balance"].presets[preset]
    assert len({cost.active for cost in costs.values()}) == 1, "noise is for training: a token does not pay for it"
    extra = {rung: cost.total - costs["none"].total for rung, cost in costs.items()}
    table = sizes.layers * sizes.width * 16
    assert {rung: more for rung, more in extra.items() if more} == {"noise": table, "importance + load": table}


def test_the_strength_of_a_balancing_is_tuned_where_there_is_one_and_all_have_as_many_tries():
    experiment = EXPERIMENTS["balance"]
    preset = experiment.presets["cpu"]
    grids = {}
    for run in running.tuning_runs(experiment, preset):
        grids.setdefault(run.rung, []).append((run.strength, run.lr))
    assert {len(set(grid)) for grid in grids.values()} == {9}
    for rung, grid in grids.items():
        strengths, rates = map(set, zip(*grid))
        assert strengths == ({None} if rung in ("none", "noise") else {1.0, 3.0, 10.0})
        assert set(preset.lrs) <= rates and (min(rates), max(rates)) == (min(preset.lrs), max(preset.lrs))
    assert experiment.balance_of("importance + load", 3.0) == pytest.approx({"importance": 0.3, "load": 0.3})
    assert EXPERIMENTS["ladder"].balance_of("2 of 4") == {"batch": 0.01}


def test_the_layers_of_the_skills_world_spend_the_same_budget_and_differ_in_their_experts():
    sizes = EXPERIMENTS["skills"].presets["cpu"]
    recipes = {rung: recipe_of(sizes, 1.0) for rung, recipe_of in EXPERIMENTS["skills"].rungs.items() if " of " in rung}
    dense = recipes.pop("dense of total size").hidden
    assert {(r.num_experts * r.expert_width, r.top_k * r.expert_width) for r in recipes.values()} == {(dense, dense // 8)}
    assert sorted({(r.top_k, r.num_experts) for r in recipes.values()}) == [(1, 8), (2, 16), (4, 32)]


def test_a_control_takes_the_settings_of_its_rung_and_is_not_tuned():
    experiment = EXPERIMENTS["skills"]
    preset = experiment.presets["cpu"]
    tuned = [{"row": {"rung": run.rung, "lr": run.lr, "scale": run.scale, "strength": None, "validation": abs(run.lr - 0.03)}}
             for run in running.tuning_runs(experiment, preset)]
    assert experiment.controls and not {each["row"]["rung"] for each in tuned} & set(experiment.controls)
    tuned.append({"row": tuned[0]["row"] | {"rung": "2 of 16", "lr": 0.7, "validation": -1}})
    finals = list(running.final_runs(experiment, tuned, 1))
    assert {run.rung: run.lr for run in finals if "2 of 16" in run.rung} == {"2 of 16": 0.7, "2 of 16, nothing shared": 0.7}
    assert {run.rung for run in finals} == set(experiment.rungs)


def test_a_run_in_a_skills_world_reports_both_diseases_in_a_world_of_its_seed(tmp_path):
    experiment = EXPERIMENTS["skills"]
    preset = replace(experiment.presets["cpu"], steps=2, evaluated=200)

    def row(rung, seed, stage="final"):
        run = running.Run(stage, rung, 1e-2, 1.0, seed)
        return running.run_once(experiment, preset, run, None, "cpu", tmp_path, False)["row"]

    first, other, bare = row("2 of 16", 0), row("2 of 16", 1), row("2 of 16, nothing shared", 0)
    assert {"test", "hybridity", "hybridity_random", "probe", "error_masked_top"} <= first.keys()
    assert len({first["test"], other["test"], bare["test"]}) == 3
    assert "test" not in row("2 of 16", 0, "tune") and "hybridity" not in row("dense", 0)
    assert math.isfinite(bare["probe"]), "the control is probed for the function that it never saw"


def test_the_sizes_of_the_scaling_law_span_a_factor_of_ten():
    totals = [cost.total for cost in costs_of("scaling", "cpu").values()]
    assert totals == sorted(totals) and totals[-1] > 10 * totals[0] and len(totals) >= 6


def test_how_far_a_loss_varies_with_the_documents_by_hand(corpus, short_ladder, monkeypatch):
    corpus = Corpus([replace(document, split="test") for document in corpus.documents])
    domains = [document.domain for document in corpus.documents]
    losses = torch.arange(len(domains), dtype=torch.float64) ** 0.5
    monkeypatch.setattr(diagnoses, "document_losses", lambda *_: losses)
    monkeypatch.setattr(diagnoses, "fresh_tokens", lambda corpus: None)
    monkeypatch.setattr(diagnoses, "evaluate_language", lambda *_, **__: {"mean": 1.0})
    [found] = diagnoses.texts_of(None, corpus, 0, short_ladder)
    parts = [[loss.item() for loss, of in zip(losses, domains) if of == domain] for domain in corpus.domains]
    errors = [statistics.stdev(part) / len(part) ** 0.5 for part in parts]  # of each domain's mean, then of their mean
    assert found["over_documents"] == pytest.approx(1.96 * math.hypot(*errors) / len(parts)) and min(map(len, parts)) > 1


def test_a_training_is_followed_on_a_tenth_of_what_judges_it(corpus, monkeypatch):
    asked = []
    monkeypatch.setattr(tasks, "evaluate_language", lambda model, corpus, split, tokens: asked.append((split, tokens))
                        or dict.fromkeys(corpus.domains, 2.0))
    assert TextTask(corpus, 320).follow(None) == {f"validation_{domain}": 2.0 for domain in corpus.domains}
    assert asked == [("validation", 32)]


def test_a_run_in_a_world_of_facts_counts_what_is_remembered_and_tunes_on_other_contexts(tmp_path, monkeypatch):
    experiment, steps = EXPERIMENTS["facts"], []
    preset = replace(experiment.presets["cpu"], steps=2, batch=64, evaluated=200)
    real = FactsWorld.ask
    monkeypatch.setattr(FactsWorld, "ask", lambda self, facts=None, seed=0, step=TEST_STEP: (
        steps.append(step) or real(self, facts, seed, step)))

    def row(rung, seed=0, stage="final"):
        steps.clear()
        run = running.Run(stage, rung, 1e-2, 1.0, seed)
        return running.run_once(experiment, preset, run, None, "cpu", tmp_path, False)["row"]

    assert {"test", "recall", "common", "bits", "hybridity", "facts_survive", "common_of_shared_alone"} <= row("2 shared").keys()
    assert "recall" not in row("2 shared", stage="tune") and set(steps) == {VALIDATION_STEP}
    assert "recall" in row("dense") and "hybridity" not in row("dense")
    bare = row("2 shared, no skill")
    assert "common" not in bare and "recall_of_shared_alone" in bare and bare["test"] != row("2 shared", seed=1)["test"]
    facts = [experiment.task(preset, f"gshard{other}", 0, None).world.num_facts for other in (", fewer facts", "", ", no skill")]
    assert facts == sorted(set(facts)), "fewer, those that are tuned on, and so many that a layer without the skill is full, too"
    assert experiment.task(preset, "dense", 0, None).world.width == preset.width


def test_contrasts_are_of_rungs_that_are_there_and_of_figures_that_are_reported():
    for experiment in EXPERIMENTS.values():
        for figure, *rungs in experiment.contrasts:
            assert set(rungs) <= experiment.rungs.keys() and figure in (
                "recall", "common", "test", "hybridity", "max_violation", "own_0.25", "own_0.125")


def test_a_rung_that_is_best_at_the_end_of_what_it_tried_tries_further():
    def further(losses, **grid):
        preset = replace(EXPERIMENTS["facts"].presets["cpu"], **{"lrs": (1e-2, 2e-2, 4e-2), "scales": (6.0, 12.0, 24.0)} | grid)
        tuned = [dict(zip(("rung", "lr", "scale", "validation"), row), strength=None, seed=1000) for row in losses]
        return sorted({(run.rung, run.lr, run.scale) for run in running.further_runs(EXPERIMENTS["facts"], preset, tuned)})

    cross = [("a", 1e-2, 12.0, 2.0), ("a", 4e-2, 12.0, 2.0), ("a", 2e-2, 6.0, 2.0), ("a", 2e-2, 24.0, 2.0)]
    assert further([*cross, ("a", 2e-2, 12.0, 1.0)]) == []
    assert further([*cross, ("a", 2e-2, 12.0, 2.5), ("a", 4e-2, 24.0, 1.0)]) == [("a", 4e-2, 48.0), ("a", 8e-2, 24.0)]
    ungated = [("dense", lr, None, loss) for lr, loss in ((1e-2, 1.0), (1e-2, 1.1), (2e-2, 2.0))]
    assert further(ungated) == [("dense", 5e-3, None)]
    known = [("a", lr, 6.0, loss) for lr, loss in ((5e-3, 3.0), (1e-2, 1.0), (2e-2, 2.0))]
    assert further(known, scales=(6.0,)) == [], "a single value is no grid"
    assert further([*known, ("a", 1e-2, 12.0, 2.0)]) == [("a", 1e-2, 3.0)], "what was tried further counts"


def test_a_run_that_another_process_is_at_is_left_to_it(small, corpus, tmp_path):
    arguments = (EXPERIMENTS[NAME], small, running.Run("tune", "dense", 1e-3, None, 0), corpus, "cpu", tmp_path, False)
    result = running.run_once(*arguments)
    with FileLock(f"{result['folder']}/lock"):
        assert running.run_once(*arguments, wait=False) is None
    assert running.run_once(*arguments, wait=False)["row"] == result["row"]


def test_of_several_processes_one_at_a_time_writes_the_tables(small, corpus, tmp_path, monkeypatch):
    def guarded(*arguments):
        with pytest.raises(Timeout):
            FileLock(tmp_path / "runs" / f"{NAME}-cpu" / "lock", blocking=False).acquire()
        written.append(arguments[1])

    written = []
    monkeypatch.setattr(running, "write_table", guarded)
    monkeypatch.setattr(running, "ship", lambda *arguments: guarded(None, "models"))
    run(tmp_path, corpus, seeds=1)
    assert written == [f"{NAME}-cpu", f"{NAME}-cpu-curves", "models"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_knows_how_many_seeds_it_takes(name, corpus, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(running, "run_once", lambda experiment, preset, run, *rest, **wait: asked.append(run) or {
        "row": {"rung": run.rung, "seed": run.seed, "lr": run.lr, "scale": run.scale, "strength": run.strength, "seconds": 1.0,
                "validation": (run.lr - 2e-2) ** 2 + ((run.scale or 12) - 12) ** 2},
        "curve": [], "loads": [], "followed": [], "chosen": {},
        "made": dict.fromkeys(("commit", "python", "torch", "device", "date"), "x")})
    shipped = []
    monkeypatch.setattr(running, "ship", lambda *arguments: shipped.append(arguments))
    monkeypatch.setattr(running, "diagnose_once", lambda *arguments, **wait: [])
    table = run_experiment(name, corpus=corpus, out=tmp_path, work=tmp_path, device="cpu")
    finals = [run for run in asked if run.stage == "final"]
    assert bool(shipped) == bool(EXPERIMENTS[name].ships)
    experiment = EXPERIMENTS[name]
    assert len(finals) == sum(experiment.fewer_seeds.get(rung, experiment.seeds) for rung in experiment.rungs)
    assert min(experiment.seeds, *experiment.fewer_seeds.values(), 99) >= 3
    assert f"--seeds {EXPERIMENTS[name].seeds}" in table.with_suffix(".json").read_text()


def test_the_command_lists_the_experiments(capsys):
    main([])
    out = capsys.readouterr().out
    assert "ladder" in out and EXPERIMENTS["ladder"].question in out


@pytest.mark.parametrize("arguments, message", [
    (["alchemy"], "unknown experiment 'alchemy'; there are scaling"),
    (["ladder", "--preset", "abacus"], "unknown preset 'abacus'; choose one of cpu, gpu for ladder"),
    (["all", "--preset", "abacus"], "unknown preset 'abacus'; choose one of cpu"),
    (["ladder", "--seeds", "0"], "seeds is 0"),
    (["ladder", "--device", "tpu"], "unknown device 'tpu'"),
])
def test_bad_requests_are_refused_in_one_sentence(arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(arguments)


def test_all_leaves_out_and_names_the_experiments_without_the_preset(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("moe_lesson.experiments.__main__.run_experiment", lambda name, *_, **__: asked.append(name))
    main(["all", "--preset", "gpu"])
    left = capsys.readouterr().out.splitlines()[0].removeprefix("left out, since they have no preset 'gpu': ").split(", ")
    assert sorted(asked + left) == sorted(EXPERIMENTS) and "ladder" in asked and "facts" in left


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"row": {}}'])
def test_a_damaged_result_is_named_with_what_to_do(damage, small, corpus, tmp_path):
    arguments = (EXPERIMENTS[NAME], small, running.Run("tune", "dense", 1e-3, None, 0), corpus, "cpu", tmp_path, False)
    path = pathlib.Path(running.run_once(*arguments)["folder"]) / "result.json"
    path.write_text(damage)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged; delete it"):
        running.run_once(*arguments)


def test_a_damaged_diagnosis_is_named_with_what_to_do(tmp_path):
    save_model(tmp_path / "model.safetensors", LanguageModel(ModelConfig()), {})
    asked = ({"row": {"rung": "dense", "seed": 0}, "folder": str(tmp_path)}, "texts", lambda *_: iter([{"a": 1}]), None)
    assert diagnoses.diagnose_once(*asked) == [{"rung": "dense", "seed": 0, "a": 1}]
    (kept,) = tmp_path.glob("texts-*.json")
    kept.write_text('{"a"')
    with pytest.raises(ValueError, match=f"{re.escape(str(kept))} is damaged; delete it"):
        diagnoses.diagnose_once(*asked)


def test_no_gpu_is_told(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU is there.*--device cpu"):
        main(["ladder", "--device", "cuda"])


def test_the_record_names_the_code_that_ran_not_the_code_that_wrote_the_table(small, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "git_commit", lambda: "then")
    run(tmp_path, corpus, seeds=1)
    monkeypatch.setattr(running, "git_commit", lambda: "later")
    run(tmp_path, corpus, seeds=2)
    assert result_table(f"{NAME}-cpu", tmp_path / "data" / "results").provenance["commit"] == "later, then"


def test_outside_a_repository_the_commit_is_unknown(monkeypatch):
    monkeypatch.delenv(provenance.COMMIT, raising=False)
    monkeypatch.setenv("PATH", "")
    assert provenance.git_commit() == "unknown"


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """A folder that is a repository with one commit."""
    monkeypatch.delenv(provenance.COMMIT, raising=False)
    for command in ("git init -q", "git -c user.name=a -c user.email=b commit -q --allow-empty -m c"):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    return tmp_path


def test_the_commit_is_that_of_the_course_and_says_whether_something_was_changed(repository, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(repository / "moe_lesson" / "experiments" / "provenance.py"))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True).stdout
    assert head.startswith(provenance.git_commit()) and len(provenance.git_commit()) == 10
    (repository / "changed").write_text("a")
    subprocess.run(["git", "add", "changed"], cwd=repository, check=True)
    assert provenance.git_commit() == head[:10] + "+"


def test_a_copy_in_somebody_elses_repository_does_not_take_its_commit(repository, monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "venv" / "moe_lesson" / "experiments" / "provenance.py"))
    (tmp_path / "venv").mkdir()
    assert provenance.git_commit() == "unknown"
    monkeypatch.setenv(provenance.COMMIT, "0123abc")
    assert provenance.git_commit() == "0123abc"


def test_a_world_reads_no_text_and_a_text_that_was_given_is_named(small, corpus, tmp_path, monkeypatch):
    def made(name, **change):
        monkeypatch.setitem(EXPERIMENTS, name, replace(EXPERIMENTS[name], presets={"cpu": replace(small, lrs=(4e-3,))}, seeds=1,
                                                       widens=False, **change))
        table = run_experiment(name, device="cpu", out=tmp_path, work=tmp_path, corpus=corpus, progress=False)
        return result_table(table.stem, table.parent).provenance

    facts = made("facts", rungs={"gshard": EXPERIMENTS["facts"].rungs["gshard"]})
    assert facts["corpus"] == EXPERIMENTS["facts"].learns and "--text" not in facts["command"]
    assert "--text FILE" in made(NAME)["command"]


def test_a_learning_rate_that_diverges_loses_the_tuning_and_does_not_stop_it(small, corpus, tmp_path, monkeypatch):
    real = running.train

    def diverges(model, sampler, config, **options):
        if config.lr == 4e-3:
            raise TrainingDiverged("at step 1 the loss is nan")
        return real(model, sampler, config, **options)

    monkeypatch.setattr(running, "train", diverges)
    run(tmp_path, corpus, seeds=1)
    table = result_table(f"{NAME}-cpu", tmp_path / "data" / "results")
    assert set(table.column("lr", stage="final")) == {1e-3}
    assert set(table.column("validation", stage="tune", lr=4e-3)) == {float("inf")}


def test_a_folder_that_cant_be_written_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "train", lambda *a, **k: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    for option in ("--out", "--work"):
        with pytest.raises(SystemExit, match="experiments: .*file"):
            main(["ladder", option, str(tmp_path / "file" / "below")])
