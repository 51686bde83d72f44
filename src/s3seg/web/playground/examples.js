// Boxes around examples on the picture: "this one and others like it", and "not this".

import { $, count, say } from "./dom.js";
import { promptsIn } from "./prompts.js";

const MOST_BOXES = 16; // of each kind
const NAME = "like this"; // of what is found by boxes alone
const MOST_NAME = 120; // characters

/** Collects the examples, and asks for what is like them. */
export class Examples {
  #boxes = []; // {box, positive}, in the order of drawing
  #listener;

  /**
   * @param {object} listener
   * @param {() => void} listener.onChange There are other examples.
   * @param {(examples: object) => void} listener.onFind Search with them; they are as in `Question`.
   * @param {(name: string, examples: object) => Promise<boolean>} listener.onKeep Save them as a concept.
   * @param {(text: string) => void} listener.onRefuse Something cannot be done, for this reason.
   */
  constructor(listener) {
    this.#listener = listener;
    $("find-like").addEventListener("click", () => this.#complete() && listener.onFind(this.#question()));
    $("undo-example").addEventListener("click", () => this.undo());
    $("clear-examples").addEventListener("click", () => this.clear());
    $("prompts").addEventListener("input", () => this.#show());
    $("keep-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      const name = $("concept-name").value.trim();
      if (!name || !this.#complete()) return;
      if (await listener.onKeep(name, this.#question())) $("concept-name").value = "";
    });
  }

  /** The boxes as marks on the picture. */
  get marks() {
    return this.#boxes;
  }

  /** Add an example, or a counterexample. */
  add(box, positive) {
    if (this.#boxes.filter((one) => one.positive === positive).length >= MOST_BOXES) {
      return this.#listener.onRefuse(`At most ${MOST_BOXES} boxes of a kind can be given.`);
    }
    this.#boxes.push({ box, positive });
    this.#change();
  }

  /** Take the last one away. */
  undo() {
    this.#boxes.pop();
    this.#change();
  }

  /** Take all away. */
  clear() {
    this.#boxes = [];
    this.#change();
  }

  #change() {
    this.#show();
    if (this.#boxes.length) say($("examples-text").textContent);
    this.#listener.onChange();
  }

  #show() {
    const positive = this.#of(true).length;
    const negative = this.#of(false).length;
    const parts = [...(positive ? [count(positive, "example")] : []), ...(negative ? [`${negative} not like it`] : [])];
    $("examples").hidden = parts.length === 0;
    $("examples-text").textContent = parts.join(", ");
    const words = this.#typed();
    $("with-words-row").hidden = words === null;
    $("words").textContent = words ?? "";
  }

  #of(positive) {
    return this.#boxes.filter((one) => one.positive === positive).map((one) => one.box);
  }

  /** The prompt that is typed, if it is exactly one: examples cannot be combined with several. */
  #typed() {
    const prompts = promptsIn($("prompts").value);
    return prompts.length === 1 ? prompts[0] : null;
  }

  #complete() {
    if (this.#of(true).length) return true;
    this.#listener.onRefuse("Draw a box around something to find, too: these say only what not to find.");
    return false;
  }

  #question() {
    const words = $("with-words").checked ? this.#typed() : null;
    const name = words !== null && [...words].length <= MOST_NAME ? words : NAME;
    return { name, words, boxes: this.#of(true), negativeBoxes: this.#of(false) };
  }
}
