"""Capacity: who is dropped when every expert has room for a limited number of tokens, and which seats stay empty.

The browser receives the choices, their weights and the shuffles once and does the queueing of `moe_lesson.moe.balance` itself;
with a model's weights it also routes whatever text the learner types.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import traitlets
from traitlets import Bytes, Float, Int, List, Unicode

from ...base.errors import require, whole_number
from ...base.text import visible, well_formed
from ...moe.layers import mixtures
from ...moe.routing import Routing, routed
from ..kit.base import ReadingWidget, one_of, within
from ..kit.gates import check_text, count, packed_choices

FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, None)  # None: no limit
RULES = ("order", "weight")  # who comes first: as they stand, or the highest weight
BATCHES = ("as written", "reversed", "shuffled")
SHUFFLES = 20
MOST_TOKENS = 300  # rows of the map: more could not be told apart


class CapacityView(ReadingWidget):
    """Give every expert a limited room, and see which tokens of a text are dropped and which seats stay empty.

    Args:
        routings: L routings, one per MoE layer, of the same T named tokens (at most 300) and the same K; N may differ. Their
            choices and weights are all that is used.
        origin: where they come from, shown on the widget's face: "trained", "toy" or "synthetic".
        seed: of the shuffles.

    Traits to read, set and observe: `layer` (0 … L-1), `factor` (one of `FACTORS`, None means no limit), `by` (who comes first:
    "order" or "weight"), `batch` ("as written", "reversed" or "shuffled"), `shuffle` (1 … 20, which one), `locked_token` (an
    index in the text, or None); of a view made by `of_model` also `text`.

    Raises:
        ValueError: if there is no token or too many, or the routings do not fit together.
    """

    seed = Int().tag(sync=True)
    tokens = List(Unicode()).tag(sync=True)  # of the text at the start
    sizes = List(Int()).tag(sync=True)  # N of each layer
    top_k = Int().tag(sync=True)
    expert_ids = Bytes().tag(sync=True)  # int32 [L, T, K]
    expert_weights = Bytes().tag(sync=True)  # float64 [L, T, K]: rounding would make ties
    shuffles = Bytes().tag(sync=True)  # int32 [Z, longest text], tokens by place; a shorter text skips the rest
    num_shuffles = Int(SHUFFLES).tag(sync=True)
    factors = List(list(FACTORS)).tag(sync=True)

    layer = Int(0).tag(sync=True)
    factor = Float(1.0, allow_none=True).tag(sync=True)
    by = Unicode("order").tag(sync=True)
    batch = Unicode("as written").tag(sync=True)
    shuffle = Int(1).tag(sync=True)
    locked_token = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, routings: Sequence[Routing], *, origin: str = "trained", title: str = "capacity", seed: int = 0,
                 **more):
        seed = whole_number("seed", seed, least=0)
        check_routings(routings)
        longest, random = max(routings[0].num_tokens, more.get("max_tokens", 0)), np.random.default_rng(seed)
        shuffles_ZT = np.stack([random.permutation(longest) for _ in range(SHUFFLES)]).astype(np.int32)
        start = {"layer": 0, "factor": 1.0, "by": "order", "batch": "as written", "shuffle": 1, "locked_token": None,
                 "text": more.pop("text", "")}
        super().__init__(title=title, origin=origin, seed=seed, tokens=[visible(token) for token in routings[0].tokens],
                         sizes=[r.num_experts for r in routings], top_k=routings[0].top_k, shuffles=shuffles_ZT.tobytes(),
                         start=start, **packed_choices(routings), **more)

    @classmethod
    def of_model(cls, model, text: str, **more) -> CapacityView:
        """What a capacity would do to a language model's own routing of any text; the model itself runs without one.

        Args:
            model: a `LanguageModel` with at least one MoE layer.
            text: what stands in the text field at first, at most the model's context long.
            more: as above.

        Raises:
            ValueError: if the model has no MoE layer, or the text is empty or too long.
        """
        mixtures(model, "there is no expert to be full")
        require(bool(text), "the text is empty, so there is no token to drop; write at least one letter")
        one = cls(routed(model.route(text)), text=well_formed(text),
                  max_tokens=min(model.config.context, MOST_TOKENS), **more)
        one.carry(model)
        return one

    @traitlets.validate("layer", "shuffle", "locked_token")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, len(self.sizes) - 1), "shuffle": (1, SHUFFLES),
                                 "locked_token": (0, self.last_token)})

    @traitlets.validate("factor", "by", "batch")
    def _known(self, proposal):
        return one_of(proposal, {"factor": FACTORS, "by": RULES, "batch": BATCHES})


# --- validation -------------------------------------------------------------------------------------------------------


def check_routings(routings: Sequence[Routing]) -> None:
    """Refuse what is not the routing of one text of readable length through one or more layers with the same K."""
    check_text(routings, "routings")
    tokens = routings[0].num_tokens
    require(tokens <= MOST_TOKENS, f"the text has {count(tokens, 'token')}; the map shows 1 … {MOST_TOKENS}, route a piece of it")
    for layer, routing in enumerate(routings):
        require(bool(routing.weights.isfinite().all()) and bool((routing.weights >= 0).all()),
                f"routings[{layer}].weights hold NaN, infinity or a negative number; look for a diverged training or a division "
                "by zero")
