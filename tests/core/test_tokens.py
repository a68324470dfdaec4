"""Tokens: any text comes back, a smaller vocabulary is the beginning of a larger one, and how the merges were learnt."""

from collections import Counter

import pytest

from moe_lesson import machine_corpus
from moe_lesson.base.text import to_bytes
from moe_lesson.base.tokens import BYTES, MERGES, PART, TOKEN_BYTES, VOCABULARY, decode, encode, learn_merges, token_texts

TEXTS = ["", "a", "<b>👩‍👩‍👧 שלום\u200f\u202e",
         "The  cat\n    sat on the mat\t.", "é中😀 \ud800 e\u0301", "x = [1, 23, 456]", "\0\0 start", "   \n\n  ", "if __name__:",
         bytes(range(256))]


@pytest.mark.parametrize("vocabulary", [256, 257, 300, 1024])
@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_and_its_names_are_those_of_its_tokens(text, vocabulary):
    raw = to_bytes(text)
    ids = encode(raw, vocabulary)
    assert decode(ids) == raw and max(ids, default=0) < vocabulary
    assert len(token_texts(ids)) == len(ids) and all(name and name.encode() for name in token_texts(ids))
    if vocabulary == BYTES:
        assert ids == list(raw)


def test_tokens_are_the_pieces_of_words_that_are_frequent():
    assert token_texts(encode(b"def f(self):\n    return None")) == ["def", "␣f", "(", "self", "):", "⏎␣␣␣␣", "return", "␣None"]
    assert token_texts(encode("é中".encode(), BYTES)) == ["é 1/2", "é 2/2", "中 1/3", "中 2/3", "中 3/3"]
    assert token_texts(encode(b"a b\n\x00\xff\xe4\x01", BYTES)) == ["a", "␣", "b", "⏎", "␀", "0xff", "0xe4", "0x01"]
    assert len(set(TOKEN_BYTES)) == VOCABULARY == 1024


def test_the_course_text_needs_less_than_half_as_many_tokens_as_bytes():
    corpus = machine_corpus(splits=("test",), max_bytes=60_000)
    raw = b"".join(decode(corpus.stream(domain, "test").tolist()) for domain in corpus.domains)
    assert len(raw) / len(encode(raw)) > 2


def test_a_token_never_reaches_over_a_pieces_end():
    assert all(PART.fullmatch(one) for one in TOKEN_BYTES)
    assert b"".join(PART.findall(bytes(range(256)) * 2)) == bytes(range(256)) * 2


def test_learning_merges_the_most_frequent_pair_of_what_is_there_then():
    text = b"low low low lower lower newest newest newest widest widest"
    merges = learn_merges(text, 6)
    pieces, slow = {piece: list(piece) for piece in PART.findall(text)}, []
    times = Counter(PART.findall(text))
    for new in range(6):
        pairs: Counter = Counter()
        for piece, ids in pieces.items():
            for pair in zip(ids, ids[1:]):
                pairs[pair] += times[piece]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        slow.append(best)
        for piece, ids in pieces.items():
            out = []
            while ids:
                both = tuple(ids[:2]) == best
                out.append(BYTES + new if both else ids[0])
                ids = ids[1 + both:]
            pieces[piece] = out
    assert merges == slow
    assert learn_merges(b"abc", 5) == []  # no pair occurs twice


def test_the_list_of_merges_makes_each_token_of_earlier_ones():
    assert all(max(pair) < BYTES + i for i, pair in enumerate(MERGES))


@pytest.mark.parametrize("vocabulary", [255, 1025])
def test_another_vocabulary_is_refused(vocabulary):
    with pytest.raises(ValueError, match=f"vocabulary is {vocabulary}; the course's has 256 … 1024 tokens"):
        encode(b"a", vocabulary)
