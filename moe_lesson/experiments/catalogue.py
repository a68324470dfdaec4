"""The experiments: the question of each, its rungs, sizes, seeds, and what is done to its trained models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..lm.corpora import Corpus
from ..lm.ledger import dense_of_equal_active, dense_of_equal_total
from ..lm.model import ModelConfig
from ..lm.training import DEFAULT_BALANCE
from ..measure.uneven import CHOICES, Arm
from ..measure.uneven_claims import CURVE, EQUAL_SKILLS, ORACLE, PERMUTED, PRICED, RATIOS
from ..moe.recipes import Budget, Dense, Recipe
from .rungs import (
    BALANCED_GPU,
    FACTS_CPU,
    LADDER_CPU,
    LADDER_GPU,
    SKILLS_CPU,
    TEXT_CPU,
    UNEVEN_CPU,
    Preset,
    arm,
    dense_beside,
    dense_of_total_size,
    dense_of_width,
    equal_arm,
    fine_of,
    gated,
    gshard_of,
    gshard_times,
    half_active,
    layer,
    matched,
    matched_layer,
    noisy,
    pooled,
    quiet,
    segmented,
    top_2_of,
    with_nulls,
)
from .tasks import WORLDS, Task, TextTask


@dataclass(frozen=True)
class Experiment:
    """A question put to several rungs.

    Args:
        question: what the experiment answers, one sentence.
        rungs: name -> (preset, gate scale) -> sizes of the model, in a skills world the recipe of the layer; plain
            dense rungs ignore the scale.
        presets: "cpu" sizes, and "gpu" sizes where there are some.
        ships: rung -> name of the checkpoint that its seed 0 becomes.
        seeds: how many fresh seeds are reported unless the command says otherwise.
        balance: rung -> how its experts are kept balanced, at the published strength; DeepSeekMoE's loss unless named here.
        loads: write the load of every expert along training, too.
        worlds: train in a world, a new one for each seed: rung -> what is changed in it; None trains on text.
        learns: in which of `WORLDS`, if in one.
        controls: rung -> the rung whose tuned settings it takes, untuned itself: as a control, which differs from it in one thing
            alone, or to be described and never tested (`DESCRIBED`).
        widens: try further learning rates and gate scales for every rung that is best at the end of those it tried.
        fewer_seeds: rung -> how many of the fresh seeds it gets, where not all.
        baselines: write what count models lose on the same text, too, and how much of it the train text has word for word.
        contrasts: what is to be shown, named before the first reported run: (figure, a rung, the rung it is compared with).
        margin: differences smaller than this do not matter: where the interval lies within it, two rungs are alike.
        changed: rungs whose reported models are changed and judged again, see `changes_of`.
        census: rungs whose reported models' routing is counted, see `census_of`.
        ablated: rungs whose reported models lose experts, see `ablations_of`.
        read_again: rungs whose reported models read the test text once more, without what train repeats; see `texts_of`.
        kept: shares of the experts that reported models are judged with, too, see `kept.rises`.
        follow: every how many steps a reported training is judged by domain, and the routing of seed 0 is kept; 0 is never.
    """

    question: str
    rungs: dict[str, Callable[[Preset, float], ModelConfig | Recipe | Arm]]
    presets: dict[str, Preset]
    ships: dict[str, str] = field(default_factory=dict)
    seeds: int = 3
    balance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    loads: bool = False
    worlds: Mapping[str, Mapping[str, int]] | None = None
    learns: str = "skills world"
    controls: Mapping[str, str] = field(default_factory=dict)
    widens: bool = False
    fewer_seeds: Mapping[str, int] = field(default_factory=dict)
    baselines: bool = False
    contrasts: tuple[tuple[str, str, str], ...] = ()
    margin: float = 0.0
    changed: tuple[str, ...] = ()
    census: tuple[str, ...] = ()
    ablated: tuple[str, ...] = ()
    read_again: tuple[str, ...] = ()
    kept: tuple[float, ...] = ()
    follow: int = 0

    def balance_of(self, rung: str, strength: float | None = None) -> dict[str, float]:
        """The balancing of a rung: its published strengths times `strength`."""
        return {method: value * (strength or 1.0) for method, value in self.balance.get(rung, DEFAULT_BALANCE).items()}

    def task(self, preset: Preset, rung: str, seed: int, corpus: Corpus | None) -> Task:
        """What a run is trained on and judged by."""
        if self.worlds is None:
            return TextTask(corpus, preset.evaluated, self.kept)
        return WORLDS[self.learns](seed, preset.evaluated, self.worlds.get(rung, {}))


SKILLS_EXPERTS: dict[str, Callable[[Budget], Recipe]] = {
    "1 of 8": lambda budget: budget.experts(top_k=1, renormalise=False),  # renormalised, it would be 1 and teach nothing
    "2 of 16": lambda budget: budget.experts(top_k=2),
    "4 of 32": lambda budget: budget.experts(top_k=4),
}
NOTHING_SHARED = ", nothing shared"  # the control of all that is said about the shared function
OTHER_BALANCING = {"unbalanced": {}, "balanced per sequence": {"sequence": 0.01}, "balanced by bias": {"bias": 1e-3}}
SEGMENTED = {f"cut in {m}": segmented(2, m) for m in (1, 2, 4, 8)} | {
    f"{shared} shared": segmented(2, 4, shared) for shared in (1, 2, 4)}
CUTS = ("cut in 1", "cut in 2", "cut in 4", "cut in 8")
FACTS = {"dense": lambda preset, scale: dense_of_equal_active(matched_layer(2)(preset, scale), preset.width),
         "dense of total size": lambda preset, scale: dense_of_equal_total(matched_layer(2)(preset, scale), preset.width),
         "switch": matched_layer(1, renormalise=False), "gshard": matched_layer(2)} | {
    f"cut in {m}": matched_layer(2, m) for m in (2, 4, 8)} | {f"{n} shared": matched_layer(2, 4, n) for n in (1, 2, 4)}
FEWER_FACTS, NO_SKILL = ", fewer facts", ", no skill"
REMEMBERING = ("dense", "dense of total size", "switch", "gshard", "cut in 4", "2 shared")  # they meet fewer facts, too
SKILLED = ("gshard", "cut in 4", "2 shared")  # they have a control
SHARING = ("cut in 4", "1 shared", "2 shared", "4 shared")  # none, one, two and four of the pieces
SIZED = {"equal": equal_arm(16), "equal" + ORACLE: equal_arm(16, choice="oracle"), "fine": equal_arm(4, top_k=8)} | {
    ratio + way: arm(*sizes, **how) for ratio, sizes in RATIOS.items()
    for way, how in (("", {}), (PRICED, {"penalty": 0.03, "balanced": False}), (ORACLE, {"choice": "oracle"}))
} | {rung: equal_arm(size) for rung, size in CURVE.items() if rung != "equal"}
PERMUTED_SIZES = {ratio + PERMUTED: arm(*sizes, permuted=True, choice="oracle") for ratio, sizes in RATIOS.items()}

# Rungs of the ladder that are not tuned: what they show is described, never tested. Each takes its neighbour's settings.
DESCRIBED = dict.fromkeys(("dense, quiet", "gshard ×1.5", "2 of 4", "2 of 8"), "gshard") | dict.fromkeys(
    ("dense of total size, quiet", "half active", "1 shared", "4 shared",
     *(f"deepseekmoe, {balancing}" for balancing in OTHER_BALANCING)), "deepseekmoe")

EVENING = ("importance + load", "loss per sequence", "loss per batch", "bias")  # what is to keep the load even

EXPERIMENTS = {
    "scaling": Experiment(
        question="How does the loss of a dense model fall with its size, at the same number of training tokens?",
        rungs={f"width {width}": dense_of_width(width) for width in (12, 16, 24, 32, 48, 64, 96)},
        # small models learn best at large rates
        presets={"cpu": replace(TEXT_CPU, lrs=(8e-3, 1.6e-2, 3.2e-2), tuning_seeds=3, finalists=2)},
        widens=True,
    ),
    "balance": Experiment(
        question="What keeps the load of 16 experts even, and what does it cost in loss?",
        rungs={"none": top_2_of(16), "noise": noisy(top_2_of(16)), "z-loss": top_2_of(16),
               "importance + load": noisy(top_2_of(16)), "loss per sequence": top_2_of(16), "loss per batch": top_2_of(16),
               "bias": top_2_of(16)},
        balance={"none": {}, "noise": {}, "z-loss": {"z": 1e-3}, "importance + load": {"importance": 0.1, "load": 0.1},
                 "loss per sequence": {"sequence": 0.01}, "loss per batch": {"batch": 0.01}, "bias": {"bias": 1e-3}},
        presets={"cpu": replace(TEXT_CPU, steps=500, strengths=(1.0, 3.0, 10.0), tuning_seeds=3, finalists=2),
                 "gpu": BALANCED_GPU},
        seeds=5,
        widens=True,
        contrasts=tuple(("test", way, "none") for way in ("noise", *EVENING))
        + tuple(("max_violation", "none", way) for way in EVENING),
        margin=0.02,
        loads=True,
    ),
    "skills": Experiment(
        question="Where the truth is known: how many skills does an expert serve, and how much common knowledge does it repeat?",
        rungs={"dense": layer(lambda budget: dense_of_equal_active(budget.experts(top_k=4), SKILLS_CPU.width)),
               "dense of total size": layer(lambda budget: Dense(budget.total))}
        | {name + alone: layer(recipe_of) for alone in ("", NOTHING_SHARED) for name, recipe_of in SKILLS_EXPERTS.items()},
        presets={"cpu": SKILLS_CPU},
        seeds=5,
        worlds={name + NOTHING_SHARED: {"shared_units": 0} for name in SKILLS_EXPERTS},
        controls={name + NOTHING_SHARED: name for name in SKILLS_EXPERTS},
    ),
    "pieces": Experiment(
        question="Where the truth is known: into how many pieces should experts be cut, and how many of the pieces be shared?",
        rungs={"dense": layer(lambda budget: dense_of_equal_active(segmented(2, 8)(budget), SKILLS_CPU.width)),
               "dense of total size": layer(lambda budget: dense_of_equal_total(segmented(2, 1)(budget), SKILLS_CPU.width))}
        | {name + alone: layer(recipe_of) for alone in ("", NOTHING_SHARED) for name, recipe_of in SEGMENTED.items()
           if not alone or name in SHARING},
        presets={"cpu": replace(SKILLS_CPU, budget=Budget(64, 512), steps=800, lrs=(1e-2, 3e-2, 1e-1),
                                evaluated=4000)},
        seeds=5,
        worlds={name + NOTHING_SHARED: {"shared_units": 0} for name in SHARING},
        controls={name + NOTHING_SHARED: name for name in SHARING},
    ),
    "crowded": Experiment(
        question="Where there are four times as many skills as experts: does cutting the experts help, and make them purer?",
        rungs={"dense": layer(lambda budget: dense_of_equal_active(segmented(2, 8)(budget), SKILLS_CPU.width))}
        | {name: layer(SEGMENTED[name]) for name in CUTS},
        presets={"cpu": replace(SKILLS_CPU, budget=Budget(64, 512), steps=800, lrs=(1e-2, 3e-2, 1e-1), tuning_seeds=3,
                                evaluated=4000)},
        seeds=8,
        worlds={name: {"num_skills": 64, "per_token": 4} for name in ("dense", *CUTS)},
        widens=True,
        contrasts=(("test", "cut in 1", "cut in 2"), ("test", "cut in 1", "cut in 4"), ("test", "cut in 4", "cut in 8"),
                   ("hybridity", "cut in 1", "cut in 4")),
    ),
    "facts": Experiment(
        question="When each token pays the same: which layer remembers most, and where does it keep facts and the common skill?",
        rungs=FACTS | {rung + FEWER_FACTS: FACTS[rung] for rung in REMEMBERING}
        | {rung + NO_SKILL: FACTS[rung] for rung in SKILLED},
        presets={"cpu": FACTS_CPU},
        seeds=8,
        worlds={rung + FEWER_FACTS: {"per_topic": 256} for rung in REMEMBERING}
        | {rung + NO_SKILL: {"per_topic": 640, "common_units": 0} for rung in SKILLED},  # so many that no layer holds them all
        learns="world of facts",
        controls={rung + FEWER_FACTS: rung for rung in REMEMBERING if rung != "dense"}
        | {rung + NO_SKILL: rung for rung in SKILLED},
        widens=True,
        contrasts=(("recall", "2 shared", "gshard"), ("recall", "2 shared", "cut in 4"), ("common", "2 shared", "gshard"),
                   ("common", "2 shared", "cut in 4"), ("recall", "cut in 4", "gshard"),
                   ("recall", "gshard" + FEWER_FACTS, "dense" + FEWER_FACTS),
                   ("recall", "2 shared" + NO_SKILL, "cut in 4" + NO_SKILL)),
    ),
    "loud": Experiment(  # of "facts": its mixtures chose gate scales of 3 to 96, its dense layers had none to choose
        question="Does a dense layer remember more if it, too, may choose how loud it starts?",
        rungs={rung: gated(FACTS[rung.removesuffix(FEWER_FACTS)])
               for rung in ("dense", "dense of total size", "dense" + FEWER_FACTS)},
        # around what suits them, the plain layers' learning rates and scales on both sides of theirs, which is 1: a first grid
        # began at the mixtures' 6 to 24, and never tried a small scale at a high rate
        presets={"cpu": replace(FACTS_CPU, lrs=(2e-2, 4e-2, 8e-2), scales=(0.25, 0.5, 1.0, 2.0, 4.0))},
        seeds=8,
        worlds={"dense": {}, "dense of total size": {}, "dense" + FEWER_FACTS: {"per_topic": 256}},
        learns="world of facts",
        widens=True,
    ),
    "uneven": Experiment(
        question="At equal cost: are experts of unequal size worth more where skills are of unequal complexity?",
        rungs=SIZED | PERMUTED_SIZES | {rung + EQUAL_SKILLS: config_of for rung, config_of in SIZED.items()},
        presets={"cpu": UNEVEN_CPU},
        seeds=5,
        worlds={rung: {"easy_units": 2, "hard_units": 14} for rung in SIZED | PERMUTED_SIZES},
        learns="uneven world",
        widens=True,
        controls={rung + EQUAL_SKILLS: rung for rung in SIZED} | {
            ratio + PERMUTED: ratio + ORACLE for ratio in RATIOS},
    ),
    "varying": Experiment(
        question="At an equal mean cost: is it worth anything if tokens of one, two and three skills may take as many experts?",
        rungs={choice: equal_arm(16, choice=choice) for choice in CHOICES} | {"null experts": with_nulls}
        | {f"top-{k}": equal_arm(16, top_k=k) for k in (1, 3)},
        presets={"cpu": UNEVEN_CPU},
        seeds=5,
        worlds={rung: {"varying": True} for rung in (*CHOICES, "null experts", "top-1", "top-3")},
        learns="uneven world",
        widens=True,
    ),
    "pool": Experiment(
        question="If a document's tokens share a pool of experts while a model learns: can a domain do with a few of them?",
        rungs={"fine": matched(2, 4), "pooled": pooled(16)},
        presets={"cpu": replace(TEXT_CPU, tuning_seeds=3, finalists=2)},
        seeds=5,
        widens=True,
        # What the pool costs, and what it gives where a quarter and an eighth are kept; all else is a description.
        contrasts=(("test", "pooled", "fine"), ("own_0.25", "fine", "pooled"), ("own_0.125", "fine", "pooled")),
        margin=0.01,
        census=("fine", "pooled"),
        kept=(0.25, 0.125),
    ),
    # Of pool: there every kind of text keeps 16 of the pooled model's 64 experts. Declared: this rung's test loss beside that of
    # "pooled" with its own quarter (test + own_0.25), Welch, 95%, alike within the margin. The same text, grid and rule.
    "few": Experiment(
        question="A quarter of a pooled model's experts, or a model that never had more: which is better?",
        rungs={"16 experts": fine_of(16)},
        presets={"cpu": replace(TEXT_CPU, tuning_seeds=3, finalists=2)},
        seeds=5,
        widens=True,
        margin=0.01,
    ),
    "ladder": Experiment(
        question="When each token pays the same: does DeepSeekMoE predict text better than GShard, Switch and a dense model?",
        rungs={"dense": dense_beside(matched(2)), "switch": matched(1, renormalise=False), "gshard": matched(2),
               "fine": matched(2, 4), "deepseekmoe": matched(2, 4, num_shared=2), "dense of total size": dense_of_total_size,
               "dense, quiet": quiet(dense_beside(matched(2))), "dense of total size, quiet": quiet(dense_of_total_size),
               "gshard ×1.5": gshard_times(1.5), "half active": half_active, "2 of 4": gshard_of(4), "2 of 8": gshard_of(8),
               "1 shared": matched(2, 4, num_shared=1), "4 shared": matched(2, 4, num_shared=4)}
        | {f"deepseekmoe, {balancing}": matched(2, 4, num_shared=2) for balancing in OTHER_BALANCING},
        presets={"cpu": LADDER_CPU, "gpu": LADDER_GPU},
        ships={rung: f"ladder-{rung}" for rung in ("dense", "gshard", "fine", "deepseekmoe")},  # those that the lessons open
        seeds=10,
        fewer_seeds=dict.fromkeys(DESCRIBED, 3),
        balance={f"deepseekmoe, {balancing}": losses for balancing, losses in OTHER_BALANCING.items()},
        controls=DESCRIBED,
        widens=True,
        # Welch, Holm over the four, 95%; see `judged`. All else that the tables show is a description.
        contrasts=(("test", "gshard", "deepseekmoe"), ("test", "dense of total size", "deepseekmoe"),
                   ("test", "switch", "gshard"), ("test", "dense", "gshard")),
        margin=0.01,
        baselines=True,
        changed=("gshard", "gshard ×1.5", "fine", "1 shared", "deepseekmoe", "4 shared"),
        census=("gshard", "fine", "deepseekmoe", *(f"deepseekmoe, {balancing}" for balancing in OTHER_BALANCING)),
        ablated=("gshard", "fine", "deepseekmoe"),
        read_again=("dense", "switch", "gshard", "fine", "deepseekmoe", "dense of total size"),
        follow=250,
    ),
    # Of the ladder: its mixtures chose a gate scale, its dense model had none to choose. Declared: this rung beside the ladder's
    # "gshard", test loss, Welch, 95%, alike within the margin. The same grid and the same rule as for the mixtures.
    "quiet": Experiment(
        question="How far behind a mixture is a dense model of equal cost if it, too, may choose how loud it starts?",
        rungs={"dense": quiet(dense_beside(matched(2)))},
        presets={"cpu": LADDER_CPU},
        seeds=10,
        widens=True,
        margin=0.01,
    ),
    # Of the ladder: in the paper a dense model of total size is DeepSeekMoE's upper bound; the ladder's has no gate scale to
    # choose. Declared: this rung beside the ladder's "deepseekmoe", test loss, Welch, 95%, alike within the margin. Tuned
    # less than the mixtures: by one seed, on gate scales that begin where the dense model of "quiet" chose.
    "bound": Experiment(
        question="Does a mixture reach a dense model of its total size if that, too, may choose how loud it starts?",
        rungs={"dense of total size": quiet(dense_of_total_size)},
        presets={"cpu": replace(LADDER_CPU, scales=(1 / 16, 1 / 4), tuning_seeds=1, finalists=None)},
        seeds=7,
        widens=True,
        margin=0.01,
    ),
    "longer": Experiment(  # the ladder's first contrast: there DeepSeekMoE began behind and came closer to the last step
        question="Does DeepSeekMoE get ahead of GShard if both are trained twice as long?",
        rungs={"gshard": matched(2), "deepseekmoe": matched(2, 4, num_shared=2)},
        presets={"cpu": replace(LADDER_CPU, steps=6000, lrs=(2e-3, 4e-3, 8e-3), scales=(1 / 16,),  # both chose 1/16 there
                                tuning_seeds=1, finalists=None)},
        seeds=7,
        widens=True,
        contrasts=(("test", "gshard", "deepseekmoe"),),  # Welch, 95%
        margin=0.01,
        follow=500,
    ),
}
