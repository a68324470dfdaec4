"""Training: it learns, it resumes exactly, it keeps its state when interrupted, it stops at NaN."""

import functools
import io
import itertools
import math
import os
import pathlib
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.utils.checkpoint

from moe_lesson import (
    Corpus,
    LanguageModel,
    ModelConfig,
    MoE,
    Sparse,
    TrainingConfig,
    TrainingDiverged,
    evaluate_language,
    load_model,
    machine_corpus,
    next_token,
    own_corpus,
    save_model,
    train,
)
from moe_lesson.base.tokens import decode
from moe_lesson.lm.checkpoints import model_identity, read_training_state
from moe_lesson.lm.evaluate import evaluate_load
from moe_lesson.lm.training import adamw, one_step
from moe_lesson.measure.census import take_census
from moe_lesson.measure.interventions import with_top_k
from moe_lesson.measure.skills import SkillsWorld, regression
from moe_lesson.moe.layers import Experts, Router

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
CONFIG = ModelConfig(Sparse(4, 2, 8, num_shared=1, noisy=True), layers=1, width=16, heads=2, context=16)


@pytest.fixture(scope="module")
def corpus():
    return own_corpus(TEXT)


def run(corpus, steps=12, device="cpu", **options):
    model = LanguageModel(CONFIG).to(device)
    config = TrainingConfig(steps, lr=1e-2, warmup=2)
    options = {"progress": False} | options
    return model, train(model, corpus.sampler("train", 4, 16), config, **options)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_the_loss_falls_and_the_history_tells(corpus):
    model, history = run(corpus, 60)
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert len(history.rows) == 60 and history.seconds > 0 and {"step", "lr", "loss", "max_violation"} <= history.rows[0].keys()


def test_the_same_seed_gives_the_same_model(corpus):
    assert same(run(corpus)[0], run(corpus)[0])


def test_training_leaves_the_callers_random_numbers_alone(corpus):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    run(corpus, 3)
    assert torch.equal(torch.rand(2), expected)


class Stop(Exception):
    pass


def stopping_at(corpus, step, how):
    """A sampler that does something when it is asked for a step."""
    sample = corpus.sampler("train", 4, 16)

    def batch_at(i):
        if i == step:
            how()
        return sample(i)

    return batch_at


@pytest.mark.parametrize("device", [
    "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))])
def test_an_interrupted_training_goes_on_exactly(device, corpus, tmp_path):
    whole, history = run(corpus, device=device)
    state = tmp_path / "state.safetensors"
    model = LanguageModel(CONFIG).to(device)
    config = TrainingConfig(12, lr=1e-2, warmup=2)
    interrupt = stopping_at(corpus, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="after step 6 of 12.*call train again"):
        train(model, interrupt, config, checkpoint=state, progress=False)
    asked = []
    sample = corpus.sampler("train", 4, 16)
    resumed = LanguageModel(CONFIG).to(device)
    again = train(resumed, lambda step: asked.append(step) or sample(step), config, checkpoint=state, progress=False)
    assert asked[2:] == list(range(6, 12)), "what was trained before the interrupt is not trained again"
    assert same(resumed, whole), "resumed weights must equal uninterrupted ones to the bit, noise included"
    assert again["loss"] == history["loss"]


def test_after_a_crash_training_goes_on_from_the_last_checkpoint(corpus, tmp_path):
    state = tmp_path / "state.safetensors"

    def crash():
        raise Stop

    with pytest.raises(Stop):
        train(LanguageModel(CONFIG), stopping_at(corpus, 7, crash), TrainingConfig(12, lr=1e-2, warmup=2), checkpoint=state,
              every=5, progress=False)
    assert same(run(corpus, checkpoint=state)[0], run(corpus)[0])
    assert not list(tmp_path.glob("*.partial"))


def test_the_interrupt_handler_is_put_back(corpus):
    before = signal.getsignal(signal.SIGINT)
    run(corpus, 2)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_checkpoint_of_another_configuration_is_refused(corpus, tmp_path):
    state = tmp_path / "state.safetensors"
    run(corpus, 4, checkpoint=state)
    with pytest.raises(ValueError, match="was trained with steps 4, now 12.*delete the file to start again"):
        run(corpus, 12, checkpoint=state)


def test_a_checkpoint_of_another_model_is_refused(corpus, tmp_path):
    state = tmp_path / "state.safetensors"
    run(corpus, 4, checkpoint=state)
    other = LanguageModel(ModelConfig(layers=1, width=16, heads=2, context=16))
    with pytest.raises(ValueError, match="was trained with model .*go on with the same model, data"):
        train(other, corpus.sampler("train", 4, 16), TrainingConfig(4, lr=1e-2, warmup=2), checkpoint=state, progress=False)


def test_a_checkpoint_of_equal_shapes_but_another_top_k_or_other_data_is_refused(corpus, tmp_path):
    state = tmp_path / "state.safetensors"
    run(corpus, 4, checkpoint=state)
    config = TrainingConfig(4, lr=1e-2, warmup=2)
    top_1 = LanguageModel(replace(CONFIG, ffn=replace(CONFIG.ffn, top_k=1, renormalise=False)))
    with pytest.raises(ValueError, match="was trained with model"):
        train(top_1, corpus.sampler("train", 4, 16), config, checkpoint=state, progress=False)
    with pytest.raises(ValueError, match=r"was trained with balance \{'batch': 0.01\}, now \{'bias': 0.1\}"):
        run(corpus, 4, checkpoint=state, objective=next_token({"bias": 0.1}))
    for other, message in ((LanguageModel(CONFIG, seed=1), "a model of seed 0, now 1: "),
                           (LanguageModel(CONFIG).half(), "precision 'float32', now 'float16")):
        with pytest.raises(ValueError, match=f"was trained with {message}"):
            train(other, corpus.sampler("train", 4, 16), config, checkpoint=state, progress=False)
    with pytest.raises(ValueError, match="was trained with first batch"):
        other = own_corpus("other text. " * 99).sampler("train", 4, 16)
        train(LanguageModel(CONFIG), other, config, checkpoint=state, progress=False)


def test_a_model_that_was_saved_and_loaded_goes_on_with_its_own_training(corpus, tmp_path):
    save_model(tmp_path / "model", LanguageModel(CONFIG, seed=3), {})
    rows = [train(model, corpus.sampler("train", 4, 16), TrainingConfig(4), checkpoint=tmp_path / "state", progress=False).rows
            for model in (LanguageModel(CONFIG, seed=3), load_model(tmp_path / "model")[0])]
    assert rows[0] == rows[1]


def test_a_checkpoint_of_another_objective_is_refused_in_both_directions(corpus, tmp_path):
    def own(model, batch):
        return next_token()(model, batch)

    def other(model, batch):
        return next_token()(model, batch)

    for first, then, message in ((None, own, "objective .*now .*own'; balance .*now None"), (own, None, "balance None, now"),
                                 (own, other, "objective .*own', now .*other'")):
        (tmp_path / "state").unlink(missing_ok=True)
        run(corpus, 2, checkpoint=tmp_path / "state", objective=first)
        with pytest.raises(ValueError, match=f"was trained with .*{message}"):
            run(corpus, 2, checkpoint=tmp_path / "state", objective=then)


@pytest.mark.parametrize("given, message", [
    ({"batch_at": torch.utils.data.DataLoader([1])}, r"batch_at is a DataLoader; expected .*lambda step: batches\[step"),
    ({"batch_at": lambda step: (torch.zeros(1), torch.zeros(1))}, r"batch_at\(0\) gave a tuple; expected one tensor"),
    ({"batch_at": functools.partial(lambda drawn, step: torch.full((2, 9), next(drawn)), itertools.count())},
     r"batch_at\(0\) gave two different batches; expected the same batch for the same step: index a list"),
    ({"batch_at": lambda step: torch.ones(9).long()}, r"has shape \(9,\); expected \[B sequences, S \+ 1 tokens\]"),
    ({"batch_at": lambda step: torch.ones(2, 1).long()}, r"has shape \(2, 1\); expected"),
    ({"batch_at": lambda step: torch.ones(0, 9).long()}, r"has shape \(0, 9\); expected"),
    ({"objective": 3}, r"objective is a int; expected .*next_token\(\)"),
    ({"objective": next_token}, r"does not take a model and a batch .*next_token\(\) with its brackets"),
    ({"objective": lambda model, batch: next_token()(model, batch)[0]}, "returned a Tensor; expected a loss and figures by name"),
    ({"objective": lambda model, batch: (model(batch)[0], {})}, r"loss has shape \(2, 9, 1024\) .*; expected one number"),
    ({"objective": lambda model, batch: (next_token()(model, batch)[0].detach(), {})}, "requires_grad=False; expected one"),
    ({"evaluate": 3}, "evaluate is a int; expected a function"), ({"after_step": 3}, "after_step is a int; expected a function"),
    ({"model": torch.nn.Identity()}, "a Identity has no parameters"),
    ({"model": LanguageModel(CONFIG).requires_grad_(False)}, "no parameter of the model is trainable")])
def test_what_cannot_be_trained_with_is_refused_by_its_name(given, message):
    given = {"model": LanguageModel(CONFIG), "batch_at": lambda step: torch.ones(2, 9).long()} | given
    with pytest.raises(ValueError, match=message):
        train(config=TrainingConfig(1), progress=False, **given)


def test_training_without_gradients_is_refused(corpus):
    with torch.no_grad(), pytest.raises(ValueError, match=r"call train outside of torch.no_grad\(\)"):
        run(corpus, 1)


def test_ids_of_any_whole_numbers_and_batches_in_bfloat16_train(corpus):
    ids = corpus.sampler("train", 4, 16)(0)
    losses = [train(LanguageModel(CONFIG), [given].__getitem__, TrainingConfig(1), progress=False)["loss"]
              for given in (ids.short(), ids.int(), ids)]
    assert losses[0] == losses[1] == losses[2]
    train(MoE(8, 4, 2, 4).bfloat16(), lambda step: torch.ones(3, 16, dtype=torch.bfloat16), TrainingConfig(1), progress=False,
          objective=regression())


def test_tied_weights_can_be_checkpointed(corpus, tmp_path):
    def trained():
        model = LanguageModel(CONFIG)
        model.head.weight = model.embedding.weight
        train(model, corpus.sampler("train", 4, 16), TrainingConfig(3, lr=1e-2), checkpoint=tmp_path / "state.safetensors",
              progress=False)
        return model.head.weight

    assert torch.equal(trained(), trained())


class Own(torch.nn.Module):
    """A mixture that a learner wrote: routed, but no `MoE`."""

    def __init__(self):
        super().__init__()
        self.router, self.experts = Router(16, 4, 2), Experts(16, 4, 8)

    def forward(self, x):
        routing = self.router(x.flatten(0, -2))
        return self.experts(x.flatten(0, -2), routing).view_as(x), routing


@pytest.mark.parametrize("balance", [{"bias": 0.1}, {"batch": 0.01}])
def test_a_layer_of_ones_own_is_not_balanced_by_another_layers_load(balance, corpus):
    model = LanguageModel(replace(CONFIG, layers=2, ffn=(Sparse(4, 2, 8), Sparse(4, 2, 8))))
    model.blocks[0].ffn = Own()

    def step(balance):
        return train(model, corpus.sampler("train", 4, 16), TrainingConfig(1), objective=next_token(balance), progress=False)

    assert len(step({}).rows[0]["load"]) == 2
    with pytest.raises(ValueError, match="of the 2 layers that route, 1 can be balanced"):
        step(balance)


def test_a_file_that_is_no_training_state_is_refused(corpus, tmp_path):
    other = tmp_path / "model.safetensors"
    save_model(other, LanguageModel(CONFIG), {})
    with pytest.raises(ValueError, match="holds no training state; give another file name"):
        run(corpus, 4, checkpoint=other)
    with pytest.raises(ValueError, match="is a folder"):
        run(corpus, 4, checkpoint=tmp_path)


def test_a_layer_that_chooses_otherwise_is_another_model(corpus, tmp_path):
    world, state = SkillsWorld(num_skills=4, width=8), tmp_path / "state.safetensors"

    def skilled(**how):
        train(MoE(8, 4, expert_width=4, **{"top_k": 2} | how), world.sampler(8), TrainingConfig(2), objective=regression(),
              checkpoint=state, progress=False)

    skilled()
    for other in ({"top_k": 3}, {"score": "sigmoid"}, {"scale": 2.0}, {"renormalise": False}):
        with pytest.raises(ValueError, match="was trained with model"):
            skilled(**other)
    assert model_identity(with_top_k(LanguageModel(CONFIG), 1)) != model_identity(LanguageModel(CONFIG))


@pytest.mark.parametrize("fails", ["batch", "objective", "after_step", "evaluate"])
def test_whatever_fails_the_steps_before_it_are_kept(fails, corpus, tmp_path):
    state, batches = tmp_path / "state.safetensors", corpus.sampler("train", 4, 16)
    count = itertools.count(1)

    def fail(here):
        if here == fails:
            raise ZeroDivisionError("somebody's own code")

    def batch_at(step):
        if step == 7:
            fail("batch")
        return batches(step)

    def objective(model, ids):
        if next(count) == 8:
            fail("objective")
        return next_token()(model, ids)

    with pytest.raises(ZeroDivisionError):
        train(LanguageModel(CONFIG), batch_at, TrainingConfig(12, lr=1e-2, warmup=2), checkpoint=state, every=8, progress=False,
              objective=objective, evaluate=lambda model: fail("evaluate") or {},
              after_step=lambda model, row: row["step"] == 6 and fail("after_step"))
    assert len(read_training_state(state)[2]["rows"]) == (8 if fails == "evaluate" else 7)


@pytest.mark.parametrize("fails_at", [4, 6])  # in the middle, and where no step is left
def test_an_evaluation_that_failed_is_made_up_for(fails_at, corpus, tmp_path):
    state, calls = tmp_path / "state.safetensors", itertools.count(2, 2)

    def evaluate(model):
        if next(calls) == fails_at:
            raise MemoryError("once")
        return {"validation": model.head.weight.detach().sum()}

    with pytest.raises(MemoryError):
        run(corpus, 6, every=2, checkpoint=state, evaluate=evaluate)
    unbroken = run(corpus, 6, every=2, evaluate=evaluate)[1]
    assert run(corpus, 6, every=2, checkpoint=state, evaluate=evaluate)[1].rows == unbroken.rows
    assert run(corpus, 6, every=2, checkpoint=state, evaluate=evaluate)[1].rows == unbroken.rows, "and it is saved"


def test_a_step_whose_after_step_failed_is_done_and_its_evaluation_is_made_up_for(corpus, tmp_path):
    asked = []

    def after_step(model, row):
        asked.append(row["step"])
        if len(asked) == 2:
            raise ZeroDivisionError

    def sitting():
        options = {"checkpoint": tmp_path / "state", "after_step": after_step, "evaluate": lambda model: {"test": 1}}
        return run(corpus, 4, every=2, **options)[1]

    with pytest.raises(ZeroDivisionError):
        sitting()
    assert sitting()["test"] == [1, 1] and asked == [0, 1, 2, 3]


def test_an_interrupt_in_an_evaluation_that_was_owed_is_heard(corpus, tmp_path):
    calls = itertools.count()

    def evaluate(model):
        if next(calls) == 0:
            raise MemoryError("once")
        os.kill(os.getpid(), signal.SIGINT)
        return {"test": 1}

    for error in (MemoryError, KeyboardInterrupt):
        with pytest.raises(error):
            run(corpus, 2, checkpoint=tmp_path / "state", evaluate=evaluate)
    assert run(corpus, 2, checkpoint=tmp_path / "state", evaluate=evaluate)[1]["test"] == [1] and next(calls) == 2


def test_where_saving_fails_too_the_error_of_ones_own_is_the_one_that_is_raised(corpus, tmp_path):
    def evaluate(model):
        (tmp_path / "state").unlink()
        (tmp_path / "state").mkdir()  # no file can be put there
        raise ZeroDivisionError("somebody's own code")

    with pytest.raises(ZeroDivisionError), pytest.warns(UserWarning, match="are not saved: .*state"):
        run(corpus, 2, checkpoint=tmp_path / "state", evaluate=evaluate)


def test_what_is_no_model_is_refused_as_such(corpus):
    pair = (LanguageModel(CONFIG), {})
    for use in (lambda: train(pair, corpus.sampler("train", 4, 16), TrainingConfig(1)),
                lambda: evaluate_language(pair, corpus, "test"), lambda: take_census(pair, corpus)):
        with pytest.raises(ValueError, match="expected a model, got a tuple; .*model, about = shipped_model"):
            use()


@pytest.mark.parametrize("found, message", [
    (1.5, "evaluate returned 1.5; expected figures by name"),
    ({"loss": 1, "step": 2}, "evaluate returned loss, step, which the training records itself; choose other names"),
    ({"where": pathlib.Path("here")}, r"Path\('here'\) is a \w+Path; expected numbers, text, lists"),
    ({"seen": [{1}]}, r"\{1\} is a set; expected numbers, text, lists"), ({"seen": {(1, 2): 3}}, "keys must be .*by text")])
def test_an_evaluation_that_gives_no_figures_by_name_is_told_so_and_nothing_is_lost(found, message, corpus, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(corpus, 2, evaluate=lambda model: found, checkpoint=tmp_path / "state")
    again = run(corpus, 2, evaluate=lambda model: {"test": 1}, checkpoint=tmp_path / "state")[1]
    assert again["test"] == [1] and len(again.rows) == 2


def test_a_figure_of_a_step_that_no_file_can_hold_stops_before_the_step_is_done(corpus, tmp_path):
    with pytest.raises(ValueError, match="is a set; expected numbers"):
        run(corpus, 2, objective=lambda *given: (next_token()(*given)[0], {"seen": {1}}), checkpoint=tmp_path / "state")
    tensors, _, history = read_training_state(tmp_path / "state")
    assert not history["rows"] and torch.equal(tensors["model.head.weight"], LanguageModel(CONFIG).head.weight)


def test_a_diverged_training_leaves_its_last_step_in_the_checkpoint(corpus, tmp_path):
    calls = []

    def objective(m, batch):
        calls.append(1)
        loss, figures = next_token()(m, batch)
        return (loss * float("inf") if len(calls) == 4 else loss), figures

    with pytest.raises(TrainingDiverged):
        run(corpus, 12, objective=objective, checkpoint=tmp_path / "state.safetensors")
    assert len(read_training_state(tmp_path / "state.safetensors")[2]["rows"]) == 3


def test_nan_stops_the_training_and_keeps_the_last_good_weights(corpus):
    model = LanguageModel(CONFIG)
    seen = []

    def objective(m, batch):
        loss, figures = next_token()(m, batch)
        seen.append([p.detach().clone() for p in m.parameters()])
        return (loss * float("nan") if len(seen) == 4 else loss), figures

    with pytest.raises(TrainingDiverged, match="at step 3 the loss is nan.*step before.*lower learning rate than 0.01"):
        train(model, corpus.sampler("train", 4, 16), TrainingConfig(12, lr=1e-2), objective=objective, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), seen[-1]))
    assert all(p.isfinite().all() for p in model.parameters())


def test_an_objective_needs_no_figures_of_its_own(corpus):
    _, history = run(corpus, 3, objective=lambda m, batch: (next_token()(m, batch)[0], {}), progress=True)
    assert len(history["loss"]) == 3


def test_a_bar_can_be_written_where_blocks_cannot(corpus, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stderr", out)
    run(corpus, 3, progress=True)
    out.flush()
    assert b"0/3" in out.buffer.getvalue()


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:126] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"),
])
def test_out_of_memory_says_what_to_make_smaller(error, corpus):
    def objective(m, batch):
        raise error

    with pytest.raises(MemoryError, match=r"ran out of memory at step 0 with a batch of shape \(4, 17\); choose a smaller batch"):
        run(corpus, 2, objective=objective)


def test_evaluation_figures_stand_in_the_history(corpus):
    _, history = run(corpus, 10, every=4, evaluate=lambda m: {"validation": evaluate_language(m, corpus, "validation")["mean"]})
    assert [row["step"] for row in history.rows if "validation" in row] == [3, 7, 9]


def test_evaluation_figures_may_be_tensors_and_go_into_the_checkpoint(corpus, tmp_path):
    state = tmp_path / "state.safetensors"
    figures = {"one": torch.tensor(0.5), "two": torch.tensor([1, 2]), "three": np.float32(3), "four": {"in": [torch.tensor([4])]}}
    run(corpus, 2, every=1, checkpoint=state, evaluate=lambda model: figures)
    again = run(corpus, 2, checkpoint=state)[1].rows[0]
    assert again["two"] == [1, 2] and again["four"] == {"in": [[4]]}


def test_a_step_says_the_mean_violation_of_its_layers(corpus):
    model = LanguageModel(replace(CONFIG, layers=2))
    row = train(model, corpus.sampler("train", 4, 16), TrainingConfig(1), progress=False).rows[0]
    worst = [max(load) / (sum(load) / len(load)) - 1 for load in row["load"]]
    assert len(worst) == 2 and row["max_violation"] == pytest.approx(sum(worst) / 2)


def test_the_load_is_that_of_all_batches(corpus):
    model = LanguageModel(replace(CONFIG, context=4))
    [load], windows = evaluate_load(model, corpus, "test"), corpus.windows("mine", "test", 4, 50_000)
    assert load.sum() == 2 * windows[:, 1:].numel() and len(windows) > 64


def test_a_corpus_of_other_tokens_is_no_measure(corpus):
    with pytest.raises(ValueError, match="cut into tokens of 256, the model reads 1024: .* vocabulary=1024"):
        evaluate_language(LanguageModel(CONFIG), Corpus(corpus.documents, 256), "test")


def test_a_text_too_short_to_measure_on_says_how_much_is_needed():
    with pytest.raises(ValueError, match="'mine' has 102 tokens for test; at least 129 are needed"):
        text = "All work and no play makes Jack a dull boy. " * 40
        evaluate_language(LanguageModel(replace(CONFIG, context=128)), own_corpus(text), "test")


def test_what_has_no_loss_of_its_own_is_not_measured(corpus):
    model = LanguageModel(CONFIG)
    with pytest.raises(ValueError, match="a MoE reads no text; expected a language model"):
        evaluate_language(model.blocks[0].ffn, corpus, "test")
    with pytest.raises(ValueError, match="a domain is called 'mean'"):
        evaluate_language(model, own_corpus(text="so it goes " * 999, domain="mean"), "test")
    with pytest.raises(ValueError, match=f"max_tokens is 5; expected at least the model's context, {CONFIG.context}"):
        evaluate_language(model, corpus, "test", max_tokens=5)


def test_the_mean_is_that_of_the_domains():
    found = evaluate_language(LanguageModel(CONFIG), machine_corpus(max_bytes=40_000), "test", 200)
    assert found.pop("mean") == pytest.approx(sum(found.values()) / 4) and len(found) == 4


def test_the_evaluated_loss_is_in_nats_per_byte(corpus):
    model = LanguageModel(CONFIG).eval()
    windows = corpus.windows("mine", "test", 16, 100_000)
    nats = [torch.nn.functional.cross_entropy(model(w[None, :-1])[0][0], w[1:], reduction="sum").item() for w in windows]
    size = len(decode(windows[:, 1:].flatten().tolist()))
    assert evaluate_language(model, corpus, "test", batch=7)["mine"] == pytest.approx(sum(nats) / size, rel=1e-5)


def test_the_schedule_warms_up_and_falls_to_a_tenth():
    config = TrainingConfig(100, lr=0.5, warmup=10)
    rates = [config.lr_at(step) / 0.5 for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01) and rates[10:] == sorted(rates[10:], reverse=True)


def test_bfloat16_is_what_the_model_computes_in_and_not_what_it_keeps(corpus):
    seen = []

    def objective(model, ids):
        seen.append(model(ids[:, :-1])[0].dtype)
        return next_token()(model, ids)

    model = LanguageModel(CONFIG)
    train(model, corpus.sampler("train", 4, 16), TrainingConfig(1, bfloat16=True), objective=objective, progress=False)
    assert seen == [torch.bfloat16] and model.head.weight.dtype == torch.float32 and not model.training


def test_matrices_decay_and_norms_do_not():
    decaying, kept = adamw(LanguageModel(CONFIG), TrainingConfig(1, weight_decay=0.3)).param_groups
    assert (decaying["weight_decay"], kept["weight_decay"]) == (0.3, 0)
    assert {p.ndim for p in kept["params"]} == {1} and min(p.ndim for p in decaying["params"]) == 2


def test_a_step_takes_no_longer_gradient_than_asked(corpus):
    """A gradient of thousands changes plain descent's weights by what the clip leaves of it, and no step clips a short one."""
    ids = corpus.sampler("train", 4, 16)(0)

    def moved(clip: float, times: float) -> float:
        model, objective = LanguageModel(CONFIG), next_token()
        before = [p.detach().clone() for p in model.parameters()]
        one_step(model, torch.optim.SGD(model.parameters(), lr=1.0), ids, 0, TrainingConfig(1, lr=1.0, clip=clip, warmup=0),
                 lambda *asked: (times * objective(*asked)[0], {}))
        return torch.cat([(p - old).flatten() for p, old in zip(model.parameters(), before)]).norm().item()

    assert moved(0.5, 1e4) == pytest.approx(0.5, rel=1e-3) and moved(2.0, 1e4) == pytest.approx(2.0, rel=1e-3)
    assert moved(2.0, 1e-3) == pytest.approx(moved(1e9, 1e-3), rel=1e-3)


def test_a_training_says_in_one_line_what_it_did(corpus, capsys):
    _, history = run(corpus, 40, progress=True)
    printed = capsys.readouterr()
    assert re.fullmatch(rf"40 steps in \d+ s, loss {history['loss'][-1]:.3f}\n", printed.out) and "/40" in printed.err
    run(corpus, 40)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments, message", [
    (dict(steps=1, clip=0), "clip is 0"), (dict(steps=1, weight_decay=-1), "weight_decay is -1"),
    (dict(steps=0), "steps is 0"), (dict(steps=1, lr=-1), "lr is -1"), (dict(steps=1, warmup=-1), "warmup is -1"),
    (dict(steps=1, lr="1e-3"), "lr is '1e-3'; expected a positive number"), (dict(steps=1, lr=math.inf), "lr is inf"),
    (dict(steps=1, clip=None), "clip is None"), (dict(steps=1, weight_decay=math.nan), "weight_decay is nan"),
    (dict(steps=1, seed=0.5), "seed is 0.5"), (dict(steps=1, bfloat16="yes"), "bfloat16 is 'yes'")])
def test_impossible_configurations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**arguments)


def test_an_infinite_clip_clips_nothing(corpus):
    def trained(clip):
        model = LanguageModel(CONFIG)
        train(model, corpus.sampler("train", 4, 16), TrainingConfig(3, lr=1e-2, clip=clip), progress=False)
        return model

    assert same(trained(math.inf), trained(1e9)) and not same(trained(math.inf), trained(0.01))


def test_a_figure_that_no_step_has_is_refused(corpus):
    _, history = run(corpus, 2)
    with pytest.raises(ValueError, match="no step has a figure 'los'; choose one of step, lr, loss, max_violation, load"):
        history["los"]


def test_a_checkpoint_that_cannot_be_written_says_so_before_the_first_step(corpus, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    asked = []
    with pytest.raises(OSError, match="file"):
        run(corpus, 3, checkpoint=tmp_path / "file" / "state.safetensors",
            objective=lambda model, batch: asked.append(1) or next_token()(model, batch))
    assert not asked


def biased(corpus, steps, objective=None, **options):
    model = LanguageModel(replace(CONFIG, ffn=replace(CONFIG.ffn, noisy=False)))
    objective = objective or next_token({"bias": 0.01})
    train(model, corpus.sampler("train", 4, 16), TrainingConfig(steps, lr=1e-2), objective=objective, progress=False, **options)
    return model, model.blocks[0].ffn.router.bias


def test_a_bias_moves_once_in_a_step_and_not_where_a_loss_is_only_looked_at(corpus):
    _, bias = biased(corpus, 7)
    assert 0.01 < bias.abs().max() <= 0.0701
    asked = next_token({"bias": 0.01})

    def looks_twice(model, batch):
        asked(model, batch)
        return asked(model, batch)

    looks_twice.after_step = asked.after_step
    assert torch.equal(biased(corpus, 7, looks_twice)[1], bias)


def test_a_step_that_diverges_leaves_the_bias_of_the_step_before(corpus, tmp_path):
    asked, steps = next_token({"bias": 0.01}), []

    def breaks(model, batch):
        steps.append(model.blocks[0].ffn.router.bias.clone())
        loss, figures = asked(model, batch)
        return loss * (float("nan") if len(steps) == 4 else 1.0), figures

    breaks.after_step = asked.after_step
    with pytest.raises(TrainingDiverged):
        biased(corpus, 7, breaks, checkpoint=tmp_path / "state.safetensors")
    kept = read_training_state(tmp_path / "state.safetensors")[0]["model.blocks.0.ffn.router.bias"]
    assert torch.equal(kept, steps[-1]) and not torch.equal(kept, steps[-2])


def test_checkpointing_the_activations_changes_nothing(corpus):
    asked = next_token({"bias": 0.1})
    saved = LanguageModel(CONFIG)
    for block in saved.blocks:
        block.forward = functools.partial(torch.utils.checkpoint.checkpoint, block.forward, use_reentrant=False)
    bare = LanguageModel(CONFIG)
    ids = corpus.sampler("train", 4, 16)(0)
    grads = []
    for model in (saved, bare):
        torch.manual_seed(0)
        asked(model.train(), ids)[0].backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*grads)
