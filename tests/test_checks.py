"""Every check accepts the reference and rejects named wrong implementations with the hint that fits."""

import pytest
import torch

from moe_lesson import checks


def first_choice_only(ids, n):
    return torch.bincount(ids[:, 0], minlength=n)


def forgets_idle_experts(ids, n):
    return torch.bincount(ids.flatten())


def one_column_each(ids, n):
    return torch.nn.functional.one_hot(ids, n).sum(0)


def shares(ids, n):
    return torch.bincount(ids.flatten(), minlength=n) / ids.numel()


def adds_the_ids(ids, n):
    return torch.zeros(n).index_add(0, ids.flatten(), ids.flatten().float())


def not_whole_numbers(ids, n):
    return torch.bincount(ids.flatten(), minlength=n) + 0.9 * (torch.bincount(ids.flatten(), minlength=n) == 0)


def adds_repeated_ids_once(ids, n):
    load = torch.zeros(n)
    load[ids.flatten()] += 1
    return load


def one_row_a_token(ids, n):
    return torch.nn.functional.one_hot(ids, n).sum(1)


def share_of_tokens(ids, n):
    return torch.bincount(ids.flatten(), minlength=n) / len(ids)


WRONG = {
    "load": [
        (first_choice_only, "must sum to T·K = 10"),
        (forgets_idle_experts, "an expert that no token chose still needs its 0"),
        (one_column_each, "add the columns up"),
        (shares, "you returned shares"),
        (adds_the_ids, "count by hand"),
        (adds_repeated_ids_once, "adds once"),
        (one_row_a_token, "add over the tokens too"),
        (share_of_tokens, "you returned shares"),
        (not_whole_numbers, "count by hand"),
    ],
}
ALL = {name: check for name, check in vars(checks).items() if isinstance(check, checks.Check)}


def test_every_check_is_tested_against_at_least_three_wrong_implementations():
    assert ALL and set(WRONG) == set(ALL)
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@pytest.mark.parametrize("name", ALL)
def test_the_reference_is_accepted(name, capsys):
    assert ALL[name](ALL[name].reference) is ALL[name].reference
    assert capsys.readouterr().out.startswith(f"✅ {name}")


@pytest.mark.parametrize("name, wrong, hint", [(n, f, h) for n, rows in WRONG.items() for f, h in rows])
def test_a_wrong_implementation_gets_the_hint_that_fits_and_the_lesson_goes_on(name, wrong, hint, capsys):
    assert ALL[name](wrong) is ALL[name].reference
    out = capsys.readouterr().out
    assert out.startswith(f"❌ {name}") and hint in out


def not_implemented(*arguments):
    raise NotImplementedError


def test_a_loop_that_returns_a_list_is_right_too():
    def by_loop(ids, n):
        return [sum(row.count(expert) for row in ids.tolist()) for expert in range(n)]

    assert checks.load(by_loop) is by_loop


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("stub", [lambda *a: ..., lambda *a: None, not_implemented])
def test_a_stub_is_not_tried_and_the_lesson_goes_on(name, stub, capsys):
    assert ALL[name](stub) is ALL[name].reference
    assert capsys.readouterr().out.startswith(f"⏳ {name}: not tried")


@pytest.mark.parametrize("name", ALL)
def test_an_attempt_that_raises_is_told_so(name, capsys):
    def raises(*arguments):
        raise KeyError("oops")

    assert ALL[name](raises) is ALL[name].reference
    assert "KeyError" in capsys.readouterr().out
