/**
 * Says so on the page when the server would not take the page's own connection.
 *
 * Of a handshake that is refused a browser tells a page nothing, and behind a proxy that hands on another host than the
 * page's, pages come and their connections are refused. So the page asks, once.
 */

import { byId, setText } from "./dom.js";

/** Returns when it is known, or cannot be. */
export async function tellWhetherAdmitted() {
  const address = new URL("v1/admission", document.baseURI);
  address.searchParams.set("origin", location.origin);
  try {
    const response = await fetch(address);
    if (response.status !== 403) return;
    setText(byId("not-admitted-why"), await response.text());
    byId("not-admitted").hidden = false;
  } catch {
    // The server is away, which the page says elsewhere.
  }
}
