/** What the client throws: one tree under `HoldfastError`, each with a `code`, `retryable` and a sentence. */

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

/**
 * A command that was refused: by the server, or here before it was sent. `code` is one of the wire's: `invalid`,
 * `unauthorized`, `forbidden`, `conflict`, `busy`, `unknown_agent`, `rate_limited`, `limit_reached`, `too_large`,
 * `unavailable`, `draining`, `internal`; or `another_principal`, where the server takes this client for somebody else now.
 */
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
    super("outbox_full", "Too many commands wait for their replies; issue this one again later.", true);
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
