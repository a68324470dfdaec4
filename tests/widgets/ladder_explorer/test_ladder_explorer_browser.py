"""The ladder explorer in chromium, on a page of its own and without any network: keys, words, looks."""

import pytest
from ladder_explorer.cases import ladder_of, made, two
from widget_harness import dots, picture, status, written

from moe_lesson.widgets.ladder_explorer.data import table_rows

BLUE, ORANGE = (91, 130, 184), (217, 102, 10)


def cells(page) -> list[list[str]]:
    return [row.locator("th, td").all_text_contents() for row in page.locator("tbody tr").all()]


# --- words and keys --------------------------------------------------------------------------------------------------


def test_its_table_has_pythons_numbers(show):
    explorer = ladder_of()
    page = show(explorer)
    status(page)
    assert cells(page) == table_rows(explorer)
    assert page.locator("thead th").all_text_contents() == ["loss", "deepseekmoe", "gshard", "difference"]
    assert page.locator(".moe-badge").inner_text() == "synthetic"


@pytest.mark.parametrize("label,key,trait,value,words", [
    ("steps", "ArrowRight", "axis", "FLOPs", "the same FLOPs: both end, within 3%,"),
    ("steps", "ArrowLeft", "axis", "seconds", "the same seconds: gshard ends at"),
    ("all", "ArrowRight", "seed", 0, "seed 0 alone"), ("all", "ArrowLeft", "seed", 4, "one seed has no interval"),
    ("highlight", "ArrowDown", "rung", "dense of total size", "dense of total size beside gshard"),
    ("highlight", "ArrowUp", "rung", "fine", "fine beside gshard"),
    ("beside", "ArrowUp", "beside", "switch", "deepseekmoe beside switch"),
    ("domain", "ArrowDown", "domain", "python", ": python, mean of 5 seeds")])
def test_controls_answer_to_keys_and_python_follows(show, label, key, trait, value, words):
    explorer = ladder_of()
    page = show(explorer, live=True)
    before = picture(page)
    page.get_by_label(label, exact=True).press(key)
    assert words in status(page) and getattr(explorer, trait) == value
    assert page.locator(".moe-status").text_content() == explorer.summary and cells(page) == table_rows(explorer)
    assert picture(page) != before


@pytest.mark.parametrize("row,axis", [(1, "steps"), (2, "FLOPs"), (3, "seconds")])
def test_the_numbers_of_the_axis_that_is_shown_are_bold(show, row, axis):
    page = show(made(ladder_of(), axis=axis))
    status(page)
    weights = page.locator("tbody th").evaluate_all("nodes => nodes.map((node) => getComputedStyle(node).fontWeight)")
    assert [place for place, weight in enumerate(weights) if weight == "700"] == [row]


def test_all_seeds_come_back(show):
    explorer = ladder_of()
    page = show(explorer, live=True)
    before = status(page)
    page.get_by_label("2", exact=True).check()
    assert "seed 2 alone" in status(page) and explorer.seed == 2
    page.get_by_label("all", exact=True).check()
    assert status(page) == before and explorer.seed is None


def test_arrow_keys_step_over_the_rung_that_stands_beside(show):
    explorer = ladder_of("fine", "deepseekmoe")
    page = show(explorer, live=True)
    page.get_by_label("highlight", exact=True).press("ArrowDown")
    assert "dense of total size beside deepseekmoe" in status(page) and explorer.beside == "deepseekmoe"
    page.get_by_label("beside", exact=True).press("ArrowDown")
    assert "dense of total size beside gshard ×1.5" in status(page)


def test_swap_changes_the_two(show):
    explorer = ladder_of()
    page = show(explorer, live=True)
    page.get_by_role("button", name="Swap").press("Enter")
    assert "gshard beside deepseekmoe" in status(page) and (explorer.rung, explorer.beside) == ("gshard", "deepseekmoe")
    assert page.evaluate("model.saved") == [{"rung": "gshard", "beside": "deepseekmoe"}]


@pytest.mark.parametrize("width", [600, 900, 1280])
def test_a_click_on_a_name_highlights_it(show, width):
    explorer = ladder_of()
    page = show(explorer, live=True, viewport={"width": width, "height": 1300})
    status(page)
    for name, words in (("half active", "half active beside gshard"), ("gshard", "gshard beside half active")):
        where = page.evaluate("""(name) => new Promise((done) => {
          const write = CanvasRenderingContext2D.prototype.fillText;
          let place = null;
          CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
            if (text === name) place = [x, y];
            write.call(this, text, x, y);
          };
          model.receive({ seed: model.get("seed") === null ? 0 : null });
          requestAnimationFrame(() => requestAnimationFrame(() => {
            CanvasRenderingContext2D.prototype.fillText = write;
            done(place);
          }));
        })""", name)
        box = page.locator("canvas").bounding_box()
        page.mouse.click(box["x"] + where[0] + 10, box["y"] + where[1])
        assert words in status(page) and explorer.rung == name
    page.mouse.click(box["x"] + 60, box["y"] + 60)  # no name is there
    status(page)
    assert explorer.rung == "gshard"


# --- looks -----------------------------------------------------------------------------------------------------------


def test_the_two_rungs_alone_are_in_colour(show):
    page = show(two())
    assert dots(page, BLUE) > 200 and dots(page, ORANGE) > 200
    page = show(two((9.0, 9.0), (9.0, 9.0)))
    assert dots(page, ORANGE) < 200 < dots(page, BLUE)  # the highlighted one lies on top


@pytest.mark.parametrize("width", [500, 900, 1280])
def test_every_name_is_there_in_full(show, width):
    explorer = ladder_of()
    page = show(explorer, viewport={"width": width, "height": 720})
    for axis in ("FLOPs", "seconds", "steps"):
        words = [text for text, _ in written(page, {"axis": axis, "seed": 1 if axis == "FLOPs" else None})]
        assert not any("…" in word for word in words)
        assert all(words.count(rung["name"]) == 1 for rung in explorer.rungs)
