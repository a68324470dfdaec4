"""Uneven worlds and uneven layers: is it worth anything if experts differ in size, or tokens in their number of experts?

The world is a skills world without a shared function, in which two things may be uneven. *Complexity*: the first half of the
skills has few hidden units, the other half many, all equally loud. *Number*: a token carries one, two or three skills instead of
two. There are as many experts as skills where the truth is to be known, so that an oracle can send each skill to its own.

A layer of experts of any sizes under any choice is one dense FFN, each of whose hidden units is multiplied by the gate of the
expert that owns it. All gates are σ(logit), not renormalised; arms differ in the choice alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import require
from ..base.seeds import mixed_seed
from ..moe import zoo
from ..moe.balance import update_bias
from ..moe.dispatch import swiglu
from ..moe.layers import gate, weight
from .skills import TEST_STEP, SkillsWorld, Tokens

BIAS_RATE = 0.01  # of DeepSeek-V3's bias; a training here is short
ADAPT = 1.2  # ReMoE's step of its penalty (arXiv 2412.14711, eq. 9)
CUTOFF_RATE = 0.1


class UnevenWorld(SkillsWorld):
    """A skills world in which skills, or tokens, may be uneven; the same for the same arguments.

    Args:
        easy_units, hard_units: hidden units of a skill of the first half, and of the second.
        varying: tokens carry 1, 2 or 3 skills, a third of them each, instead of 2.
        num_skills, width, seed: as in `SkillsWorld`.
    """

    trained_on = ("x", "y", "skills")  # [batch, 2D + M]; only an oracle looks at the skills

    def __init__(self, easy_units: int = 8, hard_units: int = 8, varying: bool = False, num_skills: int = 8, width: int = 16,
                 seed: int = 0):
        require(1 <= easy_units <= hard_units, f"easy_units {easy_units} and hard_units {hard_units}: expected 1 ≤ easy ≤ hard")
        super().__init__(num_skills, 2, width, shared_units=0, skill_units=hard_units, seed=seed)
        self.varying, (a, b) = varying, self.skill_ab
        self.units = torch.tensor([easy_units] * (num_skills // 2) + [hard_units] * (num_skills - num_skills // 2), device="cpu")
        there_M1H = torch.arange(hard_units, device="cpu") < self.units[:, None, None]
        self.skill_ab = a * there_M1H, b * (hard_units / self.units[:, None, None]) ** 0.5  # fewer units, and as loud

    def tokens(self, count: int, seed: int = 0, step: int = TEST_STEP) -> Tokens:
        """`count` tokens, their `skills` [T, M]: 1 where carried, else 0; test tokens unless a training step is given."""
        require(count >= 1, f"count is {count}; expected at least one token")
        generator = torch.Generator().manual_seed(mixed_seed(seed, step))
        place_TM = torch.rand(count, self.num_skills, generator=generator, device="cpu").argsort(dim=1).argsort(dim=1)
        number_T = (torch.randint(1, 4, (count,), generator=generator, device="cpu") if self.varying
                    else torch.full((count,), 2, device="cpu"))
        carried_TM = (place_TM < number_T[:, None]).float()
        x = torch.randn(count, self.width, generator=generator, device="cpu") + self.signal / 2 ** 0.5 * carried_TM @ self.marks
        y = torch.einsum("tm,mtd->td", carried_TM, self.each_skill(x)) / 2 ** 0.5
        return Tokens(x, y, carried_TM)

    def read(self, x_TD: Tensor) -> Tensor:
        """How probable it is that a token carries each skill, by all that x says: [T, M]. No router knows more."""
        numbers = (1, 2, 3) if self.varying else (2,)
        sets = torch.tensor([[i in held for i in range(self.num_skills)] for number in numbers
                                for held in combinations(range(self.num_skills), number)], device="cpu").float()
        size = sets.sum(dim=1)
        prior = 1 / (size[:, None] == size).sum(dim=1)  # each number is as frequent, and each set of a number
        apart = torch.cdist(x_TD, self.signal / 2 ** 0.5 * sets @ self.marks)
        return (prior.log() - apart.square() / 2).softmax(dim=1) @ sets

    def floor(self, tokens: Tokens) -> float:
        """The mean squared error that stays if x is read as well as can be: that of E[y | x]. An oracle is told more."""
        best_TD = torch.einsum("tm,mtd->td", self.read(tokens.x), self.each_skill(tokens.x)) / 2 ** 0.5
        return F.mse_loss(best_TD, tokens.y).item()


@dataclass(frozen=True)
class Arm:
    """A layer of the experiments on uneven experts.

    Args:
        sizes: hidden units of each expert.
        choice: one of `CHOICES`.
        top_k: experts per token; where their number varies, its mean.
        penalty: on hidden units that are used: that much times Σ f_i·(h_i / max h)·P_i, with f_i and P_i as
            in `balance_loss` (HMoE, arXiv 2408.10681).
        balanced: move a selection bias until all experts have the same load (DeepSeek-V3).
    """

    sizes: tuple[int, ...]
    choice: str = "top-k"
    top_k: int = 2
    penalty: float = 0.0
    balanced: bool = True

    def __post_init__(self):
        require(self.choice in CHOICES, f"unknown choice {self.choice!r}; choose one of {', '.join(CHOICES)}")
        require(len(self.sizes) >= 1 and min(self.sizes) >= 0, f"sizes are {self.sizes}; expected one or more, none negative")
        require(1 <= self.top_k <= len(self.sizes), f"top_k is {self.top_k}; expected 1 … {len(self.sizes)}")

    @property
    def units(self) -> float:
        """Hidden units that a token uses on average, if all experts are equally loaded."""
        return self.top_k * sum(self.sizes) / len(self.sizes)


def best(rank_TN: Tensor, number: int | Tensor) -> Tensor:
    """The `number` best of each row, one number for all or [T] of them: [T, N], True where chosen."""
    number = number[:, None] if isinstance(number, Tensor) else number
    return rank_TN.argsort(dim=1, descending=True).argsort(dim=1) < number


def own_first(carried_TN: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """A token's own experts up to `number`, filled up at random."""
    return best(carried_TN + torch.rand(carried_TN.shape, generator=generator, device="cpu").to(carried_TN.device) / 2, number)


# (the layer, logits [T, N], which skills a token carries [T, M]) -> which experts it goes to, [T, N]
CHOICES: dict[str, Callable[["UnevenLayer", Tensor, Tensor], Tensor]] = {
    "top-k": lambda layer, logits, carried: best(logits.sigmoid() + layer.bias, layer.arm.top_k),
    "top-p": lambda layer, logits, carried: zoo.top_p(logits + layer.bias, layer.level.item()) > 0,
    "threshold": lambda layer, logits, carried: zoo.threshold(logits, layer.cutoffs) > 0,
    "relu": lambda layer, logits, carried: zoo.relu(logits) > 0,
    "oracle": lambda layer, logits, carried: carried > 0,
    "oracle number": lambda layer, logits, carried: best(logits.sigmoid() + layer.bias, carried.sum(dim=1)),
    "shuffled number": lambda layer, logits, carried: best(logits.sigmoid() + layer.bias, carried.sum(dim=1).roll(1)),
    "oracle choice": lambda layer, logits, carried: own_first(carried, layer.arm.top_k, torch.Generator().manual_seed(0)),
}


class UnevenLayer(nn.Module):
    """Experts of any sizes under any choice: y = Σ_i g_i · expert_i(x), g_i = σ(logit_i) if chosen, ReLU(logit_i) in ReMoE.

    Args:
        arm: sizes and choice.
        width: D.

    Returns (forward): for x [T, D] and the skills that tokens carry [T, M] the output [T, D], logits [T, N], and which experts
        were chosen [T, N].
    """

    arm: Arm
    owner: Tensor
    sizes: Tensor
    bias: Tensor
    cutoffs: Tensor
    level: Tensor
    spent: Tensor

    def __init__(self, arm: Arm, width: int):
        super().__init__()
        num_experts, units = len(arm.sizes), sum(arm.sizes)
        self.arm, self.router = arm, weight(width, num_experts)
        self.w_in, self.w_out = weight(width, 2 * units), nn.Parameter(torch.randn(units, width) * (units / num_experts) ** -0.5)
        self.register_buffer("sizes", torch.tensor(arm.sizes))
        self.register_buffer("owner", torch.arange(num_experts).repeat_interleave(self.sizes))
        self.register_buffer("bias", torch.zeros(num_experts))
        self.register_buffer("cutoffs", torch.full((num_experts,), 0.5))
        self.register_buffer("spent", torch.zeros(2))  # units of a token, summed over training steps; and the steps
        self.register_buffer("level", torch.tensor({"top-p": arm.top_k / num_experts, "relu": 1e-4}.get(arm.choice, 0.0)))

    def forward(self, x_TD: Tensor, carried_TM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The output [T, D] for tokens x and the skills that they carry, the logits, and who was chosen, both [T, N]."""
        logits_TN = gate(x_TD, self.router)
        chosen_TN = CHOICES[self.arm.choice](self, logits_TN.detach(), carried_TM)
        gates_TN = (logits_TN if self.arm.choice == "relu" else logits_TN.sigmoid()) * chosen_TN
        return (swiglu(x_TD @ self.w_in) * gates_TN[:, self.owner]) @ self.w_out, logits_TN, chosen_TN

    def units(self, chosen_TN: Tensor) -> Tensor:
        """Hidden units that each token passes through: [T]."""
        return chosen_TN.float() @ self.sizes.float()

    def number(self, chosen_TN: Tensor) -> Tensor:
        """Experts that each token pays for, null experts left out: [T]."""
        return chosen_TN.float() @ (self.sizes > 0).float()


class UnevenObjective:
    """Mean squared error, with what keeps an arm's cost where it should be; its batches are those of `UnevenWorld.sampler`."""

    def __call__(self, layer: UnevenLayer, batch: Tensor) -> tuple[Tensor, dict]:
        width, arm = layer.router.shape[0], layer.arm
        x, y, carried = batch.split([width, width, batch.shape[1] - 2 * width], dim=1)
        out, logits, chosen = layer(x, carried)
        loss, share_N = F.mse_loss(out, y), chosen.float().mean(dim=0) * len(arm.sizes) / arm.top_k  # f, 1 where balanced
        figures = {"loss": loss.detach(), "units": layer.units(chosen).mean(), "number": layer.number(chosen).mean(),
                   "load": [chosen.sum(dim=0).tolist()]}
        if arm.choice == "relu":  # ReMoE's penalty in the form that balances (arXiv 2412.14711, section 3.3)
            loss = loss + layer.level * (share_N * F.relu(logits).mean(dim=0)).mean()
        if arm.choice == "threshold":
            figures["cutoffs"] = zoo.moved_cutoffs(layer.cutoffs, logits.detach(), arm.top_k, CUTOFF_RATE).tolist()
        if arm.penalty:
            loss = loss + arm.penalty * (share_N * layer.sizes / layer.sizes.max() * logits.softmax(dim=-1).mean(dim=0)).sum()
        return loss, figures

    def after_step(self, layer: UnevenLayer, figures: dict) -> None:
        """Move what moves outside the gradient: cut-offs, p, ReMoE's penalty towards the mean K, biases towards equal loads."""
        layer.spent[0] += figures["units"]
        layer.spent[1] += 1
        if "cutoffs" in figures:
            layer.cutoffs.copy_(torch.tensor(figures["cutoffs"]))
        few = figures["number"] < layer.arm.top_k
        if layer.arm.choice == "top-p":
            layer.level.mul_(1.02 if few else 0.98).clamp_(max=1.0)
        elif layer.arm.choice == "relu":
            layer.level.mul_(1 / ADAPT if few else ADAPT)
        if layer.arm.balanced:
            layer.bias.copy_(update_bias(layer.bias, torch.tensor(figures["load"][0]), BIAS_RATE))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, 0 where one of the two does not vary."""
    return torch.corrcoef(torch.stack([a, b]).double()).nan_to_num()[0, 1].item() if a.std() > 0 and b.std() > 0 else 0.0


@torch.no_grad()
def judge(layer: UnevenLayer, world: UnevenWorld, tokens: Tokens) -> dict[str, float]:
    """What a layer costs, and for whom.

    Returns: `error`, the mean squared error; `units` and `number`, hidden units and experts of a token; `units_for_need` and
        `number_for_need`, their correlation with the units and the number of a token's skills.
    """
    out_TD, _, chosen_TN = layer(tokens.x, tokens.skills)
    units_T, number_T = layer.units(chosen_TN), layer.number(chosen_TN)
    need_T, skills_T = tokens.skills @ world.units.float(), tokens.skills.sum(dim=1)
    return {
        "error": (out_TD - tokens.y).square().mean().item(),
        "units": units_T.mean().item(), "number": number_T.mean().item(),
        "units_for_need": correlation(units_T, need_T), "number_for_need": correlation(number_T, skills_T)}
