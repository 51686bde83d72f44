// Small helpers for elements and words. All text goes in as text, never as markup.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** A new element. */
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** A new button that calls `onClick`. */
export function button(text, onClick, className = "quiet") {
  const element = make("button", className, text);
  element.type = "button";
  element.addEventListener("click", onClick);
  return element;
}

/** Show a text in an element; hide the element if there is none. */
export function showText(id, text = "") {
  $(id).textContent = text;
  $(id).hidden = text === "";
}

/** Announce a text to screen readers, without showing it. */
export function say(text) {
  $("spoken").textContent = text;
}

/** Such as "1 credit" or "2 credits". */
export function count(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

/** A message as a sentence: a capital letter, unless it begins with the name of a field, and a full stop. */
export function sentence(text) {
  const whole = text.replace(/^[a-z](?=[a-z]* )/, (letter) => letter.toUpperCase());
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** A value that the service wrote into a meta element of the page. */
export function setting(name) {
  return document.querySelector(`meta[name="${name}"]`).content;
}

/** Download a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
