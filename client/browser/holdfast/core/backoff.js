/** When to try again: exponential, full jitter, bounded. */

const BASE_MS = 500;
const MAX_MS = 30_000;
/** A connection that was live this long starts the backoff anew; a shorter one counts as another failure. */
const STABLE_MS = 5_000;

/**
 * Milliseconds to wait before try number `attempt` (from 0) after a failure.
 *
 * Full jitter: anything from nothing to the bound, so that clients which lost one server together do not come back
 * together.
 * @param {number} attempt
 * @param {() => number} random numbers in [0, 1)
 * @param {number} [hintMs] the server's wish, and the least that is waited
 */
export function backoff(attempt, random, hintMs = 0) {
  return Math.max(random() * Math.min(MAX_MS, BASE_MS * 2 ** attempt), hintMs);
}

/** When to open the next connection, by how the last ones went. */
export class Retries {
  /** Nothing is opened before, however eager anybody is: the server asked for it. */
  notBefore = 0;
  #random;
  #attempt = 0;
  #hintMs = 0;
  /** @type {number | null} */
  #liveSince = null;

  /** @param {() => number} random numbers in [0, 1) */
  constructor(random) {
    this.#random = random;
  }

  /**
   * The connection is live.
   * @param {number} now
   */
  live(now) {
    this.#liveSince = now;
  }

  /**
   * The server said how long to stay away after this connection.
   * @param {number} ms
   */
  hint(ms) {
    this.#hintMs = ms;
  }

  /**
   * The connection is gone, or did not come about; when to open the next one.
   * @param {number} now
   */
  after(now) {
    if (this.#liveSince !== null && now - this.#liveSince >= STABLE_MS) this.#attempt = 0;
    this.notBefore = now + this.#hintMs;
    const wait = backoff(this.#attempt++, this.#random, this.#hintMs);
    this.#liveSince = null;
    this.#hintMs = 0;
    return now + wait;
  }
}
