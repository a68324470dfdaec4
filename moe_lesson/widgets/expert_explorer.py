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

from ..base.errors import require
from ..base.text import byte_texts, to_bytes
from ..lm.corpora import Corpus
from ..lm.machine_text import machine_corpus
from ..lm.model import LanguageModel
from ..measure.census import Census, lift, take_census
from ..moe.layers import moe_layers
from ..moe.routing import Routing
from ..teach.plots import drawable, png
from .base import LessonWidget, dress_table, module_source, stylesheet, within
from .common import check_origin, count, fixed, listed, percent, visible, well_formed

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

    _esm = module_source("expert_explorer")
    _css = stylesheet("expert_explorer")

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

    @property
    def chosen(self) -> ndarray:
        """[L, T, K] the experts of each token of the text."""
        return np.frombuffer(self.experts, np.int32).reshape(len(self.sizes), len(self.tokens), self.top_k)

    @property
    def shown_weights(self) -> ndarray:
        """[L, T, K] their weights."""
        return np.frombuffer(self.weights, np.float64).reshape(self.chosen.shape)

    @property
    def selected(self) -> int | None:
        """The token that is followed, or None if the text is empty."""
        return min(self.token, len(self.tokens) - 1) if self.tokens else None

    @property
    def summary(self) -> str:
        """What the widget says, in words."""
        return summary(self)

    def describe(self) -> str:
        sizes = "/".join(str(size) for size in dict.fromkeys(self.sizes))
        return (f"{self.name!r}, {self.origin}: {count(len(self.sizes), 'layer')}, {self.top_k} of {sizes} experts, "
                f"{count(len(self.tokens), 'token')}")

    def picture(self) -> bytes:
        return png(draw_explorer(self))

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


# --- words: the twins of those in expert_explorer.js ------------------------------------------------------------------

COLUMNS = ("byte", "lift (√ spacing): 1 is as often as the average token", "", "random's best", "tokens", "choose it")
DOMAIN_COLUMNS = ("domain", "lift", "random's best")


def label(layer: int, expert: int) -> str:
    """The name of an expert, always with its layer."""
    return f"{layer + 1}·{expert}"


def times(value: float) -> str:
    return f"× {fixed(value, 1)}"


def best(lifts: ndarray, most: int) -> list[int]:
    """The places of the largest lifts, the largest first; 1 and less is no liking. A tie goes to the lower place."""
    return [int(i) for i in np.argsort(-lifts, kind="stable")[:most] if lifts[i] > 1]


def likings_of(view: ExpertExplorer) -> tuple[Likings, Likings]:
    """The likings of the layer of the expert that is followed: trained, and of the random router."""
    return view._trained[view.expert[0]], view._null[view.expert[0]]


def byte_rows(view: ExpertExplorer) -> list[list[str]]:
    """The bytes that the expert likes best: name, lift, the random router's best, its tokens, and how many choose the expert."""
    own, null = likings_of(view)
    n, rows = view.expert[1], []
    for b in best(own.lifts[n], BEST):
        byte = view.counted[b]
        tokens = view.byte_tokens[byte]
        rows.append([NAMES[byte], times(own.lifts[n, b]), times(null.lifts[:, b].max()), f"{tokens:,}",
                     percent(own.calls[n, b] / tokens)])
    return rows


def domain_rows(view: ExpertExplorer) -> list[list[str]]:
    """Each domain's lift, and the best of the random router's experts."""
    own, null = likings_of(view)
    return [[domain, f"× {fixed(own.domains[view.expert[1], m], 2)}", f"× {fixed(null.domains[:, m].max(), 2)}"]
            for m, domain in enumerate(view.domains)]


def byte_asked(view: ExpertExplorer) -> int | None:
    """The byte whose experts are named: the last of the search, else the token that is followed."""
    raw = to_bytes(view.search)
    if raw:
        return raw[-1]
    return None if view.selected is None else view.raw[view.selected]


def servers(view: ExpertExplorer, layer: int) -> list[tuple[int, float]]:
    """The experts of a layer that like the byte asked for best, with their lifts; none for a byte too rare to tell."""
    byte = byte_asked(view)
    if byte not in view.counted:
        return []
    liked = view._trained[layer].lifts[:, view.counted.index(byte)]
    return [(n, float(liked[n])) for n in best(liked, SERVERS)]


def server_words(view: ExpertExplorer, layer: int) -> str:
    """What stands beside the experts that serve a byte."""
    byte = byte_asked(view)
    if byte is None:
        return "No byte is asked for."
    tokens = f"Byte '{NAMES[byte]}', {count_grouped(view.byte_tokens[byte])} of the census"
    if byte not in view.counted:
        return f"{tokens}: too few to tell; {view.least} are needed."
    null = view._null[layer].lifts[:, view.counted.index(byte)].max()
    return f"{tokens}. Random router's best {times(null)}; liked most by"


def count_grouped(number: int) -> str:
    return f"{number:,} token{'' if number == 1 else 's'}"


def found_at(view: ExpertExplorer) -> list[int]:
    """Where the search begins in the text."""
    raw, wanted = bytes(view.raw), to_bytes(view.search)
    return [t for t in range(len(raw)) if wanted and raw.startswith(wanted, t)]


def followers(view: ExpertExplorer) -> list[int]:
    """The tokens of the text that chose the expert."""
    layer, n = view.expert
    return np.flatnonzero((view.chosen[layer] == n).any(axis=1)).tolist()


def load_words(view: ExpertExplorer) -> str:
    """How busy the expert is: if all tokens of a byte choose it, the lift is one over its share of all tokens."""
    layer, n = view.expert
    share = likings_of(view)[0].load[n] / view.census_size[0]
    most = f", so no lift can exceed {times(1 / share)}" if share else ""
    return f"{percent(share, 1)} of all tokens choose it (K/N is {percent(view.top_k / view.sizes[layer], 1)}){most}."


def null_words(view: ExpertExplorer) -> str:
    """How many random experts have a favourite as strong: one favourite in many is no discovery."""
    own, null = likings_of(view)
    favourite = own.favourites[view.expert[1]]
    as_strong = int((null.favourites >= favourite).sum())
    return (f"{as_strong} of the random router's {count(len(null.favourites), 'expert')} in this layer have a favourite as "
            f"strong ({times(favourite)}).")


def summary(view: ExpertExplorer) -> str:
    """What the explorer shows, in words."""
    parts = [token_words(view), expert_words(view), census_words(view), null_words(view), asked_words(view)]
    if view.search:
        parts.append(f"The search is found {count(len(found_at(view)), 'time')} in the text.")
    return " ".join(part for part in parts if part)


def token_words(view: ExpertExplorer) -> str:
    if view.selected is None:
        return "The text is empty: no token to follow." + (" Type some text." if view.has_input else "")
    layers = [listed([f"{label(layer, n)} ({fixed(weight, 2)})" for n, weight in zip(ids[view.selected], weights[view.selected])])
              for layer, (ids, weights) in enumerate(zip(view.chosen, view.shown_weights))]
    return f"Token {view.selected} '{view.tokens[view.selected]}' goes to {'; '.join(layers)}."


def expert_words(view: ExpertExplorer) -> str:
    layer, n = view.expert
    return (f"Expert {label(layer, n)}, number {n} of layer {layer + 1}, is chosen by {len(followers(view))} of "
            f"{count(len(view.tokens), 'token')} of the text.")


def census_words(view: ExpertExplorer) -> str:
    liked = [f"'{name}' {lifted} (random router's best {null})" for name, lifted, null, _, _ in byte_rows(view)[:3]]
    tokens, documents = view.census_size
    return (f"In a census of {count_grouped(tokens)} of {count(documents, 'document')}, {load_words(view)} "
            f"It likes best {', '.join(liked)}." if liked else f"In the census, {load_words(view)}")


def asked_words(view: ExpertExplorer) -> str:
    byte = byte_asked(view)
    if byte is None:
        return ""
    firsts = [f"{label(layer, n)} ({times(liked)})" for layer in range(len(view.sizes))
              for n, liked in servers(view, layer)[:1]]
    if byte not in view.counted:
        return f"Byte '{NAMES[byte]}' is too rare in the census to tell who likes it."
    return f"Byte '{NAMES[byte]}' is liked best by {', '.join(firsts) or 'nobody'}."


# --- the picture ------------------------------------------------------------------------------------------------------

BAR, NULL, INK, MONO = "#5b82b8", "#d9660a", "#16191d", ["monospace", "sans-serif"]
LINE = 80  # tokens in a line of the picture


def draw_explorer(view: ExpertExplorer):
    """The text with the expert's tokens underlined, the expert's best-liked bytes beside the null, its domains and contexts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.8), layout="constrained")
    lines = -(-max(len(view.tokens), 1) // LINE)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(0.95 + 0.25 * len(view.sizes) + 0.3 * lines, 3.2, 1.9))
    draw_text(top.subplots(), view, lines)
    draw_likings(middle.subplots(), view)
    domains, contexts = bottom.subplots(1, 2, width_ratios=(1, 1.35))
    draw_domains(domains, view)
    draw_context_lines(contexts, view)
    top.suptitle(f"{view.title} · {view.origin}: {view.name} · orange: random router, seed {view.seed}", parse_math=False)
    return figure


def draw_text(ax, view: ExpertExplorer, lines: int) -> None:
    """One letter for each token: a box around the token that is followed, a line under those of the expert."""
    from matplotlib.transforms import offset_copy

    mine, below = set(followers(view)), offset_copy(ax.transData, ax.figure.figure, y=-8, units="points")
    for t, token in enumerate(view.tokens):
        x, y = t % LINE, -(t // LINE)
        ax.text(x, y, drawable(token, 2), ha="center", va="center", fontsize=10.5, parse_math=False, in_layout=False,
                family=MONO, bbox={"fill": False, "pad": 1.5} if t == view.selected else None)
        if t in mine:
            ax.plot((x - 0.42, x + 0.42), (y, y), color=INK, linewidth=2.5, transform=below, in_layout=False, clip_on=False)
    chosen = [listed([label(layer, n) for n in ids[view.selected]]) if view.selected is not None else "none"
              for layer, ids in enumerate(view.chosen)]
    words = "\n".join(f"the boxed token chose in layer {layer + 1}, which has its own numbers: {ids}"
                      for layer, ids in enumerate(chosen))
    ax.set(xlim=(-1, LINE), ylim=(-lines + 0.4, 0.6))
    ax.set_axis_off()
    ax.set_title(f"{words}\nunderlined: tokens that chose expert {label(*view.expert)}", loc="left", fontsize=10.5)


def draw_likings(ax, view: ExpertExplorer) -> None:
    """The best-liked bytes as bars, the random router's best for the same byte as a line across."""
    own, null = likings_of(view)
    order = best(own.lifts[view.expert[1]], BEST)
    places = np.arange(len(order))
    ax.barh(places, np.sqrt(own.lifts[view.expert[1], order]), color=BAR, height=0.7)
    for colour, width in (("white", 5), (NULL, 2.5)):  # cut out of the bars
        ax.vlines(np.sqrt(null.lifts.max(axis=0)[order]), places - 0.42, places + 0.42, color=colour, linewidth=width)
    ax.axvline(1, color=INK, linewidth=1)
    ax.set_yticks(places, [f"'{name}'  {lifted};  {chosen} of {tokens}" for name, lifted, _, tokens, chosen in byte_rows(view)],
                  fontsize=10.5, parse_math=False)
    ticks = [tick for tick in (0, 1, 4, 9, 16, 25, 49, 100, 225, 400) if tick <= view.axis]
    ax.set_xticks(np.sqrt(ticks), [str(tick) for tick in ticks], fontsize=10)
    ax.set(xlim=(0, np.sqrt(view.axis)), ylim=(BEST - 0.4, -0.6))
    ax.set_xlabel("lift (√ spacing): 1 is as often as the average token; orange: the random router's best for the same byte")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(f"The bytes that expert {label(*view.expert)} likes best, and how many of them choose it.\n{null_words(view)}",
                 loc="left", fontsize=10.5)


def draw_context_lines(ax, view: ExpertExplorer) -> None:
    """The example contexts, the marked byte in a box."""
    layer, n = view.expert
    for row, (domain, before, byte, after) in enumerate(view.contexts[layer][n]):
        style = {"family": MONO, "fontsize": 10, "parse_math": False, "va": "center", "in_layout": False}
        ax.text(0, -row, drawable(domain, 12), **{**style, "family": "sans-serif"})
        ax.text(0.57, -row, drawable(before, BEFORE + 4), ha="right", **style)
        ax.text(0.61, -row, drawable(byte, 4), ha="center", fontweight="bold", bbox={"fill": False, "pad": 1}, **style)
        ax.text(0.65, -row, drawable(after, AFTER + 4), ha="left", **style)
    ax.set(xlim=(0, 1), ylim=(-CONTEXTS + 0.4, 0.6))
    ax.set_axis_off()
    ax.set_title("called for the boxed byte: a call each of documents drawn at random", loc="left", fontsize=10.5)


def draw_domains(ax, view: ExpertExplorer) -> None:
    ax.set_axis_off()
    ax.set_title(load_words(view).replace(", so", ",\nso"), loc="left", fontsize=10.5)
    table = ax.table(domain_rows(view), colLabels=DOMAIN_COLUMNS, bbox=(0, 0, 1, 1), edges="horizontal", cellLoc="right",
                     colLoc="right")
    dress_table(table)
