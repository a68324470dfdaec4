"""Router microscopes that several tests look at, made of random logits."""

import numpy as np
from routings import PLAIN, logits_of, routing_of

from moe_lesson.widgets import RouterMicroscope


def scope_of(tokens=21, experts=12, k=3, *, gate=PLAIN, logits=None, **more) -> RouterMicroscope:
    """A microscope over synthetic logits; `tokens` is how many or which ones, or `logits` [T, N] are given."""
    names = None if isinstance(tokens, int) else tokens
    if logits is None:
        logits = logits_of(tokens if names is None else len(names), experts)
    return RouterMicroscope(routing_of(np.array(logits, np.float32), k, gate, names), **{"origin": "synthetic", **more})
