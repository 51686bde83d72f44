// The question of the page as code to copy.

import { codeFor } from "./code.js";
import { $, say } from "./dom.js";

/** Shows the code in the language that the user chose. */
export class CodePanel {
  #code = null;

  constructor() {
    $("code").addEventListener("change", () => this.#show());
    $("copy").addEventListener("click", () => this.#copy());
  }

  /** Show code for a question, as `codeFor` has it; null for none. */
  update(asked) {
    $("code").hidden = asked === null;
    this.#code = asked && codeFor(asked);
    this.#show();
  }

  #show() {
    const language = document.querySelector("input[name=language]:checked").value;
    $("code-text").textContent = this.#code?.[language] ?? "";
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText($("code-text").textContent);
      $("copy").textContent = "Copied";
      say("Copied");
    } catch {
      // the clipboard cannot be used, for example over plain HTTP: select the text, so that the user can copy it
      getSelection().selectAllChildren($("code-text"));
      $("copy").textContent = "Selected: copy it with Ctrl or ⌘ and C";
    }
    setTimeout(() => ($("copy").textContent = "Copy"), 4000);
  }
}
