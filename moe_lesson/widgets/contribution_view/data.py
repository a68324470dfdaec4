"""The contribution view: how loud the shared and the routed part of an MoE layer are for each token, beside no training.

A layer's output is the sum of the two parts. The browser runs both models on a text that the learner writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from numpy import ndarray
from torch import Tensor
from traitlets import Bytes, Int, List, Unicode

from ...base.errors import require, whole_number
from ...base.text import visible, well_formed
from ...base.tokens import encode, token_texts
from ...lm.model import LanguageModel, evaluating
from ...measure.instruments import layer_inputs, shared_and_routed
from ...moe.layers import moe_layers
from ...moe.routing import Routing
from ..kit.base import ReadingWidget, one_of, within
from ..kit.gates import count, packed_choices
from ..kit.weights import checkpoint_of

IN_TEXT, BY_SHARE = "as in the text", "by the routed part's share"
MOST_TOKENS = 300  # columns: more could not be told apart


@dataclass(frozen=True)
class Contribution:
    """What the two parts of one layer give to each token.

    Args:
        shared_T: length of the shared experts' output, not negative.
        routed_T: length of the routed experts' weighted sum, not negative.
        cosine_T: of the two: 1 if they point the same way, 0 at right angles, -1 if they cancel.
        expert_ids, weights: which routed experts each token chose, [T, K].
    """

    shared_T: ndarray
    routed_T: ndarray
    cosine_T: ndarray
    expert_ids: Tensor
    weights: Tensor

    @classmethod
    def of(cls, shared_TD: Tensor, routed_TD: Tensor, routing: Routing) -> Contribution:
        """The lengths and the cosine of two parts, see `shared_and_routed`."""
        shared_TD, routed_TD = shared_TD.detach().double().cpu(), routed_TD.detach().double().cpu()
        cosine_T = F.cosine_similarity(shared_TD, routed_TD, dim=-1)
        return cls(*(part.numpy() for part in (shared_TD.norm(dim=-1), routed_TD.norm(dim=-1), cosine_T)),
                   routing.expert_ids.cpu(), routing.weights.detach().double().cpu())


@torch.no_grad()
def contributions(model: LanguageModel, text: str | bytes) -> list[Contribution]:
    """What the two parts of every MoE layer give to each token of a text.

    Raises:
        ValueError: if a layer of the model has no shared expert.
    """
    check_model(model)
    ids = torch.tensor([encode(text, model.config.vocabulary)], device=model.embedding.weight.device)
    with evaluating(model):
        return [Contribution.of(*shared_and_routed(layer, x_TD), layer.router(x_TD))
                for layer, x_TD in zip(moe_layers(model), layer_inputs(model, ids))]


class ContributionView(ReadingWidget):
    """See how loud the shared and the routed part of an MoE layer are for each token, and whether they agree.

    Args:
        layers: L contributions, one per MoE layer, of the same T tokens (at most 300) and the same K.
        null: the same for an untrained model of the same sizes.
        tokens: T texts.
        width: D; two random directions of D numbers have a cosine within ±2/√D most of the time.
        sizes: N of each layer.
        num_shared: how many shared experts; they run as one FFN.
        origin: where the layers come from, shown on the widget's face: "trained", "toy" or "synthetic".
        name: of the model, shown beside the origin.
        seed: of the untrained model.

    Traits to read, set and observe: `layer` (0 … L-1), `order` ("as in the text" or "by the routed part's share") and
    `locked_token` (an index in the text, or None); of a view made by `of_model` also `text`.

    Raises:
        ValueError: if there is no token or too many, or the contributions do not fit together.
    """

    name = Unicode().tag(sync=True)
    seed = Int().tag(sync=True)
    width = Int().tag(sync=True)
    num_shared = Int().tag(sync=True)
    tokens = List(Unicode()).tag(sync=True)  # of the text at the start
    sizes = List(Int()).tag(sync=True)  # N of each layer
    top_k = Int().tag(sync=True)
    parts = Bytes().tag(sync=True)  # float64 [2, L, 3, T]: as given and untrained; shared, routed, cosine
    expert_ids = Bytes().tag(sync=True)  # int32 [L, T, K]
    expert_weights = Bytes().tag(sync=True)  # float64 [L, T, K]
    untrained = Bytes().tag(sync=True)  # the checkpoint of the untrained one

    layer = Int(0).tag(sync=True)
    order = Unicode(IN_TEXT).tag(sync=True)
    locked_token = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, layers: Sequence[Contribution], null: Sequence[Contribution], tokens: Sequence[str], *, width: int,
                 sizes: Sequence[int], num_shared: int, origin: str = "trained", name: str = "model",
                 title: str = "shared and routed parts", seed: int = 0, **more):
        require(width >= 1, f"width is {width}; expected the model width D, at least 1")
        require(num_shared >= 1, f"num_shared is {num_shared}; expected at least 1 shared expert")
        seed = whole_number("seed", seed, least=0)
        check_layers(layers, tokens, sizes, "layers")
        check_layers(null, tokens, sizes, "null")
        parts = np.array([[(one.shared_T, one.routed_T, one.cosine_T) for one in group] for group in (layers, null)], np.float64)
        start = {"layer": 0, "order": IN_TEXT, "locked_token": None, "text": more.pop("text", "")}
        super().__init__(title=title, name=name, origin=origin, seed=seed, width=width, num_shared=num_shared,
                         tokens=[visible(token) for token in tokens], sizes=list(sizes), top_k=layers[0].expert_ids.shape[1],
                         parts=parts.tobytes(), **packed_choices(layers), start=start, **more)

    @classmethod
    def of_model(cls, model: LanguageModel, text: str, seed: int = 0, *, name: str = "", **more) -> ContributionView:
        """What the two parts give to each token of any text, in a language model and in an untrained one of the same sizes.

        The untrained model is untrained throughout: its layers read its own hidden states, not the trained model's.

        Args:
            model: a `LanguageModel` whose MoE layers all have shared experts.
            text: what stands in the text field at first, at most the model's context long.
            seed: of the untrained model's weights.
            name: of the model, e.g. "ladder-deepseekmoe"; empty names its sizes.
            more: as above.

        Raises:
            ValueError: if an MoE layer has no shared expert or there is none, or the text is empty or too long.
        """
        check_model(model)
        ids = encode(text, model.config.vocabulary)
        require(len(ids) > 0, "the text is empty, so no layer has anything to add to; write at least one letter")
        moes = moe_layers(model)
        sizes = [layer.router.weight.shape[1] for layer in moes]
        num_shared = max(getattr(recipe, "num_shared", 0) for recipe in model.config.recipes)
        untrained = LanguageModel(model.config, seed).half().float()  # 16 bits are enough for a null, and half to send
        parts = contributions(model, text), contributions(untrained, text)
        one = cls(*parts, token_texts(ids), width=model.config.width, sizes=sizes, num_shared=num_shared, seed=seed,
                  text=well_formed(text), **more,
                  name=name or f"{len(sizes)}-layer MoE of {'/'.join(map(str, dict.fromkeys(sizes)))} + {num_shared} experts",
                  max_tokens=min(model.config.context, MOST_TOKENS), untrained=checkpoint_of(untrained))
        one.carry(model)
        return one

    @traitlets.validate("layer", "locked_token")
    def _in_range(self, proposal):
        return within(proposal, {"layer": (0, len(self.sizes) - 1), "locked_token": (0, self.last_token)})

    @traitlets.validate("order")
    def _known(self, proposal):
        return one_of(proposal, {"order": (IN_TEXT, BY_SHARE)})


# --- validation -------------------------------------------------------------------------------------------------------


def check_model(model: LanguageModel) -> None:
    """Refuse a model that has no two parts to compare."""
    layers = moe_layers(model)
    require(bool(layers) and all(layer.shared is not None for layer in layers),
            "this model has an MoE layer without shared experts, or no MoE layer, so there are no two parts to compare; "
            'take a model whose MoE layers all have them, as shipped_model("ladder-deepseekmoe")')


def check_layers(layers: Sequence[Contribution], tokens: Sequence[str], sizes: Sequence[int], name: str) -> None:
    """Refuse what is not the contributions of one text of readable length through one or more layers with the same K."""
    require(isinstance(layers, Sequence) and len(layers) > 0, f"{name} is empty or no list; expected one Contribution per layer")
    require(len(layers) == len(sizes), f"{name} has {count(len(layers), 'layer')}, sizes has {len(sizes)}; give one each")
    require(1 <= len(tokens) <= MOST_TOKENS,
            f"there are {len(tokens)} tokens; the view shows 1 … {MOST_TOKENS}, take a piece of the text")
    for layer, (one, experts) in enumerate(zip(layers, sizes)):
        here = f"{name}[{layer}]"
        require(isinstance(one, Contribution), f"{here} is {type(one).__name__}; expected a Contribution")
        shape = (len(tokens), layers[0].expert_ids.shape[-1])
        for part in ("shared_T", "routed_T", "cosine_T"):
            require(getattr(one, part).shape == shape[:1],
                    f"{here}.{part} has shape {getattr(one, part).shape}; expected one number for each of {shape[0]} tokens")
            require(bool(np.isfinite(getattr(one, part)).all()),
                    f"{here}.{part} holds NaN or infinity; look for a diverged training or a division by zero")
        ids, weights = tuple(one.expert_ids.shape), tuple(one.weights.shape)
        require(ids == weights == shape, f"{here} has experts {ids} and weights {weights}; expected [T, K] = {shape}")
        require(0 <= one.expert_ids.min() <= one.expert_ids.max() < experts,
                f"{here}: expert ids run from {one.expert_ids.min()} to {one.expert_ids.max()}; expected 0 to {experts - 1}")
        require(min(one.shared_T.min(), one.routed_T.min()) >= 0, f"{here} has a negative length; a length is 0 or more")
        silent = np.flatnonzero(one.shared_T + one.routed_T == 0)
        require(len(silent) == 0, f"{here}: both parts have length 0 for token {silent[:1]}, so there is no share to show")
