"""The course's models as classes of Hugging Face transformers, and back: the same function of the same tokens.

No class says all that ours can. Which one a model becomes, and what is folded into what, so that nothing is lost:

| our routers | class | folded |
|---|---|---|
| softmax, renormalised, no shared experts | Mixtral | the gate scale into the experts' second matrices |
| softmax, with shared experts | Qwen2-MoE | the same; and half the shared experts' output, see below |
| sigmoid, with or without a bias | DeepSeek-V3 | attention into multi-head latent attention, see `latent` |

Qwen2-MoE weighs its shared experts by σ(w·x): at w = 0 they count ½ for every token, so their second matrix is doubled.
DeepSeek-V3 can't hold a softmax router: it weighs by sigmoids, and no linear map of the input makes these the same shares.
DeepSeek-V2, which has the softmax, does not divide the weights by their sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..base.errors import require
from ..moe.layers import DenseFFN, MoE
from ..moe.recipes import Dense, Sparse
from .model import LanguageModel, ModelConfig

EPSILON = torch.finfo(torch.float32).eps  # what nn.RMSNorm adds unless told otherwise
THETA = 10_000.0  # of `model.rotate`


def class_of(config: ModelConfig) -> str:
    """The class that can hold a model: a model_type of transformers.

    Raises:
        ValueError: if none can, with the reason.
    """
    sparse = [recipe for recipe in config.recipes if isinstance(recipe, Sparse)]
    dense = [recipe for recipe in config.recipes if isinstance(recipe, Dense)]
    require(bool(sparse), "this model has no mixture of experts: there is no router to take elsewhere")
    require(len(set(sparse)) == 1 and len(set(dense)) <= 1, "the layers differ in size; transformers' classes have one for all")
    [one] = set(sparse)
    require(not one.noisy, "its routers add noise while they learn, which transformers' do not")
    if one.score == "sigmoid":
        require(list(config.recipes) == dense + sparse, "DeepSeek-V3 has its dense layers first; here they stand in between")
        return "deepseek_v3"
    require(one.num_shared > 0 or bool(one.renormalise) and not dense, "without shared experts it would become Mixtral, which "
            "divides the weights by their sum and has no dense layer")
    return "qwen2_moe" if one.num_shared else "mixtral"


def to_transformers(model: LanguageModel):
    """A model of the course as one of Hugging Face transformers with the same logits.

    Args:
        model: with at least one MoE layer, all of one size.

    Returns: a `MixtralForCausalLM`, `Qwen2MoeForCausalLM` or `DeepseekV3ForCausalLM`, see above, to be saved and loaded as any.

    Raises:
        ValueError: if no class can say what the model does.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, config = class_of(model.config), model.config
    state = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight,
             "lm_head.weight": model.head.weight}
    for i, block in enumerate(model.blocks):
        attention = latent(block) if kind == "deepseek_v3" else plain(block)
        ffn = mixture(block.ffn, kind) if isinstance(block.ffn, MoE) else swiglu_of(block.ffn)
        parts = attention | {f"mlp.{name}": tensor for name, tensor in ffn.items()}
        parts["post_attention_layernorm.weight"] = block.ffn_norm.weight
        state |= {f"model.layers.{i}.{name}": tensor for name, tensor in parts.items()}
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shared_sizes(config), **sizes(config, kind)))
    theirs.load_state_dict({name: tensor.detach().float().cpu() for name, tensor in state.items()})
    return theirs.eval()


def shared_sizes(config: ModelConfig) -> dict:
    """What all three classes call by one name."""
    return {"vocab_size": config.vocabulary, "hidden_size": config.width, "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads, "num_key_value_heads": config.heads, "rms_norm_eps": EPSILON,
            "max_position_embeddings": config.context, "tie_word_embeddings": False, "hidden_act": "silu", "pad_token_id": None,
            "bos_token_id": None, "eos_token_id": None, "dtype": "float32"}


def sizes(config: ModelConfig, kind: str) -> dict:
    """What each class calls by a name of its own."""
    one = next(recipe for recipe in config.recipes if isinstance(recipe, Sparse))
    dense = [i for i, recipe in enumerate(config.recipes) if isinstance(recipe, Dense)]
    hidden = config.recipes[dense[0]].hidden if dense else one.expert_width  # type: ignore[union-attr]
    rope = {"rope_type": "default", "rope_theta": THETA}
    if kind == "mixtral":
        return {"num_local_experts": one.num_experts, "num_experts_per_tok": one.top_k, "intermediate_size": one.expert_width,
                "sliding_window": None, "rope_parameters": rope}
    found = {"num_experts_per_tok": one.top_k, "moe_intermediate_size": one.expert_width, "intermediate_size": hidden,
             "norm_topk_prob": one.renormalise}
    if kind == "qwen2_moe":
        return found | {"num_experts": one.num_experts, "shared_expert_intermediate_size": one.num_shared * one.expert_width,
                        "mlp_only_layers": dense, "qkv_bias": False, "use_sliding_window": False, "rope_parameters": rope}
    return found | {"n_routed_experts": one.num_experts, "n_shared_experts": one.num_shared, "first_k_dense_replace": len(dense),
                    "routed_scaling_factor": one.scale, "n_group": 1, "topk_group": 1, "num_mtp_layers": 0,
                    "q_lora_rank": None, "kv_lora_rank": config.width, "qk_nope_head_dim": 0, "qk_rope_head_dim": config.width,
                    "v_head_dim": config.width // config.heads, "rope_interleave": False,
                    "rope_parameters": side_by_side(config)}


# ------------------------------------------------------------------------------------------------------------- attention


def plain(block) -> dict[str, Tensor]:
    """Our attention as theirs: queries, keys and values in matrices of their own."""
    q, k, v = block.attention.qkv.weight.chunk(3)
    return {"input_layernorm.weight": block.attention_norm.weight, "self_attn.q_proj.weight": q, "self_attn.k_proj.weight": k,
            "self_attn.v_proj.weight": v, "self_attn.o_proj.weight": block.attention.out.weight}


def latent(block) -> dict[str, Tensor]:
    """Our attention as multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, eq. 9–19), which has two ways to a key.

    The rotated key is one for all heads: ours lie side by side in it, and each head's query is zero but at its own place. The
    values come from the latent, which is normed again: it is the normed input itself (its norm is 1 already), so the first
    norm's weight moves into the three matrices. Scores are divided by √D instead of √(D / heads): queries grow by √heads.
    """
    heads, width = block.attention.heads, block.attention.out.weight.shape[0]
    q, k, v = (block.attention.qkv.weight * block.attention_norm.weight).chunk(3)
    place = side_by_side_order(heads, width)
    queries = torch.zeros(heads, width, width, dtype=q.dtype, device=q.device)
    for head, rows in enumerate(torch.arange(width, device=q.device).chunk(heads)):
        queries[head, rows] = q[rows] * heads ** 0.5
    identity, one = torch.eye(width, dtype=q.dtype, device=q.device), torch.ones_like(block.attention_norm.weight)
    return {"input_layernorm.weight": one, "self_attn.q_proj.weight": queries[:, place].flatten(0, 1),
            "self_attn.kv_a_proj_with_mqa.weight": torch.cat([identity, k[place]]), "self_attn.kv_a_layernorm.weight": one,
            "self_attn.kv_b_proj.weight": v, "self_attn.o_proj.weight": block.attention.out.weight}


def from_latent(state: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """What `latent` made, as ours again; the norm's weight stays in the matrices."""
    width = len(state["input_layernorm.weight"])
    back = side_by_side_order(heads, width).argsort()
    queries = state["self_attn.q_proj.weight"].view(heads, width, width)[:, back]
    q = torch.cat([queries[head, rows] for head, rows in enumerate(torch.arange(width).chunk(heads))]) / heads ** 0.5
    k = state["self_attn.kv_a_proj_with_mqa.weight"][width:][back]
    return {"attention_norm.weight": state["input_layernorm.weight"],
            "attention.qkv.weight": torch.cat([q, k, state["self_attn.kv_b_proj.weight"]])}


def side_by_side_order(heads: int, width: int) -> Tensor:
    """[D] which row of ours stands where in the one long rotated key: first halves of all heads, then second halves."""
    return torch.arange(width).view(heads, 2, -1).transpose(0, 1).flatten()


def side_by_side(config: ModelConfig) -> dict:
    """Rotary parameters by which each head's piece of the long key turns as fast as the head alone would.

    LongRoPE (arXiv 2402.13753) divides each frequency by a factor of its own; these are the factors.
    """
    half = torch.arange(config.width // config.heads // 2, dtype=torch.float64)
    wanted = (THETA ** (-half / len(half))).repeat(config.heads)
    usual = THETA ** (-torch.arange(config.width // 2, dtype=torch.float64) / (config.width // 2))
    factors = (usual / wanted).tolist()
    return {"rope_type": "longrope", "rope_theta": THETA, "short_factor": factors, "long_factor": factors, "factor": 1.0,
            "attention_factor": 1.0, "original_max_position_embeddings": config.context}


# ----------------------------------------------------------------------------------------------------------- feed-forward


def swiglu_of(ffn: DenseFFN, name: str = "", grown: float = 1.0) -> dict[str, Tensor]:
    """A dense FFN in three matrices, its output multiplied."""
    gate, up = ffn.w_in.T.chunk(2)
    return {f"{name}gate_proj.weight": gate, f"{name}up_proj.weight": up, f"{name}down_proj.weight": ffn.w_out.T * grown}


def mixture(moe: MoE, kind: str) -> dict[str, Tensor]:
    """A mixture of experts with their names."""
    router, v3 = moe.router, kind == "deepseek_v3"
    require(v3 or not bool(router.bias.any()), f"the router chooses with a bias, which {kind} has not; sigmoid routers become "
                                               "DeepSeek-V3, which has")
    state = {"gate.weight": router.weight.T, "experts.gate_up_proj": moe.experts.w_in.transpose(1, 2),
             "experts.down_proj": moe.experts.w_out.transpose(1, 2) * (1 if v3 else router.scale)}
    if v3:
        state["gate.e_score_correction_bias"] = router.bias
    if moe.shared is not None:
        state |= swiglu_of(moe.shared, "shared_experts." if v3 else "shared_expert.", 1 if v3 else 2)
    elif v3:
        width = router.width
        state |= {f"shared_experts.{name}_proj.weight": torch.zeros(shape) for name, shape in (
            ("gate", (0, width)), ("up", (0, width)), ("down", (width, 0)))}
    if kind == "qwen2_moe":
        state["shared_expert_gate.weight"] = torch.zeros(1, router.width)
    return state


# ------------------------------------------------------------------------------------------------------------------- back


def from_transformers(theirs) -> LanguageModel:
    """A model that `to_transformers` made, trained further or not, as one of the course with the same logits.

    Raises:
        ValueError: for another class, or one whose settings ours can't say.
    """
    config, kind = theirs.config, theirs.config.model_type
    require(kind in ("mixtral", "qwen2_moe", "deepseek_v3"), f"{kind} is not a class that the course's models become; expected "
                                                             "mixtral, qwen2_moe or deepseek_v3")
    state = {name: tensor.detach().float().cpu() for name, tensor in theirs.state_dict().items()}
    ours = ModelConfig(tuple(recipe_of(state, config, i) for i in range(config.num_hidden_layers)), config.num_hidden_layers,
                       config.hidden_size, config.num_attention_heads, config.max_position_embeddings, config.vocab_size)
    wanted = shared_sizes(ours) | sizes(ours, kind)
    wrong = [name for name, value in wanted.items() if name not in ("dtype", "pad_token_id", "bos_token_id", "eos_token_id")
             and name != "rope_parameters" and getattr(config, name) != value]
    wrong += [f"rope_parameters.{name}" for name, value in wanted["rope_parameters"].items()
              if config.rope_parameters.get(name) != value]
    require(not wrong, f"the course's model can't say {', '.join(wrong)} of this {type(theirs).__name__}")
    model = LanguageModel(ours)
    model.load_state_dict({"embedding.weight": state["model.embed_tokens.weight"], "norm.weight": state["model.norm.weight"],
                           "head.weight": state["lm_head.weight"]}
                          | {f"blocks.{i}.{name}": tensor for i in range(ours.layers)
                             for name, tensor in block_of(layer_state(state, i), kind, ours.heads).items()})
    return model.eval()


def layer_state(state: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    """The tensors of one decoder layer."""
    prefix = f"model.layers.{i}."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def recipe_of(state: dict[str, Tensor], config, i: int) -> Dense | Sparse:
    """What stands in a layer's FFN, by its tensors."""
    layer = layer_state(state, i)
    if "mlp.gate.weight" not in layer:
        return Dense(len(layer["mlp.gate_proj.weight"]))
    (n, _, hidden), sigmoid = layer["mlp.experts.down_proj"].shape, config.model_type == "deepseek_v3"
    shared = next((len(t) for name, t in layer.items() if name.startswith("mlp.shared_expert") and "gate_proj" in name), 0)
    return Sparse(n, config.num_experts_per_tok, hidden, shared // hidden, "sigmoid" if sigmoid else "softmax",
                  getattr(config, "norm_topk_prob", True), getattr(config, "routed_scaling_factor", 1.0))


def block_of(layer: dict[str, Tensor], kind: str, heads: int) -> dict[str, Tensor]:
    """A decoder layer's tensors by our names."""
    def ffn(name: str, grown: float = 1.0) -> dict[str, Tensor]:
        gate, up, down = (layer[f"mlp.{name}{part}_proj.weight"] for part in ("gate", "up", "down"))
        return {"w_in": torch.cat([gate, up]).T, "w_out": down.T * grown}

    found = from_latent(layer, heads) if kind == "deepseek_v3" else {
        "attention_norm.weight": layer["input_layernorm.weight"],
        "attention.qkv.weight": torch.cat([layer[f"self_attn.{part}_proj.weight"] for part in "qkv"])}
    found |= {"attention.out.weight": layer["self_attn.o_proj.weight"],
              "ffn_norm.weight": layer["post_attention_layernorm.weight"]}
    if "mlp.gate.weight" not in layer:
        return found | {f"ffn.{name}": tensor for name, tensor in ffn("").items()}
    router = layer["mlp.gate.weight"]
    found |= {"ffn.router.weight": router.T,
              "ffn.router.bias": layer.get("mlp.gate.e_score_correction_bias", torch.zeros(len(router))),
              "ffn.experts.w_in": layer["mlp.experts.gate_up_proj"].transpose(1, 2),
              "ffn.experts.w_out": layer["mlp.experts.down_proj"].transpose(1, 2)}
    name = "shared_experts." if kind == "deepseek_v3" else "shared_expert."
    if kind != "mixtral" and len(layer[f"mlp.{name}gate_proj.weight"]):
        if kind == "qwen2_moe":
            require(not bool(layer["mlp.shared_expert_gate.weight"].any()),
                    "the shared experts' gate has learned something, which the course's model can't say")
        found |= {f"ffn.shared.{part}": t for part, t in ffn(name, 0.5 if kind == "qwen2_moe" else 1.0).items()}
    return found
