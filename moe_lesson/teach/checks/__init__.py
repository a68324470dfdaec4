"""Checks of the exercises: each tells what the learner misunderstood, not that an assertion failed.

    load = check.load(load)

prints ⏳ not tried, ✅, or ❌ with a diagnosis, and returns the learner's function where it is right and the package's own
otherwise, so that the rest of the lesson runs either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...measure import census, evidence, instruments, interventions
from ...moe import balance, dispatch, layers, routing
from ...moe.routing import Routing, expert_load


class NotTried(Exception):
    """The exercise is still a stub."""


class Wrong(Exception):
    """The attempt is wrong; the message says how, as a teacher would."""


class Check:
    """The check of one exercise.

    Args:
        name: what the function is called in the lesson.
        reference: the package's own.
        diagnose: takes a function and returns None if it is right, else what is wrong with it, as a teacher would say it.
    """

    def __init__(self, name: str, reference: Callable, diagnose: Callable[[Callable], str | None]):
        self.name, self.reference, self.diagnose = name, reference, diagnose

    def __call__(self, attempt: Callable) -> Callable:
        """Print the verdict; return the function that the lesson goes on with."""
        verdict, right = self.verdict(attempt)
        print(verdict)
        return attempt if right else self.reference

    def verdict(self, attempt: Callable) -> tuple[str, bool]:
        """The sentence to print, and whether the attempt is right."""
        try:
            problem = self.diagnose(attempt)
        except NotTried:
            return f"⏳ {self.name}: not tried yet. The lesson goes on with the package's own.", False
        except Wrong as wrong:
            problem = str(wrong)
        except Exception as error:  # the learner's code may raise anything
            return f"❌ {self.name}: your code stopped with {type(error).__name__}: {error}", False
        return (f"❌ {self.name}: {problem}", False) if problem else (f"✅ {self.name}: right.", True)


def answered(attempt: Callable, *arguments):
    """The attempt's answer as it is, unless it is a stub's. It gets copies: what it writes into them is its own affair."""
    copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    try:
        answer = attempt(*copies)
    except NotImplementedError:
        raise NotTried from None
    if answer is None and any(isinstance(a, Tensor) and not torch.equal(a, copy) for a, copy in zip(arguments, copies)):
        raise Wrong("your function works and returns nothing: end it with return")
    if answer is ... or answer is None:
        raise NotTried
    return answer


def called(attempt: Callable, *arguments) -> Tensor:
    """The attempt's answer, which must be a tensor, since the lesson goes on computing with it."""
    return tensor(answered(attempt, *arguments))


def number(attempt: Callable, *arguments) -> float:
    """The attempt's answer, which must be one number."""
    answer = answered(attempt, *arguments)
    if not isinstance(answer, int | float | Tensor) or isinstance(answer, Tensor) and answer.numel() != 1:
        shape = f" of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else ""
        raise Wrong(f"your answer is a {type(answer).__name__}{shape}; expected one number")
    return float(answer)


def called_pair(attempt: Callable, names: str, *arguments) -> list:
    """The two parts of the attempt's answer."""
    answer = answered(attempt, *arguments)
    if isinstance(answer, Tensor) and answer.ndim and len(answer) == 2 or isinstance(answer, tuple | list) and len(answer) == 2:
        if any(part is ... or part is None for part in answer):
            raise NotTried
        return list(answer)
    raise Wrong(f"your function must return two things, {names}")


def tensor(answer) -> Tensor:
    """The answer itself, if it is a tensor."""
    if not isinstance(answer, Tensor):
        raise Wrong(f"return a tensor, not a {type(answer).__name__}: the layer goes on computing with it")
    return answer


def needs_gradient(attempt: Callable, taught: str, *arguments) -> None:
    """Refuse an answer that has lost the way back to one of the float arguments."""
    inputs = [a.clone().requires_grad_() if a.is_floating_point() else a for a in arguments if isinstance(a, Tensor)]
    rest = iter(inputs)
    answer = attempt(*[next(rest) if isinstance(a, Tensor) else a for a in arguments])
    output = next(part for part in (answer if isinstance(answer, tuple | list) else [answer]) if part.is_floating_point())
    if output.requires_grad:
        output.square().sum().backward()
    if any(a.grad is None for a in inputs if a.is_floating_point()):
        raise Wrong(f"the numbers are right, but the gradient does not come through (detach, no_grad, item?): {taught}")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64, the same at every call: a check must say the same twice."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same(answer: Tensor, wanted: Tensor) -> bool:
    """Equal in shape and, up to rounding, in value."""
    return answer.shape == wanted.shape and torch.allclose(answer.double(), wanted.double(), rtol=1e-6, atol=1e-9)


def has_shape(answer: Tensor, *shape: int) -> str | None:
    """A sentence if the answer has another shape."""
    return None if answer.shape == shape else f"your answer has shape {tuple(answer.shape)}; expected {shape}"


# ------------------------------------------------------------------------------------------------------ the exercises


def diagnose_load(attempt: Callable) -> str | None:
    """What is wrong with a function (expert_ids [T, K], N) -> load [N]."""
    ids, n = torch.tensor([[3, 1], [3, 0], [1, 3], [3, 4], [4, 1]]), 6  # experts 2 and 5 idle, the last among them
    t, k = ids.shape
    answer = torch.as_tensor(answered(attempt, ids, n))
    if answer.shape != (n,):
        if answer.shape == (k, n):
            return f"you counted each of the {k} columns by itself: add the columns up, a load has one number per expert"
        if answer.shape == (t, n):
            return "you have one row per token: add over the tokens too"
        if answer.ndim == 1 and len(answer) < n:
            return (f"you returned {len(answer)} numbers for N = {n} experts: an expert that no token chose still needs its 0 "
                    "(does your counting function know how long its answer must be?)")
        return f"your answer has shape {tuple(answer.shape)}; expected ({n},), one number per expert"
    if answer.sum() == t:
        return (f"your load sums to T = {t}; each token chose K = {k} experts, so it must sum to T·K = {t * k}: "
                "count every column, not the first alone")
    if torch.equal(answer.bool(), expert_load(ids, n) > 0) and answer.max() == 1:
        return ("every expert that was chosen got a 1: with an index that occurs twice, `load[ids] += 1` adds once. "
                "Which function counts repetitions?")
    if torch.allclose(answer.double() * t * k / answer.double().sum(), expert_load(ids, n).double()) and answer.sum() != t * k:
        return "you returned shares: the load is a count of tokens"
    if not torch.equal(answer.double(), expert_load(ids, n).double()):
        return (f"for expert_ids {ids.tolist()} you returned {answer.tolist()}; "
                f"count by hand how often each of the ids 0 … {n - 1} stands there")
    if torch.as_tensor(answered(attempt, torch.zeros(0, k, dtype=torch.long), n)).shape != (n,):
        return f"with no token at all the load must be {n} zeros"
    return None


load = Check("load", expert_load, diagnose_load)


def diagnose_ffn(attempt: Callable) -> str | None:
    """What is wrong with a function (x [T, D], w_in [D, 2H], w_out [H, D]) -> y [T, D]."""
    x, w_in, w_out = drawn(5, 4), drawn(4, 6, seed=1), drawn(3, 4, seed=2)
    answer = called(attempt, x, w_in, w_out)
    if problem := has_shape(answer, 5, 4):
        return problem
    gate, up = (x @ w_in).chunk(2, dim=-1)
    silu = torch.nn.functional.silu
    slips = {
        "you multiplied the two halves without the silu: then nothing bends, and the gate is no gate": gate * up,
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
    for hint, hidden in slips.items():
        if same(answer, hidden @ w_out):
            return hint
    if not same(answer, dispatch.ffn(x, w_in, w_out)):
        return "the shape is right and the numbers are not: y = (silu(gate) · up) W_out, with gate and up the halves of x W_in"
    larger = drawn(2, 4), drawn(4, 14, seed=1), drawn(7, 4, seed=2)
    if not same(called(attempt, *larger), dispatch.ffn(*larger)):
        return "right for 3 hidden units and wrong for 7: take the number of units from the tables"
    return needs_gradient(attempt, "nothing would teach the network", x, w_in, w_out)


ffn = Check("ffn", dispatch.ffn, diagnose_ffn)


def diagnose_power_law(attempt: Callable) -> str | None:
    """What is wrong with a function (sizes, losses) -> factor and exponent of losses = factor · sizes^-exponent."""
    sizes = [1e4, 3e4, 1e5, 1e6]
    factor, exponent = 5.0, 0.125
    losses = [factor * size ** -exponent for size in sizes]
    a, b = (torch.as_tensor(part).double() for part in called_pair(attempt, "the factor and the exponent", sizes, losses))
    if a.ndim or b.ndim:
        return f"the factor has shape {tuple(a.shape)} and the exponent {tuple(b.shape)}; each is one number"
    right_a, right_b = torch.tensor([factor, exponent], dtype=torch.float64)
    if same(b, right_a) and same(a, right_b):
        return "the two are swapped: first the factor, then the exponent"
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
    if not (torch.allclose(a, right_a, rtol=1e-3) and torch.allclose(b, right_b, rtol=1e-3)):
        return (f"for losses that are exactly {factor} · size^-{exponent} you found {a:.4g} and {b:.4g}: "
                "take the logarithm of both sides first, then it is a straight line")
    return None


power_law = Check("power_law", evidence.power_law, diagnose_power_law)


def diagnose_gate(attempt: Callable) -> str | None:
    """What is wrong with a function (x [T, D], w [D, N]) -> logits [T, N]."""
    x, w = drawn(4, 3), drawn(3, 5, seed=1)
    answer, logits = called(attempt, x, w), x @ w
    if answer.shape == (5, 4):
        return "you have one row per expert: turn it around, a row for every token"
    if problem := has_shape(answer, 4, 5):
        return problem
    if same(answer, logits.softmax(1)):
        return "these are probabilities already: the gate's logits come before the softmax, which is the next step"
    if same(answer, logits.softmax(0)):
        return "you took a softmax over the tokens: they do not compete with each other. And the logits come before it"
    if same(answer, torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(w, dim=0)):
        return "these are cosines: do not divide by the lengths, a long token may have a strong opinion"
    if same(answer, logits / 3 ** 0.5):
        return "you divided by √D, as attention does: the router does not"
    if not same(answer, logits):
        return "every logit is one product: the token's row times the expert's column, summed over D"
    return needs_gradient(attempt, "nothing would teach the router", x, w)


gate = Check("gate", layers.gate, diagnose_gate)


def diagnose_choose(attempt: Callable) -> str | None:
    """What is wrong with a function (scores [T, N], K) -> expert_ids [T, K], weights [T, K]."""
    scores, k = drawn(6, 5).softmax(1), 2
    ids, weights = map(tensor, called_pair(attempt, "the expert_ids and the weights", scores, k))
    if ids.is_floating_point() and not weights.is_floating_point():
        return "the two are swapped: first the expert_ids, then the weights (topk returns values, then indices)"
    if ids.is_floating_point():
        return "your expert_ids are not whole numbers: topk returns values and indices, the indices are the ids"
    if ids.shape == (k, 5):
        return "you chose tokens for each expert: take the best along the last dimension, the experts"
    if problem := has_shape(ids, 6, k) or has_shape(weights, 6, k):
        return problem
    wanted, best = layers.choose(scores, k), scores.gather(1, ids.long().clamp(0, 4))
    if torch.equal(ids.sort(1).values, scores.topk(k, largest=False).indices.sort(1).values):
        return "you chose the worst experts"
    if not torch.equal(ids.sort(1).values, wanted[0].sort(1).values):
        return "these are not the K experts with the highest scores of each token"
    if same(weights, best):
        return ("your weights are the raw probabilities, and sum to less than 1 over the chosen: divide them by their sum, "
                "or the layer's output shrinks whenever the router hesitates")
    if same(weights, best.softmax(1)):
        return "you took a softmax of probabilities: they are positive already, divide them by their sum"
    if same(weights, scores.gather(1, ids) / scores.gather(1, ids).sum()):
        return "you divided by the sum over all tokens: each token's weights sum to 1"
    if same(weights, best / best.sum(0)):
        return "you divided by the sum over the tokens: sum over the chosen experts, the last dimension, with keepdim=True"
    if same(weights, torch.full_like(weights, 1 / k)):
        return "all weights are 1/K: the router decides who, and now nobody decides how much; nothing would teach it"
    written = torch.zeros_like(scores).scatter(1, ids, weights.to(scores.dtype))
    if not same(written, torch.zeros_like(scores).scatter(1, *wanted)):
        return "the experts are right, but some weights stand beside another's expert or are not its score over the sum"
    if called_pair(attempt, "", scores, 3)[0].shape != (6, 3):
        return "right for K = 2 and wrong for K = 3: take K from top_k"
    return needs_gradient(attempt, "it is through the weights that the router learns", scores, k)


choose = Check("choose", layers.choose, diagnose_choose)


def diagnose_tokens_of(attempt: Callable) -> str | None:
    """What is wrong with a function (expert, expert_ids [T, K]) -> token positions [R], slots [R]."""
    ids = torch.tensor([[3, 1], [0, 3], [1, 2], [3, 0], [2, 1]])  # expert 3: tokens 0, 1, 3 in slots 0, 1, 0
    token, slot = map(tensor, called_pair(attempt, "the tokens' positions and the slots", 3, ids))
    if token.dtype == torch.bool or slot.dtype == torch.bool:
        return "you return a mask of True and False: say at which positions it is True (torch.where, nonzero)"
    if token.shape != slot.shape or token.ndim != 1:
        return (f"tokens have shape {tuple(token.shape)} and slots {tuple(slot.shape)}; expected one position and one slot "
                "for each of the R tokens")
    if token.tolist() == [0, 1, 0] and slot.tolist() == [0, 1, 3]:
        return "the two are swapped: first the tokens (rows), then the slots (columns)"
    if token.tolist() == [0, 3]:
        return "you looked at the first slot alone: an expert may be a token's second choice"
    if token.tolist() == [0, 3, 6]:
        return "these are positions in the flattened table: divide by K to get the token"
    if sorted(zip(token.tolist(), slot.tolist())) != [(0, 0), (1, 1), (3, 0)]:
        return (f"for expert 3 in {ids.tolist()} you found tokens {token.tolist()} in slots {slot.tolist()}: "
                "where does a 3 stand?")
    for expert, found in ((4, []), (0, [(1, 0), (3, 1)]), (2, [(2, 1), (4, 0)])):
        token, slot = map(tensor, called_pair(attempt, "the tokens' positions and the slots", expert, ids))
        if token.is_floating_point() or slot.is_floating_point():
            return "your positions are not whole numbers where there is no token: give an empty list dtype=torch.long"
        if token.shape != slot.shape or token.ndim != 1 or sorted(zip(token.tolist(), slot.tolist())) != found:
            return (f"right for expert 3 and wrong for expert {expert}, who has {len(found)} tokens"
                    + ("" if found else ": both answers must be empty then"))
    one_token = called_pair(attempt, "the tokens' positions and the slots", 1, ids[:1])
    if [part.tolist() for part in map(tensor, one_token)] != [[0], [1]]:
        return "right for many tokens and wrong for one: even then the answers are lists of positions (squeeze() takes too much)"
    return None


tokens_of = Check("tokens_of", dispatch.tokens_of, diagnose_tokens_of)


def diagnose_combine(attempt: Callable) -> str | None:
    """What is wrong with a function (y [T, D], out [R, D], token [R], weight [R]) -> y with the outputs added."""
    y, out, weight = drawn(4, 3), drawn(3, 3, seed=1), torch.tensor([0.25, 0.5, 2.0], dtype=torch.float64)
    token = torch.tensor([2, 0, 0])  # token 0 twice
    answer = called(attempt, y, out, token, weight)
    if problem := has_shape(answer, 4, 3):
        return problem
    if same(answer, y.index_add(0, token, out * weight)):
        return "weight[r] belongs to row r of out: make it a column, weight[:, None], or it multiplies the columns"
    weighted = out * weight[:, None]
    once = y.clone()
    once[token] += weighted
    replaced = y.clone()
    replaced[token] = weighted
    slips = {
        "you forgot the weights: the router decides how much each expert counts": y.index_add(0, token, out),
        "you start from nothing: what other experts have added to y must stay": torch.zeros_like(y).index_add(0, token, weighted),
        "you replace what other experts have written: add to it": replaced,
        "you divide by the weights": y.index_add(0, token, out / weight[:, None]),
    }
    for hint, wrong in slips.items():
        if same(answer, wrong):
            return hint
    if same(answer, once):
        return ("a token that occurs twice got one output only: y[token] += … adds once for an index that repeats. "
                "Which function of a tensor adds at an index, every time?")
    if not same(answer, dispatch.combine(y, out, token, weight)):
        return "row r of out belongs to token token[r], and counts weight[r]"

    def out_and_weight(out: Tensor, weight: Tensor) -> Tensor:
        return attempt(y.clone(), out, token, weight)

    return needs_gradient(out_and_weight, "neither the experts nor the router would learn", out, weight)


combine = Check("combine", dispatch.combine, diagnose_combine)


def diagnose_max_violation(attempt: Callable) -> str | None:
    """What is wrong with a function load [N] -> (max - mean) / mean."""
    for counts in ([7, 2, 1, 2], [0, 0, 10], [5, 5]):
        load = torch.tensor(counts)
        answer = torch.as_tensor(answered(attempt, load)).double()
        if answer.shape != ():
            return f"your answer has shape {tuple(answer.shape)}; expected one number for the whole layer"
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
        return tensor(answered(attempt, Routing(logits, ids, weights)))

    answer = loss_of(logits)
    if answer.shape != ():
        return f"your answer has shape {tuple(answer.shape)}; a loss is one number: sum over the experts"
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
    for hint, wrong in slips.items():
        if same(answer, wrong):
            return hint
    if not same(answer, (f * p).sum()):
        return "f_i = load_i · N / (K·T), P_i = the mean over the tokens of expert i's probability; multiply, and sum over i"
    return needs_gradient(loss_of, "then nothing pushes the router", logits)


balance_loss = Check("balance_loss", balance.balance_loss, diagnose_balance_loss)


def diagnose_update_bias(attempt: Callable) -> str | None:
    """What is wrong with a function (bias [N], load [N], rate) -> bias [N]."""
    bias, load, rate = torch.tensor([0.3, -0.2, 0.0, 0.1]), torch.tensor([9, 1, 4, 2]), 0.01  # the mean is 4
    answer = called(attempt, bias, load, rate)
    if problem := has_shape(answer, 4):
        return problem
    gap = load.double().mean() - load
    slips = {
        "the sign is turned: a crowded expert must become less attractive": bias - rate * gap.sign(),
        "you moved by the size of the gap: DeepSeek-V3 moves every bias by the same small step, up or down": bias + rate * gap,
        "you moved by the gap relative to the mean: only its sign counts": bias + rate * gap / load.double().mean(),
        "you returned the step alone: add it to the bias, which remembers what happened before": rate * gap.sign(),
        "you forgot the rate: a step of 1 throws all tokens from one expert to the next": bias + gap.sign(),
        "you compared with the median: the balanced load is the mean": bias + rate * (3 - load).sign(),
    }
    for hint, wrong in slips.items():
        if same(answer, wrong):
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


def diagnose_labels_served(attempt: Callable) -> str | None:
    """What is wrong with a function calls [N, M] -> effective number of labels [N]."""
    calls = torch.tensor([[8.0, 0, 0, 0], [5, 5, 5, 5], [6, 2, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    answer = called(attempt, calls)
    if problem := has_shape(answer, 4):
        return problem
    share = calls / calls.sum(1, keepdim=True).clamp(min=1e-12)
    entropy = torch.special.entr(share).sum(1)
    if answer[:3].isnan().any():
        return "an expert that a label never calls makes your answer NaN: 0 · log 0 counts as 0 (torch.special.entr knows)"
    slips = {
        "that is the entropy itself: exp of it is a number of labels": entropy,
        "that is the entropy in bits: 2 to the power of it is a number of labels": entropy / math.log(2),
        "you counted the labels that ever call: one stray token is then a whole label": (calls > 0).sum(1),
        "exp goes with the natural logarithm, 2 to the power with log2": (entropy / math.log(2)).exp(),
        "that is 1 / Σ share², another effective number: here we use the entropy": 1 / share.square().sum(1).clamp(min=1e-12),
        "the sign is turned: the entropy is - Σ share · log share": (-entropy).exp(),
        "that is a share of the most that is possible: how many labels is it?": entropy / math.log(4),
    }
    for hint, wrong in slips.items():
        if same(answer[:3], wrong.double()[:3]):
            return hint
    over_experts = calls / calls.sum(0, keepdim=True)
    if same(answer[:3], torch.special.entr(over_experts).sum(1).exp()[:3]):
        return "divide each expert's calls by the expert's own sum, its row: you divided by the label's"
    if not same(answer[:3], entropy.exp()[:3]):
        return f"for calls of {calls[2].tolist()} the shares are 0.75 and 0.25, and exp(entropy) is {entropy[2].exp():.3f}"
    if answer[3] != 0:
        return f"an expert that nobody calls serves 0 labels; you said {answer[3].item():.3g}"
    return None


labels_served = Check("labels_served", instruments.labels_served, diagnose_labels_served)


def diagnose_output_similarity(attempt: Callable) -> str | None:
    """What is wrong with a function outputs [N, T, D] -> mean cosine [N, N]."""
    outputs = drawn(3, 6, 4) * torch.tensor([0.5, 1, 4], dtype=torch.float64)[:, None, None] + 0.3
    answer = called(attempt, outputs)
    if answer.shape == (3, 3, 6) or answer.shape == (6, 3, 3):
        return "you have one matrix for each token: take the mean over the tokens"
    if problem := has_shape(answer, 3, 3):
        return problem
    flat = outputs.flatten(1)
    unit = torch.nn.functional.normalize(outputs, dim=-1)
    dots = torch.einsum("itd,jtd->ij", unit, unit)
    slips = {
        "you added over the tokens: take the mean": dots,
        "these are products, not cosines: divide every answer by its length first": torch.einsum(
            "itd,jtd->ij", outputs, outputs) / 6,
        "you took one cosine over all tokens at once: then loud tokens decide; take it token by token": (
            torch.nn.functional.normalize(flat, dim=1) @ torch.nn.functional.normalize(flat, dim=1).T),
        "you compared mean answers: take the cosine of each token first, then the mean": (
            torch.nn.functional.normalize(outputs.mean(1), dim=1) @ torch.nn.functional.normalize(outputs.mean(1), dim=1).T),
        "you took the cosine over the tokens, for each of the D numbers: take it over D": torch.einsum(
            "itd,jtd->ij", *[torch.nn.functional.normalize(outputs, dim=1)] * 2) / 4,
        "you took absolute values: two experts that say the opposite are not alike": torch.einsum(
            "itd,jtd->ijt", unit, unit).abs().mean(-1),
    }
    for hint, wrong in slips.items():
        if same(answer, wrong):
            return hint
    if not same(answer, instruments.output_similarity(outputs)):
        return "entry (i, j): the cosine of expert i's and expert j's answer to a token, then the mean over the tokens"
    return None


output_similarity = Check("output_similarity", instruments.output_similarity, diagnose_output_similarity)


def diagnose_cut_experts(attempt: Callable) -> str | None:
    """What is wrong with a function (w_in [N, D, 2H], w_out [N, H, D], m) -> [mN, D, 2H/m], [mN, H/m, D]."""
    n, d, h, m = 2, 5, 6, 3
    w_in, w_out = drawn(n, d, 2 * h), drawn(n, h, d, seed=1)
    pieces_in, pieces_out = map(tensor, called_pair(attempt, "w_in and w_out of the pieces", w_in, w_out, m))
    wanted = (m * n, d, 2 * h // m), (m * n, h // m, d)
    if pieces_in.shape == (n, m, d, 2 * h // m) or pieces_out.shape == (n, m, h // m, d):
        return "the pieces of one expert are experts like all others: N and m become one dimension of mN"
    if pieces_in.shape == wanted[0][:1] + wanted[0][:0:-1] or pieces_out.shape == wanted[1][:1] + wanted[1][:0:-1]:
        return "a piece has rows and columns changed: w_in stays [D, 2H/m], w_out [H/m, D]"
    for name, piece, shape in zip(("w_in", "w_out"), (pieces_in, pieces_out), wanted):
        if problem := has_shape(piece, *shape):
            return f"{name}: {problem}"
    right_in, right_out = interventions.cut_experts(w_in, w_out, m)
    straight = w_in.reshape(n, d, m, -1).transpose(1, 2).flatten(0, 1)
    if same(pieces_in, straight):
        return ("you cut the 2H columns in one go: the first pieces are all gate and no up. Cut gate and up each, "
                "and put run j of the one beside run j of the other")
    if same(pieces_in, torch.cat([part.reshape(n, d, m, -1).transpose(1, 2).flatten(0, 1)
                                  for part in reversed(w_in.chunk(2, dim=-1))], dim=-1)):
        return "gate and up have changed places: the gate's columns come first"
    if same(pieces_out, w_out.reshape(n, h // m, m, d).transpose(1, 2).flatten(0, 1)) or same(
            pieces_in, torch.cat([part.reshape(n, d, -1, m).permute(0, 3, 1, 2).flatten(0, 1)
                                  for part in w_in.chunk(2, dim=-1)], dim=-1)):
        return "you dealt the units out in turn: piece j gets the j-th run of neighbours (and w_in and w_out must agree)"
    if same(pieces_in, right_in / m) or same(pieces_out, right_out / m):
        return "you made the pieces quieter: they keep their numbers, the weights come from the gate"
    by_piece = torch.arange(m * n).reshape(n, m).T.flatten()
    if same(pieces_in, right_in[by_piece]) or same(pieces_out, right_out[by_piece]):
        return "the order: first all pieces of expert 0, then those of expert 1"
    if not (same(pieces_in, right_in) and same(pieces_out, right_out)):
        return "the pieces of an expert don't add up to it: unit h is column h of gate, column h of up and row h of w_out"
    return None


cut_experts = Check("cut_experts", interventions.cut_experts, diagnose_cut_experts)


def diagnose_shared_and_routed(attempt: Callable) -> str | None:
    """What is wrong with a function (layer, x [T, D]) -> shared [T, D], routed [T, D]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = layers.MoE(6, num_experts=5, top_k=2, expert_width=3, num_shared=2, scale=2.0).double().requires_grad_(False)
    x = drawn(7, 6)
    shared, routed = map(tensor, called_pair(attempt, "the shared part and the routed part", layer, x))
    right_shared, right_routed = instruments.shared_and_routed(layer, x)
    for name, part in (("the shared part", shared), ("the routed part", routed)):
        if problem := has_shape(part, *x.shape):
            return f"{name}: {problem}"
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


def diagnose_verdict(attempt: Callable) -> str | None:
    """What is wrong with a function (worse, better), a loss per seed each -> "holds", "opposite" or "open"."""
    clear, small = [2.0, 2.1, 2.2, 2.3, 2.4], [1.9, 2.0, 2.1, 2.2, 2.31]  # 0.1 apart in each seed, and far apart over the seeds
    wild = [1.5, 2.6, 1.6, 2.7, 1.2]
    cases = (
        (clear, small, "seed by seed the first is higher by about 0.1 in all five: the intervals of the two means overlap and "
                       "that of the differences does not reach 0. Pair the seeds"),
        (small, clear, "where the loss that should be lower is higher in every seed, the data say the opposite, not nothing"),
        (clear, wild, "the mean is on the claim's side, and two seeds of five are against it: the interval contains 0. "
                      "A claim holds if the whole interval is above 0"),
        (wild, clear, "the mean is against the claim, but the interval contains 0: that is open, not opposite"),
        (clear, clear, "no difference at all is open: the interval must lie above 0, not at it"),
    )
    for worse, better, hint in cases:
        answer = answered(attempt, list(worse), list(better))
        if answer not in ("holds", "opposite", "open"):
            return f'your answer is {answer!r}; expected "holds", "opposite" or "open"'
        if answer != evidence.verdict(worse, better):
            turned = {"holds": "opposite", "opposite": "holds"}.get(answer)
            if turned == evidence.verdict(worse, better) and attempt(list(better), list(worse)) == turned:
                return "turned round: losses, so the first, which the claim calls worse, should be the higher one"
            return hint
    return None


verdict = Check("verdict", evidence.verdict, diagnose_verdict)


def diagnose_information(attempt: Callable) -> str | None:
    """What is wrong with a function calls [N, M] -> I(expert; label) / H(label)."""
    calls = torch.tensor([[6, 1, 0.0], [2, 3, 1], [0, 2, 5], [1, 1, 1]], dtype=torch.float64)
    value, right = number(attempt, calls), census.information(calls)
    if not math.isfinite(value):
        return "your answer is not a number: 0 · log 0 counts as 0 (torch.special.entr knows)"
    share = calls / calls.sum()
    of_label, of_expert, of_both = (torch.special.entr(part).sum().item() for part in (share.sum(0), share.sum(1), share))
    told = of_label + of_expert - of_both
    slips = {
        "that is the information in nats: divide it by H(label), so that 1 means that the expert tells all": told,
        "that is the information in bits: divide it by H(label)": told / math.log(2),
        "you divided by H(expert): the question is what share of the label's entropy an expert tells": told / of_expert,
        "you divided by log M, the entropy of even labels: divide by the entropy of these": told / math.log(3),
        "that is what is left open, H(label | expert) / H(label): take it from 1": 1 - told / of_label,
        "you took every row of the table as equally likely: an expert with few calls counts less": census.information(
            calls / calls.sum(1, keepdim=True)),
        "you took every label as equally likely: the caller decides how labels are weighed, use the table as it is":
            census.information(calls / calls.sum(0, keepdim=True)),
    }
    for hint, wrong in slips.items():
        if math.isclose(value, wrong, abs_tol=1e-6):
            return hint
    for table, expected, what in ((torch.eye(3, dtype=torch.float64), 1.0, "each expert is called by one label alone"),
                                  (torch.ones(4, 3, dtype=torch.float64), 0.0, "every label calls all experts alike")):
        if not math.isclose(number(attempt, table), expected, abs_tol=1e-6):
            return f"where {what}, the answer is {expected:.0f}; you say {number(attempt, table):.3g}"
    if not math.isclose(value, right, abs_tol=1e-6):
        return f"for calls of {calls.int().tolist()} it is {right:.4f}; you say {value:.4f}: I = H(expert) + H(label) - H(both)"
    return None


information = Check("information", census.information, diagnose_information)


def diagnose_dealt_to_documents(attempt: Callable) -> str | None:
    """What is wrong with a function (label [T], document [T], seed) -> label [T], dealt out to whole documents."""
    document = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 9]).repeat_interleave(5)
    of_document = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    label = of_document[document]
    answers = [called(attempt, label, document, seed) for seed in range(8)]
    for answer in answers:
        if problem := has_shape(answer, len(label)):
            return problem
    first = answers[0]
    if all(same(answer, label) for answer in answers):
        return "nothing was dealt out: every token has the label that it had"
    inside = [[answer[document == d].unique() for d in range(10)] for answer in answers]
    if any(len(each) > 1 for labels in inside for each in labels):
        if same(first.sort().values, label.sort().values):
            return ("you dealt the labels out to single tokens: tokens of one document are alike, so they must get the same new "
                    "label")
        return "tokens of one document have different labels now: deal out one label for each document"
    counts = [torch.stack([each[0] for each in labels]).long().bincount(minlength=3).tolist() for labels in inside]
    if counts != [[5, 3, 2]] * 8:
        return (f"5 documents had label 0, 3 had label 1 and 2 had label 2; now it is {counts[0]}: deal out the labels that are "
                "there (a permutation), don't draw new ones")
    if all(same(answer, first) for answer in answers):
        return "every seed gives the same deal: use the seed"
    if not same(called(attempt, label, document, 3), answers[3]):
        return "the same seed gives another deal each time: give randperm a generator of its own with the seed"
    moved = called(attempt, label, document + 7, 3)
    if not has_shape(moved, len(label)) and not same(moved, answers[3]):
        return "the numbers of documents need not begin at 0 (a split has only some of them): unique() finds those that are there"
    return None


dealt_to_documents = Check("dealt_to_documents", census.dealt_to_documents, diagnose_dealt_to_documents)
