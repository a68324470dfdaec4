"""Debian's chromium under Playwright, for every browser test."""

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


def launch_chromium(playwright):
    """Start chromium without a window; where there is none, skip the test, or fail it under CI.

    Args:
        playwright: what `with sync_playwright() as playwright` gives.

    Returns:
        The running browser.
    """
    path = find_chromium()
    if path is None:
        reason = "no chromium: neither /usr/bin/chromium nor one on PATH (apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return playwright.chromium.launch(executable_path=path, args=FLAGS)
