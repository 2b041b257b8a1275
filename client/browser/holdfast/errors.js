/** What the client throws: one tree under `HoldfastError`, each with a `code`, `retryable` and a sentence. */

/** @import {ErrorMessage} from "./wire.js" */

/** The root of every error that Holdfast throws on purpose. */
export class HoldfastError extends Error {
  /**
   * @param {string} code one machine word
   * @param {string} message
   * @param {boolean} [retryable] the same call may succeed later
   */
  constructor(code, message, retryable = false) {
    super(message);
    this.name = "HoldfastError"; // not the class's own name, which minifiers change
    this.code = code;
    this.retryable = retryable;
  }
}

/** A command that was refused: by the server, or here before it was sent. */
export class CommandError extends HoldfastError {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{retryable?: boolean, path?: string | undefined, retryAfterMs?: number | undefined}} [details]
   */
  constructor(code, message, { retryable, path, retryAfterMs } = {}) {
    super(code, message, retryable);
    /** The field at fault (`$.runId`), where it is known. */
    this.path = path;
    /** When to try again, where it is known. */
    this.retryAfterMs = retryAfterMs;
  }
}

/** The command is not one of this protocol; `path` names the field at fault. */
export class InvalidCommandError extends CommandError {}
/** The token does not stand for anybody. */
export class UnauthorizedError extends CommandError {}
/** The token does not allow this. */
export class ForbiddenError extends CommandError {}
/** The id was used before for something else. */
export class ConflictError extends CommandError {}
/** The session has a main run and the command said `reject`. */
export class BusyError extends CommandError {}
/** The server has no agent of that name. */
export class UnknownAgentError extends CommandError {}
/** Too many commands; the client has already waited and tried again. */
export class RateLimitedError extends CommandError {}
/** A bound of the session or the principal: runs at once, the length of the queue. */
export class LimitReachedError extends CommandError {}
/** The command is larger than the server takes; it was not sent. */
export class TooLargeError extends CommandError {}
/** The server could not reach its store in time; the client has already tried again. */
export class UnavailableError extends CommandError {}
/** The server takes no new runs because it is shutting down; the client has already tried again. */
export class DrainingError extends CommandError {}

/** The server closed the connection for good, with a close code that says not to come back. */
export class ConnectionClosedError extends HoldfastError {
  /**
   * @param {number} closeCode the WebSocket close code
   * @param {string} [reason] the server's words
   */
  constructor(closeCode, reason = "") {
    super("connection_closed", `The server closed the connection for good (${closeCode}${reason && `: ${reason}`}).`);
    this.closeCode = closeCode;
    this.reason = reason;
  }
}

/** This client was closed by its own program. Runs are not touched by that. */
export class ClientClosedError extends HoldfastError {
  constructor() {
    super("client_closed", "This client is closed. Its runs go on.");
  }
}

/** Too much waits for an acknowledgement: the command was not taken and is safe to issue again later. */
export class OutboxFullError extends HoldfastError {
  constructor() {
    super("outbox_full", "Too many commands wait for an answer; issue this one again later.", true);
  }
}

/** Neither the log nor the history of the session knows the run. */
export class UnknownRunError extends HoldfastError {
  /** @param {string} runId */
  constructor(runId) {
    super("unknown_run", `The session knows no run ${runId}.`);
    this.runId = runId;
  }
}

// A Map: the server's words must not find what objects inherit.
/** @type {Map<string, typeof CommandError>} */
const REFUSALS = new Map([
  ["malformed", InvalidCommandError],
  ["invalid", InvalidCommandError],
  ["unknown_type", InvalidCommandError],
  ["unauthorized", UnauthorizedError],
  ["forbidden", ForbiddenError],
  ["conflict", ConflictError],
  ["busy", BusyError],
  ["unknown_agent", UnknownAgentError],
  ["rate_limited", RateLimitedError],
  ["limit_reached", LimitReachedError],
  ["too_large", TooLargeError],
  ["unavailable", UnavailableError],
  ["draining", DrainingError],
]);

/**
 * The error for an `error` message; a plain CommandError where the code has no class of its own.
 * @param {ErrorMessage} error
 */
export function refusal(error) {
  return new (REFUSALS.get(error.code) ?? CommandError)(error.code, error.message, error);
}
