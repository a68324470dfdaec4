"""The checks of lesson 01."""

from collections.abc import Callable

import torch

from ...measure import evidence
from ...moe import dispatch
from .kit import called, called_pair, check, drawn, known_slip, must_agree, must_have_shape, same, sizes


@check(dispatch.ffn)
def ffn(attempt: Callable) -> str | None:
    """What is wrong with a function (x [T, D], w_in [D, 2H], w_out [H, D]) -> y [T, D]."""
    x, w_in, w_out = drawn(5, 4), drawn(4, 6, seed=1), drawn(3, 4, seed=2)
    answer = called(attempt, x, w_in, w_out)
    must_have_shape(answer, 5, 4)
    gate, up = (x @ w_in).chunk(2, dim=-1)
    silu = torch.nn.functional.silu
    slips = {
        "you multiplied the two halves without the silu, which lets large numbers through and pushes negative ones towards 0":
            gate * up,
        "you put silu around the second half: by our order the first half is the gate": gate * silu(up),
        "you left the second half out: the gate has to multiply something": silu(gate),
        "you left the first half out: without the gate the network is one linear map": up,
        "you used the sigmoid: silu(z) is z · sigmoid(z)": gate.sigmoid() * up,
        "you used relu: close, but LLaMA and DeepSeek use silu, which is smooth": gate.relu() * up,
        "you put silu around both halves: the second one stays as it is": silu(gate) * silu(up),
        "you put silu around the product: it belongs around the first half alone": silu(gate * up),
    }
    even, odd = (x @ w_in)[:, ::2], (x @ w_in)[:, 1::2]
    slips["you took even and odd columns: the gate is the first half, the columns side by side"] = silu(even) * odd
    if hint := known_slip(answer, {hint: hidden @ w_out for hint, hidden in slips.items()}):
        return hint
    cases = ((drawn(t, d), drawn(d, 2 * h, seed=1), drawn(h, d, seed=2)) for t, d, h in sizes(3))
    formula = "y = (silu(gate) · up) W_out, with gate and up the halves of x W_in, and all sizes as the tables have them"
    return must_agree(attempt, dispatch.ffn, [(x, w_in, w_out), *cases], formula, "nothing would teach the network")


@check(evidence.power_law)
def power_law(attempt: Callable) -> str | None:
    """What is wrong with a function (sizes, losses) -> factor and exponent of losses = factor · sizes^-exponent."""
    sizes = (1e4, 3e4, 1e5, 1e6)
    factor, exponent = 5.0, 0.125
    losses = tuple(factor * size ** -exponent for size in sizes)
    a, b = (torch.as_tensor(part).double() for part in called_pair(attempt, "the factor and the exponent", sizes, losses))
    if a.ndim or b.ndim:
        return f"the factor has shape {tuple(a.shape)} and the exponent {tuple(b.shape)}; each is one number"
    right_a, right_b = torch.tensor([factor, exponent], dtype=torch.float64)
    if same(b, right_a) and same(a, right_b):
        return "the two are swapped: first the factor, then the exponent"
    if same(a, -right_b) and same(b, right_a):
        return "these are the slope and the factor: first the factor, then the exponent, which is minus the slope"
    if same(a, (-right_b).exp()) and any(same(b, -log(right_a)) for log in (torch.log, torch.log10, torch.log2)):
        return "linear_regression gives the slope first, then the intercept: you took them the other way round"
    if same(a, right_b) and any(same(b, log(right_a)) for log in (torch.log, torch.log10, torch.log2)):
        return "the two are swapped, and the factor is still a logarithm: undo it"
    if same(b, -right_b) and (same(a, right_a) or same(a, right_a.log())):
        return f"your exponent is {b:.3f}: the losses fall, so the slope is negative, and the formula has a minus before it"
    if same(b, right_b) and any(same(a, log(right_a)) for log in (torch.log, torch.log10, torch.log2)):
        return "your factor is still a logarithm: undo it"
    if same(a, -right_b) and any(same(b, log(right_a)) for log in (torch.log, torch.log10, torch.log2)):
        return "these are the line's slope and height: undo the logarithm of the height, and turn the slope's sign"
    if same(b, right_b) and any(same(a, log(right_a).exp()) for log in (torch.log10, torch.log2)):
        return "you undid the logarithm with another base: math.exp goes with math.log"
    if same(b.abs(), 1 / right_b):
        return "you fitted the sizes as a power of the losses: swap the axes"
    if same(b, right_b) and not torch.allclose(a, right_a, rtol=1e-3):
        return (f"the exponent is right, and the factor {a:.4g} where it should be {factor}: undo the logarithm with its own "
                "base, math.exp after math.log")
    if same(a, right_a) and not torch.allclose(b, right_b, rtol=1e-3):
        return f"the factor is right, and the exponent {b:.4g} where it should be {exponent}: take one logarithm on both sides"
    if not (torch.allclose(a, right_a, rtol=1e-3) and torch.allclose(b, right_b, rtol=1e-3)):
        return (f"for losses that are exactly {factor} · size^-{exponent} you found {a:.4g} and {b:.4g}: "
                "take the logarithm of both sides first, then it is a straight line")
    for seed in range(20):
        sizes, losses = (drawn(2, 2 + seed % 4, seed=seed) * torch.tensor([[4], [0.2]])).exp().tolist()
        line = torch.tensor([float(part) for part in called_pair(attempt, "the factor and the exponent", sizes, losses)])
        if not torch.allclose(line, torch.tensor(evidence.power_law(sizes, losses)), rtol=1e-3, atol=1e-5):
            return ("right for an exact power law and wrong for losses about one, or rising: the straight line is the best one "
                    "through the logarithms of all points")
    return None
