"""The balancing race: the same model trained with several ways to balance its experts, side by side at every step.

The browser receives all loads and losses once and reads them itself.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import torch
import traitlets
from torch import Tensor
from traitlets import Bool, Bytes, Int, List, Unicode

from ...base.errors import require
from ...measure.evidence import result_table
from ..kit.base import LessonWidget, check_origin, one_of
from ..kit.gates import float32

MOST_TOKENS = 2**24  # the browser gets float32, which counts no further one by one


@dataclass(frozen=True, eq=False)
class BalanceRuns:
    """What happened while a model was trained with several ways to balance, over the same seeds.

    Args:
        methods: names, in the order to show.
        seeds: Z whole numbers.
        steps: whole numbers, increasing: the steps that were recorded.
        loads: [methods, Z, steps, L, N] how many tokens of the step's batch chose each expert; the same sum for each layer.
        losses: [methods, Z, steps] training loss of the step's batch, in nats per token, without the balance terms.
        origin: where they come from: "trained", "toy" or "synthetic".

    Raises:
        ValueError: if the shapes do not fit together, or a number is one that no training can give.
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
                f"losses have shape {tuple(self.losses.shape)}; expected [methods, Z seeds, steps] = {list(shape)}")
        require(self.loads.ndim == 5 and tuple(self.loads.shape[:3]) == shape and self.loads[0, 0, 0].numel() > 0,
                f"loads have shape {tuple(self.loads.shape)}; expected [methods, Z seeds, steps, L layers, N experts] with "
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


class BalancingRace(LessonWidget):
    """Scrub through trainings that differ only in how they balance their experts, all side by side.

    Args:
        runs: what happened; `BalanceRuns.of_tables` reads what the course ships.

    Traits to read, set and observe: `step` (one that was recorded), `layer` (0 … L-1), `seed` (one of `runs.seeds`), `method`
    (the emphasised one of `runs.methods`), `by_load` (sort the experts of each method, largest load first).
    """

    methods = List(Unicode()).tag(sync=True)
    seeds = List(Int()).tag(sync=True)
    steps = List(Int()).tag(sync=True)
    num_layers = Int().tag(sync=True)
    num_experts = Int().tag(sync=True)
    loads = Bytes().tag(sync=True)  # float32 [methods, Z, steps, L, N]
    losses = Bytes().tag(sync=True)  # float32 [methods, Z, steps]

    step = Int().tag(sync=True)
    layer = Int().tag(sync=True)
    seed = Int().tag(sync=True)
    method = Unicode().tag(sync=True)
    by_load = Bool(False).tag(sync=True)

    def __init__(self, runs: BalanceRuns, *, title: str = "balancing race"):
        require(isinstance(runs, BalanceRuns), f"runs is {type(runs).__name__}; expected BalanceRuns, or use "
                                               "BalanceRuns.of_tables()")
        self.runs, (layers, experts) = runs, runs.loads.shape[3:]
        start = {"step": int(runs.steps[-1]), "layer": layers - 1, "seed": runs.seeds[0], "method": runs.methods[0],
                 "by_load": False}
        super().__init__(title=title, origin=runs.origin, methods=list(runs.methods), seeds=list(runs.seeds),
                         steps=runs.steps.tolist(), num_layers=layers, num_experts=experts,
                         loads=float32(runs.loads), losses=float32(runs.losses), start=start)

    @traitlets.validate("step", "layer", "seed", "method")
    def _one_of_them(self, proposal):
        return one_of(proposal, {"step": self.steps, "layer": range(self.num_layers), "seed": self.seeds, "method": self.methods})
