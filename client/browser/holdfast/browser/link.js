/** The shell around a `Connection`: one socket at a time, the timers, and the page's wake-ups. It decides nothing. */

import { HoldfastError } from "../core/errors.js";

/** @import {Connection} from "../core/connection.js" */
/** @import {Environment} from "./environment.js" */

/**
 * @typedef {string | (() => string | null | undefined | Promise<string | null | undefined>)} Token null and undefined:
 *   there is none
 *
 * @typedef {object} Attempt One try to connect and what came of it.
 * @property {WebSocket | null} socket
 * @property {number | null} openBy when it is given up; null once it is open
 */

export const SUBPROTOCOL = "holdfast.v1.json";
/** How long a socket may take to open. */
export const OPEN_MS = 10_000;
/** How long the program may take to find its token; after that it is asked again. */
export const TOKEN_MS = 30_000;
/** Timers take no more than a signed number of 32 bits, and fire at once beyond it. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * Keeps a `Connection` connected while it runs. `changed` is called after whatever may have changed it, outside of any
 * call of the program's.
 */
export class Link {
  /** Asked at every connect where it is a function. @type {Token | undefined} */
  token;
  /** Why the latest try to open a connection failed; null once one was open. @type {HoldfastError | null} */
  trouble = null;
  #connection;
  #url;
  #socketType;
  #environment;
  #changed;
  running = false;
  /** The try or connection of the moment; whatever belongs to another one is stale. @type {Attempt | null} */
  #attempt = null;
  /** @type {unknown} */
  #timer = null;
  #timerAt = 0;

  /**
   * @param {Connection} connection
   * @param {string} url
   * @param {Token | undefined} token
   * @param {typeof WebSocket} socketType
   * @param {Environment} environment
   * @param {() => void} changed
   */
  constructor(connection, url, token, socketType, environment, changed) {
    this.#connection = connection;
    this.#url = url;
    this.token = token;
    this.#socketType = socketType;
    this.#environment = environment;
    this.#changed = changed;
  }

  /** Connects as soon as its caller has returned, and keeps connected until `stop`. */
  start() {
    if (this.running) return;
    this.running = true;
    queueMicrotask(() => {
      if (this.running && this.#attempt === null && this.#connection.failure === null) this.#open();
    });
  }

  /** Drops the connection without a word about any run, and opens no other until `start`. */
  stop() {
    this.running = false;
    if (this.#attempt !== null) {
      this.#abandon(1000);
      this.#connection.closed(this.#environment.now(), 1006);
    }
    this.#schedule();
  }

  /** The page is there again, or the network is: no wait is due, and a silent connection is put to the test. */
  wake() {
    this.#connection.wake(this.#environment.now());
    this.#settle();
  }

  /** The browser says that there is no network. */
  networkGone() {
    this.#connection.networkGone();
    this.#settle();
  }

  /** Sends what is to be sent. For commands: it tells nobody of a change. */
  flush() {
    const frames = this.#connection.takeFrames();
    for (const frame of frames) this.#attempt?.socket?.send(frame);
    this.#schedule();
  }

  /** Something happened to the connection: acts on it, and tells. */
  #settle() {
    if (this.#connection.lost !== null) {
      this.#abandon();
      this.#connection.closed(this.#environment.now(), 1006);
    }
    this.flush();
    this.#changed();
  }

  #open() {
    /** @type {Attempt} */
    const attempt = { socket: null, openBy: this.#environment.now() + TOKEN_MS };
    this.#attempt = attempt;
    this.#connection.opening();
    if (typeof this.token !== "function") {
      this.#connect(attempt, this.token);
      return;
    }
    const ask = this.token;
    this.#settle();
    // The program's own code: it may throw, and it may well work at the next try.
    new Promise((resolve) => resolve(ask())).then(
      (token) => {
        if (attempt === this.#attempt) this.#connect(attempt, /** @type {string | null | undefined} */ (token));
      },
      (error) => {
        if (attempt === this.#attempt) this.#notOpened(`The token could not be had: ${error}`);
      },
    );
  }

  /**
   * @param {Attempt} attempt
   * @param {string | null | undefined} token
   */
  #connect(attempt, token) {
    /** @type {WebSocket} */
    let socket;
    try {
      socket = new this.#socketType(this.#url, [SUBPROTOCOL]);
    } catch (error) {
      // The browser will never open it: insecure from a secure page, say.
      this.#attempt = null;
      this.#connection.fail(failed(String(error), false));
      this.#settle();
      return;
    }
    attempt.socket = socket;
    attempt.openBy = this.#environment.now() + OPEN_MS;
    const mine = () => attempt === this.#attempt;
    socket.onopen = () => {
      if (!mine()) return;
      attempt.openBy = null;
      this.trouble = null;
      this.#connection.opened(this.#environment.now(), token);
      this.#settle();
    };
    socket.onmessage = ({ data }) => {
      if (mine()) this.#received(data);
    };
    socket.onerror = () => {}; // its close follows; and outside of browsers an error that nobody hears ends the process
    socket.onclose = ({ code, reason }) => {
      if (!mine()) return;
      if (attempt.openBy !== null) {
        // A browser does not tell a server that is away from one that refuses.
        this.#notOpened("The server cannot be reached.");
      } else {
        this.#attempt = null;
        this.#connection.closed(this.#environment.now(), code, reason);
        this.#settle();
      }
    };
    this.#settle();
  }

  /** @param {unknown} data */
  #received(data) {
    /** @type {unknown} */
    let value;
    try {
      value = JSON.parse(String(data));
    } catch (error) {
      this.#connection.undecodable(String(error)); // and then nothing more is received
    }
    this.#connection.received(value, this.#environment.now());
    this.#settle();
  }

  /** @param {string} message */
  #notOpened(message) {
    this.#abandon();
    this.trouble = failed(message, true);
    this.#connection.closed(this.#environment.now(), 1006);
    this.#settle();
  }

  /**
   * Lets go of the socket. On a dead network its `close` event may take a minute: nobody waits for it.
   *
   * @param {number} [code]
   */
  #abandon(code) {
    const socket = this.#attempt?.socket;
    this.#attempt = null;
    socket?.close(code);
  }

  #schedule() {
    const at = this.running ? this.#due() : Infinity;
    // A timer that fires too early costs less than a new one for every frame that puts it off.
    if (this.#timer !== null && at !== Infinity && this.#timerAt <= at) return;
    this.#environment.clearTimeout(this.#timer);
    this.#timer = null;
    if (at === Infinity) return;
    this.#timerAt = at;
    const wait = Math.min(Math.max(0, at - this.#environment.now()), LONGEST_MS);
    this.#timer = this.#environment.setTimeout(() => this.#tick(), wait);
  }

  /** When there is something to do; Infinity for never. */
  #due() {
    const attempt = this.#attempt;
    const at = attempt === null ? this.#connection.reconnectAt : (attempt.openBy ?? this.#connection.deadline());
    return at ?? Infinity;
  }

  #tick() {
    this.#timer = null;
    const at = this.#due();
    const now = this.#environment.now();
    if (now < at) this.#schedule();
    else if (this.#attempt === null) this.#open();
    else if (this.#attempt.openBy !== null) this.#notOpened("The server said nothing in time.");
    else {
      this.#connection.tick(now);
      this.#settle();
    }
  }
}

/**
 * @param {string} message
 * @param {boolean} retryable
 */
function failed(message, retryable) {
  return new HoldfastError("connection_failed", message, retryable);
}
