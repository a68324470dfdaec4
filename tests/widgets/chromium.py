"""Debian's chromium under Playwright, for every browser test."""

import contextlib
import os
import pathlib
import shutil

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


def find_chromium() -> str | None:
    """The path of a chromium on this machine, or None."""
    usual = pathlib.Path("/usr/bin/chromium")
    return str(usual) if usual.exists() else shutil.which("chromium")


@contextlib.contextmanager
def running_chromium():
    """Chromium without a window, for as long as it is used; where there is none, the test is skipped, or fails under CI."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright: pip install playwright")
    path = find_chromium()
    if path is None:
        reason = "no chromium: neither /usr/bin/chromium nor one on PATH (apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with sync_api.sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=FLAGS) as browser:
        yield browser
