/**
 * What outlives a page: the device's name, the commands without a reply, and the log as it was folded.
 *
 * A page keeps them in a slot, `holdfast:{server}:{session}:{number}`, and holds the slot by a Web Lock of that name. So a
 * duplicated tab, which begins with a copy of the other's sessionStorage, takes the next slot and is another device,
 * and a reload finds its own. Where there are no locks (pages without HTTPS), two pages may come to share a slot: then
 * they are one device, and a command that both send is done once all the same, by its id.
 *
 * A storage that fails costs what it should have kept, and nothing else.
 */

/** @import {Environment} from "./environment.js" */
/** @import {Command} from "../core/wire.js" */

/**
 * Where to keep it: sessionStorage, localStorage, `indexedDBStorage()`, or anything of this form.
 *
 * @typedef {object} KeyValueStorage
 * @property {(key: string) => string | null | Promise<string | null>} getItem
 * @property {(key: string, value: string) => unknown} setItem
 * @property {(key: string) => unknown} removeItem
 */

/** How long a page waits for the lock of a slot that is in use: a reload's predecessor is about to let go of it. */
export const TAKE_OVER_MS = 300;
/** How long a storage may take to be read at the start; after that the page goes on without it. */
export const PATIENCE_MS = 2_000;

const FORMAT = 1;
/** Of storages in use by this page, for where there are no locks. @type {WeakMap<KeyValueStorage, Set<string>>} */
const heldHere = new WeakMap();

/**
 * The storage of this tab; null where there is none, or the page may not use it.
 *
 * @returns {KeyValueStorage | null}
 */
export function defaultStorage() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null;
  }
}

/**
 * Takes the first slot that no other page holds, and reads it. Never rejects: without a storage that works it gives a
 * slot that keeps nothing.
 *
 * @param {KeyValueStorage | null} storage
 * @param {string} prefix of the slot's name
 * @param {Environment} environment
 * @returns {Promise<Slot>}
 */
export async function openSlot(storage, prefix, environment) {
  const none = new Slot(null, "", 0, () => {});
  if (storage === null) return none;
  let isLate = false;
  const opening = acquire(storage, prefix, environment).then(
    (slot) => {
      if (isLate) slot.release();
      return slot;
    },
    () => none, // what cannot be read is not written to either
  );
  /** @type {unknown} */
  let timer;
  /** @type {Promise<Slot>} */
  const late = new Promise((resolve) => {
    timer = environment.setTimeout(() => {
      isLate = true;
      resolve(none);
    }, PATIENCE_MS);
  });
  const slot = await Promise.race([opening, late]);
  environment.clearTimeout(timer);
  return slot;
}

/**
 * @param {KeyValueStorage} storage
 * @param {string} prefix
 * @param {Environment} environment
 */
async function acquire(storage, prefix, environment) {
  const waitUntil = environment.now() + TAKE_OVER_MS;
  // First the one that this tab had last: a duplicated tab's own, when the other's is free by now.
  let number = Number(parse(await storage.getItem(`${prefix}:last`)));
  for (let next = 0; ; number = next++) {
    const name = `${prefix}:${number}`;
    let release = await take(storage, name, 0, environment);
    if (release === null && environment.now() < waitUntil && (await storage.getItem(`${name}:device`)) !== null) {
      release = await take(storage, name, waitUntil - environment.now(), environment);
    }
    if (release === null) continue;
    const slot = new Slot(storage, prefix, number, release);
    try {
      await slot.read();
    } catch (error) {
      release();
      throw error;
    }
    return slot;
  }
}

/**
 * Holds a name until what it gives is called; null where another holds it for longer than `ms`.
 *
 * @param {KeyValueStorage} storage
 * @param {string} name
 * @param {number} ms
 * @param {Environment} environment
 * @returns {Promise<(() => void) | null>}
 */
function take(storage, name, ms, environment) {
  const { locks } = environment;
  if (!locks) return Promise.resolve(takeHere(storage, name)); // null where a browser is only imitated
  return new Promise((resolve) => {
    const abort = new AbortController();
    const timer = ms > 0 ? environment.setTimeout(() => abort.abort(), ms) : undefined;
    locks
      .request(name, ms > 0 ? { signal: abort.signal } : { ifAvailable: true }, (lock) => {
        if (lock === null) return resolve(null);
        return new Promise((release) => resolve(() => release(undefined)));
      })
      // Waited too long; or locks are forbidden here, and then there is nobody to share them with.
      .catch(() => resolve(abort.signal.aborted ? null : takeHere(storage, name)))
      .finally(() => environment.clearTimeout(timer));
  });
}

/**
 * @param {KeyValueStorage} storage
 * @param {string} name
 */
function takeHere(storage, name) {
  const held = heldHere.get(storage) ?? new Set();
  if (held.has(name)) return null;
  heldHere.set(storage, held.add(name));
  return () => {
    held.delete(name);
  };
}

/** One page's records. What is written last wins; writes to a storage that takes its time are made in order. */
export class Slot {
  /** As it was found. @type {unknown} */
  device = null;
  /** As they were found, in the order they were given. @type {Command[]} */
  commands = [];
  /** Who gave them, as far as that was known. @type {string | null} */
  principal = null;
  /** As it was found. @type {unknown} */
  state = null;
  #storage;
  #prefix;
  #number;
  #release;
  /** By record, null to remove it. @type {Map<string, string | null>} */
  #unwritten = new Map();
  /** @type {Promise<void> | null} */
  #writing = null;
  #stateDropped = false;

  /**
   * @param {KeyValueStorage | null} storage null keeps nothing
   * @param {string} prefix
   * @param {number} number
   * @param {() => void} release lets another page have the slot
   */
  constructor(storage, prefix, number, release) {
    this.#storage = storage;
    this.#prefix = prefix;
    this.#number = number;
    this.#release = release;
  }

  /** Reads what an earlier page left. What is damaged, or of another version, counts as absent. */
  async read() {
    this.device = await this.#get("device");
    const { principal = null, commands } = /** @type {any} */ (await this.#get("outbox")) ?? {};
    this.principal = principal;
    this.commands = Array.isArray(commands) ? commands.filter(isCommand) : [];
    this.state = await this.#get("state");
  }

  /** @param {string} device */
  saveDevice(device) {
    this.#write("device", device);
    this.#write("last", this.#number);
  }

  /**
   * @param {readonly Command[]} commands all that have no reply yet
   * @param {string | null} principal who gave them; null where the server has not said so yet
   */
  saveOutbox(commands, principal) {
    this.#write("outbox", commands.length > 0 ? { principal, commands } : null);
  }

  /** @param {unknown} state the cursor and what was folded up to it, in one: neither is of use without the other */
  saveState(state) {
    this.#stateDropped = false;
    this.#write("state", state);
  }

  /** Lets another page have the slot, when everything is written. */
  async release() {
    while (this.#writing !== null) await this.#writing;
    this.#release();
  }

  /**
   * The slot that a tab had last is the tab's own to know, all other records are the slot's.
   *
   * @param {string} record
   */
  #key(record) {
    return record === "last" ? `${this.#prefix}:last` : `${this.#prefix}:${this.#number}:${record}`;
  }

  /**
   * @param {string} record
   * @returns {Promise<unknown>}
   */
  async #get(record) {
    return parse(await this.#storage?.getItem(this.#key(record)));
  }

  /**
   * @param {string} record
   * @param {unknown} value null to remove it
   */
  #write(record, value) {
    if (this.#storage === null) return;
    this.#unwritten.set(record, value === null ? null : JSON.stringify({ format: FORMAT, value }));
    if (this.#writing === null) this.#flush();
  }

  #flush() {
    const storage = /** @type {KeyValueStorage} */ (this.#storage);
    for (const [record, value] of this.#unwritten) {
      this.#unwritten.delete(record);
      const key = this.#key(record);
      const noRoom = () => this.#makeRoom(record, value);
      try {
        const done = value === null ? storage.removeItem(key) : storage.setItem(key, value);
        if (done === undefined) continue;
        this.#writing = Promise.resolve(done)
          .catch(noRoom)
          .then(() => {
            this.#writing = null;
            this.#flush();
          });
        return;
      } catch {
        noRoom();
      }
    }
  }

  /**
   * A record did not fit. The folded log goes first: it can be had again from the server, the commands cannot.
   *
   * @param {string} record
   * @param {string | null} value
   */
  #makeRoom(record, value) {
    if (value === null || this.#stateDropped || record === "device") return;
    this.#stateDropped = true;
    const latest = this.#unwritten.get(record) ?? value;
    this.#unwritten.delete(record);
    this.#unwritten.set("state", null);
    if (record === "outbox") this.#unwritten.set(record, latest);
  }
}

/**
 * @param {string | null | undefined} text
 * @returns {unknown}
 */
function parse(text) {
  try {
    const record = JSON.parse(text ?? "null");
    return record?.format === FORMAT ? record.value : null;
  } catch {
    return null;
  }
}

/**
 * @param {any} value of unknown shape: another program may have written it
 * @returns {value is Command}
 */
function isCommand(value) {
  return typeof value?.id === "string" && typeof value.type === "string";
}
