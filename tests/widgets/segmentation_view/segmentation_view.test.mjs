// Segmentation's arithmetic: test_segmentation_view.py computes the vectors and runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { example, layerBoxes, routes, settingOf, times } from "../../../moe_lesson/widgets/segmentation_view/view.js";
import { golden } from "../parity_harness.mjs";

test("routes are exact beyond what a float can hold", () => {
  for (const [num_experts, top_k, ways] of golden.routes) assert.equal(String(routes({ num_experts, top_k })), ways);
});

test("ratios are exact or say about", () => {
  const pairs = [[960, 120], [5, 2], [7, 3], [999_999, 1], [1_000_000, 1], [4_426_165_368, 120]].map((pair) => pair.map(BigInt));
  assert.deepEqual(pairs.map(([more, fewer]) => times(more, fewer)),
    ["8", "about 3", "about 2", "999,999", "about 1 million", "about 36.9 million"]);
});

test("the example token has K different experts", () => {
  for (const [N, K] of [[16, 2], [15, 1], [127, 15], [124, 12], [5, 5], [7, 5], [1, 1], [60, 4]]) {
    const chosen = new Set(example({ num_experts: N, top_k: K }));
    assert.ok(chosen.size === K && [...chosen].every((n) => n >= 0 && n < N), `${[...chosen]} of ${N}`);
  }
});

test("the layer's boxes are as wide as their parameters, each in the place of its uncut expert", () => {
  for (const world of Object.keys(golden.worlds)) {
    for (const { segments, num_shared } of golden.worlds[world].settings) {
      const seen = { segments, ...settingOf({ worlds: golden.worlds, world, segments, num_shared }) };
      const [router, ...boxes] = layerBoxes(seen, 500);
      const [places, pieces] = [boxes.filter(({ kind }) => kind === "place"), boxes.filter(({ kind }) => kind !== "place")];
      const { num_experts: N, top_k: K, num_shared: Ks, costs } = seen.setting;
      const kinds = ["shared", "active", "routed"].map((kind) => pieces.filter((box) => box.kind === kind));
      assert.deepEqual(kinds.map((some) => some.length), [Ks, K, N - K]);
      const pixel = router.width / costs.router; // per parameter
      [costs.shared, costs.routed].forEach((cost, i) => {
        const wide = kinds[i].reduce((all, box) => all + box.width, 0);
        assert.ok(Math.abs(wide - cost * pixel) < 1e-6, `${wide} pixels for ${cost} parameters`);
      });
      pieces.forEach((box, n) => {
        const place = places[Math.floor(n / segments)];
        assert.ok(box.y === place.y && box.x >= place.x && box.x + box.width <= place.x + place.width + 1e-9);
        assert.ok(n % segments === 0 || box.x >= pieces[n - 1].x + pieces[n - 1].width - 1e-9, "none on another");
      });
      assert.ok(router.width <= 500 && places.every((box) => box.x + box.width <= 500 + 1e-9));
    }
  }
});
