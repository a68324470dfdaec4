"""The ledger and the recipes: counted costs are those of the real tensors and of PyTorch's FLOP counter."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moe_lesson import Budget, Cost, Dense, LanguageModel, ModelConfig, Sparse, ffn_cost, model_cost
from moe_lesson.lm.ledger import PUBLISHED, dense_of_equal_active, experts_of_equal_active, ffn_parts, parts
from moe_lesson.moe.recipes import Pooled, build, from_dict, to_dict

RECIPES = [
    Dense(40),
    Sparse(8, 2, 16),
    Sparse(8, 1, 16, renormalise=False),
    Sparse(14, 6, 8, num_shared=2, score="sigmoid", scale=2.5),
    Sparse(6, 2, 5, noisy=True),
    Sparse(4, 4, 8, num_shared=1),
]


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("recipe", RECIPES)
def test_total_parameters_are_those_of_the_real_tensors(recipe):
    assert ffn_cost(recipe, 32).total == size(build(recipe, 32))
    config = ModelConfig(recipe, layers=3, width=32, heads=4)
    assert model_cost(config).total == size(LanguageModel(config))


@pytest.mark.parametrize("recipe", RECIPES)
def test_active_parameters_are_those_that_one_token_touches(recipe):
    layer = build(recipe, 32)
    layer.eval()
    out = layer(torch.randn(1, 32))
    (out if torch.is_tensor(out) else out[0]).pow(2).sum().backward()
    touched = 0
    for name, p in layer.named_parameters():
        if p.grad is None:
            continue
        if name.startswith("experts"):
            touched += (p.grad.flatten(1).abs().sum(1) > 0).sum().item() * p[0].numel()
        else:
            touched += p.numel()
    assert ffn_cost(recipe, 32).active == touched


@pytest.mark.parametrize("dispatch", ["loop", "grouped"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_flops_are_those_of_pytorchs_counter(recipe, dispatch):
    # both multiply each token with its own experts and nothing else
    model = LanguageModel(ModelConfig(recipe, layers=2, width=32, heads=4, context=24)).eval()
    for block in model.blocks:
        if isinstance(recipe, Sparse):
            block.ffn.experts.dispatch = dispatch
    # the counter knows attention by its plain formula, not by the CPU's fused kernel
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.randint(0, 256, (3, 24)))
    assert counter.get_total_flops() == 3 * 24 * model_cost(model.config).flops


def test_a_mixed_model_is_the_sum_of_its_layers():
    config = ModelConfig((Dense(40), Sparse(8, 2, 16)), layers=2, width=32, heads=4)
    assert parts(config)["ffn"] == ffn_cost(Dense(40), 32) + ffn_cost(Sparse(8, 2, 16), 32)
    assert model_cost(config).total == size(LanguageModel(config))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_parts_of_a_layer_are_those_of_its_tensors(recipe):
    layer = build(recipe, 32)
    tensors = {"dense": layer} if isinstance(recipe, Dense) else {
        "router": layer.router, "routed": layer.experts, "shared": layer.shared}
    found = {name: size(part) if part is not None else 0 for name, part in tensors.items()}
    assert {name: cost.total for name, cost in ffn_parts(recipe, 32).items()} == found


# ------------------------------------------------------------------------------------------------------ published models


@pytest.mark.parametrize("name, billions", [("LLaMA2 7B", 6.74), ("DeepSeek 7B", 6.9), ("DeepSeekMoE 16B", 16.4)])
def test_published_models_have_their_published_size(name, billions):
    assert model_cost(PUBLISHED[name]).total == pytest.approx(billions * 1e9, rel=0.01)


def test_deepseekmoe_has_its_published_active_size_once_the_embedding_is_counted_as_the_paper_does():
    cost, embedding = model_cost(PUBLISHED["DeepSeekMoE 16B"]), parts(PUBLISHED["DeepSeekMoE 16B"])["embedding"]
    as_published = cost.active - embedding.active + embedding.total  # the paper's 2.8 B holds the whole table
    assert round(as_published / 1e9, 1) == 2.8
    assert round(cost.active / 1e9, 2) == 2.62  # of which a token looks one row up


@pytest.mark.parametrize("name, tera", [("LLaMA2 7B", 187.9), ("DeepSeek 7B", 183.5), ("DeepSeekMoE 16B", 74.4)])
def test_published_flops_are_those_of_a_training_step_on_4096_tokens(name, tera):
    # forward once, backward twice that (arXiv 2401.06066, tables 3 and 4)
    assert 3 * 4096 * model_cost(PUBLISHED[name]).flops == pytest.approx(tera * 1e12, rel=0.025)


def test_costs_add_up():
    assert Cost(1, 2, 3) + Cost(10, 20, 30) == Cost(11, 22, 33)


# -------------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("top_k, segments, shared", [(1, 1, 0), (2, 1, 0), (2, 2, 1), (2, 4, 0), (2, 4, 1), (2, 4, 2), (2, 8, 4)])
def test_a_budget_is_spent_exactly_by_every_recipe(top_k, segments, shared):
    recipe = Budget(192, 1536).experts(top_k, segments, shared)
    assert (recipe.num_experts + recipe.num_shared) * recipe.expert_width == 1536
    assert (recipe.top_k + recipe.num_shared) * recipe.expert_width == 192


def test_a_budget_hands_on_how_the_router_chooses():
    recipe = Budget(8, 32).experts(top_k=2, score="sigmoid", scale=2.0)
    assert (recipe.score, recipe.scale) == ("sigmoid", 2.0)


def test_the_papers_sizes_come_out():
    recipe = Budget(2, 16 * 1).experts(top_k=2)
    assert (recipe.num_experts, recipe.top_k) == (16, 2)
    recipe = Budget(8, 64).experts(top_k=2, segments=4, num_shared=1)
    assert (recipe.num_experts, recipe.top_k, recipe.num_shared) == (63, 7, 1)


@pytest.mark.parametrize("recipe", RECIPES[1:])
def test_the_dense_layer_of_equal_active_size_is_never_the_smaller_one(recipe):
    dense, sparse = (ffn_cost(r, 64) for r in (dense_of_equal_active(recipe, 64), recipe))
    assert 0 <= dense.active - sparse.active < 8 * 3 * 64


@pytest.mark.parametrize("make, message", [
    (lambda: Budget(0, 8), "active is 0"),
    (lambda: Budget(16, 8), "1 ≤ active ≤ total"),
    (lambda: Budget(190, 1536).experts(2, 4), "190 active hidden units can't be cut into 2 × 4.*multiple of 8"),
    (lambda: Budget(8, 30).experts(2), "30 hidden units in total can't be cut into experts of 4; .*multiple of 4"),
    (lambda: Budget(8, 64).experts(2, num_shared=2), "num_shared = 2 of 2 active experts"),
    (lambda: Budget(8, 64).experts(2, num_shared=0.5), "num_shared is 0.5; expected a whole number"),
    (lambda: experts_of_equal_active(Sparse(8, 2, 4), 32, 2, num_shared=0.5), "num_shared is 0.5"),
    (lambda: experts_of_equal_active(Sparse(8, 2, 4), 32, 2.0), "top_k is 2.0"),
    (lambda: Budget(8, 64).experts(0), "top_k is 0"),
    (lambda: Pooled(8, 2, 4), r"pool is 1; expected 2 \(top_k\) … 8 experts"),
    (lambda: Budget(8, 64).experts(2, segments=-1), "segments is -1"),
    (lambda: build("dense", 64), r"recipe is 'dense'; expected Dense\(hidden=…\) or Sparse\("),
    (lambda: ffn_cost("dense", 64), r"recipe is 'dense'; expected Dense\("),
    (lambda: Dense(-5), "hidden is -5"),
    (lambda: Budget(384 / 2, 1536), "active is 192.0; expected a whole number"),
    (lambda: Sparse(8, 2, 4, score="relu"), "unknown score 'relu'"),
    (lambda: Sparse(8, 2, 4, scale=-1), "scale is -1"),
    (lambda: Sparse(8, 2, 4, noisy="no"), "noisy is 'no'"),
    (lambda: ffn_cost(Dense(2), -64), "width is -64; expected a whole number, 1 or more"),
    (lambda: model_cost(Dense(4)), "config has type Dense; expected a ModelConfig"),
    (lambda: Sparse(8, 9, 16), "top_k is 9.*1 … 8"),
    (lambda: Sparse(8, 2, 0), "expert_width is 0"),
    (lambda: Sparse(8, 2, 4, num_shared=-1), "num_shared is -1"),
    (lambda: from_dict({"kind": "sparkling"}), "unknown kind of recipe 'sparkling'"),
])
def test_impossible_recipes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_survives_a_file(recipe):
    assert from_dict(to_dict(recipe)) == recipe


@pytest.mark.parametrize("top_k, segments, num_shared", [(1, 1, 0), (2, 1, 0), (2, 2, 0), (2, 4, 0), (2, 8, 0), (2, 4, 2)])
def test_experts_of_equal_active_parameters_include_the_router(top_k, segments, num_shared):
    fine = Budget(192, 1536).experts(top_k=2, segments=4)
    recipe = experts_of_equal_active(fine, 64, top_k, segments, num_shared, scale=2.0)
    pieces = top_k * segments
    assert (recipe.top_k, recipe.num_shared, recipe.scale) == (pieces - num_shared, num_shared, 2.0)
    assert recipe.num_experts + num_shared == 8 * pieces, "the ratio of experts to active ones is kept"
    shared = Budget(192, 1536).experts(2, 4, num_shared=2)
    assert experts_of_equal_active(shared, 64, 2, 4, 2).num_experts == shared.num_experts
    difference = ffn_cost(recipe, 64).active - ffn_cost(fine, 64).active
    assert abs(difference) <= 3 * 64 * pieces / 2, "another unit in every active expert would be further off"


def test_a_router_that_leaves_nothing_for_the_experts_is_refused():
    fine = Budget(32, 256).experts(top_k=2, segments=4)
    with pytest.raises(ValueError, match="fewer than 64 pieces"):
        experts_of_equal_active(fine, 32, 2, 64)
    with pytest.raises(ValueError, match="at least one active expert must be routed"):
        experts_of_equal_active(fine, 32, 2, 1, num_shared=2)
