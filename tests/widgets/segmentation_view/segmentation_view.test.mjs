// segmentation_view.js against vectors that Python computed; test_segmentation_view.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, shared, routes, example, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    assert.equal(read.shared, shared);
    assert.equal(String(moe.routes(read.setting)), routes, "routes");
    assert.deepEqual(moe.example(read.setting), example, "experts of the example token");
    assert.equal(moe.describe(read), summary);
  });
}

test("routes are exact beyond what a float can hold", () => {
  for (const [num_experts, top_k, ways] of golden.routes) assert.equal(String(moe.routes({ num_experts, top_k })), ways);
});

test("ratios are written alike", () => {
  for (const [more, fewer, words] of golden.times) assert.equal(moe.times(BigInt(more), BigInt(fewer)), words);
});

test("shared pieces are clamped alike", () => {
  for (const [wish, segments, shared] of golden.allowed) assert.equal(moe.allowed(wish, segments, [0, 1, 2, 4]), shared);
});

test("the layer's boxes are as wide as their parameters, none on another, none outside", () => {
  for (const { name, state } of golden.cases) {
    const read = moe.readState(stubModel(state));
    for (const width of [300, 570, 1100]) {
      const { router, places, pieces, height } = moe.layerGeometry(width, read);
      const kinds = pieces.map(({ kind }) => kind);
      const { num_experts: N, top_k: K, num_shared: Ks, costs } = read.setting;
      assert.deepEqual(["shared", "active", "routed"].map((kind) => kinds.filter((one) => one === kind).length),
        [Ks, K, N - K], name);
      const area = (part) => pieces.filter(({ kind }) => kind === part).reduce((all, box) => all + box.width, 0);
      const pixel = router.width / costs.router; // per parameter
      assert.ok(Math.abs(area("active") - costs.routed * pixel) < 1e-6 && Math.abs(area("shared") - costs.shared * pixel) < 1e-6);
      pieces.forEach((box, i) => {
        const place = places[Math.floor(i / read.segments)];
        assert.ok(box.left >= place.left && box.left + box.width <= place.left + place.width + 1e-9 && box.top === place.top);
        const next = pieces[i + 1];
        assert.ok(!next || next.top > box.top || next.left >= box.left + box.width - 1e-9);
      });
      assert.ok(router.width <= width && places.every((box) => box.left + box.width <= width + 1e-9 && box.top < height));
    }
  }
});

test("each setting has a place of its own in every chart, in order and inside", () => {
  for (const { state } of golden.cases) {
    const read = moe.readState(stubModel(state));
    for (const width of [300, 570, 1100]) {
      const charts = moe.chartGeometry(width, read);
      assert.deepEqual(charts.map(({ measure }) => measure), Object.keys(read.here.axes));
      charts.forEach(({ top, bottom, left, right, cell, xOf }, i) => {
        const xs = read.here.settings.map((one) => xOf(one.segments, one.num_shared));
        assert.ok(xs[0] >= left && xs.at(-1) <= right && bottom > top + 60);
        assert.ok(xs.every((x, n) => !n || x - xs[n - 1] >= cell - 1e-9));
        const groups = read.here.settings.map((one) => one.segments);
        assert.ok(xs.every((x, n) => !n || groups[n] === groups[n - 1] || x - xs[n - 1] > 1.5 * cell), "a gap between two m");
        assert.ok(!charts[i + 1] || charts[i + 1].top >= bottom + 60);
      });
    }
  }
});
