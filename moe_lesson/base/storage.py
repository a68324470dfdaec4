"""Where the course's data lies, and files written whole or not at all.

No pickle is ever read: a file can hold numbers and text, never code.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterator

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

DATA = pathlib.Path(os.environ.get("MOE_LESSON_DATA") or pathlib.Path(__file__).parents[2] / "data")


def home() -> pathlib.Path:
    """Where the course keeps what is the learner's: MOE_LESSON_HOME, or a folder in their home."""
    return pathlib.Path(os.environ.get("MOE_LESSON_HOME") or pathlib.Path.home() / ".moe_lesson")


def read_safetensors(path: str | pathlib.Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or not a safetensors file.
    """
    if pathlib.Path(path).is_dir():
        raise ValueError(f"{path} is a folder; expected a safetensors file")
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with torch.device("cpu"), safe_open(path, framework="pt") as file:
            # cloned, so that nothing goes on reading from a file that may be replaced
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}); get or make it again") from error


def write_safetensors(path: str | pathlib.Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a file whole or not at all."""
    with whole(pathlib.Path(path)) as unfinished:
        save_file({name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # two names may share one tensor
                   for name, tensor in tensors.items()}, unfinished, metadata)


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text whole or not at all, the same bytes on every system."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where to write a file so that it is there whole or not at all: a crash leaves the old one. Its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
