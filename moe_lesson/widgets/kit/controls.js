// Controls, declared: what a slider, a choice or a tick is, stands in one place. The kit builds it, puts it where the state is
// before every drawing, and sets traits when the learner moves it; Python hears of settled values only.
//
// `trait` is what it sets; where that is not all, `at(state)` is where it stands, and `set(value, state)` gives traits.
// `hidden(state)` hides a slider or a choice, `disabled(state)` greys a slider out, `folded` puts it under "More".

import { change, on, save } from "./events.js";
import { make, makeButton, say } from "./page.js";

/** A slider over numbers, or over the places of `values`, with its words beside it; `max` may be a function of the state. */
export function slider(name, { trait, values, min = 0, max = values?.length - 1, words, hidden, disabled, folded, wide,
  at = (state) => (values ? values.indexOf(state[trait]) : state[trait]),
  set = (number) => ({ [trait]: values ? values[number] : number }) }) {
  const box = make("label", wide ? "moe-control moe-wide" : "moe-control"); // wide: its words grow, its place does not
  const input = Object.assign(make("input"), { type: "range", min });
  const value = make("span", "moe-value");
  input.setAttribute("aria-label", name);
  box.append(input, value);
  return {
    box, folded,
    sync(state) {
      box.hidden = Boolean(hidden?.(state));
      input.disabled = Boolean(disabled?.(state));
      const now = { max: typeof max === "function" ? max(state) : max, value: at(state), ariaValueText: words(state) };
      for (const [name, to] of Object.entries(now)) if (input[name] !== String(to)) input[name] = to;
      say(value, now.ariaValueText);
    },
    wire: (view) => [on(input, "input", () => change(view.model, set(Number(input.value), view.state))),
      on(input, "change", () => view.model.save_changes())],
  };
}

/** A value or [value, words], as the latter. */
const withWords = (options) => options.map((one) => (Array.isArray(one) ? one : [one, one]));

/** Radio buttons of values or [value, words]; `options` may be a function of the state. What is chosen may be chosen `again`. */
export function choice(name, options, { trait, at = (state) => state[trait], set = (value) => ({ [trait]: value }), hidden, folded,
  again = false }) {
  const group = `moe-${Math.random()}`; // each widget has a copy of this module, so that no counter could tell them apart
  const [box, labels] = [make("fieldset", "moe-choice"), make("span", "moe-labels")];
  box.append(make("legend", "", name), labels);
  let shown = null;
  const radios = () => labels.querySelectorAll("input");
  return {
    box, folded,
    sync(state) {
      box.hidden = Boolean(hidden?.(state));
      const here = typeof options === "function" ? options(state) : options;
      if (JSON.stringify(here) !== shown) {
        shown = JSON.stringify(here);
        labels.replaceChildren(...withWords(here).map(([value, words]) => {
          const label = make("label");
          label.append(Object.assign(make("input"), { type: "radio", name: group, value }), make("span", "", words));
          return label;
        }));
      }
      for (const radio of radios()) radio.checked = radio.value === String(at(state));
    },
    wire: (view) => [on(box, "click", ({ target }) => { // arrow keys click, too
      if (target.type !== "radio" || (!again && target.value === String(at(view.state)))) return;
      save(view.model, set(target.value, view.state));
    })],
  };
}

/** A box to tick, for a trait that is true or false. */
export function tick(words, trait, { folded } = {}) {
  const box = make("label", "moe-control");
  const input = Object.assign(make("input"), { type: "checkbox" });
  box.append(input, make("span", "", words));
  return {
    box, folded,
    sync(state) { input.checked = state[trait]; },
    wire: (view) => [on(input, "change", () => save(view.model, { [trait]: input.checked }))],
  };
}

/** A list to choose from, of values or [value, words]. */
export function menu(name, options, { trait, set = (value) => ({ [trait]: value }) }) {
  const [box, select] = [make("label", "moe-control"), make("select", "moe-select")];
  select.setAttribute("aria-label", name); // the label's words alone, not all that can be chosen
  select.append(...withWords(options).map(([value, words]) => Object.assign(make("option", "", words), { value })));
  box.append(make("span", "", name), select);
  return {
    box,
    sync(state) { select.value = state[trait]; },
    wire: (view) => [on(select, "change", () => save(view.model, set(select.value, view.state)))],
  };
}

/** A button that starts a view's film, `view.start()`, and stops it. */
export function player(view) {
  return button(() => (view.timer ? "Pause" : "Play"), () => (view.timer ? view.pause() : view.start()));
}

/** A slider over L layers; hidden where there is one. */
export function layerSlider(L, set = (layer) => ({ layer })) {
  return slider("Layer", { min: 1, max: L, at: ({ layer }) => layer + 1, set: (value, state) => set(value - 1, state),
    words: ({ layer }) => `Layer ${layer + 1} of ${L}`, hidden: () => L === 1 });
}

/** A button; `act(view)` is what it does. */
export function button(words, act, { folded } = {}) {
  const box = makeButton(typeof words === "string" ? words : "");
  return {
    box, folded,
    sync(state) {
      if (typeof words === "function") say(box, words(state));
    },
    wire: (view) => [on(box, "click", () => act(view))],
  };
}
