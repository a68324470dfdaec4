"""Segmentation views that several tests look at. Losses and hybridity are made up: test fixtures, no training gave them."""

import functools

from widget_harness import made

from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.lm.ledger import ffn_cost, model_cost
from moe_lesson.lm.model import ModelConfig
from moe_lesson.measure.evidence import write_table
from moe_lesson.moe.recipes import Budget
from moe_lesson.widgets.segmentation_view.data import TABLES, SegmentationView, World

LOSSES = {(1, 0): 1.62, (2, 0): 1.58, (4, 0): 1.55, (8, 0): 1.552, (4, 1): 1.548, (4, 2): 1.546, (4, 4): 1.57}
SPREAD = (-0.01, -0.004, 0.0, 0.005, 0.012)  # of five seeds, in shares of the mean
BUDGETS = {"text": (64, Budget(192, 1536)), "skills world": (32, Budget(64, 512))}


def made_up(name: str, segments: int, num_shared: int) -> dict[str, list[float]]:
    """Test losses, and in the skills world hybridity, of five seeds."""
    loss = LOSSES[segments, num_shared] * (1 if name == "text" else 0.07)
    values = {"test": [loss * (1 + share) for share in SPREAD]}
    return values if name == "text" else values | {"hybridity": [(6 - segments / 2) * (1 + share) for share in SPREAD]}


@functools.cache
def world_of(name: str) -> World:
    """The settings that the experiments measure."""
    width, budget = BUDGETS[name]
    _, unit, measured = TABLES[name]
    loss, hybridity = ({slot: made_up(name, *slot)[column] for slot in measured if column in made_up(name, *slot)}
                       for column in ("test", "hybridity"))
    return World(width, budget.experts(top_k=2, segments=4), unit, loss, hybridity)


def view_of(**settings) -> SegmentationView:
    return made(SegmentationView({name: world_of(name) for name in BUDGETS}, origin="synthetic"), **settings)


def write_made_up_tables(folder, *, leave_out=(), total=0) -> None:
    """Tables in the form that the experiments write; `leave_out` names rungs, `total` is added to the parameters."""
    for name, (experiment, _, rungs) in TABLES.items():
        preset, rows = EXPERIMENTS[experiment].presets["cpu"], []
        for slot, rung in rungs.items():
            sizes = EXPERIMENTS[experiment].rungs[rung](preset, 1.0)
            cost = model_cost(sizes) if isinstance(sizes, ModelConfig) else ffn_cost(sizes, preset.width)
            row = {"rung": rung, "lr": 0.01, "scale": 1.0, "total": cost.total + total, "active": cost.active}
            values = made_up(name, *slot)
            tuned = {"stage": "tune", "seed": 1000, "validation": 9.0, **{column: "" for column in values}}
            finals = [] if rung in leave_out else [
                {"stage": "final", "seed": seed, "validation": 9.0, **{column: value[seed] for column, value in values.items()}}
                for seed in range(len(SPREAD))]
            rows += [row | more for more in (tuned, *finals)]
        write_table(folder, f"{experiment}-cpu", rows, {"command": "made up for a test"})
