"""What the adapter hears is what the model computed with: for every class, with routers and biases that are not zero."""

import pytest
import torch
import torch.nn.functional as F

from moe_lesson.lm import real
from moe_lesson.lm.real_models import loaded

transformers = pytest.importorskip("transformers")

D, N, K, H, T = 16, 8, 3, 12, 30
COMMON = dict(hidden_size=D, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, vocab_size=50,
              max_position_embeddings=64, num_experts_per_tok=K, pad_token_id=0, bos_token_id=0, eos_token_id=0)
V2 = dict(n_routed_experts=N, moe_intermediate_size=H, intermediate_size=20, n_shared_experts=2, first_k_dense_replace=1,
          kv_lora_rank=8, q_lora_rank=None, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, routed_scaling_factor=2.5,
          head_dim=8)
CLASSES = {
    "olmoe": dict(num_experts=N, intermediate_size=H),
    "mixtral": dict(num_local_experts=N, intermediate_size=H),
    "qwen2_moe": dict(num_experts=N, moe_intermediate_size=H, shared_expert_intermediate_size=20, intermediate_size=20,
                      mlp_only_layers=[0], norm_topk_prob=False),
    "qwen3_moe": dict(num_experts=N, moe_intermediate_size=H, intermediate_size=20, mlp_only_layers=[0], head_dim=8),
    "deepseek_v2": V2 | dict(topk_method="greedy"),
    "deepseek_v2, in groups": V2 | dict(topk_method="group_limited_greedy", n_group=4, topk_group=2),
    "deepseek_v3": V2 | dict(n_group=1, topk_group=1, num_mtp_layers=0),
    "deepseek_v3, in groups": V2 | dict(n_group=4, topk_group=2, num_mtp_layers=0),
    "granitemoe": dict(num_local_experts=N, intermediate_size=H),
    "gpt_oss": dict(num_local_experts=N, intermediate_size=H, head_dim=8),
    "ernie4_5_moe": dict(moe_num_experts=N, moe_k=K, moe_intermediate_size=H, intermediate_size=20, moe_num_shared_experts=1,
                         moe_layer_start_index=1),
    "lfm2_moe": dict(num_experts=N, moe_intermediate_size=H, intermediate_size=20, num_dense_layers=1,
                     layer_types=["full_attention"] * 3, use_expert_bias=True, routed_scaling_factor=1.5),
    "phimoe": dict(num_local_experts=N, intermediate_size=H, num_experts_per_tok=2),
}
FIRST_IS_DENSE = ("qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "ernie4_5_moe", "lfm2_moe")
IDS = torch.randint(0, 50, (T,), generator=torch.Generator().manual_seed(1))


def made(name: str):
    """A tiny model of a class, all its numbers random, biases too."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name.split(",")[0], **COMMON | CLASSES[name])
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for one in [*model.parameters(), *(b for key, b in model.named_buffers() if "bias" in key)]:
            one.copy_(torch.randn_like(one) * 0.4)
    return model


@pytest.fixture(params=CLASSES)
def name(request):
    return request.param


def by_hand(block: real.Block, x_TD: torch.Tensor, i: int) -> torch.Tensor:
    """One expert's answer, from its weights."""
    experts = block.module.experts
    if "GptOss" in type(experts).__name__:  # its own layout, biases and clamps
        gate_up = x_TD @ experts.gate_up_proj[i] + experts.gate_up_proj_bias[i]
        gate, up = gate_up[:, ::2].clamp(max=experts.limit), gate_up[:, 1::2].clamp(-experts.limit, experts.limit)
        return ((up + 1) * gate * torch.sigmoid(1.702 * gate)) @ experts.down_proj[i] + experts.down_proj_bias[i]
    gate, up = (x_TD @ experts.gate_up_proj[i].T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ experts.down_proj[i].T


def shared_by_hand(block: real.Block, x_TD: torch.Tensor) -> torch.Tensor | float:
    module = block.module
    if hasattr(module, "shared_expert"):
        return torch.sigmoid(module.shared_expert_gate(x_TD)) * module.shared_expert(x_TD)
    return module.shared_experts(x_TD) if getattr(module, "shared_experts", None) is not None else 0.0


@torch.no_grad()
def test_a_blocks_output_is_its_experts_answers_weighed_as_the_routing_says(name):
    model = made(name)
    blocks, outputs = real.moe_blocks(model), {}
    for block in blocks:
        block.module.register_forward_hook(lambda _, inputs, output, key=block.name: outputs.update({key: (inputs[0], output)}))
    routings = real.routings_of(model, IDS, tokens=[str(i) for i in IDS.tolist()])
    for block in blocks:
        x_TD, y_TD = (part[0] if isinstance(part, tuple) else part for part in outputs[block.name])
        x_TD, y_TD, routing = x_TD.reshape(T, D), y_TD.reshape(T, D), routings[block.name]
        assert routing.num_experts == N and routing.top_k == (2 if name == "phimoe" else K) and len(routing.tokens) == T
        assert (routing.weights.diff(dim=1) <= 0).all(), "the heaviest first"
        each_NTD = torch.stack([by_hand(block, x_TD, i) for i in range(N)])
        torch.testing.assert_close(real.expert_outputs(block, x_TD), each_NTD, rtol=1e-4, atol=1e-5)
        mine = torch.einsum("tn,ntd->td", routing.gates, each_NTD) + shared_by_hand(block, x_TD)
        torch.testing.assert_close(y_TD, mine, rtol=1e-4, atol=1e-5)


def test_layers_go_by_the_names_of_their_modules_and_dense_ones_have_none(name):
    model = made(name)
    found = [int(key.split(".")[2]) for key in real.routings_of(model, IDS)]
    assert found == ([1, 2] if name.split(",")[0] in FIRST_IS_DENSE else [0, 1, 2])


def test_the_courses_router_decides_the_same_or_says_why_it_can_not(name):
    model = made(name)
    inputs, routings = real.block_inputs(model, IDS), real.routings_of(model, IDS)
    for block in real.moe_blocks(model):
        reason = {"gpt_oss": "a bias on the logits", "phimoe": "SparseMixer"}.get(name, "groups" if "groups" in name else "")
        if reason:
            with pytest.raises(ValueError, match=reason):
                real.router_of(block)
            continue
        ours, theirs = real.router_of(block)(inputs[block.name]), routings[block.name]
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.gates, theirs.gates, rtol=1e-4, atol=1e-5)


def test_with_a_bias_the_top_of_the_logits_are_other_experts():
    for routing in real.routings_of(made("deepseek_v3"), IDS).values():
        best = routing.logits.topk(K).indices
        assert (best.sort(1).values != routing.expert_ids.sort(1).values).any(1).float().mean() > 0.5


@torch.no_grad()
def test_a_router_may_be_told_to_decide_otherwise(name):
    model = made(name)
    block = real.moe_blocks(model)[-1]
    plain, x_TD = model(IDS[None]).logits, real.block_inputs(model, IDS)[block.name]
    with real.rerouted(block, lambda routing: routing):
        torch.testing.assert_close(model(IDS[None]).logits, plain)
    seen = {}
    hook = block.module.register_forward_hook(lambda _, inputs, output: seen.update(y=output))
    with real.rerouted(block, lambda routing: routing.reweighted(routing.weights * 0)):
        model(IDS[None])
    hook.remove()
    y_TD = (seen["y"][0] if isinstance(seen["y"], tuple) else seen["y"]).reshape(T, D)
    torch.testing.assert_close(y_TD, torch.zeros(T, D) + shared_by_hand(block, x_TD), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(IDS[None]).logits, plain)


def test_other_classes_are_refused_by_name():
    jet = transformers.JetMoeConfig(hidden_size=16, num_hidden_layers=1, num_key_value_heads=2, kv_channels=8, vocab_size=50,
                                    intermediate_size=16, num_local_experts=4, num_experts_per_tok=2)
    with pytest.raises(ValueError, match=r"JetMoeForCausalLM \(jetmoe\) is not a class whose routers are known"):
        real.moe_blocks(transformers.AutoModelForCausalLM.from_config(jet))
    with pytest.raises(ValueError, match=r"Linear \(None\)"):
        real.moe_blocks(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="all its layers are dense"):
        real.moe_blocks(transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(
            "deepseek_v3", **COMMON | CLASSES["deepseek_v3"] | dict(first_k_dense_replace=3))))


@pytest.mark.parametrize("output", [torch.zeros(4, 8), (torch.zeros(4, 8), torch.zeros(4, 2)),
                                    (torch.zeros(4, 8), torch.zeros(4, 2).long(), torch.zeros(4, 2)),
                                    (torch.zeros(8), torch.zeros(4, 2), torch.zeros(4, 2).long())])
def test_a_router_of_another_version_is_refused(output):
    with pytest.raises(ValueError, match=r"expected logits \[T, N\], weights \[T, K\] and indices"):
        real.decided(output, "model.layers.0.mlp")


def test_experts_on_disk_answer_as_they_did_in_memory(name, tmp_path):
    pytest.importorskip("accelerate")
    whole = made(name)
    whole.save_pretrained(tmp_path)
    size = sum(one.nbytes for one in whole.state_dict().values())
    small = loaded(tmp_path, size - 1)
    assert any(one.is_meta for one in small.parameters())
    with torch.no_grad():
        torch.testing.assert_close(small(IDS[None]).logits, whole(IDS[None]).logits, rtol=0, atol=1e-6)
    for mine, theirs in zip(real.routings_of(small, IDS).values(), real.routings_of(whole, IDS).values()):
        assert torch.equal(mine.expert_ids, theirs.expert_ids)
