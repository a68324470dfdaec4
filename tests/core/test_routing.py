"""The routing record: shapes are checked, figures have closed forms, a file gives back what was saved."""

import pytest
import torch

from moe_lesson import Routing
from moe_lesson.moe.routing import idle_experts, load_cv, load_entropy, max_violation

LOGITS = torch.tensor([[0.0, 1.0, 2.0], [3.0, 2.0, 1.0], [0.0, 5.0, 4.0], [9.0, 8.0, 7.0]])
IDS = torch.tensor([[2, 1], [0, 1], [1, 2], [0, 1]])
WEIGHTS = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1], [0.5, 0.5]])


def routing(tokens=None):
    return Routing(LOGITS, IDS, WEIGHTS, tokens)


def test_sizes_and_load():
    r = routing()
    assert (r.num_tokens, r.num_experts, r.top_k) == (4, 3, 2)
    assert r.load.tolist() == [2, 4, 2]


def test_gates_write_the_weights_out_over_all_experts():
    expected = torch.tensor([[0.0, 0.3, 0.7], [0.6, 0.4, 0.0], [0.0, 0.9, 0.1], [0.5, 0.5, 0.0]])
    assert torch.equal(routing().gates, expected)
    twice = Routing(torch.zeros(1, 3), torch.tensor([[2, 2]]), torch.tensor([[0.3, 0.7]]))  # as after two experts were merged
    assert twice.gates.tolist() == [[0, 0, 1]]


def test_balance_figures_at_their_extremes():
    n, t = 4, 8
    even = Routing(torch.zeros(t, n), torch.arange(t)[:, None] % n, torch.ones(t, 1))
    collapsed = Routing(torch.zeros(t, n), torch.zeros(t, 1, dtype=torch.long), torch.ones(t, 1))
    assert max_violation(even.load) == 0 and load_entropy(even.load) == pytest.approx(1)
    assert max_violation(collapsed.load) == n - 1 and load_entropy(collapsed.load) == 0
    assert load_cv(even.load) == 0 == idle_experts(even.load) and idle_experts(collapsed.load) == n - 1


def test_a_load_between_them_has_the_variation_that_it_has_by_hand():
    assert load_cv(routing().load) == pytest.approx(8 ** -0.5)  # loads 2, 4, 2: variance 8/9, mean 8/3
    assert max_violation(routing().load) == pytest.approx(0.5) and idle_experts(torch.tensor([0, 3, 0, 1])) == 2


def test_no_tokens_at_all():
    empty = Routing(torch.zeros(0, 3), torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2), ())
    assert empty.load.tolist() == [0, 0, 0] and max_violation(empty.load) == 0 and load_entropy(empty.load) == 1


@pytest.mark.parametrize("arguments, message", [
    ((LOGITS[0], IDS, WEIGHTS), r"logits have shape \(3,\); expected \[T tokens, N experts\]"),
    ((LOGITS, IDS, WEIGHTS[:, :1]), "must both be"),
    ((LOGITS, IDS[:2], WEIGHTS[:2]), "2 rows of expert_ids for 4 rows of logits"),
    ((LOGITS, IDS.repeat(1, 2), WEIGHTS.repeat(1, 2)), "K = 4 experts chosen out of N = 3"),
    ((LOGITS, IDS, WEIGHTS, ("a",)), "1 token texts for T = 4"),
    ((LOGITS, IDS + 1, WEIGHTS), "expert_ids go from 1 to 3; the 3 experts are 0 … 2"),
    ((LOGITS, IDS - 1, WEIGHTS), "expert_ids go from -1 to 1; the 3 experts are 0 … 2"),
])
def test_shapes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Routing(*arguments)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_ids_may_come_in_any_dtype_of_whole_numbers(dtype):
    assert torch.equal(Routing(LOGITS, IDS.to(dtype), WEIGHTS).gates, routing().gates)


def test_detach_leaves_no_gradient():
    r = Routing(LOGITS.clone().requires_grad_(), IDS, WEIGHTS.clone().requires_grad_())
    assert not r.detach().logits.requires_grad and not r.detach().weights.requires_grad
