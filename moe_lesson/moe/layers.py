"""The layers of the course: a dense FFN, and a mixture of experts made of a router, experts and shared experts.

Letters are those of the package, see `help(moe_lesson)`. Weights are stored [in, out], so that y = x @ w reads like the equation.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import positive_number, require, whole_number
from .dispatch import BY_NAME, ffn
from .routing import Routing

SCORES = {"softmax": lambda logits: logits.softmax(dim=-1), "sigmoid": torch.sigmoid}
# their logarithms, up to a number for each token: whoever divides by a sum loses it, and a softmax's is its logits
LOG_SCORES = {"softmax": lambda logits: logits, "sigmoid": F.logsigmoid}


def weight(*shape: int) -> nn.Parameter:
    """A weight [..., in, out] from a normal distribution of standard deviation 1/√in."""
    return nn.Parameter(torch.randn(shape) * shape[-2] ** -0.5)


def check_input(x: Tensor, width: int) -> None:
    """Refuse what is not a tensor [..., width] of floats."""
    require(isinstance(x, Tensor), f"the input has type {type(x).__name__}; expected a tensor, see torch.as_tensor")
    require(x.is_floating_point(), f"the input has dtype {x.dtype}; expected floats (embed token ids first)")
    require(x.ndim > 0 and x.shape[-1] == width,
            f"the input has shape {tuple(x.shape)}; its last size must be the model width {width}")


class DenseFFN(nn.Module):
    """The feed-forward layer of LLaMA and DeepSeek: y = (silu(x W_gate) · (x W_up)) W_out (arXiv 2002.05202, eq. 6).

    Args:
        width: D, the model width.
        hidden: H, the number of hidden units.

    Returns (forward): a tensor of the shape [..., D] of its input.

    Raises:
        ValueError: for a size that is no whole number, or an input that is not floats [..., D].
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        whole_number("width", width)
        whole_number("hidden", hidden)
        self.width, self.hidden = width, hidden
        self.w_in = weight(width, 2 * hidden)  # W_gate and W_up side by side: one product instead of two
        self.w_out = weight(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        check_input(x, self.width)
        x = x.to(compute_dtype(x))
        return ffn(x, self.w_in, self.w_out)


def gate(x_TD: Tensor, w_DN: Tensor) -> Tensor:
    """Router logits, one per token and expert: x W, [T, D] × [D, N] -> [T, N].

    At least float32: in bfloat16 near ties would be decided by rounding.
    """
    with torch.autocast("cpu" if x_TD.is_meta else x_TD.device.type, enabled=False):  # the meta device has no autocast
        dtype = torch.promote_types(x_TD.dtype, torch.float32)
        return x_TD.to(dtype) @ w_DN.to(dtype)


def choose(scores_TN: Tensor, top_k: int, *, bias_N: Tensor | None = None, renormalise: bool = True,
           scale: float = 1.0, closed_TN: Tensor | None = None, log_scores_TN: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The K best experts of every token, best first, and their weights.

    Args:
        scores_TN: e.g. the softmax of the logits.
        top_k: K.
        bias_N: added to the scores to choose, never to weigh (arXiv 2408.15664).
        renormalise: divide the K weights by their sum.
        scale: multiply the weights.
        closed_TN: True where a token may not choose an expert; each token needs K others.
        log_scores_TN: the scores' logarithms, up to a number for each token, to divide with: a score too small for its dtype is
            0, and 0 over 0 is no weight.

    Returns: expert_ids [T, K] and weights [T, K].
    """
    rank_TN = scores_TN if bias_N is None else scores_TN + bias_N.to(scores_TN.dtype)
    if closed_TN is not None:
        check_open(closed_TN, top_k)
        rank_TN = rank_TN.masked_fill(closed_TN, -torch.inf)  # and not 0: a bias can lift a 0 above the rest
    ids_TK = rank_TN.topk(top_k, dim=-1).indices
    weights_TK = scores_TN.gather(1, ids_TK)
    if renormalise and log_scores_TN is not None:
        weights_TK = log_scores_TN.gather(1, ids_TK).softmax(dim=-1)  # the same division, in logarithms
    elif renormalise:
        weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
    return ids_TK, weights_TK * scale


def check_open(closed_TN: Tensor, top_k: int) -> None:
    """Refuse to close so many experts that a token has fewer than K. On a CPU alone: a GPU would be waited for, and a graph has
    no values yet."""
    if closed_TN.is_cpu and not torch.compiler.is_compiling():
        require(bool(((~closed_TN).sum(dim=-1) >= top_k).all()),
                f"closed_TN leaves a token fewer than {top_k} (top_k) open experts: close fewer")


def check_choice(num_experts: int, top_k: int, score: str, renormalise: bool | None, scale: float, noisy: bool) -> None:
    """Refuse what no router can be."""
    whole_number("num_experts", num_experts)
    whole_number("top_k", top_k)
    require(top_k <= num_experts,
            f"top_k is {top_k}, but each token must go to 1 … {num_experts} of the {num_experts} experts")
    require(score in SCORES, f"unknown score {score!r}; choose one of {', '.join(SCORES)}")
    require(renormalise in (True, False, None), f"renormalise is {renormalise!r}; expected True, False or None")
    positive_number("scale", scale)
    require(noisy in (True, False), f"noisy is {noisy!r}; expected True or False")


class Router(nn.Module):
    """Which experts a token goes to, and with what weight: s = score(x W), top-k of s (+ bias), weights from s.

    Args:
        width: D.
        num_experts: N.
        top_k: K, experts per token, 1 … N.
        score: "softmax" (Shazeer to DeepSeek-V2) or "sigmoid" (DeepSeek-V3, arXiv 2412.19437, eq. 12–16).
        renormalise: divide the K weights by their sum; unless given, where K > 1. At K = 1 the weight would be 1 whatever the
            router says, and the router would learn nothing: Switch keeps the raw probability (arXiv 2101.03961).
        scale: multiply the weights (DeepSeek's routed_scaling_factor).
        noisy: add trainable Gaussian noise to the logits while training (Shazeer et al., arXiv 1701.06538, eq. 4).

    The buffer `bias` [N] is added to the scores to select, never to weigh; it stays zero until somebody balances with it
    (arXiv 2408.15664).

    Returns (forward): the `Routing` of x [T, D]; with `closed_TN`, see `choose`, of the experts that are not closed.

    Raises:
        ValueError: for a choice that no router can make, or an input that is not floats [T, D].
    """

    bias: Tensor

    def __init__(self, width: int, num_experts: int, top_k: int, *, score: str = "softmax", renormalise: bool | None = None,
                 scale: float = 1.0, noisy: bool = False):
        super().__init__()
        whole_number("width", width)
        check_choice(num_experts, top_k, score, renormalise, scale, noisy)
        self.width, self.top_k, self.score, self.scale = width, top_k, score, scale
        self.renormalise = top_k > 1 if renormalise is None else renormalise
        if self.renormalise and top_k == 1:
            warnings.warn("a top-1 router with renormalise=True weighs whatever it chooses with 1: it gets no gradient and "
                          "learns nothing; leave renormalise out, or give False", stacklevel=2)
        self.weight = weight(width, num_experts)
        self.noise = nn.Parameter(torch.zeros(width, num_experts)) if noisy else None
        self.register_buffer("bias", torch.zeros(num_experts))

    @property
    def num_experts(self) -> int:
        """N."""
        return self.weight.shape[1]

    def _apply(self, fn, recurse: bool = True):
        kept = self.bias
        super()._apply(fn, recurse)  # .bfloat16() and the like: there 0.5 + 0.001 is 0.5, and the bias would stand still
        self.bias = self.bias.to(kept.dtype) if kept.is_meta else kept.to(self.bias.device)
        return self

    def extra_repr(self) -> str:
        """What decides beside the weights, in `repr`: by it a training knows its model again."""
        return f"top_k={self.top_k}, score={self.score!r}, renormalise={self.renormalise}, scale={self.scale}"

    def forward(self, x_TD: Tensor, closed_TN: Tensor | None = None) -> Routing:
        check_input(x_TD, self.width)
        logits_TN = clean_TN = gate(x_TD, self.weight)
        std_TN = None
        if self.noise is not None and self.training:
            std_TN = F.softplus(gate(x_TD, self.noise))
            logits_TN = clean_TN + torch.randn_like(std_TN) * std_TN
        scores_TN = SCORES[self.score](logits_TN)
        ids_TK, weights_TK = choose(scores_TN, self.top_k, bias_N=self.bias, renormalise=self.renormalise, scale=self.scale,
                                    closed_TN=closed_TN, log_scores_TN=LOG_SCORES[self.score](logits_TN))
        return Routing(logits_TN, ids_TK, weights_TK, clean_logits=None if std_TN is None else clean_TN, noise_std=std_TN)


class Experts(nn.Module):
    """N small FFNs, their weights stacked: w_in [N, D, 2H], w_out [N, H, D].

    Args:
        width: D.
        num_experts: N.
        expert_width: H, hidden units of one expert.
        dispatch: how they are computed: "grouped", "one_hot" or "loop"; the result is the same. Or one way of `grouped`,
            "at_once" or "fused", whatever the machine; `dispatch.py` says which is for what.

    Returns (forward): for x [T, D] and its routing, the routed part y_t = Σ_k weight_tk · expert_{id_tk}(x_t), [T, D].

    Raises:
        ValueError: for a size that is no whole number, or an unknown dispatch.
    """

    def __init__(self, width: int, num_experts: int, expert_width: int, dispatch: str = "grouped"):
        super().__init__()
        for name, size in (("width", width), ("num_experts", num_experts), ("expert_width", expert_width)):
            whole_number(name, size)
        require(dispatch in BY_NAME, f"unknown dispatch {dispatch!r}; choose one of {', '.join(BY_NAME)}")
        self.dispatch = dispatch
        self.w_in = weight(num_experts, width, 2 * expert_width)
        self.w_out = weight(num_experts, expert_width, width)

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        """The routed part of the tokens x [T, D]: [T, D]."""
        check_input(x_TD, self.w_in.shape[1])
        require((x_TD.shape[0], len(self.w_in)) == (routing.num_tokens, routing.num_experts),
                f"{x_TD.shape[0]} tokens and {len(self.w_in)} experts, but a routing of {routing.num_tokens} tokens to "
                f"{routing.num_experts}")
        return BY_NAME[self.dispatch](x_TD.to(compute_dtype(x_TD)), routing, self.w_in, self.w_out)


class MoE(nn.Module):
    """Mixture of experts: y = shared(x) + Σ_k weight_k · expert_k(x) (DeepSeekMoE, arXiv 2401.06066, eq. 9).

    Args:
        width: D, the model width.
        num_experts: N, routed experts.
        top_k: K, routed experts per token.
        expert_width: H, hidden units of one expert.
        num_shared: Ks, experts that every token passes through; together they are one FFN of Ks·H hidden units.
        dispatch: as in `Experts`.
        score, renormalise, scale, noisy: as in `Router`.

    Returns (forward): the output [..., D] and the `Routing` of the T flattened tokens.

    Raises:
        ValueError: as `Router` and `Experts`, or for an input that is not floats [..., D].

    >>> y, routing = MoE(width=16, num_experts=8, top_k=2, expert_width=4)(torch.randn(5, 16))
    >>> y.shape, routing.expert_ids.shape
    (torch.Size([5, 16]), torch.Size([5, 2]))
    """

    def __init__(self, width: int, num_experts: int, top_k: int, expert_width: int, num_shared: int = 0,
                 dispatch: str = "grouped", score: str = "softmax", renormalise: bool | None = None, scale: float = 1.0,
                 noisy: bool = False):
        super().__init__()
        whole_number("num_shared", num_shared, least=0)
        self.router = Router(width, num_experts, top_k, score=score, renormalise=renormalise, scale=scale, noisy=noisy)
        self.experts = Experts(width, num_experts, expert_width, dispatch)
        self.shared = DenseFFN(width, num_shared * expert_width) if num_shared else None

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        check_input(x, self.router.width)
        x_TD = x.reshape(-1, x.shape[-1])
        routing = self.router(x_TD)
        y_TD = self.experts(x_TD, routing)
        if self.shared is not None:
            y_TD = y_TD + self.shared(x_TD)
        return y_TD.reshape(x.shape), routing


def check_model(model: object) -> None:
    """Refuse what is no model; most often it is the pair that a file was read into."""
    require(isinstance(model, nn.Module), f"expected a model, got a {type(model).__name__}; load_model and shipped_model give "
                                          "a model and what is known of it: model, about = shipped_model(…)")


def moe_layers(model: nn.Module) -> list[MoE]:
    """All mixtures of experts in a model, in order; a layer by itself is a model too."""
    check_model(model)
    return [module for module in model.modules() if isinstance(module, MoE)]


def mixtures(model: nn.Module, so: str = "there is nothing to change in it") -> list[MoE]:
    """The same of a model that must have one; a ValueError says what follows where it has none."""
    layers = moe_layers(model)
    require(bool(layers), f"this model has no MoE layer, so {so}; take one that has, e.g. "
                          'shipped_model("ladder-deepseekmoe")')
    return layers


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype to multiply in: autocast's where it is on, else the input's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if not x.is_meta and torch.is_autocast_enabled(device) else x.dtype
