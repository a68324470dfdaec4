"""What an ablation table says: how much a domain misses its specialists, beside as many other experts of the same load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy import ndarray

from ..base.errors import require
from .evidence import Interval, interval, paired_difference

WHOLE, SPECIALISTS, CONTROL = "nothing", "specialists", "same load"  # the kinds of rows
KINDS = (SPECIALISTS, CONTROL)


def numbers_of(rows: Sequence[Mapping], experts: Mapping[str, int], domains: Sequence[str], shares: Sequence[float]) -> dict:
    """The intervals of every state: model -> domain whose specialists are gone -> for each share what `state_of` gives, and how
    many experts are "gone".

    Args:
        rows: of an ablation table, see `experiments.diagnoses.ablations_of`.
        experts: model -> how many routed experts a layer has.
        domains, shares: what `check_rows` returned.

    Raises:
        ValueError: if a row or a number is missing.
    """
    found: dict[tuple, list[Mapping]] = defaultdict(list)
    for row in rows:
        found[row["rung"], row["seed"], row["kind"], row["domain"], row["share"]].append(row)
    numbers: dict[str, dict] = {}
    for rung, size in experts.items():
        seeds = sorted({row["seed"] for row in rows if row["rung"] == rung})
        require(len(seeds) >= 2, f"{rung} has {len(seeds)} seed; an interval over seeds needs at least 2")

        def of_seeds(what: str, kind: str, own: str = "", share: float = 0, rung=rung, seeds=seeds) -> ndarray:
            return np.array([mean_of(found, what, domains, rung, seed, kind, own, share) for seed in seeds])

        def both(what: str, own: str, share: float, of_seeds=of_seeds) -> ndarray:
            return np.stack([of_seeds(what, kind, own, share) for kind in KINDS])

        whole_ZM = of_seeds("test", WHOLE)
        numbers[rung] = {own: [{"gone": round(share * size), **state_of(both("test", own, share) - whole_ZM,
                                                                        both("calls", own, share), d)}
                               for share in shares] for d, own in enumerate(domains)}
    return numbers


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


def state_of(rise_2ZM: ndarray, calls_2ZM: ndarray, d: int) -> dict:
    """All numbers of a state, d being the domain whose specialists are gone.

    Args:
        rise_2ZM: without the specialists, and without the control: how much higher the losses are than the whole model's.
        calls_2ZM: what share of the domain's calls the missing experts took.

    Returns: "rise" and "calls" [M][2], mean, low, high and each seed's; and of the domain d "own" -> what -> mean, low and high
    without the specialists, without the control, and of their difference paired by seed. "per call" lacks if no call was lost.
    """
    rise_2Z, calls_2Z = rise_2ZM[..., d], calls_2ZM[..., d]
    own = {"rise": rise_2Z, "calls": calls_2Z, "beyond": rise_2Z - np.delete(rise_2ZM, d, axis=2).mean(axis=2)}
    if (calls_2Z > 0).all():
        own["per call"] = rise_2Z / calls_2Z
    return {"own": {what: [*map(bounds, map(interval, pair)), bounds(paired_difference(*pair))]
                    for what, values_2Z in own.items() for pair in [values_2Z.tolist()]}} | {
        name: [[[*bounds(interval(values)), *values] for values in kinds] for kinds in values_2ZM.transpose(2, 0, 1).tolist()]
        for name, values_2ZM in (("rise", rise_2ZM), ("calls", calls_2ZM))}


def bounds(found: Interval) -> list[float]:
    """An interval's mean, low and high, as JSON has them."""
    return [found.mean, found.low, found.high]


def check_rows(rows: Sequence[Mapping], experts: Mapping[str, int]) -> tuple[list[str], list[float]]:
    """Refuse what is not an ablation table; its domains and shares."""
    require(isinstance(rows, Sequence) and len(rows) > 0 and all(isinstance(row, Mapping) for row in rows),
            f"rows is {type(rows).__name__}; expected the rows of an ablation table, or use AblationView.of_table()")
    domains = [column.removeprefix("test_") for column in rows[0] if column.startswith("test_")]
    require(len(domains) >= 2, f"the rows judge {len(domains)} domain; expected columns test_… of at least 2")
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
    shares = sorted({row["share"] for row in rows if row["kind"] != WHOLE})
    require(len(shares) > 0, f"there is no row of the kind {SPECIALISTS!r} or {CONTROL!r}; let the experiment run to its end")
    return domains, shares
