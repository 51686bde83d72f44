// Masks and labels on a canvas, in the look of s3seg's own overlays (src/s3seg/results/draw.py).

import { css, textColor } from "./colors.js";

const OPACITY = 0.42; // of the fill
const HALO = [8, 10, 16];
const CROWD = 60; // labels beyond which small instances have none
const LAYER_SIDE = 1280; // pixels of the longer side of the picture, as layers see it
const MOST_ENLARGED = 4;
const MOST_LAYER_PIXELS = 40_000_000; // of all layers of a picture, at four bytes each

/**
 * How many layer pixels a pixel of the picture is wide, so that the layers of all these masks fit into memory.
 *
 * @param {import("./rle.js").Mask[]} masks Of one picture.
 */
export function layerScale(masks) {
  const [{ width, height }] = masks;
  const scale = Math.min(LAYER_SIDE / Math.max(width, height), MOST_ENLARGED);
  const area = masks.reduce((sum, { box: [x1, y1, x2, y2] }) => sum + (x2 - x1) * (y2 - y1), 0);
  return Math.min(scale, Math.sqrt(MOST_LAYER_PIXELS / Math.max(1, area)));
}

/**
 * One mask as a picture with a soft fill and a crisp outline.
 *
 * A blurred mask tells, near a boundary, how far from it a pixel lies: a straight edge blurs into the normal
 * distribution. From that distance follow fill, line and halo, without any geometry.
 *
 * @param {number} scale Of `layerScale`.
 * @returns {{canvas: HTMLCanvasElement, x: number, y: number, scale: number} | null} Where it lies, in layer pixels.
 */
export function layerOf(mask, color, scale) {
  const [x1, y1, x2, y2] = mask.box.map((side) => side * scale);
  if (x2 <= x1) return null;
  const whole = Math.max(1.3, 0.003 * scale * Math.sqrt(mask.width * mask.height));
  const line = Math.max(1, Math.min(whole, 0.12 * Math.sqrt((x2 - x1) * (y2 - y1))));
  const sigma = Math.max(0.6, 0.6 * line);
  const margin = Math.ceil(3 * sigma + line);
  const x = Math.max(0, Math.floor(x1) - margin);
  const y = Math.max(0, Math.floor(y1) - margin);
  const width = Math.min(Math.ceil(mask.width * scale), Math.ceil(x2) + margin) - x;
  const height = Math.min(Math.ceil(mask.height * scale), Math.ceil(y2) + margin) - y;

  const blurred = blur(coverage(mask, { scale, x, y, width, height }), width, height, sigma);
  const paint = paintByLevel(color, line, sigma);
  const pixels = new ImageData(width, height);
  const words = new Uint32Array(pixels.data.buffer);
  for (let k = 0; k < words.length; k++) words[k] = paint[Math.round(255 * blurred[k])];
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return { canvas, x, y, scale };
}

/** Draw layers on a canvas that shows the whole picture of so many pixels' width. */
export function drawLayer(context, layer, pictureWidth, alpha = 1) {
  const factor = context.canvas.width / (pictureWidth * layer.scale);
  context.globalAlpha = alpha;
  context.imageSmoothingQuality = factor < 0.5 ? "high" : "low"; // bilinear sampling is enough down to a half
  const { canvas, x, y } = layer;
  context.drawImage(canvas, x * factor, y * factor, canvas.width * factor, canvas.height * factor);
  context.globalAlpha = 1;
}

/**
 * Write labels. Earlier ones are placed first; one that would cover another is moved, or left out. If there are very
 * many, those much wider than their box are left out too, since they would hide the instances.
 *
 * @param {{text: string, color: number[], box: number[]}[]} labels With boxes in pixels of the canvas.
 * @param {number} em Size of the letters, pixels.
 */
export function drawLabels(context, labels, em) {
  const { width, height } = context.canvas;
  const pad = 0.42 * em;
  const tall = Math.round(1.55 * em);
  const placed = [];
  context.font = `600 ${em}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const { text, color, box } of labels) {
    const [x1, y1, x2, y2] = box;
    const wide = Math.min(context.measureText(text).width, 16 * em) + 2 * pad;
    if (labels.length > CROWD && wide > 2 * (x2 - x1)) continue;
    const inside = ([x, y]) => [Math.max(0, Math.min(x, width - wide)), Math.max(0, Math.min(y, height - tall))];
    const places = [
      [x1, y1 - tall - 2],
      [x2 - wide, y1 - tall - 2],
      [x1, y2 + 2],
      [(x1 + x2 - wide) / 2, (y1 + y2 - tall) / 2],
    ].map(inside);
    const free = places.find(([x, y]) => !placed.some((p) => x < p.x + p.wide && p.x < x + wide && Math.abs(y - p.y) < tall));
    if (!free) continue;
    const [x, y] = free;
    placed.push({ x, y, wide });
    context.fillStyle = css(color, 0.94);
    context.beginPath();
    context.roundRect(x, y, wide, tall, 0.32 * em);
    context.fill();
    context.fillStyle = css(textColor(color));
    context.fillText(text, x + pad, y + tall / 2 + 0.04 * em, 16 * em);
  }
}

/** The share of each cell of a window of the layer that the mask covers, 0..1, row by row. */
export function coverage(mask, { scale, x, y, width, height }) {
  const cells = new Float32Array(width * height);
  mask.forEachPiece((column, top, bottom) => {
    forEachCell(column * scale - x, (column + 1) * scale - x, width, (i, wide) => {
      forEachCell(top * scale - y, bottom * scale - y, height, (j, tall) => {
        cells[j * width + i] += wide * tall;
      });
    });
  });
  return cells;
}

/** Call `visit(k, part)` for each cell k of 0..count that overlaps from..to, with the overlapping part of it, 0..1. */
function forEachCell(from, to, count, visit) {
  for (let k = Math.max(0, Math.floor(from)); k < Math.min(count, Math.ceil(to)); k++) {
    visit(k, Math.min(to, k + 1) - Math.max(from, k));
  }
}

/**
 * Nearly a Gaussian: three box filters, which continue the window beyond its edges.
 *
 * The outermost two cells of a box count for a part only, so that it has a third of the variance exactly
 * (Gwosdek, Grewenig, Bruhn, Weickert: Theoretical foundations of Gaussian convolution by extended box filtering).
 */
export function blur(cells, width, height, sigma) {
  const variance = sigma ** 2 / 3;
  const whole = Math.floor((Math.sqrt(12 * variance + 1) - 1) / 2);
  const short = ((2 * whole + 1) * (variance - (whole * (whole + 1)) / 3)) / 2; // variance beyond that of whole cells
  const part = short / ((whole + 1) ** 2 - variance);
  let [from, to] = [Float32Array.from(cells), new Float32Array(cells.length)];
  for (let pass = 0; pass < 3; pass++) {
    for (const [count, step, lines, stride] of [[width, 1, height, width], [height, width, width, 1]]) {
      for (let line = 0; line < lines; line++) boxFilter(from, to, line * stride, step, count, whole, part);
      [from, to] = [to, from];
    }
  }
  return from.map((value) => Math.min(Math.max(value, 0), 1));
}

/** The mean over `whole` cells to either side, and `part` of one more. */
function boxFilter(from, to, start, step, count, whole, part) {
  const at = (k) => from[start + step * Math.min(Math.max(k, 0), count - 1)];
  let sum = 0;
  for (let k = -whole; k <= whole; k++) sum += at(k);
  for (let k = 0; k < count; k++) {
    to[start + step * k] = (sum + part * (at(k - whole - 1) + at(k + whole + 1))) / (2 * whole + 1 + 2 * part);
    sum += at(k + whole + 1) - at(k - whole);
  }
}

/** For each level of the blurred mask, the pixel to show, as the bytes of ImageData. */
function paintByLevel(color, line, sigma) {
  const words = new Uint32Array(256);
  const bytes = new Uint8ClampedArray(words.buffer);
  for (let level = 1; level < 256; level++) {
    const share = (level + 0.5) / 256;
    const distance = (sigma * Math.log(share / (1 - share))) / 1.702; // pixels, positive inside; logistic for normal
    const deep = level === 255;
    const fill = OPACITY * clamp(distance + 0.5);
    const stroke = deep ? 0 : clamp(line / 2 + 0.5 - Math.abs(distance));
    const halo = deep ? 0 : 0.4 * clamp(1 - (Math.abs(distance) - line / 2) / line);
    const layers = [[color, fill], [HALO, halo], [color, stroke]];
    const alpha = layers.reduce((sum, [, a]) => a + sum * (1 - a), 0);
    const mixed = layers.reduce((sum, [tint, a]) => sum.map((c, k) => tint[k] * a + c * (1 - a)), [0, 0, 0]);
    bytes.set([...mixed.map((c) => c / (alpha || 1)), 255 * alpha], 4 * level);
  }
  return words;
}

function clamp(value) {
  return Math.min(Math.max(value, 0), 1);
}
