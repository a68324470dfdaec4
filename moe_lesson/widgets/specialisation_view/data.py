"""The specialisation view: how many experts look like specialists of a domain in a sample, beside shuffled labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
import traitlets
from torch import Tensor
from traitlets import Int, List, Unicode

from ...base.errors import require, whole_number
from ...measure.census import Census, lift
from ..kit.base import LessonWidget, one_of, within
from ..kit.gates import count

NULLS = ("tokens shuffled", "documents shuffled")
PER_DOMAIN = 16  # tokens of each domain in the smallest sample
MOST_TOKENS = 16384  # in the largest sample
DRAWS = 99  # of each null: the largest 5 of 100, the sample among them, make 5% by chance exactly
RANK = 95  # of the 99: a sample stands above it by chance in 5 of 100 cases
SPECIALIST = 1.5  # a lift to call an expert a specialist
SLACK = 1e-9  # lifts are ratios of small numbers, and often exactly 1.5: rounding must not decide
MOST_DOMAINS = 8  # hues
MOST_ROUTERS = 4


class SpecialisationView(LessonWidget):
    """See how many experts look like specialists of a domain in a sample of tokens, and how many would by chance.

    Made by `SpecialisationView.of_census`. Traits to read, set and observe: `sample` (tokens, one of `samples`), `router` (one of
    `routers`), `layer` (0 … L-1), `null` ("tokens shuffled" or "documents shuffled"), `locked_expert` (or None).
    """

    name = Unicode().tag(sync=True)
    seed = Int().tag(sync=True)
    draws = Int(DRAWS).tag(sync=True)
    routers = List(Unicode()).tag(sync=True)  # the first is the model's own, the others are nulls
    domains = List(Unicode()).tag(sync=True)
    samples = List(Int()).tag(sync=True)
    sizes = List(Int()).tag(sync=True)  # N of each layer
    measured = List().tag(sync=True)  # for each sample, of the layers of one router after the other: see `layer_of`

    sample = Int().tag(sync=True)
    router = Unicode().tag(sync=True)
    layer = Int(0).tag(sync=True)
    null = Unicode(NULLS[0]).tag(sync=True)
    locked_expert = Int(None, allow_none=True).tag(sync=True)

    @classmethod
    def of_census(cls, censuses: Mapping[str, Census], *, name: str = "model", origin: str = "trained", seed: int = 0,
                  title: str = "specialists, or a small sample?") -> SpecialisationView:
        """Samples of a census, beside two nulls of its labels, and beside other routers that saw the same tokens.

        Args:
            censuses: as `take_census` returns them; the first is the model's own, the others are shown as nulls.
            name: of the model.
            origin: "trained", "toy" or "synthetic".
            seed: of the samples and of the draws, a whole number.

        Raises:
            ValueError: if there are other than 2 … 8 domains, too few tokens, or the censuses are not of the same tokens.
        """
        seed = whole_number("seed", seed, least=0)
        first = check_censuses(censuses)
        samples = sample_sizes(first)
        start = {"sample": samples[0], "router": next(iter(censuses)), "layer": 0, "null": NULLS[0], "locked_expert": None}
        return cls(title=title, name=name, origin=origin, seed=seed, routers=list(censuses), domains=list(first.domains),
                   samples=samples, sizes=list(first.sizes), measured=measure(censuses, samples, seed), start=start)

    @traitlets.validate("layer", "locked_expert")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, len(self.sizes) - 1), "locked_expert": (0, self.sizes[self.layer] - 1)})

    @traitlets.validate("sample", "router", "null")
    def _known(self, proposal):
        return one_of(proposal, {"sample": self.samples, "router": self.routers, "null": NULLS})

    @traitlets.observe("layer", "router")
    def _let_go(self, _):
        self.locked_expert = None  # its number means another expert now


def check_censuses(censuses: Mapping[str, Census]) -> Census:
    """Refuse what is not censuses of the same tokens with something to sample; the first one."""
    require(isinstance(censuses, Mapping) and len(censuses) > 0,
            f"censuses is {type(censuses).__name__} or empty; expected name -> Census, as take_census(model, corpus) returns")
    require(len(censuses) <= MOST_ROUTERS, f"there are {len(censuses)} routers; the view shows at most {MOST_ROUTERS}")
    for name, census in censuses.items():
        require(isinstance(census, Census), f"censuses[{name!r}] is {type(census).__name__}; expected a Census")
    first = next(iter(censuses.values()))
    for name, census in censuses.items():
        require(census.sizes == first.sizes and census.domains == first.domains
                and torch.equal(census.document_T, first.document_T) and torch.equal(census.domain_F, first.domain_F),
                f"the census {name!r} is of other documents or layers than the first; take all with one model and one corpus")
    require(2 <= len(first.domains) <= MOST_DOMAINS,
            f"there are {len(first.domains)} domains; a lift needs at least 2, and the view shows at most {MOST_DOMAINS}")
    for domain, tokens in zip(first.domains, tokens_of(first).tolist()):
        require(tokens >= PER_DOMAIN, f"the domain {domain!r} has {count(tokens, 'token')}; the smallest sample takes "
                                      f"{PER_DOMAIN} of each domain, so read more of it or leave it out")
    return first


# --- measuring --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(censuses: Mapping[str, Census], samples: list[int], seed: int) -> list[list[dict]]:
    """The trait `measured`. A larger sample holds the smaller ones; all routers see the same tokens and draws."""
    first = next(iter(censuses.values()))
    m, documents = len(first.domains), len(first.domain_F)
    generator = torch.Generator().manual_seed(seed)
    drawn_T = draw_tokens(first, samples[-1], generator)
    label_T, document_T = first.labels("domain")[drawn_T], first.document_T[drawn_T]
    dealt_ZF = first.domain_F[shuffles(documents, generator)]
    chosen_TN = torch.cat([F.one_hot(ids_TK[drawn_T], n).sum(dim=1).float() for census in censuses.values()
                           for ids_TK, n in zip(census.expert_ids, first.sizes)], dim=1)
    layers = list(first.sizes) * len(censuses)
    found = []
    for size in samples:
        chosen_FN = torch.zeros(documents, sum(layers)).index_add_(0, document_T[:size], chosen_TN[:size])
        calls_ZNM = (count_calls(chosen_TN[:size], label_T[None, :size], m),
                     count_calls(chosen_TN[:size], label_T[:size][shuffles(size, generator)], m),
                     count_calls(chosen_FN, dealt_ZF, m))
        found.append([layer_of(*parts) for parts in zip(*(each.split(layers, dim=1) for each in calls_ZNM))])
    return found


def sample_sizes(census: Census) -> list[int]:
    """Doubling: as many tokens of every domain."""
    fewest, m = int(tokens_of(census).min()), len(census.domains)
    return [m * each for each in (PER_DOMAIN << i for i in range(30)) if each <= fewest and m * each <= MOST_TOKENS]


def tokens_of(census: Census) -> Tensor:
    """How many tokens each domain has."""
    return torch.bincount(census.labels("domain"), minlength=len(census.domains))


def draw_tokens(census: Census, size: int, generator: torch.Generator) -> Tensor:
    """Tokens at random, of one domain after the other in turn: any first few have as many of every domain."""
    label_T = census.labels("domain")
    pools = [(label_T == d).nonzero()[:, 0] for d in range(len(census.domains))]
    each = size // len(pools)
    return torch.stack([pool[torch.randperm(len(pool), generator=generator)[:each]] for pool in pools], dim=1).flatten()


def shuffles(size: int, generator: torch.Generator) -> Tensor:
    """Orders of that many things at random, [Z, size]."""
    return torch.rand(DRAWS, size, generator=generator).argsort(dim=1)


def count_calls(chosen_TN: Tensor, label_ZT: Tensor, m: int) -> Tensor:
    """The calls of each expert by label, for several ways to label what calls: [Z, N, M]. One product of 0s and 1s is fast."""
    labelled_TZM = torch.zeros(*label_ZT.T.shape, m).scatter_(2, label_ZT.T[:, :, None], 1.0)
    calls_NZ = chosen_TN.T @ labelled_TZM.flatten(1)  # float32 counts exactly up to 16 million
    return calls_NZ.unflatten(1, (-1, m)).transpose(0, 1).double()


def layer_of(calls_ZNM: Tensor, *nulls_ZNM: Tensor) -> dict:
    """What the browser gets of a layer: "calls" [N][M], how many calls of each domain's tokens each expert gets; and of each null
    the "band", the 95% quantile of each expert's strongest lift, and medians over the draws: the "mean" strongest lift, and the
    "count" of experts with a lift of 1.5.
    """
    def null_of(drawn_ZNM: Tensor) -> dict:
        strongest_ZN = torch.vmap(lift)(drawn_ZNM).amax(dim=2)
        means_Z = strongest_ZN.sum(dim=1) / (strongest_ZN > 0).sum(dim=1)  # without a call a lift is 0
        return {"band": strongest_ZN.kthvalue(RANK, dim=0).values.tolist(), "mean": means_Z.median().item(),
                "count": (strongest_ZN >= SPECIALIST - SLACK).sum(dim=1).median().item()}

    return {"calls": calls_ZNM[0].int().tolist(), "nulls": [null_of(drawn_ZNM) for drawn_ZNM in nulls_ZNM]}
