"""Skills world: a task whose truth is known, so that what an expert has learned can be measured, not guessed.

There are M skills, each a small fixed function, and one function that all tokens share. A token carries c of the skills and
shows which:

    x = noise · ε + signal/√c · Σ_s e_s          ε normal, e_s the mark of skill s, the sums over the token's c skills
    y = (f_shared(x) + Σ_s f_s(x)) / √(1 + c)    each f(x) = relu(x A) B, fixed at random

A model sees x and learns y.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import require
from ..base.seeds import mixed_seed
from ..lm.model import device_of
from ..lm.training import DEFAULT_BALANCE, Balanced
from ..moe.layers import MoE
from ..moe.routing import Routing
from .instruments import (
    co_routing,
    expert_outputs,
    hybridity,
    linear_cka,
    mean_off_diagonal,
    output_similarity,
    probe,
    shared_and_routed,
    shuffled,
    weight_similarity,
)
from .interventions import with_masked_experts, without_shared
from .merging import merge_order, random_similarity, with_merged_experts
from .nulls import random_router

TEST_STEP, VALIDATION_STEP = 2**31, 2**31 + 1  # no training gets there, so these tokens are never trained on
UNSEEN = 2**40  # the seed of a world that nobody is trained in
GONE = 1 / 8  # of the experts: what each token must do without, and what is merged away


@dataclass(frozen=True)
class Tokens:
    """Tokens of a skills world: x [T, D] what a model sees, y [T, D] what it should answer, skills [T, c] their numbers."""

    x: Tensor
    y: Tensor
    skills: Tensor


class SkillsWorld:
    """A world of skills, the same for the same arguments.

    Args:
        num_skills: M.
        per_token: c, how many different skills a token carries.
        width: D.
        shared_units, skill_units: hidden units of the shared function and of each skill's; 0 for no such part. The other
            parts stay as they are.
        signal: how loud the skills' marks are in x.
        noise: how loud the rest of x is; the functions are of x, so without noise there is little to learn.
        seed: of marks and functions.

    Raises:
        ValueError: for sizes that can't be.
    """

    trained_on: tuple[str, ...] = ("x", "y")  # of its tokens

    def __init__(self, num_skills: int = 16, per_token: int = 2, width: int = 32, shared_units: int = 16, skill_units: int = 8,
                 signal: float = 1.5, noise: float = 1.0, seed: int = 0):
        require(num_skills >= 1 and width >= 1, f"num_skills {num_skills} and width {width} must both be at least 1")
        require(1 <= per_token <= num_skills, f"per_token is {per_token}; a token carries 1 … {num_skills} of the skills")
        require(shared_units >= 0 and skill_units >= 0,
                f"shared_units {shared_units} and skill_units {skill_units} must not be negative")
        require(signal >= 0 and noise >= 0, f"signal {signal} and noise {noise} must not be negative")
        self.num_skills, self.per_token, self.width, self.signal, self.noise = num_skills, per_token, width, signal, noise

        def normal(part: int, *shape: int) -> Tensor:
            """Random numbers of one part of the world; each part has its own, so that leaving one out changes no other.
            No training step is negative, so no batch repeats them."""
            return torch.randn(shape, generator=torch.Generator().manual_seed(mixed_seed(seed, -1 - part)), device="cpu")

        def function(part: int, *shape: int) -> tuple[Tensor, Tensor]:
            """A [..., D, H] and B [..., H, D] of relu(x A) B, which answers with about the size of a token of variance 1."""
            *many, units = shape
            return (normal(part, *many, width, units) * width ** -0.5,
                    normal(part + 1, *many, units, width) * max(units, 1) ** -0.5)

        self.marks, self.shared_ab, self.skill_ab = (
            normal(0, num_skills, width), function(1, shared_units), function(3, num_skills, skill_units))

    def shared(self, x: Tensor) -> Tensor:
        """What the shared function gives: [T, D] -> [T, D]."""
        a, b = self.shared_ab
        return F.relu(x @ a) @ b

    def each_skill(self, x: Tensor) -> Tensor:
        """What every skill's function gives, whether a token carries it or not: [T, D] -> [M, T, D]."""
        a, b = self.skill_ab
        return F.relu(x @ a) @ b

    def answer(self, x: Tensor, skills: Tensor) -> Tensor:
        """The right answer y [T, D] for x [T, D] and skills [T, c]."""
        carried = F.one_hot(skills, self.num_skills).sum(dim=1).to(x.dtype)  # [T, M]
        return (self.shared(x) + torch.einsum("tm,mtd->td", carried, self.each_skill(x))) / (1 + self.per_token) ** 0.5

    def tokens(self, count: int, seed: int = 0, step: int = TEST_STEP) -> Tokens:
        """`count` tokens; test tokens unless a training step is given."""
        require(count >= 1, f"count is {count}; expected at least one token")
        generator = torch.Generator().manual_seed(mixed_seed(seed, step))
        skills = torch.rand(count, self.num_skills, generator=generator, device="cpu").topk(self.per_token).indices
        marks = self.marks[skills].sum(dim=1) * self.signal / self.per_token ** 0.5
        x = self.noise * torch.randn(count, self.width, generator=generator, device="cpu") + marks
        return Tokens(x, self.answer(x, skills), skills)

    def sampler(self, batch: int, seed: int = 0) -> Callable[[int], Tensor]:
        """step -> what is trained on, side by side: x and y, [batch, 2D]."""
        def batch_at(step: int) -> Tensor:
            tokens = self.tokens(batch, seed, step)
            return torch.cat([getattr(tokens, part) for part in self.trained_on], dim=1)

        return batch_at


def regression(balance: Mapping[str, float] = DEFAULT_BALANCE) -> Balanced:
    """The objective in a skills world: mean squared error, with balance losses; `balance` as in `Balanced`.

    Its batches are x and y side by side, [T, 2D].
    """
    def loss(layer: nn.Module, batch: Tensor) -> tuple[Tensor, list[Routing], int]:
        x, y = batch.chunk(2, dim=-1)
        out, routings = answer_of(layer, x)
        return F.mse_loss(out, y), routings, len(x)

    return Balanced(loss, balance)


def answer_of(layer: nn.Module, x: Tensor) -> tuple[Tensor, list[Routing]]:
    """What a layer answers, on the device of its weights, and what its router decided: [] without one."""
    out = layer(x.to(device_of(layer)))
    return (out[0], [out[1]]) if isinstance(out, tuple) else (out, [])


@torch.no_grad()
def squared_error(layer: nn.Module, tokens: Tokens) -> float:
    """Mean squared error of a layer's answers; the answers have a variance of about 1."""
    return F.mse_loss(answer_of(layer, tokens.x)[0].cpu(), tokens.y).item()


@torch.no_grad()
def diagnosis(layer: MoE, tokens: Tokens, shared: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Both diseases of a layer in numbers, each with its null or control.

    Args:
        layer: trained in a skills world.
        tokens: of that world, to measure on.
        shared: the shared function that the experts may have learned, [T, D] -> [T, D].

    Returns:
        `hybridity`, and the same with a random router and with the skills dealt out at random (`hybridity_random`,
        `hybridity_shuffled`); `similarity` and `cka` of two experts' outputs, the mean over pairs; `probe`, how well one expert's
        output tells the shared function (R², mean over experts), and `probe_null`, how well it tells the shared function of a
        world that it has never seen. Then squared errors: `error_mean_answer` of a layer that knows the mean and nothing else;
        `error_masked_top` and `error_masked_random` without each token's best experts, and without random ones;
        `error_merged_outputs`, `error_merged_weights`, `error_merged_co_routing` (where a token chooses more than one) and
        `error_merged_random` after merging the experts most alike in that, and random pairs (mean of 10 draws).
        `probe_routed` and `probe_routed_null` are the probes of what the chosen experts add up to. With shared experts also
        `probe_shared` and `probe_shared_null`, of what those give, and `error_without_shared`, see `without_shared`.
    """
    layer = copy.deepcopy(layer).cpu().eval()
    carried_TM = F.one_hot(tokens.skills).sum(dim=1)
    routing, outputs_NTD = layer(tokens.x)[1], expert_outputs(layer, tokens.x)
    by_lot = random_router(layer.router)(tokens.x)
    similarity_NN = output_similarity(outputs_NTD)
    elsewhere = SkillsWorld(width=layer.router.width, seed=UNSEEN).shared

    def probed(outputs: Iterable[Tensor], function: Callable[[Tensor], Tensor]) -> float:
        found = [probe(out, function(tokens.x)) for out in outputs]
        return sum(found) / len(found)

    def merged(similarity_NN: Tensor) -> float:
        groups = merge_order(similarity_NN, round(GONE * routing.num_experts))[1][-1]
        return squared_error(with_merged_experts(layer, groups, routing.load), tokens)

    alike = {"outputs": similarity_NN, "weights": weight_similarity(layer)}
    if routing.top_k > 1:
        alike["co_routing"] = co_routing(routing)
    parts = {"routed": layer(tokens.x)[0]}
    if layer.shared:
        parts = dict(zip(("shared", "routed"), shared_and_routed(layer, tokens.x)))
    draws = [merged(random_similarity(routing.num_experts, seed)) for seed in range(10)]
    return {
        "hybridity": hybridity(routing, carried_TM), "hybridity_random": hybridity(by_lot, carried_TM),
        "hybridity_shuffled": hybridity(routing, shuffled(carried_TM)),
        "similarity": mean_off_diagonal(similarity_NN), "cka": mean_off_diagonal(linear_cka(outputs_NTD)),
        "probe": probed(outputs_NTD, shared), "probe_null": probed(outputs_NTD, elsewhere),
        "error_mean_answer": (tokens.y - tokens.y.mean(dim=0)).square().mean().item(),
        "error_masked_top": squared_error(with_masked_experts(layer, GONE), tokens),
        "error_masked_random": squared_error(with_masked_experts(layer, GONE, 0), tokens),
        "error_merged_random": sum(draws) / len(draws),
    } | {f"error_merged_{kind}": merged(matrix) for kind, matrix in alike.items()} | {
        f"probe_{part}{null}": probed([out], function) for part, out in parts.items()
        for null, function in (("", shared), ("_null", elsewhere))
    } | ({"error_without_shared": squared_error(without_shared(layer), tokens)} if layer.shared else {})
