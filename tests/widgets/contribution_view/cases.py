"""Contribution views that several tests look at, made of random directions."""

import numpy as np
import torch
from routings import logits_of, routing_of

from moe_lesson import LanguageModel, ModelConfig, Sparse
from moe_lesson.widgets import Contribution, ContributionView

MIXED = tuple("We add 2 and 2; ") + ("中 1/3", "⏎", "␣")  # every kind of token


def contribution_of(tokens: int, experts: int, k: int, seed: int, width: int = 16) -> Contribution:
    """Two random parts, of lengths that vary."""
    random = np.random.default_rng(seed)
    shared, routed = (torch.from_numpy(random.standard_normal((tokens, width)) * random.uniform(0.2, top, (tokens, 1)))
                      for top in (1.0, 3.0))
    return Contribution.of(shared, routed, routing_of(logits_of(tokens, experts, seed), k))


def view_of(tokens=MIXED, experts=12, k=3, layers=2, **more) -> ContributionView:
    """A view of synthetic parts; `tokens` is how many or which ones."""
    names = tuple(chr(97 + t % 26) for t in range(tokens)) if isinstance(tokens, int) else tokens
    one, null = ([contribution_of(len(names), experts, k, first + layer) for layer in range(layers)] for first in (0, 50))
    return ContributionView(one, null, names, **{"width": 16, "sizes": [experts] * layers, "num_shared": 2,
                                                 "origin": "synthetic", "name": "dice", **more})


def lengths(shared, routed, cosine=None, k: int = 1) -> Contribution:
    """Parts of given lengths; every token goes to expert 0, 1 …"""
    T = len(shared)
    return Contribution(np.array(shared, float), np.array(routed, float), np.array(cosine or [0.0] * T, float),
                        torch.arange(k).expand(T, k), torch.full((T, k), 1 / k, dtype=torch.float64))


def toy(one: Contribution, null: Contribution | None = None, tokens=None, **more) -> ContributionView:
    """A view of one layer of given lengths."""
    tokens = tokens or [chr(97 + t) for t in range(len(one.shared_T))]
    return ContributionView([one], [null or one], tokens, **{"width": 16, "sizes": [4], "num_shared": 1, "origin": "toy", **more})


def model_of(num_shared: int = 2, experts: int = 12, k: int = 3, width: int = 16, vocabulary: int = 256) -> LanguageModel:
    sparse = Sparse(experts, k, 8, num_shared=num_shared)
    config = ModelConfig(sparse, layers=2, width=width, heads=2, context=256, vocabulary=vocabulary)
    return LanguageModel(config, seed=3).eval()


def model_view(text: str = "hello world", **sizes) -> ContributionView:
    """A view of an untrained model, for any text."""
    return ContributionView.of_model(model_of(**sizes), text, origin="toy")
