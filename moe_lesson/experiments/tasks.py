"""What the rungs of an experiment are trained on and judged by: text, or a skills world. Both have the same methods."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..lm.corpora import Corpus
from ..lm.evaluate import evaluate_language, evaluate_load
from ..lm.ledger import Cost, ffn_cost, model_cost
from ..lm.model import LanguageModel, ModelConfig, evaluating
from ..lm.training import next_token
from ..measure.skills import VALIDATION_STEP, SkillsWorld, answer_of, diagnosis, regression, squared_error
from ..moe import recipes
from ..moe.layers import MoE
from ..moe.recipes import Recipe
from ..moe.routing import idle_experts, load_cv, load_entropy, max_violation


class TextTask:
    """Predict the next byte of a corpus.

    Args:
        corpus: the text.
        evaluated: how many bytes of each domain are read to judge a model.
    """

    cost = staticmethod(model_cost)
    objective = staticmethod(next_token)

    def __init__(self, corpus: Corpus, evaluated: int):
        self.corpus, self.evaluated = corpus, evaluated

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
        """The figures that are written down along a training: the validation loss of each domain, on a small part of it."""
        losses = evaluate_language(model, self.corpus, "validation", self.evaluated // 10)
        return {f"validation_{domain}": losses[domain] for domain in self.corpus.domains}

    @torch.no_grad()
    def chosen(self, model: LanguageModel) -> list[list[list[int]]]:
        """The experts that the same few validation tokens choose: for each MoE layer the K of every token, [T][K]."""
        ids = torch.cat([self.corpus.windows(domain, "validation", model.config.context, 2 * model.config.context)
                         for domain in self.corpus.domains])
        with evaluating(model):
            routings = model(ids[:, :-1])[1]
        return [routing.expert_ids.tolist() for routing in routings if routing is not None]

    def test(self, model: LanguageModel) -> dict[str, float]:
        """The figures to report."""
        test = evaluate_language(model, self.corpus, "test", self.evaluated)
        return {"test": test["mean"]} | {f"test_{domain}": test[domain] for domain in self.corpus.domains}


class SkillsTask:
    """Learn a skills world; every seed is a world of its own.

    Args:
        seed: of the world.
        evaluated: how many tokens are drawn to judge a layer.
        changes: arguments of `SkillsWorld`, where they are not its own.
    """

    objective = staticmethod(regression)

    def __init__(self, seed: int, evaluated: int, changes: Mapping[str, int]):
        self.world, self.shared = SkillsWorld(seed=seed, **changes), SkillsWorld(seed=seed).shared
        self.evaluated, self.changes = evaluated, dict(changes)

    def cost(self, recipe: Recipe) -> Cost:
        """Parameters and FLOPs of the one layer that is trained."""
        return ffn_cost(recipe, self.world.width)

    def identity(self, recipe: Recipe) -> list[dict]:
        """All that decides what a layer of this recipe learns here."""
        return [recipes.to_dict(recipe), self.changes]

    def build(self, recipe: Recipe, seed: int) -> nn.Module:
        """A fresh layer."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return recipes.build(recipe, self.world.width)

    def batches(self, batch: int, context: int, seed: int) -> Callable[[int], Tensor]:
        """step -> what to train on in that step; tokens stand alone here, so the context is of no use."""
        return self.world.sampler(batch * context, seed)

    @torch.no_grad()
    def validate(self, layer: nn.Module) -> dict[str, float]:
        """The figures that tuning may see."""
        tokens = self.world.tokens(self.evaluated, step=VALIDATION_STEP)
        loads = [routing.load for routing in answer_of(layer, tokens.x)[1]]
        return {"validation": squared_error(layer, tokens)} | load_figures(loads)

    def follow(self, layer: nn.Module) -> dict[str, float]:
        """The figure that is written down along a training."""
        with evaluating(layer):
            return {"validation": self.validate(layer)["validation"]}

    @torch.no_grad()
    def chosen(self, layer: nn.Module) -> list[list[list[int]]]:
        """The experts that the same few validation tokens choose: for an MoE layer the K of every token, [T][K]."""
        tokens = self.world.tokens(self.evaluated // 10, step=VALIDATION_STEP)
        with evaluating(layer):
            return [routing.expert_ids.tolist() for routing in answer_of(layer, tokens.x)[1]]

    def test(self, layer: nn.Module) -> dict[str, float]:
        """The figures to report."""
        tokens = self.world.tokens(self.evaluated)
        figures = diagnosis(layer, tokens, self.shared) if isinstance(layer, MoE) else {}
        return {"test": squared_error(layer, tokens)} | figures


Task = TextTask | SkillsTask


def load_figures(loads: list) -> dict[str, float]:
    """How balanced the loads [N] of some layers are, each figure as the mean over layers; nothing for a dense model."""
    loads = [torch.as_tensor(load, device="cpu") for load in loads]
    measures = {"max_violation": max_violation, "load_cv": load_cv, "load_entropy": load_entropy, "idle": idle_experts}
    return {name: sum(map(measure, loads)) / len(loads) for name, measure in measures.items()} if loads else {}
