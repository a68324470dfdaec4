"""The ablation view in chromium: what no other widget has. test_every_widget_browser.py asks the rest."""

import pytest
from ablation_view.cases import EXPERTS, made, toy, view_of
from widget_harness import dots, status, written

BLUE, ORANGE = (91, 130, 184), (217, 102, 10)


def cells(page) -> list[list[str]]:
    return [row.locator("th, td").all_text_contents() for row in page.locator("tbody tr").all()]


@pytest.mark.parametrize("state", [{}, {"rung": "gshard", "domain": "yaml", "share": 0.25}])
def test_the_verdict_stands_above_the_picture_and_the_numbers_below(show, state):
    view = view_of(experts=EXPERTS)
    page = show(view)
    page.evaluate("(state) => model.receive(state)", state)
    made(view, **state)
    status(page)
    assert page.locator(".moe-ablation-verdict").all_text_contents() == [view.verdict, view.state["aim"]]
    assert cells(page) == view.state["rows"]
    assert page.locator("thead th").all_text_contents() == [view.domain, "specialists", "same load", "paired difference"]


def test_both_kinds_are_in_colour_and_every_row_is_named(show):
    page = show(view_of())
    assert dots(page, BLUE) > 200 and dots(page, ORANGE) > 200
    texts = [text for text, _ in written(page, {"domain": "cpp"})]
    assert texts.count("specialists") == texts.count("same load") == 4 and {"python", "english", "cpp", "yaml"} < set(texts)
    assert not any("…" in text for text in texts)


def test_a_single_share_has_no_slider(show):
    page = show(toy(((0.5, 0.1), (0.6, 0.1)), ((0.2, 0.2), (0.2, 0.2))))
    assert not page.get_by_label("share of the experts").is_visible()
