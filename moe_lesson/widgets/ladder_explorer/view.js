// The ladder explorer: language models along training, per step, per FLOP and per second.
//
// Letters: M rungs, S seeds, P followed steps.

import { drawCurve, drawDot, fitted, sizedContext } from "../kit/canvas.js";
import { keepKeys, on, save } from "../kit/events.js";
import {
  buildHeader, buildStatus, headCell, make, makeButton, makeCanvas, makeChoice, makeTable, rowWith, say, syncChoice,
} from "../kit/page.js";
import { sum } from "../kit/routing.js";
import { LessonView, widgetOf } from "../kit/views_old.js";
import { count, DIGITS, rounded } from "../kit/words.js";

const AXES = ["steps", "FLOPs", "seconds"];
const ALIKE = 0.03; // costs that differ by less count as equal

// --- state: what is shown, computed from what Python sent ------------------------------------------------------------

const SETTINGS = ["rung", "beside", "seed", "axis", "domain"];

/** The trainings and the settings as one plain object. */
export function readState(model) {
  const names = ["title", "origin", "unit", "rungs", "seeds", "steps", "domains", "cost_axes", "loss_axes", "quantile",
    ...SETTINGS];
  return Object.fromEntries(names.map((name) => [name, model.get(name)]));
}

/** All that is shown: { pair, places, curves [M][P], test, equal }, the twins of the properties in Python. */
export function examine(state) {
  const pair = [state.rung, state.beside].map((name) => state.rungs.find((rung) => rung.name === name));
  const places = state.seed === null ? state.seeds.map((_, s) => s) : [state.seeds.indexOf(state.seed)];
  const [mine, other] = pair.map((rung) => places.map((s) => rung.test[state.domain][s]));
  const equal = Object.fromEntries(AXES.map((axis) => [axis, atEqualCost(state, pair, places, axis)]));
  return { pair, places, curves: state.rungs.map((rung) => curveOf(state, rung, places)), equal,
    test: [over(mine, state.quantile), over(other, state.quantile), difference(mine, other, state.quantile)] };
}

// --- numbers: the twins of those in ladder_explorer.py ---------------------------------------------------------------

/** The mean over seeds with its interval { mean, low, high, n }; of one seed nothing is known about the others. */
export function over(values, quantile) {
  const n = values.length;
  const mean = sum(values) / n;
  const deviation = Math.sqrt(sum(values.map((value) => (value - mean) ** 2)) / (n - 1));
  const half = n > 1 ? (quantile * deviation) / Math.sqrt(n) : Infinity;
  return { mean, low: mean - half, high: mean + half, n };
}

/** Paired seed by seed. */
function difference(mine, other, quantile) {
  return over(mine.map((value, s) => value - other[s]), quantile);
}

/** The last followed step, 0 … P-1, that costs no more, or as good as no more; null if there is none. */
export function followedBy(rung, axis, steps, cost) {
  const beyond = steps.findIndex((step) => step * rung.per_step[axis] > cost * (1 + ALIKE));
  if (beyond < 0) return steps.length - 1;
  return beyond ? beyond - 1 : null;
}

/** The two rungs when the cheaper has ended: { cost, alike, first, steps, losses, difference }. */
function atEqualCost({ steps, domain, quantile }, pair, places, axis) {
  const ends = pair.map((rung) => steps[steps.length - 1] * rung.per_step[axis]);
  const cost = Math.min(...ends);
  const read = pair.map((rung) => followedBy(rung, axis, steps, cost));
  const losses = pair.map((rung, i) => (read[i] === null ? null : places.map((s) => rung.validation[domain][s][read[i]])));
  return { cost, alike: Math.max(...ends) <= cost * (1 + ALIKE), first: ends[0] <= ends[1],
    steps: read.map((p) => (p === null ? null : steps[p])),
    losses: losses.map((values) => values && over(values, quantile)),
    difference: losses.includes(null) ? null : difference(...losses, quantile) };
}

/** [P] the validation loss, the mean of the seeds that are shown. */
function curveOf({ steps, domain }, rung, places) {
  return steps.map((_, p) => sum(places.map((s) => rung.validation[domain][s][p])) / places.length);
}

// --- words: the twins of those in ladder_explorer.py -----------------------------------------------------------------

function signed(value) {
  const text = rounded(value);
  return text.startsWith("-") || !Number(text) ? text : `+${text}`;
}

/** The interval behind a mean, in brackets that no line break parts; nothing behind that of one seed. */
function bounds({ low, high, n }, words = (value) => rounded(value)) {
  return n > 1 ? ` [${words(low)},\u00a0${words(high)}]` : "";
}

/** What the explorer shows, in words. */
export function describe(state, seen) {
  const seeds = state.seed === null ? `mean of ${count(state.seeds.length, "seed")}` : `seed ${state.seed} alone`;
  return `${state.rung} beside ${state.beside}: ${state.domain}, ${seeds}, ${state.origin}. ${testWords(state, seen)} `
    + equalWords(state, seen);
}

function testWords({ rung, beside, unit }, { test: [mine, other, gap] }) {
  return `Final test loss, ${unit}: ${rung} ${rounded(mine.mean)}${bounds(mine)}, `
    + `${beside} ${rounded(other.mean)}${bounds(other)}; ${verdict(rung, gap)}`;
}

/** The two at the same cost, by the measure of the axis that is shown. */
function equalWords(state, { equal }) {
  const { axis, rung } = state;
  const found = equal[axis];
  const cost = costWords(state, axis, found.cost);
  if (found.alike) {
    const near = axis === "steps" ? "both end at" : `both end, within ${Math.round(100 * ALIKE)}%, at`;
    const [mine, other] = found.losses.map((loss) => rounded(loss.mean));
    return `Validation at the same ${axis}: ${near} ${cost}, ${rung} with ${mine}, ${state.beside} with ${other}; `
      + verdict(rung, found.difference);
  }
  const names = [rung, state.beside];
  const [ended, running] = found.first ? [0, 1] : [1, 0];
  const opening = `Validation at the same ${axis}: ${names[ended]} ends at ${cost} with `
    + `${rounded(found.losses[ended].mean)}; ${names[running]}`;
  if (found.steps[running] === null) return `${opening} was not followed that early: nothing to compare.`;
  return `${opening} then had ${rounded(found.losses[running].mean)}, read at step ${found.steps[running]}, the last one `
    + `followed by then; ${verdict(rung, found.difference)}`;
}

/** Which of the two is lower, and whether the seeds can tell. */
function verdict(name, gap) {
  const size = rounded(Math.abs(gap.mean));
  const lower = Number(size) ? `${size} ${gap.mean > 0 ? "higher" : "lower"}` : `the same to ${10 ** -DIGITS}`;
  if (gap.n === 1) return `${name} is ${lower}; one seed has no interval.`;
  const says = gap.low > 0 || gap.high < 0 ? "excludes 0" : "includes 0, so these seeds do not tell them apart";
  return `paired by seed, ${name} is ${lower}:${bounds(gap, signed)} ${says}.`;
}

function costWords({ cost_axes }, axis, cost) {
  return `${rounded(cost, cost_axes[axis].digits)}\u00a0${cost_axes[axis].unit}`;
}

/** What is measured, of the highlighted rung, of the one beside it, and their difference; the last rows are by AXES. */
export function tableRows(state, { test: [mine, other, gap], equal }) {
  const last = state.steps[state.steps.length - 1];
  const rows = [["final test loss", ...[mine, other].map((one) => rounded(one.mean) + bounds(one)), gapCell(gap)]];
  for (const [axis, found] of Object.entries(equal)) {
    const cells = found.losses.map((loss, i) => lossCell(loss, found.steps[i], last));
    rows.push([`validation at ${costWords(state, axis, found.cost)}`, ...cells, gapCell(found.difference)]);
  }
  return rows;
}

function lossCell(loss, step, last) {
  if (!loss) return "not followed";
  return rounded(loss.mean) + (step === last ? "" : ` (step\u00a0${step})`);
}

function gapCell(gap) {
  return gap ? signed(gap.mean) + bounds(gap, signed) : "–";
}

export function heading({ domain, unit, seed, seeds }) {
  const several = seeds.length > 1 ? "mean of the seeds thick, each seed thin" : `seed ${seeds[0]}`;
  return `validation loss, ${domain}, ${unit}; ${seed === null ? several : `seed ${seed}`}`;
}

// --- geometry --------------------------------------------------------------------------------------------------------

const LEFT = 48;    // pixels for the scale
const LINE = 18;    // pixels of a line of text
const CURVES = 350;
const FLAT = 215;   // pixels of the curves where they are wide, since the table then stands below
const WIDE = 640;
const NUMBERS = 20; // pixels for the numbers under the axis
const AWAY = 20;    // pixels from the end of a curve to its name
const NEAR = 16;    // pixels between ends whose names share a column

/** The measures for a width in CSS pixels, with room for the longest name at the right, and the heading's lines. */
export function geometry(width, longest, lines = 1) {
  const top = lines * LINE + 10;
  const right = Math.max(LEFT + 60, width - longest - AWAY - 4);
  const bottom = top + (width < WIDE ? CURVES : FLAT);
  return { width, left: LEFT, right, top, bottom, height: bottom + NUMBERS + LINE + 4 };
}

/**
 * Where names stand that belong to the ends [x, y] of curves: beside its end, moved apart from the names nearby. The twin of
 * `label_places` in ladder_explorer.py.
 */
export function labelPlaces(ends, widest, near, gap, top, bottom) {
  const places = [];
  for (const group of runsWithin(ends, ends.map((_, m) => m), (before, first, here) => here - before <= widest)) {
    const columns = runsWithin(ends, group, (before, first, here) => here - first <= near);
    for (const column of columns) column.sort((a, b) => ends[a][1] - ends[b][1] || a - b);
    const heights = spread(columns.flat().map((m) => ends[m][1]), gap, top, bottom);
    for (const column of columns) {
      const x = Math.max(...column.map((m) => ends[m][0]));
      for (const m of column) places[m] = [x, heights.shift()];
    }
  }
  return places;
}

/** The members from left to right, cut where x no longer belongs to those before. */
function runsWithin(ends, members, belongs) {
  const runs = [];
  for (const m of [...members].sort((a, b) => ends[a][0] - ends[b][0] || a - b)) {
    const run = runs[runs.length - 1];
    if (run && belongs(ends[run[run.length - 1]][0], ends[run[0]][0], ends[m][0])) run.push(m);
    else runs.push([m]);
  }
  return runs;
}

/** Heights, moved as little as makes them rise by `gap` or more each, and into the limits as far as there is room. */
export function spread(heights, gap, top, bottom) {
  const blocks = []; // [mean, how many] of those that must move together, each less its place in the row
  heights.forEach((height, i) => {
    blocks.push([height - i * gap, 1]);
    while (blocks.length > 1 && blocks[blocks.length - 2][0] > blocks[blocks.length - 1][0]) {
      const [mean, n] = blocks.pop();
      const [before, m] = blocks.pop();
      blocks.push([(before * m + mean * n) / (m + n), m + n]);
    }
  });
  const last = bottom - (heights.length - 1) * gap;
  const bases = blocks.flatMap(([mean, n]) => new Array(n).fill(mean));
  return bases.map((base, i) => Math.max(top, Math.min(base, last)) + i * gap);
}

/** The name under a point, or null. */
export function nameAt(labels, x, y) {
  const found = labels.find((label) => Math.abs(y - label.y) <= LINE / 2 && x >= label.x - 4 && x <= label.x + label.width + 4);
  return found ? found.name : null;
}

// --- drawing ---------------------------------------------------------------------------------------------------------

/** The whole picture; returns where each name stands: [{ name, x, y, width }]. */
function drawLadder(canvas, width, state, seen, theme) {
  const ruler = canvas.getContext("2d");
  ruler.font = `bold ${theme.font}`;
  const longest = Math.max(...state.rungs.map(({ name }) => ruler.measureText(name).width));
  const lines = wrapped(ruler, heading(state), width);
  const geo = geometry(width, longest, lines.length);
  const ctx = sizedContext(canvas, width, geo.height);
  const [costs, losses] = [state.cost_axes[state.axis], state.loss_axes[state.domain]];
  const placeOf = (rung, step) => geo.left + ((step * rung.per_step[state.axis]) / costs.high) * (geo.right - geo.left);
  const heightOf = (loss) => geo.bottom - ((loss - losses.low) / (losses.high - losses.low)) * (geo.bottom - geo.top);
  drawAxes(ctx, geo, lines, costs, losses, heightOf, theme);
  drawCurves(ctx, geo, state, seen, { placeOf, heightOf }, theme);
  drawReadOff(ctx, geo, state, seen, { placeOf, heightOf }, theme);
  return drawNames(ctx, geo, state, seen, { placeOf, heightOf }, longest, theme);
}

/** The words on as many lines as they need. */
function wrapped(ctx, text, width) {
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
    if (lines.length && ctx.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.map((line) => fitted(ctx, line, width));
}

/** What is measured, and the numbers of both axes. */
function drawAxes(ctx, geo, lines, costs, losses, heightOf, theme) {
  ctx.font = `bold ${theme.font}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillStyle = theme.ink;
  lines.forEach((line, i) => ctx.fillText(line, 0, (i + 0.5) * LINE));
  ctx.font = theme.font;
  ctx.textAlign = "right";
  for (const [tick, label] of losses.ticks) {
    ctx.fillStyle = theme.faint;
    ctx.fillRect(geo.left, Math.round(heightOf(tick)), geo.right - geo.left, 0.5);
    ctx.fillStyle = theme.ink;
    ctx.fillText(label, geo.left - 6, heightOf(tick));
  }
  ctx.fillRect(geo.left, geo.bottom, geo.right - geo.left, 1);
  ctx.textAlign = "center";
  for (const [tick, label] of costs.ticks) {
    const x = geo.left + (tick / costs.high) * (geo.right - geo.left);
    ctx.fillRect(x - 0.5, geo.bottom, 1, 4);
    ctx.fillText(label, x, geo.bottom + 4 + NUMBERS / 2);
  }
  ctx.textAlign = "left";
  ctx.fillText(fitted(ctx, costs.title, geo.width - geo.left), geo.left, geo.bottom + NUMBERS + LINE / 2 + 3);
}

/** How a rung looks: the highlighted and the one beside it in colour. */
function looksOf({ rung, beside }, name, theme) {
  if (name === rung) return { colour: theme.bar, width: 4 };
  return name === beside ? { colour: theme.accent, width: 3 } : { colour: theme.ink, width: 1 };
}

/** All curves: the two thick, with their seeds; on top the others in thin grey, or a thick one would hide its near rivals. */
function drawCurves(ctx, geo, state, seen, { placeOf, heightOf }, theme) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(geo.left, geo.top, geo.right - geo.left + 3, geo.bottom - geo.top);
  ctx.clip();
  const draw = (rung, losses) => drawCurve(ctx, losses.map((loss, p) => [placeOf(rung, state.steps[p]), heightOf(loss)]));
  const drawMean = (rung) => {
    const { colour, width } = looksOf(state, rung.name, theme);
    Object.assign(ctx, { strokeStyle: colour, lineWidth: width });
    draw(rung, seen.curves[state.rungs.indexOf(rung)]);
  };
  for (const rung of [...seen.pair].reverse()) {
    drawMean(rung);
    ctx.lineWidth = 1;
    for (const s of seen.places) draw(rung, rung.validation[state.domain][s]);
  }
  ctx.globalAlpha = 0.5;
  state.rungs.filter((rung) => !seen.pair.includes(rung)).forEach(drawMean);
  ctx.restore();
}

/** A dashed line where the cheaper of the two ends, and a dot where each of them is read. */
function drawReadOff(ctx, geo, state, { pair, equal }, { placeOf, heightOf }, theme) {
  const { cost, steps, losses } = equal[state.axis];
  const x = geo.left + (cost / state.cost_axes[state.axis].high) * (geo.right - geo.left);
  Object.assign(ctx, { strokeStyle: theme.ink, lineWidth: 1 });
  ctx.setLineDash([5, 3]);
  drawCurve(ctx, [[x, geo.top], [x, geo.bottom]]);
  ctx.setLineDash([]);
  pair.forEach((rung, i) => {
    if (!losses[i] || heightOf(losses[i].mean) < geo.top) return;
    drawDot(ctx, placeOf(rung, steps[i]), heightOf(losses[i].mean), 5, looksOf(state, rung.name, theme).colour);
    ctx.stroke();
  });
}

/** Every rung's name at the end of its curve, moved apart where they would overlap. */
function drawNames(ctx, geo, state, { curves }, { placeOf, heightOf }, longest, theme) {
  const last = state.steps.length - 1;
  const ends = state.rungs.map((rung, m) => [placeOf(rung, state.steps[last]), heightOf(curves[m][last])]);
  const places = labelPlaces(ends, longest + AWAY + 4, NEAR, LINE, geo.top + LINE / 2, geo.bottom - LINE / 2);
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  return state.rungs.map(({ name }, m) => {
    const { colour, width } = looksOf(state, name, theme);
    const [x, y] = [places[m][0] + AWAY, places[m][1]];
    Object.assign(ctx, { strokeStyle: colour, lineWidth: width > 1 ? 2 : 1, globalAlpha: width > 1 ? 1 : 0.5 });
    ctx.setLineDash([2, 2]); // or it would look like a curve that turns upwards
    drawCurve(ctx, [[ends[m][0] + 2, ends[m][1]], [x - 3, y]]);
    ctx.setLineDash([]);
    ctx.globalAlpha = 1;
    ctx.font = (width > 1 ? "bold " : "") + theme.font;
    Object.assign(ctx, { strokeStyle: theme.paper, lineWidth: 4, fillStyle: theme.ink });
    ctx.strokeText(name, x, y);
    ctx.fillText(name, x, y);
    return { name, x, y, width: ctx.measureText(name).width };
  });
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `draw` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-ladder"), choices: {}, selects: {} };
  keepKeys(page.root);
  const figure = make("div", "moe-ladder-figure");
  figure.append(buildStage(page), buildSide(page, state));
  page.root.append(buildHeader(page, state.title), buildPair(page, state), buildControls(page, state), figure,
    buildStatus(page));
  say(page.badge, state.origin);
  return page;
}

function buildPair(page, state) {
  const row = make("div", "moe-row");
  page.swap = makeButton("Swap");
  const names = state.rungs.map(({ name }) => name);
  for (const [name, words, which] of [["rung", "highlight", "mine"], ["beside", "beside", "other"]]) {
    const { box, select } = makeSelect(words, names);
    box.prepend(make("span", `moe-ladder-swatch moe-ladder-${which}`));
    page.selects[name] = select;
    row.append(box);
  }
  row.append(page.swap);
  return row;
}

/** A list to choose from with its name: { box, select }. */
function makeSelect(name, values) {
  const [box, select] = [make("label", "moe-control"), make("select", "moe-ladder-select")];
  select.append(...values.map((value) => Object.assign(make("option", "", value), { value })));
  select.setAttribute("aria-label", name); // of the label's words alone, not of all that can be chosen
  box.append(make("span", "", name), select);
  return { box, select };
}

function buildControls(page, state) {
  const row = make("div", "moe-row");
  const options = {
    axis: ["over", AXES.map((axis) => [axis, axis])],
    seed: ["seed", [["", "all"], ...state.seeds.map((seed) => [String(seed), String(seed)])]],
  };
  for (const [name, [words, values]] of Object.entries(options)) {
    const choice = makeChoice(words, values);
    page.choices[name] = choice.radios;
    row.append(choice.box);
  }
  const domain = makeSelect("domain", state.domains);
  page.selects.domain = domain.select;
  row.append(domain.box);
  return row;
}

function buildStage(page) {
  page.stage = make("div", "moe-ladder-curves");
  page.canvas = makeCanvas(); // the controls, the table and the summary do and say the same
  page.stage.append(page.canvas);
  return page.stage;
}

/** The numbers of the two rungs, and how they were come by. */
function buildSide(page, state) {
  const side = make("div", "moe-ladder-side");
  page.names = ["mine", "other"].map((which) => {
    const cell = headCell("col", "");
    cell.classList.add(`moe-ladder-${which}`);
    return cell;
  });
  page.rows = ["test", ...AXES].map(() => {
    const cells = [headCell("row", ""), ...[0, 1, 2].map(() => make("td"))];
    return { row: rowWith(cells), cells };
  });
  const table = makeTable([headCell("col", "loss"), ...page.names, headCell("col", "difference")],
    page.rows.map(({ row }) => row));
  side.append(table, make("div", "moe-caption", NOTE));
  return side;
}

const NOTE = "[ ]: 95% interval over seeds. Dashed: where the cheaper of the two ends; the other is read off at its last followed "
  + "step by then (costs within 3% count as equal). Its learning rate was still high there: a training planned that short "
  + "would end lower. A training step costs 3 × the forward FLOPs of its tokens, and the median time, all timed side by side.";

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, state) {
  for (const [name, radios] of Object.entries(page.choices)) syncChoice(radios, String(state[name] ?? ""));
  for (const [name, select] of Object.entries(page.selects)) select.value = state[name];
  for (const option of page.selects.rung.options) option.disabled = option.value === state.beside; // arrow keys step over it
  for (const option of page.selects.beside.options) option.disabled = option.value === state.rung;
}

function syncWords(page, state, seen) {
  [state.rung, state.beside].forEach((name, i) => say(page.names[i], name));
  tableRows(state, seen).forEach((words, i) => {
    words.forEach((text, column) => say(page.rows[i].cells[column], text));
    page.rows[i].row.classList.toggle("moe-ladder-shown", i === 1 + AXES.indexOf(state.axis));
  });
  say(page.status, describe(state, seen));
}

// --- the widget ------------------------------------------------------------------------------------------------------

class LadderExplorerView extends LessonView {
  get settings() { return SETTINGS; }

  prepare() {
    this.labels = []; // the names on the canvas, which can be clicked
  }

  read() {
    this.state = readState(this.model);
    this.seen = null;
  }

  build() {
    return buildPage(this.state);
  }

  draw() {
    const { page, state } = this;
    this.seen = this.seen || examine(state);
    this.drawCanvas(); // first: it reads the layout, which the lines below make stale
    syncControls(page, state);
    syncWords(page, state, this.seen);
  }

  drawCanvas() {
    const { page, state, seen } = this;
    const width = page.stage.clientWidth;
    if (width) this.labels = drawLadder(page.canvas, width, state, seen, this.theme); // else the ResizeObserver will call
  }

  /** Highlight a rung; the one beside it changes places. */
  highlight(rung) {
    const { beside } = this.state;
    save(this.model, rung === beside ? { rung, beside: this.state.rung } : { rung });
  }

  choose(name, value) {
    save(this.model, { [name]: name === "seed" ? (value === "" ? null : Number(value)) : value });
  }

  /** The rung whose name is under the mouse, or null. */
  nameUnder(event) {
    const { left, top } = this.page.canvas.getBoundingClientRect();
    return nameAt(this.labels, event.clientX - left, event.clientY - top);
  }

  pick(event) {
    const name = this.nameUnder(event);
    if (name !== null) this.highlight(name);
  }

  wire() {
    const { page } = this;
    return [
      ...Object.entries(page.choices).flatMap(([name, radios]) => (
        radios.map((radio) => on(radio, "change", () => this.choose(name, radio.value))))),
      ...Object.entries(page.selects).map(([name, select]) => on(select, "change", () => this.choose(name, select.value))),
      on(page.swap, "click", () => this.highlight(this.state.beside)),
      on(page.canvas, "click", (event) => this.pick(event)),
      on(page.canvas, "pointermove", (event) => {
        page.canvas.style.cursor = this.nameUnder(event) === null ? "" : "pointer";
      }),
    ];
  }
}

export default widgetOf(LadderExplorerView);
