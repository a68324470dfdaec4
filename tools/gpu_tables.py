"""All tables that want a GPU, in parts of some minutes, each of which goes on where the last one stopped.

    python tools/gpu_tables.py --text text.zip --out OUT                      # begin: 8.5 minutes of work, then stop
    python tools/gpu_tables.py --text text.zip --out OUT --state state.tar    # go on: the state is the file that OUT had last

Where the machine is lent for a while and only a folder comes back, all that is worth keeping is in OUT: the finished tables
(`results/`), and `state.tar`, the results of finished trainings without their models. A training that is cut short starts again.
The text is the file that `python -m moe_lesson.lm.fetched_text --save text.zip` writes on a machine with a network.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 12  # trainings side by side on one card: a model of this size keeps a small part of it busy
STOPPING = 20  # seconds that processes get to finish the step they are at


def jobs(device: str, preset: str, text: Path | None, out: Path, work: Path) -> Iterator[tuple[str, list[str], int]]:
    """What is to be done, in order: the file that says it is done, the command, and by how many processes at once."""
    results = out / "results"
    for tool in ("layer", "ladder"):
        yield (f"{results}/{tool}-speed-{device}.csv", [f"tools/benchmark_{tool}.py", "--device", device, "--out", str(out)], 1)
    for name in ("ladder", "balance"):
        command = ["-m", "moe_lesson.experiments", name, "--preset", preset, "--device", device, "--out", str(out)]
        command += ["--work", str(work)] + (["--text", str(text)] if text else [])
        yield f"{results}/{name}-{preset}.csv", command, WORKERS


def run_until(deadline: float, command: list[str], processes: int) -> bool:
    """Start a command so many times at once and wait for all; at the deadline interrupt them. Returns whether it was finished."""
    running = [subprocess.Popen([sys.executable, *command], cwd=ROOT) for _ in range(processes)]
    for signal_sent, until in ((None, deadline), (signal.SIGINT, deadline + STOPPING), (signal.SIGKILL, None)):
        for process in running if signal_sent else ():
            process.send_signal(signal_sent)
        try:
            for process in running:
                process.wait(None if until is None else max(0.0, until - time.monotonic()))
            break
        except subprocess.TimeoutExpired:
            continue
    failed = [process.returncode for process in running if process.returncode]
    if failed and time.monotonic() < deadline:
        sys.exit(f"gpu_tables: {' '.join(command)} ended with {failed[0]}; mend it, and go on with the same command")
    return not failed


def pack(work: Path, state: Path) -> None:
    """Keep what finished trainings found out. Their models are too large to keep: one whose diagnosis was cut short is trained
    again."""
    with tarfile.open(state, "w:gz") as archive:
        for folder in sorted({file.parent for file in work.rglob("result.json")}):
            if all(lock.with_suffix(".json").exists() for lock in folder.glob("*.lock")):
                for file in sorted(folder.glob("*.json")):
                    archive.add(file, file.relative_to(work))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--text", type=Path, help="the file of text; the machine's own text unless given")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and the state")
    parser.add_argument("--state", type=Path, help="the state that an earlier part left in its folder")
    parser.add_argument("--work", type=Path, default=ROOT / "runs", help="folder for runs in progress")
    parser.add_argument("--minutes", type=float, default=8.5, help="stop after so many")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="gpu")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes - STOPPING
    for folder in (options.out / "results", options.work):
        folder.mkdir(parents=True, exist_ok=True)
    if options.state:
        with tarfile.open(options.state) as archive:
            archive.extractall(options.work, filter="data")
    for done, command, processes in jobs(options.device, options.preset, options.text, options.out, options.work):
        finished = Path(done).exists() or (time.monotonic() < deadline and run_until(deadline, command, processes))
        print(f"{'done' if finished else 'to be continued'}: {Path(done).name}", flush=True)
        if not finished:
            break
    pack(options.work, options.out / "state.tar")


if __name__ == "__main__":
    main()
