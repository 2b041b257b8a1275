/**
 * The client's side of a session, without I/O and without a clock.
 *
 * The shell around it tells what happens - `opening`, `opened`, `received`, `closed`, `submit`, `tick`, `wake`,
 * `networkGone` - with the time in milliseconds of a clock that never goes back. After each of these it takes what came
 * of it:
 *
 * - `takeFrames()`   to be written to the socket, in order;
 * - `takeSettled()`  what commands came to: replies and errors;
 * - `takeNews()`     events and resets, in the order of the log;
 * - `lost`           not null: the connection is useless, drop it at once and report `closed`;
 * - `deadline()`     when to call `tick` if nothing else happens;
 * - `reconnectAt`    when to open the next connection; `failure` where there will be none.
 *
 * What it keeps across connections is the folded log and the outbox. A connection itself is a phase of the table in
 * `phases.js`.
 */

/**
 * @import {HoldfastError} from "./errors.js"
 * @import {Settled} from "./outbox.js"
 * @import {Input, Phase} from "./phases.js"
 * @import {News} from "./transcript.js"
 * @import {Ack, CaughtUp, Command, ErrorMessage, Event, Goaway, Heartbeat, Page, Presence, Snapshot,
 *   Welcome} from "./wire.js"
 */

import { backoff, Retries } from "./backoff.js";
import { mayReconnect } from "./close-codes.js";
import { ClientClosedError, CommandError, ConnectionClosedError } from "./errors.js";
import { joinContinued } from "./message.js";
import { entryOf, Outbox, tooLarge } from "./outbox.js";
import { isWelcomed, LostContact, next, STATUS, TABLE } from "./phases.js";
import { checkShape } from "./shapes.js";
import { Silence } from "./silence.js";
import { Transcript } from "./transcript.js";

/** How often a command is tried again after errors that go away by waiting, before its caller is told. */
export const MAX_REFUSALS = 8;

const WAIT_AND_TRY = ["draining", "unavailable", "rate_limited"];
const PONG = '{"type":"pong"}';
/** @type {Presence} */
const NOBODY = { type: "presence", devices: [], total: 0 };

/** One client's session over any number of connections. See the module for how it is driven. */
export class Connection {
  /** @type {HoldfastError | null} why there will be no further connection */
  failure = null;
  /** @type {string | null} why the present connection is to be dropped */
  lost = null;
  /** @type {number | null} when to open the next connection; null while there is one, and at the end */
  reconnectAt = null;
  /** @type {Welcome | null} of the latest connection that got that far */
  welcome = null;
  /** As last told; empty while not connected. */
  presence = NOBODY;
  /** @type {string | null} who gave the commands in the outbox; null before the first contact */
  principal;
  /** @type {string | null} the server's words in the last error that is no command's reply: why it closes */
  refused = null;

  #random;
  #retries;
  #hello;
  /** @type {Phase} */
  #phase = "offline";
  #silence = new Silence();
  /** The next hello asks for a snapshot: what is folded may be damaged. */
  #fresh = false;
  /** The most the server takes, as of the last welcome: nothing is sent before the first. */
  #frameBytes = Infinity;
  /** @type {string[]} */
  #frames = [];
  /** @type {Settled[]} */
  #settled = [];
  /** @type {News[]} */
  #news = [];

  /**
   * @param {object} options
   * @param {() => number} options.random numbers in [0, 1), for the jitter
   * @param {string} options.device
   * @param {string} options.client name and version, for the server's log
   * @param {number} [options.messages] how many messages a snapshot should hold
   * @param {string | null} [options.principal] who gave the commands that are submitted before the first contact
   * @param {Outbox} [options.outbox]
   * @param {Transcript} [options.transcript]
   */
  constructor({
    random,
    device,
    client,
    messages = 50,
    principal = null,
    outbox = new Outbox(),
    transcript = new Transcript(),
  }) {
    this.#random = random;
    this.#retries = new Retries(random);
    this.#hello = { type: "hello", device, client, messages };
    this.principal = principal;
    this.outbox = outbox;
    this.transcript = transcript;
  }

  /** Where the client stands with its server. */
  get status() {
    return STATUS[this.#phase];
  }

  /** Up to where everything is known; the epoch is empty before the first contact. */
  get position() {
    return this.transcript.position;
  }

  // ---- what happens

  /** A connection is being opened; the shell sees to it that this does not take for ever. */
  opening() {
    this.#phase = "opening";
    this.reconnectAt = null;
  }

  /**
   * The socket is open: `hello` is among the next frames.
   * @param {number} now
   * @param {string | null} [token]
   */
  opened(now, token) {
    this.#phase = "greeting";
    this.#silence.begins(now);
    const cursor = this.#fresh ? undefined : this.transcript.cursor();
    // JSON leaves out what is undefined.
    this.#frames.push(JSON.stringify({ ...this.#hello, token: token ?? undefined, cursor }));
  }

  /**
   * A decoded frame: one message or an array of them. After lost contact nothing more is looked at.
   * @param {unknown} value
   * @param {number} now
   */
  received(value, now) {
    if (this.lost !== null || !(this.#phase in TABLE)) return; // the last words of a connection given up
    this.#silence.ends(now);
    try {
      for (const message of Array.isArray(value) ? value : [value]) this.#receive(message);
    } catch (error) {
      const isWhole = error instanceof LostContact;
      // The fold may have stopped half way through a message that is none, so nothing folded is built upon.
      this.#fresh ||= !isWhole;
      this.lost = isWhole ? error.message : `a message that is none: ${error}`;
    }
  }

  /** A frame that is no message came: the connection is lost, what is folded is not damaged. @param {string} reason */
  undecodable(reason) {
    this.lost = reason;
  }

  /**
   * The connection is gone, with a close code; 1006 too for one that could not be opened.
   *
   * After a connection that this side dropped (`lost`) the code does not count: it always comes back.
   * @param {number} now
   * @param {number} code
   * @param {string} [reason]
   */
  closed(now, code, reason) {
    if (this.#phase === "closed") return;
    if (this.lost === null && !mayReconnect(code)) {
      this.fail(new ConnectionClosedError(code, this.refused || reason));
      return;
    }
    // Gone when the page woke up already, and only the news of it comes now: that wake is to count.
    const isLate = this.#silence.ends(now) && this.lost === null;
    this.reconnectAt = this.#retries.after(now);
    this.#disconnected("offline");
    if (isLate) this.wake(now);
  }

  /** There will be no further connection: every command that waits gets `error`. @param {HoldfastError} error */
  fail(error) {
    if (this.#phase === "closed") return;
    this.#disconnected("closed");
    this.failure = error;
    this.reconnectAt = null;
    for (const { id } of this.outbox.commands) this.#settle(id, null, error);
  }

  /** The program is done with this client. Says nothing to the server about any run. */
  close() {
    this.fail(new ClientClosedError());
  }

  /**
   * Takes a command in, connected or not; its reply will be among the settled, once. A stop of a run whose send waits
   * here prevents the run, if it comes first and does not say otherwise.
   *
   * The same command again while it waits is taken once. Throws what ended the client, OutboxFullError, `conflict`
   * where another command of the same id waits, and `too_large` for one over the server's limit: such a command was
   * not taken.
   * @param {Command} command
   * @param {number} now
   */
  submit(command, now) {
    if (this.failure !== null) throw this.failure;
    const prevents = command.type === "cancel" && this.outbox.startsRun(command.runId);
    const entry = entryOf(prevents ? { ...command, ifUnknown: command.ifUnknown ?? "prevent" } : command);
    if (entry.bytes > this.#frameBytes) throw tooLarge(entry, this.#frameBytes);
    const waiting = this.outbox.get(command.id);
    if (waiting === undefined) {
      this.outbox.add(entry);
      this.#flush(now);
    } else if (waiting.frame !== entry.frame) {
      throw new CommandError("conflict", "another command of this id waits for its reply", { path: "$.id" });
    }
  }

  /** Time has passed: silence becomes lost contact, commands that were held back are sent. @param {number} now */
  tick(now) {
    if (now >= this.#silenceLimit) this.lost = "the server was not heard in time";
    else this.#flush(now);
  }

  /**
   * The page is shown again, or the network is back: time may have stood still, and the connection may be dead without
   * a word. Offline, the next one is due now, or as soon as the server's wish allows; otherwise the server is asked for
   * a sign of life.
   * @param {number} now
   */
  wake(now) {
    if (this.#phase === "offline") {
      this.reconnectAt = Math.max(now, this.#retries.notBefore);
    } else if (isWelcomed(this.#phase) && this.#silence.ask(now)) {
      // Not of the outbox: nobody waits for the reply, and no other connection is asked.
      this.#frames.push(JSON.stringify({ type: "ping", id: `wake-${this.#random()}` }));
    }
  }

  /** The browser says that there is no network: a connection would only seem to live on. */
  networkGone() {
    if (this.#phase !== "offline" && this.#phase !== "closed") this.lost = "there is no network";
  }

  // ---- what comes of it

  /** What to write, in order; the caller has it now. */
  takeFrames() {
    return this.#frames.splice(0);
  }

  /** What commands came to, in the order it came. */
  takeSettled() {
    return this.#settled.splice(0);
  }

  /** Events and resets, in the order of the log. */
  takeNews() {
    return this.#news.splice(0);
  }

  /** When `tick` is due; null for never. */
  deadline() {
    const due = Math.min(this.#silenceLimit, isWelcomed(this.#phase) ? this.outbox.nextDue() : Infinity);
    return due === Infinity ? null : due;
  }

  // ---- messages

  /** @param {any} message whatever was decoded; its shape is checked before anything is made of it */
  #receive(message) {
    if (typeof message !== "object" || message === null) throw new LostContact("a message is an object");
    checkShape(message);
    switch (message.type) {
      case "welcome":
        return this.#onWelcome(message);
      case "snapshot":
        return this.#onSnapshot(message);
      case "caughtUp":
        return this.#onCaughtUp(message);
      case "page":
        return this.#onPage(message);
      case "ack":
        return this.#onAck(message);
      case "error":
        return this.#onError(message);
      case "ping":
        return this.#onPing(message);
      case "goaway":
        return this.#onGoaway(message);
      case "presence":
        this.#step("other");
        this.presence = message;
        return;
      default:
        // Anything else is a control message of a later version.
        if (Number.isInteger(message.seq) && Number.isInteger(message.at)) this.#onEvent(message);
    }
  }

  /** @param {Input} input */
  #step(input) {
    this.#phase = next(this.#phase, input);
  }

  /** @param {Welcome} message */
  #onWelcome(message) {
    const tail = message.resume === "tail";
    if (tail && (this.#fresh || message.epoch !== this.position.epoch)) {
      this.#fresh = true;
      throw new LostContact("a tail of another log");
    }
    this.#step(tail ? "tail" : "reset");
    this.welcome = message;
    this.#silence.welcomed(message.heartbeatMs);
    this.#frameBytes = message.limits.frameBytes;
    this.refused = null;
    const { principal } = message;
    if (this.principal !== null && this.principal !== principal) {
      // Nothing is done in the name of somebody who did not ask for it.
      const error = new CommandError("another_principal", `${this.principal} gave this command, not ${principal}.`);
      for (const { id } of this.outbox.commands) this.#settle(id, null, error);
    }
    this.principal = principal;
    this.#flush(this.#silence.since);
  }

  /** @param {Snapshot} message */
  #onSnapshot(message) {
    this.#step(message.last ? "snapshotLast" : "snapshotPart");
    if (this.transcript.isPartial && !this.transcript.loads(message)) {
      throw new LostContact("another snapshot inside a snapshot");
    }
    const reset = this.transcript.load(message);
    if (reset === null) return;
    this.#fresh = false;
    this.#news.push(reset);
  }

  /** @param {CaughtUp} message */
  #onCaughtUp(message) {
    this.#step("caughtUp");
    this.#compare(message.seq);
    this.#retries.live(this.#silence.since);
  }

  /** @param {Event} event */
  #onEvent(event) {
    const have = this.transcript.seq;
    if (event.seq <= have && this.#followsLog) return; // had before, and what is had is never folded twice
    this.#step("event");
    const first = event.from ?? event.seq;
    if (first !== have + 1) throw new LostContact(`event ${first} after ${have}`);
    this.transcript.apply(event);
    this.#news.push(event);
  }

  /** @param {Ack} message */
  #onAck(message) {
    this.#step("other");
    this.#settle(message.id, message, null);
    // Only a new command's events must be here by now: a repeated one may speak of a log that is gone.
    if (message.seq !== undefined && message.duplicate === undefined) this.#compare(message.seq);
  }

  /** @param {Page} message */
  #onPage(message) {
    this.#step("other");
    const entry = this.outbox.get(message.id);
    if (entry === undefined) return;
    joinContinued(entry.page, message.messages);
    if (message.last) this.#settle(message.id, { messages: entry.page, more: message.more }, null);
  }

  /** @param {ErrorMessage} message */
  #onError(message) {
    if (message.id === undefined) {
      this.refused = message.message;
      return;
    }
    const entry = this.outbox.get(message.id);
    if (entry === undefined) return;
    if (WAIT_AND_TRY.includes(message.code) && entry.refusals < MAX_REFUSALS) {
      entry.heldUntil = this.#silence.since + backoff(entry.refusals, this.#random, message.retryAfterMs);
      entry.refusals++;
      entry.sent = false;
    } else {
      this.#settle(message.id, null, new CommandError(message.code, message.message, message));
    }
  }

  /** @param {Heartbeat} message */
  #onPing(message) {
    this.#step("other");
    this.#compare(message.head);
    // One is enough for any number of pings that were read in one go.
    if (!this.#frames.includes(PONG)) this.#frames.push(PONG);
  }

  /** @param {Goaway} message */
  #onGoaway(message) {
    this.#retries.hint(message.reconnectAfterMs);
  }

  // ---- the connection's own business

  /** Outside of snapshots: what comes next about the log is its next event. */
  get #followsLog() {
    return this.#phase === "tail" || this.#phase === "live";
  }

  /** What the server has sent up to must be here. @param {number} seq */
  #compare(seq) {
    if (this.#followsLog && seq > this.transcript.seq) throw new LostContact(`events up to ${seq} are missing`);
  }

  /** @param {number} now */
  #flush(now) {
    if (!isWelcomed(this.#phase)) return;
    for (const entry of this.outbox.due(now)) {
      if (entry.bytes > this.#frameBytes) {
        // Another server, with a smaller limit.
        this.#settle(entry.command.id, null, tooLarge(entry, this.#frameBytes));
      } else {
        entry.sent = true;
        this.#frames.push(entry.frame);
      }
    }
  }

  /**
   * @param {string} id
   * @param {Settled["reply"]} reply
   * @param {Settled["error"]} error
   */
  #settle(id, reply, error) {
    const command = this.outbox.settle(id);
    if (command !== undefined) this.#settled.push({ command, reply, error });
  }

  get #silenceLimit() {
    return this.#phase in TABLE ? this.#silence.limit : Infinity;
  }

  /** @param {"offline" | "closed"} phase */
  #disconnected(phase) {
    this.#phase = phase;
    this.lost = null;
    this.#frames = [];
    this.presence = NOBODY;
    this.transcript.discardPartialSnapshot();
    this.outbox.disconnected();
  }
}
