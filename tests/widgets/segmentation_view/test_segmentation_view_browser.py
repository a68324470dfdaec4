"""Segmentation in chromium, on a page of its own and without any network: keys, words, boxes, looks."""

import pytest
from segmentation_view.cases import BUDGETS, made, view_of
from widget_harness import assert_it_fits, dots, picture, status, written

from moe_lesson.widgets import SegmentationView
from moe_lesson.widgets.segmentation_view.data import PARTS, SEGMENTS, SHARED

CUT, SHARE = "m, pieces of each expert", "Ks, shared pieces"
FULLEST = {"world": "skills world", "segments": 8, "num_shared": 2}
REFUSED = {"world": "text", "segments": 1, "num_shared": 4}


def agree(page, view: SegmentationView) -> bool:
    """Does Python come to say what the page says? Its answer takes a moment."""
    return any(status(page) == view.summary for _ in range(50))


def widths(page) -> list[float]:
    """Of the parts of the token's bar and of the budget's outline, as shares of the axis."""
    status(page)
    return page.evaluate("""[...document.querySelectorAll(".moe-ledger-part, .moe-ledger-outline")].map((node) => (
      node.getBoundingClientRect().width / node.parentNode.clientWidth))""")


# --- words and keys --------------------------------------------------------------------------------------------------


def test_it_shows_how_many_routes_there_are(show):
    page = show(view_of())
    assert "4,426,165,368" in status(page)
    assert page.locator(".moe-badge").inner_text() == "synthetic"
    assert page.locator(".moe-cut-routes").inner_text() == "C(64, 8) = 4,426,165,368 routes"
    assert page.get_by_text("About 36.9 million times the 120 of uncut experts", exact=True).is_visible()
    assert page.get_by_text("m = 4: each expert cut in 4").is_visible() and page.get_by_label("text").is_checked()


@pytest.mark.parametrize("label,key,trait,value,words", [
    (CUT, "ArrowLeft", "segments", 2, "C(32, 4) = 35,960 routes"), (CUT, "Home", "segments", 1, "C(16, 2) = 120 routes"),
    (CUT, "End", "segments", 8, "C(128, 16) = 93,343,021,201,262,177,400 routes"),
    (SHARE, "ArrowRight", "num_shared", 1, "C(63, 7) = 553,270,671 routes; 8 times fewer than with nothing shared"),
    (SHARE, "End", "num_shared", 4, "C(60, 4) = 487,635 routes")])
def test_sliders_answer_to_keys_and_python_follows(show, label, key, trait, value, words):
    view = view_of()
    page = show(view, live=True)
    page.get_by_label(label, exact=True).press(key)
    assert words in status(page) and agree(page, view) and getattr(view, trait) == value


def test_the_world_answers_to_arrow_keys_and_shows_hybridity_where_it_was_measured(show):
    view = view_of()
    page = show(view, live=True)
    before = picture(page)
    page.get_by_label("text", exact=True).press("ArrowRight")
    assert "Skills world, synthetic, m = 4" in status(page) and "Hybridity 4.002 [" in status(page)
    assert agree(page, view) and view.world == "skills world" and picture(page) != before


def test_more_shared_pieces_than_can_be_are_refused_beside_the_slider_and_in_the_summary(show):
    view = view_of(num_shared=4)
    page = show(view, live=True)
    slider = page.get_by_label(SHARE, exact=True)
    assert slider.get_attribute("aria-valuetext") == "Ks = 4 of 8 active, always on"
    page.get_by_label(CUT, exact=True).press("Home")
    assert status(page).endswith("Ks is 1, not 4: of 2 active pieces at least one must be routed.") and agree(page, view)
    assert slider.get_attribute("aria-valuetext") == "Ks = 1, not 4: 1 of 2 must be routed"
    assert slider.input_value() == "3"  # the wish is kept
    page.get_by_label(CUT, exact=True).press("End")
    assert "m = 8, Ks = 4" in status(page) and "not 4" not in status(page)


# --- boxes and bars --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"num_shared": 1}, FULLEST, REFUSED])
def test_what_a_token_pays_is_as_long_as_its_numbers_against_the_budget(show, settings):
    view = view_of(**settings)
    page = show(view)
    top = view.worlds[view.world]["top"]
    expected = [cost / top for cost in (*view.here.costs(view.setting).values(), view.here.pays)]
    assert widths(page) == pytest.approx(expected, abs=1e-3)


def test_a_name_stands_in_its_part_only_where_it_fits(show):
    page = show(view_of(num_shared=1), viewport={"width": 480, "height": 720})
    status(page)
    assert page.evaluate("""[...document.querySelectorAll(".moe-ledger-part")].filter((node) => node.textContent)
      .map((node) => [node.textContent, node.scrollWidth <= node.clientWidth])""") == [["routed", True]]


def test_the_layer_shows_routed_shared_and_router_in_the_colours_of_the_ledger(show):
    page = show(view_of())
    hues = {part: tuple(bytes.fromhex(colour[1:])) for part, colour in PARTS.items()}
    router, shared = dots(page, hues["router"]), dots(page, hues["shared"])
    page.evaluate("model.receive({ segments: 8, num_shared: 4 })")
    assert dots(page, hues["router"]) > 1.8 * router > 0 and dots(page, hues["routed"]) > 100
    page.evaluate("model.receive({ segments: 4, num_shared: 0 })")
    assert dots(page, hues["shared"]) == shared > 0  # the squares of the chart stay
    page.evaluate("model.receive({ num_shared: 4 })")
    assert dots(page, hues["shared"]) > shared + 100


@pytest.mark.parametrize("segments,num_shared,active", [(1, 0, 2), (1, 1, 2), (4, 0, 8), (4, 2, 8), (8, 4, 16)])
def test_what_is_active_is_outlined_and_what_is_shared_is_hatched(show, segments, num_shared, active):
    page = show(view_of(segments=2, num_shared=1))
    status(page)
    assert page.evaluate("""(state) => {
      const { strokeRect, clip } = CanvasRenderingContext2D.prototype;
      const layer = document.querySelector(".moe-cut-layer canvas"), seen = { outlined: 0, hatched: 0 };
      Object.assign(CanvasRenderingContext2D.prototype, {
        strokeRect(...box) { seen.outlined += this.canvas === layer && this.lineWidth === 2; strokeRect.apply(this, box); },
        clip() { seen.hatched += this.canvas === layer; clip.call(this); },
      });
      model.receive(state);
      return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(seen))));
    }""", {"segments": segments, "num_shared": num_shared}) == {"outlined": active, "hatched": num_shared}


@pytest.mark.parametrize("settings,times", [({}, 0), ({"segments": 8, "num_shared": 2}, 1), (FULLEST, 2)])
def test_the_charts_say_not_measured_where_nothing_was(show, settings, times):
    texts = [text for text, _ in written(show(view_of(world="skills world", segments=2)), {"world": "text", **view_of().start,
                                                                                          **settings})]
    assert texts.count("not measured") == times
    assert sum(text.endswith(": not measured") for text in texts) == times


def test_the_axis_of_a_world_stands_still(show):
    page = show(view_of())
    numbers = set()
    for segments in SEGMENTS:
        for shared in SHARED:
            texts = [text for text, _ in written(page, {"segments": segments, "num_shared": shared})]
            numbers.add(tuple(text for text in texts if "." in text and ":" not in text))
    assert len([one for one in numbers if one]) == 1


# --- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [480, 700, 900, 1280])
def test_no_text_is_cut(show, width):
    page = show(view_of(), viewport={"width": width, "height": 720})
    for state in ({"segments": 8, "num_shared": 2}, FULLEST, REFUSED):
        texts = written(page, state)
        assert_it_fits(page, width)
        assert len(texts) > 20 and not any("…" in str(text) for text, _ in texts)


@pytest.mark.parametrize("width", [900, 1280])  # narrower, the number of routes may take two lines
def test_the_layer_stays_where_it_is(show, width):
    page = show(view_of(), viewport={"width": width, "height": 720})
    before = page.locator("canvas").first.bounding_box()
    for label, key in ((CUT, "Home"), (SHARE, "End"), (CUT, "End"), (CUT, "Home"), (SHARE, "Home")):
        page.get_by_label(label, exact=True).press(key)
        status(page)
        assert page.locator("canvas").first.bounding_box() == before


@pytest.mark.parametrize("world", BUDGETS)
def test_every_state_can_be_reached_and_says_what_python_says(show, world):
    page, view = show(view_of()), view_of(world=world)
    for segments in SEGMENTS:
        for shared in SHARED:
            made(view, segments=segments, num_shared=shared)
            page.evaluate("(state) => model.receive(state)", {"world": world, "segments": segments, "num_shared": shared})
            assert status(page) == view.summary
