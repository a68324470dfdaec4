// The course's language model in the browser: a checkpoint and a text give logits, routings and what each layer adds.
// The twin of lm/model.py and moe/layers.py; a test compares them.
//
// Letters: T tokens, D model width, V vocabulary, N experts, K active experts, H hidden units of an FFN. Matrices are flat,
// row by row; weights are stored [in, out], but for those of torch's own linear layers, which are [out, in].

import { rankExperts, route } from "./routing.js";
import { vocabularyOf } from "./vocabulary.js";

// --- the checkpoint --------------------------------------------------------------------------------------------------

const READ = { F32: (bytes) => new Float32Array(bytes), F16: (bytes) => Float32Array.from(new Uint16Array(bytes), fromHalf),
  I16: (bytes) => new Int16Array(bytes) };

/** A model out of the bytes of a safetensors file, see weights.py: { config, vocabulary, weights: name -> Float32Array }. */
export function readModel(view) {
  const length = Number(view.getBigUint64(0, true));
  const text = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + 8, length));
  const { __metadata__: about, ...tensors } = JSON.parse(text);
  const read = Object.entries(tensors).map(([name, { dtype, data_offsets: [start, end] }]) => {
    if (!READ[dtype]) throw new Error(`${name} is ${dtype}; expected ${Object.keys(READ).join(" or ")}`);
    const at = view.byteOffset + 8 + length + start;
    return [name, READ[dtype](view.buffer.slice(at, at + end - start))]; // a view must begin at a multiple of its number's size
  });
  const { merges = [], ...weights } = Object.fromEntries(read);
  return { config: JSON.parse(about.config), vocabulary: vocabularyOf(merges), weights };
}

/** The number that 16 bits mean: sign, 5 bits of exponent, 10 of fraction. */
function fromHalf(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, (bits & 1023) / 1024];
  return (bits >> 15 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
}

// --- the layers ------------------------------------------------------------------------------------------------------

/** x [T, D] × w [D, N] -> [T, N]. Four rows of w at once take half the time; pairs in these loops, each a new list, twice it. */
export function product(x, w, D, N) {
  const out = new Float32Array((x.length / D) * N);
  for (let t = 0; t < out.length / N; t++) {
    let d = 0;
    for (; d + 3 < D; d += 4) {
      const at = d * N;
      const a = x[t * D + d];
      const b = x[t * D + d + 1];
      const c = x[t * D + d + 2];
      const e = x[t * D + d + 3];
      for (let n = 0; n < N; n++) {
        out[t * N + n] += a * w[at + n] + b * w[at + N + n] + c * w[at + 2 * N + n] + e * w[at + 3 * N + n];
      }
    }
    for (; d < D; d++) for (let n = 0; n < N; n++) out[t * N + n] += x[t * D + d] * w[d * N + n];
  }
  return out;
}

/** A matrix [A, B] turned into [B, A]. */
function turned(w, A, B) {
  const out = new Float32Array(w.length);
  for (let a = 0; a < A; a++) for (let b = 0; b < B; b++) out[b * A + a] = w[a * B + b];
  return out;
}

/** Every token's vector divided by its root mean square, times a weight for each channel. */
export function rmsNorm(x, weight) {
  const D = weight.length;
  const out = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += D) {
    let squares = 0;
    for (let d = 0; d < D; d++) squares += x[at + d] ** 2;
    const scale = 1 / Math.sqrt(squares / D + 2 ** -23); // torch's epsilon
    for (let d = 0; d < D; d++) out[at + d] = x[at + d] * scale * weight[d];
  }
  return out;
}

/** Turn pairs of channels of one head by an angle that grows with the position (arXiv 2104.09864, eq. 34), in place. */
function rotate(x, at, size, position) {
  const half = size / 2;
  for (let i = 0; i < half; i++) {
    const angle = position * 10000 ** (-i / half);
    const [cos, sin, first, second] = [Math.cos(angle), Math.sin(angle), x[at + i], x[at + half + i]];
    x[at + i] = first * cos - second * sin;
    x[at + half + i] = first * sin + second * cos;
  }
}

/** Causal self-attention with rotary positions: [T, D] -> [T, D]. */
function attention(x, T, D, heads, qkvWeight, outWeight) {
  const [qkv, size] = [product(x, turned(qkvWeight, 3 * D, D), D, 3 * D), D / heads];
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < heads; h++) for (const part of [0, D]) rotate(qkv, t * 3 * D + part + h * size, size, t);
  }
  const [mixed, scores] = [new Float32Array(T * D), new Float64Array(T)];
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < T; t++) {
      const q = t * 3 * D + h * size;
      let top = -Infinity;
      for (let s = 0; s <= t; s++) {
        const k = s * 3 * D + D + h * size;
        let dot = 0;
        for (let i = 0; i < size; i++) dot += qkv[q + i] * qkv[k + i];
        scores[s] = dot / Math.sqrt(size);
        top = Math.max(top, scores[s]);
      }
      let total = 0;
      for (let s = 0; s <= t; s++) total += scores[s] = Math.exp(scores[s] - top);
      for (let s = 0; s <= t; s++) {
        const v = s * 3 * D + 2 * D + h * size;
        const weight = scores[s] / total;
        for (let i = 0; i < size; i++) mixed[t * D + h * size + i] += weight * qkv[v + i];
      }
    }
  }
  return product(mixed, turned(outWeight, D, D), D, D);
}

/** One feed-forward network: (silu(x W_gate) · (x W_up)) W_out, [T, D] -> [T, D]. */
export function ffn(x, wIn, wOut, D) {
  const H = wOut.length / D;
  const both = product(x, wIn, D, 2 * H);
  const hidden = new Float32Array(both.length / 2);
  for (let i = 0; i < hidden.length; i++) {
    const at = Math.floor(i / H) * 2 * H + (i % H);
    hidden[i] = (both[at] / (1 + Math.exp(-both[at]))) * both[at + H];
  }
  return product(hidden, wOut, H, D);
}

/** What expert n of N answers to some tokens: [T, D] -> [T, D]. */
export function answer(x, n, N, wIn, wOut, D) {
  const own = (w) => w.subarray((n * w.length) / N, ((n + 1) * w.length) / N);
  return ffn(x, own(wIn), own(wOut), D);
}

/** The sum of a token's experts, each times its weight: [T, D]; `routed` is what `route` gives. */
function experts(x, routed, wIn, wOut, D) {
  const { T, N, k, ids, weights } = routed;
  const [y, called] = [new Float32Array(T * D), Array.from({ length: N }, () => [])];
  ids.forEach((n, i) => called[n].push(i));
  called.forEach((places, n) => { // one expert after the other, with all its tokens: a call for each would take three times as long
    const rows = new Float32Array(places.length * D);
    const start = (i) => Math.floor(i / k) * D; // of its token
    places.forEach((i, row) => rows.set(x.subarray(start(i), start(i) + D), row * D));
    const out = answer(rows, n, N, wIn, wOut, D);
    places.forEach((i, row) => { for (let d = 0; d < D; d++) y[start(i) + d] += weights[i] * out[row * D + d]; });
  });
  return y;
}

/**
 * What a model does with a text's tokens: { logits [T, V], computed when they are asked for, layers }, of each MoE layer { block:
 * its place, stream: the residual stream before it [T, D], x: what its FFN sees of that [T, D], logits [T, N], routed: what
 * `route` gives, experts and shared: what these add to the stream [T, D] }.
 */
export function forward({ config, weights }, ids) {
  const { width: D, heads, vocabulary: V, ffn: recipes } = config;
  const [T, layers, embedding] = [ids.length, [], weights["embedding.weight"]];
  const x = new Float32Array(T * D);
  ids.forEach((id, t) => x.set(embedding.subarray(id * D, (id + 1) * D), t * D));
  const add = (part) => part.forEach((value, i) => { x[i] += value; });
  recipes.forEach((recipe, i) => {
    const of = (name) => weights[`blocks.${i}.${name}`];
    add(attention(rmsNorm(x, of("attention_norm.weight")), T, D, heads, of("attention.qkv.weight"), of("attention.out.weight")));
    const seen = rmsNorm(x, of("ffn_norm.weight"));
    if (of("ffn.w_in")) return add(ffn(seen, of("ffn.w_in"), of("ffn.w_out"), D));
    const layer = { block: i, stream: x.slice(), x: seen, logits: product(seen, of("ffn.router.weight"), D, recipe.num_experts) };
    layer.routed = route(rankExperts(layer.logits, T, recipe.num_experts, gateOf(recipe, of("ffn.router.bias"))), recipe.top_k);
    layer.experts = experts(seen, layer.routed, of("ffn.experts.w_in"), of("ffn.experts.w_out"), D);
    add(layer.experts);
    if (of("ffn.shared.w_in")) add(layer.shared = ffn(seen, of("ffn.shared.w_in"), of("ffn.shared.w_out"), D));
    return layers.push(layer);
  });
  return { layers, get logits() { return product(rmsNorm(x, weights["norm.weight"]), turned(weights["head.weight"], V, D), D, V); } };
}

/** How a recipe's router turns logits into weights. */
export function gateOf({ score, renormalise, scale, top_k: k }, bias) {
  return { score, renormalise: renormalise ?? k > 1, scale, bias };
}
