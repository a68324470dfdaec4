"""The mathematics of common.js in Python: how a gate turns logits into experts and weights.

The browser computes with common.js; Python computes summaries and static pictures with this. A parity test keeps them
equal.
Letters: T tokens, N experts, K active experts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import torch
from numpy import ndarray

from ..base.errors import require
from ..moe.routing import Routing

ORIGINS = ("trained", "toy", "synthetic")


def plain(routing: Routing) -> ndarray:
    """The logits [T, N] as float32."""
    return routing.logits.detach().float().cpu().numpy()


def softmax(logits_TN: ndarray) -> ndarray:
    """exp(s) over the sum of the row; the row's largest is taken off first, so that nothing overflows."""
    powers = np.exp(logits_TN - logits_TN.max(axis=-1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits_TN: ndarray) -> ndarray:
    """1 / (1 + exp(-s)), each entry by itself."""
    with np.errstate(over="ignore"):  # exp(1000) is inf, and 1 / (1 + inf) is the 0 that we want
        return 1 / (1 + np.exp(-logits_TN))


SCORES = {"softmax": softmax, "sigmoid": sigmoid}
# Up to a number that all experts of a token share, which a sum divides out: of a softmax the logits themselves.
LOG_SCORES = {"softmax": lambda logits_TN: logits_TN, "sigmoid": lambda logits_TN: -np.logaddexp(0, -logits_TN)}


@dataclass(frozen=True)
class Gate:
    """How a router turns logits into weights; the arguments of `moe_lesson.moe.layers.Router` under the same names.

    Args:
        score: "softmax" or "sigmoid".
        renormalise: divide the K weights by their sum.
        scale: multiply the weights.
        bias: N numbers added to the scores to choose, never to weigh; None is all zeros.

    Raises:
        ValueError: for an unknown score, a scale that is not positive, or a bias that is not finite.
    """

    score: str = "softmax"
    renormalise: bool = True
    scale: float = 1.0
    bias: tuple[float, ...] | None = None

    def __post_init__(self):
        require(self.score in SCORES, f"unknown score {self.score!r}; choose one of {', '.join(SCORES)}")
        require(math.isfinite(self.scale) and self.scale > 0, f"scale is {self.scale}; the gate scale must be positive")
        require(all(map(math.isfinite, self.bias or ())), "the bias holds NaN or infinity; expected N finite numbers")

    @classmethod
    def of(cls, router) -> Gate:
        """The gate of a `Router` (or anything with its attributes), of a mapping with these names, or a Gate itself."""
        values = router if isinstance(router, Mapping) else {
            name: getattr(router, name) for name in cls.__dataclass_fields__ if hasattr(router, name)}
        unknown = set(values) - set(cls.__dataclass_fields__)
        require(not unknown, f"unknown router setting {', '.join(sorted(map(str, unknown)))}; "
                             f"expected {', '.join(cls.__dataclass_fields__)}")
        bias = values.get("bias")
        bias = None if bias is None else tuple(torch.as_tensor(bias).detach().double().flatten().tolist())
        return cls(**{**values, "bias": bias})

    def without_bias(self) -> Gate:
        """The gate of a fresh router: nobody has balanced it yet."""
        return Gate(self.score, self.renormalise, self.scale)

    def scores(self, logits_TN: ndarray) -> ndarray:
        """The scores [T, N] of the logits, in float64."""
        return SCORES[self.score](logits_TN.astype(np.float64))

    def to_dict(self) -> dict:
        """What the browser needs, as JSON."""
        return {"score": self.score, "renormalise": bool(self.renormalise), "scale": float(self.scale),
                "bias": None if self.bias is None else list(self.bias)}


def route(logits_TN: ndarray, gate: Gate, k: int) -> Routing:
    """The top-k of a gate's scores as a `Routing` (float64 weights); a tie goes to the lower expert id."""
    scores_TN = gate.scores(logits_TN)
    biased_TN = scores_TN if gate.bias is None else scores_TN + np.array(gate.bias)
    ids_TK = np.argsort(-biased_TN, axis=-1, kind="stable")[:, :k]
    weights_TK = np.take_along_axis(scores_TN, ids_TK, axis=-1)
    if gate.renormalise:
        weights_TK = softmax(np.take_along_axis(LOG_SCORES[gate.score](logits_TN.astype(np.float64)), ids_TK, axis=-1))
    return Routing(*map(torch.from_numpy, (logits_TN.copy(), ids_TK.copy(), weights_TK * gate.scale)))


def follows(routing: Routing, gate: Gate) -> bool:
    """Does the gate lead from the recorded logits to the recorded choices and weights?

    Near ties may fall either way, and weights may have been rounded to bfloat16.
    """
    logits_TN = plain(routing)
    again = route(logits_TN, gate, routing.top_k)
    rank_TN = gate.scores(logits_TN) + np.array(gate.bias or 0.0)
    taken, best = (np.take_along_axis(rank_TN, r.expert_ids.cpu().numpy(), 1).min(1) for r in (routing, again))
    weights, expected = (np.sort(r.weights.detach().double().cpu().numpy(), 1) for r in (routing, again))
    return np.allclose(taken, best, rtol=1e-2, atol=1e-4) and np.allclose(weights, expected, rtol=2e-2, atol=1e-4)


def check_logits(routing: Routing, here: str) -> None:
    """Refuse logits that are not numbers; -inf for an expert that is masked is one, as long as it is not alone."""
    logits_TN = plain(routing)
    require(bool(np.isfinite(logits_TN.max(axis=1)).all()) and not np.isnan(logits_TN).any(),
            f"{here}.logits hold NaN or infinity; look for a diverged training or a division by zero")


def check_origin(origin: str) -> None:
    require(origin in ORIGINS, f"origin is {origin!r}; say where the routing comes from: {', '.join(ORIGINS)}")


def in_common(routing: Routing, token: int) -> list[int]:
    """How many experts each token has in common with one: [T]."""
    chosen_TN = torch.zeros(routing.logits.shape, dtype=torch.int64).scatter(1, routing.expert_ids, 1)
    return (chosen_TN @ chosen_TN[token]).tolist()


def fixed(value: float, digits: int) -> str:
    """The number as JavaScript's toFixed writes it: ties go up, where Python's format goes to the even digit; no -0."""
    return f"{Decimal(value + 0.0).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"


def three_digits(value: float) -> str:
    """A number below 1000 in three digits."""
    return fixed(value, 2 if value < 10 else 1 if value < 100 else 0)


DIGITS = 3  # of a loss


def rounded(value: float, digits: int = DIGITS) -> str:
    """The number in words, without what summing up in another order would change; nothing is minus zero."""
    text = fixed(float(f"{value:.12g}"), digits)
    return text if float(text) else fixed(0.0, digits)


def capital(words: str) -> str:
    """The words with a capital letter in front."""
    return words[:1].upper() + words[1:]


def percent(share: float, digits: int = 0) -> str:
    return f"{fixed(100 * share, digits)}%"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence, most: int = 8) -> str:
    """The first few, and how many more there are."""
    more = len(items) - most
    return ", ".join(map(str, items[:most])) + (f" and {more} more" if more > 0 else "")


# Characters that have no shape of their own, or that turn the text around them: shown by name, never obeyed.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥", "\xa0": "⍽", "": "∅"}


def well_formed(text: str) -> str:
    """The text without lone surrogates, which no UTF-8 message can carry: each becomes U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def visible(token: str) -> str:
    """A token as something to look at: spaces, line ends and characters without shape get a visible name."""
    return SHOWN.get(token) or UNSEEN.sub(lambda found: f"U+{ord(found[0]):04X}", well_formed(token))
