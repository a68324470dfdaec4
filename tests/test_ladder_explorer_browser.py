"""The ladder explorer in chromium, on a page of its own and without any network: keys, words, looks, time."""

import pytest
from ladder_cases import ladder_of, made, two
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

from moe_lesson.widgets.ladder_explorer import table_rows

OTHER = {"rung": "dense of total size", "beside": "gshard ×1.5", "seed": 3, "axis": "seconds", "domain": "yaml"}
BLUE, ORANGE = (91, 130, 184), (217, 102, 10)
ONE = {"names": ("deepseekmoe", "gshard"), "seeds": 1, "steps": (7,), "domains": ("a",)}
LONG = {"names": ("deepseekmoe", "gshard", "a name with many words", "another one", *"abcdef"), "seeds": 9}


def cells(page) -> list[list[str]]:
    return [row.locator("th, td").all_text_contents() for row in page.locator("tbody tr").all()]


# --- words and keys --------------------------------------------------------------------------------------------------


def test_it_says_at_once_what_python_says(show):
    explorer = ladder_of()
    page = show(explorer)
    status(page)
    assert page.locator(".moe-status").text_content() == explorer.summary and cells(page) == table_rows(explorer)
    assert page.locator("thead th").all_text_contents() == ["loss", "deepseekmoe", "gshard", "difference"]
    assert page.locator(".moe-badge").inner_text() == "synthetic"
    assert page.locator(".moe-status").get_attribute("aria-live") == "polite"


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


def test_reset_goes_back_to_the_start_and_python_moves_the_picture(show):
    page, explorer = show(ladder_of()), made(ladder_of(), **OTHER)
    before, first = status(page), picture(page)
    page.evaluate("(state) => model.receive(state)", browser_state(explorer))
    status(page)
    assert page.locator(".moe-status").text_content() == explorer.summary != before and picture(page) != first
    page.get_by_role("button", name="Reset").click()
    assert status(page) == before and picture(page) == first
    assert page.get_by_label("all", exact=True).is_checked() and page.get_by_label("steps", exact=True).is_checked()
    assert page.get_by_label("domain").input_value() == "mean of the domains"


def test_hostile_names_are_shown_and_not_run(show):
    names = ("<img src=x onerror='window.hacked = 1'>", "</style><b>bold</b>", "$x^2$")
    explorer = ladder_of(*names[:2], names=names)
    page = show(explorer)
    status(page)
    assert page.locator(".moe-status").text_content() == explorer.summary and names[0] in explorer.summary
    assert page.locator("main img, main b").count() == 0


# --- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(show, scheme):
    page = show(ladder_of(), color_scheme=scheme)
    assert complaints(page) == []
    page.evaluate("(state) => model.receive(state)", OTHER)
    status(page)
    assert complaints(page) == []


def test_the_picture_is_drawn_in_the_ink_of_the_theme(show):
    assert_it_follows_the_theme(show(ladder_of()))


def test_the_two_rungs_alone_are_in_colour(show):
    page = show(two())
    assert dots(page, BLUE) > 200 and dots(page, ORANGE) > 200
    page = show(two((9.0, 9.0), (9.0, 9.0)))
    assert dots(page, ORANGE) < 200 < dots(page, BLUE)  # the highlighted one lies on top


def test_nothing_moves_by_itself(show):
    assert moving_parts(show(ladder_of(), reduced_motion="reduce")) == 0


@pytest.mark.parametrize("width", [500, 700, 900, 1280])
@pytest.mark.parametrize("sizes", [{}, ONE, LONG])
def test_it_fits_the_width(show, width, sizes):
    explorer = ladder_of(**sizes)
    page = show(explorer, viewport={"width": width, "height": 720})
    for axis in ("FLOPs", "seconds"):
        page.evaluate("(state) => model.receive(state)", {"axis": axis, "rung": explorer.rungs[-1]["name"]})
        status(page)
        assert_it_fits(page, width)


@pytest.mark.parametrize("width", [900, 1280])
def test_any_state_fits_a_projector(show, width):
    page = show(ladder_of(), viewport={"width": width, "height": 720})
    assert_it_fits_a_projector(page, {}, OTHER, {**OTHER, "seed": None}, {**OTHER, "seed": None, "axis": "FLOPs"})


@pytest.mark.parametrize("width", [500, 900, 1280])
def test_text_is_at_least_ten_points_and_every_name_is_there_in_full(show, width):
    explorer = ladder_of()
    page = show(explorer, viewport={"width": width, "height": 720})
    assert smallest_text(page) >= 13.33
    for axis in ("FLOPs", "seconds", "steps"):
        texts = written(page, {"axis": axis, "seed": 1 if axis == "FLOPs" else None})
        words = [text for text, _ in texts]
        assert min(size for _, size in texts) >= 13.33 and not any("…" in word for word in words)
        assert all(words.count(rung["name"]) == 1 for rung in explorer.rungs)


@pytest.mark.parametrize("width", [700, 900, 1280])
def test_a_control_does_not_move_under_the_hand(show, width):
    page = show(ladder_of(), viewport={"width": width, "height": 720})
    for label, key in (("highlight", "End"), ("beside", "Home"), ("seconds", "Space"), ("4", "Space"), ("domain", "End")):
        control = page.get_by_label(label, exact=True)
        before = control.bounding_box()
        control.press(key)
        status(page)
        assert control.bounding_box() == before


def test_fifty_views_that_were_closed_leave_nothing(show):
    explorer = ladder_of()
    assert_closed_views_leave_nothing(show(explorer), explorer)


# --- time: printed, not judged, since machines differ ------------------------------------------------------------------

DRAW = """async (esm) => {
  const url = URL.createObjectURL(new Blob([esm + "export { drawLadder, themeOf };"], { type: "text/javascript" }));
  const m = await import(url);
  const canvas = document.querySelector("canvas");
  const theme = { ...m.themeOf(document.querySelector(".moe-root")), paper: "#ffffff" };
  const timed = { examine: [], draw: [] };
  const read = m.readState(model);
  for (const domain of read.domains) for (const axis of ["steps", "FLOPs", "seconds"]) for (const { name } of read.rungs) {
    const start = performance.now();
    const state = { ...read, domain, axis, rung: name };
    const seen = m.examine(state);
    const middle = performance.now();
    m.drawLadder(canvas, 600, state, seen, theme);
    timed.examine.push(middle - start);
    timed.draw.push(performance.now() - middle);
  }
  return timed;
}"""


def test_how_long_drawing_takes(show, capsys):
    explorer = ladder_of()
    page = show(explorer)
    report = [f"{name}: {spread(times)}" for name, times in page.evaluate(DRAW, explorer._esm).items()]
    page.evaluate(COUNT_FRAMES)
    report.append(f"whole frame: {spread(time_frames(page, 'input[type=radio]:checked >> nth=0', 'ArrowRight'))}")
    with capsys.disabled():
        print("\nladder explorer of 8 rungs × 5 seeds × 10 steps × 4 domains: " + "; ".join(report))
    assert page.evaluate("model.get('axis')") == "FLOPs"
