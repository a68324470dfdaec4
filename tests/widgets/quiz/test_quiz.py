"""The quiz: what it refuses and keeps, what it says of an answer, and that it needs nobody behind it."""

import pytest
from quiz.cases import quiz_of
from widget_harness import browser_state, put, receive, status

from moe_lesson.widgets import Quiz

TWO = [{"says": "yes", "why": "so it is", "right": True}, {"says": "no", "why": "it is"}]


@pytest.mark.parametrize("questions, words", [
    ([], "no questions"), ([{"ask": "?", "answers": TWO[:1]}], "two or more"),
    ([{"ask": "?", "answers": [*TWO, TWO[1]]}], "each once"),
    ([{"ask": "?", "answers": [{**TWO[0], "right": False}, TWO[1]]}], "0 of them right"),
    ([{"ask": "?", "answers": [TWO[0], {**TWO[1], "right": True}]}], "2 of them right")])
def test_a_quiz_without_exactly_one_right_answer_to_each_question_is_refused(questions, words):
    with pytest.raises(ValueError, match=words):
        Quiz(questions)


def test_what_was_answered_is_told_and_what_is_no_longer_asked_is_forgotten():
    kept = []
    quiz = quiz_of(tries={"ask 0": ["a 0", "gone"], "never asked": ["a"]}, keep=kept.append)
    assert quiz.tries == {"ask 0": ["a 0"]} and kept == []
    quiz.set_state({"tries": {"ask 0": ["a 0", "b 0"]}})
    assert kept == [{"ask 0": ["a 0", "b 0"]}] and quiz.kept == quiz.tries


def test_without_a_widget_the_questions_read_as_text_and_their_answers_are_folded():
    data, _ = quiz_of(words=("<img src=x>",))._repr_mimebundle_()
    page, folded = data["text/html"].split("<details>")
    assert "ask 0&lt;img" in page and "b 0&lt;img" in page and "why" not in page and "<img" not in data["text/html"]
    assert "<b>Right.</b> why b 0&lt;img" in folded and "No. why a 0" in folded
    assert data["text/plain"] == "Quiz('Questions'): run this cell to see it live"


def badge(page) -> str:
    status(page)
    return page.locator(".moe-badge").inner_text()


def test_each_answer_is_explained_the_first_one_counts_and_nobody_is_asked(show):
    page = show(quiz_of())  # not live: there is no Python
    assert badge(page) == "not answered yet" and status(page) == "Question 1 of 3: choose an answer."
    page.get_by_role("button", name="a 0").press("Enter")
    assert status(page) == "No. why a 0" and badge(page) == "0 of 1 right at the first try"
    for _ in range(2):  # twice the same is one answer
        page.get_by_role("button", name="b 0").press("Enter")
    assert status(page) == "Right. why b 0" and badge(page) == "0 of 1 right at the first try"
    assert page.locator(".moe-tried").all_inner_texts() == ["a 0", "b 0"]
    assert page.locator(".moe-correct").all_inner_texts() == ["b 0"]
    page.get_by_role("button", name="Next question").press("Enter")
    assert status(page) == "Question 2 of 3: choose an answer."
    page.get_by_role("button", name="b 1").press("Enter")
    assert badge(page) == "1 of 2 right at the first try"
    assert page.locator(".moe-labels").inner_text().split() == ["1", "✓", "2", "✓", "3"]
    page.get_by_role("radio").nth(2).check()
    page.get_by_role("button", name="Next question").press("Enter")
    assert status(page) == "Right. why b 0", "after the last comes the first"
    assert page.evaluate("model.get('tries')") == {"ask 0": ["a 0", "b 0"], "ask 1": ["b 1"]}


def test_what_was_kept_is_there_again(show):
    quiz = quiz_of(tries={"ask 0": ["b 0"]})
    page = show(quiz)
    assert status(page) == "Right. why b 0" and badge(page) == "1 of 1 right at the first try"
    quiz.set_state({"question": 1})
    receive(page, quiz)
    assert status(page) == "Question 2 of 3: choose an answer." and browser_state(quiz)["question"] == 1


def test_a_kernel_that_does_not_answer_is_named_until_it_does(show_timed):
    quiz = quiz_of()
    page = show_timed(quiz)
    page.get_by_role("button", name="a 0").press("Enter")
    page.clock.run_for(3900)
    assert said(page) == "No. why a 0"
    page.clock.run_for(200)
    assert said(page).startswith("No. why a 0 Not kept: Python has not answered.") and "run this cell again" in said(page)
    page.get_by_role("button", name="Next question").press("Enter")
    page.clock.run_for(100)
    assert "choose an answer. Not kept" in said(page)
    quiz.set_state({name: value for sent in page.evaluate("model.saved") for name, value in sent.items()})
    receive(page, quiz)
    page.clock.run_for(5000)
    assert said(page) == "Question 2 of 3: choose an answer."


def said(page) -> str:
    """The words under the answers, while the clock stands."""
    return page.locator(".moe-status").inner_text()


def test_an_answer_that_the_question_no_longer_has_is_none(show):
    """A web page keeps answers longer than their words."""
    page = show(quiz_of())
    put(page, tries={"ask 0": ["a reworded answer"]})
    assert status(page) == "Question 1 of 3: choose an answer." and badge(page) == "not answered yet"
