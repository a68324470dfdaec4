"""The ledger to play with: where a model's parameters are, and what one token pays, for any size the sliders give.

The browser does the arithmetic of `moe_lesson.lm.ledger` itself, so that sliders answer at once; a test keeps the two equal.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from itertools import takewhile

import traitlets
from traitlets import Dict, Int, Unicode

from ...base.errors import require
from ...lm.ledger import PUBLISHED, Cost, model_cost
from ...lm.model import ModelConfig
from ...moe.recipes import Dense, Sparse
from ..kit.base import LessonWidget, one_of

COURSE = {
    "toy": ModelConfig(Dense(192), layers=2, width=64, heads=4, context=256),
    "toy MoE": ModelConfig(Sparse(62, 6, 24, num_shared=2), layers=2, width=64, heads=4, context=256),
}
STARTS = {**COURSE, **PUBLISHED}

# What the sliders can be: about a factor of 1.4 apart, and every size of a start, of the course and of well-known models.
CHOICES = {
    "width": (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120, 6144, 7168, 8192),
    "layers": (1, 2, 3, 4, 6, 8, 9, 12, 16, 20, 24, 28, 30, 32, 40, 48, 61, 80, 96),
    "context": (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072),
    "hidden": (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1408, 1536, 2048, 2816, 4096, 5632, 8192,
               10944, 11008, 14336, 18432, 28672),
    "num_experts": (0, 1, 2, 4, 8, 14, 15, 16, 31, 32, 62, 63, 64, 96, 128, 160, 256, 384, 512),
    "top_k": (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 32, 48, 64, 128, 256, 512),
    "num_shared": (0, 1, 2, 3, 4, 6, 8, 16),
}


@dataclass(frozen=True)
class Sizes:
    """A model as flat numbers, the form in which it travels to the browser: leading dense layers, then all layers alike."""

    width: int
    layers: int
    context: int
    hidden: int
    num_experts: int  # 0: dense
    top_k: int  # as wished; no more than num_experts count
    num_shared: int
    vocabulary: int
    heads: int
    leading: int = 0
    leading_hidden: int = 0
    router: dict = field(default_factory=dict)  # the further fields of `Sparse`, which no slider moves

    @classmethod
    def of(cls, config: ModelConfig) -> Sizes:
        """The sizes of a model.

        Raises:
            ValueError: if its layers are anything but leading dense ones of one size, and then all alike.
        """
        require(isinstance(config, ModelConfig), f"{config!r} is no ModelConfig; use ModelConfig(…) or one of PUBLISHED")
        last = config.recipes[-1]
        leading = config.recipes[:config.layers - len(list(takewhile(lambda one: one == last, reversed(config.recipes))))]
        require(all(isinstance(one, Dense) for one in leading) and len(set(leading)) <= 1,
                f"this model mixes {len(set(config.recipes))} kinds of feed-forward layer in an order that LedgerView can't "
                "show: it takes leading dense layers of one size, then layers that are all alike; "
                "moe_lesson.lm.ledger.parts counts any model")
        return cls(config.width, config.layers, config.context, **ffn_sizes(last), vocabulary=config.vocabulary,
                   heads=config.heads, leading=len(leading), leading_hidden=leading[0].hidden if leading else 0)

    def config(self) -> ModelConfig:
        """The model of these sizes; as many heads as they had, or as many of them as divide the width."""
        leading = min(self.leading, self.layers)
        rest = Dense(self.hidden)
        if self.num_experts:
            rest = Sparse(self.num_experts, min(self.top_k, self.num_experts), self.hidden, self.num_shared, **self.router)
        ffn = (Dense(self.leading_hidden),) * leading + (rest,) * (self.layers - leading) if leading else rest
        return ModelConfig(ffn, self.layers, self.width, math.gcd(self.heads, self.width // 2), self.context, self.vocabulary)


def ffn_sizes(recipe: Dense | Sparse) -> dict:
    """The fields of `Sizes` that a recipe decides. A dense one starts its experts at K = 1, without shared ones."""
    if isinstance(recipe, Dense):
        return {"hidden": recipe.hidden, "num_experts": 0, "top_k": 1, "num_shared": 0}
    router = {one.name: getattr(recipe, one.name) for one in fields(Sparse)}  # of a pooled one, too
    sizes = {name: router.pop(name) for name in ("num_experts", "top_k", "num_shared")}
    return {"hidden": router.pop("expert_width"), **sizes, "router": router}


class LedgerView(LessonWidget):
    """Move a model's sizes and see its parameters in total, those that one token uses, and the FLOPs that it pays.

    Args:
        config: where the sliders stand at first.
        compare: a model to draw as an outline over the bars, or None; the button of the widget pins another.

    Traits to read, set and observe: `model` (which one the sliders set out from: "toy", "toy MoE", "LLaMA2 7B",
    "DeepSeek 7B", "DeepSeekMoE 16B", and "this model" for any other config) and the sliders `width`, `layers`, `context`,
    `hidden`, `num_experts` (0 is dense), `top_k`, `num_shared`. To read: `config` (the `ModelConfig` that they make; top_k
    is at most num_experts there) and `cost` (its `Cost`).

    Raises:
        ValueError: for a model whose layers are mixed otherwise than leading dense ones of one size, then all alike.

    >>> view = LedgerView(compare=STARTS["toy"])
    >>> view.num_experts = 8
    >>> view.cost.total / model_cost(STARTS["toy"]).total > 3, view.cost.active / model_cost(STARTS["toy"]).active < 1.01
    (True, True)
    """

    models = Dict().tag(sync=True)  # name -> sizes
    choices = Dict().tag(sync=True)  # slider -> the values it can have

    model = Unicode().tag(sync=True)
    width = Int().tag(sync=True)
    layers = Int().tag(sync=True)
    context = Int().tag(sync=True)
    hidden = Int().tag(sync=True)
    num_experts = Int().tag(sync=True)
    top_k = Int().tag(sync=True)
    num_shared = Int().tag(sync=True)
    pinned = Dict().tag(sync=True)  # label and sizes of the outline; empty is none

    def __init__(self, config: ModelConfig = COURSE["toy"], *, compare: ModelConfig | None = None, title: str = "ledger"):
        sizes = Sizes.of(config)
        model = name_of(sizes, "this model")
        models = {known: asdict(Sizes.of(one)) for known, one in STARTS.items()} | {model: asdict(sizes)}
        choices = {slider: sorted({*values, *(one[slider] for one in models.values())}) for slider, values in CHOICES.items()}
        pinned = {} if compare is None else Sizes.of(compare)
        start = {"model": model, **{slider: models[model][slider] for slider in CHOICES},
                 "pinned": pinned and {"label": name_of(pinned, "compared model"), **asdict(pinned)}}
        super().__init__(title=title, models=models, choices=choices, start=start)

    @property
    def config(self) -> ModelConfig:
        """The model that the sliders make."""
        return Sizes(**self.models[self.model] | {slider: getattr(self, slider) for slider in CHOICES}).config()

    @property
    def cost(self) -> Cost:
        """What it costs."""
        return model_cost(self.config)

    @traitlets.validate("model", *CHOICES)
    def _one_of_them(self, proposal):
        return one_of(proposal, {"model": self.models, **self.choices})

    @traitlets.observe("model")
    def _from_the_model(self, change):
        with self.hold_sync():  # one message, so that the browser never sees half of it
            for slider in CHOICES:
                setattr(self, slider, self.models[change["new"]][slider])


def name_of(sizes: Sizes, otherwise: str) -> str:
    """The name of the known model with these sizes."""
    return next((name for name, config in STARTS.items() if Sizes.of(config) == sizes), otherwise)
