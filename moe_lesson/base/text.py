"""Text as bytes, the course's tokens, and a readable name for each."""

from __future__ import annotations

DOCUMENT_START = b"\0"  # one byte that text does not contain separates documents


def to_bytes(text: str | bytes) -> bytes:
    """UTF-8 bytes of a text; half characters that UTF-8 does not have become �."""
    if isinstance(text, bytes):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


NAMES = {"\0": "␀", " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def byte_texts(raw: bytes) -> list[str]:
    """A readable name for each byte: `a`, `␣`, `⏎`; of a character of several bytes `中 1/3` …; or `0xff`."""
    out: list[str] = []
    position = 0
    while position < len(raw):
        char = next((c for size in (1, 2, 3, 4) if (c := decoded(raw[position:position + size]))), None)
        size = len(char.encode()) if char else 1
        shown = f"0x{raw[position]:02x}"
        if char and (size > 1 or char.isprintable() or char in NAMES):
            shown = NAMES.get(char, char)
        out += [shown] if size == 1 else [f"{shown} {i + 1}/{size}" for i in range(size)]
        position += size
    return out


def decoded(raw: bytes) -> str | None:
    """The one character that these bytes are, or None."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if len(text) == 1 else None
