// The numbers of every station against the package's; test_token_way.py runs this with `node --test`.

import { test } from "node:test";
import { forward, readModel } from "../../../moe_lesson/widgets/kit/moe.js";
import { encode } from "../../../moe_lesson/widgets/kit/vocabulary.js";
import { wayOf } from "../../../moe_lesson/widgets/token_way/view.js";
import { close, golden, view } from "../parity_harness.mjs";

for (const { name, file, text, layer, token, stations } of golden) {
  test(name, () => {
    const model = readModel(view(file));
    const way = wayOf(model, forward(model, encode(text, model.vocabulary)).layers[layer], token);
    for (const [station, numbers] of Object.entries(stations)) {
      const found = Array.from(way[station] ?? [], (one) => (one.length ? Array.from(one) : one)).flat(); // the answers are vectors
      close(found, numbers, station, 1e-4);
    }
  });
}
