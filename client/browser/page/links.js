/** Which addresses in a message become links: what an agent says is written by a model, and may be written by an attacker. */

import { setAttribute } from "./dom.js";

const SCHEMES = new Set(["http:", "https:", "mailto:"]);

/**
 * Makes `anchor` a link to `address` if that is one to follow: absolute, of a scheme that only shows something, and
 * without a user name, which is there to look like another host. Returns whether it did.
 *
 * @param {HTMLAnchorElement} anchor
 * @param {string} address
 */
export function link(anchor, address) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url === null || !SCHEMES.has(url.protocol) || url.username !== "" || url.password !== "") return false;
  setAttribute(anchor, "href", url.href);
  setAttribute(anchor, "rel", "noopener noreferrer");
  setAttribute(anchor, "target", "_blank");
  setAttribute(anchor, "title", url.href);
  return true;
}
