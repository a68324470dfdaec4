"""Write what the data card says of the ladder from the ladder's tables: `python tools/ladder_card.py`."""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from statistics import correlation, fmean

from scipy.stats import ttest_rel
from tables import with_section

from moe_lesson import interval, result_table
from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.measure.evidence import Table, holm, judged

CARD = Path(__file__).resolve().parents[1] / "data" / "README.md"
HEADING = "## The ladder"
NAMES = {"dense": "dense", "switch": "Switch: 1 of 8 experts", "gshard": "GShard: 2 of 16", "fine": "fine-grained: 8 of 64",
         "deepseekmoe": "DeepSeekMoE: 6 of 62, 2 shared", "gshard ×1.5": "GShard, experts 1.5 × as wide",
         "dense of total size": "dense, of total size"}
BOUND = "the same, with a gate scale to choose, as mixtures have"  # a table of its own
TABLES = ("ladder-cpu", "bound-cpu", "ladder-cpu-texts", "ladder-cpu-baselines", "ladder-cpu-repeats")


def table_of(columns: tuple[str, ...], rows: list[tuple]) -> list[str]:
    """A table in Markdown, and an empty line."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""]


def margin(ladder: Table, rung: str) -> str:
    """By how much validation loss a rung's best setting leads the next, of those tried with all tuning seeds; else nothing."""
    losses: dict[tuple, list[float]] = {}
    for row in ladder.rows:
        if (row["stage"], row["rung"]) == ("tune", rung):
            losses.setdefault((row["lr"], row["scale"]), []).append(row["validation"])
    seeds = max(map(len, losses.values()), default=0)
    best = sorted(fmean(each) for each in losses.values() if len(each) == seeds)
    return f"{best[1] - best[0]:.4f} (n = {seeds})" if len(best) > 1 else ""


def pairing(ladder: Table) -> str:
    """What comparing seed by seed would change: the correlations, over seeds, of the test losses of two tuned rungs, and the
    contrasts that would have another verdict."""
    declared = EXPERIMENTS["ladder"]
    losses = {rung: ladder.column("test", stage="final", rung=rung) for rung in NAMES if rung not in declared.controls}
    found = sorted(correlation(*pair) for pair in combinations(losses.values(), 2))
    paired = holm([float(ttest_rel(losses[one], losses[other]).pvalue) for _, one, other in declared.contrasts])
    other = {row["contrast"]: "shown" if p < 0.05 else "not shown"
             for row, p in zip(judged(ladder, declared.contrasts, declared.margin), paired)
             if (row["verdict"] == "shown") != (p < 0.05)}
    changes = "".join(f" By seed, {contrast} would be *{verdict}*." for contrast, verdict in other.items())
    return ("**Not paired**, as declared: the rungs of a seed begin alike in all that they have in common, but their losses "
            f"have correlations from {found[0]:.2f} to {found[-1]:.2f}, {round(fmean(found), 2) + 0.0:.2f} on average.{changes}")


def section(ladder: Table, bound: Table, texts: Table, baselines: Table, repeats: Table) -> str:
    """The section: rungs with parameters and test loss, the contrasts that were declared, and what else the text is read with."""
    declared, size = EXPERIMENTS["ladder"], ladder.provenance["preset"]
    outside = {rung: [row["outside"] for row in texts.rows if row["rung"] == rung] for rung in NAMES}
    rungs = [(name, *(f"{table.column(figure, stage='final', rung=rung)[0]:,.0f}" for figure in ("total", "active")),
              interval(table.column("test", stage="final", rung=rung)), read_again, margin(table, rung))
             for table, rung, name, read_again in [
                 *((ladder, rung, name, f"{fmean(outside[rung]):.3f}" if outside[rung] else "") for rung, name in NAMES.items()),
                 (bound, "dense of total size", BOUND, "")]]
    contrasts = [(row["contrast"], row["difference"], f"{row['p']:.3f}" if row["p"] >= 0.001 else "<0.001", row["verdict"])
                 for row in judged(ladder, declared.contrasts, declared.margin)]
    counted = [(row["model"], f"{row['test']:.3f}", f"{row['outside']:.3f}" if row["outside"] != "" else "")
               for row in sorted(baselines.rows, key=lambda row: row["test"])]
    overlap = [(row["domain"], *(f"{row[f'{length} bytes']:.1%}" for length in (40, 80))) for row in repeats.rows]
    return "\n".join([
        "", "", f"{size['steps']:,} steps of {size['batch'] * size['context']:,} tokens; test loss in nats per byte, with 95% "
        "intervals over seeds.", "",
        *table_of(("", "parameters", "used by a token", "test loss", "outside of repeats", "tuning: ahead of the next"), rungs),
        "*Tuning: ahead of the next* is the validation loss of the next best setting less that of the setting that was taken, "
        "means over tuning seeds; a rung without a number takes its neighbour's setting.", "",
        "**Declared before the first reported run** (Welch; *p* is corrected for all of them by Holm, the intervals are not; "
        f"shown: p below 0.05, else alike: the interval within ±{declared.margin:g}, else open):", "",
        *table_of(("contrast", "difference", "p", "verdict"), contrasts),
        pairing(ladder), "",
        "**Count models** (interpolated Kneser–Ney, all the train text once, the discount tuned on validation text; by "
        "`python tools/count_text.py`) and two packers. A packer is no such model: it "
        "looks back further than 256 tokens, and goes on to learn from the test text while it reads it.", "",
        *table_of(("", "test loss", "outside of repeats"), counted),
        "**Repeats**: so much of the test text stands in the train text word for word, in passages of 40 and of 80 bytes. "
        "*Outside of repeats* is the loss of what stands in no passage of 80.", "",
        *table_of(("", "40 bytes", "80 bytes"), overlap),
        f"**Other documents**: with other test documents of the same kinds a loss could be another one, by up to "
        f"{fmean(texts.column('over_documents')):.3f} (95%, from the beginnings of all of them). The intervals above are over "
        "seeds.", ""])


def main() -> None:
    """Put the section in its place."""
    made = section(*map(result_table, TABLES))
    CARD.write_text(with_section(CARD.read_text(encoding="utf-8"), made, HEADING), encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help tells, and does nothing
    main()
