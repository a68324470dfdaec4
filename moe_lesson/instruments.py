"""Instruments: pure functions from routings to numbers. A number about routing stands beside the same number of a null."""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import swiglu
from .layers import DenseFFN, require
from .model import LanguageModel, evaluating
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


@torch.no_grad()
def hidden_units(model: LanguageModel, ids: Tensor) -> list[Tensor]:
    """The activations of the hidden units of every dense FFN: silu(x W_gate) · (x W_up), what W_out then mixes.

    Args:
        model: with at least one dense FFN.
        ids: token ids [B, S].

    Returns: one tensor [B·S, H] per dense layer.
    """
    layers = [block.ffn for block in model.blocks if isinstance(block.ffn, DenseFFN)]
    require(bool(layers), "this model has no dense FFN, so there are no hidden units to read")
    found: list[Tensor] = []
    hooks = [ffn.register_forward_pre_hook(lambda ffn, inputs: found.append(swiglu(inputs[0] @ ffn.w_in))) for ffn in layers]
    try:
        with evaluating(model):
            model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return [units.flatten(0, 1) for units in found]
