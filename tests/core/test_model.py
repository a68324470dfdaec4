"""The language model: causal, seeded, any FFN per layer, any text."""

import pytest
import torch

from moe_lesson import Dense, LanguageModel, ModelConfig, Routing, Sparse
from moe_lesson.base.tokens import decode, encode
from moe_lesson.lm.model import Attention, rotate

SPARSE = Sparse(8, 2, 8, num_shared=1)
CONFIG = ModelConfig((Dense(16), SPARSE), layers=2, width=16, heads=2, context=24)


@pytest.fixture(scope="module")
def model():
    return LanguageModel(CONFIG).eval()


def test_output_shapes_and_one_routing_per_sparse_layer(model):
    logits, routings = model(torch.randint(0, 256, (3, 10)))
    assert logits.shape == (3, 10, 1024)
    assert routings[0] is None and isinstance(routings[1], Routing) and routings[1].num_tokens == 30


def test_models_of_one_seed_have_all_in_common_but_the_ffn_and_no_ffn_starts_louder():
    sizes = {"layers": 1, "width": 64, "heads": 2, "context": 24}
    narrow, wide, sparse = (LanguageModel(ModelConfig(ffn, **sizes), seed=3) for ffn in (Dense(64), Dense(640), SPARSE))
    for name, tensor in narrow.state_dict().items():
        if ".ffn." not in name:
            assert torch.equal(tensor, wide.state_dict()[name]) and torch.equal(tensor, sparse.state_dict()[name]), name
    assert not torch.equal(narrow.head.weight, LanguageModel(narrow.config, seed=4).head.weight)
    x = torch.randn(500, 64)
    quiet, loud = (model.blocks[0].ffn(x).std() for model in (narrow, wide))
    assert loud.item() == pytest.approx(quiet.item(), rel=0.2)


def test_no_token_sees_a_later_one(model):
    ids = torch.randint(0, 256, (1, 12))
    changed = ids.clone()
    changed[0, 7:] = (changed[0, 7:] + 1) % 256
    torch.testing.assert_close(model(ids)[0][:, :7], model(changed)[0][:, :7])
    assert not torch.allclose(model(ids)[0][:, 7:], model(changed)[0][:, 7:])


def test_attention_tells_the_order_of_earlier_tokens():
    torch.manual_seed(0)
    attention = Attention(16, 2)
    x = torch.randn(1, 4, 16)
    assert not torch.allclose(attention(x)[:, -1], attention(x[:, [1, 0, 2, 3]])[:, -1])


def test_rotary_positions_keep_lengths_and_see_distances_alone():
    query, key = torch.randn(8).expand(10, 8), torch.randn(8).expand(10, 8)
    torch.testing.assert_close(rotate(query).norm(dim=-1), query.norm(dim=-1))
    scores = rotate(query) @ rotate(key).T  # the same pair of vectors at every pair of positions
    for distance in (0, 3):
        diagonal = scores.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(scores[0, 0], scores[3, 0])


def test_the_seed_decides_the_weights_and_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    one, same, other = LanguageModel(CONFIG, 0), LanguageModel(CONFIG, 0), LanguageModel(CONFIG, 1)
    assert torch.equal(torch.rand(3), expected)
    for a, b in zip(one.parameters(), same.parameters()):
        assert torch.equal(a, b)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_a_noisy_router_starts_without_noise_weights():
    model = LanguageModel(ModelConfig(Sparse(4, 2, 8, noisy=True), layers=1, width=16, heads=2))
    assert (model.blocks[0].ffn.router.noise == 0).all()


def test_a_config_survives_a_file():
    assert ModelConfig.from_dict(CONFIG.to_dict()) == CONFIG
    one_for_all = ModelConfig(SPARSE, layers=3)
    assert ModelConfig.from_dict(one_for_all.to_dict()).recipes == one_for_all.recipes


@pytest.mark.parametrize("text, tokens", [("ab", 1), (" return", 1), ("", 0), ("é😀", 6), ("\ud800", 3), (b"\xff\x00", 2)])
def test_any_text_can_be_routed(model, text, tokens):
    dense, routing = model.route(text)
    assert dense is None and routing.num_tokens == tokens == len(routing.tokens)


def test_too_long_a_text_is_refused_with_its_length(model):
    with pytest.raises(ValueError, match="25 tokens is longer than the model's context of 24; shorten"):
        model.route("~x" * 12 + "~")


def test_generation_follows_its_seed_keeps_the_prompt_and_may_outgrow_the_context(model):
    text = model.generate("héllo", 40, seed=1)
    assert text == model.generate("héllo", 40, seed=1) != model.generate("héllo", 40, seed=2)
    assert text.startswith("héllo") and len(text.encode("utf-8", "replace")) >= 40
    assert model.generate("abc", 0) == "abc"
    with pytest.raises(ValueError, match="temperature is 0"):
        model.generate("a", 1, temperature=0)


def test_a_low_temperature_draws_the_likeliest_and_a_high_one_anything(model):
    ids = torch.tensor([encode(b"\0hello", model.config.vocabulary)])
    likeliest = decode([model(ids)[0][0, -1].argmax().item()]).decode("utf-8", "replace")

    def nexts(temperature: float) -> set[str]:
        return {model.generate("hello", 1, temperature, seed) for seed in range(30)}

    assert nexts(1e-4) == {"hello" + likeliest} and len(nexts(100.0)) > 15


def test_routing_and_generating_leave_the_mode_as_it_was():
    training = LanguageModel(CONFIG).train()
    training.route("ab")
    training.generate("ab", 2)
    assert training.training


@pytest.mark.parametrize("make, message", [
    (lambda: ModelConfig(width=60, heads=8), "width 60 can't be split into 8 heads.*multiple of 16"),
    (lambda: ModelConfig(layers=0), "layers is 0"),
    (lambda: ModelConfig((Dense(8),), layers=2), "1 FFN recipes for 2 layers"),
    (lambda: ModelConfig([Dense(8)] * 2, layers=2), "expected one recipe, or a tuple with one per layer"),
    (lambda: LanguageModel(CONFIG)(torch.zeros(2, 3)), "dtype torch.float32; expected integers"),
    (lambda: LanguageModel(CONFIG)(torch.full((1, 3), 1024)), "ids run from 1024 to 1024; .* has 0 … 1023"),
    (lambda: LanguageModel(CONFIG)(torch.zeros(3, dtype=torch.long)), r"shape \(3,\).*\[B sequences, S tokens\]"),
    (lambda: LanguageModel(CONFIG)("hello"), r"token ids have type str; .*model.route\(text\) takes text"),
    (lambda: LanguageModel(Dense(8)), "config has type Dense; expected a ModelConfig"),
    (lambda: LanguageModel(CONFIG).route(5), "the text has type int; expected a string"),
    (lambda: LanguageModel(CONFIG).generate("a", 1, temperature="hot"), "temperature is 'hot'; expected a positive number"),
    (lambda: LanguageModel(CONFIG).generate("a", 1.5), "length is 1.5; expected a whole number, 0 or more"),
])
def test_impossible_sizes_and_inputs_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
