"""The checks of lesson 09."""

import math
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from ...measure import roofline
from ...moe import parallel, rows
from .kit import answered, called, called_number, called_pair, check, must_agree, must_be_tensor, must_have_shape, same, sizes

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
    return must_agree(attempt, rows.places, cases, "order sorts the choices by expert, and place is its inverse")


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
    if waits := what_it_waits_for(attempt):
        return waits
    cases = [(torch.randint(n, (t, k), generator=torch.Generator().manual_seed(t)), n) for t, k, n in sizes(3)]
    return must_agree(attempt, rows.block_ends, cases, "count the tokens of each expert, and add the counts up")


def what_it_waits_for(attempt: Callable) -> str | None:
    """Which step needs a value that only the device knows: the function runs on tensors that have shapes and no values."""
    with FakeTensorMode() as mode:
        try:
            answered(attempt, mode.from_tensor(CHOICES), 5)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            return (f"right, but it waits: {error.func} asks for a value that the GPU has not computed yet. No .item(), "
                    ".tolist(), int(…), if on a tensor, boolean mask or nonzero")
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
    if same(counts, right.clone().fill_diagonal_(0)):
        return "you left out the rows that stay: they are part of the plan, though they are not sent anywhere"
    if same(counts, right / right.sum(1, keepdim=True)):
        return "these are shares; expected numbers of rows"
    draw = torch.Generator().manual_seed(0)
    cases = [([torch.randint(p * e, (t, k), generator=draw) for _ in range(p)], p * e) for t, k, p, e in sizes(4)]
    for ids, n in cases:
        if not same(torch.as_tensor(attempt([one.clone() for one in ids], n)), parallel.send_counts(ids, n)):
            return f"wrong for {len(ids)} devices and {n} experts: count the choices that lie in each device's range of experts"
    return None
