// The parts of a widget's page: elements, controls, tables, tokens.

import { rampOf } from "./canvas.js";

/** An element with a class and text. Text is data: it never becomes HTML. */
export function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

export function makeButton(words = "") {
  return Object.assign(make("button", "moe-button", words), { type: "button" });
}

/** A slider with its name and value in words beside it: { box, slider, value }. */
export function makeSlider(name, min, max) {
  const box = make("label", "moe-control");
  const slider = Object.assign(make("input"), { type: "range", min, max, step: 1 });
  const value = make("span", "moe-value");
  slider.setAttribute("aria-label", name);
  box.append(slider, value);
  return { box, slider, value };
}

/** Put a slider and its words where the state is. */
export function syncSlider({ slider, value }, position, max, words) {
  slider.max = max;
  slider.value = position;
  slider.setAttribute("aria-valuetext", words);
  say(value, words);
}

/** Radio buttons of [value, words]: { box, radios }. */
export function makeChoice(name, options) {
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

export function syncChoice(radios, value) {
  for (const radio of radios) radio.checked = radio.value === value;
}

/** A box to tick: { box, tick }. */
export function makeTick(words) {
  const box = make("label", "moe-control");
  const tick = Object.assign(make("input"), { type: "checkbox" });
  box.append(tick, make("span", "", words));
  return { box, tick };
}

/** A canvas that a screen reader passes over: what it shows stands elsewhere in words. */
export function makeCanvas(className = "moe-steps") {
  const canvas = make("canvas", className);
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}

/** Let an element have the keyboard: a screen reader hands it every key, and reads its label. */
export function takeKeys(node, label) {
  node.tabIndex = 0;
  node.setAttribute("role", "application");
  node.setAttribute("aria-label", label);
}

/** A picture to move about in with mouse and keyboard: { stage, canvas }. */
export function makeStage(label, className) {
  const [stage, canvas] = [make("div", "moe-stage"), makeCanvas(className)];
  takeKeys(stage, label);
  stage.append(canvas);
  return { stage, canvas };
}

/** What the colours of a map mean, with room for numbers under them: { scale, ticks }. */
export function makeScale(colours) {
  const [scale, ramp, ticks] = ["moe-scale", "moe-ramp", "moe-ticks"].map((name) => make("span", name));
  ramp.style.background = rampOf(colours);
  scale.append(ramp, ticks);
  return { scale, ticks };
}

/** Numbers under a scale: [what stands there, at which share of the scale]. */
export function fillTicks(ticks, places) {
  ticks.replaceChildren(...places.map(([number, share]) => {
    const tick = make("span", "", String(number));
    tick.style.left = `${share * 100}%`;
    return tick;
  }));
}

/** A row of a table, out of its cells. */
export function rowWith(cells) {
  const row = make("tr");
  row.append(...cells);
  return row;
}

/** The head of a column or of a row, as `scope` says. */
export function headCell(scope, text) {
  const cell = make("th", "", text);
  cell.scope = scope;
  return cell;
}

/** A table out of the cells of its head and its rows. */
export function makeTable(heads, rows) {
  const [table, head, body] = [make("table", "moe-ledger-table"), make("thead"), make("tbody")];
  head.append(rowWith(heads));
  body.append(...rows);
  table.append(head, body);
  return table;
}

/** One element for each token of a text, which knows its place in it. */
export function makeTokens(tokens) {
  return tokens.map((token, t) => {
    const node = make("span", token.length > 1 ? "moe-token moe-long" : "moe-token", token);
    node.dataset.token = t;
    return node;
  });
}

/** The elements of a text with what follows some of them: a line may break after a space. */
export function withBreaks(nodes, breaks = { "␣": "wbr" }) {
  const after = (text) => (Object.hasOwn(breaks, text) ? [make(breaks[text])] : []);
  return nodes.flatMap((node) => [node, ...after(node.textContent)]);
}

/** The place of the token that an event happened on, or null. */
export function tokenOf({ target }) {
  return target.dataset.token === undefined ? null : Number(target.dataset.token);
}

/** The title, the badge that says where the data comes from, and Reset; the last two go into `page`. */
export function buildHeader(page, title) {
  const header = make("div", "moe-header");
  page.badge = make("span", "moe-badge");
  page.reset = makeButton("Reset");
  header.append(make("h3", "moe-title", title), page.badge, page.reset);
  return header;
}

/** The text summary, read out when it changes. */
export function buildStatus(page) {
  page.status = make("div", "moe-status");
  page.status.setAttribute("aria-live", "polite");
  return page.status;
}

/** The colours of the page around the widget, as the stylesheet resolved them. */
export function themeOf(node) {
  const style = getComputedStyle(node);
  const read = (name) => style.getPropertyValue(name).trim();
  return { ink: read("--moe-ink"), faint: read("--moe-line"), bar: read("--moe-bar"), accent: read("--moe-accent"),
    paper: style.backgroundColor, font: `14px ${style.fontFamily}` };
}

/** Make text in an element current, and leave it alone if it is: a live region speaks at every touch. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
