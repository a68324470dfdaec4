"""A requirement that holds says nothing; one that does not says its sentence."""

import pytest

from moe_lesson.base.errors import require


def test_what_holds_passes_and_what_does_not_is_a_value_error_with_its_sentence():
    require(True, "never said")
    with pytest.raises(ValueError, match="^top_k is 0; expected at least 1$"):
        require(False, "top_k is 0; expected at least 1")
