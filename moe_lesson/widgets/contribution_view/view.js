// The contribution view: how loud the shared and the routed part of an MoE layer are for each token, beside no training.
// Every number was computed in Python before the page opened; this module orders, counts and draws. common.js stands above
// this line. Letters: L layers, T tokens, K active experts.

import { fitted, outline, sizedContext } from "../kit/canvas.js";
import { keepKeys, moved, onChoice, onSlide, placeWithin } from "../kit/events.js";
import {
  buildHeader, buildStatus, headCell, make, makeChoice, makeSlider, makeStage, makeTable, makeTokens, rowWith, say,
  syncChoice, syncSlider, tokenOf, withBreaks,
} from "../kit/page.js";
import { numbers, sum } from "../kit/routing.js";
import { PointingView, widgetOf } from "../kit/views_old.js";
import { count, listed, rounded } from "../kit/words.js";

// --- state: what is shown, read from what Python sent ----------------------------------------------------------------

const SETTINGS = ["layer", "order", "locked_token"];
const DATA = ["title", "name", "origin", "seed", "width", "num_shared", "tokens", "kinds", "sizes", "top_k", "axis"];
export const ORDERS = { "as in the text": "as in the text",
  "by the routed part's share": "largest share of the routed part first" };
export const KINDS = ["letter", "space", "digit", "sign", "other"];

/** The traits of the model as one plain object. */
export function readState(model) {
  const state = Object.fromEntries([...DATA, ...SETTINGS].map((name) => [name, model.get(name)]));
  return { ...state, parts: numbers(model.get("parts"), Float64Array), experts: numbers(model.get("experts"), Int32Array),
    weights: numbers(model.get("weights"), Float64Array) };
}

/** The layer as given and untrained, who stands in which column, and the experts of each token. */
export function examine(state) {
  const { tokens: { length: T }, top_k: k, layer } = state;
  const [one, none] = [partsOf(state, 0), partsOf(state, 1)];
  const [ids, weights] = [state.experts, state.weights].map((all) => all.subarray(layer * T * k, (layer + 1) * T * k));
  const columns = columnsOf(one.share, state.order);
  const places = new Int32Array(T);
  columns.forEach((token, column) => { places[token] = column; });
  return { T, k, one, none, ids, weights, columns, places };
}

/** Lengths, cosine and share of one layer: [T] each; `group` 0 is as given, 1 untrained. */
function partsOf({ parts, tokens: { length: T }, sizes: { length: L }, layer }, group) {
  const [shared, routed, cosine] = [0, 1, 2].map((part) => {
    const start = ((group * L + layer) * 3 + part) * T;
    return parts.subarray(start, start + T);
  });
  return { shared, routed, cosine, share: shared.map((length, t) => length / (length + routed[t])) };
}

/** Which token stands in each column, from the left; a tie keeps the order of the text. */
export function columnsOf(share, order) {
  const tokens = Array.from(share, (_, t) => t);
  return order === "as in the text" ? tokens : tokens.sort((a, b) => share[a] - share[b] || a - b);
}

// --- words: the twins of those in contribution_view.py ---------------------------------------------------------------

export const COLUMNS = ["bytes", "number", "shared part's share", "untrained", "cosine", "untrained"];

function percent(share) {
  return `${(100 * share).toFixed(0)}%`;
}

export function median(values) {
  const sorted = Float64Array.from(values).sort();
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Of all tokens, and of each kind that the text has: how many, and the medians of share and cosine beside the null's. */
export function tableRows({ kinds }, { one, none }) {
  const present = KINDS.filter((kind) => kinds.includes(kind));
  const groups = [["all", () => true], ...present.map((kind) => [kind, (_, t) => kinds[t] === kind])];
  return groups.map(([name, mine]) => [name, String(kinds.filter(mine).length),
    ...[one, none].map(({ share }) => percent(median(share.filter(mine)))),
    ...[one, none].map(({ cosine }) => rounded(median(cosine.filter(mine)), 2))]);
}

export function tableTitle({ layer, origin, seed }) {
  return `Medians, layer ${layer + 1}: ${origin}, and untrained (seed ${seed})`;
}

/** What the view shows, in words; token is the one looked at, or null. */
export function describe(state, seen, token) {
  const parts = [headWords(state), medianWords(state, seen), rangeWords(state, seen)];
  if (token !== null) parts.push(tokenWords(state, seen, token));
  return parts.join(" ");
}

function headWords({ layer, sizes, origin, name, tokens, num_shared, top_k }) {
  return `Layer ${layer + 1} of ${sizes.length}, ${origin} ${name}: ${count(tokens.length, "token")}, `
    + `${count(num_shared, "shared expert")} for all, K = ${top_k} of ${count(sizes[layer], "routed expert")}.`;
}

function medianWords({ origin, seed }, { one, none }) {
  return `Median share of the shared part, |shared| / (|shared| + |routed|): ${percent(median(one.share))} ${origin}, `
    + `${percent(median(none.share))} untrained (seed ${seed}). Median cosine of the two parts: `
    + `${rounded(median(one.cosine), 2)} ${origin}, ${rounded(median(none.cosine), 2)} untrained.`;
}

/** From where routing adds least to where it adds most, and how much each part varies. */
function rangeWords({ tokens }, { one }) {
  const [least, most] = [Math.min(...one.share), Math.max(...one.share)].map((end) => one.share.indexOf(end));
  const lengths = ["shared", "routed"].map((name) => (
    `${name} ${rounded(Math.min(...one[name]), 2)} … ${rounded(Math.max(...one[name]), 2)}`)).join("; ");
  return `The share runs from ${percent(one.share[least])} (token ${least} '${tokens[least]}') to `
    + `${percent(one.share[most])} (token ${most} '${tokens[most]}'). Lengths: ${lengths}.`;
}

function tokenWords({ tokens, width }, { k, one, none, ids, weights }, token) {
  const chosen = Array.from({ length: k }, (_, j) => `${ids[token * k + j]} (${weights[token * k + j].toFixed(2)})`);
  return `Token ${token} '${tokens[token]}': shared ${rounded(one.shared[token], 2)}, `
    + `routed ${rounded(one.routed[token], 2)}, share ${percent(one.share[token])}; cosine `
    + `${rounded(one.cosine[token], 2)}, ${angleWords(one.cosine[token], width)}. `
    + `Untrained: shared ${rounded(none.shared[token], 2)}, routed ${rounded(none.routed[token], 2)}, cosine `
    + `${rounded(none.cosine[token], 2)}. Routed to ${chosen.length === 1 ? "expert" : "experts"} ${listed(chosen)} of this `
    + "layer.";
}

/** Do two directions agree? Two random ones of D numbers have a cosine of 0 ± 1/√D. */
function angleWords(cosine, width) {
  if (Math.abs(cosine) <= 2 / Math.sqrt(width)) return "about at right angles, as two random directions are";
  return cosine > 0 ? "they agree" : "they cancel in part";
}

// --- geometry: three panels over the same columns --------------------------------------------------------------------

const LEFT = 78;      // pixels for the names of the axes
const RIGHT = 8;
const TITLE = 25;     // pixels of a panel's title
const LENGTHS = 146;  // pixels that the two halves of the lengths share
const LETTERS = 22;   // pixels for the tokens between the halves
const SHARE = 50;     // pixels of the share's panel
const COSINE = 44;    // pixels of the cosine's panel
const GAP = 5;        // pixels between panels

/** The measures for a width in CSS pixels: where each panel begins and ends, and pixels per √ of a length. */
export function geometry(width, T, { shared, routed }) {
  const [up, down] = [Math.sqrt(routed), Math.sqrt(shared)];
  const root = LENGTHS / (up + down);
  const [top, floor] = [TITLE, TITLE + up * root];
  const [ceiling, bottom] = [floor + LETTERS, floor + LETTERS + down * root];
  const share = { top: bottom + GAP + TITLE, bottom: bottom + GAP + TITLE + SHARE };
  const cosine = { top: share.bottom + GAP + TITLE, bottom: share.bottom + GAP + TITLE + COSINE };
  return { width, T, left: LEFT, cell: Math.max(1, width - LEFT - RIGHT) / T, top, floor, ceiling, bottom, root, share, cosine,
    height: cosine.bottom + 6 };
}

/** Left edge and width of a column's bar, on whole pixels: seams would flicker between columns. */
export function columnOf(geo, column) {
  const [left, next] = [column, column + 1].map((edge) => Math.round(LEFT + edge * geo.cell));
  const gap = geo.cell > 5 ? 1 : 0;
  return { x: left, w: Math.max(1, next - left - gap) };
}

/** The column under a point, or null beside the columns. */
export function columnAt(geo, x) {
  return placeWithin(x - LEFT, geo.cell, geo.T);
}

// --- drawing ---------------------------------------------------------------------------------------------------------

const SHARED = "#009e73"; // Okabe and Ito's green: told from the blue by place as well
const LINE = 2;           // pixels of the untrained model's steps

/** The whole picture; `token` is the one looked at, or null. */
function drawAll(ctx, geo, state, seen, token, theme) {
  drawLengths(ctx, geo, state, seen, theme);
  drawShares(ctx, geo, seen, theme);
  drawCosines(ctx, geo, state, seen, theme);
  drawLetters(ctx, geo, state, seen, token, theme);
  if (token === null) return;
  const { x, w } = columnOf(geo, seen.places[token]);
  outline(ctx, x - 3, geo.top - 3, w + 6, geo.bottom - geo.top + 6);
  outline(ctx, x - 3, geo.share.top - 2, w + 6, geo.share.bottom - geo.share.top + 4);
  outline(ctx, x - 3, geo.cosine.top - 2, w + 6, geo.cosine.bottom - geo.cosine.top + 4);
}

/** Routed up, shared down, on one square-root scale. */
function drawLengths(ctx, geo, state, { one, none, columns }, theme) {
  const upTo = (length) => geo.floor - Math.sqrt(length) * geo.root;
  const downTo = (length) => geo.ceiling + Math.sqrt(length) * geo.root;
  drawTitle(ctx, geo, geo.top, "length (√ spacing): routed part up, shared part down", theme);
  for (const [tick, label] of state.axis.ticks) {
    if (tick <= state.axis.routed) drawTick(ctx, geo, upTo(tick), label, theme);
    if (tick <= state.axis.shared) drawTick(ctx, geo, downTo(tick), label, theme);
  }
  const place = (column) => columnOf(geo, column);
  columns.forEach((token, column) => {
    const { x, w } = place(column);
    ctx.fillStyle = theme.bar;
    ctx.fillRect(x, upTo(one.routed[token]), w, geo.floor - upTo(one.routed[token]));
    ctx.fillStyle = SHARED;
    ctx.fillRect(x, geo.ceiling, w, downTo(one.shared[token]) - geo.ceiling);
  });
  drawSteps(ctx, geo, columns, (token) => upTo(none.routed[token]), theme);
  drawSteps(ctx, geo, columns, (token) => downTo(none.shared[token]), theme);
}

/** One column for each token: green from below is the shared part, blue the rest. */
function drawShares(ctx, geo, { one, none, columns }, theme) {
  const { top, bottom } = geo.share;
  const yOf = (share) => bottom - share * (bottom - top);
  drawTitle(ctx, geo, top, "the shared part's share of the two lengths", theme);
  for (const tick of [0, 0.5, 1]) drawTick(ctx, geo, yOf(tick), percent(tick), theme);
  columns.forEach((token, column) => {
    const [{ x, w }, y] = [columnOf(geo, column), yOf(one.share[token])];
    ctx.fillStyle = theme.bar;
    ctx.fillRect(x, top, w, y - top);
    ctx.fillStyle = SHARED;
    ctx.fillRect(x, y, w, bottom - y);
  });
  drawSteps(ctx, geo, columns, (token) => yOf(none.share[token]), theme);
}

/** Up: the two parts agree; down: they cancel; within the band: as two random directions. */
function drawCosines(ctx, geo, { width }, { one, none, columns }, theme) {
  const { top, bottom } = geo.cosine;
  const yOf = (cosine) => (top + bottom) / 2 - (cosine * (bottom - top)) / 2;
  const random = 2 / Math.sqrt(width);
  drawTitle(ctx, geo, top, "cosine of the two parts; band: two random directions", theme);
  for (const [tick, label] of [[1, "1 agree"], [0, "0"], [-1, "-1 cancel"]]) drawTick(ctx, geo, yOf(tick), label, theme);
  ctx.fillStyle = theme.ink;
  ctx.globalAlpha = 0.16;
  ctx.fillRect(LEFT, yOf(Math.min(random, 1)), geo.cell * geo.T, yOf(Math.max(-random, -1)) - yOf(Math.min(random, 1)));
  ctx.globalAlpha = 0.75;
  columns.forEach((token, column) => {
    const [{ x, w }, y] = [columnOf(geo, column), yOf(one.cosine[token])];
    ctx.fillRect(x, Math.min(y, yOf(0)), w, Math.abs(y - yOf(0)));
  });
  ctx.globalAlpha = 1;
  drawSteps(ctx, geo, columns, (token) => yOf(none.cosine[token]), theme);
}

/** The untrained model: one thin step for each token, cut out of the bars so that no eye needs its colour. */
function drawSteps(ctx, geo, columns, yOf, theme) {
  for (const [colour, line] of [[theme.paper, LINE + 2], [theme.accent, LINE]]) {
    ctx.fillStyle = colour;
    columns.forEach((token, column) => {
      const { x } = columnOf(geo, column);
      ctx.fillRect(x, Math.round(yOf(token)) - line / 2, columnOf(geo, column + 1).x - x, line);
    });
  }
}

function drawTitle(ctx, geo, top, words, theme) {
  ctx.font = `bold ${theme.font}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillStyle = theme.ink;
  ctx.fillText(fitted(ctx, words, geo.width - 2), 0, top - TITLE / 2 - 2);
  ctx.font = theme.font;
}

/** A line across the columns and its number at the left. */
function drawTick(ctx, geo, y, label, theme) {
  ctx.fillStyle = theme.faint;
  ctx.fillRect(LEFT - 4, Math.round(y), geo.cell * geo.T + 4, 1);
  ctx.fillStyle = theme.ink;
  ctx.textAlign = "right";
  ctx.fillText(label, LEFT - 8, y);
}

/** The tokens between the halves of the lengths: the one looked at in bold, and as many others as have room. */
function drawLetters(ctx, geo, { tokens }, { columns, places }, token, theme) {
  const looked = token === null ? null : places[token];
  const step = Math.ceil(9 / geo.cell);
  const y = (geo.floor + geo.ceiling) / 2;
  ctx.fillStyle = theme.ink;
  ctx.textAlign = "center";
  ctx.font = theme.font;
  const room = Math.max(geo.cell, 14) - 1;
  for (let column = 0; column < geo.T; column += step) {
    if (looked === null || Math.abs(column - looked) >= Math.max(step, 12 / geo.cell)) {
      ctx.fillText(fitted(ctx, tokens[columns[column]], room), LEFT + (column + 0.5) * geo.cell, y);
    }
  }
  if (looked === null) return;
  ctx.font = `bold ${theme.font}`;
  ctx.fillText(fitted(ctx, tokens[token], 60), LEFT + (looked + 0.5) * geo.cell, y);
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `draw` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-contribution") };
  keepKeys(page.root);
  const header = buildHeader(page, state.title);
  header.insertBefore(make("span", "moe-badge moe-null", `orange line: untrained, seed ${state.seed}`), page.reset);
  say(page.badge, `${state.origin}: ${state.name}`);
  const foot = make("div", "moe-contribution-foot");
  foot.append(buildTable(page, state), buildStatus(page)); // the words may grow, the table must not move
  page.root.append(header, buildControls(page, state), buildStrip(page, state), buildStage(page), foot);
  return page;
}

function buildControls(page, state) {
  const row = make("div", "moe-row");
  page.layer = makeSlider("Layer", 1, state.sizes.length);
  page.layer.box.hidden = state.sizes.length === 1;
  const order = makeChoice("order", Object.keys(ORDERS).map((one) => [one, one]));
  page.orders = order.radios;
  row.append(page.layer.box, order.box, buildLegend(state));
  return row;
}

/** What the colours mean. */
function buildLegend({ num_shared, top_k }) {
  const legend = make("div", "moe-legend");
  const entry = (colour, words) => {
    const [box, swatch] = [make("span"), make("span", "moe-contribution-swatch")];
    swatch.style.background = colour;
    box.append(swatch, words);
    return box;
  };
  legend.append(entry("var(--moe-bar)", `routed part: sum of K = ${top_k}`),
    entry(SHARED, `shared part: ${count(num_shared, "expert")}, one FFN`));
  return legend;
}

/** The text in its own order, whatever the columns do. */
function buildStrip(page, { tokens }) {
  const box = make("div");
  page.strip = make("div", "moe-strip");
  page.letters = makeTokens(tokens);
  page.strip.append(...withBreaks(page.letters));
  box.append(page.strip);
  return box;
}

function buildStage(page) {
  return Object.assign(page, makeStage("lengths of the routed and the shared part for each token, over their share and their "
    + "cosine: arrow keys move, Enter keeps a token, Escape lets go")).stage;
}

function buildTable(page, state) {
  const box = make("div");
  page.caption = make("div", "moe-caption");
  page.cells = [];
  const rows = tableRows(state, examine(state)).map(([name]) => {
    const cells = COLUMNS.slice(1).map(() => make("td"));
    page.cells.push(cells);
    return rowWith([headCell("row", name), ...cells]);
  });
  const table = makeTable(COLUMNS.map((title) => headCell("col", title)), rows);
  box.append(page.caption, table, make("div", "moe-caption",
    "A length is loudness, not worth: that, only the loss without the part can tell."));
  return box;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, { layer, sizes, order }) {
  syncSlider(page.layer, layer + 1, sizes.length, `Layer ${layer + 1} of ${sizes.length}`);
  syncChoice(page.orders, order);
}

function syncTable(page, state, seen) {
  say(page.caption, tableTitle(state));
  tableRows(state, seen).forEach(([, ...words], i) => words.forEach((text, column) => say(page.cells[i][column], text)));
}

// --- the widget ------------------------------------------------------------------------------------------------------

class ContributionView extends PointingView {
  get settings() { return SETTINGS; }

  get kept() { return "locked_token"; }

  read() {
    this.state = readState(this.model);
    this.seen = examine(this.state);
  }

  build() {
    return buildPage(this.state);
  }

  draw() {
    const { page, state, seen, looked } = this;
    this.drawCanvas(); // first: it reads the layout, which the lines below make stale
    syncControls(page, state);
    syncTable(page, state, seen);
    page.letters.forEach((letter, t) => letter.classList.toggle("moe-looked", t === looked));
    say(page.status, describe(state, seen, looked));
  }

  drawCanvas() {
    const { page, state, seen } = this;
    const width = page.stage.clientWidth;
    if (!width) return; // not on the page yet: the ResizeObserver will call
    this.geo = geometry(width, seen.T, state.axis);
    drawAll(sizedContext(page.canvas, width, this.geo.height), this.geo, state, seen, this.looked, this.theme);
  }

  wire() {
    const { page, model } = this;
    return [
      ...onSlide(model, page.layer, (value) => ({ layer: value - 1 })),
      ...onChoice(model, page.orders, (order) => ({ order })),
      ...this.listenMouse(page.strip, tokenOf),
      ...this.listenMouse(page.stage, (event) => this.tokenUnder(event)),
      ...this.listenKeys(page.stage, (key) => this.next(key), () => this.cursor),
      ...this.listenEscape(),
    ];
  }

  /** Where the keyboard stands: the token it came to last, at first that of the first column. */
  get cursor() {
    return this.reached ?? this.seen.columns[0];
  }

  next(key) {
    const column = moved(this.seen.places[this.cursor], key, this.seen.T);
    if (column === null) return null;
    this.reached = this.seen.columns[column];
    return this.reached;
  }

  tokenUnder(event) {
    const column = this.geo ? columnAt(this.geo, event.clientX - this.page.canvas.getBoundingClientRect().left) : null;
    return column === null ? null : this.seen.columns[column];
  }
}

export default widgetOf(ContributionView);
