// The page: puts the parts together.

import { Account } from "./account.js";
import { Chosen } from "./chosen.js";
import { CodePanel } from "./codepanel.js";
import { Concepts } from "./concepts.js";
import { $, count, say, sentence, showText } from "./dom.js";
import { Examples } from "./examples.js";
import { Marks } from "./marks.js";
import { setOpened } from "./memory.js";
import { Past } from "./past.js";
import { PictureChooser } from "./picture.js";
import { Progress, showError } from "./progress.js";
import { promptsIn } from "./prompts.js";
import { ServiceError } from "./requests.js";
import { Results } from "./results.js";
import { Searches } from "./searches.js";
import { Stage } from "./stage.js";
import { Tiles } from "./tiles.js";

const MOST_PROMPTS = 16;
const MOST_CHARACTERS = 500; // of a prompt
const EXAMPLE_PROMPTS = "star, red circle";
const HINTS = {
  look: "Press an instance to work with it.",
  like: "Draw a box around something that you want to find, and others like it.",
  not: "Draw a box around something that you do not want to find.",
  repair: "Press what belongs to the instance; switch to “Does not” for what is too much.",
  keys: "With keys: arrows move the crosshair, Shift makes it slower, Enter begins and ends, Delete takes back.",
};

let asked = null; // the question that led to the shown result; null if it is not known

// ---- the parts ----

const account = new Account({
  onService: () => {
    searches.stop();
    if (picture.current) picture.current.imageUrl = null; // it may be another user's
    past.refresh();
    concepts.refresh();
  },
  onUser: () => {
    past.refresh();
    searches.reopen();
  },
  onWait: (seconds, error) => searches.running && progress.wait(seconds, error),
  onError: fail,
});
const progress = new Progress({ problem: () => account.service.problem(), onGiveUp: stop });
const picture = new PictureChooser({
  onBegin: () => {
    searches.stop();
    showText("error");
  },
  onTaken: (taken) => {
    setOpened(null);
    tiles.offer(taken);
    clear();
    examples.clear();
    $("prompts").focus();
  },
});
const tiles = new Tiles();
const searches = new Searches(account, picture, progress, {
  onResult: show,
  onError: fail,
  onEnd: () => {
    account.refresh();
    past.refresh();
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
  onFind: (question) => searches.find({ examples: question }),
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
const concepts = new Concepts(account, { onFind: ({ id, name }) => searches.find({ concept: { id, name } }), onError: fail });
const past = new Past(account, (entry) => searches.open(entry));

// ---- asking ----

function findWords() {
  const words = promptsIn($("prompts").value);
  if (!picture.current) return showText("error", "Choose a picture first.");
  if (!words.length) return showText("error", `Say what you are looking for, such as: ${EXAMPLE_PROMPTS}.`);
  if (words.length > MOST_PROMPTS) {
    return showText("error", `At most ${MOST_PROMPTS} things at a time; these are ${words.length}.`);
  }
  const long = words.map((word) => [...word].length).find((length) => length > MOST_CHARACTERS);
  if (long) return showText("error", `At most ${MOST_CHARACTERS} characters for a thing; one of these has ${long}. A few words are enough.`);
  searches.find({ words, tile: tiles.chosen });
}

async function repair(click) {
  const mask = await searches.repair({ click });
  if (mask) asked = { click };
  return mask;
}

async function keep(name, question) {
  if (!(await searches.keep(name, question))) return false;
  $("concepts").open = true;
  await concepts.refresh();
  return true;
}

function stop() {
  searches.stop();
  $("prompts").focus();
}

// ---- what is shown ----

function show(result, stored, question) {
  clear();
  asked = question;
  chosen.kinds = result.metadata.prompt_kinds ?? null;
  showTools();
  results.show(result, stored);
  if (!question) tiles.choose(result.metadata.tile); // show the tiles that the past search used
  $("status").textContent = results.summary();
}

function clear() {
  chosen.choose(null);
  results.clear();
  code.update(null);
}

function choose(item) {
  chosen.choose(item);
  if (!item) return;
  $("chosen-name").focus({ preventScroll: true });
  $("chosen").scrollIntoView({ block: "nearest" });
}

/** The tool in use, which decides what a press on the picture does. */
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

function fail(error, goesOn = false) {
  if (!(error instanceof ServiceError)) console.error(error);
  if (error.status === 401) account.refused(sentence(error.message));
  else showError(error, goesOn);
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
  const composing = event.isComposing || event.keyCode === 229; // this Enter confirms the text of an input method
  if (event.key === "Enter" && !event.shiftKey && !composing) {
    event.preventDefault();
    $("find-form").requestSubmit();
  }
});
$("prompts").addEventListener("input", showCost);
$("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !searches.stop()) chosen.close();
});
$("example").addEventListener("click", async () => {
  if (!(await picture.takeExample())) return;
  if (!$("prompts").value.trim()) $("prompts").value = EXAMPLE_PROMPTS;
  showCost();
});
$("tools").addEventListener("change", showMarks);

account.begin();
