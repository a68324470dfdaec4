"""Your own text as a corpus: a file, a folder, or a string."""

import pathlib
import re
import warnings
from typing import cast

from ..base.errors import require
from ..base.text import decoded_text, newlines, to_bytes
from .corpora import SPLITS, Corpus, Document, files, split_of


def own_corpus(source: str | bytes | pathlib.Path | None = None, domain: str = "mine", *,
               text: str | bytes | None = None) -> Corpus:
    """A corpus of your own text.

    Args:
        source: a path (a file, or a folder whose text files are read), or the text itself. A string that names an existing
            file or folder is a path; one that is short, or looks like a path, must be one.
        domain: what to call it.
        text: the text itself, in place of `source`, whatever it looks like.

    Returns: a corpus; a folder's files are its documents. A single text, and files too few for each split to get one, are cut
        into ten documents in order, the last two for validation and test, since a text can't be tested on what it was trained on.

    Raises:
        FileNotFoundError: if a path does not exist, or if a string may be meant as one.
        PermissionError: if it, or a file or folder in it, may not be read.
        ValueError: if there is no text, or too little to cut into ten documents, or if its encoding can't be told.

    Warns:
        UserWarning: if the encoding of a file is a guess, or the same text is in several files: it is read once.
    """
    require((source is None) != (text is None), "give own_corpus either a path or text as its first argument, or text=…")
    path = None if source is None else as_path(source)
    given = source if text is None else text
    require(path is not None or isinstance(given, (str, bytes)), f"{given!r} is not text; give a string or a path")
    guesses: dict[str, str] = {}

    def read(raw: bytes, name: str) -> str:
        decoded, guess = decoded_text(raw, name)
        if guess:
            guesses[name] = guess
        return decoded

    documents: list[Document] = []
    if path is not None and path.is_dir():
        paths = list(files(path, TEXT_SUFFIXES, {".git", ".venv", "node_modules", "__pycache__"}, must_read=True))
        require(bool(paths), f"no text file in {path}; expected files ending in {', '.join(TEXT_SUFFIXES)}")
        texts = [(name, newlines(read(file.read_bytes(), str(file))).strip()) for name, file in paths]
        texts = [(name, words) for name, words in texts if words.strip("\0")]
        first: dict[str, Document] = {}
        for name, words in texts:
            first.setdefault(words, Document(domain, name, words, split_of(name)))
        documents = list(first.values())
        if len(documents) < len(texts):
            warnings.warn(f"{len(texts) - len(documents)} of {len(texts)} files in {path} have the text of another; each text is "
                          "read once, since a test text must not stand in the train text", stacklevel=2)
        whole = "\n\n".join(d.text for d in documents)
    elif path is not None:
        whole = newlines(read(path.read_bytes(), str(path)))
    elif isinstance(given, bytes):
        whole = read(given, "the bytes")
    else:
        whole = to_bytes(cast(str, given)).decode("utf-8").removeprefix("\ufeff")
    if guesses:
        listed = ", ".join(f"{name} as {guess}" for name, guess in list(guesses.items())[:5])
        warnings.warn(f"not UTF-8, so the encoding is a guess: read {listed}{', …' if len(guesses) > 5 else ''}; "
                      "if letters are wrong, save as UTF-8", stacklevel=2)
    require(bool(whole.strip().strip("\0")), f"the text of {path or 'the string'} is empty; give some text to learn from")
    if len({d.split for d in documents}) == len(SPLITS):
        return Corpus(tuple(documents))
    # One text, or too few files for each split to get one.
    splits = ("train",) * 8 + ("validation", "test")
    require(len(whole) >= 10, f"the text of {path or 'the string'} has {len(whole)} characters; it is cut into ten documents, so "
                              "give at least 10, and to train on, some thousands")
    parts = [whole[len(whole) * i // 10:len(whole) * (i + 1) // 10] for i in range(10)]
    return Corpus(tuple(Document(domain, f"part {i}", part, split) for i, (part, split) in enumerate(zip(parts, splits))))


TEXT_SUFFIXES = (".txt", ".md", ".rst", ".tex", ".py", ".js", ".ts", ".c", ".h", ".cpp", ".java", ".go", ".rs", ".html", ".css",
                 ".json", ".yaml", ".yml", ".toml", ".csv", ".srt")
SURELY_TEXT = 150  # characters: too little text to train on, and longer than most paths


def as_path(source: str | bytes | pathlib.Path) -> pathlib.Path | None:
    """The path that a source names, or None where it is text. What may be meant as a path must be one."""
    require(isinstance(source, (str, bytes, pathlib.Path)), f"{source!r} is not text; give a string or a path")
    if isinstance(source, bytes) or isinstance(source, str) and (not source.strip() or len(source) > 1000):
        return None
    path = pathlib.Path(source)
    try:
        path = path.expanduser()
        path.stat()  # unlike exists(), it tells a path that may not be read from one that is not there
        return path
    except PermissionError:
        raise
    except (OSError, ValueError, RuntimeError):  # not there; longer than any name, or with a \0 in it; ~ of an unknown user
        pass
    if isinstance(source, str) and not may_be_path(source):
        return None
    # Shown as Python writes it: then a \n or \t in a Windows path meets the eye.
    raise FileNotFoundError(f"there is no file or folder {str(source)!r}; mend the path (one with \\ in it is written r\"…\"), "
                            "or, if this is the text itself, write own_corpus(text=…)")


def may_be_path(source: str) -> bool:
    """Whether a string may be meant as a path. A short one may always: in "d\\new\\texts", \\n and \\t are white space."""
    begins_like_one = re.match(r"~|\.{0,2}[/\\]|[A-Za-z]:[/\\]", source)
    ends_like_one = pathlib.PurePath(source).suffix.lower() in TEXT_SUFFIXES
    one_word = set(source) & set("/\\") and " " not in source
    return len(source) < SURELY_TEXT or "\n" not in source and bool(begins_like_one or ends_like_one or one_word)
