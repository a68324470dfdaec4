"""Where the time of an MoE layer goes: the work and the memory traffic of each of its stages, and what a device takes for them.

A device multiplies at a rate and moves bytes at another; a stage takes as long as the slower of the two (the roofline, Williams,
Waterman and Patterson 2009). It is a bound where nothing stays in a cache; how near a kernel comes, only a
measurement tells.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base.devices import device_name, fast_dtype, pick_device
from ..base.errors import require


@dataclass(frozen=True)
class Device:
    """What a device can do at most: FLOPs per second of its matrix products, and bytes per second of its memory; and how many
    bytes each number has there, 2 in bfloat16 and float16, in which a GPU multiplies, 4 in float32."""

    name: str
    flops: float
    bandwidth: float
    bytes_each: int = 2

    @property
    def ridge(self) -> float:
        """FLOPs per byte at which both take equally long: a stage with fewer waits for memory."""
        return self.flops / self.bandwidth


# Dense products of 16 bits, and the memory of the variant named; from NVIDIA's data sheets.
DEVICES = {device.name: device for device in (
    Device("B200", 2250e12, 8e12), Device("H200", 989e12, 4.8e12), Device("H100 SXM", 989e12, 3.35e12),
    Device("A100 SXM 80 GB", 312e12, 2.04e12), Device("T4", 65e12, 0.32e12))}


@dataclass(frozen=True)
class Stage:
    """One step of a layer: its FLOPs, and how many numbers it reads from memory and writes there."""

    name: str
    flops: float
    numbers: float

    def seconds(self, device: Device) -> float:
        """The least time that a device needs."""
        return max(self.flops / device.flops, self.numbers * device.bytes_each / device.bandwidth)


def least_rows(columns_in: int, columns_out: int, device: Device) -> float:
    """With how many rows the product [rows, in] × [in, out] of 16-bit numbers keeps a device's units busy; ∞ if with none.

    >>> round(least_rows(2048, 2 * 512, DEVICES["H100 SXM"])), least_rows(2048, 512, Device("wide", 1e15, 1e12))
    (520, inf)
    """
    left = 1 / device.ridge - 1 / columns_in - 1 / columns_out
    return 1 / left if left > 0 else float("inf")


def product(name: str, rows: int, columns_in: int, columns_out: int, matrices: float = 1) -> Stage:
    """The product of rows with a matrix, or of some rows with each of several matrices: each matrix is read once."""
    numbers = rows * columns_in + matrices * columns_in * columns_out + rows * columns_out
    return Stage(name, 2 * rows * columns_in * columns_out, numbers)


def called_experts(tokens: int, num_experts: int, top_k: int) -> float:
    """How many of N experts are called at all, on average, if each of T tokens calls any K of them at random.

    >>> [round(called_experts(tokens, 64, 6), 1) for tokens in (1, 8, 64, 256)]
    [6.0, 34.9, 63.9, 64.0]
    """
    return num_experts * (1 - (1 - top_k / num_experts) ** tokens)


def dense_stages(tokens: int, width: int, hidden: int) -> list[Stage]:
    """The forward pass of a dense FFN.

    Args:
        tokens: T.
        width: D.
        hidden: its hidden units; K·H for the work of the routed part of a mixture.
    """
    return [product("up", tokens, width, 2 * hidden), activation(tokens, hidden), product("down", tokens, hidden, width)]


def activation(rows: int, hidden: int) -> Stage:
    """SwiGLU reads gate and up, and writes one of them, if it is one kernel, as a compiler makes it. Else silu(gate) goes to
    memory and back, too."""
    return Stage("activation", 0, 3 * rows * hidden)


def moe_stages(tokens: int, num_experts: int, top_k: int, width: int, expert_width: int, fused: bool = False) -> list[Stage]:
    """The forward pass of a routed layer, router included, if all experts are equally likely to be called.

    Args:
        tokens, num_experts, top_k, width, expert_width: T, N, K, D, H.
        fused: gather, activation and weights happen inside the first product, as in `moe.fused`; else each is a stage as in
            `moe.dispatch.at_once`.

    Returns: the stages in their order.

    Raises:
        ValueError: if K lies outside 1 … N.
    """
    require(1 <= top_k <= num_experts, f"top_k is {top_k}, but there are {num_experts} experts; expected 1 … {num_experts}")
    R, called = tokens * top_k, called_experts(tokens, num_experts, top_k)
    router = product("router", tokens, width, num_experts)
    up, down = product("up", R, width, 2 * expert_width, called), product("down", R, expert_width, width, called)
    if fused:  # the first product writes gate and up, for the backward pass, and what the second one reads
        return [router, Stage("up", up.flops, up.numbers + R * expert_width), down, Stage("combine", 0, (R + tokens) * width)]
    return [router, Stage("gather", 0, 2 * R * width), up, activation(R, expert_width), Stage("weigh", 0, 2 * R * expert_width),
            down, Stage("combine", 0, (3 * R + tokens) * width)]  # rows in the tokens' order, written and read, then their sums


def kept_for_backward(tokens: int, top_k: int, width: int, expert_width: int, fused: bool = False, bytes_each: int = 2) -> int:
    """Bytes that a training keeps of the routed part of one layer until its backward pass.

    Unfused the gathered rows, gate and up, silu of the gate, that times up, and that times the weight; fused gate and up, and
    the tokens. The few numbers of the routing are not counted.
    """
    R = tokens * top_k
    return bytes_each * (2 * R * expert_width + tokens * width if fused else R * (width + 5 * expert_width))


def seconds(stages: list[Stage], device: Device) -> float:
    """The least time of some stages one after the other."""
    return sum(stage.seconds(device) for stage in stages)


def measured_device() -> Device:
    """This machine's own two rates, from a product of two square matrices and from a copy that no cache holds, each the median of
    some runs. On a CUDA device smaller ones would be over before Python has asked for the next."""
    device = pick_device("auto")
    dtype = fast_dtype(device)
    size, length = (8192, 2 ** 29) if device == "cuda" else (1024, 2 ** 26)
    a = torch.rand(size, size, device=device, dtype=dtype)
    many = torch.rand(length, device=device, dtype=dtype)
    copy = torch.zeros_like(many)  # memory that is there already: a CPU would spend its time on asking for it
    return Device(device_name(device), 2 * size ** 3 / median_seconds(lambda: a @ a, device),
                  2 * many.nbytes / median_seconds(lambda: copy.copy_(many), device), many.element_size())


def median_seconds(run: Callable[[], Tensor], device: str, repeats: int = 9) -> float:
    """The median time of something, after one time that does not count."""
    wait, times = torch.get_device_module(device).synchronize, []
    for _ in range(repeats + 1):
        wait()
        began = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
