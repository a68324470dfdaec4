// What the tests under node share. MOE_GOLDEN are the vectors that Python computed; widget_harness.py writes them.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const golden = JSON.parse(readFileSync(process.env.MOE_GOLDEN, "utf8"));

export function close(actual, expected, what, tolerance = 1e-12) {
  assert.equal(actual.length, expected.length, what);
  expected.forEach((value, i) => assert.ok(Math.abs(actual[i] - value) <= tolerance * Math.max(1, Math.abs(value)),
    `${what}[${i}]: JavaScript ${actual[i]}, Python ${value}`));
}

/** Bytes as they arrive in a message: a view that starts at any byte. */
export function view(base64) {
  const copy = Buffer.concat([Buffer.from("x"), Buffer.from(base64, "base64")]);
  return new DataView(copy.buffer, copy.byteOffset + 1, copy.length - 1);
}

/** A widget's traits as a view has them. */
export function traits(state) {
  return Object.fromEntries(Object.entries(state).map(([name, value]) => [name, value?.base64 === undefined ? value : view(value.base64)]));
}
