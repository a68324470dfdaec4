"""Repeats: each byte that stands in an earlier document is found, no other; documents lose their repeats and nothing else."""

import numpy as np
import pytest

from moe_lesson import Corpus, Dense, Document, LanguageModel, ModelConfig, evaluate_language
from moe_lesson.base.tokens import decode
from moe_lesson.lm.repeats import fresh_tokens, leak, passage_hashes, repeated_bytes, without_repeats


def by_hand(texts, length):
    """repeated_bytes, by looking for each passage in each earlier text."""
    marks = [np.zeros(len(text), dtype=bool) for text in texts]
    for i, text in enumerate(texts):
        for start in range(len(text) - length + 1):
            if any(text[start:start + length] in earlier for earlier in texts[:i]):
                marks[i][start:start + length] = True
    return marks


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 13])
def test_repeated_bytes_are_those_that_a_search_finds(length):
    generator = np.random.default_rng(length)
    texts = ["".join(generator.choice(list("abc\n"), size=size)).encode() for size in (60, 5, 0, 1, 200, 13, 80)]
    texts += [texts[0][20:50] + b"end", texts[0][-13:], texts[1] + texts[3]]
    found, expected = repeated_bytes(texts, length), by_hand(texts, length)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]
    assert any(part.any() for part in found)


def test_a_passage_of_eighty_bytes_is_a_repeat_and_one_of_seventy_nine_is_not():
    passage = bytes(range(33, 113))
    first, whole, part = b"x" + passage + b"y", b"123" + passage + b"456", b"789" + passage[:-1] + b"000"
    _, in_whole, in_part = repeated_bytes([first, whole, part])
    assert in_whole.tolist() == [False] * 3 + [True] * 80 + [False] * 3
    assert not in_part.any()


def test_the_end_of_one_text_and_the_beginning_of_the_next_make_no_passage():
    end, begin = bytes(range(33, 73)), bytes(range(73, 113))
    assert not any(part.any() for part in repeated_bytes([b"1" + end, begin + b"1", b"2" + end, begin + b"2"]))


def test_a_repeat_within_one_text_is_none():
    assert not repeated_bytes([b"the same words " * 20])[0].any()


@pytest.mark.parametrize("length", [1, 5, 64, 80, 127])
def test_passages_have_the_same_hash_just_when_they_are_the_same(length):
    raw = np.frombuffer((b"\0" * 200 + b"\xff" * 200 + bytes(range(256))) * 2, dtype=np.uint8)
    hashes = passage_hashes(raw, length)
    passages = [raw[i:i + length].tobytes() for i in range(len(raw) - length + 1)]
    assert len(hashes) == len(passages)
    assert len(set(hashes.tolist())) == len(set(passages)) == len(set(zip(hashes.tolist(), passages)))


def test_fresh_tokens_are_those_with_a_byte_that_no_repeat_has_and_the_loss_outside_is_theirs():
    passage = "a passage of the train text that is longer than eighty bytes, and it stands in the test text again. "
    own = "What stands here alone was never read by anybody, and so it is not known to a model. "
    corpus = Corpus((Document("a", "one", passage * 3, "train"), Document("a", "two", own + passage + own, "test")))
    [fresh], ids = fresh_tokens(corpus).values(), corpus.stream("a", "test")
    assert len(fresh) == len(ids) and len(decode(ids[~fresh].tolist())) <= len(passage) + 1
    assert decode(ids[fresh].tolist()).decode().count("anybody") == 2 and not fresh.all()
    model = LanguageModel(ModelConfig(Dense(8), layers=1, width=16, heads=1, context=8))
    inside = evaluate_language(model, corpus, "test", 40, only={"a": ~fresh})
    outside, all_ = evaluate_language(model, corpus, "test", 40, only={"a": fresh}), evaluate_language(model, corpus, "test", 40)
    with pytest.raises(ValueError, match=f"only says it of {len(ids)} tokens of 'a', and the train split has"):
        evaluate_language(model, corpus, "train", 40, only={"a": fresh})
    assert min(inside["a"], outside["a"]) < all_["a"] < max(inside["a"], outside["a"])


def test_text_shorter_than_a_passage_has_none():
    assert passage_hashes(np.frombuffer(b"short", dtype=np.uint8), 80).shape == (0,)
    assert [len(part) for part in repeated_bytes([b"", b"short"])] == [0, 5]


def lines(name, count=12):
    return "".join(f"{name}: line {i} of {count} says something of its own, {hash((name, i)) % 997}\n" for i in range(count))


def test_copies_are_left_out_and_of_other_documents_the_lines_that_are_repeats():
    licence = "".join(f"Licence, clause {i}: everybody may copy this without a word of thanks to anyone.\n" for i in range(4))
    read = [("a", licence + lines("a")), ("copy of a", licence + lines("a") + "but for this\n"), ("b", licence + lines("b"))]
    assert list(without_repeats(read)) == [("a", (licence + lines("a")).strip()), ("b", lines("b").strip())]


def corpus(train, test):
    return Corpus((Document("d", "1", train, "train"), Document("d", "2", test, "test"), Document("d", "3", train, "validation")))


def test_the_leak_is_the_share_of_the_test_text_that_stands_in_train():
    known, new = lines("known", 6), lines("new", 18)
    share = leak(corpus(known + lines("other"), known + new), "d")
    assert share == pytest.approx(len(known) / len(known + new), abs=0.01)
    assert leak(corpus(known, new), "d") == 0 < leak(corpus(known, new), "d", length=4)
