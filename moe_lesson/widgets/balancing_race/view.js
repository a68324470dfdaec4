// The balancing race: trainings that differ only in how they balance, side by side.

import { Chart, spaced, WIDE } from "../kit/charts.js";
import { choice, layerSlider, player, slider, tick } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { DESIGN } from "../kit/design.js";
import { motion, on } from "../kit/events.js";
import { make, say } from "../kit/page.js";
import { floats, ranked } from "../kit/routing.js";
import { WidgetView, widgetOf } from "../kit/view.js";
import { count, grouped } from "../kit/words.js";

const SMOOTHED = 2; // recorded steps on either side that a loss is averaged with
const MARKED = [0, 10, 50, 100, 200, 300, 400, 500, 1000, 2000, 5000, 10_000]; // steps under the curves, as far as they go

// --- what happened ---------------------------------------------------------------------------------------------------

/** MaxVio = (max load - mean load) / mean load; 0 is perfect balance (arXiv 2408.15664). */
function maxViolation(load) {
  return (d3.max(load) - d3.mean(load)) / d3.mean(load);
}

/** Each value averaged with its neighbours, as far as there are any. */
export function smoothed(values) {
  return Array.from(values, (_, p) => d3.mean(values.slice(Math.max(0, p - SMOOTHED), p + SMOOTHED + 1)));
}

/** Where the methods stand: { position, mean, loads [methods][N] at the step, violations and losses [methods][steps], averaged }. */
export function examine({ methods, seeds, steps, num_layers: L, num_experts: N, layer, ...state }, loads, losses) {
  const position = steps.indexOf(state.step);
  const of = methods.map((_, m) => {
    const run = (m * seeds.length + seeds.indexOf(state.seed)) * steps.length; // its first recorded step
    const all = steps.map((__, p) => loads.subarray(((run + p) * L + layer) * N, ((run + p) * L + layer + 1) * N));
    return { load: all[position], violations: all.map(maxViolation), losses: smoothed(losses.subarray(run, run + steps.length)) };
  });
  return { position, mean: d3.mean(of[0].load), loads: of.map(({ load }) => load), violations: of.map((one) => one.violations),
    losses: of.map((one) => one.losses) };
}

// --- in words --------------------------------------------------------------------------------------------------------

/** What the race shows: the emphasised method, and the most even one beside it (the least even, where it is that itself). */
function describe(state, { position, mean, loads, violations, losses }) {
  const { methods, method, step, layer, seed, num_experts: N, steps } = state;
  const mine = methods.indexOf(method);
  const now = violations.map((one) => one[position]);
  const idle = loads[mine].filter((tokens) => tokens === 0).length;
  const before = position ? ` (${violations[mine][0].toFixed(2)} at step ${steps[0]})` : "";
  const words = `Step ${step}, layer ${layer + 1}, seed ${seed}. ${method}: MaxVio ${now[mine].toFixed(2)}${before}, `
    + `${idle} of ${count(N, "expert")} idle, the busiest chosen by ${grouped(d3.max(loads[mine]))} tokens where the mean is `
    + `${mean.toFixed(1)}.`;
  if (methods.length === 1) return words;
  if (d3.min(now) === d3.max(now)) return `${words} All methods are equally even at this step.`;
  const leads = now[mine] === d3.min(now);
  const other = now.indexOf(leads ? d3.max(now) : d3.min(now));
  const gap = losses[other][position] - losses[mine][position];
  const loss = Math.abs(gap) < 0.005 ? "the same to 0.01" : `${Math.abs(gap).toFixed(2)} ${gap > 0 ? "higher" : "lower"}`;
  return `${words} ${leads ? "None is more even; the least even is" : "The most even is"} ${methods[other]} with MaxVio `
    + `${now[other].toFixed(2)}, its training loss ${loss}.`;
}

/** Where Play goes from a position: one step on, or in a few jumps where motion is to be reduced. */
export function nextPosition(position, steps, calm) {
  return Math.min(position + (calm ? Math.ceil((steps - 1) / CALM_JUMPS) : 1), steps - 1);
}

// --- the widget ------------------------------------------------------------------------------------------------------

const PACE = 160;       // milliseconds a step stays while playing
const CALM_PACE = 1200; // where motion is to be reduced: a few jumps, each with time to be read
const CALM_JUMPS = 6;

class BalancingRaceView extends WidgetView {
  static data = ["origin", "methods", "seeds", "steps", "num_layers", "num_experts", "loads", "losses"];

  static settings = ["step", "layer", "seed", "method", "by_load"];

  declare() {
    const { steps, seeds, methods, num_layers: layers } = this.state;
    return [
      player(this),
      slider("Step", { max: steps.length - 1, at: ({ step }) => steps.indexOf(step),
        set: (position) => this.moved(steps[position]), words: ({ step }) => `step ${step} of ${steps.at(-1)}` }),
      layerSlider(layers),
      slider("Seed", { trait: "seed", values: seeds, words: ({ seed }) => `seed ${seed}` }),
      choice("emphasise", methods, { trait: "method" }),
      tick("sort the experts by load", "by_load", { folded: true }),
    ];
  }

  build() {
    const { methods } = this.state;
    [this.loads, this.losses] = [floats(this.state.loads), floats(this.state.losses)];
    [this.most, this.span] = [d3.max(this.loads), d3.extent(this.losses)]; // of all steps: the axes stay
    this.panels = methods.map((method) => {
      const [box, head, chart] = [make("div", "moe-panel"), make("div", "moe-panel-head"), new Chart({ height: 100,
        margin: { top: 16, right: 0, bottom: 2, left: 0 } })];
      const [name, violation, loss] = [make("span", "moe-panel-name", method), make("span"), make("span")];
      head.append(name, violation, loss);
      box.append(head, chart.box);
      return { box, chart, violation, loss };
    });
    const [panels, charts] = [make("div", "moe-panels"), make("div", "moe-charts moe-race")];
    panels.append(...this.panels.map(({ box }) => box));
    const names = 20 + WIDE * d3.max(methods, (name) => name.length); // at the curves
    this.curves = [0, 1].map(() => new Chart({ height: 190, margin: { top: 20, bottom: 38, left: 30, right: names } }));
    charts.append(...this.curves.map(({ box }) => box));
    return [panels, charts];
  }

  renew() { this.seen = examine(this.state, this.loads, this.losses); }

  describe() { return describe(this.state, this.seen); }

  draw() {
    const { seen, state: { methods, method, num_experts: N, by_load: sorted }, theme } = this;
    this.panels.forEach(({ box, chart, violation, loss }, m) => {
      box.classList.toggle("moe-looked", methods[m] === method);
      say(violation, `MaxVio ${seen.violations[m][seen.position].toFixed(2)}`);
      say(loss, `loss ${seen.losses[m][seen.position].toFixed(2)}`);
      const { width, height } = chart.sized();
      const [load, columns] = [seen.loads[m], sorted ? ranked(seen.loads[m]) : d3.range(N)];
      const x = d3.scaleBand(columns, [0, width]).paddingInner(0.15);
      const y = d3.scaleLinear([0, this.most], [height, 0]);
      const middle = (n) => x(n) + x.bandwidth() / 2;
      chart.bars([...columns.map((n) => ({ key: n, x: x(n), y: y(load[n]), width: x.bandwidth(), height: height - y(load[n]),
        colour: theme.bar })), { key: "floor", x: 0, y: height, width, height: 1, colour: theme.faint },
      { key: "mean", x: 0, y: y(seen.mean) - 0.75, width, height: 1.5, colour: theme.accent }]);
      const busiest = load.indexOf(d3.max(load));
      chart.words([...columns.filter((n) => load[n] === 0).map((n) => (
        { key: n, x: middle(n), y: height, text: "×", anchor: "middle" })),
      { key: "most", x: Math.min(Math.max(middle(busiest), 18), width - 18), y: y(load[busiest]) - 4,
        text: grouped(load[busiest]), anchor: "middle" }]);
    });
    this.drawCurves("MaxVio along training", seen.violations, [0, this.most / seen.mean - 1], 0);
    this.drawCurves(`training loss, nats per token (mean of ${2 * SMOOTHED + 1} recorded steps)`, seen.losses, this.span, 1);
    this.page.status.setAttribute("aria-live", this.timer ? "off" : "polite"); // nobody can listen to all steps of a film
  }

  /** All methods over the steps, by their square roots: most happens early. The emphasised one is strong; and where we stand. */
  drawCurves(title, curves, domain, i) {
    const { curves: { [i]: chart }, point, seen: { position }, state: { methods, method, steps }, theme } = this;
    const { width, height } = chart.sized();
    const [x, y] = [d3.scaleSqrt([0, Math.max(steps.at(-1), 1)], [0, width]), d3.scaleLinear(domain, [height, 0]).nice()];
    chart.axes(x, y, { yTitle: title, xTitle: "step (√ spacing)", yTicks: 4,
      xValues: spaced(MARKED.filter((step) => step <= steps.at(-1)), x, 36) });
    const colourOf = (name) => (name === method ? theme.bar : name === point?.name ? "currentColor" : DESIGN.grey);
    const lines = methods.map((name, m) => ({ name, strong: name === method, colour: colourOf(name),
      points: curves[m].map((value, p) => [steps[p], value]) })).sort((a, b) => a.strong - b.strong);
    chart.lines([{ name: "now", aid: true, colour: "currentColor", points: y.domain().map((value) => [steps[position], value]) },
      ...lines], x, y);
    const valueAt = (name, p) => curves[methods.indexOf(name)][p];
    const read = point ? [[point.place, valueAt(point.name, point.place)]] : [];
    chart.dots([{ key: "now", x: x(steps[position]), y: y(valueAt(method, position)), colour: "currentColor", radius: 4.5 },
      ...read.map(([p, value]) => ({ key: "read", x: x(steps[p]), y: y(value), colour: "currentColor", hollow: true, radius: 7 }))]);
    const place = i ? { x: width, y: 8 } : { x: width + chart.margin.right, y: -7 }; // where no curve is, and no title
    const words = read.map(([p, value]) => ({ key: "read", ...place, anchor: "end",
      text: `${point.name}, step ${steps[p]}: ${value.toFixed(2)}` }));
    chart.names(lines.map(({ name, strong, colour, points: all }) => ({ key: name, x: width, y: y(all.at(-1)[1]), text: name,
      colour, strong })), words);
  }

  /** A hand on the step stops the film. */
  moved(step) {
    this.pause();
    return { step };
  }

  /** Run through the steps, from the first one if the last is reached. */
  start() {
    const [{ steps }, calm] = [this.state, !motion()];
    this.play("step", steps, calm ? CALM_PACE : PACE, (position) => nextPosition(position, steps.length, calm));
  }

  wire() {
    return [...this.panels.map(({ box }, m) => on(box, "click", () => this.set({ method: this.state.methods[m] }))),
      ...this.curves.flatMap((chart) => chart.listen((point) => this.pointAt(point), ({ name }) => this.set({ method: name })))];
  }
}

export default widgetOf(BalancingRaceView);
