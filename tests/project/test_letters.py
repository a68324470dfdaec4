"""A letter of a shape or of a name's ending means one thing in the whole package: what the package's docstring says it means."""

import re
from pathlib import Path

import moe_lesson

PACKAGE = Path(moe_lesson.__file__).parent
ALPHABET = set(re.findall(r"\b[A-Z]s?\b(?=\s+[a-z])", moe_lesson.__doc__.partition("Letters mean the same")[2])) | {"m"}
SHAPE = re.compile(r"\[((?:\d*[A-Za-z]\w*|\.\.\.|\d+)(?:(?:, | [+·-] ?|[+·])\d*[\w.]+)*)\]")
ENDING = re.compile(r"\b[a-z]\w*_((?:\d?(?:Ks|[A-Z]))+)\b")


def letters(source: str) -> set[str]:
    """Those in shapes such as [T, 2D] in the text, and those at the end of names such as ids_TK."""
    shapes = (word for shape in SHAPE.findall(source) for word in re.findall(r"\b\d*(Ks|[A-Z])\b", shape))
    return {*shapes, *(letter for ending in ENDING.findall(source) for letter in re.findall("Ks|[A-Z]", ending))}


def test_the_alphabet_is_read_from_the_package():
    assert ALPHABET == {*"TDHNKLBSVCRIOGPEAMFZ", "Ks", "m"}
    assert letters("[T, 2D] of ids_TK, w_N2H, [N + Ks, D] and [steps, Z], no [Any], no x[T]s") == {*"TDKNHZ", "Ks"}


def test_no_letter_beside_the_alphabet_is_used():
    strange = {f"{path.relative_to(PACKAGE)}: {sorted(found)}" for path in sorted(PACKAGE.rglob("*.py"))
               if (found := letters(path.read_text(encoding="utf-8")) - ALPHABET)}
    assert not strange, f"say in the package's docstring what these letters mean, or write the sizes out: {sorted(strange)}"


def test_no_file_gives_letters_a_meaning_of_its_own():
    found = [path for path in sorted(PACKAGE.rglob("*.py")) if re.search(r"\bLetters: \w", path.read_text(encoding="utf-8"))]
    assert not found, f"the package's docstring says what letters mean: {found}"
