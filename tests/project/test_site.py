"""The web edition: a small site of two lessons in chromium, with every widget of the course, no kernel and no network."""

import json
import os
import re
import sys
from pathlib import Path

import colab
import nbformat
import pytest
from chromium import running_chromium
from every_widget import WIDGETS
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from site_tour import LOOK, alive, first_picture, move_all, serious, served, watched
from widget_harness import NEXT_FRAME

from moe_lesson.teach.guesses import read_number

REPO = Path(__file__).resolve().parents[2]
if sys.version_info < (3, 11) or os.environ.get("CI") != "true":  # .ci/run installs the extra: there nothing may be skipped
    pytest.importorskip("sphinx_book_theme", reason="the web edition needs Python 3.11 and `make .venv/site`")
import site_build  # noqa: E402

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
ADDRESS = "https://github.com/someone/moe_lesson"
TITLE = (f"# 00 · Small\n\n{colab.badge('00-small.ipynb', ADDRESS)}\n\n**Where does a letter go?**\n\n"
         "*About 5 minutes.* $y = \\big(x\\,W\\big)$, [next](01-all.ipynb).")
HINT = ("Go to [part two](#Part-2:-why?).\n\n## Part 2: why?\n\n"
        "<details><summary>Hint</summary>\n\nCount the *columns*.\n\n</details>\n\n"
        f"$${' + '.join(f'load_{{{i}}}' for i in range(30))}$$")
MAP = """\
from moe_lesson import LanguageModel, ModelConfig, Sparse
from moe_lesson.widgets import RoutingMap
recipe = Sparse(8, 2, 8)
RoutingMap.of_model(LanguageModel(ModelConfig((recipe, recipe), width=16, heads=2, context=64)), "to be")"""
PREDICT = 'from moe_lesson.teach.lesson import Lesson\nlesson = Lesson("00")\nlesson.predict("idle", "How many?")'
QUIZ = "Quiz('Lesson 00: five questions'): run this cell to see it live"
REVEAL = 'lesson.reveal("idle", 14)\nprint("archipelago")'


def shown(text: str, picture: bool = True):
    """The stored output of a widget."""
    if not picture:
        return new_output("execute_result", {"text/plain": text, "text/html": "<b>Predict.</b> How many?"})
    about = {"image/png": {"width": 900, "height": 90, "alt": "a map"}}
    return new_output("execute_result", {"text/plain": text, "image/png": PIXEL}, metadata=about)


def code(name: str, source: str, *outputs):
    return new_code_cell(source, id=name, outputs=list(outputs))


def small_lessons(folder: Path) -> list[Path]:
    """Two stored lessons: one with a question, a map of a model, a result; and one with an example of every widget."""
    first = [new_markdown_cell(TITLE, id="title"), code("bootstrap", "print('unseen machinery')"),
             code("predict", PREDICT, shown("Predict: How many?", picture=False)),
             code("map", MAP, shown("RoutingMap('routing map', trained): run this cell to see it live")),
             code("between", "print('a telling picture')", new_output("stream", text="a telling picture\n")),
             code("exercise", "print('a task')", new_output("stream", text="a task\n")),
             code("reveal", REVEAL, new_output("stream", text="It is 14.\narchipelago\n")),
             code("quiz", "lesson.quiz()", shown(QUIZ, picture=False)),
             new_markdown_cell(HINT, id="hint")]
    path = f"import sys\nsys.path.insert(0, {str(REPO / 'tests/widgets')!r})\nfrom every_widget import WIDGETS"
    second = [new_markdown_cell("# 01 · All", id="title"), code("path", path)]
    second += [code(name, f"WIDGETS[{name!r}].make()", shown(f"{entry.make()!r}: run this cell to see it live"))
               for name, entry in WIDGETS.items()]
    lessons = {"00-small.ipynb": first, "01-all.ipynb": second}
    for name, cells in lessons.items():
        language = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
        nbformat.write(new_notebook(cells=cells, metadata=language), folder / name)
    return [folder / name for name in lessons]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the site; its notebooks lie beside it."""
    folder = tmp_path_factory.mktemp("site")
    site_build.build(small_lessons(folder), folder / "site", folder / "work")
    return folder / "site"


@pytest.fixture(scope="module")
def browser_and_address(built):
    with served(built) as address, running_chromium() as browser:
        yield browser, address


@pytest.fixture
def visit(browser_and_address):
    """visit(page, …) -> the page in a browser that can reach the site alone; afterwards: no error, no other request."""
    browser, address = browser_and_address
    noted: list[str] = []
    pages = []

    def go(name: str, **options):
        pages.append(page := watched(browser, address, noted, **{"viewport": {"width": 1280, "height": 720}} | options))
        page.goto(f"{address}/{name}")
        page.noted = noted
        return page

    yield go
    for page in pages:
        page.context.close()
    assert noted == []


def place_of(page, widget: str):
    place = page.locator(f'.moe-live[data-widget="{widget}"]')
    alive(place)
    return place


def test_every_widget_of_the_course_lives_without_a_kernel_and_answers(visit):
    page = visit("notebooks/01-all.html")
    silent = {name for name in WIDGETS if not move_all(place_of(page, name))[1]}
    assert silent == set() and page.locator(".moe-failed").count() == 0
    assert page.locator(".moe-live").count() == page.locator(".moe-mounted").count() == len(WIDGETS)


def test_names_within_a_trait_keep_their_order_and_traits_are_sorted(tmp_path):
    files = site_build.Files(tmp_path)
    name = files.keep_traits({"models": {"toy": 1, "DeepSeek": 2}, "layers": 3}, {})
    assert (tmp_path / name).read_text() == '{"layers": 3, "models": {"toy": 1, "DeepSeek": 2}}'


def test_the_tour_waits_for_no_picture_that_a_cover_hides(visit):
    page = visit("notebooks/00-small.html")
    assert first_picture(page) > 0
    page.locator('.moe-live[data-widget="RoutingMap"]').evaluate("""(node) => {
      const cover = document.createElement("details");
      node.replaceWith(cover);
      cover.append(node);
    }""")
    assert first_picture(page) is None


def test_the_visitors_own_text_changes_the_map_and_no_model_is_fetched_before(visit):
    page = visit("notebooks/00-small.html")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    place = place_of(page, "RoutingMap")
    before = place.evaluate(LOOK)
    weights_of_map = json.loads(page.evaluate("(name) => fetch(`../_widgets/${name}`).then((one) => one.text())",
                                              place.get_attribute("data-state")))["weights"]
    assert not any(weights_of_map in url for url in asked)
    place.get_by_role("textbox").fill("not to be, that is it")
    page.wait_for_function("[...document.querySelectorAll('.moe-token')].map((one) => one.textContent).join('').includes('that')")
    assert place.evaluate(LOOK) != before and any(weights_of_map in url for url in asked)


def test_what_was_answered_in_a_quiz_is_there_when_the_visitor_comes_back(visit):
    page = visit("notebooks/00-small.html")
    quiz = place_of(page, "Quiz")
    quiz.locator(".moe-option").first.click()
    answered = re.compile(r"^(Right|No)\. ")  # words follow the picture by a frame
    said = quiz.locator(".moe-status", has_text=answered).inner_text()
    page.reload()
    again = place_of(page, "Quiz")
    assert again.locator(".moe-status", has_text=answered).inner_text() == said and again.locator(".moe-tried").count() == 1


def test_a_guess_uncovers_the_result_and_is_there_when_the_visitor_comes_back(visit):
    page = visit("notebooks/00-small.html")
    between, cover = page.locator(".moe-cover").all()
    question = place_of(page, "Question")
    assert cover.get_attribute("open") is None and not cover.locator("pre").is_visible()
    assert "a telling picture" in between.text_content() and page.get_by_text("a task", exact=True).is_visible()
    question.get_by_role("textbox").fill("many")
    question.get_by_role("button").click()
    assert "not a number" in question.get_by_role("status").inner_text() and cover.get_attribute("open") is None
    question.get_by_role("textbox").fill(" 1,200 ")
    question.get_by_role("textbox").press("Enter")
    assert question.get_by_role("status").inner_text() == "Kept in this browser: 1200. Now look at the result."
    assert between.get_by_text("a telling picture", exact=True).is_visible()
    assert "You said 1200. It is 14." in cover.inner_text()
    page.goto(page.url.replace("00-small", "01-all"))
    page.go_back()
    question = place_of(page, "Question")
    assert question.get_by_role("textbox").input_value() == "1200" and "You said 1200. It is 14." in cover.inner_text()
    assert place_of(page, "RoutingMap").locator("canvas").count() and "archipelago" in cover.inner_text()
    page.go_forward()
    place_of(page, "LedgerView")


def test_the_browser_reads_numbers_as_python_does(visit):
    written = ["14", " 0.5", "0,5", "1,000", "0,001", "1,234,567.5", "2e9", "−3", "", "a", "1 2", "-1,000", "inf", "1,00", "+4"]

    def number(text: str):
        try:
            return read_number(text, -float("inf"))
        except ValueError:
            return None

    page = visit("teach.html")
    read = page.evaluate("async (texts) => texts.map((await import('./_static/live.js')).readNumber)", written)
    assert read == [number(text) for text in written]


@pytest.mark.parametrize("name", ["index.html", "notebooks/00-small.html"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_light_or_dark_and_nothing_is_wider_than_the_page(visit, name, width):
    page = visit(name, viewport={"width": width, "height": 844})
    for place in page.locator(".moe-live").all():
        alive(place)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    said = list(page.noted)
    assert serious(page) == []
    page.noted[:] = said  # axe itself asks for a style sheet at a wrong place


def test_a_widget_turns_dark_with_the_page(visit):
    page = visit("notebooks/00-small.html", color_scheme="light")
    place = place_of(page, "RoutingMap")
    before = place.evaluate(LOOK)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.evaluate(f"async () => {{ {NEXT_FRAME} }}")
    colours = place.locator(".moe-root").evaluate(
        "(root) => [getComputedStyle(root).color, getComputedStyle(root).backgroundColor]")
    assert colours == ["rgb(236, 239, 242)", "rgb(20, 23, 27)"] and place.evaluate(LOOK) != before


def test_print_shows_the_photographs_and_what_is_folded(visit):
    page = visit("notebooks/00-small.html")
    place_of(page, "RoutingMap")
    pdf = page.pdf()
    assert b"/Subtype /Image" in pdf
    page.emulate_media(media="print")
    assert page.locator(".moe-still").is_visible() and not page.locator(".moe-host .moe-root").first.is_visible()


def test_without_javascript_a_lesson_reads_with_its_photographs(visit):
    page = visit("notebooks/00-small.html", java_script_enabled=False)
    assert page.locator(".moe-still").is_visible() and page.locator("pre", has_text="archipelago").last.is_visible()
    assert page.get_by_text("How many?").first.is_visible()


def test_search_finds_a_word_of_an_output_and_not_the_machinery(visit):
    page = visit("search.html?q=archipelago")
    page.locator("#search-results li a").first.wait_for()
    assert "00-small.html" in page.locator("#search-results li a").first.get_attribute("href")
    assert page.locator("#search-results li").count() == 1
    page.goto(page.url.replace("archipelago", "machinery"))
    page.get_by_text("did not match").wait_for()


def test_the_landing_page_leads_to_every_lesson_and_its_map_is_in_sight(visit):
    page = visit("index.html")
    place = place_of(page, "RoutingMap")
    assert place.bounding_box()["y"] + place.bounding_box()["height"] <= 720
    card = page.locator(".moe-card").first
    assert card.inner_text().split("\n") == ["00 · Small", "Where does a letter go?", "5 minutes"]
    picture = card.locator("img")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("(picture) => picture.naturalWidth > 0", arg=picture.element_handle())
    still = page.evaluate("(picture) => fetch(picture.src).then((one) => one.text())", picture.element_handle())
    assert "<svg" in still and "animation" not in still and "Author name" not in page.locator("footer").last.inner_text()
    card.click()
    page.locator("a.right-next").click()
    assert page.url.endswith("notebooks/01-all.html")


def test_a_link_within_a_lesson_leads_to_its_heading(visit):
    page = visit("notebooks/00-small.html")
    page.get_by_role("link", name="part two").first.click()
    assert page.locator(f"[id='{page.url.partition('#')[2]}'] > h2").inner_text().startswith("Part 2: why?")


def test_a_download_is_the_lesson_itself(built):
    for lesson in built.parent.glob("*.ipynb"):
        assert (built / "_sources/notebooks" / lesson.name).read_bytes() == lesson.read_bytes()
    html = (built / "notebooks/00-small.html").read_text()
    assert "<math" in html and "unseen machinery" not in html and "//cdn" not in html


def test_a_second_build_runs_no_notebook_knows_the_address_and_names_a_stale_lesson(built, monkeypatch, tmp_path):
    monkeypatch.setattr(site_build, "run", None)
    monkeypatch.setattr(colab, "address", lambda *_, **of: ADDRESS)
    lessons = sorted(built.parent.glob("*.ipynb"))
    site_build.build(lessons, tmp_path / "again", built.parent / "work")
    first, second = ({path.name for path in (folder / "_widgets").iterdir()} for folder in (built, tmp_path / "again"))
    assert first == second
    page = (tmp_path / "again/notebooks/00-small.html").read_text()
    assert "https://colab.research.google.com/github/someone/moe_lesson/blob/main/notebooks/00-small.ipynb" in page
    assert "mybinder" not in page and "colab-badge" not in page
    stale = nbformat.read(lessons[0], 4)
    stale.cells[3].outputs = []  # of the map: the next widget is not what is shown there
    nbformat.write(stale, tmp_path / lessons[0].name)
    with pytest.raises(site_build.Unfit, match="cell quiz .* make notebooks"):
        site_build.build([tmp_path / lessons[0].name], tmp_path / "out", built.parent / "work")
