/** How runs end: what their `run.ended` told, as far as it is remembered. */

/** @import {EndReason, Failure, Message, MessageStatus, ReturnedSteer, RunEnded, RunInfo} from "./wire.js" */

/** How many endings are remembered: of the runs still kept, and of later ones that somebody may hold. */
export const ENDINGS_KEPT = 256;

/** The reasons, and the status of a message whose run ended so: `protocol/vectors/ends.json` has the whole table. */
export const STATUS_OF_REASON = /** @satisfies {Record<string, MessageStatus>} */ ({
  completed: "complete",
  cancelled: "interrupted",
  failed: "error",
  expired: "interrupted",
  lost: "interrupted",
});

const TOLD = /** @type {const} */ (["cause", "error", "usage", "returned"]);
const ENDER = /** @type {const} */ (["by", "device"]);

/**
 * How a run ended. `by` and `device` did it; they are there only where the event itself was seen.
 * @typedef {object} Ending
 * @property {string} runId
 * @property {EndReason} reason
 * @property {string} [by]
 * @property {string} [device]
 * @property {string} [cause]
 * @property {Failure} [error]
 * @property {Record<string, unknown>} [usage]
 * @property {ReturnedSteer[]} [returned]
 */

/** The last endings, in the order of the ends. */
export class Endings {
  /** @type {Map<string, Ending>} */
  #byRun = new Map();

  /** @param {readonly Ending[]} [endings] an earlier `all()` */
  constructor(endings = []) {
    for (const ending of endings) this.#byRun.set(ending.runId, ending);
  }

  /** All of them, oldest first. */
  all() {
    return [...this.#byRun.values()];
  }

  /** @param {string} runId */
  of(runId) {
    return this.#byRun.get(runId);
  }

  /** @param {RunEnded} event */
  told(event) {
    const { runId, reason } = event;
    this.#remember({ runId, reason, ...pick(event, ENDER), ...toldOf(event) });
  }

  /**
   * What a snapshot says of an ended run.
   * @param {RunInfo} run
   */
  read(run) {
    const { runId, reason = "lost" } = run;
    // Who did it stands in the event alone.
    /** @type {Partial<Ending>} */
    const known = this.#byRun.get(runId) ?? {};
    this.#remember({ runId, reason, ...pick(known, ENDER), ...toldOf(run) });
  }

  /** @param {Ending} ending */
  #remember(ending) {
    this.#byRun.delete(ending.runId); // behind the others, wherever it stood
    this.#byRun.set(ending.runId, ending);
    if (this.#byRun.size > ENDINGS_KEPT) {
      const [oldest = ""] = this.#byRun.keys();
      this.#byRun.delete(oldest);
    }
  }
}

/**
 * What is told of an end beside the reason; what is empty is left out.
 * @param {RunEnded | RunInfo} source
 */
export function toldOf(source) {
  return pick(source, TOLD);
}

/**
 * The fields of these names that are not empty.
 * @template {object} T
 * @template {keyof T} K
 * @param {T} source
 * @param {readonly K[]} names
 * @returns {Partial<Pick<T, K>>}
 */
function pick(source, names) {
  /** @type {Partial<Pick<T, K>>} */
  const picked = {};
  for (const name of names) {
    const value = source[name];
    if (typeof value === "object" && value !== null ? Object.keys(value).length > 0 : value) picked[name] = value;
  }
  return picked;
}

/**
 * The status of the assistant's message in a run that ended so: as interrupted where a newer server gives a reason of its own.
 * @param {string} reason
 * @returns {MessageStatus}
 */
export function statusOf(reason) {
  return Object.hasOwn(STATUS_OF_REASON, reason) ? STATUS_OF_REASON[/** @type {EndReason} */ (reason)] : "interrupted";
}

/**
 * Why the run behind a message ended, as the message alone tells it; undefined where it has not.
 * @param {Message} message
 * @returns {EndReason | undefined}
 */
export function reasonOf({ reason, status }) {
  if (reason !== undefined || status === "streaming") return reason;
  return status === "complete" ? "completed" : status === "error" ? "failed" : "cancelled";
}
