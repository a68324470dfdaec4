// What the widgets take from d3 (ISC licence): build.py bundles it. The last one gives selections their transitions.
export { deviation, extent, max, mean, median, min, range, rollup, sum } from "d3-array";
export { axisBottom, axisLeft } from "d3-axis";
export { rgb } from "d3-color";
export { format } from "d3-format";
export { scaleBand, scaleLinear, scaleLog, scaleSqrt } from "d3-scale";
export { interpolatePuOr, interpolateViridis } from "d3-scale-chromatic";
export { select } from "d3-selection";
export { area, curveStepAfter, line } from "d3-shape";
export { transition } from "d3-transition";
