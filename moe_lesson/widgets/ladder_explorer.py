"""The ladder of language models along training: per step, per FLOP and per second, one domain at a time.

Every loss was measured beforehand; the browser reads them, averages seeds and computes the intervals itself, and a parity
test keeps its words equal to those made here. Letters: M rungs, S seeds, P followed steps.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import traitlets
from traitlets import Dict, Float, Int, List, Unicode

from ..base.errors import require
from ..measure.evidence import Interval, Table, interval, paired_difference, result_table, student_t
from ..teach.plots import png
from .base import LessonWidget, dress_table, module_source, one_of, stylesheet
from .common import DIGITS, check_origin, count, rounded
from .redundancy_lens import even_ticks

# The rungs of the shipped tables that are shown; the others answer questions of other lessons.
RUNGS = ("dense", "switch", "gshard", "fine", "deepseekmoe", "dense of total size", "gshard ×1.5", "half active")
TABLES = ("ladder-cpu", "ladder-cpu-followed", "ladder-speed-cpu")

MEAN = "mean of the domains"
AXES = ("steps", "FLOPs", "seconds")
BACKWARD = 3    # a training step costs three forward passes: the backward one costs two (arXiv 2001.08361, section 2.1)
ALIKE = 0.03    # costs that differ by less count as equal: a followed step is read for a tenth of the training
CUT = 1 / 5     # of the training is left out when the limits of the loss are set, so that the ends can be told apart
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class RungRuns:
    """The trainings of one rung, one for each seed.

    Args:
        forward_flops: FLOPs of one token, forward.
        tokens_per_step: tokens that a training step reads.
        ms_per_step: milliseconds that a training step takes.
        seeds: S whole numbers.
        steps: P whole numbers, increasing: after how many steps it was followed; the last is the end of the training.
        validation: domain -> [S][P] the losses along training.
        test: domain -> [S] the losses at its end.

    Raises:
        ValueError: if the shapes do not fit together, or a number is none that a training can give.
    """

    forward_flops: float
    tokens_per_step: float
    ms_per_step: float
    seeds: Sequence[int]
    steps: Sequence[int]
    validation: Mapping[str, Sequence[Sequence[float]]]
    test: Mapping[str, Sequence[float]]

    def __post_init__(self):
        for name in ("forward_flops", "tokens_per_step", "ms_per_step"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, f"{name} is {value}; expected a positive number")
        require(len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds),
                f"seeds are {list(self.seeds)}; expected at least one, and none twice")
        require(len(self.steps) > 0 and list(self.steps) == sorted(set(self.steps)) and self.steps[0] > 0,
                f"steps are {list(self.steps)}; expected whole numbers from 1 on, each larger than the one before")
        require(len(self.validation) > 0 and list(self.validation) == list(self.test),
                f"validation has the domains {', '.join(self.validation) or 'none'}, test has {', '.join(self.test) or 'none'}; "
                "expected the same, at least one")
        require(MEAN not in self.test, f"{MEAN!r} is not a domain; give the domains, the explorer takes their mean")
        for domain in self.test:
            self.check_losses(domain)

    def check_losses(self, domain: str) -> None:
        losses, test, expected = self.validation[domain], self.test[domain], [len(self.seeds), len(self.steps)]
        shape = [len(losses), *sorted({len(losses_P) for losses_P in losses})]
        require(shape == expected,
                f"the validation losses of {domain} have shape {shape}; expected [S seeds, P steps] = {expected}")
        require(len(test) == expected[0],
                f"the test losses of {domain} are {len(test)}; expected {expected[0]}, one for each seed")
        values = [*test, *(loss for losses_P in losses for loss in losses_P)]
        require(all(map(math.isfinite, values)), f"a loss of {domain} is NaN or infinite; leave a training that diverged out")

    @property
    def cost_per_step(self) -> dict[str, float]:
        """What one training step costs on each axis."""
        return {"steps": 1.0, "FLOPs": BACKWARD * self.forward_flops * self.tokens_per_step,
                "seconds": self.ms_per_step / 1000}


# --- the tables -------------------------------------------------------------------------------------------------------


def runs_of_tables(folder: pathlib.Path | None = None) -> dict[str, RungRuns]:
    """The trainings of `RUNGS` in the three tables that the course ships.

    Args:
        folder: the results folder; the course's own unless given.

    Raises:
        ValueError: if a table is missing, or lacks a row that the others have.
    """
    try:
        finals, followed, speeds = (result_table(name, folder) for name in TABLES)
    except ValueError as missing:
        raise ValueError(f"the ladder explorer reads the tables {', '.join(TABLES[:2])} and {TABLES[2]}: {missing}") from None
    return {rung: runs_of_rung(rung, finals, followed, speeds) for rung in RUNGS}


def runs_of_rung(rung: str, finals: Table, followed: Table, speeds: Table) -> RungRuns:
    """What the tables say of one rung."""
    tested = {row["seed"]: row for row in finals.rows if row["stage"] == "final" and row["rung"] == rung}
    points = {(row["seed"], row["step"]): row for row in followed.rows if row["rung"] == rung}
    speed = [row["ms_per_step"] for row in speeds.rows if row["rung"] == rung]
    for table, rows in zip(TABLES, (tested, points, speed)):
        require(len(rows) > 0, f"{table} has no row for {rung}; let the experiment run to its end")
    require(len(speed) == 1, f"{TABLES[2]} has {len(speed)} rows for {rung}; expected one")
    domains = [column.removeprefix("validation_") for column in followed.rows[0] if column.startswith("validation_")]
    seeds, steps = sorted(tested), sorted({step for _, step in points})
    gone = [(seed, step) for seed in seeds for step in steps if (seed, step) not in points]
    require(not gone, f"{TABLES[1]} has no row for {rung}, seed {gone[0][0]:g} and step {gone[0][1]:g}, though others have; "
                      "let the experiment run to its end" if gone else "")
    one = tested[seeds[0]]
    return RungRuns(
        one["flops"], one["tokens"] / steps[-1], speed[0], [int(seed) for seed in seeds], [int(step) for step in steps],
        {domain: [[points[seed, step][f"validation_{domain}"] for step in steps] for seed in seeds] for domain in domains},
        {domain: [tested[seed][f"test_{domain}"] for seed in seeds] for domain in domains})


# --- the widget -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AtEqualCost:
    """Two rungs when the cheaper of them has ended.

    Args:
        cost: where that is, in the unit of the axis.
        alike: whether the other costs the same, within `ALIKE`.
        first: whether the first of the two is the one that has ended; either is, where they are alike.
        steps: the followed step at which each is read; None: none was followed by then.
        losses: the validation losses there.
        difference: the first's less the second's, paired by seed; None where one of them was not followed by then.
    """

    cost: float
    alike: bool
    first: bool
    steps: tuple[int | None, int | None]
    losses: tuple[Interval | None, Interval | None]
    difference: Interval | None


class LadderExplorer(LessonWidget):
    """Compare two rungs of a ladder of language models along training, all others in grey behind them.

    Args:
        rungs: name -> its `RungRuns`, two or more, over the same seeds, followed steps and domains;
            `LadderExplorer.of_tables` reads what the course ships.
        origin: where they come from: "trained", "toy" or "synthetic".
        title: the title.
        rung: the highlighted one at first; the first one unless given.
        beside: the one it is compared with at first; the first other one unless given.
        unit: of the losses.

    Traits to read, set and observe: `rung` and `beside` (names of rungs; setting one to the other swaps them), `seed` (one of
    `seeds`, or None: all of them and their mean), `axis` ("steps", "FLOPs", "seconds"), `domain` (one of `domains`, the first of
    which is their mean). To read: `summary` (what the widget says), `test` (the intervals of the final test loss of both, and
    of their difference), `at_equal_cost` (axis -> `AtEqualCost`).

    FLOPs are those of training, 3 × forward FLOPs × tokens; seconds are steps × the time of one step, without evaluation.

    Raises:
        ValueError: if there are fewer than two rungs, or they differ in seeds, steps or domains.
    """

    _esm = module_source("ladder_explorer")
    _css = stylesheet("ladder_explorer")

    title = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    unit = Unicode().tag(sync=True)
    rungs = List(Dict()).tag(sync=True)  # name, per_step: axis -> cost, validation: domain -> [S][P], test: domain -> [S]
    seeds = List(Int()).tag(sync=True)
    steps = List(Int()).tag(sync=True)
    domains = List(Unicode()).tag(sync=True)
    cost_axes = Dict().tag(sync=True)  # axis -> title, unit, digits, high, ticks [[place, label]], for all settings
    loss_axes = Dict().tag(sync=True)  # domain -> low, high, ticks, for all settings
    quantile = Float().tag(sync=True)  # of Student's t, for S seeds
    start = Dict().tag(sync=True)  # what Reset goes back to

    rung = Unicode().tag(sync=True)
    beside = Unicode().tag(sync=True)
    seed = Int(None, allow_none=True).tag(sync=True)
    axis = Unicode().tag(sync=True)
    domain = Unicode().tag(sync=True)

    def __init__(self, rungs: Mapping[str, RungRuns], *, origin: str, title: str = "ladder explorer", rung: str | None = None,
                 beside: str | None = None, unit: str = "nats per byte"):
        check_origin(origin)
        check_rungs(rungs)
        rung = next(iter(rungs)) if rung is None else rung
        beside = next(name for name in rungs if name != rung) if beside is None else beside
        require(rung != beside, f"rung and beside are both {rung!r}; choose two")
        first = next(iter(rungs.values()))
        start = {"rung": rung, "beside": beside, "seed": None, "axis": AXES[0], "domain": MEAN}
        cost_axes = {axis: cost_axis(axis, [runs.cost_per_step[axis] * runs.steps[-1] for runs in rungs.values()])
                     for axis in AXES}
        sent = [rung_sent(name, runs, cost_axes) for name, runs in rungs.items()]
        domains = [MEAN, *first.test]
        super().__init__(title=title, origin=origin, unit=unit, rungs=sent, seeds=list(first.seeds), steps=list(first.steps),
                         domains=domains, cost_axes=cost_axes, quantile=quantile_of(len(first.seeds)),
                         loss_axes={domain: loss_axis(sent, domain, first.steps) for domain in domains}, start=start, **start)

    @classmethod
    def of_tables(cls, folder: pathlib.Path | None = None) -> LadderExplorer:
        """The ladder of the course's tables, DeepSeekMoE beside GShard; see `runs_of_tables`."""
        return cls(runs_of_tables(folder), origin="trained", rung="deepseekmoe", beside="gshard")

    @property
    def pair(self) -> tuple[dict, dict]:
        """The highlighted rung and the one beside it."""
        named = {rung["name"]: rung for rung in self.rungs}
        return named[self.rung], named[self.beside]

    @property
    def places(self) -> list[int]:
        """Which of the seeds are shown, 0 … S-1."""
        return list(range(len(self.seeds))) if self.seed is None else [self.seeds.index(self.seed)]

    @property
    def test(self) -> tuple[Interval, Interval, Interval]:
        """The final test loss of the two rungs, and the first's less the second's, paired by seed."""
        mine, other = ([rung["test"][self.domain][s] for s in self.places] for rung in self.pair)
        return over(mine), over(other), difference(mine, other)

    @property
    def at_equal_cost(self) -> dict[str, AtEqualCost]:
        """The validation losses of the two rungs when the cheaper of them has ended, by each measure of cost."""
        return {axis: at_equal_cost(self, axis) for axis in AXES}

    @property
    def summary(self) -> str:
        """What the widget says, in words."""
        return summary(self)

    def describe(self) -> str:
        return (f"{self.title!r}, {self.origin}: {count(len(self.rungs), 'rung')}, {count(len(self.seeds), 'seed')}, "
                f"{count(len(self.steps), 'followed step')}, {count(len(self.domains) - 1, 'domain')}")

    def picture(self) -> bytes:
        return png(draw_ladder(self))

    @traitlets.validate("rung", "beside", "seed", "axis", "domain")
    def _one_of_them(self, proposal):
        names = [rung["name"] for rung in self.rungs]
        return one_of(proposal, {"rung": names, "beside": names, "seed": [None, *self.seeds], "axis": AXES,
                                 "domain": self.domains})

    @traitlets.observe("rung", "beside")
    def _never_beside_itself(self, change):
        other = "beside" if change["name"] == "rung" else "rung"
        if change["new"] == getattr(self, other) and change["old"]:
            setattr(self, other, change["old"])


# --- validation -------------------------------------------------------------------------------------------------------


def check_rungs(rungs: Mapping[str, RungRuns]) -> None:
    require(isinstance(rungs, Mapping) and len(rungs) >= 2 and all(isinstance(runs, RungRuns) for runs in rungs.values()),
            f"rungs is {type(rungs).__name__}; expected a mapping from two names or more to RungRuns, or use "
            "LadderExplorer.of_tables()")
    (name, first), *others = rungs.items()
    for other, runs in others:
        for what, mine, its in (("seeds", first.seeds, runs.seeds), ("steps", first.steps, runs.steps),
                                ("domains", first.test, runs.test)):
            require(list(mine) == list(its), f"{other} has {what} {list(its)}, {name} has {list(mine)}; expected the same")


def rung_sent(name: str, runs: RungRuns, cost_axes: dict) -> dict:
    """A rung as the browser needs it, the mean of its domains before them, its costs in the units of the axes."""
    losses = list(runs.validation.values())
    validation = {MEAN: [[sum(values) / len(values) for values in zip(*of_seed)] for of_seed in zip(*losses)], **runs.validation}
    test = {MEAN: [sum(values) / len(values) for values in zip(*runs.test.values())], **runs.test}
    return {"name": name, "per_step": {axis: runs.cost_per_step[axis] / cost_axes[axis]["scale"] for axis in AXES},
            "validation": {domain: [list(map(float, of_seed)) for of_seed in losses] for domain, losses in validation.items()},
            "test": {domain: list(map(float, losses)) for domain, losses in test.items()}}


def cost_axis(axis: str, ends: list[float]) -> dict:
    """Unit, limits and ticks of an axis that holds all rungs; the scale is a power of ten, for FLOPs alone."""
    power = 3 * math.floor(math.log10(max(ends)) / 3) if axis == "FLOPs" else 0
    ends = [end / 10.0 ** power for end in ends]
    scale = f"10{str(power).translate(SUPERSCRIPT)}" if power else ""
    unit = f"·\u00a0{scale} FLOPs" if scale else axis
    title = {"steps": "training steps", "seconds": "seconds of training: steps × median time of one",
             "FLOPs": f"training FLOPs{f' ({scale})' if scale else ''}: {BACKWARD} × forward FLOPs × tokens"}[axis]
    digits = 0 if axis == "steps" else max(0, 2 - math.floor(math.log10(min(ends))))
    return {"title": title, "unit": unit, "digits": digits, "scale": 10.0 ** power, "high": max(ends),
            "ticks": [[tick, f"{tick:g}"] for tick in even_ticks(0.0, max(ends))]}


def loss_axis(rungs: list[dict], domain: str, steps: Sequence[int]) -> dict:
    """Limits and ticks that hold all rungs and seeds of a domain, but for the first `CUT` of the training."""
    late = [p for p, step in enumerate(steps) if step >= CUT * steps[-1]]
    losses = [losses_P[p] for rung in rungs for losses_P in rung["validation"][domain] for p in late]
    room = 0.04 * (max(losses) - min(losses)) or 0.1
    low, high = min(losses) - room, max(losses) + room
    return {"low": low, "high": high, "ticks": [[tick, f"{tick:g}"] for tick in even_ticks(low, high)]}


def quantile_of(n: int) -> float:
    """What `moe_lesson.measure.evidence.interval` multiplies the standard error of n seeds with; 0 for one, which has none."""
    return 0.0 if n == 1 else student_t(n)


# --- numbers: the twins of those in ladder_explorer.js ----------------------------------------------------------------


def over(values: list[float]) -> Interval:
    """The mean over seeds; of one seed nothing is known about the others."""
    return interval(values) if len(values) > 1 else Interval(values[0], -math.inf, math.inf, 1)


def difference(mine: list[float], other: list[float]) -> Interval:
    """Paired seed by seed."""
    return paired_difference(mine, other) if len(mine) > 1 else over([mine[0] - other[0]])


def followed_by(rung: dict, axis: str, steps: list[int], cost: float) -> int | None:
    """The last followed step, 0 … P-1, that costs no more, or as good as no more; None if there is none."""
    within = [p for p, step in enumerate(steps) if step * rung["per_step"][axis] <= cost * (1 + ALIKE)]
    return within[-1] if within else None


def at_equal_cost(explorer: LadderExplorer, axis: str) -> AtEqualCost:
    """The two rungs when the cheaper has ended."""
    pair, steps = explorer.pair, explorer.steps
    ends = [steps[-1] * rung["per_step"][axis] for rung in pair]
    places = [followed_by(rung, axis, steps, min(ends)) for rung in pair]
    read = [None if p is None else [rung["validation"][explorer.domain][s][p] for s in explorer.places]
            for rung, p in zip(pair, places)]
    return AtEqualCost(
        cost=min(ends), alike=max(ends) <= min(ends) * (1 + ALIKE), first=ends[0] <= ends[1],
        steps=tuple(None if p is None else steps[p] for p in places),
        losses=tuple(None if losses is None else over(losses) for losses in read),
        difference=None if None in places else difference(*read))


def curve_of(explorer: LadderExplorer, rung: dict) -> list[float]:
    """[P] the validation loss, the mean of the seeds that are shown."""
    shown = [rung["validation"][explorer.domain][s] for s in explorer.places]
    return [math.fsum(losses) / len(losses) for losses in zip(*shown)]


# --- words: the twins of those in ladder_explorer.js ------------------------------------------------------------------


def signed(value: float) -> str:
    text = rounded(value)
    return text if text.startswith("-") or not float(text) else f"+{text}"


def bounds(found: Interval, words=rounded) -> str:
    """The interval behind a mean, in brackets that no line break parts; nothing behind that of one seed."""
    return f" [{words(found.low)},\u00a0{words(found.high)}]" if found.n > 1 else ""


def summary(explorer: LadderExplorer) -> str:
    """What the explorer shows, in words."""
    seeds = f"mean of {count(len(explorer.seeds), 'seed')}" if explorer.seed is None else f"seed {explorer.seed} alone"
    return (f"{explorer.rung} beside {explorer.beside}: {explorer.domain}, {seeds}, {explorer.origin}. {test_words(explorer)} "
            f"{equal_words(explorer)}")


def test_words(explorer: LadderExplorer) -> str:
    mine, other, gap = explorer.test
    means = f"{explorer.rung} {rounded(mine.mean)}{bounds(mine)}, {explorer.beside} {rounded(other.mean)}{bounds(other)}"
    return f"Final test loss, {explorer.unit}: {means}; {verdict(explorer.rung, gap)}"


def equal_words(explorer: LadderExplorer) -> str:
    """The two at the same cost, by the measure of the axis that is shown."""
    axis, found = explorer.axis, explorer.at_equal_cost[explorer.axis]
    cost = cost_words(explorer, axis, found.cost)
    if found.alike:
        near = "both end at" if axis == "steps" else f"both end, within {ALIKE:.0%}, at"
        mine, other = (rounded(loss.mean) for loss in found.losses)
        return (f"Validation at the same {axis}: {near} {cost}, {explorer.rung} with {mine}, {explorer.beside} with {other}; "
                f"{verdict(explorer.rung, found.difference)}")
    names = explorer.rung, explorer.beside
    ended, running = (0, 1) if found.first else (1, 0)
    opening = (f"Validation at the same {axis}: {names[ended]} ends at {cost} with {rounded(found.losses[ended].mean)}; "
               f"{names[running]}")
    if found.steps[running] is None:
        return f"{opening} was not followed that early: nothing to compare."
    return (f"{opening} then had {rounded(found.losses[running].mean)}, read at step {found.steps[running]}, the last one "
            f"followed by then; {verdict(explorer.rung, found.difference)}")


def verdict(name: str, gap: Interval) -> str:
    """Which of the two is lower, and whether the seeds can tell."""
    size = rounded(abs(gap.mean))
    lower = f"{size} {'higher' if gap.mean > 0 else 'lower'}" if float(size) else f"the same to {10.0 ** -DIGITS:g}"
    if gap.n == 1:
        return f"{name} is {lower}; one seed has no interval."
    says = "excludes 0" if gap.low > 0 or gap.high < 0 else "includes 0, so these seeds do not tell them apart"
    return f"paired by seed, {name} is {lower}:{bounds(gap, signed)} {says}."


def cost_words(explorer: LadderExplorer, axis: str, cost: float) -> str:
    found = explorer.cost_axes[axis]
    return f"{rounded(cost, found['digits'])}\u00a0{found['unit']}"


def table_rows(explorer: LadderExplorer) -> list[list[str]]:
    """What is measured, of the highlighted rung, of the one beside it, and their difference; the last rows are by `AXES`."""
    mine, other, gap = explorer.test
    rows = [["final test loss", *(rounded(one.mean) + bounds(one) for one in (mine, other)), gap_cell(gap)]]
    for axis, found in explorer.at_equal_cost.items():
        cells = [loss_cell(loss, step, explorer.steps[-1]) for loss, step in zip(found.losses, found.steps)]
        rows.append([f"validation at {cost_words(explorer, axis, found.cost)}", *cells, gap_cell(found.difference)])
    return rows


def loss_cell(loss: Interval | None, step: int | None, last: int) -> str:
    if loss is None:
        return "not followed"
    return rounded(loss.mean) + ("" if step == last else f" (step\u00a0{step})")


def gap_cell(gap: Interval | None) -> str:
    return "–" if gap is None else signed(gap.mean) + bounds(gap, signed)


def heading(explorer: LadderExplorer) -> str:
    several = "mean of the seeds thick, each seed thin" if len(explorer.seeds) > 1 else f"seed {explorer.seeds[0]}"
    return (f"validation loss, {explorer.domain}, {explorer.unit}; "
            f"{several if explorer.seed is None else f'seed {explorer.seed}'}")


# --- the picture ------------------------------------------------------------------------------------------------------

HIGHLIGHTED, BESIDE, INK, OTHER = "#5b82b8", "#d9660a", "#16191d", "#6f757c"
NOTE = ("Dashed: where the cheaper of the two ends; the other is read off at its last followed step by then (costs within 3% "
        "count as\nequal). Its learning rate was still high there: a training planned that short would end lower.")


def label_places(ends: list[tuple[float, float]], widest: float, near: float, gap: float, top: float, bottom: float) -> list:
    """Where names stand that belong to the ends of curves, y downwards: beside its end, moved apart from the names nearby.

    The names of a group fall from left to right, so that no line from an end to its name crosses a name; those of ends that
    are near each other stand in one column, the upper end first.

    Args:
        ends: (x, y) of each curve's end.
        widest: the room that a name needs; ends that are farther apart share no group.
        near: how far apart the ends of one column are at most.
        gap: from one name to the next below.
        top, bottom: what the names stay within.

    Returns: (x, y) of each name; x is that of the last end of its column.
    """
    places = [(0.0, 0.0)] * len(ends)
    for group in runs_within(ends, list(range(len(ends))), lambda before, first, here: here - before <= widest):
        columns = runs_within(ends, group, lambda before, first, here: here - first <= near)
        order = [m for column in columns for m in sorted(column, key=lambda m: (ends[m][1], m))]
        x_of = {m: max(ends[one][0] for one in column) for column in columns for m in column}
        for m, y in zip(order, spread([ends[m][1] for m in order], gap, top, bottom)):
            places[m] = (x_of[m], y)
    return places


def runs_within(ends: list[tuple[float, float]], members: list[int], belongs) -> list[list[int]]:
    """The members from left to right, cut where x no longer belongs to those before: belongs(x before, x of the first, x)."""
    runs: list[list[int]] = []
    for m in sorted(members, key=lambda m: (ends[m][0], m)):
        if runs and belongs(ends[runs[-1][-1]][0], ends[runs[-1][0]][0], ends[m][0]):
            runs[-1].append(m)
        else:
            runs.append([m])
    return runs


def spread(heights: list[float], gap: float, top: float, bottom: float) -> list[float]:
    """Heights, moved as little as makes them rise by `gap` or more each, and into the limits as far as there is room."""
    blocks: list[list[float]] = []  # [mean, how many] of those that must move together, each less its place in the row
    for i, height in enumerate(heights):
        blocks.append([height - i * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, n = blocks.pop()
            before, m = blocks[-1]
            blocks[-1] = [(before * m + mean * n) / (m + n), m + n]
    bases = [mean for mean, n in blocks for _ in range(n)]
    last = bottom - (len(heights) - 1) * gap
    return [max(top, min(base, last)) + i * gap for i, base in enumerate(bases)]


def draw_ladder(explorer: LadderExplorer):
    """The curves of all rungs over the numbers of the two that are compared, on a bare figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 6.6))
    draw_curves(figure.add_axes((0.06, 0.405, 0.755, 0.51)), explorer)
    draw_numbers(figure.add_axes((0.03, 0.085, 0.94, 0.215)), explorer)
    figure.text(0.03, 0.015, NOTE, fontsize=10, color=INK, parse_math=False, linespacing=1.35)
    figure.suptitle(f"{explorer.title} · {explorer.rung} beside {explorer.beside} · {explorer.domain} · {explorer.origin}",
                    parse_math=False, fontsize=13, y=0.985)
    return figure


def draw_curves(ax, explorer: LadderExplorer) -> None:
    """All rungs in thin grey with their names, the two that are compared thick, and where they are read off."""
    costs, losses = explorer.cost_axes[explorer.axis], explorer.loss_axes[explorer.domain]
    ax.set(xlim=(0, costs["high"]), ylim=(losses["low"], losses["high"]))
    ax.set_xticks(*zip(*costs["ticks"]), fontsize=10)
    ax.set_yticks(*zip(*losses["ticks"]), fontsize=10)
    ax.set_xlabel(costs["title"], fontsize=10.5, parse_math=False)
    ax.set_title(heading(explorer), loc="left", fontsize=11, parse_math=False)
    ax.grid(axis="y", color="#b9bec5", linewidth=0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.axvline(explorer.at_equal_cost[explorer.axis].cost, color=INK, linewidth=1, linestyle="--", clip_on=False)
    looks = {explorer.rung: (HIGHLIGHTED, 3.2, 4), explorer.beside: (BESIDE, 2.4, 3)}
    for rung in explorer.rungs:
        colour, width, order = looks.get(rung["name"], (OTHER, 0.9, 5))
        xs = [step * rung["per_step"][explorer.axis] for step in explorer.steps]
        ax.plot(xs, curve_of(explorer, rung), color=colour, linewidth=width, zorder=order)
        if rung["name"] in looks:
            for s in explorer.places:
                ax.plot(xs, rung["validation"][explorer.domain][s], color=colour, linewidth=0.7, zorder=order)
    draw_read_off(ax, explorer, looks)
    draw_names(ax, explorer, looks)


def draw_read_off(ax, explorer: LadderExplorer, looks: dict) -> None:
    """A dot on each of the two curves."""
    found = explorer.at_equal_cost[explorer.axis]
    for rung, step, loss in zip(explorer.pair, found.steps, found.losses):
        if loss is not None:
            ax.plot(step * rung["per_step"][explorer.axis], loss.mean, "o", color=looks[rung["name"]][0], markersize=8, zorder=6,
                    markeredgecolor=INK, clip_on=False)


def draw_names(ax, explorer: LadderExplorer, looks: dict) -> None:
    """Every rung's name at the end of its curve, moved apart where they would overlap."""
    from matplotlib.patheffects import withStroke

    points = 72 / ax.figure.dpi
    ends = [ax.transData.transform((explorer.steps[-1] * rung["per_step"][explorer.axis], curve_of(explorer, rung)[-1])) * points
            for rung in explorer.rungs]
    (left, bottom), (_, top) = ax.get_window_extent().get_points() * points
    widest = 6.2 * max(len(rung["name"]) for rung in explorer.rungs) + 14
    places = label_places([(x, -y) for x, y in ends], widest, 12, 13.5, 7 - top, -bottom - 7)
    for rung, (end_x, end_y), (x, y) in zip(explorer.rungs, ends, places):
        chosen = rung["name"] in looks
        ax.annotate(rung["name"], (end_x - left, end_y - bottom), (x + 14 - left, -y - bottom), xycoords="axes points",
                    textcoords="axes points", va="center", fontsize=10.5, fontweight="bold" if chosen else "normal", color=INK,
                    parse_math=False, annotation_clip=False, zorder=7, path_effects=[withStroke(linewidth=3, foreground="white")],
                    arrowprops={"arrowstyle": "-", "color": looks.get(rung["name"], (OTHER,))[0], "shrinkA": 1, "shrinkB": 3,
                                "linewidth": 1.6 if chosen else 0.7, "linestyle": ":", "relpos": (0, 0.5)})


def draw_numbers(ax, explorer: LadderExplorer) -> None:
    """The table of the page."""
    ax.set_axis_off()
    rows = table_rows(explorer)
    names = ["", explorer.rung, explorer.beside, "difference"]
    table = ax.table(rows, colLabels=names, bbox=(0, 0, 1, 1), colWidths=(0.31, 0.23, 0.23, 0.23), edges="horizontal",
                     cellLoc="right", colLoc="right")
    dress_table(table, bold=(0, 2 + AXES.index(explorer.axis)))
