"""The ladder's and the layer's tables for a GPU, in three parts of at most 8.3 minutes; each goes on where the last one stopped.

    PYTHONPATH=. python tools/gpu_tables.py --text text.zip --out OUT                              # the first part
    PYTHONPATH=. python tools/gpu_tables.py --text text.zip --out OUT --state gpu-tables.tar.gz    # a further one
    tar -xzf gpu-tables.tar.gz -C data results                                                     # the tables, into the course

Where a machine is lent for minutes and only a folder comes back, all that is worth keeping is one file in OUT, gpu-tables.tar.gz:
the finished tables, and what finished trainings found out, without their models. A training that is cut short begins again; so
none begins that would not end in its part. `text.zip` is what `python -m moe_lesson.lm.fetched_text --save text.zip` writes on a
machine with a network; a folder is read as text of your own.

The plan for one H200, which its test adds up; 22.6 minutes in all:

1. 7.8 minutes: the ladder's rungs are tuned, 5 rungs × 3 learning rates.
2. 7.8 minutes: the ladder, 5 rungs × 3 fresh seeds.
3. 7.0 minutes: the training steps of the ladder's rungs, then the layers. 3 minutes each are assumed, most of them to compile;
   so they come last, where they can keep nothing else from being done. The layers go on with the size at which they stopped, and
   so begin where there is time for one.

Where the code is a copy without its repository, say which commit it is: `--commit $(git describe --always --abbrev=10)`.

A training has 1,800 steps of 32 × 256 tokens. The pilot of 2026-11-27 made 76 such steps a second on an H200, all trainings
together: with 13 at once, of bytes. One alone made 35 at four times the batch, so 5 at once are taken to make 76, too. Once
trainings have ended, what they took is counted with; where that is longer, there are more parts.

Left out: rungs that no declared contrast names; gate scales other than 1, wider grids, more than one tuning seed and three fresh
ones; what is done to trained models; count models, which need no GPU; and the experiment `balance`, which
`python -m moe_lesson.experiments balance --preset gpu` makes. `--preset tiny --device cpu` tries the script; most of its minutes
are torch.compile's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from moe_lesson.experiments.catalogue import EXPERIMENTS, Experiment
from moe_lesson.experiments.provenance import COMMIT, git_commit
from moe_lesson.experiments.run import run_experiment
from moe_lesson.experiments.rungs import LADDER_GPU, Preset
from moe_lesson.lm.corpora import Corpus
from moe_lesson.lm.fetched_text import fetched_corpus
from moe_lesson.lm.machine_text import machine_corpus
from moe_lesson.lm.own_text import own_corpus
from moe_lesson.moe.recipes import Budget

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = "gpu-tables.tar.gz"
FILES, MEGABYTES = 8, 16  # so many files, each of so much, come back from a machine on loan
MINUTES = 8.3  # of a part
START, STOPPING = 60, 20  # seconds: to read and encode the text; for processes to end in
BENCHMARK = 180  # seconds of each: assumed, not measured
ONE_SIZE = 75  # seconds of one size of the layer, assumed as well
WORKERS = 5  # trainings side by side on one card: a model of this size keeps a small part of it busy
STEPS_PER_SECOND = 76  # of all of them together
JUDGING = 1.15  # of a training's time: to judge and save its model, too
SEEDS = 3
LATER = 75  # how a worker ends that has no time to begin another training

TINY = Preset(Budget(64, 512), layers=1, width=16, heads=1, context=32, batch=2, steps=4, lrs=(1e-3, 2e-3), scales=(1.0,),
              evaluated=400)
PRESETS = {"gpu": LADDER_GPU, "tiny": TINY}
BENCHMARKS = {"ladder": BENCHMARK, "layer": ONE_SIZE}  # in order: seconds without which it is no use to begin
SMALLER = {"gpu": {"ladder": [], "layer": []},
           "tiny": {"ladder": ["--repeats", "2"], "layer": ["--tokens", "16", "--repeats", "1"]}}


def ladder() -> Experiment:
    """As much of the ladder as the plan has time for: the rungs of its declared contrasts."""
    whole = EXPERIMENTS["ladder"]
    named = dict.fromkeys(rung for _, *rungs in whole.contrasts for rung in rungs)
    return replace(whole, rungs={rung: whole.rungs[rung] for rung in named}, presets=PRESETS, seeds=SEEDS, widens=False,
                   controls={}, fewer_seeds={}, ships={}, baselines=False, changed=(), census=(), ablated=(), read_again=())


def planned(preset: Preset) -> float:
    """Seconds of a training among `WORKERS`."""
    return JUDGING * WORKERS * preset.steps / STEPS_PER_SECOND


@dataclass(frozen=True, eq=False)
class TextInTime(Corpus):
    """Text for trainings that end in time: who asks for the batches of another is told so (`NoTime`)."""

    fits: Callable[[], bool] = lambda: True

    def sampler(self, split: str, batch: int, context: int, seed: int = 0) -> Callable[[int], Tensor]:
        """As a corpus has it."""
        sample = super().sampler(split, batch, context, seed)  # first: it encodes the text
        if not self.fits():
            raise NoTime
        return sample


class NoTime(Exception):
    """A training would not end in its part."""


class Job(NamedTuple):
    """The table that says that it is done, a command, by how many processes at once, and the seconds without which it is no use
    to begin."""

    table: str
    command: list[str]
    processes: int
    seconds: float


def jobs(options: argparse.Namespace, deadline: float) -> Iterator[Job]:
    """What is to be done, in order."""
    text = ["--text", str(options.text)] if options.text else []
    command = ["tools/gpu_tables.py", *text, "--preset", options.preset, "--device", options.device, "--out", str(options.out),
               "--work", str(options.work), "--until", str(deadline)]
    workers = min(WORKERS, os.cpu_count() or 1)
    yield Job(f"ladder-{options.preset}-followed", command, workers, START + seconds_of_a_training(options))  # written last
    for tool, seconds in BENCHMARKS.items():
        command = [f"tools/benchmark_{tool}.py", "--device", options.device, "--out", str(options.work)]
        yield Job(f"{tool}-speed-{options.device}", command + SMALLER[options.preset][tool], 1, seconds)


def seconds_of_a_training(options: argparse.Namespace) -> float:
    """As the longest of those that have ended took; as planned, if none has."""
    longest = max((json.loads(file.read_text())["row"]["seconds"] for file in results_of(options)), default=0)
    return JUDGING * longest or planned(PRESETS[options.preset])  # one that diverged took 0


def results_of(options: argparse.Namespace) -> list[Path]:
    """The files of all trainings that have ended."""
    return sorted((options.work / f"ladder-{options.preset}").glob("*/result.json"))


def train(options: argparse.Namespace) -> None:
    """What each of the workers does: the experiment, as far as there is time."""
    EXPERIMENTS["ladder"] = ladder()
    text = options.text
    corpus = machine_corpus() if not text else own_corpus(text) if text.is_dir() else fetched_corpus(saved=text)
    in_time = TextInTime(corpus.documents, fits=lambda: time.time() + seconds_of_a_training(options) < options.until)
    try:
        run_experiment("ladder", options.preset, device=options.device, out=options.work, work=options.work, corpus=in_time,
                       progress=False)
    except (NoTime, KeyboardInterrupt):
        sys.exit(LATER)


def run(command: list[str], processes: int, deadline: float) -> list[int] | None:
    """Start a command so many times at once and wait for all: their exit codes. At the deadline, or at Ctrl-C, all are
    interrupted: None."""
    running = [subprocess.Popen([sys.executable, *command], cwd=ROOT) for _ in range(processes)]
    try:
        return [process.wait(max(0.0, deadline - time.time())) for process in running]
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in running:
            process.send_signal(signal.SIGINT)
        end = time.time() + STOPPING / 2
        for process in running:
            try:
                process.wait(max(0.0, end - time.time()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return None


def sign(options: argparse.Namespace) -> None:
    """Say in the records of the ladder's tables what made them: the experiment's own command trains more rungs."""
    for file in (options.work / "results").glob(f"ladder-{options.preset}*.json"):
        command = f"python tools/gpu_tables.py --preset {options.preset} --device {options.device}"
        made = json.loads(file.read_text()) | {"command": command + (" --text text.zip" if options.text else "")}
        file.write_text(json.dumps(made, indent=1) + "\n")


def pack(options: argparse.Namespace) -> None:
    """Keep the tables, and what finished trainings found out; their models are too large."""
    sign(options)
    unfinished = options.work / ARCHIVE
    with tarfile.open(unfinished, "w:gz") as archive:
        for file in sorted((options.work / "results").iterdir()) + results_of(options):
            archive.add(file, file.relative_to(options.work))
    shutil.copyfile(unfinished, options.out / ARCHIVE)


def unpack(state: Path, work: Path) -> None:
    """Put what the last part kept where it was."""
    try:
        with tarfile.open(state) as archive:
            archive.extractall(work, filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        sys.exit(f"gpu_tables: {state} can't be read ({error}); --state is the {ARCHIVE} that the last part left in its folder")


def check_files(out: Path) -> None:
    """Raise SystemExit where not all files of a folder come back from a machine on loan."""
    sizes = {file: file.stat().st_size / 1e6 for file in out.rglob("*") if file.is_file()}
    if len(sizes) > FILES:
        sys.exit(f"gpu_tables: {out} has {len(sizes)} files, and {FILES} come back; take a folder that is empty")
    for file, size in sizes.items():
        if size > MEGABYTES:
            sys.exit(f"gpu_tables: {file} has {size:.1f} MB, and no more than {MEGABYTES} MB come back; cut it with split(1)")


def work_through(options: argparse.Namespace, began: float, deadline: float) -> list[str]:
    """Do what is left, as far as there is time; returns what failed, which keeps nothing else from being done."""
    failed = []
    for job in jobs(options, deadline):
        table = options.work / "results" / f"{job.table}.csv"
        codes: list[int] | None = []
        if not table.exists():
            if began + job.seconds > deadline:
                sys.exit(f"gpu_tables: {job.table} takes {job.seconds / 60:.1f} minutes or more, and {STOPPING} seconds to stop; "
                         f"a part has {options.minutes:g}: give it more with --minutes")
            codes = run(job.command, job.processes, deadline) if time.time() + job.seconds < deadline else None
            pack(options)  # after each: a machine that is taken back leaves what is in OUT
        wrong = set(codes or ()) - {0, LATER}
        if wrong:
            failed.append(f"{' '.join(job.command)} ended with {min(wrong)}")
        else:
            print(f"{'done' if table.exists() else 'to be continued'}: {job.table}", flush=True)
        if codes is None or not (wrong or table.exists()):
            break
    return failed


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="the file of text, or a folder; the machine's own text unless given")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {ARCHIVE}")
    parser.add_argument("--state", type=Path, help=f"the {ARCHIVE} of the last part, unless it is in OUT")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu", help="folder for runs in progress")
    parser.add_argument("--commit", help="which commit this code is, where there is no repository")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"stop after so many (default {MINUTES})")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", choices=PRESETS, default="gpu")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # of a worker: the time at which the part ends
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    if options.until:
        return train(options)
    began = time.time()
    deadline = began + 60 * options.minutes - STOPPING
    if options.commit:
        os.environ[COMMIT] = options.commit  # for all that is started from here
    if git_commit() == "unknown":
        parser.error("no repository here says which commit this code is, and tables name theirs: give --commit, see above")
    options.out, options.work = options.out.resolve(), options.work.resolve()  # commands run in ROOT
    if options.text:
        options.text = options.text.resolve()
        if not options.text.exists():
            parser.error(f"there is no {options.text}; `python -m moe_lesson.lm.fetched_text --save FILE` writes it")
    for folder in (options.out, options.work / "results"):
        folder.mkdir(parents=True, exist_ok=True)
    check_files(options.out)
    if options.state or (options.out / ARCHIVE).exists():
        unpack(options.state or options.out / ARCHIVE, options.work)
    failed: list[str] = []
    try:
        failed = work_through(options, began, deadline)
    except KeyboardInterrupt:  # between two jobs
        print("interrupted", flush=True)
    pack(options)
    check_files(options.out)
    if failed:
        sys.exit(f"gpu_tables: {'; '.join(failed)}; mend it, and go on with the same command")


if __name__ == "__main__":
    main()
