"""Instruments have closed forms at their extremes."""

import pytest
import torch

from moe_lesson import Dense, LanguageModel, ModelConfig, MoE, Routing, Sparse
from moe_lesson.measure.instruments import (
    calls,
    co_routing,
    expert_outputs,
    experts_in_common,
    hidden_units,
    hybridity,
    labels_served,
    layer_inputs,
    linear_cka,
    loudness,
    mean_off_diagonal,
    output_similarity,
    probe,
    shared_and_routed,
    shuffled,
    weight_similarity,
)


def routing(ids, n, tokens):
    ids = torch.tensor(ids)
    return Routing(torch.zeros(len(ids), n), ids, torch.ones(ids.shape), tokens)


def test_tokens_that_always_and_never_share():
    assert experts_in_common(routing([[0, 1], [0, 1], [2, 3], [3, 2]], 4, ("a", "a", "b", "b"))) == (2.0, 0.0)


def test_by_hand():
    # equal pair: a a shares 1; different pairs: a b shares 0 and 1
    assert experts_in_common(routing([[0, 1], [1, 2], [2, 3]], 4, ("a", "a", "b"))) == (1.0, 0.5)


def test_choices_at_random_share_k_squared_over_n():
    torch.manual_seed(0)
    ids = torch.rand(600, 20).argsort(1)[:, :4]
    equal, different = experts_in_common(Routing(torch.zeros(600, 20), ids, torch.ones(600, 4), ("a", "b") * 300))
    assert equal == pytest.approx(0.8, abs=0.03) and different == pytest.approx(0.8, abs=0.03)


def test_nameless_tokens_and_missing_pairs_are_refused():
    with pytest.raises(ValueError, match="no names"):
        experts_in_common(Routing(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1)))
    with pytest.raises(ValueError, match="no pair"):
        experts_in_common(routing([[0], [1]], 3, ("a", "b")))


def test_hidden_units_are_what_the_output_matrix_mixes():
    model = LanguageModel(ModelConfig((Sparse(4, 2, 8), Dense(12)), layers=2, width=16, heads=2, context=8))
    ids = torch.arange(12).reshape(2, 6)
    outputs = []
    model.blocks[1].ffn.register_forward_hook(lambda ffn, inputs, y: outputs.append(y.flatten(0, 1)))
    [units] = hidden_units(model, ids)
    assert units.shape == (12, 12) and model.training
    torch.testing.assert_close(units @ model.blocks[1].ffn.w_out, outputs[0])


def test_a_model_without_dense_layers_has_no_hidden_units_to_read():
    with pytest.raises(ValueError, match="no dense FFN"):
        hidden_units(LanguageModel(ModelConfig(Sparse(4, 2, 8), layers=1, width=16, heads=2)), torch.zeros(1, 3).long())


# ------------------------------------------------------------------------------------------ what an expert is called for


def one_hot(labels, count):
    return torch.nn.functional.one_hot(torch.tensor(labels), count)


def test_calls_with_one_label_are_counts():
    found = calls(routing([[0], [0], [1], [1], [1]], 3, None), one_hot([0, 1, 1, 1, 0], 2))
    assert torch.allclose(found, torch.tensor([[1.0, 1], [1, 2], [0, 0]], dtype=torch.float64))
    assert torch.allclose(labels_served(found), torch.tensor([2.0, 1.8899, 0], dtype=torch.float64), atol=1e-4)


def test_an_expert_for_each_of_two_skills_serves_exactly_one():
    """Every token carries two skills, and goes to the experts of both: the pair of each must not count."""
    torch.manual_seed(0)
    skills = torch.rand(500, 6).topk(2).indices
    labels = torch.nn.functional.one_hot(skills, 6).sum(1)
    own = Routing(torch.zeros(500, 6), skills, torch.ones(500, 2))
    assert torch.allclose(labels_served(calls(own, labels)), torch.ones(6, dtype=torch.float64), atol=1e-6)
    assert hybridity(own, labels) == pytest.approx(1)
    # two skills to an expert: exactly two
    halves = Routing(torch.zeros(500, 3), skills // 2, torch.ones(500, 2))
    keep = (skills[:, 0] // 2) != (skills[:, 1] // 2)  # no expert twice
    halves = Routing(torch.zeros(int(keep.sum()), 3), halves.expert_ids[keep], torch.ones(int(keep.sum()), 2))
    assert hybridity(halves, labels[keep]) == pytest.approx(2, abs=0.02)


def test_a_blind_router_serves_all_labels_like_shuffled_ones():
    torch.manual_seed(0)
    skills = torch.rand(8000, 6).topk(2).indices
    labels = torch.nn.functional.one_hot(skills, 6).sum(1)
    blind = Routing(torch.zeros(8000, 4), torch.rand(8000, 4).topk(2).indices, torch.ones(8000, 2))
    assert hybridity(blind, labels) == pytest.approx(6, abs=0.1)
    assert hybridity(blind, shuffled(labels)) == pytest.approx(hybridity(blind, labels), abs=0.1)


def test_shuffled_labels_are_the_same_labels():
    labels = one_hot([0, 1, 1, 2], 3)
    assert torch.equal(shuffled(labels, 1).sum(0), labels.sum(0)) and torch.equal(shuffled(labels, 1), shuffled(labels, 1))
    with pytest.raises(ValueError, match=r"expected \[T = 4 tokens, M labels\]"):
        calls(routing([[0]] * 4, 2, None), one_hot([0, 1], 2))


# --------------------------------------------------------------------------------------------- how alike two experts are


def test_equal_opposite_and_orthogonal_outputs():
    a = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    b = torch.cat([-a[:, 4:], a[:, :4]], dim=1)  # a quarter turn: orthogonal token by token
    similarity = output_similarity(torch.stack([a, 3 * a, -a, b]))
    assert torch.allclose(similarity[0], torch.tensor([1.0, 1, -1, 0]), atol=1e-5)
    cka = linear_cka(torch.stack([a, 3 * a, -a, b]))
    assert torch.allclose(cka, torch.ones(4, 4), atol=1e-4), "CKA does not mind a turn"
    assert torch.allclose(linear_cka(torch.stack([a, a + 3])), torch.ones(2, 2), atol=1e-4), "nor a shift"


def test_cka_of_orthogonal_outputs_is_0():
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert linear_cka(torch.stack([signs[:, :1], signs[:, 1:]]))[0, 1].item() == pytest.approx(0, abs=1e-6)


def test_expert_outputs_are_what_the_layer_combines():
    torch.manual_seed(0)
    layer, x = MoE(8, 4, 2, 6).double(), torch.randn(5, 8, dtype=torch.float64)
    y, chosen = layer(x)
    assert torch.allclose(torch.einsum("tn,ntd->td", chosen.gates, expert_outputs(layer, x)), y)


def test_the_same_expert_with_its_units_in_another_order_has_other_weights_and_the_same_outputs():
    torch.manual_seed(0)
    layer = MoE(8, 2, 1, 6)
    order = torch.tensor([1, 2, 3, 4, 5, 0])
    with torch.no_grad():
        layer.experts.w_in[1] = layer.experts.w_in[0].view(8, 2, 6)[:, :, order].reshape(8, 12)
        layer.experts.w_out[1] = layer.experts.w_out[0][order]
    assert output_similarity(expert_outputs(layer, torch.randn(20, 8)))[0, 1].item() == pytest.approx(1, abs=1e-5)
    assert abs(weight_similarity(layer)[0, 1].item()) < 0.4 and weight_similarity(layer)[0, 0].item() == pytest.approx(1)


def test_co_routing_by_hand():
    found = co_routing(routing([[0, 1], [0, 1], [0, 2]], 4, None))
    assert found[0, 1].item() == pytest.approx(2 / 6**0.5) and found[1, 2] == 0 and found[3].sum() == 0
    assert found[0, 0].item() == pytest.approx(1) and torch.equal(found, found.T)


def test_the_mean_off_the_diagonal():
    assert mean_off_diagonal(torch.tensor([[1.0, 0.2, 0.2], [0.4, 1.0, 0.4], [0.3, 0.3, 1.0]])) == pytest.approx(0.3)


def test_a_probe_finds_what_is_linear_and_nothing_else():
    torch.manual_seed(0)
    x = torch.randn(400, 6)
    assert probe(x, x @ torch.randn(6, 3) + 2) == pytest.approx(1)
    assert abs(probe(x, torch.randn(400, 3))) < 0.1
    assert probe(x[:, :1], x) == pytest.approx(1 / 6, abs=0.05), "one of six equal parts"
    with pytest.raises(ValueError, match="10 tokens are too few"):
        probe(torch.randn(10, 8), torch.randn(10, 1))


def test_loudness_is_the_length_of_the_routed_part_over_that_of_the_stream():
    model = LanguageModel(ModelConfig(Sparse(4, 2, 8, num_shared=1), layers=2, width=16, heads=2), seed=0)
    ids, streams = torch.randint(1024, (2, 9)), []
    before = loudness(model, ids)
    hook = model.blocks[1].attention.register_forward_hook(lambda _, inputs, y: streams.append(y))
    [first] = [block.register_forward_hook(lambda _, inputs, y: streams.append(y[0])) for block in model.blocks[:1]]
    model(ids)
    hook.remove(), first.remove()
    stream = sum(streams)
    x = model.blocks[1].ffn_norm(stream).flatten(0, 1)
    layer = model.blocks[1].ffn
    by_hand = (layer(x)[0] - layer.shared(x)).norm(dim=-1) / stream.flatten(0, 1).norm(dim=-1)
    assert before[1] == pytest.approx(by_hand.mean().item(), rel=1e-4)
    with torch.no_grad():
        layer.experts.w_out.mul_(3)
    assert loudness(model, ids) == pytest.approx([before[0], 3 * before[1]], rel=1e-4)


def test_layer_inputs_are_what_the_layers_see():
    model = LanguageModel(ModelConfig(Sparse(4, 1, 4), layers=2, width=16, heads=2, context=8))
    ids = torch.randint(0, 256, (3, 8))
    inputs = layer_inputs(model, ids)
    assert [tuple(x.shape) for x in inputs] == [(24, 16)] * 2
    for x, block, found in zip(inputs, model.blocks, model(ids)[1]):
        assert torch.equal(block.ffn.router(x).expert_ids, found.expert_ids)


def test_the_two_parts_of_an_output_add_up_to_it():
    torch.manual_seed(0)
    layer, x = MoE(16, 6, 2, 4, num_shared=2), torch.randn(9, 16)
    shared, routed = shared_and_routed(layer, x)
    torch.testing.assert_close(shared + routed, layer(x)[0])
    torch.testing.assert_close(shared, layer.shared(x))
    with pytest.raises(ValueError, match="no shared expert"):
        shared_and_routed(MoE(16, 6, 2, 4), x)
