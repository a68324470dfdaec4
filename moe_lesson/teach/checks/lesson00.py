"""The checks of lesson 00."""

from collections.abc import Callable

import torch

from ...moe.routing import expert_load
from .kit import answered, check, drawn, must_agree, must_have_shape, sizes


@check(expert_load)
def load(attempt: Callable) -> str | None:
    """What is wrong with a function (expert_ids [T, K], N) -> load [N]."""
    ids, n = torch.tensor([[3, 1], [3, 0], [1, 3], [3, 4], [4, 1]]), 6  # experts 2 and 5 idle, the last among them
    t, k = ids.shape
    answer = answered(attempt, ids, n)
    if isinstance(answer, tuple | list) and any(torch.as_tensor(part).ndim for part in answer):
        return "you returned several things: return the counts alone, one for each expert"
    if isinstance(answer, dict):
        return "you returned a dictionary; return N numbers, a 0 for each expert that nobody chose"
    answer = torch.as_tensor(answer)
    if answer.shape != (n,):
        if answer.shape == (k, n):
            return f"you counted each of the {k} columns by itself: add the columns up, a load has one number per expert"
        if answer.shape == (t, n):
            return "you have one row per token: add over the tokens too"
        if answer.ndim == 1 and len(answer) < n:
            return (f"you returned {len(answer)} numbers for N = {n} experts: an expert that no token chose still needs its 0 "
                    "(does your counting function know how long its answer must be?)")
        must_have_shape(answer, n, wanted=f"expected ({n},), one number per expert")
    if torch.equal(answer.double() * k, expert_load(ids, n).double()):
        return f"you divided by K = {k}: a load is a count, of all the tokens that chose an expert"
    if answer.sum() == t:
        return (f"your load sums to T = {t}; each token chose K = {k} experts, so it must sum to T·K = {t * k}: "
                "count every column, not the first alone")
    if torch.equal(answer.bool(), expert_load(ids, n) > 0) and answer.max() == 1:
        return ("every expert that was chosen got a 1, however often: so does `load[ids] += 1` with an index that occurs twice. "
                "Which function counts repetitions?")
    if torch.allclose(answer.double() * t * k / answer.double().sum(), expert_load(ids, n).double()) and 0 < answer.sum() < t:
        return "you returned shares: the load is a count of tokens"
    given = ids.clone()
    attempt(given, n)
    if not torch.equal(given, ids):
        return "you changed expert_ids itself, which others read after you: make a new tensor"
    if answer.tolist() == [*expert_load(ids, n).tolist()[1:], 0]:
        return "the first expert is missing: ids begin at 0"
    if torch.as_tensor(answered(attempt, torch.tensor([[0], [1]]), 2)).tolist() == [1, 0]:
        return "the last expert, N - 1, is missing: does your loop end one too early?"
    cases = (((drawn(t, n) + 2 * drawn(n, seed=1)).topk(k % n + 1).indices, n + idle - 1) for t, n, k, idle in sizes(4))
    return must_agree(attempt, expert_load, [(ids, n), *cases], "count by hand how often each of the ids 0 … N-1 stands there")
