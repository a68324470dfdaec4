// What the learner does, what Python hears of it, and when the page draws.

/** Call back when the page turns dark or light; returns how to stop. */
export function onTheme(callback) {
  const media = matchMedia("(prefers-color-scheme: dark)");
  const watch = new MutationObserver(callback);
  media.addEventListener("change", callback);
  for (const node of [document.documentElement, document.body]) {
    watch.observe(node, { attributeFilter: ["class", "theme", "data-jp-theme-name", "data-vscode-theme-kind"] });
  }
  return () => { media.removeEventListener("change", callback); watch.disconnect(); };
}

/** How long a change of the picture takes, in milliseconds: none for whoever asked for less motion. */
export function motion() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 250;
}

/** Call back when the element's size changes, and once it is on the page; returns how to stop. */
export function onSize(node, callback) {
  const watch = new ResizeObserver(callback);
  watch.observe(node);
  return () => watch.disconnect();
}

/** Call `draw` once before the next frame, however often it is asked for. */
export function oncePerFrame(draw) {
  let asked = 0;
  const ask = () => { asked = asked || requestAnimationFrame(() => { asked = 0; draw(); }); };
  return { ask, cancel: () => cancelAnimationFrame(asked) };
}

/** Listen to an element; returns how to stop. */
export function on(node, event, callback) {
  node.addEventListener(event, callback);
  return () => node.removeEventListener(event, callback);
}

/** Listen to a trait of the Python widget; returns how to stop. */
export function onTrait(model, name, callback) {
  model.on(`change:${name}`, callback);
  return () => model.off(`change:${name}`, callback);
}

const PATIENCE = 4000; // milliseconds

/** Tell what may be wrong, once Python has not answered for a while; returns the timer, to be cleared when it has. */
export function onSilence(tell) {
  return setTimeout(() => tell("Not kept: Python has not answered. If it is busy, wait; if the kernel was restarted, run this cell "
    + "again."), PATIENCE);
}

/** Set traits of the Python widget and send them. */
export function save(model, traits) {
  change(model, traits);
  model.save_changes();
}

/** Set traits here alone: what listens to them follows, Python does not hear yet. */
export function change(model, traits) {
  for (const [name, value] of Object.entries(traits)) model.set(name, value);
}

/** Do something on Escape, wherever in an element it is pressed; returns how to stop. */
export function onEscape(root, action) {
  return on(root, "keydown", (event) => { if (event.key === "Escape") taken(event, action); });
}

/** Do something with a key that nobody else may get: neither the page's scrolling nor the notebook's shortcuts. */
export function taken(event, action) {
  event.preventDefault();
  event.stopPropagation();
  action();
}

/**
 * Keep JupyterLab's shortcuts from the keys pressed inside an element. JupyterLab looks at the focused element first and
 * at its parents later, so the mark has to stand on whatever has the focus: a range input would lose its arrow keys.
 */
export function keepKeys(root) {
  const keep = ({ target }) => { target.dataset.lmSuppressShortcuts = "true"; };
  root.addEventListener("focusin", keep);
  // While Ctrl or ⌘ is held, keys are JupyterLab's (to save, to run the cell), but where one writes: there they are the field's.
  root.addEventListener("keydown", ({ key, target }) => {
    if ((key === "Control" || key === "Meta") && target.type !== "text") delete target.dataset.lmSuppressShortcuts;
  });
  root.addEventListener("keyup", (event) => { if (!event.ctrlKey && !event.metaKey) keep(event); });
}

/** In which of some places of one size, side by side, a distance from the edge of the first ends; null beside them. */
export function placeWithin(distance, size, places) {
  const place = Math.floor(distance / size);
  return place >= 0 && place < places ? place : null;
}

/** Scroll a box, not the page, until what begins and ends so far from its top is seen. */
function scrolledTo(box, begin, end) {
  box.scrollTop = Math.min(Math.max(box.scrollTop, end - box.clientHeight), begin);
}

/** Scroll a box, not the page, until one of its rows is seen. */
export function reveal(box, row, height) {
  scrolledTo(box, row * height, (row + 1) * height);
}

/** Give an element in a box the keyboard, and scroll the box, not the page, until it is seen. */
export function focusIn(box, node) {
  node.focus({ preventScroll: true });
  const [{ top }, { top: begin, bottom: end }] = [box.getBoundingClientRect(), node.getBoundingClientRect()];
  scrolledTo(box, begin - top + box.scrollTop - 4, end - top + box.scrollTop + 4); // with its outline
}

/** Where a key leads from one of some places in a row; null for a key that leads nowhere, or where there is no place. */
export function moved(place, key, places) {
  const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -places,
    End: places };
  return key in steps && places ? Math.min(Math.max(place + steps[key], 0), places - 1) : null;
}

/** Where a key leads from a cell { row, column } of a map; null for a key that leads nowhere, or where there is no cell. */
export function movedOn({ row, column }, key, rows, columns) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0],
    PageDown: [10, 0], Home: [0, -columns], End: [0, columns] };
  if (!(key in steps) || !rows) return null;
  const within = (value, size) => Math.min(Math.max(value, 0), size - 1);
  return { row: within(row + steps[key][0], rows), column: within(column + steps[key][1], columns) };
}
