/**
 * What became of the things that runs asked for. Only the events tell it: of a request that was resolved before this page
 * was here nothing is known.
 */

/** @import {Event, RunInfo} from "../holdfast/index.js" */
/** @import {Request, RequestOutcome, RunRequested, RunResolved} from "../holdfast/core/wire.js" */

/**
 * A request that is no longer open.
 *
 * @typedef {object} Resolved
 * @property {string} id the request's
 * @property {Request | undefined} request
 * @property {RequestOutcome} outcome
 * @property {unknown} value
 * @property {string | undefined} by
 * @property {string | undefined} device
 */

/** Runs of which it is kept; the oldest go. */
const MAX_RUNS = 200;
const NONE = Object.freeze(/** @type {Resolved[]} */ ([]));

export class Requests {
  /** By run and request. @type {Map<string, Map<string, Request>>} */
  #open = new Map();
  /** By run, in the order of the log. @type {Map<string, readonly Resolved[]>} */
  #resolved = new Map();

  /**
   * Learns what is open, where no event of it came.
   *
   * @param {readonly RunInfo[]} runs
   */
  look(runs) {
    for (const { runId, requests } of runs) for (const request of requests) this.#asked(runId, request);
  }

  /** @param {Event} event */
  take(event) {
    if (event.type === "run.requested") {
      const { runId, request } = /** @type {RunRequested} */ (event);
      this.#asked(runId, request);
    } else if (event.type === "run.resolved") {
      const { runId, requestId: id, outcome, value, by, device } = /** @type {RunResolved} */ (event);
      const request = this.#open.get(runId)?.get(id);
      this.#open.get(runId)?.delete(id);
      const others = this.of(runId).filter((resolved) => resolved.id !== id);
      this.#resolved.set(runId, [...others, { id, request, outcome, value, by, device }]);
      if (this.#resolved.size > MAX_RUNS) this.#resolved.delete(/** @type {string} */ (firstKey(this.#resolved)));
    } else if (event.type === "run.ended") {
      this.#open.delete(/** @type {{runId: string} & Event} */ (event).runId);
    }
  }

  /**
   * What became of the requests of a run: the same array until that changed.
   *
   * @param {string} runId
   */
  of(runId) {
    return this.#resolved.get(runId) ?? NONE;
  }

  /** Another log took this one's place. */
  forget() {
    this.#open.clear();
    this.#resolved.clear();
  }

  /**
   * @param {string} runId
   * @param {Request} request
   */
  #asked(runId, request) {
    let open = this.#open.get(runId);
    if (open === undefined) {
      open = new Map();
      this.#open.set(runId, open);
    }
    open.set(request.id, request);
  }
}

/** @param {Map<string, unknown>} map */
function firstKey(map) {
  return map.keys().next().value;
}
