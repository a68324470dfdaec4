"""The kit that all widgets are made of: mathematics and the model in JavaScript, what Python sends, what it leaves behind."""

import base64
import hashlib
import importlib
import math
import pathlib
import re
import subprocess
import sys
import textwrap
import types
import unicodedata
from dataclasses import asdict

import numpy as np
import pytest
import torch
from routing_map.cases import map_of
from routings import PLAIN, logits_of
from specialisation_view.cases import censuses

from moe_lesson import Dense, LanguageModel, ModelConfig, Sparse
from moe_lesson.base.text import visible
from moe_lesson.base.tokens import MERGES, VOCABULARY, decode, encode, shown_bytes, token_bytes, token_texts
from moe_lesson.lm.checkpoints import shipped_model
from moe_lesson.lm.model import listening
from moe_lesson.moe.layers import Router
from moe_lesson.teach.design import colour_of
from moe_lesson.widgets import (
    CapacityView,
    ContributionView,
    FactFinder,
    RouterGame,
    RouterMicroscope,
    RoutingMap,
    SpecialisationView,
    TokenWay,
)
from moe_lesson.widgets.kit.base import KIT, VIEW, colab_metadata, module_source, palette
from moe_lesson.widgets.kit.gates import Gate
from moe_lesson.widgets.kit.weights import SENT, weights_of

TESTS, WIDGETS, TOOLS = str(pathlib.Path(__file__).parents[1]), KIT.parent, pathlib.Path(__file__).parents[3] / "tools"
TEXTS = ("", "a", "The moon rose over the quiet sea.", "def route(x):\n\treturn x", "中文字", "😀👨\u200d👩\u200d👧", "é\u0301 ñ",
         "\ufeffmark", "\x00\x7f\x1b", "\u202egnp.exe", "\ud800 half", "مرحبا", "שלום", "a" * 256, "中" * 85, "0123456789 " * 23,
         "x = {1: [2]}", "¡Hola! ¿Qué tal?", "line one\r\nline two", "∑ xᵢ ≤ ∞")
CLASSES = ("".join(map(chr, range(256))), "a1 b2  c3\n\n  \t\t d\n", "\0\0 \0a \0", "\u200b\u2060\u00ad\ufeff",
           "x" * 999 + "中" * 99, "    return  sum(values) / len(values)  # 你好, the namespace\n\n        def instance(): ...",
           "\udc00\ud800 \ud83d")


def bits(tensor) -> str:
    return base64.b64encode(tensor.detach().float().numpy().tobytes()).decode()


# --- mathematics: the browser computes what the package computes --------------------------------------------------------


def gates() -> dict[str, tuple]:
    """Logits, K and a gate: the corners where two implementations part ways. Ties are JavaScript's own, see below."""
    bare, sigmoid = Gate(renormalise=False, scale=16.0), Gate("sigmoid", scale=2.5)
    return {
        "softmax": (logits_of(21, 12), 3, PLAIN),
        "k = N": (logits_of(21, 12), 12, PLAIN),
        "k = 1": (logits_of(21, 12), 1, bare),
        "a temperature near zero": (1e2 * logits_of(30, 12), 3, PLAIN),
        "a temperature near infinity": (1e-6 * logits_of(30, 12), 3, PLAIN),
        "sigmoid": (logits_of(30, 12), 3, sigmoid),
        "sigmoid of almost nothing": (logits_of(30, 12) - 160, 3, sigmoid),
        "bias chooses and does not weigh": (logits_of(30, 12), 3, Gate("sigmoid", bias=tuple(np.linspace(-0.5, 0.5, 12)))),
        "not renormalised, scaled": (logits_of(30, 12), 3, bare),
        "an expert that is masked": (np.array([[0.0, -math.inf, 1.0], [2.0, -math.inf, 1.0]], np.float32), 2, PLAIN),
        "one expert": (logits_of(5, 1), 1, PLAIN),
        "many idle experts": (logits_of(3, 200), 2, PLAIN),
    }


def golden_gate(name: str, logits: np.ndarray, k: int, gate: Gate) -> dict:
    logits_TN = torch.from_numpy(logits)
    routing = gate.route(logits_TN, k)
    T, N = logits_TN.shape
    same = [len(set(routing.expert_ids[0].tolist()) & set(ids)) for ids in routing.expert_ids.tolist()]
    return {"name": name, "logits": bits(logits_TN), "T": T, "N": N, "k": k, "gate": asdict(gate),
            "ids": routing.expert_ids.flatten().tolist(), "weights": routing.weights.flatten().tolist(),
            "load": routing.load.tolist(), "common": same}


def golden_model(name: str, model: LanguageModel, texts=TEXTS) -> dict:
    read = []
    for text in texts:
        with torch.no_grad(), listening([block.attention_norm for block in model.blocks[1:]] + [model.norm]) as after, \
                listening([block.ffn_norm for block in model.blocks]) as before:
            logits = model(torch.tensor([encode(text, model.config.vocabulary)], dtype=torch.long))[0]
        routings = model.route(text)
        layers = [{"ids": routing.expert_ids.flatten().tolist(), "weights": routing.weights.flatten().tolist(),
                   "added": bits(end - start)}
                  for routing, start, end in zip(routings, before, after) if routing is not None]
        read.append({"text": text, "tokens": list(routings[-1].tokens), "logits": bits(logits), "layers": layers})
    return {"name": name, "file": base64.b64encode(weights_of(model).data).decode(), "texts": read}


def models() -> dict[str, LanguageModel]:
    torch.manual_seed(0)
    recipes = Dense(24), Sparse(7, 3, 8, score="sigmoid", renormalise=False, scale=2.5)
    mixed = LanguageModel(ModelConfig(recipes, width=16, heads=2, context=256, vocabulary=300))
    sparse = Sparse(12, 3, 8, num_shared=1)
    tokens = LanguageModel(ModelConfig(sparse, width=16, heads=2, context=256)).eval()
    mixed.blocks[1].ffn.router.bias.normal_(std=0.3)
    return {"deepseekmoe": shipped_model("ladder-deepseekmoe")[0], "16 bits": shipped_model("ladder-gshard")[0],
            "sigmoid, bias, 300 tokens": mixed.eval(), "1,024 tokens": tokens}


def assigned() -> str:
    """Every character that Unicode has given a meaning, a line each."""
    return "\n".join(char for char in map(chr, range(0x110000)) if unicodedata.category(char) not in ("Cn", "Co", "Cs"))


def golden_vocabulary(vocabulary: int) -> dict:
    texts = (*TEXTS, *CLASSES, *([assigned()] if vocabulary == VOCABULARY else []))
    random, read, cuts = np.random.default_rng(vocabulary), [], []
    for text in texts:
        ids = encode(text, vocabulary)
        read.append({"text": text, "ids": ids, "names": token_texts(ids)})
        cuts += [{"text": text, "most": most, "cut": cut(ids, most)} for most in (0, 1, 2, 3, 5, 8, 13, 21) if len(ids) < 9999]
    drawn = [random.integers(0, vocabulary, 30).tolist() for _ in range(200)]
    parts = b"\xe4", b"\xb8", b"\xad", b"a", b"\xff", b"\xf0\x9f\x98", b"\xf0\x9f\x98\x80"  # of 中 and 😀
    drawn += [list(b"".join(parts[i] for i in random.integers(0, len(parts), 20))) for _ in range(200)]
    return {"size": vocabulary, "merges": [i for pair in MERGES[:vocabulary - 256] for i in pair], "texts": read, "cuts": cuts,
            "drawn": [{"ids": ids, "names": token_texts(ids)} for ids in drawn]}


def golden_names() -> dict:
    """Names in a vocabulary that has whole characters of several bytes, and two halves of them, as tokens."""
    merges = [(0xc3, 0xa9), (0x20, 256), (0xa9, 0xc3), (256, 256)]
    ids = [256, 257, 0xc3, 258, 0xa9, 259, 97, 258]
    parts = [token_bytes(merges)[i] for i in ids]
    names = shown_bytes(b"".join(parts), list(map(len, parts)))
    return {"merges": [i for pair in merges for i in pair], "ids": ids, "names": names}


def cut(ids: list[int], most: int) -> str:
    """The longest text of whole characters that the first tokens are; it has these tokens again."""
    for kept in range(min(most, len(ids)), -1, -1):
        try:
            return decode(ids[:kept]).decode()
        except UnicodeDecodeError:
            pass
    raise AssertionError("the empty text is a text")


def test_javascript_computes_what_python_does(node):
    vectors = {"gates": [golden_gate(name, *case) for name, case in gates().items()],
               "models": [golden_model(name, model) for name, model in models().items()],
               "vocabularies": [golden_vocabulary(size) for size in (256, 300, VOCABULARY)], "characters": golden_names()}
    names = ("dense", "dense of total size", "gshard", "GShard×1.5", "gshard ×1.5", "fine", "deepseekmoe, bias", "2 of 16",
             "z-loss", "cut in 4", "finer", "mixture of experts")
    vectors["colours"] = [[name, colour_of(name)] for name in names]
    printed = node("kit/kit.test.mjs", vectors)
    assert f"pass {len(vectors['gates']) + 4 * len(TEXTS) + 3 * 3 + 9}" in printed  # every case ran


@pytest.mark.parametrize("vocabulary", [256, 300, VOCABULARY])
def test_a_text_that_is_cut_after_a_token_has_the_tokens_before_the_cut(vocabulary):
    for text in TEXTS + CLASSES:
        ids = encode(text, vocabulary)
        for kept in range(len(ids)):
            assert encode(decode(ids[:kept]), vocabulary) == ids[:kept]


def test_a_gate_is_the_routers():
    torch.manual_seed(0)
    for settings in ({}, {"score": "sigmoid"}, {"renormalise": False, "scale": 2.5}):
        router = Router(16, 12, 3, **settings)
        router.bias.copy_(0.1 * torch.randn(12))
        with torch.no_grad():
            routing = router(torch.randn(30, 16))
        again = Gate.of(router).route(routing.logits, 3)
        assert torch.equal(again.expert_ids, routing.expert_ids)
        assert torch.allclose(again.weights, routing.weights.double(), atol=1e-6)
        assert Gate.of(router) == Gate.of(Gate.of(router))


# --- one module for the browser, out of several ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(WIDGETS.glob("[!k]*/view.js")), ids=lambda path: path.parent.name)
def test_a_module_needs_nothing_from_elsewhere(path):
    source = module_source(path)
    own = source.replace((KIT / "d3.js").read_text().splitlines()[0], "")
    assert not any(line.lstrip().startswith("import ") for line in source.splitlines())
    assert not any(word in own for word in ("http://", "https://", "innerHTML", "fetch(", "eval(", "import("))
    assert source.count("export default") == 1


@pytest.mark.parametrize("path", sorted(WIDGETS.glob("*/*.js")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_a_module_imports_it_uses(path):
    source = path.read_text()
    for imported in re.findall(r"^import \{([^}]*)\} from", source, flags=re.M):
        code = re.sub(r"^import \{[^}]*\} from.*$", "", source, flags=re.M)
        unused = [name for name in re.findall(r"\w+", imported) if not re.search(rf"\b{name}\b", code)]
        assert not unused


IMPORTS = re.compile(r"^import \{([^}]*)\}\s+from \"([^\"]+)\";", re.M)


def test_what_a_module_exports_another_one_or_a_test_imports():
    modules = [path for path in WIDGETS.glob("*/*.js") if path.name != "d3.js"]
    used = {((path.parent / there).resolve(), name) for path in [*modules, *pathlib.Path(TESTS).glob("*/*.mjs")]
            for names, there in IMPORTS.findall(path.read_text()) for name in re.findall(r"\w+", names)}
    for path in modules:
        exported = re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", path.read_text(), re.M)
        assert not [name for name in exported if (path, name) not in used], path


def test_d3_has_what_is_used_of_it_and_nothing_else():
    bundled = re.findall(r"\w+", " ".join(re.findall(r"^export \{(.*)\}", (TOOLS / "d3/d3.js").read_text(), re.M)))
    used = {name for path in WIDGETS.glob("*/*.js") if path.name != "d3.js"
            for name in re.findall(r"\bd3\.(\w+)", path.read_text()) if name != "js"}
    assert used | {"transition"} == set(bundled)


def test_the_widget_to_begin_with_is_short():
    name = re.search(r"Copy `(\w+)` \(under 250 lines in all\)", (TOOLS.parent / "CONTRIBUTING.md").read_text())[1]
    assert sum(len(path.read_text().splitlines()) for path in (WIDGETS / name).glob("*.*")) < 250


def test_d3_is_what_its_checksum_says():
    digest, name = (KIT / "d3.sha256").read_text().split()
    assert hashlib.sha256((KIT / name).read_bytes()).hexdigest() == digest
    assert "Mike Bostock" in (KIT / "d3.LICENSE").read_text()


# --- what a notebook stores, and what stays in the kernel ------------------------------------------------------------------


def test_the_bundle_holds_the_view_and_a_line():
    widget = map_of()
    bundle = widget._repr_mimebundle_()[0]
    assert bundle[VIEW]["model_id"] == widget.model_id and bundle["text/plain"].startswith(repr(widget))
    assert repr(widget) == repr(map_of()) == "RoutingMap('routing map', synthetic)"
    widget.close()
    assert set(widget._repr_mimebundle_()[0]) == {"text/plain"}


def test_in_colab_a_widget_says_where_its_manager_is(monkeypatch):
    assert colab_metadata() == {}
    colab = types.SimpleNamespace(_widgets=types.SimpleNamespace(_installed_url="there"))
    monkeypatch.setitem(sys.modules, "google.colab.output", colab)
    assert colab_metadata()[VIEW]["colab"]["custom_widget_manager"]["url"] == "there"


RERUN = textwrap.dedent("""
    import gc, sys
    sys.path.insert(0, sys.argv[1])
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    shell.run_cell("from routing_map.cases import map_of")
    from moe_lesson.widgets.kit.base import LIVE
    runs = 0
    def run(cell, code, times, kind="execute_request"):
        global runs
        for _ in range(times):
            runs += 1
            parent = {"header": {"msg_id": str(runs), "msg_type": kind}}
            parent |= {"metadata": {"cellId": cell}} if kind == "execute_request" else {"content": {"comm_id": cell}}
            shell.get_parent = lambda: parent
            shell.run_cell(code).raise_error()
        gc.collect()
        return len(LIVE)
    print(run("a", "w = map_of()", 50), run("b", "w = map_of()", 1), run("c", "pair = map_of(), map_of()", 3),
          run("slider", "w = map_of()", 20, "comm_msg"), end=" ")
    from ipywidgets import Widget
    from ipywidgets.widgets import widget
    print(len(getattr(widget, "_instances", None) or Widget.widgets))
""")


def test_a_cell_that_runs_again_closes_its_own_widgets_alone():
    done = subprocess.run([sys.executable, "-c", RERUN, TESTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # fifty runs leave one; another cell of the same source is another cell; two in one cell are siblings; a slider leaves one
    assert done.stdout.split() == ["1", "2", "4", "5", "10"]  # each with its layout, and nothing else


def test_outside_a_notebook_nothing_is_closed():
    first, second = map_of(), map_of()
    assert first.comm is not None and second.comm is not None


def test_weights_travel_once_for_each_model_and_leave_with_the_last_widget():
    config = ModelConfig(Sparse(4, 2, 8), width=16, heads=2)
    one, other = LanguageModel(config).eval(), LanguageModel(config, seed=1).eval()
    maps = [RoutingMap.of_model(model, "abc") for model in (one, one, other)]
    assert maps[0].weights == maps[1].weights != maps[2].weights
    ids = {weights.model_id for weights in SENT.values()}
    maps[0].close()
    assert {weights.model_id for weights in SENT.values()} >= {maps[1].weights, maps[2].weights}
    maps[1].close()
    left = {weights.model_id for weights in SENT.values()}
    assert maps[0].weights in ids and maps[0].weights not in left and maps[2].weights in left


def test_without_anywidget_the_widgets_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(ImportError, match="pip install anywidget ipywidgets"):
        importlib.reload(sys.modules["moe_lesson.widgets"])


WORDS, SMALL = "the sea and the moon and the sea", ModelConfig(Sparse(8, 2, 8, num_shared=1), width=16, heads=2, context=64)


@pytest.mark.parametrize("make, traits", [
    (lambda model, one: CapacityView.of_model(model, WORDS, seed=one), ("seed",)),
    (lambda model, one: ContributionView.of_model(model, WORDS, seed=one), ("seed",)),
    (lambda model, one: RouterGame.of_model(model, [WORDS], seed=one), ("seed",)),
    (lambda model, one: RouterMicroscope.of_model(model, WORDS, one, seed=one, token=one), ("seed", "token", "layer")),
    (lambda model, one: SpecialisationView.of_census(censuses(), seed=one), ("seed",)),
    (lambda model, one: TokenWay(model, WORDS, one), ("locked_token",)),
], ids="capacity contribution game microscope specialisation way".split())
def test_a_whole_number_of_numpys_is_one(make, traits):
    widget = make(LanguageModel(SMALL).eval(), np.int64(1))
    assert [getattr(widget, trait) for trait in traits] == [1] * len(traits)


@pytest.mark.parametrize("kind", [CapacityView, ContributionView, RouterMicroscope, RoutingMap, TokenWay])
@pytest.mark.parametrize("text", [5, b"abc"])
def test_what_is_no_text_is_refused(kind, text):
    with pytest.raises(ValueError, match=f"the text has type {type(text).__name__}; expected a string"):
        getattr(kind, "of_model", kind)(LanguageModel(SMALL).eval(), text)


@pytest.mark.parametrize("kind", [FactFinder, SpecialisationView])
def test_a_widget_of_nothing_is_refused(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\(\) has nothing to show; help\({kind.__name__}\) says"):
        kind()


def test_tokens_without_shape_get_one():
    assert [visible(t) for t in (" ", "\n", "\x00", "\u202e", "\ud800", "", "a b", "👨\u200d👩")] == [
        "␣", "⏎", "␀", "U+202E", "\ufffd", "∅", "a b", "👨\u200d👩"]


# --- one design file --------------------------------------------------------------------------------------------------------

STRAY = re.compile(r"#[0-9a-fA-F]{3,8}\b|(?<!d3\.)\b(?:rgb|hsl|hwb|lab|lch)a?\(|\bfont(?:-size)?\b[^;\n]*?\d(?:px|pt|r?em)\b")


@pytest.mark.parametrize("path", [path for end in ("js", "css") for path in sorted(WIDGETS.glob(f"*/*.{end}"))
                                  if path.name not in ("d3.js", "design.js")], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_colour_and_a_size_of_type_stand_in_the_design_file_alone(path):
    assert STRAY.findall(path.read_text()) == []


@pytest.mark.parametrize("path", sorted(WIDGETS.glob("*/*.css")), ids=lambda path: path.parent.name)
def test_a_style_uses_no_variable_that_nobody_sets(path):
    source = path.read_text()
    used = set(re.findall(r"var\(--(moe-[\w-]+)", source))
    assert used <= set(re.findall(r"--(moe-[\w-]+):", palette() + source))
