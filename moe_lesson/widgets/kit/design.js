// How the course looks, in figures and widgets: between the braces stands JSON, which base/design.py reads. The
// stylesheets have each colour and size as a variable, see kit/base.py: --moe-ink, on dark pages that of "dark"; --moe-title.
// What has no colour in "dark" is seen on both; "dropped", the accent made brighter, on the maps, which are dark everywhere.
// The hues are Okabe and Ito's and their neighbours, told apart with any kind of colour vision; a model has one everywhere.

export const DESIGN = {
  "paper": "#ffffff",
  "ink": "#16191d",
  "line": "#b9bec5",
  "dark": {"paper": "#14171b", "ink": "#eceff2", "line": "#4a5159"},
  "grey": "#808790",
  "bar": "#5b82b8",
  "accent": "#d9660a",
  "chosen": "#2f6fb3",
  "focus": "#2f81f7",
  "good": "#2a7f62",
  "found": "#f6c48f",
  "dropped": "#ff8c2b",
  "hues": {"blue": "#2b86cf", "red": "#d55e00", "green": "#009e73", "pink": "#cc79a7", "sky": "#56b4e9", "amber": "#e69f00",
    "stone": "#7f7f7f", "brown": "#9a6324"},
  "models": {
    "dense": "#565c64",
    "dense of total size": "#16191d",
    "Switch": "#cc79a7",
    "GShard": "#d9660a",
    "GShard×1.5": "#8a4b12",
    "fine-grained": "#009e73",
    "DeepSeekMoE": "#2f6fb3"
  },
  "variants": {
    "dense×16": "dense of total size",
    "1of8": "Switch",
    "2of16": "GShard",
    "m=1": "GShard",
    "cutin1": "GShard",
    "fine": "fine-grained",
    "m=4": "fine-grained",
    "cutin4": "fine-grained",
    "0shared": "fine-grained",
    "2shared": "DeepSeekMoE",
    "mixtureofexperts": "DeepSeekMoE"
  },
  "others": ["#6a1fb0", "#56b4e9", "#b58900"],
  "sequential": "viridis",
  "type": {"title": 18, "large": 16, "text": 14, "small": 13.5}
};

/** A name as it is compared: small letters, without spaces and hyphens. */
function plain(name) {
  return name.replace(/[\s-]/g, "").toLowerCase();
}

const KNOWN = Object.fromEntries([...Object.keys(DESIGN.models).map((name) => [plain(name), name]),
  ...Object.entries(DESIGN.variants)]);

/** The colour of the model that a name begins with, or null if it names none; the twin of colour_of in teach/design.py. */
export function colourOf(name) {
  const here = plain(name);
  const found = Object.keys(KNOWN).filter((known) => here.startsWith(known) && !/^[\p{L}\p{N}_]/u.test(here.slice(known.length)));
  return found.length ? DESIGN.models[KNOWN[found.sort((a, b) => b.length - a.length)[0]]] : null;
}

const NIGHT = { [DESIGN.models.dense]: "#9aa2ac", [DESIGN.ink]: DESIGN.dark.ink };

/** A model's colour as it is seen on a page, by its theme: on a dark one, whose ink is light, the two darkest are light. */
export function seenOn({ ink }, colour) { // not by the paper, which may be transparent
  const light = ink.match(/[\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0); // "rgb(233, 236, 239)"
  return light > 384 && NIGHT[colour] || colour;
}

/** A colour for each name: its model's, and for what is no model one that none of the others has. */
export function coloursOf(names) {
  const own = names.map(colourOf);
  const spare = [...DESIGN.others, ...Object.values(DESIGN.models)].filter((colour) => !own.includes(colour));
  return own.map((colour) => colour ?? spare.shift() ?? DESIGN.line);
}
