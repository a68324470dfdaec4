"""The lessons with every exercise solved, under the ipywidgets that Colab has: 7, where a widget shows itself another way.

`make test-colab-widgets` runs this file in .venv-widgets7; plain pytest does not collect it. It is Python's half alone: the
JavaScript of Colab can't be imitated here. The lessons as they are stored, whole and with the exercises open, are nbval's:
here a lesson is its exercises, forms and widgets, with the cells that these need.
"""

import importlib.metadata
import re
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from excerpts import CLASSES, needed
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from solutions import solve
from store_notebooks import WIDGET_VIEW, problems, run

REPO = Path(__file__).resolve().parents[2]
LESSONS = sorted((REPO / "notebooks").glob("*.ipynb"))
SHOWS = re.compile(rf"({CLASSES}|Predict)[(:]")  # how the text of a widget, or of a form, begins


def shown(cell) -> list[dict]:
    """What the cell shows of widgets and forms, in all its formats."""
    return [output.data for output in cell.get("outputs", []) if SHOWS.match(output.get("data", {}).get("text/plain", ""))]


def test_this_process_and_a_kernel_have_the_ipywidgets_of_colab(tmp_path):
    (pin,) = re.findall(r"^ipywidgets==(.*)$", (REPO / "tests/lessons/colab_requirements.txt").read_text(), re.MULTILINE)
    assert ipywidgets.__version__ == importlib.metadata.version("ipywidgets") == pin
    look = "import importlib.metadata, ipywidgets\nprint(ipywidgets.__version__, importlib.metadata.version('ipywidgets'))"
    nb = new_notebook(cells=[new_markdown_cell("# Look", id="title"), new_code_cell(look, id="look")])
    nbformat.write(nb, tmp_path / "look.ipynb")
    assert run(tmp_path / "look.ipynb")[0].cells[-1].outputs[0].text.split() == [pin, pin]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_solved_lesson_is_right_and_shows_what_is_stored_and_the_view(path, tmp_path):
    stored, notebook = nbformat.read(path, as_version=4), nbformat.read(path, as_version=4)
    solved = solve(notebook, path.stem[:2])
    notebook.cells = needed(notebook.cells)
    nbformat.write(notebook, tmp_path / path.name)
    fresh, _ = run(tmp_path / path.name)
    assert problems(fresh) == []  # among them: nothing on stderr
    said = "\n".join(output.get("text", "") for cell in fresh.cells for output in cell.get("outputs", []))
    assert [name for name in solved if f"✅ {name}: right." not in said] == [] and "⏳" not in said and "❌" not in said
    kinds = set()
    before_of = {cell.id: shown(cell) for cell in stored.cells}
    for new in fresh.cells:
        before, now = before_of[new.id], shown(new)
        assert [set(data) for data in now] == [set(data) - {"image/png"} | {WIDGET_VIEW} for data in before], new.id
        for data in now:
            kinds.add(SHOWS.match(data["text/plain"])[1])
            assert data[WIDGET_VIEW]["model_id"], new.id
        if "nbval-ignore-output" not in new.metadata.get("tags", []):
            assert [data["text/plain"] for data in now] == [data["text/plain"] for data in before], new.id
    source = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "code")
    quiz = {"Quiz"} if "lesson.quiz()" in source else set()
    assert kinds == {"Predict", *quiz, *re.findall(rf"\b({CLASSES})[.(]", source)}, "no widget of the lesson was overlooked"
