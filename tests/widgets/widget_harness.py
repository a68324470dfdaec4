"""What the tests of every widget share: its traits as JSON, its module under node, and looks at its page in a browser."""

import base64
import json
import os
import pathlib
import subprocess

import pytest

from moe_lesson.widgets.kit.base import LessonWidget
from moe_lesson.widgets.kit.weights import SENT

HERE = pathlib.Path(__file__).parent
PAGE = (HERE / "widget_page.html").as_uri()
# What is due in the next frame is drawn and laid out, and its observers have been called: they come between a frame's callbacks
# and the next task.
NEXT_FRAME = "await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));"
AT_REST = NEXT_FRAME * 2  # a transition of no duration ends in the frame after, and so does what an observer had drawn again
PICTURES = """[...document.querySelectorAll('.moe-root canvas')].map((canvas) => canvas.toDataURL()).join()
  + [...document.querySelectorAll('.moe-root svg :not(g)')].map((node) => node.outerHTML)
    .sort().join()"""


def browser_state(widget) -> dict:
    """The widget's traits as JSON, bytes as { base64 }."""
    return {name: {"base64": base64.b64encode(value).decode()} if isinstance(value, (bytes, memoryview)) else value
            for name, value in widget.get_state().items()
            if not name.startswith("_") and name not in ("layout", "comm", "tabbable", "tooltip")}


def as_text(widget) -> str:
    """The traits as a text: Playwright takes long over large objects."""
    return json.dumps(browser_state(widget))


def put_on_page(page, widget) -> None:
    """Show a widget on an empty page, with the weights that it reads."""
    weights = [one for one in SENT.values() if one.model_id == getattr(widget, "weights", "")]
    models = json.dumps({one.model_id: browser_state(one) for one in weights})
    if not page.evaluate("document.getElementById('host')?.childElementCount === 0"):  # it is not the empty page already
        page.goto(PAGE)
    page.evaluate("([esm, css, text, models]) => show(esm, css, JSON.parse(text), JSON.parse(models))",
                  [widget._esm, widget._css, as_text(widget), models])
    settled(page)


def settled(page) -> str:
    """What the widget says, once it has drawn."""
    page.wait_for_function("document.querySelector('[aria-live], [role=status]')?.textContent")
    return status(page)


def receive(page, widget) -> None:
    """Give the page all traits of a widget, as Python's answer would."""
    page.evaluate("(text) => model.receive(JSON.parse(text))", as_text(widget))


def run_node(script: str, vectors: dict, folder: pathlib.Path) -> str:
    """Run a .test.mjs of this folder against vectors that Python computed; what it printed, once passed."""
    driver = pytest.importorskip("playwright._impl._driver", reason="playwright brings the node that runs the parity tests")
    (folder / "golden.json").write_text(json.dumps(vectors), encoding="utf-8")
    node, *_ = driver.compute_driver_executable()
    done = subprocess.run([node, "--test", str(HERE / script)], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "MOE_GOLDEN": str(folder / "golden.json")})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def status(page) -> str:
    """The text summary, after the next frame."""
    return page.evaluate(f"async () => {{ {NEXT_FRAME} return document.querySelector('[aria-live], [role=status]').innerText; }}")


def write(page, label: str, text: str) -> None:
    """Type a text into a field and send it; not before a frame that is due has drawn: it may set the field under the hand."""
    status(page)
    page.get_by_label(label).fill(text)
    page.get_by_label(label).press("Enter")


def rest(page) -> None:
    """Wait until nothing more is drawn by itself."""
    page.evaluate(f"async () => {{ {AT_REST} }}")


def marked(page, name: str) -> list[int]:
    """Which tokens of the strip carry a mark."""
    status(page)
    return page.locator(f".moe-{name}").evaluate_all("(nodes) => nodes.map((node) => Number(node.dataset.token))")


def resize(page, width: int) -> None:
    """Give the window another width, and wait: the page sees it in one frame and draws for it in the next."""
    page.set_viewport_size({"width": width, "height": 720})
    page.evaluate(f"async (width) => {{ do {NEXT_FRAME} while (innerWidth !== width); {AT_REST} }}", width)


def dress(page, scheme: str) -> None:
    """Make the system's theme light or dark, and wait as for another width."""
    page.emulate_media(color_scheme=scheme)
    rest(page)


def put(page, **state) -> str:
    """Give the page traits, as Python would; what it then says."""
    page.evaluate("(state) => model.receive(state)", state)
    return status(page)


def table(page, rows: str = "tbody tr") -> list[list[str]]:
    """What stands in the cells of some rows, without those of a table's head; a folded one is filled once it is open."""
    rest(page)
    return page.locator(rows).evaluate_all(
        "(rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent.replaceAll('\u00a0', ' ')))")


def complaints(page, *rules: str) -> list[str]:
    """axe's serious and critical findings, by some of its rules or by all."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = axe.Axe().run(page, options=options).response["violations"]
    return [f"{one['id']}: {json.dumps([node['html'][:90] for node in one['nodes'][:3]])}" for one in found
            if one["impact"] in ("serious", "critical")]


def picture(page) -> str:
    """The pixels of the canvases and the shapes of the drawings, in whatever order they stand, at rest."""
    return page.evaluate(f"async () => {{ {AT_REST} return {PICTURES}; }}")


def look(page) -> list:
    """All that the page shows at rest: its text, its pictures, where its controls stand."""
    return page.evaluate(f"""async () => {{
      {AT_REST}
      const parts = [...document.querySelectorAll(".moe-root :is(input, select)")];
      return [document.querySelector(".moe-root").innerText, {PICTURES},
        parts.map((node) => [node.value, node.checked ?? null, node.disabled])];
    }}""")


def dots(page, colour: tuple[int, int, int]) -> int:
    """How many pixels of a colour the canvases show, after the next frame."""
    status(page)
    return page.evaluate("""([r, g, b]) => {
      let found = 0;
      for (const canvas of document.querySelectorAll('canvas')) {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
        for (let i = 0; i < data.length; i += 4) {
          if (data[i] === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] === 255) found += 1;
        }
      }
      return found;
    }""", list(colour))


def assert_it_follows_the_theme(page) -> None:
    """The canvases are drawn in the ink of the page, light or dark, also when it changes."""
    dark, light = (22, 25, 29), (236, 239, 242)
    assert dots(page, dark) > 200 and dots(page, light) == 0
    dress(page, "dark")
    assert dots(page, light) > 200 and dots(page, dark) == 0


def written(page, state: dict) -> list[tuple[str, float]]:
    """The texts on the canvases in a new state, and their sizes in pixels."""
    page.evaluate(LISTEN_TO_TEXT)
    put(page, **state)
    return page.evaluate("window.written")


LISTEN_TO_TEXT = """() => {
  const listening = "written" in window;
  window.written = []; // every text on a canvas, and its size in pixels
  if (listening) return;
  const write = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
    window.written.push([String(text), parseFloat(this.font.match(/[0-9.]+px/))]);
    write.call(this, text, ...place);
  };
}"""


def assert_closed_views_leave_nothing(page, widget, before: str = "") -> None:
    """Show and close ten views; `before` is what JavaScript does to each while it is open."""
    page.evaluate("cleanup(); document.getElementById('host').replaceChildren()")
    chrome = page.context.new_cdp_session(page)

    def counts():
        for _ in range(3):
            chrome.send("HeapProfiler.collectGarbage")
        found = chrome.send("Memory.getDOMCounters")
        return found["nodes"], found["jsEventListeners"]

    rerun = f"""async ([esm, text, times]) => {{
      let listening = 0;
      for (let i = 0; i < times; i += 1) {{
        await show(esm, "", JSON.parse(text));
        {NEXT_FRAME}
        {before}
        cleanup();
        document.getElementById("host").replaceChildren();
        document.head.querySelectorAll("style:empty").forEach((node) => node.remove());
        listening += Object.values(model.listeners).flat().length;
      }}
      return listening;
    }}"""
    listening = page.evaluate(rerun, [widget._esm, as_text(widget), 1])
    nodes, listeners = counts()
    listening += page.evaluate(rerun, [widget._esm, as_text(widget), 10])
    later_nodes, later_listeners = counts()
    assert listening == 0 and later_listeners <= listeners + 5 and later_nodes <= nodes + 20


def moving_parts(page) -> int:
    """How many elements are animated."""
    return page.evaluate("""[...document.querySelectorAll('.moe-root, .moe-root *')].filter((node) => {
      const style = getComputedStyle(node);
      return style.animationName !== 'none' || style.transitionDuration.split(',').some((time) => parseFloat(time) > 0);
    }).length""")


def smallest_text(page) -> float:
    """In CSS pixels; 10 pt are 13.33."""
    return page.evaluate("""Math.min(...[...document.querySelectorAll('.moe-root *')]
      .filter((node) => node.textContent).map((node) => parseFloat(getComputedStyle(node).fontSize)))""")


def assert_it_fits(page, width: int, parts: str = "*") -> None:
    """Nothing is wider than the page, and no part stands out of the widget."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate("""(parts) => {
      const edge = document.querySelector('.moe-root').getBoundingClientRect().right + 0.5;
      return [...document.querySelectorAll(`.moe-root ${parts}`)]
        .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > edge)
        .map((node) => node.outerHTML.slice(0, 90));
    }""", parts)
    assert outside == [], outside


def made(widget: LessonWidget, **state) -> LessonWidget:
    """The widget in a state."""
    for name, value in state.items():
        setattr(widget, name, value)
    return widget
