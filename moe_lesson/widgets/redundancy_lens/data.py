"""The redundancy lens: which experts of one layer are alike, by three meanings of the word, and what merging them costs.

Every loss was measured before the widget opened; the slider only reads.
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
from ...measure.merging import Merging, merging, random_similarity, with_merged_experts
from ...moe.layers import moe_layers
from ..kit.base import LessonWidget, one_of, within

KINDS = ("outputs", "weights", "co-routing")  # what "alike" can mean
ORDERS = ("by number", "by group")
MOST = 128  # experts: a cell of two pixels


class RedundancyLens(LessonWidget):
    """Choose what makes two experts alike, merge the most alike ones, and read the loss that was measured for it.

    Args:
        mergings: "outputs", "weights" and "co-routing", or some of them -> a `Merging` of the same layer.
        origin: where the layer comes from, shown on the widget's face: "trained", "toy" or "synthetic".
        control: losses after 0, 1, 2 … merges of random pairs: [merges + 1], or [Z, merges + 1] with one row per draw.
        unit: what the loss is, e.g. "test loss (nats per byte)".

    Traits to read, set and observe: `kind` (a key of `mergings`), `merges` (0 … as many as this kind has recorded), `order`
    ("by number", or "by group": those that merge stand together), `pair` (two expert ids, or None). To read: `kinds` (name and
    losses of each) and `control` (mean, low and high over the draws).

    Raises:
        ValueError: if a merging contradicts itself, the others or the control.
    """

    unit = Unicode().tag(sync=True)
    num_experts = Int().tag(sync=True)
    kinds = List(Dict()).tag(sync=True)  # name, thresholds [merges], losses [merges + 1], leaders [merges + 1, N]: lowest id
    similarity = Bytes().tag(sync=True)  # float32 [N, N] of each kind, one after the other
    control = Dict().tag(sync=True)  # mean, low and high [merges + 1] over the draws, and how many draws

    kind = Unicode().tag(sync=True)
    merges = Int(0).tag(sync=True)
    order = Unicode().tag(sync=True)
    pair = List(Int(), None, allow_none=True).tag(sync=True)

    def __init__(self, mergings: Mapping[str, Merging], *, origin: str, control: Sequence[float] | Sequence[Sequence[float]],
                 unit: str, title: str = "redundancy lens"):
        require(isinstance(unit, str) and bool(unit.strip()), f"unit is {unit!r}; say what the loss is, as 'nats per byte'")
        require(isinstance(mergings, Mapping) and len(mergings) > 0 and set(mergings) <= set(KINDS),
                f"mergings is {mergings!r:.60}; expected a Merging for one or more of {', '.join(KINDS)}")
        kinds = [{"name": name, **record_of(mergings[name], name)} for name in KINDS if name in mergings]
        matrices = [matrix_of(mergings[kind["name"]].similarity, kind["name"]) for kind in kinds]
        num_experts = len(matrices[0])
        require(all(len(matrix) == num_experts for matrix in matrices),
                f"the mergings have {[len(matrix) for matrix in matrices]} experts; show one layer in one lens")
        band = band_of(control, max(len(kind["losses"]) for kind in kinds))
        unmerged = [*(kind["losses"][0] for kind in kinds), band["low"][0], band["high"][0]]
        require(all(math.isclose(loss, unmerged[0], rel_tol=1e-4, abs_tol=1e-9) for loss in unmerged),  # a GPU rounds
                f"mergings and control start at losses {unmerged}; measure the unmerged layer once, on the same data")
        start = {"kind": kinds[0]["name"], "merges": min(num_experts // 4 or 1, len(kinds[0]["thresholds"])),
                 "order": "by number", "pair": None}
        super().__init__(title=title, origin=origin, unit=unit, num_experts=num_experts, kinds=kinds,
                         similarity=b"".join(matrix.tobytes() for matrix in matrices), control=band, start=start)

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

        Raises:
            ValueError: if the model has no such layer, or more merges are asked for than its experts allow.
        """
        layers = moe_layers(model)
        require(0 <= layer < len(layers), f"layer is {layer}; this model has {len(layers)} MoE layers, counted from 0")
        moe = layers[layer]
        with torch.no_grad():
            routing = moe.router(x_TD).detach()

        def merged(similarity: Tensor) -> Merging:
            return merging(similarity, merges, lambda groups: loss_of(with_merged_experts(model, groups, routing.load, layer)))

        alike = {"outputs": output_similarity(expert_outputs(moe, x_TD)), "weights": weight_similarity(moe),
                 "co-routing": co_routing(routing)}
        control = [merged(random_similarity(routing.num_experts, seed)).losses for seed in range(draws)]
        return cls({kind: merged(similarity) for kind, similarity in alike.items()}, origin=origin, control=control, unit=unit,
                   title=title)

    @property
    def recorded(self) -> int:
        """How many merges the kind that is shown has."""
        return next(len(kind["thresholds"]) for kind in self.kinds if kind["name"] == self.kind)

    @traitlets.validate("kind", "order")
    def _known(self, proposal):
        return one_of(proposal, {"kind": [kind["name"] for kind in self.kinds], "order": ORDERS})

    @traitlets.validate("merges")
    def _recorded(self, proposal):
        return within(proposal, {"merges": (0, self.recorded)})

    @traitlets.validate("pair")
    def _two_experts(self, proposal):
        pair = proposal["value"]
        if pair is not None and not (len(pair) == 2 and all(0 <= expert < self.num_experts for expert in pair)):
            raise traitlets.TraitError(f"pair is {pair}; expected two experts of 0 … {self.num_experts - 1}, or None")
        return pair

    @traitlets.observe("kind")
    def _no_more_than_recorded(self, _):
        self.merges = min(self.merges, self.recorded)


def record_of(merging: Merging, name: str) -> dict:
    """The merges of one kind: who is one expert, from which similarity on, and what loss was measured."""
    here = f"the merging by {name}"
    require(isinstance(merging, Merging), f"{here} is {type(merging).__name__}; expected a Merging")
    thresholds, losses = list(map(float, merging.thresholds)), list(map(float, merging.losses))
    sizes, n = (len(thresholds), len(merging.groups), len(losses)), len(merging.similarity)
    require(len(set(sizes)) == 1 and sizes[0] >= 2,
            f"{here} has {sizes[0]} thresholds, {sizes[1]} groups and {sizes[2]} losses; expected as "
            "many of each, and at least two")
    require(all(map(math.isfinite, losses)), f"a loss of {here} is NaN or infinite; look for a diverged model")
    require(thresholds[0] == math.inf and all(map(math.isfinite, thresholds[1:])),
            f"the thresholds of {here} are {thresholds}; expected inf for no merge, then numbers")
    for merges, groups in enumerate(merging.groups):
        require(len(groups) == n - merges and sorted(expert for group in groups for expert in group) == list(range(n)),
                f"after {merges} merges {here} has the groups {groups}; expected {n - merges}, with each of {n} experts once")
    leaders = [[next(min(group) for group in groups if expert in group) for expert in range(n)] for groups in merging.groups]
    return {"thresholds": thresholds[1:], "losses": losses, "leaders": leaders}


def matrix_of(similarity: Tensor, name: str) -> ndarray:
    """The similarities as float32 [N, N] within -1 … 1."""
    matrix = np.asarray(similarity.detach().float().cpu(), np.float32)
    here = f"the similarity by {name}"
    require(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and 2 <= len(matrix) <= MOST,
            f"{here} has shape {tuple(matrix.shape)}; expected [N, N] with N of 2 … {MOST} experts")
    require(bool(np.isfinite(matrix).all()), f"{here} holds NaN or infinity; look for an expert of all zeros")
    require(bool((np.abs(matrix) <= 1.001).all()), f"{here} reaches {np.abs(matrix).max():g}; expected -1 … 1")
    require(np.allclose(matrix, matrix.T, rtol=0, atol=1e-3), f"{here} is not symmetric; expected the same for i, j as for j, i")
    return matrix.clip(-1, 1)


def band_of(control, expected: int) -> dict:
    """Mean and range of the random merges, cut to as many losses as the kinds have recorded."""
    try:
        losses = np.atleast_2d(np.asarray(control, np.float64))
    except (TypeError, ValueError) as wrong:
        raise ValueError(f"the control is {control!r:.60}; expected losses, as many for every draw") from wrong
    require(losses.ndim == 2 and len(losses) > 0 and losses.shape[1] >= expected,
            f"the control has shape {losses.shape}; expected {expected} losses or more for each draw: one unmerged, and one "
            "after each merge")
    losses = losses[:, :expected]
    require(bool(np.isfinite(losses).all()), "a loss of the control is NaN or infinite; look for a diverged model")
    return {"mean": losses.mean(0).tolist(), "low": losses.min(0).tolist(), "high": losses.max(0).tolist(),
            "draws": len(losses)}


