"""What a language model's loss is, and how its experts are loaded, over text by domain."""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.errors import require
from ..base.tokens import size_of
from ..moe.layers import check_model
from ..moe.routing import routed
from .corpora import Corpus, evenly
from .model import LanguageModel, ModelConfig, evaluating


@torch.no_grad()
def read_by(model: LanguageModel, corpus: Corpus, split: str, max_tokens: int, batch: int = 64) -> Iterator[tuple]:
    """A model reads `max_tokens` tokens of each domain: yields domain, ids [B, S+1], logits and routings of a batch."""
    with evaluating(model) as device:
        require(corpus.vocabulary == model.config.vocabulary, f"the corpus is cut into tokens of {corpus.vocabulary}, the model "
                f"reads {model.config.vocabulary}: give it a corpus with vocabulary={model.config.vocabulary}")
        require(max_tokens >= model.config.context, f"max_tokens is {max_tokens}; expected at least the model's context, "
                                                    f"{model.config.context}")
        for domain in corpus.domains:
            for ids in corpus.windows(domain, split, model.config.context, max_tokens).split(batch):
                ids = ids.to(device)
                yield domain, ids, *model(ids[:, :-1])


def evaluate_language(model: LanguageModel, corpus: Corpus, split: str, max_tokens: int = 50_000,
                      batch: int = 64, only: Mapping[str, Tensor] | None = None) -> dict[str, float]:
    """Mean loss per domain in nats per byte, over `max_tokens` tokens of each, so that it is the same scale for any vocabulary.

    Args:
        model: a language model.
        corpus: whose documents of `split` are read.
        split: "validation" to choose anything, "test" to report.
        max_tokens: how many of each domain, at least the model's context.
        batch: how many sequences the model reads at once.
        only: the tokens whose loss counts, bool for each token of a domain's stream, as `repeats.fresh_tokens` gives it; all read
            tokens unless given.

    Returns: {domain: loss}, and under "mean" the mean over domains.

    Raises:
        ValueError: if this is no model or one of other tokens, a domain has too little text or is called "mean", or `only` is of
            another corpus.
    """
    check_model(model)
    require(isinstance(getattr(model, "config", None), ModelConfig),
            f"a {type(model).__name__} reads no text; expected a language model, of which it may be a layer")
    require("mean" not in corpus.domains, "a domain is called 'mean', which is what the mean over domains is called; name it "
                                          "something else")
    total, count = dict.fromkeys(corpus.domains, 0.0), dict.fromkeys(corpus.domains, 0)
    only = only or {domain: torch.ones(len(corpus.stream(domain, split)), dtype=torch.bool, device="cpu")
                    for domain in corpus.domains}
    for domain in corpus.domains:
        known, tokens = len(only.get(domain, ())), len(corpus.stream(domain, split))
        require(known == tokens, f"only says it of {known} tokens of {domain!r}, and the {split} split has {tokens}; make it of "
                                 "the same corpus and split")
    counts = (part for domain in corpus.domains for part in evenly(only[domain], model.config.context, max_tokens).split(batch))
    for (domain, ids, logits, _), kept in zip(read_by(model, corpus, split, max_tokens, batch), counts):
        kept = kept[:, 1:].to(ids.device)
        total[domain] += F.cross_entropy(logits[kept].float(), ids[:, 1:][kept], reduction="sum").item()
        count[domain] += int(size_of(ids[:, 1:][kept]).sum())
    require(all(count.values()), f"no token counts in {', '.join(d for d in count if not count[d])}: read more, or count others")
    losses = {domain: total[domain] / count[domain] for domain in corpus.domains}
    return losses | {"mean": sum(losses.values()) / len(losses)}


def evaluate_load(model: LanguageModel, corpus: Corpus, split: str, max_tokens: int = 50_000) -> list[Tensor]:
    """The load [N] of each MoE layer over `max_tokens` tokens of each domain; [] for a dense model.

    Args: as `evaluate_language`.
    """
    found = [[routing.load for routing in routed(routings)]
             for _, _, _, routings in read_by(model, corpus, split, max_tokens)]
    return [torch.stack(loads).sum(dim=0) for loads in zip(*found)]
