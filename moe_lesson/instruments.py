"""Instruments: pure functions from routings to numbers. A number about routing stands beside the same number of a null."""

from __future__ import annotations

import torch

from .layers import require
from .routing import Routing


def shared_experts(routing: Routing) -> tuple[float, float]:
    """How many experts two tokens have in common: the mean over pairs of equal tokens, and over pairs of different ones.

    Two tokens that choose K of N experts at random have K²/N in common.

    Args:
        routing: of T named tokens, among them at least two equal and two different ones.

    Returns: the mean for equal tokens, and for different tokens, both between 0 and K.

    Raises:
        ValueError: if the tokens have no names, or there is no pair of one of the kinds.
    """
    require(routing.tokens is not None, "the tokens of this routing have no names; give them with routing.with_tokens(…)")
    chosen_TN = torch.zeros(routing.logits.shape).scatter(1, routing.expert_ids.cpu(), 1.0)
    common_TT = chosen_TN @ chosen_TN.T
    names = {name: i for i, name in enumerate(dict.fromkeys(routing.tokens))}
    name_T = torch.tensor([names[token] for token in routing.tokens])
    equal_TT = name_T[:, None] == name_T[None, :]
    pairs_TT = torch.ones_like(equal_TT).triu(diagonal=1)
    equal, different = common_TT[equal_TT & pairs_TT], common_TT[~equal_TT & pairs_TT]
    require(len(equal) > 0 and len(different) > 0, "this text has no pair of equal tokens, or none of different ones")
    return equal.mean().item(), different.mean().item()
