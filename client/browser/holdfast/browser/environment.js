/**
 * What the library uses of its surroundings: the clock, timers, chance, locks and the page. Tests give their own.
 *
 * @typedef {object} Environment
 * @property {() => number} now milliseconds of a clock that never goes back
 * @property {() => number} unixTime milliseconds since the Unix epoch
 * @property {(callback: () => void, ms: number) => unknown} setTimeout
 * @property {(timer: any) => void} clearTimeout takes what `setTimeout` gave, which differs from place to place
 * @property {() => number} random numbers in [0, 1)
 * @property {Pick<LockManager, "request"> | undefined} locks
 * @property {EventTarget | undefined} window
 * @property {(EventTarget & { readonly visibilityState: string }) | undefined} document
 */

/** @type {Environment} */
export const browser = {
  now: () => performance.now(),
  unixTime: () => Date.now(),
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer),
  random: () => Math.random(),
  get locks() {
    return globalThis.navigator?.locks;
  },
  get window() {
    return globalThis.window;
  },
  get document() {
    return globalThis.document;
  },
};
