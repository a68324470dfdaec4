"""The redundancy lens: which experts of one layer are alike, by three meanings of the word, and what merging them costs.

Every loss was measured before the widget opened; the slider only reads. The functions under "merges" and "words" are twins
of those in redundancy_lens.js. Letters: N experts, M merges, S draws of random merges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import traitlets
from numpy import ndarray
from torch import Tensor, nn
from traitlets import Bytes, Dict, Int, List, Unicode

from ...base.errors import require
from ...measure.instruments import co_routing, expert_outputs, output_similarity, weight_similarity
from ...measure.merging import Merging, merging, random_similarity
from ...moe.layers import moe_layers
from ..kit.base import LessonWidget, one_of
from ..kit.gates import check_origin
from ..kit.words import listed

# What "similar" can mean, and how its curve is drawn: Okabe and Ito's colours, and a dash for eyes that see none.
KINDS = {
    "outputs": {"meaning": "cosine of two experts' outputs, mean over the same tokens", "colour": "#0072b2", "line": "solid"},
    "weights": {"meaning": "cosine of two experts' weights, unit by unit as stored", "colour": "#d55e00", "line": "dashed"},
    "co-routing": {"meaning": "how often one token chooses both, N_ij / √(N_i N_j)", "colour": "#009e73", "line": "dotted"},
}
ORDERS = {
    "by number": "by their number",
    "by group": "in tree order: those that merge stand together",
}
MOST = 128  # experts: a cell of three pixels
LOG_FROM = 8  # the largest loss over the smallest, from which on the axis is logarithmic
class RedundancyLens(LessonWidget):
    """Choose what makes two experts alike, merge the most alike ones, and read the loss that was measured for it.

    Args:
        mergings: "outputs", "weights" and "co-routing", or some of them -> a `Merging` of the same layer.
        origin: where the layer comes from, shown on the widget's face: "trained", "toy" or "synthetic".
        control: losses after 0, 1, 2 … merges of random pairs: [M + 1], or [S, M + 1] with one row per draw.
        unit: what the loss is, e.g. "test loss (nats per byte)".
        title: the title.

    Traits to read, set and observe: `kind` (a key of `mergings`), `merges` (0 … as many as this kind has recorded), `order`
    (a key of `ORDERS`), `pair` (two expert ids, or None). To read: `groups` (who is one expert now), `loss`, `summary`
    (what the widget says).

    Raises:
        ValueError: if a merging contradicts itself, the others or the control.
    """

    title = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    unit = Unicode().tag(sync=True)
    num_experts = Int().tag(sync=True)
    kinds = List(Dict()).tag(sync=True)  # name, meaning, colour, line, joins [M, 2], thresholds [M], losses [M + 1]
    similarity = Bytes().tag(sync=True)  # float32 [N, N] of each kind, one after the other
    control = Dict().tag(sync=True)  # mean, low and high [M + 1] over the draws, and how many draws
    axes = Dict().tag(sync=True)  # of the curve: one for all kinds and settings
    digits = Int().tag(sync=True)  # after the decimal point of a loss
    orders = Dict().tag(sync=True)  # name -> the rule in words
    start = Dict().tag(sync=True)  # what Reset goes back to

    kind = Unicode().tag(sync=True)
    merges = Int(0).tag(sync=True)
    order = Unicode().tag(sync=True)
    pair = List(Int(), None, allow_none=True).tag(sync=True)

    def __init__(self, mergings: Mapping[str, Merging], *, origin: str, control: Sequence[float] | Sequence[Sequence[float]],
                 unit: str, title: str = "redundancy lens"):
        check_origin(origin)
        require(isinstance(unit, str) and bool(unit.strip()), f"unit is {unit!r}; say what the loss is, as 'nats per byte'")
        kinds = kinds_of(mergings)
        matrices = [matrix_of(mergings[kind["name"]].similarity, kind["name"]) for kind in kinds]
        num_experts = len(matrices[0])
        band = band_of(control, kinds)
        losses = [loss for kind in kinds for loss in kind["losses"]] + band["low"] + band["high"]
        start = {"kind": kinds[0]["name"], "merges": min(num_experts // 4 or 1, len(kinds[0]["joins"])),
                 "order": "by number", "pair": None}
        super().__init__(title=title, origin=origin, unit=unit, num_experts=num_experts, kinds=kinds,
                         similarity=b"".join(matrix.tobytes() for matrix in matrices), control=band, orders=ORDERS,
                         axes={"loss": loss_axis(losses), "merges": whole_ticks(most_merges(kinds))},
                         digits=digits_for(losses, kinds[0]["losses"][0]), start=start, **start)

    @classmethod
    def of_layer(cls, model: nn.Module, x_TD: Tensor, loss_of: Callable[[nn.Module], float], *, origin: str, unit: str,
                 layer: int = 0, merges: int = 8, draws: int = 5, title: str = "redundancy lens") -> RedundancyLens:
        """Measure what the lens shows: merges by outputs, weights, co-routing, and, as control, at random.

        Args:
            model: a language model, or a layer by itself.
            x_TD: what goes into the layer, [T, D]: the tokens on which the experts are compared.
            loss_of: model -> loss; called (3 + draws) · (merges + 1) times.
            origin, unit, title: as above.
            layer: which MoE layer, from 0.
            merges: how many, at most N - 1.
            draws: of the control.
        """
        moe = moe_layers(model)[layer]
        with torch.no_grad():
            routing = moe.router(x_TD).detach()

        def merged(similarity: Tensor) -> Merging:
            return merging(model, similarity, routing.load, loss_of, merges, layer)

        alike = {"outputs": output_similarity(expert_outputs(moe, x_TD)), "weights": weight_similarity(moe),
                 "co-routing": co_routing(routing)}
        control = [merged(random_similarity(routing.num_experts, seed)).losses for seed in range(draws)]
        return cls({kind: merged(similarity) for kind, similarity in alike.items()}, origin=origin, control=control, unit=unit,
                   title=title)

    @property
    def now(self) -> dict:
        """What was recorded for the kind that is shown."""
        return next(kind for kind in self.kinds if kind["name"] == self.kind)

    @property
    def groups(self) -> list[list[int]]:
        """Who is one expert after the merges: lists of expert ids, the lowest first."""
        return groups_of(leaders(self.now["joins"], self.num_experts, self.merges))

    @property
    def loss(self) -> float:
        """The measured loss after the merges."""
        return self.now["losses"][self.merges]

    @property
    def matrices(self) -> ndarray:
        """The similarities of all kinds, [kinds, N, N]."""
        return np.frombuffer(self.similarity, np.float32).reshape(len(self.kinds), self.num_experts, self.num_experts)

    @property
    def rows(self) -> list[int]:
        """Which expert stands in each row of the map, and in each column."""
        return tree_order(self.now["joins"], self.num_experts) if self.order == "by group" else list(range(self.num_experts))

    @traitlets.validate("kind", "order")
    def _known(self, proposal):
        return one_of(proposal, {"kind": [kind["name"] for kind in self.kinds], "order": self.orders})

    @traitlets.validate("merges")
    def _recorded(self, proposal):
        last = len(self.now["joins"])
        if not 0 <= proposal["value"] <= last:
            raise traitlets.TraitError(f"merges is {proposal['value']}; expected 0 … {last}, as many as are recorded")
        return proposal["value"]

    @traitlets.validate("pair")
    def _two_experts(self, proposal):
        pair = proposal["value"]
        if pair is not None and not (len(pair) == 2 and all(0 <= expert < self.num_experts for expert in pair)):
            raise traitlets.TraitError(f"pair is {pair}; expected two experts of 0 … {self.num_experts - 1}, or None")
        return pair

    @traitlets.observe("kind")
    def _no_more_than_recorded(self, _):
        self.merges = min(self.merges, len(self.now["joins"]))


# --- validation -------------------------------------------------------------------------------------------------------


def kinds_of(mergings: Mapping[str, Merging]) -> list[dict]:
    """Check the mergings and turn each into what the browser needs; in the order of `KINDS`."""
    require(isinstance(mergings, Mapping) and len(mergings) > 0,
            f"mergings is {mergings!r}; expected a Merging for one or more of {', '.join(KINDS)}")
    unknown = [str(name) for name in mergings if name not in KINDS]
    require(not unknown, f"unknown kind of similarity {', '.join(unknown)}; choose from {', '.join(KINDS)}")
    kinds = [{"name": name, **looks, **record_of(mergings[name], name)} for name, looks in KINDS.items() if name in mergings]
    first = kinds[0]
    for kind in kinds[1:]:
        here = f"the merging by {kind['name']}"
        sizes = [len(mergings[one["name"]].similarity) for one in (kind, first)]
        require(sizes[0] == sizes[1], f"{here} has {sizes[0]} experts, that by {first['name']} has {sizes[1]}; "
                                      "show one layer in one lens")
        require(same(kind["losses"][0], first["losses"][0]),
                f"{here} starts at loss {kind['losses'][0]:g}, that by {first['name']} at {first['losses'][0]:g}; "
                "measure the unmerged layer once, on the same data")
    return kinds


def record_of(merging: Merging, name: str) -> dict:
    """The merges of one kind: who joins whom, at which similarity, and what loss was measured."""
    here = f"the merging by {name}"
    require(isinstance(merging, Merging), f"{here} is {type(merging).__name__}; expected a Merging")
    thresholds, losses = list(map(float, merging.thresholds)), list(map(float, merging.losses))
    sizes = len(thresholds), len(merging.groups), len(losses)
    require(len(set(sizes)) == 1 and sizes[0] >= 2,
            f"{here} has {sizes[0]} thresholds, {sizes[1]} groups and {sizes[2]} losses; expected M + 1 of each, with M >= 1")
    require(all(map(math.isfinite, losses)), f"a loss of {here} is NaN or infinite; look for a diverged model")
    require(thresholds[0] == math.inf and all(map(math.isfinite, thresholds[1:]))
            and all(after <= before + 1e-6 for before, after in zip(thresholds, thresholds[1:])),
            f"the thresholds of {here} are {listed([f'{t:g}' for t in thresholds])}; expected inf, then falling numbers")
    return {"joins": joins_of(merging.groups, len(merging.similarity), here), "thresholds": thresholds[1:], "losses": losses}


def joins_of(groups: Sequence[Sequence[Sequence[int]]], num_experts: int, here: str) -> list[list[int]]:
    """[M, 2] the lowest ids of the two groups that each merge joins, the lower first."""
    states = [sorted(sorted(map(int, group)) for group in state) for state in groups]
    require(states[0] == [[n] for n in range(num_experts)],
            f"{here} must start with every expert of 0 … {num_experts - 1} in a group of its own")
    joins = []
    for merge, (before, after) in enumerate(zip(states, states[1:]), start=1):
        gone = [group for group in before if group not in after]
        come = [group for group in after if group not in before]
        require(len(gone) == 2 and come == [sorted(gone[0] + gone[1])] and len(after) == len(before) - 1,
                f"merge {merge} of {here} does not join two groups and leave the others: {listed(gone)} became {listed(come)}")
        joins.append([gone[0][0], gone[1][0]])
    return joins


def matrix_of(similarity, name: str) -> ndarray:
    """The similarities as float32 [N, N] within -1 … 1."""
    matrix = np.asarray(similarity.detach().float().cpu(), np.float32)
    here = f"the similarity by {name}"
    require(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and 2 <= len(matrix) <= MOST,
            f"{here} has shape {tuple(matrix.shape)}; expected [N, N] with N of 2 … {MOST} experts")
    require(bool(np.isfinite(matrix).all()), f"{here} holds NaN or infinity; look for an expert of all zeros")
    require(bool((np.abs(matrix) <= 1.001).all()), f"{here} reaches {np.abs(matrix).max():g}; expected -1 … 1")
    require(np.allclose(matrix, matrix.T, rtol=0, atol=1e-3), f"{here} is not symmetric; expected the same for i, j as for j, i")
    return matrix.clip(-1, 1)


def band_of(control, kinds: list[dict]) -> dict:
    """Mean and range of the random merges, cut to as many as the kinds have recorded."""
    expected = most_merges(kinds) + 1
    try:
        losses_SM = np.atleast_2d(np.asarray(control, np.float64))
    except (TypeError, ValueError) as wrong:
        raise ValueError(f"the control is {control!r:.60}; expected losses, as many for every draw") from wrong
    require(losses_SM.ndim == 2 and len(losses_SM) > 0 and losses_SM.shape[1] >= expected,
            f"the control has shape {losses_SM.shape}; expected {expected} losses or more for each draw: one unmerged, and one "
            "after each merge")
    losses_SM = losses_SM[:, :expected]
    require(bool(np.isfinite(losses_SM).all()), "a loss of the control is NaN or infinite; look for a diverged model")
    unmerged = kinds[0]["losses"][0]
    require(all(same(loss, unmerged) for loss in losses_SM[:, 0]),
            f"the control starts at loss {listed([f'{loss:g}' for loss in losses_SM[:, 0]])}, the mergings at {unmerged:g}; "
            "measure the unmerged layer once, on the same data")
    return {"mean": losses_SM.mean(0).tolist(), "low": losses_SM.min(0).tolist(), "high": losses_SM.max(0).tolist(),
            "draws": len(losses_SM)}


def same(one: float, other: float) -> bool:
    """Is this the same measurement, but for the rounding of a GPU?"""
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-9)


def most_merges(kinds: list[dict]) -> int:
    return max(len(kind["joins"]) for kind in kinds)


# --- axes and digits: made here alone, fixed by all that was measured -------------------------------------------------


def loss_axis(losses: list[float]) -> dict:
    """Limits and ticks that hold every loss, so that no setting moves them; logarithmic where losses differ many times."""
    low, high = min(losses), max(losses)
    logarithmic = low > 0 and high / low > LOG_FROM
    if logarithmic:
        room = (high / low) ** 0.05
        low, high = low / room, high * room
        ticks = log_ticks(low, high)
    else:
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        low, high = low - room, high + room
        ticks = even_ticks(low, high)
    return {"low": low, "high": high, "log": logarithmic, "ticks": [[tick, f"{tick:g}"] for tick in ticks]}


def even_ticks(low: float, high: float) -> list[float]:
    """Round numbers within the limits, two to six: steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if (high - low) / (factor * power) <= 5)
    return [float(f"{n * step:.6g}") for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within the limits; of many decades the powers alone, or every second, third …"""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for power in powers for tick in (float(f"{factor}e{power}") for factor in (1, 2, 5)) if low <= tick <= high]
    if len(ticks) <= 6:
        return ticks
    tens = [float(f"1e{power}") for power in powers if low <= float(f"1e{power}") <= high]
    return tens[::math.ceil(len(tens) / 6)]


def whole_ticks(last: int) -> list[int]:
    """0 … last in at most seven steps of a round size."""
    step = next(size for size in (1, 2, 5, 10, 20) if last / size <= 7)
    return list(range(0, last + 1, step))


def digits_for(losses: list[float], unmerged: float) -> int:
    """How many digits a loss needs, so that a thousandth of the unmerged one, or of all their spread, can be read."""
    scale = min(value for value in (abs(unmerged), max(losses) - min(losses), 1.0) if value > 0)
    return min(max(3 - math.floor(math.log10(scale)), 3), 12)


# --- merges: the twins of those in redundancy_lens.js -----------------------------------------------------------------


def leaders(joins: list[list[int]], num_experts: int, merges: int) -> list[int]:
    """The lowest id of the group that each expert is in after some merges: [N]."""
    leader = list(range(num_experts))
    for first, second in joins[:merges]:
        leader = [first if one == second else one for one in leader]
    return leader


def groups_of(leader: list[int]) -> list[list[int]]:
    """The experts of each group, lowest ids first."""
    return [[n for n, one in enumerate(leader) if one == first] for first in sorted(set(leader))]


def tree_order(joins: list[list[int]], num_experts: int) -> list[int]:
    """All experts, so that each group of each merge stands together: the second group of a merge follows the first."""
    members = {n: [n] for n in range(num_experts)}
    for first, second in joins:
        members[first] += members.pop(second)
    return [n for group in members.values() for n in group]





SELF, INK, ACCENT = "#9a9a9a", "#16191d", "#d9660a"
