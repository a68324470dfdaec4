"""A lesson without the code that no exercise, form or widget of it needs: nbval runs all of it, and once is enough."""

import dis
import inspect
import re

from moe_lesson import widgets
from moe_lesson.widgets.kit.base import LessonWidget

CLASSES = "|".join(name for name in widgets.__all__ if issubclass(getattr(widgets, name), LessonWidget))
ASKED = re.compile(rf"\b({CLASSES})[.(]|\blesson\.(predict|quiz)\(|\bchecks\.")


READS = "LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell gives to later ones, and those that it needs from earlier ones: what it binds before it reads it, and
    the variables of its comprehensions and functions, are its own affair."""
    given, read, functions = set(), set(), []

    def go_through(code) -> None:
        for step in dis.get_instructions(code):
            if step.opname in ("STORE_NAME", "STORE_GLOBAL"):
                given.add(step.argval)
            elif step.opname in READS and step.argval not in given:
                read.add(step.argval)
            elif inspect.iscode(step.argval):  # a comprehension runs where it stands, a function later
                go_through(step.argval) if step.argval.co_name.startswith("<") else functions.append(step.argval)

    go_through(compile(source, "cell", "exec"))
    while functions:
        go_through(functions.pop(0))
    return given, read


def needed(cells: list) -> list:
    """The cells, in their order, without the code that no exercise, no form and no widget needs."""
    kept, wanted = [], set()
    for cell in reversed(cells):
        code = cell.cell_type == "code" and cell.id != "bootstrap"  # which may hold what is no Python, `!git clone`
        given, read = names(cell.source) if code else (set(), set())
        if not code or ASKED.search(cell.source) or given & wanted:
            kept.insert(0, cell)
            wanted = wanted - given | read
    return kept
