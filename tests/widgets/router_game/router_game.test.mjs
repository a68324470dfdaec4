// The chance of a score; test_router_game.py counts the ways and runs this with `node --test`.

import { test } from "node:test";
import { atLeast } from "../../../moe_lesson/widgets/router_game/view.js";
import { close, golden } from "../parity_harness.mjs";

for (const [score, share] of golden.ways) {
  test(`at least ${score} of 4 by chance`, () => close([atLeast(score, 4, 1 / 3)], [share], "share"));
}
