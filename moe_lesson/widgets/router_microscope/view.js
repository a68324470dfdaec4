// The router microscope: one token, one router, step by step from logits to weights.

import { drawArrow, drawNumbers, fitted, outline, sizedContext } from "../kit/canvas.js";
import { keepKeys, moved, onChoice, onSlide, onTick, placeWithin } from "../kit/events.js";
import {
  buildHeader, buildStatus, make, makeChoice, makeSlider, makeStage, makeTick, say, syncChoice, syncSlider,
} from "../kit/page.js";
import { floats, ranked, softmax, sum, topK } from "../kit/routing.js";
import { PointingView, widgetOf } from "../kit/views_old.js";
import { count, listed } from "../kit/words.js";

// --- what the router does: the twins of the functions in router_microscope.py ----------------------------------------

export const DRAWS = 100; // of the noise

/** The weights [K] of the chosen experts, out of their probabilities among all N and their logits over temperature. */
export const ORDERS = {
  "softmax, top-k": (probabilities) => probabilities,
  "softmax, top-k, renormalise": (probabilities) => probabilities.map((p) => p / sum(probabilities)),
  "top-k, softmax": (probabilities, logits) => softmax(logits),
};

/** The k largest logits and their weights: { logits [N], probabilities [N], ids [k], weights [k] }. */
export function decide(logits, k, temperature, order) {
  const scaled = logits.map((logit) => logit / temperature);
  const probabilities = softmax(scaled);
  const ids = topK(logits, k);
  const [chosen, their] = [probabilities, scaled].map((values) => Float64Array.from(ids, (n) => values[n]));
  return { logits, probabilities, ids, weights: ORDERS[order](chosen, their) };
}

/** In how many draws each expert is chosen, and how many draws choose others than no noise would: { counts [N], others }. */
export function explore(logits, draws, noise, k) {
  const explored = { counts: new Int32Array(logits.length), others: 0 };
  const quiet = new Set(topK(logits, k));
  for (let draw = 1; draw <= DRAWS; draw++) {
    const ids = topK(withNoise(logits, draws, noise, draw), k);
    for (const n of ids) explored.counts[n] += 1;
    explored.others += ids.every((n) => quiet.has(n)) ? 0 : 1;
  }
  return explored;
}

function withNoise(logits, draws, noise, draw) {
  const start = (draw - 1) * logits.length;
  return logits.map((logit, n) => logit + noise * draws[start + n]);
}

/** How far the logit of the last chosen expert is above the best one left out; infinite if none is left out. */
export function gapAtCut(logits, k) {
  const [last, next] = topK(logits, k + 1).slice(k - 1).map((n) => logits[n]);
  return Number.isFinite(last) && Number.isFinite(next) ? last - next : Infinity;
}

// --- state: what is shown, computed from what Python sent ------------------------------------------------------------

const SETTINGS = ["token", "k", "temperature", "noise", "draw", "order", "by_logit", "locked_expert"];

/** The traits of the model as one plain object. */
export function readState(model) {
  const names = ["title", "origin", "seed", "tokens", "num_experts", "noise_limit", "logit_limits", "digits", "start"];
  const state = Object.fromEntries([...names, ...SETTINGS].map((name) => [name, model.get(name)]));
  return { ...state, logits: floats(model.get("logits")), draws: floats(model.get("draws")) };
}

/** Everything the router does with the token at these settings. */
export function examine(state) {
  const { token, num_experts: N, draws, noise, draw, k } = state;
  const quiet = Float64Array.from(state.logits.subarray(token * N, (token + 1) * N));
  const decision = decide(withNoise(quiet, draws, noise, draw), k, state.temperature, state.order);
  return { ...decision, quiet, ...explore(quiet, draws, noise, k) };
}

function asRecorded(state) {
  return ["k", "temperature", "noise", "order"].every((name) => state[name] === state.start[name]);
}

function held({ ids, probabilities }) {
  return sum(ids.map((n) => probabilities[n]));
}

// --- the summary: the twin of `summary` in router_microscope.py ------------------------------------------------------

/** What the microscope shows, in words; expert is the one looked at, or null. */
export function describe(state, seen, expert) {
  const parts = [headWords(state), choiceWords(state, seen), gapWords(state, seen)];
  if (state.noise) parts.push(noiseWords(state, seen));
  if (expert !== null) parts.push(expertWords(state, seen, expert));
  return parts.filter(Boolean).join(" ");
}

function headWords(state) {
  const noise = state.noise ? `noise σ = ${state.noise.toFixed(state.digits)} (draw ${state.draw})` : "no noise";
  return `Token ${state.token} '${state.tokens[state.token]}', ${state.origin} router, K = ${state.k} of `
    + `${count(state.num_experts, "expert")}, τ = ${state.temperature.toFixed(2)}, ${noise}: `
    + `${asRecorded(state) ? "as recorded" : "a what-if"}.`;
}

function choiceWords({ order }, seen) {
  const chosen = seen.ids.map((n, i) => `${n} (${seen.weights[i].toFixed(2)})`);
  return `Chosen: ${chosen.length === 1 ? "expert" : "experts"} ${listed(chosen)}. The weights (${order}) sum to `
    + `${sum(seen.weights).toFixed(2)}; before top-k, the chosen held ${held(seen).toFixed(2)} of the probability.`;
}

function gapWords({ k, digits }, { quiet }) {
  const gap = gapAtCut(quiet, k);
  return Number.isFinite(gap) ? `Without noise, the last chosen leads the next by ${gap.toFixed(digits)}.` : "";
}

function noiseWords({ k }, { quiet, ids, others }) {
  const usual = topK(quiet, k);
  const swapped = ids.filter((n) => !usual.includes(n)).length;
  const draw = swapped ? `swaps ${swapped} of the ${k}` : "chooses the same as without noise";
  return `This draw ${draw}; ${others} of ${DRAWS} draws choose others.`;
}

function expertWords({ noise, digits }, seen, expert) {
  const place = seen.ids.indexOf(expert);
  const facts = [`logit ${logitWords(seen.quiet[expert], digits)}`,
    noise ? `with noise ${logitWords(seen.logits[expert], digits)}` : "",
    `probability ${seen.probabilities[expert].toFixed(3)}`,
    place < 0 ? "not chosen" : `weight ${seen.weights[place].toFixed(2)}`,
    noise ? `chosen in ${seen.counts[expert]} of ${DRAWS} draws` : ""];
  return `Expert ${expert}: ${facts.filter(Boolean).join(", ")}.`;
}

function logitWords(logit, digits) {
  return Number.isFinite(logit) ? logit.toFixed(digits) : "-∞ (masked)";
}

// --- geometry: four rows over one axis of experts --------------------------------------------------------------------

const LEFT = 46;                   // pixels for the scales
const RIGHT = 34;                  // pixels for the word at the cut
const HEADING = 27;                // pixels above each row
const ROWS = [98, 70, 70, 70];     // pixels of logits, probabilities, weights, draws
const BETWEEN = 5;                 // pixels below each row
const NUMBERS = 20;                // pixels for the experts' numbers
const SHARES = [0, 0.05, 0.2, 0.5, 1];

/** The measures for a width in CSS pixels; `rows` holds top and bottom of each row's bars. */
export function geometry(width, N) {
  let y = 0;
  const rows = ROWS.map((height) => {
    const top = y + HEADING;
    y = top + height + BETWEEN;
    return { top, bottom: top + height };
  });
  return { width, N, left: LEFT, cell: Math.max(1, width - LEFT - RIGHT) / N, rows, height: y + NUMBERS };
}

/** The column under a point, or null beside them. */
export function columnAt(geo, x) {
  return placeWithin(x - LEFT, geo.cell, geo.N);
}

/** Which expert stands in each column, from left to right. */
export function columnsOf({ by_logit, num_experts }, { quiet }) {
  return by_logit ? ranked(quiet) : Array.from({ length: num_experts }, (_, n) => n);
}

/** Round numbers within the limits, two to six: steps of 1, 2 or 5 times a power of ten. */
export function niceTicks([low, high]) {
  const unit = 10 ** Math.floor(Math.log10((high - low) / 5));
  const step = unit * [1, 2, 5, 10].find((factor) => (high - low) / (factor * unit) <= 5);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(3)));
}

// --- drawing ---------------------------------------------------------------------------------------------------------

/** The whole picture; `expert` is the one looked at, or null. */
function drawSteps(ctx, geo, state, seen, expert, theme) {
  const columns = columnsOf(state, seen);
  const chosen = seen.ids.map((n) => columns.indexOf(n));
  drawBands(ctx, geo, chosen, theme);
  drawHeadings(ctx, geo, state, seen, theme);
  drawLogits(ctx, geo, state, seen, columns, theme);
  const weights = new Float64Array(geo.N);
  seen.ids.forEach((n, i) => { weights[n] = seen.weights[i]; });
  [seen.probabilities, weights, Array.from(seen.counts, (times) => times / DRAWS)].forEach((shares, i) => {
    drawShares(ctx, geo, geo.rows[i + 1], columns.map((n) => shares[n]), chosen, theme);
  });
  const looked = expert === null ? [] : [columns.indexOf(expert)];
  drawNumbers(ctx, geo, geo.height - NUMBERS / 2, [...looked, ...chosen], theme, (column) => columns[column]);
  const { top } = geo.rows[0];
  for (const column of looked) outline(ctx, LEFT + column * geo.cell, top, geo.cell, geo.height - NUMBERS - top - 2);
}

/** A pale band through all rows behind each chosen expert. */
function drawBands(ctx, geo, chosen, theme) {
  ctx.globalAlpha = 0.16;
  ctx.fillStyle = theme.accent;
  const { top } = geo.rows[0];
  for (const column of chosen) ctx.fillRect(LEFT + column * geo.cell, top, geo.cell, geo.height - NUMBERS - top);
  ctx.globalAlpha = 1;
}

/** What each row is, and at its right the number to notice in it. */
function drawHeadings(ctx, geo, state, seen, theme) {
  const gap = gapAtCut(seen.logits, state.k);
  const words = [
    [state.noise ? `1  logits + σ · draw ${state.draw} (dash: without noise)` : "1  logits",
      Number.isFinite(gap) ? `gap at the cut: ${gap.toFixed(state.digits)}` : ""],
    [`2  probabilities: softmax(logits / τ) over ${count(geo.N, "expert")}`, `the chosen hold ${held(seen).toFixed(2)}`],
    [`3  weights: ${state.order}`, `sum: ${sum(seen.weights).toFixed(2)}`],
    [`4  chosen in what share of ${DRAWS} draws of noise`,
      state.noise ? `${seen.others} of ${DRAWS} draws choose others` : "no noise: always the same"],
  ];
  ctx.fillStyle = theme.ink;
  ctx.textBaseline = "middle";
  words.forEach(([left, right], i) => {
    const y = geo.rows[i].top - 17;
    ctx.textAlign = "right";
    ctx.font = theme.font;
    ctx.fillText(right, geo.width - RIGHT, y);
    const room = geo.width - RIGHT - ctx.measureText(right).width - 16;
    ctx.textAlign = "left";
    ctx.font = `bold ${theme.font}`;
    ctx.fillText(fitted(ctx, left, room), 0, y);
  });
}

/** Bars from zero between fixed limits, the cut, and with noise a dash where each logit was without it. */
function drawLogits(ctx, geo, state, seen, columns, theme) {
  const [low, high] = state.logit_limits;
  const { top, bottom } = geo.rows[0];
  const heightOf = (logit) => bottom - ((Math.min(Math.max(logit, low), high) - low) / (high - low)) * (bottom - top);
  drawScale(ctx, geo, niceTicks(state.logit_limits).map((tick) => [tick, heightOf(tick)]), theme);
  columns.forEach((n, column) => {
    const logit = seen.logits[n];
    if (logit === -Infinity) drawCross(ctx, geo, column, heightOf(0), theme);
    else drawBar(ctx, geo, column, heightOf(0), heightOf(logit), seen.ids.includes(n), theme);
    if (logit > high) drawArrow(ctx, LEFT + (column + 0.5) * geo.cell, top + 1, theme);
    if (logit < low && logit !== -Infinity) drawArrow(ctx, LEFT + (column + 0.5) * geo.cell, bottom - 1, theme, 1);
    if (state.noise && logit !== -Infinity) drawDash(ctx, geo, column, heightOf(seen.quiet[n]), theme);
  });
  drawCut(ctx, geo, state, seen, heightOf, theme);
}

/** A dashed line between the last chosen and the first left out. */
function drawCut(ctx, geo, state, seen, heightOf, theme) {
  if (!Number.isFinite(gapAtCut(seen.logits, state.k))) return;
  const [last, next] = topK(seen.logits, state.k + 1).slice(-2).map((n) => seen.logits[n]);
  const y = heightOf((last + next) / 2);
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1;
  ctx.setLineDash([5, 3]);
  ctx.beginPath();
  ctx.moveTo(LEFT, y);
  ctx.lineTo(geo.width - RIGHT, y);
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.font = theme.font;
  ctx.textAlign = "left";
  ctx.fillStyle = theme.ink;
  ctx.fillText("cut", geo.width - RIGHT + 5, y);
}

/** Bars between 0 and 1, spaced by the square root so that small ones show; one per column. */
function drawShares(ctx, geo, { top, bottom }, shares, chosen, theme) {
  const heightOf = (share) => bottom - Math.sqrt(share) * (bottom - top);
  drawScale(ctx, geo, SHARES.map((share) => [share, heightOf(share)]), theme);
  shares.forEach((share, column) => drawBar(ctx, geo, column, bottom, heightOf(share), chosen.includes(column), theme));
}

/** [number, y] of each tick, with a faint line. */
function drawScale(ctx, geo, ticks, theme) {
  ctx.font = theme.font;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  for (const [tick, y] of ticks) {
    ctx.fillStyle = theme.faint;
    ctx.fillRect(LEFT, Math.round(y), geo.cell * geo.N, tick ? 0.5 : 1);
    ctx.fillStyle = theme.ink;
    ctx.fillText(tick, LEFT - 6, y);
  }
}

/** A chosen expert is orange with an edge, for eyes that see no orange. */
function drawBar(ctx, geo, column, from, to, chosen, theme) {
  const gap = geo.cell > 6 ? 2 : 0;
  const box = [LEFT + column * geo.cell + gap / 2, Math.min(from, to), geo.cell - gap, Math.abs(to - from)];
  ctx.fillStyle = chosen ? theme.accent : theme.bar;
  ctx.fillRect(...box);
  if (!chosen) return;
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1.5;
  ctx.strokeRect(...box);
}

/** Where the logit was without noise. */
function drawDash(ctx, geo, column, y, theme) {
  ctx.fillStyle = theme.ink;
  ctx.fillRect(LEFT + column * geo.cell, y - 1, geo.cell, 2);
}

/** A masked expert: its logit is minus infinity. */
function drawCross(ctx, geo, column, y, theme) {
  ctx.fillStyle = theme.ink;
  ctx.font = theme.font;
  ctx.textAlign = "center";
  ctx.fillText("×", LEFT + (column + 0.5) * geo.cell, y);
}

// --- page ------------------------------------------------------------------------------------------------------------

const NOISE_STEPS = 50;
const TEMPERATURE_STEPS = 20; // to a factor of ten

/** Build the widget's elements once; `sync` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-microscope") };
  keepKeys(page.root);
  page.root.append(buildHeader(page, state.title), buildToken(page, state), buildSliders(page, state),
    buildChoices(page), buildStage(page), buildStatus(page));
  say(page.badge, state.origin);
  return page;
}

/** The token's slider, and the token in its text. */
function buildToken(page, state) {
  const row = make("div", "moe-row");
  page.token = makeSlider("Token", 0, state.tokens.length - 1);
  page.text = ["moe-before", "moe-token moe-looked", "moe-after"].map((name) => make("span", name));
  const text = make("div", "moe-context");
  text.append(...page.text);
  row.append(page.token.box, text);
  return row;
}

function buildSliders(page, state) {
  const grid = make("div", "moe-grid");
  page.k = makeSlider("K, experts per token", 1, state.num_experts);
  page.temperature = makeSlider("temperature τ", -TEMPERATURE_STEPS, TEMPERATURE_STEPS);
  page.noise = makeSlider("noise σ, in logits", 0, NOISE_STEPS);
  page.draw = makeSlider("which draw of the noise", 1, DRAWS);
  grid.append(...[page.k, page.temperature, page.noise, page.draw].map(({ box }) => box));
  return grid;
}

function buildChoices(page) {
  const row = make("div", "moe-row");
  const choice = makeChoice("order of steps", Object.keys(ORDERS).map((order) => [order, order]));
  page.orders = choice.radios;
  const sort = makeTick("sort by logit");
  page.sort = sort.tick;
  row.append(choice.box, sort.box);
  return row;
}

function buildStage(page) {
  const box = make("div");
  Object.assign(page, makeStage(
    "bars of logits, probabilities, weights and draws, by expert: arrow keys move, Enter keeps an expert, Escape lets go"));
  page.axis = make("div", "moe-caption");
  box.append(page.stage, page.axis);
  return box;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, state) {
  const { token, tokens, k, num_experts: N, start, temperature, noise, draw, digits } = state;
  syncSlider(page.token, token, tokens.length - 1, `token ${token} of 0 … ${tokens.length - 1}`);
  syncText(page.text, tokens, token);
  syncSlider(page.k, k, N, `K = ${k} of ${N}${k === start.k ? "" : ` (recorded: ${start.k})`}`);
  syncSlider(page.temperature, Math.round(TEMPERATURE_STEPS * Math.log10(temperature)), TEMPERATURE_STEPS,
    `temperature τ = ${temperature.toFixed(2)}`);
  syncSlider(page.noise, Math.round((noise / state.noise_limit) * NOISE_STEPS), NOISE_STEPS,
    `noise σ = ${noise.toFixed(digits)}`);
  syncSlider(page.draw, draw, DRAWS, `draw ${draw} of ${DRAWS}, seed ${state.seed}`);
  page.draw.slider.disabled = !noise;
  syncChoice(page.orders, state.order);
  page.sort.checked = state.by_logit;
  say(page.axis, axisWords(state));
}

/** The token between a few letters of what stands before and after it. */
function syncText([before, now, after], tokens, token) {
  say(before, Array.from(tokens.slice(0, token).join("")).slice(-30).join(""));
  say(now, tokens[token]);
  say(after, Array.from(tokens.slice(token + 1).join("")).slice(0, 30).join(""));
}

function axisWords({ by_logit }) {
  const order = by_logit ? "sorted by their logit without noise" : "by number";
  return `Experts of this layer, ${order}. Orange: chosen. Rows 2–4: √ spacing, so that small values show.`;
}

// --- the widget ------------------------------------------------------------------------------------------------------

class RouterMicroscopeView extends PointingView {
  get settings() { return SETTINGS; }

  get kept() { return "locked_expert"; }

  prepare() {
    super.prepare();
    this.cursor = 0; // the column where the keyboard stands
  }

  read() {
    this.state = readState(this.model);
    this.found = null;
  }

  /** What the router does, worked out when it is first looked at: a slider may move several times before a frame. */
  get seen() {
    this.found = this.found || examine(this.state);
    return this.found;
  }

  build() {
    return buildPage(this.state);
  }

  draw() {
    const { page, state, seen, looked } = this;
    this.drawCanvas(); // first: it reads the layout, which the lines below make stale
    syncControls(page, state);
    say(page.status, describe(state, seen, looked));
  }

  drawCanvas() {
    const { page, state, seen } = this;
    const width = page.stage.clientWidth;
    if (!width) return; // not on the page yet: the ResizeObserver will call
    this.geo = geometry(width, state.num_experts);
    drawSteps(sizedContext(page.canvas, width, this.geo.height), this.geo, state, seen, this.looked, this.theme);
  }

  wire() {
    const { page, model } = this;
    return [
      ...onSlide(model, page.token, (token) => ({ token })),
      ...onSlide(model, page.k, (k) => ({ k })),
      ...onSlide(model, page.temperature, (value) => ({ temperature: 10 ** (value / TEMPERATURE_STEPS) })),
      ...onSlide(model, page.noise, (value) => ({ noise: (value / NOISE_STEPS) * this.state.noise_limit })),
      ...onSlide(model, page.draw, (draw) => ({ draw })),
      ...onChoice(model, page.orders, (order) => ({ order })),
      ...onTick(model, page.sort, "by_logit"),
      ...this.listenMouse(page.stage, (event) => this.expertUnder(event)),
      ...this.listenKeys(page.stage, (key) => this.next(key), () => this.expertIn(this.cursor)),
      ...this.listenEscape(),
    ];
  }

  expertIn(column) {
    return columnsOf(this.state, this.seen)[column];
  }

  next(key) {
    if (key === "ArrowUp" || key === "ArrowDown") return null; // columns lie side by side: these scroll the page
    const column = moved(this.cursor, key, this.state.num_experts);
    if (column === null) return null;
    this.cursor = column;
    return this.expertIn(column);
  }

  expertUnder(event) {
    const column = this.geo ? columnAt(this.geo, event.clientX - this.page.canvas.getBoundingClientRect().left) : null;
    return column === null ? null : this.expertIn(column);
  }
}

export default widgetOf(RouterMicroscopeView);
