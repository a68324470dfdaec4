// Segmentation: experts cut into pieces, and pieces that are always on, while a token pays the same. Costs and losses come
// from Python; this module counts the routes and draws.
//
// Letters: m pieces of each of GShard's 2 experts, N routed experts, K active ones, Ks shared ones.

import { Chart, legend } from "../kit/charts.js";
import { choice, slider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { DESIGN } from "../kit/design.js";
import { make, say } from "../kit/page.js";
import { WidgetView, widgetOf } from "../kit/view.js";
import { capital, count, grouped, rounded } from "../kit/words.js";

const [ROUTER, EMPTY, BAR, FAINT] = [DESIGN.grey, `${DESIGN.grey}40`, DESIGN.bar, `${DESIGN.bar}4d`];
const MEASURES = { loss: "test loss", hybridity: "hybridity" };

// --- what is shown ---------------------------------------------------------------------------------------------------

/** The world, the setting, and Ks as it counts: up to the wish, as many as leave one active piece to be routed. */
export function settingOf({ worlds, world, segments, num_shared: wish }) {
  const here = worlds[world];
  const setting = here.settings.findLast((one) => one.segments === segments && one.num_shared <= wish);
  return { here, setting, shared: setting.num_shared };
}

function settingAt({ settings }, segments, shared) {
  return settings.find((one) => one.segments === segments && one.num_shared === shared);
}

/** In how many ways a router can choose K of N experts: a BigInt, exact. */
export function routes({ num_experts: N, top_k: K }) {
  return d3.range(1, K + 1).map(BigInt).reduce((ways, i) => (ways * (BigInt(N - K) + i)) / i, 1n);
}

/** Experts that stand for the choice of some token: one of each of K equal stretches, no model's choice. */
export function example({ num_experts: N, top_k: K }) {
  const golden = (Math.sqrt(5) - 1) / 2;
  return d3.range(K).map((i) => Math.floor((i * N) / K) + Math.floor(((golden * (i + 1)) % 1) * Math.floor(N / K)));
}

function paid({ costs }) {
  return d3.sum(Object.values(costs));
}

// --- in words --------------------------------------------------------------------------------------------------------

const LARGE = new Intl.NumberFormat("en-US", { notation: "compact", compactDisplay: "long", maximumSignificantDigits: 3 });

/** How many times one BigInt is another. */
export function times(more, fewer) {
  const ratio = Number(more) / Number(fewer);
  const words = ratio < 1e6 ? grouped(Math.round(ratio)) : LARGE.format(ratio);
  return more % fewer === 0n && ratio < 1e6 ? words : `about ${words}`;
}

function routesWords({ setting }) {
  return `C(${setting.num_experts}, ${setting.top_k}) = ${grouped(routes(setting))} routes`;
}

/** The routes beside those of the uncut experts, and what sharing has cost of them. */
function comparedWords({ here, setting, segments, shared }) {
  const [mine, uncut] = [routes(setting), routes(settingAt(here, 1, 0))];
  return [...(shared ? [`${times(routes(settingAt(here, segments, 0)), mine)} times fewer than with Ks = 0`] : []),
    ...(segments > 1 ? [`${times(mine, uncut)} times the ${grouped(uncut)} of uncut experts`] : [])].join(", ");
}

function paidWords({ here, setting }) {
  const over = (100 * (paid(setting) - here.pays)) / here.pays;
  const away = `${Math.abs(over).toFixed(1)}% ${over > 0 ? "over" : "under"} the budget of ${grouped(here.pays)}`;
  const parts = Object.entries(setting.costs).filter(([, cost]) => cost).map(([part, cost]) => `${part} ${grouped(cost)}`);
  return `a token pays ${grouped(paid(setting))} parameters (${parts.join(", ")}), ${over ? away : "the whole budget"}`;
}

/** The mean with its interval, or that there is none. */
function measuredWords({ setting }, measure) {
  const value = setting[measure];
  if (!value) return `${MEASURES[measure]} not measured`;
  const [mean, low, high] = [value.mean, value.low, value.high].map((one) => rounded(one));
  return `${MEASURES[measure]} ${mean} [${low}, ${high}]`;
}

/** What the widget shows. */
function describe(state) {
  const { world, segments, shared, num_shared: wish, setting, here } = state;
  const [compared, active] = [comparedWords(state), setting.top_k + setting.num_shared];
  const seeds = setting.loss ? `, 95% over ${count(setting.loss.n, "seed")} (rings)` : "";
  const found = measured(here).map((measure) => measuredWords(state, measure)).join(", ");
  return `${capital(world)}, m = ${segments}, Ks = ${shared}: ${routesWords(state)}${compared && `, ${compared}`}. `
    + `${capital(paidWords(state))}. ${capital(found)}${seeds}.`
    + (shared === wish ? "" : ` Ks is ${shared}, not ${wish}: of ${active} active pieces at least one must be routed.`);
}

/** All that is drawn of a measurement. */
function boundsOf({ low, high, seeds }) {
  return [low, high, ...seeds];
}

/** What was measured in a world. */
function measured({ settings }) {
  return Object.keys(MEASURES).filter((measure) => settings.some((one) => one[measure]));
}

// --- the layer -------------------------------------------------------------------------------------------------------

const [BOX, GAP, TOP] = [18, 6, 62]; // pixels: an expert's height, the room around it, where the experts begin

/**
 * Router and experts at a width in pixels, as boxes whose widths compare parameters: an expert stands where the uncut one
 * stood; the shared pieces come first. A hidden unit has 3D parameters, a column of the router D.
 */
export function layerBoxes({ here, setting, segments }, outer) {
  const experts = (setting.num_experts + setting.num_shared) / segments;
  const columns = Math.ceil(Math.sqrt(experts));
  const room = (outer - (columns - 1) * GAP) / columns;
  const most = d3.max(here.settings, (one) => one.segments * one.expert_width); // hidden units where an expert stood
  const wide = (units) => (units / most) * room;
  const chosen = new Set(example(setting).map((n) => setting.num_shared + n));
  const places = d3.range(experts).map((n) => (
    { key: `place ${n}`, kind: "place", x: (n % columns) * (room + GAP), y: TOP + Math.floor(n / columns) * (BOX + GAP),
      width: room, height: BOX }));
  const pieces = d3.range(experts * segments).map((n) => {
    const place = places[Math.floor(n / segments)];
    const [width, kind] = [wide(setting.expert_width), n < setting.num_shared ? "shared" : chosen.has(n) ? "active" : "routed"];
    return { ...place, key: `piece ${n}`, kind, x: place.x + (n % segments) * width, width };
  });
  const router = { key: "router", kind: "router", x: 0, y: 18, width: wide(setting.num_experts / 3), height: BOX };
  return [router, ...places, ...pieces];
}

// --- the widget ------------------------------------------------------------------------------------------------------

class SegmentationView extends WidgetView {
  static data = ["origin", "worlds", "start"];

  static settings = ["world", "segments", "num_shared"];

  declare() {
    const { worlds } = this.state;
    const each = (trait) => [...new Set(Object.values(worlds)[0].settings.map((one) => one[trait]))].sort((a, b) => a - b);
    const [cuts, shares] = [each("segments"), each("num_shared")];
    return [
      slider("m, pieces of each expert", { trait: "segments", values: cuts, wide: true,
        words: ({ segments }) => `m = ${segments}: ${segments === 1 ? "whole experts" : `experts cut in ${segments}`}` }),
      slider("Ks, shared pieces", { trait: "num_shared", values: shares, wide: true,
        words: ({ num_shared: wish, shared, setting }) => `Ks = ${shared}${shared === wish
          ? ` of ${setting.top_k + shared} active pieces shared` : `, not ${wish}: one must be routed`}` }),
      choice("world", Object.keys(worlds), { trait: "world" }),
    ];
  }

  build() {
    const [figure, side] = [make("div", "moe-charts moe-cut"), make("div", "moe-cut-side")];
    [this.routes, this.compared] = [make("b", "moe-cut-routes"), make("div", "moe-cut-compared")];
    this.layer = new Chart({ height: TOP + 4 * (BOX + GAP), margin: { top: 0, right: 2, bottom: 0, left: 2 } });
    this.bar = new Chart({ height: 68, margin: { top: 22, right: 50, bottom: 24, left: 4 } });
    side.append(this.routes, this.compared, this.bar.box);
    figure.append(this.layer.box, side);
    const colours = legend([["router", ROUTER], ["active for an example token", BAR],
      ["routed, not chosen", `linear-gradient(${FAINT}, ${FAINT}), ${EMPTY}`], // it lies on the grey place
      ["shared, always active", "var(--moe-accent)"], ["given up for the router", EMPTY]]);
    colours.classList.add("moe-cut-key");
    this.room = make("div", "moe-charts moe-cut-room");
    this.charts = Object.fromEntries(Object.keys(MEASURES).map((measure) => (
      [measure, new Chart({ height: 206, margin: { top: 30, bottom: 42, left: 50 } })])));
    this.room.append(...Object.values(this.charts).map(({ box }) => box));
    return [figure, colours, this.room];
  }

  renew() {
    Object.assign(this.state, settingOf(this.state));
  }

  describe() {
    return describe(this.state);
  }

  draw() {
    const { state } = this;
    say(this.routes, routesWords(state));
    say(this.compared, capital(comparedWords(state)) || "As GShard chooses: whole experts.");
    this.drawLayer();
    this.drawBar();
    const here = measured(state.here);
    const boxes = here.map((measure) => this.charts[measure].box);
    if (boxes.length !== this.room.children.length) this.room.replaceChildren(...boxes);
    for (const measure of here) this.drawMeasure(this.charts[measure], measure);
  }

  drawLayer() {
    const { layer, state, state: { setting }, theme } = this;
    const colours = { router: ROUTER, place: EMPTY, routed: FAINT, active: BAR, shared: theme.accent };
    layer.bars(layerBoxes(state, layer.sized().width).map((box) => ({ ...box, colour: colours[box.kind],
      width: box.kind === "place" ? box.width : box.width - 1.5, edged: ["active", "shared"].includes(box.kind) })));
    const { num_experts: N, top_k: K, num_shared: shared } = setting;
    const units = count(setting.expert_width, "unit");
    layer.words([{ key: "router", x: 0, y: 12, text: `router: ${count(N, "column")}, at the scale of the experts` },
      { key: "experts", x: 0, y: TOP - 7, text: `${N} routed experts of ${units}, ${K} active; ${shared} shared` }]);
  }

  /** What a token pays, part by part, inside the outline of the budget. */
  drawBar() {
    const { bar, state: { here, setting }, theme } = this;
    const { width, height } = bar.sized();
    const x = d3.scaleLinear([0, d3.max([here.pays, ...here.settings.map(paid)])], [0, width]);
    const colours = { router: ROUTER, routed: BAR, shared: theme.accent };
    let from = 0;
    const parts = Object.entries(setting.costs).map(([part, cost]) => {
      from += cost;
      return { key: part, x: x(from - cost), y: 4, width: x(cost), height: height - 8, colour: colours[part] };
    });
    bar.axes(x, null, { yTitle: `a token pays ${grouped(paid(setting))} parameters`, xValues: [0, here.pays],
      xFormat: (value) => (value ? `budget ${grouped(value)}` : "0") });
    bar.bars([...parts, { key: "budget", x: 0, y: 0, width: x(here.pays), height, colour: "none", outlined: true }]);
  }

  /** One measurement: every setting has its place, those that were measured their seeds in it, and the mean with its interval. */
  drawMeasure(chart, measure) {
    const { state, state: { here, setting }, theme } = this;
    const { width, height } = chart.sized();
    const cuts = [...new Set(here.settings.map((one) => one.segments))];
    const placeOf = (one) => here.settings.indexOf(one) + 0.7 * cuts.indexOf(one.segments); // a gap between two m
    const [last] = here.settings.slice(-1);
    const x = d3.scaleLinear([-0.5, placeOf(last) + 0.5], [0, width]);
    const known = here.settings.filter((one) => one[measure]);
    const y = d3.scaleLinear(d3.extent(known.flatMap((one) => boundsOf(one[measure]))), [height, 0]).nice(4);
    const places = here.settings.map((one) => ({ one, key: `${one.segments} ${one.num_shared}`, x: x(placeOf(one)) }));
    const unit = measure === "loss" ? here.unit : "skills that an expert serves";
    chart.axes(x, y, { yTitle: `${measuredWords(state, measure)} (${unit})`, yTicks: 4, xValues: here.settings.map(placeOf),
      xFormat: (_, i) => here.settings[i].num_shared });
    const frame = setting[measure] ? "edged" : "outlined"; // dashed where nothing was measured
    chart.bars([{ key: "shown", x: x(placeOf(setting)) - 10, y: -5, width: 20, height: height + 26, colour: "none",
      [frame]: true }]);
    const marks = places.filter(({ one }) => one[measure]).map(({ one, key, x: middle }) => ({ key, x: middle + 3, radius: 4.5,
      y: y(one[measure].mean), low: y(one[measure].low), high: y(one[measure].high), seeds: one[measure].seeds,
      colour: one.num_shared ? theme.accent : BAR }));
    chart.intervals(marks);
    chart.dots([...marks, ...marks.flatMap(({ key, x: beside, seeds }) => seeds.map((value, s) => (
      { key: `${key}, ${s}`, x: beside - 8.5, y: y(value), colour: "currentColor", hollow: true, radius: 2 })))]);
    const middle = (m) => d3.mean(places.filter(({ one }) => one.segments === m), (place) => place.x);
    chart.words([{ key: "Ks", x: -12, y: height + 18, text: "Ks", anchor: "end" }, ...cuts.map((m) => (
      { key: m, x: middle(m), y: height + 38, text: `m = ${m}`, anchor: "middle", strong: m === setting.segments }))]);
  }
}

export default widgetOf(SegmentationView);
