/** Words for what the wire says in codes. */

/** @import {AnyPart, Cause, EndReason, MessageStatus} from "../holdfast/core/wire.js" */

/**
 * The text of a message's parts, in one piece; files by their names.
 *
 * @param {readonly AnyPart[] | undefined} parts
 */
export function textOf(parts = []) {
  return parts.map((part) => String(part.kind === "file" ? (part.name ?? part.url) : (part.text ?? ""))).join("\n");
}

/**
 * Of one line and at most so many characters.
 *
 * @param {string} text
 * @param {number} [length]
 */
export function shortened(text, length = 80) {
  const line = text
    .slice(0, 4 * length)
    .replace(/\s+/g, " ")
    .trim();
  const characters = [...line];
  return characters.length <= length ? line : `${characters.slice(0, length - 1).join("")}…`;
}

/**
 * A value as a person reads it: text as text, anything else as indented JSON.
 *
 * @param {unknown} value
 */
export function shown(value) {
  return typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? "");
}

/**
 * Who did something, on which device.
 *
 * @param {string | undefined} by
 * @param {string | undefined} device
 */
export function who(by, device) {
  if (!by) return device ?? "";
  return device ? `${by} (${device})` : by;
}

/**
 * What a request came to, and through whom.
 *
 * @param {{outcome: string, value?: unknown, kind?: string | undefined}} resolution `kind` of the request
 * @param {string} actor
 */
export function resolution({ outcome, value, kind }, actor) {
  if (outcome === "expired") return "Expired";
  if (outcome === "withdrawn") return "Not answered";
  if (outcome !== "answered") return `Not answered: ${words(outcome)}`; // of a newer server
  const verb = kind !== "approval" ? "Answered" : value === true ? "Approved" : "Refused";
  return actor === "" ? verb : `${verb} by ${actor}`;
}

/** A name of the wire that is not known here, as a person can read it. @param {string} name */
export function words(name) {
  return name.replaceAll("_", " ");
}

/** @param {number} unixMs */
export function clock(unixMs) {
  return new Date(unixMs).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/** @param {number} ms */
export function duration(ms) {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1_000)} s`;
}

/** How runs end; nothing of one that is simply complete. @type {Record<EndReason, string>} */
const ENDS = {
  completed: "",
  cancelled: "Stopped",
  failed: "Failed",
  expired: "Expired",
  lost: "Lost: the server that ran it went away",
};

/** Why, behind how and by whom. @type {Record<Cause, string>} */
const CAUSES = {
  user: "",
  prevented: " before it began",
  superseded: ": another message took its place",
  abandoned: ": nobody was watching any more",
  shutdown: ": the server was shut down",
  unknown_agent: ": no server has its agent any more",
  deadline: ": its time was up",
};

/** The causes that nobody is behind but the server. */
const OF_SERVER = ["abandoned", "shutdown", "unknown_agent", "deadline"];

/**
 * What a table has for a word of the wire; undefined for one of a newer server.
 *
 * @param {Record<string, string>} table
 * @param {string} word
 */
export const told = (table, word) => (Object.hasOwn(table, word) ? table[word] : undefined);

/** How a message stands; nothing where the page shows it otherwise. @type {Record<MessageStatus, string>} */
const STANDINGS = { streaming: "", complete: "", interrupted: "", error: "" };

/** How a message stands, as far as its run's end does not tell it. @param {string} status */
export const standing = (status) => told(STANDINGS, status) ?? words(status);

/**
 * How a run ended, in one line. Empty for a run that has not, and for one that is simply complete.
 *
 * @param {{reason?: string | undefined, cause?: string | undefined, by?: string | undefined, device?: string | undefined,
 *   error?: {code: string, message: string} | undefined}} ending
 */
export function outcome({ reason, cause, by, device, error }) {
  if (reason === undefined) return "";
  const actor = by === undefined || OF_SERVER.includes(cause ?? "") ? "" : ` by ${who(by, device)}`;
  const how = told(ENDS, reason);
  if (how === undefined) return `Ended${actor}: ${error?.message ?? words(reason)}`;
  if (error !== undefined) return `${how}: ${error.message} (${error.code})`;
  const why = cause === undefined ? "" : (told(CAUSES, cause) ?? `: ${words(cause)}`);
  return how && `${how}${actor}${why}`;
}
