"""Text to train on: documents by domain and split. `machine_text` reads what is on this machine, `own_text` what is yours.

Documents, never random tokens, are split into train, validation and test, by a hash of their name: the
same file is in the same split on every machine, so a model trained elsewhere has not seen the test documents here, as far as
Python's files have kept their names: some have moved between its versions.
"""

import hashlib
import os
import pathlib
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..base.errors import require, whole_number
from ..base.seeds import mixed_seed
from ..base.text import DOCUMENT_START, to_bytes
from ..base.tokens import VOCABULARY, decode, encode

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Document:
    """One text with a name: `domain` it belongs to, `split` it is used in."""

    domain: str
    name: str
    text: str
    split: str


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents by domain and split.

    Args:
        documents: all documents, at least one; a domain without documents in a split can't be asked for there.
        vocabulary: V, of the tokens that they are read in; 256 reads bytes.

    Raises:
        ValueError: if there is no document.
    """

    documents: tuple[Document, ...]
    vocabulary: int = VOCABULARY

    def __post_init__(self):
        require(len(self.documents) > 0, "a corpus of no documents has nothing to read; give it at least one Document")

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains, in the order of their first document."""
        return tuple(dict.fromkeys(document.domain for document in self.documents))

    @cached_property
    def streams(self) -> dict[tuple[str, str], Tensor]:
        """The tokens of all documents of one domain and split after each other: (domain, split) -> int16 [tokens]."""
        parts: dict[tuple[str, str], list[int]] = {}
        for d in self.documents:
            parts.setdefault((d.domain, d.split), []).extend(encode(DOCUMENT_START + to_bytes(d.text), self.vocabulary))
        return {key: torch.tensor(ids, dtype=torch.int16, device="cpu") for key, ids in parts.items()}

    def stream(self, domain: str, split: str, least: int = 1) -> Tensor:
        """The tokens of one domain in one split, at least so many: int16 [tokens]."""
        require(split in SPLITS, f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
        require(domain in self.domains, f"unknown domain {domain!r}; this corpus has {', '.join(self.domains)}")
        require((domain, split) in self.streams, f"no document of domain {domain!r} is in the {split} split")
        stream = self.streams[domain, split]
        require(len(stream) >= least, f"domain {domain!r} has {len(stream)} tokens for {split}; at least {least} are needed: "
                                      "give it more text, or a model of a smaller context")
        return stream

    def text(self, domain: str, split: str) -> bytes:
        """The bytes of one domain in one split, with what separates documents."""
        return decode(self.stream(domain, split).tolist())

    def sampler(self, split: str, batch: int, context: int, seed: int = 0) -> Callable[[int], Tensor]:
        """A function from a step's number to its batch: [batch, context + 1] ids, inputs and the targets one further on.

        Each sequence comes from one domain, drawn evenly. The batch depends on seed and step alone, so that a resumed
        training sees what an uninterrupted one would have seen.

        Raises:
            ValueError: if a domain has too little text in this split, or the seed is no whole number.
        """
        whole_number("seed", seed, least=None)
        require(batch >= 1 and context >= 1, f"batch = {batch} and context = {context} must both be at least 1")
        streams = [self.stream(domain, split, context + 1) for domain in self.domains]

        def sample(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(mixed_seed(seed, step))
            sources = [streams[i] for i in torch.randint(len(streams), (batch,), generator=generator, device="cpu").tolist()]
            starts = [torch.randint(len(s) - context, (1,), generator=generator, device="cpu").item() for s in sources]
            return torch.stack([s[i:i + context + 1] for s, i in zip(sources, starts)]).long()

        return sample

    def windows(self, domain: str, split: str, context: int, limit: int) -> Tensor:
        """Windows of a stream, at most `limit` tokens in all, from the whole length of it: [windows, context + 1] ids.

        Neighbours share one token, as target and input. A few documents are not a domain: so windows are left out evenly.
        """
        require(1 <= context <= limit, f"context = {context} and limit = {limit} tokens; expected 1 ≤ context ≤ limit")
        return evenly(self.stream(domain, split, context + 1), context, limit).long()

    def fingerprint(self) -> dict[str, dict]:
        """What the corpus is made of, for a record: each domain's documents and bytes, and a hash of their names and texts."""
        out = {}
        for domain in self.domains:
            documents = [d for d in self.documents if d.domain == domain]
            digest = hashlib.sha256("\0".join(f"{d.name}\0{d.text}" for d in documents).encode("utf-8", "replace"))
            out[domain] = {"documents": len(documents), "bytes": sum(len(to_bytes(d.text)) for d in documents),
                           "sha256": digest.hexdigest()[:16]}
        return out


def asked_for(kind: str, asked: Sequence[str] | None, there: Collection[str]) -> tuple[str, ...]:
    """The names that were asked for, one or several of those that are there; all, if None."""
    names = tuple(there) if asked is None else (asked,) if isinstance(asked, str) else tuple(asked)
    require(bool(names), f"no {kind} was asked for; choose some of {', '.join(there)}")
    for name in names:
        require(name in there, f"unknown {kind} {name!r}; choose some of {', '.join(there)}")
    return names


def evenly(stream: Tensor, context: int, limit: int) -> Tensor:
    """Windows [windows, context + 1] of anything that there is for each token of a stream; see `Corpus.windows`."""
    all_windows = stream.unfold(0, context + 1, context)
    count = min(limit // context, len(all_windows))
    return all_windows[torch.arange(count, device="cpu") * len(all_windows) // count]


def split_of(name: str) -> str:
    """The split of a document, from its name alone: é in one character or in two, as on macOS, is the same name."""
    tenth = int.from_bytes(hashlib.sha256(nfc(name).encode("utf-8", "replace")).digest()[:4], "big") % 10
    return "test" if tenth == 9 else "validation" if tenth == 8 else "train"


def nfc(name: str) -> str:
    """A name in Unicode's composed form, which does not depend on the file system."""
    return unicodedata.normalize("NFC", name)


def files(root: pathlib.Path, suffixes: tuple[str, ...], skip: set[str],
          must_read: bool = False) -> Iterator[tuple[str, pathlib.Path]]:
    """Names and paths below a folder, without the folders in `skip`; one name, and one order, on every machine.

    Raises:
        PermissionError: if a folder may not be read, with `must_read`; without, it is left out.
    """
    def fail(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=fail if must_read else None):
        folders[:] = sorted(set(folders) - skip, key=lambda name: (nfc(name), name))  # what is skipped is not even looked into
        for name in sorted(names, key=lambda name: (nfc(name), name)):
            path = pathlib.Path(folder, name)
            if path.suffix.lower() in suffixes and is_file(path):
                yield nfc(path.relative_to(root).as_posix()), path


def is_file(path: pathlib.Path) -> bool:
    """Whether a path is a file. Path.is_file() says False of one that may not be looked at, from Python 3.14 on."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        raise
    except OSError:  # a link to nothing, or to itself
        return False
