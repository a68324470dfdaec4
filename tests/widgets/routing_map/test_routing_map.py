"""The routing map in Python: what it refuses, what it says, what it leaves behind."""

import base64
import pathlib
import subprocess
import sys
import textwrap

import pytest
import torch
from routing_map.cases import bytes_map, map_of
from routings import HOSTILE, logits_of, routing_of
from traitlets import TraitError

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.moe.layers import Router
from moe_lesson.moe.routing import Routing
from moe_lesson.teach.plots import draw_routing
from moe_lesson.widgets import RoutingMap
from moe_lesson.widgets.base import VIEW
from moe_lesson.widgets.common import Gate, fixed, visible

PNG = b"\x89PNG\r\n"
TESTS = str(pathlib.Path(__file__).parents[1])


def bundle_of(widget):
    return widget._repr_mimebundle_()[0]


# --- what a notebook stores ------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_view_and_a_picture():
    widget = map_of()
    bundle = bundle_of(widget)
    assert base64.b64decode(bundle["image/png"]).startswith(PNG)
    assert bundle[VIEW]["model_id"] == widget.model_id
    assert bundle["text/plain"] == repr(widget)


def test_a_closed_widget_keeps_its_picture_and_loses_its_view():
    widget = map_of()
    widget.close()
    assert set(bundle_of(widget)) == {"text/plain", "image/png"}


def test_the_text_form_names_no_instance():
    assert repr(map_of()) == repr(map_of()) == (
        "RoutingMap('routing map', synthetic: 2 layers, 21 tokens, 3 of 12 experts)")


def test_the_picture_says_where_the_routing_comes_from(monkeypatch):
    titles = []

    def spy(*args, **named):
        figure = draw_routing(*args, **named)
        titles.append(figure.axes[0].get_title())
        return figure

    monkeypatch.setattr("moe_lesson.widgets.routing_map.draw_routing", spy)
    widget = map_of(origin="toy")
    widget.picture()
    widget.router = "null"
    widget.picture()
    assert titles[0].endswith("toy router") and titles[1].endswith("random router (null)")


RERUN = textwrap.dedent("""
    import gc, sys
    sys.path.insert(0, sys.argv[1])
    from IPython.core.interactiveshell import InteractiveShell
    from ipywidgets import Widget
    shell = InteractiveShell.instance()
    shell.run_cell("from routing_map.cases import map_of", store_history=True)
    def live():
        from moe_lesson.widgets.base import LIVE
        gc.collect()
        return len(LIVE)
    for _ in range(50):
        shell.run_cell("w = map_of()", store_history=True).raise_error()
    print(live())
    for _ in range(3):
        shell.run_cell("pair = map_of(), map_of()", store_history=True).raise_error()
    print(live())
    from ipywidgets.widgets import widget
    print(len(getattr(widget, "_instances", None) or Widget.widgets))
    print(repr(shell.user_ns["w"]))
""")


def test_fifty_runs_of_a_cell_leave_one_widget():
    done = subprocess.run([sys.executable, "-c", RERUN, TESTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    once, with_pair, widgets, text = done.stdout.splitlines()[-4:]
    assert once == "1"
    assert with_pair == "3"  # two in one cell are siblings
    assert widgets == "6"  # each with its layout, and nothing else
    assert text == repr(map_of())  # the same line in another process


def test_outside_a_notebook_nothing_is_closed():
    first, second = map_of(), map_of()
    assert first.comm is not None and second.comm is not None


def test_the_course_loads_without_widgets_and_says_what_they_need():
    code = "import sys, moe_lesson; assert not {'anywidget', 'ipywidgets', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    missing = "import sys; sys.modules['anywidget'] = None; import moe_lesson.widgets"
    done = subprocess.run([sys.executable, "-c", missing], capture_output=True, text=True)
    assert 'pip install "moe-lesson[lab]"' in done.stderr.splitlines()[-1]


def test_the_module_needs_nothing_from_elsewhere():
    source = RoutingMap._esm
    assert not any(line.lstrip().startswith("import ") for line in source.splitlines())
    assert not any(word in source for word in ("http://", "https://", "innerHTML", "fetch(", "eval(", "import("))
    assert source.count("export default") == 1 and "http" not in RoutingMap._css


# --- validation ------------------------------------------------------------------------------------------------------


def refused(words, *args, **named):
    with pytest.raises(ValueError, match=words):
        RoutingMap(*args, **named)


def test_wrong_arguments_are_refused_with_value_and_remedy():
    one = routing_of(logits_of(5, 4), 2)
    refused("origin is 'real'; say where .* trained, toy, synthetic", [one], origin="real")
    refused("routings is empty", [])
    refused(r"routings\[0\] is str; expected a Routing", ["x"])
    refused("no token texts; add them with", [Routing(one.logits, one.expert_ids, one.weights)])
    refused("other tokens", [one, one.with_tokens("vwxyz")])
    refused("K = 3, .* has 2", [one, routing_of(logits_of(5, 4), 3)])
    refused("null has .* same size", [one], null=[routing_of(logits_of(5, 6), 2)])
    refused("null has 2 layers; expected 1", [one], null=[one, one])
    refused("2 routers for 1 layers", [one], router=[{}, {}])
    refused("unknown score 'relu'; choose one of softmax, sigmoid", [one], router={"score": "relu"})
    refused("unknown router setting temperature", [one], router={"temperature": 1})
    refused("scale is 0", [one], router={"scale": 0})
    refused("4 experts, but the bias has 3 numbers", [one], router={"bias": [0, 0, 0]})
    refused("bias holds NaN", [one], router={"bias": [0, 0, 0, float("nan")]})
    refused("num_shared is -1", [one], num_shared=-1)
    refused("max_bytes is 0", [one], max_bytes=0)
    refused("on_text is 3", [one], on_text=3)
    refused("text is None", [one], text=None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused(value):
    routing = routing_of(logits_of(5, 4), 2)
    routing.logits[2, 1] = value
    refused("hold NaN or infinity", [routing])


@pytest.mark.parametrize("wrong", [{"score": "sigmoid"}, {"renormalise": False}, {"scale": 2.0}, {"bias": [9, 0, 0, 0]}])
def test_a_gate_that_does_not_reproduce_the_record_is_refused(wrong):
    refused("does not follow from its logits", [routing_of(logits_of(9, 4), 2)], router=wrong)


@pytest.mark.parametrize("settings", [{}, {"score": "sigmoid"}, {"renormalise": False, "scale": 2.5}])
def test_a_real_router_is_read_as_it_is(settings):
    torch.manual_seed(0)
    router = Router(16, 12, 3, **settings)
    router.bias.copy_(0.1 * torch.randn(12))
    with torch.no_grad():
        routing = router(torch.randn(30, 16)).with_tokens(["t"] * 30)
    shown = RoutingMap([routing], router=router).shown
    assert torch.equal(shown.expert_ids, routing.expert_ids) and torch.equal(shown.load, routing.load)
    assert torch.allclose(shown.weights, routing.weights.double(), atol=1e-6)


def test_a_bfloat16_routing_is_read():
    torch.manual_seed(0)
    with torch.no_grad():
        routing = Router(16, 12, 3)(torch.randn(30, 16))
    half = type(routing)(routing.logits, routing.expert_ids, routing.weights.bfloat16(), ("t",) * 30)
    assert RoutingMap([half]).shown.num_tokens == 30


# --- controls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [0, 1, 21])
@pytest.mark.parametrize("experts,k", [(1, 1), (12, 1), (12, 12)])
def test_every_control_works_at_its_ends(tokens, experts, k):
    widget = map_of(tokens, experts, k)
    for layer, router, now in ((0, "model", 1), (1, "null", experts)):
        widget.layer, widget.router, widget.k = layer, router, now
        if tokens:
            widget.locked_token, widget.locked_expert = tokens - 1, experts - 1
        assert widget.shown.top_k == now and widget.shown.num_tokens == tokens
        assert widget.summary.startswith(f"Layer {layer + 1} of 2, K = {now} of {experts} expert")
        assert ("empty" in widget.summary) == (tokens == 0)
        assert widget.picture().startswith(PNG)


@pytest.mark.parametrize("trait,value", [("layer", 2), ("layer", -1), ("k", 0), ("k", 13), ("router", "best"),
                                         ("locked_token", 21), ("locked_expert", 12), ("locked_expert", -1)])
def test_a_control_out_of_range_is_refused_and_nothing_moves(trait, value):
    widget = map_of()
    before = widget.summary
    with pytest.raises(TraitError, match=f"{trait} is "):
        setattr(widget, trait, value)
    assert widget.summary == before


def test_without_a_null_there_is_no_random_router():
    with pytest.raises(TraitError, match="this map has model"):
        map_of(null=False).router = "null"


@pytest.mark.parametrize("change", [{"layer": 1}, {"router": "null"}])
def test_an_expert_is_let_go_where_its_number_means_another(change):
    widget = map_of()
    widget.locked_expert, widget.locked_token = 3, 4
    widget.set_state(change)  # as the browser sends it
    assert widget.locked_expert is None and widget.locked_token == 4


def test_layers_may_differ_in_their_experts():
    sizes = 12, 5
    widget = RoutingMap([routing_of(logits_of(6, n), 3) for n in sizes], origin="toy")
    widget.k = 9
    widget.layer = 1
    assert widget.k == 5 and widget.shown.num_experts == 5


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_summary_is_true():
    widget = map_of(num_shared=2)
    shown = widget.shown
    busiest = int(shown.load.argmax())
    assert f"Busiest: expert {busiest}, chosen by {int(shown.load.max())} of 21 tokens" in widget.summary
    assert "+ 2 shared experts see every token" in widget.summary and "what-if" not in widget.summary
    widget.locked_expert = busiest
    assert f"Expert {busiest} is chosen by {int(shown.load.max())} of 21 tokens" in widget.summary
    widget.locked_token = 4
    best = int(shown.expert_ids[4, 0])
    assert f"Token 4 'e' goes to experts {best} ({shown.weights[4, 0]:.2f})" in widget.summary
    widget.k = 4
    assert "what-if: the model ran with K = 3" in widget.summary


def test_numbers_are_rounded_as_javascript_does():
    assert [fixed(x, 2) for x in (0.125, 0.375, 1 / 3, 0.0, 2.5)] == ["0.13", "0.38", "0.33", "0.00", "2.50"]


def test_tokens_without_shape_get_one():
    assert [visible(t) for t in (" ", "\n", "\x00", "\u202e", "\ud800", "", "a b", "👨\u200d👩")] == [
        "␣", "⏎", "U+0000", "U+202E", "\ufffd", "∅", "a b", "👨\u200d👩"]


def test_any_token_survives_the_trip():
    widget = map_of(HOSTILE)
    widget.locked_token = HOSTILE.index("\ud800")
    (widget.summary + repr(widget) + "".join(widget.tokens)).encode("utf-8")  # a lone surrogate would raise
    assert "'\ufffd'" in widget.summary and bundle_of(widget)["image/png"]


# --- text ------------------------------------------------------------------------------------------------------------


def test_a_new_text_is_routed():
    widget = bytes_map()
    widget.locked_token, widget.locked_expert, widget.k = 7, 2, 5
    widget.set_state({"text": "sun"})
    assert widget.tokens == ["s", "u", "n"] and widget.shown.num_tokens == 3
    assert (widget.locked_token, widget.locked_expert, widget.k) == (None, 2, 5)


def test_an_empty_text_asks_no_model():
    widget = bytes_map()
    widget._on_text = lambda text: pytest.fail("the model was asked")
    widget.text = ""
    assert widget.tokens == [] and "The text is empty" in widget.summary


def test_a_refused_text_is_explained_and_the_last_picture_stays():
    def refuse(text):
        raise ValueError("this model reads ASCII only")

    widget = bytes_map()
    widget._on_text, before = refuse, widget.summary
    widget.set_state({"text": "é"})
    assert widget.problem == "this model reads ASCII only" and widget.summary == before
    widget._on_text = lambda text: ([routing_of(logits_of(1, 12), 3)] * 2, None)
    widget.text = "a"
    assert widget.problem == "" and widget.tokens == ["a"]


def test_a_text_over_the_limit_is_refused_in_bytes():
    widget = bytes_map()
    widget.text = "é" * 120
    assert widget.problem == ""
    widget.text = "é" * 121
    assert widget.problem == "The text is 242 bytes long; the map reads at most 240. Shorten it."
    assert len(widget.tokens) == 240
    short = bytes_map(max_bytes=4)
    short.text = "12345"
    assert short.problem == "The text is 5 bytes long; the map reads at most 4. Shorten it."


def test_a_crash_of_the_model_is_told_and_not_swallowed():
    def crash(text):
        raise RuntimeError("out of memory")

    widget = bytes_map()
    widget._on_text = crash
    with pytest.raises(RuntimeError):
        widget.text = "a"
    assert widget.problem == "The model failed on this text: RuntimeError: out of memory"


def test_a_model_that_changes_its_size_is_refused():
    widget = bytes_map()
    widget._on_text = lambda text: ([routing_of(logits_of(1, 9), 3)] * 2, None)
    widget.text = "a"
    assert "on_text returned N = [9, 9]" in widget.problem and widget.sizes == [12, 12]


def test_a_lone_surrogate_in_the_text_is_replaced():
    widget = bytes_map()
    widget.set_state({"text": "a\ud800"})
    assert widget.text == "a\ufffd" and len(widget.tokens) == 4


def test_the_browser_receives_one_message_per_text(monkeypatch):
    widget, sent = bytes_map(), []
    monkeypatch.setattr(type(widget.comm), "kernel", "there", raising=False)  # without one, ipywidgets 7 sends nothing
    widget.send_state = lambda key=None: sent.append({key} if isinstance(key, str) else set(key))
    widget.set_state({"text": "sun"})
    data = [keys for keys in sent if "logits" in keys]
    assert len(data) == 1 and {"tokens", "logits"} <= data[0]


def test_gates_are_read_from_routers_mappings_and_gates():
    router = Router(4, 6, 2, score="sigmoid", scale=2.0)
    assert Gate.of(router) == Gate.of({"score": "sigmoid", "scale": 2.0, "bias": [0.0] * 6}) == Gate.of(Gate.of(router))


# --- a model's own map -----------------------------------------------------------------------------------------------


def test_the_map_of_a_model_shows_its_routing_beside_a_null_and_follows_the_text():
    sparse = Sparse(8, 2, 8, num_shared=1, scale=2.0)
    model = LanguageModel(ModelConfig((Dense(16), sparse, sparse), layers=3, width=16, heads=2, context=24)).eval()
    widget = RoutingMap.of_model(model, "abc", origin="toy")
    first, second = (routing for routing in model.route("abc") if routing is not None)
    assert widget.sizes == [8, 8] and widget.num_shared == 1 and widget.max_bytes == 24 and widget.origin == "toy"
    assert torch.equal(widget.shown.expert_ids, first.expert_ids)
    widget.layer = 1
    assert torch.equal(widget.shown.expert_ids, second.expert_ids)
    widget.router = "null"
    assert not torch.allclose(widget.shown.logits, second.logits)
    widget.text = "another"
    assert widget.tokens == list("another") and widget.problem == ""
    widget.text = "x" * 25
    assert "at most 24" in widget.problem and widget.tokens == list("another")


def test_a_dense_model_has_no_map():
    with pytest.raises(ValueError, match="no MoE layer"):
        RoutingMap.of_model(LanguageModel(ModelConfig(Dense(16), layers=1, width=16, heads=2)), "abc")
