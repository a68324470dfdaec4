// What the views of all widgets do: read traits, build the page once, draw before the next frame, leave nothing behind.

import { change, keepKeys, motion, on, oncePerFrame, onEscape, onSize, onTheme, onTrait, save, taken } from "./events.js";
import { make, makeButton, say, themeOf } from "./page.js";

/**
 * The view of a widget. A subclass names its traits, `static data` (what Python sent once) and `static settings` (what changes
 * while it is open), and says:
 *   declare()   its controls, see controls.js
 *   build()     the elements of its picture, kept in fields
 *   renew()     what follows from the traits, called when one has changed
 *   draw()      fields onto the page
 *   describe()  what it shows, in words: stands on top, and is read out when it changes
 *   badge()     where the data comes from; ending in "(null)" it is marked as nobody's learning
 *   wire()      what else the learner does, as a list of functions that unwire it
 */
export class WidgetView {
  constructor(model, el) {
    this.model = model;
    this.point = null; // what the mouse or the keyboard points at; in a PointingView some of the kept traits
    this.read();
    this.controls = this.declare();
    this.page = this.buildPage();
    this.renew();
    el.append(this.page.root);
    this.frame = oncePerFrame(() => this.paint());
    this.unseen = () => {};
    this.stops = [...this.watch(), on(this.page.reset, "click", () => this.reset()),
      ...this.controls.flatMap((control) => control.wire(this)), ...this.wire()];
    this.frame.ask();
  }

  declare() { return []; }

  renew() {}

  badge() { return [this.state.origin, this.state.name].filter(Boolean).join(": "); }

  wire() { return []; }

  close() {
    clearInterval(this.timer);
    this.frame.cancel();
    this.unseen();
    for (const stop of this.stops) stop();
  }

  /** The traits by name. */
  read() {
    const { data = [], settings } = this.constructor;
    this.state = Object.fromEntries([...data, ...settings].map((name) => [name, this.model.get(name)]));
  }

  /** Title, badge and Reset; the words; the controls; the picture; what is folded. */
  buildPage() {
    const root = make("div", "moe-root");
    const [header, row, more] = [make("div", "moe-header"), make("div", "moe-row"), make("details", "moe-more")];
    const page = { root, badge: make("span", "moe-badge"), reset: makeButton("Reset"), status: make("div", "moe-status") };
    page.status.setAttribute("aria-live", "polite");
    header.append(make("h3", "moe-title", this.model.get("title")), page.badge, page.reset);
    row.append(...this.controls.filter(({ folded }) => !folded).map(({ box }) => box));
    more.append(make("summary", "", "More"), ...this.controls.filter(({ folded }) => folded).map(({ box }) => box));
    this.folded = more; // a subclass adds its tables
    const picture = this.build();
    root.append(header, page.status, ...(row.children.length ? [row] : []), ...picture,
      ...(more.children.length > 1 ? [more] : []));
    keepKeys(root);
    return page;
  }

  /** Redraw when a trait, the width, that of a chart, or the theme changes; returns how to stop. */
  watch() {
    const repaint = () => { this.colours = null; this.frame.ask(); };
    const reread = () => { this.read(); this.renew(); this.frame.ask(); };
    const { root } = this.page;
    return [...[root, ...root.querySelectorAll(".moe-chart")].map((node) => onSize(node, repaint)), onTheme(repaint),
      ...this.constructor.settings.map((name) => onTrait(this.model, name, reread))];
  }

  /** The colours of the page around the widget, read once for each theme: it costs a layout. */
  get theme() {
    this.colours = this.colours || themeOf(this.page.root);
    return this.colours;
  }

  paint() {
    this.unseen();
    const { root } = this.page;
    if (!root.clientWidth) { // as when JupyterLab changes its theme, where no size will have changed once it is seen again
      this.unseen = onSize(root, this.frame.ask);
      return;
    }
    const moves = motion(); // this and a width cost a layout, once something is written
    for (const box of root.querySelectorAll(".moe-chart")) Object.assign(box, { wide: box.clientWidth, moves });
    this.draw();
    for (const control of this.controls) control.sync(this.state);
    const badge = this.badge();
    say(this.page.badge, badge);
    this.page.badge.classList.toggle("moe-null", badge.endsWith("(null)"));
    say(this.page.status, this.describe());
  }

  /** Point at something, a plain value; null is nothing. */
  pointAt(point) {
    if (JSON.stringify(point) === JSON.stringify(this.point)) return;
    this.point = point;
    this.frame.ask();
  }

  set(traits) {
    save(this.model, traits);
  }

  /** Let a trait go through some values, one every `pace` milliseconds, from the first if the last is reached, until it is. */
  play(trait, values, pace, next = (place) => place + 1) {
    let here = this.state[trait];
    const go = (place) => { here = values[place]; change(this.model, { [trait]: here }); };
    if (here === values.at(-1)) go(0);
    this.timer = setInterval(() => {
      if (document.hidden || !this.page.root.clientWidth) return; // nobody sees it
      if (this.state[trait] !== here) return this.pause(); // another view plays it, or Python has moved it
      go(next(values.indexOf(here)));
      if (this.state[trait] === values.at(-1)) this.pause();
    }, pace);
    this.frame.ask();
  }

  /** Stop playing, as any hand on what plays does; Python hears where. */
  pause() {
    if (!this.timer) return;
    clearInterval(this.timer);
    this.timer = 0;
    this.model.save_changes();
    this.frame.ask();
  }

  reset() {
    this.pause();
    this.point = null;
    this.set(this.model.get("start"));
  }
}

/**
 * A view in which the learner looks at things: the mouse or the arrow keys point at them, a click or Enter keeps them in traits,
 * Escape lets go. `static kept` names the traits; each is a number, a list of numbers, or null; `static always` those of them
 * that are never let go.
 */
export class PointingView extends WidgetView {
  static always = [];

  /** What is looked at: what is pointed at, else what is kept. */
  get look() {
    return Object.fromEntries(this.constructor.kept.map((name) => [name, this.point?.[name] ?? this.state[name]]));
  }

  /** Keep what is pointed at; if it is kept already, let it go. */
  toggle(point) {
    if (!point) return;
    const same = Object.entries(point).every(([name, value]) => String(this.state[name]) === String(value));
    this.set(same ? this.without(Object.keys(point)) : point);
  }

  without(names) {
    return Object.fromEntries(names.filter((name) => !this.constructor.always.includes(name)).map((name) => [name, null]));
  }

  unlock() {
    this.pointAt(null);
    this.set(this.without(this.constructor.kept));
  }

  /**
   * The mouse over an element: `under(event)` says what an event is on, or null; `land(event)` puts the keyboard where it was
   * clicked. Returns how to unwire it.
   */
  listenMouse(node, under, land = () => {}) {
    return [on(node, "pointermove", (event) => this.pointAt(under(event))), on(node, "pointerleave", () => this.pointAt(null)),
      on(node, "click", (event) => { land(event); this.toggle(under(event)); })];
  }

  /** The keyboard on an element: `next(key)` says what a key leads to, null for a key that leads nowhere. */
  listenKeys(node, next) {
    return [on(node, "focusout", () => this.pointAt(null)), on(node, "keydown", (event) => {
      const point = next(event.key);
      if (point !== null) taken(event, () => this.pointAt(point));
      if (event.key === "Enter" || event.key === " ") taken(event, () => this.toggle(this.point));
    })];
  }

  /** Both on places: `under(event)` is the one under the mouse or null, `next(cursor, key)` where a key leads, `at(place)` its point. */
  listenPlaces(node, under, next, at) {
    const there = (place) => (place === null ? null : at(place));
    const land = (event) => { this.cursor = under(event) ?? this.cursor; };
    return [...this.listenMouse(node, (event) => there(under(event)), land), ...this.listenKeys(node, (key) => {
      const place = next(this.cursor, key);
      if (place !== null) this.cursor = place;
      return there(place);
    })];
  }

  watch() {
    return [...super.watch(), onEscape(this.page.root, () => this.unlock())];
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
