"""A model's weights for the browser: they travel once for each model, however many widgets read them."""

from __future__ import annotations

import hashlib
import json

import anywidget
import torch
from safetensors.torch import save
from traitlets import Bytes

from ...base.tokens import BYTES, MERGES
from ...lm.model import LanguageModel

SENT: dict[str, ModelWeights] = {}  # by checksum


class ModelWeights(anywidget.AnyWidget):  # a plain Widget would lose its bytes when JupyterLab saves the page
    """A checkpoint in the page, see moe.js: widgets know it by its model id."""

    _esm = "export default {}"
    data = Bytes().tag(sync=True)


def checkpoint_of(model: LanguageModel) -> bytes:
    """A model as a file for moe.js: in 16 bits where these hold every number, as in shipped files; `merges` make its tokens."""
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    small = {name: tensor.half() for name, tensor in tensors.items()}
    exact = all(torch.equal(small[name].float(), tensor) for name, tensor in tensors.items())
    merges = torch.tensor(MERGES[:model.config.vocabulary - BYTES], dtype=torch.int16, device="cpu")
    return save({**(small if exact else tensors), "merges": merges}, {"config": json.dumps(model.config.to_dict())})


def weights_of(model: LanguageModel) -> ModelWeights:
    """The weights of a model, sent unless they are there."""
    data = checkpoint_of(model)
    digest = hashlib.sha256(data).hexdigest()
    if digest not in SENT or SENT[digest].comm is None:
        SENT[digest] = ModelWeights(data=data)
    return SENT[digest]


def drop_unused(used: set[str]) -> None:
    """Take from the page what no open widget reads, given the model ids that are read."""
    for digest in [one for one, weights in SENT.items() if weights.comm is None or weights.model_id not in used]:
        SENT[digest].layout.close()  # a widget of its own
        SENT.pop(digest).close()
