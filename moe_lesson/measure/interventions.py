"""Interventions: change one thing in a trained model and see how much depends on it. The model itself stays as it is."""

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..base.errors import require, whole_number
from ..lm.model import LanguageModel
from ..moe.balance import check_capacity, with_capacity
from ..moe.dispatch import swiglu
from ..moe.layers import DenseFFN, Router, gate, mixtures
from ..moe.routing import Routing
from .instruments import hidden_units


def with_silent_experts(model: nn.Module) -> nn.Module:
    """A copy of a model whose routed experts all answer nothing; shared experts and the rest are as trained."""
    changed = copy.deepcopy(model)
    for layer in mixtures(changed):
        nn.init.zeros_(layer.experts.w_out)
    return changed.eval()


class FewUnits(DenseFFN):
    """A dense FFN that keeps, for each token, only the hidden units that rank highest; the others count as 0.

    Args:
        ffn: a `DenseFFN`.
        keep: how many units a token keeps.
        rank: (this FFN, activations [..., H]) -> [..., H], what to rank the units by.
    """

    def __init__(self, ffn: DenseFFN, keep: int, rank: Callable[[DenseFFN, Tensor], Tensor]):
        nn.Module.__init__(self)  # the weights are those of the FFN
        self.width, self.hidden, self.w_in, self.w_out = ffn.width, ffn.hidden, ffn.w_in, ffn.w_out
        self.keep, self.rank = keep, rank

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D], by the units that are kept."""
        units = swiglu(x @ self.w_in)
        kept = self.rank(self, units).topk(self.keep, dim=-1).indices
        return torch.zeros_like(units).scatter(-1, kept, units.gather(-1, kept)) @ self.w_out


def with_strongest_units(model: LanguageModel, share: float) -> LanguageModel:
    """A copy of a model whose dense FFNs keep, for each token, the hidden units with the largest contribution to the output.

    Args:
        model: with at least one dense FFN.
        share: of the hidden units to keep, above 0 and at most 1.
    """
    return with_few_units(model, share, itertools.repeat(contributions))


def with_same_units(model: LanguageModel, share: float, ids: Tensor) -> LanguageModel:
    """A control of `with_strongest_units`: all tokens keep the same units, those with the largest mean contribution.

    Args:
        model, share: as there.
        ids: token ids [B, S] of a text over which to take the mean.
    """
    def rank(mean_H: Tensor) -> Callable[[DenseFFN, Tensor], Tensor]:
        return lambda ffn, units: contributions(ffn, mean_H.to(units)).expand_as(units)

    return with_few_units(model, share, (rank(units.abs().mean(dim=0)) for units in hidden_units(model, ids)))


def with_random_units(model: LanguageModel, share: float, seed: int = 0) -> LanguageModel:
    """A control of `with_strongest_units`: each token keeps as many hidden units, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return with_few_units(model, share, itertools.repeat(
        lambda ffn, units: torch.rand(units.shape, generator=generator, device="cpu").to(units.device)))


def contributions(ffn: DenseFFN, units: Tensor) -> Tensor:
    """How long the vector is that each unit adds to the output: |a_h| · ‖v_h‖, [..., H] -> [..., H]."""
    return units.abs() * ffn.w_out.norm(dim=1)


def with_few_units(model: LanguageModel, share: float, ranks: Iterator[Callable[[DenseFFN, Tensor], Tensor]]) -> LanguageModel:
    """A copy of a model whose dense FFNs keep a share of their units, the highest by each one's rank, see `FewUnits`."""
    require(0 < share <= 1, f"share is {share}; keep more than 0 and at most 1 of the hidden units")
    require(any(isinstance(block.ffn, DenseFFN) for block in model.blocks),
            "this model has no dense FFN, so there are no hidden units to keep")
    changed = copy.deepcopy(model)
    for block in changed.blocks:
        if isinstance(block.ffn, DenseFFN):
            block.ffn = FewUnits(block.ffn, max(1, round(share * block.ffn.hidden)), next(ranks))
    return changed.eval()


# ---------------------------------------------------------------------------------------- changed routers and experts


class ChangedRouter(Router):
    """A router changed in one thing; in all else it is the router that it holds, which may itself be a changed one."""

    closes = 0  # how many experts this change takes from each token

    def __init__(self, router: Router):
        nn.Module.__init__(self)
        self.router = router

    _apply = nn.Module._apply  # the router within keeps its own bias

    def __getattr__(self, name: str):
        inner = name in ("width", "top_k", "score", "renormalise", "scale", "weight", "noise", "bias")
        return getattr(self.router, name) if inner else super().__getattr__(name)


def num_open(router: Router) -> int:
    """How many experts each token can still choose from."""
    return num_open(router.router) - router.closes if isinstance(router, ChangedRouter) else router.num_experts


def innermost(router: Router) -> Router:
    """The router as it was trained, within all changes."""
    return innermost(router.router) if isinstance(router, ChangedRouter) else router


class MaskedRouter(ChangedRouter):
    """A router that must do without some experts: they can't be chosen, and it takes the best K of the rest.

    Args:
        router: the router.
        count: how many experts each token must do without, at most N - K.
        seed: None masks the experts with the token's highest scores (DeepSeekMoE, arXiv 2401.06066, section 4.5); a number
            masks as many at random, the control.
    """

    def __init__(self, router: Router, count: int, seed: int | None = None):
        super().__init__(router)
        n, k = num_open(router), router.top_k
        require(0 <= count <= n - k, f"{count} of {n} experts can't be masked: {k} must be left to choose")
        self.closes, self.generator = count, None if seed is None else torch.Generator().manual_seed(seed)

    def forward(self, x_TD: Tensor, closed_TN: Tensor | None = None) -> Routing:
        """The `Routing` of x [T, D] without each token's masked experts; `closed_TN` as in `Router`."""
        rank_TN = gate(x_TD, self.weight)  # a softmax and a sigmoid keep the order of the logits
        if self.generator is not None:
            rank_TN = torch.rand(rank_TN.shape, generator=self.generator, device="cpu").to(rank_TN.device)
        if closed_TN is not None:  # those are gone already
            rank_TN = rank_TN.masked_fill(closed_TN, -torch.inf)
        masked_TN = torch.zeros_like(rank_TN, dtype=torch.bool).scatter(1, rank_TN.topk(self.closes).indices, True)
        return self.router(x_TD, masked_TN if closed_TN is None else masked_TN | closed_TN)


class ClosedRouter(ChangedRouter):
    """A router some of whose experts are gone for all tokens, each of which takes the best K of the rest."""

    closed_N: Tensor

    def __init__(self, router: Router, experts: Sequence[int]):
        super().__init__(router)
        n, k = router.num_experts, router.top_k
        require(all(0 <= i < n for i in experts) and len(set(experts)) <= num_open(router) - k,
                f"experts {list(experts)} of 0 … {n - 1} can't be taken away: {k} must be left to choose")
        self.closes = len(set(experts))
        self.register_buffer("closed_N", torch.zeros(n, dtype=torch.bool, device=router.weight.device))
        self.closed_N[list(experts)] = True

    def forward(self, x_TD: Tensor, closed_TN: Tensor | None = None) -> Routing:
        """The `Routing` of x [T, D] without the experts that are gone; `closed_TN` as in `Router`."""
        gone_TN = self.closed_N.expand(len(x_TD), -1)
        return self.router(x_TD, gone_TN if closed_TN is None else gone_TN | closed_TN)


def with_routers(model: nn.Module, change: Callable[[int, Router], Router]) -> nn.Module:
    """A copy of a model whose MoE layers, counted from 0, have other routers: (layer, router) -> the router in its place."""
    changed = copy.deepcopy(model)
    for i, layer in enumerate(mixtures(changed)):
        layer.router = change(i, layer.router)
    return changed.eval()


def without_experts(model: nn.Module, experts: Sequence[Sequence[int]]) -> nn.Module:
    """A copy of a model from which some routed experts are gone; their tokens go to the next best.

    Args:
        model: a language model, or a layer by itself.
        experts: for each MoE layer the ids of the experts to take away; at least K must be left.

    Raises:
        ValueError: if they are no list for each layer, or fewer than K experts would be left.
    """
    layers = mixtures(model)
    require(isinstance(experts, Sequence) and all(isinstance(gone, Collection) for gone in experts),
            f"experts is {experts!r}; expected a list of expert ids for each MoE layer, such as {[[0]] * len(layers)}")
    require(len(experts) == len(layers), f"experts of {len(experts)} layers were given for {len(layers)} MoE layers")
    return with_routers(model, lambda i, router: ClosedRouter(router, experts[i]))


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
    return with_routers(model, lambda i, router: MaskedRouter(router, round(share * router.num_experts),
                                                              None if seed is None else seed + i))


def cut_experts(w_in: Tensor, w_out: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """Cut every expert into m smaller ones with the m-th part of its hidden units each; they add up to the expert they were.

    Args:
        w_in: [N, D, 2H], the gate's H columns and then the H others.
        w_out: [N, H, D].
        segments: m, a divisor of H.

    Returns: [mN, D, 2H/m] and [mN, H/m, D], the pieces of an expert one after the other.

    Raises:
        ValueError: if m does not divide H.
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
        scale: what the gate scale is multiplied by.

    Raises:
        ValueError: if the model has no MoE layer, a noisy router or one that was changed, or m does not divide H.
    """
    changed = copy.deepcopy(model)
    for layer in mixtures(changed):
        router, experts = layer.router, layer.experts
        require(not isinstance(router, ChangedRouter), "this model's router was changed for the experts as they were; cut the "
                                                       "experts first, then mask, limit or merge the pieces")
        require(router.noise is None, "this model's routers are noisy, with a noise for whole experts; cut a model without noise")
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

    Raises:
        ValueError: if the model has no MoE layer, or K is not 1 … N, closed experts left out.
    """
    whole_number("top_k", top_k)
    changed = copy.deepcopy(model)
    for layer in mixtures(changed):
        n = num_open(layer.router)
        require(1 <= top_k <= n, f"top_k is {top_k}, but each token must go to 1 … {n} of the {n} experts")
        innermost(layer.router).top_k = top_k
    return changed.eval()


def without_shared(model: nn.Module) -> nn.Module:
    """A copy of a model whose shared experts are gone; each token goes to as many more routed ones (section 4.5 there).

    It shows that a model depends on a part that was on all through its training, and not what a model without it can do: the
    control is a model trained without.

    Args:
        model: a language model, or a layer by itself, with shared experts in every MoE layer.

    Raises:
        ValueError: if an MoE layer has no shared expert, or too few experts are left to choose in its place.
    """
    changed = copy.deepcopy(model)
    for layer in mixtures(changed):
        if layer.shared is None:
            raise ValueError("a layer of this model has no shared expert to take away")
        more = layer.shared.hidden // layer.experts.w_out.shape[1]
        require(layer.router.top_k + more <= num_open(layer.router), f"{more} more experts per token are not there to choose")
        innermost(layer.router).top_k += more
        layer.shared = None
    return changed.eval()


class LimitedRouter(ChangedRouter):
    """A router whose experts have a limited room: see `with_capacity`."""

    def __init__(self, router: Router, factor: float, by: str):
        super().__init__(router)
        self.factor, self.by = factor, by

    def forward(self, x_TD: Tensor, closed_TN: Tensor | None = None) -> Routing:
        """The `Routing` of x [T, D] in which full experts drop tokens; `closed_TN` as in `Router`."""
        return with_capacity(self.router(x_TD, closed_TN), self.factor, self.by)


def with_limited_experts(model: nn.Module, factor: float, by: str = "order") -> nn.Module:
    """A copy of a model whose experts take no more than factor · K·T/N of the T tokens that it is given at once.

    Args:
        model: a language model, or a layer by itself.
        factor: the capacity factor; see `capacity_for`.
        by: who comes first, "order" or "weight"; see `keep_within`.

    Raises:
        ValueError: if the factor is below 0 or no number, or nobody comes first by such a rule.
    """
    check_capacity(factor, by)
    return with_routers(model, lambda _, router: LimitedRouter(router, factor, by))
