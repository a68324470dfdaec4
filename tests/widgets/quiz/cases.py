"""Synthetic quizzes, and the longest that the course has."""

import json
from pathlib import Path

from moe_lesson.widgets import Quiz

COURSE = sorted((Path(__file__).parents[3] / "moe_lesson/teach/quizzes").glob("*.json"))


def quiz_of(words: tuple[str, ...] = ("", "", ""), title: str = "Questions", **more) -> Quiz:
    """Three questions of three answers, the second one right; `words` are added to those of each question."""
    def answer(name: str, asked: str) -> dict:
        return {"says": f"{name} {asked}", "why": f"why {name} {asked}"} | ({"right": True} if name == "b" else {})

    asked = [f"{i}{word}" for i, word in enumerate(words)]
    return Quiz([{"ask": f"ask {one}", "answers": [answer(name, one) for name in "abc"]} for one in asked], title, **more)


def longest() -> list[dict]:
    """Of the course's questions the one that asks longest, and the one whose answers take most room."""
    questions = [question for path in COURSE for question in json.loads(path.read_text())]
    return [max(questions, key=lambda one: len(one["ask"])),
            max(questions, key=lambda one: sum(len(answer["says"]) for answer in one["answers"]))]
