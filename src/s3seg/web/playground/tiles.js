// Whether a large picture is looked at in tiles too: which sides are offered, and what they cost in time.

import { $, make } from "./dom.js";

const LARGE = 1000; // pixels of the longer side: smaller pictures lose little without tiles
const SIDES = [2000, 1000, 500, 250]; // pixels
const MOST_TILES = 256; // default limit of a service
const OVERLAP = 0.25; // of neighbours, as a share of the side
const SMALLEST = 0.05; // of a side, that things should have at least
const WITHOUT = "For things that are small in this picture, or more than 200.";

/** How many tiles the service cuts a picture into, as in s3seg/inference/tile_plan.py; a test compares both. */
export function tileCount(width, height, side) {
  const along = (length) => (length <= side ? 1 : 1 + Math.ceil((length - side) / (side * (1 - OVERLAP))));
  return along(width) * along(height);
}

/** The sides that suit a picture of so many pixels, the largest and quickest first. */
export function sidesFor(width, height) {
  const longer = Math.max(width, height);
  if (longer <= LARGE) return [];
  return SIDES.filter((side) => longer > 1.5 * side && tileCount(width, height, side) <= MOST_TILES);
}

/** The choice of tiles for the picture. */
export class Tiles {
  #size = { width: 0, height: 0 };

  constructor() {
    $("tile").addEventListener("change", () => this.#explain());
  }

  /** The chosen side in pixels; null if the picture is looked at as a whole only. */
  get chosen() {
    return Number($("tile").value) || null;
  }

  /** Offer what suits a picture, if anything does. What was chosen stays chosen if it is offered again. */
  offer({ width, height }) {
    const before = this.chosen;
    const sides = sidesFor(width, height);
    this.#size = { width, height };
    $("tile").replaceChildren(
      optionOf("", "no, at the whole picture once"),
      ...sides.map((side) => optionOf(side, `in ${tileCount(width, height, side)} tiles of ${side} pixels`)),
    );
    $("tiles").hidden = sides.length === 0;
    this.choose(before);
  }

  /** Choose a side; null, or one that is not offered, is the whole picture only. */
  choose(side) {
    $("tile").value = side ?? "";
    if ($("tile").selectedIndex < 0) $("tile").value = "";
    this.#explain();
  }

  #explain() {
    const side = this.chosen;
    const looks = side && 1 + tileCount(this.#size.width, this.#size.height, side);
    $("tile-hint").textContent = side
      ? `For things of ${SMALLEST * side} pixels and more. Takes up to ${looks} times as long, and costs the same.`
      : WITHOUT;
  }
}

function optionOf(value, text) {
  const option = make("option", "", text);
  option.value = value;
  return option;
}
