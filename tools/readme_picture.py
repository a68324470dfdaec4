"""Take the README's picture out of the lesson that shows it: python tools/readme_picture.py

The picture is Figure 1 of lesson 00 as it is stored there, so the README never shows what the lesson does not.
"""

import base64
import pathlib

import nbformat

REPO = pathlib.Path(__file__).resolve().parent.parent
PICTURE = REPO / "data" / "routing-map.png"


def figure_1() -> bytes:
    """The PNG stored with the routing map of lesson 00."""
    notebook = nbformat.read(REPO / "notebooks" / "00-start-here.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.id == "routing-map")
    return base64.b64decode(next(output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})))


if __name__ == "__main__":
    PICTURE.write_bytes(figure_1())
