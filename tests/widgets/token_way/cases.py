"""Ways of a token through models that nobody trained."""

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.widgets import TokenWay

# a dense layer first, then one with everything that a router can have
MIXED = ModelConfig((Dense(8), Sparse(7, 3, 8, num_shared=1, score="sigmoid", renormalise=False, scale=2.5)), width=16, heads=2,
                    context=240)


def model_of(**sizes) -> LanguageModel:
    small = {"ffn": Sparse(12, 3, 8, num_shared=2), "width": 16, "heads": 2, "context": 240, "vocabulary": 256}
    return LanguageModel(ModelConfig(**{**small, **sizes}), seed=3).eval()


def way_of(text: str = "hello world", token: int = 4, *, short: bool = False, title: str = "a way", **sizes) -> TokenWay:
    """The way of a token through a small model, or one of the given sizes."""
    return TokenWay(model_of(**sizes), text, token, short=short, origin="toy", title=title)


def mixed() -> LanguageModel:
    """A dense layer, then a sigmoid router with a bias."""
    model = LanguageModel(MIXED, seed=1).eval()
    model.blocks[1].ffn.router.bias.normal_(std=0.3)
    return model
