"""The plain baseline of every table of text: a count model that has seen the same text.

Interpolated Kneser–Ney (Kneser and Ney 1995; Chen and Goodman 1999, eq. 4.1): with c counts, and for all but the longest n-grams
the number of different tokens that stand before them,

    P(w | h) = max(c(h w) - d, 0) / c(h) + d · kinds(h) / c(h) · P(w | h without its first token)

where c(h) sums c(h w) over w, and kinds(h) is how many different w follow h. Below the single token stands 1 / V.

Letters: B windows, S tokens predicted in each, n the length of an n-gram, V vocabulary (256 counts bytes).
"""

from dataclasses import replace

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from ..base.errors import require
from ..base.tokens import BYTES, VOCABULARY, size_of
from .corpora import Corpus


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

    def loss(self, ids: Tensor) -> float:
        """Nats per byte of windows [B, S+1], as a language model's loss is measured."""
        return float(-np.log(self.probabilities(ids)).sum() / size_of(ids[:, 1:]).sum())


def found(keys: ndarray, wanted: ndarray) -> tuple[ndarray, ndarray]:
    """Where each wanted number stands among sorted keys, and whether it does."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return place, keys[place] == wanted


def count_losses(corpus: Corpus, order: int, context: int, max_tokens: int) -> dict[str, float]:
    """The test loss of a count model that has read all the train text of a corpus once.

    Args:
        corpus: in the vocabulary that is to be counted.
        order: the longest n.
        context: S, of the windows, in tokens.
        max_tokens: of each domain's test text.

    Returns: nats per byte, {domain: loss}, and under "mean" the mean over domains, as `evaluate_language` says of a model.
    """
    def read(split: str, domain: str, limit: int) -> Tensor:
        return corpus.windows(domain, split, context, limit)

    everything = max(map(len, corpus.streams.values()))
    model = CountModel(torch.cat([read("train", domain, everything) for domain in corpus.domains]), order, corpus.vocabulary)
    losses = {domain: model.loss(read("test", domain, max_tokens)) for domain in corpus.domains}
    return losses | {"mean": sum(losses.values()) / len(losses)}


def baselines(corpus: Corpus, context: int, max_tokens: int) -> list[dict]:
    """What count models of bytes and of tokens lose on the test text: one row each, as tables of models have them."""
    rows = []
    for unit, vocabulary, orders in (("bytes", BYTES, (3, 5, 6)), ("tokens", corpus.vocabulary, (2, 3, 4))):
        stretch = VOCABULARY // BYTES if unit == "bytes" else 1  # a window of bytes is to hold at least the text of one of tokens
        for order in orders:
            found = count_losses(replace(corpus, vocabulary=vocabulary), order, stretch * context, stretch * max_tokens)
            rows.append({"model": f"{order}-gram of {unit}", "test": found.pop("mean")} | {
                f"test_{domain}": loss for domain, loss in found.items()})
    return rows
