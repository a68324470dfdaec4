"""The static picture of a routing."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from routings import HOSTILE, logits_of, routing_of

from moe_lesson.teach.plots import (
    draw_calls,
    draw_curves,
    draw_load_history,
    draw_routing,
    draw_scaling,
    draw_seeds,
    drawable,
    png,
)


def test_the_title_says_where_the_routing_comes_from():
    for origin in ("trained", "toy", "random router (null)"):
        figure = draw_routing(routing_of(logits_of(5, 4), 2), origin=origin)
        assert figure.axes[0].get_title().endswith(f"K = 2 of 4 experts · {origin}")


def test_the_bars_are_the_column_sums_of_the_map():
    routing = routing_of(logits_of(30, 8), 2)
    heat, bars = draw_routing(routing, origin="toy").axes[:2]
    shown = np.asarray(heat.images[0].get_array())
    assert [bar.get_height() for bar in bars.patches] == (shown > 0).sum(axis=0).tolist() == routing.load.tolist()
    assert np.allclose(shown, routing.gates.numpy())
    assert bars.lines[0].get_ydata()[0] == 30 * 2 / 8


def test_bars_stand_under_the_columns_they_sum():
    figure = draw_routing(routing_of(logits_of(30, 8), 2), origin="toy")
    png(figure)
    heat, bars = (axis.get_position() for axis in figure.axes[:2])
    assert (heat.x0, heat.x1) == pytest.approx((bars.x0, bars.x1)) and bars.y1 < heat.y0
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim() == (-0.5, 7.5)


def test_colour_and_load_limits_stay_when_the_weights_change():
    wide, narrow = (draw_routing(routing_of(logits_of(9, 8, spread=s), k), origin="toy", limit=2.5, load_limit=9)
                    for s, k in ((0.1, 8), (9.0, 1)))
    for figure in (wide, narrow):
        assert figure.axes[0].images[0].get_clim() == (0, 2.5) and figure.axes[0].images[0].get_cmap().name == "cividis"
        assert figure.axes[1].get_ylim() == (0, 9)


@pytest.mark.parametrize("tokens,experts,k", [(0, 4, 2), (1, 1, 1), (240, 64, 64), (3, 200, 1)])
def test_every_size_draws(tokens, experts, k):
    assert png(draw_routing(routing_of(logits_of(tokens, experts), k), origin="toy")).startswith(b"\x89PNG")


def test_an_empty_text_says_so():
    assert "empty" in draw_routing(routing_of(logits_of(0, 4), 2), origin="toy").axes[0].texts[0].get_text()


def test_any_token_is_drawn_as_text_without_a_warning():
    routing = routing_of(logits_of(len(HOSTILE), 4), 2, tokens=HOSTILE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_routing(routing, origin="toy")
        assert png(figure).startswith(b"\x89PNG")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]  # $…$ would be a formula, and a broken one
    assert labels[HOSTILE.index("$x^2$")] == "$x^2$" and labels[HOSTILE.index("<script>window.hacked = 1</script>")][0] == "<"


def test_a_sign_that_the_font_lacks_becomes_a_square():
    assert drawable("中 1/3") == "\u25a1 1/3" and drawable("é") == "é" and drawable("x" * 99) == "x" * 11 + "…"


def test_the_same_figure_gives_the_same_bytes():
    first, second = (png(draw_routing(routing_of(logits_of(9, 8), 2), origin="toy")) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("wrong,words", [({"origin": ""}, "origin is empty"), ({"origin": "toy", "limit": 0}, "limit is 0"),
                                         ({"origin": "toy", "load_limit": -1}, "load_limit is -1")])
def test_bad_arguments_are_refused_with_their_value(wrong, words):
    with pytest.raises(ValueError, match=words):
        draw_routing(routing_of(logits_of(5, 4), 2), **wrong)


def test_drawing_leaves_pyplot_alone():
    code = "import sys, moe_lesson.teach.plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_seeds_are_drawn_with_their_mean_and_interval():
    figure = draw_seeds({"one": [1.0, 2.0, 3.0], "two": [2.0, 2.0]}, "loss")
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert [text.get_text() for text in ax.texts] == ["2.000", "2.000"] and "loss" in ax.get_xlabel()
    assert [len(dots.get_offsets()) for dots in ax.collections if len(dots.get_offsets()) > 1] == [3, 2]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first group stands on top"


def test_one_seed_is_no_evidence():
    with pytest.raises(ValueError, match="at least 2 values"):
        draw_seeds({"one": [1.0]}, "loss")
    with pytest.raises(ValueError, match="groups is empty"):
        draw_seeds({}, "loss")


def test_a_power_law_is_a_straight_line_through_its_points():
    losses = {size: [5 * size ** -0.25] * 3 for size in (1e3, 1e4, 1e5)}
    figure = draw_scaling(losses, {"fit": (5.0, 0.25)}, "loss")
    [ax], png_bytes = figure.axes, png(figure)
    points, fit = ax.lines
    assert len(points.get_xdata()) == 9 and (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert fit.get_ydata() == pytest.approx([values[0] for values in losses.values()]) and png_bytes.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="1 sizes; a power law needs at least 2"):
        draw_scaling({1e3: [1.0]}, {}, "loss")


def test_curves_are_told_apart_by_more_than_colour():
    figure = draw_curves({name: ([0, 1], [2, value]) for value, name in enumerate("abcd")}, "step", "loss")
    lines = figure.axes[0].lines
    assert len({line.get_linestyle() for line in lines}) == len({line.get_color() for line in lines}) == 4
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list("abcd")
    with pytest.raises(ValueError, match="5 curves; expected 1 to 4"):
        draw_curves({name: ([0], [0]) for name in "abcde"}, "step", "loss")


def test_a_load_history_is_drawn_on_one_scale_for_all_trainings():
    collapsed, even = [[4, 4, 4], [12, 0, 0]], [[4, 4, 4], [5, 4, 3]]
    figure = draw_load_history({"alone": collapsed, "balanced": even}, "step")
    images = [ax.images[0] for ax in figure.axes[:2]]
    assert [image.get_clim() for image in images] == [(0, 3), (0, 3)]
    assert images[0].get_array().tolist() == [[1, 3], [1, 0], [1, 0]], "a row for each expert, a column for each step"
    assert [ax.get_title("left") for ax in figure.axes[:2]] == ["alone", "balanced"]
    with pytest.raises(ValueError, match="no load to draw"):
        draw_load_history({}, "step")


def test_calls_are_drawn_as_shares_on_one_scale():
    trained, null = torch.tensor([[3.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    figure = draw_calls({"trained": trained, "null": null}, "skill")
    meshes = [ax.collections[0] for ax in figure.axes[:2]]
    assert meshes[0].get_array().flatten().tolist() == [0.75, 0.25, 0, 0], "an expert that nobody calls has an empty row"
    assert meshes[1].get_array().flatten().tolist() == [0.5] * 4
    assert {mesh.get_clim() for mesh in meshes} == {(0, 1)} and figure.axes[0].get_xlabel() == "skill"
    with pytest.raises(ValueError, match="tables is empty"):
        draw_calls({}, "skill")
    named = draw_calls({"trained": trained}, "domain", names=("python", "yaml"), limit=0.5)
    assert [label.get_text() for label in named.axes[0].get_xticklabels()] == ["python", "yaml"]
    assert named.axes[0].collections[0].get_clim() == (0, 0.5)
