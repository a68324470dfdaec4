"""Capacity: who is dropped when every expert has room for a limited number of tokens, and which seats stay empty.

The browser receives the choices, their weights and the shuffles once and does the queueing itself; the functions here and
in `moe_lesson.moe.balance` are its twins, for the words and the picture in Python.
Letters: L layers, T tokens, N experts, K active experts, S shuffles of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import traitlets
from numpy import ndarray
from traitlets import Bytes, Dict, Float, Int, List, Unicode

from ..base.errors import require
from ..moe.balance import capacity_for, keep_within
from ..moe.layers import MoE
from ..moe.routing import Routing
from ..teach.plots import drawable, png
from .base import LessonWidget, module_source, one_of, stylesheet, within
from .common import capital, check_origin, count, fixed, listed, percent, visible

FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, None)  # None: no limit
RULES = {"order": "as they stand", "weight": "highest weight"}  # who comes first
BATCHES = ("as written", "reversed", "shuffled")
SHUFFLES = 20
MOST_TOKENS = 300  # rows of the map: more could not be told apart


@dataclass(frozen=True)
class Dispatch:
    """What becomes of every choice in one layer.

    Args:
        routing: T tokens in the order of the text.
        queue_T: which token stands at each place of the batch.
        capacity: how many tokens an expert takes, or None for all.
        kept_TK: True where the choice finds room.
    """

    routing: Routing
    queue_T: ndarray
    capacity: int | None
    kept_TK: ndarray

    @property
    def places_T(self) -> ndarray:
        """The place of each token in the batch."""
        return np.argsort(self.queue_T)

    @property
    def left_T(self) -> ndarray:
        """How many of its experts keep each token."""
        return self.kept_TK.sum(axis=1)

    @property
    def dropped(self) -> int:
        """How many choices find no room."""
        return int((~self.kept_TK).sum())

    @property
    def late(self) -> int:
        """How many of the dropped choices belong to the later half of the batch."""
        return int((~self.kept_TK)[2 * self.places_T >= len(self.queue_T)].sum())

    @property
    def weight_dropped(self) -> tuple[float, float]:
        """The gate weight of the dropped choices, and of all; added one by one, as the browser does."""
        weights = self.routing.weights.numpy()
        return float(np.cumsum(np.where(self.kept_TK, 0, weights))[-1]), float(np.cumsum(weights)[-1])

    @property
    def stranded(self) -> int:
        """How many tokens are left without any expert."""
        return int((self.left_T == 0).sum())

    @property
    def seats(self) -> int | None:
        """The room of all experts together; None without a limit."""
        return None if self.capacity is None else self.capacity * self.routing.num_experts


def dispatch(routing: Routing, queue_T: ndarray, factor: float | None, by: str) -> Dispatch:
    """Let the tokens of a batch choose their experts under a capacity.

    Args:
        routing: T tokens in the order of the text.
        queue_T: which token stands at each place of the batch.
        factor: of the capacity; None means no limit.
        by: who comes first, a key of `RULES`; see `keep_within`.
    """
    standing = Routing(*(part[torch.from_numpy(queue_T)] for part in (routing.logits, routing.expert_ids, routing.weights)))
    capacity = None if factor is None else capacity_for(routing, factor)
    kept_TK = np.empty(routing.expert_ids.shape, bool)
    kept_TK[queue_T] = keep_within(standing, kept_TK.size if capacity is None else capacity, by).numpy()
    return Dispatch(routing, queue_T, capacity, kept_TK)


class CapacityView(LessonWidget):
    """Give every expert a limited room, and see which tokens of a text are dropped and which seats stay empty.

    Args:
        routings: L routings, one per MoE layer, of the same T named tokens (at most 300) and the same K; N may differ. Their
            choices and weights are all that is used.
        origin: where they come from, shown on the widget's face: "trained", "toy" or "synthetic".
        title: the title.
        seed: of the shuffles.

    Traits to read, set and observe: `layer` (0 … L-1), `factor` (one of `FACTORS`, None means no limit), `by` (who comes first:
    "order" or "weight"), `batch` ("as written", "reversed" or "shuffled"), `shuffle` (1 … 20, which one), `locked_token` (an
    index in the text, or None). To read: `summary` (what the widget says), `shown` (the `Dispatch`).

    Raises:
        ValueError: if there is no token or too many, or the routings do not fit together.

    >>> from moe_lesson.moe.routing import Routing
    >>> logits = torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [1.0, 2.0]])
    >>> view = CapacityView([Routing(logits, logits.topk(1).indices, torch.ones(4, 1), tuple("abcd"))], origin="toy")
    >>> view.shown.capacity, view.shown.dropped, view.shown.kept_TK[:, 0].tolist()
    (2, 1, [True, True, False, True])
    """

    _esm = module_source("capacity_view")
    _css = stylesheet("capacity_view")

    title = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    seed = Int().tag(sync=True)
    tokens = List(Unicode()).tag(sync=True)
    sizes = List(Int()).tag(sync=True)  # N of each layer
    top_k = Int().tag(sync=True)
    experts = Bytes().tag(sync=True)  # int32 [L, T, K]
    weights = Bytes().tag(sync=True)  # float64 [L, T, K], which holds any float exactly: rounding would make ties
    shuffles = Bytes().tag(sync=True)  # int32 [S, T], which token stands at each place
    num_shuffles = Int(SHUFFLES).tag(sync=True)
    factors = List(list(FACTORS)).tag(sync=True)
    weight_limit = Float().tag(sync=True)  # the brightest colour, in all layers
    load_limit = Int().tag(sync=True)  # the top of the bars' axis in tokens, for all layers and settings
    start = Dict().tag(sync=True)  # what Reset goes back to

    layer = Int(0).tag(sync=True)
    factor = Float(1.0, allow_none=True).tag(sync=True)
    by = Unicode("order").tag(sync=True)
    batch = Unicode("as written").tag(sync=True)
    shuffle = Int(1).tag(sync=True)
    locked_token = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, routings: Sequence[Routing], *, origin: str = "trained", title: str = "capacity", seed: int = 0):
        check_origin(origin)
        require(isinstance(seed, int) and 0 <= seed < 2**32, f"seed is {seed!r}; expected a whole number, 0 … 2³² - 1")
        check_routings(routings)
        self._routings = [Routing(r.logits, r.expert_ids, r.weights.double(), r.tokens) for r in map(Routing.detach, routings)]
        shape = routings[0].num_tokens, routings[0].top_k
        random = np.random.default_rng(seed)
        shuffles_ST = np.stack([random.permutation(shape[0]) for _ in range(SHUFFLES)]).astype(np.int32)
        start = {"layer": 0, "factor": 1.0, "by": "order", "batch": "as written", "shuffle": 1, "locked_token": None}
        super().__init__(title=title, origin=origin, seed=seed, tokens=[visible(token) for token in routings[0].tokens],
                         sizes=[r.num_experts for r in routings], top_k=shape[1], shuffles=shuffles_ST.tobytes(),
                         experts=b"".join(r.expert_ids.numpy().astype(np.int32).tobytes() for r in self._routings),
                         weights=b"".join(r.weights.numpy().tobytes() for r in self._routings),
                         **limits(self._routings), start=start, **start)

    @classmethod
    def of_model(cls, model, text: str, *, origin: str = "trained", title: str = "capacity", seed: int = 0) -> CapacityView:
        """What a capacity would do to a language model's own routing; the model itself runs without one.

        Args:
            model: a `LanguageModel` with at least one MoE layer.
            text: whose tokens are routed, at most the model's context long.
            origin: "trained" or "toy".
            title: the title.
            seed: of the shuffles.
        """
        require(any(isinstance(block.ffn, MoE) for block in model.blocks),
                "this model has no MoE layer, so there is no expert to be full")
        require(bool(text), "the text is empty, so there is no token to drop; write at least one letter")
        return cls([routing for routing in model.route(text) if routing is not None], origin=origin, title=title, seed=seed)

    @property
    def queue(self) -> ndarray:
        """Which token stands at each place of the batch: [T]."""
        if self.batch == "shuffled":
            return np.frombuffer(self.shuffles, np.int32).reshape(SHUFFLES, -1)[self.shuffle - 1].astype(np.int64)
        as_written = np.arange(len(self.tokens))
        return as_written[::-1].copy() if self.batch == "reversed" else as_written

    @property
    def shown(self) -> Dispatch:
        """What becomes of every choice of the layer at these settings."""
        return dispatch(self._routings[self.layer], self.queue, self.factor, self.by)

    @property
    def summary(self) -> str:
        """What the widget says, in words."""
        return summary(self)

    def describe(self) -> str:
        experts = "/".join(str(size) for size in dict.fromkeys(self.sizes))
        return (f"{self.title!r}, {self.origin}: {count(len(self.sizes), 'layer')}, {count(len(self.tokens), 'token')}, "
                f"{self.top_k} of {experts} experts")

    def picture(self) -> bytes:
        return png(draw_capacity(self))

    @traitlets.validate("layer", "shuffle", "locked_token")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, len(self.sizes) - 1), "shuffle": (1, SHUFFLES),
                                 "locked_token": (0, len(self.tokens) - 1)})

    @traitlets.validate("factor", "by", "batch")
    def _known(self, proposal):
        return one_of(proposal, {"factor": FACTORS, "by": RULES, "batch": BATCHES})


# --- validation -------------------------------------------------------------------------------------------------------


def check_routings(routings: Sequence[Routing]) -> None:
    """Refuse what is not the routing of one text of readable length through one or more layers with the same K."""
    require(isinstance(routings, Sequence), f"routings is {type(routings).__name__}; expected a list, one Routing per MoE layer")
    require(len(routings) > 0, "routings is empty; expected one Routing per MoE layer")
    for layer, routing in enumerate(routings):
        here, first = f"routings[{layer}]", routings[0]
        require(isinstance(routing, Routing), f"{here} is {type(routing).__name__}; expected a Routing")
        require(routing.tokens is not None, f"{here} has no token texts; add them with routing.with_tokens([...])")
        require(1 <= routing.num_tokens <= MOST_TOKENS,
                f"{here} has {count(routing.num_tokens, 'token')}; the map shows 1 … {MOST_TOKENS}, route a piece of the text")
        require(routing.tokens == first.tokens, f"{here} has other tokens than routings[0]; route one text through all layers")
        require(routing.top_k >= 1, f"{here} has K = 0; each token must go to at least one expert")
        require(routing.top_k == first.top_k, f"{here} has K = {routing.top_k}, routings[0] has {first.top_k}; "
                                              "show layers of different K in views of their own")
        ids = routing.expert_ids
        require(0 <= int(ids.min()) <= int(ids.max()) < routing.num_experts,
                f"{here}: expert ids run from {ids.min()} to {ids.max()}; expected 0 to {routing.num_experts - 1}")
        require(bool(routing.weights.isfinite().all()) and bool((routing.weights >= 0).all()),
                f"{here}.weights hold NaN, infinity or a negative number; look for a diverged training or a division by zero")


def limits(routings: Sequence[Routing]) -> dict:
    """The limits of colours and bars: fixed by all layers and the largest factor, so that no setting moves them."""
    rooms = [capacity_for(routing, max(filter(None, FACTORS))) for routing in routings]
    return {"weight_limit": max(float(routing.weights.max()) for routing in routings) or 1.0,
            "load_limit": max(rooms + [int(routing.load.max()) for routing in routings])}


# --- words: the twins of those in capacity_view.js --------------------------------------------------------------------


def part_of(part: int, whole: int) -> str:
    return f"{part} of {whole} ({percent(part / whole if whole else 0, 1)})"


def facts(shown: Dispatch) -> dict[str, str]:
    """The numbers to notice, in words."""
    tokens = shown.routing.num_tokens
    dropped, weight = shown.weight_dropped
    empty = None if shown.seats is None else shown.seats - int(shown.kept_TK.sum())
    return {
        "choices dropped": part_of(shown.dropped, shown.kept_TK.size),
        "dropped in the later half": f"{shown.late} of {shown.dropped}" if shown.dropped else "none",
        "gate weight dropped": percent(dropped / weight if weight else 0, 1),
        "tokens left without any expert": part_of(shown.stranded, tokens),
        "seats left empty": "no seats are reserved" if empty is None else part_of(empty, shown.seats),
    }


def summary(view: CapacityView) -> str:
    """What the view shows, in words."""
    shown = view.shown
    parts = [head(view, shown), room_words(view, shown), f"{capital(fact_words(shown))}.", busiest_words(shown.routing)]
    if view.locked_token is not None:
        parts.append(token_words(view, shown, view.locked_token))
    return " ".join(parts)


def head(view: CapacityView, shown: Dispatch) -> str:
    return (f"Layer {view.layer + 1} of {len(view.sizes)}, {view.origin} router: {count(len(view.tokens), 'token')}, "
            f"K = {view.top_k} of {count(shown.routing.num_experts, 'expert')}.")


def room_words(view: CapacityView, shown: Dispatch) -> str:
    room = "No limit"
    if shown.capacity is not None:
        room = f"Capacity factor {fixed(view.factor, 2)}, room for {count(shown.capacity, 'token')} in each expert"
    rounds = ", all first choices before the second ones" if view.by == "order" and view.top_k > 1 else ""
    return f"{room}; who comes first: {RULES[view.by]}{rounds}; batch {batch_words(view)}."


def batch_words(view: CapacityView) -> str:
    return f"shuffled (shuffle {view.shuffle}, seed {view.seed})" if view.batch == "shuffled" else view.batch


def fact_words(shown: Dispatch) -> str:
    return "; ".join(f"{name}: {words}" for name, words in facts(shown).items())


def busiest_words(routing: Routing) -> str:
    load, mean = routing.load.tolist(), routing.num_tokens * routing.top_k / routing.num_experts
    return (f"Busiest: expert {load.index(max(load))}, chosen by {count(max(load), 'token')}, "
            f"{fixed(max(load) / mean, 1)} × the mean.")


def token_words(view: CapacityView, shown: Dispatch, token: int) -> str:
    choices = list(zip(shown.routing.expert_ids[token].tolist(), shown.routing.weights[token].tolist(), shown.kept_TK[token]))
    verdicts = []
    for verb, wanted in (("kept", True), ("dropped", False)):
        named = [f"{n} ({fixed(weight, 2)})" for n, weight, kept in choices if kept == wanted]
        if named:
            verdicts.append(f"{verb} by {'expert' if len(named) == 1 else 'experts'} {listed(named)}")
    residual = "" if shown.left_T[token] else " It passes the layer by on the residual."
    return (f"Token {token} '{view.tokens[token]}' at place {shown.places_T[token]} of the batch: "
            f"{', '.join(verdicts)}.{residual}")


# --- the picture ------------------------------------------------------------------------------------------------------

BAR, DROPPED, ON_MAP, INK = "#5b82b8", "#d9660a", "#ff8c2b", "#16191d"
NAMED = 26  # rows of the map that have room for a name
LINE = 96  # letters in a line of the text


def draw_capacity(view: CapacityView):
    """The text with its losses marked, the map of choices in the order of the batch, and the load bars under it."""
    from matplotlib.figure import Figure

    shown = view.shown
    spots = letter_spots(view.tokens)
    lines = 1 + max(line for line, _ in spots)
    heights = (0.26 * lines, max(4.0, 0.036 * len(view.tokens)), 1.3)
    figure = Figure(figsize=(10, 2.1 + sum(heights)), layout="constrained")
    text, cells, bars = figure.subplots(3, 1, height_ratios=heights)
    draw_text(text, view, shown, spots)
    draw_choices(cells, view, shown)
    draw_room(bars, view, shown)
    cells.sharex(bars)
    room = "no limit" if shown.capacity is None else f"capacity factor {fixed(view.factor, 2)}: room for {shown.capacity}"
    figure.suptitle(f"{view.title} · layer {view.layer + 1} of {len(view.sizes)} · {view.origin} router\n"
                    f"{room} · who comes first: {RULES[view.by]} · batch {batch_words(view)}", parse_math=False)
    return figure


def letter_spots(tokens: Sequence[str]) -> list[tuple[int, float]]:
    """Line and middle of each token, as many letters to a line as there is room for."""
    spots, line, end = [], 0, 0.0
    for token in tokens:
        width = min(len(token), 12)
        if end + width > LINE:
            line, end = line + 1, 0.0
        spots.append((line, end + width / 2))
        end += width
    return spots


def draw_text(ax, view: CapacityView, shown: Dispatch, spots: list[tuple[int, float]]) -> None:
    """The text in its own order: a token that lost some experts is underlined, one that lost all is boxed."""
    from matplotlib.patches import Rectangle

    for token, (line, middle), left in zip(view.tokens, spots, shown.left_T):
        width = min(len(token), 12)
        ax.text(middle, line, drawable(token), ha="center", va="center", fontsize=11, family=["monospace", "sans-serif"],
                parse_math=False)
        if left == 0:
            ax.add_patch(Rectangle((middle - width / 2, line - 0.4), width, 0.8, facecolor="#f4b183", edgecolor=INK, zorder=0))
        elif left < view.top_k:
            ax.add_patch(Rectangle((middle - width / 2 + 0.05, line + 0.34), width - 0.1, 0.12, color=DROPPED))
    ax.set(xlim=(0, LINE), ylim=(spots[-1][0] + 0.55, -0.55))
    ax.axis("off")
    ax.set_title("the text as written: underlined lost some of its experts, boxed lost all", loc="left", fontsize=11)


def draw_choices(ax, view: CapacityView, shown: Dispatch) -> None:
    """One row for each token in the order of the batch: a kept choice is filled, a dropped one an empty frame."""
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    routing, queue_T = shown.routing, shown.queue_T
    kept = routing.reweighted(routing.weights * torch.from_numpy(shown.kept_TK))
    image = ax.imshow(kept.gates.numpy()[queue_T], aspect="auto", cmap="cividis", interpolation="nearest",
                      norm=PowerNorm(0.5, 0, view.weight_limit))
    ax.figure.colorbar(image, ax=ax, pad=0.01, aspect=40, label="gate weight (√ spacing)",
                       format="%.2f",
                       ticks=[share * view.weight_limit for share in (0, 0.05, 0.2, 0.5, 1)])
    frames = [Rectangle((n - 0.47, place - 0.4), 0.94, 0.8) for place, token in enumerate(queue_T)
              for n, kept in zip(routing.expert_ids[token].tolist(), shown.kept_TK[token]) if not kept]
    ax.add_collection(PatchCollection(frames, facecolors="none", edgecolors=ON_MAP, linewidths=1.2))
    named = range(0, len(queue_T), -(-len(queue_T) // NAMED))
    ax.set_yticks(list(named), [f"{queue_T[place]}  {drawable(view.tokens[queue_T[place]])}" for place in named], fontsize=10,
                  parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelbottom=False)
    ax.set_ylabel("token, first of the batch on top")
    ax.set_title("choices: filled is kept, an orange frame is dropped", loc="left", fontsize=11)


def draw_room(ax, view: CapacityView, shown: Dispatch) -> None:
    """The load of each expert: filled up to its capacity, an empty frame above it; pale where seats stay empty."""
    load_N = shown.routing.load.numpy()
    room = load_N if shown.capacity is None else np.full_like(load_N, shown.capacity)
    taken_N, experts = np.minimum(load_N, room), range(len(load_N))
    ax.bar(experts, taken_N, width=0.9, color=BAR)
    ax.bar(experts, room - taken_N, bottom=taken_N, width=0.9, color=BAR, alpha=0.25)
    over = np.flatnonzero(load_N > room)
    ax.bar(over, (load_N - room)[over], bottom=room[over], width=0.9, facecolor="none", edgecolor=DROPPED, linewidth=2)
    if shown.capacity is not None:
        ax.axhline(shown.capacity, color=INK, linewidth=1.5)
    ax.set(xlim=(-0.5, len(load_N) - 0.5), ylim=(0, view.load_limit), ylabel="load\n(tokens)")
    ax.set_xlabel("expert (the numbers belong to this layer alone); line: room; frame above it: dropped; pale: empty seats\n"
                  + "; ".join(f"{name}: {words}" for name, words in list(facts(shown).items())[:3]) + "\n"
                  + "; ".join(f"{name}: {words}" for name, words in list(facts(shown).items())[3:]))
    ax.spines[["top", "right"]].set_visible(False)
