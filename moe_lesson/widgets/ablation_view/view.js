// The ablation view: specialists taken away, beside as many other experts.
//
// Python computed every state; here it is looked up and drawn. Letters: S seeds, D domains.

import { fitted, sizedContext } from "../kit/canvas.js";
import { keepKeys, onChoice, onSlide, taken } from "../kit/events.js";
import {
  buildHeader, buildStatus, headCell, make, makeCanvas, makeChoice, makeSlider, makeTable, rowWith, say, syncChoice,
  syncSlider,
} from "../kit/page.js";
import { numbers } from "../kit/routing.js";
import { LessonView, widgetOf } from "../kit/views_old.js";

const SETTINGS = ["rung", "domain", "share"];
const KINDS = ["specialists", "same load"];

// --- state -----------------------------------------------------------------------------------------------------------

/** What Python sent and the settings as one plain object. */
export function readState(model) {
  const names = ["title", "origin", "rungs", "domains", "shares", "states", "axes", "columns", "note", ...SETTINGS];
  return Object.fromEntries(names.map((name) => [name, model.get(name)]));
}

/** What is shown: { panels, rows, verdict, aim, taken, summary }, see `state_of` in Python. */
export function examine({ states, rung, domain, share, shares }) {
  return states[rung][domain][shares.indexOf(share)];
}

// --- geometry --------------------------------------------------------------------------------------------------------

const WIDE = 760;   // pixels from which the two panels stand side by side
const NAMES = 168;  // pixels for the names of domain and row
const KIND = 84;    // of these for the name of the row
const GAP = 26;     // between the panels
const TITLE = 24;
const ROW = 20;     // pixels of one row; two make a domain's group
const GROUP = 48;
const TICKS = 24;

/** The panels for a width in CSS pixels and D domains: { width, height, rise, calls }, each { left, right, top, bottom, names }. */
export function geometry(width, D) {
  const high = D * GROUP + TITLE + TICKS;
  const panel = (left, right, top, names) => ({ left, right, top: top + TITLE, bottom: top + TITLE + D * GROUP, names });
  const end = width - 14; // half a number stands out at the right
  if (width < WIDE) {
    return { width, height: 2 * high + 6, rise: panel(NAMES, end, 0, true), calls: panel(NAMES, end, high + 6, true) };
  }
  const middle = NAMES + Math.round((end - NAMES - GAP) * 0.6);
  return { width, height: high, rise: panel(NAMES, middle, 0, true), calls: panel(middle + GAP, end, 0, false) };
}

/** Where a value stands in a panel; at its edge if it lies beyond. */
export function placeOf({ left, right }, { low, high }, value) {
  return left + (Math.min(Math.max(value, low), high) - low) / (high - low) * (right - left);
}

/** The middle of a row: of which domain, and of which kind. */
export function rowOf({ top }, d, kind) {
  return top + d * GROUP + (GROUP - 2 * ROW) / 2 + (kind + 0.5) * ROW;
}

// --- drawing ---------------------------------------------------------------------------------------------------------

/** Both panels, the outline of the own domain around them. */
function drawAll(ctx, geo, state, seen, theme) {
  for (const name of ["rise", "calls"]) {
    drawScale(ctx, geo[name], state.axes[name], theme);
    seen.panels[name].forEach((kinds, d) => {
      kinds.forEach((numbers, kind) => drawRow(ctx, geo[name], state.axes[name], numbers, rowOf(geo[name], d, kind), kind, theme));
    });
    if (geo[name].names) drawNames(ctx, geo[name], state, theme);
    drawOutline(ctx, geo, geo[name], state, theme);
  }
}

/** What is measured, its numbers, and the line of the whole model at 0. */
function drawScale(ctx, panel, axis, theme) {
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  ctx.fillStyle = theme.ink;
  ctx.font = `bold ${theme.font}`;
  const from = panel.names ? 0 : panel.left;
  ctx.fillText(fitted(ctx, axis.title, panel.right - from), from, panel.top - TITLE / 2);
  ctx.font = theme.font;
  ctx.textAlign = "center";
  for (const [tick, label] of axis.ticks) {
    const x = placeOf(panel, axis, tick);
    ctx.fillStyle = tick ? theme.faint : theme.ink;
    ctx.fillRect(Math.round(x) - (tick ? 0.5 : 1), panel.top, tick ? 1 : 2, panel.bottom - panel.top);
    ctx.fillStyle = theme.ink;
    ctx.fillText(label, x, panel.bottom + TICKS / 2);
  }
}

/** A band for the interval, a line for the mean, a ring for each seed. */
function drawRow(ctx, panel, axis, [mean, low, high, ...seeds], y, kind, theme) {
  const colour = [theme.bar, theme.accent][kind];
  const [x, from, to] = [mean, low, high].map((value) => placeOf(panel, axis, value));
  ctx.fillStyle = colour;
  ctx.globalAlpha = 0.38;
  ctx.fillRect(from, y - 7, Math.max(to - from, 1), 14);
  ctx.globalAlpha = 1;
  ctx.fillRect(Math.round(x) - 2, y - 9, 5, 18);
  Object.assign(ctx, { strokeStyle: theme.ink, lineWidth: 1.3 });
  seeds.forEach((value, s) => { // equal seeds stay apart
    ctx.beginPath();
    ctx.arc(placeOf(panel, axis, value), y + (s - (seeds.length - 1) / 2) * Math.min(2, 10 / seeds.length), 3.2, 0, 2 * Math.PI);
    ctx.stroke();
  });
}

/** The domain in front of its rows, the kind in front of each. */
function drawNames(ctx, panel, { domains, domain }, theme) {
  ctx.fillStyle = theme.ink;
  domains.forEach((name, d) => {
    ctx.textAlign = "left";
    ctx.font = `${name === domain ? "bold " : ""}${theme.font}`;
    ctx.fillText(fitted(ctx, name, NAMES - KIND - 14), 6, (rowOf(panel, d, 0) + rowOf(panel, d, 1)) / 2);
    ctx.textAlign = "right";
    ctx.font = theme.font;
    KINDS.forEach((kind, row) => ctx.fillText(kind, panel.left - 8, rowOf(panel, d, row)));
  });
}

/** A frame around the domain whose specialists are gone. */
function drawOutline(ctx, geo, panel, { domains, domain }, theme) {
  const left = panel.names ? 1 : panel.left - 6;
  Object.assign(ctx, { strokeStyle: theme.ink, lineWidth: 2 });
  ctx.strokeRect(left, panel.top + domains.indexOf(domain) * GROUP + 1, panel.right + 8 - left, GROUP - 2);
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `draw` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-ablation"), stage: make("div"), canvas: makeCanvas() };
  keepKeys(page.root);
  page.stage.append(page.canvas); // the table and the summary say the same
  [page.verdict, page.aim] = [make("div", "moe-ablation-verdict"), make("div", "moe-ablation-verdict")];
  const foot = make("div", "moe-ablation-foot");
  foot.append(buildTable(page, state), buildStatus(page));
  page.root.append(buildHeader(page, state.title), buildControls(page, state), page.verdict, page.aim, page.stage, foot);
  say(page.badge, state.origin);
  return page;
}

function buildControls(page, state) {
  const row = make("div", "moe-row");
  const [rung, domain] = [["model", state.rungs], ["specialists of", state.domains]].map(
    ([words, names]) => makeChoice(words, names.map((name) => [name, name])));
  page.choices = { rung: rung.radios, domain: domain.radios };
  page.share = makeSlider("share of the experts", 0, state.shares.length - 1);
  page.share.box.hidden = state.shares.length === 1;
  row.append(rung.box, domain.box, page.share.box);
  return row;
}

function buildTable(page, state) {
  const box = make("div");
  page.own = headCell("col", "");
  const heads = state.columns.map((words) => headCell("col", words));
  KINDS.forEach((_, kind) => heads[kind].classList.add(`moe-ablation-${kind}`));
  page.cells = examine(state).rows.map((words) => words.map((_, i) => (i ? make("td") : headCell("row", ""))));
  box.append(makeTable([page.own, ...heads], page.cells.map(rowWith)), make("div", "moe-caption", state.note));
  return box;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, state, { taken }) {
  for (const [name, radios] of Object.entries(page.choices)) syncChoice(radios, state[name]);
  syncSlider(page.share, state.shares.indexOf(state.share), state.shares.length - 1, taken);
}

function syncWords(page, state, seen) {
  say(page.verdict, seen.verdict);
  say(page.aim, seen.aim);
  say(page.own, state.domain);
  seen.rows.forEach((words, i) => words.forEach((text, column) => say(page.cells[i][column], text)));
  say(page.status, seen.summary);
}

// --- the widget ------------------------------------------------------------------------------------------------------

class AblationView extends LessonView {
  get settings() { return SETTINGS; }

  read() {
    this.state = readState(this.model);
    this.seen = examine(this.state);
  }

  build() {
    return buildPage(this.state);
  }

  draw() {
    const { page, state, seen } = this;
    this.drawCanvas(); // first: it reads the layout, which the lines below make stale
    syncControls(page, state, seen);
    syncWords(page, state, seen);
  }

  drawCanvas() {
    const { page, state, seen } = this;
    const width = page.stage.clientWidth;
    if (!width) return; // not on the page yet: the ResizeObserver will call
    const geo = geometry(width, state.domains.length);
    drawAll(sizedContext(page.canvas, width, geo.height), geo, state, seen, this.theme);
  }

  wire() {
    const { page, model, state: { shares } } = this;
    return [
      ...Object.entries(page.choices).flatMap(([name, radios]) => onChoice(model, radios, (value) => ({ [name]: value }))),
      ...onSlide(model, page.share, (place) => ({ share: shares[place] })),
    ];
  }
}

export default widgetOf(AblationView);
