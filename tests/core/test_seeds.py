"""A seed mixed with a step or a name: the same again, and another for each."""

import torch

from moe_lesson.base.seeds import mixed_seed


def test_seed_and_step_or_name_decide_and_each_pair_has_a_seed_of_its_own():
    pairs = [(seed, what) for seed in range(20) for what in (*range(20), "embedding", "head")]
    seeds = [mixed_seed(*pair) for pair in pairs]
    assert seeds == [mixed_seed(*pair) for pair in pairs] and len(set(seeds)) == len(pairs)


def test_the_low_bits_that_the_generator_reads_differ_from_seed_to_seed():
    drawn = {torch.rand(1, generator=torch.Generator().manual_seed(mixed_seed(seed, 3))).item() for seed in range(50)}
    assert len(drawn) == 50
