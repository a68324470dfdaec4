"""What the rungs of an experiment are trained on and judged by: text, a skills world, a world of facts, or an uneven world. All
have the same methods; a training on text can be followed, too."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn

from ..lm.corpora import Corpus
from ..lm.evaluate import evaluate_language, evaluate_load
from ..lm.ledger import Cost, ffn_cost, matrix, model_cost
from ..lm.model import LanguageModel, ModelConfig, device_of, evaluating
from ..lm.training import next_token
from ..measure.facts import FactsModel, FactsWorld, knowledge, memory, remembering
from ..measure.kept import rises
from ..measure.skills import VALIDATION_STEP, SkillsWorld, answer_of, diagnosis, regression, squared_error
from ..measure.uneven import Arm, UnevenLayer, UnevenObjective, UnevenWorld, judge
from ..moe import recipes
from ..moe.layers import MoE, moe_layers
from ..moe.recipes import Recipe
from ..moe.routing import idle_experts, load_cv, load_entropy, max_violation, routed


class TextTask:
    """Predict the next token of a corpus.

    Args:
        corpus: the text.
        evaluated: how many tokens of each domain are read to judge a model.
        kept: shares of the experts that it is judged with, too; see `kept.rises`.
    """

    cost = staticmethod(model_cost)
    objective = staticmethod(next_token)

    def __init__(self, corpus: Corpus, evaluated: int, kept: tuple[float, ...] = ()):
        self.corpus, self.evaluated, self.kept = corpus, evaluated, kept

    def identity(self, config: ModelConfig) -> list[dict]:
        """All that decides what a model of these sizes learns here."""
        return [config.to_dict(), self.corpus.fingerprint()]

    def build(self, config: ModelConfig, seed: int) -> LanguageModel:
        """A fresh model."""
        return LanguageModel(config, seed=seed)

    def batches(self, batch: int, context: int, seed: int) -> Callable[[int], Tensor]:
        """step -> what to train on in that step."""
        return self.corpus.sampler("train", batch, context, seed)

    def validate(self, model: LanguageModel) -> dict[str, float]:
        """The figures that tuning may see."""
        loss = evaluate_language(model, self.corpus, "validation", self.evaluated)["mean"]
        return {"validation": loss} | load_figures(evaluate_load(model, self.corpus, "validation", self.evaluated))

    def follow(self, model: LanguageModel) -> dict[str, float]:
        """The figures that are written down along a training: the validation loss of each domain, on a tenth of the
        tokens that `validate` reads: windows from the whole length, so from about half of the machine's documents."""
        losses = evaluate_language(model, self.corpus, "validation", self.evaluated // 10)
        return {f"validation_{domain}": losses[domain] for domain in self.corpus.domains}

    @torch.no_grad()
    def chosen(self, model: LanguageModel) -> list[list[list[int]]]:
        """The experts that the same few validation tokens choose: for each MoE layer the K of every token, [T][K].

        Two windows of each domain: a picture of two or three documents of it, not a measure of the domain.
        """
        ids = torch.cat([self.corpus.windows(domain, "validation", model.config.context, 2 * model.config.context)
                         for domain in self.corpus.domains])
        with evaluating(model):
            routings = model(ids[:, :-1])[1]
        return [routing.expert_ids.tolist() for routing in routed(routings)]

    def test(self, model: LanguageModel) -> dict[str, float]:
        """The figures to report."""
        test = evaluate_language(model, self.corpus, "test", self.evaluated)
        few = {f"{which}_{share:g}": rise for share in self.kept for which, rise in rises(model, self.corpus, share).items()}
        return {"test": test["mean"]} | {f"test_{domain}": test[domain] for domain in self.corpus.domains} | few


class SkillsTask:
    """Learn a skills world; every seed is a world of its own.

    Args:
        seed: of the world.
        evaluated: how many tokens are drawn to judge a layer.
        changes: arguments of the world, where they are not its own.
    """

    world_of: Callable = SkillsWorld
    objective: Callable = staticmethod(regression)

    def __init__(self, seed: int, evaluated: int, changes: Mapping[str, int]):
        self.seed, self.world = seed, self.world_of(seed=seed, **changes)
        self.evaluated, self.changes = evaluated, dict(changes)

    def cost(self, recipe: Recipe) -> Cost:
        """Parameters and FLOPs of the one layer that is trained."""
        return ffn_cost(recipe, self.world.width)

    def identity(self, recipe: Recipe) -> list[dict]:
        """All that decides what a layer of this recipe learns here."""
        return [recipes.to_dict(recipe), self.changes]

    def layer(self, recipe: Recipe) -> nn.Module:
        """What is trained, as the generator draws it."""
        return recipes.build(recipe, self.world.width)

    def build(self, config, seed: int) -> nn.Module:
        """A fresh layer."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.layer(config)

    def batches(self, batch: int, context: int, seed: int) -> Callable[[int], Tensor]:
        """step -> what to train on in that step; tokens stand alone here, so the context is of no use."""
        return self.world.sampler(batch * context, seed)

    @torch.no_grad()
    def validate(self, layer: nn.Module) -> dict[str, float]:
        """The figures that tuning may see."""
        tokens = self.world.tokens(self.evaluated, step=VALIDATION_STEP)
        loads = [routing.load for routing in answer_of(layer, tokens.x)[1]]
        return {"validation": squared_error(layer, tokens)} | load_figures(loads)

    def test(self, layer: nn.Module) -> dict[str, float]:
        """The figures to report; the shared function is asked for also where the world was trained without one."""
        tokens = self.world.tokens(self.evaluated)
        figures = diagnosis(layer, tokens, SkillsWorld(seed=self.seed).shared) if isinstance(layer, MoE) else {}
        return {"test": squared_error(layer, tokens)} | figures


class FactsTask(SkillsTask):
    """Remember the facts of a world, around one layer; `evaluated` facts are asked to see where a layer keeps them, its memory is
    judged on all of them."""

    world_of = FactsWorld
    objective = staticmethod(remembering)

    def cost(self, recipe: Recipe) -> Cost:
        """Parameters and FLOPs of the whole model."""
        around = matrix(self.world.width, self.world.width + self.world.num_answers + self.world.num_classes)
        return ffn_cost(recipe, self.world.width) + around

    def layer(self, recipe: Recipe) -> FactsModel:
        """The layer, and the model around it."""
        return FactsModel(recipe, self.world)

    @torch.no_grad()
    def validate(self, model: FactsModel) -> dict[str, float]:
        """The figures that tuning may see: the same facts, in other contexts than the test's."""
        model = beside_its_world(model)
        routing = model(self.world.ask(step=VALIDATION_STEP).x)[2]
        return {"validation": memory(model, self.world, step=VALIDATION_STEP)["loss"]} | load_figures(
            [routing.load] if routing else [])

    def test(self, model: FactsModel) -> dict[str, float]:
        """The figures to report."""
        model = beside_its_world(model)
        found = memory(model, self.world)
        some = torch.randperm(self.world.num_facts, generator=torch.Generator().manual_seed(0))[:self.evaluated]
        routers = [layer.router for layer in moe_layers(model)]
        chosen = any(router.num_experts > router.top_k for router in routers)  # else every token uses all: nobody keeps a fact
        return {"test": found.pop("loss")} | found | (knowledge(model, self.world, some) if chosen else {})


class UnevenTask(SkillsTask):
    """Learn an uneven world with experts of any sizes; every arm says itself how it is balanced."""

    world_of = UnevenWorld
    objective = staticmethod(lambda balance: UnevenObjective())

    def cost(self, arm: Arm) -> Cost:
        """Parameters and FLOPs of the layer, where a token uses as many units as it should on average."""
        router, all_units = matrix(self.world.width, len(arm.sizes)), matrix(self.world.width, 3 * sum(arm.sizes))
        used = 3 * self.world.width * round(arm.units)
        return router + Cost(all_units.total, used, 2 * used)

    def identity(self, arm: Arm) -> list[dict]:
        """All that decides what a layer of this arm learns here."""
        return [asdict(arm), self.changes]

    def layer(self, arm: Arm) -> UnevenLayer:
        """Experts of the arm's sizes."""
        return UnevenLayer(arm, self.world.width)

    def validate(self, layer: UnevenLayer) -> dict[str, float]:
        """The figure that tuning may see."""
        tokens = self.world.tokens(self.evaluated, step=VALIDATION_STEP)
        return {"validation": judge(beside_its_world(layer), self.world, tokens)["error"]}

    def test(self, layer: UnevenLayer) -> dict[str, float]:
        """The figures to report; `units_trained` are those of a token in training, a phase that is dense at first included."""
        found = judge(beside_its_world(layer), self.world, self.world.tokens(self.evaluated))
        return {"test": found.pop("error")} | found | {"units_trained": (layer.spent[0] / layer.spent[1]).item()}


Task = TextTask | SkillsTask
WORLDS = {"skills world": SkillsTask, "world of facts": FactsTask, "uneven world": UnevenTask}


def beside_its_world(model: nn.Module) -> nn.Module:
    """The model on the CPU, where worlds are: a copy, if it was trained elsewhere."""
    return model if device_of(model).type == "cpu" else copy.deepcopy(model).cpu()


def load_figures(loads: list) -> dict[str, float]:
    """How balanced the loads [N] of some layers are, each figure as the mean over layers; nothing for a dense model."""
    loads = [torch.as_tensor(load, device="cpu") for load in loads]
    measures = {"max_violation": max_violation, "load_cv": load_cv, "load_entropy": load_entropy, "idle": idle_experts}
    return {name: sum(map(measure, loads)) / len(loads) for name, measure in measures.items()} if loads else {}
