"""The MoE layer: the three dispatches agree, special cases equal what they must, gradients are right, bad sizes are refused."""

import numpy as np
import pytest
import torch

from moe_lesson import Budget, DenseFFN, MoE, Router, Sparse
from moe_lesson.moe import dispatch
from moe_lesson.moe.dispatch import DISPATCHES, swiglu
from moe_lesson.moe.layers import Experts, moe_layers

SIZES = [  # width, num_experts, top_k, expert_width, num_shared
    (16, 8, 2, 8, 0),
    (16, 8, 8, 8, 1),
    (12, 5, 1, 3, 2),  # widths that torch's grouped kernel can't take
    (64, 62, 6, 24, 2),
    (8, 1, 1, 4, 0),
]


def layer(width, num_experts, top_k, expert_width, num_shared=0, dtype=torch.float64, seed=0, **router):
    torch.manual_seed(seed)
    return MoE(width, num_experts, top_k, expert_width, num_shared, **router).to(dtype)


@pytest.mark.parametrize("tokens", [0, 1, 2, 33])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_three_dispatches_agree_in_output_and_all_gradients(sizes, tokens, score):
    moe = layer(*sizes, score=score, scale=2.5)
    x = torch.randn(tokens, sizes[0], dtype=torch.float64, requires_grad=True)
    target = torch.randn(tokens, sizes[0], dtype=torch.float64)
    seen = {}
    for name in DISPATCHES:
        moe.experts.dispatch = name
        moe.zero_grad()
        x.grad = None
        y, routing = moe(x)
        ((y - target) ** 2).sum().backward()
        seen[name] = [y, x.grad, *(p.grad if p.grad is not None else torch.zeros_like(p) for p in moe.parameters())]
        assert routing.expert_ids.shape == (tokens, sizes[2])
    for name in ("grouped", "one_hot"):
        for ours, oracle in zip(seen[name], seen["loop"]):
            torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_all_experts_active_is_the_weighted_sum_of_all(dispatch):
    moe = layer(16, 4, 4, 8, dispatch=dispatch)
    x = torch.randn(7, 16, dtype=torch.float64)
    probs = (x @ moe.router.weight).softmax(-1)
    outs = torch.stack([swiglu(x @ w_in) @ w_out for w_in, w_out in zip(moe.experts.w_in, moe.experts.w_out)])
    torch.testing.assert_close(moe(x)[0], torch.einsum("tn,ntd->td", probs, outs))


def test_a_single_expert_is_a_dense_ffn():
    moe, dense = layer(16, 1, 1, 8), DenseFFN(16, 8).double()
    dense.w_in.data, dense.w_out.data = moe.experts.w_in.data[0], moe.experts.w_out.data[0]
    x = torch.randn(5, 16, dtype=torch.float64)
    torch.testing.assert_close(moe(x)[0], dense(x))


def test_shared_experts_add_their_output_for_every_token():
    moe = layer(16, 8, 2, 8, num_shared=2)
    x = torch.randn(5, 16, dtype=torch.float64)
    with_shared = moe(x)[0]
    shared, moe.shared = moe.shared, None
    torch.testing.assert_close(with_shared - moe(x)[0], shared(x))
    assert shared.hidden == 2 * 8


@pytest.mark.parametrize("sizes", [(4, 3, 2, 4, 1), (4, 12, 1, 2, 0)])  # the second leaves most experts without a token
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_gradcheck(sizes, dispatch):
    moe = layer(*sizes, dispatch=dispatch, renormalise=False)
    x = torch.randn(3, sizes[0], dtype=torch.float64, requires_grad=True)
    assert (moe(x)[1].load == 0).any() or sizes[1] == 3
    names, parameters = zip(*moe.named_parameters())

    def output(x, *values):
        return torch.func.functional_call(moe, dict(zip(names, values)), (x,))[0]

    assert torch.autograd.gradcheck(output, (x, *parameters))


@pytest.mark.parametrize("tokens", [1, 3, 33])
def test_torchs_grouped_kernel_agrees_with_the_loop_also_for_experts_without_tokens(tokens, monkeypatch):
    calls = []
    kernel = torch.nn.functional.grouped_mm
    monkeypatch.setattr(torch.nn.functional, "grouped_mm", lambda *a, **k: calls.append(1) or kernel(*a, **k))
    moe = layer(64, 62, 6, 24, num_shared=2, dtype=torch.float32)
    x, target = torch.randn(tokens, 64), torch.randn(tokens, 64)
    gradients = {}
    for name in ("grouped", "loop"):
        moe.experts.dispatch = name
        moe.zero_grad()
        ((moe(x)[0] - target) ** 2).sum().backward()
        gradients[name] = {n: p.grad.clone() for n, p in moe.named_parameters()}
    assert len(calls) == 2, "float32 at these widths must take the kernel"
    for name, gradient in gradients["loop"].items():
        torch.testing.assert_close(gradients["grouped"][name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_bytes", [1, 2000, 20_000, 10 ** 9])
def test_grouped_gives_the_same_in_any_number_of_chunks(chunk_bytes, dtype, monkeypatch):
    monkeypatch.setattr(dispatch, "CHUNK_BYTES", chunk_bytes)
    moe = layer(16, 24, 3, 12, dtype=dtype)
    x, target = torch.randn(16, 37, dtype=dtype).T.requires_grad_(), torch.randn(37, 16, dtype=dtype)  # not contiguous
    moe.router.bias[[0, 7, 8, 9, 23]] = -10.0  # experts without tokens, also the first and the last
    seen = {}
    for name in ("grouped", "loop"):
        moe.experts.dispatch = name
        y, routing = moe(x)
        assert (routing.load == 0).sum() >= 5
        seen[name] = [y, *torch.autograd.grad(y, [x, *moe.parameters()], target)]
    for ours, oracle in zip(seen["grouped"], seen["loop"]):
        torch.testing.assert_close(ours, oracle, rtol=1e-4, atol=1e-5)


def test_a_gradient_without_strides_or_contiguity_is_taken():
    moe = layer(16, 8, 2, 8, dtype=torch.float32)
    x = torch.randn(6, 16, requires_grad=True)
    moe(x)[0].sum().backward()
    plain = x.grad.clone()
    x.grad = None
    moe(x)[0].t().contiguous().sum().backward()
    torch.testing.assert_close(x.grad, plain)


def test_tokens_may_have_any_leading_shape():
    moe = layer(16, 8, 2, 8)
    x = torch.randn(2, 3, 5, 16, dtype=torch.float64)
    y, routing = moe(x)
    assert y.shape == x.shape and routing.num_tokens == 30
    torch.testing.assert_close(y.reshape(-1, 16), moe(x.reshape(-1, 16))[0])


def test_permuting_tokens_permutes_outputs():
    moe = layer(16, 8, 2, 8)
    x, order = torch.randn(9, 16, dtype=torch.float64), torch.randperm(9)
    torch.testing.assert_close(moe(x[order])[0], moe(x)[0][order])


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_bfloat16_stays_close_to_float32(dispatch):
    moe = layer(64, 16, 4, 16, num_shared=1, dtype=torch.float32, dispatch=dispatch)
    x = torch.randn(50, 64)
    exact = moe(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        auto, routing = moe(x)
    assert auto.dtype == torch.bfloat16 and routing.logits.dtype == torch.float32
    assert torch.equal(routing.expert_ids, moe(x)[1].expert_ids), "autocast must not change who is chosen"
    assert (auto.float() - exact).norm() < 0.02 * exact.norm()
    pure = moe.to(torch.bfloat16)(x.bfloat16())
    assert pure[0].dtype == torch.bfloat16 and (pure[0].float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dispatches_agree_on_a_gpu(dtype):
    moe = layer(64, 62, 6, 24, num_shared=2, dtype=dtype).cuda()
    x = torch.randn(300, 64, dtype=dtype, device="cuda")
    outputs = {}
    for name in DISPATCHES:
        moe.experts.dispatch = name
        outputs[name] = moe(x)[0]
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    for name in ("grouped", "one_hot"):
        assert (outputs[name] - outputs["loop"]).norm() < tolerance * outputs["loop"].norm()


# --------------------------------------------------------------------------------------------------------- the router


def route(router, x):
    return router.double()(x.double())


def test_renormalised_weights_sum_to_the_gate_scale():
    routing = route(Router(16, 8, 3, scale=2.5), torch.randn(10, 16))
    torch.testing.assert_close(routing.weights.sum(1), torch.full((10,), 2.5, dtype=torch.float64))


def test_raw_weights_are_the_probabilities():
    routing = route(Router(16, 8, 3, renormalise=False), torch.randn(10, 16))
    torch.testing.assert_close(routing.weights, routing.logits.softmax(1).gather(1, routing.expert_ids))


def test_the_chosen_experts_have_the_highest_scores_best_first():
    routing = route(Router(16, 8, 3), torch.randn(10, 16))
    assert torch.equal(routing.expert_ids, routing.logits.argsort(1, descending=True)[:, :3])


def test_the_bias_selects_but_does_not_weigh():
    router = Router(16, 8, 2, score="sigmoid", renormalise=False)
    x = torch.randn(10, 16)
    router.bias[5] = 10.0
    routing = route(router, x)
    assert (routing.expert_ids[:, 0] == 5).all()
    torch.testing.assert_close(routing.weights[:, 0], routing.logits[:, 5].sigmoid())


def test_noise_is_drawn_in_training_alone_and_follows_the_seed():
    router = Router(16, 8, 2, noisy=True)
    x = torch.randn(10, 16)
    torch.manual_seed(1)
    noisy = router(x).logits
    torch.manual_seed(1)
    assert torch.equal(noisy, router(x).logits)
    assert not torch.allclose(noisy, router(x).logits, atol=1e-3), "drawn anew"
    router.eval()
    torch.testing.assert_close(router(x).logits, x @ router.weight)
    assert not torch.allclose(noisy, router(x).logits)


def test_noise_is_normal_and_as_loud_as_the_router_says():
    router = Router(16, 8, 2, noisy=True)
    torch.nn.init.normal_(router.noise)
    routing = router(torch.randn(20_000, 16))
    drawn = (routing.logits - routing.clean_logits) / routing.noise_std
    assert abs(drawn.mean()) < 0.02 and drawn.std().item() == pytest.approx(1, abs=0.02)


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("arguments, message", [
    (dict(top_k=9), "top_k is 9.*1 … 8"),
    (dict(top_k=0), "top_k is 0.*1 or more"),
    (dict(num_experts=0), "num_experts is 0.*whole number, 1 or more"),
    (dict(top_k=2.0), "top_k is 2.0.*whole number"),
    (dict(width=0), "width is 0.*1 or more"),
    (dict(expert_width=8 / 2), "expert_width is 4.0.*whole number, 1 or more"),
    (dict(num_shared=-1), "num_shared is -1.*0 or more"),
    (dict(score="relu"), "unknown score 'relu'.*softmax, sigmoid"),
    (dict(scale=0.0), "scale is 0.0.*positive"),
    (dict(scale=float("inf")), "scale is inf.*positive"),
    (dict(scale="1"), "scale is '1'.*positive"),
    (dict(renormalise="false"), "renormalise is 'false'; expected True, False or None"),
    (dict(noisy="false"), "noisy is 'false'; expected True or False"),
    (dict(top_k=True), "top_k is True.*whole number"),
    (dict(dispatch="fast"), "unknown dispatch 'fast'.*grouped, one_hot, loop, at_once, fused"),
])
def test_impossible_layers_are_refused_with_the_value_and_the_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        MoE(**dict(width=16, num_experts=8, top_k=2, expert_width=4) | arguments)


@pytest.mark.parametrize("make", [lambda: DenseFFN(16, 4), lambda: MoE(16, 8, 2, 4)])
def test_wrong_input_is_refused(make):
    with pytest.raises(ValueError, match=r"shape \(3, 8\).*width 16"):
        make()(torch.randn(3, 8))
    with pytest.raises(ValueError, match="int64.*embed"):
        make()(torch.ones(3, 16, dtype=torch.long))
    with pytest.raises(ValueError, match="the input has type ndarray; expected a tensor"):
        make()(np.ones((3, 16), np.float32))


def test_experts_refuse_a_routing_of_other_tokens_or_other_experts():
    layer, wider = MoE(16, 4, 2, 8), MoE(16, 6, 2, 8)
    with pytest.raises(ValueError, match="5 tokens and 4 experts, but a routing of 3 tokens to 4"):
        layer.experts(torch.zeros(5, 16), layer.router(torch.zeros(3, 16)))
    with pytest.raises(ValueError, match="3 tokens and 4 experts, but a routing of 3 tokens to 6"):
        layer.experts(torch.zeros(3, 16), wider.router(torch.zeros(3, 16)))
    with pytest.raises(ValueError, match=r"shape \(3, 8\).*width 16"):
        layer.experts(torch.zeros(3, 8), layer.router(torch.zeros(3, 16)))
    with pytest.raises(ValueError, match="num_experts is 0"):
        Experts(16, 0, 8)


def test_a_layer_made_without_memory_can_be_given_some():
    with torch.device("meta"):
        layer = MoE(8, num_experts=4, top_k=2, expert_width=4)
    layer.bfloat16().to_empty(device="cpu")
    assert layer.router.bias.device.type == "cpu" and layer.router.bias.dtype == torch.float32


def test_impossible_dense_layers_are_refused():
    with pytest.raises(ValueError, match="hidden is 0; expected a whole number, 1 or more"):
        DenseFFN(16, 0)
    with pytest.raises(ValueError, match="width is 16.0"):
        DenseFFN(32 / 2, 4)


def test_a_pair_that_was_read_from_a_file_is_no_model_and_is_told_so():
    with pytest.raises(ValueError, match=r"got a tuple; .*model, about = shipped_model\(…\)"):
        moe_layers((MoE(16, 8, 2, 4), {}))


def test_a_top_1_router_learns_unless_asked_not_to_and_then_it_warns():
    x = torch.randn(6, 8)
    for layer in (MoE(8, 4, 1, 5), Sparse(4, 1, 5).build(8), Budget(8, 32).experts(top_k=1).build(8)):
        layer(x)[0].square().sum().backward()
        assert layer.router.weight.grad.abs().max() > 1e-6
    with pytest.warns(UserWarning, match="gets no gradient"):
        layer = MoE(8, 4, 1, 5, renormalise=True)
    layer(x)[0].square().sum().backward()
    assert not layer.router.weight.grad.any()
