"""The checks of lesson 09."""

import math
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ...measure import roofline
from ...moe import parallel, rows
from .kit import (
    answered,
    called,
    called_number,
    called_pair,
    check,
    copies,
    must_agree,
    must_be_tensor,
    must_have_shape,
    same,
    sizes,
)

CHOICES = torch.tensor([[3, 0], [1, 3], [0, 2], [3, 1], [0, 1]])  # of five tokens among four experts


@check(rows.places)
def places(attempt: Callable) -> str | None:
    """What is wrong with a function expert_ids [T, K] -> order [T·K], place [T, K]."""
    order, place = map(must_be_tensor, called_pair(attempt, "order and place", CHOICES))
    right_order, right_place = rows.places(CHOICES)
    must_have_shape(order, 10, part="order")
    if place.shape == (10,):
        return "place has the right length, but the shape of the choices is missing: token t's K rows stand in row t of [T, K]"
    must_have_shape(place, 5, 2, part="place")
    if order.is_floating_point() or place.is_floating_point():
        return "places are whole numbers: make room for them with dtype=torch.long"
    if same(order, right_place.flatten()):
        return "order and place have changed places: order says which choice a row is of, place says where a choice's row is"
    if not same(order.sort().values, torch.arange(10)):
        return "order must hold each of the numbers 0 … T·K - 1 once: the places t·K + k of the choices, sorted by their expert"
    if not same(CHOICES.flatten()[order], CHOICES.flatten().sort().values):
        return "the rows are not sorted by expert: expert_ids.flatten()[order] must rise"
    if same(place, right_order.view(5, 2)):
        return "place is order once more. Ask the other way round: where in order does the number t·K + k stand?"
    if same(place, right_place.view(2, 5).T):
        return "you filled place column by column: choice t·K + k is row t, column k"
    if not same(order[place.flatten()], torch.arange(10)):
        return "place does not undo order: order[place[t, k]] must be t·K + k"
    if not same(order, right_order):
        return "an expert's rows have lost the order of their tokens: sort with stable=True, and every run gives the same"
    cases = [(torch.randint(n, (t, k), generator=torch.Generator().manual_seed(t)),) for t, k, n in sizes(3)]
    return must_agree(attempt, rows.places, cases, "order sorts the choices by expert, an expert's rows in the order of their "
                      "tokens (stable=True), and place is its inverse")


class Recorded(TorchDispatchMode):
    """Write down the names of the operators that run inside."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.add(operator.overloadpacket.__name__.rstrip("_"))
        return operator(*args, **kwargs or {})


@check(rows.Combine.forward)
def gather_backward(attempt: Callable) -> str | None:
    """What is wrong with a function (grad [R, D] of the gathered rows, token [R], place [T, K]) -> grad of the tokens, [T, D]."""
    order, place = rows.places(CHOICES)
    token, grad = order // 2, torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    x[token].backward(grad)  # autograd's own answer
    with Recorded() as seen:
        found = called(attempt, grad, token, place)
    if same(found, grad[place]):
        return "these are each token's K gradients; K copies of one row were used, and the gradient of that row is their sum"
    must_have_shape(found, 5, 3, wanted="expected a row for each token, (5, 3)")
    once = torch.zeros_like(x).index_put((token,), grad)
    slips = {
        "you took the rows as they lie, sorted by expert: fetch those of token t by place[t]": grad.view(5, 2, 3).sum(1),
        "place is taken the wrong way round: place[t, k] is where the row lies that you want": grad[order].view(5, 2, 3).sum(1),
        "that is the first choice's row alone: all K copies of a token have a gradient": grad[place[:, 0]],
        "a sum, not a mean: each of the K copies passes on its whole gradient": x.grad / 2,
        "y[token] = … and y[token] += … write each place once: of K rows for one token a single one is left": once}
    for hint, wrong in slips.items():
        if same(found, wrong):
            return hint
    if same(found, x.grad) and (adding := seen.names & {"index_add", "scatter_add", "scatter_reduce", "index_put"}):
        return (f"right, but by {', '.join(sorted(adding))}, where rows add themselves to one place: atomics on a GPU. Let each "
                "token fetch its K rows by place, and sum them")
    draw = torch.Generator().manual_seed(1)
    drawn = [(torch.randint(n, (t, k), generator=draw), torch.randn(t * k, 3, generator=draw).double()) for t, k, n in sizes(3)]
    cases = [(grad, rows.places(ids)[0] // ids.shape[1], rows.places(ids)[1]) for ids, grad in drawn]
    return must_agree(attempt, rows.Combine.forward, cases, "the gradient of token t is the sum of the rows place[t]")


@check(roofline.least_rows)
def least_rows(attempt: Callable) -> str | None:
    """What is wrong with a function (columns in, columns out, device) -> rows at which its product is no longer slowed."""
    device = roofline.DEVICES["H100 SXM"]
    found, right = called_number(attempt, 2048, 2816, device), roofline.least_rows(2048, 2816, device)
    slips = {
        "that is the ridge itself: enough where three sides are long, but the matrix has only so many columns":
            device.ridge,
        "you left out the columns that come out: the results are written to memory, too": 1 / (1 / device.ridge - 1 / 2048),
        "you left out the columns that go in: the rows are read from memory, too": 1 / (1 / device.ridge - 1 / 2816),
        "two bytes a number: with 2 FLOPs for a multiplication and an addition the twos cancel": 1 / (
            2 / device.ridge - 1 / 2048 - 1 / 2816),
        "that is for numbers of four bytes; here they have two": 1 / (0.5 / device.ridge - 1 / 2048 - 1 / 2816),
        "the ridge is FLOPs per byte: peak over bandwidth, not the other way round": 1 / (device.ridge - 1 / 2048 - 1 / 2816),
        "that is 1 over the answer": 1 / right,
    }
    if found in (round(right), math.ceil(right), math.floor(right)):
        return "rounded to whole rows; the number of the formula is expected, not rounded"
    for hint, wrong in slips.items():
        if math.isclose(found, wrong, rel_tol=1e-6):
            return hint
    never = called_number(attempt, 256, 128, device)
    if never < 0:
        return "a negative number of rows: where the columns alone use up the traffic, no number is enough; return math.inf"
    if math.isclose(found, right, rel_tol=1e-3) and math.isfinite(never):
        return "for 256 × 128 no number of rows is enough on this device: return math.inf"
    shapes = ((2048, 2816), (1024, 512), (512, 2048), (128, 8192), (256, 128))
    wrong = [(a, b) for a, b in shapes for device in roofline.DEVICES.values()
             if not math.isclose(called_number(attempt, a, b, device), roofline.least_rows(a, b, device), rel_tol=1e-6)]
    return f"wrong for a matrix of {wrong[0][0]} × {wrong[0][1]}: 1/rows + 1/in + 1/out = 1/ridge" if wrong else None


@check(rows.block_ends)
def block_ends(attempt: Callable) -> str | None:
    """What is wrong with a function (expert_ids [T, K], N) -> where each expert's block of sorted rows ends, [N]."""
    ends, right = called(attempt, CHOICES, 5), rows.block_ends(CHOICES, 5)
    must_have_shape(ends, 5, wanted="one end for each of the N = 5 experts, also for those without a token")
    load = right.diff(prepend=right.new_zeros(1))
    if same(ends, load):
        return "these are the lengths of the blocks; a block ends where all before it, and itself, are counted: cumsum"
    if same(ends, right - load):
        return "these are the beginnings of the blocks; expected their ends"
    if same(ends, right - 1):
        return "one too few: an end is the number of the first row behind the block"
    if ends.is_floating_point():
        return "numbers of rows are whole: an integer dtype"
    cases = [(torch.randint(n, (t, k), generator=torch.Generator().manual_seed(t)), n) for t, k, n in sizes(3)]
    must_agree(attempt, rows.block_ends, cases, "count the tokens of each expert, and add the counts up")
    return what_it_waits_for(attempt)


def what_it_waits_for(attempt: Callable) -> str | None:
    """Which step needs a value that only the device knows: the function runs on tensors that have shapes and no values."""
    try:
        with FakeTensorMode() as mode:
            answered(attempt, mode.from_tensor(CHOICES), 5)
        attempt(CHOICES.to("meta"), 5)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        return (f"right, but it waits: {error.func} asks for a value that the GPU has not computed yet. No .item(), "
                ".tolist(), int(…), if on a tensor, boolean mask or nonzero")
    except RuntimeError as error:  # of NumPy's, too, which can't look at a GPU
        return (f"right here, but not on a GPU ({str(error).splitlines()[0]}): make every tensor on expert_ids.device, and bring "
                "none to the CPU, which waits, too")
    return None


def lines_that_wait() -> dict[int, str]:
    """At which lines of the lesson's `slow_layer` Python waits for the GPU, and why."""
    return {1: "an `if` needs to know whether its condition, a tensor, is true",
            8: "how many rows `nonzero` finds is known on the GPU alone; it waits once for every expert",
            11: "a boolean mask is a `nonzero`: how many tokens it keeps is known on the GPU alone",
            12: "`.item()` fetches a value"}


NEVER_WAIT = {
    2: "it is not reached; the `if` above it is another matter", 3: "the order is as long as what is sorted, whatever is in it",
    4: "a shape is known to Python, and an index of whole numbers gives as many rows as it is long",
    5: "`where` with three arguments gives a tensor of their shape; with one it would be a `nonzero`",
    6: "its shape is that of x", 7: "the length of w_in is a shape, known to Python",
    9: "the indices are there by then, and so is their number: what this line costs is a small product for each expert",
    10: "adding by an index takes atomics, and is slow, but Python goes on: it asks for no value"}
ASK = {1: "ask of every condition whether it is a tensor", 8: "ask of every index where its length comes from",
       11: "ask of every tensor in brackets whether it holds numbers or true and false", 12: "ask who wants a number of Python's"}


@check(lines_that_wait)
def waiting_lines(attempt: Callable) -> str | None:
    """What is wrong with a function () -> the numbers of the lines of the lesson's `slow_layer` that make Python wait."""
    answer, right = answered(attempt), lines_that_wait()
    if not isinstance(answer, set | frozenset | list | tuple | dict) or not all(isinstance(line, int) for line in answer):
        return "return the numbers of the lines in braces, such as {2, 3}"
    for line in sorted(set(answer) - set(right)):
        return f"line {line} does not wait: {NEVER_WAIT[line]}" if line in NEVER_WAIT else f"the layer has no line {line}"
    for line in sorted(set(right) - set(answer)):
        return f"{len(set(answer))} found, and they do wait, but there is another one: {ASK[line]}"
    return None


@check(parallel.send_counts)
def send_counts(attempt: Callable) -> str | None:
    """What is wrong with a function (choices of each device, N) -> rows that device i sends to device j, [P, P]."""
    choices = [CHOICES, torch.tensor([[0, 1], [1, 2]]), torch.tensor([[7, 5], [7, 6], [6, 0]]), torch.tensor([[2, 3]])]
    counts, right = called(attempt, choices, 8), parallel.send_counts(choices, 8)
    must_have_shape(counts, 4, 4)
    if same(counts, right.T):
        return "rows and columns have changed places: row i is what device i sends"
    if same(counts, parallel.deduplicated_counts(choices, 8)):
        return "a token with two experts on one device is two rows: count choices, not tokens"
    if same(counts, torch.stack([torch.bincount(ids[:, 0] // 2, minlength=4) for ids in choices])):
        return "you counted the first choices alone: a token is sent to all its K experts"
    if same(counts, torch.stack([torch.bincount(ids.flatten() % 4, minlength=4) for ids in choices])):
        return "device j holds neighbours: experts j·N/P … (j + 1)·N/P - 1, not every P-th one"
    if same(counts, torch.stack([torch.bincount((ids // 4).flatten(), minlength=4) for ids in choices])):
        return "a device holds N/P experts, not P: divide an expert's number by that"
    if same(counts, right.clone().fill_diagonal_(0)):
        return "you left out the rows that stay: they are part of the plan, though they are not sent anywhere"
    if same(counts, right / right.sum(1, keepdim=True)):
        return "these are shares; expected numbers of rows"
    draw = torch.Generator().manual_seed(0)
    cases = [([torch.randint(p * e, (t, k), generator=draw) for _ in range(p)], p * e) for t, k, p, e in sizes(4)]
    for ids, n in cases:
        if not same(torch.as_tensor(attempt(*copies((ids, n)))), parallel.send_counts(ids, n)):
            return f"wrong for {len(ids)} devices and {n} experts: count the choices that lie in each device's range of experts"
    return None
