// The redundancy lens: which experts are alike, and what merging them costs. Every loss was measured in Python before the
// page opened; this module only reads. Letters: N experts, M merges.

import { drawDot, drawNumbers, fitted, sizedContext } from "../kit/canvas.js";
import { keepKeys, movedOn, on, onChoice, onSlide, placeWithin } from "../kit/events.js";
import {
  buildHeader, buildStatus, fillTicks, headCell, make, makeCanvas, makeChoice, makeScale, makeSlider, makeStage,
  makeTable, rowWith, say, syncChoice, syncSlider,
} from "../kit/page.js";
import { floats } from "../kit/routing.js";
import { PointingView, widgetOf } from "../kit/views_old.js";
import { count, listed, rounded } from "../kit/words.js";

// --- merges: the twins of the functions in redundancy_lens.py --------------------------------------------------------

/** The lowest id of the group that each expert is in after some merges: [N]. */
export function leaders(joins, N, merges) {
  let leader = Array.from({ length: N }, (_, n) => n);
  for (const [first, second] of joins.slice(0, merges)) leader = leader.map((one) => (one === second ? first : one));
  return leader;
}

/** The experts of each group, lowest ids first. */
export function groupsOf(leader) {
  const firsts = leader.filter((one, n) => one === n);
  return firsts.map((first) => leader.flatMap((one, n) => (one === first ? [n] : [])));
}

/** All experts, so that each group of each merge stands together: the second group of a merge follows the first. */
export function treeOrder(joins, N) {
  const members = Array.from({ length: N }, (_, n) => [n]);
  for (const [first, second] of joins) members[first].push(...members[second].splice(0));
  return members.flat();
}

/** The number of merges that make two experts one; null if no recorded merge does. */
export function metAt(joins, N, first, second) {
  for (let merges = 1; merges <= joins.length; merges++) {
    const leader = leaders(joins, N, merges);
    if (leader[first] === leader[second]) return merges;
  }
  return null;
}

/** The edges around the cells of merged experts, as [x, y, x, y] in cells, out of the group of each row's expert. */
export function contours(rowLeaders) {
  const N = rowLeaders.length;
  const sizes = new Int32Array(N);
  for (const one of rowLeaders) sizes[one] += 1;
  const merged = (row, column) => row >= 0 && column >= 0 && row < N && column < N
    && rowLeaders[row] === rowLeaders[column] && sizes[rowLeaders[row]] > 1;
  const [across, down] = [[], []];
  for (let y = 0; y <= N; y++) {
    for (let x = 0; x <= N; x++) {
      if (merged(y, x) !== merged(y, x - 1)) across.push([x, y, x, y + 1]);
      if (merged(y, x) !== merged(y - 1, x)) down.push([x, y, x + 1, y]);
    }
  }
  return [...across, ...down];
}

// --- state: what is shown, read from what Python sent ----------------------------------------------------------------

const SETTINGS = ["kind", "merges", "order", "pair"];
const DATA = ["title", "origin", "unit", "num_experts", "kinds", "control", "axes", "digits", "orders"];

/** The traits of the model as one plain object. */
export function readState(model) {
  const state = Object.fromEntries([...DATA, ...SETTINGS].map((name) => [name, model.get(name)]));
  return { ...state, similarity: floats(model.get("similarity")) };
}

/** The record of the kind that is shown, who is one expert, and who stands where: { now, groups, rows [N], edges }. */
export function examine({ kinds, kind, merges, order, num_experts: N }) {
  const now = kinds.find(({ name }) => name === kind);
  const leader = leaders(now.joins, N, merges);
  const rows = order === "by group" ? treeOrder(now.joins, N) : Array.from({ length: N }, (_, n) => n);
  return { now, groups: groupsOf(leader), rows, edges: contours(rows.map((n) => leader[n])) };
}

function similarityOf({ similarity, num_experts: N }, kind, first, second) {
  return similarity[(kind * N + first) * N + second];
}

// --- words: the twins of those in redundancy_lens.py -----------------------------------------------------------------

const NONE = "–";
export const COLUMNS = ["merged by", "similarity", "loss", "change"];

function signed(value, digits) {
  const text = rounded(value, digits);
  return text.startsWith("-") ? text : `+${text}`;
}

/** What stands beside the slider. */
export function mergesWords({ merges }, { thresholds }) {
  return merges ? `${count(merges, "merge")}, down to similarity ${rounded(thresholds[merges - 1], 2)}` : "no merge";
}

export function tableTitle({ merges, num_experts: N, digits }, { losses }) {
  return `${merges} merged away, ${count(N - merges, "expert")} left; unmerged loss ${rounded(losses[0], digits)}`;
}

export function lossTitle({ unit, axes }) {
  return `measured ${unit}${axes.loss.log ? ", log axis" : ""}`;
}

/** Name, similarity at the last merge, loss and change of each kind and of the random pairs, after as many merges. */
export function tableRows(state) {
  const { draws, mean } = state.control;
  return [...state.kinds.map(({ name, losses, thresholds }) => rowOf(state, name, losses, thresholds)),
    rowOf(state, `random pairs${draws > 1 ? `, mean of ${draws}` : ""}`, mean, null)];
}

function rowOf({ merges, digits }, name, losses, thresholds) {
  if (merges >= losses.length) return [name, NONE, NONE, NONE];
  return [name, thresholds && merges ? rounded(thresholds[merges - 1], 2) : NONE, rounded(losses[merges], digits),
    merges ? signed(losses[merges] - losses[0], digits) : NONE];
}

/** What the lens shows, in words; pair is the one looked at, or null. */
export function describe(state, seen, pair) {
  const parts = [headWords(state, seen), lossWords(state, seen)];
  if (state.merges) parts.push(controlWords(state, seen), groupWords(seen));
  if (pair) parts.push(pairWords(state, seen, ...pair));
  return parts.join(" ");
}

function headWords(state, { now }) {
  const { num_experts: N, origin, kind, merges } = state;
  return `${N} experts of one layer (${origin}), alike by ${kind}: ${mergesWords(state, now)}, `
    + `${count(N - merges, "expert")} left.`;
}

function lossWords({ unit, merges, digits }, { now: { losses } }) {
  const words = `Measured ${unit}: ${rounded(losses[merges], digits)}`;
  if (!merges) return `${words}, unmerged.`;
  return `${words}, ${signed(losses[merges] - losses[0], digits)} against ${rounded(losses[0], digits)} unmerged.`;
}

/** The random merges, and where these stand among them. */
function controlWords({ kind, merges, digits, control }, { now: { losses } }) {
  const [mean, low, high] = ["mean", "low", "high"].map((name) => control[name][merges]);
  const loss = losses[merges];
  const spread = control.draws > 1
    ? `on average, ${rounded(low, digits)} … ${rounded(high, digits)} over ${control.draws} draws` : "in one draw";
  const above = loss > high ? "above every random draw" : "within the range of random draws";
  return `As many merges of random pairs: ${rounded(mean, digits)} ${spread}. `
    + `The loss of merging by ${kind} is ${loss < low ? "below every random draw" : above}.`;
}

function groupWords({ groups }) {
  return `One expert each: ${listed(groups.filter((group) => group.length > 1).map((group) => group.join("+")))}.`;
}

/** How alike two experts are by every kind, and when the shown kind merges them. */
function pairWords(state, { now: { joins } }, first, second) {
  if (first === second) return `Expert ${first} with itself: 1 by definition.`;
  const alike = state.kinds.map(({ name }, i) => `${rounded(similarityOf(state, i, first, second), 2)} by ${name}`).join(", ");
  const met = metAt(joins, state.num_experts, first, second);
  const when = met ? `become one at merge ${met}` : `stay apart in all ${joins.length} recorded`;
  return `Experts ${first} and ${second}: ${alike}; by ${state.kind} they ${when}.`;
}

// --- colour ----------------------------------------------------------------------------------------------------------

/** ColorBrewer's red to blue with white at zero, as in matplotlib: readable without red-green vision. */
const RED_BLUE = ["#67001f", "#b2182b", "#d6604d", "#f4a582", "#fddbc7", "#f7f7f7", "#d1e5f0", "#92c5de", "#4393c3", "#2166ac",
  "#053061"];
const STEPS = 256;

/** Its colours from -1 to 1, in 256 steps. */
export const DIVERGING = Array.from({ length: STEPS }, (_, i) => {
  const place = (i / (STEPS - 1)) * (RED_BLUE.length - 1);
  const below = Math.min(Math.floor(place), RED_BLUE.length - 2);
  const [low, high] = [RED_BLUE[below], RED_BLUE[below + 1]].map((hex) => hex.slice(1).match(/../g));
  const mixed = low.map((pair, c) => {
    const [from, to] = [parseInt(pair, 16), parseInt(high[c], 16)];
    return Math.round(from + (place - below) * (to - from)).toString(16).padStart(2, "0");
  });
  return `#${mixed.join("")}`;
});

/** The colour of a similarity: the limits are -1 and 1, whatever is shown. */
export function similarityColour(similarity) {
  return DIVERGING[Math.min(STEPS - 1, Math.floor(((similarity + 1) / 2) * STEPS))];
}

const SELF = "#9a9a9a"; // an expert with itself: no similarity that anybody measured

// --- geometry --------------------------------------------------------------------------------------------------------

const MAP = { left: 34, top: 4, right: 6, below: 22, most: 396 };          // pixels around the cells, and their widest
const CURVE = { left: 66, top: 26, right: 12, below: 42, height: 276 };    // pixels around the curves, and of the whole

/** The map's measures for a width in CSS pixels. */
export function mapGeometry(width, N) {
  const side = Math.max(N, Math.min(MAP.most, width - MAP.left - MAP.right));
  return { N, side, left: MAP.left, top: MAP.top, cell: side / N, width: MAP.left + side + MAP.right,
    height: MAP.top + side + MAP.below };
}

/** Row and column under a point of the map, or null beside the cells. */
export function cellAt({ N, left, top, cell }, x, y) {
  const [row, column] = [placeWithin(y - top, cell, N), placeWithin(x - left, cell, N)];
  return row === null || column === null ? null : { row, column };
}

/** Where merges and losses stand on the curve's canvas: { width, left, right, top, bottom, xOf, yOf }. */
export function curveGeometry(width, { loss, merges }, last) {
  const box = { width, left: CURVE.left, right: width - CURVE.right, top: CURVE.top, bottom: CURVE.height - CURVE.below };
  const spaced = loss.log ? Math.log : (value) => value;
  const [low, high] = [spaced(loss.low), spaced(loss.high)];
  return { ...box, ticks: { loss: loss.ticks, merges },
    xOf: (made) => box.left + (made / last) * (box.right - box.left),
    yOf: (value) => box.bottom - ((spaced(value) - low) / (high - low)) * (box.bottom - box.top) };
}

// --- drawing ---------------------------------------------------------------------------------------------------------

/** The similarities of the kind that is shown, outlines around what is one expert, and the pair looked at. */
function drawMap(ctx, geo, state, { now, rows, edges }, pair, theme) {
  const kind = state.kinds.indexOf(now);
  const at = (i) => Math.round(i * geo.cell); // whole pixels, so that no seams show between cells
  const gap = geo.cell > 14 ? 1 : 0;
  for (let row = 0; row < geo.N; row++) {
    for (let column = 0; column < geo.N; column++) {
      ctx.fillStyle = row === column ? SELF : similarityColour(similarityOf(state, kind, rows[row], rows[column]));
      ctx.fillRect(geo.left + at(column), geo.top + at(row), at(column + 1) - at(column) - gap, at(row + 1) - at(row) - gap);
    }
  }
  drawEdges(ctx, geo, edges);
  const looked = pair ? pair.map((n) => rows.indexOf(n)) : [];
  if (pair) ring(ctx, geo.left + at(looked[1]), geo.top + at(looked[0]), geo.cell, theme);
  drawNumbers(ctx, geo, geo.height - MAP.below / 2, looked.slice(1), theme, (column) => rows[column]);
  drawRowNumbers(ctx, geo, looked[0], theme, rows);
}

/** White inside black, to be seen on every colour of the map. */
function drawEdges(ctx, geo, edges) {
  const path = new Path2D();
  for (const [x0, y0, x1, y1] of edges) {
    path.moveTo(geo.left + x0 * geo.cell, geo.top + y0 * geo.cell);
    path.lineTo(geo.left + x1 * geo.cell, geo.top + y1 * geo.cell);
  }
  ctx.lineCap = "square";
  for (const [colour, width] of [["#000000", 3], ["#ffffff", 1.2]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke(path);
  }
}

/** The cell looked at: orange around it, which no merge is. */
function ring(ctx, x, y, cell, theme) {
  for (const [colour, width] of [["#000000", 6], ["#ffffff", 5], [theme.accent, 3]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.strokeRect(x - 2, y - 2, cell + 4, cell + 4);
  }
}

/** The experts' numbers at the left of their rows, as many as there is room for; the looked at in bold. */
function drawRowNumbers(ctx, geo, looked, theme, rows) {
  const step = [1, 2, 5, 10, 20].find((size) => size * geo.cell >= 17);
  ctx.textAlign = "right";
  for (let row = 0; row < geo.N; row++) {
    const near = looked !== undefined && Math.abs(looked - row) * geo.cell < 17;
    if (row !== looked && (near || row % step)) continue;
    ctx.font = row === looked ? `bold ${theme.font}` : theme.font;
    ctx.fillText(rows[row], geo.left - 6, geo.top + (row + 0.5) * geo.cell);
  }
}

const DASHES = { solid: [], dashed: [9, 4], dotted: [3, 3] };

/** The losses over the merges: the shown kind bold, the others thin, the random pairs as a band, a line at the slider. */
function drawCurves(ctx, geo, state, theme) {
  drawAxes(ctx, geo, state, theme);
  drawBand(ctx, geo, state.control, theme);
  const shown = [...state.kinds].sort((a, b) => (a.name === state.kind) - (b.name === state.kind)); // the shown one on top
  for (const { name, losses, colour, line } of shown) {
    const bold = name === state.kind;
    ctx.setLineDash(DASHES[line]);
    drawLine(ctx, geo, losses, colour, bold ? 4 : 2);
    ctx.setLineDash([]);
    if (state.merges >= losses.length) continue;
    drawDot(ctx, geo.xOf(state.merges), geo.yOf(losses[state.merges]), bold ? 7 : 5, colour);
    Object.assign(ctx, { strokeStyle: theme.ink, lineWidth: 1.5 });
    ctx.stroke();
  }
}

function drawLine(ctx, geo, losses, colour, width) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  drawStroke(ctx, ...losses.map((loss, made) => [geo.xOf(made), geo.yOf(loss)]));
}

function drawStroke(ctx, ...points) {
  ctx.beginPath();
  for (const point of points) ctx.lineTo(...point);
  ctx.stroke();
}

/** From the lowest to the highest of the draws, with a line at their mean. */
function drawBand(ctx, geo, { mean, low, high }, theme) {
  ctx.globalAlpha = 0.2;
  ctx.fillStyle = theme.ink;
  ctx.beginPath();
  low.forEach((loss, made) => ctx.lineTo(geo.xOf(made), geo.yOf(loss)));
  for (let made = high.length - 1; made >= 0; made--) ctx.lineTo(geo.xOf(made), geo.yOf(high[made]));
  ctx.fill();
  ctx.globalAlpha = 0.7;
  drawLine(ctx, geo, mean, theme.ink, 1.5);
  ctx.globalAlpha = 1;
}

/** What is measured, the numbers of both axes, and the slider's place. */
function drawAxes(ctx, geo, state, theme) {
  ctx.font = `bold ${theme.font}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillStyle = theme.ink;
  ctx.fillText(fitted(ctx, lossTitle(state), geo.width), 0, 10);
  ctx.font = theme.font;
  ctx.textAlign = "right";
  for (const [tick, label] of geo.ticks.loss) {
    ctx.fillStyle = theme.faint;
    ctx.fillRect(geo.left, Math.round(geo.yOf(tick)), geo.right - geo.left, 0.5);
    ctx.fillStyle = theme.ink;
    ctx.fillText(label, geo.left - 6, geo.yOf(tick));
  }
  ctx.textAlign = "center";
  for (const tick of geo.ticks.merges) ctx.fillText(tick, geo.xOf(tick), geo.bottom + 12);
  ctx.fillText(`merges made, of ${state.num_experts} experts`, (geo.left + geo.right) / 2, geo.bottom + 31);
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1;
  drawStroke(ctx, [geo.left, geo.bottom], [geo.right, geo.bottom]);
  const x = Math.round(geo.xOf(state.merges)) + 0.5;
  ctx.setLineDash([5, 3]);
  drawStroke(ctx, [x, geo.top], [x, geo.bottom]);
  ctx.setLineDash([]);
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `draw` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-lens") };
  keepKeys(page.root);
  const figure = make("div", "moe-lens-figure");
  figure.append(buildMap(page), buildSide(page, state));
  page.root.append(buildHeader(page, state.title), buildControls(page, state), figure, buildStatus(page));
  say(page.badge, state.origin);
  return page;
}

function buildControls(page, state) {
  const [first, second] = [make("div", "moe-row"), make("div", "moe-row")];
  const kinds = makeChoice("alike by", state.kinds.map(({ name }) => [name, name]));
  const orders = makeChoice("order", Object.keys(state.orders).map((name) => [name, name]));
  page.choices = { kind: kinds.radios, order: orders.radios };
  page.merges = makeSlider("merges, most similar first", 0, 1);
  page.merges.box.classList.add("moe-wide"); // its words grow; the slider must not move under the hand
  page.meaning = make("span");
  first.append(kinds.box, page.meaning);
  second.append(page.merges.box, orders.box);
  const box = make("div");
  box.append(first, second);
  return box;
}

function buildMap(page) {
  const box = make("div", "moe-lens-map");
  Object.assign(page, makeStage(
    "heat map of similarity, experts by experts: arrow keys move, Enter keeps a pair, Escape lets go"));
  page.caption = make("div", "moe-caption");
  box.append(buildScale(), page.stage, page.caption);
  return box;
}

/** What the colours mean: from -1 to 1, always. */
function buildScale() {
  const legend = make("div", "moe-legend");
  const { scale, ticks } = makeScale(DIVERGING);
  fillTicks(ticks, [[-1, 0], [0, 0.5], [1, 1]]);
  legend.append(make("span", "", "Outlined: one expert by now. Grey: itself."), scale);
  return legend;
}

function buildSide(page, state) {
  const side = make("div", "moe-lens-side");
  page.curves = makeCanvas(); // the table below says the same in numbers
  page.room = make("div");
  page.room.append(page.curves);
  page.numbers = make("div", "moe-caption");
  side.append(page.room, page.numbers, buildTable(page, state), make("div", "moe-caption",
    "Every loss was measured on the merged model beforehand; the slider only reads. Band: all random draws. The numbers of "
      + "experts belong to this layer."));
  return side;
}

/** The legend of the curves, with every curve's numbers. */
function buildTable(page, state) {
  page.cells = tableRows(state).map(([name], i) => {
    const [title, cells] = [headCell("row", ""), COLUMNS.slice(1).map(() => make("td"))];
    const kind = state.kinds[i]; // the last row has none: the random pairs
    const swatch = make("span", kind ? "moe-lens-swatch" : "moe-lens-swatch moe-lens-band");
    if (kind) swatch.style.borderTop = `4px ${kind.line} ${kind.colour}`;
    title.append(swatch, name);
    return { row: rowWith([title, ...cells]), cells };
  });
  return makeTable(COLUMNS.map((title) => headCell("col", title)), page.cells.map(({ row }) => row));
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, state, { now }) {
  for (const [name, radios] of Object.entries(page.choices)) syncChoice(radios, state[name]);
  syncSlider(page.merges, state.merges, now.joins.length, mergesWords(state, now));
}

function syncWords(page, state, seen, pair) {
  say(page.meaning, `similarity: ${seen.now.meaning}`);
  say(page.caption, `Experts ${state.orders[state.order]}.`);
  say(page.numbers, tableTitle(state, seen.now));
  say(page.status, describe(state, seen, pair));
}

function syncTable(page, state) {
  tableRows(state).forEach(([name, ...words], i) => {
    page.cells[i].cells.forEach((cell, column) => say(cell, words[column]));
    page.cells[i].row.classList.toggle("moe-lens-shown", name === state.kind);
  });
}

// --- the widget ------------------------------------------------------------------------------------------------------

class RedundancyLensView extends PointingView {
  get settings() { return SETTINGS; }

  get kept() { return "pair"; }

  prepare() {
    super.prepare();
    this.cursor = { row: 0, column: 0 }; // where the keyboard stands
  }

  read() {
    this.state = readState(this.model);
    this.seen = examine(this.state);
  }

  build() {
    return buildPage(this.state);
  }

  draw() {
    const { page, state, seen } = this;
    this.drawCanvases(); // first: it reads the layout, which the lines below make stale
    syncControls(page, state, seen);
    syncTable(page, state);
    syncWords(page, state, seen, this.looked);
  }

  drawCanvases() {
    const { page, state, seen } = this;
    const [wide, room] = [page.stage.clientWidth, page.room.clientWidth];
    if (!wide || !room) return; // not on the page yet: the ResizeObserver will call
    this.geo = mapGeometry(wide, state.num_experts);
    drawMap(sizedContext(page.canvas, this.geo.width, this.geo.height), this.geo, state, seen, this.looked, this.theme);
    const curves = curveGeometry(room, state.axes, state.control.mean.length - 1);
    drawCurves(sizedContext(page.curves, room, CURVE.height), curves, state, this.theme);
  }

  wire() {
    const { page, model } = this;
    return [
      ...onSlide(model, page.merges, (merges) => ({ merges })),
      ...onChoice(model, page.choices.kind, (kind) => this.otherKind(kind)),
      ...onChoice(model, page.choices.order, (order) => ({ order })),
      ...this.listenMouse(page.stage, (event) => this.pairUnder(event)),
      ...this.listenKeys(page.stage, (key) => this.next(key), () => this.pairIn(this.cursor)),
      ...this.listenEscape(),
    ];
  }

  /** Another kind may have recorded fewer merges. */
  otherKind(kind) {
    const { joins } = this.state.kinds.find(({ name }) => name === kind);
    return { kind, merges: Math.min(this.state.merges, joins.length) };
  }

  /** The experts of a cell, or null for none. */
  pairIn(cell) {
    return cell && [this.seen.rows[cell.row], this.seen.rows[cell.column]];
  }

  next(key) {
    const { num_experts: N } = this.state;
    const cell = movedOn(this.cursor, key, N, N);
    this.cursor = cell ?? this.cursor;
    return this.pairIn(cell);
  }

  pairUnder(event) {
    const { left, top } = this.page.canvas.getBoundingClientRect();
    return this.geo ? this.pairIn(cellAt(this.geo, event.clientX - left, event.clientY - top)) : null;
  }
}

export default widgetOf(RedundancyLensView);
