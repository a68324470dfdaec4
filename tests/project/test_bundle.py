"""The way to Colab: the bundle, the first cell of every lesson, which finds it there, and the badges.

Colab is played by an environment with this one's packages, ipywidgets 7 in front of them, and no moe_lesson.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from pathlib import Path

import bootstrap
import bundle
import colab
import nbformat
import pytest
import torch
from excerpts import needed
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from packaging.requirements import Requirement

REPO = Path(__file__).resolve().parents[2]
LESSONS = sorted((REPO / "notebooks").glob("*.ipynb"))
REQUIREMENTS = REPO / "tests/lessons/colab_requirements.txt"
ADDRESS = "https://github.com/someone/moe"
FOUND = "import importlib.util; print(importlib.util.find_spec('moe_lesson').origin)"
LOOK = """
import json, subprocess, sys
import ipywidgets, torch
import moe_lesson, moe_lesson.widgets
child = [sys.executable, "-c", "import moe_lesson; print(moe_lesson.__file__)"]
print(json.dumps({
    "package": moe_lesson.__file__, "package of a child": subprocess.check_output(child, text=True).strip(),
    "torch": [torch.__version__, torch.__file__], "ipywidgets": ipywidgets.__version__,
}))
"""


# ----------------------------------------------------------------------------------------------------------- the bundle


@pytest.fixture(scope="module")
def the_course(tmp_path_factory) -> Path:
    """A git repository with a copy of the course, which nobody edits while the tests run."""
    folder = tmp_path_factory.mktemp("published") / "moe_lesson"
    for name in ("moe_lesson", "notebooks", "data", "tools"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, folder)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(folder)]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--no-verify", "-m", "the course"]):
        subprocess.run(git + command, check=True)
    return folder


def build(course: Path, path: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "REPO", course)
        return bundle.build(path)


@pytest.fixture(scope="module")
def the_bundle(the_course, tmp_path_factory) -> Path:
    return build(the_course, tmp_path_factory.mktemp("dist") / colab.BUNDLE)


def test_the_bundle_holds_the_whole_package_the_lessons_and_the_data(the_course, the_bundle):
    with zipfile.ZipFile(the_bundle) as archive:
        names = archive.namelist()
        (wheel,) = (name for name in names if name.endswith(".whl"))
        packed = zipfile.ZipFile(archive.open(wheel)).namelist()
        bytes_of = {name: archive.read(name) for name in names}
    package = {path.relative_to(the_course).as_posix() for path in (the_course / "moe_lesson").rglob("*") if path.is_file()}
    assert {name for name in packed if ".dist-info/" not in name} == package
    assert {path.relative_to(the_course).as_posix() for path in (the_course / "notebooks").rglob("*.*")} <= set(names)
    assert {"__main__.py", "data/README.md", "data/checkpoints/SHA256SUMS"} <= set(names)
    for name in set(names) - {"__main__.py", wheel}:
        assert bytes_of[name] == (the_course / name).read_bytes()


def test_the_same_files_give_the_same_bundle(the_course, the_bundle, tmp_path):
    assert build(the_course, tmp_path / "dist" / "again.zip").read_bytes() == the_bundle.read_bytes()
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["again.zip"], "nothing is left beside it"


def test_what_editors_and_systems_hide_stays_out(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "REPO", tmp_path)
    for name in ("notebooks/00.ipynb", "notebooks/.ipynb_checkpoints/00-copy.ipynb", "data/.DS_Store", "data/results/a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert bundle.contents(Path("w.whl")).keys() == {"__main__.py", "w.whl", "notebooks/00.ipynb", "data/results/a.csv"}


# ----------------------------------------------------------------------------------------------------------- like Colab


@pytest.fixture(scope="module")
def colab_python(tmp_path_factory) -> Path:
    """The interpreter of an environment like Colab's."""
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--target", str(packages), "-r", str(REQUIREMENTS)], check=True)  # fmt: skip
    # A folder named in a .pth file is searched after this one, and its own .pth files are not read: so the editable
    # moe_lesson of this environment is not there.
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "preinstalled.pth").write_text("\n".join(sorted(ours)) + "\n")
    found = run(python, folder, "import importlib.util as u, torch; print(u.find_spec('moe_lesson'), torch.__file__)")
    assert found.stdout.split() == ["None", torch.__file__], found.stdout + found.stderr
    return python


def bare(**more: str) -> dict[str, str]:
    """This process's environment without what leads Python to the course."""
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MOE_LESSON_DATA", "MPLBACKEND")}
    return given | {"OMP_NUM_THREADS": "1"} | more


def run(python: Path, folder: Path, source: str, *interpreter: str) -> subprocess.CompletedProcess:
    """Run a cell's code in a folder; `interpreter` is e.g. -m IPython."""
    (folder / "cell.ipy").write_text(source)
    home = {"IPYTHONDIR": str(folder / ".ipython"), "HOME": str(folder)}
    return subprocess.run([str(python), *interpreter, "cell.ipy"], cwd=folder, env=bare(**home), capture_output=True, text=True)


def run_lesson(nb, python: Path, folder: Path, monkeypatch) -> None:
    """Run a notebook in a folder, with a kernel of that interpreter."""
    kernel = folder.parent / "jupyter" / "kernels" / "colab" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}", "--IPKernelApp.log_level=40"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "Colab", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(kernel.parents[2]))
    client = NotebookClient(nb, kernel_name="colab", timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute(env=bare(JUPYTER_PATH=str(kernel.parents[2]), MOE_LESSON_HOME=str(folder.parent / "home")))


def test_a_lesson_runs_where_only_the_bundle_was_uploaded(colab_python, the_bundle, tmp_path, monkeypatch):
    folder = tmp_path / "content"
    folder.mkdir()
    shutil.copy(the_bundle, folder)
    with zipfile.ZipFile(the_bundle) as archive:
        nb = nbformat.reads(archive.read("notebooks/" + colab.FIRST_LESSON).decode(), as_version=4)
    assert nb.cells[1].id == "bootstrap"
    nb.cells = needed(nb.cells)  # its models, its text and its table are read
    for cell in nb.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    nb.cells.insert(2, new_code_cell(LOOK, id="look"))

    run_lesson(nb, colab_python, folder, monkeypatch)  # raises if a cell does

    output = {cell.id: cell.outputs for cell in nb.cells if cell.cell_type == "code"}
    seen = json.loads(output["look"][0].text)
    unpacked = folder / Path(colab.BUNDLE).stem
    assert seen["package"] == seen["package of a child"] == str(unpacked / "moe_lesson" / "__init__.py")
    assert seen["torch"] == [torch.__version__, torch.__file__]
    assert f"ipywidgets=={seen['ipywidgets']}" in REQUIREMENTS.read_text().splitlines()
    said, film = output["bootstrap"]
    assert said.text == "The course is in the folder moe-lesson-bundle, with its models and results.\n"
    drawn = base64.b64decode(re.search(r"svg\+xml;base64,([^\"]+)", film.data["text/html"])[1])
    assert drawn == (REPO / "notebooks/pictures/00.svg").read_bytes(), "no folder of pictures lies beside an uploaded lesson"
    assert "RoutingMap(" in output["routing-map"][0].data["text/plain"]
    assert not [o for outputs in output.values() for o in outputs if o.get("name") == "stderr"]
    assert not (unpacked / "notebooks").exists(), "a learner may be writing in a copy of one"


# ------------------------------------------------------------------------------------------------------- the first cell


def test_where_the_course_is_installed_the_cell_does_nothing(monkeypatch, capfd):
    def not_called(*arguments, **named):
        raise AssertionError(f"called with {arguments}")

    for name in ("zipfile.is_zipfile", "runpy.run_path", "subprocess.Popen", "socket.socket"):
        monkeypatch.setattr(name, not_called)
    names = {}
    exec(colab.cell_source(None), names)
    assert "course" not in names and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["an empty folder", "a folder named moe_lesson", "half an upload"])
def test_without_package_bundle_and_address_the_cell_says_what_to_do(colab_python, the_bundle, tmp_path, place):
    if place == "a folder named moe_lesson":
        (tmp_path / "moe_lesson").mkdir()
    if place == "half an upload":
        (tmp_path / colab.BUNDLE).write_bytes(the_bundle.read_bytes()[:100_000])
    stopped = run(colab_python, tmp_path, colab.cell_source(None))
    assert stopped.returncode == 1 and stopped.stdout == ""
    assert stopped.stderr.splitlines()[-1] == (
        "FileNotFoundError: The course is not installed here: upload moe-lesson-bundle.zip (tools/bundle.py makes it) "
        "to this folder, wait until it is complete, and run this cell again.")  # fmt: skip


def test_with_an_address_the_cell_clones_the_course_once(colab_python, the_course, tmp_path):
    cell = colab.cell_source(the_course.as_uri()) + "\n" + FOUND
    for _ in range(2):  # the second time after a restart of the kernel, when the clone is there
        ran = run(colab_python, tmp_path, cell, "-m", "IPython", "--colors=NoColor")
        assert ran.returncode == 0 and ran.stderr == "", ran.stdout + ran.stderr
        said, seen = ran.stdout.splitlines()
        assert said == "The course is in the folder moe-lesson-clone, with its models and results."
        assert seen == str(tmp_path / colab.CLONE / "moe_lesson" / "__init__.py")


def test_a_bundle_comes_before_the_address_and_an_address_that_fails_is_said(colab_python, the_bundle, tmp_path):
    cell = colab.cell_source(str(tmp_path / "nowhere")) + "\n" + FOUND
    failed = run(colab_python, tmp_path, cell, "-m", "IPython", "--colors=NoColor")
    assert "The course is not installed here: upload moe-lesson-bundle.zip" in failed.stdout + failed.stderr
    shutil.copy(the_bundle, tmp_path)
    ran = run(colab_python, tmp_path, cell, "-m", "IPython", "--colors=NoColor")
    assert ran.returncode == 0 and "moe-lesson-bundle/moe_lesson" in ran.stdout and not (tmp_path / colab.CLONE).exists()


def test_only_small_packages_are_installed_and_nothing_with_them(monkeypatch):
    here = {*bootstrap.NEEDED} - {"safetensors", "anywidget"}
    commands = []

    def install(command, **named):
        commands.append(command)
        here.update(command)

    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: name in here or None)
    monkeypatch.setattr(bootstrap.subprocess, "run", install)
    bootstrap.provide_packages()
    (command,) = commands
    assert command[1:] == ["-m", "pip", "install", "--quiet", "--no-deps", "safetensors", "anywidget", "psygnal"]

    bootstrap.provide_packages()
    assert len(commands) == 1, "nothing is missing any more"
    here.difference_update({"torch", "matplotlib"})
    with pytest.raises(ImportError, match="needs torch, matplotlib, which this machine lacks"):
        bootstrap.provide_packages()
    assert len(commands) == 1, "what is large is left to the reader"


def test_the_cell_looks_for_all_that_the_lessons_need():
    project = colab.project()
    needed = {Requirement(line).name for line in project["dependencies"] + project["optional-dependencies"]["lab"]}
    assert set(bootstrap.NEEDED) == {name.replace("-", "_") for name in needed} - {"jupyterlab"}


# ------------------------------------------------------------------------------------------------------------ the stamp


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_has_the_cell_and_the_badge_of_the_stamp(path):
    stored, stamped = (nbformat.read(path, as_version=4) for _ in range(2))
    colab.stamp(stamped, path.name, colab.address())
    assert [(cell.id, cell.source) for cell in stored.cells] == [(cell.id, cell.source) for cell in stamped.cells], (
        "run `make notebooks`")  # fmt: skip
    assert [cell.id for cell in stored.cells if cell.cell_type == "code"][0] == "bootstrap"
    assert stored.cells[1].outputs == [] and stored.cells[1].metadata == stamped.cells[1].metadata


def test_the_readme_has_the_badge_of_the_stamp():
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    site = colab.address(of="Documentation")
    assert readme == colab.stamped_readme(readme, colab.address(), site), "run `make notebooks`"
    assert "python3 tools/bundle.py" in readme and colab.BUNDLE in readme


def test_the_bundle_is_built_by_a_python_that_has_nothing_of_the_course():
    absent = ("moe_lesson", "torch", "numpy", "nbformat", "heroes", "colab")
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); import bundle; print(bundle.BUNDLE)"
    found = subprocess.run([sys.executable, "-c", program], cwd=REPO / "tools", capture_output=True, text=True)
    assert found.stdout.strip() == colab.BUNDLE, found.stderr


def test_badges_come_with_an_address_in_pyproject_and_go_with_it(tmp_path):
    pyproject = tmp_path / "pyproject.toml"
    text = re.sub(r"^\[project\.urls\]\n.*?(?=^\[)", "", (REPO / "pyproject.toml").read_text(), flags=re.MULTILINE | re.DOTALL)
    pyproject.write_text(text)
    assert colab.address(pyproject) is None
    pyproject.write_text(text + f'\n[project.urls]\nRepository = "{ADDRESS}"\n')
    assert colab.address(pyproject) == ADDRESS

    link = f"(https://colab.research.google.com/github/someone/moe/blob/main/notebooks/{colab.FIRST_LESSON})"
    nb = nbformat.read(REPO / "notebooks" / colab.FIRST_LESSON, as_version=4)
    colab.stamp(nb, colab.FIRST_LESSON, None)
    readme = colab.stamped_readme((REPO / "README.md").read_text(encoding="utf-8"), None)
    before = [nb.cells[0].source, nb.cells[1].source, readme]
    assert not [text for text in before if "colab.research" in text or "git clone" in text]
    for _ in range(2):  # a second stamp adds no second badge
        colab.stamp(nb, colab.FIRST_LESSON, ADDRESS)
        readme = colab.stamped_readme(readme, ADDRESS)
        for text in (nb.cells[0].source, readme):
            assert text.startswith("# ") and text.count("[![Open in Colab](") == 1
            assert text.split("\n\n")[1].endswith(link), "it stands under the title"
        assert f"git clone --quiet --depth 1 {ADDRESS} " in nb.cells[1].source
        assert [cell.id for cell in nb.cells].count("bootstrap") == 1
    colab.stamp(nb, colab.FIRST_LESSON, None)
    assert before == [nb.cells[0].source, nb.cells[1].source, colab.stamped_readme(readme, None)]


def test_the_readmes_badges_of_ci_and_of_the_site_come_with_their_addresses_and_go_with_them():
    plain = colab.stamped_readme((REPO / "README.md").read_text(encoding="utf-8"), None)
    assert "![Licence: Apache-2.0]" in plain and "![Python 3.10 to 3.14]" in plain
    assert "![CI]" not in plain and "Open the lessons in your browser" not in plain
    full = colab.stamped_readme(plain, ADDRESS, "https://someone.example/moe")
    assert f"[![CI]({ADDRESS}/actions/workflows/ci.yml/badge.svg)]" in full
    assert full.split("\n\n")[2] == "**[Open the lessons in your browser](https://someone.example/moe)**: nothing to install."
    assert "-in_your_browser-6a1fb3)](https://someone.example/moe)" in full and "[![Open the site]" not in plain
    assert colab.stamped_readme(full, ADDRESS, "https://someone.example/moe") == full, "a second stamp adds nothing"
    assert colab.stamped_readme(full, None) == plain
    assert "![CI]" not in colab.stamped_readme(plain, "https://gitlab.com/someone/moe")


def test_an_address_that_colab_cannot_open_gives_no_badge():
    assert colab.badge(colab.FIRST_LESSON, "https://gitlab.com/someone/moe") is None
    assert colab.badge(colab.FIRST_LESSON, ADDRESS + ".git") == colab.badge(colab.FIRST_LESSON, ADDRESS)


def test_a_title_alone_takes_a_badge_and_gives_it_back():
    nb = new_notebook(cells=[new_markdown_cell("# A lesson", id="title"), new_code_cell("1 + 1", id="sum")])
    colab.stamp(nb, "x.ipynb", ADDRESS)
    assert [cell.id for cell in nb.cells] == ["title", "bootstrap", "sum"] and nb.cells[0].source.startswith("# A lesson\n\n[!")
    colab.stamp(nb, "x.ipynb", None)
    assert nb.cells[0].source == "# A lesson"


@pytest.mark.parametrize("address", [None, "https://github.com/someone-with-a-name/moe_lesson"])
def test_the_cell_is_one_that_ruff_passes(address, tmp_path):
    nb = new_notebook(cells=[new_code_cell(colab.cell_source(address), id="bootstrap")])
    nbformat.write(nb, tmp_path / "x.ipynb")
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "."]
    ruff = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ruff.returncode == 0, textwrap.indent(ruff.stdout, "  ")
