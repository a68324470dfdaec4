"""Capacity views that several tests look at, made of random logits."""

import numpy as np
import torch
from router_microscope.cases import decided_model
from routings import logits_of, routing_of

from moe_lesson.moe.routing import Routing
from moe_lesson.widgets import CapacityView


def view_of(tokens=21, experts=12, k=3, layers=2, **more) -> CapacityView:
    """A view of synthetic routings; `tokens` is how many or which ones."""
    names = None if isinstance(tokens, int) else tokens
    size = tokens if names is None else len(names)
    routings = [routing_of(logits_of(size, experts, seed), k, tokens=names) for seed in range(layers)]
    return CapacityView(routings, **{"origin": "synthetic", **more})


def chosen(ids, weights, experts: int) -> Routing:
    """A routing of given choices [T, K] and weights [T, K]; its tokens are the letters a, b, c …"""
    ids = torch.tensor(np.array(ids))
    return Routing(torch.zeros(len(ids), experts), ids, torch.tensor(np.array(weights, np.float32)),
                   tuple(chr(97 + t % 26) for t in range(len(ids))))


def crowd(tokens: int = 8) -> CapacityView:
    """Every token wants expert 0 of 4, each with a larger weight than the one before it."""
    return CapacityView([chosen(np.zeros((tokens, 1), int), np.arange(1, tokens + 1)[:, None] / tokens, 4)], origin="toy")


def view_of_model(text="The moon rose over the sea.", **sizes) -> CapacityView:
    """A view of a model's choices, for any text."""
    return CapacityView.of_model(decided_model(**sizes), text, origin="toy")
