// router_microscope.js against vectors that Python computed; test_router_microscope.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, ids, weights, probabilities, counts, others, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    const seen = moe.examine(read);
    assert.deepEqual(seen.ids, ids, "expert ids");
    close(Array.from(seen.weights), weights, "weights");
    close(Array.from(seen.probabilities), probabilities, "probabilities");
    assert.deepEqual(Array.from(seen.counts), counts, "how often each is chosen");
    assert.equal(seen.others, others, "draws that choose others");
    assert.equal(moe.describe(read, seen, read.locked_expert), summary);
  });
}

test("both sides know the same orders of steps and as many draws", () => {
  assert.deepEqual(Object.keys(moe.ORDERS), golden.orders);
  assert.equal(moe.DRAWS, golden.draws);
});

test("a point of the picture is the column drawn there, and the cursor stays inside", () => {
  const geo = moe.geometry(1150, 62);
  for (const column of [0, 30, 61]) assert.equal(moe.columnAt(geo, geo.left + (column + 0.5) * geo.cell), column);
  assert.deepEqual([moe.columnAt(geo, 2), moe.columnAt(geo, 1149)], [null, null]);
  assert.deepEqual(["ArrowLeft", "ArrowRight", "PageDown", "End", "Home", "q"].map((key) => moe.moved(0, key, 4)),
    [0, 1, 3, 3, 0, null]);
});

test("experts stand by number, or the largest logit without noise first", () => {
  const seen = { quiet: Float64Array.of(1, -Infinity, 3, 1) };
  assert.deepEqual(moe.columnsOf({ by_logit: false, num_experts: 4 }, seen), [0, 1, 2, 3]);
  assert.deepEqual(moe.columnsOf({ by_logit: true, num_experts: 4 }, seen), [2, 0, 3, 1]);
});

test("the scale has two to six round numbers within its limits", () => {
  const spans = Array.from({ length: 200 }, (_, i) => [-0.47 * 1.07 ** i, 0.41 * 1.07 ** i]);
  for (const limits of [...spans, [-5.9, 8.1], [0, 1], [-0.003, 0.001], [49, 56], [-1e5, 3e5], [-1e-5, 9e-5]]) {
    const ticks = moe.niceTicks(limits);
    assert.ok(ticks.length >= 2 && ticks.length <= 6, `${limits}: ${ticks}`);
    assert.ok(ticks.every((tick) => tick >= limits[0] && tick <= limits[1]), `${limits}: ${ticks}`);
  }
});
