"""Seeds for random numbers that have to be the same again."""

import hashlib


def mixed_seed(seed: int, step: int) -> int:
    """One seed from two numbers. torch's CPU generator looks at the low 32 bits alone, so the two can't just sit side by side."""
    return named_seed(seed, str(step))


def named_seed(seed: int, name: str) -> int:
    """A seed for one of the things that are drawn with a seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")
