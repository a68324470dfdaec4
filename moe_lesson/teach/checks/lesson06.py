"""The checks of lesson 06."""

from collections.abc import Callable

import torch

from ...measure import instruments
from ...moe import layers
from .kit import Check, called_pair, drawn, must_be_tensor, must_have_shape, same


def diagnose_shared_and_routed(attempt: Callable) -> str | None:
    """What is wrong with a function (layer, x [T, D]) -> shared [T, D], routed [T, D]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = layers.MoE(6, num_experts=5, top_k=2, expert_width=3, num_shared=2, scale=2.0).double().requires_grad_(False)
    x = drawn(7, 6)
    shared, routed = map(must_be_tensor, called_pair(attempt, "the shared part and the routed part", layer, x))
    right_shared, right_routed = instruments.shared_and_routed(layer, x)
    for name, part in (("the shared part", shared), ("the routed part", routed)):
        must_have_shape(part, *x.shape, part=name)
    if same(shared, right_routed) and same(routed, right_shared):
        return "the two have changed places: the shared part comes first"
    if same(routed, right_shared + right_routed):
        return "what you call routed is the whole output: take the shared part away from it"
    if same(shared, right_shared + right_routed):
        return "what you call shared is the whole output: layer.shared(x) is the shared part alone"
    if same(shared, 2 * right_shared):
        return "layer.shared holds both shared experts already, as one FFN: don't multiply by their number"
    if same(shared, right_shared / 2) or same(routed, right_routed / 2):
        return "the parts are sums, not means: y = shared + Σ weight · expert"
    if same(shared - x, right_shared) or same(routed - x, right_routed):
        return "you added x: the residual stream belongs to the block around the layer"
    outputs = instruments.expert_outputs(layer, x)
    chosen = layer(x)[1]
    if same(routed, outputs.sum(0)):
        return "you added up all experts: only the chosen ones answer, each with its weight"
    rows = torch.arange(len(x))[:, None]
    if same(routed, outputs[chosen.expert_ids, rows].sum(1)):
        return "the chosen experts count with their weights, routing.weights"
    if not same(shared, right_shared):
        return "the shared part is what layer.shared gives for x, with no weight: every token passes through it"
    if not same(routed, right_routed):
        return "the routed part is what the layer's output has beyond the shared part"
    return None


shared_and_routed = Check("shared_and_routed", instruments.shared_and_routed, diagnose_shared_and_routed)
