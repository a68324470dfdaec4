"""The router zoo: twelve ways from router logits to gates, as pure functions of one form.

Every router takes logits [T, N], and the little else that it needs, and returns gates [T, N]: what each expert's output is
multiplied by, 0 where it is not chosen. `ZOO` names them all and calls each in the same way. A router is *causal* if no later
token changes what happens to an earlier one: only then can it serve a model that writes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.errors import require
from .layers import choose
from .pooled import outside_pool


def gates_of(scores_TN: Tensor, top_k: int, **how) -> Tensor:
    """The weights that `choose` gives its K best, written out over all experts: [T, N]."""
    require(1 <= top_k <= scores_TN.shape[1], f"top_k is {top_k}; expected 1 … {scores_TN.shape[1]}, the number of experts")
    ids_TK, weights_TK = choose(scores_TN, top_k, **how)
    return torch.zeros_like(scores_TN).scatter(1, ids_TK, weights_TK)


def outside_groups(group_scores_TG: Tensor, kept: int, num_experts: int) -> Tensor:
    """Which experts lie outside a token's `kept` best groups: [T, N], True where closed."""
    groups = group_scores_TG.shape[1]
    require(1 <= kept <= groups, f"kept is {kept}; expected 1 … {groups}, the number of groups")
    closed_TG = torch.ones_like(group_scores_TG, dtype=torch.bool).scatter(1, group_scores_TG.topk(kept).indices, False)
    return closed_TG.repeat_interleave(num_experts // groups, dim=1)


def in_groups(scores_TN: Tensor, groups: int) -> Tensor:
    """Scores by group, [T, G, N/G]: experts that stand side by side live on one machine."""
    require(groups >= 1 and scores_TN.shape[1] % groups == 0,
            f"{scores_TN.shape[1]} experts can't be {groups} groups of one size")
    return scores_TN.unflatten(1, (groups, -1))


def device_limited(scores_TN: Tensor, devices: int, limit: int = 3) -> Tensor:
    """DeepSeek-V2's: each token stays on the `limit` devices that have its best experts (arXiv 2405.04434, section 2.2.2).

    Args:
        scores_TN: what the experts are chosen by; a device has N/devices neighbours.
        devices: how many there are.
        limit: how many of them a token may go to; together they need at least K experts.

    Returns: [T, N] True where an expert is closed; give it to `choose` or `Router` as `closed_TN`.
    """
    return outside_groups(in_groups(scores_TN, devices).amax(dim=-1), limit, scores_TN.shape[1])


def node_limited(scores_TN: Tensor, nodes: int = 8, limit: int = 4, best: int = 2) -> Tensor:
    """DeepSeek-V3's: each token stays on the `limit` nodes whose `best` highest scores have the highest sum; best = K/limit
    (arXiv 2412.19437, section 2.1.2). Its scores include the selection bias.

    Returns: closed [T, N], as of `device_limited`.
    """
    grouped = in_groups(scores_TN, nodes)  # [T, G, experts of a group]
    best_TG = grouped.topk(min(best, grouped.shape[2]), dim=-1).values.sum(dim=-1)
    return outside_groups(best_TG, limit, scores_TN.shape[1])


def best_in_groups(scores_TN: Tensor, groups: int, kept: int, top_k: int) -> Tensor:
    """The K best experts out of the `kept` groups whose two best scores have the largest sum: ids [T, K]."""
    closed_TN = node_limited(scores_TN, groups, kept)
    return scores_TN.masked_fill(closed_TN, -torch.inf).topk(top_k, dim=-1).indices


def must_be_enough(num_experts: int, groups: int, kept: int, top_k: int) -> None:
    """Refuse kept groups with fewer than K experts: a token would go to closed ones, and nobody would know."""
    require(kept * num_experts >= top_k * groups,
            f"{kept} of {groups} groups have fewer than {top_k} (top_k) of {num_experts} experts: keep more groups")


def plain_top_k(logits_TN: Tensor, top_k: int) -> Tensor:
    """The K best by softmax, weights with sum 1 (GShard, arXiv 2006.16668, algorithm 1; Mixtral, 2401.04088, section 2.1)."""
    return gates_of(logits_TN.softmax(dim=-1), top_k, renormalise=top_k > 1)


def v2_groups(logits_TN: Tensor, top_k: int, groups: int, kept: int, scale: float = 1.0) -> Tensor:
    """DeepSeek-V2: only the groups with the highest single score are open; raw probabilities as weights (arXiv 2405.04434,
    section 2.2.2 on device-limited routing)."""
    must_be_enough(logits_TN.shape[1], groups, kept, top_k)
    scores_TN = logits_TN.softmax(dim=-1)
    return gates_of(scores_TN, top_k, closed_TN=device_limited(scores_TN, groups, kept), renormalise=False, scale=scale)


def v3_groups(logits_TN: Tensor, top_k: int, bias_N: Tensor, groups: int, kept: int, scale: float = 1.0) -> Tensor:
    """DeepSeek-V3: sigmoid scores, a bias that helps to choose and never weighs, groups ranked by the sum of their two best
    (arXiv 2412.19437, eq. 12–16 and section 2.1.2 on node-limited routing)."""
    must_be_enough(logits_TN.shape[1], groups, kept, top_k)
    ids_TK = best_in_groups(logits_TN.sigmoid() + bias_N, groups, kept, top_k)
    weights_TK = F.logsigmoid(logits_TN).gather(1, ids_TK).softmax(dim=-1)  # scores over their sum, in logarithms
    return torch.zeros_like(logits_TN).scatter(1, ids_TK, weights_TK * scale)


def log_softplus(logits: Tensor) -> Tensor:
    """log log(1 + e^x), which is x where e^x is next to nothing: there softplus would be 0, and its logarithm -∞."""
    return torch.where(logits < -15, logits, F.softplus(logits.clamp_min(-15)).log())


def v4_root(logits_TN: Tensor, top_k: int, bias_N: Tensor, scale: float = 1.0) -> Tensor:
    """DeepSeek-V4: scores √softplus(logit), which no ceiling holds, V3's bias, no groups (as coded in transformers 5.23,
    models/deepseek_v4)."""
    scores_TN = F.softplus(logits_TN).sqrt()
    return gates_of(scores_TN, top_k, bias_N=bias_N, scale=scale, log_scores_TN=log_softplus(logits_TN) / 2)


def hashed(logits_TN: Tensor, token_ids_T: Tensor, table_VK: Tensor, scale: float = 1.0) -> Tensor:
    """Hash layer: a fixed table says which experts a token id goes to (arXiv 2106.04426, section 3); the gate only weighs them,
    as in the first layers of DeepSeek-V4 (transformers 5.23)."""
    ids_TK = table_VK[token_ids_T]
    weights_TK = (log_softplus(logits_TN.gather(1, ids_TK)) / 2).softmax(dim=-1)  # roots over their sum, in logarithms
    return torch.zeros_like(logits_TN).scatter(1, ids_TK, weights_TK * scale)


def expert_choice(logits_TN: Tensor, top_k: int) -> Tensor:
    """Experts choose: each takes the K·T/N tokens that score it highest (arXiv 2202.09368, eq. 1–2). Perfect balance; but who
    else is in the batch decides, and later tokens are in it, too: not causal."""
    scores_TN = logits_TN.softmax(dim=-1)
    room = min(len(logits_TN), -(-top_k * len(logits_TN) // logits_TN.shape[1]))
    taken = scores_TN.topk(room, dim=0).indices  # [room, N]
    return torch.zeros_like(scores_TN).scatter(0, taken, scores_TN.gather(0, taken))


def threshold(logits_TN: Tensor, cutoffs_N: Tensor) -> Tensor:
    """Expert threshold: every expert takes whoever scores above its own cut-off (arXiv 2603.11535). Cut-offs are moved between
    batches, see `moved_cutoffs`: expert choice made causal."""
    scores_TN = logits_TN.sigmoid()
    return scores_TN * (scores_TN > cutoffs_N)


def moved_cutoffs(cutoffs_N: Tensor, logits_TN: Tensor, top_k: float, rate: float) -> Tensor:
    """A step of every expert's cut-off towards the score that K·T/N tokens of this batch are above."""
    return torch.lerp(cutoffs_N, logits_TN.sigmoid().quantile(1 - top_k / logits_TN.shape[1], dim=0), rate)


def top_p(logits_TN: Tensor, p: float) -> Tensor:
    """The fewest experts whose probabilities have a sum above p, with these as weights (arXiv 2403.07652, section 3): a token
    that the router is sure of gets few."""
    scores_TN = logits_TN.softmax(dim=-1)
    best_TN, order_TN = scores_TN.sort(dim=-1, descending=True, stable=True)
    before_TN = best_TN.cumsum(dim=-1) - best_TN
    return torch.zeros_like(scores_TN).scatter(1, order_TN, best_TN * (before_TN <= p))


def null_experts(logits_TN: Tensor, top_k: int, free: int) -> Tensor:
    """Null experts: the last `free` experts give 0 and cost nothing; K is for all, so a token gets K·(N - free)/N real ones on
    average if all are equally loaded (arXiv 2601.15370). Weights with sum 1 over the real ones."""
    require(0 <= free < logits_TN.shape[1], f"free is {free}; expected 0 … {logits_TN.shape[1] - 1} of the experts")
    gates_TN = gates_of(logits_TN.softmax(dim=-1), top_k)
    gates_TN[:, logits_TN.shape[1] - free:] = 0
    return gates_TN / gates_TN.sum(dim=-1, keepdim=True).clamp_min(1e-20)


def moe_plus_plus(logits_TN: Tensor, top_k: int, previous_TN: Tensor, mix_NN: Tensor) -> Tensor:
    """MoE++: among the experts are some that cost next to nothing: zero (0), copy (x), constant (a mix of x and one vector); the
    logits of the layer before help to choose (arXiv 2410.07348, section 3). Raw probabilities as weights."""
    return gates_of((logits_TN + previous_TN @ mix_NN).softmax(dim=-1), top_k, renormalise=False)


def relu(logits_TN: Tensor, level: float = 0.0) -> Tensor:
    """ReMoE: the gate is ReLU(logit), continuous and without any top-k (arXiv 2412.14711, eq. 6). A penalty on the gates pushes
    the logits down until K are above 0; `level` shifts logits that were never pushed."""
    return F.relu(logits_TN - level)


def document_pool(logits_TN: Tensor, top_k: int, documents_T: Tensor, pool: int) -> Tensor:
    """EMO: the tokens of a document choose from a pool that they share (arXiv 2605.06663), here the experts with the highest mean
    probability in it. Causal only where the pool is known before the tokens are, from a prompt for one; here it is not."""
    require(top_k <= pool <= logits_TN.shape[1], f"pool is {pool}; expected {top_k} (top_k) … {logits_TN.shape[1]} experts")
    scores_TN = logits_TN.softmax(dim=-1)
    closed_TN = outside_pool(scores_TN, documents_T.unique(return_inverse=True)[1], pool)
    return gates_of(scores_TN, top_k, closed_TN=closed_TN, renormalise=top_k > 1)


@dataclass(frozen=True)
class Settings:
    """What the routers of the zoo need beside logits: some of it each, all made so that a token gets about K experts.

    Args:
        top_k: K.
        groups, kept: G, and how many of them are open to a token.
        bias_N: DeepSeek's selection bias.
        cutoffs_N, p, level: of `threshold`, `top_p` and `relu`.
        table_VK: of `hashed`.
        free: how many of the last experts cost nothing, for `null_experts` and `moe_plus_plus`.
        mix_NN: of `moe_plus_plus`.
        pool: of `document_pool`.
    """

    top_k: int
    groups: int
    kept: int
    bias_N: Tensor
    cutoffs_N: Tensor
    p: float
    level: float
    table_VK: Tensor
    free: int
    mix_NN: Tensor
    pool: int


@dataclass(frozen=True)
class Tokens:
    """T tokens before a router: logits [T, N], those of the layer before (previous [T, N]), token_ids [T], documents [T]."""

    logits: Tensor
    previous: Tensor
    token_ids: Tensor
    documents: Tensor

    def first(self, count: int) -> "Tokens":
        """The first `count` tokens: what is there before the others are written."""
        return Tokens(self.logits[:count], self.previous[:count], self.token_ids[:count], self.documents[:count])


def settings_for(logits_TN: Tensor, top_k: int, vocabulary: int) -> Settings:
    """Settings for a router's logits on an earlier batch: cut-offs, p and level give K experts a token on it, and the bias evens
    its load a little. There are four groups, or as many as share the experts out and have K each, and one is kept; four experts
    are free, where there are more. The hash table and the mix are drawn."""
    num_experts, generator = logits_TN.shape[1], torch.Generator().manual_seed(0)
    groups = next(each for each in (4, 3, 2, 1) if num_experts % each == 0 and num_experts >= top_k * each)
    scores_TN = logits_TN.sigmoid()
    best_TN = logits_TN.softmax(dim=-1).sort(dim=-1, descending=True).values
    before_TN = best_TN.cumsum(dim=-1) - best_TN  # `top_p` takes whoever has at most p before it: K·T of them shall
    return Settings(
        top_k=top_k, groups=groups, kept=1,
        bias_N=-0.1 * (scores_TN.mean(dim=0) - scores_TN.mean()),
        cutoffs_N=moved_cutoffs(torch.zeros(num_experts, device="cpu"), logits_TN, top_k, rate=1.0),
        p=before_TN.flatten().kthvalue(top_k * len(logits_TN)).values.item(),
        level=logits_TN.quantile(1 - top_k / num_experts).item(),
        table_VK=torch.rand(vocabulary, num_experts, generator=generator, device="cpu").topk(top_k).indices,
        free=min(4, num_experts - 1),
        mix_NN=torch.randn(num_experts, num_experts, generator=generator, device="cpu") * num_experts ** -0.5,
        pool=min(num_experts, 2 * top_k))


@dataclass(frozen=True)
class Kind:
    """A router of the zoo: `gates` (tokens, settings) -> [T, N], whether it is `causal`, and `free`, whether the last experts of
    the settings cost nothing."""

    gates: Callable[[Tokens, Settings], Tensor]
    causal: bool = True
    free: bool = False

    def cost(self, gates_TN: Tensor, s: Settings) -> Tensor:
        """How many experts each token pays for: [T]."""
        paid = gates_TN.shape[1] - (s.free if self.free else 0)
        return (gates_TN[:, :paid] != 0).sum(dim=1)


ZOO: dict[str, Kind] = {
    "TopK": Kind(lambda t, s: plain_top_k(t.logits, s.top_k)),
    "DeepSeek-V2": Kind(lambda t, s: v2_groups(t.logits, s.top_k, s.groups, s.kept)),
    "DeepSeek-V3": Kind(lambda t, s: v3_groups(t.logits, s.top_k, s.bias_N, s.groups, s.kept)),
    "DeepSeek-V4": Kind(lambda t, s: v4_root(t.logits, s.top_k, s.bias_N)),
    "hash layer": Kind(lambda t, s: hashed(t.logits, t.token_ids, s.table_VK)),
    "expert choice": Kind(lambda t, s: expert_choice(t.logits, s.top_k), causal=False),
    "threshold": Kind(lambda t, s: threshold(t.logits, s.cutoffs_N)),
    "top-p": Kind(lambda t, s: top_p(t.logits, s.p)),
    "null experts": Kind(lambda t, s: null_experts(t.logits, s.top_k, s.free), free=True),
    "MoE++": Kind(lambda t, s: moe_plus_plus(t.logits, s.top_k, t.previous, s.mix_NN), free=True),
    "ReMoE": Kind(lambda t, s: relu(t.logits, s.level)),
    "EMO": Kind(lambda t, s: document_pool(t.logits, s.top_k, t.documents, s.pool), causal=False),
}
