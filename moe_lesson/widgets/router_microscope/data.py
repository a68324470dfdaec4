"""The router microscope: what one router does with one token, from logits to weights.

The browser receives the raw logits and the draws of noise once and computes every step itself; with a model's weights it also
routes whatever text the learner types.
"""

from __future__ import annotations

import math

import numpy as np
import traitlets
from numpy import ndarray
from traitlets import Bool, Bytes, Float, Int, List, Unicode

from ...base.errors import require, whole_number
from ...base.text import visible, well_formed
from ...moe.layers import mixtures
from ...moe.routing import Routing, routed
from ..kit.base import ReadingWidget, one_of, within
from ..kit.gates import Gate, check_logits, check_routing, follows, plain

DRAWS = 100
COLDEST, HOTTEST = 0.1, 10.0  # temperatures

ORDERS = ("softmax, top-k", "softmax, top-k, renormalise", "top-k, softmax")  # from logits to weights


class RouterMicroscope(ReadingWidget):
    """Follow one token through a softmax router, and turn K, temperature, noise and the order of the steps.

    Args:
        routing: T named tokens, routed by a softmax router without bias; its logits are all that is used.
        scale: by which the router multiplies its weights at last; they are shown before it.
        origin: where it comes from, shown on the widget's face: "trained", "toy" or "synthetic".
        seed: of the noise.
        token: which token is shown first, 0 … T-1.

    Traits to read, set and observe: `token`, `k` (1 … N), `temperature` (0.1 … 10), `noise` (its standard deviation in
    logits, 0 … `noise_limit`), `draw` (1 … 100, which draw of the noise), `order` (one of `ORDERS`), `by_logit` (sort
    the experts), `locked_expert` (an index or None); of a microscope made by `of_model` also `text`.

    Raises:
        ValueError: if there is no token, or the routing was not made by a softmax router.
    """

    seed = Int().tag(sync=True)
    layer = Int(0).tag(sync=True)  # which MoE layer of the model
    tokens = List(Unicode()).tag(sync=True)  # of the text at the start
    num_experts = Int().tag(sync=True)
    scale = Float(1.0).tag(sync=True)  # of the gate
    logits = Bytes().tag(sync=True)  # float32 [T, N]
    draws = Bytes().tag(sync=True)  # float32 [Z, N], standard normal
    noise_limit = Float().tag(sync=True)
    digits = Int().tag(sync=True)  # after the decimal point of a logit

    token = Int(0).tag(sync=True)
    k = Int(1).tag(sync=True)
    temperature = Float(1.0).tag(sync=True)
    noise = Float(0.0).tag(sync=True)
    draw = Int(1).tag(sync=True)
    order = Unicode().tag(sync=True)
    by_logit = Bool(False).tag(sync=True)
    locked_expert = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, routing: Routing, *, scale: float = 1.0, origin: str = "trained", title: str = "router microscope",
                 seed: int = 0, token: int = 0, **more):
        seed, token = whole_number("seed", seed, least=0), whole_number("token", token, least=0)
        check_routing(routing, "routing")
        check_logits(routing, "routing")
        require(token < routing.num_tokens, f"token is {token}; expected 0 … {routing.num_tokens - 1}")
        logits_TN = plain(routing).numpy()
        draws_ZN = np.random.default_rng(seed).standard_normal((DRAWS, routing.num_experts), np.float32)
        start = {"token": token, "k": routing.top_k, "temperature": 1.0, "noise": 0.0, "draw": 1,
                 "order": recorded_order(routing, scale), "by_logit": False, "locked_expert": None,
                 "text": more.pop("text", "")}
        super().__init__(title=title, origin=origin, seed=seed, tokens=[visible(token) for token in routing.tokens],
                         num_experts=routing.num_experts, scale=scale, logits=logits_TN.tobytes(), draws=draws_ZN.tobytes(),
                         **scales(logits_TN), start=start, **more)

    @classmethod
    def of_model(cls, model, text: str, layer: int = 0, **more) -> RouterMicroscope:
        """The microscope over a language model's own router, for any text that the learner types.

        Args:
            model: a `LanguageModel` with at least one MoE layer.
            text: what stands in the text field at first, at most the model's context long.
            layer: which MoE layer, counted from 0.
            more: as above, but for the title, which names the layer.

        Raises:
            ValueError: if the model has no such MoE layer, or the text is empty or too long.
        """
        routers = [layer.router for layer in mixtures(model, "there is no router to look at")]
        require(0 <= layer < len(routers), f"layer is {layer}; this model's MoE layers are 0 … {len(routers) - 1}")
        check_router(routers[layer])
        require(bool(text), "the text is empty, so there is no token to look at; write at least one letter")
        routings = routed(model.route(text))
        one = cls(routings[layer], scale=routers[layer].scale, title=f"router microscope · layer {layer + 1} of {len(routers)}",
                  layer=int(layer), text=well_formed(text), max_tokens=model.config.context, **more)
        one.carry(model)
        return one

    @traitlets.validate("token", "k", "temperature", "noise", "draw", "locked_expert")
    def _in_range(self, proposal):
        return within(proposal, {"token": (0, self.last_token), "k": (1, self.num_experts), "draw": (1, DRAWS),
                                 "temperature": (COLDEST, HOTTEST), "noise": (0, self.noise_limit),
                                 "locked_expert": (0, self.num_experts - 1)})

    @traitlets.validate("order")
    def _known_order(self, proposal):
        return one_of(proposal, {"order": ORDERS})


# --- validation -------------------------------------------------------------------------------------------------------


def check_router(router) -> None:
    """Refuse a router whose choice and weights are not made by the steps that the microscope shows."""
    require(router.score == "softmax",
            f"this router scores with a {router.score}; the microscope shows softmax routers (the routing map shows any)")
    require(not router.bias.any(), "this router chooses with a bias; the microscope shows routers that choose by logits alone")


def recorded_order(routing: Routing, scale: float) -> str:
    """The order of steps that leads from the routing's logits to its weights."""
    for order, renormalise in (("softmax, top-k, renormalise", True), ("softmax, top-k", False)):
        if follows(routing, Gate(renormalise=renormalise, scale=scale)):
            return order
    raise ValueError("the routing does not follow from its logits with a softmax and top-k; the microscope shows softmax "
                     "routers without noise and bias, of a known scale (the routing map shows others)")


def scales(logits_TN: ndarray) -> dict:
    """The limit of the noise, twice the typical spread of a token's logits, and how many digits show it: for all tokens."""
    known = logits_TN[np.isfinite(logits_TN)]
    spread = float(np.mean([row[np.isfinite(row)].std(dtype=np.float64) for row in logits_TN]))
    if spread <= 1e-6 * np.abs(known).max():  # all equal, but for rounding
        spread = 1.0
    exponent = math.floor(math.log10(2 * spread))
    return {"noise_limit": float(f"{math.ceil(2 * spread / 10.0**exponent)}e{exponent}"),
            "digits": max(2, 2 - exponent)}
