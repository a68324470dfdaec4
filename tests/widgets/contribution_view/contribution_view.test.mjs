// Kinds, and the two parts against the package's; test_contribution_view.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { computed, kindOf, measured } from "../../../moe_lesson/widgets/contribution_view/view.js";
import { readModel } from "../../../moe_lesson/widgets/kit/moe.js";
import { close, golden, view } from "../parity_harness.mjs";

test("the kind of a token by its name", () => {
  for (const [token, kind] of Object.entries(golden.kinds)) assert.equal(kindOf(token), kind, token);
});

test("lengths, cosine and share of two parts", () => {
  const parts = measured(...golden.parts.given.map((rows) => Float32Array.from(rows.flat())), golden.parts.given[0][0].length);
  for (const [name, expected] of Object.entries(golden.parts.found)) close(Array.from(parts[name]), expected, name, 1e-6);
});

test("the parts and the experts of a text that the page reads", () => {
  const { tokens, layers } = computed(golden.read.text, ...golden.read.files.map((file) => readModel(view(file))));
  assert.deepEqual(tokens, golden.read.tokens);
  golden.read.layers.forEach(({ one, none, ids, weights }, i) => {
    for (const [group, parts] of Object.entries({ one, none })) {
      for (const [name, expected] of Object.entries(parts)) close(Array.from(layers[i][group][name]), expected, `${group} ${name}`, 1e-4);
    }
    assert.deepEqual(Array.from(layers[i].routed.ids), ids);
    close(Array.from(layers[i].routed.weights), weights, "weights", 1e-4);
  });
});
