// The masks over the picture: a canvas that is drawn again when something changes, and which instance is at a point.

import { drawLabels, drawLayer, layerOf, layerScale } from "./drawing.js";

const MOST_PIXELS = 16_000_000; // of a saved overlay; phones draw no larger canvas
const FADED = 0.25;
const SLICE_MS = 12; // of making layers before the page may do something else

/** @typedef {import("./items.js").Item} Item */

/** Draws items over an `<img>`, on a canvas that lies on it. */
export class Stage {
  #items = [];
  #highlighted = new Set();
  #image;
  #canvas;
  #all = document.createElement("canvas"); // all items, of which a highlight shows a faded copy
  #scale = 1; // of the layers
  #making = 0; // the latest run of #make
  #due = false;

  /**
   * @param {HTMLImageElement} image
   * @param {HTMLCanvasElement} canvas As large as the image on the page.
   */
  constructor(image, canvas) {
    this.#image = image;
    this.#canvas = canvas;
    new ResizeObserver(() => this.#resize()).observe(image);
  }

  /**
   * Begin with a new picture or result.
   *
   * @param {Item[]} items All that may be shown.
   */
  reset(items) {
    this.#scale = items.length ? layerScale(items.map((item) => item.mask)) : 1;
    this.#highlighted.clear();
    this.show([]);
  }

  /** Show these items, and no others. */
  show(items) {
    this.#items = [...items].sort((one, other) => other.mask.area - one.mask.area); // small ones over large ones
    this.#make();
  }

  /** Highlight these; without any, all are drawn alike. */
  highlight(items) {
    if (items.length === this.#highlighted.size && items.every((item) => this.#highlighted.has(item))) return;
    this.#highlighted = new Set(items);
    this.#drawSoon();
  }

  /** The topmost item at a place in pixels of the picture, or null. */
  itemAt(x, y) {
    return this.#items.findLast((item) => item.mask.covers(x, y)) ?? null;
  }

  /** The picture with what is shown, as a PNG of the picture's size. */
  async overlay() {
    const { naturalWidth, naturalHeight } = this.#image;
    const shrink = Math.min(1, Math.sqrt(MOST_PIXELS / (naturalWidth * naturalHeight)));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(naturalWidth * shrink);
    canvas.height = Math.round(naturalHeight * shrink);
    const context = canvas.getContext("2d");
    context.drawImage(this.#image, 0, 0, canvas.width, canvas.height);
    for (const item of this.#items) this.#paint(context, item);
    writeLabels(context, this.#items, Math.max(11, emOf(canvas.width, canvas.height)));
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.#image.clientWidth * ratio);
    const height = Math.round(this.#image.clientHeight * ratio);
    if (width === this.#canvas.width && height === this.#canvas.height) return;
    for (const canvas of [this.#canvas, this.#all]) [canvas.width, canvas.height] = [width, height];
    this.#paintAll();
  }

  /** Make the layers that are missing, a few at a time so that the page stays responsive, then draw. */
  async #make() {
    const run = ++this.#making;
    let since = performance.now();
    for (const item of this.#items) {
      if (item.layer !== undefined) continue;
      item.layer = layerOf(item.mask, item.color, this.#scale);
      if (performance.now() - since < SLICE_MS) continue;
      this.#paintAll();
      await new Promise((resolve) => setTimeout(resolve));
      if (run !== this.#making) return;
      since = performance.now();
    }
    this.#paintAll();
  }

  #paintAll() {
    const context = this.#all.getContext("2d");
    context.clearRect(0, 0, this.#all.width, this.#all.height);
    if (this.#all.width) for (const item of this.#items) this.#paint(context, item);
    this.#drawSoon();
  }

  /** Draw once before the next frame, however many changes there were. */
  #drawSoon() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#draw();
    });
  }

  #draw() {
    const { width, height } = this.#canvas;
    if (!width || !height) return;
    const context = this.#canvas.getContext("2d");
    const standing = this.#items.filter((item) => this.#highlighted.has(item));
    context.clearRect(0, 0, width, height);
    context.globalAlpha = this.#highlighted.size ? FADED : 1;
    context.drawImage(this.#all, 0, 0);
    context.globalAlpha = 1;
    for (const item of standing) this.#paint(context, item);
    const ratio = width / this.#image.clientWidth;
    const em = Math.min(Math.max(10, emOf(this.#image.clientWidth, this.#image.clientHeight)), 13);
    writeLabels(context, this.#highlighted.size ? standing : this.#items, em * ratio);
  }

  #paint(context, item) {
    if (item.layer) drawLayer(context, item.layer, item.mask.width);
  }
}

function writeLabels(context, items, em) {
  const labels = items
    .filter((item) => item.layer)
    .sort((one, other) => other.score - one.score)
    .map(({ prompt, score, color, mask }) => {
      const factor = context.canvas.width / mask.width;
      return { text: `${prompt} ${score.toFixed(2)}`, color, box: mask.box.map((side) => side * factor) };
    });
  drawLabels(context, labels, em);
}

/** Size of letters for a picture of so many pixels. */
function emOf(width, height) {
  return 0.0175 * Math.sqrt(width * height);
}
