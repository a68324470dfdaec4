"""The expert explorer: what it refuses, what it counts, and by meaning what it shows."""

import numpy as np
import pytest
from expert_explorer.cases import TEXT, census_of, counted, explorer_of, long_names, model_of
from widget_harness import browser_state, made, status, table, write

from moe_lesson.base.tokens import MERGES, TOKEN_BYTES, encode
from moe_lesson.lm.corpora import Corpus, Document
from moe_lesson.measure.census import lift, take_census
from moe_lesson.widgets import ExpertExplorer
from moe_lesson.widgets.expert_explorer.data import AFTER, BEFORE, CONTEXTS, lifts_of

X = "×\u202f"


@pytest.fixture(scope="module")
def corpus():
    words = "to be or not to be, that is the question whether it is nobler in the mind to suffer. " * 8
    return Corpus(tuple(Document(f"domain {i % 2}", str(i), words[i:], "test") for i in range(8)))


# --- what it refuses ---------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_with_value_and_remedy():
    model, census = model_of(), census_of()
    good = {"routings": model.route(TEXT), "text": TEXT, "census": census, "null": census}
    for words, wrong in (
            ("the text has 0 tokens; expected 1 … 256", {"text": ""}),
            ("the text has 258 tokens", {"text": "é" * 129}), ("census is str; expected a Census", {"census": "x"}),
            ("null is NoneType; expected a Census", {"null": None}),
            ("other layers or other tokens; take both", {"null": census_of(documents=8)}),
            ("1 routing; expected one for each MoE layer of the census, 2", {"routings": model.route(TEXT)[:1]}),
            (r"routings\[0\] has T, K, N = \(3, 3, 12\); expected \(17, 3, 12\)", {"routings": model.route("abc")}),
            (r"routings\[1\] has T, K, N = \(17, 3, 5\)", {"routings": model_of((12, 5)).route(TEXT)}),
            ("no token occurs 9999 times in this census", {"least": 9999})):
        with pytest.raises(ValueError, match=words):
            ExpertExplorer(**{**good, **wrong})
    for words, wrong in (("no random router to stand beside the model; take it with nulls=True", {"census": {"trained": census}}),
                         ("seed is 'a'", {"seed": "a"})):
        with pytest.raises(ValueError, match=words):
            ExpertExplorer.of_model(model, TEXT, **wrong)


# --- what is counted ---------------------------------------------------------------------------------------------------


def test_the_lift_of_a_token_is_its_share_over_the_share_of_all_tokens():
    census = census_of()
    token_T, ids = census.token_T, census.expert_ids[1]
    lifts = lifts_of(census, 1, np.array([ord("e"), ord("q")]))
    for place, byte in enumerate(b"eq"):
        for n in (0, 7):
            called = (ids == n).any(dim=1)
            assert lifts[n, place] == pytest.approx((called[token_T == byte].double().mean() / called.double().mean()).item())
    assert np.allclose(lifts[:, 2:], lift(census.calls(1).sum(dim=0)))


def test_contexts_are_calls_of_the_expert_one_each_of_documents():
    census = census_of(domains="abcdefghi")  # every document is a domain
    view, raw = explorer_of(census=census, null=census), bytes(census.token_T.tolist())
    for layer in (0, 1):
        for n, found in enumerate(view.contexts[layer]):
            assert len({domain for domain, *_ in found}) == len(found) == CONTEXTS
            for domain, before, byte, after in found:
                window, middle = (before + byte + after).replace("⏎", "\n").replace("␣", " ").encode(), len(before)
                called = [t + middle for t in range(len(raw)) if raw.startswith(window, t)
                          and n in census.expert_ids[layer][t + middle].tolist()]
                assert any(census.domains[census.document_T[t]] == domain for t in called)
                assert len(before) <= BEFORE and len(after) <= AFTER
    assert explorer_of().contexts == explorer_of().contexts != explorer_of(seed=1).contexts
    short = census_of(documents=40, length=5)  # a context does not reach into another document
    assert max(len(before) + 1 + len(after) for layer in explorer_of(census=short, null=short).contexts
               for expert in layer for _, before, _, after in expert) == 5


def test_it_starts_with_the_expert_that_likes_the_token_in_the_middle_best():
    view, census = explorer_of(), census_of()
    byte, routings = np.array([ord(TEXT[8])]), model_of().route(TEXT)
    liked = {(layer, n): lifts_of(census, layer, byte)[n, 0] for layer in (0, 1) for n in routings[layer].expert_ids[8].tolist()}
    assert view.token == 8 and liked[tuple(view.expert)] == max(liked.values()) > 1


def test_an_explorer_of_a_model_reads_a_corpus_or_a_census_of_it(corpus):
    model = model_of()
    views = [ExpertExplorer.of_model(model, "to be", corpus, seed=2),
             ExpertExplorer.of_model(model, "to be", census=take_census(model, corpus, seed=2), seed=2)]
    assert views[0].lifts == views[1].lifts and views[0].null_lifts == views[1].null_lifts != b""
    assert views[0].name == "2 MoE layers of 12/12 experts" and views[0].weights == views[1].weights != ""


def search_of(text: str, search: str) -> dict:
    """Where a search stands, for each time the tokens that have a part of it; and the token whose experts are named."""
    ids, wanted = encode(text), search.replace("␣", " ").replace("⏎", "\n").encode()
    parts = [TOKEN_BYTES[i] for i in ids]
    raw, owner = b"".join(parts), [t for t, part in enumerate(parts) for _ in part]
    found = [sorted(set(owner[at:at + len(wanted)])) for at in range(len(raw)) if wanted and raw.startswith(wanted, at)]
    missing = search and not found
    return {"text": text, "search": search, "found": found, "asked": encode(wanted)[0] if missing else ids[1]}


def test_the_browser_finds_a_search_and_the_highest_lifts_as_python_does(node):
    searches = [search_of(text, search) for text in ("return the\n    value, return", "中文中 é, thethe") for search in (
        "", "return", "␣return", "turn the", "⏎", "the", "hethe", "é", "中", "文中", "qx")]
    view, census, serving, favoured = explorer_of(), census_of(), [], []
    counted_B = np.array(view.counted)
    for layer in (0, 1):
        lifts_NB = lifts_of(census, layer, counted_B)[:, :len(counted_B)]
        best_BN, best_NB = (np.argsort(-lifts, axis=1, kind="stable").tolist() for lifts in (lifts_NB.T, lifts_NB))
        serving += [{"layer": layer, "id": id, "serving": [[n, lifts_NB[n, i].item()] for n in best_BN[i][:5]
                                                           if lifts_NB[n, i] > 1]} for i, id in enumerate(view.counted)]
        serving += [{"layer": layer, "id": ord("Z"), "serving": []}]
        favoured += [{"layer": layer, "n": n, "places": [i for i in best_NB[n][:6] if lifts_NB[n, i] > 1]} for n in range(12)]
    vectors = {"searches": searches, "state": browser_state(view), "serving": serving, "favoured": favoured,
               "merges": [i for pair in MERGES for i in pair]}
    assert f"pass {len(searches) + 1}" in node("expert_explorer/expert_explorer.test.mjs", vectors)


# --- what it shows -----------------------------------------------------------------------------------------------------


def lines(page) -> list[tuple[str, list[str]]]:
    """The words and the experts of each line."""
    status(page)
    return [(words, experts) for words, experts in page.locator(".moe-explorer-way").evaluate_all("""(nodes) => nodes.map(
      (node) => [node.firstChild.textContent, [...node.querySelectorAll("button:enabled")].map(
        (one) => [...one.children].map((part) => part.textContent).join(" "))])""")]


def marked(page, look: str) -> list[int]:
    """The tokens of the strip that look so."""
    status(page)
    return page.locator(".moe-token").evaluate_all(f"(nodes) => nodes.flatMap((node, t) => ({look}) ? [t] : [])")


FOUND, MINE = "node.style.background !== ''", "node.classList.contains('moe-alike')"


def chosen(layer: int, text: str, token: int) -> list[str]:
    routing = model_of().route(text)[layer]
    weights = zip(routing.expert_ids[token].tolist(), routing.weights[token].tolist())
    return [f"L{layer + 1} E{n} {weight / routing.weights[token].sum():.0%}" for n, weight in weights]


def serving(layer: int, byte: str) -> list[str]:
    lifts = lifts_of(census_of(), layer, np.array([ord(byte)]))[:, 0]
    return [f"L{layer + 1} E{n} {X}{lifts[n]:.1f}" for n in np.argsort(-lifts, kind="stable")[:5] if lifts[n] > 1]


def test_a_token_leads_to_its_experts_in_every_layer_each_named_with_its_layer(show):
    page = show(explorer_of(), live=True)
    for token, byte in ((8, "i"), (4, "s")):
        page.locator(".moe-token").nth(token).click()
        assert lines(page) == [*((f"L{layer + 1}: '{byte}' chose", chosen(layer, TEXT, token)) for layer in (0, 1)),
                               *((f"L{layer + 1}: '{byte}' is served by", serving(layer, byte)) for layer in (0, 1))]
        assert f"Token {token} '{byte}' goes in layer 1 to experts" in status(page)
    page.mouse.move(5, 5)
    page.locator(".moe-token").nth(4).click()  # again: one token is always followed
    assert marked(page, "node.getAttribute('aria-selected') === 'true'") == [4]


def test_an_expert_leads_to_its_tokens_and_to_the_census(show):
    view, census = explorer_of(), census_of()
    page = show(view, live=True)
    page.locator(".moe-explorer-way").nth(1).locator("button").nth(2).press("Enter")
    status(page)
    routing = model_of().route(TEXT)[1]
    n = int(routing.expert_ids[8, 2])
    assert view.expert == [1, n] and marked(page, MINE) == [t for t in range(17) if n in routing.expert_ids[t].tolist()] != []
    numbers = np.array(view.counted)
    lifts, null = lifts_of(census, 1, numbers), lifts_of(census_of(liking=0.2, seed=1), 1, numbers)
    best = [i for i in np.argsort(-lifts[n, :len(numbers)], kind="stable")[:6] if lifts[n, i] > 1]
    names = [{" ": "␣", "\n": "⏎"}.get(chr(numbers[i]), chr(numbers[i])) for i in best]
    load = (census.expert_ids[1] == n).any(dim=1).double().mean().item()
    assert [row[:3] for row in table(page)] == [
        *([name, f"{X}{lifts[n, i]:.1f}", f"{X}{null[:, i].max():.1f}"] for name, i in zip(names, best)),
        *([domain, f"{X}{lifts[n, len(numbers) + m]:.2f}", f"{X}{null[:, len(numbers) + m].max():.2f}"]
          for m, domain in enumerate(census.domains))]
    called = (census.expert_ids[1] == n).any(dim=1)[census.token_T == numbers[best[0]]].double().mean().item()
    assert table(page)[0][4] == f"{100 * called:.0f}%"
    assert f"{100 * load:.1f}% of all tokens call it (K/N 25.0%), so no lift exceeds {X}{1 / load:.1f}." in page.locator(
        ".moe-explorer-heading").inner_text()
    strong = (null[:, :len(numbers)].max(axis=1) >= lifts[n, best[0]]).sum()
    assert f"of a random router's 12 experts, {strong} have a favourite as strong" in status(page)
    assert table(page, ".moe-explorer-calls > div") == view.contexts[1][n]


def test_bars_and_marks_stand_where_the_numbers_say(show):
    view = explorer_of()
    page = show(view)
    status(page)
    layer, n = view.expert
    numbers = np.array(view.counted)
    lifts, null = lifts_of(census_of(), layer, numbers), lifts_of(census_of(liking=0.2, seed=1), layer, numbers)
    best = [i for i in np.argsort(-lifts[n, :len(numbers)], kind="stable")[:6] if lifts[n, i] > 1]
    bars = page.locator(".moe-chart").first.locator(".moe-bar").evaluate_all("""(nodes) => nodes.map((node) => (
      ["x", "width"].map((name) => Number(node.getAttribute(name)))))""")
    unit = bars[-1][0]  # the line at 1
    assert len(bars) == 2 * len(best) + 1
    assert np.allclose([width for _, width in bars[:len(best)]], unit * np.sqrt(lifts[n, best]), rtol=1e-3)
    assert np.allclose([x + 2 for x, _ in bars[len(best):-1]], unit * np.sqrt(null[:, best].max(axis=0)), rtol=1e-3)


def test_a_search_is_for_all_its_tokens_and_the_first_place_is_followed(show):
    view = explorer_of("3 tea, the theé")
    page = show(view, live=True)
    field = page.get_by_label("Who serves … ?")
    for search, places, token, byte in (("the", [7, 8, 9, 11, 12, 13], 7, "t"), ("é", [14, 15], 14, "é 1/2")):
        write(page, "Who serves … ?", search)
        assert marked(page, FOUND) == places and view.search == search and view.token == token
        assert lines(page)[0][0] == f"L1: '{byte}' chose"
    assert lines(page)[2] == ("L1: '0xc3' is too rare", [])
    assert page.get_by_text("found 1 ×").is_visible()
    field.press("Escape")
    assert marked(page, FOUND) == [] and field.input_value() == ""


def test_who_serves_a_token_that_the_text_does_not_have_is_said_by_its_name(show):
    page = show(made(explorer_of(), search="qx"))
    assert [words for words, _ in lines(page)[2:]] == ["L1: 'q' is served by", "L2: 'q' is served by"]
    assert lines(page)[3][1] == serving(1, "q") and page.get_by_text("found 0 ×").is_visible()
    first = lifts_of(census_of(), 0, np.array([ord("q")]))[:, 0]
    assert f"'qx' is not in the text; its first token 'q' is served most by layer 1, expert {first.argmax()} (" in status(page)


def test_a_token_that_the_census_hardly_has_gets_no_lift(show):
    calls = {"a": [30, 10], "b": [29, 0], "c": [25, 25]}
    page = show(made(counted(calls), search="b", token=1))
    assert lines(page)[1] == ("L1: 'b' is too rare", []) and "b" not in [row[0] for row in table(page)]
    page = show(made(counted(calls, least=20), token=1, expert=[0, 0]))
    assert lines(page)[1] == ("L1: 'b' is served by", [f"L1 E0 {X}1.4"])  # 1 / (84 / 119)


def test_another_text_is_routed_as_the_model_routes_it(show):
    view = explorer_of(context=20)
    page = show(view, live=True)
    write(page, "Your text", "see 中")
    page.wait_for_function("document.querySelectorAll('.moe-token').length === 7")
    page.locator(".moe-token").nth(5).click()
    assert [one for _, one in lines(page)[:2]] == [chosen(layer, "see 中", 5) for layer in (0, 1)]
    assert view.text == "see 中" and view.token == 5
    write(page, "Your text", "")
    page.wait_for_function("document.querySelector('.moe-status').textContent.includes('The text is empty')")
    page.get_by_role("button", name="Reset").click()
    assert lines(page)[0][1] == chosen(0, TEXT, 8)


def test_tokens_of_many_letters_are_searched_by_their_text_and_followed(show):
    view = long_names("return the\n    value, return")
    assert view.tokens == ["return", "␣the", "⏎␣␣␣␣", "value", ",", "␣return"]
    page = show(view, live=True)
    for search, places, times in (("return", [0, 5], 2), ("␣return", [5], 1), ("turn the", [0, 1], 1), ("⏎", [2], 1)):
        write(page, "Who serves … ?", search)
        assert marked(page, FOUND) == places and view.token == places[0] and page.get_by_text(f"found {times} ×").is_visible()
        assert lines(page)[0][0] == f"L1: '{view.tokens[places[0]]}' chose"
    for search, words in (("␣namespace", "its first token '␣name' is served most by "),
                          ("namespace", "this token is too rare in the census."), ("instance", "this token is served most by ")):
        write(page, "Who serves … ?", search)
        assert f"'{search}' is not in the text; {words}" in status(page)
    assert lines(page)[2][0] == "L1: 'instance' is served by" and lines(page)[2][1]
