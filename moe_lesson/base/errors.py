"""How the course refuses bad input: the value, what was expected, what to do."""


import math
from numbers import Integral, Real
from typing import Any


def require(holds: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not holds:
        raise ValueError(message)


def whole_number(name: str, value: Any, least: int | None = 1) -> int:
    """The value as an int. Refuses, by its name, what is no whole number or below the least: 64 / 2 is 32.0, and no tensor has
    32.0 columns; True is a switch and no size."""
    require(isinstance(value, Integral) and not isinstance(value, bool) and (least is None or int(value) >= least),
            f"{name} is {value!r}; expected a whole number" + ("" if least is None else f", {least} or more"))
    return int(value)


def positive_number(name: str, value: Any, or_zero: bool = False) -> None:
    """Refuse, by its name, what is no finite number above 0, or of at least 0."""
    require(isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf and (or_zero or value != 0),
            f"{name} is {value!r}; expected " + ("a number of at least 0" if or_zero else "a positive number"))
