"""tools/store_notebooks.py: the same notebook gives the same bytes, and an unfit one is not stored."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import store_notebooks
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from moe_lesson.lm import machine_text

REPO = Path(__file__).resolve().parents[2]

VARIED = """
import os, time, ipywidgets
from IPython.display import display
print("one"); time.sleep(0.3); print("two")
display(ipywidgets.VBox([ipywidgets.IntSlider(3)]))
assert os.listdir(os.environ["MOE_LESSON_HOME"]) == []
open(os.environ["MOE_LESSON_HOME"] + "/predictions", "w").close()
"""
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


def write(path, *sources, **tagged):
    """A notebook with a title and one code cell per source, ids cell-0, cell-1 …; tagged cells after them."""
    cells = [new_markdown_cell("# A lesson", id="title")]
    cells += [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    may_vary = {"tags": ["nbval-ignore-output"]}
    cells += [new_code_cell(source, id=name, metadata=may_vary) for name, source in tagged.items()]
    nb = new_notebook(cells=cells, metadata={"widgets": {"state": {}}})
    nb.nbformat_minor = 5
    nbformat.write(nb, path)
    return path


def test_two_runs_give_the_same_bytes(tmp_path, capsys):
    path = write(tmp_path / "lesson.ipynb", VARIED, FIGURE)
    assert store_notebooks.main([str(path)]) == 0
    first = path.read_bytes()
    assert store_notebooks.main([str(path)]) == 0
    assert path.read_bytes() == first

    nb = nbformat.reads(first.decode(), as_version=4)
    printed, widget = nb.cells[2].outputs
    assert printed.text == "one\ntwo\n"
    assert list(widget.data) == ["text/plain"]
    assert "image/png" in nb.cells[3].outputs[0].data
    assert set(nb.metadata) == {"kernelspec", "language_info"}
    assert [cell.id for cell in nb.cells] == ["title", "bootstrap", "cell-0", "cell-1"]
    assert all("execution" not in cell.metadata for cell in nb.cells)
    assert first.endswith(b"}\n")
    assert capsys.readouterr().out.count("stored") == 2


def test_check_reports_changed_cells_but_not_tagged_ones(tmp_path, capsys):
    path = write(tmp_path / "lesson.ipynb", "1 + 1", clock="import time; time.time()")
    assert store_notebooks.main([str(path)]) == 0
    assert store_notebooks.main(["--check", str(path)]) == 0
    changed = path.read_text().replace("1 + 1", "1 + 2")
    path.write_text(changed)
    capsys.readouterr()
    assert store_notebooks.main(["--check", str(path)]) == 1
    out = capsys.readouterr().out
    assert "cell-0" in out and "clock" not in out
    assert path.read_text() == changed


@pytest.mark.parametrize("source, says", [
    ("1 / 0", "cell-1 failed"),
    ("import warnings; warnings.warn('be careful')", "cell-1 wrote to stderr"),
    ("import tempfile; tempfile.gettempdir()", "cell-1 shows a path of this machine"),
    ("import os; os._exit(1)", "cell-1 failed"),
])  # fmt: skip
def test_an_unfit_notebook_is_not_stored(tmp_path, capsys, source, says):
    path = write(tmp_path / "lesson.ipynb", "1 + 1", source)
    before = path.read_bytes()
    assert store_notebooks.main([str(path)]) == 1
    assert says in capsys.readouterr().out
    assert path.read_bytes() == before


def test_check_reports_a_bootstrap_cell_that_was_edited(tmp_path, capsys):
    path = write(tmp_path / "lesson.ipynb", "1 + 1")
    assert store_notebooks.main([str(path)]) == 0
    path.write_text(path.read_text().replace("# Does nothing", "# Does something"))
    assert store_notebooks.main(["--check", str(path)]) == 1
    assert "its bootstrap cell is out of date" in capsys.readouterr().out
    assert store_notebooks.main([str(path)]) == 0
    assert store_notebooks.main(["--check", str(path)]) == 0


def test_an_expected_exception_is_fit(tmp_path):
    path = write(tmp_path / "lesson.ipynb", "1 / 0")
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].metadata["tags"] = ["raises-exception"]
    nbformat.write(nb, path)
    assert store_notebooks.main([str(path)]) == 0


def test_a_cell_without_id_a_broken_file_and_one_without_title_are_refused(tmp_path, capsys):
    broken = tmp_path / "broken.ipynb"
    broken.write_text('{"cells": [')
    nameless = tmp_path / "nameless.ipynb"
    nameless.write_text('{"cells": [{"cell_type": "markdown", "metadata": {}, "source": ""}], "metadata": {}, '
                        '"nbformat": 4, "nbformat_minor": 4}')  # fmt: skip
    untitled = tmp_path / "untitled.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 + 1", id="sum")]), untitled)
    assert store_notebooks.main([str(broken), str(nameless), str(untitled)]) == 1
    out = capsys.readouterr().out
    assert "not a notebook" in out and "no id" in out and "not its title" in out


@pytest.mark.parametrize("text, found", [
    ("{home}/x.py", True), ("file://{home}/x.py", True), ("in '{repo}/data'", True), ("{home}", True),
    ("data{home}", False), ("~{home}/x", False), ("{home}-less", False), ("data/results", False),
])  # fmt: skip
def test_paths_of_this_machine(monkeypatch, text, found):
    monkeypatch.setenv("HOME", "/home/ada")
    text = text.format(home="/home/ada", repo=store_notebooks.REPO)
    assert bool(store_notebooks.machine_paths().search(text)) is found


def test_nbval_runs_a_lesson_on_another_machines_text(tmp_path):
    files = sum(1 for _ in machine_text.maths_sources())
    path = write(tmp_path / "lesson.ipynb", "from moe_lesson.lm.machine_text import maths_sources\n"
                 "print(sum(1 for _ in maths_sources()))")
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].update(execution_count=1, outputs=[new_output("stream", text=f"{files - -(-files // 10)}\n")])
    nbformat.write(nb, path)
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "-p", "store_notebooks", "-p",
                          "no:cacheprovider", "--rootdir", str(tmp_path), str(path)], cwd=REPO, capture_output=True, text=True,
                         env=os.environ | {"MOE_LESSON_HOME": str(tmp_path), "PYTHONPATH": str(REPO / "tools")})
    assert run.returncode == 0, run.stdout


def test_a_notebook_too_large_to_show_is_unfit():
    nb = new_notebook(cells=[new_markdown_cell("x" * store_notebooks.MAX_BYTES)])
    assert "bytes, more than" in store_notebooks.problems(nb)[0]
