"""The ways of `grouped`: each equals the loop in output and all gradients, the sums are exact, a graph waits for nothing."""

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode

from moe_lesson import LanguageModel, ModelConfig, MoE, Sparse
from moe_lesson.moe import dispatch, rows
from moe_lesson.moe.routing import Routing
from moe_lesson.moe.rows import Combine, Gather, by_expert

SIZES = [  # tokens, width, num_experts, top_k, expert_width
    (33, 16, 8, 2, 8),
    (1, 16, 8, 3, 8),
    (0, 16, 8, 3, 8),
    (9, 12, 5, 5, 3),  # all experts active; widths that torch's grouped kernel can't take
    (7, 8, 1, 1, 4),
]


def routed(tokens, num_experts, top_k, idle=(), dtype=torch.float64):
    """A routing with weights of its own, so that their gradient can be looked at; `idle` experts get no token."""
    scores = torch.rand(tokens, num_experts, dtype=dtype, generator=torch.Generator().manual_seed(0))
    scores[:, list(idle)] -= 1
    weights, ids = scores.topk(top_k)
    return Routing(scores, ids, weights.requires_grad_())


def experts(width, num_experts, expert_width, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    shapes = (num_experts, width, 2 * expert_width), (num_experts, expert_width, width)
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("way", [dispatch.at_once, dispatch.in_chunks])
@pytest.mark.parametrize("sizes", SIZES)
def test_every_way_equals_the_loop_in_output_and_all_gradients(way, sizes):
    tokens, width, num_experts, top_k, expert_width = sizes
    routing = routed(tokens, num_experts, top_k, idle=(0, 3) if num_experts - top_k > 2 else ())
    x = torch.randn(width, tokens, dtype=torch.float64).T.requires_grad_()  # neither is contiguous
    target = torch.randn(width, tokens, dtype=torch.float64).T
    leaves = [x, *experts(width, num_experts, expert_width), routing.weights]
    found = [[y, *torch.autograd.grad(y, leaves, target)] for y in (f(x, routing, *leaves[1:3]) for f in (way, dispatch.loop))]
    for ours, oracle in zip(*found, strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-12)


def test_gradcheck_at_once():
    routing = routed(3, 5, 2, idle=(1, 4))
    leaves = [torch.randn(3, 4, dtype=torch.float64).requires_grad_(), routing.weights, *experts(4, 5, 2)]
    assert torch.autograd.gradcheck(lambda x, weights, *w: dispatch.at_once(x, routing.reweighted(weights), *w), leaves)


def test_gather_and_combine_are_each_others_gradient_to_any_order():
    token_R, _, place_TK, _ = by_expert(routed(4, 6, 2))
    for function, rows_of in ((Gather, 4), (Combine, 8)):
        x = torch.randn(rows_of, 3, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, f=function: f.apply(x, token_R, place_TK).square(), x)
        assert torch.autograd.gradgradcheck(lambda x, f=function: f.apply(x, token_R, place_TK).square(), x)


def test_autocast_leaves_the_dtype_of_the_sums_also_on_a_gpu():
    routing = routed(5, 4, 2)
    token_R, _, place_TK, _ = (part.detach() for part in by_expert(routing))
    try:
        torch.set_autocast_enabled("cuda", True)  # torch.autocast does nothing where there is no GPU
        with FakeTensorMode():
            rows, token, place = (torch.empty(shape, dtype=dtype, device="cuda") for shape, dtype in (
                ((10, 3), torch.bfloat16), (token_R.shape, torch.long), (place_TK.shape, torch.long)))
            assert rows.sum(1).dtype == torch.float32 and Combine.apply(rows, token, place).dtype == torch.bfloat16
    finally:
        torch.set_autocast_enabled("cuda", False)


def test_sums_are_exact_in_bfloat16():
    routing = routed(50, 64, 16)
    token_R, _, place_TK, _ = by_expert(routing)
    many = torch.randn(50 * 16, 8).bfloat16()
    exact = many.double()[place_TK].sum(1).bfloat16()
    assert torch.equal(Combine.apply(many, token_R, place_TK), exact)
    x = torch.randn(50, 8).bfloat16().requires_grad_()
    Gather.apply(x, token_R, place_TK).backward(many)
    assert torch.equal(x.grad, exact)
    assert not torch.equal(sum(many[place_K] for place_K in place_TK.T), exact), "rounding each time would be seen"


@pytest.mark.parametrize("way", [dispatch.at_once, dispatch.in_chunks])
def test_bfloat16_is_close_to_float64(way):
    routing, leaves = routed(40, 16, 4), [torch.randn(40, 32, dtype=torch.float64).requires_grad_(), *experts(32, 16, 24)]
    exact = dispatch.loop(leaves[0], routing, *leaves[1:])
    low = way(leaves[0].bfloat16(), routing, *leaves[1:])
    assert low.dtype == torch.bfloat16 and (low - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("widths", [(5, 7), (8, 3), (4, 16)])
def test_padding_changes_no_product(widths):
    sizes = torch.tensor([3, 0, 4, 0])
    ends, (a, b) = sizes.cumsum(0).int(), widths
    some = torch.randn(7, a)
    for other in (torch.randn(4, a, b), torch.randn(4, b, a).transpose(1, 2), torch.randn(7, b)):
        found = rows.padded(some, other, ends)
        torch.testing.assert_close(found, rows.block_by_block(some, other, ends))
        assert found.is_contiguous(), "a compiled graph takes that for granted"


# ------------------------------------------------------------------------------------------------------------ which way


@pytest.mark.parametrize("compiling, taken", [(False, "in_chunks"), (True, "at_once")])
def test_a_cpu_goes_in_chunks_and_a_graph_at_once(compiling, taken, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    for name in ("in_chunks", "at_once"):
        monkeypatch.setattr(dispatch, name, lambda *arguments, name=name: name)
    assert dispatch.grouped(torch.zeros(2, 4), None, None, None) == taken
    assert dispatch.grouped(torch.zeros(2, 4, device="meta"), None, None, None) == "at_once"


# ---------------------------------------------------------------------------------------------------- in a compiled graph

WAITS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "bincount", "masked_select", "unique_dim", "_unique2"}


def recorded():
    """A backend that runs a graph as it is, and the operators of all graphs that it was given, forward and backward."""
    seen = []

    def keep(graph, inputs):
        seen.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return make_boxed_func(graph.forward)

    return seen, aot_autograd(fw_compiler=keep, bw_compiler=keep)


def test_a_compiled_block_is_one_graph_that_waits_for_no_value(monkeypatch):
    def wait(*_):
        raise AssertionError("the sizes of the blocks were waited for")

    monkeypatch.setattr(rows, "block_by_block", wait)
    monkeypatch.setattr(dispatch, "CHUNK_BYTES", 1)
    torch.compiler.reset()
    block = LanguageModel(ModelConfig(Sparse(8, 2, 16, 1), layers=1, width=32, heads=2, context=16)).blocks[0]
    x = torch.randn(2, 16, 32, requires_grad=True)
    seen, backend = recorded()
    y, routing = torch.compile(block, backend=backend, fullgraph=True, dynamic=False)(x)
    (y.square().sum() + routing.weights.sum()).backward()
    assert len(seen) == 2, "one graph forward, one backward"
    names = [str(target).split(".")[-2] for graph in seen for target in graph if "." in str(target)]
    assert names.count("grouped_product") == 6 and not WAITS & set(names)
    assert torch._dynamo.explain(block)(x).graph_break_count == 0


def test_a_compiled_layer_adds_nothing_by_index():
    """On a GPU that takes atomics: neither the output nor any gradient needs them."""
    torch.compiler.reset()
    seen, backend = recorded()
    x = torch.randn(6, 16, requires_grad=True)
    torch.compile(MoE(16, 8, 2, 8), backend=backend, fullgraph=True)(x)[0].square().sum().backward()
    assert len(seen) == 2 and not [name for graph in seen for name in map(str, graph) if "index_add" in name or "_put" in name]
