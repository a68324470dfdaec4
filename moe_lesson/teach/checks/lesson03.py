"""The checks of lesson 03."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...moe import balance, layers, routing
from ...moe.routing import Routing, expert_load
from .kit import Check, answered, called, drawn, known_slip, must_be_tensor, must_have_shape, needs_gradient, same


def diagnose_max_violation(attempt: Callable) -> str | None:
    """What is wrong with a function load [N] -> (max - mean) / mean."""
    for counts in ([7, 2, 1, 2], [0, 0, 10], [5, 5]):
        load = torch.tensor(counts)
        answer = torch.as_tensor(answered(attempt, load)).double()
        must_have_shape(answer, wanted="expected one number for the whole layer")
        most, least, mean = max(counts), min(counts), sum(counts) / len(counts)
        slips = {
            "that is max / mean, which is 1 when balanced: take 1 off, or subtract the mean first": most / mean,
            "that is max - mean, in tokens: divide by the mean, or a large batch looks unbalanced": most - mean,
            "you took the least busy expert: the layer waits for the busiest": (mean - least) / mean,
            "you divided by the busiest expert's load: divide by the mean": (most - mean) / most,
            "that is the share of the busiest expert in all choices: compare it with the mean": most / sum(counts),
            "you measured from the least busy expert: measure from the mean": (most - least) / mean,
        }
        right = (most - mean) / mean
        for hint, wrong in slips.items():
            if abs(answer.item() - wrong) < 1e-5 < abs(right - wrong):
                return hint
        if abs(answer.item() - right) > 1e-5:
            return f"for the load {counts} you return {answer.item():.3f}: by how many mean loads is the largest above the mean?"
    return None


max_violation = Check("max_violation", routing.max_violation, diagnose_max_violation)


def diagnose_balance_loss(attempt: Callable) -> str | None:
    """What is wrong with a function Routing -> Σ f_i P_i."""
    logits, k = drawn(7, 4), 2
    t, n = logits.shape
    ids, weights = layers.choose(logits.softmax(1), k)

    def loss_of(logits: Tensor) -> Tensor:
        return must_be_tensor(answered(attempt, Routing(logits, ids, weights)))

    answer = loss_of(logits)
    must_have_shape(answer, wanted="a loss is one number: sum over the experts")
    probs, load = logits.softmax(1), expert_load(ids, n).double()
    f, p = load * n / (k * t), probs.mean(0)
    chosen = torch.zeros_like(probs).scatter(1, ids, weights)
    slips = {
        "when balanced it is 1/N, not 1: is the factor N in your f_i, and did you add over the experts, not take their mean?": (
            f * p).mean(),
        "you left out the division by K: when balanced the loss is K, not 1 (some libraries do so)": (f * k * p).sum(),
        "you multiplied counts: divide the load by K·T/N, the load of a balanced layer": (load * p).sum(),
        "you added the probabilities of all tokens: P_i is their mean": (f * probs.sum(0)).sum(),
        "you used the weights in place of the probabilities: they are renormalised over the chosen, so that an expert that "
        "was not chosen gets no gradient and can't be called back": (f * chosen.mean(0)).sum(),
        "you used P twice: f_i is about the choices, which are counted": (p * p).sum() * n,
        "you used f twice: nothing in it has a gradient": (f * f).mean(),
        "these are logits: the mean probability needs a softmax first": (f * logits.mean(0)).sum(),
        "the softmax must be over the experts, dim=-1, not over the tokens": (f * logits.softmax(0).mean(0)).sum(),
    }
    if hint := known_slip(answer, slips):
        return hint
    if not same(answer, (f * p).sum()):
        return "f_i = load_i · N / (K·T), P_i = the mean over the tokens of expert i's probability; multiply, and sum over i"
    return needs_gradient(loss_of, "then nothing pushes the router", logits)


balance_loss = Check("balance_loss", balance.balance_loss, diagnose_balance_loss)


def diagnose_update_bias(attempt: Callable) -> str | None:
    """What is wrong with a function (bias [N], load [N], rate) -> bias [N]."""
    bias, load, rate = torch.tensor([0.3, -0.2, 0.0, 0.1]), torch.tensor([9, 1, 4, 2]), 0.01  # the mean is 4
    answer = called(attempt, bias, load, rate)
    must_have_shape(answer, 4)
    gap = load.double().mean() - load
    slips = {
        "the sign is turned: a crowded expert must become less attractive": bias - rate * gap.sign(),
        "you moved by the size of the gap: DeepSeek-V3 moves every bias by the same small step, up or down": bias + rate * gap,
        "you moved by the gap relative to the mean: only its sign counts": bias + rate * gap / load.double().mean(),
        "you returned the step alone: add it to the bias, which remembers what happened before": rate * gap.sign(),
        "you forgot the rate: a step of 1 throws all tokens from one expert to the next": bias + gap.sign(),
        "you compared with the median: the balanced load is the mean": bias + rate * (3 - load).sign(),
    }
    if hint := known_slip(answer, slips):
        return hint
    right = balance.update_bias(bias, load, rate)
    crowded, idle, balanced = (same(answer[i:i + 1], right[i:i + 1]) for i in (0, 1, 2))
    if crowded != idle:
        return ("you lower the crowded and leave the idle as they are: those go up" if crowded else
                "you lift the idle and leave the crowded as they are: those go down")
    if crowded and not balanced:
        return "an expert that has exactly the mean load stays where it is: sign(0) is 0"
    if not same(answer, right):
        return f"for the load {load.tolist()}, mean 4, the step is {(rate * gap.sign()).tolist()}"
    larger = drawn(6).float(), torch.arange(6) * 2, 0.5
    if not same(called(attempt, *larger), balance.update_bias(*larger)):
        return "right for one rate and wrong for another: use the arguments"
    return None


update_bias = Check("update_bias", balance.update_bias, diagnose_update_bias)
