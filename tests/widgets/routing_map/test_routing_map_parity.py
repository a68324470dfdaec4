"""JavaScript and Python compute the same routing and say the same words: golden vectors through `node --test`."""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from routing_map.cases import map_of
from routings import HOSTILE, PLAIN, logits_of, routing_of
from widget_harness import browser_state, run_node

from moe_lesson.widgets import RoutingMap
from moe_lesson.widgets.common import Gate, in_common


def single(logits, k, gate=PLAIN, **more) -> RoutingMap:
    """A map of one layer of given logits."""
    return RoutingMap([routing_of(np.array(logits, np.float32), k, gate)], router=gate, origin="toy", **more)


def made(widget: RoutingMap, **settings) -> RoutingMap:
    for name, value in settings.items():
        setattr(widget, name, value)
    return widget


def cases() -> dict[str, RoutingMap]:
    """The corners where two implementations part ways."""
    sigmoid, bare = Gate("sigmoid", scale=2.5), Gate(renormalise=False, scale=16.0)
    biased = Gate("sigmoid", bias=tuple(np.linspace(-0.5, 0.5, 12)))
    ties = np.random.default_rng(1).integers(0, 3, (40, 12))
    return {
        "softmax": map_of(),
        "second layer, random router": made(map_of(num_shared=1), layer=1, router="null"),
        "ties": single(ties, 4),
        "ties, token and expert locked": made(single(ties, 4), locked_token=7, locked_expert=2),
        "all logits equal: weights of exactly 1/8": made(single(np.zeros((9, 16)), 8), locked_token=3),
        "k = N": made(map_of(num_shared=2), k=12, locked_token=20),
        "k = 1": made(map_of(), k=1, locked_expert=0),
        "a temperature near zero": made(single(1e5 * logits_of(30, 12), 3), locked_token=2),
        "a temperature near infinity": made(single(1e-6 * logits_of(30, 12), 3), locked_token=2),
        "sigmoid": made(map_of(gate=sigmoid), locked_token=3),
        "sigmoid that saturates: ties at exactly 1": made(single(1e3 * logits_of(30, 12), 3, sigmoid), locked_token=3),
        "sigmoid of nothing: all scores 0": made(single(np.full((4, 12), -1e4), 3, sigmoid), locked_token=3),
        "bias chooses and does not weigh": made(map_of(gate=biased), locked_token=3, locked_expert=11),
        "not renormalised, scaled": made(map_of(gate=bare), locked_token=3),
        "an expert that is masked": made(single([[0.0, -math.inf, 1.0], [2.0, -math.inf, 1.0]], 2), k=3, locked_expert=1),
        "no token": map_of(0),
        "no token, with a text field": map_of(0, on_text=lambda text: None),
        "one token": made(map_of(1), locked_token=0),
        "one expert": map_of(5, 1, 1),
        "many idle experts": made(map_of(3, 200, 1), k=2),
        "layers of different size": made(RoutingMap([routing_of(logits_of(6, n), 3) for n in (12, 5)], origin="toy"),
                                         layer=1, locked_expert=4),
        "hostile tokens": made(map_of(HOSTILE), locked_token=3, locked_expert=1, k=12),
    }


def golden(name: str, widget: RoutingMap) -> dict:
    shown = widget.shown
    return {"name": name, "state": browser_state(widget), "ids": shown.expert_ids.flatten().tolist(),
            "weights": shown.weights.flatten().tolist(), "load": shown.load.tolist(), "entropy": shown.load_entropy,
            "common": in_common(shown, 0) if shown.num_tokens else [], "summary": widget.summary,
            "limit": load_limit(widget)}  # last: it moves the controls


def load_limit(widget: RoutingMap) -> int:
    """The largest load in mean loads over layers and routers, rounded up, at least 2; moves the widget's controls."""
    ratios = [2.0]
    for router in ["model", "null"] if widget.null_gates else ["model"]:
        for layer in range(len(widget.sizes) if widget.tokens else 0):
            made(widget, router=router, layer=layer, k=widget.top_k)
            ratios.append(widget.shown.load.max().item() / (len(widget.tokens) * widget.top_k / widget.sizes[layer]))
    return math.ceil(max(ratios))


def test_javascript_computes_and_says_what_python_does(tmp_path):
    table = [to_hex(colormaps["cividis"](i)) for i in range(256)]
    vectors = {"cases": [golden(name, widget) for name, widget in cases().items()], "cividis": table}
    printed = run_node("routing_map", RoutingMap._esm, vectors, tmp_path)
    assert f"pass {len(vectors['cases']) + 6}" in printed  # every case ran
