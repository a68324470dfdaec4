"""The experiments behind the shipped tables and models: `python -m moe_lesson.experiments` lists them.

Every rung of a comparison gets the same small grid, tuned on the validation split with a seed of its own; then fresh seeds
are trained and the test split is read once. Every run can be interrupted and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import hashlib
import json
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

import torch

from ..base.errors import require
from ..lm.checkpoints import load_model, save_model, save_snapshots, write_checksums
from ..lm.corpora import Corpus, machine_corpus
from ..lm.ledger import dense_of_equal_active, dense_of_equal_total, experts_of_equal_active
from ..lm.model import LanguageModel, ModelConfig
from ..lm.training import DEFAULT_BALANCE, History, TrainingConfig, TrainingDiverged, train
from ..measure.census import LABELS, document_losses, information, of_same_load, specialists, take_census
from ..measure.evidence import write_table
from ..measure.interventions import with_masked_experts, with_top_k, without_experts, without_shared
from ..moe.layers import moe_layers
from ..moe.recipes import Budget, Dense, Recipe, Sparse
from .tasks import SkillsTask, Task, TextTask, load_figures

TUNING_SEED = 1000  # and those after it: never among the seeds that are reported
MASKED = (1 / 16, 1 / 8, 1 / 4)  # of the routed experts
CONTROLS = 3  # random sets of experts for each set that is taken away
WORK = pathlib.Path("runs")
OUT = WORK / "data"  # not the course's own data folder: whoever tries a small run does not overwrite what ships


@dataclass(frozen=True)
class Preset:
    """Sizes of an experiment: `cpu` for a laptop, `gpu` for one large GPU."""

    budget: Budget
    layers: int
    width: int
    heads: int
    context: int
    batch: int
    steps: int
    lrs: tuple[float, ...]
    scales: tuple[float, ...]
    strengths: tuple[float, ...] = (1.0,)
    tuning_seeds: int = 1
    tuning_steps: int | None = None  # of the runs that tune; as many as `steps` unless given
    bfloat16: bool = False
    eval_bytes: int = 100_000  # of each domain; in a skills world, tokens


@dataclass(frozen=True)
class Experiment:
    """A question put to several rungs.

    Args:
        question: what the experiment answers, one sentence.
        rungs: name -> (preset, gate scale) -> sizes of the model, in a skills world the recipe of the layer; dense rungs
            ignore the scale.
        presets: "cpu" sizes, and "gpu" sizes where there are some.
        ships: rung -> name of the checkpoint that its seed 0 becomes.
        seeds: how many fresh seeds are reported unless the command says otherwise.
        balance: rung -> how its experts are kept balanced, at the published strength; DeepSeekMoE's loss unless named here.
        loads: write the load of every expert along training, too.
        worlds: train in a skills world, a new one for each seed: rung -> what is changed in it; None trains on text.
        controls: rung -> the rung that it is the control of, whose tuned settings it takes: one thing alone may differ.
        scales: rung -> the gate scales that are tried for it, where they are not the preset's.
        probes: rungs whose reported models are changed and judged again, see `changes_of`.
        census: rungs whose reported models' routing is counted, see `census_of`.
        ablated: rungs whose reported models lose experts, see `ablations_of`.
        follow: every how many steps a reported training is judged by domain, and the routing of seed 0 is kept; 0 is never.
    """

    question: str
    rungs: dict[str, Callable[[Preset, float], ModelConfig | Recipe]]
    presets: dict[str, Preset]
    ships: dict[str, str] = field(default_factory=dict)
    seeds: int = 3
    balance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    loads: bool = False
    worlds: Mapping[str, Mapping[str, int]] | None = None
    controls: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    probes: tuple[str, ...] = ()
    census: tuple[str, ...] = ()
    ablated: tuple[str, ...] = ()
    follow: int = 0

    def balance_of(self, rung: str, strength: float | None = None) -> dict[str, float]:
        """The balancing of a rung: its published strengths times `strength`."""
        return {method: value * (strength or 1.0) for method, value in self.balance.get(rung, DEFAULT_BALANCE).items()}

    def task(self, preset: Preset, rung: str, seed: int, corpus: Corpus | None) -> Task:
        """What a run is trained on and judged by."""
        if self.worlds is None:
            return TextTask(corpus, preset.eval_bytes)
        return SkillsTask(seed, preset.eval_bytes, self.worlds.get(rung, {}))

    @property
    def data(self) -> Corpus | None:
        """The text that it is trained on, where it is text."""
        return machine_corpus() if self.worlds is None else None


@dataclass(frozen=True)
class Run:
    """One training of an experiment."""

    stage: str  # "tune" or "final"
    rung: str
    lr: float
    scale: float | None  # of the gate; None for a dense FFN
    seed: int
    strength: float | None = None  # of the balancing, in published strengths; None where it is not varied


# --------------------------------------------------------------------------------------------------------- the experiments


def model_of(preset: Preset, recipe: Recipe) -> ModelConfig:
    """A model of the preset's sizes with a recipe in every layer."""
    return ModelConfig(recipe, preset.layers, preset.width, preset.heads, preset.context)


def deepseekmoe(preset: Preset, scale: float) -> ModelConfig:
    """GShard's two experts each cut in four, two of the eight pieces shared (arXiv 2401.06066, section 4.1)."""
    return model_of(preset, preset.budget.experts(top_k=2, segments=4, num_shared=2, scale=scale))


def matched(top_k: int, segments: int = 1, num_shared: int = 0, **router) -> Callable[[Preset, float], ModelConfig]:
    """A mixture that costs a token what GShard's two experts cut in four cost it, the router included."""
    def rung(preset: Preset, scale: float) -> ModelConfig:
        return model_of(preset, experts_of_equal_active(fine(preset), preset.width, top_k, segments, num_shared, scale=scale,
                                                        **router))

    return rung


def fine(preset: Preset) -> Sparse:
    """What the rungs of the ladder are matched to: the preset's budget, each of GShard's two experts cut in four."""
    return preset.budget.experts(top_k=2, segments=4)


def gshard_times(factor: float) -> Callable[[Preset, float], ModelConfig]:
    """GShard with experts `factor` times as wide (arXiv 2401.06066, section 4.3: GShard×1.5)."""
    def rung(preset: Preset, scale: float) -> ModelConfig:
        plain = matched(2)(preset, scale).recipes[0]
        return model_of(preset, replace(plain, expert_width=round(factor * plain.expert_width)))

    return rung


def half_active(preset: Preset, scale: float) -> ModelConfig:
    """Half of DeepSeekMoE's active experts: 3 of 63 and one shared (arXiv 2401.06066, section 4.5, figure 6)."""
    width = fine(preset).expert_width
    return model_of(preset, Budget(4 * width, preset.budget.total).experts(top_k=1, segments=4, num_shared=1, scale=scale))


def dense_of_total_size(preset: Preset, scale: float) -> ModelConfig:
    """A dense model with as many parameters as the fine-grained mixtures have in all: "Dense×16", the paper's bound."""
    return model_of(preset, dense_of_equal_total(fine(preset), preset.width))


def top_2_of(num_experts: int) -> Callable[[Preset, float], ModelConfig]:
    """Two of `num_experts` experts for each token, at the preset's active size: the total grows with the experts alone."""
    def rung(preset: Preset, scale: float) -> ModelConfig:
        active = preset.budget.active
        return model_of(preset, Budget(active, active // 2 * num_experts).experts(top_k=2, scale=scale))

    return rung


def noisy(rung: Callable[[Preset, float], ModelConfig]) -> Callable[[Preset, float], ModelConfig]:
    """Another rung with trainable noise on the router's logits while training."""
    def config(preset: Preset, scale: float) -> ModelConfig:
        return model_of(preset, replace(rung(preset, scale).recipes[0], noisy=True))

    return config


def dense_beside(rung: Callable[[Preset, float], ModelConfig]) -> Callable[[Preset, float], ModelConfig]:
    """The dense model with as many parameters as another rung activates, its router included."""
    return lambda preset, scale: model_of(preset, dense_of_equal_active(rung(preset, scale).recipes[0], preset.width))


def dense_of_width(width: int) -> Callable[[Preset, float], ModelConfig]:
    """A dense model of another width, all its sizes in proportion; the heads keep about 16 channels."""
    return lambda preset, scale: ModelConfig(Dense(3 * width), preset.layers, width, max(1, width // 16), preset.context)


def layer(recipe_of: Callable[[Budget], Recipe]) -> Callable[[Preset, float], Recipe]:
    """A rung of a skills world: a layer by itself, out of the preset's budget."""
    return lambda preset, scale: recipe_of(preset.budget)


TEXT_CPU = Preset(Budget(192, 1536), layers=2, width=64, heads=4, context=256, batch=8, steps=1500,
                  lrs=(2e-3, 4e-3, 8e-3, 1.6e-2), scales=(1.0, 6.0))
TEXT_GPU = Preset(Budget(1024, 8192), layers=6, width=384, heads=6, context=256, batch=64, steps=4000,
                  lrs=(5e-4, 1e-3, 2e-3), scales=(1.0, 6.0), bfloat16=True)
BALANCED_GPU = replace(TEXT_GPU, lrs=(1e-3,), scales=(1.0,), strengths=(1.0, 3.0))
SHORT_CPU = replace(TEXT_CPU, steps=1000, lrs=(4e-3, 8e-3, 1.6e-2), scales=(1.0,))

SKILLS_CPU = Preset(Budget(32, 256), layers=1, width=32, heads=1, context=1, batch=1024, steps=1500,
                    lrs=(1e-2, 3e-2, 1e-1, 3e-1), scales=(1.0,), eval_bytes=8000)
SKILLS_EXPERTS: dict[str, Callable[[Budget], Recipe]] = {
    "1 of 8": lambda budget: budget.experts(top_k=1, renormalise=False),  # renormalised, it would be 1 and teach nothing
    "2 of 16": lambda budget: budget.experts(top_k=2),
    "4 of 32": lambda budget: budget.experts(top_k=4),
}
LADDER_CPU = replace(TEXT_CPU, steps=1000, lrs=(4e-3, 8e-3, 1.6e-2), tuning_seeds=2, tuning_steps=400)
LADDER_GPU = Preset(Budget(512, 4096), layers=4, width=256, heads=4, context=256, batch=128, steps=1300,
                    lrs=(1e-3, 2e-3, 4e-3), scales=(1.0, 6.0), tuning_steps=325, bfloat16=True)
NOTHING_SHARED = ", nothing shared"  # the control of all that is said about the shared function
OTHER_BALANCING = {"unbalanced": {}, "balanced per sequence": {"sequence": 0.01}, "balanced by bias": {"bias": 1e-3}}


def piece(*cut: int) -> Callable[[Budget], Recipe]:
    """The layer of a skills world that costs a token what the budget's 8 pieces cost it; `cut`: top_k, segments, num_shared."""
    return lambda budget: experts_of_equal_active(budget.experts(top_k=2, segments=4), SKILLS_CPU.width, *cut)


PIECES = {f"cut in {m}": piece(2, m) for m in (1, 2, 4, 8)} | {f"{shared} shared": piece(2, 4, shared) for shared in (1, 2, 4)}
SHARING = ("cut in 4", "1 shared", "2 shared", "4 shared")  # none, one, two and four of the pieces

EXPERIMENTS = {
    "dense-or-moe": Experiment(
        question="Does a DeepSeekMoE model predict text better than a dense model that pays as much per token?",
        rungs={"dense": dense_beside(deepseekmoe), "deepseekmoe": deepseekmoe},
        presets={"cpu": TEXT_CPU, "gpu": TEXT_GPU},
        ships={"dense": "dense", "deepseekmoe": "deepseekmoe"},
    ),
    "scaling": Experiment(
        question="How does the loss of a dense model fall with its size, at the same number of training tokens?",
        rungs={f"width {width}": dense_of_width(width) for width in (12, 16, 24, 32, 48, 64)},
        presets={"cpu": replace(SHORT_CPU, lrs=(4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2))},  # the small ones learn best at large rates
    ),
    "topk": Experiment(
        question="Does a TopK mixture of experts predict better the more experts there are, when each token pays the same?",
        rungs={"dense": dense_beside(top_2_of(16))} | {f"2 of {n}": top_2_of(n) for n in (4, 8, 16)},
        presets={"cpu": SHORT_CPU, "gpu": replace(TEXT_GPU, scales=(1.0,))},
        ships={"2 of 16": "topk"},
        seeds=5,
    ),
    "balance": Experiment(
        question="What keeps the load of 16 experts even, and what does it cost in loss?",
        rungs={"none": top_2_of(16), "noise": noisy(top_2_of(16)), "z-loss": top_2_of(16),
               "importance + load": noisy(top_2_of(16)), "loss per sequence": top_2_of(16), "loss per batch": top_2_of(16),
               "bias": top_2_of(16)},
        balance={"none": {}, "noise": {}, "z-loss": {"z": 1e-3}, "importance + load": {"importance": 0.1, "load": 0.1},
                 "loss per sequence": {"sequence": 0.01}, "loss per batch": {"batch": 0.01}, "bias": {"bias": 1e-3}},
        presets={"cpu": replace(SHORT_CPU, steps=500, strengths=(1.0, 3.0, 10.0)), "gpu": BALANCED_GPU},
        seeds=5,
        loads=True,
    ),
    "skills": Experiment(
        question="Where the truth is known: how many skills does an expert serve, and how much common knowledge does it repeat?",
        rungs={"dense": layer(lambda budget: dense_of_equal_active(budget.experts(top_k=4), SKILLS_CPU.width)),
               "dense of total size": layer(lambda budget: Dense(budget.total))}
        | {name + alone: layer(recipe_of) for alone in ("", NOTHING_SHARED) for name, recipe_of in SKILLS_EXPERTS.items()},
        presets={"cpu": SKILLS_CPU},
        seeds=5,
        worlds={name + NOTHING_SHARED: {"shared_units": 0} for name in SKILLS_EXPERTS},
        controls={name + NOTHING_SHARED: name for name in SKILLS_EXPERTS},
    ),
    "pieces": Experiment(
        question="Where the truth is known: into how many pieces should experts be cut, and how many of the pieces be shared?",
        rungs={"dense": layer(lambda budget: dense_of_equal_active(piece(2, 8)(budget), SKILLS_CPU.width)),
               "dense of total size": layer(lambda budget: dense_of_equal_total(piece(2, 1)(budget), SKILLS_CPU.width))}
        | {name + alone: layer(recipe_of) for alone in ("", NOTHING_SHARED) for name, recipe_of in PIECES.items()
           if not alone or name in SHARING},
        presets={"cpu": replace(SKILLS_CPU, budget=Budget(64, 512), steps=800, lrs=(1e-2, 3e-2, 1e-1),
                                eval_bytes=4000)},
        seeds=5,
        worlds={name + NOTHING_SHARED: {"shared_units": 0} for name in SHARING},
        controls={name + NOTHING_SHARED: name for name in SHARING},
    ),
    "ladder": Experiment(
        question="When each token pays the same: does DeepSeekMoE predict text better than GShard, Switch and a dense model?",
        rungs={"dense": dense_beside(matched(2, 8)), "switch": matched(1, renormalise=False), "gshard": matched(2),
               "fine": matched(2, 4), "deepseekmoe": matched(2, 4, num_shared=2),
               "dense of total size": dense_of_total_size, "gshard ×1.5": gshard_times(1.5), "half active": half_active,
               "cut in 2": matched(2, 2), "cut in 8": matched(2, 8),
               "1 shared": matched(2, 4, num_shared=1), "4 shared": matched(2, 4, num_shared=4),
               "fine, gate scale 1": matched(2, 4), "fine, gate scale 6": matched(2, 4)}
        | {f"deepseekmoe, {balancing}": matched(2, 4, num_shared=2) for balancing in OTHER_BALANCING},
        presets={"cpu": LADDER_CPU, "gpu": LADDER_GPU},
        ships={rung: f"ladder-{rung}".replace(" ", "-").replace("×", "x")
               for rung in ("dense", "switch", "gshard", "fine", "deepseekmoe", "dense of total size", "gshard ×1.5")},
        seeds=5,
        scales={f"fine, gate scale {scale}": (float(scale),) for scale in (1, 6)},
        balance={f"deepseekmoe, {balancing}": losses for balancing, losses in OTHER_BALANCING.items()},
        controls={f"deepseekmoe, {balancing}": "deepseekmoe" for balancing in OTHER_BALANCING},
        probes=("gshard", "gshard ×1.5", "fine", "1 shared", "deepseekmoe", "4 shared"),
        census=("gshard", "fine", "deepseekmoe", *(f"deepseekmoe, {balancing}" for balancing in OTHER_BALANCING)),
        ablated=("gshard", "fine", "deepseekmoe"),
        follow=100,
    ),
}


# ------------------------------------------------------------------------------------------------------------ running them


def run_experiment(name: str, preset_name: str = "cpu", seeds: int | None = None, device: str = "auto",
                   out: pathlib.Path = OUT, work: pathlib.Path = WORK, corpus: Corpus | None = None,
                   progress: bool = True) -> pathlib.Path:
    """Run a named experiment, or what is left of it, and write its table, its provenance and its models.

    Args:
        name: of the experiment.
        preset_name: "cpu" or "gpu".
        seeds: how many fresh seeds are trained and reported; the experiment's own number unless given.
        device: "auto", "cpu" or "cuda".
        out: the data folder to write results/ and checkpoints/ into.
        work: folder for runs in progress.
        corpus: what to train on; the machine corpus unless given.
        progress: show bars.

    Returns: the path of the table.

    Raises:
        ValueError: for an unknown name, preset or device, or fewer than 1 seed.
    """
    require(name in EXPERIMENTS, f"unknown experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    require(preset_name in experiment.presets,
            f"unknown preset {preset_name!r}; choose one of {', '.join(experiment.presets)}")
    seeds = experiment.seeds if seeds is None else seeds
    require(seeds >= 1, f"seeds is {seeds}; expected at least 1")
    preset, device = experiment.presets[preset_name], pick_device(device)
    for folder in (out / "results", work):  # an hour of training must not end at a folder that can't be written
        folder.mkdir(parents=True, exist_ok=True)
    corpus = corpus or experiment.data
    folder = work / f"{name}-{preset_name}"

    def result_of(run: Run) -> dict:
        return run_once(experiment, preset, run, corpus, device, folder, progress)

    tuned = [result_of(run) for run in tuning_runs(experiment, preset)]
    finals = [result_of(run) for run in final_runs(experiment, tuned, seeds)]
    results = out / "results"
    made = provenance(name, preset_name, preset, seeds, device, corpus, tuned + finals)
    write_table(results, f"{name}-{preset_name}", [r["row"] for r in tuned + finals], made)
    parts = {"curve": "curves"} | ({"loads": "loads"} if experiment.loads else {}) | (
        {"followed": "followed"} if experiment.follow else {})
    for part, table in parts.items():
        along = [{"rung": r["row"]["rung"], "seed": r["row"]["seed"]} | point for r in finals for point in r[part]]
        write_table(results, f"{name}-{preset_name}-{table}", along, made)
    for table, (rungs, rows_of) in diagnoses(experiment, preset, device).items():
        found = [row for r in finals if r["row"]["rung"] in rungs for row in diagnose_once(r, table, rows_of, corpus)]
        if found:
            write_table(results, f"{name}-{preset_name}-{table}", found, made)
    if preset_name == "cpu" and experiment.ships:
        ship(experiment, finals, corpus, out / "checkpoints", made)
    return results / f"{name}-{preset_name}.csv"


def pick_device(device: str) -> str:
    """The device to use: "auto" takes a GPU where there is one."""
    require(device in ("auto", "cpu", "cuda"), f"unknown device {device!r}; choose one of auto, cpu, cuda")
    require(device != "cuda" or torch.cuda.is_available(), "no GPU is there for PyTorch to use; choose --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def device_name(device: str) -> str:
    """The device in words, for a record."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU {platform.machine()}, threads: {torch.get_num_threads()}"


def tuning_runs(experiment: Experiment, preset: Preset) -> Iterator[Run]:
    """The same grid for every rung: all learning rates, all gate scales where there is a gate, all strengths of a balancing."""
    for rung, config_of in experiment.rungs.items():
        if rung in experiment.controls:
            continue
        sizes = config_of(preset, 1.0)
        is_dense = all(isinstance(recipe, Dense) for recipe in getattr(sizes, "recipes", (sizes,)))
        for lr in preset.lrs:
            for scale in (None,) if is_dense else experiment.scales.get(rung, preset.scales):
                for strength in preset.strengths if experiment.balance.get(rung) else (None,):
                    for seed in range(preset.tuning_seeds):
                        yield Run("tune", rung, lr, scale, TUNING_SEED + seed, strength)


def final_runs(experiment: Experiment, tuned: list[dict], seeds: int) -> Iterator[Run]:
    """Fresh seeds of every rung, with what had the lowest validation loss, the mean over the tuning seeds."""
    for rung in experiment.rungs:
        lr, scale, strength = best_setting([each["row"] for each in tuned], experiment.controls.get(rung, rung))
        for seed in range(seeds):
            yield Run("final", rung, lr, scale, seed, strength)


def best_setting(tuned: list[dict], rung: str) -> tuple:
    """The learning rate, gate scale and strength of a rung whose validation loss is lowest, as the mean over tuning seeds."""
    losses: dict[tuple, list[float]] = {}
    for row in tuned:
        if row["rung"] == rung:
            losses.setdefault((row["lr"], row["scale"], row["strength"]), []).append(row["validation"])
    return min(losses, key=lambda setting: sum(losses[setting]) / len(losses[setting]))


def run_once(experiment: Experiment, preset: Preset, run: Run, corpus: Corpus | None, device: str, folder: pathlib.Path,
             progress: bool) -> dict:
    """One training, from where it stopped: a table row, a thinned loss curve, and the file of the model.

    A tuning run reads the validation split; only a final run reads the test split.
    """
    task, config = experiment.task(preset, run.rung, run.seed, corpus), experiment.rungs[run.rung](preset, run.scale or 1.0)
    final = run.stage == "final"
    steps = preset.steps if final else preset.tuning_steps or preset.steps
    training = TrainingConfig(steps, run.lr, seed=run.seed, bfloat16=preset.bfloat16)
    balance = experiment.balance_of(run.rung, run.strength)
    sizes = {"batch": preset.batch, "balance": balance, "eval_bytes": preset.eval_bytes}
    machine = {"torch": torch.__version__, "device": device_name(device)}
    setting = digest(*task.identity(config), asdict(training), sizes, machine)
    here = folder / f"{run.stage}-seed{run.seed}-{setting}"  # not by rung: two rungs may ask for one and the same training
    if (here / "result.json").exists():
        result = json.loads((here / "result.json").read_text(encoding="utf-8"))
        return result | {"row": result["row"] | {"rung": run.rung}, "folder": str(here)}
    made = machine | {"python": platform.python_version(), "commit": git_commit(), "date": datetime.date.today().isoformat()}
    print(f"{run.stage} {run.rung} lr {run.lr:g} gate scale {run.scale} balance {balance} seed {run.seed}", flush=True)
    model = task.build(config, run.seed).to(device)
    try:
        history = train(model, task.batches(preset.batch, preset.context, run.seed), training,
                        objective=task.objective(balance), checkpoint=here / "state.safetensors", progress=progress,
                        **(following(experiment, task, run) if final and experiment.follow else {}))
        judged = task.validate(model)
    except TrainingDiverged as diverged:
        if final:
            raise
        print(diverged)  # a learning rate that diverges has lost the tuning, not stopped it
        history, judged = History(), {"validation": float("inf")}
    cost = task.cost(config)
    row = asdict(run) | {"total": cost.total, "active": cost.active, "flops": cost.flops,
                         "tokens": steps * preset.batch * preset.context, "seconds": round(history.seconds, 1)} | judged
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
    result = {"row": row, "curve": curve, "loads": loads, "followed": followed, "chosen": chosen, "made": made}
    (here / "result.json.partial").write_text(json.dumps(result))
    (here / "result.json.partial").replace(here / "result.json")
    (here / "state.safetensors").unlink(missing_ok=True)  # the training is over: its result and its model stay
    return result | {"folder": str(here)}


def changes_of(model: LanguageModel) -> Iterator[tuple[str, float, LanguageModel]]:
    """What the paper does to its trained models (arXiv 2401.06066, section 4.5): name, how much of it, the changed model.

    "mask top" and its control "mask random": each token must do without that share of the routed experts (figure 4).
    "active": so many routed experts are active (figure 5); all that it was trained with is the model itself.
    "without shared": the shared experts are gone, as many more routed ones active.
    """
    for share in MASKED:
        yield "mask top", share, with_masked_experts(model, share)
        yield "mask random", share, with_masked_experts(model, share, seed=0)
    for top_k in range(1, moe_layers(model)[0].router.top_k + 1):
        yield "active", top_k, with_top_k(model, top_k)
    if moe_layers(model)[0].shared is not None:
        yield "without shared", 0, without_shared(model)


def probes_of(model: LanguageModel, corpus: Corpus, seed: int, preset: Preset, device: str) -> Iterator[dict]:
    """The test losses of a trained model with each of its changes, on a fifth of the text."""
    task = TextTask(corpus, preset.eval_bytes // 5)
    for change, amount, changed in changes_of(model):
        yield {"change": change, "amount": amount} | task.test(changed.to(device))


def census_of(model: LanguageModel, corpus: Corpus, seed: int) -> Iterator[dict]:
    """What one call of an expert tells about the token's domain, its byte, the byte predicted after it, and the token's other
    experts: for each layer, beside a random router, a hash router, the untrained model, and shuffled documents."""
    found = take_census(model, corpus, "test", seed=seed)
    found["untrained"] = take_census(LanguageModel(model.config, seed), corpus, "test")["trained"]
    found["shuffled documents"] = found["trained"].shuffled_documents(seed)
    for router, census in found.items():
        for layer in range(len(census.sizes)):
            tables = {what: census.calls(layer, what) for what in LABELS} | {"expert": census.pairs(layer)}
            yield {"router": router, "layer": layer} | {what: information(census.pooled(table)) for what, table in tables.items()}


def ablations_of(model: LanguageModel, corpus: Corpus, seed: int) -> Iterator[dict]:
    """The test loss of every domain without the experts that are most specialised in one, chosen on the validation split, and
    without random ones of the same load; with the share of each domain's calls that the missing experts took."""
    chosen, judged = take_census(model, corpus, "validation")["trained"], take_census(model, corpus, "test")["trained"]
    layers = range(len(judged.sizes))
    seen, calls = ([census.pooled(census.calls(layer)) for layer in layers] for census in (chosen, judged))

    def losses(kind: str, domain: str, share: float, draw: int, gone: list[list[int]]) -> dict:
        loss_F = document_losses(without_experts(model, gone), corpus, "test")
        row: dict = {"kind": kind, "domain": domain, "share": share, "draw": draw}
        for d, name in enumerate(judged.domains):
            lost = [len(judged.domains) * table[ids, d].sum().item() for table, ids in zip(calls, gone)]
            row |= {f"test_{name}": loss_F[judged.domain_F == d].mean().item(), f"calls_{name}": sum(lost) / len(lost)}
        return row

    yield losses("nothing", "", 0, 0, [[] for _ in layers])
    for share in MASKED:
        for d, domain in enumerate(judged.domains):
            gone = [specialists(table, d, round(share * len(table))) for table in seen]
            yield losses("specialists", domain, share, 0, gone)
            sets = [of_same_load(table, ids, CONTROLS, seed=d) for table, ids in zip(seen, gone)]
            for draw in range(CONTROLS):
                yield losses("same load", domain, share, draw, [one[draw] for one in sets])


RowsOf = Callable[[LanguageModel, Corpus, int], Iterator[dict]]


def diagnoses(experiment: Experiment, preset: Preset, device: str) -> dict[str, tuple[tuple[str, ...], RowsOf]]:
    """What is done to trained models: table -> the rungs that it is done to, and (model, corpus, seed) -> rows."""
    probes = functools.partial(probes_of, preset=preset, device=device)
    return {"probes": (experiment.probes, probes), "census": (experiment.census, census_of),
            "ablations": (experiment.ablated, ablations_of)}


def diagnose_once(result: dict, table: str, rows_of: RowsOf, corpus: Corpus) -> list[dict]:
    """The rows of a diagnosis of a trained model; kept beside the model."""
    row, sizes = result["row"], digest({"masked": MASKED, "controls": CONTROLS})
    kept = pathlib.Path(result["folder"]) / f"{table}-{sizes}.json"
    if not kept.exists():
        model, _ = load_model(kept.parent / "model.safetensors")
        found = list(rows_of(model, corpus, row["seed"]))
        kept.with_suffix(".partial").write_text(json.dumps(found))
        kept.with_suffix(".partial").replace(kept)
    return [{"rung": row["rung"], "seed": row["seed"]} | found for found in json.loads(kept.read_text())]


def following(experiment: Experiment, task: Task, run: Run) -> dict:
    """What `train` needs to write down along a training how good the model is and, for seed 0, what its routers choose."""
    def evaluate(model) -> dict:
        return {"followed": task.follow(model)} | ({"chosen": task.chosen(model)} if run.seed == 0 else {})

    return {"evaluate": evaluate, "every": experiment.follow}


def digest(*parts: dict) -> str:
    """A short name for all that decides a run's result: no run is taken for another, and a wider grid keeps the runs it has."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def provenance(name: str, preset_name: str, preset: Preset, seeds: int, device: str, corpus: Corpus | None,
               results: list[dict]) -> dict:
    """What made a table: command, versions, device, seconds, date, sizes, and the text it was trained on.

    Commit, versions, device and date are those of the trainings, not of the moment when the table is written; where runs
    of one table differ in them, all are named.
    """
    def of_runs(key: str) -> str:
        return ", ".join(sorted({result["made"][key] for result in results}))

    return {
        "command": f"python -m moe_lesson.experiments {name} --preset {preset_name} --seeds {seeds} --device {device}",
        "commit": of_runs("commit"),
        "versions": {"python": of_runs("python"), "torch": of_runs("torch")},
        "device": of_runs("device"),
        "seconds": round(sum(result["row"]["seconds"] for result in results)),
        "date": of_runs("date"),
        "preset": asdict(preset),
        "corpus": corpus.fingerprint() if corpus else "skills world",
    }


def git_commit() -> str:
    """The commit that the code stands at, "+" when it was changed since; "unknown" outside a repository."""
    try:
        return subprocess.run(["git", "describe", "--always", "--dirty=+", "--abbrev=10"], cwd=pathlib.Path(__file__).parent,
                              capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def ship(experiment: Experiment, finals: list[dict], corpus: Corpus, folder: pathlib.Path, made: dict) -> None:
    """Write the seed-0 model of each shipped rung, with its record and checksum. Seed 0, whatever its loss: not the best one.

    In float16, half the size; a test holds its loss to that of the model that was trained. Beside it, where a training was
    followed, what its routers chose along the way.
    """
    for result in finals:
        row = result["row"]
        if row["seed"] == 0 and row["rung"] in experiment.ships:
            name = experiment.ships[row["rung"]]
            model, _ = load_model(pathlib.Path(result["folder"]) / "model.safetensors")
            about = {key: made[key] for key in ("command", "commit", "versions", "device", "date", "corpus")} | {"run": row}
            save_model(folder / f"{name}.safetensors", model.half(), about)
            if any(result["chosen"].values()):
                untrained = TextTask(corpus, 0).chosen(LanguageModel(model.config, seed=0))
                along = {int(step): chosen for step, chosen in result["chosen"].items()}  # a file has no numbers for keys
                save_snapshots(folder / f"{name}-snapshots.safetensors", {0: untrained} | along, about)
    write_checksums(folder)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m moe_lesson.experiments", description=__doc__.split("\n\n")[0])
    parser.add_argument("name", nargs="?", help="the experiment, or all; without it, they are listed")
    parser.add_argument("--preset", default="cpu", help="cpu (minutes to hours on a laptop) or gpu (one large GPU)")
    parser.add_argument("--seeds", type=int, help="fresh seeds to train and report (default: the experiment's own number)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help=f"folder for tables and models (default {OUT})")
    parser.add_argument("--work", type=pathlib.Path, default=WORK, help=f"folder for runs in progress (default {WORK})")
    options = parser.parse_args(arguments)
    if options.name is None:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name}\n    {experiment.question}\n    rungs: {', '.join(experiment.rungs)}")
        return
    try:
        for name in EXPERIMENTS if options.name == "all" else [options.name]:
            table = run_experiment(name, options.preset, options.seeds, options.device, options.out, options.work)
            print(f"wrote {table}")
    except (ValueError, OSError, MemoryError, TrainingDiverged) as error:
        sys.exit(f"experiments: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where it stopped")


if __name__ == "__main__":
    main()
