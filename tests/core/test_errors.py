"""A requirement that holds says nothing; one that does not says its sentence."""

import numpy as np
import pytest

from moe_lesson.base.errors import positive_number, require, whole_number


def test_what_holds_passes_and_what_does_not_is_a_value_error_with_its_sentence():
    require(True, "never said")
    with pytest.raises(ValueError, match="^top_k is 0; expected at least 1$"):
        require(False, "top_k is 0; expected at least 1")


@pytest.mark.parametrize("value", [0, -3, 2.0, "2", None, True])
def test_a_size_is_a_whole_number_of_at_least_so_many(value):
    assert type(whole_number("top_k", np.int64(1))) is int and whole_number("seed", -3, least=None) == -3
    with pytest.raises(ValueError, match=f"^top_k is {value!r}; expected a whole number, 1 or more$"):
        whole_number("top_k", value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1e-3", None, True])
def test_a_positive_number_is_finite_and_no_text(value):
    positive_number("lr", np.float32(1e-3))
    with pytest.raises(ValueError, match=f"^lr is {value!r}; expected a positive number$"):
        positive_number("lr", value)
