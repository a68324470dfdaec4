// balancing_race.js against vectors that Python computed; test_balancing_race.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, position, mean, loads, violations, losses, columns, summary } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    const standing = moe.examine(read);
    assert.equal(standing.position, position);
    assert.equal(standing.mean, mean);
    assert.deepEqual(standing.loads.map((load) => Array.from(load)), loads, "loads at the step");
    assert.equal(standing.violations.length, violations.length);
    violations.forEach((line, m) => close(standing.violations[m], line, `MaxVio of method ${m}`));
    losses.forEach((line, m) => close(standing.losses[m], line, `losses of method ${m}`));
    assert.deepEqual(standing.loads.map((load) => moe.columnsOf(read, load)), columns, "order of the experts");
    assert.equal(moe.describe(read, standing), summary);
  });
}

test("both sides average a loss with as many neighbours", () => {
  assert.equal(moe.SMOOTHED, golden.smoothed);
  assert.deepEqual(moe.smoothed([3, 0, 0, 6, 0, 0]), [1, 2.25, 1.8, 1.2, 1.5, 2]);
});

test("Play goes step by step, or in a few jumps, and stops at the end", () => {
  const walk = (P, calm) => {
    const seen = [0];
    while (seen.at(-1) < P - 1 && seen.length <= P) seen.push(moe.nextPosition(seen.at(-1), P, calm));
    return seen;
  };
  assert.deepEqual(walk(4, false), [0, 1, 2, 3]);
  assert.deepEqual(walk(44, true), [0, 8, 16, 24, 32, 40, 43]);
  assert.deepEqual(walk(3, true), [0, 1, 2]);
  assert.equal(moe.nextPosition(0, 1, false), 0);
});

test("panels stand in one row where there is room, and nothing overlaps or leaves the picture", () => {
  const rowsOf = (geo) => new Set(geo.panels.map(({ y }) => y)).size;
  assert.equal(rowsOf(moe.geometry(1170, 7, 16, 44)), 1);
  for (const [width, M] of [[90, 7], [340, 7], [540, 7], [780, 7], [1170, 1], [1170, 7], [1170, 30]]) {
    const geo = moe.geometry(width, M, 16, 44);
    assert.ok(width < 300 || rowsOf(geo) < M || M === 1);
    const boxes = [...geo.panels.map(({ left, width: w, y, bottom }) => [left, left + w, y, bottom + 20]),
      ...geo.charts.map(({ x, width: w, top, bottom }) => [x, x + w, top - 28, bottom + 20])];
    boxes.forEach(([left, right, top, bottom], i) => {
      assert.ok(left >= 0 && right <= width + 1e-9 && top >= 0 && bottom <= geo.height, `box ${i} at ${width}`);
      for (const [l, r, t, b] of boxes.slice(i + 1)) {
        assert.ok(right <= l + 1e-9 || r <= left + 1e-9 || bottom <= t + 1e-9 || b <= top + 1e-9, `box ${i} at ${width}`);
      }
    });
  }
});

test("a point of the picture is the method drawn there", () => {
  const geo = moe.geometry(540, 7, 16, 44);
  geo.panels.forEach(({ left, width, y, bottom }, m) => {
    assert.equal(moe.panelAt(geo, left + 1, y + 1), m);
    assert.equal(moe.panelAt(geo, left + width - 1, bottom), m);
  });
  assert.equal(moe.panelAt(geo, 5, 100), null);
  assert.equal(moe.panelAt(geo, 200, geo.height - 5), null);
});
