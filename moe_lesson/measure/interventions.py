"""Interventions: change one thing in a trained model and see what it was good for. The model itself stays as it is."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..base.errors import require
from ..lm.model import LanguageModel
from ..moe.balance import with_capacity
from ..moe.dispatch import swiglu
from ..moe.layers import SCORES, DenseFFN, MoE, Router, choose, gate, moe_layers
from ..moe.routing import Routing
from .instruments import hidden_units


def with_silent_experts(model: LanguageModel) -> LanguageModel:
    """A copy of a model whose routed experts all answer nothing; shared experts and the rest are as trained."""
    changed = copy.deepcopy(model)
    for block in changed.blocks:
        if isinstance(block.ffn, MoE):
            torch.nn.init.zeros_(block.ffn.experts.w_out)
    return changed.eval()


class FewUnits(nn.Module):
    """A dense FFN that keeps, for each token, only the hidden units that rank highest; the others count as 0.

    Args:
        ffn: a `DenseFFN`.
        keep: how many units a token keeps.
        rank: activations [..., H] -> [..., H], what to rank the units by.
    """

    def __init__(self, ffn: DenseFFN, keep: int, rank: Callable[[Tensor], Tensor]):
        super().__init__()
        self.ffn, self.keep, self.rank = ffn, keep, rank

    def forward(self, x: Tensor) -> Tensor:
        units = swiglu(x @ self.ffn.w_in)
        kept = self.rank(units).topk(self.keep, dim=-1).indices
        return torch.zeros_like(units).scatter(-1, kept, units.gather(-1, kept)) @ self.ffn.w_out


def with_strongest_units(model: LanguageModel, share: float) -> LanguageModel:
    """A copy of a model whose dense FFNs keep, for each token, the hidden units with the largest contribution to the output.

    Args:
        model: with at least one dense FFN.
        share: of the hidden units to keep, above 0 and at most 1.
    """
    return with_few_units(model, share, contributions)


def with_same_units(model: LanguageModel, share: float, ids: Tensor) -> LanguageModel:
    """A control of `with_strongest_units`: all tokens keep the same units, those with the largest mean contribution.

    Args:
        model, share: as there.
        ids: token ids [B, S] of a text over which to take the mean.
    """
    layers = [block.ffn for block in model.blocks if isinstance(block.ffn, DenseFFN)]
    means = {ffn: contributions(ffn, units).mean(0) for ffn, units in zip(layers, hidden_units(model, ids))}
    return with_few_units(model, share, lambda ffn, units: means[ffn].expand_as(units))


def with_random_units(model: LanguageModel, share: float, seed: int = 0) -> LanguageModel:
    """A control of `with_strongest_units`: each token keeps as many hidden units, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return with_few_units(model, share, lambda ffn, units: torch.rand(units.shape, generator=generator))


def contributions(ffn: DenseFFN, units: Tensor) -> Tensor:
    """How long the piece is that each unit adds to the output: |a_h| · ‖v_h‖, [..., H] -> [..., H]."""
    return units.abs() * ffn.w_out.norm(dim=1)


def with_few_units(model: LanguageModel, share: float, rank: Callable[[DenseFFN, Tensor], Tensor]) -> LanguageModel:
    """A copy of a model whose dense FFNs keep a share of their units, the highest in a ranking (ffn, units) -> [..., H]."""
    require(0 < share <= 1, f"share is {share}; keep more than 0 and at most 1 of the hidden units")
    changed = copy.deepcopy(model)
    for block, original in zip(changed.blocks, model.blocks):
        if isinstance(original.ffn, DenseFFN):
            block.ffn = FewUnits(block.ffn, max(1, round(share * block.ffn.hidden)), functools.partial(rank, original.ffn))
    return changed.eval()


# -------------------------------------------------------------------------------------- masking, limiting and merging


class MaskedRouter(nn.Module):
    """A router that must do without some experts: they can't be chosen, and it takes the best K of the rest.

    Args:
        router: the router.
        count: how many experts each token must do without, at most N - K.
        seed: None masks the experts with the token's highest scores (DeepSeekMoE, arXiv 2401.06066, section 4.5); a number
            masks as many at random, the control.
    """

    def __init__(self, router: Router, count: int, seed: int | None = None):
        super().__init__()
        n, k = router.weight.shape[1], router.top_k
        require(0 <= count <= n - k, f"{count} of {n} experts can't be masked: {k} must be left to choose")
        self.router, self.count, self.width = router, count, router.width
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def forward(self, x_TD: Tensor) -> Routing:
        logits_TN = gate(x_TD, self.router.weight)
        scores_TN = SCORES[self.router.score](logits_TN)
        rank_TN = scores_TN if self.generator is None else torch.rand(scores_TN.shape, generator=self.generator)
        return chosen_without(self.router, logits_TN, rank_TN.topk(self.count).indices)


def chosen_without(router: Router, logits_TN: Tensor, closed: Tensor) -> Routing:
    """A router's choice where some experts, [T, C] of each token, can't be chosen."""
    # minus infinity and not 0: a bias can lift a 0 above the rest
    scores_TN = SCORES[router.score](logits_TN).scatter(1, closed, -torch.inf)
    return Routing(logits_TN, *choose(scores_TN, router.top_k, bias_N=router.bias, renormalise=router.renormalise,
                                      scale=router.scale))


class ClosedRouter(nn.Module):
    """A router some of whose experts are gone for all tokens, each of which takes the best K of the rest."""

    def __init__(self, router: Router, experts: Sequence[int]):
        super().__init__()
        n, k = router.weight.shape[1], router.top_k
        require(all(0 <= i < n for i in experts) and len(set(experts)) <= n - k,
                f"experts {list(experts)} of 0 … {n - 1} can't be taken away: {k} must be left to choose")
        self.router, self.width = router, router.width
        self.register_buffer("closed", torch.tensor(experts, dtype=torch.long))

    def forward(self, x_TD: Tensor) -> Routing:
        logits_TN = gate(x_TD, self.router.weight)
        return chosen_without(self.router, logits_TN, self.closed.expand(len(logits_TN), -1))


def without_experts(model: nn.Module, experts: Sequence[Sequence[int]]) -> nn.Module:
    """A copy of a model from which some routed experts are gone; their tokens go to the next best.

    Args:
        model: a language model, or a layer by itself.
        experts: for each MoE layer the ids of the experts to take away; at least K must be left.
    """
    changed = copy.deepcopy(model)
    layers = moe_layers(changed)
    require(len(experts) == len(layers), f"experts of {len(experts)} layers were given for {len(layers)} MoE layers")
    for layer, gone in zip(layers, experts):
        layer.router = ClosedRouter(layer.router, gone)
    return changed.eval()


def with_masked_experts(model: nn.Module, share: float, seed: int | None = None) -> nn.Module:
    """A copy of a model in which each token must do without a share of the routed experts of every layer.

    Args:
        model: a language model, or a layer by itself.
        share: of the experts, rounded to whole ones.
        seed: None masks those that the token would choose first; a number masks as many at random, the control.

    Raises:
        ValueError: if fewer than K experts would be left.
    """
    require(0 <= share <= 1, f"share is {share}; expected a share of the experts between 0 and 1")
    changed = copy.deepcopy(model)
    for i, layer in enumerate(moe_layers(changed)):
        count = round(share * layer.router.weight.shape[1])
        layer.router = MaskedRouter(layer.router, count, None if seed is None else seed + i)
    return changed.eval()


def cut_experts(w_in: Tensor, w_out: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """Cut every expert into m smaller ones with the m-th part of its hidden units each; they add up to the expert they were.

    Args:
        w_in: [N, D, 2H], the gate's H columns and then the H others.
        w_out: [N, H, D].
        segments: m, a divisor of H.

    Returns: [mN, D, 2H/m] and [mN, H/m, D], the pieces of an expert one after the other.
    """
    n, d, h = w_in.shape[0], w_in.shape[1], w_out.shape[1]
    require(segments >= 1 and h % segments == 0, f"experts of {h} hidden units can't be cut into {segments} equal pieces")
    pieces_in = w_in.reshape(n, d, 2, segments, h // segments).permute(0, 3, 1, 2, 4)
    return pieces_in.reshape(n * segments, d, -1), w_out.reshape(n * segments, h // segments, d)


def with_cut_experts(model: nn.Module, segments: int, scale: float = 1.0) -> nn.Module:
    """A copy of a model whose routed experts are cut into m pieces, m times as many of them active: what fine-grained
    segmentation is before training makes use of it (DeepSeekMoE, arXiv 2401.06066, section 3.1).

    The pieces of an expert share its logit, so a token goes to the pieces of the experts that it went to.

    Args:
        model: a language model, or a layer by itself.
        segments: m.
        scale: what the gate scale is multiplied with.
    """
    changed = copy.deepcopy(model)
    for layer in moe_layers(changed):
        router, experts = layer.router, layer.experts
        pieces = cut_experts(experts.w_in.detach(), experts.w_out.detach(), segments)
        experts.w_in, experts.w_out = (nn.Parameter(piece.contiguous()) for piece in pieces)
        router.weight = nn.Parameter(router.weight.detach().repeat_interleave(segments, dim=1))
        router.bias = router.bias.repeat_interleave(segments)
        router.top_k, router.scale = router.top_k * segments, router.scale * scale
    return changed.eval()


def with_top_k(model: nn.Module, top_k: int) -> nn.Module:
    """A copy of a model whose routers choose another number of experts (DeepSeekMoE, arXiv 2401.06066, section 4.5, figure 5).

    Args:
        model: a language model, or a layer by itself.
        top_k: K, routed experts per token, 1 … N.
    """
    changed = copy.deepcopy(model)
    for layer in moe_layers(changed):
        n = layer.router.weight.shape[1]
        require(1 <= top_k <= n, f"top_k is {top_k}, but each token must go to 1 … {n} of the {n} experts")
        layer.router.top_k = top_k
    return changed.eval()


def without_shared(model: nn.Module) -> nn.Module:
    """A copy of a model whose shared experts are gone; each token goes to as many more routed ones (section 4.5 there).

    It shows that a model depends on a part that was on all through its training, and not what a model without it can do: the
    control is a model trained without.

    Args:
        model: a language model, or a layer by itself, with shared experts in every MoE layer.
    """
    changed = copy.deepcopy(model)
    for layer in moe_layers(changed):
        require(layer.shared is not None, "a layer of this model has no shared expert to take away")
        layer.router.top_k += layer.shared.hidden // layer.experts.w_out.shape[1]
        layer.shared = None
    return changed.eval()


class LimitedRouter(nn.Module):
    """A router whose experts have a limited room: see `with_capacity`."""

    def __init__(self, router: nn.Module, factor: float, by: str):
        super().__init__()
        self.router, self.factor, self.by, self.width = router, factor, by, router.width

    def forward(self, x_TD: Tensor) -> Routing:
        return with_capacity(self.router(x_TD), self.factor, self.by)


def with_limited_experts(model: nn.Module, factor: float, by: str = "order") -> nn.Module:
    """A copy of a model whose experts take no more than factor · K·T/N of the T tokens that it is given at once.

    Args:
        model: a language model, or a layer by itself.
        factor: the capacity factor; see `capacity_for`.
        by: who comes first, "order" or "weight"; see `keep_within`.
    """
    changed = copy.deepcopy(model)
    for layer in moe_layers(changed):
        layer.router = LimitedRouter(layer.router, factor, by)
    return changed.eval()
