/** Lines that tell of something once: a command that was refused, or that came too late. */

import { ClientClosedError, CommandError, HoldfastError } from "../holdfast/index.js";
import { el } from "./dom.js";

/** Older ones go. */
const MAX_NOTICES = 3;
/** How long what is only told stays on a page that is looked at. */
const TOLD_MS = 20_000;

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

  /**
   * Tells something that needs nothing to be done. It goes by itself.
   *
   * @param {string} text
   */
  tell(text) {
    const notice = this.#show("told", text);
    if (notice !== null) this.#leave(notice);
  }

  /** Something new was said: what was told before is out of date. */
  said() {
    for (const notice of [...this.#list.children]) if (notice.getAttribute("data-kind") === "told") notice.remove();
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
   * @returns {HTMLElement | null} null where it stands there already
   */
  #show(kind, text, detail = null) {
    if (this.#list.lastElementChild?.getAttribute("data-text") === text) return null;
    const dismiss = el("button", { type: "button", class: "quiet", text: "Dismiss" });
    const notice = el(
      "div",
      { class: "notice", "data-kind": kind, "data-text": text, role: kind === "told" ? "status" : "alert" },
      el("p", {}, text, " ", detail),
      dismiss,
    );
    dismiss.addEventListener("click", () => {
      notice.remove();
      this.#focusAfter.focus();
    });
    this.#list.append(notice);
    while (this.#list.childElementCount > MAX_NOTICES) this.#list.firstElementChild?.remove();
    return notice;
  }

  /**
   * Takes a notice away when there was time to read it, and nobody is at it.
   *
   * @param {HTMLElement} notice
   */
  #leave(notice) {
    setTimeout(() => {
      if (!notice.isConnected) return;
      if (document.hidden || notice.matches(":hover, :focus-within")) this.#leave(notice);
      else notice.remove();
    }, TOLD_MS);
  }
}
