"""The router microscope in chromium, on a page of its own and without any network: keys, words, looks."""

import pytest
from router_microscope.cases import scope_of
from routing_map.cases import map_of
from routings import HOSTILE
from widget_harness import browser_state, picture, status


def stage(page):
    return page.get_by_role("application")


# --- words and keys --------------------------------------------------------------------------------------------------


def test_it_starts_as_recorded_and_shows_the_token_in_its_text(show):
    page = show(scope_of(token=4))
    assert ": as recorded." in status(page)
    assert page.locator(".moe-badge").inner_text() == "synthetic"
    assert page.get_by_text("draw 1 of 100, seed 0").is_visible() and page.get_by_label("which draw").is_disabled()
    assert page.locator(".moe-context").inner_text() == "abcdefghijklmnopqrstu"
    assert page.locator(".moe-context .moe-looked").inner_text() == "e"


@pytest.mark.parametrize("label,key,trait,value,words", [
    ("Token", "ArrowRight", "token", 5, "Token 5 'f'"), ("Token", "End", "token", 20, "Token 20 'u'"),
    ("Token", "Home", "token", 0, "Token 0 'a'"), ("K, experts per token", "ArrowRight", "k", 4, "K = 4 of 12"),
    ("K, experts per token", "End", "k", 12, "K = 12 of 12"), ("K, experts per token", "Home", "k", 1, "K = 1 of 12"),
    ("temperature τ", "ArrowRight", "temperature", 10**0.05, "τ = 1.12"), ("temperature τ", "End", "temperature", 10, "τ = 10"),
    ("temperature τ", "Home", "temperature", 0.1, "τ = 0.10"), ("noise σ, in logits", "ArrowRight", "noise", 0.06, "σ = 0.06"),
    ("noise σ, in logits", "End", "noise", 3, "σ = 3.00")])
def test_sliders_answer_to_keys_and_python_follows(show, label, key, trait, value, words):
    scope = scope_of(token=4)
    page = show(scope, live=True)
    page.get_by_label(label, exact=True).press(key)
    assert words in status(page)
    assert getattr(scope, trait) == pytest.approx(value)
    assert status(page) == scope.summary


def test_the_draw_can_be_chosen_once_there_is_noise(show):
    scope = scope_of(token=4)
    page = show(scope, live=True)
    page.get_by_label("noise σ, in logits").press("End")
    status(page)
    assert page.get_by_label("which draw").is_enabled()
    before = picture(page)
    page.get_by_label("which draw").press("ArrowRight")
    assert "(draw 2)" in status(page) and "draws choose others" in status(page) and picture(page) != before
    assert status(page) == scope.summary


def test_the_order_of_steps_changes_the_sum_and_two_orders_give_one_picture_of_weights(show):
    scope = scope_of(token=4)
    page = show(scope, live=True)
    weights = {}
    for order in ("softmax, top-k", "softmax, top-k, renormalise", "top-k, softmax"):
        page.get_by_label(order, exact=True).check()
        assert f"The weights ({order}) sum to " in status(page) and status(page) == scope.summary
        weights[order] = status(page).split("Chosen")[1].split(". ")[0]
    assert weights["softmax, top-k, renormalise"] == weights["top-k, softmax"] != weights["softmax, top-k"]


def test_radio_buttons_and_the_checkbox_answer_to_keys(show):
    page = show(scope_of())
    before = picture(page)
    page.get_by_label("softmax, top-k, renormalise").press("ArrowRight")
    assert "(top-k, softmax)" in status(page)
    page.get_by_label("sort by logit").press("Space")
    assert picture(page) != before and page.get_by_text("sorted by their logit without noise").is_visible()


def test_arrow_keys_read_an_expert_and_enter_keeps_it(show):
    scope = scope_of()
    page = show(scope)
    stage(page).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    scope.locked_expert = 2
    assert status(page) == scope.summary and "Expert 2: logit " in scope.summary
    page.keyboard.press("Enter")
    page.get_by_label("Token", exact=True).focus()
    assert status(page) == scope.summary and page.evaluate("model.get('locked_expert')") == 2
    stage(page).press("Escape")
    assert "Expert 2:" not in status(page) and page.evaluate("model.get('locked_expert')") is None


def test_the_cursor_walks_the_columns_as_they_are_sorted(show):
    scope = scope_of()
    best, second = scope.quiet_logits.argsort()[::-1][:2]
    page = show(scope)
    page.get_by_label("sort by logit").check()
    stage(page).focus()
    page.keyboard.press("Home")
    assert f"Expert {best}: " in status(page)
    page.keyboard.press("ArrowRight")
    assert f"Expert {second}: " in status(page)


def test_the_mouse_points_and_clicks(show):
    page = show(scope_of())
    box = page.locator(".moe-steps").bounding_box()
    x = box["x"] + 46 + 5.5 * (box["width"] - 46 - 34) / 12
    page.mouse.move(x, box["y"] + 200)
    assert "Expert 5: " in status(page)
    page.mouse.move(5, 5)
    assert "Expert 5: " not in status(page)
    page.mouse.click(x, box["y"] + 200)
    page.mouse.move(5, 5)
    assert "Expert 5: " in status(page)
    page.mouse.click(x, box["y"] + 200)
    page.mouse.move(5, 5)
    assert "Expert 5: " not in status(page)


def test_a_hostile_token_is_shown_in_its_text(show):
    scope = scope_of(HOSTILE)
    page = show(scope)
    for token in range(len(HOSTILE)):
        page.evaluate("(token) => model.receive({ token })", token)
        status(page)
        assert page.locator(".moe-looked").text_content() == scope.tokens[token]


def test_two_widgets_on_a_page_keep_their_own_radio_buttons(show):
    for widget in (scope_of(), map_of()):
        page = show(widget)
        page.evaluate("([esm, css, state]) => show(esm, css, state)", [widget._esm, widget._css, browser_state(widget)])
        first, second = (page.locator(".moe-root").nth(i).get_by_role("radio") for i in (0, 1))
        first.last.check()
        assert first.last.is_checked() and not second.last.is_checked() and second.locator(":scope:checked").count() == 1
