"""Every widget of the course, one entry each: test_every_widget_browser.py asks of all of them what it asks of one.

To add a widget, add an `Entry` to WIDGETS under the name of its class. All data is synthetic (the cases.py make it):

    "MyView": Entry(
        lambda: view_of(),                              # an example of ordinary size, with every control that there can be
        states=({"k": 5}, {"layer": 1, "token": 3}),    # traits far from the first: each control works in one of them
        held={"k slider": ("input[aria-label='K']", "ArrowRight")},     # what draws it again while the key is held down
        hostile=Example(lambda: view_of(HOSTILE, title="<b>bold</b>"))),

The rest of an `Entry` has defaults. Then write into the widget's own browser tests only what no other widget has.

The form of `lesson.predict` is no entry: it shows no data, so it has no title, badge, summary or Reset to ask for. What of the
contract applies to it, question/test_question.py asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import ablation_view.cases as ablation_cases
import balancing_race.cases as race_cases
import capacity_view.cases as capacity_cases
import contribution_view.cases as contribution_cases
import cost_explorer.cases as cost_cases
import expert_explorer.cases as explorer_cases
import fact_finder.cases as fact_cases
import ladder_explorer.cases as ladder_cases
import quiz.cases as quiz_cases
import redundancy_lens.cases as lens_cases
import router_game.cases as game_cases
import router_zoo.cases as zoo_cases
import segmentation_view.cases as segmentation_cases
import specialisation_view.cases as specialisation_cases
import token_way.cases as way_cases
from router_microscope.cases import scope_of, scope_of_model
from routing_map.cases import map_of
from routings import HOSTILE, LONG_NAMES, logits_of, routing_of
from widget_harness import made

from moe_lesson import ModelConfig, Sparse
from moe_lesson.lm.ledger import PUBLISHED
from moe_lesson.lm.model import LanguageModel
from moe_lesson.widgets import LedgerView, Quiz, RoutingMap, SegmentationView
from moe_lesson.widgets.contribution_view.data import BY_SHARE
from moe_lesson.widgets.kit.base import LessonWidget

PAIRS = tuple({"locked_token": token, "locked_expert": 1} for token in range(len(HOSTILE)))
TOKENS = tuple({"locked_token": token} for token in range(len(HOSTILE)))
MARKUP = ("<img src=x onerror='window.hacked = 1'>", "</style><b>bold</b>", "$x^2$")
WORDS = " ".join(MARKUP)


@dataclass(frozen=True, eq=False)
class Example:
    """How to make a widget, and states to put it in: traits, set one after the other as a learner would."""

    make: Callable[[], LessonWidget]
    states: tuple[dict, ...] = ()

    @cached_property
    def widgets(self) -> list[LessonWidget]:
        """The widget as it is, then in each of its states, to read and not to change: many tests show the same ones."""
        return [made(self.make(), **state) for state in ({}, *self.states)]


@dataclass(frozen=True, eq=False)
class Entry(Example):
    """A widget for the tests that all share.

    Args:
        held: name -> (selector, key) of what draws it again; at the end of its way the key is turned around.
        refuses: (trait, value) that no control gives, each.
        hostile: with words that are markup, wherever the widget takes words.
        tokens: a selector of the elements that show the hostile example's `tokens`, one each.
        sizes: name -> an example that must fit every width too: the smallest, the largest.
        projected: name -> an example, in the largest of the course, that must fit a projector without scrolling.
        steady: the narrowest window in which no control moves under the hand.
        large: as large as a lesson makes it, for the times; unless given, `types`, or the first one.
        types: how to make one whose text is typed, as large as a lesson makes it, for the times.
        along: traits that a slider may send though they stay as they are.
        follows: a selector of what grows and shrinks with the window.
        opened: what JavaScript does to a view while it is open, before it is closed again.
    """

    held: dict[str, tuple[str, str]] = field(default_factory=dict)
    refuses: tuple[tuple[str, object], ...] = ()
    hostile: Example | None = None
    tokens: str = ""
    sizes: dict[str, Example] = field(default_factory=dict)
    projected: dict[str, Example] = field(default_factory=dict)
    steady: int = 500
    large: Callable[[], LessonWidget] | None = None
    types: Callable[[], LessonWidget] | None = None
    along: tuple[str, ...] = ()
    follows: str = ".moe-root canvas, .moe-chart svg"
    opened: str = ""


def slider(name: str, key: str = "ArrowRight") -> tuple[str, str]:
    return f"input[aria-label='{name}']", key


CURSOR = ("[role=application]", "ArrowRight")
RADIOS = ("input[type=radio]:checked >> nth=0", "ArrowRight")
LONG = "what does a layer do with these tokens, and who is dropped?"

NOISY = {"noise": 1.0, "k": 5, "draw": 31, "temperature": 0.5, "locked_expert": 3}
EARLY = {"step": 7, "layer": 0, "seed": 2, "method": "importance + load", "by_load": True}
TIGHT = {"factor": 0.5, "by": "weight", "batch": "shuffled", "shuffle": 3, "layer": 1, "locked_token": 7}
BY_ROUTED = {"layer": 1, "order": BY_SHARE, "locked_token": 7}
OTHER_RUNG = {"rung": "dense of total size", "beside": "switch", "seed": 3, "axis": "seconds", "domain": "maths"}
MANY_DEVICES = {"view": "several devices", "num_devices": 8, "imbalance": 3.0, "limit": 2, "fused": True}
MERGED = {"kind": "co-routing", "merges": 9, "order": "by group", "pair": [3, 12]}
FULLEST = {"world": "skills world", "segments": 8, "num_shared": 2}
REFUSED = {"world": "text", "segments": 1, "num_shared": 4}

MANY_METHODS = {"methods": (*race_cases.METHODS, "an eighth way"), "experts": 64, "layers": 6}
ONE_METHOD = {"methods": ("one",), "seeds": 1, "steps": (0,), "layers": 1, "experts": 1}
MANY_RUNGS = {"names": ("deepseekmoe", "gshard", "a name with many words", "another one", *"abcdef"), "seeds": 9}
TWO_RUNGS = {"names": ("deepseekmoe", "gshard"), "seeds": 1, "steps": (7,), "domains": ("a",)}


# --- the routing map, which runs the model in the browser ------------------------------------------------------------------


def map_of_a_model(text: str = "hello world", **sizes) -> RoutingMap:
    """The routing of an untrained model, of the ladder's sizes unless others are given."""
    config = ModelConfig(**{"ffn": Sparse(62, 6, 24, num_shared=2), "context": 256, **sizes})
    return RoutingMap.of_model(LanguageModel(config), text, origin="toy")


def small_map(**more) -> RoutingMap:
    return map_of_a_model(ffn=Sparse(12, 3, 4, num_shared=2), width=16, heads=2, **more)


ROUTING_MAP = Entry(
    small_map,
    ({"k": 5, "locked_expert": 2, "locked_token": 1},
     {"layer": 1, "router": "null", "k": 7, "locked_token": 2, "locked_expert": 1}, {"text": ""}, {"text": "x" * 241}),
    held={"k slider": slider("K, experts per token"), "cursor": ("[role=application]", "ArrowDown")},
    refuses=(("layer", 2), ("layer", -1), ("k", 0), ("k", 13), ("router", "best"), ("locked_token", 21), ("locked_expert", 12),
             ("locked_expert", -1)),
    hostile=Example(lambda: map_of(HOSTILE, title=WORDS), PAIRS), tokens=".moe-strip .moe-token",
    sizes={f"{experts} experts": Example(partial(map_of, 61, experts, k, title=LONG))
           for experts, k in ((1, 1), (12, 3), (62, 6))} | {"long names": Example(partial(map_of, LONG_NAMES * 5, 62, 6))},
    projected={"62 experts": Example(partial(map_of, 61, 62, 6, num_shared=2)),
               "long names": Example(partial(map_of, LONG_NAMES * 5, 62, 6, num_shared=2))}, steady=700,
    large=lambda: RoutingMap([routing_of(logits_of(240, 64, seed), 6) for seed in (0, 1)], origin="synthetic"),
    along=("k", "locked_expert"),  # they belong to a layer
    types=partial(map_of_a_model, "the moon and the sea, " * 11, vocabulary=256))  # a token a letter: a full context

# --- widgets that compute in the browser alone, some of them a model too ---------------------------------------------------

FULL = "the moon and the sea, " * 11  # of a model without merges a full context
OTHER_TEXTS = ({"text": ""}, {"text": "x" * 241})

ROUTER_MICROSCOPE = Entry(
    scope_of_model, (NOISY, {**NOISY, "token": 9, "order": "top-k, softmax", "by_logit": True}, *OTHER_TEXTS),
    held={"token slider": slider("Token"), "k slider": slider("K, experts per token"), "cursor": CURSOR},
    refuses=(("token", 21), ("token", -1), ("k", 0), ("k", 13), ("temperature", 0.0), ("temperature", math.nan),
             ("temperature", 11.0), ("noise", -0.1), ("noise", 99.0), ("draw", 0), ("draw", 101), ("locked_expert", 12),
             ("order", "top-k")),
    hostile=Example(lambda: scope_of(HOSTILE, title=WORDS), tuple({"token": token} for token in range(len(HOSTILE)))),
    sizes={f"{experts} experts": Example(partial(scope_of, 61, experts, 1, title=LONG),
                                         ({**NOISY, "k": experts, "locked_expert": 0},)) for experts in (1, 12, 64)},
    projected={f"{tokens} tokens": Example(partial(scope_of, tokens, 62, 6), (NOISY,)) for tokens in (61, 240)}
    | {"a model's": Example(partial(scope_of_model, FULL, vocabulary=256, experts=62, k=6), (NOISY, *OTHER_TEXTS))},
    large=lambda: made(scope_of(240, 64, 6), noise=1.5),
    types=partial(scope_of_model, FULL, vocabulary=256, experts=62, k=6, width=64))

ABLATION_VIEW = Entry(
    ablation_cases.view_of, ({"rung": "gshard", "domain": "maths", "share": 0.25}, {"domain": "cpp", "share": 0.0625}),
    held={"share slider": slider("share of the experts"), "model": RADIOS},
    refuses=(("rung", "dense"), ("domain", "rust"), ("share", 0.2)),
    hostile=Example(lambda: ablation_cases.view_of(rungs=MARKUP, domains=MARKUP, title=WORDS), ({"domain": MARKUP[1]},)),
    sizes={"one model": Example(
        partial(ablation_cases.view_of, rungs=("gshard",), domains=("a", "b"), shares=(0.125,), title=LONG)),
           "many": Example(partial(ablation_cases.view_of, rungs=("gshard", "a model with a long name", *"abcdef"), seeds=9,
                                   domains=("python", "a domain with a long name", *"abcdef")), ({"domain": "f", "rung": "f"},))},
    follows="svg")

BALANCING_RACE = Entry(
    race_cases.race_of, (EARLY,),
    held={"step slider": slider("Step", "ArrowLeft"), "methods": RADIOS},
    refuses=(("step", 21), ("step", -1), ("step", 500), ("layer", 2), ("layer", -1), ("seed", 3), ("method", "luck")),
    hostile=Example(lambda: race_cases.race_of(methods=MARKUP)),
    sizes={"one of each": Example(partial(race_cases.race_of, **ONE_METHOD), ({"by_load": True},)),
           "many": Example(partial(race_cases.race_of, **MANY_METHODS),
                           ({"step": 0, "by_load": True, "method": "an eighth way"},))},
    large=partial(race_cases.race_of, seeds=5),
    opened='document.querySelector(".moe-row button").click();')  # it plays

CAPACITY_VIEW = Entry(
    capacity_cases.view_of_model,
    (TIGHT, {**TIGHT, "batch": "reversed", "by": "order", "factor": 0.25}, {"factor": None}, *OTHER_TEXTS),
    held={"factor slider": slider("capacity factor"), "shuffle slider": slider("which shuffle"), "cursor": CURSOR},
    refuses=(("layer", 2), ("layer", -1), ("factor", 0.3), ("factor", -1.0), ("factor", math.nan), ("by", "luck"),
             ("batch", "sorted"), ("shuffle", 0), ("shuffle", 21), ("locked_token", 21), ("locked_token", -1)),
    hostile=Example(lambda: capacity_cases.view_of(HOSTILE, title=WORDS), TOKENS), tokens=".moe-strip .moe-token",
    sizes={f"{experts} experts": Example(partial(capacity_cases.view_of, 150, experts, 1, title=LONG), (TIGHT,))
           for experts in (1, 12, 64)} | {"long names": Example(partial(capacity_cases.view_of, LONG_NAMES * 5, 16, 2))},
    projected={f"{tokens} tokens": Example(partial(capacity_cases.view_of, tokens, 16, 2), (TIGHT,))
               for tokens in (60, 93, 128, 300)}
    | {"a model's": Example(partial(capacity_cases.view_of_model, FULL, vocabulary=256, experts=16, k=2), (TIGHT, *OTHER_TEXTS))},
    large=lambda: made(capacity_cases.view_of(300, 64, 6), batch="shuffled"),
    types=partial(capacity_cases.view_of_model, FULL, vocabulary=256, experts=62, k=6, width=64))

CONTRIBUTION_VIEW = Entry(
    contribution_cases.model_view, (BY_ROUTED, {"text": ""}, {"text": "x" * 241}),
    held={"layer slider": slider("Layer"), "cursor": CURSOR},
    refuses=(("layer", 2), ("layer", -1), ("order", "best"), ("locked_token", 19), ("locked_token", -1)),
    hostile=Example(lambda: contribution_cases.view_of(HOSTILE, title=WORDS, name=WORDS), TOKENS), tokens=".moe-strip .moe-token",
    sizes={f"{tokens} tokens": Example(
        partial(contribution_cases.view_of, tokens, 200, 1, title=LONG, name="a model with a long name"),
        ({**BY_ROUTED, "locked_token": tokens - 1},)) for tokens in (1, 78, 256)} | {
            "long names": Example(partial(contribution_cases.view_of, LONG_NAMES * 2, 62, 6), (BY_ROUTED,))},
    projected={f"{times} times the text": Example(
        partial(contribution_cases.view_of, (text * times)[:256], 62, 6, name="deepseekmoe"),
        (BY_ROUTED,)) for text, times in ((LONG_NAMES, 2), (contribution_cases.MIXED, 3), (contribution_cases.MIXED, 7),
                                          (LONG_NAMES, 22))},  # up to the context of the course's models, all kinds of tokens
    follows="svg", types=partial(contribution_cases.model_view, FULL, experts=62, k=6, width=64))

COST_EXPLORER = Entry(
    cost_cases.explorer_of,
    (MANY_DEVICES, {**MANY_DEVICES, "link": "InfiniBand", "num_experts": 8, "limit": 1},
     {"device": "H100 SXM", "tokens": 65_536, "width": 2048, "expert_width": 1408, "top_k": 6, "num_shared": 0},
     {"tokens": 256, "num_experts": 256, "top_k": 1, "width": 7168, "device": "this machine"}, {"fused": True}),
    held={"H slider": slider("H, expert width"), "T slider": slider("T, tokens", "ArrowLeft"), "view": RADIOS},
    refuses=(("tokens", 300), ("expert_width", 100), ("top_k", 0), ("top_k", 17), ("num_devices", 3), ("imbalance", 0.5),
             ("limit", 0), ("device", "my laptop"), ("link", "post"), ("view", "both")),
    hostile=Example(lambda: cost_cases.explorer_of(WORDS, title=WORDS)),
    sizes={"nothing measured": Example(cost_cases.CostExplorer)}, follows="svg")

EXPERT_EXPLORER = Entry(
    explorer_cases.explorer_of,
    ({"expert": [1, 7]}, *({"expert": [1, 11], **state} for state in (
        {"token": 3, "search": "de"}, {"search": "_"}, {"search": "zz"}, {"text": ""}, {"text": "x" * 241}))),
    held={"cursor": (".moe-token[tabindex='0']", "ArrowRight")},
    refuses=(("token", -1), ("token", 256), ("expert", [2, 0]), ("expert", [0, 12]), ("expert", [0])),
    hostile=Example(lambda: explorer_cases.explorer_of(WORDS, title=WORDS, name=WORDS, words=MARKUP),
                    ({"search": MARKUP[0]}, {"expert": [1, 2], "token": 9})),
    follows=".moe-strip",
    sizes={"one layer": Example(partial(explorer_cases.explorer_of, "ab", (1,), 1)),
           "many": Example(partial(explorer_cases.explorer_of, "long text, " * 20, (200, 200, 200), 8, title=LONG),
                           ({"expert": [2, 199], "search": "text"},)),
           "long names": Example(explorer_cases.long_names, ({"token": 4, "search": "function"},))},
    projected={"62 experts": Example(partial(explorer_cases.explorer_of, "256 tokens of a text " * 12, (62, 62), 6),
                                     ({"expert": [1, 61], "search": "text"},)),
               "long names": Example(partial(explorer_cases.long_names, sizes=(62, 62), k=6),
                                     ({"token": 4}, {"token": 4, "search": "qx"}))},
    types=partial(explorer_cases.explorer_of, "long text, " * 20, (62, 62), 6))

FACT_FINDER = Entry(
    fact_cases.finder_of,
    ({"shown": ["dense", "GShard"], "gone": {"GShard": ["expert 3"]}}, {"gone": {}},
     {"shown": ["DeepSeekMoE", "dense"], "gone": {"DeepSeekMoE": ["shared 0", "expert 13"]}}),
    held={"experts": ("[role=option][tabindex='0'] >> nth=0", "ArrowRight"), "model": RADIOS,
          "cursor": ("[role=application] >> nth=0", "ArrowRight")},
    hostile=Example(lambda: fact_cases.finder_of(dict(zip(MARKUP, fact_cases.THREE.values())), title=WORDS),
                    ({"shown": list(MARKUP[1:])},)),
    sizes={"one model": Example(partial(fact_cases.finder_of, {"dense": fact_cases.THREE["dense"]}, title=LONG)),
           "many": Example(partial(fact_cases.finder_of, fact_cases.MANY, fact_cases.LARGE, 32, title=LONG),
                           ({"shown": ["a model with a long name", "d"], "gone": {}},))},
    projected={"as in a lesson": Example(partial(fact_cases.finder_of, fact_cases.LESSON, fact_cases.LARGE, 32))},
    large=partial(fact_cases.finder_of, fact_cases.LESSON, fact_cases.LARGE, 32))

LADDER_EXPLORER = Entry(
    ladder_cases.ladder_of, (OTHER_RUNG, {**OTHER_RUNG, "seed": None}, {**OTHER_RUNG, "seed": None, "axis": "FLOPs"}),
    held={"axis": RADIOS},
    refuses=(("rung", "luck"), ("beside", ""), ("seed", 5), ("axis", "hours"), ("domain", "rust")),
    hostile=Example(lambda: ladder_cases.ladder_of(*MARKUP[:2], names=MARKUP)),
    sizes={"two rungs": Example(partial(ladder_cases.ladder_of, **TWO_RUNGS), ({"axis": "FLOPs"}, {"axis": "seconds"})),
           "ten rungs": Example(partial(ladder_cases.ladder_of, **MANY_RUNGS),
                                ({"axis": "FLOPs", "rung": "f"}, {"axis": "seconds", "rung": "f"}))})

LEDGER_VIEW = Entry(
    partial(LedgerView, PUBLISHED["DeepSeekMoE 16B"], compare=PUBLISHED["LLaMA2 7B"]),
    ({"model": "toy"}, {"model": "toy MoE", "num_experts": 4},
     {name: values[-1] for name, values in LedgerView().choices.items()}),
    held={"N slider": slider("N, routed experts", "ArrowLeft"), "H slider": slider("H, hidden units", "ArrowLeft")},
    refuses=(("width", 65), ("layers", 0), ("num_experts", -1), ("top_k", 0), ("model", "GPT-9")),
    hostile=Example(lambda: LedgerView(ModelConfig(Sparse(7, 3, 20), layers=5, width=72, heads=3), title=WORDS)),
    sizes={"toy": Example(LedgerView)}, follows="svg")

QUIZ = Entry(
    quiz_cases.quiz_of,
    ({"tries": {"ask 0": ["a 0"]}}, {"question": 1, "tries": {"ask 0": ["a 0", "b 0"]}},
     {"question": 2, "tries": {"ask 1": ["b 1"]}}),
    held={"question": RADIOS}, refuses=(("question", 7),),
    hostile=Example(lambda: quiz_cases.quiz_of(MARKUP, WORDS), ({"tries": {f"ask 0{MARKUP[0]}": [f"a 0{MARKUP[0]}"]}},)),
    sizes={"long": Example(lambda: Quiz(quiz_cases.longest(), title=LONG), ({"question": 1},))},
    projected={"long": Example(lambda: Quiz(quiz_cases.longest(), title=LONG), ({"question": 1},))}, follows=".moe-options")

REDUNDANCY_LENS = Entry(
    lens_cases.lens_of, (MERGED,),
    held={"merges slider": slider("merges, most similar first"), "cursor": ("[role=application]", "ArrowDown")},
    refuses=(("kind", "looks"), ("merges", -1), ("merges", 16), ("order", "by size"), ("pair", [1]), ("pair", [0, 16]),
             ("pair", [-1, 3])),
    hostile=Example(lambda: lens_cases.lens_of(title=WORDS, unit=WORDS)),
    sizes={f"{experts} experts": Example(partial(lens_cases.lens_of, experts, merges, title=LONG),
                                         ({**MERGED, "merges": merges, "pair": [0, 1]},))
           for experts, merges in ((2, 1), (16, 15), (64, 15))},
    steady=600, large=partial(lens_cases.lens_of, 64), follows="svg")

ROUTER_GAME = Entry(
    game_cases.game_of, ({"guesses": ["A"]}, {"guesses": ["A", "B"], "round": 1, "locked_token": 7},
                         {"guesses": ["A", "B", "C"], "round": 2}, {"guesses": ["C"], "round": 1, "locked_token": 3}),
    held={"cursor": CURSOR}, refuses=(("round", 1), ("round", -1), ("locked_token", 37), ("locked_token", -1)),
    hostile=Example(lambda: game_cases.game_of(2, tokens=(*HOSTILE, "'"), title=WORDS, name=WORDS),
                    tuple({"guesses": ["A"], "locked_token": token} for token in range(len(HOSTILE)))),
    tokens=".moe-strip .moe-token",
    sizes={f"{experts} experts": Example(partial(game_cases.game_of, rounds, 0, tokens, experts, k, title=LONG),
                                         ({"guesses": ["A"] * rounds, "round": rounds - 1},))
           for rounds, tokens, experts, k in ((1, "aab", 1, 1), (12, 48, 64, 8), (2, LONG_NAMES * 4, 62, 6))},
    projected={"64 experts": Example(partial(game_cases.game_of, 12, 0, 48, 64, 8, name="ladder-deepseekmoe"), (
        {"guesses": ["A"] * 12, "round": 11}, {"guesses": ["A"] * 12, "round": 11, "locked_token": 47})),
               "long names": Example(partial(game_cases.game_of, 2, 0, LONG_NAMES * 4, 62, 6), ({"guesses": ["A"]},))},
    large=partial(game_cases.game_of, 12, 0, 48, 64, 8))

ROUTER_ZOO = Entry(
    zoo_cases.zoo_of, ({"router": "null experts", "read": 12, "locked_token": 3}, {"router": "DeepSeek-V3", "locked_token": 29},
                       {"router": "ReMoE", "read": 1}),
    held={"read slider": slider("tokens that are there", "ArrowLeft"), "cursor": ("[role=application]", "ArrowDown")},
    refuses=(("router", "lottery"), ("read", 0), ("read", 31), ("locked_token", 30)),
    hostile=Example(lambda: zoo_cases.zoo_of(HOSTILE, title=WORDS), TOKENS),
    sizes={"one token": Example(partial(zoo_cases.zoo_of, 1, title=LONG)),
           "64 experts": Example(partial(zoo_cases.zoo_of, 90, 64, 6, title=LONG), ({"router": "MoE++", "locked_token": 89},))},
    projected={"64 experts": Example(partial(zoo_cases.zoo_of, 60, 64, 6))}, large=partial(zoo_cases.zoo_of, 48, 16),
    along=("locked_token",))

SEGMENTATION_VIEW = Entry(
    segmentation_cases.view_of, (FULLEST, REFUSED, {"world": "skills world", "segments": 4, "num_shared": 2}),
    held={"m slider": slider("m, pieces of each expert", "ArrowLeft"), "Ks slider": slider("Ks, shared pieces")},
    refuses=(("world", "none"), ("segments", 3), ("num_shared", 3), ("num_shared", -1)),
    hostile=Example(lambda: SegmentationView({MARKUP[0]: segmentation_cases.world_of("text")}, origin="toy", title=WORDS)),
    large=partial(segmentation_cases.view_of, **FULLEST), follows="svg")

SPECIALISATION_VIEW = Entry(
    specialisation_cases.view_of,
    ({"sample": 512, "router": "random router", "layer": 1, "null": "documents shuffled", "locked_expert": 3},
     {"router": "hash router", "locked_expert": 11}),
    held={"sample slider": slider("sample size"), "layer slider": slider("Layer"), "cursor": CURSOR},
    refuses=(("sample", 65), ("router", "mine"), ("layer", 2), ("null", "none"), ("locked_expert", 12), ("locked_expert", -1)),
    hostile=Example(lambda: specialisation_cases.view_of(WORDS, WORDS, MARKUP), ({"locked_expert": 1},)),
    sizes={"two domains": Example(partial(specialisation_cases.view_of, LONG, domains=("a", "b"), sizes=(3,))),
           "eight domains": Example(partial(specialisation_cases.view_of, LONG, domains=tuple("abcdefgh"), sizes=(200, 8)),
                                    ({"sample": 1024, "router": "hash router", "locked_expert": 199},))},
    projected={"62 experts": Example(partial(specialisation_cases.view_of, name="DeepSeekMoE", sizes=(62, 62), k=6),
                                     ({"sample": 512, "null": "documents shuffled", "locked_expert": 61},))},
    large=partial(specialisation_cases.view_of, sizes=(62, 62), k=6, documents=35, tokens=120), along=("locked_expert",),
    follows="svg")

TOKEN_WAY = Entry(
    way_cases.way_of, ({"station": 3, "layer": 1}, {"station": 0, "locked_token": 9}, {"text": ""}, {"text": "x" * 230}),
    held={"station slider": slider("Station", "ArrowLeft"), "tokens": (".moe-token[tabindex='0']", "ArrowRight")},
    refuses=(("layer", 2), ("layer", -1), ("station", 8), ("station", -1), ("locked_token", 240)),
    hostile=Example(lambda: way_cases.way_of(WORDS, title=WORDS), ({"locked_token": 1},)),
    sizes={"short": Example(partial(way_cases.way_of, short=True, title=LONG), ({"station": 1},)),
           "one expert": Example(partial(way_cases.way_of, "a", 0, ffn=Sparse(1, 1, 4), layers=1)),
           "many experts": Example(partial(way_cases.way_of, LONG, ffn=Sparse(200, 40, 4)))},
    projected={"as in a lesson": Example(partial(way_cases.way_of, ffn=Sparse(62, 6, 8, num_shared=2), width=64),
                                         ({"station": 5},))},
    types=partial(way_cases.way_of, "the moon and the sea, " * 10, ffn=Sparse(62, 6, 24, num_shared=2), width=64),
    opened='document.querySelector(".moe-row button").click();')  # it plays

WIDGETS: dict[str, Entry] = {
    "AblationView": ABLATION_VIEW,
    "BalancingRace": BALANCING_RACE, "CapacityView": CAPACITY_VIEW, "ContributionView": CONTRIBUTION_VIEW,
    "CostExplorer": COST_EXPLORER, "ExpertExplorer": EXPERT_EXPLORER, "FactFinder": FACT_FINDER,
    "LadderExplorer": LADDER_EXPLORER, "LedgerView": LEDGER_VIEW, "Quiz": QUIZ, "RedundancyLens": REDUNDANCY_LENS,
    "RouterGame": ROUTER_GAME,
    "RouterMicroscope": ROUTER_MICROSCOPE, "RouterZoo": ROUTER_ZOO, "RoutingMap": ROUTING_MAP,
    "SegmentationView": SEGMENTATION_VIEW, "SpecialisationView": SPECIALISATION_VIEW, "TokenWay": TOKEN_WAY,
}
