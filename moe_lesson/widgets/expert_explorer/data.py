"""The expert explorer: from a token of your own text to its experts, from an expert to the tokens it is called for, and back.

A census of documents that the model never saw says what each expert is called for; the browser runs the model on a new text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from numpy import ndarray
from traitlets import Bytes, Float, Int, List, Unicode

from ...base.errors import require, whole_number
from ...base.text import visible, well_formed
from ...base.tokens import decode, encode, token_texts
from ...lm.corpora import Corpus
from ...lm.machine_text import machine_corpus
from ...lm.model import LanguageModel
from ...measure.census import Census, lift, take_census
from ...moe.layers import mixtures
from ...moe.routing import Routing, routed
from ..kit.base import ReadingWidget, within
from ..kit.gates import count, packed_choices

TEXT = "def route(x, k=2):  # which experts does a token choose?"
LEAST = 30  # times that a token must occur in the census: below, chance alone makes favourites
LIMIT = 1024  # tokens of each document
CONTEXTS, BEFORE, AFTER = 6, 14, 10  # calls shown of each expert, bytes around the marked token


class ExpertExplorer(ReadingWidget):
    """Follow a token of a text to its experts in every layer, and an expert to the tokens it is called for in a census.

    Args:
        routings: one `Routing` for each MoE layer, of the tokens of `text`, all with the same K.
        text: what stands in the text field.
        census: where the tokens of documents went, see `take_census`; with the experts and K of the routings.
        null: a census of the same documents by random routers.
        origin: where the routing comes from, shown on the widget's face: "trained", "toy" or "synthetic".
        name: of the model.
        max_tokens: the longest text, the model's context.
        seed: of the null, and of the documents that example contexts are drawn from.
        least: how often a token must occur in the census to count.

    Traits to read, set and observe: `token` (an index; past the end means the last), `expert` ([layer, id], both from 0),
    `search`; of an explorer made by `of_model` also `text`.

    Raises:
        ValueError: if the text is empty, or routings and censuses do not fit together.
    """

    name = Unicode().tag(sync=True)
    seed = Int().tag(sync=True)
    sizes = List(Int()).tag(sync=True)  # N of each layer
    top_k = Int().tag(sync=True)
    domains = List(Unicode()).tag(sync=True)
    names = List(Unicode()).tag(sync=True)  # of the V tokens
    occurs = List(Int()).tag(sync=True)  # how often each of them occurs in the census
    counted = List(Int()).tag(sync=True)  # the tokens that occur often enough
    load = List(List(Int())).tag(sync=True)  # for each layer and expert: how many tokens of the census call it
    lifts = Bytes().tag(sync=True)  # float32 [N, counted + M] of each layer one after the other, see `lifts_of`
    null_lifts = Bytes().tag(sync=True)  # float32 [L, counted + M]: the highest of any random expert
    null_favourites = List(List(Float())).tag(sync=True)  # for each layer and random expert: its highest lift of a token
    contexts = List().tag(sync=True)  # for each layer and expert [domain, before, token, after] …
    axis = Float().tag(sync=True)  # top of the lifts, over all experts, layers and the null
    token_ids = List(Int()).tag(sync=True)  # of the text at the start
    tokens = List(Unicode()).tag(sync=True)  # and their names
    expert_ids = Bytes().tag(sync=True)  # and their experts, int32 [L, T, K]
    expert_weights = Bytes().tag(sync=True)  # float64 [L, T, K]

    token = Int(0).tag(sync=True)
    expert = List(Int(), [0, 0]).tag(sync=True)
    search = Unicode().tag(sync=True, echo_update=False)

    def __init__(self, routings: Sequence[Routing], text: str, census: Census, null: Census, *, origin: str = "trained",
                 name: str = "model", title: str = "follow a token, follow an expert", max_tokens: int = 256, seed: int = 0,
                 least: int = LEAST):
        seed = whole_number("seed", seed, least=0)
        check_censuses(census, null)
        ids, vocabulary = encode(text, census.vocabulary), census.vocabulary
        require(0 < len(ids) <= max_tokens, f"the text has {count(len(ids), 'token')}; expected 1 … {max_tokens}")
        sizes, top_k = list(census.sizes), census.expert_ids[0].shape[1]
        check_routings(routings, len(ids), sizes, top_k)
        occurs = torch.bincount(census.token_T, minlength=vocabulary).numpy()
        counted = np.flatnonzero(occurs >= least)
        require(len(counted) > 0, f"no token occurs {least} times in this census; read more documents, or set least lower")
        lifts, nulls = ([lifts_of(one, layer, counted) for layer in range(len(sizes))] for one in (census, null))
        token, size = len(ids) // 2, len(counted)
        start = {"text": well_formed(text), "token": token, "search": "",
                 "expert": strongest([one[:, :size] for one in lifts], routings, token, np.flatnonzero(counted == ids[token]))}
        super().__init__(
            title=title, name=name, origin=origin, seed=seed, max_tokens=max_tokens, sizes=sizes, top_k=top_k,
            domains=list(map(well_formed, census.domains)), names=[token_texts([i])[0] for i in range(vocabulary)],
            occurs=occurs.tolist(), counted=counted.tolist(), token_ids=ids, tokens=token_texts(ids),
            load=[torch.bincount(own.flatten(), minlength=n).tolist() for own, n in zip(census.expert_ids, sizes)],
            lifts=b"".join(one.tobytes() for one in lifts), null_lifts=b"".join(one.max(axis=0).tobytes() for one in nulls),
            null_favourites=[one[:, :size].max(axis=1).tolist() for one in nulls], contexts=draw_contexts(census, seed),
            axis=float(np.ceil(max(one.max() for one in (*lifts, *nulls)))),
            **packed_choices(routings), start=start)

    @classmethod
    def of_model(cls, model: LanguageModel, text: str = TEXT, corpus: Corpus | None = None, *, name: str = "",
                 census: dict[str, Census] | None = None, seed: int = 0, **more) -> ExpertExplorer:
        """The explorer of a language model, for any text that the learner types.

        Args:
            model: with at least one MoE layer.
            text: what stands in the text field at first, at most the model's context long.
            corpus: whose test documents are read for the census; this machine's unless given.
            name: of the model; empty names its sizes.
            census: what `take_census` returned for this model, its nulls included, to save the reading.
            seed: of the random routers and of the example contexts; with a census, the seed it was taken with.
            more: as above.

        Raises:
            ValueError: if the model has no MoE layer, or the census is of another model or has no random router.
        """
        mixtures(model, "there is no expert to follow")
        routings = routed(model.route(text))
        if census is None:
            seed = whole_number("seed", seed, least=0)
            census = take_census(model, corpus or machine_corpus(splits=("test",)), limit=LIMIT, seed=seed)
        require("random router" in census, "the census has no random router to stand beside the model; take it with nulls=True")
        sizes = "/".join(str(routing.num_experts) for routing in routings)
        one = cls(routings, text, census["trained"], census["random router"], seed=seed, max_tokens=model.config.context,
                  name=name or f"{count(len(routings), 'MoE layer')} of {sizes} experts", **more)
        one.carry(model)
        return one

    @traitlets.validate("token")
    def _in_range(self, proposal):
        return within(proposal, {"token": (0, self.max_tokens - 1)})

    @traitlets.validate("expert")
    def _known(self, proposal):
        value = proposal["value"]
        if not (len(value) == 2 and 0 <= value[0] < len(self.sizes) and 0 <= value[1] < self.sizes[value[0]]):
            raise traitlets.TraitError(f"expert is {value}; expected [layer, id]: a layer from 0 to {len(self.sizes) - 1} and "
                                       f"one of its own experts, N = {self.sizes}")
        return value

    @traitlets.validate("search")
    def _clean(self, proposal):
        return well_formed(proposal["value"])


# --- validation -------------------------------------------------------------------------------------------------------


def check_routings(routings: Sequence[Routing], tokens: int, sizes: Sequence[int], top_k: int) -> None:
    """Refuse what is not the routing of a text's tokens through these layers."""
    require(len(routings) == len(sizes), f"there are {count(len(routings), 'routing')}; expected one for each MoE layer of the "
                                         f"census, {len(sizes)}")
    for layer, (routing, size) in enumerate(zip(routings, sizes)):
        found = routing.num_tokens, routing.top_k, routing.num_experts
        require(found == (tokens, top_k, size), f"routings[{layer}] has T, K, N = {found}; expected {(tokens, top_k, size)}: "
                                                "the tokens of the text, and the experts of the census")


def check_censuses(census: Census, null: Census) -> None:
    """Refuse censuses of different documents or layers, and layers of different K."""
    for name, one in (("census", census), ("null", null)):
        require(isinstance(one, Census), f"{name} is {type(one).__name__}; expected a Census, see take_census")
    require(len(census.sizes) > 0, "the census has no layer; take it of a model with an MoE layer")
    require(census.sizes == null.sizes and torch.equal(census.token_T, null.token_T),
            "census and null have other layers or other tokens; take both from one take_census(…)")
    shapes = {ids.shape[1] for one in (census, null) for ids in one.expert_ids}
    require(len(shapes) == 1, f"the layers have K = {sorted(shapes)}; show layers of different K in explorers of their own")


# --- what is computed once --------------------------------------------------------------------------------------------


def lifts_of(census: Census, layer: int, counted: ndarray) -> ndarray:
    """[N, counted + M] how many times as often an expert is called for a token as for the average one, then for a domain as for
    the average domain (`census.lift`)."""
    n, place_TK = census.sizes[layer], census.expert_ids[layer] * census.vocabulary + census.token_T[:, None]
    calls_NV = torch.bincount(place_TK.flatten(), minlength=n * census.vocabulary).view(n, -1).double()  # in all documents
    load_N1, all_V = calls_NV.sum(dim=1, keepdim=True), calls_NV.sum(dim=0)
    tokens = (calls_NV / all_V.clamp(min=1) / (load_N1 / all_V.sum()).clamp(min=1e-12))[:, counted]
    return torch.cat([tokens, lift(census.calls(layer).sum(dim=0))], dim=1).numpy().astype(np.float32)


def strongest(lifts: Sequence[ndarray], routings: Sequence[Routing], token: int, place: ndarray) -> list[int]:
    """[layer, id] of that expert of a text's token with the highest lift of it, given its place among the counted ones.

    If it is too rare to be counted, the expert with the highest lift of any. A tie goes to the first.
    """
    own = [(one[n, place].max() if len(place) else one[n].max(), layer, n)
           for layer, (one, routing) in enumerate(zip(lifts, routings)) for n in routing.expert_ids[token].tolist()]
    return list(max(own, key=lambda entry: entry[0])[1:])


def draw_contexts(census: Census, seed: int) -> list[list[list[list[str]]]]:
    """For each layer and expert some of its calls, one each of documents drawn at random: [domain, before, token, after] …"""
    generator = torch.Generator().manual_seed(seed)
    ids, document = census.token_T.tolist(), census.document_T
    found = []
    for ids_TK, size in zip(census.expert_ids, census.sizes):
        callers = ids_TK.flatten().argsort(stable=True) // ids_TK.shape[1]  # expert by expert, in the documents' order
        calls = callers.split(torch.bincount(ids_TK.flatten(), minlength=size).tolist())
        found.append([[context(census, ids, t) for t in one_each(calls_n, document[calls_n], generator)] for calls_n in calls])
    return found


def one_each(calls: torch.Tensor, document: torch.Tensor, generator: torch.Generator) -> list[int]:
    """A random call of each of some random documents, in the documents' order."""
    documents = document.unique()
    drawn = documents[torch.randperm(len(documents), generator=generator)[:CONTEXTS]].sort().values
    groups = [calls[document == r] for r in drawn]
    return [int(group[torch.randint(len(group), (1,), generator=generator)]) for group in groups]


def context(census: Census, ids: list[int], t: int) -> list[str]:
    """A token of a census and what stands around it in its document, as something to look at."""
    same = (census.document_T[max(t - BEFORE, 0):t + AFTER + 1] == census.document_T[t]).tolist()
    first = max(t - BEFORE, 0) + same.index(True)
    around = decode(ids[first:t])[-BEFORE:], decode(ids[t + 1:first + sum(same)])[:AFTER]
    before, after = ("".join(" " if sign == " " else visible(sign) for sign in part.decode("utf-8", "replace"))
                     for part in around)
    return [well_formed(census.domains[census.domain_F[census.document_T[t]]]), before, token_texts(ids[t:t + 1])[0], after]
