"""Expert explorers that several tests look at, of a made-up census."""

import numpy as np
import torch
from routings import logits_of, routing_of

from moe_lesson.base.text import to_bytes
from moe_lesson.measure.census import Census
from moe_lesson.widgets import ExpertExplorer

ALPHABET = b"eeeeeeettttaaoonisrhdl   \n(0,_q"
TEXT = "the sea is a road"


def census_of(sizes=(12, 12), k=3, *, documents=9, length=200, domains=("python", "english", "cpp"), liking=0.7, seed=0,
              alphabet=ALPHABET) -> Census:
    """A census in which a share `liking` of the tokens goes where its byte says, the others anywhere."""
    random = np.random.default_rng(seed)
    total = documents * length
    byte_T = np.frombuffer(alphabet, np.uint8)[np.random.default_rng(99).integers(0, len(alphabet), total)].astype(int)
    ids = []
    for size in sizes:
        of_byte = np.stack([random.permutation(size)[:k] for _ in range(256)])
        anywhere = np.stack([random.permutation(size)[:k] for _ in range(total)])
        ids.append(torch.from_numpy(np.where((random.random(total) < liking)[:, None], of_byte[byte_T], anywhere)))
    return Census(tuple(domains), torch.arange(documents) % len(domains), torch.arange(documents).repeat_interleave(length),
                  torch.from_numpy(byte_T), torch.from_numpy(byte_T), tuple(ids), tuple(sizes))


def route_of(sizes=(12, 12), k=3):
    """A function from a text to its routing, one token for each byte."""
    def on_text(text):
        raw = to_bytes(text)
        return [routing_of(logits_of(len(raw), size, len(raw) + 7 * layer), k) for layer, size in enumerate(sizes)]
    return on_text


def explorer_of(text=TEXT, sizes=(12, 12), k=3, *, census=None, null=None, words=None, **more) -> ExpertExplorer:
    """An explorer of synthetic routing; `words` is what documents of the census are made of, and its domains."""
    on_text = route_of(sizes, k)
    documents = {"alphabet": " ".join(words).encode("utf-8", "replace"), "domains": words} if words else {}
    return ExpertExplorer(on_text(text), text, census or census_of(sizes, k, **documents),
                          null or census_of(sizes, k, liking=0.2, seed=1, **documents),
                          **{"origin": "synthetic", "name": "dice", "on_text": on_text, **more})


def counted(calls: dict[str, list[int]], text="ab", k=1, **more) -> ExpertExplorer:
    """An explorer of one layer of two experts, where each byte has as many tokens for expert 0 and 1 as given; one document."""
    def flat(table):
        return [(ord(letter), n) for letter, counts in table.items() for n, times in enumerate(counts) for _ in range(times)]
    rows = flat(calls)
    byte_T = torch.tensor([byte for byte, _ in rows])
    one = Census(("all",), torch.zeros(1, dtype=torch.long), torch.zeros(len(rows), dtype=torch.long), byte_T, byte_T,
                 (torch.tensor([[n] for _, n in rows]),), (2,))
    nobody = Census(one.domains, one.domain_F, one.document_T, byte_T, byte_T, (torch.arange(len(rows))[:, None] % 2,), (2,))
    return explorer_of(text, (2,), k, census=one, null=nobody, **more)


def made(view: ExpertExplorer, **settings) -> ExpertExplorer:
    for name, value in settings.items():
        setattr(view, name, value)
    return view
