"""The course's models in transformers' classes, and back, compute the same."""

import pytest
import torch

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse, shipped_model
from moe_lesson.lm import real
from moe_lesson.lm.converted import from_transformers, to_transformers

transformers = pytest.importorskip("transformers")
SIGMOID = Sparse(6, 2, 8, 2, score="sigmoid", scale=2.5)
MODELS = {
    "mixtral": (ModelConfig(Sparse(6, 2, 8, scale=1.7), 2, 32, 4, 40, 77), "MixtralForCausalLM"),
    "qwen2": (ModelConfig(Sparse(6, 2, 8, 2, scale=1.7), 2, 32, 4, 40, 77), "Qwen2MoeForCausalLM"),
    "qwen2, raw weights and a dense layer between": (
        ModelConfig((Sparse(6, 2, 8, 1, renormalise=False), Dense(20), Sparse(6, 2, 8, 1, renormalise=False)), 3, 32, 2, 40, 77),
        "Qwen2MoeForCausalLM"),
    "deepseek-v3": (ModelConfig(SIGMOID, 2, 32, 4, 40, 77), "DeepseekV3ForCausalLM"),
    "deepseek-v3, one head, none shared, dense first": (
        ModelConfig((Dense(20), Sparse(6, 3, 8, score="sigmoid", renormalise=False)), 2, 16, 1, 40, 77), "DeepseekV3ForCausalLM"),
}


def randomised(config: ModelConfig) -> LanguageModel:
    """A model of the course none of whose numbers is 0 or 1, so that nothing can be forgotten unseen."""
    model = LanguageModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not name.endswith("router.bias") or "sigmoid" in str(config.ffn):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model.eval()


def assert_same(logits: torch.Tensor, wanted: torch.Tensor):
    """Equal to 1e-5 of the largest."""
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # where nothing is shared
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_same_there_and_back(name):
    config, wanted = MODELS[name]
    ours = randomised(config)
    ids = torch.randint(0, config.vocabulary, (2, config.context), generator=torch.Generator().manual_seed(1))
    theirs = to_transformers(ours)
    assert type(theirs).__name__ == wanted
    assert_same(theirs(ids).logits, ours(ids)[0])
    assert_same(from_transformers(theirs)(ids)[0], ours(ids)[0])


@torch.no_grad()
@pytest.mark.parametrize("shipped, wanted", [("ladder-gshard", "MixtralForCausalLM"),
                                             ("ladder-deepseekmoe", "Qwen2MoeForCausalLM")])
def test_shipped_models_keep_their_logits_and_their_routing_also_through_a_file(shipped, wanted, tmp_path):
    ours = shipped_model(shipped)[0]
    to_transformers(ours).save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs).__name__ == wanted
    ids = torch.randint(0, ours.config.vocabulary, (ours.config.context,), generator=torch.Generator().manual_seed(1))
    logits, routings = ours(ids[None])
    assert_same(theirs(ids[None]).logits, logits)
    assert_same(from_transformers(theirs)(ids[None])[0], logits)
    for mine, heard in zip(routings, real.routings_of(theirs, ids).values(), strict=True):
        assert (mine.expert_ids.sort().values == heard.expert_ids.sort().values).all(1).float().mean() > 0.99  # ties
        torch.testing.assert_close(mine.logits, heard.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("config, reason", [
    (ModelConfig(Dense(8)), "no mixture of experts"), (ModelConfig((Sparse(4, 2, 8), Sparse(4, 2, 9))), "differ in size"),
    (ModelConfig(Sparse(4, 1, 8)), "which divides the weights by their sum"),
    (ModelConfig(Sparse(4, 2, 8, noisy=True)), "add noise"),
    (ModelConfig((SIGMOID, Dense(8))), "dense layers first"), (ModelConfig((Dense(8), Sparse(4, 2, 8))), "has no dense layer")])
def test_what_no_class_can_say_is_refused(config, reason):
    with pytest.raises(ValueError, match=reason):
        to_transformers(LanguageModel(config))


def test_a_softmax_router_with_a_bias_is_refused():
    model = LanguageModel(ModelConfig(Sparse(4, 2, 8)))
    model.blocks[0].ffn.router.bias[0] = 1
    with pytest.raises(ValueError, match="chooses with a bias, which mixtral has not"):
        to_transformers(model)


def test_what_the_course_can_not_say_is_refused():
    theirs = to_transformers(LanguageModel(MODELS["qwen2"][0]))
    with torch.no_grad():
        theirs.model.layers[1].mlp.shared_expert_gate.weight += 0.1
    with pytest.raises(ValueError, match="gate has learned something"):
        from_transformers(theirs)
    theirs = to_transformers(LanguageModel(MODELS["mixtral"][0]))
    theirs.config.rope_parameters["rope_theta"] = 15_000.0
    theirs.config.rms_norm_eps = 1e-5
    with pytest.raises(ValueError, match="can't say rms_norm_eps, rope_parameters.rope_theta"):
        from_transformers(theirs)
    with pytest.raises(ValueError, match="granitemoe is not a class"):
        from_transformers(torch.nn.Module.__new__(type("Other", (), {"config": transformers.GraniteMoeConfig()})))
