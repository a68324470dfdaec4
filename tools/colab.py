"""The head of every lesson, stamped from here: the way to its neighbours, its picture, the first code cell, and the badges.

    python tools/colab.py       # stamp README.md (the lessons are stamped by tools/store_notebooks.py)

The address of the published repository stands in pyproject.toml alone, as Repository in [project.urls], and that of the web
edition as Documentation. While there is none, there are no badges but those of licence and Python, and the cell knows the
bundle alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import heroes
from bundle import BUNDLE, REPO
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CLONE = "moe-lesson-clone"  # not moe_lesson: a folder of that name would be taken for the package
FIRST_LESSON, CONTENTS = "00-start-here.ipynb", "#The-map-of-the-course"
GITHUB, SHIELDS = "https://github.com/", "https://img.shields.io/badge"

# A mere folder named moe_lesson has a spec, but no origin. An upload that has not ended is no zip file yet.
CELL = """\
# Does nothing where the course is installed. Elsewhere, as in Google Colab, it takes the course from {sources}.
import importlib.util, pathlib, runpy, zipfile

if not getattr(importlib.util.find_spec("moe_lesson"), "origin", None):
    course = pathlib.Path("{bundle}")
    if not zipfile.is_zipfile(course):
{otherwise}
    runpy.run_path(str(course), {{"lesson": "{lesson}"}}, "__main__")"""
STOP = """\
        raise FileNotFoundError("The course is not installed here: upload {bundle} (tools/bundle.py makes it) "
                                "to this folder, wait until it is complete, and run this cell again.")"""
FETCH = """\
        course = pathlib.Path("{clone}/tools/bootstrap.py")
        if not course.is_file():
            !git clone --quiet --depth 1 {address} {clone}
    if not course.is_file():
"""


def project(pyproject: Path = REPO / "pyproject.toml") -> dict:
    """What pyproject.toml says of the project."""
    return tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]


def address(pyproject: Path = REPO / "pyproject.toml", of: str = "Repository") -> str | None:
    """Where the repository is published, or the web edition (`of` is Documentation then), or None."""
    return project(pyproject).get("urls", {}).get(of)


def cell_source(address: str | None, lesson: str = FIRST_LESSON) -> str:
    """The code of the bootstrap cell of a lesson."""
    sources = "its bundle or its address" if address else "its bundle"
    otherwise = (FETCH + STOP if address else STOP).format(bundle=BUNDLE, clone=CLONE, address=address)
    return CELL.format(sources=sources, bundle=BUNDLE, otherwise=otherwise, lesson=lesson[:2])


def badge(lesson: str, address: str | None) -> str | None:
    """The badge that opens a lesson in Colab, which opens what lies on GitHub and nowhere else."""
    if not address or not address.startswith(GITHUB):
        return None
    repository = address.removeprefix(GITHUB).removesuffix("/").removesuffix(".git")
    colab = "https://colab.research.google.com"
    return (f"[![Open in Colab]({colab}/assets/colab-badge.svg)]"
            f"({colab}/github/{repository}/blob/main/notebooks/{lesson})")


def neighbours(lesson: str) -> str:
    """The line with the lesson before, the contents of the course and the lesson after."""
    lessons = REPO / "notebooks"
    names = sorted(path.name for path in lessons.glob("*.ipynb"))
    before, after = names[:names.index(lesson)][-1:], names[names.index(lesson) + 1:][:1]
    titles = {name: json.loads((lessons / name).read_text(encoding="utf-8"))["cells"][0]["source"][0][2:].strip()
              for name in before + after}
    contents = CONTENTS if lesson == FIRST_LESSON else FIRST_LESSON + CONTENTS
    return " | ".join([*(f"[← {titles[name]}]({name})" for name in before), f"[contents]({contents})",
                       *(f"[{titles[name]} →]({name})" for name in after)])


def with_head(markdown: str, *head: str | None) -> str:
    """The text with these paragraphs under its title, in the place of those of an earlier stamp."""
    title, *paragraphs = markdown.split("\n\n")
    stamped = ("[![Open in Colab]", "[← ", "[contents]", "![")
    rest = [one for one in paragraphs if not one.startswith(stamped)]
    return "\n\n".join([title, *filter(None, head), *rest])


def stamp(nb: NotebookNode, lesson: str, address: str | None) -> None:
    """Give a notebook its head, in the first cell, and its bootstrap cell, folded, after it. Changes nb."""
    title, *others = nb.cells
    head = [badge(lesson, address)]
    if (REPO / "notebooks" / lesson).is_file():
        number = lesson[:2]
        head += [neighbours(lesson), f"![{heroes.LESSONS[number][1]}](pictures/{number}.svg)"]
    title.source = with_head(title.source, *head)
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}}  # in Colab, and in JupyterLab
    first = new_code_cell(cell_source(address, lesson), id="bootstrap", metadata=folded)
    nb.cells = [title, first, *(cell for cell in others if cell.id != "bootstrap")]


def shields() -> list[str]:
    """The badges that need no address."""
    about = project()
    pythons = [line.rpartition(" ")[2] for line in about["classifiers"] if re.search(r":: 3\.\d+$", line)]
    return [f"[![Licence: {about['license']}]({SHIELDS}/licence-{about['license'].replace('-', '--')}-2a7f62)](LICENSE)",
            f"[![Python {pythons[0]} to {pythons[-1]}]({SHIELDS}/python-{pythons[0]}_to_{pythons[-1]}-2f6fb3)](pyproject.toml)"]


def stamped_readme(text: str, address: str | None, site: str | None = None) -> str:
    """README.md with its badges under the title, and a line that leads to the web edition if there is one: no others."""
    title, *paragraphs = text.split("\n\n")
    badges, opening = shields(), []
    if site:
        badges.append(f"[![Open the site]({SHIELDS}/lessons-in_your_browser-6a1fb3)]({site})")
        opening = [f"**[Open the lessons in your browser]({site})**: nothing to install."]
    if colab := badge(FIRST_LESSON, address):
        workflow = f"{address.removesuffix('/').removesuffix('.git')}/actions/workflows/ci.yml"
        badges = [f"[![CI]({workflow}/badge.svg)]({workflow})", *badges, colab]
    rest = [one for one in paragraphs if not one.startswith(("[![", "**[Open the lessons in your browser]"))]
    return "\n\n".join([title, " ".join(badges), *opening, *rest])


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help tells, and does nothing
    readme = REPO / "README.md"
    stamped = stamped_readme(readme.read_text(encoding="utf-8"), address(), address(of="Documentation"))
    readme.write_text(stamped, encoding="utf-8")
