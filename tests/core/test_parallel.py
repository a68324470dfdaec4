"""Expert parallelism: what travels where, what it costs, and that a layer over several processes equals the whole layer."""

import copy
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import parallelize_module

from moe_lesson import MoE, Router
from moe_lesson.moe import parallel_demo
from moe_lesson.moe.layers import choose
from moe_lesson.moe.parallel import (
    ExpertParallel,
    bytes_per_token,
    deduplicated_counts,
    devices_visited,
    send_counts,
    straggler_factor,
)
from moe_lesson.moe.rows import block_ends
from moe_lesson.moe.zoo import device_limited, node_limited


def choices(tokens: int, num_experts: int, top_k: int, seed: int = 0) -> torch.Tensor:
    """[T, K] different experts for every token."""
    return torch.rand(tokens, num_experts, generator=torch.Generator().manual_seed(seed)).topk(top_k).indices


FOUR_DEVICES = [choices(tokens, 12, 5, seed=tokens) for tokens in (7, 0, 1, 30)]  # 3 experts on each

# ----------------------------------------------------------------------------------------------------- what travels where


def test_the_plan_of_two_devices_by_hand():
    first, second = torch.tensor([[3, 1], [0, 3], [1, 2]]), torch.tensor([[2, 3]])
    assert send_counts([first, second], num_experts=4).tolist() == [[3, 3], [0, 2]]


def test_every_row_leaves_once_and_reaches_the_device_of_its_expert():
    plan = send_counts(FOUR_DEVICES, 12)
    assert plan.sum(1).tolist() == [ids.numel() for ids in FOUR_DEVICES]
    for ids, counts in zip(FOUR_DEVICES, plan):
        ends_N = block_ends(ids, 12)  # rows leave sorted by expert: those for device p are those of its experts
        assert ends_N.diff(prepend=ends_N.new_zeros(1)).view(4, 3).sum(1).tolist() == counts.tolist()


def test_a_token_with_two_experts_on_a_device_visits_it_once():
    sets = [[{expert // 3 for expert in token} for token in ids.tolist()] for ids in FOUR_DEVICES]
    for ids, visited in zip(FOUR_DEVICES, sets):
        assert devices_visited(ids, 12, 4).tolist() == [len(devices) for devices in visited]
    once = [[sum(device in devices for devices in visited) for device in range(4)] for visited in sets]
    assert deduplicated_counts(FOUR_DEVICES, 12).tolist() == once
    assert (deduplicated_counts(FOUR_DEVICES, 12) <= send_counts(FOUR_DEVICES, 12)).all()


def test_a_step_waits_for_the_device_that_receives_most():
    assert straggler_factor(torch.tensor([[1, 3], [3, 1]])) == 1
    assert straggler_factor(torch.tensor([[4, 0], [4, 0]])) == 2
    assert straggler_factor(torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2]])) == 2
    assert straggler_factor(torch.zeros(2, 2, dtype=torch.long)) == 1


def bytes_sent(send_counts_PP, width, bytes_each=2):
    """By each device to others, forward and backward. A row's four journeys begin twice at either end: it and the gradient of its
    result, its result and the gradient of it."""
    away_PP = send_counts_PP.clone().fill_diagonal_(0)
    return (away_PP.sum(1) + away_PP.sum(0)) * 2 * width * bytes_each


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_the_bytes_of_a_token_are_those_of_the_plan_where_all_experts_are_chosen_equally(devices):
    ids = torch.stack([torch.arange(4).roll(i)[:3] for i in range(4)])  # 4 experts, 3 times each
    mean = bytes_sent(send_counts([ids] * devices, 4), width=16).sum().item() / (4 * devices)
    assert mean == bytes_per_token(top_k=3, devices=devices, width=16) == 8 * 3 * (1 - 1 / devices) * 16


# --------------------------------------------------------------------------------------------- routing that travels less


def groups_by_hand(scores: list[float], groups: int, limit: int, best: int) -> set[int]:
    """The `limit` best groups, in plain Python."""
    size = len(scores) // groups
    worth = [sum(sorted(scores[group * size:(group + 1) * size])[-best:]) for group in range(groups)]
    return set(sorted(range(groups), key=worth.__getitem__)[-limit:])


@pytest.mark.parametrize("closed_of, limit, best", [(device_limited, 3, 1), (node_limited, 4, 2)])
def test_a_token_goes_to_the_best_experts_of_its_best_groups(closed_of, limit, best):
    scores = torch.rand(50, 32, generator=torch.Generator().manual_seed(0))
    ids, _ = choose(scores, 8, closed_TN=closed_of(scores, 8))
    for row, chosen in zip(scores.tolist(), ids.tolist()):
        kept = groups_by_hand(row, 8, limit, best)
        expected = sorted((expert for expert in range(32) if expert // 4 in kept), key=row.__getitem__, reverse=True)[:8]
        assert chosen == expected
    assert devices_visited(ids, 32, 8).max() <= limit < devices_visited(choose(scores, 8)[0], 32, 8).max()


def test_the_sum_of_the_two_best_is_not_the_best_alone():
    scores = torch.tensor([[0.9, 0.0, 0.6, 0.6]])
    assert device_limited(scores, devices=2, limit=1).tolist() == [[False, False, True, True]]
    assert node_limited(scores, nodes=2, limit=1).tolist() == [[True, True, False, False]]


def test_a_token_with_fewer_than_k_open_experts_is_refused():
    scores, closed = torch.rand(5, 8), torch.zeros(5, 8, dtype=torch.bool)
    closed[3, :6] = True
    assert choose(scores, 2, closed_TN=closed)[0][3].sort().values.tolist() == [6, 7]
    with pytest.raises(ValueError, match="a token fewer than 3 .top_k. open experts"):
        choose(scores, 3, closed_TN=closed)
    graph = torch.compile(lambda scores, closed: choose(scores, 3, closed_TN=closed), backend="eager", fullgraph=True)
    assert graph(scores, closed)[0].shape == (5, 3), "a look at the values would break the graph"


def test_nothing_is_closed_where_all_groups_are_allowed_and_a_router_takes_the_mask():
    scores = torch.rand(6, 8)
    assert not node_limited(scores, nodes=4, limit=4).any()
    closed = device_limited(scores, devices=4, limit=1)
    assert (devices_visited(Router(16, 8, 2)(torch.randn(6, 16), closed_TN=closed).expert_ids, 8, 4) == 1).all()


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("call, message", [
    (lambda: send_counts([torch.zeros(2, 1, dtype=torch.long)] * 3, 16), "16 experts.*over 3; .*divides 16"),
    (lambda: send_counts([torch.tensor([[4, 0]])], 4), r"must be 0 … 3, but are \[4, 0\]"),
    (lambda: send_counts([torch.tensor([[-1, 0]])], 4), "must be 0 … 3"),
    (lambda: send_counts([], 4), "no device"),
    (lambda: devices_visited(torch.tensor([0, 1]), 4, 2), r"shape \(2,\).*\[T, K\]"),
    (lambda: devices_visited(torch.tensor([[0.0]]), 4, 2), "dtype torch.float32.*integers"),
    (lambda: devices_visited(torch.tensor([[0]]), 4, 0), "4 experts.*over 0"),
    (lambda: device_limited(torch.rand(2, 8), devices=3), "8 experts can't be 3 groups"),
    (lambda: node_limited(torch.rand(2, 16), limit=9), "kept is 9; expected 1 … 8"),
    (lambda: parallel_demo.run(), "no number of processes"),
    (lambda: parallel_demo.run(2, 3), "16 experts.*over 3"),
    (lambda: ExpertParallel()._apply(nn.Linear(2, 2), SimpleNamespace(size=lambda: 2)), "not Linear.*moe.experts"),
    (lambda: ExpertParallel()._apply(MoE(8, 4, 1, 2).experts, SimpleNamespace(size=lambda: 3)), "4 experts.*over 3"),
])
def test_bad_input_is_refused_with_the_value_and_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------------------------- in several processes


@pytest.fixture(scope="module")
def runs() -> dict[int, dict]:
    """What 2 and 4 processes found."""
    return {found["devices"]: found for found in parallel_demo.run(2, 4)}


@pytest.mark.parametrize("devices", [2, 4])
def test_a_layer_over_several_processes_is_the_whole_layer(runs, devices):
    differences = runs[devices]["differences"]
    layer = parallel_demo.layer()
    assert differences.keys() == {"output", "x", *(name for name, _ in layer.named_parameters())}
    assert max(differences.values()) < 1e-6
    (x, _), weight = parallel_demo.tokens_and_targets(), layer.router.weight
    if torch.equal((x @ weight)[:100], x[:100] @ weight):  # where a row of a product does not depend on the other rows
        assert {differences[name] for name in ("output", "x", "experts.w_in", "experts.w_out")} == {0.0}


@pytest.mark.parametrize("devices", [2, 4])
def test_the_processes_send_what_the_plan_says(runs, devices):
    found = runs[devices]
    send_counts = torch.tensor(found["send_counts"])
    assert send_counts.shape == (devices, devices) and send_counts.sum() == found["tokens"] * found["top_k"]
    assert found["received"] == send_counts.sum(0).tolist()
    rows, weights = bytes_sent(send_counts, found["width"], 4), bytes_sent(send_counts, 1, 4) // 2  # weights don't come back
    counts = 4 * found["num_experts"] * (devices - 1) // devices
    assert found["bytes_sent"] == (rows + weights + counts).tolist()
    assert found["seconds"].keys() == {"forward", "backward", "all_to_all"}
    for seconds in found["seconds"].values():
        assert len(seconds) == devices and min(seconds) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for Python")
def test_processes_that_die_are_reported_with_their_last_words(tmp_path, monkeypatch):
    (tmp_path / "python").write_text("#!/bin/sh\necho out of memory >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(RuntimeError, match="in 2 and 4 processes failed: out of memory"):
        parallel_demo.run(2, 4)


# ------------------------------------------------------------------------------------- one process, as a mesh of its own


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A mesh of this process."""
    meeting = (tmp_path_factory.mktemp("alone") / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=0, world_size=1, timeout=timedelta(minutes=2))
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def pair(alone, dtype, **sizes) -> tuple[MoE, MoE]:
    """A layer, and a copy of it whose experts are shared out."""
    torch.manual_seed(0)
    whole = MoE(**dict(width=16, num_experts=8, top_k=2, expert_width=12) | sizes).to(dtype)
    part = copy.deepcopy(whole)
    parallelize_module(part.experts, alone, ExpertParallel())
    return whole, part


@pytest.mark.parametrize("tokens", [0, 1, 9])
@pytest.mark.parametrize("dispatch", ["grouped", "loop"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shared_out_experts_compute_as_before(alone, tokens, dispatch, dtype):
    whole, part = pair(alone, dtype, dispatch=dispatch, num_shared=1)
    found = []
    for layer in (whole, part):
        x = torch.randn(16, tokens, dtype=dtype, generator=torch.Generator().manual_seed(1)).T.requires_grad_()
        y, routing = layer(x)
        y.T.contiguous().square().sum().backward()  # a gradient that is not contiguous
        found.append([y, x.grad, *(parameter.grad for parameter in layer.parameters())])
        assert y.dtype == dtype and routing.logits.shape == (tokens, 8)
    for ours, theirs in zip(*found):
        ours, theirs = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in (ours, theirs))
        rough = {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {}  # `loop` adds rounded rows in another order
        torch.testing.assert_close(ours, theirs, **rough)


def test_experts_are_dtensors_and_the_rest_is_not(alone):
    whole, part = pair(alone, torch.float32)
    shared_out = {name for name, parameter in part.named_parameters() if isinstance(parameter, DTensor)}
    assert shared_out == {"experts.w_in", "experts.w_out"}
    assert torch.equal(part.experts.w_in.full_tensor(), whole.experts.w_in)
    assert repr(part.experts) == "ShardedExperts()"
    with pytest.raises(ValueError, match="not ShardedExperts"):
        parallelize_module(part.experts, alone, ExpertParallel())


def test_autocast_sends_rows_in_bfloat16_and_weights_as_they_are(alone, monkeypatch):
    _, part = pair(alone, torch.float32)
    sent, send_all = [], dist.all_to_all_single

    def listened(out, x, *sizes, **group):
        sent.append((x.dtype, x.ndim))
        send_all(out, x, *sizes, **group)

    monkeypatch.setattr(dist, "all_to_all_single", listened)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = part(torch.randn(5, 16))
    assert y.dtype == torch.bfloat16
    assert sent == [(torch.int32, 2), (torch.bfloat16, 2), (torch.float32, 1), (torch.bfloat16, 2)]
