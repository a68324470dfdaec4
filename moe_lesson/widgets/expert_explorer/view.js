// The expert explorer: from a token of your own text to its experts, from an expert to the tokens it is called for, and back.
// A census was counted in Python before the page opened.

import { Chart, fillTable, legend, makeSheet } from "../kit/charts.js";
import { textField, TokenStrip } from "../kit/tokens.js";
import { d3 } from "../kit/d3.js";
import { DESIGN } from "../kit/design.js";
import { on } from "../kit/events.js";
import { make, makeButton, say } from "../kit/page.js";
import { ReadingView } from "../kit/reading.js";
import { chosenWords, floats, routedLayers, topK, weightOf } from "../kit/routing.js";
import { widgetOf } from "../kit/view.js";
import { bytesOf, encode, spelled } from "../kit/vocabulary.js";
import { count, grouped, listed, percent, shortened } from "../kit/words.js";

const BEST = 6;          // tokens shown of an expert
const SERVERS = 5;       // experts named for a token

// --- what is shown ---------------------------------------------------------------------------------------------------

/** What the census says of each layer: lifts of expert n by `of(n)`, [counted + M], and the random experts' highest. */
export function readCensus({ sizes, counted, domains, lifts, null_lifts }) {
  const [W, all, best] = [counted.length + domains.length, floats(lifts), floats(null_lifts)];
  return sizes.map((_, layer) => {
    const first = d3.sum(sizes.slice(0, layer));
    return { of: (n) => all.subarray((first + n) * W, (first + n + 1) * W), best: best.subarray(layer * W, (layer + 1) * W) };
  });
}

/** What is searched for: the signs for a blank and a line's end, as tokens are named with them, mean these. */
const meant = (search) => search.replaceAll("␣", " ").replaceAll("⏎", "\n");

/** Where a search stands in a text: for each time the tokens that have a part of it. Nowhere, until the vocabulary is here. */
export function foundAt(ids, search, vocabulary) {
  const wanted = bytesOf(meant(search));
  if (!wanted.length || !vocabulary) return [];
  const { raw, owner } = spelled(ids, vocabulary);
  const starts = d3.range(raw.length).filter((at) => wanted.every((byte, i) => raw[at + i] === byte));
  return starts.map((at) => [...new Set(owner.slice(at, at + wanted.length))]);
}

/** The token whose experts are named: that which is followed, or the first of a search that the text does not have. */
export function idAsked(search, ids, token, vocabulary) {
  if (search && vocabulary && !foundAt(ids, search, vocabulary).length) return encode(meant(search), vocabulary)[0];
  return token === null ? null : ids[token];
}

/** The places of the highest lifts, the highest first; 1 and less is no liking. A tie goes to the lower place. */
export const favoured = (lifts, most) => topK(lifts, most).filter((i) => lifts[i] > 1);

/** The experts of a layer called for a token more often than for others, [id, lift] each; none for one too rare to tell. */
export function servers({ counted, sizes }, { of }, layer, id) {
  const place = counted.indexOf(id);
  if (place < 0) return [];
  const lifts = d3.range(sizes[layer]).map((n) => of(n)[place]);
  return favoured(lifts, SERVERS).map((n) => [n, lifts[n]]);
}

// --- in words --------------------------------------------------------------------------------------------------------

const times = (lift, digits = 1) => `×\u202f${lift.toFixed(digits)}`; // a line may not end between the two
const cut = (name) => shortened(name, 9);
const label = (layer, n) => `L${layer + 1} E${n}`; // numbers of experts belong to their layer

/** What the explorer shows, in words. */
function describe(state, census, reading, token, vocabulary) {
  return `${expertWords(state, census)} ${askedWords(state, census, reading, vocabulary) ?? tokenWords(reading, token)}`;
}

/** What the expert is called for; one favourite in many experts is no discovery, so how many random experts have one. */
function expertWords({ expert: [layer, n], names, counted, null_favourites }, census) {
  const lifts = census[layer].of(n).subarray(0, counted.length);
  const best = favoured(lifts, 3);
  const head = `Layer ${layer + 1}, expert ${n} is called`;
  if (!best.length) return `${head} for no token more often than for the average one.`;
  const strong = null_favourites[layer].filter((lift) => lift >= lifts[best[0]]).length;
  const liked = best.map((i) => `'${names[counted[i]]}' (${times(lifts[i])})`).join(", ");
  return `${head} more often for ${liked} than for the average token; of a random router's `
    + `${count(null_favourites[layer].length, "expert")}, ${strong} have a favourite as strong.`;
}

function tokenWords({ tokens, layers }, token) {
  if (token === null) return "The text is empty: type some.";
  const goes = layers.map((routed, layer) => `in layer ${layer + 1} to experts ${listed(chosenWords(routed, token), 3)}`);
  return `Token ${token} '${tokens[token]}' goes ${goes.join("; ")}.`;
}

/** Of a search that the text does not have: who would serve its first token. Null of any other. */
function askedWords(state, census, { ids }, vocabulary) {
  if (!state.search || !vocabulary || foundAt(ids, state.search, vocabulary).length) return null;
  const [id, ...more] = encode(meant(state.search), vocabulary);
  const first = state.sizes.flatMap((_, layer) => servers(state, census[layer], layer, id).slice(0, 1)
    .map(([n, lift]) => `layer ${layer + 1}, expert ${n} (${times(lift)})`));
  const who = more.length ? `its first token '${state.names[id]}'` : "this token";
  const served = state.counted.includes(id) ? `is served most by ${first.join("; ") || "nobody"}` : "is too rare in the census";
  return `'${state.search}' is not in the text; ${who} ${served}.`;
}

/** What stands beside the experts that serve a token. */
function serverWords({ counted, names }, layer, id) {
  if (id === null) return `L${layer + 1}: no token`;
  return `L${layer + 1}: '${cut(names[id])}' ${counted.includes(id) ? "is served by" : "is too rare"}`;
}

/** How busy the expert is: if a token always chooses it, the lift is one over its share of all tokens. */
function loadWords({ load, occurs, sizes, top_k, expert: [layer, n] }) {
  const [share, tenths] = [load[layer][n] / d3.sum(occurs), d3.format(".1%")];
  return `${tenths(share)} of all tokens call it (K/N ${tenths(top_k / sizes[layer])})`
    + (share ? `, so no lift exceeds ${times(1 / share)}.` : ".");
}

/** The numbers of an expert's tokens and of the domains, for the table. */
function tableRows({ names, counted, occurs, domains, load, expert: [layer, n] }, census) {
  const [lifts, { best }, common] = [census[layer].of(n), census[layer], counted.length];
  const share = load[layer][n] / d3.sum(occurs);
  return [["called for", "lift", "a random router's best", "times in the census", "of these, choose it"],
    ...favoured(lifts.subarray(0, common), BEST).map((i) => [names[counted[i]], times(lifts[i]), times(best[i]),
      grouped(occurs[counted[i]]), d3.format(".0%")(lifts[i] * share)]),
    ...domains.map((domain, m) => [domain, times(lifts[common + m], 2), times(best[common + m], 2), "", ""])];
}

// --- the widget ------------------------------------------------------------------------------------------------------

class ExpertExplorerView extends ReadingView {
  static data = ["name", "origin", "seed", "max_tokens", "sizes", "top_k", "domains", "names", "occurs", "counted", "load",
    "lifts", "null_lifts", "null_favourites", "contexts", "axis", "token_ids", "tokens", "expert_ids", "expert_weights",
    "weights", "start"];

  static settings = ["text", "token", "expert", "search"];

  static kept = ["token"];

  declare() {
    return [
      textField("Your text"),
      textField("Who serves … ?", { trait: "search",
        note: ({ search }) => (search ? `found ${this.places(search).length} ×` : "e.g. def"),
        set: (search) => { // follow the first place where it stands
          const [[token] = [this.state.token]] = this.places(search);
          return { search, token };
        } }),
    ];
  }

  build() {
    const { top_k, sizes, seed } = this.state;
    this.census = readCensus(this.state);
    this.strip = new TokenStrip(this, { trait: "token", short: true });
    this.lines = [top_k, SERVERS].flatMap((most) => sizes.map((_, layer) => buildLine(layer, most)));
    this.ways = make("div", "moe-explorer-ways");
    this.ways.append(...this.lines.map(({ box }) => box));
    this.heading = make("div", "moe-explorer-heading");
    this.heading.append(make("strong"), make("span"));
    this.favourites = new Chart({ height: 166, margin: { top: 4, left: 76, right: 56 } });
    this.domains = new Chart({ height: 166, margin: { top: 4, left: 76, right: 60 } });
    this.calls = make("div", "moe-explorer-calls");
    this.calls.append(...d3.range(BEST).map(() => {
      const row = make("div");
      row.append(...["span", "span", "mark", "span"].map((tag) => make(tag)));
      return row;
    }));
    const parts = make("div", "moe-explorer-parts");
    parts.append(...[["tokens it is called for more often", this.favourites.box], ["domains", this.domains.box],
      ["calls (marked) in random documents", this.calls]].map(([title, node]) => {
      const part = make("section");
      part.append(make("div", "", title), node);
      return part;
    }));
    this.table = makeSheet("the expert's tokens and domains");
    this.folded.append(this.table);
    return [this.strip.box, this.ways, this.heading, parts, legend([["lift: times as often as for the average", "var(--moe-bar)"],
      [`highest of any expert of a random router, seed ${seed}`, "var(--moe-accent)"]])];
  }

  /** The text at the start: its tokens, by id and by name, and the routing of each layer, as `route` gives it. */
  recorded() { return { ids: this.state.token_ids, tokens: this.state.tokens, layers: routedLayers(this.state) }; }

  take() { this.strip.fill(this.reading.tokens); }

  renew() {
    super.renew();
    if (this.state.search && this.state.weights && !this.lost) this.fetchModel().catch(() => {}); // it has the vocabulary
    this.state.token = Math.min(this.state.token, Math.max(this.reading.ids.length - 1, 0)); // it may be of a longer text
  }

  get token() { return this.reading.ids.length ? this.look.token : null; }

  get vocabulary() { return this.network?.vocabulary; }

  places(search) { return foundAt(this.reading.ids, search, this.vocabulary); }

  describe() { return describe(this.state, this.census, this.reading, this.token, this.vocabulary); }

  draw() {
    const { state, census, reading: { ids, layers, tokens }, token } = this;
    const [[layer, n], found] = [state.expert, new Set(this.places(state.search).flat())];
    const mine = (t) => weightOf(layers[layer], t, n) !== null;
    this.strip.mark((t) => ({ fill: found.has(t) ? DESIGN.found : "", alike: mine(t) }));
    const asked = idAsked(state.search, ids, token, this.vocabulary);
    state.sizes.forEach((_, i) => {
      const { k, ids: chosen, weights } = layers[i];
      const own = token === null ? [] : d3.range(token * k, (token + 1) * k).map((at) => [chosen[at], weights[at]]);
      const chose = token === null ? "no token" : `'${cut(tokens[token])}' chose`;
      const all = d3.sum(own, ([, weight]) => weight) || 1; // the gate scale apart
      this.fillLine(this.lines[i], `L${i + 1}: ${chose}`, own, (weight) => [percent(weight / all), weight / all, "of the weights"]);
      this.fillLine(this.lines[state.sizes.length + i], serverWords(state, i, asked), servers(state, census[i], i, asked),
        (lift) => [times(lift), Math.sqrt(lift / state.axis), "lift"]);
    });
    say(this.heading.firstChild, `Layer ${layer + 1}, expert ${n}: `);
    const underlined = d3.range(ids.length).filter(mine).length;
    say(this.heading.lastChild, `${loadWords(state)} Underlined: ${underlined} of ${ids.length}.`);
    const shown = `${state.expert} ${this.favourites.box.wide} ${this.theme.ink}`;
    if (shown !== this.expertShown) this.drawExpert(layer, n);
    this.expertShown = shown;
  }

  /** What the census says of an expert: it stays when another token is followed. */
  drawExpert(layer, n) {
    const { state, census } = this;
    this.drawLifts(census[layer].of(n), census[layer].best);
    [...this.calls.children].forEach((row, i) => {
      const call = state.contexts[layer][n][i] ?? ["", "", "", ""];
      [...row.children].forEach((part, j) => say(part, call[j]));
      row.style.visibility = call[2] ? "" : "hidden";
    });
    fillTable(this.table, tableRows(state, census));
  }

  /** The experts of a line as buttons with a bar; one that is not needed keeps its place. */
  fillLine({ words, buttons, layer }, text, entries, shown) {
    say(words, text);
    buttons.forEach((button, i) => {
      button.style.visibility = entries[i] ? "" : "hidden";
      button.disabled = !entries[i];
      if (!entries[i]) return;
      const [n, value] = entries[i];
      const [number, share, what] = shown(value);
      button.dataset.expert = n;
      say(button.firstChild, label(layer, n));
      say(button.lastChild, number);
      button.style.setProperty("--share", `${(100 * share).toFixed(1)}%`);
      button.setAttribute("aria-label", `${label(layer, n)} ${number}: layer ${layer + 1}, expert ${n}, ${what}`);
      button.setAttribute("aria-pressed", String(String(this.state.expert) === String([layer, n])));
    });
  }

  /** Tokens and domains on one scale: bars, the random router's best, and a line at 1. */
  drawLifts(lifts, best) {
    const { state: { names, counted, domains, axis }, theme } = this;
    const common = counted.length;
    const places = favoured(lifts.subarray(0, common), BEST);
    const drawn = [[this.favourites, places, places.map((i) => names[counted[i]]), "lift; 1 is the average token", 1],
      [this.domains, domains.map((_, m) => common + m), domains, "lift; 1 is the average domain", 2]];
    for (const [chart, indices, shown, xTitle, digits] of drawn) {
      const { width, height } = chart.sized();
      const [x, rows] = [d3.scaleSqrt([0, axis], [0, width]), indices.length];
      const y = d3.scaleBand(d3.range(rows), [0, (height * rows) / Math.max(rows, BEST)]).padding(0.13);
      const [tall, colour] = [y.bandwidth(), theme.bar];
      chart.axes(x, y, { xTitle, grid: false, yFormat: (row) => cut(shown[row]), xFormat: d3.format("~s"),
        xValues: [1, 4, 16, 64, 256].filter((lift) => lift <= axis) });
      chart.bars([...indices.map((i, row) => ({ key: row, x: 0, y: y(row), width: x(lifts[i]), height: tall, colour })),
        ...indices.map((i, row) => ({ key: `null ${row}`, x: x(best[i]) - 2, y: y(row) - 2, width: 4, height: tall + 4,
          colour: theme.accent })),
        { key: "one", x: x(1), y: 0, width: 1, height, colour: theme.ink }]);
      chart.words(indices.map((i, row) => ({ key: row, x: x(Math.max(lifts[i], best[i])) + 7, y: y(row) + tall / 2 + 5,
        text: times(lifts[i], digits) })));
    }
  }

  wire() {
    return [...this.strip.wire(), on(this.ways, "click", ({ target }) => {
      const button = target.closest("button");
      if (button) this.set({ expert: [Number(button.dataset.layer), Number(button.dataset.expert)] });
    })];
  }

  /** One token is always followed: a click follows another one, and Escape lets the search go. */
  toggle(point) { this.set(point ?? {}); }

  unlock() {
    this.pointAt(null);
    this.set({ search: "" });
  }
}

/** A line of experts of one layer: its words and its buttons. */
function buildLine(layer, most) {
  const [box, words, line] = [make("div", "moe-explorer-way"), make("span"), make("div")];
  const buttons = d3.range(most).map(() => {
    const button = makeButton();
    button.dataset.layer = layer;
    button.append(make("span"), make("span"));
    return button;
  });
  line.append(...buttons);
  box.append(words, line);
  return { box, words, buttons, layer };
}

export default widgetOf(ExpertExplorerView);
