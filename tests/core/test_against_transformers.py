"""With copied weights our layer is the layer of Hugging Face transformers, in output and all gradients, in float64."""

import pytest
import torch

from moe_lesson import MoE

transformers = pytest.importorskip("transformers")
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek  # noqa: E402
from transformers.models.mixtral import modeling_mixtral as mixtral  # noqa: E402

D, N, K, H, T = 16, 8, 3, 12, 40


class Float64Torch:
    """The torch module, but what it calls float32 is float64: their router computes in float32 whatever the input is."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def deepseek_layer(monkeypatch):
    monkeypatch.setattr(deepseek, "torch", Float64Torch())
    config = deepseek.DeepseekV3Config(hidden_size=D, moe_intermediate_size=H, n_routed_experts=N, num_experts_per_tok=K,
                                       n_group=1, topk_group=1, n_shared_experts=2, norm_topk_prob=True,
                                       routed_scaling_factor=2.5)
    theirs = randomised(deepseek.DeepseekV3MoE(config))
    theirs.gate.e_score_correction_bias.copy_(torch.randn(N) * 0.3)
    ours = MoE(D, N, K, H, num_shared=2, score="sigmoid", scale=2.5).double()
    ours.router.bias.copy_(theirs.gate.e_score_correction_bias)
    return ours, theirs


def mixtral_layer(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    config = mixtral.MixtralConfig(hidden_size=D, intermediate_size=H, num_local_experts=N, num_experts_per_tok=K)
    return MoE(D, N, K, H).double(), randomised(mixtral.MixtralSparseMoeBlock(config))


def randomised(module):
    module = module.double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def pairs(ours, theirs):
    """(name, our tensor, their tensor in our layout); called with weights and with gradients."""
    yield "router", ours["router.weight"], theirs["gate.weight"].T
    yield "experts in", ours["experts.w_in"], theirs["experts.gate_up_proj"].transpose(1, 2)
    yield "experts out", ours["experts.w_out"], theirs["experts.down_proj"].transpose(1, 2)
    if "shared.w_in" in ours:
        gate_up = torch.cat([theirs["shared_experts.gate_proj.weight"], theirs["shared_experts.up_proj.weight"]])
        yield "shared in", ours["shared.w_in"], gate_up.T
        yield "shared out", ours["shared.w_out"], theirs["shared_experts.down_proj.weight"].T


@pytest.mark.parametrize("dispatch", ["grouped", "one_hot", "loop"])
@pytest.mark.parametrize("make", [deepseek_layer, mixtral_layer])
def test_same_output_and_gradients(make, dispatch, monkeypatch):
    torch.manual_seed(0)
    ours, theirs = make(monkeypatch)
    ours.experts.dispatch = dispatch
    with torch.no_grad():
        for _, mine, reference in pairs(dict(ours.named_parameters()), dict(theirs.named_parameters())):
            mine.copy_(reference)
    x, target = torch.randn(1, T, D, dtype=torch.float64), torch.randn(1, T, D, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [ours(inputs[0])[0], theirs(inputs[1])]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-10)
    for y in outputs:
        ((y - target) ** 2).mean().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-10)
    gradients = [{name: p.grad for name, p in layer.named_parameters()} for layer in (ours, theirs)]
    checked = 0
    for name, mine, reference in pairs(*gradients):
        assert reference.abs().max() > 1e-6, f"the comparison of {name} would be empty"
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
        checked += 1
    assert checked == len(list(ours.parameters()))
