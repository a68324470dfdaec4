"""What a language model's test loss is, and how its experts are loaded, over text by domain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .corpora import Corpus
from .model import LanguageModel, evaluating


@torch.no_grad()
def evaluate_language(model: LanguageModel, corpus: Corpus, split: str, max_bytes: int = 100_000,
                      batch: int = 64) -> dict[str, float]:
    """Mean next-byte loss in nats, per domain, over the first `max_bytes` bytes of each.

    Args:
        model: a language model.
        corpus: whose documents of `split` are read.
        split: "validation" to choose anything, "test" to report.

    Returns: {domain: loss}, and under "mean" the mean over domains.
    """
    device = next(model.parameters()).device
    losses = {}
    with evaluating(model):
        for domain in corpus.domains:
            windows = corpus.windows(domain, split, model.config.context, max_bytes)
            total = 0.0
            for ids in windows.to(device).split(batch):
                logits = model(ids[:, :-1])[0]
                total += F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum").item()
            losses[domain] = total / (windows.shape[0] * (windows.shape[1] - 1))
    return losses | {"mean": sum(losses.values()) / len(losses)}


@torch.no_grad()
def evaluate_load(model: LanguageModel, corpus: Corpus, split: str, max_bytes: int = 100_000, batch: int = 64) -> list[Tensor]:
    """The load [N] of each MoE layer over the first `max_bytes` bytes of each domain; [] for a dense model.

    Args: as `evaluate_language`.
    """
    device = next(model.parameters()).device
    loads: list[Tensor] = []
    with evaluating(model):
        for domain in corpus.domains:
            for ids in corpus.windows(domain, split, model.config.context, max_bytes).to(device).split(batch):
                found = [routing.load for routing in model(ids[:, :-1])[1] if routing is not None]
                loads = [a + b for a, b in zip(loads, found)] if loads else found
    return loads
