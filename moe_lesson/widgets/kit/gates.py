"""How a routing reaches the browser: the gate that turns logits into experts and weights, what is refused, and bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...base.errors import positive_number, require
from ...moe.layers import LOG_SCORES, SCORES, choose
from ...moe.routing import Routing


@dataclass(frozen=True)
class Gate:
    """How a router turns logits into weights; the arguments of `moe_lesson.moe.layers.Router` under the same names.

    Args:
        score: "softmax" or "sigmoid".
        renormalise: divide the K weights by their sum.
        scale: multiply the weights.
        bias: N numbers added to the scores to choose, never to weigh; None is all zeros.

    Raises:
        ValueError: for an unknown score, a scale that is not positive, or a bias that is not finite.
    """

    score: str = "softmax"
    renormalise: bool = True
    scale: float = 1.0
    bias: tuple[float, ...] | None = None

    def __post_init__(self):
        require(self.score in SCORES, f"unknown score {self.score!r}; choose one of {', '.join(SCORES)}")
        positive_number("scale", self.scale)
        require(all(map(math.isfinite, self.bias or ())), "the bias holds NaN or infinity; expected N finite numbers")

    @classmethod
    def of(cls, router) -> Gate:
        """The gate of a `Router`, or a Gate itself."""
        bias = router.bias.double().tolist() if isinstance(router.bias, Tensor) else router.bias
        return cls(router.score, router.renormalise, router.scale, bias and tuple(bias))

    def ranks(self, logits_TN: Tensor) -> Tensor:
        """What experts are chosen by: the scores plus the bias, in float64."""
        return SCORES[self.score](logits_TN.double()) + torch.tensor(self.bias or 0.0, dtype=torch.float64)

    def route(self, logits_TN: Tensor, top_k: int) -> Routing:
        """The `Routing` of the logits, as a router with this gate decides it, in float64."""
        logits = logits_TN.double()
        bias = None if self.bias is None else torch.tensor(self.bias, dtype=torch.float64)
        return Routing(logits_TN, *choose(SCORES[self.score](logits), top_k, bias_N=bias, renormalise=self.renormalise,
                                          scale=self.scale, log_scores_TN=LOG_SCORES[self.score](logits)))


def plain(routing: Routing) -> Tensor:
    """The logits [T, N] as float32 on the CPU."""
    return routing.logits.detach().float().cpu()


def follows(routing: Routing, gate: Gate) -> bool:
    """Does the gate lead from the recorded logits to the recorded choices and weights?

    Near ties may fall either way, and weights may have been rounded to bfloat16.
    """
    logits_TN = plain(routing)
    again, ranks_TN = gate.route(logits_TN, routing.top_k), gate.ranks(logits_TN)
    taken, best = (ranks_TN.gather(1, one.expert_ids.cpu()).amin(1) for one in (routing, again))
    weights, expected = (one.weights.detach().double().cpu().sort(1).values for one in (routing, again))
    return torch.allclose(taken, best, rtol=1e-2, atol=1e-4) and torch.allclose(weights, expected, rtol=2e-2, atol=1e-4)


def check_logits(routing: Routing, here: str) -> None:
    """Refuse logits that are not numbers; -inf for an expert that is masked is one, as long as it is not alone."""
    logits_TN = plain(routing)
    require(bool(logits_TN.amax(1).isfinite().all()) and not logits_TN.isnan().any(),
            f"{here}.logits hold NaN or infinity; look for a diverged training or a division by zero")


def check_routing(routing: Routing, here: str) -> None:
    """Refuse what is not the routing of named tokens."""
    require(isinstance(routing, Routing), f"{here} is {type(routing).__name__}; expected a Routing")
    require(routing.tokens is not None, f"{here} has no token texts; add them with routing.with_tokens([...])")
    require(routing.num_tokens > 0, f"{here} has no token; route a text of at least one")
    require(routing.top_k >= 1, f"{here} has K = 0; each token must go to at least one expert")


def check_text(routings: Sequence[Routing], name: str) -> None:
    """Refuse what is not the routing of one text's named tokens through one or more layers with the same K."""
    require(isinstance(routings, Sequence), f"{name} is {type(routings).__name__}; expected a list, one Routing per MoE layer")
    require(len(routings) > 0, f"{name} is empty; expected one Routing per MoE layer")
    for layer, routing in enumerate(routings):
        here, first = f"{name}[{layer}]", routings[0]
        check_routing(routing, here)
        require(routing.tokens == first.tokens, f"{here} has other tokens than {name}[0]; route one text through all layers")
        require(routing.top_k == first.top_k, f"{here} has K = {routing.top_k}, {name}[0] has {first.top_k}; "
                                              "show layers of different K in views of their own")


def check_layers(routings: Sequence[Routing], gates: Sequence[Gate], name: str) -> None:
    """Refuse layers that are not routings of one text, or that their gates don't reproduce."""
    check_text(routings, name)
    require(len(routings) == len(gates), f"{name} has {len(routings)} layers; expected {len(gates)}")
    for layer, (routing, gate) in enumerate(zip(routings, gates)):
        here = f"{name}[{layer}]"
        check_logits(routing, here)
        require(gate.bias is None or len(gate.bias) == routing.num_experts,
                f"{here} has {routing.num_experts} experts, but the bias has {len(gate.bias or ())} numbers")
        require(follows(routing, gate),
                f"{here} does not follow from its logits with score={gate.score!r}, renormalise={gate.renormalise}, "
                f"scale={gate.scale:g}, {'its' if any(gate.bias or ()) else 'no'} bias: pass the layer's own router "
                "(routers=[block.ffn.router, …]), or its score, renormalise, scale and bias")


def float32(values: Tensor) -> bytes:
    """The numbers as float32, row by row; `floats` in routing.js reads them."""
    return values.detach().float().cpu().numpy().tobytes()


def packed_choices(routings: Sequence) -> dict[str, bytes]:
    """Two traits of [L, T, K]: `expert_ids`, int32, and `expert_weights`, float64, which holds any float exactly."""
    return {"expert_ids": b"".join(one.expert_ids.cpu().numpy().astype(np.int32).tobytes() for one in routings),
            "expert_weights": b"".join(one.weights.detach().double().cpu().numpy().tobytes() for one in routings)}


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
