// Past results of this browser, with a small picture of each.

import { $, button, make } from "./dom.js";
import { forget, forgetAll, pastOf } from "./memory.js";

const THUMBNAIL = 176; // pixels of the longer side
const STATES = { pending: "waiting", processing: "being worked on", error: "failed" };

/** Lists the past results of the user. */
export class Past {
  #account;
  #onOpen;
  #loads = Promise.resolve(); // one picture after another
  #shown = 0; // the latest run of #fill
  #pictures = new Map(); // canvases by id, so that each picture is read only once

  /**
   * @param {import("./account.js").Account} account
   * @param {(entry: import("./memory.js").Entry) => void} onOpen Show this result again.
   */
  constructor(account, onOpen) {
    this.#account = account;
    this.#onOpen = onOpen;
    $("past").addEventListener("toggle", () => this.refresh());
    $("forget-past").addEventListener("click", () => {
      forgetAll(account.user);
      this.#pictures.clear();
      this.refresh();
      $("change-token").focus();
    });
  }

  /** Bring the list up to date. What it shows is read only while it is open. */
  refresh() {
    const { service, user } = this.#account;
    const entries = service && user ? pastOf(user) : [];
    this.#shown += 1;
    $("past").hidden = entries.length === 0;
    $("past-count").textContent = entries.length || "";
    if (entries.length && $("past").open) this.#fill(service, entries, this.#shown);
  }

  async #fill(service, entries, run) {
    let listed;
    try {
      listed = new Map((await service.results()).map((result) => [result.id, result]));
    } catch (error) {
      if (run === this.#shown) $("past-list").replaceChildren(make("li", "hint", error.message));
      return;
    }
    const rows = [];
    for (const entry of entries) {
      const result = listed.get(entry.id) ?? (await service.result(entry.id).catch((error) => (error.status === 404 ? null : undefined)));
      if (run !== this.#shown) return;
      if (result === null) forget(entry.id); // deleted on the service
      else if (result) rows.push(this.#row(service, entry, result));
    }
    $("past-list").replaceChildren(...rows);
    $("past-count").textContent = rows.length || "";
    $("past").hidden = rows.length === 0;
  }

  #row(service, entry, result) {
    const row = make("li");
    const open = button("", () => this.#onOpen(entry), "past");
    const picture = this.#pictures.get(entry.id) ?? make("canvas");
    const state = STATES[result.status];
    open.append(picture, make("span", "name", entry.name), make("span", "what", result.text_prompt));
    if (state) open.append(make("span", "state", state));
    row.append(open);
    if (this.#pictures.has(entry.id)) return row;
    this.#pictures.set(entry.id, picture);
    [picture.width, picture.height] = [THUMBNAIL, (THUMBNAIL * 2) / 3];
    picture.setAttribute("aria-hidden", "true");
    new IntersectionObserver(([{ isIntersecting }], observer) => {
      if (!isIntersecting) return;
      observer.disconnect();
      this.#loads = this.#loads.then(() => drawThumbnail(service, result.source_image_url, picture)).catch(() => {});
    }).observe(picture);
    return row;
  }
}

async function drawThumbnail(service, url, canvas) {
  const bitmap = await createImageBitmap(await service.object(url));
  const scale = Math.max(canvas.width / bitmap.width, canvas.height / bitmap.height); // as CSS's "cover"
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
  bitmap.close();
}
