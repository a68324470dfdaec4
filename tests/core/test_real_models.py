"""Published models are opened if they are here, downloaded only if asked, and refused with a reason; no network is used."""

import pytest
import torch

from moe_lesson.lm import real_models
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


def test_a_model_too_large_for_the_memory_is_refused(hub, monkeypatch):
    monkeypatch.setattr(real_models, "free_memory", lambda: 10 * 10 ** 9)
    with pytest.raises(ValueError, match="needs 13.8 GB of memory, and 10.0 GB are free"):
        published(PUBLISHED["olmoe"], download=True)


def test_a_disk_too_full_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(real_models.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5 * 10 ** 6}))
    with pytest.raises(ValueError, match="of disk, and 0.0 GB are free"):
        real_models.downloaded(PUBLISHED["tinymoe"])


def test_an_unknown_name_lists_the_right_ones():
    with pytest.raises(ValueError, match="choose one of tinymoe, granite, olmoe"):
        open_model("gpt")


def test_a_model_that_is_here_is_opened_and_its_tokens_are_words(hub, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["?", *TEXT.split()])}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(tmp_path)
    own_model("ladder-gshard").model.save_pretrained(tmp_path)
    hub["shibatch/tinymoe2m"] = str(tmp_path)
    opened = open_model("tinymoe")
    [*routings] = opened.route(TEXT).values()
    assert opened.name == "shibatch/tinymoe2m" and routings[0].tokens == tuple(TEXT.split())
    assert opened.loss(TEXT) > 0


def test_free_memory_is_some_or_unknown():
    assert (real_models.free_memory() or 1) > 0
