// redundancy_lens.js against vectors that Python computed; test_redundancy_lens.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, groups, rows, edges, slider, title, numbers, curve, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    const seen = moe.examine(read);
    assert.deepEqual(seen.groups, groups, "groups");
    assert.deepEqual(seen.rows, rows, "who stands in which row");
    assert.deepEqual(seen.edges, edges, "outlines");
    assert.equal(moe.mergesWords(read, seen.now), slider);
    assert.deepEqual([moe.tableTitle(read, seen.now), moe.lossTitle(read)], title);
    assert.deepEqual(moe.tableRows(read), numbers);
    assert.equal(moe.describe(read, seen, read.pair), summary);
    const geo = moe.curveGeometry(600, read.axes, read.control.mean.length - 1);
    const heights = curve.map(([loss]) => (geo.bottom - geo.yOf(loss)) / (geo.bottom - geo.top));
    close(heights, curve.map(([, share]) => share), "height");
    assert.ok(curve.every(([, share]) => share > 0 && share < 1), "every loss is on the axis");
  });
}

test("both sides name the columns alike", () => assert.deepEqual(moe.COLUMNS, golden.columns));

test("the colours are matplotlib's, within a rounding, and the limits are -1 and 1", () => {
  const parts = (hex) => hex.slice(1).match(/../g).map((pair) => parseInt(pair, 16));
  assert.equal(moe.DIVERGING.length, golden.diverging.length);
  golden.diverging.forEach((hex, i) => parts(hex).forEach((value, c) => (
    assert.ok(Math.abs(value - parts(moe.DIVERGING[i])[c]) <= 1, `${i}: ${hex}, not ${moe.DIVERGING[i]}`))));
  assert.deepEqual([-1, 1, 0].map(moe.similarityColour), [0, 255, 128].map((i) => moe.DIVERGING[i]));
});

test("a point of the map is the cell drawn there", () => {
  for (const [width, N] of [[436, 16], [300, 64], [900, 2]]) {
    const geo = moe.mapGeometry(width, N);
    assert.ok(geo.width <= width && geo.cell * N <= 396, "it fits");
    for (const [row, column] of [[0, 0], [1, 0], [0, N - 1], [N - 1, N - 1]]) {
      assert.deepEqual(moe.cellAt(geo, geo.left + (column + 0.5) * geo.cell, geo.top + (row + 0.5) * geo.cell), { row, column });
    }
    assert.deepEqual([moe.cellAt(geo, 3, 50), moe.cellAt(geo, 50, 1), moe.cellAt(geo, geo.width + 1, 50)], [null, null, null]);
    assert.equal(moe.cellAt(geo, 50, geo.height - 2), null);
  }
});

test("the cursor stays inside the map", () => {
  const from = (row, column, key) => moe.movedOn({ row, column }, key, 4, 4);
  assert.deepEqual(from(0, 0, "ArrowUp"), { row: 0, column: 0 });
  assert.deepEqual(from(1, 3, "ArrowRight"), { row: 1, column: 3 });
  assert.deepEqual(from(1, 2, "ArrowLeft"), { row: 1, column: 1 });
  assert.deepEqual(from(1, 2, "PageDown"), { row: 3, column: 2 });
  assert.deepEqual(from(1, 2, "Home"), { row: 1, column: 0 });
  assert.deepEqual(from(1, 2, "End"), { row: 1, column: 3 });
  assert.equal(from(0, 0, "q"), null);
});

test("merges run from one side of the curve to the other", () => {
  const geo = moe.curveGeometry(600, golden.cases[0].state.axes, 15);
  assert.deepEqual([geo.xOf(0), geo.xOf(15)], [geo.left, geo.right]);
});
