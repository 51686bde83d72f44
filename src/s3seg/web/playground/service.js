// The edge's API, as the page needs it. Nothing here touches the page.

import { errorOf, randomKey, Requests, ServiceError, wait } from "./requests.js";

const FIRST_PAUSE_MS = 150; // between looks at a task
const LONGEST_PAUSE_MS = 2000;
const INSTANCES_FORMAT = "s3seg.instances/1";
const MOST_LISTED = 100; // results of one request

/**
 * What to find on a picture: words, the object at clicks, what is like examples in boxes, or a stored concept.
 * Words are looked for also in tiles, if `tile` is their side in pixels.
 *
 * @typedef {{words: string[], tile?: number | null}
 *   | {click: {points: [number, number][], labels: number[], box: number[]}}
 *   | {examples: {name: string, words: string | null, boxes: number[][], negativeBoxes: number[][]}}
 *   | {concept: {id: string, name: string}}} Question
 */

/** One user's access to an edge service. */
export class Service {
  #requests;

  /**
   * @param {object} options
   * @param {string} options.home Address of the folder that the service's root is, with a slash at its end.
   * @param {string} options.token The access token.
   * @param {string} options.publicBase What addresses of stored objects begin with; they are read through the edge.
   * @param {(seconds: number, error: ServiceError) => void} [options.onWait] Called before waiting for a busy service.
   */
  constructor({ home, token, publicBase, onWait = () => {} }) {
    this.home = home;
    this.publicBase = publicBase;
    this.#requests = new Requests(home, token, onWait);
  }

  /** The caller's account: user_id, tier, credits, limits. */
  async me(signal) {
    return (await this.#requests.call("GET", "me", { signal })).data;
  }

  /** Store a picture. Gives its `image_url`, which `find` takes. */
  async upload(file, signal) {
    const direct = await this.#uploadToStorage(file, signal);
    if (direct) return direct;
    const body = new FormData();
    body.append("file", file, file.name || "picture");
    return (await this.#requests.call("POST", "upload", { body, signal, repeatable: false })).data;
  }

  /** Send a picture straight to the storage; undefined if the service does not offer this, or the upload failed. */
  async #uploadToStorage(file, signal) {
    if (!file.type) return undefined;
    this.direct ??= await this.#offersDirectUploads(signal);
    if (!this.direct) return undefined;
    try {
      const asked = { content_type: file.type, size_bytes: file.size };
      const begun = (await this.#requests.json("POST", "uploads", asked, { signal })).data;
      // errors are ignored: the upload may have succeeded although its response was lost, which the next request shows
      await fetch(begun.url, { method: "PUT", body: file, headers: begun.headers, signal }).catch(() => {});
      signal?.throwIfAborted();
      return (await this.#requests.json("POST", `uploads/${begun.upload_id}/complete`, {}, { signal })).data;
    } catch (error) {
      if (error.code !== "NOT_FOUND") throw error;
      this.direct = false;
      return undefined;
    }
  }

  async #offersDirectUploads(signal) {
    try {
      return (await (await fetch(`${this.home}health`, { signal })).json()).data.direct_uploads === true;
    } catch (error) {
      if (signal?.aborted) throw error;
      return false;
    }
  }

  /** The service's message about what does not work; "" if it is ready. */
  async problem() {
    const response = await fetch(`${this.home}ready`, { credentials: "omit", cache: "no-store" }).catch(() => null);
    if (response === null) return `The service at ${this.home} was not reached.`;
    return response.ok ? "" : (await errorOf(response)).message;
  }

  /**
   * Look for something in a stored picture, and wait until it is done.
   *
   * @param {string} imageUrl
   * @param {Question} question
   * @param {object} [hooks]
   * @param {(taskId: string) => void} [hooks.onTask] Told when there is a task.
   * @param {(status: string) => void} [hooks.onStatus] Told when the task is "pending" and "processing".
   * @param {AbortSignal} [hooks.signal] Stops waiting and cancels the task, so that its credits come back.
   * @returns The result in full.
   */
  async find(imageUrl, question, { onTask = () => {}, onStatus, signal } = {}) {
    const id = await this.#submit(imageUrl, question, signal);
    onTask(id);
    return this.follow(id, { onStatus, signal });
  }

  /** Wait for a task that was submitted before, as `find` does. */
  async follow(id, { onStatus = () => {}, signal } = {}) {
    try {
      signal?.throwIfAborted();
      await this.#ended(id, onStatus, signal);
    } catch (error) {
      // the user has stopped waiting: cancelling gives the credits back
      if (signal?.aborted) await this.#requests.call("POST", `tasks/${id}/cancel`).catch(() => {});
      if (error.code === "UNREACHABLE") error.taskId = id;
      throw error;
    }
    return this.result(id, signal);
  }

  async #submit(imageUrl, question, signal) {
    const concept = question.examples ? await this.#temporaryConcept(imageUrl, question.examples, signal) : question.concept;
    try {
      const asked = concept ? { concept_id: concept.id } : question.click ? { clicks: [question.click] } : wordsOf(question);
      const task = await this.#requests.json("POST", "segment", { image_url: imageUrl, ...asked }, {
        headers: { "Idempotency-Key": randomKey() },
        signal,
        interruptible: false, // else a task could be created whose id the page never learns
      });
      return task.data.task_id;
    } finally {
      // a task has its own copy of the concept from when it was accepted
      if (question.examples) await this.deleteConcept(concept.id).catch(() => {});
    }
  }

  /** The API takes boxes as the examples of a concept. */
  #temporaryConcept(imageUrl, { name, words, boxes, negativeBoxes }, signal) {
    return this.createConcept({ name, words, examples: [{ imageUrl, boxes, negativeBoxes }] }, { signal, interruptible: false });
  }

  /** Keep examples under a name, to be found on other pictures. */
  async createConcept({ name, words, examples }, options = {}) {
    const body = {
      name,
      ...(words ? { words } : {}),
      examples: examples.map((one) => ({ image_url: one.imageUrl, boxes: one.boxes, negative_boxes: one.negativeBoxes })),
    };
    return (await this.#requests.json("POST", "concepts", body, { repeatable: false, ...options })).data;
  }

  /** All concepts of the user, newest first. */
  async concepts(signal) {
    return (await this.#requests.call("GET", "concepts", { signal })).data.concepts;
  }

  /** Forget a concept. */
  async deleteConcept(id) {
    await this.#requests.call("DELETE", `concepts/${id}`);
  }

  /** One result in full; its status says whether it is done. */
  async result(id, signal) {
    return (await this.#requests.call("GET", `results/${id}`, { signal })).data;
  }

  /** The newest results of the user, without their details. */
  async results(signal) {
    return (await this.#requests.call("GET", `results?limit=${MOST_LISTED}`, { signal })).data.results;
  }

  /** The list of instances of a result: `{threshold, results: [{prompt, size, instances, ...}]}`. */
  async instances(result, signal) {
    const url = result.metadata.instances_url;
    if (!url) throw new ServiceError("The result has no list of instances: the service is too old for this page.");
    const stored = JSON.parse(await (await this.object(url, signal)).text());
    if (stored.format !== INSTANCES_FORMAT) {
      throw new ServiceError(`The list of instances has format ${stored.format}, and this page reads ${INSTANCES_FORMAT}.`);
    }
    return stored;
  }

  /** A stored object. Its address is enough to read it; the token is not sent, since the host may be another one. */
  async object(url, signal) {
    const address = this.objectAddress(url);
    let response;
    try {
      response = await fetch(address, { signal, credentials: "omit", referrerPolicy: "no-referrer" });
    } catch (error) {
      if (signal?.aborted) throw error;
      const host = new URL(address).host;
      throw new ServiceError(`${host} was not reached, or does not let this page read (a bucket needs a CORS rule).`);
    }
    if (!response.ok) throw await errorOf(response);
    return response.blob();
  }

  /** The address at which this page reads an object: its own service, if the address has the service's public base. */
  objectAddress(url) {
    const base = `${this.publicBase.replace(/\/+$/, "")}/`;
    return url.startsWith(base) ? `${this.home}files/${url.slice(base.length)}` : url;
  }

  async #ended(id, onStatus, signal) {
    let pause = FIRST_PAUSE_MS;
    for (let status = "pending"; ; ) {
      onStatus(status);
      const { data, headers } = await this.#requests.call("GET", `tasks/${id}`, { signal });
      status = data.status;
      if (status === "done") return;
      if (status === "error") {
        throw new ServiceError(data.error_message || "The task failed.", { status: 200, code: "TASK_FAILED" });
      }
      await wait(Math.max(pause, 1000 * fairPause(headers.get("RateLimit"))), signal);
      pause = Math.min(LONGEST_PAUSE_MS, 1.5 * pause);
    }
  }
}

function wordsOf({ words, tile }) {
  return { text_prompts: words, ...(tile ? { tile } : {}) };
}

/** Seconds between two looks, so that what remains of the rate limit lasts until it is reset. */
function fairPause(rateLimit) {
  const found = /;\s*r=(\d+)\s*;\s*t=(\d+)/.exec(rateLimit ?? "");
  if (!found || Number(found[1]) > 30) return 0;
  return Number(found[2]) / (Number(found[1]) + 1);
}
