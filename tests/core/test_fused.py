"""The fused kernels: under Triton's interpreter they equal the loop in float64, and they compile for a GPU that isn't here.

What the interpreter runs is fixed when the kernels are defined: so this file is also the program that runs all cases in a
process of its own, `TRITON_INTERPRET=1 python test_fused.py`, and prints what each came to.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from moe_lesson import MoE
from moe_lesson.moe import dispatch, fused
from moe_lesson.moe.routing import Routing

TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
SMALL = (16, 16, 16)  # tiles of which several fit a tiny case
FULL = (fused.TILE, fused.COLUMNS, fused.DEPTH)
FLOAT32, FLOAT16 = (torch.float32, 1e-6), (torch.float16, 2e-3)  # and how far from float64 it may be, relative to the norm
CASES = {  # tokens, width, experts, top_k, expert width, dtype, tiles
    "several tiles": (60, 40, 3, 2, 24, FLOAT32, SMALL),
    "float16": (30, 32, 4, 2, 16, FLOAT16, SMALL),
    "experts without tokens": (9, 16, 12, 2, 8, FLOAT32, SMALL),
    "one token": (1, 16, 5, 2, 8, FLOAT32, SMALL),
    "no tokens": (0, 16, 5, 2, 8, FLOAT32, SMALL),
    "all experts active": (20, 16, 3, 3, 8, FLOAT32, SMALL),
    "one expert": (40, 16, 1, 1, 8, FLOAT32, SMALL),
    "odd widths": (19, 13, 4, 2, 11, FLOAT32, SMALL),
    "the tiles of a GPU": (150, 72, 2, 1, 136, FLOAT32, FULL),
}


def made(tokens, width, experts, top_k, expert_width, dtype):
    """Tokens, their routing, the weights of the experts and a gradient: the numbers are the same in every dtype."""
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(2, width, tokens, generator=generator).transpose(1, 2)  # not contiguous
    shapes = (experts, width, 2 * expert_width), (experts, expert_width, width)
    w_in, w_out = (torch.randn(shape, generator=generator) * shape[1] ** -0.5 for shape in shapes)
    scores = torch.rand(tokens, experts, generator=generator)
    weights, ids = scores.topk(top_k)
    x, w_in, w_out, target = (tensor.half().to(dtype) for tensor in (x, w_in, w_out, target))
    return [x, w_in, w_out, weights.to(torch.promote_types(dtype, torch.float32))], Routing(scores, ids, weights), target


def output_and_gradients(compute, dtype, sizes, device="cpu"):
    leaves, routing, target = made(*sizes, dtype)
    leaves = [leaf.to(device).requires_grad_() for leaf in leaves]
    there = Routing(routing.logits.to(device), routing.expert_ids.to(device), leaves[3])
    y = compute(leaves[0], there, *leaves[1:3])
    return [tensor.cpu() for tensor in (y, *torch.autograd.grad(y, leaves, target.to(device)))]


def errors(sizes, dtype, tiles):
    """Of the output and of the gradients of x, w_in, w_out and the weights, relative to float64's norm."""
    fused.TILE, fused.COLUMNS, fused.DEPTH = tiles
    oracle = output_and_gradients(dispatch.loop, torch.float64, sizes)
    return [((ours.double() - exact).norm() / exact.norm().clamp(min=1e-30)).item()
            for ours, exact in zip(output_and_gradients(fused.fused, dtype, sizes), oracle, strict=True)]


def layers():
    """Of a layer that has `fused` by its name: the difference of the compiled one and of the loop to the eager one, what computes
    it, and the FLOPs of fused and of plain, forward and both passes."""
    fused.TILE, fused.COLUMNS, fused.DEPTH = SMALL
    torch.manual_seed(0)
    moe, x = MoE(16, 4, 2, 8, 1, dispatch="fused"), torch.randn(6, 16, requires_grad=True)
    found, flops = {}, {}
    with torch.profiler.profile() as seen:
        moe(x)
    operators = [event.name for event in seen.events() if event.name.startswith("moe_lesson::")]
    for name, run in {"eager": moe, "compiled": torch.compile(moe, backend="aot_eager", fullgraph=True)}.items():
        y = run(x)[0]
        found[name] = [y, *torch.autograd.grad(y.square().sum(), [x, *moe.parameters()])]
    for name, way in {"fused": "fused", "plain": "at_once"}.items():
        moe.experts.dispatch = way
        with FlopCounterMode(display=False) as forward:
            y = moe(x)[0]
        with FlopCounterMode(display=False) as backward:
            y.sum().backward()
        flops[name] = forward.get_total_flops(), backward.get_total_flops()
    moe.experts.dispatch = "loop"
    found["loop"] = [y := moe(x)[0], *torch.autograd.grad(y.square().sum(), [x, *moe.parameters()])]
    eager = found.pop("eager")
    differences = {name: max((a - b).abs().max().item() for a, b in zip(one, eager, strict=True)) for name, one in found.items()}
    return differences | {"flops": flops, "operators": operators}


def refusals():
    """What the interpreter is refused."""
    said = {}
    for dtype in (torch.bfloat16, torch.float64):
        try:
            output_and_gradients(fused.fused, dtype, (3, 16, 4, 2, 8))
        except ValueError as error:
            said[str(dtype)] = str(error)
    return said


@pytest.fixture(scope="module")
def interpreted():
    """All that Triton's interpreter came to."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


@TRITON
@pytest.mark.parametrize("case", CASES)
def test_output_and_all_gradients_are_those_of_the_loop_in_float64(interpreted, case):
    limit = CASES[case][5][1]
    assert len(interpreted[case]) == 5 and max(interpreted[case]) < limit, interpreted[case]


@TRITON
def test_a_layer_has_it_by_its_name_compiles_with_it_and_its_flops_are_counted(interpreted):
    assert interpreted["layers"]["operators"] == ["moe_lesson::fused"]
    assert interpreted["layers"]["compiled"] < 1e-5 and interpreted["layers"]["loop"] < 1e-5
    flops = interpreted["layers"]["flops"]
    assert flops["fused"] == flops["plain"] and flops["fused"][1] > flops["fused"][0] > 0


@TRITON
def test_a_dtype_that_would_be_multiplied_wrongly_is_refused(interpreted):
    for dtype in ("torch.bfloat16", "torch.float64"):
        assert f"can't multiply {dtype}, but torch.float16 and torch.float32; or use `grouped`" in interpreted["refusals"][dtype]


def test_where_triton_cannot_run_there_is_a_clear_error(monkeypatch):
    moe = MoE(16, 4, 1, 8, dispatch="fused")
    x, routing = torch.randn(3, 16), Routing(torch.rand(3, 4), torch.zeros(3, 1, dtype=torch.long), torch.ones(3, 1))
    w_in, w_out = torch.randn(4, 16, 16), torch.randn(4, 8, 16)
    monkeypatch.setattr(fused, "triton", object())
    with pytest.raises(ValueError, match="runs on a GPU, but the tokens are on cpu.*`grouped`, which runs everywhere"):
        moe(x)
    with monkeypatch.context() as on_a_t4:
        on_a_t4.setattr(fused, "INTERPRETED", True)
        on_a_t4.setattr(fused, "capability", lambda x: (7, 5))
        with pytest.raises(ValueError, match=r"tensor cores of an A100 .*\(8, 0\).*this one's is \(7, 5\); use `grouped`"):
            moe(x)
    monkeypatch.setattr(fused, "triton", None)
    with pytest.raises(ValueError, match="needs Triton, which is not installed.*pip install triton.*`grouped`"):
        fused.fused(x, routing, w_in, w_out)


@pytest.mark.parametrize("loads", [[5, 0, 16, 17, 0], [0, 0], [33], [1, 1, 1]])
def test_the_tiles_cover_each_row_of_each_expert_once(loads, monkeypatch):
    monkeypatch.setattr(fused, "TILE", 16)
    ends = torch.tensor(loads).cumsum(0).int()
    covered = []
    for expert, first, end in fused.tiles_of(ends, sum(loads)).T.tolist():
        covered += [(expert, row) for row in range(first, min(first + 16, end))]
    assert covered == [(expert, row) for expert, load in enumerate(loads) for row in range(ends[expert] - load, ends[expert])]


@TRITON
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("sizes", [(2000, 256, 8, 2, 128), (700, 72, 6, 6, 40), (5, 64, 16, 2, 32), (300, 50, 4, 2, 22),
                                   (9, 16, 1100, 2, 16)])
def test_on_a_gpu_all_ways_equal_the_loop_and_give_the_same_bits_again(sizes):
    oracle = output_and_gradients(dispatch.loop, torch.float64, sizes)
    ways = (fused.fused, dispatch.at_once) if torch.cuda.get_device_capability() >= fused.OLDEST else (dispatch.at_once,)
    for way in ways:
        first, second = (output_and_gradients(way, torch.bfloat16, sizes, "cuda") for _ in range(2))
        for ours, again, exact in zip(first, second, oracle, strict=True):
            assert torch.equal(ours, again) and (ours.double() - exact).norm() < 0.02 * exact.norm()


KERNELS = {  # and the sizes that are compiled in: DeepSeekMoE 16B's
    "gate_up_kernel": dict(D=2048, H=1408, TILE=fused.TILE, DEPTH=fused.DEPTH),
    "activation_backward_kernel": dict(H=1408, ROWS=1, BLOCK=2048),
    "combine_kernel": dict(K=6, BLOCK=1024),
}
KINDS = {"token_R": "*i64", "tiles": "*i64", "place_TK": "*i64", "weight_R": "*fp32", "grad_weight": "*fp32", "num_tiles": "i32",
         "R": "i32", "D": "i32"}  # of the arguments; all others point to bfloat16


@TRITON
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("capability,shared,product", [((9, 0), 227, "wgmma"), ((8, 0), 163, "mma.sync"),
                                                       ((12, 0), 99, "mma.sync")])
def test_the_kernels_compile_for_gpus_of_three_kinds_and_fit_them(capability, shared, product, name, monkeypatch, tmp_path):
    """Kilobytes that a program may share; and it keeps its sums in registers, which a stack says that it could not."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function, constants = getattr(fused, name), KERNELS[name]
    if name == "gate_up_kernel":
        constants = constants | {"COLUMNS": fused.columns(capability)}
    signature = {arg: "constexpr" if arg in constants else KINDS.get(arg, "*bf16") for arg in function.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind[0] == "*"}
    values = {(function.arg_names.index(arg),): value for arg, value in constants.items()}
    source = ASTSource(function, signature, values, aligned)
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    compiled = triton.compile(source, target=target, options=dict(num_warps=8, num_stages=3))
    assert compiled.metadata.shared <= shared * 1024
    assert (product in compiled.asm["ptx"]) == (name == "gate_up_kernel"), "the tensor cores multiply"
    (tmp_path / "kernel.cubin").write_bytes(compiled.asm["cubin"])
    usage = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", tmp_path / "kernel.cubin"]
    assert " STACK:0 " in subprocess.run(usage, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    answers = {name: errors(case[:5], case[5][0], case[6]) for name, case in CASES.items()}
    print(json.dumps(answers | {"layers": layers(), "refusals": refusals()}))
