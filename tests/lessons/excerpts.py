"""A lesson without the code that no exercise, form or widget of it needs: nbval runs all of it, and once is enough."""

import ast
import re

from moe_lesson import widgets
from moe_lesson.widgets.kit.base import LessonWidget

CLASSES = "|".join(name for name in widgets.__all__ if issubclass(getattr(widgets, name), LessonWidget))
ASKED = re.compile(rf"\b({CLASSES})[.(]|\blesson\.(predict|quiz)\(|\bchecks\.")


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell gives to later ones, and those that it reads."""
    given, read = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (given if isinstance(node.ctx, ast.Store) else read).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            given.add(node.name)
        elif isinstance(node, ast.alias):
            given.add((node.asname or node.name).split(".")[0])
    return given, read


def needed(cells: list) -> list:
    """The cells, in their order, without the code that no exercise, no form and no widget needs."""
    kept, wanted = [], set()
    for cell in reversed(cells):
        given, read = names(cell.source) if cell.cell_type == "code" else (set(), set())
        if cell.cell_type != "code" or cell.id == "bootstrap" or ASKED.search(cell.source) or given & wanted:
            kept.insert(0, cell)
            wanted = wanted - given | read
    return kept
