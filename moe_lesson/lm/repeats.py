"""Text that stands twice: how much of the test text a model has read word for word, and documents without their repeats."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..base.tokens import size_of
from .corpora import Corpus

REPEAT = 80  # bytes: a passage that is as long as this and stands in an earlier document is a repeat


def leak(corpus: Corpus, domain: str, length: int = REPEAT) -> float:
    """The share of a domain's test bytes that lie in a passage of `length` bytes which the train text has word for word."""
    return float(repeated_bytes([corpus.text(domain, split) for split in ("train", "test")], length)[1].mean())


def repeats(corpus: Corpus) -> list[dict]:
    """How much of the test text stands in the train text word for word, in passages of 40 and of 80 bytes: a row per domain."""
    return [{"domain": domain} | {f"{length} bytes": leak(corpus, domain, length) for length in (REPEAT // 2, REPEAT)}
            for domain in corpus.domains]


def fresh_tokens(corpus: Corpus) -> dict[str, Tensor]:
    """Which test tokens do not lie in a passage of REPEAT bytes that the train text has word for word: {domain: bool [tokens]}.

    `leak` says how much the others are; a token that lies in one in part is fresh.
    """
    found = {}
    for domain in corpus.domains:
        texts = [corpus.text(domain, one) for one in ("train", "test")]
        repeated, sizes = repeated_bytes(texts, REPEAT)[1], size_of(corpus.stream(domain, "test").long()).numpy()
        found[domain] = ~torch.from_numpy(np.logical_and.reduceat(repeated, np.cumsum(sizes) - sizes))
    return found


def without_repeats(documents: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Documents without what an earlier one has: no test may ask for what stands in the train text.

    One that is mostly repeats is left out, of the others the lines that are. Copies of files go, licences, boilerplate.

    Args:
        documents: name and text of each; they should come in random order, so that no split is always the later one.
    """
    texts = [text.encode() for _, text in documents]
    for (name, _), text, repeated in zip(documents, texts, repeated_bytes(texts)):
        if repeated.mean() <= 0.5:
            lines = text.splitlines(keepends=True)
            shares = [part.mean() for part in np.split(repeated, np.cumsum([len(line) for line in lines])[:-1])]
            yield name, b"".join(line for line, share in zip(lines, shares) if share <= 0.5).decode().strip()


def repeated_bytes(texts: Sequence[bytes], length: int = REPEAT) -> list[np.ndarray]:
    """For each text, which of its bytes stand in a passage of `length` bytes that an earlier text has: bool [bytes] each."""
    sizes = [len(text) + 1 for text in texts]  # a \0 after each
    owners = np.repeat(np.arange(len(texts)), sizes)
    hashes = passage_hashes(np.frombuffer(b"\0".join(texts) + b"\0", dtype=np.uint8), length)[:-1]
    inside = owners[:-length] == owners[length:]  # what comes after the passage is its own text's: it reaches into no other
    _, first, same = np.unique(hashes, return_index=True, return_inverse=True)
    begun = np.zeros(len(owners), dtype=np.int32)
    begun[:-length] += (again := inside & (owners[first[same]] < owners[:-length]))
    begun[length:] -= again
    return [part[:-1] for part in np.split(np.cumsum(begun) > 0, np.cumsum(sizes)[:-1])]


def passage_hashes(raw: np.ndarray, length: int) -> np.ndarray:
    """A hash of each passage of `length` bytes: uint64 [bytes - length + 1], a polynomial of the bytes modulo 2^64.

    That of a passage is made of those of its halves, so powers of two are reached by doubling; they make up any other length.
    """
    hashes, power = np.zeros(len(raw) + 1, dtype=np.uint64), raw.astype(np.uint64) + np.uint64(1)
    done, size = 0, 1
    while size <= length:
        shift = np.uint64(pow(0x9E3779B97F4A7C15, size, 2**64))
        if length & size:
            count = max(0, len(power) - done)
            hashes = hashes[:count] * shift + power[done:]
            done += size
        power = power[:-size] * shift + power[size:]
        size *= 2
    return hashes
