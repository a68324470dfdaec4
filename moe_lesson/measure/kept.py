"""How well a model does with a few of its experts: those that a domain uses most, and none else."""

from typing import cast

import torch

from ..base.errors import require
from ..lm.corpora import Corpus
from ..lm.model import LanguageModel
from .census import Census, document_losses, take_census
from .interventions import without_experts


def most_used(census: Census, domain: int, share: float) -> list[list[int]]:
    """For each layer the ids of that share of its experts that a domain calls most; `domain` is its place in `census.domains`."""
    return [census.pooled(census.calls(layer))[:, domain].topk(round(share * n)).indices.tolist()
            for layer, n in enumerate(census.sizes)]


def rises(model: LanguageModel, corpus: Corpus, share: float) -> dict[str, float]:
    """By how much the test loss rises, in nats per byte and as the mean over domains, if a domain keeps a share of the experts.

    Args:
        model: with at least one MoE layer.
        corpus: whose validation split says what a domain uses, and whose test split judges.
        share: of the routed experts of each layer that are kept; the others are gone.

    Returns: "own", if each domain keeps the experts that it uses most; "next", if it keeps those of the next domain; "random",
        as many experts drawn at random.

    Raises:
        ValueError: if fewer than K experts would be kept.
    """
    require(0 < share <= 1, f"share is {share}; expected more than 0 and at most 1")
    used, judged = (take_census(model, corpus, split, nulls=False)["trained"] for split in ("validation", "test"))
    num_domains, generator = len(used.domains), torch.Generator().manual_seed(0)
    whole_F, found = document_losses(model, corpus), {"own": 0.0, "next": 0.0, "random": 0.0}
    for d in range(num_domains):
        kept = {"own": most_used(used, d, share), "next": most_used(used, (d + 1) % num_domains, share),
                "random": [torch.randperm(n, generator=generator, device="cpu")[:round(share * n)].tolist() for n in used.sizes]}
        for which, experts in kept.items():
            gone = [sorted({*range(n)} - {*some}) for n, some in zip(used.sizes, experts)]
            rise_F = document_losses(cast(LanguageModel, without_experts(model, gone)), corpus) - whole_F
            found[which] += rise_F[judged.domain_F == d].mean().item() / num_domains
    return found
