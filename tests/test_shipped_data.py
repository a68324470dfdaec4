"""What ships in data/ is what its record says, and a small part of it is made again here."""

import itertools
import json

import pytest

from moe_lesson import (
    TrainingConfig,
    evaluate_language,
    machine_corpus,
    model_cost,
    paired_difference,
    result_table,
    shipped_model,
    train,
)
from moe_lesson.checkpoints import DATA, checksum, checksums
from moe_lesson.experiments import EXPERIMENTS, TUNING_SEED

NAME = "dense-or-moe"
SHIPPED = [(name, rung, file) for name, experiment in EXPERIMENTS.items() for rung, file in experiment.ships.items()]
REMADE = [(NAME, "dense"), (NAME, "deepseekmoe"), ("scaling", "width 12"), ("scaling", "width 64"), ("topk", "dense"),
          ("topk", "2 of 16"), ("balance", "importance + load"), ("balance", "bias"), ("skills", "1 of 8"),
          ("skills", "2 of 16, nothing shared")]


@pytest.fixture(scope="module")
def corpus():
    return machine_corpus()


def shipped_table(name=NAME):
    return result_table(f"{name}-cpu")


def final_row(name, rung, seed=0):
    return next(row for row in shipped_table(name).rows
                if (row["stage"], row["rung"], row["seed"]) == ("final", rung, seed))


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


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_table_is_a_fair_comparison(name):
    table, experiment = shipped_table(name), EXPERIMENTS[name]
    preset = experiment.presets["cpu"]
    made = {"strengths": [1.0]} | table.provenance["preset"]  # the older tables varied no balancing: all had DeepSeekMoE's
    assert made.pop("balance", 0.01) == 0.01
    assert made == json.loads(json.dumps(preset.__dict__ | {"budget": preset.budget.__dict__}))
    finals = [row for row in table.rows if row["stage"] == "final"]
    tuned = [row for row in table.rows if row["stage"] == "tune"]
    assert {row["seed"] for row in tuned} == {TUNING_SEED} and all(row["test"] == "" for row in tuned)
    assert {row["rung"] for row in finals} == set(experiment.rungs) and len({row["tokens"] for row in finals}) == 1
    for rung, config_of in experiment.rungs.items():
        mine = [row for row in finals if row["rung"] == rung]
        assert not [row for row in tuned if row["rung"] in experiment.controls]
        grid = [row for row in tuned if row["rung"] == experiment.controls.get(rung, rung)]
        assert [row["seed"] for row in mine] == list(range(experiment.seeds)) and {row["lr"] for row in grid} == set(preset.lrs)
        best = min(grid, key=lambda row: row["validation"])
        assert {(row["lr"], row["scale"]) for row in mine} == {(best["lr"], best["scale"])}
        if experiment.balance.get(rung):
            assert {(row["lr"], row["strength"]) for row in grid} == set(itertools.product(preset.lrs, preset.strengths))
            assert {row["strength"] for row in mine} == {best["strength"]}
        cost = experiment.task(preset, rung, 0, None).cost(config_of(preset, 1.0))
        assert {(row["total"], row["active"], row["flops"]) for row in mine} == {(cost.total, cost.active, cost.flops)}


def test_the_shipped_claim_holds():
    dense, sparse = (shipped_table().column("test", stage="final", rung=rung) for rung in ("dense", "deepseekmoe"))
    assert paired_difference(dense, sparse).low > 0


@pytest.mark.parametrize("name, rung, file", SHIPPED)
def test_a_shipped_model_is_seed_0_of_its_experiment(name, rung, file):
    model, about = shipped_model(file)
    row = final_row(name, rung)
    assert about["run"]["test"] == pytest.approx(row["test"], rel=1e-5)
    assert about["command"] == shipped_table(name).provenance["command"]
    cost = model_cost(model.config)
    assert (cost.total, cost.active, cost.flops) == (row["total"], row["active"], row["flops"])


@pytest.mark.parametrize("name, rung, file", SHIPPED)
def test_the_reported_test_loss_is_measured_again(name, rung, file, corpus):
    model, _ = shipped_model(file)
    row = final_row(name, rung)
    again = evaluate_language(model, corpus, "test")["mean"]
    # the same text gives the same loss; another Python or torch version has slightly different text
    assert again == pytest.approx(row["test"], rel=1e-3 if same_text(corpus, shipped_table(name).provenance) else 0.1)


@pytest.mark.parametrize("name, rung", REMADE)
def test_the_first_steps_of_a_training_are_made_again(name, rung, corpus):
    experiment, row = EXPERIMENTS[name], final_row(name, rung)
    preset = experiment.presets["cpu"]
    task = experiment.task(preset, rung, 0, corpus)
    shipped = result_table(f"{name}-cpu-curves").column("train_loss", rung=rung, seed=0)[:12]
    balance = experiment.balance_of(rung, row.get("strength"))
    fresh = task.build(experiment.rungs[rung](preset, row["scale"] or 1.0), seed=0)

    class Enough(Exception):
        pass

    losses = []

    def objective(model, batch):
        loss, figures = task.objective(balance)(model, batch)
        losses.append(figures["loss"].item())
        if len(losses) == len(shipped):
            raise Enough
        return loss, figures

    with pytest.raises(Enough):
        train(fresh, task.batches(preset.batch, preset.context, 0), TrainingConfig(preset.steps, row["lr"], seed=0),
              objective=objective, progress=False)
    same_data = experiment.worlds is not None or same_text(corpus, shipped_table(name).provenance)
    assert losses == pytest.approx(shipped, abs=2e-3 if same_data else 0.5)
    assert losses[-1] < losses[0]
