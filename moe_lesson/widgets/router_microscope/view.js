// The router microscope: one token, one router, step by step from logits to weights.

import { Chart } from "../kit/charts.js";
import { button, choice, slider, tick } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { moved, placeWithin } from "../kit/events.js";
import { make, takeKeys } from "../kit/page.js";
import { ReadingView, readText } from "../kit/reading.js";
import { floats, ranked, softmax, topK } from "../kit/routing.js";
import { textField, TokenStrip } from "../kit/tokens.js";
import { widgetOf } from "../kit/view.js";
import { count, listed, rounded } from "../kit/words.js";

// --- what the router does ----------------------------------------------------------------------------------------------

const DRAWS = 100; // of the noise

/** The weights [K] of the chosen experts, out of their probabilities among all N and their logits over temperature. */
const ORDERS = {
  "softmax, top-k": (probabilities) => probabilities,
  "softmax, top-k, renormalise": (probabilities) => probabilities.map((p) => p / d3.sum(probabilities)),
  "top-k, softmax": (probabilities, logits) => softmax(logits),
};

/** The k largest logits and their weights: { logits [N], probabilities [N], ids [k], weights [k] }. */
export function decide(logits, k, temperature, order) {
  const scaled = logits.map((logit) => logit / temperature);
  const [probabilities, ids] = [softmax(scaled), topK(logits, k)];
  const [chosen, their] = [probabilities, scaled].map((values) => Float64Array.from(ids, (n) => values[n]));
  return { logits, probabilities, ids, weights: ORDERS[order](chosen, their) };
}

function withNoise(logits, draws, noise, draw) {
  return logits.map((logit, n) => logit + noise * draws[(draw - 1) * logits.length + n]);
}

/** In how many draws each expert is chosen, and how many draws choose others than no noise would: { counts [N], others }. */
function explore(logits, draws, noise, k) {
  const [counts, quiet] = [new Int32Array(logits.length), new Set(topK(logits, k))];
  const others = d3.sum(d3.range(1, DRAWS + 1), (draw) => {
    const ids = topK(withNoise(logits, draws, noise, draw), k);
    for (const n of ids) counts[n] += 1;
    return ids.every((n) => quiet.has(n)) ? 0 : 1;
  });
  return { counts, others };
}

/** How far the logit of the last chosen expert is above the best one left out; infinite if none is left out. */
export function gapAtCut(logits, k) {
  const [last, next] = topK(logits, k + 1).slice(k - 1).map((n) => logits[n]);
  return Number.isFinite(last) && Number.isFinite(next) ? last - next : Infinity;
}

/** Everything the router does with the token at these settings. */
export function examine({ token, num_experts: N, noise, draw, k, ...state }, logits, draws) {
  const quiet = Float64Array.from(logits.subarray(token * N, (token + 1) * N));
  const decision = decide(withNoise(quiet, draws, noise, draw), k, state.temperature, state.order);
  return { ...decision, quiet, gap: gapAtCut(quiet, k), held: d3.sum(decision.ids, (n) => decision.probabilities[n]),
    ...explore(quiet, draws, noise, k) };
}

/** The same of no token. */
const NOTHING = { quiet: [], logits: [], probabilities: [], ids: [], weights: [], counts: [] };

// --- in words --------------------------------------------------------------------------------------------------------

/** What the microscope shows of a text's tokens; expert is the one looked at, or null. */
function describe(state, tokens, seen, expert) {
  if (!tokens.length) return "The text is empty: type some.";
  const { token, k, noise, digits, scale, start } = state;
  const changed = ["k", "temperature", "noise", "order"].some((name) => state[name] !== start[name]);
  const head = `Token ${token} '${tokens[token]}', K = ${k} of ${count(state.num_experts, "expert")}, `
    + `${changed ? "a what-if" : "as the router does it"}.`;
  if (expert !== null) return `${head} ${expertWords(state, seen, expert)}`;
  const chosen = seen.ids.map((n, i) => `${n} (${seen.weights[i].toFixed(2)})`);
  const gap = Number.isFinite(seen.gap) ? ` Without noise, the last chosen leads the next by ${seen.gap.toFixed(digits)}.` : "";
  return `${head} Chosen: ${chosen.length === 1 ? "expert" : "experts"} ${listed(chosen)}. The weights sum to `
    + `${d3.sum(seen.weights).toFixed(2)}${scale === 1 ? "" : ` (the router then multiplies them by ${scale})`}; the chosen held ${seen.held.toFixed(2)} of the probability.${gap}`
    + (noise ? ` With noise, ${seen.others} of ${DRAWS} draws choose others.` : "");
}

function expertWords({ noise, digits }, seen, expert) {
  const [place, logit] = [seen.ids.indexOf(expert), (value) => (Number.isFinite(value) ? rounded(value, digits) : "-∞ (masked)")];
  return `Expert ${expert}: ${[`logit ${logit(seen.quiet[expert])}`, noise && `with noise ${logit(seen.logits[expert])}`,
    `probability ${seen.probabilities[expert].toFixed(3)}`, place < 0 ? "not chosen" : `weight ${seen.weights[place].toFixed(2)}`,
    noise && `chosen in ${seen.counts[expert]} of ${DRAWS} draws`].filter(Boolean).join(", ")}.`;
}

// --- the widget ------------------------------------------------------------------------------------------------------

const [NOISE_STEPS, TEMPERATURE_STEPS] = [50, 20]; // to the limit; to a factor of ten
const MARGIN = { top: 20, bottom: 6, left: 46, right: 14 };
const HEIGHTS = [104, 78, 78, 78 + 20]; // of logits, probabilities, weights, draws; under the last the experts' numbers
const [LINE, LESS] = [60, 15]; // tokens that fit into a line beside JupyterLab's side bar; what each chart gives a text of more, or a field
const SHARES = [0, 0.5, 1];

class RouterMicroscopeView extends ReadingView {
  static data = ["origin", "seed", "max_tokens", "layer", "tokens", "num_experts", "scale", "logits", "draws", "noise_limit",
    "digits", "weights", "start"];

  static settings = ["text", "token", "k", "temperature", "noise", "draw", "order", "by_logit", "locked_expert"];

  static kept = ["token", "locked_expert"];

  static always = ["token"];

  declare() {
    const { num_experts: N, noise_limit: limit, digits } = this.state;
    return [
      textField("Your text"),
      slider("Token", { trait: "token", max: () => Math.max(0, this.reading.tokens.length - 1),
        words: ({ token }) => `token ${token} of ${this.reading.tokens.length}` }),
      slider("K, experts per token", { trait: "k", min: 1, max: N, words: ({ k }) => `K = ${k}` }),
      slider("temperature", { min: -TEMPERATURE_STEPS, max: TEMPERATURE_STEPS,
        at: ({ temperature }) => Math.round(TEMPERATURE_STEPS * Math.log10(temperature)),
        words: ({ temperature }) => `temperature τ = ${temperature.toFixed(2)}`,
        set: (step) => ({ temperature: Number((10 ** (step / TEMPERATURE_STEPS)).toPrecision(12)) }) }),
      slider("noise", { max: NOISE_STEPS, at: ({ noise }) => Math.round((NOISE_STEPS * noise) / limit),
        words: ({ noise }) => `noise σ = ${noise.toFixed(digits).padStart(limit.toFixed(digits).length, "\u2007")}`, // as wide as ever
        set: (step) => ({ noise: Number(((limit * step) / NOISE_STEPS).toPrecision(12)) }) }),
      choice("weights by", Object.keys(ORDERS), { trait: "order" }),
      slider("which draw of the noise", { trait: "draw", min: 1, max: DRAWS, folded: true,
        words: ({ draw, seed }) => `draw ${draw} of ${DRAWS}, seed ${seed}` }),
      tick("sort the experts by logit", "by_logit", { folded: true }),
      button("Another draw", (view) => view.set({ draw: (view.state.draw % DRAWS) + 1 }), { folded: true }),
    ];
  }

  build() {
    this.draws = floats(this.state.draws);
    this.strip = new TokenStrip(this, { trait: "token", short: this.state.weights });
    this.stage = make("div", "moe-stage");
    takeKeys(this.stage, "bars of every expert from logits to weights: arrow keys move from expert to expert, Enter keeps one, "
      + "Escape lets go");
    const less = this.state.weights || this.state.tokens.length > LINE ? LESS : 0;
    this.charts = HEIGHTS.map((height, i) => new Chart({ height: height - less, margin: { ...MARGIN, bottom: i === 3 ? 26 : 6 } }));
    this.stage.append(...this.charts.map(({ box }) => box));
    return [this.strip.box, this.stage];
  }

  recorded() { return { tokens: this.state.tokens, logits: floats(this.state.logits) }; }

  computed(model) {
    const { tokens, layers } = readText(model, this.state.text);
    return { tokens, logits: layers[this.state.layer].logits };
  }

  /** Another text: its limits of the logit axis, with room for noise at either end, fixed by all tokens, so that change shows. */
  take() {
    const [{ tokens, logits }, room] = [this.reading, this.state.noise_limit / 2];
    const [low = 0, high = 0] = d3.extent(logits.filter(Number.isFinite));
    [this.limits, this.cursor] = [[low - room, high + room], -1];
    this.strip.fill(tokens);
  }

  renew() {
    super.renew();
    const { state, reading: { tokens, logits } } = this;
    state.token = Math.max(0, Math.min(state.token, tokens.length - 1)); // it was of a longer text
    this.seen = tokens.length ? examine({ ...state, token: this.look.token }, logits, this.draws) : NOTHING;
    this.columns = state.by_logit || !tokens.length ? ranked(this.seen.quiet) : d3.range(state.num_experts);
  }

  describe() {
    const { locked_expert: expert, token } = this.look;
    return describe({ ...this.state, token }, this.reading.tokens, this.seen, expert);
  }

  draw() {
    const { state, seen, columns, look: { locked_expert: looked } } = this;
    this.strip.mark(() => ({}));
    const { width } = this.charts.map((chart) => chart.sized())[0];
    this.x = d3.scaleBand(columns, [0, width]).paddingInner(width / columns.length > 6 ? 0.15 : 0);
    const weights = new Float64Array(state.num_experts);
    seen.ids.forEach((n, i) => { weights[n] = seen.weights[i]; });
    const logit = d3.scaleLinear(this.limits, [this.charts[0].height, 0]).clamp(true);
    const share = d3.scaleLinear([0, 1], [this.charts[1].height, 0]);
    const rows = [[seen.logits, logit, 0], [seen.probabilities, share, 0], [weights, share, 0],
      [Float64Array.from(seen.counts, (times) => times / DRAWS), share, 0]];
    const titles = [`logits${state.noise ? `, draw ${state.draw}; dash: no noise` : ""}; line: cut`,
      "probabilities: softmax(logits / τ)", `weights: ${state.order}`,
      state.noise ? `chosen in what share of ${DRAWS} draws` : "chosen in all draws: no noise"];
    rows.forEach(([values, y], row) => this.drawRow(row, titles[row], values, y, new Set(seen.ids), looked));
    this.drawCut(logit, width);
  }

  /** One row of bars from zero; a chosen expert is orange with an edge, for eyes that see no orange. */
  drawRow(row, title, values, y, chosen, looked) {
    const { charts: { [row]: chart }, columns, x, state: { noise }, seen, theme } = this;
    const every = Math.max(1, Math.ceil(30 / x.step()));
    chart.axes(row === 3 ? x : null, y, { xValues: columns.filter((_, i) => i % every === 0), yValues: row ? SHARES : null,
      yTicks: 4, yFormat: row ? d3.format("~g") : null });
    const [height, zero] = [chart.height, y(0)];
    const finite = columns.filter((n) => Number.isFinite(values[n]));
    chart.bars([
      ...(x(looked) === undefined ? [] : [{ key: "looked", x: x(looked) - 1.5, y: -1, width: x.bandwidth() + 3, height: height + 2,
        colour: "none", outlined: true }]),
      ...finite.map((n) => ({ key: n, x: x(n), y: Math.min(y(values[n]), zero), width: x.bandwidth(),
        height: Math.abs(y(values[n]) - zero), colour: chosen.has(n) ? theme.accent : theme.bar, edged: chosen.has(n) })),
      ...(noise && !row ? finite.map((n) => ({ key: `quiet ${n}`, x: x(n), y: y(seen.quiet[n]) - 1, width: x.bandwidth(), height: 2,
        colour: theme.ink })) : [])]);
    chart.words([{ key: "title", x: 0, y: -7, text: title, strong: true },
      ...columns.filter((n) => !Number.isFinite(values[n])).map((n) => (
        { key: `masked ${n}`, x: x(n) + x.bandwidth() / 2, y: zero, text: "×", anchor: "middle" }))]);
  }

  /** A line between the last chosen and the first left out. */
  drawCut(y, width) {
    const { seen: { logits }, state: { k }, theme } = this;
    const cut = Number.isFinite(gapAtCut(logits, k)) ? d3.mean(topK(logits, k + 1).slice(-2), (n) => logits[n]) : null;
    this.charts[0].lines(cut === null ? [] : [{ name: "cut", colour: theme.ink, strong: false, dash: "5 3", points: [[0, cut],
      [width, cut]] }], (x) => x, y);
  }

  pointAt(point) {
    super.pointAt(point);
    this.renew();
  }

  wire() {
    const under = ({ clientX }) => placeWithin(clientX - this.stage.getBoundingClientRect().left - MARGIN.left, this.x.step(),
      this.columns.length);
    return [...this.strip.wire(), ...this.listenPlaces(this.stage, under, (cursor, key) => moved(cursor, key, this.columns.length),
      (column) => ({ locked_expert: this.columns[column] }))];
  }
}

export default widgetOf(RouterMicroscopeView);
