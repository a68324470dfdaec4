"""Every check accepts the reference and rejects named wrong implementations with the hint that fits."""

import math
import pathlib
import random
import statistics
import sys
from collections import Counter
from dataclasses import replace
from functools import partial

import nbformat
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moe_lesson.lm import real
from moe_lesson.measure import census, evidence, interventions
from moe_lesson.moe import dispatch, layers, parallel, rows
from moe_lesson.moe.routing import Routing
from moe_lesson.teach import checks
from moe_lesson.teach.checks.kit import Check
from moe_lesson.teach.checks.lesson09 import ASK, NEVER_WAIT, lines_that_wait

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"


def first_choice_only(ids, n):
    return torch.bincount(ids[:, 0], minlength=n)


def forgets_idle_experts(ids, n):
    return torch.bincount(ids.flatten())


def one_column_each(ids, n):
    return torch.nn.functional.one_hot(ids, n).sum(0)


def shares(ids, n):
    return torch.bincount(ids.flatten(), minlength=n) / ids.numel()


def adds_the_ids(ids, n):
    return torch.zeros(n).index_add(0, ids.flatten(), ids.flatten().float())


def not_whole_numbers(ids, n):
    return torch.bincount(ids.flatten(), minlength=n) + 0.9 * (torch.bincount(ids.flatten(), minlength=n) == 0)


def adds_repeated_ids_once(ids, n):
    load = torch.zeros(n)
    load[ids.flatten()] += 1
    return load


def one_row_a_token(ids, n):
    return torch.nn.functional.one_hot(ids, n).sum(1)


def share_of_tokens(ids, n):
    return torch.bincount(ids.flatten(), minlength=n) / len(ids)


def with_hidden(hidden):
    """A wrong FFN: what it does with the two halves of x W_in."""
    def wrong(x, w_in, w_out):
        return hidden(*(x @ w_in).chunk(2, dim=-1)) @ w_out

    return wrong


def line(x, y):
    """(height, slope) of the straight line through points."""
    slope, height = statistics.linear_regression(x, y)
    return height, slope


def logs(values, log=math.log):
    return [log(value) for value in values]


def power_law_with(change):
    """A wrong power law: what it does with the right logarithm of the factor and the right slope."""
    return lambda sizes, losses: change(*line(logs(sizes), logs(losses)))


def choose_with(weigh):
    """A wrong choice: the right experts, and the weights that `weigh` makes of (their scores, all scores, K)."""
    def wrong(scores, k):
        best = scores.topk(k)
        return best.indices, weigh(best.values, scores, k)

    return wrong


def renormalised(best, *_):
    return best / best.sum(1, keepdim=True)


def adds_repeated_tokens_once(y, out, token, weight):
    y[token] += out * weight[:, None]
    return y


def first_token_if_idle(expert, ids):
    found = torch.where(ids == expert)
    return found if len(found[0]) else (torch.tensor([0]), torch.tensor([0]))


def tokens_one_by_one(expert, ids):
    places = [(t, k) for t, row in enumerate(ids.tolist()) for k, chosen in enumerate(row) if chosen == expert]
    return torch.tensor([t for t, _ in places]), torch.tensor([k for _, k in places])


def squeezed_tokens(expert, ids):
    mask = ids == expert
    token = mask.any(1).nonzero().squeeze()
    return token, mask[token].int().argmax(-1)


def adds_to_a_copy(y, out, token, weight):
    y.index_add(0, token, out * weight[:, None])
    return y


def returns_nothing(y, out, token, weight):
    y.index_add_(0, token, out * weight[:, None])


def overwrites(y, out, token, weight):
    y[token] = out * weight[:, None]
    return y


def forward_with(combine=torch.Tensor.index_add, weigh=lambda weights, slot, token: weights[token, slot],
                 watch=lambda weights: weights, renormalise=True, chosen=lambda ids: ids,
                 scores=lambda logits: logits.softmax(1)):
    """A TopK layer with one slip: how answers are added, which weight they get, what autograd sees of it, who works."""
    def wrong(layer, x):
        logits = x @ layer.router.weight
        best = scores(logits).topk(layer.router.top_k)
        weights = watch(best.values / best.values.sum(1, keepdim=True) if renormalise else best.values)
        y = torch.zeros_like(x)
        for i, (w_in, w_out) in enumerate(zip(layer.experts.w_in, layer.experts.w_out)):
            token, slot = torch.where(chosen(best.indices) == i)
            out = with_hidden(lambda gate, up: F.silu(gate) * up)(x[token], w_in, w_out)
            y = combine(y, 0, token, out * weigh(weights, slot, token)[:, None])
        return y, Routing(logits, best.indices, weights)

    return wrong


def written_over(y, dim, token, out):
    y = y.clone()
    y[token] = out
    return y


def looked_up_in_all(layer, x):
    right = layer.router(x)
    return layer.experts(x, replace(right, weights=right.logits.softmax(1)[:, :right.top_k])), right


def everybody(layer, x):
    routing = layer.router(x)
    scores, ids = routing.logits.softmax(1), torch.arange(routing.num_experts).expand(len(x), -1)
    return layer.experts(x, Routing(routing.logits, ids, scores)), routing


def with_other_routing(change):
    return lambda layer, x: (layer(x)[0], change(layer(x)[1]))


F = torch.nn.functional
FORWARD = [
    (forward_with(written_over), "last expert alone"),
    (forward_with(renormalise=False), "raw probabilities"),
    (forward_with(weigh=lambda weights, slot, token: torch.ones(len(token))), "weights are missing"),
    (forward_with(scores=lambda logits: logits), "the softmax comes first"),
    (looked_up_in_all, "the table of all N probabilities"),
    (forward_with(weigh=lambda weights, slot, token: torch.ones(len(token)) / weights.shape[1]), "that is a mean"),
    (forward_with(weigh=lambda weights, slot, token: weights[token, 0]), "first choice does"),
    (forward_with(weigh=lambda weights, slot, token: weights.flip(1)[token, slot]), "turned around"),
    (forward_with(chosen=lambda ids: ids[:, :1]), "only each token's first choice"),
    (everybody, "every expert has answered"),
    (lambda layer, x: (layer(x)[0] + x, layer(x)[1]), "you added x"),
    (lambda layer, x: layer(x)[::-1], "changed places"),
    (lambda layer, x: layer(x)[0], "must return two things"),
    (lambda layer, x: (layer(x)[0], layer(x)[1].weights), "is no Routing"),
    (lambda layer, x: (layer(x)[0].T, layer(x)[1]), "the output: your answer has shape (6, 7)"),
    (lambda layer, x: (2 * layer(x)[0], layer(x)[1]), "wrong for 7 tokens and 3 of 5 experts"),
    (with_other_routing(lambda r: replace(r, logits=r.logits.softmax(1))), "before the softmax"),
    (with_other_routing(lambda r: replace(r, weights=r.weights / 2)), "says something else"),
]
MENDED = [
    (forward_with(written_over), "one fault is mended, one is left: the output"),
    (forward_with(watch=torch.Tensor.detach), "one is left, and no output shows it"),
    (forward_with(renormalise=False), "raw probabilities"),
    (lambda layer, x: (layer(x)[0], layer(x)[1].weights), "is no Routing"),
    (lambda layer, x: forward_with()(layer, x.detach()), "the gradient does not come through"),
]
WRONG_OF_LESSONS_01_AND_02 = {
    "ffn": [
        (with_hidden(lambda gate, up: gate * up), "without the silu"),
        (with_hidden(lambda gate, up: gate * F.silu(up)), "around the second half"),
        (with_hidden(lambda gate, up: F.silu(gate)), "left the second half out"),
        (with_hidden(lambda gate, up: up), "left the first half out"),
        (with_hidden(lambda gate, up: gate.sigmoid() * up), "used the sigmoid"),
        (with_hidden(lambda gate, up: gate.relu() * up), "used relu"),
        (with_hidden(lambda gate, up: F.silu(gate) * F.silu(up)), "around both halves"),
        (with_hidden(lambda gate, up: F.silu(gate * up)), "around the product"),
        (with_hidden(lambda gate, up: F.gelu(gate) * up), "wrong for (5, 4) and (4, 6) and (3, 4): y = (silu(gate)"),
        (with_hidden(lambda gate, up: F.silu(gate.detach()) * up.detach()), "the gradient does not come through"),
        (lambda x, w_in, w_out: (F.silu((x @ w_in)[:, :3]) * (x @ w_in)[:, 3:6]) @ w_out[:3], "all sizes as the tables"),
        (lambda x, w_in, w_out: with_hidden(lambda gate, up: F.silu(gate) * up)(x, w_in, w_out).tolist(), "return a tensor"),
        (lambda x, w_in, w_out: (F.silu((x @ w_in)[:, ::2]) * (x @ w_in)[:, 1::2]) @ w_out, "even and odd columns"),
        (lambda x, w_in, w_out: with_hidden(lambda gate, up: F.silu(gate) * up)(x, w_in, w_out).T, "shape (4, 5)"),
    ],
    "power_law": [
        (power_law_with(lambda height, slope: (-slope, math.exp(height))), "swapped"),
        (power_law_with(lambda height, slope: (math.exp(height), slope)), "the slope is negative"),
        (power_law_with(lambda height, slope: (height, -slope)), "still a logarithm"),
        (lambda n, loss: (line(logs(n, math.log2), logs(loss, math.log2))[0], 0.125), "still a logarithm"),
        (lambda n, loss: (lambda height, slope: (math.exp(height), -slope))(*line(logs(loss), logs(n))), "swap the axes"),
        (lambda n, loss: line(n, loss), "logarithm of both sides"),
        (lambda n, loss: line(logs(n), loss), "logarithm of both sides"),
        (power_law_with(lambda height, slope: -slope), "two things"),
        (power_law_with(lambda height, slope: (slope, height)), "slope and height"),
        (lambda n, loss: (math.exp(line(logs(n, math.log10), logs(loss, math.log10))[0]), 0.125), "another base"),
        (lambda n, loss: power_law_with(lambda height, slope: (math.exp(height), -slope))(n[::len(n) - 1], loss[::len(n) - 1]),
         "the best one through the logarithms of all points"),
        (power_law_with(lambda height, slope: (math.exp(height), abs(slope))), "or rising"),
        (power_law_with(lambda height, slope: ([math.exp(height)] * 4, -slope)), "each is one number"),
        (power_law_with(lambda height, slope: (slope, math.exp(height))), "minus the slope"),
        (power_law_with(lambda height, slope: (-slope, height)), "swapped, and the factor"),
        (power_law_with(lambda height, slope: (10 ** height, -slope)), "with its own base"),
        (lambda n, loss: power_law_with(lambda height, slope: (math.exp(height), -slope))([x ** 2 for x in n], loss),
         "one logarithm on both sides"),
        (lambda n, loss: n.sort() or (1, 2), "'tuple' object has no attribute"),
    ],
    "gate": [
        (lambda x, w: (x @ w).T, "one row per expert"),
        (lambda x, w: (x @ w).softmax(1), "probabilities already"),
        (lambda x, w: (x @ w).softmax(0), "softmax over the tokens"),
        (lambda x, w: F.normalize(x, dim=1) @ F.normalize(w, dim=0), "cosines"),
        (lambda x, w: x @ w / x.shape[1] ** 0.5, "divided by √D"),
        (lambda x, w: (x @ w).relu(), "one product"),
        (lambda x, w: (x @ w).mean(0), "expected (4, 5)"),
        (lambda x, w: (x @ w).detach(), "the gradient does not come through"),
        (lambda x, w: (x @ w).numpy(), "return a tensor, not a ndarray"),
    ],
    "choose": [
        (choose_with(lambda best, scores, k: best), "raw probabilities"),
        (choose_with(lambda best, scores, k: best.softmax(1)), "softmax of probabilities"),
        (choose_with(lambda best, scores, k: best / best.sum()), "sum over all tokens"),
        (choose_with(lambda best, scores, k: best / best.sum(0)), "sum over the tokens"),
        (lambda scores, k: choose_with(renormalised)(scores, 2), "K is top_k"),
        (lambda scores, k: choose_with(renormalised)(scores.detach(), k), "the gradient does not come through"),
        (choose_with(lambda best, scores, k: torch.full_like(best, 1 / k)), "all weights are 1/K"),
        (choose_with(lambda best, scores, k: renormalised(best).flip(1)), "beside another's expert"),
        (lambda scores, k: choose_with(renormalised)(scores, k)[::-1], "swapped"),
        (lambda scores, k: (scores.topk(k).values, scores.topk(k).values), "not whole numbers"),
        (lambda scores, k: scores.topk(k).indices, "two things"),
        (lambda scores, k: scores.topk(k, dim=0)[::-1], "tokens for each expert"),
        (lambda scores, k: choose_with(renormalised)(-scores, k), "worst experts"),
        (lambda scores, k: choose_with(renormalised)(scores.roll(1, 1), k), "not the K experts"),
        (lambda scores, k: choose_with(renormalised)(scores, k + 1), "expected (6, 2)"),
    ],
    "tokens_of": [
        (lambda expert, ids: torch.where(ids == expert)[::-1], "swapped"),
        (lambda expert, ids: (torch.where(ids[:, 0] == expert)[0], torch.zeros(2).long()), "first slot alone"),
        (lambda expert, ids: (lambda flat: (flat, flat % 2))(torch.where(ids.flatten() == expert)[0]), "flattened table"),
        (lambda expert, ids: ((ids == expert).any(1), (ids == expert).int().argmax(1)), "mask of True and False"),
        (lambda expert, ids: torch.where((ids == expert).any(1))[0], "two things"),
        (lambda expert, ids: (torch.arange(len(ids)), (ids == expert).int().argmax(1)), "where does it stand"),
        (lambda expert, ids: (torch.where(ids == expert)[0], torch.tensor(0)), "one position and one slot"),
        (lambda expert, ids: ([0, 1, 3], [0, 1, 0]), "return a tensor"),
        (tokens_one_by_one, "dtype=torch.long"),
        (squeezed_tokens, "squeeze() takes too much"),
        (first_token_if_idle, "you found tokens [0] in slots [0]"),
    ],
    "combine": [
        (adds_repeated_tokens_once, "adds once"),
        (overwrites, "add to it"),
        (returns_nothing, "returns nothing"),
        (adds_to_a_copy, "return y as it was"),
        (lambda y, out, token, weight: y.detach().index_add(0, token, out * weight[:, None]), "the gradient does not come"),
        (lambda y, out, token, weight: y.index_add(0, token, out * weight), "make it a column"),
        (lambda y, out, token, weight: y.index_add(0, token, out * weight.detach()[:, None]), "the gradient does not come"),
        (lambda y, out, token, weight: y.index_add(0, token, out), "forgot the weights"),
        (lambda y, out, token, weight: torch.zeros_like(y).index_add(0, token, out * weight[:, None]), "start from nothing"),
        (lambda y, out, token, weight: y.index_add(0, token, out / weight[:, None]), "divide by the weights"),
        (lambda y, out, token, weight: y.index_add(0, token.flip(0), out * weight[:, None]), "counts weight[r]"),
        (lambda y, out, token, weight: out * weight[:, None], "expected (4, 3)"),
    ],
}
WRONG = WRONG_OF_LESSONS_01_AND_02 | {
    "topk_moe": [*FORWARD, (forward_with(watch=torch.Tensor.detach), "the gradient does not come through"),
                 (with_other_routing(lambda one: Routing(one.logits.detach(), one.expert_ids, one.weights)), "are detached")],
    "mended": MENDED,
    "load": [
        (first_choice_only, "must sum to T·K = 10"),
        (forgets_idle_experts, "an expert that no token chose still needs its 0"),
        (one_column_each, "add the columns up"),
        (shares, "you returned shares"),
        (adds_the_ids, "count by hand"),
        (adds_repeated_ids_once, "occurs twice"),
        (one_row_a_token, "add over the tokens too"),
        (share_of_tokens, "you returned shares"),
        (lambda ids, n: Counter(ids.flatten().tolist()), "you returned a dictionary"),
        (not_whole_numbers, "count by hand"),
        (lambda ids, n: 2 * torch.bincount(ids.flatten(), minlength=n), "count by hand"),
        (lambda ids, n: -torch.bincount(ids.flatten(), minlength=n), "count by hand"),
        (lambda ids, n: torch.bincount(ids.flatten(), minlength=6)[:n], "count by hand"),
        (lambda ids, n: torch.bincount(ids.flatten(), minlength=n) / ids.shape[1], "you divided by K = 2"),
        (lambda ids, n: torch.stack([(ids == i).sum() if i < n - 1 else ids.sum() * 0 for i in range(n)]), "one too early"),
        (lambda ids, n: torch.bincount(ids.add_(1).flatten(), minlength=n + 1)[1:], "changed expert_ids itself"),
        (lambda ids, n: torch.bincount(ids.float().flatten(), minlength=n), "NotImplementedError"),
    ],
}


def of_load(formula):
    """A wrong MaxVio: what it does with the largest, smallest and mean load."""
    return lambda load: formula(load.max().item(), load.min().item(), load.double().mean().item())


def of_choices(formula):
    """A wrong balance loss: what it does with f [N], P [N], the probabilities [T, N] and the routing."""
    def wrong(routing):
        probs = routing.logits.softmax(1)
        f = routing.load.double() * routing.num_experts / (routing.top_k * routing.num_tokens)
        return formula(f, probs.mean(0), probs, routing)

    return wrong


def of_gap(formula):
    """A wrong bias update: what it does with bias, mean load - load, and rate."""
    return lambda bias, load, rate: formula(bias, load.double().mean() - load, rate)


def of_entropy(formula):
    """A wrong number of labels: what it does with the entropy [N] of each row."""
    def wrong(calls):
        return formula(torch.special.entr(calls / calls.sum(1, keepdim=True).clamp(min=1e-12)).sum(1))

    return wrong


def logarithm_of_zero(calls):
    share = calls / calls.sum(1, keepdim=True)
    return (-(share * share.log()).sum(1)).exp()


def inverse_simpson(calls):
    return 1 / (calls / calls.sum(1, keepdim=True).clamp(min=1e-12)).square().sum(1).clamp(min=1e-12)


def of_units(formula):
    """A wrong similarity: what it does with answers of length 1, [N, T, D]."""
    return lambda outputs: formula(F.normalize(outputs, dim=-1))


def normalised_over(dim):
    """A wrong similarity: the mean over the tokens, of what has length 1 over another dimension."""
    def wrong(outputs):
        unit = F.normalize(outputs, dim=dim)
        return torch.einsum("itd,jtd->ij", unit, unit) / outputs.shape[1]

    return wrong


WRONG_OF_LESSONS_03_AND_04 = {
    "max_violation": [
        (of_load(lambda most, least, mean: most / mean), "take 1 off"),
        (of_load(lambda most, least, mean: most - mean), "divide by the mean"),
        (of_load(lambda most, least, mean: (mean - least) / mean), "least busy"),
        (of_load(lambda most, least, mean: (most - mean) / most), "divided by the busiest"),
        (of_load(lambda most, least, mean: (most - least) / mean), "measure from the mean"),
        (lambda load: load.max() / load.sum(), "share of the busiest"),
        (lambda load: (load - load.double().mean()) / load.double().mean(), "expected one number"),
        (of_load(lambda most, least, mean: max(most - mean, mean - least) / mean), "not for an idle one"),
        (lambda load: (load.double() - load.double().mean()).abs().max() / load.double().mean(), "not for an idle one"),
        (lambda load: 0.7, "how many mean loads"),
        (lambda load: load.max() * 4 / load.sum() - 1, "for the load [0, 0, 10, 2, 3] you return 1.667"),
    ],
    "balance_loss": [
        (of_choices(lambda f, p, probs, r: (f / r.num_experts * p).sum()), "is the factor N in your f_i"),
        (of_choices(lambda f, p, probs, r: (f * r.top_k * p).sum()), "left out the division by K"),
        (of_choices(lambda f, p, probs, r: (r.load * p).sum()), "multiplied counts"),
        (of_choices(lambda f, p, probs, r: (f * p).mean()), "not take their mean"),
        (of_choices(lambda f, p, probs, r: (f * probs.sum(0)).sum()), "a division by T"),
        (of_choices(lambda f, p, probs, r: (f * r.num_tokens * p).sum()), "a division by T"),
        (of_choices(lambda f, p, probs, r: (f * r.gates.mean(0)).sum()), "renormalised over the chosen"),
        (of_choices(lambda f, p, probs, r: (p * p).sum() * r.num_experts), "used P twice"),
        (of_choices(lambda f, p, probs, r: (f * f).mean()), "nothing in it has a gradient"),
        (of_choices(lambda f, p, probs, r: (f * r.logits.mean(0)).sum()), "softmax first"),
        (of_choices(lambda f, p, probs, r: (f * r.logits.softmax(0).mean(0)).sum()), "over the experts, dim=-1"),
        (of_choices(lambda f, p, probs, r: f * p), "a loss is one number"),
        (of_choices(lambda f, p, probs, r: (f * p).sum().detach()), "nothing pushes the router"),
        (of_choices(lambda f, p, probs, r: (f * p).sum().item()), "return a tensor"),
        (of_choices(lambda f, p, probs, r: (f + p).sum()), "multiply, and sum over i"),
        (of_choices(lambda f, p, probs, r: 0.01 * (f * p).sum()), "0.01 times the right one: α comes later"),
        (of_choices(lambda f, p, probs, r: 0.2 * (f * p).sum()), "0.2 times the right one: α comes later"),  # 1/N of the first
        (of_choices(lambda f, p, probs, r: 2 * (f * p).sum()), "2 times the right one: α comes later"),  # K of the first
    ],
    "update_bias": [
        (of_gap(lambda bias, gap, rate: bias - rate * gap.sign()), "sign is turned"),
        (of_gap(lambda bias, gap, rate: bias + rate * gap), "size of the gap"),
        (of_gap(lambda bias, gap, rate: bias + rate * gap / 4), "only its sign counts"),
        (of_gap(lambda bias, gap, rate: rate * gap.sign()), "add it to the bias"),
        (of_gap(lambda bias, gap, rate: bias + gap.sign()), "forgot the rate"),
        (lambda bias, load, rate: bias + rate * (load.median() - load).sign(), "the balanced load is the mean"),
        (lambda bias, load, rate: bias + rate * torch.where(load < load.double().mean(), 1, -1), "sign(0) is 0"),
        (lambda bias, load, rate: bias + rate * (load.sum() // len(load) - load).sign(), "sign(mean load - load)"),
        (of_gap(lambda bias, gap, rate: bias - rate * (gap < 0)), "leave the idle as they are"),
        (of_gap(lambda bias, gap, rate: bias + rate * (gap > 0)), "leave the crowded as they are"),
        (of_gap(lambda bias, gap, rate: bias - rate * gap.sign().abs()), "the step is rate · sign"),
        (of_gap(lambda bias, gap, rate: bias + rate * (2.0 * (gap >= 0) - 1)), "sign(0) is 0"),
        (of_gap(lambda bias, gap, rate: bias + 0.01 * gap.sign()), "use the arguments"),
        (of_gap(lambda bias, gap, rate: (bias + rate * gap.sign())[:2]), "expected (7,)"),
    ],
    "labels_served": [
        (of_entropy(lambda entropy: entropy), "exp of it"),
        (of_entropy(lambda entropy: entropy / math.log(2)), "in bits"),
        (of_entropy(lambda entropy: (entropy / math.log(2)).exp()), "exp goes with the natural logarithm"),
        (of_entropy(lambda entropy: (-entropy).exp()), "sign is turned"),
        (of_entropy(lambda entropy: entropy / math.log(5)), "how many labels is it"),
        (lambda calls: (calls > 0).sum(1), "one stray token"),
        (inverse_simpson, "we use the entropy"),
        (lambda calls: torch.special.entr(calls / calls.sum(0, keepdim=True)).sum(1).exp(), "you divided by the label's"),
        (logarithm_of_zero, "0 · log 0"), (of_entropy(lambda entropy: 2 ** entropy), "2 to the power goes with log2"),
        (of_entropy(torch.exp), "serves 0 labels"),
        (lambda calls: calls.sum(1), "the shares are 0.75 and 0.25"),
    ],
    "output_similarity": [
        (of_units(lambda unit: torch.einsum("itd,jtd->ij", unit, unit)), "take the mean"),
        (lambda outputs: torch.einsum("itd,jtd->ij", outputs, outputs) / outputs.shape[1], "products, not cosines"),
        (lambda outputs: F.normalize(outputs.flatten(1), dim=1) @ F.normalize(outputs.flatten(1), dim=1).T, "loud tokens"),
        (lambda outputs: F.normalize(outputs.mean(1), dim=1) @ F.normalize(outputs.mean(1), dim=1).T, "mean answers"),
        (of_units(lambda unit: torch.einsum("itd,jtd->ijt", unit, unit).abs().mean(-1)), "absolute values"),
        (of_units(lambda unit: torch.einsum("itd,jtd->ijt", unit, unit)), "one matrix for each token"),
        (normalised_over(0), "normalised over the experts"),
        (lambda outputs: checks.output_similarity.reference(outputs).triu(), "fill both halves"),
        (lambda outputs: checks.output_similarity.reference(outputs).triu(1), "every entry"),
        (lambda outputs: checks.output_similarity.reference(outputs).fill_diagonal_(0), "and the diagonal"),
        (normalised_over(1), "normalised over the tokens"),
        (lambda outputs: normalised_over(1)(outputs) * outputs.shape[1] / outputs.shape[2], "for each of the D numbers"),
        (lambda outputs: torch.eye(3), "entry (i, j)"),
    ],
}
WRONG |= WRONG_OF_LESSONS_03_AND_04


def cuts_straight(w_in, w_out, m):
    n, d, h = len(w_in), w_in.shape[1], w_out.shape[1]
    return w_in.reshape(n, d, m, -1).transpose(1, 2).flatten(0, 1), w_out.reshape(n * m, h // m, d)


def deals_units_out(w_in, w_out, m):
    n, d, h = len(w_in), w_in.shape[1], w_out.shape[1]
    parts = [part.reshape(n, d, h // m, m).permute(0, 3, 1, 2).flatten(0, 1) for part in w_in.chunk(2, dim=-1)]
    return torch.cat(parts, dim=-1), w_out.reshape(n, h // m, m, d).transpose(1, 2).flatten(0, 1)


def up_before_gate(w_in, w_out, m):
    return interventions.cut_experts(torch.cat(w_in.chunk(2, dim=-1)[::-1], dim=-1), w_out, m)


def quieter_pieces(w_in, w_out, m):
    pieces_in, pieces_out = interventions.cut_experts(w_in, w_out, m)
    return pieces_in, pieces_out / m


def louder_pieces(w_in, w_out, m):
    return interventions.cut_experts(w_in, w_out * m, m)


def louder_tables(w_in, w_out, m):
    return interventions.cut_experts(w_in * m, w_out, m)


def pieces_in_rows(w_in, w_out, m):
    return [part.unflatten(0, (len(w_in), m)) for part in interventions.cut_experts(w_in, w_out, m)]


def piece_after_piece(w_in, w_out, m):
    order = torch.arange(m * len(w_in)).reshape(-1, m).T.flatten()
    return [part[order] for part in interventions.cut_experts(w_in, w_out, m)]


def one_tensor(w_in, w_out, m):
    return interventions.cut_experts(w_in, w_out, m)[0]


def weighed(layer, x, scale=None, renormalise=True):
    ids, weights = layers.choose(layers.gate(x, layer.router.weight).softmax(1), layer.router.top_k, renormalise=renormalise,
                                 scale=layer.router.scale if scale is None else scale)
    return Routing(layers.gate(x, layer.router.weight), ids, weights)


def with_routing(routing_of, shared=1.0, residual=0.0):
    """A wrong layer: what it does with its routing, how often it adds the shared part, and x."""
    def wrong(layer, x):
        routing = routing_of(layer, x)
        return layer.experts(x, routing) + shared * layer.shared(x) + residual * x, routing

    return wrong


def scales_all(layer, x):
    return layer.router.scale * (layer.experts(x, weighed(layer, x, 1.0)) + layer.shared(x)), weighed(layer, x)


def shared_part_alone(layer, x):
    return layer.shared(x), weighed(layer, x)


def says_other_weights(layer, x):
    return layer(x)[0], weighed(layer, x, 1.0)


def teaches_no_router(layer, x):
    routing = weighed(layer, x).detach()
    return layer.experts(x, routing) + layer.shared(x), routing


def one_expert_fewer(layer, x):
    y, routing = layer(x)
    fewer = replace(routing, expert_ids=routing.expert_ids[:, :-1], weights=routing.weights[:, :-1])
    return layer.experts(x, fewer) + layer.shared(x), fewer


def by_the_mean(difference, margin):
    return "higher" if difference.mean > 0 else "lower"


def no_margin(difference, margin):
    return evidence.verdict(difference)


def never_lower(difference, margin):
    return "higher" if difference.low > 0 else "alike" if difference.within(margin) else "open"


def turned_round(difference, margin):
    return {"higher": "lower", "lower": "higher"}.get(answer := evidence.verdict(difference, margin), answer)


def alike_first(difference, margin):
    return "alike" if difference.within(margin) else evidence.verdict(difference, margin)


def margin_on_one_side(difference, margin):
    return "alike" if difference.low < 0 < difference.high < margin else evidence.verdict(difference, margin)


def mean_within_the_margin(difference, margin):
    return "alike" if difference.low < 0 < difference.high and abs(difference.mean) < margin else evidence.verdict(difference)


def margin_of_its_own(difference, margin):
    return evidence.verdict(difference, 0.01)


def never_open(difference, margin):
    return None if (answer := evidence.verdict(difference, margin)) == "open" else answer


def says_true(difference, margin):
    return difference.low > 0


def without_transpose(w_in, w_out, m):
    n, d, h = len(w_in), w_in.shape[1], w_out.shape[1]
    runs = [part.reshape(n, d, m, -1) for part in w_in.chunk(2, dim=-1)]
    return torch.cat(runs, dim=-1).reshape(n * m, d, -1), w_out.reshape(n * m, h // m, d)


def last_run_first(w_in, w_out, m):
    return [part.unflatten(0, (-1, m)).flip(1).flatten(0, 1) for part in interventions.cut_experts(w_in, w_out, m)]


WRONG_OF_LESSONS_05_TO_07 = {
    "cut_experts": [(cuts_straight, "all gate and no up"), (deals_units_out, "j-th run of neighbours"),
                    (up_before_gate, "the gate's columns come first"), (quieter_pieces, "multiplied the pieces by 0.333"),
                    (louder_pieces, "multiplied the pieces by 3"), (louder_tables, "multiplied the pieces by 3"),
                    (pieces_in_rows, "one dimension of mN"), (piece_after_piece, "first all pieces of expert 0"),
                    (one_tensor, "must return two things"), (without_transpose, "stand beside n"),
                    (last_run_first, "in another order")],
    "cut_sizes": [(lambda n, k, h, m, ks: (n * m - ks, k * m - ks, h), "are 16, not 64"),
                  (lambda n, k, h, m, ks: (n * m - ks, k * m - ks, h / m), "divide with //"),
                  (lambda n, k, h, m, ks: (n - ks, k * m - ks, h // m), "m times as many experts"),
                  (lambda n, k, h, m, ks: (n * m - ks, k - ks, h // m), "m times as many pieces"),
                  (lambda n, k, h, m, ks: (m * (n - ks), m * k - ks, h // m), "don't multiply it"),
                  (lambda n, k, h, m, ks: (m * (n - ks), m * (k - ks), h // m), "don't multiply it"),
                  (lambda n, k, h, m, ks: (n * m, k * m, h // m), "and off a token's choices"),
                  (lambda n, k, h, m, ks: (n * m, k * m - ks, h // m), "take them off the number"),
                  (lambda n, k, h, m, ks: (n * m - ks, k * m, h // m), "it pays for more than before"),
                  (lambda n, k, h, m, ks: (30, 6, 16), "wrong for"), (lambda n, k, h, m, ks: 16, "three numbers"),
                  (lambda n, k, h, m, ks: (n * m - ks, k * m - ks, h * m), "are 16, not 256")],
    "deepseekmoe": [(with_routing(weighed, shared=0), "shared experts are missing"), (shared_part_alone, "shared part alone"),
                    (with_routing(partial(weighed, scale=1.0)), "not to the gate scale"), (scales_all, "have no weight"),
                    (with_routing(lambda layer, x: weighed(layer, x, 1 / layer.router.scale)), "divided by the gate scale"),
                    (with_routing(partial(weighed, renormalise=False)), "raw probabilities"),
                    (with_routing(weighed, shared=2.0), "don't multiply by their number"),
                    (with_routing(weighed, shared=0.5), "they are no mean"), (with_routing(weighed, residual=1.0), "you added x"),
                    (lambda layer, x: layer(x)[::-1], "changed places"),
                    (with_other_routing(lambda r: (r.logits, r.expert_ids, r.weights)), "is no Routing"),
                    (says_other_weights, "the routing says something else"),
                    (with_other_routing(lambda r: replace(r, logits=r.logits.softmax(1))), "before the softmax"),
                    (one_expert_fewer, "wrong for 7 tokens and 3 of 5 experts"), (teaches_no_router, "gradient does not come")],
    "verdict": [(by_the_mean, "its mean is no answer"), (no_margin, "more than not knowing"), (turned_round, "turned round"),
                (never_lower, "no less than that it is higher"), (alike_first, "small, and shown all the same"),
                (margin_on_one_side, "within it on both"), (mean_within_the_margin, "wrong for"),
                (margin_of_its_own, "use `margin`"), (says_true, "expected one of higher"), (never_open, "your answer is None")],
}
WRONG |= WRONG_OF_LESSONS_05_TO_07


def entropies(calls):
    share = calls / calls.sum()
    return [torch.special.entr(part).sum() for part in (share.sum(0), share.sum(1), share)]


def in_nats(calls):
    label, expert, both = entropies(calls)
    return label + expert - both


def of_the_expert(calls):
    return in_nats(calls) / entropies(calls)[1]


def of_even_labels(calls):
    return in_nats(calls) / math.log(calls.shape[1])


def left_open(calls):
    return 1 - in_nats(calls) / entropies(calls)[0]


def no_number(calls):
    share = calls / calls.sum()
    return -(share * share.log()).sum()


def of_counts(calls):
    label, expert, both = (torch.special.entr(part).sum() for part in (calls.sum(0), calls.sum(1), calls))
    return (label + expert - both) / label


def lost_where_nobody_calls(calls):
    share, given = calls / calls.sum(), calls / calls.sum(1, keepdim=True)
    return 1 - (share.sum(1) * torch.special.entr(given).sum(1)).sum() / entropies(calls)[0]


def rows_alike(calls):
    return in_nats(calls / calls.sum(1, keepdim=True)) / entropies(calls / calls.sum(1, keepdim=True))[0]


def by_token(label, document, seed):
    return label[torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))]


def drawn_anew(label, document, seed):
    return torch.randint(0, 3, (10,), generator=torch.Generator().manual_seed(seed))[document]


def always_the_same(label, document, seed):
    return census.dealt_to_documents(label, document, 0)


def without_a_seed(label, document, seed):
    return census.dealt_to_documents(label, document, torch.randint(0, 1000, ()).item())


def turned_by_the_seed(label, document, seed):
    names, place = document.unique(return_inverse=True)
    return torch.stack([label[document == name][0] for name in names]).roll(seed)[place]


def first_document_is_zero(label, document, seed):
    of_document = torch.zeros(int(document.max()) + 1, dtype=label.dtype).scatter(0, document, label)
    return of_document[torch.randperm(len(of_document), generator=torch.Generator().manual_seed(seed))][document]


WRONG |= {
    "information": [(in_nats, "in nats"), (of_the_expert, "divided by H(expert)"), (of_even_labels, "the entropy of even labels"),
                    (left_open, "take it from 1"), (no_number, "0 · log 0"), (of_counts, "divide the table by its sum"),
                    (lost_where_nobody_calls, "where nobody calls an expert"), (rows_alike, "every row of the table"),
                    (lambda calls: calls, "expected one number"), (lambda calls: 0.5, "the answer is 1")],
    "dealt_to_documents": [(by_token, "single tokens"), (lambda label, document, seed: label, "nothing was dealt out"),
                           (drawn_anew, "a permutation"), (always_the_same, "use the seed"),
                           (without_a_seed, "the same seed gives another deal"), (first_document_is_zero, "need not begin at 0"),
                           (turned_by_the_seed, "some never come")],
}


def changed_places(change):
    """A wrong pair: what it makes of the right order and place."""
    return lambda ids: change(*rows.places(ids))


def unstable(ids):
    order = ids.flatten().add(torch.linspace(0.5, 0, ids.numel())).argsort()
    return order, order.argsort().view_as(ids)


def best_first(ids):
    order = ids.flatten().argsort(stable=True, descending=True)
    return order, order.argsort().view_as(ids)


def rows_needed(change):
    """Wrong least rows: what it makes of the ridge and the two sides."""
    return lambda columns_in, columns_out, device: change(device.ridge, columns_in, columns_out)


def below_zero(ridge, a, b):
    return 1 / (1 / ridge - 1 / a - 1 / b)


def one_by_one(ids, n):
    return torch.tensor([int((ids == i).sum()) for i in range(n)]).cumsum(0)


def with_a_mask(ids, n):
    return torch.stack([(ids[ids <= i] >= 0).sum() for i in range(n)])


def added_up(grad, token, place):
    return grad.new_zeros(len(place), grad.shape[1]).index_add(0, token, grad)


def by_order(grad, token, place):
    return grad[place.flatten().argsort()].view(*place.shape, -1).sum(1)


def written_once(grad, token, place):
    tokens = grad.new_zeros(len(place), grad.shape[1])
    tokens[token] += grad
    return tokens


def counted_by(change):
    """Wrong plans: what it counts of each device's choices; P devices, N experts."""
    return lambda choices, n: torch.stack([torch.bincount(change(ids, n, len(choices)).flatten(), minlength=len(choices))
                                           for ids in choices])


WRONG |= {
    "places": [(changed_places(lambda order, place: (place.flatten(), order.view_as(place))), "have changed places"),
               (changed_places(lambda order, place: (order, order.view_as(place))), "place is order once more"),
               (changed_places(lambda order, place: (order, place.flatten())), "the shape of the choices is missing"),
               (changed_places(lambda order, place: (order, place.view(2, 5).T)), "column by column"),
               (changed_places(lambda order, place: (order // 2, place)), "each of the numbers"),
               (changed_places(lambda order, place: (order, place.flip(0))), "does not undo order"),
               (unstable, "stable=True"), (best_first, "not sorted by expert"), (lambda ids: ids, "must return two things")],
    "gather_backward": [(lambda grad, token, place: grad[place], "their sum"), (added_up, "right, but by index_add"),
                        (written_once, "a single one is left"),
                        (lambda grad, token, place: grad.view(*place.shape, -1).sum(1), "as they lie"),
                        (by_order, "wrong way round"),
                        (lambda grad, token, place: grad[place[:, 0]], "the first choice's row alone"),
                        (lambda grad, token, place: grad[place].mean(1), "a sum, not a mean"),
                        (lambda grad, token, place: grad[token], "a row for each token"),
                        (lambda grad, token, place: grad[place[:, 0]] + grad[place[:, 1]], "the sum of the rows place[t]")],
    "waiting_lines": [(lambda: {1, 8, 10, 11, 12}, "line 10 does not wait: adding by an index takes atomics"),
                      (lambda: {5}, "`where` with three arguments"), (lambda: [7, 8], "line 7 does not wait"),
                      (lambda: {8, 12}, "2 found, and they do wait, but there is another one: ask of every condition"),
                      (lambda: {1, 8, 12}, "whether it holds numbers or true and false"),
                      (lambda: {1, 11, 12}, "where its length comes from"), (lambda: {1, 8, 11}, "who wants a number"),
                      (lambda: {13}, "the layer has no line 13"), (lambda: "1, 8", "in braces")],
    "least_rows": [(rows_needed(lambda ridge, a, b: ridge), "the ridge itself"),
                   (rows_needed(lambda ridge, a, b: math.ceil(below_zero(ridge, a, b))), "not rounded"),
                   (rows_needed(lambda ridge, a, b: 1 / (1 / ridge - 1 / a)), "columns that come out"),
                   (rows_needed(lambda ridge, a, b: 1 / (1 / ridge - 1 / b)), "columns that go in"),
                   (rows_needed(lambda ridge, a, b: 1 / (2 / ridge - 1 / a - 1 / b)), "the twos cancel"),
                   (rows_needed(lambda ridge, a, b: 1 / (0.5 / ridge - 1 / a - 1 / b)), "four bytes"),
                   (rows_needed(lambda ridge, a, b: 1 / (ridge - 1 / a - 1 / b)), "peak over bandwidth"),
                   (rows_needed(lambda ridge, a, b: 1 / below_zero(ridge, a, b)), "1 over the answer"),
                   (rows_needed(below_zero), "a negative number of rows"),
                   (rows_needed(lambda ridge, a, b: abs(below_zero(ridge, a, b))), "return math.inf"),
                   (rows_needed(lambda ridge, a, b: math.inf), "wrong for a matrix")],
    "block_ends": [(lambda ids, n: torch.bincount(ids.flatten(), minlength=n), "lengths of the blocks"),
                   (lambda ids, n: rows.block_ends(ids, n) - torch.bincount(ids.flatten(), minlength=n), "beginnings"),
                   (lambda ids, n: rows.block_ends(ids, n) - 1, "one too few"), (one_by_one, "it waits"),
                   (with_a_mask, "it waits"),
                   (lambda ids, n: torch.from_numpy(np.bincount(ids.flatten().numpy(), minlength=n).cumsum()), "not on a GPU"),
                   (lambda ids, n: (ids.cpu().flatten()[:, None] <= torch.arange(n)).sum(0), "not on a GPU"),
                   (lambda ids, n: (ids.flatten()[:, None] <= torch.arange(n)).sum(0), "not on a GPU"),
                   (lambda ids, n: rows.block_ends(ids, n).float(), "an integer dtype"),
                   (lambda ids, n: rows.block_ends(ids, int(ids.max()) + 1), "also for those without a token"),
                   (lambda ids, n: (ids.flatten()[:, None] <= torch.arange(n)).sum(0).clamp(max=10), "add the counts up")],
    "send_counts": [(lambda choices, n: parallel.send_counts(choices, n).T, "row i is what device i sends"),
                    (parallel.deduplicated_counts, "count choices, not tokens"),
                    (counted_by(lambda ids, n, p: ids[:, 0] // (n // p)), "the first choices alone"),
                    (counted_by(lambda ids, n, p: ids % p), "not every P-th one"),
                    (lambda choices, n: parallel.send_counts(choices, n).fill_diagonal_(0), "left out the rows that stay"),
                    (lambda choices, n: parallel.send_counts(choices, n) / parallel.send_counts(choices, n).sum(1, keepdim=True),
                     "expected numbers of rows"),
                    (counted_by(lambda ids, n, p: ids // 2), "wrong for"),
                    (lambda choices, n: parallel.send_counts(choices, n)[0], "expected (4, 4)")],
}


def listening(make, ending=".gate", remove=True, change=lambda routing: routing):
    """A wrong way to listen: `make` gives the Routing of logits, weights and indices."""
    def listen(model, ids, router):
        heard = {}
        hooks = [module.register_forward_hook(lambda _, inputs, output, name=name: heard.update({name: make(*output)}))
                 for name, module in model.named_modules() if name.endswith(ending)]
        model(ids[None])
        for hook in hooks if remove else ():
            hook.remove()
        return change(heard)
    return listen


def chosen_again(logits, weights, indices):
    best = logits.softmax(1).topk(weights.shape[1])
    return Routing(logits, best.indices, best.values / best.values.sum(1, keepdim=True))


def by_the_last_part(model, ids, router):
    return listening(as_given, f".{router}" if "." not in router else "\n")(model, ids, router)


def in_a_loop(model, ids, router):
    heard, hooks = {}, []
    for name, module in model.named_modules():
        if name.endswith("." + router):
            hooks.append(module.register_forward_hook(lambda _, inputs, output: heard.update({name: as_given(*output)})))  # noqa: B023
    model(ids[None])
    for one in hooks:
        one.remove()
    return heard


def with_one_name(model, ids, router):
    heard, hooks = {}, []
    for name, module in model.named_modules():
        if name.endswith("." + router):
            def hook(module, inputs, output):
                for one in routers:
                    heard[one] = as_given(*output)
            hooks.append(module.register_forward_hook(hook))
    routers = [name for name, _ in model.named_modules() if name.endswith("." + router)]
    model(ids[None])
    for one in hooks:
        one.remove()
    return heard


def returning(model, ids, router):
    for name, module in model.named_modules():
        if name.endswith("." + router):
            module.register_forward_hook(lambda _, inputs, output: as_given(*output))
    model(ids[None])


def as_given(logits, weights, indices):
    return Routing(logits, indices, weights)


def dense_too(model, ids, router):
    routings = real.listen(model, ids, router)
    return {f"layers.{i}": next(iter(routings.values())) for i in range(len(model.layers))}


WRONG |= {
    "listen": [(listening(chosen_again), "chosen again"), (listening(as_given, remove=False), "still on the model"),
               (listening(lambda logits, weights, ids: Routing(logits, ids, weights.sort(descending=True).values)),
                "not side by side"),
               (listening(lambda logits, weights, ids: Routing(logits, ids, logits.softmax(1).gather(1, ids))), "computed again"),
               (listening(lambda logits, weights, ids: Routing(logits, (ids + 1) % logits.shape[1], weights)), "its third part"),
               (listening(lambda logits, weights, ids: Routing(logits.softmax(1), ids, weights)), "not what the router returned"),
               (listening(lambda *output: output, ".gate_proj"), "is no router"),
               (listening(lambda *output: output), "kept a tuple"),
               (listening(as_given, ".router"), "nothing was heard"),
               (by_the_last_part, "may have a dot in it"), (in_a_loop, "share one name"),
               (with_one_name, "the routing of the last router"),
               (returning, "takes the place of the module's output"), (dense_too, "the first layer is dense"),
               (listening(as_given, change=lambda heard: list(heard.values())), "not a list"),
               (lambda model, ids, router: {}, "ran 0 times"), (lambda model, ids, router: model(ids), "a batch of one text")],
}


def ranked_by(rank, hide=-math.inf, ids=lambda masked, k: masked.topk(k).indices):
    """A wrong choice in groups: `rank` gives one score to each group's scores."""
    def best_in_groups(scores, groups, kept, top_k):
        grouped = scores.reshape(len(scores), groups, -1)
        closed = torch.ones(len(scores), groups).scatter(1, rank(grouped).topk(kept).indices, 0).bool()
        return ids(scores.masked_fill(closed.repeat_interleave(grouped.shape[2], 1), hide), top_k)
    return best_in_groups


def two_best(grouped):
    return grouped.topk(2).values.sum(-1)


def dealt_in_turn(scores, groups, kept, top_k):
    grouped = scores.reshape(len(scores), -1, groups).transpose(1, 2)
    closed = torch.ones(len(scores), groups).scatter(1, two_best(grouped).topk(kept).indices, 0).bool()
    return scores.masked_fill(closed.repeat(1, grouped.shape[2]), -math.inf).topk(top_k).indices


def places_among_the_kept(scores, groups, kept, top_k):
    grouped = scores.reshape(len(scores), groups, -1)
    best = two_best(grouped).topk(kept).indices
    return grouped[torch.arange(len(scores))[:, None], best].flatten(1).topk(top_k).indices


WRONG |= {
    "best_in_groups": [(lambda scores, groups, kept, k: scores.topk(k).indices, "whatever group they are in"),
                       (ranked_by(lambda grouped: grouped.amax(-1)), "as DeepSeek-V2 did"),
                       (ranked_by(lambda grouped: grouped.sum(-1)), "by all their experts"),
                       (ranked_by(two_best, hide=0.0), "never the largest"),
                       (ranked_by(lambda grouped: -two_best(grouped)), "the worst groups"),
                       (dealt_in_turn, "stand side by side"), (places_among_the_kept, "places among the kept"),
                       (ranked_by(two_best, ids=lambda masked, k: masked.topk(k).values), "you return scores"),
                       (ranked_by(two_best, ids=lambda masked, k: masked.topk(k).indices.T), "your answer has shape"),
                       (ranked_by(lambda grouped: grouped.amin(-1)), "rank groups by the sum")],
}
def by_hand(attempt):
    """A loop's answer, put into room for float32."""
    return lambda *arguments: attempt(*arguments).float()


def of_experts(*numbers):
    """A forward in which only some experts have answered; numbers may count from the end."""
    def forward(layer, x):
        routing = layer.router(x)
        kept = torch.isin(routing.expert_ids, torch.arange(layer.router.num_experts)[list(numbers)])
        return layer.experts(x, routing.reweighted(routing.weights * kept)), routing
    return forward


def in_place(label, document, seed=0):
    label.copy_(checks.dealt_to_documents.reference(label, document, seed))
    return label


MORE = {
    "gate": [(by_hand(layers.gate), "your numbers are torch.float32, and what you were given is torch.float64")],
    "ffn": [(by_hand(checks.ffn.reference), "zeros_like, or with dtype=x.dtype")],
    "gather_backward": [(by_hand(lambda grad, token, place: grad[place].sum(1)), "zeros_like")],
    "topk_moe": [
        (lambda layer, x: (layer(x)[0].float(), layer(x)[1]), "zeros_like"),
        (lambda layer, x: (torch.zeros_like(x), layer.router(x)), "y = combine("),
        (of_experts(0), "does return stand inside the loop"), (of_experts(-1), "the zeros stand before the loop"),
        (of_experts(0, 1, 2, 3), "loop end one too early"), (of_experts(0, 1, 2), "goes over all N"),
        (lambda layer, x: (layer(x)[0], Routing((one := layer.router(x)).logits, one.weights, one.expert_ids)),
         "changed places: Routing(logits, ids, weights)")],
    "load": [(lambda ids, n: ids.unique(return_counts=True), "several things: return the counts alone"),
             (lambda ids, n: torch.stack([(ids == i).sum() for i in range(1, n + 1)]), "ids begin at 0")],
    "power_law": [(lambda n, loss: (lambda slope, height: (math.exp(slope), -height))(*statistics.linear_regression(
        np.log(n), np.log(loss))), "the slope first, then the intercept")],
    "max_violation": [(lambda load: load.max() - load.double().mean() / load.double().mean(), "brackets")],
    "balance_loss": [(lambda routing: checks.balance_loss.reference(routing)[None], "start from 0.0")],
    "output_similarity": [(lambda outputs: checks.output_similarity.reference(outputs) / outputs.shape[-1], "not their mean")],
    "information": [(lambda calls: of_counts(calls / calls.sum(1, keepdim=True)), "not each row by its own")],
    "send_counts": [(lambda choices, n: torch.stack([torch.bincount((ids // len(choices)).flatten(), minlength=len(choices))
                                                     for ids in choices]), "a device holds N/P experts")],
    "labels_served": [(lambda calls: torch.special.entr(calls / calls.sum(1)).sum(1).exp(), "your code stopped with Runtime")],
    "places": [(changed_places(lambda order, place: (order, place.double())), "whole numbers: make room"),
               (lambda ids: (lambda order: (order, order.argsort().view_as(ids)))(
                   (ids.flatten() * ids.numel() - torch.arange(ids.numel()) * (ids.numel() > 12)).argsort()), "stable=True")],
    "dealt_to_documents": [(by_hand(lambda *given: checks.dealt_to_documents.reference(*given)), "labels are whole numbers"),
                           (in_place, "you changed label itself")],
    "best_in_groups": [(by_hand(lambda *given: checks.best_in_groups.reference(*given)), "experts' numbers are whole")],
    "listen": [(lambda model, ids, router: listening(as_given, router)(model, ids, router),
                "is no router, and has a hook of yours"),
               (lambda model, ids, name: {one: Routing(each.logits, each.weights, each.expert_ids) for one, each in
                                          real.listen(model, ids, name).items()}, "changed places: Routing")],
}
WRONG = {name: WRONG[name] + MORE.get(name, []) for name in WRONG}

ALL = {name: check for name, check in vars(checks).items() if isinstance(check, Check)}


def test_every_check_is_tested_against_at_least_three_wrong_implementations():
    assert ALL and set(WRONG) == set(ALL)
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@pytest.mark.parametrize("name", ALL)
def test_the_reference_is_accepted(name, capsys):
    assert ALL[name](ALL[name].reference) is ALL[name].reference
    assert capsys.readouterr().out.startswith(f"✅ {name}")


@pytest.mark.parametrize("name, wrong, hint", [(n, f, h) for n, rows in WRONG.items() for f, h in rows])
def test_a_wrong_implementation_gets_the_hint_that_fits_and_the_lesson_goes_on(name, wrong, hint, capsys):
    assert ALL[name](wrong) is ALL[name].reference
    out = capsys.readouterr().out
    assert out.startswith(f"❌ {name}") and hint in out


def mutual_information(calls):
    joint = calls / calls.sum()
    told = joint * (joint / (joint.sum(0) * joint.sum(1)[:, None])).log()
    return told.nansum() / torch.special.entr(joint.sum(0)).sum()


def shuffled(label, document, seed):
    names, place = document.unique(return_inverse=True)
    each = [label[document == name][0].item() for name in names]
    random.Random(seed).shuffle(each)
    return torch.tensor(each)[place]


def row_by_row(y, out, token, weight):
    y = y.clone()
    for r in range(len(token)):
        y[token[r]] = y[token[r]] + weight[r] * out[r]
    return y


RIGHT = {
    "load": [lambda ids, n: sum(torch.bincount(row, minlength=n) for row in ids),
             lambda ids, n: torch.stack([F.one_hot(row, n).sum(0) for row in ids]).sum(0)],
    "labels_served": [lambda calls: torch.where(calls.sum(1) > 0, torch.special.entr(
        calls / calls.sum(1, keepdim=True).clamp(min=1)).sum(1).exp(), 0)],
    "combine": [row_by_row],
    "power_law": [(fitted := lambda n, loss: (lambda slope, height: (np.exp(height), -slope))(
        *np.polyfit(np.log(n), np.log(loss), 1))), lambda n, loss: np.array(fitted(n, loss))],
    "max_violation": [lambda load: load.max() / load.float().mean() - 1],
    "balance_loss": [lambda r: (r.load.float() / r.load.float().mean() * r.logits.float().softmax(1).mean(0)).sum()],
    "update_bias": [lambda bias, load, rate: bias + rate * (load.float().mean() - load).sign()],
    "output_similarity": [lambda outputs: F.cosine_similarity(outputs[:, None], outputs[None], dim=-1).mean(-1)],
    "verdict": [lambda difference, margin: "higher" if difference.low > 0 else "lower" if difference.high < 0 else
                "alike" if max(-difference.low, difference.high) < margin else "open"],
    "information": [mutual_information],
    "dealt_to_documents": [shuffled],
}


@pytest.mark.parametrize("name, right", [(name, right) for name, rows in RIGHT.items() for right in rows])
def test_what_a_learner_may_write_instead_is_right(name, right):
    assert ALL[name].verdict(right) == (f"✅ {name}: right.", True)


def not_implemented(*arguments):
    raise NotImplementedError


def test_the_order_of_the_chosen_experts_is_the_learners_own():
    def smallest_first(scores, k):
        best = scores.sort(1)
        ids, weights = best.indices[:, -k:], best.values[:, -k:]
        return ids, weights / weights.sum(1, keepdim=True)

    assert checks.choose(smallest_first) is smallest_first


def test_writing_into_the_given_tensor_is_right_too():
    def in_place(y, out, token, weight):
        return y.index_add_(0, token, out * weight[:, None])

    assert checks.combine(in_place) is in_place and checks.combine(in_place) is in_place


def test_writing_into_the_tensors_of_a_given_list_is_right_too():
    def in_place(choices, num_experts):
        for ids in choices:
            ids //= num_experts // len(choices)
        return torch.stack([torch.bincount(ids.flatten(), minlength=len(choices)) for ids in choices])

    assert checks.send_counts(in_place) is in_place


def test_one_tensor_of_two_rows_is_two_things_too():
    def transposed(expert, ids):
        return (ids == expert).nonzero().T

    assert checks.tokens_of(transposed) is transposed


def test_a_stub_that_returns_two_of_nothing_is_not_tried(capsys):
    checks.choose(lambda scores, k: (..., ...))
    assert capsys.readouterr().out.startswith("⏳ choose: not tried")


def test_a_loop_that_returns_a_list_is_right_too():
    def by_loop(ids, n):
        return [sum(row.count(expert) for row in ids.tolist()) for expert in range(n)]

    assert checks.load(by_loop) is by_loop


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("stub", [lambda *a: ..., not_implemented])
def test_a_stub_is_not_tried_and_the_lesson_goes_on(name, stub, capsys):
    assert ALL[name](stub) is ALL[name].reference
    assert capsys.readouterr().out.startswith(f"⏳ {name}: not tried")


def test_the_layer_with_both_planted_faults_is_not_tried_until_it_is_changed(capsys, tmp_path):
    notebook = nbformat.read(NOTEBOOKS / "02-topk-moe.ipynb", as_version=4)
    given = next(cell.source for cell in notebook.cells if cell.id == "exercise-mended").partition("\n\n\nmended")[0]
    changed = given.replace("    return", "    y = y.clone()\n    return")
    names = vars(dispatch) | {"torch": torch, "MoE": layers.MoE, "Routing": Routing, "gate": layers.gate, "choose": layers.choose}
    for source, says in ((given, "⏳ mended: not tried"), (changed, "❌ mended: both faults are still there")):
        file = tmp_path / f"{len(source)}.py"  # inspect finds the source of what stands in a file
        file.write_text(source, encoding="utf-8")
        exec(compile(source, file, "exec"), names)
        assert checks.mended(names["mended"]) is checks.mended.reference
        assert capsys.readouterr().out.startswith(says)


@pytest.mark.parametrize("name", ALL)
def test_an_attempt_without_return_is_told_so(name, capsys):
    assert ALL[name](lambda *a: None) is ALL[name].reference
    assert "return" in capsys.readouterr().out


@pytest.mark.parametrize("name", ALL)
def test_an_attempt_that_raises_is_told_so(name, capsys):
    def raises(*arguments):
        raise KeyError("oops")

    assert ALL[name](raises) is ALL[name].reference
    assert "KeyError" in capsys.readouterr().out


class Largest(TorchDispatchMode):
    """How many numbers the largest new tensor has; larger ones are not made."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **kwargs or {})
        made = result if isinstance(result, tuple | list) else [result]
        sizes = [one.numel() for one in made if isinstance(one, torch.Tensor)]
        assert max(sizes, default=0) <= 2**20, f"a tensor of {max(sizes)} numbers"
        return result


def rubbish(answer):
    """The answer with whole numbers such as memory holds that nobody has written to."""
    if isinstance(answer, tuple | list):
        return type(answer)(map(rubbish, answer))
    return torch.full_like(answer, 2**21) if isinstance(answer, torch.Tensor) and not answer.is_floating_point() else answer


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("mended", "topk_moe", "deepseekmoe", "listen")])  # floats
def test_rubbish_in_an_answer_is_never_taken_for_a_size(name):
    with Largest():
        assert "a tensor of" not in ALL[name].verdict(lambda *given: rubbish(ALL[name].reference(*given)))[0]


class Waits(TorchDispatchMode):
    """At which commented lines of a function an operator needs a value, or finds out how long its result is."""

    def __init__(self, name: str, source: str):
        super().__init__()
        self.name, self.source, self.lines = name, source.splitlines(), set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        masked = name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])
        if masked or name in {"_local_scalar_dense", "nonzero", "is_nonzero"}:
            frame = sys._getframe()
            while frame.f_code.co_name != self.name:
                frame = frame.f_back
            self.lines.add(int(self.source[frame.f_lineno - 1].partition("# line ")[2]))
        return operator(*args, **kwargs or {})


def test_the_lines_that_the_check_wants_are_those_at_which_the_lessons_layer_waits():
    lesson = nbformat.read(NOTEBOOKS / "09-moe-on-gpu.ipynb", as_version=4)
    source = next(cell.source for cell in lesson.cells if cell.id == "exercise-lines")
    exec(source.partition("\n\n\ndef waiting_lines")[0], names := {"torch": torch})
    ids = torch.tensor([[3, 0], [1, 3], [0, 2]])
    with Waits("slow_layer", source) as seen:
        names["slow_layer"](torch.randn(3, 4), ids, torch.rand(3, 2) + 0.1, torch.randn(4, 4, 5), torch.randn(4, 5, 4))
    assert seen.lines == set(lines_that_wait())
    assert set(NEVER_WAIT) | set(ASK) == set(range(1, 13)) and set(ASK) == seen.lines
