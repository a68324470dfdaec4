// The ablation view: a domain's specialists taken away, beside as many other experts of the same load.
//
// Python computed the intervals of every state; here one is looked up, drawn and put into words.

import { Chart, fillTable, legend, makeSheet } from "../kit/charts.js";
import { choice, slider } from "../kit/controls.js";
import { d3 } from "../kit/d3.js";
import { coloursOf, DESIGN } from "../kit/design.js";
import { make } from "../kit/page.js";
import { WidgetView, widgetOf } from "../kit/view.js";
import { count, rounded, shortened } from "../kit/words.js";

/** The numbers of the state that is shown, or of the same with another domain's specialists gone; see `state_of` in Python. */
function shownOf({ numbers, rung, domain, share, shares }, own = domain) {
  return numbers[rung][own][shares.indexOf(share)];
}

// --- in words --------------------------------------------------------------------------------------------------------

const signed = (value) => d3.format("+.3f")(Number(rounded(value)));
const percents = { mean: d3.format(".1%"), gap: d3.format("+.1%") };

function withBounds([mean, low, high], words = signed) {
  return `${words(mean)} [${words(low)},\u00a0${words(high)}]`;
}

/** What the seeds can tell of a difference: its 95% interval lies above 0, below, or around it. */
function judged([, low, high], more, less, neither) {
  return low > 0 ? more : high < 0 ? less : neither;
}

/** Whether the domain misses its specialists more than the control, and more than the others do: a domain that is hurt easily is
 *  hurt by the control, too, so that is taken off. */
function describe(state) {
  const { domain, rung, sizes } = state;
  const { gone, own, rise: [[[, , , ...seeds]]] } = shownOf(state);
  const [hurt, hit] = [own.rise[2], own.beyond[2]];
  return `${rung}, ${gone} of ${sizes[rung]} experts gone: `
    + judged(hurt, `${domain} is hurt more`, `${domain} is hurt less`, `open whether ${domain} is hurt more`)
    + ` when its specialists go than when others do, ${withBounds(hurt)} nats per byte (${seeds.length} seeds). `
    + judged(hit, "Beyond the control, it is hit harder than the others", "Beyond the control, it is hit less than the others",
      "Open whether, beyond the control, it is hit harder than the others") + `: ${withBounds(hit)}. ${countWords(state)}`;
}

/** How all domains' specialists fare, so that nobody picks the one that pleases. */
function countWords(state) {
  const counted = (what, more) => {
    const says = state.domains.map((own) => judged(shownOf(state, own).own[what][2], more, "less", "open"));
    return [more, "less", "open"].map((word) => `${word} ${says.filter((one) => one === word).length}`).join(", ");
  };
  return `All ${state.domains.length} domains: ${counted("rise", "hurt more")}; ${counted("beyond", "hit harder")}.`;
}

function fraction(share) {
  return Number.isInteger(1 / share) ? `1/${1 / share}` : d3.format(".3~p")(share);
}

/** What is measured of the domain without its specialists, without the control, and the paired difference. */
function tableRows(state) {
  const { own } = shownOf(state);
  const row = (name, what, { mean = signed, gap = signed } = {}) => (
    [name, ...(own[what]?.map((one, i) => withBounds(one, i < 2 ? mean : gap)) ?? ["–", "–", "–"])]);
  return [[state.domain, "its specialists gone", "same load gone", "paired difference"], row("rise of its loss", "rise"),
    row("share of its calls lost", "calls", percents), row("rise per lost call", "per call"),
    row("rise above the others' mean", "beyond")];
}

// --- the widget ------------------------------------------------------------------------------------------------------

const PANELS = { rise: ["rise of the loss, nats per byte", (value) => (value ? d3.format("+")(value) : "0")],
  calls: ["lost share of the domain's calls", d3.format("~p")] };
const GROUP = 44; // pixels of a domain: two rows
const ROW = 18;
const LEFT = 92;
const LETTERS = 11; // of a domain's name that fit

class AblationView extends WidgetView {
  static data = ["origin", "rungs", "domains", "shares", "sizes", "draws", "numbers", "start"];

  static settings = ["rung", "domain", "share"];

  declare() {
    const { rungs, domains, shares } = this.state;
    return [
      choice("model", rungs, { trait: "rung" }),
      choice("specialists of", domains, { trait: "domain" }),
      slider("share of the experts", { trait: "share", values: shares, wide: true, hidden: () => shares.length === 1,
        words: (state) => `${fraction(state.share)} of the experts: ${shownOf(state).gone} of ${state.sizes[state.rung]}` }),
    ];
  }

  build() {
    const { rungs, domains, numbers, draws } = this.state;
    const height = domains.length * GROUP + 52;
    const all = Object.values(numbers).flatMap((of) => Object.values(of).flat());
    this.charts = Object.keys(PANELS).map((name) => ({ name, chart: new Chart({ height, margin: { left: LEFT } }),
      limits: d3.extent([0, ...all.flatMap((one) => one[name].flat(2))]) })); // of all states, so that none moves an axis
    this.hues = Object.fromEntries(coloursOf(rungs).map((colour, i) => [rungs[i], colour]));
    this.key = legend([["its specialists gone", ""], ["as many others of the same load gone (control)", DESIGN.grey]]);
    this.table = makeSheet("numbers of the domain whose specialists are gone", true);
    const box = make("div", "moe-charts moe-ablation");
    box.append(...this.charts.map(({ chart }) => chart.box));
    this.folded.append(this.table, make("div", "", "Specialists are chosen on validation text, losses are of test text; a lost "
      + "call goes to the next best expert. Same load: as many other experts, the mean of "
      + `${count(draws, "random set")} for each seed.`));
    return [this.key, box];
  }

  describe() { return describe(this.state); }

  draw() {
    const colours = [this.hues[this.state.rung], DESIGN.grey];
    this.key.querySelector(".moe-swatch").style.background = colours[0];
    for (const one of this.charts) this.drawPanel(one, colours);
    fillTable(this.table, tableRows(this.state));
  }

  /** Two rows for each domain: the interval as a band, the mean as a line, a ring for each seed. */
  drawPanel({ name, chart, limits }, colours) {
    const [{ domains, domain }, { width, height }, [xTitle, xFormat]] = [this.state, chart.sized(), PANELS[name]];
    const x = d3.scaleLinear(limits, [6, width - 6]);
    const y = d3.scaleBand(domains, [0, height]);
    chart.axes(x, y, { xTitle, xFormat, xTicks: 5, yFormat: (words) => shortened(words, LETTERS), grid: false });
    chart.x.selectAll(".tick line").attr("y1", -height).classed("moe-zero", (value) => value === 0);
    chart.y.selectAll("text").attr("font-weight", (one) => (one === domain ? 700 : null));
    chart.join(chart.labels, "rect", "moe-own", [domain], () => "own", { "x": () => -LEFT + 1, "y": () => y(domain) + 1,
      "width": () => LEFT + width + 8, "height": () => GROUP - 2 });
    const rows = shownOf(this.state)[name].flatMap((kinds, d) => kinds.map(([mean, low, high, ...seeds], kind) => (
      { key: `${d}, ${kind}`, mean, low, high, seeds, colour: colours[kind], y: (d + 0.5) * GROUP + (kind - 0.5) * ROW })));
    chart.join(chart.bands, "path", "moe-interval", rows, (row) => row.key, { "stroke": (row) => row.colour,
      "d": (row) => `M${x(row.low)},${row.y}H${x(row.high)}` });
    chart.join(chart.marks, "path", "moe-mean", rows, (row) => row.key, { "stroke": (row) => row.colour,
      "d": (row) => `M${x(row.mean)},${row.y - 8}v16` });
    const shift = (s, S) => (s - (S - 1) / 2) * Math.min(2, 10 / S); // so that equal seeds are seen
    chart.dots(rows.flatMap((row) => row.seeds.map((value, s) => ({ key: `${row.key}, ${s}`, x: x(value),
      y: row.y + shift(s, row.seeds.length), colour: "currentColor", hollow: true, radius: 3.2 }))));
  }
}

export default widgetOf(AblationView);
