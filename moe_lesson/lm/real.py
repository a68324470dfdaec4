"""Real models: what the routers of Hugging Face transformers' mixtures of experts decide, as the course's `Routing`.

Nothing is computed again. A hook on each router takes the experts and the weights that the model itself goes on with: the top K
of the logits would be other experts wherever a bias or a group has a say (DeepSeek-V3, arXiv 2412.19437, eq. 16). How a class is
built stands in one line of `KINDS`; here is no code for a single one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import require
from ..moe.layers import Router
from ..moe.routing import Routing
from .model import evaluating, listening


@dataclass(frozen=True)
class Kind:
    """How a class of models builds its mixtures of experts; text names a field of its config, where one decides.

    Args:
        block: the mixture within a decoder layer, which holds its `experts`.
        router: within the block.
        score: as in `Router`; None where what it does is no top K of scores.
        renormalise: divide the K weights by their sum.
        scale: of the weights.
        bias: within the block, what is added to the scores to choose; "" for nothing.
        logit_bias: whether the router adds a bias to the logits themselves.
    """

    block: str = "mlp"
    router: str = "gate"
    score: str | None = "softmax"
    renormalise: bool | str = True
    scale: float | str = 1.0
    bias: str = ""
    logit_bias: bool = False


KINDS = {  # by a config's model_type
    "deepseek_v2": Kind(renormalise=False, scale="routed_scaling_factor"),
    "deepseek_v3": Kind(score="sigmoid", renormalise="norm_topk_prob", scale="routed_scaling_factor",
                        bias="gate.e_score_correction_bias"),
    "ernie4_5_moe": Kind(bias="gate.moe_statics.e_score_correction_bias"),
    "gpt_oss": Kind(router="router", logit_bias=True),
    "granitemoe": Kind("block_sparse_moe", "router"),
    "lfm2_moe": Kind("feed_forward", score="sigmoid", renormalise="norm_topk_prob", scale="routed_scaling_factor",
                     bias="expert_bias"),
    "mixtral": Kind(),
    "olmoe": Kind(renormalise="norm_topk_prob"),
    "phimoe": Kind(router="router", score=None),  # SparseMixer: each choice is weighed against those that are left
    "qwen2_moe": Kind(renormalise="norm_topk_prob"),
    "qwen3_moe": Kind(renormalise="norm_topk_prob"),
}


@dataclass(frozen=True, eq=False)
class Block:
    """One mixture of experts of a real model, by the name of its module: dense layers have none."""

    name: str
    module: Any
    kind: Kind
    config: Any

    @property
    def router(self) -> Any:
        """What decides."""
        return attrgetter(self.kind.router)(self.module)

    def setting(self, value):
        """A field of `Kind`: itself, or what the config says."""
        return getattr(self.config, value) if isinstance(value, str) else value


def moe_blocks(model: nn.Module) -> list[Block]:
    """The mixtures of experts of a model of Hugging Face transformers, in order.

    Raises:
        ValueError: for a class that is not in `KINDS`, with its name, and for a model without a mixture of experts.
    """
    config = getattr(model, "config", None)
    known = str(getattr(config, "model_type", None))
    require(known in KINDS, f"{type(model).__name__} ({known}) is not a class whose routers are known here; there are "
                            f"{', '.join(sorted(KINDS))}. A new one needs a line in KINDS of moe_lesson/lm/real.py, if its "
                            "router returns logits, weights and experts")
    kind = KINDS[known]
    blocks = [Block(name, module, kind, config) for name, module in model.named_modules()
              if name.endswith(f".{kind.block}") and hasattr(module, "experts")]
    require(bool(blocks), f"this {type(model).__name__} has no mixture of experts: all its layers are dense")
    return blocks


# ------------------------------------------------------------------------------------------------------------- listening


def routings_of(model: Any, ids_T: Tensor, tokens: Sequence[str] | None = None) -> dict[str, Routing]:
    """What each router of a real model decides for a text.

    Args:
        model: of a class in `KINDS`.
        ids_T: token ids [T].
        tokens: the T tokens as text.

    Returns: the name of each mixture's module -> its `Routing`, on the CPU; the heaviest expert of a token first.
    """
    kind = moe_blocks(model)[0].kind
    with evaluating(model) as device:
        heard = listen(model, ids_T.to(device), f"{kind.block}.{kind.router}")
    routings = {name.removesuffix(f".{kind.router}"): routing.detach() for name, routing in heard.items()}
    return routings if tokens is None else {name: routing.with_tokens(tokens) for name, routing in routings.items()}


@torch.no_grad()
def listen(model: nn.Module, ids_T: Tensor, router: str) -> dict[str, Routing]:
    """Run a model once, and write down what its routers decide.

    Args:
        model: takes token ids [1, T].
        ids_T: token ids [T].
        router: what the routers are called in it, e.g. "mlp.gate": a module is one if its name ends so, after a dot.

    Returns: the name of each router's module -> its `Routing`; a dense layer has no router, and so no entry.
    """
    heard: dict[str, Routing] = {}

    def hook_for(name: str) -> Callable:
        def hook(module, inputs, output):
            heard[name] = decided(output, name)

        return hook

    routers = [(name, module) for name, module in model.named_modules() if name.endswith(f".{router}")]
    hooks = [module.register_forward_hook(hook_for(name)) for name, module in routers]
    try:
        model(ids_T[None])
    finally:
        for one in hooks:
            one.remove()
    return heard


def decided(output: object, name: str = "router") -> Routing:
    """The `Routing` of what a router returns: logits [T, N], weights [T, K], indices [T, K].

    Raises:
        ValueError: for anything else, e.g. of another version of transformers.
    """
    parts = output if isinstance(output, tuple) else ()
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    require(len(parts) == 3 and all(isinstance(part, Tensor) and part.ndim == 2 for part in parts)
            and parts[1].is_floating_point() and not parts[2].is_floating_point(),
            f"the router of {name} returned {shapes or type(output).__name__}; expected logits [T, N], weights [T, K] and "
            "indices [T, K], as transformers 5.20 and later give them")
    logits_TN, weights_TK, ids_TK = parts
    order_TK = weights_TK.argsort(dim=1, descending=True, stable=True)  # DeepSeek's are in no order
    return Routing(logits_TN.float(), ids_TK.gather(1, order_TK).long(), weights_TK.gather(1, order_TK).float())


@torch.no_grad()
def block_inputs(model: Any, ids_T: Tensor) -> dict[str, Tensor]:
    """What goes into each mixture of experts: the name of its module -> [T, D], on the CPU."""
    blocks = moe_blocks(model)
    with evaluating(model) as device, listening([block.router for block in blocks]) as inputs:
        model(ids_T[None].to(device))
    return {block.name: x.flatten(0, -2).float().cpu() for block, x in zip(blocks, inputs)}


# ------------------------------------------------------------------------------------------------- the parts, for the lens


@torch.no_grad()
def expert_outputs(block: Block, x_TD: Tensor) -> Tensor:
    """What every expert would answer to the same tokens, whatever layout its weights have: [N, T, D]."""
    experts, weight = block.module.experts, block.router.weight
    x_TD = x_TD.to(weight.device, weight.dtype)
    once_T1 = x_TD.new_ones(len(x_TD), 1)
    outputs = [experts(x_TD, torch.full_like(once_T1, i, dtype=torch.long), once_T1) for i in range(len(weight))]
    return torch.stack(outputs).float().cpu()


def router_of(block: Block) -> Router:
    """The router of a real model as the course's own: same logits, same choice, same weights.

    Raises:
        ValueError: where ours can't say it: SparseMixer, a bias on the logits, or a choice of groups first.
    """
    kind, config, theirs = block.kind, block.config, block.router
    grouped = (getattr(config, "n_group", None) or 1) > 1 and getattr(config, "topk_method", "") != "greedy"
    what = {"SparseMixer": kind.score is None, "a bias on the logits": kind.logit_bias, "a choice of groups first": grouped}
    found = [name for name, there in what.items() if there]
    require(not found, f"the router of {block.name} has {' and '.join(found)}, which the course's router has not; "
                       "its decisions are in routings_of all the same")
    ours = Router(theirs.weight.shape[1], theirs.weight.shape[0], theirs.top_k, score=str(kind.score),
                  renormalise=block.setting(kind.renormalise), scale=block.setting(kind.scale))
    with torch.no_grad():
        ours.weight.copy_(theirs.weight.T)
        if kind.bias and (bias := attrgetter(kind.bias)(block.module)) is not None:
            ours.bias.copy_(bias.flatten())
    return ours.eval()


@contextmanager
def rerouted(block: Block, change: Callable[[Routing], Routing]) -> Iterator[None]:
    """Let a router decide otherwise while the model runs.

    Args:
        block: whose router.
        change: what it decided -> what the experts are given instead.
    """
    def instead(_, inputs, output):
        changed = change(decided(output, block.name))
        return output[0], changed.weights.to(output[1]), changed.expert_ids.to(output[2])

    hook = block.router.register_forward_hook(instead)
    try:
        yield
    finally:
        hook.remove()
