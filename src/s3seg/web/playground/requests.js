// Requests to the edge's API: the token, the envelope, errors, and waiting for a service that is busy.

const LONGEST_WAIT_S = 300; // for one request, over all its tries
const TRIES = 5; // of a service that is busy or cannot be reached

/** An error with a message for the user: the service's own, or that of this page. */
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
    /** The id of the request in the service's log. */
    this.requestId = requestId;
    /** The task that was waited for when the service could not be reached; null for none. */
    this.taskId = null;
  }
}

/** Sends requests with one user's token. */
export class Requests {
  /**
   * @param {string} home Address of the folder that the service's root is, with a slash at its end.
   * @param {string} token The access token.
   * @param {(seconds: number, error: ServiceError) => void} onWait Told of each wait for a busy service.
   */
  constructor(home, token, onWait) {
    this.home = home;
    this.token = token;
    this.onWait = onWait;
  }

  /** Send JSON, and return the answer. */
  json(method, path, body, options = {}) {
    const headers = { "Content-Type": "application/json", ...options.headers };
    return this.call(method, path, { ...options, body: JSON.stringify(body), headers });
  }

  /**
   * Send a request until it succeeds, waiting as long as the service asks for: 429 and 503 are not the end.
   *
   * @returns {Promise<{data: object, headers: Headers}>}
   */
  async call(method, path, { body, headers = {}, signal, repeatable = true, interruptible = true } = {}) {
    const giveUp = Date.now() + 1000 * LONGEST_WAIT_S;
    for (let tries = 1; ; ) {
      const request = { method, body, headers, signal: interruptible ? signal : undefined };
      const [answer, error] = await this.#try(path, request, repeatable);
      if (!error) return answer;
      const seconds = error.retryAfter;
      if (seconds === null || tries >= TRIES || Date.now() + 1000 * seconds > giveUp) throw error;
      if (error.code !== "RATE_LIMITED") tries += 1; // reaching a rate limit does not count as a failed try
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

/** The error in a response: the API's message, or the host and status if the response is not one of the API. */
export async function errorOf(response) {
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

/** What is wrong with a token that was pasted; "" if it can be sent. The same rule as that of the Python client. */
export function tokenProblem(token) {
  if (/^bearer\s/iu.test(token)) return 'Paste the token alone, without "Bearer".';
  if (/^[!#-&(-~]+$/u.test(token)) return "";
  return "The token has a character that no token has, such as a space, a line break or a quotation mark. Copy it again.";
}

/** A new idempotency key; `crypto.randomUUID` does not exist on pages over plain HTTP. */
export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Wait for so many milliseconds; rejects as soon as the signal is aborted. */
export function wait(ms, signal) {
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
