// Drawing on a canvas: heat maps and what stands beside them.

import { d3 } from "./d3.js";
import { make } from "./page.js";

/** 256 steps of viridis, even for the eye and readable without red-green vision: small to large. */
export const RAMP = d3.range(256).map((i) => d3.rgb(d3.interpolateViridis(i / 255)).formatHex());

/** The colour of a weight between 0 and limit. Spaced by the square root, so that small weights show. */
export function weightColour(weight, limit) {
  const share = Math.sqrt(Math.min(Math.max(weight / limit, 0), 1));
  return RAMP[Math.min(255, Math.floor(share * 256))];
}

/** Words on a map, and what its colours mean, with room for numbers under them: { legend, ticks }. */
export function makeLegend(words, colours) {
  const [legend, scale] = [make("div", "moe-legend"), make("span", "moe-scale")];
  const [ramp, ticks] = [make("span", "moe-ramp"), make("span", "moe-ticks")];
  ramp.style.background = `linear-gradient(to right, ${colours.filter((_, i) => i % 15 === 0).join(", ")})`;
  scale.append(ramp, ticks);
  legend.append(make("span", "", words), scale);
  return { legend, ticks };
}

/** Numbers under a scale: [what stands there, at which share of the scale]. */
export function fillTicks(ticks, places) {
  ticks.replaceChildren(...places.map(([number, share]) => {
    const tick = make("span", "", String(number));
    tick.style.left = `${share * 100}%`;
    return tick;
  }));
}

/** Black or white, whichever reads better on a #rrggbb background (WCAG relative luminance). */
export function inkOn(hex) {
  const [r, g, b] = hex.slice(1).match(/../g).map((pair) => {
    const c = parseInt(pair, 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "black" : "white";
}

/** Give a canvas its size in CSS pixels and return its context, sharp on any screen. */
export function sizedContext(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return ctx;
}

/** Where a row or a column begins, and how long it is, on whole pixels: seams would flicker between them, thin frames blur. */
export function span(start, size, place) {
  const [from, to] = [place, place + 1].map((edge) => Math.round(start + edge * size));
  return [from, Math.max(1, to - from)];
}

/** Select by outline: white inside black, to be seen on every colour of the map. */
export function outline(ctx, x, y, w, h) {
  ctx.lineWidth = 4;
  ctx.strokeStyle = "black";
  ctx.strokeRect(x, y, w, h);
  ctx.lineWidth = 2;
  ctx.strokeStyle = "white";
  ctx.strokeRect(x, y, w, h);
}

/** Cells [row, column, weight] of a heat map between two rows, on the ground of what has no weight. */
export function drawCells(ctx, { left, cell, N }, { first, last, row }, cells, limit) {
  ctx.fillStyle = RAMP[0];
  ctx.fillRect(left, first * row, cell * N, (last - first) * row);
  for (const [t, n, weight] of cells) {
    ctx.fillStyle = weightColour(weight, limit);
    ctx.fillRect(left + n * cell, t * row, cell - (cell > 6 ? 1 : 0), row - 1);
  }
}

/** A ribbon from a place above to one below, `share` of its way. */
export function drawRibbon(ctx, [x, y], [toX, toY], width, colour, share = 1) {
  const far = 1.3 * Math.hypot(toX - x, toY - y); // longer than the curve
  [ctx.strokeStyle, ctx.lineWidth] = [colour, width];
  ctx.setLineDash([share * far, far]);
  ctx.beginPath();
  ctx.moveTo(x, y);
  ctx.bezierCurveTo(x, (y + toY) / 2, toX, (y + toY) / 2, toX, toY);
  ctx.stroke();
  ctx.setLineDash([]);
}

/** A vector as a strip of cells, strong where far from zero; `share` of it is there. */
export function drawVector(ctx, values, { x, y, width, height, most, share = 1 }, theme) {
  const cell = width / values.length;
  for (let d = 0; d < share * values.length; d++) {
    ctx.globalAlpha = Math.sqrt(Math.min(1, Math.abs(values[d]) / (most || 1))); // so that small ones show
    ctx.fillStyle = values[d] > 0 ? theme.accent : theme.bar;
    ctx.fillRect(x + d * cell, y, cell, height);
  }
  ctx.globalAlpha = 1;
  [ctx.strokeStyle, ctx.lineWidth] = [theme.faint, 1];
  ctx.strokeRect(x, y, width, height);
}

/** At the end of a bar that leaves its axis at y: upwards, or downwards with sign 1. */
function drawArrow(ctx, x, y, theme, sign = -1) {
  ctx.fillStyle = theme.ink;
  ctx.beginPath();
  ctx.moveTo(x - 4, y + sign);
  ctx.lineTo(x + 4, y + sign);
  ctx.lineTo(x, y + 7 * sign);
  ctx.fill();
}

/**
 * The experts' numbers under their columns at height y, as many as there is room for: the marked columns in bold, and
 * every so many of the others. `nameOf` says which expert stands in a column.
 */
export function drawNumbers(ctx, { left, cell, N }, y, marked, theme, nameOf = (column) => column) {
  const used = [];
  const write = (column, font) => {
    if (used.some((other) => Math.abs(other - column) * cell <= 28)) return;
    used.push(column);
    ctx.font = font;
    ctx.fillText(nameOf(column), left + (column + 0.5) * cell, y);
  };
  ctx.fillStyle = theme.ink;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  for (const column of marked) write(column, `bold ${theme.font}`);
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((s) => s * cell >= 30) || N;
  for (let column = 0; column < N; column += step) write(column, theme.font);
}

/** The text, cut with an ellipsis so that it fits the width. */
export function fitted(ctx, text, width) {
  if (ctx.measureText(text).width <= width) return text;
  const letters = Array.from(text);
  while (letters.length && ctx.measureText(letters.join("") + "…").width > width) letters.pop();
  return letters.join("") + "…";
}

/** Number and name of each token at the left of its row, for some rows; the marked one in bold. */
export function drawNames(ctx, names, { first, last, row, left, marked }, theme) {
  ctx.textBaseline = "middle";
  ctx.fillStyle = theme.ink;
  for (let t = first; t < last; t++) {
    ctx.font = t === marked ? `bold ${theme.font}` : theme.font;
    ctx.textAlign = "left";
    ctx.fillText(t, 0, (t + 0.5) * row);
    ctx.textAlign = "right";
    ctx.fillText(fitted(ctx, names[t], left - 38), left - 8, (t + 0.5) * row);
  }
}

const [BARS_TOP, BARS] = [8, 60]; // above the bars, for one that leaves the axis; the bars
export const LOAD_HEIGHT = BARS_TOP + BARS + 22;

/** The load bars under a map's columns, some `numbered`, a line at the mean; `top` is the end of the axis in mean loads. */
export function drawLoad(ctx, geo, { load, T, N, k }, top, marked, theme, numbered = marked === null ? [] : [marked]) {
  const [{ left, cell }, mean, bottom] = [geo, (T * k) / N, BARS_TOP + BARS];
  const height = d3.scaleLinear([0, mean * top || 1], [0, BARS]).clamp(true);
  load.forEach((tokens, n) => {
    const [x, width] = [left + n * cell, cell - (cell > 6 ? 1 : 0)];
    ctx.fillStyle = theme.bar;
    ctx.fillRect(x, bottom - height(tokens), width, height(tokens));
    if (tokens > mean * top) drawArrow(ctx, x + cell / 2, BARS_TOP, theme);
    ctx.lineWidth = 1;
    if (!tokens && T) drawRing(ctx, x + cell / 2, bottom - 4, Math.max(1, Math.min(3, cell / 2 - 1)), theme);
  });
  const meanY = bottom - height(mean);
  ctx.fillStyle = theme.accent;
  ctx.fillRect(left, meanY - 1, cell * N, 2);
  ctx.font = theme.font;
  ctx.textBaseline = "middle";
  ctx.textAlign = "right";
  ctx.fillStyle = theme.ink;
  ctx.fillText(`mean ${mean.toFixed(1)}`, left - 8, Math.min(meanY, bottom - 6));
  ctx.fillText(`${top} × mean`, left - 8, 14);
  drawNumbers(ctx, geo, bottom + 12, numbered, theme);
  if (marked !== null) outline(ctx, left + marked * cell, 4, cell, BARS + 6);
}

/** A ring, filled if there is a colour to fill it with. */
export function drawRing(ctx, x, y, radius, theme, colour = "transparent") {
  [ctx.strokeStyle, ctx.fillStyle] = [theme.ink, colour];
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fill();
  ctx.stroke();
}
