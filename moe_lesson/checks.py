"""Checks of the exercises: each tells what the learner misunderstood, not that an assertion failed.

    load = check.load(load)

prints ⏳ not tried, ✅, or ❌ with a diagnosis, and returns the learner's function where it is right and the package's own
otherwise, so that the rest of the lesson runs either way.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .routing import expert_load


class NotTried(Exception):
    """The exercise is still a stub."""


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
        except Exception as error:  # the learner's code may raise anything
            return f"❌ {self.name}: your code stopped with {type(error).__name__}: {error}", False
        return (f"❌ {self.name}: {problem}", False) if problem else (f"✅ {self.name}: right.", True)


def called(attempt: Callable, *arguments):
    """The attempt's answer as a tensor; a stub's `...`, None or NotImplementedError counts as not tried."""
    try:
        answer = attempt(*arguments)
    except NotImplementedError:
        raise NotTried from None
    if answer is ... or answer is None:
        raise NotTried
    return torch.as_tensor(answer)


def diagnose_load(attempt: Callable) -> str | None:
    """What is wrong with a function (expert_ids [T, K], N) -> load [N]."""
    ids, n = torch.tensor([[3, 1], [3, 0], [1, 3], [3, 4], [4, 1]]), 6  # experts 2 and 5 idle, the last among them
    t, k = ids.shape
    answer = called(attempt, ids, n)
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
    if called(attempt, torch.zeros(0, k, dtype=torch.long), n).shape != (n,):
        return f"with no token at all the load must be {n} zeros"
    return None


load = Check("load", expert_load, diagnose_load)
