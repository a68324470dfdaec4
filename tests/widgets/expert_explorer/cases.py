"""Expert explorers that several tests look at: of an untrained model and a made-up census."""

import numpy as np
import torch

from moe_lesson import LanguageModel, ModelConfig, Sparse
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


def model_of(sizes=(12, 12), k=3, context=256) -> LanguageModel:
    layers = tuple(Sparse(size, k, 4) for size in sizes)
    return LanguageModel(ModelConfig(layers, layers=len(layers), width=16, heads=2, context=context), seed=3).eval()


def explorer_of(text=TEXT, sizes=(12, 12), k=3, *, census=None, null=None, words=None, context=256, **more) -> ExpertExplorer:
    """An explorer of an untrained model; `words` is what documents of the census are made of, and its domains."""
    model = model_of(sizes, k, context)
    documents = {"alphabet": " ".join(words).encode("utf-8", "replace"), "domains": words} if words else {}
    view = ExpertExplorer(model.route(text), text, census or census_of(sizes, k, **documents),
                          null or census_of(sizes, k, liking=0.2, seed=1, **documents),
                          **{"origin": "synthetic", "name": "dice", "max_bytes": context, **more})
    view.carry(model)
    return view


def counted(calls: dict[str, list[int]], text="ab", **more) -> ExpertExplorer:
    """An explorer of one layer of two experts, where each byte has as many tokens for expert 0 and 1 as given; one document."""
    rows = [(ord(letter), n) for letter, counts in calls.items() for n, times in enumerate(counts) for _ in range(times)]
    byte_T = torch.tensor([byte for byte, _ in rows])
    one, nobody = (Census(("all",), torch.zeros(1, dtype=torch.long), torch.zeros(len(rows), dtype=torch.long), byte_T, byte_T,
                          (ids,), (2,)) for ids in (torch.tensor([[n] for _, n in rows]), torch.arange(len(rows))[:, None] % 2))
    return explorer_of(text, (2,), 1, census=one, null=nobody, **more)
