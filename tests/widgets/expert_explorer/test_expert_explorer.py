"""The expert explorer in Python, and JavaScript beside it: what it refuses, computes, says and draws."""

import numpy as np
import pytest
import torch
from expert_explorer.cases import census_of, counted, explorer_of, made, route_of
from routings import HOSTILE
from traitlets import TraitError
from widget_harness import browser_state, run_node

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.lm.corpora import Corpus, Document
from moe_lesson.measure.census import lift, take_census
from moe_lesson.widgets import ExpertExplorer
from moe_lesson.widgets.expert_explorer.data import (
    AFTER,
    BEFORE,
    COLUMNS,
    CONTEXTS,
    DOMAIN_COLUMNS,
    byte_rows,
    domain_rows,
    draw_explorer,
    followers,
    found_at,
    load_words,
    null_words,
    server_words,
    servers,
)

PNG = b"\x89PNG\r\n"


def small(*layers) -> LanguageModel:
    """A model of these layers; two sparse ones unless given."""
    layers = layers or (Sparse(8, 2, 8), Sparse(8, 2, 8))
    return LanguageModel(ModelConfig(layers, layers=len(layers), width=16, heads=2, context=32), seed=3).eval()


@pytest.fixture(scope="module")
def corpus():
    words = "to be or not to be, that is the question whether it is nobler in the mind to suffer. " * 8
    return Corpus(tuple(Document(f"domain {i % 2}", str(i), words[i:], "test") for i in range(8)))


# --- what is computed --------------------------------------------------------------------------------------------------


def test_the_lift_of_a_byte_is_its_share_over_the_share_of_all_tokens():
    view = counted({"a": [30, 10], "b": [5, 45], "c": [10, 0]})  # c is too rare; expert 0 has 45 of 100
    assert byte_rows(view) == [["a", "× 1.7", "× 1.0", "40", "75%"]]  # 0.75 / 0.45; b's 0.1 / 0.45 is no liking
    assert load_words(view) == "45.0% of all tokens choose it (K/N is 50.0%), so no lift can exceed × 2.2."
    assert byte_rows(made(view, expert=[0, 1])) == [["b", "× 1.6", "× 1.0", "50", "90%"]]  # 0.9 / 0.55
    assert null_words(view) == "0 of the random router's 2 experts in this layer have a favourite as strong (× 1.6)."


def test_the_null_is_the_best_random_expert_for_the_same_byte_and_counts_favourites_as_strong():
    view = explorer_of(null=census_of(liking=0.9, seed=1))
    own, null = view._trained[1], view._null[1]
    made(view, expert=[1, 4])
    for name, lifted, none, _, _ in byte_rows(view):
        b = view.counted.index(ord(name.replace("␣", " ").replace("⏎", "\n")))
        assert lifted == f"× {own.lifts[4, b]:.1f}" and none == f"× {null.lifts[:, b].max():.1f}"
    strong = sum(favourite >= own.favourites[4] for favourite in null.favourites)
    assert null_words(view).startswith(f"{strong} of the random router's 12 experts") and 0 < strong < 12


def test_a_byte_that_the_census_hardly_has_gets_no_lift():
    view = made(counted({"a": [30, 10], "b": [29, 0], "c": [25, 25]}), search="xb")
    assert chr(98) not in [row[0] for row in byte_rows(view)] and servers(view, 0) == []
    assert server_words(view, 0) == "Byte 'b', 29 tokens of the census: too few to tell; 30 are needed."
    assert "Byte 'b' is too rare in the census to tell who likes it." in view.summary
    assert servers(counted({"a": [30, 10], "b": [29, 0]}, least=20, text="b"), 0) != []


def test_domains_are_measured_as_in_the_census():
    view = explorer_of()
    expected = lift(census_of().calls(1).sum(dim=0))[7]
    assert [row[1] for row in domain_rows(made(view, expert=[1, 7]))] == [f"× {value:.2f}" for value in expected.tolist()]


def test_contexts_are_calls_of_the_expert_one_each_of_documents():
    census = census_of()
    view, raw = explorer_of(census=census), bytes(census.byte_T.tolist())
    for layer in (0, 1):
        for n, found in enumerate(view.contexts[layer]):
            assert len(found) == CONTEXTS
            for domain, before, byte, after in found:
                window, middle = [(before + byte + after).replace("⏎", "\n").replace("␣", " "), len(before)]
                places = [t for t in range(len(raw)) if raw.startswith(window.encode(), t)]
                called = [t for t in places if n in census.expert_ids[layer][t + middle].tolist()]
                assert called and len(before) <= BEFORE and len(after) <= AFTER
                assert domain in {census.domains[census.domain_F[census.document_T[t]]] for t in called}
    again, other = explorer_of(), explorer_of(seed=1)
    assert again.contexts == view.contexts != other.contexts


def test_no_document_gives_two_contexts_of_an_expert():
    census = census_of(domains="abcdefghi")  # every document is a domain
    for found in (found for layer in explorer_of(census=census, null=census).contexts for found in layer):
        assert len({domain for domain, *_ in found}) == CONTEXTS


def test_contexts_do_not_reach_into_another_document():
    census = census_of(documents=40, length=5)
    found = [entry for layer in explorer_of(census=census, null=census).contexts for expert in layer for entry in expert]
    assert max(len(before) + 1 + len(after) for _, before, _, after in found) == 5


def test_it_starts_with_the_expert_that_likes_the_selected_byte_best():
    view = explorer_of()
    b = view.counted.index(view.raw[view.selected])
    liked = {(layer, n): view._trained[layer].lifts[n, b] for layer in (0, 1) for n in view.chosen[layer, view.selected]}
    assert view.selected == len(view.raw) // 2 and liked[tuple(view.expert)] == max(liked.values()) > 1
    rare = explorer_of("zzz")  # not in the census: the strongest favourite
    assert rare._trained[rare.expert[0]].favourites[rare.expert[1]] == max(
        rare._trained[layer].favourites[n] for layer in (0, 1) for n in rare.chosen[layer, 1])


def test_a_search_finds_bytes_in_the_text_and_asks_for_its_last_one():
    view = made(explorer_of("ee, the theé"), search="the")
    assert found_at(view) == [4, 8] and "The search is found 2 times in the text." in view.summary
    assert servers(view, 0) == servers(made(view, search="e"), 0) != servers(made(view, search="t"), 0)
    assert found_at(made(view, search="ee")) == [0] and found_at(made(view, search="é")) == [11]
    assert server_words(view, 1) == "Byte '0xa9', 0 tokens of the census: too few to tell; 30 are needed."
    liked = [lifted for _, lifted in servers(made(view, search="e"), 1)]
    assert liked == sorted(view._trained[1].lifts[:, view.counted.index(ord("e"))], reverse=True)[:len(liked)] and liked[-1] > 1


def test_the_expert_is_followed_in_the_text_in_its_own_layer():
    view = explorer_of()
    for layer, n in ((0, 3), (1, 3)):
        made(view, expert=[layer, n])
        assert followers(view) == [t for t in range(17) if n in view.chosen[layer, t]]
        assert f"Expert {layer + 1}·3, number 3 of layer {layer + 1}, is chosen by {len(followers(view))} of 17" in view.summary
    assert followers(view) != followers(made(view, expert=[0, 3]))


# --- the learner's own text ----------------------------------------------------------------------------------------------


def test_a_new_text_is_routed_and_a_refused_one_leaves_the_last(corpus):
    model = small()
    view = ExpertExplorer.of_model(model, "to be", corpus, name="tiny", origin="toy")
    for text in ("or not", "é", "that is a question"):
        view.text = text
        routings = model.route(text)
        assert all(np.array_equal(one, routing.expert_ids) for one, routing in zip(view.chosen, routings))
        assert np.allclose(view.shown_weights[1], routings[1].weights) and view.tokens == list(routings[0].tokens)
    said = view.summary
    view.text = "x" * 33
    assert view.problem == "The text is 33 bytes long; the model reads at most 32. Shorten it." and view.summary == said
    view.text = ""
    assert view.selected is None and view.problem == "" and view.summary.startswith("The text is empty: no token to follow. Type")
    view.set_state({"text": "to be or", "token": 7})  # in one message, as Reset sends it
    assert view.selected == 7 and "Token 7 'r' goes to" in view.summary
    view.text = "be"
    assert view.selected == 1


def test_of_a_model_the_census_is_its_own_with_one_moe_layer_or_several(corpus):
    one = small(Dense(16), Sparse(8, 2, 8))
    census = take_census(one, corpus, limit=300, seed=4)
    view = ExpertExplorer.of_model(one, "to be", corpus, seed=4, limit=300)
    given = ExpertExplorer.of_model(one, "to be", census=census, seed=4)
    assert view.sizes == [8] and view.summary == given.summary and view.contexts == given.contexts
    assert view.load == bytes(census["trained"].calls(0).sum(dim=(0, 2)).numpy().astype(np.uint32).tobytes())
    assert view.name == "1 MoE layer of 8 experts" and view.max_bytes == 32
    with pytest.raises(ValueError, match=r"there are 2 routings; expected one for each MoE layer of the census, 1"):
        ExpertExplorer.of_model(small(), "to be", census=census)


# --- validation ------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_with_value_and_remedy(corpus):
    with pytest.raises(ValueError, match=r"no MoE layer, so there is no expert .* shipped_model"):
        ExpertExplorer.of_model(small(Dense(16)), "abc", corpus)
    for words, arguments in (("origin is 'real'", {"origin": "real"}), ("on_text is 3; expected a function", {"on_text": 3}),
                             (r"the text has 17 bytes; expected 1 … 9", {"max_bytes": 9}),
                             ("no byte occurs 9999 times .* set least lower", {"least": 9999}),
                             ("null is dict; expected a Census", {"null": {"a": 1}}),
                             ("other layers or other tokens", {"null": census_of(documents=8)}),
                             ("other layers or other tokens", {"null": census_of((12, 11))}),
                             (r"K = \[3, 4\]; show layers of different K", {"null": census_of(k=4)}),
                             (r"T, K, N = \(17, 3, 12\); expected \(17, 3, 9\)", {"census": census_of((9, 9)),
                                                                               "null": census_of((9, 9))})):
        with pytest.raises(ValueError, match=words):
            explorer_of(**arguments)
    with pytest.raises(ValueError, match="the text has 0 bytes"):
        explorer_of("")


@pytest.mark.parametrize("trait,value", [("expert", [2, 0]), ("expert", [0, 12]), ("expert", [-1, 0]), ("expert", [1]),
                                         ("token", 17), ("token", -1)])
def test_a_control_out_of_range_is_refused_and_nothing_moves(trait, value):
    view = explorer_of()
    before = view.summary
    with pytest.raises(TraitError, match=f"{trait} is "):
        setattr(view, trait, value)
    assert view.summary == before


# --- what it sends and draws -------------------------------------------------------------------------------------------


def test_it_sends_little():
    view = explorer_of("x" * 240, (64, 64), 8, census=census_of((64, 64), 8, documents=30, alphabet=bytes(range(32, 122))),
                       null=census_of((64, 64), 8, documents=30, alphabet=bytes(range(32, 122)), liking=0.2))
    own = sum(len(value) if isinstance(value, bytes) else len(repr(value)) for name, value in view.get_state().items()
              if not name.startswith("_"))
    assert 50_000 < own < 300_000


def test_the_picture_shows_the_best_liked_bytes_beside_the_null():
    view = made(explorer_of(), expert=[1, 4])
    figure = draw_explorer(view)
    figure.draw_without_rendering()
    likings = next(ax for ax in figure.axes if ax.containers)
    order = np.argsort(-view._trained[1].lifts[4])[:len(likings.patches)]
    assert np.allclose([bar.get_width() ** 2 for bar in likings.patches], view._trained[1].lifts[4, order])
    marks = [segment[0][0] ** 2 for segment in likings.collections[-1].get_segments()]
    assert np.allclose(marks, view._null[1].lifts.max(axis=0)[order])
    assert max(ax._left_title.get_window_extent().x1 for ax in figure.axes) <= figure.bbox.width  # no title is cut
    assert view.axis >= max(one.lifts.max() for one in (*view._trained, *view._null))
    assert made(view, text="", expert=[0, 0]).picture().startswith(PNG) and explorer_of("a" * 240).picture().startswith(PNG)


# --- JavaScript computes the same and says the same ----------------------------------------------------------------------


def cases() -> dict[str, ExpertExplorer]:
    """The corners where two implementations part ways."""
    sizes, hostile = (12, 5), " ".join(HOSTILE)
    return {
        "the default": explorer_of(),
        **{f"expert {expert}": made(explorer_of(), expert=list(expert), token=2) for expert in ((0, 0), (0, 11), (1, 3))},
        **{f"search {search!r}": made(explorer_of("to see the thé"), search=search)
           for search in ("the", "ee", "é", "_", "Z", "\0")},
        "empty": made(explorer_of(), text=""),
        "empty, with a search": made(explorer_of(), text="", search="e"),
        "one layer": explorer_of(sizes=(7,)),
        "one expert": explorer_of(sizes=(1, 1), k=1),
        "all chosen": explorer_of(sizes=(5, 5), k=5),
        "layers of different size": made(explorer_of(sizes=sizes), expert=[1, 4], search="e"),
        "shares that end in a 5": counted({"a": [30, 10], "b": [5, 35]}),
        "an expert that nobody calls": made(counted({"a": [40, 0], "b": [40, 0]}), expert=[0, 1]),
        "hostile words": explorer_of(hostile, max_bytes=2000, words=HOSTILE[:9]),
    }


def golden(name: str, view: ExpertExplorer) -> dict:
    layers = range(len(view.sizes))
    t = view.selected
    chosen = [] if t is None else [list(zip(ids[t].tolist(), weights[t].tolist()))
                                   for ids, weights in zip(view.chosen, view.shown_weights)]
    return {"name": name, "state": browser_state(view), "lifts": [one.lifts.flatten().tolist() for one in view._trained],
            "rows": byte_rows(view), "domains": domain_rows(view), "servers": [servers(view, layer) for layer in layers],
            "words": [server_words(view, layer) for layer in layers], "found": found_at(view), "followers": followers(view),
            "chosen": chosen, "load": load_words(view), "none": null_words(view), "summary": view.summary}


def test_javascript_computes_and_says_what_python_does(tmp_path):
    vectors = {"cases": [golden(name, view) for name, view in cases().items()], "columns": [COLUMNS, DOMAIN_COLUMNS]}
    printed = run_node("expert_explorer", ExpertExplorer._esm, vectors, tmp_path)
    assert f"pass {len(vectors['cases']) + 2}" in printed  # every case ran


def test_an_explorer_without_a_field_keeps_its_text():
    view = explorer_of(on_text=None)
    assert not view.has_input and torch.equal(torch.from_numpy(view.chosen[0].copy()), route_of()(view.text)[0].expert_ids.int())
