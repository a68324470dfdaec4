// The mathematics of routing. Letters: T tokens, N experts, K active experts. Matrices are flat, row by row:
// entry (t, n) is at t * N + n.

import { d3 } from "./d3.js";
import { weighed } from "./words.js";

/** In how many ways k of n can be chosen. */
export function combinations(n, k) {
  return d3.range(k).reduce((ways, i) => (ways * (n - i)) / (i + 1), 1);
}

export function softmax(row) {
  const top = row.reduce((a, b) => Math.max(a, b));
  const powers = new Float64Array(row).map((x) => Math.exp(x - top));
  const total = d3.sum(powers);
  return powers.map((power) => power / total);
}

export function sigmoid(row) {
  return new Float64Array(row).map((x) => 1 / (1 + Math.exp(-x)));
}

export const SCORES = { softmax, sigmoid };

/** Up to a number that all experts of a token share, which a sum divides out: of a softmax the logits themselves. */
export const LOG_SCORES = { softmax: (x) => x, sigmoid: (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x))) };

/** All indices, the largest value first; a tie goes to the lower index. */
export function ranked(values) {
  const order = Array.from(values, (_, i) => i);
  return order.sort((a, b) => values[b] - values[a] || a - b);
}

export function topK(values, k) {
  return ranked(values).slice(0, k);
}

/** Every token's experts, best first: logits [T * N] -> { T, N, gate, logits, scores [T * N], order [T * N] }. K cuts it. */
export function rankExperts(logits, T, N, gate) {
  const ranking = { T, N, gate, logits, scores: new Float64Array(T * N), order: new Int32Array(T * N) };
  for (let t = 0; t < T; t++) {
    const scores = SCORES[gate.score](logits.subarray(t * N, (t + 1) * N));
    const biased = gate.bias ? scores.map((s, n) => s + gate.bias[n]) : scores; // to choose, never to weigh
    ranking.scores.set(scores, t * N);
    ranking.order.set(ranked(biased), t * N);
  }
  return ranking;
}

/** The k best experts of every token: { T, N, k, ids [T * k], weights [T * k], load [N] }. */
export function route({ T, N, gate, logits, scores, order }, k) {
  const routed = { T, N, k, ids: new Int32Array(T * k), weights: new Float64Array(T * k), load: new Int32Array(N) };
  for (let t = 0; t < T; t++) {
    const ids = order.subarray(t * N, t * N + k);
    const weights = gate.renormalise
      ? softmax(Float64Array.from(ids, (n) => LOG_SCORES[gate.score](logits[t * N + n])))
      : Float64Array.from(ids, (n) => scores[t * N + n]);
    routed.ids.set(ids, t * k);
    routed.weights.set(weights.map((weight) => weight * gate.scale), t * k);
    for (const n of ids) routed.load[n] += 1;
  }
  return routed;
}

/** The experts that token t chose, best first: [k]. */
export function chosenBy(routed, t) {
  return routed.ids.subarray(t * routed.k, (t + 1) * routed.k);
}

/** The same in words, each with its weight: ["5 (0.31)", …]. */
export function chosenWords(routed, t) {
  return Array.from(chosenBy(routed, t), (n, i) => `${n} (${weighed(routed.weights[t * routed.k + i])})`);
}

/** The weight that token t gives expert n, or null where it did not choose the expert. */
export function weightOf(routed, t, n) {
  for (let i = t * routed.k; i < (t + 1) * routed.k; i++) if (routed.ids[i] === n) return routed.weights[i];
  return null;
}

/** How many experts each token has in common with token t: [T]. */
export function inCommon(routed, t) {
  const mine = new Set(chosenBy(routed, t));
  const counts = new Array(routed.T).fill(0);
  routed.ids.forEach((n, i) => { if (mine.has(n)) counts[Math.floor(i / routed.k)] += 1; });
  return counts;
}

/** Tokens per expert if all experts had the same load. */
export function meanLoad(routed) {
  return (routed.T * routed.k) / routed.N;
}

/** float32 numbers out of what a comm delivers. */
export function floats(view) {
  return numbers(view, Float32Array);
}

/** What `route` gave of each layer, but for the load, as `packed_choices` in gates.py sends it. */
export function routedLayers({ tokens: { length: T }, sizes, top_k: k, expert_ids, expert_weights }) {
  const [ids, weights] = [numbers(expert_ids, Int32Array), numbers(expert_weights, Float64Array)];
  const own = (all, layer) => all.subarray(layer * T * k, (layer + 1) * T * k);
  return sizes.map((N, layer) => ({ T, N, k, ids: own(ids, layer), weights: own(weights, layer) }));
}

/** An array of numbers of one type out of what a comm delivers: a DataView that may start at any byte. */
export function numbers(view, Type) {
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}
