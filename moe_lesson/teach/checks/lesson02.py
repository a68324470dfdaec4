"""The checks of lesson 02."""

import inspect
import zlib
from collections.abc import Callable

import torch

from ...moe import dispatch, layers
from ...moe.routing import Routing
from .kit import (
    NotTried,
    called,
    called_pair,
    check,
    drawn,
    known_slip,
    must_agree,
    must_be_tensor,
    must_have_shape,
    same,
    sizes,
    traced,
    wrong_layer,
)


@check(layers.gate)
def gate(attempt: Callable) -> str | None:
    """What is wrong with a function (x [T, D], w [D, N]) -> logits [T, N]."""
    x, w = drawn(4, 3), drawn(3, 5, seed=1)
    answer, logits = called(attempt, x, w), x @ w
    if answer.shape == (5, 4):
        return "you have one row per expert: turn it around, a row for every token"
    must_have_shape(answer, 4, 5)
    if same(answer, logits.softmax(1)):
        return "these are probabilities already: the gate's logits come before the softmax, which is the next step"
    if same(answer, logits.softmax(0)):
        return "you took a softmax over the tokens: they do not compete with each other. And the logits come before it"
    if same(answer, torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(w, dim=0)):
        return "these are cosines: do not divide by the lengths, a long token may have a strong opinion"
    if same(answer, logits / 3 ** 0.5):
        return "you divided by √D, as attention does: the router does not"
    cases = [(x, w), *((drawn(t, d), drawn(d, n, seed=1)) for t, d, n in sizes(3))]
    product = "every logit is one product: the token's row times the expert's column, summed over D"
    return must_agree(attempt, layers.gate, cases, product, "nothing would teach the router")


@check(layers.choose)
def choose(attempt: Callable) -> str | None:
    """What is wrong with a function (scores [T, N], K) -> expert_ids [T, K], weights [T, K]."""
    scores, k = drawn(6, 5).softmax(1), 2
    ids, weights = map(must_be_tensor, called_pair(attempt, "the expert_ids and the weights", scores, k))
    if ids.is_floating_point() and not weights.is_floating_point():
        return "the two are swapped: first the expert_ids, then the weights (topk returns values, then indices)"
    if ids.is_floating_point():
        return "your expert_ids are not whole numbers: topk returns values and indices, the indices are the ids"
    if ids.shape == (k, 5):
        return "you chose tokens for each expert: take the best along the last dimension, the experts"
    for part in (ids, weights):
        must_have_shape(part, 6, k)
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
        return "all weights are 1/K: the router decides who, and now nobody decides how much; the text would teach it nothing"

    def gates(function: Callable) -> Callable:  # the same for any order of the chosen
        return lambda scores, k: Routing(scores, *called_pair(function, "", scores, k)).gates

    cases = [(scores, k), *((drawn(t, k + more - 1).softmax(1), k) for t, k, more in sizes(3))]
    hint = "K is top_k; some weights stand beside another's expert or are not its score over the sum of the K"
    return must_agree(gates(attempt), gates(layers.choose), cases, hint, "it is through the weights that the router learns")


@check(dispatch.tokens_of)
def tokens_of(attempt: Callable) -> str | None:
    """What is wrong with a function (expert, expert_ids [T, K]) -> token positions [R], slots [R]."""
    ids = torch.tensor([[3, 1], [0, 3], [1, 2], [3, 0], [2, 1]])  # expert 3: tokens 0, 1, 3 in slots 0, 1, 0
    token, slot = map(must_be_tensor, called_pair(attempt, "the tokens' positions and the slots", 3, ids))
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
    others = [(expert - 1, drawn(t, n + k - 1).topk(k).indices) for t, n, k, expert in sizes(4)]
    for expert, table in [(3, ids), (4, ids), (0, ids), (2, ids), *others]:
        found = list(zip(*(part.tolist() for part in dispatch.tokens_of(expert, table))))
        token, slot = map(must_be_tensor, called_pair(attempt, "the tokens' positions and the slots", expert, table))
        if token.is_floating_point() or slot.is_floating_point():
            return "your positions are not whole numbers where there is no token: give an empty list dtype=torch.long"
        if token.shape != slot.shape or token.ndim != 1 or sorted(zip(token.tolist(), slot.tolist())) != found:
            return (f"for expert {expert} in {table.tolist()} you found tokens {token.tolist()} in slots {slot.tolist()}: where "
                    "does it stand? Both answers are lists, even of one place and of none (squeeze() takes too much)")
    return None


@check(dispatch.combine)
def combine(attempt: Callable) -> str | None:
    """What is wrong with a function (y [T, D], out [R, D], token [R], weight [R]) -> y with the outputs added."""
    y, out, weight = drawn(4, 3), drawn(3, 3, seed=1), torch.tensor([0.25, 0.5, 2.0], dtype=torch.float64)
    token = torch.tensor([2, 0, 0])  # token 0 twice
    answer = called(attempt, y, out, token, weight)
    must_have_shape(answer, 4, 3)
    if same(answer, y.index_add(0, token, out * weight)):
        return "weight[r] belongs to row r of out: make it a column, weight[:, None], or it multiplies the columns"
    weighted = out * weight[:, None]
    once = y.clone()
    once[token] += weighted
    replaced = y.clone()
    replaced[token] = weighted
    slips = {
        "you return y as it was: index_add makes a new tensor, and y[token] is a copy": y,
        "you forgot the weights: the router decides how much each expert counts": y.index_add(0, token, out),
        "you start from nothing: what other experts have added to y must stay": torch.zeros_like(y).index_add(0, token, weighted),
        "you replace what other experts have written: add to it": replaced,
        "you divide by the weights": y.index_add(0, token, out / weight[:, None]),
    }
    if hint := known_slip(answer, slips):
        return hint
    if same(answer, once):
        return ("a token that occurs twice got one output only: y[token] += … adds once for an index that repeats. "
                "Which function of a tensor adds at an index, every time?")
    cases = ((drawn(t, d), drawn(r - 1, d, seed=1), drawn(r - 1, seed=2).mul(9).long() % t, drawn(r - 1)) for t, d, r in sizes(3))
    row = "row r of out belongs to token token[r], and counts weight[r]"
    cases = [(y, out, token, weight), *cases]
    return must_agree(attempt, dispatch.combine, cases, row, "neither the experts nor the router would learn")


def topk_layers() -> list[layers.MoE]:
    """Layers without shared experts, of several sizes, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return [layers.MoE(6, num_experts=k + more, top_k=k, expert_width=h).double()
                for k, more, h in ([3, 2, 3], *([k + 1, *rest] for k, *rest in sizes(3)))]


def last_alone(layer: layers.MoE, x: torch.Tensor) -> torch.Tensor:
    """The output where each expert writes over what those before it have written."""
    routing = layer.router(x)
    slot = routing.expert_ids.argmax(dim=1, keepdim=True)
    return layer.experts(x, Routing(routing.logits, routing.expert_ids.gather(1, slot), routing.weights.gather(1, slot)))


def slips(layer: layers.MoE, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs of known mistakes."""
    right = layer.router(x)
    scores, ids, weights = right.logits.softmax(dim=1), right.expert_ids, right.weights
    logits = right.logits.gather(1, ids)

    def routed(weights: torch.Tensor, ids: torch.Tensor = ids) -> torch.Tensor:
        return layer.experts(x, Routing(right.logits, ids, weights))

    everybody, ones = torch.arange(right.num_experts).expand(len(x), -1), torch.ones_like(weights)
    def only(experts: torch.Tensor) -> torch.Tensor:
        return routed(weights * torch.isin(ids, experts))

    each = torch.arange(right.num_experts)
    return {
        "all zeros: combine changes nothing, it returns a new tensor, y = combine(…)": torch.zeros_like(x),
        "only the first expert has answered: does return stand inside the loop?": only(each[:1]),
        "only the last expert's answers are left: the zeros stand before the loop": only(each[-1:]),
        "the last expert, N - 1, is missing: does your loop end one too early?": only(each[:-1]),
        "only the first K experts have answered: the loop goes over all N": only(each[:layer.router.top_k]),
        "a token keeps the answer of its last expert alone: y[token] = … writes over what is there, combine adds":
            last_alone(layer, x),
        "your weights are the raw probabilities: divide those of the chosen by their sum": routed(scores.gather(1, ids)),
        "you divided logits by their sum: choose wants probabilities, so the softmax comes first":
            routed(logits / logits.sum(dim=1, keepdim=True)),
        "you looked a slot up in the table of all N probabilities: weights[token, slot] has the K of the chosen":
            routed(scores[:, :ids.shape[1]]),
        "the weights are missing: the router decides how much each answer counts": routed(ones),
        "all answers count the same: that is a mean, and the router's weights are missing": routed(ones / ids.shape[1]),
        "every expert counts as a token's first choice does: an expert's weight stands in the slot where the expert stands":
            routed(weights[:, :1].expand_as(weights)),
        "the weights are turned around: slot k holds the weight of the expert in slot k": routed(weights.flip(1)),
        "only each token's first choice has answered: all K slots count": routed(weights[:, :1], ids[:, :1]),
        "every expert has answered: only the K chosen ones work for a token": routed(scores, everybody),
    }


@check(layers.MoE.forward)
def topk_moe(attempt: Callable) -> str | None:
    """What is wrong with a function (layer, x [T, D]) -> y [T, D], Routing."""
    return wrong_layer(attempt, topk_layers(), slips, "y is the sum of the K chosen experts' answers, each times its weight")


PLANTED = 1284165463  # the crc32 of the lesson's layer with both faults, without blanks


def untouched(attempt: Callable) -> bool:
    """Whether a layer is still the one that the lesson gives, or has no source that says so."""
    try:
        return zlib.crc32("".join(inspect.getsource(attempt).split()).encode()) == PLANTED
    except (OSError, TypeError):
        return True


@check(layers.MoE.forward)
def mended(attempt: Callable) -> str | None:
    """Which of the two planted faults is left in a function (layer, x [T, D]) -> y [T, D], Routing."""
    layer = topk_layers()[0]
    x = drawn(7, 6)
    y, routing = called_pair(attempt, "the output and the routing", layer, x)
    overwrites = isinstance(y, torch.Tensor) and same(y, last_alone(layer, x))
    deaf = False
    if isinstance(routing, Routing) and (overwrites or isinstance(y, torch.Tensor) and same(y, layer(x)[0])):
        grads = dict(zip(("x", *(name for name, _ in layer.named_parameters())), traced(attempt, layer, x)[1]))
        deaf = bool(grads) and not grads["router.weight"].any()
    if overwrites and deaf and untouched(attempt):
        raise NotTried
    if overwrites and deaf:
        return ("both faults are still there. Print what y holds for one token after each of its experts; then ask for the "
                "gradient of the router's table")
    if overwrites:
        return ("one fault is mended, one is left: the output is wrong wherever K is above 1. Take one token, and print what y "
                "holds for it after each of its experts")
    if deaf:
        return ("one fault is mended, one is left, and no output shows it: ask for the gradient of the router's table. Which "
                "line keeps the weights from autograd?")
    return topk_moe.diagnose(attempt)
