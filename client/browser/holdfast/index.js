/** Holdfast's browser client: `connect` opens a session; `holdfast/react` has hooks for it. */

export { connect } from "./connect.js";
export {
  ClientClosedError,
  CommandError,
  ConnectionClosedError,
  HoldfastError,
  OutboxFullError,
  UnknownRunError,
} from "./errors.js";
export { indexedDBStorage } from "./indexeddb.js";
export { Run } from "./run.js";
export { Session } from "./session.js";

/**
 * @typedef {import("./connect.js").Options} Options
 * @typedef {import("./view.js").View} View
 * @typedef {import("./client.js").Change} Change
 * @typedef {import("./client.js").Listener} Listener
 * @typedef {import("./run.js").RunResult} RunResult
 * @typedef {import("./storage.js").KeyValueStorage} KeyValueStorage
 * @typedef {import("./wire.js").Event} Event
 * @typedef {import("./wire.js").Message} Message
 * @typedef {import("./wire.js").Part} Part
 * @typedef {import("./wire.js").Request} Request
 * @typedef {import("./wire.js").Position} Position
 * @typedef {import("./wire.js").RunInfo} RunInfo
 */
