// What the parity tests of every widget share. MOE_MODULE is the module as the browser receives it, MOE_GOLDEN the vectors
// that Python computed; widget_harness.py writes both.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const moe = await import(process.env.MOE_MODULE);
export const golden = JSON.parse(readFileSync(process.env.MOE_GOLDEN, "utf8"));

export function close(actual, expected, what) {
  assert.equal(actual.length, expected.length, what);
  expected.forEach((value, i) => assert.ok(Math.abs(actual[i] - value) <= 1e-12 * Math.max(1, Math.abs(value)),
    `${what}[${i}]: JavaScript ${actual[i]}, Python ${value}`));
}

export function stubModel(state) {
  const bytes = (view) => {
    const copy = Buffer.concat([Buffer.from("x"), Buffer.from(view.base64, "base64")]); // an odd offset, as in a message
    return new DataView(copy.buffer, copy.byteOffset + 1, copy.length - 1);
  };
  return { get: (name) => (state[name]?.base64 === undefined ? state[name] : bytes(state[name])) };
}
