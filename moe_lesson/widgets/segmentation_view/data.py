"""Segmentation: experts cut into pieces, and pieces that are always on, while a token pays the same.

Costs are counted by `moe_lesson.lm.ledger` and losses were measured beforehand; the browser reads both and counts the routes
itself, and a parity test keeps the words equal. Letters: m pieces of each of GShard's 2 experts, N routed experts, K active
ones, Ks shared ones, D model width.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import traitlets
from traitlets import Dict, Int, List, Unicode

from ...base.errors import require
from ...experiments import EXPERIMENTS
from ...lm.ledger import experts_of_equal_active, ffn_cost, ffn_parts, model_cost
from ...lm.model import ModelConfig
from ...measure.evidence import Interval, Table, interval, result_table
from ...moe.recipes import Sparse
from ..kit.base import LessonWidget, one_of
from ..kit.gates import check_origin
from ..kit.words import fixed

TOP_K = 2  # of GShard, whose experts are cut
SEGMENTS = (1, 2, 4, 8)
SHARED = (0, 1, 2, 4)
SLOTS = [(segments, num_shared) for segments in SEGMENTS for num_shared in SHARED if num_shared < TOP_K * segments]
PARTS = {"router": "#cc79a7", "routed": "#009e73", "shared": "#d55e00"}  # as in the ledger
MEASURES = {"loss": "test loss", "hybridity": "hybridity"}
# Where the shipped tables have each setting: experiment, unit of its test loss, (m, Ks) -> rung.
TABLES = {
    "text": ("ladder", "nats per byte",
             {(1, 0): "gshard", (2, 0): "cut in 2", (4, 0): "fine", (8, 0): "cut in 8", (4, 1): "1 shared",
              (4, 2): "deepseekmoe", (4, 4): "4 shared"}),
    "skills world": ("pieces", "mean squared error",
                     {(m, 0): f"cut in {m}" for m in SEGMENTS} | {(4, shared): f"{shared} shared" for shared in (1, 2, 4)}),
}


@dataclass(frozen=True)
class Setting:
    """One way to cut and to share.

    Args:
        segments: m, into how many pieces each of GShard's 2 experts is cut.
        num_shared: Ks, how many of the 2m pieces are always on.
        recipe: the layer.
        loss: its test loss over seeds; None where it was not measured.
        hybridity: how many skills an expert serves, over seeds; None where it was not measured.
    """

    segments: int
    num_shared: int
    recipe: Sparse
    loss: Interval | None = None
    hybridity: Interval | None = None


@dataclass(frozen=True)
class World:
    """What was measured in one world, with layers that cost a token the same.

    Args:
        width: D, the model width.
        budget: the recipe whose active parameters every setting is matched to; that of GShard cut in 4.
        unit: of the test loss.
        settings: those that were measured.

    Raises:
        ValueError: if a setting is impossible or there twice, if a recipe is not what its setting says, or if nothing was
            measured.
    """

    width: int
    budget: Sparse
    unit: str
    settings: Sequence[Setting]

    def __post_init__(self):
        active = self.budget.top_k + self.budget.num_shared
        require((self.budget.num_experts + self.budget.num_shared) * TOP_K % active == 0,
                f"the budget {self.budget} can't be {TOP_K} of a whole number of experts, cut into pieces")
        pairs = [(one.segments, one.num_shared) for one in self.settings]
        require(len(set(pairs)) == len(pairs), f"settings (m, Ks) are {pairs}; give each once")
        for one in self.settings:
            self.check(one)
        require(any(one.loss for one in self.settings), "no setting has a loss; give at least one that was measured")

    def check(self, one: Setting) -> None:
        """Refuse a setting that can't be, or whose recipe is another's."""
        where = f"m = {one.segments}, Ks = {one.num_shared}"
        require((one.segments, one.num_shared) in SLOTS, f"{where} is not a setting of the widget; it has {SLOTS}")
        cut, recipe = self.computed(one.segments, one.num_shared), one.recipe
        require((recipe.num_experts, recipe.top_k, recipe.num_shared) == (cut.num_experts, cut.top_k, cut.num_shared),
                f"the recipe of {where} has {recipe.top_k} of {recipe.num_experts} experts and {recipe.num_shared} shared; "
                f"expected {cut.top_k} of {cut.num_experts} and {cut.num_shared}")
        for measure in MEASURES:
            value = getattr(one, measure)
            require(value is None or isinstance(value, Interval) and -math.inf < value.low <= value.mean <= value.high < math.inf,
                    f"{measure} of {where} is {value}; expected a mean within its interval, or None if it was not measured")

    def computed(self, segments: int, num_shared: int) -> Sparse:
        """The layer of a setting, from the budget alone."""
        return experts_of_equal_active(self.budget, self.width, TOP_K, segments, num_shared)

    def at(self, segments: int, num_shared: int) -> Setting:
        """The setting that was measured, or the same without a measurement."""
        known = {(one.segments, one.num_shared): one for one in self.settings}
        return known.get((segments, num_shared)) or Setting(segments, num_shared, self.computed(segments, num_shared))

    @property
    def pays(self) -> int:
        """The parameters that a token may use."""
        return ffn_cost(self.budget, self.width).active

    @property
    def experts(self) -> int:
        """How many uncut experts there are."""
        return (self.budget.num_experts + self.budget.num_shared) * TOP_K // (self.budget.top_k + self.budget.num_shared)

    def costs(self, one: Setting) -> dict[str, int]:
        """What a token pays, by parts."""
        parts = ffn_parts(one.recipe, self.width)
        return {part: parts[part].active for part in PARTS}

    def to_dict(self) -> dict:
        """What the browser needs, as JSON: the same axes for all settings."""
        every = [self.at(*slot) for slot in SLOTS]
        return {
            "unit": self.unit, "pays": self.pays, "experts": self.experts,
            "top": max(1.1 * self.pays, *(1.02 * sum(self.costs(one).values()) for one in every)),
            "room": max(one.segments * one.recipe.expert_width for one in every),  # hidden units where an expert stood
            "axes": {measure: axis_of([getattr(one, measure) for one in every if getattr(one, measure)])
                     for measure in MEASURES if any(getattr(one, measure) for one in every)},
            "settings": [{"segments": one.segments, "num_shared": one.num_shared, "num_experts": one.recipe.num_experts,
                          "top_k": one.recipe.top_k, "expert_width": one.recipe.expert_width, "costs": self.costs(one),
                          **{measure: None if getattr(one, measure) is None else list(astuple(getattr(one, measure)))
                             for measure in MEASURES}} for one in every]}


def axis_of(values: list[Interval]) -> dict:
    """Ticks [value, label] that hold all intervals, and how many digits their numbers need to tell them apart."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(value.low for value in values), max(value.high for value in values)
    pad = 0 if high > low else abs(high) / 10 or 1.0
    ticks = [float(f"{tick:.6g}") for tick in MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low - pad, high + pad)]
    decimals = max(len(f"{tick:g}".partition(".")[2]) for tick in ticks)
    half = min((value.high - value.low) / 2 for value in values)
    return {"ticks": [[tick, fixed(tick, decimals)] for tick in ticks],
            "digits": min(max(1 - math.floor(math.log10(half)), 2), 4) if half > 0 else 3}


# --- the shipped tables -----------------------------------------------------------------------------------------------


def world_of_table(experiment: str, unit: str, rungs: Mapping[tuple[int, int], str], folder: pathlib.Path | None) -> World:
    """The settings of an experiment's table; see `SegmentationView.of_tables`."""
    table, preset = result_table(f"{experiment}-cpu", folder), EXPERIMENTS[experiment].presets["cpu"]
    settings = [setting_of_rung(table, f"{experiment}-cpu", EXPERIMENTS[experiment].rungs[rung](preset, 1.0), rung, *slot,
                                preset.width) for slot, rung in rungs.items()]
    budget = next(one.recipe for one in settings if (one.segments, one.num_shared) == (4, 0))
    return World(preset.width, budget, unit, settings)


def setting_of_rung(table: Table, name: str, sizes: ModelConfig | Sparse, rung: str, segments: int, num_shared: int,
                    width: int) -> Setting:
    """The final runs of one rung, if they are of these sizes."""
    require(any(row["rung"] == rung and row["stage"] == "final" for row in table.rows),
            f"{name} has no final run of {rung!r}; let the experiment run to its end")
    model = isinstance(sizes, ModelConfig)
    total = (model_cost(sizes) if model else ffn_cost(sizes, width)).total
    found = set(table.column("total", rung=rung, stage="final"))
    require(found == {total}, f"{rung!r} has {', '.join(f'{one:g}' for one in sorted(found))} parameters in {name}, and "
                              f"{total} in moe_lesson.experiments; run the experiment again")
    over_seeds = {measure: interval(table.column(column, rung=rung, stage="final"))
                  for measure, column in (("loss", "test"), ("hybridity", "hybridity")) if column in table.rows[0]}
    return Setting(segments, num_shared, sizes.recipes[0] if model else sizes, **over_seeds)


# --- the widget -------------------------------------------------------------------------------------------------------


class SegmentationView(LessonWidget):
    """Cut experts and share pieces at the same cost per token: the routes are counted, the losses were measured.

    Args:
        worlds: name -> `World`; `SegmentationView.of_tables` reads what the course ships.
        origin: where the measurements come from, shown on the widget's face: "trained", "toy" or "synthetic".
        title: the title.

    Traits to read, set and observe: `world` (a key of `worlds`), `segments` (m: 1, 2, 4, 8), `num_shared` (Ks as wished: 0, 1,
    2, 4). To read: `shared` (Ks as it counts: at least one active piece stays routed), `setting` (the `Setting` shown), `routes`
    (C(N, K)), `summary` (what the widget says).
    """

    title = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    worlds = Dict().tag(sync=True)  # name -> what `World.to_dict` gives
    segment_choices = List(Int()).tag(sync=True)
    shared_choices = List(Int()).tag(sync=True)
    parts = Dict().tag(sync=True)  # name -> colour
    start = Dict().tag(sync=True)  # what Reset goes back to

    world = Unicode().tag(sync=True)
    segments = Int().tag(sync=True)
    num_shared = Int().tag(sync=True)

    def __init__(self, worlds: Mapping[str, World], *, origin: str, title: str = "segmentation"):
        check_origin(origin)
        require(isinstance(worlds, Mapping) and bool(worlds) and all(isinstance(one, World) for one in worlds.values()),
                f"worlds is {worlds!r}; expected name -> World, at least one, or use SegmentationView.of_tables()")
        self.measured = dict(worlds)
        start = {"world": next(iter(worlds)), "segments": 4, "num_shared": 0}
        super().__init__(title=title, origin=origin, worlds={name: one.to_dict() for name, one in worlds.items()},
                         segment_choices=list(SEGMENTS), shared_choices=list(SHARED), parts=PARTS, start=start, **start)

    @classmethod
    def of_tables(cls, folder: pathlib.Path | None = None) -> SegmentationView:
        """What the experiments "ladder" and "pieces" have measured.

        Args:
            folder: the results folder; the course's own unless given.

        Raises:
            ValueError: if a table is missing or unfinished, or was made with other sizes.
        """
        return cls({name: world_of_table(*table, folder) for name, table in TABLES.items()}, origin="trained")

    @property
    def shared(self) -> int:
        """Ks as it counts: as many as wished, or as many as leave one active piece to be routed."""
        return allowed(self.num_shared, self.segments)

    @traitlets.validate("world", "segments", "num_shared")
    def _one_of_them(self, proposal):
        return one_of(proposal, {"world": self.worlds, "segments": SEGMENTS, "num_shared": SHARED})


# --- arithmetic and words: the twins of those in segmentation_view.js -------------------------------------------------


def allowed(num_shared: int, segments: int) -> int:
    """The most shared pieces, up to the wish, that leave one active piece to be routed."""
    return max(one for one in SHARED if one <= num_shared and one < TOP_K * segments)



INK, FAINT = "#16191d", "#b9bec5"
