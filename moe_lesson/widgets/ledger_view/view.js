// The ledger: where a model's parameters are, and what one token pays.
//
// Letters: D width, S context, N routed experts (0 is dense), K active experts, Ks shared experts, H hidden units.
// Numbers stay below 2^53, where JavaScript's are exact.

import { inkOn, outline } from "../kit/canvas.js";
import { keepKeys, on, onSlide, save } from "../kit/events.js";
import {
  buildHeader, buildStatus, headCell, make, makeButton, makeChoice, makeSlider, makeTable, rowWith, say, syncChoice,
  syncSlider,
} from "../kit/page.js";
import { sum } from "../kit/routing.js";
import { LessonView, widgetOf } from "../kit/views_old.js";
import { capital, count, grouped, threeDigits } from "../kit/words.js";

// --- arithmetic: the twin of moe_lesson/lm/ledger.py, and of axis_top in ledger_view.py ---------------------------------

const FEED_FORWARD = ["dense", "shared", "router", "routed"];

/** A dense matrix that every token is multiplied with: a multiplication and its addition are 2 FLOPs. */
function matrix(rows, columns) {
  return { total: rows * columns, active: rows * columns, flops: 2 * rows * columns };
}

/** `once` as often as there are copies; a token uses `used` of them. */
function copies(once, all, used = all) {
  return { total: all * once.total, active: used * once.active, flops: used * once.flops };
}

function added(costs) {
  const over = (key) => sum(costs.map((cost) => cost[key]));
  return { total: over("total"), active: over("active"), flops: over("flops") };
}

/** K: what is wished, or all there are. */
export function activeExperts(sizes) {
  return Math.min(sizes.top_k, sizes.num_experts);
}

/** The cost of a model by the parts of its bars. Norms and the lookup of an embedding pay no FLOPs. */
export function shownParts(sizes) {
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
  return added(Object.values(shownParts(sizes)));
}

/** Bytes of the parameters in bf16; in training also of their gradients and of AdamW's two float32 averages. */
function memory(cost, training) {
  return cost.total * (training ? 2 + 2 + 4 + 4 : 2);
}

/** The length of a bar, key "total", "active" or "flops", on the axis of parameters: FLOPs at half their number. */
function onAxis(cost, key) {
  return key === "flops" ? cost.flops / 2 : cost[key];
}

/** The end of the axis: a round number that holds the start, times 4 as often as a shown bar needs. */
export function axisTop(start, ...shown) {
  const need = [start, ...shown].map((cost) => Math.max(cost.total, cost.flops / 2));
  let power = 1;
  while (10 * power < need[0]) power *= 10;
  let top = power * [1, 2, 4, 6, 8, 10].find((step) => step * power >= need[0]);
  while (top < Math.max(...need)) top *= 4;
  return top;
}

// --- words: the twins of those in ledger_view.py ---------------------------------------------------------------------

const COUNTED = ["", " M", " B", " T"];
const FLOPS = [" FLOPs", " MFLOPs", " GFLOPs", " TFLOPs"];
const PLAIN_FLOPS = ["", " M", " G", " T"]; // under a title that says FLOPs
const BYTES = [" bytes", " MB", " GB", " TB"];
const AXES = [["", " k", " M", " B", " T"], ["", " k", " M", " G", " T"]]; // parameters above, FLOPs below

/** A number in words: exact below a million, else three digits and the unit of its thousands. */
export function amount(number, units = COUNTED) {
  const step = [1e6, 1e9, 1e12].filter((limit) => number >= limit).length;
  return step ? threeDigits(number / 1000 ** (step + 1)) + units[step] : grouped(number) + units[0];
}

/** Numbers of an axis: all in the unit that suits its end. */
export function ticksOf(top, units) {
  const step = [1e3, 1e6, 1e9, 1e12].filter((limit) => top >= limit).length;
  return [0, 1, 2, 3, 4].map((quarter) => {
    const value = (top * quarter) / 4 / 1000 ** step;
    return value ? Number(value.toPrecision(3)) + units[step] : "0";
  });
}

/** A share in words; nothing that exists is 0%, and nothing that lacks a part is 100%. */
export function shareInWords(part, whole) {
  const share = (100 * part) / whole;
  if (share > 0 && share < 1) return "under 1%";
  return share > 99 && share < 100 ? "over 99%" : `${share.toFixed(0)}%`;
}

function feedForwardShare(sizes) {
  const parts = shownParts(sizes);
  return shareInWords(sum(FEED_FORWARD.map((key) => parts[key].total)), modelCost(sizes).total);
}

/** What the ledger shows, in words. */
export function summaryOf(label, sizes, pinned) {
  const words = [costWords(sizes)];
  if (pinned) words.push(outlineWords(modelCost(sizes), pinned));
  return [...words, shapeWords(label, sizes)].join(" ");
}

function costWords(sizes) {
  const cost = modelCost(sizes);
  return `Total ${amount(cost.total)} parameters; a token uses ${amount(cost.active)} (${shareInWords(cost.active, cost.total)}) `
    + `and pays ${amount(cost.flops, FLOPS)}; the feed-forward layers hold ${feedForwardShare(sizes)} of the parameters.`;
}

function outlineWords(cost, pinned) {
  const other = modelCost(pinned);
  const ratio = (key) => (cost[key] / other[key] < 0.01 ? "under 0.01" : threeDigits(cost[key] / other[key]));
  return `Against the outline (${pinned.label}): total × ${ratio("total")}, active × ${ratio("active")}, `
    + `FLOPs × ${ratio("flops")}.`;
}

function shapeWords(label, sizes) {
  const layers = `${count(sizes.layers, "layer")}, ${layerWords(sizes)}.`;
  const words = `${capital(label)}: width ${grouped(sizes.width)}, context ${grouped(sizes.context)}, `
    + `vocabulary ${grouped(sizes.vocabulary)}; ${layers}`;
  if (!sizes.num_experts || activeExperts(sizes) === sizes.top_k) return words;
  return `${words} K is ${activeExperts(sizes)}, not ${sizes.top_k}: there are no more experts to choose.`;
}

function layerWords(sizes) {
  const hidden = (units) => `${grouped(units)} hidden units`;
  const rest = sizes.num_experts
    ? `${sizes.num_experts} routed experts of ${hidden(sizes.hidden)}, K = ${activeExperts(sizes)} active, `
      + `and ${sizes.num_shared} shared`
    : `a dense FFN of ${hidden(sizes.hidden)}`;
  const first = Math.min(sizes.leading, sizes.layers);
  if (!first) return `each with ${rest}`;
  const leading = `the first ${first === 1 ? "" : `${first} `}with a dense FFN of ${hidden(sizes.leading_hidden)}`;
  return leading + (first < sizes.layers ? `, the other ${sizes.layers - first} with ${rest}` : "");
}

/** What the parameters weigh, and how others count the active ones. */
export function notesOf(sizes) {
  const cost = modelCost(sizes);
  const whole = cost.active - sizes.width + sizes.vocabulary * sizes.width;
  return `Memory: the parameters take ${amount(memory(cost, false), BYTES)} in bf16; training with AdamW takes `
    + `${amount(memory(cost, true), BYTES)}, gradients and averages included. `
    + `A token uses one row of the embedding; papers often count it whole: then ${amount(whole)} are active.`;
}

// --- state: what is shown, computed from what Python sent ------------------------------------------------------------

/** The sliders in the order of the page: their names for a screen reader, and their value in words. */
const SLIDERS = {
  width: ["D, model width", ({ width }) => `D = ${grouped(width)}: model width`],
  layers: ["depth, layers", ({ layers }) => `depth = ${count(layers, "layer")}`],
  context: ["S, context", ({ context }) => `S = ${grouped(context)} tokens of context`],
  hidden: ["H, hidden units", ({ hidden, num_experts }) => (
    `H = ${grouped(hidden)} hidden units ${num_experts ? "per expert" : "(dense)"}`)],
  num_experts: ["N, routed experts", ({ num_experts }) => (
    num_experts ? `N = ${num_experts} routed experts` : "N = 0: dense, no experts")],
  top_k: ["K, active experts", (sizes) => {
    if (!sizes.num_experts) return "K: no experts to choose";
    const active = activeExperts(sizes);
    return active < sizes.top_k ? `K = ${active}, not ${sizes.top_k}: all N are active` : `K = ${active} active per token`;
  }],
  num_shared: ["Ks, shared experts", ({ num_experts, num_shared }) => (
    num_experts ? `Ks = ${num_shared} shared, always active` : "Ks: no experts to share")],
};

/** Everything that is shown, from the traits of the model. */
export function readState(model) {
  const start = model.get("start");
  const from = model.get("starts")[start];
  const sliders = Object.fromEntries(Object.keys(SLIDERS).map((name) => [name, model.get(name)]));
  const left = Object.entries(sliders).some(([name, value]) => value !== from[name]);
  const pinned = model.get("pinned");
  return { start, from, sizes: { ...from, ...sliders }, label: left ? `${start}, changed` : start,
    pinned: "label" in pinned ? pinned : null };
}

/** The end of the axis, in parameters, and what times that of the start it is. */
export function axisOf({ from, sizes, pinned }) {
  const shown = [sizes, ...(pinned ? [pinned] : [])].map(modelCost);
  const top = axisTop(modelCost(from), ...shown);
  return { top, grown: top / axisTop(modelCost(from)) };
}

// --- page ------------------------------------------------------------------------------------------------------------

const BARS = { total: "parameters that exist", active: "parameters a token uses", flops: "what a token pays" };

/** Build the widget's elements once; `draw` fills them. */
function buildLedger(model) {
  const page = { root: make("div", "moe-root moe-ledger") };
  keepKeys(page.root);
  const header = buildHeader(page, model.get("title"));
  say(page.badge, "computed");
  page.notes = make("div", "moe-caption");
  const figure = make("div", "moe-ledger-figure");
  figure.append(buildBars(page, model), buildTable(page, model));
  page.root.append(header, buildStarts(page, model), buildSliders(page, model), figure, page.notes, buildStatus(page));
  return page;
}

function buildStarts(page, model) {
  const row = make("div", "moe-row");
  const choice = makeChoice("start from", Object.keys(model.get("starts")).map((name) => [name, name]));
  page.starts = choice.radios;
  row.append(choice.box);
  return row;
}

/** One slider per size; its position is that of the value among its choices. */
function buildSliders(page, model) {
  const grid = make("div", "moe-ledger-sliders moe-stacked");
  page.sliders = Object.fromEntries(Object.entries(SLIDERS).map(([name, [label]]) => {
    const made = makeSlider(label, 0, model.get("choices")[name].length - 1);
    grid.append(made.box);
    return [name, made];
  }));
  page.pin = makeButton();
  grid.append(page.pin);
  return grid;
}

function buildBars(page, model) {
  const box = make("div", "moe-ledger-bars");
  box.setAttribute("aria-hidden", "true"); // the table beside them says the same in numbers
  page.bars = Object.fromEntries(Object.entries(BARS).map(([key, words]) => {
    const bar = { value: make("b"), more: make("span"), parts: {}, outline: make("div", "moe-ledger-outline") };
    const stack = make("div", "moe-ledger-stack");
    for (const [part, , colour] of model.get("legend")) {
      bar.parts[part] = make("div", "moe-ledger-part");
      Object.assign(bar.parts[part].style, { background: colour, color: inkOn(colour) });
    }
    const head = make("div", "moe-ledger-head");
    head.append(make("span", "", words), bar.value, bar.more);
    stack.append(...Object.values(bar.parts), bar.outline);
    box.append(head, stack);
    return [key, bar];
  }));
  page.axes = AXES.map(() => buildTicks(box));
  page.axis = make("div", "moe-caption");
  box.append(page.axis);
  return box;
}

/** Five numbers under the quarters of the axis. */
function buildTicks(box) {
  const row = make("div", "moe-ledger-ticks");
  const ticks = [0, 1, 2, 3, 4].map((quarter) => {
    const tick = make("span");
    tick.style.left = `${25 * quarter}%`;
    return tick;
  });
  row.append(...ticks);
  box.append(row);
  return ticks;
}

/** The legend of the bars, with every part's numbers. */
function buildTable(page, model) {
  page.cells = {};
  const rows = model.get("legend").map(([part, name, colour]) => {
    const [title, swatch] = [headCell("row", ""), make("span", "moe-ledger-swatch")];
    swatch.style.background = colour;
    title.append(swatch, name);
    page.cells[part] = { total: make("td"), active: make("td"), flops: make("td") };
    return rowWith([title, ...Object.values(page.cells[part])]);
  });
  return makeTable(["part", "parameters", "used", "FLOPs"].map((name) => headCell("col", name)), rows);
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncSliders(page, choices, { sizes }) {
  for (const [name, made] of Object.entries(page.sliders)) {
    const positions = choices[name];
    syncSlider(made, positions.indexOf(sizes[name]), positions.length - 1, SLIDERS[name][1](sizes));
    made.slider.disabled = !sizes.num_experts && (name === "top_k" || name === "num_shared");
  }
}

const LETTER = 7.6; // pixels that a letter takes at most on average: a name stands in its part where it fits

function syncBars(page, { sizes, pinned }, legend, top) {
  const width = page.bars.total.outline.parentNode.clientWidth;
  const parts = shownParts(sizes);
  for (const [key, bar] of Object.entries(page.bars)) {
    for (const [part, name] of legend) {
      const share = onAxis(parts[part], key) / top;
      bar.parts[part].style.width = `${100 * share}%`;
      say(bar.parts[part], name.length * LETTER < share * width ? name : "");
    }
    bar.outline.hidden = !pinned;
    if (pinned) bar.outline.style.width = `${(100 * onAxis(modelCost(pinned), key)) / top}%`;
  }
}

/** The numbers over the bars. */
function syncHeads(page, { sizes, pinned }) {
  const cost = modelCost(sizes);
  const inWords = (one, key) => amount(one[key], key === "flops" ? FLOPS : COUNTED);
  const more = { total: [`${feedForwardShare(sizes)} of them in feed-forward layers`],
    active: [`${shareInWords(cost.active, cost.total)} of those that exist`], flops: [] };
  for (const [key, bar] of Object.entries(page.bars)) {
    say(bar.value, inWords(cost, key));
    say(bar.more, [...more[key], ...(pinned ? [`outline ${inWords(modelCost(pinned), key)}`] : [])].join(" · "));
  }
}

function syncAxis(page, { top, grown }, pinned) {
  const rows = [ticksOf(top, AXES[0]), ticksOf(2 * top, AXES[1])];
  page.axes.forEach((ticks, row) => ticks.forEach((tick, quarter) => say(tick, rows[row][quarter])));
  say(page.axis, "One axis for all: parameters above, FLOPs below, 2 for each parameter; attention's scores over the context "
    + `come on top.${grown > 1 ? ` The axis has grown × ${grouped(grown)}.` : ""}${pinned ? ` Dashed: ${pinned.label}.` : ""}`);
}

function syncTable(page, sizes) {
  for (const [part, cost] of Object.entries(shownParts(sizes))) {
    const { total, active, flops } = page.cells[part];
    say(total, cost.total ? amount(cost.total) : "–");
    say(active, cost.total ? amount(cost.active) : "–");
    say(flops, cost.total ? amount(cost.flops, PLAIN_FLOPS) : "–");
  }
}

// --- the widget ------------------------------------------------------------------------------------------------------

class LedgerView extends LessonView {
  get settings() { return ["start", "pinned", ...Object.keys(SLIDERS)]; }

  prepare() {
    this.choices = this.model.get("choices");
  }

  read() {
    this.state = readState(this.model);
  }

  build() {
    return buildLedger(this.model);
  }

  draw() {
    const { page, state } = this;
    const axis = axisOf(state);
    syncBars(page, state, this.model.get("legend"), axis.top); // first: it reads the layout, which the lines below make stale
    syncHeads(page, state);
    syncAxis(page, axis, state.pinned);
    syncTable(page, state.sizes);
    syncSliders(page, this.choices, state);
    syncChoice(page.starts, state.start);
    say(page.pin, state.pinned ? "Remove the outline" : "Keep as outline");
    say(page.notes, notesOf(state.sizes));
    say(page.status, summaryOf(state.label, state.sizes, state.pinned));
  }

  /** A start takes all sliders with it; clicked again, it takes them back. */
  setOut(start) {
    const from = this.model.get("starts")[start];
    save(this.model, { start, ...Object.fromEntries(Object.keys(SLIDERS).map((name) => [name, from[name]])) });
  }

  /** Keep what is shown as the outline, or let the outline go. */
  togglePin() {
    const { label, sizes, pinned } = this.state;
    save(this.model, { pinned: pinned ? {} : { label, ...sizes } });
  }

  reset() {
    save(this.model, this.model.get("initial"));
  }

  wire() {
    const { page, model, choices } = this;
    return [
      ...Object.entries(page.sliders).flatMap(([name, slider]) => (
        onSlide(model, slider, (position) => ({ [name]: choices[name][position] })))),
      ...page.starts.map((radio) => on(radio, "click", () => this.setOut(radio.value))),
      on(page.pin, "click", () => this.togglePin()),
    ];
  }
}

export default widgetOf(LedgerView);
