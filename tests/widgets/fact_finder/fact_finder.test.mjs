// The models in the browser against the package's; test_fact_finder.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Memory } from "../../../moe_lesson/widgets/fact_finder/view.js";
import { readModel } from "../../../moe_lesson/widgets/kit/moe.js";
import { golden, view } from "../parity_harness.mjs";

const { models, sample, num_answers: V } = golden.finder;
const { weights } = readModel(view(sample.base64));

models.forEach((about, i) => {
  const memory = new Memory(about, (name) => weights[`${i}.${name}`], weights, V);
  for (const { gone, right, called } of golden.cases[about.name]) {
    test(`${about.name} without ${gone}`, () => {
      const now = memory.without(gone);
      right.forEach((facts, what) => facts.forEach((expected, t) => { // null where two answers are as good as equal
        if (expected !== null) assert.equal(now[["facts", "common"][what]][t], Number(expected), `${["fact", "common"][what]} ${t}`);
      }));
      called.forEach((experts, t) => assert.deepEqual(memory.called(now, t), experts, `whom fact ${t} calls`));
    });
  }
});
