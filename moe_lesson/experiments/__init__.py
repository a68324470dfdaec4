"""The experiments behind the shipped tables and models: `python -m moe_lesson.experiments` lists them."""

from .catalogue import EXPERIMENTS
from .run import run_experiment

__all__ = ["EXPERIMENTS", "run_experiment"]
