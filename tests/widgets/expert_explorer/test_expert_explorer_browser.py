"""The expert explorer in chromium: what is particular to it. What all widgets share stands in test_every_widget_browser.py."""

import pytest
from expert_explorer.cases import TEXT, explorer_of, made
from widget_harness import status

from moe_lesson.widgets.expert_explorer.data import COLUMNS, byte_rows, domain_rows, followers, load_words, null_words, servers


def strip(page):
    return page.get_by_role("listbox")


def marked(page, kind: str) -> list[int]:
    """The tokens with a mark."""
    status(page)
    return page.locator(f".moe-strip .{kind}").evaluate_all("(nodes) => nodes.map((node) => Number(node.dataset.token))")


def selected(page) -> list[int]:
    status(page)
    return page.locator(".moe-token").evaluate_all(
        "(nodes) => nodes.flatMap((node, t) => node.getAttribute('aria-selected') === 'true' ? [t] : [])")


def settled(page, view, **traits) -> bool:
    """Does Python come to these traits, and the page to say what Python says? Typing waits a moment."""
    return any(status(page) == view.summary and all(getattr(view, name) == value for name, value in traits.items())
               for _ in range(100))


def test_a_token_is_followed_by_mouse_and_keys(show):
    view = explorer_of()
    page = show(view, live=True)
    assert selected(page) == [len(TEXT) // 2]
    page.locator(".moe-token").nth(5).click()
    assert settled(page, view, token=5) and selected(page) == [5]
    for key, token in (("ArrowRight", 6), ("End", 16), ("ArrowRight", 16), ("Home", 0), ("PageDown", 10), ("ArrowLeft", 9)):
        strip(page).press(key)
        assert selected(page) == [token] and settled(page, view, token=token)
        assert page.evaluate("document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).dataset.token"
                             ) == str(token)
    assert page.locator(".moe-token").all_inner_texts() == view.tokens


def test_an_expert_is_followed_to_its_tokens_and_to_the_census(show):
    view = explorer_of()
    page = show(view, live=True)
    panels = page.locator(".moe-explorer-layer")
    for layer, place in ((1, 2), (0, 1), (1, 0)):
        panels.nth(layer).locator(".moe-explorer-experts").first.locator("button").nth(place).click()
        assert settled(page, view, expert=[layer, int(view.chosen[layer, view.token, place])])
        assert marked(page, "moe-alike") == followers(view) != []
        assert page.get_by_text(null_words(view), exact=True).is_visible()
        assert page.get_by_text(load_words(view)).first.is_visible()
        rows = [row.split("\t") for row in page.locator("table").first.locator("tbody tr").all_inner_texts()]
        assert [[row[0], *row[2:]] for row in rows if len(row) == len(COLUMNS) and row[2]] == byte_rows(view)
        domains = page.locator("table").nth(1).locator("tbody tr").all_inner_texts()
        assert [row.split("\t") for row in domains] == domain_rows(view)
        shown = page.locator(".moe-explorer-contexts > div + div").evaluate_all(
            "(nodes) => nodes.map((node) => [...node.children].map((part) => part.textContent))")
        assert shown == view.contexts[layer][view.expert[1]]


def test_the_same_number_in_another_layer_is_another_expert(show):
    view = explorer_of()
    token, n = next((t, n) for t in range(17) for n in view.chosen[0, t].tolist() if n in view.chosen[1, t])
    page = show(made(view, token=token, expert=[1, n]))
    status(page)
    pressed = {words.split()[0] for words in page.locator("[aria-pressed=true]").all_inner_texts()}
    assert pressed == {f"2·{n}"} and page.get_by_text(f"1·{n} (", exact=False).first.is_visible()


def test_every_expert_is_named_with_its_layer_and_none_by_a_colour(show):
    page = show(explorer_of())
    for layer in (0, 1):
        buttons = page.locator(".moe-explorer-layer").nth(layer).locator("button:not([disabled])")
        assert buttons.count() > 4 and all(words.startswith(f"{layer + 1}·") for words in buttons.all_inner_texts())
        assert all(f"of layer {layer + 1}, " in name for name in buttons.evaluate_all("(nodes) => nodes.map((n) => n.ariaLabel)"))
    looks = page.locator(".moe-explorer-layers button").evaluate_all("""(nodes) => nodes.map((node) => {
      const style = getComputedStyle(node); return [style.color, style.backgroundColor, style.borderColor].join(); })""")
    assert len(set(looks)) == 1


def test_a_search_marks_the_text_and_asks_who_serves_its_last_byte(show):
    view = explorer_of("the sea, the she")
    page = show(view, live=True)
    field = page.get_by_label("Who serves … ?")
    field.type("the")
    assert settled(page, view, search="the") and marked(page, "moe-explorer-found") == [0, 1, 2, 9, 10, 11]
    assert page.get_by_text("found 2 ×").is_visible()
    for layer in (0, 1):
        line = page.locator(".moe-explorer-layer").nth(layer).locator(".moe-explorer-serve")
        assert line.locator("button:not([disabled])").all_inner_texts() == [
            f"{layer + 1}·{n} × {liked:.1f}" for n, liked in servers(view, layer)]
    line.locator("button").first.click()
    assert settled(page, view, expert=[1, servers(view, 1)[0][0]], search="the")
    field.press("Escape")
    assert settled(page, view, search="") and field.input_value() == "" and marked(page, "moe-explorer-found") == []


def test_own_text_is_routed_and_one_too_long_leaves_the_last(show):
    view = explorer_of(max_bytes=20)
    page = show(view, live=True)
    field = page.get_by_label("Your text")
    field.fill("see <b>é</b>")
    page.get_by_text("13 of 20 bytes").wait_for()
    assert settled(page, view, text="see <b>é</b>") and page.locator(".moe-token").all_inner_texts() == view.tokens
    said = status(page)
    field.fill("x" * 21)
    page.get_by_role("alert").get_by_text("The text is 21 bytes long; the model reads at most 20. Shorten it.").wait_for()
    assert status(page) == said and field.input_value() == "x" * 21
    field.fill("")
    field.press("Enter")
    assert settled(page, view, text="") and status(page).startswith("The text is empty") and strip(page).count() == 0
    page.get_by_role("button", name="Reset").click()
    assert settled(page, view, text=TEXT, problem="") and field.input_value() == TEXT and selected(page) == [8]


def test_typing_sends_the_settled_text_only(show):
    page = show(explorer_of())
    page.get_by_label("Your text").press("End")
    page.keyboard.type("abc", delay=20)
    page.wait_for_function("model.saved.length > 0")
    assert page.evaluate("model.saved") == [{"text": TEXT + "abc"}]


def test_without_on_text_there_is_no_text_field(show):
    assert not show(explorer_of(on_text=None)).get_by_label("Your text").is_visible()


@pytest.mark.parametrize("expert", [[0, 0], [1, 4]])
def test_bars_and_marks_stand_where_the_numbers_say(show, expert):
    view = made(explorer_of(), expert=expert)
    page = show(view)
    status(page)
    own, null = view._trained[expert[0]], view._null[expert[0]]
    places = page.locator("tbody tr").evaluate_all("""(rows) => rows.flatMap((row) => {
      const [cell, bar, mark] = ["lift", "bar", "mark"].map((part) => row.querySelector(`.moe-explorer-${part}`));
      if (!cell || mark.hidden) return [];
      const [all, end, at] = [cell, bar, mark].map((node) => node.getBoundingClientRect());
      return [[(end.right - all.left) / all.width, ((at.left + at.right) / 2 - all.left) / all.width]];
    })""")
    order = sorted(range(len(view.counted)), key=lambda b: -own.lifts[expert[1], b])[:len(places)]
    assert len(places) == len(byte_rows(view)) > 0
    for (bar, mark), b in zip(places, order):
        assert abs(bar - (own.lifts[expert[1], b] / view.axis) ** 0.5) < 0.01
        assert abs(mark - (null.lifts[:, b].max() / view.axis) ** 0.5) < 0.01
