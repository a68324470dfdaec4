"""Published models are opened if they are here, downloaded only if asked, and refused with a reason; no network is used."""

import gc
import pathlib
import sys

import pytest
import torch

from moe_lesson.lm import real_models
from moe_lesson.lm.real import expert_outputs, moe_blocks, router_of
from moe_lesson.lm.real_models import PUBLISHED, open_model, own_model, published, read_by
from moe_lesson.moe.layers import moe_layers

transformers = pytest.importorskip("transformers")
TEXT = "the cat sat on the mat"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """What is on this machine, by repository: empty, and nothing can be downloaded."""
    found = {}

    def downloading(one):
        raise OSError("no network in tests")

    monkeypatch.setattr(real_models, "on_this_machine", found.get)
    monkeypatch.setattr(real_models, "downloaded", downloading)
    return found


def test_the_courses_own_model_routes_as_it_always_did():
    ours, theirs = real_models.shipped_model("ladder-deepseekmoe")[0], own_model()
    found = theirs.route(TEXT)
    assert list(found) == ["model.layers.0.mlp", "model.layers.1.mlp"] and "Qwen2MoeForCausalLM" in theirs.name
    for mine, heard, layer in zip(ours.route(TEXT), found.values(), moe_layers(ours)):
        assert mine.tokens == heard.tokens  # the class has no gate scale: its experts are as much quieter
        torch.testing.assert_close(mine.gates / layer.router.scale, heard.gates, rtol=0, atol=1e-4)
    ids = read_by(ours, TEXT)[0]
    logits = ours(ids[None])[0][0]
    assert theirs.loss(TEXT) == pytest.approx(torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).item(), abs=1e-4)


def test_nothing_is_downloaded_unasked_and_the_lesson_goes_on(hub, capsys):
    assert open_model("granite").name == own_model().name
    said = capsys.readouterr().out
    assert "not on this machine; 2.7 GB would be downloaded (licence: Apache 2.0)" in said and "download=True" in said


def test_without_a_network_the_lesson_says_so_and_goes_on(hub, capsys):
    assert open_model("tinymoe", download=True).name == own_model().name
    assert "no network in tests\nThe lesson goes on with the course's own." in capsys.readouterr().out


def test_a_model_too_large_without_accelerate_is_refused(hub, monkeypatch):
    monkeypatch.setattr(real_models, "free_memory", lambda: 10 * 10 ** 9)
    monkeypatch.setattr(real_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs 13.8 GB of memory, and 10.0 GB are free here; with the package accelerate"):
        published(PUBLISHED["olmoe"], download=True)


def test_a_disk_too_full_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(real_models.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5 * 10 ** 6}))
    with pytest.raises(ValueError, match="of disk, and 0.0 GB are free"):
        real_models.downloaded(PUBLISHED["tinymoe"])


def test_a_model_that_was_downloaded_is_found_though_files_that_nobody_needs_are_not_here(monkeypatch, tmp_path):
    trees = pytest.importorskip("huggingface_hub._tree_cache", reason="an older hub keeps no list of a repository's files")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_OFFLINE", True)
    folder, commit = tmp_path / "models--a--b", "0" * 40
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    files = ["config.json", "model.safetensors"]
    trees.write_tree_cache(str(folder), commit, {name: trees.TreeCacheEntry(1, "x") for name in [*files, "README.md"]})
    for name in files:
        assert real_models.on_this_machine("a/b") is None, "a download that was interrupted is not whole"
        (snapshot / name).write_text("x")
    assert real_models.on_this_machine("a/b") == str(snapshot)


def test_a_damaged_file_is_said_and_the_lesson_goes_on(hub, saved, capsys):
    folder = pathlib.Path(saved("ladder-deepseekmoe"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    hub[PUBLISHED["tinymoe"].repo] = str(folder)
    assert open_model("tinymoe").name == own_model().name
    assert "can't be opened: Error while deserializing" in capsys.readouterr().out


def test_an_unknown_name_lists_the_right_ones():
    with pytest.raises(ValueError, match="choose one of tinymoe, granite, olmoe"):
        open_model("gpt")


@pytest.fixture
def saved(tmp_path):
    """saved(shipped) -> a folder that has a model and its tokenizer, as one from the Hub."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    def save(shipped):
        words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["?", *TEXT.split()])}, unk_token="?"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(tmp_path)
        own_model(shipped).model.save_pretrained(tmp_path)
        return str(tmp_path)

    return save


def test_a_model_that_is_here_is_opened_and_its_tokens_are_words(hub, saved):
    hub["shibatch/tinymoe2m"] = saved("ladder-gshard")
    opened = open_model("tinymoe")
    [*routings] = opened.route(TEXT).values()
    assert opened.name == "shibatch/tinymoe2m" and routings[0].tokens == tuple(TEXT.split())
    assert opened.loss(TEXT) > 0


@pytest.mark.parametrize("shipped", ["ladder-deepseekmoe", "ladder-gshard"])
def test_experts_that_have_no_room_wait_on_disk_and_nothing_changes(shipped, hub, saved, monkeypatch, capsys):
    hub["shibatch/tinymoe2m"] = saved(shipped)
    whole = open_model("tinymoe")
    monkeypatch.setattr(real_models, "free_memory", lambda: 2_500_000 / 0.8)
    capsys.readouterr()
    small = open_model("tinymoe")
    assert "wait on disk, the experts of 2 of 2 layers" in capsys.readouterr().out
    on_disk = [name for name, one in small.model.named_parameters() if one.is_meta]
    assert len(on_disk) == 4 and all(".experts." in name for name in on_disk)
    assert small.loss(TEXT) == whole.loss(TEXT)
    for mine, theirs in zip(small.route(TEXT).values(), whole.route(TEXT).values()):
        torch.testing.assert_close(mine.gates, theirs.gates, rtol=0, atol=0)
    x_TD = torch.randn(3, small.model.config.hidden_size)
    for mine, theirs in zip(moe_blocks(small.model), moe_blocks(whole.model)):
        torch.testing.assert_close(router_of(mine)(x_TD).logits, router_of(theirs)(x_TD).logits, rtol=0, atol=0)
        torch.testing.assert_close(expert_outputs(mine, x_TD), expert_outputs(theirs, x_TD), rtol=0, atol=0)
    [waiting] = pathlib.Path(hub["shibatch/tinymoe2m"]).glob("waiting-*")
    del small, mine
    gc.collect()
    assert not waiting.exists()


def test_as_many_layers_as_have_room_keep_their_experts(tmp_path):
    model = own_model("ladder-gshard").model
    with torch.device("meta"):
        deep = type(model)(type(model.config)(**model.config.to_dict() | {"num_hidden_layers": 4}))
    experts = [sum(one.nbytes for one in block.module.experts.parameters()) for block in moe_blocks(deep)]
    whole = sum(one.nbytes for one in deep.state_dict().values())
    for memory, kept in ((whole, 3), (whole - 1, 2), (whole - experts[0], 2), (whole - 2 * experts[0], 1)):
        places = real_models.experts_on_disk(deep, memory, tmp_path)
        assert [places[f"{block.name}.experts"] for block in moe_blocks(deep)] == ["cpu"] * kept + ["disk"] * (4 - kept)
        assert set(places.values()) == {"cpu", "disk"} and places["lm_head"] == places["model.embed_tokens"] == "cpu"


@pytest.mark.parametrize("memory, free, says", [(10 ** 5, 10 ** 9, "with the experts of one layer at a time it needs 0.0019 GB"),
                                                (2_000_000, 10 ** 3, "of experts would wait on disk, and 1e-06 are free in")])
def test_a_model_with_room_nowhere_is_refused(memory, free, says, saved, monkeypatch):
    monkeypatch.setattr(real_models.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    with pytest.raises(ValueError, match=says):
        real_models.loaded(saved("ladder-deepseekmoe"), memory)


def test_free_memory_is_some_or_unknown():
    free = real_models.free_memory()
    assert (free is None) == (not pathlib.Path("/proc/meminfo").exists() and sys.platform != "darwin")
    assert free is None or 10 ** 7 < free < 10 ** 14, "bytes"
