/** Lines that tell of something once: a command that was refused, or that came too late. */

import { ClientClosedError, CommandError, HoldfastError } from "../holdfast/index.js";
import { el } from "./dom.js";

/** Older ones go. */
const MAX_NOTICES = 3;

export class Notices {
  #list;
  #focusAfter;
  /** What was told already: a refusal is reported to its caller and to subscribers. @type {WeakSet<object>} */
  #told = new WeakSet();

  /**
   * @param {HTMLElement} list a live region
   * @param {HTMLElement} focusAfter takes the focus when the notice that has it is dismissed
   */
  constructor(list, focusAfter) {
    this.#list = list;
    this.#focusAfter = focusAfter;
  }

  /** @param {string} text */
  tell(text) {
    this.#show("told", text);
  }

  /** @param {unknown} error why a command was not carried out */
  refused(error) {
    if (error instanceof ClientClosedError) return; // the page itself left the session
    if (typeof error === "object" && error !== null) {
      if (this.#told.has(error)) return;
      this.#told.add(error);
    }
    const message = error instanceof Error ? error.message : String(error);
    const code = error instanceof HoldfastError ? error.code : "error";
    const path = error instanceof CommandError && error.path ? ` at ${error.path}` : "";
    this.#show("refused", `Not done: ${message}`, el("code", { text: `${code}${path}` }));
  }

  clear() {
    this.#list.replaceChildren();
  }

  /**
   * @param {string} kind
   * @param {string} text
   * @param {HTMLElement | null} [detail]
   */
  #show(kind, text, detail = null) {
    if (this.#list.lastElementChild?.getAttribute("data-text") === text) return;
    const dismiss = el("button", { type: "button", class: "quiet", text: "Dismiss" });
    const notice = el(
      "div",
      { class: "notice", "data-kind": kind, "data-text": text, role: "alert" },
      el("p", {}, text, " ", detail),
      dismiss,
    );
    dismiss.addEventListener("click", () => {
      notice.remove();
      this.#focusAfter.focus();
    });
    this.#list.append(notice);
    while (this.#list.childElementCount > MAX_NOTICES) this.#list.firstElementChild?.remove();
  }
}
