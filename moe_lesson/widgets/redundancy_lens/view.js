// The redundancy lens: which experts are alike, and what merging them costs. Every loss was measured in Python before the
// page opened; this module only reads.

import { drawNumbers, fillTicks, inkOn, makeLegend, outline, sizedContext } from "../kit/canvas.js";
import { Chart, fillTable, makeSheet } from "../kit/charts.js";
import { choice, slider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { DESIGN } from "../kit/design.js";
import { movedOn, placeWithin } from "../kit/events.js";
import { make, makeStage, say } from "../kit/page.js";
import { floats } from "../kit/routing.js";
import { PointingView, widgetOf } from "../kit/view.js";
import { count, listed, rounded, signed } from "../kit/words.js";

const MEANINGS = {
  outputs: "cosine of two experts' outputs, mean over the same tokens",
  weights: "cosine of two experts' weights, unit by unit as stored",
  "co-routing": "how often one token chooses both, N_ij / √(N_i N_j)",
};
const DASHES = { weights: "9 4", "co-routing": "3 3" };
const RANDOM = "random pairs";

/** Brown to violet with white at 0, readable without red-green vision: from -1 to 1, whatever is shown. */
const DIVERGING = d3.range(256).map((i) => d3.rgb(d3.interpolatePuOr(i / 255)).formatHex());

// --- what is shown ---------------------------------------------------------------------------------------------------

/** The record of the kind that is shown. */
function kindOf({ kinds, kind }) {
  return kinds.find(({ name }) => name === kind);
}

/** The kind that is shown; its groups; who stands in which row [N]; the outlines in the map. */
export function examine({ kinds, kind, merges, order, num_experts: N }) {
  const now = kindOf({ kinds, kind });
  const leader = now.leaders[merges];
  const groups = [...d3.rollup(d3.range(N), (group) => group, (n) => leader[n]).values()].filter((group) => group.length > 1);
  const rows = order === "by group" ? treeOrder(now.leaders) : d3.range(N);
  return { now, groups, rows, edges: contours(rows.map((n) => leader[n])) };
}

/** All experts, so that each group of each merge stands together: by the last groups that tell two of them apart. */
function treeOrder(leaders) {
  return d3.range(leaders[0].length).sort((one, other) => {
    const leader = leaders.findLast((each) => each[one] !== each[other]);
    return leader[one] - leader[other];
  });
}

/** The edges around the cells of merged experts, as [x, y, x, y] in cells, out of the group of each row's expert. */
export function contours(leader) {
  const sizes = d3.rollup(leader, (all) => all.length, (one) => one);
  const merged = (row, column) => leader[row] === leader[column] && sizes.get(leader[row]) > 1;
  const places = d3.range(leader.length + 1);
  return places.flatMap((y) => places.flatMap((x) => [
    ...(merged(y, x) !== merged(y, x - 1) ? [[x, y, x, y + 1]] : []),
    ...(merged(y, x) !== merged(y - 1, x) ? [[x, y, x + 1, y]] : [])]));
}

/** The scale of all losses, so that no setting moves it; logarithmic where they differ many times. */
function lossScale({ kinds, control }, range) {
  const [low, high] = d3.extent([...kinds.flatMap(({ losses }) => losses), ...control.low, ...control.high]);
  return (low > 0 && high / low > 8 ? d3.scaleLog : d3.scaleLinear)([low, high], range);
}

// --- in words --------------------------------------------------------------------------------------------------------

/** How to write losses: with digits for a thousandth of the unmerged one, or of all their spread. */
function lossWords(state) {
  const [low, high] = lossScale(state, [0, 1]).domain();
  const scale = d3.min([Math.abs(state.control.mean[0]), high - low, 1].filter((size) => size > 0));
  const digits = Math.min(3 - Math.floor(Math.log10(scale)), 12);
  return (loss) => rounded(loss, digits);
}

function mergesWords({ merges }, { thresholds }) {
  return merges ? `${count(merges, "merge")}, down to similarity ${rounded(thresholds[merges - 1], 2)}` : "no merge";
}

/** What the lens shows; pair is the one looked at, or null. */
function describe(state, seen, pair) {
  const last = pair ? pairWords(state, seen.now, ...pair) : groupWords(seen.groups);
  return `${costWords(state, seen.now)} ${last}`;
}

function costWords({ merges, num_experts: N, kind, unit, control, ...state }, { losses }) {
  const words = lossWords({ control, ...state });
  if (!merges) return `Nothing is merged: ${N} experts, ${unit} ${words(losses[0])}.`;
  const [loss, low, high] = [losses, control.low, control.high].map((all) => all[merges]);
  const place = loss < low ? "costs less" : loss > high ? "costs more" : "lies within";
  return `${count(merges, "merge")} by ${kind}, ${N - merges} of ${N} experts left: ${unit} ${words(loss)}, `
    + `${signed(words(loss - losses[0]))} against ${words(losses[0])} unmerged. Random pairs: `
    + `${control.draws > 1 ? `${words(low)} … ${words(high)} in ${control.draws} draws` : `${words(low)} in one draw`}; `
    + `merging by ${kind} ${place}.`;
}

function groupWords(groups) {
  if (!groups.length) return "Drag the slider to merge the most alike.";
  return `One expert each: ${listed(groups.map((group) => group.join("+")), 6)}.`;
}

/** How alike two experts are by every kind, and when the shown kind merges them. */
function pairWords({ kinds, kind, num_experts: N, similarities }, { leaders }, first, second) {
  if (first === second) return `Expert ${first} with itself: 1 by definition.`;
  const alike = kinds.map(({ name }, i) => `${rounded(similarities[(i * N + first) * N + second], 2)} by ${name}`).join(", ");
  const met = leaders.findIndex((leader) => leader[first] === leader[second]);
  const when = met < 0 ? `stay apart in all ${leaders.length - 1} recorded merges` : `become one at merge ${met}`;
  return `Experts ${first} and ${second}: ${alike}; by ${kind} they ${when}.`;
}

/** After as many merges, of each kind and of the random pairs: similarity at the last merge, loss and change. */
function tableRows(state) {
  const { kinds, control, merges } = state;
  const words = lossWords(state);
  const random = { name: `${RANDOM}, mean`, losses: control.mean, thresholds: [] };
  return [["merged by", "similarity", "loss", "change"], ...[...kinds, random].map(({ name, losses, thresholds }) => {
    const [loss, threshold] = [losses[merges], thresholds[merges - 1]];
    return [name, threshold === undefined ? "–" : rounded(threshold, 2), loss === undefined ? "–" : words(loss),
      loss === undefined || !merges ? "–" : signed(words(loss - losses[0]))];
  })];
}

// --- the widget ------------------------------------------------------------------------------------------------------

const MAP = { left: 34, top: 4, right: 6, below: 22, most: 340 }; // pixels around the cells, and their widest

class RedundancyLensView extends PointingView {
  static data = ["origin", "unit", "num_experts", "kinds", "similarity", "control", "start"];

  static settings = ["kind", "merges", "order", "pair"];

  static kept = ["pair"];

  declare() {
    return [
      choice("alike by", this.state.kinds.map(({ name }) => name), { trait: "kind",
        set: (kind, state) => ({ kind, merges: Math.min(state.merges, kindOf({ ...state, kind }).thresholds.length) }) }),
      slider("merges, most similar first", { max: (state) => kindOf(state).thresholds.length, wide: true,
        trait: "merges", words: (state) => mergesWords(state, kindOf(state)) }),
      choice("order of the map", ["by number", ["by group", "those that merge side by side"]], { trait: "order", folded: true }),
    ];
  }

  build() {
    this.cursor = { row: 0, column: 0 }; // where the keyboard stands
    this.similarities = floats(this.state.similarity);
    this.meaning = make("div", "moe-caption");
    Object.assign(this, makeStage("heat map of similarity: arrow keys move, Enter keeps a pair of experts, Escape lets go"));
    const { legend, ticks } = makeLegend("Outlined: now one expert", DIVERGING);
    fillTicks(ticks, [[-1, 0], [0, 0.5], [1, 1]]);
    const [map, figure] = ["moe-lens-map", "moe-lens"].map((name) => make("div", name));
    map.append(legend, this.stage);
    this.chart = new Chart({ height: 398, margin: { top: 26, right: 116 } });
    figure.append(map, this.chart.box);
    this.table = makeSheet("after as many merges");
    this.folded.append(this.table);
    return [this.meaning, figure];
  }

  renew() {
    const { state } = this;
    state.similarities = this.similarities;
    state.merges = Math.min(state.merges, kindOf(state).thresholds.length); // Python's answer to another kind comes later
    this.seen = examine(state);
  }

  describe() {
    return describe(this.state, this.seen, this.look.pair);
  }

  draw() {
    const { state } = this;
    this.drawMap(this.stage.clientWidth);
    this.drawCurves();
    say(this.meaning, `${state.kind}: ${MEANINGS[state.kind]}`);
    fillTable(this.table, tableRows(state), (i) => state.kinds[i]?.name === state.kind);
  }

  /** The similarities of the kind that is shown, outlines around what is one expert, and the pair looked at. */
  drawMap(width) {
    const { state: { kinds, num_experts: N }, seen: { now, rows, edges }, look: { pair }, similarities } = this;
    const side = Math.min(MAP.most, width - MAP.left - MAP.right);
    const ctx = sizedContext(this.canvas, width, MAP.top + side + MAP.below);
    const places = d3.range(N + 1).map((n) => Math.round((n * side) / N)); // whole pixels: no seams between cells
    const at = (n) => places[n];
    this.geo = { left: MAP.left, cell: side / N, N };
    const [start, gap] = [kinds.indexOf(now) * N * N, side / N > 14 ? 1 : 0];
    ctx.save();
    ctx.translate(MAP.left, MAP.top);
    Object.assign(ctx, { font: this.theme.font, textAlign: "center", textBaseline: "middle" });
    const written = ctx.measureText("-0.00").width < side / N; // the numbers, where they have room
    rows.forEach((first, row) => rows.forEach((second, column) => {
      const value = similarities[start + first * N + second];
      const place = Math.min(Math.floor((value + 1) * 128), 255);
      ctx.fillStyle = row === column ? DESIGN.grey : DIVERGING[place];
      ctx.fillRect(at(column), at(row), at(column + 1) - at(column) - gap, at(row + 1) - at(row) - gap);
      if (!written || row === column) return;
      ctx.fillStyle = inkOn(DIVERGING[place]);
      ctx.fillText(rounded(value, 2), (at(column) + at(column + 1)) / 2, (at(row) + at(row + 1)) / 2);
    }));
    drawEdges(ctx, edges.map((edge) => edge.map(at)));
    const [row, column] = pair ? pair.map((n) => rows.indexOf(n)) : [];
    if (pair) outline(ctx, at(column), at(row), this.geo.cell, this.geo.cell);
    ctx.restore();
    drawNumbers(ctx, this.geo, MAP.top + side + MAP.below / 2, pair ? [column] : [], this.theme, (i) => rows[i]);
    drawRowNumbers(ctx, this.geo, row, rows, this.theme);
  }

  /** The losses over the merges, the random pairs as a band, and where the slider stands. */
  drawCurves() {
    const { chart, state: { kinds, kind, merges, control, num_experts: N, unit }, theme } = this;
    const { width, height } = chart.sized();
    const last = control.mean.length - 1;
    const [x, y] = [d3.scaleLinear([0, last], [0, width]), lossScale(this.state, [height - 8, 8])];
    const pointsOf = (losses) => losses.map((loss, made) => [made, loss]);
    const curves = kinds.map(({ name, losses }) => ({ name, strong: true, points: pointsOf(losses),
      colour: name === kind ? theme.accent : theme.bar, dash: DASHES[name] }));
    const random = { name: RANDOM, colour: DESIGN.grey, strong: true, points: pointsOf(control.mean),
      band: control.low.map((low, made) => [made, low, control.high[made]]) };
    chart.axes(x, y, { xTitle: `merges made, of ${N} experts`, xTicks: Math.min(last, 8), xFormat: d3.format("d"),
      yTitle: `measured ${unit}${"base" in y ? ", log axis" : ""}`, yFormat: y.tickFormat(5, "~g") });
    chart.bars([{ key: "slider", x: x(merges) - 0.75, y: 0, width: 1.5, height, colour: theme.ink }]);
    chart.lines([random, ...curves], x, y);
    chart.dots(curves.filter(({ points }) => merges < points.length).map(({ name, colour, points }) => (
      { key: name, x: x(merges), y: y(points[merges][1]), colour, radius: name === kind ? 6 : 4 })));
    const every = [random, ...curves];
    chart.names(every.map(({ name, points, colour }) => (
      { key: name, x: x(points.length - 1), y: y(points.at(-1)[1]), text: name, colour, strong: name === kind })));
  }

  wire() {
    const { num_experts: N } = this.state;
    return this.listenPlaces(this.stage, (event) => this.under(event), (cursor, key) => movedOn(cursor, key, N, N),
      ({ row, column }) => ({ pair: [this.seen.rows[row], this.seen.rows[column]] }));
  }

  under({ clientX, clientY }) {
    const [{ left, top }, { cell, N }] = [this.canvas.getBoundingClientRect(), this.geo];
    const [row, column] = [clientY - top - MAP.top, clientX - left - MAP.left].map((from) => placeWithin(from, cell, N));
    return row === null || column === null ? null : { row, column };
  }
}

/** Black inside white, to be seen on every colour of the map. */
function drawEdges(ctx, edges) {
  const path = new Path2D();
  for (const [x0, y0, x1, y1] of edges) {
    path.moveTo(x0, y0);
    path.lineTo(x1, y1);
  }
  ctx.lineCap = "square";
  for (const [colour, width] of [["white", 4], ["black", 2]]) {
    Object.assign(ctx, { strokeStyle: colour, lineWidth: width });
    ctx.stroke(path);
  }
}

/** The experts' numbers at the left of their rows, as many as there is room for; that of the looked at in bold. */
function drawRowNumbers(ctx, { left, cell, N }, looked, rows, theme) {
  const step = [1, 2, 5, 10, 20].find((size) => size * cell >= 17);
  ctx.textAlign = "right";
  for (const row of d3.range(N)) {
    const near = row !== looked && Math.abs(looked - row) * cell < 17;
    if (row !== looked && (near || row % step)) continue;
    ctx.font = row === looked ? `bold ${theme.font}` : theme.font;
    ctx.fillText(rows[row], left - 6, MAP.top + (row + 0.5) * cell);
  }
}

export default widgetOf(RedundancyLensView);
