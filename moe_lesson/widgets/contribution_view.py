"""The contribution view: how loud the shared and the routed part of an MoE layer are for each token, beside no training.

A layer's output is the sum of the two parts. The functions under "words" are twins of those in contribution_view.js.
Letters: L layers, T tokens, D model width, N routed experts, K active experts.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from numpy import ndarray
from torch import Tensor
from traitlets import Bytes, Dict, Int, List, Unicode

from ..base.errors import require
from ..base.text import byte_texts, to_bytes
from ..lm.model import LanguageModel, evaluating
from ..measure.instruments import layer_inputs, shared_and_routed
from ..moe.layers import MoE, moe_layers
from ..moe.routing import Routing
from ..teach.plots import drawable, png
from .base import LessonWidget, dress_table, module_source, one_of, stylesheet, within
from .common import check_origin, count, fixed, listed, percent, rounded, visible

IN_TEXT, BY_SHARE = "as in the text", "by the routed part's share"
ORDERS = {IN_TEXT: "as in the text", BY_SHARE: "largest share of the routed part first"}
KINDS = ("letter", "space", "digit", "sign", "other")
MOST_TOKENS = 300  # columns: more could not be told apart


@dataclass(frozen=True)
class Contribution:
    """What the two parts of one layer give to each token.

    Args:
        shared_T: length of the shared experts' output, not negative.
        routed_T: length of the routed experts' weighted sum, not negative.
        cosine_T: of the two: 1 if they point the same way, 0 at right angles, -1 if they cancel.
        expert_ids, weights: which routed experts each token chose, [T, K].
    """

    shared_T: ndarray
    routed_T: ndarray
    cosine_T: ndarray
    expert_ids: ndarray
    weights: ndarray

    @classmethod
    def of(cls, shared_TD: Tensor, routed_TD: Tensor, routing: Routing) -> Contribution:
        """The lengths and the cosine of two parts, see `shared_and_routed`."""
        shared_TD, routed_TD = shared_TD.detach().double().cpu(), routed_TD.detach().double().cpu()
        cosine_T = F.cosine_similarity(shared_TD, routed_TD, dim=-1)
        return cls(*(part.numpy() for part in (shared_TD.norm(dim=-1), routed_TD.norm(dim=-1), cosine_T,
                                               routing.expert_ids.detach().cpu(), routing.weights.detach().double().cpu())))

    @property
    def share_T(self) -> ndarray:
        """The shared part's share of the two lengths: |shared| / (|shared| + |routed|)."""
        return self.shared_T / (self.shared_T + self.routed_T)


@torch.no_grad()
def contributions(model: LanguageModel, text: str | bytes) -> list[Contribution]:
    """What the two parts of every MoE layer give to each byte of a text.

    Raises:
        ValueError: if a layer of the model has no shared expert.
    """
    check_model(model)
    ids = torch.tensor([list(to_bytes(text))], device=model.embedding.weight.device)
    with evaluating(model):
        return [Contribution.of(*shared_and_routed(layer, x_TD), layer.router(x_TD))
                for layer, x_TD in zip(moe_layers(model), layer_inputs(model, ids))]


class ContributionView(LessonWidget):
    """See how loud the shared and the routed part of an MoE layer are for each token, and whether they agree.

    Args:
        layers: L contributions, one per MoE layer, of the same T tokens (at most 300) and the same K.
        null: the same for an untrained model of the same sizes.
        tokens: T texts.
        width: D; two random directions of D numbers have a cosine within ±2/√D most of the time.
        sizes: N of each layer.
        num_shared: how many shared experts; they run as one FFN.
        origin: where the layers come from, shown on the widget's face: "trained", "toy" or "synthetic".
        name: of the model, shown beside the origin.
        title: the title.
        seed: of the untrained model.

    Traits to read, set and observe: `layer` (0 … L-1), `order` ("as in the text" or "by the routed part's share"),
    `locked_token` (an index in the text, or None). To read: `summary` (what the widget says), `shown` and `shown_null` (the
    `Contribution` of the layer, trained and untrained).

    Raises:
        ValueError: if there is no token or too many, or the contributions do not fit together.

    >>> toy = Contribution(np.array([1.0, 3.0]), np.array([3.0, 1.0]), np.zeros(2), np.zeros((2, 1), int), np.ones((2, 1)))
    >>> view = ContributionView([toy], [toy], "ab", width=4, sizes=[2], num_shared=1, origin="toy")
    >>> view.shown.share_T.tolist(), view.columns
    ([0.25, 0.75], [0, 1])
    """

    _esm = module_source("contribution_view")
    _css = stylesheet("contribution_view")

    title = Unicode().tag(sync=True)
    name = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    seed = Int().tag(sync=True)
    width = Int().tag(sync=True)
    num_shared = Int().tag(sync=True)
    tokens = List(Unicode()).tag(sync=True)
    kinds = List(Unicode()).tag(sync=True)  # of each token, one of KINDS
    sizes = List(Int()).tag(sync=True)  # N of each layer
    top_k = Int().tag(sync=True)
    parts = Bytes().tag(sync=True)  # float64 [2, L, 3, T]: as given and untrained; shared, routed, cosine
    experts = Bytes().tag(sync=True)  # int32 [L, T, K]
    weights = Bytes().tag(sync=True)  # float64 [L, T, K]
    axis = Dict().tag(sync=True)  # top of both lengths and their ticks: one for all layers, orders and the untrained model
    start = Dict().tag(sync=True)  # what Reset goes back to

    layer = Int(0).tag(sync=True)
    order = Unicode(IN_TEXT).tag(sync=True)
    locked_token = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, layers: Sequence[Contribution], null: Sequence[Contribution], tokens: Sequence[str], *, width: int,
                 sizes: Sequence[int], num_shared: int, origin: str = "trained", name: str = "model",
                 title: str = "shared and routed parts", seed: int = 0):
        check_origin(origin)
        require(width >= 1, f"width is {width}; expected the model width D, at least 1")
        require(num_shared >= 1, f"num_shared is {num_shared}; expected at least 1 shared expert")
        require(isinstance(seed, int) and seed >= 0, f"seed is {seed!r}; expected a whole number, 0 or more")
        check_layers(layers, tokens, sizes, "layers")
        check_layers(null, tokens, sizes, "null")
        self._layers, self._null = list(layers), list(null)
        parts = np.array([[(one.shared_T, one.routed_T, one.cosine_T) for one in group] for group in (layers, null)], np.float64)
        start = {"layer": 0, "order": IN_TEXT, "locked_token": None}
        super().__init__(title=title, name=name, origin=origin, seed=seed, width=width, num_shared=num_shared,
                         tokens=[visible(token) for token in tokens], kinds=[kind_of(token) for token in tokens],
                         sizes=list(sizes), top_k=layers[0].expert_ids.shape[1], parts=parts.tobytes(),
                         experts=b"".join(one.expert_ids.astype(np.int32).tobytes() for one in layers),
                         weights=b"".join(one.weights.astype(np.float64).tobytes() for one in layers),
                         axis=axis_of(*parts[:, :, :2].max(axis=(0, 1, 3))), start=start, **start)

    @classmethod
    def of_model(cls, model: LanguageModel, text: str, seed: int = 0, *, origin: str = "trained", name: str = "",
                 title: str = "shared and routed parts") -> ContributionView:
        """What the two parts give to each byte of a text, in a language model and in an untrained one of the same sizes.

        The untrained model is untrained throughout: its layers read its own hidden states, not the trained model's.

        Args:
            model: a `LanguageModel` whose MoE layers all have shared experts.
            text: at most the model's context long.
            seed: of the untrained model's weights.
            origin: "trained" or "toy".
            name: of the model, e.g. "deepseekmoe"; empty names its sizes.
            title: the title.
        """
        check_model(model)
        raw = to_bytes(text)
        require(len(raw) > 0, "the text is empty, so no layer has anything to add to; write at least one letter")
        moes = moe_layers(model)
        sizes = [layer.router.weight.shape[1] for layer in moes]
        num_shared = max(getattr(recipe, "num_shared", 0) for recipe in model.config.recipes)
        return cls(contributions(model, raw), contributions(LanguageModel(model.config, seed), raw), byte_texts(raw),
                   width=model.config.width, sizes=sizes, num_shared=num_shared, origin=origin, title=title, seed=seed,
                   name=name or f"{len(sizes)}-layer MoE of {'/'.join(map(str, dict.fromkeys(sizes)))} + {num_shared} experts")

    @property
    def shown(self) -> Contribution:
        """The layer as given."""
        return self._layers[self.layer]

    @property
    def shown_null(self) -> Contribution:
        """The same layer of the untrained model."""
        return self._null[self.layer]

    @property
    def columns(self) -> list[int]:
        """Which token stands in each column, from the left."""
        tokens = np.arange(len(self.tokens))
        return tokens.tolist() if self.order == IN_TEXT else np.argsort(self.shown.share_T, kind="stable").tolist()

    @property
    def summary(self) -> str:
        """What the widget says, in words."""
        return summary(self)

    def describe(self) -> str:
        experts = "/".join(str(size) for size in dict.fromkeys(self.sizes))
        return (f"{self.name!r}, {self.origin}: {count(len(self.sizes), 'layer')}, {count(len(self.tokens), 'token')}, "
                f"{self.top_k} of {experts} routed experts + {self.num_shared} shared")

    def picture(self) -> bytes:
        return png(draw_contributions(self))

    @traitlets.validate("layer", "locked_token")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, len(self.sizes) - 1), "locked_token": (0, len(self.tokens) - 1)})

    @traitlets.validate("order")
    def _known(self, proposal):
        return one_of(proposal, {"order": ORDERS})


# --- validation -------------------------------------------------------------------------------------------------------


def check_model(model: LanguageModel) -> None:
    """Refuse a model that has no two parts to compare."""
    layers = [block.ffn for block in model.blocks if isinstance(block.ffn, MoE)]
    require(bool(layers) and all(layer.shared is not None for layer in layers),
            "this model has an MoE layer without shared experts, or no MoE layer, so there are no two parts to compare; "
            'take a model whose MoE layers all have them, as shipped_model("deepseekmoe")')


def check_layers(layers: Sequence[Contribution], tokens: Sequence[str], sizes: Sequence[int], name: str) -> None:
    """Refuse what is not the contributions of one text of readable length through one or more layers with the same K."""
    require(isinstance(layers, Sequence) and len(layers) > 0, f"{name} is empty or no list; expected one Contribution per layer")
    require(len(layers) == len(sizes), f"{name} has {count(len(layers), 'layer')}, sizes has {len(sizes)}; give one each")
    require(1 <= len(tokens) <= MOST_TOKENS,
            f"there are {len(tokens)} tokens; the view shows 1 … {MOST_TOKENS}, take a piece of the text")
    for layer, (one, experts) in enumerate(zip(layers, sizes)):
        here = f"{name}[{layer}]"
        require(isinstance(one, Contribution), f"{here} is {type(one).__name__}; expected a Contribution")
        shape = (len(tokens), layers[0].expert_ids.shape[-1])
        for part in ("shared_T", "routed_T", "cosine_T"):
            require(getattr(one, part).shape == shape[:1],
                    f"{here}.{part} has shape {getattr(one, part).shape}; expected one number for each of {shape[0]} tokens")
            require(bool(np.isfinite(getattr(one, part)).all()),
                    f"{here}.{part} holds NaN or infinity; look for a diverged training or a division by zero")
        require(one.expert_ids.shape == one.weights.shape == shape,
                f"{here} has experts {one.expert_ids.shape} and weights {one.weights.shape}; expected [T, K] = {shape}")
        require(0 <= one.expert_ids.min() <= one.expert_ids.max() < experts,
                f"{here}: expert ids run from {one.expert_ids.min()} to {one.expert_ids.max()}; expected 0 to {experts - 1}")
        require(min(one.shared_T.min(), one.routed_T.min()) >= 0, f"{here} has a negative length; a length is 0 or more")
        silent = np.flatnonzero(one.shared_T + one.routed_T == 0)
        require(len(silent) == 0, f"{here}: both parts have length 0 for token {silent[:1]}, so there is no share to show")


def kind_of(token: str) -> str:
    """What kind of byte this is, by its readable name."""
    if token in ("␣", "⏎", "⇥", " ", "\n", "\t"):
        return "space"
    for kind, signs in (("letter", string.ascii_letters), ("digit", string.digits), ("sign", string.punctuation)):
        if len(token) == 1 and token in signs:
            return kind
    return "other"


def axis_of(shared: float, routed: float) -> dict:
    """The ends of the two axes and their ticks. Bars grow with the square root: short ones show beside the longest."""
    ends = {"shared": float(shared) or 1.0, "routed": float(routed) or 1.0}
    root = math.sqrt(max(ends.values()))
    power = 10.0 ** math.floor(math.log10(root))
    step = next(size * power for size in (0.2, 0.5, 1.0, 2.0, 5.0) if root / (size * power) <= 6)
    ticks = [[(step * i) ** 2, f"{(step * i) ** 2:.6g}"] for i in range(1, 7) if step * i <= root]
    return {**ends, "ticks": ticks}


# --- words: the twins of those in contribution_view.js ----------------------------------------------------------------

COLUMNS = ("bytes", "number", "shared part's share", "untrained", "cosine", "untrained")


def median(values: ndarray) -> float:
    return float(np.median(values))


def table_rows(view: ContributionView) -> list[list[str]]:
    """Of all tokens, and of each kind that the text has: how many, and the medians of share and cosine beside the null's."""
    kinds = np.array(view.kinds)
    groups = {"all": kinds != ""} | {kind: kinds == kind for kind in KINDS if kind in view.kinds}
    return [[name, str(int(mine.sum())),
             *(percent(median(one.share_T[mine])) for one in (view.shown, view.shown_null)),
             *(rounded(median(one.cosine_T[mine]), 2) for one in (view.shown, view.shown_null))]
            for name, mine in groups.items()]


def table_title(view: ContributionView) -> str:
    return f"Medians, layer {view.layer + 1}: {view.origin}, and untrained (seed {view.seed})"


def summary(view: ContributionView) -> str:
    """What the view shows, in words."""
    parts = [head_words(view), median_words(view), range_words(view)]
    if view.locked_token is not None:
        parts.append(token_words(view, view.locked_token))
    return " ".join(parts)


def head_words(view: ContributionView) -> str:
    return (f"Layer {view.layer + 1} of {len(view.sizes)}, {view.origin} {view.name}: {count(len(view.tokens), 'token')}, "
            f"{count(view.num_shared, 'shared expert')} for all, K = {view.top_k} of "
            f"{count(view.sizes[view.layer], 'routed expert')}.")


def median_words(view: ContributionView) -> str:
    one, null = view.shown, view.shown_null
    return (f"Median share of the shared part, |shared| / (|shared| + |routed|): {percent(median(one.share_T))} {view.origin}, "
            f"{percent(median(null.share_T))} untrained (seed {view.seed}). Median cosine of the two parts: "
            f"{rounded(median(one.cosine_T), 2)} {view.origin}, {rounded(median(null.cosine_T), 2)} untrained.")


def range_words(view: ContributionView) -> str:
    """From where routing adds least to where it adds most, and how much each part varies."""
    one = view.shown
    least, most = int(one.share_T.argmin()), int(one.share_T.argmax())
    lengths = "; ".join(f"{name} {rounded(part.min(), 2)} … {rounded(part.max(), 2)}"
                        for name, part in (("shared", one.shared_T), ("routed", one.routed_T)))
    return (f"The share runs from {percent(one.share_T[least])} (token {least} '{view.tokens[least]}') to "
            f"{percent(one.share_T[most])} (token {most} '{view.tokens[most]}'). Lengths: {lengths}.")


def token_words(view: ContributionView, token: int) -> str:
    one, null = view.shown, view.shown_null
    chosen = [f"{n} ({fixed(weight, 2)})" for n, weight in zip(one.expert_ids[token].tolist(), one.weights[token].tolist())]
    return (f"Token {token} '{view.tokens[token]}': shared {rounded(one.shared_T[token], 2)}, "
            f"routed {rounded(one.routed_T[token], 2)}, share {percent(one.share_T[token])}; cosine "
            f"{rounded(one.cosine_T[token], 2)}, {angle_words(one.cosine_T[token], view.width)}. "
            f"Untrained: shared {rounded(null.shared_T[token], 2)}, routed {rounded(null.routed_T[token], 2)}, cosine "
            f"{rounded(null.cosine_T[token], 2)}. Routed to {'expert' if len(chosen) == 1 else 'experts'} {listed(chosen)} of "
            "this layer.")


def angle_words(cosine: float, width: int) -> str:
    """Do two directions agree? Two random ones of D numbers have a cosine of 0 ± 1/√D."""
    if abs(cosine) <= 2 / math.sqrt(width):
        return "about at right angles, as two random directions are"
    return "they agree" if cosine > 0 else "they cancel in part"


# --- the picture ------------------------------------------------------------------------------------------------------

ROUTED, SHARED, NULL, INK = "#5b82b8", "#009e73", "#d9660a", "#16191d"
NAMED = 110  # columns that have room for a letter


def draw_contributions(view: ContributionView):
    """Lengths up and down from the text, the share, the cosine, and the table of kinds, on a bare figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.6), layout="constrained")
    up, down = (math.sqrt(view.axis[part]) for part in ("routed", "shared"))
    rows = table_rows(view)
    heights = (3.1, 1.0, 1.0, 0.24 * (len(rows) + 1))
    lengths, share, cosine, table = figure.subplots(4, 1, height_ratios=heights)
    draw_lengths(lengths, view, up, down)
    draw_share(share, view)
    draw_cosine(cosine, view)
    for ax in (lengths, share, cosine):
        ax.set_xlim(-0.5, len(view.tokens) - 0.5)
        ax.set_xticks([])
        ax.spines[["top", "right", "bottom"]].set_visible(False)
    draw_table(table, view, rows)
    figure.suptitle(f"{view.title} · layer {view.layer + 1} of {len(view.sizes)} · {view.origin}: {view.name}\n"
                    f"thin orange line: the same for an untrained model (seed {view.seed}) · order: {ORDERS[view.order]}",
                    parse_math=False)
    return figure


def draw_steps(ax, values: ndarray) -> None:
    """The untrained model's numbers: one thin step for each token."""
    for colour, line in (("white", 3.2), (NULL, 1.6)):  # cut out of the bars
        ax.hlines(values, np.arange(len(values)) - 0.5, np.arange(len(values)) + 0.5, color=colour, linewidth=line)


def draw_lengths(ax, view: ContributionView, up: float, down: float) -> None:
    """Routed up, shared down, on one square-root scale; the tokens between them."""
    columns, gap = view.columns, 0.07 * (up + down)
    one, null = view.shown, view.shown_null
    ax.bar(range(len(columns)), np.sqrt(one.routed_T[columns]), bottom=gap, width=0.86, color=ROUTED)
    ax.bar(range(len(columns)), -np.sqrt(one.shared_T[columns]), bottom=-gap, width=0.86, color=SHARED)
    draw_steps(ax, gap + np.sqrt(null.routed_T[columns]))
    draw_steps(ax, -gap - np.sqrt(null.shared_T[columns]))
    for column in range(0, len(columns), -(-len(columns) // NAMED)):
        chosen = columns[column] == view.locked_token
        ax.text(column, 0, drawable(view.tokens[columns[column]], 3), ha="center", va="center", fontsize=10 if len(columns) < 90
                else 8.5, family=["monospace", "sans-serif"], parse_math=False, fontweight="bold" if chosen else "normal")
    ticks = [(gap + math.sqrt(value), label) for value, label in view.axis["ticks"]]
    ticks += [(-gap - math.sqrt(value), label) for value, label in view.axis["ticks"] if math.sqrt(value) <= down]
    ax.set_yticks(*zip(*ticks), fontsize=10)
    ax.set_ylim(-gap - 1.04 * down, gap + 1.04 * up)
    ax.set_title(f"length of what the layer adds (√ spacing): blue up, the sum of K = {view.top_k} of {view.sizes[view.layer]} "
                 f"routed; green down, {view.num_shared} shared", loc="left", fontsize=11)


def draw_share(ax, view: ContributionView) -> None:
    columns = view.columns
    share = view.shown.share_T[columns]
    ax.bar(range(len(columns)), share, width=0.86, color=SHARED)
    ax.bar(range(len(columns)), 1 - share, bottom=share, width=0.86, color=ROUTED)
    draw_steps(ax, view.shown_null.share_T[columns])
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"], fontsize=10)
    ax.set_title("the shared part's share of the two lengths", loc="left", fontsize=11)


def draw_cosine(ax, view: ContributionView) -> None:
    columns, random = view.columns, 2 / math.sqrt(view.width)
    ax.axhspan(-random, random, color=INK, alpha=0.14, linewidth=0)
    ax.bar(range(len(columns)), view.shown.cosine_T[columns], width=0.86, color=INK, alpha=0.75)
    draw_steps(ax, view.shown_null.cosine_T[columns])
    ax.axhline(0, color=INK, linewidth=1)
    ax.set_ylim(-1, 1)
    ax.set_yticks([-1, 0, 1], ["-1 cancel", "0", "1 agree"], fontsize=10)
    ax.set_title("cosine of the two parts (grey band: two random directions)", loc="left", fontsize=11)


def draw_table(ax, view: ContributionView, rows: list[list[str]]) -> None:
    """The table of the page."""
    ax.set_axis_off()
    ax.set_title(table_title(view), loc="left", fontsize=11, parse_math=False)
    table = ax.table(rows, colLabels=COLUMNS, bbox=(0, 0, 1, 1), edges="horizontal", cellLoc="right", colLoc="right")
    dress_table(table)
