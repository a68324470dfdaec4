"""How the course refuses bad input: the value, what was expected, what to do."""


from numbers import Integral
from typing import Any


def require(holds: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not holds:
        raise ValueError(message)


def whole_number(name: str, value: Any, least: int = 1) -> None:
    """Refuse a size, by its name, that is no whole number or below the least; 64 / 2 is 32.0, and no tensor has 32.0 columns."""
    require(isinstance(value, Integral) and int(value) >= least, f"{name} is {value!r}; expected a whole number, {least} or more")
