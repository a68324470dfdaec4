// The ledger: where a model's parameters are, and what one token pays.
//
// Numbers stay below 2^53, where JavaScript's are exact.

import { Chart, fillTable, makeSheet } from "../kit/charts.js";
import { button, choice, slider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { DESIGN } from "../kit/design.js";
import { make } from "../kit/page.js";
import { WidgetView, widgetOf } from "../kit/view.js";
import { count, grouped } from "../kit/words.js";

// --- arithmetic: the twin of moe_lesson/lm/ledger.py --------------------------------------------------------------------

/** A dense matrix that every token is multiplied by: a multiplication and its addition are 2 FLOPs. */
function matrix(rows, columns) {
  return { total: rows * columns, active: rows * columns, flops: 2 * rows * columns };
}

/** `once` as often as there are copies; a token uses `used` of them. */
function copies(once, all, used = all) {
  return { total: all * once.total, active: used * once.active, flops: used * once.flops };
}

function added(costs) {
  const over = (key) => d3.sum(costs, (cost) => cost[key]);
  return { total: over("total"), active: over("active"), flops: over("flops") };
}

/** K: what is wished, or all there are. */
function activeExperts(sizes) {
  return Math.min(sizes.top_k, sizes.num_experts);
}

/** The cost of a model by the parts of its bars. Norms and the lookup of an embedding pay no FLOPs. */
export function partsOf(sizes) {
  const { width, layers, context, vocabulary } = sizes;
  const table = { total: vocabulary * width, active: width, flops: 0 };
  const norms = (2 * layers + 1) * width;
  const scores = { total: 0, active: 0, flops: 4 * context * width }; // against every position, and mixing what is there
  return {
    embedding: added([table, matrix(width, vocabulary)]),
    attention: added([copies(added([matrix(width, 4 * width), scores]), layers), { total: norms, active: norms, flops: 0 }]),
    ...feedForward(sizes),
  };
}

function feedForward({ width, layers, hidden, num_experts, num_shared, leading, leading_hidden, router, ...sizes }) {
  const first = Math.min(leading, layers);
  const [dense, sparse] = num_experts ? [0, layers - first] : [layers - first, 0];
  const [layer, gate] = [matrix(width, 3 * hidden), matrix(width, num_experts)];
  const noise = { total: router.noisy ? gate.total : 0, active: 0, flops: 0 }; // only training pays for it
  return {
    dense: added([copies(matrix(width, 3 * leading_hidden), first), copies(layer, dense)]),
    shared: copies(layer, sparse * num_shared),
    router: copies(added([gate, noise]), sparse),
    routed: copies(layer, sparse * num_experts, sparse * activeExperts({ num_experts, ...sizes })),
  };
}

export function modelCost(sizes) {
  return added(Object.values(partsOf(sizes)));
}

/**
 * The end of the axis, in parameters: a round number that holds the model that one set out from, times 4 as often as a shown bar
 * needs. Sizes run over eight powers of ten: one axis for all would show nothing, one for each state would hide every change.
 * The axis of FLOPs goes to twice that: a parameter in use costs two.
 */
export function axisTop(from, ...shown) {
  const [need, ...others] = [from, ...shown].map(({ total, flops }) => Math.max(total, flops / 2));
  const power = 10 ** Math.ceil(Math.log10(need / 10));
  let top = [1, 2, 4, 6, 8, 10].map((step) => step * power).find((end) => end >= need);
  while (top < d3.max(others)) top *= 4;
  return top;
}

// --- words -------------------------------------------------------------------------------------------------------------

/** A number in words: exact below a million, else three digits and the unit of its thousands. */
export function amount(number, unit = "") {
  if (number < 1e6) return `${grouped(number)}${unit && ` ${unit}`}`;
  const [digits, prefix] = d3.format(".3s")(number).split(/(?=[MGT])/);
  return `${digits} ${unit ? prefix : prefix.replace("G", "B")}${unit}`;
}

/** A share in words; nothing that exists is 0%, and nothing that lacks a part is 100%. */
export function shareInWords(part, whole) {
  const share = (100 * part) / whole;
  if (share > 0 && share < 1) return "under 1%";
  return share > 99 && share < 100 ? "over 99%" : `${share.toFixed(0)}%`;
}

/** What the ledger shows. */
function describe({ label, sizes, pinned }) {
  const [cost, parts] = [modelCost(sizes), partsOf(sizes)];
  const layers = added([parts.dense, parts.shared, parts.router, parts.routed]).total;
  const ratio = (key) => d3.format(".3~r")(cost[key] / modelCost(pinned)[key]);
  return `${label}: ${amount(cost.total)} parameters, ${shareInWords(layers, cost.total)} of them in feed-forward layers. A token `
    + `uses ${amount(cost.active)} (${shareInWords(cost.active, cost.total)}) and pays ${amount(cost.flops, "FLOPs")}.`
    + (pinned ? ` Against the outline (${pinned.label}): exist × ${ratio("total")}, used × ${ratio("active")}, `
      + `FLOPs × ${ratio("flops")}.` : "")
    + (sizes.num_experts && activeExperts(sizes) < sizes.top_k
      ? ` K is ${activeExperts(sizes)}, not ${sizes.top_k}: there are no more experts to choose.` : "");
}

/** What the parameters weigh, and how others count the active ones. */
function notes(sizes) {
  const cost = modelCost(sizes);
  const whole = cost.active + (sizes.vocabulary - 1) * sizes.width;
  const first = Math.min(sizes.leading, sizes.layers);
  return `In bf16 the parameters take ${amount(2 * cost.total, "bytes")}; training with AdamW takes ${amount(12 * cost.total, "bytes")}, `
    + "gradients and averages included. A token uses one row of the embedding; papers often count it whole: "
    + `${amount(whole)} are active then.${first ? ` The first ${count(first, "layer")} ${first === 1 ? "is" : "are"} dense.` : ""}`;
}

// --- the widget ----------------------------------------------------------------------------------------------------------

/** The parts of every bar, left to right: what N multiplies stands last, so that nothing else moves. */
const { grey, hues } = DESIGN;
const PARTS = { embedding: ["embedding and head", grey], attention: ["attention and norms", hues.sky],
  dense: ["dense FFN", hues.amber], shared: ["shared experts", hues.red], router: ["router", hues.pink],
  routed: ["routed experts", hues.green] };
const BARS = { total: ["parameters that exist", ""], active: ["parameters that a token uses", ""],
  flops: ["FLOPs that a token pays", "FLOPs"] };
/** Two axes, as there are two units: the title, the bars on it, and its length in units of the first. */
const AXES = [["parameters", ["total", "active"], 1], ["FLOPs, two to a parameter", ["flops"], 2]];
const [ROW, BAR] = [56, 26]; // pixels from bar to bar, and of a bar

/** The sliders in the order of the page: their names for a screen reader, and their value in words. */
const SLIDERS = {
  width: ["D, model width", ({ width }) => `D = ${grouped(width)}: model width`],
  layers: ["depth, layers", ({ layers }) => `depth = ${count(layers, "layer")}`],
  context: ["S, context", ({ context }) => `S = ${grouped(context)} tokens of context`],
  hidden: ["H, hidden units", ({ hidden, num_experts: N }) => `H = ${grouped(hidden)} hidden units ${N ? "per expert" : "(dense)"}`],
  num_experts: ["N, routed experts", ({ num_experts: N }) => (N ? `N = ${N} routed experts` : "N = 0: dense, no experts")],
  top_k: ["K, active experts", (sizes) => (sizes.num_experts ? `K = ${activeExperts(sizes)} active per token` : "K: no experts")],
  num_shared: ["Ks, shared experts", ({ num_experts: N, num_shared: shared }) => (N ? `Ks = ${shared} shared` : "Ks: no experts")],
};

class LedgerView extends WidgetView {
  static data = ["models", "choices", "start"];

  static settings = ["model", "pinned", ...Object.keys(SLIDERS)];

  declare() {
    const { models, choices } = this.state;
    return [
      choice("start from", Object.keys(models), { trait: "model", again: true,
        set: (model) => ({ model, ...Object.fromEntries(Object.keys(SLIDERS).map((name) => [name, models[model][name]])) }) }),
      ...Object.entries(SLIDERS).map(([name, [label, words]]) => slider(label, { trait: name, values: choices[name],
        words: (state) => words(state.sizes),
        disabled: ({ num_experts: N }) => !N && (name === "top_k" || name === "num_shared") })),
      button(({ pinned }) => (pinned.label ? "Remove the outline" : "Keep as outline"), (view) => view.togglePin()),
    ];
  }

  build() {
    this.charts = AXES.map(([, bars]) => new Chart({ height: bars.length * ROW + 42, margin: { top: 4, left: 2, right: 20 } }));
    [this.table, this.notes] = [makeSheet("the model's parts"), make("div", "moe-caption")];
    const [figure, bars] = [make("div", "moe-charts moe-ledger"), make("div", "moe-bars")];
    bars.append(...this.charts.map(({ box }) => box));
    figure.append(bars, this.table);
    this.folded.append(this.notes);
    return [figure];
  }

  /** The sizes: the model's, and where the sliders stand. */
  renew() {
    const { state } = this;
    const from = state.models[state.model];
    const sliders = Object.fromEntries(Object.keys(SLIDERS).map((name) => [name, state[name]]));
    const left = Object.keys(SLIDERS).some((name) => from[name] !== state[name]);
    Object.assign(state, { sizes: { ...from, ...sliders }, label: left ? `${state.model}, changed` : state.model });
    const shown = [state.sizes, ...(state.pinned.label ? [state.pinned] : [])].map(modelCost);
    [this.top, this.first] = [axisTop(modelCost(from), ...shown), axisTop(modelCost(from))];
  }

  togglePin() {
    const { label, sizes, pinned } = this.state;
    this.set({ pinned: pinned.label ? {} : { label, ...sizes } });
  }

  badge() { return "computed"; }

  describe() {
    return describe({ ...this.state, pinned: this.state.pinned.label ? this.state.pinned : null });
  }

  draw() {
    const { sizes, pinned } = this.state;
    const [cost, parts] = [modelCost(sizes), partsOf(sizes)];
    AXES.forEach((_, i) => this.drawBars(i, parts, cost, pinned.label ? modelCost(pinned) : null));
    const rows = Object.entries(parts);
    fillTable(this.table, [["part", "parameters", "used", "FLOPs"], ...rows.map(([part, { total, active, flops }]) => (
      [PARTS[part][0], amount(total), amount(active), amount(flops, "FLOPs").replace("FLOPs", "")]))]);
    this.table.querySelectorAll("tbody tr").forEach((row, i) => {
      const [part, { total }] = rows[i];
      row.firstChild.style.setProperty("--part", total ? PARTS[part][1] : "transparent");
      row.style.visibility = total ? "" : "hidden"; // what a model lacks is not listed, but nothing below it may move
    });
    this.notes.textContent = notes(sizes);
  }

  /** The bars of one unit on their axis: each in its parts, with its number above it, and the outline. */
  drawBars(i, parts, cost, outline) {
    const { charts: { [i]: chart }, top, first } = this;
    const [title, shown, unit] = AXES[i];
    const { width } = chart.sized();
    const x = d3.scaleLinear([0, unit * top], [0, width]);
    const bars = shown.flatMap((bar, row) => {
      let end = 0;
      return Object.entries(parts).map(([part, { [bar]: more }]) => {
        const from = end;
        end += more;
        return { key: `${bar} ${part}`, x: x(from), y: row * ROW + 22, width: x(end) - x(from), height: BAR, colour: PARTS[part][1] };
      });
    });
    const outlines = outline ? shown.map((bar, row) => ({ key: `${bar} outline`, x: 0, y: row * ROW + 20, width: x(outline[bar]),
      height: BAR + 4, colour: "none", outlined: true })) : [];
    chart.axes(x, null, { xTicks: 5, xFormat: (value) => d3.format("~s")(value).replace("G", "B"),
      xTitle: `${title}${top > first ? `; the axis has grown × ${grouped(top / first)}` : ""}` });
    chart.bars([...bars, ...outlines]);
    chart.words(shown.map((bar, row) => ({ key: bar, x: 0, y: row * ROW + 15,
      text: `${BARS[bar][0]}: ${amount(cost[bar], BARS[bar][1])}` })));
  }
}

export default widgetOf(LedgerView);
