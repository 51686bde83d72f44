// Searches: one runs at a time and can be stopped; the last one is shown again after a reload.

import { $, showText } from "./dom.js";
import { forget, opened, remember, setOpened } from "./memory.js";
import { ServiceError } from "./requests.js";
import { Mask } from "./rle.js";

/** @typedef {import("./service.js").Question} Question */

/** Asks the service about the picture. */
export class Searches {
  #account;
  #picture;
  #progress;
  #listener;
  #running = null; // AbortController of the search under way

  /**
   * @param {import("./account.js").Account} account
   * @param {import("./picture.js").PictureChooser} picture
   * @param {import("./progress.js").Progress} progress
   * @param {object} listener
   * @param {(result: object, stored: object, question: Question | null) => void} listener.onResult A search has a
   *   result; the question is null for an earlier search, of which it is not known.
   * @param {(error: Error, goesOn: boolean) => void} listener.onError A search failed; with `goesOn`, the service
   *   could not be reached, and a reload waits for the task again.
   * @param {() => void} listener.onEnd A search has ended in any way.
   */
  constructor(account, picture, progress, listener) {
    this.#account = account;
    this.#picture = picture;
    this.#progress = progress;
    this.#listener = listener;
  }

  /** Whether one is under way. */
  get running() {
    return this.#running !== null;
  }

  /** Stop waiting; the task is cancelled, and its credits come back. False if there was nothing to stop. */
  stop() {
    if (!this.#running) return false;
    this.#running.abort();
    this.#running = null;
    this.#progress.end();
    $("status").textContent = "";
    return true;
  }

  /** Search, and report the result. */
  async find(question) {
    showText("error");
    if (!this.#picture.current) return showText("error", "Choose a picture first.");
    await this.#run(async (service, signal) => {
      const { imageUrl, name } = await this.#uploaded(service, signal);
      if (!this.#account.user) await this.#account.refresh();
      const onTask = (id) => {
        const { user } = this.#account;
        if (!user) return;
        remember({ id, name, user });
        setOpened({ id, name, user });
      };
      const result = await service.find(imageUrl, question, { onTask, ...this.#hooks(signal, question) });
      await this.#handOn(service, result, question, signal);
    });
  }

  /** Ask for the mask at clicks; null if there is none. */
  async repair(question) {
    let mask = null;
    await this.#run(async (service, signal) => {
      const { imageUrl } = await this.#uploaded(service, signal);
      const result = await service.find(imageUrl, question, this.#hooks(signal));
      const [instance] = (await service.instances(result, signal)).results[0].instances;
      if (!instance) throw new ServiceError("The clicks show nothing.");
      signal.throwIfAborted();
      mask = new Mask(instance.rle);
      $("status").textContent = "Repaired.";
    });
    return mask;
  }

  /** Save examples on the picture as a concept; false if that failed. */
  async keep(name, { words, boxes, negativeBoxes }) {
    let kept = false;
    await this.#run(async (service, signal) => {
      const { imageUrl } = await this.#uploaded(service, signal);
      await service.createConcept({ name, words, examples: [{ imageUrl, boxes, negativeBoxes }] }, { signal });
      kept = true;
      $("status").textContent = `The concept ${name} is kept.`;
    });
    return kept;
  }

  /** Show an earlier search again; wait for it if it has not ended. */
  async open(entry) {
    await this.#run(async (service, signal) => {
      this.#progress.step("Opening");
      let result = await this.#existing(service, entry, signal);
      const blob = await service.object(result.source_image_url, signal);
      if (!(await this.#picture.takeStored(blob, entry.name, result.source_image_url)) || signal.aborted) return;
      setOpened(entry);
      if (result.status !== "done") result = await service.follow(entry.id, this.#hooks(signal));
      await this.#handOn(service, result, null, signal);
      $("summary").focus();
    });
  }

  /** After a reload, show the search that this tab showed before. */
  reopen() {
    const entry = opened();
    if (entry && entry.user === this.#account.user && !this.#picture.current) this.open(entry);
  }

  /** Stop the search that is running, then run another one, which can be stopped too. */
  async #run(work) {
    const { service } = this.#account;
    if (!service) return this.#account.ask("This needs an access token.");
    this.stop();
    showText("error");
    const mine = (this.#running = new AbortController());
    try {
      await work(service, mine.signal);
    } catch (error) {
      if (error.status === 400 && this.#picture.current) this.#picture.current.imageUrl = null; // it may be deleted
      if (mine.signal.aborted) return;
      $("status").textContent = "";
      this.#listener.onError(error, Boolean(error.taskId) && error.taskId === opened()?.id);
    } finally {
      if (this.#running === mine) {
        this.#running = null;
        this.#progress.end();
      }
      this.#listener.onEnd();
    }
  }

  /** The picture, stored on the service. */
  async #uploaded(service, signal) {
    const picture = this.#picture.current;
    if (!picture.imageUrl) {
      this.#progress.step("Uploading");
      picture.imageUrl = (await service.upload(picture.file, signal)).image_url;
    }
    return picture;
  }

  async #existing(service, entry, signal) {
    try {
      return await service.result(entry.id, signal);
    } catch (error) {
      if (error.status !== 404) throw error;
      forget(entry.id);
      setOpened(null);
      throw new ServiceError("This result no longer exists.", { status: 404, code: "NOT_FOUND" });
    }
  }

  async #handOn(service, result, question, signal) {
    this.#progress.step("Drawing");
    const stored = await service.instances(result, signal);
    signal.throwIfAborted();
    this.#listener.onResult(result, stored, question);
  }

  #hooks(signal, question = {}) {
    return { onStatus: (status) => this.#progress.status(status, Boolean(question.tile)), signal };
  }
}
