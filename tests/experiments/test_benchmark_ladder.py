"""The benchmark of training steps times every rung and says what it ran on. No test asserts a time."""

import json
from dataclasses import replace

import benchmark_ladder
import torch

from moe_lesson import result_table
from moe_lesson.experiments import EXPERIMENTS


def test_every_tuned_rung_is_timed_beside_the_dense_one(monkeypatch, tmp_path, capsys):
    small = replace(EXPERIMENTS["ladder"].presets["cpu"], batch=1, context=8)
    monkeypatch.setitem(EXPERIMENTS["ladder"].presets, "cpu", small)
    monkeypatch.setattr(benchmark_ladder.torch, "compile", lambda model: model)  # it takes minutes
    threads, counts = [2], (1, 2)  # asked for, not started: beside another test two threads would wait for each other
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    benchmark_ladder.main(["--device", "cpu", "--repeats", "2", "--out", str(tmp_path)])
    assert threads == [2, *counts, 2], "each number in its turn, and at the end as it was"
    table = result_table("ladder-speed-cpu", tmp_path / "results")
    assert [(row["threads"], row["rung"]) for row in table.rows] == [
        (count, rung) for count in counts for rung in EXPERIMENTS["ladder"].rungs
        if rung not in EXPERIMENTS["ladder"].controls]
    assert all(0 < row["low_ms"] <= row["ms_per_step"] <= row["high_ms"] for row in table.rows)
    assert table.column("ratio", rung="dense") == table.column("eager_ratio", rung="dense") == [1.0] * len(counts)
    assert "deepseekmoe" in capsys.readouterr().out
    made = json.loads((tmp_path / "results" / "ladder-speed-cpu.json").read_text())
    assert {"command", "commit", "versions", "device", "seconds", "date", "preset", "corpus"} <= made.keys()


def test_a_rung_that_can_not_be_compiled_costs_no_other_its_row(monkeypatch):
    def compiled(model):
        def refuses(ids):
            raise RuntimeError("no kernel\nfor this")
        return refuses if any(type(part).__name__ == "MoE" for part in model.modules()) else model

    small = replace(EXPERIMENTS["ladder"].presets["cpu"], batch=1, context=8)
    monkeypatch.setattr(benchmark_ladder.torch, "compile", compiled)
    rows, left_out = benchmark_ladder.measure_in_turn(small, "cpu", 2)
    assert [row["rung"] for row in rows] == ["dense", "dense of total size"]
    assert left_out == dict.fromkeys(("switch", "gshard", "fine", "deepseekmoe"), "RuntimeError: no kernel")
