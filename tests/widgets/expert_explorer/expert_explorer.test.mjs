// What is found, who serves it and what an expert is called for; test_expert_explorer.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { favoured, foundAt, idAsked, readCensus, servers } from "../../../moe_lesson/widgets/expert_explorer/view.js";
import { encode, vocabularyOf } from "../../../moe_lesson/widgets/kit/vocabulary.js";
import { golden, traits } from "../parity_harness.mjs";

const vocabulary = vocabularyOf(golden.merges);

for (const { text, search, found, asked } of golden.searches) {
  test(`${search} in ${JSON.stringify(text)}`, () => {
    const ids = encode(text, vocabulary);
    assert.deepEqual(foundAt(ids, search, vocabulary), found);
    assert.equal(idAsked(search, ids, 1, vocabulary), asked);
  });
}

test("experts that a token is served by, and tokens that an expert is called for", () => {
  const state = traits(golden.state);
  const census = readCensus(state);
  for (const { layer, id, serving } of golden.serving) assert.deepEqual(servers(state, census[layer], layer, id), serving);
  for (const { layer, n, places } of golden.favoured) {
    assert.deepEqual(favoured(census[layer].of(n).subarray(0, state.counted.length), 6), places);
  }
});
