// Questions at the end of a lesson. Answers and explanations came with them, so this is alive without Python; but Python
// keeps them, and where it does not answer, the learner is told.

import { button, choice } from "../kit/controls.js";
import { on, onSilence } from "../kit/events.js";
import { make, makeButton, say } from "../kit/page.js";
import { WidgetView, widgetOf } from "../kit/view.js";

class QuizView extends WidgetView {
  static data = ["questions"];
  static settings = ["question", "tries", "kept"];

  declare() {
    const mark = (one) => (this.solved(one) ? " ✓" : "\u2003"); // as wide: the button beside it stays
    const numbered = () => this.state.questions.map((one, i) => [i, `${i + 1}${mark(one)}`]);
    return [
      choice("Question", numbered, { trait: "question", set: (value) => ({ question: Number(value) }) }),
      button("Next question", () => this.set({ question: (this.state.question + 1) % this.state.questions.length })),
    ];
  }

  build() {
    [this.ask, this.options] = [make("p", "moe-quiz-ask"), make("div", "moe-options")];
    const most = Math.max(...this.state.questions.map(({ answers }) => answers.length));
    this.buttons = Array.from({ length: most }, () => makeButton());
    this.options.append(...this.buttons);
    return [this.ask, this.options];
  }

  /** The teacher's sentence stands under the answers; the kit puts a widget's words on top. */
  wire() {
    this.page.root.append(this.page.status);
    return [...this.buttons.map((node, i) => on(node, "click", () => this.answer(this.now.answers[i].says))),
      () => clearTimeout(this.waiting)];
  }

  renew() {
    const { tries, kept } = this.state;
    clearTimeout(this.waiting);
    if (JSON.stringify(tries) === JSON.stringify(kept)) this.silence = "";
    else this.waiting = onSilence((words) => { this.silence = ` ${words}`; this.frame.ask(); });
  }

  get now() { return this.state.questions[this.state.question]; }

  /** What was answered, of the answers that the question still has: a web page keeps them longer than their words. */
  given({ ask, answers }) {
    return (this.state.tries[ask] ?? []).filter((given) => answers.some(({ says }) => says === given));
  }

  solved(one) { return this.given(one).some((says) => this.answerOf(one, says).right); }

  answerOf({ answers }, says) { return answers.find((answer) => answer.says === says) ?? {}; }

  answer(says) {
    const given = this.given(this.now);
    if (given.at(-1) !== says) this.set({ tries: { ...this.state.tries, [this.now.ask]: [...given, says] } });
  }

  draw() {
    const { ask, answers } = this.now;
    const given = this.given(this.now);
    say(this.ask, ask);
    this.buttons.forEach((node, i) => {
      const { says = "", right } = answers[i] ?? {};
      say(node, says);
      node.hidden = !says;
      node.className = `moe-button moe-option${given.includes(says) ? ` moe-tried${right ? " moe-correct" : ""}` : ""}`;
      node.setAttribute("aria-pressed", given.at(-1) === says);
    });
  }

  describe() {
    const last = this.given(this.now).at(-1);
    const { right, why } = this.answerOf(this.now, last);
    const words = last === undefined ? `Question ${this.state.question + 1} of ${this.state.questions.length}: choose an answer.`
      : `${right ? "Right." : "No."} ${why}`;
    return words + (this.silence ?? "");
  }

  badge() {
    const first = this.state.questions.filter((one) => this.answerOf(one, this.given(one)[0]).right).length;
    const answered = this.state.questions.filter((one) => this.given(one).length).length;
    return answered ? `${first} of ${answered} right at the first try` : "not answered yet";
  }
}

export default widgetOf(QuizView);
