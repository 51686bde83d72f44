// A result: what is shown of it, the threshold, and its downloads.

import { cutOutsOf } from "./cutouts.js";
import { $, save, say, showText } from "./dom.js";
import { cocoOf, geojsonOf } from "./exports.js";
import { remarkOn } from "./hints.js";
import { itemsOf } from "./items.js";
import { Listing } from "./listing.js";

/** @typedef {import("./items.js").Item} Item */

/** Shows a result beside the picture. */
export class Results {
  /** The result in full, as the service gave it; null if none is shown. */
  current = null;
  #stored = null;
  #groups = [];
  #listing = null;
  #chosen = null;
  #stage;
  #listener;
  #picture;

  /**
   * @param {import("./stage.js").Stage} stage
   * @param {object} listener
   * @param {() => import("./picture.js").Picture} listener.picture The picture that was searched.
   * @param {(url: string) => Promise<Blob>} listener.object Reads what is stored.
   * @param {(item: Item) => void} listener.onChoose The user wants to work with an instance.
   * @param {() => void} listener.onChange Something else is shown.
   * @param {(error: Error) => void} listener.onError A download failed.
   */
  constructor(stage, listener) {
    this.#stage = stage;
    this.#listener = listener;
    this.#picture = listener.picture;
    $("threshold").addEventListener("input", () => this.refresh());
    $("threshold").addEventListener("change", () => say(this.summary()));
    $("default-threshold").addEventListener("click", () => {
      $("threshold").value = this.#stored.threshold;
      this.refresh();
      $("threshold").focus();
    });
    const json = (make) => async () => new Blob([JSON.stringify(make(this.#picture(), this.#shownGroups()))], { type: "application/json" });
    this.#offer("save-overlay", "overlay.png", () => stage.overlay());
    this.#offer("save-coco", "coco.json", json(cocoOf));
    this.#offer("save-geojson", "geojson", json(geojsonOf));
    this.#offer("save-cutouts", "cutouts.zip", () => cutOutsOf($("image"), this.#shownGroups()));
    this.#offer("save-mask", "labels.png", () => listener.object(this.current.mask_image_url));
    this.#offer("save-instances", "instances.json", () => listener.object(this.current.metadata.instances_url));
  }

  /** Show nothing. */
  clear() {
    this.current = this.#stored = this.#listing = null;
    this.#groups = [];
    $("results").hidden = true;
    this.#stage.reset([]);
  }

  /** Show a result with its list of instances. */
  show(result, stored) {
    this.current = result;
    this.#stored = stored;
    this.#groups = itemsOf(stored);
    this.#listing = new Listing($("groups"), stored.results.map((one) => one.prompt), this.#groups, {
      onPoint: (items) => this.#highlight(items),
      onSwitch: () => this.refresh(),
      onChoose: this.#listener.onChoose,
    });
    this.#stage.reset(this.#groups.flat());
    const { metadata } = result;
    showText("remark", remarkOn(metadata));
    const { name, version, device, summary } = metadata.model ?? {};
    const parts = [[name, version].filter(Boolean).join(" "), device, duration(metadata.inference_time_ms)];
    if (metadata.tile) parts.push(`also in tiles of ${metadata.tile} pixels`);
    $("model").textContent = parts.filter(Boolean).join(" · ") + (summary ? `; ${summary}.` : "");
    $("default-threshold").textContent = `default ${stored.threshold.toFixed(2)}`;
    $("threshold").value = stored.threshold;
    $("results").hidden = false;
    this.refresh();
  }

  /** The threshold that the user chose; null for the default one. */
  get chosenThreshold() {
    const limit = this.#threshold();
    return limit === this.#stored?.threshold ? null : limit;
  }

  /** The result in a sentence, for screen readers. */
  summary() {
    const each = this.#groups.map((items, k) => `${items.filter(this.#above()).length} ${this.#stored.results[k].prompt}`).join(", ");
    return `${$("summary").textContent}: ${each}.`;
  }

  /** Bring everything up to date. */
  refresh() {
    if (!this.current) return;
    const limit = this.#threshold();
    const above = this.#above();
    const shown = this.#groups.flat().filter(above);
    $("threshold-value").textContent = limit.toFixed(2);
    $("default-threshold").hidden = limit === this.#stored.threshold;
    $("summary").textContent = shown.length ? `${shown.length} found` : "Nothing found";
    this.#listing.update(limit, above);
    this.#stage.show(shown.filter((item) => item.wanted));
    this.#listener.onChange();
  }

  /** Point at an item, or at none. */
  point(item) {
    this.#highlight(item ? [item] : []);
    this.#listing?.mark(item);
  }

  /** Say which item the user works with, if any. */
  choose(item) {
    this.#chosen = item;
    this.#listing?.choose(item);
    this.#highlight([]);
  }

  /** Move the focus to an item in the list. */
  focus(item) {
    this.#listing?.focus(item);
  }

  /** Highlight these; without any, the one that the user works with. */
  #highlight(items) {
    this.#stage.highlight(items.length || !this.#chosen ? items : [this.#chosen]);
  }

  #threshold() {
    const chosen = Number($("threshold").value);
    const standard = this.#stored?.threshold;
    return Math.abs(chosen - standard) < 0.005 ? standard : chosen; // the slider has steps of 0.01
  }

  #above() {
    const limit = Math.fround(this.#threshold());
    return (item) => item.score > limit;
  }

  #shownGroups() {
    const above = this.#above();
    return this.#groups.map((items, k) => ({
      prompt: this.#stored.results[k].prompt,
      items: items.filter((item) => above(item) && item.wanted),
    }));
  }

  #offer(id, suffix, make) {
    $(id).addEventListener("click", async () => {
      $(id).setAttribute("aria-busy", "true");
      try {
        save(await make(), `${this.#picture().name.replace(/\.[^.]*$/, "")}.${suffix}`);
      } catch (error) {
        this.#listener.onError(error);
      } finally {
        $(id).removeAttribute("aria-busy");
      }
    });
  }
}

/** Such as "283 ms" or "14.1 s". */
function duration(ms) {
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
