"""What made a result: command, versions, device, commit, date; and models shipped with that record."""

import hashlib
import json
import os
import pathlib
import subprocess
from dataclasses import asdict

from ..lm.checkpoints import load_model, save_model, save_snapshots, write_checksums
from ..lm.corpora import Corpus
from ..lm.model import LanguageModel
from .catalogue import EXPERIMENTS, Experiment
from .rungs import Preset
from .tasks import TextTask

COMMIT = "MOE_LESSON_COMMIT"


def digest(*parts: dict) -> str:
    """A short name for all that decides a run's result: no run is taken for another, and a wider grid keeps the runs it has."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def provenance(name: str, preset_name: str, preset: Preset, seeds: int, device: str, corpus: Corpus | None,
               results: list[dict], given: bool = False) -> dict:
    """What made a table: command, versions, device, seconds, date, sizes, and the text it was trained on.

    Commit, versions, device and date are those of the trainings, not of the moment when the table is written; where runs
    of one table differ in them, all are named. `given` text is a file that the command must be given, too.
    """
    def of_runs(key: str) -> str:
        return ", ".join(sorted({result["made"][key] for result in results}))

    return {
        "command": f"python -m moe_lesson.experiments {name} --preset {preset_name} --seeds {seeds} --device {device}"
        + (" --text FILE" if given else "") + (" --compile" if any("compiled" in result["made"] for result in results) else ""),
        "commit": of_runs("commit"),
        "versions": {"python": of_runs("python"), "torch": of_runs("torch")},
        "device": of_runs("device"),
        "seconds": round(sum(result["row"]["seconds"] for result in results)),
        "date": of_runs("date"),
        "preset": asdict(preset),
        "corpus": corpus.fingerprint() if corpus else EXPERIMENTS[name].learns,
    }


def git_commit() -> str:
    """The commit that the code stands at: what the environment says it is (MOE_LESSON_COMMIT), or its repository, with "+" when
    it was changed since; elsewhere "unknown", within somebody else's repository, too."""
    home = pathlib.Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=home, capture_output=True, text=True, check=True).stdout.strip()

    if said := os.environ.get(COMMIT):
        return said
    try:
        own = pathlib.Path(git("rev-parse", "--show-toplevel")).samefile(home)
        return git("describe", "--always", "--dirty=+", "--abbrev=10") if own else "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def ship(experiment: Experiment, finals: list[dict], corpus: Corpus, folder: pathlib.Path, made: dict) -> None:
    """Write the seed-0 model of each shipped rung, with its record and checksum. Seed 0, whatever its loss: not the best one.

    In float16, half the size; a test holds its loss to that of the model that was trained. Beside it, where a training was
    followed, what its routers chose along the way.
    """
    for result in finals:
        row = result["row"]
        if row["seed"] == 0 and row["rung"] in experiment.ships:
            name = experiment.ships[row["rung"]]
            model, _ = load_model(pathlib.Path(result["folder"]) / "model.safetensors")
            about = {key: made[key] for key in ("command", "commit", "versions", "device", "date", "corpus")} | {"run": row}
            save_model(folder / f"{name}.safetensors", model.half(), about)
            if any(result["chosen"].values()):
                untrained = TextTask(corpus, 0).chosen(LanguageModel(model.config, seed=0))
                along = {int(step): chosen for step, chosen in result["chosen"].items()}  # a file has no numbers for keys
                save_snapshots(folder / f"{name}-snapshots.safetensors", {0: untrained} | along, about)
    write_checksums(folder)
