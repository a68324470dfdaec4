"""The declared claims on unequal experts: gains at the same cost, and the verdicts that follow."""

import pytest
from scipy import stats

from moe_lesson.measure import uneven_claims as claims
from moe_lesson.measure.evidence import Table, holm


def table_of(errors):
    """rung -> (units, error of seed 0, its growth from seed to seed)."""
    return Table([{"stage": "final", "rung": rung, "seed": seed, "units": units, "test": error * growth ** seed}
                  for rung, (units, error, growth) in errors.items() for seed in range(5)], {})


def test_a_gain_is_read_at_the_same_cost():
    table = table_of({"a": (10, 0.4, 1.1), "b": (40, 0.1, 1.1), "mixed": (20, 0.1, 1.1)})  # the curve says 0.2 at 20
    assert claims.gain(table, "mixed", "a", ["a", "b"]) == pytest.approx([0.6931] * 5, abs=1e-3)
    assert claims.gain(table, "b", "a", ["a", "b"]) == pytest.approx([0] * 5, abs=1e-9)


def sizes_table(learned=0.2, oracle=0.02, fine=0.1, priced=0.2, growth=1.03):
    """A table of the experiment "uneven" in which unequal sizes gain nothing but what is said, in the world of unequal skills."""
    found = {rung: (2 * size, 0.2, 1.01) for rung, size in claims.CURVE.items()}
    found |= {"equal, oracle": (32, 0.02, 1.02), "fine": (32, fine, 1.01)}
    for ratio in claims.RATIOS:
        found |= {ratio: (32, learned, 1.03), ratio + ", priced": (32, priced, 1.03), ratio + ", oracle": (32, oracle, growth)}
    return table_of(found | {rung + claims.EQUAL_SKILLS: (units, 0.02 if "oracle" in rung else 0.2, 1.02)
                             for rung, (units, _, _) in found.items()})


@pytest.mark.parametrize("found, verdict", [
    ({"learned": 0.05, "oracle": 0.01}, "confirmed"), ({"priced": 0.05, "oracle": 0.03}, "confirmed"),
    ({"learned": 0.15, "oracle": 0.01}, "true, but not reached"),
    ({"oracle": 0.01}, "true, but not reached"), ({"oracle": 0.03}, "falsified in this world"),
    ({"oracle": 0.0145, "growth": 1.2}, "open"),
])
def test_the_verdict_on_sizes_is_the_one_that_was_declared(found, verdict):
    assert claims.size_verdict(sizes_table(**found)) == verdict


def test_an_oracle_of_unequal_sizes_is_compared_with_the_oracle_of_equal_ones():
    table = sizes_table(oracle=0.01)
    for row in table.rows:
        row["test"] /= 2 if row["rung"] == "equal, oracle" else 1
    assert claims.size_verdict(table) == "falsified in this world"


def test_gains_are_tested_against_0_and_judged_together():
    gains = {"a": [0.1, 0.2, 0.4], "b": [0.3, -0.2, 0.1, 0.2]}
    wanted = holm([stats.ttest_1samp(values, 0).pvalue for values in gains.values()])
    assert [p for _, p in claims.tested(gains).values()] == pytest.approx(wanted)


@pytest.mark.parametrize("found, verdict", [
    ({"threshold": 0.1}, "confirmed"), ({"oracle number": 0.1}, "true, but not reached"), ({}, "falsified in this world"),
])
def test_the_verdict_on_numbers_is_the_one_that_was_declared(found, verdict):
    rungs = {"top-1": 16, "top-k": 32, "top-3": 48, "oracle choice": 32} | dict.fromkeys(claims.VARYING, 32)
    growth = dict.fromkeys(claims.VARYING, 1.01)
    table = table_of({rung: (units, found.get(rung, 0.2), growth.get(rung, 1.02)) for rung, units in rungs.items()})
    assert claims.number_verdict(table) == verdict
