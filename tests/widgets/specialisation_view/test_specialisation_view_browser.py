"""What only the specialisation view has in chromium; test_every_widget_browser.py asks it what it asks of every widget."""

from specialisation_view.cases import made, view_of
from widget_harness import dots, picture, status, written

from moe_lesson.widgets.specialisation_view.data import BY_LIFT, HUES, NULLS, counts, table_rows

FAR = {"sample": 512, "null": list(NULLS)[1], "order": BY_LIFT}


def column_at(page, column: int, experts: int) -> tuple[float, float]:
    """The middle of a column of the experts' picture, for the mouse."""
    box = page.locator(".moe-stage canvas").bounding_box()
    return box["x"] + 86 + (column + 0.5) * (box["width"] - 94) / experts, box["y"] + 100


def test_the_three_counts_and_the_table_follow_every_control(show):
    view = view_of()
    page = show(view, live=True)
    page.get_by_label("sample size").press("End")
    page.get_by_label("documents shuffled").press("Space")
    page.get_by_label("layer", exact=True).press("End")
    status(page)
    assert (view.sample, view.null, view.layer) == (512, FAR["null"], 1)
    assert page.locator(".moe-special-counts > div").evaluate_all(
        "(boxes) => boxes.map((box) => [...box.children].map((part) => part.textContent))") == counts(view)
    assert [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()] == table_rows(view)


def test_another_router_is_called_a_null_on_its_face(show):
    page = show(view_of())
    assert page.locator(".moe-badge").inner_text() == "synthetic: dice" and page.locator(".moe-null").count() == 0
    page.get_by_label("random router").press("Space")
    assert status(page).startswith("null: random router, beside dice")
    assert page.locator(".moe-null").inner_text() == "null: random router"
    assert page.locator(".moe-special-shown").inner_text().startswith("random router")


def test_the_mouse_and_the_keys_find_the_expert_of_a_column_and_another_layer_lets_it_go(show):
    view = made(view_of(), **FAR)
    page = show(view, live=True)
    third = view.columns[2]
    page.mouse.move(*column_at(page, 2, 12))
    assert f"Expert {third} of this layer" in status(page) and view.locked_expert is None
    page.mouse.click(*column_at(page, 2, 12))
    page.mouse.move(1, 1)
    assert status(page) == view.summary and view.locked_expert == third
    page.get_by_label("layer", exact=True).press("End")
    assert "Expert" not in status(page) and view.locked_expert is None
    page.get_by_role("application").press("ArrowRight")
    assert f"Expert {view.columns[1]} of this layer" in status(page)
    page.keyboard.press("Enter")
    page.get_by_label("hash router").press("Space")
    assert "Expert" not in status(page) and view.locked_expert is None and view.router == "hash router"


def test_experts_above_their_null_are_filled_and_the_others_hollow(show):
    page = show(made(view_of(), sample=512))
    hues = [tuple(int(hue[i:i + 2], 16) for i in (1, 3, 5)) for hue in HUES[:4]]
    filled = [dots(page, hue) for hue in hues]
    view = made(view_of(), sample=512)
    view._measured.bands[0, 0, -1, :, 0] = 9.0  # nothing stands above
    hollow_page = show(type(view)(view._measured, origin="synthetic", name="dice"))
    hollow_page.evaluate("model.receive({ sample: 512 })")
    assert all(one > dots(hollow_page, hue) + 20 for one, hue in zip(filled, hues))


def test_the_axis_stays_and_the_order_moves_the_numbers(show):
    page = show(view_of())
    before = picture(page)
    words = [written(page, {"sample": sample}) for sample in (512, 64)]
    lifts = [[text for text, _ in one if text in ("1 all alike", "1.5", "2", "3", "4 only one")] for one in words]
    assert lifts[0] == lifts[1] and len(set(lifts[0])) == 5
    page.get_by_label("strongest first").press("Space")
    assert picture(page) != before
