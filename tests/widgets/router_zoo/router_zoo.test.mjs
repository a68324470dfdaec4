// The zoo's twelve routers against the package's: test_router_zoo.py computes the vectors and runs this.

import assert from "node:assert/strict";
import { test } from "node:test";
import { examine, route, whenWritten } from "../../../moe_lesson/widgets/router_zoo/view.js";
import { close, golden } from "../parity_harness.mjs";

for (const { name, router, zoo, read, free, gates, cost, load, moved } of golden.cases) {
  test(name, () => {
    const rows = { ...zoo, ...Object.fromEntries(["logits", "previous"].map((key) => [key, zoo[key].map((row) => Float64Array.from(row))])) };
    const seen = examine(router, rows, whenWritten(router, rows), read, free);
    route(router, rows, read).forEach((row, t) => close(row, gates[t], `gates of token ${t}`, 1e-6));
    assert.deepEqual([seen.cost, seen.load, seen.moved], [cost, load, moved]);
  });
}
