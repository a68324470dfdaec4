"""Merging experts: who goes to whom, and what it costs."""

import pytest
import torch

from moe_lesson.measure.instruments import expert_outputs, output_similarity
from moe_lesson.measure.merging import merging, random_similarity, with_merged_experts


def test_merged_experts_go_to_the_busiest_of_the_group(layer_and_tokens):
    layer, x = layer_and_tokens()
    load = torch.tensor([1, 5, 2, 9, 3, 4])
    routing, before = with_merged_experts(layer, ((0, 1, 2), (3,), (4, 5)), load)(x)[1], layer(x)[1]
    stand_in = torch.tensor([1, 1, 1, 3, 5, 5])
    assert torch.equal(routing.expert_ids, stand_in[before.expert_ids]) and torch.equal(routing.weights, before.weights)
    with pytest.raises(ValueError, match="must hold each of the 6 experts once"):
        with_merged_experts(layer, ((0, 1), (3,)), load)


def test_merging_equal_experts_costs_nothing_and_comes_first(layer_and_tokens):
    layer, x = layer_and_tokens()
    with torch.no_grad():
        layer.experts.w_in[4], layer.experts.w_out[4] = layer.experts.w_in[1], layer.experts.w_out[1]
    wanted = layer(x)[0].detach()

    def loss_of(groups):
        return (with_merged_experts(layer, groups, layer(x)[1].load)(x)[0] - wanted).square().mean().item()

    done = merging(output_similarity(expert_outputs(layer, x)), 3, loss_of)
    assert done.groups[0] == tuple((i,) for i in range(6)) and (1, 4) in done.groups[1]
    assert [len(groups) for groups in done.groups] == [6, 5, 4, 3]
    assert done.losses[0] == done.losses[1] == pytest.approx(0, abs=1e-20) and done.losses[2] > 0
    assert done.thresholds[0] == float("inf") and list(done.thresholds) == sorted(done.thresholds, reverse=True)


def test_groups_are_as_similar_as_their_experts_on_average():
    similarity = torch.tensor([[1.0, 0.9, 0.1, 0.2], [0.9, 1, 0.5, 0.4], [0.1, 0.5, 1, 0.35], [0.2, 0.4, 0.35, 1]])
    done = merging(similarity, 3, lambda groups: 0.0)
    # 0 and 1 first; then {0,1} with 2 is (0.1 + 0.5) / 2 = 0.3, with 3 the same, and 2 with 3 is 0.35
    assert done.groups[1:] == (((0, 1), (2,), (3,)), ((0, 1), (2, 3)), ((0, 1, 2, 3),))
    assert done.thresholds[1:] == pytest.approx((0.9, 0.35, 0.3))
    with pytest.raises(ValueError, match="at most 3 times, not 4"):
        merging(similarity, 4, lambda groups: 0.0)


def test_a_random_similarity_is_symmetric_and_depends_on_the_seed():
    one = random_similarity(5, 0)
    assert one.all(), "each pair has a number of its own"
    assert torch.equal(one, one.T) and torch.equal(one.diagonal(), torch.ones(5))
    assert torch.equal(one, random_similarity(5, 0)) and not torch.equal(one, random_similarity(5, 1))
