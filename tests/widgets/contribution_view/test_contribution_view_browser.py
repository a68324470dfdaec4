"""The contribution view in chromium, on a page of its own and without any network: keys, words, looks."""

import pytest
from contribution_view.cases import MIXED, lengths, made, toy, view_of
from widget_harness import dots, picture, status, written

from moe_lesson.widgets.contribution_view.data import BY_SHARE, table_rows, table_title

FAR = {"layer": 1, "order": BY_SHARE, "locked_token": 7}
ROUTED, SHARED, UNTRAINED = (91, 130, 184), (0, 158, 115), (217, 102, 10)


def stage(page):
    return page.get_by_role("application")


def column_at(page, column: int, tokens: int, y: float = 60) -> tuple[float, float]:
    """The middle of a column of the picture, for the mouse."""
    box = page.locator(".moe-stage canvas").bounding_box()
    return box["x"] + 78 + (column + 0.5) * (box["width"] - 86) / tokens, box["y"] + y


def numbers(page) -> list[list[str]]:
    """The table without its head."""
    status(page)
    return [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]


# --- words and keys --------------------------------------------------------------------------------------------------


def test_it_shows_the_text_its_numbers_and_what_the_orange_line_is(show):
    view = view_of(seed=3)
    page = show(view)
    assert "Median share of the shared part" in status(page)
    assert page.locator(".moe-badge").all_inner_texts() == ["synthetic: dice", "orange line: untrained, seed 3"]
    assert page.locator(".moe-strip .moe-token").all_inner_texts() == view.tokens
    assert numbers(page) == table_rows(view) and page.get_by_text(table_title(view)).is_visible()
    assert page.get_by_text("shared part: 2 experts, one FFN").is_visible()


def test_the_layer_slider_answers_to_keys_and_python_follows(show):
    view = view_of()
    page = show(view, live=True)
    before = picture(page)
    slider = page.get_by_label("Layer", exact=True)
    slider.press("ArrowRight")
    assert status(page) == view.summary and view.layer == 1 and "Layer 2 of 2" in view.summary
    assert numbers(page) == table_rows(view) and page.get_by_text(table_title(view)).is_visible() and picture(page) != before
    assert slider.get_attribute("aria-valuetext") == "Layer 2 of 2"
    slider.press("Home")
    assert status(page) == view.summary and view.layer == 0 and picture(page) != ""


def test_another_order_moves_the_columns_and_says_nothing_new(show):
    view = view_of()
    page = show(view, live=True)
    words, before = status(page), picture(page)
    page.get_by_label("as in the text").press("ArrowRight")
    assert status(page) == words and view.order == BY_SHARE and picture(page) != before
    assert page.locator(".moe-strip .moe-token").all_inner_texts() == view.tokens  # the text stays as written
    first = view.columns[0]
    page.mouse.move(*column_at(page, 0, len(MIXED)))
    assert f"Token {first} '{view.tokens[first]}': " in status(page) and first != 0


def test_arrow_keys_walk_the_columns_enter_keeps_a_token_and_escape_lets_go(show):
    view = made(view_of(), order=BY_SHARE)
    page = show(view, live=True)
    stage(page).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    third = view.columns[2]
    assert f"Token {third} '" in status(page) and view.locked_token is None
    page.keyboard.press("Enter")
    page.get_by_label("Layer", exact=True).press("End")
    assert view.locked_token == third and status(page) == view.summary and f"Token {third} '" in view.summary
    stage(page).press("Escape")
    assert "Token" not in status(page) and view.locked_token is None


def test_enter_keeps_the_first_column_if_no_key_came_before_and_lets_it_go_again(show):
    view = made(view_of(), order=BY_SHARE)
    page = show(view, live=True)
    for kept in (view.columns[0], None):
        stage(page).press("Enter")
        status(page)
        assert view.locked_token == kept


def test_the_mouse_points_and_clicks_in_the_picture_and_in_the_text(show):
    view = view_of()
    page = show(view, live=True)
    page.mouse.move(*column_at(page, 3, len(MIXED), 300))  # over the cosine
    assert "Token 3 'a'" in status(page) and view.locked_token is None
    page.mouse.click(*column_at(page, 3, len(MIXED)))
    page.mouse.move(5, 5)
    assert status(page) == view.summary and view.locked_token == 3
    letter = page.locator(".moe-strip .moe-token").nth(16)
    letter.hover()
    assert "Token 16 '中 1/3'" in status(page) and "moe-looked" in letter.get_attribute("class")
    letter.click()
    page.mouse.move(5, 5)
    assert view.locked_token == 16 and status(page) == view.summary
    letter.click()
    page.mouse.move(5, 5)
    assert "Token" not in status(page) and view.locked_token is None


def test_beside_the_columns_there_is_no_token(show):
    page = show(view_of())
    box = page.locator(".moe-stage canvas").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 60)
    assert "Token" not in status(page)


def test_one_layer_has_no_slider_for_it(show):
    assert not show(view_of(layers=1)).get_by_label("Layer", exact=True).is_visible()


# --- looks -----------------------------------------------------------------------------------------------------------


def test_a_louder_part_has_more_colour_and_the_untrained_model_its_steps(show):
    loud, quiet = lengths([0.0] * 8, [4.0] * 8), lengths([4.0] * 8, [0.0] * 8)
    routed, shared, both = (show(toy(one, lengths([1.0] * 8, [1.0] * 8)))
                            for one in (loud, quiet, lengths([4.0] * 8, [4.0] * 8)))
    assert dots(routed, ROUTED) > 50_000 and dots(routed, SHARED) == 0
    assert dots(shared, SHARED) > 50_000 and dots(shared, ROUTED) == 0
    equal = [dots(both, colour) for colour in (ROUTED, SHARED)]
    assert min(equal) > 0.9 * max(equal) > 50_000  # one scale, up and down
    assert all(dots(page, UNTRAINED) > 4 * 2 * 1000 * 0.95 for page in (routed, shared, both))  # four lines of two pixels


STEPS = """() => {
  const draw = CanvasRenderingContext2D.prototype.fillRect, tops = new Set();
  CanvasRenderingContext2D.prototype.fillRect = function (...box) {
    if (this.fillStyle === "#d9660a") tops.add(box[1] + box[3] / 2);
    draw.apply(this, box);
  };
  model.receive({ locked_token: 0 });
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
    CanvasRenderingContext2D.prototype.fillRect = draw;
    done([...tops]);
  })));
}"""


def test_each_panel_shows_the_untrained_model_at_its_own_numbers(show):
    page = show(toy(lengths([4.0] * 8, [4.0] * 8), lengths([1.0] * 8, [0.25] * 8, [0.5] * 8)))
    status(page)
    root = 146 / (2 + 2)  # pixels per √ of a length; the halves meet at 98 and 120
    assert page.evaluate(STEPS) == [round(98 - 0.5 * root), round(120 + root + 0.1), 273 - 0.8 * 50, 325 - 0.5 * 22]


def test_the_limits_stay_when_the_layer_changes(show):
    page = show(view_of())
    labels = [[text for text, _ in written(page, state) if text[0].isdigit()] for state in ({"layer": 1}, {"layer": 0})]
    assert labels[0] == labels[1] != []


@pytest.mark.parametrize("width", [500, 900, 1280])
def test_no_title_is_cut(show, width):
    texts = written(show(view_of(), viewport={"width": width, "height": 720}), FAR)
    assert len(texts) > 25
    assert not any(text.endswith("…") for text, _ in texts if len(text) > 12)


@pytest.mark.parametrize("width", [600, 860, 1280])
def test_nothing_moves_under_the_hand(show, width):
    page = show(view_of(MIXED * 5, 62, 6), viewport={"width": width, "height": 720})
    parts = [page.get_by_label("Layer", exact=True), page.get_by_label("by the routed"), page.locator(".moe-stage"),
             page.locator("table"), page.locator(".moe-strip")]
    before = [part.bounding_box() for part in parts]
    for state in ({"layer": 1}, {"order": BY_SHARE}, {"locked_token": 3}, {**FAR, "locked_token": 16}):
        page.evaluate("(state) => model.receive(state)", state)
        status(page)
        assert [part.bounding_box() for part in parts] == before, state
