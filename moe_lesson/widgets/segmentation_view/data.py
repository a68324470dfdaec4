"""Segmentation: experts cut into pieces, and pieces that are always on, while a token pays the same.

Costs are counted by `moe_lesson.lm.ledger` and losses were measured beforehand; the browser reads both and counts the routes.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import traitlets
from traitlets import Dict, Int, Unicode

from ...base.errors import require
from ...experiments import EXPERIMENTS
from ...lm.ledger import experts_of_equal_active, ffn_cost, ffn_parts, model_cost
from ...lm.model import ModelConfig
from ...measure.evidence import Table, interval, result_table
from ...moe.recipes import Sparse
from ..kit.base import LessonWidget, one_of

TOP_K = 2  # of GShard, whose experts are cut
SEGMENTS = (1, 2, 4, 8)
SHARED = (0, 1, 2, 4)
Slot = tuple[int, int]  # m, Ks
SLOTS: list[Slot] = [(segments, num_shared) for segments in SEGMENTS for num_shared in SHARED if num_shared < TOP_K * segments]
# Where the shipped tables have each setting: experiment, unit of its test loss, (m, Ks) -> rung.
TABLES: dict[str, tuple[str, str, dict[Slot, str]]] = {
    "text": ("ladder", "nats per byte",
             {(1, 0): "gshard", (4, 0): "fine", (4, 1): "1 shared", (4, 2): "deepseekmoe", (4, 4): "4 shared"}),
    "skills world": ("pieces", "mean squared error",
                     {(m, 0): f"cut in {m}" for m in SEGMENTS} | {(4, shared): f"{shared} shared" for shared in (1, 2, 4)}),
}


@dataclass(frozen=True)
class World:
    """What was measured in one world, with layers that cost a token the same.

    Args:
        width: D, the model width.
        budget: the recipe whose active parameters every setting is matched to; that of GShard cut in 4.
        unit: of the test loss.
        loss: (m, Ks) -> test loss of each seed, at least two, for the settings that were measured.
        hybridity: (m, Ks) -> how many skills an expert serves, for each seed, where that was measured.

    Raises:
        ValueError: if a setting is impossible, a measured value is not a number, or nothing was measured.
    """

    width: int
    budget: Sparse
    unit: str
    loss: Mapping[Slot, Sequence[float]]
    hybridity: Mapping[Slot, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self):
        active = self.budget.top_k + self.budget.num_shared
        require((self.budget.num_experts + self.budget.num_shared) * TOP_K % active == 0,
                f"the budget {self.budget} can't be {TOP_K} of a whole number of experts, cut into pieces")
        require(bool(self.loss), "no setting has a loss; give at least one that was measured")
        for name, measured in (("loss", self.loss), ("hybridity", self.hybridity)):
            for slot, values in measured.items():
                require(slot in SLOTS, f"(m, Ks) = {slot} is not a setting of the widget; it has {SLOTS}")
                require(isinstance(values, Sequence) and len(values) >= 2 and all(map(math.isfinite, values)),
                        f"{name} of (m, Ks) = {slot} is {values}; expected a finite number for each of two seeds or more")

    def recipe(self, slot: Slot) -> Sparse:
        """The layer of a setting."""
        return experts_of_equal_active(self.budget, self.width, TOP_K, *slot)

    def to_dict(self) -> dict:
        """What the browser needs, as JSON."""
        settings = []
        for slot in SLOTS:
            recipe = self.recipe(slot)
            costs = {part: cost.active for part, cost in ffn_parts(recipe, self.width).items()}
            measured = {"loss": self.loss.get(slot), "hybridity": self.hybridity.get(slot)}
            settings.append({"segments": slot[0], "num_shared": slot[1], "num_experts": recipe.num_experts,
                             "top_k": recipe.top_k, "expert_width": recipe.expert_width, "costs": costs,
                             **{name: values and asdict(interval(values)) | {"seeds": list(values)}
                                for name, values in measured.items()}})
        return {"unit": self.unit, "pays": ffn_cost(self.budget, self.width).active, "settings": settings}


class SegmentationView(LessonWidget):
    """Cut experts and share pieces at the same cost per token: the routes are counted, the losses were measured.

    Args:
        worlds: name -> `World`; `SegmentationView.of_tables` reads what the course ships.
        origin: where the measurements come from, shown on the widget's face: "trained", "toy" or "synthetic".

    Traits to read, set and observe: `world` (a key of `worlds`), `segments` (m: 1, 2, 4, 8), `num_shared` (Ks as wished: 0, 1,
    2, 4; the widget shows as many as leave one active piece to be routed).
    """

    worlds = Dict().tag(sync=True)  # name -> what `World.to_dict` gives

    world = Unicode().tag(sync=True)
    segments = Int().tag(sync=True)
    num_shared = Int().tag(sync=True)

    def __init__(self, worlds: Mapping[str, World], *, origin: str, title: str = "segmentation"):
        require(isinstance(worlds, Mapping) and bool(worlds) and all(isinstance(one, World) for one in worlds.values()),
                f"worlds is {worlds!r}; expected name -> World, at least one, or use SegmentationView.of_tables()")
        start = {"world": next(iter(worlds)), "segments": 4, "num_shared": 0}
        super().__init__(title=title, origin=origin, worlds={name: one.to_dict() for name, one in worlds.items()},
                         start=start)

    @classmethod
    def of_tables(cls, folder: pathlib.Path | None = None) -> SegmentationView:
        """What the experiments "ladder" and "pieces" have measured.

        Args:
            folder: the results folder; the course's own unless given.

        Raises:
            ValueError: if a table is missing or unfinished, or was made with other sizes.
        """
        return cls({name: world_of_table(*table, folder) for name, table in TABLES.items()}, origin="trained")

    @traitlets.validate("world", "segments", "num_shared")
    def _one_of_them(self, proposal):
        return one_of(proposal, {"world": self.worlds, "segments": SEGMENTS, "num_shared": SHARED})


def world_of_table(experiment: str, unit: str, rungs: Mapping[Slot, str], folder: pathlib.Path | None) -> World:
    """The settings of an experiment's table; see `SegmentationView.of_tables`."""
    table, preset = result_table(f"{experiment}-cpu", folder), EXPERIMENTS[experiment].presets["cpu"]
    sizes = {slot: EXPERIMENTS[experiment].rungs[rung](preset, 1.0) for slot, rung in rungs.items()}
    for slot, rung in rungs.items():
        check_rung(table, f"{experiment}-cpu", rung, sizes[slot], preset.width)
    measured = {name: {slot: table.column(column, rung=rung, stage="final") for slot, rung in rungs.items()}
                for name, column in (("loss", "test"), ("hybridity", "hybridity")) if column in table.rows[0]}
    fine = sizes[4, 0]
    return World(preset.width, fine.recipes[0] if isinstance(fine, ModelConfig) else fine, unit, **measured)


def check_rung(table: Table, name: str, rung: str, sizes: ModelConfig | Sparse, width: int) -> None:
    """Refuse a rung without final runs, or whose runs had other sizes."""
    found = {row["total"] for row in table.rows if row["rung"] == rung and row["stage"] == "final"}
    require(bool(found), f"{name} has no final run of {rung!r}; let the experiment run to its end")
    total = (model_cost(sizes) if isinstance(sizes, ModelConfig) else ffn_cost(sizes, width)).total
    require(set(map(float, found)) == {total},
            f"{rung!r} has {', '.join(map(str, found))} parameters in {name}, and {total} in moe_lesson.experiments; "
            "run the experiment again")
