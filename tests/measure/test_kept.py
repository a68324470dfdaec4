"""What a model loses where a domain keeps a few of its experts."""

import pytest

from moe_lesson import LanguageModel, ModelConfig, machine_corpus
from moe_lesson.measure.kept import rises
from moe_lesson.moe.recipes import Sparse

SIZES = {"num_experts": 8, "top_k": 2, "expert_width": 4}


def test_to_keep_all_experts_costs_nothing_and_to_keep_few_costs():
    corpus, config = machine_corpus(max_bytes=40_000), ModelConfig(Sparse(**SIZES, scale=20.0), 1, 16, 1, 32)
    model = LanguageModel(config)
    assert set(rises(model, corpus, 1.0).values()) == {0.0}
    few = rises(model, corpus, 0.25)
    assert few.keys() == {"own", "next", "random"} and all(few.values())
    with pytest.raises(ValueError, match="share is 0"):
        rises(model, corpus, 0)
