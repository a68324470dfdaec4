// The ladder of language models along training: per step, per FLOP and per second, two rungs of it compared.
// Letters: M rungs, S seeds, P followed steps.

import { Chart, fillTable, makeSheet, WIDE } from "../kit/charts.js";
import { button, choice, menu } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { coloursOf, DESIGN, seenOn } from "../kit/design.js";
import { make } from "../kit/page.js";
import { WidgetView, widgetOf } from "../kit/view.js";
import { count, DIGITS, grouped, rounded, signed } from "../kit/words.js";

const AXES = { steps: "training steps", FLOPs: "training FLOPs: 3 × forward FLOPs × tokens",
  seconds: "seconds of training: steps × median time of one, compiled" };
const ALIKE = 0.03; // costs that differ by no more are called equal
const CUT = 0.3;    // of the training is left out when the limits of the loss are set, so that the ends can be told apart

// --- numbers ---------------------------------------------------------------------------------------------------------

/** A mean { mean, low, high, n } with the interval by Student's t, given the variance of each of one or two samples of n seeds;
 * for two it is Welch's, see `welch_difference` in measure/evidence.py. Of one seed nothing is known about the others. */
function bounded(mean, n, variances, [freedoms, quantiles]) {
  if (n === 1) return { mean, low: -Infinity, high: Infinity, n };
  const freedom = ((n - 1) * d3.sum(variances) ** 2) / d3.sum(variances, (one) => one ** 2);
  const quantile = d3.scaleLinear(freedoms, quantiles)(freedom) ?? 0; // NaN, where no seed differs, is no number to a scale
  const half = quantile * Math.sqrt(d3.sum(variances) / n);
  return { mean, low: mean - half, high: mean + half, n };
}

/** The mean over seeds with its interval. */
const over = (values, quantiles) => bounded(d3.mean(values), values.length, [d3.deviation(values) ** 2], quantiles);

function difference(mine, other, quantiles) {
  return bounded(d3.mean(mine) - d3.mean(other), mine.length, [mine, other].map((values) => d3.deviation(values) ** 2), quantiles);
}

/** The last followed step, 0 … P-1, that costs no more, or as good as no more; null if there is none. */
function followedBy(rung, axis, steps, cost) {
  const beyond = steps.findIndex((step) => step * rung.per_step[axis] > cost * (1 + ALIKE));
  return beyond < 0 ? steps.length - 1 : beyond - 1 >= 0 ? beyond - 1 : null;
}

/** The two rungs when the cheaper has ended: { cost, alike, first, steps, losses, difference }. */
function atEqualCost({ steps, domain, quantiles }, pair, places, axis) {
  const ends = pair.map((rung) => steps.at(-1) * rung.per_step[axis]);
  const cost = d3.min(ends);
  const read = pair.map((rung) => followedBy(rung, axis, steps, cost));
  const losses = pair.map((rung, i) => (read[i] === null ? null : places.map((s) => rung.validation[domain][s][read[i]])));
  return { cost, alike: d3.max(ends) <= cost * (1 + ALIKE), first: ends[0] <= ends[1],
    steps: read.map((p) => (p === null ? null : steps[p])), losses: losses.map((values) => values && over(values, quantiles)),
    difference: losses.includes(null) ? null : difference(...losses, quantiles) };
}

/** All that is compared: { pair, places, test, equal }. */
export function examine(state) {
  const pair = [state.rung, state.beside].map((name) => state.rungs.find((rung) => rung.name === name));
  const places = state.seed === null ? d3.range(state.seeds.length) : [state.seeds.indexOf(state.seed)];
  const [mine, other] = pair.map((rung) => places.map((s) => rung.test[state.domain][s]));
  const equal = Object.fromEntries(Object.keys(AXES).map((axis) => [axis, atEqualCost(state, pair, places, axis)]));
  return { pair, places, equal,
    test: [over(mine, state.quantiles), over(other, state.quantiles), difference(mine, other, state.quantiles)] };
}

// --- in words --------------------------------------------------------------------------------------------------------

/** A change in words; what rounds to nothing has no sign. */
function change(value) {
  const words = rounded(value);
  return Number(words) ? signed(words) : words;
}

/** The interval behind a mean, in brackets that no line break parts; nothing behind that of one seed. */
function bounds({ low, high, n }, words = (value) => rounded(value)) {
  return n > 1 ? ` [${words(low)},\u00a0${words(high)}]` : "";
}

export function costWords(cost, axis) {
  if (axis === "FLOPs") return `${d3.format(".3~s")(cost).replace(/(?=[kMGTPE]?$)/, "\u00a0")}FLOPs`;
  return `${axis === "steps" ? grouped(cost) : d3.format(".3~r")(cost)}\u00a0${axis}`;
}

/** What the explorer shows: the two at the same cost by the axis that is shown, and at the end on test text. */
function describe(state, { test, equal }) {
  const { axis, rung, beside, seed, seeds, margin } = state;
  const { cost, alike, first, steps, losses, difference: gap } = equal[axis];
  const [ended, running] = first ? [0, 1] : [1, 0];
  const names = [rung, beside];
  const whose = `${state.domain}, ${seed === null ? count(seeds.length, "seed") : `seed ${seed} alone, so no interval`}`;
  const end = ` At the end, test loss: ${verdict(rung, test[2], margin)}`;
  if (alike) return `Validation loss (${whose}) at ${costWords(cost, axis)}, where both end: ${verdict(rung, gap, margin)}${end}`;
  const opening = `Validation loss (${whose}): ${names[ended]} ends at ${costWords(cost, axis)}; ${names[running]}`;
  if (steps[running] === null) return `${opening} was not followed that early: nothing to compare.${end}`;
  return `${opening} was then at step ${steps[running]} with ${rounded(losses[running].mean)} against `
    + `${rounded(losses[ended].mean)}: ${verdict(rung, gap, margin)}${end}`;
}

/** Which of the two is lower, and whether the seeds can tell; alike is what can differ by less than the margin alone. */
function verdict(name, gap, margin) {
  const size = rounded(Math.abs(gap.mean));
  const lower = Number(size) ? `${size} ${gap.mean > 0 ? "higher" : "lower"}` : `the same to ${10 ** -DIGITS}`;
  const known = gap.n === 1 || gap.low > 0 || gap.high < 0;
  const unknown = Math.max(-gap.low, gap.high) < margin ? `: alike, within ${margin}.` : ", the seeds cannot tell.";
  return `${name} is ${lower}${bounds(gap, change)}${known ? "." : unknown}`;
}

/** What is measured, of the highlighted rung, of the one beside it, and their difference. */
function tableRows(state, { test: [mine, other, gap], equal }) {
  const when = (step) => (step === state.steps.at(-1) ? "" : ` (step\u00a0${step})`);
  const cell = (loss, step) => (loss ? rounded(loss.mean) + when(step) : "not followed");
  const gapOf = (one) => (one ? change(one.mean) + bounds(one, change) : "–");
  return [["loss", state.rung, state.beside, "difference"],
    ["test, at the end", ...[mine, other].map((one) => rounded(one.mean) + bounds(one)), gapOf(gap)],
    ...Object.entries(equal).map(([axis, found]) => [`validation at ${costWords(found.cost, axis)}`,
      ...found.losses.map((loss, i) => cell(loss, found.steps[i])), gapOf(found.difference)])];
}

// --- the widget ------------------------------------------------------------------------------------------------------

const NOTE = "[ ]: 95% interval over seeds, also the bands; where it includes 0, no difference is shown. Rings: the seeds of the "
  + "two, beside their mean. Dashed: where the cheaper of the two ends; the other is read off at its last followed step by then "
  + "(costs within 3% count as equal). Its learning rate was still high there: a training planned that short would end lower.";

class LadderExplorerView extends WidgetView {
  static data = ["origin", "unit", "margin", "rungs", "seeds", "steps", "domains", "quantiles"];

  static settings = ["rung", "beside", "seed", "axis", "domain"];

  declare() {
    const { rungs, seeds, domains } = this.state;
    const names = rungs.map(({ name }) => name);
    return [
      menu("compare", names, { trait: "rung", set: (rung, state) => this.swapped({ rung }, state) }),
      menu("with", names, { trait: "beside", set: (beside, state) => this.swapped({ beside }, state) }),
      button("Swap", (view) => view.set({ rung: view.state.beside, beside: view.state.rung })),
      choice("over", Object.keys(AXES), { trait: "axis" }),
      choice("seed", [["", "all"], ...seeds], { at: ({ seed }) => seed ?? "",
        set: (seed) => ({ seed: seed === "" ? null : Number(seed) }) }),
      menu("domain", domains, { trait: "domain" }),
    ];
  }

  /** A rung is never compared with itself: the other takes the place that became free. */
  swapped(change, { rung, beside }) {
    if (change.rung === beside) return { rung: beside, beside: rung };
    return change.beside === rung ? { rung: beside, beside: rung } : change;
  }

  build() {
    const longest = d3.max(this.state.rungs, ({ name }) => name.length);
    this.chart = new Chart({ height: 252, margin: { top: 18, left: 46, right: 20 + WIDE * longest } });
    this.table = makeSheet("losses of the two", true);
    this.folded.append(make("div", "moe-caption", NOTE));
    return [this.chart.box, this.table];
  }

  renew() { this.seen = examine(this.state); }

  describe() { return describe(this.state, this.seen); }

  draw() {
    const { chart, point, state: { rungs, steps, axis, domain, unit, quantiles }, seen: { pair, places, equal } } = this;
    const colours = coloursOf(rungs.map(({ name }) => name));
    this.hues = Object.fromEntries(rungs.map(({ name }, m) => [name, seenOn(this.theme, colours[m])]));
    const { width, height } = chart.sized();
    const late = steps.map((step) => step >= CUT * steps.at(-1));
    const losses = rungs.flatMap(({ validation }) => validation[domain].flatMap((one) => one.filter((_, p) => late[p])));
    const x = d3.scaleLinear([0, d3.max(rungs, ({ per_step: cost }) => cost[axis] * steps.at(-1))], [0, width]);
    const y = d3.scaleLinear(d3.extent(losses), [height, 0]).nice();
    chart.axes(x, y, { xTitle: AXES[axis], xTicks: Math.min(width / 70, 6), yTitle: `validation loss, ${domain}, ${unit}`,
      xFormat: axis === "FLOPs" ? d3.format("~s") : null });
    const curves = rungs.map((rung) => {
      const [strong, at] = [pair.includes(rung), (p) => steps[p] * rung.per_step[axis]];
      const means = steps.map((_, p) => over(places.map((s) => rung.validation[domain][s][p]), quantiles));
      return { name: rung.name, strong, colour: strong || rung.name === point?.name ? this.hues[rung.name] : DESIGN.grey,
        points: means.map(({ mean }, p) => [at(p), mean]),
        band: places.length > 1 ? means.map(({ low, high }, p) => [at(p), low, high]) : null };
    }).sort((a, b) => a.strong - b.strong);
    const cut = equal[axis].cost;
    chart.lines([{ name: "cut", aid: true, colour: "currentColor", dash: "5 3", points: y.domain().map((loss) => [cut, loss]) },
      ...curves], x, y);
    const read = curves.find(({ name }) => name === point?.name)?.points[point.place];
    const seen = y.copy().clamp(true); // a loss above the axis stands at its end, hollow
    const dot = (loss, more) => ({ y: seen(loss), hollow: y(loss) < 0, ...more });
    const compared = pair.flatMap((rung, i) => (equal[axis].losses[i] ? [{ rung, i, step: equal[axis].steps[i],
      x: x(equal[axis].steps[i] * rung.per_step[axis]) }] : []));
    chart.dots([...compared.map(({ rung, i, x: at }) => dot(equal[axis].losses[i].mean,
      { key: i, x: at, colour: this.hues[rung.name], radius: 5 })),
    ...compared.flatMap(({ rung, i, step, x: at }) => places.map((s) => dot(rung.validation[domain][s][steps.indexOf(step)],
      { key: `${i}, ${s}`, x: at + (i ? 9 : -9), colour: this.hues[rung.name], radius: 2.2, hollow: true }))),
    ...(read ? [{ key: "read", x: x(read[0]), y: seen(read[1]), colour: "currentColor", hollow: true, radius: 8 }] : [])]);
    chart.names(curves.map(({ name, strong, colour, points }) => ({ key: name, x: x(points.at(-1)[0]), y: y(points.at(-1)[1]),
      text: name, colour, strong })), read ? [{ key: "read", x: width, y: 8, anchor: "end",
      text: `${point.name} at ${costWords(read[0], axis)}: ${rounded(read[1])}` }] : []);
    fillTable(this.table, tableRows(this.state, this.seen), (row) => row === 1 + Object.keys(AXES).indexOf(axis));
  }

  wire() {
    return this.chart.listen((point) => this.pointAt(point), ({ name }) => this.set(this.swapped({ rung: name }, this.state)));
  }
}

export default widgetOf(LadderExplorerView);
