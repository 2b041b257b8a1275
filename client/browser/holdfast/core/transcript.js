/**
 * Folding events into messages and runs: the one meaning of a log, the same here as in the server.
 *
 *     transcript.load(snapshot)      // or nothing: the beginning of a log
 *     transcript.apply(event)        // each event once, in order
 *
 * Everything that is handed out is a view: never changed afterwards, and the same object until what it shows changed.
 * The fold is lenient: an unknown event means nothing but its seq, an unknown part kind is kept as it came, and what
 * names a run that is not known is passed over (its run ended before the snapshot).
 */

/**
 * @import {Ending} from "./endings.js"
 * @import {EndReason, Event, Message, PendingSteer, Position, RunChunk, RunEnded, RunInfo, RunQueued, RunStarted, RunStatus,
 *   Snapshot} from "./wire.js"
 */

import { Endings, reasonOf, statusOf, toldOf } from "./endings.js";
import { joinContinued, OpenMessage } from "./message.js";

/** How many ended runs are kept beside those that have not ended; the oldest go first. */
export const ENDED_RUNS_KEPT = 32;
/** How many messages are held; older ones go first and can be had again as history. */
export const MESSAGES_KEPT = 1_000;

/**
 * Everything known was replaced by a snapshot at `position`: what led there is not told event by event. `newEpoch`:
 * the server's log is another one than before, and what it had acknowledged may be gone.
 * @typedef {{type: "reset", position: Position, newEpoch: boolean}} Reset
 *
 * @typedef {Event | Reset} News
 *
 * A transcript as JSON: the cursor, and what was folded up to it.
 * @typedef {object} TranscriptState
 * @property {string} epoch
 * @property {number} seq
 * @property {number} at
 * @property {boolean} more
 * @property {readonly Message[]} messages
 * @property {readonly RunInfo[]} runs
 * @property {readonly Ending[]} endings
 */

/** The messages and runs of a session, folded from its events. */
export class Transcript {
  /** Empty before the first contact. */
  epoch = "";
  /** Of the last event folded. */
  seq = 0;
  /** The time of the last event folded. */
  at = 0;
  /** Whether older messages than these can be had as history. */
  more = false;

  /** @type {Map<string, Message | OpenMessage>} in the order of the log */
  #messages = new Map();
  /** @type {Map<string, string>} the id of the assistant message by run id */
  #messageIds = new Map();
  /** @type {Map<string, RunInfo>} in the order of their first event */
  #runs = new Map();
  /** @type {Set<string>} the runs in `#runs` that have ended, in that order */
  #ended = new Set();
  #endings = new Endings();
  #messagesKept;

  /** @type {readonly Message[] | null} */
  #messageViews = null;
  /** @type {readonly RunInfo[] | null} */
  #runViews = null;
  /** @type {Position} */
  #position = { epoch: "", seq: 0 };

  /** @type {Message[]} */
  #continued = [];
  /** @type {RunInfo[]} */
  #loading = [];
  /** @type {Position | null} */
  #loadingAt = null;

  /** @param {{messagesKept?: number}} [options] */
  constructor({ messagesKept = MESSAGES_KEPT } = {}) {
    this.#messagesKept = messagesKept;
  }

  // ---- what is shown

  /** Up to where everything is known. */
  get position() {
    if (this.#position.seq !== this.seq || this.#position.epoch !== this.epoch) {
      this.#position = { epoch: this.epoch, seq: this.seq };
    }
    return this.#position;
  }

  /** All messages held, in the order of the log. */
  messages() {
    this.#messageViews ??= Array.from(this.#messages.values(), view);
    return this.#messageViews;
  }

  /** All runs that have not ended and the last ones that have, oldest first. */
  runs() {
    this.#runViews ??= [...this.#runs.values()];
    return this.#runViews;
  }

  /**
   * One message, if it is held.
   * @param {string} id
   */
  message(id) {
    const message = this.#messages.get(id);
    return message && view(message);
  }

  /**
   * One run, if it is held.
   * @param {string} runId
   */
  run(runId) {
    return this.#runs.get(runId);
  }

  /**
   * What the assistant said in the run, as far as it is known; undefined where there is nothing, or it is not held.
   * @param {string} runId
   */
  messageOf(runId) {
    return this.message(this.#messageIds.get(runId) ?? "");
  }

  /**
   * The run's status; `unknown` where neither the runs nor the messages held here name it.
   * @param {string} runId
   * @returns {RunStatus | "unknown"}
   */
  status(runId) {
    const known = this.#endings.of(runId) !== undefined || this.#messageIds.has(runId);
    return this.#runs.get(runId)?.status ?? (known ? "ended" : "unknown");
  }

  /**
   * Why the run ended; undefined while it has not, or where nothing here tells.
   * @param {string} runId
   * @returns {EndReason | undefined}
   */
  reason(runId) {
    const run = this.#runs.get(runId) ?? this.#endings.of(runId);
    if (run !== undefined) return run.reason;
    const message = this.messageOf(runId);
    return message && reasonOf(message);
  }

  /**
   * How the run ended, if this client was told, by the event or by a snapshot, and not too many ended since.
   * @param {string} runId
   */
  ending(runId) {
    return this.#endings.of(runId);
  }

  /**
   * Whether the assistant said something in it, here or in the history: false for a run that ended without starting.
   * @param {string} runId
   */
  messageExpected(runId) {
    const run = this.#runs.get(runId);
    return run === undefined || run.startedSeq !== undefined || run.messageId !== undefined;
  }

  /**
   * The run's text that `taken` does not count yet, and counts then. `taken`: UTF-16 units by text part, in order of
   * appearance; `[]` for a reader that begins.
   *
   * Text parts are counted among themselves and not by part number, because a cut message loses parts at its end only.
   * So a shorter text after a snapshot or a cut never makes a reader see anything twice. A reader that keeps up pays
   * for what is new, however long the message is.
   * @param {string} runId
   * @param {number[]} taken
   */
  readText(runId, taken) {
    const message = this.#messages.get(this.#messageIds.get(runId) ?? "");
    if (message === undefined) return "";
    return (message instanceof OpenMessage ? message : new OpenMessage(message)).readText(taken);
  }

  // ---- what is folded

  /** What a hello resumes from; undefined before the first contact. */
  cursor() {
    if (this.epoch === "") return undefined;
    return { ...this.position, ...(this.seq > 0 && { at: this.at }) };
  }

  /**
   * Folds one event. The caller sees to it that each comes once and in order.
   * @param {Event} event
   */
  apply(event) {
    this.seq = event.seq;
    this.at = event.at;
    switch (event.type) {
      case "message":
        return this.#setMessage({
          ...event.message,
          seq: event.seq,
          after: event.after,
          runId: event.runId,
          status: "complete",
        });
      case "run.queued":
        return this.#queued(event);
      case "run.started":
        return this.#started(event);
      case "run.chunk":
        return this.#chunk(event);
      case "run.requested":
        return this.#change(event.runId, ({ requests }) => ({
          status: "waiting",
          requests: [...requests, event.request],
        }));
      case "run.resolved":
        return this.#change(event.runId, ({ status, requests }) => {
          const left = requests.filter((request) => request.id !== event.requestId);
          return { requests: left, status: status === "waiting" && left.length === 0 ? "running" : status };
        });
      case "steer.accepted": {
        const { type, seq, at, command, from, runId, ...steer } = event;
        return this.#change(runId, ({ steers }) => ({ steers: [...steers, steer] }));
      }
      case "steer.applied": {
        const steer = this.#takeSteer(event);
        const message = this.#openMessage(event.runId);
        if (steer === undefined || message === undefined) return;
        message.steer(steer, event.kept);
        this.#messageViews = null;
        return;
      }
      case "steer.withdrawn":
        this.#takeSteer(event);
        return;
      case "run.ended":
        return this.#endedBy(event);
    }
  }

  /**
   * Replaces everything by a snapshot; null while more messages of the same snapshot are to come.
   *
   * Until the last one is there, what was known before stays in force.
   * @param {Snapshot} snapshot
   * @returns {Reset | null}
   */
  load(snapshot) {
    if (!this.loads(snapshot)) {
      // Another snapshot has begun before the last one was whole.
      this.discardPartialSnapshot();
      this.#loadingAt = { epoch: snapshot.epoch, seq: snapshot.seq };
    }
    joinContinued(this.#continued, snapshot.messages);
    this.#loading.push(...snapshot.runs);
    if (!snapshot.last) return null;
    const { epoch } = this;
    this.#replace({ ...snapshot, messages: this.#continued, runs: this.#loading });
    for (const run of this.#loading) {
      if (run.status !== "ended") continue;
      this.#ended.add(run.runId);
      this.#endings.read(run);
    }
    this.discardPartialSnapshot();
    return { type: "reset", position: this.position, newEpoch: epoch !== "" && epoch !== this.epoch };
  }

  /** Whether some, not all, messages of a snapshot have come. */
  get isPartial() {
    return this.#loadingAt !== null;
  }

  /**
   * Whether the snapshot message is of the snapshot of which some messages have come.
   * @param {Position} snapshot
   */
  loads(snapshot) {
    return this.#loadingAt?.epoch === snapshot.epoch && this.#loadingAt.seq === snapshot.seq;
  }

  /** Drops what came of a snapshot whose last message never did: the connection was lost in between. */
  discardPartialSnapshot() {
    this.#continued = [];
    this.#loading = [];
    this.#loadingAt = null;
  }

  /**
   * Everything as JSON: the cursor and what was folded up to it, which are of no use without each other.
   * @returns {TranscriptState}
   */
  state() {
    return {
      epoch: this.epoch,
      seq: this.seq,
      at: this.at,
      more: this.more,
      messages: this.messages(),
      runs: this.runs(),
      endings: this.#endings.all(),
    };
  }

  /**
   * Sets the transcript to an earlier `state()`; it folds on like the original.
   * @param {TranscriptState} state
   */
  restore(state) {
    this.#endings = new Endings(state.endings);
    this.#replace(state);
    for (const { runId } of state.endings) if (this.#runs.get(runId)?.status === "ended") this.#ended.add(runId);
  }

  // ---- how

  /** @param {Omit<TranscriptState, "endings">} state */
  #replace({ epoch, seq, at, more, messages, runs }) {
    this.epoch = epoch;
    this.seq = seq;
    this.at = at;
    this.more = more;
    this.#messages = new Map();
    this.#messageIds = new Map();
    this.#runs = new Map(runs.map((run) => [run.runId, run]));
    this.#ended = new Set();
    this.#messageViews = this.#runViews = null;
    const open = new Set(runs.filter((run) => run.status !== "ended").map((run) => run.messageId));
    for (const message of messages) {
      this.#messages.set(message.id, open.has(message.id) ? new OpenMessage(message) : message);
      if (message.role === "assistant") this.#messageIds.set(message.runId ?? "", message.id);
    }
  }

  /** @param {Message} message */
  #setMessage(message) {
    this.#messages.set(message.id, message);
    this.#messageViews = null;
  }

  /** @param {RunInfo} run */
  #setRun(run) {
    this.#runs.set(run.runId, run);
    this.#runViews = null;
  }

  /**
   * @param {string} runId
   * @param {(run: RunInfo) => Partial<RunInfo>} changes
   */
  #change(runId, changes) {
    const run = this.#runs.get(runId);
    if (run !== undefined) this.#setRun({ ...run, ...changes(run) });
  }

  /** @param {string} runId */
  #openMessage(runId) {
    const message = this.#messages.get(this.#messageIds.get(runId) ?? "");
    return message instanceof OpenMessage ? message : undefined;
  }

  /** @param {RunQueued} event */
  #queued({ runId, agent, by, device, message }) {
    this.#setRun({ runId, status: "queued", agent, by, device, message, requests: [], steers: [] });
  }

  /** @param {RunStarted} event */
  #started({ runId, agent, by, device, messageId, seq, at, after }) {
    const run = this.#runs.get(runId);
    if (run !== undefined && run.status !== "queued") {
      // Another attempt goes on where the last one stopped.
      this.#setRun({ ...run, status: "running", requests: [] });
      return;
    }
    const { message, ...known } = run ?? { runId, by, device, requests: [], steers: [] };
    this.#setRun({ ...known, status: "running", agent, messageId, startedSeq: seq });
    this.#messageIds.set(runId, messageId);
    this.#messages.set(
      messageId,
      new OpenMessage({ id: messageId, role: "assistant", parts: [], at, seq, after, runId, status: "streaming" }),
    );
    this.#messageViews = null;
  }

  /** @param {RunChunk} event */
  #chunk(event) {
    if (this.#openMessage(event.runId)?.chunk(event)) this.#messageViews = null;
  }

  /**
   * @param {{runId: string, steerId: string}} event
   * @returns {PendingSteer | undefined}
   */
  #takeSteer({ runId, steerId }) {
    const taken = this.#runs.get(runId)?.steers.find((steer) => steer.steerId === steerId);
    if (taken !== undefined) this.#change(runId, ({ steers }) => ({ steers: steers.filter((one) => one !== taken) }));
    return taken;
  }

  /** @param {RunEnded} event */
  #endedBy(event) {
    const { runId, reason, by, device, kept } = event;
    const open = this.#openMessage(runId);
    // A run that is not known was prevented before it was ever sent.
    const { message, ...run } = this.#runs.get(runId) ?? { runId, by: by ?? "", device: device ?? "" };
    this.#setRun({ ...run, status: "ended", reason, ...toldOf(event), requests: [], steers: [] });
    if (open !== undefined) {
      if (kept !== undefined) open.keep(kept);
      this.#setMessage({ ...open.view(), status: statusOf(reason), reason });
    }
    this.#ended.add(runId);
    this.#endings.told(event);
    if (this.#ended.size > ENDED_RUNS_KEPT) {
      const [oldest = ""] = this.#ended;
      this.#ended.delete(oldest);
      this.#runs.delete(oldest);
    }
    this.#forgetOldest();
  }

  #forgetOldest() {
    for (const [id, message] of this.#messages) {
      if (this.#messages.size <= this.#messagesKept) return;
      const { runId = "" } = view(message);
      if (!["ended", "unknown"].includes(this.status(runId))) return; // that of a newer server may be another one
      this.#messages.delete(id);
      this.#messageViews = null;
      this.more = true;
      if (this.#messageIds.get(runId) === id) this.#messageIds.delete(runId);
    }
  }
}

/**
 * @param {Message | OpenMessage} message
 * @returns {Message}
 */
function view(message) {
  return message instanceof OpenMessage ? message.view() : message;
}
