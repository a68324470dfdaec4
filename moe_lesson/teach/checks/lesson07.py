"""The checks of lesson 07."""

from collections.abc import Callable

from ...measure import evidence
from .kit import Check, answered


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
