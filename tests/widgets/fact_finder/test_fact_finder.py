"""The fact finder: what it refuses, that the page computes what the package does, and by meaning what it shows."""

import copy
import random
import re

import pytest
import torch
from fact_finder.cases import SMALL, THREE, TWO, by_hand, finder_of, model_of
from traitlets import TraitError
from widget_harness import browser_state, status

from moe_lesson import Dense, Sparse
from moe_lesson.measure.facts import FactsModel, FactsWorld, Questions, answered
from moe_lesson.measure.interventions import with_silent_experts, with_top_k, without_experts
from moe_lesson.widgets import FactFinder

WORLD = FactsWorld(**SMALL)

# --- what it refuses --------------------------------------------------------------------------------------------------


def broken() -> FactsModel:
    model = model_of(TWO["GShard"], WORLD)
    with torch.no_grad():
        model.layer.experts.w_out[3, 0, 0] = torch.nan
    return model


@pytest.mark.parametrize("words,models,more", [
    (r"models is \{\}; expected name -> FactsModel, at least one", {}, {}),
    (r"models\['a'\] is Linear; expected a FactsModel", {"a": torch.nn.Linear(2, 2)}, {}),
    (r"a has the sizes .*\(16, 5\).*those of this world are .*\(16, 4\).*train it in this world",
     {"a": FactsModel(Dense(4), FactsWorld(**SMALL | {"num_answers": 5}))}, {}),
    ("the router of a was changed; give the model as it was trained",
     {"a": without_experts(model_of(TWO["GShard"], WORLD), [[1]])}, {}),
    ("a holds NaN or infinity; look for a diverged training", {"a": broken()}, {}),
    ("per_topic is 10; of this world the widget shows 1 … 9", None, {"per_topic": 10}),
    ("per_topic is 0;", None, {"per_topic": 0}),
])
def test_what_are_not_models_of_this_world_is_refused_with_value_and_remedy(words, models, more):
    with pytest.raises(ValueError, match=words):
        FactFinder.of_models({"a": model_of(Dense(4), WORLD)} if models is None else models, WORLD, **{"per_topic": 8, **more})


def test_a_world_of_more_topics_than_can_be_told_apart_is_refused():
    world = FactsWorld(**SMALL | {"topics": 65})
    with pytest.raises(ValueError, match="topics is 65; of this world the widget shows 1 … 64"):
        FactFinder.of_models({"a": FactsModel(Dense(4), world)}, world, 4)


def test_wrong_settings_are_refused_at_first_and_later():
    with pytest.raises(TraitError, match="gone names 'Switch'; the models are GShard, DeepSeekMoE, dense"):
        finder_of(gone={"Switch": []})
    finder = finder_of()
    for trait, value, words in (
            ("gone", {"GShard": ["expert 8"]}, "gone has 'expert 8' of GShard; it has expert 0, "),
            ("gone", {"GShard": ["shared 0"]}, "gone has 'shared 0' of GShard"),
            ("gone", {"dense": ["expert 0"]}, "gone has 'expert 0' of dense; it has no experts"),
            ("shown", ["GShard", "GShard"], "shown is .*; expected 2 of GShard, DeepSeekMoE, dense"),
            ("shown", ["GShard"], "expected 2 of"), ("shown", ["GShard", "fine"], "expected 2 of")):
        before = getattr(finder, trait)
        with pytest.raises(TraitError, match=words):
            setattr(finder, trait, value)
        assert getattr(finder, trait) == before


def test_at_first_shared_experts_stand_alone_and_others_lack_a_quarter_and_nothing_if_so_asked():
    finder = finder_of()
    assert finder.shown == ["GShard", "DeepSeekMoE"] == list(finder.gone)[:2]
    asked = WORLD.ask(torch.arange(54).reshape(6, 9)[:, :8].flatten())
    load = model_of(TWO["GShard"], WORLD)(asked.x)[2].load
    quarter = [f"expert {n}" for n in sorted(sorted(range(8), key=lambda n: (load[n], n))[::4])]
    assert finder.gone == {"GShard": quarter, "DeepSeekMoE": [f"expert {n}" for n in range(14)], "dense": []}
    assert finder_of(gone={}).gone == finder_of(gone={}).start["gone"] == {}


# --- the page computes what the package does ---------------------------------------------------------------------------


def without(model: FactsModel, gone: list[int]) -> FactsModel:
    """Without some boxes, made with the package's own interventions; shared experts are runs of their FFN's hidden units."""
    layer, changed = model.layer, copy.deepcopy(model)
    routed = [box for box in gone if box < layer.router.num_experts]
    left, hidden = layer.router.num_experts - len(routed), layer.experts.w_out.shape[1]
    with torch.no_grad():
        for box in set(gone) - set(routed):
            first = (box - layer.router.num_experts) * hidden
            changed.layer.shared.w_out[first:first + hidden] = 0
        if not left:
            changed.layer.experts.w_out.zero_()
    return without_experts(with_top_k(changed, min(left, layer.router.top_k)), [routed]) if left else changed


@torch.no_grad()
def golden(model: FactsModel, asked: Questions, gone: list[int]) -> dict:
    """What is right without some boxes, None where two answers are as good as equal; and whom each fact calls."""
    changed = without(model, gone) if gone else model
    *logits, routing = changed(asked.x)
    clear = [(top[:, 0] - top[:, 1] > 1e-4).tolist() for top in (one.topk(2).values for one in logits)]
    right = [[value if sure else None for value, sure in zip(*pair)] for pair in zip(answered(changed, asked).tolist(), clear)]
    assert sum(one.count(None) for one in right) < 5
    dark = routing is None or len([box for box in gone if box < routing.num_experts]) == routing.num_experts
    called = [[]] * len(asked.x) if dark else [sorted(ids) for ids in routing.expert_ids.tolist()]
    return {"gone": gone, "right": right, "called": called}


GATES = {"sigmoid": Sparse(9, 3, 5, num_shared=3, score="sigmoid", scale=2.5),
         "raw": Sparse(7, 2, 5, num_shared=1, renormalise=False, scale=4.0), "Switch": Sparse(6, 1, 8)}


def test_without_any_experts_the_page_is_right_where_python_is(node):
    finder, asked = finder_of(THREE | GATES), WORLD.ask(torch.arange(54).reshape(6, 9)[:, :8].flatten())
    draw, cases = random.Random(0), {}
    for about in finder.models:
        model, boxes = model_of((THREE | GATES)[about["name"]], WORLD), about["experts"] + about["shared"]
        sets = [[], list(range(about["experts"])), *([n] for n in range(boxes)),
                *(sorted(draw.sample(range(boxes), size)) for size in range(2, boxes + 1))]
        cases[about["name"]] = [golden(model, asked, gone) for gone in (sets if boxes else [[]])]
    printed = node("fact_finder/fact_finder.test.mjs", {"finder": browser_state(finder), "cases": cases})
    assert f"pass {sum(map(len, cases.values()))}" in printed and sum(map(len, cases.values())) > 100


def test_without_all_routed_experts_it_is_what_the_package_calls_silent_experts():
    model, asked = model_of(TWO["DeepSeekMoE"], WORLD), WORLD.ask()
    assert torch.equal(answered(without(model, list(range(14))), asked), answered(with_silent_experts(model), asked))


# --- what it shows ----------------------------------------------------------------------------------------------------

COLOURS = {(22, 25, 29, 255): "lost", (217, 102, 10, 255): "known", (47, 111, 179, 255): "known"}  # ink; the models' own


def cells(page, slot: int, topics: int, per_topic: int) -> list[list[str]]:
    """What the colour of each fact says, topic by topic, read off the picture at the middle of its cell."""
    page.mouse.move(0, 0)
    status(page)
    found = page.locator(".moe-facts canvas").nth(slot).evaluate("""(canvas, [M, P]) => {
      const ctx = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
      ctx.drawImage(canvas, 0, 0);
      const [row, cell] = [Math.floor(canvas.height / M), (canvas.width - 30) / P];
      return [...Array(M * P).keys()].map((t) => Array.from(ctx.getImageData(
        30 + (t % P + 0.5) * cell, (Math.floor(t / P) + 0.5) * row, 1, 1).data));
    }""", [topics, per_topic])
    words = [COLOURS.get(tuple(one), "never") for one in found]
    return [words[topic * per_topic:(topic + 1) * per_topic] for topic in range(topics)]


def names(locator) -> list[str]:
    return locator.evaluate_all("(nodes) => nodes.map((node) => node.ariaLabel)")


def shares(page) -> list[str]:
    return page.locator(".moe-facts-bars > span:visible").all_inner_texts()


def test_without_the_expert_of_a_topic_exactly_its_facts_go_dark(show):
    world, model = by_hand()
    page = show(FactFinder.of_models({"GShard": model}, world, 8, origin="toy", gone={}))
    assert cells(page, 0, 4, 8) == [["known"] * 8] * 4
    assert status(page) == "GShard, whole, knows 100% of 32 facts."
    assert shares(page) == ["facts known 100% (whole 100%)"], "nobody asked for a common skill"
    page.get_by_role("option", name="expert 0").click()
    assert cells(page, 0, 4, 8) == [["lost"] * 8, *[["known"] * 8] * 3]
    assert status(page) == "GShard without expert 0: 75% of the facts it knew are left."
    assert shares(page) == ["facts known 75% (whole 100%)"]
    page.get_by_role("option", name="expert 0").hover()
    assert status(page).endswith("GShard, expert 0, taken away: 8 of 32 facts called it; of 8 that were known, 8 are lost.")


def test_the_picture_the_bars_and_the_words_are_what_python_answers(show):
    finder = finder_of(TWO, gone={"GShard": ["expert 1", "expert 6"], "DeepSeekMoE": ["expert 3", "shared 1"]})
    page, asked = show(finder), WORLD.ask(torch.arange(54).reshape(6, 9)[:, :8].flatten())
    said, percents, seen = [], [], set()
    for slot, (name, gone) in enumerate({"GShard": [1, 6], "DeepSeekMoE": [3, 15]}.items()):
        whole = model_of(TWO[name], WORLD)
        before, now = answered(whole, asked), answered(without(whole, gone), asked)
        expected = [["known" if right else "lost" if was else "never" for was, right in zip(*pair)]
                    for pair in zip(before[0].view(6, 8).tolist(), now[0].view(6, 8).tolist())]
        assert cells(page, slot, 6, 8) == expected
        seen |= set(sum(expected, []))
        percents += [f"{what} {right.double().mean():.0%} (whole {was.double().mean():.0%})"
                     for what, was, right in zip(("facts known", "common skill"), before, now)]
        said += [f"{(was & right).sum() / was.sum():.0%}" for was, right in zip(before, now)]
    assert shares(page) == percents and seen == {"known", "lost", "never"}
    assert status(page) == (f"GShard without 2 of 8 experts: {said[0]} of the facts it knew are left, and {said[1]} of the "
                            "common answers; DeepSeekMoE without 1 of 14 experts and 1 of 2 shared experts: "
                            f"{said[2]} of the facts it knew are left, and {said[3]} of the common answers.")


@pytest.mark.parametrize("gone,words", [
    ({}, "GShard, whole, knows "), ({"GShard": [f"expert {n}" for n in range(8)]}, "GShard without its 8 experts: "),
    ({"GShard": [f"expert {n}" for n in range(7)]}, "GShard without 7 of 8 experts (a fact calls 1 instead of 2): "),
    ({"DeepSeekMoE": [f"expert {n}" for n in range(14)]}, "; DeepSeekMoE with its 2 shared experts alone: "),
    ({"DeepSeekMoE": ["shared 0", "shared 1"]}, "; DeepSeekMoE without its 2 shared experts: "),
    ({"DeepSeekMoE": ["shared 1"]}, "; DeepSeekMoE without shared 1: "),
])
def test_what_is_missing_is_said_in_words(show, gone, words):
    assert words in status(show(finder_of(TWO, gone=gone)))


def test_a_fact_shows_whom_it_calls_and_an_expert_who_calls_it(show):
    page, asked = show(finder_of(TWO, gone={})), WORLD.ask(torch.arange(54).reshape(6, 9)[:, :8].flatten())
    page.get_by_role("application").first.press("ArrowDown")
    page.keyboard.press("ArrowRight")  # to fact 1 of topic 1, the tenth
    called = [sorted(model_of(TWO[name], WORLD)(asked.x)[2].expert_ids[9].tolist()) for name in TWO]
    said = status(page)
    assert "Fact 1 of topic 1: GShard " in said
    for name, experts in zip(TWO, called):
        assert re.search(f"{name} (knows|never knew) it, calling experts {', '.join(map(str, experts))}[;.]", said)
    first, second = ([f"expert {n}" for n in experts] for experts in called)
    assert names(page.locator(".moe-called")) == [*first, "shared 0", "shared 1", *second]
    box = page.get_by_role("listbox").nth(1).get_by_role("option", name="expert 5")
    box.hover()
    load = model_of(TWO["DeepSeekMoE"], WORLD)(asked.x)[2].load[5]
    assert f"DeepSeekMoE, expert 5: {load} of 48 facts call it; of " in status(page)
    assert page.locator(".moe-called").count() == 0


def test_a_tap_points_at_a_fact(show):
    """A finger sends no move, and leaves before its click comes."""
    page = show(finder_of(TWO, gone={}))
    page.get_by_role("application").first.evaluate("""(stage) => {
      const { left, top } = stage.getBoundingClientRect();
      for (const type of ["pointerdown", "pointerup", "pointerleave", "click"])
        stage.dispatchEvent(new PointerEvent(type, { bubbles: true, clientX: left + 34, clientY: top + 4 })); }""")
    assert "Fact 0 of topic 0: GShard " in status(page)


def test_experts_are_taken_and_given_back_by_mouse_key_and_button_and_python_hears_their_names(show):
    finder = finder_of(gone={})
    page = show(finder, live=True)
    boxes = page.get_by_role("listbox").nth(1)
    boxes.get_by_role("option", name="shared 0").click()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    status(page)
    assert finder.gone == {"DeepSeekMoE": ["expert 13", "shared 0"]}
    page.keyboard.press(" ")
    status(page)
    assert finder.gone == {"DeepSeekMoE": ["shared 0"]}
    assert names(boxes.locator("[aria-selected=true]")) == ["shared 0, taken away"]
    quarters = []
    for _ in range(5):
        page.get_by_role("button", name="take ¼ of the experts of GShard").click()
        status(page)
        quarters.append(finder.gone["GShard"])
    assert quarters[4] == quarters[0] == finder_of().gone["GShard"] and [len(one) for one in quarters] == [2] * 5
    assert sorted(sum(quarters[:4], [])) == [f"expert {n}" for n in range(8)]
    page.get_by_role("button", name="take routed experts of DeepSeekMoE").click()
    status(page)
    assert finder.gone["DeepSeekMoE"] == [f"expert {n}" for n in range(14)]
    page.get_by_role("button", name="give back the experts of DeepSeekMoE").click()
    status(page)
    assert finder.gone["DeepSeekMoE"] == []
    page.get_by_role("button", name="Reset").click()
    status(page)
    assert finder.gone == {}


def test_a_model_that_stands_on_the_other_side_changes_places_and_a_dense_one_has_no_boxes(show):
    finder = finder_of(gone={})
    page = show(finder, live=True)
    page.get_by_role("group", name="left").get_by_label("DeepSeekMoE").check()
    assert status(page).startswith("DeepSeekMoE, whole, knows") and finder.shown == ["DeepSeekMoE", "GShard"]
    page.get_by_role("group", name="right").get_by_label("dense").check()
    assert "; dense knows " in status(page) and finder.shown == ["DeepSeekMoE", "dense"]
    assert page.get_by_role("listbox").count() == 1


def test_a_box_is_as_wide_as_its_hidden_units(show):
    page = show(finder_of({"GShard": Sparse(8, 2, 12), "DeepSeekMoE": Sparse(9, 3, 6, num_shared=2)}))
    widths = [page.get_by_role("listbox").nth(slot).get_by_role("option").evaluate_all(
        "(nodes) => nodes.map((node) => node.getBoundingClientRect().width + 2)") for slot in (0, 1)]  # with its margin
    assert max(widths[0]) == pytest.approx(min(widths[0]), abs=0.1) and widths[0][0] == pytest.approx(2 * widths[1][0], abs=0.1)
