/** A run, as a client holds it. */

import { command } from "./core/commands.js";
import { reasonOf } from "./core/endings.js";
import { UnknownRunError } from "./core/errors.js";
import { OpenMessage } from "./core/message.js";
import { Reader } from "./reader.js";

/** @import {Client} from "./client.js" */
/** @import {CancelOptions, SteerOptions} from "./core/commands.js" */
/** @import {HistoryPage} from "./core/outbox.js" */
/** @import {Session} from "./session.js" */
/** @import {Ack, EndReason, Failure, Message, Part, Position, ReturnedSteer, RunInfo, RunStatus} from "./core/wire.js" */

const HISTORY_PAGE = 200;

/**
 * @typedef {object} RunResult A run after its end.
 * @property {string} runId
 * @property {EndReason} reason
 * @property {string} text all text of the assistant's message
 * @property {Message | null} message null for a run that never started
 * @property {string} [cause]
 * @property {string} [by] who ended it, and on which device, where this client got the event itself
 * @property {string} [device]
 * @property {Failure} [error]
 * @property {Record<string, unknown>} [usage]
 * @property {readonly ReturnedSteer[]} returned steers that it never took
 */

/**
 * One run of the session, whoever started it, going on or ended. Letting go of it never stops it.
 *
 * Iterating it yields its text from the beginning, and ends when the run ends. A reader that is slow gets longer pieces;
 * one that comes late gets what there is at once. If its message is cut, what was yielded beyond the cut is not taken
 * back.
 */
export class Run {
  /** Of a send that became a steer: from its acknowledgement on, the id of the run it went into. */
  id;
  /**
   * The acknowledgement of the send; rejects where it was refused. Null for a run that was not sent here. Nobody needs
   * to listen to it.
   *
   * @type {Promise<Ack> | null}
   */
  accepted = null;
  #session;
  #client;
  /** @type {Position | null} */
  #taken = null;
  /** The assistant's message, fetched from the history. @type {Message | null} */
  #archived = null;
  /** That it was prevented, perhaps longer ago than anything held here. @type {Pick<Ack, "reason" | "cause"> | null} */
  #prevented = null;
  /** Why there is no such run. @type {unknown} */
  #refusal = null;

  /**
   * @internal `Session` makes them
   * @param {Session} session
   * @param {Client} client
   * @param {string} id
   */
  constructor(session, client, id) {
    this.#session = session;
    this.#client = client;
    this.id = id;
  }

  /**
   * `unknown` where nothing here names it, so also until its send is acknowledged.
   *
   * @returns {RunStatus | "unknown"}
   */
  get status() {
    const status = this.#client.transcript.status(this.id);
    return status === "unknown" && (this.#archived ?? this.#prevented) !== null ? "ended" : status;
  }

  /** Why it ended; null while it has not. @returns {EndReason | null} */
  get reason() {
    const archived = this.#archived;
    const known = this.#client.transcript.reason(this.id) ?? this.#prevented?.reason;
    return known ?? (archived && reasonOf(archived)) ?? null;
  }

  /** What is known of it; null where nothing is, or no more. @returns {RunInfo | null} */
  get info() {
    return this.#client.transcript.run(this.id) ?? null;
  }

  /**
   * What the assistant has said in it so far; null where it has not begun. The same object until it changed.
   *
   * @returns {Message | null}
   */
  get message() {
    this.#look();
    return this.#client.transcript.messageOf(this.id) ?? this.#archived;
  }

  /** All text of its message so far. */
  get text() {
    return this.read([]);
  }

  /**
   * What a stop pressed now should say was on screen: where it is being iterated here, what that has taken, or was
   * looked at since in `text` or `message`; otherwise also what this program was told of last, or looked at elsewhere.
   */
  get seen() {
    const { readers, shown } = this.#client;
    const taken = this.#taken;
    if (taken === null || shown === null) return taken ?? shown;
    const reads = [...readers].some((reader) => reader instanceof RunReader && reader.run === this);
    return reads || (taken.epoch === shown.epoch && taken.seq > shown.seq) ? taken : shown;
  }

  /**
   * Its text, from the beginning to the end of the run. Rejects as `ended` does.
   *
   * @returns {AsyncIterableIterator<string>}
   */
  [Symbol.asyncIterator]() {
    return new RunReader(this, this.#client);
  }

  /**
   * Waits for the run to end. Rejects with UnknownRunError for a run that neither the log nor the history knows, with
   * what its send was refused for, and with what ended the client.
   *
   * @returns {Promise<RunResult>}
   */
  async ended() {
    for (;;) {
      const { version } = this.#client;
      if (await this.isOver()) break;
      await this.#client.changed(version);
    }
    const { id, message, text } = this;
    const reason = /** @type {EndReason} */ (this.reason);
    const ending = this.#client.transcript.ending(id) ?? { cause: this.#prevented?.cause };
    return { returned: [], ...ending, runId: id, reason, text, message };
  }

  /**
   * Stops the run: once it is acknowledged, no further chunk of it will ever be in the log. It may be pressed at any
   * time, before the server has heard of the run, offline, or twice.
   *
   * @param {Pick<CancelOptions, "seen">} [options] `seen`: where the kept message is cut, see there for what is meant
   *   where it is left out; null cuts nothing
   */
  cancel({ seen = this.seen } = {}) {
    return this.#session.cancel(this.id, { seen });
  }

  /**
   * Says something to the run while it goes on.
   *
   * @param {string | Part[]} content
   * @param {Omit<SteerOptions, "runId">} [options]
   */
  steer(content, options) {
    return this.#session.steer(content, { ...options, runId: this.id });
  }

  /**
   * Answers one of the requests in its `info`.
   *
   * @param {string} requestId
   * @param {unknown} value
   */
  answer(requestId, value) {
    return this.#session.answer(this.id, requestId, value);
  }

  // ---- for the session and the readers

  /**
   * It is sent from here, perhaps once more.
   *
   * @internal
   * @param {Promise<Ack>} acknowledged
   * @param {() => void} renamed called when it is another run's from then on
   */
  sentBy(acknowledged, renamed) {
    this.accepted = acknowledged;
    this.#refusal = null;
    acknowledged.then(
      ({ outcome, runId = this.id, ...told }) => {
        if (outcome === "ended") this.#prevented = told;
        if (runId === this.id) return;
        this.id = runId;
        renamed();
      },
      (error) => {
        this.#refusal = error;
      },
    );
  }

  /**
   * The text that a reader has not taken yet.
   *
   * @internal
   * @param {number[]} taken by text part
   */
  read(taken) {
    this.#look();
    const { transcript } = this.#client;
    if (this.#archived !== null && transcript.messageOf(this.id) === undefined) {
      return new OpenMessage(this.#archived).readText(taken);
    }
    return transcript.readText(this.id, taken);
  }

  /** The program has now what there is of the run. */
  #look() {
    const { position } = this.#client.connection;
    if (position.epoch !== "") this.#taken = position;
  }

  /** @internal Whether the run has ended; its message is then at hand, from the history if need be. */
  async isOver() {
    const client = this.#client;
    const { transcript } = client;
    if (this.#archived !== null || this.#prevented !== null) return true;
    switch (this.status) {
      case "ended":
        if (transcript.messageOf(this.id) === undefined && transcript.messageExpected(this.id)) {
          this.#archived = await findMessage(client, this.id);
        }
        return true;
      case "unknown":
        if (this.#refusal !== null) throw this.#refusal;
        client.check();
        // Until its send is acknowledged nobody can know it.
        if (client.status !== "live" || client.connection.outbox.startsRun(this.id)) return false;
        this.#archived = await findMessage(client, this.id);
        if (this.#archived === null && this.status === "unknown") throw new UnknownRunError(this.id);
        return this.#archived !== null;
      default:
        client.check();
        return false;
    }
  }
}

/**
 * The assistant's message of a run that is older than what is held, looked for in the whole history.
 *
 * @param {Client} client
 * @param {string} runId
 * @returns {Promise<Message | null>}
 */
async function findMessage(client, runId) {
  let { more } = client.transcript;
  let before = client.transcript.messages()[0]?.seq;
  while (more) {
    const page = /** @type {HistoryPage} */ (await client.command(command("history", { before, limit: HISTORY_PAGE })));
    const message = page.messages.find(({ role, runId: of }) => of === runId && role === "assistant");
    if (message !== undefined) return message;
    before = page.messages[0]?.seq;
    more = page.more && before !== undefined;
  }
  return null;
}

/** @extends {Reader<string>} */
class RunReader extends Reader {
  /** @type {number[]} */
  #taken = [];

  /**
   * @param {Run} run
   * @param {Client} client
   */
  constructor(run, client) {
    super(client);
    this.run = run;
  }

  /** @override */
  take() {
    return this.run.read(this.#taken) || undefined;
  }

  /** @override */
  over() {
    return this.run.isOver();
  }
}
