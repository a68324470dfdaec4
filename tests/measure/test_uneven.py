"""Uneven worlds and layers: the truth is what it says, an oracle can learn it, and the cost is the one that was asked for."""

import pytest
import torch

from moe_lesson import TrainingConfig, train
from moe_lesson.measure.uneven import CHOICES, Arm, UnevenLayer, UnevenObjective, UnevenWorld, best, correlation, judge
from moe_lesson.moe.layers import MoE


def trained(arm, steps=60, **world):
    world = UnevenWorld(**world)
    torch.manual_seed(0)
    layer = UnevenLayer(arm, world.width)
    train(layer, world.sampler(256), TrainingConfig(steps, 0.03), objective=UnevenObjective(), progress=False)
    return layer, world, judge(layer, world, world.tokens(2000))


def test_easy_skills_have_few_units_and_are_as_loud():
    world = UnevenWorld(easy_units=2, hard_units=14)
    assert world.units.tolist() == [2] * 4 + [14] * 4
    assert ((world.skill_ab[0] != 0).any(dim=1).sum(dim=1) == world.units).all()
    x = torch.randn(4000, world.width)
    many = torch.stack([UnevenWorld(2, 14, seed=seed).each_skill(x).square().mean(dim=(1, 2)) for seed in range(20)]).mean(dim=0)
    assert many[:4].mean().item() == pytest.approx(many[4:].mean().item(), rel=0.15)


def test_tokens_carry_one_two_or_three_skills_and_their_sum_is_the_answer():
    world = UnevenWorld(varying=True)
    tokens = world.tokens(3000)
    assert [round((tokens.skills.sum(dim=1) == n).float().mean().item(), 1) for n in (1, 2, 3)] == [0.3] * 3
    assert (UnevenWorld().tokens(50).skills.sum(dim=1) == 2).all()
    [where] = tokens.skills[7].nonzero(as_tuple=True)
    torch.testing.assert_close(tokens.y[7], world.each_skill(tokens.x[7:8])[where, 0].sum(dim=0) / 2 ** 0.5)


def test_what_x_says_of_the_skills_is_calibrated_and_no_guess_from_x_beats_the_floor():
    for world in (UnevenWorld(2, 14), UnevenWorld(varying=True)):
        tokens = world.tokens(40_000)
        read = world.read(tokens.x)
        for low in (0.0, 0.4, 0.8):  # of all skills that are read as likely as p, a share p is there
            there = (read >= low) & (read <= low + 0.2 + 1e-5)
            assert tokens.skills[there].mean().item() == pytest.approx(read[there].mean().item(), abs=0.05)
        torch.testing.assert_close(read.sum(dim=1).mean(), tokens.skills.sum(dim=1).mean(), atol=0.02, rtol=0)
        likeliest = torch.einsum("tm,mtd->td", (read > 0.5).float(), world.each_skill(tokens.x)) / 2 ** 0.5
        assert 0 < world.floor(tokens) < (likeliest - tokens.y).square().mean() < tokens.y.square().mean() / 3


def test_a_layer_of_equal_sizes_is_the_layer_of_the_course():
    layer, moe = UnevenLayer(Arm((6,) * 4), 16), MoE(16, 4, 2, 6, score="sigmoid", renormalise=False)
    with torch.no_grad():
        one, other = layer.w_in.chunk(2, dim=1)
        blocks = [torch.cat([part[:, 6 * i:6 * i + 6] for part in (one, other)], dim=1) for i in range(4)]
        moe.experts.w_in.copy_(torch.stack(blocks))
        moe.experts.w_out.copy_(layer.w_out.view(4, 6, 16))
        moe.router.weight.copy_(layer.router)
    x = torch.randn(30, 16)
    torch.testing.assert_close(layer(x, torch.zeros(30, 4))[0], moe(x)[0])


def test_unequal_experts_cost_what_they_are_wide():
    layer = UnevenLayer(Arm((1, 5, 0)), 16)
    chosen = torch.tensor([[True, True, False], [False, True, True]])
    assert layer.units(chosen).tolist() == [6, 5] and layer.number(chosen).tolist() == [2, 1]
    assert Arm((4, 28, 4, 28)).units == 32 and Arm((16, 16, 0, 0), top_k=4).units == 32


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_learns_and_keeps_its_cost(choice):
    layer, world, found = trained(Arm((16,) * 8, choice), 200, varying=True)
    assert found["error"] < world.tokens(2000).y.var() and torch.isfinite(layer.w_in).all()
    assert found["number"] == pytest.approx(2, abs=0.15)
    assert layer.spent[1] == 200


def test_an_oracle_is_far_better_than_a_learned_choice():
    assert trained(Arm((16,) * 8, "oracle"), 200)[2]["error"] < 0.5 * trained(Arm((16,) * 8), 200)[2]["error"]


def test_number_and_need_go_together_where_an_oracle_says_the_number():
    assert trained(Arm((16,) * 8, "oracle number"), 20, varying=True)[2]["number_for_need"] == pytest.approx(1)
    assert abs(trained(Arm((16,) * 8, "shuffled number"), 20, varying=True)[2]["number_for_need"]) < 0.1
    assert correlation(torch.ones(5), torch.arange(5.0)) == 0


def test_the_best_may_be_another_number_for_each_row():
    rank = torch.tensor([[0.1, 0.3, 0.2], [3.0, 1.0, 2.0]])
    assert best(rank, torch.tensor([1, 2])).tolist() == [[False, True, False], [True, False, True]]


def test_a_price_moves_tokens_to_the_cheap():
    sizes = (4,) * 4 + (28,) * 4
    dear, cheap = (trained(Arm(sizes, penalty=penalty, balanced=False), 200, easy_units=2, hard_units=14)[2]["units"]
                   for penalty in (0.0, 0.3))
    assert cheap < dear


@pytest.mark.parametrize("call, words", [
    (lambda: Arm((16,) * 8, "lottery"), "unknown choice 'lottery'"), (lambda: Arm((4,), top_k=2), "top_k is 2"),
    (lambda: Arm((4, -1)), "none negative"), (lambda: UnevenWorld(easy_units=9), "easy_units 9 and hard_units 8"),
])
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
