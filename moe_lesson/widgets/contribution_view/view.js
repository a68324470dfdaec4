// The contribution view: how loud the shared and the routed part of an MoE layer are for each token, beside no training.

import { Chart, fillTable, legend, makeSheet } from "../kit/charts.js";
import { choice, layerSlider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { DESIGN } from "../kit/design.js";
import { moved, on, placeWithin } from "../kit/events.js";
import { readModel } from "../kit/moe.js";
import { make, takeKeys } from "../kit/page.js";
import { ReadingView, readText } from "../kit/reading.js";
import { chosenWords, numbers, routedLayers } from "../kit/routing.js";
import { textField, TokenStrip } from "../kit/tokens.js";
import { widgetOf } from "../kit/view.js";
import { count, listed, percent, rounded, shortened } from "../kit/words.js";

const IN_TEXT = "as in the text";
const SHARED = DESIGN.hues.green; // told from the blue by place as well

// --- what is shown ---------------------------------------------------------------------------------------------------

/** Two parts of a layer, [T] each: their lengths, their cosine, and the shared one's share of the two lengths. */
function partsOf([shared, routed, cosine]) {
  return { shared, routed, cosine, share: shared.map((length, t) => length / (length + routed[t])) };
}

/** The text at the start: its tokens; of each layer the parts as given and untrained, and the experts of each token. */
function recorded(state) {
  const [{ tokens, tokens: { length: T }, sizes: { length: L } }, all] = [state, numbers(state.parts, Float64Array)];
  const given = (group, layer) => partsOf(d3.range(3).map((part) => (
    all.subarray(((group * L + layer) * 3 + part) * T, ((group * L + layer) * 3 + part + 1) * T))));
  const layers = routedLayers(state).map((routed, layer) => ({ one: given(0, layer), none: given(1, layer), routed }));
  return { tokens, layers };
}

/** The same of a text that the learner wrote, computed from the weights of the model and of the untrained one. */
export function computed(text, model, untrained) {
  const [{ tokens, layers }, { layers: none }] = [model, untrained].map((each) => readText(each, text));
  const parts = ({ shared, experts }) => measured(shared, experts, model.config.width);
  return { tokens, layers: layers.map((layer, i) => ({ one: parts(layer), none: parts(none[i]), routed: layer.routed })) };
}

/** Lengths and cosine of two parts [T, D]. */
export function measured(shared, routed, D) {
  const dot = (a, b) => Float64Array.from({ length: a.length / D }, (_, t) => {
    let sum = 0;
    for (let d = t * D; d < (t + 1) * D; d++) sum += a[d] * b[d];
    return sum;
  });
  const [left, right] = [dot(shared, shared), dot(routed, routed)].map((squares) => squares.map(Math.sqrt));
  return partsOf([left, right, dot(shared, routed).map((product, t) => product / (left[t] * right[t] || 1))]);
}

/** Which token stands in each column, from the left; a tie keeps the order of the text. */
function columnsOf(share, order) {
  const tokens = d3.range(share.length);
  return order === IN_TEXT ? tokens : tokens.sort((a, b) => share[a] - share[b] || a - b);
}

/** What kind of token this is, by its readable name; a blank in front of others does not count. */
export function kindOf(token) {
  if (/^[␣⏎⇥]+$/.test(token)) return "spaces";
  if (/^␣?[A-Za-z]+$/.test(token)) return "words";
  if (/^␣?[0-9]+$/.test(token)) return "digits";
  return /^␣?[!-/:-@[-`{-~]+$/.test(token) ? "signs" : "other";
}

// --- in words --------------------------------------------------------------------------------------------------------

/** What the view shows; token is the one looked at, or null. */
function describe(state, { tokens, layers }, token) {
  const layer = layers[state.layer];
  const head = `Layer ${state.layer + 1} of ${layers.length}`;
  if (!tokens.length) return `${head}: the text is empty, type some.`;
  return token === null ? `${head}: ${medianWords(state, tokens, layer)}` : `${head}. ${tokenWords(state, tokens, layer, token)}`;
}

/** Trained beside untrained; from where routing adds most to where it adds least. */
function medianWords({ origin, seed }, tokens, { one, none }) {
  const [least, most] = [d3.min, d3.max].map((end) => one.share.indexOf(end(one.share)));
  const at = (token) => `${percent(one.share[token])} (token ${token} '${tokens[token]}')`;
  return `the shared part has ${percent(d3.median(one.share))} of the two lengths, median over ${count(tokens.length, "token")}, `
    + `${origin}; untrained (seed ${seed}) it has ${percent(d3.median(none.share))}. It runs from ${at(least)} to ${at(most)}. `
    + `Median cosine of the two parts: ${rounded(d3.median(one.cosine), 2)}, untrained ${rounded(d3.median(none.cosine), 2)}.`;
}

function tokenWords({ width }, tokens, { one, none, routed }, token) {
  const chosen = chosenWords(routed, token);
  return `Token ${token} '${tokens[token]}': shared part ${rounded(one.shared[token], 2)} long, `
    + `routed ${rounded(one.routed[token], 2)}, share ${percent(one.share[token])}, untrained ${percent(none.share[token])}; `
    + `cosine ${rounded(one.cosine[token], 2)}, ${angleWords(one.cosine[token], width)}. `
    + `Routed to ${chosen.length === 1 ? "expert" : "experts"} ${listed(chosen)}.`;
}

/** Do two directions agree? Two random ones of D numbers have a cosine of 0 ± 1/√D. */
function angleWords(cosine, width) {
  if (Math.abs(cosine) <= 2 / Math.sqrt(width)) return "as of two random directions";
  return cosine > 0 ? "they agree" : "they cancel in part";
}

/** Of all tokens, and of each kind that the text has: how many, and the medians of share and cosine beside the null's. */
function tableRows(tokens, { one, none }) {
  const kinds = tokens.map(kindOf);
  const present = ["words", "spaces", "digits", "signs", "other"].filter((kind) => kinds.includes(kind));
  const untrained = "un\u00adtrained"; // breaks on a phone
  return [["medians", "tokens", "shared part's share", untrained, "cosine", untrained],
    ...[["all", () => true], ...present.map((kind) => [kind, (_, t) => kinds[t] === kind])].map(([name, mine]) => [name,
      kinds.filter(mine).length, ...[one, none].map(({ share }) => percent(d3.median(share.filter(mine)))),
      ...[one, none].map(({ cosine }) => rounded(d3.median(cosine.filter(mine)), 2))])];
}

// --- the widget ------------------------------------------------------------------------------------------------------

const MARGIN = { top: 24, right: 8, bottom: 8, left: 54 };
const LETTERS = 36; // pixels for the tokens under the lengths, in two lanes if need be
const LETTER = 9;   // pixels that a letter needs

/** Lengths at the axis, evenly spaced under the root, up and down. */
function ticksOf({ shared, routed }) {
  const roots = d3.scaleLinear([0, Math.sqrt(Math.max(shared, routed))], [0, 1]).ticks(4);
  const lengths = roots.flatMap((root) => [root ** 2, -(root ** 2)]);
  return [...new Set(lengths)].filter((y) => y <= routed && y >= -shared);
}

class ContributionView extends ReadingView {
  static data = ["name", "origin", "seed", "width", "num_shared", "max_tokens", "tokens", "sizes", "top_k", "parts", "expert_ids",
    "expert_weights", "weights", "untrained", "start"];

  static settings = ["text", "layer", "order", "locked_token"];

  static kept = ["locked_token"];

  declare() {
    return [
      textField("Your text", { set: (text) => ({ text, locked_token: null }) }),
      layerSlider(this.state.sizes.length),
      choice("order", [IN_TEXT, "by the routed part's share"], { trait: "order" }),
    ];
  }

  build() {
    const { num_shared, top_k, seed } = this.state;
    this.strip = new TokenStrip(this, { short: true });
    this.lengths = new Chart({ height: 162, margin: { ...MARGIN, bottom: LETTERS } });
    this.shares = new Chart({ height: 70, margin: MARGIN });
    this.cosines = new Chart({ height: 76, margin: MARGIN });
    this.stage = make("div", "moe-stage moe-contribution");
    this.stage.append(...[this.lengths, this.shares, this.cosines].map(({ box }) => box));
    takeKeys(this.stage, "lengths of the routed and the shared part for each token, over their share and their cosine: "
      + "arrow keys move, Enter keeps a token, Escape lets go");
    this.table = makeSheet("medians by kind of token");
    this.folded.append(this.table,
      make("div", "", "A length is loudness, not worth: that, only a model trained without the part can tell."));
    return [this.strip.box, this.stage, legend([[`routed part: the sum of K = ${top_k}`, "var(--moe-bar)"],
      [`shared part: ${count(num_shared, "expert")}, one FFN`, SHARED], [`untrained model, seed ${seed}`, "var(--moe-accent)"]])];
  }

  recorded() { return recorded(this.state); }

  computed(model) {
    this.untrained ??= readModel(this.state.untrained);
    return computed(this.state.text, model, this.untrained);
  }

  /** Another text: one end of the scales for its layers, its orders and the untrained model, so that change shows. */
  take() {
    const { tokens, layers } = this.reading;
    this.strip.fill(tokens);
    const top = (part) => d3.max(layers.flatMap(({ one, none }) => [d3.max(one[part]), d3.max(none[part])])) || 1;
    [this.top, this.cursor] = [{ shared: top("shared"), routed: top("routed") }, 0];
  }

  renew() {
    super.renew();
    const { state, reading: { tokens, layers } } = this;
    if (state.locked_token >= tokens.length) state.locked_token = null; // it was of a longer text
    this.columns = columnsOf(layers[state.layer].one.share, state.order);
    this.drawn = null;
  }

  describe() { return describe(this.state, this.reading, this.look.locked_token); }

  draw() {
    const { state, columns, reading: { tokens, layers }, look: { locked_token: token } } = this;
    const wanted = `${this.lengths.box.wide} ${this.theme.ink}`;
    const layer = layers[state.layer];
    if (wanted !== this.drawn) this.drawCharts(layer);
    this.drawn = wanted;
    if (this.folded.open) fillTable(this.table, tokens.length ? layer.rows ??= tableRows(tokens, layer) : [[]]);
    const place = token === null ? [] : [columns.indexOf(token)];
    for (const chart of [this.lengths, this.shares, this.cosines]) {
      chart.duration = 0; // it follows the pointer
      chart.bars(place.map((column) => ({ key: "look", x: this.x(column) - 1, y: -2, width: Math.max(this.cell, 2) + 2,
        height: chart.height + 4, colour: "transparent", edged: true })));
    }
    this.strip.mark(() => ({}));
  }

  /** Three panels over the same columns. The untrained model is a line on each. */
  drawCharts(layer) {
    const { columns, top, theme, state: { width: D, order }, reading: { tokens } } = this;
    const { one, none } = layer;
    const inOrder = (values) => columns.map((token) => values[token]);
    const filled = (name, colour, values, floor = 0) => ({ name, colour, strong: true, values, floor });
    const line = (name, values) => ({ name, colour: theme.accent, strong: true, values: inOrder(values) });
    const { width, height } = this.lengths.sized();
    [this.x, this.cell] = [d3.scaleLinear([0, tokens.length || 1], [0, width]), width / (tokens.length || 1)];
    const length = d3.scaleSqrt([-top.shared, top.routed], [height, 0]);
    this.lengths.axes(null, length, { yTitle: "length (√ spacing): routed part up, shared part down",
      yValues: ticksOf(top), yFormat: (y) => d3.format(".3~g")(Math.abs(y)) });
    this.lengths.stairs([filled("routed", theme.bar, inOrder(one.routed)),
      filled("shared", SHARED, inOrder(one.shared).map((y) => -y)),
      line("routed, untrained", none.routed), line("shared, untrained", none.shared.map((y) => -y))], this.x, length);
    const step = Math.ceil(LETTER / this.cell);
    const shown = step > 1 && order === IN_TEXT ? [] : columns; // every other token of a text would make another text
    const most = Math.floor((step * this.cell) / LETTER);
    const lanes = shown.every((token, column) => column % step || tokens[token].length <= most) ? 1 : 2;
    const wordOf = (token) => (lanes * most < Math.min(3, tokens[token].length) ? "·" : shortened(tokens[token], lanes * most));
    this.lengths.words(shown.flatMap((token, column) => (column % step ? [] : [{ key: column, x: this.x(column + 0.5),
      y: height + 16 + 14 * ((column / step) % lanes), text: wordOf(token), anchor: "middle" }])));

    const share = d3.scaleLinear([0, 1], [this.shares.sized().height, 0]);
    this.shares.axes(null, share, { yTitle: "the shared part's share of the two lengths", yValues: [0, 0.5, 1],
      yFormat: percent });
    this.shares.stairs([filled("routed", theme.bar, inOrder(one.share), 1), filled("shared", SHARED, inOrder(one.share)),
      line("untrained", none.share)], this.x, share);

    const cosine = d3.scaleLinear([-1, 1], [this.cosines.sized().height, 0]);
    const random = Math.min(2 / Math.sqrt(D), 1);
    this.cosines.axes(null, cosine, { yTitle: "cosine of the two parts; dashed: two random directions", yValues: [-1, 0, 1],
      yFormat: (y) => ["cancel", "0", "agree"][y + 1] });
    this.cosines.stairs([filled("cosine", DESIGN.grey, inOrder(one.cosine)), ...[random, -random].map((y) => ({ name: `random ${y}`,
      colour: theme.ink, dash: "5 4", values: columns.map(() => y) })), line("untrained", none.cosine)], this.x, cosine);
  }

  wire() {
    const under = ({ clientX }) => placeWithin(clientX - this.stage.getBoundingClientRect().left - MARGIN.left, this.cell,
      this.columns.length);
    return [...this.strip.wire(), on(this.folded, "toggle", this.frame.ask),
      ...this.listenPlaces(this.stage, under, (cursor, key) => moved(cursor, key, this.columns.length),
        (column) => ({ locked_token: this.columns[column] }))];
  }
}

export default widgetOf(ContributionView);
