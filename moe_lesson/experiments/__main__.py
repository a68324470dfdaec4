"""The command line of the experiments: `python -m moe_lesson.experiments` lists them."""

import argparse
import pathlib
import sys

from ..lm.fetched_text import fetched_corpus
from ..lm.training import TrainingDiverged
from . import __doc__ as about
from .catalogue import EXPERIMENTS
from .run import OUT, WORK, run_experiment


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m moe_lesson.experiments", description=about)
    parser.add_argument("name", nargs="?", help="the experiment, or all; without it, they are listed")
    parser.add_argument("--preset", default="cpu", help="cpu (minutes to hours on a laptop) or gpu (one large GPU)")
    parser.add_argument("--seeds", type=int, help="fresh seeds to train and report (default: the experiment's own number)")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help=f"folder for tables and models (default {OUT})")
    parser.add_argument("--work", type=pathlib.Path, default=WORK, help=f"folder for runs in progress (default {WORK})")
    parser.add_argument("--text", type=pathlib.Path, help="the file that moe_lesson.lm.fetched_text --save wrote, to train on it")
    parser.add_argument("--compile", action="store_true", help="train what torch.compile makes of the models: faster")
    options = parser.parse_args(arguments)
    if options.name is None:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name}\n    {experiment.question}\n    rungs: {', '.join(experiment.rungs)}")
        return
    try:
        corpus = fetched_corpus(saved=options.text) if options.text else None
        known = [name for name, experiment in EXPERIMENTS.items() if options.preset in experiment.presets]
        names = (known or list(EXPERIMENTS)) if options.name == "all" else [options.name]
        if left := ", ".join(name for name in EXPERIMENTS if options.name == "all" and name not in names):
            print(f"left out, since they have no preset {options.preset!r}: {left}")
        for name in names:
            table = run_experiment(name, options.preset, options.seeds, options.device, options.out, options.work, corpus,
                                   compiled=options.compile)
            print(f"wrote {table}")
    except (ValueError, OSError, MemoryError, TrainingDiverged) as error:
        sys.exit(f"experiments: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where it stopped")


if __name__ == "__main__":
    main()
