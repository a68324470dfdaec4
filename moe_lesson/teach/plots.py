"""The figures of the lessons, drawn with seaborn and matplotlib in the course's design; none is left open in pyplot.

A mean over seeds is never drawn without its 95% interval and its seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

try:
    import matplotlib
    import seaborn
except ImportError as missing:
    raise ImportError('figures need matplotlib and seaborn: pip install matplotlib seaborn') from missing

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..base.errors import require
from ..measure.evidence import interval
from ..measure.roofline import Device, Stage, seconds
from ..moe.recipes import Dense, Recipe
from .design import ACCENT, BAR, DESIGN, INK, LINE, OTHERS, STYLE, colour_of, colours_of

DASHES = ("-", "--", ":", "-.")


def blank(figure: Figure | None, width: float, height: float) -> Figure:
    """The given figure, or a bare one, in this size in inches."""
    figure = figure or Figure()
    figure.set(size_inches=(width, height), layout_engine="constrained")
    return figure


def student(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of a mean over seeds, as seaborn asks for it."""
    found = interval(list(values))
    return found.low, found.high


@matplotlib.rc_context(STYLE)
def draw_seeds(groups: dict[str, list[float]], label: str, figure: Figure | None = None) -> Figure:
    """Draw one ring per seed for each group, with the mean and its 95% interval.

    Args:
        groups: name -> at least two values, e.g. a model's test loss for every seed.
        label: what is measured, with its unit.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure; groups stand in rows, in the order given, models in their colours.

    Raises:
        ValueError: without a group, or for one of fewer than two values.
    """
    require(bool(groups), "groups is empty; give at least one name with its values")
    means = [interval(values).mean for values in groups.values()]
    figure = blank(figure, 8, 1.4 + 0.6 * len(groups))
    ax = figure.subplots()
    names = [name for name, values in groups.items() for _ in values]
    told = {"x": [value for values in groups.values() for value in values], "y": names, "hue": names, "legend": False, "ax": ax,
            "palette": {name: colour_of(name) or OTHERS[0] for name in groups}}
    seaborn.pointplot(**told, errorbar=student, linestyle="none", marker="|", markersize=20, markeredgewidth=3,
                      err_kws={"linewidth": 20, "alpha": 0.25, "solid_capstyle": "butt"})
    seaborn.swarmplot(**told, size=8, marker="$\u25ef$", linewidth=1, edgecolor="face", warn_thresh=1)  # beside each other
    for row, mean in enumerate(means):  # beside the axes, where no ring can be
        ax.annotate(f"{mean:.3f}", (1.01, row), xycoords=ax.get_yaxis_transform(), va="center", fontweight="bold")
    ax.set(xlabel=f"{label}\n(rings: seeds; line and box: mean and 95% interval)", ylabel="", ylim=(len(groups) - 0.4, -0.7))
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize=11)
    ax.grid(axis="x")
    return figure


def draw_line(ax: Axes, name: str, x: Sequence[float], values: Sequence, colour: str, dashes: str) -> bool:
    """One line of `draw_curves`; whether it is a mean of seeds."""
    seeds = np.atleast_2d(values)
    seaborn.lineplot(x=np.tile(x, len(seeds)), y=seeds.flatten(), ax=ax, errorbar=student, color=colour, linestyle=dashes,
                     label=name, legend=False, err_kws={"alpha": 0.15})
    if len(seeds) > 1:
        ax.plot(x, seeds.T, color=colour, linewidth=0.7, alpha=0.4)
    return len(seeds) > 1


def add_legend(ax: Axes, seeds: bool) -> None:
    """The lines' names above the axes, where no line can run under them, and what stands for the seeds."""
    ax.figure.legend(loc="outside upper left", ncols=2, alignment="left",
                     title="line: mean; band: its 95% interval; thin lines: seeds" if seeds else None)


@matplotlib.rc_context(STYLE)
def draw_scaling(losses: dict[float, list[float]], fits: dict[str, list[tuple[float, float]]], label: str,
                 figure: Figure | None = None) -> Figure:
    """Draw losses over sizes, both on logarithmic axes, where a power law is a straight line.

    Args:
        losses: size, e.g. parameters -> one loss per seed.
        fits: name -> factor and exponent of a power law for each seed, drawn over all sizes; at most four.
        label: what is measured, with its unit.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure.

    Raises:
        ValueError: for fewer than two sizes, or more than four fits.
    """
    require(len(losses) >= 2, f"{len(losses)} sizes; a power law needs at least 2")
    require(len(fits) <= len(DASHES), f"{len(fits)} fits; expected at most {len(DASHES)}, more can't be told apart")
    figure = blank(figure, 8, 4.8)
    ax = figure.subplots()
    sizes = sorted(losses)
    seeds = [draw_line(ax, name, sizes, [[factor * size ** -exponent for size in sizes] for factor, exponent in laws], *look)
             for (name, laws), *look in zip(fits.items(), colours_of(fits), DASHES)]
    ax.plot([size for size in sizes for _ in losses[size]], [loss for size in sizes for loss in losses[size]], "o",
            markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.5, label="measured, one seed")
    ax.set(xscale="log", yscale="log", xlabel="parameters", ylabel=label)
    ax.yaxis.set_major_formatter("{x:.2f}")
    ax.yaxis.set_minor_formatter("{x:.2f}")
    add_legend(ax, any(seeds))
    return figure


@matplotlib.rc_context(STYLE)
def draw_curves(curves: dict[str, tuple[Sequence[float], Sequence]], xlabel: str, ylabel: str,
                figure: Figure | None = None) -> Figure:
    """Draw lines over a common axis, e.g. losses over steps; of several seeds the mean, its 95% interval, and each seed.

    Args:
        curves: name -> x values and y values, as many of one run, or [Z, points] of Z seeds; at most four, told apart by
            dashes too.
        xlabel, ylabel: what is measured, with units.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure; models have their colours.

    Raises:
        ValueError: without a curve, or for more than four.
    """
    require(1 <= len(curves) <= 4, f"{len(curves)} curves; expected 1 to 4, more can't be told apart")
    figure = blank(figure, 8, 4.4)
    ax = figure.subplots()
    seeds = [draw_line(ax, name, x, values, *look) for (name, (x, values)), *look in
             zip(curves.items(), colours_of(curves), DASHES)]
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(axis="y")
    add_legend(ax, any(seeds))
    return figure


@matplotlib.rc_context(STYLE)
def draw_load_history(histories: dict[str, list[list[float]]], label: str, figure: Figure | None = None) -> Figure:
    """Draw the load of every expert along a training, expert × step, one panel for each training on one colour scale.

    Args:
        histories: name -> loads [N] in tokens, one for each recorded step, all with the same sum.
        label: of the steps.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure; colour is the load over the mean load, from 0 to the most that any panel shows, at least 2.

    Raises:
        ValueError: if there is no load to draw.
    """
    require(bool(histories) and all(len(loads) > 0 for loads in histories.values()), "there is no load to draw")
    figure = blank(figure, 10, 0.9 + 2.1 * len(histories))
    panels = figure.subplots(len(histories), 1, squeeze=False)[:, 0]
    relative = {name: np.array(loads) / np.mean(loads[0]) for name, loads in histories.items()}
    most = max(2.0, *(float(loads.max()) for loads in relative.values()))
    for ax, (name, loads) in zip(panels, relative.items()):
        heat_map(ax, loads.T, 20, vmin=0, vmax=most, cbar=False)
        ax.set_title(name, loc="left", parse_math=False)
    panels[-1].set_xlabel(label)
    figure.colorbar(panels[0].collections[0], ax=list(panels), pad=0.01, aspect=30, label="load / mean load")
    return figure


def heat_map(ax: Axes, values: np.ndarray, most: int, names: Sequence[str] = (), **options) -> None:
    """Experts in rows; columns with names or, at most so many, with numbers (more would run into each other)."""
    rows, columns = values.shape
    seaborn.heatmap(values, ax=ax, cmap=DESIGN["sequential"], xticklabels=list(names) or math.ceil(columns / most),
                    yticklabels=math.ceil(rows / 8), **options)
    ax.set_ylabel("expert")
    ax.tick_params(rotation=0)


@matplotlib.rc_context(STYLE)
def draw_calls(tables: dict[str, Tensor], labels: str, figure: Figure | None = None, *, names: Sequence[str] = (),
               limit: float = 1.0) -> Figure:
    """Draw for whose sake each expert is called, expert × label, the tables side by side on one colour scale.

    Args:
        tables: name -> calls [N, M], see `instruments.calls`; each row is drawn as shares with the sum 1.
        labels: what the M labels are, e.g. "skill".
        figure: where to draw; None makes a bare figure.
        names: of the labels; without, they are numbered.
        limit: the share of the brightest colour.

    Returns:
        The figure.

    Raises:
        ValueError: without a table.
    """
    require(bool(tables), "tables is empty; give at least one name with its calls")
    figure = blank(figure, 0.8 + 3.7 * len(tables), 4)
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for ax, (name, calls_NM) in zip(panels, tables.items()):
        shares_NM = calls_NM / calls_NM.sum(dim=1, keepdim=True).clamp(min=1e-12)
        heat_map(ax, shares_NM.cpu().numpy(), 8, names, norm=PowerNorm(0.5, 0, limit), cbar=ax is panels[-1],
                 square=shares_NM.shape[0] <= 3 * shares_NM.shape[1],  # squares of a longer table would be too small
                 cbar_kws={"label": "share of the expert's calls (√ spacing)"})
        ax.set_title(name, parse_math=False)
        ax.set_xlabel(labels)
    return figure


@matplotlib.rc_context(STYLE)
def draw_layers(recipes: Mapping[str, Recipe], figure: Figure | None = None) -> Figure:
    """Draw one token's way through layers, dense or sparse, side by side: a diagram, its scores and weights are no model's.

    Args:
        recipes: name -> recipe; a box is as wide as an expert, or a dense FFN, has hidden units, on one scale for all.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure, read upward: residual stream, RMS norm, the router's scores with the top k lit, the experts that work
        for the token in the model's colour and shared ones dark, the sum (a line as thick as its weight), the residual.

    Raises:
        ValueError: without a recipe.
    """
    require(bool(recipes), "recipes is empty; give at least one name with its recipe")
    figure = blank(figure, 3.3 * len(recipes), 4.2)
    panels = figure.subplots(1, len(recipes), squeeze=False)[0]
    # a dense FFN is one shared expert, and none to choose from: (hidden units of a box, shared, routed, active)
    sizes = [(one.hidden, 1, 0, 0) if isinstance(one, Dense) else (one.expert_width, one.num_shared, one.num_experts, one.top_k)
             for one in recipes.values()]
    most = max(hidden * (shared + routed) for hidden, shared, routed, _ in sizes)
    for ax, name, (hidden, num_shared, num_routed, top_k), colour in zip(panels, recipes, sizes, colours_of(recipes)):
        box, stride = hidden / most, max(1, num_routed // max(1, top_k))
        chosen = {num_shared + (5 * k) % stride + stride * k: 1 - 0.6 * ((3 * k) % top_k) / top_k for k in range(top_k)}
        for expert in range(num_shared + num_routed):
            middle = 0.5 + (expert + 0.5 - (num_shared + num_routed) / 2) * box
            fill = colour if expert in chosen or not num_routed else INK if expert < num_shared else "none"
            score = chosen.get(expert, 0.1 + 0.25 * (0.618 * expert % 1))
            ax.add_patch(Rectangle((middle - 0.38 * box, 0.44), 0.76 * box, 0.2, facecolor=fill, edgecolor=LINE))
            if expert >= num_shared:
                ax.vlines(middle, 0.27, 0.27 + 0.1 * score, LINE if fill == "none" else fill, linewidth=min(7, 100 * box))
            if fill != "none":
                always = expert < num_shared  # past the router, and with the weight 1
                below = ([0.42 if num_routed else 0.5, middle, middle], [0.05, 0.25, 0.43]) if always else (
                    [0.5, middle, np.nan, middle, middle], [0.16, 0.26, np.nan, 0.38, 0.43])
                ax.plot(*below, color=fill, linewidth=1.2, zorder=0)
                ax.plot([middle, 0.5], [0.65, 0.83], color=fill, zorder=0,
                        linewidth=1.5 if always else 0.4 + 6 * score / sum(chosen.values()))
        ax.plot([-0.1, -0.1], [-0.02, 1.03], color=INK, linewidth=3, solid_capstyle="butt")
        for way in (([-0.1, 0.5, 0.5], [0.05, 0.05, 0.16 if num_routed else 0.05]), ([0.5, 0.5, -0.1], [0.83, 0.95, 0.95])):
            ax.plot(*way, color=INK, linewidth=1.2, zorder=0)
        around = {"ha": "center", "va": "center", "bbox": {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": INK}}
        ax.text(0.5, 0.05, "RMS norm", **around)
        ax.text(-0.1, 0.95, "+", **around | {"bbox": around["bbox"] | {"boxstyle": "circle,pad=0.15"}})
        ax.text(-0.15, 0.5, "residual stream", ha="right", va="center", rotation=90)
        if num_routed:
            ax.text(0.5, 0.16, f"router: top {top_k}", **around)
            ax.text(0.5, 0.83, "Σ weight · answer" + (" + shared" if num_shared else ""), **around)
        ax.set(xlim=(-0.22, 1.01), ylim=(-0.02, 1.03))
        ax.set_title(f"{name}\n{top_k} of {num_routed} experts of {hidden}" + (f", and {num_shared} shared" if num_shared else "")
                     if num_routed else f"{name}\none FFN of {hidden}")
        ax.axis("off")
    return figure


@matplotlib.rc_context(STYLE)
def draw_stages(panels: Mapping[str, Mapping[str, Sequence[Stage]]], device: Device, figure: Figure | None = None) -> Figure:
    """The least time of layers by their stages, one after the other.

    Args:
        panels: title of a panel -> name of a layer -> its stages, see `measure.roofline`.
        device: on which.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure; a stage that waits for memory is hatched, one that keeps the units busy is filled.

    Raises:
        ValueError: without a panel.
    """
    require(bool(panels), "panels is empty; give at least one title with its layers")
    figure = blank(figure, 9, 0.9 + 1.7 * len(panels))
    for ax, (title, layers) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items()):
        most = max(seconds(stages, device) for stages in layers.values())
        for y, stages in enumerate(layers.values()):
            left = 0.0
            for stage in stages:
                took = stage.seconds(device)
                waits = stage.flops / device.flops < took
                kind = {"facecolor": "white", "edgecolor": ACCENT, "hatch": "////", "label": "waits for memory"} if waits else {
                    "facecolor": BAR, "edgecolor": "white", "label": "keeps the units busy"}
                bar = ax.barh(y, 1000 * took, 0.7, 1000 * left, **kind)
                if took > 0.08 * most:
                    ax.bar_label(bar, [stage.name], label_type="center", color=INK if waits else "white",
                                 bbox={"boxstyle": "round,pad=0.15", "color": "white"} if waits else None)
                left += took
        ax.set(title=title, yticks=range(len(layers)), yticklabels=list(layers), xlim=(0, 1050 * most))
        ax.invert_yaxis()
    ax.set_xlabel("milliseconds at least")
    kinds = {label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(kinds.values(), kinds.keys(), loc="outside lower center", ncols=2)
    return figure
