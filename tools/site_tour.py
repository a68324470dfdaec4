"""Visit every page of the built web edition in chromium, and move every control of every widget: python tools/site_tour.py

It prints a line for each page: its widgets, the controls that were moved, and the milliseconds until its first picture was live.
Below a page stands what is wrong with it: a widget that is dead or does not answer, an error, a request to another machine, a
first picture that comes late, a page that is wider than a telephone, what axe finds serious. `make site` comes first.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "tests/widgets"))
from chromium import running_chromium  # noqa: E402
from widget_harness import NEXT_FRAME, complaints  # noqa: E402

LATEST = 2000  # milliseconds until a first picture
PHONE = 390  # pixels
CONTROLS = "input:enabled, select:enabled, button:enabled"
MOVE = """(node) => {
  const tell = (event) => node.dispatchEvent(new Event(event, { bubbles: true }));
  if (node.matches("button")) return node.click();
  if (node.matches("[type=radio], [type=checkbox]")) return node.click();
  if (node.matches("select")) node.selectedIndex = (node.selectedIndex + 1) % node.options.length;
  else if (node.matches("[type=range]")) node.value = Number(node.value) === Number(node.max) ? node.min : node.max;
  else node.value = node.closest(".moe-question") ? "7" : "to be or not to be";
  tell("input");
  tell("change");
}"""
LOOK = f"""async (place) => {{ {NEXT_FRAME}
  return [place.innerText, ...[...place.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()),
    ...[...place.querySelectorAll("svg")].map((svg) => svg.outerHTML),
    ...[...place.querySelectorAll("input, select")].map((one) => [one.value, one.checked])].join();
}}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder on localhost; gives the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def watched(browser, address: str, noted: list[str], **options):
    """A page that can reach one address alone; errors, and requests to any other, are noted."""
    context = browser.new_context(reduced_motion="reduce", **options)

    def guard(route) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            return route.continue_()
        noted.append(f"asks for {route.request.url}")
        return route.abort()

    context.route("**/*", guard)
    page = context.new_page()
    page.on("response", lambda answer: answer.status >= 400 and noted.append(f"misses {answer.url}"))
    page.on("console", lambda message: message.type == "error" and noted.append(f"says {message.text}"))
    page.on("pageerror", lambda error: noted.append(f"raises {error}"))
    return page


def alive(place) -> None:
    """Go to a widget's place, and wait until it is mounted and has spoken."""
    place.evaluate("(node) => { for (let up = node; up; up = up.parentElement) if (up.tagName === 'DETAILS') up.open = true; }")
    place.scroll_into_view_if_needed()
    place.locator(".moe-host [aria-live], .moe-host [role=status]").first.filter(has_text=" ").wait_for(state="attached")


def move_all(place) -> tuple[int, bool]:
    """Move each control of a widget once; returns how many there were, and whether what it shows has ever changed."""
    start, changed = place.evaluate(LOOK), False
    place.locator("details").evaluate_all("(folds) => folds.forEach((fold) => { fold.open = true; })")
    moved = 0
    for control in place.locator(".moe-host").locator(CONTROLS).element_handles():
        if control.is_visible():
            control.evaluate(MOVE)
            moved += 1
            changed = changed or place.evaluate(LOOK) != start
    return moved, changed


def serious(page) -> list[str]:
    """What axe finds serious, light and dark."""
    found = []
    for scheme in ("light", "dark"):
        page.evaluate("(scheme) => { document.documentElement.dataset.theme = scheme; }", scheme)
        found += [f"axe, {scheme}: {one}" for one in complaints(page)]
    return found


def first_picture(page) -> float | None:
    """Milliseconds from the call of the page to its first live picture, or None if it has none but in covered results."""
    place = page.evaluate_handle("""[...document.querySelectorAll(".moe-live:not([data-question])")]
      .find((node) => !node.closest("details:not([open])"))""").as_element()
    if place is None:
        return None
    place.evaluate("(node) => node.scrollIntoView()")
    spoken = "(node) => node.querySelector('.moe-host [aria-live]')?.textContent && performance.now()"
    return page.wait_for_function(spoken, arg=place).json_value()


def visit(browser, address: str, name: str) -> tuple[str, list[str]]:
    """Visit one page; returns its line, and what is wrong."""
    wrong: list[str] = []
    page = watched(browser, address, wrong, viewport={"width": 1280, "height": 720})
    page.goto(f"{address}/{name}", wait_until="domcontentloaded")
    took, places, moved = first_picture(page), page.locator(".moe-live").all(), 0
    for place in places:
        widget = place.get_attribute("data-widget")
        try:
            alive(place)
            controls, changed = move_all(place)
            moved += controls
            if not changed:
                wrong.append(f"{widget} does not answer")
        except Exception as error:  # the tour goes on
            wrong.append(f"{widget}: {str(error).splitlines()[0]}")
    wrong = list(wrong)  # what comes later is not noted: axe itself asks for a style sheet at a wrong place
    wrong += serious(page)
    if took and took > LATEST:
        wrong.append(f"the first picture comes after {took:.0f} ms; expected {LATEST} at most")
    page.set_viewport_size({"width": PHONE, "height": 844})
    if (wide := page.evaluate(f"async () => {{ {NEXT_FRAME} return document.documentElement.scrollWidth; }}")) > PHONE:
        wrong.append(f"is {wide} pixels wide where there are {PHONE}")
    page.context.close()
    return f"{name}: {len(places)} widgets, {moved} controls moved" + (f", first picture {took:.0f} ms" if took else ""), wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", nargs="?", type=Path, default=REPO / "dist/site")
    site = parser.parse_args().site
    found = 0
    with served(site) as address, running_chromium() as browser:
        for path in sorted([*site.glob("*.html"), *site.glob("notebooks/*.html")]):
            line, wrong = visit(browser, address, path.relative_to(site).as_posix())
            print("\n  ".join([line, *wrong]), flush=True)
            found += len(wrong)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
