"""The checks of lesson 08."""

import math
from collections.abc import Callable

import torch

from ...measure import census
from .kit import called, called_number, check, drawn, must_agree, must_have_shape, same, sizes


@check(census.information)
def information(attempt: Callable) -> str | None:
    """What is wrong with a function calls [N, M] -> I(expert; label) / H(label)."""
    calls = torch.tensor([[6, 1, 0.0], [2, 3, 1], [0, 2, 5], [1, 1, 1]], dtype=torch.float64)
    value = called_number(attempt, calls)
    if not math.isfinite(value):
        return "your answer is not a number: 0 · log 0 counts as 0 (torch.special.entr knows)"
    if not math.isclose(value, called_number(attempt, 2 * calls), abs_tol=1e-6):
        return "twice as many calls give another answer: entropies are of shares, so divide the table by its sum first"
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
    rows = calls / calls.sum(1, keepdim=True)  # each with the sum 1, and so the table with the sum N
    entropies = [torch.special.entr(part).sum().item() for part in (rows.sum(0), rows.sum(1), rows)]
    slips["divide the table by its sum, not each row by its own: an expert with few calls counts less"] = (
        (entropies[0] + entropies[1] - entropies[2]) / entropies[0])
    for hint, wrong in slips.items():
        if math.isclose(value, wrong, abs_tol=1e-6):
            return hint
    for table, expected, what in ((torch.eye(3, dtype=torch.float64), 1.0, "each expert is called by one label alone"),
                                  (torch.ones(4, 3, dtype=torch.float64), 0.0, "every label calls all experts alike")):
        if not math.isclose(called_number(attempt, table), expected, abs_tol=1e-6):
            return f"where {what}, the answer is {expected:.0f}; you say {called_number(attempt, table):.3g}"
    tables = [calls, *((4 * drawn(n + 1, m + 1)).relu() + torch.eye(n + 1, m + 1) for n, m in sizes(2))]
    formula = "I = H(expert) + H(label) - H(both), also where nobody calls an expert and where a label calls nobody"
    return must_agree(attempt, census.information, [(table,) for table in tables], formula)


@check(census.dealt_to_documents)
def dealt_to_documents(attempt: Callable) -> str | None:
    """What is wrong with a function (label [T], document [T], seed) -> label [T], dealt out to whole documents."""
    document = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 9])[drawn(20).argsort()]
    of_document = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    label = of_document[document]
    answers = [called(attempt, label, document, seed) for seed in range(8)]
    for answer in answers:
        must_have_shape(answer, len(label))
    first = answers[0]
    if first.is_floating_point():
        return "labels are whole numbers, and index things: make room for them with zeros_like(label)"
    given = label.clone()
    attempt(given, document, 0)
    if not same(given, label):
        return "you changed label itself, which others read after you: make a new tensor"
    if all(same(answer, label) for answer in answers):
        return "nothing was dealt out: every token has the label that it had"
    inside = [[answer[document == d].unique() for d in range(10)] for answer in answers]
    if any(len(each) > 1 for labels in inside for each in labels):
        if same(first.sort().values, label.sort().values):
            return ("you dealt the labels out to single tokens: tokens of one document are alike, so they must get the same new "
                    "label")
        return "tokens of one document have different labels now: deal out one label for each document"
    dealt = [sorted(each.item() for each in labels) for labels in inside]
    if dealt != [of_document.tolist()] * 8:
        counts = [dealt[0].count(label) for label in range(3)]
        return (f"5 documents had label 0, 3 had label 1 and 2 had label 2; now it is {counts}: deal out the labels that are "
                "there (a permutation), don't draw new ones")
    if all(same(answer, first) for answer in answers):
        return "every seed gives the same deal: use the seed"
    if not same(called(attempt, label, document, 3), answers[3]):
        return "the same seed gives another deal each time: give randperm a generator of its own with the seed"
    moved = called(attempt, label, 3 * document + 7, 3)
    if moved.shape == label.shape and not same(moved, answers[3]):
        return "the numbers of documents need not begin at 0 (a split has only some of them): unique() finds those that are there"
    three = torch.arange(3)
    if len({tuple(called(attempt, three, three, seed).tolist()) for seed in range(100)}) < 6:
        return "of the 6 deals of three labels to three documents some never come: draw a permutation (torch.randperm)"
    return None
