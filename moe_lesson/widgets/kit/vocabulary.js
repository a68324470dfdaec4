// Text as tokens: the twin of base/tokens.py, and of the names in base/text.py; a test compares them.

const PART = / ?[A-Za-z\x80-\xff]+| ?[0-9]+|\n *| +|\0| ?[^ \n0-9A-Za-z\x80-\xff\0]+/g; // of text with a letter for each byte
const SHOWN = { "\0": "␀", "\r": "␍", " ": "␣", "\n": "⏎", "\t": "⇥", "\u00a0": "⍽" };
const UNSEEN = /[\p{C}\p{Z}\p{M}]/u; // no shape of their own, or they turn the text around: shown by number, never obeyed
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A vocabulary out of its merges, a flat list of pairs: the bytes of each token, and which token became of a pair. */
export function vocabularyOf(merges) {
  const [bytes, tokenOf] = [Array.from({ length: 256 }, (_, byte) => [byte]), new Map()];
  for (let i = 0; i < merges.length; i += 2) {
    tokenOf.set(`${merges[i]} ${merges[i + 1]}`, bytes.length);
    bytes.push([...bytes[merges[i]], ...bytes[merges[i + 1]]]);
  }
  return { bytes, tokenOf };
}

/** A text as UTF-8; half a character, which UTF-8 does not have, becomes �. */
export const bytesOf = (text) => new TextEncoder().encode(text);

/** The bytes of some tokens, and which of the tokens each byte is of. */
export function spelled(ids, { bytes }) {
  return { raw: Uint8Array.from(ids.flatMap((id) => bytes[id])), owner: ids.flatMap((id, t) => bytes[id].map(() => t)) };
}

/** The tokens of a text. */
export function encode(text, { tokenOf }) {
  const letters = Array.from(bytesOf(text), (byte) => String.fromCharCode(byte)).join("");
  return (letters.match(PART) ?? []).flatMap((part) => merged(Array.from(part, (letter) => letter.charCodeAt(0)), tokenOf));
}

/** The tokens of one part: of the pairs in it, the one that was merged first is merged, until none is left. */
function merged(ids, tokenOf) {
  const found = ids.map((id, i) => tokenOf.get(`${id} ${ids[i + 1]}`) ?? Infinity);
  const [first, out] = [found.reduce((a, b) => Math.min(a, b), Infinity), []];
  if (first === Infinity) return ids;
  for (let i = 0; i < ids.length; i += found[i] === first ? 2 : 1) out.push(found[i] === first ? first : ids[i]);
  return merged(out, tokenOf);
}

/** A readable name for each token of a text: ␣the, ⏎; of a character that is cut in parts 中 1/3. */
export function tokenNames(ids, vocabulary) {
  const [{ raw, owner }, names] = [spelled(ids, vocabulary), ids.map(() => "")];
  for (let [start, end] = [0, 0]; start < raw.length; start = end) {
    const [name, size] = letterAt(raw, start);
    end = start + size;
    if (owner[start] === owner[end - 1]) names[owner[start]] += name;
    else owner.slice(start, end).forEach((t, i) => { names[t] += `${name} ${i + 1}/${size}`; });
  }
  return names;
}

/** The name of the character that begins at a byte, and how many bytes it has; 0xff where none begins. */
function letterAt(raw, start) {
  const byte = raw[start];
  const [bare, size] = [`0x${byte.toString(16).padStart(2, "0")}`, 1 + [192, 224, 240].filter((first) => byte >= first).length];
  try {
    const letter = UTF8.decode(raw.subarray(start, start + size));
    const number = size > 1 ? `U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}` : bare;
    return [SHOWN[letter] ?? (UNSEEN.test(letter) ? number : letter), size];
  } catch {
    return [bare, 1];
  }
}
