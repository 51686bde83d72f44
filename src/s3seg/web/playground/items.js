// The instances of a result, as the page handles them.

import { dealColors, paletteColor } from "./colors.js";
import { Mask } from "./rle.js";

/**
 * One instance.
 *
 * @typedef {object} Item
 * @property {string} prompt
 * @property {number} number Of this prompt, from 1, the best first.
 * @property {number} score 0..1.
 * @property {number[]} box Of the network, xyxy.
 * @property {Mask} mask
 * @property {number[]} color
 * @property {boolean} wanted Not hidden by the user.
 * @property {boolean} repaired Whether the mask is that of a repair.
 * @property {object | null | undefined} layer How it is drawn; undefined if that was not made yet.
 */

/** The items of a list of instances, by prompt: a colour for each prompt, or for each instance of a single one. */
export function itemsOf(stored) {
  const several = stored.results.length > 1;
  return stored.results.map((result, group) => {
    const masks = result.instances.map((instance) => new Mask(instance.rle));
    const dealt = several ? masks.map(() => group) : dealColors(masks.map((mask) => mask.box));
    return result.instances.map(({ score, box }, k) => ({
      prompt: result.prompt,
      number: k + 1,
      score,
      box,
      mask: masks[k],
      color: paletteColor(dealt[k]),
      wanted: true,
      repaired: false,
      layer: undefined,
    }));
  });
}

/** Such as "red circle 2". */
export function nameOf(item) {
  return `${item.prompt} ${item.number}`;
}
