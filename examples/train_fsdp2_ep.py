"""Train the course's language model on several GPUs: each holds some of the experts, and FSDP2 shards all else.

torchrun --nproc-per-node 8 examples/train_fsdp2_ep.py --experts-over 8

Without a GPU it runs on the CPU, with gloo in the place of NCCL, and multiplies in float32 in the place of bfloat16. The loss is
the same over any number of devices.
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import parallelize_module

from moe_lesson import LanguageModel, ModelConfig, Sparse, TrainingConfig, machine_corpus, next_token
from moe_lesson.base.errors import require
from moe_lesson.lm.training import adamw
from moe_lesson.moe.layers import moe_layers
from moe_lesson.moe.parallel import ExpertParallel

MODEL = ModelConfig(ffn=Sparse(num_experts=64, top_k=6, expert_width=64, num_shared=2), layers=4, width=128)
# balance within a sequence, which is whole on its device: a balance over a batch would depend on how many devices share it
OBJECTIVE = next_token({"sequence": 0.01})


def arguments() -> argparse.Namespace:
    """The command line; refuses what does not fit the number of processes that torchrun started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts-over", type=int, default=1, help="devices that share the experts out; 1: each holds them all")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64, help="sequences in a step, on all devices together")
    parser.add_argument("--max-bytes", type=int, default=1_500_000, help="of text for each domain")
    args = parser.parse_args()
    require(bool(os.environ.get("WORLD_SIZE")), "this is one of several processes; start it with torchrun: see --help")
    world = int(os.environ["WORLD_SIZE"])
    require(args.experts_over >= 1 and world % args.experts_over == 0,
            f"{world} devices make no rows of {args.experts_over}; choose a divisor of {world}")
    require(args.batch % world == 0, f"{args.batch} sequences can't be shared out over {world} devices; choose a multiple")
    return args


def device_mesh(experts_over: int) -> DeviceMesh:
    """All devices, in rows that hold all the experts each: a mesh ("rows", "experts")."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    rows = int(os.environ["WORLD_SIZE"]) // experts_over
    return init_device_mesh(device, (rows, experts_over), mesh_dim_names=("rows", "experts"))


def shard(model: LanguageModel, mesh: DeviceMesh) -> None:
    """Share a model out, in place: the experts over each row, then by FSDP2 over the rows; all else over all devices."""
    everyone = init_device_mesh(mesh.device_type, (mesh.size(),))
    for block in model.blocks:
        parallelize_module(block.ffn.experts, mesh["experts"], ExpertParallel())
        fully_shard(block.ffn.experts, mesh=mesh["rows"])
        fully_shard(block, mesh=everyone)
    fully_shard(model, mesh=everyone)


@torch.no_grad()
def clip(model: LanguageModel, largest: float) -> Tensor:
    """Clip the norm of all gradients, and return what it was. No piece is on two devices, so the squares of all pieces add up."""
    pieces = [parameter.grad.to_local() for parameter in model.parameters()]
    square = torch.stack([piece.square().sum() for piece in pieces]).sum()
    dist.all_reduce(square)
    for piece in pieces:
        piece *= (largest / square.sqrt()).clamp(max=1)
    return square.sqrt()


def one_step(model: LanguageModel, optimizer: torch.optim.Optimizer, ids: Tensor, largest: float, mesh: DeviceMesh) -> str:
    """One optimizer step; returns what to print."""
    with torch.autocast(mesh.device_type, torch.bfloat16, enabled=mesh.device_type == "cuda"):
        loss, figures = OBJECTIVE(model, ids)
    optimizer.zero_grad()
    loss.backward()
    for layer in moe_layers(model):
        for parameter in layer.experts.parameters():  # FSDP2 took the mean over the rows, but a row's devices have the sum
            parameter.grad /= mesh["experts"].size()
    norm = clip(model, largest)
    optimizer.step()
    dist.all_reduce(figures["loss"])
    return f"loss {figures['loss'].item() / mesh.size():.4f}  gradient {norm.item():.4f}"


def main() -> None:
    """Train, and print a line for each step."""
    args = arguments()
    mesh = device_mesh(args.experts_over)
    model = LanguageModel(MODEL).to(mesh.device_type)  # the same seed everywhere: the same weights to cut
    shard(model, mesh)
    config = TrainingConfig(steps=args.steps)
    optimizer = adamw(model, config)
    batch_at = machine_corpus(splits=("train",), max_bytes=args.max_bytes).sampler("train", args.batch, MODEL.context)
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr_at(step)
        ids = batch_at(step).chunk(mesh.size())[dist.get_rank()].to(mesh.device_type)
        line = one_step(model, optimizer, ids, config.clip, mesh)
        if dist.get_rank() == 0:
            print(f"step {step}  {line}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
