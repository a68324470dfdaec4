"""Models in files: what is saved comes back; damaged, changed or foreign files are refused; no code is ever loaded."""

import ast
import datetime
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import moe_lesson
from moe_lesson import (
    Dense,
    LanguageModel,
    ModelConfig,
    MoE,
    Sparse,
    TrainingConfig,
    load_model,
    save_model,
    shipped_model,
    train,
)
from moe_lesson.lm import checkpoints
from moe_lesson.measure.interventions import with_cut_experts, with_masked_experts, with_strongest_units, with_top_k

CONFIG = ModelConfig((Dense(16), Sparse(4, 2, 8)), layers=2, width=16, heads=2, context=24)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    model = LanguageModel(CONFIG, seed=3).eval()
    save_model(path, model, {"command": "made by a test"})
    return path, model


def test_a_model_comes_back_with_its_sizes_and_its_record(saved):
    path, model = saved
    again, about = load_model(path)
    ids = torch.randint(0, 256, (2, 9))
    assert again.config == CONFIG and about == {"command": "made by a test"} and not again.training
    assert torch.equal(again(ids)[0], model(ids)[0])


def test_sizes_of_numpy_are_written_as_plain_numbers(tmp_path):
    config = ModelConfig(Sparse(np.int64(4), top_k=np.int64(2), expert_width=8), layers=np.int64(1), width=16, heads=2)
    save_model(tmp_path / "model", LanguageModel(config), {})
    assert load_model(tmp_path / "model")[0].config.recipes == (Sparse(4, top_k=2, expert_width=8),)


@pytest.mark.parametrize("change", [
    lambda model: with_top_k(model, 1), lambda model: with_masked_experts(model, 0.5), lambda model: with_cut_experts(model, 2),
    lambda model: with_strongest_units(model, 0.5)])
def test_a_changed_model_is_not_written_since_another_one_would_be_read(change, saved, tmp_path):
    with pytest.raises(ValueError, match="not what its config says"):
        save_model(tmp_path / "changed", change(saved[1]), {})
    assert not (tmp_path / "changed").exists()


def test_what_is_no_language_model_is_not_written(saved, tmp_path):
    for wrong, message in ((MoE(8, 4, 2, 4), "a MoE has no config"), ((saved[1], {}), "got a tuple")):
        with pytest.raises(ValueError, match=message):
            save_model(tmp_path / "wrong", wrong, {})


def test_a_truncated_file_is_refused(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged.*get or make it again"):
        load_model(path)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_text("not a model")
    with pytest.raises(ValueError, match="damaged or not a safetensors"):
        load_model(path)
    checkpoints.write_safetensors(path, {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="holds no model of this course"):
        load_model(path)
    train(LanguageModel(CONFIG), lambda step: torch.ones(1, 9).long(), TrainingConfig(1), checkpoint=path.with_name("state"),
          progress=False)
    with pytest.raises(ValueError, match="state is a training state of train, not a model: call train again .*then save_model"):
        load_model(path.with_name("state"))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("metadata", [{"config": "{"}, {"config": "{}"}, {"config": '{"ffn": [], "wings": 2}'}, {}])
def test_a_file_with_a_config_that_makes_no_model_is_refused(saved, metadata):
    path, model = saved
    checkpoints.write_safetensors(path, model.state_dict(), metadata)
    with pytest.raises(ValueError, match="holds no model of this course: its config can't be read"):
        load_model(path)


def test_a_file_that_may_not_be_read_is_not_called_missing(saved, monkeypatch):
    def refuse(file, *_):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    with pytest.raises(PermissionError, match=f"Permission denied: '{re.escape(str(saved[0]))}'"):
        load_model(saved[0])


def test_a_record_that_a_file_cannot_hold_is_told(tmp_path):
    with pytest.raises(ValueError, match="datetime.date.* is a date; expected numbers, text"):
        save_model(tmp_path / "model", LanguageModel(CONFIG), {"date": datetime.date(2026, 1, 1)})
    assert not list(tmp_path.iterdir())


def test_a_file_with_other_tensors_is_refused(saved):
    path, model = saved
    tensors, metadata = checkpoints.read_safetensors(path)
    checkpoints.write_safetensors(path, tensors | {"head.weight": torch.zeros(3, 3)}, metadata)
    with pytest.raises(ValueError, match=r"head.weight has shape \(3, 3\), expected \(1024, 16\)"):
        load_model(path)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "DATA", tmp_path)
    save_model(tmp_path / "checkpoints" / "tiny.safetensors", LanguageModel(CONFIG), {})
    checkpoints.write_checksums(tmp_path / "checkpoints")
    return tmp_path / "checkpoints" / "tiny.safetensors"


def test_a_shipped_model_is_checked_and_loaded(shipped):
    assert shipped_model("tiny")[0].config == CONFIG


def test_a_tampered_model_is_refused(shipped):
    raw = bytearray(shipped.read_bytes())
    raw[-1] ^= 1
    shipped.write_bytes(raw)
    with pytest.raises(ValueError, match="not the file that was shipped.*damaged or was changed"):
        shipped_model("tiny")


def test_an_unknown_or_missing_model_is_told(shipped, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no model 'huge' ships with the course; there are tiny"):
        shipped_model("huge")
    shipped.unlink()
    with pytest.raises(FileNotFoundError, match="make experiments"):
        shipped_model("tiny")
    monkeypatch.setattr(checkpoints, "DATA", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="set MOE_LESSON_DATA"):
        shipped_model("tiny")


def test_a_damaged_list_of_checksums_is_told(shipped):
    (shipped.parent / "SHA256SUMS").write_text("garbage")
    with pytest.raises(ValueError, match="SHA256SUMS is damaged.*get it again"):
        shipped_model("tiny")


def test_an_interrupted_write_leaves_the_old_file(saved, monkeypatch):
    path, _ = saved
    before = path.read_bytes()

    def crash(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(OSError, match="disk full"):
        save_model(path, LanguageModel(CONFIG, seed=9), {})
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_is_an_oserror_that_names_it(tmp_path):
    name = "x" * 250  # a name of its own is possible, one with .partial behind it is not
    with pytest.raises(OSError, match=f"{name} can't be written .*make room for it, or choose another place"):
        save_model(tmp_path / name, LanguageModel(CONFIG), {})


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, written, others = (tmp_path / name for name in (f"model.{gone.pid}.partial", f"model.{os.getppid()}.partial",
                                                          f"other.{gone.pid}.partial"))
    for path in (left, written, others):
        path.touch()
    save_model(tmp_path / "model", LanguageModel(CONFIG), {})
    assert not left.exists() and written.exists() and others.exists()


def test_a_model_has_the_mode_that_other_files_of_the_user_have(tmp_path):
    (tmp_path / "other").touch()
    save_model(tmp_path / "model", LanguageModel(CONFIG), {})
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_no_pickle_is_read_anywhere_in_the_package():
    forbidden = {("torch", "load"), ("pickle", "load"), ("pickle", "loads"), ("np", "load"), ("numpy", "load")}
    for path in pathlib.Path(moe_lesson.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in forbidden, f"{path.name} line {node.lineno}"


def test_snapshots_come_back_by_step_and_layer(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    chosen = {100: [[[3, 1], [0, 2]], [[1, 2], [255, 0]]], 20: [[[0, 1], [0, 1]], [[1, 0], [2, 0]]]}
    checkpoints.save_snapshots(folder / "small-snapshots.safetensors", chosen, {})
    checkpoints.write_checksums(folder)
    monkeypatch.setattr(checkpoints, "DATA", tmp_path)
    again = checkpoints.shipped_snapshots("small")
    assert list(again) == [20, 100] and {step: [ids.tolist() for ids in layers] for step, layers in again.items()} == chosen
    with pytest.raises(ValueError, match="no model 'large-snapshots' ships with the course; there are small-snapshots$"):
        checkpoints.shipped_snapshots("large")
    (folder / "small-snapshots.safetensors").write_bytes(b"changed")
    with pytest.raises(ValueError, match="its SHA-256 differs"):
        checkpoints.shipped_snapshots("small")
