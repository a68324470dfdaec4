// A text on the page: the strip of its tokens, and the field in which the learner writes another one.

import { inkOn } from "./canvas.js";
import { focusIn, moved, on, taken } from "./events.js";
import { make, say } from "./page.js";
import { bytesOf, encode } from "./vocabulary.js";

/** The tokens of a text as a list to point at with mouse and keyboard, which sets `trait`; a line may break at a space, and does at
 * a line's end. A `short` one has two lines, whatever the text: no picture moves while it is typed. */
export class TokenStrip {
  constructor(view, { trait = "locked_token", short = false } = {}) {
    [this.view, this.trait, this.options] = [view, trait, []];
    this.box = make("div", short ? "moe-strip moe-short" : "moe-strip");
    this.box.setAttribute("aria-label", "tokens of the text");
  }

  fill(tokens) {
    this.options = tokens.map((token, t) => {
      const node = make("span", "moe-token", token);
      node.dataset.token = t;
      node.setAttribute("role", "option");
      return node;
    });
    const space = (t) => tokens[t].endsWith("␣") || tokens[t + 1]?.startsWith("␣");
    const after = (t) => (tokens[t].startsWith("⏎") ? [make("br")] : space(t) ? [make("wbr")] : []);
    this.box.replaceChildren(...this.options.flatMap((node, t) => [node, ...after(t)]));
    this.box.classList.toggle("moe-parted", tokens.some((token) => token.length > 1)); // else each letter is a token
    if (!tokens.length) this.box.append(make("span", "moe-token", "(empty)"));
    this.box.setAttribute("role", tokens.length ? "listbox" : "note");
  }

  /** Mark each token: `of(t)` gives a `fill` colour or none, and whether it is `chosen` and `alike`. */
  mark(of) {
    const kept = this.view.state[this.trait];
    const looked = this.view.look[this.trait] ?? kept;
    this.options.forEach((option, t) => {
      const { fill = "", chosen = false, alike = false } = of(t);
      const marks = String([fill, chosen, alike, t === kept, t === looked, t === (looked ?? 0)]);
      if (option.marks === marks) return; // to set what is set already would cost more than all the rest
      option.marks = marks;
      option.style.background = fill;
      option.style.color = fill && inkOn(fill);
      for (const [name, is] of Object.entries({ chosen, alike, looked: t === looked })) option.classList.toggle(`moe-${name}`, is);
      option.setAttribute("aria-selected", String(t === kept));
      option.tabIndex = t === (looked ?? 0) ? 0 : -1; // one token stands for all in the tab order; arrow keys move on
    });
  }

  wire() {
    const { view, box } = this;
    const at = ({ target }) => (target.dataset.token === undefined ? null : { [this.trait]: Number(target.dataset.token) });
    const point = (event) => at(event) && view.pointAt(at(event));
    const key = (event) => {
      const here = at(event);
      if (!here) return;
      const to = moved(here[this.trait], event.key, this.options.length);
      if (to !== null) taken(event, () => focusIn(box, this.options[to]));
      if (event.key === "Enter" || event.key === " ") taken(event, () => view.toggle(here));
    };
    return [on(box, "pointerover", point), on(box, "focusin", point), on(box, "keydown", key),
      on(box, "click", (event) => view.toggle(at(event))),
      ...["pointerleave", "focusout"].map((event) => on(box, event, () => view.pointAt(null)))];
  }
}

const PAUSE = 120; // milliseconds without a key, before a new text is read; a word that is being composed has longer
const COMPOSING = 600; // and is read all the same: a phone's keyboard composes every word, and ends the last one never

/** As many whole tokens of a text as fit, ending with a whole character: the part that `fits`, how many it has and `all` have. */
export function cutToTokens(text, most, vocabulary) {
  const ids = encode(text, vocabulary);
  if (ids.length <= most) return { fits: text.toWellFormed(), kept: ids.length, all: ids.length };
  const [raw, sizes] = [bytesOf(text), ids.slice(0, most).map((id) => vocabulary.bytes[id].length)];
  let end = sizes.reduce((sum, size) => sum + size, 0);
  while (end && raw[end] >> 6 === 2) end -= sizes.pop(); // a byte that continues a character
  return { fits: new TextDecoder("utf-8", { ignoreBOM: true }).decode(raw.subarray(0, end)), kept: sizes.length, all: ids.length };
}

const oneLine = (text) => text.replaceAll("\n", "⏎"); // as a field shows it

/**
 * A control for the text of a ReadingView: cut at the last whole token and character that fit into `most(state)` tokens, and it
 * says so, or `note(state)`. The model has the vocabulary: until it is here, what is typed waits.
 */
export function textField(name, { most = (state) => state.max_tokens, trait = "text", note, set = (text) => ({ [trait]: text }),
  hidden = (state) => !state.weights } = {}) {
  const box = make("label", "moe-control moe-input");
  const input = Object.assign(make("input"), { type: "text", spellcheck: false, autocomplete: "off" });
  const size = make("span", "moe-value");
  box.append(make("span", "", name), input, size);
  let [timer, view, known, lost] = [0, null, {}, ""];
  /** What is typed: the part that fits, how many tokens this and the whole have. */
  const typed = (state) => {
    const [text, vocabulary, tokens] = [input.value.replaceAll("⏎", "\n"), view.network?.vocabulary, view.reading?.tokens ?? []];
    if (!vocabulary) return { fits: text, kept: tokens.length, all: tokens.length }; // before the model, there may be no reading
    if (known.text !== text) known = { text, ...cutToTokens(text, most(state), vocabulary) };
    return known;
  };
  const count = (state) => {
    const { kept, all } = typed(state);
    const within = note ? note(state) : `${all} of ${most(state)} tokens`;
    say(size, lost || (all > most(state) ? `${all} tokens, cut to ${kept}` : within));
  };
  return {
    box,
    sync(state) {
      box.hidden = hidden(state);
      if (!timer && !lost && typed(state).fits !== state[trait]) input.value = oneLine(state[trait]);
      count(state);
    },
    wire(one) {
      view = one;
      const send = async () => {
        clearTimeout(timer);
        timer = -1;
        const failed = await view.fetchModel().catch(() => "the model could not be fetched: type again to try once more");
        if (timer !== -1) return; // typed on
        [timer, lost] = [0, failed ?? ""];
        if (lost) count(view.state); // what is typed stays
        else view.set(set(typed(view.state).fits, view.state));
      };
      const wait = (event) => {
        clearTimeout(timer);
        lost = "";
        timer = setTimeout(send, event.isComposing ? COMPOSING : PAUSE);
        count(view.state);
      };
      return [on(input, "input", wait), on(input, "compositionend", wait), () => clearTimeout(timer),
        on(input, "keydown", (event) => { if (event.key === "Enter" && !event.isComposing) taken(event, send); })];
    },
  };
}
