"""Intervals by hand, and tables that come back as they were written."""

import math
import pathlib

import pytest
from scipy import stats

from moe_lesson.measure.evidence import (
    Table,
    holm,
    interval,
    judged,
    paired_difference,
    power_law,
    result_table,
    welch_difference,
    write_table,
)


def test_an_interval_by_hand():
    i = interval([1.0, 2.0, 3.0])  # mean 2, s = 1, t(2) = 4.303: 2 ± 4.303/√3
    assert (i.mean, i.n) == (2.0, 3)
    assert i.low == pytest.approx(2 - 2.4843, abs=1e-3) and i.high == pytest.approx(2 + 2.4843, abs=1e-3)


def test_equal_values_have_no_width():
    assert interval([2.0] * 5).low == interval([2.0] * 5).high == 2.0


def test_pairing_removes_what_the_pairs_share():
    a, b = [1.0, 5.0, 9.0], [0.9, 4.9, 8.88]
    difference = paired_difference(a, b)
    assert difference.low > 0 and interval(a).low < interval(b).high


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 values, one per seed; got 1"):
        interval([1.0])
    with pytest.raises(ValueError, match="3 and 2 values can't be paired"):
        paired_difference([1, 2, 3], [1, 2])


@pytest.mark.parametrize("values", [{0: 1.2, 1: 1.3}, "12", b"12", 5])
def test_what_is_no_list_of_numbers_is_no_sample(values):
    for take in (interval, lambda values: paired_difference(values, values), lambda values: welch_difference([1, 2], values)):
        with pytest.raises(ValueError, match="is no sample; expected a list of numbers, one per seed"):
            take(values)


def test_a_table_comes_back_with_its_provenance(tmp_path):
    rows = [{"rung": "dense", "seed": 0, "test": 1.25}, {"rung": "moe", "seed": 0, "test": 1.0, "extra": None}]
    write_table(tmp_path, "t", rows, {"command": "x"})
    table = result_table("t", tmp_path)
    assert table.provenance == {"command": "x"} and table.column("test", rung="moe") == [1.0]
    assert table.rows[0]["extra"] == ""


def test_a_table_keeps_six_digits_and_every_whole_number(tmp_path):
    write_table(tmp_path, "t", [{"loss": 1.23456789, "tiny": 1.23456789e-7, "count": 123456789}], {})
    assert (tmp_path / "t.csv").read_text() == "loss,tiny,count\n1.23457,1.23457e-07,123456789\n"


def test_a_table_that_can_t_be_written_leaves_the_old_one(tmp_path):
    write_table(tmp_path, "t", [{"a": 1}], {"command": "x"})
    with pytest.raises(TypeError):
        write_table(tmp_path, "t", [{"a": 2}], {"command": object()})
    assert result_table("t", tmp_path).rows == [{"a": 1.0}] and len(list(tmp_path.iterdir())) == 2


def test_of_a_table_whose_second_file_has_no_room_the_first_is_not_written_either(tmp_path, monkeypatch):
    def full(path, content):
        if count and not path.name.startswith("t.json"):
            raise OSError(28, "No space left on device")
        return write(path, content)

    write, count = pathlib.Path.write_bytes, []
    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    write_table(tmp_path, "t", [{"a": 1}], {"command": "x"})
    count.append(1)
    with pytest.raises(OSError, match=r"t.csv can't be written \(.*No space left"):
        write_table(tmp_path, "t", [{"a": 2}], {"command": "y"})
    table = result_table("t", tmp_path)
    assert (table.rows, table.provenance) == ([{"a": 1.0}], {"command": "x"}) and len(list(tmp_path.iterdir())) == 2


def test_unknown_tables_columns_and_rows_are_told(tmp_path):
    write_table(tmp_path, "t", [{"a": 1}], {})
    with pytest.raises(ValueError, match="no result table 'u'.*there are t"):
        result_table("u", tmp_path)
    with pytest.raises(ValueError, match="no column 'b'; there are a"):
        result_table("t", tmp_path).column("b")
    with pytest.raises(ValueError, match="no row with"):
        result_table("t", tmp_path).column("a", a=2)
    table = Table([{"stage": "tune", "test": ""}, {"stage": "final", "test": 1.5}], {})
    with pytest.raises(ValueError, match="'test' is empty in 1 of 2 rows; narrow them down, .*stage=\"final\""):
        table.column("test")
    assert table.column("test", stage="final") == [1.5] and table.column("stage") == ["tune", "final"]


def test_a_power_law_is_found_again_and_a_disturbed_one_nearly():
    sizes = [1e3, 1e4, 3e4, 1e6]
    assert power_law(sizes, [7 * n ** -0.3 for n in sizes]) == pytest.approx((7, 0.3))
    disturbed = [7 * n ** -0.3 * (1 + 0.01 * (-1) ** i) for i, n in enumerate(sizes)]
    assert power_law(sizes, disturbed)[1] == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("sizes, losses", [([1, 2], [1]), ([1], [1]), ([2, 2], [1, 1]), ([0, 1], [1, 1]), ([1, 2], [1, -1])])
def test_a_power_law_needs_positive_pairs(sizes, losses):
    with pytest.raises(ValueError, match="can't be paired|needs positive numbers"):
        power_law(sizes, losses)


def test_welch_and_holm_are_the_textbook_s():
    difference, p = welch_difference(a := [2, 4, 6, 9], b := [1, 2, 4])
    test = stats.ttest_ind(a, b, equal_var=False)
    assert (difference.low, difference.high, difference.n, p) == pytest.approx((*test.confidence_interval(), 3, test.pvalue))
    assert holm([0.04, 0.01]) == [0.04, 0.02] and holm([0.02, 0.02, 0.9]) == pytest.approx([0.06, 0.06, 0.9])
    assert holm([]) == [] and holm([0.6, 0.6]) == [1, 1]
    for alike, says in (([1.0], "1 and 2 values; expected at least 2 of each"), ([1.0, 1.0], "neither the 2 nor the 2")):
        with pytest.raises(ValueError, match=says):
            welch_difference(alike, [2.0, 2.0])
    for one, other in (([1.0, math.nan], [2.0, 3.0]), ([2.0, 3.0], [1.0, math.inf])):
        with pytest.raises(ValueError, match="are not all numbers: a seed that diverged"):
            welch_difference(one, other)


def test_declared_contrasts_are_judged_together():
    rows = [{"stage": stage, "rung": rung, "recall": value} for rung, start in (("a", 0), ("b", 5), ("c", 5.5))
            for stage, values in (("tune", [99]), ("final", [0.0, 1.0, 2.0])) for value in [start + value for value in values]]
    found = judged(Table(rows, {}), [("recall", "b", "a"), ("recall", "c", "b")])
    assert [(row["contrast"], row["verdict"]) for row in found] == [("b − a", "shown"), ("c − b", "open")]
    assert [row["verdict"] for row in judged(Table(rows, {}), [("recall", "c", "b")], margin=4)] == ["alike"]
    assert [row["verdict"] for row in judged(Table(rows, {}), [("recall", "c", "b")], margin=1)] == ["open"]
    assert found[0]["difference"].mean == 5 and found[0]["p"] == pytest.approx(2 * welch_difference([5, 6, 7], [0, 1, 2])[1])
