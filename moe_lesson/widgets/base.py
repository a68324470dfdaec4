"""What all widgets of the course share: a stable line of text, a static picture, and freeing themselves."""

from __future__ import annotations

import base64
import pathlib
import sys
import weakref

import anywidget

HERE = pathlib.Path(__file__).parent
VIEW = "application/vnd.jupyter.widget-view+json"


def module_source(name: str) -> str:
    """The ES module of a widget: common.js and the widget's own file in one, without imports."""
    return "\n".join((HERE / f"{part}.js").read_text(encoding="utf-8") for part in ("common", name))


def stylesheet(own: str | None = None) -> str:
    """The style that all widgets share, and what a widget adds to it in a file of its own."""
    return "\n".join((HERE / f"{part}.css").read_text(encoding="utf-8") for part in ("common", own) if part)


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
