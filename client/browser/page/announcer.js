/**
 * What a screen reader hears of the conversation, which is not read out while it grows: it would be read token by token.
 */

import { byId, el } from "./dom.js";
import { Narrator } from "./narrator.js";

/** @import {Change} from "../holdfast/index.js" */

/** Lines that stay in the region. */
const MAX_LINES = 6;

export class Announcer {
  #region = byId("announcements");
  #narrator = new Narrator();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {Change} change */
  take({ events, reset }) {
    if (reset) this.#narrator.forget();
    const now = performance.now();
    for (const event of events) this.#tell(this.#narrator.take(event, now));
    this.#portion();
  }

  /** Another session is shown. */
  forget() {
    this.#narrator.forget();
    this.#portion();
  }

  /** Tells a portion if it is time for one, and sees to the next. */
  #portion() {
    clearTimeout(this.#timer);
    const now = performance.now();
    this.#tell(this.#narrator.due(now));
    const { deadline } = this.#narrator;
    if (deadline !== null) this.#timer = setTimeout(() => this.#portion(), deadline - now);
  }

  /** @param {string[]} lines */
  #tell(lines) {
    this.#region.append(...lines.map((text) => el("p", { text })));
    while (this.#region.childElementCount > MAX_LINES) this.#region.firstElementChild?.remove();
  }
}
