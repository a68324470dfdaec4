"""What leads a reader to Google Colab, stamped from here: the first code cell of every lesson, and the badges.

    python tools/colab.py       # stamp README.md (the lessons are stamped by tools/store_notebooks.py)

The address of the published repository stands in pyproject.toml alone, as Repository in [project.urls]. While there is
none, there are no badges, and the cell knows the bundle alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parent.parent
BUNDLE = "moe-lesson-bundle.zip"
CLONE = "moe-lesson-clone"  # not moe_lesson: a folder of that name would be taken for the package
FIRST_LESSON = "00-start-here.ipynb"

# A mere folder named moe_lesson has a spec, but no origin. An upload that has not ended is no zip file yet.
CELL = """\
# Does nothing where the course is installed. Elsewhere, as in Google Colab, it takes the course from {sources}.
import importlib.util, pathlib, runpy, zipfile

if not getattr(importlib.util.find_spec("moe_lesson"), "origin", None):
    course = pathlib.Path("{bundle}")
    if not zipfile.is_zipfile(course):
{otherwise}
    runpy.run_path(str(course), run_name="__main__")"""
STOP = """\
        raise FileNotFoundError("The course is not installed here: upload {bundle} (`make bundle` makes it) "
                                "to this folder, wait until it is complete, and run this cell again.")"""
FETCH = """\
        course = pathlib.Path("{clone}/tools/bootstrap.py")
        if not course.is_file():
            !git clone --quiet --depth 1 {address} {clone}
    if not course.is_file():
"""


def address(pyproject: Path = REPO / "pyproject.toml") -> str | None:
    """Where the repository is published, or None."""
    return tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"].get("urls", {}).get("Repository")


def cell_source(address: str | None) -> str:
    """The code of the bootstrap cell."""
    sources = "its bundle or its address" if address else "its bundle"
    otherwise = (FETCH + STOP if address else STOP).format(bundle=BUNDLE, clone=CLONE, address=address)
    return CELL.format(sources=sources, bundle=BUNDLE, otherwise=otherwise)


def badge(lesson: str, address: str | None) -> str | None:
    """The badge that opens a lesson in Colab, which opens what lies on GitHub and nowhere else."""
    if not address or not address.startswith("https://github.com/"):
        return None
    repository = address.removeprefix("https://github.com/").removesuffix("/").removesuffix(".git")
    colab = "https://colab.research.google.com"
    return (f"[![Open in Colab]({colab}/assets/colab-badge.svg)]"
            f"({colab}/github/{repository}/blob/main/notebooks/{lesson})")


def with_badge(markdown: str, badge: str | None) -> str:
    """The text with this badge under its title and no other; without any if badge is None."""
    title, blank, rest = re.sub(r"\n\n\[!\[Open in Colab\]\(.*?\)\]\(.*?\)", "", markdown).partition("\n\n")
    return title + (f"\n\n{badge}" if badge else "") + blank + rest


def stamp(nb: NotebookNode, lesson: str, address: str | None) -> None:
    """Give a notebook its badge, in the first cell, and its bootstrap cell, after it. Changes nb."""
    title, *others = nb.cells
    title.source = with_badge(title.source, badge(lesson, address))
    nb.cells = [title, new_code_cell(cell_source(address), id="bootstrap"), *(c for c in others if c.id != "bootstrap")]


def stamped_readme(text: str, address: str | None) -> str:
    """README.md with the badge of the first lesson, or without."""
    return with_badge(text, badge(FIRST_LESSON, address))


if __name__ == "__main__":
    readme = REPO / "README.md"
    readme.write_text(stamped_readme(readme.read_text(encoding="utf-8"), address()), encoding="utf-8")
