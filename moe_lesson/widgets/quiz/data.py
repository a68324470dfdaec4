"""Questions at the end of a lesson, each answer with what a teacher would say of it. All of it travels to the browser."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

import traitlets
from traitlets import Dict, Int, List

from ...base.errors import require
from ..kit.base import LessonWidget, within


class Quiz(LessonWidget):
    """Multiple choice, one question at a time; whoever is wrong reads why, and may try again.

    Args:
        questions: each has "ask", a sentence, and "answers", a list of {"says", "why"}; the one that is right has "right": true.
        tries: what was answered earlier, see the trait; what is no question or answer any more is left out.
        keep: called with `tries` whenever the learner has answered.

    Traits to read, set and observe: `question` (which one is shown, from 0), `tries` (what was asked -> the answers given to it,
    the first one first).

    Raises:
        ValueError: if there is no question, or one has fewer than two answers, an answer twice, or not one that is right.
    """

    questions = List(Dict()).tag(sync=True)
    question = Int().tag(sync=True)
    tries = Dict().tag(sync=True)
    kept = Dict().tag(sync=True)  # the tries that are kept

    def __init__(self, questions: Sequence[Mapping], title: str = "Five questions", tries: Mapping[str, list] | None = None,
                 keep: Callable[[dict], object] = lambda tries: None):
        require(len(questions) > 0, "there are no questions; give one or more")
        known = {one["ask"]: [answer["says"] for answer in one["answers"]] for one in questions}
        for one in questions:
            right, says = sum(answer.get("right", False) for answer in one["answers"]), known[one["ask"]]
            require(len(says) == len(set(says)) >= 2 and right == 1,
                    f"{one['ask']!r} has the answers {says}, {right} of them right; give two or more, each once, one right")
        earlier = {ask: [says for says in given if says in known[ask]] for ask, given in (tries or {}).items() if ask in known}
        super().__init__(title=title, questions=list(questions), tries=earlier, kept=earlier, start={"question": 0, "tries": {}})

        def answered(change):
            keep(change["new"])
            self.kept = change["new"]

        self.observe(answered, "tries")

    @traitlets.validate("question")
    def _in_range(self, proposal):
        return within(proposal, {"question": (0, len(self.questions) - 1)})

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        """With all questions as HTML, their answers folded: so they read where no widget lives, on GitHub or on paper."""
        data, metadata = super()._repr_mimebundle_(**options)
        return data | {"text/html": f"<b>{html.escape(self.title)}</b><ol>{''.join(map(folded, self.questions))}</ol>"}, metadata


def folded(question: Mapping) -> str:
    """A question as HTML: what it asks and its answers, and under a fold which is right, and why."""
    says = "".join(f"<li>{html.escape(answer['says'])}</li>" for answer in question["answers"])
    whys = "".join(f"<li>{'<b>Right.</b>' if answer.get('right') else 'No.'} {html.escape(answer['why'])}</li>"
                   for answer in question["answers"])
    return (f"<li>{html.escape(question['ask'])}<ul>{says}</ul><details><summary>What a teacher would say</summary>"
            f"<ul>{whys}</ul></details></li>")
