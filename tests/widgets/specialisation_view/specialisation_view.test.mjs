// specialisation_view.js against vectors that Python computed; test_specialisation_view.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, columns, strongest, top, above, counts, badge, title, rows, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    const seen = moe.examine(read);
    assert.deepEqual(seen.columns, columns);
    seen.columns.forEach((expert, column) => assert.equal(seen.places[expert], column));
    close(seen.one.strongest, strongest, "strongest");
    close(seen.one.bands.map(([end]) => end), top, "top");
    assert.deepEqual(seen.one.above, above);
    assert.deepEqual(moe.counts(read, seen), counts);
    assert.deepEqual([moe.badge(read), moe.tableTitle(read)], [badge, title]);
    assert.deepEqual(moe.tableRows(read, seen), rows);
    assert.equal(moe.describe(read, seen, read.locked_expert), summary);
  });
}

test("names, hues and ticks are the same on both sides", () => {
  const { columns, nulls, orders, hues, ticks, short } = golden.names;
  assert.deepEqual([moe.COLUMNS, moe.NULLS, moe.ORDERS, moe.HUES], [columns, nulls, orders, hues]);
  for (const [m, expected] of Object.entries(ticks)) assert.deepEqual(moe.ticksOf(Number(m)), expected);
  for (const [size, words] of Object.entries(short)) assert.equal(moe.short(Number(size)), words);
});

test("a point is in the column drawn there, and a lift has its height whatever the state", () => {
  for (const N of [1, 16, 62, 200]) {
    const geo = moe.geometry(700, N);
    for (let n = 0; n < N; n++) assert.equal(moe.columnAt(geo, geo.left + (n + 0.5) * geo.cell), n);
    assert.deepEqual([moe.columnAt(geo, geo.left - 1), moe.columnAt(geo, 699)], [null, null]);
  }
  const heights = [1, 2, 4].map((lift) => moe.heightOf(lift, 4));
  assert.ok(heights[0] > heights[2] && Math.abs(heights[0] - 2 * heights[1] + heights[2]) < 1e-9); // a doubling is one step
});
