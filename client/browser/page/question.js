/** A message of a person: in the transcript, in the queue, or still on its way. */

import { el, setAttribute, setText } from "./dom.js";
import { link } from "./links.js";
import { clock, who } from "./text.js";

/** @import {AnyPart} from "../holdfast/core/wire.js" */

/**
 * @typedef {object} Asked
 * @property {string} runId
 * @property {readonly AnyPart[]} parts
 * @property {string | undefined} by
 * @property {string | undefined} device
 * @property {number | undefined} at
 * @property {"complete" | "queued" | "sending"} status
 * @property {string} note what is to be said of the status
 * @property {boolean} isOwn from this tab
 */

export class Question {
  element;
  #by = el("span", { class: "by" });
  #time = el("time");
  #note = el("span", { class: "note" });
  #cancel;
  #body = el("div", { class: "bubble" });
  /** @type {readonly AnyPart[] | null} */
  #parts = null;

  /**
   * @param {string} runId
   * @param {(runId: string) => void} cancel
   */
  constructor(runId, cancel) {
    this.#cancel = el("button", { type: "button", class: "quiet", text: "Cancel", onclick: () => cancel(runId) });
    this.#cancel.hidden = true;
    const meta = el("p", { class: "meta" }, this.#by, " ", this.#time, " ", this.#note, " ", this.#cancel);
    this.element = el("article", { class: "question", "data-run-id": runId, tabindex: -1 }, this.#body, meta);
  }

  /** @param {Asked} asked */
  update(asked) {
    const by = asked.isOwn ? "you" : who(asked.by, asked.device);
    setAttribute(this.element, "aria-label", `Message from ${by}`);
    setAttribute(this.element, "data-status", asked.status);
    setText(this.#by, asked.isOwn ? "You" : by);
    setText(this.#time, asked.at === undefined ? "" : clock(asked.at));
    setAttribute(this.#time, "datetime", asked.at === undefined ? null : new Date(asked.at).toISOString());
    setText(this.#note, asked.note);
    const hadFocus = document.activeElement === this.#cancel;
    this.#cancel.hidden = asked.status === "complete";
    if (hadFocus && this.#cancel.hidden) this.element.focus({ preventScroll: true });
    if (this.#parts === asked.parts) return;
    this.#parts = asked.parts;
    this.#body.replaceChildren(...asked.parts.map(partElement));
  }
}

/** @param {AnyPart} part */
function partElement(part) {
  if (part.kind !== "file") return el("p", { class: "plain", text: String(part.text ?? "") });
  const anchor = el("a", { text: String(part.name ?? part.url) });
  return el("p", {}, link(anchor, String(part.url)) ? anchor : String(part.name ?? part.url));
}
