"""The checks of lesson 10."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...moe import zoo
from .kit import Wrong, called, check, drawn, known_slip, must_agree, must_have_shape, same


def chosen_by(attempt: Callable, scores: Tensor, groups: int, kept: int, top_k: int) -> Tensor:
    """What an attempt chooses, each token's experts in the order of their numbers."""
    ids = called(attempt, scores, groups, kept, top_k)
    if ids.is_floating_point():
        if same(ids, ids.long()):
            raise Wrong("experts' numbers are whole: make room for them with dtype=torch.long")
        raise Wrong("you return scores; expected which experts they belong to: topk gives both, .values and .indices")
    must_have_shape(ids, len(scores), top_k)
    return ids.long().sort(dim=1).values


def best_by(scores: Tensor, groups: int, kept: int, top_k: int, of_group: Callable, hide: float = -torch.inf) -> Tensor:
    """The K best of the groups that `of_group` ranks highest, in the order of their numbers; `hide` stands for what is closed."""
    closed = zoo.outside_groups(of_group(zoo.in_groups(scores, groups)), kept, scores.shape[1])
    return scores.masked_fill(closed, hide).topk(top_k).indices.sort(dim=1).values


def two_best(grouped: Tensor) -> Tensor:
    return grouped.topk(2).values.sum(dim=-1)


@check(zoo.best_in_groups)
def best_in_groups(attempt: Callable) -> str | None:
    """What is wrong with a function (scores [T, N], groups, kept, top_k) -> ids [T, K]."""
    scores, sizes = drawn(40, 12) - 1.5, (4, 2, 3)  # mostly below 0, as a bias can make them
    ids = chosen_by(attempt, scores, *sizes)
    dealt = scores.unflatten(1, (3, 4)).transpose(1, 2)  # expert n in group n mod 4
    open_dealt = torch.zeros(40, 4).scatter(1, two_best(dealt).topk(2).indices, 1.0).repeat(1, 3).bool()
    grouped = scores.unflatten(1, (4, 3))
    within = grouped.gather(1, two_best(grouped).topk(2).indices[:, :, None].expand(-1, -1, 3))
    slips = {
        "these are the best of all experts, whatever group they are in": scores.topk(3).indices.sort(dim=1).values,
        "you rank the groups by their best expert, as DeepSeek-V2 did; V3 adds the best two": best_by(
            scores, *sizes, lambda grouped: grouped.amax(dim=-1)),
        "you rank the groups by all their experts: the best two of each are enough": best_by(
            scores, *sizes, lambda grouped: grouped.sum(dim=-1)),
        "you hid the closed experts with 0, and these scores are below 0: the closed ones win. What is never the largest?":
            best_by(scores, *sizes, two_best, 0.0),
        "you kept the worst groups": best_by(scores, *sizes, lambda grouped: -two_best(grouped)),
        "the groups: experts that stand side by side are in one, 0 to N/G - 1 in the first": scores.masked_fill(
            ~open_dealt, -torch.inf).topk(3).indices.sort(dim=1).values,
        "these are places among the kept experts: expected the experts' own numbers, 0 to N - 1": within.flatten(1).topk(
            3).indices.sort(dim=1).values,
    }
    if hint := known_slip(ids, slips):
        return hint
    generator, cases = torch.Generator().manual_seed(0), []
    for seed in range(30):
        groups, size, tokens = torch.randint(1, 5, (3,), generator=generator).tolist()
        kept = seed % groups + 1
        cases.append((drawn(tokens, groups * (size + 1), seed=seed) - 1, groups, kept, seed % (kept * (size + 1)) + 1))
    return must_agree(lambda *case: chosen_by(attempt, *case), lambda *case: zoo.best_in_groups(*case).sort(dim=1).values, cases,
                      "rank groups by the sum of their two best, close all others, and take the K best of what is open")
