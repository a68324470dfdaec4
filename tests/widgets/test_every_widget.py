"""What the course asks of every widget's half in Python."""

import pytest
from every_widget import WIDGETS
from traitlets import TraitError

import moe_lesson.widgets
from moe_lesson import Dense, LanguageModel, ModelConfig
from moe_lesson.widgets.kit.base import LessonWidget

READERS = ("CapacityView", "ExpertExplorer", "RouterGame", "RouterMicroscope", "RoutingMap", "TokenWay")


def test_no_widget_of_the_course_is_missing():
    classes = {name: getattr(moe_lesson.widgets, name) for name in moe_lesson.widgets.__all__}
    widgets = {name for name, one in classes.items() if isinstance(one, type) and issubclass(one, LessonWidget)}
    assert widgets == WIDGETS.keys(), "add it to tests/widgets/every_widget.py"


@pytest.mark.parametrize("name,trait,value", [(name, *wrong) for name, entry in WIDGETS.items() for wrong in entry.refuses])
def test_a_value_that_the_control_has_not_is_refused_and_nothing_moves(name, trait, value):
    widget = WIDGETS[name].make()
    before = getattr(widget, trait)
    with pytest.raises(TraitError, match=f"^{trait} is .*; (expected|choose one of) "):
        setattr(widget, trait, value)
    assert getattr(widget, trait) == before


@pytest.mark.parametrize("name", READERS)
def test_a_model_without_experts_is_refused_with_the_remedy(name):
    made, dense = getattr(moe_lesson.widgets, name), LanguageModel(ModelConfig(Dense(16), layers=1, width=16, heads=2))
    with pytest.raises(ValueError, match=r'no MoE layer, so .*; take one that has, e.g. shipped_model\("ladder-deepseekmoe"\)$'):
        getattr(made, "of_model", made)(dense, ["abc"] if name == "RouterGame" else "abc")
