// Charts, drawn with d3 as SVG: axes, lines with bands, bars with intervals and seeds. Heat maps are in canvas.js.

import { d3 } from "./d3.js";
import { on } from "./events.js";
import { make, say } from "./page.js";

const MARGIN = { top: 10, right: 14, bottom: 40, left: 62 };
export const WIDE = 8.4; // pixels of a character, at most on average
const NEAR = 30;         // pixels that the mouse is off at most

const QUICK = 150;       // milliseconds from one picture to the next: a slider that is dragged, and nothing lags behind the hand
const LONG = 3000;       // characters of a path that takes longer to move than the change shall take

/**
 * A chart as wide as its place. A view draws into it in two steps: `const { width, height } = chart.sized()` gives the room for
 * scales; then `axes`, `lines`, `bars`, … put what is given there, and move what was there before.
 */
export class Chart {
  constructor({ height, margin = {} }) {
    [this.outer, this.margin] = [height, { ...MARGIN, ...margin }];
    [this.box, this.yTitle] = [make("div", "moe-chart"), make("div", "moe-y-title")]; // HTML: its words may break
    this.box.ariaHidden = "true"; // its words are in the view's summary
    this.box.append(this.yTitle);
    this.svg = d3.select(this.box).append("svg");
    this.plot = this.svg.append("g").attr("transform", `translate(${this.margin.left},${this.margin.top})`);
    const inside = `moe-inside-${Math.random()}`; // curves end at the edge; each widget has a copy of this module, so no counter
    this.inside = this.svg.append("clipPath").attr("id", inside).append("rect");
    for (const layer of ["grid", "x", "y", "bands", "curves", "marks", "labels"]) {
      this[layer] = this.plot.append("g").attr("class", `moe-${layer}`);
    }
    for (const layer of [this.bands, this.curves]) layer.attr("clip-path", `url(#${inside})`);
  }

  /** Pixels of the inside, from top to bottom. */
  get height() { return this.outer - this.margin.top - this.margin.bottom; }

  /** Fit the place: the inside's { width, height } in pixels. The first picture stands at once, later ones move. */
  sized() {
    const [{ right, left }, { wide: outer, moves }, now] = [this.margin, this.box, performance.now()];
    const [width, { height }] = [Math.max(outer - left - right, 1), this];
    this.duration = this.wide === outer && outer && now - this.last > QUICK ? moves : 0;
    this.last = now;
    if (this.wide !== outer) {
      this.svg.attr("width", outer).attr("height", this.outer);
      this.inside.attr("y", -4).attr("width", width + 2).attr("height", height + 8);
    }
    this.wide = outer;
    return { width, height };
  }

  /** Both axes with their titles; `x` or `y` may be null. `grid` draws faint lines at the ticks of y. */
  axes(x, y, { xTitle = "", yTitle = "", xTicks = 6, yTicks = 5, xFormat, yFormat, xValues, yValues, grid = true } = {}) {
    const [width, { height }] = [this.wide - this.margin.left - this.margin.right, this];
    const said = JSON.stringify([width, xTitle, yTitle, grid, written(x, xTicks, xFormat, xValues),
      written(y, yTicks, yFormat, yValues)]);
    if (said === this.said) return; // to draw axes anew takes longer than all that is between them
    this.said = said;
    if (x) this.x.attr("transform", `translate(0,${height})`).call(ticked(d3.axisBottom(x), xTicks, xFormat, xValues));
    if (y) this.y.call(ticked(d3.axisLeft(y), yTicks, yFormat, yValues));
    if (y) this.grid.call(ticked(d3.axisLeft(y).tickSize(-width), yTicks, () => "", yValues)).style("display", grid ? null : "none");
    for (const axis of [this.x, this.y, this.grid]) axis.attr("font-family", null).attr("font-size", null);
    const below = this.plot.selectAll("text.moe-x-title").data(xTitle ? [xTitle] : []).join("text").attr("class", "moe-x-title");
    below.attr("x", width / 2).attr("y", height + 36).attr("text-anchor", "middle").text((text) => text);
    say(this.yTitle, yTitle);
  }

  /**
   * Curves { name, colour, points [[x, y]], band [[x, low, high]], strong, dash, aid } on two scales; one that is an aid to read
   * the others by is not found by the mouse.
   */
  lines(series, x, y) {
    this.points = series.filter(({ aid }) => !aid).flatMap(({ name, points }) => (
      points.map(([a, b], place) => ({ name, place, x: x(a), y: y(b) }))));
    const line = d3.line(([a]) => x(a), ([, b]) => y(b)).digits(1);
    const area = d3.area().x(([a]) => x(a)).y0(([, low]) => y(low)).y1(([, , high]) => y(high)).digits(1);
    this.curved(series.filter(({ band }) => band?.length), ({ band }) => area(band), series, ({ points }) => line(points));
  }

  /** Stairs { name, colour, values, floor, strong, dash }: a value holds from its place to the next; filled to a floor, if any. */
  stairs(series, x, y) {
    const [at, to] = [(_, place) => x(place), (value) => y(value)];
    const whole = (values) => [...values, ...values.slice(-1)];
    const line = d3.line(at, to).curve(d3.curveStepAfter).digits(1);
    const filled = (values, floor) => d3.area(at, y(floor), to).curve(d3.curveStepAfter).digits(1)(whole(values));
    this.curved(series.filter(({ floor }) => floor !== undefined), ({ values, floor }) => filled(values, floor), series,
      ({ values }) => line(whole(values)));
  }

  /** What fills, and what is drawn above it. */
  curved(bands, area, series, line) {
    this.join(this.bands, "path", "moe-band", bands, (one) => one.name, {
      "fill": ({ colour }) => colour, "fill-opacity": ({ strong }) => (strong ? 0.25 : 0.1), "d": area });
    this.join(this.curves, "path", "moe-line", series, (one) => one.name, {
      "stroke": ({ colour }) => colour, "stroke-width": ({ strong }) => (strong ? 2.5 : 1.5),
      "stroke-opacity": ({ strong }) => (strong ? 1 : 0.55), "stroke-dasharray": ({ dash }) => dash, "d": line });
  }

  /** Rectangles { key, x, y, width, height, colour } in pixels of the inside; dashed around if outlined, with an edge if edged. */
  bars(bars) {
    this.join(this.marks, "rect", "moe-bar", bars, (one) => one.key, {
      "x": (one) => one.x, "y": (one) => one.y, "width": (one) => Math.max(one.width, 0),
      "height": (one) => Math.max(one.height, 0), "fill": (one) => one.colour,
      "stroke": (one) => (one.outlined || one.edged ? "currentColor" : "none"),
      "stroke-dasharray": (one) => (one.outlined ? "5 4" : "none"), "stroke-width": (one) => (one.edged ? 1.2 : 2) });
  }

  /** Intervals { key, x, low, high, colour } upright at x, in pixels. */
  intervals(intervals) {
    this.join(this.marks, "path", "moe-interval", intervals, (one) => one.key, { "stroke": (one) => one.colour,
      "d": ({ x, low, high }) => `M${x - 4},${low}h8M${x},${low}V${high}M${x - 4},${high}h8` });
  }

  /** Points { key, x, y, colour, hollow, radius } in pixels. */
  dots(dots) {
    this.join(this.marks, "circle", "moe-dot", dots, (one) => one.key, { "cx": (one) => one.x, "cy": (one) => one.y,
      "r": (one) => one.radius ?? 3.5, "fill": (one) => (one.hollow ? "none" : one.colour), "stroke": (one) => one.colour });
  }

  /** Words { key, x, y, text, colour, anchor, strong } in pixels. */
  words(words) {
    this.join(this.labels, "text", "moe-word", words, (one) => one.key, { "x": (one) => one.x, "y": (one) => one.y,
      "fill": (one) => one.colour ?? "currentColor", "text-anchor": (one) => one.anchor ?? "start",
      "font-weight": (one) => (one.strong ? 700 : null) }, (one) => one.text);
  }

  /** Names { key, x, y, text, colour, strong } at the ends of curves, moved apart where they would meet; and other words. */
  names(ends, others = []) {
    const beside = []; // ends so near to each other that their names share a column
    for (const end of ends.slice().sort((a, b) => a.x - b.x)) {
      const here = beside.at(-1);
      if (here && end.x < here.right) here.ends.push(end);
      else beside.push({ ends: [end] });
      const { ends: all } = beside.at(-1);
      beside.at(-1).right = end.x + 40 + WIDE * d3.max(all, ({ text }) => text.length);
    }
    const placed = beside.flatMap(({ ends: all }) => {
      const heights = apart(all.map(({ y }) => y), 16, this.height - 5);
      return all.map((end, i) => ({ ...end, from: [end.x, end.y], x: all.at(-1).x + 18, y: heights[i] }));
    });
    this.join(this.labels, "path", "moe-leader", placed, ({ key }) => key, { "fill": () => "none",
      "stroke": ({ colour }) => colour, "d": ({ from: [x, y], ...to }) => `M${x + 2},${y}L${to.x - 3},${to.y}` });
    this.words([...placed.map((name) => ({ ...name, y: name.y + 5, colour: null })), ...others]);
  }

  /** Tell which point { name, place, x, y } of the curves, or whose name, the mouse is on, else null; how to unwire it. */
  listen(point, pick) {
    this.box.classList.add("moe-stage");
    const under = ({ clientX, clientY, target }) => {
      const { left, top } = this.svg.node().getBoundingClientRect();
      const near = ({ x, y }) => Math.hypot(left + this.margin.left + x - clientX, top + this.margin.top + y - clientY);
      const named = this.points.filter(({ name }) => target.matches(".moe-word") && name === target.textContent);
      const least = d3.min(this.points, near);
      return named.at(-1) ?? (least < NEAR ? this.points.find((one) => near(one) === least) : null);
    };
    return [on(this.box, "pointermove", (event) => point(under(event))), on(this.box, "pointerleave", () => point(null)),
      on(this.box, "click", (event) => { // a finger never hovers: it points by its tap, after it has left
        point(under(event));
        if (under(event)) pick(under(event));
      })];
  }

  /**
   * An element for each datum, with `attributes`, name -> function of the datum, and a text. What is new stands where it belongs
   * at once; what was there moves, if anything of it changes; what is gone goes.
   */
  join(layer, tag, name, data, key, attributes, text) {
    const { duration } = this;
    const [names, functions] = [Object.keys(attributes), Object.values(attributes)];
    const nodes = layer.selectAll(`${tag}.${name}`).data(data, key).join((enter) => enter.append(tag).attr("class", name));
    nodes.each(function put(one) {
      if (text) say(this, String(text(one)));
      const [goal, before, moving] = [functions.map((of) => of(one)), this.goal, this.__transition]; // d3's, while it moves
      if (before && goal.every((value, i) => value === before[i])) return;
      this.goal = goal;
      const still = !before || !duration || goal.some((value) => value?.length > LONG);
      const node = still ? d3.select(this).interrupt() : d3.select(this).transition().duration(duration);
      goal.forEach((value, i) => { if (moving || value !== before?.[i]) node.attr(names[i], value ?? null); });
    });
  }
}

/** What an axis will show, to be compared: where its ticks are, and their labels or what these follow from. */
function written(scale, ticks, format, values) {
  if (!scale) return null;
  const at = values ?? scale.ticks?.(ticks) ?? scale.domain();
  return [scale.range(), at.map((value) => scale(value)), format ? at.map(format) : at];
}

/** An axis with about that many ticks, or those that are given. */
function ticked(axis, ticks, format, values) {
  if (values) axis.tickValues(values);
  else axis.ticks(ticks);
  return format ? axis.tickFormat(format) : axis;
}

/** The ticks that have room for their words, from the first on: they stand `gap` pixels apart at least. */
export function spaced(values, scale, gap = 26) {
  return values.reduce((kept, value) => (kept.length && scale(value) - scale(kept.at(-1)) < gap ? kept : [...kept, value]), []);
}

/** Heights of labels, moved apart as little as may be: [y] -> [y], `gap` pixels between them at least, within 0 … height. */
export function apart(heights, gap, height) {
  const order = d3.range(heights.length).sort((a, b) => heights[a] - heights[b]);
  const blocks = []; // where the first label of a block would stand for each of its members; a block is one in their mean
  order.forEach((one, i) => {
    let block = [heights[one] - gap * i];
    while (blocks.length && d3.mean(blocks.at(-1)) > d3.mean(block)) block = [...blocks.pop(), ...block];
    blocks.push(block);
  });
  const [lowest, placed] = [Math.max(height - gap * (heights.length - 1), 0), []];
  blocks.flatMap((block) => block.map(() => Math.min(Math.max(d3.mean(block), 0), lowest)))
    .forEach((first, i) => { placed[order[i]] = first + gap * i; });
  return placed;
}

/** What the colours of a chart mean: [words, colour] …, a line of names. */
export function legend(entries) {
  const box = make("div", "moe-key");
  box.append(...entries.map(([words, colour]) => {
    const [entry, swatch] = [make("span", "moe-entry"), make("span", "moe-swatch")];
    swatch.style.background = colour;
    entry.append(swatch, make("span", "", words));
    return entry;
  }));
  return box;
}

/** Fill a table with rows of cells; the first row is its head, the first cell of each row names it. */
export function fillTable(table, rows, marked = () => false) {
  const [head, ...body] = rows;
  const rowOf = (cells, tagOf) => {
    const row = make("tr");
    row.append(...cells.map((text, i) => Object.assign(make(tagOf(i), "", String(text)), i ? {} : { scope: "row" })));
    return row;
  };
  const words = JSON.stringify([rows, body.map((_, i) => marked(i))]);
  if (table.dataset.words === words) return;
  table.dataset.words = words;
  const [top, rest] = [make("thead"), make("tbody")];
  top.append(rowOf(head, () => "th"));
  top.querySelectorAll("th").forEach((cell) => { cell.scope = "col"; });
  rest.append(...body.map((cells, i) => {
    const row = rowOf(cells, (place) => (place ? "td" : "th"));
    row.classList.toggle("moe-marked", marked(i));
    return row;
  }));
  table.replaceChildren(top, rest);
}

/** A table in the course's style, empty; on a narrow screen its cells may break before an interval, and nowhere else. */
export function makeSheet(label, intervals = false) {
  const table = make("table", intervals ? "moe-sheet moe-bounds" : "moe-sheet");
  table.setAttribute("aria-label", label);
  return table;
}
