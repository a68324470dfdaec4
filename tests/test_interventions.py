"""Interventions change what they say and nothing else."""

import pytest
import torch

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.dispatch import swiglu
from moe_lesson.interventions import (
    random_router,
    route_beside_null,
    with_random_routers,
    with_random_units,
    with_same_units,
    with_silent_experts,
    with_strongest_units,
)


@pytest.fixture(scope="module")
def model():
    model = LanguageModel(ModelConfig((Dense(16), Sparse(8, 2, 8), Sparse(8, 2, 8)), layers=3, width=16, heads=2, context=24))
    for block in model.blocks[1:]:
        block.ffn.router.bias.fill_(0.5)
    return model.eval()


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


def test_silent_experts_leave_what_is_shared(model):
    shared = LanguageModel(ModelConfig(Sparse(4, 2, 8, num_shared=1), layers=1, width=16, heads=2, context=8)).eval()
    silent = with_silent_experts(shared)
    x = torch.randn(5, 16)
    torch.testing.assert_close(silent.blocks[0].ffn(x)[0], shared.blocks[0].ffn.shared(x))
    assert not torch.allclose(shared.blocks[0].ffn(x)[0], silent.blocks[0].ffn(x)[0]), "the model itself must stay"
    assert torch.equal(with_silent_experts(model).blocks[0].ffn.w_out, model.blocks[0].ffn.w_out)


def test_the_null_sees_the_same_hidden_states(model):
    trained, null = route_beside_null(model, "hello")
    assert len(trained) == len(null) == 2 and trained[0].tokens == null[0].tokens == tuple("hello")
    for a, b in zip(trained, [r for r in model.route("hello") if r is not None]):
        assert torch.equal(a.logits, b.logits)
    seen = []
    hooks = [model.blocks[i].ffn.router.register_forward_pre_hook(lambda _, x: seen.append(x[0])) for i in (1, 2)]
    model.route("hello")
    for i, (hook, x_TD) in enumerate(zip(hooks, seen)):
        hook.remove()
        expected = random_router(model.blocks[i + 1].ffn.router, i).weight.detach()
        torch.testing.assert_close(null[i].logits, (x_TD @ expected).detach())


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
    assert few.keep == 4 and few.rank(units).shape == units.shape


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_an_impossible_share_is_refused(model, share):
    with pytest.raises(ValueError, match=f"share is {share}; keep more than 0"):
        with_strongest_units(model, share)
