"""The redundancy lens in chromium, on a page of its own and without any network: keys, words, looks."""

import pytest
from redundancy_lens.cases import alike, lens_of, made, merging_of
from widget_harness import dots, picture, status, written

from moe_lesson.widgets import RedundancyLens
from moe_lesson.widgets.redundancy_lens.data import contours, leaders, table_rows, table_title

FAR = {"kind": "co-routing", "merges": 9, "order": "by group", "pair": [3, 12]}
PAIR_RING = (217, 102, 10)  # no merge is outlined in it
SLIDER = "merges, most similar first"


def stage(page):
    return page.get_by_role("application")


def cell_at(page, row: int, column: int, experts: int = 16) -> tuple[float, float]:
    """The middle of a cell of the map, for the mouse."""
    box = page.locator(".moe-stage canvas").bounding_box()
    cell = (box["width"] - 40) / experts
    return box["x"] + 34 + (column + 0.5) * cell, box["y"] + 4 + (row + 0.5) * cell


def numbers(page) -> list[list[str]]:
    """The table under the curves, without its head."""
    status(page)
    return [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]


# --- words and keys --------------------------------------------------------------------------------------------------


def test_its_table_has_pythons_numbers(show):
    lens = lens_of()
    page = show(lens)
    assert "4 merges, down to similarity" in status(page)
    assert page.locator(".moe-badge").inner_text() == "synthetic"
    assert numbers(page) == table_rows(lens) and page.get_by_text(table_title(lens)).is_visible()
    assert page.get_by_text("similarity: cosine of two experts' outputs").is_visible()


@pytest.mark.parametrize("key,merges", [("ArrowRight", 5), ("ArrowLeft", 3), ("Home", 0), ("End", 15)])
def test_the_slider_answers_to_keys_and_python_follows(show, key, merges):
    lens = lens_of()
    page = show(lens, live=True)
    slider = page.get_by_label(SLIDER)
    slider.press(key)
    assert lens.merges == merges and status(page) == lens.summary and numbers(page) == table_rows(lens)
    assert slider.get_attribute("aria-valuetext").startswith(f"{merges} merges" if merges else "no merge")


def test_another_kind_shows_other_similarities_and_the_bold_row_follows(show):
    lens = lens_of()
    page = show(lens, live=True)
    before = picture(page)
    for old, kind in (("outputs", "weights"), ("weights", "co-routing")):
        page.get_by_label(old, exact=True).press("ArrowRight")
        assert lens.kind == kind and status(page) == lens.summary and f"alike by {kind}" in lens.summary
        assert page.get_by_text(f"similarity: {lens.now['meaning']}").is_visible()
        assert page.locator(".moe-lens-shown th").inner_text() == kind
        assert picture(page) != before


def test_another_order_moves_the_rows_and_says_nothing_new(show):
    lens = lens_of()
    page = show(lens, live=True)
    words, before = status(page), picture(page)
    page.get_by_label("by number").press("ArrowRight")
    assert lens.order == "by group" and status(page) == words and picture(page) != before
    assert page.get_by_text("Experts in tree order: those that merge stand together.").is_visible()
    page.mouse.move(*cell_at(page, 0, 1))
    assert "Experts {} and {}: ".format(*lens.rows) in status(page)  # the first two rows are no longer 0 and 1


def test_a_kind_with_fewer_merges_takes_the_slider_back(show):
    one, other = merging_of(alike(8, 2, 0.8), 0.3), merging_of(alike(8, 2, 0.5), 0.3, merges=2)
    lens = made(RedundancyLens({"outputs": one, "weights": other}, origin="toy", control=one.losses, unit="loss"), merges=6)
    page = show(lens, live=True)
    assert numbers(page)[1] == ["weights", "–", "–", "–"]
    page.get_by_label("outputs", exact=True).press("ArrowRight")
    assert page.evaluate("model.saved") == [{"kind": "weights", "merges": 2}]
    assert (lens.kind, lens.merges) == ("weights", 2) and status(page) == lens.summary
    assert page.get_by_label(SLIDER).get_attribute("max") == "2"


def test_arrow_keys_walk_the_map_enter_keeps_a_pair_and_escape_lets_go(show):
    lens = lens_of()
    page = show(lens, live=True)
    stage(page).focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert "Experts 2 and 1: " in status(page) and lens.pair is None and dots(page, PAIR_RING) > 100
    page.keyboard.press("Enter")
    page.get_by_label(SLIDER).press("End")
    assert lens.pair == [2, 1] and status(page) == lens.summary and dots(page, PAIR_RING) > 100
    stage(page).press("Escape")
    assert "Experts" not in status(page) and lens.pair is None and dots(page, PAIR_RING) == 0


def test_enter_lets_go_of_a_kept_pair_and_keeps_its_cell_if_no_key_came_before(show):
    lens = lens_of()
    page = show(lens, live=True)
    for kept in ([0, 0], None):
        stage(page).press("Enter")
        status(page)
        assert lens.pair == kept


def test_the_mouse_points_and_clicks(show):
    lens = lens_of()
    page = show(lens, live=True)
    page.mouse.move(*cell_at(page, 14, 8))
    assert "Experts 14 and 8: " in status(page) and lens.pair is None
    page.mouse.click(*cell_at(page, 14, 8))
    page.mouse.move(5, 5)
    assert status(page) == lens.summary and lens.pair == [14, 8]
    page.mouse.move(*cell_at(page, 3, 3))
    assert "Expert 3 with itself: 1 by definition." in status(page)
    page.mouse.click(*cell_at(page, 14, 8))
    page.mouse.move(5, 5)
    assert "Experts" not in status(page) and lens.pair is None


# --- looks -----------------------------------------------------------------------------------------------------------


OUTLINE = """(merges) => {
  const draw = Path2D.prototype.lineTo;
  let edges = 0;
  Path2D.prototype.lineTo = function (...place) { edges += 1; draw.apply(this, place); };
  model.receive({ merges });
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
    Path2D.prototype.lineTo = draw;
    done(edges);
  })));
}"""


def test_what_is_one_expert_is_outlined(show):
    lens = lens_of()
    page = show(lens)
    status(page)
    for merges in (0, 1, 9):
        edges = contours(leaders(lens.now["joins"], 16, merges))
        assert page.evaluate(OUTLINE, merges) == len(edges) and (merges > 0) == (len(edges) > 0)


@pytest.mark.parametrize("width", [500, 900, 1280])
def test_no_text_is_cut(show, width):
    texts = written(show(lens_of(), viewport={"width": width, "height": 720}), FAR)
    assert len(texts) > 30 and not any("…" in text for text, _ in texts)


@pytest.mark.parametrize("width", [600, 900, 1280])
def test_nothing_moves_under_the_hand(show, width):
    page = show(lens_of(), viewport={"width": width, "height": 720})
    parts = [page.get_by_label(SLIDER), page.locator(".moe-stage"), page.get_by_label("by group"),
             page.get_by_label("co-routing", exact=True)]
    before = [part.bounding_box() for part in parts]
    for state in ({"merges": 15}, {"merges": 0}, {"pair": [3, 12]}, FAR):
        page.evaluate("(state) => model.receive(state)", state)
        status(page)
        assert [part.bounding_box() for part in parts] == before, state
