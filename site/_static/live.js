// The host of the course's widgets on a page without a kernel: each place loads its module, its style and its traits, and comes
// alive when it is nearly in sight. Guesses stay in this browser. Nothing is asked of any other machine.

const FILES = new URL("../_widgets/", import.meta.url);
const GUESSES = "moe_lesson"; // the key in the browser's storage: { question: list of values; lesson/quiz: what was answered }

// --- themes: the kit follows JupyterLab's marks ----------------------------------------------------------------------

function markTheme() {
  const dark = document.documentElement.dataset.theme === "dark";
  document.body.dataset.jpThemeLight = String(!dark);
  document.body.dataset.jpThemeName = dark ? "dark" : "light"; // the widgets draw again when it changes
}

// --- a widget's model ------------------------------------------------------------------------------------------------

/** What anywidget calls a model: traits, and who listens to them; nobody stands behind it but `hear`. */
class Model {
  constructor(traits, hear) {
    Object.assign(this, { traits, hear, listeners: {}, unsaved: {} });
    this.widget_manager = { get_model: async (name) => new Model(await traitsIn(name)) };
  }

  get(name) { return this.traits[name]; }

  set(name, value) {
    this.unsaved[name] = value;
    if (JSON.stringify(this.traits[name]) === JSON.stringify(value)) return;
    this.traits[name] = value;
    for (const callback of [...this.listeners[`change:${name}`] ?? []]) callback();
  }

  save_changes() {
    const sent = this.unsaved;
    this.unsaved = {};
    this.hear?.(this, sent);
  }

  on(event, callback) { (this.listeners[event] ??= []).push(callback); }

  off(event, callback) { this.listeners[event] = (this.listeners[event] ?? []).filter((one) => one !== callback); }
}

async function fetched(name) {
  const answer = await fetch(new URL(name, FILES));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer;
}

/** The traits in a file; bytes lie in files of their own. */
async function traitsIn(name) {
  const held = await (await fetched(name)).json();
  const read = async (value) => (value?.file ? new DataView(await (await fetched(value.file)).arrayBuffer()) : value);
  return Object.fromEntries(await Promise.all(Object.entries(held).map(async ([key, value]) => [key, await read(value)])));
}

const styles = {};

/** Load a style sheet once. */
function wear(name) {
  styles[name] ??= new Promise((done, fail) => {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: new URL(name, FILES), onload: done, onerror: fail });
    document.head.prepend(link); // the page's own sheet has the last word
  });
  return styles[name];
}

/** Bring a place alive; its still stays if that fails, and for print. */
async function mount(place) {
  const { module, style, state, question } = place.dataset;
  const [{ default: widget }, traits] = await Promise.all([import(new URL(module, FILES)), traitsIn(state), wear(style)]);
  const [host, still] = [document.createElement("div"), document.createElement("div")];
  host.className = "moe-host";
  still.className = "moe-fallback";
  const model = !question ? new Model(traits) : traits.tries ? quizzing(traits, question) : asking(traits, question);
  widget.render({ model, el: host });
  still.append(...place.childNodes);
  place.append(host, still);
  place.classList.add("moe-mounted");
}

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    mount(target).catch((error) => {
      console.error(error);
      target.append(Object.assign(document.createElement("p"), { className: "moe-failed",
        textContent: "This picture could not be made live: see the page through a web server, or run the lesson." }));
    });
  }
}, { rootMargin: "600px" });

// --- guesses ---------------------------------------------------------------------------------------------------------

function guesses() {
  try {
    return JSON.parse(localStorage.getItem(GUESSES)) ?? {};
  } catch { // no storage, or not ours
    return {};
  }
}

/** The model of a question: with the guess that is kept already, if any, and an answer to the next. */
function asking(traits, question) {
  const values = guesses()[question];
  const kept = values && { entered: { times: 0, values: values.map(String) },
    answer: { times: 0, kept: true, words: "Kept earlier." } };
  return new Model({ ...traits, ...kept }, (model, sent) => answer(model, sent, question));
}

/** The model of a quiz, with what was answered earlier. */
function quizzing(traits, question) {
  const earlier = guesses()[question] ?? {};
  return new Model({ ...traits, tries: earlier, kept: earlier }, (model, { tries }) => {
    if (!tries) return;
    keep(question, tries);
    model.set("kept", tries);
  });
}

/** Keep something in this browser; says whether that is possible. */
function keep(question, value) {
  try {
    localStorage.setItem(GUESSES, JSON.stringify({ ...guesses(), [question]: value }));
    return true;
  } catch {
    return false;
  }
}

/** The number that a visitor wrote, or null: 14, 0.5, 0,5, 1,000, 2e9; the twin of read_number in teach/guesses.py. */
export function readNumber(text) {
  const written = text.trim().replace("−", "-");
  const grouped = /^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$/.test(written) && !/^[+-]*0/.test(written);
  const value = Number(written === "" ? NaN : written.replaceAll(",", grouped ? "" : "."));
  return Number.isFinite(value) ? value : null;
}

/** A guess as it is kept, or why it cannot be: { read } or { refusal }. */
export function readGuess(values, choices) {
  const read = choices.length ? values.map((value) => (choices.includes(value) ? value : null)) : values.map(readNumber);
  const wrong = read.indexOf(null);
  if (wrong < 0) return { read };
  if (choices.length) return { refusal: "please choose one" };
  return { refusal: `'${values[wrong]}' is not a number that can be kept; write one such as 14, 0.5 or 1,000` };
}

/** Keep a guess in this browser, and say so, as Python would. */
function answer(model, { entered: { times, values } }, question) {
  const { read, refusal } = readGuess(values, model.get("choices"));
  if (refusal) return model.set("answer", { times, kept: false, words: `Not kept: ${refusal}` });
  const where = keep(question, read) ? "Kept in this browser" : "Kept until you leave this page";
  model.set("answer", { times, kept: true, words: `${where}: ${read.join(", ")}. Now look at the result.` });
  return compare(question, read);
}

/** Put a guess beside the result that a lesson reveals. */
function compare(question, values) {
  for (const { cell, cover, line } of reveals.filter((one) => one.question === question)) {
    cover.open = true;
    const beside = (result) => `You said ${values.join(", ")}. ${result}`;
    if (line) line.textContent = line.dataset.stored.replace(UNGUESSED, beside);
    cell.classList.add("moe-answered");
  }
}

const UNGUESSED = /^It is .*\.$/m; // what `reveal` of teach/lesson.py printed
const reveals = [];

/** Cover what a cell reveals, until the visitor has guessed or wants to see it. */
function coverReveals() {
  const kept = guesses();
  for (const cell of document.querySelectorAll(".tag_reveal")) {
    const question = [...cell.classList].find((name) => name.startsWith("tag_reveal_"))?.slice("tag_reveal_".length);
    const output = cell.querySelector(".cell_output");
    if (!output) continue;
    const cover = document.createElement("details");
    cover.className = "moe-cover";
    cover.append(Object.assign(document.createElement("summary"), { textContent: "The result: guess first, or open it" }));
    output.before(cover);
    cover.append(output);
    const line = [...output.querySelectorAll("pre, pre span")].filter((node) => UNGUESSED.test(node.textContent)).at(-1);
    if (line) line.dataset.stored = line.textContent;
    reveals.push({ cell, cover, line, question });
    if (kept[question]) compare(question, kept[question]);
  }
}

/** On paper nothing is folded. */
function unfold() {
  for (const fold of document.querySelectorAll("article details:not([open])")) {
    fold.open = true;
    addEventListener("afterprint", () => { fold.open = false; }, { once: true });
  }
}

if (document.readyState === "loading") {
  await new Promise((done) => { document.addEventListener("readystatechange", done, { once: true }); });
}
markTheme();
new MutationObserver(markTheme).observe(document.documentElement, { attributeFilter: ["data-theme"] });
addEventListener("beforeprint", unfold);
coverReveals();
for (const place of document.querySelectorAll(".moe-live")) near.observe(place);
