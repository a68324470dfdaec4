"""Specialisation views that several tests look at, of made-up routings: no model gave them."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from moe_lesson.measure.census import Census
from moe_lesson.widgets import SpecialisationView

DOMAINS = ("python", "english", "cpp", "maths")
Liking = Callable[[Tensor, Tensor, int], Tensor]  # domain and document of each token, N -> [T, N] to choose by


def by_chance(domain_T: Tensor, document_T: Tensor, n: int) -> Tensor:
    return torch.zeros(len(domain_T), n)


def by_domain(domain_T: Tensor, document_T: Tensor, n: int) -> Tensor:
    """The first experts take one domain each, as many as there are domains; the others like all alike."""
    expert_N = torch.arange(n)
    return torch.where(expert_N == domain_T[:, None], 9.0, torch.where(expert_N <= domain_T.max(), -9.0, 0.0))


def by_document(domain_T: Tensor, document_T: Tensor, n: int) -> Tensor:
    """Each document has experts of its own, whatever its domain."""
    return 3 * torch.randn(1000, n, generator=torch.Generator().manual_seed(5))[document_T]


def census_of(liking: Liking = by_chance, *, sizes=(12, 8), k=2, domains=DOMAINS, documents=5, tokens=40, seed=0) -> Census:
    """A census of `documents` documents of each domain, with `tokens` tokens each."""
    generator = torch.Generator().manual_seed(seed)
    domain_F = torch.arange(len(domains)).repeat(documents)
    document_T = torch.arange(len(domain_F)).repeat_interleave(tokens)
    noise = [torch.randn(len(document_T), n, generator=generator) for n in sizes]
    ids = tuple((liking(domain_F[document_T], document_T, n) + noise_TN).topk(k).indices for n, noise_TN in zip(sizes, noise))
    token_T = torch.zeros_like(document_T)
    return Census(tuple(domains), domain_F, document_T, token_T, token_T, ids, tuple(sizes))


@functools.cache
def censuses(domains=DOMAINS, **more) -> dict[str, Census]:
    likings = {"trained": by_domain, "random router": by_document, "hash router": by_chance}
    return {name: census_of(liking, domains=domains, **more) for name, liking in likings.items()}


def view_of(title="specialists, or a small sample?", name="dice", domains=DOMAINS, **more) -> SpecialisationView:
    return SpecialisationView.of_census(censuses(domains, **more), name=name, origin="synthetic", title=title)
