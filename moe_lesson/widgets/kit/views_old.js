// What the views of all widgets do.

import { on, oncePerFrame, onEscape, onSize, onTheme, onTrait, save, taken } from "./events.js";
import { themeOf } from "./page.js";

/**
 * What the view of every widget does: read the traits, build the page once, draw before the next frame whenever something
 * changed, and leave nothing behind. A subclass says what: `get settings()`, the traits that change while it is open; `read()`,
 * traits into fields; `build()`, fields into a page whose parts are { root, reset, … }; `draw()`, fields onto the page;
 * `wire()`, what the learner does, as a list of functions that unwire it.
 */
export class LessonView {
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
export class PointingView extends LessonView {
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
export function widgetOf(View) {
  return {
    render({ model, el }) {
      const view = new View(model, el);
      return () => view.close();
    },
  };
}
