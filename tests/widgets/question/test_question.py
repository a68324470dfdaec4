"""The form of a prediction in chromium: Enter sends it, and it says "kept" only when Python has kept it."""

import pytest
from widget_harness import as_text, complaints

from moe_lesson.widgets.question.data import Question


def keep(entered):
    return (True, f"Kept: {', '.join(entered)}.") if all(entered) else (False, "Not kept: write a number.")


@pytest.fixture
def ask(show_timed):
    """ask(question) -> a page with the form, whose Python answers when `page.answer()` is called."""
    def open_page(question):
        page = show_timed(question)
        page.answer = lambda: (question.set_state(page.evaluate("model.saved.at(-1)")),
                               page.evaluate("(text) => model.receive(JSON.parse(text))", as_text(question)))
        return page

    return open_page


def said(page) -> str:
    return page.get_by_role("status").inner_text()


def test_enter_keeps_a_guess_and_kept_is_said_only_then(ask):
    page = ask(Question("How many of <b>8</b>?", keep))
    assert page.get_by_text("How many of <b>8</b>?").is_visible() and said(page) == "Not kept yet. A wrong guess teaches most."
    field = page.get_by_role("textbox")
    field.fill(" 14 ")
    field.press("Enter")
    assert said(page) == "Waiting for Python …" and page.locator(".moe-kept").count() == 0
    page.answer()
    assert said(page) == "Kept: 14." and page.locator(".moe-kept").count() == 1
    field.fill("")
    page.get_by_role("button").click()
    page.answer()
    assert said(page) == "Not kept: write a number." and page.locator(".moe-kept").count() == 0


def test_a_kernel_that_does_not_answer_is_named(ask):
    page = ask(Question("How many?", keep))
    page.get_by_role("textbox").press("Enter")
    page.clock.run_for(3900)
    assert said(page) == "Waiting for Python …"
    page.clock.run_for(200)
    assert "Not kept: Python has not answered" in said(page) and "run this cell again" in said(page)
    page.answer()
    assert said(page) == "Not kept: write a number."


def test_two_numbers_and_choices_and_what_was_kept_before(ask):
    page = ask(Question("Two?", keep, numbers=2, entered=["3", "4.5"]))
    assert [field.input_value() for field in page.get_by_role("textbox").all()] == ["3", "4.5"] and said(page) == "Kept earlier."
    page = ask(Question("Which?", keep, choices=("a", "b")))
    page.get_by_role("combobox").select_option("b")
    page.get_by_role("button").click()
    page.answer()
    assert said(page) == "Kept: b."


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("question", [Question("How many?", keep, 2), Question("Which?", keep, choices=("a", "b"))])
def test_axe_finds_nothing_serious_and_it_fits_every_width(ask, question, scheme):
    page = ask(question)
    page.emulate_media(color_scheme=scheme)
    page.clock.resume()  # axe waits for time to pass
    assert complaints(page) == []
    for width in (1280, 700, 470):
        page.set_viewport_size({"width": width, "height": 600})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_closed_form_listens_no_more(ask):
    page = ask(Question("How many?", keep))
    page.evaluate("cleanup()")
    assert page.evaluate("Object.values(model.listeners).flat().length") == 0
