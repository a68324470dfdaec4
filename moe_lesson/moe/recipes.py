"""Recipes: what to put where a Transformer block has its FFN, and a budget that makes recipes comparable.

A comparison of two layers is worth nothing unless both have the same parameters in total and the same active per token.
`Budget` says how many hidden units a layer may have in total and use per token, and derives every recipe from that.
"""

from dataclasses import asdict, dataclass

from ..base.errors import require, whole_number
from .layers import DenseFFN, MoE, check_choice
from .pooled import PooledRouter, check_pool


@dataclass(frozen=True)
class Dense:
    """A dense FFN of `hidden` units: every token pays for all of them."""

    hidden: int

    def __post_init__(self):
        whole_number("hidden", self.hidden)

    def build(self, width: int) -> DenseFFN:
        """The layer, for model width `width`."""
        return DenseFFN(width, self.hidden)


@dataclass(frozen=True)
class Sparse:
    """A mixture of experts; the fields are the arguments of `MoE` and `Router`, where they are explained."""

    num_experts: int
    top_k: int
    expert_width: int
    num_shared: int = 0
    score: str = "softmax"
    renormalise: bool | None = None  # unless given, where top_k > 1; `replace` keeps what was decided
    scale: float = 1.0
    noisy: bool = False

    def __post_init__(self):
        check_choice(self.num_experts, self.top_k, self.score, self.renormalise, self.scale, self.noisy)
        whole_number("expert_width", self.expert_width)
        whole_number("num_shared", self.num_shared, least=0)
        if self.renormalise is None:
            object.__setattr__(self, "renormalise", self.top_k > 1)

    def build(self, width: int) -> MoE:
        """The layer, for model width `width`."""
        return MoE(width, **asdict(self))


@dataclass(frozen=True)
class Pooled(Sparse):
    """A mixture whose documents of `document` tokens share `pool` experts while it learns; see `PooledRouter`."""

    pool: int = 1
    document: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_pool(self.pool, self.document, self.num_experts, self.top_k)

    def build(self, width: int) -> MoE:
        """The layer, for model width `width`."""
        how = {name: value for name, value in asdict(self).items() if name not in ("expert_width", "num_shared")}
        layer = MoE(width, self.num_experts, self.top_k, self.expert_width, self.num_shared)
        layer.router = PooledRouter(width, **how)
        return layer


Recipe = Dense | Sparse
KINDS = {"dense": Dense, "sparse": Sparse, "pooled": Pooled}


def build(recipe: Recipe, width: int) -> DenseFFN | MoE:
    """The layer of a recipe, for model width `width`.

    Raises:
        ValueError: if the recipe is impossible, with the number that makes it so.
    """
    return checked(recipe).build(width)


def checked(recipe: Recipe) -> Recipe:
    """The recipe itself, or a ValueError for anything else."""
    require(isinstance(recipe, Recipe), f"recipe is {recipe!r}; expected Dense(hidden=…) or Sparse(num_experts=…, top_k=…, "
                                        "expert_width=…)")
    return recipe


def to_dict(recipe: Recipe) -> dict:
    """A recipe as plain values, for a file."""
    return {"kind": next(kind for kind, one in KINDS.items() if type(recipe) is one)} | asdict(recipe)


def from_dict(values: dict) -> Recipe:
    """The recipe that `to_dict` wrote."""
    values = dict(values)
    kind = values.pop("kind", None)
    require(kind in KINDS, f"unknown kind of recipe {kind!r}; expected one of {', '.join(KINDS)}")
    return KINDS[kind](**values)


@dataclass(frozen=True)
class Budget:
    """Hidden units of one layer: `total` that exist, `active` that one token passes through.

    >>> Budget(active=192, total=1536).experts(top_k=2)
    Sparse(num_experts=16, top_k=2, expert_width=96, num_shared=0, score='softmax', renormalise=True, scale=1.0, noisy=False)
    """

    active: int
    total: int

    def __post_init__(self):
        whole_number("active", self.active)
        whole_number("total", self.total)
        require(self.active <= self.total,
                f"active = {self.active} and total = {self.total} hidden units; expected 1 ≤ active ≤ total")

    def experts(self, top_k: int, segments: int = 1, num_shared: int = 0, **router) -> Sparse:
        """The mixture of experts that spends the budget exactly.

        Args:
            top_k: experts per token before segmentation: 1 is Switch, 2 is GShard.
            segments: m, into how many pieces each of those experts is cut (arXiv 2401.06066, section 3.1).
            num_shared: Ks, how many of the pieces are always on; they count among the m·K active ones (section 3.2).
            router: further fields of `Sparse`.

        Raises:
            ValueError: if the widths do not divide, or nothing is left to route.
        """
        whole_number("top_k", top_k)
        whole_number("segments", segments)
        whole_number("num_shared", num_shared, least=0)
        active = top_k * segments  # experts, shared ones included
        require(self.active % active == 0,
                f"{self.active} active hidden units can't be cut into {top_k} × {segments} equal experts; "
                f"choose an active size that is a multiple of {active}")
        expert_width = self.active // active
        require(self.total % expert_width == 0,
                f"{self.total} hidden units in total can't be cut into experts of {expert_width}; choose a total size that is a "
                f"multiple of {expert_width}")
        require(num_shared < active,
                f"num_shared = {num_shared} of {active} active experts; at least one active expert must be routed")
        return Sparse(self.total // expert_width - num_shared, active - num_shared, expert_width, num_shared, **router)
