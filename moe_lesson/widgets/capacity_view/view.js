// Capacity: an expert has room for a limited number of tokens, and whoever finds it full is dropped.

import { drawNumbers, fillTicks, fitted, makeLegend, outline, RAMP, sizedContext, span, weightColour } from "../kit/canvas.js";
import { choice, layerSlider, slider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { DESIGN } from "../kit/design.js";
import { moved, placeWithin } from "../kit/events.js";
import { makeStage } from "../kit/page.js";
import { ReadingView } from "../kit/reading.js";
import { numbers, routedLayers } from "../kit/routing.js";
import { textField, TokenStrip } from "../kit/tokens.js";
import { widgetOf } from "../kit/view.js";
import { count, listed } from "../kit/words.js";

// --- what is shown ---------------------------------------------------------------------------------------------------

/** The ends of the scales, fixed by all layers and the largest factor, so that no setting moves them: a weight, how exact, and tokens. */
export function limitsOf(layers, factors) {
  const loads = layers.flatMap((one) => [capacityFor(one, d3.max(factors)), ...loadOf(one)]);
  const weight = d3.max(layers, ({ weights }) => d3.max(weights)) || 1;
  return { weight, digits: Math.max(2, 1 - Math.floor(Math.log10(weight))), load: d3.max(loads) || 1 };
}

// --- who is kept: the twins of capacity_for and keep_within in moe/balance.py ------------------------------------------

/** Room of one expert: factor · K·T/N tokens, rounded up; null means no limit. */
export function capacityFor({ T, N, k }, factor) {
  return factor === null ? null : Math.ceil((factor * k * T) / N);
}

/**
 * Which choices find room, 1 or 0 for each of the T * k. `queue` says which token stands at each place of the batch; all
 * first choices come before all second ones, or the highest weight first.
 */
function keepWithin({ T, N, k, ids, weights }, queue, capacity, by) {
  const waiting = d3.range(T * k).map((i) => queue[i % T] * k + Math.floor(i / T));
  if (by === "weight") waiting.sort((a, b) => weights[b] - weights[a]); // stable: equal weights stay as they stand
  const [kept, taken] = [new Uint8Array(T * k), new Int32Array(N)];
  for (const i of waiting) {
    kept[i] = capacity === null || taken[ids[i]] < capacity ? 1 : 0;
    taken[ids[i]] += kept[i];
  }
  return kept;
}

/** How many tokens chose each expert: [N]. */
function loadOf({ N, ids }) {
  const load = new Int32Array(N);
  for (const n of ids) load[n] += 1;
  return load;
}

/** What becomes of every choice of a layer, and the two prices of a capacity: what is dropped, and seats that stay empty. */
export function dispatch(choices, queue, capacity, by) {
  const { T, N, k, weights } = choices;
  const [kept, places] = [keepWithin(choices, queue, capacity, by), new Int32Array(T)];
  queue.forEach((token, place) => { places[token] = place; });
  const left = d3.range(T).map((t) => d3.sum(kept.subarray(t * k, (t + 1) * k)));
  const [seats, served] = [capacity === null ? null : N * capacity, d3.sum(left)];
  return { ...choices, queue, capacity, kept, places, load: loadOf(choices), left, seats, dropped: T * k - served,
    late: d3.sum(left, (some, t) => (2 * places[t] >= T ? k - some : 0)), empty: seats === null ? null : seats - served,
    weightDropped: d3.sum(weights, (weight, i) => (kept[i] ? 0 : weight)) / (d3.sum(weights) || 1),
    stranded: left.filter((some) => !some).length };
}

// --- in words --------------------------------------------------------------------------------------------------------

const RULES = { order: "as they stand", weight: "highest weight" };

function partOf(part, whole) {
  return `${part} of ${whole} (${((100 * part) / whole).toFixed(1)}%)`;
}

/** What the page shows of a text's tokens; token is the one looked at, or null. */
function describe(state, tokens, seen, token) {
  const { T, k, capacity, dropped, late, seats, empty, weightDropped, stranded } = seen;
  const [layer, room] = [`Layer ${state.layer + 1} of ${state.sizes.length}`, `Room for ${count(capacity, "token")} in each expert`];
  if (!T) return `${layer}: the text is empty, type some.`;
  const head = `${layer}. ${capacity === null ? "No limit" : room}:`;
  if (token !== null) return `${head} ${tokenWords(tokens, seen, token)}`;
  return `${head} ${partOf(dropped, T * k)} choices are dropped${dropped ? `, ${late} of them in the batch's later half` : ""}, `
    + `with ${(100 * weightDropped).toFixed(1)}% of the weight; ${count(stranded, "token")} ${stranded === 1 ? "is" : "are"} left `
    + `without any expert. ${seats === null ? "No seats are reserved." : `${partOf(empty, seats)} seats stay empty.`}`;
}

function tokenWords(tokens, { k, ids, weights, digits, kept, places, left }, token) {
  const named = (wanted) => d3.range(token * k, (token + 1) * k).filter((i) => kept[i] === wanted)
    .map((i) => `${ids[i]} (${weights[i].toFixed(digits)})`);
  const words = [["kept by", named(1)], ["dropped by", named(0)]].filter(([, experts]) => experts.length)
    .map(([verb, experts]) => `${verb} ${experts.length === 1 ? "expert" : "experts"} ${listed(experts)}`);
  return `token ${token} '${tokens[token]}' at place ${places[token]} of the batch is ${words.join(", ")}.`
    + (left[token] ? "" : " It passes the layer by on the residual.");
}

// --- the widget ------------------------------------------------------------------------------------------------------

const [LEFT, RIGHT, PAD] = [112, 6, 5];           // pixels for the tokens' names; at the edge; above the map, for an outline
const [MAP, MOST, NAME] = [136, 18, 18]; // pixels that the rows share, however many there are; most of a row; that a name needs
const [GAP, BARS, NUMBERS] = [12, 70, 22];        // pixels between map and bars; of the load axis; for the experts' numbers
const HEIGHT = PAD + MAP + GAP + BARS + NUMBERS;

/** What was dropped: an empty frame, which no eye needs colour for. */
function drawFrame(ctx, [x, y, w, h], line, colour) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = line;
  ctx.strokeRect(x + line / 2, y + line / 2, w - line, h - line);
}

class CapacityViewView extends ReadingView {
  static data = ["origin", "seed", "max_tokens", "tokens", "sizes", "top_k", "expert_ids", "expert_weights", "shuffles",
    "num_shuffles", "factors", "weights", "start"];

  static settings = ["text", "layer", "factor", "by", "batch", "shuffle", "locked_token"];

  static kept = ["locked_token"];

  declare() {
    const { sizes, factors, num_shuffles: shuffles, seed } = this.state;
    return [
      textField("Your text", { set: (text) => ({ text, locked_token: null }) }),
      layerSlider(sizes.length),
      slider("capacity factor", { trait: "factor", values: factors,
        words: ({ factor }) => (factor === null ? "no limit" : `capacity factor ${factor.toFixed(2)}`) }),
      choice("who comes first", Object.entries(RULES), { trait: "by" }),
      choice("batch", ["as written", "reversed", "shuffled"], { trait: "batch" }),
      slider("which shuffle", { trait: "shuffle", min: 1, max: shuffles, folded: true,
        words: ({ shuffle }) => `shuffle ${shuffle} of ${shuffles}, seed ${seed}`,
        disabled: ({ batch }) => batch !== "shuffled" }),
    ];
  }

  build() {
    this.shuffles = numbers(this.state.shuffles, Int32Array);
    this.strip = new TokenStrip(this, { short: this.state.weights });
    Object.assign(this, makeStage("map of choices, tokens in the order of the batch by experts, over the load of each expert: arrow "
      + "keys move, Enter keeps a token, Escape lets go"));
    const { legend, ticks } = makeLegend("Underlined: lost some experts; filled: lost all. Map: the batch, first on top; "
      + "frame: dropped.", RAMP);
    this.ticks = ticks;
    return [this.strip.box, legend, this.stage];
  }

  recorded() { return { tokens: this.state.tokens, layers: routedLayers(this.state) }; }

  /** Show the choices of another text. */
  take() {
    const { tokens, layers } = this.reading;
    [this.limits, this.cursor] = [limitsOf(layers, this.state.factors), 0];
    this.strip.fill(tokens);
    fillTicks(this.ticks, [[0, 0], [this.limits.weight.toFixed(this.limits.digits), 1]]);
  }

  /** Which token stands at each place of the batch: [T]; a shuffle has the places of the longest text. */
  get queue() {
    const { reading: { tokens: { length: T } }, shuffles: all, state: { batch, shuffle, num_shuffles: S } } = this;
    const places = all.length / S;
    if (batch === "shuffled") return all.subarray((shuffle - 1) * places, shuffle * places).filter((token) => token < T);
    return Int32Array.from({ length: T }, (_, place) => (batch === "reversed" ? T - 1 - place : place));
  }

  renew() {
    super.renew();
    const { state, reading: { tokens, layers } } = this;
    if (state.locked_token >= tokens.length) state.locked_token = null; // it was of a longer text
    const choices = layers[state.layer];
    const seen = dispatch(choices, this.queue, capacityFor(choices, state.factor), state.by);
    this.seen = { ...seen, digits: this.limits.digits };
    this.row = Math.min(MAP / choices.T, MOST);
  }

  describe() { return describe(this.state, this.reading.tokens, this.seen, this.look.locked_token); }

  draw() {
    const { seen, look: { locked_token: token }, theme } = this;
    this.strip.mark((t) => ({ alike: seen.left[t] > 0 && seen.left[t] < seen.k, chosen: !seen.left[t],
      fill: seen.left[t] ? "" : DESIGN.dropped }));
    const width = this.stage.clientWidth;
    const ctx = sizedContext(this.canvas, width, HEIGHT);
    this.geo = { left: LEFT, cell: Math.max(1, width - LEFT - RIGHT) / seen.N, N: seen.N };
    this.drawMap(ctx);
    this.drawNames(ctx, token);
    this.drawBars(ctx);
    const experts = token === null ? [] : Array.from(seen.ids.subarray(token * seen.k, (token + 1) * seen.k));
    drawNumbers(ctx, this.geo, HEIGHT - NUMBERS / 2, experts, theme);
    if (token === null) return;
    const [y, height] = span(PAD, this.row, seen.places[token]);
    outline(ctx, LEFT - 3, y - 3, this.geo.cell * seen.N + 4, height + 5);
  }

  /** One row for each token in the order of the batch: a kept choice is filled, a dropped one an empty frame. */
  drawMap(ctx) {
    const { geo: { cell }, seen: { T, N, k, ids, weights, kept, places }, limits } = this;
    ctx.fillStyle = RAMP[0];
    ctx.fillRect(LEFT, PAD, cell * N, Math.round(this.row * T));
    for (let i = 0; i < T * k; i++) {
      const [y, height] = span(PAD, this.row, places[Math.floor(i / k)]);
      const box = [LEFT + ids[i] * cell, y, cell - (cell > 6 ? 1 : 0), height > 3 ? height - 1 : height];
      ctx.fillStyle = weightColour(weights[i], limits.weight);
      if (kept[i]) ctx.fillRect(...box);
      else drawFrame(ctx, box, 1, DESIGN.dropped);
    }
  }

  /** Own index and name of the tokens at the left of their rows: the one looked at, and as many others as have room. */
  drawNames(ctx, token) {
    const { row, seen: { T, queue, places }, reading: { tokens }, theme } = this;
    const [step, looked] = [Math.ceil(NAME / row), token === null ? null : places[token]];
    ctx.textBaseline = "middle";
    ctx.fillStyle = theme.ink;
    const write = (place, font) => {
      const [top, height] = span(PAD, this.row, place);
      const middle = Math.max(top + height / 2, NAME / 2); // the first is not cut
      ctx.font = font;
      ctx.textAlign = "left";
      ctx.fillText(queue[place], 0, middle);
      ctx.textAlign = "right";
      ctx.fillText(fitted(ctx, tokens[queue[place]], LEFT - 40), LEFT - 8, middle);
    };
    if (looked !== null) write(looked, `bold ${theme.font}`);
    for (const place of d3.range(0, T, step)) if (looked === null || Math.abs(place - looked) >= step) write(place, theme.font);
  }

  /** The load of each expert: filled up to its capacity, an empty frame above it; pale where seats stay empty. */
  drawBars(ctx) {
    const { geo: { cell, N }, seen: { load, capacity }, limits: { load: limit }, theme } = this;
    const [bottom, gap] = [HEIGHT - NUMBERS, cell > 6 ? 2 : 0];
    const height = d3.scaleLinear([0, limit], [0, BARS]);
    load.forEach((tokens, n) => {
      const [x, w, taken] = [LEFT + n * cell + gap / 2, cell - gap, Math.min(tokens, capacity ?? tokens)];
      ctx.fillStyle = theme.bar;
      ctx.fillRect(x, bottom - height(taken), w, height(taken));
      if (tokens > taken) drawFrame(ctx, [x, bottom - height(tokens), w, height(tokens - taken)], 2, theme.accent);
      if (capacity === null || tokens >= capacity) return;
      ctx.globalAlpha = 0.25;
      ctx.fillRect(x, bottom - height(capacity), w, height(capacity - tokens));
      ctx.globalAlpha = 1;
    });
    [ctx.fillStyle, ctx.font, ctx.textAlign, ctx.textBaseline] = [theme.ink, theme.font, "right", "middle"];
    ctx.fillRect(LEFT, bottom, cell * N, 1);
    const y = bottom - height(capacity ?? 0);
    if (capacity !== null) ctx.fillRect(LEFT - 6, Math.round(y) - 1, cell * N + 6, 2);
    ctx.fillText(capacity === null ? "no limit" : `room ${capacity}`, LEFT - 9, Math.min(y, bottom - 5));
    if (y - (bottom - BARS) > 20) ctx.fillText(count(limit, "token"), LEFT - 9, bottom - BARS + 5);
  }

  wire() {
    const under = ({ clientY }) => placeWithin(clientY - this.canvas.getBoundingClientRect().top - PAD, this.row, this.seen.T);
    return [...this.strip.wire(), ...this.listenPlaces(this.stage, under, (cursor, key) => moved(cursor, key, this.seen.T),
      (place) => ({ locked_token: this.seen.queue[place] }))];
  }
}

export default widgetOf(CapacityViewView);
