"""Every check refuses every wrong function that is one small change away from a right one, and no other.

A mutant is a solution, the learner's of solutions.py or the package's own, that is changed in one place. A check must refuse it
if it gives anything else than the solution for many random arguments, of which the check knows nothing.
"""

import ast
import copy
import inspect
import random
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest
import torch
from solutions import SOLUTIONS
from torch import Tensor

from moe_lesson.lm import real
from moe_lesson.measure import census, evidence, instruments, interventions, roofline
from moe_lesson.moe import balance, dispatch, layers, parallel, routing, rows, zoo
from moe_lesson.teach import checks
from moe_lesson.teach.checks import lesson06
from moe_lesson.teach.checks.kit import Check, traced
from moe_lesson.teach.checks.lesson09 import lines_that_wait
from moe_lesson.teach.checks.lesson11 import ToyModel

F = torch.nn.functional
OWN = {"load": [routing.expert_load], "ffn": [dispatch.swiglu, dispatch.ffn], "power_law": [evidence.power_law],
       "gate": [layers.gate], "choose": [layers.choose], "tokens_of": [dispatch.tokens_of], "combine": [dispatch.combine],
       "max_violation": [routing.max_violation], "balance_loss": [balance.shares, balance.balance_loss],
       "update_bias": [balance.update_bias], "labels_served": [instruments.labels_served],
       "output_similarity": [instruments.output_similarity], "cut_experts": [interventions.cut_experts],
       "cut_sizes": [lesson06.pieces],
       "topk_moe": [layers.MoE.forward], "mended": [layers.MoE.forward], "deepseekmoe": [lesson06.every_step],
       "verdict": [evidence.verdict],
       "information": [routing.entropy, census.information], "dealt_to_documents": [census.dealt_to_documents],
       "least_rows": [roofline.least_rows], "places": [rows.places], "block_ends": [rows.block_ends],
       "gather_backward": [rows.Combine.forward], "waiting_lines": [lines_that_wait],
       "send_counts": [parallel.devices_of, parallel.send_counts], "listen": [real.decided, real.listen],
       "best_in_groups": [zoo.outside_groups, zoo.in_groups, zoo.node_limited, zoo.best_in_groups]}
GRADIENTS = "ffn", "gate", "choose", "combine"  # through all arguments that are floats; balance_loss has one of its own
SLOW = "dealt_to_documents", "listen", "topk_moe", "mended", "deepseekmoe"  # whose wrong mutants differ at once
LEARNERS = {name: source for solved in SOLUTIONS.values() for name, source in solved.items()}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: ast.Mult, ast.Pow: ast.Mult,
             ast.FloorDiv: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq}
SWAPS = [pair.split() for pair in (
    "min max", "mean sum", "mean median", "sum max", "argmax argmin", "indices values", "log log2", "log10 log", "exp exp2",
    "sign abs", "softmax sigmoid", "silu relu", "silu sigmoid", "sigmoid tanh", "index_add index_copy", "zeros ones",
    "zeros_like ones_like", "low high", "low mean", "high mean", "stdev pstdev", "stdev variance", "fmean median", "cat stack",
    "load logits", "top_k num_experts", "num_tokens num_experts", "entr square", "xlogy xlog1py", "normalize softmax",
    "chunk split")]


def source_of(functions: list[Callable]) -> tuple[str, dict]:
    """The text of the package's functions, and the names that they use."""
    modules = [vars(sys.modules[function.__module__]) for function in functions]
    text = "\n".join(textwrap.dedent(inspect.getsource(function)) for function in functions)
    return text, {name: value for module in modules for name, value in module.items()}


def parsed(text: str) -> ast.Module:
    """The functions of a text without what computes nothing: docstrings, annotations, the refusal of bad input."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in node.args.args + node.args.kwonlyargs:
                argument.annotation = None
        if isinstance(node, ast.FunctionDef | ast.If):
            node.body = [step for step in node.body if not (isinstance(step, ast.Expr) and (
                isinstance(step.value, ast.Constant) or ast.unparse(step).startswith("require(")))]
    return tree


def variants(node: ast.AST, names: list[str]) -> Iterator[ast.AST | None]:
    """What one place may become; None leaves it out."""
    if type(node) in OPERATORS:
        yield OPERATORS[type(node)]()
        if isinstance(node, ast.Lt | ast.Gt):
            yield ast.Gt() if isinstance(node, ast.Lt) else ast.Lt()
    match node:
        case ast.BinOp():
            yield from (node.left, node.right, ast.Call(ast.Name("abs"), [node], []))
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield from (ast.Constant(other) for other in {node.value + 1, node.value - 1, -node.value} - {node.value})
        case ast.Constant(value=float()):
            yield from (ast.Constant(other) for other in (node.value * 1.02, node.value / 1.1, -node.value, 0.5, 1.0))
        case ast.Constant(value=str()):
            left, arrow, right = node.value.partition("->")
            yield ast.Constant(left + arrow + right[::-1])
            yield from (ast.Constant(other) for other in ("holds", "opposite", "open") if arrow == "" and other != node.value)
        case ast.Name(ctx=ast.Load()) if node.id in names:
            yield ast.Name(names[(names.index(node.id) + 1) % len(names)])
            yield ast.Call(ast.Attribute(node, "detach"), [], [])
        case ast.Attribute():
            yield from (ast.Attribute(node.value, other) for pair in SWAPS for name, other in (pair, pair[::-1])
                        if name == node.attr)
        case ast.Call():
            if isinstance(node.func, ast.Attribute):
                yield node.func.value
            yield from node.args[:1]
            if len(node.args) > 1:
                yield ast.Call(node.func, [*node.args[1::-1], *node.args[2:]], node.keywords)
        case ast.Subscript():
            yield node.value
        case ast.IfExp():
            yield from (ast.IfExp(node.test, node.orelse, node.body), node.body, node.orelse)
        case ast.Tuple(ctx=ast.Load()) if not any(isinstance(part, ast.Slice) for part in node.elts):
            yield ast.Tuple([*node.elts[1::-1], *node.elts[2:]], node.ctx)
            yield from (ast.Tuple([*node.elts[:i], ast.UnaryOp(ast.USub(), node.elts[i]), *node.elts[i + 1:]], node.ctx)
                        for i in range(len(node.elts)))
        case ast.Return():
            yield ast.Return(ast.UnaryOp(ast.USub(), node.value))
        case ast.If():
            yield from (ast.If(test, node.body, node.orelse) for test in (ast.UnaryOp(ast.Not(), node.test), ast.Constant(True)))
    if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef | ast.Import):
        yield ast.Pass()
    if isinstance(node, ast.keyword):
        yield None


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """All functions that differ from this one in one place, as text, and the line that differs."""
    tree = parsed(text)
    names = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
                   | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)})
    lines, seen = ast.unparse(tree).splitlines(), {ast.unparse(tree)}
    for parent in list(ast.walk(tree)):
        for field, value in list(ast.iter_fields(parent)):
            if isinstance(parent, ast.FunctionDef) and field != "body":
                continue
            for place, child in list(enumerate(value)) if isinstance(value, list) else [(0, value)]:
                for new in variants(child, names) if isinstance(child, ast.AST) else ():
                    changed = [*value[:place], *([new] if new else []), *value[place + 1:]] if isinstance(value, list) else new
                    setattr(parent, field, changed)
                    mutant = ast.unparse(ast.fix_missing_locations(tree))
                    if mutant not in seen:
                        seen.add(mutant)
                        yield mutant, "\n".join(line for line in mutant.splitlines() if line not in lines)
                    setattr(parent, field, value)


def built(name: str, text: str, names: dict) -> Callable:
    """The function of this name that a text defines."""
    space = names | {"__name__": "mutant"}
    exec(text, space)
    return space[name]


def routed(r: random.Random) -> routing.Routing:
    """Any choices, whatever the logits say."""
    t, n = r.randint(1, 9), r.randint(1, 7)
    ids = torch.rand(t, n).topk(r.randint(1, n)).indices
    return routing.Routing(torch.randn(t, n).double(), ids, torch.rand(ids.shape).double())


def sampled(r: random.Random) -> list:
    """A difference whose interval ends near 0, near a margin, or far from both; and the margin."""
    margin = r.choice([0.0, 0.01, 1.0])
    low, high = sorted(r.choice([0.002, 0.02, 2.0]) * r.uniform(-1, 1) for _ in range(2))
    return [evidence.Interval((low + high) / 2, low, high, 5), margin]


def layer_and_tokens(r: random.Random, **more) -> list:
    """A small layer, and tokens for it."""
    n = r.randint(2, 5)
    layer = layers.MoE(r.randint(1, 6), num_experts=n, top_k=r.randint(2, n), expert_width=r.randint(1, 4), **more)
    return [layer.double(), torch.randn(r.randint(1, 7), layer.router.width).double()]


def arguments(name: str, seed: int) -> list:
    """Arguments of an exercise: any sizes, ties, experts that nobody chose."""
    r = random.Random(seed)
    torch.manual_seed(seed)
    a, b, c, d = (r.randint(1, 6) for _ in range(4))

    def floats(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    def calls(rows: int, columns: int) -> Tensor:
        return 9 * torch.rand(rows, columns).double() * (torch.rand(rows, columns) < r.random())

    match name:
        case "load":
            ids = torch.rand(r.randint(0, 6), a).topk(r.randint(1, a)).indices
            return [ids, a + r.randint(0, 2)]
        case "tokens_of":
            return [r.randint(0, a), torch.rand(b, a).topk(r.randint(1, a)).indices]
        case "ffn":
            return [floats(a, b), floats(b, 2 * c), floats(c, b)]
        case "power_law":
            sizes = [10 ** r.uniform(2, 8) for _ in range(a + 1)]
            return [sizes, [r.uniform(1, 9) * size ** r.uniform(-0.3, 0.1) for size in sizes]]
        case "gate":
            return [floats(a, b), floats(b, c)]
        case "choose":
            return [floats(a, b).softmax(1), r.randint(1, b)]
        case "combine":
            many = r.randint(0, 6)
            return [floats(a, b), floats(many, b), torch.randint(0, a, (many,)), floats(many)]
        case "max_violation" | "update_bias":
            load = torch.randint(0, 9, (a,)) * (torch.rand(a) < r.random())
            load[r.randrange(a)] = 1 + r.randrange(9)
            load = load if r.random() < 0.8 else torch.full_like(load, b)
            return [load] if name == "max_violation" else [torch.randn(a), load, r.choice([0.001, 0.01, 0.5, 2])]
        case "balance_loss":
            return [routed(r)]
        case "labels_served":
            return [calls(a, b).round()]  # counted
        case "information":
            return [calls(a, b + 1) + (torch.arange(b + 1) < 2) * (torch.arange(a) == r.randrange(a))[:, None]]
        case "output_similarity":
            return [floats(a, b, c) * (floats(a, 1, 1)).exp()]
        case "cut_experts":
            return [floats(a, b, 2 * c * d), floats(a, c * d, b), c]
        case "cut_sizes":
            return [a + b, b, c * d, d, r.randrange(b * d)]
        case "deepseekmoe":
            return layer_and_tokens(r, num_shared=r.randint(1, 3), scale=r.random() * 3)
        case "topk_moe" | "mended":
            return layer_and_tokens(r)
        case "verdict":
            return sampled(r)
        case "places":
            return [torch.randint(a, (b, c))]
        case "gather_backward":
            order, place = rows.places(torch.randint(a, (b, c)))
            return [floats(b * c, d), order // c, place]
        case "waiting_lines":
            return []
        case "block_ends":
            return [torch.randint(a, (b, c)), a]
        case "least_rows":
            return [r.randint(30, 5000), r.randint(30, 5000), r.choice([*roofline.DEVICES.values()])]
        case "send_counts":
            return [[torch.randint(a * b, (r.randint(1, 5), c)) for _ in range(a)], a * b]
        case "best_in_groups":
            kept = r.randint(1, b)
            return [floats(a, b * (c + 1)) - 1, b, kept, r.randint(1, kept * (c + 1))]
        case "listen":
            return [ToyModel(a, b + c, b, seed), torch.randint(9, (d,)), "gate"]
        case "dealt_to_documents":
            names = torch.randperm(20)[:a]
            of_document, document = torch.randint(0, 3, (20,)), names[torch.cat([torch.arange(a), torch.randint(0, a, (9,))])]
            return [of_document[document], document]


def outcome(name: str, function: Callable, given: list) -> list:
    """What a function makes of its arguments: numbers, shapes and gradients, in the one form that all right answers have."""
    given = copy.deepcopy(given)
    if name == "dealt_to_documents":
        return deals(function, *given)
    if name in ("deepseekmoe", "topk_moe", "mended"):
        numbers, gradients = traced(function, *given)
        return [*numbers, numbers[1].requires_grad, *gradients]  # a balance loss must reach the logits
    if name == "listen":
        heard = function(*given)
        parts = [part for one in heard.values() for part in (one.logits, one.gates)]
        return [sorted(heard), given[0].runs, given[0].hooks(), *parts]
    if name == "block_ends":
        function(given[0].to("meta"), given[1])  # what makes a tensor elsewhere, or asks for a value, stops
    floating = [a.requires_grad_() for a in given if isinstance(a, Tensor) and a.is_floating_point() and name in GRADIENTS]
    if name == "balance_loss":
        floating = [given[0].logits.requires_grad_()]
    answer = function(*[a.clone() if isinstance(a, Tensor) else a for a in given])
    if name == "choose":
        answer = torch.zeros_like(given[0]).scatter(1, *answer)
    if name == "best_in_groups":
        answer = answer.sort(dim=1).values
    if name == "tokens_of":
        token, slot = answer
        assert token.ndim == 1 and token.shape == slot.shape
        answer = [token.is_floating_point(), *sorted(zip(token.tolist(), slot.tolist()))]
    if name == "waiting_lines":
        answer = sorted(answer)
    parts = list(answer) if isinstance(answer, tuple | list) else [answer]
    if floating:
        assert parts[0].requires_grad
        parts[0].square().sum().backward()
    return parts + [a.grad for a in floating]


def deals(function: Callable, label: Tensor, document: Tensor) -> list:
    """What must be so in every deal, whichever labels it gives to whom."""
    names, count = document.unique(), []
    for seed in range(5):
        new = function(label, document, seed)
        assert new.shape == label.shape and torch.equal(new, function(label, document, seed))
        each = [new[document == name].unique().tolist() for name in names]
        count.append(sorted(each) == sorted([label[document == name][0].item()] for name in names))
    three = torch.tensor([5, 5, 3, 8])
    return [*count, len({tuple(function(three - 1, three, seed).tolist()) for seed in range(100)})]


def alike(answers: list, wanted: list) -> bool:
    """Equal up to rounding."""
    def pair(answer, right) -> bool:
        if isinstance(right, Tensor | float):
            answer, right = torch.as_tensor(answer).double(), torch.as_tensor(right).double()
            return answer.shape == right.shape and torch.allclose(answer, right, rtol=1e-6, atol=1e-6)
        return answer == right

    return len(answers) == len(wanted) and all(map(pair, answers, wanted))


def right_everywhere(name: str, mutant: Callable, rights: list[tuple[list, list]]) -> bool:
    """Whether a mutant gives for all arguments what the solution gives."""
    try:
        return all(alike(outcome(name, mutant, given), right) for given, right in rights)
    except Exception:  # a mutant may raise anything
        return False


def misjudged(name: str, whose: str, check: Check) -> tuple[list[str], list[str]]:
    """The wrong mutants that pass, and the right ones that are refused, each with the sentence that its learner reads."""
    if whose == "package":
        function, (text, names) = check.reference.__name__, source_of(OWN[name])
    else:
        function, text, names = name, LEARNERS[name], {"torch": torch, "F": F, "Routing": routing.Routing,
                                                  "paired_difference": evidence.paired_difference}
    several = [arguments(name, seed) for seed in range(15 if name in SLOW else 150)]
    rights = [(given, outcome(name, check.reference, given)) for given in several]
    assert right_everywhere(name, built(function, ast.unparse(parsed(text)), names), rights)
    passed, refused = [], []
    for mutant, line in mutants(text):
        changed = built(function, mutant, names)
        sentence, passes = check.verdict(changed)
        if passes != right_everywhere(name, changed, rights):
            (passed if passes else refused).append(f"{line}\n    {sentence}")
    return passed, refused


def test_every_exercise_is_mutated():
    assert set(OWN) == set(LEARNERS) == set(checks.__all__)


def test_a_mutant_differs_in_one_place():
    text = "def two(a: int, b):\n    \"\"\"Text.\"\"\"\n    return a.sum(dim=0) < b"
    lines = {line.strip() for _, line in mutants(text)}
    assert {"return a.sum(dim=0) <= b", "return a.sum(dim=1) < b", "return a.mean(dim=0) < b", "return a.sum() < b", "pass",
            "return a.detach().sum(dim=0) < b", "return -(a.sum(dim=0) < b)", "return b.sum(dim=0) < b"} <= lines
    assert not any("Text" in line or "def" in line for line in lines)


def test_a_check_that_passes_all_or_nothing_is_found_out():
    right = checks.max_violation.reference
    (passed, none), (also_none, refused) = (
        misjudged("max_violation", "package", Check("", right, lambda attempt, said=said: said)) for said in (None, "no"))
    assert len(passed) > 20 and not none and not also_none and any("abs(" in line for line in refused)


@pytest.mark.parametrize("whose", ["learner", "package"])
@pytest.mark.parametrize("name", OWN)
def test_a_check_refuses_the_mutants_that_are_wrong_and_no_others(name, whose):
    passed, refused = misjudged(name, whose, getattr(checks, name))
    assert not passed, f"{name}, {whose}: these wrong functions pass:\n" + "\n".join(passed)
    assert not refused, f"{name}, {whose}: these right functions are refused:\n" + "\n".join(refused)
