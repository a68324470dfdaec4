"""The ablation view: take away the experts most specialised in a domain, and as many others of the same load.

Everything was measured beforehand (`experiments.diagnoses.ablations_of`), so Python computes all numbers and words of every
state once; the browser looks up which state is shown. Letters: S seeds, M domains.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import traitlets
from numpy import ndarray
from traitlets import Dict, Float, List, Unicode

from ...base.errors import require
from ...measure.evidence import Interval, interval, paired_difference, result_table
from ..kit.base import LessonWidget, one_of
from ..kit.gates import check_origin, count
from ..kit.words import bounds, rounded, signed
from ..redundancy_lens.data import even_ticks

TABLE = "ladder-cpu-ablations"
EXPERTS = {"gshard": 16, "fine": 64, "deepseekmoe": 62}  # routed experts in a layer of the ladder's models
WHOLE, SPECIALISTS, CONTROL = "nothing", "specialists", "same load"  # the kinds of rows
KINDS = (SPECIALISTS, CONTROL)
PANELS = {"rise": "rise of the loss against the whole model, nats per byte",
          "calls": "share of the domain's calls that were lost"}


@dataclass(frozen=True)
class Ablation:
    """What a model loses with the specialists of a domain, and with their control.

    Args:
        rung, own, share, size: the model, whose specialists are gone, which share of its routed experts, and how many it has.
        domains: M names.
        rise_SM: kind -> how much higher the losses are than the whole model's; of the control, the mean over its draws.
        calls_SM: kind -> which share of the domain's calls the missing experts took.
    """

    rung: str
    own: str
    share: float
    size: int
    domains: tuple[str, ...]
    rise_SM: Mapping[str, ndarray]
    calls_SM: Mapping[str, ndarray]

    @property
    def gone(self) -> int:
        """How many experts are taken away in each layer, rounded as in the experiment."""
        return round(self.share * self.size)

    def of_own(self, what: str, kind: str) -> ndarray:
        """[S] the "rise" and the lost "calls" of the own domain, its rise "per call" (NaN where none was lost), and how far it
        rises "beyond" the mean of the other domains."""
        d = self.domains.index(self.own)
        rise_S, calls_S = self.rise_SM[kind][:, d], self.calls_SM[kind][:, d]
        return {"rise": rise_S, "calls": calls_S, "beyond": rise_S - np.delete(self.rise_SM[kind], d, axis=1).mean(axis=1),
                "per call": np.divide(rise_S, calls_S, out=np.full_like(rise_S, np.nan), where=calls_S > 0)}[what]

    def compared(self, what: str) -> tuple[Interval, Interval, Interval] | None:
        """A number of the own domain without its specialists, without the control, and their difference paired by seed."""
        mine, control = (self.of_own(what, kind).tolist() for kind in KINDS)
        if not np.isfinite([mine, control]).all():
            return None
        return interval(mine), interval(control), paired_difference(mine, control)

    @property
    def panels(self) -> dict[str, list[list[list[float]]]]:
        """Panel -> [M][kind] the mean, the ends of its interval, and each seed."""
        return {panel: [[[float(f"{value:.6g}") for value in (found.mean, found.low, found.high, *values_SM[kind][:, d])]
                         for kind in KINDS for found in [interval(values_SM[kind][:, d].tolist())]]
                        for d in range(len(self.domains))]
                for panel, values_SM in (("rise", self.rise_SM), ("calls", self.calls_SM))}


# --- the table --------------------------------------------------------------------------------------------------------


def ablations_of_rows(rows: Sequence[Mapping], experts: Mapping[str, int]) -> dict[tuple[str, str, float], Ablation]:
    """The rows of an ablation table by model (in the order of `experts`), domain and share.

    Raises:
        ValueError: if a column, a row or a number is missing.
    """
    domains = check_rows(rows, experts)
    found: dict[tuple, list[Mapping]] = defaultdict(list)
    for row in rows:
        found[row["rung"], row["seed"], row["kind"], row["domain"], row["share"]].append(row)
    rungs = {rung: sorted({row["seed"] for row in rows if row["rung"] == rung}) for rung in experts}
    shares = sorted({row["share"] for row in rows if row["kind"] != WHOLE})
    require(len(shares) > 0, f"there is no row of the kind {SPECIALISTS!r} or {CONTROL!r}; let the experiment run to its end")
    ablations = {}
    for rung, seeds in rungs.items():
        require(len(seeds) >= 2, f"{rung} has {count(len(seeds), 'seed')}; an interval over seeds needs at least 2")
        whole_SM = np.array([mean_of(found, "test", domains, rung, seed, WHOLE, "", 0) for seed in seeds])
        for own in domains:
            for share in shares:
                test, calls = ({kind: np.array([mean_of(found, what, domains, rung, seed, kind, own, share) for seed in seeds])
                                for kind in KINDS} for what in ("test", "calls"))
                rise_SM = {kind: test_SM - whole_SM for kind, test_SM in test.items()}
                ablations[rung, own, share] = Ablation(rung, own, share, experts[rung], domains, rise_SM, calls)
    return ablations


def mean_of(found: Mapping[tuple, list[Mapping]], what: str, domains: Sequence[str], *where) -> list[float]:
    """[M] the numbers of a model, seed, kind, domain and share; of the control, the mean over its draws."""
    rows = found.get(where, [])
    rung, seed, kind, own, share = where
    here = f"{rung}, seed {seed:g}, {kind!r}" + (f", {own}, share {share:g}" if own else "")
    require(len(rows) > 0, f"there is no row for {here}; let the experiment run to its end")
    require(len(rows) == 1 or kind == CONTROL, f"there are {len(rows)} rows for {here}; expected one")
    values = [[row[f"{what}_{domain}"] for domain in domains] for row in rows]
    most = 1 if what == "calls" else 1e9
    require(all(isinstance(value, (int, float)) and 0 <= value <= most for each in values for value in each),
            f"{what}_… of {here} is {values}; expected {'shares from 0 to 1' if what == 'calls' else 'losses'}")
    return np.mean(values, axis=0).tolist()


def check_rows(rows: Sequence[Mapping], experts: Mapping[str, int]) -> tuple[str, ...]:
    """Refuse what is not an ablation table; its domains."""
    require(not isinstance(rows, str) and len(rows) > 0 and all(isinstance(row, Mapping) for row in rows),
            f"rows is {type(rows).__name__} of {len(rows)}; expected those of an ablation table, or use AblationView.of_table()")
    domains = tuple(column.removeprefix("test_") for column in rows[0] if column.startswith("test_"))
    require(len(domains) >= 2, f"the rows judge {count(len(domains), 'domain')}; expected columns test_… of at least 2")
    columns = {"rung", "seed", "kind", "domain", "share"}.union(*({f"test_{one}", f"calls_{one}"} for one in domains))
    known = {WHOLE: [""], SPECIALISTS: domains, CONTROL: domains}
    for row in rows:
        gone = sorted(columns - row.keys())
        require(not gone, f"a row has no column {', '.join(gone)}; expected those of an ablation table")
        rung, kind, domain, share = row["rung"], row["kind"], row["domain"], row["share"]
        require(rung in experts, f"how many experts has {rung!r}? experts names {', '.join(experts) or 'none'}; add it")
        require(kind in known, f"unknown kind {kind!r}; expected {', '.join(known)}")
        require(domain in known[kind], f"a row {kind!r} has the domain {domain!r}; expected {' or '.join(known[kind]) or 'none'}")
        require(kind == WHOLE or 1 <= round(share * experts[rung]) < experts[rung],
                f"share {share:g} of the {experts[rung]} experts of {rung} is {round(share * experts[rung])}; "
                f"expected 1 … {experts[rung] - 1}")
    return domains


# --- the widget -------------------------------------------------------------------------------------------------------


class AblationView(LessonWidget):
    """See whether taking a domain's specialists away hurts it more than taking away as many other experts of the same load.

    Args:
        rows: of an ablation table, see `experiments.diagnoses.ablations_of`: all models with the same domains and shares, two
            seeds or more; `AblationView.of_table` reads what the course ships.
        experts: model -> how many routed experts a layer has.
        origin: where they come from: "trained", "toy" or "synthetic".
        title: the title.
        rung, domain, share: what is shown at first; the last model, the first domain and the share in the middle unless given.

    Traits to read, set and observe: `rung` (the model), `domain` (whose specialists are gone), `share` (of the routed experts in
    each layer; one of `shares`).

    Raises:
        ValueError: if a column, a row or a number is missing.
    """

    title = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    rungs = List(Unicode()).tag(sync=True)
    domains = List(Unicode()).tag(sync=True)
    shares = List(Float()).tag(sync=True)
    states = Dict().tag(sync=True)  # model -> domain -> for each share: panels, and all words
    axes = Dict().tag(sync=True)  # panel -> title, low, high, ticks [[place, label]], for all states
    columns = List(Unicode()).tag(sync=True)  # of the table
    note = Unicode().tag(sync=True)
    start = Dict().tag(sync=True)  # what Reset goes back to

    rung = Unicode().tag(sync=True)
    domain = Unicode().tag(sync=True)
    share = Float().tag(sync=True)

    def __init__(self, rows: Sequence[Mapping], experts: Mapping[str, int], *, origin: str,
                 title: str = "Take the specialists away", rung: str | None = None, domain: str | None = None,
                 share: float | None = None):
        check_origin(origin)
        self._ablations = found = ablations_of_rows(rows, experts)
        rungs, domains, shares = (list(dict.fromkeys(names)) for names in zip(*found))
        start = {"rung": rungs[-1] if rung is None else rung, "domain": domains[0] if domain is None else domain,
                 "share": shares[(len(shares) - 1) // 2] if share is None else share}
        for (name, value), known in zip(start.items(), (rungs, domains, shares)):
            require(value in known, f"{name} is {value!r}; choose one of {', '.join(map(str, known))}")
        states = {one: {own: [state_of(found, one, own, each, origin) for each in shares] for own in domains} for one in rungs}
        super().__init__(title=title, origin=origin, rungs=rungs, domains=domains, shares=shares, states=states,
                         axes={panel: axis_of(panel, states) for panel in PANELS}, columns=list(COLUMNS),
                         note=note_of(rows), start=start, **start)

    @classmethod
    def of_table(cls) -> AblationView:
        """The ladder's models of the course's table, see `EXPERTS`."""
        rows = [row for row in result_table(TABLE).rows if row["rung"] in EXPERTS]
        return cls(rows, EXPERTS, origin="trained")

    @property
    def state(self) -> dict:
        """What the browser shows of it."""
        return self.states[self.rung][self.domain][self.shares.index(self.share)]

    @property
    def verdict(self) -> str:
        """Does its own domain miss the specialists more than the control?"""
        return self.state["verdict"]

    @traitlets.validate("rung", "domain", "share")
    def _one_of_them(self, proposal):
        return one_of(proposal, {"rung": self.rungs, "domain": self.domains, "share": self.shares})


def axis_of(panel: str, states: Mapping) -> dict:
    """The limits of a panel that hold every interval and seed of all states; lost calls start at none."""
    values = [value for of_rung in states.values() for of_domain in of_rung.values() for state in of_domain
              for kinds in state["panels"][panel] for numbers in kinds for value in numbers]
    low, high = (min(values + [0.0]) if panel == "rise" else 0.0), max(values + [1e-6])
    room = 0.02 * (high - low)
    ticks = [[tick, signed_short(tick) if panel == "rise" else f"{100 * tick:g}%"] for tick in even_ticks(low, high)]
    return {"title": PANELS[panel], "low": low - room, "high": high + room, "ticks": ticks}


# --- words ------------------------------------------------------------------------------------------------------------

COLUMNS = (SPECIALISTS, CONTROL, "paired difference")


def fraction(share: float) -> str:
    return str(Fraction(share).limit_denominator(100))


def signed_short(value: float) -> str:
    return f"{value:+g}" if value else "0"


def percents(share: float) -> str:
    return f"{rounded(100 * share, 1)}%"


def signed_percent(share: float) -> str:
    return f"{'+' if share > 0 else ''}{percents(share)}"


def with_interval(found: Interval, words=signed) -> str:
    """A mean and its interval."""
    return words(found.mean) + bounds(found, words)


def judged(gap: Interval, more: str, less: str, neither: str) -> str:
    """What the seeds can tell of a difference."""
    return more if gap.low > 0 else less if gap.high < 0 else neither


def state_of(found: Mapping[tuple, Ablation], rung: str, own: str, share: float, origin: str) -> dict:
    """All that the browser shows of one state."""
    one = found[rung, own, share]
    beside = [found[rung, domain, share] for domain in one.domains]
    return {"panels": one.panels, "rows": table_rows(one), "verdict": verdict(one), "aim": aim(one), "taken": taken_words(one),
            "summary": summary(one, beside, origin)}


def taken_words(one: Ablation) -> str:
    return f"{fraction(one.share)} of the experts: {one.gone} of {one.size}"


def verdict(one: Ablation) -> str:
    """Does its own domain miss the specialists more than the control?"""
    gap, without = one.compared("rise")[2], f"Without its specialists, {one.own} is hurt"
    says = judged(gap, f"{without} more than without the control", f"{without} less than without the control",
                  f"Open whether {one.own} is hurt more without its specialists than without the control")
    return f"{says}: {with_interval(gap)} nats per byte (n = {gap.n})."


def aim(one: Ablation) -> str:
    """Is it hit harder than the others? A domain that is hurt easily is hurt by the control, too, so that is taken off."""
    gap = one.compared("beyond")[2]
    says = judged(gap, "Measured against the other domains, it is hit harder than by the control",
                  "Measured against the other domains, it is hit less than by the control",
                  "Open whether, measured against the other domains, it is hit harder than by the control")
    return f"{says}: {with_interval(gap)}."


def table_rows(one: Ablation) -> list[list[str]]:
    """What is measured of the own domain, without its specialists, without the control, and the paired difference."""
    def row(name: str, what: str, words=signed, gap=signed) -> list[str]:
        found = one.compared(what)
        return [name, *map(with_interval, found, (words, words, gap))] if found else [name, "–", "–", "–"]

    return [row("rise", "rise"), row("calls lost", "calls", percents, signed_percent), row("rise / calls lost", "per call"),
            row("rise − others' mean", "beyond")]


def summary(one: Ablation, beside: Sequence[Ablation], origin: str) -> str:
    """What the view shows, in words."""
    return " ".join([f"{one.rung}, {origin}: {one.gone} of {one.size} routed experts are missing in each layer.", verdict(one),
                     aim(one), domain_words(one), call_words(one), count_words(beside)])


def domain_words(one: Ablation) -> str:
    """The means of the two panels."""
    parts = [f"{domain} " + " | ".join(f"{signed(one.rise_SM[kind][:, d].mean())} ({percents(one.calls_SM[kind][:, d].mean())})"
                                       for kind in KINDS) for d, domain in enumerate(one.domains)]
    return f"Rise of the loss (calls lost), {SPECIALISTS} | {CONTROL}: {'; '.join(parts)}."


def call_words(one: Ablation) -> str:
    found = one.compared("per call")
    says = judged(found[2], "larger than with the control", "smaller than with the control", "open") if found else "none was lost"
    return f"The rise of {one.own} per lost call: {says}."


def count_words(beside: Sequence[Ablation]) -> str:
    """How all domains' specialists fare, so that nobody picks the one that pleases."""
    def counted(what: str, more: str) -> str:
        says = [judged(one.compared(what)[2], "more", "less", "open") for one in beside]
        return f"{more} than by the control: {says.count('more')}, less: {says.count('less')}, open: {says.count('open')}"

    return (f"Of all {len(beside)} domains at this share, {counted('rise', 'hurt more')}; against the others, "
            f"{counted('beyond', 'hit harder')}.")


def note_of(rows: Sequence[Mapping]) -> str:
    draws = len({row.get("draw", 0) for row in rows if row["kind"] == CONTROL})
    return (f"Ring: a seed; line and band: mean and 95% interval. Same load, the control: as many other experts, "
            f"{count(draws, 'random set')} per seed.\nSpecialists are chosen on validation text, losses are of test text; a lost "
            "call goes to the next best expert.")



COLOURS, INK = {SPECIALISTS: "#5b82b8", CONTROL: "#d9660a"}, "#16191d"
