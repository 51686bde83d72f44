// What the user draws on the picture: boxes around examples, and points. With a mouse, a finger, or the keyboard.

const SMALLEST_BOX = 3; // pixels on the page; a shorter movement is a click
const STEP = 0.01; // of the picture's longer side, for an arrow key; a tenth of it with Shift
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * A mark, in pixels of the picture: a positive or negative box or point.
 *
 * @typedef {{box?: number[], point?: [number, number], positive: boolean}} Mark
 */

/** Draws marks on a canvas over the picture, and tells what the user draws on it. */
export class Marks {
  #canvas;
  #image;
  #listener;
  #marks = [];
  #tool = "look";
  #from = null; // where a box begins
  #at = null; // where the pointer or the crosshair is
  #keyboard = false; // whether a crosshair is moved by keys

  /**
   * @param {HTMLImageElement} image
   * @param {HTMLCanvasElement} canvas As large as the image on the page.
   * @param {object} listener
   * @param {(x: number, y: number) => void} listener.onMove Where the pointer is.
   * @param {() => void} listener.onLeave It is no longer on the picture.
   * @param {(x: number, y: number) => void} listener.onPoint A click.
   * @param {(box: number[]) => void} listener.onBox A finished box.
   * @param {() => void} listener.onUndo Remove the last mark.
   * @param {(text: string) => void} listener.onSay Announce a text to screen readers.
   */
  constructor(image, canvas, listener) {
    this.#image = image;
    this.#canvas = canvas;
    this.#listener = listener;
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#release(event));
    canvas.addEventListener("pointercancel", () => this.#forget());
    canvas.addEventListener("pointerleave", () => listener.onLeave());
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => this.#draw());
    canvas.addEventListener("blur", () => {
      this.#keyboard = false;
      this.#draw();
    });
    new ResizeObserver(() => this.#draw()).observe(image);
  }

  /** Choose what a press does: "look" reports the point, "box" draws boxes, "point" sets points. */
  use(tool) {
    if (tool === this.#tool) return;
    this.#tool = tool;
    this.#canvas.dataset.tool = tool;
    this.#canvas.tabIndex = tool === "look" ? -1 : 0; // with the keyboard, instances are chosen in the list
    this.#forget();
  }

  /** Show these marks. */
  show(marks) {
    this.#marks = marks;
    this.#draw();
  }

  get #size() {
    return [this.#image.naturalWidth, this.#image.naturalHeight];
  }

  #placeOf(event) {
    const [width, height] = this.#size;
    const x = (event.offsetX / this.#canvas.clientWidth) * width;
    const y = (event.offsetY / this.#canvas.clientHeight) * height;
    return [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
  }

  /** The pixel at a place. */
  #pixelAt([x, y]) {
    const [width, height] = this.#size;
    return [Math.min(Math.floor(x), width - 1), Math.min(Math.floor(y), height - 1)];
  }

  #press(event) {
    if (event.button !== 0) return;
    this.#keyboard = false;
    if (this.#tool !== "box") return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#from = this.#at = this.#placeOf(event);
  }

  #move(event) {
    const place = this.#placeOf(event);
    if (this.#from === null || this.#keyboard) return this.#listener.onMove(...place);
    this.#at = place;
    this.#draw();
  }

  #release(event) {
    if (event.button !== 0) return;
    const place = this.#placeOf(event);
    if (this.#tool !== "box") return this.#listener.onPoint(...this.#pixelAt(place));
    if (this.#from === null || this.#keyboard) return;
    const box = boxOf(this.#from, place);
    const onPage = this.#canvas.clientWidth / this.#size[0];
    this.#forget();
    if (Math.min(box[2] - box[0], box[3] - box[1]) * onPage < SMALLEST_BOX) this.#listener.onPoint(...this.#pixelAt(place));
    else this.#listener.onBox(box);
  }

  #key(event) {
    if (this.#tool === "look") return;
    const [width, height] = this.#size;
    if (event.key in ARROWS) {
      const step = Math.max(1, Math.round(STEP * Math.max(width, height) * (event.shiftKey ? 0.1 : 1)));
      const [dx, dy] = ARROWS[event.key];
      const [x, y] = this.#at ?? [width / 2, height / 2].map(Math.round);
      this.#at = [Math.min(Math.max(x + dx * step, 0), width - 1), Math.min(Math.max(y + dy * step, 0), height - 1)].map(Math.round);
      this.#keyboard = true;
      this.#listener.onSay(this.#at.join(", "));
    } else if (event.key === "Enter" || event.key === " ") {
      this.#keyboard = true;
      this.#at ??= [width / 2, height / 2].map(Math.round);
      if (this.#tool === "point") this.#listener.onPoint(...this.#at);
      else if (this.#from === null) {
        this.#from = this.#at;
        this.#listener.onSay(`Box from ${this.#at.join(", ")}`);
      } else {
        const box = boxOf(this.#from, this.#at);
        if (box[2] > box[0] && box[3] > box[1]) {
          this.#from = null;
          this.#listener.onBox(box);
        }
      }
    } else if (event.key === "Escape" && this.#from !== null) {
      this.#from = null;
      event.stopPropagation();
    } else if (event.key === "Delete" || event.key === "Backspace") this.#listener.onUndo();
    else return;
    event.preventDefault();
    this.#draw();
  }

  #forget() {
    this.#from = this.#at = null;
    this.#draw();
  }

  #draw() {
    const canvas = this.#canvas;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !this.#size[0]) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const factor = width / this.#size[0];
    const onPage = (numbers) => numbers.map((one) => one * factor);
    for (const { box, point, positive } of this.#marks) {
      if (box) drawBox(context, onPage(box), positive);
      else drawPoint(context, onPage(point.map((one) => one + 0.5)), positive);
    }
    if (this.#from && this.#at) drawBox(context, onPage(boxOf(this.#from, this.#at)), canvas.dataset.positive !== "false");
    if (this.#keyboard && this.#at) drawCrosshair(context, onPage(this.#at), [width, height]);
  }
}

/** Corners in any order as x1, y1, x2, y2 in tenths of a pixel. */
function boxOf([ax, ay], [bx, by]) {
  const round = (value) => Math.round(10 * value) / 10;
  return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)].map(round);
}

const COLORS = { true: "#17c964", false: "#ff5a4f" };

/** A coloured line on a dark one, to be seen on any picture; negative boxes are dashed, to be told without colours. */
function drawBox(context, [x1, y1, x2, y2], positive) {
  for (const [width, color] of [[6, "rgb(0 0 0 / .6)"], [3, COLORS[positive]]]) {
    context.lineWidth = width;
    context.strokeStyle = color;
    context.setLineDash(positive ? [] : [7, 5]);
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  context.setLineDash([]);
  drawPoint(context, [x1, y1], positive);
}

/** A disc with a plus or a minus. */
function drawPoint(context, [x, y], positive) {
  context.beginPath();
  context.arc(x, y, 8, 0, 2 * Math.PI);
  context.fillStyle = COLORS[positive];
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = "#fff";
  context.stroke();
  context.beginPath();
  context.strokeStyle = "#10131a";
  context.moveTo(x - 4, y);
  context.lineTo(x + 4, y);
  if (positive) {
    context.moveTo(x, y - 4);
    context.lineTo(x, y + 4);
  }
  context.stroke();
}

function drawCrosshair(context, [x, y], [width, height]) {
  for (const [line, color] of [[3, "rgb(0 0 0 / .6)"], [1, "#fff"]]) {
    context.lineWidth = line;
    context.strokeStyle = color;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, height);
    context.moveTo(0, y);
    context.lineTo(width, y);
    context.stroke();
  }
}
