"""Router zoos that several tests look at, made of random logits."""

from dataclasses import replace

import torch
from routings import logits_of

from moe_lesson.moe.zoo import Settings, Tokens, settings_for
from moe_lesson.widgets import RouterZoo


def zoo_of(tokens=30, experts=16, k=2, *, documents=2, groups=4, free=4, **more) -> RouterZoo:
    """A zoo over synthetic logits; `tokens` is how many, or which ones."""
    names = [chr(97 + t % 26) for t in range(tokens)] if isinstance(tokens, int) else list(tokens)
    T = len(names)
    last, earlier, before = (torch.from_numpy(logits_of(size, experts, seed)) for size, seed in ((T, 0), (T, 1), (64, 2)))
    there = Tokens(last, earlier, torch.arange(T) % 5, torch.arange(T) * documents // T)
    return RouterZoo(there, names, settings_of(before, k, groups, free), **{"origin": "synthetic", **more})


def settings_of(before, k, groups, free) -> Settings:
    """Settings with so many groups and free experts."""
    return replace(settings_for(before, k, 5), groups=groups, kept=min(2, groups), free=free)
