"""A seed mixed with a step or a name: the same again, and another for each."""

import numpy as np
import pytest
import torch

from moe_lesson import Dense, LanguageModel, ModelConfig, own_corpus
from moe_lesson.base.seeds import mixed_seed


def test_seed_and_step_or_name_decide_and_each_pair_has_a_seed_of_its_own():
    pairs = [(seed, what) for seed in range(20) for what in (*range(20), "embedding", "head")]
    seeds = [mixed_seed(*pair) for pair in pairs]
    assert seeds == [mixed_seed(*pair) for pair in pairs] and len(set(seeds)) == len(pairs)


def test_the_low_bits_that_the_generator_reads_differ_from_seed_to_seed():
    drawn = {torch.rand(1, generator=torch.Generator().manual_seed(mixed_seed(seed, 3))).item() for seed in range(50)}
    assert len(drawn) == 50


@pytest.mark.parametrize("seed", [0.0, None, "a", float("nan"), [1], True])
def test_a_seed_is_a_whole_number(seed):
    config, corpus = ModelConfig(Dense(8), layers=1, width=8, heads=1), own_corpus(text="so it goes " * 200)
    for make in (lambda: LanguageModel(config, seed), lambda: corpus.sampler("train", 1, 8, seed)):
        with pytest.raises(ValueError, match="seed is .*; expected a whole number$"):
            make()
    assert mixed_seed(np.int64(-3), 1) == mixed_seed(-3, 1)
