"""The router game: what it keeps back and refuses, and by meaning what it shows; test_every_widget_browser.py asks the rest."""

import itertools
import json

import pytest
import torch
from router_game.cases import TEXT, game_of, maps_of
from traitlets import TraitError
from widget_harness import browser_state, made, picture, status, table

from moe_lesson import Routing
from moe_lesson.lm.checkpoints import shipped_model
from moe_lesson.measure.instruments import experts_in_common
from moe_lesson.measure.nulls import route_beside_null
from moe_lesson.moe.routing import max_violation
from moe_lesson.widgets.router_game.data import NAMES, PLACES, RouterGame, drawn_orders, three_routings

TEXTS = ["the cat sat on the mat and the rat ran", "for i in range(10): print(i, i * i)", "She sells sea shells on the shore."]


@pytest.fixture(scope="module")
def model():
    return shipped_model("ladder-gshard")[0]


# --- what Python packs -------------------------------------------------------------------------------------------------


def test_of_a_model_the_hash_shares_all_experts_with_equal_tokens_and_a_random_router_looks_like_the_trained(model):
    rounds = [three_routings(model, text, 1, 0) for text in TEXTS]
    equal = {kind: [experts_in_common(one[kind])[0] for one in rounds] for kind in NAMES}
    assert equal["hash router"] == [2.0] * 3
    assert max(equal["trained"]) < 1.6 and max(abs(a - b) for a, b in zip(equal["trained"], equal["random router"])) < 1


def test_the_maps_of_a_model_are_its_own_routers_choices_and_layers_take_turns(model):
    game = RouterGame.of_model(model, TEXTS, 5)
    for i, (text, one) in enumerate(zip(TEXTS, game.rounds)):
        trained, random = (routings[i % 2] for routings in route_beside_null(model, text, 5))
        for kind, routing in (("trained", trained), ("random router", random)):
            place = one["kinds"].index(kind)
            assert one["experts"][place] == routing.expert_ids.sort(dim=1).values.tolist()
            assert one["load"][place] == routing.load.tolist() and one["tokens"] == list(routing.tokens)
    assert [one["layer"] for one in game.rounds] == [1, 2, 1] and game.name == "2-layer MoE of 16 experts"
    hashes = [three_routings(model, TEXTS[0], layer, 0)["hash router"].expert_ids for layer in (0, 1)]
    assert not torch.equal(*hashes)  # expert 3 of one layer is not expert 3 of the next


def test_the_evidence_is_what_the_instruments_say_and_ranks_do_not_leave_python():
    maps = maps_of(experts=8, k=3)
    (one,) = RouterGame([maps], 1, "toy").rounds
    for kind, evidence, experts in zip(one["kinds"], one["evidence"], one["experts"]):
        assert evidence == [*experts_in_common(maps[kind]), max_violation(maps[kind].load)]
        assert experts == [sorted(ids) for ids in maps[kind].expert_ids.tolist()]
    assert set(one) == {"tokens", "n", "k", "layer", "kinds", "experts", "load", "evidence"}
    json.dumps(browser_state(game_of()))


def test_the_seed_draws_every_order_alike_whatever_came_before():
    assert drawn_orders(4, 7) == drawn_orders(4, 7) != drawn_orders(4, 8) and drawn_orders(2, 7) == drawn_orders(4, 7)[:2]
    places = [tuple(order.index("trained") for order in drawn_orders(2, seed)) for seed in range(900)]
    assert all(70 < places.count(pair) < 130 for pair in itertools.product(range(3), repeat=2))


# --- guesses -----------------------------------------------------------------------------------------------------------


def test_a_guess_stands_until_reset():
    game = game_of()
    game.guesses = ["B"]
    for wrong in (["A"], ["A", "B"], ["B", "D"], ["B"] * 4):
        with pytest.raises(TraitError, match="guesses is .*(can't be taken back|at most 3 of A, B, C)"):
            game.guesses = wrong
        with pytest.raises(TraitError):
            game.set_state({"guesses": wrong})  # as the browser would send it
        assert game.guesses == ["B"]
    made(game, guesses=["B", "C"], round=2, locked_token=3).set_state(game.start)
    assert (game.guesses, game.round, game.locked_token) == ([], 0, None)
    made(game, guesses=["A"], round=1).guesses = []
    assert game.round == 0


def test_another_round_has_another_text_so_the_locked_token_goes():
    assert made(game_of(), guesses=["A"], locked_token=2, round=1).locked_token is None


# --- validation --------------------------------------------------------------------------------------------------------


def test_wrong_rounds_are_refused_with_value_and_remedy():
    good, other = maps_of(), maps_of(experts=8)
    plain = Routing(*(getattr(good["trained"], name) for name in ("logits", "expert_ids", "weights")))
    for words, rounds, more in (
            ("seed is -1; expected a whole", [good], {"seed": -1}),
            ("rounds is 0 rounds; expected a list of 1 … 12", [], {}), ("rounds is 13 rounds", [good] * 13, {}),
            ("rounds is dict", good, {}), ("there are 2 layers for 1 rounds; give one", [good], {"layers": [0, 1]}),
            (r"rounds\[0\] is \['trained'\]; expected a Routing for each of trained, random", [{"trained": good["trained"]}], {}),
            (r"rounds\[1\]\['hash router'\] is str; expected a Routing", [good, {**good, "hash router": "x"}], {}),
            (r"\['random router'\] has T, N, K = 37, 8, 2, the trained router 37, 16, 2; route the same",
             [{**good, "random router": other["trained"]}], {}),
            ("has no token texts; add them", [{**good, "trained": plain}], {}),
            ("has 49 tokens; expected 2 … 48", [maps_of(49)], {}), ("has 1 token; expected 2", [maps_of(1)], {}),
            ("no token stands twice .*repeated words", [maps_of("abc")], {}), ("all are equal", [maps_of("aaa")], {})):
        with pytest.raises(ValueError, match=words):
            RouterGame(rounds, **more)


def test_a_wrong_text_is_refused(model):
    for words, texts in (("texts is 'abab'; expected a list", "abab"), ("texts is 5; expected a list with one text for each", 5),
                         ("has 49 tokens; expected 2 … 48", ["é" * 24 + "a"])):
        with pytest.raises(ValueError, match=words):
            RouterGame.of_model(model, texts)


# --- what it shows -----------------------------------------------------------------------------------------------------


def press(page, place: str) -> None:
    page.get_by_role("button", name=f"{place} is the trained one").press("Enter")


def test_before_the_guess_the_page_is_the_same_whoever_is_trained(show):
    orders = {tuple(drawn_orders(1, seed)[0]): seed for seed in range(40)}
    assert len(orders) == 6
    routings, shown = list(maps_of("abcab").values()), []
    for order, seed in orders.items():  # the same three maps at A, B and C, by another name each time
        game = RouterGame([dict(zip(order, routings))], seed, "toy")
        game.seed = 0  # it stands on the page
        page = show(game)
        shown.append((status(page), page.locator(".moe-root").inner_text(), picture(page)))
        assert shown[-1] == shown[0] and table(page, '[aria-label="the evidence"] tbody tr')[0] == ["A", *"????"]


def test_after_the_guess_all_is_told(show):
    game = game_of()
    page = show(game, live=True)
    press(page, "B")
    (answer,) = (PLACES[game.rounds[0]["kinds"].index("trained")],)
    assert f"You said B: {'right' if answer == 'B' else f'wrong, the trained one is {answer}'}." in status(page)
    one, k = game.rounds[0], game.rounds[0]["k"]
    assert table(page, '[aria-label="the evidence"] tbody tr') == [
        [place, NAMES[kind], f"{equal:.1f} of {k}", f"{other:.1f} of {k}", f"{uneven:.1f}"]
        for place, kind, (equal, other, uneven) in zip(PLACES, one["kinds"], one["evidence"])]
    assert table(page, '[aria-label="your guesses"] tbody tr') == [["you said", "B", "", ""], ["trained was", answer, "", ""]]


def test_a_guess_is_not_taken_back_and_the_keyboard_stays_where_it_was(show):
    game = game_of()
    page = show(game, live=True)
    page.get_by_role("button", name="Next round").press("Enter")  # not before the guess
    press(page, "A")
    said = status(page)
    page.keyboard.press("Enter")
    press(page, "C")
    assert status(page) == said and game.guesses == ["A"] and game.round == 0
    assert page.evaluate("document.activeElement.textContent") == "C is the trained one"
    pressed = [page.get_by_role("button", name=f"{place} is").get_attribute("aria-pressed") for place in PLACES]
    assert pressed == ["true", "false", "false"]


def test_a_whole_game_ends_with_the_closing_line_and_reset_starts_the_same_again(show):
    game = game_of()
    page = show(game, live=True)
    first = status(page), picture(page)
    for i, place in enumerate("BCA"):
        assert game.round == i and page.locator(".moe-strip .moe-token").all_inner_texts() == list(TEXT)
        press(page, place)
        status(page)
        page.get_by_role("button", name="Next round").press("Enter")  # after the last round it leads nowhere
        status(page)
    assert game.guesses == [*"BCA"] and game.round == 2
    right = sum(place == PLACES[one["kinds"].index("trained")] for place, one in zip("BCA", game.rounds))
    assert f"The end: {right} of 3 right" in status(page) and "a map alone is no evidence" in status(page)
    page.get_by_role("button", name="Reset").click()
    assert (status(page), picture(page)) == first and game.guesses == []


def test_pointing_says_the_experts_and_marks_the_equals(show):
    game = game_of()
    page = show(game, live=True)
    page.get_by_role("application").press("ArrowDown")
    goes = "; ".join(f"{place} {', '.join(map(str, ids[1]))}" for place, ids in zip(PLACES, game.rounds[0]["experts"]))
    assert f"Token 1 'h' (one of {TEXT.count('h')} here) goes to experts {goes}." in status(page)
    assert page.locator(".moe-alike").count() == TEXT.count("h") - 1
    once = next(i for i, letter in enumerate(TEXT) if TEXT.count(letter) == 1)
    for _ in range(once - 1):
        page.keyboard.press("ArrowDown")
    assert f"Token {once} '{TEXT[once]}' (the only one here)" in status(page)
    for _ in range(once - 1):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.mouse.move(5, 5)
    assert "Token 1 'h'" in status(page) and game.locked_token == 1
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 20 + 156 * 4.5 / len(TEXT))
    assert "Token 4 'm'" in status(page)


# Where the words over the maps begin and end, in pixels of the canvas, as they are drawn next.
HEADS = """() => new Promise((done) => {
  const heads = [], write = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...most) {
    if (/^[ABC](:|$)/.test(text)) heads.push([text, x, x + this.measureText(text).width]);
    write.call(this, text, x, y, ...most);
  };
  model.receive({ locked_token: 2 });
  requestAnimationFrame(() => requestAnimationFrame(() => {
    CanvasRenderingContext2D.prototype.fillText = write;
    model.receive({ locked_token: null });
    done(heads);
  }));
})"""


@pytest.mark.parametrize("width", [470, 700, 1280])
def test_heads_over_the_maps_and_above_them_meet_neither_each_other_nor_the_edge(show, width):
    for guesses in ([], ["A"]):
        page = show(made(game_of(name="ladder-deepseekmoe"), guesses=guesses), viewport={"width": width, "height": 600})
        heads = page.evaluate(HEADS)
        assert [text[0] for text, *_ in heads] == [*"ABC"] and len({text for text, *_ in heads}) == 3
        starts = [start for _, start, _ in heads[1:]] + [page.locator("canvas").bounding_box()["width"]]
        assert all(end <= start for (_, _, end), start in zip(heads, starts))
        boxes = [node.bounding_box() for node in page.locator(".moe-header > *").all()]
        for one, other in itertools.combinations(boxes, 2):
            assert one["x"] + one["width"] <= other["x"] or one["y"] + one["height"] <= other["y"]
        assert all(0 <= box["x"] and box["x"] + box["width"] <= width for box in boxes)


def test_the_chance_of_a_score_counts_all_ways_to_guess(node):
    ways = {score: sum(sum(guess == 0 for guess in guesses) >= score for guesses in itertools.product(range(3), repeat=4)) / 81
            for score in range(5)}
    assert f"pass {len(ways)}" in node("router_game/router_game.test.mjs", {"ways": list(ways.items())})
