// router_game.js against vectors that Python computed; test_router_game.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, answers, score, rows, history, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    assert.deepEqual([read.answers, read.score], [answers, score]);
    assert.deepEqual(moe.tableRows(read), rows);
    assert.deepEqual(moe.historyRows(read), history);
    assert.equal(moe.describe(read, read.locked_token), summary);
  });
}

test("routers and columns have the same names on both sides", () => {
  assert.deepEqual(moe.NAMES, golden.names.names);
  assert.deepEqual([moe.COLUMNS, moe.HISTORY], [golden.names.columns, golden.names.history]);
});

test("a point is in the row drawn there, maps do not overlap, and every name has room in its lane", () => {
  for (const [T, N] of [[2, 1], [17, 16], [48, 64]]) {
    const geo = moe.geometry(1160, T, N);
    for (let token = 0; token < T; token++) {
      const { y, h } = moe.rowOf(geo, token);
      assert.equal(moe.tokenAt(geo, y + h / 2), token);
      if (token) assert.equal(y, moe.rowOf(geo, token - 1).y + moe.rowOf(geo, token - 1).h);
    }
    assert.equal(moe.tokenAt(geo, 301), null);
    assert.ok(geo.lanes * geo.row >= 15);
    [1, 2].forEach((i) => assert.ok(moe.columnOf(geo, i - 1, N - 1).x + moe.columnOf(geo, i - 1, N - 1).w + 9 < geo.lefts[i]));
    assert.ok(moe.columnOf(geo, 2, N - 1).x + moe.columnOf(geo, 2, N - 1).w <= 1160);
    assert.equal(geo.height, moe.geometry(500, 5, 3).height);
  }
});
