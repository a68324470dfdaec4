"""The routing map: which experts each token of a text chose, layer by layer.

The browser receives the raw logits once and computes every choice itself; with a model's weights it also routes whatever text the
learner types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace

import traitlets
from traitlets import Bytes, Dict, Int, List, Unicode

from ...base.errors import require
from ...base.text import visible, well_formed
from ...measure.nulls import random_router, route_beside_null
from ...moe.layers import mixtures
from ...moe.recipes import Sparse
from ...moe.routing import Routing
from ..kit.base import ReadingWidget, one_of, within
from ..kit.gates import Gate, check_layers, check_text, float32


class RoutingMap(ReadingWidget):
    """See, for each token of a text, the experts it chose in each MoE layer; lock a token or an expert to read it.

    Args:
        routings: L routings, one per MoE layer, of the same T named tokens and the same K; N may differ.
        origin: where they come from, shown on the widget's face: "trained", "toy" or "synthetic".
        routers: how logits become weights, L times a `Router` or a `Gate`; unless given, `Gate()`.
        null: what a *random* router decides on the same hidden states, like `routings`, or None. It has the gates of
            `routers` without bias.
        num_shared: how many shared experts see every token.

    Traits to read, set and observe: `layer` (0 … L-1), `k` (1 … N), `router` ("model" or "null"), `locked_token` and
    `locked_expert` (an index or None); of a map made by `of_model` also `text`.

    Raises:
        ValueError: if the routings do not fit together, or the gate does not reproduce what they recorded.
    """

    num_shared = Int().tag(sync=True)
    gates = List(Dict()).tag(sync=True)
    null_gates = List(Dict()).tag(sync=True)
    sizes = List(Int()).tag(sync=True)
    top_k = Int().tag(sync=True)
    tokens = List(Unicode()).tag(sync=True)  # of the text at the start
    logits = Bytes().tag(sync=True)  # float32, [T, N] of each layer one after the other
    null_logits = Bytes().tag(sync=True)
    null_weights = Bytes().tag(sync=True)  # of the random routers, float32, [D, N] of each layer

    layer = Int(0).tag(sync=True)
    k = Int(1).tag(sync=True)
    router = Unicode("model").tag(sync=True)
    locked_token = Int(None, allow_none=True).tag(sync=True)
    locked_expert = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, routings: Sequence[Routing], *, origin: str = "trained", routers: Sequence = (),
                 null: Sequence[Routing] | None = None, num_shared: int = 0, title: str = "routing map", **more):
        require(num_shared >= 0, f"num_shared is {num_shared}; expected 0 or more shared experts")
        check_text(routings, "routings")
        gates = [Gate.of(one) for one in routers] or [Gate()] * len(routings)
        null_gates = [replace(gate, bias=None) for gate in gates] if null is not None else []
        check_layers(routings, gates, "routings")
        if null is not None:
            check_layers(null, null_gates, "null")
            require(shapes(null) == shapes(routings), f"null has [T, N] {shapes(null)}, the routings {shapes(routings)}; "
                                                      "route the same hidden states through a random router of the same size")
        tokens = [visible(token) for token in routings[0].tokens]
        start = {"layer": 0, "k": routings[0].top_k, "router": "model", "locked_token": repeated(tokens), "locked_expert": None,
                 "text": more.pop("text", "")}
        super().__init__(title=title, origin=origin, num_shared=num_shared, gates=list(map(asdict, gates)),
                         null_gates=list(map(asdict, null_gates)), sizes=[r.num_experts for r in routings],
                         top_k=routings[0].top_k, tokens=tokens, start=start,
                         logits=b"".join(float32(one.logits) for one in routings),
                         null_logits=b"".join(float32(one.logits) for one in null or ()), **more)

    @classmethod
    def of_model(cls, model, text: str, **more) -> RoutingMap:
        """The map of a language model's own routing, beside random routers, for any text that the learner types.

        Args:
            model: a `LanguageModel` with at least one MoE layer.
            text: what stands in the text field at first.
            more: as above.

        Raises:
            ValueError: if the model has no MoE layer, or the text is empty or too long.
        """
        routers = [layer.router for layer in mixtures(model, "there is no routing to show")]
        require(bool(text), "the text is empty, so there is nothing to route; write at least one letter")
        routings, null = route_beside_null(model, text)
        nulls = b"".join(float32(random_router(router, i).weight) for i, router in enumerate(routers))
        shared = max(recipe.num_shared for recipe in model.config.recipes if isinstance(recipe, Sparse))
        one = cls(routings, null=null, routers=routers, num_shared=shared, text=well_formed(text),
                  max_tokens=model.config.context, null_weights=nulls, **more)
        one.carry(model)
        return one

    @traitlets.validate("layer", "k", "locked_token", "locked_expert")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, len(self.sizes) - 1), "k": (1, self.sizes[self.layer]),
                                 "locked_token": (0, self.last_token), "locked_expert": (0, self.sizes[self.layer] - 1)})

    @traitlets.validate("router")
    def _known_router(self, proposal):
        return one_of(proposal, {"router": ("model", "null") if self.null_gates else ("model",)})

    @traitlets.observe("layer", "router")
    def _other_experts(self, _):
        """Expert ids belong to one router of one layer: what was locked means nothing in the next."""
        self.locked_expert = None
        self.k = min(self.k, self.sizes[self.layer])


def repeated(tokens: Sequence[str]) -> int | None:
    """The first place of the word or letter that stands in a text most often, if one does so twice: a first thing to look at."""
    words = Counter(token for token in tokens if token.strip("␣").isalnum())
    (word, times), = words.most_common(1) or [("", 0)]
    return tokens.index(word) if times > 1 else None


def shapes(routings: Sequence[Routing]) -> list[tuple[int, int]]:
    return [(r.num_tokens, r.num_experts) for r in routings]
