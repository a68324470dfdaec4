"""Nulls of routing: routers that learned nothing, on the same tokens. A number about routing stands beside one of theirs."""

import copy

import torch
from torch import Tensor, nn

from ..base.errors import whole_number
from ..base.tokens import VOCABULARY
from ..lm.model import LanguageModel, listening
from ..moe.layers import SCORES, Router, choose, mixtures
from ..moe.routing import Routing, routed
from .interventions import with_routers


def random_router(router: Router, seed: int = 0) -> Router:
    """A router of the same sizes and the same size of weights, drawn at random, without bias: the null of every routing.

    Args:
        router: whose shape, score, gate scale and weight spread to take.
        seed: of the draw.

    Raises:
        ValueError: for a seed that is no whole number.
    """
    null = copy.deepcopy(router)
    generator = torch.Generator().manual_seed(whole_number("seed", seed, least=None))
    drawn = torch.randn(router.weight.shape, generator=generator, device="cpu") * router.weight.detach().float().std().cpu()
    with torch.no_grad():
        null.weight.copy_(drawn)
        null.bias.zero_()
    return null


def with_random_routers(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of a model in which every router is random and everything else is as trained."""
    return with_routers(model, lambda i, router: random_router(router, seed + i))


def hash_routing(router: Router, ids_T: Tensor, spread: float = 1.0, seed: int = 0) -> Routing:
    """What a hash of the token id would choose: the same K experts wherever it stands (Hash Layers, arXiv 2106.04426).

    A null that knows the token and nothing else.

    Args:
        router: whose N, K, score and gate scale to take.
        ids_T: token ids [T], of any vocabulary.
        spread: standard deviation of the logits; it decides the weights, never the choice.
        seed: of the hash.

    Raises:
        ValueError: for a seed that is no whole number.
    """
    generator = torch.Generator().manual_seed(whole_number("seed", seed, least=None))
    size = max(VOCABULARY, int(ids_T.max()) + 1)  # those of a real model may be more
    table_VN = torch.randn(size, router.num_experts, generator=generator, device="cpu") * spread
    logits_TN = table_VN[ids_T.cpu()]
    return Routing(logits_TN, *choose(SCORES[router.score](logits_TN), router.top_k, renormalise=router.renormalise,
                                      scale=router.scale))


@torch.no_grad()
def route_beside_null(model: LanguageModel, text: str | bytes, seed: int = 0) -> tuple[list[Routing], list[Routing]]:
    """What the trained routers do with a text, and what random routers would do with the same hidden states.

    Args:
        model: with at least one MoE layer.
        text: at most the model's context, in tokens.
        seed: of the random routers.

    Returns: two lists with one `Routing` for each MoE layer.

    Raises:
        ValueError: if the model has no MoE layer, or the text is empty or too long.
    """
    routers = [layer.router for layer in mixtures(model, "there is no router to stand beside")]
    with listening(routers) as seen:
        trained = routed(model.route(text))
    null = [random_router(router, seed + i).eval()(x_TD).detach() for i, (router, x_TD) in enumerate(zip(routers, seen))]
    return trained, [routing.with_tokens(real.tokens) for routing, real in zip(null, trained)]
