// Capacity: an expert has room for a limited number of tokens, and whoever finds it full is dropped. common.js stands
// above this line.

import { RAMP, drawNumbers, fitted, outline, rampOf, sizedContext, weightColour } from "../kit/canvas.js";
import { keepKeys, moved, onChoice, onSlide, placeWithin, taken } from "../kit/events.js";
import {
  buildHeader, buildStatus, headCell, make, makeChoice, makeSlider, makeStage, makeTokens, rowWith, say, syncChoice,
  syncSlider, tokenOf, withBreaks,
} from "../kit/page.js";
import { meanLoad, numbers, sum } from "../kit/routing.js";
import { PointingView, widgetOf } from "../kit/views_old.js";
import { capital, count, listed } from "../kit/words.js";

// --- who is kept: the twins of capacity_for and keep_within in balance.py --------------------------------------------

/** Room of one expert: factor · K·T/N tokens, rounded up; null means no limit. */
export function capacityFor({ T, N, k }, factor) {
  return factor === null ? null : Math.ceil((factor * k * T) / N);
}

/**
 * Which choices find room, 1 or 0 for each of the T * k. `queue` says which token stands at each place of the batch; all
 * first choices come before all second ones, or the highest weight first.
 */
export function keepWithin({ T, N, k, ids, weights }, queue, capacity, by) {
  const waiting = Array.from({ length: T * k }, (_, i) => queue[i % T] * k + Math.floor(i / T));
  if (by === "weight") waiting.sort((a, b) => weights[b] - weights[a]); // stable: equal weights stay as they stand
  const [kept, taken] = [new Uint8Array(T * k), new Int32Array(N)];
  for (const i of waiting) {
    kept[i] = capacity === null || taken[ids[i]] < capacity ? 1 : 0;
    taken[ids[i]] += kept[i];
  }
  return kept;
}

// --- state: what is shown, computed from what Python sent ------------------------------------------------------------

const SETTINGS = ["layer", "factor", "by", "batch", "shuffle", "locked_token"];

/** The traits of the model as one plain object. */
export function readState(model) {
  const names = ["title", "origin", "seed", "tokens", "sizes", "top_k", "factors", "num_shuffles", "weight_limit", "load_limit"];
  const state = Object.fromEntries([...names, ...SETTINGS].map((name) => [name, model.get(name)]));
  return { ...state, experts: numbers(model.get("experts"), Int32Array), weights: numbers(model.get("weights"), Float64Array),
    shuffles: numbers(model.get("shuffles"), Int32Array) };
}

/** Which token stands at each place of the batch: [T]. */
export function queueOf({ tokens: { length: T }, batch, shuffle, shuffles }) {
  if (batch === "shuffled") return shuffles.subarray((shuffle - 1) * T, shuffle * T);
  return Int32Array.from({ length: T }, (_, place) => (batch === "reversed" ? T - 1 - place : place));
}

/** What becomes of every choice of the layer at these settings, and how many seats and choices that costs. */
export function dispatch(state) {
  const { tokens: { length: T }, top_k: k, layer, sizes } = state;
  const [ids, weights] = [state.experts, state.weights].map((all) => all.subarray(layer * T * k, (layer + 1) * T * k));
  const choices = { T, N: sizes[layer], k, ids, weights };
  const [queue, capacity] = [queueOf(state), capacityFor(choices, state.factor)];
  const kept = keepWithin(choices, queue, capacity, state.by);
  const seen = { ...choices, queue, capacity, kept, places: new Int32Array(T), load: new Int32Array(choices.N) };
  queue.forEach((token, place) => { seen.places[token] = place; });
  for (const n of ids) seen.load[n] += 1;
  return { ...seen, ...pricesOf(seen) };
}

/** The two prices of a capacity: what is dropped (choices, their weight, whole tokens), and seats that stay empty. */
function pricesOf({ T, N, k, weights, places, capacity, kept }) {
  const left = Array.from({ length: T }, (_, t) => sum(kept.subarray(t * k, (t + 1) * k)));
  const dropped = T * k - sum(left);
  const late = sum(left.map((some, t) => (2 * places[t] >= T ? k - some : 0)));
  const seats = capacity === null ? null : N * capacity;
  return { left, dropped, late, seats, empty: seats === null ? null : seats - sum(left),
    weightDropped: sum(weights.map((weight, i) => (kept[i] ? 0 : weight))), weightInAll: sum(weights),
    stranded: left.filter((some) => !some).length };
}

// --- words: the twins of those in capacity_view.py -------------------------------------------------------------------

const RULES = { order: "as they stand", weight: "highest weight" };

function percentOf(part, whole) {
  return `${(whole ? (100 * part) / whole : 0).toFixed(1)}%`;
}

function partOf(part, whole) {
  return `${part} of ${whole} (${percentOf(part, whole)})`;
}

/** The numbers to notice: [name, words] of each. */
export function factsOf(seen) {
  return [
    ["choices dropped", partOf(seen.dropped, seen.T * seen.k)],
    ["dropped in the later half", seen.dropped ? `${seen.late} of ${seen.dropped}` : "none"],
    ["gate weight dropped", percentOf(seen.weightDropped, seen.weightInAll)],
    ["tokens left without any expert", partOf(seen.stranded, seen.T)],
    ["seats left empty", seen.seats === null ? "no seats are reserved" : partOf(seen.empty, seen.seats)],
  ];
}

/** What the page shows, in words; token is the one looked at, or null. */
export function describe(state, seen, token) {
  const parts = [headWords(state, seen), roomWords(state, seen), `${capital(factWords(seen))}.`, busiestWords(seen)];
  if (token !== null) parts.push(tokenWords(state, seen, token));
  return parts.join(" ");
}

function headWords({ layer, sizes, origin }, { T, N, k }) {
  return `Layer ${layer + 1} of ${sizes.length}, ${origin} router: ${count(T, "token")}, K = ${k} of ${count(N, "expert")}.`;
}

function roomWords(state, { k, capacity }) {
  const room = capacity === null ? "No limit" : `Capacity factor ${state.factor.toFixed(2)}, room for `
    + `${count(capacity, "token")} in each expert`;
  const rounds = state.by === "order" && k > 1 ? ", all first choices before the second ones" : "";
  return `${room}; who comes first: ${RULES[state.by]}${rounds}; batch ${batchWords(state)}.`;
}

function batchWords({ batch, shuffle, seed }) {
  return batch === "shuffled" ? `shuffled (shuffle ${shuffle}, seed ${seed})` : batch;
}

function factWords(seen) {
  return factsOf(seen).map(([name, words]) => `${name}: ${words}`).join("; ");
}

function busiestWords(seen) {
  const most = Math.max(...seen.load);
  return `Busiest: expert ${seen.load.indexOf(most)}, chosen by ${count(most, "token")}, `
    + `${(most / meanLoad(seen)).toFixed(1)} × the mean.`;
}

function tokenWords({ tokens }, { k, ids, weights, kept, places, left }, token) {
  const named = (wanted) => Array.from({ length: k }, (_, j) => token * k + j).filter((i) => kept[i] === wanted)
    .map((i) => `${ids[i]} (${weights[i].toFixed(2)})`);
  const [taking, refusing] = [named(1), named(0)];
  const words = [taking.length ? `kept by ${expertNoun(taking)} ${listed(taking)}` : "",
    refusing.length ? `dropped by ${expertNoun(refusing)} ${listed(refusing)}` : ""].filter(Boolean).join(", ");
  const residual = left[token] ? "" : " It passes the layer by on the residual.";
  return `Token ${token} '${tokens[token]}' at place ${places[token]} of the batch: ${words}.${residual}`;
}

function expertNoun(experts) {
  return experts.length === 1 ? "expert" : "experts";
}

// --- geometry: the map over its load bars ----------------------------------------------------------------------------

const LEFT = 88;       // pixels for the tokens' names
const RIGHT = 6;
const PAD = 5;         // pixels above the map, for an outline
const MAP = 376;       // pixels that the rows share
const ROWS = [3, 18];  // least and most pixels of a row
const NAME = 18;       // pixels that a token's name needs
const GAP = 14;        // pixels between the map and the bars
const BARS = 84;       // pixels of the load axis
const NUMBERS = 22;    // pixels for the experts' numbers

/** The measures for a width in CSS pixels: the rows of the map, then the bars between `barsTop` and `bottom`. */
export function geometry(width, T, N) {
  const row = Math.min(Math.max(MAP / T, ROWS[0]), ROWS[1]);
  const barsTop = PAD + Math.round(T * row) + GAP;
  return { width, T, N, row, left: LEFT, cell: Math.max(1, width - LEFT - RIGHT) / N, barsTop, bottom: barsTop + BARS,
    height: barsTop + BARS + NUMBERS };
}

/** Top and height of a row, on whole pixels: thin frames would blur between them. */
export function rowOf(geo, place) {
  const [top, next] = [place, place + 1].map((edge) => Math.round(edge * geo.row));
  return { y: PAD + top, height: next - top };
}

/** The place in the batch under a point, or null beside the rows. */
export function placeAt(geo, y) {
  return placeWithin(y - PAD, geo.row, geo.T);
}

// --- drawing ---------------------------------------------------------------------------------------------------------

const DROPPED = "#ff8c2b"; // the accent, made brighter: the map is dark in every theme

/** The whole picture; `token` is the one looked at, or null. */
function drawAll(ctx, geo, state, seen, token, theme) {
  drawMap(ctx, geo, state, seen);
  drawNames(ctx, geo, state, seen, token, theme);
  drawBars(ctx, geo, seen, state.load_limit, theme);
  drawAxis(ctx, geo, seen, state.load_limit, theme);
  const experts = token === null ? [] : Array.from(seen.ids.subarray(token * seen.k, (token + 1) * seen.k));
  drawNumbers(ctx, geo, geo.bottom + NUMBERS / 2, experts, theme);
  if (token === null) return;
  const { y, height } = rowOf(geo, seen.places[token]);
  outline(ctx, LEFT - 3, y - 3, geo.cell * geo.N + 4, height + 5);
}

/** One row for each token in the order of the batch: a kept choice is filled, a dropped one an empty frame. */
function drawMap(ctx, geo, state, { T, N, k, ids, weights, kept, places }) {
  ctx.fillStyle = RAMP[0];
  ctx.fillRect(LEFT, PAD, geo.cell * N, Math.round(geo.row * T));
  const gap = geo.cell > 6 ? 1 : 0;
  for (let i = 0; i < T * k; i++) {
    const { y, height } = rowOf(geo, places[Math.floor(i / k)]);
    const box = [LEFT + ids[i] * geo.cell, y, geo.cell - gap, height > 3 ? height - 1 : height];
    ctx.fillStyle = weightColour(weights[i], state.weight_limit);
    if (kept[i]) ctx.fillRect(...box);
    else drawFrame(ctx, box, 1, DROPPED);
  }
}

/** What was dropped: an empty frame, which no eye needs colour for. */
function drawFrame(ctx, [x, y, w, h], line, colour) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = line;
  ctx.strokeRect(x + line / 2, y + line / 2, w - line, h - line);
}

/** Own index and name of the tokens at the left of their rows: the one looked at, and as many others as have room. */
function drawNames(ctx, geo, { tokens }, { queue, places }, token, theme) {
  const step = Math.ceil(NAME / geo.row);
  const looked = token === null ? null : places[token];
  ctx.textBaseline = "middle";
  ctx.fillStyle = theme.ink;
  const write = (place, font) => {
    const { y: top, height } = rowOf(geo, place);
    const y = top + height / 2;
    ctx.font = font;
    ctx.textAlign = "left";
    ctx.fillText(queue[place], 0, y);
    ctx.textAlign = "right";
    ctx.fillText(fitted(ctx, tokens[queue[place]], LEFT - 40), LEFT - 8, y);
  };
  if (looked !== null) write(looked, `bold ${theme.font}`);
  for (let place = 0; place < geo.T; place += step) {
    if (looked === null || Math.abs(place - looked) >= step) write(place, theme.font);
  }
}

/** The load of each expert: filled up to its capacity, an empty frame above it; pale where seats stay empty. */
function drawBars(ctx, geo, { load, capacity }, limit, theme) {
  const heightOf = (tokens) => (tokens / limit) * BARS;
  const gap = geo.cell > 6 ? 2 : 0;
  load.forEach((tokens, n) => {
    const [x, w, taken] = [LEFT + n * geo.cell + gap / 2, geo.cell - gap, Math.min(tokens, capacity ?? tokens)];
    ctx.fillStyle = theme.bar;
    ctx.fillRect(x, geo.bottom - heightOf(taken), w, heightOf(taken));
    if (tokens > taken) drawFrame(ctx, [x, geo.bottom - heightOf(tokens), w, heightOf(tokens - taken)], 2, theme.accent);
    if (capacity === null || tokens >= capacity) return;
    ctx.globalAlpha = 0.25;
    ctx.fillRect(x, geo.bottom - heightOf(capacity), w, heightOf(capacity - tokens));
    ctx.globalAlpha = 1;
  });
}

/** The floor of the bars, the top of their axis, and the capacity as a line. */
function drawAxis(ctx, geo, { capacity }, limit, theme) {
  ctx.fillStyle = theme.ink;
  ctx.font = theme.font;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  ctx.fillRect(LEFT, geo.bottom, geo.cell * geo.N, 1);
  const y = geo.bottom - ((capacity ?? 0) / limit) * BARS;
  if (capacity !== null) ctx.fillRect(LEFT - 6, Math.round(y) - 1, geo.cell * geo.N + 6, 2);
  ctx.fillText(capacity === null ? "no limit" : `room ${capacity}`, LEFT - 9, Math.min(y, geo.bottom - 5));
  if (y - geo.barsTop > 20) ctx.fillText(`${limit} tokens`, LEFT - 9, geo.barsTop + 5);
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `sync` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-capacity") };
  keepKeys(page.root);
  const figure = make("div", "moe-capacity-figure");
  figure.append(buildPanel(page, state), buildMap(page, state), buildStatus(page));
  page.root.append(buildHeader(page, state.title), buildStrip(page, state), figure);
  say(page.badge, state.origin);
  return page;
}

/** The text in its own order, whatever the batch does. */
function buildStrip(page, { tokens }) {
  const box = make("div");
  const caption = make("div", "moe-caption");
  caption.append("The text as written: ", make("span", "moe-some", "underlined"), " lost some of its experts, ",
    make("span", "moe-none", "boxed"), " lost all. Point at a token; click to keep it, Escape to let go.");
  page.strip = make("div", "moe-strip");
  page.letters = makeTokens(tokens);
  page.strip.append(...withBreaks(page.letters));
  box.append(caption, page.strip);
  return box;
}

function buildPanel(page, state) {
  const panel = make("div", "moe-capacity-panel moe-stacked");
  page.layer = makeSlider("Layer", 1, state.sizes.length);
  page.layer.box.hidden = state.sizes.length === 1;
  page.factor = makeSlider("capacity factor", 0, state.factors.length - 1);
  const rule = makeChoice("who comes first", Object.entries(RULES));
  const batch = makeChoice("batch", ["as written", "reversed", "shuffled"].map((one) => [one, one]));
  [page.rules, page.batches] = [rule.radios, batch.radios];
  page.shuffle = makeSlider("which shuffle", 1, state.num_shuffles);
  panel.append(page.layer.box, page.factor.box, rule.box, batch.box, page.shuffle.box, buildFacts(page));
  return panel;
}

function buildFacts(page) {
  const table = make("table", "moe-facts");
  const body = make("tbody");
  page.facts = Array.from({ length: 5 }, () => {
    const [name, words] = [headCell("row", ""), make("td")];
    body.append(rowWith([name, words]));
    return { name, words };
  });
  table.append(body);
  return table;
}

function buildMap(page, { weight_limit }) {
  const box = make("div", "moe-capacity-map");
  Object.assign(page, makeStage("map of choices, tokens in the order of the batch by experts, over the load of each "
    + "expert: arrow keys move, Enter keeps a token, Escape lets go", "moe-choices"));
  page.axis = make("div", "moe-caption");
  box.append(buildKey(weight_limit), page.stage, page.axis);
  return box;
}

/** What the cells of the map mean. */
function buildKey(limit) {
  const [key, kept, dropped] = ["moe-caption moe-key", "moe-key", "moe-key"].map((name) => make("div", name));
  const ramp = make("span", "moe-key-ramp");
  ramp.style.background = rampOf(RAMP);
  kept.append("filled: kept, weight 0", ramp, limit.toFixed(2));
  dropped.append(make("span", "moe-key-frame"), "frame: dropped");
  key.append("Rows: the batch, first on top.", kept, dropped);
  return key;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, state, seen) {
  const { layer, sizes, factor, factors, by, batch, shuffle, num_shuffles, seed } = state;
  syncSlider(page.layer, layer + 1, sizes.length, `Layer ${layer + 1} of ${sizes.length}`);
  syncSlider(page.factor, factors.indexOf(factor), factors.length - 1, factorWords(factor, seen.capacity));
  syncSlider(page.shuffle, shuffle, num_shuffles, `shuffle ${shuffle} of ${num_shuffles}, seed ${seed}`);
  page.shuffle.slider.disabled = batch !== "shuffled";
  syncChoice(page.rules, by);
  syncChoice(page.batches, batch);
  say(page.axis, `Load of each expert of layer ${layer + 1}: blue is kept, a frame above the line is dropped, pale is an empty `
    + "seat. The choices are as recorded, without a limit; queue and limit are applied here.");
}

function factorWords(factor, capacity) {
  return factor === null ? "capacity: no limit" : `capacity ${factor.toFixed(2)} × K·T/N: room for ${capacity}`;
}

function syncStrip({ letters }, { k, left }, token) {
  letters.forEach((letter, t) => {
    letter.classList.toggle("moe-some", left[t] > 0 && left[t] < k);
    letter.classList.toggle("moe-none", left[t] === 0);
    letter.classList.toggle("moe-looked", t === token);
  });
}

function syncFacts({ facts }, seen) {
  factsOf(seen).forEach(([name, words], i) => { say(facts[i].name, name); say(facts[i].words, words); });
}

// --- the widget ------------------------------------------------------------------------------------------------------

class CapacityView extends PointingView {
  get settings() { return SETTINGS; }

  get kept() { return "locked_token"; }

  read() {
    this.state = readState(this.model);
    this.seen = dispatch(this.state);
  }

  build() {
    return buildPage(this.state);
  }

  draw() {
    const { page, state, seen, looked } = this;
    this.drawCanvas(); // first: it reads the layout, which the lines below make stale
    syncControls(page, state, seen);
    syncStrip(page, seen, looked);
    syncFacts(page, seen);
    say(page.status, describe(state, seen, looked));
  }

  drawCanvas() {
    const { page, state, seen } = this;
    const width = page.stage.clientWidth;
    if (!width) return; // not on the page yet: the ResizeObserver will call
    this.geo = geometry(width, seen.T, seen.N);
    drawAll(sizedContext(page.canvas, width, this.geo.height), this.geo, state, seen, this.looked, this.theme);
  }

  wire() {
    const { page, model } = this;
    return [
      ...onSlide(model, page.layer, (value) => ({ layer: value - 1 })),
      ...onSlide(model, page.factor, (value) => ({ factor: this.state.factors[value] })),
      ...onSlide(model, page.shuffle, (shuffle) => ({ shuffle })),
      ...onChoice(model, page.rules, (by) => ({ by })),
      ...onChoice(model, page.batches, (batch) => ({ batch })),
      ...this.listenMouse(page.strip, tokenOf),
      ...this.listenMouse(page.stage, (event) => this.tokenUnder(event)),
      ...this.listenKeys(page.stage, (key) => this.next(key), () => this.cursor),
      ...this.listenEscape(),
    ];
  }

  /** Where the keyboard stands: the token it came to last, at first the first one of the batch. */
  get cursor() {
    return this.reached ?? this.seen.queue[0];
  }

  next(key) {
    const place = moved(this.seen.places[this.cursor], key, this.seen.T);
    if (place === null) return null;
    this.reached = this.seen.queue[place];
    return this.reached;
  }

  tokenUnder(event) {
    const place = this.geo ? placeAt(this.geo, event.clientY - this.page.canvas.getBoundingClientRect().top) : null;
    return place === null ? null : this.seen.queue[place];
  }
}

export default widgetOf(CapacityView);
