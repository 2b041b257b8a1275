/**
 * One page's client of a session: a `Connection` that a `Link` keeps connected, what outlives the page, and whoever waits
 * for a change. `Session` and `Run` are its faces.
 *
 * It begins asleep. `resume` opens the storage, then the connection; commands given before that wait in the outbox of a
 * connection that is never opened, and move behind those which an earlier page left.
 */

import { Link } from "./browser/link.js";
import { openSlot } from "./browser/storage.js";
import { watchPage } from "./browser/wakeups.js";
import { isId, newId } from "./core/commands.js";
import { Connection } from "./core/connection.js";
import { ClientClosedError } from "./core/errors.js";
import { Transcript } from "./core/transcript.js";
import { stable } from "./core/view.js";

/** @import {Settled} from "./core/outbox.js" */
/** @import {News} from "./core/transcript.js" */
/** @import {Environment} from "./browser/environment.js" */
/** @import {Token} from "./browser/link.js" */
/** @import {Reader} from "./reader.js" */
/** @import {KeyValueStorage, Slot} from "./browser/storage.js" */
/** @import {View} from "./core/view.js" */
/** @import {Command, Event, Position} from "./core/wire.js" */

/**
 * @typedef {NonNullable<Settled["reply"]>} Reply
 *
 * @typedef {{url: string, server: string}} Endpoint the address of a session, and what tells its server from others
 *
 * @typedef {object} Config
 * @property {() => Endpoint} endpoint asked when the client is opened for the first time
 * @property {string} session
 * @property {Token | undefined} token
 * @property {string | undefined} device
 * @property {KeyValueStorage | null} storage
 * @property {number} messages how many of the past are loaded
 * @property {() => typeof WebSocket} socketType asked likewise
 * @property {string} client name and version, for the server's log
 *
 * @typedef {object} Change What came since the last notification; the view has all of it already.
 * @property {readonly Event[]} events in the order of the log
 * @property {boolean} reset a snapshot replaced everything; what led there is not told event by event
 * @property {readonly Settled[]} settled what commands came to, also those that an earlier page gave
 *
 * @typedef {(change: Change) => void} Listener
 */

/** How long a client that was closed goes on for the replies to its commands. */
export const LINGER_MS = 2_000;

export class Client {
  /** Grows with every change: see `changed`. */
  version = 0;
  /** Who is told of news one by one, or woken. @type {Set<Reader<unknown>>} */
  readers = new Set();
  #config;
  #environment;
  #connection;
  /** @type {Link | null} */
  #link = null;
  /** @type {Slot | null} */
  #slot = null;
  #opens = false;
  /** Null while it sleeps. @type {(() => void) | null} */
  #unwatchPage = null;
  /** What ended the client for its program, which may be before its last replies have come. @type {ClientClosedError | null} */
  #closed = null;
  /** @type {unknown} */
  #lingering = null;
  /** By command id. @type {Map<string, Deferred<Reply>>} */
  #waiters = new Map();
  /** @type {Set<{listener: Listener}>} */
  #listeners = new Set();
  /** @type {Deferred<void> | null} */
  #pulse = null;
  /** @type {View | null} */
  #view = null;
  /** The view at the last notification. @type {View | null} */
  #told = null;
  /** @type {Position | null} */
  #shown = null;
  /** @type {Position | null} */
  #saved = null;
  /** What is in the storage already. @type {readonly Command[] | null} */
  #keptCommands = null;
  /** @type {string | null} */
  #keptFor = null;
  /** What had no reply when the client was closed. @type {readonly Command[]} */
  #left = [];
  /** When the next connection is tried, by both clocks: the wall clock may be set meanwhile. */
  #reconnectAt = NaN;
  #reconnectAtUnix = 0;

  /**
   * @param {Config} config
   * @param {Environment} environment
   */
  constructor(config, environment) {
    this.#config = config;
    this.#environment = environment;
    this.device = config.device ?? null;
    this.#connection = this.#newConnection(new Transcript());
  }

  // ---- what is known

  get connection() {
    return this.#connection;
  }

  get transcript() {
    return this.#connection.transcript;
  }

  /** The view, which the program has seen now. */
  get view() {
    this.#shown = this.#connection.position;
    return this.#look();
  }

  /** The last position that the program was told of, or that it looked at; null where it did neither. */
  get shown() {
    return this.#shown?.epoch ? this.#shown : null;
  }

  /** The program was given the log up to there, and perhaps further already. @param {number} seq */
  saw(seq) {
    const { epoch } = this.#connection.position;
    if (this.#shown?.epoch !== epoch || this.#shown.seq < seq) this.#shown = { epoch, seq };
  }

  get status() {
    if (this.#closed !== null) return "closed";
    const { status } = this.#connection;
    return status === "offline" && this.#link === null ? "connecting" : status;
  }

  /** Throws what ended the client, if something has. */
  check() {
    if (this.#failure !== null) throw this.#failure;
  }

  get #failure() {
    return this.#closed ?? this.#connection.failure;
  }

  #look() {
    const { outbox, position, presence, transcript, welcome } = this.#connection;
    this.#view = stable(this.#view, {
      status: this.status,
      nextAttemptAt: this.#nextAttemptAt(),
      error: this.#failure ?? this.#link?.trouble ?? null,
      device: this.device,
      principal: welcome?.principal ?? null,
      position,
      messages: transcript.messages(),
      more: transcript.more,
      runs: transcript.runs(),
      presence,
      pending: outbox.state(),
    });
    return this.#view;
  }

  #nextAttemptAt() {
    const { reconnectAt } = this.#connection;
    if (reconnectAt === null || !this.#link?.running) return null;
    if (this.#reconnectAt !== reconnectAt) {
      this.#reconnectAt = reconnectAt;
      this.#reconnectAtUnix = Math.round(this.#environment.unixTime() + reconnectAt - this.#environment.now());
    }
    return this.#reconnectAtUnix;
  }

  // ---- who waits

  /**
   * Calls `listener` after every change, never within a call of the program's. Returns what ends that.
   *
   * @param {Listener} listener
   */
  subscribe(listener) {
    const subscription = { listener };
    this.#listeners.add(subscription);
    return () => {
      this.#listeners.delete(subscription);
    };
  }

  /**
   * Resolves at the first change after that `version`.
   *
   * @param {number} version
   */
  async changed(version) {
    if (version !== this.version) return;
    this.#pulse ??= new Deferred();
    await this.#pulse.promise;
  }

  /** Wakes who waits for a change. */
  pulse() {
    this.version += 1;
    this.#pulse?.resolve();
    this.#pulse = null;
  }

  /**
   * Gives a command; its reply, over any number of connections. A promise that nobody looks at is not reported as
   * unhandled: the outcome is told to subscribers too.
   *
   * @param {Command} command
   * @returns {Promise<Reply>}
   */
  command(command) {
    /** @type {Deferred<Reply>} */
    const waiter = this.#waiters.get(command.id) ?? new Deferred();
    try {
      this.check();
      this.#connection.submit(command, this.#environment.now());
    } catch (error) {
      /** @type {Deferred<Reply>} */
      const refused = new Deferred();
      refused.reject(error);
      return refused.promise;
    }
    this.#waiters.set(command.id, waiter);
    this.#saveOutbox();
    this.#link?.flush();
    this.#publishSoon();
    return waiter.promise;
  }

  /** @param {string} token */
  replaceToken(token) {
    if (this.#link !== null && typeof this.#link.token !== "function") this.#link.token = token;
  }

  // ---- its life

  /** Connects, and keeps connected. Throws TypeError for an address that is none. */
  resume() {
    if (this.#unwatchPage !== null || this.#failure !== null) return;
    if (!this.#opens) this.#open(this.#config.endpoint(), this.#config.socketType());
    this.#opens = true;
    this.#unwatchPage = watchPage(this.#environment, {
      wake: () => this.#link?.wake(),
      networkGone: () => this.#link?.networkGone(),
      hide: () => this.#saveState(),
    });
    this.#link?.start();
    this.#publishSoon();
  }

  /** Drops the connection and keeps everything, until `resume`. */
  suspend() {
    if (this.#failure !== null) return;
    this.#disconnect();
    this.#publishSoon();
  }

  /**
   * Ends the client for its program. The connection goes on until the commands that were given have their replies,
   * at most LINGER_MS; it is made first where there is none, but not for a client that sleeps. What has no reply then stays in
   * the storage, for the next page.
   */
  close() {
    if (this.#failure !== null) return;
    this.#closed = new ClientClosedError();
    if (this.#unwatchPage === null || this.#outstanding.length === 0) {
      this.#leave();
      return;
    }
    this.#lingering = this.#environment.setTimeout(() => this.#leave(), LINGER_MS);
    this.#connection.wake(this.#environment.now());
    this.#link?.flush();
    this.#publishSoon();
  }

  /** The commands that closing would leave without a reply. */
  get #outstanding() {
    return this.#connection.outbox.state();
  }

  #leave() {
    this.#environment.clearTimeout(this.#lingering);
    this.#disconnect();
    this.#left = this.#outstanding;
    this.#connection.close();
    this.#publishSoon();
  }

  #disconnect() {
    this.#unwatchPage?.();
    this.#unwatchPage = null;
    this.#link?.stop();
    this.#saveState();
  }

  /**
   * @param {Endpoint} endpoint
   * @param {typeof WebSocket} socketType
   */
  async #open(endpoint, socketType) {
    const { session, storage, token } = this.#config;
    const slot = await openSlot(storage, `holdfast:${endpoint.server}:${session}`, this.#environment);
    const early = this.#connection;
    if (early.failure !== null) {
      slot.saveOutbox([...slot.commands, ...this.#left], slot.principal);
      await slot.release();
      return;
    }
    this.#slot = slot;
    this.device ??= isId(slot.device) ? slot.device : newId("web", 4);
    slot.saveDevice(this.device);
    this.#connection = this.#newConnection(restored(slot.state), slot.principal);
    for (const command of [...slot.commands, ...early.outbox.commands]) {
      try {
        this.#connection.submit(command, this.#environment.now());
      } catch (error) {
        this.#waiters.get(command.id)?.reject(error);
        this.#waiters.delete(command.id);
      }
    }
    this.#saveOutbox();
    const changed = () => this.#publish();
    this.#link = new Link(this.#connection, endpoint.url, token, socketType, this.#environment, changed);
    if (this.#unwatchPage !== null) this.#link.start();
    this.#publish();
  }

  /**
   * @param {Transcript} transcript
   * @param {string | null} [principal]
   */
  #newConnection(transcript, principal) {
    const { client, messages } = this.#config;
    const { random } = this.#environment;
    return new Connection({ random, device: this.device ?? "", client, messages, principal, transcript });
  }

  #saveOutbox() {
    const { outbox, principal } = this.#connection;
    const commands = outbox.state();
    if (commands === this.#keptCommands && principal === this.#keptFor) return;
    this.#keptCommands = commands;
    this.#keptFor = principal;
    this.#slot?.saveOutbox(commands, principal);
  }

  #saveState() {
    const { position, transcript } = this.#connection;
    if (this.#slot === null || position.epoch === "" || position === this.#saved) return;
    this.#slot.saveState(transcript.state());
    this.#saved = position;
  }

  // ---- what happened

  #publishSoon() {
    queueMicrotask(() => this.#publish());
  }

  #publish() {
    const connection = this.#connection;
    const news = connection.takeNews();
    const settled = connection.takeSettled();
    const { failure } = connection;
    for (const { command, reply, error } of settled) {
      const waiter = this.#waiters.get(command.id);
      this.#waiters.delete(command.id);
      if (reply !== null) waiter?.resolve(reply);
      else waiter?.reject(error);
    }
    // What the program was told to have failed is not done later by another page; what it left open is.
    if (!(failure instanceof ClientClosedError)) this.#saveOutbox();
    if (news.some(({ type }) => type === "run.ended")) this.#saveState();
    for (const reader of this.readers) reader.deliver(news);
    if (failure !== null) this.#end();
    else if (this.#closed !== null && this.#outstanding.length === 0) this.#leave();
    this.pulse();
    this.#notify(news, settled);
  }

  #end() {
    this.#environment.clearTimeout(this.#lingering);
    this.#disconnect();
    this.#slot?.release();
    this.#slot = null;
  }

  /**
   * @param {readonly News[]} news
   * @param {readonly Settled[]} settled
   */
  #notify(news, settled) {
    if (this.#listeners.size === 0) return;
    const view = this.#look();
    if (view === this.#told && news.length === 0 && settled.length === 0) return;
    this.#told = view;
    this.#shown = view.position;
    const events = /** @type {Event[]} */ (news.filter(({ type }) => type !== "reset"));
    const change = { events, reset: events.length < news.length, settled };
    for (const subscription of [...this.#listeners]) {
      if (!this.#listeners.has(subscription)) continue;
      try {
        subscription.listener(change);
      } catch (error) {
        report(error);
      }
    }
  }
}

/**
 * A promise with its outcome in the hands of another. That nobody looks at a rejection is nobody's fault.
 *
 * @template T
 */
class Deferred {
  constructor() {
    /** @type {Promise<T>} */
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => {});
  }
}

/**
 * @param {unknown} state as an earlier page left it; damaged, it counts for nothing
 */
function restored(state) {
  const transcript = new Transcript();
  if (state === null) return transcript;
  try {
    transcript.restore(/** @type {import("./core/transcript.js").TranscriptState} */ (state));
    return transcript;
  } catch {
    return new Transcript();
  }
}

/**
 * The program's own error: it is the program's to hear of, and nobody else's trouble.
 *
 * @param {unknown} error
 */
function report(error) {
  if (typeof reportError === "function") reportError(error);
  else {
    queueMicrotask(() => {
      throw error;
    });
  }
}
