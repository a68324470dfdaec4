// The balancing race: trainings that differ only in how they balance, side by side.
//
// Letters: M methods, S seeds, P recorded steps, L layers, N experts.

import { drawCurve, drawDot, drawNumbers, fitted, sizedContext } from "../kit/canvas.js";
import { change, keepKeys, on, onChoice, onSlide, onTick, save } from "../kit/events.js";
import {
  buildHeader, buildStatus, make, makeButton, makeCanvas, makeChoice, makeSlider, makeTick, say, syncChoice, syncSlider,
} from "../kit/page.js";
import { floats, numbers, ranked, sum } from "../kit/routing.js";
import { LessonView, widgetOf } from "../kit/views_old.js";
import { count } from "../kit/words.js";

// --- what happened: the twins of the functions in balancing_race.py --------------------------------------------------

export const SMOOTHED = 2; // recorded steps on either side that a loss is averaged with

/** MaxVio = (max load - mean load) / mean load; 0 is perfect balance (arXiv 2408.15664). */
export function maxViolation(load) {
  const mean = sum(load) / load.length;
  return (load.reduce((a, b) => Math.max(a, b)) - mean) / mean;
}

/** Each value averaged with its neighbours, as far as there are any. */
export function smoothed(values) {
  return Array.from(values, (_, p) => {
    const near = values.slice(Math.max(0, p - SMOOTHED), p + SMOOTHED + 1);
    return sum(near) / near.length;
  });
}

// --- state: what is shown, computed from what Python sent ------------------------------------------------------------

const SETTINGS = ["step", "layer", "seed", "method", "by_load"];

/** What never changes: the trainings, and the axes that hold all of them. */
export function readRuns(model) {
  const names = ["title", "origin", "methods", "seeds", "steps", "num_layers", "num_experts", "load_ticks",
    "violation_ticks", "loss_ticks"];
  const runs = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  return { ...runs, loads: floats(model.get("loads")), losses: floats(model.get("losses")) };
}

/** The trainings and the settings as one plain object. */
export function readState(model, runs = readRuns(model)) {
  return { ...runs, ...Object.fromEntries(SETTINGS.map((name) => [name, model.get(name)])) };
}

/** Where the methods stand: { position, mean, loads [M][N] at the step, violations [M][P], losses [M][P] averaged }. */
export function examine(state) {
  const { methods, seeds, steps, num_layers: L, num_experts: N, layer } = state;
  const position = steps.indexOf(state.step);
  const standing = { position, loads: [], violations: [], losses: [] };
  for (let m = 0; m < methods.length; m++) {
    const run = (m * seeds.length + seeds.indexOf(state.seed)) * steps.length; // its first recorded step
    const loads = steps.map((_, p) => state.loads.subarray(((run + p) * L + layer) * N, ((run + p) * L + layer + 1) * N));
    standing.loads.push(loads[position]);
    standing.violations.push(loads.map(maxViolation));
    standing.losses.push(smoothed(state.losses.subarray(run, run + steps.length)));
  }
  return { ...standing, mean: sum(standing.loads[0]) / N };
}

/** Which expert stands in each column, from left to right: by number, or the largest load first. */
export function columnsOf({ by_load }, load) {
  return by_load ? ranked(load) : Array.from(load, (_, n) => n);
}

/** Where Play goes from a position: one step on, or in a few jumps where motion is to be reduced. */
export function nextPosition(position, P, calm) {
  return Math.min(position + (calm ? Math.ceil((P - 1) / CALM_JUMPS) : 1), P - 1);
}

// --- the summary: the twin of `summary` in balancing_race.py ---------------------------------------------------------

/** What the race shows, in words. */
export function describe(state, standing) {
  const mine = state.methods.indexOf(state.method);
  const parts = [`Step ${state.step}, layer ${state.layer + 1} of ${state.num_layers}, seed ${state.seed}, ${state.origin}.`,
    methodWords(state, standing, mine)];
  if (state.methods.length > 1) parts.push(rivalWords(state, standing, mine));
  return parts.join(" ");
}

function methodWords(state, { position, mean, loads, violations, losses }, mine) {
  const before = position ? ` (${violations[mine][0].toFixed(2)} at step ${state.steps[0]})` : "";
  return `${state.method}: MaxVio ${violations[mine][position].toFixed(2)}${before}, ${idleOf(loads[mine]).length} of `
    + `${count(state.num_experts, "expert")} idle, the busiest chosen by ${count(Math.max(...loads[mine]), "token")} where the `
    + `mean is ${mean.toFixed(1)}, training loss ${losses[mine][position].toFixed(2)}.`;
}

/** The most even method beside the emphasised one; where that is the most even itself, the least even. */
function rivalWords({ methods }, { position, violations, losses }, mine) {
  const now = violations.map((one) => one[position]);
  const [least, most] = [Math.min(...now), Math.max(...now)];
  if (least === most) return "All methods are equally even at this step.";
  const leads = now[mine] === least;
  const other = now.indexOf(leads ? most : least);
  const what = leads ? "No method is more even at this step; the least even is" : "The most even method at this step is";
  return `${what} ${methods[other]} with MaxVio ${now[other].toFixed(2)}; its training loss is `
    + `${gapWords(losses[other][position] - losses[mine][position])}.`;
}

function gapWords(gap) {
  const size = Math.abs(gap).toFixed(2);
  return size === "0.00" ? "the same to 0.01" : `${size} ${gap > 0 ? "higher" : "lower"}`;
}

function idleOf(load) {
  return Array.from(load.keys()).filter((n) => load[n] === 0);
}

// --- geometry: one panel for each method, and two charts over the recorded steps --------------------------------------

const LEFT = 50;       // pixels for the scales
const NARROWEST = 114; // pixels of a panel: half of the longest name
const GAP = 14;        // pixels between panels
const LINE = 18;       // pixels of a line of text
const HEAD = 4 * LINE; // two lines for a name, one for each number
const BARS = 96;
const CURVES = 112;
const NUMBERS = 20;    // pixels for the numbers under an axis
const NAME = 158;      // pixels for the name at the end of a curve
const BETWEEN = 20;    // pixels between the charts
const WIDE = 800;      // pixels from which on the charts stand side by side

/** The measures for a width in CSS pixels: { panels, charts, height }, each with its box and the width of a column. */
export function geometry(width, M, N, P) {
  const rows = Math.ceil(M / Math.max(1, Math.floor((width - LEFT) / NARROWEST)));
  const columns = Math.ceil(M / rows);
  const room = (width - LEFT) / columns;
  const [panelHeight, chartHeight] = [HEAD + BARS + NUMBERS + GAP, LINE + 10 + CURVES + NUMBERS];
  const panels = Array.from({ length: M }, (_, m) => {
    const [left, y] = [LEFT + (m % columns) * room + GAP / 2, 4 + Math.floor(m / columns) * panelHeight];
    const top = y + HEAD + 4;
    return { left, y, width: room - GAP, N, cell: (room - GAP) / N, top, bottom: top + BARS, first: m % columns === 0 };
  });
  const charts = [0, 1].map((i) => {
    const side = width >= WIDE ? (width - BETWEEN) / 2 : width;
    const [x, y] = width >= WIDE ? [i * (side + BETWEEN), 0] : [0, i * chartHeight];
    const top = rows * panelHeight + y + LINE + 10;
    return { x, left: x + LEFT, width: side, N: P, cell: Math.max(1, side - LEFT - NAME) / P, top, bottom: top + CURVES };
  });
  return { panels, charts, height: charts[1].bottom + NUMBERS };
}

/** The method whose panel is under a point, or null. */
export function panelAt({ panels }, x, y) {
  const found = panels.findIndex((box) => x >= box.left && x < box.left + box.width && y >= box.y && y < box.bottom + NUMBERS);
  return found < 0 ? null : found;
}

// --- drawing ---------------------------------------------------------------------------------------------------------

/** The whole picture. */
function drawRace(ctx, geo, state, standing, theme) {
  geo.panels.forEach((box, m) => drawPanel(ctx, box, state, standing, m, theme));
  const { left, y, width, bottom } = geo.panels[state.methods.indexOf(state.method)];
  Object.assign(ctx, { strokeStyle: theme.ink, lineWidth: 2 });
  ctx.strokeRect(left - 5, y - 2, width + 10, bottom + NUMBERS - y + 3);
  const charts = [["MaxVio along training", standing.violations, state.violation_ticks],
    [`training loss, nats (mean of ${2 * SMOOTHED + 1} recorded steps)`, standing.losses, state.loss_ticks]];
  charts.forEach((chart, i) => drawChart(ctx, geo.charts[i], chart, state, standing.position, theme));
}

/** One method: its name and numbers, a bar for each expert's load, a line at the mean, a cross for an idle expert. */
function drawPanel(ctx, box, state, { position, mean, loads, violations, losses }, m, theme) {
  const { left, y, width, cell, bottom } = box;
  const chosen = state.method === state.methods[m] ? "bold " : "";
  ctx.font = chosen + theme.font;
  const words = [...wrapped(ctx, state.methods[m], width), `MaxVio ${violations[m][position].toFixed(2)}`,
    `loss ${losses[m][position].toFixed(2)}`];
  ctx.fillStyle = theme.ink;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  words.forEach((line, i) => {
    ctx.font = (i < 2 ? chosen : "") + theme.font;
    ctx.fillText(line, left, y + (i + 0.5) * LINE);
  });
  const heightOf = drawScale(ctx, box, state.load_ticks, width, theme, box.first);
  const columns = columnsOf(state, loads[m]);
  const gap = cell > 4 ? 1.5 : 0;
  ctx.fillStyle = theme.bar;
  columns.forEach((n, column) => {
    const top = heightOf(loads[m][n]);
    ctx.fillRect(left + column * cell + gap / 2, top, cell - gap, bottom - top);
  });
  ctx.fillStyle = theme.accent;
  ctx.fillRect(left, heightOf(mean) - 0.75, width, 1.5);
  drawCrosses(ctx, box, columns.flatMap((n, column) => (loads[m][n] ? [] : [column])), theme);
  drawNumbers(ctx, box, bottom + NUMBERS / 2, [], theme, (column) => columns[column]);
}

/** The text on two lines, the first one empty where one is enough. */
function wrapped(ctx, text, width) {
  const words = text.split(" ");
  const fits = (end) => ctx.measureText(words.slice(0, end).join(" ")).width <= width;
  if (fits(words.length)) return ["", text];
  const end = Math.max(1, words.findIndex((_, i) => !fits(i + 1)));
  return [words.slice(0, end), words.slice(end)].map((line) => fitted(ctx, line.join(" "), width));
}

/** A cross on the floor of each column of an idle expert, no wider than its column. */
function drawCrosses(ctx, { left, cell, bottom }, columns, theme) {
  const half = Math.min(3.5, cell / 2);
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1.5;
  ctx.beginPath();
  for (const column of columns) {
    const x = left + (column + 0.5) * cell;
    for (const slope of [-1, 1]) {
      ctx.moveTo(x - half, bottom - 5 - slope * half);
      ctx.lineTo(x + half, bottom - 5 + slope * half);
    }
  }
  ctx.stroke();
}

/** A faint line for each tick, its number at the left if asked for; returns value -> y. */
function drawScale(ctx, { left, top, bottom }, ticks, width, theme, numbered) {
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const heightOf = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
  ctx.font = theme.font;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  for (const tick of ticks) {
    ctx.fillStyle = theme.faint;
    ctx.fillRect(left, Math.round(heightOf(tick)), width, tick === low ? 1 : 0.5);
    ctx.fillStyle = theme.ink;
    if (numbered) ctx.fillText(tick, left - 9, heightOf(tick));
  }
  return heightOf;
}

/** All methods over the recorded steps in thin grey, the emphasised one thick with its name, and where we stand. */
function drawChart(ctx, box, [heading, curves, ticks], { methods, method, steps }, position, theme) {
  const { x, left, top, bottom, cell } = box;
  ctx.fillStyle = theme.ink;
  ctx.font = `bold ${theme.font}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillText(fitted(ctx, heading, box.width), x, top - 10 - LINE / 2);
  const heightOf = drawScale(ctx, box, ticks, cell * steps.length, theme, true);
  const placeOf = (p) => left + (p + 0.5) * cell;
  const mine = curves[methods.indexOf(method)];
  const draw = (curve) => drawCurve(ctx, curve.map((value, p) => [placeOf(p), heightOf(value)]));
  Object.assign(ctx, { strokeStyle: theme.bar, lineWidth: 5 });
  draw(mine);
  Object.assign(ctx, { strokeStyle: theme.ink, lineWidth: 1, globalAlpha: 0.5 });
  for (const curve of curves) if (curve !== mine) draw(curve); // on top, or the thick one would hide its near rivals
  ctx.globalAlpha = 1;
  ctx.fillStyle = theme.ink;
  ctx.fillRect(placeOf(position) - 0.5, top, 1, bottom - top);
  drawDot(ctx, placeOf(position), heightOf(mine[position]), 4.5, theme.ink);
  ctx.font = `bold ${theme.font}`;
  ctx.textAlign = "left";
  ctx.fillText(fitted(ctx, method, NAME - 8), left + cell * steps.length + 8, heightOf(mine[steps.length - 1]));
  drawNumbers(ctx, box, bottom + NUMBERS / 2, [position], theme, (p) => steps[p]);
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `sync` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-race") };
  keepKeys(page.root);
  page.root.append(buildHeader(page, state.title), buildStep(page, state), buildControls(page, state),
    buildMethods(page, state), buildStage(page), buildStatus(page));
  say(page.badge, state.origin);
  return page;
}

function buildStep(page, state) {
  const row = make("div", "moe-row");
  page.play = makeButton();
  page.step = makeSlider("Step", 0, state.steps.length - 1);
  page.step.box.classList.add("moe-wide");
  row.append(page.play, page.step.box);
  return row;
}

function buildControls(page, state) {
  const row = make("div", "moe-row");
  page.layer = makeSlider("Layer", 0, state.num_layers - 1);
  page.seed = makeSlider("Seed", 0, state.seeds.length - 1);
  const sort = makeTick("sort by load");
  page.sort = sort.tick;
  row.append(page.layer.box, page.seed.box, sort.box);
  return row;
}

function buildMethods(page, state) {
  const row = make("div", "moe-row");
  const choice = makeChoice("emphasise", state.methods.map((method) => [method, method]));
  page.methods = choice.radios;
  row.append(choice.box);
  return row;
}

function buildStage(page) {
  page.stage = make("div");
  page.canvas = makeCanvas("moe-steps moe-panels"); // the radio buttons and the summary do and say the same
  page.caption = make("div", "moe-caption");
  page.stage.append(page.canvas, page.caption);
  return page.stage;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, state, { position, mean }) {
  const { steps, step, layer, num_layers, seeds, seed, method } = state;
  syncSlider(page.step, position, steps.length - 1, `step ${step} (${steps[0]} … ${steps[steps.length - 1]})`);
  syncSlider(page.layer, layer, num_layers - 1, `layer ${layer + 1} of ${num_layers}`);
  syncSlider(page.seed, seeds.indexOf(seed), seeds.length - 1, `seed ${seed}, one of ${seeds.length}`);
  syncChoice(page.methods, method);
  page.sort.checked = state.by_load;
  say(page.caption, captionWords(state, mean));
}

function captionWords({ by_load }, mean) {
  const order = by_load ? "sorted by load at this step, each method by itself" : "by number";
  return `Bars: tokens of the step's batch that chose each expert, ${order}; the numbers belong to one method's layer alone. `
    + `Orange line: mean load ${mean.toFixed(1)}. ×: idle. Curves: each recorded step takes the same room; `
    + "thick: the emphasised method.";
}

// --- the widget ------------------------------------------------------------------------------------------------------

const PACE = 160;       // milliseconds a step stays while playing
const CALM_PACE = 1200; // where motion is to be reduced: a few jumps, each with time to be read
const CALM_JUMPS = 6;

class BalancingRaceView extends LessonView {
  get settings() { return SETTINGS; }

  prepare() {
    this.timer = 0; // of Play; 0 while it pauses
    this.runs = readRuns(this.model);
  }

  read() {
    this.state = readState(this.model, this.runs);
    this.standing = null;
  }

  build() {
    return buildPage(this.state);
  }

  close() {
    clearInterval(this.timer);
    super.close();
  }

  draw() {
    const { page, state } = this;
    this.standing = this.standing || examine(state);
    this.drawCanvas(); // first: it reads the layout, which the lines below make stale
    syncControls(page, state, this.standing);
    say(page.play, this.timer ? "Pause" : "Play");
    page.status.setAttribute("aria-live", this.timer ? "off" : "polite"); // nobody can listen to all steps of a film
    say(page.status, describe(state, this.standing));
  }

  drawCanvas() {
    const { page, state, standing } = this;
    const width = page.stage.clientWidth;
    if (!width) return; // not on the page yet: the ResizeObserver will call
    this.geo = geometry(width, state.methods.length, state.num_experts, state.steps.length);
    drawRace(sizedContext(page.canvas, width, this.geo.height), this.geo, state, standing, this.theme);
  }

  /** Run through the steps, from the first one if the last is reached. */
  play() {
    const { steps, step } = this.state;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (step === steps[steps.length - 1]) change(this.model, { step: steps[0] });
    this.timer = setInterval(() => this.advance(calm), calm ? CALM_PACE : PACE);
    this.frame.ask();
  }

  advance(calm) {
    const { steps, step } = this.state;
    const position = nextPosition(steps.indexOf(step), steps.length, calm);
    change(this.model, { step: steps[position] });
    if (position === steps.length - 1) this.pause();
  }

  /** Stop playing; Python hears where. */
  pause() {
    if (!this.timer) return;
    clearInterval(this.timer);
    this.timer = 0;
    this.model.save_changes();
    this.frame.ask();
  }

  /** Emphasise the method whose panel was clicked. */
  pick(event) {
    const { left, top } = this.page.canvas.getBoundingClientRect();
    const m = panelAt(this.geo, event.clientX - left, event.clientY - top);
    if (m !== null) save(this.model, { method: this.state.methods[m] });
  }

  reset() {
    this.pause();
    super.reset();
  }

  wire() {
    const { page, model } = this;
    const { steps, seeds } = this.runs;
    return [
      on(page.play, "click", () => (this.timer ? this.pause() : this.play())),
      on(page.step.slider, "input", () => this.pause()), // a hand on the slider: before it moves the step
      ...onSlide(model, page.step, (position) => ({ step: steps[position] })),
      ...onSlide(model, page.layer, (layer) => ({ layer })),
      ...onSlide(model, page.seed, (place) => ({ seed: seeds[place] })),
      ...onChoice(model, page.methods, (method) => ({ method })),
      ...onTick(model, page.sort, "by_load"),
      on(page.canvas, "click", (event) => this.pick(event)),
    ];
  }
}

export default widgetOf(BalancingRaceView);
