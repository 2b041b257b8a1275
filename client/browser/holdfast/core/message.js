/** Messages that grow: by the chunks of a run that goes on, or out of the entries that a page cut them into. */

/** @import {AnyPart, Kept, Message, Part, PendingSteer, RunChunk} from "./wire.js" */

import { firstCodePoints } from "./text.js";

const TAIL_UNITS = 4_096;

/**
 * Parts that grow by nothing but text, and that a stop may cut.
 * @param {string} kind
 */
const isText = (kind) => kind === "text" || kind === "reasoning";

/**
 * Where the deltas of a kind accumulate in the folded part; an unknown kind keeps them under `delta`.
 * @param {string} kind
 */
const deltaField = (kind) => (isText(kind) ? "text" : kind === "tool_call" ? "arguments" : "delta");

/** One part of a message that may still grow. Appending a delta costs its length, not the part's. */
class OpenPart {
  #hasText = false;
  // The text in two strings, the second one short: whoever reads along never makes the engine copy the first.
  #sealed = "";
  #tail = "";
  #fields;
  /** @type {AnyPart | null} */
  #view = null;

  /**
   * @param {string} kind
   * @param {Record<string, unknown>} [fields] those of the folded part but `kind`
   */
  constructor(kind, fields = {}) {
    this.kind = kind;
    this.#fields = fields;
    const { [deltaField(kind)]: text, ...others } = fields;
    if (typeof text === "string") {
      this.#fields = others;
      this.#append(text);
    }
  }

  /** @param {string} delta */
  #append(delta) {
    this.#hasText = true;
    this.#tail += delta;
    if (this.#tail.length > TAIL_UNITS) {
      this.#sealed += this.#tail;
      this.#tail = "";
    }
  }

  /** In UTF-16 units. */
  get length() {
    return this.#sealed.length + this.#tail.length;
  }

  get text() {
    return this.#sealed + this.#tail;
  }

  /**
   * The text from the UTF-16 unit `start` on. Near the end it costs its own length.
   * @param {number} start
   */
  textFrom(start) {
    const before = this.#sealed.length;
    return start < before ? this.text.slice(start) : this.#tail.slice(start - before);
  }

  /**
   * Takes in a `run.chunk` of this part; whether the part is another one now.
   * @param {RunChunk} chunk
   */
  fold(chunk) {
    if (isText(this.kind)) {
      if (typeof chunk.delta !== "string" || chunk.delta === "") return false;
      this.#append(chunk.delta);
    } else {
      // `kind` does not change, and the rest of these are the event's own, not the part's.
      const { type, seq, at, command, from, runId, part, kind, done, delta, ...fields } = chunk;
      this.#fields = { ...this.#fields, ...fields };
      if (typeof delta === "string") {
        this.#append(delta);
      } else if (delta !== undefined && delta !== null) {
        this.#fields = { ...this.#fields, delta }; // of a kind that this version does not know
      }
      if (this.kind === "tool_call" && "input" in fields) {
        // The whole input replaces the argument text it was streamed as.
        this.#hasText = false;
        this.#sealed = this.#tail = "";
      }
    }
    this.#view = null;
    return true;
  }

  /**
   * Keeps the first `length` code points of text or reasoning; parts of other kinds happened, and stay whole.
   * @param {number} length
   */
  cut(length) {
    if (!isText(this.kind)) return;
    this.#sealed = firstCodePoints(this.text, length);
    this.#tail = "";
    this.#view = null;
  }

  /** The part as a message carries it; the same object until it changed. */
  view() {
    if (this.#view === null) {
      const text = this.#hasText || isText(this.kind) ? { [deltaField(this.kind)]: this.text } : null;
      this.#view = { kind: this.kind, ...this.#fields, ...text };
    }
    return this.#view;
  }
}

/** An assistant message while its run goes on. */
export class OpenMessage {
  /** @type {OpenPart[]} */
  #parts;
  #fields;
  /** @type {Message | null} */
  #view = null;

  /** @param {Message} message as a snapshot holds it, or without parts as it begins */
  constructor({ parts, ...fields }) {
    this.#fields = fields;
    this.#parts = parts.map(({ kind, ...rest }) => new OpenPart(kind, rest));
  }

  /**
   * The text of the text parts that `taken` does not count yet, and counts then; see `Transcript.readText`.
   * @param {number[]} taken
   */
  readText(taken) {
    let text = "";
    let number = 0;
    for (const part of this.#parts) {
      if (part.kind !== "text") continue;
      const start = taken[number] ?? 0;
      if (part.length > start) text += part.textFrom(start);
      taken[number++] = Math.max(start, part.length);
    }
    return text;
  }

  /**
   * Folds a `run.chunk`; whether anything shown has changed.
   * @param {RunChunk} chunk
   */
  chunk(chunk) {
    if (chunk.part > this.#parts.length) return false; // never stands in a log; passed over
    const begins = chunk.part === this.#parts.length;
    if (begins) this.#parts.push(new OpenPart(chunk.kind));
    const changed = /** @type {OpenPart} */ (this.#parts[chunk.part]).fold(chunk) || begins;
    if (changed) this.#view = null;
    return changed;
  }

  /**
   * Puts an applied steer behind the parts so far, which are cut by `kept` but all stay.
   * @param {PendingSteer} steer
   * @param {Kept[]} [kept]
   */
  steer({ steerId, parts, by, device }, kept = []) {
    for (const { part, length } of kept) this.#parts[part]?.cut(length);
    this.#parts.push(new OpenPart("steer", { steerId, parts, by, device }));
    this.#view = null;
  }

  /**
   * Cuts an ended message: text and reasoning parts to their length in `kept`, out where not listed.
   * @param {Kept[]} kept
   */
  keep(kept) {
    const lengths = new Map(kept.map(({ part, length }) => [part, length]));
    this.#parts = this.#parts.filter((part, number) => {
      part.cut(lengths.get(number) ?? 0);
      return !isText(part.kind) || lengths.has(number);
    });
    this.#view = null;
  }

  /** The message as a snapshot carries it; the same object until it changed. @returns {Message} */
  view() {
    this.#view ??= { ...this.#fields, parts: /** @type {Part[]} */ (this.#parts.map((part) => part.view())) };
    return this.#view;
  }
}

/**
 * `messages` with `entries` behind them, those marked `continued` grown into the message they go on with. Changes the
 * array `messages`, and no message in it.
 * @param {Message[]} messages
 * @param {readonly Message[]} entries
 */
export function joinContinued(messages, entries) {
  for (const entry of entries) {
    const whole = messages.at(-1);
    if (entry.continued && whole !== undefined) {
      messages[messages.length - 1] = { ...whole, parts: joinParts(whole.parts, entry.parts) };
    } else {
      messages.push(entry);
    }
  }
  return messages;
}

/**
 * @param {AnyPart[]} parts
 * @param {AnyPart[]} more
 * @returns {any[]} with the kinds that they had
 */
function joinParts(parts, more) {
  const last = parts.at(-1);
  const [first, ...others] = more;
  if (last === undefined || !first?.continued) return [...parts, ...more];
  const field = deltaField(last.kind);
  return [...parts.slice(0, -1), { ...last, [field]: textOf(last[field]) + textOf(first[field]) }, ...others];
}

/** @param {unknown} value */
const textOf = (value) => (typeof value === "string" ? value : "");
