"""Skills world: a task whose truth is known, so that what an expert has learned can be measured, not guessed.

There are M skills, each a small fixed function, and one function that all tokens share. A token carries c of the skills and
shows which:

    x = noise · ε + signal/√c · Σ_s e_s          ε normal, e_s the mark of skill s, the sums over the token's c skills
    y = (f_shared(x) + Σ_s f_s(x)) / √(1 + c)    each f(x) = relu(x A) B, fixed at random

A model sees x and learns y. Letters: T tokens, D width, M skills, c skills per token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .corpora import mixed_seed
from .layers import MoE, require
from .training import DEFAULT_BALANCE, Objective, balance_terms

TEST_STEP = 2**31  # no training gets there, so test tokens are never trained on


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
        shared_units, skill_units: hidden units of the shared function and of each skill's; 0 for no such part.
        signal: how loud the skills' marks are in x.
        noise: how loud the rest of x is; the functions are of x, so without noise there is little to learn.
        seed: of marks and functions.

    Raises:
        ValueError: for sizes that can't be.
    """

    def __init__(self, num_skills: int = 16, per_token: int = 2, width: int = 32, shared_units: int = 16, skill_units: int = 8,
                 signal: float = 1.5, noise: float = 1.0, seed: int = 0):
        require(num_skills >= 1 and width >= 1, f"num_skills {num_skills} and width {width} must both be at least 1")
        require(1 <= per_token <= num_skills, f"per_token is {per_token}; a token carries 1 … {num_skills} of the skills")
        require(shared_units >= 0 and skill_units >= 0,
                f"shared_units {shared_units} and skill_units {skill_units} must not be negative")
        require(signal >= 0 and noise >= 0, f"signal {signal} and noise {noise} must not be negative")
        self.num_skills, self.per_token, self.width, self.signal, self.noise = num_skills, per_token, width, signal, noise
        generator = torch.Generator().manual_seed(mixed_seed(seed, num_skills))

        def function(*shape: int) -> tuple[Tensor, Tensor]:
            """A [..., D, H] and B [..., H, D] of relu(x A) B, which answers with about the size of a token of variance 1."""
            *many, units = shape
            a = torch.randn(*many, width, units, generator=generator) * width ** -0.5
            return a, torch.randn(*many, units, width, generator=generator) * max(units, 1) ** -0.5

        self.marks = torch.randn(num_skills, width, generator=generator)
        self.shared_ab, self.skill_ab = function(shared_units), function(num_skills, skill_units)

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
        skills = torch.rand(count, self.num_skills, generator=generator).topk(self.per_token).indices
        marks = self.marks[skills].sum(dim=1) * self.signal / self.per_token ** 0.5
        x = self.noise * torch.randn(count, self.width, generator=generator) + marks
        return Tokens(x, self.answer(x, skills), skills)

    def sampler(self, batch: int, seed: int = 0) -> Callable[[int], Tensor]:
        """step -> x and y side by side, [batch, 2D], to train on."""
        def batch_at(step: int) -> Tensor:
            tokens = self.tokens(batch, seed, step)
            return torch.cat([tokens.x, tokens.y], dim=1)

        return batch_at


def regression(balance: Mapping[str, float] = DEFAULT_BALANCE) -> Objective:
    """The objective in a skills world: mean squared error + Σ strength · balance loss; `balance` as in `next_token`.

    Returns: a function (layer, x and y side by side [T, 2D]) -> the loss to minimise, and figures as in `next_token`.
    """
    terms = balance_terms(balance)

    def objective(layer: nn.Module, batch: Tensor) -> tuple[Tensor, dict]:
        x, y = batch.chunk(2, dim=-1)
        out, routing = layer(x) if isinstance(layer, MoE) else (layer(x), None)
        loss = F.mse_loss(out, y)
        term, figures = terms([(routing, layer.router)] if routing is not None else [], len(x))
        return loss + term, {"loss": loss.detach()} | figures

    return objective
