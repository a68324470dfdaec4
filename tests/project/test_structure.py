"""How the package is built: rooms import downwards, no circles, imports at the top, short modules, each with its tests."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "moe_lesson"
ROOMS = ("base", "moe", "lm", "measure", "experiments", "widgets", "teach")  # each imports those before it
# The course's core runs without these (pyproject's extras), or they take seconds to import: functions may import them late.
OPTIONAL = ("IPython", "anywidget", "huggingface_hub", "ipywidgets", "matplotlib", "pandas", "seaborn",
            "transformers", "moe_lesson.widgets")  # which need anywidget
# Modules whose tests stand in a file of another name, which imports them, and why; all others have a test file of their name.
TESTED_ELSEWHERE = {
    "base.storage": "test_shipped_data: files that ship are what it writes",
    "base.text": "test_corpora: text of all kinds on its way into a corpus",
    "base.interrupts": "test_training: interrupting one",
    "experiments.__main__": "test_experiments: one command, one run from end to end",
    "experiments.catalogue": "test_experiments: one command, one run from end to end",
    "experiments.diagnoses": "test_experiments: one command, one run from end to end",
    "experiments.provenance": "test_experiments: one command, one run from end to end",
    "experiments.run": "test_experiments: one command, one run from end to end",
    "experiments.rungs": "test_experiments: the catalogue's rungs, by their cost",
    "experiments.tasks": "test_experiments: one command, one run from end to end",
    "lm.evaluate": "test_devices: the loss of a model, here and elsewhere; test_training has its unit",
    "lm.machine_text": "test_corpora: the three sources of a corpus",
    "lm.own_text": "test_corpora: the three sources of a corpus",
    "lm.wheel_text": "test_fetched_text: wheels are what is fetched",
    "measure.ablations": "test_ablation_view: it packs a table for that widget",
    "moe.parallel_demo": "test_parallel: the processes that it starts",
    "moe.recipes": "test_ledger: a recipe is its cost",
    "moe.rows": "test_dispatch: rows are what a dispatch moves",
    "teach.design": "test_plots: figures in that design",
    "teach.guesses": "test_lesson: a guess goes in by a lesson's form and comes out of its lines",
}
MOST_LINES_OF_A_WIDGET = 420
MOST_LINES = 350


@dataclass(frozen=True)
class Import:
    """One import in a module of the package."""

    module: str  # where it stands
    line: int
    target: str  # the module that it names: "moe_lesson.moe.layers", "torch.nn"
    inner: bool  # inside a function

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules_of(package: Path) -> dict[str, Path]:
    """dotted name -> file, for all modules of a package."""
    files = {path.relative_to(package.parent).with_suffix(""): path for path in sorted(package.rglob("*.py"))}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}


def imports_of(package: Path) -> list[Import]:
    """All imports of a package: at the top, in functions and under TYPE_CHECKING; relative ones under their full name."""
    modules, found = modules_of(package), []
    for module, path in modules.items():
        def collect(node, inner, module=module, path=path):
            targets = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                above = above[:len(above) + 1 - node.level] if node.level else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                # `from package import name` names a module where there is one of that name, else what its source defines.
                names = {f"{source}.{alias.name}" for alias in node.names}
                targets = sorted({name if name in modules else source for name in names})
            found.extend(Import(module, node.lineno, target, inner) for target in targets)
            for child in ast.iter_child_nodes(node):
                collect(child, inner or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))
        collect(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


def circles(imports: list[Import]) -> list[str]:
    """Circles of imports within the package, as "a -> b -> a": for each module that is in any, a shortest one through it."""
    after: dict[str, set[str]] = {}
    for one in imports:
        after.setdefault(one.module, set()).add(one.target)
    found = {}
    for start in sorted(after):
        ways, seen = [[start]], set()
        while ways:
            way = ways.pop(0)
            if start in after.get(way[-1], ()):
                found.setdefault(frozenset(way), " -> ".join([*way, start]))
                break
            new = sorted(after.get(way[-1], set()) - seen)
            seen.update(new)
            ways += [[*way, one] for one in new]
    return list(found.values())


def upward(imports: list[Import], rooms: tuple[str, ...] = ROOMS) -> list[str]:
    """Imports of a room from a later one, or from the front door, which imports all of them."""
    def place(module: str) -> int:
        room = module.split(".")[1] if "." in module else None
        return rooms.index(room) if room in rooms else len(rooms)
    package = {one.module.split(".")[0] for one in imports}
    return [str(one) for one in imports if one.target.split(".")[0] in package and place(one.module) < place(one.target)]


def hidden(imports: list[Import]) -> list[str]:
    """Imports inside functions, but for the optional packages."""
    return [str(one) for one in imports if one.inner and not f"{one.target}.".startswith(tuple(f"{name}." for name in OPTIONAL))]


# --- the package of the course -----------------------------------------------------------------------------------------


def test_every_room_has_its_place_in_the_order():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


def test_no_module_imports_itself_by_a_detour():
    assert circles(imports_of(PACKAGE)) == []


def test_a_room_imports_only_rooms_before_it():
    assert upward(imports_of(PACKAGE)) == []


def test_functions_import_nothing_but_optional_packages():
    assert hidden(imports_of(PACKAGE)) == []


def test_no_module_is_long():
    sizes = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules_of(PACKAGE).items()}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES and ".widgets" not in name} == {}


DOORS = ("require", "whole_number", "positive_number", "check_ids")  # what refuses an argument


def silent_refusals(source: str) -> list[str]:
    """Public functions that describe their arguments, refuse some, and do not say so."""
    return [function.name for function in ast.walk(ast.parse(source))
            if isinstance(function, ast.FunctionDef) and not function.name.startswith("_")
            and "Args:" in (said := ast.get_docstring(function) or "") and "Raises:" not in said
            and any(isinstance(node, ast.Raise) and node.exc is not None
                    or isinstance(node, ast.Call) and getattr(node.func, "id", "") in DOORS for node in ast.walk(function))]


def test_a_function_that_refuses_arguments_says_so():
    told = 'def told(door):\n    """Open.\n\n    Args:\n        door: one.\n    """\n'
    assert silent_refusals(told + '    require(door, "no")') == ["told"] and silent_refusals(told) == []
    silent = {name: silent_refusals(path.read_text(encoding="utf-8")) for name, path in modules_of(PACKAGE).items()}
    assert {name: functions for name, functions in silent.items() if functions} == {}


def test_every_test_of_a_name_stands_once():
    tests = [path.name for path in (REPO / "tests").rglob("test_*.py")]
    assert sorted(set(tests)) == sorted(tests), "pytest imports test files by their names alone"


def test_every_module_with_functions_has_a_test_file_of_its_name_or_is_named_with_a_reason():
    files = {path.stem: path for path in (REPO / "tests").rglob("test_*.py")}
    untested = []
    for name, path in modules_of(PACKAGE).items():
        short = name.removeprefix("moe_lesson.")
        public = re.search(r"^(def|class) [A-Za-z]", path.read_text(encoding="utf-8"), re.MULTILINE)
        if public and path.name != "__init__.py" and not short.startswith(("widgets.", "teach.checks.")):
            if f"test_{path.stem}" in files:
                assert short not in TESTED_ELSEWHERE, f"{short} has its own test file now"
            elif short not in TESTED_ELSEWHERE:
                untested.append(short)
    assert untested == [], "write tests/ROOM/test_NAME.py; a widget's and a lesson's checks have files that try them all"
    assert {reason.split(":")[0] for reason in TESTED_ELSEWHERE.values()} <= set(files)


def test_every_widget_has_a_folder_with_its_data_its_view_and_its_tests():
    folders = sorted(path.parent for path in (PACKAGE / "widgets").glob("[!k]*/*.js"))
    assert len(folders) > 12
    for folder in folders:
        files = {path.name for path in folder.iterdir()}
        assert files - {"__pycache__", "style.css"} == {"__init__.py", "data.py", "view.js"}, folder
        assert (REPO / "tests/widgets" / folder.name / f"test_{folder.name}.py").exists(), folder


def test_a_widgets_style_reaches_no_other_widget_on_the_page():
    def written(folder: Path) -> str:
        return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.[jc]s*")))

    folders = [path.parent for path in (PACKAGE / "widgets").glob("*/style.css")]
    classes = {folder.name: set(re.findall(r"moe-[a-z-]+", written(folder))) for folder in folders}
    for folder in (folder for folder in folders if folder.name != "kit"):
        others = set().union(*(those for name, those in classes.items() if name != folder.name))
        plain = re.sub(r"/\*.*?\*/", "", (folder / "style.css").read_text(encoding="utf-8"), flags=re.DOTALL)
        for rule in re.findall(r"([^{}]+)\{[^{}]*\}", plain):
            assert set(re.findall(r"moe-[a-z-]+", rule)) & (classes[folder.name] - others), f"{folder.name}: {rule.strip()}"


def test_a_widget_is_short_enough_to_be_read():
    longer = {"expert_explorer": 580, "contribution_view": 500, "fact_finder": 480, "redundancy_lens": 480, "router_game": 460}
    for folder in (PACKAGE / "widgets").glob("[!k]*/view.js"):
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.parent.glob("*.*"))
        assert lines <= longer.get(folder.parent.name, MOST_LINES_OF_A_WIDGET), f"{folder.parent.name}: {lines}"


# --- the graph itself: each fault is found -----------------------------------------------------------------------------


def made(folder: Path, **sources: str) -> list[Import]:
    """The imports of a small package `p`; its modules by name, "__" for a dot."""
    for name, source in {"__init__": "", **sources}.items():
        path = folder / "p" / f"{name.replace('__', '/') if not name.startswith('_') else name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return imports_of(folder / "p")


CIRCLES = {
    "at the top": ("from p import b", "import p.a"),
    "relative": ("from . import b", "from .a import thing"),
    "in a function": ("from p.b import f", "def f():\n    from p import a\n    return a"),
    "for types": ("from .b import f", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import T"),
    "in a class": ("import p.b", "class C:\n    try:\n        import p.a\n    except ImportError:\n        pass"),
}


@pytest.mark.parametrize("sources", CIRCLES.values(), ids=CIRCLES)
def test_a_circle_is_found(tmp_path, sources):
    assert circles(made(tmp_path, a=sources[0], b=sources[1], c="import p.a")) == ["p.a -> p.b -> p.a"]


def test_a_long_circle_a_short_one_and_one_through_the_front_door_are_found(tmp_path):
    long = made(tmp_path / "long", a="import p.b", b="import p.c", c="import p.a\nimport p.c", d="import p.a")
    assert circles(long) == ["p.a -> p.b -> p.c -> p.a", "p.c -> p.c"]
    assert circles(made(tmp_path / "door", __init__="from .a import f", a="from . import f")) == ["p -> p.a -> p"]
    assert circles(made(tmp_path / "none", a="import p.b, p.c", b="from .c import x", c="import torch")) == []


def test_an_upward_import_is_found(tmp_path):
    rooms = ("low", "high")
    imports = made(tmp_path, low__a="from ..high import b\nfrom ..low import c", low__c="import p\nimport torch",
                   high__b="from p.low.a import x", high____init__="")
    assert upward(imports, rooms) == ["p.low.a:1 imports p.high.b", "p.low.c:1 imports p"]


def test_an_import_in_a_function_is_found(tmp_path):
    imports = made(tmp_path, a="import math\n\ndef f():\n    import json\n    import pandas.api\n    async def g():\n"
                               "        from .b import x\n", b="class C:\n    import math\n")
    assert hidden(imports) == ["p.a:4 imports json", "p.a:7 imports p.b"]


def test_the_graph_has_every_import_line_of_the_package():
    names = {f"{one.module} {one.target}" for one in imports_of(PACKAGE)}
    for module, path in modules_of(PACKAGE).items():
        for source in re.findall(r"^from (moe_lesson[\w.]*) import", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert any(name.startswith(f"{module} {source}") for name in names), (module, source)
