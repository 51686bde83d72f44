// The edge's API, as the page needs it: requests, waits, errors. Nothing here touches the page.

const LONGEST_WAIT_S = 300; // for one request, over all its tries
const TRIES = 5; // of a service that is busy or cannot be reached
const FIRST_PAUSE_MS = 150; // between looks at a task
const LONGEST_PAUSE_MS = 2000;
const INSTANCES_FORMAT = "s3seg.instances/1";

/** What the service refused, in its own words. */
export class ServiceError extends Error {
  constructor(message, { status = 0, code = "UNREACHABLE", retryAfter = null, requestId = null } = {}) {
    super(message);
    this.name = "ServiceError";
    /** HTTP status; 0 if there was no answer. */
    this.status = status;
    /** One of the API's codes. */
    this.code = code;
    /** Seconds to wait before trying again; null if it did not say. */
    this.retryAfter = retryAfter;
    /** What the service's log calls the request. */
    this.requestId = requestId;
  }
}

/** One user's access to an edge service. */
export class Service {
  /**
   * @param {object} options
   * @param {string} options.home Address of the folder that the service's root is, with a slash at its end.
   * @param {string} options.token The access token.
   * @param {string} options.publicBase What addresses of stored objects begin with; they are read through the edge.
   * @param {(seconds: number, error: ServiceError) => void} [options.onWait] Told of each wait for a busy service.
   */
  constructor({ home, token, publicBase, onWait = () => {} }) {
    this.home = home;
    this.token = token;
    this.publicBase = publicBase;
    this.onWait = onWait;
  }

  /** The caller's account: tier, credits, limits. */
  async me(signal) {
    return (await this.#call("GET", "me", { signal })).data;
  }

  /** Store a picture. Gives its `image_url`, which `find` takes. */
  async upload(file, signal) {
    const direct = await this.#uploadToStorage(file, signal);
    if (direct) return direct;
    const body = new FormData();
    body.append("file", file, file.name || "picture");
    return (await this.#call("POST", "upload", { body, signal, repeatable: false })).data;
  }

  /** Send a picture straight to the storage; nothing if the service does not offer it, or the storage did not take it. */
  async #uploadToStorage(file, signal) {
    if (!file.type) return undefined;
    this.direct ??= await this.#offersDirectUploads(signal);
    if (!this.direct) return undefined;
    try {
      const asked = JSON.stringify({ content_type: file.type, size_bytes: file.size });
      const headers = { "Content-Type": "application/json" };
      const begun = (await this.#call("POST", "uploads", { body: asked, headers, signal })).data;
      // a failure may be a lost answer: completing tells
      await fetch(begun.url, { method: "PUT", body: file, headers: begun.headers, signal }).catch(() => {});
      signal?.throwIfAborted();
      return (await this.#call("POST", `uploads/${begun.upload_id}/complete`, { body: "{}", headers, signal })).data;
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

  /**
   * Look for things in a stored picture, and wait until it is done.
   *
   * @param {string} imageUrl
   * @param {string[]} prompts 1 to 16.
   * @param {(status: string) => void} onStatus Told when the task is "pending" and "processing".
   * @param {AbortSignal} [signal] Stops waiting and cancels the task, so that its credits come back.
   * @returns The result in full.
   */
  async find(imageUrl, prompts, onStatus = () => {}, signal = undefined) {
    const task = await this.#call("POST", "segment", {
      body: JSON.stringify({ image_url: imageUrl, text_prompts: prompts }),
      headers: { "Content-Type": "application/json", "Idempotency-Key": randomKey() },
      signal,
      interruptible: false, // or there may be a task that nobody knows of
    });
    const id = task.data.task_id;
    try {
      signal?.throwIfAborted();
      await this.#ended(id, onStatus, signal);
    } catch (error) {
      // nobody waits for it any more, so nobody should pay for it
      if (signal?.aborted) await this.#call("POST", `tasks/${id}/cancel`, {}).catch(() => {});
      throw error;
    }
    return (await this.#call("GET", `results/${id}`, { signal })).data;
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

  /** A stored object. Who knows its address may read it, so the token stays here: it may be another host's. */
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

  /** Where this page reads an object: through its own service, whatever name that service goes by outside. */
  objectAddress(url) {
    const base = `${this.publicBase.replace(/\/+$/, "")}/`;
    return url.startsWith(base) ? `${this.home}files/${url.slice(base.length)}` : url;
  }

  async #ended(id, onStatus, signal) {
    let pause = FIRST_PAUSE_MS;
    for (let status = "pending"; ; ) {
      onStatus(status);
      const { data, headers } = await this.#call("GET", `tasks/${id}`, { signal });
      status = data.status;
      if (status === "done") return;
      if (status === "error") {
        throw new ServiceError(data.error_message || "The task failed.", { status: 200, code: "TASK_FAILED" });
      }
      await wait(Math.max(pause, 1000 * fairPause(headers.get("RateLimit"))), signal);
      pause = Math.min(LONGEST_PAUSE_MS, 1.5 * pause);
    }
  }

  /** Send a request until it succeeds, waiting as long as the service asks for: 429 and 503 are not the end. */
  async #call(method, path, { body, headers = {}, signal, repeatable = true, interruptible = true }) {
    const giveUp = Date.now() + 1000 * LONGEST_WAIT_S;
    for (let tries = 1; ; ) {
      const request = { method, body, headers, signal: interruptible ? signal : undefined };
      const [answer, error] = await this.#try(path, request, repeatable);
      if (!error) return answer;
      const seconds = error.retryAfter;
      if (seconds === null || tries >= TRIES || Date.now() + 1000 * seconds > giveUp) throw error;
      if (error.code !== "RATE_LIMITED") tries += 1; // to be early once is no failure
      this.onWait(seconds, error);
      await wait(1000 * seconds, signal);
    }
  }

  /** One try: [answer, null] or [null, error]. */
  async #try(path, request, repeatable) {
    const headers = { ...request.headers, Authorization: `Bearer ${this.token}` };
    let response;
    try {
      const options = { ...request, headers, credentials: "omit", cache: "no-store" };
      response = await fetch(`${this.home}api/v1/${path}`, options);
    } catch (error) {
      if (request.signal?.aborted) throw error;
      const retryAfter = repeatable ? 1 : null;
      return [null, new ServiceError(`The service at ${this.home} was not reached.`, { retryAfter })];
    }
    if (!response.ok) return [null, await errorOf(response)];
    const envelope = await response.json().catch(() => null);
    if (envelope?.data) return [{ data: envelope.data, headers: response.headers }, null];
    throw new ServiceError(`${this.home} did not answer as an s3seg service does.`, { status: response.status, code: "UNKNOWN" });
  }
}

/** What is wrong with a token that was pasted; "" if it can be sent. The same rule as that of the Python client. */
export function tokenProblem(token) {
  if (/^bearer\s/iu.test(token)) return 'Paste the token alone, without "Bearer".';
  if (/^[!#-&(-~]+$/u.test(token)) return "";
  return "The token has a character that no token has, such as a space, a line break or a quotation mark. Copy it again.";
}

/** The error that an answer tells of: the API's own message, or at least who did not speak its language. */
async function errorOf(response) {
  const said = response.headers.get("Retry-After") ?? "";
  const retryAfter = /^\d+$/.test(said) && [429, 503].includes(response.status) ? Number(said) : null;
  const envelope = await response.json().catch(() => null);
  const status = response.status;
  if (!envelope?.error?.code) {
    const message = `${new URL(response.url).host} answered ${status} ${response.statusText}`.trim();
    return new ServiceError(`${message}.`, { status, code: "UNKNOWN", retryAfter });
  }
  const { code, message } = envelope.error;
  return new ServiceError(message, { status, code, retryAfter, requestId: envelope.meta?.request_id ?? null });
}

/** Seconds to leave between looks, so that what remains of the limit lasts until there is more. */
function fairPause(rateLimit) {
  const found = /;\s*r=(\d+)\s*;\s*t=(\d+)/.exec(rateLimit ?? "");
  if (!found || Number(found[1]) > 30) return 0;
  return Number(found[2]) / (Number(found[1]) + 1);
}

/** A fresh idempotency key; `crypto.randomUUID` is not there on plain HTTP. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function wait(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
