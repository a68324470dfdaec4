"""Redundancy lenses that several tests look at: real merges of a small layer, with made-up similarities and losses."""

import torch

from moe_lesson.measure.merging import Merging, merging, random_similarity
from moe_lesson.widgets import RedundancyLens

UNMERGED = 0.5


def alike(experts: int, blocks: int, strength: float, seed: int = 0) -> torch.Tensor:
    """A similarity [N, N] with a cosine of about `strength` between experts of the same of some blocks."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(blocks, 24, generator=generator)[torch.randperm(experts, generator=generator) % blocks]
    vectors = strength**0.5 * shared + (1 - strength) ** 0.5 * torch.randn(experts, 24, generator=generator)
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    return unit @ unit.T


def merging_of(similarity: torch.Tensor, cost: float, merges: int | None = None) -> Merging:
    """Merges by a similarity; each costs more than the last, `cost` in all if every expert is merged."""
    n = len(similarity)
    losses = iter(UNMERGED + cost * (made / (n - 1)) ** 2 for made in range(n))
    return merging(similarity, n - 1 if merges is None else merges, lambda groups: next(losses))


def mergings_of(experts: int = 16, merges: int | None = None) -> dict[str, Merging]:
    """Made-up similarities: outputs in blocks, weights near 0, co-routing in other blocks."""
    return {"co-routing": merging_of(alike(experts, 5, 0.5, 2).abs(), 1.0, merges),
            "outputs": merging_of(alike(experts, 4, 0.8), 0.3, merges),
            "weights": merging_of(alike(experts, experts, 0.0, 1) * 0.1, 0.75, merges)}


def lens_of(experts: int = 16, merges: int | None = None, draws: int = 3, **more) -> RedundancyLens:
    control = [merging_of(random_similarity(experts, seed), 0.7 + 0.1 * seed, merges).losses for seed in range(draws)]
    return RedundancyLens(mergings_of(experts, merges), **{"origin": "synthetic", "control": control,
                                                           "unit": "test loss (mean squared error)", **more})
