// ablation_view.js against the states that Python computed; test_ablation_view.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, traits, states } of golden.cases) {
  test(name, () => {
    for (const { settings, summary, verdict, rows, rises } of states) {
      const read = moe.readState(stubModel({ ...traits, ...settings }));
      const seen = moe.examine(read);
      assert.deepEqual([seen.summary, seen.verdict, seen.rows], [summary, verdict, rows], JSON.stringify(settings));
      assert.deepEqual(seen.panels.rise.map((kinds) => kinds.map(([mean]) => mean)), rises);
    }
  });
}

test("the panels keep to the picture, in one row or two, and their rows stand in order", () => {
  for (const width of [300, 584, 759, 760, 1170]) {
    for (const D of [2, 4, 7]) {
      const geo = moe.geometry(width, D);
      for (const panel of [geo.rise, geo.calls]) {
        assert.ok(0 <= panel.left && panel.left + 60 < panel.right && panel.right + 8 <= width, `at ${width}`);
        const rows = Array.from({ length: 2 * D }, (_, i) => moe.rowOf(panel, Math.floor(i / 2), i % 2));
        rows.forEach((y, i) => assert.ok(y > (i ? rows[i - 1] + 15 : panel.top + 9)));
        assert.ok(rows[2 * D - 1] + 9 < panel.bottom && panel.bottom + 20 <= geo.height);
      }
      const beside = geo.rise.top === geo.calls.top;
      assert.equal(beside, width >= 760);
      assert.ok(beside ? geo.rise.right < geo.calls.left : geo.rise.bottom < geo.calls.top && geo.calls.names);
    }
  }
});

test("a value stands in proportion between the limits, and never beyond them", () => {
  const [panel, axis] = [{ left: 100, right: 300 }, { low: -1, high: 3 }];
  assert.deepEqual([-1, 0, 3, -9, 9].map((value) => moe.placeOf(panel, axis, value)), [100, 150, 300, 100, 300]);
});
