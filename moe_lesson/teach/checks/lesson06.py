"""The checks of lesson 06."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...moe.layers import MoE
from ...moe.routing import Routing
from .kit import NotTried, Wrong, answered, check, must_agree, sizes, wrong_layer


def slips(layer: MoE, x: Tensor) -> dict[str, Tensor]:
    """Outputs of known mistakes."""
    right_y, right = layer(x)
    shared, scores, scale = layer.shared(x), right.logits.softmax(dim=1), layer.router.scale
    routed, raw = right_y - shared, Routing(right.logits, right.expert_ids, scale * scores.gather(1, right.expert_ids))
    return {
        "the shared experts are missing: every token passes through layer.shared, and what it says is added": routed,
        "the routed experts are missing: this is the shared part alone": shared,
        "the weights sum to 1 and not to the gate scale, which says how loud the routed experts are: it is missing, or you "
        "multiplied before you divided": routed / scale + shared,
        "the gate scale is for the routed experts: the shared ones have no weight": routed + scale * shared,
        "you divided by the gate scale": routed / scale ** 2 + shared,
        "your weights are the raw probabilities: divide those of the chosen by their sum": layer.experts(x, raw) + shared,
        "layer.shared holds all shared experts already, as one FFN: don't multiply by their number": routed + 2 * shared,
        "the shared experts add up, they are no mean": routed + shared / 2,
    }


def pieces(num_experts: int, top_k: int, expert_width: int, segments: int, num_shared: int) -> tuple[int, int, int]:
    """N, K and H of a layer that is cut, its shared experts taken from the pieces (arXiv 2401.06066, sections 3.1 and 3.2)."""
    return num_experts * segments - num_shared, top_k * segments - num_shared, expert_width // segments


@check(pieces)
def cut_sizes(attempt: Callable) -> str | None:
    """What is wrong with a function (N, K, H, m, Ks) -> the cut layer's N, K and H."""
    answer = answered(attempt, 8, 2, 64, 4, 2)
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise Wrong("your function must return three numbers: how many experts there are to choose from, how many a token "
                    "chooses, and how wide one is")
    if any(size is ... for size in answer):
        raise NotTried
    n, k, h = answer
    if h != 16:
        return f"a piece is 1/m of an expert: 64 units cut in 4 are 16, not {h}"
    if not all(isinstance(size, int) for size in answer):
        return "there are whole experts and whole units: divide with //"
    if n == 8 or n == 6:
        return "cut in m, there are m times as many experts"
    if n == 24:
        return "num_shared counts pieces, not whole experts: don't multiply it"
    if k == 2 or k == 0:
        return "a token goes to m times as many pieces, or it pays for a part of what it paid before"
    if n == 32 or n == 34:
        return "the shared experts are some of the pieces: nobody chooses them, so take them off the number" + (
            " and off a token's choices" if k == 8 else "")
    if k == 8 or k == 10:
        return "a token passes through the shared experts, too: take them off its choices, or it pays for more than before"
    must_agree(attempt, pieces, ((k + more, k, m * h, m, min(ks, k * m) - 1) for k, more, h, m, ks in sizes(5)),
               "N·m pieces, of which Ks are shared; a token has K·m of them, Ks of which it does not choose")
    return None


def every_step(layer: MoE, x_TD: Tensor) -> tuple[Tensor, Routing]:
    """The layer of DeepSeekMoE, the weights divided by their sum (arXiv 2401.06066, eq. 9–11)."""
    logits_TN = x_TD @ layer.router.weight
    best = logits_TN.softmax(dim=-1).topk(layer.router.top_k, dim=-1)
    weights_TK = best.values / best.values.sum(dim=-1, keepdim=True) * layer.router.scale
    routing = Routing(logits_TN, best.indices, weights_TK)
    return layer.experts(x_TD, routing) + layer.shared(x_TD), routing


@check(every_step)
def deepseekmoe(attempt: Callable) -> str | None:
    """What is wrong with a function (layer, x [T, D]) -> y [T, D], Routing."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        layers = [MoE(6, num_experts=k + more, top_k=k, expert_width=h, num_shared=ks, scale=2.5).double()
                  for k, more, h, ks in ([3, 2, 3, 2], *([k + 1, *rest] for k, *rest in sizes(4)))]
    return wrong_layer(attempt, layers, slips, "y is what the shared experts say, and of the K chosen each one's answer times "
                                               "its weight")
