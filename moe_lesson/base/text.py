"""Text as bytes, the course's tokens, and a readable name for each."""

import codecs
import re
import unicodedata

import charset_normalizer

from .errors import require

DOCUMENT_START = b"\0"  # one byte that text does not contain separates documents


def to_bytes(text: str | bytes) -> bytes:
    """UTF-8 bytes of a text; half characters that UTF-8 does not have become �."""
    if isinstance(text, bytes):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
         codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}  # UTF-32's first: UTF-16's begins like it
# What a file without a mark may be in, likelier ones first; of rarer ones the detector proposes too many.
GUESSES = ("utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be", "gb18030", "big5", "cp1252", "cp1250", "cp1251", "koi8_r",
           "cp1253", "cp1254", "cp1255", "cp1256", "utf_8")


def decoded_text(raw: bytes, name: str) -> tuple[str, str]:
    """The text of bytes, without its byte-order mark, and its encoding where that is a guess, else "".

    Args:
        raw: the bytes of a text in any encoding: a mark says which, else UTF-8 is tried, then a guess is made.
        name: what to call them in an error.

    Raises:
        ValueError: if no encoding fits, or none so that the text is in a language: � or wrong letters are worse than no text.
    """
    mark = next((mark for mark in MARKS if raw.startswith(mark)), b"")
    encoding, text, wrong = MARKS.get(mark, "utf-8"), "", -1
    try:
        text = raw[len(mark):].decode(encoding)
    except UnicodeDecodeError as error:
        wrong = len(mark) + error.start
    if wrong < 0 and (mark or "\0" not in text):
        return text, ""
    found = {} if mark or mostly_utf8(raw) and wrong >= 0 else encodings(raw)
    if wrong < 0 and (not found or "utf_8" in found):  # UTF-8 that has a \0, not UTF-16 without a mark
        return text, ""
    best = max(found, key=lambda guess: (found[guess][0], -GUESSES.index(guess)), default="")
    require(bool(best) and found[best][0] > 0,
            f"the text of {name} can't be decoded: " + (f"byte {wrong} is not {encoding.upper()}, and " if wrong >= 0 else "")
            + "no other encoding fits for certain; save it as UTF-8, or leave it out")
    return found[best][1], best


def mostly_utf8(raw: bytes) -> bool:
    """Whether bytes are UTF-8 with some broken ones: any other encoding would make nonsense of most letters."""
    text = raw.decode("utf-8", "replace")
    return sum(char > "\x7f" for char in text) > 2 * text.count("�")


def encodings(raw: bytes) -> dict[str, tuple[float, str]]:
    """The encodings that bytes may be in: for each how well its letters suit a language, 0 if none is known, and the text."""
    found = {}
    for match in charset_normalizer.from_bytes(raw, cp_isolation=list(GUESSES)):
        text = str(match)
        if "\0" in text and match.encoding != "utf_8":
            continue
        suits = match.coherence
        if suits:
            suits -= match.chaos
            # Its neighbours look like cp1252, by far the commonest, in most letters: they must suit better by some margin.
            suits += 0.05 * (match.encoding == "cp1252")
            # The detector takes no notice of case, in which alone koi8_r and cp1251 differ for many letters.
            suits -= 0.2 * sum(char.isupper() for char in text if char > "\x7f") / len(text)
        found[match.encoding] = (suits, text)
    return found


NAMES = {"\0": "␀", " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\xa0": "⍽", "": "∅"}


def visible(token: str) -> str:
    """A token as something to look at: blanks get a sign; what has no shape by itself, or would turn the text, its number."""
    def shapeless(char: str) -> bool:
        kind, alone = unicodedata.category(char), len(token) == 1
        return kind in ("Zl", "Zp") or (kind[0] == "C" and (alone or char != "\u200d")) or (alone and kind[0] in "ZM")

    return NAMES.get(token) or "".join(f"U+{ord(char):04X}" if shapeless(char) else char for char in well_formed(token))


def well_formed(text: str) -> str:
    """The text without lone surrogates, which no UTF-8 message can carry: each becomes U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def byte_texts(raw: bytes) -> list[str]:
    """A readable name for each byte: `a`, `␣`, `⏎`; of a character of several bytes `中 1/3` …; or `0xff`."""
    return shown_bytes(raw, [1] * len(raw))


def shown_bytes(raw: bytes, sizes: list[int]) -> list[str]:
    """A readable name for each part of a text, `sizes` bytes long each; characters that lie in two parts are numbered."""
    of_byte: list[tuple[str, int, int]] = []  # the character's name, which byte of it this is, how many it has
    while len(of_byte) < len(raw):
        start = len(of_byte)
        char = next((c for size in (1, 2, 3, 4) if (c := decoded(raw[start:start + size]))), "")
        size = len(char.encode()) or 1
        shown = visible(char) if char and (size > 1 or char.isprintable() or char in NAMES) else f"0x{raw[start]:02x}"
        of_byte += [(shown, i, size) for i in range(size)]
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


def decoded(raw: bytes) -> str | None:
    """The one character that these bytes are, or None."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if len(text) == 1 else None
