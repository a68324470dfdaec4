"""The balancing race in chromium, on a page of its own and without any network: keys, words, film, looks."""

import pytest
from balancing_race.cases import race_of
from widget_harness import picture, status, written


def play(page):
    return page.get_by_role("button", name="Play", exact=True)


# --- words and keys --------------------------------------------------------------------------------------------------


def test_it_starts_at_the_last_step_and_says_how_to_read_the_picture(show):
    page = show(race_of())
    assert "Step 480, layer 2 of 2, seed 0" in status(page)
    assert page.locator(".moe-badge").inner_text() == "synthetic"
    assert page.get_by_text("Orange line: mean load 256.0. ×: idle.").is_visible()


@pytest.mark.parametrize("label,key,trait,value,words", [
    ("Step", "ArrowLeft", "step", 460, "Step 460,"), ("Step", "Home", "step", 0, "Step 0,"),
    ("Layer", "ArrowLeft", "layer", 0, "layer 1 of 2"), ("Layer", "End", "layer", 1, "layer 2 of 2"),
    ("Seed", "ArrowRight", "seed", 1, "seed 1,"), ("Seed", "End", "seed", 2, "seed 2,")])
def test_sliders_answer_to_keys_and_python_follows(show, label, key, trait, value, words):
    race = race_of()
    page = show(race, live=True)
    page.get_by_label(label, exact=True).press(key)
    assert words in status(page) and getattr(race, trait) == value
    assert status(page) == race.summary


def test_radio_buttons_and_the_checkbox_answer_to_keys(show):
    race = race_of()
    page = show(race, live=True)
    before = picture(page)
    page.get_by_label("none", exact=True).press("ArrowRight")
    assert "noise: MaxVio" in status(page) and race.method == "noise" and status(page) == race.summary
    emphasised = picture(page)
    page.get_by_label("sort by load").press("Space")
    assert picture(page) not in (before, emphasised) and race.by_load
    assert page.get_by_text("sorted by load at this step, each method by itself").is_visible()


@pytest.mark.parametrize("width", [600, 1280])
def test_a_click_on_a_panel_emphasises_its_method(show, width):
    race = race_of()
    page = show(race, live=True, viewport={"width": width, "height": 1300})
    box = page.locator(".moe-panels").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 10, box["y"] + 120)
    last = "bias" if width == 1280 else "importance + load"
    assert f"{last}: MaxVio" in status(page) and race.method == last
    page.mouse.click(box["x"] + 60, box["y"] + box["height"] - 40)  # a chart
    assert race.method == last
    page.mouse.click(box["x"] + 60, box["y"] + 120)
    status(page)
    assert race.method == "none"


# --- the film --------------------------------------------------------------------------------------------------------


def test_play_runs_from_the_first_step_to_the_last_and_python_hears_where_it_stopped(show):
    race = race_of(steps=(0, 1, 2, 3, 20))
    page = show(race, live=True)
    play(page).press("Enter")
    page.wait_for_function("model.get('step') === 2")
    assert page.get_by_role("button", name="Pause").is_visible() and race.step == 20
    assert page.locator(".moe-status").get_attribute("aria-live") == "off"
    page.wait_for_function("model.get('step') === 20")
    assert status(page) == race.summary and play(page).is_visible()
    assert page.locator(".moe-status").get_attribute("aria-live") == "polite"


def test_nothing_plays_until_it_is_asked_to_and_pause_keeps_the_step(show):
    race = race_of()
    page = show(race, live=True)
    page.wait_for_timeout(500)
    assert race.step == page.evaluate("model.get('step')") == 480
    play(page).click()
    page.wait_for_function("model.get('step') === 2")
    page.get_by_role("button", name="Pause").click()
    where = page.evaluate("model.get('step')")
    page.wait_for_timeout(500)
    assert page.evaluate("model.get('step')") == where == race.step < 480
    play(page).click()
    page.wait_for_function(f"model.get('step') > {where}")  # goes on, not back


@pytest.mark.parametrize("hand", ["Step", "Reset"])
def test_a_hand_on_the_step_or_reset_stops_the_film(show, hand):
    page = show(race_of())
    play(page).click()
    page.wait_for_function("model.get('step') === 1")
    if hand == "Step":
        page.get_by_label("Step", exact=True).press("End")
    else:
        page.get_by_role("button", name="Reset").click()
    page.wait_for_timeout(500)
    assert page.evaluate("model.get('step')") == 480 and play(page).is_visible()


def test_where_motion_is_to_be_reduced_the_film_is_a_few_jumps(show):
    page = show(race_of(), reduced_motion="reduce")
    page.evaluate("""() => { window.stops = []; model.on("change:step", () => stops.push(model.get("step"))); }""")
    play(page).click()
    page.wait_for_timeout(700)
    assert page.evaluate("window.stops") == [0]  # where it starts, and time to read it
    page.wait_for_function("window.stops.length === 3")
    assert page.evaluate("window.stops") == [0, 8, 16]


def test_a_view_that_is_closed_plays_no_more(show):
    page = show(race_of())
    play(page).click()
    page.wait_for_function("model.get('step') === 1")
    page.evaluate("cleanup()")
    where = page.evaluate("model.get('step')")
    page.wait_for_timeout(500)
    assert page.evaluate("model.get('step')") == where
    page.evaluate("document.getElementById('host').replaceChildren()")


# --- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [500, 900, 1280])
def test_no_name_is_cut(show, width):
    texts = written(show(race_of(), viewport={"width": width, "height": 720}), {"method": "importance + load"})
    words = " ".join(text for text, _ in texts)
    assert len(texts) > 60 and "…" not in words
    assert words.count("importance + load") >= 2  # at the ends of the curves


def test_an_idle_expert_has_a_cross_and_no_other_has(show):
    loads = [[[6, 1, 1], [4, 4, 0]], [[6, 1, 1], [8, 0, 0]]]  # [M, P, N]
    page = show(race_of(loads))
    status(page)
    strokes = page.evaluate("""() => {
      const start = CanvasRenderingContext2D.prototype.moveTo;
      let strokes = 0;
      CanvasRenderingContext2D.prototype.moveTo = function (...place) { strokes += 1; start.apply(this, place); };
      const drawn = (step) => new Promise((done) => {
        strokes = 0;
        model.receive({ step });
        requestAnimationFrame(() => requestAnimationFrame(() => done(strokes)));
      });
      return drawn(0).then(async (first) => [first, await drawn(1)]);
    }""")
    assert strokes == [0, 2 * 3]  # a cross is two strokes; nothing else lifts the pen
