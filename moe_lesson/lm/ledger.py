"""The ledger: what a layer or a model costs, counted from its sizes alone, so that a 16-billion-parameter model can be
costed on a laptop.

A multiplication and its addition are 2 FLOPs; only matrix products count (norms, softmax and the like do not). Attention is
counted as it is computed by the plain formula: every position against every position of the context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..base.errors import require, whole_number
from ..moe.recipes import Dense, Recipe, Sparse, checked
from .model import ModelConfig, check_config


@dataclass(frozen=True)
class Cost:
    """Parameters that exist, parameters that one token uses, and FLOPs of one token's forward pass.

    >>> Cost(10, 5, 10) + Cost(1, 1, 2)
    Cost(total=11, active=6, flops=12)
    """

    total: int
    active: int
    flops: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.total + other.total, self.active + other.active, self.flops + other.flops)


def matrix(rows: int, columns: int) -> Cost:
    """A dense matrix that every token is multiplied by."""
    return Cost(rows * columns, rows * columns, 2 * rows * columns)


NOTHING = Cost(0, 0, 0)


def ffn_parts(recipe: Recipe, width: int) -> dict[str, Cost]:
    """Cost of one feed-forward layer by its parts: dense alone, or router, routed and shared experts.

    Args:
        recipe: what the layer is.
        width: D, the model width.

    Raises:
        ValueError: unless `recipe` is a `Dense` or a `Sparse`, and the width a whole number of at least 1.
    """
    recipe = checked(recipe)
    whole_number("width", width)
    if isinstance(recipe, Dense):
        return {"dense": matrix(width, 3 * recipe.hidden)}
    expert = matrix(width, 3 * recipe.expert_width)
    routed = Cost(recipe.num_experts * expert.total, recipe.top_k * expert.active, recipe.top_k * expert.flops)
    shared = matrix(width, 3 * recipe.expert_width * recipe.num_shared)
    router = matrix(width, recipe.num_experts)
    # in training the noise of a noisy router is a second product; a token in use does not pay for it
    noise = Cost(router.total, 0, 0) if recipe.noisy else NOTHING
    return {"router": router + noise, "routed": routed, "shared": shared}


def ffn_cost(recipe: Recipe, width: int) -> Cost:
    """Cost of one feed-forward layer: the sum of its parts."""
    return sum(ffn_parts(recipe, width).values(), NOTHING)


def parts(config: ModelConfig) -> dict[str, Cost]:
    """Cost of a language model by its parts: embedding, attention, ffn, norms, head. One token of a full context.

    Looking an embedding up is not a product: a token uses one row of the table and pays no FLOPs.

    Raises:
        ValueError: if `config` is no `ModelConfig`.
    """
    check_config(config)
    d, v, layers = config.width, config.vocabulary, config.layers
    # four projections, and scores and mixing against every place of the context
    attention = matrix(d, 4 * d * layers) + Cost(0, 0, 2 * 2 * config.context * d * layers)
    ffn = sum((ffn_cost(recipe, d) for recipe in config.recipes), NOTHING)
    norms = (2 * layers + 1) * d
    return {"embedding": Cost(v * d, d, 0), "attention": attention, "ffn": ffn, "norms": Cost(norms, norms, 0),
            "head": matrix(d, v)}


def model_cost(config: ModelConfig) -> Cost:
    """Cost of a whole language model: the sum of its parts."""
    return sum(parts(config).values(), NOTHING)


def dense_of_equal_active(recipe: Recipe, width: int) -> Dense:
    """The smallest dense FFN whose parameters are at least the active ones of a recipe, its router included."""
    return dense_of(ffn_cost(recipe, width).active, width)


def dense_of_equal_total(recipe: Recipe, width: int) -> Dense:
    """The smallest dense FFN with at least as many parameters as a recipe has in all, its router included."""
    return dense_of(ffn_cost(recipe, width).total, width)


def dense_of(parameters: int, width: int) -> Dense:
    """The smallest dense FFN of at least that many parameters, its hidden units rounded up to a multiple of 8: where the two
    can't be equal, the dense layer gets more."""
    hidden = -(-parameters // (3 * width))
    return Dense(-(-hidden // 8) * 8)


def experts_of_equal_active(recipe: Sparse, width: int, top_k: int, segments: int = 1, num_shared: int = 0,
                            multiple: int = 1, **router) -> Sparse:
    """The mixture of another granularity that costs a token as many parameters as a recipe, its router included.

    Cutting experts into pieces keeps the hidden units and adds columns to the router; at small widths they are a good part of
    what a token pays. So the experts get the width that comes nearest; a unit in each active expert is as near as it gets.

    Args:
        recipe: whose active parameters, and whose ratio of experts to active experts, to keep.
        width: D, the model width.
        top_k, segments, num_shared, router: as in `Budget.experts`.
        multiple: the experts' width is one of this.

    Raises:
        ValueError: if nothing is left to route, or the router alone costs more than the recipe.
    """
    active = whole_number("top_k", top_k) * whole_number("segments", segments)  # experts, shared ones included
    require(whole_number("num_shared", num_shared, least=0) < active,
            f"num_shared = {num_shared} of {active} active experts; at least one active expert must be routed")
    experts = (recipe.num_experts + recipe.num_shared) * active // (recipe.top_k + recipe.num_shared) - num_shared
    spare = ffn_cost(recipe, width).active - matrix(width, experts).active
    expert_width = multiple * math.floor(spare / matrix(width, 3 * active * multiple).active + 0.5)
    require(expert_width >= 1, f"a router for {experts} experts leaves no parameters for the experts themselves; cut them into "
                               f"fewer than {segments} pieces")
    return Sparse(experts, active - num_shared, expert_width, num_shared, **router)


# Models that plain multi-head attention describes (no grouped queries, no latent attention), with the sizes of their
# papers and of the config.json beside the published weights: LLaMA2 7B arXiv 2307.09288, DeepSeek 7B arXiv 2401.02954,
# DeepSeekMoE 16B arXiv 2401.06066, whose first layer is dense and whose gate keeps the raw probabilities
# (norm_topk_prob = false).
PUBLISHED: dict[str, ModelConfig] = {
    "LLaMA2 7B": ModelConfig(Dense(11008), layers=32, width=4096, heads=32, context=4096, vocabulary=32000),
    "DeepSeek 7B": ModelConfig(Dense(11008), layers=30, width=4096, heads=32, context=4096, vocabulary=102400),
    "DeepSeekMoE 16B": ModelConfig((Dense(10944),) + 27 * (Sparse(64, 6, 1408, num_shared=2, renormalise=False),),
                                   layers=28, width=2048, heads=16, context=4096, vocabulary=102400),
}
