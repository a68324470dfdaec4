"""The routing map in chromium, on a page of its own and without any network: keys, words, looks."""

from routing_map.cases import bytes_map, map_of
from widget_harness import status


def heat_map(page):
    return page.get_by_role("application")


# --- words and keys --------------------------------------------------------------------------------------------------


def test_it_says_where_the_data_comes_from_and_what_was_recorded(show):
    page = show(map_of(num_shared=2))
    assert "Busiest" in status(page)
    assert page.locator(".moe-badge").inner_text() == "synthetic"
    assert page.get_by_label("Layer").is_visible() and page.get_by_text("K = 3 (as recorded)").is_visible()


def test_sliders_answer_to_keys_and_tell_python_the_settled_value(show):
    page = show(map_of())
    page.get_by_label("K, experts per token").focus()
    page.keyboard.press("ArrowRight")
    assert "K = 4 of 12 experts" in status(page)
    assert page.get_by_text("K = 4: what-if on the recorded logits; the model ran with 3").is_visible()
    page.keyboard.press("End")
    assert "K = 12 of 12 experts" in status(page)
    page.get_by_label("Layer").focus()
    page.keyboard.press("ArrowRight")
    assert status(page).startswith("Layer 2 of 2, K = 12")
    saved = {name: value for message in page.evaluate("model.saved") for name, value in message.items()}
    assert (saved["layer"], saved["k"], saved["locked_expert"]) == (1, 12, None)


def test_the_random_router_is_never_shown_as_the_models(show):
    page = show(map_of(origin="trained"))
    assert page.locator(".moe-badge").inner_text() == "trained" and "trained router" in status(page)
    page.get_by_label("random (null)").check()
    assert "random router (null)." in status(page) and "trained router" not in status(page)
    assert page.locator(".moe-badge").inner_text() == "random router (null)"


def test_arrow_keys_read_the_map_and_enter_keeps_a_cell(show):
    widget = map_of()
    page = show(widget)
    heat_map(page).focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    widget.locked_token, widget.locked_expert = 2, 1
    assert status(page) == widget.summary and "Token 2 'c'" in widget.summary
    page.keyboard.press("Enter")
    page.get_by_label("K, experts per token").focus()
    assert status(page) == widget.summary  # locked: it stays when the focus goes
    heat_map(page).focus()
    page.keyboard.press("Escape")
    assert "Busiest" in status(page)
    assert page.evaluate("[model.get('locked_token'), model.get('locked_expert')]") == [None, None]


def test_the_cursor_stays_in_sight_in_a_long_text(show):
    page = show(map_of(240))
    heat_map(page).focus()
    for _ in range(12):
        page.keyboard.press("PageDown")
    assert "Token 120" in status(page)
    top, height = page.locator(".moe-scroller").evaluate("(node) => [node.scrollTop, node.clientHeight]")
    assert top <= 120 * 18 and 121 * 18 <= top + height
    bars, rows = (page.locator(part).bounding_box() for part in (".moe-load", ".moe-scroller"))
    assert bars["y"] >= rows["y"] + rows["height"]  # the bars do not scroll away


def test_the_strip_is_one_tab_stop_and_arrow_keys_walk_it(show):
    page = show(map_of())
    options = page.get_by_role("option")
    assert options.count() == 21 and page.locator(".moe-token[tabindex='0']").count() == 1
    options.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert "Token 1 'b'" in status(page)
    page.keyboard.press("Enter")
    status(page)
    assert options.nth(1).get_attribute("aria-selected") == "true" and page.evaluate("model.get('locked_token')") == 1
    page.keyboard.press("Enter")
    assert page.evaluate("model.get('locked_token')") is None


def test_an_expert_lights_up_the_tokens_that_chose_it(show):
    widget = map_of()
    expert = int(widget.shown.load.argmax())
    chosen = [t for t, ids in enumerate(widget.shown.expert_ids.tolist()) if expert in ids]
    page = show(widget)
    page.evaluate("(n) => model.receive({ locked_expert: n })", expert)
    assert f"Expert {expert} is chosen by {len(chosen)} of 21 tokens" in status(page)
    lit = page.evaluate("[...document.querySelectorAll('.moe-chosen')].map((node) => Number(node.dataset.token))")
    assert lit == chosen


def test_a_token_underlines_those_that_travel_with_it(show):
    page = show(map_of())
    page.evaluate("model.receive({ locked_token: 4 })")
    status(page)
    shown = map_of().shown.expert_ids.tolist()
    travelling = [t for t, ids in enumerate(shown) if t != 4 and 2 * len(set(ids) & set(shown[4])) >= 3]
    alike = page.locator(".moe-alike").evaluate_all("(nodes) => nodes.map((node) => Number(node.dataset.token))")
    assert alike == travelling


def test_the_mouse_points_and_clicks(show):
    page = show(map_of())
    box = page.locator(".moe-heat").bounding_box()
    cell = (box["width"] - 100) / 12
    x, y = box["x"] + 92 + 5.5 * cell, box["y"] + 3 * 18 + 9
    page.mouse.move(x, y)
    assert "Token 3 'd'" in status(page) and "expert 5" in status(page)
    page.mouse.click(x, y)
    page.mouse.move(5, 5)
    assert "Token 3 'd'" in status(page)
    page.mouse.click(x, y)
    page.mouse.move(5, 5)
    assert "Busiest" in status(page)
    bars = page.locator(".moe-load").bounding_box()
    page.mouse.click(x, bars["y"] + 30)
    page.mouse.move(5, 5)
    assert "Expert 5 is chosen by" in status(page) and "Token" not in status(page).split("Expert 5")[0]


# --- text ------------------------------------------------------------------------------------------------------------


def test_typing_asks_python_once_the_hand_rests(show):
    widget = bytes_map()
    page = show(widget, live=True)
    page.get_by_label("Your text").fill("")
    page.get_by_label("Your text").press_sequentially("moon", delay=20)
    page.wait_for_function("document.querySelectorAll('.moe-token').length === 4")
    assert widget.text == "moon" and status(page) == widget.summary
    assert [message["text"] for message in page.evaluate("model.saved") if "text" in message][-1] == "moon"
    assert page.evaluate("model.saved.length") <= 2  # the emptied field and the word, not every letter


def test_enter_sends_the_text_at_once_and_an_empty_one_is_fine(show):
    widget = bytes_map()
    page = show(widget, live=True)
    page.get_by_label("Your text").fill("")
    page.get_by_label("Your text").press("Enter")
    page.wait_for_function("document.querySelector('.moe-status').textContent.includes('The text is empty')")
    assert status(page) == widget.summary


def test_a_refusal_is_read_out_and_the_picture_stays(show):
    page = show(bytes_map(), live=True)
    before = status(page)
    page.get_by_label("Your text").fill("x" * 241)
    page.get_by_role("alert").filter(has_text="241 bytes").wait_for()
    assert status(page) == before and page.get_by_role("option").count() == len("hello world")
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.querySelector('.moe-problem').textContent === ''")


def test_without_on_text_there_is_no_text_field(show):
    assert show(map_of()).locator("input[type=text]").count() == 0
