"""Pictures of a routing, drawn with matplotlib on bare figures: no pyplot, no global state.

Letters: T tokens, N experts, K active experts.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence

try:
    import matplotlib
except ImportError as missing:
    raise ImportError('figures need matplotlib: pip install "moe-lesson[lab]"') from missing

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from torch import Tensor

from ..base.errors import require
from ..measure.evidence import interval
from ..moe.routing import Routing

MOST_LABELS = 72  # rows that can carry a readable name; of a longer text every second, third … token is named


def draw_routing(routing: Routing, *, origin: str, title: str = "routing", limit: float = 1.0,
                 load_limit: float | None = None, figure: Figure | None = None) -> Figure:
    """Draw the gate weights, token × expert, over the load of each expert, which is the count of its column.

    Args:
        routing: T tokens to N experts.
        origin: where the routing comes from, for the title: "trained", "toy", "synthetic", "random router (null)" …
        title: the rest of the title.
        limit: the weight of the brightest colour. A gate's scale is the most that a weight can be; keep it over all
            figures that are compared.
        load_limit: the top of the load axis, in tokens; None fits this routing.
        figure: where to draw, e.g. `plt.figure()` to see it under a cell; None makes a bare figure.

    Returns:
        The figure, with the heat map and the load bars as its first two axes.

    Raises:
        ValueError: if no origin is given, or a limit is not positive.
    """
    require(bool(origin and origin.strip()), 'origin is empty; say where the routing comes from, e.g. "trained"')
    require(limit > 0, f"limit is {limit}; the brightest colour needs a positive weight")
    require(load_limit is None or load_limit > 0, f"load_limit is {load_limit}; the axis needs a positive top, or None")
    figure = figure or Figure()
    rows = max(4, min(routing.num_tokens, MOST_LABELS))
    figure.set(size_inches=(10, 2.5 + 0.15 * rows), layout_engine="constrained")
    heat, bars = figure.subplots(2, 1, sharex=True, height_ratios=(0.15 * rows, 1.1))
    draw_heat(heat, routing, limit)
    draw_load(bars, routing, load_limit)
    sizes = f"{routing.num_tokens} tokens, K = {routing.top_k} of {routing.num_experts} experts"
    heat.set_title(f"{title} · {sizes} · {origin}", parse_math=False)
    return figure


def draw_heat(ax: Axes, routing: Routing, limit: float) -> None:
    """The weights [T, N], spaced by the square root so that small ones show."""
    gates = routing.gates.detach().float().cpu().numpy()
    image = ax.imshow(gates, aspect="auto", cmap="cividis", norm=PowerNorm(0.5, 0, limit), interpolation="nearest",
                      extent=(-0.5, routing.num_experts - 0.5, max(routing.num_tokens, 1) - 0.5, -0.5))
    ax.figure.colorbar(image, ax=ax, pad=0.01, aspect=50, label="gate weight (√ spacing)",
                       ticks=[share * limit for share in (0, 0.05, 0.2, 0.5, 1)])
    step = math.ceil(routing.num_tokens / MOST_LABELS) or 1
    named = range(0, routing.num_tokens, step)
    tokens = routing.tokens or [str(t) for t in range(routing.num_tokens)]
    ax.set_yticks(list(named), [drawable(tokens[t]) for t in named], fontsize=10, parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel("token")
    if not routing.num_tokens:
        ax.text(0.5, 0.5, "the text is empty: no token", transform=ax.transAxes, ha="center", color="white")


def draw_load(ax: Axes, routing: Routing, load_limit: float | None) -> None:
    """The load [N] in tokens, with a line at its mean."""
    load = routing.load.tolist()
    mean = routing.num_tokens * routing.top_k / routing.num_experts
    ax.bar(range(routing.num_experts), load, width=0.8, color="#5b82b8")
    ax.axhline(mean, color="#d9660a", linewidth=1.5)
    ax.set_ylim(0, load_limit or max(load + [1]) * 1.05)
    ax.set_ylabel("load\n(tokens)")
    ax.set_xlabel(f"expert (the numbers belong to this layer alone); orange line: mean load {mean:.1f}")
    ax.spines[["top", "right"]].set_visible(False)


def drawable(token: str, longest: int = 12) -> str:
    """The token as this font can draw it: a white square for each sign the font lacks."""
    known = letters_of(findfont(FontProperties(family=matplotlib.rcParams["font.family"])))
    shown = "".join(sign if ord(sign) in known else "\u25a1" for sign in token)
    return shown if len(shown) <= longest else shown[:longest - 1] + "…"


@functools.lru_cache
def letters_of(font_file: str) -> frozenset[int]:
    """The characters that a font can draw."""
    return frozenset(FT2Font(font_file).get_charmap())


def png(figure: Figure, dpi: int = 96) -> bytes:
    """The figure as a PNG, without date or version inside: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def draw_seeds(groups: dict[str, list[float]], label: str, figure: Figure | None = None) -> Figure:
    """Draw one ring per seed for each group, with the mean and its 95% interval.

    Args:
        groups: name -> at least two values, e.g. a model's test loss for every seed.
        label: what is measured, with its unit.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure; groups stand in rows, in the order given.
    """
    require(bool(groups), "groups is empty; give at least one name with its values")
    figure = figure or Figure()
    figure.set(size_inches=(8, 1.2 + 0.6 * len(groups)), layout_engine="constrained")
    ax = figure.subplots()
    for row, values in enumerate(groups.values()):
        i = interval(values)
        ax.fill_betweenx([row - 0.22, row + 0.22], i.low, i.high, color="#5b82b8", alpha=0.3, linewidth=0)
        ax.vlines(i.mean, row - 0.22, row + 0.22, color="#1f3d66", linewidth=2)
        heights = [row + 0.12 * (seed - (len(values) - 1) / 2) for seed in range(len(values))]  # equal values stay apart
        ax.scatter(values, heights, facecolors="none", edgecolors="#c4520a", linewidths=2, zorder=3)
        ax.annotate(f"{i.mean:.3f}", (i.mean, row - 0.28), ha="center", va="bottom", fontsize=11)
    ax.set_yticks(range(len(groups)), groups, fontsize=11)
    ax.set_ylim(len(groups) - 0.4, -0.7)
    ax.set_xlabel(f"{label} (rings: seeds; line and box: mean and 95% interval)")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure


def draw_scaling(losses: dict[float, list[float]], fits: dict[str, tuple[float, float]], label: str,
                 figure: Figure | None = None) -> Figure:
    """Draw losses over sizes, both on logarithmic axes, where a power law is a straight line.

    Args:
        losses: size, e.g. parameters -> one loss per seed.
        fits: name -> factor and exponent of a power law, drawn over all sizes.
        label: what is measured, with its unit.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure.
    """
    require(len(losses) >= 2, f"{len(losses)} sizes; a power law needs at least 2")
    figure = figure or Figure()
    figure.set(size_inches=(8, 4.5), layout_engine="constrained")
    ax = figure.subplots()
    sizes = sorted(losses)
    ax.plot([size for size in sizes for _ in losses[size]], [loss for size in sizes for loss in losses[size]], "o",
            markerfacecolor="none", markeredgecolor="#c4520a", markeredgewidth=2, label="one seed")
    for (name, (factor, exponent)), style in zip(fits.items(), ("-", "--", ":")):
        ax.plot(sizes, [factor * size ** -exponent for size in sizes], style, color="#1f3d66", label=name)
    ax.set(xscale="log", yscale="log", xlabel="parameters", ylabel=label)
    ax.yaxis.set_major_formatter("{x:.2f}")
    ax.yaxis.set_minor_formatter("{x:.2f}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=11)
    return figure


def draw_curves(curves: dict[str, tuple[list[float], list[float]]], xlabel: str, ylabel: str,
                figure: Figure | None = None) -> Figure:
    """Draw lines over a common axis, e.g. losses over steps.

    Args:
        curves: name -> x values and y values; at most four lines, told apart by their dashes too.
        xlabel, ylabel: what is measured, with units.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure.
    """
    require(1 <= len(curves) <= 4, f"{len(curves)} curves; expected 1 to 4, more can't be told apart")
    figure = figure or Figure()
    figure.set(size_inches=(8, 4), layout_engine="constrained")
    ax = figure.subplots()
    looks = zip(("#1f3d66", "#c4520a", "#2a7f62", "#7a5195"), ("-", "--", ":", "-."))
    for (name, (x, y)), (colour, dashes) in zip(curves.items(), looks):
        ax.plot(x, y, dashes, color=colour, linewidth=2, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=11)
    return figure


def draw_load_history(histories: dict[str, list[list[float]]], label: str, figure: Figure | None = None) -> Figure:
    """Draw the load of every expert along a training, expert × step, one panel for each training on one colour scale.

    Args:
        histories: name -> P loads [N] in tokens, one for each recorded step, all with the same sum.
        label: of the steps.
        figure: where to draw; None makes a bare figure.

    Returns:
        The figure; colour is the load over the mean load, from 0 to the most that any panel shows, at least 2.
    """
    require(bool(histories) and all(len(loads) > 0 for loads in histories.values()), "there is no load to draw")
    figure = figure or Figure()
    figure.set(size_inches=(10, 0.9 + 2.1 * len(histories)), layout_engine="constrained")
    panels = figure.subplots(len(histories), 1, sharex=True, squeeze=False)[:, 0]
    relative = {name: np.array(loads) / np.mean(loads[0]) for name, loads in histories.items()}
    most = max(2.0, *(float(loads_PN.max()) for loads_PN in relative.values()))
    for ax, (name, loads_PN) in zip(panels, relative.items()):
        image = ax.imshow(loads_PN.T, aspect="auto", cmap="cividis", vmin=0, vmax=most, interpolation="nearest",
                          extent=(-0.5, len(loads_PN) - 0.5, loads_PN.shape[1] - 0.5, -0.5))
        ax.set_title(name, loc="left", fontsize=11, parse_math=False)
        ax.set_ylabel("expert")
    panels[-1].set_xlabel(label)
    figure.colorbar(image, ax=list(panels), pad=0.01, aspect=30, label="load / mean load")
    return figure


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
    """
    import seaborn  # not above: it brings pyplot, which all other pictures leave alone

    require(bool(tables), "tables is empty; give at least one name with its calls")
    figure = figure or Figure()
    figure.set(size_inches=(0.8 + 3.7 * len(tables), 4), layout_engine="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for ax, (name, calls_NM) in zip(panels, tables.items()):
        shares_NM = calls_NM / calls_NM.sum(dim=1, keepdim=True).clamp(min=1e-12)
        every_N, every_M = (math.ceil(size / 8) for size in shares_NM.shape)  # more numbers would run into each other
        seaborn.heatmap(shares_NM.cpu().numpy(), ax=ax, cmap="cividis", norm=PowerNorm(0.5, 0, limit),
                        square=shares_NM.shape[0] <= 3 * shares_NM.shape[1],  # squares of a longer table would be too small
                        xticklabels=list(names) or every_M, yticklabels=every_N, cbar=ax is panels[-1],
                        cbar_kws={"label": "share of the expert's calls (√ spacing)"})
        ax.set_title(name, fontsize=11, parse_math=False)
        ax.set(xlabel=labels, ylabel="expert")
        ax.tick_params(axis="y", rotation=0)
    return figure
