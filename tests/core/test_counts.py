"""The count model: the equation, written out slowly, and that its probabilities are some."""

import math
from collections import Counter

import pytest
import torch

from moe_lesson.base.tokens import decode, encode
from moe_lesson.lm import counts
from moe_lesson.lm.corpora import Corpus, Document
from moe_lesson.lm.counts import CountModel, baselines

TEXT = torch.tensor([list(b"abracadabra abraxas"), list(b"a bra, a cadaver ab")])


def slowly(order: int, discount: float):
    """The equation word for word, on strings."""
    lines = [bytes(row) for row in TEXT.tolist()]
    counts = []
    for n in range(1, order + 1):
        each = [line[i:i + n] for line in lines for i in range(len(line) - n + 1)]
        longer = {line[i:i + n + 1] for line in lines for i in range(len(line) - n)}
        counts.append(Counter(each) if n == order else Counter(gram[1:] for gram in longer))

    def p(context: bytes, byte: int) -> float:
        n = len(context) + 1
        lower = p(context[1:], byte) if context else 1 / 256
        follow = {gram: count for gram, count in counts[n - 1].items() if gram[:-1] == context}
        total = sum(follow.values())
        if not total:
            return lower
        return max(follow.get(context + bytes([byte]), 0) - discount, 0) / total + discount * len(follow) / total * lower

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_is_the_equation(order):
    p, asked = slowly(order, 0.6), torch.tensor([list(b"cabra abzz"), list(b"dabraham a")])
    fast = CountModel(TEXT, order, 256, 0.6).probabilities(asked)
    for row, line in zip(fast, asked.tolist()):
        for i in range(1, len(line)):
            assert row[i - 1] == pytest.approx(p(bytes(line[max(0, i + 1 - order):i]), line[i]))


@pytest.mark.parametrize("order", [1, 3, 6])
@pytest.mark.parametrize("context", [b"a", b"abra", b"zzzz", b"\x00\xff ab"])
def test_the_probabilities_of_all_bytes_sum_to_one(order, context):
    every = torch.tensor([[*context, byte] for byte in range(256)])
    last = CountModel(TEXT, order, 256).probabilities(every)[:, -1]
    assert last.min() > 0 and last.sum() == pytest.approx(1)


def test_a_context_is_never_taken_from_another_window():
    ids = torch.tensor([list(b"xy"), list(b"zw")])
    inside, across = (CountModel(ids, 2).probabilities(torch.tensor([list(pair)]))[0, 0] for pair in (b"xy", b"yz"))
    assert inside > 0.2 > 0.1 > across


def test_the_loss_falls_with_the_order_on_text_that_repeats_itself_and_is_that_of_chance_on_what_is_unseen():
    losses = [CountModel(TEXT, order, 256).loss(TEXT) for order in (1, 2, 3, 5)]
    assert losses == sorted(losses, reverse=True)
    assert CountModel(TEXT, 3, 256).loss(torch.tensor([[200, 201, 202]])) > math.log(256)


def test_the_loss_of_tokens_is_counted_by_the_byte():
    ids = torch.tensor([encode(b"to be or not to be, that is the question of the return")])
    model = CountModel(ids, 2)
    nats = -sum(math.log(p) for p in model.probabilities(ids)[0])
    assert model.loss(ids) == pytest.approx(nats / len(decode(ids[0, 1:].tolist())))


def test_the_baselines_have_a_loss_for_every_domain_and_learn_from_train_text_alone():
    text = "".join(f"{i} times {i} is {i * i}\n" for i in range(900))
    documents = [Document("sums", split, text if split == "train" else text[-3000:], split)
                 for split in ("train", "validation", "test")]
    rows = baselines(Corpus(tuple(documents)), context=32, max_tokens=1000)
    losses = {row["model"]: row["test_sums"] for row in rows}
    assert list(losses) == ["gzip", "xz"] + [f"{n}-gram of bytes" for n in (3, 5, 6, 7)] + [
        f"{n}-gram of tokens" for n in (2, 3, 4, 5, 6)]
    assert losses["6-gram of bytes"] < losses["3-gram of bytes"] and rows[0]["test"] == rows[0]["test_sums"]
    assert max(losses["gzip"], losses["xz"]) < 0.1, "the whole test text stands in train"
    unlike = [Document("sums", "train", "nothing of this kind, " * 400, "train"), *documents[1:]]
    again = {row["model"]: row for row in baselines(Corpus(tuple(unlike)), 32, 1000)}
    counted = again["3-gram of bytes"]
    assert counted["test"] > losses["3-gram of bytes"] + 1 and counted["outside"] == pytest.approx(counted["test"])
    assert again["xz"]["test"] > 5 * losses["xz"] and again["gzip"]["test"] > 5 * losses["gzip"]


def test_the_discount_is_the_best_on_validation_text_whatever_the_test_text():
    rng = torch.Generator().manual_seed(0)
    words = [f"word{i} " for i in range(60)]
    drawn = ["".join(words[i] for i in (torch.rand(n, generator=rng) ** 2 * 60).long().tolist()) for n in (600, 300, 300)]
    corpus = Corpus(tuple(Document("mine", split, text, split) for split, text in zip(("train", "validation", "test"), drawn)))
    [row] = [row for row in baselines(corpus, 32, 1000) if row["model"] == "3-gram of tokens"]
    train, validation = (corpus.windows("mine", *read) for read in (("train", 32, 100_000), ("validation", 32, 1000)))
    by = {d: CountModel(train, 3, discount=d).loss(validation) for d in counts.DISCOUNTS}
    assert row["discount"] == min(by, key=by.get) and row["validation"] == pytest.approx(min(by.values()))
    assert row["entries"] == sum(len(gram) for gram, *_ in CountModel(train, 3).tables)


@pytest.mark.parametrize("arguments, message", [
    ((TEXT, 0), "order is 0"), ((TEXT, 8, 256), "order is 8"), ((TEXT, 7), "1 … 6"), ((TEXT, 3, 256, 1.0), "discount is 1"),
    ((TEXT[:, :2], 3), r"shape \(2, 2\)"), ((TEXT[0], 1), r"shape \(19,\)")])
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CountModel(*arguments)
    with pytest.raises(ValueError, match="expected windows"):
        CountModel(TEXT, 2).probabilities(TEXT[:, :1])
