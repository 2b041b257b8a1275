/** Small things that outlive the page. A browser that keeps nothing for it is no reason to fail. */

/**
 * @param {"localStorage" | "sessionStorage"} where
 * @param {string} key
 */
export function recall(where, key) {
  try {
    return window[where].getItem(`holdfast-page:${key}`);
  } catch {
    return null;
  }
}

/**
 * @param {"localStorage" | "sessionStorage"} where
 * @param {string} key
 * @param {string} value
 */
export function remember(where, key, value) {
  try {
    window[where].setItem(`holdfast-page:${key}`, value);
  } catch {
    // It is forgotten with the page.
  }
}

/**
 * @param {"localStorage" | "sessionStorage"} where
 * @param {string} key
 */
export function forget(where, key) {
  try {
    window[where].removeItem(`holdfast-page:${key}`);
  } catch {
    // What cannot be removed was not kept.
  }
}

/** Forgets what the library kept in this tab: conversations, and commands without a reply. */
export function forgetSessions() {
  try {
    for (const key of Object.keys(sessionStorage)) if (key.startsWith("holdfast:")) sessionStorage.removeItem(key);
  } catch {
    // Likewise.
  }
}
