"""Balance: what keeps a router from sending everything to a few experts.

Every loss is a pure function of what the router decided; DeepSeek-V3's bias moves outside the gradient.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..base.errors import positive_number, require, whole_number
from .layers import LOG_SCORES
from .routing import Routing


def shares(routing: Routing, score: str = "softmax") -> Tensor:
    """The router's probabilities of all N experts, [T, N], each row with sum 1; `score` as in the router."""
    require(score in LOG_SCORES, f"unknown score {score!r}; choose one of {', '.join(LOG_SCORES)}")
    return LOG_SCORES[score](routing.logits).softmax(dim=-1)  # the scores over their sum, however small they are


def balance_loss(routing: Routing, score: str = "softmax") -> Tensor:
    """DeepSeekMoE's expert-level balance loss Σ f_i P_i, 1 when balanced (arXiv 2401.06066, eq. 12–14).

    f_i = N/(K·T) · number of tokens that chose expert i carries no gradient; P_i = the mean probability of expert i does.
    Switch Transformer's α N Σ f_i P_i is the same at K = 1 (arXiv 2101.03961, eq. 4–6). Libraries that leave out the
    division by K have a balanced value of K.

    Args:
        routing: the decisions for T tokens.
        score: what turns the logits into probabilities, as in the router.

    Returns: a scalar; multiply it by the balance factor α.

    Raises:
        ValueError: for an unknown score.
    """
    if not routing.num_tokens:
        return routing.logits.sum()
    probs_TN = shares(routing, score)
    f_N = routing.load * (routing.num_experts / (routing.top_k * routing.num_tokens))
    return (f_N.to(probs_TN.dtype) * probs_TN.mean(dim=0)).sum()


def sequence_balance_loss(routing: Routing, score: str = "softmax", sequences: int = 1) -> Tensor:
    """The balance loss of each sequence by itself, then their mean: every sequence is to use all experts
    (DeepSeek-V3, arXiv 2412.19437, eq. 17–20).

    Args:
        routing: the decisions for T tokens, sequence after sequence, all of one length.
        score: as in the router.
        sequences: how many there are.

    Returns: a scalar, 1 when every sequence is balanced.

    Raises:
        ValueError: for an unknown score, or if the tokens are not so many equal sequences.
    """
    return torch.stack([balance_loss(part, score) for part in routing.split(sequences)]).mean()


def squared_variation(amount_N: Tensor) -> Tensor:
    """The squared coefficient of variation, variance / mean²: 0 when all N amounts are equal, N - 1 when one has all."""
    return amount_N.var(correction=0) / (amount_N.mean() ** 2 + 1e-10)


def importance_loss(routing: Routing) -> Tensor:
    """CV² of the experts' importance, the sum of their weights over the tokens (Shazeer et al., arXiv 1701.06538, eq. 6–7)."""
    return squared_variation(routing.gates.sum(dim=0))


def load_loss(routing: Routing) -> Tensor:
    """CV² of a smooth load: the chance of each expert to be chosen if its noise were drawn again, summed over the tokens
    (Shazeer et al., arXiv 1701.06538, eq. 8–11).

    Args:
        routing: of a noisy router in training.

    Raises:
        ValueError: if the routing has no noise: without noise the chance is 0 or 1, and has no gradient.
    """
    if routing.noise_std is None or routing.clean_logits is None:
        raise ValueError("this routing has no noise, and the load loss is about noise: use a router with noisy=True, in training "
                         "mode")
    if routing.top_k == routing.num_experts:
        return routing.logits.sum() * 0  # everybody is always chosen
    best_TK = routing.logits.topk(routing.top_k + 1, dim=-1).values
    kth_T1, next_T1 = best_TK[:, -2:-1], best_TK[:, -1:]
    to_beat_TN = torch.where(routing.logits >= kth_T1, next_T1, kth_T1)  # the k-th best of the others
    chance_TN = torch.special.ndtr((routing.clean_logits - to_beat_TN) / routing.noise_std)
    return squared_variation(chance_TN.sum(dim=0))


def z_loss(routing: Routing) -> Tensor:
    """The mean of (log Σ exp logit)²: keeps logits small, so that low precision can hold them (ST-MoE, arXiv 2202.08906)."""
    return routing.logits.logsumexp(dim=-1).square().mean() if routing.num_tokens else routing.logits.sum()


# What a training may be told to add to its loss: (routing, the router's score, number of sequences) -> a scalar.
LOSSES: dict[str, Callable[[Routing, str, int], Tensor]] = {
    "batch": lambda routing, score, sequences: balance_loss(routing, score),
    "sequence": sequence_balance_loss,
    "importance": lambda routing, score, sequences: importance_loss(routing),
    "load": lambda routing, score, sequences: load_loss(routing),
    "z": lambda routing, score, sequences: z_loss(routing),
}
BIAS = "bias"  # no loss: a rate at which the selection bias moves after every step


def checked_balance(balance: Mapping[str, float]) -> dict[str, float]:
    """The balancing of a training, e.g. {"batch": 0.01} or {"importance": 0.1, "load": 0.1} or {"bias": 0.001} or {}.

    Raises:
        ValueError: for an unknown method, or a strength that is negative or not finite.
    """
    require(isinstance(balance, Mapping), f"balance is {balance!r}; expected names and strengths, such as {{'batch': 0.01}}")
    for method, strength in balance.items():
        require(method in LOSSES or method == BIAS,
                f"unknown way to balance {method!r}; choose some of {', '.join([*LOSSES, BIAS])}")
        positive_number(f"the strength of {method!r}", strength, or_zero=True)
    return dict(balance)


def update_bias(bias_N: Tensor, load_N: Tensor, rate: float) -> Tensor:
    """DeepSeek-V3's balancing without a loss: the bias of a crowded expert goes down by `rate`, of an idle one up
    (arXiv 2408.15664, algorithm 1).

    Args:
        bias_N: what is added to the scores to choose, never to weigh.
        load_N: how many tokens chose each expert in the last batch.
        rate: γ.

    Returns: the new bias [N].
    """
    load_N = load_N.to(bias_N.device)
    crowded_N = (len(load_N) * load_N - load_N.sum()).sign()  # of whole numbers, so that no dtype rounds a load
    return bias_N - rate * crowded_N.to(bias_N.dtype)


def keep_within(routing: Routing, capacity: int, by: str = "order") -> Tensor:
    """Which choices an expert with room for `capacity` tokens can take.

    Args:
        routing: the decisions for T tokens, in the order of the batch.
        capacity: tokens that one expert takes at most, at least 0.
        by: who comes first: "order", as the tokens stand in the batch, all first choices before all second ones (GShard,
            arXiv 2006.16668, algorithm 1), or "weight", the highest weight first (V-MoE's batch-prioritised routing,
            arXiv 2106.05974, section 4.1, with each expert ranking for itself).

    Returns: [T, K] True where the choice is kept, False where the token is dropped.

    Raises:
        ValueError: for a capacity that is no whole number of at least 0, or an unknown rule of who comes first.
    """
    whole_number("capacity", capacity, least=0)
    check_capacity(by=by)
    queue = routing.expert_ids.T.flatten()  # choice k of token t stands at k·T + t: first choices first
    first = torch.arange(len(queue), device=queue.device)
    if by == "weight":
        first = routing.weights.detach().T.flatten().argsort(descending=True, stable=True)
    ahead = torch.nn.functional.one_hot(queue[first], routing.num_experts).cumsum(dim=0)
    place = ahead.gather(1, queue[first, None])[:, 0] - 1  # how many of the same expert stand before it
    kept = torch.empty_like(queue, dtype=torch.bool)
    kept[first] = place < capacity
    return kept.view(routing.top_k, -1).T


def check_capacity(factor: float = 0, by: str = "order") -> None:
    """Refuse a factor that is no number of at least 0, and an unknown rule of who comes first."""
    positive_number("the capacity factor", factor, or_zero=True)
    require(by in ("order", "weight"), f"by is {by!r}; choose order or weight")


def capacity_for(routing: Routing, factor: float) -> int:
    """Room of one expert: factor · K·T/N tokens, rounded up (Switch Transformer, arXiv 2101.03961, eq. 3)."""
    check_capacity(factor)
    room = factor * routing.top_k * routing.num_tokens / routing.num_experts
    return math.ceil(round(room, 6))  # 1.1 · 50 is 55.000000000000007 in floating point, and 55 is meant


def with_capacity(routing: Routing, factor: float, by: str = "order") -> Routing:
    """The same routing with a limited room for each expert: a dropped choice keeps its place and gets the weight 0, so the
    token goes on with what is left, or passes the layer by on the residual (Switch Transformer, section 2.2)."""
    return routing.reweighted(routing.weights * keep_within(routing, capacity_for(routing, factor), by))
