"""The ablation view in Python, and JavaScript beside it: what it refuses, computes, says and draws."""

import base64
import math

import numpy as np
import pytest
from ablation_view.cases import DOMAINS, EXPERTS, SHARES, made, row, rows_of, toy, view_of
from traitlets import TraitError
from widget_harness import browser_state, run_node

import moe_lesson.widgets.ablation_view.data as ablation_view
from moe_lesson.measure.evidence import Table, interval, paired_difference
from moe_lesson.widgets import AblationView
from moe_lesson.widgets.ablation_view.data import KINDS, draw_ablation
from moe_lesson.widgets.kit.base import VIEW

PNG = b"\x89PNG\r\n"
HURT, SPARED = ((0.5, 0.1), (0.6, 0.1), (0.7, 0.1)), ((0.2, 0.2), (0.2, 0.2), (0.2, 0.2))
STATES = [{"rung": rung, "domain": domain, "share": share} for rung in EXPERTS for domain in DOMAINS for share in SHARES]


# --- what the learner shall discover ---------------------------------------------------------------------------------


def test_a_domain_that_misses_its_specialists_more_than_the_control_is_told_from_one_that_does_not():
    view = toy(HURT, SPARED)
    assert view.verdict == ("Without its specialists, a is hurt more than without the control: +0.400 [+0.152,\u00a0+0.648] nats "
                            "per byte (n = 3).")
    assert "Measured against the other domains, it is hit harder than by the control: +0.500" in view.summary
    assert toy(SPARED, HURT).verdict.startswith("Without its specialists, a is hurt less than without the control: -0.400 ")
    even = toy(((0.1, 0), (0.5, 0)), ((0.2, 0), (0.2, 0)))
    assert even.verdict.startswith("Open whether a is hurt more without its specialists than without the control: +0.100 ")


def test_the_shipped_models_miss_the_control_more_and_yet_each_domain_is_hit_by_its_own_specialists():
    view = AblationView.of_table()
    assert (view.rungs, view.rung, view.domain, view.share) == (list(EXPERTS), "deepseekmoe", "python", 0.125)
    assert view.verdict.startswith("Without its specialists, python is hurt less than without the control: -0.0")
    assert "hurt more than by the control: 0, less: 1, open: 3" in view.summary
    assert view.summary.endswith("against the others, hit harder than by the control: 4, less: 0, open: 0.")


def test_a_domain_that_is_hurt_easily_is_not_taken_for_one_that_is_aimed_at():
    view = toy(((0.9, 0.5), (1.0, 0.6)), ((0.8, 0.4), (0.9, 0.5)))
    mine, control, gap = view.shown.compared("beyond")
    assert mine.mean == pytest.approx(control.mean) == pytest.approx(0.4) and "Open whether, measured against" in view.summary


def test_the_numbers_are_those_of_the_rows():
    rows, view = rows_of(), made(view_of(), rung="fine", domain="cpp", share=0.25)

    def loss(seed, kind, draw, column="test_cpp"):
        own = {"domain": "cpp", "share": 0.25} if kind != "nothing" else {}
        where = {"rung": "fine", "seed": seed, "kind": kind, "draw": draw, **own}
        [found] = [one[column] for one in rows if where.items() <= one.items()]
        return found

    mine = [loss(s, "specialists", 0) - loss(s, "nothing", 0) for s in range(5)]
    control = [np.mean([loss(s, "same load", draw) for draw in range(3)]) - loss(s, "nothing", 0) for s in range(5)]
    found = view.shown.compared("rise")
    for one, expected in zip(found, (interval(mine), interval(control), paired_difference(mine, control))):
        assert (one.mean, one.low, one.high, one.n) == pytest.approx((expected.mean, expected.low, expected.high, 5))
    calls = [loss(s, "specialists", 0, "calls_cpp") for s in range(5)]
    assert view.shown.compared("calls")[0].mean == pytest.approx(np.mean(calls))
    assert view.shown.compared("per call")[0].mean == pytest.approx(np.mean(np.divide(mine, calls)))
    others = [np.mean([loss(s, "specialists", 0, f"test_{d}") - loss(s, "nothing", 0, f"test_{d}")
                       for d in ("python", "english", "yaml")]) for s in range(5)]
    assert view.shown.compared("beyond")[0].mean == pytest.approx(np.mean(mine) - np.mean(others))
    numbers = view.state["panels"]["rise"][2][0]
    assert numbers == pytest.approx([found[0].mean, found[0].low, found[0].high, *mine], rel=1e-5)


def test_the_words_count_all_domains_and_name_the_means_of_both_panels():
    view = toy(HURT, SPARED)
    assert view.summary == (
        f"toy, toy: 2 of 8 routed experts are missing in each layer. {view.verdict} Measured against the other domains, it is "
        "hit harder than by the control: +0.500 [+0.252,\u00a0+0.748]. Rise of the loss (calls lost), specialists | same load: a "
        "+0.600 (20.0%) | +0.200 (10.0%); b +0.100 (10.0%) | +0.200 (10.0%). The rise of a per lost call: open. Of all 2 domains "
        "at this share, hurt more than by the control: 1, less: 0, open: 1; against the others, hit harder than by the control: "
        "1, less: 0, open: 1.")
    assert view.state["rows"] == [
        ["rise", "+0.600 [+0.352,\u00a0+0.848]", "+0.200 [+0.200,\u00a0+0.200]", "+0.400 [+0.152,\u00a0+0.648]"],
        ["calls lost", "20.0% [20.0%,\u00a020.0%]", "10.0% [10.0%,\u00a010.0%]", "+10.0% [+10.0%,\u00a0+10.0%]"],
        ["rise / calls lost", "+3.000 [+1.758,\u00a0+4.242]", "+2.000 [+2.000,\u00a0+2.000]", "+1.000 [-0.242,\u00a0+2.242]"],
        ["rise − others' mean", "+0.500 [+0.252,\u00a0+0.748]", "0.000 [0.000,\u00a00.000]", "+0.500 [+0.252,\u00a0+0.748]"]]


def test_where_no_call_was_lost_there_is_no_rise_per_call():
    view = toy(HURT, SPARED, calls=((0.2, 0.1), (0.0, 0.1)))
    assert view.state["rows"][2] == ["rise / calls lost", "–", "–", "–"]
    assert "The rise of a per lost call: none was lost." in view.summary and view.picture().startswith(PNG)


def test_the_share_is_said_in_experts_rounded_as_the_experiment_rounds():
    words = [made(view_of(seeds=2), **state).state["taken"] for state in STATES if state["domain"] == "cpp"]
    assert words == [f"{share} of the experts: {gone}" for share, gone in zip(
        3 * ["1/16", "1/8", "1/4"], ["1 of 16", "2 of 16", "4 of 16", "4 of 64", "8 of 64", "16 of 64", "4 of 62", "8 of 62",
                                     "16 of 62"])]


def test_the_default_state_is_the_last_model_the_first_domain_and_the_middle_share():
    view = view_of(experts=EXPERTS)
    assert (view.rung, view.domain, view.share) == ("deepseekmoe", "python", 0.125)
    view = view_of(experts=EXPERTS, rung="fine", domain="yaml", share=0.25)
    assert (view.shown.rung, view.shown.own, view.shown.share) == ("fine", "yaml", 0.25)


def test_the_table_is_read_in_the_order_of_the_lesson_and_without_other_models(monkeypatch):
    rows = rows_of(("deepseekmoe", "something else", "gshard", "fine"), seeds=2)
    monkeypatch.setattr(ablation_view, "result_table", lambda name: Table(rows, {}) if name == "ladder-cpu-ablations" else None)
    view = AblationView.of_table()
    assert view.rungs == ["gshard", "fine", "deepseekmoe"] and view.origin == "trained"


# --- fixed axes, the picture, what a notebook stores -----------------------------------------------------------------


def test_no_state_moves_an_axis_and_every_number_is_within():
    view = view_of(seeds=3)
    limits = set()
    for state in STATES:
        axes = draw_ablation(made(view, **state)).axes
        limits.add((axes[0].get_xlim(), axes[1].get_xlim()))
        for panel, axis in view.axes.items():
            numbers = [value for kinds in view.state["panels"][panel] for one in kinds for value in one]
            assert max(numbers) < axis["high"] and (panel == "calls" or min(numbers) > axis["low"])
    assert len(limits) == 1 and view.axes["rise"]["low"] < 0 and [0, "0"] in view.axes["rise"]["ticks"]


def test_the_picture_has_a_ring_for_each_seed_and_the_numbers_of_the_page():
    view = view_of(seeds=3)
    figure = draw_ablation(view)
    rise, calls, table = figure.axes
    assert sum(len(rings.get_offsets()) for rings in rise.collections if len(rings.get_offsets()) == 3) == 3 * 2 * 4
    assert [text.get_text() for text in rise.texts if text.get_fontweight() == "bold"] == ["python"]
    assert table.tables[0].get_celld()[1, 3].get_text().get_text() == view.state["rows"][0][3]
    assert view.verdict in figure.get_suptitle() and "synthetic" in figure.get_suptitle()


def test_the_bundle_holds_the_view_and_a_picture_that_stays_the_same():
    view = view_of(seeds=2)
    assert base64.b64decode(view._repr_mimebundle_()[0]["image/png"]).startswith(PNG) and VIEW in view._repr_mimebundle_()[0]
    assert repr(view) == ("AblationView('Take the specialists away', synthetic: gshard, fine, deepseekmoe; 2 seeds, 4 domains, "
                          "1/16, 1/8, 1/4 of the experts)")
    assert view.picture() == view_of(seeds=2).picture() != made(view, share=0.25).picture()


# --- validation ------------------------------------------------------------------------------------------------------


def changed(where: dict, change: dict) -> list[dict]:
    return [one | change if where.items() <= one.items() else one for one in rows_of(seeds=2)]


def without(**where) -> list[dict]:
    return [one for one in rows_of(seeds=2) if not where.items() <= one.items()]


FIRST = {"rung": "gshard", "seed": 0, "kind": "specialists", "domain": "cpp", "share": 0.125}


@pytest.mark.parametrize("words,rows", [
    ("rows is list of 0; expected those of an ablation table, or use AblationView.of_table", []),
    ("rows is str of 5", "table"),
    ("judge 1 domain; expected columns test_… of at least 2", [{"test_a": 1.0, "calls_a": 0.0}]),
    ("a row has no column calls_b, domain, kind, rung, seed, share;", [{"test_a": 1, "test_b": 1, "calls_a": 0}]),
    (r"how many experts has 'other'\? experts names gshard, fine, deepseekmoe; add it", changed(FIRST, {"rung": "other"})),
    ("unknown kind 'luck'; expected nothing, specialists, same load", changed(FIRST, {"kind": "luck"})),
    ("'specialists' has the domain 'rust'; expected python or english or cpp or yaml", changed(FIRST, {"domain": "rust"})),
    ("share 0.01 of the 16 experts of gshard is 0; expected 1 … 15", changed(FIRST, {"share": 0.01})),
    ("no row for gshard, seed 0, 'specialists', cpp, share 0.125; let the experiment run to its end", without(**FIRST)),
    ("no row for fine, seed 1, 'nothing'; let", without(rung="fine", seed=1, kind="nothing")),
    ("no row for gshard, seed 1, 'same load', yaml, share 0.25; let", without(
        rung="gshard", seed=1, kind="same load", domain="yaml", share=0.25)),
    ("there are 2 rows for gshard, seed 0, 'specialists', cpp, share 0.125; expected one",
     [*rows_of(seeds=2), row(**FIRST, draw=1, test=[1] * 4, calls=[0] * 4)]),
    ("fine has 1 seed; an interval over seeds needs at least 2", without(rung="fine", seed=1)),
    (r"no row of the kind 'specialists' or 'same load'", [one for one in rows_of() if one["kind"] == "nothing"]),
    (r"test_… of gshard, seed 0, 'specialists', cpp, share 0.125 is .*nan.*; expected losses",
     changed(FIRST, {"test_yaml": math.nan})),
    (r"calls_… of .* is .*1.5.*; expected shares from 0 to 1", changed(FIRST, {"calls_cpp": 1.5})),
])
def test_rows_that_no_experiment_gives_are_refused_with_value_and_remedy(words, rows):
    with pytest.raises(ValueError, match=words):
        AblationView(rows, EXPERTS, origin="synthetic")


def test_wrong_settings_are_refused_at_first_and_later():
    with pytest.raises(ValueError, match="origin is 'real'"):
        view_of(origin="real")
    with pytest.raises(ValueError, match="share is 0.5; choose one of 0.0625, 0.125, 0.25"):
        view_of(share=0.5)
    view = view_of(seeds=2)
    before = view.summary
    for trait, value in (("rung", "dense"), ("domain", "rust"), ("share", 0.2)):
        with pytest.raises(TraitError, match=f"{trait} is {value!r}; choose one of "):
            setattr(view, trait, value)
    assert view.summary == before


# --- JavaScript shows the same state -----------------------------------------------------------------------------------


def test_javascript_shows_what_python_says(tmp_path):
    views = {"all models": (view_of(), STATES), "one share": (toy(HURT, SPARED), [{}])}
    cases = []
    for name, (view, states) in views.items():
        found = [{"settings": state, "summary": made(view, **state).summary, "verdict": view.verdict, "rows": view.state["rows"],
                  "rises": [[sent_mean(view.shown.rise_SM[kind][:, d]) for kind in KINDS] for d in range(len(view.domains))]}
                 for state in states]
        assert len({one["summary"] for one in found}) == len(states)
        cases.append({"name": name, "traits": browser_state(view), "states": found})
    assert "pass 4" in run_node("ablation_view", AblationView._esm, {"cases": cases}, tmp_path)


def sent_mean(values: np.ndarray) -> float:
    """The mean as it is sent."""
    return float(f"{interval(values.tolist()).mean:.6g}")
