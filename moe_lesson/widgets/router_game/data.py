"""The router game: three heat maps of one text, of which one is the trained router's. Guess first, see the evidence then.

The maps show which experts were chosen and not with what weight: a trained router's weights vary several times as much as a
random router's, so that brightness would give the answer away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import traitlets
from traitlets import Dict, Int, List, Unicode

from ...base.errors import require, whole_number
from ...base.text import visible
from ...base.tokens import encode
from ...lm.model import LanguageModel
from ...measure.instruments import experts_in_common
from ...measure.nulls import hash_routing, route_beside_null
from ...moe.layers import mixtures, moe_layers
from ...moe.routing import Routing, max_violation
from ..kit.base import LessonWidget, within
from ..kit.gates import check_routing, count

PLACES = ("A", "B", "C")
NAMES = {"trained": "trained router", "random router": "random router", "hash router": "hash router"}
MOST_TOKENS = 48  # rows: more would leave no room for their names
MOST_ROUNDS = 12  # columns of the table


class RouterGame(LessonWidget):
    """Guess, round by round, which of three unlabelled heat maps is the trained router's.

    Args:
        rounds: R mappings (1 … 12) from "trained", "random router" and "hash router" to the `Routing` of the same T named
            tokens (2 … 48), N and K. Some token must stand in the text twice, so that equal tokens can be compared.
        seed: of the order of the maps.
        origin: where the routings come from, shown on the widget's face: "trained", "toy" or "synthetic".
        name: of the model, shown beside the origin.
        layers: of each round the MoE layer it is from, counted from 0; None does not say it.

    Traits to read, set and observe: `round` (0 … R-1), `guesses` (of each guessed round "A", "B" or "C"; it can grow or
    become empty), `locked_token` (an index in the text, or None).

    Raises:
        ValueError: if the routings do not fit together, or no token stands twice in a text.
    """

    name = Unicode().tag(sync=True)
    seed = Int().tag(sync=True)
    rounds = List(Dict()).tag(sync=True)  # see `packed`

    guesses = List(Unicode()).tag(sync=True)
    round = Int(0).tag(sync=True)
    locked_token = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, rounds: Sequence[Mapping[str, Routing]], seed: int = 0, origin: str = "trained", name: str = "model", *,
                 layers: Sequence[int] | None = None, title: str = "Which router is trained?"):
        seed = whole_number("seed", seed, least=0)
        check_rounds(rounds, layers)
        self._committed: list[str] = []  # guesses that stand: the trait has its new value before it is validated
        start = {"guesses": [], "round": 0, "locked_token": None}
        orders = drawn_orders(len(rounds), seed)
        packs = [packed(maps, order, None if layers is None else layers[i])
                 for i, (maps, order) in enumerate(zip(rounds, orders))]
        super().__init__(title=title, name=name, origin=origin, seed=seed, rounds=packs, start=start)

    @classmethod
    def of_model(cls, model: LanguageModel, texts: Sequence[str], seed: int = 0, *, name: str = "", **more) -> RouterGame:
        """One round for each text, from its MoE layers in turn: its router, a random one on the same hidden states, a hash.

        Args:
            model: with at least one MoE layer.
            texts: 1 … 12, each of 2 … 48 tokens and at most the model's context; 30 to 45 with repeated ones are good.
            seed: of the order of the maps, of the random routers and of the hash.
            name: of the model, e.g. "ladder-gshard"; empty names its sizes.
            more: as above.

        Raises:
            ValueError: if the model has no MoE layer, or the texts are not as many or as long as said above.
        """
        require(isinstance(texts, Sequence) and not isinstance(texts, (str, bytes)),
                f"texts is {texts!r}; expected a list with one text for each round")
        routers = [layer.router for layer in mixtures(model, "there is no router to guess")]
        layers = [i % len(routers) for i in range(len(texts))]
        sizes = "/".join(str(size) for size in dict.fromkeys(router.weight.shape[1] for router in routers))
        return cls([three_routings(model, text, layer, seed) for text, layer in zip(texts, layers)], seed, layers=layers,
                   name=name or f"{len(routers)}-layer MoE of {sizes} experts", **more)

    @property
    def tokens(self) -> list[str]:
        """The tokens of the round on the screen."""
        return self.rounds[self.round]["tokens"]

    @traitlets.validate("round", "locked_token")
    def _in_range(self, proposal):
        return within(proposal, {"round": (0, min(len(self.guesses), len(self.rounds) - 1)),
                                 "locked_token": (0, len(self.tokens) - 1)})

    @traitlets.validate("guesses")
    def _final(self, proposal):
        """A guess is never taken back: the list grows, or Reset empties it."""
        value = proposal["value"]
        if len(value) > len(self.rounds) or any(guess not in PLACES for guess in value):
            raise traitlets.TraitError(f"guesses is {value}; expected at most {len(self.rounds)} of {', '.join(PLACES)}")
        if value and value[:len(self._committed)] != self._committed:
            raise traitlets.TraitError(f"guesses is {value} after {self._committed}; a guess can't be taken back: "
                                       "add to them, or start over with []")
        return value

    @traitlets.observe("guesses")
    def _commit(self, change):
        self._committed = list(change["new"])
        self.round = min(self.round, len(self._committed))

    @traitlets.observe("round")
    def _other_text(self, _):
        self.locked_token = None


# --- validation, and what is computed once -------------------------------------------------------------------------------


def three_routings(model: LanguageModel, text: str | bytes, layer: int, seed: int) -> dict[str, Routing]:
    """What three routers do with the same text in one MoE layer of a model."""
    ids = encode(text, model.config.vocabulary)
    require(2 <= len(ids) <= MOST_TOKENS, f"the text {text!r} has {count(len(ids), 'token')}; expected 2 … {MOST_TOKENS}")
    trained, random = (routings[layer] for routings in route_beside_null(model, text, seed))
    hashed = hash_routing(moe_layers(model)[layer].router, torch.tensor(ids), trained.logits.std().item(), seed + layer)
    return dict(zip(NAMES, (trained, random, hashed.with_tokens(trained.tokens))))


def check_rounds(rounds: Sequence[Mapping[str, Routing]], layers: Sequence[int] | None) -> None:
    """Refuse rounds whose three maps could not stand side by side."""
    require(isinstance(rounds, Sequence) and 1 <= len(rounds) <= MOST_ROUNDS,
            f"rounds is {count(len(rounds), 'round') if isinstance(rounds, Sequence) else type(rounds).__name__}; "
            f"expected a list of 1 … {MOST_ROUNDS}")
    require(layers is None or len(layers) == len(rounds), f"there are {len(layers or ())} layers for {len(rounds)} rounds; "
                                                          "give one for each round, or None")
    for i, maps in enumerate(rounds):
        require(isinstance(maps, Mapping) and set(maps) == set(NAMES),
                f"rounds[{i}] is {sorted(maps) if isinstance(maps, Mapping) else type(maps).__name__}; "
                f"expected a Routing for each of {', '.join(NAMES)}")
        for kind in NAMES:
            check_map(maps[kind], maps["trained"], f"rounds[{i}][{kind!r}]")


def check_map(one: Routing, model: Routing, here: str) -> None:
    check_routing(one, here)
    require(2 <= one.num_tokens <= MOST_TOKENS, f"{here} has {count(one.num_tokens, 'token')}; expected 2 … {MOST_TOKENS}")
    require((one.tokens, one.num_experts, one.top_k) == (model.tokens, model.num_experts, model.top_k),
            f"{here} has T, N, K = {one.num_tokens}, {one.num_experts}, {one.top_k}, the trained router {model.num_tokens}, "
            f"{model.num_experts}, {model.top_k}; route the same tokens through routers of the same sizes")
    require(1 < len(set(map(visible, one.tokens))) < one.num_tokens,
            f"{here}: no token stands twice in this text, or all are equal, so that equal and different tokens can't be "
            "compared; take a text with repeated words")


def drawn_orders(rounds: int, seed: int) -> list[list[str]]:
    """Which router is A, B and C in each round: every order is as likely, whatever came before."""
    generator = torch.Generator().manual_seed(seed)
    kinds = list(NAMES)
    return [[kinds[i] for i in torch.randperm(len(kinds), generator=generator).tolist()] for _ in range(rounds)]


def packed(maps: Mapping[str, Routing], order: list[str], layer: int | None) -> dict:
    """One round as JSON, maps in the order A, B, C: experts [3, T, K] ascending (their rank would tell), load [3, N], evidence
    [3][experts in common of equal tokens, of different ones, MaxVio]."""
    routings = [maps[kind].with_tokens(list(map(visible, maps[kind].tokens))) for kind in order]
    return {"tokens": list(routings[0].tokens), "n": routings[0].num_experts, "k": routings[0].top_k,
            "layer": 0 if layer is None else int(layer) + 1, "kinds": order,
            "experts": [one.expert_ids.sort(dim=1).values.tolist() for one in routings],
            "load": [one.load.tolist() for one in routings],
            "evidence": [[*experts_in_common(one), max_violation(one.load)] for one in routings]}
