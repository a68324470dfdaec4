"""The capacity view in chromium, on a page of its own and without any network: keys, words, looks, time."""

import pytest
from capacity_cases import crowd, made, view_of
from map_cases import HOSTILE
from widget_harness import (
    COUNT_FRAMES,
    assert_closed_views_leave_nothing,
    assert_it_fits,
    assert_it_fits_a_projector,
    assert_it_follows_the_theme,
    browser_state,
    complaints,
    dots,
    moving_parts,
    picture,
    smallest_text,
    spread,
    status,
    time_frames,
    written,
)

TIGHT = {"factor": 0.5, "by": "weight", "batch": "shuffled", "shuffle": 3, "layer": 1, "locked_token": 7}


def stage(page):
    return page.get_by_role("application")


def marked(page, how: str) -> list[int]:
    """The tokens of the text with a mark."""
    status(page)
    return page.locator(f".moe-strip .{how}").evaluate_all("(nodes) => nodes.map((node) => Number(node.dataset.token))")


# --- words and keys --------------------------------------------------------------------------------------------------


def test_it_says_at_once_what_python_says(show):
    view = view_of()
    page = show(view)
    assert status(page) == view.summary and "Choices dropped: " in view.summary
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


def test_python_hears_of_the_settled_value_only(show):
    page = show(view_of())
    slider = page.get_by_label("capacity factor")
    slider.evaluate("node => { node.value = 0; node.dispatchEvent(new Event('input')); }")
    assert "Capacity factor 0.25" in status(page) and page.evaluate("model.saved.length") == 0
    slider.evaluate("node => node.dispatchEvent(new Event('change'))")
    assert page.evaluate("model.saved") == [{"factor": 0.25}]


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


def test_reset_goes_back_to_the_start_and_python_moves_the_picture(show):
    page, view = show(view_of()), made(view_of(), **TIGHT)
    before, first = status(page), picture(page)
    page.evaluate("(state) => model.receive(state)", browser_state(view))
    assert status(page) == view.summary != before and picture(page) != first
    page.get_by_role("button", name="Reset").click()
    page.mouse.move(5, 5)
    page.evaluate("document.activeElement.blur()")
    assert status(page) == before and picture(page) == first and page.get_by_label("as they stand").is_checked()


def test_hostile_tokens_are_shown_and_not_run(show):
    view = view_of(HOSTILE, title="<b>bold</b>")
    page = show(view)
    assert page.locator(".moe-strip .moe-token").all_inner_texts() == view.tokens
    assert page.locator("main script, main img, main b").count() == 0
    for token in range(len(HOSTILE)):
        page.evaluate("(token) => model.receive({ locked_token: token })", token)
        status(page)
        assert page.locator(".moe-status").text_content() == made(view, locked_token=token).summary


def test_one_layer_has_no_slider_for_it(show):
    assert not show(view_of(layers=1)).get_by_label("Layer", exact=True).is_visible()


# --- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(show, scheme):
    page = show(view_of(60), color_scheme=scheme)
    assert complaints(page) == []
    page.evaluate("(state) => model.receive(state)", {**TIGHT, "factor": 0.25})
    status(page)
    assert page.locator(".moe-strip .moe-none").count() > 0 and complaints(page) == []


def test_the_picture_is_drawn_in_the_ink_of_the_theme(show):
    assert_it_follows_the_theme(show(view_of()))


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


def test_nothing_moves_by_itself(show):
    assert moving_parts(show(view_of(), reduced_motion="reduce")) == 0


@pytest.mark.parametrize("width", [500, 700, 860, 1280])
@pytest.mark.parametrize("experts", [1, 12, 64])
def test_it_fits_the_width(show, width, experts):
    page = show(view_of(150, experts, 1, title="who is dropped, when an expert has room for a few?"),
                viewport={"width": width, "height": 720})
    page.evaluate("(state) => model.receive(state)", TIGHT)
    status(page)
    assert_it_fits(page, width)


@pytest.mark.parametrize("tokens", [60, 93, 128])  # the context of the course's models
def test_any_state_fits_a_projector(show, tokens):
    assert_it_fits_a_projector(show(view_of(tokens, 16, 2)), {}, TIGHT)


def test_text_is_at_least_ten_points(show):
    page = show(view_of())
    assert smallest_text(page) >= 13.33
    sizes = [size for _, size in written(page, {"locked_token": 3})]
    assert len(sizes) > 20 and min(sizes) >= 13.33


@pytest.mark.parametrize("width", [600, 860, 1280])
def test_nothing_moves_under_the_hand(show, width):
    page = show(made(view_of(93, 16, 2), batch="shuffled"), viewport={"width": width, "height": 720})
    for label, key in (("Layer", "End"), ("capacity factor", "End"), ("capacity factor", "Home"), ("which shuffle", "End")):
        slider = page.get_by_label(label, exact=True)
        before = slider.bounding_box()
        slider.press(key)
        status(page)
        assert slider.bounding_box() == before
    map_before = page.locator(".moe-choices").bounding_box()
    page.evaluate("model.receive({ locked_token: 9 })")
    status(page)
    assert page.locator(".moe-choices").bounding_box() == map_before


def test_it_follows_the_width_of_the_window(show):
    page = show(view_of())
    widths = []
    for width in (1280, 900, 1100):
        page.set_viewport_size({"width": width, "height": 720})
        status(page)
        widths.append(page.locator(".moe-choices").bounding_box()["width"])
        assert abs(widths[-1] - page.locator(".moe-stage").bounding_box()["width"]) < 1
    assert widths[1] < widths[2] < widths[0]


def test_fifty_views_that_were_closed_leave_nothing(show):
    view = view_of()
    assert_closed_views_leave_nothing(show(view), view)


# --- time: printed, not judged, since machines differ ------------------------------------------------------------------

DRAW = """async (esm) => {
  const url = URL.createObjectURL(new Blob([esm + "export { drawAll, sizedContext, themeOf };"], { type: "text/javascript" }));
  const m = await import(url);
  const [canvas, state, geo] = [document.querySelector("canvas"), m.readState(model), m.geometry(760, 300, 64)];
  const theme = m.themeOf(document.querySelector(".moe-root"));
  const timed = { dispatch: [], draw: [] };
  for (let i = 0; i < 66; i++) {
    const start = performance.now();
    const changed = { ...state, factor: state.factors[i % 11], by: i % 2 ? "order" : "weight", batch: "shuffled" };
    const seen = m.dispatch(changed);
    const middle = performance.now();
    m.drawAll(m.sizedContext(canvas, 760, geo.height), geo, changed, seen, i, theme);
    timed.dispatch.push(middle - start);
    timed.draw.push(performance.now() - middle);
  }
  return timed;
}"""


def test_how_long_drawing_takes(show, capsys):
    view = made(view_of(300, 64, 6), batch="shuffled")
    page = show(view)
    report = [f"{name}: {spread(times)}" for name, times in page.evaluate(DRAW, view._esm).items()]
    page.evaluate(COUNT_FRAMES)
    for name, part, key in (("factor slider", "input[aria-label='capacity factor']", "ArrowRight"),
                            ("shuffle slider", "input[aria-label='which shuffle']", "ArrowRight"),
                            ("cursor", ".moe-stage", "ArrowDown")):
        report.append(f"whole frame, {name}: {spread(time_frames(page, part, key))}")
    with capsys.disabled():
        print("\ncapacity view of 300 tokens × 64 experts, K = 6: " + "; ".join(report))
    assert "No limit" in status(page) and "shuffle 20" in status(page)
