"""Fixtures of the browser tests: chromium, and a widget on a page without any network."""

import functools

import ipywidgets
import pytest
from chromium import running_chromium
from widget_harness import PAGE, browser_state, put_on_page, run_node

collect_ignore_glob = ["*/cases.py"]  # there is no doctest in these, and pytest would import each as `cases`
PROJECTOR = {"width": 1280, "height": 720}


def pytest_collection_modifyitems(config, items) -> None:
    """Under Colab's ipywidgets only Python's half of a widget is another: a browser and node would be asked the same again."""
    if ipywidgets.__version__.startswith("7."):
        again = [item for item in items if {"browser", "node"} & set(item.fixturenames)]
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if item not in again]


@pytest.fixture(scope="module")
def browser():
    with running_chromium() as chromium:
        yield chromium


@pytest.fixture
def node(tmp_path):
    """node(script, vectors) -> what a .test.mjs of this folder printed, once it passed with what Python computed."""
    return functools.partial(run_node, folder=tmp_path)


class Tab:
    """A page that tests use one after the other, each with a new document; it notes what no widget may do."""

    def __init__(self, browser):
        self.widget, self.asked, self.errors = None, [], []  # the widget that hears of changes; requests; errors and warnings
        context = browser.new_context(offline=True)
        context.route("**/*", self.guard)
        self.page = context.new_page()
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.expose_function("toPython", self.hear)

    def guard(self, route):
        local = route.request.url.startswith(("file:", "data:", "blob:"))
        if not local:
            self.asked.append(route.request.url)
        route.continue_() if local else route.abort()

    def hear(self, sent: dict) -> dict:
        if self.widget is None:  # nobody listens, or the test is over
            return {}
        self.widget.set_state(sent)
        return browser_state(self.widget)

    def show(self, widget, live, viewport, color_scheme, reduced_motion):
        self.page.set_viewport_size(viewport)
        self.page.emulate_media(color_scheme=color_scheme, reduced_motion=reduced_motion)
        self.page.mouse.move(0, 0)
        self.widget = widget if live else None
        put_on_page(self.page, widget)

    def leave(self) -> tuple:
        """Empty the page, so that nothing runs on; what it noted, and what a token's script would have set."""
        hacked = self.page.evaluate("window.hacked")
        self.widget = None
        self.page.goto(PAGE)
        noted, self.asked, self.errors = (hacked, self.asked, self.errors), [], []
        return noted


@pytest.fixture(scope="module")
def tabs(browser) -> list[Tab]:
    """Those that no test uses at the moment."""
    return []


@pytest.fixture
def show(browser, tabs):
    """show(widget, …) -> a page with the widget; afterwards: no request, no error, no script of a token."""
    used = []

    def open_page(widget, live=False, viewport=PROJECTOR, color_scheme="light", reduced_motion="reduce"):
        used.append(tabs.pop() if tabs else Tab(browser))
        used[-1].show(widget, live, viewport, color_scheme, reduced_motion)
        return used[-1].page

    yield open_page
    noted = [tab.leave() for tab in used]
    tabs.extend(used)
    assert noted == [(None, [], [])] * len(used)


@pytest.fixture
def show_timed(browser):
    """show_timed(widget) -> a page whose clock only page.clock.run_for(milliseconds) turns."""
    pages = []

    def open_page(widget, **more):
        pages.append(page := browser.new_page(offline=True, viewport=PROJECTOR, **more))
        page.clock.install()
        put_on_page(page, widget)
        page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)
        return page

    yield open_page
    for page in pages:
        page.close()
