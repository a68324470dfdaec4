// Segmentation: experts cut into pieces, and pieces that are always on, while a token pays the same. Costs and losses come
// from Python; this module counts the routes and draws.
//
// Letters: m pieces of each of GShard's 2 experts, N routed experts, K active ones, Ks shared ones.

import { fitted, inkOn, sizedContext } from "../kit/canvas.js";
import { keepKeys, on, onChoice, onSlide } from "../kit/events.js";
import {
  buildHeader, buildStatus, make, makeCanvas, makeChoice, makeSlider, say, syncChoice, syncSlider,
} from "../kit/page.js";
import { sum } from "../kit/routing.js";
import { LessonView, widgetOf } from "../kit/views_old.js";
import { capital, count, grouped, threeDigits } from "../kit/words.js";

// --- arithmetic: the twin of the functions in segmentation_view.py ---------------------------------------------------

const TOP_K = 2; // of GShard, whose experts are cut

/** The most shared pieces, up to the wish, that leave one active piece to be routed. */
export function allowed(wish, segments, choices) {
  return Math.max(...choices.filter((one) => one <= wish && one < TOP_K * segments));
}

/** In how many ways a router can choose K of N experts: a BigInt, exact. */
export function routes({ num_experts: N, top_k: K }) {
  let ways = 1n;
  for (let i = 1n; i <= BigInt(K); i++) ways = (ways * (BigInt(N) - BigInt(K) + i)) / i;
  return ways;
}

const GOLDEN = (Math.sqrt(5) - 1) / 2;

/** Experts that stand for the choice of some token: one of each of K equal stretches, no model's choice. */
export function example({ num_experts: N, top_k: K }) {
  const room = Math.floor(N / K);
  return Array.from({ length: K }, (_, i) => Math.floor((i * N) / K) + Math.floor((((i + 1) * GOLDEN) % 1) * room));
}

// --- state: what is shown, read from what Python sent ----------------------------------------------------------------

const SETTINGS = ["world", "segments", "num_shared"];
const DATA = ["title", "origin", "worlds", "segment_choices", "shared_choices", "parts"];

/** The traits of the model as one plain object, with the world and the setting that they lead to. */
export function readState(model) {
  const state = Object.fromEntries([...DATA, ...SETTINGS].map((name) => [name, model.get(name)]));
  const shared = allowed(state.num_shared, state.segments, state.shared_choices);
  const here = state.worlds[state.world];
  return { ...state, shared, here, setting: settingAt(here, state.segments, shared) };
}

function settingAt({ settings }, segments, shared) {
  return settings.find((one) => one.segments === segments && one.num_shared === shared);
}

function pays({ costs }) {
  return sum(Object.values(costs));
}

// --- words: the twins of those in segmentation_view.py ---------------------------------------------------------------

const UNITS = ["million", "billion", "trillion", "quadrillion", "quintillion"];
const MEASURES = { loss: "test loss", hybridity: "hybridity" };
const HYBRIDITY_UNIT = "skills that an expert serves";

/** How many times one BigInt is another, in words: a whole number below a million, else three digits. */
export function times(more, fewer) {
  const whole = (2n * more + fewer) / (2n * fewer);
  const step = [2n, 3n, 4n, 5n, 6n].filter((power) => whole >= 1000n ** power).length;
  if (!step) return more % fewer === 0n ? grouped(whole) : `about ${grouped(whole)}`;
  return `about ${threeDigits(Number(whole) / 1000 ** (step + 1))} ${UNITS[step - 1]}`;
}

function routesTitle({ setting }) {
  return `C(${setting.num_experts}, ${setting.top_k}) = ${grouped(routes(setting))} routes`;
}

/** The routes beside those of the uncut experts, and what sharing has cost of them. */
function compared({ here, setting, segments, shared }) {
  const [words, mine] = [[], routes(setting)];
  if (shared) words.push(`${times(routes(settingAt(here, segments, 0)), mine)} times fewer than with nothing shared`);
  const uncut = routes(settingAt(here, 1, 0));
  if (segments > 1) words.push(`${times(mine, uncut)} times the ${grouped(uncut)} of uncut experts`);
  return words;
}

function expertsTitle({ setting: { num_experts, top_k, num_shared, expert_width } }) {
  return `experts: ${num_experts} routed (${top_k} active), ${num_shared} shared, `
    + `${count(expert_width, "unit")} each`;
}

function routerTitle({ setting }) {
  return `router: ${count(setting.num_experts, "column")}, at the scale of the experts`;
}

function paysTitle({ setting }) {
  return `a token pays ${grouped(pays(setting))} parameters`;
}

function budgetWords({ here, setting }) {
  const over = pays(setting) - here.pays;
  if (!over) return "exactly the budget";
  return `${Math.abs((100 * over) / here.pays).toFixed(1)}% ${over > 0 ? "over" : "under"} the budget of ${grouped(here.pays)}`;
}

/** The mean with its interval, or that there is none. */
function reading({ here, setting }, measure) {
  if (!setting[measure]) return "not measured";
  const [mean, low, high] = setting[measure].slice(0, 3).map((value) => value.toFixed(here.axes[measure].digits));
  return `${mean} [${low}, ${high}]`;
}

function unitOf({ here }, measure) {
  return measure === "loss" ? here.unit : HYBRIDITY_UNIT;
}

function chartTitle(state, measure) {
  return `${MEASURES[measure]}, ${unitOf(state, measure)}: ${reading(state, measure)}`;
}

function measuredWords(state, measure) {
  const value = state.setting[measure];
  if (!value) return `${MEASURES[measure]} not measured`;
  return `${MEASURES[measure]} ${reading(state, measure)} ${unitOf(state, measure)}, 95% interval over `
    + `${count(value[3], "seed")}`;
}

function refused({ shared, num_shared, segments }) {
  return `Ks is ${shared}, not ${num_shared}: of ${TOP_K * segments} active pieces at least one must be routed.`;
}

/** What the widget shows, in words. */
export function describe(state) {
  const { world, origin, segments, shared, num_shared, setting, here } = state;
  const always = setting.num_shared ? `and ${setting.num_shared} shared, always on` : "none shared";
  const spent = Object.entries(setting.costs).filter(([, cost]) => cost)
    .map(([part, cost]) => `${part} ${grouped(cost)} (${((100 * cost) / pays(setting)).toFixed(0)}%)`).join(", ");
  const words = [
    `${capital(world)}, ${origin}, m = ${segments}, Ks = ${shared}: ${setting.num_experts} routed experts of `
      + `${count(setting.expert_width, "hidden unit")}, ${setting.top_k} active for each token, ${always}.`,
    `${[routesTitle(state), ...compared(state)].join("; ")}.`,
    `${capital(paysTitle(state))}, ${budgetWords(state)}: ${spent}.`,
    ...Object.keys(here.axes).map((measure) => `${capital(measuredWords(state, measure))}.`)];
  return [...words, ...(shared === num_shared ? [] : [refused(state)])].join(" ");
}

function segmentWords({ segments }) {
  return segments === 1 ? "m = 1: experts as GShard has them" : `m = ${segments}: each expert cut in ${segments}`;
}

function sharedWords({ shared, num_shared, segments }) {
  const active = TOP_K * segments;
  if (shared !== num_shared) return `Ks = ${shared}, not ${num_shared}: 1 of ${active} must be routed`;
  return shared ? `Ks = ${shared} of ${active} active, always on` : "Ks = 0: nothing shared";
}

// --- geometry: the layer, and the charts -----------------------------------------------------------------------------

const LINE = 20;     // pixels of a line of text
const BOX = 24;      // pixels of an expert's height
const BETWEEN = 8;   // pixels between the places of uncut experts
const CHARTS = 364;  // pixels of all charts together
const LEFT = 56;     // pixels for the numbers of an axis
const BELOW = 40;    // pixels for Ks and m under a chart

/**
 * The layer at a width in CSS pixels: { router, places, pieces, height }, boxes of one height, so that widths compare
 * parameters. An expert stands where the uncut one stood; shared pieces come first.
 */
export function layerGeometry(width, { here, setting, segments }) {
  const columns = Math.ceil(Math.sqrt(here.experts));
  const room = (width - (columns - 1) * BETWEEN) / columns;
  const mostRouter = Math.max(...here.settings.map((one) => one.num_experts)) / 3; // a unit has 3D parameters, a column D
  const scale = Math.min(room / here.room, width / mostRouter);
  const chosen = new Set(example(setting).map((n) => setting.num_shared + n));
  const [places, pieces] = [[], []];
  for (let expert = 0; expert < here.experts; expert++) {
    const left = (expert % columns) * (room + BETWEEN);
    const top = 2 * LINE + BOX + 6 + Math.floor(expert / columns) * (BOX + BETWEEN);
    places.push({ left, top, width: here.room * scale });
    for (let piece = 0; piece < segments; piece++) {
      const n = expert * segments + piece;
      const kind = n < setting.num_shared ? "shared" : chosen.has(n) ? "active" : "routed";
      pieces.push({ left: left + piece * setting.expert_width * scale, top, width: setting.expert_width * scale, kind });
    }
  }
  const router = { left: 0, top: LINE, width: (setting.num_experts / 3) * scale };
  return { router, places, pieces, height: places[places.length - 1].top + BOX + 2 };
}

/** The charts at a width: for each a box, and xOf, where the setting (m, Ks) stands. */
export function chartGeometry(width, { here, segment_choices }) {
  const measures = Object.keys(here.axes);
  const slots = here.settings.map((one) => [one.segments, one.num_shared]);
  const cell = (width - LEFT) / (slots.length + 0.7 * (segment_choices.length - 1));
  const xOf = (segments, shared) => LEFT + cell * (0.5 + 0.7 * segment_choices.indexOf(segments)
    + slots.findIndex(([m, Ks]) => m === segments && Ks === shared));
  return measures.map((measure, i) => {
    const top = (i * CHARTS) / measures.length + LINE + 8;
    return { measure, top, bottom: ((i + 1) * CHARTS) / measures.length - BELOW - 4, left: LEFT, right: width, cell, xOf };
  });
}

// --- drawing ---------------------------------------------------------------------------------------------------------

function text(ctx, theme, words, x, y, { align = "left", bold = false } = {}) {
  Object.assign(ctx, { font: bold ? `bold ${theme.font}` : theme.font, fillStyle: theme.ink, textAlign: align,
    textBaseline: "middle" });
  ctx.fillText(words, x, y);
}

/** Router and experts, each with a line that says how many. */
function drawLayer(ctx, geo, state, theme, width) {
  const { router, places, pieces } = geo;
  text(ctx, theme, fitted(ctx, routerTitle(state), width), 0, LINE / 2);
  ctx.fillStyle = state.parts.router;
  ctx.fillRect(router.left, router.top, router.width, BOX);
  text(ctx, theme, fitted(ctx, expertsTitle(state), width), 0, LINE + BOX + 4 + LINE / 2);
  Object.assign(ctx, { strokeStyle: theme.faint, lineWidth: 1 });
  for (const place of places) ctx.strokeRect(place.left + 0.5, place.top + 0.5, place.width - 1, BOX - 1);
  for (const piece of pieces) drawPiece(ctx, piece, state.parts, theme);
}

/** A faint box; one that is always on is hatched, and whatever is active has an outline. */
function drawPiece(ctx, { left, top, width, kind }, colours, theme) {
  const inner = Math.max(1, width - 1.5); // what is left shows where it was cut
  ctx.globalAlpha = kind === "routed" ? 0.3 : 1;
  ctx.fillStyle = kind === "shared" ? colours.shared : colours.routed;
  ctx.fillRect(left, top, inner, BOX);
  ctx.globalAlpha = 1;
  if (kind === "shared") hatch(ctx, left, top, inner, BOX);
  if (kind === "routed") return;
  Object.assign(ctx, { strokeStyle: theme.ink, lineWidth: 2 });
  ctx.strokeRect(left + 1, top + 1, Math.max(0.5, inner - 2), BOX - 2);
}

function hatch(ctx, x, y, w, h) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(x, y, w, h);
  ctx.clip();
  Object.assign(ctx, { strokeStyle: "#000000", lineWidth: 1.2 });
  ctx.beginPath();
  for (let at = -h; at < w; at += 6) {
    ctx.moveTo(x + at, y + h);
    ctx.lineTo(x + at + h, y);
  }
  ctx.stroke();
  ctx.restore();
}

/** One measurement: every setting has its place, those that were measured a mean and an interval in it. */
function drawChart(ctx, geo, state, theme) {
  const { measure, top, bottom, left, right, xOf } = geo;
  const { ticks } = state.here.axes[measure];
  const [low, high] = [ticks[0][0], ticks[ticks.length - 1][0]];
  const yOf = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
  text(ctx, theme, fitted(ctx, chartTitle(state, measure), right), 0, top - 8 - LINE / 2, { bold: true });
  for (const [tick, label] of ticks) {
    ctx.fillStyle = theme.faint;
    ctx.fillRect(left, Math.round(yOf(tick)), right - left, tick === low ? 1 : 0.5);
    text(ctx, theme, label, left - 8, yOf(tick), { align: "right" });
  }
  drawPlaces(ctx, geo, state, theme);
  for (const one of state.here.settings) {
    if (one[measure]) drawMean(ctx, xOf(one.segments, one.num_shared), one[measure].map(yOf), one, state.parts, theme);
  }
  drawFrame(ctx, geo, state, theme);
}

/** Ks and m under the places of the settings. */
function drawPlaces(ctx, { bottom, left, xOf }, { here, segment_choices, shared, segments }, theme) {
  text(ctx, theme, "Ks", left - 8, bottom + 13, { align: "right" });
  for (const one of here.settings) {
    const bold = one.segments === segments && one.num_shared === shared;
    text(ctx, theme, one.num_shared, xOf(one.segments, one.num_shared), bottom + 13, { align: "center", bold });
  }
  text(ctx, theme, "m", left - 8, bottom + 31, { align: "right" });
  for (const m of segment_choices) {
    const group = here.settings.filter((one) => one.segments === m).map((one) => xOf(m, one.num_shared));
    text(ctx, theme, m, sum(group) / group.length, bottom + 31, { align: "center", bold: m === segments });
    ctx.fillStyle = theme.ink;
    ctx.fillRect(group[0] - 8, bottom + 21, group[group.length - 1] - group[0] + 16, 1);
  }
}

/** A dot at the mean, a square with shared pieces, and a line for the interval. */
function drawMean(ctx, x, [mean, low, high], { num_shared }, colours, theme) {
  ctx.fillStyle = theme.ink;
  ctx.fillRect(x - 1, high, 2, low - high);
  Object.assign(ctx, { strokeStyle: theme.ink, lineWidth: 1.5, fillStyle: colours[num_shared ? "shared" : "routed"] });
  ctx.beginPath();
  if (num_shared) ctx.rect(x - 5, mean - 5, 10, 10);
  else ctx.arc(x, mean, 5.5, 0, 2 * Math.PI);
  ctx.fill();
  ctx.stroke();
}

/** Around the place of what is shown; dashed, and said in words, where nothing was measured. */
function drawFrame(ctx, { measure, top, bottom, cell, xOf }, { setting, segments, shared }, theme) {
  const x = xOf(segments, shared);
  const half = Math.min(14, cell / 2);
  Object.assign(ctx, { strokeStyle: theme.ink, lineWidth: 2 });
  ctx.setLineDash(setting[measure] ? [] : [5, 3]);
  ctx.strokeRect(x - half, top - 5, 2 * half, bottom - top + 8);
  ctx.setLineDash([]);
  if (setting[measure]) return;
  ctx.save();
  ctx.translate(x, (top + bottom) / 2);
  ctx.rotate(-Math.PI / 2);
  text(ctx, theme, "not measured", 0, 0, { align: "center" });
  ctx.restore();
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `draw` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-cut") };
  keepKeys(page.root);
  const figure = make("div", "moe-cut-figure");
  figure.append(buildLayer(page, state), buildCharts(page));
  page.root.append(buildHeader(page, state.title), buildControls(page, state), figure, buildStatus(page));
  say(page.badge, state.origin);
  return page;
}

function buildControls(page, state) {
  const grid = make("div", "moe-cut-controls moe-stacked");
  page.segments = makeSlider("m, pieces of each expert", 0, state.segment_choices.length - 1);
  page.shared = makeSlider("Ks, shared pieces", 0, state.shared_choices.length - 1);
  const choice = makeChoice("world", Object.keys(state.worlds).map((name) => [name, name]));
  page.worlds = choice.radios;
  grid.append(page.segments.box, page.shared.box, choice.box);
  return grid;
}

function buildLayer(page, state) {
  const box = make("div", "moe-cut-layer");
  page.routes = make("b", "moe-cut-routes");
  page.compared = make("div", "moe-cut-compared");
  page.stage = make("div");
  page.layer = makeCanvas(); // the summary says the same
  page.stage.append(page.layer);
  box.append(page.routes, page.compared, page.stage, buildKey(state), buildBar(page, state));
  return box;
}

function buildKey({ parts }) {
  const key = make("div", "moe-key moe-cut-key");
  for (const [kind, words] of [["router", "router"], ["routed", "routed, not chosen"], ["active", "active for an example token"],
    ["shared", "shared, always active"], ["blank", "given up for the router"]]) {
    const [item, swatch] = [make("span", "moe-key"), make("span", `moe-cut-swatch moe-cut-${kind}`)];
    if (kind !== "blank") swatch.style.backgroundColor = parts[kind === "active" ? "routed" : kind];
    item.append(swatch, words);
    key.append(item);
  }
  return key;
}

/** What a token pays, part by part, inside the outline of the budget. */
function buildBar(page, { parts }) {
  const box = make("div");
  box.setAttribute("aria-hidden", "true"); // the summary says the same
  const [head, stack] = [make("div", "moe-ledger-head"), make("div", "moe-ledger-stack")];
  page.pays = make("b");
  page.budget = make("span");
  head.append(page.pays, page.budget);
  page.parts = Object.fromEntries(Object.entries(parts).map(([part, colour]) => {
    const node = make("div", `moe-ledger-part moe-cut-${part}`);
    Object.assign(node.style, { backgroundColor: colour, color: inkOn(colour) });
    return [part, node];
  }));
  page.outline = make("div", "moe-ledger-outline");
  stack.append(...Object.values(page.parts), page.outline);
  const row = make("div", "moe-ledger-ticks");
  page.ticks = [0, 1, 2].map(() => make("span"));
  row.append(...page.ticks);
  box.append(head, stack, row);
  return box;
}

function buildCharts(page) {
  const box = make("div", "moe-cut-charts");
  page.room = make("div");
  page.charts = makeCanvas();
  page.room.append(page.charts);
  box.append(page.room, make("div", "moe-caption", "Measured beforehand: means and 95% intervals over seeds; squares: with "
    + "shared pieces. An empty place was not measured. The axes stand still while m and Ks move."));
  return box;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, state) {
  const { segment_choices, shared_choices, segments, num_shared, shared } = state;
  syncSlider(page.segments, segment_choices.indexOf(segments), segment_choices.length - 1, segmentWords(state));
  syncSlider(page.shared, shared_choices.indexOf(num_shared), shared_choices.length - 1, sharedWords(state));
  page.shared.value.classList.toggle("moe-cut-refused", shared !== num_shared);
  syncChoice(page.worlds, state.world);
}

const LETTER = 7.6; // pixels that a letter takes at most on average: a name stands in its part where it fits

function syncBar(page, { here, setting }) {
  const width = page.outline.parentNode.clientWidth;
  for (const [part, node] of Object.entries(page.parts)) {
    const share = setting.costs[part] / here.top;
    node.style.width = `${100 * share}%`;
    say(node, part.length * LETTER < share * width ? part : "");
  }
  page.outline.style.width = `${(100 * here.pays) / here.top}%`;
  [0, 0.5, 1].forEach((share, i) => {
    page.ticks[i].style.left = `${(100 * share * here.pays) / here.top}%`;
    say(page.ticks[i], ["0", grouped(Math.floor(here.pays / 2)), `${grouped(here.pays)} budget`][i]);
  });
}

function syncWords(page, state) {
  say(page.routes, routesTitle(state));
  say(page.compared, capital(compared(state).join("; ") || "as GShard chooses: whole experts"));
  say(page.pays, capital(paysTitle(state)));
  say(page.budget, budgetWords(state));
  say(page.status, describe(state));
}

// --- the widget ------------------------------------------------------------------------------------------------------

class SegmentationView extends LessonView {
  get settings() { return SETTINGS; }

  read() {
    this.state = readState(this.model);
  }

  build() {
    return buildPage(this.state);
  }

  draw() {
    const { page, state } = this;
    this.drawCanvases(); // first: it reads the layout, which the lines below make stale
    syncBar(page, state);
    syncControls(page, state);
    syncWords(page, state);
  }

  drawCanvases() {
    const { page, state } = this;
    const [width, room] = [page.stage.clientWidth, page.room.clientWidth];
    if (!width || !room) return; // not on the page yet: the ResizeObserver will call
    const layer = layerGeometry(width, state);
    drawLayer(sizedContext(page.layer, width, layer.height), layer, state, this.theme, width);
    const ctx = sizedContext(page.charts, room, CHARTS);
    for (const chart of chartGeometry(room, state)) drawChart(ctx, chart, state, this.theme);
  }

  wire() {
    const { page, model } = this;
    const { segment_choices, shared_choices } = this.state;
    return [
      ...onSlide(model, page.segments, (position) => ({ segments: segment_choices[position] })),
      ...onSlide(model, page.shared, (position) => ({ num_shared: shared_choices[position] })),
      ...onChoice(model, page.worlds, (world) => ({ world })),
    ];
  }
}

export default widgetOf(SegmentationView);
