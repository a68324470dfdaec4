"""Balancing races that several tests look at, made of random loads: synthetic, no training has given them."""

import numpy as np
import torch

from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.measure.evidence import write_table
from moe_lesson.widgets import BalanceRuns, BalancingRace

METHODS = tuple(EXPERIMENTS["balance"].rungs)
STEPS = (*range(20), *range(20, 500, 20))  # what the experiment records


def runs_of(methods=METHODS, seeds=3, steps=STEPS, layers=2, experts=16, tokens=4096, origin="synthetic") -> BalanceRuns:
    """Runs in which each method, more than the one after it, lets its loads drift apart from the first steps on."""
    rng = np.random.default_rng(0)
    tilt = 3 * rng.standard_normal((1, seeds, 1, layers, experts))
    drift = 1 - np.exp(-np.array(steps) / 15)
    strength = np.linspace(1, 0.05, len(methods))
    logits = tilt * drift[:, None, None] * strength[:, None, None, None, None]
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    shares = np.minimum(shares, 0.3) / np.minimum(shares, 0.3).sum(-1, keepdims=True)  # top-2 leaves an expert half at most
    noise = 0.05 * rng.standard_normal((1, seeds, len(steps)))  # the same text for all methods
    losses = 2 + 3.6 * np.exp(-np.array(steps) / 40) + noise + 0.02 * rng.standard_normal((len(methods), 1, 1))
    return BalanceRuns(tuple(methods), tuple(range(seeds)), torch.tensor(steps), torch.tensor(rng.multinomial(tokens, shares)),
                       torch.tensor(losses), origin)


def race_of(loads=None, losses=None, **more) -> BalancingRace:
    """The race of `runs_of`, or of loads [M][P][N] of one seed and one layer."""
    if loads is None:
        return BalancingRace(runs_of(**more))
    loads = torch.as_tensor(loads)[:, None, :, None]
    steps = torch.arange(loads.shape[2])
    losses = torch.zeros(loads.shape[:3]) if losses is None else torch.as_tensor(losses)[:, None]
    return BalancingRace(BalanceRuns(METHODS[:len(loads)], (0,), steps, loads, losses, "synthetic"))


def write_runs(folder, runs: BalanceRuns, name="balance-cpu", leave_out=()) -> None:
    """The tables that the experiment would have written; `leave_out` names rows (method, seed, step) of the curves."""
    curves, loads = [], []
    for m, method in enumerate(runs.methods):
        for s, seed in enumerate(runs.seeds):
            for p, step in enumerate(runs.steps.tolist()):
                row = {"rung": method, "seed": seed, "step": step}
                if (method, seed, step) not in leave_out:
                    curves.append(row | {"train_loss": runs.losses[m, s, p].item(), "max_violation": 0.0})
                loads += [row | {"layer": layer} | {f"expert_{n}": load for n, load in enumerate(load_N.tolist())}
                          for layer, load_N in enumerate(runs.loads[m, s, p])]
    for part, rows in (("curves", curves), ("loads", loads)):
        write_table(folder, f"{name}-{part}", rows, {"command": "synthetic"})
