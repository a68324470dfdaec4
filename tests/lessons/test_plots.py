"""The lessons' figures: what they draw is what they were given, in the course's design."""

import io
import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import same_color, to_rgb

from moe_lesson.measure.evidence import interval
from moe_lesson.measure.roofline import Device, Stage
from moe_lesson.moe.recipes import Budget, Dense, Sparse
from moe_lesson.teach.design import INK, MODELS, OTHERS, colour_of, colours_of
from moe_lesson.teach.plots import (
    draw_calls,
    draw_curves,
    draw_layers,
    draw_load_history,
    draw_scaling,
    draw_seeds,
    draw_stages,
)


def png(figure) -> bytes:
    """The figure as it is stored."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def test_the_same_figure_gives_the_same_bytes():
    first, second = (png(draw_calls({"one": torch.eye(2)}, "skill")) for _ in range(2))
    assert first == second


def test_drawing_leaves_pyplot_as_it_was():
    """Seaborn brings pyplot into every lesson; a figure must not stay open in it, nor the design leak into the learner's own."""
    before = dict(matplotlib.rcParams)
    draw_seeds({"one": [1.0, 2.0]}, "loss")
    draw_curves({"one": ([0, 1], [[1, 2], [2, 3]])}, "step", "loss")
    draw_calls({"one": torch.eye(2)}, "skill")
    assert plt.get_fignums() == [] and dict(matplotlib.rcParams) == before


def boxes_of(ax) -> list:
    """The intervals of `draw_seeds`, from top to bottom: thick lines (seaborn adds empty ones)."""
    return [line for line in ax.lines if line.get_linewidth() == 20 and np.isfinite(line.get_xdata()).all()]


def test_no_ring_is_drawn_over_a_mean():
    figure = draw_seeds({"close": [1.0, 1.001, 1.002, 1.003, 1.004], "far": [5.0, 9.0]}, "loss")
    png(figure)
    (ax,) = figure.axes
    frame = ax.get_window_extent()
    assert all(text.get_window_extent().x0 > frame.x1 for text in ax.texts)
    assert all(text.get_window_extent().x1 < figure.bbox.x1 for text in ax.texts), "nor cut off"


def test_seeds_are_drawn_with_their_mean_and_interval():
    groups = {"dense": [1.0, 2.0, 3.0], "two": [2.0, 2.0]}
    figure = draw_seeds(groups, "loss")
    png(figure)  # the rings find their places when they are drawn
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dense", "two"]
    assert [text.get_text() for text in ax.texts] == ["2.000", "2.000"] and "loss" in ax.get_xlabel()
    rings = [dots.get_offsets() for dots in ax.collections]
    assert [sorted(places[:, 0]) for places in rings] == list(groups.values())
    assert rings[1][0, 1] != rings[1][1, 1], "equal values stand beside each other"
    boxes = boxes_of(ax)
    for values, box, colour in zip(groups.values(), boxes, (MODELS["dense"], OTHERS[0]), strict=True):
        assert box.get_xdata() == pytest.approx([interval(values).low, interval(values).high])
        assert same_color(box.get_color(), colour) and box.get_solid_capstyle() == "butt"
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first group stands on top"


def test_one_seed_is_no_evidence():
    with pytest.raises(ValueError, match="at least 2 values"):
        draw_seeds({"one": [1.0]}, "loss")
    with pytest.raises(ValueError, match="groups is empty"):
        draw_seeds({}, "loss")


def test_a_power_law_is_a_straight_line_through_its_points():
    losses = {size: [5 * size ** -0.25] * 3 for size in (1e3, 1e4, 1e5)}
    figure = draw_scaling(losses, {"fit": [(5.0, 0.25)] * 3}, "loss")
    [ax], png_bytes = figure.axes, png(figure)
    fit, *seeds, points = ax.lines
    assert len(points.get_xdata()) == 9 and (ax.get_xscale(), ax.get_yscale()) == ("log", "log") and len(seeds) == 3
    assert fit.get_ydata() == pytest.approx([values[0] for values in losses.values()]) and png_bytes.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="1 sizes; a power law needs at least 2"):
        draw_scaling({1e3: [1.0]}, {}, "loss")
    with pytest.raises(ValueError, match="5 fits; expected at most 4"):
        draw_scaling(losses, {name: [(5.0, 0.25)] for name in "abcde"}, "loss")


def test_curves_are_told_apart_by_more_than_colour():
    figure = draw_curves({name: ([0, 1], [2, value]) for value, name in enumerate("abcd")}, "step", "loss")
    lines = figure.axes[0].lines
    assert len({line.get_linestyle() for line in lines}) == len({line.get_color() for line in lines}) == 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list("abcd")
    with pytest.raises(ValueError, match="5 curves; expected 1 to 4"):
        draw_curves({name: ([0], [0]) for name in "abcde"}, "step", "loss")


SEEDS = [[1.0, 3.0, 4.0], [2.0, 3.5, 4.0], [4.0, 3.0, 7.0], [1.5, 2.0, 5.0]]


def test_a_mean_of_seeds_is_drawn_with_students_interval_and_every_seed():
    figure = draw_curves({"DeepSeekMoE": ([0, 1, 2], SEEDS), "one run": ([0, 1, 2], [5.0, 5.0, 5.0])}, "step", "loss")
    (ax,) = figure.axes
    mean, *seeds, alone = ax.lines
    expected = [interval(values) for values in zip(*SEEDS)]
    assert mean.get_ydata() == pytest.approx([each.mean for each in expected])
    assert [line.get_ydata().tolist() for line in seeds] == SEEDS and alone.get_ydata().tolist() == [5.0] * 3
    band = ax.collections[0].get_paths()[0].vertices
    for step, each in enumerate(expected):
        heights = band[band[:, 0] == step, 1]
        assert (heights.min(), heights.max()) == pytest.approx((each.low, each.high))
    assert "95% interval" in figure.legends[0].get_title().get_text()
    assert not draw_curves({"one run": ([0, 1], [1, 2])}, "step", "loss").legends[0].get_title().get_text()


@pytest.mark.parametrize("name", ["dense", "switch", "gshard", "gshard ×1.5", "fine", "deepseekmoe", "dense of total size"])
def test_a_model_has_one_colour_in_all_figures(name):
    (seeds,), (curves,) = (figure.axes for figure in (
        draw_seeds({"other": [3.0, 4.0], name: [1.0, 2.0]}, "loss"),
        draw_curves({"other": ([0, 1], [1, 1]), f"{name}, layer 2": ([0, 1], [2, 2])}, "step", "loss")))
    drawn = [boxes_of(seeds)[1].get_color(), curves.lines[1].get_color()]
    assert all(same_color(colour, colour_of(name)) for colour in drawn) and colour_of(name) in MODELS.values()


def test_variants_of_a_model_share_its_colour_and_other_names_have_none_of_it():
    for model, names in {"GShard": ["gshard", "GShard, both of its experts", "m = 1", "gshard, layer 1", "2 of 16, alone"],
                         "GShard×1.5": ["gshard ×1.5", "GShard×1.5, mask top"], "dense of total size": ["Dense×16"],
                         "fine-grained": ["fine", "fine, gate scale 6", "0 shared", "m = 4"],
                         "DeepSeekMoE": ["deepseekmoe, unbalanced", "2 shared", "mixture of experts"]}.items():
        assert {colour_of(name) for name in names} == {MODELS[model]}
    assert [colour_of(name) for name in ("m = 16", "2 of 160", "densely", "finest", "half active", "")] == [None] * 6
    assert colours_of(["0 shared", "1 shared", "2 shared", "4 shared"]) == [
        MODELS["fine-grained"], OTHERS[0], MODELS["DeepSeekMoE"], OTHERS[1]]
    assert len(colours_of(map(str, range(40)))) == 40


# What two kinds of colour blindness leave of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
BLINDNESS = {"none": np.eye(3),
             "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
             "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, blindness: str) -> np.ndarray:
    """CIELAB of a colour as an eye of this kind sees it."""
    c = np.array(to_rgb(colour))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1) / (0.9505, 1, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_models_are_told_apart_with_any_colour_vision_and_stand_out_from_paper(blindness):
    for a, b in itertools.combinations(MODELS, 2):
        assert np.linalg.norm(lab(MODELS[a], blindness) - lab(MODELS[b], blindness)) > 15, (a, b)
    assert max(lab(colour, blindness)[0] for colour in MODELS.values()) < 70


CALLS = {name: torch.eye(16) for name in ("trained router (toy world)", "null: random router", "random router, layer 1")}
LONG = ("each token its own strongest units", "all tokens the same units, best on average", "DeepSeekMoE, random", "as many")


@pytest.mark.parametrize("figure", [
    lambda: draw_calls(CALLS, "another expert of the same token"),
    lambda: draw_seeds({name: [1.0, 2.0] for name in ("dense of total size", "4 shared, nothing common")},
                       "R² of the shared function in one routed expert"),
    lambda: draw_curves({name: ([0, 1], [[1, 2], [3, 4]]) for name in LONG}, "step", "rise of the test loss (nats per byte)"),
    lambda: draw_load_history({"left alone, second layer": [[1, 2]] * 200}, "step")],
    ids=["calls", "seeds", "curves", "load"])
def test_no_text_is_cut_off_or_small_and_no_legend_lies_over_data(figure):
    made = figure()
    png(made)
    drawn, paper = made.get_tightbbox(), made.bbox_inches
    assert paper.x0 <= drawn.x0 and drawn.x1 <= paper.x1 and paper.y0 <= drawn.y0 and drawn.y1 <= paper.y1
    assert min(text.get_fontsize() for text in made.findobj(matplotlib.text.Text) if text.get_text()) >= 10
    titles = [ax.title.get_window_extent() for ax in made.axes if ax.get_title()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2))
    assert not any(legend.get_window_extent().overlaps(ax.get_window_extent()) for legend in made.legends for ax in made.axes)


def test_a_load_history_is_drawn_on_one_scale_for_all_trainings():
    collapsed, even = [[4, 4, 4], [12, 0, 0]], [[4, 4, 4], [5, 4, 3]]
    figure = draw_load_history({"alone": collapsed, "balanced": even}, "step")
    maps = [ax.collections[0] for ax in figure.axes[:2]]
    assert [each.get_clim() for each in maps] == [(0, 3), (0, 3)]
    assert maps[0].get_array().tolist() == [[1, 3], [1, 0], [1, 0]], "a row for each expert, a column for each step"
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
    named = draw_calls({"trained": trained}, "domain", names=("python", "maths"), limit=0.5)
    assert [label.get_text() for label in named.axes[0].get_xticklabels()] == ["python", "maths"]
    assert named.axes[0].collections[0].get_clim() == (0, 0.5)


def test_a_layer_s_boxes_are_its_experts_and_the_filled_ones_are_active():
    budget = Budget(active=128, total=512)
    recipes = {"GShard": budget.experts(top_k=2), "DeepSeekMoE": budget.experts(top_k=2, segments=4, num_shared=2)}
    for ax, (name, recipe) in zip(draw_layers(recipes).axes, recipes.items()):
        colours = [to_rgb(box.get_facecolor()) if box.get_facecolor()[3] else None for box in ax.patches]
        assert len(colours) == recipe.num_experts + recipe.num_shared
        assert colours.count(to_rgb(MODELS[name])) == recipe.top_k and colours.count(to_rgb(INK)) == recipe.num_shared
        assert ax.get_title().startswith(name) and f"{recipe.top_k} of {recipe.num_experts}" in ax.get_title()
    with pytest.raises(ValueError, match="recipes is empty"):
        draw_layers({})


def test_a_dense_ffn_is_one_box_on_the_scale_of_the_experts():
    dense, sparse = draw_layers({"dense": Dense(64), "GShard": Sparse(8, 2, 32)}).axes
    [box], experts = dense.patches, sparse.patches
    assert box.get_width() == pytest.approx(2 * experts[0].get_width())
    assert box.get_x() + box.get_width() / 2 == pytest.approx(0.5)
    assert to_rgb(box.get_facecolor()) == to_rgb(MODELS["dense"]) and dense.get_title() == "dense\none FFN of 64"
    said = [{text.get_text() for text in ax.texts} for ax in (dense, sparse)]
    assert said[0] == {"RMS norm", "residual stream", "+"}, "a dense FFN has no router, and no weights"
    assert said[1] - said[0] == {"router: top 2", "Σ weight · answer"}


def test_the_router_has_a_score_for_each_routed_expert_and_lights_the_top_k():
    [ax] = draw_layers({"DeepSeekMoE": Sparse(6, 2, 16, num_shared=2)}).axes
    scores = [(np.ptp(line.get_segments()[0][:, 1]),
               to_rgb(line.get_color()[0]) == to_rgb(MODELS["DeepSeekMoE"])) for line in ax.collections]
    assert len(scores) == 6 and [lit for _, lit in sorted(scores)] == [False] * 4 + [True] * 2
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == 0.65]
    assert len(drawn) == 4, "a line to the sum for each expert that works"
    thick = sorted({line.get_linewidth() for line in drawn if to_rgb(line.get_color()) != to_rgb(INK)})
    assert len(thick) == 2, "as thick as the weight"


def test_the_words_of_three_layers_are_ten_points_where_a_page_shows_them():
    budget, page = Budget(active=128, total=512), 960  # pixels, in a window of 1280
    figure = draw_layers({"a": budget.experts(2), "b": budget.experts(2, 4), "c": budget.experts(2, 4, 2)})
    scale = min(1, page / (100 * figure.get_figwidth())) * 100 / 96  # Jupyter draws 100 dots an inch, a page has 96
    sizes = [text.get_fontsize() for ax in figure.axes for text in (*ax.texts, ax.title)]
    assert sizes and min(sizes) * scale >= 10


def test_stages_stand_one_after_the_other_and_those_that_wait_are_hatched():
    device = Device("slow memory", 1e12, 1e12)
    layer = [Stage("up", 3e9, 0.5e9), Stage("gather", 0, 1e9)]
    [ax] = draw_stages({"a layer": {"plain": layer, "fused": layer[:1]}}, device).axes
    bars = [(round(bar.get_x(), 9), round(bar.get_width(), 9), bool(bar.get_hatch())) for bar in ax.patches]
    assert bars == [(0, 3, False), (3, 2, True), (0, 3, False)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["plain", "fused"] and "up" in {t.get_text() for t in ax.texts}
    with pytest.raises(ValueError, match="panels is empty"):
        draw_stages({}, device)
