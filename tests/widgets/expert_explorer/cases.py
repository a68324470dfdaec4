"""Expert explorers that several tests look at: of an untrained model and a made-up census."""

import numpy as np
import torch

from moe_lesson import LanguageModel, ModelConfig, Sparse
from moe_lesson.base.tokens import encode
from moe_lesson.measure.census import Census
from moe_lesson.widgets import ExpertExplorer

ALPHABET = b"eeeeeeettttaaoonisrhdl   \n(0,_q"
TEXT = "the sea is a road"
PROSE = "\n    def namespace(instance):\n        return instance.vectorized  # the argument is a function of the namespace 中\n"


def census_of(sizes=(12, 12), k=3, *, documents=9, length=200, domains=("python", "english", "cpp"), liking=0.7, seed=0,
              alphabet=ALPHABET, vocabulary=256) -> Census:
    """A census in which a share `liking` of the tokens, any of an alphabet, goes where each says, the others anywhere."""
    random = np.random.default_rng(seed)
    total = documents * length
    token_T = np.array(encode(alphabet, vocabulary))
    token_T = token_T[np.random.default_rng(99).integers(0, len(token_T), total)]
    ids = []
    for size in sizes:
        own = np.stack([random.permutation(size)[:k] for _ in range(vocabulary)])
        anywhere = np.stack([random.permutation(size)[:k] for _ in range(total)])
        ids.append(torch.from_numpy(np.where((random.random(total) < liking)[:, None], own[token_T], anywhere)))
    return Census(tuple(domains), torch.arange(documents) % len(domains), torch.arange(documents).repeat_interleave(length),
                  torch.from_numpy(token_T), torch.from_numpy(token_T), tuple(ids), tuple(sizes), vocabulary)


def model_of(sizes=(12, 12), k=3, context=256, vocabulary=256) -> LanguageModel:
    layers = tuple(Sparse(size, k, 4) for size in sizes)
    config = ModelConfig(layers, layers=len(layers), width=16, heads=2, context=context, vocabulary=vocabulary)
    return LanguageModel(config, seed=3).eval()


def explorer_of(text=TEXT, sizes=(12, 12), k=3, *, census=None, null=None, words=None, context=256, vocabulary=256,
                **more) -> ExpertExplorer:
    """An explorer of an untrained model; `words` is what documents of the census are made of, and its domains."""
    model = model_of(sizes, k, context, vocabulary)
    documents = {"alphabet": " ".join(words).encode("utf-8", "replace"), "domains": words} if words else {}
    documents |= {"vocabulary": vocabulary}
    view = ExpertExplorer(model.route(text), text, census or census_of(sizes, k, **documents),
                          null or census_of(sizes, k, liking=0.2, seed=1, **documents),
                          **{"origin": "synthetic", "name": "dice", "max_tokens": context, **more})
    view.carry(model)
    return view


def long_names(text=PROSE * 3, sizes=(12, 12), k=3, **more) -> ExpertExplorer:
    """An explorer of a model of 1,024 tokens, whose names are as long as they get."""
    census, null = (census_of(sizes, k, alphabet=PROSE.encode(), vocabulary=1024, **each)
                    for each in ({}, {"liking": 0.2, "seed": 1}))
    return explorer_of(text, sizes, k, census=census, null=null, vocabulary=1024, **more)


def counted(calls: dict[str, list[int]], text="ab", **more) -> ExpertExplorer:
    """An explorer of one layer of two experts, where each letter calls expert 0 and 1 as often as given; one document."""
    rows = [(ord(letter), n) for letter, counts in calls.items() for n, times in enumerate(counts) for _ in range(times)]
    token_T = torch.tensor([token for token, _ in rows])
    all_T = torch.zeros(len(rows), dtype=torch.long)
    one, nobody = (Census(("all",), all_T[:1], all_T, token_T, token_T, (ids,), (2,), 256)
                   for ids in (torch.tensor([[n] for _, n in rows]), torch.arange(len(rows))[:, None] % 2))
    return explorer_of(text, (2,), 1, census=one, null=nobody, **more)
