"""`at_once` with fewer journeys to memory: what happens between its products is fused, in Triton.

On a GPU carrying narrow experts' rows from memory and back takes longer than their products. `at_once` writes the gathered
tokens, the activation and the weighted activation, R rows each, and reads them again. Here the first product gathers its tokens
itself, and where it writes gate and up it also writes weight · silu(gate) · up. The backward pass keeps the tokens, gate and up,
and computes the rest anew. The router's gradient needs no output of an expert: of y = weight · a W_out it is a · (W_outᵀ grad),
a sum over hidden units that are at hand. The idea is SonicMoE's (arXiv 2512.14080), the kernels are ours.
"""

import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..base.errors import require
from .routing import Routing
from .rows import by_expert, grouped_product

try:
    import triton
    import triton.language as tl
except ImportError:  # macOS, Windows, PyTorch without CUDA: the module can be read there, and `fused` says what is missing
    triton, tl = None, SimpleNamespace(constexpr=int)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's interpreter: NumPy on a CPU, for tests
# What a kernel multiplies: all that a GPU's tensor cores know; the interpreter multiplies the bits of bfloat16, without a word.
DTYPES = (torch.float16, torch.float32) if INTERPRETED else (torch.bfloat16, torch.float16)
# A program computes TILE rows × COLUMNS hidden units, gate and up, from DEPTH of the D inputs at a time. Larger tiles read less
# often what others have read too; these are the largest whose sums stay in an H100's registers. Other GPUs
# keep a product's factors in registers, too, and have room for half of the sums.
TILE, COLUMNS, DEPTH = 128, 128, 64
OLDEST = (8, 0)  # the compute capability of an A100: Triton gives no older GPU's tensor cores work
kernel = triton.jit if triton else lambda function: function


@kernel
def gate_up_kernel(x, weight_R, w_in, token_R, tiles, gate_up, hidden, num_tiles, D: tl.constexpr, H: tl.constexpr,
                   TILE: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr):
    """gate, up = x W_gate, x W_up and hidden = weight · silu(gate) · up, of a tile of rows and a block of units."""
    blocks = tl.cdiv(H, COLUMNS)
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks  # a tile's blocks run together: the same rows
    expert, first, end = tl.load(tiles + tile), tl.load(tiles + num_tiles + tile), tl.load(tiles + 2 * num_tiles + tile)
    if first >= end:  # a tile too many
        return
    row, h = tl.arange(0, TILE), block * COLUMNS + tl.arange(0, COLUMNS)
    token = tl.load(token_R + first + row, row < end - first, 0)
    w = w_in + expert * D * 2 * H + h[None, :]
    gate = tl.zeros((TILE, COLUMNS), tl.float32)
    up = tl.zeros((TILE, COLUMNS), tl.float32)
    for start in range(0, D, DEPTH):
        d = start + tl.arange(0, DEPTH)
        x_rows = tl.load(x + token[:, None] * D + d[None, :], d[None, :] < D, 0.0)
        there = (d[:, None] < D) & (h[None, :] < H)
        gate = tl.dot(x_rows, tl.load(w + d[:, None] * 2 * H, there, 0.0), gate)
        up = tl.dot(x_rows, tl.load(w + d[:, None] * 2 * H + H, there, 0.0), up)
    weight = tl.load(weight_R + first + row, row < end - first, 0.0)[:, None]
    own = (row[:, None] < end - first) & (h[None, :] < H)
    half = gate_up + first * 2 * H + row[:, None] * 2 * H + h[None, :]
    tl.store(half, gate, own)
    tl.store(half + H, up, own)
    tl.store(hidden + first * H + row[:, None] * H + h[None, :], weight * gate * tl.sigmoid(gate) * up, own)


@kernel
def activation_backward_kernel(weight_R, gate_up, grad_hidden, hidden, grad_gate_up, grad_weight, R, H: tl.constexpr,
                               ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """hidden = weight · silu(gate) · up once more, and the gradients of weight, gate and up, of some rows."""
    row, h = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    own = (row[:, None] < R) & (h[None, :] < H)
    at, half = row[:, None] * H + h[None, :], row[:, None] * 2 * H + h[None, :]
    gate = tl.load(gate_up + half, own, 0.0).to(tl.float32)
    up = tl.load(gate_up + half + H, own, 0.0).to(tl.float32)
    grad = tl.load(grad_hidden + at, own, 0.0).to(tl.float32)
    weight = tl.load(weight_R + row, row < R, 0.0)[:, None]
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    tl.store(hidden + at, weight * silu * up, own)
    tl.store(grad_weight + row, tl.sum(grad * silu * up, 1), row < R)
    tl.store(grad_gate_up + half, weight * grad * up * (sigmoid + silu * (1 - sigmoid)), own)
    tl.store(grad_gate_up + half + H, weight * grad * silu, own)


@kernel
def combine_kernel(rows, place_TK, y, D, K: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of one token's K rows, each read once and added in float32."""
    token, d = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(K):
        total += tl.load(rows + tl.load(place_TK + token * K + k) * D + d, d < D, 0.0).to(tl.float32)
    tl.store(y + token * D + d, total, d < D)


def capability(x: Tensor) -> tuple[int, int]:
    """Of the GPU that x is on: (9, 0) is an H100's, and the interpreter's too."""
    return torch.cuda.get_device_capability(x.device) if x.is_cuda else (9, 0)


def columns(capability: tuple[int, int]) -> int:
    """Hidden units of a program whose sums, TILE rows of gate and of up, stay in the registers of such a GPU."""
    return COLUMNS if capability[0] in (9, 10) else COLUMNS // 2


def tiles_of(ends_N: Tensor, R: int) -> Tensor:
    """Each tile's expert, its first row and the end of that expert's rows: [3, tiles].

    How many tiles there are depends on the load, which a GPU knows and Python would have to wait for. So there are as many as
    there can be, with one broken tile for each expert, and the tiles too many start where their expert ends.
    """
    starts_N = F.pad(ends_N[:-1], (1, 0))
    tile_ends_N = ((ends_N - starts_N + TILE - 1) // TILE).cumsum(0)
    tile = torch.arange(R // TILE + min(R, ends_N.shape[0]), device=ends_N.device)
    expert = torch.searchsorted(tile_ends_N, tile, right=True).clamp(max=ends_N.shape[0] - 1)
    first = starts_N[expert] + TILE * (tile - F.pad(tile_ends_N[:-1], (1, 0))[expert])
    return torch.stack([expert, first, ends_N[expert]])


def combined(rows_RD: Tensor, place_TK: Tensor) -> Tensor:
    """The sum of each token's K rows: [R, D] -> [T, D]."""
    (T, K), D = place_TK.shape, rows_RD.shape[1]
    y_TD, block = rows_RD.new_empty(T, D), min(1024, triton.next_power_of_2(D))
    combine_kernel[T, triton.cdiv(D, block)](rows_RD, place_TK, y_TD, D, K, block)
    return y_TD


@torch.library.custom_op("moe_lesson::fused", mutates_args=())
def forward(x_TD: Tensor, weight_R: Tensor, w_in: Tensor, w_out: Tensor, token_R: Tensor, place_TK: Tensor, ends_N: Tensor,
            tiles: Tensor) -> tuple[Tensor, Tensor]:
    """y [T, D], and what the backward pass needs of the way there: gate and up, [R, 2H]."""
    (_, H, D), R, num_tiles = w_out.shape, token_R.shape[0], tiles.shape[1]
    gate_up_R2H, hidden_RH = x_TD.new_empty(R, 2 * H), x_TD.new_empty(R, H)
    block = columns(capability(x_TD))
    with torch.cuda.device_of(x_TD):  # Triton runs on the current device; autograd sees to that in the backward pass
        gate_up_kernel[num_tiles * triton.cdiv(H, block),](
            x_TD, weight_R, w_in, token_R, tiles, gate_up_R2H, hidden_RH, num_tiles, D, H, TILE, block, DEPTH, num_warps=8,
            num_stages=3)
        return combined(grouped_product(hidden_RH, w_out, ends_N), place_TK), gate_up_R2H


@torch.library.custom_op("moe_lesson::fused_backward", mutates_args=())
def backward(grad_TD: Tensor, x_TD: Tensor, weight_R: Tensor, w_in: Tensor, w_out: Tensor, token_R: Tensor, place_TK: Tensor,
             ends_N: Tensor, gate_up_R2H: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the tokens, of the weights, of w_in and of w_out."""
    R, H = token_R.shape[0], w_out.shape[1]
    grad_RD = grad_TD.index_select(0, token_R)
    grad_RH = grouped_product(grad_RD, w_out.transpose(1, 2), ends_N)
    hidden_RH, grad_R2H, grad_weight_R = torch.empty_like(grad_RH), torch.empty_like(gate_up_R2H), torch.empty_like(weight_R)
    block = triton.next_power_of_2(H)
    rows = max(1, 2048 // block)
    activation_backward_kernel[triton.cdiv(R, rows),](weight_R, gate_up_R2H, grad_RH, hidden_RH, grad_R2H, grad_weight_R, R, H,
                                                      rows, block, num_warps=min(16, max(4, rows * block // 512)))
    return (combined(grouped_product(grad_R2H, w_in.transpose(1, 2), ends_N), place_TK), grad_weight_R,
            grouped_product(x_TD.index_select(0, token_R), grad_R2H, ends_N), grouped_product(hidden_RH, grad_RD, ends_N))


def gradients(ctx, grad_TD: Tensor, _) -> tuple[Tensor | None, ...]:
    """Of the tensors that `forward` takes, in their order."""
    return *backward(grad_TD, *ctx.saved_tensors), None, None, None, None


def save(ctx, inputs, output) -> None:
    """Keep what `backward` takes. No gradient comes through gate and up, so no R rows are filled with zeros for it."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:-1], output[1])


forward.register_autograd(gradients, setup_context=save)
forward.register_fake(lambda x, weight, w_in, *_: (torch.empty_like(x), x.new_empty(weight.shape[0], w_in.shape[2])))
backward.register_fake(lambda grad, *inputs: tuple(torch.empty_like(tensor) for tensor in inputs[:4]))
register_flop_formula(torch.ops.moe_lesson.fused)(  # of shapes: each row meets a matrix [D, 2H] and one [H, D]
    lambda x, weight, w_in, *_, **__: 3 * weight[0] * w_in[1] * w_in[2])
register_flop_formula(torch.ops.moe_lesson.fused_backward)(  # of each product both factors have a gradient
    lambda grad, x, weight, w_in, *_, **__: 6 * weight[0] * w_in[1] * w_in[2])


def fused(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """The routed part of an MoE layer, as `grouped` computes it, the steps between its products fused.

    Args:
        x_TD: the tokens on a GPU, bfloat16 or float16; under Triton's interpreter anywhere, float16 or float32.
        routing, w_in, w_out: as in `grouped`.

    Returns: [T, D].

    Raises:
        ValueError: where Triton is missing or can't run, on an older GPU (a T4), and for another dtype.
    """
    remedy = "use `grouped`, which runs everywhere"
    require(triton is not None, f"`fused` needs Triton, which is not installed; on Linux pip install triton, or {remedy}")
    require(x_TD.is_cuda or INTERPRETED, f"`fused` runs on a GPU, but the tokens are on {x_TD.device}; move them, or {remedy}")
    require(capability(x_TD) >= OLDEST, f"`fused` needs the tensor cores of an A100 or of a newer GPU (compute capability "
                                        f"{OLDEST}), but this one's is {capability(x_TD)}; {remedy}")
    require(x_TD.dtype in DTYPES, f"`fused` can't multiply {x_TD.dtype}, but {' and '.join(map(str, DTYPES))}; or {remedy}")
    token_R, weight_R, place_TK, ends_N = by_expert(routing)
    w_in, w_out = (w.to(x_TD.dtype).contiguous() for w in (w_in, w_out))
    tiles = tiles_of(ends_N, token_R.shape[0])
    return forward(x_TD.contiguous(), weight_R.float(), w_in, w_out, token_R, place_TK, ends_N, tiles)[0]
