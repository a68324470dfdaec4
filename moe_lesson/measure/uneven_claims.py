"""What the experiments on uneven experts are to show, declared before their first reported run, and the verdicts that follow.

*Unequal sizes* can gain for reasons that have nothing to do with unequal skills: so the claim is the interaction. A gain is by
how much the error falls, in logarithms, at the same cost, if the experts' sizes become unequal; the interaction is the gain in
the world of unequal skills less that in the world of equal ones, paired by seed. Nine are tested together (Holm), for three
ratios: by a learned router, by one with a price on large experts, by an oracle. The verdict:

- "confirmed": some learned interaction is above 0, and that layer's error below that of equally dear fine-grained experts;
- "true, but not reached": some oracle's interaction is above 0, and no learned one is confirmed;
- "falsified in this world": the intervals of all oracles' interactions end below `MARGIN`;
- "open" otherwise.

*A different number of experts for every token*: seven gains at the same mean cost, tested together. Given the right number,
does a learned choice gain over a fixed K, and given the right choice, does the right number? Does the number gain if it is dealt
out to the wrong tokens? And do four routers that find the number themselves? The same verdicts, with the first two as oracles.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr

from ..base.errors import require
from .evidence import Interval, Table, holm, interval

RATIOS = {"12/20": (12, 20), "8/24": (8, 24), "4/28": (4, 28)}
EQUAL_SKILLS, ORACLE, PERMUTED, PRICED = ", equal skills", ", oracle", ", oracle, permuted", ", priced"
LEARNED = ("", PRICED)
CURVE = {"equal 8": 8, "equal 10": 10, "equal 12": 12, "equal": 16, "equal 21": 21}  # what cost is worth
FIXED = ("top-1", "top-k", "top-3")
MARGIN = 0.05  # a gain of 5% would be worth having
FINDERS = ("threshold", "top-p", "null experts", "relu")
ORACLES = {"oracle number": "top-k", "oracle": "oracle choice"}
VARYING = ORACLES | {rung: "top-k" for rung in ("shuffled number", *FINDERS)}  # rung -> what it is compared with


def gain(table: Table, rung: str, reference: str, curve: Sequence[str]) -> list[float]:
    """By how much a rung's error lies below that of a reference of the same cost, in logarithms, seed by seed: 0.1 is 10% better.

    Args:
        table: of an experiment whose rows have `test` and `units`.
        rung, reference: the two; if one uses more units, the reference's error is corrected by what the curve says of that.
        curve: rungs that differ in cost alone. Between two of them error and units are joined by a straight line in logarithms;
            beyond its ends it is level.
    """
    def logs(name: str, figure: str) -> np.ndarray:
        return np.log(table.column(figure, stage="final", rung=name))

    along = sorted(curve, key=lambda name: logs(name, "units").mean())
    paid, errors = (np.stack([logs(name, figure) for name in along], axis=1) for figure in ("units", "test"))

    def read(name: str) -> np.ndarray:
        """What the curve says of that rung's cost, for every seed."""
        return np.array([np.interp(*each) for each in zip(logs(name, "units"), paid, errors)])

    return list(logs(reference, "test") - read(reference) + read(rung) - logs(rung, "test"))


def size_gain(table: Table, ratio: str, way: str, world: str = "") -> list[float]:
    """The gain of unequal sizes over equal ones, chosen in the same way, in one of the worlds ("" or `EQUAL_SKILLS`)."""
    reference = "equal" + (ORACLE if way.startswith(ORACLE) else "")
    return gain(table, ratio + way + world, reference + world, [name + world for name in CURVE])


def interaction(table: Table, ratio: str, way: str) -> list[float]:
    """How much more unequal sizes gain where skills are unequal, seed by seed."""
    return [one - other for one, other in zip(size_gain(table, ratio, way), size_gain(table, ratio, way, EQUAL_SKILLS))]


def tested(differences: dict[str, list[float]]) -> dict[str, tuple[Interval, float]]:
    """For each name the mean of paired differences with its interval, and the p-value of no difference (t), corrected by Holm."""
    require(all(len({*values}) > 1 for values in differences.values()), "differences that do not vary have no interval")
    found = {name: interval(values) for name, values in differences.items()}
    errors = {name: np.std(values, ddof=1) / len(values) ** 0.5 for name, values in differences.items()}
    p = holm([2 * float(stdtr(each.n - 1, -abs(each.mean) / errors[name])) for name, each in found.items()])
    return {name: (each, corrected) for (name, each), corrected in zip(found.items(), p)}


def judged_sizes(table: Table) -> dict[str, tuple[Interval, float]]:
    """The nine declared interactions of the experiment "uneven", by ratio and way: interval, and p after Holm."""
    return tested({ratio + way: interaction(table, ratio, way) for way in (*LEARNED, ORACLE) for ratio in RATIOS})


def judged_numbers(table: Table) -> dict[str, tuple[Interval, float]]:
    """The seven declared gains of the experiment "varying", by rung: interval, and p after Holm."""
    return tested({rung: gain(table, rung, reference, FIXED) for rung, reference in VARYING.items()})


def above(judgement: tuple[Interval, float]) -> bool:
    """Shown to be above 0."""
    return judgement[0].mean > 0 and judgement[1] < 0.05


def size_verdict(table: Table) -> str:
    """What the experiment "uneven" says, in the words of this file's head."""
    found = judged_sizes(table)
    learned = [ratio + way for way in LEARNED for ratio in RATIOS if above(found[ratio + way])]
    if any(interval(gain(table, rung, "fine", list(CURVE))).low > 0 for rung in learned):
        return "confirmed"
    oracles = [found[ratio + ORACLE] for ratio in RATIOS]
    if any(above(each) for each in oracles):
        return "true, but not reached"
    return "falsified in this world" if all(each.high < MARGIN for each, _ in oracles) else "open"


def number_verdict(table: Table) -> str:
    """What the experiment "varying" says, in the same words."""
    found = judged_numbers(table)
    if any(above(found[rung]) for rung in FINDERS):
        return "confirmed"
    if any(above(found[rung]) for rung in ORACLES):
        return "true, but not reached"
    return "falsified in this world" if all(found[rung][0].high < MARGIN for rung in ORACLES) else "open"
