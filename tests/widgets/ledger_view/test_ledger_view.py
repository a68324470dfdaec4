"""The ledger widget in Python and, through node, in JavaScript: what it counts, what it says, what it refuses."""

import base64
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace

import pytest
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson import Cost, Dense, LanguageModel, ModelConfig, Sparse, model_cost
from moe_lesson.lm.ledger import PUBLISHED, ffn_cost, parts
from moe_lesson.widgets import LedgerView
from moe_lesson.widgets.kit.base import VIEW
from moe_lesson.widgets.ledger_view.data import (
    AXES,
    CHOICES,
    COURSE,
    FEED_FORWARD,
    STARTS,
    Sizes,
    amount,
    axis_top,
    draw_ledger,
    notes,
    share_in_words,
    shown_parts,
    ticks,
)

PNG = b"\x89PNG\r\n"
MOE = Sparse(8, 2, 16, num_shared=1)


def made(view: LedgerView, **settings) -> LedgerView:
    for name, value in settings.items():
        setattr(view, name, value)
    return view


def mixed(*recipes) -> ModelConfig:
    return ModelConfig(recipes, layers=len(recipes), width=32)


# --- what a notebook stores ------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_view_and_a_picture():
    view = LedgerView()
    bundle = view._repr_mimebundle_()[0]
    assert base64.b64decode(bundle["image/png"]).startswith(PNG) and bundle[VIEW]["model_id"] == view.model_id
    assert bundle["text/plain"] == repr(view) == repr(LedgerView()) == (
        "LedgerView('ledger', toy: Total 139,584 parameters; a token uses 123,264 (88%) and pays 376,832 FLOPs; "
        "the feed-forward layers hold 53% of the parameters.)")


def test_the_picture_shows_every_part_at_its_length_the_outline_and_whose_it_is():
    config, other = STARTS["DeepSeekMoE 16B"], STARTS["LLaMA2 7B"]
    figure = draw_ledger(config, ("LLaMA2 7B", other), 20_000_000_000, "ledger · DeepSeekMoE 16B · computed")
    ax, (legend,) = figure.axes[0], figure.legends
    assert ax.get_xlim() == (0, 20_000_000_000) and ax.get_title().endswith("computed")
    assert legend.get_texts()[-1].get_text() == "outline: LLaMA2 7B"
    *stacks, outline = ax.containers
    for which, bar in enumerate(("total", "active", "flops")):
        half = 2 if bar == "flops" else 1
        assert sum(stack[which].get_width() for stack in stacks) == getattr(model_cost(config), bar) / half
        assert outline[which].get_width() == getattr(model_cost(other), bar) / half


def test_the_widgets_picture_is_of_what_the_sliders_show():
    view = LedgerView()
    before = view.picture()
    assert made(view, num_experts=8).picture() != before
    assert LedgerView(compare=STARTS["toy MoE"]).picture() != before


RERUN = textwrap.dedent("""
    import gc
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    for _ in range(50):
        shell.run_cell("from moe_lesson.widgets import LedgerView; view = LedgerView()", store_history=True).raise_error()
    from moe_lesson.widgets.kit.base import LIVE
    gc.collect()
    print(len(LIVE))
    print(repr(shell.user_ns["view"]))
""")


def test_fifty_runs_of_a_cell_leave_one_widget_with_the_same_line():
    done = subprocess.run([sys.executable, "-c", RERUN], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["1", repr(LedgerView())], done.stderr


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


def test_the_starts_are_the_published_models_and_the_courses_own():
    assert STARTS == COURSE | PUBLISHED and all(STARTS[name] is PUBLISHED[name] for name in PUBLISHED)
    for name, config in STARTS.items():
        assert LedgerView(config).label == made(LedgerView(), start=name).label == name
        assert made(LedgerView(), start=name).config.to_dict() == config.to_dict()
    assert LedgerView(ModelConfig()).label == "this model"


def test_a_config_of_the_widget_can_be_built():
    view = made(LedgerView(), num_experts=14, top_k=3, hidden=16, width=96)
    model = LanguageModel(view.config)
    assert sum(p.numel() for p in model.parameters()) == view.cost.total


# --- controls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("slider", CHOICES)
def test_every_slider_works_at_its_ends_and_from_every_start(start, slider):
    for value in (CHOICES[slider][0], CHOICES[slider][-1]):
        view = made(LedgerView(STARTS[start]), **{slider: value})
        assert view.label in (start, f"{start}, changed")
        assert view.cost == model_cost(view.config) and view.cost.total < 2 ** 53
        assert amount(view.cost.total) in view.summary


@pytest.mark.parametrize("end", [0, -1])
def test_all_sliders_at_their_ends_give_a_model_and_a_picture(end):
    view = made(LedgerView(), **{slider: values[end] for slider, values in CHOICES.items()})
    assert view.picture().startswith(PNG) and view.cost.flops < 2 ** 53
    assert view.config.width == CHOICES["width"][end]


def test_more_experts_grow_the_model_and_not_what_a_token_pays():
    view = LedgerView()
    dense = view.cost
    view.num_experts = 8
    router = 2 * 64 * 8
    assert view.cost == Cost(dense.total + 7 * 2 * 3 * 64 * 192 + router, dense.active + router, dense.flops + 2 * router)


def test_k_beyond_n_is_all_there_are_and_says_so():
    view = made(LedgerView(STARTS["toy MoE"]), num_experts=4)
    assert view.config.recipes[0].top_k == 4 and "K is 4, not 6: there are no more experts to choose." in view.summary
    view.num_experts = 62
    assert view.config.recipes[0].top_k == 6 and "not 6" not in view.summary


@pytest.mark.parametrize("settings", [{"width": 65}, {"layers": 0}, {"num_experts": -1}, {"top_k": 0}, {"start": "GPT-9"}])
def test_a_value_that_the_control_has_not_is_refused_with_those_it_has(settings):
    view = LedgerView()
    with pytest.raises(TraitError, match=r"is .*(the slider has|choose one of) \w+, "):
        made(view, **settings)
    assert view.summary == LedgerView().summary


def test_a_model_of_odd_sizes_gets_its_values_on_the_sliders():
    view = LedgerView(ModelConfig(Sparse(7, 3, 20, 1), layers=5, width=72, heads=3, context=100))
    assert {72} <= set(view.choices["width"]) and {7} <= set(view.choices["num_experts"])
    view.start = "toy"
    assert made(view, width=72).config.width == 72


def test_a_start_takes_all_sliders_with_it():
    view = made(LedgerView(), num_experts=8, width=512)
    view.start = "DeepSeekMoE 16B"
    assert view.config.to_dict() == PUBLISHED["DeepSeekMoE 16B"].to_dict()


# --- arithmetic and words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", STARTS.values())
def test_the_parts_of_the_bars_are_the_whole_model(config):
    costs = shown_parts(config)
    assert sum(costs.values(), Cost(0, 0, 0)) == model_cost(config)
    assert sum((costs[key] for key in FEED_FORWARD), Cost(0, 0, 0)) == sum(
        (ffn_cost(recipe, config.width) for recipe in config.recipes), Cost(0, 0, 0)) == parts(config)["ffn"]


def test_the_summary_of_deepseekmoe_is_true():
    view = LedgerView(PUBLISHED["DeepSeekMoE 16B"], compare=PUBLISHED["LLaMA2 7B"])
    assert view.summary == (
        "Total 16.4 B parameters; a token uses 2.62 B (16%) and pays 6.18 GFLOPs; the feed-forward layers hold 95% of the "
        "parameters. Against the outline (LLaMA2 7B): total × 2.43, active × 0.40, FLOPs × 0.40. DeepSeekMoE 16B: width "
        "2,048, context 4,096, vocabulary 102,400; 28 layers, the first with a dense FFN of 10,944 hidden units, the other "
        "27 with 64 routed experts of 1,408 hidden units, K = 6 active, and 2 shared.")
    assert "32.8 GB in bf16" in notes(view.config) and "then 2.83 B are active" in notes(view.config)


def test_numbers_keep_what_matters():
    assert [amount(n) for n in (0, 663_616, 999_999, 1_000_000, 16_375_728_128, 19_800_000_000_000)] == [
        "0", "663,616", "999,999", "1.00 M", "16.4 B", "19.8 T"]
    assert [share_in_words(part, 1000) for part in (0, 1, 125, 995, 1000)] == ["0%", "under 1%", "13%", "over 99%", "100%"]


def test_the_axis_stands_still_until_a_bar_leaves_it():
    start = Cost(139_584, 123_264, 376_832)
    assert axis_top(start) == axis_top(start, Cost(200_000, 1, 2)) == axis_top(start, Cost(10, 1, 2)) == 200_000
    assert axis_top(start, Cost(200_001, 1, 2)) == axis_top(start, Cost(1, 1, 800_000 * 2)) == 800_000
    assert axis_top(start, start, Cost(4_000_000, 1, 2)) == 12_800_000  # an outline counts like a bar
    assert ticks(12_800_000, AXES[0]) == ["0", "3.2 M", "6.4 M", "9.6 M", "12.8 M"]


@pytest.mark.parametrize("config", STARTS.values())
def test_every_start_fills_its_axis(config):
    cost = model_cost(config)
    assert 0.5 <= max(cost.total, cost.flops / 2) / axis_top(cost) <= 1


# --- JavaScript ------------------------------------------------------------------------------------------------------


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
        "no shared expert": made(LedgerView(toy), num_shared=0),
        "outline": LedgerView(PUBLISHED["DeepSeekMoE 16B"], compare=PUBLISHED["LLaMA2 7B"]),
        "an outline far larger": LedgerView(compare=PUBLISHED["DeepSeekMoE 16B"]),
        "an outline far smaller": LedgerView(PUBLISHED["DeepSeek 7B"], compare=ModelConfig()),
        "a noisy router": LedgerView(replace(toy, ffn=replace(toy.ffn, noisy=True))),
        "an unknown model": LedgerView(ModelConfig(Sparse(7, 3, 20, 1), layers=5, width=72, heads=3, context=100)),
        "three leading layers": LedgerView(mixed(Dense(16), Dense(16), Dense(16), MOE, MOE)),
        "no more than the leading layers": made(LedgerView(mixed(Dense(16), Dense(16), Dense(16), MOE)), layers=2),
        "two sizes of dense layer": LedgerView(mixed(Dense(16), Dense(24))),
    }


def golden(name: str, view: LedgerView) -> dict:
    return {"name": name, "state": browser_state(view), "parts": {key: asdict(cost) for key, cost in
                                                                  shown_parts(view.config).items()},
            "cost": asdict(view.cost), "top": view.top, "summary": view.summary, "notes": notes(view.config)}


def test_javascript_counts_and_says_what_python_does(tmp_path):
    numbers = [0, 7, 999_999, 1_000_000, 9_995_000, 1_125_000_000, 999_600_000, 10 ** 12, 19_791_209_299_968]
    tops = [step * 10 ** power * 4 ** grown for step in (1, 2, 4, 6, 8, 10) for power in (3, 5, 9) for grown in range(8)]
    vectors = {"cases": [golden(name, view) for name, view in cases().items()],
               "amounts": [[n, amount(n)] for n in numbers],
               "percents": [[n, 1000, share_in_words(n, 1000)] for n in (0, 1, 9, 10, 25, 125, 989, 990, 995, 1000)],
               "axes": [[top, ticks(top, AXES[0])] for top in tops]}
    printed = run_node("ledger_view", LedgerView._esm, vectors, tmp_path)
    assert f"pass {len(vectors['cases']) + 3}" in printed  # every case ran


def test_sizes_that_leave_for_the_browser_come_back():
    for config in STARTS.values():
        assert Sizes(**asdict(Sizes.of(config))).config().to_dict() == config.to_dict()
