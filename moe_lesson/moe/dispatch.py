"""Three ways to compute the routed part of an MoE layer: y_t = Σ_k weight_tk · expert_{id_tk}(x_t).

All three take the same tokens, the same routing and the same experts' weights, w_in [N, D, 2H] and w_out [N, H, D], and give
the same output. `loop` is the equation, `one_hot` is the equation as one tensor expression, `grouped` is what one runs.

Letters: T tokens, D model width, H expert width, N experts, K active, R routed rows: T·K of them, or a part.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .routing import Routing

# Rows that a CPU takes through the experts at a time. For 4096 tokens of width 256, 8 of 64 experts, 4 to 16 MiB are within 10%
# of each other; all 32 MiB at once take 1.6 times as long forward, 1.3 times forward and backward (2 threads of an AMD EPYC).
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
    """One expert after the other, each on the tokens that chose it: the equation, and the oracle for the other two."""
    y_TD = torch.zeros_like(x_TD)
    for i, (w_in_DH, w_out_HD) in enumerate(zip(w_in, w_out)):
        token_R, slot_R = tokens_of(i, routing.expert_ids)
        out_RD = ffn(x_TD[token_R], w_in_DH, w_out_HD)
        y_TD = combine(y_TD, out_RD, token_R, routing.weights[token_R, slot_R])
    return y_TD


def one_hot(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """Every expert on every token, then a sum weighted by the gates, most of which are zero: N/K times the work."""
    hidden_TNH = swiglu(torch.einsum("td,ndh->tnh", x_TD, w_in.to(x_TD.dtype)))
    out_TND = torch.einsum("tnh,nhd->tnd", hidden_TNH, w_out.to(x_TD.dtype))
    return torch.einsum("tn,tnd->td", routing.gates.to(x_TD.dtype), out_TND)


def grouped(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """Sort the routed rows by expert, multiply each expert's block of rows with its matrices, add back to the tokens."""
    expert_R, order_R = routing.expert_ids.flatten().sort(stable=True)
    token_R = order_R // routing.top_k
    weight_R = routing.weights.flatten().index_select(0, order_R).to(x_TD.dtype)
    ends_N = torch.searchsorted(expert_R, torch.arange(routing.num_experts, device=x_TD.device), right=True, out_int32=True)
    y_TD = torch.zeros_like(x_TD)
    chunks = in_cache(token_R, weight_R, ends_N, w_in.to(x_TD.dtype), w_out.to(x_TD.dtype))
    for token_R, weight_R, ends_N, w_in, w_out in chunks:
        hidden_RH = swiglu(grouped_product(x_TD.index_select(0, token_R), w_in, ends_N))
        # the product is linear: weighing the H hidden units before it is weighing the D outputs after it
        y_TD.index_add_(0, token_R, grouped_product(hidden_RH * weight_R[:, None], w_out, ends_N))
    return y_TD


def in_cache(token_R: Tensor, weight_R: Tensor, ends_N: Tensor, w_in: Tensor, w_out: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut the sorted rows between experts: on a GPU into one chunk, on a CPU into chunks of about CHUNK_BYTES.

    A CPU still has a chunk in its cache when the next step needs it, and gives its memory to the next chunk. All R rows at once
    need new memory from the operating system in every step.

    Yields: of each chunk the tokens and weights of its rows, where the blocks of its experts end, and their w_in and w_out.
    """
    rows_bytes = token_R.shape[0] * max(w_in.shape[1:]) * w_in.element_size()  # len() ties a compiled layer to one number
    if torch.compiler.is_compiling() or w_in.device.type != "cpu" or rows_bytes <= CHUNK_BYTES:
        return iter([(token_R, weight_R, ends_N, w_in, w_out)])
    few = max(1, len(ends_N) * CHUNK_BYTES // rows_bytes)  # experts in a chunk
    cuts = [0, *ends_N[few - 1:-1:few].tolist(), len(token_R)]
    sizes = [end - start for start, end in zip(cuts, cuts[1:])]
    ends = (ends - start for start, ends in zip(cuts, ends_N.split(few)))
    return zip(token_R.split(sizes), weight_R.split(sizes), ends, w_in.split(few), w_out.split(few))


def grouped_product(rows_RA: Tensor, other: Tensor, ends_N: Tensor) -> Tensor:
    """Rows of one expert after those of the other, each block times its own matrix: [R, A] × [N, A, B] -> [R, B].

    Args:
        rows_RA: the rows, sorted by expert.
        other: w [N, A, B], one matrix per expert; or [R, B], rows in the same order: then each block meets the other's block,
            rows.T @ rows, which is how matrices get their gradient [N, A, B].
        ends_N: int32, where each expert's block of rows ends.
    """
    if torch.compiler.is_compiling() or rows_RA.is_meta:
        return traced_product(rows_RA, other, ends_N)
    # torch's kernel knows no float64, no Apple GPU, and no rows that don't start at multiples of 16 bytes: they go block by block
    aligned = all(size * rows_RA.element_size() % 16 == 0 for size in (rows_RA.shape[1], other.shape[-1]))
    if aligned and rows_RA.dtype != torch.float64 and rows_RA.device.type != "mps" and len(rows_RA):
        return F.grouped_mm(rows_RA if other.ndim == 3 else rows_RA.T, other, offs=ends_N)
    sizes = ends_N.diff(prepend=ends_N.new_zeros(1)).tolist()
    if other.ndim == 3:
        return torch.cat([rows @ w for rows, w in zip(rows_RA.split(sizes), other)])
    return torch.stack([rows.T @ grad for rows, grad in zip(rows_RA.split(sizes), other.split(sizes))])


# Where shapes are worked out without values (torch.compile, torch.export, the meta device), PyTorch's kernel knows bfloat16
# alone. There this operator stands for it; elsewhere its way through Python would take 5% of the time of 256 tokens.
traced_product = torch.library.custom_op("moe_lesson::grouped_product", grouped_product, mutates_args=())
traced_product.register_fake(lambda rows_RA, other, ends_N: rows_RA.new_empty(
    (rows_RA.shape[0], other.shape[2]) if other.ndim == 3 else (ends_N.shape[0], rows_RA.shape[1], other.shape[1])))


def gradients(ctx, grad_RB: Tensor) -> tuple[Tensor, Tensor, None]:
    """Of the rows and of the matrices."""
    rows_RA, w_NAB, ends_N = ctx.saved_tensors
    grad_RB = grad_RB.contiguous()  # one that was expanded has strides of 0, which the kernel refuses
    return traced_product(grad_RB, w_NAB.transpose(1, 2), ends_N), traced_product(rows_RA, grad_RB, ends_N), None


traced_product.register_autograd(gradients, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


@register_flop_formula([torch.ops.aten._grouped_mm, torch.ops.moe_lesson.grouped_product])
def grouped_flops(a: Sequence[int], b: Sequence[int], *_, **__) -> int:
    """What PyTorch's FlopCounterMode counts of a grouped product, which it does not know: every row meets one matrix.

    Args:
        a, b: the shapes, [R, A] × [N, A, B] forward and to the rows' gradient, [A, R] or [R, A] × [R, B] to the matrices'.
    """
    return 2 * a[0] * a[1] * b[-1]


DISPATCHES = {"grouped": grouped, "one_hot": one_hot, "loop": loop}
