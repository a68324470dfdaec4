"""Routed rows: the tokens' rows sorted by expert, the product of each expert's block of them, and the sums that go back."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula

from .routing import Routing, expert_load


def by_expert(routing: Routing) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The T·K choices of a routing as R rows sorted by expert, with what gathers them and sums them back without `index_add`.

    Returns: token [R], which token a row is of; weight [R], what the expert's output for it is multiplied by; place [T, K], the
        other way round, where the rows of each token's K choices are; ends [N], int32, where each expert's block of rows ends.
    """
    order_R, place_TK = places(routing.expert_ids)
    weight_R = Gather.apply(routing.weights.reshape(-1, 1), order_R, place_TK.reshape(-1, 1)).squeeze(1)
    return order_R // routing.top_k, weight_R, place_TK, block_ends(routing.expert_ids, routing.num_experts)


def places(expert_ids_TK: Tensor) -> tuple[Tensor, Tensor]:
    """The choices sorted by expert, and the inverse of that permutation.

    Returns: order [T·K], which choice t·K + k each row is, an expert's rows in the order of their tokens; place [T, K], in which
        row each choice stands.
    """
    order_R = expert_ids_TK.flatten().argsort(stable=True)
    place_R = torch.empty_like(order_R).scatter(0, order_R, torch.arange(order_R.shape[0], device=order_R.device))
    return order_R, place_R.view_as(expert_ids_TK)


def block_ends(expert_ids_TK: Tensor, num_experts: int) -> Tensor:
    """Where each expert's block of sorted rows ends: [N], int32. No value leaves the device, so nobody waits for one."""
    return expert_load(expert_ids_TK, num_experts).cumsum(0, dtype=torch.int32)


class Gather(torch.autograd.Function):
    """A copy of a token's row for each of its K experts: [T, D] -> [R, D]. Its gradient is `Combine`.

    PyTorch's own gradient adds rows to tokens by atomics on a GPU: in an order that changes, in bfloat16 rounded each time.
    """

    @staticmethod
    def forward(x_TD: Tensor, token_R: Tensor, place_TK: Tensor) -> Tensor:
        return x_TD.index_select(0, token_R)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx, grad_RD):
        return Combine.apply(grad_RD, *ctx.saved_tensors), None, None


class Combine(torch.autograd.Function):
    """The sum of each token's K rows: [R, D] -> [T, D], rounded once. Its gradient is `Gather`.

    The dtype is named, since autocast would make float32 of a sum on a GPU, and on the CPU not.
    """

    @staticmethod
    def forward(rows_RD: Tensor, token_R: Tensor, place_TK: Tensor) -> Tensor:
        return rows_RD.index_select(0, place_TK.flatten()).unflatten(0, place_TK.shape).sum(1, dtype=rows_RD.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx, grad_TD):
        return Gather.apply(grad_TD, *ctx.saved_tensors), None, None


def grouped_product(rows_RI: Tensor, other: Tensor, ends_N: Tensor) -> Tensor:
    """Rows of one expert after those of the other, each block times its own matrix: [R, I] × [N, I, O] -> [R, O].

    Args:
        rows_RI: the rows, sorted by expert.
        other: w [N, I, O], one matrix per expert; or [R, O], rows in the same order: then each block meets the other's block,
            rows.T @ rows, which is how matrices get their gradient [N, I, O].
        ends_N: int32, where each expert's block of rows ends.

    PyTorch has one kernel for it in bfloat16 on an H100 or H200. Elsewhere it fetches the ends, for which it waits, and
    multiplies block by block.
    """
    if torch.compiler.is_compiling() or rows_RI.is_meta:
        return traced_product(rows_RI, other, ends_N)
    # torch's kernel knows no float64, no Apple GPU, and no rows that don't start at multiples of 16 bytes
    if rows_RI.dtype == torch.float64 or rows_RI.device.type == "mps" or not rows_RI.shape[0]:
        return block_by_block(rows_RI, other, ends_N)
    # nor 1024 experts or more; and on a B200 it leaves the gradient of an expert without rows unwritten (PyTorch's issue 172439)
    if rows_RI.is_cuda and (len(ends_N) >= 1024 or torch.cuda.get_device_capability(rows_RI.device)[0] == 10):
        return block_by_block(rows_RI, other, ends_N)
    if all(size * rows_RI.element_size() % 16 == 0 for size in (rows_RI.shape[1], other.shape[-1])):
        return F.grouped_mm(rows_RI if other.ndim == 3 else rows_RI.T, other, offs=ends_N)
    return (padded if rows_RI.is_cuda else block_by_block)(rows_RI, other, ends_N)


def block_by_block(rows_RI: Tensor, other: Tensor, ends_N: Tensor) -> Tensor:
    """`grouped_product` of any widths and dtype, one product after the other: it waits for the sizes of the blocks."""
    sizes = ends_N.diff(prepend=ends_N.new_zeros(1)).tolist()
    if other.ndim == 3:
        return torch.cat([rows @ w for rows, w in zip(rows_RI.split(sizes), other)])
    return torch.stack([rows.T @ grad for rows, grad in zip(rows_RI.split(sizes), other.split(sizes))])


def padded(rows_RI: Tensor, other: Tensor, ends_N: Tensor) -> Tensor:
    """`grouped_product` of any widths: zeros are added up to multiples of 16 bytes, and cut off the result."""
    more_I, more_O = (-size % (16 // rows_RI.element_size()) for size in (rows_RI.shape[1], other.shape[-1]))
    rows, both = F.pad(rows_RI, (0, more_I)), other.ndim == 2
    found = F.grouped_mm(rows.T if both else rows, F.pad(other, (0, more_O) if both else (0, more_O, 0, more_I)), offs=ends_N)
    return (found[:, :rows_RI.shape[1], :other.shape[-1]] if both else found[:, :other.shape[-1]]).contiguous()


# Where shapes are worked out without values (torch.compile, torch.export, the meta device), PyTorch's kernel knows bfloat16
# alone. There this operator stands for it; elsewhere its way through Python would take 5% of the time of 256 tokens.
traced_product = torch.library.custom_op("moe_lesson::grouped_product", grouped_product, mutates_args=())
traced_product.register_fake(lambda rows_RI, other, ends_N: rows_RI.new_empty(
    (rows_RI.shape[0], other.shape[2]) if other.ndim == 3 else (ends_N.shape[0], rows_RI.shape[1], other.shape[1])))


def gradients(ctx, grad_RO: Tensor) -> tuple[Tensor, Tensor, None]:
    """Of the rows and of the matrices."""
    rows_RI, w_NIO, ends_N = ctx.saved_tensors
    grad_RO = grad_RO.contiguous()  # one that was expanded has strides of 0, which the kernel refuses
    return traced_product(grad_RO, w_NIO.transpose(1, 2), ends_N), traced_product(rows_RI, grad_RO, ends_N), None


traced_product.register_autograd(gradients, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


@register_flop_formula([torch.ops.moe_lesson.grouped_product, *{torch.ops.aten._grouped_mm} - flop_registry.keys()])
def grouped_flops(a: Sequence[int], b: Sequence[int], *_, **__) -> int:
    """What PyTorch's FlopCounterMode counts of a grouped product, which it does not know: every row meets one matrix.

    Args:
        a, b: the shapes, [R, I] × [N, I, O] forward and to the rows' gradient, [I, R] or [R, I] × [R, O] to the matrices'.
    """
    return 2 * a[0] * a[1] * b[-1]
