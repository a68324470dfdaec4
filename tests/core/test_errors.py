"""A requirement that holds says nothing; one that does not says its sentence."""

import numpy as np
import pytest

from moe_lesson.base.errors import require, whole_number


def test_what_holds_passes_and_what_does_not_is_a_value_error_with_its_sentence():
    require(True, "never said")
    with pytest.raises(ValueError, match="^top_k is 0; expected at least 1$"):
        require(False, "top_k is 0; expected at least 1")


@pytest.mark.parametrize("value", [0, -3, 2.0, "2", None])
def test_a_size_is_a_whole_number_of_at_least_so_many(value):
    whole_number("top_k", np.int64(1))
    with pytest.raises(ValueError, match=f"^top_k is {value!r}; expected a whole number, 1 or more$"):
        whole_number("top_k", value)
