"""The checks of lesson 07."""

import statistics
from collections.abc import Callable

from ...measure import evidence
from .kit import Check, answered, drawn


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
    answered(attempt, list(clear), list(small))  # or it is a stub
    for worse, better, hint in cases:
        answer = attempt(list(worse), list(better))
        if answer not in ("holds", "opposite", "open"):
            return f'your answer is {answer!r}; expected "holds", "opposite" or "open"'
        if answer != evidence.verdict(worse, better):
            turned = {"holds": "opposite", "opposite": "holds"}.get(answer)
            if turned == evidence.verdict(worse, better) and attempt(list(better), list(worse)) == turned:
                return "turned round: losses, so the first, which the claim calls worse, should be the higher one"
            return hint
    near = []  # differences whose interval just reaches 0, or just doesn't
    for seed in range(60):
        gaps = drawn(2 + seed % 9, seed=seed)
        gaps -= gaps.mean()
        near.append((gaps + (0.99, 1.01, -0.99, -1.01, 0.6)[seed % 5] * evidence.interval(gaps.tolist()).high).tolist())
    rules = {
        None: lambda gaps: evidence.interval(gaps).low,
        "you count signs: seeds that agree may do so by chance, and one against need not matter. Take the interval": min,
        "1.96 belongs to many seeds: few need Student's t, as paired_difference(worse, better) takes it":
            lambda gaps: statistics.fmean(gaps) - 1.96 * statistics.stdev(gaps) / len(gaps) ** 0.5,
    }
    answers = [attempt(gaps, [0.0] * len(gaps)) for gaps in near]
    for hint, low in rules.items():
        lows = [(low(gaps), low([-gap for gap in gaps])) for gaps in near]
        if answers == ["holds" if above > 0 else "opposite" if below > 0 else "open" for above, below in lows]:
            return hint
    return "right for clear cases and wrong where the interval ends near 0: paired_difference(worse, better) has its low and high"


verdict = Check("verdict", evidence.verdict, diagnose_verdict)
