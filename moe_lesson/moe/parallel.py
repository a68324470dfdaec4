"""Expert parallelism: each device holds some of the experts, and tokens travel to them and back (GShard, arXiv 2006.16668).

A token goes to K experts, as K rows. Every device sorts its rows by expert and sends each to the device that holds the expert;
there a row is a token that has chosen one expert, and the layer's own dispatch computes it. The results go the same way back.

The first half says what travels where, and at what cost: pure functions, for one process. The second half does it.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle

from ..base.errors import require
from .dispatch import BY_NAME
from .layers import Experts, compute_dtype
from .routing import Routing
from .rows import Combine, Gather, by_expert

# ------------------------------------------------------------------------------------------------------- what travels where


def experts_each(num_experts: int, devices: int) -> int:
    """E, the experts of one device: device p of P holds the experts p·E … (p+1)·E - 1."""
    require(devices >= 1 and num_experts % devices == 0,
            f"{num_experts} experts can't be shared out evenly over {devices}; choose a number that divides {num_experts}")
    return num_experts // devices


def check_ids(expert_ids_TK: Tensor, num_experts: int) -> None:
    """Refuse what is not [T, K] choices among N experts."""
    require(expert_ids_TK.ndim == 2 and not expert_ids_TK.is_floating_point(),
            f"expert_ids have shape {tuple(expert_ids_TK.shape)} and dtype {expert_ids_TK.dtype}; expected integers [T, K]")
    require(not expert_ids_TK.numel() or 0 <= int(expert_ids_TK.min()) <= int(expert_ids_TK.max()) < num_experts,
            f"expert_ids must be 0 … {num_experts - 1}, but are {expert_ids_TK.flatten().tolist()[:8]} …")


def devices_of(expert_ids_TK: Tensor, num_experts: int, devices: int) -> Tensor:
    """How many of each token's K experts each device holds: [T, P]."""
    check_ids(expert_ids_TK, num_experts)
    return F.one_hot(expert_ids_TK // experts_each(num_experts, devices), devices).sum(1)


def devices_visited(expert_ids_TK: Tensor, num_experts: int, devices: int) -> Tensor:
    """On how many different devices each token's experts are: [T], from 1 to the smaller of K and P."""
    return (devices_of(expert_ids_TK, num_experts, devices) > 0).sum(1)


def send_counts(expert_ids: Sequence[Tensor], num_experts: int) -> Tensor:
    """The plan of P devices: how many rows device i sends to device j, [P, P].

    Args:
        expert_ids: of every device the choices of its tokens, [T, K]; T may differ.
        num_experts: N.

    Raises:
        ValueError: without a device, for ids outside 0 … N - 1, or if P does not divide N.

    >>> send_counts([torch.tensor([[3, 0], [1, 0]]), torch.tensor([[2, 3]])], num_experts=4).tolist()
    [[3, 1], [0, 2]]
    """
    require(len(expert_ids) >= 1, "there is no device; give the choices [T, K] of at least one")
    return torch.stack([devices_of(ids_TK, num_experts, len(expert_ids)).sum(0) for ids_TK in expert_ids])


def deduplicated_counts(expert_ids: Sequence[Tensor], num_experts: int) -> Tensor:
    """The `send_counts` where a token with several experts on one device is sent there once."""
    return torch.stack([(devices_of(ids_TK, num_experts, len(expert_ids)) > 0).sum(0) for ids_TK in expert_ids])


def straggler_factor(send_counts_PP: Tensor) -> float:
    """Most rows that reach one device over their mean: what a step takes longer, since all wait for the slowest. 1 is balance."""
    received_P = send_counts_PP.sum(0).double()
    return (received_P.max() / received_P.mean()).item() if received_P.sum() else 1.0


JOURNEYS = 4  # of a row's D numbers: to the expert and back, and their gradients the other way round


def bytes_per_token(top_k: int, devices: int, width: int) -> float:
    """What one token sends in a layer where all experts are chosen equally often: 8·K·(1 - 1/P)·D bytes in bfloat16.

    Args:
        top_k, devices: K and P; a row for an expert on the token's own device is not sent.
        width: D.
    """
    return JOURNEYS * 2 * width * top_k * (1 - 1 / devices)


# ---------------------------------------------------------------------------------------------------------- the real thing


class AllToAll(torch.autograd.Function):
    """Every device sends rows to every device; their gradients travel the other way.

    Args (apply):
        x: rows, those for device 0 first.
        send, receive: how many go to each device, and how many come from each.
        group: the processes of the devices.

    Returns: the rows that came, those of device 0 first.
    """

    @staticmethod
    def forward(ctx, x: Tensor, send: list[int], receive: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.journey = send, receive, group
        out = x.new_empty(sum(receive), *x.shape[1:])
        dist.all_to_all_single(out, x.contiguous(), receive, send, group)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        send, receive, group = ctx.journey
        return AllToAll.apply(grad, receive, send, group), None, None, None


class ShardedExperts(Experts):
    """`Experts` of which this device holds E: w_in [N, D, 2H] and w_out [N, H, D] are DTensors, sharded over the experts.

    Returns (forward): for this device's tokens x [T, D] and their routing, the routed part [T, D]. All devices must call it.
    """

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        """The routed part of this device's tokens x [T, D]: [T, D]."""
        x_TD = x_TD.to(compute_dtype(x_TD))
        w_in, w_out = cast(DTensor, self.w_in), cast(DTensor, self.w_out)
        group, devices = w_in.device_mesh.get_group(), w_in.device_mesh.size()

        token_R, weight_R, place_TK, ends_N = by_expert(routing)
        place_TK = place_TK.sort(dim=1).values  # a token's rows are added by expert, as one process on a CPU adds them
        leaving_PE = ends_N.diff(prepend=ends_N.new_zeros(1)).view(devices, experts_each(routing.num_experts, devices))
        arriving_PE = torch.empty_like(leaving_PE)
        dist.all_to_all_single(arriving_PE, leaving_PE, group=group)
        # a GPU is waited for, once for all sizes: they must be known here
        send, receive = torch.stack([leaving_PE.sum(1), arriving_PE.sum(1)]).tolist()

        rows_AD = AllToAll.apply(Gather.apply(x_TD, token_R, place_TK), send, receive, group)
        weight_A = AllToAll.apply(weight_R, send, receive, group)
        here = each_with_its_expert(arriving_PE, weight_A)
        out_AD = BY_NAME[self.dispatch](rows_AD, here, w_in.to_local(), w_out.to_local())
        out_RD = AllToAll.apply(out_AD, receive, send, group)
        return Combine.apply(out_RD, token_R, place_TK)  # no atomics: the same each time on a GPU, too


def each_with_its_expert(arriving_PE: Tensor, weight_A: Tensor) -> Routing:
    """The rows that came as tokens of their own, K = 1: those of device 0 first, the rows of each device by expert."""
    devices, experts = arriving_PE.shape
    expert_PE = torch.arange(experts, device=arriving_PE.device).expand(devices, experts)
    expert_A = expert_PE.flatten().repeat_interleave(arriving_PE.flatten(), output_size=len(weight_A))
    no_logits = weight_A.new_zeros(()).expand(len(weight_A), experts)  # they stayed at home
    return Routing(no_logits, expert_A[:, None], weight_A[:, None])


class ExpertParallel(ParallelStyle):
    """Shares the experts of a layer out over a mesh of devices: `parallelize_module(moe.experts, mesh, ExpertParallel())`.

    Device 0's weights go to all. Router and shared experts stay whole on each device: see `sum_gradients`, or use FSDP.

    Raises:
        ValueError: if the module is not `Experts`, or the devices don't divide them.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        require(type(module) is Experts, f"ExpertParallel shares out Experts, not {type(module).__name__}; give it moe.experts")
        experts_each(len(module.get_parameter("w_in")), device_mesh.size())
        for name, parameter in list(module.named_parameters()):
            setattr(module, name, nn.Parameter(distribute_tensor(parameter.data, device_mesh, [Shard(0)])))
        module.__class__ = ShardedExperts
        return module


def sum_gradients(model: nn.Module, mesh: DeviceMesh) -> None:
    """Sum over the devices the gradients of what each has a copy of. Those of sharded experts are whole already: all tokens
    that chose an expert went to it."""
    for parameter in model.parameters():
        if not isinstance(parameter, DTensor) and parameter.grad is not None:
            dist.all_reduce(parameter.grad, group=mesh.get_group())
