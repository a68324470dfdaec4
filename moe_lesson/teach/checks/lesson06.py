"""The checks of lesson 06."""

from collections.abc import Callable

import torch

from ...measure import instruments
from ...moe import layers
from .kit import Check, Wrong, called_pair, drawn, must_agree, must_be_tensor, must_have_shape, same, sizes


def diagnose_shared_and_routed(attempt: Callable) -> str | None:
    """What is wrong with a function (layer, x [T, D]) -> shared [T, D], routed [T, D]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer, *others = [layers.MoE(6, num_experts=k + more, top_k=k, expert_width=h, num_shared=ks, scale=2.0).double()
                          .requires_grad_(False) for k, more, h, ks in ([2, 3, 3, 2], *sizes(4))]
    x = drawn(7, 6)
    try:
        shared, routed = map(must_be_tensor, called_pair(attempt, "the shared part and the routed part", layer, x))
    except (TypeError, Wrong) as error:
        if "'tuple'" in str(error) or "not a tuple" in str(error) or "not a Routing" in str(error):
            return "layer(x) returns two things, the output and the routing: take the output"
        raise
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
    cases = [(layer, x), *((other, drawn(t, 6)) for other, (t,) in zip(others, sizes(1)))]
    beyond = "the routed part is what the layer's output has beyond the shared part"
    return must_agree(attempt, instruments.shared_and_routed, cases, beyond)


shared_and_routed = Check("shared_and_routed", instruments.shared_and_routed, diagnose_shared_and_routed)
