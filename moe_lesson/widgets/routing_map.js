// The routing map: a text, and the experts that each of its tokens chose. common.js stands above this line.

// --- state: what is shown, computed from what Python sent ------------------------------------------------------------

/** The traits of the model as one plain object; rankings keep what was ranked before with the same logits. */
export function readState(model, rankings = {}) {
  const names = ["title", "origin", "num_shared", "has_input", "max_bytes", "gates", "null_gates", "sizes", "top_k",
    "tokens", "problem", "layer", "k", "router", "locked_token", "locked_expert", "text"];
  const state = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  state.logits = { model: floats(model.get("logits")), null: floats(model.get("null_logits")) };
  return { ...state, rankings };
}

/** The routing of one layer by one router. */
export function routeLayer(state, router, layer, k) {
  const key = `${router} ${layer}`;
  state.rankings[key] = state.rankings[key] || rankLayer(state, router, layer);
  return route(state.rankings[key], k);
}

function rankLayer(state, router, layer) {
  const [T, N] = [state.tokens.length, state.sizes[layer]];
  const start = T * sum(state.sizes.slice(0, layer));
  const gate = (router === "null" ? state.null_gates : state.gates)[layer];
  return rankExperts(state.logits[router].subarray(start, start + T * N), T, N, gate);
}

/** The top of the load axis in mean loads: fixed for a text over all layers, routers and k, so that change shows. */
export function loadLimit(state) {
  const ratios = [2];
  for (const router of state.null_gates.length ? ["model", "null"] : ["model"]) {
    for (let layer = 0; layer < state.sizes.length; layer++) {
      const routed = routeLayer(state, router, layer, state.top_k);
      if (routed.T) ratios.push(Math.max(...routed.load) / meanLoad(routed));
    }
  }
  return Math.ceil(Math.max(...ratios));
}

export function routerLabel(state) {
  return state.router === "null" ? "random router (null)" : `${state.origin} router`;
}

/** The K slider's value in words. */
export function kLabel(state) {
  if (state.k === state.top_k) return `K = ${state.k} (as ${state.origin === "trained" ? "trained" : "recorded"})`;
  return `K = ${state.k}: what-if on the recorded logits; the model ran with ${state.top_k}`;
}

// --- the summary: the twin of `summary` in routing_map.py ------------------------------------------------------------

/** What the map shows, in words; token and expert are the ones looked at, or null. */
export function describe(state, routed, token, expert) {
  const parts = [headWords(state, routed)];
  if (!routed.T) {
    parts.push("The text is empty: no token, nothing to route." + (state.has_input ? " Type some text." : ""));
    return parts.join(" ");
  }
  if (token !== null && expert !== null) parts.push(pairWords(state, routed, token, expert));
  if (token !== null) parts.push(...tokenWords(state, routed, token));
  if (expert !== null) parts.push(expertWords(state, routed, expert));
  if (token === null && expert === null) parts.push(...loadWords(routed));
  return parts.join(" ");
}

function headWords(state, routed) {
  const experts = count(routed.N, "expert");
  const layer = `Layer ${state.layer + 1} of ${state.sizes.length}`;
  let words = `${layer}, K = ${routed.k} of ${experts}, ${routerLabel(state)}.`;
  if (routed.k !== state.top_k) words += ` A what-if: the model ran with K = ${state.top_k}.`;
  const shared = state.num_shared;
  if (shared) words += ` + ${count(shared, "shared expert")} ${shared === 1 ? "sees" : "see"} every token.`;
  return words;
}

function loadWords(routed) {
  const load = Array.from(routed.load);
  const [most, mean] = [Math.max(...load), meanLoad(routed)];
  const idle = load.flatMap((tokens, n) => (tokens ? [] : [n]));
  return [`Busiest: expert ${load.indexOf(most)}, chosen by ${most} of ${count(routed.T, "token")}, `
    + `${(most / mean).toFixed(1)} × the mean load of ${mean.toFixed(1)}.`,
  idle.length ? `Idle: ${count(idle.length, "expert")} (${listed(idle)}).` : "No expert is idle."];
}

function tokenWords(state, routed, token) {
  const ids = Array.from(routed.ids.subarray(token * routed.k, (token + 1) * routed.k));
  const goes = ids.map((n, i) => `${n} (${routed.weights[token * routed.k + i].toFixed(2)})`);
  const named = (t) => `${t} '${state.tokens[t]}'`;
  const words = [`Token ${named(token)} goes to ${goes.length === 1 ? "expert" : "experts"} ${listed(goes)}.`];
  const common = inCommon(routed, token);
  const others = ranked(common).filter((t) => t !== token && common[t]);
  const alike = others.slice(0, 3).map((t) => `token ${named(t)} (${common[t]} of ${routed.k})`);
  if (alike.length) words.push(`It shares most experts with ${alike.join(", ")}.`);
  return words;
}

function expertWords(state, routed, expert) {
  const times = new Map();
  let mine = 0;
  for (let t = 0; t < routed.T; t++) {
    if (weightOf(routed, t, expert) === null) continue;
    mine += 1;
    times.set(state.tokens[t], (times.get(state.tokens[t]) || 0) + 1);
  }
  if (!mine) return `Expert ${expert} is chosen by no token of this text.`;
  const kinds = [...times].sort((a, b) => b[1] - a[1]).map(([token, n]) => `'${token}' × ${n}`);
  return `Expert ${expert} is chosen by ${mine} of ${count(routed.T, "token")}: ${listed(kinds)}.`;
}

function pairWords(state, routed, token, expert) {
  const weight = weightOf(routed, token, expert);
  if (weight === null) return `Token ${token} '${state.tokens[token]}' did not choose expert ${expert}.`;
  return `Token ${token} '${state.tokens[token]}' gives expert ${expert} a weight of ${weight.toFixed(2)}.`;
}

// --- geometry: where a cell is, and which cell is where --------------------------------------------------------------

const ROW = 18;      // pixels per token: room for its name
const LEFT = 92;     // pixels for the names
const RIGHT = 8;
const BARS = 72;     // pixels for the load bars
const BARS_TOP = 8;  // pixels above them, for a bar that leaves the axis
const AXIS = 22;     // pixels for the experts' numbers

/** The map's measures for a width in CSS pixels. */
export function geometry(width, T, N) {
  return { width, T, N, left: LEFT, cell: Math.max(1, width - LEFT - RIGHT) / N, height: T * ROW };
}

/** Token and expert under a point of the map; null beside the cells. */
export function cellAt(geo, x, y) {
  return { token: placeWithin(y, ROW, geo.T), expert: placeWithin(x - LEFT, geo.cell, geo.N) };
}

// --- drawing ---------------------------------------------------------------------------------------------------------

/** The rows of the heat map between scroll positions top and top + height. */
function drawHeat(ctx, geo, state, routed, look, top, height, theme) {
  const limit = state.gates[state.layer].scale;
  const [first, last] = [Math.floor(top / ROW), Math.min(geo.T, Math.ceil((top + height) / ROW))];
  ctx.save();
  ctx.translate(0, -top);
  ctx.fillStyle = CIVIDIS[0];
  ctx.fillRect(LEFT, first * ROW, geo.cell * geo.N, (last - first) * ROW);
  const gap = geo.cell > 6 ? 1 : 0;
  for (let i = first * routed.k; i < last * routed.k; i++) {
    ctx.fillStyle = weightColour(routed.weights[i], limit);
    const y = Math.floor(i / routed.k) * ROW;
    ctx.fillRect(LEFT + routed.ids[i] * geo.cell, y, geo.cell - gap, ROW - 1);
  }
  drawNames(ctx, state, look, first, last, theme);
  if (look.expert !== null) outline(ctx, LEFT + look.expert * geo.cell, top - 4, geo.cell, height + 8);
  if (look.token !== null) outline(ctx, LEFT, look.token * ROW, geo.cell * geo.N, ROW);
  ctx.restore();
}

/** Position and name of each token, at the left of its row. */
function drawNames(ctx, state, look, first, last, theme) {
  ctx.textBaseline = "middle";
  ctx.fillStyle = theme.ink;
  for (let t = first; t < last; t++) {
    ctx.font = t === look.token ? `bold ${theme.font}` : theme.font;
    ctx.textAlign = "left";
    ctx.fillText(t, 0, t * ROW + ROW / 2);
    ctx.textAlign = "right";
    ctx.fillText(fitted(ctx, state.tokens[t], LEFT - 38), LEFT - 8, t * ROW + ROW / 2);
  }
}

/** The load bars under the columns, with a line at the mean. */
function drawLoad(ctx, geo, routed, look, top, theme) {
  const mean = meanLoad(routed);
  const heightOf = (tokens) => (routed.T ? Math.min(tokens / (mean * top), 1) * BARS : 0);
  const gap = geo.cell > 6 ? 1 : 0;
  for (let n = 0; n < geo.N; n++) {
    const height = heightOf(routed.load[n]);
    ctx.fillStyle = theme.bar;
    ctx.fillRect(LEFT + n * geo.cell, BARS_TOP + BARS - height, geo.cell - gap, height);
    if (routed.load[n] > mean * top) drawArrow(ctx, LEFT + (n + 0.5) * geo.cell, BARS_TOP, theme);
    if (!routed.load[n] && routed.T) drawIdle(ctx, LEFT + (n + 0.5) * geo.cell, geo.cell, theme);
  }
  drawLoadAxis(ctx, geo, routed, look, top, BARS_TOP + BARS - heightOf(mean), theme);
  if (look.expert !== null) outline(ctx, LEFT + look.expert * geo.cell, 4, geo.cell, BARS + 6);
}

/** A ring where a bar would stand: nobody chose this expert. */
function drawIdle(ctx, x, cell, theme) {
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.arc(x, BARS_TOP + BARS - 4, Math.max(1, Math.min(3, cell / 2 - 1)), 0, 2 * Math.PI);
  ctx.stroke();
}

function drawLoadAxis(ctx, geo, routed, look, top, meanY, theme) {
  const bottom = BARS_TOP + BARS;
  ctx.fillStyle = theme.accent;
  ctx.fillRect(LEFT, meanY - 1, geo.cell * geo.N, 2);
  ctx.font = theme.font;
  ctx.textBaseline = "middle";
  ctx.textAlign = "right";
  ctx.fillStyle = theme.ink;
  ctx.fillText(`mean ${meanLoad(routed).toFixed(1)}`, LEFT - 8, Math.min(meanY, bottom - 6));
  ctx.fillText(`${top} × mean`, LEFT - 8, 14);
  drawNumbers(ctx, geo, bottom + 12, look.expert === null ? [] : [look.expert], theme);
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `sync` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root"), routers: [] };
  keepKeys(page.root);
  page.root.append(buildHeader(page, state.title));
  if (state.has_input) page.root.append(buildInput(page));
  page.root.append(buildControls(page, state), buildStrip(page), buildMap(page), buildStatus(page), buildProblem(page));
  return page;
}

function buildInput(page) {
  const box = make("label", "moe-control moe-input");
  page.input = Object.assign(make("input"), { type: "text", spellcheck: false, autocomplete: "off" });
  page.bytes = make("span", "moe-value");
  box.append(make("span", "", "Your text"), page.input, page.bytes);
  return box;
}

function buildControls(page, state) {
  const row = make("div", "moe-row");
  page.layer = makeSlider("Layer", 1, state.sizes.length);
  page.k = makeSlider("K, experts per token", 1, state.sizes[0]);
  page.k.box.classList.add("moe-wide"); // its words grow; the slider must not move under the hand
  page.layer.box.hidden = state.sizes.length === 1;
  row.append(page.layer.box);
  if (state.null_gates.length) {
    const choice = makeChoice("router", [["model", state.origin], ["null", "random (null)"]]);
    page.routers = choice.radios;
    row.append(choice.box);
  }
  row.append(page.k.box);
  return row;
}

function buildStrip(page) {
  const box = make("div");
  page.caption = make("div", "moe-caption");
  page.strip = make("div", "moe-strip");
  page.strip.setAttribute("role", "listbox");
  page.strip.setAttribute("aria-label", "tokens of the text");
  box.append(page.caption, page.strip);
  return box;
}

function buildMap(page) {
  const box = make("div");
  page.scroller = make("div", "moe-scroller");
  takeKeys(page.scroller, "heat map of gate weights, tokens by experts: arrow keys move, Enter keeps a cell, Escape lets go");
  page.spacer = make("div");
  page.heat = makeCanvas("moe-heat");
  page.load = makeCanvas("moe-load");
  page.axis = make("div", "moe-caption moe-axis");
  page.spacer.append(page.heat);
  page.scroller.append(page.spacer);
  box.append(buildLegend(page), page.scroller, page.load, page.axis);
  return box;
}

function buildLegend(page) {
  const legend = make("div", "moe-legend");
  const { scale, ticks } = makeScale(CIVIDIS);
  page.ticks = ticks;
  legend.append(make("span", "", "Rows: tokens. Columns: experts. Colour: gate weight"), scale);
  return legend;
}

function buildProblem(page) {
  page.problem = make("div", "moe-problem");
  page.problem.setAttribute("role", "alert");
  return page.problem;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

function syncControls(page, state) {
  const isNull = state.router === "null";
  say(page.badge, isNull ? "random router (null)" : state.origin);
  page.badge.classList.toggle("moe-null", isNull);
  syncSlider(page.layer, state.layer + 1, state.sizes.length, `Layer ${state.layer + 1} of ${state.sizes.length}`);
  syncSlider(page.k, state.k, state.sizes[state.layer], kLabel(state));
  syncChoice(page.routers, state.router);
  say(page.problem, state.problem);
}

/** The weights' scale under the colour ramp, at the square root of each share. */
function syncLegend(page, state) {
  const limit = state.gates[state.layer].scale;
  fillTicks(page.ticks, [0, 0.05, 0.2, 0.5, 1].map((share) => [Number((share * limit).toPrecision(3)), Math.sqrt(share)]));
}

/** One option per token. Lines may break after a space, and do break after a line end. */
function fillStrip(page, state) {
  page.options = makeTokens(state.tokens);
  for (const option of page.options) option.setAttribute("role", "option");
  page.strip.replaceChildren(...withBreaks(page.options, { "␣": "wbr", "⏎": "br" }));
  if (!state.tokens.length) page.strip.append(make("span", "moe-token", "(empty)"));
  page.strip.setAttribute("role", state.tokens.length ? "listbox" : "note");
}

/** Fill the tokens that chose the expert looked at; underline those that travel with the token looked at. */
function syncStrip(page, state, routed, look) {
  const common = look.token === null ? null : inCommon(routed, look.token);
  const tabStop = look.token ?? 0; // one token stands for all in the tab order; arrow keys move on
  page.options.forEach((option, t) => {
    const weight = look.expert === null ? null : weightOf(routed, t, look.expert);
    const fill = weight === null ? "" : weightColour(weight, state.gates[state.layer].scale);
    option.style.background = fill;
    option.style.color = fill && inkOn(fill);
    option.classList.toggle("moe-chosen", weight !== null);
    option.classList.toggle("moe-looked", t === look.token);
    option.classList.toggle("moe-alike", common !== null && t !== look.token && 2 * common[t] >= routed.k);
    option.setAttribute("aria-selected", String(t === state.locked_token));
    option.tabIndex = t === tabStop ? 0 : -1;
  });
}

/** What the marks in the strip mean just now. */
function captionWords({ token, expert }) {
  const words = [];
  if (expert !== null) words.push(`Filled: tokens that chose expert ${expert}; brighter is a larger weight.`);
  if (token !== null) words.push(`Underlined: tokens that share at least half of token ${token}'s experts.`);
  return words.join(" ") || "Point at a token or at an expert's column; click to keep it, Escape to let go.";
}

/** What the bars under the map are. */
function axisWords({ layer }) {
  return `Load: tokens per expert of layer ${layer + 1} (○ idle). The numbers belong to this layer's experts alone.`;
}

// --- the widget ------------------------------------------------------------------------------------------------------

const DATA = ["tokens", "logits", "null_logits", "text"];
const SETTINGS = ["layer", "k", "router", "locked_token", "locked_expert", "problem"];

class RoutingMapView extends LessonView {
  get settings() { return SETTINGS; }

  prepare() {
    this.typing = 0; // the timer that waits for the end of typing
    this.leave();
    this.forget();
  }

  /** Nothing is pointed at, and the keyboard stands where it stood at first. */
  leave() {
    this.point = null; // what the mouse or the keyboard points at: { token, expert }, either may be null
    this.cursor = { row: 0, column: 0 }; // where the keyboard stands in the map
  }

  /** What was computed of a text, and what the page shows of it. */
  forget() {
    this.state = { rankings: {} };
    this.stale = true;
  }

  read() {
    this.state = readState(this.model, this.state.rankings);
    this.routed = null;
  }

  build() {
    return buildPage(this.state);
  }

  close() {
    clearTimeout(this.typing);
    super.close();
  }

  watch() {
    const restart = () => { this.forget(); this.read(); this.frame.ask(); };
    return [...super.watch(), ...DATA.map((name) => onTrait(this.model, name, restart)),
      onTrait(this.model, "locked_token", () => this.reveal(this.model.get("locked_token")))];
  }

  /** Renew what depends on the text alone. */
  renew() {
    const { page, state } = this;
    this.stale = false;
    this.leave();
    this.top = loadLimit(state);
    fillStrip(page, state);
    page.spacer.style.height = `${Math.max(state.tokens.length, 1) * ROW}px`;
    if (page.input && !this.typing && page.input.value !== state.text) page.input.value = state.text;
    this.countBytes();
  }

  countBytes() {
    if (!this.page.input) return;
    const size = new TextEncoder().encode(this.page.input.value).length;
    say(this.page.bytes, `${size} of ${this.state.max_bytes} bytes`);
  }

  /** The token and the expert looked at: what is pointed at, else what is locked. */
  look() {
    const { point, state } = this;
    return { token: point?.token ?? state.locked_token, expert: point?.expert ?? state.locked_expert };
  }

  draw() {
    if (this.stale) this.renew();
    const { page, state } = this;
    this.routed = this.routed || routeLayer(state, state.router, state.layer, state.k);
    const look = this.look();
    this.drawCanvases(look); // first: it reads the layout, which the lines below make stale
    syncControls(page, state);
    syncLegend(page, state);
    syncStrip(page, state, this.routed, look);
    say(page.caption, captionWords(look));
    say(page.axis, axisWords(state));
    say(page.status, describe(state, this.routed, look.token, look.expert));
  }

  drawCanvases(look) {
    const { page, state, routed } = this;
    const { clientWidth: width, clientHeight: height, scrollTop } = page.scroller;
    if (!width) return; // not on the page yet: the ResizeObserver will call
    this.geo = geometry(width, state.tokens.length, state.sizes[state.layer]);
    drawHeat(sizedContext(page.heat, width, height), this.geo, state, routed, look, scrollTop, height, this.theme);
    drawLoad(sizedContext(page.load, width, BARS_TOP + BARS + AXIS), this.geo, routed, look, this.top, this.theme);
  }

  /** Another layer or router has other experts: let the locked one go, and keep K possible. */
  otherExperts(traits) {
    const size = this.state.sizes[traits.layer ?? this.state.layer];
    return { ...traits, locked_expert: null, k: Math.min(this.state.k, size) };
  }

  pointAt(token, expert) {
    if (this.point && this.point.token === token && this.point.expert === expert) return;
    this.point = { token, expert };
    this.frame.ask();
  }

  pointAway() {
    this.point = null;
    this.frame.ask();
  }

  /** Scroll the map, not the page, until the token's row is seen. */
  reveal(token) {
    if (token === null) return;
    const { scroller } = this.page;
    const lowest = (token + 1) * ROW - scroller.clientHeight;
    scroller.scrollTop = Math.min(Math.max(scroller.scrollTop, lowest), token * ROW);
  }

  /** Lock what is given; what is locked already is let go. */
  toggle(chosen) {
    const same = Object.entries(chosen).every(([name, value]) => this.state[name] === value);
    save(this.model, same ? Object.fromEntries(Object.keys(chosen).map((name) => [name, null])) : chosen);
  }

  toggleCell({ token, expert }) {
    if (token !== null && expert !== null) this.toggle({ locked_token: token, locked_expert: expert });
    else if (token !== null) this.toggle({ locked_token: token });
    else if (expert !== null) this.toggle({ locked_expert: expert });
  }

  unlock() {
    this.point = null;
    save(this.model, { locked_token: null, locked_expert: null });
    this.frame.ask();
  }

  /** Token and expert under the mouse, over one of the two canvases. */
  under(event) {
    if (!this.geo) return { token: null, expert: null };
    const box = event.currentTarget.getBoundingClientRect();
    const cell = cellAt(this.geo, event.clientX - box.left, event.clientY - box.top + event.currentTarget.scrollTop);
    return event.currentTarget === this.page.load ? { token: null, expert: cell.expert } : cell;
  }

  wire() {
    return [this.listenControls(), this.listenInput(), this.listenStrip(), this.listenMap()].flat();
  }

  listenControls() {
    const { page, model } = this;
    return [
      ...onSlide(model, page.layer, (value) => this.otherExperts({ layer: value - 1 })),
      ...onSlide(model, page.k, (k) => ({ k })),
      ...onChoice(model, page.routers, (router) => this.otherExperts({ router })),
      onEscape(page.root, () => this.unlock()),
    ];
  }

  reset() {
    clearTimeout(this.typing);
    this.typing = 0;
    if (this.page.input) this.page.input.value = this.model.get("start").text;
    this.countBytes();
    super.reset();
  }

  listenInput() {
    const { input } = this.page;
    if (!input) return [];
    const send = () => {
      clearTimeout(this.typing);
      this.typing = 0;
      save(this.model, { text: input.value.replace(/\p{Surrogate}/gu, "\uFFFD") });
    };
    const wait = (event) => {
      clearTimeout(this.typing);
      this.typing = event.isComposing ? -1 : setTimeout(send, 250);
      this.countBytes();
    };
    return [on(input, "input", wait), on(input, "compositionend", wait),
      on(input, "keydown", (event) => { if (event.key === "Enter" && !event.isComposing) taken(event, send); })];
  }

  listenStrip() {
    const { strip } = this.page;
    const point = (event) => {
      const token = tokenOf(event);
      if (token === null) return;
      this.pointAt(token, null);
      this.reveal(token);
    };
    return [on(strip, "pointerover", point), on(strip, "focusin", point),
      on(strip, "pointerleave", () => this.pointAway()), on(strip, "focusout", () => this.pointAway()),
      on(strip, "click", (event) => this.toggleCell({ token: tokenOf(event), expert: null })),
      on(strip, "keydown", (event) => this.stripKey(event))];
  }

  stripKey(event) {
    const token = tokenOf(event);
    if (token === null) return;
    const steps = { ArrowLeft: token - 1, ArrowUp: token - 1, ArrowRight: token + 1, ArrowDown: token + 1, Home: 0,
      End: this.page.options.length - 1 };
    if (event.key in steps) taken(event, () => this.page.options[steps[event.key]]?.focus({ preventScroll: true }));
    if (event.key === "Enter" || event.key === " ") taken(event, () => this.toggleCell({ token, expert: null }));
  }

  listenMap() {
    const { scroller, load } = this.page;
    const point = (event) => { const { token, expert } = this.under(event); this.pointAt(token, expert); };
    const click = (event) => this.toggleCell(this.under(event));
    return [...[scroller, load].flatMap((node) => [on(node, "pointermove", point), on(node, "click", click),
      on(node, "pointerleave", () => this.pointAway())]),
    on(scroller, "focusout", () => this.pointAway()),
    on(scroller, "scroll", this.frame.ask),
    on(scroller, "keydown", (event) => this.mapKey(event))];
  }

  /** The token and the expert where the keyboard stands. */
  here() {
    return { token: this.cursor.row, expert: this.cursor.column };
  }

  moveTo(cell) {
    this.cursor = cell;
    const { token, expert } = this.here();
    this.reveal(token);
    this.pointAt(token, expert);
  }

  mapKey(event) {
    const { T, N } = this.geo || { T: 0, N: 0 };
    const next = movedOn(this.cursor, event.key, T, N);
    if (next) taken(event, () => this.moveTo(next));
    if (T && (event.key === "Enter" || event.key === " ")) taken(event, () => this.toggleCell(this.here()));
  }
}

export default widgetOf(RoutingMapView);
