"""Text: its bytes in UTF-8, the encoding that a file is in, and a readable name for what can't be seen."""

import codecs
import unicodedata

import charset_normalizer

from .errors import require

DOCUMENT_START = b"\0"  # one byte that text does not contain separates documents


def to_bytes(text: str | bytes) -> bytes:
    """UTF-8 bytes of a text, see `well_formed`."""
    return text if isinstance(text, bytes) else well_formed(text).encode()


def well_formed(text: str) -> str:
    """The text without half characters, which UTF-8 does not have: two that belong together become one, others �."""
    require(isinstance(text, str), f"the text has type {type(text).__name__}; expected a string")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def newlines(text: str) -> str:
    """The text of a file with \\n at the end of each line, as Python reads it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


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
