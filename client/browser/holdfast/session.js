/** The session that `connect` opens: what is known of it, and its commands. */

import { browser } from "./browser/environment.js";
import { Client } from "./client.js";
import { command, newId } from "./core/commands.js";
import { Feed } from "./feed.js";
import { Run } from "./run.js";

/**
 * @import {Config, Listener} from "./client.js"
 * @import {CancelAllOptions, CancelOptions, HistoryOptions, SendOptions, SteerOptions} from "./core/commands.js"
 * @import {Environment} from "./browser/environment.js"
 * @import {FeedItem} from "./feed.js"
 * @import {HistoryPage} from "./core/outbox.js"
 * @import {EndReason, OutcomeOfAnswer, OutcomeOfCancel, OutcomeOfSteer, OutcomeOfWithdraw, Part} from "./core/wire.js"
 */

/**
 * What a command came to: the acknowledgement. An ended or unknown run is an outcome and not an error.
 *
 * @typedef {{runId?: string, reason?: EndReason, cause?: string, seq?: number, duplicate?: true}} OutcomeFields
 *
 * @typedef {{outcome: OutcomeOfCancel} & OutcomeFields} CancelOutcome `withdrawn` and `steered` tell of an id that had
 *   become a steer; `runId` is then the run it went into
 * @typedef {{outcome: "cancelled", runIds: string[]} & OutcomeFields} CancelAllOutcome the runs that it ended
 * @typedef {{outcome: OutcomeOfSteer, id: string} & OutcomeFields} SteerOutcome `id` is the steer's; `sent` as a message
 *   of its own, and `runId` is its run
 * @typedef {{outcome: OutcomeOfWithdraw} & OutcomeFields} WithdrawOutcome
 * @typedef {{outcome: OutcomeOfAnswer} & OutcomeFields} AnswerOutcome of two devices' answers to one request, one is
 *   `accepted`
 */

/**
 * A session on a server, kept connected until `close`. Closing it, or the page, never stops a run.
 *
 * Every command resolves once the server has acknowledged it, over any number of reconnects, and of pages where there
 * is a storage. It rejects with a CommandError where the server refused, OutboxFullError where too many wait
 * already, and what ended the client. A command without a reply when the client closes may have arrived or not;
 * giving it again with the same id is safe.
 */
export class Session {
  #client;
  /** By id, as long as somebody holds them. @type {Map<string, WeakRef<Run>>} */
  #runs = new Map();

  /**
   * A session that sleeps until `resume`; `connect` is what makes one for a program.
   *
   * @internal
   * @param {Config} config
   * @param {Environment} [environment]
   */
  constructor(config, environment = browser) {
    this.id = config.session;
    this.#client = new Client(config, environment);
  }

  // ---- what is known

  /** What this client is called; null until the storage was read. */
  get device() {
    return this.#client.device;
  }

  /** `connecting`, `catching up`, `live`, `offline` (between two tries), `closed`. */
  get status() {
    return this.#client.status;
  }

  /** Everything that is known, as one value that stays the same until something in it changes. */
  get view() {
    return this.#client.view;
  }

  /** Up to where this client has the log. */
  get position() {
    return this.#client.connection.position;
  }

  /**
   * Calls `listener` after every change, never within a call of the program's: once for a frame of the server, however
   * much is in it. Returns what ends that. What was told to a listener counts as seen, for `run.cancel`.
   *
   * @param {Listener} listener
   */
  subscribe = (listener) => this.#client.subscribe(listener);

  /** The view, for `useSyncExternalStore`. */
  getSnapshot = () => this.#client.view;

  /** Waits until everything up to the server's head is known. Rejects with what ended the client. */
  async live() {
    for (;;) {
      this.#client.check();
      const { status, version } = this.#client;
      if (status === "live") return;
      await this.#client.changed(version);
    }
  }

  /**
   * A run by its id: any, also of another device, also ended. The same object while somebody holds it.
   *
   * It need not be known yet; iterating or waiting for one that nobody knows throws UnknownRunError.
   *
   * @param {string} runId
   */
  run(runId) {
    const held = this.#runs.get(runId)?.deref();
    if (held !== undefined) return held;
    const run = new Run(this, this.#client, runId);
    this.#hold(run);
    return run;
  }

  /**
   * Every event from now on, `reset` for what a snapshot replaced, `lagged` where more than 1,000 waited for the reader.
   *
   * @returns {AsyncIterableIterator<FeedItem>}
   */
  events() {
    return new Feed(this.#client);
  }

  // ---- commands

  /**
   * Sends a message, and gives the run that it starts before the server has heard of either: it can be stopped at once.
   * Whether the server took it is told by `run.accepted`. Throws CommandError `invalid` for what cannot be sent at all.
   *
   * @param {string | Part[]} content
   * @param {SendOptions} [options]
   */
  send(content, { runId = newId("r"), whenAbandonedMs, ...options } = {}) {
    const whenAbandoned = whenAbandonedMs === undefined ? undefined : { cancelAfterMs: whenAbandonedMs };
    const given = command("send", { content, ...options, whenAbandoned }, runId);
    const run = this.run(runId);
    run.sentBy(/** @type {Promise<any>} */ (this.#client.command(given)), () => {
      this.#runs.delete(runId);
      if (this.#runs.get(run.id)?.deref() === undefined) this.#hold(run);
    });
    return run;
  }

  /**
   * Stops a run by its id. With `ifUnknown: "prevent"` also one that the server has not heard of; that is the default
   * while this client's own send of the run waits for its acknowledgement.
   *
   * @param {string} runId
   * @param {CancelOptions} [options]
   * @returns {Promise<CancelOutcome>}
   */
  cancel(runId, options) {
    return this.#command("cancel", { ...options, runId });
  }

  /**
   * Stops every run that was queued or started at or before `upTo`. Before the first contact there is no place in the
   * log to name, and it is refused with `invalid`.
   *
   * @param {CancelAllOptions} [options]
   * @returns {Promise<CancelAllOutcome>}
   */
  cancelAll({ upTo = this.position, seen } = {}) {
    return this.#command("cancel", { scope: "session", upTo, seen });
  }

  /**
   * Says something to a run while it goes on.
   *
   * @param {string | Part[]} content
   * @param {SteerOptions} [options]
   * @returns {Promise<SteerOutcome>}
   */
  steer(content, { steerId = newId("s"), ...options } = {}) {
    return this.#command("steer", { content, ...options }, steerId);
  }

  /**
   * Takes back a steer that was not applied yet.
   *
   * @param {string} steerId
   * @returns {Promise<WithdrawOutcome>}
   */
  withdraw(steerId) {
    return this.#command("withdraw", { steerId });
  }

  /**
   * Answers a request of a run.
   *
   * @param {string} runId
   * @param {string} requestId
   * @param {unknown} value any JSON value
   * @returns {Promise<AnswerOutcome>}
   */
  answer(runId, requestId, value) {
    return this.#command("answer", { runId, requestId, value });
  }

  /**
   * The last `limit` messages before the seq `before`, or of all.
   *
   * @param {HistoryOptions} [options]
   * @returns {Promise<HistoryPage>}
   */
  history(options) {
    return this.#command("history", { ...options });
  }

  /**
   * Gives the server a newer token of the same principal. One that was given to `connect` as a string is replaced for
   * later connections as well.
   *
   * @param {string} token
   * @returns {Promise<number | undefined>} when it expires, in Unix milliseconds
   */
  async refreshToken(token) {
    const { expiresAt } = await this.#command("auth", { token });
    this.#client.replaceToken(token);
    return expiresAt;
  }

  // ---- its life

  /** Drops the connection and keeps everything else, until `resume`. Commands wait meanwhile. */
  suspend() {
    this.#client.suspend();
  }

  /** Connects again after `suspend`. */
  resume() {
    this.#client.resume();
  }

  /**
   * Ends this client for good. Runs go on; whoever waits here gets ClientClosedError. Only commands that were given are
   * still sent, and have two seconds for their replies, also where the connection is away; without one their callers get
   * ClientClosedError too, and the next page gives them again, where there is a storage.
   */
  close() {
    this.#client.close();
  }

  /** @param {Run} run */
  #hold(run) {
    for (const [id, held] of this.#runs) if (held.deref() === undefined) this.#runs.delete(id);
    this.#runs.set(run.id, new WeakRef(run));
  }

  /**
   * The reply to a command. What cannot be a command at all is a defect of the program: that rejection is not muted.
   *
   * @param {string} type
   * @param {Record<string, unknown>} fields
   * @param {string} [id]
   * @returns {Promise<any>} of the form that the type has
   */
  #command(type, fields, id) {
    try {
      return this.#client.command(command(type, fields, id));
    } catch (error) {
      return Promise.reject(error);
    }
  }
}
