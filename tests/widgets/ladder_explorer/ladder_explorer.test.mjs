// ladder_explorer.js against vectors that Python computed; test_ladder_explorer.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, golden, moe, stubModel } from "../parity_harness.mjs";

/** An interval as Python wrote it: the bounds are there if there are several seeds. */
function same(found, expected, what) {
  if (expected === null) return assert.equal(found, null, what);
  const { mean, low, high, n } = found;
  return close(n > 1 ? [mean, low, high, n] : [mean, n], expected, what);
}

for (const { name, state, test: tested, equal, rows, heading, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    const seen = moe.examine(read);
    tested.forEach((one, i) => same(seen.test[i], one, `test ${i}`));
    assert.deepEqual(Object.keys(seen.equal), Object.keys(equal));
    for (const [axis, found] of Object.entries(equal)) {
      const mine = seen.equal[axis];
      close([mine.cost], [found.cost], `cost in ${axis}`);
      assert.deepEqual([mine.alike, mine.first, mine.steps], [found.alike, found.first, found.steps], axis);
      found.losses.forEach((loss, i) => same(mine.losses[i], loss, `loss ${i} by ${axis}`));
      same(mine.difference, found.difference, `difference by ${axis}`);
    }
    assert.deepEqual(moe.tableRows(read, seen), rows);
    assert.equal(moe.heading(read), heading);
    assert.equal(moe.describe(read, seen), summary);
    assert.deepEqual(seen.curves.map((curve) => curve.length), read.rungs.map(() => read.steps.length));
  });
}

test("names stand where Python puts them", () => {
  for (const { ends, places } of golden.places) assert.deepEqual(moe.labelPlaces(ends, 25, 6, 18, 9, 400), places);
});

test("a number is written with as many digits, and nothing is minus zero", () => {
  assert.equal(moe.rounded(1.5).length - 2, golden.digits);
  assert.equal(moe.rounded(-1e-9), "0.000");
  assert.equal(moe.rounded(1.0125 + 1e-15), moe.rounded(1.0125 - 1e-15));
});

test("the curves keep to the picture, with room for the names", () => {
  for (const width of [90, 340, 600, 850, 1170]) {
    const geo = moe.geometry(width, 140, 2);
    assert.ok(geo.left < geo.right && geo.top < geo.bottom && geo.bottom + 20 + 18 <= geo.height, `at ${width}`);
    assert.ok(width < 340 || geo.right + 20 + 140 <= width, `names at ${width}`);
  }
});

test("a point of the picture is the name written there", () => {
  const labels = [{ name: "a", x: 100, y: 20, width: 30 }, { name: "b", x: 100, y: 38, width: 50 }];
  assert.equal(moe.nameAt(labels, 120, 24), "a");
  assert.equal(moe.nameAt(labels, 150, 40), "b");
  assert.equal(moe.nameAt(labels, 150, 20), null);
  assert.equal(moe.nameAt(labels, 90, 38), null);
  assert.equal(moe.nameAt([], 0, 0), null);
});
