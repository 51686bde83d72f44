// The normal form of prompts, the same as in s3seg/tasks/prompts.py; a test compares both.

// Invisible characters, and characters that only set the direction of text.
const INVISIBLE =
  /[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufffc]/gu;
const TYPOGRAPHIC = [
  [/[\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4`]/gu, "'"],
  [/[\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb]/gu, '"'],
  [/[\u2010-\u2015\u2212]/gu, "-"],
  [/[\u115f\u1160\u2800\u3164\uffa0]/gu, " "], // look blank, but are not white space in Unicode
  [/\u2026/gu, "..."],
  [/\u3001/gu, ","],
  [/\u3002/gu, "."],
  [/[\uff01-\uff5e]/gu, (full) => String.fromCharCode(full.charCodeAt(0) - 0xfee0)], // full-width ASCII
];
const JOINERS = /(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])/gu; // next to ASCII, or at either end
const SPACES = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/gu;
const QUOTED = /^(["'])((?:(?!\1).)+)\1$/su;

/** The prompts in a line of text: between commas or line breaks, in their normal form, each once. */
export function promptsIn(text) {
  const parts = text.split(/[,\u3001\uff0c\n\r]/u).map(normalizePrompt);
  return [...new Set(parts.filter((part) => part !== ""))];
}

/** A prompt in its normal form, without what keyboards and clipboards add to it; "" if nothing is left. */
export function normalizePrompt(text) {
  for (let longer = null; longer !== text; ) {
    longer = text;
    text = normalizeOnce(text);
  }
  return text;
}

function normalizeOnce(text) {
  text = text.replace(INVISIBLE, "");
  for (const [odd, plain] of TYPOGRAPHIC) text = text.replace(odd, plain);
  text = text.normalize("NFC").replace(JOINERS, "").replace(SPACES, " ").replace(/^ | $/g, "");
  text = text.replace(/[ .,;]+$/, "") || [...text].slice(0, 1).join("");
  const quoted = QUOTED.exec(text);
  const inside = quoted ? quoted[2].replace(/^ +| +$/g, "") : "";
  return inside || text;
}
