// Kinds and medians; test_contribution_view.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { kindOf, median } from "../../../moe_lesson/widgets/contribution_view/view.js";
import { golden } from "../parity_harness.mjs";

test("the kind of a token by its name", () => {
  for (const [token, kind] of Object.entries(golden.kinds)) assert.equal(kindOf(token), kind, token);
});

test("the value in the middle, or half way between two", () => {
  for (const [values, expected] of golden.medians) assert.equal(median(values), expected);
});
