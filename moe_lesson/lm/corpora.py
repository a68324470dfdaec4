"""Text to train on: what is already on this machine, by domain; your own; or a Hugging Face data set. Nothing is downloaded
unless you ask for the last, and nothing is copied anywhere.

Tokens are bytes. Documents, never random bytes, are split into train, validation and test, by a hash of their name: the
same file is in the same split on every machine, so a model trained elsewhere has not seen the test documents here.
"""

from __future__ import annotations

import ast
import hashlib
import os
import pathlib
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from ..base.errors import require
from ..base.seeds import mixed_seed
from ..base.text import DOCUMENT_START, to_bytes

SPLITS = ("train", "validation", "test")
MACHINE_BYTES = 1_500_000  # per domain, all splits together
DOCUMENT_CHARACTERS = 16_000  # of one file at most: many documents, none of which makes a split


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
        documents: all documents; a domain without documents in a split can't be asked for there.
    """

    documents: tuple[Document, ...]

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains, in the order of their first document."""
        return tuple(dict.fromkeys(document.domain for document in self.documents))

    @cached_property
    def streams(self) -> dict[tuple[str, str], Tensor]:
        """The bytes of all documents of one domain and split after each other: (domain, split) -> uint8 [bytes]."""
        parts: dict[tuple[str, str], list[bytes]] = {}
        for d in self.documents:
            parts.setdefault((d.domain, d.split), []).append(DOCUMENT_START + to_bytes(d.text))
        return {key: torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8) for key, texts in parts.items()}

    def stream(self, domain: str, split: str) -> Tensor:
        """The bytes of one domain in one split: uint8 [bytes]."""
        require(split in SPLITS, f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
        require(domain in self.domains, f"unknown domain {domain!r}; this corpus has {', '.join(self.domains)}")
        require((domain, split) in self.streams, f"no document of domain {domain!r} is in the {split} split")
        return self.streams[domain, split]

    def sampler(self, split: str, batch: int, context: int, seed: int = 0) -> Callable[[int], Tensor]:
        """A function from a step's number to its batch: [batch, context + 1] ids, inputs and the targets one further on.

        Each sequence comes from one domain, drawn evenly. The batch depends on seed and step alone, so that a resumed
        training sees what an uninterrupted one would have seen.
        """
        require(batch >= 1 and context >= 1, f"batch = {batch} and context = {context} must both be at least 1")
        streams = [self.stream(domain, split) for domain in self.domains]
        for domain, stream in zip(self.domains, streams):
            require(len(stream) > context,
                    f"domain {domain!r} has {len(stream)} bytes for {split}; sequences need at least {context + 1}")

        def sample(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(mixed_seed(seed, step))
            sources = [streams[i] for i in torch.randint(len(streams), (batch,), generator=generator).tolist()]
            starts = [torch.randint(len(s) - context, (1,), generator=generator).item() for s in sources]
            return torch.stack([s[i:i + context + 1] for s, i in zip(sources, starts)]).long()

        return sample

    def windows(self, domain: str, split: str, context: int, limit: int) -> Tensor:
        """The first `limit` bytes of a stream cut into [windows, context + 1]; neighbours share one byte, as target and input."""
        require(1 <= context <= limit, f"context = {context} and limit = {limit} bytes; expected 1 ≤ context ≤ limit")
        stream = self.stream(domain, split)[:limit + 1]
        require(len(stream) > context,
                f"domain {domain!r} has {len(stream)} bytes for {split}; windows need at least {context + 1}")
        return stream.unfold(0, context + 1, context).long()

    def fingerprint(self) -> dict[str, dict]:
        """What the corpus is made of, for a record: per domain its documents, bytes, and a hash over both."""
        out = {}
        for domain in self.domains:
            documents = [d for d in self.documents if d.domain == domain]
            digest = hashlib.sha256("\0".join(f"{d.name}\0{d.text}" for d in documents).encode("utf-8", "replace"))
            out[domain] = {"documents": len(documents), "bytes": sum(len(to_bytes(d.text)) for d in documents),
                           "sha256": digest.hexdigest()[:16]}
        return out


# --------------------------------------------------------------------------------------------------------- your own text


def own_corpus(source: str | bytes | pathlib.Path, domain: str = "mine") -> Corpus:
    """A corpus of your own text.

    Args:
        source: a path (a file, or a folder whose text files are read), or the text itself. A one-line string that names an
            existing file or folder is a path.
        domain: what to call it.

    Returns: a corpus; a folder's files are its documents. A single text is cut into ten documents in order, the last two for
        validation and test, since a text can't be tested on what it was trained on.

    Raises:
        FileNotFoundError: if a path does not exist.
        PermissionError: if it may not be read.
        ValueError: if there is no text.
    """
    path = as_path(source)
    if path is not None and path.is_dir():
        os.listdir(path)  # a folder that may not be read says so here
        paths = list(files(path, TEXT_SUFFIXES, {".git", ".venv", "node_modules", "__pycache__"}))
        require(bool(paths), f"no text file in {path}; expected files ending in {', '.join(TEXT_SUFFIXES)}")
        documents = [Document(domain, name, text, split_of(name)) for name, file in paths if (text := read_text(file).strip())]
        if len({d.split for d in documents}) == len(SPLITS):
            return Corpus(tuple(documents))
        text = "\n\n".join(d.text for d in documents)  # too few files for each split to get one
    else:
        text = read_text(path) if path is not None else to_bytes(cast(str | bytes, source)).decode("utf-8", "replace")
    require(bool(text.strip()), f"the text of {path or 'the string'} is empty; give some text to learn from")
    size = -(-len(text) // 10)
    splits = ("train",) * 8 + ("validation", "test")
    parts = [text[i:i + size] for i in range(0, len(text), size)]
    return Corpus(tuple(Document(domain, f"part {i}", part, split) for i, (part, split) in enumerate(zip(parts, splits))))


TEXT_SUFFIXES = (".txt", ".md", ".rst", ".tex", ".py", ".js", ".ts", ".c", ".h", ".cpp", ".java", ".go", ".rs", ".html", ".css",
                 ".json", ".yaml", ".yml", ".toml", ".csv", ".srt")


def as_path(source: str | bytes | pathlib.Path) -> pathlib.Path | None:
    """The path that a source names, or None where it is text. A line that looks like a path must be one."""
    require(isinstance(source, (str, bytes, pathlib.Path)), f"{source!r} is not text; give a string or a path")
    if isinstance(source, bytes):
        return None
    if isinstance(source, str) and (not source or len(source) > 1000 or set(source) & set("\n\0")):
        return None
    path = pathlib.Path(source)
    try:
        if path.exists():
            return path
    except OSError:  # longer than any file name: this is text
        return None
    looks_like_one = path.suffix.lower() in TEXT_SUFFIXES or (set(str(source)) & set("/\\") and " " not in str(source))
    if isinstance(source, pathlib.Path) or looks_like_one:
        raise FileNotFoundError(f"there is no file or folder {source} (to use these words as text, add a line break)")
    return None


def huggingface_corpus(name: str, column: str = "text", split: str = "train", documents: int = 1000) -> Corpus:
    """Documents of a Hugging Face data set. It needs the network and `pip install datasets`; no lesson calls it by itself.

    Args:
        name: of the data set, e.g. "roneneldan/TinyStories".
        column: that holds the text.
        split: of the data set to read from; documents are split again, by a hash of their number.
        documents: how many to read.

    Raises:
        ImportError: without the package `datasets`.
        ConnectionError: if the data set can't be reached.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("a Hugging Face data set needs the package datasets: pip install datasets") from error
    try:
        rows = list(datasets.load_dataset(name, split=split, streaming=True).take(documents))
    except Exception as error:  # hub, network and file errors are of many unrelated classes
        raise ConnectionError(f"the data set {name!r} can't be read ({type(error).__name__}: {error}); check its name and the "
                              "network, or use machine_corpus(), which needs none") from error
    columns = rows[0] if rows else {}
    require(column in columns, f"the data set {name!r} has no column {column!r}; it has {', '.join(columns) or 'no rows'}")
    texts = [row[column] or "" for row in rows]
    return Corpus(tuple(Document(name, str(i), text, split_of(f"{name}/{i}")) for i, text in enumerate(texts) if text.strip()))


# ---------------------------------------------------------------------------------------------------- the machine corpus


def machine_corpus(domains: tuple[str, ...] | None = None, splits: tuple[str, ...] = SPLITS,
                   max_bytes: int = MACHINE_BYTES) -> Corpus:
    """Real text that is on any machine with PyTorch, by domain.

    Args:
        domains: some of `python` (standard library code, without comments and docstrings), `english`
            (docstrings), `cpp` (headers that ship with torch, without comments), `yaml` (torch's operator tables).
        splits: read these alone; leaving out train is much faster.
        max_bytes: per domain, all splits together.

    Raises:
        ValueError: for an unknown domain or split.
        FileNotFoundError: if this machine has no text of a domain.
    """
    domains = tuple(SOURCES) if domains is None else (domains,) if isinstance(domains, str) else tuple(domains)
    require(bool(domains) and max_bytes >= 10_000,
            f"domains = {domains} and max_bytes = {max_bytes}; expected at least one domain and 10,000 bytes")
    for domain in domains:
        require(domain in SOURCES, f"unknown domain {domain!r}; this machine has {', '.join(SOURCES)}")
    for split in splits:
        require(split in SPLITS, f"unknown split {split!r}; choose some of {', '.join(SPLITS)}")
    documents = tuple(document for domain in domains for split in splits
                      for document in read_domain(domain, split, int(max_bytes * SHARES[split])))
    for domain in domains:
        if not any(document.domain == domain for document in documents):
            raise FileNotFoundError(f"no text of domain {domain!r} was found on this machine; leave it out: "
                                    f"machine_corpus(domains={tuple(d for d in domains if d != domain)})")
    return Corpus(documents)


SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def split_of(name: str) -> str:
    """The split of a document, from its name alone."""
    tenth = int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:4], "big") % 10
    return "test" if tenth == 9 else "validation" if tenth == 8 else "train"


def read_domain(domain: str, split: str, max_bytes: int) -> Iterator[Document]:
    """Documents of one domain and split, in the order of a hash, until `max_bytes` are reached; the same text only once."""
    names_and_readers = [(name, read) for name, read in SOURCES[domain]() if split_of(f"{domain}/{name}") == split]
    names_and_readers.sort(key=lambda pair: hashlib.sha256(pair[0].encode("utf-8", "replace")).digest())
    seen, total = set(), 0
    for name, read in names_and_readers:
        if total >= max_bytes:
            return
        text = read().strip()[:DOCUMENT_CHARACTERS]
        if len(text) >= 200 and text not in seen:  # shorter ones are empty __init__ files and the like
            seen.add(text)
            total += len(text)
            yield Document(domain, name, text, split)


def files(root: pathlib.Path, suffixes: tuple[str, ...], skip: set[str]) -> Iterator[tuple[str, pathlib.Path]]:
    """Names and paths below a folder, without the folders in `skip`; one name on every machine."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - skip)  # what is skipped is not even looked into
        for name in sorted(names):
            path = pathlib.Path(folder, name)
            if path.suffix.lower() in suffixes and path.is_file():
                yield path.relative_to(root).as_posix(), path


def standard_library() -> Iterator[tuple[str, pathlib.Path]]:
    """Python files of the standard library, without tests, tables and what a distribution adds."""
    skip = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "encodings",
            "pydoc_data", "__pycache__", "ensurepip", "distutils"}
    yield from files(pathlib.Path(sysconfig.get_paths()["stdlib"]), (".py",), skip)


def python_sources():
    """Code of the standard library without comments and docstrings."""
    for name, path in standard_library():
        yield name, lambda path=path: code_only(parsed(path))


def english_sources():
    """Docstrings of the standard library and of torch.

    The topics of `help()` are left out: they contain one another, and a test text must not stand in the train text.
    """
    root = pathlib.Path(torch.__file__).parent
    folders = ("nn", "optim", "distributions", "utils/data", "fft", "linalg", "special")
    torch_files = [(f"torch/{folder}/{name}", path) for folder in folders for name, path in files(root / folder, (".py",), set())]
    for name, path in [*standard_library(), *torch_files]:
        yield name, lambda path=path: "\n\n".join(docstrings(parsed(path)))


def cpp_sources():
    """C++ headers that ship with torch, without comments and generated files."""
    root = pathlib.Path(torch.__file__).parent / "include"
    for name, path in files(root, (".h", ".hpp"), {"ops", "oneapi"}):
        yield name, lambda path=path: without_cpp_comments(read_text(path))


def yaml_sources():
    """The tables of torch's operators and their derivatives: one document per operator name."""
    entries: dict[str, list[str]] = {}
    for _, path in files(pathlib.Path(torch.__file__).parent.parent / "torchgen", (".yaml",), set()):
        for entry in re.split(r"^(?=- )", without_hash_comments(read_text(path)), flags=re.MULTILINE)[1:]:
            found = re.match(r"- (?:func|name): *_*([A-Za-z0-9]+)", entry)
            entries.setdefault(found[1] if found else path.name, []).append(entry.strip())
    for operator, texts in sorted(entries.items()):
        yield operator, lambda texts=texts: "\n\n".join(texts)


SOURCES = {"python": python_sources, "english": english_sources, "cpp": cpp_sources, "yaml": yaml_sources}


def read_text(path: pathlib.Path) -> str:
    """A file's text, bytes that are not UTF-8 as �."""
    return path.read_text(encoding="utf-8", errors="replace")


def parsed(path: pathlib.Path) -> ast.Module:
    """A Python file's syntax tree; an empty one where this Python can't parse it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes in other people's files
        try:
            return ast.parse(read_text(path))
        except SyntaxError:
            return ast.Module([], [])


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documented(tree: ast.Module) -> Iterator[tuple[Documented, str]]:
    """The nodes of a tree that begin with a docstring, and their docstrings, cleaned of their indentation."""
    for node in ast.walk(tree):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)) is not None:
            yield node, text


def docstrings(tree: ast.Module) -> list[str]:
    """The docstrings of a tree; short ones left out."""
    return [text for _, text in documented(tree) if len(text) > 100]


def code_only(tree: ast.Module) -> str:
    """The code of a tree: no comments (a tree has none) and no docstrings."""
    for node, _ in list(documented(tree)):
        node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def without_cpp_comments(text: str) -> str:
    """C++ without comments; nothing at all where the file says that it was generated."""
    if "generated" in text[:600].lower():
        return ""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]*//[^\n]*", "", text))


def without_hash_comments(text: str) -> str:
    """YAML without whole-line comments."""
    return re.sub(r"^\s*#[^\n]*\n", "", text, flags=re.MULTILINE)
