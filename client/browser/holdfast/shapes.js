/**
 * What the fold takes for granted of a server's message. Python's fold stops at a field that is not there; JavaScript
 * would go on with `undefined`, so it is looked for first.
 */

/** @typedef {"string" | "number" | "boolean" | "object" | "array"} Shape */

// A Map: the server's words must not find what objects inherit.
/** @type {Map<unknown, Record<string, Shape>>} */
const SHAPES = new Map(
  Object.entries(
    /** @type {Record<string, Record<string, Shape>>} */ ({
      welcome: { epoch: "string", resume: "string", heartbeatMs: "number", limits: "object" },
      snapshot: { epoch: "string", seq: "number", at: "number", messages: "array", runs: "array", last: "boolean" },
      caughtUp: { seq: "number" },
      page: { id: "string", messages: "array", last: "boolean" },
      ack: { id: "string", outcome: "string" },
      error: { code: "string", message: "string" },
      ping: { head: "number" },
      goaway: { reconnectAfterMs: "number" },
      presence: { devices: "array" },
      message: { runId: "string", message: "object" },
      "run.queued": { runId: "string", message: "object" },
      "run.started": { runId: "string", messageId: "string" },
      "run.chunk": { runId: "string", part: "number", kind: "string" },
      "run.requested": { runId: "string", request: "object" },
      "run.resolved": { runId: "string", requestId: "string" },
      "steer.accepted": { runId: "string", steerId: "string", parts: "array" },
      "steer.applied": { runId: "string", steerId: "string" },
      "steer.withdrawn": { runId: "string", steerId: "string" },
      "run.ended": { runId: "string", reason: "string" },
    }),
  ),
);
/** @type {Record<string, Shape>} */
const MESSAGE = { id: "string", parts: "array" };
/** @type {Record<string, Shape>} */
const RUN = { runId: "string", status: "string", requests: "array", steers: "array" };

/**
 * Throws TypeError where `message` lacks what the fold builds upon. Unknown types are taken as they are.
 * @param {Record<string, unknown>} message
 */
export function checkShape(message) {
  const shape = SHAPES.get(message.type);
  if (shape === undefined) return;
  check(message, shape);
  if (message.type === "snapshot" || message.type === "page") {
    for (const entry of /** @type {any[]} */ (message.messages)) check(entry, MESSAGE);
    // A page has no runs.
    for (const run of /** @type {any[]} */ (message.runs ?? [])) check(run, RUN);
  } else if (message.type === "message") {
    check(/** @type {any} */ (message.message), MESSAGE);
  }
}

/**
 * @param {Record<string, unknown>} value
 * @param {Record<string, Shape>} shape
 */
function check(value, shape) {
  for (const field in shape) {
    const found = value[field];
    const is = Array.isArray(found) ? "array" : found === null ? "null" : typeof found;
    if (is !== shape[field]) throw new TypeError(`${field} is ${is}`);
  }
}
