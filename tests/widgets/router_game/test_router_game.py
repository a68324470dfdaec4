"""The router game in Python, and JavaScript beside it: what it keeps back, refuses, counts, says and draws."""

import itertools
import json

import pytest
import torch
from router_game.cases import TEXT, game_of, made, maps_of
from routings import HOSTILE
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson import Dense, LanguageModel, ModelConfig, Routing
from moe_lesson.lm.checkpoints import shipped_model
from moe_lesson.measure.instruments import experts_in_common
from moe_lesson.measure.nulls import route_beside_null
from moe_lesson.widgets.kit.base import VIEW
from moe_lesson.widgets.router_game.data import (
    COLUMNS,
    HISTORY,
    NAMES,
    PLACES,
    RouterGame,
    at_least,
    closing,
    draw_game,
    drawn_orders,
    history_rows,
    table_rows,
    three_routings,
)

TEXTS = ["the cat sat on the mat and the rat ran", "for i in range(10): print(i, i * i)", "She sells sea shells on the shore."]


@pytest.fixture(scope="module")
def model():
    return shipped_model("ladder-gshard")[0]


# --- what the learner shall discover ---------------------------------------------------------------------------------


def test_of_a_model_the_hash_shares_all_experts_with_equal_tokens_and_a_random_router_looks_like_the_trained(model):
    game = RouterGame.of_model(model, TEXTS, layers=[1], name="ladder-gshard")
    equal = {kind: [] for kind in NAMES}
    for one in game.rounds:
        assert one["layer"] == "layer 2" and (one["n"], one["k"]) == (16, 2)
        for kind, row in zip(one["kinds"], one["rows"]):
            equal[kind].append(float(row[0].split()[0]))
    assert equal["hash router"] == [2.0] * 3
    assert max(equal["trained"]) < 1.6 and max(abs(a - b) for a, b in zip(equal["trained"], equal["random router"])) < 0.5


def test_the_maps_of_a_model_are_its_own_routers_choices_and_layers_take_turns(model):
    game = RouterGame.of_model(model, TEXTS, 5)
    for i, (text, one) in enumerate(zip(TEXTS, game.rounds)):
        trained, random = (routings[i % 2] for routings in route_beside_null(model, text, 5))
        for kind, routing in (("trained", trained), ("random router", random)):
            place = one["kinds"].index(kind)
            assert one["experts"][place] == routing.expert_ids.sort(dim=1).values.tolist()
            assert one["load"][place] == routing.load.tolist() and one["tokens"] == list(routing.tokens)
    assert [one["layer"] for one in game.rounds] == ["layer 1", "layer 2", "layer 1"] and game.name == "2-layer MoE of 16 experts"
    hashes = [three_routings(model, TEXTS[0], layer, 0)["hash router"].expert_ids for layer in (0, 1)]
    assert not torch.equal(*hashes)  # expert 3 of one layer is not expert 3 of the next


def test_the_evidence_is_what_the_instruments_say():
    maps = maps_of()
    game = made(RouterGame([maps], 1, "toy"), guesses=["B"])
    for (_, name, equal, other, uneven), kind in zip(table_rows(game), game.shown["kinds"]):
        one, two, worst = (f"{number:.1f}" for number in (*experts_in_common(maps[kind]), maps[kind].max_violation))
        assert (name, equal, other, uneven) == (NAMES[kind], f"{one} of 2", f"{two} of 2", worst)
        assert f"{name}: {one} and {two}; MaxVio {worst}." in game.summary or f"{name}: a token shares {one} of" in game.summary
    assert "Two random choices of 2 of 16 share 0.3." in game.summary


# --- nothing tells the answer before the guess -------------------------------------------------------------------------


def test_before_the_guess_pictures_and_words_are_the_same_whoever_is_trained():
    orders = {tuple(drawn_orders(1, seed)[0]): seed for seed in range(40)}
    assert len(orders) == 6
    routings, shown = list(maps_of("abcab").values()), []
    for order in orders:  # the same three maps at A, B and C, by another name each time
        game = RouterGame([dict(zip(order, routings))], orders[order], "toy")
        game.seed = 0  # it stands in the title
        shown.append((game.picture(), repr(game), game.summary, table_rows(game), history_rows(game), game.answers))
        assert shown[-1] == shown[0] and table_rows(game)[0] == ["A", *"????"] and game.answers == []
        assert set(NAMES.values()) <= set(itertools.chain(*table_rows(made(game, guesses=["A"]))))
    assert game.picture() != shown[0][0]


def test_weights_and_ranks_do_not_leave_python():
    game = game_of(experts=8, k=3)
    assert all(ids == sorted(ids) for one in game.rounds for table in one["experts"] for ids in table)
    assert set(game.rounds[0]) == {"tokens", "n", "k", "layer", "kinds", "experts", "load", "rows", "evidence"}
    json.dumps(browser_state(game))


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
    assert (game.guesses, game.round, game.locked_token, game.score) == ([], 0, None, 0)
    made(game, guesses=["A"], round=1).guesses = []
    assert game.round == 0


def test_score_answers_and_table_follow_the_guesses():
    game = game_of(rounds=4)
    right = [PLACES[order.index("trained")] for order in drawn_orders(4, 3)]
    wrong = next(place for place in PLACES if place != right[1])
    made(game, guesses=[right[0], wrong, right[2]])
    assert (game.score, game.answers) == (2, right[:3])
    assert history_rows(game) == [["you said", right[0], wrong, right[2], ""], ["trained was", *right[:3], ""],
                                  ["right", "yes", "no", "yes", ""]]
    assert "You said " + right[0] + ": right." in game.summary
    assert game.summary.endswith("2 of 3 right; a coin of three sides would get 1.0.")
    assert f"You said {wrong}: wrong, the trained one is {right[1]}." in made(game, round=1).summary
    assert "Commit a guess" in made(game, round=3).summary
    made(game, guesses=[right[0], wrong, right[2], right[3]])
    assert game.summary.endswith(closing(3, 4)) and "a map alone is no evidence" in game.summary


def test_another_round_has_another_text_so_the_locked_token_goes():
    assert made(game_of(), guesses=["A"], locked_token=2, round=1).locked_token is None


@pytest.mark.parametrize("trait,value", [("round", 1), ("round", -1), ("locked_token", len(TEXT)), ("locked_token", -1)])
def test_a_trait_out_of_range_is_refused(trait, value):
    with pytest.raises(TraitError, match=f"{trait} is {value}; expected 0 … "):
        setattr(game_of(), trait, value)


def test_the_chance_of_a_score_counts_all_ways_to_guess():
    for score in range(5):
        ways = [sum(guess == 0 for guess in guesses) >= score for guesses in itertools.product(range(3), repeat=4)]
        assert at_least(score, 4, 1 / 3) == pytest.approx(sum(ways) / 81)
    assert "at least 2 right with a probability of 41%; guessing between two, the hash router ruled out, 69%." in closing(2, 4)
    assert "probability of 0.0002%; " in closing(12, 12) and "probability of 0.4%; " in closing(5, 5)
    assert "over 99%." in closing(2, 12) and "of 100%; guessing between two, the hash router ruled out, 100%." in closing(0, 12)


# --- validation --------------------------------------------------------------------------------------------------------


def test_wrong_rounds_are_refused_with_value_and_remedy():
    good, other = maps_of(), maps_of(experts=8)
    plain = Routing(*(getattr(good["trained"], name) for name in ("logits", "expert_ids", "weights")))
    far = Routing(good["trained"].logits, good["trained"].expert_ids + 16, good["trained"].weights, good["trained"].tokens)
    for words, rounds, more in (
            ("origin is 'real'", [good], {"origin": "real"}), ("seed is -1; expected a whole", [good], {"seed": -1}),
            ("rounds is 0 rounds; expected a list of 1 … 12", [], {}), ("rounds is 13 rounds", [good] * 13, {}),
            ("rounds is dict", good, {}), ("there are 2 layers for 1 rounds; give one", [good], {"layers": [0, 1]}),
            (r"rounds\[0\] is \['trained'\]; expected a Routing for each of trained, random", [{"trained": good["trained"]}], {}),
            (r"rounds\[1\]\['hash router'\] is str; expected a Routing", [good, {**good, "hash router": "x"}], {}),
            (r"\['random router'\] has T, N, K = 37, 8, 2, the trained router 37, 16, 2; route the same",
             [{**good, "random router": other["trained"]}], {}),
            ("has no token names; give them", [{**good, "trained": plain}], {}),
            ("expert ids run from 16 to 31; expected 0 to 15", [{**good, "trained": far}], {}),
            ("has 49 tokens; expected 2 … 48", [maps_of(49)], {}), ("has 1 token; expected 2", [maps_of(1)], {}),
            ("no token stands twice .*repeated letters", [maps_of("abc")], {}), ("all are equal", [maps_of("aaa")], {})):
        with pytest.raises(ValueError, match=words):
            RouterGame(rounds, **more)


def test_a_wrong_model_text_or_layer_is_refused(model):
    dense = LanguageModel(ModelConfig(Dense(16), layers=1, width=16, heads=2))
    for words, args, more in (("no MoE layer", (dense, ["abab"]), {}), ("texts is one text", (model, "abab"), {}),
                              (r"layers is \[2\]; expected at least one of 0 … 1", (model, ["abab"]), {"layers": [2]}),
                              ("has 49 bytes; expected 2 … 48", (model, ["ab" * 24 + "a"]), {})):
        with pytest.raises(ValueError, match=words):
            RouterGame.of_model(*args, **more)


# --- what a notebook stores ----------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_view_a_picture_and_a_stable_line():
    game = game_of()
    bundle = game._repr_mimebundle_()[0]
    assert bundle[VIEW]["model_id"] == game.model_id and game.picture() == game_of().picture()
    assert bundle["text/plain"] == repr(made(game, guesses=["A"])) == "RouterGame('dice', synthetic: 3 rounds, seed 3)"


def test_the_picture_shows_the_round_names_it_after_the_guess_and_keeps_its_limits():
    game = made(game_of(rounds=2), guesses=["A", "B"], round=1)
    figure, first = draw_game(game), draw_game(made(game_of(rounds=2), locked_token=1))
    assert [ax.get_title() for ax in first.axes[:3]] == list(PLACES) and "synthetic: dice" in first.get_suptitle()
    names = [NAMES[kind] for kind in game.shown["kinds"]]
    assert [ax.get_title() for ax in figure.axes[:3]] == [
        f"{place}: {name}{' (your guess)' if place == 'B' else ''}" for place, name in zip(PLACES, names)]
    assert "is no evidence" in figure.get_suptitle() and "no evidence" not in first.get_suptitle()
    assert len({ax.get_ylim() for ax in (*figure.axes[3:6], *first.axes[3:6])}) == 1
    for place in range(3):
        heat, bars = figure.axes[place].images[0].get_array(), figure.axes[3 + place].patches
        assert heat.sum(axis=0).tolist() == game.shown["load"][place] == [bar.get_height() for bar in bars]
    cells = [ax.tables[0].get_celld() for ax in figure.axes[6:]]
    assert [cells[0][i + 1, 1].get_text().get_text() for i in range(3)] == names
    assert [cells[1][1, i + 1].get_text().get_text() for i in range(2)] == ["A", "B"]


@pytest.mark.parametrize("tokens,experts,k", [(("a", "a", "b"), 1, 1), (48, 64, 8), (HOSTILE + ("'",), 4, 4)])
def test_any_size_and_any_token_can_be_played_and_drawn(tokens, experts, k):
    game = made(game_of(1, tokens=tokens, experts=experts, k=k, layers=None), guesses=["C"], locked_token=2)
    (game.summary + repr(game)).encode("utf-8")  # a lone surrogate would raise
    assert game.picture().startswith(b"\x89PNG")
    assert max(map(max, game.shown["load"])) <= game.top * len(game.tokens) * k / experts


# --- JavaScript says the same --------------------------------------------------------------------------------------------


def cases() -> dict[str, RouterGame]:
    """The corners where two implementations part ways."""
    return {
        "the default": game_of(), "a token before the guess": made(game_of(), locked_token=7),
        **{f"guess {place}": made(game_of(), guesses=[place]) for place in PLACES},
        **{f"round 2 after {guess}": made(game_of(4), guesses=["A", guess], round=1) for guess in PLACES},
        "an open round later": made(game_of(), guesses=["A", "C"], round=2),
        **{f"the end, {guess}": made(game_of(), guesses=["B", "C", guess], round=2) for guess in PLACES},
        "a token at the end": made(game_of(1, experts=12, k=12), guesses=["A"], locked_token=36),
        "one expert": made(game_of(1, tokens="aab", experts=1, k=1, layers=None), guesses=["A"]),
        "hostile tokens": made(game_of(2, tokens=HOSTILE + ("'",)), guesses=["A"], round=1, locked_token=1),
        "other sizes": made(RouterGame([maps_of("abcab"), maps_of(48, 64, 8)]), guesses=["A"], round=1, locked_token=47),
    }


def test_javascript_says_what_python_does(tmp_path):
    vectors = {"cases": [{"name": name, "state": browser_state(game), "answers": game.answers, "score": game.score,
                          "rows": table_rows(game), "history": history_rows(game), "summary": game.summary}
                         for name, game in cases().items()],
               "names": {"names": NAMES, "columns": COLUMNS, "history": HISTORY}}
    printed = run_node("router_game", RouterGame._esm, vectors, tmp_path)
    assert f"pass {len(vectors['cases']) + 2}" in printed  # every case ran
