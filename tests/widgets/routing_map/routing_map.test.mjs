// common.js and routing_map.js against vectors that Python computed; test_routing_map_parity.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, ids, weights, load, entropy, common, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    const routed = moe.routeLayer(read, read.router, read.layer, read.k);
    assert.deepEqual(Array.from(routed.ids), ids, "expert ids");
    close(Array.from(routed.weights), weights, "weights");
    assert.deepEqual(Array.from(routed.load), load, "load");
    close([moe.loadEntropy(routed.load)], [entropy], "entropy");
    if (routed.T) assert.deepEqual(moe.inCommon(routed, 0), common, "experts in common");
    assert.equal(moe.describe(read, routed, read.locked_token, read.locked_expert), summary);
  });
}

test("cividis is matplotlib's", () => assert.deepEqual(moe.CIVIDIS, golden.cividis));

test("colours stay within the table at the ends of the scale", () => {
  assert.equal(moe.weightColour(0, 1), moe.CIVIDIS[0]);
  assert.equal(moe.weightColour(2.5, 2.5), moe.CIVIDIS[255]);
  assert.equal(moe.weightColour(9, 1), moe.CIVIDIS[255]);
});

test("every colour of the map carries readable ink", () => {
  const light = (hex) => hex.slice(1).match(/../g).map((pair) => parseInt(pair, 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((total, c, i) => total + c * [0.2126, 0.7152, 0.0722][i], 0);
  for (const hex of moe.CIVIDIS) {
    const [a, b] = [light(hex), light(moe.inkOn(hex))];
    assert.ok((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) >= 4.5, `${moe.inkOn(hex)} on ${hex}`);
  }
});

test("a point of the map is the cell drawn there", () => {
  const geo = moe.geometry(700, 5, 62);
  for (const [token, expert] of [[0, 0], [4, 61], [2, 30]]) {
    assert.deepEqual(moe.cellAt(geo, 92 + (expert + 0.5) * geo.cell, token * 18 + 9), { token, expert });
  }
  assert.deepEqual(moe.cellAt(geo, 10, 95), { token: null, expert: null });
  assert.deepEqual(moe.cellAt(geo, 10, 20), { token: 1, expert: null });
});

test("the cursor stays inside the map", () => {
  assert.deepEqual(moe.movedOn({ row: 0, column: 0 }, "ArrowUp", 3, 4), { row: 0, column: 0 });
  assert.deepEqual(moe.movedOn({ row: 1, column: 3 }, "ArrowRight", 3, 4), { row: 1, column: 3 });
  assert.deepEqual(moe.movedOn({ row: 1, column: 3 }, "PageDown", 3, 4), { row: 2, column: 3 });
  assert.deepEqual(moe.movedOn({ row: 1, column: 3 }, "Home", 3, 4), { row: 1, column: 0 });
  assert.equal(moe.movedOn({ row: 0, column: 0 }, "q", 3, 4), null);
  assert.equal(moe.movedOn({ row: 0, column: 0 }, "ArrowUp", 0, 4), null);
});

test("the load axis covers every layer and router, and no slider moves it", () => {
  for (const { state, limit } of golden.cases.filter((one) => one.limit)) {
    for (const k of [1, state.top_k]) assert.equal(moe.loadLimit({ ...moe.readState(stubModel(state)), k }), limit);
  }
});
