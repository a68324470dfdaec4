"""What the Python side of every widget shares: its module for the browser, its line of text, and freeing itself."""

from __future__ import annotations

import inspect
import pathlib
import re
import sys
import weakref
from collections.abc import Collection, Mapping

import anywidget
import traitlets
from traitlets import Dict, Int, Unicode

from ...base.design import DESIGN
from ...base.errors import require
from ...base.text import well_formed
from ...base.tokens import encode
from ...lm.model import LanguageModel
from .weights import drop_unused, weights_of

ORIGINS = ("trained", "toy", "synthetic")
VIEW = "application/vnd.jupyter.widget-view+json"
JUPYTER = {"paper": "--jp-layout-color0", "ink": "--jp-ui-font-color0", "line": "--jp-border-color1"}
KIT = pathlib.Path(__file__).parent
IMPORT = re.compile(r'^import (\{[^}]*\}) from "(\.[^"]+)";$', re.M)
EXPORT = re.compile(r"^export (?:(?=(?:async )?(?:function|const|class) (\w+))|\{ (\w+) \};$)", re.M)


def module_source(path: pathlib.Path) -> str:
    """The ES module of a widget in one file, since a page loads nothing else: each module that it imports becomes a constant."""
    modules: dict[pathlib.Path, str] = {}

    def visit(here: pathlib.Path) -> str:
        """The module with what it imports as constants that stand before it."""
        def constant(found: re.Match) -> str:
            there = (here.parent / found[2]).resolve()
            name = f"{there.stem}_module"
            if there not in modules:
                source = visit(there)
                exported = ", ".join(one or other for one, other in EXPORT.findall(source))
                modules[there] = f"const {name} = (() => {{\n{EXPORT.sub('', source)}\nreturn {{ {exported} }};\n}})();"
            return f"const {found[1]} = {name};"

        return IMPORT.sub(constant, here.read_text(encoding="utf-8"))

    own = visit(path.resolve())
    return "\n".join([*modules.values(), own])


def palette() -> str:
    """The design as CSS variables: JupyterLab's colours where it is there, else one for light pages and one for dark ones."""
    colours = {name: colour for name, colour in DESIGN.items() if str(colour).startswith("#")}
    colours |= {name: f"var({JUPYTER[name]}, light-dark({colours[name]}, {dark}))" for name, dark in DESIGN["dark"].items()}
    sizes = {name: f"{size}px" for name, size in DESIGN["type"].items()}
    variables = "; ".join(f"--moe-{name}: {value}" for name, value in (colours | sizes).items())
    return f".moe-root, .moe-form {{ {variables} }}"


def stylesheet(folder: pathlib.Path) -> str:
    """The style that all widgets share, and what a widget adds to it in its folder: nested, so that it counts for more, whichever
    widget's style the page was given last."""
    common, own = KIT / "style.css", folder / "style.css"
    more = f":is(:root, :host) {{\n{own.read_text(encoding='utf-8')}}}" if own.exists() else ""
    return "\n".join([palette(), common.read_text(encoding="utf-8"), more])


def check_origin(origin: str) -> None:
    require(origin in ORIGINS, f"origin is {origin!r}; say where the data comes from: {', '.join(ORIGINS)}")


def one_of(proposal: dict, known: Mapping[str, Collection]) -> object:
    """For a validator: the value that is proposed for a trait, if it is among those known for it."""
    name, value = proposal["trait"].name, proposal["value"]
    if value not in known[name]:
        raise traitlets.TraitError(f"{name} is {value!r}; choose one of {', '.join(map(str, known[name]))}")
    return value


def within(proposal: dict, limits: Mapping[str, tuple[float, float]]) -> float | None:
    """For a validator: the value that is proposed for a trait, if it is from the first to the last for it, or None."""
    name, value = proposal["trait"].name, proposal["value"]
    first, last = limits[name]
    if value is not None and not first <= value <= last:
        raise traitlets.TraitError(f"{name} is {value}; expected {first} … {last}")
    return value


class LessonWidget(anywidget.AnyWidget):
    """A widget whose browser side is the view.js (and style.css) beside it, and that is closed when its cell runs again.

    The browser alone draws and speaks: Python checks data and packs it into traits.

    Args:
        start: the traits that the learner changes, as they are at first and after Reset.
        traits: all others, and any that are not as in `start`.
    """

    title = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)  # of the data, where there is some
    start = Dict().tag(sync=True)

    _ipython_display_ = None  # ipywidgets 7 would prefer it to the bundle

    def __init_subclass__(cls, **options):
        folder = pathlib.Path(inspect.getfile(cls)).parent
        if folder != KIT and not hasattr(cls, "_esm"):  # anywidget makes a class of its own for each widget, with both as traits
            cls._esm, cls._css = module_source(folder / "view.js"), stylesheet(folder)
        super().__init_subclass__(**options)

    def __init__(self, *, start: Mapping = {}, **traits):
        name = type(self).__name__
        require(bool(start or traits), f"{name}() has nothing to show; help({name}) says what makes one")
        check_origin(traits.get("origin", ORIGINS[0]))
        self._place, self._run = running_cell()
        close_earlier_runs(self._place, self._run)
        super().__init__(**{**start, **traits}, start=dict(start))
        LIVE.add(self)

    def __repr__(self) -> str:
        """One line without anything that changes between two runs (no id, no address)."""
        return f"{type(self).__name__}({self.title!r}{f', {self.origin}' if self.origin else ''})"

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        data = {"text/plain": f"{self!r}: run this cell to see it live"}
        if self.comm is not None:
            data[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return data, colab_metadata()

    def close(self):
        """Take the widget off the page."""
        LIVE.discard(self)
        drop_unused({one.weights for one in LIVE if one.has_trait("weights")})
        self.layout.close()  # a widget of its own
        super().close()
        for hidden in ("_repr_mimebundle_", "_ipython_display_"):  # ipywidgets blanks one of them when it closes
            self.__dict__.pop(hidden, None)


class ReadingWidget(LessonWidget):
    """A widget whose browser side reads whatever text the learner writes, with the model's weights."""

    max_tokens = Int().tag(sync=True)
    weights = Unicode().tag(sync=True)  # where the browser finds the model; empty: no text field
    text = Unicode().tag(sync=True, echo_update=False)  # what is typed must not come back under the typing hand

    @property
    def last_token(self) -> int:
        """The last place in a text: of the one at the start, whose tokens Python sent, or of the longest one that fits."""
        return (len(self.tokens) if self.text == self.start["text"] else self.max_tokens) - 1

    def carry(self, model: LanguageModel) -> None:
        """Let the browser run a model: sets the trait `weights`."""
        self.weights, self._vocabulary = weights_of(model).model_id, model.config.vocabulary

    @traitlets.validate("text")
    def _clean_text(self, proposal):
        text = well_formed(proposal["value"])
        if self.weights and (count := len(encode(text, self._vocabulary))) > self.max_tokens:
            raise traitlets.TraitError(f"text has {count} tokens; give the model one of at most {self.max_tokens}")
        return text


# ipywidgets keeps every widget that was not closed for as long as the kernel lives, with its data and its view.
LIVE: weakref.WeakSet[LessonWidget] = weakref.WeakSet()


def close_earlier_runs(place: str | None, run: object) -> None:
    """Close the widgets that an earlier run of the same cell has made; those of this run are its siblings."""
    if place is not None:
        for widget in [w for w in LIVE if w._place == place and w._run != run]:
            widget.close()


def running_cell() -> tuple[str | None, object]:
    """What is running, a cell or the answer to a control, by its id; and which run of it this is. None where nobody says."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    asked = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = (asked.get("metadata") or {}).get("cellId") or (asked.get("content") or {}).get("comm_id")
    return cell, (asked.get("header") or {}).get("msg_id")


def colab_metadata() -> dict:
    """Where Colab finds its widget manager; nothing elsewhere."""
    output = sys.modules.get("google.colab.output")
    url = getattr(getattr(output, "_widgets", None), "_installed_url", None)
    return {VIEW: {"colab": {"custom_widget_manager": {"url": url}}}} if url else {}
