"""Draw the moving picture at the head of every lesson: python tools/heroes.py (`make notebooks` calls it)

Each is an SVG of its own in notebooks/pictures: things, and films of them in CSS. Who has asked the system for less motion sees
the still. They are drawings of an idea; no number in them was measured.
"""

from __future__ import annotations

import argparse
import textwrap
from html import escape
from itertools import accumulate
from math import comb
from operator import or_
from pathlib import Path

from moe_lesson.teach.design import MODELS

PICTURES = Path(__file__).resolve().parent.parent / "notebooks" / "pictures"
WIDTH, HEIGHT = 880, 284
LONGEST = 48  # characters in a line of a caption
GROUND, TILE, LINE, INK, FAINT = "#101a2e", "#22304d", "#3a4a6d", "#e6ecf7", "#93a1bd"
COLOURS = "#f6c945", "#4cc9f0", "#f2727f", "#7bd88f", "#b69cff", "#ff9f5a"
COMMON = "#cfd8e8"  # what every token needs
TEXT = "font-family='system-ui, sans-serif' text-anchor='middle' dominant-baseline='middle'"
MOVE = 0.45  # the part of a step in which things change; then they rest
# On a phone the picture is 340 pixels wide, and so 0.39 times as large: its words are drawn larger there.
SIZES = ".said{font-size:22px}@media(max-width:560px){.said{font-size:32px}text[font-size^='1']{font-size:24px}}"
UNSAID = {"transform": "translate(0,0)", "opacity": "1"}  # how a thing looks of which nothing else is said
FADE = 0.15  # the part in which words vanish; others come after it


class Film:
    """Things, and how they look from which step on. A step takes `seconds`; after the last one the film begins anew."""

    def __init__(self, steps: int, still: int, seconds: float = 1.6):
        self.steps, self.still, self.seconds = steps, still, seconds
        self.things: list[tuple[str, dict[int, dict[str, str]]]] = []
        self.text(WIDTH - 64, 18, "a drawing", 11, FAINT)

    def add(self, svg: str, **looks: str) -> int:
        """Draw a thing, `looks` being its CSS at first; returns its number."""
        self.things.append((svg, {0: looks}))
        return len(self.things) - 1

    def box(self, x: float, y: float, w: float, h: float, fill: str = TILE, **looks: str) -> int:
        corner = min(6, w / 4, h / 4)
        return self.add(f"rect x='{x:g}' y='{y:g}' width='{w:g}' height='{h:g}' rx='{corner:g}'", fill=fill, **looks)

    def dot(self, x: float, y: float, r: float, fill: str, **looks: str) -> int:
        return self.add(f"circle cx='{x:g}' cy='{y:g}' r='{r:g}'", fill=fill, **looks)

    def text(self, x: float, y: float, words: str, size: int = 15, fill: str = INK, **looks: str) -> int:
        return self.add(f"text x='{x:g}' y='{y:g}' font-size='{size}' {TEXT}>{escape(words)}</text", fill=fill, **looks)

    def at(self, step: int, *things: int, until: int | None = None, **looks: str) -> None:
        """From this step on the things look so; `until` another, from which on they look as before."""
        for thing in things:
            steps = self.things[thing][1]
            before = dict(UNSAID)
            for earlier in sorted(steps):
                before |= steps[earlier] if earlier <= step else {}
            steps.setdefault(step, {}).update(looks)
            if until is not None and until < self.steps:
                steps.setdefault(until, {}).update({key: before[key] for key in looks})

    def captions(self, words: dict[int, str]) -> None:
        """One line or two under the picture, which change with the steps."""
        starts = sorted(words)
        for start, end in zip(starts, [*starts[1:], None]):
            lines = textwrap.wrap(words[start], LONGEST)
            if len(lines) > 1:  # of about the same length
                lines = textwrap.wrap(words[start], min(LONGEST, len(words[start]) // 2 + 6))
            shifts = [(1 - len(lines)) / 2, *[1.1] * len(lines)]
            spans = "".join(f"<tspan x='{WIDTH / 2:g}' dy='{dy:g}em'>{escape(line)}</tspan>" for dy, line in zip(shifts, lines))
            said = self.add(f"text class='said' x='{WIDTH / 2:g}' y='{HEIGHT - 42}' {TEXT}>{spans}</text", fill=INK,
                            opacity="0")
            self.at(start, said, until=end, opacity="1")

    def svg(self, alt: str, moves: bool = True) -> str:
        """The picture as a file; without films it is its still."""
        styles, drawn = [], []
        for number, (svg, looks) in enumerate(self.things):
            seen = list(accumulate((looks.get(step, {}) for step in range(self.steps)), or_))
            seen = [{key: (UNSAID | one)[key] for key in sorted(seen[-1])} for one in seen]
            if any(one != seen[0] for one in seen):
                frames = [f"0%{{{css(seen[0])}}}"]
                for step in range(1, self.steps):
                    if seen[step] != seen[step - 1]:
                        word = svg.startswith("text")
                        start, end = (0, FADE) if word and seen[step].get("opacity") == "0" else (FADE * word, MOVE)
                        frames += [f"{100 * (step + start) / self.steps:.2f}%{{{css(seen[step - 1])}}}",
                                   f"{100 * (step + end) / self.steps:.2f}%{{{css(seen[step])}}}"]
                frames.append(f"100%{{{css(seen[-1])}}}")
                styles.append(f"@keyframes k{number}{{{''.join(frames)}}}#k{number}{{animation-name:k{number}}}")
            name, _, rest = svg.partition(" ")
            drawn.append(f"<{name} id='k{number}' style='{css(seen[self.still])}' {rest}{'' if name == 'text' else '/'}>")
        style = SIZES + (f"#film>*{{animation:{self.steps * self.seconds:g}s ease-in-out infinite}}{''.join(styles)}"
                         "@media (prefers-reduced-motion:reduce){#film>*{animation:none!important}}" if moves else "")
        size = f"width='{WIDTH}' height='{HEIGHT}'"
        return "\n".join([f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' {size} role='img'>",
                          f"<title>{escape(alt)}</title><style>{style}</style>",
                          f"<rect {size} rx='12' fill='{GROUND}'/><g id='film'>", *drawn, "</g></svg>\n"])


def css(looks: dict[str, str]) -> str:
    return ";".join(f"{key}:{value}" for key, value in looks.items())


def moved(start: tuple[float, float], end: tuple[float, float]) -> str:
    """The CSS transform of a thing that was drawn at `start` and is at `end`."""
    return f"translate({end[0] - start[0]:g}px,{end[1] - start[1]:g}px)"


def grid(n: int, columns: int, x: float, y: float, w: float, h: float, gap: float = 6) -> list[tuple[float, float]]:
    """The left upper corners of n boxes."""
    return [(x + i % columns * (w + gap), y + i // columns * (h + gap)) for i in range(n)]


def start_here() -> Film:
    film = Film(steps=9, still=6, seconds=1.3)
    corners = grid(16, 8, 180, 96, 58, 44)
    tiles = [film.box(*corner, 58, 44) for corner in corners]
    routes = {"the": (2, 13), "cat": (5, 8), "sat": (3, 10), "on": (0, 13), "mat": (5, 11)}
    colours = dict(zip(routes, COLOURS))
    for step, (i, word) in enumerate(enumerate(["the", "cat", "sat", "on", "the", "mat"]), 1):
        x = 215 + 90 * i
        film.at(step, film.text(x, 36, word, 19, fill=FAINT), fill=colours[word])
        for expert in routes[word]:
            to = corners[expert][0] + 29, corners[expert][1] + 22
            token = film.dot(x, 62, 8, colours[word], opacity="0")
            film.at(step, token, opacity="1", transform=moved((x, 62), to))
            film.at(step + 1, token, opacity="0")
            film.at(step, tiles[expert], until=step + 1, fill=colours[word])
    for word in routes:
        for expert in routes[word]:
            film.at(7, tiles[expert], fill=colours[word])
    film.captions({0: "each token of your sentence asks a router", 1: "it sends the token to two of sixteen experts",
                   5: "an equal token goes, mostly, to the same two", 7: "the others rest, and no token pays for them"})
    return film


def dense() -> Film:
    film = Film(steps=7, still=3, seconds=1.3)
    units = [film.box(*corner, 22, 22) for corner in grid(90, 18, 190, 38, 22, 22)]
    film.text(440, 20, "a dense FFN", 16, fill=FAINT)
    for i, step in enumerate((0, 2, 4)):
        start, end = (80, 105), (800, 105)
        token = film.dot(*start, 14, COLOURS[i], opacity="1" if i == 0 else "0")
        film.at(step, token, opacity="1")
        film.at(step + 1, token, transform=moved(start, (440, 105)), opacity="0")
        film.at(step + 1, *units, until=step + 2, fill=COLOURS[i])
        film.at(step + 2, token, transform=moved(start, end))
        film.at(step + 2, token, until=step + 3, opacity="1")
    film.captions({0: "a token comes", 1: "and every unit works for it", 2: "another token comes", 3: "every unit works again",
                   4: "and again", 6: "could something small say beforehand which units a token needs?"})
    return film


def topk() -> Film:
    film = Film(steps=10, still=3)
    corners = grid(8, 4, 500, 46, 64, 60, 10)
    tiles = [film.box(*corner, 64, 60) for corner in corners]
    film.box(210, 46, 190, 130, fill="none", stroke=LINE)
    film.text(305, 64, "router", 16, fill=FAINT)
    tokens = ((COLOURS[0], (30, 62, 18, 40, 12, 76, 24, 34)), (COLOURS[1], (70, 16, 34, 20, 48, 26, 12, 84)))
    for i, (colour, scores) in enumerate(tokens):
        first, place, out = 5 * i, (80, 111), (830, 111)
        token = film.dot(*place, 16, colour, opacity="1" if i == 0 else "0")
        film.at(first, token, opacity="1")
        film.at(first + 1, token, transform=moved(place, (190, 111)))
        film.at(first + 4, token, opacity="0")
        best = sorted(range(8), key=scores.__getitem__)[-2:]
        for expert, score in enumerate(scores):
            bar = film.box(226 + 20 * expert, 164 - score, 14, score, fill=FAINT, opacity="0")
            film.at(first + 1, bar, opacity="1")
            film.at(first + 2, bar, **({"fill": colour} if expert in best else {"opacity": ".25"}))
            film.at(first + 4, bar, opacity="0")
        for expert in best:
            to = corners[expert][0] + 32, corners[expert][1] + 30
            copy = film.dot(190, 111, 10, colour, opacity="0")
            film.at(first + 2, copy, opacity="1", transform=moved((190, 111), to))
            film.at(first + 3, copy, opacity="0")
            film.at(first + 3, tiles[expert], until=first + 4, fill=colour)
            answer = film.dot(*to, 8, colour, opacity="0")
            film.at(first + 3, answer, until=first + 5, opacity="1")
            film.at(first + 4, answer, transform=moved(to, out))
    film.captions({0: "a token comes", 1: "the router scores all eight experts", 2: "the best two are chosen",
                   3: "only these two work", 4: "their answers are added, each with its weight",
                   5: "another token", 6: "other scores", 7: "other experts", 8: "the same price",
                   9: "eight times an FFN to know things with, two to pay for"})
    return film


def balance() -> Film:
    film = Film(steps=8, still=6)
    xs = [180 + 75 * i for i in range(8)]
    for x in xs:
        film.box(x - 26, 188, 52, 12)
    alone, even, heights = [2] * 9 + [5] * 5 + [0, 7], [i % 8 for i in range(16)], [0] * 8
    levels = [0] * 8
    for i, (first, then) in enumerate(zip(alone, even)):
        start = xs[first], 178 - 17 * heights[first]
        heights[first] += 1
        token = film.dot(*start, 7, COLOURS[i % 5], opacity="0")
        film.at(1 + (i > 7), token, opacity="1")
        film.at(5, token, transform=moved(start, (xs[then], 178 - 17 * levels[then])))
        levels[then] += 1
    for i in (1, 3, 4, 6):
        film.at(3, film.text(xs[i], 160, "idle", 16, fill=FAINT, opacity="0"), until=5, opacity="1")
    film.captions({0: "eight experts, sixteen tokens", 1: "in the first steps all tokens come to look alike",
                   3: "so two experts get nearly all of them, and four get nothing", 5: "a small push, and all of them work"})
    return film


def hybridity() -> Film:
    film = Film(steps=9, still=7, seconds=1.9)
    wholes = [film.box(90 + 180 * i, 34, 160, 140) for i in range(4)]
    shared = film.box(60, 44, 120, 100, fill=LINE, opacity="0")
    pieces = [film.box(x, y, 110, 62, opacity="0") for x, y in grid(8, 4, 270, 40, 110, 62, 16)]
    film.at(6, *wholes, opacity="0")
    film.at(6, shared, *pieces, film.text(120, 162, "shared", 16, FAINT, opacity="0"), opacity="1")
    for i in range(4):
        home = 170 + 180 * i, 104
        common = film.dot(*home, 15, COMMON)
        film.at(1, common, until=4, opacity=".2")
        film.at(6, common, transform=moved(home, (120, 94)))
        for j in range(4):
            topic = (j + i) % 4 if i % 2 else (i - j) % 4
            place = home[0] + (-46, 46)[j % 2], home[1] + (-40, 40)[j // 2]
            fact = film.dot(*place, 12, COLOURS[topic])
            film.at(4, fact, opacity=".2")
            film.at(6, fact, opacity="1", transform=moved(place, (300 + 126 * topic + 50 * (i % 2), 71 + 78 * (i // 2))))
    film.captions({0: "four large experts", 1: "hybridity: each holds pieces of unrelated topics",
                   4: "redundancy: what every token needs stands in each of them again",
                   6: "DeepSeek's two ideas: many small experts, and one that all tokens share"})
    return film


def fine_grained() -> Film:
    film = Film(steps=8, still=5, seconds=1.8)
    wholes, gap = grid(16, 8, 60, 44, 54, 54, 8), 3
    pieces = {}
    for i, (x, y) in enumerate(wholes):
        for j, (dx, dy) in enumerate(grid(4, 2, 0, 0, 27, 27, 0)):
            name = pieces[4 * i + j] = film.box(x + dx, y + dy, 27, 27)
            film.at(3, name, transform=f"translate({(dx > 0) * gap - 1}px,{(dy > 0) * gap - 1}px)")
    for step, lit in ((1, (*range(8, 12), *range(44, 48))), (3, ()), (4, (1, 10, 19, 23, 38, 45, 52, 62)),
                      (6, (4, 11, 16, 30, 33, 47, 56, 59))):
        film.at(step, *pieces.values(), fill=TILE)
        film.at(step, *(pieces[i] for i in lit), fill=COLOURS[0])
    for step, until, ways, what in ((1, 3, comb(16, 2), "2 of 16"), (4, None, comb(64, 8), "8 of 64")):
        words = [film.text(712, 76, what, 17, FAINT, opacity="0"), film.text(712, 112, f"{ways:,}", 30, COLOURS[0], opacity="0"),
                 film.text(712, 144, "possible choices", 15, FAINT, opacity="0")]
        film.at(step, *words, until=until, opacity="1")
    film.captions({0: "sixteen experts", 1: "a token goes to two of them", 3: "cut every expert into four",
                   4: "eight pieces cost little more than two wholes, and combine in billions of ways"})
    return film


def shared_experts() -> Film:
    film = Film(steps=9, still=7, seconds=1.7)
    corners, home = grid(8, 4, 340, 40, 110, 62, 14), (130, 75)
    hall = film.box(70, 40, 150, 138, fill=LINE, opacity="0")
    film.at(3, hall, opacity="1")
    film.at(3, film.text(145, 194, "shared, for every token", 15, fill=FAINT, opacity="0"), opacity="1")
    for i, (x, y) in enumerate(corners):
        film.box(x, y, 110, 62)
        film.box(x + 8, y + 36, 94, 18, fill=COLOURS[i % 5])
        grey = film.box(x + 8, y + 8, 94, 20, fill=COMMON)
        film.at(1, grey, opacity="1")
        film.at(3, grey, transform=moved((x + 8, y + 8), (98, 98)))
        if i:
            film.at(4, grey, opacity="0")
        more = film.box(x + 8, y + 8, 94, 20, fill=COLOURS[i % 5], opacity="0")
        film.at(5, more, opacity="1")
    for step, expert in ((6, 2), (7, 5)):
        token = film.dot(*home, 10, "#ffffff", opacity="0")
        film.at(step, token, opacity="1", transform=moved(home, (145, 75)))
        film.at(step + 1, token, opacity="0")
        x, y = corners[expert]
        copy = film.dot(x + 55, y - 6, 10, "#ffffff", opacity="0")
        film.at(step, copy, opacity="1", transform="translate(0px,37px)")
        film.at(step + 1, copy, opacity="0")
    film.captions({0: "eight experts; the grey is what all tokens need", 1: "so each of the eight must learn it again",
                   3: "put it into one expert that every token visits", 5: "and the others keep to what is their own",
                   6: "a token pays for the shared expert and for fewer of the others: the same price"})
    return film


def ladder() -> Film:
    film = Film(steps=9, still=8, seconds=1.7)
    kinds = (("dense", FAINT, 1, (0,), ()), ("GShard", MODELS["GShard"], 4, (2, 7), ()),
             ("cut in four", MODELS["fine-grained"], 8, (3, 12, 22, 29, 33, 46, 50, 61), ()),
             ("DeepSeekMoE", MODELS["DeepSeekMoE"], 8, (12, 22, 29, 46, 50, 61), (0, 8)))
    for i, (name, colour, columns, chosen, shared) in enumerate(kinds):
        x, side = 60 + 200 * i, 128
        w = side / columns - 3 if columns > 1 else side / 4 * 2 ** .5
        places = grid(columns ** 2, columns, x, 44, w, w, 3) if columns > 1 else [(x + (side - w) / 2, 44 + (side - w) / 2)]
        boxes = [film.box(*place, w, w, opacity="0") for place in places]
        label = film.text(x + side / 2, 192, name, 16, fill=FAINT, opacity="0")
        film.at(2 * i, *boxes, label, opacity="1")
        film.at(2 * i + 1, *(boxes[j] for j in chosen), fill=colour)
        film.at(2 * i + 1, *(boxes[j] for j in shared), fill=COMMON)
    film.captions({0: "one FFN for all", 1: "every token pays for all of it", 2: "sixteen of half its size",
                   3: "a token pays for two: as much as before", 4: "sixty-four, a quarter as large",
                   5: "for eight: as much as before", 6: "two of them for every token",
                   7: "and six by choice: as much as before. Which predicts best?"})
    return film


def specialisation() -> Film:
    film = Film(steps=9, still=7, seconds=1.7)
    xs = [150 + 116 * i for i in range(6)]
    for x in xs:
        film.box(x - 40, 150, 80, 40)
    by_step = {1: [k // 8 * 2 + k % 2 for k in range(24)], 4: [(5 * k + k // 8) % 6 for k in range(24)],
               6: [(k // 8 * 2 + (k % 2 if k % 3 else 3)) % 6 for k in range(24)]}
    filled = {step: [0] * 6 for step in by_step}
    for k in range(24):
        start = 130 + 27 * k, 40
        token = film.dot(*start, 8, COLOURS[k // 8])
        for step, experts in by_step.items():
            expert, place = experts[k], filled[step]
            x, y = xs[expert] - 27 + 18 * (place[expert] % 4), 160 + 18 * (place[expert] // 4)
            film.at(step, token, transform=moved(start, (x, y)))
            place[expert] += 1
        film.at(3, token, transform="translate(0px,0px)")
        film.at(8, token, transform="translate(0px,0px)")
    film.captions({0: "three kinds of tokens, six experts", 1: "if experts specialise, each is called for one kind",
                   3: "and if they don't?", 4: "each is called for all kinds",
                   6: "but a router that learned nothing sends like to like, too",
                   8: "so what does a colourful map prove?"})
    return film


def gpu() -> Film:
    film = Film(steps=8, still=4, seconds=1.7)
    order = [2, 0, 3, 1, 0, 2, 1, 3, 3, 0, 2, 1, 1, 3, 0, 2]
    places = [0] * 4
    for i, expert in enumerate(order):
        y, target = 36 + 10.5 * i, 36 + 44 * expert + 9.5 * places[expert]
        places[expert] += 1
        row = film.box(90, y, 150, 8, fill=COLOURS[expert])
        film.at(2, row, transform=moved((90, y), (320, target)))
        film.at(5, row, transform=moved((90, y), (640, y)))
    for expert in range(4):
        matrix = film.box(490, 36 + 44 * expert, 40, 36, fill=TILE)
        film.at(3, matrix, until=5, fill=COLOURS[expert])
    film.text(510, 20, "experts", 16, fill=FAINT)
    film.captions({0: "a batch: every row wants another expert", 2: "carried into order, expert by expert",
                   3: "one matrix product for each; if experts are wide, the GPU is busy",
                   5: "and carried back by the inverse permutation",
                   6: "the carrying is not free: that is this lesson"})
    return film


def beyond() -> Film:
    film = Film(steps=9, still=6, seconds=1.7)
    widths, x, tiles = (40, 60, 40, 110, 60, 150), 250, []
    for w in widths:
        tiles.append((film.box(x, 60, w, 100), x + w / 2))
        x += w + 12
    for step, (colour, experts) in enumerate(zip(COLOURS, ((0,), (1, 3), (5,), (0, 2, 4))), 1):
        place = 120, 110
        token = film.dot(*place, 9 + 3 * len(experts), colour, opacity="0")
        film.at(step, token, until=step + 1, opacity="1")
        film.at(step, *(tiles[i][0] for i in experts), until=step + 1, fill=colour)
    for i, colour in enumerate((0, 1, 3, 1, 3, 2)):
        film.at(6, tiles[i][0], fill=COLOURS[colour])
    film.captions({0: "must all experts be of one size?", 1: "an easy token, a small expert",
                   2: "a token of two skills, two experts", 3: "a hard one, a large expert",
                   4: "a token of three skills, three", 5: "a beautiful idea",
                   6: "is it better at the same cost?"})
    return film


def real_models() -> Film:
    film = Film(steps=8, still=6, seconds=1.6)
    ys = [160 - 40 * i for i in range(4)]
    routes = ((1, 6), (3, 9), (0, 4), (7, 11))
    for y in ys:
        film.box(110, y - 14, 230, 28)
        film.text(300, y, "router", 15, fill=FAINT)
    token = film.dot(150, 196, 10, COLOURS[1])
    cells = {(y, j): film.box(520 + 24 * j, y - 10, 20, 20) for y in ys for j in range(12)}
    for step, (y, experts) in enumerate(zip(ys, routes), 1):
        film.at(step, token, transform=moved((150, 196), (150, y)))
        for expert in experts:
            heard, to = film.dot(300, y, 6, COLOURS[0], opacity="0"), (530 + 24 * expert, y)
            film.at(step, heard, opacity="1")
            film.at(step + 1, heard, transform=moved((300, y), to), opacity="0")
            film.at(step + 1, cells[y, expert], fill=COLOURS[0])
    film.captions({0: "a model that other people trained", 1: "a small hook on each router",
                   2: "hears which experts, and how much of each", 6: "and the instruments of this course work on it"})
    return film


LESSONS = {
    "00": (start_here, "Six tokens of a sentence, one after the other, light up two of sixteen experts each"),
    "01": (dense, "Tokens pass through a dense FFN, and all its units work for each of them"),
    "02": (topk, "A token is scored by a router, goes to two of eight experts, and their answers are added"),
    "03": (balance, "Sixteen tokens crowd on two of eight experts; then they are spread evenly"),
    "04": (hybridity, "Large experts hold mixed topics and the same common piece; "
                      "small experts and a shared one are meant to sort them out"),
    "05": (fine_grained, "Sixteen experts are cut into sixty-four pieces: 120 choices become billions at nearly the same cost"),
    "06": (shared_experts, "What all experts hold in common moves into one shared expert, and each keeps to what is its own"),
    "07": (ladder, "Dense, GShard, cut in four and DeepSeekMoE side by side, with the same area at work"),
    "08": (specialisation, "Tokens of three kinds are sorted to six experts, or mixed; a random router sorts some of them, too"),
    "09": (gpu, "Rows of a batch are carried into the order of their experts, multiplied, and carried back"),
    "10": (beyond, "Experts of unequal sizes, and tokens that call one, two or three of them"),
    "11": (real_models, "A token climbs through a model, and each router's choice is written into a map beside it"),
}

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help tells, and does nothing
    PICTURES.mkdir(exist_ok=True)
    for number, (film_of, alt) in LESSONS.items():
        (PICTURES / f"{number}.svg").write_text(film_of().svg(alt), encoding="utf-8")
