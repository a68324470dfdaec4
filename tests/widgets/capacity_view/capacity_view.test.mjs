// Who is dropped, against the package: test_capacity_view.py computes the vectors and runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { capacityFor, dispatch, limitsOf } from "../../../moe_lesson/widgets/capacity_view/view.js";
import { close, golden } from "../parity_harness.mjs";

for (const { name, queue, factor, by, room, kept, dropped, stranded, late, weight, empty, ...choices } of golden.cases) {
  test(name, () => {
    assert.equal(capacityFor(choices, factor), room);
    const seen = dispatch(choices, queue, room, by);
    assert.deepEqual(Array.from(seen.kept), kept);
    assert.deepEqual([seen.dropped, seen.stranded, seen.late, seen.empty], [dropped, stranded, late, empty]);
    close([seen.weightDropped], [weight], "weight dropped", 1e-6);
  });
}

test("one end of the scales for all layers and factors", () => {
  const { layers, factors, weight, load } = golden.limits;
  assert.deepEqual(limitsOf(layers, factors), { weight, digits: 2, load });
  const quiet = layers.map(({ weights, ...layer }) => ({ ...layer, weights: weights.map((one) => one / 16) }));
  assert.equal(limitsOf(quiet, factors).digits, 3); // a router with a small gate scale
});
