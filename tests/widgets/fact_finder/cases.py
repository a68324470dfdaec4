"""Fact finders that several tests look at: models that nobody trained, in a world of so few answers that they often hit one."""

import torch
import torch.nn.functional as F

from moe_lesson import Dense, Sparse
from moe_lesson.measure.facts import CONTEXT, FactsModel, FactsWorld
from moe_lesson.widgets import FactFinder

SMALL = dict(topics=6, per_topic=9, num_answers=4, num_classes=3, width=16, common_units=6)
LARGE = dict(topics=32, per_topic=40)  # as a lesson has it
TWO = {"GShard": Sparse(8, 2, 12, scale=3.0), "DeepSeekMoE": Sparse(14, 3, 6, num_shared=2, scale=3.0)}
THREE = TWO | {"dense": Dense(24)}
LESSON = {"GShard": Sparse(8, 2, 68), "DeepSeekMoE": Sparse(30, 6, 16, num_shared=2), "dense": Dense(136)}

MANY = LESSON | {"a model with a long name": Sparse(120, 8, 4, 8), **dict.fromkeys("abcd", Sparse(2, 1, 8))}


def model_of(recipe, world: FactsWorld, seed: int = 0) -> FactsModel:
    """A model with random weights and, in the router, a random bias."""
    torch.manual_seed(seed)
    model = FactsModel(recipe, world)
    torch.nn.init.normal_(model.mix, std=0.2)
    if isinstance(recipe, Sparse):
        model.layer.router.bias.normal_(std=0.05)
    return model


def finder_of(recipes=None, sizes=None, per_topic=8, **more) -> FactFinder:
    """A finder of untrained models of some recipes, by their names."""
    world = FactsWorld(**(SMALL if sizes is None else sizes))
    models = {name: model_of(recipe, world) for name, recipe in (THREE if recipes is None else recipes).items()}
    return FactFinder.of_models(models, world, per_topic, **{"origin": "toy", **more})


def by_hand(num_answers: int = 64) -> tuple[FactsWorld, FactsModel]:
    """Each topic has an expert of its own, with a unit for each fact: silu(z) · z, z being how much the question is its."""
    torch.manual_seed(0)
    world = FactsWorld(topics=4, per_topic=8, num_answers=num_answers, width=512, common_units=0)
    model = FactsModel(Sparse(4, 1, 8, renormalise=False), world)
    keys = F.pad(world.questions, (CONTEXT, 0)).T.reshape(512, 4, 8).transpose(0, 1) / 512 ** 0.5
    with torch.no_grad():
        model.layer.router.weight.copy_(F.pad(world.marks, (CONTEXT, 0)).T)
        model.layer.experts.w_in.copy_(torch.cat([keys, keys], dim=2))
        model.layer.experts.w_out.copy_(torch.linalg.pinv(model.heads[0])[world.answer_of].reshape(4, 8, 512))
    return world, model
