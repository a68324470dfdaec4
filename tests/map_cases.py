"""Routing maps and microscopes that several tests look at, made of random logits."""

import numpy as np

from moe_lesson.widgets import RouterMicroscope, RoutingMap
from moe_lesson.widgets.common import Gate, route

HOSTILE = (
    "<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked = 1'>", "</style>", "&amp;", "&", '"', "'", "\\",
    "$x^2$", "$\\frac$", "${alert(1)}", "😀", "👨\u200d👩\u200d👧", "中 1/3", "\u05e9\u05dc\u05d5\u05dd",
    "\u0645\u0631\u062d\u0628\u0627", "\u202egnp.exe", "\ud800", "\udfff", "\ufffd", "\x00", "\n", " ", "", "x" * 300)
PLAIN = Gate()


def logits_of(tokens: int, experts: int, seed: int = 0, spread: float = 1.5) -> np.ndarray:
    """[T, N] normal float32 logits."""
    return (spread * np.random.default_rng(seed).standard_normal((tokens, experts))).astype(np.float32)


def routing_of(logits: np.ndarray, k: int, gate: Gate = PLAIN, tokens=None):
    """The routing of logits, with the letters a, b, c … as tokens."""
    names = tokens if tokens is not None else [chr(97 + t % 26) for t in range(len(logits))]
    return route(logits, gate, k).with_tokens(names)


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


def scope_of(tokens=21, experts=12, k=3, *, gate=PLAIN, logits=None, **more) -> RouterMicroscope:
    """A microscope over synthetic logits; `tokens` is how many or which ones, or `logits` [T, N] are given."""
    names = None if isinstance(tokens, int) else tokens
    if logits is None:
        logits = logits_of(tokens if names is None else len(names), experts)
    return RouterMicroscope(routing_of(np.array(logits, np.float32), k, gate, names), **{"origin": "synthetic", **more})
