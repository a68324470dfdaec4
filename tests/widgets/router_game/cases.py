"""Router games that several tests look at, made of random logits."""

import torch
from routings import logits_of, routing_of

from moe_lesson.widgets.router_game.data import NAMES, RouterGame

TEXT = tuple("the␣moon␣and␣the␣sea,␣the␣moon␣and␣me")


def maps_of(tokens=TEXT, experts: int = 16, k: int = 2, seed: int = 0) -> dict:
    """Three random routings of one text; the hash's rows are equal for equal tokens, the trained one's nearly."""
    names = [chr(97 + t % 7) for t in range(tokens)] if isinstance(tokens, int) else list(tokens)
    by_name = torch.from_numpy(logits_of(len(names), experts, seed))[[names.index(name) for name in names]].numpy()
    logits = {"trained": by_name + logits_of(len(names), experts, seed + 1, 0.6),
              "random router": logits_of(len(names), experts, seed + 2), "hash router": by_name}
    return {kind: routing_of(logits[kind], k, tokens=names) for kind in NAMES}


def game_of(rounds: int = 3, seed: int = 3, tokens=TEXT, experts: int = 16, k: int = 2, **more) -> RouterGame:
    """A game of synthetic routings, two layers in turn."""
    return RouterGame([maps_of(tokens, experts, k, 10 * i) for i in range(rounds)], seed,
                      **{"origin": "synthetic", "name": "dice", "layers": [i % 2 for i in range(rounds)], **more})
