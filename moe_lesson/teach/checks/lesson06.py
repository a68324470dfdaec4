"""The checks of lesson 06."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...moe.layers import MoE
from ...moe.routing import Routing
from .kit import Check, Wrong, called_pair, drawn, known_slip, must_be_tensor, must_have_shape, same, sizes


def traced(function: Callable, layer: MoE, x: Tensor) -> list[Tensor]:
    """Output, logits and gates of a forward, and the gradients of its squares: of x and of every parameter."""
    x = x.clone().requires_grad_()
    y, routing = function(layer, x)
    sources = [x, *layer.parameters()]
    back = torch.autograd.grad(y.square().sum(), sources, materialize_grads=True) if y.requires_grad else []
    return [y, routing.logits, routing.gates, *back]


def diagnose_deepseekmoe(attempt: Callable) -> str | None:
    """What is wrong with a function (layer, x [T, D]) -> y [T, D], Routing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer, *others = [MoE(6, num_experts=k + more, top_k=k, expert_width=h, num_shared=ks, scale=2.5).double()
                          for k, more, h, ks in ([3, 2, 3, 2], *([k + 1, *rest] for k, *rest in sizes(4)))]
    x = drawn(7, 6)
    y, routing = called_pair(attempt, "the output and the routing", layer, x)
    if isinstance(y, Routing):
        return "the two have changed places: first the output, then the routing"
    must_have_shape(must_be_tensor(y), *x.shape, part="the output")
    if not isinstance(routing, Routing):
        return "the second thing you return is no Routing: Routing(logits, ids, weights) says who was chosen and how much"
    right_y, right = layer(x)
    shared, scores = layer.shared(x), right.logits.softmax(dim=1)
    routed, raw = right_y - shared, Routing(right.logits, right.expert_ids, 2.5 * scores.gather(1, right.expert_ids))
    slips = {
        "the shared experts are missing: every token passes through layer.shared, and what it says is added": routed,
        "the routed experts are missing: this is the shared part alone": shared,
        "the gate scale is missing: without it the routed experts whisper beside the shared ones": routed / 2.5 + shared,
        "the gate scale is for the routed experts: the shared ones have no weight": routed + 2.5 * shared,
        "you divided by the gate scale": routed / 2.5 ** 2 + shared,
        "your weights are the raw probabilities: divide those of the chosen by their sum": layer.experts(x, raw) + shared,
        "layer.shared holds all shared experts already, as one FFN: don't multiply by their number": routed + 2 * shared,
        "the shared experts add up, they are no mean": routed + shared / 2,
        "you added x: the residual stream belongs to the block around the layer": right_y + x,
    }
    if hint := known_slip(y, slips):
        return hint
    if same(y, right_y) and not same(routing.gates, right.gates):
        return "the output is right, and the routing says something else: its weights are those that the experts were given"
    if same(y, right_y) and not same(routing.logits, right.logits):
        return "the routing wants the logits, before the softmax: the balance loss takes its own softmax of them"
    for each, (tokens,) in [(layer, [7]), *zip(others, sizes(1))]:
        found, wanted = (traced(function, each, drawn(tokens, 6)) for function in (attempt, MoE.forward))
        if not all(map(same, found[:3], wanted[:3])):
            raise Wrong(f"wrong for {tokens} tokens and {each.router.top_k} of {each.router.num_experts} experts: y is what the "
                        "shared experts say, and of the K chosen each one's answer times its weight")
        if len(found) < len(wanted) or not all(map(same, found, wanted)):
            raise Wrong("the numbers are right, but the gradient does not come through (detach, no_grad?): nothing would learn")
    return None


deepseekmoe = Check("deepseekmoe", MoE.forward, diagnose_deepseekmoe)
