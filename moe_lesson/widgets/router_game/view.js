// The router game: three heat maps of one text, of which one is the trained router's. Guess first, see the evidence then.

import { drawNumbers, fitted, outline, RAMP, sizedContext, span } from "../kit/canvas.js";
import { fillTable, makeSheet } from "../kit/charts.js";
import { button } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { moved, on, placeWithin } from "../kit/events.js";
import { make, makeStage } from "../kit/page.js";
import { combinations } from "../kit/routing.js";
import { TokenStrip } from "../kit/tokens.js";
import { PointingView, widgetOf } from "../kit/view.js";
import { count, listed, rounded } from "../kit/words.js";

const PLACES = ["A", "B", "C"];
const NAMES = { trained: "trained router", "random router": "random router", "hash router": "hash router" };

// --- in words --------------------------------------------------------------------------------------------------------

/** What follows from the guesses: where the trained router was in the guessed rounds, the score, how far the game is. */
function standing({ rounds, round, guesses }) {
  const answers = rounds.slice(0, guesses.length).map(({ kinds }) => PLACES[kinds.indexOf("trained")]);
  const guessed = round < guesses.length;
  return { answers, score: answers.filter((answer, i) => answer === guesses[i]).length, guessed,
    over: guessed && round === rounds.length - 1 };
}

/** What the game shows; token is the one looked at, or null. */
function describe(state, token) {
  const { round, rounds, guesses } = state;
  const { answers, guessed, over } = standing(state);
  const { layer, k, n } = rounds[round];
  const head = `Round ${round + 1} of ${rounds.length}${layer ? `, layer ${layer}` : ""}, K = ${k} of ${count(n, "expert")}.`;
  if (token !== null) return `${head} ${tokenWords(rounds[round], token)}`;
  if (!guessed) {
    return `${head} Which map is the trained router's? Of the others, one is a router of random weights on the same hidden states, `
      + `one a hash of the token alone. Commit a guess: then the evidence appears.`;
  }
  const [guess, answer] = [guesses[round], answers[round]];
  const verdict = guess === answer ? "right" : `wrong, the trained one is ${answer}`;
  return `${head} You said ${guess}: ${verdict}. ${over ? closing(standing(state).score, rounds.length) : evidenceWords(rounds[round])}`;
}

function evidenceWords({ kinds, evidence, k, n }) {
  const [equal, other] = evidence[kinds.indexOf("trained")];
  const [random] = evidence[kinds.indexOf("random router")];
  return `Under the trained router equal tokens share ${rounded(equal, 1)} of ${count(k, "expert")}, different ones `
    + `${rounded(other, 1)}; under the random one equal tokens share ${rounded(random, 1)}, and two random choices `
    + `${rounded((k * k) / n, 1)}.`;
}

/** Where each of the three routers sends a token. */
function tokenWords({ tokens, experts, k }, token) {
  const goes = PLACES.map((place, i) => `${place} ${listed(experts[i][token])}`).join("; ");
  const times = tokens.filter((other) => other === tokens[token]).length;
  const often = times === 1 ? "the only one here" : `one of ${times} here`;
  return `Token ${token} '${tokens[token]}' (${often}) goes to ${k === 1 ? "expert" : "experts"} ${goes}. `
    + "Numbers belong to each router: the same number in two maps means nothing.";
}

/** The probability of at least this score, if each round is right with a chance of its own: binomial. */
export function atLeast(score, rounds, chance) {
  return d3.sum(d3.range(score, rounds + 1),
    (right) => combinations(rounds, right) * chance ** right * (1 - chance) ** (rounds - right));
}

function closing(score, rounds) {
  const chance = d3.format(".2~p")(atLeast(score, rounds, 1 / 3));
  return `The end: ${score} of ${rounds} right; by chance at least ${score} come out right with a probability of ${chance}. A random `
    + "router makes a pretty heat map too: a map alone is no evidence of learning.";
}

/** Who is who and the three numbers of each map; before the guess only question marks. */
function evidenceRows({ kinds, evidence, k }, guessed) {
  return [["map", "router", "shared with an equal token", "with a different one", "MaxVio of the load"],
    ...PLACES.map((place, i) => [place, ...(guessed ? [NAMES[kinds[i]], `${rounded(evidence[i][0], 1)} of ${k}`,
      `${rounded(evidence[i][1], 1)} of ${k}`, rounded(evidence[i][2], 1)] : Array(4).fill("?"))])];
}

// --- geometry: three maps side by side, their rows in line -----------------------------------------------------------

const [LEFT, GAP, RIGHT] = [116, 18, 4]; // pixels for names and the load's axis; between maps, where marks stand; at the edge
const HEAT = 156;                       // pixels of the maps' height, however long the text: nothing moves from round to round
const [TOP, BARS, AXIS] = [8, 40, 20];  // pixels above the load bars, of the bars, of the experts' numbers
const LETTER = 15;                      // pixels that a name is high
const [CHOSEN, UNCHOSEN] = [RAMP[255], RAMP[0]]; // no brightness between: it would tell the trained router

function geometry(width, T, N) {
  const panel = Math.max(1, width - LEFT - RIGHT - 2 * GAP) / 3;
  return { T, N, panel, cell: panel / N, lefts: PLACES.map((_, i) => LEFT + i * (panel + GAP)),
    row: HEAT / T };
}

class RouterGameView extends PointingView {
  static data = ["name", "origin", "seed", "rounds"];

  static settings = ["guesses", "round", "locked_token"];

  static kept = ["locked_token"];

  declare() {
    return [...PLACES.map((place) => button(`${place} is the trained one`, (view) => view.guess(place))),
      button("Next round", (view) => view.advance())];
  }

  build() {
    this.strip = new TokenStrip(this, { short: true }); // nothing moves from round to round
    Object.assign(this, makeStage("three maps A, B and C of the experts that each token chose, over their load bars: arrow keys move from "
      + "token to token, Enter keeps one, Escape lets go"));
    this.stage.classList.add("moe-game");
    [this.evidence, this.history] = [makeSheet("the evidence"), makeSheet("your guesses")];
    this.folded.append(this.history);
    return [this.strip.box, this.stage, make("div", "moe-caption", "Bright: the token chose this expert. Bars: tokens per expert; "
      + "line: their mean."), this.evidence];
  }

  renew() {
    const { state } = this;
    this.now = state.rounds[state.round];
    this.top = Math.ceil(d3.max(state.rounds, ({ load, tokens, k, n }) => (d3.max(load.flat()) * n) / (tokens.length * k)));
    if (this.shownRound === state.round) return;
    [this.shownRound, this.point, this.cursor] = [state.round, null, 0];
    this.strip.fill(this.now.tokens);
  }

  get token() {
    const { locked_token: token } = this.look;
    return token !== null && token < this.now.tokens.length ? token : null;
  }

  badge() { return `${this.state.origin}: ${this.state.name}; nulls: seed ${this.state.seed}`; }

  describe() { return describe(this.state, this.token); }

  draw() {
    const { state, now, token } = this;
    const { answers, guessed, over } = standing(state);
    this.drawMaps(this.stage.clientWidth, guessed);
    this.strip.mark((t) => ({ alike: token !== null && t !== token && now.tokens[t] === now.tokens[token] }));
    this.controls.forEach(({ box }, i) => { // one that can't be pressed now keeps the keyboard, which `disabled` would drop
      box.setAttribute("aria-disabled", String(i < 3 ? guessed : !guessed || over));
      if (i < 3) box.setAttribute("aria-pressed", String(state.guesses[state.round] === PLACES[i]));
    });
    fillTable(this.evidence, evidenceRows(now, guessed), (i) => guessed && now.kinds[i] === "trained");
    fillTable(this.history, [["round", ...state.rounds.map((_, r) => r + 1)],
      ...[["you said", state.guesses], ["trained was", answers]].map(([words, row]) => (
        [words, ...state.rounds.map((_, r) => row[r] ?? "")]))]);
  }

  drawMaps(width, guessed) {
    const { now: { tokens, n, experts, kinds }, token, theme } = this;
    const geo = geometry(width, tokens.length, n);
    const ctx = sizedContext(this.canvas, width, 20 + HEAT + TOP + BARS + AXIS);
    this.geo = geo;
    ctx.translate(0, 20);
    PLACES.forEach((place, i) => {
      const left = geo.lefts[i];
      [ctx.font, ctx.textAlign, ctx.textBaseline, ctx.fillStyle] = [`bold ${theme.font}`, "left", "middle", theme.ink];
      const words = guessed ? `${place}: ${NAMES[kinds[i]]}` : place;
      ctx.fillText(ctx.measureText(words).width > geo.panel ? words.replace(" router", "") : words, left, -10);
      ctx.fillStyle = UNCHOSEN;
      ctx.fillRect(Math.round(left), 0, Math.round(geo.panel), HEAT);
      ctx.fillStyle = CHOSEN;
      experts[i].forEach((chosen, t) => {
        const [y, height] = span(0, geo.row, t);
        for (const expert of chosen) {
          const [x, wide] = span(left, geo.cell, expert);
          ctx.fillRect(x, y, wide - (geo.cell > 4 ? 1 : 0), height - (geo.row > 4 ? 1 : 0));
        }
      });
      this.drawLoad(ctx, i);
      if (token !== null) outline(ctx, left - 1, span(0, geo.row, token)[0] - 2, geo.panel + 2, span(0, geo.row, token)[1] + 3);
    });
    this.drawNames(ctx);
  }

  /** The load bars under the columns they are the sums of; one axis for all maps and rounds, in mean loads. */
  drawLoad(ctx, i) {
    const { geo, now: { load, n }, top, theme } = this;
    const [bottom, mean] = [HEAT + TOP + BARS, d3.sum(load[i]) / n];
    ctx.fillStyle = theme.bar;
    load[i].forEach((tokens, expert) => {
      const [[x, wide], height] = [span(geo.lefts[i], geo.cell, expert), (tokens / mean / top) * BARS];
      ctx.fillRect(x, bottom - height, wide - (geo.cell > 4 ? 1 : 0), height);
    });
    ctx.fillStyle = theme.accent;
    ctx.fillRect(geo.lefts[i], bottom - BARS / top - 1, geo.panel, 2);
    drawNumbers(ctx, { left: geo.lefts[i], cell: geo.cell, N: geo.N }, bottom + 11, [], theme);
    if (i) return;
    [ctx.font, ctx.textAlign, ctx.textBaseline, ctx.fillStyle] = [theme.font, "right", "middle", theme.ink];
    ctx.fillText(`${top} × mean`, LEFT - 6, HEAT + TOP + 4);
    ctx.fillText("mean", LEFT - 6, Math.min(bottom - BARS / top, bottom - 6));
  }

  /**
   * The tokens at the left, where rows are low in as many lanes as their names allow, and then every so many of them; of a
   * token looked at only its equals, marked beside each map.
   */
  drawNames(ctx) {
    const { geo, now: { tokens }, token: looked, theme } = this;
    [ctx.textAlign, ctx.textBaseline, ctx.font] = ["center", "middle", looked === null ? theme.font : `bold ${theme.font}`];
    const [room, rows] = [LEFT - 10, Math.ceil(LETTER / geo.row)]; // rows that a name is high
    const widest = Math.min(d3.max(tokens, (name) => ctx.measureText(name).width) + 4, room / 2);
    const lanes = Math.min(rows, Math.floor(room / widest));
    const [lane, every] = [room / lanes, Math.ceil(rows / lanes)];
    tokens.forEach((name, t) => {
      if (looked === null ? t % every : name !== tokens[looked]) return;
      const [y, height] = span(0, geo.row, t);
      ctx.fillStyle = theme.ink;
      ctx.fillText(fitted(ctx, name, lane - 2), ((Math.floor(t / every) % lanes) + 0.5) * lane, Math.min(Math.max(y + height / 2, 8), HEAT - 6));
      ctx.fillStyle = theme.accent;
      if (looked !== null) for (const left of geo.lefts) ctx.fillRect(left - 9, y, 6, Math.max(2, height - 1));
    });
  }

  /** Commit a guess; there is one for each round. */
  guess(place) {
    if (!standing(this.state).guessed) this.set({ guesses: [...this.state.guesses, place], locked_token: null });
  }

  advance() {
    const { guessed, over } = standing(this.state);
    if (guessed && !over) this.set({ round: this.state.round + 1, locked_token: null });
  }

  wire() {
    const under = ({ clientY }) => placeWithin(clientY - this.canvas.getBoundingClientRect().top - 20, this.geo.row, this.geo.T);
    return [...this.strip.wire(),
      ...this.listenPlaces(this.stage, under, (cursor, key) => moved(cursor, key, this.geo.T), (token) => ({ locked_token: token }))];
  }
}

export default widgetOf(RouterGameView);
