"""The data card's section on the ladder is made from its tables."""

import re
import subprocess

import ladder_card
import pytest
from tables import with_section

from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.measure.evidence import Table

NUMBER = r"\d*[.,]\d+|\d+%"
TRIED = [(commit, row) for commit, row in re.findall(
    r"^\| ([0-9a-f]{7}) \|(.*)$", ladder_card.CARD.read_text(encoding="utf-8"), re.MULTILINE) if re.search(NUMBER, row)]


@pytest.mark.parametrize("commit,row", TRIED, ids=[commit for commit, _ in TRIED])
def test_a_number_of_what_was_tried_stands_in_its_commit_s_message(commit, row):
    shown = subprocess.run(["git", "show", "-s", "--format=%B", commit], cwd=ladder_card.CARD.parent, capture_output=True,
                           text=True)
    if shown.returncode:
        pytest.skip("no history here: a shallow clone, or none")
    missing = set(re.findall(NUMBER, row)) - set(re.findall(NUMBER, shown.stdout))
    assert not missing, f"{commit} says nothing of {missing}"


def test_the_section_has_every_rung_every_contrast_and_every_count_model():
    rows = [{"stage": "final", "rung": rung, "seed": seed, "total": 1000, "active": 500,
             "test": 1 + place / 10 + seed * (1 + place) / 1000}
            for place, rung in enumerate(ladder_card.NAMES) for seed in range(3)]
    rows += [{"stage": "tune", "rung": "dense", "lr": lr, "scale": "", "seed": seed, "validation": loss}
             for lr, loss in ((0.004, 1.5), (0.008, 1.25), (0.016, 1.0)) for seed in range(1000, 1003 if lr < 0.016 else 1001)]
    table = Table(rows, {"preset": {"steps": 3000, "batch": 8, "context": 256}})
    texts = Table([{"rung": "dense", "seed": seed, "outside": 1.5 + seed, "over_documents": 0.0625} for seed in range(2)], {})
    baselines = Table([{"model": "5-gram of bytes", "test": 1.5, "outside": 1.75},
                       {"model": "xz", "test": 1.25, "outside": ""}], {})
    repeats = Table([{"domain": "maths", "40 bytes": 0.125, "80 bytes": 0.0625}], {})
    made = ladder_card.section(table, table, texts, baselines, repeats)
    assert "3,000 steps of 2,048 tokens" in made and "by up to 0.062" in made and "| maths | 12.5% | 6.2% |" in made
    assert all(f"| {name} | 1,000 | 500 |" in made for name in (*ladder_card.NAMES.values(), ladder_card.BOUND))
    assert "(n = 3) | 2.000 | 0.2500 (n = 3) |" in made, "a setting with one seed is no rival"
    assert made.count("(n = 3) |  |  |") == len(ladder_card.NAMES), "what was not read again stays empty"
    for _, one, other in EXPERIMENTS["ladder"].contrasts:
        assert f"| {one} − {other} |" in made
    assert "correlations from 1.00 to 1.00, 1.00 on average" in made
    assert made.index("xz | 1.250 |  |") < made.index("5-gram of bytes | 1.500 | 1.750")
    page = f"# Card\n\n{ladder_card.HEADING}\n\nold\n\n## More\n"
    assert with_section(page, made, ladder_card.HEADING) == f"# Card\n\n{ladder_card.HEADING}{made}\n## More\n"
