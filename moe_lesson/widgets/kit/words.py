"""Numbers and lists in words."""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

from ...measure.evidence import Interval


def fixed(value: float, digits: int) -> str:
    """The number as JavaScript's toFixed writes it: ties go up, where Python's format goes to the even digit; no -0."""
    return f"{Decimal(value + 0.0).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"


def three_digits(value: float) -> str:
    """A number below 1000 in three digits."""
    return fixed(value, 2 if value < 10 else 1 if value < 100 else 0)


DIGITS = 3  # of a loss


def rounded(value: float, digits: int = DIGITS) -> str:
    """The number in words, without what summing up in another order would change; nothing is minus zero."""
    text = fixed(float(f"{value:.12g}"), digits)
    return text if float(text) else fixed(0.0, digits)


def listed(items: Sequence, most: int = 8) -> str:
    """The first few, and how many more there are."""
    more = len(items) - most
    return ", ".join(map(str, items[:most])) + (f" and {more} more" if more > 0 else "")


def signed(value: float) -> str:
    text = rounded(value)
    return text if text.startswith("-") or not float(text) else f"+{text}"


def bounds(found: Interval, words=rounded) -> str:
    """The interval behind a mean, in brackets that no line break parts; nothing behind that of one seed."""
    return f" [{words(found.low)},\u00a0{words(found.high)}]" if found.n > 1 else ""


