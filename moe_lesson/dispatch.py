"""Three ways to compute the routed part of an MoE layer: y_t = Σ_k weight_tk · expert_{id_tk}(x_t).

All three take the same experts, the same tokens and the same routing, and give the same output. `loop` is the equation,
`one_hot` is the equation as one tensor expression, `grouped` is what one runs.

Letters: T tokens, D model width, H expert width, N experts, K active, R = T·K routed rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .layers import Experts
    from .routing import Routing


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


def loop(experts: Experts, x_TD: Tensor, routing: Routing) -> Tensor:
    """One expert after the other, each on the tokens that chose it: the equation, and the oracle for the other two."""
    y_TD = torch.zeros_like(x_TD)
    for i, (w_in_DH, w_out_HD) in enumerate(zip(experts.w_in, experts.w_out)):
        token_R, slot_R = tokens_of(i, routing.expert_ids)
        out_RD = ffn(x_TD[token_R], w_in_DH, w_out_HD)
        y_TD = combine(y_TD, out_RD, token_R, routing.weights[token_R, slot_R])
    return y_TD


def one_hot(experts: Experts, x_TD: Tensor, routing: Routing) -> Tensor:
    """Every expert on every token, then a sum weighted by the gates, most of which are zero: N/K times the work."""
    hidden_TNH = swiglu(torch.einsum("td,ndh->tnh", x_TD, experts.w_in.to(x_TD.dtype)))
    out_TND = torch.einsum("tnh,nhd->tnd", hidden_TNH, experts.w_out.to(x_TD.dtype))
    return torch.einsum("tn,tnd->td", routing.gates.to(x_TD.dtype), out_TND)


def grouped(experts: Experts, x_TD: Tensor, routing: Routing) -> Tensor:
    """Sort the routed rows by expert, multiply each expert's block of rows with its matrices, add back to the tokens."""
    order_R = routing.expert_ids.flatten().argsort(stable=True)
    token_R = order_R // routing.top_k
    ends_N = routing.load.cumsum(0).to(torch.int32)
    hidden_RH = swiglu(grouped_product(x_TD[token_R], experts.w_in.to(x_TD.dtype), ends_N))
    out_RD = grouped_product(hidden_RH, experts.w_out.to(x_TD.dtype), ends_N)
    return combine(torch.zeros_like(x_TD), out_RD, token_R, routing.weights.flatten()[order_R])


def grouped_product(rows_RA: Tensor, w_NAB: Tensor, ends_N: Tensor) -> Tensor:
    """Rows of one expert after those of the other, each block times its own matrix: [R, A] × [N, A, B] -> [R, B].

    Args:
        rows_RA: the rows, sorted by expert.
        w_NAB: one matrix per expert.
        ends_N: int32, where each expert's block of rows ends.
    """
    # torch's kernel knows no float64 and wants rows that start at multiples of 16 bytes; the rest goes block by block
    aligned = all(size * rows_RA.element_size() % 16 == 0 for size in w_NAB.shape[1:])
    if aligned and rows_RA.dtype != torch.float64 and len(rows_RA):
        return F.grouped_mm(rows_RA, w_NAB, offs=ends_N)
    sizes = ends_N.diff(prepend=ends_N.new_zeros(1)).tolist()
    return torch.cat([rows @ w for rows, w in zip(rows_RA.split(sizes), w_NAB)])


DISPATCHES = {"grouped": grouped, "one_hot": one_hot, "loop": loop}
