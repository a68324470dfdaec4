"""The specialisation view: what it refuses, what it measures, and by meaning what it shows."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
import torch
from specialisation_view.cases import DOMAINS, by_chance, by_document, census_of, censuses, view_of
from widget_harness import browser_state, put, status, table

from moe_lesson import shipped_model
from moe_lesson.lm.machine_text import machine_corpus
from moe_lesson.measure.census import lift, take_census
from moe_lesson.widgets import SpecialisationView
from moe_lesson.widgets.specialisation_view.data import NULLS, SLACK, draw_tokens, sample_sizes

TOKENS, DOCUMENTS = NULLS


def strongest(view, sample: int = 0, part: int = 0):
    """[N] each expert's strongest lift in a sample; `part` counts the layers of one router after the other."""
    return lift(torch.tensor(view.measured[sample][part]["calls"]).double()).amax(dim=1)


def above(view, null: str, sample: int = 0, part: int = 0):
    return strongest(view, sample, part) > torch.tensor(view.measured[sample][part]["nulls"][NULLS.index(null)]["band"]) + SLACK


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_wrong_censuses_are_refused_with_value_and_remedy():
    census = census_of()
    for words, found in (
            ("censuses is dict or empty", {}), ("censuses is Census or empty; expected name -> Census", census),
            (r"censuses\['a'\] is str; expected a Census", {"a": "b"}),
            ("there are 5 routers; the view shows at most 4", dict.fromkeys("abcde", census)),
            ("'b' is of other documents or layers", {"a": census, "b": census_of(sizes=(12, 9))}),
            ("'b' is of other documents or layers", {"a": census, "b": census_of(tokens=41)}),
            ("there are 1 domains; a lift needs at least 2", {"a": census_of(domains=("a",))}),
            ("there are 9 domains; .* at most 8", {"a": census_of(domains=tuple("abcdefghi"), sizes=(12,))}),
            ("'python' has 15 tokens; the smallest sample takes 16", {"a": census_of(documents=1, tokens=15)})):
        with pytest.raises(ValueError, match=words):
            SpecialisationView.of_census(found)
    with pytest.raises(ValueError, match="seed is -1; expected"):
        SpecialisationView.of_census({"a": census}, seed=-1)


# --- what it measures -------------------------------------------------------------------------------------------------


def test_samples_double_hold_the_smaller_ones_and_take_as_much_of_every_domain():
    census = census_of()
    assert sample_sizes(census) == [64, 128, 256, 512]  # 200 tokens of each domain: 1024 would need 256
    assert sample_sizes(census_of(domains=DOMAINS[:3])) == [48, 96, 192, 384]
    assert sample_sizes(census_of(documents=100, tokens=100))[-1] == 16384
    drawn = draw_tokens(census, 512, torch.Generator().manual_seed(1))
    assert len(drawn.unique()) == 512
    for size in (64, 512):
        assert torch.bincount(census.labels("domain")[drawn[:size]]).tolist() == [size // 4] * 4


def test_calls_are_those_of_a_census_of_the_sampled_tokens_and_a_seed_draws_others():
    found = censuses()
    view, census = SpecialisationView.of_census(found, seed=3), found["random router"]
    drawn = draw_tokens(census, 512, torch.Generator().manual_seed(3))[:128]
    few = dataclasses.replace(census, document_T=census.document_T[drawn], token_T=census.token_T[drawn],
                              predicted_T=census.token_T[drawn], expert_ids=tuple(ids[drawn] for ids in census.expert_ids))
    for layer in (0, 1):  # the second sample, the second router
        assert view.measured[1][2 + layer]["calls"] == few.calls(layer).sum(dim=0).tolist()
    assert SpecialisationView.of_census(found, seed=3).measured == view.measured != SpecialisationView.of_census(found).measured


def test_the_nulls_are_quantiles_of_the_census_own_shuffles():
    census = dataclasses.replace(census_of(by_document), domain_F=torch.arange(4).repeat_interleave(5))
    view = SpecialisationView.of_census({"one": census})
    for null, shuffle in zip(view.measured[-1][0]["nulls"], (census.shuffled, census.shuffled_documents)):
        drawn_PN = torch.stack([lift(shuffle(seed).calls(0).sum(dim=0)).amax(dim=1) for seed in range(200)])
        assert null["mean"] == pytest.approx(drawn_PN.mean(dim=1).median().item(), rel=0.05)
        assert null["count"] == pytest.approx((drawn_PN >= 1.5 - SLACK).sum(dim=1).median().item(), abs=1)
        assert sum(null["band"]) / 12 == pytest.approx(drawn_PN.quantile(0.95, dim=0).mean().item(), rel=0.1)


def test_routing_by_chance_stands_above_in_one_case_of_twenty_and_what_belongs_to_documents_above_the_first_null_alone():
    def share(liking, null: str, **more) -> float:
        views = [SpecialisationView.of_census({"one": census_of(liking, seed=seed, sizes=(60,), **more)}, seed=seed)
                 for seed in range(12)]
        return sum(above(view, null, -1).double().mean().item() for view in views) / len(views)

    assert 0.02 < share(by_chance, TOKENS) < 0.08 > share(by_chance, DOCUMENTS)
    grouped = {"documents": 8, "tokens": 100}
    assert share(by_document, TOKENS, **grouped) > 0.8 > 0.1 > share(by_document, DOCUMENTS, **grouped)


def test_in_a_small_sample_most_experts_look_like_specialists_by_chance_and_in_a_large_one_none_does(show):
    found = take_census(shipped_model("ladder-deepseekmoe")[0], machine_corpus(splits=("test",)), limit=250)
    view = SpecialisationView.of_census(found, name="DeepSeekMoE")
    page = show(view)
    few, many = measured(page)["trained"], measured(page, sample=view.samples[-1])["trained"]
    assert few[0] > 45 and few[1] > 40 and few[2] < 15 and 40 < many[0] < few[0] and many[1] == 0 and many[2] > 50
    assert few[3] > 2 > many[3] > 1.7 > 1.1 > many[4]  # those by chance are gone, most of the others are there
    assert measured(page, null=DOCUMENTS)["trained"][4] > many[4] + 0.03
    second = measured(page, layer=1)
    assert second["trained"][3] > second["random router"][3] + 0.1


def test_the_browser_counts_lifts_and_specialists_as_the_package_does(node):
    view, cases = view_of(), []
    for sample, router, layer, null in itertools.product((0, 3), (0, 1, 2), (0, 1), NULLS):
        part = 2 * router + layer
        lifts = strongest(view, sample, part)
        cases.append({
            "chosen": {"sample": view.samples[sample], "router": view.routers[router], "layer": layer, "null": null},
            "lifts": lifts.tolist(), "favourites": np.argmax(view.measured[sample][part]["calls"], axis=1).tolist(),
            "above": above(view, null, sample, part).tolist(), "specialists": int((lifts >= 1.5).sum()),
            "mean": lifts[lifts > 0].mean().item()})
    vectors = {"state": browser_state(view), "cases": cases}
    assert f"pass {len(cases)}" in node("specialisation_view/specialisation_view.test.mjs", vectors)


# --- what it shows ----------------------------------------------------------------------------------------------------


def measured(page, **state) -> dict[str, list[float]]:
    """Of each router: specialists in the sample, shuffled, above their null; mean strongest lift, shuffled."""
    put(page, **state)
    return {name: list(map(float, numbers)) for name, *numbers in table(page, ".moe-sheet tbody tr")}


def dots(page) -> list[dict]:
    """The experts' dots: their lifts, read off the axis, which d3 draws half a pixel lower; those of the bands behind them; the
    dots' colours, and whether they are filled."""
    status(page)
    chart = page.locator(".moe-chart").first
    (low, bottom), *_, (high, top) = chart.locator(".moe-y .tick").evaluate_all(
        "(nodes) => nodes.map((node) => [parseFloat(node.textContent), node.transform.baseVal[0].matrix.f - 0.5])")
    found = chart.locator(".moe-dot").evaluate_all("""(nodes) => nodes.map((node) => ({ lift: node.cy.baseVal.value,
      colour: node.getAttribute("stroke"), filled: node.getAttribute("fill") !== "none" }))""")
    bands = re.findall(r"V([\d.e-]+)h", chart.locator(".moe-band").get_attribute("d"))

    def on_axis(y: float) -> float:
        return low * (high / low) ** ((y - bottom) / (top - bottom))

    return [one | {"lift": on_axis(one["lift"]), "band": on_axis(float(band))} for one, band in zip(found, bands, strict=True)]


def over(page, column: int) -> tuple[float, float]:
    """The middle of an expert's column of twelve, for the mouse."""
    box = page.locator(".moe-stage, [role=application]").bounding_box()
    return box["x"] + 84 + (column + 0.5) * (box["width"] - 98) / 12, box["y"] + 100


def test_each_expert_stands_at_its_strongest_lift_in_its_domains_colour_filled_above_its_null(show):
    view = view_of()
    page = show(view)
    for state, sample, part, null in (({}, 0, 0, TOKENS), ({"sample": 512, "null": DOCUMENTS}, 3, 0, DOCUMENTS),
                                      ({"router": "random router", "layer": 1}, 3, 3, DOCUMENTS)):
        said, shown, expected = measured(page, **state), dots(page), strongest(view, sample, part)
        assert [one["lift"] for one in shown] == pytest.approx(expected.tolist(), rel=1e-3)
        assert [one["filled"] for one in shown] == above(view, null, sample, part).tolist()
        favourites = torch.tensor(view.measured[sample][part]["calls"]).argmax(dim=1).tolist()
        assert len({one["colour"] for one in shown}) == len(set(favourites)) == len(set(zip(
            favourites, [one["colour"] for one in shown])))
        none = view.measured[sample][part]["nulls"][NULLS.index(null)]
        assert [one["band"] for one in shown] == pytest.approx(none["band"], rel=1e-3)
        assert said[state.get("router", "trained")] == pytest.approx([int((expected >= 1.5 - SLACK).sum()), none["count"], int(
            above(view, null, sample, part).sum()), expected.mean().item(), none["mean"]], abs=0.006)


def test_it_says_how_many_prefer_a_domain_how_many_do_by_chance_and_what_one_expert_is_called_for(show):
    view = view_of()
    page = show(view)
    specialists, none, filled, mean, shuffled = measured(page, sample=512)["trained"]
    assert status(page) == (
        f"trained, layer 1 of 2: in 512 tokens, {specialists:.0f} of 12 experts prefer a domain (lift ≥ 1.5); with domains "
        f"shuffled among the tokens, {none:.0f} do. Above 95% of their own shuffles: {filled:.0f}, by chance about 1. Mean "
        f"strongest lift: {mean:.2f}, shuffled {shuffled:.2f}; in 512 tokens {mean:.2f}, shuffled {shuffled:.2f}.")
    calls, band = view.measured[3][0]["calls"][2], view.measured[3][0]["nulls"][0]["band"][2]
    assert put(page, locked_expert=2).endswith(
        f"Expert 2, {sum(calls)} calls: python 0%, english 0%, cpp 100%, maths 0%. Lift for cpp 4.00, above 95% of its shuffles "
        f"(up to {band:.2f}).")


def test_an_expert_without_calls_is_no_specialist(show):
    def never_the_first(domain_T, document_T, n):
        return -99.0 * torch.eye(n)[0].expand(len(domain_T), n)

    view = SpecialisationView.of_census({"one": census_of(never_the_first, sizes=(12,))})
    page = show(view)
    assert len(dots(page)) == 11 and measured(page)["one"][3] == pytest.approx(strongest(view)[1:].mean().item(), abs=0.006)
    assert put(page, locked_expert=0).endswith("Expert 0 has no call in this sample.")


def test_a_lift_as_large_as_its_null_is_not_above_it_however_it_was_rounded(show):
    view = view_of()
    view.measured[0][0]["nulls"][0]["band"] = (strongest(view) * (1 - 4e-16)).tolist()
    page = show(view)
    assert not any(one["filled"] for one in dots(page)) and measured(page)["trained"][2] == 0


def test_another_router_is_called_a_null_on_its_face(show):
    page = show(view_of())
    assert page.locator(".moe-badge").inner_text() == "synthetic: dice" and page.locator(".moe-null").count() == 0
    page.get_by_label("random router").press("Space")
    assert status(page).startswith("random router (null), layer 1 of 2")
    assert page.locator(".moe-null").inner_text() == "random router (null)"
    assert page.locator(".moe-marked").text_content().startswith("random router")


def test_the_mouse_and_the_keys_find_the_expert_of_a_column_and_another_layer_or_router_lets_it_go(show):
    page, locked = show(view_of()), "model.get('locked_expert')"  # Python does not answer
    page.mouse.move(*over(page, 2))
    assert "Expert 2, " in status(page) and page.evaluate(locked) is None
    page.mouse.click(*over(page, 2))
    page.mouse.move(1, 1)
    assert "Expert 2, " in status(page) and page.evaluate(locked) == 2
    page.get_by_label("Layer", exact=True).press("End")
    assert "Expert 2, " not in status(page) and page.evaluate(locked) is None
    page.get_by_role("application").press("ArrowRight")
    assert "Expert 1, " in status(page)
    page.keyboard.press("Enter")
    assert page.evaluate(locked) == 1
    page.get_by_label("hash router").press("Space")
    assert "Expert 1, " not in status(page) and page.evaluate(locked) is None


def test_python_lets_an_expert_go_as_well():
    for change in ({"layer": 1}, {"router": "hash router"}):
        view = view_of()
        view.locked_expert = 3
        view.set_state(change)
        assert view.locked_expert is None


def test_the_axis_stays_and_every_doubling_is_one_step(show):
    page, axes = show(view_of()), []
    for sample in (64, 512):
        measured(page, sample=sample)
        axes.append(page.locator(".moe-chart").first.locator(".moe-y .tick").evaluate_all(
            "(nodes) => nodes.map((node) => [parseFloat(node.textContent), node.transform.baseVal[0].matrix.f])"))
    assert axes[0] == axes[1]
    heights = dict(axes[0])
    assert list(heights) == [1, 1.5, 2, 3, 4] and heights[1] - heights[2] == pytest.approx(heights[2] - heights[4], abs=0.1)
    assert (heights[1] - heights[1.5]) / (heights[1] - heights[2]) == pytest.approx(math.log2(1.5), abs=0.01)
