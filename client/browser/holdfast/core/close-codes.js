const RECONNECT = [1001, 1005, 1006, 1011, 1012, 1013];

/**
 * Whether a client whose connection closed with `code` tries again (with backoff).
 *
 * The range tells: 4000-4499 come back, 4500-4999 do not. Of the standard codes only those of a network or a server
 * in trouble come back; every other code is final.
 * @param {number} code
 */
export function mayReconnect(code) {
  return (code >= 4000 && code <= 4499) || RECONNECT.includes(code);
}
