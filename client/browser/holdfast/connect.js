/** `connect`: from an address to a session. */

import { defaultStorage } from "./browser/storage.js";
import { isId } from "./core/commands.js";
import { Session } from "./session.js";

/** @import {Config} from "./client.js" */
/** @import {Token} from "./browser/link.js" */
/** @import {KeyValueStorage} from "./browser/storage.js" */

/** How many messages of the past a server tells at once. */
const MAX_MESSAGES = 200;

/**
 * @typedef {object} Options
 * @property {string} session
 * @property {Token} [token] the credential, or a function that is called at every connect, also an async one
 * @property {string} [device] what this client is called; by default what the storage has, or a random name
 * @property {KeyValueStorage | null} [storage] what outlives the page: by default sessionStorage where there is one; null
 *   for nothing
 * @property {number} [messages] how many messages of the past are loaded, 0 to 200
 * @property {typeof WebSocket} [WebSocket] where there is none, or another one is wanted
 * @property {string} [client] name and version, for the server's log
 */

/**
 * Opens a session. Returns at once: it connects by itself, and keeps connected, until `close`.
 *
 * `url` is the server's (`ws:`, `wss:`, `http:`, `https:`, or relative to the page); the session's path is added, a query
 * and a fragment are not looked at. Throws TypeError for a url, ids or a number of messages that cannot be.
 *
 * @param {string | URL} url
 * @param {Options} options
 */
export function connect(url, options) {
  const session = new Session(configure(url, options));
  session.resume();
  return session;
}

/**
 * What a session is made of. The surroundings (the page's address, a WebSocket) are not needed before it is opened.
 *
 * @param {string | URL} url
 * @param {Options} options
 * @returns {Config}
 */
export function configure(url, { session, token, device, storage, messages = 50, WebSocket, client = "holdfast-js" }) {
  for (const id of [session, device ?? "default"]) if (!isId(id)) throw new TypeError(`${id} is no id.`);
  if (!(messages >= 0 && messages <= MAX_MESSAGES)) throw new TypeError(`messages: 0 to ${MAX_MESSAGES}.`);
  return {
    endpoint: () => endpoint(url, session),
    session,
    token,
    device,
    storage: storage === undefined ? defaultStorage() : storage,
    messages,
    socketType: () => {
      const found = WebSocket ?? globalThis.WebSocket;
      if (found === undefined) throw new TypeError("There is no WebSocket here; give one as an option.");
      return found;
    },
    client,
  };
}

/**
 * @param {string | URL} url
 * @param {string} session
 */
function endpoint(url, session) {
  const { protocol, host, pathname } = new URL(url, globalThis.document?.baseURI);
  const scheme = protocol.replace("http", "ws");
  if (!/^wss?:$/.test(scheme) || host === "") throw new TypeError(`${url} is no server's address.`);
  const server = host + pathname.replace(/\/+$/, "");
  return { url: `${scheme}//${server}/v1/sessions/${encodeURIComponent(session)}`, server };
}
