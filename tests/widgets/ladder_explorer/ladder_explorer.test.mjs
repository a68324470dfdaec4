// The ladder explorer's comparisons; test_ladder_explorer.py computes the vectors and runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { costWords, examine } from "../../../moe_lesson/widgets/ladder_explorer/view.js";
import { close, golden } from "../parity_harness.mjs";

golden.equal.forEach(({ state, axis, steps, alike, gap }, i) => test(`at equal cost ${i}`, () => {
  const found = examine(state).equal[axis];
  assert.deepEqual([found.steps, found.alike], [steps, alike]);
  if (gap === null) assert.equal(found.difference, null);
  else close([found.difference.mean], [gap], "difference");
}));

for (const { state, test: expected } of golden.seeds) {
  test(state.domain, () => examine(state).test.forEach(({ mean, low, high }, i) => close([mean, low, high], expected[i], "interval", 1e-5)));
}

test("costs are written with three figures and their unit", () => {
  assert.deepEqual([costWords(2.412e12, "FLOPs"), costWords(1000, "steps"), costWords(51.92, "seconds")],
    ["2.41\u00a0TFLOPs", "1,000\u00a0steps", "51.9\u00a0seconds"]);
});
