"""Lesson 00 in a real JupyterLab in a real browser: run all, type a sentence, move a slider, see the picture change."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from chromium import launch_chromium

sync_api = pytest.importorskip("playwright.sync_api")

REPO = Path(__file__).parents[2]
LESSON = REPO / "notebooks" / "00-start-here.ipynb"
TOKEN = "lesson"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab server over a copy of the lesson, with settings of its own; gives its address."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copy(LESSON, home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {f"JUPYTER_{name}": str(home / name.lower()) for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")}
    folders |= {f"JUPYTERLAB_{name}_DIR": str(home / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    environment = os.environ | folders | {"MOE_LESSON_HOME": str(home / "guesses"), "OMP_NUM_THREADS": "1"}
    log = home / "server.log"
    with open(log, "w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
             f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home}", "--ServerApp.port_retries=0"],
            stdout=out, stderr=subprocess.STDOUT, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=1)
                break
            except OSError:
                assert server.poll() is None, f"JupyterLab stopped:\n{log.read_text()}"
                time.sleep(0.25)
        yield f"{address}/lab/tree/{LESSON.name}?token={TOKEN}"
    finally:
        server.terminate()
        server.wait(20)


def test_run_all_type_a_sentence_move_a_slider_and_see_it_change(lab):
    with sync_api.sync_playwright() as playwright:
        browser = launch_chromium(playwright)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors, outside = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda r: outside.append(r.url) if re.match(r"https?://(?!127\.0\.0\.1)", r.url) else None)
        page.goto(lab)
        page.get_by_text(re.compile(r"\| Idle")).first.wait_for(timeout=120_000)  # the status bar, when a kernel is there
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()

        widget = page.locator(".moe-root").first
        widget.wait_for(timeout=120_000)
        # the notebook follows the running cell, and hides what is far from it
        page.get_by_text(re.compile(r"\| Idle")).first.wait_for(timeout=180_000)
        widget.scroll_into_view_if_needed()
        sync_api.expect(widget).to_contain_text("trained", timeout=20_000)
        summary = widget.locator(".moe-status")

        def becomes(pattern):
            sync_api.expect(summary).to_have_text(re.compile(pattern), timeout=20_000)

        becomes(r"Layer 1 of 2, K = 6 of 62 experts, trained router\.")
        first_picture, first_words = pixels(widget), summary.inner_text()

        field = widget.get_by_role("textbox")
        field.fill("<b>你好</b> & 👋 my own sentence")
        sync_api.expect(widget.locator(".moe-strip")).to_contain_text("好", timeout=20_000)
        assert page.locator(".moe-root b").count() == 0, "the learner's text was taken for HTML"
        assert pixels(widget) != first_picture and summary.inner_text() != first_words

        typed_picture = pixels(widget)
        widget.get_by_role("slider").first.focus()
        page.keyboard.press("ArrowRight")
        becomes("Layer 2 of 2")
        assert pixels(widget) != typed_picture

        assert not outside, f"requests left this machine: {outside[:3]}"
        ours = [e for e in errors if not re.search("favicon|net::ERR|Failed to load resource", e)]
        assert not ours, ours
        browser.close()


def pixels(widget):
    """What the heat map's canvas shows."""
    return widget.locator("canvas.moe-heat").first.evaluate("canvas => canvas.toDataURL()")
