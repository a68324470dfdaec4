"""Tokens: bytes, and parts of words that byte-pair encoding made of them (Sennrich et al. 2016, arXiv 1508.07909).

Ids 0 … 255 are the bytes; id 256 + i is the i-th pair that was merged. So a vocabulary of V tokens is the first V - 256 merges of
the course's list, a larger one begins like a smaller one, and V = 256 reads bytes.
"""

import json
import pathlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from .errors import require
from .text import NAMES, to_bytes, visible

BYTES = 256
# Pairs are merged within such parts: a word or a number with the blank before it, a line's end with the indentation after it.
# Classes of bytes, not of characters: any text is cut the same way in Python and in the browser (kit/vocabulary.js).
PART = re.compile(rb" ?[A-Za-z\x80-\xff]+| ?[0-9]+|\n *| +|\x00| ?[^ \n0-9A-Za-z\x80-\xff\x00]+")
MERGES = tuple((a, b) for a, b in json.loads((pathlib.Path(__file__).parent / "merges.json").read_text()))
VOCABULARY = BYTES + len(MERGES)
RANK = {pair: rank for rank, pair in enumerate(MERGES)}


def token_bytes(merges: Iterable[tuple[int, int]]) -> list[bytes]:
    """What each token stands for: [V]."""
    found = [bytes([i]) for i in range(BYTES)]
    for a, b in merges:
        found.append(found[a] + found[b])
    return found


TOKEN_BYTES = token_bytes(MERGES)
SIZES = [len(one) for one in TOKEN_BYTES]  # in bytes


@lru_cache(maxsize=200_000)
def merged(part: bytes, vocabulary: int) -> tuple[int, ...]:
    """The tokens of one part: of the pairs in it, the one that was merged first is merged, until none is left."""
    ids = list(part)
    while True:
        best = min((RANK.get(pair, len(MERGES)) for pair in zip(ids, ids[1:])), default=len(MERGES))
        if best >= vocabulary - BYTES:
            return tuple(ids)
        ids = joined(ids, MERGES[best], BYTES + best)


def joined(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The ids with every occurrence of a pair, from the left, as one new id."""
    out, i = [], 0
    while i < len(ids):
        both = tuple(ids[i:i + 2]) == pair
        out.append(new if both else ids[i])
        i += 1 + both
    return out


def size_of(ids: Tensor) -> Tensor:
    """How many bytes each token has, in the ids' shape and on the CPU: a loss is divided by the bytes of what was predicted."""
    return torch.tensor(SIZES, device="cpu")[ids.cpu()]


def encode(text: str | bytes, vocabulary: int = VOCABULARY) -> list[int]:
    """The tokens of a text.

    Args:
        text: or its bytes.
        vocabulary: V, 256 (bytes) … 1,024.

    Raises:
        ValueError: for another vocabulary.
    """
    require(BYTES <= vocabulary <= VOCABULARY, f"vocabulary is {vocabulary}; the course's has {BYTES} … {VOCABULARY} tokens")
    return [token for part in PART.findall(to_bytes(text)) for token in merged(part, vocabulary)]


def decode(ids: Iterable[int]) -> bytes:
    """The text's bytes again."""
    return b"".join(TOKEN_BYTES[i] for i in ids)


def token_texts(ids: Iterable[int]) -> list[str]:
    """A readable name for each token of a text: `␣the`, `⏎`; of a character cut in parts `中 1/3`."""
    ids = list(ids)
    return shown_bytes(decode(ids), [SIZES[i] for i in ids])


def shown_bytes(raw: bytes, sizes: list[int]) -> list[str]:
    """A readable name for each part of a text, `sizes` bytes long each; characters that lie in two parts are numbered."""
    of_byte: list[tuple[str, int, int]] = []  # the character's name, which byte of it this is, how many it has
    for char in raw.decode("utf-8", "surrogateescape"):  # which makes half a character of a byte that is none
        bare = char.encode("utf-8", "surrogateescape")
        seen = len(bare) > 1 or char in NAMES or char.isprintable()  # half a character is not printable
        shown = visible(char) if seen else f"0x{bare[0]:02x}"
        of_byte += [(shown, i, len(bare)) for i in range(len(bare))]
    out, end = [], 0
    for length in sizes:
        start, end = end, end + length
        names = []
        for place, (shown, i, size) in enumerate(of_byte[start:end], start):
            if start <= place - i and place - i + size <= end:
                names += [shown] if i == 0 else []
            else:
                names.append(f"{shown} {i + 1}/{size}")
        out.append("".join(names))
    return out


def learn_merges(text: bytes, count: int) -> list[tuple[int, int]]:
    """Byte-pair encoding: the most frequent pair of neighbours becomes a token, `count` times over; of equals that of lowest ids.

    Args:
        text: to learn from.
        count: how many merges; fewer where no pair occurs twice.
    """
    times = Counter(PART.findall(text))
    parts = [list(part) for part in times]
    pairs: Counter[tuple[int, int]] = Counter()
    where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)

    often = list(times.values())

    def enter(number: int, sign: int) -> None:
        for pair in zip(parts[number], parts[number][1:]):
            pairs[pair] += sign * often[number]
            where[pair].add(number)

    for number in range(len(parts)):
        enter(number, 1)
    merges: list[tuple[int, int]] = []
    while len(merges) < count:
        best = max(pairs, key=lambda pair: (pairs[pair], -pair[0], -pair[1]), default=None)
        if best is None or pairs[best] < 2:
            break
        for number in where.pop(best):
            enter(number, -1)
            parts[number] = joined(parts[number], best, BYTES + len(merges))
            enter(number, 1)
        del pairs[best]
        merges.append(best)
    return merges
