// Shared by every widget of the course. Python puts this file in front of the widget's own module, so that the
// browser receives one file without imports. The mathematics is the twin of common.py; a parity test compares them.
//
// Letters: T tokens, N experts, K active experts. Matrices are flat, row by row: entry (t, n) is at t * N + n.

// --- mathematics -----------------------------------------------------------------------------------------------------

export function softmax(row) {
  const top = row.reduce((a, b) => Math.max(a, b));
  const powers = new Float64Array(row).map((x) => Math.exp(x - top));
  const total = sum(powers);
  return powers.map((power) => power / total);
}

export function sigmoid(row) {
  return new Float64Array(row).map((x) => 1 / (1 + Math.exp(-x)));
}

export const SCORES = { softmax, sigmoid };

/** Up to a number that all experts of a token share, which a sum divides out: of a softmax the logits themselves. */
const LOG_SCORES = { softmax: (x) => x, sigmoid: (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x))) };

export function sum(values) {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}

/** All indices, the largest value first; a tie goes to the lower index. */
export function ranked(values) {
  const order = Array.from(values, (_, i) => i);
  return order.sort((a, b) => values[b] - values[a] || a - b);
}

export function topK(values, k) {
  return ranked(values).slice(0, k);
}

/** Every token's experts, best first: logits [T * N] -> { T, N, gate, logits, scores [T * N], order [T * N] }. K cuts it. */
export function rankExperts(logits, T, N, gate) {
  const ranking = { T, N, gate, logits, scores: new Float64Array(T * N), order: new Int32Array(T * N) };
  for (let t = 0; t < T; t++) {
    const scores = SCORES[gate.score](logits.subarray(t * N, (t + 1) * N));
    const biased = gate.bias ? scores.map((s, n) => s + gate.bias[n]) : scores; // to choose, never to weigh
    ranking.scores.set(scores, t * N);
    ranking.order.set(ranked(biased), t * N);
  }
  return ranking;
}

/** The k best experts of every token: { T, N, k, ids [T * k], weights [T * k], load [N] }. */
export function route({ T, N, gate, logits, scores, order }, k) {
  const routed = { T, N, k, ids: new Int32Array(T * k), weights: new Float64Array(T * k), load: new Int32Array(N) };
  for (let t = 0; t < T; t++) {
    const ids = order.subarray(t * N, t * N + k);
    const weights = gate.renormalise
      ? softmax(Float64Array.from(ids, (n) => LOG_SCORES[gate.score](logits[t * N + n])))
      : Float64Array.from(ids, (n) => scores[t * N + n]);
    routed.ids.set(ids, t * k);
    routed.weights.set(weights.map((weight) => weight * gate.scale), t * k);
    for (const n of ids) routed.load[n] += 1;
  }
  return routed;
}

/** The weight that token t gives expert n, or null where it did not choose the expert. */
export function weightOf(routed, t, n) {
  for (let i = t * routed.k; i < (t + 1) * routed.k; i++) if (routed.ids[i] === n) return routed.weights[i];
  return null;
}

/** How many experts each token has in common with token t: [T]. */
export function inCommon(routed, t) {
  const mine = new Set(routed.ids.subarray(t * routed.k, (t + 1) * routed.k));
  const counts = new Array(routed.T).fill(0);
  routed.ids.forEach((n, i) => { if (mine.has(n)) counts[Math.floor(i / routed.k)] += 1; });
  return counts;
}

/** Tokens per expert if all experts had the same load. */
export function meanLoad(routed) {
  return (routed.T * routed.k) / routed.N;
}

/** Entropy of the load as a fraction of log N: 1 is perfect balance, 0 is one expert for all. */
export function loadEntropy(load) {
  const total = sum(load);
  if (!total || load.length === 1) return 1;
  const shares = Array.from(load, (n) => n / total).filter((share) => share > 0);
  return -sum(shares.map((share) => share * Math.log(share))) / Math.log(load.length);
}

/** float32 numbers out of what a comm delivers. */
export function floats(view) {
  return numbers(view, Float32Array);
}

/** An array of numbers of one type out of what a comm delivers: a DataView that may start at any byte. */
export function numbers(view, Type) {
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

// --- words -----------------------------------------------------------------------------------------------------------

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** The first few, and how many more there are. */
function listed(items, most = 8) {
  const more = items.length - most;
  return items.slice(0, most).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** The words with a capital letter in front. */
function capital(words) {
  const [first, ...rest] = Array.from(words);
  return first === undefined ? "" : first.toUpperCase() + rest.join("");
}

/** A whole number, a Number or a BigInt, with a comma before each thousand. */
function grouped(number) {
  return number.toLocaleString("en-US");
}

/** A number below 1000 in three digits. */
function threeDigits(value) {
  if (value < 10) return value.toFixed(2);
  return value.toFixed(value < 100 ? 1 : 0);
}

const DIGITS = 3; // of a loss

/** The number in words, without what summing up in another order would change; nothing is minus zero. */
export function rounded(value, digits = DIGITS) {
  const text = Number(value.toPrecision(12)).toFixed(digits);
  return Number(text) ? text : (0).toFixed(digits);
}

// --- places: what is where, and where a key leads --------------------------------------------------------------------

/** In which of some places of one size, side by side, a distance from the edge of the first ends; null beside them. */
function placeWithin(distance, size, places) {
  const place = Math.floor(distance / size);
  return place >= 0 && place < places ? place : null;
}

/** Where a key leads from one of some places in a row; null for a key that leads nowhere. */
export function moved(place, key, places) {
  const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -places,
    End: places };
  return key in steps ? Math.min(Math.max(place + steps[key], 0), places - 1) : null;
}

/** Where a key leads from a cell { row, column } of a map; null for a key that leads nowhere, or where there is no cell. */
export function movedOn({ row, column }, key, rows, columns) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0],
    PageDown: [10, 0], Home: [0, -columns], End: [0, columns] };
  if (!(key in steps) || !rows) return null;
  const within = (value, size) => Math.min(Math.max(value, 0), size - 1);
  return { row: within(row + steps[key][0], rows), column: within(column + steps[key][1], columns) };
}

// --- colour ----------------------------------------------------------------------------------------------------------

/** Cividis (Nuñez, Anderton, Renslow 2018), 256 steps: matplotlib's table, readable without red-green vision. */
export const CIVIDIS = (
  "00224e00234f00245100255300255400265600275800285900285b00295d002a5f002a61002b62002c64002c66002d68002e6a002e6c" +
  "002f6d00306f0030700031700031710132710533710833700c34700f357012357014367016377018376f1a386f1c396f1e3a6f203a6f" +
  "213b6e233c6e243c6e263d6e273e6e293f6e2a3f6d2b406d2d416d2e416d2f426d31436d32436d33446d34456c35456c36466c38476c" +
  "39486c3a486c3b496c3c4a6c3d4a6c3e4b6c3f4c6c404c6c414d6c424e6c434e6c444f6c45506c46516c47516c48526c49536c4a536c" +
  "4b546c4c556c4d556c4e566c4f576c50576c51586d52596d535a6d545a6d555b6d555c6d565c6d575d6d585e6d595e6e5a5f6e5b606e" +
  "5c616e5d616e5e626e5e636f5f636f60646f61656f62656f636670646770656870656870666970676a71686a71696b716a6c716b6d72" +
  "6c6d726c6e726d6f726e6f736f70737071737172747272747273747374757474757575757676767777767777777878777979777a7a78" +
  "7b7a787c7b787d7c787e7c787e7d787f7e78807f78817f788280798381798482798582798683798784788885788985788a86788b8778" +
  "8c88788d88788e89788f8a78908b78918b78928c78928d78938e78948e77958f779690779791779892779992779a93769b94769c9576" +
  "9d95769e96769f9775a09875a19975a29975a39a74a49b74a59c74a69c74a79d73a89e73a99f73aaa073aba072aca172ada272aea371" +
  "afa471b0a571b1a570b3a670b4a76fb5a86fb6a96fb7a96eb8aa6eb9ab6dbaac6dbbad6dbcae6cbdae6cbeaf6bbfb06bc0b16ac1b26a" +
  "c2b369c3b369c4b468c5b568c6b667c7b767c8b866c9b965cbb965ccba64cdbb63cebc63cfbd62d0be62d1bf61d2c060d3c05fd4c15f" +
  "d5c25ed6c35dd7c45cd9c55cdac65bdbc75adcc859ddc858dec958dfca57e0cb56e1cc55e2cd54e4ce53e5cf52e6d051e7d150e8d24f" +
  "e9d34eead34cebd44bedd54aeed649efd748f0d846f1d945f2da44f3db42f5dc41f6dd3ff7de3ef8df3cf9e03afbe138fce236fde334" +
  "fee434fee535fee636fee838"
).match(/.{6}/g).map((hex) => "#" + hex);

/** The colour of a weight between 0 and limit. Spaced by the square root, so that small weights show. */
export function weightColour(weight, limit) {
  const share = Math.sqrt(Math.min(Math.max(weight / limit, 0), 1));
  return CIVIDIS[Math.min(255, Math.floor(share * 256))];
}

/** A list of colours as the background of a ramp. */
function rampOf(colours) {
  return `linear-gradient(to right, ${colours.filter((_, i) => i % 15 === 0).join(", ")})`;
}

/** Black or white, whichever reads better on a #rrggbb background (WCAG relative luminance). */
export function inkOn(hex) {
  const [r, g, b] = hex.slice(1).match(/../g).map((pair) => {
    const c = parseInt(pair, 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

// --- page ------------------------------------------------------------------------------------------------------------

/** An element with a class and text. Text is data: it never becomes HTML. */
function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function makeButton(words = "") {
  return Object.assign(make("button", "moe-button", words), { type: "button" });
}

/** A slider with its name and value in words beside it: { box, slider, value }. */
function makeSlider(name, min, max) {
  const box = make("label", "moe-control");
  const slider = Object.assign(make("input"), { type: "range", min, max, step: 1 });
  const value = make("span", "moe-value");
  slider.setAttribute("aria-label", name);
  box.append(slider, value);
  return { box, slider, value };
}

/** Put a slider and its words where the state is. */
function syncSlider({ slider, value }, position, max, words) {
  slider.max = max;
  slider.value = position;
  slider.setAttribute("aria-valuetext", words);
  say(value, words);
}

/** Radio buttons of [value, words]: { box, radios }. */
function makeChoice(name, options) {
  const group = `moe-${Math.random()}`; // each widget has a copy of this module, so that no counter could tell them apart
  const box = make("fieldset", "moe-choice");
  const radios = options.map(([value]) => Object.assign(make("input"), { type: "radio", name: group, value }));
  const labels = options.map(([, words], i) => {
    const label = make("label");
    label.append(radios[i], make("span", "", words));
    return label;
  });
  box.append(make("legend", "", name), ...labels);
  return { box, radios };
}

function syncChoice(radios, value) {
  for (const radio of radios) radio.checked = radio.value === value;
}

/** A box to tick: { box, tick }. */
function makeTick(words) {
  const box = make("label", "moe-control");
  const tick = Object.assign(make("input"), { type: "checkbox" });
  box.append(tick, make("span", "", words));
  return { box, tick };
}

/** A canvas that a screen reader passes over: what it shows stands elsewhere in words. */
function makeCanvas(className = "moe-steps") {
  const canvas = make("canvas", className);
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}

/** Let an element have the keyboard: a screen reader hands it every key, and reads its label. */
function takeKeys(node, label) {
  node.tabIndex = 0;
  node.setAttribute("role", "application");
  node.setAttribute("aria-label", label);
}

/** A picture to move about in with mouse and keyboard: { stage, canvas }. */
function makeStage(label, className) {
  const [stage, canvas] = [make("div", "moe-stage"), makeCanvas(className)];
  takeKeys(stage, label);
  stage.append(canvas);
  return { stage, canvas };
}

/** What the colours of a map mean, with room for numbers under them: { scale, ticks }. */
function makeScale(colours) {
  const [scale, ramp, ticks] = ["moe-scale", "moe-ramp", "moe-ticks"].map((name) => make("span", name));
  ramp.style.background = rampOf(colours);
  scale.append(ramp, ticks);
  return { scale, ticks };
}

/** Numbers under a scale: [what stands there, at which share of the scale]. */
function fillTicks(ticks, places) {
  ticks.replaceChildren(...places.map(([number, share]) => {
    const tick = make("span", "", String(number));
    tick.style.left = `${share * 100}%`;
    return tick;
  }));
}

/** A row of a table, out of its cells. */
function rowWith(cells) {
  const row = make("tr");
  row.append(...cells);
  return row;
}

/** The head of a column or of a row, as `scope` says. */
function headCell(scope, text) {
  const cell = make("th", "", text);
  cell.scope = scope;
  return cell;
}

/** A table out of the cells of its head and its rows. */
function makeTable(heads, rows) {
  const [table, head, body] = [make("table", "moe-ledger-table"), make("thead"), make("tbody")];
  head.append(rowWith(heads));
  body.append(...rows);
  table.append(head, body);
  return table;
}

/** One element for each token of a text, which knows its place in it. */
function makeTokens(tokens) {
  return tokens.map((token, t) => {
    const node = make("span", token.length > 1 ? "moe-token moe-long" : "moe-token", token);
    node.dataset.token = t;
    return node;
  });
}

/** The elements of a text with what follows some of them: a line may break after a space. */
function withBreaks(nodes, breaks = { "␣": "wbr" }) {
  const after = (text) => (Object.hasOwn(breaks, text) ? [make(breaks[text])] : []);
  return nodes.flatMap((node) => [node, ...after(node.textContent)]);
}

/** The place of the token that an event happened on, or null. */
function tokenOf({ target }) {
  return target.dataset.token === undefined ? null : Number(target.dataset.token);
}

/** The title, the badge that says where the data comes from, and Reset; the last two go into `page`. */
function buildHeader(page, title) {
  const header = make("div", "moe-header");
  page.badge = make("span", "moe-badge");
  page.reset = makeButton("Reset");
  header.append(make("h3", "moe-title", title), page.badge, page.reset);
  return header;
}

/** The text summary, read out when it changes. */
function buildStatus(page) {
  page.status = make("div", "moe-status");
  page.status.setAttribute("aria-live", "polite");
  return page.status;
}

/** The colours of the page around the widget, as the stylesheet resolved them. */
function themeOf(node) {
  const style = getComputedStyle(node);
  const read = (name) => style.getPropertyValue(name).trim();
  return { ink: read("--moe-ink"), faint: read("--moe-line"), bar: read("--moe-bar"), accent: read("--moe-accent"),
    paper: style.backgroundColor, font: `14px ${style.fontFamily}` };
}

/** Call back when the page turns dark or light; returns how to stop. */
function onTheme(callback) {
  const media = matchMedia("(prefers-color-scheme: dark)");
  const watch = new MutationObserver(callback);
  media.addEventListener("change", callback);
  for (const node of [document.documentElement, document.body]) {
    watch.observe(node, { attributeFilter: ["class", "theme", "data-jp-theme-name", "data-vscode-theme-kind"] });
  }
  return () => { media.removeEventListener("change", callback); watch.disconnect(); };
}

/** Call back when the element's size changes, and once it is on the page; returns how to stop. */
function onSize(node, callback) {
  const watch = new ResizeObserver(callback);
  watch.observe(node);
  return () => watch.disconnect();
}

/** Give a canvas its size in CSS pixels and return its context, sharp on any screen. */
function sizedContext(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return ctx;
}

/** Select by outline: white inside black, to be seen on every colour of the map. */
function outline(ctx, x, y, w, h) {
  ctx.lineWidth = 4;
  ctx.strokeStyle = "#000000";
  ctx.strokeRect(x, y, w, h);
  ctx.lineWidth = 2;
  ctx.strokeStyle = "#ffffff";
  ctx.strokeRect(x, y, w, h);
}

/** A line through points [x, y]. */
function drawCurve(ctx, points) {
  ctx.lineJoin = "round";
  ctx.beginPath();
  for (const [x, y] of points) ctx.lineTo(x, y);
  ctx.stroke();
}

/** A filled dot, whose edge may be stroked next. */
function drawDot(ctx, x, y, radius, colour) {
  ctx.fillStyle = colour;
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fill();
}

/** At the end of a bar that leaves its axis at y: upwards, or downwards with sign 1. */
function drawArrow(ctx, x, y, theme, sign = -1) {
  ctx.fillStyle = theme.ink;
  ctx.beginPath();
  ctx.moveTo(x - 4, y + sign);
  ctx.lineTo(x + 4, y + sign);
  ctx.lineTo(x, y + 7 * sign);
  ctx.fill();
}

/**
 * The experts' numbers under their columns at height y, as many as there is room for: the marked columns in bold, and
 * every so many of the others. `nameOf` says which expert stands in a column.
 */
function drawNumbers(ctx, { left, cell, N }, y, marked, theme, nameOf = (column) => column) {
  const used = [];
  const write = (column, font) => {
    if (used.some((other) => Math.abs(other - column) * cell <= 28)) return;
    used.push(column);
    ctx.font = font;
    ctx.fillText(nameOf(column), left + (column + 0.5) * cell, y);
  };
  ctx.fillStyle = theme.ink;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  for (const column of marked) write(column, `bold ${theme.font}`);
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((s) => s * cell >= 30) || N;
  for (let column = 0; column < N; column += step) write(column, theme.font);
}

/** The text, cut with an ellipsis so that it fits the width. */
function fitted(ctx, text, width) {
  if (ctx.measureText(text).width <= width) return text;
  const letters = Array.from(text);
  while (letters.length && ctx.measureText(letters.join("") + "…").width > width) letters.pop();
  return letters.join("") + "…";
}

/** Call `draw` once before the next frame, however often it is asked for. */
function oncePerFrame(draw) {
  let asked = 0;
  const ask = () => { asked = asked || requestAnimationFrame(() => { asked = 0; draw(); }); };
  return { ask, cancel: () => cancelAnimationFrame(asked) };
}

/** Listen to an element; returns how to stop. */
function on(node, event, callback) {
  node.addEventListener(event, callback);
  return () => node.removeEventListener(event, callback);
}

/** Listen to a trait of the Python widget; returns how to stop. */
function onTrait(model, name, callback) {
  model.on(`change:${name}`, callback);
  return () => model.off(`change:${name}`, callback);
}

/** Set traits of the Python widget and send them. */
function save(model, traits) {
  change(model, traits);
  model.save_changes();
}

/** Set traits here alone: what listens to them follows, Python does not hear yet. */
function change(model, traits) {
  for (const [name, value] of Object.entries(traits)) model.set(name, value);
}

/** Let a slider set traits, made from its position; Python hears of the settled value only. Returns how to stop. */
function onSlide(model, { slider }, traits) {
  return [on(slider, "input", () => change(model, traits(Number(slider.value)))),
    on(slider, "change", () => model.save_changes())];
}

/** Let radio buttons set traits, made from the value that is chosen. Returns how to stop. */
function onChoice(model, radios, traits) {
  return radios.map((radio) => on(radio, "change", () => save(model, traits(radio.value))));
}

/** Let a box to tick set a trait. Returns how to stop. */
function onTick(model, tick, name) {
  return [on(tick, "change", () => save(model, { [name]: tick.checked }))];
}

/** Do something on Escape, wherever in an element it is pressed; returns how to stop. */
function onEscape(root, action) {
  return on(root, "keydown", (event) => { if (event.key === "Escape") taken(event, action); });
}

/** Do something with a key that nobody else shall get: neither the page's scrolling nor the notebook's shortcuts. */
function taken(event, action) {
  event.preventDefault();
  event.stopPropagation();
  action();
}

/**
 * Keep JupyterLab's shortcuts from the keys pressed inside an element. JupyterLab looks at the focused element first and
 * at its parents later, so the mark has to stand on whatever has the focus: a range input would lose its arrow keys.
 */
function keepKeys(root) {
  root.addEventListener("focusin", (event) => { event.target.dataset.lmSuppressShortcuts = "true"; });
}

/** Make text in an element current, and leave it alone if it is: a live region speaks at every touch. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// --- views -----------------------------------------------------------------------------------------------------------

/**
 * What the view of every widget does: read the traits, build the page once, draw before the next frame whenever something
 * changed, and leave nothing behind. A subclass says what: `get settings()`, the traits that change while it is open; `read()`,
 * traits into fields; `build()`, fields into a page whose parts are { root, reset, … }; `draw()`, fields onto the page;
 * `wire()`, what the learner does, as a list of functions that unwire it.
 */
class LessonView {
  constructor(model, el) {
    this.model = model;
    this.prepare();
    this.read();
    this.page = this.build();
    el.append(this.page.root);
    this.frame = oncePerFrame(() => this.draw());
    this.stops = [...this.watch(), on(this.page.reset, "click", () => this.reset()), ...this.wire()];
    this.frame.ask();
  }

  /** Fields that are there before anything is read. */
  prepare() {}

  close() {
    this.frame.cancel();
    for (const stop of this.stops) stop();
  }

  /** Redraw when a setting, the width or the theme changes; returns how to stop. */
  watch() {
    const repaint = () => { this.colours = null; this.frame.ask(); };
    return [onSize(this.page.root, repaint), onTheme(repaint), ...this.settings.map((name) => this.rereadOn(name))];
  }

  /** Read again and redraw when a trait changes; returns how to stop. */
  rereadOn(name) {
    return onTrait(this.model, name, () => { this.read(); this.frame.ask(); });
  }

  /** The colours of the page around the widget, read once for each theme: it costs a layout. */
  get theme() {
    this.colours = this.colours || themeOf(this.page.root);
    return this.colours;
  }

  reset() {
    save(this.model, this.model.get("start"));
  }
}

/**
 * A view in which the learner looks at one thing: the mouse or the arrow keys point at it, a click or Enter keeps it in a
 * trait, Escape lets it go. A subclass also names the trait, `get kept()`. A thing is a number, or a list of numbers.
 */
class PointingView extends LessonView {
  prepare() {
    this.point = null; // what the mouse or the keyboard points at
  }

  /** What is looked at: what is pointed at, else what is kept. */
  get looked() {
    return this.point ?? this.model.get(this.kept);
  }

  /** Point at a thing; null is none. */
  pointAt(thing) {
    if (String(thing) === String(this.point)) return;
    this.point = thing;
    this.frame.ask();
  }

  /** Keep the thing that is pointed at; one that is kept already is let go. */
  toggle() {
    if (this.point === null) return;
    save(this.model, { [this.kept]: String(this.point) === String(this.model.get(this.kept)) ? null : this.point });
  }

  unlock() {
    this.pointAt(null);
    save(this.model, { [this.kept]: null });
  }

  /** The mouse over an element, where `under(event)` says which thing an event is on, or null; returns how to unwire it. */
  listenMouse(node, under) {
    return [on(node, "pointermove", (event) => this.pointAt(under(event))), on(node, "pointerleave", () => this.pointAt(null)),
      on(node, "click", (event) => { this.pointAt(under(event)); this.toggle(); })];
  }

  /** The keyboard on an element: `next(key)` moves to another thing and returns it, null for a key that moves nothing. */
  listenKeys(node, next, here) {
    return [on(node, "focusout", () => this.pointAt(null)), on(node, "keydown", (event) => {
      const thing = next(event.key);
      if (thing !== null) taken(event, () => this.pointAt(thing));
      if (event.key === "Enter" || event.key === " ") taken(event, () => { this.pointAt(here()); this.toggle(); });
    })];
  }

  /** Escape, anywhere in the widget, lets go. */
  listenEscape() {
    return [onEscape(this.page.root, () => this.unlock())];
  }
}

/** What anywidget asks of a module, for a view: its default export. */
function widgetOf(View) {
  return {
    render({ model, el }) {
      const view = new View(model, el);
      return () => view.close();
    },
  };
}
