// The palette of s3seg's own drawings (src/s3seg/results/palette.py), so that a page and a saved overlay look the same.

const GOLDEN_ANGLE = 137.508; // degrees
const FIRST_HUE = 255; // blue
const PALETTE_SIZE = 24;

/** The index-th colour of an endless palette: [red, green, blue], 0..255. */
export function paletteColor(index) {
  return linearOf(paletteOklab(index)).map((value) => {
    const c = Math.min(Math.max(value, 0), 1);
    return Math.round(255 * (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055));
  });
}

/** Indices into the palette for boxes (xyxy), such that boxes near each other differ most. */
export function dealColors(boxes) {
  const palette = Array.from({ length: PALETTE_SIZE }, (_, k) => paletteOklab(k));
  const likeness = palette.map((one) => palette.map((other) => Math.exp(-squared(one, other) / (2 * 0.07 ** 2))));
  const extent = Math.max(1, ...boxes.flat()); // what counts as near depends on the picture
  const dealt = [];
  for (const [k, [x1, y1, x2, y2]] of boxes.entries()) {
    const cost = new Array(PALETTE_SIZE).fill(0);
    for (let j = 0; j < k; j++) {
      const gapX = Math.max(boxes[j][0] - x2, x1 - boxes[j][2], 0);
      const gapY = Math.max(boxes[j][1] - y2, y1 - boxes[j][3], 0);
      const nearness = 0.01 + Math.exp((-20 * Math.hypot(gapX, gapY)) / extent);
      for (let color = 0; color < PALETTE_SIZE; color++) cost[color] += nearness * likeness[dealt[j]][color];
    }
    dealt.push(cost.indexOf(Math.min(...cost)));
  }
  return dealt;
}

/** Black or white, whichever contrasts more with the background (WCAG relative luminance). */
export function textColor(background) {
  const [r, g, b] = background.map((c) => (c <= 10 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 ? [255, 255, 255] : [0, 0, 0];
}

/** As CSS writes it. */
export function css([r, g, b], alpha = 1) {
  return `rgb(${r} ${g} ${b} / ${alpha})`;
}

function paletteOklab(index) {
  const hue = (((FIRST_HUE + index * GOLDEN_ANGLE) % 360) * Math.PI) / 180;
  const shift = [0, 0.07, -0.07][Math.floor(index / 8) % 3]; // each round of the palette is lighter or darker
  const lightness = 0.72 + 0.09 * Math.cos(hue - (105 * Math.PI) / 180) + shift;
  let chroma = 0.19;
  const color = () => [lightness, chroma * Math.cos(hue), chroma * Math.sin(hue)];
  while (chroma > 0 && !linearOf(color()).every((c) => c >= -1e-4 && c <= 1 + 1e-4)) chroma -= 0.005;
  return color();
}

/** From OKLab (Björn Ottosson) to linear sRGB. */
function linearOf([lightness, a, b]) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
}

function squared(one, other) {
  return one.reduce((sum, value, k) => sum + (value - other[k]) ** 2, 0);
}
