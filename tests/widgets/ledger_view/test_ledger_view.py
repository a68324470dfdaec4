"""The ledger: what it counts, what it refuses, and by meaning what it shows; test_every_widget_browser.py asks the rest."""

from dataclasses import asdict, replace

import pytest
from widget_harness import made, put, status

from moe_lesson import Cost, Dense, LanguageModel, ModelConfig, Sparse, model_cost
from moe_lesson.lm.ledger import NOTHING, PUBLISHED, ffn_parts, parts
from moe_lesson.moe.recipes import Pooled
from moe_lesson.widgets import LedgerView
from moe_lesson.widgets.ledger_view.data import CHOICES, COURSE, STARTS

MOE = Sparse(8, 2, 16, num_shared=1)
BIG = PUBLISHED["DeepSeekMoE 16B"]


def mixed(*recipes) -> ModelConfig:
    return ModelConfig(recipes, layers=len(recipes), width=32)


def parts_of(config: ModelConfig) -> dict[str, Cost]:
    """The parts of the bars, as the package's ledger counts them."""
    whole = parts(config)
    layers = [ffn_parts(recipe, config.width) for recipe in config.recipes]
    return {"embedding": whole["embedding"] + whole["head"], "attention": whole["attention"] + whole["norms"],
            **{part: sum((layer.get(part, NOTHING) for layer in layers), NOTHING)
               for part in ("dense", "shared", "router", "routed")}}


# --- models in and out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [
    *STARTS.values(), ModelConfig(), ModelConfig(Sparse(7, 3, 20, 1, "sigmoid", False, 2.5, True), layers=5, width=48, heads=3),
    mixed(Dense(16), Dense(16), Dense(16), MOE, MOE), mixed(Dense(16), Dense(24)),
])
def test_a_model_comes_out_as_it_went_in(config):
    view = LedgerView(config)
    assert view.config.to_dict() == config.to_dict() and view.cost == model_cost(config)


@pytest.mark.parametrize("config", [mixed(MOE, Dense(16)), mixed(Dense(16), Dense(24), MOE), mixed(MOE, Sparse(8, 1, 16))])
def test_layers_in_another_order_are_refused(config):
    for arguments in ({"config": config}, {"compare": config}):
        with pytest.raises(ValueError, match="mixes . kinds of .* leading dense layers .*ledger.parts counts any"):
            LedgerView(**arguments)


def test_what_is_no_config_is_refused():
    with pytest.raises(ValueError, match="Dense.hidden=3. is no ModelConfig; use ModelConfig"):
        LedgerView(Dense(3))


def test_the_models_to_start_from_are_the_published_ones_and_the_courses_own():
    assert STARTS == COURSE | PUBLISHED and all(STARTS[name] is PUBLISHED[name] for name in PUBLISHED)
    for name, config in STARTS.items():
        assert LedgerView(config).model == name
        assert made(LedgerView(ModelConfig()), num_experts=8, width=512, model=name).config.to_dict() == config.to_dict()
    assert LedgerView(ModelConfig()).model == "this model"


def test_a_pool_is_shown_as_the_mixture_that_it_is():
    pooled = ModelConfig(Pooled(8, 2, 16, pool=4, document=64))
    assert LedgerView(pooled).cost == LedgerView(ModelConfig(Sparse(8, 2, 16))).cost


def test_a_config_of_the_widget_can_be_built():
    view = made(LedgerView(), num_experts=14, top_k=3, hidden=16, width=96)
    model = LanguageModel(view.config)
    assert sum(p.numel() for p in model.parameters()) == view.cost.total


def test_a_model_of_odd_sizes_gets_its_values_on_the_sliders():
    view = LedgerView(ModelConfig(Sparse(7, 3, 20, 1), layers=5, width=72, heads=3, context=100))
    assert {72} <= set(view.choices["width"]) and {7} <= set(view.choices["num_experts"])
    assert made(view, model="toy", width=72).config.width == 72


# --- arithmetic in the browser -----------------------------------------------------------------------------------------


def cases() -> dict[str, LedgerView]:
    """Every start, every end of every slider, and where two implementations part ways."""
    views = {f"from {name}": LedgerView(config) for name, config in STARTS.items()}
    for name in ("toy", "toy MoE", "DeepSeekMoE 16B"):
        for slider, values in CHOICES.items():
            for value in (values[0], values[-1]):
                views[f"{name}, {slider} {value}"] = made(LedgerView(STARTS[name]), **{slider: value})
    for end in (0, -1):
        views[f"all sliders at {end}"] = made(LedgerView(), **{slider: values[end] for slider, values in CHOICES.items()})
    toy = STARTS["toy MoE"]
    return views | {
        "K = N": made(LedgerView(toy), num_experts=8, top_k=8),
        "K > N": made(LedgerView(toy), num_experts=4),
        "a noisy router": LedgerView(replace(toy, ffn=replace(toy.ffn, noisy=True))),
        "three leading layers": LedgerView(mixed(Dense(16), Dense(16), Dense(16), MOE, MOE)),
        "no more than the leading layers": made(LedgerView(mixed(Dense(16), Dense(16), Dense(16), MOE)), layers=2),
        "two sizes of dense layer": LedgerView(mixed(Dense(16), Dense(24))),
    }


def golden(name: str, view: LedgerView) -> dict:
    sizes = view.models[view.model] | {slider: getattr(view, slider) for slider in CHOICES}
    assert sum(parts_of(view.config).values(), NOTHING) == view.cost and view.cost.total < 2 ** 53 > view.cost.flops
    return {"name": name, "sizes": sizes, "parts": {part: asdict(cost) for part, cost in parts_of(view.config).items()},
            "cost": asdict(view.cost)}


def test_javascript_counts_what_python_does(node):
    vectors = {"cases": [golden(name, view) for name, view in cases().items()]}
    assert f"pass {len(vectors['cases']) + 3}" in node("ledger_view/ledger_view.test.mjs", vectors)


# --- what it shows -----------------------------------------------------------------------------------------------------


def test_it_says_what_exists_and_what_a_token_pays(show):
    page = show(LedgerView(BIG, compare=PUBLISHED["LLaMA2 7B"]))
    assert status(page) == (
        "DeepSeekMoE 16B: 16.4 B parameters, 95% of them in feed-forward layers. A token uses 2.62 B (16%) and pays 6.18 GFLOPs. "
        "Against the outline (LLaMA2 7B): exist × 2.43, used × 0.396, FLOPs × 0.402.")
    page.get_by_text("More", exact=True).click()
    assert page.get_by_text("the parameters take 32.8 Gbytes").is_visible() and page.get_by_text("2.83 B are active").is_visible()
    rows = [row.split("\t") for row in page.locator(".moe-sheet").inner_text().splitlines() if row]
    assert rows == [["part", "parameters", "used", "FLOPs"], ["embedding and head", "419 M", "210 M", "419 M"],
                    ["attention and norms", "470 M", "470 M", "1.88 G"], ["dense FFN", "67.2 M", "67.2 M", "134 M"],
                    ["shared experts", "467 M", "467 M", "934 M"], ["router", "3.54 M", "3.54 M", "7.08 M"],
                    ["routed experts", "14.9 B", "1.40 B", "2.80 G"]]


def test_bars_are_as_long_as_their_numbers_on_the_axis_of_their_unit(show):
    page = show(LedgerView(BIG, compare=PUBLISHED["LLaMA2 7B"]))
    status(page)
    found = page.locator(".moe-ledger .moe-chart").evaluate_all("""(charts) => charts.map((chart) => [
      chart.querySelector(".moe-x .domain").getBBox().width, chart.querySelector(".moe-x-title").textContent,
      [...chart.querySelectorAll("rect.moe-bar")].map((bar) => Number(bar.getAttribute("width")))])""")
    for (axis, title, widths), unit, bars, top in zip(found, ("parameters", "FLOPs"), (("total", "active"), ("flops",)),
                                                      (20e9, 40e9), strict=True):
        expected = [getattr(cost, bar) for bar in bars for cost in parts_of(BIG).values()]
        expected += [getattr(model_cost(PUBLISHED["LLaMA2 7B"]), bar) for bar in bars]
        assert title.startswith(unit) and [width / axis for width in widths] == pytest.approx(
            [length / top for length in expected], abs=1e-3)


def test_a_model_clicked_takes_all_sliders_with_it_and_a_dense_one_has_no_k(show):
    page = show(LedgerView())
    for name in ("K, active experts", "Ks, shared experts"):
        assert page.get_by_label(name).is_disabled()
    page.get_by_label("N, routed experts").press("End")
    assert status(page).startswith("toy, changed: ") and page.get_by_label("K, active experts").is_enabled()
    page.get_by_label("LLaMA2 7B", exact=True).check()
    assert status(page).startswith("LLaMA2 7B: 6.74 B parameters")


def test_the_model_that_was_chosen_can_be_begun_from_again(show):
    page = show(LedgerView(BIG), live=True)
    page.get_by_label("toy", exact=True).click()
    page.get_by_label("N, routed experts").press("End")
    assert status(page).startswith("toy, changed: ")
    page.get_by_label("toy", exact=True).click()
    assert status(page).startswith("toy: ")


def test_k_beyond_n_is_all_there_are_and_it_says_so(show):
    page = show(made(LedgerView(STARTS["toy MoE"]), num_experts=4))
    assert "K is 4, not 6: there are no more experts to choose." in status(page)


def test_the_button_keeps_an_outline_and_lets_it_go(show):
    view = LedgerView()
    page = show(view, live=True)
    page.get_by_role("button", name="Keep as outline").press("Enter")
    assert "Against the outline (toy): exist × 1," in status(page)
    page.get_by_label("N, routed experts").press("End")
    assert "exist × 160" in status(page)
    page.get_by_role("button", name="Remove the outline").press("Enter")
    assert "outline" not in status(page)
    page.wait_for_function("Object.keys(model.get('pinned')).length === 0")


def test_the_axis_says_when_it_has_grown(show):
    page = show(LedgerView())
    page.get_by_label("N, routed experts").press("ArrowRight")
    status(page)
    assert page.get_by_text("has grown").count() == 0
    put(page, num_experts=8)
    assert page.get_by_text("the axis has grown × 4").count() == 2


def test_what_a_model_lacks_is_not_listed_and_nothing_below_moves(show):
    page = show(LedgerView())
    height = page.locator("tbody").bounding_box()["height"]

    def listed() -> list[str]:
        return [row.locator("th").inner_text() for row in page.locator("tbody tr").all() if row.is_visible()]

    put(page, num_experts=0)
    assert listed() == ["embedding and head", "attention and norms", "dense FFN"]
    put(page, num_experts=8, num_shared=0)
    assert listed() == ["embedding and head", "attention and norms", "router", "routed experts"]
    assert page.locator("tbody").bounding_box()["height"] == height
