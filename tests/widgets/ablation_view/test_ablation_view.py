"""The ablation view: what it refuses, and by meaning what it shows. test_every_widget_browser.py asks the rest."""

import math

import numpy as np
import pytest
from ablation_view.cases import DOMAINS, EXPERTS, row, rows_of, toy, view_of
from widget_harness import put, status, table

import moe_lesson.widgets.ablation_view.data as ablation_view
from moe_lesson.measure.evidence import Interval, Table, interval, paired_difference
from moe_lesson.widgets import AblationView

HURT, SPARED = ((0.5, 0.1), (0.6, 0.1), (0.7, 0.1)), ((0.2, 0.2), (0.2, 0.2), (0.2, 0.2))


# --- what it refuses --------------------------------------------------------------------------------------------------


def changed(where: dict, change: dict) -> list[dict]:
    return [one | change if where.items() <= one.items() else one for one in rows_of(seeds=2)]


def without(**where) -> list[dict]:
    return [one for one in rows_of(seeds=2) if not where.items() <= one.items()]


FIRST = {"rung": "gshard", "seed": 0, "kind": "specialists", "domain": "cpp", "share": 0.125}


@pytest.mark.parametrize("words,rows", [
    ("rows is list; expected the rows of an ablation table, or use AblationView.of_table", []),
    ("rows is str; expected the rows", "table"),
    ("judge 1 domain; expected columns test_… of at least 2", [{"test_a": 1.0, "calls_a": 0.0}]),
    ("a row has no column calls_b, domain, kind, rung, seed, share;", [{"test_a": 1, "test_b": 1, "calls_a": 0}]),
    (r"how many experts has 'other'\? experts names gshard, fine, deepseekmoe; add it", changed(FIRST, {"rung": "other"})),
    ("unknown kind 'luck'; expected nothing, specialists, same load", changed(FIRST, {"kind": "luck"})),
    ("'specialists' has the domain 'rust'; expected python or english or cpp or maths", changed(FIRST, {"domain": "rust"})),
    ("share 0.01 of the 16 experts of gshard is 0; expected 1 … 15", changed(FIRST, {"share": 0.01})),
    ("no row for gshard, seed 0, 'specialists', cpp, share 0.125; let the experiment run to its end", without(**FIRST)),
    ("no row for fine, seed 1, 'nothing'; let", without(rung="fine", seed=1, kind="nothing")),
    ("there are 2 rows for gshard, seed 0, 'specialists', cpp, share 0.125; expected one",
     [*rows_of(seeds=2), row(**FIRST, draw=1, test=[1] * 4, calls=[0] * 4)]),
    ("fine has 1 seed; an interval over seeds needs at least 2", without(rung="fine", seed=1)),
    (r"no row of the kind 'specialists' or 'same load'", [one for one in rows_of() if one["kind"] == "nothing"]),
    (r"test_… of gshard, seed 0, 'specialists', cpp, share 0.125 is .*nan.*; expected losses",
     changed(FIRST, {"test_maths": math.nan})),
    (r"calls_… of .* is .*1.5.*; expected shares from 0 to 1", changed(FIRST, {"calls_cpp": 1.5})),
])
def test_rows_that_no_experiment_gives_are_refused_with_value_and_remedy(words, rows):
    with pytest.raises(ValueError, match=words):
        AblationView(rows, EXPERTS, origin="synthetic")


def test_the_table_is_read_in_the_order_of_the_lesson_and_without_other_models(monkeypatch):
    rows = rows_of(("deepseekmoe", "something else", "gshard", "fine"), seeds=2)
    monkeypatch.setattr(ablation_view, "result_table", lambda name: Table(rows, {}) if name == "ladder-cpu-ablations" else None)
    view = AblationView.of_table()
    assert view.rungs == ["gshard", "fine", "deepseekmoe"] and view.origin == "trained"
    assert (view.rung, view.domain, view.share) == ("deepseekmoe", "python", 0.125)  # the last, the first, the middle


# --- what it shows ----------------------------------------------------------------------------------------------------


def words(found: Interval, kind: str = "+.3f") -> str:
    """A mean and its interval as the page writes them: with true minus signs."""
    mean, low, high = (format(value, kind).replace("-", "\u2212") for value in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]"


def drawn(page, panel: int) -> tuple[list[float], list[float]]:
    """The means in a panel, and all seeds, read off its axis, whose ticks d3 draws half a pixel to the right."""
    status(page)
    chart = page.locator(".moe-chart").nth(panel)
    ticks = chart.locator(".moe-x .tick").evaluate_all(
        "(nodes) => nodes.map((node) => [parseFloat(node.textContent), node.transform.baseVal[0].matrix.e])")
    (first, left), (last, right) = ticks[0], ticks[-1]
    paths = chart.locator(".moe-mean").evaluate_all("(nodes) => nodes.map((node) => parseFloat(node.getAttribute('d').slice(1)))")
    rings = chart.locator(".moe-dot").evaluate_all("(nodes) => nodes.map((node) => node.cx.baseVal.value)")
    return tuple([first + (x + 0.5 - left) / (right - left) * (last - first) for x in places] for places in (paths, rings))


def test_a_domain_that_misses_its_specialists_more_than_the_control_is_told_from_one_that_does_not(show):
    hurt = status(show(toy(HURT, SPARED)))
    assert hurt.replace("\u00a0", " ") == (
        "toy, 2 of 8 experts gone: a is hurt more when its specialists go than when others do, "
        "+0.400 [+0.152, +0.648] nats per byte (3 seeds). Beyond the control, it is hit harder than the others: "
        "+0.500 [+0.252, +0.748]. All 2 domains: hurt more 1, less 0, open 1; hit harder 1, less 0, open 1.")
    assert "a is hurt less when its specialists go than" in status(show(toy(SPARED, HURT)))
    assert "open whether a is hurt more when" in status(show(toy(((0.1, 0), (0.5, 0)), ((0.2, 0), (0.2, 0)))))


def test_a_domain_that_is_hurt_easily_is_not_taken_for_one_that_is_aimed_at(show):
    page = show(toy(((0.9, 0.5), (1.0, 0.6)), ((0.8, 0.4), (0.9, 0.5))))
    assert "Open whether, beyond the control, it is hit harder than the others:" in status(page)
    assert [cell[:6] for cell in table(page)[3][1:]] == ["+0.400", "+0.400", "+0.000"]


def test_in_the_shipped_models_each_domain_is_hit_by_the_loss_of_its_own_specialists(show):
    says = status(show(AblationView.of_table()))
    assert "python is hurt more when its specialists go" in says and "it is hit harder than the others:" in says
    assert says.endswith("hurt more 4, less 0, open 0; hit harder 4, less 0, open 0.")


def test_the_numbers_are_those_of_the_rows(show):
    rows, page = rows_of(), show(view_of())
    put(page, rung="fine", domain="cpp", share=0.25)

    def column(what, kind, judged):
        """[S] of the rows; of the control, the mean over its draws."""
        where = {"rung": "fine", "kind": kind} | ({"domain": "cpp", "share": 0.25} if kind != "nothing" else {})
        values = [one[f"{what}_{judged}"] for one in rows if where.items() <= one.items()]
        return np.reshape(values, (5, -1)).mean(axis=1)

    kinds = ("specialists", "same load")
    rise = {domain: [column("test", kind, domain) - column("test", "nothing", domain) for kind in kinds] for domain in DOMAINS}
    calls = {domain: [column("calls", kind, domain) for kind in kinds] for domain in DOMAINS}
    for panel, expected, factor in ((0, rise, 1), (1, calls, 100)):
        means, seeds = drawn(page, panel)
        every = [pair for domain in DOMAINS for pair in expected[domain]]
        assert means == pytest.approx([factor * one.mean() for one in every], abs=1e-6)
        assert seeds == pytest.approx(factor * np.concatenate(every), abs=1e-4)
    others = [np.mean([rise[domain][i] for domain in DOMAINS if domain != "cpp"], axis=0) for i in (0, 1)]
    shown = {"rise of its loss": rise["cpp"], "share of its calls lost": calls["cpp"],
             "rise per lost call": [r / c for r, c in zip(rise["cpp"], calls["cpp"])],
             "rise above the others' mean": [r - o for r, o in zip(rise["cpp"], others)]}
    kind_of = {"share of its calls lost": (".1%", ".1%", "+.1%")}
    assert table(page) == [[name, *map(words, (interval(mine.tolist()), interval(control.tolist()), paired_difference(
        mine.tolist(), control.tolist())), kind_of.get(name, 3 * ("+.3f",)))] for name, (mine, control) in shown.items()]


def test_where_no_call_was_lost_there_is_no_rise_per_call(show):
    page = show(toy(HURT, SPARED, calls=((0.2, 0.1), (0.0, 0.1))))
    assert table(page)[2] == ["rise per lost call", "–", "–", "–"]


def test_the_share_is_said_in_experts_rounded_as_the_experiment_rounds(show):
    page, said = show(view_of(seeds=2)), []
    for rung in EXPERTS:
        for share in (0.0625, 0.125, 0.25):
            put(page, rung=rung, share=share)
            said.append(page.get_by_label("share of the experts").get_attribute("aria-valuetext"))
    assert said == [f"{share} of the experts: {gone}" for share, gone in zip(
        3 * ["1/16", "1/8", "1/4"], ["1 of 16", "2 of 16", "4 of 16", "4 of 64", "8 of 64", "16 of 64", "4 of 62", "8 of 62",
                                     "16 of 62"])]
    assert not show(toy(HURT, SPARED)).get_by_label("share of the experts").is_visible()  # one share: no slider


def test_no_state_moves_an_axis_and_the_domain_is_outlined(show):
    page = show(view_of(seeds=3))
    axes = set()
    for state in ({}, {"rung": "gshard", "share": 0.25}, {"domain": "maths"}):
        put(page, **state)
        axes.add("|".join(page.locator(".moe-x .tick").evaluate_all("(nodes) => nodes.map((node) => node.outerHTML)")))
    assert len(axes) == 1
    outline, name = page.locator(".moe-own").first.bounding_box(), page.locator(".moe-y .tick text", has_text="maths").first
    middle = name.bounding_box()["y"] + name.bounding_box()["height"] / 2
    assert page.locator(".moe-own").evaluate_all("(nodes) => nodes.every((node) => !node.closest('[clip-path]'))"), "whole"
    assert abs(outline["y"] + outline["height"] / 2 - middle) < 2 and name.get_attribute("font-weight") == "700"
