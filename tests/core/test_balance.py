"""Balance: every loss against a case counted by hand, with its gradient; the bias; capacity."""

import math

import pytest
import torch

from moe_lesson import LanguageModel, ModelConfig, Router, Routing, Sparse, balance_loss, next_token
from moe_lesson.moe.balance import (
    LOSSES,
    capacity_for,
    importance_loss,
    keep_within,
    load_loss,
    sequence_balance_loss,
    squared_variation,
    update_bias,
    with_capacity,
    z_loss,
)


def chosen(ids, n, weights=None, logits=None):
    """A routing with these choices."""
    ids = torch.tensor(ids)
    weights = torch.ones(ids.shape) if weights is None else torch.tensor(weights)
    return Routing(torch.zeros(len(ids), n) if logits is None else logits, ids, weights)


# --------------------------------------------------------------------------------------------------------- the losses


def test_the_balance_loss_is_1_when_balanced_and_n_when_one_has_all():
    n, t = 4, 8
    assert balance_loss(chosen([[i % n] for i in range(t)], n)).item() == pytest.approx(1)
    logits = torch.zeros(t, n)
    logits[:, 0] = 50.0
    assert balance_loss(chosen([[0]] * t, n, logits=logits)).item() == pytest.approx(n)


def test_the_balance_loss_by_hand_can_be_below_1():
    # f = (0.9, 0.1) · 2 = (1.8, 0.2), P = (0.459, 0.541): 0.9344, so 1 is no minimum
    logits = torch.tensor([[0.459, 0.541]]).log().repeat(10, 1)
    routing = chosen([[0]] * 9 + [[1]], 2, logits=logits)
    assert balance_loss(routing).item() == pytest.approx(1.8 * 0.459 + 0.2 * 0.541, rel=1e-5)


def test_the_balance_loss_pushes_the_crowded_expert_down():
    logits = torch.tensor([[1.0, 0.5, 0.0]] * 6, requires_grad=True)
    balance_loss(chosen([[0]] * 5 + [[1]], 3, logits=logits)).backward()
    assert (logits.grad[:, 0] > 0).all() and (logits.grad[:, 2] < 0).all()


def test_the_gradient_of_the_balance_loss_by_hand():
    # d(Σ f_i P_i)/d logit_tj = p_tj (f_j - Σ_i f_i p_ti) / T, with f held fixed
    torch.manual_seed(0)
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    routing = chosen([[0], [0], [1], [0], [2]], 3, logits=logits)
    balance_loss(routing).backward()
    p, f = logits.detach().softmax(1), torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64) * 3 / 5
    assert torch.allclose(logits.grad, p * (f - (p * f).sum(1, keepdim=True)) / 5)


def test_a_loss_of_no_tokens_is_0():
    nobody = Routing(torch.zeros(0, 3), torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1))
    assert balance_loss(nobody).item() == z_loss(nobody).item() == 0


def test_the_balance_loss_knows_sigmoid_scores():
    assert balance_loss(chosen([[0], [1], [2], [3]], 4), "sigmoid").item() == pytest.approx(1)


def test_per_sequence_is_the_mean_of_the_sequences_and_sees_what_the_batch_hides():
    logits = torch.zeros(8, 2)
    logits[:4, 0] = logits[4:, 1] = 20.0  # the first sequence uses expert 0 alone, the second expert 1
    routing = chosen([[0]] * 4 + [[1]] * 4, 2, logits=logits)
    assert balance_loss(routing).item() == pytest.approx(1)
    assert sequence_balance_loss(routing, sequences=2).item() == pytest.approx(2)
    assert sequence_balance_loss(routing, sequences=1).item() == pytest.approx(1)
    parts = [balance_loss(part).item() for part in routing.split(4)]
    assert sequence_balance_loss(routing, sequences=4).item() == pytest.approx(sum(parts) / 4)
    with pytest.raises(ValueError, match="8 tokens can't be 3 sequences"):
        sequence_balance_loss(routing, sequences=3)


def test_squared_variation_at_its_extremes():
    assert squared_variation(torch.tensor([2.0, 2.0, 2.0])).item() == 0
    assert squared_variation(torch.tensor([4.0, 0.0, 0.0, 0.0])).item() == pytest.approx(3)
    assert squared_variation(torch.tensor([2.0, 6.0])).item() == pytest.approx(0.25)


def test_importance_by_hand_and_its_gradient():
    # importances 1.6 and 0.4: mean 1, variance 0.36
    weights = torch.tensor([[0.9, 0.1], [0.7, 0.3]], requires_grad=True)
    routing = Routing(torch.zeros(2, 2), torch.tensor([[0, 1], [0, 1]]), weights)
    loss = importance_loss(routing)
    assert loss.item() == pytest.approx(0.36)
    loss.backward()
    assert (weights.grad[:, 0] > 0).all() and (weights.grad[:, 1] < 0).all()


def noisy_routing(clean, noise, std, k):
    logits = clean + noise
    ids = logits.topk(k).indices
    return Routing(logits, ids, logits.gather(1, ids), clean_logits=clean, noise_std=torch.full_like(clean, std))


def test_the_smooth_load_by_hand():
    # one token, K = 1, noisy logits 2, 1, 0: expert 0 must beat 1, the others must beat 2; chances Φ(1), Φ(-1), Φ(-2)
    routing = noisy_routing(torch.tensor([[2.0, 1.0, 0.0]]), 0.0, 1.0, 1)
    phi = [0.5 * (1 + math.erf(z / 2**0.5)) for z in (1, -1, -2)]
    assert load_loss(routing).item() == pytest.approx(squared_variation(torch.tensor(phi)).item(), rel=1e-5)


def test_the_smooth_load_is_the_chance_to_be_chosen_when_the_noise_is_drawn_again():
    torch.manual_seed(0)
    clean, noise = torch.randn(1, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    logits = clean + noise
    chances = []
    for i in range(4):  # only expert i's noise is drawn again
        again = logits.repeat(200_000, 1)
        again[:, i] = clean[0, i] + torch.randn(200_000, dtype=torch.float64)
        chances.append((again.topk(2).indices == i).any(1).double().mean())
    expected = squared_variation(torch.stack(chances)).item()
    assert load_loss(noisy_routing(clean, noise, 1.0, 2)).item() == pytest.approx(expected, abs=0.01)


def test_the_load_loss_pushes_the_crowded_expert_down():
    clean = torch.tensor([[1.0, 0.0, -1.0]] * 4, requires_grad=True)
    load_loss(noisy_routing(clean, 0.0, 1.0, 1)).backward()
    assert (clean.grad[:, 0] > 0).all()


def test_the_load_loss_needs_noise():
    with pytest.raises(ValueError, match="noisy=True"):
        load_loss(chosen([[0]], 2))
    assert load_loss(noisy_routing(torch.randn(3, 2), 0.0, 1.0, 2)).item() == 0, "at K = N everybody is chosen"


def test_a_noisy_router_in_training_records_its_noise():
    router = Router(4, 3, 1, noisy=True)
    routing = router.train()(torch.randn(5, 4))
    assert torch.allclose(routing.noise_std, torch.full((5, 3), math.log(2))), "it starts with softplus(0)"
    assert not torch.equal(routing.logits, routing.clean_logits)
    assert router.eval()(torch.randn(5, 4)).noise_std is None and routing.detach().noise_std is None


def test_the_z_loss_by_hand_and_its_gradient():
    logits = torch.tensor([[0.0, 0.0], [3.0, 3.0]], requires_grad=True)
    loss = z_loss(chosen([[0], [1]], 2, logits=logits))
    assert loss.item() == pytest.approx((math.log(2) ** 2 + (3 + math.log(2)) ** 2) / 2)
    loss.backward()
    assert torch.allclose(logits.grad[1], torch.tensor([(3 + math.log(2)) / 2] * 2))


# ------------------------------------------------------------------------------------------------------------ the bias


def test_the_bias_moves_by_its_rate_towards_the_idle():
    bias = update_bias(torch.tensor([0.0, 0.5, 0.0, 0.1]), torch.tensor([10, 2, 4, 0]), 0.01)
    assert torch.allclose(bias, torch.tensor([-0.01, 0.51, 0.0, 0.11])), "the mean load is 4: who has it stays"


def small_model(**recipe):
    return LanguageModel(ModelConfig(Sparse(4, 2, 8, **recipe), layers=2, width=16, heads=2, context=16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_bias_stays_float32_and_no_load_is_too_large(dtype):
    router = Router(4, 2, 1).to(dtype)
    assert router.bias.dtype == torch.float32 and router.weight.dtype == dtype
    router.bias.fill_(0.5)
    moved = update_bias(router.bias, torch.tensor([200_001, 199_999]), 0.001)
    assert torch.allclose(moved, torch.tensor([0.499, 0.501]))
    assert Router(4, 2, 1).to("meta").bias.device.type == "meta"


def test_balancing_by_bias_moves_every_layers_bias_once_a_step_and_leaves_the_loss_alone():
    ids = torch.randint(0, 256, (3, 17), generator=torch.Generator().manual_seed(0))
    model, objective = small_model().train(), next_token({"bias": 0.1})
    loads = [routing.load for routing in model(ids[:, :-1])[1]]
    loss, figures = objective(model, ids)
    assert loss.item() == pytest.approx(figures["loss"].item()), "no term is added"
    assert all((block.ffn.router.bias == 0).all() for block in model.blocks), "computing a loss moves nothing"
    objective.after_step(model, figures)
    for block, load in zip(model.blocks, loads):
        assert torch.allclose(block.ffn.router.bias, 0.1 * (load.double().mean() - load).sign().float())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_counts_as_strongly_as_asked_reaches_the_router_and_moves_no_bias(name):
    ids = torch.randint(0, 256, (3, 17), generator=torch.Generator().manual_seed(0))
    model, objective = small_model(noisy=True).train(), next_token({name: 0.5})
    torch.manual_seed(0)
    loss, figures = objective(model, ids)
    torch.manual_seed(0)
    routings = model(ids[:, :-1])[1]
    terms = [LOSSES[name](routing, "softmax", 3) for routing in routings]
    assert (loss - figures["loss"]).item() == pytest.approx(0.5 * sum(terms).item() / len(terms), rel=1e-4)
    assert torch.autograd.grad(sum(terms), model.blocks[0].ffn.router.weight)[0].any()
    objective.after_step(model, figures)
    assert not any(block.ffn.router.bias.any() for block in model.blocks)


def test_a_loss_of_an_unknown_score_is_refused():
    for loss in balance_loss, sequence_balance_loss:
        with pytest.raises(ValueError, match="unknown score 'tanh'; choose one of softmax, sigmoid"):
            loss(chosen([[0, 1]], 3), "tanh")


@pytest.mark.parametrize("balance, message", [
    ({"luck": 1.0}, "unknown way to balance 'luck'; choose some of batch, sequence, importance, load, z, bias"),
    ({"batch": -1.0}, "strength of 'batch' is -1.0"),
    ({"bias": math.nan}, "strength of 'bias' is nan"),
    ({"batch": "0.01"}, "strength of 'batch' is '0.01'; expected a number of at least 0"),
])
def test_impossible_balancing_is_refused(balance, message):
    with pytest.raises(ValueError, match=message):
        next_token(balance)


# ------------------------------------------------------------------------------------------------------------ capacity


def test_first_come_first_served_by_hand():
    # expert 0 has room for 2. First choices come before second ones: tokens 0 and 2, then no room for token 1's second choice
    routing = chosen([[0, 1], [1, 0], [0, 2], [0, 1]], 3)
    assert keep_within(routing, 2).tolist() == [[True, True], [True, False], [True, True], [False, False]]


def test_by_weight_the_strongest_opinion_gets_the_place_whatever_the_order():
    ids, weights = [[0], [0], [0], [1]], [[0.2], [0.9], [0.5], [0.1]]
    kept = keep_within(chosen(ids, 2, weights), 2, by="weight")
    assert kept[:, 0].tolist() == [False, True, True, True]
    back = keep_within(chosen(ids[::-1], 2, weights[::-1]), 2, by="weight")
    assert back[:, 0].tolist() == [True, True, True, False]
    assert keep_within(chosen(ids, 2, weights), 2)[:, 0].tolist() == [True, True, False, True]


@pytest.mark.parametrize("by", ["order", "weight"])
def test_no_expert_has_more_than_its_capacity_and_none_refuses_while_it_has_room(by):
    torch.manual_seed(0)
    routing = Routing(torch.zeros(60, 8), torch.rand(60, 8).argsort(1)[:, :3], torch.rand(60, 3))
    for capacity in (0, 1, 10, 22, 60):
        kept = keep_within(routing, capacity, by)
        load = torch.bincount(routing.expert_ids[kept], minlength=8)
        assert torch.equal(load, routing.load.clamp(max=capacity))


def test_the_capacity_is_rounded_up():
    routing = chosen([[0, 1]] * 5, 4)  # 10 choices of 4 experts
    assert [capacity_for(routing, factor) for factor in (0.0, 1.0, 1.2, 2.0)] == [0, 3, 3, 5]
    assert capacity_for(chosen([[0, 1]] * 100, 4), 1.1) == 55, "1.1 · 50 is a little more than 55 in floating point"


def test_a_dropped_choice_weighs_nothing():
    limited = with_capacity(chosen([[0], [0], [1]], 3, [[0.5], [0.6], [0.7]]), 1.0)
    assert torch.allclose(limited.weights, torch.tensor([[0.5], [0.0], [0.7]]))
    with pytest.raises(ValueError, match="capacity factor is -1"):
        with_capacity(limited, -1)
    with pytest.raises(ValueError, match="by is 'luck'; choose order or weight"):
        keep_within(limited, 1, "luck")
    with pytest.raises(ValueError, match="capacity is 1.5; expected a whole number, 0 or more"):
        keep_within(limited, 1.5)


@pytest.mark.parametrize("logits", [[-160.0] * 4, [-1e4] * 4, [160.0] * 4, [-160.0, -160.5, -161.0, -200.0],
                                    [-90.0, -103.5, -104.0, -110.0]])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_scores_too_small_for_float32_keep_their_ratio(score, logits):
    router = Router(1, 4, 2, score=score)
    router.weight.data = torch.tensor([logits])
    routing = router(torch.ones(3, 1))
    exact = torch.tensor([logits], dtype=torch.float64)
    logs = torch.nn.functional.logsigmoid(exact) if score == "sigmoid" else exact
    wanted = logs.gather(1, routing.expert_ids[:1]).softmax(dim=-1)
    assert torch.allclose(routing.weights.double(), wanted, rtol=1e-4) and torch.isfinite(balance_loss(routing, score))
    (routing.weights[:, 0].sum() + balance_loss(routing, score)).backward()
    assert torch.isfinite(router.weight.grad).all()
