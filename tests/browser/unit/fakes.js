/** What the library's shell needs of the world, small enough to be told what to do: a clock, a page, locks, storages. */

import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { configure } from "../../../client/browser/holdfast/connect.js";
import { Session } from "../../../client/browser/holdfast/session.js";

/** @typedef {import("../../../client/browser/holdfast/browser/environment.js").Environment} Environment */
/** @typedef {import("../../../client/browser/holdfast/connect.js").Options} Options */
/** @typedef {import("./server.js").Server} Server */

/** One turn of the event loop: whatever was due has happened. */
export const turn = () => new Promise((resolve) => setImmediate(resolve));

/**
 * Waits, turn by turn, until something holds.
 *
 * @param {() => unknown} condition
 */
export async function until(condition) {
  for (let turns = 0; turns < 1_000; turns += 1) {
    if (condition()) return;
    await turn();
  }
  throw new Error(`It never came to ${condition}`);
}

/** Waits until whatever is under way has come to rest. */
export async function rest() {
  for (let turns = 0; turns < 20; turns += 1) await turn();
}

/** A clock that goes only when it is told to. */
export class Clock {
  #now = 1_000;
  /** @type {Map<number, {at: number, callback: () => void}>} */
  #timers = new Map();
  #last = 0;

  /** By how much somebody has set the wall clock. */
  setBy = 0;

  now = () => this.#now;
  unixTime = () => 1_800_000_000_000 + this.#now + this.setBy;

  /**
   * @param {() => void} callback
   * @param {number} ms
   */
  setTimeout = (callback, ms) => {
    assert.ok(ms < 2 ** 31, "a browser's timer would fire at once");
    this.#last += 1;
    this.#timers.set(this.#last, { at: this.#now + ms, callback });
    return this.#last;
  };

  /** @param {number} timer */
  clearTimeout = (timer) => {
    this.#timers.delete(timer);
  };

  /** How many timers are set. */
  get timers() {
    return this.#timers.size;
  }

  /** @param {number} ms */
  async advance(ms) {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined) break;
      const [timer, { at, callback }] = due;
      this.#timers.delete(timer);
      this.#now = Math.max(this.#now, at);
      callback();
      await rest();
    }
    this.#now = end;
    await rest();
  }
}

/** Web Locks that are exclusive, of one browser. */
export class Locks {
  /** @type {Set<string>} */
  held = new Set();
  /** @type {{name: string, grant: () => void}[]} */
  #waiting = [];

  /**
   * @param {string} name
   * @param {any} options
   * @param {any} [callback]
   * @returns {Promise<any>}
   */
  request = (name, options, callback) =>
    new Promise((resolve, reject) => {
      const grant = () => {
        this.held.add(name);
        Promise.resolve(callback({ name, mode: "exclusive" })).then((value) => {
          this.held.delete(name);
          const next = this.#waiting.find((one) => one.name === name);
          this.#waiting = this.#waiting.filter((one) => one !== next);
          next?.grant();
          resolve(value);
        });
      };
      if (!this.held.has(name)) return grant();
      if (options.ifAvailable) return resolve(callback(null));
      const waiting = { name, grant };
      this.#waiting.push(waiting);
      options.signal?.addEventListener("abort", () => {
        if (!this.#waiting.includes(waiting)) return;
        this.#waiting = this.#waiting.filter((one) => one !== waiting);
        reject(new DOMException("it took too long", "AbortError"));
      });
    });
}

/** A tab's storage. */
export class TabStorage {
  /** @param {Iterable<readonly [string, string]>} [entries] */
  constructor(entries = []) {
    this.entries = new Map(entries);
  }

  /** @param {string} key */
  getItem(key) {
    return this.entries.get(key) ?? null;
  }

  /**
   * @param {string} key
   * @param {string} value
   */
  setItem(key, value) {
    this.entries.set(key, value);
  }

  /** @param {string} key */
  removeItem(key) {
    this.entries.delete(key);
  }

  /** What a reload finds, or a duplicate of the tab: the same records, written by nobody else any more. */
  copy() {
    return new TabStorage(this.entries);
  }

  /** @param {string} record the end of a key */
  parsed(record) {
    const [, text = "null"] = [...this.entries].find(([key]) => key.endsWith(record)) ?? [];
    return JSON.parse(text)?.value ?? null;
  }
}

class VisibleDocument extends EventTarget {
  visibilityState = "visible";
}

/** A page in a browser: its clock, its locks, and what happens to it. */
export class Page {
  /** @param {{clock?: Clock, locks?: Locks}} [options] */
  constructor({ clock = new Clock(), locks } = {}) {
    this.clock = clock;
    this.window = new EventTarget();
    this.document = new VisibleDocument();
    /** @type {Environment} */
    this.environment = {
      now: clock.now,
      unixTime: clock.unixTime,
      setTimeout: clock.setTimeout,
      clearTimeout: clock.clearTimeout,
      random: () => 0.5,
      locks,
      window: this.window,
      document: this.document,
    };
  }

  /** @param {"online" | "offline" | "pageshow" | "pagehide"} type */
  happens(type) {
    this.window.dispatchEvent(new Event(type));
  }

  /** @param {"visible" | "hidden"} state */
  becomes(state) {
    this.document.visibilityState = state;
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  /**
   * A session on `server`, connecting.
   *
   * @param {Server} server
   * @param {Partial<Options>} [options]
   */
  open(server, options) {
    const session = new Session(
      configure("ws://server.test", { session: "trip", storage: null, WebSocket: server.WebSocket, ...options }),
      this.environment,
    );
    session.resume();
    return session;
  }

  /**
   * A session that has caught up.
   *
   * @param {Server} server
   * @param {Partial<Options>} [options]
   */
  async live(server, options) {
    const session = this.open(server, options);
    await session.live();
    return session;
  }
}

/**
 * Collects what async iteration yields, until it ends; `now` is what has come so far.
 *
 * @template T
 * @param {AsyncIterable<T>} iterable
 */
export function collect(iterable) {
  /** @type {T[]} */
  const now = [];
  const all = (async () => {
    for await (const value of iterable) now.push(value);
    return now;
  })();
  all.catch(() => {});
  return { now, all };
}
