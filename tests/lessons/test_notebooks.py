"""Rules that every lesson keeps, checked on the files as they are stored."""

import ast
import itertools
import pathlib
import re

import nbformat
import pytest

REPO = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="module")
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_there_are_lessons_and_nothing_else_beside_them():
    assert NOTEBOOKS
    tracked = {path.name for path in (REPO / "notebooks").iterdir() if not path.name.startswith(".")}
    assert tracked == {path.name for path in NOTEBOOKS} | {"pictures"}


def test_a_lesson_is_short_and_so_are_its_cells(notebook):
    assert len(code_cells(notebook)) <= 30
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 25, cell.id
        if cell.id != "bootstrap":  # folded, and the same everywhere
            assert max(map(len, cell.source.splitlines())) <= 88, cell.id


def test_a_cell_to_be_run_and_not_read_says_so_in_the_words_of_lesson_00(notebook):
    for cell in code_cells(notebook):
        if "machinery" in cell.source.lower():
            assert cell.source.startswith("# Machinery: run it, you need not read it.\n"), cell.id
            assert cell.source.lower().count("machinery") == 1, cell.id


def test_cells_have_readable_names(notebook):
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", cell.id) and not re.fullmatch(r"[0-9a-f]{8,}", cell.id), cell.id


def test_every_cell_was_executed_in_order(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_pictures_have_a_caption_for_those_who_cannot_see_them(notebook):
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None]):
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert following is not None and following.cell_type == "markdown", f"{cell.id}: no caption follows"
            assert "*Figure" in following.source, f"{cell.id}: no caption follows"


def test_a_lesson_asks_claims_and_ends_with_limits_and_the_next_one(notebook):
    source = "\n".join(cell.source for cell in notebook.cells)
    assert source.count("lesson.predict(") >= 2 and source.count("lesson.claim(") >= 2 and "checks." in source
    assert "lesson.claims()" in source and "What this does not show" in source and "Next" in source
    predicted = set(re.findall(r"lesson\.predict\(\"([^\"]+)\"", source))
    assert predicted == set(re.findall(r"lesson\.reveal\(\"([^\"]+)\"", source)), "every guess meets its result"


def test_every_question_stands_at_the_end_of_its_cell_where_jupyter_shows_it(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code" and "lesson.predict(" in cell.source:
            assert cell.source.count("lesson.predict(") == 1, cell.id
            assert ast.unparse(ast.parse(cell.source).body[-1]).startswith("lesson.predict("), cell.id


def test_what_decides_whether_a_claim_is_made_is_bound_once(notebook):
    """`if NAME:` asks for a flag of an earlier cell: a cell between them that reuses the name would decide in its place."""
    trees = [ast.parse(cell.source) for cell in code_cells(notebook) if cell.id != "bootstrap"]
    asked = {node.test.id for tree in trees for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)}
    names = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = [node.id for node in names if isinstance(node.ctx, ast.Store)]
    assert all(bound.count(name) == 1 for name in asked), asked


def test_links_between_lessons_lead_to_lessons_and_to_headings_that_are_there(notebook):
    for target, place in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", prose(notebook)):
        assert not target or (REPO / "notebooks" / target).is_file(), target
        there = nbformat.read(REPO / "notebooks" / target, as_version=4) if target and place else notebook
        headings = {title.replace(" ", "-") for title in re.findall(r"^#+ (.+)$", prose(there), re.MULTILINE)}
        assert not place or place in headings, f"{target}#{place}"


def test_only_cells_whose_output_varies_are_spared_the_comparison(notebook):
    """A tag hides a cell from nbval: it must stand for a measurement on this machine or a form, not for laziness."""
    measures = ("Lesson(", "generate(", "evaluate_language(", ".route(", "first_layer.", "route_beside_null(", "machine()",
                "claims()", "nulls", "train(", "hidden_units(", "shuffles", "tiny(",
                "perf_counter(", "histories", "trained(", "calls(routing", "expert_outputs(", "model(ids)",
                "RedundancyLens.of_layer(", "layer_inputs(", "ContributionView.of_model(",
                "RouterGame.of_model(", ".calls(", "SpecialisationView.of_census(",
                "ExpertExplorer.of_model(", "calibration()", "measured_device(", "median_seconds(",
                "parallel_demo.run(", "subprocess.run(", "_dynamo.explain(", "free_memory(", "reading.",
                "to_transformers(", "real_mergings(", "losses_without(", "survival(", "trained_loss[", "violation_at(")
    for cell in code_cells(notebook):
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            assert any(word in cell.source for word in measures), cell.id
        assert "nbval-skip" not in cell.metadata.get("tags", []), cell.id


def test_the_picture_of_a_fact_finder_shows_the_layers_that_its_caption_names(notebook):
    for cell, text in itertools.pairwise(notebook.cells):
        if "FactFinder." in cell.source and text.source.startswith("> *Figure"):
            (shown,) = [output.metadata["image/png"]["alt"] for output in cell.outputs if "image/png" in output.get("data", {})]
            named = re.findall("GShard|DeepSeekMoE|fine-grained|dense", text.source.partition("\n")[0])
            assert [name for name in named if name not in shown] == []


def test_every_word_of_the_glossary_is_in_the_lesson_it_names_and_has_its_chinese_term():
    lessons = {path.stem[:2]: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
    text = {name: "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown" and cell.id != "glossary").lower()
            for name, nb in lessons.items()}
    [cell] = [cell for cell in lessons["00"].cells if cell.id == "glossary"]
    lines = [line for line in cell.source.splitlines() if line.startswith("|")][2:]
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    assert len(rows) > 30 and len({row[0] for row in rows}) == len(rows)
    for word, chinese, sentence, lesson in rows:
        name = re.fullmatch(r"\[(\d\d)\]\((\1-.*\.ipynb)\)", lesson)
        first = re.split(r" \(|, | and ", word.lower())[0]
        assert first in text[name[1]], f"{word}: lesson {name[1]} does not speak of it"
        assert re.search("[\u4e00-\u9fff]", chinese) or chinese == word.replace(", ", "，"), f"{word}: no Chinese term"
        assert sentence.endswith("."), word
