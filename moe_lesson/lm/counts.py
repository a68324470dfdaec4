"""The plain baseline of every table of text: a count model that has seen the same text.

Interpolated Kneser–Ney (Kneser and Ney 1995; Chen and Goodman 1999, eq. 4.1): with c counts, and for all but the longest n-grams
the number of different tokens that stand before them,

    P(w | h) = max(c(h w) - d, 0) / c(h) + d · kinds(h) / c(h) · P(w | h without its first token)

where c(h) sums c(h w) over w, and kinds(h) is how many different w follow h. Below the single token stands 1 / V.
"""

import gzip
import lzma
import math
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from ..base.errors import require
from ..base.tokens import BYTES, VOCABULARY, size_of
from .corpora import Corpus, evenly
from .repeats import fresh_tokens


def grams(ids: ndarray, n: int, vocabulary: int) -> ndarray:
    """The n-grams of windows [B, S+1] as numbers, the first token the most significant: [B, S+2-n]."""
    length = ids.shape[1] + 1 - n
    return sum(ids[:, i:i + length] * vocabulary ** (n - 1 - i) for i in range(n))


class CountModel:
    """An interpolated Kneser–Ney model of tokens.

    Args:
        ids: the windows that it is trained on, [B, S+1] ids; no n-gram reaches over a window's end.
        order: the longest n; V^n must be below 2^63.
        vocabulary: V.
        discount: d, between 0 and 1.

    Raises:
        ValueError: for another order or discount, or windows shorter than an n-gram.
    """

    def __init__(self, ids: Tensor, order: int, vocabulary: int = VOCABULARY, discount: float = 0.75):
        most = int(63 / np.log2(vocabulary) - 1e-9)  # the longest n-gram that is one whole number of 63 bits
        require(1 <= order <= most, f"order is {order}; a count model of {vocabulary} tokens has n-grams of 1 … {most}")
        require(0 < discount < 1, f"discount is {discount}; expected a number between 0 and 1")
        require(ids.ndim == 2 and ids.shape[1] >= order,
                f"ids have shape {tuple(ids.shape)}; expected windows [B, S+1] of at least {order} tokens")
        self.vocabulary, self.discount, self.tables = vocabulary, discount, []
        windows = ids.cpu().numpy().astype(np.int64)
        for n in range(1, order + 1):
            if n == order:
                gram, count = np.unique(grams(windows, n, vocabulary), return_counts=True)
            else:  # how many different tokens stand before it: "Francisco" is frequent, and follows "San" alone
                gram, count = np.unique(np.unique(grams(windows, n + 1, vocabulary)) % vocabulary ** n, return_counts=True)
            context, first = np.unique(gram // vocabulary, return_index=True)
            self.tables.append((gram, count, context, np.add.reduceat(count, first), np.diff([*first, len(gram)])))

    def probabilities(self, ids: Tensor) -> ndarray:
        """Of every token of windows [B, S+1] but the first, after those before it in its window: [B, S]."""
        require(ids.ndim == 2 and ids.shape[1] >= 2, f"ids have shape {tuple(ids.shape)}; expected windows of 2 tokens or more")
        windows = ids.cpu().numpy().astype(np.int64)
        p_BS = np.full((len(windows), windows.shape[1] - 1), 1 / self.vocabulary)
        for n, (gram, count, context, total, kinds) in enumerate(self.tables[:windows.shape[1]], 1):
            start = max(1, n - 1)  # the first token that has so many before it
            here = grams(windows, n, self.vocabulary)[:, start + 1 - n:]
            at, known = found(context, here // self.vocabulary)
            place, seen = found(gram, here)
            shorter = p_BS[:, start - 1:]
            kept = np.maximum(np.where(seen, count[place], 0) - self.discount, 0)
            p_BS[:, start - 1:] = np.where(known, (kept + self.discount * kinds[at] * shorter) / total[at], shorter)
        return p_BS

    def loss(self, ids: Tensor, kept: Tensor | None = None) -> float:
        """Nats per byte of windows [B, S+1], as a language model's loss is measured; of the tokens `kept` [B, S+1] alone, if
        given."""
        kept = (torch.ones_like(ids, dtype=torch.bool) if kept is None else kept)[:, 1:]
        return float(-np.log(self.probabilities(ids))[kept.numpy()].sum() / size_of(ids[:, 1:][kept]).sum())


def found(keys: ndarray, wanted: ndarray) -> tuple[ndarray, ndarray]:
    """Where each wanted number stands among sorted keys, and whether it does."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return place, keys[place] == wanted


DISCOUNTS = (0.6, 0.7, 0.8, 0.9, 0.95)  # of which each table takes the one with the lowest validation loss


def count_losses(corpus: Corpus, order: int, context: int, max_tokens: int) -> dict[str, float]:
    """The test loss of a count model that has read all the train text of a corpus once, its discount tuned on validation text.

    Args:
        corpus: in the vocabulary that is to be counted.
        order: the longest n.
        context: S, of the windows, in tokens.
        max_tokens: of each domain's test text.

    Returns: nats per byte, {domain: loss}, under "mean" the mean over domains, as `evaluate_language` says of a model, and under
        "outside" the mean of the text that the train text does not have word for word (`fresh_tokens`), nan where
        it has all; the loss in "validation", which chose the "discount"; and "entries", how many n-grams of all lengths it has.
    """
    everything = max(map(len, corpus.streams.values()))
    model = CountModel(torch.cat([corpus.windows(domain, "train", context, everything) for domain in corpus.domains]), order,
                       corpus.vocabulary)
    validation, test = ([corpus.windows(domain, split, context, max_tokens) for domain in corpus.domains]
                        for split in ("validation", "test"))
    tuned = {}
    for model.discount in DISCOUNTS:
        tuned[model.discount] = fmean(map(model.loss, validation))
    model.discount = min(tuned, key=tuned.__getitem__)
    losses = {domain: model.loss(ids) for domain, ids in zip(corpus.domains, test)}
    fresh = [evenly(one, context, max_tokens) for one in fresh_tokens(corpus).values()]
    return losses | {"mean": fmean(losses.values()), "outside": fmean(map(model.loss, test, fresh)), "discount": model.discount,
                     "validation": tuned[model.discount], "entries": sum(len(gram) for gram, *_ in model.tables)}


def packed_losses(corpus: Corpus, pack: Callable[[bytes], bytes]) -> dict[str, float]:
    """What a packer needs for the test text of each domain once it has seen all train text, in nats per byte; and the "mean".

    No model of the same kind: it reads the whole test text and learns from it as it goes.
    """
    train = b"".join(corpus.text(domain, "train") for domain in corpus.domains)
    tests, alone = {domain: corpus.text(domain, "test") for domain in corpus.domains}, len(pack(train))
    losses = {domain: 8 * math.log(2) * (len(pack(train + test)) - alone) / len(test) for domain, test in tests.items()}
    return losses | {"mean": fmean(losses.values())}


def baselines(corpus: Corpus, context: int, max_tokens: int) -> list[dict]:
    """What count models of bytes and of tokens lose on the test text, and two packers: one row each, as tables of models have
    them."""
    found: dict[str, dict] = {"gzip": packed_losses(corpus, gzip.compress), "xz": packed_losses(corpus, lzma.compress)}
    for unit, vocabulary, orders in (("bytes", BYTES, (3, 5, 6, 7)), ("tokens", corpus.vocabulary, (2, 3, 4, 5, 6))):
        stretch = 4 if unit == "bytes" else 1  # a token has about 2 bytes: a window of bytes sees no less text than one of tokens
        for order in orders:
            found[f"{order}-gram of {unit}"] = count_losses(replace(corpus, vocabulary=vocabulary), order, stretch * context,
                                                            stretch * max_tokens)
    more = ("outside", "validation", "discount", "entries")
    return [{"model": name, "test": losses["mean"]} | {figure: losses.get(figure, "") for figure in more}
            | {f"test_{domain}": losses[domain] for domain in corpus.domains} for name, losses in found.items()]
