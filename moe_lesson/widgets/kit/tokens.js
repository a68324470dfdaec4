// A text on the page: the strip of its tokens, and the field in which the learner writes another one.

import { inkOn } from "./canvas.js";
import { on, taken } from "./events.js";
import { bytesOf, cutToBytes } from "./moe.js";
import { make, say } from "./page.js";

/** The tokens of a text as a list to point at with mouse and keyboard; a line may break after a space. */
export class TokenStrip {
  constructor(view, trait = "locked_token") {
    [this.view, this.trait, this.options] = [view, trait, []];
    this.box = make("div", "moe-strip");
    this.box.setAttribute("aria-label", "tokens of the text");
  }

  fill(tokens) {
    this.options = tokens.map((token, t) => {
      const node = make("span", token.length > 1 ? "moe-token moe-long" : "moe-token", token);
      node.dataset.token = t;
      node.setAttribute("role", "option");
      return node;
    });
    const after = { "␣": "wbr", "⏎": "br" };
    this.box.replaceChildren(...this.options.flatMap((node, t) => [node, ...(after[tokens[t]] ? [make(after[tokens[t]])] : [])]));
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
      const [t, last] = [here[this.trait], this.options.length - 1];
      const to = { ArrowLeft: t - 1, ArrowUp: t - 1, ArrowRight: t + 1, ArrowDown: t + 1, Home: 0, End: last }[event.key];
      if (to !== undefined) taken(event, () => this.options[to]?.focus({ preventScroll: true }));
      if (event.key === "Enter" || event.key === " ") taken(event, () => view.toggle(here));
    };
    return [on(box, "pointerover", point), on(box, "focusin", point), on(box, "keydown", key),
      on(box, "click", (event) => view.toggle(at(event))),
      ...["pointerleave", "focusout"].map((event) => on(box, event, () => view.pointAt(null)))];
  }
}

const PAUSE = 120; // milliseconds without a key, before a new text is read

/** A control for a text: cut at the last whole character that fits into `most(state)` bytes, and it says so, or `note(state)`. */
export function textField(name, { most, trait = "text", note, set = (text) => ({ [trait]: text }), hidden }) {
  const box = make("label", "moe-control moe-input");
  const input = Object.assign(make("input"), { type: "text", spellcheck: false, autocomplete: "off" });
  const bytes = make("span", "moe-value");
  box.append(make("span", "", name), input, bytes);
  let timer = 0;
  const count = (state) => {
    const size = bytesOf(input.value).length;
    const fits = note ? note(state) : `${size} of ${most(state)} bytes`;
    say(bytes, size > most(state) ? `${size} bytes, cut to ${most(state)}` : fits);
  };
  return {
    box,
    sync(state) {
      box.hidden = Boolean(hidden?.(state));
      if (!timer && cutToBytes(input.value, most(state)) !== state[trait]) input.value = state[trait];
      count(state);
    },
    wire(view) {
      const send = () => {
        clearTimeout(timer);
        timer = 0;
        view.set(set(cutToBytes(input.value.replace(/\p{Surrogate}/gu, "\uFFFD"), most(view.state)), view.state));
      };
      const wait = (event) => {
        clearTimeout(timer);
        timer = event.isComposing ? -1 : setTimeout(send, PAUSE);
        count(view.state);
      };
      return [on(input, "input", wait), on(input, "compositionend", wait), () => clearTimeout(timer),
        on(input, "keydown", (event) => { if (event.key === "Enter" && !event.isComposing) taken(event, send); })];
    },
  };
}
