"""Numbers that may stand in a sentence: tables with their provenance, means with intervals, paired differences."""

import csv
import io
import itertools
import json
import math
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit  # and not scipy.stats, which takes as long to import as torch

from ..base.errors import require
from ..base.storage import DATA, write_files


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% confidence interval, over n independent things: seeds, or documents."""

    mean: float
    low: float
    high: float
    n: int

    def within(self, margin: float) -> bool:
        """Whether nothing in the interval is as far from 0 as the margin."""
        return -margin < self.low and self.high < margin

    def __str__(self) -> str:
        return f"{decimals(self.mean)} [{decimals(self.low)}, {decimals(self.high)}] (n = {self.n})"


def decimals(number: float) -> str:
    """A number with three decimals, and no minus where they are all 0.

    >>> decimals(-0.0002), decimals(-0.0007)
    ('0.000', '-0.001')
    """
    return f"{round(number, 3) + 0:.3f}"


def numbers(values: Sequence[float]) -> list[float]:
    """The values of a sample, of which none may be nan or infinite.

    Raises:
        ValueError: for what is no list of numbers: of a dictionary the keys would be counted, of a string its letters.
    """
    require(isinstance(values, Iterable) and not isinstance(values, Mapping | str | bytes),
            f"{values!r:.60} is no sample; expected a list of numbers, one per seed; of a dictionary take its .values()")
    found = [float(value) for value in values]
    require(all(map(math.isfinite, found)), f"{found} are not all numbers: a seed that diverged has no place in a mean; say how "
                                            "many did, and leave them out")
    return found


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95% interval (Student's t) of at least two independent values, e.g. one per seed.

    Raises:
        ValueError: if they are fewer, or not all of them numbers.

    >>> print(interval([1.0, 2.0, 3.0]))
    2.000 [-0.484, 4.484] (n = 3)
    """
    values = numbers(values)
    n = len(values)
    require(n >= 2, f"an interval needs at least 2 values, one per seed; got {n}")
    half = student_t(n) * statistics.stdev(values) / n ** 0.5
    mean = statistics.fmean(values)
    return Interval(mean, mean - half, mean + half, n)


def student_t(n: float) -> float:
    """The two-sided 95% quantile of Student's t for n values (n - 1 degrees of freedom): a standard error times this."""
    return float(stdtrit(n - 1, 0.975))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Mean of a - b with its interval, the two paired seed by seed.

    Raises:
        ValueError: if they are not as many numbers, at least two.
    """
    a, b = numbers(a), numbers(b)
    require(len(a) == len(b), f"{len(a)} and {len(b)} values can't be paired")
    return interval([x - y for x, y in zip(a, b)])


def welch_difference(a: Sequence[float], b: Sequence[float]) -> tuple[Interval, float]:
    """Mean of a less that of b with its interval, and the p-value of no difference, from samples of unequal variance (Welch).

    Raises:
        ValueError: if one has fewer than 2 numbers, or neither varies.
    """
    a, b = numbers(a), numbers(b)
    require(min(len(a), len(b)) >= 2, f"{len(a)} and {len(b)} values; expected at least 2 of each, one per seed")
    require(len({*a}) + len({*b}) > 2, f"neither the {len(a)} nor the {len(b)} values vary, so they have no interval")
    mean, parts = statistics.fmean(a) - statistics.fmean(b), [statistics.variance(values) / len(values) for values in (a, b)]
    error = sum(parts) ** 0.5
    freedom = sum(parts) ** 2 / sum(part ** 2 / (len(values) - 1) for part, values in zip(parts, (a, b)))
    half = float(stdtrit(freedom, 0.975)) * error
    return Interval(mean, mean - half, mean + half, min(len(a), len(b))), 2 * float(stdtr(freedom, -abs(mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several (Holm 1979): below 0.05, a contrast holds together with all others that do.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    steps = itertools.accumulate((min(1.0, (len(order) - rank) * p_values[i]) for rank, i in enumerate(order)), max)
    corrected = dict(zip(order, steps))
    return [corrected[i] for i in range(len(order))]


def verdict(difference: Interval, margin: float = 0.0) -> str:
    """What seeds show of a difference: that there is one, that there is none that matters, or neither.

    Args:
        difference: one less the other.
        margin: differences smaller than this do not matter.

    Returns: "higher" or "lower" if the interval lies above or below 0, "alike" if it lies within the margin, else "open".

    >>> verdict(Interval(0.03, 0.01, 0.05, 5)), verdict(Interval(0.01, -0.01, 0.03, 5), margin=0.02)
    ('higher', 'open')
    """
    if difference.low > 0:
        return "higher"
    if difference.high < 0:
        return "lower"
    return "alike" if difference.within(margin) else "open"


def power_law(sizes: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """Fit losses = factor · sizes^-exponent: a straight line through the logarithms (arXiv 2001.08361, eq. 1.1).

    Args:
        sizes: at least two different positive numbers, e.g. parameters.
        losses: a positive number for each.

    Returns: factor and exponent.

    Raises:
        ValueError: for sizes and losses that can't be paired, aren't positive, or are of one size.

    >>> factor, exponent = power_law([100, 400], [4.0, 2.0])
    >>> print(f"{factor:.3f} {exponent:.3f}")
    40.000 0.500
    """
    require(len(sizes) == len(losses), f"{len(sizes)} sizes and {len(losses)} losses can't be paired")
    require(min([*sizes, *losses], default=0) > 0 and len(set(sizes)) >= 2,
            "a power law needs positive numbers, and at least two different sizes")
    slope, height = statistics.linear_regression([math.log(size) for size in sizes], [math.log(loss) for loss in losses])
    return math.exp(height), -slope


def cell_value(text: str) -> float | str:
    """A table's cell as a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def judged(table: "Table", contrasts: Sequence[tuple[str, str, str]], margin: float = 0.0) -> list[dict]:
    """Declared contrasts of an experiment's reported seeds, corrected together.

    Args:
        table: of the experiment.
        contrasts: (figure, a rung, the rung it is compared with), see `Experiment.contrasts`.
        margin: differences smaller than this do not matter, see `Experiment.margin`.

    Returns: for each the `figure`, the `contrast` in words, the `difference` with its interval (Welch), `p` after `holm`, and the
        `verdict`: "shown" where p is below 0.05, else "alike" where the interval lies within the margin, else "open".
    """
    found = [welch_difference(*(table.column(figure, stage="final", rung=rung) for rung in rungs))
             for figure, *rungs in contrasts]
    return [{"figure": figure, "contrast": f"{one} − {other}", "difference": difference, "p": p,
             "verdict": "shown" if p < 0.05 else "alike" if difference.within(margin) else "open"}
            for (figure, one, other), (difference, _), p in zip(contrasts, found, holm([p for _, p in found]))]


@dataclass(frozen=True)
class Table:
    """A result table: its rows, and how it was made."""

    rows: list[dict]
    provenance: dict

    def column(self, name: str, **where) -> list[float]:
        """One column of the rows in which every other named column has the given value.

        Raises:
            ValueError: if there is no such column or no such row, or one of the rows has no number there where others do.
        """
        columns = self.rows[0] if self.rows else {}
        require(name in columns, f"no column {name!r}; there are {', '.join(columns)}")
        values = [row[name] for row in self.rows if all(row.get(key) == value for key, value in where.items())]
        require(bool(values), f"no row with {where}")
        require("" not in values or not any(isinstance(value, float) for value in values), f"{name!r} is empty in "
                f"{values.count('')} of {len(values)} rows; narrow them down, as with column({name!r}, stage=\"final\")")
        return values


def result_table(name: str, folder: str | pathlib.Path | None = None) -> Table:
    """A table of results, and how it was made.

    Args:
        name: of its .csv, without the ending, e.g. "ladder-cpu".
        folder: where it lies; the course's data/results unless given.

    Returns: its rows, what is a number as float, and the record beside it.

    Raises:
        ValueError: if there are no tables, or none of this name: it lists those that are there.
    """
    folder = pathlib.Path(folder or DATA / "results")
    known = sorted(path.stem for path in folder.glob("*.csv"))
    require(bool(known), f"there are no result tables in {folder}; set MOE_LESSON_DATA to the course's data folder")
    require(name in known, f"no result table {name!r} in {folder.name}; there are {', '.join(known)}")
    with open(folder / f"{name}.csv", newline="", encoding="utf-8") as file:
        rows = [{key: cell_value(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return Table(rows, json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def write_table(folder: pathlib.Path, name: str, rows: list[dict], provenance: dict) -> None:
    """Write rows as CSV and their provenance as JSON beside it, both or neither.

    Raises:
        OSError: if one can't be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_files({folder / f"{name}.json": (json.dumps(provenance, indent=1) + "\n").encode(),
                 folder / f"{name}.csv": text.getvalue().encode()})
