"""The moving pictures at the head of the lessons: as the tool draws them, whole, and still for who wants no motion."""

import itertools
import re
from xml.etree import ElementTree

import colab
import heroes
import nbformat
import pytest
from chromium import running_chromium

every_picture = pytest.mark.parametrize("number", heroes.LESSONS)
PHONE = 343  # pixels: what a phone leaves a picture


@every_picture
def test_the_stored_picture_is_what_the_tool_draws(number):
    film_of, alt = heroes.LESSONS[number]
    assert (heroes.PICTURES / f"{number}.svg").read_text(encoding="utf-8") == film_of().svg(alt), "run tools/heroes.py"


@every_picture
def test_a_picture_moves_stays_within_its_frame_and_says_that_it_is_a_drawing(number):
    film_of, alt = heroes.LESSONS[number]
    film, text = film_of(), film_of().svg(alt)
    words = list(ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text"))
    assert words[0].text == "a drawing" and max(map(len, words)) <= 2 and len(alt) > 40, "a caption has two lines at most"
    assert len(re.findall("@keyframes", text)) >= 8 and "prefers-reduced-motion" in text and len(text) < 60_000
    assert all(step < film.steps for _, looks in film.things for step in looks), "what comes after the last step is never seen"
    for svg, looks in film.things:
        x, y = (float(re.search(rf" c?{axis}='([-\d.]+)'", svg)[1]) for axis in "xy")
        for look in looks.values():
            dx, dy = map(float, re.findall(r"-?[\d.]+(?=px)", look.get("transform", "0px 0px")))
            assert 0 <= x + dx <= heroes.WIDTH and 0 <= y + dy <= heroes.HEIGHT


def test_words_can_be_read_on_a_phone():
    with running_chromium() as browser:
        page = browser.new_page()
        for number, width in itertools.product(heroes.LESSONS, (PHONE, heroes.WIDTH)):
            page.set_viewport_size({"width": width, "height": 400})
            page.goto((heroes.PICTURES / f"{number}.svg").as_uri())
            found = page.evaluate("""[...document.querySelectorAll('text')].map((node) => {
              const { x, y, width, height } = node.getBBox();
              return [parseFloat(getComputedStyle(node).fontSize), x, x + width, y + height];
            })""")
            for size, left, right, bottom in found:
                assert size * width / heroes.WIDTH >= (9 if width == PHONE else 11), number
                assert 0 <= left and right <= heroes.WIDTH and bottom <= heroes.HEIGHT, number
            assert found[-1][0] * width / heroes.WIDTH >= 12, f"{number}: the caption is small"


def test_a_thing_looks_as_it_did_until_its_step_and_so_from_then_on():
    film = heroes.Film(steps=4, still=3)
    film.at(2, film.dot(10, 10, 5, "red"), fill="blue")
    frames = re.search(r"@keyframes k1\{(.*?)\}\}", film.svg("a dot"))[1]
    assert re.findall(r"([\d.]+)%\{fill:(\w+)", frames) == [("0", "red"), ("50.00", "red"), ("61.25", "blue"), ("100", "blue")]
    assert "id='k1' style='fill:blue'" in film.svg("a dot"), "the still is that of its step"


@pytest.mark.parametrize("path", sorted((colab.REPO / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_lesson_begins_with_the_way_to_its_neighbours_and_its_picture(path):
    nb = nbformat.read(path, as_version=4)
    _, way, picture, *_ = nb.cells[0].source.split("\n\n")
    links = re.findall(r"\]\((.*?)\)", way)
    assert picture == f"![{heroes.LESSONS[path.name[:2]][1]}](pictures/{path.name[:2]}.svg)"
    assert all((path.parent / link.split("#")[0]).exists() for link in links) and 2 <= len(links) <= 3
    assert nb.cells[1].metadata.jupyter.source_hidden, "the first code cell is folded"
