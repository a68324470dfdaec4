"""The benchmark of the layer: all that it times give the same output, and its tables say what was measured. No times here."""

import contextlib
import importlib.metadata
import itertools
import json
import os
import sys
import time

import benchmark_ladder
import benchmark_layer
import pytest
import torch
from benchmark_layer import BOTH, COMPILED, DENSE, FORWARD, ON_GPU, THEIRS, Size
from torch import nn

from moe_lesson.moe.dispatch import DISPATCHES

OURS = (*DISPATCHES, "at_once")
SIZE = Size(tokens=12, experts=8, top_k=3, expert_width=16, width=32)


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def test_all_give_the_same_output(transformers):
    entered = benchmark_layer.contest(SIZE, torch.float32, "cpu")
    assert entered.functions.keys() == {DENSE, *OURS, *THEIRS} and not entered.left_out
    x = torch.randn(SIZE.tokens, SIZE.width)
    expected = entered.functions["loop"](x)
    assert expected.norm() > 0.1
    for name, function in entered.functions.items():
        assert function(x).shape == x.shape
        if name != DENSE:
            torch.testing.assert_close(function(x), expected, rtol=1e-4, atol=1e-5)


def test_transformers_runs_the_implementation_that_is_named(transformers, monkeypatch):
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    called = []
    interface = type(ALL_EXPERTS_FUNCTIONS)
    get = interface.get_interface
    monkeypatch.setattr(interface, "get_interface", lambda self, name, default: called.append(name) or get(self, name, default))
    entered = benchmark_layer.contest(SIZE, torch.float32, "cpu")
    for name in THEIRS:
        entered.functions[name](torch.randn(SIZE.tokens, SIZE.width))
    assert called == ["eager", "grouped_mm", "batched_mm"]


def test_an_implementation_that_differs_is_not_timed():
    entered = benchmark_layer.contest(SIZE, torch.float32, "cpu")
    functions, ours = entered.functions, entered.ours
    x, target = torch.randn(2, SIZE.tokens, SIZE.width)
    benchmark_layer.check_equal(functions, ours, x, target)
    right = functions["grouped"]
    functions["grouped"] = lambda x: right(x) * 1.01
    with pytest.raises(AssertionError, match="the output of grouped differs from the loop's"):
        benchmark_layer.check_equal(functions, ours, x, target)
    functions["grouped"] = lambda x: right(x.detach()) + (x - x.detach())
    with pytest.raises(AssertionError, match="the gradient of grouped differs"):
        benchmark_layer.check_equal(functions, ours, x, target)

    def deaf(x):
        y, doubled = right(x), ours.experts.w_out.sum() * 1e-1
        return y + doubled - doubled.detach()

    functions["grouped"] = deaf
    with pytest.raises(AssertionError, match="the gradient of experts.w_out of grouped differs"):
        benchmark_layer.check_equal(functions, ours, x, target)


def test_a_way_that_breaks_its_process_or_never_ends_is_found_out_in_a_process_of_its_own():
    assert benchmark_layer.survives(benchmark_layer.come_through, "grouped", [SIZE], torch.float32, "cpu")
    assert not benchmark_layer.survives(os._exit, 3)
    assert not benchmark_layer.survives(time.sleep, 60, seconds=0.5)


@pytest.mark.parametrize("tokens", [1, 12])
def test_the_table_has_a_row_for_each_and_ratio_1_for_dense(transformers, tokens):
    rows, steps, left_out = benchmark_layer.measure_in(1, Size(tokens, 8, 3, 16, width=32), torch.float32, "cpu", 2, {})
    assert not left_out
    assert [(row["pass"], row["implementation"]) for row in rows] == [
        (what, name) for what in (FORWARD, BOTH) for name in (DENSE, *OURS, *THEIRS)]
    for row in rows:
        assert row["tokens"] == tokens and 0 < row["min_ms"] <= row["median_ms"] and row["ratio"] > 0
        assert row["implementation"] != DENSE or row["ratio"] == 1
    known = {what: {row["step"] for row in steps if row["pass"] == what and row["share"] > 0} for what in (FORWARD, "backward")}
    assert known[FORWARD] >= {"routing", "sort", "gather", "products", "activation", "combine", "shared expert"}
    assert known["backward"] >= {"routing", "gather", "products", "activation", "combine"}


def test_the_dense_ffn_has_as_many_hidden_units_as_are_active_at_every_size():
    assert {size.hidden for size in benchmark_layer.sizes("cpu", [256, 4096])} == {1152}
    assert [size.hidden for size in benchmark_layer.sizes("cuda", [4096])] == [8 * 1408, 8 * 512, 9 * 128]


def test_what_is_measured_on_a_gpu_gives_the_same_output_here(transformers, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module, **options: lambda x: module(x))
    monkeypatch.setattr(benchmark_layer, "missing", lambda size, dtype: {"fused": "no GPU", "scattermoe": "no GPU"})
    monkeypatch.setattr(nn.Module, "to", lambda module, device, dtype: module)
    entered = benchmark_layer.contest(Size(12, 8, 3, 16, width=32, shared=2), torch.float32, "cuda")
    assert entered.functions.keys() | entered.left_out.keys() == {DENSE, *ON_GPU, *THEIRS, *COMPILED}
    assert entered.left_out.keys() == {"fused", "scattermoe"}
    benchmark_layer.check_equal(entered.functions, entered.ours, *torch.randn(2, 12, 32))


def test_the_fused_path_is_left_out_where_its_kernels_cannot_multiply():
    assert "float64" in benchmark_layer.missing(SIZE, torch.float64)["fused"]
    assert all("fused" not in benchmark_layer.missing(SIZE, dtype) for dtype in benchmark_layer.DTYPES_OF_FUSED)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_lesson_reads_the_table_that_the_benchmark_writes_by_itself(device):
    name = benchmark_layer.table_name(device, benchmark_layer.DTYPE_OF.get(device, "float32"))
    lesson = (benchmark_layer.REPO / "notebooks/09-moe-on-gpu.ipynb").read_text(encoding="utf-8")
    assert name == f"layer-speed-{device}" and 'result_table(f\\"layer-speed-{device}\\")' in lesson
    assert f'stored(\\"{device}\\", ' in lesson


def test_what_fails_on_a_gpu_costs_the_others_nothing():
    entered = benchmark_layer.contest(SIZE, torch.float32, "cpu")
    right = entered.functions["grouped"]
    entered.functions |= {"grouped": lambda x: right(x) * 1.01, "at_once": lambda x: 1 / 0}
    others = entered.functions.keys() - {"grouped", "at_once"}
    benchmark_layer.leave_out_what_fails(entered, *torch.randn(2, SIZE.tokens, SIZE.width))
    assert entered.functions.keys() == others and "differs from the loop's" in entered.left_out["grouped"]
    assert entered.left_out["at_once"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("device, survived, left_out", [("cuda", False, {"fused"}), ("cuda", True, set()), ("cpu", False, set())])
def test_what_would_break_the_process_is_never_called_in_it(device, survived, left_out, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(benchmark_layer, "survives", lambda *trial: survived)
    monkeypatch.setattr(benchmark_layer, "provenance", lambda *facts: {})
    monkeypatch.setattr(benchmark_layer, "measure_in", lambda processes, *rest: asked.append(rest[-1].keys()) or (
        [{"tokens": 5, "samples": []}], [], {}))
    monkeypatch.setattr(benchmark_layer, "text_table", str)
    benchmark_layer.benchmark(device, "bfloat16", [5], 1, 1, tmp_path / "unfinished.json")
    assert asked and all(names == left_out for names in asked)
    _, _, reasons = benchmark_layer.measure(SIZE, torch.float32, "cpu", 1, {"at_once": "it is not wanted", "no such way": ""})
    assert reasons["at_once"] == "it is not wanted" and "no such way" not in reasons


def test_a_benchmark_that_was_stopped_goes_on_with_the_sizes_it_lacks(monkeypatch, tmp_path):
    measured = []

    def measure(size, dtype, device, repeats, without):
        measured.append(size.tokens)
        if measured == [5, 6]:
            raise KeyboardInterrupt
        return [{"tokens": size.tokens, "repeats": repeats} | sampled(DENSE, (1, 2))], [], {"x": "why"}

    monkeypatch.setattr(benchmark_layer, "measure", measure)
    monkeypatch.setattr(benchmark_layer, "sizes", lambda device, tokens: [Size(t, 8, 3, 16, width=32) for t in tokens])
    command = ["--device", "cpu", "--tokens", "5", "6", "--repeats", "1", "--out", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        benchmark_layer.main(command)
    benchmark_layer.main(command)
    table = benchmark_layer.result_table("layer-speed-cpu", tmp_path / "results")
    assert measured == [5, 6, 6] and [row["tokens"] for row in table.rows] == [5, 6] and len(table.provenance["left_out"]) == 2
    assert len(list((tmp_path / "results").iterdir())) == 2, "nothing unfinished is left"
    measured.clear()
    with pytest.raises(KeyboardInterrupt):
        benchmark_layer.main(command)
    benchmark_layer.main([*command[:4], *command[5:6], "2", *command[7:]])
    table = benchmark_layer.result_table("layer-speed-cpu", tmp_path / "results")
    assert table.column("repeats") == [2] and table.column("tokens") == [5], "another command takes nothing over"


def test_several_processes_are_new_ones_and_their_medians_are_told(monkeypatch):
    monkeypatch.setattr(benchmark_layer, "measure", measured_by)
    (_, one), _, _ = benchmark_layer.measure_in(1, SIZE, torch.float32, "cpu", 1, {})
    assert one["median_ms"] == one["ratio"] == one["low_ratio"] == one["high_ratio"] == os.getpid()
    (_, two), (step,), left_out = benchmark_layer.measure_in(2, SIZE, torch.float32, "cpu", 1, {})
    assert os.getpid() not in two.values() and left_out == {"x": "why"}
    assert two["low_ratio"] < two["ratio"] < two["high_ratio"] and two["median_ms"] == two["ratio"] == step["share"]


def measured_by(*asked):
    """What a new process can import and call: who measured."""
    process = os.getpid()
    return [sampled(DENSE, (1, 1)), sampled("grouped", (process, 1))], [{"share": process}], {"x": "why"}


def sampled(name, *samples):
    """A row of one process: milliseconds, and how long the threads took to meet."""
    return {"pass": BOTH, "implementation": name, "samples": samples}


def test_samples_whose_cores_are_far_from_each_other_stay_out_of_the_times():
    dense = [sampled(DENSE, (10, 1), (10, 1.4), (20, 3)), sampled(DENSE, (10, 3), (20, 3)), sampled(DENSE, (10, 3))]
    ours = [sampled("grouped", (12, 1), (14, 1.4), (80, 3)), sampled("grouped", (30, 3), (30, 3)), sampled("grouped", (99, 1))]
    row = benchmark_layer.over_processes(ours, dense, 1.5)
    assert (row["median_ms"], row["min_ms"], row["ratio"], row["low_ratio"], row["high_ratio"]) == (13, 12, 1.3, 1.3, 1.3)
    assert (row["near_processes"], row["far_share"], row["far_ratio"]) == (1, 0.5, 3), "far in the first two: 80/20 and 30/15"
    row = benchmark_layer.over_processes(ours[1:2], dense[1:2], 1.5)
    assert (row["ratio"], row["far_ratio"], row["far_share"]) == (2, 2, 1), "where none was near, all count"


def test_a_sample_is_far_if_its_threads_met_late_for_its_run(monkeypatch):
    rows = [sampled(DENSE, (10, 0.1), *[(10, 1.0)] * 19, (10, 2.7)), sampled("grouped", *[(12, 1.4)] * 3, (24, 2.7))]
    monkeypatch.setattr(benchmark_layer, "measure", lambda *asked: (rows, [], {}))
    (_, row), _, _ = benchmark_layer.measure_in(1, SIZE, torch.float32, "cpu", 5, {})
    assert (row["ratio"], row["far_ratio"], row["far_share"], row["near_us"]) == (1.2, 2.4, 0.25, 1.5)


def test_a_sample_has_the_later_of_the_meetings_before_and_after_it(monkeypatch):
    met = itertools.cycle((1.0, 3.0))
    monkeypatch.setattr(benchmark_layer, "meeting_us", lambda device: next(met))
    rows, _, _ = benchmark_layer.measure(SIZE, torch.float32, "cpu", 1, {})
    assert {meeting for row in rows for _, meeting in row["samples"]} == {3.0}


def test_threads_that_share_an_operator_take_longer_than_one_alone(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(benchmark_layer, "milliseconds", lambda action, device: len(action()) and action()[0].numel() / 1e6)
    assert benchmark_layer.meeting_us("cpu") == pytest.approx(benchmark_layer.GRAIN / 1e6 * 1000 / 20)


def test_threads_that_share_nothing_do_not_meet(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert benchmark_layer.meeting_us("cpu") == benchmark_layer.meeting_us("cuda") == 0


def test_what_needs_too_much_memory_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr(benchmark_layer, "MAX_GIB", 0)
    entered = benchmark_layer.contest(SIZE, torch.float32, "cpu")
    assert {"grouped", "loop", DENSE} <= entered.functions.keys()
    for name in ("one_hot", "transformers batched_mm"):
        assert name not in entered.functions and name in entered.left_out
    assert "GiB" in entered.left_out["one_hot"]


def test_without_transformers_our_layers_are_measured(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    rows, _, left_out = benchmark_layer.measure(SIZE, torch.float32, "cpu", 1, {})
    assert {row["implementation"] for row in rows} == {DENSE, *OURS}
    assert left_out == dict.fromkeys(THEIRS, "transformers is not installed")


def test_each_operator_that_a_step_is_made_of_is_seen_in_a_pass(monkeypatch):
    """A name that is not seen adds nothing to its step, and nobody notices: a sort once counted for nothing."""
    seen, real = set(), benchmark_layer.profile

    @contextlib.contextmanager
    def listening(activities):
        with real(activities=activities) as profiler:
            yield profiler
        seen.update(event.name.rsplit(": ", 1)[-1] for event in profiler.events() if event.cpu_parent is None)

    monkeypatch.setattr(benchmark_layer, "profile", listening)
    size = Size(tokens=2048, experts=16, top_k=4, expert_width=128, width=256)  # large enough for several chunks
    entered = benchmark_layer.contest(size, torch.float32, "cpu")
    x = torch.randn(size.tokens, size.width, requires_grad=True)
    benchmark_layer.breakdown(entered, x, torch.randn(size.tokens, size.width), repeats=1)
    assert not benchmark_layer.STEP_OF.keys() - seen


def test_the_command_writes_the_tables_with_their_provenance(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark_layer, "sizes", lambda device, tokens: [Size(t, 8, 3, 16, width=32) for t in tokens])
    monkeypatch.setattr(benchmark_layer, "THEIRS", ())
    benchmark_layer.main(["--device", "cpu", "--tokens", "5", "6", "--repeats", "1", "--out", str(tmp_path)])
    names = ("layer-speed-cpu", "layer-speed-cpu-steps")
    table, steps = (benchmark_layer.result_table(name, tmp_path / "results") for name in names)
    assert {row["tokens"] for row in table.rows} == {row["tokens"] for row in steps.rows} == {5, 6}
    made = json.loads((tmp_path / "results" / "layer-speed-cpu.json").read_text())
    assert {"command", "commit", "versions", "device", "seconds", "date", "preset", "corpus", "left_out"} <= made.keys()
    assert made["command"].endswith("--device cpu --dtype float32 --repeats 1 --processes 1 --tokens 5 6 --out data")
    assert "grouped" in capsys.readouterr().out


def test_a_package_that_other_processes_used_has_its_version_in_the_provenance(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"triton": ["pytorch-triton"]})
    monkeypatch.setattr(importlib.metadata, "version", lambda distribution: f"9 of {distribution}")
    assert benchmark_layer.version("triton") == "9 of pytorch-triton"
    versions = benchmark_layer.provenance("cpu", "float32", [5], 1, 7, 1.0, {})["versions"]
    assert versions["transformers"] == "not installed" and "triton" not in versions, "a CPU has no use for triton"


@pytest.mark.parametrize("tool, argument, message", [
    (benchmark_layer, ["--repeats", "0"], "at least 1"), (benchmark_layer, ["--tokens", "0"], "at least 1"),
    (benchmark_layer, ["--processes", "0"], "at least 1"), (benchmark_layer, ["--device", "tpu"], "unknown device 'tpu'"),
    (benchmark_ladder, ["--repeats", "1"], "at least 2"), (benchmark_ladder, ["--device", "tpu"], "unknown device 'tpu'")])
def test_bad_arguments_are_refused(tool, argument, message, capsys):
    with pytest.raises(SystemExit):
        tool.main(argument)
    assert message in capsys.readouterr().err
