"""What a notebook calls: one line of set-up, predictions that are kept, claims that are checked, solutions shown.

    lesson = Lesson("00")
    lesson.predict("idle", "How many of the 62 experts get no token at all?")
    lesson.reveal("idle", 7)
    lesson.table([{"model": "dense", "test loss": dense}, {"model": "sparse", "test loss": moe}])
    lesson.claim("the sparse model predicts text better", moe < dense, moe=moe, dense=dense)
"""

from __future__ import annotations

import html
import importlib.util
import inspect
import json
import math
import os
import pathlib
import platform
import re
import textwrap
import zlib
from collections.abc import Callable, Mapping, Sequence

import torch

from ..base.devices import device_name, pick_device
from ..base.errors import require
from ..measure.evidence import Interval, decimals
from .guesses import chosen, plain_values, read_number, read_predictions, within_factor, write_predictions

PACKAGES = {"ipywidgets": "sliders", "anywidget": "the course's own widgets", "matplotlib": "figures", "seaborn": "figures",
            "transformers": "lesson 11, real models"}
LINE = 96  # characters: what a notebook shows without breaking it


class ClaimFailed(AssertionError):
    """A sentence of the lesson is not true in this run."""


class Page:
    """Something to show in a notebook: HTML for the eye, plain text for a terminal, a test, or a screen reader."""

    def __init__(self, text: str, body: str):
        self.text, self.body = text, body

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.body


class Lesson:
    """One sitting with one lesson.

    Args:
        name: of the lesson, e.g. "00"; its predictions are kept under it.
        seed: of torch's random numbers.

    Prints Python, torch, and the GPU if there is one. `device` is where speed is measured; all else runs on the CPU.
    """

    def __init__(self, name: str, seed: int = 0):
        self.name = name
        self.guesses: dict[str, dict] = read_predictions()
        self.device = pick_device("auto")
        self.claims_made: list[tuple[str, dict[str, object]]] = []
        torch.manual_seed(seed)
        threads = torch.get_num_threads()
        device = (device_name(self.device) if self.device != "cpu" else
                  f"CPU, {threads} thread{'' if threads == 1 else 's'}")
        print(f"Python {platform.python_version()} · torch {torch.__version__} · {device} · seed {seed}")

    # ------------------------------------------------------------------------------------------------------ predictions

    def predict(self, key: str, question: str, numbers: int = 1, choices: tuple[str, ...] = (), least: float = 0):
        """Ask for a guess before the result; it is kept for `reveal` and `calibration`.

        Args:
            key: name of the question within the lesson.
            question: one sentence.
            numbers: how many numbers to ask for.
            choices: ask for one of these instead.
            least: the smallest number that can be an answer.

        Returns: a form to show in the notebook; without ipywidgets, a line that says how to answer with `keep`.

        Raises:
            ValueError: if no number is asked for.
        """
        require(numbers >= 1, f"numbers is {numbers}; a prediction asks for at least one")
        if importlib.util.find_spec("ipywidgets") is None:
            asked = f"Predict: {question} Answer with lesson.keep({key!r}, your guess)."
            return Page(asked, html.escape(asked))
        from ..widgets.question.data import Question

        def keep(entered: list[str]) -> tuple[bool, str]:
            try:
                guess = [chosen(text, choices) for text in entered] if choices else [read_number(text, least) for text in entered]
            except ValueError as refusal:
                return False, f"Not kept: {refusal}"
            problem = self.keep(key, *guess)
            return True, f"Kept: {said(guess)}. Now run the next cell. {problem}".rstrip()

        return Question(question, keep, numbers, choices, [str(value) for value in self.guess(key) or []])

    def keep(self, key: str, *guess: float | str) -> str:
        """Keep a guess; returns "" or, where it can be kept for this sitting alone, a sentence that says why.

        Raises:
            ValueError: for what is neither a finite number nor text.
        """
        values = plain_values(guess)
        require(all(isinstance(value, str) or isinstance(value, float | int) and math.isfinite(value) for value in values),
                f"{guess} can't be kept; give numbers such as 14 or 0.5, or a choice in quotation marks")
        return self.store(key, {"guess": values})

    def guess(self, key: str) -> list | None:
        """The kept guess, or None."""
        return self.guesses.get(f"{self.name}/{key}", {}).get("guess")

    def reveal(self, key: str, *actual: float | str) -> None:
        """Print the result beside the guess, and keep both."""
        values = plain_values(actual)
        guess = self.guess(key)
        if guess is None:
            print(f"It is {said(values)}.")
            return
        print(f"You said {said(guess)}. It is {said(values)}.")
        self.store(key, {"guess": guess, "actual": values})

    def store(self, key: str, kept: dict) -> str:
        """Keep a guess beside all others, those that another open lesson has kept meanwhile too; returns what `keep` does."""
        self.guesses |= read_predictions() | {f"{self.name}/{key}": kept}
        return write_predictions(self.guesses)

    # ------------------------------------------------------------------------------------------------------------- quiz

    def quiz(self):
        """Five questions about this lesson: a widget. Each answer is explained; what was answered is kept beside the guesses."""
        from ..widgets.quiz.data import Quiz

        number = self.name
        return Quiz(read_quiz(number), f"Lesson {number}: five questions", self.guesses.get(f"{number}/quiz", {}).get("tries"),
                    keep=lambda tries: self.store("quiz", {"tries": tries}))

    # ----------------------------------------------------------------------------------------------------------- claims

    def claim(self, sentence: str, holds: bool, **numbers: object) -> None:
        """State a sentence with its numbers; stop the notebook if it is not true.

        Args:
            sentence: what is claimed.
            holds: whether it is so in this run.
            numbers: what it rests on, shown after it; of an `Interval` the mean, the whole of it stands under `claims`.

        Raises:
            ClaimFailed: if it does not hold.
        """
        if not bool(holds):
            raise ClaimFailed(f"not true in this run: {sentence} ({figures(numbers)})")
        self.claims_made.append((sentence, numbers))
        line = f"✔ {sentence}" + (f" ({figures(means(numbers))})" if numbers else "")
        print(textwrap.fill(line, LINE, subsequent_indent="  "))  # a notebook would break it inside a word

    def claims(self) -> Page:
        """All claims of this sitting with their numbers, as a table; the intervals among these unfold under it."""
        made = table([{"claim": f"✔ {sentence}", "measured": figures(means(numbers))} for sentence, numbers in self.claims_made])
        intervals = [(sentence, found) for sentence, numbers in self.claims_made
                     if (found := {name: value for name, value in numbers.items() if isinstance(value, Interval)})]
        if not intervals:
            return made
        whole = folded("95% intervals", "\n".join(f"{sentence}: {figures(found)}" for sentence, found in intervals))
        return Page(f"{made}\n{whole}", made._repr_html_() + whole._repr_html_())

    def table(self, rows: Sequence[Mapping[str, object]], caption: str = "", formats: Mapping[str, str] | None = None) -> None:
        """Show results under the cell as `table` makes them."""
        from IPython.display import display

        display(table(rows, caption, formats))

    # ------------------------------------------------------------------------------------------------------- calibration

    def calibration(self) -> Page:
        """How the kept guesses of all lessons compare with what was then measured: a line for each, and what they add up to."""
        self.guesses |= read_predictions()
        rows = [(key, guess, actual) for key, kept in self.guesses.items() if "actual" in kept
                for guess, actual in zip(kept["guess"], kept["actual"]) if isinstance(guess, str) == isinstance(actual, str)]
        if not rows:
            text = "No guess can be compared: each lesson asks before it shows. Keep a guess there, a number for a number."
            return Page(text, html.escape(text))
        numbers = [(guess, actual) for _, guess, actual in rows if isinstance(actual, float | int)]
        choices = [guess == actual for _, guess, actual in rows if isinstance(actual, str)]
        lines = []
        if numbers:
            near = sum(within_factor(2, *pair) for pair in numbers)
            high, low = sum(guess > actual for guess, actual in numbers), sum(guess < actual for guess, actual in numbers)
            lines.append(f"{near} of {len(numbers)} numbers within a factor of 2; {high} too high, {low} too low.")
        if choices:
            lines.append(f"{sum(choices)} of {len(choices)} choices right.")
        return table([{"question": key, "you said": said([guess]), "it is": said([actual])} for key, guess, actual in rows],
                     " ".join(lines))

    # ---------------------------------------------------------------------------------------------------------- machine

    def machine(self) -> Page:
        """What this machine has for the course: device, cores, optional packages."""
        found = {"device": device_name(self.device) if self.device != "cpu" else "CPU; every lesson runs on it",
                 "cores": str(os.cpu_count())}
        for package, use in PACKAGES.items():
            there = importlib.util.find_spec(package) is not None
            found[package] = f"there ({use})" if there else f"missing; needed for {use}: pip install {package}"
        return table([{"": name, "found here": what} for name, what in found.items()])


def said(values: Sequence[float | str]) -> str:
    """A guess or a result in a few figures."""
    return " and ".join(value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
                        for value in values)


def table(rows: Sequence[Mapping[str, object]], caption: str = "", formats: Mapping[str, str] | None = None) -> Page:
    """A table of results: numbers at the right and never wrapped, text at the left.

    Args:
        rows: name of the column -> a number, an `Interval`, or text; what a row lacks stays empty.
        caption: what the table shows, without a full stop; what an interval is, is added to it.
        formats: name of the column -> how its numbers are written, e.g. ".1%"; whole numbers get thousands' commas otherwise,
            others three decimals.
    """
    from pandas import DataFrame  # slow to import, and wanted by tables alone
    from pandas.io.formats.style import Styler

    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[written(row.get(column, ""), (formats or {}).get(column)) for column in columns] for row in rows]
    seeds = sorted({value.n for row in rows for value in row.values() if isinstance(value, Interval)})
    measured = f"mean [95% interval], n = {', '.join(map(str, seeds))}" if seeds else ""
    caption = "; ".join(filter(None, (caption, measured)))
    text = [any(isinstance(row.get(column), str) and row[column] for row in rows) for column in columns]
    padded = [[f"{cell:{'<' if left else '>'}{max(map(len, line))}}" for cell in line]
              for left, line in zip(text, zip(columns, *cells))]
    plain = "\n".join([*filter(None, [caption]), *("  ".join(line).rstrip() for line in zip(*padded))])
    number = "text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums"
    whole = "text-align: left; white-space: nowrap"  # else it would be broken at the table's width
    styles = [{"selector": "th, td", "props": number}, {"selector": "caption", "props": whole}] + [
        {"selector": f".col{i}", "props": "text-align: left; white-space: normal"} for i, left in enumerate(text) if left]
    # the id comes from what is shown: the same table has the same bytes in every run
    styler = Styler(DataFrame(cells, columns=columns), uuid=f"{zlib.crc32(plain.encode()):08x}", cell_ids=False)
    styler.format(escape="html").format_index(escape="html", axis=1).hide(axis="index").set_table_styles(styles)
    return Page(plain, styler.to_html(caption=html.escape(caption) or None))


def written(value: object, spec: str | None) -> str:
    """A cell: an interval without its n, a number as `spec` says, but what is above 0 never as 0."""
    (value,) = plain_values([value])
    if isinstance(value, str | bool):
        return str(value)
    if isinstance(value, Interval):
        return str(value).partition(" (")[0]
    text = format(value, spec or ("," if isinstance(value, int) else ".3f"))
    return f"<{'1'.join(text.rsplit('0', 1))}" if value > 0 and re.fullmatch(r"\+?[0.]+%?", text) else text


def solution(*functions: Callable) -> Page:
    """The source of the package's own functions: the solution of an exercise is the code that the course runs on."""
    source = "\n\n".join(textwrap.dedent(inspect.getsource(function)) for function in functions)
    names = ", ".join(f"<code>{html.escape(function.__qualname__)}</code>" for function in functions)
    return folded(f"Solution: {names}", source)


def figures(numbers: Mapping[str, object]) -> str:
    """Named numbers as one line of text."""
    return ", ".join(f"{name.replace('_', ' ')} {decimals(value) if isinstance(value, float) else value}"
                     for name, value in numbers.items())


def means(numbers: Mapping[str, object]) -> dict[str, object]:
    """The same numbers, each interval as its mean alone."""
    return {name: value.mean if isinstance(value, Interval) else value for name, value in numbers.items()}


def folded(words: str, source: str) -> Page:
    """Code that unfolds under some words, which are HTML."""
    return Page(source, f"<details><summary>{words}</summary><pre>{html.escape(source)}</pre></details>")


def read_quiz(lesson: str) -> list[dict]:
    """The questions of a lesson, e.g. "00", as `Quiz` takes them.

    Raises:
        ValueError: if it has none.
    """
    path = pathlib.Path(__file__).parent / "quizzes" / f"lesson{lesson}.json"
    require(path.is_file(), f"lesson {lesson!r} has no quiz: expected {path.name} in {path.parent.name}/")
    return json.loads(path.read_text(encoding="utf-8"))
