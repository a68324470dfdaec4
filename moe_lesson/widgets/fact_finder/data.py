"""The fact finder: which facts a model still answers, and how much of the common skill it has, when experts are taken away.

Python packs the models and a sample of the facts; the browser runs them. A *box* is an expert of a layer, routed or shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
import traitlets
from safetensors.torch import save
from torch import Tensor
from traitlets import Bytes, Dict, Int, List, Unicode

from ...base.errors import require
from ...measure.facts import FactsModel, FactsWorld, Questions
from ...measure.interventions import cut_experts
from ...moe.layers import DenseFFN, Router
from ..kit.base import LessonWidget
from ..kit.gates import Gate

MOST = 64  # topics, and facts of each: more could not be told apart


class FactFinder(LessonWidget):
    """Take experts away from models that remember facts, and see which facts go dark and how much of the common skill goes.

    Make one with `FactFinder.of_models`. A fact goes to the next best experts, as in `without_experts`; where fewer than K are
    left, to these; and where none is, the shared ones answer alone.

    Traits to read, set and observe: `shown` (the models side by side) and `gone` (model -> what is taken away, e.g. "expert 3",
    "shared 0").
    """

    topics = Int().tag(sync=True)
    per_topic = Int().tag(sync=True)  # facts of each in the sample
    num_answers = Int().tag(sync=True)  # V
    models = List(Dict()).tag(sync=True)  # see `about`
    sample = Bytes().tag(sync=True)  # safetensors: x [T, D], answers, common [T]; "i.…" of the i-th model, see `tensors_of`

    shown = List(Unicode()).tag(sync=True)
    gone = Dict().tag(sync=True)

    @classmethod
    def of_models(cls, models: Mapping[str, FactsModel], world: FactsWorld, per_topic: int = 32, *, origin: str = "trained",
                  title: str = "Who remembers what?", gone: Mapping[str, Sequence[str]] | None = None) -> FactFinder:
        """A finder that begins with the first two models.

        Args:
            models: name -> model, all trained in this world.
            world: of the facts.
            per_topic: how many facts of each topic to show, asked once each.
            origin, title: as in every widget.
            gone: what is taken away at first, {} for nothing. Unless given, of a model with shared experts all others, so that
                these stand alone, and of one without a quarter.

        Raises:
            ValueError, TraitError: if a model is not of this world, or something is asked for that is not there.
        """
        check_models(models, world)
        for name, number, most in (("topics", world.topics, MOST), ("per_topic", per_topic, min(world.per_topic, MOST))):
            require(1 <= number <= most, f"{name} is {number}; of this world the widget shows 1 … {most}")
        asked = world.ask(torch.arange(world.num_facts).reshape(world.topics, -1)[:, :per_topic].flatten())
        tensors = {"x": asked.x, "answers": asked.answers, "common": asked.common} | {
            f"{i}.{name}": part for i, model in enumerate(models.values()) for name, part in tensors_of(model).items()}
        sample = save({name: part.detach().float().cpu().contiguous() for name, part in tensors.items()}, {"config": "{}"})
        gone = {name: missing_at_first(model, asked) for name, model in models.items()} if gone is None else gone
        start = {"shown": list(models)[:2], "gone": {name: list(boxes) for name, boxes in gone.items()}}
        return cls(title=title, origin=origin, topics=world.topics, per_topic=per_topic, num_answers=world.num_answers,
                   models=[about(*pair) for pair in models.items()], sample=sample, start=start)

    @traitlets.validate("shown")
    def _two_of_them(self, proposal):
        shown, names = proposal["value"], [one["name"] for one in self.models]
        if len(shown) != min(2, len(names)) or len(set(shown)) < len(shown) or not set(shown) <= set(names):
            raise traitlets.TraitError(f"shown is {shown}; expected {min(2, len(names))} of {', '.join(names)}")
        return shown

    @traitlets.validate("gone")
    def _known(self, proposal):
        boxes_of = {one["name"]: one["boxes"] for one in self.models}
        for name, boxes in proposal["value"].items():
            if name not in boxes_of:
                raise traitlets.TraitError(f"gone names {name!r}; the models are {', '.join(boxes_of)}")
            for box in boxes:
                if box not in boxes_of[name]:
                    raise traitlets.TraitError(f"gone has {box!r} of {name}; it has {', '.join(boxes_of[name]) or 'no experts'}")
        return proposal["value"]


# --- what the browser gets ---------------------------------------------------------------------------------------------


def about(name: str, model: FactsModel) -> dict:
    """A model's N, Ks, H, K and gate, and the names of its boxes; a dense layer has no expert to take away."""
    layer = model.layer
    if isinstance(layer, DenseFFN):
        return {"name": name, "experts": 0, "shared": 0, "hidden": layer.hidden, "top_k": 0, "gate": {}, "boxes": []}
    n, hidden = layer.router.num_experts, layer.experts.w_out.shape[1]
    shared = layer.shared.hidden // hidden if layer.shared else 0
    boxes = [f"expert {i}" for i in range(n)] + [f"shared {i}" for i in range(shared)]
    return {"name": name, "experts": n, "shared": shared, "hidden": hidden, "top_k": layer.router.top_k,
            "gate": asdict(Gate.of(layer.router)), "boxes": boxes}


def tensors_of(model: FactsModel) -> dict[str, Tensor]:
    """Its weights: mix [D, D], heads [D, V + C], router [D, N], and w_in [N + Ks, D, 2H], w_out [N + Ks, H, D] of all boxes; the
    shared experts are one FFN, which is cut; a dense layer is one box that is always on."""
    layer, known = model.layer, about("", model)
    routed = [] if isinstance(layer, DenseFFN) else [(layer.experts.w_in, layer.experts.w_out)]
    always = layer if isinstance(layer, DenseFFN) else layer.shared
    cut = [] if always is None else [cut_experts(always.w_in[None], always.w_out[None], always.hidden // known["hidden"])]
    w_in, w_out = (torch.cat(parts) for parts in zip(*routed, *cut))
    found = {"mix": model.mix, "heads": torch.cat(list(model.heads), dim=1), "w_in": w_in, "w_out": w_out}
    return found | ({"router": layer.router.weight} if routed else {})


@torch.no_grad()
def missing_at_first(model: FactsModel, asked: Questions) -> list[str]:
    """What a model lacks when the page opens: all but its shared experts, or every fourth one by load."""
    known = about("", model)
    if known["shared"] or not known["experts"]:
        return known["boxes"][:known["experts"]]
    return [known["boxes"][n] for n in sorted(model(asked.x)[2].load.argsort(stable=True)[::4].tolist())]


# --- validation --------------------------------------------------------------------------------------------------------


def check_models(models: Mapping[str, FactsModel], world: FactsWorld) -> None:
    """Refuse what are not models of facts of this world."""
    require(isinstance(models, Mapping) and len(models) > 0, f"models is {models!r}; expected name -> FactsModel, at least one")
    for name, model in models.items():
        require(isinstance(model, FactsModel), f"models[{name!r}] is {type(model).__name__}; expected a FactsModel")
        sizes = [tuple(part.shape) for part in (model.mix, *model.heads)]
        wanted = [(world.width, size) for size in (world.width, world.num_answers, world.num_classes)]
        require(sizes == wanted, f"{name} has the sizes {sizes}; those of this world are {wanted}: train it in this world")
        require(isinstance(model.layer, DenseFFN) or type(model.layer.router) is Router,
                f"the router of {name} was changed; give the model as it was trained, experts are taken away here")
        require(all(bool(part.isfinite().all()) for part in model.state_dict().values()),
                f"{name} holds NaN or infinity; look for a diverged training")
