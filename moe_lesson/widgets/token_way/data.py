"""One token's way: a token of any text, station by station through a mixture of experts, from its vector to the residual stream.

The browser runs the model and shows what it does; Python sends the weights alone.
"""

from __future__ import annotations

import traitlets
from traitlets import Bool, Int

from ...base.errors import require, whole_number
from ...base.text import well_formed
from ...lm.model import LanguageModel
from ...moe.layers import mixtures
from ...moe.routing import routed
from ..kit.base import ReadingWidget, within
from ..kit.gates import check_logits

STATIONS, SHORT = 8, 5  # places to stop at; view.js has their names


class TokenWay(ReadingWidget):
    """Follow one token through one MoE layer: vector, logits, softmax, top-k, weights, experts, weighted sum, residual.

    Args:
        model: a `LanguageModel` with at least one MoE layer.
        text: what stands in the text field at first, at most the model's context long.
        token: which of its tokens is followed at first.
        short: stop at five stations instead of eight.
        origin: shown on the widget's face: "trained" or "toy".

    Traits to read, set and observe: `text`, `layer` (0 … L-1), `locked_token` and `station` (0 … 7, of a short one 0 … 4).

    Raises:
        ValueError: if the model has no MoE layer or its logits hold NaN or infinity, or the text does not have such a token.
    """

    short = Bool().tag(sync=True)
    num_layers = Int().tag(sync=True)

    layer = Int(0).tag(sync=True)
    locked_token = Int(0).tag(sync=True)
    station = Int(0).tag(sync=True)

    def __init__(self, model: LanguageModel, text: str, token: int = 0, *, short: bool = False, origin: str = "trained",
                 title: str = "one token's way"):
        layers = mixtures(model, "there is no way to follow")
        require(bool(text), "the text is empty, so there is no token to follow; write at least one letter")
        routings = routed(model.route(text))
        tokens, token = routings[0].num_tokens, whole_number("token", token, least=0)
        require(token < tokens, f"token is {token}; this text has {tokens} tokens, the first is 0")
        for layer, routing in enumerate(routings):
            check_logits(routing, f"routings[{layer}]")
        start = {"text": well_formed(text), "layer": 0, "locked_token": token, "station": (SHORT if short else STATIONS) - 1}
        super().__init__(title=title, origin=origin, short=short, num_layers=len(layers), max_tokens=model.config.context,
                         start=start)
        self.carry(model)

    @traitlets.validate("layer", "locked_token", "station")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, self.num_layers - 1), "locked_token": (0, self.max_tokens - 1),
                                 "station": (0, (SHORT if self.short else STATIONS) - 1)})
