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

from ..base.errors import require
from ..measure.census import Census, lift
from ..teach.plots import drawable, png
from .base import LessonWidget, dress_table, module_source, one_of, stylesheet, within
from .common import check_origin, count, fixed, rounded

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


@dataclass(frozen=True, eq=False)
class Sample:
    """One layer of one router in one sample, beside one null: `calls` and `lifts` [N, M], `top` and `middle` of the bands [N],
    and of the median shuffled sample `null_count`, experts with a lift of 1.5, and `null_mean`, their mean strongest lift."""

    calls: ndarray
    lifts: ndarray
    top: ndarray
    middle: ndarray
    null_count: float
    null_mean: float

    @property
    def called(self) -> ndarray:
        return self.calls.sum(axis=1) > 0

    @property
    def strongest(self) -> ndarray:
        """[N] each expert's largest lift: 1 if all domains call it alike, M if one alone does, 0 without a call."""
        return self.lifts.max(axis=1)

    @property
    def above(self) -> ndarray:
        """[N] which experts stand above the 95% of their own null."""
        return self.strongest > self.top + SLACK

    @property
    def count(self) -> int:
        """How many experts have a lift of 1.5."""
        return int((self.strongest >= SPECIALIST - SLACK).sum())

    @property
    def mean(self) -> float:
        """The mean strongest lift of the experts that have a call."""
        return float(self.strongest[self.called].mean())


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

    _esm = module_source("specialisation_view")
    _css = stylesheet("specialisation_view")

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

    def sample_of(self, router: str, sample: int) -> Sample:
        """The present layer of a router in a sample, beside the present null."""
        one, c, s = self._measured, self.routers.index(router), self.samples.index(sample)
        experts = slice(sum(self.sizes[:self.layer]), sum(self.sizes[:self.layer + 1]))
        null = list(NULLS).index(self.null)
        top, middle = one.bands[null, c, s, experts].T
        null_count, null_mean = one.shuffled[null, c, s, self.layer].tolist()
        return Sample(one.calls[c, s, experts], one.lifts[c, s, experts], top, middle, null_count, null_mean)

    @property
    def shown(self) -> Sample:
        return self.sample_of(self.router, self.sample)

    @property
    def columns(self) -> list[int]:
        """Which expert stands in each column, from the left."""
        strongest = self.shown.strongest
        return list(range(len(strongest))) if self.order == BY_NUMBER else np.argsort(-strongest, kind="stable").tolist()

    @property
    def summary(self) -> str:
        """What the widget says, in words."""
        return summary(self)

    def describe(self) -> str:
        return (f"{self.name!r}, {self.origin}: {count(len(self.routers), 'router')}, {count(len(self.sizes), 'layer')} of "
                f"{'/'.join(map(str, dict.fromkeys(self.sizes)))} experts, {len(self.domains)} domains, "
                f"{self.samples[0]} to {self.samples[-1]} tokens")

    def picture(self) -> bytes:
        return png(draw_specialisation(self))

    @traitlets.validate("layer", "locked_expert")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, len(self.sizes) - 1), "locked_expert": (0, self.sizes[self.layer] - 1)})

    @traitlets.validate("sample", "router", "null", "order")
    def _known(self, proposal):
        return one_of(proposal, {"sample": self.samples, "router": self.routers, "null": NULLS, "order": ORDERS})

    @traitlets.observe("layer", "router")
    def _let_go(self, _):
        self.locked_expert = None  # its number means another expert now


# --- words: the twins of those in specialisation_view.js --------------------------------------------------------------

COLUMNS = ("router", "lift ≥ 1.5", "shuffled", "above null", "mean lift", "shuffled")


def badge(view: SpecialisationView) -> str:
    """Where the shown routing comes from."""
    own = view.router == view.routers[0]
    return f"{view.origin}: {view.name}" if own else f"null: {view.router}"


def counts(view: SpecialisationView) -> list[list[str]]:
    """The three numbers to compare: a large one and its words."""
    one = view.shown
    n, chance = len(one.called), fixed(0.05 * int(one.called.sum()), 0)
    return [[f"{one.count} of {n}", f"experts prefer a domain: lift 1.5 or more in {view.sample} tokens"],
            [f"{fixed(one.null_count, 0)} of {n}", f"do so by chance: {NULLS[view.null]}"],
            [f"{int(one.above.sum())} of {n}", f"stand above their own null; by chance about {chance} would"]]


def table_title(view: SpecialisationView) -> str:
    return f"Layer {view.layer + 1}, {view.sample} tokens, {view.null}"


def table_rows(view: SpecialisationView) -> list[list[str]]:
    """Of each router: experts with a lift of 1.5, in the sample and shuffled; those above their null; mean strongest lifts."""
    rows = [(router, view.sample_of(router, view.sample)) for router in view.routers]
    return [[router, str(one.count), fixed(one.null_count, 0), str(int(one.above.sum())), rounded(one.mean, 2),
             rounded(one.null_mean, 2)] for router, one in rows]


def summary(view: SpecialisationView) -> str:
    """What the view shows, in words."""
    parts = [head_words(view), mean_words(view)]
    if view.locked_expert is not None:
        parts.append(expert_words(view, view.locked_expert))
    return " ".join(parts)


def head_words(view: SpecialisationView) -> str:
    (first, says), (second, shuffled), (third, above) = counts(view)
    silent = int((~view.shown.called).sum())
    beside = "" if view.router == view.routers[0] else f", beside {view.name}"
    return (f"{badge(view)}{beside}, layer {view.layer + 1} of {len(view.sizes)}: {first} {says}, "
            f"{view.sample // len(view.domains)} of each domain. {second} {shuffled} (median of {view.draws} draws). "
            f"{third} {above}."
            + (f" Without a call: {silent}." if silent else ""))


def mean_words(view: SpecialisationView) -> str:
    """The mean strongest lift, here and in the largest sample."""
    here, most = view.shown, view.sample_of(view.router, view.samples[-1])
    return (f"Mean strongest lift: {rounded(here.mean, 2)}, shuffled {rounded(here.null_mean, 2)}; in {view.samples[-1]} tokens "
            f"{rounded(most.mean, 2)}, shuffled {rounded(most.null_mean, 2)}.")


def expert_words(view: SpecialisationView, expert: int) -> str:
    one = view.shown
    calls = one.calls[expert].astype(int).tolist()
    if not sum(calls):
        return f"Expert {expert} of this layer has no call in this sample."
    shares = ", ".join(f"{domain} {fixed(100 * number / sum(calls), 0)}%" for domain, number in zip(view.domains, calls))
    return (f"Expert {expert} of this layer, {count(sum(calls), 'call')}: {shares}. It prefers "
            f"{view.domains[int(one.lifts[expert].argmax())]}, lift {rounded(one.strongest[expert], 2)}. Its null: median "
            f"{rounded(one.middle[expert], 2)}, 95% up to {rounded(one.top[expert], 2)}: it stands "
            f"{'above' if one.above[expert] else 'within'}.")


# --- the picture ------------------------------------------------------------------------------------------------------

HUES = ("#2b86cf", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#9a6324")  # with a shape for each
SHAPES = ("o", "s", "^", "D", "v", "p", "H", "*")
INK, GREY = "#16191d", "#c3c8ce"


def ticks_of(m: int) -> list[tuple[float, str]]:
    """Where the axis of lifts, from 1 to M, has a number."""
    return [(1, "1 all alike"), *((lift, f"{lift:g}") for lift in (1.5, 2, 3, 4, 6) if lift < m), (m, f"{m} only one")]


def draw_specialisation(view: SpecialisationView):
    """The three counts, the experts' strongest lifts beside their means by sample size, and the table, on a bare figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.4), layout="constrained")
    grid = figure.add_gridspec(3, 12, height_ratios=(0.8, 4.6, 0.28 * (len(view.routers) + 2)))
    for i, (number, words) in enumerate(counts(view)):
        ax = figure.add_subplot(grid[0, 4 * i:4 * i + 4])
        ax.axis("off")
        ax.text(0, 0.95, number, fontsize=19, fontweight="bold", va="top")
        ax.text(0, 0.02, words.replace(": ", ":\n", 1).replace("; ", ";\n", 1), fontsize=10, va="bottom", linespacing=1.15)
    experts, means = figure.add_subplot(grid[1, :9]), figure.add_subplot(grid[1, 9:])
    draw_experts(experts, view)
    draw_means(means, view)
    draw_table(figure.add_subplot(grid[2, :]), view)
    figure.suptitle(f"{view.title} · layer {view.layer + 1} of {len(view.sizes)} · {badge(view)} · seed {view.seed}",
                    parse_math=False)
    return figure


def dress_lifts(ax, view: SpecialisationView) -> None:
    """The axis of lifts, the same in every state, and the line from where on an expert counts as a specialist."""
    ticks = ticks_of(len(view.domains))
    ax.set_yscale("log")
    ax.set_ylim(0.97, len(view.domains) * 1.05)
    ax.minorticks_off()
    ax.set_yticks(*zip(*ticks), fontsize=10)
    ax.axhline(SPECIALIST, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.spines[["top", "right"]].set_visible(False)


def draw_experts(ax, view: SpecialisationView) -> None:
    """One mark for each expert over the band of its null."""
    one, columns = view.shown, np.array(view.columns)
    x, called = np.arange(len(columns)), one.called[columns]
    top, middle = one.top[columns][called], one.middle[columns][called]
    ax.bar(x[called], top - 1, bottom=1, width=0.8, color=GREY)
    ax.hlines(middle, x[called] - 0.4, x[called] + 0.4, color=INK, linewidth=1.4)
    prefers, size = one.lifts.argmax(axis=1)[columns], min(44, 1400 / len(columns))
    for d, domain in enumerate(view.domains):
        for above, face in ((False, "white"), (True, HUES[d])):
            mine = called & (prefers == d) & (one.above[columns] == above)
            ax.scatter(x[mine], one.strongest[columns][mine], s=size, marker=SHAPES[d], facecolor=face, edgecolor=HUES[d],
                       linewidth=1.6, zorder=3)
        ax.scatter([], [], s=44, marker=SHAPES[d], color=HUES[d], label=drawable(domain, 24))
    if view.locked_expert is not None:
        ax.axvspan(view.columns.index(view.locked_expert) - 0.6, view.columns.index(view.locked_expert) + 0.6, facecolor="none",
                   edgecolor=INK, linewidth=2)
    dress_lifts(ax, view)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500) if len(columns) / s <= 26)
    ax.set_xticks(x[::step], columns[::step], fontsize=10)
    ax.set_xlim(-0.8, len(columns) - 0.2)
    ax.set_xlabel(f"experts of layer {view.layer + 1}, {view.order}; mark: the domain that an expert prefers")
    ax.set_title("each expert's strongest lift: its calls by one domain / by the mean domain\nfilled: above its null; "
                 f"grey: null, up to 95% of {view.draws} draws; tick: its median", loc="left", fontsize=11)
    legend = ax.legend(ncols=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=10, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def draw_means(ax, view: SpecialisationView) -> None:
    """The mean strongest lift by sample size: what shrinks with the null, and what is left."""
    found = [view.sample_of(view.router, sample) for sample in view.samples]
    ax.axvline(view.sample, color="#d9660a", linewidth=2)
    ax.plot(view.samples, [one.mean for one in found], color=INK, marker="o", markersize=5)
    ax.plot(view.samples, [one.null_mean for one in found], color=INK, marker="s", markersize=5, markerfacecolor="white",
            linestyle="--")
    ax.annotate("sample", (view.samples[-1], found[-1].mean), (0, 7), textcoords="offset points", ha="right")
    early = min(3, len(found) - 1)
    ax.annotate("shuffled", (view.samples[early], found[early].null_mean), (-5, -12), textcoords="offset points", ha="right")
    ax.set_xscale("log", base=2)
    dress_lifts(ax, view)
    ax.set_yticklabels([])
    ax.minorticks_off()
    ax.set_xticks(view.samples[::2], [short(sample) for sample in view.samples[::2]], fontsize=10)
    ax.set_xlabel("tokens in the sample")
    ax.set_title("mean of the experts\nby sample size", loc="left", fontsize=11)


def short(tokens: int) -> str:
    """1024 is 1k."""
    return str(tokens) if tokens < 1000 else f"{fixed(tokens / 1024, 0)}k"


def draw_table(ax, view: SpecialisationView) -> None:
    ax.axis("off")
    rows = table_rows(view)
    table = ax.table([list(COLUMNS), *rows], bbox=(0, 0, 1, 1), cellLoc="right", edges="horizontal",
                     colWidths=[0.25] + [0.15] * 5)
    dress_table(table, bold=[1 + view.routers.index(view.router)])
    ax.set_title(table_title(view), loc="left", fontsize=11)
