"""Expert parallelism for real, on one machine: P processes with a part of the experts each, beside one that has them all.

`python -m moe_lesson.moe.parallel_demo 2 4` prints a line of JSON for 2 processes and one for 4. `run(2, 4)` starts that and
reads it: a process can be started with what a file defines, not with what a notebook does. The processes talk by gloo, which is
on every computer and is no fast network: its seconds say nothing about GPUs.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import parallelize_module
from torch.multiprocessing.spawn import start_processes

from ..base.errors import require
from .layers import MoE
from .parallel import ExpertParallel, experts_each, send_counts, sum_gradients
from .routing import Routing

TOKENS, WIDTH, NUM_EXPERTS, TOP_K, EXPERT_WIDTH, NUM_SHARED = 1001, 64, 16, 4, 32, 1  # not each has as many tokens as the others
PATIENCE = timedelta(minutes=2)  # for a slow machine: one that is stuck gives up then
# A laptop's own name may lead nowhere: the processes meet at the address that each machine has for itself.
LOOPBACK = {"linux": {"GLOO_SOCKET_IFNAME": "lo"}, "darwin": {"GLOO_SOCKET_IFNAME": "lo0"}}


def run(*devices: int) -> list[dict]:
    """Compute a layer in each of these numbers of processes, and compare it with one process.

    Returns: for each number a dictionary:
        devices, tokens, width, num_experts, top_k: experts are shared out evenly, tokens nearly so;
        differences: by name the largest difference from one process, over the largest value there; 0.0 where they are equal;
        send_counts: [P][P] rows from process i to process j;
        received: [P] rows that reached each process;
        bytes_sent: [P] what each sent to the others, forward and backward, of numbers in float32;
        seconds: forward, backward, and how many of these were all_to_all, waiting included: [P] each.

    Raises:
        ValueError: if a number does not divide the experts.
        RuntimeError: if a process dies or is stuck, with its last words.
    """
    require(bool(devices), "no number of processes is given; try run(2, 4)")
    for number in devices:
        experts_each(NUM_EXPERTS, number)
    here = str(pathlib.Path(__file__).parents[2])  # the course need not be installed
    environment = LOOPBACK.get(sys.platform, {}) | os.environ | {
        "CUDA_VISIBLE_DEVICES": "",  # a fork of a process that has looked for a GPU can't compute a backward pass
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run([sys.executable, "-m", __name__, *map(str, devices)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"expert parallelism in {' and '.join(map(str, devices))} processes failed: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]  # gloo may say that it has connected


def main(devices: Sequence[int]) -> None:
    """Start each number of processes, which print what came out; where one dies, the others are stopped."""
    for number in devices:
        with tempfile.TemporaryDirectory() as folder:
            # a fork has imported everything already; elsewhere than on Linux it is not safe, or not there
            start_processes(work, (number, pathlib.Path(folder, "meeting").as_uri()), nprocs=number,
                            start_method="fork" if sys.platform == "linux" else "spawn")


def work(rank: int, devices: int, meeting: str) -> None:
    """One process of P: its part of the layer, and how that differs from the whole."""
    torch.set_num_threads(1)  # several threads add up in an order that changes, and here are several processes
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=devices, timeout=PATIENCE)
    mesh = init_device_mesh("cpu", (devices,))
    whole, part = layer(), layer()
    parallelize_module(part.experts, mesh, ExpertParallel())
    batch = tokens_and_targets()
    mine = [tensor.tensor_split(devices)[rank] for tensor in batch]

    expected, routing, _ = step(whole, *batch)
    step(part, *mine)  # the first time opens connections
    dist.barrier()
    with listening() as journeys:
        found, _, seconds = step(part, *mine)
    sum_gradients(part, mesh)

    result = {"differences": {name: difference(tensor, expected[name], rank, devices) for name, tensor in found.items()},
              "received": journeys[1]["rows"],  # the first are the counts, the third the rows' weights
              "bytes_sent": sum(journey["bytes"] for journey in journeys),
              "seconds": seconds | {"all_to_all": sum(journey["seconds"] for journey in journeys)}}
    results: list = [None] * devices
    dist.all_gather_object(results, result)
    if rank == 0:
        print(json.dumps(report(results, routing)), flush=True)
    dist.destroy_process_group()


def layer() -> MoE:
    """The whole layer, the same in every process."""
    torch.manual_seed(0)
    return MoE(WIDTH, NUM_EXPERTS, TOP_K, EXPERT_WIDTH, NUM_SHARED)


def tokens_and_targets() -> Tensor:
    """[2, T, D], the same in every process."""
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def step(moe: MoE, x_TD: Tensor, target_TD: Tensor) -> tuple[dict[str, Tensor], Routing, dict[str, float]]:
    """Forward and backward. Returns the output and all gradients by name, the routing, and the seconds of either way."""
    moe.zero_grad()
    x_TD = x_TD.clone().requires_grad_()
    began = time.perf_counter()
    y_TD, routing = moe(x_TD)
    turned = time.perf_counter()
    (y_TD - target_TD).square().sum().backward()
    seconds = {"forward": turned - began, "backward": time.perf_counter() - turned}
    gradients = {"x": x_TD.grad} | {name: parameter.grad for name, parameter in moe.named_parameters()}
    return {"output": y_TD.detach()} | gradients, routing, seconds


@contextmanager
def listening() -> Iterator[list[dict]]:
    """Write down every all-to-all of this process: the rows that came, the bytes that left for other processes, the seconds."""
    journeys: list[dict] = []
    rank, send_all = dist.get_rank(), dist.all_to_all_single

    def listened(out: Tensor, x: Tensor, receive=None, send=None, group=None) -> None:
        began = time.perf_counter()
        send_all(out, x, receive, send, group=group)
        stays = len(x) // dist.get_world_size() if send is None else send[rank]
        journeys.append({"rows": len(out), "bytes": x[stays:].nbytes, "seconds": time.perf_counter() - began})

    with mock.patch.object(dist, "all_to_all_single", listened):
        yield journeys


def difference(ours: Tensor, whole: Tensor, rank: int, devices: int) -> float:
    """The largest difference from what one process found, over the largest value there; `ours` may be one device's part of it."""
    if isinstance(ours, DTensor):
        ours = ours.to_local()
    theirs = whole if ours.shape == whole.shape else whole.tensor_split(devices)[rank]
    return ((ours - theirs).abs().max() / whole.abs().max()).item()


def report(results: Sequence[dict], routing: Routing) -> dict:
    """The processes' results in one."""
    send_counts_PP = send_counts(routing.expert_ids.tensor_split(len(results)), routing.num_experts)
    return {
        "devices": len(results), "tokens": TOKENS, "width": WIDTH, "num_experts": NUM_EXPERTS, "top_k": TOP_K,
        "differences": {name: max(result["differences"][name] for result in results) for name in results[0]["differences"]},
        "send_counts": send_counts_PP.tolist(),
        "received": [result["received"] for result in results],
        "bytes_sent": [result["bytes_sent"] for result in results],
        "seconds": {part: [result["seconds"][part] for result in results] for part in results[0]["seconds"]},
    }


if __name__ == "__main__":
    import torch._dynamo  # noqa: F401  DTensor does that when it is first used: here it is once for all processes

    main([int(number) for number in sys.argv[1:]])
