"""Rungs: what a comparison compares, each made out of a preset's sizes, and the presets."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from ..lm.ledger import dense_of_equal_active, dense_of_equal_total, experts_of_equal_active
from ..lm.model import ModelConfig
from ..measure.uneven import Arm
from ..moe.recipes import Budget, Dense, Pooled, Recipe, Sparse


@dataclass(frozen=True)
class Preset:
    """Sizes of an experiment: `cpu` for a laptop, `gpu` for one large GPU."""

    budget: Budget
    layers: int
    width: int
    heads: int
    context: int
    batch: int
    steps: int
    lrs: tuple[float, ...]
    scales: tuple[float, ...]
    strengths: tuple[float, ...] = (1.0,)
    tuning_seeds: int = 1
    bfloat16: bool = False
    evaluated: int = 50_000  # tokens that a model is judged on, of each domain of a text
    multiple: int = 1  # expert widths are multiples of this: 16 where a GPU multiplies in bfloat16
    finalists: int | None = None  # how many settings of a rung get all tuning seeds, the others one; all unless given


Rung = Callable[[Preset, float], ModelConfig]  # of a preset's sizes and a gate scale, which a plain dense model ignores


def model_of(preset: Preset, recipe: Recipe) -> ModelConfig:
    """A model of the preset's sizes with a recipe in every layer."""
    return ModelConfig(recipe, preset.layers, preset.width, preset.heads, preset.context)


def matched_layer(top_k: int, segments: int = 1, num_shared: int = 0, **router) -> Callable[[Preset, float], Sparse]:
    """A mixture that costs a token what GShard's two experts cut in four cost it, the router included."""
    return lambda preset, scale: experts_of_equal_active(fine(preset), preset.width, top_k, segments, num_shared,
                                                         preset.multiple, scale=scale, **router)


def matched(*cut: int, **router) -> Rung:
    """A model with a `matched_layer` in every block."""
    return lambda preset, scale: model_of(preset, matched_layer(*cut, **router)(preset, scale))


def fine(preset: Preset) -> Sparse:
    """What the rungs of the ladder are matched to: the preset's budget, each of GShard's two experts cut in four."""
    return preset.budget.experts(top_k=2, segments=4)


def gshard_times(factor: float) -> Rung:
    """GShard with experts `factor` times as wide (arXiv 2401.06066, section 4.3: GShard×1.5)."""
    def rung(preset: Preset, scale: float) -> ModelConfig:
        plain = matched_layer(2)(preset, scale)
        width = preset.multiple * round(factor * plain.expert_width / preset.multiple)
        return model_of(preset, replace(plain, expert_width=width))

    return rung


def gshard_of(num_experts: int) -> Rung:
    """GShard with fewer experts, each as much wider as its router is narrower: a token pays the same, to a unit."""
    def rung(preset: Preset, scale: float) -> ModelConfig:
        plain = matched_layer(2)(preset, scale)
        wider = preset.multiple * round((plain.num_experts - num_experts) / (3 * plain.top_k * preset.multiple))
        return model_of(preset, replace(plain, num_experts=num_experts, expert_width=plain.expert_width + wider))

    return rung


def half_active(preset: Preset, scale: float) -> ModelConfig:
    """Half of DeepSeekMoE's active experts: 3 of 63 and one shared (arXiv 2401.06066, section 4.5, figure 6)."""
    width = fine(preset).expert_width
    return model_of(preset, Budget(4 * width, preset.budget.total).experts(top_k=1, segments=4, num_shared=1, scale=scale))


def dense_of_total_size(preset: Preset, scale: float) -> ModelConfig:
    """A dense model with as many parameters as the fine-grained mixtures have in all: "Dense×16", the paper's bound."""
    return model_of(preset, dense_of_equal_total(fine(preset), preset.width))


def top_2_of(num_experts: int) -> Rung:
    """Two of `num_experts` experts for each token, at the preset's active size: the total grows with the experts alone."""
    def rung(preset: Preset, scale: float) -> ModelConfig:
        active = preset.budget.active
        return model_of(preset, Budget(active, active // 2 * num_experts).experts(top_k=2, scale=scale))

    return rung


def noisy(rung: Rung) -> Rung:
    """Another rung with trainable noise on the router's logits while training."""
    return lambda preset, scale: model_of(preset, replace(rung(preset, scale).recipes[0], noisy=True))


def fine_of(num_experts: int) -> Rung:
    """As many of the fine-grained experts, each as wide: a model that never had the others."""
    return lambda preset, scale: model_of(preset, replace(matched_layer(2, 4)(preset, scale), num_experts=num_experts))


def pooled(pool: int) -> Rung:
    """Fine-grained experts of which a document may use `pool` while the model learns (EMO, arXiv 2605.06663)."""
    return lambda preset, scale: model_of(preset, Pooled(**asdict(matched_layer(2, 4)(preset, scale)), pool=pool,
                                                         document=preset.context))


def dense_beside(rung: Rung) -> Rung:
    """The dense model with as many parameters as another rung activates, its router included."""
    return lambda preset, scale: model_of(preset, dense_of_equal_active(rung(preset, scale).recipes[0], preset.width))


def gated(dense: Callable[[Preset, float], Dense]) -> Callable[[Preset, float], Sparse]:
    """A dense layer with a gate scale, which mixtures can choose and a dense FFN does not have: one expert, and its weight is the
    scale. A unit less, or the preset's multiple: the router has a column."""
    def recipe(preset: Preset, scale: float) -> Sparse:
        units = (dense(preset, scale).hidden - 1) // preset.multiple
        return Sparse(1, 1, units * preset.multiple, scale=scale)

    return recipe


def quiet(rung: Rung) -> Rung:
    """A dense rung with a gate scale; see `gated`."""
    return lambda preset, scale: model_of(preset, gated(lambda *sizes: rung(*sizes).recipes[0])(preset, scale))


def dense_of_width(width: int) -> Rung:
    """A dense model of another width, all its sizes in proportion; the heads keep about 16 channels."""
    return lambda preset, scale: ModelConfig(Dense(3 * width), preset.layers, width, max(1, width // 16), preset.context)


def layer(recipe_of: Callable[[Budget], Recipe]) -> Callable[[Preset, float], Recipe]:
    """A rung of a skills world: a layer by itself, out of the preset's budget."""
    return lambda preset, scale: recipe_of(preset.budget)


def arm(small: int, large: int, permuted: bool = False, **how) -> Callable[[Preset, float], Arm]:
    """The preset's total in experts of two sizes, small ones first, or in turns: then sizes and skills have nothing to do with
    each other. `how`: fields of `Arm`."""
    def rung(preset: Preset, scale: float) -> Arm:
        half = round(preset.budget.total / (small + large))
        return Arm((small, large) * half if permuted else (small,) * half + (large,) * half, **how)

    return rung


def equal_arm(size: int, **how) -> Callable[[Preset, float], Arm]:
    """As many experts of one size as come nearest to the preset's total."""
    return lambda preset, scale: Arm((size,) * round(preset.budget.total / size), **how)


def with_nulls(preset: Preset, scale: float) -> Arm:
    """As many experts that cost and do nothing as real ones, and twice the K: half of a token's choices are real."""
    sizes = equal_arm(16)(preset, scale).sizes
    return Arm(sizes + (0,) * len(sizes), top_k=4)


TEXT_CPU = Preset(Budget(192, 1536), layers=2, width=64, heads=4, context=256, batch=8, steps=1500,
                  lrs=(4e-3, 8e-3, 1.6e-2), scales=(1.0,))
LADDER_CPU = replace(TEXT_CPU, steps=3000, lrs=(4e-3, 8e-3, 1.6e-2), scales=(1.0, 4.0), tuning_seeds=3, finalists=2)
# What 25 minutes on one large card have time for: tools/gpu_tables.py adds it up.
LADDER_GPU = Preset(Budget(512, 4096), layers=4, width=256, heads=4, context=256, batch=32, steps=1800,
                    lrs=(1e-3, 2e-3, 4e-3), scales=(1.0,), bfloat16=True, multiple=16)
BALANCED_GPU = replace(LADDER_GPU, lrs=(1e-3, 4e-3), strengths=(1.0, 3.0))
SKILLS_CPU = Preset(Budget(32, 256), layers=1, width=32, heads=1, context=1, batch=1024, steps=1500,
                    lrs=(1e-2, 3e-2, 1e-1, 3e-1), scales=(1.0,), evaluated=8000)
FACTS_CPU = Preset(Budget(128, 512), layers=1, width=32, heads=1, context=1, batch=2048, steps=900,
                   lrs=(1e-2, 2e-2, 4e-2), scales=(6.0, 12.0, 24.0), tuning_seeds=3, evaluated=4000)
UNEVEN_CPU = Preset(Budget(32, 128), layers=1, width=16, heads=1, context=1, batch=256, steps=500,
                    lrs=(2e-2, 4e-2, 8e-2), scales=(1.0,), tuning_seeds=3, evaluated=8000)


def segmented(*cut: int) -> Callable[[Budget], Recipe]:
    """The layer of a skills world that costs a token what the budget's 8 pieces cost it; `cut`: top_k, segments, num_shared."""
    return lambda budget: experts_of_equal_active(budget.experts(top_k=2, segments=4), SKILLS_CPU.width, *cut)
