// The routings of a text, sent and computed, against the package's; test_routing_map.py runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { readModel } from "../../../moe_lesson/widgets/kit/moe.js";
import { route } from "../../../moe_lesson/widgets/kit/routing.js";
import { computed, limitsOf, recorded } from "../../../moe_lesson/widgets/routing_map/view.js";
import { close, golden, traits, view } from "../parity_harness.mjs";

const [state, model] = [traits(golden.state), readModel(view(golden.file))];

for (const { text, sent, tokens, routers, limits } of golden.texts) {
  test(`${text}, ${sent ? "sent" : "computed"}`, () => {
    const read = sent ? recorded(state) : computed({ ...state, text }, model);
    assert.deepEqual(read.tokens, tokens);
    for (const [router, layers] of Object.entries(routers)) {
      layers.forEach(({ k, ids, weights }, layer) => {
        const routed = route(read[router][layer], k);
        assert.deepEqual(Array.from(routed.ids), ids, `${router} ${layer}`);
        close(Array.from(routed.weights), weights, `${router} ${layer}`, 1e-4);
      });
    }
    const found = limitsOf(read, golden.k);
    close([found.weight, found.load], limits, "limits", 1e-4);
  });
}
