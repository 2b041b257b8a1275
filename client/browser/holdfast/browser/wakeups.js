/** When a page should look after its connection, and when it may be seen for the last time. */

/** @import {Environment} from "./environment.js" */

/**
 * Calls `wake` when the page or the network is back, `networkGone` when the browser says that there is none, and `hide`
 * whenever the page may never be heard of again. Returns what ends that.
 *
 * @param {Environment} environment
 * @param {{wake: () => void, networkGone: () => void, hide: () => void}} callbacks
 */
export function watchPage({ window, document }, { wake, networkGone, hide }) {
  const visibility = () => (document?.visibilityState === "hidden" ? hide() : wake());
  /** @type {[EventTarget | undefined, string, () => void][]} */
  const watched = [
    [window, "online", wake],
    [window, "pageshow", wake],
    [window, "offline", networkGone],
    [window, "pagehide", hide],
    [document, "visibilitychange", visibility],
  ];
  // Some places have a `window` that tells nothing.
  for (const [target, type, listener] of watched) target?.addEventListener?.(type, listener);
  return () => {
    for (const [target, type, listener] of watched) target?.removeEventListener?.(type, listener);
  };
}
