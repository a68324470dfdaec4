"""Lesson 00 in a real JupyterLab in a real browser: run all, type a sentence, move a slider; save, reopen, go on.

It is the lesson's exercises, forms and widgets, and a chart after them: that all of the lesson runs is nbval's to say.
"""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import my_lessons
import nbformat
import pytest
from chromium import running_chromium
from excerpts import needed
from nbformat.v4 import new_code_cell

sync_api = pytest.importorskip("playwright.sync_api")

REPO = Path(__file__).parents[2]
LESSON = REPO / "notebooks" / "00-start-here.ipynb"
TOKEN = "lesson"
CHART = "from moe_lesson.widgets import CostExplorer\n\nCostExplorer()"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab server over a copy of the lesson, with settings of its own; gives its address."""
    home = tmp_path_factory.mktemp("lab")
    my_lessons.update(LESSON.parent, home)
    nb = nbformat.read(home / LESSON.name, as_version=4)
    nb.cells = [*needed(nb.cells), new_code_cell(CHART, id="chart")]
    (home / LESSON.name).write_text(my_lessons.unanswered(nbformat.writes(nb)), encoding="utf-8")
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
             f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home}", "--ServerApp.port_retries=0",
             *my_lessons.SETTINGS],
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


IDLE = re.compile(r"\| Idle")  # the status bar, when a kernel is there and has nothing to do


def test_a_lesson_answers_fits_the_screen_follows_the_theme_and_is_alive_when_it_is_opened_again(lab):
    with running_chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        errors, outside = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda r: outside.append(r.url) if re.match(r"https?://(?!127\.0\.0\.1)", r.url) else None)
        page.goto(lab)
        page.get_by_text(IDLE).first.wait_for(timeout=120_000)
        page.wait_for_timeout(1000)  # it must not come to look changed a moment later
        assert page.locator(".jp-mod-dirty").count() == 0, "a lesson that nobody touched asks to be saved"

        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.locator(".moe-root").first.wait_for(timeout=120_000)
        # the notebook follows the running cell, and hides what is far from it
        page.get_by_text(IDLE).first.wait_for(timeout=180_000)
        map_answers(page)
        form = page.locator(".moe-question").first
        bring(page, form)
        form.get_by_role("textbox").fill("1,000")
        form.get_by_role("textbox").press("Enter")
        sync_api.expect(form.get_by_role("status")).to_contain_text("Kept: 1,000.", timeout=20_000)
        follows_the_theme(page)

        page.keyboard.press("Control+s")
        page.locator(".jp-mod-dirty").wait_for(state="detached", timeout=20_000)
        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.get_by_text("Shut Down Kernel", exact=True).click()
        page.get_by_text(re.compile(r"\| No Kernel|No Kernel")).first.wait_for(timeout=20_000)
        page.reload()  # a new kernel starts, which knows nothing of these widgets
        page.get_by_text(IDLE).first.wait_for(timeout=120_000)
        map_answers(page)
        assert page.get_by_text("Error displaying widget").count() == 0
        form = page.locator(".moe-question").first
        bring(page, form)
        form.get_by_role("textbox").press("Enter")
        sync_api.expect(form.get_by_role("status")).to_contain_text("run this cell again", timeout=20_000)

        assert not outside, f"requests left this machine: {outside[:3]}"
        ours = [e for e in errors if not re.search("favicon|net::ERR|Failed to load resource", e)]
        assert not ours, ours


def bring(page, part) -> None:
    """Scroll down from the top until it is seen: the notebook draws the cells near its view alone."""
    panel = page.locator(".jp-WindowedPanel-outer").first
    panel.evaluate("(node) => node.scrollTo(0, 0)")
    for _ in range(200):
        if part.count():
            break
        page.wait_for_timeout(150)
        panel.evaluate("(node) => node.scrollBy(0, 150)")
    part.scroll_into_view_if_needed()


def map_answers(page) -> None:
    """The routing map fits the screen, says whose it is, and answers to a sentence and a slider."""
    widget = page.locator(".moe-root").filter(has_text="routing map")
    bring(page, widget)
    sync_api.expect(widget).to_contain_text("trained", timeout=20_000)
    widget.get_by_role("button", name="Reset").click()
    summary = widget.locator(".moe-status")
    sync_api.expect(summary).to_have_text(re.compile(r"Layer 1 of 2, K = 6 of 62 experts, trained router\."), timeout=20_000)
    assert widget.bounding_box()["height"] <= page.locator(".jp-WindowedPanel-outer").first.bounding_box()["height"]
    first = pixels(widget)
    widget.get_by_role("textbox").fill("<b>你好</b> & 👋 my own sentence")
    sync_api.expect(widget.locator(".moe-strip")).to_contain_text("好", timeout=20_000)
    assert page.locator(".moe-root b").count() == 0, "the learner's text was taken for HTML"
    typed = pixels(widget)
    widget.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowRight")
    sync_api.expect(summary).to_have_text(re.compile("Layer 2 of 2"), timeout=20_000)
    assert len({first, typed, pixels(widget)}) == 3


def follows_the_theme(page) -> None:
    """Native controls are dark where the notebook is, whatever the system is; a chart is whole, as it was before."""
    chart = page.locator(".moe-root").filter(has=page.locator(".moe-chart"))
    bring(page, chart)
    before = bars(chart)
    assert len(before) > 5 and all(width > 0 and height > 0 for width, height in before)
    for theme in ("Dark", "Light"):
        page.get_by_role("menuitem", name="Settings", exact=True).click()
        page.get_by_text("Theme", exact=True).hover()
        page.get_by_text(f"JupyterLab {theme}", exact=True).click()
        sync_api.expect(chart).to_have_css("color-scheme", theme.lower(), timeout=20_000)
        assert any(bars(chart) == before or page.wait_for_timeout(100) for _ in range(100)), (theme, bars(chart))


def bars(chart) -> list[list[float]]:
    """The sizes at which the bars of a chart are to be seen."""
    return chart.locator(".moe-chart").first.locator(".moe-bar").evaluate_all("""(nodes) => nodes.map((node) => {
      const [bar, edge] = [node.getBoundingClientRect(), node.ownerSVGElement.getBoundingClientRect()];
      return [Math.min(bar.right, edge.right) - Math.max(bar.left, edge.left), Math.min(bar.bottom, edge.bottom) - bar.top];
    })""")


def pixels(widget):
    """What the heat map's canvas shows."""
    return widget.locator("canvas.moe-heat").first.evaluate("canvas => canvas.toDataURL()")
