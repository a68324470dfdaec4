"""The router microscope: what one router does with one token, from logits to weights.

The browser receives the raw logits and the draws of noise once and computes every step itself; the functions here are
its twins, for the words and the picture in Python. Letters: T tokens, N experts, K active experts, P draws of noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import traitlets
from numpy import ndarray
from traitlets import Bool, Bytes, Dict, Float, Int, List, Unicode

from ..base.errors import require
from ..moe.layers import MoE
from ..moe.routing import Routing
from ..teach.plots import drawable, png
from .base import LessonWidget, module_source, stylesheet, within
from .common import Gate, check_logits, check_origin, count, fixed, follows, listed, plain, softmax, visible

DRAWS = 100
COLDEST, HOTTEST = 0.1, 10.0  # temperatures

# The weights [K] of the chosen experts, out of their probabilities among all N experts and their logits over temperature.
ORDERS = {
    "softmax, top-k": lambda probabilities_K, logits_K: probabilities_K,
    "softmax, top-k, renormalise": lambda probabilities_K, logits_K: probabilities_K / probabilities_K.sum(),
    "top-k, softmax": lambda probabilities_K, logits_K: softmax(logits_K),
}


@dataclass(frozen=True)
class Decision:
    """What a router does with one token.

    Args:
        logits_N: what decided, with noise if there was any.
        probabilities_N: their softmax at the temperature, over all N experts.
        ids_K: the chosen experts, best first.
        weights_K: what each chosen expert's output is multiplied by.
    """

    logits_N: ndarray
    probabilities_N: ndarray
    ids_K: ndarray
    weights_K: ndarray


def decide(logits_N: ndarray, k: int, temperature: float, order: str) -> Decision:
    """The k largest logits and their weights; a tie goes to the lower expert id."""
    scaled_N = logits_N / temperature
    probabilities_N = softmax(scaled_N)
    ids_K = largest(logits_N, k)
    return Decision(logits_N, probabilities_N, ids_K, ORDERS[order](probabilities_N[ids_K], scaled_N[ids_K]))


def largest(values: ndarray, k: int) -> ndarray:
    """Where the k largest values of each row stand, largest first."""
    return np.argsort(-values, axis=-1, kind="stable")[..., :k]


def explore(logits_N: ndarray, noise_PN: ndarray, k: int) -> tuple[ndarray, int]:
    """In how many draws each expert is chosen [N], and how many draws choose others than no noise would."""
    chosen_PN = np.zeros(noise_PN.shape, bool)
    np.put_along_axis(chosen_PN, largest(logits_N + noise_PN, k), True, axis=-1)
    quiet = largest(logits_N, k)
    return chosen_PN.sum(axis=0), int((~chosen_PN[:, quiet]).any(axis=1).sum())


class RouterMicroscope(LessonWidget):
    """Follow one token through a softmax router, and turn K, temperature, noise and the order of the steps.

    Args:
        routing: T named tokens, routed by a softmax router without bias; its logits are all that is used.
        origin: where it comes from, shown on the widget's face: "trained", "toy" or "synthetic".
        title: the title.
        seed: of the noise.
        token: which token is shown first, 0 … T-1.

    Traits to read, set and observe: `token`, `k` (1 … N), `temperature` (0.1 … 10), `noise` (its standard deviation in
    logits, 0 … `noise_limit`), `draw` (1 … 100, which draw of the noise), `order` (a key of `ORDERS`), `by_logit` (sort
    the experts), `locked_expert` (an index or None). To read: `summary` (what the widget says), `shown` (the `Decision`).

    Raises:
        ValueError: if there is no token, or the routing was not made by a softmax router.
    """

    _esm = module_source("router_microscope")
    _css = stylesheet("router_microscope")

    title = Unicode().tag(sync=True)
    origin = Unicode().tag(sync=True)
    seed = Int().tag(sync=True)
    tokens = List(Unicode()).tag(sync=True)
    num_experts = Int().tag(sync=True)
    logits = Bytes().tag(sync=True)  # float32 [T, N]
    draws = Bytes().tag(sync=True)  # float32 [P, N], standard normal
    noise_limit = Float().tag(sync=True)
    logit_limits = List(Float()).tag(sync=True)  # of the axis: one for all tokens and settings
    digits = Int().tag(sync=True)  # after the decimal point of a logit
    start = Dict().tag(sync=True)  # as recorded; what Reset goes back to

    token = Int(0).tag(sync=True)
    k = Int(1).tag(sync=True)
    temperature = Float(1.0).tag(sync=True)
    noise = Float(0.0).tag(sync=True)
    draw = Int(1).tag(sync=True)
    order = Unicode().tag(sync=True)
    by_logit = Bool(False).tag(sync=True)
    locked_expert = Int(None, allow_none=True).tag(sync=True)

    def __init__(self, routing: Routing, *, origin: str = "trained", title: str = "router microscope", seed: int = 0,
                 token: int = 0):
        check_origin(origin)
        require(isinstance(seed, int) and 0 <= seed < 2**32, f"seed is {seed!r}; expected a whole number, 0 … 2³² - 1")
        check_routing(routing)
        require(isinstance(token, int) and 0 <= token < routing.num_tokens,
                f"token is {token!r}; expected 0 … {routing.num_tokens - 1}")
        logits_TN = plain(routing)
        draws_PN = np.random.default_rng(seed).standard_normal((DRAWS, routing.num_experts), np.float32)
        start = {"token": token, "k": routing.top_k, "temperature": 1.0, "noise": 0.0, "draw": 1,
                 "order": recorded_order(routing), "by_logit": False, "locked_expert": None}
        super().__init__(title=title, origin=origin, seed=seed, tokens=[visible(token) for token in routing.tokens],
                         num_experts=routing.num_experts, logits=logits_TN.tobytes(), draws=draws_PN.tobytes(),
                         **scales(logits_TN), start=start, **start)

    @classmethod
    def of_model(cls, model, text: str, layer: int = 0, *, origin: str = "trained", title: str = "router microscope",
                 seed: int = 0, token: int = 0) -> RouterMicroscope:
        """The microscope over a language model's own router.

        Args:
            model: a `LanguageModel` with at least one MoE layer.
            text: whose tokens are routed, at most the model's context long.
            layer: which MoE layer, counted from 0.
            origin: "trained" or "toy".
            title: the title; the layer is added.
            seed: of the noise.
            token: which token is shown first.
        """
        routers = [block.ffn.router for block in model.blocks if isinstance(block.ffn, MoE)]
        require(bool(routers), "this model has no MoE layer, so there is no router to look at")
        require(0 <= layer < len(routers), f"layer is {layer}; this model's MoE layers are 0 … {len(routers) - 1}")
        check_router(routers[layer])
        require(bool(text), "the text is empty, so there is no token to look at; write at least one letter")
        routings = [routing for routing in model.route(text) if routing is not None]
        return cls(routings[layer], origin=origin, title=f"{title} · layer {layer + 1} of {len(routers)}", seed=seed,
                   token=token)

    @property
    def quiet_logits(self) -> ndarray:
        """The logits [N] of the token, without noise, in float64."""
        start = 4 * self.num_experts * self.token  # 4 bytes a float32
        return np.frombuffer(self.logits, np.float32, self.num_experts, start).astype(np.float64)

    @property
    def noise_draws(self) -> ndarray:
        """All draws of the noise, [P, N], in units of the logits."""
        return self.noise * np.frombuffer(self.draws, np.float32).reshape(DRAWS, self.num_experts).astype(np.float64)

    @property
    def shown(self) -> Decision:
        """What the router does with the token, at these settings and in this draw."""
        return decide(self.quiet_logits + self.noise_draws[self.draw - 1], self.k, self.temperature, self.order)

    @property
    def exploration(self) -> tuple[ndarray, int]:
        """In how many draws each expert is chosen [N], and how many draws choose others than no noise would."""
        return explore(self.quiet_logits, self.noise_draws, self.k)

    @property
    def as_recorded(self) -> bool:
        """Is this what the router did, not a what-if?"""
        return all(getattr(self, name) == self.start[name] for name in ("k", "temperature", "noise", "order"))

    @property
    def summary(self) -> str:
        """What the widget says, in words."""
        return summary(self)

    def describe(self) -> str:
        return (f"{self.title!r}, {self.origin}: {count(len(self.tokens), 'token')}, "
                f"{self.start['k']} of {count(self.num_experts, 'expert')}")

    def picture(self) -> bytes:
        return png(draw_microscope(self))

    @traitlets.validate("token", "k", "temperature", "noise", "draw", "locked_expert")
    def _in_range(self, proposal):
        return within(proposal, {"token": (0, len(self.tokens) - 1), "k": (1, self.num_experts), "draw": (1, DRAWS),
                                 "temperature": (COLDEST, HOTTEST), "noise": (0, self.noise_limit),
                                 "locked_expert": (0, self.num_experts - 1)})

    @traitlets.validate("order")
    def _known_order(self, proposal):
        if proposal["value"] not in ORDERS:
            raise traitlets.TraitError(f"order is {proposal['value']!r}; choose one of {'; '.join(ORDERS)}")
        return proposal["value"]


# --- validation -------------------------------------------------------------------------------------------------------


def check_routing(routing: Routing) -> None:
    require(isinstance(routing, Routing), f"routing is {type(routing).__name__}; expected a Routing")
    require(routing.num_tokens > 0, "the routing has no token; the microscope looks at one")
    require(routing.top_k >= 1, "the routing has K = 0; each token must go to at least one expert")
    require(routing.tokens is not None, "the routing has no token texts; add them with routing.with_tokens([...])")
    check_logits(routing, "routing")


def check_router(router) -> None:
    """Refuse a router whose choice and weights are not made by the steps that the microscope shows."""
    require(router.score == "softmax",
            f"this router scores with a {router.score}; the microscope shows softmax routers (the routing map shows any)")
    require(not router.bias.any(), "this router chooses with a bias; the microscope shows routers that choose by logits alone")
    require(router.scale == 1, f"this router multiplies its weights by {router.scale:g}; the microscope shows scale 1 alone")


def recorded_order(routing: Routing) -> str:
    """The order of steps that leads from the routing's logits to its weights."""
    for order, renormalise in (("softmax, top-k, renormalise", True), ("softmax, top-k", False)):
        if follows(routing, Gate(renormalise=renormalise)):
            return order
    raise ValueError("the routing does not follow from its logits with a softmax and top-k; the microscope shows softmax "
                     "routers without noise, bias and scale (the routing map shows others)")


def scales(logits_TN: ndarray) -> dict:
    """The limits of noise and of the logit axis: fixed by all tokens, so that no setting moves them.

    The noise goes to twice the typical spread of a token's logits. The axis leaves one spread of room for it at either
    end; a bar that leaves it nevertheless gets an arrow.
    """
    known = logits_TN[np.isfinite(logits_TN)]
    spread = float(np.mean([row[np.isfinite(row)].std(dtype=np.float64) for row in logits_TN]))
    if spread <= 1e-6 * np.abs(known).max():  # all equal, but for rounding
        spread = 1.0
    exponent = math.floor(math.log10(2 * spread))
    return {"noise_limit": float(f"{math.ceil(2 * spread / 10.0**exponent)}e{exponent}"),
            "logit_limits": [float(known.min()) - spread, float(known.max()) + spread],
            "digits": max(2, 2 - exponent)}


# --- the summary: the twin of `describe` in router_microscope.js ------------------------------------------------------


def summary(scope: RouterMicroscope) -> str:
    """What the microscope shows, in words."""
    shown = scope.shown
    parts = [head(scope), choice_words(scope, shown), gap_words(scope)]
    if scope.noise:
        parts.append(noise_words(scope, shown))
    if scope.locked_expert is not None:
        parts.append(expert_words(scope, shown, scope.locked_expert))
    return " ".join(part for part in parts if part)


def head(scope: RouterMicroscope) -> str:
    noise = f"noise σ = {fixed(scope.noise, scope.digits)} (draw {scope.draw})" if scope.noise else "no noise"
    return (f"Token {scope.token} '{scope.tokens[scope.token]}', {scope.origin} router, K = {scope.k} of "
            f"{count(scope.num_experts, 'expert')}, τ = {fixed(scope.temperature, 2)}, {noise}: "
            f"{'as recorded' if scope.as_recorded else 'a what-if'}.")


def choice_words(scope: RouterMicroscope, shown: Decision) -> str:
    chosen = [f"{n} ({fixed(weight, 2)})" for n, weight in zip(shown.ids_K.tolist(), shown.weights_K.tolist())]
    held = shown.probabilities_N[shown.ids_K].sum()
    return (f"Chosen: {'expert' if len(chosen) == 1 else 'experts'} {listed(chosen)}. The weights ({scope.order}) sum to "
            f"{fixed(shown.weights_K.sum(), 2)}; before top-k, the chosen held {fixed(held, 2)} of the probability.")


def gap_words(scope: RouterMicroscope) -> str:
    gap = gap_at_cut(scope.quiet_logits, scope.k)
    return f"Without noise, the last chosen leads the next by {fixed(gap, scope.digits)}." if math.isfinite(gap) else ""


def gap_at_cut(logits_N: ndarray, k: int) -> float:
    """How far the logit of the last chosen expert is above the best one left out; infinite if none is left out."""
    best = largest(logits_N, k + 1)
    ends = logits_N[best[k - 1:]]
    return float(ends[0] - ends[1]) if np.isfinite(ends).all() and len(ends) == 2 else math.inf


def noise_words(scope: RouterMicroscope, shown: Decision) -> str:
    swapped = len(set(shown.ids_K.tolist()) - set(largest(scope.quiet_logits, scope.k).tolist()))
    this = f"swaps {swapped} of the {scope.k}" if swapped else "chooses the same as without noise"
    return f"This draw {this}; {scope.exploration[1]} of {DRAWS} draws choose others."


def expert_words(scope: RouterMicroscope, shown: Decision, expert: int) -> str:
    words = f"Expert {expert}: logit {logit_words(scope.quiet_logits[expert], scope.digits)}"
    if scope.noise:
        words += f", with noise {logit_words(shown.logits_N[expert], scope.digits)}"
    place = shown.ids_K.tolist().index(expert) if expert in shown.ids_K else None
    weight = "not chosen" if place is None else f"weight {fixed(shown.weights_K[place], 2)}"
    words += f", probability {fixed(shown.probabilities_N[expert], 3)}, {weight}"
    return words + (f", chosen in {scope.exploration[0][expert]} of {DRAWS} draws." if scope.noise else ".")


def logit_words(logit: float, digits: int) -> str:
    return fixed(logit, digits) if math.isfinite(logit) else "-∞ (masked)"


# --- the picture ------------------------------------------------------------------------------------------------------

BAR, CHOSEN, INK = "#5b82b8", "#d9660a", "#16191d"
SHARES = (0, 0.05, 0.2, 0.5, 1)


def draw_microscope(scope: RouterMicroscope):
    """The widget's rows on a bare figure: logits, probabilities, weights; with noise also how often each is chosen."""
    from matplotlib.figure import Figure

    shown = scope.shown
    words = row_words(scope, shown)
    figure = Figure(figsize=(10, 1.1 + 1.3 * len(words)), layout="constrained")
    axes = figure.subplots(len(words), 1, sharex=True, height_ratios=(1.3, 1, 1, 1)[:len(words)])
    draw_logits(axes[0], scope, shown)
    weights_N = np.zeros(scope.num_experts)
    weights_N[shown.ids_K] = shown.weights_K
    for ax, shares_N in zip(axes[1:], (shown.probabilities_N, weights_N, scope.exploration[0] / DRAWS)):
        draw_shares(ax, shares_N, shown.ids_K)
    for ax, (left, right) in zip(axes, words):
        ax.set_title(left, loc="left", fontsize=11)
        ax.set_title(right, loc="right", fontsize=11)
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("expert (the numbers belong to this layer alone); orange: chosen; all rows but the first: √ spacing")
    figure.suptitle(f"{scope.title} · token {scope.token} '{drawable(scope.tokens[scope.token])}' · K = {scope.k} of "
                    f"{count(scope.num_experts, 'expert')} · {scope.origin} router", parse_math=False)
    return figure


def row_words(scope: RouterMicroscope, shown: Decision) -> list[tuple[str, str]]:
    """What stands above each row: what it is, and its number to notice. The fourth row has nothing to say without noise."""
    noise = f" + σ · draw {scope.draw}, σ = {fixed(scope.noise, scope.digits)}" if scope.noise else ""
    gap = gap_at_cut(shown.logits_N, scope.k)
    held, total = shown.probabilities_N[shown.ids_K].sum(), shown.weights_K.sum()
    rows = [(f"1  logits{noise}", f"gap at the cut: {fixed(gap, scope.digits)}" if math.isfinite(gap) else ""),
            (f"2  probabilities: softmax(logits / τ), τ = {fixed(scope.temperature, 2)}", f"the chosen hold {fixed(held, 2)}"),
            (f"3  weights: {scope.order}", f"sum: {fixed(total, 2)}")]
    others = f"{scope.exploration[1]} of {DRAWS} draws choose others"
    return rows + [(f"4  chosen in what share of {DRAWS} draws of noise", others)] if scope.noise else rows


def draw_logits(ax, scope: RouterMicroscope, shown: Decision) -> None:
    """Bars from zero, and the cut between the last chosen and the first left out; arrows where a bar leaves the axis."""
    (low, high), logits_N = scope.logit_limits, shown.logits_N
    floor = min(max(0.0, low), high)
    masked_N = np.isneginf(logits_N)
    ax.bar(range(scope.num_experts), np.where(masked_N, floor, logits_N) - floor, bottom=floor,
           **bar_style(scope.num_experts, shown.ids_K))
    for marked_N, y, marker in ((masked_N, floor, "x"), (logits_N > high, high, "^"), (~masked_N & (logits_N < low), low, "v")):
        ax.scatter(*np.broadcast_arrays(marked_N.nonzero()[0], y), marker=marker, color=INK, s=36, clip_on=False, zorder=3)
    if scope.noise:
        ax.scatter(range(scope.num_experts), np.where(masked_N, np.nan, scope.quiet_logits), marker="_", color=INK, s=50)
    if math.isfinite(gap_at_cut(logits_N, scope.k)):
        ax.axhline(logits_N[largest(logits_N, scope.k + 1)[-2:]].mean(), color=INK, linewidth=1, linestyle="--")
    ax.set_ylim(low, high)
    ax.set_xlim(-0.6, scope.num_experts - 0.4)


def draw_shares(ax, shares_N: ndarray, ids_K: ndarray) -> None:
    """Bars between 0 and 1, spaced by the square root so that small ones show."""
    ax.bar(range(len(shares_N)), np.sqrt(shares_N), **bar_style(len(shares_N), ids_K))
    ax.set_ylim(0, 1.02)
    ax.set_yticks(np.sqrt(SHARES), [f"{share:g}" for share in SHARES])


def bar_style(num_experts: int, ids_K: ndarray) -> dict:
    """Chosen experts in orange with a dark edge, for eyes that see no orange."""
    style = {"width": 0.8, "color": [BAR] * num_experts, "linewidth": [0.0] * num_experts, "edgecolor": INK}
    for n in ids_K:
        style["color"][n], style["linewidth"][n] = CHOSEN, 1.2
    return style
