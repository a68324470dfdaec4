"""A census of routing: which token of which document went to which experts, and what the calls of an expert tell of the tokens.

Tokens of one document are alike, so documents are the independent things here: every interval resamples whole documents,
and one of the nulls deals the domains out to whole documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.errors import require, whole_number
from ..base.text import DOCUMENT_START, to_bytes
from ..base.tokens import VOCABULARY, encode, size_of
from ..lm.corpora import Corpus
from ..lm.model import LanguageModel, evaluating, listening
from ..moe.balance import update_bias
from ..moe.layers import SCORES, gate, mixtures
from ..moe.routing import entropy, expert_load, routed
from .evidence import Interval
from .nulls import hash_routing, random_router

LABELS = ("domain", "token", "predicted")


@dataclass(frozen=True, eq=False)
class Census:
    """Who was sent where, token by token.

    Args:
        domains: their names.
        domain_F: [F] which domain each document is of.
        document_T: [T] which document each token is in.
        token_T: [T] the token itself.
        predicted_T: [T] the token that the model thinks most likely to come next.
        expert_ids: for each MoE layer the experts that each token chose, [T, K].
        sizes: for each MoE layer N.
        vocabulary: V.
    """

    domains: tuple[str, ...]
    domain_F: Tensor
    document_T: Tensor
    token_T: Tensor
    predicted_T: Tensor
    expert_ids: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    vocabulary: int = VOCABULARY

    def labels(self, what: str) -> Tensor:
        """[T] one label per token: its "domain", the "token" itself, or the token "predicted" after it."""
        require(what in LABELS, f"unknown label {what!r}; choose one of {', '.join(LABELS)}")
        return {"domain": self.domain_F[self.document_T], "token": self.token_T, "predicted": self.predicted_T}[what]

    def calls(self, layer: int, what: str = "domain") -> Tensor:
        """How many calls each expert of a layer gets from each label's tokens, document by document: [F, N, M]."""
        ids_TK, n, m = self.expert_ids[layer], self.sizes[layer], len(self.domains) if what == "domain" else self.vocabulary
        place_TK = (self.document_T[:, None] * n + ids_TK) * m + self.labels(what)[:, None]
        return torch.bincount(place_TK.flatten(), minlength=len(self.domain_F) * n * m).view(-1, n, m).double()

    def pairs(self, layer: int) -> Tensor:
        """How often two experts of a layer are chosen by one token, document by document, all pairs: [F, N, N], diagonal 0."""
        ids_TK, n = self.expert_ids[layer], self.sizes[layer]
        k = ids_TK.shape[1]
        first, second = (~torch.eye(k, dtype=torch.bool, device=ids_TK.device)).nonzero(as_tuple=True)
        place = (self.document_T[:, None] * n + ids_TK[:, first]) * n + ids_TK[:, second]
        return torch.bincount(place.flatten(), minlength=len(self.domain_F) * n * n).view(-1, n, n).double()

    def pooled(self, calls_FNM: Tensor, times_F: Tensor | None = None) -> Tensor:
        """The documents' calls as one table whose sum is 1, [N, M]: every domain weighs the same, however much of it was read.

        Args:
            calls_FNM: see `calls` and `pairs`.
            times_F: how often each document counts; once unless given.
        """
        times_F = torch.ones_like(self.domain_F, dtype=torch.float64) if times_F is None else times_F
        calls_M = times_F.new_zeros(len(self.domains), dtype=torch.float64)
        calls_M.index_add_(0, self.domain_F, times_F * calls_FNM.sum(dim=(1, 2)))
        return torch.einsum("f,fnm->nm", times_F / calls_M[self.domain_F] / len(self.domains), calls_FNM)

    def shuffled(self, seed: int = 0) -> Census:
        """A null: the same choices, dealt out to the tokens at random. Every expert keeps its load."""
        order_T = torch.randperm(len(self.token_T), generator=torch.Generator().manual_seed(seed), device="cpu")
        return replace(self, expert_ids=tuple(ids_TK[order_T] for ids_TK in self.expert_ids))

    def shuffled_places(self, seed: int = 0) -> Census:
        """A null: the same choices, dealt out at random among all places of the same token. An expert is called by the same
        tokens as before; what depended on where they stood is gone."""
        order_T = torch.randperm(len(self.token_T), generator=torch.Generator().manual_seed(seed), device="cpu")
        order_T = order_T[self.token_T[order_T].argsort(stable=True)]  # by token, those of one token at random
        from_T = torch.empty_like(order_T).scatter(0, self.token_T.argsort(stable=True), order_T)
        return replace(self, expert_ids=tuple(ids_TK[from_T] for ids_TK in self.expert_ids))

    def shuffled_documents(self, seed: int = 0) -> Census:
        """A null of all that is said about domains: their names are dealt out to whole documents at random."""
        return replace(self, domain_F=dealt_to_documents(self.domain_F, torch.arange(len(self.domain_F), device="cpu"), seed))


def dealt_to_documents(label_T: Tensor, document_T: Tensor, seed: int = 0) -> Tensor:
    """The labels dealt out to whole documents at random: tokens of one document keep one label in common.

    Args:
        label_T: [T], the same for all tokens of a document.
        document_T: [T] which document each token is in.
        seed: of the deal.

    Returns: [T]; as many documents have each label as before.
    """
    documents, place_T = document_T.unique(return_inverse=True)
    label_F = label_T.new_empty(len(documents)).scatter(0, place_T, label_T)
    return label_F[torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed), device="cpu")][place_T]


def windows(corpus: Corpus, split: str, context: int, limit: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """The beginnings of all documents of a split.

    Args:
        corpus, split: whose documents are read.
        context: S, tokens of a window.
        limit: how many tokens of each document.
        vocabulary: V, the tokens' number.

    Returns: ids [B, context + 1], zeros after the end of a document; which of the [B, context] inputs are real; and which
        document of the split each window is of, [B].

    Raises:
        ValueError: if the split has no document.
    """
    whole_number("limit", limit)
    rows, known, document = [], [], []
    for r, one in enumerate(d for d in corpus.documents if d.split == split):
        raw = torch.tensor(encode(DOCUMENT_START + to_bytes(one.text), vocabulary)[:limit + 1], device="cpu")
        for start in range(0, len(raw) - 1, context):
            window = raw[start:start + context + 1]
            rows.append(F.pad(window, (0, context + 1 - len(window))))
            known.append(torch.arange(context, device="cpu") < len(window) - 1)
            document.append(r)
    require(bool(rows), f"this corpus has no document in the {split} split; read it with splits=(…, {split!r})")
    return torch.stack(rows), torch.stack(known), torch.tensor(document, device="cpu")


@torch.no_grad()
def take_census(model: LanguageModel, corpus: Corpus, split: str = "test", limit: int = 2048, seed: int = 0,
                batch: int = 32, nulls: bool = True) -> dict[str, Census]:
    """Where the tokens of a split go, beside three nulls that see the same hidden states or the same tokens.

    Args:
        model: with at least one MoE layer.
        corpus: whose documents of `split` are read.
        split: "train", "validation" or "test".
        limit: how many tokens of each document, at least 1.
        seed: of the nulls.
        batch: how many sequences the model reads at once.
        nulls: take them, too; balancing one takes most of the time.

    Returns: "trained", what the model's routers choose; "random router", what random weights would choose (`random_router`);
        "balanced random router", the same with a bias that evens the load of its experts; "hash router", what a hash of the
        token alone would choose (`hash_routing`).

    Raises:
        ValueError: if the model has no MoE layer, there is no document, or none of its tokens is to be read.
    """
    routers = [layer.router for layer in mixtures(model, "no token is sent anywhere")]
    ids, known, document = windows(corpus, split, model.config.context, limit, model.config.vocabulary)
    trained: list[list[Tensor]] = [[] for _ in routers]
    scores: list[list[Tensor]] = [[] for _ in routers]
    predicted: list[Tensor] = []
    random = [random_router(router, seed + i) for i, router in enumerate(routers)]
    with evaluating(model), listening(routers) as seen:
        for ids_BS, known_BS in zip(ids.split(batch), known.split(batch)):
            real_T = known_BS.flatten()
            logits, routings = model(ids_BS[:, :-1])
            predicted.append(logits.argmax(dim=-1).flatten()[real_T].cpu())
            for i, (routing, x) in enumerate(zip(routed(routings), seen)):
                trained[i].append(routing.expert_ids[real_T].cpu())
                scores[i].append(SCORES[random[i].score](gate(x[real_T], random[i].weight)).cpu())
            seen.clear()
    token_T, scored = ids[:, :-1][known], list(zip(map(torch.cat, scores), random))
    chosen = {"trained": [torch.cat(parts) for parts in trained]}
    if nulls:
        chosen["random router"] = [s.topk(r.top_k).indices for s, r in scored]
        chosen["balanced random router"] = [(s + evening_bias(s, r.top_k)).topk(r.top_k).indices for s, r in scored]
        chosen["hash router"] = [hash_routing(router, token_T, seed=seed + i).expert_ids for i, router in enumerate(routers)]
    domains, documents = corpus.domains, [d for d in corpus.documents if d.split == split]
    counted = Census(domains, torch.tensor([domains.index(d.domain) for d in documents], device="cpu"),
                     document[:, None].expand_as(known)[known], token_T, torch.cat(predicted), (),
                     tuple(router.weight.shape[1] for router in routers), model.config.vocabulary)
    return {name: replace(counted, expert_ids=tuple(found)) for name, found in chosen.items()}


def evening_bias(scores_TN: Tensor, top_k: int) -> Tensor:
    """A bias [N] that evens the load of a router whose scores are added to it, found by DeepSeek-V3's rule (`update_bias`).

    Args:
        scores_TN: the router's scores of many tokens, of which at most 20,000 are looked at.
        top_k: K.
    """
    few_TN = scores_TN[::-(-len(scores_TN) // 20_000)]
    bias_N = scores_TN.new_zeros(scores_TN.shape[1])
    for step in range(200):  # each time it moves by a little less
        load_N = expert_load((few_TN + bias_N).topk(top_k).indices, len(bias_N))
        bias_N = update_bias(bias_N, load_N, rate=0.1 * few_TN.std().item() * 0.97 ** step)
    return bias_N


@torch.no_grad()
def document_losses(model: LanguageModel, corpus: Corpus, split: str = "test", limit: int = 512, batch: int = 32) -> Tensor:
    """The mean loss of each document's beginning in nats per byte: [F], in the order of a census of the same split."""
    ids, known, document = windows(corpus, split, model.config.context, limit, model.config.vocabulary)
    losses = []
    with evaluating(model) as device:
        for ids_BS in ids.to(device).split(batch):
            logits = model(ids_BS[:, :-1])[0]
            losses.append(F.cross_entropy(logits.flatten(0, 1).float(), ids_BS[:, 1:].flatten(), reduction="none").cpu())
    loss_BS = torch.cat(losses).view(known.shape).double() * known
    size = int(document.max()) + 1
    bytes_BS = size_of(ids[:, 1:]) * known
    total_F, bytes_F = (torch.zeros(size, dtype=torch.float64, device="cpu").index_add(0, document, part.double().sum(dim=1))
                        for part in (loss_BS, bytes_BS))
    return total_F / bytes_F


# ------------------------------------------------------------------------------------------------- instruments and intervals


def information(calls_NM: Tensor) -> float:
    """What one call of an expert tells about the token's label: I(expert; label) / H(label).

    0 if every expert is called by every label alike, 1 if each expert is called by one label alone.

    Args:
        calls_NM: [N, M], not negative.

    Raises:
        ValueError: if all tokens have one label: there is nothing to be told.
    """
    share_NM = calls_NM / calls_NM.sum()
    of_label, of_expert, of_both = (entropy(share) for share in (share_NM.sum(dim=0), share_NM.sum(dim=1), share_NM))
    require(of_label > 0, "all tokens have the same label, so there is nothing to be told about it")
    return (of_label + of_expert - of_both) / of_label


def lift(calls_NM: Tensor) -> Tensor:
    """How much more often an expert is called by tokens of a label than by tokens of the average label: [N, M], 1 is alike.

    Args:
        calls_NM: [N, M], not negative; how many tokens a label has does not matter.
    """
    share_NM = calls_NM / calls_NM.sum(dim=0).clamp(min=1e-12)
    return share_NM / share_NM.mean(dim=1, keepdim=True).clamp(min=1e-12)


def bootstrap(statistic: Callable[[Tensor], float], census: Census, draws: int = 200, seed: int = 0) -> Interval:
    """A number of a census with its 95% interval over documents.

    The documents of each domain are drawn again, with replacement. The interval is the basic one, 2·value - quantiles: what
    an instrument gains by seeing a document twice, it would otherwise seem to have earned.

    Args:
        statistic: how often each document counts [F] -> a number; give a difference to compare two routers on the same draws.
        census: whose documents are drawn.
        draws: how often.
        seed: of the draws.

    Raises:
        ValueError: if a domain has no document.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = [(census.domain_F == d).nonzero()[:, 0] for d in range(len(census.domains))]
    empty = [name for name, group in zip(census.domains, groups) if not len(group)]
    require(not empty, f"there is no document of {', '.join(empty)} to draw from: take a split that has some of every domain")
    found = []
    for _ in range(draws):
        drawn = torch.cat([group[torch.randint(len(group), group.shape, generator=generator, device="cpu")] for group in groups])
        found.append(statistic(torch.bincount(drawn, minlength=len(census.domain_F)).double()))
    value = statistic(torch.ones_like(census.domain_F, dtype=torch.float64))
    low, high = (torch.tensor(found, dtype=torch.float64, device="cpu").quantile(q).item() for q in (0.025, 0.975))
    return Interval(value, 2 * value - high, 2 * value - low, len(census.domain_F))


def information_about(census: Census, layer: int, draws: int = 200) -> Interval:
    """What a call of one layer's experts tells about the domain, see `information`, with its interval over documents."""
    calls_FNM = census.calls(layer)
    return bootstrap(lambda times_F: information(census.pooled(calls_FNM, times_F)), census, draws)


def saturation(snapshots: dict[int, list[Tensor]], layer: int) -> dict[int, Tensor]:
    """How much of a token's final choice was already made at each step of a training (OLMoE, arXiv 2409.02060, section 5.1).

    Args:
        snapshots: step -> for each layer the expert ids [T, K], see `checkpoints.shipped_snapshots`.
        layer: which MoE layer, from 0.

    Returns: step -> [T] the share of the token's K final experts that it had chosen at that step; by chance it is K/N.
    """
    last_TK = snapshots[max(snapshots)][layer]
    return {step: (layers[layer][:, :, None] == last_TK[:, None, :]).any(dim=1).double().mean(dim=1)
            for step, layers in snapshots.items()}


# ------------------------------------------------------------------------------------------------------- whom to take away


def specialists(calls_NM: Tensor, label: int, count: int) -> list[int]:
    """The experts with the highest `lift` for a label, among those that have at least a quarter of the mean load.

    Raises:
        ValueError: if fewer experts than `count` have a load.
    """
    load_N = calls_NM.sum(dim=1)
    rank_N = lift(calls_NM)[:, label].masked_fill(load_N < load_N.mean() / 4, -torch.inf)
    require(count <= int((rank_N > -torch.inf).sum()), f"{count} specialists were asked for; too few experts have a load")
    return rank_N.topk(count).indices.tolist()


def of_same_load(calls_NM: Tensor, experts: list[int], draws: int, seed: int = 0) -> list[list[int]]:
    """The control of `specialists`: different sets of as many of the other experts, whose load is nearest to theirs.

    Args:
        calls_NM: [N, M].
        experts: the specialists.
        draws: how many sets.
        seed: of the random sets among which the nearest are found.

    Raises:
        ValueError: if the other experts are too few for so many sets.
    """
    load_N = calls_NM.sum(dim=1)
    others = torch.tensor([i for i in range(len(load_N)) if i not in experts], device="cpu")
    require(math.comb(len(others), len(experts)) >= draws,
            f"{len(others)} other experts have no {draws} different sets of {len(experts)}; ask for fewer")
    generator = torch.Generator().manual_seed(seed)
    drawn = [others[torch.randperm(len(others), generator=generator, device="cpu")[:len(experts)]].sort().values
             for _ in range(200 * draws)]
    sets = torch.unique(torch.stack(drawn), dim=0)
    off = (load_N[sets].sum(dim=1) - load_N[experts].sum()).abs()
    return sets[off.argsort()[:draws]].tolist()
