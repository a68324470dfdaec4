"""Where the course's data lies, and files written whole or not at all.

No pickle is ever read: a file can hold numbers and text, never code.
"""

import contextlib
import glob
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import require

DATA = pathlib.Path(os.environ.get("MOE_LESSON_DATA") or pathlib.Path(__file__).parents[2] / "data")


def home() -> pathlib.Path:
    """Where the course keeps what is the learner's: MOE_LESSON_HOME, or a folder in their home."""
    return pathlib.Path(os.environ.get("MOE_LESSON_HOME") or pathlib.Path.home() / ".moe_lesson")


def read_safetensors(path: str | pathlib.Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        PermissionError: if it may not be read.
        ValueError: if it is damaged or not a safetensors file.
    """
    require(not pathlib.Path(path).is_dir(), f"{path} is a folder; expected a safetensors file")
    try:
        open(path, "rb").close()  # of a file that may not be read, safetensors says that it is not there
        with torch.device("cpu"), safe_open(path, framework="pt") as file:
            # cloned, so that nothing goes on reading from a file that may be replaced
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"there is no file {path}") from error
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}); get or make it again") from error


def read_json(path: pathlib.Path, *keys: str) -> Any:
    """What a JSON file of a run in progress holds: a dictionary with these keys, or a list if there are none.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    require(isinstance(found, dict) and found.keys() >= {*keys} if keys else isinstance(found, list),
            f"{path} is damaged; delete it, and the same command makes it again")
    return found


def write_safetensors(path: str | pathlib.Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a file whole or not at all; errors as `write_files`."""
    copies = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # two names may share one tensor
              for name, tensor in tensors.items()}
    write_files({pathlib.Path(path): save(copies, metadata)})  # its save_file has a temporary file of its own, with mode 0600


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text whole or not at all, the same bytes on every system; errors as `write_files`."""
    write_files({path: text.encode()})


def write_files(contents: Mapping[pathlib.Path, bytes]) -> None:
    """Write files, each whole or not at all, and none where one can't be written; the last is put in its place first.

    Raises:
        OSError: if one can't be written.
    """
    with contextlib.ExitStack() as stack:
        for path, content in contents.items():
            try:
                stack.enter_context(whole(path)).write_bytes(content)
            except OSError as error:
                raise OSError(f"{path} can't be written ({error}); make room for it, or choose another place") from error


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where to write a file so that it is there whole or not at all: a crash leaves the old one. Its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in filter(abandoned, path.parent.glob(f"{glob.escape(path.name)}.*.partial")):
        with contextlib.suppress(OSError):  # it is another user's, or another process was first
            left.unlink()
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # it is in its place, or it could not be written
            unfinished.unlink()


def abandoned(partial: pathlib.Path) -> bool:
    """Whether the process that wrote an unfinished file is gone. On Windows, where os.kill ends whom it asks, its age says so."""
    try:
        if os.name == "nt":
            return time.time() - partial.stat().st_mtime > 3600
        os.kill(int(partial.name.split(".")[-2]), 0)
    except (ProcessLookupError, FileNotFoundError):
        return True
    except (OSError, ValueError, OverflowError):  # another user's process, or no file of ours
        pass
    return False


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
