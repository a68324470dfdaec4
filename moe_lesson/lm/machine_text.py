"""The machine corpus: real text that is already on any machine with PyTorch, by domain. Nothing is downloaded."""

import ast
import collections
import doctest
import hashlib
import importlib.util
import pathlib
import re
import sysconfig
import warnings
from collections.abc import Iterator

import torch

from ..base.errors import require
from .corpora import SPLITS, Corpus, Document, asked_for, files, split_of

MACHINE_BYTES = 1_500_000  # per domain, all splits together
DOCUMENT_CHARACTERS = 16_000  # of one file at most: many documents, none of which makes a split


def machine_corpus(domains: tuple[str, ...] | None = None, splits: tuple[str, ...] = SPLITS,
                   max_bytes: int = MACHINE_BYTES) -> Corpus:
    """Real text that is on any machine with PyTorch, by domain.

    Args:
        domains: some of `python` (standard library code, without comments and docstrings), `english`
            (docstrings), `cpp` (headers that ship with torch, without comments), `maths` (the examples in the
            docstrings of sympy, which torch needs).
        splits: read these alone; leaving out train is much faster.
        max_bytes: per domain, all splits together.

    Raises:
        ValueError: for an unknown domain or split.
        FileNotFoundError: if this machine has no text of a domain.
    """
    domains, splits = asked_for("domain", domains, SOURCES), asked_for("split", splits, SPLITS)
    require(max_bytes >= 10_000, f"max_bytes = {max_bytes}; expected at least 10,000 for each domain")
    documents = tuple(document for domain in domains for split in splits
                      for document in read_domain(domain, split, int(max_bytes * SHARES[split])))
    for domain in domains:
        if not any(document.domain == domain for document in documents):
            others = [tuple(d for d in among if d != domain) for among in (domains, SOURCES)]
            raise FileNotFoundError(f"no text of domain {domain!r} was found on this machine; leave it out: "
                                    f"machine_corpus(domains={others[0] or others[1]})")
    return Corpus(documents)


SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


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


def maths_sources():
    """The examples in sympy's docstrings: what is typed at a Python prompt, and the answer."""
    spec = importlib.util.find_spec("sympy")  # not imported: that takes seconds
    if spec is None or spec.origin is None:
        return
    for name, path in files(pathlib.Path(spec.origin).parent, (".py",), {"tests", "benchmarks", "testing"}):
        yield name, lambda path=path: "\n\n".join(filter(None, map(examples, typed(path))))


SOURCES = {"python": python_sources, "english": english_sources, "cpp": cpp_sources, "maths": maths_sources}


def read_text(path: pathlib.Path) -> str:
    """A file's text, bytes that are not UTF-8 as �. Of the machine corpus alone: trained models depend on each byte of it."""
    return path.read_text(encoding="utf-8", errors="replace")


def parsed(path: pathlib.Path) -> ast.Module:
    """A Python file's syntax tree; an empty one where this Python can't parse it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes in other people's files
        try:
            return ast.parse(read_text(path))
        except SyntaxError:
            return ast.Module([], [])


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """What `ast.walk` yields, in its order, without the expressions: they are nine nodes in ten, and no statement is in one."""
    waiting = collections.deque[ast.AST]([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        for _, value in ast.iter_fields(node):
            if isinstance(value, list):
                waiting.extend(one for one in value if isinstance(one, ast.stmt | ast.excepthandler | ast.match_case))


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documented(tree: ast.Module) -> Iterator[tuple[Documented, str]]:
    """The nodes of a tree that begin with a docstring, and their docstrings, cleaned of their indentation."""
    for node in statements(tree):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)) is not None:
            yield node, text


def docstrings(tree: ast.Module) -> list[str]:
    """The docstrings of a tree; short ones left out."""
    return [text for _, text in documented(tree) if len(text) > 100]


def typed(path: pathlib.Path) -> Iterator[str]:
    """The docstrings of a Python file in which somebody typed at a prompt; to parse a file without any would be for nothing."""
    tree = parsed(path) if ">>>" in read_text(path) else ast.Module([], [])
    return (text for _, text in documented(tree) if ">>>" in text)


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
    text = re.sub(r"^#(include|pragma)[^\n]*\n", "", text, flags=re.MULTILINE)  # the same lists stand in file after file
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]*//[^\n]*", "", text))


def examples(text: str) -> str:
    """The examples of a docstring, one after the other."""
    try:
        return "".join(f">>> {one.source}{one.want}" for one in doctest.DocTestParser().get_examples(text))
    except ValueError:  # an example that is not written as doctest wants it
        return ""
