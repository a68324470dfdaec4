"""The README: short, its links lead somewhere, its picture is the lesson's, its code runs. CONTRIBUTING: links and speed."""

import re
from pathlib import Path

import benchmark_layer
import benchmark_widgets
import readme_picture

from moe_lesson import interval, paired_difference, result_table
from moe_lesson.measure.evidence import power_law, verdict

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


def test_the_numbers_of_lessons_00_and_06_are_what_their_tables_say():
    table, pieces = result_table("dense-or-moe-cpu"), result_table("pieces-cpu")
    dense, sparse = (table.column("test", stage="final", rung=rung) for rung in ("dense", "deepseekmoe"))
    shared, alone = (pieces.column("probe_shared", stage="final", rung=f"2 shared{rest}") for rest in ("", ", nothing shared"))
    for number in (interval(dense), interval(sparse), paired_difference(dense, sparse), paired_difference(shared, alone)):
        assert str(number) in " ".join(README.split())


def test_the_numbers_of_lessons_01_and_02_are_what_their_tables_say():
    table = result_table("topk-cpu")
    dense, sparse = (table.column("test", stage="final", rung=rung) for rung in ("dense", "2 of 16"))
    scaling = result_table("scaling-cpu")
    sizes = sorted(set(scaling.column("total", stage="final")))
    tests = [scaling.column("test", stage="final", total=size) for size in sizes]
    laws = [power_law(sizes[:-1], losses) for losses in zip(*tests[:-1])]
    miss = paired_difference([factor * sizes[-1] ** -exponent for factor, exponent in laws], tests[-1])
    for number in (interval(dense), interval(sparse), paired_difference(dense, sparse), miss):
        assert str(number) in " ".join(README.split())


def test_the_numbers_of_lessons_03_and_04_are_what_their_tables_say():
    def column(table, figure, rung):
        return result_table(f"{table}-cpu").column(figure, stage="final", rung=rung)

    none, batch = ([column("balance", figure, rung) for figure in ("max_violation", "test")]
                   for rung in ("none", "loss per batch"))
    alone, shared = (column("skills", "probe", rung) for rung in ("2 of 16, nothing shared", "2 of 16"))
    for number in (interval(none[0]), interval(batch[0]), paired_difference(none[1], batch[1]), paired_difference(shared, alone),
                   *(interval(column("skills", "hybridity", rung)) for rung in ("1 of 8", "2 of 16"))):
        assert str(number) in " ".join(README.split())


def test_the_speed_is_what_the_table_says():
    table, steps = result_table("layer-speed-cpu"), result_table("layer-speed-cpu-steps")
    assert benchmark_layer.with_section(CONTRIBUTING, benchmark_layer.section(table, steps)) == CONTRIBUTING
    (ours,) = table.column("ratio", implementation="grouped", tokens=4096, experts=64, **{"pass": benchmark_layer.FORWARD})
    assert f"takes {ours:.2f}× the time of a dense FFN" in " ".join(README.split())


def test_the_speed_of_the_widgets_is_what_the_table_says():
    section = benchmark_widgets.section(result_table("widget-speed-cpu"))
    assert benchmark_layer.with_section(CONTRIBUTING, section, benchmark_widgets.HEADING) == CONTRIBUTING


def test_the_numbers_of_lesson_08_are_what_the_table_says():
    table = result_table("ladder-cpu-census")
    domain = {router: [sum(pair) / 2 for pair in zip(*(table.column("domain", rung="deepseekmoe", router=router, layer=layer)
                                                       for layer in (0, 1)))] for router in ("trained", "random router")}
    less = paired_difference(domain["random router"], domain["trained"])
    for number in (*map(interval, domain.values()), less):
        assert str(number) in " ".join(README.split())


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
