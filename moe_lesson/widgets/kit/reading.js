// A view of what a model does with a text: Python sent it for the text at the start; what the learner writes is read in the page.

import { forward, readModel } from "./moe.js";
import { PointingView } from "./view.js";
import { encode, tokenNames } from "./vocabulary.js";

/** What a model does with a text: its tokens, by id and by name, and of each MoE layer what `forward` gives. */
export function readText(model, text) {
  const ids = encode(text, model.vocabulary);
  return { ids, tokens: tokenNames(ids, model.vocabulary), layers: forward(model, ids).layers };
}

/**
 * A view with the traits `text`, `start` and `weights`, where the page finds the model. A subclass says
 *   recorded()        what Python sent of the text at the start; without it, the first text too waits for the model
 *   computed(model)   the same of any other text; unless it does, its tokens and how each layer routes them
 *   take()            what follows from another text; `this.reading` is one of the two
 */
export class ReadingView extends PointingView {
  computed(model) {
    const { layers, ...text } = readText(model, this.state.text);
    return { ...text, layers: layers.map(({ routed }) => routed) };
  }

  /** Read a new text; until a model is here that has to be fetched first, the last one stays, or the first. */
  renew() {
    const { text, start, weights } = this.state;
    if (this.shown === text) return;
    const sent = this.recorded && (text === start.text || !weights);
    if (!sent && !this.network && !this.lost) this.fetchModel().catch(() => {});
    if (!sent && !this.network && (this.reading || !this.recorded)) return;
    [this.point, this.shown] = [null, sent || this.network ? text : null];
    this.reading = sent || !this.network ? this.recorded() : this.computed(this.network);
    this.take();
  }

  /** The model, read once; where that fails, the next who asks tries again, but no picture asks by itself. */
  fetchModel() {
    this.fetching ??= this.model.widget_manager.get_model(this.state.weights).then((sent) => {
      this.network = readModel(sent.get("data"));
      this.renew();
      this.frame.ask();
    }).catch((error) => {
      [this.fetching, this.lost] = [null, true];
      throw error;
    });
    return this.fetching;
  }
}
