"""A question before a result: what the learner guesses is kept by Python, and the form says so only then."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import traitlets
from traitlets import Dict, Int, List, Unicode

from ..kit.base import LessonWidget


class Question(LessonWidget):
    """A form for one prediction.

    Args:
        question: one sentence.
        keep: called with what was written into the fields, a list of strings; returns (whether it is kept, what to say).
        numbers: how many fields for numbers.
        choices: ask for one of these instead.
        entered: what stands in the fields at first: a guess that is kept already.
    """

    numbers = Int().tag(sync=True)
    choices = List(Unicode()).tag(sync=True)
    entered = Dict().tag(sync=True)  # times the learner sent a guess, and the values of the last time
    answer = Dict().tag(sync=True)  # times, whether the guess is kept, and what to say of it

    def __init__(self, question: str, keep: Callable[[list[str]], tuple[bool, str]], numbers: int = 1,
                 choices: Sequence[str] = (), entered: Sequence[str] = ()):
        self._keep = keep
        said = "Kept earlier." if entered else "Not kept yet. A wrong guess teaches most."
        super().__init__(title=question, numbers=numbers, choices=list(choices),
                         entered={"times": 0, "values": list(entered)}, answer={"times": 0, "kept": bool(entered), "words": said})

    @traitlets.observe("entered")
    def _answer(self, change):
        if change["new"]["times"]:
            kept, words = self._keep(change["new"]["values"])
            self.answer = {"times": change["new"]["times"], "kept": kept, "words": words}

    def __repr__(self) -> str:
        return f"Predict: {self.title}" + (f" ({' / '.join(self.choices)})" if self.choices else "")

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        """With the question as HTML: it still reads where no kernel is behind it, on GitHub or in a printed page."""
        data, metadata = super()._repr_mimebundle_(**options)
        shown = html.escape(repr(self).removeprefix("Predict: "))
        return data | {"text/plain": repr(self), "text/html": f"<b>Predict.</b> {shown}"}, metadata
