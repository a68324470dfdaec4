"""Give the learner a copy of the lessons to write in, without answers, and open it: python tools/my_lessons.py

    python tools/my_lessons.py --fresh 03      # lesson 03 anew; yours is kept under another name
    python tools/my_lessons.py --no-browser    # what is not known here goes to JupyterLab

Lessons lie in notebooks/ as we ran them; in my-lessons/ they lie without outputs, so no answer stands under its question. What
you changed there stays. What you did not touch follows the course.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from jupyterlab.labapp import LabApp

REPO = Path(__file__).resolve().parent.parent
LESSONS, COPIES = REPO / "notebooks", REPO / "my-lessons"
# JupyterLab keeps the state of widgets in what a learner saves: a lesson that is opened again is alive before anything is run.
# And it asks nobody on the first screen whether they want news.
SETTINGS = [f"--LabApp.app_settings_dir={REPO / 'tools' / 'jupyterlab'}"]
VIEW, STATE = (f"application/vnd.jupyter.widget-{part}+json" for part in ("view", "state"))
GIVEN = ".given.json"  # name of a lesson -> hash of the copy that the learner was given


VERSION = re.compile(r'^   "version": ".*"$', re.MULTILINE)  # Python's, in the metadata of `written`


def unanswered(lesson: str) -> str:
    """The text of a notebook without outputs and counts, as JupyterLab writes it with this Python: another version would be a
    change, and a lesson that nobody touched would ask to be saved."""
    nb = json.loads(lesson)
    nb["metadata"].pop("widgets", None)
    nb["metadata"].get("language_info", {})["version"] = sys.version.split()[0]
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
            cell["metadata"].pop("execution", None)
    return written(nb)


def written(nb: dict) -> str:
    """A notebook's text, in the form that JupyterLab gives it."""
    return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def without_lost(lesson: str) -> str:
    """The text of a notebook without the views of widgets that it keeps no state of: JupyterLab saves the state of those alone
    that are connected, and would say "model not found" where the view's words say how to see it live."""
    try:
        nb = json.loads(lesson)
        kept = nb["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
        shown = [output["data"] for cell in nb["cells"] for output in cell.get("outputs", ()) if VIEW in output.get("data", ())]
        lost = [data for data in shown if data[VIEW]["model_id"] not in kept]
    except (ValueError, LookupError, TypeError, AttributeError):
        return lesson  # no notebook: JupyterLab will say so
    for data in lost:
        del data[VIEW]
    return written(nb) if lost else lesson


def digest(text: str) -> str:
    """A lesson's text, whichever Python it was written for."""
    return hashlib.sha256(VERSION.sub("", text).encode()).hexdigest()


def update(lessons: Path, copies: Path, fresh: Sequence[str] = ()) -> list[str]:
    """Bring the copies up to date with the course.

    Args:
        lessons: the folder of the course's notebooks.
        copies: the learner's folder; made if it is missing.
        fresh: names of lessons to copy anew, whatever the learner did; what is there is kept under another name.

    Returns: what the learner should know, a line each.
    """
    copies.mkdir(exist_ok=True)
    given, said = read_given(copies / GIVEN), []
    for path in sorted(lessons.glob("*.ipynb")):
        text = unanswered(path.read_text(encoding="utf-8"))
        given[path.name], line = settle(copies / path.name, text, given.get(path.name), path.name in fresh)
        said += [f"{path.stem}: {line}"] if line else []
        mine = (copies / path.name).read_text(encoding="utf-8", errors="replace")
        if (alive := without_lost(mine)) != mine:
            (copies / path.name).write_text(alive, encoding="utf-8", newline="\n")
    (copies / GIVEN).write_text(json.dumps(given, indent=1), encoding="utf-8")
    shutil.copytree(lessons / "pictures", copies / "pictures", dirs_exist_ok=True)
    return said


def settle(copy: Path, text: str, given: str | None, fresh: bool) -> tuple[str | None, str]:
    """One lesson: copy it where that takes nothing from the learner. Returns the hash of what was given last, and what to say."""
    mine, line = (copy.read_text(encoding="utf-8", errors="replace") if copy.exists() else None), ""
    if mine == text:
        return digest(text), line
    if mine is not None and digest(mine) == given:
        line = "the course has a newer one, and yours was untouched; it is replaced." if digest(text) != given else ""
    elif mine is not None and fresh:
        line = f"a fresh one; yours is {keep(copy)} now."
    elif mine is not None:
        number = copy.name[:2]
        return given, "" if digest(text) == given else (
            f"the course has another one now; yours stays. To have both: make lab FRESH={number} "
            f"(or: python tools/my_lessons.py --fresh {number})")
    copy.write_text(text, encoding="utf-8", newline="\n")
    return digest(text), line


def read_given(path: Path) -> dict[str, str]:
    """Which copies the learner was given; none where that is lost, so that nothing is taken for untouched."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def keep(copy: Path) -> str:
    """Rename a lesson of the learner's, and say how it is called now."""
    names = (f"{copy.stem}-mine-{number}{copy.suffix}" for number in range(1, 1000))
    kept = copy.with_name(next(name for name in names if not copy.with_name(name).exists()))
    copy.rename(kept)
    return kept.name


def named(number: str, lessons: Path) -> str:
    """The name of the lesson with this number.

    Raises:
        SystemExit: if there is none, or more than one.
    """
    names = sorted(path.name for path in lessons.glob("*.ipynb"))
    found = [name for name in names if name.startswith(f"{number}-")]
    return found[0] if len(found) == 1 else sys.exit(
        f"There is no lesson {number!r}: choose one of {', '.join(name[:2] for name in names)}.")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", metavar="NN", help="the number of a lesson to copy anew")
    options, for_jupyter = parser.parse_known_args(arguments)
    opened = named(options.fresh or "00", LESSONS)
    for line in update(LESSONS, COPIES, [opened] if options.fresh else []):
        print(line, flush=True)
    LabApp.launch_instance([*SETTINGS, *for_jupyter, str(COPIES / opened)])  # here, not in a child: it asks at Ctrl + C


if __name__ == "__main__":
    main()
