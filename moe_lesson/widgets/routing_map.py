"""The routing map: which experts each token of a text chose, layer by layer.

The browser receives the raw logits once and computes every choice itself, so that sliders answer at once; Python runs
the model again only when the text changes. Letters: L layers, T tokens, N experts, K active experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import traitlets
from traitlets import Bool, Bytes, Dict, Int, List, Unicode

from ..base.errors import require
from ..measure.nulls import route_beside_null
from ..moe.layers import MoE
from ..moe.recipes import Sparse
from ..moe.routing import Routing
from ..teach.plots import draw_routing, png
from .base import LessonWidget, module_source, stylesheet, within
from .common import (
    Gate,
    check_logits,
    check_origin,
    count,
    fixed,
    follows,
    in_common,
    listed,
    plain,
    route,
    visible,
    well_formed,
)


class RoutingMap(LessonWidget):
    """See, for each token of a text, the experts it chose in each MoE layer; lock a token or an expert to read it.

    Args:
        routings: L routings, one per MoE layer, of the same T named tokens and the same K; N may differ.
        origin: where they come from, shown on the widget's face: "trained", "toy" or "synthetic".
        router: how logits become weights: a `Router`, a mapping or a `Gate` (score, renormalise, scale, bias) for all
            layers, or a list of L of them.
        null: what a *random* router decides on the same hidden states, like `routings`, or None. It has the gate of
            `router` without bias.
        text: what stands in the text field.
        on_text: called with a new text, returns (routings, null); None means no text field. A ValueError that it raises
            is shown as a sentence, and the last picture stays.
        num_shared: how many shared experts see every token.
        name: the title.
        max_bytes: the longest text, e.g. the model's context; nobody reads much more token by token.

    Traits to read, set and observe: `layer` (0 … L-1), `k` (1 … N), `router` ("model" or "null"), `locked_token` and
    `locked_expert` (an index or None), `text`. To read: `summary` (what the widget says), `shown` (the `Routing` it
    shows), `problem` (why the last text was refused, or "").

    Raises:
        ValueError: if the routings do not fit together, or the gate does not reproduce what they recorded.
    """

    _esm = module_source("routing_map")
    _css = stylesheet()

    title = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    num_shared = Int().tag(sync=True)
    has_input = Bool().tag(sync=True)
    max_bytes = Int().tag(sync=True)
    gates = List(Dict()).tag(sync=True)
    null_gates = List(Dict()).tag(sync=True)
    sizes = List(Int()).tag(sync=True)
    top_k = Int().tag(sync=True)
    tokens = List(Unicode()).tag(sync=True)
    logits = Bytes().tag(sync=True)  # float32, [T, N] of each layer one after the other
    null_logits = Bytes().tag(sync=True)
    problem = Unicode().tag(sync=True)
    start = Dict().tag(sync=True)  # what Reset goes back to

    layer = Int(0).tag(sync=True)
    k = Int(1).tag(sync=True)
    router = Unicode("model").tag(sync=True)
    locked_token = Int(None, allow_none=True).tag(sync=True)
    locked_expert = Int(None, allow_none=True).tag(sync=True)
    text = Unicode().tag(sync=True, echo_update=False)  # what is typed must not come back under the typing hand

    def __init__(self, routings: Sequence[Routing], *, origin: str = "trained", router=None,
                 null: Sequence[Routing] | None = None, text: str = "", on_text: Callable | None = None,
                 num_shared: int = 0, name: str = "routing map", max_bytes: int = 240):
        check_origin(origin)
        require(on_text is None or callable(on_text), f"on_text is {on_text!r}; expected a function or None")
        require(isinstance(text, str), f"text is {text!r}; expected a string")
        require(max_bytes >= 1, f"max_bytes is {max_bytes}; allow a text of at least 1 byte")
        require(num_shared >= 0, f"num_shared is {num_shared}; expected 0 or more shared experts")
        self._gates = gates_for(router, len(routings))
        self._null_gates = [gate.without_bias() for gate in self._gates] if null is not None else []
        self._on_text = None
        data = self._pack(routings, null)
        start = {"layer": 0, "k": data["top_k"], "router": "model", "locked_token": None, "locked_expert": None,
                 "text": well_formed(text)}
        super().__init__(title=name, origin=origin, num_shared=num_shared, has_input=on_text is not None,
                         max_bytes=max_bytes, gates=[gate.to_dict() for gate in self._gates],
                         null_gates=[gate.to_dict() for gate in self._null_gates], start=start, **start, **data)
        self._on_text = on_text  # only now: the text given here is the one that is shown already

    @classmethod
    def of_model(cls, model, text: str, *, origin: str = "trained", seed: int = 0, name: str = "routing map") -> RoutingMap:
        """The map of a language model's own routing, beside random routers, for any text that the learner types.

        Args:
            model: a `LanguageModel` with at least one MoE layer.
            text: what stands in the text field at first.
            origin: "trained" or "toy".
            seed: of the random routers.
            name: the title.
        """
        layers = [block.ffn for block in model.blocks if isinstance(block.ffn, MoE)]
        require(bool(layers), "this model has no MoE layer, so there is no routing to show")
        routings, null = route_beside_null(model, text, seed)
        num_shared = max(recipe.num_shared for recipe in model.config.recipes if isinstance(recipe, Sparse))
        return cls(routings, null=null, origin=origin, router=[layer.router for layer in layers], text=text, name=name,
                   num_shared=num_shared, max_bytes=model.config.context,
                   on_text=lambda typed: route_beside_null(model, typed, seed))

    def _pack(self, routings: Sequence[Routing], null: Sequence[Routing] | None) -> dict:
        """Check routings and turn them into traits."""
        check_layers(routings, self._gates, "routings")
        if self._null_gates:
            require(null is not None, "on_text returned no routings of the random router, which the map was made with")
            check_layers(null, self._null_gates, "null")
            require(shapes(null) == shapes(routings),
                    f"null has [T, N] {shapes(null)}, the routings {shapes(routings)}; "
                    "route the same hidden states through a random router of the same size")
        return {"sizes": [r.num_experts for r in routings], "top_k": routings[0].top_k,
                "tokens": [visible(token) for token in routings[0].tokens],
                "logits": packed(routings), "null_logits": packed(null or ())}

    @property
    def shown(self) -> Routing:
        """The routing on the screen: of this layer, this router and this k."""
        gates, logits = (self._null_gates, self.null_logits) if self.router == "null" else (self._gates, self.logits)
        shape = len(self.tokens), self.sizes[self.layer]
        start = 4 * shape[0] * sum(self.sizes[:self.layer])  # 4 bytes a float32
        logits_TN = np.frombuffer(logits, np.float32, shape[0] * shape[1], start).reshape(shape)
        return route(logits_TN, gates[self.layer], self.k).with_tokens(self.tokens)

    @property
    def summary(self) -> str:
        """What the widget says, in words."""
        return summary(self.shown, self.layer, len(self.sizes), self.top_k, self.router_label, self.num_shared,
                       self.has_input, self.locked_token, self.locked_expert)

    @property
    def router_label(self) -> str:
        return "random router (null)" if self.router == "null" else f"{self.origin} router"

    def describe(self) -> str:
        experts = "/".join(str(size) for size in dict.fromkeys(self.sizes))
        return (f"{self.title!r}, {self.origin}: {len(self.sizes)} layers, {len(self.tokens)} tokens, "
                f"{self.top_k} of {experts} experts")

    def picture(self) -> bytes:
        return png(draw_routing(self.shown, origin=self.router_label, limit=self._gates[self.layer].scale,
                                title=f"{self.title} · layer {self.layer + 1} of {len(self.sizes)}"))

    @traitlets.validate("layer", "k", "locked_token", "locked_expert")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, len(self.sizes) - 1), "k": (1, self.sizes[self.layer]),
                                 "locked_token": (0, len(self.tokens) - 1), "locked_expert": (0, self.sizes[self.layer] - 1)})

    @traitlets.validate("router")
    def _known_router(self, proposal):
        choices = ("model", "null") if self._null_gates else ("model",)
        if proposal["value"] not in choices:
            raise traitlets.TraitError(f"router is {proposal['value']!r}; this map has {' and '.join(choices)}")
        return proposal["value"]

    @traitlets.validate("text")
    def _clean_text(self, proposal):
        return well_formed(proposal["value"])

    @traitlets.observe("layer", "router")
    def _other_experts(self, _):
        """Expert ids belong to one router of one layer: what was locked means nothing in the next."""
        self.locked_expert = None
        self.k = min(self.k, self.sizes[self.layer])

    @traitlets.observe("text")
    def _route_text(self, change):
        if self._on_text is None:
            return
        try:
            data = self._pack(*self._routings_of(change["new"]))
            require((data["sizes"], data["top_k"]) == (self.sizes, self.top_k),
                    f"on_text returned N = {data['sizes']}, K = {data['top_k']}; "
                    f"this map was made for N = {self.sizes}, K = {self.top_k}")
        except ValueError as refusal:
            self.problem = str(refusal)
            return
        except Exception as error:
            self.problem = f"The model failed on this text: {type(error).__name__}: {error}"
            raise
        with self.hold_sync():  # one message, so that the browser never sees half of it
            self.locked_token = None  # its position means another token now
            for trait, value in {**data, "problem": ""}.items():
                setattr(self, trait, value)

    def _routings_of(self, text: str) -> tuple[Sequence[Routing], Sequence[Routing] | None]:
        """Ask the model; an empty text needs no model."""
        size = len(text.encode("utf-8"))
        require(size <= self.max_bytes,
                f"The text is {size} bytes long; the map reads at most {self.max_bytes}. Shorten it.")
        if size:
            return self._on_text(text)
        empty = [route(np.zeros((0, size), np.float32), Gate(), self.top_k).with_tokens(()) for size in self.sizes]
        return empty, empty if self._null_gates else None


def gates_for(router, layers: int) -> list[Gate]:
    """One gate per layer, out of one for all or a list."""
    routers = list(router) if isinstance(router, (list, tuple)) else [router or {}] * layers
    require(len(routers) == layers, f"{len(routers)} routers for {layers} layers; give one each, or one for all")
    return [Gate.of(one) for one in routers]


def packed(routings: Sequence[Routing]) -> bytes:
    return b"".join(plain(routing).tobytes() for routing in routings)


def shapes(routings: Sequence[Routing]) -> list[tuple[int, int]]:
    return [(r.num_tokens, r.num_experts) for r in routings]


def check_layers(routings: Sequence[Routing], gates: Sequence[Gate], name: str) -> None:
    """Refuse layers that are not routings of the same tokens with the same K, or that their gates don't reproduce."""
    require(len(routings) > 0, f"{name} is empty; expected one Routing per MoE layer")
    require(len(routings) == len(gates), f"{name} has {len(routings)} layers; expected {len(gates)}")
    for layer, (routing, gate) in enumerate(zip(routings, gates)):
        here = f"{name}[{layer}]"
        require(isinstance(routing, Routing), f"{here} is {type(routing).__name__}; expected a Routing")
        require(routing.tokens is not None, f"{here} has no token texts; add them with routing.with_tokens([...])")
        require(routing.tokens == routings[0].tokens,
                f"{here} has other tokens than {name}[0]; route one text through all layers")
        require(routing.top_k == routings[0].top_k,
                f"{here} has K = {routing.top_k}, {name}[0] has {routings[0].top_k}; "
                "show layers of different K in maps of their own")
        require(routing.top_k >= 1, f"{here} has K = 0; each token must go to at least one expert")
        check_recorded(routing, gate, here)


def check_recorded(routing: Routing, gate: Gate, here: str) -> None:
    """Refuse a gate that does not lead from the recorded logits to the recorded choices and weights."""
    check_logits(routing, here)
    require(gate.bias is None or len(gate.bias) == routing.num_experts,
            f"{here} has {routing.num_experts} experts, but the bias has {len(gate.bias or ())} numbers")
    require(follows(routing, gate),
            f"{here} does not follow from its logits with {gate_words(gate)}: pass the layer's own router "
            "(router=[block.ffn.router, …]), or its score, renormalise, scale and bias")


def gate_words(gate: Gate) -> str:
    return (f"score={gate.score!r}, renormalise={gate.renormalise}, scale={gate.scale:g}, "
            f"{'no bias' if not any(gate.bias or ()) else 'its bias'}")


# --- the summary: the twin of `describe` in routing_map.js -----------------------------------------------------------


def summary(routing: Routing, layer: int, layers: int, trained_k: int, router: str, num_shared: int, has_input: bool,
            token: int | None, expert: int | None) -> str:
    """What the map shows, in words."""
    parts = [head(routing, layer, layers, trained_k, router, num_shared)]
    if not routing.num_tokens:
        parts.append("The text is empty: no token, nothing to route." + (" Type some text." if has_input else ""))
    elif token is not None and expert is not None:
        parts.append(pair_words(routing, token, expert))
    if routing.num_tokens and token is not None:
        parts += token_words(routing, token)
    if routing.num_tokens and expert is not None:
        parts.append(expert_words(routing, expert))
    if routing.num_tokens and token is None and expert is None:
        parts += load_words(routing)
    return " ".join(parts)


def head(routing: Routing, layer: int, layers: int, trained_k: int, router: str, num_shared: int) -> str:
    words = f"Layer {layer + 1} of {layers}, K = {routing.top_k} of {count(routing.num_experts, 'expert')}, {router}."
    if routing.top_k != trained_k:
        words += f" A what-if: the model ran with K = {trained_k}."
    if num_shared:
        words += f" + {count(num_shared, 'shared expert')} {'sees' if num_shared == 1 else 'see'} every token."
    return words


def load_words(routing: Routing) -> list[str]:
    load, mean = routing.load.tolist(), routing.num_tokens * routing.top_k / routing.num_experts
    busiest, idle = load.index(max(load)), [n for n, tokens in enumerate(load) if not tokens]
    first = (f"Busiest: expert {busiest}, chosen by {max(load)} of {count(routing.num_tokens, 'token')}, "
             f"{fixed(max(load) / mean, 1)} × the mean load of {fixed(mean, 1)}.")
    return [first, f"Idle: {count(len(idle), 'expert')} ({listed(idle)})." if idle else "No expert is idle."]


def token_words(routing: Routing, token: int) -> list[str]:
    chosen = zip(routing.expert_ids[token].tolist(), routing.weights[token].tolist())
    goes = [f"{n} ({fixed(weight, 2)})" for n, weight in chosen]
    noun = "expert" if len(goes) == 1 else "experts"
    words = [f"Token {token} {quoted(routing, token)} goes to {noun} {listed(goes)}."]
    common = in_common(routing, token)
    others = sorted((t for t in range(routing.num_tokens) if t != token and common[t]), key=lambda t: -common[t])[:3]
    if others:
        alike = ", ".join(f"token {t} {quoted(routing, t)} ({common[t]} of {routing.top_k})" for t in others)
        words.append(f"It shares most experts with {alike}.")
    return words


def expert_words(routing: Routing, expert: int) -> str:
    mine = [token for token, ids in zip(routing.tokens, routing.expert_ids.tolist()) if expert in ids]
    if not mine:
        return f"Expert {expert} is chosen by no token of this text."
    kinds = [f"'{token}' × {times}" for token, times in Counter(mine).most_common()]
    return f"Expert {expert} is chosen by {len(mine)} of {count(routing.num_tokens, 'token')}: {listed(kinds)}."


def pair_words(routing: Routing, token: int, expert: int) -> str:
    ids = routing.expert_ids[token].tolist()
    if expert not in ids:
        return f"Token {token} {quoted(routing, token)} did not choose expert {expert}."
    weight = routing.weights[token, ids.index(expert)].item()
    return f"Token {token} {quoted(routing, token)} gives expert {expert} a weight of {fixed(weight, 2)}."


def quoted(routing: Routing, token: int) -> str:
    return f"'{routing.tokens[token]}'"
