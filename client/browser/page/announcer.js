/**
 * What a screen reader hears of an answer: that it has begun, then whole sentences every few seconds, and how it ended.
 * The conversation itself is not read out while it grows: it would be read token by token.
 */

import { byId, el } from "./dom.js";

/** @import {Event} from "../holdfast/index.js" */

/** Between two portions of an answer. */
const REST_MS = 4_000;
/** Of one portion; what is longer can be read in the conversation. In UTF-16 units. */
const MAX_PORTION = 320;
/** Lines that stay in the region. */
const MAX_LINES = 6;
const SENTENCE_END = /[.!?:…]["”)]*\s|\n/g;

export class Announcer {
  #region = byId("announcements");
  /** The run whose answer is read. @type {string | null} */
  #runId = null;
  #text = "";
  #toldAt = 0;

  /** @param {readonly Event[]} events */
  take(events) {
    for (const event of events) {
      switch (event.type) {
        case "run.started":
          this.#runId = event.runId;
          this.#text = "";
          this.#tell("Answering…");
          break;
        case "run.chunk":
          if (event.runId !== this.#runId || event.kind !== "text" || typeof event.delta !== "string") break;
          if (this.#text.length < MAX_PORTION) this.#text += event.delta.slice(0, MAX_PORTION);
          if (performance.now() - this.#toldAt > REST_MS) this.#portion();
          break;
        case "run.requested":
          this.#tell(
            event.request.kind === "approval" ? `Approval needed: ${event.request.name}` : "An answer is needed.",
          );
          break;
        case "run.ended":
          if (event.runId !== this.#runId) break;
          this.#runId = null;
          if (this.#text.trim() !== "" && event.reason === "completed") this.#tell(spoken(this.#text));
          this.#tell(event.reason === "completed" ? "Answer complete." : `The answer ended: ${event.reason}.`);
          break;
      }
    }
  }

  /** Tells the sentences that are whole. */
  #portion() {
    const ends = [...this.#text.matchAll(SENTENCE_END)];
    const last = ends.at(-1);
    const end = last === undefined ? (this.#text.length >= MAX_PORTION ? this.#text.length : 0) : last.index + 1;
    if (end === 0) return;
    this.#tell(spoken(this.#text.slice(0, end)));
    this.#text = this.#text.slice(end);
  }

  /** @param {string} line */
  #tell(line) {
    this.#toldAt = performance.now();
    this.#region.append(el("p", { text: line }));
    while (this.#region.childElementCount > MAX_LINES) this.#region.firstElementChild?.remove();
  }
}

/** @param {string} text without the marks of Markdown */
function spoken(text) {
  return text.replace(/[*_`#>|~]+/g, "").trim();
}
