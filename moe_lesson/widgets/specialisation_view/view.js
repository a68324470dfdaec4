// The specialisation view: how many experts look like specialists of a domain in a sample, beside shuffled labels.
//
// Python drew the samples and their nulls; this module computes lifts, counts, draws and speaks.

import { Chart, fillTable, legend, makeSheet } from "../kit/charts.js";
import { choice, layerSlider, slider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { DESIGN } from "../kit/design.js";
import { moved, placeWithin } from "../kit/events.js";
import { make, takeKeys } from "../kit/page.js";
import { PointingView, widgetOf } from "../kit/view.js";
import { count, rounded } from "../kit/words.js";

const NULLS = { "tokens shuffled": "domains shuffled among the tokens",
  "documents shuffled": "domains dealt out to whole documents" };
const SPECIALIST = 1.5; // a lift to call an expert a specialist
const SLACK = 1e-9;     // lifts are ratios of small numbers, and often as large as their null's: rounding must not decide

// --- what is shown ---------------------------------------------------------------------------------------------------

/** The layer of a router in a sample, beside its null: each expert with its calls by domain and its strongest lift; counts. */
export function sampleOf(state, router = state.router, sample = state.sample) {
  const { measured, samples, sizes, routers, layer, domains: { length: M } } = state;
  const { calls, nulls } = measured[samples.indexOf(sample)][routers.indexOf(router) * sizes.length + layer];
  const none = nulls[Object.keys(NULLS).indexOf(state.null)];
  const experts = calls.map((row, n) => {
    const [total, most] = [d3.sum(row), d3.max(row)]; // a sample has as many calls from every domain
    const lift = total ? (M * most) / total : 0;
    return { n, calls: row, total, lift, favourite: row.indexOf(most), top: none.band[n], above: lift > none.band[n] + SLACK };
  });
  const called = experts.filter(({ total }) => total);
  return { experts, called, null: none, mean: d3.mean(called, ({ lift }) => lift),
    specialists: called.filter(({ lift }) => lift >= SPECIALIST).length, above: called.filter(({ above }) => above).length };
}

// --- in words --------------------------------------------------------------------------------------------------------

function badgeWords({ origin, name, router, routers }) {
  return router === routers[0] ? `${origin}: ${name}` : `${router} (null)`;
}

/** What the view shows; expert is the one looked at, or null. */
function describe(state, expert) {
  const { router, routers, layer, sizes, sample } = state;
  const one = sampleOf(state);
  return `${router === routers[0] ? router : badgeWords(state)}, layer ${layer + 1} of ${sizes.length}: in ${sample} tokens, `
    + `${one.specialists} of ${count(one.experts.length, "expert")} prefer a domain (lift ≥ 1.5); with `
    + `${NULLS[state.null]}, ${one.null.count} ${one.null.count === 1 ? "does" : "do"}. `
    + `Above 95% of their own shuffles: ${one.above}, by chance about ${(0.05 * one.called.length).toFixed(0)}. `
    + (expert === null ? meanWords(state, one) : expertWords(state, one.experts[expert]));
}

/** The mean strongest lift, here and in the largest sample. */
function meanWords(state, one) {
  const [large, means] = [state.samples.at(-1), (each) => `${rounded(each.mean, 2)}, shuffled ${rounded(each.null.mean, 2)}`];
  return `Mean strongest lift: ${means(one)}; in ${large} tokens ${means(sampleOf(state, state.router, large))}.`;
}

function expertWords({ domains }, { n, calls, total, lift, favourite, top, above }) {
  if (!total) return `Expert ${n} has no call in this sample.`;
  const shares = domains.map((domain, d) => `${domain} ${d3.format(".0%")(calls[d] / total)}`).join(", ");
  return `Expert ${n}, ${count(total, "call")}: ${shares}. Lift for ${domains[favourite]} ${rounded(lift, 2)}, `
    + `${above ? "above" : "within"} 95% of its shuffles (up to ${rounded(top, 2)}).`;
}

/** Of each router: experts with a lift of 1.5, in the sample and shuffled; those above their null; mean strongest lifts. */
function tableRows(state) {
  return [["router", "lift ≥ 1.5", "shuffled", "above null", "mean lift", "shuffled"], ...state.routers.map((router) => {
    const one = sampleOf(state, router);
    return [router, one.specialists, one.null.count, one.above, rounded(one.mean, 2), rounded(one.null.mean, 2)];
  })];
}

// --- the widget ------------------------------------------------------------------------------------------------------

const HUES = Object.values(DESIGN.hues); // of the domains
const HEIGHT = 272;
const [TOP, LEFT] = [28, 84];

class SpecialisationView extends PointingView {
  static data = ["name", "origin", "seed", "draws", "routers", "domains", "samples", "sizes", "measured", "start"];

  static settings = ["sample", "router", "layer", "null", "locked_expert"];

  static kept = ["locked_expert"];

  declare() {
    const { samples, sizes, routers } = this.state;
    return [
      slider("sample size", { trait: "sample", values: samples, words: ({ sample }) => `${sample} tokens` }),
      layerSlider(sizes.length, (layer) => ({ layer, locked_expert: null })), // its number means another expert now
      choice("router", routers, { trait: "router", set: (router) => ({ router, locked_expert: null }) }),
      choice("null", Object.keys(NULLS), { trait: "null" }),
    ];
  }

  build() {
    const { domains, draws, seed } = this.state;
    [this.stage, this.table] = [make("div"), makeSheet("all routers in this sample")];
    takeKeys(this.stage, "experts and their strongest lifts: arrow keys move, Enter keeps an expert, Escape lets go");
    this.lifts = new Chart({ height: HEIGHT, margin: { top: TOP, left: LEFT } });
    this.means = new Chart({ height: HEIGHT, margin: { top: TOP, left: 36, right: 20 } });
    this.stage.append(this.lifts.box);
    const [figure, key] = [make("div", "moe-charts moe-special"), legend(domains.map((domain, d) => [domain, HUES[d]]))];
    figure.append(this.stage, this.means.box);
    key.append(make("span", "", "· filled: above its null · grey: its null, up to 95%"));
    this.folded.append(this.table, make("div", "", `Shuffled: the median of ${draws} draws. Seed of sample and draws: ${seed}.`));
    return [key, figure];
  }

  renew() {
    this.one = sampleOf(this.state);
    this.curve = this.state.samples.map((size) => [size, sampleOf(this.state, this.state.router, size)]);
    const here = `${this.state.layer} ${this.state.router}`;
    if (this.here !== here) [this.here, this.point, this.cursor] = [here, null, 0];
  }

  badge() { return badgeWords(this.state); }

  describe() { return describe(this.state, this.look.locked_expert); }

  draw() {
    this.drawLifts(this.lifts);
    this.drawMeans(this.means);
    fillTable(this.table, tableRows(this.state), (i) => this.state.routers[i] === this.state.router);
  }

  /** Lifts from 1 to M, the same step up for every doubling; both charts have it. */
  axisOf(height) {
    const M = this.state.domains.length;
    return [d3.scaleLog([1, M], [height, 0]), [1, ...[SPECIALIST, 2, 3, 4, 6].filter((lift) => lift < M), M]];
  }

  /** A dot for each expert over the band of its null. */
  drawLifts(chart) {
    const [{ width, height }, { experts, called }, M] = [chart.sized(), this.one, this.state.domains.length];
    const [[y, yValues], cell, expert] = [this.axisOf(height), width / experts.length, this.look.locked_expert];
    const x = d3.scaleLinear([-0.5, experts.length - 0.5], [0, width]);
    chart.axes(x, y, { xTitle: "experts by number", xValues: x.ticks(width / 40).filter(Number.isInteger), xFormat: String,
      yTitle: "each expert's strongest lift", yValues,
      yFormat: (lift) => ({ 1: "1 all alike", [M]: `${M} only one` })[lift] ?? lift });
    chart.grid.selectAll(".tick").classed("moe-special-line", (lift) => lift === SPECIALIST);
    chart.join(chart.bands, "path", "moe-band", [called], () => "nulls", { "d": (all) => all.map(({ n, top }) => (
      `M${x(n) - 0.4 * cell},${height}V${y(top)}h${0.8 * cell}V${height}`)).join("") }); // one path: many bars would take long
    chart.dots(called.map(({ n, lift, favourite, above }) => ({ key: n, x: x(n), y: y(lift), colour: HUES[favourite],
      hollow: !above, radius: Math.min(Math.max(0.45 * cell, 2), 5.5) })));
    chart.join(chart.labels, "rect", "moe-special-look", expert === null ? [] : [expert], (n) => n, {
      "x": (n) => x(n) - cell / 2 - 2, "y": () => -6, "width": () => cell + 4, "height": () => height + 12 });
    this.geo = { cell, N: experts.length };
  }

  /** Their mean by sample size: what shrinks with the null, and what is left. */
  drawMeans(chart) {
    const [{ samples, sample }, { width, height }] = [this.state, chart.sized()];
    const [y, yValues] = this.axisOf(height);
    const x = d3.scaleLog([samples[0], samples.length > 1 ? samples.at(-1) : 2 * samples[0]], [8, width]);
    const [means, nulls] = [({ mean }) => mean, (one) => one.null.mean].map(
      (of) => this.curve.map(([size, one]) => [size, of(one)]));
    chart.axes(x, y, { xTitle: "tokens in the sample", yTitle: "their mean", yValues,
      xValues: samples.filter((_, s) => s % 2 === 0), xFormat: (size) => (size < 1000 ? size : `${Math.round(size / 1024)}k`) });
    chart.lines([{ name: "sample", colour: "currentColor", points: means, strong: true },
      { name: "shuffled", colour: "currentColor", points: nulls, strong: true, dash: "5 4" }], x, y);
    chart.dots([means, nulls].flatMap((points, i) => points.map(([size, lift]) => ({ key: `${i} ${size}`, x: x(size), y: y(lift),
      colour: "currentColor", hollow: i > 0, radius: size === sample ? 6 : 3.5 }))));
    const [[, last], [early, low]] = [means.at(-1), nulls[Math.min(3, nulls.length - 1)]];
    chart.words([{ key: "sample", x: width, y: y(last) - 12, text: "sample", anchor: "end" },
      { key: "shuffled", x: x(early) - 8, y: y(low) + 16, text: "shuffled", anchor: "end" }]);
  }

  wire() {
    const under = ({ clientX }) => placeWithin(clientX - this.lifts.box.getBoundingClientRect().left - LEFT, this.geo.cell,
      this.geo.N);
    return this.listenPlaces(this.stage, under, (cursor, key) => moved(cursor, key, this.geo.N), (n) => ({ locked_expert: n }));
  }
}

export default widgetOf(SpecialisationView);
