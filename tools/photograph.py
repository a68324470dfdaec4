"""Photographs of the widgets in a notebook, for whoever reads it without a kernel; store_notebooks.py takes them.

Each widget is shown in chromium as the kernel left it, and its picture at twice the resolution stands in the notebook beside the
line of text, with the words that it says as the picture's alternative.
"""

import base64
import io
import json
import sys
from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/widgets"))
from chromium import running_chromium  # noqa: E402
from widget_harness import PAGE, settled  # noqa: E402

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDTH, SCALE = 1000, 2  # CSS pixels; pixels of the picture for each


def add_photographs(nb: NotebookNode, client: NotebookClient) -> None:
    """Put a photograph beside each view of a widget of the course. Changes nb."""
    views = [output for cell in nb.cells for output in cell.get("outputs", []) if WIDGET_VIEW in output.get("data", {})]
    ours = {output.data[WIDGET_VIEW]["model_id"]: output for output in views
            if "_esm" in client.widget_state.get(output.data[WIDGET_VIEW]["model_id"], {})
            and "text/html" not in output.data}  # a question reads as text
    if not ours:
        return
    states = {name: json.dumps(traits(client, name)) for name in client.widget_state}
    with running_chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": 720}, device_scale_factor=SCALE, offline=True,
                                reduced_motion="reduce")
        for name, output in ours.items():
            state = client.widget_state[name]
            models = {state["weights"]: json.loads(states[state["weights"]])} if state.get("weights") else {}
            page.goto(PAGE)
            page.evaluate("([esm, css, state, models]) => show(esm, css, JSON.parse(state), models)",
                          [state["_esm"], state["_css"], states[name], models])
            words = settled(page)
            root = page.locator(".moe-root")
            output.data["image/png"] = base64.b64encode(in_256_colours(root.screenshot())).decode()
            box = root.bounding_box()
            output.metadata["image/png"] = {"width": round(box["width"]), "height": round(box["height"]), "alt": words}


def in_256_colours(png: bytes) -> bytes:
    """The picture in a quarter of the bytes: GitHub shows no notebook of more than a megabyte."""
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def traits(client: NotebookClient, name: str) -> dict:
    """The traits of a widget as the kernel left them, bytes as { base64 }."""
    buffers = client.widget_buffers.get(name, {})
    return {key: value for key, value in client.widget_state[name].items() if not key.startswith("_")} | {
        path[0]: {"base64": buffer["data"]} for path, buffer in buffers.items()}
