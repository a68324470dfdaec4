// A question before a result. Python keeps the guess; until it has answered, the form says that it waits.

import { keepKeys, on, onSilence, onTrait, taken } from "../kit/events.js";
import { make, makeButton, say } from "../kit/page.js";
import { widgetOf } from "../kit/view.js";

class QuestionView {
  constructor(model, el) {
    this.model = model;
    [this.root, this.button, this.status] = [make("div", "moe-form moe-question"), makeButton("Keep my guess"), make("div", "moe-answer")];
    this.status.setAttribute("role", "status");
    const [row, words] = [make("div", "moe-row"), make("p", "moe-asked")];
    words.append(make("b", "", "Predict."), ` ${model.get("title")}`);
    this.fields = model.get("choices").length ? [this.menu()] : Array.from({ length: model.get("numbers") }, (_, i) => this.field(i));
    row.append(...this.fields, this.button);
    this.root.append(words, row, this.status);
    this.fill();
    keepKeys(this.root);
    el.append(this.root);
    const enter = (event) => { if (event.key === "Enter") taken(event, () => this.send()); };
    this.stops = [on(this.button, "click", () => this.send()), ...this.fields.map((field) => on(field, "keydown", enter)),
      onTrait(model, "answer", () => this.show()), onTrait(model, "entered", () => this.fill()), () => clearTimeout(this.timer)];
    this.show();
  }

  field(i) {
    const field = Object.assign(make("input", "moe-select moe-field"), { type: "text", placeholder: "your guess", autocomplete: "off" });
    field.setAttribute("aria-label", `your guess${i ? `, number ${i + 1}` : ""}: ${this.model.get("title")}`);
    return field;
  }

  menu() {
    const menu = make("select", "moe-select moe-field");
    menu.setAttribute("aria-label", `your guess: ${this.model.get("title")}`);
    menu.append(...["choose …", ...this.model.get("choices")].map((words, i) => (
      Object.assign(make("option", "", words), { value: i ? words : "" }))));
    return menu;
  }

  fill() {
    this.fields.forEach((field, i) => { field.value = this.model.get("entered").values[i] ?? field.value; });
  }

  /** Give the guess to Python. */
  send() {
    const { times } = this.model.get("entered");
    this.model.set("entered", { times: times + 1, values: this.fields.map(({ value }) => value.trim()) });
    this.model.save_changes();
    this.show();
  }

  show() {
    const [{ times }, answer] = [this.model.get("entered"), this.model.get("answer")];
    clearTimeout(this.timer);
    this.root.classList.toggle("moe-kept", answer.kept && answer.times === times);
    if (answer.times === times) return say(this.status, answer.words);
    say(this.status, "Waiting for Python …");
    this.timer = onSilence((words) => say(this.status, words));
    return undefined;
  }

  close() {
    for (const stop of this.stops) stop();
  }
}

export default widgetOf(QuestionView);
