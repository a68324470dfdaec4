"""World of facts: what is to be known is known exactly, so memory can be counted: which facts, how many bits, in which expert.

A fact is a question, its topic's mark and a code of its own, and an answer, one of V, drawn at random: it can only be remembered.
Each time it is asked it comes in a fresh context c, and c has a question of its own. That is the *common skill*, one function for
all facts: a model can learn it once, or again and again.

    x      = [c / 2, (mark of the topic + code of the fact) / √2]     all normal; c is fresh, the rest is fixed
    answer = the fact's
    common = argmax of tanh(c A) B                                    A, B fixed
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import require
from ..base.seeds import mixed_seed
from ..lm.training import DEFAULT_BALANCE, Balanced
from ..moe import recipes
from ..moe.layers import moe_layers, weight
from ..moe.recipes import Recipe
from ..moe.routing import Routing
from .instruments import calls, chosen, hybridity, labels_served, layer_inputs, shuffled
from .interventions import with_silent_experts, without_experts, without_shared
from .nulls import random_router
from .skills import TEST_STEP

CONTEXT = 4  # numbers in a context


@dataclass(frozen=True)
class Questions:
    """Facts as they are asked: x [T, D] what a model sees, facts [T] their numbers, answers [T] and common [T] what is right."""

    x: Tensor
    facts: Tensor
    answers: Tensor
    common: Tensor


class FactsWorld:
    """A world of facts, the same for the same arguments.

    Args:
        topics, per_topic: M, and how many facts each has.
        num_answers, num_classes: V and C.
        width: D.
        common_units: hidden units of the common skill; 0: nothing is asked about the context, and all else is as before.
        seed: of all that is fixed.

    Raises:
        ValueError: for sizes that can't be.
    """

    def __init__(self, topics: int = 32, per_topic: int = 384, num_answers: int = 256, num_classes: int = 16, width: int = 32,
                 common_units: int = 48, seed: int = 0):
        require(topics >= 1 and per_topic >= 1, f"topics {topics} and per_topic {per_topic} must both be at least 1")
        require(num_answers >= 2 and num_classes >= 2,
                f"num_answers {num_answers} and num_classes {num_classes} must both be at least 2, or there is nothing to know")
        require(width > CONTEXT, f"width is {width}; a fact needs more than the {CONTEXT} numbers of its context")
        require(common_units >= 0, f"common_units is {common_units}; expected 0 for no common skill, or more")
        self.topics, self.per_topic, self.num_answers, self.width = topics, per_topic, num_answers, width
        self.num_facts, self.num_classes = topics * per_topic, num_classes if common_units else 0

        def part(number: int) -> torch.Generator:
            """The random numbers of one part of the world; no training step is negative, so no batch repeats them."""
            return torch.Generator().manual_seed(mixed_seed(seed, -1 - number))

        self.marks = torch.randn(topics, width - CONTEXT, generator=part(0), device="cpu")
        codes = torch.randn(self.num_facts, width - CONTEXT, generator=part(1), device="cpu")
        self.questions = (self.marks.repeat_interleave(per_topic, dim=0) + codes) / 2 ** 0.5
        self.answer_of = torch.randint(num_answers, (self.num_facts,), generator=part(2), device="cpu")
        self.common_ab = (torch.randn(CONTEXT, common_units, generator=part(3), device="cpu"),
                          torch.randn(common_units, self.num_classes, generator=part(4), device="cpu"))

    def common_scores(self, x: Tensor) -> Tensor:
        """What the common skill says to tokens [T, D]: one score for each class, [T, C]."""
        a, b = self.common_ab
        return torch.tanh(2 * x[:, :CONTEXT] @ a) @ b

    def ask(self, facts: Tensor | None = None, seed: int = 0, step: int = TEST_STEP) -> Questions:
        """Facts by their numbers [T], or every fact once, in fresh contexts: test contexts unless a training step is given."""
        facts = torch.arange(self.num_facts, device="cpu") if facts is None else facts
        return self.in_context(facts, torch.Generator().manual_seed(mixed_seed(seed, step)))

    def in_context(self, facts: Tensor, generator: torch.Generator) -> Questions:
        """Facts by their numbers [T], in contexts drawn from a generator."""
        x = torch.cat([torch.randn(len(facts), CONTEXT, generator=generator, device="cpu") / 2, self.questions[facts]], dim=1)
        common = self.common_scores(x).argmax(dim=1) if self.num_classes else torch.zeros_like(facts)
        return Questions(x, facts, self.answer_of[facts], common)

    def sampler(self, batch: int, seed: int = 0) -> Callable[[int], Tensor]:
        """step -> what is seen and both right answers side by side, [batch, D + 2], to train on; facts are drawn at random."""
        def batch_at(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(mixed_seed(seed, step))
            asked = self.in_context(torch.randint(self.num_facts, (batch,), generator=generator, device="cpu"), generator)
            return torch.cat([asked.x, asked.answers[:, None], asked.common[:, None]], dim=1)

        return batch_at


class FactsModel(nn.Module):
    """The least model around one layer: h = x + x W, then h + layer(RMSNorm(h)), then a linear head for either question.

    Args:
        recipe: of the layer.
        world: what it is for: D, V and C.

    Returns (forward): for x [T, D] the logits of the answers [T, V] and of the common answers [T, C], and the layer's `Routing`,
        None if it is dense.
    """

    def __init__(self, recipe: Recipe, world: FactsWorld):
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(world.width, world.width))
        self.layer = recipes.build(recipe, world.width)
        self.heads = nn.ParameterList(weight(world.width, size) for size in (world.num_answers, world.num_classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Routing | None]:
        """Questions [T, D] -> logits of the answers [T, V], of the common answers [T, C], and the layer's `Routing` or None."""
        h = x + x @ self.mix
        out = self.layer(F.rms_norm(h, h.shape[-1:]))
        out, routing = out if isinstance(out, tuple) else (out, None)
        answers, common = ((h + out) @ head for head in self.heads)
        return answers, common, routing


def question_loss(model: nn.Module, x: Tensor, answers: Tensor, common: Tensor) -> tuple[Tensor, Tensor, list[Routing]]:
    """Cross-entropy in nats of all that is asked, and of the facts alone; and the routing, if the layer routes."""
    facts, skill, routing = model(x)
    nats = F.cross_entropy(facts, answers)
    loss = nats + F.cross_entropy(skill, common) if skill.shape[1] else nats
    return loss, nats, [] if routing is None else [routing]


def remembering(balance: Mapping[str, float] = DEFAULT_BALANCE) -> Balanced:
    """The objective: the cross-entropy of all that is asked, with balance losses; `balance` as in `Balanced`. Its batches are
    those of a world's `sampler`."""
    def loss(model: nn.Module, batch: Tensor) -> tuple[Tensor, list[Routing], int]:
        loss, _, routings = question_loss(model, batch[:, :-2], *batch[:, -2:].long().T)
        return loss, routings, len(batch)

    return Balanced(loss, balance)


@torch.no_grad()
def answered(model: nn.Module, asked: Questions) -> Tensor:
    """Which questions a model answers right: [2, T], of the facts and of the common skill; none of a skill that is not there."""
    answers, common, _ = model(asked.x)
    right = common.argmax(dim=1) == asked.common if common.shape[1] else torch.zeros_like(asked.facts, dtype=torch.bool)
    return torch.stack([answers.argmax(dim=1) == asked.answers, right])


@torch.no_grad()
def memory(model: FactsModel, world: FactsWorld, step: int = TEST_STEP) -> dict[str, float]:
    """What a model knows of all facts, asked once each in the contexts of a step.

    Returns: `recall`, the share it answers; `bits`, what it saves whoever has to write all answers down, log2 V less its
        cross-entropy for each, and `bits_per_parameter`; `common`, the share of common answers, where there are any; `loss`, all
        that is asked, in nats.
    """
    asked = world.ask(step=step)
    loss, nats, _ = question_loss(model, asked.x, asked.answers, asked.common)
    bits = world.num_facts * max(0.0, math.log2(world.num_answers) - nats.item() / math.log(2))
    recall, common = answered(model, asked).double().mean(dim=1).tolist()
    return {"recall": recall, "bits": bits, "bits_per_parameter": bits / sum(p.numel() for p in model.parameters()),
            "loss": loss.item()} | ({"common": common} if world.num_classes else {})


@torch.no_grad()
def survival(model: FactsModel, asked: Questions, parts: int = 4) -> Tensor:
    """What survives without a part of the routed experts, the mean over the parts; they are dealt out by load like cards, so that
    layers of few and of many experts lose equally much.

    Returns: [3]: of the facts that were right, the share that still is; of the common answers; and the share of tokens that had
        called none of the missing experts, which can lose nothing. NaN of what was never right.
    """
    right_2T, routing = answered(model, asked), model(asked.x)[2]
    by_load, kept = routing.load.argsort(), torch.zeros(3)
    for gone in (by_load[part::parts] for part in range(parts)):
        still = (right_2T & answered(without_experts(model, [gone.tolist()]), asked)).sum(dim=1) / right_2T.sum(dim=1)
        untouched = ~torch.isin(routing.expert_ids, gone).any(dim=1)
        kept += torch.cat([still, untouched.float().mean()[None]]) / parts
    return kept


def breadth_cost(routing: Routing, topics_TM: Tensor, right_T: Tensor) -> float:
    """How much less is remembered where experts serve many topics: the recall in the calls of the narrower half of the experts,
    less that of the broader half. NaN where a half is never called."""
    called_TN = chosen(routing)
    halves = labels_served(calls(routing, topics_TM)).argsort().tensor_split(2)
    narrow, broad = (right_T @ called_TN[:, half].sum(dim=1) / called_TN[:, half].sum() for half in halves)
    return (narrow - broad).item()


@torch.no_grad()
def knowledge(model: FactsModel, world: FactsWorld, facts: Tensor) -> dict[str, float]:
    """Where a mixture of experts keeps what it knows: both diseases in numbers, each with its null or control.

    Args:
        model: trained in the world.
        world: of the facts.
        facts: the numbers of some facts [T], in random order.

    Returns:
        `hybridity`, topics that an expert serves, with `hybridity_random` of a random router and `hybridity_shuffled` of topics
        dealt out at random; `breadth_cost` and `breadth_cost_shuffled`. `same_experts`, the share of a fact's experts that it
        goes to in another context too, and `same_experts_null`, that another fact goes to. `facts_survive`, `common_survive` and
        `untouched`: see `survival`. `recall_` and `common_`: `without_shared` and `of_shared_alone`.
    """
    asked, (layer,) = world.ask(facts), moe_layers(model)
    routing, right_2T = model(asked.x)[2], answered(model, asked)
    x_TD, topics_TM = layer_inputs(model, asked.x)[0], F.one_hot(facts // world.per_topic, world.topics)
    other_TK = model(world.ask(facts, step=TEST_STEP + 2).x)[2].expert_ids

    def same(ids_TK: Tensor) -> float:
        return (routing.expert_ids[:, :, None] == ids_TK[:, None]).any(dim=2).double().mean().item()

    found = {
        "hybridity": hybridity(routing, topics_TM), "hybridity_shuffled": hybridity(routing, shuffled(topics_TM)),
        "hybridity_random": hybridity(random_router(layer.router)(x_TD), topics_TM),
        "breadth_cost": breadth_cost(routing, topics_TM, right_2T[0].float()),
        "breadth_cost_shuffled": breadth_cost(routing, shuffled(topics_TM), right_2T[0].float()),
        "same_experts": same(other_TK), "same_experts_null": same(other_TK.roll(1, dims=0)),
    }
    found |= zip(("facts_survive", "common_survive", "untouched"), survival(model, asked).tolist())
    if layer.shared:
        for what, right in (("without_shared", answered(without_shared(model), asked)),
                            ("of_shared_alone", answered(with_silent_experts(model), asked))):
            found |= zip((f"recall_{what}", f"common_{what}"), right.double().mean(dim=1).tolist())
    return found if world.num_classes else {name: value for name, value in found.items() if not name.startswith("common")}
