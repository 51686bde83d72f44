// What was found, as a list: groups of instances with switches, and a button to work with each.

import { css } from "./colors.js";
import { make } from "./dom.js";
import { nameOf } from "./items.js";

/** @typedef {import("./items.js").Item} Item */

/** A list of the instances of each prompt. */
export class Listing {
  #rows = new Map();
  #groups;
  #pointed = null;

  /**
   * @param {HTMLElement} container Emptied first.
   * @param {string[]} prompts
   * @param {Item[][]} groups Items of each prompt.
   * @param {object} listener
   * @param {(items: Item[]) => void} listener.onPoint These are pointed at.
   * @param {() => void} listener.onSwitch Some were hidden or shown.
   * @param {(item: Item) => void} listener.onChoose The user wants to work with it.
   */
  constructor(container, prompts, groups, listener) {
    this.#groups = groups.map((items, k) => makeGroup(prompts[k], items, listener));
    for (const group of this.#groups) for (const row of group.rows) this.#rows.set(row.item, row.element);
    container.replaceChildren(...this.#groups.map((group) => group.element));
  }

  /** Show the items above the threshold, and which of them are wanted. */
  update(threshold, above) {
    for (const group of this.#groups) group.update(threshold, above);
  }

  /** Mark the row of an item, or of none. */
  mark(item) {
    this.#rows.get(this.#pointed)?.classList.remove("pointed");
    this.#rows.get(item)?.classList.add("pointed");
    this.#pointed = item;
  }

  /** Say in the list which item the user works with, if any. */
  choose(item) {
    for (const [one, row] of this.#rows) row.querySelector("button").setAttribute("aria-pressed", String(one === item));
  }

  /** Move the focus to the button of an item. */
  focus(item) {
    this.#rows.get(item)?.querySelector("button").focus();
  }
}

function makeGroup(prompt, items, listener) {
  const several = new Set(items.map((item) => item.color.join())).size > 1;
  const name = make("span", "name", prompt);
  name.title = prompt;
  const count = make("span", "count");
  const [head, all] = switchOf([...(items.length && !several ? [swatch(items[0].color)] : []), name, count]);
  const heading = make("h3");
  heading.append(head);
  const list = make("ul");
  const nothing = make("p", "hint");
  const element = make("section", "group");
  element.append(heading, nothing, list);
  let shown = items;

  all.addEventListener("change", () => {
    for (const item of items) item.wanted = all.checked;
    listener.onSwitch();
  });
  pointing(heading, () => shown, listener.onPoint);
  const rows = items.map((item) => makeRow(item, several, listener));
  list.append(...rows.map((row) => row.element));

  function update(threshold, above) {
    shown = items.filter(above);
    const wanted = shown.filter((item) => item.wanted).length;
    for (const row of rows) row.update(above);
    count.textContent = shown.length ? String(shown.length) : "";
    all.checked = wanted > 0;
    all.indeterminate = wanted > 0 && wanted < shown.length;
    all.disabled = shown.length === 0;
    nothing.hidden = shown.length > 0;
    list.hidden = shown.length === 0;
    const best = items[0];
    nothing.textContent = best
      ? `Nothing above ${threshold.toFixed(2)}; the best has ${best.score.toFixed(2)}.`
      : "Not found.";
  }
  return { element, rows, update };
}

function makeRow(item, several, { onPoint, onSwitch, onChoose }) {
  const bar = make("span", "bar");
  const filled = make("span");
  filled.style.width = `${100 * item.score}%`;
  bar.append(filled);
  const name = make("span", "name");
  name.append(make("span", "", item.prompt), ` ${item.number}`); // if there is no room, the words are cut and not the number
  const score = make("span", "score", item.score.toFixed(2));
  const [label, box] = switchOf([...(several ? [swatch(item.color)] : []), name, bar, score]);
  const choose = make("button", "more", "⋯");
  choose.type = "button";
  choose.setAttribute("aria-label", `Work with ${nameOf(item)}`);
  choose.setAttribute("aria-pressed", "false");
  const element = make("li");
  element.append(label, choose);
  choose.addEventListener("click", () => onChoose(item));
  box.addEventListener("change", () => {
    item.wanted = box.checked;
    onSwitch();
  });
  pointing(element, () => (item.wanted ? [item] : []), onPoint);
  function update(above) {
    element.hidden = !above(item);
    box.checked = item.wanted;
  }
  return { item, element, update };
}

/** Tell of hovering and of keyboard focus alike. */
function pointing(element, items, onPoint) {
  for (const kind of ["pointerenter", "focusin"]) element.addEventListener(kind, () => onPoint(items()));
  for (const kind of ["pointerleave", "focusout"]) element.addEventListener(kind, () => onPoint([]));
}

function switchOf(children) {
  const box = make("input");
  box.type = "checkbox";
  const label = make("label");
  label.append(box, ...children);
  return [label, box];
}

/** A small square of an item's colour. */
function swatch(color) {
  const square = make("span", "swatch");
  square.style.background = css(color);
  return square;
}
