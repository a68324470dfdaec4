"""The router zoo: the same tokens through twelve routers.

The browser receives the logits of one router and what the twelve need beside them, and computes every choice itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
import traitlets
from torch import Tensor
from traitlets import Bytes, Dict, Int, List, Unicode

from ...base.errors import require
from ...base.text import visible
from ...base.tokens import encode
from ...moe.layers import moe_layers
from ...moe.routing import routed
from ...moe.zoo import ZOO, Settings, Tokens, settings_for
from ..kit.base import LessonWidget, one_of, within
from ..kit.gates import float32


class RouterZoo(LessonWidget):
    """See where each of the twelve routers of `moe_lesson.moe.zoo` sends the same tokens, what a token pays, who is crowded, and
    whether tokens that come later change what happened to earlier ones.

    Args:
        tokens: T tokens before the routers.
        names: their T texts.
        settings: what the routers need beside logits.
        origin: where the logits come from, shown on the widget's face: "trained", "toy" or "synthetic".

    Traits to read, set and observe: `router` (a name in `ZOO`), `read` (1 … T, how many tokens there are yet), `locked_token`
    (an index or None).

    Raises:
        ValueError: if there is no token, or the parts don't fit together.
    """

    tokens = List(Unicode()).tag(sync=True)
    num_experts = Int().tag(sync=True)
    logits = Bytes().tag(sync=True)  # float32 [T, N]
    previous = Bytes().tag(sync=True)  # float32 [T, N]
    documents = List(Int()).tag(sync=True)
    settings = Dict().tag(sync=True)
    kinds = Dict().tag(sync=True)  # router -> whether it is causal, and has free experts

    router = Unicode().tag(sync=True)
    read = Int(1).tag(sync=True)
    locked_token = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, tokens: Tokens, names: Sequence[str], settings: Settings, *, origin: str = "trained",
                 title: str = "router zoo"):
        count, num_experts = tokens.logits.shape
        require(count > 0, "there is no token to route; give at least one")
        require(len(names) == len(tokens.token_ids) == len(tokens.documents) == len(tokens.previous) == count,
                f"{len(names)} names, {len(tokens.token_ids)} ids, {len(tokens.documents)} documents and {len(tokens.previous)} "
                f"rows of earlier logits for {count} tokens")
        require(len(settings.bias_N) == num_experts, f"settings for {len(settings.bias_N)} experts, logits for {num_experts}")
        for kind in ZOO.values():
            kind.gates(tokens, settings)  # the browser's own have no door: what can't be is refused by these
        start = {"router": "expert choice", "read": count, "locked_token": None}
        super().__init__(title=title, origin=origin, tokens=[visible(name) for name in names], num_experts=num_experts,
                         logits=float32(tokens.logits), previous=float32(tokens.previous), documents=tokens.documents.tolist(),
                         settings=for_browser(settings, tokens), start=start,
                         kinds={name: {"causal": kind.causal, "free": kind.free} for name, kind in ZOO.items()})

    @classmethod
    def of_model(cls, model, texts: Sequence[str], before: str, **more) -> RouterZoo:
        """The zoo over what a language model's last router says of some short documents.

        Args:
            model: a `LanguageModel` with two MoE layers or more, of as many experts each.
            texts: the documents, one after the other.
            before: another text, on which cut-offs, p and level were found: at most the model's context long.
            more: as above.

        Raises:
            ValueError: if the model has fewer than two MoE layers, or they differ in size, or a text is missing or too long.
        """
        require(isinstance(texts, Sequence) and not isinstance(texts, (str, bytes)) and len(texts) > 0,
                f"texts is {texts!r}; expected a list of documents, at least one")
        require(bool(before), "before is empty; give another text of at least one letter")
        require(len(moe_layers(model)) >= 2, "the zoo needs a model with two MoE layers: MoE++ looks at the router before")
        read = [routed(model.route(text)) for text in (*texts, before)]
        last, earlier = (torch.cat([one[layer].logits.detach() for one in read[:-1]]) for layer in (-1, -2))
        require(last.shape == earlier.shape,
                f"the last two routers have {last.shape[1]} and {earlier.shape[1]} experts; expected equally many")
        sizes = torch.tensor([one[-1].num_tokens for one in read[:-1]])
        ids = torch.tensor([i for text in texts for i in encode(text, model.config.vocabulary)])
        tokens = Tokens(last, earlier, ids, torch.arange(len(texts)).repeat_interleave(sizes))
        settings = settings_for(read[-1][-1].logits.detach(), read[-1][-1].top_k, model.config.vocabulary)
        return cls(tokens, [name for one in read[:-1] for name in one[-1].tokens], settings, **more)

    @traitlets.validate("router")
    def _known_router(self, proposal):
        return one_of(proposal, {"router": ZOO})

    @traitlets.validate("read", "locked_token")
    def _in_range(self, proposal):
        return within(proposal, {"read": (1, len(self.tokens)), "locked_token": (0, len(self.tokens) - 1)})


def for_browser(settings: Settings, tokens: Tokens) -> dict:
    """The settings as JSON; of the hash table the rows of these tokens."""
    return {name: value.flatten().tolist() if isinstance(value, Tensor) else value
            for name, value in asdict(settings).items() if name != "table_VK"} | {
                "table": settings.table_VK[tokens.token_ids].tolist()}
