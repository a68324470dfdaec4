"""What ships in data/ is what its record says, and a small part of it is made again here."""

import json

import pytest

from moe_lesson import (
    LanguageModel,
    TrainingConfig,
    evaluate_language,
    machine_corpus,
    model_cost,
    next_token,
    paired_difference,
    result_table,
    shipped_model,
    train,
)
from moe_lesson.checkpoints import DATA, checksum, checksums
from moe_lesson.experiments import EXPERIMENTS, TUNING_SEED

NAME = "dense-or-moe"
MODELS = {"dense": "dense", "deepseekmoe": "deepseekmoe"}


@pytest.fixture(scope="module")
def corpus():
    return machine_corpus()


@pytest.fixture(scope="module")
def table():
    return result_table(f"{NAME}-cpu")


def same_text(corpus, made):
    """Whether this machine has the very text that the shipped models were trained on."""
    return corpus.fingerprint() == made["corpus"]


def test_every_checkpoint_is_listed_small_and_unchanged():
    files = sorted((DATA / "checkpoints").glob("*.safetensors"))
    assert {path.name for path in files} == set(checksums())
    assert all(checksum(path) == checksums()[path.name] for path in files)
    assert all(path.stat().st_size <= 3_000_000 for path in files) and sum(path.stat().st_size for path in files) <= 20_000_000


def test_every_table_has_its_provenance():
    tables = sorted((DATA / "results").glob("*.csv"))
    assert tables
    for path in tables:
        made = json.loads(path.with_suffix(".json").read_text())
        assert {"command", "commit", "versions", "device", "seconds", "date", "preset", "corpus"} <= made.keys(), path.name
        assert "unknown" not in made["commit"] and "+" not in made["commit"] and made["seconds"] > 0


def test_the_table_is_a_fair_comparison(table):
    preset = EXPERIMENTS[NAME].presets["cpu"]
    assert table.provenance["preset"] == json.loads(json.dumps(preset.__dict__ | {"budget": preset.budget.__dict__}))
    finals = [row for row in table.rows if row["stage"] == "final"]
    tuned = [row for row in table.rows if row["stage"] == "tune"]
    assert {row["seed"] for row in tuned} == {TUNING_SEED} and all(row["test"] == "" for row in tuned)
    for rung in MODELS:
        mine = [row for row in finals if row["rung"] == rung]
        assert [row["seed"] for row in mine] == [0, 1, 2] and len({row["tokens"] for row in finals}) == 1
        best = min((row for row in tuned if row["rung"] == rung), key=lambda row: row["validation"])
        assert {(row["lr"], row["scale"]) for row in mine} == {(best["lr"], best["scale"])}


def test_the_shipped_claim_holds(table):
    dense, sparse = (table.column("test", stage="final", rung=rung) for rung in MODELS)
    assert paired_difference(dense, sparse).low > 0


@pytest.mark.parametrize("rung, file", MODELS.items())
def test_a_shipped_model_is_seed_0_of_its_experiment(rung, file, table):
    model, about = shipped_model(file)
    row = next(row for row in table.rows if row["stage"] == "final" and row["rung"] == rung and row["seed"] == 0)
    assert about["run"]["test"] == pytest.approx(row["test"], rel=1e-5) and about["command"] == table.provenance["command"]
    cost = model_cost(model.config)
    assert (cost.total, cost.active, cost.flops) == (row["total"], row["active"], row["flops"])


@pytest.mark.parametrize("rung, file", MODELS.items())
def test_the_reported_test_loss_is_measured_again(rung, file, table, corpus):
    model, _ = shipped_model(file)
    row = next(row for row in table.rows if row["stage"] == "final" and row["rung"] == rung and row["seed"] == 0)
    again = evaluate_language(model, corpus, "test")["mean"]
    # the same text gives the same loss; another Python or torch version has slightly different text
    assert again == pytest.approx(row["test"], rel=1e-3 if same_text(corpus, table.provenance) else 0.1)


@pytest.mark.parametrize("rung, file", MODELS.items())
def test_the_first_steps_of_the_training_are_made_again(rung, file, corpus):
    model, about = shipped_model(file)
    preset, run = EXPERIMENTS[NAME].presets["cpu"], about["run"]
    curves = result_table(f"{NAME}-cpu-curves")
    shipped = curves.column("train_loss", rung=rung, seed=0)[:12]
    fresh = LanguageModel(model.config, seed=run["seed"])

    class Enough(Exception):
        pass

    losses = []

    def objective(model, batch):
        loss, figures = next_token(preset.balance)(model, batch)
        losses.append(figures["loss"].item())
        if len(losses) == len(shipped):
            raise Enough
        return loss, figures

    with pytest.raises(Enough):
        train(fresh, corpus.sampler("train", preset.batch, preset.context, run["seed"]),
              TrainingConfig(preset.steps, run["lr"], seed=run["seed"]), objective=objective, progress=False)
    assert losses == pytest.approx(shipped, abs=2e-3 if same_text(corpus, about) else 0.5)
    assert losses[-1] < losses[0]
