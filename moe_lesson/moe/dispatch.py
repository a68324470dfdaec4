"""Ways to compute the routed part of an MoE layer: y_t = Σ_k weight_tk · expert_{id_tk}(x_t).

All take the same tokens, the same routing and the same experts' weights, w_in [N, D, 2H] and w_out [N, H, D], and give
the same output. `loop` is the equation, `one_hot` is the equation as one tensor expression, `grouped` is what one runs. What is
fast depends on the machine, so `grouped` itself goes one of two ways:

| where | goes | because |
|---|---|---|
| on a CPU | `in_chunks` | some experts' rows fit its cache, and adding them to their tokens there is the fastest |
| on a GPU | `at_once` | adding rows to tokens would take atomics: slow, and rounded in an order that changes |
| torch.compile, export, meta device | `at_once` | one graph without a value in it, whose steps are PyTorch's to fuse |
| nowhere by itself; on an NVIDIA GPU by name | `fused` | `at_once` with fewer journeys to memory, in Triton |

On an H100 or H200, in bfloat16, the products of `at_once` and `fused` are one kernel each. On other GPUs they loop over the
experts and wait for their loads (`rows.grouped_product`), except the first one of `fused`, which is our own kernel.

The kernels of `fused` are tested in Triton's interpreter. No GPU has run or timed them yet: so nothing chooses them, and you ask
for them, `MoE(…, dispatch="fused")`. Where they can't run, the call says why, and what to do.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused import fused
from .routing import Routing
from .rows import Combine, Gather, block_ends, by_expert, grouped_product

# Rows that a CPU takes through the experts at a time. For 4096 tokens of width 256, 8 of 64 experts, 4 to 16 MiB are within 10%
# of each other; all 32 MiB at once (`at_once`) take 1.3 times as long forward, 1.4 times forward and backward (2 threads).
CHUNK_BYTES = 8 * 2 ** 20


def swiglu(gate_up: Tensor) -> Tensor:
    """SwiGLU nonlinearity: [..., 2H] -> [..., H], silu(first half) · second half (arXiv 2002.05202, eq. 6)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def ffn(x: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
    """One feed-forward network, a dense layer's or an expert's: y = (silu(x W_gate) · (x W_up)) W_out.

    Args:
        x: [..., D].
        w_in: [D, 2H], W_gate and W_up side by side.
        w_out: [H, D].

    Returns: [..., D] (arXiv 2002.05202, eq. 6).
    """
    return swiglu(x @ w_in.to(x.dtype)) @ w_out.to(x.dtype)


def tokens_of(expert: int, expert_ids_TK: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens chose an expert: their positions in 0 … T-1, and in which of the K slots it stands for each of them."""
    token_R, slot_R = torch.where(expert_ids_TK == expert)
    return token_R, slot_R


def combine(y_TD: Tensor, out_RD: Tensor, token_R: Tensor, weight_R: Tensor) -> Tensor:
    """Add R weighted expert outputs to the tokens they belong to; a token may occur several times: [T, D]."""
    return y_TD.index_add(0, token_R, out_RD * weight_R[:, None].to(out_RD.dtype))


def loop(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """One expert after the other, each on the tokens that chose it: the equation, and the oracle for all others."""
    y_TD = torch.zeros_like(x_TD)
    for i, (w_in_D2H, w_out_HD) in enumerate(zip(w_in, w_out)):
        token_R, slot_R = tokens_of(i, routing.expert_ids)
        out_RD = ffn(x_TD[token_R], w_in_D2H, w_out_HD)
        y_TD = combine(y_TD, out_RD, token_R, routing.weights[token_R, slot_R])
    return y_TD


def one_hot(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """Every expert on every token, then a sum weighted by the gates, most of which are zero: N/K times the work."""
    hidden_TNH = swiglu(torch.einsum("td,ndh->tnh", x_TD, w_in.to(x_TD.dtype)))
    out_TND = torch.einsum("tnh,nhd->tnd", hidden_TNH, w_out.to(x_TD.dtype))
    return torch.einsum("tn,tnd->td", routing.gates.to(x_TD.dtype), out_TND)


def grouped(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """Sort the routed rows by expert, multiply each expert's block of rows with its matrices, add back to the tokens."""
    on_cpu = x_TD.device.type == "cpu" and not torch.compiler.is_compiling()
    return (in_chunks if on_cpu else at_once)(x_TD, routing, w_in, w_out)


def at_once(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """`grouped` on a GPU and in a graph: tokens become rows by a permutation, rows become tokens by its inverse."""
    token_R, weight_R, place_TK, ends_N = by_expert(routing)
    hidden_RH = swiglu(grouped_product(Gather.apply(x_TD, token_R, place_TK), w_in.to(x_TD.dtype), ends_N))
    # the product is linear: weighing the H hidden units before it is weighing the D outputs after it
    hidden_RH = hidden_RH * weight_R[:, None].to(x_TD.dtype)
    return Combine.apply(grouped_product(hidden_RH, w_out.to(x_TD.dtype), ends_N), token_R, place_TK)


def in_chunks(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """`grouped` on a CPU: a few experts at a time; their rows are added to the tokens while its cache still holds them."""
    order_R, ends_N = routing.expert_ids.flatten().argsort(stable=True), block_ends(routing.expert_ids, routing.num_experts)
    weight_R = routing.weights.flatten().index_select(0, order_R).to(x_TD.dtype)
    y_TD = torch.zeros_like(x_TD)
    chunks = in_cache(order_R // routing.top_k, weight_R, ends_N, w_in.to(x_TD.dtype), w_out.to(x_TD.dtype))
    for token_R, weight_R, ends_N, w_in, w_out in chunks:
        hidden_RH = swiglu(grouped_product(x_TD.index_select(0, token_R), w_in, ends_N))
        y_TD.index_add_(0, token_R, grouped_product(hidden_RH * weight_R[:, None], w_out, ends_N))
    return y_TD


def in_cache(token_R: Tensor, weight_R: Tensor, ends_N: Tensor, w_in: Tensor, w_out: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut the sorted rows between experts into chunks of about CHUNK_BYTES where the load is even: each of as many experts.

    A CPU still has a chunk in its cache when the next step needs it, and gives its memory to the next chunk. All R rows at once
    need new memory from the operating system in every step.

    Yields: of each chunk the tokens and weights of its rows, where the blocks of its experts end, and their w_in and w_out.
    """
    rows_bytes = len(token_R) * max(w_in.shape[1:]) * w_in.element_size()
    if rows_bytes <= CHUNK_BYTES:
        return iter([(token_R, weight_R, ends_N, w_in, w_out)])
    few = max(1, len(ends_N) * CHUNK_BYTES // rows_bytes)  # experts in a chunk
    cuts = [0, *ends_N[few - 1:-1:few].tolist(), len(token_R)]
    sizes = [end - start for start, end in zip(cuts, cuts[1:])]
    ends = (ends - start for start, ends in zip(cuts, ends_N.split(few)))
    return zip(token_R.split(sizes), weight_R.split(sizes), ends, w_in.split(few), w_out.split(few))


DISPATCHES = {"grouped": grouped, "one_hot": one_hot, "loop": loop}  # what runs everywhere
BY_NAME = DISPATCHES | {"at_once": at_once, "fused": fused}  # what a layer may be asked for
