/** Holdfast's browser client: `connect` opens a session; `holdfast/react` has hooks for it. */

export { indexedDBStorage } from "./browser/indexeddb.js";
export { connect } from "./connect.js";
export {
  ClientClosedError,
  CommandError,
  ConnectionClosedError,
  HoldfastError,
  OutboxFullError,
  UnknownRunError,
} from "./core/errors.js";
export { Run } from "./run.js";
export { Session } from "./session.js";

/**
 * @typedef {import("./connect.js").Options} Options
 * @typedef {import("./core/view.js").View} View
 * @typedef {import("./client.js").Change} Change
 * @typedef {import("./client.js").Listener} Listener
 * @typedef {import("./run.js").RunResult} RunResult
 * @typedef {import("./browser/storage.js").KeyValueStorage} KeyValueStorage
 * @typedef {import("./core/wire.js").Event} Event
 * @typedef {import("./core/wire.js").Message} Message
 * @typedef {import("./core/wire.js").Part} Part
 * @typedef {import("./core/wire.js").Request} Request
 * @typedef {import("./core/wire.js").Position} Position
 * @typedef {import("./core/wire.js").RunInfo} RunInfo
 */
