// One token's way through a mixture of experts: eight stations, one drawing, the numbers of a model that runs in the page.

import { drawRibbon, drawRing, drawVector, sizedContext } from "../kit/canvas.js";
import { legend } from "../kit/charts.js";
import { button, layerSlider, player, slider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { motion, on } from "../kit/events.js";
import { answer, gateOf } from "../kit/moe.js";
import { make, makeCanvas } from "../kit/page.js";
import { ReadingView, readText } from "../kit/reading.js";
import { SCORES } from "../kit/routing.js";
import { textField, TokenStrip } from "../kit/tokens.js";
import { widgetOf } from "../kit/view.js";
import { count, listed, rounded, weighed } from "../kit/words.js";

const STATIONS = ["vector", "logits", "softmax", "top-k", "weights", "experts", "sum", "residual"];
const SHORT = [0, 2, 3, 5, 7]; // the places of a short way

// --- what happens to the token ---------------------------------------------------------------------------------------

/** The vectors and numbers of one token at every station of one MoE layer; `layer` is one that `forward` gives. */
export function wayOf({ config: { width: D, ffn: recipes }, weights: all }, layer, t) {
  const [recipe, of] = [recipes[layer.block], (name) => all[`blocks.${layer.block}.ffn.${name}`]];
  const [N, K, own] = [recipe.num_experts, recipe.top_k, (one, size) => one.subarray(t * size, (t + 1) * size)];
  const [x, before, routed, shared] = ["x", "stream", "experts", "shared"].map((part) => layer[part] && own(layer[part], D));
  const [logits, ids, weights] = [own(layer.logits, N), own(layer.routed.ids, K), own(layer.routed.weights, K)];
  const after = before.map((value, d) => value + routed[d] + (shared ? shared[d] : 0));
  return { x, logits, ids, weights, routed, shared, before, after, scores: SCORES[recipe.score](logits),
    answers: Array.from(ids, (n) => answer(x, n, N, of("experts.w_in"), of("experts.w_out"), D)),
    gate: gateOf(recipe, of("router.bias")), numShared: recipe.num_shared };
}

const length = (vector) => Math.hypot(...vector);

// --- in words --------------------------------------------------------------------------------------------------------

const named = (ids, values, words) => listed(Array.from(ids, (n, i) => `${n} (${words(values[i])})`));
const held = ({ ids, scores }) => rounded(d3.sum(ids, (n) => scores[n]), 2);

/** What happens at each station. */
const TELL = [
  ({ x }) => `It arrives as a vector of ${x.length} numbers, normalised: `
    + `${Array.from(x.subarray(0, 4), (value) => rounded(value, 2)).join(", ")} …`,
  ({ x, logits }) => `The router multiplies it by a table of ${x.length} × ${logits.length}: a logit for each expert, from `
    + `${rounded(d3.min(logits), 2)} to ${rounded(d3.max(logits), 2)}.`,
  ({ scores, gate }) => (gate.score === "softmax"
    ? `Softmax makes probabilities of the logits: positive, with sum 1. The largest is ${rounded(d3.max(scores), 3)}; `
      + `if all were equal, each would be ${rounded(1 / scores.length, 3)}.`
    : `A sigmoid makes a score between 0 and 1 of each logit; the largest is ${rounded(d3.max(scores), 3)}.`),
  (way) => `The best ${way.ids.length} of ${count(way.scores.length, "expert")} are chosen`
    + `${way.gate.bias?.some(Boolean) ? " (by score plus bias)" : ""}: ${listed(Array.from(way.ids))}. Together they have `
    + `${held(way)}; the others do nothing for this token.`,
  (way) => `Weights are the scores of the chosen${way.gate.renormalise ? ` divided by ${held(way)}, so that they sum to 1` : ""}`
    + `${way.gate.scale === 1 ? "" : `, times ${way.gate.scale}`}: ${named(way.ids, way.weights, weighed)}.`,
  ({ ids, answers, shared, numShared }) => `Each answers with a vector, of length ${named(ids, answers.map(length), (long) => rounded(long, 1))}`
    + `${shared ? `; and so ${numShared === 1 ? "does" : "do"} ${count(numShared, "shared expert")}, for every token, here of `
      + `length ${rounded(length(shared), 1)}` : ""}.`,
  ({ routed, shared }) => "The chosen experts' answers, each times its weight, sum to a vector of length "
    + `${rounded(length(routed), 1)}${shared ? "; the shared answer is added as it is" : ""}.`,
  ({ before, after }) => "The layer's answer is added to the residual stream, whose vector had length "
    + `${rounded(length(before), 1)} and now has ${rounded(length(after), 1)}. The next layer reads that.`,
];

/** The station where the token stands, with all that happened since the stop before. */
function describe({ layer, num_layers: L, station, short }, tokens, t, way) {
  if (!way) return tokens ? "The text is empty: type some." : "Waiting for the model.";
  const stops = short ? SHORT : d3.range(STATIONS.length);
  const told = TELL.slice(station ? stops[station - 1] + 1 : 0, stops[station] + 1).map((tell) => tell(way));
  return `Token ${t} '${tokens[t]}', layer ${layer + 1} of ${L}, station ${station + 1} of ${stops.length}. ${told.join(" ")}`;
}

// --- the widget ------------------------------------------------------------------------------------------------------

const PACE = 4000;   // milliseconds that a station stays while playing: time to read it
const TRAVEL = 1100; // from one station to the next
const [LEFT, LANE, RIGHT, GAP] = [92, 22, 6, 8]; // pixels: names of the stations; the shared experts' way; margin; between rows
const HEIGHTS = [16, 48, 48, 24, 18, 16, 40, 34]; // of the stations

class TokenWayView extends ReadingView {
  static data = ["origin", "short", "num_layers", "max_tokens", "weights", "start"];

  static settings = ["text", "layer", "locked_token", "station"];

  static kept = ["locked_token"];

  static always = ["locked_token"];

  declare() {
    const { num_layers: layers, short } = this.state;
    this.halts = short ? SHORT : d3.range(STATIONS.length);
    const last = this.halts.length - 1;
    return [
      textField("Your text"),
      player(this),
      button("Next", () => { this.pause(); this.set({ station: (this.state.station + 1) % (last + 1) }); }),
      slider("Station", { max: last, trait: "station", set: (station) => { this.pause(); return { station }; },
        words: ({ station }) => `${station + 1} of ${last + 1}: ${STATIONS[this.halts[station]]}` }),
      layerSlider(layers),
    ];
  }

  build() {
    this.strip = new TokenStrip(this, { short: true });
    this.stage = make("div", "moe-way");
    this.canvas = makeCanvas();
    this.stage.append(this.canvas);
    this.at = this.halts[this.state.station]; // where the drawing is on its way to the station
    this.key = legend([["above zero, or chosen", "var(--moe-accent)"], ["below zero, or not chosen", "var(--moe-bar)"],
      ["shared", "var(--moe-ink)"]]);
    return [this.strip.box, this.stage, this.key];
  }

  computed(model) { return readText(model, this.state.text); }

  take() { this.strip.fill(this.reading.tokens); }

  renew() {
    super.renew();
    this.way = null;
    const last = (this.reading?.tokens.length ?? Infinity) - 1;
    this.state.locked_token = Math.min(this.state.locked_token, last); // it was of a longer text
  }

  pointAt(point) {
    super.pointAt(point);
    this.way = null;
  }

  describe() { return describe(this.state, this.reading?.tokens, this.look.locked_token, this.way); }

  draw() {
    const { reading, state, theme } = this;
    const [width, now, goal] = [this.stage.clientWidth, performance.now(), this.halts[state.station]];
    if (reading?.tokens.length) this.way ??= wayOf(this.network, reading.layers[state.layer], this.look.locked_token);
    const most = motion() ? ((now - (this.drawn ?? now)) / TRAVEL) * Math.max(1, Math.abs(goal - this.at)) : Infinity;
    this.at += Math.sign(goal - this.at) * Math.min(Math.abs(goal - this.at), most);
    this.drawn = this.at === goal ? null : now;
    if (this.at !== goal) this.frame.ask();
    this.strip.mark(() => ({}));
    const rows = rowsOf(state.short);
    const ctx = sizedContext(this.canvas, width, rows.at(-1).bottom + 4);
    drawLine(ctx, rows, this.halts, this.at, theme);
    this.key.lastChild.hidden = this.way?.numShared === 0;
    if (this.way) drawWay(ctx, this.way, { rows, width, at: this.at, theme });
  }

  start() {
    if (this.state.station === this.halts.length - 1) this.at = 0; // it leaves at once
    this.play("station", d3.range(this.halts.length), PACE);
  }

  wire() {
    return [...this.strip.wire(), on(this.canvas, "click", ({ offsetY }) => {
      const { place } = rowsOf(this.state.short).find(({ bottom }) => offsetY < bottom + GAP);
      this.pause();
      this.set({ station: this.halts.findIndex((stop) => stop >= place) });
    })];
  }
}

// --- the drawing -----------------------------------------------------------------------------------------------------

/** The rows of the drawing: { place: of the station, top, bottom }; a short way shows no logits. */
function rowsOf(short) {
  let bottom = 4 - GAP;
  return d3.range(STATIONS.length).filter((place) => !(short && place === 1)).map((place) => {
    const top = bottom + GAP;
    bottom = top + HEIGHTS[place];
    return { place, top, bottom };
  });
}

/** A bar for each expert from the zero of the row, `share` of it there; once the choice is made, the others fade. */
function drawBars(ctx, values, { top, bottom }, { left, cell, share, chosen, fade, digits }, theme) {
  const y = d3.scaleLinear([Math.min(0, d3.min(values)), Math.max(0, d3.max(values)) || 1], [bottom, top + 14]);
  values.forEach((value, n) => {
    ctx.globalAlpha = chosen.has(n) ? 1 : 1 - 0.6 * fade;
    ctx.fillStyle = chosen.has(n) && fade ? theme.accent : theme.bar;
    ctx.fillRect(left + n * cell, y(0), cell - (cell > 3 ? 1 : 0), share * (y(value) - y(0)));
  });
  ctx.globalAlpha = share;
  const best = values.indexOf(d3.max(values));
  const x = Math.max(40, Math.min((best + 0.5) * cell, values.length * cell - 40));
  [ctx.fillStyle, ctx.textAlign] = [theme.ink, "center"];
  ctx.fillText(`${best}: ${rounded(values[best], digits)}`, left + x, top + 5);
  ctx.globalAlpha = 1;
}

/** The whole way; `at` is how far the token has come, in stations. */
function drawWay(ctx, way, { rows, width, at, theme }) {
  const row = Object.fromEntries(rows.map((one) => [STATIONS[one.place], one]));
  const come = (name) => Math.max(0, Math.min(1, at - STATIONS.indexOf(name) + 1)); // what share of a station is there
  const [left, wide, { shared, ids, weights }] = [LEFT + LANE, width - LEFT - LANE - RIGHT, way];
  const most = (...vectors) => d3.max(vectors, (vector) => d3.max(vector, Math.abs));
  const strip = (values, y, height, more) => drawVector(ctx, values,
    { x: left, y, width: wide, height, most: most(values), ...more }, theme);
  strip(way.x, row.vector.top, 16);

  const bars = { left, cell: wide / way.scores.length, chosen: new Set(ids), fade: come("top-k") };
  if (row.logits) drawBars(ctx, way.logits, row.logits, { ...bars, share: come("logits"), digits: 2 }, theme);
  drawBars(ctx, way.scores, row.softmax, { ...bars, share: come("softmax"), digits: 3 }, theme);

  // the shared experts first, then the chosen ones in the order of their columns, so that no ribbons cross
  const boxes = d3.range(ids.length).sort((a, b) => ids[a] - ids[b]).map((i) => ({ name: `${ids[i]}`, weight: weights[i],
    vector: way.answers[i], colour: theme.accent, there: come("top-k"),
    from: [left + (ids[i] + 0.5) * bars.cell, row.softmax.bottom + 2],
    thick: 1.5 + (6 * come("weights") * weights[i]) / d3.max(weights) }));
  if (shared) {
    boxes.unshift({ name: "shared", vector: shared, colour: theme.ink, there: come("experts"), thick: 3,
      from: [LEFT + LANE / 2, row.weights.top - 9] });
    drawRibbon(ctx, [LEFT + LANE / 2, row.vector.bottom], boxes[0].from, 3, theme.ink, come("experts"));
  }
  const [size, loudest, top, bottom] = [wide / boxes.length, most(...boxes.map(({ vector }) => vector)), row.weights.top - 3,
    row.experts.bottom + 3];
  boxes.forEach(({ name, vector, weight, colour, there, thick, from }, i) => {
    const [x, middle] = [left + i * size + 3, left + (i + 0.5) * size];
    drawRibbon(ctx, from, [weight === undefined ? x + 8 : middle, top], thick, colour, there);
    [ctx.globalAlpha, ctx.lineWidth, ctx.fillStyle] = [there, 1.5, theme.ink];
    ctx.strokeRect(x, top, size - 6, bottom - top);
    const words = weight === undefined || size < 84 || !come("weights") ? name : `${name} × ${weighed(weight)}`;
    if (size > 9 * words.length) ctx.fillText(words, middle, row.weights.top + 9);
    ctx.globalAlpha = 1;
    const box = { x: x + 3, y: row.experts.top, width: size - 12, height: 14, most: loudest, share: come("experts") };
    if (box.share) drawVector(ctx, vector, box, theme);
    const to = left + wide / 2 + (i - (boxes.length - 1) / 2) * 12;
    drawRibbon(ctx, [middle, bottom], [to, row.sum.bottom - 16], thick, colour, come("sum"));
  });

  const sum = way.routed.map((value, d) => value + (shared ? shared[d] : 0));
  strip(sum, row.sum.bottom - 16, 16, { share: come("sum") });
  const [stream, there] = [most(way.before, way.after), come("residual")];
  [[way.before, "+", row.residual.top], [way.after, "=", row.residual.bottom - 14]].forEach(([vector, sign, y]) => {
    strip(vector, y, 14, { share: there, most: stream });
    ctx.fillStyle = theme.ink;
    if (there) ctx.fillText(sign, LEFT + LANE / 2, y + 7);
  });
}

/** The stations at the left, those passed in colour, and where the token is. */
function drawLine(ctx, rows, halts, at, theme) {
  const middle = ({ top, bottom }) => (top + bottom) / 2;
  const y = d3.scaleLinear(rows.map(({ place }) => place), rows.map(middle))(at);
  [ctx.textBaseline, ctx.textAlign, ctx.lineWidth] = ["middle", "left", 2];
  [[theme.faint, middle(rows.at(-1))], [theme.accent, y]].forEach(([colour, end]) => {
    ctx.fillStyle = colour;
    ctx.fillRect(7, middle(rows[0]), 2, end - middle(rows[0]));
  });
  for (const one of rows) {
    [ctx.fillStyle, ctx.font] = [theme.ink, Math.round(at) === one.place ? `bold ${theme.font}` : theme.font];
    ctx.fillText(STATIONS[one.place], 22, middle(one));
    if (halts.includes(one.place)) drawRing(ctx, 8, middle(one), 4, theme, one.place <= at ? theme.accent : theme.paper);
  }
  ctx.font = theme.font;
  drawRing(ctx, 8, y, 7, theme, theme.accent);
}

export default widgetOf(TokenWayView);
