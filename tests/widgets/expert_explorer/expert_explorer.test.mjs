// expert_explorer.js against vectors that Python computed; test_expert_explorer.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, golden, moe, stubModel } from "../parity_harness.mjs";

for (const { name, state, lifts, rows, domains, servers, words, found, followers, chosen, load, none, summary } of golden.cases) {
  test(name, () => {
    const model = stubModel(state);
    const census = moe.readCensus(model);
    const read = moe.readState(model, census);
    const layers = read.sizes.map((_, layer) => layer);
    layers.forEach((layer) => close(census[layer].lifts, lifts[layer], `lifts of layer ${layer}`));
    assert.deepEqual(moe.byteRows(read), rows);
    assert.deepEqual(moe.domainRows(read), domains);
    assert.deepEqual(layers.map((layer) => moe.servers(read, layer)), servers);
    assert.deepEqual(layers.map((layer) => moe.serverWords(read, layer)), words);
    assert.deepEqual(moe.foundAt(read), found);
    assert.deepEqual(moe.followers(read), followers);
    if (read.selected !== null) assert.deepEqual(layers.map((layer) => moe.chosenBy(read, layer, read.selected)), chosen);
    assert.equal(moe.loadWords(read), load);
    assert.equal(moe.nullWords(read), none);
    assert.equal(moe.describe(read), summary);
  });
}

test("the tables' heads are the same on both sides", () => {
  assert.deepEqual([moe.COLUMNS, moe.DOMAIN_COLUMNS], golden.columns);
});

test("bars end at the axis' end and grow with the root", () => {
  assert.deepEqual([0, 1, 4, 16].map((lift) => moe.placeOf(lift, 16)), [0, 0.25, 0.5, 1]);
});
