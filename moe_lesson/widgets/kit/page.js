// The parts of a widget's page: elements, stages, the theme's colours.

import { DESIGN } from "./design.js";

/** An element with a class and text. Text is data: it never becomes HTML. */
export function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

export function makeButton(words = "") {
  return Object.assign(make("button", "moe-button", words), { type: "button" });
}

/** A canvas that a screen reader passes over: what it shows stands elsewhere in words. */
export function makeCanvas(className = "moe-steps") {
  const canvas = make("canvas", className);
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}

/** Let an element have the keyboard: a screen reader hands it every key, and reads its label. */
export function takeKeys(node, label) {
  node.tabIndex = 0;
  node.setAttribute("role", "application");
  node.setAttribute("aria-label", label);
}

/** A picture to move about in with mouse and keyboard: { stage, canvas }. */
export function makeStage(label) {
  const [stage, canvas] = [make("div", "moe-stage"), makeCanvas()];
  takeKeys(stage, label);
  stage.append(canvas);
  return { stage, canvas };
}

/** The colours of the page around the widget, as the stylesheet resolved them. */
export function themeOf(node) {
  const { color: ink, borderTopColor: faint, backgroundColor: paper, fontSize, fontFamily } = getComputedStyle(node);
  const { bar, accent } = DESIGN; // seen on white and on black
  return { ink, faint, paper, bar, accent, font: `${fontSize} ${fontFamily}` };
}

/** Make text in an element current, and leave it alone if it is: a live region speaks at every touch. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
