// The fact finder: models that remember facts, without some of their experts. Which facts go dark, how much of the common skill?
// A *box* is an expert, by its number: first the N routed ones, then the shared ones.

import { inkOn, outline, sizedContext } from "../kit/canvas.js";
import { legend } from "../kit/charts.js";
import { choice } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { coloursOf, seenOn } from "../kit/design.js";
import { moved, movedOn, on, placeWithin, taken } from "../kit/events.js";
import { ffn, product, readModel, rmsNorm } from "../kit/moe.js";
import { make, makeButton, makeStage, say } from "../kit/page.js";
import { ranked, rankExperts, route } from "../kit/routing.js";
import { WidgetView, widgetOf } from "../kit/view.js";
import { count, grouped, percent } from "../kit/words.js";

// --- the model -------------------------------------------------------------------------------------------------------

/** A model with what each of its boxes says to each fact, computed once: to take boxes away is to choose again and to add.
 *  `about` is its entry in the trait `models`, `of` gives a tensor by its name, see data.py. */
export class Memory {
  constructor(about, of, { x, answers, common }, V) {
    const [{ experts: N, hidden: H, gate }, T] = [about, answers.length];
    const D = x.length / T;
    Object.assign(this, { about, asked: { facts: answers, common }, T, D, V, heads: of("heads"), W: of("heads").length / D });
    this.h = product(x, of("mix"), D, D).map((value, i) => x[i] + value);
    const [seen, w_in, w_out] = [rmsNorm(this.h, new Float32Array(D).fill(1)), of("w_in"), of("w_out")];
    this.says = d3.range(w_out.length / (H * D)).map((box) => (
      ffn(seen, w_in.subarray(box * 2 * H * D, (box + 1) * 2 * H * D), w_out.subarray(box * H * D, (box + 1) * H * D), D)));
    this.ranking = N && rankExperts(product(seen, of("router"), D, N), T, N, gate);
    this.whole = this.without([]);
  }

  /** Without some boxes: what is right, facts [T] and common [T]; and whom each fact then calls, as `route` gives it. */
  without(gone) {
    if (String(this.now?.gone) === String(gone)) return this.now;
    const [{ about: { experts: N }, whole, says, h, T, D, V, W }, routed] = [this, this.routed(gone)];
    const always = d3.range(N, says.length).filter((box) => !gone.includes(box));
    const same = (t) => whole && N + always.length === says.length && routed.k === whole.routed.k
      && d3.range(t * routed.k, (t + 1) * routed.k).every((i) => routed.ids[i] === whole.routed.ids[i]);
    const changed = d3.range(T).filter((t) => !same(t)); // the others answer as they did: most of the work is the heads'
    const out = new Float32Array(changed.length * D);
    changed.forEach((t, row) => {
      const add = (weight, said) => { for (let d = 0; d < D; d++) out[row * D + d] += weight * said[t * D + d]; };
      add(1, h);
      for (let i = t * routed.k; i < (t + 1) * routed.k; i++) add(routed.weights[i], says[routed.ids[i]]);
      for (const box of always) add(1, says[box]);
    });
    const logits = product(out, this.heads, D, W);
    const rights = (what, from, to) => changed.reduce((right, t, row) => {
      let best = from;
      for (let v = from + 1; v < to; v++) if (logits[row * W + v] > logits[row * W + best]) best = v;
      right[t] = from < to && best - from === this.asked[what][t];
      return right;
    }, whole ? whole[what].slice() : new Uint8Array(T));
    this.now = { gone, routed, facts: rights("facts", 0, V), common: rights("common", V, W) };
    return this.now;
  }

  /** The K best experts that are left for each fact, or all of them if fewer are left. */
  routed(gone) {
    const [{ ranking, T, about: { experts: N, top_k: K } }, open] = [this, (n) => !gone.includes(n)];
    const [order, k] = [new Int32Array(T * N), Math.min(K, d3.range(N).filter(open).length)];
    if (!k) return { k, ids: new Int32Array(), weights: [] };
    for (let at = 0; at < T * N; at += N) order.set(ranking.order.subarray(at, at + N).filter(open), at);
    return route({ ...ranking, order }, k);
  }

  /** Which facts call a box, [T]; of one that is gone, which called it when it was there. */
  callers(box, { gone, routed }) {
    const { ids, k } = gone.includes(box) ? this.whole.routed : routed;
    return d3.range(this.T).map((t) => box >= this.about.experts || ids.subarray(t * k, (t + 1) * k).includes(box));
  }

  /** The experts that a fact calls, by number. */
  called({ routed: { ids, k } }, fact) { return Array.from(ids.subarray(fact * k, (fact + 1) * k)).sort((a, b) => a - b); }

  /** A quarter of the routed experts, dealt out by load: the one after that which is gone now. */
  quarter(gone) {
    const byLoad = ranked(this.whole.routed.load.map((load) => -load));
    const parts = d3.range(4).map((part) => byLoad.filter((_, i) => i % 4 === part).sort((a, b) => a - b));
    return parts[(parts.findIndex((part) => String(part) === String(gone)) + 1) % 4];
  }
}

// --- in words --------------------------------------------------------------------------------------------------------

/** "without 2 of 8 experts", "with its 2 shared experts alone", "without expert 3". */
function goneWords(about, gone) {
  const { experts: N, shared, top_k: K } = about;
  const routed = gone.filter((box) => box < N).length;
  if (shared && routed === N && gone.length === N) return `with its ${count(shared, "shared expert")} alone`;
  const words = [[routed, N, "expert"], [gone.length - routed, shared, "shared expert"]].filter(([missing]) => missing)
    .map(([missing, all, noun]) => (missing === all ? `its ${count(all, noun)}` : `${missing} of ${count(all, noun)}`));
  return `without ${gone.length === 1 ? about.boxes[gone[0]] : words.join(" and ")}`
    + (routed < N && N - routed < K ? ` (a fact calls ${N - routed} instead of ${K})` : "");
}

function modelWords({ memory: { about, whole, T, V, W }, now, gone }) {
  const [has, skill] = [(what) => percent(d3.mean(whole[what])), (words) => (W > V ? words : "")];
  const still = (what) => (whole[what].includes(1) ? percent(d3.mean(now[what].filter((_, t) => whole[what][t]))) : "none");
  return gone.length ? `${about.name} ${goneWords(about, gone)}: ${still("facts")} of the facts it knew are left`
      + skill(`, and ${still("common")} of the common answers`)
    : `${about.name}${about.experts ? ", whole," : ""} knows ${has("facts")} of ${grouped(T)} facts`
      + skill(` and answers ${has("common")} of the common questions`);
}

function factWords(finds, fact, each) {
  return `Fact ${fact % each} of topic ${Math.floor(fact / each)}: ${finds.map(({ memory, now }) => {
    const [right, called] = [now.facts[fact], memory.called(now, fact)];
    return `${memory.about.name} ${right ? "knows it" : memory.whole.facts[fact] ? "has lost it" : "never knew it"}`
      + (called.length ? `, calling ${called.length > 1 ? "experts" : "expert"} ${called.join(", ")}` : "");
  }).join("; ")}.`;
}

function boxWords({ memory, now, gone }, box) {
  const [{ about, whole, T }, away, callers] = [memory, gone.includes(box), memory.callers(box, now)];
  const known = d3.range(T).filter((t) => callers[t] && whole.facts[t]);
  return `${about.name}, ${about.boxes[box]}${away ? ", taken away" : ""}: ${grouped(d3.sum(callers))} of ${grouped(T)} facts `
    + `${away ? "called" : "call"} it; of ${grouped(known.length)} that were known, `
    + `${grouped(known.filter((t) => !now.facts[t]).length)} are lost.`;
}

// --- the widget ------------------------------------------------------------------------------------------------------

const [GRID, LEFT] = [256, 30]; // pixels: the height of the facts, the width of the topics' numbers
const NEVER = 0.16; // how much ink there is in a fact that was never known

class FactFinderView extends WidgetView {
  static data = ["origin", "topics", "per_topic", "num_answers", "models", "sample", "start"];

  static settings = ["shown", "gone"];

  declare() {
    const names = this.state.models.map(({ name }) => name);
    return ["left", "right"].map((side, slot) => choice(side, names, {
      at: ({ shown }) => shown[slot], hidden: () => names.length < 3,
      set: (chosen, { shown }) => ({ shown: shown.map((name, i) => ( // who stands on the other side changes places
        i === slot ? chosen : name === chosen ? shown[slot] : name)) }) }));
  }

  build() {
    const { models, sample, shown, num_answers: V } = this.state;
    const [{ weights }, memories] = [readModel(sample), []];
    this.memoryOf = (i) => (memories[i] ??= new Memory(models[i], (name) => weights[`${i}.${name}`], weights, V));
    [this.cursor, this.hues] = [{ row: 0, column: 0 }, coloursOf(models.map(({ name }) => name))];
    this.rowUnits = Math.max(...models.map(({ boxes, hidden }) => hidden * Math.ceil(boxes.length / 2)));
    this.panels = shown.map((_, slot) => this.buildPanel(slot));
    this.key = legend([["known", ""], ["lost with the missing experts", "var(--moe-ink)"], ["never known", "var(--moe-never)"]]);
    this.key.prepend(make("span", "moe-entry", "Rows: topics. Cells: facts."));
    const all = make("div", "moe-facts");
    all.append(...this.panels.map(({ box }) => box));
    return [all, this.key];
  }

  /** Name and buttons; a box for each expert; two bars; the facts. */
  buildPanel(slot) {
    const [box, head, list, bars] = ["", "head", "boxes", "bars"].map((name) => make("div", name && `moe-facts-${name}`));
    const [name, buttons] = [make("strong"), ["take ¼", "take routed", "give back"].map(makeButton)];
    const [{ stage, canvas }, parts] = [makeStage(""), d3.range(2).map(() => [make("span"), make("div", "moe-facts-bar")])];
    for (const [, bar] of parts) bar.append(make("span"));
    head.append(name, ...buttons);
    bars.append(...parts.flat());
    box.append(head, list, bars, stage);
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-multiselectable", "true");
    return { slot, box, name, buttons, list, parts, stage, canvas };
  }

  renew() {
    const { models, shown, gone: away } = this.state;
    this.finds = shown.map((name) => {
      const i = models.findIndex((one) => one.name === name);
      const gone = d3.range(models[i].boxes.length).filter((box) => away[name]?.includes(models[i].boxes[box]));
      return { i, memory: this.memoryOf(i), gone, now: this.memoryOf(i).without(gone), hue: this.hues[i] };
    });
  }

  describe() {
    const { finds, point, state: { per_topic: each } } = this;
    if (point && "fact" in point) return factWords(finds, point.fact, each); // alone: with the models it could fill four lines
    return point ? `${modelWords(finds[point.slot])}. ${boxWords(finds[point.slot], point.box)}`
      : `${finds.map(modelWords).join("; ")}.`;
  }

  draw() {
    const { panels, key, theme } = this;
    const finds = this.finds.map((find) => ({ ...find, hue: seenOn(theme, find.hue) }));
    key.querySelector(".moe-swatch").style.background = `linear-gradient(to right, ${finds[0].hue} 50%, ${finds.at(-1).hue} 50%)`;
    finds.forEach((find, slot) => {
      if (panels[slot].shows !== find.i) this.fillPanel(panels[slot], find);
      this.drawPanel(panels[slot], find);
      this.drawGrid(panels[slot], find);
    });
  }

  /** Another model: its name, colour and boxes, the shared ones first, each as wide as its hidden units. */
  fillPanel(panel, { i, memory: { about: { name, experts: N, shared, hidden, top_k: K } } }) {
    [panel.shows, panel.at, panel.order, this.point] = [i, 0, [...d3.range(N, N + shared), ...d3.range(N)], null];
    say(panel.name, name);
    panel.list.style.gridTemplateColumns = `repeat(${Math.ceil(panel.order.length / 2)}, ${(100 * hidden) / this.rowUnits}%)`;
    panel.options = panel.order.map((box) => {
      const option = make("div", box < N ? "moe-facts-box" : "moe-facts-box moe-shared");
      option.append(make("span", "", box < N ? box : box - N));
      option.setAttribute("role", "option");
      return option;
    });
    panel.list.replaceChildren(...panel.options);
    const labels = [`experts of ${name}, ${count(hidden, "hidden unit")} each, a fact calls ${K}: Enter takes away or gives back`,
      `facts of ${name}: arrow keys move from fact to fact`, `take ¼ of the experts of ${name}`,
      `take routed experts of ${name}, all of them`, `give back the experts of ${name}`];
    [panel.list, panel.stage, ...panel.buttons].forEach((node, place) => node.setAttribute("aria-label", labels[place]));
    for (const node of [panel.list, ...panel.buttons]) node.style.visibility = N ? "" : "hidden"; // it keeps its place
  }

  /** Which boxes are gone, and which are called by the fact that is pointed at; and the bars. */
  drawPanel({ box: panel, options, order, at, parts }, { memory, now, gone, hue }) {
    for (const [what, colour] of [["model", hue], ["on", inkOn(hue)]]) panel.style.setProperty(`--${what}`, colour);
    const { about, whole, V, W } = memory;
    const called = this.point?.fact === undefined ? null : memory.called(now, this.point.fact);
    options.forEach((option, place) => {
      const [box, away] = [order[place], gone.includes(order[place])];
      option.classList.toggle("moe-called", Boolean(called) && !away && (box >= about.experts || called.includes(box)));
      option.setAttribute("aria-selected", String(away));
      option.setAttribute("aria-label", `${about.boxes[box]}${away ? ", taken away" : ""}`);
      option.tabIndex = place === at ? 0 : -1; // one stands for all in the tab order; arrow keys move on
    });
    [["facts known", "facts"], ["common skill", "common"]].forEach(([words, what], i) => {
      const [share, before] = [d3.mean(now[what]), d3.mean(whole[what])];
      say(parts[i][0], `${words} ${percent(share)} (whole ${percent(before)})`);
      for (const [end, at] of [["now", share], ["whole", before]]) parts[i][1].style.setProperty(`--${end}`, `${100 * at}%`);
      for (const node of parts[i]) node.hidden = what === "common" && W === V; // nobody asked
    });
  }

  /** A row for each topic, a cell for each fact; where a box is pointed at, the facts that don't call it step back. */
  drawGrid({ slot, stage, canvas }, { memory, now, hue }) {
    const [{ topics: M, per_topic: each }, { point, theme }, width] = [this.state, this, stage.clientWidth];
    const [ctx, row, cell] = [sizedContext(canvas, width, GRID), Math.floor(GRID / M), (width - LEFT) / each];
    this.geo = { row, cell };
    const place = (t) => {
      const [x, next] = [t % each, (t % each) + 1].map((column) => Math.round(LEFT + column * cell));
      return [x, Math.floor(t / each) * row, next - x - 1, row - 1];
    };
    const callers = point?.slot === slot ? memory.callers(point.box, now) : null;
    for (let t = 0; t < memory.T; t++) {
      const never = !now.facts[t] && !memory.whole.facts[t];
      ctx.fillStyle = now.facts[t] ? hue : theme.ink;
      ctx.globalAlpha = (never ? NEVER : 1) * (callers && !callers[t] ? 0.4 : 1);
      ctx.fillRect(...place(t));
    }
    ctx.globalAlpha = 1;
    [ctx.font, ctx.fillStyle, ctx.textAlign, ctx.textBaseline] = [theme.font, theme.ink, "right", "middle"];
    ctx.fillRect(LEFT - 3, 0, 1, M * row - 1);
    const step = [1, 2, 4, 8, 16].find((rows) => rows * row >= 18);
    for (let topic = 0; topic < M; topic += step) ctx.fillText(topic, LEFT - 6, Math.max((topic + 0.5) * row, 8));
    if (point?.fact !== undefined) outline(ctx, ...place(point.fact));
  }

  wire() {
    const away = () => this.pointAt(null);
    const { topics: M, per_topic: each } = this.state;
    const factUnder = ({ currentTarget, clientX, clientY }) => {
      const { left, top } = currentTarget.getBoundingClientRect();
      const [row, column] = [placeWithin(clientY - top, this.geo.row, M), placeWithin(clientX - left - LEFT, this.geo.cell, each)];
      return row === null || column === null ? null : { fact: row * each + column };
    };
    return this.panels.flatMap((panel) => {
      const { slot, list, stage, buttons } = panel;
      const placeOf = ({ target }) => panel.options.indexOf(target.closest(".moe-facts-box"));
      const onBox = (action) => (event) => { if (placeOf(event) >= 0) action(panel.order[placeOf(event)], event); };
      const point = onBox((box) => this.pointAt({ slot, box }));
      const take = (boxes) => {
        const { name, boxes: names } = this.finds[slot].memory.about;
        this.set({ gone: { ...this.state.gone, [name]: boxes.sort((a, b) => a - b).map((box) => names[box]) } });
      };
      const toggle = onBox((box) => {
        const { gone } = this.finds[slot];
        take(gone.includes(box) ? gone.filter((one) => one !== box) : [...gone, box]);
      });
      const taking = [({ memory, gone }) => memory.quarter(gone), ({ memory }) => d3.range(memory.about.experts), () => []];
      return [...buttons.map((button, i) => on(button, "click", () => take(taking[i](this.finds[slot])))),
        on(list, "click", toggle), on(list, "pointerover", point),
        on(list, "focusin", (event) => { panel.at = placeOf(event); point(event); this.frame.ask(); }),
        on(list, "keydown", (event) => {
          const next = moved(placeOf(event), event.key, panel.options.length);
          if (next !== null) taken(event, () => panel.options[next].focus());
          if (event.key === "Enter" || event.key === " ") taken(event, () => toggle(event));
        }),
        ...["pointermove", "click"].map((event) => on(stage, event, (at) => this.pointAt(factUnder(at)))), // a finger's tap
        on(stage, "keydown", (event) => {
          const cell = movedOn(this.cursor, event.key, M, each);
          if (cell) taken(event, () => { this.cursor = cell; this.pointAt({ fact: cell.row * each + cell.column }); });
        }),
        ...[list, stage].flatMap((node) => ["pointerleave", "focusout"].map((event) => on(node, event, away)))];
    });
  }
}

export default widgetOf(FactFinderView);
