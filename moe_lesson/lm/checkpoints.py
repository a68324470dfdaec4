"""Models and training states in safetensors files; the models that ship with the course, with their checksums."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import require
from ..base.storage import DATA, checksum, read_safetensors, write_safetensors, write_text
from ..moe.layers import check_model
from .model import LanguageModel, ModelConfig


def save_model(path: str | pathlib.Path, model: LanguageModel, about: dict) -> None:
    """Write a model with its sizes and a record of what made it.

    Args:
        path: of the file, written whole or not at all.
        model: unchanged since it was built.
        about: plain values: command, versions, device, seconds, date, results.

    Raises:
        ValueError: for a model that is not what its config says; `load_model` would build another one. Or if JSON can't hold
            `about`.
        OSError: if the file can't be written.
    """
    check_model(model)
    require(isinstance(getattr(model, "config", None), ModelConfig),
            f"a {type(model).__name__} has no config to build it by again; save its state_dict() instead")
    with torch.device("meta"):
        told = LanguageModel(model.config)
    shapes, wanted = ([tensor.shape for tensor in one.state_dict().values()] for one in (model, told))
    require(parts(model) == parts(told) and shapes == wanted,
            "this model is not what its config says: it was changed after it was built, and would be read as another one; save "
            "the model that it was made of")
    write_safetensors(path, model.state_dict(), {"config": as_json(model.config.to_dict()), "about": as_json(about),
                                                 "seed": as_json(model.seed)})


def as_json(values: Any) -> str:
    """Values as JSON, tensors and NumPy's numbers as plain ones: a size may be one; ValueError for what JSON can't hold."""
    def plain(value: Any) -> Any:
        if not hasattr(value, "tolist"):
            raise ValueError(f"{value!r:.60} is a {type(value).__name__}; expected numbers, text, lists or dictionaries of "
                             "them; str() makes most things text")
        return value.tolist()

    try:
        return json.dumps(values, default=plain)
    except TypeError as error:  # of a key
        raise ValueError(f"{error}; name values by text") from error


def load_model(path: str | pathlib.Path) -> tuple[LanguageModel, dict]:
    """The model that `save_model` wrote, in evaluation mode on the CPU, and the record beside it.

    Its weights are float32, whatever they were when it was saved: those in float64 are rounded.

    Raises:
        FileNotFoundError, PermissionError, ValueError: if the file is missing, may not be read, is damaged, or holds another
            kind of thing.
    """
    tensors, metadata = read_safetensors(path)
    require("identity" not in metadata, f"{path} is a training state of train, not a model: call train again with it as its "
                                        "checkpoint, then save_model")
    try:
        config, about = ModelConfig.from_dict(json.loads(metadata["config"])), json.loads(metadata.get("about", "{}"))
        seed = json.loads(metadata.get("seed", "null"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no model of this course: its config can't be read ({error!r})") from error
    with torch.device("cpu"):
        model = LanguageModel(config)
    model.seed = seed
    fill(model, tensors, path)
    return model.eval(), about


def parts(model: nn.Module) -> list[tuple[type, str]]:
    """What a model is built of, with what decides beside the weights, such as top_k; what torch.compile wraps around it aside."""
    return [(type(part), part.extra_repr()) for part in model.modules() if not hasattr(part, "_orig_mod")]


def fill(model: nn.Module, tensors: dict[str, Tensor], path: str | pathlib.Path) -> None:
    """Put tensors into a model, all of them, no others; what torch.compile adds to their names does not count."""
    state = model.state_dict()
    own = {name.replace("_orig_mod.", ""): name for name in state}
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    wanted = {name: tuple(state[own[name]].shape) for name in own}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        require(wanted.get(name) == found.get(name),
                f"{path} does not fit the model: {name} has shape {found.get(name)}, expected {wanted.get(name)}")
    model.load_state_dict({own[name]: tensor for name, tensor in tensors.items()})


# ------------------------------------------------------------------------------------------------------- shipped models


def checksums() -> dict[str, str]:
    """File name -> SHA-256 of the shipped checkpoints, from the list beside them."""
    listing = DATA / "checkpoints" / "SHA256SUMS"
    if not listing.is_file():
        raise FileNotFoundError(f"the shipped models are not in {DATA}; set MOE_LESSON_DATA to the course's data folder")
    pairs = [line.split() for line in listing.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    require(all(len(pair) == 2 for pair in pairs), f"{listing} is damaged: a line is not 'checksum  file'; get it again")
    return {name: digest for digest, name in pairs}


def shipped_model(name: str) -> tuple[LanguageModel, dict]:
    """A model that ships with the course, its file checked first.

    Args:
        name: e.g. "ladder-deepseekmoe"; a wrong name lists the right ones.

    Raises:
        ValueError: for an unknown name, or a file that is not the one that was shipped.
    """
    return load_model(shipped_file(name))


def shipped_file(name: str) -> pathlib.Path:
    """The file of that name that ships with the course, once its checksum is checked."""
    known = checksums()
    file = f"{name}.safetensors"
    alike = [n for n in known if ("-snapshots" in n) == ("-snapshots" in file)]  # models, or the snapshots of some
    require(file in known, f"no model {name!r} ships with the course; there are "
                           f"{', '.join(sorted(pathlib.Path(n).stem for n in alike))}")
    path = DATA / "checkpoints" / file
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; get the course again or make it with `make experiments`")
    require(checksum(path) == known[file],
            f"{path} is not the file that was shipped (its SHA-256 differs): it is damaged or was changed; get it again")
    return path


def shipped_snapshots(name: str) -> dict[int, list[Tensor]]:
    """What the routers of a shipped model chose along its training, for the same validation tokens.

    Args:
        name: of the model.

    Returns: step, rising, 0 before the training -> for each MoE layer the expert ids [T, K].

    Raises:
        ValueError: if there are none, or the file is not the one that was shipped.
    """
    tensors, _ = read_safetensors(shipped_file(f"{name}-snapshots"))
    steps = sorted({int(key.split(".")[0]) for key in tensors})
    layers = len(tensors) // len(steps)
    return {step: [tensors[f"{step}.{layer}"].long() for layer in range(layers)] for step in steps}


def save_snapshots(path: str | pathlib.Path, chosen: dict[int, list], about: dict) -> None:
    """Write what `shipped_snapshots` reads: step -> for each MoE layer the expert ids [T][K], at most 256 experts."""
    tensors = {f"{step}.{layer}": torch.tensor(ids, dtype=torch.uint8, device="cpu")
               for step, layers in chosen.items() for layer, ids in enumerate(layers)}
    write_safetensors(path, tensors, {"about": json.dumps(about)})


def write_checksums(folder: pathlib.Path) -> None:
    """Write SHA256SUMS, in the format of `sha256sum`, for every checkpoint in a folder."""
    lines = [f"{checksum(path)}  {path.name}\n" for path in sorted(folder.glob("*.safetensors"))]
    write_text(folder / "SHA256SUMS", "".join(lines))


# ------------------------------------------------------------------------------------------------------ training states


def training_identity(model: nn.Module, batch_at: Callable[[int], Tensor], objective: Callable) -> dict:
    """What a training state belongs to, weights and configuration apart, in the words that say how another one differs.

    Raises:
        ValueError: if a batch is no tensor, or not the same at every call.
    """
    first, again = batch_at(0), batch_at(0)
    require(isinstance(first, Tensor), f"batch_at(0) gave a {type(first).__name__}; expected one tensor: join several into one")
    batch, other = (fingerprint(one.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
                    for one in (first, again))  # bytes, since NumPy has no bfloat16
    require(batch == other, "batch_at(0) gave two different batches; expected the same batch for the same step: index a list, or "
            "take Corpus.sampler, whose batches depend on seed and step alone")
    task = getattr(objective, "task_loss", objective)
    return {"a model of seed": getattr(model, "seed", None), "model": model_identity(model), "first batch": batch,
            "precision": ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in model.state_dict().values()})),
            "objective": getattr(task, "__qualname__", type(task).__qualname__), "balance": getattr(objective, "balance", None)}


def model_identity(model: nn.Module) -> str:
    """A short name for what a model computes, its weights apart: two models of equal shapes may differ in top_k alone."""
    config = getattr(model, "config", "")
    return fingerprint(f"{config.to_dict() if isinstance(config, ModelConfig) else config}{parts(model)}".encode())


def fingerprint(raw: bytes) -> str:
    """A short name for some bytes."""
    return hashlib.sha256(raw).hexdigest()[:16]


def save_training_state(path: str | pathlib.Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: dict,
                        history: dict) -> None:
    """Write all that a training needs to go on exactly: weights, optimizer, what identifies the training, history."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": tensor for name, tensor in state.items()}
    write_safetensors(path, tensors, {"identity": as_json(identity), "history": as_json(history)})


def load_training_state(path: str | pathlib.Path, tensors: dict[str, Tensor], model: nn.Module,
                        optimizer: torch.optim.Optimizer) -> None:
    """Put the weights and the optimizer state of a file where they belong."""
    fill(model, {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}, path)
    state: dict[int, dict] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".")
            state.setdefault(int(i), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def read_training_state(path: str | pathlib.Path) -> tuple[dict[str, Tensor], dict, dict]:
    """What `save_training_state` wrote, before it is put to use: tensors, identity, history.

    Raises:
        ValueError: if the file is damaged or holds something else.
    """
    tensors, metadata = read_safetensors(path)
    try:
        return tensors, json.loads(metadata["identity"]), json.loads(metadata["history"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no training state; give another file name to train into") from error
