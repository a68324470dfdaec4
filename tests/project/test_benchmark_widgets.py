"""The benchmark of the widgets times each one that is named, and says what it ran on. No test asserts a time."""

import json

import benchmark_widgets
import pytest
from every_widget import WIDGETS, Entry

from moe_lesson import result_table


def test_every_action_has_a_row_and_the_table_says_how_it_was_made(tmp_path, capsys):
    pytest.importorskip("playwright.sync_api", reason="needs playwright and chromium")
    benchmark_widgets.main(["RoutingMap", "SegmentationView", "--presses", "6", "--out", str(tmp_path)])
    table = result_table("widget-speed-cpu", tmp_path / "results")
    entries = {name: WIDGETS[name] for name in ("RoutingMap", "SegmentationView")}
    assert [(row["widget"], row["action"]) for row in table.rows] == [
        (name, action) for name, entry in entries.items() for action in (*entry.held, *(["new text"] if entry.types else []))]
    for row in table.rows:
        parts = ("text",) if row["action"] == "new text" else ("draw", "frame")
        assert tuple(row) == benchmark_widgets.COLUMNS and 0 < row["times"] <= 6
        assert all(0 < row[f"{part}_ms"] <= row[f"{part}_p95_ms"] for part in parts)
        assert [name for name, value in row.items() if value == ""] == [
            name for name in row if name.endswith("_ms") and not name.startswith(parts)]
    said = capsys.readouterr().out
    assert all(row["action"] in said for row in table.rows) and f"of {len(table.rows)} rows miss a target" in said
    made = json.loads((tmp_path / "results" / "widget-speed-cpu.json").read_text())
    assert {"command", "commit", "versions", "device", "seconds", "date", "preset"} <= made.keys()
    assert made["preset"]["presses"] == 6 and made["preset"]["targets"] == benchmark_widgets.TARGETS
    assert {"python", "chromium", "playwright"} <= made["versions"].keys()


@pytest.mark.parametrize("changed, marks", [
    ({}, []), ({"draw_p95_ms": 8.1}, ["draw_p95_ms"]),
    ({"frame_p95_ms": 20.1, "draw_p95_ms": 9}, ["draw_p95_ms", "frame_p95_ms"])])
def test_a_row_that_misses_a_target_has_a_mark(changed, marks):
    row = {"widget": "A", "action": "slider", "times": 3, "draw_ms": 1.0, "draw_p95_ms": 8, "frame_ms": 9.0, "frame_p95_ms": 20,
           **changed}
    assert benchmark_widgets.missed(row) == marks and benchmark_widgets.mark(row).count("✗") == len(marks)
    assert "draw 1.0 ms, p95" in benchmark_widgets.in_words(row)
    slow = {"widget": "A", "action": "text", "times": 3, "text_ms": 151.0, "text_p95_ms": 250.0}
    assert benchmark_widgets.mark(slow) == "  ✗ text_ms > 150"


def test_what_draws_nothing_is_an_error(monkeypatch):
    monkeypatch.setattr(benchmark_widgets, "hold", lambda *_: {"draw": [], "frame": []})
    with pytest.raises(RuntimeError, match="A: holding End on input draws nothing"):
        benchmark_widgets.measure(None, "A", Entry(lambda: None, held={"x": ("input", "End")}), 3)


@pytest.mark.parametrize("arguments, message", [
    (["--presses", "1"], "at least 2"),
    (["NoWidget"], "unknown widget 'NoWidget'"),
])
def test_bad_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        benchmark_widgets.main(arguments)
    assert message in capsys.readouterr().err
