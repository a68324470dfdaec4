"""The README: short, its links lead somewhere, its pictures are the lessons', its code runs; it and the data card quote the
tables. CONTRIBUTING: links and speed."""

import io
import re
from pathlib import Path

import benchmark_layer
import benchmark_widgets
import ladder_card
import nbformat
import numpy as np
import readme_picture
from PIL import Image
from tables import with_section

from moe_lesson import interval, paired_difference, result_table
from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.measure.evidence import judged, verdict, welch_difference

REPO = Path(__file__).parents[2]
README = (REPO / "README.md").read_text(encoding="utf-8")
CARD_FILE = (REPO / "data" / "README.md").read_text(encoding="utf-8")
CARD = " ".join(CARD_FILE.split())
WORDS = " ".join(README.split())
CONTRIBUTING = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_it_is_short_and_names_the_two_commands():
    assert len(README.splitlines()) < 111
    assert all(command in README for command in ("make lab", "make test", "make lab FRESH=03", "python tools/my_lessons.py"))


def test_every_link_leads_to_a_file():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README + CONTRIBUTING):
        assert (REPO / target).is_file(), target


def test_every_lesson_is_in_the_table_with_its_picture_and_its_minutes():
    for path in readme_picture.LESSONS:
        (row,) = [line for line in README.splitlines() if line.startswith("|") and f"(notebooks/{path.name})" in line]
        minutes = re.search(r"[Aa]bout (\d+) minutes", nbformat.read(path, as_version=4).cells[0].source)[1]
        assert row.endswith(f" | {minutes} |") and f'src=".github/pictures/{path.name[:2]}.png"' in row


def test_the_card_says_of_the_ladder_what_its_tables_say():
    made = ladder_card.section(*map(result_table, ladder_card.TABLES))
    assert with_section(CARD_FILE, made, ladder_card.HEADING) == CARD_FILE, "python tools/ladder_card.py"


def test_the_headline_is_what_the_table_says():
    table, ladder = result_table("ladder-cpu"), EXPERIMENTS["ladder"]
    contrasts = {row["contrast"]: row for row in judged(table, ladder.contrasts, ladder.margin)}
    assert f"by {contrasts['dense − gshard']['difference']} nats per byte" in WORDS
    lead = contrasts["gshard − deepseekmoe"]["difference"]
    loss = interval(table.column("test", stage="final", rung="gshard")).mean
    assert f"does not show at a laptop's size**: {lead} nats of {loss:.2f}" in WORDS
    longer = EXPERIMENTS["longer"]
    [twice] = judged(result_table("longer-cpu"), longer.contrasts, longer.margin)
    assert f"nats of {loss:.2f}; trained twice as long {twice['difference']} (" in WORDS and twice["verdict"] == "open"
    assert contrasts["dense − gshard"]["verdict"] == "shown", "what the README says in words"
    dense, gshard = (interval(table.column("test", stage="final", rung=rung)) for rung in ("dense", "gshard"))
    quiet = interval(result_table("quiet-cpu").column("test", stage="final", rung="dense"))
    assert "whose output's scale is tuned, as the mixture's is, makes up about a third of it" in WORDS and quiet.n == 10
    bound, whole = result_table("bound-cpu"), "dense of total size"
    ahead, _ = welch_difference(*(each.column("test", stage="final", rung=rung)
                                  for each, rung in ((table, "deepseekmoe"), (bound, whole))))
    assert f"at three times its cost, is ahead of it by {ahead} (" in WORDS and ahead.low > 0
    cost, usual = bound.column("flops", stage="final", rung=whole)[0], table.column("flops", stage="final", rung="deepseekmoe")[0]
    assert 2.8 < cost / usual < 3.2
    small, large = (table.column("total", stage="final", rung=rung)[0] for rung in ("dense", "gshard"))
    assert f"which has {small / large:.0%} of its parameters" in WORDS
    counted = min((row for row in result_table("ladder-cpu-baselines").rows if row["model"].endswith("tokens")),
                  key=lambda row: row["validation"])["test"]
    best = min(bound.column("test", stage="final") + [
        loss for rung in ladder.rungs for loss in table.column("test", stage="final", rung=rung)])
    assert "a table of counted tokens beats them all" in WORDS and counted < best
    assert 3 / 10 < (dense.mean - quiet.mean) / (dense.mean - gshard.mean) < 2 / 5
    assert lead.high < 0.01, "a third of the paper's 3%"


def test_the_crowded_world_is_what_its_table_says():
    table = result_table("crowded-cpu")
    [row] = [row for row in judged(table, EXPERIMENTS["crowded"].contrasts)
             if (row["figure"], row["contrast"]) == ("test", "cut in 1 − cut in 4")]
    error = interval(table.column("test", stage="final", rung="cut in 1")).mean
    assert f"an error of {error:.2f} falls by {row['difference']}" in WORDS and row["verdict"] == "shown"


def test_the_numbers_of_the_world_of_facts_are_what_its_table_says():
    table = result_table("facts-cpu")
    for rung, figure in (("dense, fewer facts", "recall"), ("gshard, fewer facts", "recall"), ("gshard", "recall"),
                         ("cut in 4", "recall"), ("2 shared", "recall"), ("2 shared", "common_of_shared_alone"),
                         ("2 shared", "recall_of_shared_alone")):
        assert str(interval(table.column(figure, stage="final", rung=rung))) in CARD, (rung, figure)
    contrasts = judged(table, EXPERIMENTS["facts"].contrasts)
    assert [row["verdict"] for row in contrasts] == ["open", *6 * ["shown"]], "what the card says in words"
    assert all(str(row["difference"]) in CARD for row in contrasts[:4] + contrasts[6:])
    minutes = table.provenance["seconds"] / 60 / 2
    assert f"all {len(table.rows)} trainings came out the same to the last digit, in {minutes:.0f} minutes on two cores" in CARD


def test_the_memories_and_the_calls_of_the_readme_are_what_the_tables_say():
    facts, census = result_table("facts-cpu"), result_table("ladder-cpu-census")

    def of_facts(rung: str, figure: str = "recall") -> str:
        return f"{interval(facts.column(figure, stage='final', rung=rung)).mean:.0%}"

    def told(router: str) -> float:
        return interval(census.column("domain", rung="deepseekmoe", router=router, layer=1)).mean

    dense, mixture = of_facts("dense, fewer facts"), of_facts("gshard, fewer facts")
    large, whole = "dense of total size, fewer facts", "gshard, fewer facts"
    dearer = facts.column("flops", stage="final", rung=large)[0] / facts.column("flops", stage="final", rung=whole)[0]
    assert f"a dense layer remembers {dense}, a mixture of the same cost {mixture}; so does a dense layer of its size" in WORDS
    assert f"at {dearer:.1f} times the cost" in WORDS and of_facts(large) == mixture
    common, own = of_facts("2 shared", "common_of_shared_alone"), of_facts("2 shared", "recall_of_shared_alone")
    assert f"alone they answer {common} of the common questions and {own} of the facts" in WORDS
    assert f"one call of a trained expert tells {told('trained'):.1%} of" in WORDS
    assert f"with a random router {told('random router'):.1%}; in its first layer the two can't be told apart" in WORDS
    first = paired_difference(*(census.column("domain", rung="deepseekmoe", router=router, layer=0)
                                for router in ("trained", "random router")))
    assert verdict(first) == "open"


def test_the_speed_is_what_the_table_says():
    table, steps = result_table("layer-speed-cpu"), result_table("layer-speed-cpu-steps")
    assert with_section(CONTRIBUTING, benchmark_layer.section(table, steps), benchmark_layer.HEADING) == CONTRIBUTING


def test_the_speed_of_the_widgets_is_what_the_table_says():
    section = benchmark_widgets.section(result_table("widget-speed-cpu"))
    assert with_section(CONTRIBUTING, section, benchmark_widgets.HEADING) == CONTRIBUTING


def test_the_still_is_the_routing_map_of_lesson_00_and_the_moving_picture_is_small_and_moves():
    assert readme_picture.STILL.read_bytes() == readme_picture.stored_map()
    with Image.open(readme_picture.TYPING) as moving:
        frames = [moving.seek(place) or moving.convert("RGB").tobytes() for place in range(moving.n_frames)]
    assert len(set(frames)) == len(readme_picture.SENTENCE) + 1, "an empty line, and one picture for each character"
    assert readme_picture.TYPING.stat().st_size < 2_000_000 and "prefers-reduced-motion" in README


def test_the_small_pictures_are_of_the_lessons_as_they_are_stored():
    for path in readme_picture.LESSONS:
        shown = np.asarray(Image.open(readme_picture.PICTURES / f"{path.name[:2]}.png").convert("RGB"), float)
        made = np.asarray(readme_picture.thumbnail(readme_picture.stored_pictures(path)), float)
        assert abs(shown - made).mean() < 5, f"{path.name}: python tools/readme_picture.py"


def test_a_thumbnail_is_the_most_colourful_part():
    picture = Image.new("RGB", (400, 900), "white")
    picture.paste("red", (0, 500, 400, 740))
    out = io.BytesIO()
    picture.save(out, "PNG")
    small = readme_picture.thumbnail([out.getvalue()])
    assert small.size == readme_picture.THUMBNAIL and small.getpixel((100, 60)) == (255, 0, 0)
    assert readme_picture.colourfulness(small) > 245


def test_the_example_runs(monkeypatch, tmp_path):
    (tmp_path / "my_texts").mkdir()
    (tmp_path / "my_texts" / "a.txt").write_text("the cat sat on the mat and looked at the moon. " * 200)
    monkeypatch.chdir(tmp_path)
    source = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert "steps=1000" in source
    exec(source.replace("steps=1000", "steps=2"), {})
    assert (tmp_path / "mine.safetensors").is_file()
