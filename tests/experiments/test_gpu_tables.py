"""The tables that want a GPU, at a tiny size on the CPU: parts go on where the last one stopped, and nothing is made twice."""

import tarfile
import time
from pathlib import Path

import gpu_tables
import pytest

WRITES = ["-c", "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('made')"]
SLEEPS = ["-c", "import time; time.sleep(60)"]


@pytest.fixture
def part(monkeypatch, tmp_path):
    """part(name, jobs, …) -> the files of its folder; jobs: name -> command."""
    monkeypatch.setattr(gpu_tables, "STOPPING", 0.2)

    def go(name: str, jobs: dict[str, list[str]], *options: str) -> list[str]:
        out = tmp_path / name
        monkeypatch.setattr(gpu_tables, "jobs", lambda device, preset, text, folder, work: (
            (str(folder / "results" / job), [*command, str(folder / "results" / job)], 2) for job, command in jobs.items()))
        gpu_tables.main(["--out", str(out), "--work", str(tmp_path / f"work-{name}"), *options])
        return sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())

    return go


def test_a_part_stops_in_time_and_the_next_goes_on_with_its_state(part, tmp_path, capfd):
    run = tmp_path / "work-one" / "ladder" / "final-seed0"
    run.mkdir(parents=True)
    for name in ("result.json", "census.json", "census.lock", "model.safetensors"):
        (run / name).write_text(name)
    cut_short = tmp_path / "work-one" / "ladder" / "final-seed1"
    cut_short.mkdir()
    for name in ("result.json", "census.lock"):
        (cut_short / name).write_text(name)
    began = time.monotonic()
    assert part("one", {"a.csv": WRITES, "b.csv": SLEEPS, "c.csv": WRITES}, "--minutes", "0.05") == ["results/a.csv", "state.tar"]
    assert time.monotonic() - began < 30 and "to be continued: b.csv" in capfd.readouterr().out
    with tarfile.open(tmp_path / "one" / "state.tar") as archive:
        assert archive.getnames() == ["ladder/final-seed0/census.json", "ladder/final-seed0/result.json"]
    found = part("two", {"b.csv": WRITES, "c.csv": WRITES}, "--state", str(tmp_path / "one" / "state.tar"))
    assert found == ["results/b.csv", "results/c.csv", "state.tar"]
    assert (tmp_path / "work-two" / "ladder" / "final-seed0" / "census.json").read_text() == "census.json"


def test_what_is_done_is_not_done_again_and_a_fault_is_told(part, tmp_path):
    part("one", {"a.csv": WRITES})
    assert part("one", {"a.csv": ["-c", "raise SystemExit(3)"]}) == ["results/a.csv", "state.tar"]
    with pytest.raises(SystemExit, match="ended with 3; mend it"):
        part("two", {"a.csv": ["-c", "raise SystemExit(3)"]})


def test_the_jobs_are_commands_that_their_programs_take(tmp_path):
    names = []
    for done, command, _ in gpu_tables.jobs("cuda", "gpu", tmp_path / "text.zip", tmp_path, tmp_path / "work"):
        names.append(Path(done).name)
        assert command[0] == "-m" or (gpu_tables.ROOT / command[0]).exists()
        assert "--out" in command and "cuda" in command
    assert names == ["layer-speed-cuda.csv", "ladder-speed-cuda.csv", "ladder-gpu.csv", "balance-gpu.csv"]
