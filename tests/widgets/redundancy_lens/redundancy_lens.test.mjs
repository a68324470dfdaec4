// The lens's merges against the package's: test_redundancy_lens.py computes the vectors and runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { contours, examine } from "../../../moe_lesson/widgets/redundancy_lens/view.js";
import { golden } from "../parity_harness.mjs";

test("groups are the package's, and by group each of them stands together in rows that the slider does not move", () => {
  for (const [kind, steps] of Object.entries(golden.groups)) {
    const orders = new Set();
    steps.forEach((groups, merges) => {
      assert.deepEqual(examine({ ...golden.state, kind, merges, order: "by number" }).rows, [...Array(24).keys()]);
      const { groups: found, rows } = examine({ ...golden.state, kind, merges, order: "by group" });
      assert.deepEqual(found, groups);
      orders.add(String(rows));
      for (const group of groups) {
        const places = group.map((n) => rows.indexOf(n)).sort((a, b) => a - b);
        assert.equal(places.at(-1) - places[0], group.length - 1, `${kind}, ${merges} merges: ${group} in ${rows}`);
      }
    });
    assert.equal(orders.size, 1);
    assert.equal(new Set([...orders][0].split(",")).size, 24);
  }
});

test("outlines are around the cells of merged experts and no others", () => {
  assert.deepEqual(contours([0, 1, 2]), []);
  const square = [[0, 0, 0, 1], [0, 1, 0, 2], [2, 0, 2, 1], [2, 1, 2, 2], [0, 0, 1, 0], [1, 0, 2, 0], [0, 2, 1, 2], [1, 2, 2, 2]];
  assert.deepEqual(contours([0, 0, 2]).map(String).sort(), square.map(String).sort()); // neighbours share one outline
  assert.equal(contours([0, 1, 0]).length, 4 * 4); // strangers between: four cells by themselves
});
