/**
 * What is told aloud of messages: that one has begun, then whole sentences in their order every few seconds, and how it
 * ended. Pure: events and times in, lines out.
 *
 * A message may be written faster than anybody can listen. Then whole sentences are left out, which is said once; the
 * conversation has them.
 */

import { outcome, shortened, textOf, told, words } from "./text.js";

/** @import {Event} from "../holdfast/index.js" */

/** Between two portions of a message. */
const REST_MS = 4_000;
/** Of one portion, where a sentence is not longer by itself. In UTF-16 units, as what follows. */
const MAX_PORTION = 320;
/** Of the whole sentences of one message that wait to be told, and of a sentence that is not whole yet. */
const MAX_WAITING = 1_000;
/** So much of a sentence that is left out is kept, to find its end. */
const TAIL = 16;
/** More messages than these at a time are told by their beginnings and ends alone. */
const MAX_RUNS = 8;
const MAX_STEERS = 32;
const LEFT_OUT = "Some of this message is left out here; all of it is in the conversation.";

/**
 * Where a sentence ends: a mark with a space behind it, unless what follows is in lower case, as after "e.g."; a mark of
 * a script that has no spaces; and the end of a paragraph, a heading or an item.
 */
const END =
  /[.!?…]["'”’»)\]*_`]*\s+(?=[^\s\p{Ll}])|[。！？]["'”’」』）]*|\n[ \t]*\n|\n(?=[ \t]*(?:[-*+>#|`]|\d+[.)]\s))/gu;
/** The number of an item, which is no sentence. */
const NUMBER = /^\W*\d+[.)]?\s*$/;

/**
 * @typedef {object} Telling what is known of a message that is written
 * @property {number | null} part the one that the text is of
 * @property {string} text of a sentence that is not whole yet
 * @property {{text: string, isAfterGap: boolean}[]} sentences whole ones that wait
 * @property {boolean} isSkipping the sentence of the moment is left out
 * @property {boolean} isGap something was left out since the last sentence that waits
 * @property {boolean} isGapTold
 */

export class Narrator {
  /** In the order in which they began. @type {Map<string, Telling>} */
  #tellings = new Map();
  /** What steers that wait to be taken up say. @type {Map<string, string>} */
  #steers = new Map();
  #toldAt = Number.NEGATIVE_INFINITY;
  /** Whose sentences were told last. @type {string | null} */
  #voice = null;

  /** When `due` has something to tell; null while nothing waits. */
  get deadline() {
    return this.#next() === undefined ? null : this.#toldAt + REST_MS;
  }

  /** Forgets everything: what comes is of another log, or goes on after a gap. */
  forget() {
    this.#tellings.clear();
    this.#steers.clear();
    this.#voice = null;
  }

  /**
   * Takes in an event, and returns what is to be told at once.
   *
   * @param {Event} event
   * @param {number} now in milliseconds, of any clock that does not go back
   * @returns {string[]}
   */
  take(event, now) {
    const lines = this.#lines(event);
    if (lines.length > 0) this.#toldAt = now;
    return lines;
  }

  /**
   * The next portion, when it is time for one.
   *
   * @param {number} now
   * @returns {string[]}
   */
  due(now) {
    const next = this.#next();
    if (next === undefined || now < this.#toldAt + REST_MS) return [];
    this.#toldAt = now;
    return [this.#said(...next, MAX_PORTION)];
  }

  /**
   * @param {Event} event
   * @returns {string[]}
   */
  #lines(event) {
    switch (event.type) {
      case "run.started":
        if (this.#tellings.has(event.runId)) return []; // begun again, elsewhere
        this.#begin(event.runId, false);
        return [this.#tellings.size > 1 ? "Writing another message…" : "Writing…"];
      case "run.chunk": {
        // One that was written before this page came is told from its next sentence on.
        const telling = this.#tellings.get(event.runId) ?? this.#begin(event.runId, true);
        if (telling !== undefined) grow(telling, event);
        return [];
      }
      case "run.requested": {
        const { kind, name } = event.request;
        const asks = {
          approval: `Approval needed: ${name}`,
          input: "An answer is needed.",
          tool: "An answer is needed.",
        };
        return [...this.#rest(event.runId), told(asks, kind) ?? `Asked for: ${words(kind)}.`]; // of a newer server
      }
      case "steer.accepted":
        this.#steers.set(event.steerId, shortened(textOf(event.parts)));
        for (const steerId of this.#steers.keys()) if (this.#steers.size > MAX_STEERS) this.#steers.delete(steerId);
        return [];
      case "steer.withdrawn":
        this.#steers.delete(event.steerId);
        return [];
      case "steer.applied": {
        const telling = this.#tellings.get(event.runId);
        if (event.kept !== undefined && telling !== undefined) leaveOut(telling);
        const text = this.#steers.get(event.steerId);
        this.#steers.delete(event.steerId);
        return [...this.#rest(event.runId), text === undefined ? "Steered." : `Steered: ${text}`];
      }
      case "run.ended": {
        const { runId, reason, cause, error } = event;
        // What is cut off is not told any more.
        const rest = reason === "cancelled" ? [] : this.#rest(runId);
        this.#tellings.delete(runId);
        for (const { steerId } of event.returned ?? []) this.#steers.delete(steerId);
        return [...rest, reason === "completed" ? "Message complete." : `${outcome({ reason, cause, error })}.`];
      }
      default:
        return [];
    }
  }

  /**
   * @param {string} runId
   * @param {boolean} isUnderway
   * @returns {Telling | undefined} none where there are too many
   */
  #begin(runId, isUnderway) {
    if (this.#tellings.size >= MAX_RUNS) return undefined;
    /** @type {Telling} */
    const telling = {
      part: null,
      text: "",
      sentences: [],
      isSkipping: isUnderway,
      isGap: isUnderway,
      isGapTold: false,
    };
    this.#tellings.set(runId, telling);
    return telling;
  }

  /**
   * The oldest message of which something waits: two are not told by turns.
   *
   * @returns {[string, Telling] | undefined}
   */
  #next() {
    for (const entry of this.#tellings) if (entry[1].sentences.length > 0) return entry;
    return undefined;
  }

  /**
   * All that waits of a message that makes a pause or has ended.
   *
   * @param {string} runId
   * @returns {string[]}
   */
  #rest(runId) {
    const telling = this.#tellings.get(runId);
    if (telling === undefined) return [];
    finish(telling);
    const lines = telling.sentences.length > 0 ? [this.#said(runId, telling, Number.POSITIVE_INFINITY)] : [];
    if (telling.isGap) lines.push(gap(telling));
    telling.isGap = false;
    return lines;
  }

  /**
   * @param {string} runId
   * @param {Telling} telling of which a sentence waits
   * @param {number} length of the portion
   */
  #said(runId, telling, length) {
    /** @type {string[]} */
    const words = [];
    if (this.#voice !== null && this.#voice !== runId && this.#tellings.size > 1) words.push("Another message:");
    this.#voice = runId;
    let count = 0;
    do {
      const { text, isAfterGap } = /** @type {Telling["sentences"][number]} */ (telling.sentences.shift());
      if (isAfterGap) words.push(gap(telling));
      words.push(text);
      count += text.length;
    } while (telling.sentences[0] !== undefined && count + telling.sentences[0].text.length <= length);
    return words.join(" ");
  }
}

/**
 * @param {Telling} telling
 * @param {{part: number, kind: string, delta?: unknown, done?: boolean}} chunk
 */
function grow(telling, { part, kind, delta, done }) {
  // A part begins with a sentence of its own.
  if (telling.part !== null && telling.part !== part) finish(telling);
  telling.part = part;
  if (kind === "text" && typeof delta === "string") {
    telling.text += delta;
    split(telling);
  }
  if (done) finish(telling);
}

/** @param {Telling} telling */
function split(telling) {
  let start = 0;
  for (const match of telling.text.matchAll(END)) {
    const end = match.index + match[0].length;
    const sentence = telling.text.slice(start, end);
    if (NUMBER.test(sentence)) continue; // it belongs to what follows
    keep(telling, sentence);
    start = end;
  }
  telling.text = telling.text.slice(start);
  if (telling.text.length <= MAX_WAITING) return;
  telling.isSkipping = true;
  telling.isGap = true;
  telling.text = telling.text.slice(-TAIL);
}

/**
 * What is there is all that there is of a sentence.
 *
 * @param {Telling} telling
 */
function finish(telling) {
  if (telling.text.trim() !== "") keep(telling, telling.text);
  telling.text = "";
}

/**
 * @param {Telling} telling
 * @param {string} sentence a whole one, or the end of one that is left out
 */
function keep(telling, sentence) {
  const wasSkipping = telling.isSkipping;
  telling.isSkipping = false;
  if (wasSkipping) return;
  const text = spoken(sentence);
  if (!/[\p{L}\p{N}]/u.test(text) || NUMBER.test(text)) return;
  const waiting = telling.sentences.reduce((sum, waits) => sum + waits.text.length, text.length);
  if (waiting > MAX_WAITING) {
    telling.isGap = true;
    return;
  }
  telling.sentences.push({ text, isAfterGap: telling.isGap });
  telling.isGap = false;
}

/**
 * Of a text that was cut, what was not told yet is left out.
 *
 * @param {Telling} telling
 */
function leaveOut(telling) {
  if (telling.sentences.length > 0 || telling.text.trim() !== "") telling.isGap = true;
  telling.sentences = [];
  telling.text = "";
  telling.isSkipping = false;
}

/** @param {Telling} telling */
function gap(telling) {
  const words = telling.isGapTold ? "…" : LEFT_OUT;
  telling.isGapTold = true;
  return words;
}

/** @param {string} text without the marks of Markdown, in one line */
function spoken(text) {
  return text
    .replace(/!?\[([^\]]*)\]\([^)\s]*\)/g, "$1")
    .replace(/[*_`#>|~]+/g, "")
    .replace(/\s+/g, " ")
    .trim();
}
