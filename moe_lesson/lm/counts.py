"""The plain baseline of every table of text: a count model that has seen the same bytes in the same windows.

Interpolated Kneser–Ney (Kneser and Ney 1995; Chen and Goodman 1999, eq. 4.1): with c counts, and for all but the longest n-grams
the number of different bytes that stand before them,

    P(w | h) = max(c(h w) - d, 0) / c(h) + d · kinds(h) / c(h) · P(w | h without its first byte)

where c(h) sums c(h w) over w, and kinds(h) is how many different w follow h. Below the single byte stands 1 / 256.

Letters: B windows, S bytes predicted in each, n the length of an n-gram.
"""

import numpy as np
from numpy import ndarray
from torch import Tensor

from ..base.errors import require

BYTES = 256
LONGEST = 7  # of its bytes an n-gram is one whole number below 2^56


def grams(ids: ndarray, n: int) -> ndarray:
    """The n-grams of windows [B, S+1] as numbers, the first byte the most significant: [B, S+2-n]."""
    length = ids.shape[1] + 1 - n
    return sum(ids[:, i:i + length] * BYTES ** (n - 1 - i) for i in range(n))


class CountModel:
    """An interpolated Kneser–Ney model of bytes.

    Args:
        ids: the windows that it is trained on, [B, S+1] bytes; no n-gram reaches over a window's end.
        order: the longest n, 1 … 7.
        discount: d, between 0 and 1.

    Raises:
        ValueError: for another order or discount, or windows shorter than an n-gram.
    """

    def __init__(self, ids: Tensor, order: int, discount: float = 0.75):
        require(1 <= order <= LONGEST, f"order is {order}; a count model has n-grams of 1 … {LONGEST} bytes")
        require(0 < discount < 1, f"discount is {discount}; expected a number between 0 and 1")
        require(ids.ndim == 2 and ids.shape[1] >= order,
                f"ids have shape {tuple(ids.shape)}; expected windows [B, S+1] of at least {order} bytes")
        self.order, self.discount, self.tables = order, discount, []
        windows = ids.cpu().numpy().astype(np.int64)
        for n in range(1, order + 1):
            if n == order:
                gram, count = np.unique(grams(windows, n), return_counts=True)
            else:  # how many different bytes stand before it: "Francisco" is frequent, and follows "San" alone
                gram, count = np.unique(np.unique(grams(windows, n + 1)) % BYTES ** n, return_counts=True)
            context, first = np.unique(gram // BYTES, return_index=True)
            self.tables.append((gram, count, context, np.add.reduceat(count, first), np.diff([*first, len(gram)])))

    def probabilities(self, ids: Tensor) -> ndarray:
        """Of every byte of windows [B, S+1] but the first, after those before it in its window: [B, S]."""
        require(ids.ndim == 2 and ids.shape[1] >= 2, f"ids have shape {tuple(ids.shape)}; expected windows of 2 bytes or more")
        windows = ids.cpu().numpy().astype(np.int64)
        p_BS = np.full((len(windows), windows.shape[1] - 1), 1 / BYTES)
        for n, (gram, count, context, total, kinds) in enumerate(self.tables[:windows.shape[1]], 1):
            start = max(1, n - 1)  # the first byte that has so many before it
            here = grams(windows, n)[:, start + 1 - n:]
            at, known = found(context, here // BYTES)
            place, seen = found(gram, here)
            shorter = p_BS[:, start - 1:]
            kept = np.maximum(np.where(seen, count[place], 0) - self.discount, 0)
            p_BS[:, start - 1:] = np.where(known, (kept + self.discount * kinds[at] * shorter) / total[at], shorter)
        return p_BS

    def loss(self, ids: Tensor) -> float:
        """Nats per byte of windows [B, S+1], as a language model's loss is measured."""
        return float(-np.log(self.probabilities(ids)).mean())


def found(keys: ndarray, wanted: ndarray) -> tuple[ndarray, ndarray]:
    """Where each wanted number stands among sorted keys, and whether it does."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return place, keys[place] == wanted
