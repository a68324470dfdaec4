"""The lesson helpers: predictions are kept, claims stop a notebook, solutions are the package's code."""

import json
import pathlib
import re

import numpy as np
import pytest
import torch

from moe_lesson.measure.evidence import interval
from moe_lesson.moe.routing import expert_load
from moe_lesson.teach.guesses import within_factor
from moe_lesson.teach.lesson import ClaimFailed, Lesson, solution, table, written


@pytest.fixture
def lesson(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MOE_LESSON_HOME", str(tmp_path / "home"))
    made = Lesson("00")
    capsys.readouterr()
    return made


def test_setup_is_one_line_with_versions_device_and_seed(capsys):
    Lesson("00", seed=3)
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "torch 2" in line and "seed 3" in line and ("CPU" in line or "NVIDIA" in line)


def test_a_kept_guess_stands_beside_the_result_also_in_a_later_session(lesson, capsys):
    lesson.keep("idle", 12.0)
    Lesson("00").reveal("idle", 7)
    assert "You said 12. It is 7." in capsys.readouterr().out


def test_without_a_guess_the_result_is_still_told(lesson, capsys):
    lesson.reveal("idle", 7)
    assert capsys.readouterr().out == "It is 7.\n"


def test_guess_and_result_are_stored_together_for_the_last_lesson(lesson, tmp_path):
    lesson.keep("idle", 12.0)
    lesson.reveal("idle", 7)
    assert json.loads((tmp_path / "home" / "predictions.json").read_text()) == {"00/idle": {"guess": [12.0], "actual": [7]}}


def test_near_is_within_the_factor_above_and_below():
    assert [within_factor(2, guess, 10) for guess in (4, 5, 20, 21)] == [False, True, True, False]


def test_the_last_lesson_shows_how_all_guesses_did(lesson):
    for name, key, guess, actual in (
            ("00", "near", [10.0], [19]), ("02", "high", [9.0, 0.0], [3.0, 0.0]), ("03", "low", [-5.0], [4]),
            ("04", "right", ["all"], ["all"]), ("05", "wrong", ["m = 2"], ["<b>m = 4</b>"])):
        each = Lesson(name)
        each.keep(key, *guess)
        each.reveal(key, *actual)
    lesson.keep("open", 3.0)  # never revealed: it does not count
    page = Lesson("08").calibration()
    lines = repr(page).split("\n")
    assert lines[0] == "2 of 4 numbers within a factor of 2; 1 too high, 2 too low. 1 of 2 choices right."
    cells = [line.split() for line in lines]
    assert ["02/high", "9", "3"] in cells and "05/wrong  m = 2".split() + ["<b>m", "=", "4</b>"] in cells and len(lines) == 8
    assert "&lt;b&gt;m = 4" in page._repr_html_() and "<b>m = 4" not in page._repr_html_()


@pytest.mark.parametrize("guess", [[30], None, float("nan"), {"a": 1}])
def test_what_is_no_guess_is_refused_and_not_kept(lesson, guess):
    with pytest.raises(ValueError, match="can't be kept; give numbers such as 14 or 0.5"):
        lesson.keep("idle", guess)
    assert lesson.guess("idle") is None


def test_a_text_for_a_number_is_compared_with_nothing(lesson):
    lesson.keep("idle", "7")
    lesson.reveal("idle", 7)
    assert "No guess can be compared" in repr(lesson.calibration())


def test_two_open_lessons_keep_each_others_guesses(lesson):
    other = Lesson("01")
    other.keep("share", 60.0)
    lesson.keep("idle", 12.0)
    lesson.reveal("idle", 7)
    other.reveal("share", 70)
    assert set(Lesson("02").guesses) == {"00/idle", "01/share"} and Lesson("01").guess("share") == [60.0]
    assert Lesson("00").guesses["00/idle"] == {"guess": [12.0], "actual": [7]}


def test_without_guesses_the_calibration_says_how_to_get_some(lesson):
    assert "No guess can be compared" in repr(lesson.calibration()) and "Keep a guess" in lesson.calibration()._repr_html_()


@pytest.mark.parametrize("damage", ["{", "[]", '{"00/idle": 3}', '{"00/idle": {"guess": [1'])
def test_a_damaged_store_is_put_aside_and_not_lost(lesson, tmp_path, damage, capsys):
    store = tmp_path / "home" / "predictions.json"
    lesson.keep("idle", 1)
    store.write_text(damage)
    later = Lesson("00")
    assert later.guess("idle") is None and "was damaged" in capsys.readouterr().out
    later.keep("other", 2)
    (aside,) = store.parent.glob("predictions-damaged-*.json")
    assert aside.read_text() == damage and Lesson("00").guess("other") == [2]


def test_a_store_that_may_not_be_read_is_put_aside_and_not_lost(lesson, tmp_path, monkeypatch, capsys):
    for key in ("idle", "share"):
        lesson.keep(key, 1)
    store, read = tmp_path / "home" / "predictions.json", pathlib.Path.read_text
    kept = store.read_text()

    def refuse(self, *arguments, **options):  # as root may read everything
        if self == store:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "read_text", refuse)
        later = Lesson("00")
        assert "can't be read" in capsys.readouterr().out
    later.keep("other", 2)
    (aside,) = store.parent.glob("predictions-damaged-*.json")
    assert aside.read_text() == kept and Lesson("00").guess("other") == [2]


def test_a_damaged_store_that_cannot_be_put_aside_stops_no_lesson(lesson, tmp_path, monkeypatch, capsys):
    lesson.keep("idle", 1)
    (tmp_path / "home" / "predictions.json").write_text("{")

    def refuse(self, target):
        raise PermissionError("read-only file system")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    assert Lesson("00").guess("idle") is None and "it is kept as" not in capsys.readouterr().out


def test_a_write_that_breaks_off_leaves_the_old_store(lesson, tmp_path, monkeypatch):
    lesson.keep("idle", 1)

    def break_off(self, *_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", break_off)
    assert "this sitting only" in lesson.keep("idle", 2)
    monkeypatch.undo()
    monkeypatch.setenv("MOE_LESSON_HOME", str(tmp_path / "home"))
    assert Lesson("00").guess("idle") == [1]


def answered(question, *values) -> tuple[bool, str]:
    """What the form says once Python has got what was written."""
    question.set_state({"entered": {"times": question.entered["times"] + 1, "values": list(values)}})
    assert question.answer["times"] == question.entered["times"]
    return question.answer["kept"], question.answer["words"]


def test_a_home_that_cant_be_written_costs_a_sentence_not_the_guess(lesson, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOE_LESSON_HOME", str(tmp_path / "file"))
    kept, words = answered(lesson.predict("idle", "how many?"), "3")
    assert kept and "Kept: 3." in words and "this sitting only" in words and "MOE_LESSON_HOME" in words
    lesson.reveal("idle", 7)
    assert "You said 3. It is 7." in capsys.readouterr().out


def test_without_ipywidgets_the_question_says_how_to_answer(lesson, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    page = lesson.predict("idle", "how many?")
    assert "lesson.keep('idle', your guess)" in repr(page) and "lesson.keep" in page._repr_html_()


@pytest.mark.parametrize("written, read", [
    ("14", 14), (" 0.5 ", 0.5), ("0,5", 0.5), ("1,000", 1000), ("12,345,678.5", 12345678.5), ("2e9", 2 * 10 ** 9),
    ("0,125", 0.125), ("1,5", 1.5)])
def test_a_number_is_read_as_it_is_meant(lesson, written, read):
    assert answered(lesson.predict("x", "how many?"), written)[0]
    (value,) = lesson.guess("x")
    assert value == read and type(value) is type(read)


@pytest.mark.parametrize("written", ["many", "", "nan", "inf", "1e400", "-3", "−3", "1.000,5", "50%"])
def test_what_is_no_number_or_too_small_is_refused_in_words(lesson, written):
    kept, words = answered(lesson.predict("x", "how many?"), written)
    assert not kept and words.startswith("Not kept: ") and lesson.guess("x") is None
    assert answered(lesson.predict("y", "by how much?", least=-10), "−3")[0] and lesson.guess("y") == [-3]


def test_a_form_of_two_numbers_keeps_both_or_none(lesson):
    form = lesson.predict("two", "how many?", numbers=2)
    assert not answered(form, "3", "many")[0] and lesson.guess("two") is None
    assert answered(form, "3", "4,5") == (True, "Kept: 3 and 4.5. Now run the next cell.") and lesson.guess("two") == [3, 4.5]
    assert lesson.predict("two", "how many?", numbers=2).entered["values"] == ["3", "4.5"]


def test_a_form_keeps_a_choice_and_shows_it_again(lesson):
    form = lesson.predict("which", "which?", choices=("a", "b"))
    assert answered(form, "") == (False, "Not kept: please choose one")
    assert answered(form, "b")[0] and lesson.guess("which") == ["b"]
    assert lesson.predict("which", "which?", choices=("a", "b")).entered["values"] == ["b"]


def test_a_form_reads_as_its_question_without_a_kernel_and_escapes_it(lesson):
    bundle = lesson.predict("x", "is 1 < 2 & <script>?")._repr_mimebundle_()[0]
    assert bundle["text/plain"] == "Predict: is 1 < 2 & <script>?"
    assert "<script>" not in bundle["text/html"] and "&lt;script&gt;" in bundle["text/html"]


@pytest.mark.parametrize("value", [np.float32(0.25), np.int64(3), torch.tensor(0.25), True])
def test_results_of_numpy_and_torch_are_revealed_and_kept(lesson, value, capsys):
    lesson.keep("x", 1)
    lesson.reveal("x", value)
    assert "You said 1. It is " in capsys.readouterr().out and Lesson("00").guesses["00/x"]["actual"] == [value]


def test_a_true_claim_is_printed_with_its_numbers(lesson, capsys):
    lesson.claim("sparse is better", True, sparse=1.23456, dense=2)
    assert capsys.readouterr().out == "✔ sparse is better (sparse 1.235, dense 2)\n"
    assert "sparse 1.235" in repr(lesson.claims()) and "<table" in lesson.claims()._repr_html_()


def test_a_long_claim_goes_on_in_a_line_of_its_own_and_no_word_is_broken(lesson, capsys):
    lesson.claim("words " * 29 + "words", True, left_over=0.25)
    first, *rest = capsys.readouterr().out.splitlines()
    assert len(first) <= 96 and first.startswith("✔ words words")
    assert rest and all(line.startswith("  ") and len(line) <= 96 for line in rest) and rest[-1].endswith("(left over 0.250)")


def test_a_claim_shows_means_and_its_intervals_unfold_under_all_claims(lesson, capsys):
    lesson.claim("two are more than one", True, more=interval([1.0, 2.0, 3.0]), one=1)
    assert capsys.readouterr().out == "✔ two are more than one (more 2.000, one 1)\n"
    page = lesson.claims()._repr_html_()
    shown, unfolds = page.split("<details>")
    assert "[" not in re.sub("<style.*?</style>", "", shown, flags=re.S) and "more 2.000" in shown
    assert "more 2.000 [-0.484, 4.484] (n = 3)" in unfolds and "one" not in unfolds.partition("more 2.000")[2]


def test_a_false_claim_stops_the_notebook_and_says_the_numbers(lesson):
    with pytest.raises(ClaimFailed, match=r"not true in this run: sparse is better \(sparse 3\.000\)"):
        lesson.claim("sparse is better", False, sparse=3.0)


def test_a_solution_is_the_packages_own_source():
    page = solution(expert_load)
    assert repr(page).startswith("def expert_load(") and "<details>" in page._repr_html_()


def test_the_machine_report_names_what_is_missing_and_how_to_get_it(lesson, monkeypatch):
    monkeypatch.setattr("moe_lesson.teach.lesson.PACKAGES", {"no_such_package": "nothing"})
    assert "no_such_package  missing" in repr(lesson.machine()) and "pip install no_such_package" in repr(lesson.machine())


ROWS = [{"model": "a <b>", "loss": interval([1.0, 2.0, 3.0]), "parameters": 12345, "share": 0.5},
        {"model": "longer", "loss": interval([2.0, 3.0, 4.0]), "parameters": 7, "share": ""}]


def test_a_table_reads_as_columns_in_a_terminal_and_says_what_its_intervals_are():
    assert repr(table(ROWS, "losses", {"share": ".0%"})) == (
        "losses; mean [95% interval], n = 3\n"
        "model                    loss  parameters  share\n"
        "a <b>   2.000 [-0.484, 4.484]      12,345    50%\n"
        "longer   3.000 [0.516, 5.484]           7")


@pytest.mark.parametrize("value,spec,cell", [
    (2e-5, None, "<0.001"), (0.004, ".2f", "<0.01"), (0.0, None, "0.000"), (0, None, "0"), (-2e-5, None, "-0.000"),
    (0.001, None, "0.001"), (1e-9, "g", "1e-09"), (0.0004, ".1%", "<0.1%"), (0.004, "+.0%", "<+1%"), (0.0, ".1%", "0.0%"),
    (np.int64(12345), None, "12,345"), (torch.tensor(12345), None, "12,345"), (np.float32(0.5), None, "0.500")])
def test_a_number_that_is_not_0_is_not_written_as_0(value, spec, cell):
    assert written(value, spec) == cell


def test_a_table_on_the_page_is_escaped_numbers_at_the_right_and_the_same_bytes_each_time():
    body = table(ROWS, "a < b").body
    assert "a &lt;b&gt;" in body and "<b>" not in body and "a &lt; b; mean" in body and body == table(ROWS, "a < b").body
    assert "text-align: right;\n  white-space: nowrap" in body and ".col0 {\n  text-align: left" in body and ".col1" not in body
    assert body != table(ROWS[:1], "a < b").body and "</table>" in table([]).body


def test_a_lesson_shows_a_table_under_its_cell(lesson, capsys):
    lesson.table([{"model": "dense", "loss": 1.5}])
    assert capsys.readouterr().out == "model   loss\ndense  1.500\n"
