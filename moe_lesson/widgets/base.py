"""What all widgets of the course share: a stable line of text, a static picture, and freeing themselves."""

from __future__ import annotations

import base64
import pathlib
import sys
import weakref
from collections.abc import Collection, Mapping

import anywidget
import traitlets

HERE = pathlib.Path(__file__).parent
VIEW = "application/vnd.jupyter.widget-view+json"


def module_source(name: str) -> str:
    """The ES module of a widget: common.js and the widget's own file in one, without imports."""
    return "\n".join((HERE / f"{part}.js").read_text(encoding="utf-8") for part in ("common", name))


def stylesheet(own: str | None = None) -> str:
    """The style that all widgets share, and what a widget adds to it in a file of its own."""
    return "\n".join((HERE / f"{part}.css").read_text(encoding="utf-8") for part in ("common", own) if part)


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
    """A widget that shows a picture where it can't run, and that is closed when its cell runs again.

    A subclass sets `_esm` and `_css`, and writes `describe()` and `picture()`.
    """

    _ipython_display_ = None  # ipywidgets 7 would prefer it to the bundle, and leave the picture out

    def __init__(self, **traits):
        self._place, self._run = running_cell()
        close_earlier_runs(self._place, self._run)
        super().__init__(**traits)
        LIVE.add(self)

    def describe(self) -> str:
        """One line without anything that changes between two runs (no id, no address)."""
        raise NotImplementedError

    def picture(self) -> bytes:
        """A PNG of what the widget shows now."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        data = {"text/plain": repr(self), "image/png": base64.b64encode(self.picture()).decode("ascii")}
        if self.comm is not None:
            data[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return data, colab_metadata()

    def close(self):
        """Take the widget off the page; it keeps its picture."""
        LIVE.discard(self)
        self.layout.close()  # a widget of its own
        super().close()
        for hidden in ("_repr_mimebundle_", "_ipython_display_"):  # ipywidgets blanks one of them when it closes
            self.__dict__.pop(hidden, None)


def dress_table(table, bold: Collection[int] = ()) -> None:
    """A matplotlib table as the page shows it: faint lines, the first column at the left, some rows bold."""
    table.auto_set_font_size(False)
    table.set_fontsize(10.5)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#b9bec5")
        cell.get_text().set_parse_math(False)
        if column == 0:
            cell.set_text_props(ha="left")
        if row in bold:
            cell.set_text_props(fontweight="bold")


# ipywidgets keeps every widget that was not closed for as long as the kernel lives, with its data and its view.
LIVE: weakref.WeakSet[LessonWidget] = weakref.WeakSet()


def close_earlier_runs(place: str | None, run: object) -> None:
    """Close the widgets that an earlier run of the same cell has made; those of this run are its siblings."""
    if place is not None:
        for widget in [w for w in LIVE if w._place == place and w._run != run]:
            widget.close()


def running_cell() -> tuple[str | None, object]:
    """Which cell is running (its id, or its source where the front end names none), and which run of it this is."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return None, None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = (parent.get("metadata") or {}).get("cellId") or shell.user_ns.get("In", [""])[-1]
    return cell, shell.execution_count


def colab_metadata() -> dict:
    """Where Colab finds its widget manager; nothing elsewhere."""
    output = sys.modules.get("google.colab.output")
    url = getattr(getattr(output, "_widgets", None), "_installed_url", None)
    return {VIEW: {"colab": {"custom_widget_manager": {"url": url}}}} if url else {}
