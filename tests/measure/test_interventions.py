"""Interventions change what they say and nothing else."""

import copy

import pytest
import torch

from moe_lesson import Dense, LanguageModel, ModelConfig, MoE, Sparse
from moe_lesson.measure.instruments import expert_outputs, loudness
from moe_lesson.measure.interventions import (
    cut_experts,
    with_cut_experts,
    with_limited_experts,
    with_masked_experts,
    with_random_units,
    with_same_units,
    with_silent_experts,
    with_strongest_units,
    with_top_k,
    without_experts,
    without_shared,
)
from moe_lesson.measure.merging import with_merged_experts
from moe_lesson.measure.nulls import route_beside_null, with_random_routers
from moe_lesson.moe.dispatch import swiglu
from moe_lesson.moe.layers import moe_layers


def test_silent_experts_leave_what_is_shared(model):
    shared = LanguageModel(ModelConfig(Sparse(4, 2, 8, num_shared=1), layers=1, width=16, heads=2, context=8)).eval()
    silent = with_silent_experts(shared)
    x = torch.randn(5, 16)
    torch.testing.assert_close(silent.blocks[0].ffn(x)[0], shared.blocks[0].ffn.shared(x))
    assert not torch.allclose(shared.blocks[0].ffn(x)[0], silent.blocks[0].ffn(x)[0]), "the model itself must stay"
    assert torch.equal(with_silent_experts(model).blocks[0].ffn.w_out, model.blocks[0].ffn.w_out)


def test_a_changed_router_that_moves_has_the_bias_that_decides(model):
    changed = without_experts(model, [[0]] * len(moe_layers(model)))
    changed.double().to("meta")
    for layer in moe_layers(changed):
        assert layer.router.bias is layer.router.router.bias


def test_no_hook_is_left_behind(model):
    with pytest.raises(ValueError, match="longer than the model's context"):
        route_beside_null(model, "x" * 25)
    assert all(not block.ffn.router._forward_pre_hooks for block in model.blocks[1:])


def test_all_units_are_the_layer_itself(model):
    ids = torch.arange(10)[None]
    for changed in (with_strongest_units(model, 1.0), with_random_units(model, 1.0), with_same_units(model, 1.0, ids)):
        torch.testing.assert_close(changed(ids)[0], model(ids)[0])


def test_the_strongest_units_are_those_that_contribute_most(model):
    ffn, few = model.blocks[0].ffn, with_strongest_units(model, 0.25).blocks[0].ffn
    x = torch.randn(5, 16)
    for row, y in zip(x, few(x)):
        parts = swiglu(row @ ffn.w_in)[:, None] * ffn.w_out  # [H, D], what each unit adds
        strongest = parts.norm(dim=1).topk(4).indices
        torch.testing.assert_close(y, parts[strongest].sum(0))


def test_the_same_units_are_kept_for_every_token_those_that_contribute_most_on_average(model):
    ffn, ids = model.blocks[0].ffn, torch.arange(24).reshape(2, 12)
    same = with_same_units(model, 0.25, ids).blocks[0].ffn
    seen = []
    hook = ffn.register_forward_pre_hook(lambda _, inputs: seen.append(swiglu(inputs[0] @ ffn.w_in).flatten(0, 1)))
    model(ids)
    hook.remove()
    best = (seen[0].abs() * ffn.w_out.norm(dim=1)).mean(0).topk(4).indices
    x = torch.randn(5, 16)
    torch.testing.assert_close(same(x), swiglu(x @ ffn.w_in)[:, best] @ ffn.w_out[best])


def test_random_units_are_as_many_and_follow_the_seed(model):
    units = torch.randn(3, 16).exp()
    x = torch.eye(16)[:3]
    outputs = {seed: with_random_units(model, 0.25, seed).blocks[0].ffn(x) for seed in (0, 1)}
    torch.testing.assert_close(with_random_units(model, 0.25, 0).blocks[0].ffn(x), outputs[0])
    assert not torch.allclose(outputs[0], outputs[1])
    few = with_random_units(model, 0.25).blocks[0].ffn
    assert few.keep == 4 and few.rank(few, units).shape == units.shape


@pytest.mark.parametrize("fewer", [lambda model: with_strongest_units(model, 0.25), lambda model: with_random_units(model, 0.25),
                                   lambda model: with_same_units(model, 0.25, torch.arange(24).reshape(2, 12))])
def test_a_layer_with_few_units_can_be_copied_and_moved(model, fewer):
    ids, few = torch.arange(12)[None], fewer(model)
    copied = copy.deepcopy(few)
    few.blocks[0].ffn.w_out.data.zero_()
    assert not torch.equal(copied(ids)[0], few(ids)[0]), "the copy has weights of its own"
    few.to("meta")(ids.to("meta"))


@pytest.mark.parametrize("change", [
    with_silent_experts, without_shared, with_random_routers, lambda model: with_masked_experts(model, 0.5),
    lambda model: with_top_k(model, 1), lambda model: with_limited_experts(model, 1.0),
    lambda model: with_merged_experts(model, ((0, 1),), torch.ones(2)),
    lambda model: route_beside_null(model, "abc"), lambda model: loudness(model, torch.arange(12)[None])])
def test_a_change_of_what_is_not_there_is_refused(change):
    dense = LanguageModel(ModelConfig(Dense(16), layers=1, width=16, heads=2))
    with pytest.raises(ValueError, match="this model has no MoE layer, so"):
        change(dense)


def test_units_of_a_model_without_a_dense_ffn_are_refused():
    with pytest.raises(ValueError, match="this model has no dense FFN, so there are no hidden units"):
        with_strongest_units(LanguageModel(ModelConfig(Sparse(4, 2, 8), layers=1, width=16, heads=2)), 0.5)


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_an_impossible_share_is_refused(model, share):
    with pytest.raises(ValueError, match=f"share is {share}; keep more than 0"):
        with_strongest_units(model, share)


# ------------------------------------------------------------------------------------------------ masking and merging


def test_masking_takes_the_favourites_away_and_the_next_best_answer(layer_and_tokens):
    layer, x = layer_and_tokens()
    order = layer.router(x).logits.argsort(dim=1, descending=True)
    routing = with_masked_experts(layer, 2 / 6)(x)[1]
    assert torch.equal(routing.expert_ids, order[:, 2:4])
    assert torch.allclose(routing.weights.sum(1), torch.ones(40, dtype=torch.float64))
    untouched = with_masked_experts(layer, 0.0)(x)
    assert torch.allclose(untouched[0], layer(x)[0])


def test_a_masked_expert_is_not_lifted_back_by_a_bias(layer_and_tokens):
    layer, x = layer_and_tokens()
    layer.router.bias[0] = 5.0  # everybody's first choice
    layer.router.bias[1:] = -5.0
    with_bias = with_masked_experts(layer, 4 / 6)(x)[1]
    favourites = layer.router(x).logits.argsort(dim=1, descending=True)[:, :4]
    assert not (with_bias.expert_ids[:, :, None] == favourites[:, None, :]).any()


def test_random_masks_take_as_many_experts_and_depend_on_the_seed(layer_and_tokens):
    layer, x = layer_and_tokens()
    one, same, other = (with_masked_experts(layer, 0.5, seed)(x)[1].expert_ids for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    many = x.repeat(200, 1)
    kept = (with_masked_experts(layer, 0.5, 0)(many)[1].expert_ids[:, :1] == layer.router(many).expert_ids[:, :1]).double().mean()
    assert kept.item() == pytest.approx(0.5, abs=0.03), "half of the favourites are left"


def test_too_much_masking_is_refused(layer_and_tokens):
    layer, _ = layer_and_tokens()
    with pytest.raises(ValueError, match="5 of 6 experts can't be masked: 2 must be left"):
        with_masked_experts(layer, 5 / 6)
    with pytest.raises(ValueError, match="share is 2"):
        with_masked_experts(layer, 2)


def test_a_language_model_can_be_masked_and_merged_and_stays_as_it_was():
    model = LanguageModel(ModelConfig(Sparse(4, 1, 4), layers=2, width=16, heads=2, context=8))
    ids = torch.randint(0, 256, (3, 8))
    before = model(ids)[0]
    masked = with_masked_experts(model, 0.25)(ids)[0]
    with pytest.raises(ValueError, match="layer is 9; expected 0 … "):
        with_merged_experts(model, ((0, 1, 2, 3),), torch.ones(4), layer=9)
    merged = with_merged_experts(model, ((0, 1, 2, 3),), torch.ones(4), layer=1)(ids)
    assert not torch.allclose(masked, before) and torch.equal(model(ids)[0], before)
    assert merged[1][1].load.max() == 24 and merged[1][0].load.max() < 24, "the second layer alone"


def merged_by_twos(model):
    n = moe_layers(model)[0].router.num_experts
    return with_merged_experts(model, tuple((i, i + 1) for i in range(0, n, 2)), torch.arange(n))


CHANGES = {
    "random": lambda model: with_random_routers(model, 1),
    "silent": with_silent_experts,
    "masked": lambda model: with_masked_experts(model, 1 / 4),
    "masked at random": lambda model: with_masked_experts(model, 1 / 4, seed=1),
    "taken away": lambda model: without_experts(model, [[0, 1], [2, 3]]),
    "cut": lambda model: with_cut_experts(model, 2),
    "more active": lambda model: with_top_k(model, 3),
    "without shared": without_shared,
    "limited": lambda model: with_limited_experts(model, 1.0),
    "merged": merged_by_twos,
}
ROUTER_CHANGES = ("masked", "masked at random", "taken away", "limited", "merged")


@pytest.mark.parametrize("first", CHANGES)
@pytest.mark.parametrize("second", CHANGES)
def test_any_change_can_follow_any_other(first, second):
    model = LanguageModel(ModelConfig(Sparse(8, 2, 8, num_shared=1), layers=2, width=16, heads=2, context=24)).eval()
    once = CHANGES[first](model)
    refused = {"cut": "cut the experts first"} if first in ROUTER_CHANGES else {}
    refused |= {"without shared": "no shared expert"} if first == "without shared" else {}
    if second in refused:
        with pytest.raises(ValueError, match=refused[second]):
            CHANGES[second](once)
        return
    before, after = once.route("as it stands"), CHANGES[second](once).route("as it stands")
    for layer, (one, two) in enumerate(zip(before, after)):
        shared = 2 if first == "cut" else 1  # as many routed experts take its place
        k = {"more active": 3, "without shared": one.top_k + shared, "cut": 2 * one.top_k}
        assert two.top_k == k.get(second, one.top_k) and torch.isfinite(two.weights).all()
        if "taken away" in (first, second) and second != "merged":
            assert not ({0, 1}, {2, 3})[layer] & set(two.expert_ids.flatten().tolist())


def test_too_many_changes_leave_too_few_experts_and_say_so(layer_and_tokens):
    layer, _ = layer_and_tokens(num_experts=8, top_k=4)
    half = without_experts(layer, [[0, 1, 2, 3]])
    with pytest.raises(ValueError, match="4 must be left to choose"):
        with_masked_experts(half, 1 / 8)
    with pytest.raises(ValueError, match="each token must go to 1 … 4 of the 4"):
        with_top_k(half, 5)


def test_full_experts_drop_choices_and_the_dropped_token_keeps_what_is_left():
    torch.manual_seed(0)
    layer, x = MoE(8, 4, 2, 4), torch.randn(40, 8)
    plenty = with_limited_experts(layer, 4 / 2)  # room for all tokens at every expert
    assert torch.equal(plenty(x)[0], layer(x)[0])
    tight = with_limited_experts(layer, 0.5)
    routing = tight(x)[1]
    assert torch.equal(routing.expert_ids, layer(x)[1].expert_ids)
    assert int((routing.weights > 0).sum()) <= 0.5 * 40 * 2 and layer.router.width == 8
    assert torch.allclose(with_limited_experts(layer, 0.0)(x)[0], torch.zeros(40, 8))


def test_the_order_decides_who_is_dropped_and_never_how_many():
    torch.manual_seed(1)
    layer, x = MoE(8, 4, 2, 4), torch.randn(40, 8)
    forth, back = (with_limited_experts(layer, 1.0)(tokens)[1] for tokens in (x, x.flip(0)))
    by_weight = with_limited_experts(layer, 1.0, by="weight")(x)[1]
    kept = [(routing.weights > 0) for routing in (forth, back, by_weight)]
    assert len({int(k.sum()) for k in kept}) == 1 and int(kept[0].sum()) < 80
    assert not torch.equal(kept[0], kept[1].flip(0))
    assert by_weight.weights.sum() > forth.weights.sum(), "the dropped ones are those that count least"
    with pytest.raises(ValueError, match="the capacity factor is -1; expected a number of at least 0"):
        with_limited_experts(layer, -1)
    with pytest.raises(ValueError, match="by is 'size'; choose order or weight"):
        with_limited_experts(layer, 1.0, by="size")


def test_fewer_active_experts_are_the_best_of_those_chosen_before(layer_and_tokens):
    layer, x = layer_and_tokens()
    fewer = with_top_k(layer, 1)
    assert torch.equal(fewer(x)[1].expert_ids, layer(x)[1].expert_ids[:, :1]) and layer.router.top_k > 1
    assert torch.equal(with_top_k(layer, layer.router.top_k)(x)[0], layer(x)[0])
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=f"top_k is {wrong}"):
            with_top_k(layer, wrong)


def test_without_shared_as_many_more_routed_experts_are_active(layer_and_tokens):
    layer, x = layer_and_tokens(num_shared=2)
    before, k = layer(x)[0], layer.router.top_k
    changed = without_shared(layer)
    assert changed.shared is None and changed.router.top_k == k + 2
    torch.testing.assert_close(changed(x)[0], with_silent_shared(with_top_k(layer, k + 2))(x)[0])
    assert torch.equal(layer(x)[0], before) and layer.router.top_k == k, "the layer itself must stay"
    with pytest.raises(ValueError, match="no shared expert to take away"):
        without_shared(layer_and_tokens()[0])


def with_silent_shared(layer):
    torch.nn.init.zeros_(layer.shared.w_out)
    return layer


def test_the_pieces_of_an_expert_add_up_to_it(layer_and_tokens):
    layer, x = layer_and_tokens(expert_width=6)
    w_in, w_out = cut_experts(layer.experts.w_in.detach(), layer.experts.w_out.detach(), 3)
    assert w_in.shape == (18, 8, 4) and w_out.shape == (18, 2, 8)
    answers = expert_outputs(layer, x)
    for i, whole in enumerate(answers):
        pieces = [swiglu(x @ w_in[j]) @ w_out[j] for j in range(3 * i, 3 * i + 3)]
        torch.testing.assert_close(sum(pieces), whole)
    with pytest.raises(ValueError, match="6 hidden units can't be cut into 4"):
        cut_experts(layer.experts.w_in, layer.experts.w_out, 4)


def test_a_cut_layer_is_the_layer_itself_when_its_gate_is_scaled_and_a_third_of_it_when_not(layer_and_tokens):
    layer, x = layer_and_tokens(expert_width=6)
    layer.router.scale = 2.0
    torch.testing.assert_close(with_cut_experts(layer, 3, scale=3.0)(x)[0], layer(x)[0])
    torch.testing.assert_close(3 * with_cut_experts(layer, 3)(x)[0], layer(x)[0])
    assert layer.experts.w_in.shape[0] == 6, "the layer itself must stay"
