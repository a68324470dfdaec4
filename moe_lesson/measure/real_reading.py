"""A real model reads documents: who was sent where, and what kinds of tokens these were. For tokens of any kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..base.errors import require
from ..lm.corpora import Document
from ..lm.real import Block, block_inputs, expert_outputs, moe_blocks, rerouted, router_of, routings_of
from ..lm.real_models import RealModel
from ..moe.routing import Routing
from .instruments import co_routing, output_similarity
from .merging import Groups, Merging, answered_by, merging, random_similarity, stand_ins
from .nulls import random_router

KINDS = ("blank", "number", "capital", "small letter", "sign")
MARGIN = " \n\t\r␣⏎⇥▁Ġ"  # how tokenizers write the blank that a word brings along


def kind_of(token: str) -> str:
    """What a token looks like, whether it is a byte, a piece of a word or a word: one of `KINDS`, by its first sign after blanks.

    >>> kind_of(" The"), kind_of("e"), kind_of("42"), kind_of("␣"), kind_of("("), kind_of("中 1/3")
    ('capital', 'small letter', 'number', 'blank', 'sign', 'small letter')
    """
    core = token.strip(MARGIN)
    if not core:
        return "blank"
    if core[0].isdigit() and not core.startswith("0x"):
        return "number"
    return "sign" if not core[0].isalpha() else "capital" if core[0].isupper() else "small letter"


@dataclass(frozen=True, eq=False)
class Reading:
    """What the routers of a real model decided in some documents.

    Args:
        tokens: T of them, as text.
        domains: names of the documents' domains.
        domain_T: which of them each token is of.
        passage_T: which passage of text each token is in: neighbours in one passage were neighbours in the text.
        routings: the name of each mixture's module -> its `Routing` of the T tokens.
        random: the same of several random routers, one after the other, that saw the same hidden states.
    """

    tokens: tuple[str, ...]
    domains: tuple[str, ...]
    domain_T: Tensor
    passage_T: Tensor
    routings: dict[str, Routing]
    random: dict[str, list[Routing]]

    def labels(self, what: str) -> tuple[Tensor, tuple[str, ...]]:
        """A label of each token [T], and the labels' names: its "domain", its "kind" (`kind_of`), or the "token" itself."""
        require(what in ("domain", "kind", "token"), f"unknown label {what!r}; choose one of domain, kind, token")
        if what == "domain":
            return self.domain_T, self.domains
        named = [kind_of(token) for token in self.tokens] if what == "kind" else list(self.tokens)
        names = tuple(name for name in KINDS if name in named) if what == "kind" else tuple(dict.fromkeys(named))
        place = {name: i for i, name in enumerate(names)}
        return torch.tensor([place[name] for name in named], device="cpu"), names

    def calls(self, routing: Routing, what: str) -> Tensor:
        """How many of each label's tokens call each expert: [N, M]."""
        label_T, names = self.labels(what)
        place_TK = routing.expert_ids * len(names) + label_T[:, None]
        return torch.bincount(place_TK.flatten(), minlength=routing.num_experts * len(names)).view(-1, len(names)).double()

    def beside_random(self, measure: Callable[[Routing], float]) -> list[dict]:
        """A measure of a routing, for each mixture: of the trained router, the lowest and the highest of the random ones', and
        above how many of them the trained one stands."""
        rows = []
        for name, routing in self.routings.items():
            trained, random = measure(routing), sorted(map(measure, self.random[name]))
            rows.append({"mixture": name, "trained": trained, "random, lowest": random[0], "highest": random[-1],
                         "trained is above": f"{sum(trained > one for one in random)} of {len(random)}"})
        return rows


def read_documents(real: RealModel, documents: list[Document], characters: int = 200, passages: int = 3,
                   draws: int = 5) -> Reading:
    """Let a real model read the beginnings of some documents.

    Args:
        real: whose routers the course's `Router` can say (`router_of`), for the null.
        documents: of any domains.
        characters: of one passage, each read by itself.
        passages: of one document, at most.
        draws: how many random routers stand in the place of each router.

    Raises:
        ValueError: if there is no document, or `router_of` can't say a router.
    """
    require(len(documents) > 0, "there is no document to read; give at least one")
    domains, blocks = tuple(dict.fromkeys(d.domain for d in documents)), moe_blocks(real.model)
    nulls = {block.name: [random_router(router_of(block), draws * i + draw) for draw in range(draws)]
             for i, block in enumerate(blocks)}
    tokens: list[str] = []
    domain, passage = [], []
    heard: dict[str, list[Routing]] = {block.name: [] for block in blocks}
    random: dict[str, list[list[Routing]]] = {block.name: [[] for _ in range(draws)] for block in blocks}
    texts = [(d.domain, d.text[at:at + characters]) for d in documents
             for at in range(0, min(len(d.text), characters * passages), characters)]
    for i, (name, text) in enumerate(texts):
        ids_T, named = real.read(text)
        for block, routing in routings_of(real.model, ids_T).items():
            heard[block].append(routing)
        for block, x_TD in block_inputs(real.model, ids_T).items():
            for draw, router in zip(random[block], nulls[block]):
                draw.append(router(x_TD).detach())
        tokens += named
        domain += [domains.index(name)] * len(named)
        passage += [i] * len(named)
    return Reading(tuple(tokens), domains, torch.tensor(domain, device="cpu"), torch.tensor(passage, device="cpu"),
                   {name: joined(parts) for name, parts in heard.items()},
                   {name: [joined(parts) for parts in drawn] for name, drawn in random.items()})


def joined(routings: list[Routing]) -> Routing:
    """The routings of several texts as one."""
    logits_TN, ids_TK, weights_TK = (torch.cat([getattr(one, part) for one in routings])
                                     for part in ("logits", "expert_ids", "weights"))
    return Routing(logits_TN, ids_TK, weights_TK)


def repeated_first_choice(routing: Routing, passage_T: Tensor) -> tuple[float, float, float]:
    """How often a token's first expert is its predecessor's first, too (Mixtral, arXiv 2401.04088, section 5).

    Returns: the share of neighbours; what it would be if the tokens of each passage stood in any order; and if all tokens did,
        what the loads alone give, Σ p_n².
    """
    first_T, n = routing.expert_ids[:, 0], routing.num_experts
    same_passage = passage_T[1:] == passage_T[:-1]
    calls = torch.bincount(passage_T * n + first_T, minlength=n * (int(passage_T.max()) + 1)).view(-1, n).double()
    pairs = (calls * (calls - 1)).sum(dim=1) / calls.sum(dim=1).clamp(min=1)
    share_N = calls.sum(dim=0) / len(first_T)
    return ((first_T[1:] == first_T[:-1])[same_passage].double().mean().item(),
            (pairs.sum() / same_passage.sum()).item(), share_N.square().sum().item())


def mass(routing: Routing, label_T: Tensor, num_labels: int) -> Tensor:
    """What share of its routing weight each label gives to each expert: [M, N], rows sum to 1."""
    gates_TN = routing.gates.double()
    sums_MN = torch.zeros(num_labels, routing.num_experts, dtype=torch.float64, device="cpu").index_add(0, label_T, gates_TN)
    return sums_MN / sums_MN.sum(dim=1, keepdim=True)


def silenced(routing: Routing, expert: int) -> Routing:
    """The same choices, one expert's weights 0."""
    return routing.reweighted(routing.weights * (routing.expert_ids != expert))


def losses_without(real: RealModel, texts: list[str]) -> dict[str, Tensor]:
    """The loss of some texts with one expert silenced at a time: the name of each mixture's module -> [N], nats per token.

    A silenced expert answers nothing; the weights of the others stay as they are.
    """
    found, read = {}, [real.read(text)[0] for text in texts]
    for block in moe_blocks(real.model):
        losses = []
        for i in range(len(block.router.weight)):
            with rerouted(block, partial(silenced, expert=i)):
                losses.append(sum(map(real.loss_of, read)) / len(read))
        found[block.name] = torch.tensor(losses)
    return found


def real_mergings(real: RealModel, block: Block, texts: list[str], merges: int = 8,
                  draws: int = 3) -> tuple[dict[str, Merging], list[tuple[float, ...]]]:
    """What it costs a real model to merge its most alike experts: by outputs, by co-routing, and, as control, at random.

    The busiest expert of a group answers for all; the weights stay.

    Args:
        block: whose experts.
        texts: on which they are compared, and the loss is measured, in nats per token.
        merges: how many.
        draws: of the control.

    Returns: what `RedundancyLens` takes: "outputs" and "co-routing" -> `Merging`, and the losses of each draw.
    """
    read = [real.read(text)[0] for text in texts]
    routing = joined([routings_of(real.model, ids_T)[block.name] for ids_T in read])
    x_TD = torch.cat([block_inputs(real.model, ids_T)[block.name] for ids_T in read])
    load_N, n = routing.load, routing.num_experts

    def loss_of(groups: Groups) -> float:
        with rerouted(block, partial(answered_by, stand_in_N=stand_ins(groups, load_N))):
            return sum(map(real.loss_of, read)) / len(read)

    alike = {"outputs": output_similarity(expert_outputs(block, x_TD)), "co-routing": co_routing(routing)}
    return ({kind: merging(similarity, merges, loss_of) for kind, similarity in alike.items()},
            [merging(random_similarity(n, seed), merges, loss_of).losses for seed in range(draws)])
