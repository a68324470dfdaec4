// ledger_view.js against numbers and words that Python's ledger computed; test_ledger_view.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, parts, cost, top, summary, notes } of golden.cases) {
  test(name, () => {
    const read = moe.readState(stubModel(state));
    assert.deepEqual(moe.shownParts(read.sizes), parts);
    assert.deepEqual(moe.modelCost(read.sizes), cost);
    assert.equal(moe.axisOf(read).top, top, "the end of the axis");
    assert.equal(moe.summaryOf(read.label, read.sizes, read.pinned), summary);
    assert.equal(moe.notesOf(read.sizes), notes);
  });
}

test("amounts are written alike", () => {
  for (const [number, words] of golden.amounts) assert.equal(moe.amount(number), words);
});

test("shares are written alike", () => {
  for (const [part, whole, words] of golden.percents) assert.equal(moe.shareInWords(part, whole), words);
});

test("axes are written alike", () => {
  for (const [top, words] of golden.axes) assert.deepEqual(moe.ticksOf(top, ["", " k", " M", " B", " T"]), words);
});
