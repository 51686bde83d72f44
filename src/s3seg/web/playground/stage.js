// The picture with its masks: a canvas over it, drawn anew whenever something changes.

import { css, dealColors, paletteColor } from "./colors.js";
import { drawLabels, drawLayer, layerOf } from "./drawing.js";
import { Mask } from "./rle.js";

const MOST_PIXELS = 16_000_000; // of a saved overlay; phones draw no larger canvas
const FADED = 0.25;

/**
 * One instance as the page handles it.
 *
 * @typedef {object} Item
 * @property {string} prompt
 * @property {number} score 0..1.
 * @property {Mask} mask
 * @property {number[]} color
 * @property {boolean} wanted Not hidden by the user.
 */

/** The items of a list of instances, by prompt: a colour for each prompt, or for each instance of a single one. */
export function itemsOf(stored) {
  const several = stored.results.length > 1;
  return stored.results.map((result, group) => {
    const masks = result.instances.map((instance) => new Mask(instance.rle));
    const dealt = several ? masks.map(() => group) : dealColors(masks.map((mask) => mask.box));
    return result.instances.map(({ score }, k) => ({
      prompt: result.prompt,
      score,
      mask: masks[k],
      color: paletteColor(dealt[k]),
      wanted: true,
      layer: undefined,
    }));
  });
}

/** Draws items over an `<img>`, on a canvas that lies on it. */
export class Stage {
  #items = [];
  #highlighted = new Set();
  #image;
  #canvas;

  /**
   * @param {HTMLImageElement} image
   * @param {HTMLCanvasElement} canvas As large as the image on the page.
   * @param {(item: Item | null) => void} onPoint Told which item the pointer is on.
   */
  constructor(image, canvas, onPoint) {
    this.#image = image;
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(image);
    const point = (event) => onPoint(this.#itemAt(event));
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointerleave", () => onPoint(null));
  }

  /** Show these items, and no others. */
  show(items) {
    this.#items = [...items].sort((one, other) => other.mask.area - one.mask.area); // small ones over large ones
    this.#draw();
  }

  /** Let these stand out; none of them: all alike. */
  highlight(items) {
    this.#highlighted = new Set(items);
    this.#draw();
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
    this.#paint(context, Math.max(11, emOf(canvas.width, canvas.height)), new Set());
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  #draw() {
    const { clientWidth, clientHeight } = this.#image;
    const ratio = window.devicePixelRatio || 1;
    const em = Math.min(Math.max(10, emOf(clientWidth, clientHeight)), 13);
    this.#canvas.width = Math.round(clientWidth * ratio);
    this.#canvas.height = Math.round(clientHeight * ratio);
    if (clientWidth) this.#paint(this.#canvas.getContext("2d"), em * ratio, this.#highlighted);
  }

  #paint(context, em, highlighted) {
    const stands = (item) => highlighted.has(item);
    const order = [...this.#items.filter((item) => !stands(item)), ...this.#items.filter(stands)];
    for (const item of order) {
      item.layer ??= layerOf(item.mask, item.color);
      if (!item.layer) continue;
      const alpha = highlighted.size && !stands(item) ? FADED : 1;
      drawLayer(context, item.layer, item.mask.width, alpha);
    }
    const labelled = highlighted.size ? order.filter(stands) : order;
    const labels = [...labelled]
      .sort((one, other) => other.score - one.score)
      .map(({ prompt, score, color, mask }) => {
        const factor = context.canvas.width / mask.width;
        return { text: `${prompt} ${score.toFixed(2)}`, color, box: mask.box.map((side) => side * factor) };
      });
    drawLabels(context, labels, em);
  }

  #itemAt(event) {
    const { offsetX, offsetY } = event;
    const at = ({ mask }) => [
      (offsetX / this.#canvas.clientWidth) * mask.width,
      (offsetY / this.#canvas.clientHeight) * mask.height,
    ];
    return this.#items.findLast((item) => item.mask.covers(...at(item))) ?? null; // the topmost
  }
}

/** Size of letters for a picture of so many pixels. */
function emOf(width, height) {
  return 0.0175 * Math.sqrt(width * height);
}

/** A small square of an item's colour. */
export function swatch(color) {
  const square = document.createElement("span");
  square.className = "swatch";
  square.style.background = css(color);
  return square;
}
