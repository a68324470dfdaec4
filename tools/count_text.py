"""Write the ladder's count models anew, without its trainings: `python tools/count_text.py --out data` (minutes, one core)."""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from tables import record

from moe_lesson import machine_corpus, result_table
from moe_lesson.base.errors import require
from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.lm.counts import baselines
from moe_lesson.measure.evidence import write_table

NAME = "ladder-cpu"


def main() -> None:
    """Count, and write the table, if this machine has the text that the ladder was trained on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="data folder to write results/ladder-cpu-baselines.csv into")
    out = parser.parse_args().out
    start, corpus, preset = time.perf_counter(), machine_corpus(), EXPERIMENTS["ladder"].presets["cpu"]
    require(corpus.fingerprint() == result_table(NAME).provenance["corpus"],
            f"this machine's text is not that of {NAME}: another version of Python or torch has another one")
    rows = baselines(corpus, preset.context, preset.evaluated)
    made = record("count_text.py", "cpu", time.perf_counter() - start, asdict(preset))
    write_table(out / "results", f"{NAME}-baselines", rows, made | {"corpus": corpus.fingerprint()})


if __name__ == "__main__":
    main()
