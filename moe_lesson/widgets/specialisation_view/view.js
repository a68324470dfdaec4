// The specialisation view: how many experts look like specialists of a domain in a sample, beside shuffled labels.
// Every number was computed in Python before the page opened; this module picks, counts and draws. common.js stands above
// this line. Letters: C routers, S sample sizes, L layers, N experts of a layer, E of all layers, M domains.

import { drawCurve, drawDot, drawNumbers, fitted, outline, sizedContext } from "../kit/canvas.js";
import { keepKeys, moved, onChoice, onSlide, placeWithin } from "../kit/events.js";
import {
  buildHeader, buildStatus, headCell, make, makeCanvas, makeChoice, makeSlider, makeStage, makeTable, rowWith, say,
  syncChoice, syncSlider,
} from "../kit/page.js";
import { numbers, ranked, sum } from "../kit/routing.js";
import { PointingView, widgetOf } from "../kit/views_old.js";
import { count, rounded } from "../kit/words.js";

// --- state: what is shown, read from what Python sent ----------------------------------------------------------------

const SETTINGS = ["sample", "router", "layer", "null", "order", "locked_expert"];
const DATA = ["title", "name", "origin", "seed", "draws", "routers", "domains", "samples", "sizes"];
export const NULLS = { "tokens shuffled": "domains shuffled among the tokens",
  "documents shuffled": "domains dealt out to whole documents" };
export const ORDERS = ["by number", "strongest first"];
const SPECIALIST = 1.5; // a lift to call an expert a specialist
const SLACK = 1e-9;     // lifts are ratios of small numbers, and often exactly 1.5: rounding must not decide

/** The traits of the model as one plain object. */
export function readState(model) {
  const state = Object.fromEntries([...DATA, ...SETTINGS].map((name) => [name, model.get(name)]));
  return { ...state, calls: numbers(model.get("calls"), Int32Array),
    ...Object.fromEntries(["lifts", "bands", "shuffled"].map((name) => [name, numbers(model.get(name), Float64Array)])) };
}

/** The present layer of a router in a sample, beside the present null; twin of `Sample` in Python. */
export function sampleOf(state, router, sample) {
  const { sizes, layer, domains: { length: M }, samples: { length: S }, routers: { length: C } } = state;
  const [E, N] = [sum(sizes), sizes[layer]];
  const [c, s] = [state.routers.indexOf(router), state.samples.indexOf(sample)];
  const group = (Object.keys(NULLS).indexOf(state.null) * C + c) * S + s; // which [E, 2] of the bands
  const rows = (values, first, width) => Array.from({ length: N }, (_, n) => values.subarray((first + n) * width,
    (first + n + 1) * width));
  const before = sum(sizes.slice(0, layer));
  const [calls, lifts] = [state.calls, state.lifts].map((values) => rows(values, (c * S + s) * E + before, M));
  const bands = rows(state.bands, group * E + before, 2);
  const [nullCount, nullMean] = state.shuffled.subarray((group * sizes.length + layer) * 2);
  const strongest = lifts.map((row) => Math.max(...row));
  const called = calls.map((row) => sum(row) > 0);
  return { N, calls, lifts, bands, nullCount, nullMean, strongest, called,
    prefers: lifts.map((row, n) => row.indexOf(strongest[n])),
    above: strongest.map((lift, n) => lift > bands[n][0] + SLACK),
    count: strongest.filter((lift) => lift >= SPECIALIST - SLACK).length,
    mean: sum(strongest) / called.filter(Boolean).length }; // without a call a lift is 0
}

/** All that is shown: the sample, who stands in which column, each router in this sample, each sample of this router. */
export function examine(state) {
  const one = sampleOf(state, state.router, state.sample);
  const columns = state.order === ORDERS[0] ? one.strongest.map((_, n) => n) : ranked(one.strongest);
  const places = new Int32Array(one.N);
  columns.forEach((expert, column) => { places[expert] = column; });
  return { one, columns, places, routers: state.routers.map((router) => sampleOf(state, router, state.sample)),
    curve: state.samples.map((sample) => sampleOf(state, state.router, sample)) };
}

// --- words: the twins of those in specialisation_view.py -------------------------------------------------------------

export const COLUMNS = ["router", "lift ≥ 1.5", "shuffled", "above null", "mean lift", "shuffled"];

/** Where the shown routing comes from. */
export function badge({ origin, name, router, routers }) {
  return router === routers[0] ? `${origin}: ${name}` : `null: ${router}`;
}

/** The three numbers to compare: a large one and its words. */
export function counts(state, { one }) {
  const chance = (0.05 * one.called.filter(Boolean).length).toFixed(0);
  return [[`${one.count} of ${one.N}`, `experts prefer a domain: lift 1.5 or more in ${state.sample} tokens`],
    [`${one.nullCount.toFixed(0)} of ${one.N}`, `do so by chance: ${NULLS[state.null]}`],
    [`${one.above.filter(Boolean).length} of ${one.N}`, `stand above their own null; by chance about ${chance} would`]];
}

export function tableTitle({ layer, sample, null: none }) {
  return `Layer ${layer + 1}, ${sample} tokens, ${none}`;
}

/** Of each router: experts with a lift of 1.5, in the sample and shuffled; those above their null; mean strongest lifts. */
export function tableRows(state, { routers }) {
  return routers.map((one, c) => [state.routers[c], String(one.count), one.nullCount.toFixed(0),
    String(one.above.filter(Boolean).length), rounded(one.mean, 2), rounded(one.nullMean, 2)]);
}

/** What the view shows, in words; expert is the one looked at, or null. */
export function describe(state, seen, expert) {
  const parts = [headWords(state, seen), meanWords(state, seen)];
  if (expert !== null) parts.push(expertWords(state, seen, expert));
  return parts.join(" ");
}

function headWords(state, seen) {
  const { layer, sizes, sample, domains, draws, name, router, routers } = state;
  const [[first, says], [second, shuffled], [third, above]] = counts(state, seen);
  const silent = seen.one.called.filter((called) => !called).length;
  const beside = router === routers[0] ? "" : `, beside ${name}`;
  return `${badge(state)}${beside}, layer ${layer + 1} of ${sizes.length}: ${first} ${says}, ${Math.floor(sample / domains.length)} of `
    + `each domain. ${second} ${shuffled} (median of ${draws} draws). ${third} ${above}.`
    + (silent ? ` Without a call: ${silent}.` : "");
}

/** The mean strongest lift, here and in the largest sample. */
function meanWords({ samples }, { one, curve }) {
  const most = curve[curve.length - 1];
  return `Mean strongest lift: ${rounded(one.mean, 2)}, shuffled ${rounded(one.nullMean, 2)}; in ${samples[samples.length - 1]} `
    + `tokens ${rounded(most.mean, 2)}, shuffled ${rounded(most.nullMean, 2)}.`;
}

function expertWords({ domains }, { one }, expert) {
  const calls = one.calls[expert];
  const total = sum(calls);
  if (!total) return `Expert ${expert} of this layer has no call in this sample.`;
  const shares = domains.map((domain, d) => `${domain} ${((100 * calls[d]) / total).toFixed(0)}%`).join(", ");
  const [top, middle] = one.bands[expert];
  return `Expert ${expert} of this layer, ${count(total, "call")}: ${shares}. It prefers ${domains[one.prefers[expert]]}, lift `
    + `${rounded(one.strongest[expert], 2)}. Its null: median ${rounded(middle, 2)}, 95% up to ${rounded(top, 2)}: it stands `
    + `${one.above[expert] ? "above" : "within"}.`;
}

// --- geometry --------------------------------------------------------------------------------------------------------

const LEFT = 86;   // pixels for the names of the ticks
const RIGHT = 8;
const TOP = 34;    // pixels for the title
const PLOT = 250;  // pixels of the axis of lifts, in both pictures
const NUMBERS = 24;
const HEIGHT = TOP + PLOT + 10 + NUMBERS;

/** The measures of the experts' picture for a width in CSS pixels. */
export function geometry(width, N) {
  return { width, N, left: LEFT, cell: Math.max(1, width - LEFT - RIGHT) / N };
}

/** The column under a point, or null beside the columns. */
export function columnAt(geo, x) {
  return placeWithin(x - geo.left, geo.cell, geo.N);
}

/** The height of a lift from 1 to M: the same step up for every doubling. */
export function heightOf(lift, M) {
  return TOP + PLOT * (1 - Math.log(lift) / Math.log(M));
}

export function ticksOf(M) {
  const between = [1.5, 2, 3, 4, 6].filter((lift) => lift < M).map((lift) => [lift, String(lift)]);
  return [[1, "1 all alike"], ...between, [M, `${M} only one`]];
}

// --- drawing ---------------------------------------------------------------------------------------------------------

// A hue and a shape for each domain: corners, the turn of the first one, size, and for a star how deep it is cut.
export const HUES = ["#2b86cf", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#9a6324"];
const UP = -Math.PI / 2;
const SHAPES = [[24, 0, 1], [4, Math.PI / 4, 1.2], [3, UP, 1.35], [4, 0, 1.25], [3, -UP, 1.35], [5, UP, 1.15], [6, 0, 1.15],
  [10, UP, 1.5, 0.45]];
const NULL_LINE = [5, 4];
const TITLE = "each expert's strongest lift";

/** The mark of a domain, filled or hollow. */
function drawMark(ctx, x, y, radius, d, paper, filled = true) {
  const [corners, turn, size, cut] = SHAPES[d];
  ctx.beginPath();
  for (let i = 0; i < corners; i++) {
    const [angle, r] = [turn + (2 * Math.PI * i) / corners, radius * size * (cut && i % 2 ? cut : 1)];
    ctx.lineTo(x + r * Math.cos(angle), y + r * Math.sin(angle));
  }
  ctx.closePath();
  ctx.fillStyle = filled ? HUES[d] : paper;
  ctx.fill();
  ctx.strokeStyle = HUES[d];
  ctx.lineWidth = 2;
  ctx.stroke();
}

/** The title, the axis of lifts with its numbers and the line from where on an expert counts as a specialist. */
function drawAxis(ctx, { width, left }, M, title, theme) {
  ctx.font = `bold ${theme.font}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillStyle = theme.ink;
  ctx.fillText(fitted(ctx, title, width - 2), 0, 10);
  ctx.font = theme.font;
  ctx.textAlign = "right";
  for (const [lift, words] of ticksOf(M)) {
    const y = Math.round(heightOf(lift, M));
    ctx.fillStyle = lift === SPECIALIST || lift === 1 ? theme.ink : theme.faint;
    if (lift === SPECIALIST) for (let x = left; x < width - RIGHT; x += 10) ctx.fillRect(x, y, 6, 1);
    else ctx.fillRect(left - 4, y, width - left - RIGHT + 4, 1);
    ctx.fillStyle = theme.ink;
    ctx.fillText(left === LEFT ? words : String(lift), left - 8, y);
  }
}

/** One mark for each expert over the band of its null; `expert` is the one looked at, or null. */
function drawExperts(ctx, geo, { domains: { length: M } }, { one, columns, places }, expert, theme) {
  drawAxis(ctx, geo, M, geo.width > 640 ? `${TITLE}: its calls by one domain / by the mean domain` : TITLE, theme);
  const [radius, bar] = [Math.min(Math.max(geo.cell * 0.45, 2.5), 5.5), Math.max(1, geo.cell * 0.8)];
  const xOf = (column) => geo.left + (column + 0.5) * geo.cell;
  columns.forEach((n, column) => {
    if (!one.called[n]) return;
    const [top, middle] = Array.from(one.bands[n], (lift) => heightOf(lift, M));
    ctx.globalAlpha = 0.22;
    ctx.fillStyle = theme.ink;
    ctx.fillRect(xOf(column) - bar / 2, top, bar, heightOf(1, M) - top);
    ctx.globalAlpha = 1;
    ctx.fillRect(xOf(column) - bar / 2, Math.round(middle) - 1, bar, 2);
  });
  const looked = expert === null ? [] : [places[expert]];
  for (const column of looked) outline(ctx, xOf(column) - geo.cell / 2 - 2, TOP - 8, geo.cell + 4, PLOT + 18);
  drawNumbers(ctx, geo, TOP + PLOT + 20, looked, theme, (column) => columns[column]);
  columns.forEach((n, column) => {
    if (one.called[n]) drawMark(ctx, xOf(column), heightOf(one.strongest[n], M), radius, one.prefers[n], theme.paper, one.above[n]);
  });
}

/** Their mean by sample size: what shrinks with the null, and what is left. */
function drawMeans(ctx, width, { domains: { length: M }, samples, sample }, { curve }, theme) {
  const left = 42;
  const xOf = (s) => left + ((width - left - 22) * s) / Math.max(1, samples.length - 1);
  drawAxis(ctx, { width, left: left - 10 }, M, "their mean, by tokens in the sample", theme);
  const now = xOf(samples.indexOf(sample));
  ctx.fillStyle = theme.accent;
  ctx.fillRect(Math.round(now) - 1, TOP, 2, PLOT + 8);
  const [means, nulls] = ["mean", "nullMean"].map((part) => curve.map((one, s) => [xOf(s), heightOf(one[part], M)]));
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 2;
  drawCurve(ctx, means);
  ctx.setLineDash(NULL_LINE);
  drawCurve(ctx, nulls);
  ctx.setLineDash([]);
  for (const [x, y] of means) drawDot(ctx, x, y, 4, theme.ink);
  for (const [x, y] of nulls.map((point) => point.map(Math.round))) {
    for (const [colour, half] of [[theme.ink, 5], [theme.paper, 3]]) {
      ctx.fillStyle = colour;
      ctx.fillRect(x - half, y - half, 2 * half, 2 * half);
    }
  }
  const [last, early] = [means[means.length - 1], nulls[Math.min(3, nulls.length - 1)]];
  ctx.fillStyle = theme.ink;
  ctx.textAlign = "right";
  ctx.fillText("sample", last[0] - 8, last[1] - 15);
  ctx.fillText("shuffled", early[0] - 5, early[1] + 16);
  ctx.textAlign = "center";
  for (let s = 0; s < samples.length; s += 2) ctx.fillText(short(samples[s]), xOf(s), TOP + PLOT + 20);
}

/** 1024 is 1k. */
export function short(tokens) {
  return tokens < 1000 ? String(tokens) : `${(tokens / 1024).toFixed(0)}k`;
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `draw` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-special") };
  keepKeys(page.root);
  const figure = make("div", "moe-special-figure");
  const means = make("div", "moe-special-means");
  Object.assign(page, makeStage("experts and their strongest lifts: arrow keys move, Enter keeps an expert, Escape lets go"));
  page.means = makeCanvas();
  means.append(page.means);
  figure.append(page.stage, means);
  const foot = make("div", "moe-special-foot");
  foot.append(buildTable(page, state), buildStatus(page)); // the words may grow, the table must not move
  page.root.append(buildHeader(page, state.title), buildControls(page, state), buildCounts(page), buildLegend(state), figure, foot);
  return page;
}

function buildControls(page, { samples, sizes, routers }) {
  const row = make("div", "moe-row");
  page.sample = makeSlider("sample size", 0, samples.length - 1);
  page.layer = makeSlider("layer", 1, sizes.length);
  page.layer.box.hidden = sizes.length === 1;
  const choices = { router: routers, null: Object.keys(NULLS), order: ORDERS };
  row.append(page.sample.box, page.layer.box);
  for (const [name, options] of Object.entries(choices)) {
    const { box, radios } = makeChoice(name, options.map((one) => [one, one]));
    page[name] = radios;
    row.append(box);
  }
  return row;
}

/** The three numbers to compare. */
function buildCounts(page) {
  const box = make("div", "moe-special-counts");
  page.counts = [0, 1, 2].map(() => {
    const [one, number, words] = [make("div"), make("strong"), make("span")];
    one.append(number, words);
    box.append(one);
    return [number, words];
  });
  return box;
}

/** What the marks mean. */
function buildLegend({ domains, draws }) {
  const legend = make("div", "moe-legend");
  const entry = (words, d) => {
    const [box, mark, canvas] = [make("span"), make("span", "moe-special-mark"), makeCanvas()];
    drawMark(sizedContext(canvas, 20, 16), 10, 8, 5.5, d);
    mark.append(canvas);
    box.append(mark, words);
    return box;
  };
  legend.append(make("span", "", "prefers"), ...domains.map((domain, d) => entry(domain, d)), make("span", "",
    `filled: above its null · hollow: within · grey: null up to 95% of ${draws} draws, tick: median`));
  return legend;
}

function buildTable(page, state) {
  const box = make("div");
  page.caption = make("div", "moe-caption");
  page.rows = state.routers.map((router) => {
    const cells = COLUMNS.slice(1).map(() => make("td"));
    return { cells, row: rowWith([headCell("row", router), ...cells]) };
  });
  box.append(page.caption, makeTable(COLUMNS.map((title) => headCell("col", title)), page.rows.map(({ row }) => row)));
  return box;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, state) {
  const { samples, sample, layer, sizes, router, routers } = state;
  say(page.badge, badge(state));
  page.badge.classList.toggle("moe-null", router !== routers[0]);
  syncSlider(page.sample, samples.indexOf(sample), samples.length - 1, `${sample} tokens`);
  syncSlider(page.layer, layer + 1, sizes.length, `layer ${layer + 1} of ${sizes.length}`);
  for (const name of ["router", "null", "order"]) syncChoice(page[name], state[name]);
}

function syncNumbers(page, state, seen) {
  counts(state, seen).forEach((texts, i) => texts.forEach((text, part) => say(page.counts[i][part], text)));
  say(page.caption, tableTitle(state));
  tableRows(state, seen).forEach(([router, ...words], c) => {
    page.rows[c].row.classList.toggle("moe-special-shown", router === state.router);
    words.forEach((text, i) => say(page.rows[c].cells[i], text));
  });
}

// --- the widget ------------------------------------------------------------------------------------------------------

class SpecialisationView extends PointingView {
  get settings() { return SETTINGS; }

  get kept() { return "locked_expert"; }

  read() {
    const before = this.state;
    this.state = readState(this.model);
    if (before && (before.layer !== this.state.layer || before.router !== this.state.router)) this.point = this.reached = null;
    this.seen = examine(this.state);
  }

  build() {
    return buildPage(this.state);
  }

  draw() {
    const { page, state, seen, looked } = this;
    this.drawCanvas(); // first: it reads the layout, which the lines below make stale
    syncControls(page, state);
    syncNumbers(page, state, seen);
    say(page.status, describe(state, seen, looked));
  }

  drawCanvas() {
    const { page, state, seen, theme } = this;
    const [width, side] = [page.stage, page.means.parentNode].map((node) => node.clientWidth);
    if (!width) return; // not on the page yet: the ResizeObserver will call
    this.geo = geometry(width, seen.one.N);
    drawExperts(sizedContext(page.canvas, width, HEIGHT), this.geo, state, seen, this.looked, theme);
    drawMeans(sizedContext(page.means, side, HEIGHT), side, state, seen, theme);
  }

  wire() {
    const { page, model } = this;
    return [
      ...onSlide(model, page.sample, (value) => ({ sample: this.state.samples[value] })),
      ...onSlide(model, page.layer, (value) => ({ layer: value - 1, locked_expert: null })), // its number means another now
      ...onChoice(model, page.router, (router) => ({ router, locked_expert: null })),
      ...onChoice(model, page.null, (none) => ({ null: none })),
      ...onChoice(model, page.order, (order) => ({ order })),
      ...this.listenMouse(page.stage, (event) => this.expertUnder(event)),
      ...this.listenKeys(page.stage, (key) => this.next(key), () => this.cursor),
      ...this.listenEscape(),
    ];
  }

  /** Where the keyboard stands: the expert it came to last, at first that of the first column. */
  get cursor() {
    return this.reached ?? this.seen.columns[0];
  }

  next(key) {
    const column = moved(this.seen.places[this.cursor], key, this.seen.one.N);
    if (column === null) return null;
    this.reached = this.seen.columns[column];
    return this.reached;
  }

  expertUnder(event) {
    const column = this.geo ? columnAt(this.geo, event.clientX - this.page.canvas.getBoundingClientRect().left) : null;
    return column === null ? null : this.seen.columns[column];
  }
}

export default widgetOf(SpecialisationView);
