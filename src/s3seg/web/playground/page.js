// The page: what the user does, and what is shown of it.

import { remarkOn } from "./hints.js";
import { makeListing, markRow } from "./listing.js";
import { promptsIn } from "./prompts.js";
import { Service, ServiceError, tokenProblem } from "./service.js";
import { itemsOf, Stage } from "./stage.js";

const MOST_PROMPTS = 16;
const MOST_BYTES = 10 * 1024 * 1024;
const EXAMPLE_PROMPTS = "star, red circle";
const STEPS = { pending: "Waiting for its turn", processing: "Looking" };
const ON_THIS_MACHINE = new Set(["127.0.0.1", "localhost", "[::1]"]);
const TOKEN_KEY = "s3seg.token"; // in sessionStorage: of this tab, until it is closed

const $ = (id) => document.getElementById(id);
const stage = new Stage($("image"), $("overlay"), pointAt);

let service = null; // none without a token
let picture = null; // {file, name, address, imageUrl}; imageUrl once it is uploaded
let running = null; // AbortController of the search under way
let found = null; // {result, stored, groups, update}
let clock = 0;

// ---- the token ----

/** From the address (#token=...), which never reaches a server or its log; it does not stay there either. */
function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token")?.trim();
  if (!token) return false;
  history.replaceState(null, "", location.pathname + location.search);
  if (tokenProblem(token)) showTokenForm(true, tokenProblem(token));
  else if (ON_THIS_MACHINE.has(location.hostname)) useToken(token);
  else {
    // a stranger's link with a stranger's token would have the user's pictures end in the stranger's account
    showTokenForm(true, "The link brought a token. Use it only if you know who gave you the link.");
    $("token").value = token;
  }
  return true;
}

function useToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
  const home = new URL(setting("s3seg-home") || ".", location.href).href;
  service = new Service({ home, token, publicBase: setting("s3seg-public-base"), onWait: showWait });
  if (picture) picture.imageUrl = null; // it may be another user's
  showTokenForm(false);
  refreshAccount();
}

/** What the service says of itself in the page. */
function setting(name) {
  return document.querySelector(`meta[name="${name}"]`).content;
}

function forgetToken() {
  sessionStorage.removeItem(TOKEN_KEY);
  service = null;
  $("account").hidden = true;
  $("token").value = "";
  showTokenForm(true);
}

function showTokenForm(open, problem = "") {
  $("token-form").hidden = !open;
  $("change-token").setAttribute("aria-expanded", String(open));
  $("forget-token").hidden = service === null;
  showText("token-problem", problem);
  if (open) $("token").focus();
}

async function refreshAccount() {
  const asked = service;
  try {
    const { tier, credits } = await asked.me();
    if (asked !== service) return;
    $("tier").textContent = `${tier} ·`;
    $("credits").textContent = count(credits, "credit");
    $("account").hidden = false;
  } catch (error) {
    if (asked === service) showError(error);
  }
}

// ---- the picture ----

async function takePicture(file) {
  if (!file) return;
  stop();
  showText("error");
  const name = file.name || "pasted picture";
  if (file.size > MOST_BYTES) {
    showText("error", `${name} has ${(file.size / 2 ** 20).toFixed(1)} MB, and the service takes at most 10.`);
    return;
  }
  const address = URL.createObjectURL(file);
  const before = $("image").src;
  $("image").src = address;
  try {
    await $("image").decode();
  } catch {
    URL.revokeObjectURL(address);
    if (before) $("image").src = before;
    showText("error", `${name} is no picture that this browser can show. The service takes PNG, JPEG and WebP.`);
    return;
  }
  if (picture) URL.revokeObjectURL(picture.address);
  picture = { file, name, address, imageUrl: null };
  $("image").alt = name;
  $("layers").style.setProperty("--aspect", $("image").naturalWidth / $("image").naturalHeight);
  $("name").textContent = name;
  $("size").textContent = `${$("image").naturalWidth} × ${$("image").naturalHeight}`;
  $("empty").hidden = true;
  $("stage").hidden = false;
  clearResults();
  $("prompts").focus();
}

async function takeExample() {
  const drawing = new Image();
  drawing.src = $("example").querySelector("img").src;
  await drawing.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [drawing.naturalWidth, drawing.naturalHeight];
  canvas.getContext("2d").drawImage(drawing, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  await takePicture(new File([blob], "shapes.png", { type: "image/png" }));
  if (!$("prompts").value.trim()) $("prompts").value = EXAMPLE_PROMPTS;
  showCost();
}

// ---- finding ----

async function find() {
  const prompts = promptsIn($("prompts").value);
  showText("error");
  if (!picture) return showText("error", "Choose a picture first.");
  if (!prompts.length) return showText("error", `Say what you are looking for, such as: ${EXAMPLE_PROMPTS}.`);
  if (prompts.length > MOST_PROMPTS) {
    return showText("error", `At most ${MOST_PROMPTS} things at a time; these are ${prompts.length}.`);
  }
  if (!service) return showTokenForm(true, "Finding needs an access token.");

  stop();
  const mine = (running = new AbortController());
  const { signal } = mine;
  const asked = picture;
  $("stop").hidden = false;
  $("work").setAttribute("aria-busy", "true");
  try {
    if (!asked.imageUrl) {
      showProgress("Uploading");
      asked.imageUrl = (await service.upload(asked.file, signal)).image_url;
    }
    const result = await service.find(asked.imageUrl, prompts, (status) => showProgress(STEPS[status]), signal);
    showProgress("Drawing");
    const stored = await service.instances(result, signal);
    if (!signal.aborted) showResults(result, stored);
  } catch (error) {
    if (error.status === 400) asked.imageUrl = null; // it may be gone
    if (!signal.aborted) showError(error);
  } finally {
    if (running === mine) endRun();
    if (service) refreshAccount();
  }
}

function stop() {
  if (!running) return;
  running.abort();
  endRun();
  $("status").textContent = "";
}

function endRun() {
  running = null;
  clearInterval(clock);
  $("progress").classList.add("idle");
  $("stop").hidden = true;
  $("work").removeAttribute("aria-busy");
}

// ---- states ----

function showProgress(text) {
  if ($("status").textContent === `${text} …`) return;
  $("progress").classList.remove("idle");
  $("status").textContent = `${text} …`;
  tick((seconds) => (seconds < 2 ? "" : `${seconds} s`));
}

function showWait(wait, error) {
  $("progress").classList.remove("idle");
  $("status").textContent = `Waiting: ${error.message}.`.replace(/\.\.$/, ".");
  tick((seconds) => `${Math.max(0, wait - seconds)} s`);
}

/** Show a time that changes every second, to the eye only. */
function tick(textAt) {
  clearInterval(clock);
  const start = Date.now();
  const show = () => ($("clock").textContent = textAt(Math.round((Date.now() - start) / 1000)));
  show();
  clock = setInterval(show, 1000);
}

function showError(error) {
  if (!(error instanceof ServiceError)) console.error(error);
  if (error.status === 401) {
    $("account").hidden = true;
    showTokenForm(true, sentence(error.message));
    return;
  }
  const again = error.retryAfter ? ` Try again in ${count(error.retryAfter, "second")}.` : "";
  const request = error.requestId ? ` (request ${error.requestId})` : "";
  const refund = error.code === "TASK_FAILED" ? " The credits were given back." : "";
  showText("error", sentence(error.message) + refund + again + request);
}

function showText(id, text = "") {
  $(id).textContent = text;
  $(id).hidden = text === "";
}

// ---- results ----

function clearResults() {
  found = null;
  $("results").hidden = true;
  stage.show([]);
}

function showResults(result, stored) {
  const groups = itemsOf(stored);
  const update = makeListing($("groups"), stored.results, groups, { onPoint: pointFromList, onSwitch: refresh });
  found = { result, stored, groups, update };
  const { metadata } = result;
  showText("remark", remarkOn(metadata));
  const { name, version, device, summary } = metadata.model ?? {};
  const parts = [[name, version].filter(Boolean).join(" "), device, `${Math.round(metadata.inference_time_ms)} ms`];
  $("model").textContent = parts.filter(Boolean).join(" · ") + (summary ? `; ${summary}.` : "");
  $("save-mask").title = `At the default threshold, ${stored.threshold.toFixed(2)}`;
  $("default-threshold").textContent = `default ${stored.threshold.toFixed(2)}`;
  $("threshold").value = stored.threshold;
  $("results").hidden = false;
  refresh();
  tellResults();
}

/** For those who do not see the picture. */
function tellResults() {
  const { groups, stored } = found;
  const each = groups.map((items, k) => `${items.filter(isAbove).length} ${stored.results[k].prompt}`).join(", ");
  $("status").textContent = `${$("summary").textContent}: ${each}.`;
}

function threshold() {
  const { stored } = found;
  const chosen = Number($("threshold").value);
  return Math.abs(chosen - stored.threshold) < 0.005 ? stored.threshold : chosen; // the slider has steps of 0.01
}

function isAbove(item) {
  return item.score > Math.fround(threshold());
}

function refresh() {
  if (!found) return;
  const limit = threshold();
  const shown = found.groups.flat().filter(isAbove);
  $("threshold-value").textContent = limit.toFixed(2);
  $("default-threshold").hidden = limit === found.stored.threshold;
  $("summary").textContent = shown.length ? `${shown.length} found` : "Nothing found";
  found.update(limit, isAbove);
  stage.show(shown.filter((item) => item.wanted));
}

function pointAt(item) {
  stage.highlight(item ? [item] : []);
  markRow($("groups"), item);
}

function pointFromList(items) {
  stage.highlight(items);
}

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${picture.name.replace(/\.[^.]*$/, "")}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function saveObject(url, suffix) {
  try {
    save(await service.object(url), suffix);
  } catch (error) {
    showError(error);
  }
}

// ---- words ----

function count(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

function sentence(text) {
  const whole = text.replace(/^[a-z](?=[a-z]* )/, (letter) => letter.toUpperCase()); // but no name of a field
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

function showCost() {
  const prompts = promptsIn($("prompts").value).length;
  $("cost").textContent = prompts > 1 ? `${prompts} things, ${prompts} credits.` : "";
}

// ---- what the user does ----

$("find-form").addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});
$("prompts").addEventListener("keydown", (event) => {
  const composing = event.isComposing || event.keyCode === 229; // Enter that ends a syllable is not ours
  if (event.key === "Enter" && !event.shiftKey && !composing) {
    event.preventDefault();
    $("find-form").requestSubmit();
  }
});
$("prompts").addEventListener("input", showCost);
$("stop").addEventListener("click", () => {
  stop();
  $("prompts").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});

$("file").addEventListener("change", () => {
  takePicture($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
});
$("example").addEventListener("click", takeExample);
document.addEventListener("paste", (event) => {
  const file = event.clipboardData?.files[0];
  if (!file) return;
  event.preventDefault();
  takePicture(file);
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const leaving = kind === "drop" || (kind === "dragleave" && event.relatedTarget === null);
    document.body.classList.toggle("dropping", !leaving);
    if (kind === "drop") takePicture(event.dataTransfer.files[0]);
  });
}

$("threshold").addEventListener("input", refresh);
$("threshold").addEventListener("change", tellResults);
$("default-threshold").addEventListener("click", () => {
  $("threshold").value = found.stored.threshold;
  refresh();
  $("threshold").focus();
});
$("save-overlay").addEventListener("click", async () => save(await stage.overlay(), "overlay.png"));
$("save-mask").addEventListener("click", () => saveObject(found.result.mask_image_url, "labels.png"));
$("save-instances").addEventListener("click", () => saveObject(found.result.metadata.instances_url, "instances.json"));

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  if (token && tokenProblem(token)) return showText("token-problem", tokenProblem(token));
  if (token) useToken(token);
  $("prompts").focus();
});
$("forget-token").addEventListener("click", forgetToken);
$("change-token").addEventListener("click", () => showTokenForm($("token-form").hidden));
window.addEventListener("hashchange", takeTokenFromAddress);

if (!takeTokenFromAddress()) {
  const kept = sessionStorage.getItem(TOKEN_KEY);
  if (kept) useToken(kept);
  else showTokenForm(true);
}
