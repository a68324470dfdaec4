// The race reads its runs; test_balancing_race.py computes the vectors and runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { examine, nextPosition, smoothed } from "../../../moe_lesson/widgets/balancing_race/view.js";
import { close, golden } from "../parity_harness.mjs";

const [loads, losses] = [Float32Array.from(golden.loads), Float32Array.from(golden.losses)];
for (const { state, ...expected } of golden.cases) {
  test(`step ${state.step}, layer ${state.layer}, seed ${state.seed}`, () => {
    const seen = examine(state, loads, losses);
    assert.deepEqual(seen.loads.map((load) => Array.from(load)), expected.loads);
    seen.violations.forEach((violations, m) => close(violations, expected.violations[m], "MaxVio", 1e-9));
  });
}

test("a loss is averaged with its neighbours as far as there are any", () => {
  assert.deepEqual(smoothed([3, 0, 0, 6, 0, 0]), [1, 2.25, 1.8, 1.2, 1.5, 2]);
  assert.deepEqual(smoothed([7]), [7]);
});

test("play goes on by a step, or in six jumps", () => {
  assert.deepEqual([nextPosition(3, 44, false), nextPosition(43, 44, false), nextPosition(0, 44, true)], [4, 43, 8]);
});
