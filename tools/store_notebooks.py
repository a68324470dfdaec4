"""Run notebooks and store them with their outputs, so that the same notebook on the same machine gives the same bytes.

    python tools/store_notebooks.py notebooks/*.ipynb            # run, and store what came out
    python tools/store_notebooks.py --check notebooks/*.ipynb    # run, and say which stored outputs are out of date
    python tools/store_notebooks.py --clean-only notebooks/*.ipynb    # run nothing: clean what is stored (before a commit)

Each lesson is first given its Colab badge and its bootstrap cell (tools/colab.py), a new one too.
A notebook is stored only when it is fit to be read: no cell raised, nothing was written to stderr, no output names a
path of this machine. Cells tagged nbval-ignore-output (times, numbers of a training run) may differ at every run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import colab
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from photograph import WIDGET_VIEW, add_photographs

REPO = Path(__file__).resolve().parent.parent
MAX_BYTES = 1_000_000  # GitHub shows nothing of a notebook much larger than this
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class Unfit(Exception):
    """A notebook that must not be stored; the message names the cells and says why."""


def kernel_env(home: str) -> dict[str, str]:
    """The kernel's environment: an empty home for the lesson helpers, Jupyter's own choice of figure backend.

    One thread unless the caller says otherwise, since sums come out differently in the last digits with more.
    """
    given = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {"OMP_NUM_THREADS": "1"} | given | {"MOE_LESSON_HOME": home}


def execute(path: Path) -> NotebookNode:
    """Stamp the notebook, run it from its first cell in a fresh kernel, and return it cleaned. Nothing is written."""
    nb, client = run(path)
    add_photographs(nb, client)
    return clean(nb)


def run(path: Path) -> tuple[NotebookNode, NotebookClient]:
    """The notebook stamped and run, with all that its cells gave, and the client that knows the state of its widgets."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unfit(f"this is not a notebook ({error})") from None
    if nameless := [number for number, cell in enumerate(cells) if "id" not in cell]:
        raise Unfit(f"cells {nameless}, counted from 0, have no id: give each a readable one")
    nb = nbformat.read(path, as_version=4)
    if not nb.cells or nb.cells[0].cell_type != "markdown":
        raise Unfit("its first cell is not its title, in Markdown")
    colab.stamp(nb, path.name, colab.address())
    running = []
    with tempfile.TemporaryDirectory() as home:
        client = NotebookClient(
            nb,
            kernel_name="python3",
            timeout=600,  # seconds that one cell may take
            resources={"metadata": {"path": str(path.parent)}},
            coalesce_streams=True,  # the kernel cuts what a cell prints into messages by the clock
            extra_arguments=["--IPKernelApp.log_level=40"],  # no words of the kernel's own on the terminal
            record_timing=False,
            store_widget_state=True,  # for the photographs
            on_cell_execute=lambda cell, cell_index: running.append(cell.id),
        )
        try:
            client.execute(env=kernel_env(home))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise Unfit(f"cell {running[-1]} failed: {plain(str(error)).strip()}") from None
    nb.metadata.pop("widgets", None)  # the client has that state; no problem of the notebook is its size
    return nb, client


def clean(nb: NotebookNode) -> NotebookNode:
    """Remove from the notebook what differs at every run and what a reader cannot use. Changes nb and returns it."""
    nb.metadata.pop("widgets", None)  # GitHub calls a notebook with it invalid
    nb.metadata.update(kernelspec=KERNELSPEC)  # with the kernel's own language_info: JupyterLab would add what lacks, as a change
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("ExecuteTime", None)
        if "outputs" in cell:  # a progress bar ends with its run, and its plain text is the bar before the first step
            cell.outputs = [output for output in cell.outputs
                            if not re.match(r" *\d+%\|", output.get("data", {}).get("text/plain", ""))]
        for output in cell.get("outputs", []):
            # A widget's view is the random id of a model that lives in the kernel that has gone: a reader would see
            # "model not found" in place of the photograph beside it. nbval does not compare views (nor pictures).
            output.get("data", {}).pop(WIDGET_VIEW, None)
    return nb


def plain(text: str) -> str:
    """The text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def texts(output: NotebookNode) -> str:
    """Everything a reader could read in an output: pictures are left out."""
    parts = [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
    parts += [value if isinstance(value, str) else json.dumps(value) for kind, value in output.get("data", {}).items()
              if not kind.startswith("image/") or kind == "image/svg+xml"]
    return plain("\n".join(parts))


def machine_paths() -> re.Pattern:
    """What the folders of this machine look like in a text: no output may name one."""
    folders = {Path.home(), REPO, Path(sys.prefix), Path(tempfile.gettempdir()), Path("/tmp")} - {Path("/")}
    return re.compile(rf"(?<![\w.~-])({'|'.join(re.escape(str(folder)) for folder in folders)})(?![\w-])[^\s'\"<>]*")


def problems(nb: NotebookNode) -> list[str]:
    """What makes an executed notebook unfit to be read, one sentence each."""
    path = machine_paths()
    found = []
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                found.append(f"cell {cell.id} wrote to stderr: {plain(output.text).strip()}")
            elif match := path.search(texts(output)):
                found.append(f"cell {cell.id} shows a path of this machine: {match[0]}")
    if (size := len(nbformat.writes(nb).encode())) > MAX_BYTES:
        found.append(f"it has {size:,} bytes, more than {MAX_BYTES:,}: draw fewer or smaller figures")
    return found


def unstamped(stored: NotebookNode, fresh: NotebookNode) -> bool:
    """Whether the badge or the bootstrap cell of a stored notebook is not the one that it was given before its run."""
    old, new = ([(cell.id, cell.source) for cell in nb.cells] for nb in (stored, fresh))
    return old != new


def changed_cells(stored: NotebookNode, fresh: NotebookNode) -> list[str]:
    """The ids of the cells whose outputs differ between the two, but for those whose tag says that they may."""
    return [new.id for old, new in zip(stored.cells, fresh.cells, strict=True)
            if old.get("outputs") != new.get("outputs") and "nbval-ignore-output" not in new.metadata.get("tags", [])]


def process(path: Path, check: bool) -> tuple[bool, str]:
    """Run one notebook and store or check it. Returns whether all is well, and the line to print."""
    start = time.perf_counter()
    try:
        fresh = execute(path)
        if found := problems(fresh):
            raise Unfit("\n  ".join(found))
        if check:
            stored = nbformat.read(path, as_version=4)
            if unstamped(stored, fresh):
                raise Unfit("its badge or its bootstrap cell is out of date")
            if changed := changed_cells(stored, fresh):
                raise Unfit(f"stored outputs are out of date in the cells {', '.join(changed)}")
        else:
            path.write_text(nbformat.writes(fresh) + "\n", encoding="utf-8")
    except Unfit as unfit:
        return False, f"FAILED {path}\n  {unfit}"
    return True, f"{'checked' if check else 'stored'} {path} ({time.perf_counter() - start:.0f} s)"


def tidy(path: Path) -> tuple[bool, str]:
    """Clean a stored notebook and run nothing. Returns whether it is fit to be stored, and the line to print."""
    before = path.read_text(encoding="utf-8")
    nb = clean(nbformat.reads(before, as_version=4))
    found = problems(nb) + [f"cell {cell.id} was never run" for cell in nb.cells if cell.get("execution_count", 0) is None]
    found += [f"cell {cell.id} raised" for cell in nb.cells
              if any(output.output_type == "error" for output in cell.get("outputs", []))]
    after = nbformat.writes(nb) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    if found:
        return False, "\n  ".join([f"FAILED {path}", *found])
    return True, f"{'is clean' if after == before else 'cleaned'} {path}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="store nothing; report the cells whose outputs changed")
    instead.add_argument("--clean-only", action="store_true", help="run nothing; clean what is stored, and look at it")
    options = parser.parse_args(arguments)
    if missing := [str(path) for path in options.notebooks if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(missing)}")

    failed = False
    for path in options.notebooks:
        fine, line = tidy(path) if options.clean_only else process(path, options.check)
        print(line, flush=True)
        failed |= not fine
    return int(failed)


# What a kernel runs before a notebook. Another Python has another text, so a lesson may not depend on every file of this one.
ANOTHER_TEXT = """import moe_lesson.lm.machine_text as text
text.files = lambda *given, files=text.files: (file for i, file in enumerate(files(*given)) if i % 10)
del text
"""


def pytest_runtest_setup(item) -> None:
    """As a pytest plugin (-p store_notebooks): nbval runs each notebook in the environment that it was stored with, but on
    another machine's text: a tenth of the files is not there. So what is claimed holds there, too, and only cells that may
    differ show numbers of it.

    A plugin's setup comes before pytest's own, which starts the kernel with the environment it finds.
    """
    if item.path.suffix == ".ipynb" and item.parent.kernel is None:
        home, ipython = (tempfile.mkdtemp(dir=os.environ.get("MOE_LESSON_HOME")) for _ in range(2))
        startup = Path(ipython, "profile_default", "startup")
        startup.mkdir(parents=True)
        (startup / "another_text.py").write_text(ANOTHER_TEXT, encoding="utf-8")
        os.environ.update(kernel_env(home) | {"IPYTHONDIR": ipython})
        os.environ.pop("MPLBACKEND", None)


if __name__ == "__main__":
    sys.exit(main())
