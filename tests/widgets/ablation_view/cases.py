"""Ablation tables that several tests look at, made of a formula and random noise: synthetic, no model has given them."""

import numpy as np

from moe_lesson.widgets import AblationView

DOMAINS = ("python", "english", "cpp", "maths")
EXPERTS = {"gshard": 16, "fine": 64, "deepseekmoe": 62}
SHARES = (0.0625, 0.125, 0.25)
PRICE = {"python": 0.6, "english": 1.2, "cpp": 2.0, "maths": 2.1}  # what a lost call costs the domain


def row(rung, seed, kind, domain, share, draw, test, calls, domains=DOMAINS) -> dict:
    """A row of the table; test and calls are one number for each domain."""
    return {"rung": rung, "seed": seed, "kind": kind, "domain": domain, "share": share, "draw": draw} | {
        f"{what}_{name}": float(value) for what, values in (("test", test), ("calls", calls))
        for name, value in zip(domains, values)}


def rows_of(rungs=tuple(EXPERTS), seeds=5, domains=DOMAINS, shares=SHARES, draws=3) -> list[dict]:
    """Specialists take twice as many calls of their own domain as the control does; python's calls are cheap."""
    rng, rows, D = np.random.default_rng(0), [], len(domains)
    price_D = np.array([PRICE.get(domain, 1.0) for domain in domains])
    for rung in rungs:
        for seed in range(seeds):
            whole_D = np.linspace(1.9, 0.8, D) + 0.02 * rng.standard_normal(D)
            rows.append(row(rung, seed, "nothing", "", 0, 0, whole_D, [0] * D, domains))
            for share in shares:
                for own in range(D):
                    for kind, draw in [("specialists", 0), *(("same load", draw) for draw in range(draws))]:
                        calls_D = share * (0.8 + 0.1 * rng.random(D))
                        calls_D[own] = share * ((1.4 if kind == "specialists" else 0.75) + 0.2 * rng.random())
                        cost_D = price_D if kind == "specialists" else np.full(D, 1.3)
                        rise_D = cost_D * calls_D * (1 + 0.15 * rng.standard_normal(D))
                        rows.append(row(rung, seed, kind, domains[own], share, draw, whole_D + rise_D, calls_D, domains))
    return rows


def view_of(rows=None, experts=None, **more) -> AblationView:
    """The view of `rows_of`; sizes go to it."""
    sizes = {name: more.pop(name) for name in ("rungs", "seeds", "domains", "shares", "draws") if name in more}
    rows = rows_of(**sizes) if rows is None else rows
    return AblationView(rows, experts or {rung: EXPERTS.get(rung, 16) for rung in dict.fromkeys(one["rung"] for one in rows)},
                        **{"origin": "synthetic", **more})


def toy_rows(specialists, control, calls=((0.2, 0.1), (0.1, 0.1)), share=0.25) -> list[dict]:
    """One model and the domains a and b, for each seed the rise of a and b; b's specialists do nothing."""
    rows, names = [], ("a", "b")
    for seed, (mine, other) in enumerate(zip(specialists, control)):
        rows.append(row("toy", seed, "nothing", "", 0, 0, (1, 2), (0, 0), names))
        for kind, rise, lost in (("specialists", mine, calls[0]), ("same load", other, calls[1])):
            rows.append(row("toy", seed, kind, "a", share, 0, (1 + rise[0], 2 + rise[1]), lost, names))
            rows.append(row("toy", seed, kind, "b", share, 0, (1, 2), (0, 0), names))
    return rows


def toy(*args, **more) -> AblationView:
    return AblationView(toy_rows(*args, **more), {"toy": 8}, origin="toy")
