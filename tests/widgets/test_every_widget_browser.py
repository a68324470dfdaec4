"""What the course asks of every widget, in chromium and without any network: keys, words, looks, leaks, time."""

import itertools
import json
import re
from collections.abc import Iterator

import benchmark_widgets
import pytest
from every_widget import WIDGETS, Example
from widget_harness import (
    AT_REST,
    LISTEN_TO_TEXT,
    NEXT_FRAME,
    as_text,
    assert_closed_views_leave_nothing,
    assert_it_fits,
    assert_it_follows_the_theme,
    complaints,
    dress,
    look,
    made,
    moving_parts,
    picture,
    receive,
    resize,
    smallest_text,
    status,
    write,
)

from moe_lesson.widgets.kit.base import KIT, LessonWidget

SMALLEST = 13.33  # pixels: 10 pt
every_widget = pytest.mark.parametrize("name", WIDGETS)
every_size = pytest.mark.parametrize("name,size", [(name, size) for name, entry in WIDGETS.items()
                                                   for size in ("as usual", *entry.sizes)])


def in_states(page, example: Example) -> Iterator[LessonWidget]:
    """The example as it is, then in each of its states, on the page as in Python."""
    for widget in example.widgets:
        receive(page, widget)
        status(page)
        yield widget


def words(page) -> str:
    """The text summary with its blanks as they are."""
    return page.evaluate(f"async () => {{ {NEXT_FRAME} return document.querySelector('.moe-status').textContent; }}")


def unfold(page) -> None:
    """Show what is folded."""
    page.locator("details").evaluate_all("(nodes) => nodes.forEach((node) => { node.open = true; })")


def agree(page, widget) -> bool:
    """Do Python and the page come to have the same traits? Python's answer takes a moment."""
    return any(traits(page) == json.loads(as_text(widget)) for _ in range(50))


def traits(page) -> dict:
    """The traits in the page, as `browser_state` writes them."""
    words(page)  # a frame later
    return page.evaluate("""() => Object.fromEntries(Object.entries(model.state).map(([name, value]) => {
      if (!(value instanceof DataView)) return [name, value];
      const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
      return [name, { base64: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")) }];
    }))""")


# --- words -----------------------------------------------------------------------------------------------------------


@every_widget
def test_it_says_at_once_and_in_every_state_what_it_shows(show, name):
    entry = WIDGETS[name]
    widget = entry.widgets[0]
    assert type(widget).__name__ == name
    page = show(widget)
    assert page.locator(".moe-badge").first.is_visible() and page.locator(".moe-badge").first.inner_text()
    assert page.locator(".moe-title").inner_text() == widget.title
    summaries = []
    for _ in in_states(page, entry):
        assert page.locator(".moe-status").evaluate_all("(nodes) => nodes.map((node) => node.ariaLive)") == ["polite"]
        summaries.append(words(page))
        assert summaries[-1] and not re.search("undefined|NaN|null(?!\\)| experts)|\\[object", summaries[-1]), summaries[-1]
    assert len(set(summaries)) > 1


@every_widget
def test_reset_goes_back_to_the_start_and_python_moves_the_picture(show, name):
    widget = WIDGETS[name].make()
    page = show(widget, live=True)
    first, start = look(page), traits(page)
    for state in WIDGETS[name].states:
        made(widget, **state)
        receive(page, widget)
        assert look(page) != first
        page.get_by_role("button", name="Reset").press("Enter")
        assert agree(page, widget) and traits(page) == start and look(page) == first


@every_widget
def test_hostile_words_are_shown_and_not_run(show, name):
    entry = WIDGETS[name]
    markup = "document.querySelectorAll('main :is(script, img, b, iframe, style)').length"
    ordinary = show(entry.widgets[0]).evaluate(markup)
    page = show(entry.hostile.widgets[0])
    for widget in in_states(page, entry.hostile):
        assert words(page) and page.evaluate(markup) == ordinary
        assert page.locator(".moe-title").inner_text() == widget.title
        assert not entry.tokens or page.locator(entry.tokens).all_inner_texts() == widget.tokens
    assert any("onerror" in str(value) for value in widget.get_state().values())  # else nothing was tried


# --- another text, which the model reads in the browser ------------------------------------------------------------------

every_reader = pytest.mark.parametrize("name", [name for name, entry in WIDGETS.items() if entry.types])


@every_reader
def test_a_page_that_opens_again_has_the_learners_text(show, name):
    page = show(made(WIDGETS[name].make(), text="moon"))
    page.wait_for_function("document.querySelector('.moe-strip').textContent === 'moon'")
    assert page.get_by_label("Your text").input_value() == "moon"


@every_reader
def test_a_long_text_is_cut_and_says_so_its_last_token_can_be_kept_and_an_empty_text_says_so_too(show, name):
    widget, long = WIDGETS[name].make(), "return the value of the namespace, and 中文 " * 40
    page = show(widget, live=True)
    write(page, "Your text", long)
    page.get_by_text(re.compile(r"\d tokens, cut to \d")).wait_for()
    last = page.get_by_role("option").last
    assert agree(page, widget) and long.startswith(widget.text) and page.get_by_label("Your text").input_value() == long
    assert widget.max_tokens - 2 <= page.get_by_role("option").count() <= widget.max_tokens
    last.click()
    assert agree(page, widget) and last.get_attribute("aria-selected") == "true"
    write(page, "Your text", "")
    page.wait_for_function("document.querySelector('.moe-status').textContent.includes('text is empty')")
    assert agree(page, widget) and widget.text == ""


# --- keys ------------------------------------------------------------------------------------------------------------

CONTROLS = ".moe-root :is(input, select, textarea, button, a[href], [tabindex])"
# Each control's kind and name; whether Tab stops there: of radio buttons and options of one group, at one.
DESCRIBE = """(selector) => [...document.querySelectorAll(selector)].map((node) => {
  const group = node.getAttribute("role") === "option" && node.parentNode.getAttribute("aria-label");
  const kind = group ? "option" : node.tagName === "INPUT" ? node.type : node.getAttribute("role") || node.tagName.toLowerCase();
  const legend = node.closest("fieldset")?.querySelector("legend")?.textContent;
  const name = group || (kind === "radio" && legend) || node.ariaLabel || node.closest("label")?.textContent || node.textContent;
  const same = kind === "radio" ? [...document.getElementsByName(node.name)] : [];
  const enabled = !node.disabled && node.tabIndex >= 0;
  const stop = enabled && (kind !== "radio" || node === (same.find((one) => one.checked) || same[0]));
  return { kind, name: `${kind} ${name}`, visible: node.checkVisibility({ visibilityProperty: true }), enabled, stop };
})"""


def controls(page) -> list[dict]:
    return [{**one, "place": place} for place, one in enumerate(page.evaluate(DESCRIBE, CONTROLS)) if one["visible"]]


def tab_stops(page) -> list[int]:
    """Which controls the Tab key reaches, one after the other; each shows an outline."""
    page.mouse.click(1, 1)  # from the start of the page
    reached = []
    for _ in range(100):
        page.keyboard.press("Tab")
        where, outline = page.evaluate("""(selector) => {
          const node = document.activeElement, style = getComputedStyle(node);
          return [node.closest(".moe-root") ? [...document.querySelectorAll(selector)].indexOf(node) : null,
            style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
        }""", CONTROLS)
        if where is None:
            break
        assert outline, f"no outline: {page.evaluate('document.activeElement.outerHTML.slice(0, 90)')}"
        reached += [where] if where >= 0 else []  # Tab also stops at a box that scrolls
    return reached


def changes(page, widget, control: dict) -> bool:
    """Does the keyboard change this control, and does what the page says follow? Python then says the same."""
    part, kind = page.locator(CONTROLS).nth(control["place"]), control["kind"]
    if kind in ("range", "select", "radio", "checkbox"):
        read = """(node) => JSON.stringify([node.value, node.checked])"""
        before, heard, said = part.evaluate(read), part.get_attribute("aria-valuetext"), look(page)
        keys = {"range": ("ArrowRight", "ArrowLeft"), "select": ("ArrowDown", "ArrowUp"), "radio": ("ArrowRight",),
                "checkbox": ("Space",)}[kind]
        for key in keys:
            part.press(key)
            if part.evaluate(read) != before:
                break
        if part.evaluate(read) == before:
            return False
        assert look(page) != said, control
        if kind == "range":
            assert part.get_attribute("aria-valuetext") not in (heard, None), control
        assert agree(page, widget), control
        return True
    before = look(page)
    if kind == "text":
        part.press("a")
        return look(page) != before and agree(page, widget)
    for key in ("Enter",) if kind == "button" else ("ArrowRight", "ArrowDown"):
        part.press(key)
    return any(look(page) != before for _ in range(20))


@every_widget
def test_the_keyboard_alone_reaches_and_changes_every_control(show, name):
    widget = WIDGETS[name].make()
    page = show(widget, live=True)
    unfold(page)
    seen, changed = set(), set()
    for state in ({}, *WIDGETS[name].states):
        def put(state=state):
            page.get_by_role("button", name="Reset").press("Enter")
            assert agree(page, widget)
            made(widget, **state)
            receive(page, widget)
            status(page)
        put()
        here = controls(page)
        stops = [control["place"] for control in here if control["stop"]]
        assert tab_stops(page) == stops != []
        seen |= {control["name"] for control in here}
        for control in here:
            if control["stop"] and control["name"] not in changed:
                if changes(page, widget, control):
                    changed.add(control["name"])
                put()
    assert changed == seen, f"no state of tests/widgets/every_widget.py lets the keyboard change: {seen - changed}"


@every_widget
def test_every_control_has_a_name(show, name):
    page = show(WIDGETS[name].widgets[0])
    chrome, sliders = page.context.new_cdp_session(page), set()
    for _ in in_states(page, WIDGETS[name]):
        nodes = [node for node in chrome.send("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]
                 and node["role"]["value"] != "RootWebArea" and any(one["name"] == "focusable" for one in node["properties"])]
        assert len(nodes) >= len([control for control in controls(page) if control["stop"]])
        assert [node["role"]["value"] for node in nodes if not node["name"]["value"].strip()] == []
        sliders |= {node["name"]["value"] for node in nodes if node["role"]["value"] == "slider"}
    assert len(sliders) <= page.locator("input[type=range]").count()  # a name stays when the value changes


SETTLE = """(slider) => {
  const known = () => Object.fromEntries(Object.entries(model.state).filter(([_, value]) => !(value instanceof DataView)));
  const before = structuredClone(known());
  const far = Number(slider.value) < Number(slider.max) ? slider.max : slider.min;
  model.saved = [];
  const send = (event) => slider.dispatchEvent(new Event(event, { bubbles: true }));
  slider.value = far;
  send("input");
  const early = model.saved.length, later = known();
  send("change");
  const changed = Object.keys(later).filter((one) => JSON.stringify(later[one]) !== JSON.stringify(before[one]));
  return { far, early, saved: model.saved, changed: Object.fromEntries(changed.map((one) => [one, later[one]])) };
}"""


@every_widget
def test_python_hears_of_settled_values_only(show, name):
    page = show(WIDGETS[name].make())
    unfold(page)
    moved, sliders = set(), range(page.locator("input[type=range]").count())
    for state in ({}, *WIDGETS[name].states):
        for part in set(sliders) - moved:
            widget = made(WIDGETS[name].make(), **state)
            receive(page, widget)
            status(page)
            slider = page.locator("input[type=range]").nth(part)
            if slider.is_disabled() or not slider.is_visible() or slider.get_attribute("max") == slider.get_attribute("min"):
                continue
            found = slider.evaluate(SETTLE)
            assert found["early"] == 0 and len(found["saved"]) == 1 and found["changed"]
            sent = found["saved"][0]
            assert found["changed"] == {trait: value for trait, value in sent.items()
                                        if trait in found["changed"] or trait not in WIDGETS[name].along}
            widget.set_state(sent)
            assert agree(page, widget)
            moved.add(part)
    assert moved == set(sliders)


# --- looks -----------------------------------------------------------------------------------------------------------


@every_widget
def test_axe_finds_nothing_serious(show, name):
    page = show(WIDGETS[name].widgets[0])
    for _ in in_states(page, WIDGETS[name]):
        for scheme, rules in (("dark", ("color-contrast", "link-in-text-block")), ("light", ())):  # in the dark only colours
            dress(page, scheme)
            assert complaints(page, *rules) == []


SIZES = f"""async () => {{
  {AT_REST}
  return [...document.querySelectorAll(".moe-root :is(canvas, svg, svg rect, svg path, button, input)")].map((node) => {{
    const {{ width, height }} = node.getBoundingClientRect();
    return [node.tagName, width, height];
  }});
}}"""


@every_widget
def test_it_follows_the_theme_of_the_system_and_of_jupyterlab(show, name):
    page = show(WIDGETS[name].widgets[0])
    if page.locator("canvas").count():
        assert_it_follows_the_theme(page)
    dress(page, "dark")
    colours = "((style) => [style.backgroundColor, style.color])(getComputedStyle(document.querySelector('.moe-root')))"
    assert page.evaluate(colours) == ["rgb(20, 23, 27)", "rgb(236, 239, 242)"]
    page.evaluate("""document.body.style.setProperty('--jp-layout-color0', '#ffffff');
                     document.body.style.setProperty('--jp-ui-font-color0', '#010203')""")
    assert page.evaluate(colours) == ["rgb(255, 255, 255)", "rgb(1, 2, 3)"]


@every_widget
def test_it_is_whole_after_jupyterlab_hid_it_for_a_change_of_theme(show, name):
    page = show(WIDGETS[name].widgets[0])
    before = page.evaluate(SIZES)
    page.evaluate(f"""async () => {{ // hidden while the view draws, and seen before the frame is shown: no size has changed
      const host = document.getElementById("host");
      requestAnimationFrame(() => {{ host.style.display = "none"; }});
      document.body.dataset.jpThemeName = "JupyterLab Dark";
      await Promise.resolve();
      requestAnimationFrame(() => {{ host.style.display = ""; }});
      {AT_REST}
    }}""")
    assert page.evaluate(SIZES) == before


@every_widget
def test_the_style_that_another_widget_brings_later_changes_nothing(show, name):
    page = show(WIDGETS[name].widgets[0])

    def at_widths() -> list:
        found = []
        for width in (1280, 1000, 860, 760):  # a layout breaks where two parts just fit beside each other
            resize(page, width)
            for _ in in_states(page, WIDGETS[name]):
                found.append(page.evaluate(SIZES))
        return found

    before = at_widths()
    page.add_style_tag(path=KIT / "style.css")  # what is common to all: anywidget adds it with each of them
    assert at_widths() == before


def test_while_ctrl_is_held_keys_are_jupyterlabs_but_in_a_text(show):
    page = show(WIDGETS["RoutingMap"].widgets[0])
    kept = "document.activeElement.dataset.lmSuppressShortcuts"

    def held() -> list[str | None]:
        steps = [lambda: None, lambda: page.keyboard.down("Control"), lambda: page.keyboard.press("s"),
                 lambda: page.keyboard.up("Control")]
        return [step() or page.evaluate(kept) for step in steps]

    page.locator(".moe-root input[type=range]:visible").first.focus()
    assert held() == ["true", None, None, "true"]
    page.locator(".moe-root input[type=text]").first.focus()
    assert held() == ["true"] * 4


@every_widget
def test_nothing_moves_by_itself(show_timed, name):
    page = show_timed(WIDGETS[name].widgets[0], reduced_motion="reduce")
    page.clock.resume()
    before = look(page)
    assert moving_parts(page) == 0
    page.clock.fast_forward(10_000)
    assert look(page) == before


def excess(page) -> list[float]:
    """By how many pixels each canvas is wider than its place."""
    return page.locator("canvas").evaluate_all(
        "(nodes) => nodes.map((node) => node.getBoundingClientRect().width - node.parentNode.clientWidth)")


@every_size
def test_it_fits_every_width_and_follows_the_window(show, name, size):
    entry = WIDGETS[name]
    example = entry.sizes.get(size, entry)
    page = show(example.widgets[0])
    grown = {}
    for width in (1280, 900, 700, 500, 1000):
        resize(page, width)
        for _ in itertools.chain([None], in_states(page, example)):
            assert_it_fits(page, width)
            over = excess(page)
            assert max(over, default=0) < 1 and (size != "as usual" or min(over, default=0) > -1), "a canvas fills its place"
        grown[width] = max(page.locator(entry.follows).evaluate_all(
            "(nodes) => nodes.map((node) => node.getBoundingClientRect().width)"))
    assert size != "as usual" or grown[500] < min(grown[1000], grown[1280])


@every_widget
def test_on_a_phone_only_words_in_a_drawing_may_be_scrolled(show, name):
    for example in (WIDGETS[name], *WIDGETS[name].projected.values()):
        page = show(example.widgets[0], viewport={"width": 360, "height": 720})
        unfold(page)
        for _ in in_states(page, example):
            assert_it_fits(page, 360, ":not(svg *)")
            assert page.evaluate("""[...document.querySelectorAll('.moe-chart')].filter((box) => box.checkVisibility())
              .every(({ children: [title, svg] }) => !title.textContent
                || title.getBoundingClientRect().bottom < svg.getBoundingClientRect().top + 20)""")


# The cells of tables in which a number, or an interval, is broken into two lines.
BROKEN = """[...document.querySelectorAll(".moe-sheet td")].filter(({ firstChild: words }) => {
  const range = document.createRange();
  return [...(words?.data ?? "").matchAll(/[^[(]+|[[(][^[(]*/g)].some(({ index, 0: part }) => {
    range.setStart(words, index);
    range.setEnd(words, index + part.trimEnd().length);
    return new Set([...range.getClientRects()].map(({ top }) => top)).size > 1;
  });
}).map((cell) => cell.textContent)"""


@every_widget
def test_no_number_of_a_table_is_broken_on_a_narrow_screen(show, name):
    page = show(WIDGETS[name].widgets[0])
    unfold(page)
    for width in (760, 470):
        resize(page, width)
        for _ in in_states(page, WIDGETS[name]):
            assert page.evaluate(BROKEN) == []
            assert_it_fits(page, width)


SMALL_SCREEN = 600  # pixels: JupyterLab leaves 598 of a screen of 720
BESIDE_A_BAR = 864  # pixels of a page: with its side bar open, JupyterLab leaves a widget 848 of 1280


# Every height that the widget has had in a frame since `heights` was emptied.
WATCH_HEIGHT = """() => new ResizeObserver(([{ target }]) => window.heights?.add(target.getBoundingClientRect().height))
  .observe(document.querySelector(".moe-root"))"""


@pytest.mark.parametrize("name,size", [(name, size) for name, entry in WIDGETS.items()
                                       for size in ("as usual", *entry.projected)])
def test_any_state_fits_a_small_screen_and_no_state_changes_its_height(show, name, size):
    example = WIDGETS[name].projected.get(size, WIDGETS[name])
    page = show(example.widgets[0])
    page.evaluate(WATCH_HEIGHT)
    for width in (BESIDE_A_BAR, 1280):
        resize(page, width)
        heights: dict[str, set] = {}  # another text may take another height
        for widget in in_states(page, example):
            if size == "as usual":
                assert page.locator(".moe-status").evaluate("(node) => node.scrollHeight <= node.clientHeight"), words(page)
            box = page.locator(".moe-root").bounding_box()
            first, last = ((box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in ((0.05, 0.3), (0.93, 0.905)))
            page.evaluate("(height) => { window.heights = new Set([height]); }", box["height"])
            page.mouse.move(*first)
            page.mouse.move(*last, steps=11)  # what is under the pointer must not move
            status(page)
            heights.setdefault(getattr(widget, "text", ""), set()).update(page.evaluate("[...heights]"))
        assert max(map(len, heights.values())) == 1 and max(map(max, heights.values())) <= SMALL_SCREEN, heights


@every_widget
def test_text_is_at_least_ten_points(show, name):
    page = show(WIDGETS[name].widgets[0])
    page.evaluate(LISTEN_TO_TEXT)
    dress(page, "dark")  # draws the first state again
    for width in (1280, 900, 500):
        resize(page, width)
        for _ in in_states(page, WIDGETS[name]):
            assert smallest_text(page) >= SMALLEST
            texts = page.evaluate("window.written.splice(0)")
            assert min((size for _, size in texts), default=SMALLEST) >= SMALLEST
            assert len(texts) > 5 or not page.locator("canvas").count()


KEYS = {"range": ("End", "Home"), "select": ("End", "Home"), "radio": ("Space",), "checkbox": ("Space",)}


@every_widget
def test_no_control_moves_under_the_hand(show, name):
    example = [WIDGETS[name], *WIDGETS[name].projected.values()][-1]  # the largest
    page = show(example.widgets[0])
    for width in sorted({1280, 900, 700, WIDGETS[name].steady}, reverse=True):
        resize(page, width)
        pressed = set()
        for _ in in_states(page, example):
            for control in controls(page):
                part, place = page.locator(CONTROLS).nth(control["place"]), (control["name"], control["place"])
                for key in KEYS.get(control["kind"], ()) if control["enabled"] and place not in pressed else ():
                    before = part.bounding_box()
                    part.press(key)
                    status(page)
                    assert part.bounding_box() == before, (control["name"], key, width)
                    pressed.add(place)


# --- leaks -----------------------------------------------------------------------------------------------------------


@every_widget
def test_a_closed_view_listens_no_more(show, name):
    entry = WIDGETS[name]
    page = show(entry.widgets[0])
    said, before = words(page), picture(page)
    page.evaluate("cleanup()")
    dress(page, "dark")
    resize(page, 700)
    for widget in entry.widgets[1:]:
        receive(page, widget)
        assert (words(page), picture(page)) == (said, before)
    assert page.evaluate("Object.values(model.listeners).flat().length") == 0


@every_widget
def test_ten_views_that_were_closed_leave_nothing(show, name):
    widget = WIDGETS[name].widgets[0]
    assert_closed_views_leave_nothing(show(widget), widget, WIDGETS[name].opened)


# --- what tools/benchmark_widgets.py asks of each ------------------------------------------------------------------------


@every_widget
def test_a_held_key_and_a_new_text_can_be_timed(show, name):
    entry = WIDGETS[name]
    page = show((entry.large or entry.types or entry.make)())
    for part, key in entry.held.values():
        before = look(page)
        page.locator(part).press(key)
        assert look(page) != before, part
    benchmark_widgets.watch_frames(page)
    rows = benchmark_widgets.measure(page, name, entry, presses=2)
    assert [row["action"] for row in rows] == [*entry.held, *(["new text"] if entry.types else [])] != []
    assert all(value > 0 for row in rows for column, value in row.items() if column.endswith("_ms") or column == "times")
