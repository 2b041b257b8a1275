/**
 * Commands as the wire has them. Only what is cheap is checked here, the server says the rest.
 *
 * A field that is undefined or null is left out, except `value`, where null is a value.
 */

import { CommandError } from "./errors.js";

/** @import {Boundary, Command, IfEnded, IfUnknown, Position, WhenBusy} from "./wire.js" */

/**
 * @typedef {object} SendOptions
 * @property {string} [runId] the id of the run and of the command: the same send again is the same run
 * @property {string} [agent]
 * @property {WhenBusy} [whenBusy]
 * @property {Position | null} [seen] what was on screen, for `interrupt`
 * @property {number} [whenAbandonedMs] the run is cancelled when nobody watched the session for so long
 * @property {number} [deadlineMs] from acceptance; then the run ends `expired`
 * @property {Record<string, unknown>} [metadata] kept with the message
 * @property {string} [messageId]
 *
 * @typedef {object} CancelOptions
 * @property {Position | null} [seen] what was on screen; the kept message is cut there
 * @property {IfUnknown} [ifUnknown]
 *
 * @typedef {object} CancelAllOptions
 * @property {Position} [upTo] later runs are not touched; by default what this client has
 * @property {Position | null} [seen] what was on screen; the kept messages are cut there
 *
 * @typedef {object} SteerOptions
 * @property {string} [runId] by default the session's main run
 * @property {Boundary} [boundary] at once, or before the agent's next step
 * @property {IfEnded} [ifEnded]
 * @property {Position | null} [seen] what was on screen, for `now`
 * @property {string} [steerId]
 *
 * @typedef {object} HistoryOptions
 * @property {number} [before] a seq, exclusive
 * @property {number} [limit] 1 to 200
 */

/**
 * @param {unknown} value
 * @returns {value is string}
 */
export const isId = (value) => typeof value === "string" && /^[A-Za-z0-9][\w.:~-]{0,127}$/.test(value);

/**
 * An id that nobody else makes.
 *
 * @param {string} prefix
 * @param {number} [bytes]
 */
export function newId(prefix, bytes = 8) {
  const random = crypto.getRandomValues(new Uint8Array(bytes));
  return `${prefix}-${Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

const IDS = ["id", "runId", "messageId", "steerId", "requestId", "agent"];

/**
 * A command of that type. A field `content` becomes `text` or `parts`, by what it is. Throws CommandError `invalid`.
 *
 * @param {string} type
 * @param {Record<string, unknown>} fields
 * @param {string} [id]
 * @returns {Command}
 */
export function command(type, fields, id = newId("k")) {
  /** @type {Command} */
  const made = { type, id };
  for (const [name, value] of Object.entries(fields)) {
    if (name === "content") made[contentField(value)] = value;
    else if (name === "value" || (value !== undefined && value !== null)) made[name] = value;
  }
  for (const name of IDS) {
    if (name in made && !isId(made[name])) throw invalid(`${name} is no id`, `$.${name}`);
  }
  return made;
}

/** @param {unknown} content */
function contentField(content) {
  if (typeof content === "string") return "text";
  if (Array.isArray(content)) return "parts";
  throw invalid("a message is a text, or an array of parts", "$.text");
}

/**
 * @param {string} message
 * @param {string} path
 */
const invalid = (message, path) => new CommandError("invalid", message, { path });
