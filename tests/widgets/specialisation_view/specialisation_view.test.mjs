// Lifts and specialists against the package's; test_specialisation_view.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { sampleOf } from "../../../moe_lesson/widgets/specialisation_view/view.js";
import { close, golden } from "../parity_harness.mjs";

for (const { chosen, lifts, favourites, above, specialists, mean } of golden.cases) {
  test(JSON.stringify(chosen), () => {
    const seen = sampleOf({ ...golden.state, ...chosen });
    close(seen.experts.map(({ lift }) => lift), lifts, "lifts");
    assert.deepEqual(seen.experts.map(({ favourite }) => favourite), favourites);
    assert.deepEqual(seen.experts.map((one) => one.above), above);
    assert.deepEqual([seen.specialists, seen.above], [specialists, above.filter(Boolean).length]);
    close([seen.mean], [mean], "mean");
  });
}
