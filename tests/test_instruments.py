"""Instruments have closed forms at their extremes."""

import pytest
import torch

from moe_lesson import Dense, LanguageModel, ModelConfig, Routing, Sparse
from moe_lesson.instruments import hidden_units, shared_experts


def routing(ids, n, tokens):
    ids = torch.tensor(ids)
    return Routing(torch.zeros(len(ids), n), ids, torch.ones(ids.shape), tokens)


def test_tokens_that_always_and_never_share():
    assert shared_experts(routing([[0, 1], [0, 1], [2, 3], [3, 2]], 4, ("a", "a", "b", "b"))) == (2.0, 0.0)


def test_by_hand():
    # equal pair: a a shares 1; different pairs: a b shares 0 and 1
    assert shared_experts(routing([[0, 1], [1, 2], [2, 3]], 4, ("a", "a", "b"))) == (1.0, 0.5)


def test_choices_at_random_share_k_squared_over_n():
    torch.manual_seed(0)
    ids = torch.rand(600, 20).argsort(1)[:, :4]
    equal, different = shared_experts(Routing(torch.zeros(600, 20), ids, torch.ones(600, 4), ("a", "b") * 300))
    assert equal == pytest.approx(0.8, abs=0.03) and different == pytest.approx(0.8, abs=0.03)


def test_nameless_tokens_and_missing_pairs_are_refused():
    with pytest.raises(ValueError, match="no names"):
        shared_experts(Routing(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1)))
    with pytest.raises(ValueError, match="no pair"):
        shared_experts(routing([[0], [1]], 3, ("a", "b")))


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
