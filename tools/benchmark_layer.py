"""How fast is the layer, beside a dense FFN of equal FLOPs and beside Hugging Face transformers' DeepSeek-V3 layer?

    python tools/benchmark_layer.py                                        # measure and print
    OMP_NUM_THREADS=2 python tools/benchmark_layer.py --device cpu --repeats 10 --processes 7 --out data    # layer-speed-cpu.csv
    python tools/benchmark_layer.py --contributing                         # put that table into CONTRIBUTING.md
    python tools/benchmark_layer.py --device cuda --out data               # larger layers, bfloat16, compiled ones, and memory

All have the same weights and give the same output, which is checked before anything is timed. One run measures all of them
in turn, in a new order at every repeat, so that what else the machine does falls on all alike; --processes 7 does so in seven.

On a virtual machine the threads that share an operator meet after about 1.0 µs or after about 2.7, for seconds or minutes at a
time. We suppose that the host runs them on cores near each other, as in a laptop, or far apart, which share no cache. So their
meeting is timed before and after every sample on a CPU (`meeting_us`), and samples of near cores are told from the others: of
one size's run, those whose threads met within NEAR times its short meetings. Of the others the table has the ratio, `far_ratio`.

Letters: T tokens, D width, N experts, K active, Ks shared, H expert width, R routed rows.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import random
import statistics
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tables import record, with_section
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from moe_lesson import DenseFFN, MoE, result_table
from moe_lesson.base.devices import fast_dtype, pick_device
from moe_lesson.base.storage import write_text
from moe_lesson.experiments.provenance import git_commit
from moe_lesson.measure.evidence import Table, write_table
from moe_lesson.moe.dispatch import DISPATCHES, at_once, loop, swiglu
from moe_lesson.moe.fused import DTYPES as DTYPES_OF_FUSED
from moe_lesson.moe.fused import fused
from moe_lesson.moe.routing import Routing
from moe_lesson.moe.rows import by_expert, grouped_product

REPO = Path(__file__).resolve().parent.parent
DENSE = "dense FFN of equal FLOPs"
THEIRS = ("transformers eager", "transformers grouped_mm", "transformers batched_mm")
FORWARD, BACKWARD, BOTH = "forward", "backward", "forward + backward"
LABELS = {DENSE: DENSE, "grouped": "our layer, `grouped`", "loop": "our layer, `loop`", "one_hot": "our layer, `one_hot`",
          "at_once": "our layer, `at_once`", **{name: f"transformers' layer, `{name.split()[1]}`" for name in THEIRS}}
HEADING = "## How fast is the layer\n\n"
GRAIN = 2 ** 15  # PyTorch gives a thread at least so many numbers of an elementwise operator
NEAR = 1.5  # up to so many times a short meeting, the 5th percentile, threads were on near cores
MAX_GIB = 2  # of one operator's results: an implementation that needs more is left out, it would take minutes
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPE_OF = {"cuda": "bfloat16"}  # what a device's table is of where its name does not say; float32 on all others


@dataclass(frozen=True)
class Size:
    """One layer and one batch: T, N, K, H, D and Ks."""

    tokens: int
    experts: int
    top_k: int
    expert_width: int
    width: int = 256
    shared: int = 1

    @property
    def hidden(self) -> int:
        """Hidden units of the dense FFN of equal FLOPs, as many as are active: (K + Ks)·H; the router's T·D·N is left out."""
        return (self.top_k + self.shared) * self.expert_width

    def __str__(self) -> str:
        return f"T={self.tokens}, N={self.experts}, D={self.width}"


SHAPES = {  # N, K, H, D and Ks
    "cpu": ((64, 8, 128, 256, 1), (8, 2, 384, 256, 1)),  # 1152 active hidden units in both
    "cuda": ((64, 6, 1408, 2048, 2), (64, 6, 512, 1024, 2), (64, 8, 128, 256, 1)),  # DeepSeekMoE 16B's, half of it, the ladder's
}


def sizes(device: str, tokens: Iterable[int]) -> list[Size]:
    """Every batch with every shape."""
    return [Size(t, *shape) for t in tokens for shape in SHAPES["cuda" if device == "cuda" else "cpu"]]


# ------------------------------------------------------------------------------------------------------- what is measured


def transformers_layer(ours: MoE, size: Size) -> nn.Module | None:
    """Hugging Face's DeepseekV3MoE with our weights; None where transformers is not installed."""
    if not installed("transformers"):
        return None
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek

    config = deepseek.DeepseekV3Config(
        hidden_size=size.width, moe_intermediate_size=size.expert_width, n_routed_experts=size.experts,
        num_experts_per_tok=size.top_k, n_shared_experts=size.shared, n_group=1, topk_group=1, norm_topk_prob=True,
        routed_scaling_factor=1.0, experts_implementation="eager")
    theirs = deepseek.DeepseekV3MoE(config)
    gate, up = ours.shared.w_in.detach().T.chunk(2)
    pairs = [
        (theirs.gate.weight, ours.router.weight.T),
        (theirs.experts.gate_up_proj, ours.experts.w_in.transpose(1, 2)),
        (theirs.experts.down_proj, ours.experts.w_out.transpose(1, 2)),
        (theirs.shared_experts.gate_proj.weight, gate),
        (theirs.shared_experts.up_proj.weight, up),
        (theirs.shared_experts.down_proj.weight, ours.shared.w_out.T),
    ]
    assert len(pairs) == len(list(theirs.parameters()))
    with torch.no_grad():
        for reference, mine in pairs:
            reference.copy_(mine)
    return theirs


def scatter_add(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """torchtitan's method: sort, gather, grouped products, weigh the outputs, scatter_add; no padding, nothing fused."""
    token_R, weight_R, _, ends_N = by_expert(routing)
    token_RD = token_R[:, None].expand(-1, x_TD.shape[1])
    out_RD = grouped_product(swiglu(grouped_product(x_TD.gather(0, token_RD), w_in, ends_N)), w_out, ends_N)
    return torch.zeros_like(x_TD).scatter_add(0, token_RD, (out_RD * weight_R[:, None]).to(x_TD.dtype))


def scattermoe(x_TD: Tensor, routing: Routing, w_in: Tensor, w_out: Tensor) -> Tensor:
    """The kernels of ScatterMoE (arXiv 2403.08245)."""
    from scattermoe.parallel_experts import flatten_sort_count, parallel_linear

    order = flatten_sort_count(routing.expert_ids, routing.num_experts)
    hidden_RH = swiglu(parallel_linear(x_TD, w_in, routing.top_k, *order, grouped_out=True))
    return parallel_linear(hidden_RH, w_out, 1, *order, gates=routing.weights.to(x_TD.dtype), grouped_in=True)


# `grouped` is `at_once` on a GPU, and in chunks on a CPU: there both are measured
ON_CPU = DISPATCHES | {"at_once": at_once}
ON_GPU = {"grouped": at_once, "fused": fused, "loop": loop, "scatter_add": scatter_add, "scattermoe": scattermoe}
COMPILED = (f"{DENSE}, compiled", "grouped, compiled")


@dataclass
class Contest:
    """What is measured at one size: name -> function of x; name -> why it is left out; the modules behind the functions."""

    functions: dict[str, Callable[[Tensor], Tensor]]
    left_out: dict[str, str]
    ours: MoE
    modules: list[nn.Module]


def contest(size: Size, dtype: torch.dtype, device: str) -> Contest:
    """Our layer with every dispatch, transformers' with every implementation, and the dense FFN."""
    torch.manual_seed(0)
    ours = MoE(size.width, size.experts, size.top_k, size.expert_width, num_shared=size.shared, score="sigmoid")
    dense, theirs = DenseFFN(size.width, size.hidden), transformers_layer(ours, size)
    modules = [module.to(device, dtype) for module in (dense, ours, theirs) if module is not None]

    def with_experts(compute: Callable, layer: Callable = ours) -> Callable[[Tensor], Tensor]:
        def forward(x_TD: Tensor, routing: Routing) -> Tensor:
            return compute(x_TD, routing, ours.experts.w_in, ours.experts.w_out)

        def run(x: Tensor) -> Tensor:
            ours.experts.forward = forward
            return layer(x)[0]
        return run

    def of_transformers(name: str) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            theirs.config._experts_implementation = name
            return theirs(x[None])[0]
        return run

    ways = ON_GPU if device == "cuda" else ON_CPU
    functions = {DENSE: dense} | {name: with_experts(compute) for name, compute in ways.items()}
    functions |= {name: of_transformers(name.split()[1]) for name in THEIRS}
    if device == "cuda":
        torch.compiler.reset()  # what was compiled at other sizes counts towards a limit, above which nothing is compiled
        fast = [torch.compile(module, dynamic=False, fullgraph=True) for module in (dense, ours)]
        functions |= dict(zip(COMPILED, (fast[0], with_experts(at_once, fast[1]))))
    left_out = {name: why for name, why in missing(size, dtype).items() if name in functions}
    return Contest({name: f for name, f in functions.items() if name not in left_out}, left_out, ours, modules)


def missing(size: Size, dtype: torch.dtype) -> dict[str, str]:
    """What can't be measured here, and why."""
    elements = {  # of the largest intermediate results
        "one_hot": size.tokens * size.experts * (3 * size.expert_width + size.width),
        "transformers batched_mm": size.tokens * size.top_k * 3 * size.width * size.expert_width,
    }
    gib = {name: number * dtype.itemsize / 2 ** 30 for name, number in elements.items()}
    packages = {"fused": "triton", "scattermoe": "scattermoe"} | dict.fromkeys(THEIRS, "transformers")
    wrong = {} if dtype in DTYPES_OF_FUSED else {"fused": f"its kernels can't multiply {dtype}"}
    return (wrong | {name: f"its intermediate results take {much:.1f} GiB" for name, much in gib.items() if much > MAX_GIB}
            | {name: f"{package} is not installed" for name, package in packages.items() if not installed(package)})


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def version(package: str) -> str:
    """The version of a package that can be imported, whatever the distribution is called that it came in."""
    distributions = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(distributions[0]) if distributions else "not installed"


def check_equal(functions: dict[str, Callable], ours: MoE, x: Tensor, target: Tensor) -> None:
    """Raise AssertionError unless all but the dense FFN have the loop's output, and its gradients of x and, where they are our
    layer's ways, of the layer's weights. Whoever can't run with gradients or without says so here, too."""
    def run(name: str) -> dict[str, Tensor]:
        with torch.no_grad():
            functions[name](x)
        leaf = x.clone().requires_grad_()
        ours.zero_grad()
        y = functions[name](leaf)
        y.backward(target)
        grads = {f"gradient of {part}": weight.grad for part, weight in ours.named_parameters() if weight.grad is not None}
        return {what: each.double() for what, each in ({"output": y.detach(), "gradient": leaf.grad} | grads).items()}

    tolerance = 1e-3 if x.dtype == torch.float32 else 0.05  # room for a token whose choice rounding decides
    oracle = run("loop")
    for name in functions:
        found = run(name)
        for what, mine in found.items() if not name.startswith(DENSE) else ():
            error = ((mine - oracle[what]).norm() / oracle[what].norm()).item()
            assert error < tolerance, f"the {what} of {name} differs from the loop's by {error:.2g} of its norm"


def survives(trial: Callable[..., object], *arguments, seconds: float = 120.0) -> bool:
    """Whether a process of its own comes through a trial in time: on a GPU an illegal access breaks all that its process does
    afterwards, and a kernel may never end."""
    process = multiprocessing.get_context("spawn").Process(target=trial, args=arguments)
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
    process.join()
    return process.exitcode == 0


def come_through(name: str, sizes: Sequence[Size], dtype: torch.dtype, device: str) -> None:
    """Compute one way forward and backward at some sizes; an error is no matter here, a device that it leaves broken is."""
    for size in sizes:
        entered = contest(size, dtype, device)
        x, target = (torch.randn(size.tokens, size.width, device=device).to(dtype) for _ in range(2))
        with contextlib.suppress(Exception):
            entered.functions[name](x.requires_grad_()).backward(target)
        torch.zeros(1, device=device).item()


def leave_out_what_fails(entered: Contest, x: Tensor, target: Tensor) -> None:
    """Leave out of a contest who raises an error, or differs from the loop: on a GPU much runs for the first time, and one that
    can't run must not cost the others their table."""
    for name in [name for name in entered.functions if name != "loop"]:
        try:
            check_equal({each: entered.functions[each] for each in (name, "loop")}, entered.ours, x, target)
        except Exception as error:
            entered.left_out[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            del entered.functions[name]


# ----------------------------------------------------------------------------------------------------------- measuring it


def milliseconds(action: Callable[[], object], device: str) -> float:
    """How long an action takes."""
    def now() -> float:
        torch.get_device_module(device).synchronize()
        return time.perf_counter()

    start = now()
    action()
    return (now() - start) * 1000


def meeting_us(device: str) -> float:
    """Microseconds that an operator which all threads of a CPU share takes longer than one thread's part of it alone.

    Returns: the time in which the threads meet; 0 on other devices and with one thread.
    """
    if device != "cpu" or torch.get_num_threads() == 1:
        return 0.0

    def microseconds(threads: int) -> float:
        numbers = torch.zeros(threads * GRAIN)
        out = torch.empty_like(numbers)
        return min(milliseconds(lambda: [torch.neg(numbers, out=out) for _ in range(20)], device) for _ in range(5)) * 1000 / 20

    return microseconds(torch.get_num_threads()) - microseconds(1)


def peak_gib(action: Callable[[], object]) -> float:
    """How much of a CUDA device's memory an action takes at its worst, beyond what was there before."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    return (torch.cuda.max_memory_allocated() - before) / 2 ** 30


def measure(size: Size, dtype: torch.dtype, device: str, repeats: int,
            without: dict[str, str]) -> tuple[list[dict], list[dict], dict[str, str]]:
    """Rows of the table, each with its samples, and of the breakdown for one size, and what was left out and why: `without` is
    never called.

    A sample is its milliseconds and the longer of the times that the threads took to meet before and after it.
    """
    entered = contest(size, dtype, device)
    for name in without.keys() & entered.functions.keys():
        del entered.functions[name]
        entered.left_out[name] = without[name]
    x, target = (torch.randn(size.tokens, size.width, device=device).to(dtype) for _ in range(2))
    if device == "cuda":
        leave_out_what_fails(entered, x, target)
    else:
        check_equal(entered.functions, entered.ours, x, target)
    x.requires_grad_()
    actions = {(FORWARD, name): torch.no_grad()(lambda f=f: f(x)) for name, f in entered.functions.items()}
    actions |= {(BOTH, name): lambda f=f: f(x).backward(target) for name, f in entered.functions.items()}

    def fresh(key: tuple[str, str]) -> Callable[[], object]:
        x.grad = None  # gradients, of the weights and of x, are written anew, not added to the last ones
        for module in entered.modules:
            module.zero_grad()
        return actions[key]

    samples: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in actions}
    for repeat in range(-2, repeats):  # the first two warm up
        for key in random.Random(repeat).sample(list(actions), len(actions)):
            before = meeting_us(device)
            took = milliseconds(fresh(key), device)
            if repeat >= 0:
                samples[key].append((took, max(before, meeting_us(device))))
    rows = [asdict(size) | {"pass": what, "implementation": name, "samples": took}
            | ({"peak_gib": peak_gib(fresh((what, name)))} if device == "cuda" else {}) for (what, name), took in samples.items()]
    steps = breakdown(entered, x, target, repeats) if device == "cpu" else []  # a GPU overlaps its operators
    return rows, [asdict(size) | row for row in steps], entered.left_out


def measure_in(processes: int, *asked) -> tuple[list[dict], list[dict], dict[str, str]]:
    """`measure` in several new processes, one after the other, or in this one if one is asked for, and its rows over them all."""
    if processes == 1:
        found = [measure(*asked)]
    else:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            found = pool.starmap(measure, [asked] * processes, chunksize=1)
    rows, steps = (list(zip(*(one[place] for one in found))) for place in (0, 1))
    meetings = sorted(meeting for same in rows for row in same for _, meeting in row["samples"])
    near_us = NEAR * max(0.0, meetings[len(meetings) // 20])  # not the very shortest, which is chance
    dense = {same[0]["pass"]: same for same in rows if same[0]["implementation"] == DENSE}
    return ([over_processes(same, dense[same[0]["pass"]], near_us) for same in rows],
            [same[0] | {"share": statistics.median(row["share"] for row in same)} for same in steps], found[0][2])


def over_processes(same: Sequence[dict], dense: Sequence[dict], near_us: float) -> dict:
    """One row of the table, out of the same row of several processes.

    Args:
        same: the row of each process, with its samples.
        dense: the row of the dense FFN in each of them.
        near_us: up to which meeting the cores were near.

    Returns: times and ratios of near samples, over the `near_processes` in which the row and the dense FFN both have some (of all
        samples if there is none); `far_share`, the share of the other samples, and `far_ratio`, theirs, nan if there is none.
    """
    def pairs(*states: bool) -> list[list[list[float]]]:
        found = [[[ms for ms, meeting in row["samples"] if (meeting <= near_us) in states] for row in both]
                 for both in zip(same, dense)]
        return [both for both in found if all(both)]

    def ratios(of: list[list[list[float]]]) -> list[float]:
        return [statistics.median(mine) / statistics.median(other) for mine, other in of]

    near, far = pairs(True) or pairs(True, False), ratios(pairs(False))
    return {name: value for name, value in same[0].items() if name != "samples"} | {
        "median_ms": statistics.median(statistics.median(mine) for mine, _ in near), "min_ms": min(min(mine) for mine, _ in near),
        "ratio": statistics.median(ratios(near)), "low_ratio": min(ratios(near)), "high_ratio": max(ratios(near)),
        "near_processes": len(near), "near_us": near_us,
        "far_share": statistics.mean(meeting > near_us for row in same for _, meeting in row["samples"]),
        "far_ratio": statistics.median(far) if far else math.nan}


# --------------------------------------------------------------------------------------------------- where the time goes

STEPS = {  # forward: torch's operators, and two modules of ours; backward: autograd's nodes
    "routing": ("router", "GatherBackward0", "SoftmaxBackward0", "LogSigmoidBackward0"),
    "sort": ("aten::argsort", "aten::floor_divide", "aten::ones_like", "aten::new_zeros", "aten::scatter_add", "aten::cumsum"),
    "gather": ("aten::index_select", "IndexSelectBackward0"),
    "products": ("aten::_grouped_mm", "GroupedMmBackward0", "MmBackward0"),
    "activation": ("aten::silu", "aten::mul", "SiluBackward0", "MulBackward0"),
    "combine": ("aten::zeros_like", "aten::index_add_", "IndexAddBackward0"),
    "joining gradients": ("SplitBackward0",),  # of gate and up, and of the pieces' weights
    "shared expert": ("shared expert",),
}
STEP_OF = {name: step for step, names in STEPS.items() for name in names}


def spent(action: Callable[[], object]) -> dict[str, float]:
    """Share of each step in the time of an action on the CPU; what belongs to no step, Python included, is "rest"."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it tells stderr that it starts and stops
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        total = milliseconds(action, "cpu")
    share = dict.fromkeys(STEPS, 0.0)
    for event in profiler.events():
        step = STEP_OF.get(event.name.rsplit(": ", 1)[-1])
        if step and event.cpu_parent is None:
            share[step] += event.cpu_time_total / 1000 / total
    return share | {"rest": 1 - sum(share.values())}


@contextlib.contextmanager
def named(module: nn.Module, name: str) -> Iterator[None]:
    """While it is open, the profiler knows the module's forward pass by this name."""
    forward = module.forward

    def named_forward(x: Tensor) -> object:
        with record_function(name):
            return forward(x)

    module.forward = named_forward
    try:
        yield
    finally:
        del module.forward


def breakdown(entered: Contest, x: Tensor, target: Tensor, repeats: int) -> list[dict]:
    """Median share of each step of `grouped` in its forward and its backward pass.

    Backward, the operators of the router and of the shared expert count as those of the experts that they resemble.
    """
    samples, outputs = {FORWARD: [], BACKWARD: []}, []
    with named(entered.ours.router, "router"), named(entered.ours.shared, "shared expert"):
        for _ in range(repeats):
            entered.ours.zero_grad()
            x.grad = None
            outputs.clear()
            samples[FORWARD].append(spent(lambda: outputs.append(entered.functions["grouped"](x))))
            samples[BACKWARD].append(spent(lambda: outputs[0].backward(target)))
    return [{"pass": what, "step": step, "share": statistics.median(shares[step] for shares in found)}
            for what, found in samples.items() for step in found[0]]


# ----------------------------------------------------------------------------------------------------------- telling it


def text_table(rows: list[dict]) -> str:
    """Rows as lines of text, the columns aligned."""
    lines = [list(rows[0])] + [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines)


def table_name(device: str, dtype: str) -> str:
    """The table's name in data/results, e.g. layer-speed-cpu."""
    return f"layer-speed-{device}" + ("" if dtype == DTYPE_OF.get(device, "float32") else f"-{dtype}")


def provenance(device: str, dtype: str, tokens: list[int], repeats: int, processes: int, seconds: float,
               left_out: dict[str, str]) -> dict:
    """What made the table."""
    command = (f"benchmark_layer.py --device {device} --dtype {dtype} --repeats {repeats} --processes {processes} "
               f"--tokens {' '.join(map(str, tokens))}")
    preset = {"dtype": dtype, "tokens": tokens, "repeats": repeats, "processes": processes,
              "sizes": list(map(asdict, sizes(device, tokens)))}
    others = {package: version(package) for package in (("transformers", "triton") if device == "cuda" else ("transformers",))}
    return record(command, device, seconds, preset, **others) | {"left_out": left_out}


def section(table: Table, steps: Table) -> str:
    """The section of CONTRIBUTING.md, from the tables alone."""
    made = table.provenance
    columns = [Size(**size) for size in made["preset"]["sizes"]]
    columns.sort(key=lambda size: (-size.tokens, -size.experts))
    largest = columns[0]
    measured = {row["implementation"] for row in table.rows}

    def rows(of: Table, size: Size, what: str) -> list[dict]:
        return [row for row in of.rows if row["pass"] == what and all(row.get(k, v) == v for k, v in asdict(size).items())]

    def cell(name: str, size: Size) -> str:
        found = [row for what in (FORWARD, BOTH) for row in rows(table, size, what) if row["implementation"] == name]
        if not found:
            return "left out"
        if size != largest:
            return " / ".join(f"{row['ratio']:.2f}×" for row in found)
        ranges = [f" ({row['low_ratio']:.2f}–{row['high_ratio']:.2f})" if name != DENSE else "" for row in found]
        return " / ".join(f"{row['median_ms']:.0f}" for row in found) + " ms, " + " / ".join(
            f"{row['ratio']:.2f}×{of}" for row, of in zip(found, ranges))

    def shares(what: str) -> str:
        found = sorted(rows(steps, largest, what), key=lambda row: -row["share"])
        return ", ".join(f"{row['step']} {row['share']:.0%}" for row in found if row["share"] >= 0.01)

    def far() -> str:
        found = [row for what in (FORWARD, BOTH) for row in rows(table, largest, what) if row["implementation"] == "grouped"]
        if any(math.isnan(row["far_ratio"]) for row in found):
            return ""
        share, ratios = statistics.mean(row["far_share"] for row in found), [f"{row['far_ratio']:.2f}×" for row in found]
        return (f"In {share:.0%} of the samples of `grouped` its threads met late, as if on cores far apart (the tool says how "
                f"that is told); there it takes {' / '.join(ratios)} the time of the dense FFN. ")

    text = (
        f"Forward / forward and backward, beside a dense FFN with as many hidden units as are active for a token "
        f"({largest.hidden}). Width {largest.width}; 64 experts of 128 hidden units each, 8 of them active, or 8 experts of "
        f"384, 2 active; one more of that size is shared; {made['preset']['dtype']}; {made['device']}; medians over "
        f"those of {made['preset']['processes']} processes that had near cores, in brackets their lowest and highest. "
        f"Left out is what needs more than {MAX_GIB} GiB for one intermediate result.",
        "\n".join([
            f"| | {' | '.join(f'{size.tokens} tokens, {size.experts} experts' for size in columns)} |",
            "|---" * (len(columns) + 1) + "|",
            *(f"| {label} | {' | '.join(cell(name, size) for size in columns)} |"
              for name, label in LABELS.items() if name in measured)]),
        f"Of the time of `grouped` at {largest.tokens} tokens, {largest.experts} experts, with cores near or far, forward: "
        f"{shares(FORWARD)}; backward: {shares(BACKWARD)}. "
        f"{far()}`python tools/benchmark_layer.py` measures it on your machine; a test holds these numbers to the table.",
    )
    return "\n\n".join(part if part.startswith("|") else textwrap.fill(part, 125) for part in text) + "\n"


def benchmark(device: str, dtype: str, tokens: list[int], repeats: int, processes: int,
              unfinished: Path) -> tuple[list[dict], list[dict], dict]:
    """Rows of the table, rows of the breakdown, and their provenance; `unfinished` is a file that keeps the sizes that were
    measured, each by how often and at which commit."""
    kept = json.loads(unfinished.read_text()) if unfinished.exists() else {}
    asked = {f"{size}, {repeats} times in {processes} at {git_commit()}": size for size in sizes(device, tokens)}
    done = {key: found for key, found in kept.items() if key in asked}
    left, without = [size for key, size in asked.items() if key not in done], {}
    largest = [size for size in left if size.tokens == max(one.tokens for one in left)]  # the time is a lease's
    if device == "cuda" and left and not survives(come_through, "fused", largest, DTYPES[dtype], device):
        without = {"fused": "it broke a process of its own, or did not end"}
    for key, size in asked.items():
        if key not in done:
            start = time.perf_counter()
            table, where, missing = measure_in(processes, size, DTYPES[dtype], device, repeats, without)
            done[key] = table, where, missing, time.perf_counter() - start
            print(text_table(table) + "\n", flush=True)
            write_text(unfinished, json.dumps(done))
    rows, steps = ([row for found in done.values() for row in found[place]] for place in (0, 1))
    left_out = {f"{name}, {asked[key]}": why for key, found in done.items() for name, why in found[2].items()}
    return rows, steps, provenance(device, dtype, tokens, repeats, processes, sum(found[3] for found in done.values()), left_out)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="default: float32; on a CUDA device what it is fast in")
    parser.add_argument("--tokens", type=int, nargs="+", help="batch sizes (default: 256 4096; on a CUDA device 65536 4096)")
    parser.add_argument("--repeats", type=int, default=20, help="how often each is measured (default 20)")
    parser.add_argument("--processes", type=int, default=1, help="in how many new processes, if more than this one (default 1)")
    parser.add_argument("--out", type=Path, help="data folder to write results/layer-speed-….csv into")
    parser.add_argument("--contributing", action="store_true",
                        help="measure nothing; put the stored table into CONTRIBUTING.md")
    options = parser.parse_args(arguments)
    if options.contributing:
        path, name = REPO / "CONTRIBUTING.md", table_name("cpu", "float32")
        made = section(result_table(name), result_table(f"{name}-steps"))
        path.write_text(with_section(path.read_text(encoding="utf-8"), made, HEADING), encoding="utf-8")
        return
    if min(options.repeats, options.processes, *(options.tokens or [1])) < 1:
        parser.error("--repeats, --processes and --tokens must be at least 1")
    try:
        device = pick_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    dtype = options.dtype or str(fast_dtype(device)).removeprefix("torch.")
    tokens = options.tokens or ([65536, 4096] if device == "cuda" else [256, 4096])
    name = table_name(device, options.dtype or DTYPE_OF.get(device, "float32"))  # of a T4 too, which is timed in float16
    with tempfile.TemporaryDirectory() as folder:
        results = options.out / "results" if options.out else Path(folder)
        results.mkdir(parents=True, exist_ok=True)
        unfinished = results / f"{name}-unfinished.json"
        rows, steps, made = benchmark(device, dtype, tokens, options.repeats, options.processes, unfinished)
    if steps:
        print(text_table(steps) + "\n")
    print("\n".join(f"left out: {name}: {why}" for name, why in made["left_out"].items()))
    if options.out:
        write_table(options.out / "results", name, rows, made)
        if steps:
            write_table(options.out / "results", f"{name}-steps", steps, made)
        unfinished.unlink()


if __name__ == "__main__":
    main()
