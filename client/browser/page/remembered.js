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
