"""How long does a training step of every tuned rung of the ladder take, one beside the other?

    python tools/benchmark_ladder.py                                             # measure and print
    OMP_NUM_THREADS=2 python tools/benchmark_ladder.py --device cpu --out data   # and write data/results/ladder-speed-cpu.csv

The seconds in the experiment's own table are those of trainings that ran beside each other and beside other work. Here every
rung takes one step in turn, in a new order each time, so that what else the machine does falls on all alike; the ratio to the
dense rung is what can be compared from machine to machine. Each is measured as torch.compile makes it and as it stands in the
code; on a CPU with one thread, which is how the ladder was trained, compiled and several runs beside each other, and with all.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import torch
from tables import record

from moe_lesson import LanguageModel, TrainingConfig, next_token
from moe_lesson.base.devices import pick_device
from moe_lesson.base.tokens import VOCABULARY
from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.experiments.rungs import Preset
from moe_lesson.lm.training import adamw, one_step
from moe_lesson.measure.evidence import write_table

WARM_UP = 3  # steps that are not counted: the first ones allocate memory


def measure(preset: Preset, device: str, repeats: int) -> tuple[list[dict], dict[str, str]]:
    """Milliseconds of a training step, forward, backward and optimizer: median and quartiles, and the ratio to "dense"; compiled,
    and `eager_ms` and `eager_ratio` as the code stands. A row for each rung and number of threads; and why a rung has none."""
    threads = torch.get_num_threads()
    rows, left_out = [], {}
    try:
        for number in sorted({1, threads}) if device == "cpu" else [threads]:
            torch.set_num_threads(number)
            found, failed = measure_in_turn(preset, device, repeats)
            rows += [row | {"threads": number} for row in found]
            left_out |= failed
    finally:
        torch.set_num_threads(threads)
    return rows, left_out


def measure_in_turn(preset: Preset, device: str, repeats: int) -> tuple[list[dict], dict[str, str]]:
    """The rows of one number of threads, and why a rung has none."""
    torch.compiler.reset()  # what was compiled for another number counts towards a limit, above which nothing is compiled
    config = TrainingConfig(WARM_UP + repeats, lr=1e-3, bfloat16=preset.bfloat16)
    ladder = EXPERIMENTS["ladder"]
    plain = {rung: LanguageModel(sizes_of(preset, 1.0)).to(device) for rung, sizes_of in ladder.rungs.items()
             if rung not in ladder.controls}
    optimizers = {rung: adamw(model, config) for rung, model in plain.items()}
    models = {(rung, compiled): torch.compile(model) if compiled else model
              for rung, model in plain.items() for compiled in (True, False)}
    ids = torch.randint(VOCABULARY, (preset.batch, preset.context + 1), generator=torch.Generator().manual_seed(0)).to(device)
    objective, order, left_out = next_token(), random.Random(0), {}

    def milliseconds(key: tuple[str, bool], step: int) -> float:
        wait = torch.get_device_module(device).synchronize  # until a GPU has done what it was given
        wait()
        began = time.perf_counter()
        one_step(models[key], optimizers[key[0]], ids, step, config, objective)
        wait()
        return 1000 * (time.perf_counter() - began)

    for rung, compiled in list(models):
        try:
            for step in range(WARM_UP):
                milliseconds((rung, compiled), step)
        except Exception as error:  # on a GPU much is compiled for the first time: one rung must not cost the others their rows
            if rung == "dense":
                raise
            left_out[rung] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    found: dict[tuple[str, bool], list[float]] = {key: [] for key in models if key[0] not in left_out}
    for step in range(WARM_UP, WARM_UP + repeats):
        for key in order.sample(list(found), len(found)):
            found[key].append(milliseconds(key, step))
    dense, eager_dense = (statistics.median(found["dense", compiled]) for compiled in (True, False))
    rows = []
    for rung in [rung for rung in plain if rung not in left_out]:
        low, median, high = statistics.quantiles(found[rung, True], n=4, method="inclusive")
        eager = statistics.median(found[rung, False])
        rows.append({"rung": rung, "ms_per_step": median, "low_ms": low, "high_ms": high, "ratio": median / dense,
                     "eager_ms": eager, "eager_ratio": eager / eager_dense})
    return rows, left_out


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument("--repeats", type=int, default=25, help="steps of each rung (default 25)")
    parser.add_argument("--out", type=Path, help="data folder to write results/ladder-speed-….csv into")
    options = parser.parse_args(arguments)
    if options.repeats < 2:
        parser.error("--repeats must be at least 2")
    try:
        device = pick_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    preset = EXPERIMENTS["ladder"].presets["gpu" if device == "cuda" else "cpu"]
    began = time.perf_counter()
    rows, left_out = measure(preset, device, options.repeats)
    for row in rows:
        print(f"{row['rung']:35} {row['ms_per_step']:8.1f} ms  {row['ratio']:.2f} × dense; eager {row['eager_ratio']:.2f} ×; "
              f"threads: {row['threads']}")
    for rung, why in left_out.items():
        print(f"left out: {rung}: {why}")
    if options.out:
        command = f"benchmark_ladder.py --device {device} --repeats {options.repeats}"
        write_table(options.out / "results", f"ladder-speed-{device}", rows,
                    record(command, device, time.perf_counter() - began, asdict(preset)) | {"left_out": left_out})


if __name__ == "__main__":
    main()
