"""What a router decided: the record that every layer, instrument and widget shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..base.errors import require


def expert_load(expert_ids: Tensor, num_experts: int) -> Tensor:
    """How many tokens chose each expert.

    Args:
        expert_ids: [T, K] the chosen experts.
        num_experts: N.

    Returns: [N] integers that sum to T·K; 0 for an expert that nobody chose. As `torch.bincount`, but a GPU need not wait for it.

    Raises:
        ValueError: for ids that are no whole numbers.
    """
    require(not expert_ids.is_floating_point(), f"expert_ids has the dtype {expert_ids.dtype}; expected whole numbers")
    expert_R = expert_ids.flatten().long()
    return expert_R.new_zeros(num_experts).scatter_add(0, expert_R, torch.ones_like(expert_R))


def max_violation(load: Tensor) -> float:
    """MaxVio = (max load - mean load) / mean load; 0 is perfect balance, N/K - 1 is collapse (arXiv 2408.15664)."""
    load = load.cpu().double()
    return ((load.max() - load.mean()) / load.mean()).item() if load.sum() else 0.0


def load_cv(load: Tensor) -> float:
    """Coefficient of variation of the load, standard deviation / mean; 0 is perfect balance (arXiv 1701.06538)."""
    load = load.cpu().double()
    return (load.std(correction=0) / load.mean()).item() if load.sum() else 0.0


def entropy(shares: Tensor) -> float:
    """In nats, of shares that sum to 1."""
    return torch.special.entr(shares).sum().item()


def load_entropy(load: Tensor) -> float:
    """Entropy of the load as a fraction of log N: 1 is perfect balance, log K / log N is the same K experts for all."""
    load = load.cpu().double()
    if not load.sum() or len(load) == 1:
        return 1.0
    return entropy(load / load.sum()) / math.log(len(load))


def idle_experts(load: Tensor) -> int:
    """How many experts got no token."""
    return int((load == 0).sum())


def routed(routings: Iterable[Routing | None]) -> list[Routing]:
    """What the MoE layers of a model decided, without the None that stands for a dense layer."""
    return [routing for routing in routings if routing is not None]


@dataclass(frozen=True, eq=False)
class Routing:
    """The decisions of one router, in one layer, for T tokens.

    Args:
        logits: [T, N] raw router scores that decided, before softmax or sigmoid, any float dtype.
        expert_ids: [T, K] integers in 0 … N-1, the chosen experts, best first; small ones become int64.
        weights: [T, K] what each chosen expert's output is multiplied by.
        tokens: the T tokens as text, or None where nobody needs to read them.
        clean_logits, noise_std: [T, N] what a noisy router would have said without its noise, and the noise's standard
            deviation; None where there was none. They live as long as the training step: `detach` leaves them out.

    Raises:
        ValueError: if the shapes do not fit together, or an id is no expert's (on a GPU nobody waits to look).
    """

    logits: Tensor
    expert_ids: Tensor
    weights: Tensor
    tokens: tuple[str, ...] | None = None
    clean_logits: Tensor | None = None
    noise_std: Tensor | None = None

    def __post_init__(self):
        require(self.logits.ndim == 2, f"logits have shape {tuple(self.logits.shape)}; expected [T tokens, N experts]")
        require(self.expert_ids.shape == self.weights.shape and self.expert_ids.ndim == 2,
                f"expert_ids {tuple(self.expert_ids.shape)} and weights {tuple(self.weights.shape)} must both be "
                "[T tokens, K chosen experts]")
        require(self.expert_ids.shape[0] == self.num_tokens,
                f"{self.expert_ids.shape[0]} rows of expert_ids for {self.num_tokens} rows of logits")
        require(self.top_k <= self.num_experts,
                f"K = {self.top_k} experts chosen out of N = {self.num_experts}; K can't exceed N")
        if self.expert_ids.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):  # by which torch can't index
            object.__setattr__(self, "expert_ids", self.expert_ids.long())
        if not torch.compiler.is_compiling() and self.expert_ids.is_cpu and self.expert_ids.numel():  # a GPU would be waited for
            low, high = (end.item() for end in self.expert_ids.aminmax())
            require(0 <= low and high < self.num_experts,
                    f"expert_ids go from {low} to {high}; the {self.num_experts} experts are 0 … {self.num_experts - 1}")
        require(self.tokens is None or len(self.tokens) == self.num_tokens,
                f"{len(self.tokens or ())} token texts for T = {self.num_tokens} tokens")

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.logits.shape[0]

    @property
    def num_experts(self) -> int:
        """N."""
        return self.logits.shape[1]

    @property
    def top_k(self) -> int:
        """K."""
        return self.expert_ids.shape[1]

    @property
    def load(self) -> Tensor:
        """How many tokens chose each expert: [N] integers."""
        return expert_load(self.expert_ids, self.num_experts)

    @property
    def gates(self) -> Tensor:
        """The weights written out over all experts: [T, N], zero where an expert was not chosen; chosen twice, it has both."""
        return torch.zeros_like(self.logits, dtype=self.weights.dtype).scatter_add(
            1, self.expert_ids, self.weights)

    def split(self, parts: int) -> list[Routing]:
        """The routings of `parts` equal parts of the tokens, in order, e.g. one for each sequence of a batch; without the
        tokens' names and the noise."""
        require(parts >= 1 and self.num_tokens % parts == 0, f"{self.num_tokens} tokens can't be {parts} sequences of one length")
        return [Routing(*one) for one in zip(*(part.chunk(parts) for part in (self.logits, self.expert_ids, self.weights)))]

    def reweighted(self, weights: Tensor) -> Routing:
        """The same choices with other weights [T, K]."""
        return replace(self, weights=weights)

    def with_tokens(self, tokens: Sequence[str]) -> Routing:
        """The same routing, its tokens named: T strings."""
        return replace(self, tokens=tuple(tokens))

    def detach(self) -> Routing:
        """The same routing without gradients, on the CPU."""
        return Routing(self.logits.detach().cpu(), self.expert_ids.cpu(), self.weights.detach().cpu(), self.tokens)


torch.export.register_dataclass(Routing, serialized_type_name="moe_lesson.Routing")  # so that a graph may return one
