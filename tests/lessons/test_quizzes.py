"""The questions of every lesson have the form that a quiz asks for, and what was answered is kept beside the guesses."""

import json
from collections import Counter
from pathlib import Path

import pytest

from moe_lesson.teach.lesson import Lesson, read_quiz

REPO = Path(__file__).parents[2]
QUIZZES = {path.stem.removeprefix("lesson"): json.loads(path.read_text(encoding="utf-8"))
           for path in sorted((REPO / "moe_lesson/teach/quizzes").iterdir())}
ONE_LINE, TWO_LINES, THREE_LINES = 95, 170, 290  # characters, in a cell beside JupyterLab's side bar
every_quiz = pytest.mark.parametrize("questions", QUIZZES.values(), ids=QUIZZES)


def places(questions: list[dict]) -> list[int]:
    """Where the right answer stands."""
    return [[answer.get("right", False) for answer in one["answers"]].index(True) for one in questions]


@every_quiz
def test_five_questions_of_three_or_four_answers_one_right_each_explained(questions):
    assert len(questions) == 5 and len({one["ask"] for one in questions}) == 5
    for one in questions:
        assert one.keys() == {"ask", "answers"} and len(one["answers"]) in (3, 4)
        assert sum(answer.get("right", False) for answer in one["answers"]) == 1
        assert all(answer.keys() - {"right"} == {"says", "why"} for answer in one["answers"])


@every_quiz
def test_a_question_has_two_lines_an_answer_one_and_an_explanation_three(questions):
    for one in questions:
        assert len(one["ask"]) <= TWO_LINES and one["ask"].endswith("?"), one["ask"]
        for answer in one["answers"]:
            assert 0 < len(answer["says"]) <= ONE_LINE, answer["says"]
            assert 20 < len(answer["why"]) <= THREE_LINES and answer["why"].endswith("."), answer["why"]


@every_quiz
def test_the_right_answer_is_found_neither_by_its_place_nor_by_its_length(questions):
    assert max(Counter(places(questions)).values()) <= 2, places(questions)
    for extreme in (min, max):
        found = [extreme(range(len(one["answers"])), key=lambda i: len(one["answers"][i]["says"])) for one in questions]
        assert sum(place == right for place, right in zip(found, places(questions))) <= 2, extreme


def test_every_lesson_has_a_quiz_and_no_quiz_is_without_a_lesson():
    lessons = {path.name[:2] for path in (REPO / "notebooks").glob("*.ipynb")}
    assert QUIZZES.keys() == lessons
    with pytest.raises(ValueError, match="lesson '99' has no quiz"):
        read_quiz("99")


def test_answers_are_kept_beside_the_guesses_and_come_back(monkeypatch, tmp_path):
    monkeypatch.setenv("MOE_LESSON_HOME", str(tmp_path))
    lesson = Lesson("09")
    lesson.keep("wait", 4, 64)
    ask, says = (one := read_quiz("09")[0])["ask"], one["answers"][0]["says"]
    lesson.quiz().set_state({"tries": {ask: [says]}})
    assert Lesson("09").quiz().tries == {ask: [says]} and Lesson("00").quiz().tries == {}
    assert Lesson("09").guess("wait") == [4, 64] and "can be compared" in repr(Lesson("09").calibration())
