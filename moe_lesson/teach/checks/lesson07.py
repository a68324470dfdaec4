"""The checks of lesson 07."""

import random
from collections.abc import Callable

from ...measure import evidence
from ...measure.evidence import Interval
from .kit import answered, check

WORDS = "higher", "lower", "alike", "open"


@check(evidence.verdict)
def verdict(attempt: Callable) -> str | None:
    """What is wrong with a function (difference, margin) -> "higher", "lower", "alike" or "open"."""
    def of(low: float, high: float) -> Interval:
        return Interval((low + high) / 2, low, high, 10)

    cases = (
        (of(0.010, 0.030), "the whole interval lies above 0, so the first is shown to be higher"),
        (of(-0.030, -0.010), "the whole interval lies below 0: these seeds show that the first is lower, which is no less than "
                             "that it is higher"),
        (of(-0.020, 0.040), "the interval contains 0, and also differences that matter: its mean is no answer. Nobody knows yet"),
        (of(-0.030, 0.004), "the interval contains 0 and reaches beyond the margin on one side: it must end within it on both"),
        (of(-0.004, 0.030), "the interval contains 0 and reaches beyond the margin on one side: it must end within it on both"),
        (of(-0.004, 0.006), "all that the interval holds is smaller than the margin: that is more than not knowing"),
        (of(0.002, 0.006), "small, and shown all the same: the interval lies above 0. What contains 0 can be alike"),
        (of(-0.006, -0.002), "small, and shown all the same: the interval lies below 0. What contains 0 can be alike"),
    )
    answered(attempt, cases[0][0], 0.01)  # or it is a stub
    for difference, hint in cases:
        answer = attempt(difference, 0.01)
        if answer not in WORDS:
            return f"your answer is {answer!r}; expected one of {', '.join(WORDS)}"
        if answer != (wanted := evidence.verdict(difference, 0.01)):
            turned = {"higher": "lower", "lower": "higher"}.get(answer)
            if turned == wanted and attempt(of(-difference.high, -difference.low), 0.01) == turned:
                return "turned round: the difference is the first less the second, so above 0 the first is higher"
            return hint
    draw = random.Random(0)
    for margin in (0.0, 0.003, 0.02, 1.0):
        for _ in range(50):
            low, high = sorted(draw.choice((0.5, 2, 10)) * max(margin, 0.01) * draw.uniform(-1, 1) for _ in range(2))
            if attempt(of(low, high), margin) != evidence.verdict(of(low, high), margin):
                return f"right with a margin of 0.01, and wrong for [{low:.4f}, {high:.4f}] with one of {margin:g}: use `margin`"
    return None
