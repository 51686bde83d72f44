// Instances cut out of the picture: PNGs with the mask as alpha, in one archive.

import { zipOf } from "./zip.js";

/**
 * An archive with a PNG for each item, of the size of its mask's tight box.
 *
 * @param {CanvasImageSource} image In its full size.
 * @param {{prompt: string, items: import("./stage.js").Item[]}[]} groups
 * @returns {Promise<Blob>}
 */
export async function cutOutsOf(image, groups) {
  const files = [];
  const taken = new Set();
  for (const { prompt, items } of groups) {
    for (const item of items) {
      if (!item.mask.area) continue;
      files.push({ name: nameFor(prompt, item.number, taken), blob: await cutOut(image, item.mask) });
    }
  }
  return zipOf(files);
}

async function cutOut(image, mask) {
  const [x1, y1, x2, y2] = mask.box;
  const canvas = new OffscreenCanvas(x2 - x1, y2 - y1);
  const context = canvas.getContext("2d");
  context.drawImage(image, -x1, -y1);
  const cut = context.getImageData(0, 0, canvas.width, canvas.height);
  const alpha = new Uint8Array(canvas.width * canvas.height);
  mask.forEachPiece((x, top, bottom) => {
    for (let y = top; y < bottom; y++) alpha[(y - y1) * canvas.width + (x - x1)] = 255;
  });
  for (let k = 0; k < alpha.length; k++) if (!alpha[k]) cut.data[4 * k + 3] = 0;
  context.putImageData(cut, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/** A file name of letters and digits, such as "red-circle-2.png"; no two are equal. */
function nameFor(prompt, number, taken) {
  const words = prompt.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "instance";
  let name = `${words}-${number}.png`;
  for (let again = 2; taken.has(name.toLowerCase()); again++) name = `${words}-${number}-${again}.png`;
  taken.add(name.toLowerCase());
  return name;
}
