// What a visitor should know before trusting a result, from the hints that the service stores with it.

import { sentence } from "./dom.js";

const COMMAND = "s3seg models pull litetext";
const BY_OPERATOR = `Whoever runs the service can change that, and needs no account for it: ${COMMAND}, then a restart.`;

/**
 * All hints of a result, as text.
 *
 * @param {{hint?: string, hints?: {kind: string, text: string, words: string[]}[]}} metadata Of the result.
 */
export function remarkOn(metadata) {
  const hints = metadata.hints ?? (metadata.hint ? [{ kind: "other", text: metadata.hint, words: [] }] : []);
  const aboutModel = hints.some(({ kind }) => kind === "photograph" || kind === "unknown_words");
  return [...withWordsJoined(hints).map(sentenceFor), ...(aboutModel ? [BY_OPERATOR] : [])].join(" ");
}

/** The hints, with those about unknown words, of which each prompt has its own, joined into one. */
function withWordsJoined(hints) {
  const unknown = hints.filter(({ kind }) => kind === "unknown_words");
  const words = [...new Set(unknown.flatMap((hint) => hint.words))];
  return hints.filter((hint) => !unknown.includes(hint) || hint === unknown[0]).map((hint) => (hint === unknown[0] ? { ...hint, words } : hint));
}

function sentenceFor({ kind, text, words }) {
  const quoted = words.map((word) => `“${word}”`).join(", ");
  switch (kind) {
    case "photograph":
      return "This looks like a photograph, but the model of this service knows drawings only: do not rely on what it finds or misses here.";
    case "unknown_words":
      return `The model of this service does not know ${quoted}.`;
    case "several_things":
      return `${quoted} were looked for as one thing; put commas between several things.`;
    default:
      return sentence(text);
  }
}
