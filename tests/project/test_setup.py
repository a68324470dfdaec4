"""The set-up keeps its promises: what is pinned, what Colab has, what an import costs, what the files may say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import colab
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

REPO = Path(__file__).resolve().parents[2]
PROJECT = colab.project()
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + sum(EXTRAS.values(), [])]
PINS = [Requirement(line) for line in (REPO / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]

# What Colab has before anything is installed (August 2026).
COLAB_PYTHON = "3.13"
COLAB = {"torch": "2.11", "ipywidgets": "7.7.1", "ipython": "7.34", "matplotlib": "3.10", "seaborn": "0.13.2",
         "anywidget": "0.9", "scipy": "1.16", "tqdm": "4.67", "pandas": "2.2.2", "jinja2": "3.1"}  # fmt: skip


def pins(name: str, python: str) -> list[Requirement]:
    """The lines of constraints.txt that hold for this package on this Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.9"}
    return [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(name)
            and (pin.marker is None or pin.marker.evaluate(environment))]  # fmt: skip


@pytest.mark.parametrize("python", PYTHONS)
def test_each_dependency_has_one_exact_pin_within_its_bounds(python):
    for requirement in DIRECT:
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue
        found = pins(requirement.name, python)
        assert len(found) == 1, f"constraints.txt has {len(found)} lines for {requirement.name} on Python {python}"
        (pin,) = found[0].specifier
        assert pin.operator == "==" and "+" not in pin.version, f"{pin} is not one public version"
        assert requirement.specifier.contains(pin.version), f"{pin} is not within {requirement}"


def test_pyproject_sets_lower_bounds_only():
    bounds = [f"{requirement.name}{bound}" for requirement in DIRECT for bound in requirement.specifier]
    assert [bound for bound in bounds if ">=" not in bound] == []


def test_colab_needs_nothing_reinstalled():
    assert SpecifierSet(PROJECT["requires-python"]).contains(COLAB_PYTHON)
    for requirement in DIRECT:
        if version := COLAB.get(requirement.name):
            assert requirement.specifier.contains(version), f"Colab has {requirement.name} {version}"


def test_the_tests_that_play_colab_have_its_ipywidgets():
    assert f"ipywidgets=={COLAB['ipywidgets']}" in (REPO / "tests/lessons/colab_requirements.txt").read_text().splitlines()


def test_this_environment_has_the_pinned_versions():
    """Where `make test` runs, the versions are those of constraints.txt; elsewhere (conda, Colab) they may differ."""
    if Path(sys.prefix) != REPO / ".venv":
        pytest.skip("not in the project's .venv")
    from importlib.metadata import distributions
    from sysconfig import get_path

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    here = [get_path("purelib")]  # a test may have put what setuptools brings along on sys.path
    installed = {canonicalize_name(d.metadata["Name"]): Version(d.version) for d in distributions(path=here)}
    wrong = {name: str(version) for name, version in installed.items()
             for pin in pins(name, python) if not pin.specifier.contains(version)}  # fmt: skip
    assert not wrong, f"not the versions of constraints.txt: {wrong}"
    left_to_others = re.compile(r"moe-lesson|pip|wheel|nvidia-.*|cuda-.*|triton")
    unpinned = [name for name in installed if not pins(name, python) and not left_to_others.fullmatch(name)]
    assert not unpinned, f"constraints.txt does not pin {unpinned}"


def ci_job() -> dict:
    """The one job of CI on GitHub."""
    (job,) = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text())["jobs"].values()
    return job


def ci_pythons() -> list[str]:
    """The Pythons that CI runs, as they stand in the names of its container images."""
    return ci_job()["strategy"]["matrix"]["python"]


def test_ci_runs_the_oldest_python_and_that_of_colab():
    assert ci_job()["container"] == "python:${{ matrix.python }}-bookworm"
    assert {PYTHONS[0], COLAB_PYTHON} <= set(ci_pythons()) <= set(PYTHONS), "in quotes: 3.10 without is the number 3.1"
    assert [python for python in PYTHONS if SpecifierSet(PROJECT["requires-python"]).contains(python)] == PYTHONS


def test_the_site_is_toured_in_a_browser_before_it_is_published():
    job = yaml.safe_load((REPO / ".github/workflows/site.yml").read_text())["jobs"]["publish"]
    assert re.fullmatch(r"python:3\.\d+-bookworm", job["container"]), "Debian, whose chromium is a plain package"
    steps = [step.get("run") or step["uses"] for step in job["steps"]]
    built, toured, published = (next(i for i, step in enumerate(steps) if words in step)
                                for words in ("make site", "tools/site_tour.py", "upload-pages-artifact"))
    assert built < toured < published and "chromium" in steps[toured]


def test_conda_environment_agrees_with_pyproject():
    text = (REPO / "environment.yml").read_text()
    (python,) = re.findall(r"^  - python=([\d.]+)", text, re.MULTILINE)
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert python in ci_pythons()
    (extras,) = re.findall(r"^      - -e \.\[(.*)\]$", text, re.MULTILINE)
    assert set(extras.split(",")) == {"lab", "test"} <= set(EXTRAS)
    assert "      - -c constraints.txt\n" in text


@pytest.mark.parametrize("system, machine, version, words", [
    ("darwin", "x86_64", (3, 12), "Intel Macs .* Colab"), ("darwin", "arm64", (3, 12), None),
    ("linux", "x86_64", (3, 9), "needs Python"), ("linux", "x86_64", (3, 12), None)])
def test_make_says_at_once_where_the_course_cannot_be_installed(monkeypatch, system, machine, version, words):
    check = re.search(r"define CHECK_PYTHON\n(.*?)\nendef", (REPO / "Makefile").read_text(), re.DOTALL)[1]
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("sys.version_info", version)
    if words is None:
        exec(check, {})
    else:
        with pytest.raises(SystemExit, match=words):
            exec(check, {})


def test_ci_runs_both_test_targets():
    assert (REPO / ".ci/run").read_text().splitlines()[-2:] == ["make test", "make test-colab-widgets"]
    assert "bash .ci/run" in [step.get("run") for step in ci_job()["steps"]]


def test_matplotlib_takes_its_list_of_fonts_from_the_venv_that_has_them():
    """A list in the home folder outlives the .venv whose fonts it names; such a one once failed CI."""
    recipe = 'fonts: ; @python3 -c "import os; print(os.environ[\'MPLCONFIGDIR\'])"'
    make = ["make", "-s", "-f", "Makefile", "-f", "-", "fonts"]
    told = subprocess.run(make, input=recipe, cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(REPO / ".venv/matplotlib")


def fresh_import(first: str) -> tuple[set[str], set[str]]:
    """Import moe_lesson after others in a new Python: packages it adds, and all that are loaded then."""
    code = (
        f"import sys, json, {first}; before = set(sys.modules); import moe_lesson; "
        "names = lambda modules: {name.partition('.')[0] for name in modules} - set(sys.stdlib_module_names); "
        "print(json.dumps([sorted(names(sys.modules) - names(before)), sorted(names(sys.modules))]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert run.returncode == 0, run.stderr[-2000:]
    added, loaded = map(set, json.loads(run.stdout))
    return added, loaded


def test_import_needs_no_more_than_the_core_dependencies():
    """torch, numpy, scipy, tqdm and safetensors, with what these load themselves, and nothing of the lab."""
    core = {"torch", "numpy", "scipy", "tqdm", "safetensors"} | {"charset-normalizer", "filelock"}  # these where they are used
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == core
    added, loaded = fresh_import("torch.utils.flop_counter, numpy, scipy.special, tqdm.auto, safetensors.torch")
    assert added == {"moe_lesson"}, "import these where they are used, not at the top of a module"
    lab = {Requirement(line).name for line in EXTRAS["lab"]} | {"IPython"}
    assert {"matplotlib", "ipywidgets", "pandas"} <= lab and not loaded & lab, "these are for moe_lesson.teach and widgets"


def project_files() -> list[Path]:
    """Every file that is, or could be, committed."""
    listing = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=REPO, capture_output=True)
    if listing.returncode:
        pytest.skip("not in a git repository")
    return [path for name in listing.stdout.decode().split("\0") if name and (path := REPO / name).is_file()]


def test_no_file_names_this_machine_or_what_lies_outside():
    # Each put together from two parts, so that this file does not find itself.
    banned = [one + two for one, two in [
        (b"../", b"shared"), (b"/wo", b"rk/"), (b"/ro", b"ot/"),
        (b"pypi", b".org"), (b"python", b"hosted.org"), (b"npmjs", b".org"), (b"deb.debian", b".org"),
    ]]  # fmt: skip
    found = [f"{path.relative_to(REPO)}: {text.decode()}" for path in project_files()
             for content in [path.read_bytes()] for text in banned if text in content]  # fmt: skip
    assert not found, found
