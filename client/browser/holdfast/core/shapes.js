/**
 * What is taken for granted of a server's message. The fold would not stop at a field that is not there, but go on with
 * `undefined`, so it is looked for first; lists are not in here, because going through what is none stops by itself.
 */

/** @type {Record<string, string>} */
const FIELDS = {
  welcome: "epoch heartbeatMs",
  snapshot: "epoch seq at",
  goaway: "reconnectAfterMs",
  message: "runId",
  "run.queued": "runId",
  "run.started": "runId messageId",
  "run.chunk": "runId kind part",
  "run.requested": "runId request",
  "run.ended": "runId reason",
  "steer.accepted": "runId steerId parts",
};
/** Of other fields it is "string". @type {Record<string, string>} */
const TYPES = {
  seq: "number",
  at: "number",
  part: "number",
  heartbeatMs: "number",
  reconnectAfterMs: "number",
  request: "object",
  parts: "object",
  requests: "object",
  steers: "object",
};

// A Map: the server's words must not find what objects inherit.
/** @type {Map<unknown, string[]>} */
const REQUIRED = new Map(Object.entries(FIELDS).map(([type, fields]) => [type, fields.split(" ")]));
const MESSAGE = ["id", "parts"];
const RUN = ["runId", "status", "requests", "steers"];

/**
 * Throws TypeError where `message` lacks what the fold builds upon. Unknown types are taken as they are.
 * @param {any} message
 */
export function checkShape(message) {
  check(message, REQUIRED.get(message.type) ?? []);
  if (message.type === "message") check(message.message, MESSAGE);
  if (message.type !== "snapshot" && message.type !== "page") return;
  for (const entry of message.messages) check(entry, MESSAGE);
  for (const run of message.runs ?? []) check(run, RUN); // a page has none
}

/**
 * @param {Record<string, unknown>} value
 * @param {string[]} required
 */
function check(value, required) {
  for (const field of required) {
    const type = value[field] === null ? "null" : typeof value[field];
    if (type !== (TYPES[field] ?? "string")) throw new TypeError(`${field} is ${type}`);
  }
}
