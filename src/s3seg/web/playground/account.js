// Who the user is: the access token, the account behind it, and the service that it gives access to.

import { $, count, setting, showText } from "./dom.js";
import { tokenProblem } from "./requests.js";
import { Service } from "./service.js";

const ON_THIS_MACHINE = new Set(["127.0.0.1", "localhost", "[::1]"]);
const TOKEN_KEY = "s3seg.token"; // in sessionStorage: of this tab, until it is closed

/** Asks for the token, and keeps it for this tab. */
export class Account {
  /** Access to the service; null without a token. */
  service = null;
  /** The user's id, once the service has said it. */
  user = null;
  #listener;

  /**
   * @param {object} listener
   * @param {(service: Service | null) => void} listener.onService There is another token, or none.
   * @param {(user: string) => void} listener.onUser The service has said who the user is.
   * @param {(seconds: number, error: Error) => void} listener.onWait A request waits for the service.
   * @param {(error: Error) => void} listener.onError The account could not be read.
   */
  constructor(listener) {
    this.#listener = listener;
    $("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = $("token").value.trim();
      if (token && tokenProblem(token)) return showText("token-problem", tokenProblem(token));
      if (token) this.#use(token);
      $("prompts").focus();
    });
    $("forget-token").addEventListener("click", () => this.#forget());
    $("change-token").addEventListener("click", () => ($("token-form").hidden ? this.ask() : this.#close()));
    window.addEventListener("hashchange", () => this.#takeFromAddress());
  }

  /** Use the token of the address, or that of this tab, or ask for one. */
  begin() {
    if (this.#takeFromAddress()) return;
    const kept = sessionStorage.getItem(TOKEN_KEY);
    if (kept) this.#use(kept);
    else this.ask();
  }

  /** Ask for a token. */
  ask(problem = "") {
    $("token-form").hidden = false;
    $("change-token").setAttribute("aria-expanded", "true");
    $("forget-token").hidden = this.service === null;
    showText("token-problem", problem);
    $("token").focus();
  }

  /** The token was refused. */
  refused(problem) {
    $("account").hidden = true;
    this.ask(problem);
  }

  /** Read the account again, since the credits may have changed. */
  async refresh() {
    const asked = this.service;
    if (!asked) return;
    try {
      const { user_id, tier, credits } = await asked.me();
      if (asked !== this.service) return;
      $("tier").textContent = `${tier} ·`;
      $("credits").textContent = count(credits, "credit");
      $("account").hidden = false;
      if (this.user !== user_id) this.#listener.onUser((this.user = user_id));
    } catch (error) {
      if (asked === this.service) this.#listener.onError(error);
    }
  }

  /** Take a token from the URL's fragment (#token=...), which no server is sent, and remove it from the URL. */
  #takeFromAddress() {
    const token = new URLSearchParams(location.hash.slice(1)).get("token")?.trim();
    if (!token) return false;
    history.replaceState(null, "", location.pathname + location.search);
    if (tokenProblem(token)) this.ask(tokenProblem(token));
    else if (ON_THIS_MACHINE.has(location.hostname)) this.#use(token);
    else {
      // somebody else's link may hold somebody else's token: the user's pictures would be stored in that account
      this.ask("The link brought a token. Use it only if you know who gave you the link.");
      $("token").value = token;
    }
    return true;
  }

  #use(token) {
    sessionStorage.setItem(TOKEN_KEY, token);
    const home = new URL(setting("s3seg-home") || ".", location.href).href;
    this.service = new Service({ home, token, publicBase: setting("s3seg-public-base"), onWait: this.#listener.onWait });
    this.user = null;
    this.#close();
    this.#listener.onService(this.service);
    this.refresh();
  }

  #forget() {
    sessionStorage.removeItem(TOKEN_KEY);
    this.service = this.user = null;
    $("account").hidden = true;
    $("token").value = "";
    this.#listener.onService(null);
    this.ask();
  }

  #close() {
    showText("token-problem");
    $("token-form").hidden = true;
    $("change-token").setAttribute("aria-expanded", "false");
  }
}
