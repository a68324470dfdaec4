"""Build the web edition of the course out of its notebooks: python tools/site_build.py notebooks/*.ipynb (`make site`)

A page shows what is stored in its notebook. Only the widgets' traits are not stored: so each notebook is run once, and what
its widgets hold goes into files named by their contents, which site/_static/live.js reads in the visitor's browser. A notebook
is run again when its code, the package's Python, its questions or the data have changed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import heroes
import nbformat
from nbformat import NotebookNode
from photograph import WIDGET_VIEW, traits  # which puts tests/widgets on the path
from sphinx.cmd.build import main as sphinx
from store_notebooks import REPO, Unfit, run
from widget_harness import browser_state

from moe_lesson import shipped_model
from moe_lesson.widgets import RoutingMap
from moe_lesson.widgets.kit.weights import SENT

SITE = REPO / "site"
LARGEST = 30e6  # bytes that the course allows itself
LIVE = ": run this cell to see it live"  # how the line of a widget ends in a stored notebook
SENTENCE = "Each token is sent to its experts"  # which the landing page shows until the visitor writes another


# --- what the widgets hold ----------------------------------------------------------------------------------------------


class Files:
    """A folder of files that are named by their contents: what many widgets share is there once."""

    def __init__(self, folder: Path):
        self.folder, self.used = folder, set()
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, content: bytes | str, suffix: str) -> str:
        """Write a file unless it is there; returns its name."""
        content = content.encode() if isinstance(content, str) else content
        name = hashlib.sha256(content).hexdigest()[:20] + suffix
        if not (self.folder / name).exists():
            (self.folder / name).write_bytes(content)
        self.used.add(name)
        return name

    def keep_traits(self, state: dict, weights: dict) -> str:
        """Write the traits of a widget, each of its buffers into a file of its own.

        Args:
            state: traits by name, bytes as { base64 }.
            weights: the traits of the model that it reads in the browser, if any.
        """
        held = {name: {"file": self.keep(base64.b64decode(value["base64"]), ".bin")}
                if isinstance(value, dict) and "base64" in value else value
                for name, value in state.items() if name not in ("layout", "tabbable", "tooltip")}
        if weights:
            held["weights"] = self.keep_traits(weights, {})
        return self.keep(json.dumps(dict(sorted(held.items())), ensure_ascii=False), ".json")  # within, views show names in order

    def all_of(self, name: str) -> set[str]:
        """A file of traits and all files that it names."""
        held = json.loads((self.folder / name).read_text(encoding="utf-8"))
        buffers = {value["file"] for value in held.values() if isinstance(value, dict) and "file" in value}
        model = held.get("weights")  # a name, where it is not a widget's own numbers
        return {name} | buffers | (self.all_of(model) if model and isinstance(model, str) else set())


def fingerprint(nb: NotebookNode) -> str:
    """What a run of a notebook depends on, as a hash."""
    sources = [cell.source for cell in nb.cells if cell.cell_type == "code" and cell.id != "bootstrap"]  # that does nothing here
    seen = hashlib.sha256(json.dumps(sources).encode())
    for path in sorted([*REPO.glob("moe_lesson/**/*.py"), *REPO.glob("moe_lesson/**/*.json"), *REPO.glob("data/**/*.*")]):
        seen.update(f"{path.relative_to(REPO)} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return seen.hexdigest()[:20]


def widgets_of(path: Path, nb: NotebookNode, work: Path, files: Files) -> list[dict]:
    """The widgets that the cells of a notebook show, in their order: the cell, the stored line, the class, the file of traits."""
    kept = work / "runs" / f"{path.stem}-{fingerprint(nb)}.json"
    if not kept.exists():
        print(f"running {path.name} for its widgets ...", flush=True)
        fresh, client = run(path)
        shown = []
        for cell in fresh.cells:
            for output in cell.get("outputs", []):
                name = output.get("data", {}).get(WIDGET_VIEW, {}).get("model_id")
                state = client.widget_state.get(name, {})
                if state.get("_anywidget_id", "").startswith("moe_lesson."):
                    weights = traits(client, state["weights"]) if state.get("weights") else {}
                    shown.append({"cell": cell.id, "text": output.data["text/plain"], "class": state["_anywidget_id"],
                                  "state": files.keep_traits(traits(client, name), weights)})
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(shown), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


# --- a lesson's page ------------------------------------------------------------------------------------------------------


def mount(widget: dict, fallback: str, files: Files, question: str = "") -> str:
    """The place of a widget in a page: what live.js needs to make it live, around what is there without it."""
    module, _, name = widget["class"].rpartition(".")
    made = getattr(importlib.import_module(module), name)
    files.used |= files.all_of(widget["state"])
    names = {"widget": name, "module": files.keep(made._esm, ".js"), "style": files.keep(made._css, ".css"),
             "state": widget["state"], "question": question}
    data = "".join(f' data-{key}="{html.escape(value)}"' for key, value in names.items() if value)
    return f'<div class="moe-live"{data}>{fallback}</div>'


def photograph(output: NotebookNode, files: Files) -> str:
    """The stored picture of a widget; a widget without one reads as text."""
    if "image/png" not in output.data:
        return output.data["text/html"] if "text/html" in output.data else html.escape(output.data["text/plain"])
    about = output.metadata.get("image/png", {})
    size = "".join(f' {side}="{about[side]}"' for side in ("width", "height") if side in about)
    name = files.keep(base64.b64decode(output.data["image/png"]), ".png")
    return f'<img class="moe-still" src="../_widgets/{name}"{size} loading="lazy" alt="{html.escape(about.get("alt", ""))}">'


def keys(source: str, call: str) -> list[str]:
    """The questions that a cell asks or answers."""
    return re.findall(rf'lesson\.{call}\(\s*["\']([\w-]+)["\']', source)


def is_widget(output: NotebookNode) -> bool:
    """Whether a stored output was a widget when its cell ran."""
    line = output.get("data", {}).get("text/plain", "")
    return line.endswith(LIVE) or line.startswith("Predict: ")


def anchor(title: str) -> str:
    """How JupyterLab names the place of a heading, to which a lesson's own links lead."""
    return title.replace(" ", "-")


def page_of(path: Path, nb: NotebookNode, widgets: list[dict], files: Files, lessons: set[str]) -> NotebookNode:
    """The notebook with a live place where each widget's photograph stood, and what tells of a question's answer tagged as
    covered: all but widgets and exercises from the one to the other; its set-up for other machines is left out, and so are
    links to lessons that are not built.

    Raises:
        Unfit: if what is stored is not what the notebook shows when it is run.
    """
    waiting, unanswered = list(widgets), []
    for cell in nb.cells:
        tags = ["remove-cell"] if cell.id == "bootstrap" else []
        if cell.cell_type == "markdown":
            # the theme shows the way, and a badge is a picture from elsewhere
            cell.source = re.sub(r"\n\n(?:[^\n]*\[contents\]|\[!\[Open in Colab\]).*", "", cell.source)
            cell.source = re.sub(r"\[([^\]]*)\]\(([\w.-]+\.ipynb)\)", lambda link: link[link[2] not in lessons], cell.source)
        else:
            answers, questions = keys(cell.source, "reveal"), keys(cell.source, "predict")
            to_try = cell.id.startswith("exercise") or any(map(is_widget, cell.get("outputs", [])))
            tells = answers or ([] if to_try else unanswered)
            tags += [name for key in tells[:1] for name in ("reveal", f"reveal_{path.stem}/{key}")]
            unanswered = [key for key in [*unanswered, *questions] if key not in answers]
            for output in filter(is_widget, cell.get("outputs", [])):
                if not waiting or (waiting[0]["cell"], waiting[0]["text"]) != (cell.id, output.data["text/plain"]):
                    raise Unfit(f"cell {cell.id} of {path.name} no longer shows what is stored: make notebooks NOTEBOOKS={path}")
                kind = waiting[0]["class"].rpartition(".")[2]
                asks = questions if kind == "Question" else ["quiz"] if kind == "Quiz" else []
                asked = f"{path.stem}/{asks.pop(0)}" if asks else ""
                place = mount(waiting.pop(0), photograph(output, files), files, asked)
                output.data, output.metadata = NotebookNode({"text/html": place}), NotebookNode()
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
    if waiting:
        raise Unfit(f"cell {waiting[0]['cell']} of {path.name} shows what is not stored: make notebooks NOTEBOOKS={path}")
    return nb


# --- the landing page -----------------------------------------------------------------------------------------------------


def first_widget(files: Files) -> str:
    """The routing map of the shipped model, live, on the visitor's own sentence."""
    routing_map = RoutingMap.of_model(shipped_model("ladder-deepseekmoe")[0], SENTENCE)
    (weights,) = (one for one in SENT.values() if one.model_id == routing_map.weights)
    state = files.keep_traits(browser_state(routing_map), browser_state(weights))
    routing_map.close()
    still = files.keep((REPO / "data/routing-map.png").read_bytes(), ".png")
    return mount({"class": "moe_lesson.widgets.RoutingMap", "state": state},
                 f'<img class="moe-still" src="_widgets/{still}" width="1000" alt="The routing map: which expert each token of a '
                 'sentence goes to, with the load of each expert below">', files)


def card(path: Path, nb: NotebookNode, files: Files) -> str:
    """What the landing page shows of a lesson: its hero, at rest, its title, its question, its minutes."""
    title, *rest = [line for line in nb.cells[0].source.splitlines() if line.strip()]
    words = "\n".join(rest)
    question, minutes = re.search(r"^\*\*(.+?)\*\*", words, re.M), re.search(r"[Aa]bout (\d+ minutes)", words)
    film_of, alt = heroes.LESSONS[path.name[:2]]
    picture = files.keep(film_of().svg(alt, moves=False), ".svg")
    image = f'<img src="_widgets/{picture}" alt="" width="{heroes.WIDTH}" height="{heroes.HEIGHT}" loading="lazy">'
    return (f'<a class="moe-card" href="notebooks/{path.stem}.html"><span class="moe-card-picture">{image}</span>'
            f'<strong>{html.escape(title.lstrip("# "))}</strong><span>{html.escape(question[1]) if question else ""}</span>'
            f'<small>{minutes[1] if minutes else ""}</small></a>')


# --- all of it ------------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    """Write a file unless it has this text: Sphinx reads again what is newer."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def build(notebooks: list[Path], out: Path, work: Path = REPO / "build/site") -> None:
    """Write the site into a folder of its own.

    Args:
        notebooks: the lessons, as they are stored.
        out: what was there is replaced.
        work: where runs, files and Sphinx's own state are kept for the next time.

    Raises:
        Unfit: if a notebook fails, or shows other widgets than are stored in it.
    """
    files, source, cards = Files(work / "files"), work / "source", []
    shutil.copytree(SITE, source, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for old in set(source.glob("notebooks/*.ipynb")) - {source / "notebooks" / path.name for path in notebooks}:
        old.unlink()
    shutil.copytree(REPO / "notebooks" / "pictures", source / "notebooks" / "pictures", dirs_exist_ok=True)
    for path in notebooks:
        nb = nbformat.read(path, as_version=4)
        cards.append(card(path, nb, files))
        page = page_of(path, nb, widgets_of(path, nb, work, files), files, {path.name for path in notebooks})
        write(source / "notebooks" / path.name, nbformat.writes(page))
    landing = (SITE / "index.md").read_text(encoding="utf-8")
    landing = landing.replace("{routing map}", first_widget(files)).replace("{cards}", "\n".join(cards))
    landing = landing.replace("{first lesson}", f"notebooks/{notebooks[0].stem}.html")
    (source / "index.md").unlink(missing_ok=True)
    write(source / "index.md", landing)
    shutil.rmtree(out, ignore_errors=True)
    if sphinx(["-q", "-W", "--keep-going", "-b", "html", "-d", str(work / "doctrees"), str(source), str(out)]):
        raise Unfit("Sphinx has something to say, see above")
    for path in notebooks:  # the theme's download: the lesson itself, not the page made of it
        shutil.copy(path, out / "_sources" / "notebooks" / path.name)
    for source_map in out.rglob("*.map"):  # of the theme's scripts: for its makers, and as large as all the rest
        source_map.unlink()
    (out / "_widgets").mkdir()
    for name in files.used:
        shutil.copy(files.folder / name, out / "_widgets")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=REPO / "dist/site")
    options = parser.parse_args()
    try:
        build(sorted(options.notebooks), options.out)
    except Unfit as unfit:
        print(f"FAILED {unfit}")
        return 1
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{len(options.notebooks)} lessons, {size / 1e6:.1f} MB; see it with python -m http.server -d {options.out}")
    if size > LARGEST:
        print(f"FAILED {size / 1e6:.1f} MB are more than the {LARGEST / 1e6:.0f} that the course allows itself")
    return int(size > LARGEST)


if __name__ == "__main__":
    sys.exit(main())
