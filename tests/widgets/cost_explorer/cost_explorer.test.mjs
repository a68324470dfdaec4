// The cost explorer's arithmetic against the package's: test_cost_explorer.py computes the vectors for `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { denseStages, devicesReached, grown, inTurn, leastRows, limitOf, measuredHere, moeStages, ratioOf, stepsOf }
  from "../../../moe_lesson/widgets/cost_explorer/view.js";
import { close, golden } from "../parity_harness.mjs";

test("stages, their times, the ratio and the least rows are the roofline's", () => {
  for (const { sizes, device, moe, dense, ratio, least } of golden.layers) {
    const what = JSON.stringify([sizes, device]);
    for (const [mine, theirs] of [[moeStages(sizes), moe], [denseStages(sizes), dense]]) {
      const timed = inTurn(mine, device);
      assert.deepEqual(mine.map(({ name }) => name), theirs.map(({ name }) => name), what);
      assert.deepEqual(timed.map(({ waits }) => waits), theirs.map(({ waits }) => waits), what);
      close(mine.map(({ flops }) => flops), theirs.map(({ flops }) => flops), what);
      close(mine.map((one) => one.numbers), theirs.map((one) => one.numbers), what);
      close(timed.map(({ from, to }) => to - from), theirs.map(({ seconds }) => seconds), what);
      assert.ok(timed.every(({ from }, i) => from === (i ? timed[i - 1].to : 0)), "one after the other");
    }
    assert.ok(Math.abs(ratioOf(sizes, device) / ratio - 1) < 1e-12, what);
    const { up, down } = leastRows(sizes, device);
    assert.deepEqual([up, down].map((one) => one < Infinity), least.map((one) => one !== null), what);
    close([up, down].filter((one) => one < Infinity), least.filter((one) => one !== null), what, 1e-9);
  }
});

test("a stage waits for memory where the rows are fewer than it needs", () => {
  for (const { sizes, device } of golden.layers) {
    const [least, rows] = [leastRows(sizes, device), (sizes.tokens * sizes.top_k) / sizes.num_experts];
    for (const { name, waits } of inTurn(moeStages(sizes), device)) {
      if (name in least) assert.equal(waits, rows < least[name], JSON.stringify([sizes, name]));
    }
  }
});

test("the devices that a token reaches are counted exactly", () => {
  for (const { sizes, reached } of golden.reached) close([devicesReached(...sizes)], [reached], `${sizes}`, 1e-10);
});

test("a limit counts between what holds K experts and all devices", () => {
  const limits = [[64, 6, 4, 3], [64, 6, 4, 8], [8, 6, 8, 1], [8, 8, 2, 1], [16, 1, 4, 1]].map(([N, K, P, limit]) => (
    limitOf({ num_experts: N, top_k: K, num_devices: P, limit })));
  assert.deepEqual(limits, [3, 4, 6, 2, 1]);
});

test("a step computes, sends what parallel.py counts, and waits for the fullest device", () => {
  for (const { sizes, seconds, link, bytes, steps } of golden.steps) {
    const found = stepsOf(sizes, seconds, link);
    close(found.map((one) => one.bytes), bytes, "bytes", 1e-10);
    close(found.flatMap(({ compute, send, wait, total }) => [compute, send, wait, total]), steps.flat(), "seconds", 1e-10);
  }
});

test("an axis stands still until a bar leaves it", () => {
  const ends = [[4, 0.1], [4, 4], [4, 4.01], [4, 250], [1, 17]].map(([end, needed]) => grown(end, needed));
  assert.deepEqual(ends, [4, 4, 16, 256, 64]);
});

test("measured points belong to the curve of their own sizes and device alone", () => {
  const point = { device: "a", tokens: 8, width: 4, num_experts: 2, top_k: 1, num_shared: 0, expert_width: 64 };
  const others = [{ device: "b" }, { tokens: 9 }, { width: 5 }, { num_experts: 3 }, { top_k: 2 }, { num_shared: 1 }];
  const measured = [...others.map((change) => ({ ...point, ...change })), point];
  assert.deepEqual(measuredHere(measured, { ...point, expert_width: 128 }), [point]);
});
