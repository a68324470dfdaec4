"""How fast is the layer, beside a dense FFN of equal FLOPs and beside Hugging Face transformers' DeepSeek-V3 layer?

    python tools/benchmark_layer.py                                        # measure and print
    OMP_NUM_THREADS=2 python tools/benchmark_layer.py --device cpu --out data    # and write data/results/layer-speed-cpu.csv
    python tools/benchmark_layer.py --contributing                         # put that table into CONTRIBUTING.md

All have the same weights and give the same output, which is checked before anything is timed. One run measures all of them
in turn, in a new order at every repeat, so that what else the machine does falls on all alike.

Letters: T tokens, N experts, K active, H expert width.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import random
import statistics
import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from moe_lesson import DenseFFN, MoE, result_table
from moe_lesson.base.devices import device_name, pick_device
from moe_lesson.experiments.provenance import git_commit
from moe_lesson.measure.evidence import Table, write_table
from moe_lesson.moe.dispatch import DISPATCHES

REPO = Path(__file__).resolve().parent.parent
DENSE = "dense FFN of equal FLOPs"
OURS = tuple(DISPATCHES)
THEIRS = ("transformers eager", "transformers grouped_mm", "transformers batched_mm")
FORWARD, BACKWARD, BOTH = "forward", "backward", "forward + backward"
LABELS = {DENSE: DENSE, "grouped": "our layer, `grouped`", "loop": "our layer, `loop`", "one_hot": "our layer, `one_hot`",
          **{name: f"transformers' layer, `{name.split()[1]}`" for name in THEIRS}}
HEADING = "## How fast is the layer\n\n"
MAX_GIB = 2  # of one operator's results: an implementation that needs more is left out, it would take minutes
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Size:
    """One layer and one batch. The active hidden units are (K + 1)·H, one expert of H being shared."""

    tokens: int
    experts: int
    top_k: int
    expert_width: int
    width: int = 256

    @property
    def hidden(self) -> int:
        """Hidden units of the dense FFN of equal FLOPs; the router's T·D·N is left out."""
        return (self.top_k + 1) * self.expert_width

    def __str__(self) -> str:
        return f"T={self.tokens}, N={self.experts}"


def sizes(tokens: Iterable[int]) -> list[Size]:
    """For each T 64 experts, 8 of them active, and 8 wider ones, 2 active: 1152 active hidden units in both."""
    return [Size(t, experts, top_k, expert_width) for t in tokens for experts, top_k, expert_width in ((64, 8, 128), (8, 2, 384))]


# ------------------------------------------------------------------------------------------------------- what is measured


def transformers_layer(ours: MoE, size: Size) -> nn.Module | None:
    """Hugging Face's DeepseekV3MoE with our weights; None where transformers is not installed."""
    try:
        from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek
    except ImportError:
        return None
    config = deepseek.DeepseekV3Config(
        hidden_size=size.width, moe_intermediate_size=size.expert_width, n_routed_experts=size.experts,
        num_experts_per_tok=size.top_k, n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=True,
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
    ours = MoE(size.width, size.experts, size.top_k, size.expert_width, num_shared=1, score="sigmoid")
    dense, theirs = DenseFFN(size.width, size.hidden), transformers_layer(ours, size)
    modules = [module.to(device, dtype) for module in (dense, ours, theirs) if module is not None]

    def with_dispatch(name: str) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            ours.experts.dispatch = name
            return ours(x)[0]
        return run

    def with_experts(name: str) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            theirs.config._experts_implementation = name
            return theirs(x[None])[0]
        return run

    functions = {DENSE: dense} | {name: with_dispatch(name) for name in OURS}
    functions |= {name: with_experts(name.split()[1]) for name in THEIRS}
    left_out = {} if theirs is not None else dict.fromkeys(THEIRS, "transformers is not installed")
    elements = {  # of the largest intermediate results
        "one_hot": size.tokens * size.experts * (3 * size.expert_width + size.width),
        "transformers batched_mm": size.tokens * size.top_k * 3 * size.width * size.expert_width,
    }
    for name, number in elements.items():
        gib = number * dtype.itemsize / 2 ** 30
        if gib > MAX_GIB:
            left_out.setdefault(name, f"its intermediate results take {gib:.1f} GiB")
    return Contest({name: f for name, f in functions.items() if name not in left_out}, left_out, ours, modules)


def check_equal(functions: dict[str, Callable], x: Tensor, target: Tensor) -> None:
    """Raise AssertionError unless all but the dense FFN have the loop's output and gradient of x."""
    def run(function: Callable) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.backward(target)
        return [y.detach().double(), leaf.grad.double()]

    tolerance = 1e-3 if x.dtype == torch.float32 else 0.05  # room for a token whose choice rounding decides
    oracle = run(functions["loop"])
    for name, function in functions.items():
        if name == DENSE:
            continue
        for what, mine, reference in zip(("output", "gradient"), run(function), oracle):
            error = ((mine - reference).norm() / reference.norm()).item()
            assert error < tolerance, f"the {what} of {name} differs from the loop's by {error:.2g} of its norm"


# ----------------------------------------------------------------------------------------------------------- measuring it


def milliseconds(action: Callable[[], object], device: str) -> float:
    """How long an action takes."""
    def now() -> float:
        torch.get_device_module(device).synchronize()
        return time.perf_counter()

    start = now()
    action()
    return (now() - start) * 1000


def passes(function: Callable[[Tensor], Tensor], x: Tensor, target: Tensor) -> dict[str, Callable[[], object]]:
    """The forward pass without, and the two passes with gradients, of the weights and of x."""
    def forward() -> None:
        with torch.no_grad():
            function(x)

    def both() -> None:
        x.grad = None
        function(x).backward(target)

    return {FORWARD: forward, BOTH: both}


def measure(size: Size, dtype: torch.dtype, device: str, repeats: int) -> tuple[list[dict], list[dict], dict[str, str]]:
    """Rows of the table and of the breakdown for one size, and what was left out and why."""
    entered = contest(size, dtype, device)
    x, target = (torch.randn(size.tokens, size.width, device=device).to(dtype) for _ in range(2))
    check_equal(entered.functions, x, target)
    x.requires_grad_()
    actions = {(name, what): action for name, function in entered.functions.items()
               for what, action in passes(function, x, target).items()}
    times = defaultdict(list)
    for repeat in range(-2, repeats):  # the first two warm up
        for key in random.Random(repeat).sample(list(actions), len(actions)):
            for module in entered.modules:
                module.zero_grad()  # gradients are written anew, not added to the last ones
            spent = milliseconds(actions[key], device)
            if repeat >= 0:
                times[key].append(spent)
    median = {key: statistics.median(times[key]) for key in actions}
    rows = [asdict(size) | {"pass": what, "implementation": name, "median_ms": ms, "min_ms": min(times[name, what]),
                            "ratio": ms / median[DENSE, what]} for (name, what), ms in median.items()]
    rows.sort(key=lambda row: row["pass"] == BOTH)
    steps = breakdown(entered.ours, x, target, repeats) if device == "cpu" else []  # a GPU overlaps its operators
    return rows, [asdict(size) | row for row in steps], entered.left_out


# --------------------------------------------------------------------------------------------------- where the time goes

STEPS = {  # forward: torch's operators, and two modules of ours; backward: autograd's nodes
    "routing": ("router", "GatherBackward0", "DivBackward0", "SumBackward1", "SigmoidBackward0"),
    "sort": ("aten::sort", "aten::floor_divide", "aten::arange", "aten::searchsorted", "aten::diff"),
    "gather": ("aten::index_select", "IndexSelectBackward0"),
    "products": ("aten::_grouped_mm", "GroupedMmBackward0", "aten::matmul", "MmBackward0"),
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


def breakdown(layer: MoE, x: Tensor, target: Tensor, repeats: int) -> list[dict]:
    """Median share of each step of `grouped` in its forward and its backward pass.

    Backward, the operators of the router and of the shared expert count as those of the experts that they resemble.
    """
    layer.experts.dispatch = "grouped"
    samples = defaultdict(list)
    with named(layer.router, "router"), named(layer.shared, "shared expert"):
        for _ in range(repeats):
            layer.zero_grad()
            x.grad, outputs = None, []
            forward = spent(lambda outputs=outputs: outputs.append(layer(x)[0]))
            backward = spent(lambda outputs=outputs: outputs[0].backward(target))
            for what, steps in ((FORWARD, forward), (BACKWARD, backward)):
                for step, share in steps.items():
                    samples[what, step].append(share)
    return [{"pass": what, "step": step, "share": statistics.median(shares)} for (what, step), shares in samples.items()]


# ----------------------------------------------------------------------------------------------------------- telling it


def text_table(rows: list[dict]) -> str:
    """Rows as lines of text, the columns aligned."""
    lines = [list(rows[0])] + [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines)


def table_name(device: str, dtype: str) -> str:
    """The table's name in data/results, e.g. layer-speed-cpu."""
    return f"layer-speed-{device}" + ("" if dtype == "float32" else f"-{dtype}")


def provenance(device: str, dtype: str, tokens: list[int], repeats: int, seconds: float, left_out: dict[str, str]) -> dict:
    """What made the table."""
    transformers = sys.modules.get("transformers")
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()} " if device == "cpu" else ""
    return {
        "command": f"{threads}python tools/benchmark_layer.py --device {device} --dtype {dtype} --repeats {repeats} "
                   f"--tokens {' '.join(map(str, tokens))} --out data",
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "transformers": transformers.__version__ if transformers else "not installed"},
        "device": device_name(device),
        "seconds": round(seconds),
        "date": datetime.date.today().isoformat(),
        "preset": {"dtype": dtype, "tokens": tokens, "repeats": repeats, "sizes": [asdict(size) for size in sizes(tokens)]},
        "corpus": "none",
        "left_out": left_out,
    }


def section(table: Table, steps: Table) -> str:
    """The section of CONTRIBUTING.md, from the tables alone."""
    made = table.provenance
    columns = [Size(**size) for size in made["preset"]["sizes"]]
    columns.sort(key=lambda size: (-size.tokens, -size.experts))
    largest = columns[0]

    def rows(of: Table, size: Size, what: str) -> list[dict]:
        return [row for row in of.rows if (asdict(size) | {"pass": what}).items() <= row.items()]

    def cell(name: str, size: Size) -> str:
        found = [row for what in (FORWARD, BOTH) for row in rows(table, size, what) if row["implementation"] == name]
        if not found:
            return "left out"
        ratios = " / ".join(f"{row['ratio']:.2f}×" for row in found)
        return ratios if size != largest else " / ".join(f"{row['median_ms']:.0f}" for row in found) + f" ms, {ratios}"

    def shares(what: str) -> str:
        found = sorted(rows(steps, largest, what), key=lambda row: -row["share"])
        return ", ".join(f"{row['step']} {row['share']:.0%}" for row in found if row["share"] >= 0.01)

    text = (
        f"Forward / forward and backward, beside a dense FFN with as many hidden units as are active for a token "
        f"({largest.hidden}). Width {largest.width}; of 64 experts 8 of 128 hidden units are active, of 8 experts 2 of 384, one "
        f"more is shared; {made['preset']['dtype']}; {made['device']}; medians. Left out is what needs more than {MAX_GIB} GiB "
        "for one intermediate result.",
        "\n".join([
            f"| | {' | '.join(f'{size.tokens} tokens, {size.experts} experts' for size in columns)} |",
            "|---" * (len(columns) + 1) + "|",
            *(f"| {label} | {' | '.join(cell(name, size) for size in columns)} |" for name, label in LABELS.items())]),
        f"Of the time of `grouped` at {largest.tokens} tokens, {largest.experts} experts, forward: {shares(FORWARD)}; backward: "
        f"{shares(BACKWARD)}. `python tools/benchmark_layer.py` measures it on your machine; a test holds these numbers to the "
        "table.",
    )
    return "\n\n".join(part if part.startswith("|") else textwrap.fill(part, 125) for part in text) + "\n"


def with_section(page: str, body: str, heading: str = HEADING) -> str:
    """The page with this text under a heading."""
    before, rest = page.split(heading, 1)
    return before + heading + body + rest[rest.index("\n## "):]


def benchmark(device: str, dtype: str, tokens: list[int], repeats: int) -> tuple[list[dict], list[dict], dict]:
    """Rows of the table, rows of the breakdown, and their provenance."""
    start, rows, steps, left_out = time.perf_counter(), [], [], {}
    for size in sizes(tokens):
        table, where, missing = measure(size, DTYPES[dtype], device, repeats)
        rows, steps = rows + table, steps + where
        left_out |= {f"{name}, {size}": why for name, why in missing.items()}
        print(text_table(table) + "\n", flush=True)
    return rows, steps, provenance(device, dtype, tokens, repeats, time.perf_counter() - start, left_out)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--tokens", type=int, nargs="+", help="batch sizes (default: 256 and 4096; on a GPU 65536 too)")
    parser.add_argument("--repeats", type=int, default=20, help="how often each is measured (default 20)")
    parser.add_argument("--out", type=Path, help="data folder to write results/layer-speed-….csv into")
    parser.add_argument("--contributing", action="store_true",
                        help="measure nothing; put the stored table into CONTRIBUTING.md")
    options = parser.parse_args(arguments)
    if options.contributing:
        path, name = REPO / "CONTRIBUTING.md", table_name("cpu", "float32")
        path.write_text(with_section(path.read_text(encoding="utf-8"),
                                     section(result_table(name), result_table(f"{name}-steps"))), encoding="utf-8")
        return
    if options.repeats < 1 or min(options.tokens or [1]) < 1:
        parser.error("--repeats and --tokens must be at least 1")
    try:
        device = pick_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    tokens = options.tokens or [256, 4096] + ([65536] if device == "cuda" else [])
    rows, steps, made = benchmark(device, options.dtype, tokens, options.repeats)
    if steps:
        print(text_table(steps) + "\n")
    print("\n".join(f"left out: {name}: {why}" for name, why in made["left_out"].items()))
    if options.out:
        name = table_name(device, options.dtype)
        write_table(options.out / "results", name, rows, made)
        if steps:
            write_table(options.out / "results", f"{name}-steps", steps, made)


if __name__ == "__main__":
    main()
