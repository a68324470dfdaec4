"""What the tools that make tables share: the record beside a table, and the section of a page that is written from one."""

import datetime
import platform

import torch

from moe_lesson.base.devices import device_name
from moe_lesson.experiments.provenance import git_commit


def record(command: str, device: str, seconds: float, preset: dict, **versions: str) -> dict:
    """What made a table.

    Args:
        command: the tool and its arguments, without "python tools/" and "--out data".
        device: cpu, with as many threads as PyTorch has, cuda or mps.
        seconds: that it took.
        preset: the sizes that were measured.
        versions: of what took part besides Python and PyTorch.
    """
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()} " if device == "cpu" else ""
    return {"command": f"{threads}python tools/{command} --out data", "commit": git_commit(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__} | versions,
            "device": device_name(device), "seconds": round(seconds), "date": datetime.date.today().isoformat(),
            "preset": preset, "corpus": "none"}


def with_section(page: str, body: str, heading: str) -> str:
    """The page with this text under a heading."""
    before, rest = page.split(heading, 1)
    return before + heading + body + rest[rest.index("\n## "):]
