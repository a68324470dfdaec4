"""Balance losses: pure functions of what a router decided."""

from __future__ import annotations

from torch import Tensor

from .layers import SCORES
from .routing import Routing


def balance_loss(routing: Routing, score: str = "softmax") -> Tensor:
    """DeepSeekMoE's expert-level balance loss Σ f_i P_i, 1 when balanced (arXiv 2401.06066, eq. 12–14).

    f_i = N/(K·T) · number of tokens that chose expert i carries no gradient; P_i = the mean probability of expert i does.

    Args:
        routing: the decisions for T tokens.
        score: what turns the logits into probabilities, as in the router.

    Returns: a scalar; multiply it by the balance factor α.
    """
    if not routing.num_tokens:
        return routing.logits.sum()
    probs_TN = SCORES[score](routing.logits)
    probs_TN = probs_TN / probs_TN.sum(dim=-1, keepdim=True)
    f_N = routing.load * (routing.num_experts / (routing.top_k * routing.num_tokens))
    return (f_N.to(probs_TN.dtype) * probs_TN.mean(dim=0)).sum()
