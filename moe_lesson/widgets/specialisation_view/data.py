"""The specialisation view: how many experts look like specialists of a domain in a sample, beside shuffled labels.

The functions under "words" are twins of those in specialisation_view.js.
Letters: C censuses, one per router; S sample sizes; L layers; N experts of a layer, E of all layers; M domains; T tokens;
F documents (files); P permutations, the draws of a null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from numpy import ndarray
from torch import Tensor
from traitlets import Bytes, Dict, Int, List, Unicode

from ...base.errors import require
from ...measure.census import Census, lift
from ..kit.base import LessonWidget, one_of, within
from ..kit.gates import check_origin, count

NULLS = {"tokens shuffled": "domains shuffled among the tokens",
         "documents shuffled": "domains dealt out to whole documents"}
BY_NUMBER, BY_LIFT = "by number", "strongest first"
ORDERS = (BY_NUMBER, BY_LIFT)
PER_DOMAIN = 16  # tokens of each domain in the smallest sample
MOST_TOKENS = 16384  # in the largest sample
DRAWS = 99  # of each null: the largest 5 of 100, the sample among them, make 5% by chance exactly
RANK = 95  # of the 99: a sample stands above it by chance in 5 of 100 cases
SPECIALIST = 1.5  # a lift to call an expert a specialist
SLACK = 1e-9  # lifts are ratios of small numbers, and often exactly 1.5: rounding must not decide
MOST_DOMAINS = 8  # hues and shapes
MOST_ROUTERS = 4


@dataclass(frozen=True, eq=False)
class Measured:
    """What the samples and their nulls give, computed once; see `measure`.

    Args:
        routers, domains, samples, sizes: names of C routers and M domains, S sample sizes in tokens, N of each layer.
        calls: how many calls of each domain's tokens each expert gets, [C, S, E, M].
        lifts: the `lift` of each expert for each domain, [C, S, E, M]; 0 without a call.
        bands: of each null, each expert's strongest lift: the 95% quantile and the median of the draws, [2, C, S, E, 2].
        shuffled: of each null, medians over the draws: how many experts of a layer have a lift of 1.5, and the mean over the
            experts of the strongest lift, [2, C, S, L, 2].
    """

    routers: tuple[str, ...]
    domains: tuple[str, ...]
    samples: tuple[int, ...]
    sizes: tuple[int, ...]
    calls: ndarray
    lifts: ndarray
    bands: ndarray
    shuffled: ndarray


# --- measuring --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(censuses: Mapping[str, Census], seed: int = 0) -> Measured:
    """Every sample's lifts and their nulls. A larger sample holds the smaller ones; all routers see the same tokens and draws.

    Args:
        censuses: name of the router -> its census; all of the same tokens.
        seed: of the samples and of the draws.
    """
    first = check_censuses(censuses)
    samples, m = sample_sizes(first), len(first.domains)
    generator = torch.Generator().manual_seed(seed)
    drawn_T = draw_tokens(first, samples[-1], generator)
    label_T, document_T = first.labels("domain")[drawn_T], first.document_T[drawn_T]
    dealt_PF = first.domain_F[shuffles(len(first.domain_F), generator)]
    chosen_TE = torch.cat([F.one_hot(ids_TK[drawn_T], n).sum(dim=1).float() for census in censuses.values()
                           for ids_TK, n in zip(census.expert_ids, first.sizes)], dim=1)
    layers = list(first.sizes) * len(censuses)
    found: dict[str, list] = {"calls": [], "lifts": [], "bands": [], "shuffled": []}
    for n in samples:
        chosen_FE = torch.zeros(len(first.domain_F), sum(layers)).index_add_(0, document_T[:n], chosen_TE[:n])
        calls_EM = count_calls(chosen_TE[:n], label_T[None, :n], m)[0]
        nulls = (count_calls(chosen_TE[:n], label_T[:n][shuffles(n, generator)], m), count_calls(chosen_FE, dealt_PF, m))
        bands, shuffled = zip(*(null_of(calls_DEM, layers) for calls_DEM in nulls))
        lifts_EM = torch.cat([lift(part_NM) for part_NM in calls_EM.split(layers)])
        for name, value in zip(found, (calls_EM, lifts_EM, torch.stack(bands), torch.stack(shuffled))):
            found[name].append(value.unflatten(-2, (len(censuses), -1)))
    stacked = {name: torch.stack(values, dim=-3).numpy() for name, values in found.items()}  # [(2,) C, S, E or L, …]
    return Measured(tuple(censuses), first.domains, samples, tuple(first.sizes), **stacked)


def sample_sizes(census: Census) -> tuple[int, ...]:
    """Doubling: as many tokens of every domain."""
    fewest, m = int(tokens_of(census).min()), len(census.domains)
    return tuple(m * each for each in (PER_DOMAIN << i for i in range(30)) if each <= fewest and m * each <= MOST_TOKENS)


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
    """Orders of so many things at random, [P, size]."""
    return torch.rand(DRAWS, size, generator=generator).argsort(dim=1)


def count_calls(chosen_TE: Tensor, label_PT: Tensor, m: int) -> Tensor:
    """The calls of each expert by label, for several ways to label what calls: [P, E, M]. One product of 0s and 1s is fast."""
    labelled_TPM = torch.zeros(*label_PT.T.shape, m).scatter_(2, label_PT.T[:, :, None], 1.0)
    calls_EP = chosen_TE.T @ labelled_TPM.flatten(1)  # float32 counts exactly up to 16 million
    return calls_EP.unflatten(1, (-1, m)).transpose(0, 1).double()


def null_of(calls_DEM: Tensor, layers: list[int]) -> tuple[Tensor, Tensor]:
    """The band of each expert [E, 2] and the counts of each layer [L, 2] over the draws, see `Measured`."""
    parts = [torch.vmap(lift)(part_DNM).amax(dim=2) for part_DNM in calls_DEM.split(layers, dim=1)]
    strongest_PE = torch.cat(parts, dim=1)
    bands = torch.stack([strongest_PE.kthvalue(RANK, dim=0).values, strongest_PE.median(dim=0).values], dim=1)
    shuffled = [[(part_PN >= SPECIALIST - SLACK).sum(dim=1).median().item(),
                 (part_PN.sum(dim=1) / (part_PN > 0).sum(dim=1)).median().item()] for part_PN in parts]
    return bands, torch.tensor(shuffled, dtype=torch.float64)


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


# --- the widget -------------------------------------------------------------------------------------------------------


class SpecialisationView(LessonWidget):
    """See how many experts look like specialists of a domain in a sample of tokens, and how many would by chance.

    Args:
        measured: see `measure`; `SpecialisationView.of_census` does both.
        name: of the model, shown on the widget's face.
        origin: where the model comes from, shown beside the name: "trained", "toy" or "synthetic".
        seed: of the samples and draws.
        title: the title.

    Traits to read, set and observe: `sample` (tokens, one of `samples`), `router` (one of `routers`), `layer` (0 … L-1), `null`
    ("tokens shuffled" or "documents shuffled"), `order` ("by number" or "strongest first"), `locked_expert` (or None).
    To read: `summary` (what the widget says), `shown` (the `Sample` it shows), `columns` (which expert stands in each column).

    Raises:
        ValueError: if there are other than 2 … 8 domains, too few tokens, or the censuses are not of the same tokens.
    """

    title = Unicode().tag(sync=True)
    name = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    seed = Int().tag(sync=True)
    draws = Int().tag(sync=True)
    routers = List(Unicode()).tag(sync=True)  # the first is the model's own, the others are nulls
    domains = List(Unicode()).tag(sync=True)
    samples = List(Int()).tag(sync=True)
    sizes = List(Int()).tag(sync=True)  # N of each layer
    calls = Bytes().tag(sync=True)  # int32 [C, S, E, M]
    lifts = Bytes().tag(sync=True)  # float64 [C, S, E, M]
    bands = Bytes().tag(sync=True)  # float64 [2, C, S, E, 2]
    shuffled = Bytes().tag(sync=True)  # float64 [2, C, S, L, 2]
    start = Dict().tag(sync=True)  # what Reset goes back to

    sample = Int().tag(sync=True)
    router = Unicode().tag(sync=True)
    layer = Int(0).tag(sync=True)
    null = Unicode(next(iter(NULLS))).tag(sync=True)
    order = Unicode(BY_NUMBER).tag(sync=True)
    locked_expert = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, measured: Measured, *, name: str = "model", origin: str = "trained", seed: int = 0,
                 title: str = "specialists, or a small sample?"):
        check_origin(origin)
        require(isinstance(measured, Measured),
                f"measured is {type(measured).__name__}; call SpecialisationView.of_census(take_census(model, corpus))")
        self._measured = measured
        start = {"sample": measured.samples[0], "router": measured.routers[0], "layer": 0, "null": next(iter(NULLS)),
                 "order": BY_NUMBER, "locked_expert": None}
        names = {key: list(getattr(measured, key)) for key in ("routers", "domains", "samples", "sizes")}
        floats = {key: getattr(measured, key).astype(np.float64).tobytes() for key in ("lifts", "bands", "shuffled")}
        super().__init__(title=title, name=name, origin=origin, seed=seed, draws=DRAWS, start=start, **start, **names, **floats,
                         calls=measured.calls.astype(np.int32).tobytes())

    @classmethod
    def of_census(cls, censuses: Mapping[str, Census], *, name: str = "model", origin: str = "trained", seed: int = 0,
                  title: str = "specialists, or a small sample?") -> SpecialisationView:
        """Samples of a census, beside two nulls of its labels, and beside other routers that saw the same tokens.

        Args:
            censuses: as `take_census` returns them; the first is the model's own, the others are shown as nulls.
            name: of the model.
            origin: "trained", "toy" or "synthetic".
            seed: of the samples and of the draws, a whole number.
            title: the title.
        """
        require(isinstance(seed, int) and seed >= 0, f"seed is {seed!r}; expected a whole number, 0 or more")
        return cls(measure(censuses, seed), name=name, origin=origin, seed=seed, title=title)

    @traitlets.validate("layer", "locked_expert")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, len(self.sizes) - 1), "locked_expert": (0, self.sizes[self.layer] - 1)})

    @traitlets.validate("sample", "router", "null", "order")
    def _known(self, proposal):
        return one_of(proposal, {"sample": self.samples, "router": self.routers, "null": NULLS, "order": ORDERS})

    @traitlets.observe("layer", "router")
    def _let_go(self, _):
        self.locked_expert = None  # its number means another expert now




INK, GREY = "#16191d", "#c3c8ce"
