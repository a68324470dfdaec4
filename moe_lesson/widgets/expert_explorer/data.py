"""The expert explorer: from a token of your own text to its experts, from an expert to the tokens it likes, and back.

A census of documents that the model never saw says what each expert likes; the browser only reads it. Python answers a new text.
The functions under "words" are twins of those in expert_explorer.js.
Letters: L MoE layers, T tokens, N experts, K active experts, B bytes frequent enough to count, M domains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import traitlets
from numpy import ndarray
from traitlets import Bool, Bytes, Dict, Float, Int, List, Unicode

from ...base.errors import require
from ...base.text import byte_texts, to_bytes, visible, well_formed
from ...lm.corpora import Corpus
from ...lm.machine_text import machine_corpus
from ...lm.model import LanguageModel
from ...measure.census import Census, lift, take_census
from ...moe.layers import moe_layers
from ...moe.routing import Routing
from ..kit.base import LessonWidget, within
from ..kit.gates import check_origin, count

TEXT = "def route(x, k=2):  # which experts does a token choose?"
LEAST = 30  # times that a byte must occur in the census: below, chance alone makes favourites
LIMIT = 1024  # bytes of each document
BEST, SERVERS, CONTEXTS = 6, 5, 6  # rows of the side panel, experts named for a byte
BEFORE, AFTER = 14, 10  # bytes around the marked one
NAMES = [*(byte_texts(bytes([byte]))[0] for byte in range(256))]


@dataclass(frozen=True)
class Likings:
    """What a census says of the experts of one layer.

    Args:
        load: [N] tokens that chose each expert.
        calls: [N, B] of them, those of each byte that is frequent enough.
        domains: [N, M] lift of each domain, see `census.lift`.
        lifts: [N, B] the share of the byte's tokens that chose the expert, over the share of all tokens that did.
    """

    load: ndarray
    calls: ndarray
    domains: ndarray
    lifts: ndarray

    @classmethod
    def of(cls, census: Census, layer: int, counted: Sequence[int], tokens_B: ndarray) -> Likings:
        """Count one layer of a census."""
        calls_NV = census.calls(layer, "byte").sum(dim=0).numpy()
        load, calls = calls_NV.sum(axis=1), calls_NV[:, counted]
        shares = (load / len(census.byte_T))[:, None]
        lifts = np.divide(calls / tokens_B, shares, out=np.zeros_like(calls), where=shares > 0)
        return cls(load, calls, lift(census.calls(layer).sum(dim=0)).numpy(), lifts)

    @property
    def favourites(self) -> ndarray:
        """[N] how much each expert likes the byte it likes best."""
        return self.lifts.max(axis=1)


class ExpertExplorer(LessonWidget):
    """Follow a token of a text to its experts in every layer, and an expert to the tokens it likes in a census of documents.

    Args:
        routings: one `Routing` for each MoE layer, of the bytes of `text`, all with the same K.
        text: what stands in the text field.
        census: where the tokens of documents went, see `take_census`; with the experts and K of the routings.
        null: a census of the same documents by random routers.
        origin: where the routing comes from, shown on the widget's face: "trained", "toy" or "synthetic".
        name: of the model.
        title: the title.
        on_text: called with a new text, returns routings like the first; None means no text field.
        max_bytes: the longest text, e.g. the model's context.
        seed: of the null, and of the documents that example contexts are drawn from.
        least: how often a byte must occur in the census to count.

    Traits to read, set and observe: `text`, `token` (an index; past the end means the last), `expert` ([layer, id], both from 0),
    `search`. To read: `summary` (what the widget says), `problem` (why the last text was refused, or "").

    Raises:
        ValueError: if the text is empty, or routings and censuses do not fit together.
    """

    title = Unicode().tag(sync=True)
    name = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    seed = Int().tag(sync=True)
    has_input = Bool().tag(sync=True)
    max_bytes = Int().tag(sync=True)
    sizes = List(Int()).tag(sync=True)  # N of each layer
    top_k = Int().tag(sync=True)
    least = Int().tag(sync=True)
    domains = List(Unicode()).tag(sync=True)
    names = List(Unicode()).tag(sync=True)  # of the 256 bytes
    census_size = List(Int()).tag(sync=True)  # tokens, documents
    byte_tokens = List(Int()).tag(sync=True)  # how often each of the 256 bytes occurs
    counted = List(Int()).tag(sync=True)  # the B bytes that occur often enough
    load = Bytes().tag(sync=True)  # uint32 [N] of each layer one after the other
    byte_calls = Bytes().tag(sync=True)  # uint32 [N, B] of each layer
    domain_lifts = Bytes().tag(sync=True)  # float64 [N, M] of each layer
    null_favourites = Bytes().tag(sync=True)  # float64 [N] of each layer: each random expert's strongest liking
    null_bytes = Bytes().tag(sync=True)  # float64 [L, B]: the strongest liking of any random expert for a byte
    null_domains = Bytes().tag(sync=True)  # float64 [L, M]
    contexts = List().tag(sync=True)  # for each layer and expert [domain, before, byte, after] …
    axis = Float().tag(sync=True)  # top of the lifts, over all experts, layers and the null
    tokens = List(Unicode()).tag(sync=True)
    raw = Bytes().tag(sync=True)  # uint8 [T]
    experts = Bytes().tag(sync=True)  # int32 [L, T, K]
    weights = Bytes().tag(sync=True)  # float64 [L, T, K]
    problem = Unicode().tag(sync=True)
    start = Dict().tag(sync=True)  # what Reset goes back to

    text = Unicode().tag(sync=True, echo_update=False)  # what is typed must not come back under the typing hand
    token = Int(0).tag(sync=True)
    expert = List(Int(), [0, 0]).tag(sync=True)
    search = Unicode().tag(sync=True, echo_update=False)

    def __init__(self, routings: Sequence[Routing], text: str, census: Census, null: Census, *, origin: str = "trained",
                 name: str = "model", title: str = "follow a token, follow an expert", on_text: Callable | None = None,
                 max_bytes: int = 240, seed: int = 0, least: int = LEAST):
        check_origin(origin)
        require(on_text is None or callable(on_text), f"on_text is {on_text!r}; expected a function or None")
        raw = to_bytes(text)
        require(0 < len(raw) <= max_bytes, f"the text has {len(raw)} bytes; expected 1 … {max_bytes}")
        check_censuses(census, null)
        byte_tokens = torch.bincount(census.byte_T, minlength=256).numpy()
        counted = np.flatnonzero(byte_tokens >= least)
        require(len(counted) > 0, f"no byte occurs {least} times in this census; read more documents, or set least lower")
        self._on_text = None
        self._trained, self._null = ([Likings.of(one, layer, counted, byte_tokens[counted]) for layer in range(len(one.sizes))]
                                     for one in (census, null))
        sizes, top_k = list(census.sizes), census.expert_ids[0].shape[1]
        text_data = routed(routings, raw, sizes, top_k)
        token = len(raw) // 2
        start = {"text": well_formed(text), "token": token, "search": "",
                 "expert": strongest(self._trained, routings, token, np.flatnonzero(counted == raw[token]))}
        super().__init__(title=title, name=name, origin=origin, seed=seed, has_input=on_text is not None, max_bytes=max_bytes,
                         sizes=sizes, top_k=top_k, least=least, domains=list(map(well_formed, census.domains)),
                         names=NAMES, census_size=[len(census.byte_T), len(census.domain_F)], byte_tokens=byte_tokens.tolist(),
                         counted=counted.tolist(), contexts=draw_contexts(census, seed), start=start,
                         axis=float(np.ceil(max(one.lifts.max() for one in (*self._trained, *self._null)))),
                         **packed(self._trained, self._null), **text_data, **start)
        self._on_text = on_text  # only now: the text given here is the one that is shown already

    @classmethod
    def of_model(cls, model: LanguageModel, text: str = TEXT, corpus: Corpus | None = None, *, name: str = "",
                 census: dict[str, Census] | None = None, seed: int = 0, limit: int = LIMIT, origin: str = "trained",
                 title: str = "follow a token, follow an expert") -> ExpertExplorer:
        """The explorer of a language model, for any text that the learner types.

        Args:
            model: with at least one MoE layer.
            text: what stands in the text field at first, at most the model's context long.
            corpus: whose test documents are read for the census; this machine's unless given.
            name: of the model; empty names its sizes.
            census: what `take_census` returned for this model, to save the reading.
            seed: of the random routers and of the example contexts; with a census, the seed it was taken with.
            limit: how many bytes of each document.
            origin: "trained" or "toy".
            title: the title.

        Raises:
            ValueError: if the model has no MoE layer, or the census is of another model.
        """
        require(bool(moe_layers(model)), "this model has no MoE layer, so there is no expert to follow; "
                                         'take one that has, e.g. shipped_model("ladder-deepseekmoe")')

        def route(typed: str) -> list[Routing]:
            return [routing for routing in model.route(typed) if routing is not None]

        routings = route(text)
        if census is None:
            census = take_census(model, corpus or machine_corpus(splits=("test",)), limit=limit, seed=seed)
        sizes = "/".join(str(routing.num_experts) for routing in routings)
        return cls(routings, text, census["trained"], census["random router"], origin=origin, title=title, seed=seed,
                   name=name or f"{count(len(routings), 'MoE layer')} of {sizes} experts", on_text=route,
                   max_bytes=model.config.context)

    @traitlets.validate("token")
    def _in_range(self, proposal):
        longest = max(len(self.tokens), len(to_bytes(self.text)))  # a new text may come in the same message
        return within(proposal, {"token": (0, max(longest - 1, 0))})

    @traitlets.validate("expert")
    def _known(self, proposal):
        value = proposal["value"]
        if not (len(value) == 2 and 0 <= value[0] < len(self.sizes) and 0 <= value[1] < self.sizes[value[0]]):
            raise traitlets.TraitError(f"expert is {value}; expected [layer, id]: a layer from 0 to {len(self.sizes) - 1} and "
                                       f"one of its own experts, N = {self.sizes}")
        return value

    @traitlets.validate("text", "search")
    def _clean(self, proposal):
        return well_formed(proposal["value"])

    @traitlets.observe("text")
    def _route_text(self, change):
        if self._on_text is None:
            return
        raw = to_bytes(change["new"])
        try:
            require(len(raw) <= self.max_bytes,
                    f"The text is {len(raw)} bytes long; the model reads at most {self.max_bytes}. Shorten it.")
            data = routed(self._on_text(change["new"]) if raw else [], raw, self.sizes, self.top_k)
        except ValueError as refusal:
            self.problem = str(refusal)
            return
        with self.hold_sync():  # one message, so that the browser never sees half of it
            for trait, value in {**data, "problem": ""}.items():
                setattr(self, trait, value)


# --- validation -------------------------------------------------------------------------------------------------------


def check_routings(routings: Sequence[Routing], raw: bytes, sizes: Sequence[int], top_k: int) -> None:
    """Refuse what is not the routing of a text's bytes through these layers; an empty text needs none."""
    require(not raw or len(routings) == len(sizes), f"there are {count(len(routings), 'routing')}; expected one for each MoE "
                                                    f"layer of the census, {len(sizes)}")
    for layer, (routing, size) in enumerate(zip(routings, sizes)):
        found = routing.num_tokens, routing.top_k, routing.num_experts
        require(found == (len(raw), top_k, size), f"routings[{layer}] has T, K, N = {found}; expected {(len(raw), top_k, size)}: "
                                                  "the bytes of the text, and the experts of the census")


def check_censuses(census: Census, null: Census) -> None:
    """Refuse censuses of different documents or layers, and layers of different K."""
    for name, one in (("census", census), ("null", null)):
        require(isinstance(one, Census), f"{name} is {type(one).__name__}; expected a Census, see take_census")
    require(len(census.sizes) > 0, "the census has no layer; take it of a model with an MoE layer")
    require(census.sizes == null.sizes and torch.equal(census.byte_T, null.byte_T),
            "census and null have other layers or other tokens; take both from one take_census(…)")
    shapes = {ids.shape[1] for one in (census, null) for ids in one.expert_ids}
    require(len(shapes) == 1, f"the layers have K = {sorted(shapes)}; show layers of different K in explorers of their own")


# --- what is computed once --------------------------------------------------------------------------------------------


def routed(routings: Sequence[Routing], raw: bytes, sizes: Sequence[int], top_k: int) -> dict:
    """Check the routings of a text and turn them into traits."""
    check_routings(routings, raw, sizes, top_k)
    return {"tokens": byte_texts(raw), "raw": raw,
            "experts": b"".join(one.expert_ids.cpu().numpy().astype(np.int32).tobytes() for one in routings),
            "weights": b"".join(one.weights.detach().double().cpu().numpy().tobytes() for one in routings)}


def packed(trained: Sequence[Likings], null: Sequence[Likings]) -> dict:
    """The likings as traits, layer after layer."""
    def joined(arrays, dtype) -> bytes:
        return b"".join(array.astype(dtype).tobytes() for array in arrays)

    return {"load": joined([one.load for one in trained], np.uint32),
            "byte_calls": joined([one.calls for one in trained], np.uint32),
            "domain_lifts": joined([one.domains for one in trained], np.float64),
            "null_favourites": joined([one.favourites for one in null], np.float64),
            "null_bytes": joined([one.lifts.max(axis=0) for one in null], np.float64),
            "null_domains": joined([one.domains.max(axis=0) for one in null], np.float64)}


def strongest(likings: Sequence[Likings], routings: Sequence[Routing], token: int, byte: ndarray) -> list[int]:
    """[layer, id] of that expert of a token that likes its byte best: `byte` is the byte's place among the counted ones.

    If it is too rare to be counted, the expert with the strongest favourite. A tie goes to the first.
    """
    own = [(one.lifts[n, byte].max() if len(byte) else one.favourites[n], layer, n)
           for layer, (one, routing) in enumerate(zip(likings, routings)) for n in routing.expert_ids[token].tolist()]
    return list(max(own, key=lambda entry: entry[0])[1:])


def draw_contexts(census: Census, seed: int) -> list[list[list[list[str]]]]:
    """For each layer and expert some of its calls, one each of documents drawn at random: [domain, before, byte, after] …"""
    generator = torch.Generator().manual_seed(seed)
    raw, document = bytes(census.byte_T.tolist()), census.document_T
    found = []
    for ids_TK, size in zip(census.expert_ids, census.sizes):
        callers = ids_TK.flatten().argsort(stable=True) // ids_TK.shape[1]  # expert by expert, in the documents' order
        calls = callers.split(torch.bincount(ids_TK.flatten(), minlength=size).tolist())
        found.append([[context(census, raw, t) for t in one_each(calls_n, document[calls_n], generator)] for calls_n in calls])
    return found


def one_each(calls: torch.Tensor, document: torch.Tensor, generator: torch.Generator) -> list[int]:
    """A random call of each of some random documents, in the documents' order."""
    documents = document.unique()
    drawn = documents[torch.randperm(len(documents), generator=generator)[:CONTEXTS]].sort().values
    groups = [calls[document == r] for r in drawn]
    return [int(group[torch.randint(len(group), (1,), generator=generator)]) for group in groups]


def context(census: Census, raw: bytes, t: int) -> list[str]:
    """A token of a census and what stands around it in its document, as something to look at."""
    same = (census.document_T[max(t - BEFORE, 0):t + AFTER + 1] == census.document_T[t]).tolist()
    first = max(t - BEFORE, 0) + same.index(True)
    around = (raw[first:t], raw[t + 1:first + sum(same)])
    before, after = ("".join(" " if sign == " " else visible(sign) for sign in part.decode("utf-8", "replace"))
                     for part in around)
    return [well_formed(census.domains[census.domain_F[census.document_T[t]]]), before, NAMES[raw[t]], after]




BAR, NULL, INK, MONO = "#5b82b8", "#d9660a", "#16191d", ["monospace", "sans-serif"]
