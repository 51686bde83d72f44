// What was found, as a list: groups of instances with switches. All text goes in as text, never as markup.

import { swatch } from "./stage.js";

/**
 * Make the list anew.
 *
 * @param {HTMLElement} container
 * @param {object[]} results As stored: `{prompt, presence, instances}`.
 * @param {import("./stage.js").Item[][]} groups Items of each.
 * @param {{onPoint: (items: object[]) => void, onSwitch: () => void}} listener
 * @returns {(threshold: number, shown: (item: object) => boolean) => void} Brings the list up to date.
 */
export function makeListing(container, results, groups, { onPoint, onSwitch }) {
  const rows = groups.map((items, k) => makeGroup(results[k], items, { onPoint, onSwitch }));
  container.replaceChildren(...rows.map((row) => row.element));
  return (threshold, above) => rows.forEach((row) => row.update(threshold, above));
}

/** Mark the row of an item, or of none. */
export function markRow(container, item) {
  for (const row of container.querySelectorAll("li")) row.classList.toggle("pointed", row.item === item && item !== null);
}

function makeGroup(result, items, { onPoint, onSwitch }) {
  const several = new Set(items.map((item) => item.color.join())).size > 1;
  const name = make("span", "name", result.prompt);
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
    onSwitch();
  });
  pointing(heading, () => shown, onPoint);
  const rows = items.map((item, k) => {
    const row = makeRow(item, k, several, { onPoint, onSwitch });
    list.append(row.element);
    return row;
  });

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
  return { element, update };
}

function makeRow(item, k, several, { onPoint, onSwitch }) {
  const bar = make("span", "bar");
  const filled = make("span");
  filled.style.width = `${100 * item.score}%`;
  bar.append(filled);
  const name = make("span", "name", `${item.prompt} ${k + 1}`);
  const [label, box] = switchOf([...(several ? [swatch(item.color)] : []), name, bar, make("span", "score", item.score.toFixed(2))]);
  const element = make("li");
  element.item = item;
  element.append(label);
  box.addEventListener("change", () => {
    item.wanted = box.checked;
    onSwitch();
  });
  pointing(element, () => (item.wanted ? [item] : []), onPoint);
  function update(above) {
    element.hidden = !above(item);
    box.checked = item.wanted;
  }
  return { element, update };
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

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
