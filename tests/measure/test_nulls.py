"""Null routers: as large as the trained one, at the same hidden states, and nothing else is changed."""

import pytest
import torch

from moe_lesson.base.tokens import encode, token_texts
from moe_lesson.measure.nulls import random_router, route_beside_null, with_random_routers


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
    assert not torch.equal(changed.blocks[1].ffn.router.weight, changed.blocks[2].ffn.router.weight)


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
