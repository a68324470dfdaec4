"""How the course's figures look: one colour for each model in figures and widgets, one size of type, faint grids, no frames."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ..base.design import DESIGN

INK, LINE, BAR, ACCENT = (DESIGN[name] for name in ("ink", "line", "bar", "accent"))
MODELS, VARIANTS = DESIGN["models"], DESIGN["variants"]
OTHERS = tuple(DESIGN["others"])  # for what is no model: never a model's colour, while these last
STYLE: Any = {"font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "xtick.labelsize": 10.5, "ytick.labelsize": 10.5,
              "legend.fontsize": 11, "legend.title_fontsize": 10.5, "legend.frameon": False, "lines.linewidth": 2,
              "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
              "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.color": LINE,
              "grid.linewidth": 0.5}


def plain(name: str) -> str:
    """A name as it is compared: small letters, without spaces and hyphens."""
    return re.sub(r"[\s-]", "", name).lower()


KNOWN = {plain(name): colour for name, colour in MODELS.items()} | {name: MODELS[model] for name, model in VARIANTS.items()}


def colour_of(name: str) -> str | None:
    """The colour of the model that a name begins with, e.g. "gshard, layer 2" or "GShard×1.5"; None if it names no model."""
    found = [known for known in KNOWN if re.match(rf"{re.escape(known)}(?!\w)", plain(name))]
    return KNOWN[max(found, key=len)] if found else None


def colours_of(names: Iterable[str]) -> list[str]:
    """A colour for each name: that of its model, and one that none of them has for what is no model."""
    own = [colour_of(name) for name in names]
    spare = iter([colour for colour in (*OTHERS, *MODELS.values()) if colour not in own])
    return [colour or next(spare, LINE) for colour in own]
