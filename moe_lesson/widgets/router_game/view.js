// The router game: three heat maps of one text, of which one is the trained router's. Guess first, see the evidence then.
// Every number was computed in Python before the page opened; this module compares guesses, joins words and draws. common.js
// stands above this line. Letters: R rounds, T tokens, N experts, K active experts.

import { RAMP, drawNumbers, fitted, outline, sizedContext } from "../kit/canvas.js";
import { keepKeys, moved, on, placeWithin, save } from "../kit/events.js";
import {
  buildHeader, buildStatus, headCell, make, makeButton, makeStage, makeTable, makeTokens, rowWith, say, tokenOf,
  withBreaks,
} from "../kit/page.js";
import { sum } from "../kit/routing.js";
import { PointingView, widgetOf } from "../kit/views_old.js";
import { count, listed } from "../kit/words.js";

// --- state: what is shown, read from what Python sent ----------------------------------------------------------------

const SETTINGS = ["guesses", "round", "locked_token"];
const DATA = ["title", "name", "origin", "seed", "rounds", "closings", "top"];
const PLACES = ["A", "B", "C"];
export const NAMES = { trained: "trained router", "random router": "random router", "hash router": "hash router" };

/** The traits of the model as one plain object, with the round on the screen and what follows from the guesses. */
export function readState(model) {
  const state = Object.fromEntries([...DATA, ...SETTINGS].map((name) => [name, model.get(name)]));
  const { rounds, round, guesses } = state;
  const answers = rounds.slice(0, guesses.length).map(({ kinds }) => PLACES[kinds.indexOf("trained")]);
  const score = answers.filter((answer, i) => answer === guesses[i]).length;
  const guessed = round < guesses.length;
  return { ...state, shown: rounds[round], answers, score, guessed, over: guessed && round === rounds.length - 1 };
}

/** Tokens per expert of a round, if all experts had the same load. */
function meanOf({ tokens, n, k }) {
  return (tokens.length * k) / n;
}

// --- words: the twins of those in router_game.py ---------------------------------------------------------------------

export const COLUMNS = ["map", "router", "shared with an equal token", "with a different one", "MaxVio of the load"];
export const HISTORY = ["round", "you said", "trained was", "right"];
const QUESTION = "Map A, B or C: which is the trained router's? Of the other two, one is a router with random weights on the same "
  + "hidden states, one a hash of the token alone. Commit a guess; then the evidence appears.";

/** Who is who and the three numbers of each map; before the guess only question marks. */
export function tableRows({ shown: { kinds, rows }, guessed }) {
  return PLACES.map((place, i) => [place, ...(guessed ? [NAMES[kinds[i]], ...rows[i]] : Array(4).fill("?"))]);
}

/** Your guess and the answer of each round so far, one column each. */
export function historyRows({ rounds, guesses, answers }) {
  const right = guesses.map((guess, i) => (guess === answers[i] ? "yes" : "no"));
  return [guesses, answers, right].map((row, i) => [HISTORY[i + 1], ...rounds.map((_, r) => row[r] ?? "")]);
}

/** What the game shows, in words; token is the one looked at, or null. */
export function describe(state, token) {
  const parts = [`Round ${state.round + 1} of ${state.rounds.length}, ${placeWords(state)}.`];
  if (token !== null) parts.push(tokenWords(state, token));
  else if (!state.guessed) parts.push(QUESTION);
  else parts.push(verdictWords(state), state.shown.evidence);
  parts.push(state.over ? state.closings[state.score] : scoreWords(state));
  return parts.filter(Boolean).join(" ");
}

/** Where the round is from. */
function placeWords({ shown: { layer, k, n } }) {
  return `${layer ? `${layer}, ` : ""}K = ${k} of ${count(n, "expert")}`;
}

function verdictWords({ round, guesses, answers }) {
  const [guess, answer] = [guesses[round], answers[round]];
  return `You said ${guess}: ${guess === answer ? "right." : `wrong, the trained one is ${answer}.`}`;
}

function scoreWords({ score, guesses: { length } }) {
  return length ? `${score} of ${length} right; a coin of three sides would get ${(length / 3).toFixed(1)}.` : "";
}

/** Where each of the three routers sends a token. */
function tokenWords({ shown: { tokens, experts, k } }, token) {
  const goes = PLACES.map((place, i) => `${place} ${listed(experts[i][token])}`).join("; ");
  const times = tokens.filter((other) => other === tokens[token]).length;
  return `Token ${token} '${tokens[token]}' (one of ${times} in this text) goes to ${k === 1 ? "expert" : "experts"} ${goes}. `
    + "Numbers belong to each router: the same number in two maps means nothing.";
}

// --- geometry: three maps side by side, their rows in line -----------------------------------------------------------

const LEFT = 80;      // pixels for the tokens and the load's axis
const GAP = 18;       // pixels between maps; the marks of equal tokens stand there
const RIGHT = 4;
const HEAT = 300;     // pixels of the maps' height, however long the text: nothing moves from round to round
const BARS_TOP = 8;
const BARS = 44;      // pixels of the load bars
const AXIS = 20;      // pixels of the experts' numbers
const LETTER = 15;    // pixels that a name needs

/** The measures for a width in CSS pixels: the maps' left edges and cells; in how many columns the names stand. */
export function geometry(width, T, N) {
  const panel = Math.max(1, width - LEFT - RIGHT - 2 * GAP) / 3;
  return { width, T, N, panel, cell: panel / N, lefts: PLACES.map((_, i) => LEFT + i * (panel + GAP)),
    row: HEAT / T, lanes: Math.ceil(LETTER / (HEAT / T)), height: HEAT + BARS_TOP + BARS + AXIS };
}

/** Top edge and height of a token's row, on whole pixels: seams would flicker between rows. */
export function rowOf(geo, token) {
  const [top, next] = [token, token + 1].map((edge) => Math.round(edge * geo.row));
  return { y: top, h: next - top };
}

/** Left edge and width of an expert's column in map i. */
export function columnOf(geo, i, expert) {
  const [left, next] = [expert, expert + 1].map((edge) => Math.round(geo.lefts[i] + edge * geo.cell));
  return { x: left, w: Math.max(1, next - left) };
}

/** The token whose row is at a height, or null under the maps. */
export function tokenAt(geo, y) {
  return placeWithin(y, geo.row, geo.T);
}

// --- drawing ---------------------------------------------------------------------------------------------------------

const [CHOSEN, UNCHOSEN] = [RAMP[255], RAMP[0]]; // no brightness between: it would tell the trained router

/** The whole picture; `token` is the one looked at, or null. */
function drawAll(ctx, geo, { shown, top }, token, theme) {
  PLACES.forEach((_, i) => {
    drawMap(ctx, geo, shown, i);
    drawLoad(ctx, geo, shown, i, top, theme);
  });
  drawLoadAxis(ctx, geo, top, theme);
  drawNames(ctx, geo, shown.tokens, token, theme);
  if (token === null) return;
  const { y, h } = rowOf(geo, token);
  for (const left of geo.lefts) outline(ctx, left - 1, y - 2, geo.panel + 2, h + 3);
}

function drawMap(ctx, geo, { experts }, i) {
  ctx.fillStyle = UNCHOSEN;
  ctx.fillRect(Math.round(geo.lefts[i]), 0, Math.round(geo.panel), HEAT);
  ctx.fillStyle = CHOSEN;
  const [across, down] = [geo.cell > 4 ? 1 : 0, geo.row > 4 ? 1 : 0];
  experts[i].forEach((chosen, token) => {
    const { y, h } = rowOf(geo, token);
    for (const expert of chosen) {
      const { x, w } = columnOf(geo, i, expert);
      ctx.fillRect(x, y, w - across, h - down);
    }
  });
}

/** The load bars under the columns they are the sums of; one axis for all maps and rounds, in mean loads. */
function drawLoad(ctx, geo, { load, n }, i, top, theme) {
  const mean = sum(load[i]) / n;
  const bottom = HEAT + BARS_TOP + BARS;
  ctx.fillStyle = theme.bar;
  load[i].forEach((tokens, expert) => {
    const { x, w } = columnOf(geo, i, expert);
    const height = (tokens / mean / top) * BARS;
    ctx.fillRect(x, bottom - height, w - (geo.cell > 4 ? 1 : 0), height);
  });
  ctx.fillStyle = theme.accent;
  ctx.fillRect(geo.lefts[i], bottom - BARS / top - 1, geo.panel, 2);
  drawNumbers(ctx, { left: geo.lefts[i], cell: geo.cell, N: geo.N }, bottom + 11, [], theme);
}

function drawLoadAxis(ctx, geo, top, theme) {
  const bottom = HEAT + BARS_TOP + BARS;
  ctx.font = theme.font;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  ctx.fillStyle = theme.ink;
  ctx.fillText(`${top} × mean`, LEFT - 6, HEAT + BARS_TOP + 6);
  ctx.fillText("mean", LEFT - 6, Math.min(bottom - BARS / top, bottom - 6));
}

/** The tokens at the left, in lanes where rows are low; of a token looked at only its equals, marked beside each map. */
function drawNames(ctx, geo, tokens, looked, theme) {
  const lane = (LEFT - 10) / geo.lanes;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.font = looked === null ? theme.font : `bold ${theme.font}`;
  tokens.forEach((name, token) => {
    if (looked !== null && name !== tokens[looked]) return;
    const { y, h } = rowOf(geo, token);
    ctx.fillStyle = theme.ink;
    ctx.fillText(fitted(ctx, name, lane - 2), ((token % geo.lanes) + 0.5) * lane, Math.min(Math.max(y + h / 2, 8), HEAT - 6));
    if (looked === null) return;
    ctx.fillStyle = theme.accent;
    for (const left of geo.lefts) ctx.fillRect(left - 9, y, 6, Math.max(2, h - 1));
  });
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `draw` fills them. The score stands under the maps, beside the way on. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-game") };
  keepKeys(page.root);
  const header = buildHeader(page, state.title);
  say(page.badge, `${state.origin}: ${state.name}`);
  page.reset.before(make("span", "moe-badge moe-null", `beside two nulls, seed ${state.seed}`));
  page.root.append(header, buildText(page), buildHeads(page), buildStage(page), buildStatus(page), buildTables(page, state));
  return page;
}

/** The round and its text. */
function buildText(page) {
  const row = make("div", "moe-row moe-game-text");
  page.place = make("span");
  page.strip = make("div", "moe-strip");
  row.append(page.place, page.strip);
  return row;
}

/** Above each map the button that says it is the trained one, and room for its name. */
function buildHeads(page) {
  const heads = make("div", "moe-game-heads");
  page.buttons = PLACES.map((place) => makeButton(`${place} is the trained one`));
  page.names = PLACES.map(() => make("span", "moe-game-name"));
  PLACES.forEach((_, i) => {
    const head = make("div", "moe-game-head");
    head.append(page.buttons[i], page.names[i]);
    heads.append(head);
  });
  return heads;
}

function buildStage(page) {
  const [box, under] = [make("div"), make("div", "moe-game-under")];
  Object.assign(page, makeStage("three maps A, B and C of the experts that each token chose, over their load bars: arrow keys move "
    + "from token to token, Enter keeps one, Escape lets go"));
  page.score = make("span", "moe-game-score");
  page.next = makeButton("Next round");
  under.append(make("span", "moe-caption", "Bright: the token chose this expert. Bars: tokens per expert; orange line: their mean."),
    page.score, page.next);
  box.append(page.stage, under);
  return box;
}

function buildTables(page, state) {
  const foot = make("div", "moe-game-foot");
  const build = (heads, rows) => {
    const cells = rows.map(([, ...rest]) => rest.map(() => make("td")));
    const table = makeTable(heads.map((words) => headCell("col", words)),
      rows.map(([name], i) => rowWith([headCell("row", name), ...cells[i]])));
    foot.append(table);
    return cells;
  };
  page.cells = build(COLUMNS, tableRows(state));
  page.history = build([HISTORY[0], ...state.rounds.map((_, i) => String(i + 1))], historyRows(state));
  return foot;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

/** The tokens of the round; the one looked at outlined, its equals underlined. */
function syncStrip(page, { shown: { tokens } }, looked) {
  if (page.tokens !== tokens) {
    page.tokens = tokens;
    page.letters = makeTokens(tokens);
    page.strip.replaceChildren(...withBreaks(page.letters));
  }
  page.letters.forEach((letter, t) => {
    letter.classList.toggle("moe-looked", t === looked);
    letter.classList.toggle("moe-alike", looked !== null && t !== looked && tokens[t] === tokens[looked]);
  });
}

/** The guess is marked on its button. Buttons that can't be pressed now keep the keyboard, which `disabled` would drop. */
function syncButtons(page, state) {
  const enable = (button, can) => button.setAttribute("aria-disabled", String(!can));
  page.buttons.forEach((button, i) => {
    enable(button, !state.guessed);
    button.setAttribute("aria-pressed", String(state.guesses[state.round] === PLACES[i]));
    say(page.names[i], state.guessed ? NAMES[state.shown.kinds[i]] : "");
    page.names[i].classList.toggle("moe-game-answer", state.guessed && state.shown.kinds[i] === "trained");
  });
  enable(page.next, state.guessed && !state.over);
}

function syncTables(page, state) {
  const fill = (cells, rows) => rows.forEach(([, ...words], i) => words.forEach((text, j) => say(cells[i][j], text)));
  fill(page.cells, tableRows(state));
  fill(page.history, historyRows(state));
}

// --- the widget ------------------------------------------------------------------------------------------------------

class RouterGameView extends PointingView {
  get settings() { return SETTINGS; }

  get kept() { return "locked_token"; }

  read() {
    const before = this.state?.round;
    this.state = readState(this.model);
    if (before !== this.state.round) [this.point, this.reached] = [null, 0];
  }

  build() {
    return buildPage(this.state);
  }

  draw() {
    const { page, state } = this;
    const looked = this.looked < state.shown.tokens.length ? this.looked : null;
    this.drawCanvas(looked); // first: it reads the layout, which the lines below make stale
    say(page.place, `Round ${state.round + 1} of ${state.rounds.length}, ${placeWords(state)}:`);
    say(page.score, scoreWords(state));
    syncStrip(page, state, looked);
    syncButtons(page, state);
    syncTables(page, state);
    say(page.status, describe(state, looked));
  }

  drawCanvas(looked) {
    const { page, state } = this;
    const width = page.stage.clientWidth;
    if (!width) return; // not on the page yet: the ResizeObserver will call
    this.geo = geometry(width, state.shown.tokens.length, state.shown.n);
    drawAll(sizedContext(page.canvas, width, this.geo.height), this.geo, state, looked, this.theme);
  }

  wire() {
    const { page } = this;
    return [
      ...page.buttons.map((button, i) => on(button, "click", () => this.guess(PLACES[i]))),
      on(page.next, "click", () => this.advance()),
      ...this.listenMouse(page.strip, tokenOf),
      ...this.listenMouse(page.stage, (event) => this.tokenUnder(event)),
      ...this.listenKeys(page.stage, (key) => this.next(key), () => this.reached),
      ...this.listenEscape(),
    ];
  }

  /** Commit a guess; there is one for each round. */
  guess(place) {
    const { guessed, guesses } = this.state;
    if (!guessed) save(this.model, { guesses: [...guesses, place], locked_token: null });
  }

  advance() {
    const { guessed, over, round } = this.state;
    if (guessed && !over) save(this.model, { round: round + 1, locked_token: null });
  }

  next(key) {
    const token = moved(this.reached, key, this.state.shown.tokens.length);
    if (token !== null) this.reached = token;
    return token;
  }

  tokenUnder(event) {
    return this.geo ? tokenAt(this.geo, event.clientY - this.page.canvas.getBoundingClientRect().top) : null;
  }
}

export default widgetOf(RouterGameView);
