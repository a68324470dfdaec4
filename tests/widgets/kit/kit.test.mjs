// The kit's mathematics against the package's: test_kit.py computes the vectors and runs this with `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { inkOn, RAMP, weightColour } from "../../../moe_lesson/widgets/kit/canvas.js";
import { apart, spaced } from "../../../moe_lesson/widgets/kit/charts.js";
import { colourOf, DESIGN, seenOn } from "../../../moe_lesson/widgets/kit/design.js";
import { movedOn } from "../../../moe_lesson/widgets/kit/events.js";
import { forward, readModel } from "../../../moe_lesson/widgets/kit/moe.js";
import { floats, inCommon, rankExperts, route } from "../../../moe_lesson/widgets/kit/routing.js";
import { cutToTokens } from "../../../moe_lesson/widgets/kit/tokens.js";
import { encode, tokenNames, vocabularyOf } from "../../../moe_lesson/widgets/kit/vocabulary.js";
import { weighed } from "../../../moe_lesson/widgets/kit/words.js";
import { close, golden, view } from "../parity_harness.mjs";

for (const { name, logits, T, N, k, gate, ids, weights, load, common } of golden.gates) {
  test(`a gate: ${name}`, () => {
    const routed = route(rankExperts(floats(view(logits)), T, N, gate), k);
    assert.deepEqual(Array.from(routed.ids), ids, "expert ids");
    close(Array.from(routed.weights), weights, "weights");
    assert.deepEqual(Array.from(routed.load), load, "load");
    assert.deepEqual(inCommon(routed, 0), common, "experts in common");
  });
}

test("ticks without room for their words are left out", () => {
  assert.deepEqual(spaced([0, 10, 26, 40, 60], (value) => 10 + value), [0, 26, 60]);
  assert.deepEqual(spaced([], (value) => value), []);
});

for (const { name, file, texts } of golden.models) {
  const model = readModel(view(file));
  for (const { text, tokens, logits, layers } of texts) {
    test(`${name} reads ${JSON.stringify(text.slice(0, 20))}`, () => {
      const ids = encode(text, model.vocabulary);
      assert.deepEqual(tokenNames(ids, model.vocabulary), tokens);
      const found = forward(model, ids);
      close(Array.from(found.logits), floats(view(logits)), "logits", 1e-4);
      layers.forEach(({ ids, weights, added }, i) => {
        const layer = found.layers[i];
        assert.deepEqual(Array.from(layer.routed.ids), ids, `choices of layer ${i}`);
        close(Array.from(layer.routed.weights), weights, "weights", 1e-4);
        close(Array.from(layer.experts, (value, j) => value + (layer.shared ? layer.shared[j] : 0)), floats(view(added)), "added", 1e-4);
      });
    });
  }
}

test("a weight has two figures, but never more than six digits", () => {
  assert.deepEqual([0.25, 0.0123, 3e-9, 5.9e-132, 0, 1].map(weighed), ["0.25", "0.012", "0.000000", "0.000000", "0.00", "1.00"]);
});

test("a model has the colour that it has in figures", () => {
  for (const [name, colour] of golden.colours) assert.equal(colourOf(name), colour, name);
});

test("a dark model is light on a dark page, and no other changes", () => {
  const [white, black] = [{ ink: "rgb(22, 25, 29)" }, { ink: "rgb(236, 239, 242)" }];
  for (const colour of Object.values(DESIGN.models)) {
    assert.equal(seenOn(white, colour), colour);
    assert.equal(seenOn(black, colour) === colour, ![DESIGN.models.dense, DESIGN.models["dense of total size"]].includes(colour), colour);
  }
});

for (const { size, merges, texts, cuts, drawn } of golden.vocabularies) {
  const vocabulary = vocabularyOf(merges);
  test(`texts in ${size} tokens, and their names`, () => {
    for (const { text, ids, names } of texts) {
      assert.deepEqual(encode(text, vocabulary), ids, JSON.stringify(text.slice(0, 30)));
      assert.deepEqual(tokenNames(ids, vocabulary), names, JSON.stringify(text.slice(0, 30)));
    }
  });
  test(`names of any ${size} tokens in any order`, () => {
    for (const { ids, names } of drawn) assert.deepEqual(tokenNames(ids, vocabulary), names, `${ids}`);
  });
  test(`a text is cut at the last whole token and character of ${size} tokens`, () => {
    for (const { text, most, cut } of cuts) {
      const [kept, all] = [cut, text].map((one) => encode(one, vocabulary).length);
      assert.deepEqual(cutToTokens(text, most, vocabulary), { fits: cut, kept, all }, `${most} of ${text}`);
    }
  });
}

test("a whole character in a token has its name alone, of one in two tokens each has a part", () => {
  const { merges, ids, names } = golden.characters;
  assert.deepEqual(tokenNames(ids, vocabularyOf(merges)), names);
});

test("labels are moved apart as little as may be, and stay within", () => {
  assert.deepEqual(apart([90, 10, 40], 16, 200), [90, 10, 40]);
  assert.deepEqual(apart([100, 100, 106, 20], 16, 200), [86, 102, 118, 20]);
  assert.deepEqual([apart([0, 2, 5], 16, 200), apart([199, 200], 16, 200)], [[0, 16, 32], [184, 200]]);
});

test("colours stay within the table at the ends of the scale", () => {
  assert.equal(weightColour(0, 1), RAMP[0]);
  assert.equal(weightColour(2.5, 2.5), RAMP[255]);
  assert.equal(weightColour(9, 1), RAMP[255]);
});

test("every colour of the map carries readable ink", () => {
  const light = (hex) => hex.slice(1).match(/../g).map((pair) => parseInt(pair, 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((total, c, i) => total + c * [0.2126, 0.7152, 0.0722][i], 0);
  for (const hex of RAMP) {
    const [a, b] = [light(hex), inkOn(hex) === "white" ? 1 : 0];
    assert.ok((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) >= 4.5, `${inkOn(hex)} on ${hex}`);
  }
});

test("the cursor stays inside the map", () => {
  assert.deepEqual(movedOn({ row: 0, column: 0 }, "ArrowUp", 3, 4), { row: 0, column: 0 });
  assert.deepEqual(movedOn({ row: 1, column: 3 }, "ArrowRight", 3, 4), { row: 1, column: 3 });
  assert.deepEqual(movedOn({ row: 1, column: 3 }, "PageDown", 3, 4), { row: 2, column: 3 });
  assert.deepEqual(movedOn({ row: 1, column: 3 }, "Home", 3, 4), { row: 1, column: 0 });
  assert.equal(movedOn({ row: 1, column: 3 }, "q", 3, 4), null);
});
