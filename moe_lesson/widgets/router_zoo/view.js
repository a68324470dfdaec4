// The router zoo: the same tokens through twelve routers, who goes where and what it costs.
// The twelve are those of moe_lesson/moe/zoo.py, under the same names.

import { drawCells, drawLoad, drawNames, LOAD_HEIGHT, outline, sizedContext } from "../kit/canvas.js";
import { fillTable, makeSheet } from "../kit/charts.js";
import { menu, slider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { moved, on, placeWithin, reveal } from "../kit/events.js";
import { make, makeCanvas, takeKeys } from "../kit/page.js";
import { floats, LOG_SCORES, sigmoid, softmax, topK } from "../kit/routing.js";
import { PointingView, widgetOf } from "../kit/view.js";
import { count, listed } from "../kit/words.js";

// --- the routers ---------------------------------------------------------------------------------------------------------

const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const asTheyAre = (scores) => (ids) => ids.map((n) => scores[n]);
const shares = (logs) => (ids) => softmax(ids.map((n) => logs[n])); // scores over their sum, in logarithms

/** Gates [N]: some experts, and the weights that `weigh` gives them. */
function give(N, ids, weigh) {
  const [gates, weights] = [new Float64Array(N), weigh(ids)];
  ids.forEach((n, i) => { gates[n] = weights[i]; });
  return gates;
}

const take = (rank, k, weigh) => give(rank.length, topK(rank, k), weigh);

/** What experts are ranked by, those outside a token's best groups closed; `score` ranks groups. */
function inGroups(rank, score, { groups, kept }) {
  const size = rank.length / groups;
  const open = new Set(topK(d3.range(groups).map((g) => score(rank.slice(g * size, (g + 1) * size))), kept));
  return rank.map((value, n) => (open.has(Math.floor(n / size)) ? value : -Infinity));
}

const plain = (x, s, rank = softmax(x)) => take(rank, s.top_k, s.top_k > 1 ? shares(x) : asTheyAre(softmax(x)));
const raised = (scores, s) => scores.map((score, n) => score + s.bias_N[n]);
const roots = (x) => x.map((logit) => Math.log(softplus(logit)) / 2);

function topP(x, { p }) {
  const scores = softmax(x);
  let before = 0;
  const ids = topK(scores, x.length).filter((n) => { const taken = before <= p; before += scores[n]; return taken; });
  return give(x.length, ids, asTheyAre(scores));
}

function nulls(x, { top_k, free }) {
  const real = x.length - free;
  return give(x.length, topK(x, top_k).filter((n) => n < real), (ids) => (ids.length ? shares(x)(ids) : []));
}

/** Of one token: (logits [N], settings, { t, previous [N] }) -> gates [N]. Nothing else is seen, so all of these are causal. */
const BY_TOKEN = {
  "TopK": (x, s) => plain(x, s),
  "DeepSeek-V2": (x, s) => take(inGroups(softmax(x), d3.max, s), s.top_k, asTheyAre(softmax(x))),
  "DeepSeek-V3": (x, s) => take(inGroups(raised(sigmoid(x), s), (group) => d3.sum(topK(group, 2), (n) => group[n]), s), s.top_k,
    shares(x.map(LOG_SCORES.sigmoid))),
  "DeepSeek-V4": (x, s) => take(raised(roots(x).map(Math.exp), s), s.top_k, shares(roots(x))),
  "hash layer": (x, s, { t }) => give(x.length, s.table[t], shares(roots(x))),
  "threshold": (x, s) => sigmoid(x).map((score, n) => (score > s.cutoffs_N[n] ? score : 0)),
  "top-p": topP,
  "null experts": nulls,
  "MoE++": (x, s, { previous }) => {
    const scores = softmax(x.map((logit, n) => logit + d3.sum(previous, (value, m) => value * s.mix_NN[m * x.length + n])));
    return take(scores, s.top_k, asTheyAre(scores));
  },
  "ReMoE": (x, s) => x.map((logit) => Math.max(logit - s.level, 0)),
};

/** Of all tokens that are there: (rows of logits, settings, documents) -> rows of gates. */
const TOGETHER = {
  "expert choice": (rows, { top_k: k }) => {
    const [scores, N] = [rows.map(softmax), rows[0].length];
    const gates = rows.map(() => new Float64Array(N));
    for (let n = 0; n < N; n++) {
      for (const t of topK(scores.map((row) => row[n]), Math.ceil((k * rows.length) / N))) gates[t][n] = scores[t][n];
    }
    return gates;
  },
  "EMO": (rows, s, documents) => {
    const scores = rows.map(softmax);
    const pools = d3.rollup(d3.range(rows.length), (mine) => new Set(topK(rows[0].map((_, n) => d3.mean(mine, (t) => scores[t][n])),
      s.pool)), (t) => documents[t]);
    return rows.map((x, t) => plain(x, s, scores[t].map((score, n) => (pools.get(documents[t]).has(n) ? score : -Infinity))));
  },
};

/** The gates [N] of each of the first `read` tokens. */
export function route(name, { logits, previous, documents, settings }, read) {
  const rows = logits.slice(0, read);
  if (name in TOGETHER) return TOGETHER[name](rows, settings, documents);
  return rows.map((x, t) => BY_TOKEN[name](x, settings, { t, previous: previous[t] }));
}

const idsOf = (gates) => d3.range(gates.length).filter((n) => gates[n]);

/** Where each token went when it was the last one there: its experts. */
export function whenWritten(name, zoo) {
  if (name in BY_TOKEN) return route(name, zoo, zoo.logits.length).map(idsOf);
  return zoo.logits.map((_, t) => idsOf(route(name, zoo, t + 1)[t]));
}

/** What a router does with the tokens that are there: gates, each token's cost, loads, which tokens went elsewhere when written. */
export function examine(name, zoo, written, read, free) {
  const [gates, N] = [route(name, zoo, read), zoo.logits[0].length];
  const paid = N - (free ? zoo.settings.free : 0);
  const ids = gates.map(idsOf);
  return { gates, ids, cost: ids.map((mine) => mine.filter((n) => n < paid).length),
    load: d3.range(N).map((n) => d3.sum(gates, (row) => (row[n] ? 1 : 0))),
    moved: ids.map((mine, t) => String(mine) !== String(written[t])) };
}

// --- in words --------------------------------------------------------------------------------------------------------------

/** What the zoo shows; token is the one looked at, or null. */
function describe({ router, tokens, origin, kinds, settings }, seen, written, token) {
  const head = `${router}, on the logits of a ${origin} router; ${seen.cost.length} of ${count(tokens.length, "token")} are there.`;
  if (token !== null && token < seen.cost.length) {
    const goes = seen.ids[token].map((n) => `${n} (${seen.gates[token][n].toFixed(2)})`);
    return `${head} Token ${token} '${tokens[token]}' pays for ${count(seen.cost[token], "expert")}: ${listed(goes) || "none"}.`
      + (seen.moved[token] ? ` When it was written, it went to ${listed(written[token]) || "none"}.` : "");
  }
  const [most, moved] = [d3.max(seen.load), d3.sum(seen.moved)];
  return `${head} A token pays for ${d3.mean(seen.cost).toFixed(2)} experts (${d3.min(seen.cost)} to ${d3.max(seen.cost)})`
    + `${kinds[router].free ? `; the last ${settings.free} are free` : ""}. Busiest: expert ${seen.load.indexOf(most)} with `
    + `${count(most, "token")}, ${(most / (d3.mean(seen.load) || 1)).toFixed(1)} × the mean. `
    + (moved ? `${count(moved, "token")} went elsewhere when written: not causal, so it can't write text.`
      : `No token went elsewhere when it was written${kinds[router].causal ? ": causal" : ""}.`);
}

// --- the widget ------------------------------------------------------------------------------------------------------------

const [ROW, LEFT, RIGHT] = [18, 92, 52];

class RouterZooView extends PointingView {
  static data = ["origin", "tokens", "num_experts", "logits", "previous", "documents", "settings", "kinds", "start"];

  static settings = ["router", "read", "locked_token"];

  static kept = ["locked_token"];

  declare() {
    this.names = Object.keys(this.state.kinds);
    return [
      menu("router", this.names, { trait: "router" }),
      slider("tokens that are there", { trait: "read", min: 1, max: this.state.tokens.length,
        words: ({ read, tokens }) => `${read} of ${tokens.length} tokens are there` }),
    ];
  }

  build() {
    const { logits, previous, num_experts: N, tokens, documents, settings } = this.state;
    const rows = (bytes) => { const all = floats(bytes); return tokens.map((_, t) => Float64Array.from(all.subarray(t * N, (t + 1) * N))); };
    this.zoo = { logits: rows(logits), previous: rows(previous), documents, settings };
    this.written = Object.fromEntries(this.names.map((name) => [name, whenWritten(name, this.zoo)]));
    this.scroller = make("div", "moe-scroller");
    takeKeys(this.scroller, "heat map of gates, tokens by experts: arrow keys move, Enter keeps a token, Escape lets go");
    [this.heat, this.load, this.sheet] = [makeCanvas(), makeCanvas("moe-load"), makeSheet("all routers")];
    const maps = make("div");
    this.scroller.append(this.heat);
    maps.append(this.scroller, this.load);
    this.folded.append(this.sheet);
    this.cursor = 0;
    return [make("div", "moe-legend", "Rows: tokens; at the right, how many experts each pays for. Columns: experts; lines: groups, "
      + "or where the free ones begin. Colour: gate. Bars: tokens per expert (○ none). ● went elsewhere when it was written."),
    maps];
  }

  /** What one router does with the tokens that are there. */
  seenBy(name) {
    return examine(name, this.zoo, this.written[name], this.state.read, this.state.kinds[name].free);
  }

  renew() {
    const { router, read, locked_token: token } = this.state;
    if (token !== null && token >= read) this.state.locked_token = null;
    this.seen = this.seenBy(router);
    this.limit = d3.max(this.seen.gates, (row) => d3.max(row)) || 1;
    const rows = this.names.map((name) => [name, name === router ? this.seen : this.seenBy(name)]);
    this.cells = [["router", "experts a token pays for", "busiest ÷ mean", "tokens that moved"], ...rows.map(([name, { cost, load, moved }]) =>
      [name, `${d3.mean(cost).toFixed(2)} (${d3.min(cost)} to ${d3.max(cost)})`, (d3.max(load) / (d3.mean(load) || 1)).toFixed(1), d3.sum(moved)])];
  }

  describe() { return describe(this.state, this.seen, this.written[this.state.router], this.look.locked_token); }

  draw() {
    const { state: { read, num_experts: N, router }, seen, theme, look: { locked_token: token } } = this;
    const width = this.scroller.clientWidth;
    this.geo = { left: LEFT, cell: Math.max(1, width - LEFT - RIGHT) / N, N, T: read };
    this.drawHeat(sizedContext(this.heat, width, this.state.tokens.length * ROW), token);
    const mean = d3.mean(seen.load) || 1;
    drawLoad(sizedContext(this.load, width, LOAD_HEIGHT), this.geo, { load: seen.load, T: read, N, k: d3.sum(seen.load) / read },
      Math.max(2, Math.ceil(d3.max(seen.load) / mean)), null, theme);
    fillTable(this.sheet, this.cells, (i) => this.names[i] === router);
  }

  drawHeat(ctx, token) {
    const { geo: { cell, N }, seen, state: { read, tokens, router, kinds, settings }, theme } = this;
    const rows = { first: 0, last: read, row: ROW };
    drawCells(ctx, this.geo, rows, seen.ids.flatMap((ids, t) => ids.map((n) => [t, n, seen.gates[t][n]])), this.limit);
    drawNames(ctx, tokens, { ...rows, left: LEFT, marked: token }, theme);
    ctx.font = theme.font;
    ctx.textAlign = "left";
    seen.cost.forEach((paid, t) => ctx.fillText(`${paid}${seen.moved[t] ? " ●" : ""}`, LEFT + cell * N + 8, (t + 0.5) * ROW));
    const edges = kinds[router].free ? [N - settings.free] : router === "DeepSeek-V2" || router === "DeepSeek-V3"
      ? d3.range(1, settings.groups).map((g) => (g * N) / settings.groups) : [];
    ctx.fillStyle = theme.accent;
    for (const edge of edges) ctx.fillRect(LEFT + edge * cell - 1, 0, 2, read * ROW);
    if (token !== null && token < read) outline(ctx, LEFT, token * ROW, cell * N, ROW);
  }

  wire() {
    const under = ({ clientY }) => placeWithin(clientY - this.scroller.getBoundingClientRect().top + this.scroller.scrollTop, ROW,
      this.state.read);
    return [...this.listenPlaces(this.scroller, under, (cursor, key) => moved(cursor, key, this.state.read), (token) => ({ locked_token: token })),
      on(this.scroller, "keydown", () => reveal(this.scroller, this.cursor, ROW))];
  }
}

export default widgetOf(RouterZooView);
