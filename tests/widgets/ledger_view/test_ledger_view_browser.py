"""The ledger in chromium, on a page of its own and without any network: keys, words, bars, looks."""

import pytest
from widget_harness import assert_it_fits, status

from moe_lesson import ModelConfig, Sparse, model_cost
from moe_lesson.lm.ledger import PUBLISHED
from moe_lesson.widgets import LedgerView
from moe_lesson.widgets.ledger_view.data import STARTS, shown_parts

MOE = PUBLISHED["DeepSeekMoE 16B"]
SLIDERS = {"width": "D, model width", "layers": "depth, layers", "context": "S, context", "hidden": "H, hidden units",
           "num_experts": "N, routed experts", "top_k": "K, active experts", "num_shared": "Ks, shared experts"}


def compared() -> LedgerView:
    return LedgerView(MOE, compare=PUBLISHED["LLaMA2 7B"])


def agree(page, view: LedgerView) -> bool:
    """Does Python come to say what the page says? Its answer takes a moment."""
    return any(status(page) == view.summary for _ in range(50))


def widths(page, part: str) -> list[float]:
    """Of the elements of the three bars, as shares of the axis."""
    status(page)
    return page.evaluate("""(part) => [...document.querySelectorAll(part)].map((node) => (
      node.getBoundingClientRect().width / node.parentNode.clientWidth))""", part)


# --- words and keys --------------------------------------------------------------------------------------------------


def test_it_starts_with_the_model_that_it_was_given(show):
    page = show(compared())
    assert "16.4 B" in status(page)
    assert page.locator(".moe-badge").inner_text() == "computed"
    assert page.get_by_label("DeepSeekMoE 16B").is_checked() and page.get_by_text("K = 6 active per token").is_visible()


@pytest.mark.parametrize("slider", SLIDERS)
@pytest.mark.parametrize("key", ["ArrowRight", "ArrowLeft"])
def test_every_slider_answers_to_keys_and_tells_python_the_settled_value(show, slider, key):
    view = LedgerView(MOE)
    page = show(view, live=True)
    before, value = status(page), getattr(view, slider)
    page.get_by_label(SLIDERS[slider], exact=True).press(key)
    assert status(page) != before
    page.wait_for_function("model.saved.length > 0")
    position = view.choices[slider].index(value) + (1 if key == "ArrowRight" else -1)
    assert agree(page, view) and getattr(view, slider) == view.choices[slider][position]


def test_starts_answer_to_arrow_keys(show):
    view = LedgerView()
    page = show(view, live=True)
    page.get_by_label("toy", exact=True).focus()
    for name in list(STARTS)[1:]:
        page.keyboard.press("ArrowRight")
        assert status(page) == LedgerView(STARTS[name]).summary and agree(page, view) and view.start == name


def test_a_start_clicked_again_takes_the_sliders_back(show):
    page = show(LedgerView())
    before = status(page)
    page.get_by_label("D, model width").press("End")
    assert "Toy, changed: width 8,192" in status(page)
    page.get_by_label("toy", exact=True).click()
    assert status(page) == before


def test_a_dense_model_has_no_k_to_move(show):
    page = show(LedgerView())
    for name in ("K, active experts", "Ks, shared experts"):
        assert page.get_by_label(name).is_disabled()
    page.get_by_label("N, routed experts").press("ArrowRight")
    status(page)
    assert page.get_by_label("K, active experts").is_enabled() and page.get_by_text("K = 1 active per token").is_visible()


def test_k_beyond_n_is_said_beside_the_slider_and_in_the_summary(show):
    page = show(LedgerView(STARTS["toy MoE"]))
    page.evaluate("model.receive({ num_experts: 4 })")
    assert "K is 4, not 6: there are no more experts to choose." in status(page)
    assert page.get_by_label("K, active experts").get_attribute("aria-valuetext") == "K = 4, not 6: all N are active"


def test_the_button_keeps_an_outline_and_lets_it_go(show):
    view = LedgerView()
    page = show(view, live=True)
    page.get_by_role("button", name="Keep as outline").press("Enter")
    assert "Against the outline (toy): total × 1.00" in status(page)
    page.get_by_label("N, routed experts").press("End")
    assert "Against the outline (toy): total × 271" in status(page) and agree(page, view)
    assert view.outline[1].to_dict() == STARTS["toy"].to_dict()
    page.get_by_role("button", name="Remove the outline").press("Enter")
    assert "outline" not in status(page) and agree(page, view) and view.outline is None


def test_reset_goes_back_to_the_start_and_its_outline(show):
    view = compared()
    page = show(view, live=True)
    before = status(page)
    page.get_by_label("toy", exact=True).click()
    page.get_by_role("button", name="Remove the outline").click()
    page.get_by_label("D, model width").press("End")
    assert status(page) != before
    page.get_by_role("button", name="Reset").press("Enter")
    assert status(page) == before and agree(page, view) and view.summary == before


def test_a_model_of_the_readers_own_is_a_start_among_the_others(show):
    page = show(LedgerView(ModelConfig(Sparse(7, 3, 20), layers=5, width=72, heads=3), name="<b>mine</b>"))
    assert page.get_by_label("this model").is_checked() and page.get_by_text("N = 7 routed experts").is_visible()
    assert page.locator(".moe-title").inner_text() == "<b>mine</b>"


# --- bars ------------------------------------------------------------------------------------------------------------


def test_bars_are_as_long_as_their_numbers_on_one_axis(show):
    view = compared()
    page = show(view)
    stack = ".moe-ledger-stack:nth-child({}) > .moe-ledger-part"
    for row, bar in ((2, "total"), (4, "active"), (6, "flops")):
        half = 2 if bar == "flops" else 1
        expected = [getattr(cost, bar) / half / view.top for cost in shown_parts(MOE).values()]
        assert widths(page, stack.format(row)) == pytest.approx(expected, abs=1e-3)
    other = model_cost(PUBLISHED["LLaMA2 7B"])
    assert widths(page, ".moe-ledger-outline") == pytest.approx(
        [length / view.top for length in (other.total, other.active, other.flops / 2)], abs=1e-3)


def test_the_axis_says_when_it_has_grown(show):
    page = show(LedgerView())
    assert "200 k" in page.locator(".moe-ledger-ticks").first.inner_text()
    page.get_by_label("N, routed experts").press("ArrowRight")
    status(page)
    assert page.get_by_text("has grown").count() == 0
    page.evaluate("model.receive({ num_experts: 8 })")
    status(page)
    assert page.get_by_text("The axis has grown × 4.").is_visible()
    assert "800 k" in page.locator(".moe-ledger-ticks").first.inner_text()


def test_the_table_has_every_number_of_the_bars(show):
    page = show(compared())
    rows = [row.split("\t") for row in page.locator(".moe-ledger-table").inner_text().splitlines() if row]
    assert rows == [["part", "parameters", "used", "FLOPs"], ["embedding and head", "419 M", "210 M", "419 M"],
                    ["attention and norms", "470 M", "470 M", "1.88 G"], ["dense FFN", "67.2 M", "67.2 M", "134 M"],
                    ["shared experts", "467 M", "467 M", "934 M"], ["router", "3.54 M", "3.54 M", "7.08 M"],
                    ["routed experts", "14.9 B", "1.40 B", "2.80 G"]]


def test_a_name_stands_in_its_part_only_where_it_fits(show):
    page = show(compared())
    status(page)
    assert page.evaluate("""[...document.querySelectorAll(".moe-ledger-part")].filter((node) => node.textContent)
      .map((node) => [node.textContent, node.scrollWidth <= node.clientWidth])""") == [["routed experts", True]]


# --- looks -----------------------------------------------------------------------------------------------------------


def test_the_outline_is_in_the_ink_of_the_theme(show):
    page = show(compared(), color_scheme="dark")
    edge = "getComputedStyle(document.querySelector('.moe-ledger-outline')).borderTopColor"
    assert page.evaluate(edge) == "rgb(236, 239, 242)"


@pytest.mark.parametrize("view", [LedgerView, compared])
def test_it_fits_every_width_and_the_bars_keep_their_shares(show, view):
    page = show(view())
    before = widths(page, ".moe-ledger-part")
    for width in (1280, 1000, 760, 480):
        page.set_viewport_size({"width": width, "height": 720})
        assert widths(page, ".moe-ledger-part") == pytest.approx(before, abs=2e-3)
        assert_it_fits(page, width)
    page.evaluate("(state) => model.receive(state)", {name: values[-1] for name, values in LedgerView().choices.items()})
    status(page)
    assert_it_fits(page, 480)
