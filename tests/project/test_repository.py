"""What a repository is expected to have: licence, citation, changelog, hooks, and pages that name files that are there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import colab
import nbformat
import pytest
import store_notebooks
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

REPO = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
PROJECT = colab.project()
PAGES = ("README.md", "CONTRIBUTING.md")
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))


def read(name: str) -> str:
    return (REPO / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------ licence, citation, changelog


def test_the_licence_is_apache_2_whole_and_unfilled():
    lines = [line.strip() for line in read("LICENSE").splitlines() if line.strip()]
    assert lines[:4] == ["Apache License", "Version 2.0, January 2004", "http://www.apache.org/licenses/",
                         "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"]  # fmt: skip
    sections = [line.partition(". ")[0] for line in lines if re.match(r"\d\. [A-Z]", line)]
    assert sections == [str(number) for number in range(1, 10)] and "END OF TERMS AND CONDITIONS" in lines
    appendix = lines[lines.index("END OF TERMS AND CONDITIONS") + 1:]
    assert appendix[0] == "APPENDIX: How to apply the Apache License to your work."
    assert "Copyright [yyyy] [name of copyright owner]" in appendix and appendix[-1] == "limitations under the License."


def test_pyproject_says_the_same_licence():
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"] and PROJECT["readme"] == "README.md"
    assert not [line for line in PROJECT["classifiers"] if line.startswith("License")], "an SPDX expression forbids them"
    pythons = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert pythons == ["3.10", "3.11", "3.12", "3.13", "3.14"]


def test_the_citation_is_of_this_version_and_licence():
    cited = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys(), "what CFF asks for"
    assert str(cited["cff-version"]) == "1.2.0" and cited["type"] == "software"
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert cited["authors"] == PROJECT["authors"]


def test_the_package_says_the_same_version():
    assert f'\n__version__ = "{PROJECT["version"]}"\n' in read("moe_lesson/__init__.py")


def test_the_changelog_has_an_entry_for_this_version():
    entries = re.findall(r"^## (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert entries[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", entry) for entry in entries[1:])
    assert [entry for entry in entries if entry.startswith(f"{PROJECT['version']} - ")]


# ---------------------------------------------------------------------------------------------- the paths of the pages

MADE = ("dist/", "runs/", "my-lessons/", ".venv")  # by a command: not there until it has run
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"[\w.*-]+\.(py|js|mjs|css|md|toml|txt|cfg|cff|yml|yaml|ipynb|csv|json|html|png)")


def named_paths(page: str) -> set[str]:
    """Words in backticks, and in blocks of commands, that look like paths of the repository."""
    blocks = [text for language, text in FENCED.findall(page) if not language]
    spans = re.findall(r"`([^`]+)`", FENCED.sub("", page))
    words = {word.rpartition("=")[2].strip("',") for text in blocks + spans for word in text.split()}
    return {word for word in words if (re.fullmatch(r"[\w.*-]+(/[\w.*-]*)+", word) or FILE.fullmatch(word))
            and not word.startswith(MADE) and not re.search(r"NN|NAME|…", word)}  # fmt: skip


def exists(path: str) -> bool:
    """Whether there is such a path; a file's name alone may lie in any folder that git knows."""
    return any(REPO.glob(path.rstrip("/"))) or "/" not in path and any(
        any(REPO.glob(f"{folder}/**/{path}")) for folder in ("moe_lesson", "tests", "tools", "data", "notebooks"))


def test_paths_are_found_in_a_page():
    page = ("`tools/a.py` `python tools/b.py --out data` `dist/c.zip` `notebooks/NN-name.ipynb` `x/y` `a.b` `d.py`\n"
            "`.json` `make lab`\n```\nrun FILES=e/f-*.ipynb  # why\n```\n```python\nopen('g/h.py')\n```\n")  # fmt: skip
    assert named_paths(page) == {"tools/a.py", "tools/b.py", "x/y", "d.py", "e/f-*.ipynb"}
    assert exists("tools/store_notebooks.py") and exists("store_notebooks.py") and exists("notebooks/00-*.ipynb")
    assert not exists("tools/no_such.py") and not exists("no_such.py") and not exists("store_notebooks.py/")


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page):
    paths = named_paths(read(page))
    assert len(paths) >= 5 and not [path for path in sorted(paths) if not exists(path)]


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_that_a_page_names_exists(page):
    targets = set(re.findall(r"^([\w.-][\w./-]*):(?!=)", read("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^|cpu )make ([\w.-][\w./-]*)", read(page), re.MULTILINE))
    assert {"test", "test-colab-widgets"} <= named <= targets


# ------------------------------------------------------------------------------------------------ the hooks of pre-commit


def hooks() -> dict[str, dict]:
    """The hooks by their id."""
    return {hook["id"]: hook for repo in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]}


def test_the_hooks_need_no_network_and_their_commands_exist():
    config = yaml.safe_load(read(".pre-commit-config.yaml"))
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert hooks().keys() == {"ruff", "notebooks"}
    for hook in hooks().values():
        python, *rest = hook["entry"].split()
        assert hook["language"] == "system" and python == ".venv/bin/python"
        if rest[0] == "-m":
            assert importlib.util.find_spec(rest[1]), rest[1]
        else:
            assert (REPO / rest[0]).is_file(), rest[0]
    chosen = re.compile(hooks()["notebooks"]["files"])
    assert NOTEBOOKS and all(chosen.search(path.relative_to(REPO).as_posix()) for path in NOTEBOOKS)


def run_hook(name: str, *files: Path) -> subprocess.CompletedProcess:
    """A hook as pre-commit calls it, with the Python that runs the tests."""
    command = [sys.executable, *hooks()[name]["entry"].split()[1:], *map(str, files)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, env=os.environ | {"RUFF_NO_CACHE": "true"})


def test_the_hook_of_ruff_finds_what_is_wrong(tmp_path):
    (tmp_path / "right.py").write_text("import os\n\nprint(os.name)\n")
    (tmp_path / "wrong.py").write_text("import os\n")
    assert run_hook("ruff", tmp_path / "right.py").returncode == 0
    assert run_hook("ruff", tmp_path / "wrong.py").returncode == 1


def stored(path: Path, count: int | None = 1, output=None) -> Path:
    """A notebook as JupyterLab saves it, with the state of widgets."""
    code = new_code_cell("1 + 1", id="sum", execution_count=count, metadata={"execution": {"iopub.status.busy": "now"}})
    code.outputs = [output or new_output("execute_result", {"text/plain": "2"}, execution_count=1)]
    nb = new_notebook(cells=[new_markdown_cell("# A lesson", id="title"), code], metadata={"widgets": {"state": {}}})
    nbformat.write(nb, path)
    return path


def test_the_hook_of_notebooks_cleans_and_keeps_the_outputs(tmp_path):
    path = stored(tmp_path / "lesson.ipynb")
    assert run_hook("notebooks", path).returncode == 0
    nb = nbformat.read(path, as_version=4)
    assert "widgets" not in nb.metadata and "execution" not in nb.cells[1].metadata
    assert nb.cells[1].outputs[0].data["text/plain"] == "2" and nb.cells[1].execution_count == 1
    once = path.read_bytes()
    assert store_notebooks.tidy(path) == (True, f"is clean {path}") and path.read_bytes() == once


@pytest.mark.parametrize("change, says", [
    ({"count": None}, "cell sum was never run"),
    ({"output": new_output("stream", name="stderr", text="a warning")}, "cell sum wrote to stderr: a warning"),
    ({"output": new_output("error", ename="ValueError", evalue="no", traceback=[])}, "cell sum raised"),
])  # fmt: skip
def test_the_hook_of_notebooks_refuses_what_is_unfit(tmp_path, capsys, change, says):
    path = stored(tmp_path / "lesson.ipynb", **change)
    assert store_notebooks.main(["--clean-only", str(path)]) == 1
    assert says in capsys.readouterr().out


def test_the_lessons_are_clean(tmp_path):
    for path in NOTEBOOKS:
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        assert store_notebooks.tidy(copy) == (True, f"is clean {copy}")


def test_no_tool_works_when_it_is_asked_for_help():
    texts = {path.name: path.read_text(encoding="utf-8") for path in (REPO / "tools").rglob("*.py")}
    scripts = {name: text for name, text in texts.items() if '__name__ == "__main__"' in text}
    assert len(scripts) > 10  # bootstrap.py is not called by a person: it is the __main__.py of the bundle
    assert [name for name, text in scripts.items() if not re.search(r"\.parse_(known_)?args\(", text)] == ["bootstrap.py"]
