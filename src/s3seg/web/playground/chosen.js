// The instance that the user works with: use it as an example or a counterexample, and correct its mask with clicks.

import { $, count, say, showText } from "./dom.js";
import { nameOf } from "./items.js";

const MOST_POINTS = 64;
const WITHOUT = {
  boxes: "The model of this service takes no boxes, so it cannot look for others like this one.",
  clicks: "Its mask cannot be repaired by clicks: the model of this service has not learnt them. Full SAM 3 has.",
};

/** @typedef {import("./items.js").Item} Item */

/** Shows what can be done with an instance. */
export class Chosen {
  /** @type {Item | null} */
  item = null;
  #points = []; // {point, positive}
  #before = new WeakMap(); // masks before the repairs of an item
  #listener;
  #kinds = null; // what the model can be asked by; null if it is not known

  /**
   * @param {object} listener
   * @param {(item: Item | null) => void} listener.onChoose Another item is chosen, or none.
   * @param {(item: Item) => void} listener.onClose The user has finished with it.
   * @param {() => void} listener.onMarks Other points are to be shown, or another tool is to be used.
   * @param {(box: number[], positive: boolean) => void} listener.onExample Use a box as an example.
   * @param {(click: object) => Promise<import("./rle.js").Mask | null>} listener.onRepair Ask for the mask at clicks.
   * @param {(item: Item) => void} listener.onMask An item has another mask.
   */
  constructor(listener) {
    this.#listener = listener;
    $("more-like").addEventListener("click", () => listener.onExample(this.item.mask.box, true));
    $("not-like").addEventListener("click", () => listener.onExample(this.item.mask.box, false));
    $("let-go").addEventListener("click", () => this.close());
    $("repair").addEventListener("click", () => this.#repairing(true));
    $("end-repair").addEventListener("click", () => this.#repairing(false));
    $("undo-point").addEventListener("click", () => this.undo());
    $("send-repair").addEventListener("click", () => this.#send());
    $("put-back").addEventListener("click", () => this.#putBack());
  }

  /** What the model can be asked by, as results say it; null if they do not. */
  set kinds(kinds) {
    this.#kinds = kinds;
    const missing = Object.keys(WITHOUT).filter((kind) => kinds && !kinds.includes(kind));
    showText("no-clicks", missing.map((kind) => WITHOUT[kind]).join(" "));
    this.#show();
  }

  /** Whether examples and clicks can be asked for, as far as is known. */
  can(kind) {
    return this.#kinds === null || this.#kinds.includes(kind);
  }

  /** Whether a press on the picture sets a point. */
  get repairs() {
    return !$("repairing").hidden;
  }

  /** The points as marks on the picture. */
  get marks() {
    return this.#points;
  }

  /** Work with an item, or with none. */
  choose(item) {
    this.item = item;
    this.#repairing(false);
    this.#listener.onChoose(item);
  }

  /** End the work with the item; false if there is none. */
  close() {
    const { item } = this;
    if (item === null) return false;
    this.choose(null);
    this.#listener.onClose(item);
    return true;
  }

  /** Set a point at a pixel. */
  addPoint(x, y) {
    if (this.#points.length >= MOST_POINTS) return;
    const positive = document.querySelector("input[name=side]:checked").value === "1";
    this.#points.push({ point: [x, y], positive });
    say(`${positive ? "Belongs to it" : "Does not belong to it"}: ${x}, ${y}. ${count(this.#points.length, "point")}.`);
    this.#show();
    this.#listener.onMarks();
  }

  /** Take the last point away. */
  undo() {
    this.#points.pop();
    this.#show();
    this.#listener.onMarks();
  }

  #show() {
    $("chosen").hidden = this.item === null;
    if (this.item) $("chosen-name").textContent = `${nameOf(this.item)} · ${this.item.score.toFixed(2)}${this.item.repaired ? " · repaired" : ""}`;
    $("more-like").hidden = $("not-like").hidden = !this.can("boxes");
    $("repair").hidden = !this.can("clicks");
    $("put-back").hidden = !(this.item && this.#before.get(this.item)?.length);
    $("send-repair").disabled = $("undo-point").disabled = this.#points.length === 0;
  }

  #repairing(on) {
    this.#points = [];
    $("repairing").hidden = !on;
    $("chosen-actions").hidden = on;
    this.#show();
    this.#listener.onMarks();
    if (on) $("marks").focus();
    else if (this.item) $("repair").focus();
  }

  async #send() {
    const item = this.item;
    const mask = await this.#listener.onRepair(clickOf(item.mask.box, this.#points));
    if (mask === null) return;
    this.#before.set(item, [...(this.#before.get(item) ?? []), item.mask]);
    this.#change(item, mask);
    if (item === this.item) this.#repairing(true);
  }

  #putBack() {
    const masks = this.#before.get(this.item);
    this.#change(this.item, masks.pop());
    $("repair").focus();
  }

  #change(item, mask) {
    item.mask = mask;
    item.layer = undefined;
    item.repaired = Boolean(this.#before.get(item)?.length);
    this.#listener.onMask(item);
    this.#show();
  }
}

/** The clicks to send: the points, and a box around the current mask and the positive points. */
function clickOf(box, points) {
  const [x1, y1, x2, y2] = box;
  const inside = points.filter(({ positive }) => positive).map(({ point }) => point);
  const xs = inside.map(([x]) => x);
  const ys = inside.map(([, y]) => y);
  return {
    points: points.map(({ point }) => point),
    labels: points.map(({ positive }) => Number(positive)),
    box: [Math.min(x1, ...xs), Math.min(y1, ...ys), Math.max(x2, ...xs.map((x) => x + 1)), Math.max(y2, ...ys.map((y) => y + 1))],
  };
}
