"""Router microscopes that several tests look at, made of random logits."""

import numpy as np
import torch
from routings import PLAIN, logits_of, routing_of

from moe_lesson import LanguageModel, ModelConfig, Sparse
from moe_lesson.moe.layers import moe_layers
from moe_lesson.widgets import RouterMicroscope


def scope_of(tokens=21, experts=12, k=3, *, gate=PLAIN, logits=None, **more) -> RouterMicroscope:
    """A microscope over synthetic logits; `tokens` is how many or which ones, or `logits` [T, N] are given."""
    names = None if isinstance(tokens, int) else tokens
    if logits is None:
        logits = logits_of(tokens if names is None else len(names), experts)
    return RouterMicroscope(routing_of(np.array(logits, np.float32), k, gate, names), **{"origin": "synthetic", **more})


def decided_model(experts=12, k=3, **sizes) -> LanguageModel:
    """An untrained model whose routers prefer some experts to others, as trained ones do."""
    config = {"layers": 2, "width": 16, "heads": 2, "context": 256, **sizes}
    model = LanguageModel(ModelConfig(Sparse(experts, k, 4, scale=0.25), **config), seed=3).eval()
    with torch.no_grad():
        for layer in moe_layers(model):
            layer.router.weight *= 30
    return model


def scope_of_model(text="The moon rose over the sea.", layer=0, **sizes) -> RouterMicroscope:
    """A microscope over a model's router, for any text."""
    return RouterMicroscope.of_model(decided_model(**sizes), text, layer, origin="toy")
