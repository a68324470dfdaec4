"""What several tests of measurements look at."""

import pytest
import torch

from moe_lesson import Dense, LanguageModel, ModelConfig, MoE, Sparse


@pytest.fixture(scope="module")
def model():
    """A dense layer and two mixtures whose routers have a bias."""
    model = LanguageModel(ModelConfig((Dense(16), Sparse(8, 2, 8), Sparse(8, 2, 8)), layers=3, width=16, heads=2, context=24))
    for block in model.blocks[1:]:
        block.ffn.router.bias.fill_(0.5)
    return model.eval()


@pytest.fixture(scope="session")
def layer_and_tokens():
    """(fields of a recipe) -> a small layer in float64, and 40 tokens."""
    def made(**recipe):
        torch.manual_seed(0)
        layer = MoE(8, **({"num_experts": 6, "top_k": 2, "expert_width": 5} | recipe))
        return layer.double(), torch.randn(40, 8, dtype=torch.float64)

    return made
