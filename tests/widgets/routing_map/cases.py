"""Routing maps that several tests look at, made of random logits."""

from routings import PLAIN, logits_of, routing_of

from moe_lesson.widgets import RoutingMap


def map_of(tokens=21, experts=12, k=3, layers=2, *, gate=PLAIN, null=True, **more) -> RoutingMap:
    """A routing map of synthetic logits; `tokens` is how many or which ones."""
    names = None if isinstance(tokens, int) else tokens
    size = tokens if names is None else len(names)
    routings = [routing_of(logits_of(size, experts, i), k, gate, names) for i in range(layers)]
    nulls = [routing_of(logits_of(size, experts, 50 + i), k, gate.without_bias(), names) for i in range(layers)]
    return RoutingMap(routings, router=gate, null=nulls if null else None, **{"origin": "synthetic", **more})


def bytes_map(**more) -> RoutingMap:
    """A map whose on_text makes one token of each byte."""
    def on_text(text):
        names = [chr(byte) for byte in text.encode()]
        return [routing_of(logits_of(len(names), 12, len(text) + i), 3, tokens=names) for i in range(2)], None
    first = on_text("hello world")[0]
    return RoutingMap(first, origin="synthetic", **{"text": "hello world", "on_text": on_text, **more})
