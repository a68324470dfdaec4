"""Write what the data card says of the ladder from the ladder's tables: `python tools/ladder_card.py`."""

from __future__ import annotations

from pathlib import Path

from benchmark_layer import with_section

from moe_lesson import interval, result_table
from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.measure.evidence import Table, judged

CARD = Path(__file__).resolve().parents[1] / "data" / "README.md"
HEADING = "## The ladder"
NAMES = {"dense": "dense", "switch": "Switch: 1 of 8 experts", "gshard": "GShard: 2 of 16", "fine": "fine-grained: 8 of 64",
         "deepseekmoe": "DeepSeekMoE: 6 of 62, 2 shared", "gshard ×1.5": "GShard, experts 1.5 × as wide",
         "dense of total size": "dense, of total size"}


def section(table: Table, baselines: Table, experiment: str = "ladder") -> str:
    """The section: rungs with parameters and test loss, the contrasts that were declared, the count models."""
    declared, made = EXPERIMENTS[experiment], table.provenance
    rows = []
    for rung, name in NAMES.items():
        total, active = (table.column(figure, stage="final", rung=rung)[0] for figure in ("total", "active"))
        rows.append(f"| {name} | {total:,.0f} | {active:,.0f} | {interval(table.column('test', stage='final', rung=rung))} |")
    contrasts = [f"| {row['contrast']} | {row['difference']} | {row['p']:.3f} | {row['verdict']} |"
                 for row in judged(table, declared.contrasts, declared.margin)]
    counted = [f"| {row['model']} | {row['test']:.3f} |" for row in sorted(baselines.rows, key=lambda row: row["test"])]
    size = made["preset"]
    return "\n".join([
        "", "", f"{size['steps']:,} steps of {size['batch'] * size['context']:,} tokens; test loss in nats per byte, with 95% "
        "intervals over seeds.", "",
        "| | parameters | used by a token | test loss |", "|---|---|---|---|", *rows, "",
        f"**Declared before the first reported run** (Welch, Holm; alike: within ±{declared.margin:g}):", "",
        "| contrast | difference | p | verdict |", "|---|---|---|---|", *contrasts, "",
        "**Count models** (interpolated Kneser–Ney, all the train text once):", "",
        "| | test loss |", "|---|---|", *counted, ""])


def main() -> None:
    """Put the section in its place."""
    made = section(result_table("ladder-cpu"), result_table("ladder-cpu-baselines"))
    CARD.write_text(with_section(CARD.read_text(encoding="utf-8"), made, HEADING), encoding="utf-8")


if __name__ == "__main__":
    main()
