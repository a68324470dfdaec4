"""Routing maps that several tests look at, made of random logits."""

from dataclasses import replace

from routings import PLAIN, logits_of, routing_of

from moe_lesson.widgets import RoutingMap


def map_of(tokens=21, experts=12, k=3, layers=2, *, gate=PLAIN, null=True, **more) -> RoutingMap:
    """A routing map of synthetic logits; `tokens` is how many or which ones."""
    names = None if isinstance(tokens, int) else tokens
    size = tokens if names is None else len(names)
    routings = [routing_of(logits_of(size, experts, i), k, gate, names) for i in range(layers)]
    nulls = [routing_of(logits_of(size, experts, 50 + i), k, replace(gate, bias=None), names) for i in range(layers)]
    return RoutingMap(routings, routers=[gate] * layers, null=nulls if null else None, **{"origin": "synthetic", **more})
