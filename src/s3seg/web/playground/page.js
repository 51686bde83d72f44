// The page: puts the parts together, and runs the searches.

import { Account } from "./account.js";
import { Chosen } from "./chosen.js";
import { CodePanel } from "./codepanel.js";
import { Concepts } from "./concepts.js";
import { $, count, say, sentence, showText } from "./dom.js";
import { Examples } from "./examples.js";
import { Marks } from "./marks.js";
import { forget, opened, remember, setOpened } from "./memory.js";
import { Past } from "./past.js";
import { PictureChooser } from "./picture.js";
import { Progress, showError } from "./progress.js";
import { promptsIn } from "./prompts.js";
import { ServiceError } from "./requests.js";
import { Results } from "./results.js";
import { Mask } from "./rle.js";
import { Stage } from "./stage.js";

const MOST_PROMPTS = 16;
const EXAMPLE_PROMPTS = "star, red circle";
const HINTS = {
  look: "Press an instance to work with it.",
  like: "Draw a box around something that you want to find, and others like it.",
  not: "Draw a box around something that you do not want to find.",
  repair: "Press what belongs to the instance; switch to “Does not” for what is too much.",
  keys: "With keys: arrows move the crosshair, Shift makes it slower, Enter begins and ends, Delete takes back.",
};

let running = null; // AbortController of the search under way
let asked = null; // the question that was asked last

// ---- the parts ----

const account = new Account({
  onService: () => {
    stop();
    if (picture.current) picture.current.imageUrl = null; // it may be another user's
    past.refresh();
    concepts.refresh();
  },
  onUser: () => {
    past.refresh();
    reopen();
  },
  onWait: (seconds, error) => running && progress.wait(seconds, error),
  onError: fail,
});
const progress = new Progress({ problem: () => account.service.problem(), onGiveUp: stopHere });
const picture = new PictureChooser({
  onBegin: () => {
    stop();
    showText("error");
  },
  onTaken: () => {
    setOpened(null);
    clear();
    examples.clear();
    $("prompts").focus();
  },
});
const stage = new Stage($("image"), $("overlay"));
const results = new Results(stage, {
  picture: () => picture.current,
  object: (url) => account.service.object(url),
  onChoose: choose,
  onChange: showCode,
  onError: fail,
});
const examples = new Examples({
  onChange: showMarks,
  onFind: (question) => find({ examples: question }),
  onKeep: keep,
  onRefuse: (text) => showText("error", text),
});
const chosen = new Chosen({
  onChoose: (item) => results.choose(item),
  onClose: (item) => results.focus(item),
  onMarks: showMarks,
  onExample: (box, positive) => examples.add(box, positive),
  onRepair: repair,
  onMask: (item) => {
    results.refresh();
    results.choose(item);
  },
});
const marks = new Marks($("image"), $("marks"), {
  onMove: (x, y) => tool() === "look" && results.point(stage.itemAt(x, y)),
  onLeave: () => results.point(null),
  onPoint: (x, y) => (chosen.repairs ? chosen.addPoint(x, y) : choose(stage.itemAt(x, y))),
  onBox: (box) => examples.add(box, tool() === "like"),
  onUndo: () => (chosen.repairs ? chosen.undo() : examples.undo()),
  onSay: say,
});
const code = new CodePanel();
const concepts = new Concepts(account, { onFind: ({ id, name }) => find({ concept: { id, name } }), onError: fail });
const past = new Past(account, open);

// ---- finding ----

function findWords() {
  const words = promptsIn($("prompts").value);
  showText("error");
  if (!picture.current) return showText("error", "Choose a picture first.");
  if (!words.length) return showText("error", `Say what you are looking for, such as: ${EXAMPLE_PROMPTS}.`);
  if (words.length > MOST_PROMPTS) {
    return showText("error", `At most ${MOST_PROMPTS} things at a time; these are ${words.length}.`);
  }
  find({ words });
}

/** Ask the service, and show what it found. */
async function find(question) {
  showText("error");
  if (!picture.current) return showText("error", "Choose a picture first.");
  if (!account.service) return account.ask("Finding needs an access token.");
  await run(async (signal) => {
    const { imageUrl, name } = await uploaded(signal);
    if (!account.user) await account.refresh();
    asked = question;
    const onTask = (id) => {
      if (!account.user) return;
      const entry = { id, name, user: account.user };
      remember(entry);
      setOpened(entry); // so that it is found again after a reload
    };
    const onStatus = (status) => progress.status(status);
    await show(await account.service.find(imageUrl, question, { onTask, onStatus, signal }), signal);
  });
}

/** Ask for the mask that clicks show; null if there is none. */
async function repair(click) {
  let mask = null;
  await run(async (signal) => {
    const { imageUrl } = await uploaded(signal);
    const question = { click };
    const result = await account.service.find(imageUrl, question, { onStatus: (status) => progress.status(status), signal });
    const [instance] = (await account.service.instances(result, signal)).results[0].instances;
    if (!instance) throw new ServiceError("The clicks show nothing.");
    mask = new Mask(instance.rle);
    asked = question;
    $("status").textContent = "Repaired.";
  });
  return mask;
}

/** Do something that can be stopped, after what is under way was stopped. */
async function run(work) {
  stop();
  showText("error");
  const mine = (running = new AbortController());
  try {
    await work(mine.signal);
  } catch (error) {
    if (error.status === 400 && picture.current) picture.current.imageUrl = null; // it may be gone
    if (!mine.signal.aborted) {
      $("status").textContent = "";
      fail(error);
    }
  } finally {
    if (running === mine) {
      running = null;
      progress.end();
    }
    account.refresh();
    past.refresh();
  }
}

/** The picture, stored on the service. */
async function uploaded(signal) {
  const one = picture.current;
  if (!one.imageUrl) {
    progress.step("Uploading");
    one.imageUrl = (await account.service.upload(one.file, signal)).image_url;
  }
  return one;
}

async function show(result, signal) {
  progress.step("Drawing");
  const stored = await account.service.instances(result, signal);
  if (signal.aborted) return;
  clear();
  chosen.kinds = result.metadata.prompt_kinds ?? null;
  showTools();
  results.show(result, stored);
  $("status").textContent = results.summary();
}

/** Show an earlier search again; wait for it if it has not ended. */
async function open(entry) {
  if (!account.service) return account.ask("Reading results needs an access token.");
  await run(async (signal) => {
    progress.step("Opening");
    let result;
    try {
      result = await account.service.result(entry.id, signal);
    } catch (error) {
      if (error.status !== 404) throw error;
      forget(entry.id);
      setOpened(null);
      throw new ServiceError("This result no longer exists.", { status: 404, code: "NOT_FOUND" });
    }
    const blob = await account.service.object(result.source_image_url, signal);
    if (signal.aborted || !(await picture.takeStored(blob, entry.name, result.source_image_url))) return;
    setOpened(entry);
    asked = null; // how it was asked is not stored
    if (result.status !== "done") {
      result = await account.service.follow(entry.id, { onStatus: (status) => progress.status(status), signal });
    }
    await show(result, signal);
    $("summary").focus();
  });
}

/** After a reload: what this tab showed before. */
function reopen() {
  const entry = opened();
  if (entry && entry.user === account.user && !picture.current) open(entry);
}

/** Stop waiting; the task is cancelled, and its credits come back. */
function stop() {
  if (!running) return;
  running.abort();
  running = null;
  progress.end();
  $("status").textContent = "";
}

function stopHere() {
  stop();
  $("prompts").focus();
}

async function keep(name, { words, boxes, negativeBoxes }) {
  if (!account.service) return account.ask("Keeping a concept needs an access token.");
  await run(async (signal) => {
    const { imageUrl } = await uploaded(signal);
    await account.service.createConcept({ name, words, examples: [{ imageUrl, boxes, negativeBoxes }] }, { signal });
    $("concepts").open = true;
    await concepts.refresh();
    $("status").textContent = `The concept ${name} is kept.`;
  });
}

// ---- what is shown ----

function clear() {
  chosen.choose(null);
  results.clear();
}

function choose(item) {
  chosen.choose(item);
  if (!item) return;
  $("chosen-name").focus({ preventScroll: true });
  $("chosen").scrollIntoView({ block: "nearest" });
}

/** What a press on the picture does. */
function tool() {
  return chosen.repairs ? "repair" : document.querySelector("input[name=tool]:checked").value;
}

function showTools() {
  const boxes = chosen.can("boxes");
  $("tools").hidden = chosen.repairs || !boxes;
  if (!boxes) document.querySelector("input[name=tool][value=look]").checked = true;
  showMarks();
}

function showMarks() {
  const now = tool();
  $("tools").hidden = chosen.repairs || !chosen.can("boxes");
  $("marks").dataset.positive = String(now !== "not");
  marks.use({ look: "look", repair: "point" }[now] ?? "box");
  marks.show(chosen.repairs ? chosen.marks : examples.marks);
  const look = now === "look";
  showText("tool-hint", look ? (results.current ? HINTS.look : "") : HINTS[now]);
  $("marks").setAttribute("aria-description", look ? "" : HINTS.keys);
}

function showCode() {
  const url = account.service?.home.replace(/\/+$/, "");
  const { name, imageUrl } = picture.current;
  code.update(asked && url ? { url, file: name, imageUrl, question: asked, threshold: results.chosenThreshold } : null);
}

function fail(error) {
  if (!(error instanceof ServiceError)) console.error(error);
  if (error.status === 401) account.refused(sentence(error.message));
  else showError(error);
}

function showCost() {
  const prompts = promptsIn($("prompts").value).length;
  $("cost").textContent = prompts > 1 ? `${prompts} things, ${count(prompts, "credit")}.` : "";
}

// ---- what the user does ----

$("find-form").addEventListener("submit", (event) => {
  event.preventDefault();
  findWords();
});
$("prompts").addEventListener("keydown", (event) => {
  const composing = event.isComposing || event.keyCode === 229; // Enter that ends a syllable is not ours
  if (event.key === "Enter" && !event.shiftKey && !composing) {
    event.preventDefault();
    $("find-form").requestSubmit();
  }
});
$("prompts").addEventListener("input", showCost);
$("stop").addEventListener("click", stopHere);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (running) stop();
  else chosen.close();
});
$("example").addEventListener("click", async () => {
  if (!(await picture.takeExample())) return;
  if (!$("prompts").value.trim()) $("prompts").value = EXAMPLE_PROMPTS;
  showCost();
});
$("tools").addEventListener("change", showMarks);

account.begin();
