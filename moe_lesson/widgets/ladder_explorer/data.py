"""The ladder of language models along training: per step, per FLOP and per second, one domain at a time.

Every loss was measured beforehand; the browser reads them, averages seeds and computes the intervals itself.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import traitlets
from traitlets import Dict, Float, Int, List, Unicode

from ...base.errors import require
from ...experiments import EXPERIMENTS
from ...measure.evidence import Table, result_table, student_t
from ..kit.base import LessonWidget, one_of

# The rungs of the shipped tables that are shown; the others answer questions of other lessons.
RUNGS = ("dense", "switch", "gshard", "fine", "deepseekmoe", "dense of total size")
TABLES = ("ladder-cpu", "ladder-cpu-followed", "ladder-speed-cpu")

MEAN = "mean of the domains"
AXES = ("steps", "FLOPs", "seconds")
PASSES = 3  # of a training step, in forward ones: the backward pass costs two (arXiv 2001.08361, section 2.1)


@dataclass(frozen=True)
class RungRuns:
    """The trainings of one rung, one for each seed.

    Args:
        forward_flops: FLOPs of one token, forward.
        tokens_per_step: tokens that a training step reads.
        ms_per_step: milliseconds that a training step takes, compiled, with one thread.
        seeds: Z whole numbers.
        steps: whole numbers, increasing: after how many steps it was followed; the last is the end of the training.
        validation: domain -> [Z][steps] the losses along training.
        test: domain -> [Z] the losses at its end.

    Raises:
        ValueError: if the shapes do not fit together, or a number is one that no training can give.
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
        for domain, test in self.test.items():
            losses, expected = self.validation[domain], [len(self.seeds), len(self.steps)]
            shape = [len(losses), *sorted({len(followed) for followed in losses})]
            require(shape == expected,
                    f"the validation losses of {domain} have shape {shape}; expected [Z seeds, steps] = {expected}")
            require(len(test) == expected[0],
                    f"the test losses of {domain} are {len(test)}; expected {expected[0]}, one for each seed")
            values = [*test, *(loss for followed in losses for loss in followed)]
            require(all(map(math.isfinite, values)), f"a loss of {domain} is NaN or infinite; leave a training that diverged out")


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
    speed = [row["ms_per_step"] for row in speeds.rows if row["rung"] == rung and row["threads"] == 1]  # as they were trained
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


class LadderExplorer(LessonWidget):
    """Compare two rungs of a ladder of language models along training, all others in grey behind them.

    Args:
        rungs: name -> its `RungRuns`, two or more, over the same seeds, followed steps and domains;
            `LadderExplorer.of_tables` reads what the course ships.
        origin: where they come from: "trained", "toy" or "synthetic".
        rung: the highlighted one at first; the first one unless given.
        beside: the one it is compared with at first; the first other one unless given.
        unit, margin: of the losses; two rungs whose difference lies within the margin are alike.

    Traits to read, set and observe: `rung` and `beside` (names of rungs; setting one to the other swaps them), `seed` (one of
    `seeds`, or None: all of them and their mean), `axis` ("steps", "FLOPs", "seconds"), `domain` (one of `domains`, the first of
    which is their mean).

    FLOPs are those of training, 3 × forward FLOPs × tokens; seconds are steps × the time of one step, without evaluation.

    Raises:
        ValueError: if there are fewer than two rungs, or they differ in seeds, steps or domains.
    """

    unit = Unicode().tag(sync=True)
    margin = Float().tag(sync=True)
    rungs = List(Dict()).tag(sync=True)  # name, per_step: axis -> cost, validation: domain -> [Z][steps], test: domain -> [Z]
    seeds = List(Int()).tag(sync=True)
    steps = List(Int()).tag(sync=True)
    domains = List(Unicode()).tag(sync=True)
    quantiles = List(List(Float())).tag(sync=True)  # degrees of freedom, and Student's t of each

    rung = Unicode().tag(sync=True)
    beside = Unicode().tag(sync=True)
    seed = Int(None, allow_none=True).tag(sync=True)
    axis = Unicode().tag(sync=True)
    domain = Unicode().tag(sync=True)

    def __init__(self, rungs: Mapping[str, RungRuns], *, origin: str, title: str = "ladder explorer", rung: str | None = None,
                 beside: str | None = None, unit: str = "nats per byte", margin: float = 0.0):
        check_rungs(rungs)
        rung = next(iter(rungs)) if rung is None else rung
        beside = next(name for name in rungs if name != rung) if beside is None else beside
        require(rung != beside, f"rung and beside are both {rung!r}; choose two")
        first = next(iter(rungs.values()))
        start = {"rung": rung, "beside": beside, "seed": None, "axis": AXES[0], "domain": MEAN}
        freedom = len(first.seeds) - 1  # of one rung; Welch's has up to twice as many for two
        freedoms = [freedom * (1 + i / 50) for i in range(51)] if freedom else []
        super().__init__(title=title, origin=origin, unit=unit, margin=margin, seeds=list(first.seeds), steps=list(first.steps),
                         rungs=[rung_sent(name, runs) for name, runs in rungs.items()], domains=[MEAN, *first.test],
                         quantiles=[freedoms, [student_t(freedom + 1) for freedom in freedoms]], start=start)

    @classmethod
    def of_tables(cls, folder: pathlib.Path | None = None) -> LadderExplorer:
        """The ladder of the course's tables, DeepSeekMoE beside GShard; see `runs_of_tables`."""
        return cls(runs_of_tables(folder), origin="trained", rung="deepseekmoe", beside="gshard",
                   margin=EXPERIMENTS["ladder"].margin)

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


def rung_sent(name: str, runs: RungRuns) -> dict:
    """A rung as the browser needs it, the mean of its domains before them."""
    losses = list(runs.validation.values())
    validation = {MEAN: [[sum(values) / len(values) for values in zip(*of_seed)] for of_seed in zip(*losses)], **runs.validation}
    test = {MEAN: [sum(values) / len(values) for values in zip(*runs.test.values())], **runs.test}
    return {"name": name, "per_step": {"steps": 1.0, "FLOPs": PASSES * runs.forward_flops * runs.tokens_per_step,
                                       "seconds": runs.ms_per_step / 1000},
            "validation": {domain: [list(map(float, of_seed)) for of_seed in losses] for domain, losses in validation.items()},
            "test": {domain: list(map(float, losses)) for domain, losses in test.items()}}
