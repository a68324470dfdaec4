"""The balancing race: the same model trained with several ways to balance its experts, side by side at every step.

The browser receives all loads and losses once and reads them itself; the functions here are its twins, for the words and
the picture in Python. Letters: M methods, S seeds, P recorded steps, L layers, N experts.
"""

from __future__ import annotations

import pathlib
import textwrap
from dataclasses import dataclass

import numpy as np
import torch
import traitlets
from numpy import ndarray
from torch import Tensor
from traitlets import Bool, Bytes, Dict, Float, Int, List, Unicode

from ..base.errors import require
from ..measure.evidence import result_table
from ..moe.routing import idle_experts, max_violation
from ..teach.plots import png
from .base import LessonWidget, module_source, one_of, stylesheet
from .common import check_origin, count, fixed

SMOOTHED = 2  # recorded steps on either side that a loss is averaged with
MOST_TOKENS = 2**24  # the browser gets float32, which counts no further one by one


@dataclass(frozen=True, eq=False)
class BalanceRuns:
    """What happened while a model was trained with several ways to balance, over the same seeds.

    Args:
        methods: M names, in the order to show.
        seeds: S whole numbers.
        steps: [P] whole numbers, increasing: the steps that were recorded.
        loads: [M, S, P, L, N] how many tokens of the step's batch chose each expert; the same sum for each layer.
        losses: [M, S, P] training loss of the step's batch, in nats per token, without the balance terms.
        origin: where they come from: "trained", "toy" or "synthetic".

    Raises:
        ValueError: if the shapes do not fit together, or a number is none that a training can give.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: Tensor
    loads: Tensor
    losses: Tensor
    origin: str

    def __post_init__(self):
        check_origin(self.origin)
        check_names("methods", self.methods, str, "a name")
        check_names("seeds", self.seeds, int, "a whole number")
        check_steps(self.steps)
        shape = (len(self.methods), len(self.seeds), len(self.steps))
        require(tuple(self.losses.shape) == shape,
                f"losses have shape {tuple(self.losses.shape)}; expected [M methods, S seeds, P steps] = {list(shape)}")
        require(self.loads.ndim == 5 and tuple(self.loads.shape[:3]) == shape and self.loads[0, 0, 0].numel() > 0,
                f"loads have shape {tuple(self.loads.shape)}; expected [M methods, S seeds, P steps, L layers, N experts] with "
                f"{list(shape)} in front, and at least one layer and one expert")
        require(bool(self.losses.isfinite().all()), "losses hold NaN or infinity; leave a training that diverged out")
        check_loads(self.loads)

    @classmethod
    def of_tables(cls, name: str = "balance-cpu", folder: pathlib.Path | None = None) -> BalanceRuns:
        """The runs that `python -m moe_lesson.experiments balance` wrote.

        Args:
            name: of the experiment with its preset; NAME-curves and NAME-loads are read.
            folder: the results folder; the course's own unless given.

        Raises:
            ValueError: if a table is missing, or lacks a row that the others have.
        """
        curves, loads = (result_table(f"{name}-{part}", folder) for part in ("curves", "loads"))
        methods = tuple(dict.fromkeys(curves.column("rung")))
        seeds, steps = (sorted({int(value) for value in curves.column(key)}) for key in ("seed", "step"))
        layers = sorted(set(loads.column("layer")))
        experts = [key for key in loads.rows[0] if key.startswith("expert_")]
        loss_of = {tuple(row[key] for key in ("rung", "seed", "step")): row["train_loss"] for row in curves.rows}
        load_of = {tuple(row[key] for key in ("rung", "seed", "step", "layer")): [row[key] for key in experts]
                   for row in loads.rows}
        try:
            losses = [[[loss_of[method, seed, step] for step in steps] for seed in seeds] for method in methods]
            all_loads = [[[[load_of[method, seed, step, layer] for layer in layers] for step in steps] for seed in seeds]
                         for method in methods]
        except KeyError as missing:
            raise ValueError(f"the tables of {name} have no row for {', '.join(map(str, missing.args[0]))} (method, seed, "
                             "step, layer), though others have; let the experiment run to its end") from None
        return cls(methods, tuple(seeds), torch.tensor(steps), torch.tensor(all_loads), torch.tensor(losses), "trained")

    @property
    def num_layers(self) -> int:
        """L."""
        return self.loads.shape[3]

    @property
    def num_experts(self) -> int:
        """N."""
        return self.loads.shape[4]

    @property
    def mean_load(self) -> float:
        """Tokens per expert if all experts of a layer had the same load."""
        return float(self.loads[0, 0, 0, 0].double().mean())


# --- validation -------------------------------------------------------------------------------------------------------


def check_names(what: str, values: tuple, kind: type, words: str) -> None:
    require(len(values) > 0, f"{what} is empty; give at least one")
    require(all(isinstance(value, kind) for value in values) and len(set(values)) == len(values),
            f"{what} are {list(values)}; expected {words} for each, and none twice")


def check_steps(steps: Tensor) -> None:
    whole = steps.ndim == 1 and len(steps) > 0 and not steps.is_floating_point()
    require(whole and bool((steps.diff() > 0).all()) and int(steps[0]) >= 0,
            f"steps are {steps.tolist()}; expected whole numbers from 0 on, each larger than the one before")


def check_loads(loads: Tensor) -> None:
    require(bool(((loads >= 0) & (loads == loads.double().floor()) & (loads <= MOST_TOKENS)).all()),
            f"loads hold something that is not a count of tokens; expected whole numbers, 0 … {MOST_TOKENS}")
    totals = loads.double().sum(dim=-1)
    require(bool((totals == totals.max()).all()) and bool(totals.max() > 0),
            f"the loads of a layer sum to {totals.min():g} here and to {totals.max():g} there; expected the same K·T for all, "
            "at least 1: every method reads batches of one size")


# --- the widget -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """Where the methods stand at one step of one seed, in one layer, and how they came there.

    Args:
        loads_MN: the load of each expert at the step.
        violations_MP: MaxVio at every recorded step (arXiv 2408.15664).
        losses_MP: the training loss at every recorded step, each averaged with its neighbours.
    """

    loads_MN: Tensor
    violations_MP: list[list[float]]
    losses_MP: list[list[float]]


class BalancingRace(LessonWidget):
    """Scrub through trainings that differ only in how they balance their experts, all side by side.

    Args:
        runs: what happened; `BalancingRace.of_tables` reads what the course ships.
        title: the title.

    Traits to read, set and observe: `step` (one that was recorded), `layer` (0 … L-1), `seed` (one of `runs.seeds`), `method`
    (the emphasised one of `runs.methods`), `by_load` (sort the experts of each method, largest load first). To read: `summary`
    (what the widget says), `standing` (the `Standing` shown).
    """

    _esm = module_source("balancing_race")
    _css = stylesheet("balancing_race")

    title = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    methods = List(Unicode()).tag(sync=True)
    seeds = List(Int()).tag(sync=True)
    steps = List(Int()).tag(sync=True)
    num_layers = Int().tag(sync=True)
    num_experts = Int().tag(sync=True)
    loads = Bytes().tag(sync=True)  # float32 [M, S, P, L, N]
    losses = Bytes().tag(sync=True)  # float32 [M, S, P]
    load_ticks = List(Float()).tag(sync=True)  # the first and the last are the ends of the axis, for all settings
    violation_ticks = List(Float()).tag(sync=True)
    loss_ticks = List(Float()).tag(sync=True)
    start = Dict().tag(sync=True)  # what Reset goes back to

    step = Int().tag(sync=True)
    layer = Int().tag(sync=True)
    seed = Int().tag(sync=True)
    method = Unicode().tag(sync=True)
    by_load = Bool(False).tag(sync=True)

    def __init__(self, runs: BalanceRuns, *, title: str = "balancing race"):
        require(isinstance(runs, BalanceRuns), f"runs is {type(runs).__name__}; expected BalanceRuns, or use "
                                               "BalancingRace.of_tables()")
        self.runs = runs
        start = {"step": int(runs.steps[-1]), "layer": runs.num_layers - 1, "seed": runs.seeds[0], "method": runs.methods[0],
                 "by_load": False}
        super().__init__(title=title, origin=runs.origin, methods=list(runs.methods), seeds=list(runs.seeds),
                         steps=runs.steps.tolist(), num_layers=runs.num_layers, num_experts=runs.num_experts,
                         loads=packed(runs.loads), losses=packed(runs.losses), **axes_of(runs), start=start, **start)

    @classmethod
    def of_tables(cls, name: str = "balance-cpu", folder: pathlib.Path | None = None) -> BalancingRace:
        """The race of the runs in the tables of an experiment; see `BalanceRuns.of_tables`."""
        return cls(BalanceRuns.of_tables(name, folder))

    @property
    def position(self) -> int:
        """Which of the recorded steps is shown, 0 … P-1."""
        return self.steps.index(self.step)

    @property
    def standing(self) -> Standing:
        """Where the methods stand at this step of this seed, in this layer."""
        seed = self.runs.seeds.index(self.seed)
        loads_MPN = self.runs.loads[:, seed, :, self.layer]
        return Standing(loads_MPN[:, self.position], [list(map(max_violation, loads_PN)) for loads_PN in loads_MPN],
                        [smoothed(losses_P) for losses_P in self.runs.losses[:, seed].float().tolist()])

    @property
    def summary(self) -> str:
        """What the widget says, in words."""
        return summary(self)

    def describe(self) -> str:
        return (f"{self.title!r}, {self.origin}: {count(len(self.methods), 'method')}, {count(len(self.seeds), 'seed')}, "
                f"{count(len(self.steps), 'step')}, {count(self.num_layers, 'layer')} of {count(self.num_experts, 'expert')}")

    def picture(self) -> bytes:
        return png(draw_race(self))

    @traitlets.validate("step", "layer", "seed", "method")
    def _one_of_them(self, proposal):
        return one_of(proposal, {"step": self.steps, "layer": range(self.num_layers), "seed": self.seeds, "method": self.methods})


def packed(numbers: Tensor) -> bytes:
    """The numbers as float32, row by row."""
    return numbers.detach().float().cpu().numpy().tobytes()


def axes_of(runs: BalanceRuns) -> dict[str, list[float]]:
    """Round numbers for each axis that hold all methods, seeds, steps and layers, so that no setting moves an axis."""
    from matplotlib.ticker import MaxNLocator

    def ticks(low: float, high: float) -> list[float]:
        return [float(f"{tick:.6g}") for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]

    highest, losses = float(runs.loads.max()), runs.losses
    return {"load_ticks": ticks(0.0, highest), "violation_ticks": ticks(0.0, max(highest / runs.mean_load - 1, 1.0)),
            "loss_ticks": ticks(losses.min().item() - 0.01, losses.max().item() + 0.01)}  # room, should all be equal


def smoothed(values: list[float]) -> list[float]:
    """Each value averaged with its neighbours, `SMOOTHED` on either side as far as there are any."""
    windows = [values[max(0, p - SMOOTHED):p + SMOOTHED + 1] for p in range(len(values))]
    return [sum(window) / len(window) for window in windows]


# --- the summary: the twin of `describe` in balancing_race.js ---------------------------------------------------------


def summary(race: BalancingRace) -> str:
    """What the race shows, in words."""
    standing, mine = race.standing, race.methods.index(race.method)
    parts = [f"Step {race.step}, layer {race.layer + 1} of {race.num_layers}, seed {race.seed}, {race.origin}.",
             method_words(race, standing, mine)]
    if len(race.methods) > 1:
        parts.append(rival_words(race, standing, mine))
    return " ".join(parts)


def method_words(race: BalancingRace, standing: Standing, mine: int) -> str:
    violations_P, load_N = standing.violations_MP[mine], standing.loads_MN[mine]
    before = f" ({fixed(violations_P[0], 2)} at step {race.steps[0]})" if race.position else ""
    return (f"{race.method}: MaxVio {fixed(violations_P[race.position], 2)}{before}, {idle_experts(load_N)} of "
            f"{count(race.num_experts, 'expert')} idle, the busiest chosen by {count(int(load_N.max()), 'token')} where the mean "
            f"is {fixed(race.runs.mean_load, 1)}, training loss {fixed(standing.losses_MP[mine][race.position], 2)}.")


def rival_words(race: BalancingRace, standing: Standing, mine: int) -> str:
    """The most even method beside the emphasised one; where that is the most even itself, the least even."""
    now_M = [violations_P[race.position] for violations_P in standing.violations_MP]
    if max(now_M) == min(now_M):
        return "All methods are equally even at this step."
    leads = now_M[mine] == min(now_M)
    other = now_M.index(max(now_M) if leads else min(now_M))
    name, violation = race.methods[other], fixed(now_M[other], 2)
    what = "No method is more even at this step; the least even is" if leads else "The most even method at this step is"
    gap = standing.losses_MP[other][race.position] - standing.losses_MP[mine][race.position]
    return f"{what} {name} with MaxVio {violation}; its training loss is {gap_words(gap)}."


def gap_words(gap: float) -> str:
    if fixed(abs(gap), 2) == "0.00":
        return "the same to 0.01"
    return f"{fixed(abs(gap), 2)} {'higher' if gap > 0 else 'lower'}"


# --- the picture ------------------------------------------------------------------------------------------------------

BAR, MEAN, INK, OTHER = "#5b82b8", "#d9660a", "#16191d", "#6f757c"
HEADINGS = "MaxVio along training", f"training loss, nats (mean of {2 * SMOOTHED + 1} recorded steps)"


def draw_race(race: BalancingRace):
    """The loads of all methods side by side over their MaxVio and loss along training, on a bare figure."""
    from matplotlib.figure import Figure

    standing = race.standing
    rows = -(-len(race.methods) // 7)
    figure = Figure(figsize=(10, 3.2 + 2.3 * rows), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2.3 * rows, 2.7))
    panels = above.subplots(rows, -(-len(race.methods) // rows), sharey=True, squeeze=False).flatten()
    for m, (ax, load_N) in enumerate(zip(panels, standing.loads_MN.double().numpy())):
        draw_panel(ax, race, load_N, m, standing)
    for ax in panels[len(race.methods):]:
        ax.set_axis_off()
    panels[0].set_ylabel("load (tokens)")
    curves = (standing.violations_MP, race.violation_ticks), (standing.losses_MP, race.loss_ticks)
    for ax, heading, (values_MP, ticks) in zip(below.subplots(1, 2), HEADINGS, curves):
        draw_curves(ax, race, np.array(values_MP), ticks)
        ax.set_title(heading, loc="left", fontsize=11)
    order = "sorted by load" if race.by_load else "by number"
    above.supxlabel(f"experts of layer {race.layer + 1}, {order}; orange line: mean load {race.runs.mean_load:.1f}; ×: idle; "
                    "the numbers belong to one method's layer alone", fontsize=10)
    figure.suptitle(f"{race.title} · step {race.step} · layer {race.layer + 1} of {race.num_layers} · seed {race.seed} · "
                    f"{race.origin}", parse_math=False)
    return figure


def draw_panel(ax, race: BalancingRace, load_N: ndarray, m: int, standing: Standing) -> None:
    """One method's load bars; the emphasised one in a frame, idle experts with a cross."""
    columns_N = np.argsort(-load_N, kind="stable") if race.by_load else np.arange(race.num_experts)
    ax.bar(range(race.num_experts), load_N[columns_N], width=0.8, color=BAR)
    ax.axhline(race.runs.mean_load, color=MEAN, linewidth=1.5)
    idle = (load_N[columns_N] == 0).nonzero()[0]
    ax.scatter(idle, np.full(len(idle), race.load_ticks[-1] / 40), marker="x", color=INK, s=22, linewidth=1.2, zorder=3)
    ax.set(ylim=(race.load_ticks[0], race.load_ticks[-1]), yticks=race.load_ticks, xlim=(-0.8, race.num_experts - 0.2))
    shown = range(0, race.num_experts, max(1, -(-race.num_experts // 4)))
    ax.set_xticks(list(shown), [str(columns_N[column]) for column in shown])
    chosen = race.methods[m] == race.method
    name = "\n".join(textwrap.wrap(race.methods[m], 12))
    violation, loss = (fixed(values_MP[m][race.position], 2) for values_MP in (standing.violations_MP, standing.losses_MP))
    ax.set_title(f"{name}\nMaxVio {violation}\nloss {loss}", loc="left", fontsize=10,
                 fontweight="bold" if chosen else "normal", parse_math=False)
    ax.spines[["top", "right"]].set_visible(chosen)
    for spine in ax.spines.values():
        spine.set_linewidth(2.5 if chosen else 0.8)


def draw_curves(ax, race: BalancingRace, values_MP: ndarray, ticks: list[float]) -> None:
    """All methods in thin grey, the emphasised one thick with its name; each recorded step takes the same room."""
    mine = race.methods.index(race.method)
    ax.plot(values_MP[mine], color=BAR, linewidth=4)
    for values_P in np.delete(values_MP, mine, axis=0):  # on top, or the thick one would hide its near rivals
        ax.plot(values_P, color=OTHER, linewidth=1)
    ax.axvline(race.position, color=INK, linewidth=1)
    ax.plot(race.position, values_MP[mine, race.position], "o", color=INK, markersize=7)
    ax.annotate(race.method, (len(race.steps) - 1, values_MP[mine, -1]), xytext=(8, 0), textcoords="offset points",
                va="center", fontsize=10, fontweight="bold", annotation_clip=False, parse_math=False)
    ax.set(ylim=(ticks[0], ticks[-1]), yticks=ticks, xlabel="recorded step")
    shown = range(0, len(race.steps), max(1, len(race.steps) // 9))
    ax.set_xticks(list(shown), [str(race.steps[position]) for position in shown])
    ax.spines[["top", "right"]].set_visible(False)
