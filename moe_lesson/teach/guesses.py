"""What a learner guesses: read as it is meant, compared with what was then measured, kept for later lessons."""

import contextlib
import json
import math
import pathlib
import re
import time
from collections.abc import Sequence

from ..base.errors import require
from ..base.storage import home, write_text


def read_number(text: str, least: float) -> float:
    """The number that a learner wrote: 14, 0.5, 0,5, 1,000 or 2e9; a whole one is an int.

    Raises:
        ValueError: for anything else, and for a number below `least`.
    """
    written = text.strip().replace("−", "-")
    grouped = re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", written) and not written.lstrip("+-").startswith("0")
    try:
        value = float(written.replace(",", "") if grouped else written.replace(",", "."))
    except ValueError:
        value = math.nan
    require(math.isfinite(value), f"{text!r} is not a number that can be kept; write one such as 14, 0.5 or 1,000")
    require(value >= least, f"{text} is too small; the answer is {least:g} or more")
    return int(value) if value.is_integer() and abs(value) < 2 ** 53 else value


def chosen(text: str, choices: Sequence[str]) -> str:
    """One of the choices."""
    require(text in choices, "please choose one")
    return text


def plain_values(values: Sequence) -> list:
    """Python's own numbers in place of NumPy's and torch's, as a file can hold them."""
    return [value.item() if hasattr(value, "item") else value for value in values]


def within_factor(factor: float, guess: float, actual: float) -> bool:
    """Whether a guess is right up to a factor; of 0 only 0 is."""
    return guess == actual or (guess * actual > 0 and 1 / factor <= guess / actual <= factor)


def predictions_file() -> pathlib.Path:
    """Where guesses are kept."""
    return home() / "predictions.json"


def read_predictions() -> dict[str, dict]:
    """All kept guesses; none where the file is missing. One that is damaged or can't be read is put aside, to be looked at: it is
    never written over."""
    try:
        path = predictions_file()
        store = json.loads(path.read_text(encoding="utf-8"))
        require(isinstance(store, dict) and all(isinstance(kept, dict) for kept in store.values()), f"{path} is damaged")
        return store
    except (FileNotFoundError, RuntimeError):  # RuntimeError: this user has no home
        return {}
    except (ValueError, OSError) as error:
        aside = path.with_name(f"predictions-damaged-{time.time_ns()}.json")
        with contextlib.suppress(OSError):  # a home that can't be written to, or another kernel was first
            path.replace(aside)
            what = f"can't be read ({error})" if isinstance(error, OSError) else "was damaged"
            print(f"The file of your guesses {what}; it is kept as {aside}, and a new one begins.")
        return {}


def write_predictions(store: dict[str, dict]) -> str:
    """Write all guesses, whole or not at all; returns "" or a sentence that says why a home can't be written to: that stops
    no lesson."""
    try:
        write_text(predictions_file(), json.dumps(store, indent=1, ensure_ascii=False))
    except (OSError, RuntimeError) as error:
        return f"It is kept for this sitting only ({error}): set MOE_LESSON_HOME to a folder you can write to."
    return ""
