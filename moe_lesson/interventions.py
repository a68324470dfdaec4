"""Interventions: change one thing in a trained model and see what it was good for. The model itself stays as it is."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .dispatch import swiglu
from .instruments import hidden_units
from .layers import DenseFFN, MoE, Router, require
from .model import LanguageModel
from .routing import Routing


def random_router(router: Router, seed: int = 0) -> Router:
    """A router of the same sizes and the same size of weights, drawn at random, without bias: the null of every routing.

    Args:
        router: whose shape, score, gate scale and weight spread to take.
        seed: of the draw.
    """
    null = copy.deepcopy(router)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(router.weight.shape, generator=generator) * router.weight.detach().float().std().cpu()
    with torch.no_grad():
        null.weight.copy_(drawn)
        null.bias.zero_()
    return null


def with_random_routers(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """A copy of a model in which every router is random and everything else is as trained."""
    changed = copy.deepcopy(model)
    for i, block in enumerate(changed.blocks):
        if isinstance(block.ffn, MoE):
            block.ffn.router = random_router(block.ffn.router, seed + i)
    return changed.eval()


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


@torch.no_grad()
def route_beside_null(model: LanguageModel, text: str | bytes, seed: int = 0) -> tuple[list[Routing], list[Routing]]:
    """What the trained routers do with a text, and what random routers would do with the same hidden states.

    Args:
        model: with at least one MoE layer.
        text: at most the model's context, in bytes.
        seed: of the random routers.

    Returns: two lists with one `Routing` for each MoE layer.
    """
    routers = [block.ffn.router for block in model.blocks if isinstance(block.ffn, MoE)]
    seen: list[torch.Tensor] = []
    hooks = [router.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for router in routers]
    try:
        trained = [routing for routing in model.route(text) if routing is not None]
    finally:
        for hook in hooks:
            hook.remove()
    null = [random_router(router, seed + i).eval()(x_TD).detach() for i, (router, x_TD) in enumerate(zip(routers, seen))]
    return trained, [routing.with_tokens(real.tokens) for routing, real in zip(null, trained)]
