/** How long the server may be silent before the connection counts as dead. */

/** How long the server has to reply to `hello`. */
export const GREETING_MS = 10_000;
/** How long the server has to be heard after it was asked for a sign of life. */
export const PROBE_MS = 5_000;

/** When the server was heard last, and what follows from it. */
export class Silence {
  /** When the server was heard last. */
  since = 0;
  /** @type {number | null} when it was asked for a sign of life, and has not been heard since */
  #askedAt = null;
  #boundMs = GREETING_MS;

  /**
   * The socket is open, and the server owes a welcome.
   * @param {number} now
   */
  begins(now) {
    this.#boundMs = GREETING_MS;
    this.ends(now);
  }

  /**
   * The server has said `welcome`, and that it is heard at least so often.
   * @param {number} heartbeatMs
   */
  welcomed(heartbeatMs) {
    this.#boundMs = 2 * heartbeatMs;
  }

  /**
   * The server was heard, or is gone; whether it owed a sign of life that it was asked for.
   * @param {number} now
   */
  ends(now) {
    const wasAsked = this.#askedAt !== null;
    this.since = now;
    this.#askedAt = null;
    return wasAsked;
  }

  /**
   * The server is to be asked for a sign of life; false where it owes one already.
   * @param {number} now
   */
  ask(now) {
    if (this.#askedAt !== null) return false;
    this.#askedAt = now;
    return true;
  }

  /** When it has lasted too long. */
  get limit() {
    const limit = this.since + this.#boundMs;
    return this.#askedAt === null ? limit : Math.min(limit, this.#askedAt + PROBE_MS);
  }
}
