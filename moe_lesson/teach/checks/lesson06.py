"""The checks of lesson 06."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...moe.layers import MoE
from ...moe.routing import Routing
from .kit import check, sizes, wrong_layer


def slips(layer: MoE, x: Tensor) -> dict[str, Tensor]:
    """Outputs of known mistakes."""
    right_y, right = layer(x)
    shared, scores, scale = layer.shared(x), right.logits.softmax(dim=1), layer.router.scale
    routed, raw = right_y - shared, Routing(right.logits, right.expert_ids, scale * scores.gather(1, right.expert_ids))
    return {
        "the shared experts are missing: every token passes through layer.shared, and what it says is added": routed,
        "the routed experts are missing: this is the shared part alone": shared,
        "the gate scale is missing: without it the routed experts whisper beside the shared ones": routed / scale + shared,
        "the gate scale is for the routed experts: the shared ones have no weight": routed + scale * shared,
        "you divided by the gate scale": routed / scale ** 2 + shared,
        "your weights are the raw probabilities: divide those of the chosen by their sum": layer.experts(x, raw) + shared,
        "layer.shared holds all shared experts already, as one FFN: don't multiply by their number": routed + 2 * shared,
        "the shared experts add up, they are no mean": routed + shared / 2,
    }


@check(MoE.forward)
def deepseekmoe(attempt: Callable) -> str | None:
    """What is wrong with a function (layer, x [T, D]) -> y [T, D], Routing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [MoE(6, num_experts=k + more, top_k=k, expert_width=h, num_shared=ks, scale=2.5).double()
                  for k, more, h, ks in ([3, 2, 3, 2], *([k + 1, *rest] for k, *rest in sizes(4)))]
    return wrong_layer(attempt, layers, slips, "y is what the shared experts say, and of the K chosen each one's answer times "
                                               "its weight")
