/** The shared vectors that concern a client: what a log means, where the client is, when it comes back and how soon. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { backoff } from "../../../client/browser/holdfast/core/backoff.js";
import { mayReconnect } from "../../../client/browser/holdfast/core/close-codes.js";
import { reasonOf, STATUS_OF_REASON, statusOf } from "../../../client/browser/holdfast/core/endings.js";
import { Transcript } from "../../../client/browser/holdfast/core/transcript.js";
import { caughtUp, command, ENDS, live, make, open, sent, snapshot, tell, welcome } from "./wire.js";

/** The frame-level vectors are for readers of frames that are not trusted, which are servers. */
const OF_THE_SERVER = ["codec", "subprotocols", "commands", "hello", "seen", "resume"];

/** @type {Record<string, (case_: any) => void>} by the name of the file; the cases are plain JSON */
const READERS = {
  transcript: ({ in: messages, out }) => {
    const transcript = new Transcript();
    for (const message of messages) fold(transcript, message);
    assert.deepEqual(shown(transcript), out);
    const restored = new Transcript();
    restored.restore(JSON.parse(JSON.stringify(transcript.state())));
    assert.deepEqual(shown(restored), out);
  },

  kept: ({ in: { event, parts, kept }, out }) => {
    const transcript = new Transcript();
    const at = { seq: 9, at: 9, runId: "r" };
    const fields = { id: "a", role: "assistant", at: 1, seq: 1, after: null, runId: "r", status: "streaming" };
    const run = { runId: "r", status: "running", by: "p", device: "d", messageId: "a", requests: [], steers: [] };
    fold(transcript, snapshot(8, "E", { messages: [{ ...fields, parts }], runs: [run] }));
    const steer = { steerId: "s", parts: [], boundary: "now", ifEnded: "return", by: "p", device: "d" };
    if (event === "steer.applied") fold(transcript, { type: "steer.accepted", ...at, ...steer });
    const end = event === "run.ended" ? { reason: "cancelled", returned: [] } : { steerId: "s" };
    fold(transcript, { type: event, ...at, ...end, ...(kept !== null && { kept }) });
    const left = transcript.message("a")?.parts.filter((part) => part.kind !== "steer" || part.steerId !== "s");
    assert.deepEqual(left, out);
  },

  cursor: ({ in: { position, messages }, out }) => {
    const connection = make();
    open(connection);
    if (position !== null) {
      tell(
        connection,
        welcome("snapshot", position.epoch),
        snapshot(position.seq, position.epoch),
        caughtUp(position.seq),
      );
      if (messages[0].type === "welcome") {
        connection.closed(0, 1006);
        open(connection);
      }
    }
    let lostAt = null;
    for (const [number, message] of messages.entries()) {
      tell(connection, message);
      if (connection.lost === null) continue;
      lostAt = number;
      break;
    }
    assert.equal(lostAt, out.lostAt);
    if (lostAt === null) {
      assert.deepEqual(connection.position, out.position);
    } else {
      connection.closed(0, 1006);
      open(connection);
      const { cursor } = sent(connection).at(-1);
      assert.deepEqual(cursor ? { epoch: cursor.epoch, seq: cursor.seq } : null, out.position);
    }
  },

  ends: ({ in: { reason }, out: { status } }) => {
    assert.equal(statusOf(reason), status);
    const transcript = new Transcript();
    const at = { seq: 9, at: 9, runId: "r" };
    const message = {
      id: "a",
      role: "assistant",
      at: 1,
      seq: 1,
      after: null,
      runId: "r",
      status: "streaming",
      parts: [],
    };
    const run = { runId: "r", status: "running", by: "p", device: "d", messageId: "a", requests: [], steers: [] };
    fold(transcript, snapshot(8, "E", { messages: [message], runs: [run] }));
    fold(transcript, { type: "run.ended", ...at, reason, returned: [] });
    assert.deepEqual([transcript.message("a")?.status, transcript.reason("r")], [status, reason]);
    // What the message alone tells is a reason that leaves it so.
    const told = reasonOf(/** @type {any} */ ({ status }));
    assert.equal(statusOf(told ?? ""), status);
  },

  words: ({ in: { field }, out }) => {
    const name = TYPES[field];
    assert.notEqual(name, undefined, `no type for ${field}`);
    const [, words] = WIRE.match(new RegExp(`@typedef \\{("[^}]+")\\} ${name}\n`)) ?? [];
    assert.deepEqual(
      words?.split(" | ").map((word) => JSON.parse(word)),
      out,
    );
  },

  errors: ({ in: { code }, out: { itself } }) => {
    const connection = live();
    const given = command();
    connection.submit(given, 0);
    connection.takeFrames();
    tell(connection, { type: "error", id: given.id, code, message: "no", retryable: itself });
    assert.equal(connection.takeSettled().length, itself ? 0 : 1);
  },

  close_codes: ({ in: { code }, out }) => {
    assert.equal(mayReconnect(code), out.reconnect);
    const connection = make();
    open(connection);
    connection.closed(0, code);
    assert.equal(connection.reconnectAt !== null, out.reconnect);
  },

  backoff: ({ in: { attempt, reconnectAfterMs, random }, out }) => {
    assert.equal(
      backoff(attempt, () => random, reconnectAfterMs),
      out.waitMs,
    );
  },
};

/** What holds the words of a field, by the field. @type {Record<string, string>} */
const TYPES = {
  "send.outcome": "OutcomeOfSend",
  "cancel.outcome": "OutcomeOfCancel",
  "steer.outcome": "OutcomeOfSteer",
  "withdraw.outcome": "OutcomeOfWithdraw",
  "answer.outcome": "OutcomeOfAnswer",
  "send.whenBusy": "WhenBusy",
  "cancel.ifUnknown": "IfUnknown",
  "steer.boundary": "Boundary",
  "steer.ifEnded": "IfEnded",
  "welcome.resume": "Resume",
  "run.status": "RunStatus",
  "message.status": "MessageStatus",
  "request.kind": "RequestKind",
  "run.resolved.outcome": "RequestOutcome",
};
const WIRE = readFileSync(new URL("../../../client/browser/holdfast/core/wire.js", import.meta.url), "utf8");

/**
 * @param {Transcript} transcript
 * @param {any} message
 */
function fold(transcript, message) {
  if (message.type === "snapshot") transcript.load(message);
  else transcript.apply(message);
}

/** @param {Transcript} transcript */
function shown(transcript) {
  return { seq: transcript.seq, messages: transcript.messages(), runs: transcript.runs() };
}

const VECTORS = new URL("../../../protocol/vectors/", import.meta.url);
const table = readFileSync(new URL("README.md", VECTORS), "utf8");

test("every vector is either a client's and read here, or a server's", () => {
  const rows = [...table.matchAll(/^\| (`.*?) \| (server|client|both)/gm)];
  const named = rows.flatMap(([, names, reader]) =>
    [...(names ?? "").matchAll(/`(\w+)`/g)].map(([, name]) => [name, reader]),
  );
  assert.ok(named.length > 0);
  const server = named.filter(([, reader]) => reader === "server").map(([name]) => name);
  const client = named.filter(([, reader]) => reader !== "server").map(([name]) => name);
  assert.deepEqual(new Set(client), new Set(Object.keys(READERS)));
  assert.deepEqual(new Set(server), new Set(OF_THE_SERVER));
});

test("the reasons are those of the shared table", () => {
  assert.deepEqual(Object.keys(STATUS_OF_REASON), Object.keys(ENDS));
});

for (const [name, read] of Object.entries(READERS)) {
  const cases = JSON.parse(readFileSync(new URL(`${name}.json`, VECTORS), "utf8"));
  test(`${name}.json has cases`, () => assert.ok(cases.length > 0));
  for (const case_ of cases) test(`${name}: ${case_.description} (${case_.rule})`, () => read(case_));
}
