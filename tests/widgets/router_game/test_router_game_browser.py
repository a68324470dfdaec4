"""The router game in chromium: guess, evidence, next round, end; pointing at a token. The rest: test_every_widget_browser.py."""

import pytest
from router_game.cases import TEXT, game_of, made
from widget_harness import dots, picture, status

from moe_lesson.widgets.router_game.data import NAMES, PLACES, history_rows, table_rows

ACCENT, CHOSEN = (217, 102, 10), (254, 232, 56)


def press(page, place: str) -> None:
    page.get_by_role("button", name=f"{place} is the trained one").press("Enter")


def tables(page) -> list[list[list[str]]]:
    """Both tables without their heads."""
    status(page)
    return [[[cell.strip() for cell in row.split("\t")] for row in table.locator("tbody tr").all_inner_texts()]
            for table in page.locator("table").all()]


def seen(page) -> str:
    return page.locator(".moe-root").inner_text()


def test_nothing_is_told_before_the_guess_and_all_after_it(show):
    game = game_of()
    page = show(game, live=True)
    status(page)
    assert not any(name in seen(page) for name in ("hash router", "random router", "trained router\n", " of 2 "))
    assert tables(page)[0] == [[place, *"????"] for place in PLACES] and "Commit a guess" in status(page)
    press(page, "B")
    assert status(page) == game.summary and game.guesses == ["B"] and "You said B" in game.summary
    assert tables(page) == [table_rows(game), [[cell.strip() for cell in row] for row in history_rows(game)]]
    assert page.locator(".moe-game-name").all_inner_texts() == [NAMES[kind] for kind in game.shown["kinds"]]
    assert page.locator(".moe-game-answer").inner_text() == "trained router"
    assert page.locator(".moe-game-score").inner_text() == f"{game.score} of 1 right; a coin of three sides would get 0.3."


def test_a_guess_is_not_taken_back_and_the_keyboard_stays_where_it_was(show):
    game = game_of()
    page = show(game, live=True)
    page.get_by_role("button", name="Next round").press("Enter")  # not before the guess
    press(page, "A")
    said = status(page)
    page.keyboard.press("Enter")
    press(page, "C")
    assert status(page) == said and game.guesses == ["A"] and game.round == 0
    assert page.evaluate("document.activeElement.textContent") == "C is the trained one"
    pressed = [page.get_by_role("button", name=f"{place} is").get_attribute("aria-pressed") for place in PLACES]
    assert pressed == ["true", "false", "false"]
    assert page.locator(".moe-game-head button[aria-disabled=true]").count() == 3


def test_a_whole_game_ends_with_the_closing_line_and_reset_starts_the_same_again(show):
    game = game_of()
    page = show(game, live=True)
    first = picture(page)
    for i, place in enumerate("BCA"):
        assert game.round == i and page.locator(".moe-strip .moe-token").all_inner_texts() == list(TEXT)
        page.get_by_role("button", name=f"{place} is the trained one").click()
        status(page)
        page.get_by_role("button", name="Next round").press("Enter")  # after the last round it leads nowhere
        status(page)
    assert game.guesses == [*"BCA"] and game.round == 2 and status(page) == game.summary
    assert game.summary.endswith(game.closings[game.score]) and "a map alone is no evidence" in game.summary
    assert tables(page)[1] == history_rows(game)
    page.get_by_role("button", name="Reset").click()
    assert status(page) == game.summary == game_of().summary and picture(page) == first and game.guesses == []


def test_a_game_shown_again_goes_on_where_it_was(show):
    game = made(game_of(), guesses=["A", "B"], round=1)
    page = show(game, live=True)
    assert status(page) == game.summary and tables(page)[1][0] == ["you said", "A", "B", ""]
    page.get_by_role("button", name="Next round").press("Enter")
    press(page, "C")
    assert status(page) == game.summary and game.guesses == ["A", "B", "C"]


def test_pointing_outlines_a_row_in_all_maps_marks_its_equals_and_says_the_experts(show):
    game = game_of()
    page = show(game, live=True)
    lines = dots(page, ACCENT)  # of the mean load
    page.get_by_role("application").press("ArrowDown")
    assert f"Token 1 'h' (one of {TEXT.count('h')} in this text) goes to experts A " in status(page)
    page.keyboard.press("Enter")
    page.mouse.move(5, 5)
    assert game.locked_token == 1 and status(page) == game.summary and "Numbers belong to each router" in game.summary
    marks = (dots(page, ACCENT) - lines) / TEXT.count("h") / 3  # one beside each map for each 'h'
    assert 6 * 6 <= marks <= 6 * 8 and lines == pytest.approx(3 * 2 * _width(page), rel=0.01)
    assert page.locator(".moe-alike").count() == TEXT.count("h") - 1
    press(page, "A")  # makes room for the evidence
    assert game.locked_token is None and "You said A" in status(page)


def _width(page) -> int:
    """Pixels of one map."""
    return int((page.locator("canvas").bounding_box()["width"] - 80 - 4 - 36) / 3)


def test_the_mouse_points_in_the_maps_and_in_the_text(show):
    page = show(game_of())
    box = page.locator("canvas").bounding_box()
    for i in range(3):
        page.mouse.move(box["x"] + 100 + i * box["width"] / 3.2, box["y"] + 300 * 4.5 / len(TEXT))
        assert "Token 4 'm'" in status(page)
    page.mouse.move(box["x"] + 200, box["y"] + 330)  # over the load bars
    assert "Token" not in status(page)
    page.locator(".moe-strip .moe-token").nth(6).hover()
    assert "Token 6 'o'" in status(page)


@pytest.mark.parametrize("k", [1, 4])
def test_every_choice_is_as_bright_and_there_are_as_many_in_each_map(show, k):
    game = game_of(1, tokens="aab" * 5, experts=16, k=k)
    page = show(game)
    size = (_width(page) / 16 - 1) * (300 / 15 - 1)
    assert dots(page, CHOSEN) == pytest.approx(3 * 15 * k * size, rel=0.02)


@pytest.mark.parametrize("width", [700, 1000, 1280])
def test_nothing_moves_with_a_guess_or_while_pointing(show, width):
    page = show(game_of(4, tokens=48, experts=64, k=8), viewport={"width": width, "height": 900})
    parts = [*page.locator(".moe-game-head button").all(), page.locator("canvas"), page.get_by_role("button", name="Next round"),
             *(page.locator("table").all() if width == 1280 else ())]
    before = [part.bounding_box() for part in parts]
    for state in ({"locked_token": 47}, {"guesses": ["A"], "locked_token": None}, {"guesses": list("ABCA"), "round": 3},
                  {"locked_token": 2}):
        page.evaluate("(state) => model.receive(state)", state)
        status(page)
        assert [part.bounding_box() for part in parts] == before, state
