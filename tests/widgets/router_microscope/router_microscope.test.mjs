// The microscope's mathematics against the package's: test_router_microscope.py computes the vectors and runs this.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decide, examine, gapAtCut } from "../../../moe_lesson/widgets/router_microscope/view.js";
import { close, golden } from "../parity_harness.mjs";

for (const { name, state, logits, draws, ids, weights, counts, others } of golden.cases) {
  test(name, () => {
    const seen = examine(state, Float64Array.from(logits, (logit) => logit ?? -Infinity), Float64Array.from(draws));
    assert.deepEqual(seen.ids, ids);
    close(Array.from(seen.weights).sort((a, b) => b - a), weights, "weights", 1e-9);
    assert.deepEqual([Array.from(seen.counts), seen.others], [counts, others]);
  });
}

test("ties go to the lower id", () => assert.deepEqual(decide(new Float64Array([1, 2, 2, 2]), 2, 1, "top-k, softmax").ids, [1, 2]));

test("temperature changes weights and never the choice", () => {
  const logits = Float64Array.from([0.3, 2, -1, 1.9, 0]);
  const seen = [0.1, 1, 10].map((temperature) => decide(logits, 2, temperature, "softmax, top-k"));
  assert.equal(new Set(seen.map(({ ids }) => String(ids))).size, 1);
  assert.equal(new Set(seen.map((one) => one.weights[0].toFixed(6))).size, 3);
});

test("the gap at the cut", () => {
  close([gapAtCut([3, 1, 2], 1)], [1], "gap");
  assert.equal(gapAtCut([3, 1, 2], 3), Infinity);
});
