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

from ..base.errors import require
from ..experiments import EXPERIMENTS
from ..lm.ledger import experts_of_equal_active, ffn_cost, ffn_parts, model_cost
from ..lm.model import ModelConfig
from ..measure.evidence import Interval, Table, interval, result_table
from ..moe.recipes import Sparse
from ..teach.plots import png
from .base import LessonWidget, module_source, one_of, stylesheet
from .common import capital, check_origin, count, fixed, three_digits

TOP_K = 2  # of GShard, whose experts are cut
SEGMENTS = (1, 2, 4, 8)
SHARED = (0, 1, 2, 4)
SLOTS = [(segments, num_shared) for segments in SEGMENTS for num_shared in SHARED if num_shared < TOP_K * segments]
PARTS = {"router": "#cc79a7", "routed": "#009e73", "shared": "#d55e00"}  # as in the ledger
MEASURES = {"loss": "test loss", "hybridity": "hybridity"}
HYBRIDITY_UNIT = "skills that an expert serves"

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

    _esm = module_source("segmentation_view")
    _css = stylesheet("segmentation_view")

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

    @property
    def here(self) -> World:
        """The world shown."""
        return self.measured[self.world]

    @property
    def setting(self) -> Setting:
        """The setting shown."""
        return self.here.at(self.segments, self.shared)

    @property
    def routes(self) -> int:
        """In how many ways the router can choose: C(N, K)."""
        return routes(self.setting.recipe)

    @property
    def summary(self) -> str:
        """What the widget says, in words."""
        return summary(self)

    def describe(self) -> str:
        return (f"{self.title!r}, {self.origin}: {self.world}, m = {self.segments}, Ks = {self.shared}: {routes_title(self)}; "
                f"{measured_words(self, 'loss')}")

    def picture(self) -> bytes:
        return png(draw_segmentation(self))

    @traitlets.validate("world", "segments", "num_shared")
    def _one_of_them(self, proposal):
        return one_of(proposal, {"world": self.worlds, "segments": SEGMENTS, "num_shared": SHARED})


# --- arithmetic and words: the twins of those in segmentation_view.js -------------------------------------------------


def allowed(num_shared: int, segments: int) -> int:
    """The most shared pieces, up to the wish, that leave one active piece to be routed."""
    return max(one for one in SHARED if one <= num_shared and one < TOP_K * segments)


def routes(recipe: Sparse) -> int:
    """In how many ways a router can choose K of N experts."""
    return math.comb(recipe.num_experts, recipe.top_k)


GOLDEN = (math.sqrt(5) - 1) / 2


def example(num_experts: int, top_k: int) -> list[int]:
    """Experts that stand for the choice of some token: one of each of K equal stretches, no model's choice."""
    room = num_experts // top_k
    return [i * num_experts // top_k + math.floor((i + 1) * GOLDEN % 1 * room) for i in range(top_k)]


UNITS = ("million", "billion", "trillion", "quadrillion", "quintillion")


def times(more: int, fewer: int) -> str:
    """How many times one number is another, in words: a whole number below a million, else three digits."""
    exact, whole = more % fewer == 0, (2 * more + fewer) // (2 * fewer)
    step = sum(whole >= 1000 ** power for power in (2, 3, 4, 5, 6))
    if step:
        return f"about {three_digits(whole / 1000 ** (step + 1))} {UNITS[step - 1]}"
    return f"{whole:,}" if exact else f"about {whole:,}"


def routes_title(view: SegmentationView) -> str:
    recipe = view.setting.recipe
    return f"C({recipe.num_experts}, {recipe.top_k}) = {view.routes:,} routes"


def compared(view: SegmentationView) -> list[str]:
    """The routes beside those of the uncut experts, and what sharing has cost of them."""
    words = []
    if view.shared:
        words.append(f"{times(routes(view.here.at(view.segments, 0).recipe), view.routes)} times fewer than with nothing shared")
    if view.segments > 1:
        uncut = routes(view.here.at(1, 0).recipe)
        words.append(f"{times(view.routes, uncut)} times the {uncut:,} of uncut experts")
    return words


def experts_title(view: SegmentationView) -> str:
    recipe = view.setting.recipe
    return (f"experts: {recipe.num_experts} routed ({recipe.top_k} active), {recipe.num_shared} shared, "
            f"{count(recipe.expert_width, 'unit')} each")


def router_title(view: SegmentationView) -> str:
    return f"router: {count(view.setting.recipe.num_experts, 'column')}, at the scale of the experts"


def pays_title(view: SegmentationView) -> str:
    return f"a token pays {sum(view.here.costs(view.setting).values()):,} parameters"


def budget_words(view: SegmentationView) -> str:
    pays, budget = sum(view.here.costs(view.setting).values()), view.here.pays
    if pays == budget:
        return "exactly the budget"
    return f"{fixed(abs(100 * (pays - budget) / budget), 1)}% {'over' if pays > budget else 'under'} the budget of {budget:,}"


def reading(view: SegmentationView, measure: str) -> str:
    """The mean with its interval, or that there is none."""
    value, digits = getattr(view.setting, measure), view.worlds[view.world]["axes"][measure]["digits"]
    if value is None:
        return "not measured"
    return f"{fixed(value.mean, digits)} [{fixed(value.low, digits)}, {fixed(value.high, digits)}]"


def unit_of(view: SegmentationView, measure: str) -> str:
    return view.here.unit if measure == "loss" else HYBRIDITY_UNIT


def chart_title(view: SegmentationView, measure: str) -> str:
    return f"{MEASURES[measure]}, {unit_of(view, measure)}: {reading(view, measure)}"


def measured_words(view: SegmentationView, measure: str) -> str:
    value = getattr(view.setting, measure)
    if value is None:
        return f"{MEASURES[measure]} not measured"
    return f"{MEASURES[measure]} {reading(view, measure)} {unit_of(view, measure)}, 95% interval over {count(value.n, 'seed')}"


def refused(view: SegmentationView) -> str:
    active = TOP_K * view.segments
    return f"Ks is {view.shared}, not {view.num_shared}: of {active} active pieces at least one must be routed."


def summary(view: SegmentationView) -> str:
    """What the widget shows, in words."""
    recipe, costs = view.setting.recipe, view.here.costs(view.setting)
    pays = sum(costs.values())
    shared = f"and {recipe.num_shared} shared, always on" if recipe.num_shared else "none shared"
    spent = ", ".join(f"{part} {cost:,} ({fixed(100 * cost / pays, 0)}%)" for part, cost in costs.items() if cost)
    words = [f"{capital(view.world)}, {view.origin}, m = {view.segments}, Ks = {view.shared}: "
             f"{recipe.num_experts} routed experts of {count(recipe.expert_width, 'hidden unit')}, {recipe.top_k} active for "
             f"each token, {shared}.",
             f"{'; '.join([routes_title(view), *compared(view)])}.",
             f"{capital(pays_title(view))}, {budget_words(view)}: {spent}.",
             *(f"{capital(measured_words(view, measure))}." for measure in view.worlds[view.world]["axes"])]
    return " ".join(words + ([refused(view)] if view.shared != view.num_shared else []))


# --- the picture ------------------------------------------------------------------------------------------------------

INK, FAINT = "#16191d", "#b9bec5"
KEY = (("routed, not chosen", {"facecolor": PARTS["routed"], "alpha": 0.3}),
       ("active for an example token", {"facecolor": PARTS["routed"], "edgecolor": INK, "linewidth": 1.6}),
       ("shared, always active", {"facecolor": PARTS["shared"], "edgecolor": INK, "linewidth": 1.6, "hatch": "////"}),
       ("router", {"facecolor": PARTS["router"]}), ("given up for the router", {"fill": False, "edgecolor": FAINT}))


def draw_segmentation(view: SegmentationView):
    """The layer over what a token pays at the left, the measurements at the right, on a bare figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    layer, bar = left.subplots(2, 1, height_ratios=(3.4, 1))
    draw_layer(layer, view)
    draw_bar(bar, view)
    measures = list(view.worlds[view.world]["axes"])
    for ax, measure in zip(right.subplots(len(measures), 1, squeeze=False)[:, 0], measures):
        draw_chart(ax, view, measure)
    right.supxlabel("Means and 95% intervals over seeds; squares: with shared pieces.\n"
                    "Framed: the setting shown. An empty place was not measured.", fontsize=10)
    heading = [f"{view.title} · {view.world} · m = {view.segments}, Ks = {view.shared} · {view.origin}", routes_title(view)]
    figure.suptitle("\n".join([*heading, "; ".join(compared(view))]).rstrip(), parse_math=False, fontsize=13)
    return figure


def draw_layer(ax, view: SegmentationView) -> None:
    """All experts as boxes, each where the uncut expert stood; what they have become narrower stays blank."""
    from matplotlib.patches import Patch, Rectangle

    recipe, room = view.setting.recipe, view.worlds[view.world]["room"]
    columns = math.ceil(math.sqrt(view.here.experts))
    chosen = {recipe.num_shared + n for n in example(recipe.num_experts, recipe.top_k)}
    pitch = 1.06 * room
    ax.add_patch(Rectangle((0, 0), recipe.num_experts / 3, 0.8, facecolor=PARTS["router"]))  # a unit has 3D, a column D
    ax.text(0, -0.12, router_title(view), fontsize=10)
    ax.text(0, 1.6, experts_title(view), fontsize=10)
    for expert in range(view.here.experts):
        x, y = expert % columns * pitch, 1.75 + expert // columns
        ax.add_patch(Rectangle((x, y), room, 0.8, fill=False, edgecolor=FAINT, linewidth=0.8))
        for piece in range(view.segments):
            n, width = expert * view.segments + piece, recipe.expert_width
            kind = 2 if n < recipe.num_shared else 1 if n in chosen else 0
            ax.add_patch(Rectangle((x + piece * width, y), width - 0.008 * room, 0.8, zorder=2 + kind, **KEY[kind][1]))
    ax.set_xlim(-0.02 * room, columns * pitch)
    ax.set_ylim(1.75 + -(-view.here.experts // columns), -0.6)
    ax.set_axis_off()
    ax.figure.legend(handles=[Patch(label=label, **style) for label, style in KEY], loc="outside lower center", ncols=2,
                     frameon=False, fontsize=10)


def draw_bar(ax, view: SegmentationView) -> None:
    """What a token pays, part by part, under the budget."""
    left, budget = 0, view.here.pays
    for part, cost in view.here.costs(view.setting).items():
        ax.barh(0, cost, left=left, height=0.6, color=PARTS[part], edgecolor=INK if part == "shared" else "white", linewidth=0.5,
                hatch="////" if part == "shared" else None, label=part)
        left += cost
    ax.barh(0, budget, height=0.85, fill=False, linewidth=1.5, linestyle="--", label="budget")
    ax.set_xlim(0, view.worlds[view.world]["top"])
    ax.set_xticks([0, budget / 2, budget], ["0", f"{budget // 2:,}", f"{budget:,}\nbudget"], fontsize=10)
    ax.set_yticks([])
    ax.set_title(f"{pays_title(view)}, {budget_words(view)}", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)


def places() -> list[float]:
    """Where each of SLOTS stands on the axis: groups of one m side by side."""
    return [i + 0.7 * SEGMENTS.index(segments) for i, (segments, _) in enumerate(SLOTS)]


def draw_chart(ax, view: SegmentationView, measure: str) -> None:
    """Every setting has its place; those that were measured have a mean and an interval in it."""
    from matplotlib.patches import Rectangle

    ticks = view.worlds[view.world]["axes"][measure]["ticks"]
    low, high = ticks[0][0], ticks[-1][0]
    for x, (segments, num_shared) in zip(places(), SLOTS):
        one = view.here.at(segments, num_shared)
        value = getattr(one, measure)
        if value is not None:
            ax.plot([x, x], [value.low, value.high], color=INK, linewidth=1.2)
            ax.plot(x, value.mean, "s" if num_shared else "o", color=PARTS["shared" if num_shared else "routed"], markersize=7,
                    markeredgecolor=INK)
        if one == view.setting:
            ax.add_patch(Rectangle((x - 0.45, low), 0.9, high - low, fill=False, edgecolor=INK, linewidth=2, clip_on=False,
                                   linestyle="--" if value is None else "-", zorder=4))
            if value is None:
                ax.text(x, (low + high) / 2, "not measured", rotation=90, ha="center", va="center", fontsize=10)
    ax.set_xticks(places(), [str(num_shared) for _, num_shared in SLOTS], fontsize=10)
    for segments in SEGMENTS:
        middle = [x for x, slot in zip(places(), SLOTS) if slot[0] == segments]
        ax.annotate(f"m = {segments}", (sum(middle) / len(middle), 0), xycoords=("data", "axes fraction"), xytext=(0, -32),
                    textcoords="offset points", ha="center", fontsize=11)
    ax.annotate("Ks", (0, 0), xycoords="axes fraction", xytext=(-20, -16), textcoords="offset points", fontsize=10)
    ax.set_xlabel(" ", fontsize=12)  # room for m
    ax.set(xlim=(-0.8, places()[-1] + 0.8), ylim=(low, high))
    ax.set_yticks(*zip(*ticks), fontsize=10)
    ax.grid(axis="y", color=FAINT, linewidth=0.5)
    ax.tick_params(length=0)
    ax.set_title(chart_title(view, measure), loc="left", fontsize=11, parse_math=False)
    ax.spines[["top", "right"]].set_visible(False)
