// The progress of a search: its state, a clock, and an explanation if a task waits or runs for long.

import { $, count, sentence, showText } from "./dom.js";

const STEPS = { pending: "Waiting for its turn", processing: "Looking", tiles: "Looking into tiles" };
const LONG_MS = { pending: 5_000, processing: 60_000 }; // after which the page explains what may be wrong
const SNOOZE_MS = 60_000;
const ON_THIS_MACHINE = new Set(["127.0.0.1", "localhost", "[::1]"]);

/** Shows how a search goes. */
export class Progress {
  #clock = 0;
  #alarm = 0;
  #status = "";
  #since = 0;
  #problem;

  /**
   * @param {object} listener
   * @param {() => Promise<string>} listener.problem What does not work on the service; "" if it is ready.
   * @param {() => void} listener.onGiveUp The user no longer waits.
   */
  constructor({ problem, onGiveUp }) {
    this.#problem = problem;
    $("keep-waiting").addEventListener("click", () => {
      $("patience").hidden = true;
      this.#remind(SNOOZE_MS);
      $("stop").focus();
    });
    $("give-up").addEventListener("click", onGiveUp);
  }

  /** A step such as "Uploading" has begun. */
  step(text) {
    if ($("status").textContent === `${text} …` && !$("progress").classList.contains("idle")) return;
    this.#show();
    $("status").textContent = `${text} …`;
    this.#tick((seconds) => (seconds < 2 ? "" : `${seconds} s`));
  }

  /** The task has this status; `inTiles` says how it is worked on. */
  status(status, inTiles = false) {
    if (status !== this.#status) {
      this.#status = status;
      this.#since = Date.now();
      $("patience").hidden = true;
      this.#remind(LONG_MS[status]);
    }
    this.step(STEPS[status === "processing" && inTiles ? "tiles" : status]);
  }

  /** A request waits so many seconds, because of this error. */
  wait(seconds, error) {
    this.#show();
    $("status").textContent = `Waiting: ${error.message}.`.replace(/\.\.$/, ".");
    this.#tick((passed) => `${Math.max(0, seconds - passed)} s`);
  }

  /** No search runs any more. */
  end() {
    clearInterval(this.#clock);
    clearTimeout(this.#alarm);
    this.#status = "";
    $("progress").classList.add("idle");
    $("patience").hidden = true;
    $("stop").hidden = true;
    $("work").removeAttribute("aria-busy");
  }

  #show() {
    $("progress").classList.remove("idle");
    $("stop").hidden = false;
    $("work").setAttribute("aria-busy", "true");
  }

  #remind(ms) {
    clearTimeout(this.#alarm);
    this.#alarm = setTimeout(() => this.#tellWhy(), ms);
  }

  async #tellWhy() {
    const status = this.#status;
    const problem = await this.#problem();
    if (status !== this.#status || !status) return;
    const seconds = count(Math.round((Date.now() - this.#since) / 1000), "second");
    $("patience-text").textContent = [
      status === "pending" ? notTaken(seconds) : notFinished(seconds),
      ...(problem ? [`The service says: ${sentence(problem)}`] : []),
    ].join(" ");
    $("patience").hidden = false;
  }

  /** Show a time that changes every second; screen readers do not announce it. */
  #tick(textAt) {
    clearInterval(this.#clock);
    const start = Date.now();
    const show = () => ($("clock").textContent = textAt(Math.round((Date.now() - start) / 1000)));
    show();
    this.#clock = setInterval(show, 1000);
  }
}

function notTaken(seconds) {
  const remedy = ON_THIS_MACHINE.has(location.hostname)
    ? "If this is your service: “s3seg serve edge” alone does not work on tasks. Start “s3seg serve gpu” or “s3seg worker” beside it."
    : "If it stays like this, tell whoever runs the service.";
  return `Nobody works on your task yet: no worker of the service has taken it in ${seconds}. All of them are busy, or none is running. ${remedy} You may also close this page: the task stays in the queue, and you find it again here.`;
}

function notFinished(seconds) {
  return `A worker took your task ${seconds} ago and has not finished it. A large picture, and one in tiles, can take this long on a processor without a graphics card. If the worker has stopped, another one takes over by itself.`;
}

/** Show the service's message, with the id of the request if it is an error of the service. */
export function showError(error, goesOn) {
  const again = error.retryAfter && error.status ? ` Try again in ${count(error.retryAfter, "second")}.` : "";
  const request = error.requestId && error.status >= 500 ? ` (request ${error.requestId})` : "";
  const kept = goesOn ? " Your task is not lost: reload this page to go on waiting for it." : "";
  const refund = error.code === "TASK_FAILED" ? " The credits were given back." : "";
  showText("error", sentence(error.message) + refund + kept + again + request);
  $("error").scrollIntoView({ block: "nearest" });
}
