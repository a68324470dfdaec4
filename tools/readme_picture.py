"""Make the pictures of README.md: python tools/readme_picture.py (`make notebooks` calls it)

- data/routing-map.png: the routing map of lesson 00 as it is stored there, for readers who want nothing to move.
- .github/pictures/typing.png: the same widget, alive, while somebody types; an animated PNG.
- .github/pictures/NN.png: of each lesson the most colourful part of a picture that is stored in it, small.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path

import nbformat
from photograph import running_chromium  # which puts tests/widgets on the path
from PIL import Image, ImageOps, ImageStat
from widget_harness import put_on_page

from moe_lesson import shipped_model
from moe_lesson.widgets import RoutingMap

REPO = Path(__file__).resolve().parent.parent
LESSONS = sorted((REPO / "notebooks").glob("*.ipynb"))
PICTURES = REPO / ".github" / "pictures"
STILL, TYPING = REPO / "data" / "routing-map.png", PICTURES / "typing.png"
SENTENCE = "Where does it go?"
WIDTH, HEIGHT = 1000, 860  # of the window, in CSS pixels: as tall as is needed for the map not to scroll
KEY, REST = 220, 4000  # milliseconds: a character, and the whole sentence
THUMBNAIL = 200, 120  # pixels; the README shows them at half that


def stored_pictures(path: Path, cell_id: str = "") -> list[bytes]:
    """The PNGs that are stored in a notebook, or in one cell of it, in their order."""
    notebook = nbformat.read(path, as_version=4)
    return [base64.b64decode(output.data["image/png"]) for cell in notebook.cells if cell_id in ("", cell.id)
            for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]


def stored_map() -> bytes:
    """The PNG stored with the routing map of lesson 00."""
    [picture] = stored_pictures(LESSONS[0], "routing-map")
    return picture


def typed(sentence: str) -> list[Image.Image]:
    """The routing map of the shipped model on an empty line, and after each character of a sentence."""
    routing_map = RoutingMap.of_model(shipped_model("ladder-deepseekmoe")[0], sentence)
    frames = []
    with running_chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, offline=True, reduced_motion="reduce")
        put_on_page(page, routing_map)
        for end in range(len(sentence) + 1):
            page.get_by_role("textbox").fill(sentence[:end])
            frames.append(settled_picture(page))
    routing_map.close()
    return frames


def settled_picture(page) -> Image.Image:
    """What the widget shows once it no longer changes: the model in the page answers after a moment."""
    before, now = b"", page.locator(".moe-root").screenshot()
    while now != before:
        page.wait_for_timeout(200)
        before, now = now, page.locator(".moe-root").screenshot()
    return Image.open(io.BytesIO(now)).convert("RGB")


def animated(frames: list[Image.Image]) -> bytes:
    """The frames as one animated PNG that begins again and again; where nothing moves, it shows the last of them, the tallest."""
    frames = [ImageOps.pad(frame, frames[-1].size, color="white", centering=(0, 0)) for frame in frames]
    palette = frames[-1].quantize(256, dither=Image.Dither.NONE)
    last, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in (frames[-1], *frames)]
    out = io.BytesIO()
    last.save(out, "PNG", save_all=True, append_images=others[:-1], duration=[REST, *[KEY] * len(others[:-1])], loop=0,
              optimize=True)
    return out.getvalue()


def thumbnail(pictures: list[bytes]) -> Image.Image:
    """Of all pictures the most colourful part that is as wide as its picture, in the size of a thumbnail."""
    width, height = THUMBNAIL
    parts = []
    for picture in pictures:
        whole = Image.open(io.BytesIO(picture)).convert("RGB")
        whole = whole.resize((width, round(whole.height * width / whole.width)), Image.Resampling.LANCZOS)
        if whole.height < height:
            whole = ImageOps.pad(whole, THUMBNAIL, color="white")
        parts += [whole.crop((0, top, width, top + height)) for top in range(0, whole.height - height + 1, 4)]
    return max(parts, key=colourfulness)


def colourfulness(picture: Image.Image) -> float:
    """The mean saturation, 0 to 255."""
    return ImageStat.Stat(picture.convert("HSV")).mean[1]


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    STILL.write_bytes(stored_map())
    for path in LESSONS:
        small = thumbnail(stored_pictures(path)).quantize(64, dither=Image.Dither.NONE)
        small.save(PICTURES / f"{path.name[:2]}.png", optimize=True)
    TYPING.write_bytes(animated(typed(SENTENCE)))
    print(f"{TYPING.relative_to(REPO)}, {TYPING.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help tells, and does nothing
    main()
