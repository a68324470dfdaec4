"""The checks of lesson 03."""

from collections.abc import Callable

import torch

from ...moe import balance, layers, routing
from ...moe.routing import Routing, expert_load
from .kit import called, called_number, check, drawn, known_slip, must_agree, must_have_shape, same, sizes

LOADS = [torch.tensor(load) for load in ([7, 2, 1, 2], [0, 0, 10, 2, 3], [0, 9, 0], *(load[load[0]:] for load in sizes(9)))]


@check(routing.max_violation)
def max_violation(attempt: Callable) -> str | None:
    """What is wrong with a function load [N] -> (max - mean) / mean."""
    answer = torch.tensor([called_number(attempt, load) for load in LOADS], dtype=torch.float64)
    most, least, mean, total = (torch.stack([getattr(load.double(), of)() for load in LOADS])
                                for of in ("max", "min", "mean", "sum"))
    slips = {
        "that is max / mean, which is 1 when balanced: take 1 off, or subtract the mean first": most / mean,
        "that is max - mean, in tokens: divide by the mean, or a large batch looks unbalanced": most - mean,
        "you took the least busy expert: the layer waits for the busiest": (mean - least) / mean,
        "you took the largest distance on either side: the layer waits for the busiest, not for an idle one": (
            torch.maximum(most - mean, mean - least) / mean),
        "you divided by the busiest expert's load: divide by the mean": (most - mean) / most,
        "that is the share of the busiest expert in all choices: compare it with the mean": most / total,
        "you measured from the least busy expert: measure from the mean": (most - least) / mean,
        "brackets: / comes before -, so you divided the mean alone": most - 1,
    }
    right = (most - mean) / mean
    if same(answer, right):
        return None
    wrong = list(map(same, answer, right)).index(False)
    return known_slip(answer, slips) or (f"for the load {LOADS[wrong].tolist()} you return {answer[wrong]:.3f}: "
                                         "by how many mean loads is the largest above the mean?")


@check(balance.balance_loss)
def balance_loss(attempt: Callable) -> str | None:
    """What is wrong with a function Routing -> Σ f_i P_i."""
    def of_routing(function: Callable) -> Callable:
        return lambda logits, k: called(function, Routing(logits, *layers.choose(logits.detach().softmax(1), k)))

    loss_of, right_of = of_routing(attempt), of_routing(balance.balance_loss)
    cases = [(drawn(t, k + more - 1), k) for t, k, more in ([7, 2, 3], *sizes(3))]
    (logits, k), (t, n) = cases[0], cases[0][0].shape
    answer, right = loss_of(logits, k), right_of(logits, k)
    must_have_shape(answer, wanted="a loss is one number: start from 0.0" if answer.shape == (1,) else
                    "a loss is one number: sum over the experts")
    if not same(answer, right) and all(same(loss_of(*case) * right, right_of(*case) * answer) for case in cases):
        return f"your loss is {answer / right:.3g} times the right one: α comes later, where the loss is added to the training's"
    ids, weights = layers.choose(logits.softmax(1), k)
    probs, load = logits.softmax(1), expert_load(ids, n).double()
    f, p = load * n / (k * t), probs.mean(0)
    chosen = torch.zeros_like(probs).scatter(1, ids, weights)
    slips = {
        "when balanced it is 1/N, not 1: is the factor N in your f_i, and did you add over the experts, not take their mean?": (
            f * p).mean(),
        "you left out the division by K: when balanced the loss is K, not 1 (some libraries do so)": (f * k * p).sum(),
        "you multiplied counts: divide the load by K·T/N, the load of a balanced layer": (load * p).sum(),
        "you left out a division by T: f_i has one, and P_i is the mean of the probabilities, not their sum": (f * p).sum() * t,
        "you used the weights in place of the probabilities: they are renormalised over the chosen, so that an expert that "
        "was not chosen gets no gradient: at K = 1 the loss pushes nobody": (f * chosen.mean(0)).sum(),
        "you used P twice: f_i is about the choices, which are counted": (p * p).sum() * n,
        "you used f twice: nothing in it has a gradient": (f * f).mean(),
        "these are logits: the mean probability needs a softmax first": (f * logits.mean(0)).sum(),
        "the softmax must be over the experts, dim=-1, not over the tokens": (f * logits.softmax(0).mean(0)).sum(),
    }
    if hint := known_slip(answer, slips):
        return hint
    formula = "f_i = load_i · N / (K·T), P_i = the mean over the tokens of expert i's probability; multiply, and sum over i"
    return must_agree(loss_of, right_of, cases, formula, "then nothing pushes the router")


@check(balance.update_bias)
def update_bias(attempt: Callable) -> str | None:
    """What is wrong with a function (bias [N], load [N], rate) -> bias [N]."""
    load, rate = torch.tensor([15, 1, 4, 2, 3, 1, 2]), 0.01  # the mean is 4, the median 2
    bias = drawn(7).float()
    answer = called(attempt, bias, load, rate)
    must_have_shape(answer, 7)
    gap = load.double().mean() - load
    slips = {
        "the sign is turned: a crowded expert must become less attractive": bias - rate * gap.sign(),
        "you moved by the size of the gap: DeepSeek-V3 moves every bias by the same small step, up or down": bias + rate * gap,
        "you moved by the gap relative to the mean: only its sign counts": bias + rate * gap / load.double().mean(),
        "you returned the step alone: add it to the bias, which remembers what happened before": rate * gap.sign(),
        "you forgot the rate: a step of 1 throws all tokens from one expert to the next": bias + gap.sign(),
        "you lower the crowded and leave the idle as they are: those go up": bias - rate * (gap < 0),
        "you lift the idle and leave the crowded as they are: those go down": bias + rate * (gap > 0),
        "you compared with the median: the balanced load is the mean": bias + rate * (2 - load).sign(),
    }
    if hint := known_slip(answer, slips):
        return hint
    right = balance.update_bias(bias, load, rate)
    if same(answer[gap != 0], right[gap != 0]) and not same(answer, right):
        return "an expert that has exactly the mean load stays where it is: sign(0) is 0"
    cases = [(bias, load, rate), *((drawn(len(load)).float(), load, 0.5) for load in LOADS)]
    return must_agree(attempt, balance.update_bias, cases, "use the arguments; the step is rate · sign(mean load - load)")
