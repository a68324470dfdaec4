"""How fast is each widget of the course: its drawing, a whole frame from a key to the picture, and a new text?

    python tools/benchmark_widgets.py                                  # measure and print
    OMP_NUM_THREADS=1 python tools/benchmark_widgets.py --out data     # and write data/results/widget-speed-cpu.csv
    python tools/benchmark_widgets.py --contributing                   # write the section of CONTRIBUTING.md from it

Every widget of tests/widgets/every_widget.py is opened in chromium as the tests open it, as large as a lesson makes it, and a
key is held down: it repeats about thirty times a second, in no step with the screen. "draw" is the time inside the callbacks of
requestAnimationFrame. "frame" runs from the key's own time stamp to the end of the rendering in which the widget drew: it
includes waiting for the screen, up to 16.7 ms at 60 Hz, and leaves out what the compositor does on other threads. "text" runs
from a new text of the model's whole context to the end of the frame that shows it: the model runs in the page.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import textwrap
import time
from importlib.metadata import version
from pathlib import Path

from tables import record, with_section

from moe_lesson.base.devices import device_name
from moe_lesson.measure.evidence import Table, result_table, write_table

CONTRIBUTING = Path(__file__).resolve().parent.parent / "CONTRIBUTING.md"
HEADING = "## How fast are the widgets\n\n"
TESTS = CONTRIBUTING.parent / "tests/widgets"
sys.path.insert(0, str(TESTS))
from widget_harness import put_on_page  # noqa: E402

TARGETS = {"draw_p95_ms": 8, "frame_p95_ms": 20, "text_ms": 150, "text_p95_ms": 250}  # the course's own, at most
COLUMNS = ("widget", "action", "times", "draw_ms", "draw_p95_ms", "frame_ms", "frame_p95_ms", "text_ms", "text_p95_ms")
VIEWPORT = {"width": 1280, "height": 720}
BACK = {"ArrowRight": "ArrowLeft", "ArrowLeft": "ArrowRight", "ArrowDown": "ArrowUp", "ArrowUp": "ArrowDown"}

WATCH = """() => {
  window.timed = { draw: [], frame: [], pending: 0 };
  let pressed = null, frame = null;
  const painted = new MessageChannel(); // a task of its own: it comes after the rendering that it is sent in
  painted.port1.onmessage = ({ data }) => timed.frame.push(performance.now() - data);
  const press = (event) => { if (pressed === null || !timed.pending) pressed = event.timeStamp; }; // the first for a frame
  addEventListener("keydown", press, true);
  const later = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => (timed.pending += 1) && later((now) => {
    timed.pending -= 1;
    const start = performance.now();
    draw(now);
    const took = performance.now() - start;
    if (now === frame) { timed.draw[timed.draw.length - 1] += took; return; } // more callbacks of the same frame
    if (pressed === null) return;
    timed.draw.push(took);
    painted.port2.postMessage(pressed);
    [pressed, frame] = [null, now];
  });
}"""


def watch_frames(page) -> None:
    """Let the page time its drawing from now on."""
    page.evaluate(WATCH)


def hold(page, part: str, key: str, times: int) -> dict[str, list[float]]:
    """Milliseconds of drawing and of whole frames while a key is held down on a part; at the end of its way it goes back."""
    page.evaluate("timed.draw = []; timed.frame = [];")
    page.locator(part).focus()
    order, seen = random.Random(0), 0
    for _ in range(times):
        page.keyboard.down(key)
        page.wait_for_timeout(order.uniform(25, 42))
        drawn = page.evaluate("timed.frame.length")
        if drawn == seen:
            page.keyboard.up(key)
            key = BACK[key]
        seen = drawn
    page.keyboard.up(key)
    page.wait_for_function("timed.pending === 0 && timed.frame.length === timed.draw.length", polling=20)
    return page.evaluate("({ draw: timed.draw, frame: timed.frame })")


def read(page, widget, times: int) -> list[float]:
    """Milliseconds from a new text to its picture; the first one is not counted, it reads the model's weights."""
    most = len(widget.text.encode())
    texts = [f"{i} {widget.text}".encode()[:most].decode(errors="ignore") for i in range(times + 1)]
    return [page.evaluate("""async (text) => {
      const [began, shown] = [performance.now(), () => document.querySelector(".moe-token")?.parentNode.textContent];
      const before = shown();
      model.set("text", text);
      do await new Promise((done) => requestAnimationFrame(() => setTimeout(done))); while (shown() === before);
      return performance.now() - began;
    }""", text) for text in texts][1:]


def summed_up(name: str, times: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {f"{name}_ms": statistics.median(times), f"{name}_p95_ms": sorted(times)[int(0.95 * len(times))]}


def measure(page, name: str, entry, presses: int) -> list[dict]:
    """The rows of one widget, whose page watches its frames."""
    rows = []
    for action, (part, key) in entry.held.items():
        timed = hold(page, part, key, presses)
        if not timed["frame"]:
            raise RuntimeError(f"{name}: holding {key} on {part} draws nothing")
        rows.append({"widget": name, "action": action, "times": len(timed["frame"]),
                     **summed_up("draw", timed["draw"]), **summed_up("frame", timed["frame"])})
    if entry.types:
        widget = entry.types()
        put_on_page(page, widget)
        took = read(page, widget, min(presses, 20))
        rows.append({"widget": name, "action": "new text", "times": len(took), **summed_up("text", took)})
    return rows


def missed(row: dict) -> list[str]:
    """The targets that a row misses."""
    return [name for name, most in TARGETS.items() if (row.get(name) or 0) > most]


def in_words(row: dict) -> str:
    """A row as a line of text."""
    parts = [f"{name} {row[f'{name}_ms']:.1f} ms, p95 {row[f'{name}_p95_ms']:.1f}" for name in ("draw", "frame", "text")
             if f"{name}_ms" in row]
    return f"{row['widget']:18} {row['action']:16} {'; '.join(parts):46} ({row['times']} times)"


def mark(row: dict) -> str:
    """Which targets a row misses, in words."""
    return "".join(f"  ✗ {name} > {TARGETS[name]}" for name in missed(row))


def section(table: Table) -> str:
    """The text in CONTRIBUTING.md: for each widget the slowest of what one can do in it."""
    def slowest(widget: str, part: str) -> str:
        rows = [row for row in table.rows if row["widget"] == widget and row[f"{part}_p95_ms"] != ""]
        if not rows:
            return ""
        row = max(rows, key=lambda row: row[f"{part}_p95_ms"])
        return f"{row[f'{part}_ms']:.1f} / {row[f'{part}_p95_ms']:.1f}"

    parts = ("draw", "frame", "text")
    late = sum("frame_p95_ms" in missed(row) for row in table.rows if row["frame_ms"] != "")
    heavy = sum("draw_p95_ms" in missed(row) for row in table.rows if row["draw_ms"] != "")
    drawn = sum(row["draw_ms"] != "" for row in table.rows)
    text = (f"For maintainers: milliseconds, median / 95th percentile, of the slowest of each widget's actions, a key held down "
            f"in chromium; {table.provenance['device']}. A frame includes up to 16.7 ms of waiting for the screen. Targets at "
            f"the 95th percentile: draw {TARGETS['draw_p95_ms']}, missed by {heavy} of {drawn} actions; frame "
            f"{TARGETS['frame_p95_ms']}, missed by {late}; a new text of the whole context {TARGETS['text_p95_ms']}. "
            "`python tools/benchmark_widgets.py` measures it on your machine.")
    lines = [*textwrap.wrap(text, 125), "", "| | draw | frame | new text |", "|---|---|---|---|"]
    lines += [f"| {widget} | {' | '.join(slowest(widget, part) for part in parts)} |"
              for widget in dict.fromkeys(row["widget"] for row in table.rows)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("widgets", nargs="*", help="some of them (default: all)")
    parser.add_argument("--presses", type=int, default=120, help="times that a held key repeats (default 120)")
    parser.add_argument("--out", type=Path, help="data folder to write results/widget-speed-cpu.csv into")
    parser.add_argument("--contributing", action="store_true",
                        help="measure nothing: write the section of CONTRIBUTING.md from the table")
    options = parser.parse_args(arguments)
    if options.contributing:
        page = with_section(CONTRIBUTING.read_text(encoding="utf-8"), section(result_table("widget-speed-cpu")), HEADING)
        CONTRIBUTING.write_text(page, encoding="utf-8")
        return
    if options.presses < 2:
        parser.error("--presses must be at least 2")
    from chromium import running_chromium
    from every_widget import WIDGETS

    unknown = [name for name in options.widgets if name not in WIDGETS]
    if unknown:
        parser.error(f"unknown widget {unknown[0]!r}; there are {', '.join(WIDGETS)}")
    began, load, rows = time.perf_counter(), os.getloadavg()[0], []
    with running_chromium() as browser:
        for name in options.widgets or WIDGETS:
            page = browser.new_page(viewport=VIEWPORT, offline=True)
            put_on_page(page, (WIDGETS[name].large or WIDGETS[name].types or WIDGETS[name].make)())
            watch_frames(page)
            rows += measure(page, name, WIDGETS[name], options.presses)
            page.close()
        chromium = browser.version
    for row in rows:
        print(in_words(row) + mark(row))
    print(f"{sum(map(bool, map(missed, rows)))} of {len(rows)} rows miss a target of the course.")
    if options.out:
        chosen = "".join(f"{name} " for name in options.widgets)
        write_table(options.out / "results", "widget-speed-cpu", [{c: row.get(c, "") for c in COLUMNS} for row in rows], record(
            f"benchmark_widgets.py {chosen}--presses {options.presses}", "cpu", time.perf_counter() - began,
            {"viewport": VIEWPORT, "targets": TARGETS, "presses": options.presses}, chromium=chromium,
            playwright=version("playwright")) | {
            "device": f"{device_name('cpu')}, cores: {os.cpu_count()}, load before: {load:.2f}, no GPU"})


if __name__ == "__main__":
    main()
