"""The data card's section on the ladder is made from its tables."""

import ladder_card
from benchmark_layer import with_section

from moe_lesson.experiments import EXPERIMENTS
from moe_lesson.measure.evidence import Table


def test_the_section_has_every_rung_every_contrast_and_every_count_model():
    rows = [{"stage": "final", "rung": rung, "seed": seed, "total": 1000, "active": 500, "test": 1 + place / 10 + seed / 1000}
            for place, rung in enumerate(ladder_card.NAMES) for seed in range(3)]
    table = Table(rows, {"preset": {"steps": 3000, "batch": 8, "context": 256}})
    baselines = Table([{"model": "5-gram of bytes", "test": 1.5}, {"model": "3-gram of tokens", "test": 1.25}], {})
    made = ladder_card.section(table, baselines)
    assert "3,000 steps of 2,048 tokens" in made
    assert all(f"| {name} | 1,000 | 500 |" in made for name in ladder_card.NAMES.values())
    for _, one, other in EXPERIMENTS["ladder"].contrasts:
        assert f"| {one} − {other} |" in made
    assert made.index("3-gram of tokens | 1.250") < made.index("5-gram of bytes | 1.500")
    page = f"# Card\n\n{ladder_card.HEADING}\n\nold\n\n## More\n"
    assert with_section(page, made, ladder_card.HEADING) == f"# Card\n\n{ladder_card.HEADING}{made}\n## More\n"
