"""The tables that want a GPU, at a tiny size on the CPU: each part begins with the last one's file, and nothing is made twice."""

import argparse
import importlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import time

import benchmark_layer
import gpu_tables
import pytest
from benchmark_layer import DENSE, FORWARD
from gpu_tables import ARCHIVE, LATER, PRESETS, WORKERS, Job, TextInTime

from moe_lesson import result_table
from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.experiments.run import tuning_runs

WRITES = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('made')"
SLEEPS = "import time; time.sleep(60)"
# What each benchmark would measure; the benchmarks have tests of their own.
MEASURED = {"layer": lambda *asked: ([{"pass": FORWARD, "implementation": DENSE, "samples": [(1, 0)]}], [], {}),
            "ladder": lambda *asked: ([{"rung": "dense", "ms_per_step": 1, "ratio": 1, "eager_ratio": 1, "threads": 1}], {})}


def ends_with(code: int) -> str:
    return f"raise SystemExit({code})"


@pytest.fixture
def text(tmp_path):
    """A folder of text, of which some is in every split."""
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(60):
        (folder / f"{i}.txt").write_text(f"Document {i}. " + " ".join(f"word{i * j % 17}" for j in range(120)))
    return folder


@pytest.fixture
def part(monkeypatch, tmp_path):
    """part(name, jobs, …) -> the names in the archive that a part leaves; jobs: table -> what Python is to do."""
    monkeypatch.setattr(gpu_tables, "STOPPING", 0.4)

    def go(name: str, programs: dict[str, str], *options: str, seconds: float = 0.0) -> list[str]:
        work = tmp_path / f"work-{name}"
        monkeypatch.setattr(gpu_tables, "jobs", lambda options, deadline: (
            Job(table, ["-c", program, str(work / "results" / f"{table}.csv")], 2, seconds)
            for table, program in programs.items()))
        gpu_tables.main(["--out", str(tmp_path / name), "--work", str(work), *options])
        assert [file.name for file in (tmp_path / name).iterdir()] == [ARCHIVE]
        return names_in(tmp_path / name / ARCHIVE)

    return go


def names_in(archive) -> list[str]:
    with tarfile.open(archive) as opened:
        return opened.getnames()


def contents(archive) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {name: opened.extractfile(name).read() for name in opened.getnames()}


def test_all_parts_at_a_tiny_size_each_with_no_more_than_the_last_ones_file(text, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(gpu_tables.ROOT), "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}

    def go(name: str, *options: str, until=lambda work: False) -> str:
        """One part, interrupted once there is what is waited for; returns what it printed."""
        work, printed = tmp_path / f"work-{name}", tmp_path / f"{name}.txt"
        command = [sys.executable, str(gpu_tables.ROOT / "tools/gpu_tables.py"), "--preset", "tiny", "--device", "cpu",
                   "--minutes", "30", "--text", str(text), "--out", str(tmp_path / name), "--work", str(work), *options]
        with printed.open("w") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
            while process.poll() is None and not until(work):
                time.sleep(0.05)
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0, printed.read_text()
        assert [file.name for file in (tmp_path / name).iterdir()] == [ARCHIVE]
        return printed.read_text()

    first = go("one", until=lambda work: len(list(work.rglob("result.json"))) >= 3)
    assert "to be continued: ladder-tiny" in first and "-speed-" not in first, "the benchmarks come last"
    results = tmp_path / "work-two" / "results"
    results.mkdir(parents=True)
    for tool in MEASURED:  # as if they were made: the next test starts and makes each
        (results / f"{tool}-speed-cpu.csv").touch()
    second = go("two", "--state", str(tmp_path / "one" / ARCHIVE))
    assert "done: ladder-tiny" in second
    assert not any((results / f"{tool}-speed-cpu.csv").stat().st_size for tool in MEASURED), "what is there is not made again"
    before, after = (contents(tmp_path / name / ARCHIVE) for name in ("one", "two"))
    kept = {name: found for name, found in before.items() if name.endswith("result.json")}
    assert len(kept) >= 3 and kept.items() <= after.items()
    trained = [line for line in second.splitlines() if line.startswith(("tune ", "final "))]
    assert len(trained) == 5 * 2 + 5 * 3 - len(kept), "what was trained in the first part is not trained again"

    table = result_table("ladder-tiny", results)
    assert {row["rung"] for row in table.rows} == gpu_tables.ladder().rungs.keys()
    assert all(len(table.column("test", stage="final", rung=rung)) == 3 for rung in gpu_tables.ladder().rungs)
    assert table.provenance["command"] == "python tools/gpu_tables.py --preset tiny --device cpu --text text.zip"
    assert result_table("ladder-tiny-curves", results).rows


@pytest.mark.parametrize("tool", MEASURED)
def test_the_command_of_a_benchmark_writes_the_table_that_says_that_it_is_done(tool, monkeypatch, tmp_path):
    options = argparse.Namespace(device="cpu", preset="tiny", text=None, out=tmp_path, work=tmp_path)
    [job] = [job for job in gpu_tables.jobs(options, 0.0) if job.table.startswith(f"{tool}-speed")]
    assert gpu_tables.run([*job.command, "--help"], 1, time.time() + 120) == [0], "it starts as the script starts it"
    module = importlib.import_module(pathlib.Path(job.command[0]).stem)
    monkeypatch.setattr(module, "measure", MEASURED[tool])
    module.main(job.command[1:])
    assert result_table(job.table, tmp_path / "results").rows


def test_where_no_repository_says_the_commit_it_must_be_given(part, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("git")))
    monkeypatch.setenv(gpu_tables.COMMIT, "")
    monkeypatch.delenv(gpu_tables.COMMIT)
    with pytest.raises(SystemExit):
        part("none", {})
    assert "give --commit" in capsys.readouterr().err
    part("said", {}, "--commit", "0123abc")
    assert gpu_tables.git_commit() == "0123abc"


def test_a_worker_begins_no_training_that_would_not_end_in_time(text, tmp_path, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "ladder", EXPERIMENTS["ladder"])
    options = argparse.Namespace(preset="tiny", device="cpu", text=text, work=tmp_path / "work", until=time.time() + 0.01)
    with pytest.raises(SystemExit, match=str(LATER)):
        gpu_tables.train(options)
    assert not list(options.work.rglob("result.json"))
    corpus = gpu_tables.own_corpus(text)
    assert TextInTime(corpus.documents).fingerprint() == corpus.fingerprint(), "results stay those of the same text"


def test_a_training_is_thought_to_take_what_the_longest_took(tmp_path):
    options = argparse.Namespace(preset="gpu", work=tmp_path)
    assert gpu_tables.seconds_of_a_training(options) == gpu_tables.planned(PRESETS["gpu"]) == pytest.approx(1.15 * 5 * 1800 / 76)
    for seconds in (0.0, 100.0, 300.0, 200.0):
        folder = tmp_path / "ladder-gpu" / f"final-{seconds}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"row": {"seconds": seconds}}))
        if not seconds:
            assert gpu_tables.seconds_of_a_training(options) == gpu_tables.planned(PRESETS["gpu"]), "one that diverged took 0"
    assert gpu_tables.seconds_of_a_training(options) == pytest.approx(345)


def test_the_plan_fits_in_25_minutes_and_the_script_says_it():
    cut, preset, minutes = gpu_tables.ladder(), PRESETS["gpu"], []
    waves = sum(math.ceil(runs / WORKERS) for runs in (len(list(tuning_runs(cut, preset))), cut.seeds * len(cut.rungs)))
    for seconds in [gpu_tables.planned(preset)] * waves + [gpu_tables.BENCHMARK] * 2:
        if not minutes or 60 * minutes[-1] + seconds > 60 * gpu_tables.MINUTES - gpu_tables.STOPPING:
            minutes.append(gpu_tables.START / 60)
        minutes[-1] += seconds / 60  # what would not end in a part begins in the next
    assert max(minutes) <= gpu_tables.MINUTES <= 9 and len(minutes) * gpu_tables.MINUTES <= 25
    for number, each in enumerate(minutes, 1):
        assert f"\n{number}. {each:.1f} minutes:" in gpu_tables.__doc__
    assert f"adds up; {sum(minutes):.1f} minutes in all" in " ".join(gpu_tables.__doc__.split())
    assert "1,800 steps of 32 × 256" in gpu_tables.__doc__ and PRESETS["gpu"].steps == 1800 and PRESETS["gpu"].batch == 32


def test_the_rungs_are_those_of_the_declared_contrasts():
    whole, cut = EXPERIMENTS["ladder"], gpu_tables.ladder()
    assert {rung for _, *rungs in whole.contrasts for rung in rungs} == cut.rungs.keys() and cut.contrasts == whole.contrasts
    assert all(cut.rungs[rung] is whole.rungs[rung] for rung in cut.rungs) and cut.seeds == 3


def test_the_tables_have_the_names_that_the_lessons_read(tmp_path):
    options = argparse.Namespace(device="cuda", preset="gpu", text=tmp_path / "text.zip", out=tmp_path, work=tmp_path)
    found = list(gpu_tables.jobs(options, 0.0))
    assert [job.table for job in found] == ["ladder-gpu-followed", "ladder-speed-cuda",
                                            benchmark_layer.table_name("cuda", "bfloat16")]
    assert all((gpu_tables.ROOT / job.command[0]).exists() and "cuda" in job.command for job in found)
    lessons = [file.read_text(encoding="utf-8") for file in (gpu_tables.ROOT / "notebooks").glob("*.ipynb")]
    assert sum('result_table(f\\"layer-speed-{device}\\")' in lesson for lesson in lessons) == 1


def test_a_part_stops_in_time_and_the_next_goes_on(part, tmp_path, capfd):
    run = tmp_path / "work-one" / "ladder-gpu" / "final-seed0"
    run.mkdir(parents=True)
    for name in ("result.json", "lock", "model.safetensors"):
        (run / name).write_text(name)
    left = part("one", {"a": WRITES, "b": SLEEPS, "c": WRITES}, "--minutes", "0.05")
    assert "to be continued: b\n" in capfd.readouterr().out
    assert left == ["results/a.csv", "ladder-gpu/final-seed0/result.json"]
    left = part("two", {"a": ends_with(3), "b": WRITES, "c": WRITES}, "--state", str(tmp_path / "one" / ARCHIVE))
    assert left == ["results/a.csv", "results/b.csv", "results/c.csv", "ladder-gpu/final-seed0/result.json"]


def test_the_same_folder_goes_on_by_itself(part, tmp_path):
    part("one", {"a": WRITES})
    for file in (tmp_path / "work-one" / "results").iterdir():
        file.unlink()
    assert part("one", {"a": ends_with(3)}) == ["results/a.csv"]


def test_what_fails_is_told_and_the_others_are_made(part, tmp_path):
    with pytest.raises(SystemExit, match="ended with 3; mend it"):
        part("one", {"a": ends_with(3), "b": WRITES})
    assert names_in(tmp_path / "one" / ARCHIVE) == ["results/b.csv"]


def test_a_worker_without_time_has_not_failed(part, capfd):
    assert part("one", {"a": ends_with(LATER), "b": WRITES}) == []
    assert "to be continued: a\n" in capfd.readouterr().out


def test_a_part_too_short_for_anything_is_refused(part):
    with pytest.raises(SystemExit, match="a takes 2.0 minutes or more.* a part has 1: give it more with --minutes"):
        part("one", {"a": WRITES}, "--minutes", "1", seconds=120)


@pytest.mark.parametrize("files, size, says", [
    (9, 10, "has 9 files, and 8 come back"), (1, 17_000_000, "has 17.0 MB, and no more")])
def test_more_than_comes_back_is_refused(files, size, says, tmp_path):
    (tmp_path / "deep").mkdir()
    for i in range(files):
        (tmp_path / "deep" / f"{i}").write_bytes(bytes(size))
    with pytest.raises(SystemExit, match=says):
        gpu_tables.check_files(tmp_path)


def test_a_full_folder_is_refused_before_anything_is_made(part, tmp_path):
    (tmp_path / "one").mkdir()
    for i in range(9):
        (tmp_path / "one" / f"{i}").touch()
    with pytest.raises(SystemExit, match="take a folder that is empty"):
        part("one", {"a": WRITES})
    assert not (tmp_path / "one" / ARCHIVE).exists()


def test_an_unreadable_state_and_a_missing_text_are_said(part, tmp_path, capsys):
    (tmp_path / "state").write_text("no archive")
    for state in (tmp_path / "state", tmp_path / "none"):
        with pytest.raises(SystemExit, match="can't be read"):
            part("one", {}, "--state", str(state))
    with pytest.raises(SystemExit):
        part("one", {}, "--text", str(tmp_path / "none.zip"))
    assert "fetched_text --save" in capsys.readouterr().err
