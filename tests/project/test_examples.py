"""The examples: over several processes they compute what one process computes, and the commands of their page fit them."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from moe_lesson.moe.parallel_demo import LOOPBACK

REPO = Path(__file__).resolve().parents[2]
EXAMPLE = REPO / "examples" / "train_fsdp2_ep.py"
PAGE = (REPO / "examples" / "README.md").read_text(encoding="utf-8")

# As torchrun starts it, but that all processes are forks of one: what takes seconds is to import PyTorch.
STARTER = """
import dataclasses, json, os, sys, tempfile
import torch, torch._dynamo, torch.distributed as dist
from torch.multiprocessing.spawn import start_processes
import train_fsdp2_ep as example

example.MODEL = dataclasses.replace(example.MODEL, layers=1, width=32, ffn=example.Sparse(8, 2, 16, num_shared=1))

def work(rank, world, experts_over, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    sys.argv = ["example", "--experts-over", str(experts_over), "--steps", "3", "--batch", "8", "--max-bytes", "20000"]
    example.main()

for world, experts_over in json.loads(sys.argv[1]):
    print("over", world, experts_over, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        start_processes(work, (world, experts_over, folder), nprocs=world, start_method="fork")
"""
OVER = [(1, 1), (2, 2), (4, 2)]  # devices, and over how many the experts are shared out


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are forks, which are safe on Linux alone")
def test_loss_and_gradient_are_the_same_over_any_number_of_devices():
    environment = os.environ | LOOPBACK["linux"] | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
                                                    "PYTHONPATH": f"{REPO}{os.pathsep}{EXAMPLE.parent}"}
    command = [sys.executable, "-c", STARTER, json.dumps(OVER)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("over"):
            rows = found[tuple(map(int, line.split()[1:]))] = []
        elif line.startswith("step"):
            rows.append([float(number) for number in re.findall(r"\d+\.\d+", line)])
    assert list(found) == OVER and [len(rows) for rows in found.values()] == [3] * len(OVER)
    for over in OVER[1:]:
        for step, (one, several) in enumerate(zip(found[1, 1], found[over])):
            assert several == pytest.approx(one, abs=3e-4), (over, step)  # printed with four decimals


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere gloo is told otherwise which interface to take")
def test_torchrun_starts_it():
    environment = os.environ | LOOPBACK["linux"] | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
               "--nproc-per-node", "2", str(EXAMPLE),
               "--experts-over", "2", "--steps", "1", "--batch", "2", "--max-bytes", "20000"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(re.findall(r"^step", done.stdout, re.MULTILINE)) == 1  # the first process alone speaks


@pytest.fixture
def example(monkeypatch):
    """The example as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    return importlib.import_module(EXAMPLE.stem)


@pytest.mark.parametrize("arguments, devices, message", [
    ([], "", "start it with torchrun"),
    (["--experts-over", "3"], "4", "4 devices make no rows of 3; choose a divisor of 4"),
    (["--experts-over", "0"], "4", "4 devices make no rows of 0; choose a divisor of 4"),
    (["--experts-over", "2", "--batch", "6"], "4", "6 sequences can't be shared out over 4 devices; choose a multiple"),
])
def test_what_does_not_fit_the_devices_is_refused(example, arguments, devices, message, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", devices)
    monkeypatch.setattr(sys, "argv", ["example", *arguments])
    with pytest.raises(ValueError, match=message):
        example.arguments()


def test_the_commands_of_the_page_fit_the_example(example, monkeypatch):
    commands = re.findall(r"^torchrun .+$", PAGE, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        torchrun, option, devices, path, *arguments = shlex.split(command, comments=True)
        assert (option, REPO / path) == ("--nproc-per-node", EXAMPLE)
        monkeypatch.setenv("WORLD_SIZE", devices)
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        assert example.arguments().experts_over <= int(devices)
