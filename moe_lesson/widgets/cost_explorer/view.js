// The cost explorer: how long each stage of an MoE layer takes at least, on one device and on several.
//
// Letters: T tokens, D model width, H expert width, N experts, K active, Ks shared, R = T·K routed rows, P devices, M of which a
// token visits at most. A device's memory moves numbers, of as many bytes as they have there.

import { apart, Chart, legend } from "../kit/charts.js";
import { choice, menu, slider, tick } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { DESIGN } from "../kit/design.js";
import { make, say } from "../kit/page.js";
import { combinations } from "../kit/routing.js";
import { WidgetView, widgetOf } from "../kit/view.js";
import { capital, count, grouped, listed } from "../kit/words.js";

// --- one device: the twin of moe_lesson/measure/roofline.py ----------------------------------------------------------

/** The product of rows with a matrix [ins, outs], or of some rows with each of several. */
function product(name, rows, ins, outs, matrices = 1) {
  return { name, flops: 2 * rows * ins * outs, numbers: rows * ins + matrices * ins * outs + rows * outs };
}

/** How many of N experts are called at all, on average, by T tokens that each call any K. */
const calledExperts = ({ tokens: T, num_experts: N, top_k: K }) => N * (1 - (1 - K / N) ** T);

const moved = (name, numbers) => ({ name, flops: 0, numbers });

/** The dense FFN of equal FLOPs: (K + Ks)·H hidden units. */
export function denseStages({ tokens: T, width: D, expert_width: H, top_k: K, num_shared: Ks }, kind = "") {
  const F = (K + Ks) * H;
  return [product(`${kind}up`, T, D, 2 * F), moved(`${kind}activation`, 3 * T * F), product(`${kind}down`, T, F, D)];
}

/** The mixture; last in it the shared experts, a dense FFN of Ks·H hidden units, and the sum of both parts. */
export function moeStages({ fused, ...sizes }) {
  const { tokens: T, num_experts: N, top_k: K, width: D, expert_width: H, num_shared: Ks } = sizes;
  const [R, called, router] = [T * K, calledExperts(sizes), product("router", T, D, N)];
  const [up, down] = [product("up", R, D, 2 * H, called), product("down", R, H, D, called)];
  const shared = Ks ? [...denseStages({ ...sizes, top_k: 0 }, "shared "), moved("shared sum", 3 * T * D)] : [];
  if (fused) return [router, { ...up, numbers: up.numbers + R * H }, down, moved("combine", R * D + T * D), ...shared];
  return [router, moved("gather", 2 * R * D), up, moved("activation", 3 * R * H), moved("weigh", 2 * R * H), down,
    moved("combine", 3 * R * D + T * D), ...shared];
}

/** Stages in turn, { name, from, to } in seconds; whether each multiplies, and whether it waits for memory, its units idle. */
export function inTurn(stages, device) {
  let to = 0;
  return stages.map(({ name, flops, numbers }) => {
    const [work, traffic, from] = [flops / device.flops, numbers / device.numbers, to];
    to += Math.max(work, traffic);
    return { name, from, to, multiplies: work > 0, waits: traffic > work };
  });
}

const lasting = (stages) => d3.sum(stages, ({ from, to }) => to - from); // seconds in all

/** The mixture's time over the dense FFN's. */
export function ratioOf(sizes, device) {
  const [moe, dense] = [moeStages(sizes), denseStages(sizes)].map((stages) => inTurn(stages, device).at(-1).to);
  return moe / dense;
}

/** With how many rows of an expert its products keep the units busy; Infinity if with none. */
export function leastRows({ width: D, expert_width: H, fused }, device) {
  const least = (ins, outs) => {
    const left = (2 * device.numbers) / device.flops - 1 / ins - 1 / outs;
    return left > 0 ? 1 / left : Infinity;
  };
  return { up: least(fused ? D / 1.5 : D, 2 * H), down: least(H, D) }; // fused, up writes 3H numbers of a row, not 2H
}

// --- several devices: after moe_lesson/moe/parallel.py ---------------------------------------------------------------

const [JOURNEYS, BYTES] = [4, 2]; // of a row's D numbers, there and back and their gradients; of a number that travels
const PASSES = 3; // a backward pass does twice the products of a forward one, and counts as two

/**
 * On how many of P devices the experts of a token are on average, if all choices of K experts are equally likely: exact. Without
 * a limit it is P·(1 − C(N − N/P, K) / C(N, K)). A limit leaves a token's M best devices to it, as `device_limited` does; that
 * makes M of more than M, and changes nothing else: so each number v of devices is counted, by inclusion and exclusion.
 */
export function devicesReached(N, K, P, M) {
  const within = (v) => combinations((N / P) * v, K) / combinations(N, K); // the share of the choices that v devices can hold
  const just = (v) => combinations(P, v) * d3.sum(d3.range(v), (j) => (-1) ** j * combinations(v, j) * within(v - j));
  return d3.sum(d3.range(1, P + 1), (v) => Math.min(v, M) * just(v));
}

/** M as it counts: no more than there are devices, and enough to hold K experts. */
export const limitOf = ({ num_experts: N, top_k: K, num_devices: P, limit: M }) => Math.max(Math.min(M, P), Math.ceil((K * P) / N));

/**
 * A step of training on P devices that share the tokens: { sends, bytes } of a token, and the seconds of its parts; where a
 * token sends a row for each expert, a copy for each device, and a copy for each of at most M. No shared expert is waited for.
 */
export function stepsOf(sizes, { seconds, routed }, link) {
  const { tokens: T, num_experts: N, top_k: K, width: D, num_devices: P, imbalance } = sizes;
  return [K, devicesReached(N, K, P, P), devicesReached(N, K, P, limitOf(sizes))].map((sends) => {
    const bytes = JOURNEYS * BYTES * D * sends * (1 - 1 / P);
    const [compute, send] = [(PASSES * seconds) / P, ((T / P) * bytes) / link];
    const wait = (imbalance - 1) * ((PASSES * routed) / P + send);
    return { sends, bytes, compute, send, wait, total: compute + send + wait };
  });
}

// --- in words --------------------------------------------------------------------------------------------------------

const times = d3.format(".3~r");
const withUnit = (number, unit) => d3.format(".3s")(number).replace(/[a-zµ]?$/i, (prefix) => `\u00a0${prefix}${unit}`);

function productWords(name, needs, has) {
  if (needs === Infinity) return `${name} would wait for memory with any number of rows: its matrices are too narrow.`;
  const busy = has < needs ? "it waits for memory" : "it does";
  return `${name} needs ${grouped(Math.round(needs))} rows an expert to keep the units busy and has ${grouped(Math.round(has))}: ${busy}.`;
}

/** One device: how long, and what decides. */
function describeOne({ sizes, device, moe, dense, least, here }) {
  const [all, plain, rows] = [moe.at(-1).to, dense.at(-1).to, (sizes.tokens * sizes.top_k) / calledExperts(sizes)];
  const at = here.filter((one) => one.expert_width === sizes.expert_width).map(told);
  const without = Math.round(100 * (1 - lasting(moe.filter(({ multiplies }) => multiplies)) / all));
  return `${capital(device)}, ${sizes.fused ? "fused" : "unfused"}: at least ${withUnit(all, "s")}, ${times(all / plain)} × the `
    + `${withUnit(plain, "s")} of the dense FFN of equal FLOPs`
    + `${at.length ? `; measured: ${listed(at)}` : ""}. In ${without}% of it no product runs. `
    + `${productWords("Up", least.up, rows)} ${productWords("Down", least.down, rows)}`
    + (all < plain ? " Below 1 ×: the dense FFN's activation is not fused." : "");
}

/** What becomes of a token, and how long a step takes then. */
function ways({ sizes, steps, alone }) {
  const [, each, few] = steps.map(({ sends }) => `${times(sends)} a token`);
  const names = [`${count(sizes.top_k, "row")} a token`, `a copy a device, ${each}`, `at most ${limitOf(sizes)}, ${few}`];
  return steps.map(({ bytes, total }, i) => (
    `${names[i]}, ${withUnit(bytes, "B")}: ${withUnit(total, "s")}, ${times(alone / total)} × as fast`));
}

/** Several devices: what is sent, and what that takes. */
function describeMany({ link, ...state }) {
  const { sizes: { num_experts: N, num_devices: P, num_shared: Ks }, steps: [{ compute, send, wait }] } = state;
  const [rows, ...copies] = ways(state);
  return `${P} devices with ${count(N / P, "expert")} each${Ks ? " and the shared" : ""}, ${link}. ${capital(rows)} as one device: `
    + `${withUnit(compute, "s")} to compute, ${withUnit(send, "s")} to send, ${withUnit(wait, "s")} until the fullest is done. `
    + copies.map((words) => `${capital(words)}.`).join(" ");
}

/** The measured points that belong to the curve. */
export function measuredHere(measured, sizes) {
  const all = ["device", "tokens", "width", "num_experts", "top_k", "num_shared"];
  return measured.filter((one) => all.every((name) => one[name] === sizes[name]));
}

const told = ({ way, ratio }) => `${way} ${times(ratio)} ×`;
const measuredWords = ([first]) => (first ? `Circles: measured on ${first.machine}, ${first.date}.`
  : "Nothing was measured on this device at this T, D, N, K and Ks.");

// --- the widget ------------------------------------------------------------------------------------------------------

const STAGES = ["router", "gather", "up", "activation", "weigh", "down", "combine", "shared"];
const { bar: BUSY, accent: WAITS, grey: IDLE, hues: { pink: SEND } } = DESIGN;
const [ONE, CURVES] = ["one device", [["unfused", WAITS], ["fused", BUSY]]];
const EQUAL = { name: "dense", aid: true, colour: "currentColor", dash: "4 4" };
const [ROW, BAR, NAMES, STEP] = [24, 18, 176, 46]; // pixels: from bar to bar, a bar, the names before it; a bar with words above

/** The sliders of both views: their names for a screen reader, and their values in words. */
const SIZES = {
  tokens: ["T, tokens", ({ tokens }) => `T = ${grouped(tokens)} tokens`],
  width: ["D, model width", ({ width }) => `D = ${grouped(width)} wide`],
  expert_width: ["H, expert width", ({ expert_width: H }) => `H = ${grouped(H)} per expert`],
  num_experts: ["N, experts", ({ num_experts: N }) => `N = ${N} experts`],
  top_k: ["K, active experts", ({ top_k: wish, sizes: { top_k: K } }) => `K = ${K} active${K < wish ? `, not ${wish}` : ""}`],
  num_shared: ["Ks, shared experts", ({ num_shared: Ks }) => `Ks = ${Ks} shared`],
};

/** The end of an axis: it stands still until a bar leaves it, and is four times as far then. */
export const grown = (end, needed) => (needed <= end ? end : grown(4 * end, needed));
const axisTitle = (unit, from, to) => `× ${unit}${to > from ? `; the axis has grown × ${to / from}` : ""}`;

class CostExplorerView extends WidgetView {
  static data = ["devices", "links", "choices", "measured"];

  static settings = ["view", ...Object.keys(SIZES), "device", "fused", "num_devices", "link", "imbalance", "limit"];

  declare() {
    const { choices, devices, links } = this.state;
    const along = ([trait, [name, words]]) => slider(name, { trait, values: choices[trait], words });
    this.ofSeveral = [
      choice("devices", choices.num_devices, { trait: "num_devices", set: (value) => ({ num_devices: Number(value) }) }),
      choice("link", Object.keys(links), { trait: "link" }),
      along(["imbalance", ["imbalance of the devices", ({ imbalance }) => `fullest: ${imbalance} × mean`]]),
      slider("M, devices of a token at most", { min: 1, max: ({ num_devices: P }) => P, trait: "limit",
        words: ({ sizes, limit }) => `M = ${limitOf(sizes)} at most${limitOf(sizes) > limit ? `, not ${limit}` : ""}` })];
    return [choice("look at", [ONE, "several devices"], { trait: "view" }), menu("device", Object.keys(devices), { trait: "device" }),
      ...Object.entries(SIZES).map(along), tick("fused", "fused"), ...this.ofSeveral];
  }

  build() {
    const [figure, one, several, pair, row] = ["moe-cost", "", "", "moe-charts", "moe-row"].map((name) => make("div", name));
    [this.views, this.note] = [[one, several], make("span")];
    this.large = this.views.map(() => make("div", "moe-cost-large"));
    this.stages = new Chart({ height: (2 + STAGES.length) * ROW + 44, margin: { top: 0, left: NAMES, right: 10 } });
    this.curve = new Chart({ height: (2 + STAGES.length) * ROW + 44, margin: { top: 26, left: 32, right: 80 } });
    this.steps = new Chart({ height: 4 * STEP + 44, margin: { top: 0, left: 4, right: 10 } });
    const key = legend([["keeps the units busy", BUSY],
      ["waits for memory", `repeating-linear-gradient(45deg, ${WAITS} 0 3px, transparent 3px 5px)`]]);
    key.append(this.note);
    pair.append(this.stages.box, this.curve.box);
    one.append(this.large[0], pair, key);
    row.append(...this.ofSeveral.map(({ box }) => box));
    several.append(row, this.large[1], this.steps.box, legend([["compute: forward, and twice that backward", BUSY],
      ["send", SEND], ["wait for the fullest device", IDLE]]));
    figure.append(one, several);
    this.waits = stripesIn(this.stages.svg);
    return [figure];
  }

  renew() {
    const { state, state: { devices, links, link, measured, top_k: wish, num_experts: N, choices: { expert_width: widths } } } = this;
    const [device, sizes] = [devices[state.device], { ...state, top_k: Math.min(wish, N) }];
    const [moe, dense] = [moeStages(sizes), denseStages(sizes)].map((stages) => inTurn(stages, device));
    const curves = [false, true].map((fused) => widths.map((H) => [H, ratioOf({ ...sizes, fused, expert_width: H }, device)]));
    const [seconds, shared] = [moe.at(-1).to, lasting(moe.filter(({ name }) => name.startsWith("shared")))];
    Object.assign(state, { sizes, moe, dense, curves, least: leastRows(sizes, device), alone: PASSES * seconds,
      steps: stepsOf(sizes, { seconds, routed: seconds - shared }, links[link]), here: measuredHere(measured, sizes) });
  }

  badge() { return `bounds of a model${this.state.measured.length ? "; circles: measured" : ", not measured"}`; }

  describe() { return this.state.view === ONE ? describeOne(this.state) : describeMany(this.state); }

  draw() {
    const rooms = [this.stages, this.curve, this.steps].map((chart) => chart.sized()); // reads the layout: first
    const { state, state: { view, sizes, moe, dense, steps, alone, curves, here } } = this;
    this.views.forEach((box, i) => { box.style.visibility = (view === ONE) === !i ? "" : "hidden"; });
    say(this.large[0], `${times(moe.at(-1).to / dense.at(-1).to)} × the time of the dense FFN, at equal FLOPs`);
    say(this.large[1], `${sizes.num_devices} devices: ${times(alone / steps[0].total)} × as fast as one, `
      + `${times(alone / steps[2].total)} × with fewer sends`);
    say(this.note, measuredWords(here));
    const [, unfused] = curves[0][state.choices.expert_width.indexOf(sizes.expert_width)]; // fused or not, the axis stands still
    const end = grown(4, d3.max([unfused, ...here.map(({ ratio }) => ratio)]));
    this.drawStages(rooms[0], end);
    this.drawCurves(rooms[1], end);
    this.drawSteps(rooms[2]);
  }

  /** Both layers as stacked bars; under them the mixture's stages, each in a row of its own. */
  drawStages({ width, height }, end) {
    const { stages: chart, waits, state: { moe, dense, sizes: { fused } } } = this;
    const [unit, x] = [dense.at(-1).to, d3.scaleLinear([0, end], [0, width])];
    const bars = (kind, stages, rowOf) => stages.map(({ name, from, to, waits: idle }) => (
      { key: `${kind} ${name}`, x: x(from / unit), y: rowOf(name) * ROW + 3, width: Math.max(x((to - from) / unit) - 1, 1),
        height: BAR, colour: idle ? waits : BUSY }));
    chart.axes(x, null, { xTicks: 4, xTitle: axisTitle("dense", 4, end) });
    chart.lines([{ ...EQUAL, points: [[1, 0], [1, height]] }], x, d3.scaleLinear([0, height], [0, height]));
    chart.bars([...bars("dense", dense, () => 0), ...bars("MoE", moe, () => 1),
      ...bars("stage", moe, (name) => 2 + STAGES.indexOf(name.split(" ")[0]))]);
    const rows = [["dense FFN", withUnit(unit, "s")], [fused ? "MoE, fused" : "MoE", withUnit(moe.at(-1).to, "s")],
      ...STAGES.map((stage) => [stage, moe.filter(({ name }) => name.startsWith(stage))]).map(([stage, own]) => (
        [`– ${stage}`, own.length ? withUnit(lasting(own), "s") : stage === "shared" ? "none" : "within up"]))];
    chart.words(rows.flatMap(([name, time], row) => [
      { key: `name ${row}`, x: 4 - NAMES, y: row * ROW + 16, text: name, strong: row < 2 },
      { key: `time ${row}`, x: -8, y: row * ROW + 16, text: time, anchor: "end" }]));
  }

  drawCurves({ width, height }, end) {
    const { curve: chart, theme: { ink }, state: { curves, sizes, here, choices: { expert_width: widths } } } = this;
    const [x, y] = [d3.scaleLog(d3.extent(widths), [0, width]), d3.scaleLinear([0, end], [height, 0])];
    chart.axes(x, y, { xTitle: "H, expert width", yTitle: "× dense", xValues: [64, 256, 1024, 4096], xFormat: grouped });
    const series = CURVES.map(([name, colour], i) => ({ name, colour, points: curves[i], strong: sizes.fused === Boolean(i) }));
    chart.lines([{ ...EQUAL, points: d3.extent(widths).map((H) => [H, 1]) }, ...series], x, y);
    const [H, ratio] = curves[Number(sizes.fused)][widths.indexOf(sizes.expert_width)];
    const measured = here.map((one, i) => ({ key: `at ${i}`, x: x(one.expert_width), y: y(one.ratio), text: told(one) }));
    const beside = (at) => (at > width / 2 ? { x: at - 12, anchor: "end" } : { x: at + 12 });
    const heights = apart(measured.map((one) => one.y - 8), 16, height); // ways that are as fast have one place
    chart.dots([{ key: "here", x: x(H), y: y(ratio), colour: ink, radius: 5 },
      ...measured.map((one) => ({ ...one, colour: ink, hollow: true, radius: 9 }))]);
    chart.names(series.map(({ name, points, ...one }) => ({ ...one, key: name, text: name, x: width, y: y(points.at(-1)[1]) })),
      measured.map((one, i) => ({ ...one, ...beside(one.x), y: heights[i] })));
  }

  /** One device, and several with each way to send a token. */
  drawSteps({ width }) {
    const { steps: chart, state, state: { steps, alone } } = this;
    const end = grown(1, d3.max(steps, ({ total }) => total / alone));
    const x = d3.scaleLinear([0, end], [0, width]);
    chart.axes(x, null, { xTicks: 4, xTitle: axisTitle("one device", 1, end) });
    chart.bars([{ compute: alone, send: 0, wait: 0 }, ...steps].flatMap(({ compute, send, wait }, row) => (
      [[0, compute, BUSY], [compute, send, SEND], [compute + send, wait, IDLE]].map(([from, length, colour]) => (
        { key: `${row} ${colour}`, x: x(from / alone), y: row * STEP + 22, width: x(length / alone), height: BAR, colour })))));
    chart.words([`one device: ${withUnit(alone, "s")}`, ...ways(state)].map((text, row) => (
      { key: row, x: 0, y: row * STEP + 16, text })));
  }
}

/** A pattern to fill what waits for memory with. Its name has no digit: d3 would count from one colour to it. */
function stripesIn(svg) {
  const name = `moe-stripes-${Math.random().toString(36).replace(/[\d.]/g, "")}`;
  svg.append("defs").append("pattern").attr("id", name).attr("width", 5).attr("height", 5)
    .attr("patternUnits", "userSpaceOnUse").attr("patternTransform", "rotate(45)")
    .append("rect").attr("width", 3).attr("height", 5).attr("fill", WAITS);
  return `url(#${name})`;
}

export default widgetOf(CostExplorerView);
