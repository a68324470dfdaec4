// The expert explorer: from a token of your own text to its experts, from an expert to the tokens it likes, and back.
// A census was counted in Python before the page opened; this module divides, ranks and shows. Python routes a new text.
// Letters: L MoE layers, T tokens, N experts, K active experts, B counted bytes, M domains.

import { keepKeys, moved, on, onEscape, onTrait, save, taken } from "../kit/events.js";
import {
  buildHeader, buildStatus, headCell, make, makeButton, makeTable, makeTokens, rowWith, say, tokenOf, withBreaks,
} from "../kit/page.js";
import { numbers, sum, topK } from "../kit/routing.js";
import { LessonView, widgetOf } from "../kit/views_old.js";
import { count, grouped, listed } from "../kit/words.js";

// --- state: what is shown, read from what Python sent ----------------------------------------------------------------

const BEST = 6;    // rows of the side panel
const SERVERS = 5; // experts named for a byte
const SETTINGS = ["token", "expert", "search", "problem"];
const TEXT = ["tokens", "raw", "experts", "weights", "text"];
const FIXED = ["title", "name", "origin", "seed", "has_input", "max_bytes", "sizes", "top_k", "least", "domains", "names",
  "census_size", "byte_tokens", "counted", "contexts", "axis"];

/** What the census says: one { load, calls, domains, lifts, null … } for each layer. It does not change. */
export function readCensus(model) {
  const [sizes, B, M] = [model.get("sizes"), model.get("counted").length, model.get("domains").length];
  const [load, calls] = ["load", "byte_calls"].map((name) => numbers(model.get(name), Uint32Array));
  const [domains, favourites, bytes, best] = ["domain_lifts", "null_favourites", "null_bytes", "null_domains"].map(
    (name) => numbers(model.get(name), Float64Array));
  const tokens = model.get("counted").map((byte) => model.get("byte_tokens")[byte]);
  return sizes.map((N, layer) => {
    const first = sum(sizes.slice(0, layer));
    const part = (array, width) => array.subarray(first * width, (first + N) * width);
    const own = { load: part(load, 1), calls: part(calls, B), domains: part(domains, M) };
    return { ...own, lifts: liftsOf(own, tokens, model.get("census_size")[0]), nullFavourites: part(favourites, 1),
      nullBytes: bytes.subarray(layer * B, (layer + 1) * B), nullDomains: best.subarray(layer * M, (layer + 1) * M) };
  });
}

/** [N * B] the share of the byte's tokens that chose the expert, over the share of all tokens that did. */
function liftsOf({ load, calls }, tokens, all) {
  const B = tokens.length;
  return Float64Array.from(calls, (called, i) => {
    const share = load[Math.floor(i / B)] / all;
    return share > 0 ? called / tokens[i % B] / share : 0;
  });
}

/** The traits of the model as one plain object, with the census that was read before. */
export function readState(model, census) {
  const state = Object.fromEntries([...FIXED, ...SETTINGS, "tokens", "text"].map((name) => [name, model.get(name)]));
  const { tokens: { length: T }, token } = state;
  return { ...state, census, T, selected: T ? Math.min(token, T - 1) : null, raw: numbers(model.get("raw"), Uint8Array),
    experts: numbers(model.get("experts"), Int32Array), weights: numbers(model.get("weights"), Float64Array) };
}

/** The experts of a token in a layer, [id, weight] each, best first. */
export function chosenBy({ T, top_k: k, experts, weights }, layer, token) {
  const start = (layer * T + token) * k;
  return Array.from({ length: k }, (_, i) => [experts[start + i], weights[start + i]]);
}

/** The tokens of the text that chose the expert. */
export function followers({ T, top_k: k, experts, expert: [layer, n] }) {
  const start = layer * T * k;
  return Array.from({ length: T }, (_, t) => t).filter((t) => (
    experts.subarray(start + t * k, start + (t + 1) * k).includes(n)));
}

/** Where the search begins in the text. */
export function foundAt({ T, raw, search }) {
  const wanted = new TextEncoder().encode(search);
  if (!wanted.length) return [];
  return Array.from({ length: T }, (_, t) => t).filter((t) => wanted.every((byte, i) => raw[t + i] === byte));
}

/** The byte whose experts are named: the last of the search, else the token that is followed. */
export function byteAsked({ search, selected, raw }) {
  const wanted = new TextEncoder().encode(search);
  if (wanted.length) return wanted[wanted.length - 1];
  return selected === null ? null : raw[selected];
}

/** The experts of a layer that like the byte asked for best, [id, lift] each; none for a byte too rare to tell. */
export function servers(state, layer) {
  const [b, B] = [state.counted.indexOf(byteAsked(state)), state.counted.length];
  if (b < 0) return [];
  const { lifts } = state.census[layer];
  const liked = Array.from({ length: state.sizes[layer] }, (_, n) => lifts[n * B + b]);
  return best(liked, SERVERS).map((n) => [n, liked[n]]);
}

/** The places of the largest lifts, the largest first; 1 and less is no liking. A tie goes to the lower place. */
function best(lifts, most) {
  return topK(lifts, most).filter((i) => lifts[i] > 1);
}

/** How much the expert that is followed likes each counted byte: [B]. */
function liked({ census, counted: { length: B }, expert: [layer, n] }) {
  return census[layer].lifts.subarray(n * B, (n + 1) * B);
}

/** The bytes that it likes best, as places among the counted ones. */
function favourites(state) {
  return best(liked(state), BEST);
}

// --- words: the twins of those in expert_explorer.py -----------------------------------------------------------------

export const COLUMNS = ["byte", "lift (√ spacing): 1 is as often as the average token", "", "random's best", "tokens", "choose it"];
export const DOMAIN_COLUMNS = ["domain", "lift", "random's best"];

/** The name of an expert, always with its layer. */
function label(layer, expert) {
  return `${layer + 1}·${expert}`;
}

const times = (value, digits = 1) => `× ${value.toFixed(digits)}`;
const share = (value, digits = 0) => `${(100 * value).toFixed(digits)}%`;
const countGrouped = (number) => `${grouped(number)} token${number === 1 ? "" : "s"}`;

/** The bytes that the expert likes best: name, lift, the random router's best, its tokens, and how many choose the expert. */
export function byteRows(state) {
  const { census, counted, names, byte_tokens: tokens, expert: [layer, n] } = state;
  const [lifts, { calls, nullBytes }] = [liked(state), census[layer]];
  return favourites(state).map((b) => [names[counted[b]], times(lifts[b]), times(nullBytes[b]), grouped(tokens[counted[b]]),
    share(calls[n * counted.length + b] / tokens[counted[b]])]);
}

/** Each domain's lift, and the best of the random router's experts. */
export function domainRows({ census, domains, expert: [layer, n] }) {
  const own = census[layer];
  return domains.map((domain, m) => [domain, times(own.domains[n * domains.length + m], 2), times(own.nullDomains[m], 2)]);
}

/** What stands beside the experts that serve a byte. */
export function serverWords(state, layer) {
  const { counted, names, byte_tokens: tokens, least, census } = state;
  const byte = byteAsked(state);
  if (byte === null) return "No byte is asked for.";
  const words = `Byte '${names[byte]}', ${countGrouped(tokens[byte])} of the census`;
  if (!counted.includes(byte)) return `${words}: too few to tell; ${least} are needed.`;
  return `${words}. Random router's best ${times(census[layer].nullBytes[counted.indexOf(byte)])}; liked most by`;
}

/** How busy the expert is: if all tokens of a byte choose it, the lift is one over its share of all tokens. */
export function loadWords({ census, census_size: [all], sizes, top_k: k, expert: [layer, n] }) {
  const own = census[layer].load[n] / all;
  const most = own ? `, so no lift can exceed ${times(1 / own)}` : "";
  return `${share(own, 1)} of all tokens choose it (K/N is ${share(k / sizes[layer], 1)})${most}.`;
}

/** How many random experts have a favourite as strong: one favourite in many is no discovery. */
export function nullWords(state) {
  const favourite = Math.max(...liked(state));
  const { nullFavourites: null_ } = state.census[state.expert[0]];
  const asStrong = null_.filter((value) => value >= favourite).length;
  return `${asStrong} of the random router's ${count(null_.length, "expert")} in this layer have a favourite as strong `
    + `(${times(favourite)}).`;
}

/** What the explorer shows, in words. */
export function describe(state) {
  const parts = [tokenWords(state), expertWords(state), censusWords(state), nullWords(state), askedWords(state)];
  if (state.search) parts.push(`The search is found ${count(foundAt(state).length, "time")} in the text.`);
  return parts.filter(Boolean).join(" ");
}

function tokenWords(state) {
  const { selected, tokens, sizes, has_input } = state;
  if (selected === null) return `The text is empty: no token to follow.${has_input ? " Type some text." : ""}`;
  const layers = sizes.map((_, layer) => listed(chosenBy(state, layer, selected).map(
    ([n, weight]) => `${label(layer, n)} (${weight.toFixed(2)})`)));
  return `Token ${selected} '${tokens[selected]}' goes to ${layers.join("; ")}.`;
}

function expertWords(state) {
  const { expert: [layer, n], T } = state;
  return `Expert ${label(layer, n)}, number ${n} of layer ${layer + 1}, is chosen by ${followers(state).length} of `
    + `${count(T, "token")} of the text.`;
}

function censusWords(state) {
  const best = byteRows(state).slice(0, 3).map(([name, lift, none]) => `'${name}' ${lift} (random router's best ${none})`);
  const [tokens, documents] = state.census_size;
  if (!best.length) return `In the census, ${loadWords(state)}`;
  return `In a census of ${countGrouped(tokens)} of ${count(documents, "document")}, ${loadWords(state)} `
    + `It likes best ${best.join(", ")}.`;
}

function askedWords(state) {
  const byte = byteAsked(state);
  if (byte === null) return "";
  const firsts = state.sizes.flatMap((_, layer) => servers(state, layer).slice(0, 1).map(
    ([n, lift]) => `${label(layer, n)} (${times(lift)})`));
  if (!state.counted.includes(byte)) return `Byte '${state.names[byte]}' is too rare in the census to tell who likes it.`;
  return `Byte '${state.names[byte]}' is liked best by ${firsts.join(", ") || "nobody"}.`;
}

// --- page ------------------------------------------------------------------------------------------------------------

/** Build the widget's elements once; `draw` fills them. */
function buildPage(state) {
  const page = { root: make("div", "moe-root moe-explorer") };
  keepKeys(page.root);
  const header = buildHeader(page, state.title);
  header.insertBefore(make("span", "moe-badge moe-null", `orange: random router, seed ${state.seed}`), page.reset);
  say(page.badge, `${state.origin}: ${state.name}`);
  page.problem = make("div", "moe-problem");
  page.problem.setAttribute("role", "alert");
  page.root.append(header, buildFields(page, state), page.problem, buildStrip(page), buildLayers(page, state),
    buildExpert(page, state), buildStatus(page));
  return page;
}

/** Where one types: the text, and what to look for. */
function buildFields(page, { has_input }) {
  const row = make("div", "moe-row moe-explorer-fields");
  const field = (words) => {
    const [box, input, note] = [make("label", "moe-control moe-input"), make("input"), make("span", "moe-value")];
    Object.assign(input, { type: "text", spellcheck: false, autocomplete: "off" });
    input.setAttribute("aria-label", words);
    box.append(make("span", "", words), input, note);
    return { box, input, note };
  };
  page.fields = { text: field("Your text"), search: field("Who serves … ?") };
  page.fields.text.box.hidden = !has_input;
  row.append(page.fields.text.box, page.fields.search.box);
  return row;
}

function buildStrip(page) {
  const box = make("div");
  page.caption = make("div", "moe-caption");
  page.strip = make("div", "moe-strip");
  page.strip.setAttribute("aria-label", "tokens of the text: arrow keys follow another one");
  page.ids = `moe-${Math.random()}-`; // each widget has a copy of this module, so that no counter could tell them apart
  box.append(page.caption, page.strip);
  return box;
}

/** One panel for each layer: the experts of the token, and those that like the byte asked for. Colours mean nothing here. */
function buildLayers(page, { sizes, top_k }) {
  const row = make("div", "moe-explorer-layers");
  page.layers = sizes.map((size, layer) => {
    const panel = make("section", "moe-explorer-layer");
    const lines = ["", " moe-explorer-serve"].map((more) => make("div", `moe-explorer-experts${more}`));
    const [chose, serve] = lines.map((line, i) => {
      const words = make("span", "moe-explorer-line");
      const buttons = Array.from({ length: i ? SERVERS : top_k }, () => makeButton());
      line.append(words, ...buttons);
      return { words, buttons };
    });
    panel.append(make("h4", "", `Layer ${layer + 1}: its own numbers, 0 … ${size - 1}`), ...lines);
    row.append(panel);
    return { chose, serve };
  });
  return row;
}

/** The side panel: what the census says of one expert. */
function buildExpert(page, state) {
  const box = make("section", "moe-explorer-expert");
  page.heading = make("h4");
  page.verdict = make("div");
  const parts = make("div", "moe-explorer-parts");
  parts.append(buildBytes(page, state), buildDomains(page, state), buildContexts(page));
  box.append(page.heading, page.verdict, parts);
  return box;
}

function buildBytes(page, { axis }) {
  page.bytes = Array.from({ length: BEST }, () => {
    const cells = COLUMNS.map((_, i) => (i ? make("td") : headCell("row", "")));
    const [bar, mark, one] = ["bar", "mark", "one"].map((part) => make("div", `moe-explorer-${part}`));
    one.style.left = `${100 * placeOf(1, axis)}%`;
    cells[1].append(bar, one, mark);
    cells[1].className = "moe-explorer-lift";
    return { cells, bar, marks: [one, mark] };
  });
  const heads = COLUMNS.map((title) => headCell("col", title));
  heads[1].colSpan = 2;
  heads.splice(2, 1);
  return makeTable(heads, page.bytes.map(({ cells }) => rowWith(cells)));
}

function buildDomains(page, { domains }) {
  page.domains = domains.map((domain) => [headCell("row", domain), make("td"), make("td")]);
  const table = makeTable(DOMAIN_COLUMNS.map((title) => headCell("col", title)), page.domains.map(rowWith));
  table.classList.add("moe-explorer-domains");
  return table;
}

function buildContexts(page) {
  const box = make("div", "moe-explorer-contexts");
  page.contexts = Array.from({ length: BEST }, () => {
    const [row, domain, ...parts] = ["div", "span", "span", "mark", "span"].map((tag) => make(tag));
    row.append(domain, ...parts);
    return { row, parts: [domain, ...parts] };
  });
  box.append(make("div", "", "Called for the marked byte (a call each of documents drawn at random)"),
    ...page.contexts.map(({ row }) => row));
  return box;
}

// --- filling the page from the state ---------------------------------------------------------------------------------

/** One option for each token. Lines may break after a space, and do break after a line end. */
function fillStrip(page, { tokens }) {
  page.options = makeTokens(tokens);
  page.options.forEach((option, t) => { option.setAttribute("role", "option"); option.id = page.ids + t; });
  page.strip.replaceChildren(...withBreaks(page.options));
  if (!tokens.length) page.strip.append(make("span", "moe-token", "(empty)"));
  page.strip.setAttribute("role", tokens.length ? "listbox" : "note");
  if (tokens.length) page.strip.tabIndex = 0;
  else page.strip.removeAttribute("tabindex"); // there is nothing to move to
}

/** Outlined: the token that is followed. Underlined: those of the expert. Bold on a ground: what was searched. */
function syncStrip(page, state) {
  const { selected, search } = state;
  const [mine, found] = [new Set(followers(state)), new Set()];
  const length = new TextEncoder().encode(search).length;
  for (const start of foundAt(state)) for (let i = 0; i < length; i++) found.add(start + i);
  page.options.forEach((option, t) => {
    option.setAttribute("aria-selected", String(t === selected));
    option.classList.toggle("moe-alike", mine.has(t));
    option.classList.toggle("moe-explorer-found", found.has(t));
  });
  if (selected === null) page.strip.removeAttribute("aria-activedescendant");
  else page.strip.setAttribute("aria-activedescendant", page.ids + selected);
  say(page.caption, `Outlined: the token you follow (click or arrow keys). Underlined: tokens that chose expert `
    + `${label(...state.expert)}, ${mine.size} of ${state.T}.`);
}

function syncLayers(page, state) {
  page.layers.forEach(({ chose, serve }, layer) => {
    const own = state.selected === null ? [] : chosenBy(state, layer, state.selected);
    say(chose.words, state.selected === null ? "No token." : `Token '${state.tokens[state.selected]}' chose (weight)`);
    say(serve.words, serverWords(state, layer));
    chose.buttons.forEach((button, i) => syncButton(button, state, layer, own[i], "weight", (weight) => `(${weight.toFixed(2)})`));
    const liking = servers(state, layer);
    serve.buttons.forEach((button, i) => syncButton(button, state, layer, liking[i], "lift", (lift) => times(lift)));
  });
}

/** A button that follows an expert; without one it keeps its place and cannot be seen. */
function syncButton(button, { expert }, layer, entry, what, words) {
  button.style.visibility = entry ? "" : "hidden";
  button.disabled = !entry;
  if (!entry) return;
  const [n, value] = entry;
  Object.assign(button.dataset, { layer, expert: n });
  button.setAttribute("aria-pressed", String(expert[0] === layer && expert[1] === n));
  button.setAttribute("aria-label", `expert ${n} of layer ${layer + 1}, ${what} ${words(value).replace(/[×() ]/g, "")}`);
  say(button, `${label(layer, n)} ${words(value)}`);
}

function syncExpert(page, state) {
  const [layer, n] = state.expert;
  say(page.heading, `Expert ${label(layer, n)} (number ${n} of layer ${layer + 1}) in the census: ${loadWords(state)}`);
  say(page.verdict, nullWords(state));
  syncBytes(page, state);
  domainRows(state).forEach((row, m) => row.forEach((words, i) => say(page.domains[m][i], words)));
  page.contexts.forEach(({ row, parts }, i) => {
    const found = state.contexts[layer][n][i];
    row.style.visibility = found ? "" : "hidden";
    parts.forEach((part, j) => say(part, found ? found[j] : ""));
  });
}

function syncBytes(page, state) {
  const [rows, order, lifts] = [byteRows(state), favourites(state), liked(state)];
  const { nullBytes } = state.census[state.expert[0]];
  const along = (lift) => `${(100 * placeOf(lift, state.axis)).toFixed(2)}%`;
  page.bytes.forEach(({ cells, bar, marks }, i) => {
    const [name = "\u00a0", lift = "", none = "", tokens = "", chosen = ""] = rows[i] || [];
    [name, null, lift, none, tokens, chosen].forEach((words, j) => { if (words !== null) say(cells[j], words); });
    bar.style.width = i in order ? along(lifts[order[i]]) : "0";
    marks[1].style.left = i in order ? `calc(${along(nullBytes[order[i]])} - 2px)` : "";
    for (const mark of marks) mark.hidden = !(i in order);
  });
}

/** Where a lift is along the bars: square roots, so that small ones show beside the largest. */
export function placeOf(lift, axis) {
  return Math.sqrt(lift / axis);
}

// --- the widget ------------------------------------------------------------------------------------------------------

class ExpertExplorerView extends LessonView {
  get settings() { return SETTINGS; }

  prepare() {
    this.timers = { text: 0, search: 0 }; // each waits for the end of typing
    this.census = readCensus(this.model);
    this.stale = true;
  }

  read() {
    this.state = readState(this.model, this.census);
  }

  build() {
    return buildPage(this.state);
  }

  close() {
    Object.values(this.timers).forEach(clearTimeout);
    super.close();
  }

  watch() {
    const restart = () => { this.stale = true; this.read(); this.frame.ask(); };
    return [...super.watch(), ...TEXT.map((name) => onTrait(this.model, name, restart))];
  }

  draw() {
    const { page, state } = this;
    if (this.stale) fillStrip(page, state);
    this.stale = false;
    this.syncFields();
    syncStrip(page, state);
    syncLayers(page, state);
    syncExpert(page, state);
    say(page.problem, state.problem);
    say(page.status, describe(state));
  }

  /** The fields show what is set, but never change what is being typed. */
  syncFields() {
    const { page: { fields }, state } = this;
    for (const name of Object.keys(fields)) {
      if (!this.timers[name] && fields[name].input.value !== state[name]) fields[name].input.value = state[name];
    }
    const bytes = new TextEncoder().encode(fields.text.input.value).length;
    say(fields.text.note, `${bytes} of ${state.max_bytes} bytes`);
    say(fields.search.note, state.search ? `found ${foundAt(state).length} ×` : "e.g. def");
  }

  stopTyping() {
    for (const name of Object.keys(this.timers)) {
      clearTimeout(this.timers[name]);
      this.timers[name] = 0;
    }
  }

  reset() {
    this.stopTyping();
    super.reset();
    this.frame.ask();
  }

  wire() {
    const { page } = this;
    return [...this.listenField("text"), ...this.listenField("search"),
      on(page.strip, "click", (event) => this.follow(tokenOf(event))),
      on(page.strip, "keydown", (event) => {
        const token = this.state.T ? moved(this.state.selected, event.key, this.state.T) : null;
        if (token !== null) taken(event, () => this.follow(token));
      }),
      ...page.layers.flatMap(({ chose, serve }) => [...chose.buttons, ...serve.buttons]).map((button) => (
        on(button, "click", () => save(this.model, { expert: [button.dataset.layer, button.dataset.expert].map(Number) })))),
      onEscape(page.root, () => { this.stopTyping(); save(this.model, { search: "" }); this.frame.ask(); })];
  }

  follow(token) {
    if (token === null) return;
    save(this.model, { token });
    const [{ strip }, option] = [this.page, this.page.options[token]];
    const top = option.offsetTop - strip.offsetTop; // scroll the strip, not the page
    strip.scrollTop = Math.min(Math.max(strip.scrollTop, top + option.offsetHeight - strip.clientHeight), top);
  }

  listenField(name) {
    const { input } = this.page.fields[name];
    const send = () => {
      clearTimeout(this.timers[name]);
      this.timers[name] = 0;
      save(this.model, { [name]: input.value.replace(/\p{Surrogate}/gu, "\uFFFD") });
    };
    const wait = (event) => {
      clearTimeout(this.timers[name]);
      this.timers[name] = event.isComposing ? -1 : setTimeout(send, 250);
      this.frame.ask();
    };
    return [on(input, "input", wait), on(input, "compositionend", wait),
      on(input, "keydown", (event) => { if (event.key === "Enter" && !event.isComposing) taken(event, send); })];
  }
}

export default widgetOf(ExpertExplorerView);
