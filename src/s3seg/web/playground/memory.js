// What the browser remembers of earlier searches: the ids of tasks and the names of pictures, and nothing else.

const PAST_KEY = "s3seg.past"; // in localStorage: of this browser
const OPEN_KEY = "s3seg.open"; // in sessionStorage: of this tab
const MOST = 24; // of a user
const MOST_OF_ALL = 96;

/**
 * A search that was begun here.
 *
 * @typedef {{id: string, name: string, user: string}} Entry Id of the task, name of the picture, id of the user.
 */

/** The searches of a user, newest first. @returns {Entry[]} */
export function pastOf(user) {
  return all().filter((entry) => entry.user === user);
}

/** Remember a search. */
export function remember(entry) {
  const others = all().filter((one) => one.id !== entry.id);
  const mine = others.filter((one) => one.user === entry.user).slice(0, MOST - 1);
  const kept = [entry, ...others.filter((one) => one.user !== entry.user || mine.includes(one))];
  write(localStorage, PAST_KEY, kept.slice(0, MOST_OF_ALL));
}

/** Forget one search. */
export function forget(id) {
  write(localStorage, PAST_KEY, all().filter((one) => one.id !== id));
}

/** Forget all searches of a user. */
export function forgetAll(user) {
  write(localStorage, PAST_KEY, all().filter((one) => one.user !== user));
  write(sessionStorage, OPEN_KEY, null);
}

/** The search that this tab shows, to show it again after a reload; null for none. @returns {Entry | null} */
export function opened() {
  const entry = read(sessionStorage, OPEN_KEY);
  return isEntry(entry) ? entry : null;
}

/** This tab shows a search, or none. */
export function setOpened(entry) {
  write(sessionStorage, OPEN_KEY, entry);
}

function all() {
  const entries = read(localStorage, PAST_KEY);
  return Array.isArray(entries) ? entries.filter(isEntry) : [];
}

/** Whether a stored value is an entry: other programs of the same origin may have written something else. */
function isEntry(entry) {
  return [entry?.id, entry?.name, entry?.user].every((one) => typeof one === "string") && /^[0-9a-f-]{36}$/.test(entry.id);
}

function read(storage, key) {
  try {
    return JSON.parse(storage.getItem(key));
  } catch {
    return null;
  }
}

function write(storage, key, value) {
  try {
    if (value === null) storage.removeItem(key);
    else storage.setItem(key, JSON.stringify(value));
  } catch {
    // the storage is full, or the user has turned it off: the page works without it
  }
}
