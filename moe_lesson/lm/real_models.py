"""Trained mixtures of experts that others publish, and the course's own in their clothes: what lesson 11 looks at.

Nothing is downloaded unasked, no code that comes with a model is run, and no pickle is read.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..base.errors import require
from ..moe.routing import Routing, routed
from .checkpoints import shipped_model
from .converted import to_transformers
from .model import LanguageModel, listening
from .real import moe_blocks, routings_of

GB = 10 ** 9
FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]  # of a published model: no pickles, no code


@dataclass(frozen=True)
class Published:
    """A model on the Hugging Face Hub.

    Args:
        repo: its name there.
        licence: as its card says.
        size: bytes of its weights, about; as many are needed in memory.
        about: its experts and what it read.
    """

    repo: str
    licence: str
    size: int
    about: str


PUBLISHED = {
    "tinymoe": Published("shibatch/tinymoe2m", "MIT", 8 * 10 ** 6, "Mixtral class, 2 of 4 experts, children's stories"),
    "granite": Published("ibm-granite/granite-3.1-1b-a400m-base", "Apache 2.0", 27 * GB // 10, "8 of 32 experts"),
    "olmoe": Published("allenai/OLMoE-1B-7B-0924", "Apache 2.0", 138 * GB // 10, "8 of 64 experts"),
    "v2-lite": Published("deepseek-ai/DeepSeek-V2-Lite", "DeepSeek's own", 314 * GB // 10, "6 of 64 experts, 2 shared"),
}


@dataclass(frozen=True, eq=False)
class RealModel:
    """A trained model of a class of transformers, and how it reads.

    Args:
        name: to show.
        model: as `transformers` gives it.
        read: text -> token ids [T] and the T tokens as text.
    """

    name: str
    model: Any
    read: Callable[[str], tuple[Tensor, tuple[str, ...]]]

    def route(self, text: str) -> dict[str, Routing]:
        """What each router does with a text: the name of the mixture's module -> its `Routing`, its tokens readable."""
        ids_T, tokens = self.read(text)
        return routings_of(self.model, ids_T, tokens)

    def loss(self, text: str) -> float:
        """The mean next-token loss of a text, in nats per token."""
        return self.loss_of(self.read(text)[0])

    @torch.no_grad()
    def loss_of(self, ids_T: Tensor) -> float:
        """The mean next-token loss of token ids [T], in nats per token."""
        logits = self.model(input_ids=ids_T[None], use_cache=False).logits[0].float()
        return torch.nn.functional.cross_entropy(logits[:-1], ids_T[1:]).item()


def open_model(name: str = "", download: bool = False) -> RealModel:
    """A published model, or the course's own DeepSeekMoE in a class of transformers.

    Args:
        name: one of `PUBLISHED`; "" is the course's own.
        download: whether it may be downloaded if it is not on this machine; a bar shows how far it is.

    Returns: the model; where it can't be had, the course's own, and a sentence that says why.

    Raises:
        ValueError: for an unknown name.
        ImportError: without transformers.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ImportError("real models need Hugging Face transformers: pip install 'transformers>=5.20'")
    require(name in ("", *PUBLISHED), f"unknown model {name!r}; choose one of {', '.join(PUBLISHED)}, or '' for the course's own")
    if name:
        try:
            return published(PUBLISHED[name], download)
        except (OSError, ValueError, SafetensorError) as reason:
            print(f"{PUBLISHED[name].repo} can't be opened: {str(reason).splitlines()[0]}")
            print("The lesson goes on with the course's own.")
    return own_model()


def own_model(shipped: str = "ladder-deepseekmoe") -> RealModel:
    """A shipped model of the course in a class of transformers; it reads as it always did."""
    ours = shipped_model(shipped)[0]
    theirs = to_transformers(ours)
    return RealModel(f"the course's {shipped}, as {type(theirs).__name__}", theirs, lambda text: read_by(ours, text))


def read_by(model: LanguageModel, text: str) -> tuple[Tensor, tuple[str, ...]]:
    """The token ids that a model of the course makes of a text, and their names: taken from what it reads itself."""
    with listening([model.embedding]) as heard:
        routings = model.route(text)
    return heard[0].flatten(), routed(routings)[0].tokens or ()


def published(one: Published, download: bool) -> RealModel:
    """A model of the Hub: from this machine, or downloaded if it may be and there is room.

    Raises:
        ValueError: if it is not here and may not be downloaded, or is too large for this machine.
        OSError: if there is no network.
    """
    memory = free_memory()
    small = memory is not None and one.size > 0.8 * memory
    require(not small or importlib.util.find_spec("accelerate") is not None,
            f"it needs {one.size / GB:.1f} GB of memory, and {(memory or 0) / GB:.1f} GB are free here; with the package "
            "accelerate (pip install accelerate) experts can wait on disk")
    folder = on_this_machine(one.repo)
    if folder is None:
        require(download, f"it is not on this machine; {one.size / GB:.2g} GB would be downloaded (licence: {one.licence}). "
                          "To do so, say download=True")
        folder = downloaded(one)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = loaded(folder, int(0.8 * memory) if memory and small else None)
    return RealModel(one.repo, model, lambda text: read_with(tokenizer, text))


def loaded(folder: str | pathlib.Path, memory: int | None = None) -> Any:
    """A model of transformers, from its files.

    Args:
        folder: where they are.
        memory: bytes that it may take in memory, all of it unless given; experts that have no room wait on disk, beside the
            files, until their layer calls them. That is slow: each text has all of them read.

    Raises:
        ValueError: if not even the rest has room, or the disk has none for the experts.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    options: dict[str, Any] = {}
    if memory is not None:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            places = experts_on_disk(AutoModelForCausalLM.from_config(config, dtype=config.dtype), memory, pathlib.Path(folder))
        waiting = tempfile.TemporaryDirectory(prefix="waiting-", dir=folder)
        options = {"device_map": places, "offload_folder": waiting.name}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True, **options).eval()
    if memory is not None:
        weakref.finalize(model, waiting.cleanup)  # they are read as long as the model lives
    return model


def experts_on_disk(model: torch.nn.Module, memory: int, disk: pathlib.Path) -> dict[str, str]:
    """Where the weights of a mixture that memory can't hold are to be, for `from_pretrained`: the experts of so many layers as
    have room in memory, those of the others on disk; all else in memory, so the routers, too."""
    def size(part: torch.nn.Module) -> int:
        return sum(one.nbytes for one in part.state_dict().values())

    experts = {f"{block.name}.experts": size(block.module.experts) for block in moe_blocks(model)}
    least = size(model) - sum(experts.values()) + max(experts.values())  # those that are called come into memory
    require(least <= memory, f"with the experts of one layer at a time it needs {least / GB:.2g} GB of memory, and has "
                             f"{memory / GB:.2g}; take a smaller one, or a larger machine")
    room, waiting = memory - least, []
    for name, each in experts.items():
        room -= each
        if room < 0:
            waiting.append(name)
    free, needed = shutil.disk_usage(disk).free, sum(experts[name] for name in waiting)
    require(needed < free, f"{needed / GB:.2g} GB of experts would wait on disk, and {free / GB:.2g} are free in {disk}")
    print(f"{needed / size(model):.0%} of its {size(model) / GB:.2g} GB wait on disk, the experts of {len(waiting)} of "
          f"{len(experts)} layers: each text takes as long as it takes to read them.")
    places = dict.fromkeys(waiting, "disk")
    for name, part in model.named_modules():
        own = [tensor for tensor, _ in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))]
        holds = any(one.startswith(f"{name}.") for one in waiting)  # then its own tensors by name: its experts are elsewhere
        if own and name not in waiting:
            places |= dict.fromkeys([f"{name}.{tensor}" for tensor in own] if holds else [name], "cpu")
    return places


def on_this_machine(repo: str) -> str | None:
    """The folder of a model that was downloaded earlier, whole; None if there is none."""
    from huggingface_hub import snapshot_download

    try:  # by the same patterns as the download: what it leaves out is not missing
        folder = snapshot_download(repo, allow_patterns=FILES, local_files_only=True)
    except OSError:
        return None
    return folder if any(pathlib.Path(folder).glob("*.safetensors")) else None


def downloaded(one: Published) -> str:
    """Download a model, without pickles and code; what was begun goes on where it stopped.

    Raises:
        ValueError: if the disk is too full.
        OSError: if there is no network.
    """
    from huggingface_hub import constants, snapshot_download

    cache = pathlib.Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    require(free > 1.1 * one.size, f"it takes {one.size / GB:.1f} GB of disk, and {free / GB:.1f} GB are free in {cache}")
    try:
        return snapshot_download(one.repo, allow_patterns=FILES)
    except Exception as error:  # httpx has errors of its own for no network
        raise OSError(f"the download did not come through ({type(error).__name__}: {error})") from error


def read_with(tokenizer: Any, text: str) -> tuple[Tensor, tuple[str, ...]]:
    """The token ids that a tokenizer makes of a text, and what each stands for in it."""
    coded = tokenizer(text, return_offsets_mapping=True)
    ids = coded["input_ids"]
    parts = [text[start:end] for start, end in coded["offset_mapping"]]
    return torch.tensor(ids), tuple(part or tokenizer.decode([i]) for part, i in zip(parts, ids))


def free_memory() -> int | None:
    """Bytes of memory that are free for a model, or None where the system does not say."""
    meminfo = pathlib.Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS says what is there, not what is free
    return None
