"""Ladders that several tests look at, made of a formula and random noise: synthetic, no training has given them."""

import math

import numpy as np

from moe_lesson.measure.evidence import write_table
from moe_lesson.widgets import LadderExplorer
from moe_lesson.widgets.ladder_explorer.data import RUNGS, TABLES, RungRuns

DOMAINS = ("python", "english", "cpp", "maths")
STEPS = tuple(range(100, 1001, 100))
MADE_UP = {  # rung -> forward FLOPs of a token, milliseconds of a step, where its loss ends
    "dense": (401408, 60.0, 1.53), "switch": (393472, 66.0, 1.49), "gshard": (393216, 75.0, 1.44),
    "fine": (393216, 120.0, 1.405), "deepseekmoe": (392704, 112.5, 1.40), "dense of total size": (1427456, 165.0, 1.43)}


def rungs_of(names=RUNGS, seeds=5, steps=STEPS, domains=DOMAINS) -> dict[str, RungRuns]:
    """Rungs whose losses fall as text models' do, each to its own end; seeds share the noise of their text."""
    rng = np.random.default_rng(0)
    shared = 0.01 * rng.standard_normal((len(domains), seeds, 1))
    made = {}
    for name in names:
        flops, milliseconds, end = MADE_UP.get(name, (393216, 75.0, 1.45))
        falling = end + 1.9 * np.exp(-np.array(steps) / steps[-1] * 6) + 0.25 * (1 - np.array(steps) / steps[-1])
        levels = np.linspace(0.9, 1.1, len(domains))[:, None, None]
        losses = levels * falling + shared + 0.004 * rng.standard_normal((len(domains), seeds, len(steps)))
        test = losses[:, :, -1] + 0.02 + 0.002 * rng.standard_normal((len(domains), seeds))
        made[name] = RungRuns(flops, 2048, milliseconds, tuple(range(seeds)), tuple(steps),
                              dict(zip(domains, losses.tolist())), dict(zip(domains, test.tolist())))
    return made


def ladder_of(rung="deepseekmoe", beside="gshard", **sizes) -> LadderExplorer:
    """The explorer of `rungs_of`."""
    return LadderExplorer(rungs_of(**sizes), origin="synthetic", rung=rung, beside=beside)


def two(first=(2.0, 1.0), second=(2.0, 1.5), *, costs=((1e6, 10.0), (1e6, 10.0)), steps=(50, 100), seeds=(0,), **more):
    """Two rungs, a and b, of one domain: losses [P] that all seeds share, or [S][P]; costs are (forward FLOPs, ms)."""
    rungs = {}
    for name, losses, (flops, milliseconds) in zip("ab", (first, second), costs):
        losses_SP = losses if isinstance(losses[0], (list, tuple)) else [losses] * len(seeds)
        rungs[name] = RungRuns(flops, 1000, milliseconds, seeds, steps, {"code": losses_SP},
                               {"code": [losses_P[-1] for losses_P in losses_SP]})
    return LadderExplorer(rungs, origin="synthetic", **more)


def write_ladder(folder, rungs: dict[str, RungRuns], leave_out=(), tables=TABLES) -> None:
    """Made-up tables in the shape of the shipped ones; `leave_out` names rows (rung, seed, step) of the followed losses."""
    finals, followed, speeds = [], [], []
    for name, runs in rungs.items():
        speeds += [{"rung": name, "threads": number, "ms_per_step": runs.ms_per_step / number} for number in (1, 2)]
        cost = {"flops": runs.forward_flops, "tokens": runs.tokens_per_step * runs.steps[-1], "seconds": 999.0}
        finals.append({"stage": "tune", "rung": name, "seed": 1000, **cost, "test": ""})
        for s, seed in enumerate(runs.seeds):
            test = {f"test_{domain}": losses[s] for domain, losses in runs.test.items()}
            finals.append({"stage": "final", "rung": name, "seed": seed, **cost,
                           "test": math.fsum(test.values()) / len(test), **test})
            followed += [{"rung": name, "seed": seed, "step": step} | {
                f"validation_{domain}": losses[s][p] for domain, losses in runs.validation.items()}
                for p, step in enumerate(runs.steps) if (name, seed, step) not in leave_out]
    for table, rows in zip(TABLES, (finals, followed, speeds)):
        if table in tables:
            write_table(folder, table, rows, {"command": "made up by ladder_explorer/cases.py: no training has given these"})
