/** What a session shows at a moment, as one value that stays the same until something in it changes. */

/** @import {HoldfastError} from "./errors.js" */
/** @import {Status} from "./phases.js" */
/** @import {Command, Message, Position, Presence, RunInfo} from "./wire.js" */

/**
 * @typedef {object} View Never changed after it was handed out; nor is anything in it.
 * @property {Status} status
 * @property {number | null} nextAttemptAt while offline: when the next connection is tried, in Unix milliseconds
 * @property {HoldfastError | null} error what ended the client, or why there is no connection at the moment
 * @property {string | null} device null until the storage was read
 * @property {string | null} principal who the server takes this client for; null before the first contact
 * @property {Position} position up to where this is the log; the epoch is empty before the first contact
 * @property {readonly Message[]} messages the transcript, oldest first, as far as it is held
 * @property {boolean} more there are older messages, to be had as `history`
 * @property {readonly RunInfo[]} runs those not ended and the last ones that have, oldest first
 * @property {Presence} presence who watches, as last told
 * @property {readonly Command[]} pending what was asked of the session and has no reply yet, oldest first
 */

/**
 * `next`, or `previous` itself where they are alike.
 *
 * @param {View | null} previous
 * @param {View} next
 * @returns {View}
 */
export function stable(previous, next) {
  if (previous === null) return Object.freeze(next);
  const names = /** @type {(keyof View)[]} */ (Object.keys(next));
  return names.every((name) => previous[name] === next[name]) ? previous : Object.freeze(next);
}
