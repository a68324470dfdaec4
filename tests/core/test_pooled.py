"""A pool of experts for each document while a model learns, and what a model does with a few of its experts."""

import pytest
import torch

from moe_lesson import LanguageModel, ModelConfig
from moe_lesson.moe.pooled import PooledRouter, outside_pool
from moe_lesson.moe.recipes import Pooled, Sparse, from_dict, to_dict

SIZES = {"num_experts": 8, "top_k": 2, "expert_width": 4}


def test_a_pool_is_what_a_documents_tokens_want_most():
    scores = torch.tensor([[.5, .4, .1], [.1, .5, .4], [.1, .1, .8]])
    closed = outside_pool(scores, torch.tensor([0, 0, 1]), pool=1)
    assert closed.tolist() == [[True, False, True]] * 2 + [[True, True, False]]


def test_while_it_learns_a_document_stays_in_its_pool_and_judged_it_does_not():
    torch.manual_seed(0)
    router, x = PooledRouter(16, 32, 2, pool=4, document=50), torch.randn(150, 16)
    learning = [part.unique() for part in router(x).expert_ids.split(50)]
    assert all(len(pool) <= 4 for pool in learning) and len(torch.cat(learning).unique()) > 4, "each has a pool of its own"
    judged = router.eval()(x)
    assert judged.expert_ids.unique().numel() > 12
    ahead = router(x[:60])
    assert torch.equal(judged.expert_ids[:60], ahead.expert_ids), "judged, no token sees those after it"


def test_experts_that_are_closed_stay_closed_while_it_learns():
    router, x = PooledRouter(16, 8, 2, pool=4, document=50), torch.randn(100, 16)
    closed = torch.ones(100, 8, dtype=torch.bool)
    closed[:, [1, 4, 6]] = False
    assert set(router(x, closed).expert_ids.unique().tolist()) <= {1, 4, 6}


def test_a_closed_expert_takes_no_place_in_a_pool():
    router, x = PooledRouter(4, 4, 2, pool=2, document=50), torch.ones(100, 4)
    with torch.no_grad():
        router.weight.copy_(torch.tensor([3.0, 2.0, 1.0, 0.0]).expand(4, 4))  # every token wants experts 0 and 1, then 2 and 3
    closed = torch.tensor([True, True, False, False]).expand(100, 4)
    assert router(x).expert_ids.unique().tolist() == [0, 1] and router(x, closed).expert_ids.unique().tolist() == [2, 3]


def test_the_recipe_is_built_and_kept_like_the_others():
    recipe = Pooled(**SIZES, pool=4, document=10, scale=2.0)
    assert from_dict(to_dict(recipe)) == recipe and to_dict(recipe)["kind"] == "pooled"
    assert to_dict(Sparse(**SIZES))["kind"] == "sparse"
    model = LanguageModel(ModelConfig(recipe, 1, 16, 1, 10))
    router = model.blocks[0].ffn.router
    assert (router.pool, router.document, router.scale, router.top_k) == (4, 10, 2.0, 2)
    like = LanguageModel(ModelConfig(Sparse(**SIZES, scale=2.0), 1, 16, 1, 10))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), like.parameters())), "its start is the same"


@pytest.mark.parametrize("pool, document, named", [(1, 10, "pool is 1"), (9, 10, "pool is 9"), (4, 0, "document is 0")])
def test_impossible_pools_are_refused(pool, document, named):
    with pytest.raises(ValueError, match=named):
        PooledRouter(16, 8, 2, pool=pool, document=document)
