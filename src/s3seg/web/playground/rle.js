// Masks as COCO writes them: run lengths down the columns, background first, in compressed ASCII.

const CHARACTERS_PER_RUN = 6; // of five bits each: more than any number of pixels takes

/** A mask of height x width pixels. It stores only its runs; pixels are computed when they are needed. */
export class Mask {
  /**
   * @param {{size: [number, number], counts: string}} rle Size is [height, width].
   * @throws {RangeError} If size and counts do not describe a mask.
   */
  constructor({ size, counts }) {
    const [height, width] = size;
    this.height = height;
    this.width = width;
    /** As it was given. */
    this.rle = { size, counts };
    const ends = endsOf(counts, height * width);
    /** Foreground runs: pixel starts[k] up to, without, ends[k], counted down the columns. */
    this.starts = ends.filter((_, k) => k % 2 === 0).slice(0, ends.length >> 1);
    this.ends = ends.filter((_, k) => k % 2 === 1);
    this.area = this.ends.reduce((sum, end, k) => sum + end - this.starts[k], 0);
    this.box = boxOf(this);
  }

  /** Call `paint(x, top, bottom)` for each piece of a column that is foreground; bottom is not part of it. */
  forEachPiece(paint) {
    for (let k = 0; k < this.starts.length; k++) {
      for (let at = this.starts[k]; at < this.ends[k]; ) {
        const x = Math.floor(at / this.height);
        const stop = Math.min(this.ends[k], (x + 1) * this.height);
        paint(x, at - x * this.height, stop - x * this.height);
        at = stop;
      }
    }
  }

  /** All pixels, row by row: 1 is foreground. */
  pixels() {
    const pixels = new Uint8Array(this.height * this.width);
    this.forEachPiece((x, top, bottom) => {
      for (let y = top; y < bottom; y++) pixels[y * this.width + x] = 1;
    });
    return pixels;
  }

  /** Whether the pixel (x, y) is foreground. */
  covers(x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return false;
    const at = Math.floor(x) * this.height + Math.floor(y);
    let low = 0;
    let high = this.starts.length; // the runs before `low` end at or before `at`
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] <= at) low = middle + 1;
      else high = middle;
    }
    return low < this.starts.length && this.starts[low] <= at;
  }
}

/** Where each run ends, background and foreground in turn; the last is the number of pixels. */
function endsOf(counts, pixels) {
  const lengths = [];
  for (let at = 0; at < counts.length; ) {
    let length = 0;
    for (let place = 0; ; place++) {
      const digit = counts.charCodeAt(at++) - 48;
      if (!(digit >= 0 && digit < 64) || place >= CHARACTERS_PER_RUN) {
        throw new RangeError("the counts of a mask are not in COCO's compressed form");
      }
      length |= (digit & 31) << (5 * place);
      if (digit & 32) continue;
      if (digit & 16) length |= -1 << (5 * (place + 1)); // the sign
      break;
    }
    if (lengths.length > 2) length += lengths[lengths.length - 2]; // written as a difference
    if (length < 0) throw new RangeError("a run of a mask has a negative length");
    lengths.push(length);
  }
  let end = 0;
  const ends = lengths.map((length) => (end += length));
  if (end !== pixels) throw new RangeError(`the runs of a mask have ${end} pixels, its size has ${pixels}`);
  return ends;
}

/** The tight box, xyxy in pixels; zeros around nothing. */
function boxOf(mask) {
  let [x1, y1, x2, y2] = [mask.width, mask.height, 0, 0];
  mask.forEachPiece((x, top, bottom) => {
    x1 = Math.min(x1, x);
    x2 = Math.max(x2, x + 1);
    y1 = Math.min(y1, top);
    y2 = Math.max(y2, bottom);
  });
  return x2 ? [x1, y1, x2, y2] : [0, 0, 0, 0];
}
