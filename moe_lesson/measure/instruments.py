"""Instruments: pure functions from routings to numbers. A number about routing stands beside the same number of a null."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import require
from ..lm.model import LanguageModel, evaluating, listening
from ..moe.dispatch import ffn, swiglu
from ..moe.layers import DenseFFN, MoE, mixtures, moe_layers
from ..moe.routing import Routing


@torch.no_grad()
def loudness(model: LanguageModel, ids_BS: Tensor) -> list[float]:
    """How long what the routed experts of each MoE layer answer is beside the stream that it joins: the mean over tokens.

    Args:
        model: with at least one MoE layer.
        ids_BS: token ids of B sequences.
    """
    layers, norms = mixtures(model, "no expert answers"), [block.ffn_norm for block in model.blocks if isinstance(block.ffn, MoE)]
    with evaluating(model), listening(norms) as streams, listening(layers) as seen:
        model(ids_BS)
        routed = [layer.experts(x_TD, layer.router(x_TD)) for layer, x_TD in zip(layers, (x.flatten(0, 1) for x in seen))]
    return [(routed_TD.norm(dim=-1) / stream.flatten(0, 1).norm(dim=-1)).mean().item()
            for routed_TD, stream in zip(routed, streams)]


def experts_in_common(routing: Routing) -> tuple[float, float]:
    """How many experts two tokens have in common: the mean over pairs of equal tokens, and over pairs of different ones.

    Two tokens that choose K of N experts at random have K²/N in common.

    Args:
        routing: of T named tokens, among them at least two equal and two different ones.

    Returns: the mean for equal tokens, and for different tokens, both between 0 and K.

    Raises:
        ValueError: if the tokens have no names, or there is no pair of one of the kinds.
    """
    if routing.tokens is None:
        raise ValueError("the tokens of this routing have no names; give them with routing.with_tokens(…)")
    chosen_TN = chosen(routing)
    common_TT = chosen_TN @ chosen_TN.T
    names = {name: i for i, name in enumerate(dict.fromkeys(routing.tokens))}
    name_T = torch.tensor([names[token] for token in routing.tokens], device="cpu")
    equal_TT = name_T[:, None] == name_T[None, :]
    pairs_TT = torch.ones_like(equal_TT).triu(diagonal=1)
    equal, different = common_TT[equal_TT & pairs_TT], common_TT[~equal_TT & pairs_TT]
    require(len(equal) > 0 and len(different) > 0, "this text has no pair of equal tokens, or none of different ones")
    return equal.mean().item(), different.mean().item()


def chosen(routing: Routing) -> Tensor:
    """1 where a token chose an expert, else 0: [T, N], on the CPU."""
    return torch.zeros(routing.logits.shape, device="cpu").scatter(1, routing.expert_ids.cpu(), 1.0)


@torch.no_grad()
def hidden_units(model: LanguageModel, ids: Tensor) -> list[Tensor]:
    """The activations of the hidden units of every dense FFN: silu(x W_gate) · (x W_up), what W_out then mixes.

    Args:
        model: with at least one dense FFN.
        ids: token ids [B, S].

    Returns: one tensor [B·S, H] per dense layer.

    Raises:
        ValueError: if the model has no dense FFN.
    """
    layers = [block.ffn for block in model.blocks if isinstance(block.ffn, DenseFFN)]
    require(bool(layers), "this model has no dense FFN, so there are no hidden units to read")
    with evaluating(model), listening(layers) as inputs:
        model(ids)
    return [swiglu(x @ layer.w_in).flatten(0, 1) for layer, x in zip(layers, inputs)]


# ------------------------------------------------------------------------------------------ what an expert is called for


def calls(routing: Routing, labels_TM: Tensor) -> Tensor:
    """How many tokens each label sends to each expert.

    A token may carry several labels. The share r_im of label m's tokens that go to expert i for its sake is fitted by least
    squares: [token t chose i] ≈ Σ_m r_im · labels_tm. With one label per token that is plain counting.

    Args:
        routing: of T tokens.
        labels_TM: 1 where a token carries a label, else 0, [T, M]; as many for every token.

    Returns: [N, M], not negative.

    Raises:
        ValueError: if there is not one row of labels for each token.
    """
    require(labels_TM.ndim == 2 and len(labels_TM) == routing.num_tokens,
            f"labels have shape {tuple(labels_TM.shape)}; expected [T = {routing.num_tokens} tokens, M labels]")
    labels_TM = labels_TM.cpu().double()
    # T may be large, M is not: by the normal equations, whose pseudoinverse lets labels without a token be
    rates_MN = torch.linalg.pinv(labels_TM.T @ labels_TM, hermitian=True) @ (labels_TM.T @ chosen(routing).double())
    return (rates_MN * labels_TM.sum(dim=0)[:, None]).T.clamp(min=0)


def labels_served(calls_NM: Tensor) -> Tensor:
    """How many labels each expert effectively serves: exp of the entropy of its calls.

    1 if all its calls come from one label, M if all labels call it alike, 0 if nobody calls.

    Args:
        calls_NM: [N, M], see `calls`.

    Returns: [N].
    """
    total_N = calls_NM.sum(dim=1)
    share_NM = calls_NM / total_N.clamp(min=1e-12)[:, None]
    return torch.where(total_N > 0, torch.special.entr(share_NM).sum(dim=1).exp(), 0.0)


def hybridity(routing: Routing, labels_TM: Tensor) -> float:
    """Of how many kinds the tokens of an expert are: labels served, the mean over experts, each counted by its load."""
    load_N = routing.load.cpu().double()
    return ((labels_served(calls(routing, labels_TM)) * load_N).sum() / load_N.sum()).item()


def shuffled(labels_TM: Tensor, seed: int = 0) -> Tensor:
    """The null of every figure about labels: the same labels, dealt out to the tokens at random."""
    return labels_TM[torch.randperm(len(labels_TM), generator=torch.Generator().manual_seed(seed), device="cpu")]


# --------------------------------------------------------------------------------------------- how alike two experts are


@torch.no_grad()
def layer_inputs(model: nn.Module, ids: Tensor) -> list[Tensor]:
    """What goes into each MoE layer of a model: one [T, D] per layer."""
    layers = moe_layers(model)
    with evaluating(model), listening(layers) as inputs:
        model(ids)
    return [x.flatten(0, -2) for x in inputs]


@torch.no_grad()
def expert_outputs(layer: MoE, x_TD: Tensor) -> Tensor:
    """What every expert would answer to the same tokens: [N, T, D]."""
    return torch.stack([ffn(x_TD, w_in, w_out) for w_in, w_out in zip(layer.experts.w_in, layer.experts.w_out)])


@torch.no_grad()
def shared_and_routed(layer: MoE, x_TD: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts that a layer's output is the sum of: [T, D] from the shared experts, [T, D] from the routed ones."""
    if layer.shared is None:
        raise ValueError("this layer has no shared expert; its output is the routed part alone")
    shared_TD = layer.shared(x_TD)
    return shared_TD, layer(x_TD)[0] - shared_TD


def output_similarity(outputs_NTD: Tensor) -> Tensor:
    """Cosine of two experts' answers to a token, mean over the tokens: [N, T, D] -> [N, N]."""
    unit_NTD = F.normalize(outputs_NTD, dim=-1)
    return torch.einsum("itd,jtd->ij", unit_NTD, unit_NTD) / outputs_NTD.shape[1]


def linear_cka(outputs_NTD: Tensor) -> Tensor:
    """Linear CKA of two experts' answers, ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), columns centred (arXiv 1905.00414): [N, T, D] -> [N, N].

    1 if one's answers are the other's turned and scaled; it is blind to what the cosine is about, the common direction.
    """
    centred_NTD = outputs_NTD - outputs_NTD.mean(dim=1, keepdim=True)
    products = torch.einsum("itd,jte->ijde", centred_NTD, centred_NTD).flatten(2).square().sum(dim=-1)
    own_N = products.diagonal().sqrt().clamp(min=1e-12)
    return products / (own_N[:, None] * own_N[None, :])


def weight_similarity(layer: MoE) -> Tensor:
    """Cosine of two experts' weights, unit by unit as they are stored, [N, N]. It says little: the same expert with its hidden
    units in another order has another place in it."""
    flat = F.normalize(torch.cat([layer.experts.w_in.detach().flatten(1), layer.experts.w_out.detach().flatten(1)], dim=1), dim=1)
    return flat @ flat.T


def co_routing(routing: Routing) -> Tensor:
    """How often two experts are chosen by the same token, N_ij / √(N_i N_j), all pairs: [N, N]; 0 for an idle expert."""
    unit_TN = F.normalize(chosen(routing), dim=0)
    return unit_TN.T @ unit_TN


def mean_off_diagonal(similarity_NN: Tensor) -> float:
    """The mean over all pairs of different experts."""
    n = len(similarity_NN)
    return ((similarity_NN.sum() - similarity_NN.diagonal().sum()) / (n * (n - 1))).item()


def probe(outputs_TD: Tensor, target_TD: Tensor) -> float:
    """How well a linear map of some outputs tells a target: R² on the second half of the tokens, fitted on the first half.

    1 is perfectly, 0 is no better than the target's mean.

    Raises:
        ValueError: if there are too few tokens to fit that many numbers.
    """
    half = len(outputs_TD) // 2
    require(half > outputs_TD.shape[1] + 1, f"{len(outputs_TD)} tokens are too few for a probe of {outputs_TD.shape[1]} numbers")
    inputs = F.pad(outputs_TD, (0, 1), value=1.0).cpu().double()
    target_TD = target_TD.cpu().double()
    fit = torch.linalg.lstsq(inputs[:half], target_TD[:half], driver="gelsd").solution
    left = (target_TD[half:] - inputs[half:] @ fit).square().sum()
    return (1 - left / (target_TD[half:] - target_TD[:half].mean(dim=0)).square().sum()).item()
