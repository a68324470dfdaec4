// The routing map: a text, and the experts that each of its tokens chose.

import { drawCells, drawLoad, drawNames, drawRibbon, fillTicks, LOAD_HEIGHT, makeLegend, outline, RAMP, sizedContext,
  weightColour } from "../kit/canvas.js";
import { choice, layerSlider, slider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { movedOn, on, placeWithin, reveal } from "../kit/events.js";
import { product } from "../kit/moe.js";
import { make, makeCanvas, takeKeys } from "../kit/page.js";
import { ReadingView, readText } from "../kit/reading.js";
import { chosenBy, chosenWords, floats, inCommon, meanLoad, ranked, rankExperts, route, weightOf } from "../kit/routing.js";
import { textField, TokenStrip } from "../kit/tokens.js";
import { widgetOf } from "../kit/view.js";
import { count, listed, weighed } from "../kit/words.js";

const ROW = 18;  // pixels per token: room for its name
const LEFT = 112; // pixels for the names
const RIGHT = 8;

// --- what is shown ---------------------------------------------------------------------------------------------------

/** The routings of a text: its tokens, and for the model and the random routers the ranked experts of each layer. */
export function recorded(state) {
  const T = state.tokens.length;
  const ranks = (bytes, gates) => gates.map((gate, layer) => {
    const start = T * d3.sum(state.sizes.slice(0, layer));
    return rankExperts(floats(bytes).subarray(start, start + T * state.sizes[layer]), T, state.sizes[layer], gate);
  });
  return { tokens: state.tokens, model: ranks(state.logits, state.gates), null: ranks(state.null_logits, state.null_gates) };
}

/** The same of a text that the learner wrote, computed from the model's weights. */
export function computed(state, model) {
  const { tokens, layers } = readText(model, state.text);
  const [D, draws] = [model.config.width, floats(state.null_weights)];
  const ranks = (gates, logitsOf) => gates.map((gate, i) => rankExperts(logitsOf(layers[i], i), tokens.length, state.sizes[i], gate));
  return {
    tokens,
    model: ranks(state.gates, (layer) => layer.logits),
    null: ranks(state.null_gates, ({ x }, i) => {
      const start = D * d3.sum(state.sizes.slice(0, i));
      return product(x, draws.subarray(start, start + D * state.sizes[i]), D, state.sizes[i]);
    }),
  };
}

/** The ends of the scales, the same for all layers, routers and k of a text, so that change shows: weight, load in mean loads. */
export function limitsOf(text, k) {
  const routed = [...text.model, ...text.null].map((ranking) => route(ranking, k));
  return { weight: d3.max(routed, ({ weights }) => d3.max(weights)) || 1,
    load: Math.ceil(d3.max(routed, (one) => d3.max(one.load) / (meanLoad(one) || 1)) || 2) };
}

// --- in words --------------------------------------------------------------------------------------------------------

function routerWords({ router, origin }) {
  return router === "null" ? "random router (null)" : `${origin} router`;
}

/** What the map shows; token and expert are those looked at, or null. */
function describe(state, tokens, routed, token, expert) {
  const head = `Layer ${state.layer + 1} of ${state.sizes.length}, K = ${routed.k} of ${count(routed.N, "expert")}, `
    + `${routerWords(state)}${routed.k === state.top_k ? "" : `; a what-if: the model ran with K = ${state.top_k}`}.`;
  if (!routed.T) return `${head} The text is empty: type some.`;
  if (token !== null && expert !== null) return `${head} ${pairWords(tokens, routed, token, expert)}`;
  if (token !== null) return `${head} ${tokenWords(tokens, routed, token)}`;
  if (expert !== null) return `${head} ${expertWords(tokens, routed, expert)}`;
  return `${head} ${loadWords(routed)}${sharedWords(state.num_shared)}`;
}

function sharedWords(shared) {
  return shared ? ` ${count(shared, "shared expert")} ${shared === 1 ? "sees" : "see"} every token besides.` : "";
}

function loadWords(routed) {
  const load = Array.from(routed.load);
  const [most, mean, idle] = [d3.max(load), meanLoad(routed), load.filter((tokens) => !tokens).length];
  return `Busiest: expert ${load.indexOf(most)}, chosen by ${most} of ${count(routed.T, "token")}, ${(most / mean).toFixed(1)} × `
    + `the mean load of ${mean.toFixed(1)}. ${idle ? `Idle: ${count(idle, "expert")}.` : "No expert is idle."}`;
}

function tokenWords(tokens, routed, token) {
  const named = (t) => `${t} '${tokens[t]}'`;
  const goes = chosenWords(routed, token);
  const common = inCommon(routed, token);
  const alike = ranked(common).filter((t) => t !== token && common[t]).slice(0, 3);
  return `Token ${named(token)} goes to ${goes.length === 1 ? "expert" : "experts"} ${listed(goes)}.`
    + (alike.length ? ` It shares most with ${alike.map((t) => `${named(t)} (${common[t]} of ${routed.k})`).join(", ")}.` : "");
}

function expertWords(tokens, routed, expert) {
  const mine = tokens.filter((_, t) => weightOf(routed, t, expert) !== null);
  if (!mine.length) return `Expert ${expert} is chosen by no token of this text.`;
  const kinds = [...d3.rollup(mine, (group) => group.length, (token) => token)].sort((a, b) => b[1] - a[1]);
  return `Expert ${expert} is chosen by ${mine.length} of ${count(routed.T, "token")}: `
    + `${listed(kinds.map(([token, times]) => `'${token}' × ${times}`))}.`;
}

function pairWords(tokens, routed, token, expert) {
  const weight = weightOf(routed, token, expert);
  return `Token ${token} '${tokens[token]}' ${weight === null ? `did not choose expert ${expert}`
    : `gives expert ${expert} a weight of ${weighed(weight)}`}. Escape lets go.`;
}

// --- the widget ------------------------------------------------------------------------------------------------------

/** Another layer or router has other experts: let the locked one go, and keep K possible. */
function otherExperts(traits, state) {
  const size = state.sizes[traits.layer ?? state.layer];
  return { ...traits, locked_expert: null, k: Math.min(state.k, size) };
}

class RoutingMapView extends ReadingView {
  static data = ["origin", "num_shared", "max_tokens", "gates", "null_gates", "sizes", "top_k", "tokens", "logits", "null_logits",
    "weights", "null_weights", "start"];

  static settings = ["layer", "k", "router", "locked_token", "locked_expert", "text"];

  static kept = ["locked_token", "locked_expert"];

  declare() {
    const [layers, { origin }] = [this.state.sizes.length, this.state];
    return [
      textField("Your text", { set: (text) => ({ text, locked_token: null }) }),
      layerSlider(layers, (layer, state) => otherExperts({ layer }, state)),
      choice("router", [["model", origin], ["null", "random (null)"]], { trait: "router",
        hidden: (state) => !state.null_gates.length, set: (router, state) => otherExperts({ router }, state) }),
      slider("K, experts per token", { trait: "k", min: 1, max: (state) => state.sizes[state.layer], wide: true,
        words: ({ k, top_k: own }) => `K = ${k}${k === own ? ` (as ${origin === "trained" ? "trained" : "recorded"})` : ": what-if"}` }),
    ];
  }

  build() {
    this.strip = new TokenStrip(this);
    this.scroller = make("div", "moe-scroller");
    takeKeys(this.scroller, "heat map of gate weights, tokens by experts: arrow keys move, Enter keeps a cell, Escape lets go");
    [this.spacer, this.heat, this.load] = [make("div"), makeCanvas("moe-heat"), makeCanvas("moe-load")];
    this.spacer.append(this.heat);
    this.scroller.append(this.spacer);
    const { legend, ticks } = makeLegend("Rows: tokens. Columns: experts. Colour: gate weight. Bars: tokens per expert (○ none).",
      RAMP);
    this.ticks = ticks;
    const maps = make("div");
    maps.append(this.scroller, this.load);
    return [this.strip.box, legend, maps];
  }

  recorded() { return recorded(this.state); }

  computed(model) { return computed(this.state, model); }

  /** Show the routings of another text. */
  take() {
    const { tokens } = this.reading;
    this.cursor = { row: 0, column: 0 };
    this.limits = limitsOf(this.reading, this.state.top_k);
    this.strip.fill(tokens);
    this.spacer.style.height = `${Math.max(tokens.length, 1) * ROW}px`;
    fillTicks(this.ticks, [0, 0.05, 0.2, 0.5, 1].map((part) => [(part * this.limits.weight).toPrecision(2), Math.sqrt(part)]));
  }

  renew() {
    super.renew();
    const { state, reading } = this;
    if (state.locked_token >= reading.tokens.length) state.locked_token = null; // it was of a longer text
    this.routed = route(reading[state.router][state.layer], Math.min(state.k, state.sizes[state.layer]));
  }

  badge() { return this.state.router === "null" ? "random router (null)" : this.state.origin; }

  describe() {
    const { locked_token: token, locked_expert: expert } = this.look;
    return describe(this.state, this.reading.tokens, this.routed, token, expert);
  }

  draw() {
    const { routed, look: { locked_token: token, locked_expert: expert } } = this;
    const { clientWidth: width, clientHeight: height, scrollTop: top } = this.scroller;
    const fill = (t) => { const weight = weightOf(routed, t, expert); return weight === null ? "" : weightColour(weight, this.limits.weight); };
    const common = token === null ? [] : inCommon(routed, token);
    this.geo = { left: LEFT, cell: Math.max(1, width - LEFT - RIGHT) / routed.N, N: routed.N, T: routed.T };
    this.drawHeat(sizedContext(this.heat, width, height), top, height, token, expert);
    const named = expert === null && token !== null ? chosenBy(routed, token) : undefined;
    drawLoad(sizedContext(this.load, width, LOAD_HEIGHT), this.geo, routed, this.limits.load, expert, this.theme, named);
    this.strip.mark((t) => ({ fill: fill(t), chosen: Boolean(fill(t)), alike: t !== token && 2 * common[t] >= routed.k }));
  }

  /** The rows of the heat map between scroll positions top and top + height. */
  drawHeat(ctx, top, height, token, expert) {
    const { geo: { cell, N, T }, routed, routed: { k, ids, weights }, limits, theme } = this;
    const [first, last] = [Math.floor(top / ROW), Math.min(T, Math.ceil((top + height) / ROW))];
    ctx.translate(0, -top);
    drawCells(ctx, this.geo, { first, last, row: ROW },
      d3.range(first * k, last * k).map((i) => [Math.floor(i / k), ids[i], weights[i]]), limits.weight);
    drawNames(ctx, this.reading.tokens, { first, last, row: ROW, left: LEFT, marked: token }, theme);
    if (expert !== null) outline(ctx, LEFT + expert * cell, top - 4, cell, height + 8);
    if (token === null || token >= T) return;
    outline(ctx, LEFT, token * ROW, cell * N, ROW);
    for (const n of chosenBy(routed, token)) { // from the token's name to the experts' bars, under the map
      drawRibbon(ctx, [LEFT - 4, (token + 0.5) * ROW], [LEFT + (n + 0.5) * cell, top + height],
        1.5 + (5 * weightOf(routed, token, n)) / limits.weight, theme.accent);
    }
  }

  pointAt(point) {
    super.pointAt(point);
    if (point && !("locked_expert" in point)) reveal(this.scroller, point.locked_token, ROW);
  }

  /** Token and expert under the mouse, over one of the two canvases. */
  under({ currentTarget: node, clientX, clientY }) {
    const box = node.getBoundingClientRect();
    const token = node === this.load ? null : placeWithin(clientY - box.top + node.scrollTop, ROW, this.geo.T);
    const expert = placeWithin(clientX - box.left - LEFT, this.geo.cell, this.geo.N);
    const point = { ...(token === null ? {} : { locked_token: token }), ...(expert === null ? {} : { locked_expert: expert }) };
    return Object.keys(point).length ? point : null;
  }

  wire() {
    const under = (event) => this.under(event);
    const land = (event) => {
      const { locked_token: row = this.cursor.row, locked_expert: column = this.cursor.column } = under(event) ?? {};
      this.cursor = { row, column };
    };
    return [...this.strip.wire(), ...this.listenMouse(this.scroller, under, land), ...this.listenMouse(this.load, under, land),
      on(this.scroller, "scroll", this.frame.ask), ...this.listenKeys(this.scroller, (key) => this.next(key))];
  }

  /** Where a key leads from the cell where the keyboard stands. */
  next(key) {
    const cell = movedOn(this.cursor, key, this.routed.T, this.routed.N);
    if (!cell) return null;
    this.cursor = cell;
    reveal(this.scroller, cell.row, ROW);
    return { locked_token: cell.row, locked_expert: cell.column };
  }
}

export default widgetOf(RoutingMapView);
