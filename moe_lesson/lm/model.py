"""A small decoder language model whose feed-forward layers are any recipes: the Transformer block of the course."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import positive_number, require, whole_number
from ..base.seeds import mixed_seed
from ..base.text import DOCUMENT_START, to_bytes
from ..base.tokens import VOCABULARY, decode, encode, token_texts
from ..moe.layers import DenseFFN, MoE, check_model
from ..moe.recipes import Dense, Recipe, build, from_dict, to_dict
from ..moe.routing import Routing


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a language model.

    Args:
        ffn: one recipe for every layer, or a tuple with one per layer.
        layers: number of Transformer blocks.
        width: D.
        heads: attention heads; they divide the width into even head sizes.
        context: the longest sequence, in tokens.
        vocabulary: V.

    Raises:
        ValueError: if the sizes do not fit together.
    """

    ffn: Recipe | tuple[Recipe, ...] = Dense(192)
    layers: int = 2
    width: int = 64
    heads: int = 4
    context: int = 128
    vocabulary: int = VOCABULARY

    def __post_init__(self):
        for name in ("layers", "width", "heads", "context", "vocabulary"):
            whole_number(name, getattr(self, name))
        require(self.width % (2 * self.heads) == 0,
                f"width {self.width} can't be split into {self.heads} heads of even size; "
                f"choose a width that is a multiple of {2 * self.heads}")
        require(isinstance(self.ffn, Recipe | tuple), f"ffn is {self.ffn!r}; expected one recipe, or a tuple with one per layer")
        if isinstance(self.ffn, tuple):
            require(len(self.ffn) == self.layers, f"{len(self.ffn)} FFN recipes for {self.layers} layers; give one each")

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The FFN of each layer, in order."""
        return self.ffn if isinstance(self.ffn, tuple) else (self.ffn,) * self.layers

    def to_dict(self) -> dict:
        """The config as plain values, for a file."""
        return asdict(self) | {"ffn": [to_dict(recipe) for recipe in self.recipes]}

    @classmethod
    def from_dict(cls, values: dict) -> ModelConfig:
        """The config that `to_dict` wrote."""
        return cls(**values | {"ffn": tuple(from_dict(recipe) for recipe in values["ffn"])})


class Attention(nn.Module):
    """Causal self-attention with rotary positions (arXiv 2104.09864): [B, S, D] -> [B, S, D]."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """What each place takes from itself and earlier ones: [B, S, D] -> [B, S, D]."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


def rotate(x: Tensor) -> Tensor:
    """Turn pairs of channels by an angle that grows with the position (arXiv 2104.09864, eq. 34): [..., S, 2C] -> same."""
    half = x.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Block(nn.Module):
    """One Transformer block: attention, then the feed-forward layer, each after a norm and added to the residual stream."""

    ffn: DenseFFN | MoE

    def __init__(self, config: ModelConfig, recipe: Recipe):
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(config.width), nn.RMSNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.ffn = build(recipe, config.width)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing | None]:
        """The residual stream after the block, [B, S, D], and the `Routing` of its B·S tokens, None of a dense layer."""
        x = x + self.attention(self.attention_norm(x))
        out = self.ffn(self.ffn_norm(x))
        y, routing = out if isinstance(out, tuple) else (out, None)  # whoever wrapped the layer
        return x + y, routing


class LanguageModel(nn.Module):
    """A decoder-only Transformer: token ids [B, S], on any device -> logits [B, S, V] and what each layer's router did.

    Args:
        config: the sizes.
        seed: of the initial weights. Each is drawn by seed and name, so that models of one seed which differ in their FFN
            alone have embedding, attention and head in common.

    Returns (forward): logits [B, S, V]; a tuple with one `Routing` of the B·S tokens per layer (None for dense layers).

    Raises:
        ValueError: if the config is no `ModelConfig`, the seed no whole number, a sequence longer than the context, or a token
            outside the vocabulary.
    """

    blocks: Sequence[Block]

    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        check_config(config)
        self.config = config
        self.seed: int | None = seed  # None of a model from a file that does not say it
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay where they were
            self.embedding = nn.Embedding(config.vocabulary, config.width)
            self.blocks = cast(Sequence[Block], nn.ModuleList(Block(config, recipe) for recipe in config.recipes))
            self.norm = nn.RMSNorm(config.width)
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1 and not name.endswith("router.noise"):  # which starts at zero
                    torch.default_generator.manual_seed(mixed_seed(seed, name))  # and not that of a GPU
                    # by the numbers that are summed up: a wide FFN does not start louder than a narrow one
                    inputs = parameter.shape[-2] if name.endswith("w_out") else config.width
                    nn.init.normal_(parameter, std=0.5 * inputs ** -0.5)

    def forward(self, ids: Tensor) -> tuple[Tensor, tuple[Routing | None, ...]]:
        """Token ids [B, S] -> logits [B, S, V], and a tuple with one `Routing` per layer (None for dense layers)."""
        check_ids(ids, self.config)
        x, routings = self.embedding(ids.to(self.embedding.weight.device).long()), []
        for block in self.blocks:
            x, routing = block(x)
            routings.append(routing)
        return self.head(self.norm(x)), tuple(routings)

    @torch.no_grad()
    def route(self, text: str | bytes) -> tuple[Routing | None, ...]:
        """What each layer's router does with a text: one `Routing` per layer, its tokens readable.

        Args:
            text: at most `context` tokens; longer text is refused, since a token's route depends on what it can see.

        Raises:
            ValueError: if the text is too long, or neither a string nor bytes.
        """
        ids = encode(text, self.config.vocabulary)
        with evaluating(self):
            routings = self(torch.tensor([ids], dtype=torch.long, device="cpu"))[1]
        texts = token_texts(ids)
        return tuple(r and r.detach().with_tokens(texts) for r in routings)

    @torch.no_grad()
    def generate(self, prompt: str | bytes, length: int, temperature: float = 0.8, seed: int = 0) -> str:
        """Continue a text by `length` tokens, each drawn from the model's prediction.

        Args:
            prompt: the beginning; empty text starts a new document.
            length: tokens to add.
            temperature: above 0; small values make the likely likelier.
            seed: of the draws.

        Returns: prompt and continuation; bytes that are not UTF-8 are shown as �.

        Raises:
            ValueError: if the length, the temperature or the seed is impossible.
        """
        positive_number("temperature", temperature)
        require(temperature >= 1e-4, f"temperature is {temperature}; expected 0.0001 or more (0.01 is nearly greedy)")
        whole_number("length", length, least=0)
        generator = torch.Generator().manual_seed(whole_number("seed", seed, least=None))
        ids = torch.tensor([encode(DOCUMENT_START + to_bytes(prompt), self.config.vocabulary)], device="cpu")
        with evaluating(self):
            for _ in range(length):
                logits = self(ids[:, -self.config.context:])[0][0, -1].float().cpu()
                drawn = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
                ids = torch.cat([ids, drawn[None]], dim=1)
        return decode(ids[0].tolist())[len(DOCUMENT_START):].decode("utf-8", errors="replace")


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes; ValueError if that is the meta device, or if it is no model, or one without parameters."""
    check_model(model)
    require(any(True for _ in model.parameters()), f"a {type(model).__name__} has no parameters; expected a model with some")
    device = next(model.parameters()).device
    require(device.type != "meta", "the model is on the meta device, which has no values; build it on the CPU or a GPU")
    return device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Put a model into evaluation mode, and back into the mode it was in, whatever happens: yields the model's device."""
    device = device_of(model)
    was_training = model.training
    model.eval()
    try:
        yield device
    finally:
        model.train(was_training)


@contextmanager
def listening(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Write down what goes into some modules while they run: yields a list that grows by one tensor at every call."""
    heard: list[Tensor] = []
    hooks = [module.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0])) for module in modules]
    try:  # what torch.compile has made of a model does not call the hooks that came later
        with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
            yield heard
    finally:
        for hook in hooks:
            hook.remove()


def check_config(config: object) -> None:
    """Refuse what is no `ModelConfig`; most often it is the recipe alone."""
    require(isinstance(config, ModelConfig),
            f"config has type {type(config).__name__}; expected a ModelConfig, such as ModelConfig(ffn=Dense(192))")


def check_ids(ids: Tensor, config: ModelConfig) -> None:
    """Refuse token ids that the model can't take."""
    require(isinstance(ids, Tensor), f"token ids have type {type(ids).__name__}; expected a tensor of integers [B, S]; "
                                     "model.route(text) takes text")
    require(ids.ndim == 2 and not ids.is_floating_point() and ids.dtype != torch.bool,
            f"token ids have shape {tuple(ids.shape)} and dtype {ids.dtype}; expected integers [B sequences, S tokens]")
    require(ids.shape[1] <= config.context,
            f"a sequence of {ids.shape[1]} tokens is longer than the model's context of {config.context}; shorten it")
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():  # a GPU would be waited for
        require(0 <= int(ids.min()) and int(ids.max()) < config.vocabulary,
                f"token ids run from {ids.min()} to {ids.max()}; the vocabulary has 0 … {config.vocabulary - 1}")
