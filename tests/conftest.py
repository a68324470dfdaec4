"""Fixtures of the browser tests: chromium, and a widget on a page of its own without any network."""

import pytest
from chromium import launch_chromium
from widget_harness import browser_state, put_on_page


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        chromium = launch_chromium(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser):
    """show(widget, **context) -> a page with the widget; afterwards: no request, no error, no script of a token."""
    opened, asked, errors = [], [], []

    def guard(route):
        local = route.request.url.startswith(("file:", "data:", "blob:"))
        if not local:
            asked.append(route.request.url)
        route.continue_() if local else route.abort()

    def open_page(widget, live=False, **context):
        place = browser.new_context(**{"viewport": {"width": 1280, "height": 720}, "offline": True, **context})
        place.route("**/*", guard)
        page = place.new_page()
        page.on("console", lambda message: message.type in ("error", "warning") and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        if live:
            page.expose_function("toPython", lambda sent: (widget.set_state(sent), browser_state(widget))[1])
        put_on_page(page, widget)
        opened.append(page)
        return page

    yield open_page
    hacked = [page.evaluate("window.hacked") for page in opened]
    for page in opened:
        page.context.close()
    assert hacked == [None] * len(opened) and asked == [] and errors == []
