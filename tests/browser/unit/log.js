/** Logs that a server could have written, with a bit of everything in them, unknown events and kinds included. */

import { ENDS, endsOf, seeded } from "./wire.js";

/** @import {Event} from "../../../client/browser/holdfast/core/wire.js" */

const KINDS = ["text", "text", "reasoning", "tool_call", "data", "novel"];
const TEXTS = ["", "a", "Hm.", "👋", "Olá 👋", "é👩‍💻!", "Lisbon ", "a long word 🏳️‍🌈"];
const BY = { by: "ana", device: "phone" };

/**
 * A run as its log tells it so far.
 * @typedef {object} Run
 * @property {string} id
 * @property {"new" | "queued" | "active" | "ended"} status
 * @property {string[]} parts their kinds
 * @property {string[]} requests
 * @property {string[]} steers
 * @property {number} attempt
 */

/** Writes a log, at most four runs at a time. */
export class LogMaker {
  /** @type {Event[]} */
  events = [];
  #random;
  #ids = 0;
  /** @type {string | null} */
  #last = null;
  /** @type {(Run | undefined)[]} */
  #runs = [];

  /** @param {number} seed */
  constructor(seed) {
    this.#random = seeded(seed);
  }

  get head() {
    return this.events.length;
  }

  /** Adds what happens next: one event or a few. */
  next() {
    const slot = this.#random.below(4);
    let run = this.#runs[slot];
    if (run === undefined || run.status === "ended") {
      run = { id: this.#new("r"), status: "new", parts: [], requests: [], steers: [], attempt: 0 };
      this.#runs[slot] = run;
    }
    if (run.status === "new") this.#enter(run);
    else if (run.status === "queued") this.#queued(run);
    else this.#active(run);
  }

  /**
   * Adds an event of its own, such as a command's.
   * @param {string} type
   * @param {Record<string, unknown>} fields
   */
  emit(type, fields) {
    const seq = this.events.length + 1;
    const event = /** @type {Event} */ (
      /** @type {unknown} */ ({ type, seq, at: 1000 + Math.floor(seq / 3), ...fields })
    );
    this.events.push(event);
    return event;
  }

  /** @param {string} prefix */
  #new(prefix) {
    this.#ids++;
    return `${prefix}${this.#ids}`;
  }

  #text() {
    return this.#oneOf(TEXTS);
  }

  /** @param {string[]} words */
  #oneOf(words) {
    return /** @type {string} */ (words[this.#random.below(words.length)]);
  }

  /** @param {Run} run */
  #message(run) {
    return { id: `u~${run.id}`, role: "user", parts: [{ kind: "text", text: run.id }], ...BY, at: 1 };
  }

  /** @param {Run} run */
  #enter(run) {
    const what = this.#random.below(8);
    if (what === 0) {
      this.emit("run.ended", { runId: run.id, reason: "cancelled", cause: "prevented", by: "ana", returned: [] });
      run.status = "ended";
    } else if (what < 4) {
      this.emit("run.queued", { runId: run.id, position: 1, agent: "demo", ...BY, message: this.#message(run) });
      run.status = "queued";
    } else {
      this.#start(run);
    }
  }

  /** @param {Run} run */
  #start(run) {
    this.emit("message", { message: this.#message(run), runId: run.id, after: this.#last });
    this.#last = `a~${run.id}`;
    run.status = "active";
    this.#attempt(run);
  }

  /** @param {Run} run */
  #attempt(run) {
    run.attempt++;
    run.requests = [];
    const names = { messageId: `a~${run.id}`, after: `u~${run.id}` };
    this.emit("run.started", { runId: run.id, attempt: run.attempt, ...names, agent: "demo", ...BY, node: "n" });
  }

  /** @param {Run} run */
  #queued(run) {
    const what = this.#random.below(8);
    if (what < 1) this.#end(run, this.#oneOf(endsOf("queued")));
    else if (what < 3) this.#steer(run);
    else this.#start(run);
  }

  /** @param {Run} run */
  #active(run) {
    const { id: runId } = run;
    switch (this.#random.below(16)) {
      case 0:
        return this.#end(run, this.#oneOf(endsOf("running")));
      case 1:
        return this.#attempt(run);
      case 2:
        run.requests.push(this.#new("q"));
        return this.emit("run.requested", { runId, request: { id: run.requests.at(-1), kind: "input" } });
      case 3: {
        const requestId = run.requests.shift();
        return requestId && this.emit("run.resolved", { runId, requestId, outcome: "answered", value: 1 });
      }
      case 4:
        return this.#steer(run);
      case 5: {
        const steerId = run.steers.shift();
        if (steerId === undefined) return;
        if (this.#random.chance(0.3)) return this.emit("steer.withdrawn", { runId, steerId });
        const kept = this.#random.chance(0.5) ? { kept: this.#kept(run) } : {};
        this.emit("steer.applied", { runId, steerId, ...kept });
        run.parts.push("steer");
        return;
      }
      case 6:
        return this.emit("run.dreamt", { runId, of: this.#text() });
      default:
        return this.#chunk(run);
    }
  }

  /** @param {Run} run */
  #steer(run) {
    run.steers.push(this.#new("s"));
    const fields = { boundary: "now", ifEnded: "return", ...BY, parts: [{ kind: "text", text: this.#text() }] };
    this.emit("steer.accepted", { runId: run.id, steerId: run.steers.at(-1), ...fields });
  }

  /** @param {Run} run */
  #chunk({ id, parts }) {
    const kind = /** @type {string} */ (KINDS[this.#random.below(KINDS.length)]);
    if (!parts.includes(kind) || this.#random.chance(0.2)) parts.push(kind);
    const part = parts.lastIndexOf(kind);
    this.emit("run.chunk", {
      runId: id,
      part,
      kind,
      ...this.#fields(kind, part),
      ...(this.#random.chance(0.1) && { done: true }),
    });
  }

  /**
   * @param {string} kind
   * @param {number} part
   */
  #fields(kind, part) {
    const text = this.#text();
    if (kind === "data") return { name: "n", value: text };
    if (kind === "novel") return { delta: this.#random.chance(0.5) ? text : [text], shade: text };
    if (kind !== "tool_call") return { delta: text };
    return { callId: `c${part}`, name: "f", ...(this.#random.chance(0.3) ? { input: { a: text } } : { delta: text }) };
  }

  /** @param {Run} run */
  #kept({ parts }) {
    const length = this.#random.below(12);
    return parts.flatMap((kind, part) => (kind === "text" || kind === "reasoning" ? [{ part, length }] : []));
  }

  /**
   * @param {Run} run
   * @param {string} reason
   */
  #end(run, reason) {
    const { id: runId, steers, status } = run;
    const returned = steers.map((steerId) => ({ steerId, parts: [] }));
    const kept = reason === "cancelled" && this.#random.chance(0.7) ? { kept: this.#kept(run).slice(0, -1) } : {};
    const causes = ENDS[reason]?.causes ?? [];
    const cause = causes.length > 0 ? { ...BY, cause: this.#oneOf(causes) } : {};
    const error = reason === "failed" ? { error: { code: "agent", message: "no" } } : {};
    const usage = this.#random.chance(0.5) ? { usage: { tokens: 7 } } : {};
    this.emit("run.ended", { runId, reason, returned, ...cause, ...kept, ...error, ...usage });
    if (ENDS[reason]?.settles && status === "active") {
      this.emit("run.settled", { runId, stoppedAfterMs: 1, confirmed: true });
    }
    run.status = "ended";
  }
}

/**
 * A log of so many steps.
 * @param {number} seed
 * @param {number} steps
 */
export function makeLog(seed, steps) {
  const log = new LogMaker(seed);
  for (let step = 0; step < steps; step++) log.next();
  return log.events;
}
