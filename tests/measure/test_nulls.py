"""Null routers: as large as the trained one, at the same hidden states, and nothing else is changed."""

import pytest
import torch

from moe_lesson.base.tokens import encode, token_texts
from moe_lesson.measure.nulls import hash_routing, random_router, route_beside_null, with_random_routers


def test_a_random_router_has_the_size_and_spread_of_the_trained_one_and_no_bias(model):
    router = model.blocks[1].ffn.router
    null = random_router(router, 3)
    assert null.weight.std().item() == pytest.approx(router.weight.std().item(), rel=0.3)
    assert (null.bias == 0).all() and not torch.allclose(null.weight, router.weight)
    assert torch.equal(null.weight, random_router(router, 3).weight)
    assert not torch.equal(null.weight, random_router(router, 4).weight)


def test_random_routers_replace_routers_and_nothing_else_and_differ_by_layer(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = with_random_routers(model)
    for name, value in changed.state_dict().items():
        assert torch.equal(model.state_dict()[name], before[name]), "the model itself must stay"
        assert torch.equal(value, before[name]) == (".router." not in name), name
    for block, seed in ((1, 5), (2, 6)):
        own = with_random_routers(model, 5).blocks[block].ffn.router.weight
        assert torch.equal(own, random_router(model.blocks[block].ffn.router, seed).weight)


def test_a_hash_and_the_null_beside_a_model_follow_their_seeds_alone(model):
    router, ids = model.blocks[1].ffn.router, torch.arange(9)
    drawn = [hash_routing(router, ids, seed=seed).logits for seed in (0, 0, 1)]
    beside = [route_beside_null(model, "hello", seed)[1][0].logits for seed in (0, 0, 1)]
    for same, again, other in (drawn, beside):
        assert torch.equal(same, again) and not torch.allclose(same, other)


def test_a_hash_reads_any_vocabulary(model):
    router = model.blocks[1].ffn.router
    ids = torch.tensor([5, 50_000, 5])
    found = hash_routing(router, ids).expert_ids
    assert torch.equal(found[0], found[2]) and torch.equal(found[:1], hash_routing(router, ids[:1]).expert_ids)


def test_the_null_sees_the_same_hidden_states(model):
    trained, null = route_beside_null(model, "hello")
    assert len(trained) == len(null) == 2 and trained[0].tokens == null[0].tokens == tuple(token_texts(encode(b"hello")))
    for a, b in zip(trained, [r for r in model.route("hello") if r is not None]):
        assert torch.equal(a.logits, b.logits)
    seen = []
    hooks = [model.blocks[i].ffn.router.register_forward_pre_hook(lambda _, x: seen.append(x[0])) for i in (1, 2)]
    model.route("hello")
    for i, (hook, x_TD) in enumerate(zip(hooks, seen)):
        hook.remove()
        expected = random_router(model.blocks[i + 1].ffn.router, i).weight.detach()
        torch.testing.assert_close(null[i].logits, (x_TD @ expected).detach())
