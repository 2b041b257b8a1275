/** How long to wait before the next try: exponential, full jitter, bounded. */

const BASE_MS = 500;
const MAX_MS = 30_000;

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
