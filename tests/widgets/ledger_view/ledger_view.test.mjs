// The ledger's arithmetic against the package's: test_ledger_view.py computes the vectors and runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { amount, axisTop, modelCost, partsOf, shareInWords } from "../../../moe_lesson/widgets/ledger_view/view.js";
import { golden } from "../parity_harness.mjs";

for (const { name, sizes, parts, cost } of golden.cases) {
  test(name, () => {
    assert.deepEqual(partsOf(sizes), parts);
    assert.deepEqual(modelCost(sizes), cost);
  });
}

test("numbers keep what matters", () => {
  assert.deepEqual([0, 663616, 999999, 1000000, 16375728128, 19800000000000].map((n) => amount(n)),
    ["0", "663,616", "999,999", "1.00 M", "16.4 B", "19.8 T"]);
  assert.equal(amount(6.18e9, "FLOPs"), "6.18 GFLOPs");
  assert.deepEqual([0, 1, 125, 995, 1000].map((part) => shareInWords(part, 1000)), ["0%", "under 1%", "13%", "over 99%", "100%"]);
});

test("the axis stands still until a bar leaves it", () => {
  const [start, of] = [{ total: 139584, flops: 376832 }, (total, flops = 0) => ({ total, flops })];
  assert.deepEqual([axisTop(start), axisTop(start, of(200000)), axisTop(start, of(10))], [200000, 200000, 200000]);
  assert.deepEqual([axisTop(start, of(200001)), axisTop(start, of(1, 1600000)), axisTop(start, start, of(4e6))], [8e5, 8e5, 128e5]);
});

test("every start fills its axis", () => {
  for (const { cost } of golden.cases.slice(0, 5)) {
    const filled = Math.max(cost.total, cost.flops / 2) / axisTop(cost);
    assert.ok(filled >= 0.5 && filled <= 1);
  }
});
