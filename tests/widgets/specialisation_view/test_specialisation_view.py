"""The specialisation view in Python, and JavaScript beside it: what it refuses, measures, says and draws."""

import dataclasses
import time

import pytest
import torch
from routings import HOSTILE
from specialisation_view.cases import DOMAINS, by_chance, by_document, census_of, censuses, made, view_of
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson import shipped_model
from moe_lesson.lm.machine_text import machine_corpus
from moe_lesson.measure.census import lift, take_census
from moe_lesson.widgets import SpecialisationView
from moe_lesson.widgets.specialisation_view.data import (
    BY_LIFT,
    COLUMNS,
    HUES,
    NULLS,
    ORDERS,
    SLACK,
    badge,
    counts,
    draw_tokens,
    measure,
    sample_sizes,
    short,
    table_rows,
    table_title,
    ticks_of,
)

TOKENS, DOCUMENTS = NULLS
FAR = {"sample": 128, "router": "random router", "layer": 1, "null": DOCUMENTS, "order": BY_LIFT, "locked_expert": 3}


def above(liking, null: str, **more) -> float:
    """The share of experts above their null, over seeds, in the largest sample."""
    views = [SpecialisationView.of_census({"one": census_of(liking, seed=seed, **more)}, seed=seed) for seed in range(12)]
    return sum(made(view, null=null, sample=view.samples[-1]).shown.above.mean() for view in views) / len(views)


# --- what the learner shall discover ---------------------------------------------------------------------------------


def test_in_a_small_sample_most_experts_of_a_trained_model_look_like_specialists_and_as_many_do_by_chance():
    found = take_census(shipped_model("ladder-deepseekmoe")[0], machine_corpus(splits=("test",)), limit=250)
    view = SpecialisationView.of_census(found, name="DeepSeekMoE")
    few = view.shown
    assert view.sample == 64 and few.count > 45 and few.null_count > 40 and few.above.sum() < 9
    many = made(view, sample=view.samples[-1]).shown
    assert view.sample == 16384 and 10 < many.count < 31 and many.null_count == 0 and many.above.sum() > 40
    assert few.mean > 2 > 1.6 > many.mean > 1.3 > 1.1 > many.null_mean  # what is left is small, and it is there
    assert made(view, null=DOCUMENTS).shown.null_mean > many.null_mean + 0.03
    assert made(view, layer=1, router="random router").shown.mean > made(view, router="trained").shown.mean


def test_routing_by_chance_stands_above_either_null_in_one_case_of_twenty():
    assert 0.02 < above(by_chance, TOKENS, sizes=(60,)) < 0.08
    assert above(by_chance, DOCUMENTS, sizes=(60,)) < 0.08


def test_what_belongs_to_documents_is_above_the_first_null_and_within_the_second():
    sizes = {"sizes": (60,), "documents": 8, "tokens": 100}
    assert above(by_document, TOKENS, **sizes) > 0.8 > 0.1 > above(by_document, DOCUMENTS, **sizes)


def test_specialists_of_one_domain_reach_the_top_of_the_axis_and_stand_above_both_nulls():
    view = view_of()
    one = made(view, sample=512).shown
    assert one.strongest[:4].min() > 3.9 and one.lifts[:4].argmax(axis=1).tolist() == [0, 1, 2, 3] and one.above[:4].all()
    assert made(view, null=DOCUMENTS).shown.above[:4].all() and one.above[4:].sum() <= 2


# --- measuring -------------------------------------------------------------------------------------------------------


def test_samples_double_hold_the_smaller_ones_and_take_as_much_of_every_domain():
    census = census_of()
    assert sample_sizes(census) == (64, 128, 256, 512)  # 200 tokens of each domain: 1024 would need 256
    assert sample_sizes(census_of(domains=DOMAINS[:3])) == (48, 96, 192, 384)
    assert sample_sizes(census_of(documents=100, tokens=100))[-1] == 16384
    drawn = draw_tokens(census, 512, torch.Generator().manual_seed(1))
    assert len(drawn.unique()) == 512
    for size in (64, 512):
        assert torch.bincount(census.labels("domain")[drawn[:size]]).tolist() == [size // 4] * 4


def test_calls_and_lifts_are_those_of_a_census_of_the_sampled_tokens():
    found = censuses()
    measured, census = measure(found, seed=3), found["random router"]
    drawn = draw_tokens(census, 512, torch.Generator().manual_seed(3))[:128]
    few = dataclasses.replace(census, document_T=census.document_T[drawn], byte_T=census.byte_T[drawn],
                              predicted_T=census.byte_T[drawn], expert_ids=tuple(ids[drawn] for ids in census.expert_ids))
    for layer, experts in ((0, slice(0, 12)), (1, slice(12, 20))):
        calls = few.calls(layer).sum(dim=0)
        assert measured.calls[1, 1, experts].tolist() == calls.tolist()
        assert measured.lifts[1, 1, experts].tolist() == lift(calls).tolist()
    assert (measured.bands[..., 0] >= measured.bands[..., 1]).all()


def test_the_nulls_are_quantiles_of_the_census_own_shuffles():
    census = dataclasses.replace(census_of(by_document), domain_F=torch.arange(4).repeat_interleave(5))
    measured = measure({"one": census})
    for null, (shuffle, s) in enumerate(((census.shuffled, 3), (census.shuffled_documents, 3))):
        drawn = torch.stack([lift(shuffle(seed).calls(0).sum(dim=0)).amax(dim=1) for seed in range(200)])
        assert abs(drawn.mean() - measured.bands[null, 0, s, :12, 1].mean()) < 0.05 * drawn.mean()
        assert abs(drawn.quantile(0.95, dim=0).mean() - measured.bands[null, 0, s, :12, 0].mean()) < 0.1 * drawn.mean()


def test_a_seed_draws_other_tokens_and_other_shuffles_and_building_is_cheap():
    first, again, other = (measure(censuses(), seed).bands for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    large = {name: census_of(sizes=(62, 62), k=6, documents=35, tokens=120) for name in "abc"}
    start = time.process_time()
    assert measure(large).samples[-1] == 16384
    assert time.process_time() - start < 4


def test_an_expert_without_calls_is_no_specialist():
    census = census_of(lambda domain_T, document_T, n: -99.0 * torch.eye(n)[0].expand(len(domain_T), n), sizes=(12,))
    view = SpecialisationView.of_census({"one": census})
    assert not view.shown.called[0] and view.shown.called[1:].all() and not view.shown.above[0]
    assert view.shown.mean == pytest.approx(view.shown.strongest[1:].mean()) and "Without a call: 1." in view.summary
    assert "Expert 0 of this layer has no call in this sample." in made(view, locked_expert=0).summary
    assert made(view, order=BY_LIFT).columns[-1] == 0 and view.picture()


# --- validation ------------------------------------------------------------------------------------------------------


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
    for words, named in (("origin is 'real'", {"origin": "real"}), ("seed is -1; expected", {"seed": -1})):
        with pytest.raises(ValueError, match=words):
            SpecialisationView.of_census({"a": census}, **named)
    with pytest.raises(ValueError, match="measured is dict; call SpecialisationView.of_census"):
        SpecialisationView({"a": census})


@pytest.mark.parametrize("trait,value", [("sample", 65), ("router", "mine"), ("layer", 2), ("null", "none"), ("order", "random"),
                                         ("locked_expert", 12), ("locked_expert", -1)])
def test_a_control_out_of_range_is_refused_and_nothing_moves(trait, value):
    view = view_of()
    before = view.summary
    with pytest.raises(TraitError, match=f"{trait} is "):
        setattr(view, trait, value)
    assert view.summary == before


@pytest.mark.parametrize("change", [{"layer": 1}, {"router": "hash router"}])
def test_another_layer_or_router_lets_the_expert_go(change):
    view = made(view_of(), locked_expert=3)
    assert "Expert 3 of this layer" in view.summary
    assert made(view, **change).locked_expert is None and "Expert" not in view.summary


# --- words and looks -------------------------------------------------------------------------------------------------


def test_the_summary_is_true():
    view = made(view_of(), sample=512, locked_expert=2)
    one = view.shown
    specialists, beyond = sum(one.strongest >= 1.5 - SLACK), sum(one.strongest > one.top + SLACK)
    assert [number for number, _ in counts(view)] == [f"{specialists} of 12", f"{one.null_count:.0f} of 12", f"{beyond} of 12"]
    assert view.summary.startswith(
        f"synthetic: dice, layer 1 of 2: {specialists} of 12 experts prefer a domain: lift 1.5 or more in 512 tokens, 128 of "
        f"each domain. {one.null_count:.0f} of 12 do so by chance: domains shuffled among the tokens (median of 99 draws). "
        f"{beyond} of 12 stand above their own null; by chance about 1 would. Mean strongest lift: {one.mean:.2f}, ")
    calls = one.calls[2].astype(int).tolist()
    assert (f" Expert 2 of this layer, {sum(calls)} calls: python 0%, english 0%, cpp 100%, yaml 0%. It prefers cpp, lift 4.00. "
            f"Its null: median {one.middle[2]:.2f}, 95% up to {one.top[2]:.2f}: it stands above.") in view.summary
    assert badge(made(view, router="hash router")) == "null: hash router"
    assert view.summary.startswith("null: hash router, beside dice, layer 1 of 2: ")
    made(view, router="trained")
    assert [row[0] for row in table_rows(view)] == view.routers
    assert table_rows(view)[0][1:4] == [str(specialists), f"{one.null_count:.0f}", str(beyond)]
    assert [short(size) for size in (64, 512, 1024, 16384)] == ["64", "512", "1k", "16k"]


def test_a_lift_of_exactly_one_and_a_half_counts_however_it_was_rounded():
    view = view_of()
    view._measured.lifts[0, 0, :12] = 1.5 * (1 - 2e-16)
    view._measured.bands[0, 0, 0, :12, 0] = 1.5 * (1 - 4e-16)
    assert view.shown.count == 12 and not view.shown.above.any()


@pytest.mark.parametrize("sizes,k,domains", [((1,), 1, DOMAINS[:2]), ((200, 3), 3, tuple("abcdefgh"))])
def test_every_control_works_at_its_ends(sizes, k, domains):
    view = view_of(sizes=sizes, k=k, domains=domains, documents=2) if sizes[0] > 9 else SpecialisationView.of_census(
        {"one": census_of(sizes=sizes, k=k, domains=domains)})
    for sample in (view.samples[0], view.samples[-1]):
        for null in NULLS:
            made(view, sample=sample, null=null, router=view.routers[-1], order=BY_LIFT, layer=len(sizes) - 1, locked_expert=0)
            assert sorted(view.columns) == list(range(sizes[-1])) and view.summary.count("Expert 0 of this layer") == 1
            assert view.picture().startswith(b"\x89PNG\r\n")


def test_it_is_a_stable_line_and_the_same_picture_twice():
    first, second = view_of(), view_of()
    assert repr(first) == repr(second) == (
        "SpecialisationView('dice', synthetic: 3 routers, 2 layers of 12/8 experts, 4 domains, 64 to 512 tokens)")
    assert first.picture() == second.picture() != made(second, **FAR).picture()


# --- JavaScript ------------------------------------------------------------------------------------------------------


def test_javascript_says_and_counts_the_same(tmp_path):
    cases = []
    for name, view in (("start", view_of()), ("far", made(view_of(), **FAR)), ("strongest", made(view_of(), order=BY_LIFT)),
                       ("no call", made(view_of(sizes=(200, 8)), locked_expert=199)),
                       ("eight", made(view_of(domains=tuple("abcdefgh")), null=DOCUMENTS)),
                       ("hostile", made(view_of(domains=tuple(HOSTILE[:4])), layer=1, locked_expert=0))):
        one = view.shown
        cases.append({"name": name, "state": browser_state(view), "columns": view.columns, "strongest": one.strongest.tolist(),
                      "top": one.top.tolist(), "above": one.above.tolist(), "counts": counts(view), "badge": badge(view),
                      "title": table_title(view), "rows": table_rows(view), "summary": view.summary})
    assert view.picture().startswith(b"\x89PNG\r\n")  # of hostile names
    names = {"columns": COLUMNS, "nulls": NULLS, "orders": ORDERS, "hues": HUES,
             "ticks": {m: ticks_of(m) for m in (2, 3, 4, 8)}, "short": {size: short(size) for size in (48, 512, 1024, 16384)}}
    run_node("specialisation_view", SpecialisationView._esm, {"cases": cases, "names": names}, tmp_path)
