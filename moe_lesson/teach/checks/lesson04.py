"""The checks of lesson 04."""

import math
from collections.abc import Callable

import torch

from ...measure import instruments
from .kit import called, check, drawn, known_slip, must_agree, must_have_shape, same, sizes


@check(instruments.labels_served)
def labels_served(attempt: Callable) -> str | None:
    """What is wrong with a function calls [N, M] -> effective number of labels [N]."""
    calls = torch.tensor([[8.0, 0, 0, 0, 0], [5, 5, 5, 5, 5], [6, 2, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.float64)
    answer = called(attempt, calls)
    must_have_shape(answer, 4)
    share = calls / calls.sum(1, keepdim=True).clamp(min=1e-12)
    entropy = torch.special.entr(share).sum(1)
    if answer[:3].isnan().any():
        return "an expert that a label never calls makes your answer NaN: 0 · log 0 counts as 0 (torch.special.entr knows)"
    slips = {
        "that is the entropy itself: exp of it is a number of labels": entropy,
        "that is the entropy in bits: 2 to the power of it is a number of labels": entropy / math.log(2),
        "you counted the labels that ever call: one stray token is then a whole label": (calls > 0).sum(1),
        "exp goes with the natural logarithm, 2 to the power with log2": (entropy / math.log(2)).exp(),
        "2 to the power goes with log2, exp with the natural logarithm": 2 ** entropy,
        "that is 1 / Σ share², another effective number: here we use the entropy": 1 / share.square().sum(1).clamp(min=1e-12),
        "the sign is turned: the entropy is - Σ share · log share": (-entropy).exp(),
        "that is a share of the most that is possible: how many labels is it?": entropy / math.log(5),
    }
    if hint := known_slip(answer[:3], {hint: wrong[:3] for hint, wrong in slips.items()}):
        return hint
    over_experts = calls / calls.sum(0, keepdim=True)
    if same(answer[:3], torch.special.entr(over_experts).sum(1).exp()[:3]):
        return "divide each expert's calls by the expert's own sum, its row: you divided by the label's"
    if not same(answer[:3], entropy.exp()[:3]):
        return f"for calls of {calls[2].tolist()} the shares are 0.75 and 0.25, and exp(entropy) is {entropy[2].exp():.3f}"
    if answer[3] != 0:
        return f"an expert that nobody calls serves 0 labels; you said {answer[3].item():.3g}"
    cases = (((drawn(n, m) * 3).relu().round(),) for n, m in sizes(2))
    return must_agree(attempt, instruments.labels_served, cases, "exp of the entropy of each row's shares, 0 for a row of zeros")


@check(instruments.output_similarity)
def output_similarity(attempt: Callable) -> str | None:
    """What is wrong with a function outputs [N, T, D] -> mean cosine [N, N]."""
    outputs = drawn(3, 6, 4) * torch.tensor([0.5, 1, 4], dtype=torch.float64)[:, None, None] + 0.3
    answer = called(attempt, outputs)
    if answer.shape == (3, 3, 6) or answer.shape == (6, 3, 3):
        return "you have one matrix for each token: take the mean over the tokens"
    must_have_shape(answer, 3, 3)
    flat = outputs.flatten(1)
    unit = torch.nn.functional.normalize(outputs, dim=-1)
    dots = torch.einsum("itd,jtd->ij", unit, unit)
    of_columns = torch.einsum("itd,jtd->ij", *[torch.nn.functional.normalize(outputs, dim=1)] * 2)
    slips = {
        "fill both halves: entry (j, i) is entry (i, j)": (dots / 6).triu(),
        "and the diagonal: an expert is like itself, 1": dots / 6 * (1 - torch.eye(3)),
        "every entry: (j, i) is (i, j), and on the diagonal an expert is like itself, 1": (dots / 6).triu(1),
        "you added over the tokens: take the mean": dots,
        "these are products, not cosines: divide every answer by its length first": torch.einsum(
            "itd,jtd->ij", outputs, outputs) / 6,
        "you took one cosine over all tokens at once: then loud tokens decide; take it token by token": (
            torch.nn.functional.normalize(flat, dim=1) @ torch.nn.functional.normalize(flat, dim=1).T),
        "you compared mean answers: take the cosine of each token first, then the mean": (
            torch.nn.functional.normalize(outputs.mean(1), dim=1) @ torch.nn.functional.normalize(outputs.mean(1), dim=1).T),
        "you took the cosine over the tokens, for each of the D numbers: take it over D": of_columns / 4,
        "the cosine is a sum of products over D, not their mean": dots / 24,
        "you normalised over the tokens, which normalize() does unless told otherwise: dim=-1 is D": of_columns / 6,
        "you normalised over the experts: the length of an answer is over D, dim=-1": torch.einsum(
            "itd,jtd->ij", *[torch.nn.functional.normalize(outputs, dim=0)] * 2) / 6,
        "you took absolute values: two experts that say the opposite are not alike": torch.einsum(
            "itd,jtd->ijt", unit, unit).abs().mean(-1),
    }
    if hint := known_slip(answer, slips):
        return hint
    entry = "entry (i, j): the cosine of expert i's and expert j's answer to a token, then the mean over the tokens"
    return must_agree(attempt, instruments.output_similarity, [(outputs,), *((drawn(*ntd),) for ntd in sizes(3))], entry)
