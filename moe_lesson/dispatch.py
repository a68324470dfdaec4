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


def loop(experts: Experts, x_TD: Tensor, routing: Routing) -> Tensor:
    """One expert after the other, each on the tokens that chose it: the equation, and the oracle for the other two."""
    y_TD = torch.zeros_like(x_TD)
    for i, (w_in_DH, w_out_HD) in enumerate(zip(experts.w_in, experts.w_out)):
        token, slot = torch.where(routing.expert_ids == i)
        out_RD = swiglu(x_TD[token] @ w_in_DH.to(x_TD.dtype)) @ w_out_HD.to(x_TD.dtype)
        y_TD = y_TD.index_add(0, token, out_RD * routing.weights[token, slot, None].to(x_TD.dtype))
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
    weight_R = routing.weights.flatten()[order_R].to(x_TD.dtype)
    return torch.zeros_like(x_TD).index_add(0, token_R, out_RD * weight_R[:, None])


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
