// capacity_view.js against vectors that Python computed; test_capacity_view.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, queue, capacity, kept, load, weights, facts, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    const seen = moe.dispatch(read);
    assert.deepEqual(Array.from(seen.queue), queue, "queue");
    assert.equal(seen.capacity, capacity, "capacity");
    assert.deepEqual(Array.from(seen.kept), kept, "kept");
    assert.deepEqual(Array.from(seen.load), load, "load");
    close([seen.weightDropped, seen.weightInAll], weights, "weights");
    assert.deepEqual(moe.factsOf(seen), facts);
    assert.equal(moe.describe(read, seen, read.locked_token), summary);
  });
}

for (const { name, T, N, k, ids, weights, queue, capacity, by, kept } of golden.queues) {
  test(name, () => {
    const choices = { T, N, k, ids: Int32Array.from(ids), weights: Float64Array.from(weights) };
    assert.deepEqual(Array.from(moe.keepWithin(choices, Int32Array.from(queue), capacity, by)), kept);
  });
}

test("the room of an expert is rounded up as Python does", () => {
  for (const { T, N, k, factor, capacity } of golden.rooms) {
    assert.equal(moe.capacityFor({ T, N, k }, factor), capacity, JSON.stringify({ T, N, k, factor }));
  }
});

test("a point of the map is the row drawn there, and the cursor stays inside", () => {
  for (const T of [1, 7, 64, 93, 150, 300]) {
    const geo = moe.geometry(700, T, 16);
    for (const place of [0, Math.floor(T / 2), T - 1]) {
      const { y, height } = moe.rowOf(geo, place);
      assert.ok(height >= 3, `${T} tokens: ${height} pixels`);
      assert.equal(moe.placeAt(geo, y + height / 2), place);
    }
    assert.deepEqual([moe.placeAt(geo, 2), moe.placeAt(geo, geo.barsTop + 5)], [null, null]);
  }
  assert.deepEqual(["ArrowUp", "ArrowDown", "PageDown", "End", "Home", "q"].map((key) => moe.moved(0, key, 4)),
    [0, 1, 3, 3, 0, null]);
});

test("rows stand without a gap", () => {
  const geo = moe.geometry(700, 93, 16);
  for (let place = 1; place < 93; place++) {
    const before = moe.rowOf(geo, place - 1);
    assert.equal(moe.rowOf(geo, place).y, before.y + before.height);
  }
});
