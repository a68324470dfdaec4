"""The capacity view in chromium, on a page of its own and without any network: keys, words, looks."""

import pytest
from capacity_view.cases import crowd, made, view_of
from widget_harness import dots, status


def stage(page):
    return page.get_by_role("application")


def marked(page, how: str) -> list[int]:
    """The tokens of the text with a mark."""
    status(page)
    return page.locator(f".moe-strip .{how}").evaluate_all("(nodes) => nodes.map((node) => Number(node.dataset.token))")


# --- words and keys --------------------------------------------------------------------------------------------------


def test_it_shows_the_text_and_how_many_choices_are_dropped(show):
    view = view_of()
    page = show(view)
    assert "Choices dropped: " in status(page)
    assert page.locator(".moe-badge").inner_text() == "synthetic"
    assert page.locator(".moe-strip").inner_text() == "abcdefghijklmnopqrstu"
    assert page.get_by_text("capacity 1.00 × K·T/N: room for 6").is_visible()
    assert page.get_by_label("which shuffle").is_disabled()
    assert page.get_by_text("shuffle 1 of 20, seed 0").is_visible()
    name, words = page.locator(".moe-facts tr").first.inner_text().split("\t")
    assert (name, words) == ("choices dropped", f"{view.shown.dropped} of 63 ({100 * view.shown.dropped / 63:.1f}%)")


@pytest.mark.parametrize("label,key,trait,value,words", [
    ("Layer", "ArrowRight", "layer", 1, "Layer 2 of 2"),
    ("capacity factor", "ArrowRight", "factor", 1.25, "factor 1.25, room for 7"),
    ("capacity factor", "Home", "factor", 0.25, "factor 0.25, room for 2"),
    ("capacity factor", "End", "factor", None, "No limit"),
    ("which shuffle", "ArrowRight", "shuffle", 2, "(shuffle 2, seed 0)"),
    ("which shuffle", "End", "shuffle", 20, "(shuffle 20,")])
def test_sliders_answer_to_keys_and_python_follows(show, label, key, trait, value, words):
    view = made(view_of(), batch="shuffled")
    page = show(view, live=True)
    page.get_by_label(label, exact=True).press(key)
    assert words in status(page) and getattr(view, trait) == value and status(page) == view.summary


def test_another_order_drops_other_tokens_and_the_highest_weight_first_does_not_ask_for_it(show):
    view = crowd()
    page = show(view, live=True)
    assert marked(page, "moe-none") == [2, 3, 4, 5, 6, 7]
    page.get_by_label("as written").press("ArrowRight")
    assert marked(page, "moe-none") == [0, 1, 2, 3, 4, 5] and "batch reversed" in status(page)
    page.get_by_label("reversed").press("ArrowRight")
    status(page)
    assert page.get_by_label("which shuffle").is_enabled() and "shuffled (shuffle 1, seed 0)" in status(page)
    page.get_by_label("as they stand").press("ArrowRight")
    assert marked(page, "moe-none") == [0, 1, 2, 3, 4, 5] and status(page) == view.summary
    page.get_by_label("as written").check()
    assert marked(page, "moe-none") == [0, 1, 2, 3, 4, 5] and status(page) == view.summary


def test_letters_that_lost_some_experts_are_told_from_those_that_lost_all(show):
    view = made(view_of(60), factor=0.25)
    left = view.shown.left_T
    page = show(view)
    assert marked(page, "moe-none") == [t for t in range(60) if left[t] == 0] != []
    assert marked(page, "moe-some") == [t for t in range(60) if 0 < left[t] < 3] != []


def test_arrow_keys_walk_the_batch_and_enter_keeps_a_token(show):
    view = made(view_of(), batch="reversed")
    page = show(view)
    stage(page).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    view.locked_token = 18  # the third from the end
    assert status(page) == view.summary and "Token 18 's' at place 2 of the batch: " in view.summary
    page.keyboard.press("Enter")
    page.get_by_label("capacity factor").focus()
    assert status(page) == view.summary and page.evaluate("model.get('locked_token')") == 18
    page.get_by_label("as written").check()
    assert "Token 18 's' at place 18 of the batch: " in status(page)  # it is followed by its own index
    stage(page).press("Escape")
    assert "Token" not in status(page) and page.evaluate("model.get('locked_token')") is None


def test_enter_keeps_the_first_of_the_batch_if_no_key_came_before(show):
    page = show(made(view_of(), batch="reversed"))
    stage(page).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("model.get('locked_token')") == 20


def test_the_mouse_points_and_clicks_in_the_map_and_in_the_text(show):
    page = show(made(view_of(), batch="reversed"))
    box = page.locator(".moe-choices").bounding_box()
    x, y = box["x"] + 200, box["y"] + 5 + 3.5 * 376 / 21
    page.mouse.move(x, y)
    assert "Token 17 'r' at place 3" in status(page)
    page.mouse.click(x, y)
    page.mouse.move(5, 5)
    assert "Token 17 'r'" in status(page)
    letter = page.locator(".moe-strip .moe-token").nth(4)
    letter.hover()
    assert "Token 4 'e' at place 16" in status(page) and letter.evaluate("(node) => node.classList.contains('moe-looked')")
    letter.click()
    page.mouse.move(5, 5)
    assert "Token 4 'e'" in status(page)
    letter.click()
    page.mouse.move(5, 5)
    assert "Token" not in status(page)


def test_one_layer_has_no_slider_for_it(show):
    assert not show(view_of(layers=1)).get_by_label("Layer", exact=True).is_visible()


# --- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [60, 93, 150])
def test_every_dropped_choice_has_a_frame_that_can_be_seen_and_without_a_limit_there_is_none(show, tokens):
    view = view_of(tokens)
    page = show(view)
    frame, bar = (255, 140, 43), (217, 102, 10)
    status(page)
    width = (page.locator(".moe-choices").bounding_box()["width"] - 94) / 12
    assert dots(page, frame) > view.shown.dropped * 2 * (width - 4)  # above and below
    assert dots(page, bar) > 100
    page.evaluate("model.receive({ factor: null })")
    assert dots(page, frame) == dots(page, bar) == 0


@pytest.mark.parametrize("width", [600, 860, 1280])
def test_the_map_stays_where_it_is_when_a_token_is_looked_at(show, width):
    page = show(made(view_of(93, 16, 2), batch="shuffled"), viewport={"width": width, "height": 720})
    map_before = page.locator(".moe-choices").bounding_box()
    page.evaluate("model.receive({ locked_token: 9 })")
    status(page)
    assert page.locator(".moe-choices").bounding_box() == map_before
