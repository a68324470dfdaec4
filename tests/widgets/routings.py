"""Routings of random logits, and the words that are hardest to show: what the cases of many widgets are made of."""

import numpy as np
import torch

from moe_lesson.widgets.kit.gates import Gate

HOSTILE = (
    "<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked = 1'>", "</style>", "&amp;", "&", '"', "'", "\\",
    "$x^2$", "$\\frac$", "${alert(1)}", "😀", "👨\u200d👩\u200d👧", "中 1/3", "\u05e9\u05dc\u05d5\u05dd",
    "\u0645\u0631\u062d\u0628\u0627", "\u202egnp.exe", "\ud800", "\udfff", "\ufffd", "\x00", "\n", " ", "", "x" * 300)
LONG_NAMES = ("⏎␣␣␣␣", "def", "␣namespace", "(", "instance", "):", "⏎␣␣␣␣␣␣␣␣", "return", "␣the", "␣", "2", "中 1/3")
PLAIN = Gate()


def logits_of(tokens: int, experts: int, seed: int = 0, spread: float = 1.5) -> np.ndarray:
    """[T, N] normal float32 logits."""
    return (spread * np.random.default_rng(seed).standard_normal((tokens, experts))).astype(np.float32)


def routing_of(logits: np.ndarray, k: int, gate: Gate = PLAIN, tokens=None):
    """The routing of logits, with the letters a, b, c … as tokens."""
    names = tokens if tokens is not None else [chr(97 + t % 26) for t in range(len(logits))]
    return gate.route(torch.from_numpy(logits), k).with_tokens(names)
