"""The ablation view: take away the experts most specialised in a domain, and as many others of the same load.

Everything was measured beforehand (`experiments.diagnoses.ablations_of`): Python computes the intervals of every state once, the
browser looks up which state is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import traitlets
from traitlets import Dict, Float, Int, List, Unicode

from ...measure.ablations import CONTROL, check_rows, numbers_of
from ...measure.evidence import result_table
from ..kit.base import LessonWidget, one_of

TABLE = "ladder-cpu-ablations"
EXPERTS = {"gshard": 16, "fine": 64, "deepseekmoe": 62}  # routed experts in a layer of the ladder's models


class AblationView(LessonWidget):
    """See whether taking a domain's specialists away hurts it more than taking away as many other experts of the same load.

    Args:
        rows: of an ablation table, see `experiments.diagnoses.ablations_of`: all models with the same domains and shares, two
            seeds or more; `AblationView.of_table` reads what the course ships.
        experts: model -> how many routed experts a layer has.
        origin: where they come from: "trained", "toy" or "synthetic".

    Traits to read, set and observe: `rung` (the model, at first the last), `domain` (whose specialists are gone), `share` (of the
    routed experts in each layer; one of `shares`).

    Raises:
        ValueError: if a column, a row or a number is missing.
    """

    rungs = List(Unicode()).tag(sync=True)
    domains = List(Unicode()).tag(sync=True)
    shares = List(Float()).tag(sync=True)
    sizes = Dict().tag(sync=True)  # model -> how many routed experts a layer has
    draws = Int().tag(sync=True)  # random sets of the control, for each seed
    numbers = Dict().tag(sync=True)  # model -> domain -> for each share what `state_of` gives, and how many experts are "gone"

    rung = Unicode().tag(sync=True)
    domain = Unicode().tag(sync=True)
    share = Float().tag(sync=True)

    def __init__(self, rows: Sequence[Mapping], experts: Mapping[str, int], *, origin: str,
                 title: str = "Take the specialists away"):
        domains, shares = check_rows(rows, experts)
        start = {"rung": list(experts)[-1], "domain": domains[0], "share": shares[(len(shares) - 1) // 2]}
        super().__init__(title=title, origin=origin, rungs=list(experts), domains=domains, shares=shares, sizes=dict(experts),
                         draws=len({row.get("draw", 0) for row in rows if row["kind"] == CONTROL}),
                         numbers=numbers_of(rows, experts, domains, shares), start=start)

    @classmethod
    def of_table(cls) -> AblationView:
        """The ladder's models of the course's table, see `EXPERTS`."""
        rows = [row for row in result_table(TABLE).rows if row["rung"] in EXPERTS]
        return cls(rows, EXPERTS, origin="trained")

    @traitlets.validate("rung", "domain", "share")
    def _one_of_them(self, proposal):
        return one_of(proposal, {"rung": self.rungs, "domain": self.domains, "share": self.shares})
