"""Merging experts: what it costs when those most alike in something become one."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base.errors import require
from ..moe.layers import Router, mixtures
from ..moe.routing import Routing
from .interventions import ChangedRouter

Groups = tuple[tuple[int, ...], ...]


def stand_ins(groups: Groups, load_N: Tensor) -> Tensor:
    """Which expert stands for each when those of a group become one, the busiest of the group: [N]."""
    stand_in_N = torch.arange(len(load_N), device="cpu")
    for group in groups:
        stand_in_N[list(group)] = max(group, key=lambda i: load_N[i])
    return stand_in_N


def answered_by(routing: Routing, stand_in_N: Tensor) -> Routing:
    """The same weights, each expert's tokens given to the one that stands in for it."""
    return Routing(routing.logits, stand_in_N.to(routing.expert_ids)[routing.expert_ids], routing.weights)


class MergedRouter(ChangedRouter):
    """A router whose tokens go to the expert that stands for the one they chose: stand_in [N] names it."""

    stand_in: Tensor

    def __init__(self, router: Router, stand_in: Tensor):
        super().__init__(router)
        self.register_buffer("stand_in", stand_in)

    def forward(self, x_TD: Tensor, closed_TN: Tensor | None = None) -> Routing:
        """The `Routing` of x [T, D] among the experts that stand in for others; `closed_TN` as in `Router`."""
        return answered_by(self.router(x_TD, closed_TN), self.stand_in)


def with_merged_experts(model: nn.Module, groups: Groups, load_N: Tensor, layer: int = 0) -> nn.Module:
    """A copy of a model in which the experts of a group are one: the group's busiest expert answers for all.

    Args:
        model: a language model, or a layer by itself.
        groups: expert ids; every expert of the layer is in one group.
        load_N: how busy each expert is.
        layer: which MoE layer, from 0.

    Raises:
        ValueError: if there is no such layer, or an expert is in no group or in two.
    """
    changed, n = copy.deepcopy(model), len(load_N)
    layers = mixtures(changed)
    require(0 <= layer < len(layers), f"layer is {layer}; expected 0 … {len(layers) - 1}, one of the model's MoE layers")
    merged = layers[layer]
    require(sorted(i for group in groups for i in group) == list(range(n)),
            f"the groups {groups} must hold each of the {n} experts once")
    merged.router = MergedRouter(merged.router, stand_ins(groups, load_N).to(merged.router.weight.device))
    return changed.eval()


@dataclass(frozen=True, eq=False)
class Merging:
    """What it costs to merge experts, the most similar first.

    Args:
        similarity: [N, N], symmetric.
        thresholds: merges + 1 falling numbers, the similarity at which each merge happens; the first is infinite, for none.
        groups: merges + 1 partitions of the experts, see `with_merged_experts`.
        losses: merges + 1 measured losses.
    """

    similarity: Tensor
    thresholds: tuple[float, ...]
    groups: tuple[Groups, ...]
    losses: tuple[float, ...]


def merging(similarity: Tensor, merges: int, loss_of: Callable[[Groups], float]) -> Merging:
    """Merge the experts of one layer step by step, and measure the loss after every step.

    Two groups are as similar as their experts are on average; the most similar two become one.

    Args:
        similarity: [N, N] of the layer's experts.
        merges: how many steps, at most N - 1.
        loss_of: the groups whose experts are one -> the loss, e.g. of `with_merged_experts`.
    """
    thresholds, partitions = merge_order(similarity, merges)
    return Merging(similarity, thresholds, partitions, tuple(map(loss_of, partitions)))


def merge_order(similarity: Tensor, merges: int) -> tuple[tuple[float, ...], tuple[Groups, ...]]:
    """The thresholds and the groups of a `Merging`, without a loss.

    Args:
        similarity: [N, N], symmetric.
        merges: how many steps, at most N - 1.

    Raises:
        ValueError: if there are more merges than N - 1.
    """
    n = len(similarity)
    require(0 <= merges < n, f"{n} experts can be merged at most {n - 1} times, not {merges}")
    groups: Groups = tuple((i,) for i in range(n))
    thresholds, partitions = [math.inf], [groups]
    for _ in range(merges):
        member_GN = torch.zeros(len(groups), n, dtype=torch.float64, device="cpu")
        for i, group in enumerate(groups):
            member_GN[i, list(group)] = 1 / len(group)
        mean_GG = member_GN @ similarity.cpu().double() @ member_GN.T
        mean_GG = mean_GG.masked_fill(torch.ones_like(mean_GG, dtype=torch.bool).tril(), -math.inf)
        a, b = divmod(int(mean_GG.argmax()), len(groups))
        thresholds.append(mean_GG[a, b].item())
        joined = tuple(sorted(groups[a] + groups[b]))
        groups = tuple(sorted([group for i, group in enumerate(groups) if i not in (a, b)] + [joined]))
        partitions.append(groups)
    return tuple(thresholds), tuple(partitions)


def random_similarity(num_experts: int, seed: int) -> Tensor:
    """A similarity that says nothing, [N, N]: merging by it is the control of every other merging."""
    drawn = torch.rand(num_experts, num_experts, generator=torch.Generator().manual_seed(seed), device="cpu").triu(diagonal=1)
    return (drawn + drawn.T).fill_diagonal_(1.0)
