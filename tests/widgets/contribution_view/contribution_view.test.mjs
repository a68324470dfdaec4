// contribution_view.js against vectors that Python computed; test_contribution_view.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, columns, share, null_share, ids, rows, title, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    const seen = moe.examine(read);
    assert.deepEqual(seen.columns, columns, "columns");
    seen.columns.forEach((token, column) => assert.equal(seen.places[token], column));
    close(seen.one.share, share, "share");
    close(seen.none.share, null_share, "untrained share");
    assert.deepEqual(Array.from(seen.ids), ids, "experts");
    assert.deepEqual(moe.tableRows(read, seen), rows);
    assert.equal(moe.tableTitle(read), title);
    assert.equal(moe.describe(read, seen, read.locked_token), summary);
  });
}

test("controls, kinds and columns have the same names on both sides", () => {
  assert.deepEqual(moe.ORDERS, golden.names.orders);
  assert.deepEqual(moe.KINDS, golden.names.kinds);
  assert.deepEqual(moe.COLUMNS, golden.names.columns);
});

test("a point is in the column drawn there, columns stand without a gap, and the cursor stays inside", () => {
  for (const T of [1, 7, 78, 128, 300]) {
    const geo = moe.geometry(700, T, { shared: 2, routed: 9 });
    for (let column = 0; column < T; column++) {
      const { x, w } = moe.columnOf(geo, column);
      assert.ok(w >= 1);
      if (w >= 2) assert.equal(moe.columnAt(geo, x + w / 2), column);
      if (column) assert.ok(x - moe.columnOf(geo, column - 1).x - moe.columnOf(geo, column - 1).w <= 1);
    }
    assert.deepEqual([moe.columnAt(geo, geo.left - 2), moe.columnAt(geo, 699)], [null, null]);
  }
  assert.deepEqual(["ArrowLeft", "ArrowRight", "PageDown", "End", "Home", "q"].map((key) => moe.moved(0, key, 4)),
    [0, 1, 3, 3, 0, null]);
});

test("up and down have one scale, and the panels do not overlap", () => {
  for (const [shared, routed] of [[1, 1], [0.01, 30], [30, 0.01]]) {
    const geo = moe.geometry(700, 50, { shared, routed });
    const [up, down] = [geo.floor - geo.top, geo.bottom - geo.ceiling];
    assert.ok(Math.abs(up / Math.sqrt(routed) - down / Math.sqrt(shared)) < 1e-6);
    assert.ok(geo.ceiling > geo.floor && geo.share.top > geo.bottom && geo.cosine.top > geo.share.bottom);
    assert.ok(geo.height >= geo.cosine.bottom);
    assert.equal(geo.height, moe.geometry(300, 5, { shared: 4, routed: 2 }).height);
  }
});
