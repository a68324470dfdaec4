"""Running an experiment: every rung gets the same small grid, tuned on the validation split with seeds of its own; then fresh
seeds are trained and the test split is read once. Every run can be interrupted and goes on where it stopped.
"""

import datetime
import json
import pathlib
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from filelock import FileLock, Timeout

from ..base.devices import device_name, pick_device
from ..base.errors import require, whole_number
from ..base.storage import read_json, write_text
from ..lm.checkpoints import save_model
from ..lm.corpora import Corpus
from ..lm.counts import baselines
from ..lm.machine_text import machine_corpus
from ..lm.model import ModelConfig
from ..lm.repeats import repeats
from ..lm.training import History, TrainingConfig, TrainingDiverged, train
from ..measure.evidence import write_table
from ..moe.recipes import Dense, Recipe
from .catalogue import EXPERIMENTS, Experiment
from .diagnoses import diagnose_once, diagnoses
from .provenance import digest, git_commit, provenance, ship
from .rungs import Preset
from .tasks import Task, TextTask, load_figures

TUNING_SEED = 1000  # and those after it: never among the seeds that are reported
WORK = pathlib.Path("runs")
OUT = WORK / "data"  # not the course's own data folder: whoever tries a small run does not overwrite what ships


@dataclass(frozen=True)
class Run:
    """One training of an experiment."""

    stage: str  # "tune" or "final"
    rung: str
    lr: float
    scale: float | None  # of the gate; None for a dense FFN
    seed: int
    strength: float | None = None  # of the balancing, in published strengths; None where it is not varied


def run_experiment(name: str, preset_name: str = "cpu", seeds: int | None = None, device: str = "auto",
                   out: str | pathlib.Path = OUT, work: str | pathlib.Path = WORK, corpus: Corpus | None = None,
                   progress: bool = True, compiled: bool = False) -> pathlib.Path:
    """Run a named experiment, or what is left of it, and write its table, its provenance and its models.

    Args:
        name: of the experiment.
        preset_name: "cpu" or "gpu".
        seeds: how many fresh seeds are trained and reported; the experiment's own number unless given.
        device: see `pick_device`.
        out: the data folder to write results/ and checkpoints/ into.
        work: folder for runs in progress.
        corpus: what to train on; the machine corpus unless given. No experiment in a world reads any.
        progress: show bars.
        compiled: train what torch.compile makes of the models: faster, and equal but for rounding.

    Returns: the path of the table.

    Raises:
        ValueError: for an unknown name, preset or device, fewer than 1 seed, or a damaged result in `work`.
        OSError: if a file can't be written.
        TrainingDiverged: if a reported training diverges; one that tunes has only lost.
    """
    require(name in EXPERIMENTS, f"unknown experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    require(preset_name in experiment.presets,
            f"unknown preset {preset_name!r}; choose one of {', '.join(experiment.presets)} for {name}")
    seeds = experiment.seeds if seeds is None else seeds
    whole_number("seeds", seeds)
    preset, device = experiment.presets[preset_name], pick_device(device)
    out, work = pathlib.Path(out), pathlib.Path(work)
    for folder in (out / "results", work):  # an hour of training must not end at a folder that can't be written
        folder.mkdir(parents=True, exist_ok=True)
    given, corpus = (None, None) if experiment.worlds is not None else (corpus, corpus or machine_corpus())
    folder = work / f"{name}-{preset_name}"

    found_in = diagnoses(experiment, preset, device)

    def results_of(runs: Iterable[Run]) -> list[dict]:
        """Every run's result, whoever trains it: a run that another process is at is left to it, and waited for at the end."""
        def result_of(run: Run, wait: bool) -> dict | None:
            result = run_once(experiment, preset, run, corpus, device, folder, progress, compiled, wait=wait)
            for table, (rungs, rows_of) in found_in.items() if result and corpus and run.stage == "final" else ():
                if run.rung in rungs:  # at once: where several processes are at work, they share this, too
                    diagnose_once(result, table, rows_of, corpus, wait=False)
            return result

        found = [(run, result_of(run, wait=False)) for run in runs]
        return [result or result_of(run, wait=True) for run, result in found]

    tuned = results_of(tuning_runs(experiment, preset))
    while further := list(further_runs(experiment, preset, [each["row"] for each in tuned])):
        tuned += results_of(further)
    finals = results_of(final_runs(experiment, tuned, seeds))
    results = out / "results"
    with FileLock(folder / "lock"):  # of all that were started, one after the other writes the same tables
        made = provenance(name, preset_name, preset, seeds, device, corpus, tuned + finals, bool(given))
        write_table(results, f"{name}-{preset_name}", [r["row"] for r in tuned + finals], made)
        parts = {"curve": "curves"} | ({"loads": "loads"} if experiment.loads else {}) | (
            {"followed": "followed"} if experiment.follow else {})
        for part, table in parts.items():
            along = [{"rung": r["row"]["rung"], "seed": r["row"]["seed"]} | point for r in finals for point in r[part]]
            write_table(results, f"{name}-{preset_name}-{table}", along, made)
        for table, (rungs, rows_of) in found_in.items() if corpus else ():
            found = [row for r in finals if r["row"]["rung"] in rungs for row in diagnose_once(r, table, rows_of, corpus)]
            if found:
                write_table(results, f"{name}-{preset_name}-{table}", found, made)
        if experiment.baselines and corpus:
            write_table(results, f"{name}-{preset_name}-baselines", baselines(corpus, preset.context, preset.evaluated), made)
            write_table(results, f"{name}-{preset_name}-repeats", repeats(corpus), made)
        if preset_name == "cpu" and experiment.ships:
            ship(experiment, finals, corpus, out / "checkpoints", made)
    return results / f"{name}-{preset_name}.csv"


def tuning_runs(experiment: Experiment, preset: Preset) -> Iterator[Run]:
    """The same grid for every rung: all learning rates, all gate scales where there is a gate, all strengths of a balancing;
    where others vary a strength and a rung has none, as many tries by more learning rates between the first and the last.

    With one seed where the best settings get the others later, see `further_runs`.
    """
    seeds = 1 if preset.finalists else preset.tuning_seeds
    for rung, config_of in experiment.rungs.items():
        if rung in experiment.controls:
            continue
        sizes = config_of(preset, 1.0)
        is_dense = all(isinstance(recipe, Dense) for recipe in getattr(sizes, "recipes", (sizes,)))
        strengths = preset.strengths if experiment.balance.get(rung) else (None,)
        tries = len(preset.lrs) * len(preset.strengths) // len(strengths)
        for lr in preset.lrs if tries == len(preset.lrs) else between(preset.lrs, tries):
            for scale in (None,) if is_dense else preset.scales:
                for strength in strengths:
                    for seed in range(seeds):
                        yield Run("tune", rung, lr, scale, TUNING_SEED + seed, strength)


def between(rates: Iterable[float], count: int) -> list[float]:
    """So many learning rates from the lowest to the highest, each the same multiple of the one before."""
    return [float(f"{rate:.6g}") for rate in np.geomspace(min(rates), max(rates), count)]


def further_runs(experiment: Experiment, preset: Preset, tuned: list[dict]) -> Iterator[Run]:
    """What is still to be tried for every rung, given what was: its finalists with all tuning seeds; then, where it is best at
    the end of the learning rates or gate scales that it tried, the next one, by the grid's step. Strengths are not widened: the
    weakest is the published one."""
    seeds = 1 if preset.finalists else preset.tuning_seeds
    for rung in dict.fromkeys(row["rung"] for row in tuned):
        tried_with = {(row["lr"], row["scale"], row["strength"], row["seed"]) for row in tuned if row["rung"] == rung}
        finals = [(*setting, seed) for setting in ranked(tuned, rung)[:preset.finalists or 0]
                  for seed in range(TUNING_SEED, TUNING_SEED + preset.tuning_seeds)]
        if missing := [one for one in finals if one not in tried_with]:
            yield from (Run("tune", rung, lr, scale, seed, strength) for lr, scale, strength, seed in missing)
            continue
        if not experiment.widens:
            continue
        best = dict(zip(("lr", "scale", "strength"), best_setting(tuned, rung)))
        for setting, grid in (("lr", sorted(preset.lrs)), ("scale", sorted(preset.scales))):
            others = best.items() - {(setting, best[setting])}
            tried = [row[setting] for row in tuned if row["rung"] == rung and others <= row.items()]
            if best[setting] is None or len(grid) == 1 or min(tried) < best[setting] < max(tried):
                continue
            step = grid[-1] / grid[-2] if best[setting] == max(tried) else grid[0] / grid[1]
            for seed in range(seeds):
                yield Run("tune", rung, seed=TUNING_SEED + seed, **best | {setting: float(f"{best[setting] * step:.6g}")})


def final_runs(experiment: Experiment, tuned: list[dict], seeds: int) -> Iterator[Run]:
    """Fresh seeds of every rung, with what had the lowest validation loss, the mean over the tuning seeds."""
    for rung in experiment.rungs:
        lr, scale, strength = best_setting([each["row"] for each in tuned], experiment.controls.get(rung, rung))
        for seed in range(min(seeds, experiment.fewer_seeds.get(rung, seeds))):
            yield Run("final", rung, lr, scale, seed, strength)


def best_setting(tuned: list[dict], rung: str) -> tuple:
    """The learning rate, gate scale and strength of a rung whose validation loss is lowest, as the mean over tuning seeds; of
    those that were tried with all seeds."""
    seeds = Counter((row["lr"], row["scale"], row["strength"]) for row in tuned if row["rung"] == rung)
    return next(setting for setting in ranked(tuned, rung) if seeds[setting] == max(seeds.values()))


def ranked(tuned: list[dict], rung: str) -> list[tuple]:
    """The settings of a rung, that of the lowest validation loss first, the mean over the seeds it was tried with."""
    losses: dict[tuple, list[float]] = {}
    for row in tuned:
        if row["rung"] == rung:
            losses.setdefault((row["lr"], row["scale"], row["strength"]), []).append(row["validation"])
    return sorted(losses, key=lambda setting: sum(losses[setting]) / len(losses[setting]))


def run_once(experiment: Experiment, preset: Preset, run: Run, corpus: Corpus | None, device: str, folder: pathlib.Path,
             progress: bool, compiled: bool = False, wait: bool = True) -> dict | None:
    """One training, from where it stopped.

    A tuning run reads the validation split; only a final run reads the test split. While another process is at this run, it is
    waited for.

    Returns: by name the table's `row`, a thinned loss `curve`, what `made` them, the `folder` of the model, and what the
        experiment wants beside; None without `wait`, while another process is at this run.
    """
    task, config = experiment.task(preset, run.rung, run.seed, corpus), experiment.rungs[run.rung](preset, run.scale or 1.0)
    training = TrainingConfig(preset.steps, run.lr, seed=run.seed, bfloat16=preset.bfloat16)
    balance = experiment.balance_of(run.rung, run.strength)
    sizes = {"batch": preset.batch, "balance": balance, "evaluated": preset.evaluated}
    if run.stage == "final":  # more that its result may hold
        sizes |= {name: value for name, value in (("kept", experiment.kept), ("follow", experiment.follow)) if value}
    machine = {"torch": torch.__version__, "device": device_name(device)} | ({"compiled": "yes"} if compiled else {})
    setting = digest(*task.identity(config), asdict(training), sizes, machine)
    here = folder / f"{run.stage}-seed{run.seed}-{setting}"  # not by rung: two rungs may ask for one and the same training
    here.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(here / "lock", blocking=wait):
            if not (here / "result.json").exists():
                made = {"made": machine | {"python": platform.python_version(), "commit": git_commit(),
                                           "date": datetime.date.today().isoformat()}}
                result = trained(experiment, preset, run, task, config, training, balance, device, here, progress, compiled)
                write_text(here / "result.json", json.dumps(result | made))
                (here / "state.safetensors").unlink(missing_ok=True)  # the training is over: its result and its model stay
            result = read_json(here / "result.json", "row", "curve", "made")
    except Timeout:
        return None
    return result | {"row": result["row"] | {"rung": run.rung}, "folder": str(here)}


def trained(experiment: Experiment, preset: Preset, run: Run, task: Task, config: ModelConfig | Recipe, training: TrainingConfig,
            balance: dict[str, float], device: str, here: pathlib.Path, progress: bool, compiled: bool) -> dict:
    """Train one run's model, judge it, and keep it where it can be loaded again."""
    final = run.stage == "final"
    print(f"{run.stage} {run.rung} lr {run.lr:g} gate scale {run.scale} balance {balance} seed {run.seed}", flush=True)
    model = task.build(config, run.seed).to(device)
    try:
        history = train(torch.compile(model) if compiled else model,
                        task.batches(preset.batch, preset.context, run.seed), training, objective=task.objective(balance),
                        checkpoint=here / "state.safetensors", progress=progress,
                        **(following(experiment, task, run) if final and isinstance(task, TextTask) else {}))
        judged = task.validate(model)
    except TrainingDiverged as diverged:
        if final:
            raise
        print(diverged)  # a learning rate that diverges has lost the tuning, not stopped it
        history, judged = History(), {"validation": float("inf")}
    cost = task.cost(config)
    row = asdict(run) | {"total": cost.total, "active": cost.active, "flops": cost.flops,
                         "tokens": training.steps * preset.batch * preset.context, "seconds": round(history.seconds, 1)} | judged
    if final:
        row |= task.test(model)
    points = history.rows[:20] + history.rows[20::20]
    curve = [{"step": point["step"], "train_loss": point["loss"]} | load_figures(point.get("load", [])) for point in points]
    loads = [{"step": point["step"], "layer": layer} | {f"expert_{i}": count for i, count in enumerate(load)}
             for point in points for layer, load in enumerate(point.get("load", []))]
    if experiment.worlds is None:
        save_model(here / "model.safetensors", model, {})
    followed = [{"step": point["step"] + 1} | point["followed"] for point in history.rows if "followed" in point]
    chosen = {point["step"] + 1: point["chosen"] for point in history.rows if "chosen" in point}
    return {"row": row, "curve": curve, "loads": loads, "followed": followed, "chosen": chosen}


def following(experiment: Experiment, task: TextTask, run: Run) -> dict:
    """What `train` needs to write down along a training how good the model is and, for seed 0, what its routers choose."""
    def evaluate(model) -> dict:
        return {"followed": task.follow(model)} | ({"chosen": task.chosen(model)} if run.seed == 0 else {})

    return {"evaluate": evaluate, "every": experiment.follow} if experiment.follow else {}
