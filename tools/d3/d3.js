// What the widgets take from d3 (ISC licence): build.py bundles it.
export { bisectLeft, deviation, extent, max, mean, min, range, rollup, sum } from "d3-array";
export { axisBottom, axisLeft, axisTop } from "d3-axis";
export { rgb } from "d3-color";
export { format } from "d3-format";
export { interpolateNumber } from "d3-interpolate";
export { scaleBand, scaleLinear, scaleLog, scalePow, scaleSequential, scaleSqrt } from "d3-scale";
export { interpolatePuOr, interpolateViridis } from "d3-scale-chromatic";
export { select } from "d3-selection";
export { area, curveMonotoneX, line, symbol, symbolTriangle } from "d3-shape";
export { transition } from "d3-transition";
