// The picture that is searched: chosen, dropped, pasted, the example, or one of an earlier result.

import { $, showText } from "./dom.js";

const MOST_BYTES = 10 * 1024 * 1024;

/**
 * A picture that is shown.
 *
 * @typedef {object} Picture
 * @property {File} file
 * @property {string} name
 * @property {number} width Pixels.
 * @property {number} height
 * @property {string | null} imageUrl Its address on the service, once it is uploaded.
 */

/** Takes pictures from the user, and shows one. */
export class PictureChooser {
  /** @type {Picture | null} */
  current = null;
  #address = "";
  #listener;

  /**
   * @param {object} listener
   * @param {() => void} listener.onBegin Another picture is being loaded.
   * @param {(picture: Picture) => void} listener.onTaken It is shown.
   */
  constructor(listener) {
    this.#listener = listener;
    $("file").addEventListener("change", () => {
      this.take($("file").files[0]);
      $("file").value = ""; // so that the same file can be chosen again
    });
    document.addEventListener("paste", (event) => {
      const file = event.clipboardData?.files[0];
      if (!file) return;
      event.preventDefault();
      this.take(file);
    });
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
      document.addEventListener(kind, (event) => this.#drag(event));
    }
  }

  /** Take a file of the user; if it cannot be searched, show why, and return false. */
  async take(file) {
    if (!file) return false;
    this.#listener.onBegin();
    const name = file.name || "pasted picture";
    if (file.size > MOST_BYTES) {
      showText("error", `${name} has ${(file.size / 2 ** 20).toFixed(1)} MB, and the service takes at most 10.`);
      return false;
    }
    return this.#show(file, name, null);
  }

  /** Take a picture that is on the service already. */
  takeStored(blob, name, imageUrl) {
    return this.#show(new File([blob], name, { type: blob.type }), name, imageUrl);
  }

  /** Take the example drawing, which is part of the page. */
  async takeExample() {
    const drawing = new Image();
    drawing.src = $("example").querySelector("img").src;
    await drawing.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [drawing.naturalWidth, drawing.naturalHeight];
    canvas.getContext("2d").drawImage(drawing, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    return this.take(new File([blob], "shapes.png", { type: "image/png" }));
  }

  async #show(file, name, imageUrl) {
    const address = URL.createObjectURL(file);
    const image = $("image");
    image.src = address;
    try {
      await image.decode();
    } catch {
      URL.revokeObjectURL(address);
      if (this.#address) image.src = this.#address;
      showText("error", `${name} is no picture that this browser can show. The service takes PNG, JPEG and WebP.`);
      return false;
    }
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#address = address;
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    this.current = { file, name, width, height, imageUrl };
    image.alt = name;
    $("layers").style.setProperty("--aspect", width / height);
    $("name").textContent = $("name").title = name;
    $("size").textContent = `${width} × ${height}`;
    $("empty").hidden = true;
    $("stage").hidden = false;
    this.#listener.onTaken(this.current);
    return true;
  }

  #drag(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const leaving = event.type === "drop" || (event.type === "dragleave" && event.relatedTarget === null);
    document.body.classList.toggle("dropping", !leaving);
    if (event.type === "drop") this.#takeFirst(event.dataTransfer.files);
  }

  async #takeFirst(files) {
    const [first, ...others] = files; // copied now, since the browser empties the list after the event
    if ((await this.take(first)) && others.length) {
      showText("error", `One picture at a time: this is ${first.name}, and ${others.length} more were left out. “s3seg segment” takes whole folders.`);
    }
  }
}
