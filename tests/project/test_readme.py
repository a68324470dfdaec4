"""The README: short, its links lead somewhere, its picture is the lesson's, its code runs. CONTRIBUTING: links and speed."""

import re
from pathlib import Path

import benchmark_layer
import benchmark_widgets
import readme_picture

from moe_lesson import interval, paired_difference, result_table
from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.measure.evidence import judged, verdict

REPO = Path(__file__).parents[2]
README = (REPO / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_it_is_short_and_names_the_two_commands():
    assert len(README.splitlines()) < 111 and "make lab" in README and "make test" in README


def test_every_link_leads_to_a_file():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README + CONTRIBUTING):
        assert (REPO / target).is_file(), target


def test_every_lesson_is_in_the_table():
    for path in (REPO / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in README


def test_the_headline_is_what_the_table_says():
    table, text = result_table("ladder-cpu"), " ".join(README.split())
    test = {row["rung"]: table.column("test", stage="final", rung=row["rung"]) for row in table.rows}
    for rung in ("dense", "switch", "gshard", "fine", "deepseekmoe", "gshard ×1.5", "dense of total size"):
        total, active = (table.column(figure, stage="final", rung=rung)[0] for figure in ("total", "active"))
        assert f"| {total:,.0f} | {active:,.0f} | {interval(test[rung])} |" in text
    for worse, better in (("gshard", "fine"), ("dense of total size", "deepseekmoe"), ("gshard", "deepseekmoe")):
        assert str(paired_difference(test[worse], test[better])) in text
    judged = [verdict(test[worse], test[better]) for worse, better in (
        ("switch", "gshard"), ("dense", "gshard"), ("dense", "switch"), ("fine", "deepseekmoe"), ("gshard", "deepseekmoe"))]
    assert judged == ["holds", "holds", "open", "open", "open"], "what the README says in words"


def test_the_numbers_of_lesson_00_are_what_its_table_says():
    table = result_table("dense-or-moe-cpu")
    dense, sparse = (table.column("test", stage="final", rung=rung) for rung in ("dense", "deepseekmoe"))
    for number in (interval(dense), interval(sparse), paired_difference(dense, sparse)):
        assert str(number) in " ".join(README.split())


def test_the_numbers_of_the_world_of_facts_are_what_its_table_says():
    table, text = result_table("facts-cpu"), " ".join(README.split())
    for rung, figure in (("dense, fewer facts", "recall"), ("gshard, fewer facts", "recall"), ("gshard", "recall"),
                         ("cut in 4", "recall"), ("2 shared", "recall"), ("2 shared", "common_of_shared_alone"),
                         ("2 shared", "recall_of_shared_alone")):
        assert str(interval(table.column(figure, stage="final", rung=rung))) in text, (rung, figure)
    contrasts = judged(table, EXPERIMENTS["facts"].contrasts)
    assert [row["verdict"] for row in contrasts] == ["open", *6 * ["shown"]], "what the README says in words"
    assert all(str(row["difference"]) in text for row in contrasts[:4] + contrasts[6:])


def test_the_speed_is_what_the_table_says():
    table, steps = result_table("layer-speed-cpu"), result_table("layer-speed-cpu-steps")
    assert benchmark_layer.with_section(CONTRIBUTING, benchmark_layer.section(table, steps)) == CONTRIBUTING
    (ours,) = table.column("ratio", implementation="grouped", tokens=4096, experts=64, **{"pass": benchmark_layer.FORWARD})
    assert f"takes {ours:.2f}× the time of a dense FFN" in " ".join(README.split())


def test_the_speed_of_the_widgets_is_what_the_table_says():
    section = benchmark_widgets.section(result_table("widget-speed-cpu"))
    assert benchmark_layer.with_section(CONTRIBUTING, section, benchmark_widgets.HEADING) == CONTRIBUTING


def test_the_picture_is_figure_1_of_lesson_00():
    assert readme_picture.PICTURE.read_bytes() == readme_picture.figure_1()


def test_the_example_runs(monkeypatch, tmp_path):
    (tmp_path / "my_texts").mkdir()
    (tmp_path / "my_texts" / "a.txt").write_text("the cat sat on the mat and looked at the moon. " * 200)
    monkeypatch.chdir(tmp_path)
    source = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert "steps=1000" in source
    exec(source.replace("steps=1000", "steps=2"), {})
    assert (tmp_path / "mine.safetensors").is_file()
