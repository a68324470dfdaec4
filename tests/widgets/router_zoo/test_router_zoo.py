"""The router zoo: what it refuses, that JavaScript routes as Python does, and what it says; the rest is asked of every widget."""

import numpy as np
import pytest
import torch
from router_zoo.cases import settings_of, zoo_of
from widget_harness import status

from moe_lesson import LanguageModel, ModelConfig, Sparse
from moe_lesson.moe.zoo import ZOO, Tokens, settings_for
from moe_lesson.widgets import RouterZoo

SHAPES = {"ordinary": {}, "one token": {"tokens": 1}, "K = 1": {"k": 1}, "eight of ten": {"experts": 10, "k": 8, "groups": 1},
          "groups of one": {"experts": 4, "k": 1, "groups": 4, "free": 0},
          "three documents": {"tokens": 17, "documents": 3, "k": 3}}


def tokens_of(zoo, count=None):
    """The tokens before the routers of a widget, in float64."""
    last, earlier = (torch.from_numpy(np.frombuffer(raw, np.float32).reshape(-1, zoo.num_experts).copy()).double()
                     for raw in (zoo.logits, zoo.previous))
    return Tokens(last, earlier, torch.arange(len(last)) % 5, torch.tensor(zoo.documents)).first(count or len(last))


def golden(name, zoo, router, read, settings):
    """What the package's router does with the first tokens, and which of them it would have sent elsewhere when written."""
    kind, there = ZOO[router], tokens_of(zoo)
    gates = kind.gates(there.first(read), settings)
    moved = [bool(((kind.gates(there.first(t + 1), settings)[t] != 0) != (gates[t] != 0)).any()) for t in range(read)]
    return {"name": f"{router}, {name}, {read} tokens", "router": router, "read": read, "free": kind.free,
            "gates": gates.tolist(),
            "zoo": {"logits": there.logits.tolist(), "previous": there.previous.tolist(), "documents": zoo.documents,
                    "settings": zoo.settings},
            "cost": kind.cost(gates, settings).tolist(), "load": (gates != 0).sum(dim=0).tolist(), "moved": moved}


def test_javascript_routes_as_python_does(node, monkeypatch):
    cases, made = [], []
    monkeypatch.setattr("router_zoo.cases.settings_of", lambda *args: made.append(settings_of(*args)) or made[-1])
    for name, shape in SHAPES.items():
        zoo = zoo_of(**shape)
        s = {key: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
             for key, value in made[-1].__dict__.items()}
        cases += [golden(name, zoo, router, read, type(made[-1])(**s)) for router in ZOO
                  for read in sorted({1, len(zoo.tokens) // 2 or 1, len(zoo.tokens)})]
    assert {case["router"] for case in cases if any(case["moved"])} == {"expert choice", "EMO"}
    printed = node("router_zoo/router_zoo.test.mjs", {"cases": cases})
    assert f"pass {len(cases)}" in printed


@pytest.mark.parametrize("words, call", [
    ("no token to route", lambda: zoo_of(0)),
    ("settings for 8 experts, logits for 16", lambda: RouterZoo(
        tokens_of(zoo_of()), "x" * 30, settings_for(torch.randn(9, 8), 2, 5))),
    ("3 names", lambda: RouterZoo(tokens_of(zoo_of()), "abc", settings_for(torch.randn(9, 16), 2, 5))),
    ("16 experts can't be 3 groups", lambda: zoo_of(groups=3)), ("free is 16", lambda: zoo_of(free=16)),
    ("two MoE layers", lambda: RouterZoo.of_model(model_of(layers=1), ["a"], "b")),
    ("expected a list of documents", lambda: RouterZoo.of_model(model_of(), [], "b")),
    ("before is empty", lambda: RouterZoo.of_model(model_of(), ["a"], "")),
    ("expected a list of documents", lambda: RouterZoo.of_model(model_of(), "abc", "b")),
    ("texts is 5; expected a list of documents", lambda: RouterZoo.of_model(model_of(), 5, "b")),
])
def test_wrong_arguments_are_refused(words, call):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("experts", [4, 6, 31, 62])
def test_any_number_of_experts_has_its_groups(experts):
    zoo = RouterZoo.of_model(model_of(experts=experts), ["some text"], "some other text")
    assert experts % zoo.settings["groups"] == 0 and zoo.settings["free"] < experts


def model_of(layers=2, experts=16):
    torch.manual_seed(0)
    return LanguageModel(ModelConfig(Sparse(experts, 2, 4), layers=layers, width=16, heads=2, context=24, vocabulary=256)).eval()


def test_the_zoo_of_a_model_has_its_last_routers_logits_and_those_before():
    model = model_of()
    zoo = RouterZoo.of_model(model, ["abc", "de"], "earlier", origin="toy")
    first, second = (model.route("abc")[layer].logits for layer in (0, 1))
    there = tokens_of(zoo)
    torch.testing.assert_close(there.logits[:3].float(), second)
    torch.testing.assert_close(there.previous[:3].float(), first)
    assert zoo.documents == [0, 0, 0, 1, 1] and "".join(zoo.tokens) == "abcde"


def test_a_causal_router_moves_nobody_and_expert_choice_does(show):
    page = show(zoo_of())
    assert "expert choice, on the logits of a synthetic router; 30 of 30 tokens are there." in status(page)
    assert "not causal, so it can't write text" in status(page)
    page.get_by_label("router", exact=True).select_option("threshold")
    assert "No token went elsewhere when it was written: causal." in status(page)


def test_a_token_says_where_it_went_when_it_was_written(show):
    zoo = zoo_of()
    there, s = tokens_of(zoo), settings_for(torch.randn(9, 16), 2, 5)
    whole = ZOO["expert choice"].gates(there, s)
    moved = next(t for t in range(1, 30)
                 if ((ZOO["expert choice"].gates(there.first(t + 1), s)[t] > 0) != (whole[t] > 0)).any())
    page = show(zoo_of())
    page.get_by_role("application").focus()
    for _ in range(moved):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert f"Token {moved} '{zoo.tokens[moved]}' pays for " in status(page) and "When it was written, it went to" in status(page)
