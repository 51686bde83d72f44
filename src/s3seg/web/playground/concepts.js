// Concepts that the user keeps on the service: examples under a name, to be found on any picture.

import { $, button, count, make } from "./dom.js";

/** Lists the user's concepts. */
export class Concepts {
  #account;
  #listener;

  /**
   * @param {import("./account.js").Account} account
   * @param {object} listener
   * @param {(concept: {id: string, name: string}) => void} listener.onFind It is to be found on the picture.
   * @param {(error: Error) => void} listener.onError Something failed.
   */
  constructor(account, listener) {
    this.#account = account;
    this.#listener = listener;
  }

  /** Bring the list up to date. */
  async refresh() {
    const { service } = this.#account;
    $("concepts").hidden = service === null;
    if (!service) return;
    try {
      const concepts = await service.concepts();
      if (service === this.#account.service) this.#show(concepts);
    } catch (error) {
      if (error.status === 404) $("concepts").hidden = true; // an older service, which has none
      else if (error.status !== 401) this.#listener.onError(error); // the account reports an expired token
    }
  }

  #show(concepts) {
    $("concepts-count").textContent = concepts.length || "";
    $("concept-list").replaceChildren(...concepts.map((concept) => this.#row(concept)));
  }

  #row(concept) {
    const row = make("li");
    const boxes = concept.examples.reduce((sum, example) => sum + example.boxes.length, 0);
    const about = [...(concept.words ? [`“${concept.words}”`] : []), count(boxes, "example")].join(" and ");
    const name = make("span", "name");
    name.append(make("strong", "", concept.name), " ", make("span", "hint", about));
    const find = button("Find here", () => this.#listener.onFind(concept));
    find.append(" ", make("small", "", "1 credit"));
    find.setAttribute("aria-label", `Find ${concept.name} on this picture, for 1 credit`);
    const remove = button("Delete", () => this.#delete(concept));
    remove.setAttribute("aria-label", `Delete the concept ${concept.name}`);
    row.append(name, find, remove);
    return row;
  }

  async #delete(concept) {
    try {
      await this.#account.service.deleteConcept(concept.id);
    } catch (error) {
      if (error.status !== 404) return this.#listener.onError(error);
    }
    await this.refresh();
    $("concepts").querySelector("summary").focus();
  }
}
