"""Where to compute: the devices that PyTorch has here, and what to call them in a record."""

import platform

import torch

from .errors import require


def pick_device(device: str) -> str:
    """The device to use: "auto" takes a GPU where there is one, "cuda" or Apple's "mps"; ValueError where there is none."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    require(device in ("auto", *there), f"unknown device {device!r}; choose one of auto, {', '.join(there)}")
    require(there.get(device, True), f"no GPU is there for PyTorch to use as {device!r}; choose --device cpu")
    return next(name for name in there if there[name]) if device == "auto" else device


def fast_dtype(device: str) -> torch.dtype:
    """What to multiply in: on a CUDA GPU bfloat16, or float16 where it only emulates that (a T4); on all else float32."""
    if device != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def device_name(device: str) -> str:
    """The device in words, for a record."""
    if device == "cpu":
        return f"CPU {platform.machine()}, threads: {torch.get_num_threads()}"
    return torch.cuda.get_device_name() if device == "cuda" else "Apple GPU"
