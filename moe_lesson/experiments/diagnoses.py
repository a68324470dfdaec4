"""What is done to trained models, and what it tells: changes, a census of their routing, experts taken away."""

import functools
import json
import pathlib
from collections.abc import Callable, Iterator

from filelock import FileLock, Timeout

from ..base.storage import read_json, write_text
from ..lm.checkpoints import load_model
from ..lm.corpora import Corpus
from ..lm.evaluate import evaluate_language
from ..lm.model import LanguageModel
from ..lm.repeats import fresh_tokens
from ..measure.census import LABELS, document_losses, information, of_same_load, specialists, take_census
from ..measure.interventions import with_masked_experts, with_top_k, without_experts, without_shared
from ..moe.layers import moe_layers
from .catalogue import Experiment
from .provenance import digest
from .rungs import Preset
from .tasks import TextTask

MASKED = (1 / 16, 1 / 8, 1 / 4)  # of the routed experts
CONTROLS = 3  # random sets of experts for each set that is taken away


def changes_of(model: LanguageModel) -> Iterator[tuple[str, float, LanguageModel]]:
    """What the paper does to its trained models (arXiv 2401.06066, section 4.5): name, how much of it, the changed model.

    "mask top" and its control "mask random": each token must do without that share of the routed experts (figure 4).
    "active": so many routed experts are active (figure 5); all that it was trained with is the model itself.
    "without shared": the shared experts are gone, as many more routed ones active.
    """
    for share in MASKED:
        yield "mask top", share, with_masked_experts(model, share)
        yield "mask random", share, with_masked_experts(model, share, seed=0)
    for top_k in range(1, moe_layers(model)[0].router.top_k + 1):
        yield "active", top_k, with_top_k(model, top_k)
    if moe_layers(model)[0].shared is not None:
        yield "without shared", 0, without_shared(model)


def changes_measured(model: LanguageModel, corpus: Corpus, seed: int, preset: Preset, device: str) -> Iterator[dict]:
    """The test losses of a trained model with each of its changes, on a fifth of the text."""
    task = TextTask(corpus, preset.evaluated // 5)
    for change, amount, changed in changes_of(model):
        yield {"change": change, "amount": amount} | task.test(changed.to(device))


def texts_of(model: LanguageModel, corpus: Corpus, seed: int, preset: Preset) -> Iterator[dict]:
    """The test loss of the text that the train text does not have word for word; and how far the mean over domains of a loss
    varies with the documents: half of the 95% interval over those of the test split, read from their beginnings."""
    outside = evaluate_language(model, corpus, "test", preset.evaluated, only=fresh_tokens(corpus))
    loss_F, documents = document_losses(model, corpus, "test"), [d for d in corpus.documents if d.split == "test"]
    parts = [loss_F[[d.domain == domain for d in documents]] for domain in corpus.domains]
    spread = sum(part.var(correction=0).item() / max(1, len(part) - 1) for part in parts) ** 0.5 / len(parts)
    yield {"outside": outside["mean"], "over_documents": 1.96 * spread}


def census_of(model: LanguageModel, corpus: Corpus, seed: int) -> Iterator[dict]:
    """What one call of an expert tells about the token's domain, the token itself, the one predicted after it, and its other
    experts: for each layer, beside a random router, a hash router, the untrained model, and shuffled documents."""
    found = take_census(model, corpus, "test", seed=seed)
    found["untrained"] = take_census(LanguageModel(model.config, seed), corpus, "test", nulls=False)["trained"]
    found["shuffled documents"] = found["trained"].shuffled_documents(seed)
    for router, census in found.items():
        for layer in range(len(census.sizes)):
            tables = {what: census.calls(layer, what) for what in LABELS} | {"expert": census.pairs(layer)}
            yield {"router": router, "layer": layer} | {what: information(census.pooled(table)) for what, table in tables.items()}


def ablations_of(model: LanguageModel, corpus: Corpus, seed: int) -> Iterator[dict]:
    """The test loss of every domain without the experts that are most specialised in one, chosen on the validation split, and
    without random ones of the same load; with the share of each domain's calls that the missing experts took."""
    chosen, judged = (take_census(model, corpus, split, nulls=False)["trained"] for split in ("validation", "test"))
    layers = range(len(judged.sizes))
    seen, calls = ([census.pooled(census.calls(layer)) for layer in layers] for census in (chosen, judged))

    def losses(kind: str, domain: str, share: float, draw: int, gone: list[list[int]]) -> dict:
        loss_F = document_losses(without_experts(model, gone), corpus, "test")
        row: dict = {"kind": kind, "domain": domain, "share": share, "draw": draw}
        for d, name in enumerate(judged.domains):
            lost = [len(judged.domains) * table[ids, d].sum().item() for table, ids in zip(calls, gone)]
            row |= {f"test_{name}": loss_F[judged.domain_F == d].mean().item(), f"calls_{name}": sum(lost) / len(lost)}
        return row

    yield losses("nothing", "", 0, 0, [[] for _ in layers])
    for share in MASKED:
        for d, domain in enumerate(judged.domains):
            gone = [specialists(table, d, round(share * len(table))) for table in seen]
            yield losses("specialists", domain, share, 0, gone)
            sets = [of_same_load(table, ids, CONTROLS, seed=d) for table, ids in zip(seen, gone)]
            for draw in range(CONTROLS):
                yield losses("same load", domain, share, draw, [one[draw] for one in sets])


RowsOf = Callable[[LanguageModel, Corpus, int], Iterator[dict]]


def diagnoses(experiment: Experiment, preset: Preset, device: str) -> dict[str, tuple[tuple[str, ...], RowsOf]]:
    """What is done to trained models: table -> the rungs that it is done to, and (model, corpus, seed) -> rows."""
    changes = functools.partial(changes_measured, preset=preset, device=device)
    return {"changes": (experiment.changed, changes), "census": (experiment.census, census_of),
            "ablations": (experiment.ablated, ablations_of),
            "texts": (experiment.read_again, functools.partial(texts_of, preset=preset))}


def diagnose_once(result: dict, table: str, rows_of: RowsOf, corpus: Corpus, wait: bool = True) -> list[dict]:
    """The rows of a diagnosis of a trained model; kept beside the model. Without `wait`, none while another process is at it."""
    row, sizes = result["row"], digest({"masked": MASKED, "controls": CONTROLS})
    kept = pathlib.Path(result["folder"]) / f"{table}-{sizes}.json"
    try:
        with FileLock(kept.with_suffix(".lock"), blocking=wait):
            if not kept.exists():
                model, _ = load_model(kept.parent / "model.safetensors")
                found = list(rows_of(model, corpus, row["seed"]))
                write_text(kept, json.dumps(found))
    except Timeout:
        return []
    return [{"rung": row["rung"], "seed": row["seed"]} | found for found in read_json(kept)]
