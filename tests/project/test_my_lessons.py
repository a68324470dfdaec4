"""The learner's copies: no answers in them, nothing of the learner's lost, the course's newer lessons where nobody is hurt."""

import json
import re
import sys
from pathlib import Path

import my_lessons
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

REPO = Path(__file__).resolve().parents[2]
NAME = "03-load-balance.ipynb"


def write(folder: Path, source: str, name: str = NAME, answer: str = "7") -> Path:
    """A lesson of the course, executed."""
    folder.mkdir(exist_ok=True)
    output = new_output("execute_result", {"text/plain": answer, "image/png": "aGk="}, execution_count=4)
    code = new_code_cell(source, id="sum", execution_count=4, outputs=[output], metadata={"tags": ["nbval-ignore-output"]})
    nb = new_notebook(cells=[new_markdown_cell("# Lesson", id="title"), code],
                      metadata={"language_info": {"name": "python", "version": "3.11.7"}})
    (folder / name).write_text(nbformat.writes(nb) + "\n")
    return folder


@pytest.fixture
def lessons(tmp_path):
    folder = write(write(tmp_path / "notebooks", "1 + 6"), "1", "00-start-here.ipynb")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "03.svg").write_text("<svg/>")
    return folder


@pytest.fixture
def mine(lessons, tmp_path):
    """The learner's copies, as the first call gave them."""
    assert my_lessons.update(lessons, tmp_path / "mine") == []
    return tmp_path / "mine"


def source(path: Path) -> str:
    return nbformat.read(path, as_version=4).cells[1].source


def test_a_copy_has_the_questions_without_answers_and_a_form_that_jupyterlab_leaves_alone(mine):
    text = (mine / NAME).read_text()
    nb = nbformat.reads(text, as_version=4)
    nbformat.validate(nb)
    assert nbformat.writes(nb) + "\n" == text, "JupyterLab would write it in another way: it would look changed"
    assert [cell.id for cell in nb.cells] == ["title", "sum"] and nb.cells[1].metadata.tags == ["nbval-ignore-output"]
    assert (nb.cells[1].source, nb.cells[1].outputs, nb.cells[1].execution_count) == ("1 + 6", [], None)
    assert (mine / "pictures" / "03.svg").is_file(), "the head of a lesson shows it"


def test_what_the_learner_changed_stays(lessons, mine):
    (mine / NAME).write_text("my own")
    assert my_lessons.update(lessons, mine) == [] and (mine / NAME).read_text() == "my own"


def test_a_widget_whose_state_a_lesson_does_not_keep_has_its_words_back(lessons, mine):
    nb = nbformat.read(mine / NAME, as_version=4)
    nb.cells[1].outputs = [new_output("display_data", {my_lessons.VIEW: {"model_id": model}, "text/plain": "run this cell"})
                           for model in ("kept", "lost")]
    nb.metadata.widgets = {my_lessons.STATE: {"state": {"kept": {}}, "version_major": 2, "version_minor": 0}}
    nbformat.write(nb, mine / NAME)
    my_lessons.update(lessons, mine)
    kept, lost = (output.data for output in nbformat.read(mine / NAME, as_version=4).cells[1].outputs)
    assert my_lessons.VIEW in kept and lost == {"text/plain": "run this cell"}
    as_it_was = (mine / NAME).read_text()
    my_lessons.update(lessons, mine)
    assert (mine / NAME).read_text() == as_it_was


@pytest.mark.parametrize("text", ["[1, 2", "[1, 2]", '{"metadata": {}, "cells": [3]}'])
def test_what_is_no_notebook_stays_as_it_is(text, lessons, mine):
    (mine / NAME).write_text(text)
    my_lessons.update(lessons, mine)
    assert (mine / NAME).read_text() == text


def test_an_untouched_copy_follows_the_course(lessons, mine):
    write(lessons, "2 + 6", answer="8")
    (said,) = my_lessons.update(lessons, mine)
    assert "03-load-balance: " in said and "replaced" in said and source(mine / NAME) == "2 + 6"
    assert my_lessons.update(lessons, mine) == []


def test_a_run_of_the_course_that_changes_answers_alone_is_no_news(lessons, mine):
    write(lessons, "1 + 6", answer="seven")
    (mine / "00-start-here.ipynb").write_text("my own")
    assert my_lessons.update(lessons, mine) == []


def test_another_python_is_no_news_and_an_untouched_copy_has_its_version(lessons, mine, monkeypatch):
    (mine / "00-start-here.ipynb").write_text("my own")
    monkeypatch.setattr(sys, "version", "3.14.8 (main)")
    assert my_lessons.update(lessons, mine) == []
    assert nbformat.read(mine / NAME, as_version=4).metadata.language_info.version == "3.14.8", "it would ask to be saved"
    write(lessons, "2 + 6")
    assert "was untouched; it is replaced" in my_lessons.update(lessons, mine)[0]


def test_where_both_changed_the_learners_stays_and_a_line_says_how_to_get_a_fresh_one(lessons, mine):
    (mine / NAME).write_text("my own")
    write(lessons, "2 + 6")
    for _ in range(2):
        (said,) = my_lessons.update(lessons, mine)
        assert "yours stays" in said and "make lab FRESH=03" in said and (mine / NAME).read_text() == "my own"


def test_a_fresh_one_keeps_the_old_under_another_name(lessons, mine):
    for number in (1, 2):
        (mine / NAME).write_text(f"my own {number}")
        (said,) = my_lessons.update(lessons, mine, [NAME])
        assert f"03-load-balance-mine-{number}.ipynb" in said and source(mine / NAME) == "1 + 6"
    assert [(mine / f"03-load-balance-mine-{number}.ipynb").read_text() for number in (1, 2)] == ["my own 1", "my own 2"]
    assert my_lessons.update(lessons, mine, [NAME]) == [] and len(list(mine.glob("*.ipynb"))) == 4, "nothing to keep"


def test_where_it_is_not_known_what_was_given_nothing_is_taken_for_untouched(lessons, mine):
    (mine / NAME).write_text("my own")
    (mine / my_lessons.GIVEN).write_text("damaged")
    assert "yours stays" in my_lessons.update(lessons, mine)[0] and (mine / NAME).read_text() == "my own"
    assert json.loads((mine / my_lessons.GIVEN).read_text())["00-start-here.ipynb"], "the others are known again"


def test_a_lesson_that_is_new_or_was_deleted_is_copied(lessons, mine):
    (mine / NAME).unlink()
    write(lessons, "new", "10-new.ipynb")
    assert my_lessons.update(lessons, mine) == [] and source(mine / NAME) == "1 + 6" and source(mine / "10-new.ipynb") == "new"


def test_the_command_opens_the_first_lesson_or_the_fresh_one_and_hands_the_rest_to_jupyterlab(lessons, mine, monkeypatch, capsys):
    monkeypatch.setattr(my_lessons, "LESSONS", lessons)
    monkeypatch.setattr(my_lessons, "COPIES", mine)
    called = []
    monkeypatch.setattr(my_lessons.LabApp, "launch_instance", called.append)
    (mine / NAME).write_text("my own")
    my_lessons.main(["--no-browser"])
    my_lessons.main(["--fresh", "03"])
    assert [command[-1] for command in called] == [str(mine / "00-start-here.ipynb"), str(mine / NAME)]
    assert "--no-browser" in called[0] and "-mine-1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no lesson '3': choose one of 00, 03"):
        my_lessons.main(["--fresh", "3"])


def test_make_and_the_readme_call_it_and_git_ignores_the_copies():
    (lab,) = re.findall(r"^lab:.*\n\t(.*)$", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert lab == "$(RUN) tools/my_lessons.py $(if $(FRESH),--fresh $(FRESH)) $(LAB_ARGS)"
    assert "python tools/my_lessons.py" in (REPO / "environment.yml").read_text()
    assert "/my-lessons/" in (REPO / ".gitignore").read_text().splitlines()


def test_the_lessons_of_the_course_find_each_other_and_name_no_file_beside_them(tmp_path):
    my_lessons.update(REPO / "notebooks", tmp_path)
    for path in tmp_path.glob("*.ipynb"):
        nb = nbformat.read(path, as_version=4)
        assert not any(cell.get("outputs") for cell in nb.cells)
        markdown = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
        assert all((tmp_path / target).is_file() for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", markdown))
        code = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "code" and cell.id != "bootstrap")
        assert not re.search(r"\.\./|open\(|Path\(|(?<!/)notebooks/", code), f"{path.name} reads a file from where it lies"
