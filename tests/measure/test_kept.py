"""What a model loses where a domain keeps a few of its experts."""

import pytest

from moe_lesson import LanguageModel, ModelConfig, machine_corpus
from moe_lesson.measure.census import document_losses, take_census
from moe_lesson.measure.interventions import without_experts
from moe_lesson.measure.kept import rises
from moe_lesson.moe.recipes import Sparse

SIZES = {"num_experts": 8, "top_k": 2, "expert_width": 4}


def test_to_keep_all_experts_costs_nothing_and_to_keep_few_costs():
    corpus, config = machine_corpus(max_bytes=40_000), ModelConfig(Sparse(**SIZES, scale=20.0), 1, 16, 1, 32)
    model = LanguageModel(config)
    assert set(rises(model, corpus, 1.0).values()) == {0.0}
    found, wanted = rises(model, corpus, 0.25), []
    used, judged = (take_census(model, corpus, split, nulls=False)["trained"] for split in ("validation", "test"))
    whole, calls = document_losses(model, corpus), used.pooled(used.calls(0)).T
    for shift in (0, 1):  # a domain's own two experts, and the next domain's
        rise = []
        for d in range(4):
            gone = set(range(8)) - set(calls[(d + shift) % 4].topk(2).indices.tolist())
            less = document_losses(without_experts(model, [sorted(gone)]), corpus) - whole
            rise.append(less[judged.domain_F == d].mean().item())
        wanted.append(sum(rise) / 4)
    assert [found["own"], found["next"]] == pytest.approx(wanted) and found.keys() == {"own", "next", "random"}
    with pytest.raises(ValueError, match="share is 0"):
        rises(model, corpus, 0)
