"""What the checks are made of says the right thing by itself, whatever the exercise."""

import linecache

import numpy as np
import pytest
import torch

from moe_lesson.teach.checks import kit

PAIR = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_another_shape_is_refused_and_the_same_is_not():
    kit.must_have_shape(PAIR, 2, 2)
    with pytest.raises(kit.Wrong, match=r"^your answer has shape \(2, 2\); expected \(4,\)$"):
        kit.must_have_shape(PAIR, 4)


def test_a_refused_shape_says_which_part_and_what_was_wanted():
    with pytest.raises(kit.Wrong, match=r"^w_in: your answer has shape \(2, 2\); one number$"):
        kit.must_have_shape(PAIR, part="w_in", wanted="one number")


def test_the_first_known_slip_with_this_answer_is_named():
    slips = {"one row": PAIR[:1], "doubled": 2 * PAIR, "added to itself": PAIR + PAIR}
    assert kit.known_slip(2 * PAIR, slips) == "doubled"
    assert kit.known_slip(PAIR, slips) is None


@pytest.mark.parametrize("answer, told", [(PAIR, r"a Tensor of shape \(2, 2\)"), ("1", "a str"), ([1.0], "a list")])
def test_what_is_not_one_number_is_refused(answer, told):
    with pytest.raises(kit.Wrong, match=f"^your answer is {told}; expected one number$"):
        kit.called_number(lambda: answer)


@pytest.mark.parametrize("answer", [2, 2.0, np.float32(2), np.int64(2), torch.tensor(2), torch.tensor([[2.0]])])
def test_one_number_may_be_a_tensor_too(answer):
    assert kit.called_number(lambda: answer) == 2.0


def test_an_attempt_cannot_change_what_it_is_asked():
    given = PAIR.clone()
    kit.called(lambda x: x.zero_(), given)
    assert torch.equal(given, PAIR)


def test_what_returns_nothing_forgot_its_return_and_is_no_stub():
    with pytest.raises(kit.Wrong, match="returns nothing"):
        kit.called(lambda x: None, PAIR)
    with pytest.raises(kit.NotTried):
        kit.called(lambda x: ..., PAIR)


def attempt_of(*lines):
    """A function that a learner wrote in a cell, with its lines known as IPython makes them known."""
    source = "\n".join(["def attempt(x):", *(f"    {line}" for line in lines)])
    linecache.cache["cell 7"] = (len(source), None, source.splitlines(keepends=True), "cell 7")
    names = {"torch": torch}
    exec(compile(source, "cell 7", "exec"), names)
    return names["attempt"]


def test_code_that_stopped_is_told_its_line_also_where_it_stopped_inside_pytorch():
    judge = kit.Check("attempt", torch.sin, lambda attempt: kit.must_agree(attempt, torch.sin, [(PAIR,)], ""))
    for line, error in (("known[3]", "NameError"), ("torch.zeros(2) @ PAIR", "NameError"), ("x.view(3)", "RuntimeError")):
        said, right = judge.verdict(attempt_of("y = x", f"y = {line}", "return y"))
        assert not right and said.startswith(f"❌ attempt: your code stopped with {error}")
        assert said.endswith(f"(in line 3: y = {line})")


def test_code_that_ended_did_not_stop():
    judge = kit.Check("attempt", torch.sin, lambda attempt: kit.called(attempt, PAIR)["no such key"])
    said, _ = judge.verdict(attempt_of("return x"))
    assert said.startswith("❌ attempt: what your function returns can't be used: ") and "line" not in said


def test_a_gradient_must_reach_every_argument():
    def judge(attempt, taught="nothing learns"):
        kit.must_agree(attempt, torch.mul, [(PAIR, PAIR)], "", taught)

    judge(torch.mul)
    judge(lambda x, y: x.mul_(y))
    judge(lambda x, y: x.detach() * y, taught="")
    for one_way in (lambda x, y: x * y.detach(), lambda x, y: x.detach() * y, lambda x, y: (x * y).detach(),
                    lambda x, y: x * y / 2 + (x * y / 2).detach()):
        with pytest.raises(kit.Wrong, match="does not come through.*nothing learns"):
            judge(one_way)


def test_a_case_that_is_wrong_is_shown_with_the_hint():
    cases = [(torch.tensor([1, 2]), 0), (torch.tensor([2, 3]), 1), (torch.ones(2, 3), 1)]
    kit.must_agree(lambda x, k: (x, k), lambda x, k: (x, float(k)), cases, "")
    with pytest.raises(kit.Wrong, match=r"^wrong for \[2, 3\] and 1: add it$"):
        kit.must_agree(lambda x, k: x, torch.add, cases, "add it")
    with pytest.raises(kit.Wrong, match=r"^wrong for \(2, 3\) and 1: keep it$"):
        kit.must_agree(lambda x, k: None if x.is_floating_point() else x, lambda x, k: x, cases, "keep it")
