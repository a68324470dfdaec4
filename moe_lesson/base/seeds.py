"""Seeds for random numbers that have to be the same again."""

import hashlib

from .errors import whole_number


def mixed_seed(seed: int, what: int | str) -> int:
    """A seed for one of the things that are drawn with a seed: the number of a step, the name of a parameter.

    torch's CPU generator looks at the low 32 bits alone, so two numbers can't just sit side by side.

    Raises:
        ValueError: if the seed is no whole number.
    """
    return int.from_bytes(hashlib.sha256(f"{whole_number('seed', seed, least=None)}/{what}".encode()).digest()[:4], "big")
