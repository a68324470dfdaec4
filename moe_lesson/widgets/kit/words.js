// How numbers and lists are written.

export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** A share; not all is never 100%, and not nothing never 0%. */
export function percent(share) {
  const whole = Math.round(100 * share);
  return `${share > 0 && share < 1 ? Math.min(Math.max(whole, 1), 99) : whole}%`;
}

/** The first few, and how many more there are. */
export function listed(items, most = 8) {
  const more = items.length - most;
  return items.slice(0, most).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** A name of at most so many letters: as it is, or its beginning. */
export function shortened(name, most) {
  const letters = Array.from(name);
  return letters.length <= most ? name : `${letters.slice(0, most - 1).join("")}…`;
}

/** The words with a capital letter in front. */
export function capital(words) {
  const [first, ...rest] = Array.from(words);
  return first === undefined ? "" : first.toUpperCase() + rest.join("");
}

const GROUPED = new Intl.NumberFormat("en-US"); // to make one takes longer than to use it

/** A whole number, a Number or a BigInt, with a comma before each thousand. */
export function grouped(number) {
  return GROUPED.format(number);
}

export const DIGITS = 3; // of a loss

/** The number in words, without what summing up in another order would change; nothing is minus zero. */
export function rounded(value, digits = DIGITS) {
  const text = Number(value.toPrecision(12)).toFixed(digits);
  return Number(text) ? text : (0).toFixed(digits);
}

/** A change, as `rounded` writes it, with its sign. */
export function signed(words) {
  return words.startsWith("-") ? words : `+${words}`;
}

/** A weight in words: with a gate scale of 1/16 two digits after the point would say next to nothing; six always say enough. */
export function weighed(value) {
  return rounded(value, Math.min(Math.max(2, 1 - Math.floor(Math.log10(value || 1))), 6));
}
