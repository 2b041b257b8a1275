/** The client's state machine, without I/O: phases, time, bounds, close codes. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { MAX_REFUSALS } from "../../../client/browser/holdfast/core/connection.js";
import {
  ClientClosedError,
  CommandError,
  ConnectionClosedError,
  OutboxFullError,
} from "../../../client/browser/holdfast/core/errors.js";
import { Outbox } from "../../../client/browser/holdfast/core/outbox.js";
import { TABLE } from "../../../client/browser/holdfast/core/phases.js";
import { PROBE_MS } from "../../../client/browser/holdfast/core/silence.js";
import { Transcript } from "../../../client/browser/holdfast/core/transcript.js";
import { caughtUp, command, live, make, open, sent, snapshot, tell, tellAt, welcome } from "./wire.js";

/** @import {Connection} from "../../../client/browser/holdfast/core/connection.js" */

const EVENT = { type: "later.kind", seq: 1, at: 1 };

/** @param {Connection} connection */
function onlySettled(connection) {
  const settled = connection.takeSettled();
  assert.equal(settled.length, 1);
  return /** @type {NonNullable<typeof settled[0]>} */ (settled[0]);
}

/** @type {Record<string, unknown>} */
const INPUTS = {
  tail: welcome("tail"),
  reset: welcome("reset"),
  event: { type: "later.kind", seq: 6, at: 6 },
  snapshotPart: snapshot(5, "E", { last: false }),
  snapshotLast: snapshot(5),
  caughtUp: caughtUp(5),
  refusal: { type: "error", code: "malformed", message: "no", retryable: false },
  goaway: { type: "goaway", reason: "draining", reconnectAfterMs: 100 },
  other: { type: "presence", devices: [], total: 0 },
};
/** @type {Record<string, unknown[]>} */
const WAYS = {
  greeting: [],
  snapshot: [welcome("reset")],
  tail: [welcome("tail")],
  live: [welcome("tail"), caughtUp(5)],
  reloading: [welcome("tail"), caughtUp(5), snapshot(5, "E", { last: false })],
};

for (const [phase, row] of Object.entries(TABLE)) {
  for (const [input, message] of Object.entries(INPUTS)) {
    const isTaken = input in row || ["refusal", "goaway"].includes(input);
    test(`${input} in ${phase} is ${isTaken ? "taken" : "lost contact, and folds nothing"}`, () => {
      const connection = make();
      open(connection);
      tell(connection, welcome(), snapshot(5));
      connection.closed(0, 1006);
      open(connection);
      tell(connection, .../** @type {unknown[]} */ (WAYS[phase]));
      assert.equal(connection.lost, null);
      tell(connection, message);
      assert.equal(connection.lost === null, isTaken);
      if (input === "event") assert.equal(connection.position.seq, isTaken ? 6 : 5);
    });
  }
}

test("what is known already costs nothing", () => {
  const connection = live();
  tell(connection, EVENT, EVENT);
  assert.deepEqual(connection.takeNews(), [EVENT]);
  assert.equal(connection.lost, null);
});

for (const [what, message] of Object.entries({
  "an event": { ...EVENT, seq: 3 },
  "a merged event that overlaps": { ...EVENT, seq: 3, from: 1 },
  "a ping": { type: "ping", head: 2 },
  "caught up": caughtUp(2),
  "an ack": { type: "ack", id: "k", outcome: "withdrawn", seq: 2 },
})) {
  test(`${what} beyond what is known is lost contact, and the rest of the frame is not looked at`, () => {
    const connection = live();
    connection.submit(command(), 0);
    tell(connection, EVENT, message, { ...EVENT, seq: 2 });
    assert.notEqual(connection.lost, null);
    assert.equal(connection.position.seq, 1);
    tell(connection, { ...EVENT, seq: 2 });
    assert.equal(connection.position.seq, 1);
  });
}

test("a reply is told also where it names an event that is not here, and contact is lost then", () => {
  const connection = live();
  connection.submit(command("k"), 0);
  tell(connection, { type: "ack", id: "k", outcome: "withdrawn", seq: 3 });
  assert.deepEqual(
    connection.takeSettled().map((settled) => settled.command.id),
    ["k"],
  );
  assert.equal(connection.lost, "events up to 3 are missing");
});

test("the seq of a reply given before is not compared: it may belong to a log that is gone", () => {
  const connection = live();
  connection.submit(command(), 0);
  tell(connection, { type: "ack", id: "k", outcome: "withdrawn", seq: 900, duplicate: true });
  assert.equal(connection.lost, null);
  assert.equal(onlySettled(connection).command.id, "k");
});

test("a connection resumes from the cursor, and the events it missed are news", () => {
  const connection = live();
  tell(connection, EVENT);
  connection.takeNews();
  connection.closed(0, 1006);
  assert.equal(connection.status, "offline");
  open(connection);
  assert.equal(connection.status, "connecting");
  assert.deepEqual(sent(connection), [
    { type: "hello", device: "d", client: "test", messages: 50, cursor: { epoch: "E", seq: 1, at: 1 } },
  ]);
  const missed = { ...EVENT, seq: 4, from: 2, at: 4 };
  tell(connection, welcome("tail", "E", { head: 4 }), missed);
  assert.equal(connection.status, "catching up");
  tell(connection, caughtUp(4));
  assert.equal(connection.status, "live");
  assert.deepEqual(connection.takeNews(), [missed]);
});

test("a snapshot is one reset, which says whether the log is another", () => {
  const connection = make();
  open(connection);
  tell(connection, welcome(), snapshot(3, "E", { last: false }), snapshot(3));
  assert.deepEqual(connection.takeNews(), [{ type: "reset", position: { epoch: "E", seq: 3 }, newEpoch: false }]);
  tell(connection, caughtUp(3), snapshot(9, "F", { reset: true }));
  assert.deepEqual(connection.takeNews(), [{ type: "reset", position: { epoch: "F", seq: 9 }, newEpoch: true }]);
});

test("a snapshot that was not finished is discarded with its connection, and what was known stays in force", () => {
  const connection = live();
  tell(connection, EVENT, snapshot(7, "E", { last: false }));
  connection.closed(0, 1006);
  open(connection);
  assert.deepEqual(sent(connection).at(-1).cursor, { epoch: "E", seq: 1, at: 1 });
  assert.equal(connection.transcript.isPartial, false);
});

test("a state restored from a storage resumes like the connection that it was taken from", () => {
  const transcript = new Transcript();
  const before = live();
  tell(before, EVENT);
  transcript.restore(JSON.parse(JSON.stringify(before.transcript.state())));
  const connection = make({ transcript });
  open(connection);
  assert.deepEqual(sent(connection)[0].cursor, { epoch: "E", seq: 1, at: 1 });
});

for (const [what, message] of Object.entries({
  "a chunk without a run": { type: "run.chunk", seq: 1, at: 1, part: 0, kind: "text" },
  "a start without its message": { type: "run.started", seq: 1, at: 1, runId: "r" },
  "a message that is none": { type: "message", seq: 1, at: 1, runId: "r", message: 7 },
  "a snapshot with a hole": snapshot(5, "E", { messages: [null] }),
  "a snapshot with half a run": snapshot(5, "E", { runs: [{ runId: "r" }] }),
})) {
  test(`${what} is lost contact, and the next hello asks for a snapshot`, () => {
    const connection = live();
    tell(connection, message);
    assert.match(connection.lost ?? "", /a message that is none/);
    connection.closed(0, 1000);
    open(connection);
    assert.ok(!("cursor" in sent(connection)[0]));
    tell(connection, welcome("tail"));
    assert.equal(connection.lost, "a tail of another log");
  });
}

test("a frame that holds no message is lost contact; a later version's control message is nothing", () => {
  for (const type of ["later", "constructor", "__proto__"]) {
    const connection = live();
    tell(connection, { type, words: 1 });
    assert.equal(connection.lost, null);
    tell(connection, "words");
    assert.equal(connection.lost, "a message is an object");
  }
});

test("the next server has ten seconds for its welcome again, however short the last one's heartbeat was", () => {
  const connection = live();
  connection.closed(0, 1006);
  open(connection, 100);
  assert.equal(connection.deadline(), 10_100);
});

test("no welcome for ten seconds, or silence of two heartbeats, is lost contact; offline nothing is due", () => {
  let connection = make();
  assert.equal(connection.deadline(), null);
  open(connection);
  assert.equal(connection.deadline(), 10_000);
  connection.tick(9_999);
  assert.equal(connection.lost, null);
  connection.tick(10_000);
  assert.equal(connection.lost, "the server was not heard in time");
  connection = live();
  assert.equal(connection.deadline(), 2_000);
  tellAt(connection, 1_500, { type: "ping", head: 0 });
  connection.tick(3_499);
  assert.equal(connection.lost, null);
  connection.tick(3_500);
  assert.equal(connection.lost, "the server was not heard in time");
});

test("any number of pings read in one go get one pong", () => {
  const connection = live();
  tell(connection, { type: "ping", head: 0 }, { type: "ping", head: 0 });
  assert.deepEqual(sent(connection), [{ type: "pong" }]);
});

test("after a wake-up the server has five seconds to be heard", () => {
  const slow = { heartbeatMs: 60_000 };
  const connection = make({ jitter: 0.5 });
  open(connection);
  tell(connection, welcome("snapshot", "E", slow), snapshot(), caughtUp());
  connection.takeFrames();
  connection.wake(1_000);
  connection.wake(2_000);
  const [probe, ...others] = sent(connection);
  assert.equal(probe.type, "ping");
  assert.match(probe.id, /^[A-Za-z0-9][A-Za-z0-9._:~-]{0,127}$/);
  assert.deepEqual(others, [], "one question is enough");
  assert.deepEqual(connection.outbox.commands, []);
  assert.equal(connection.deadline(), 1_000 + PROBE_MS);
  tellAt(connection, 3_000, { type: "ack", id: probe.id, outcome: "pong", head: 0 });
  assert.deepEqual(connection.takeSettled(), []);
  assert.equal(connection.deadline(), 3_000 + 120_000);
  connection.wake(50_000);
  connection.tick(50_000 + PROBE_MS);
  assert.notEqual(connection.lost, null);
  connection.closed(60_000, 1006);
  open(connection, 61_000);
  tellAt(connection, 61_000, welcome("tail", "E", slow));
  assert.equal(connection.deadline(), 61_000 + 120_000, "a question dies with its connection");
});

test("a wake-up while offline makes the next connection due now, unless the server asked to be spared", () => {
  const connection = live({ jitter: 0.99 });
  connection.closed(0, 1006);
  assert.ok((connection.reconnectAt ?? 0) > 1);
  connection.wake(1);
  assert.equal(connection.reconnectAt, 1);
  open(connection, 1);
  connection.wake(2);
  assert.equal(connection.reconnectAt, null);
  tellAt(connection, 2, welcome("tail"), { type: "goaway", reason: "draining", reconnectAfterMs: 700 });
  connection.closed(3, 4001);
  connection.wake(10);
  assert.equal(connection.reconnectAt, 703);
  connection.close();
  connection.wake(20);
  assert.equal(connection.reconnectAt, null);
});

test("a connection is not believed in while the browser says that there is no network", () => {
  const offline = make();
  offline.networkGone();
  assert.equal(offline.lost, null);
  const connection = live();
  connection.networkGone();
  assert.notEqual(connection.lost, null);
  connection.closed(0, 1006);
  assert.equal(connection.status, "offline");
});

test("a command that the server holds back is sent again when its time has come, and given up after eight tries", () => {
  const connection = live();
  connection.submit(command(), 0);
  const refused = { type: "error", id: "k", code: "rate_limited", message: "slow", retryable: true };
  let now = 0;
  for (let attempt = 0; attempt < MAX_REFUSALS; attempt++) {
    assert.deepEqual(sent(connection), [command()]);
    tellAt(connection, now, { ...refused, retryAfterMs: 300 });
    assert.equal(connection.deadline(), now + 300);
    connection.tick(now + 299);
    assert.deepEqual(sent(connection), []);
    now += 400;
    connection.tick(now);
  }
  tellAt(connection, now, refused);
  const { error } = onlySettled(connection);
  assert.ok(error instanceof CommandError);
  assert.equal(error.code, "rate_limited");
  assert.ok(error.retryable);
  tellAt(connection, now, refused);
  assert.deepEqual(connection.takeSettled(), []);
});

test("a refusal is an error of its code, also of one that no version knows", () => {
  for (const code of ["conflict", "constructor"]) {
    const connection = live();
    connection.submit(command(), 0);
    tell(connection, { type: "error", id: "k", code, message: "no", retryable: false, path: "$.id" });
    const error = /** @type {CommandError} */ (onlySettled(connection).error);
    assert.ok(error instanceof CommandError);
    assert.deepEqual([error.code, error.message, error.path, error.retryable], [code, "no", "$.id", false]);
  }
});

test("a hint to come back later is honoured once; a connection that was stable starts the backoff anew", () => {
  const connection = make({ jitter: 0.5 });
  const waits = [];
  let now = 0;
  for (const [lasts, hint] of /** @type {[number, number][]} */ ([
    [0, 0],
    [0, 0],
    [0, 7_000],
    [4_999, 0],
    [5_000, 0],
  ])) {
    open(connection, now);
    tellAt(connection, now, welcome(), snapshot(), caughtUp());
    if (hint > 0) tellAt(connection, now, { type: "goaway", reason: "draining", reconnectAfterMs: hint });
    now += lasts;
    connection.closed(now, 4001);
    waits.push((connection.reconnectAt ?? 0) - now);
    now = connection.reconnectAt ?? 0;
  }
  assert.deepEqual(waits, [250, 500, 7_000, 2_000, 250]);
});

for (const [code, final] of /** @type {[number, boolean][]} */ ([
  [4001, false],
  [1006, false],
  [1012, false],
  [1000, true],
  [1009, true],
  [4500, true],
])) {
  test(`close code ${code} ${final ? "ends the client" : "comes back"}; what this side dropped comes back`, () => {
    const connection = live();
    connection.submit(command(), 0);
    connection.closed(0, code, "why");
    assert.equal(connection.reconnectAt === null, final);
    if (final) {
      const { error } = onlySettled(connection);
      assert.ok(error instanceof ConnectionClosedError);
      assert.deepEqual([error.closeCode, error.reason], [code, "why"]);
      assert.throws(() => connection.submit(command("p"), 0), ConnectionClosedError);
      connection.closed(0, 1006);
      assert.equal(connection.status, "closed");
    }
    const dropped = live();
    dropped.undecodable("noise");
    dropped.closed(0, code);
    assert.equal(dropped.status, "offline");
  });
}

test("the server's last words say why it closed for good", () => {
  const connection = make();
  open(connection);
  tell(connection, { type: "error", code: "unauthorized", message: "this token is nobody's", retryable: false });
  connection.closed(0, 4500);
  assert.match(connection.failure?.message ?? "", /this token is nobody's/);
});

test("a connection that could not be opened is tried again, and the outbox waits; closing settles it", () => {
  const connection = make();
  connection.submit(command(), 0);
  connection.opening();
  connection.closed(0, 1006);
  assert.equal(connection.status, "offline");
  assert.deepEqual(connection.outbox.commands, [command()]);
  connection.close();
  assert.ok(onlySettled(connection).error instanceof ClientClosedError);
});

test("unacknowledged commands are sent again after every reconnect, in order, with the same bytes", () => {
  const connection = live();
  const given = { ...command("a"), metadata: { n: 1 } };
  connection.submit(given, 0);
  connection.submit(command("b"), 0);
  const first = connection.takeFrames();
  given.metadata.n = 2;
  connection.closed(0, 1006);
  open(connection);
  connection.takeFrames();
  tell(connection, welcome("tail"));
  assert.deepEqual(connection.takeFrames(), first);
  const kept = JSON.parse(JSON.stringify(connection.outbox.state()));
  const reloaded = make();
  for (const one of kept) reloaded.submit(one, 0);
  open(reloaded);
  reloaded.takeFrames();
  tell(reloaded, welcome());
  assert.deepEqual(reloaded.takeFrames(), first);
});

test("questions are not kept for the next page, and pending commands are the same array until they change", () => {
  const connection = make();
  for (const type of ["history", "auth", "ping"]) connection.submit({ type, id: type }, 0);
  connection.submit(command(), 0);
  assert.deepEqual(connection.outbox.state(), [command()]);
  const { commands } = connection.outbox;
  assert.equal(commands.length, 4);
  assert.equal(connection.outbox.commands, commands);
  connection.submit(command("other"), 0);
  assert.equal(commands.length, 4);
  assert.notEqual(connection.outbox.commands, commands);
});

test("a full outbox and a command over the limit are refused at once; the same command is taken once", () => {
  const connection = live({ outbox: new Outbox({ maxCommands: 2 }) });
  const send = (/** @type {string} */ id, text = "x", fields = {}) => ({ type: "send", id, text, ...fields });
  connection.submit(send("a"), 0);
  connection.submit(send("a"), 0);
  assert.throws(() => connection.submit(send("a", "y"), 0), { code: "conflict" });
  assert.throws(() => connection.submit(send("b", "👋".repeat(1_100)), 0), { code: "too_large" });
  connection.submit(send("b", "x", { runId: "r" }), 0);
  assert.throws(() => connection.submit(send("c"), 0), OutboxFullError);
  assert.deepEqual(
    sent(connection).map(({ id }) => id),
    ["a", "b"],
  );
  assert.deepEqual(
    ["a", "r", "b"].map((runId) => connection.outbox.startsRun(runId)),
    [true, true, false],
  );
  const small = live({ outbox: new Outbox({ maxBytes: 100 }) });
  assert.throws(() => small.submit(send("a", "x".repeat(100)), 0), OutboxFullError);
  small.submit(send("a", "x".repeat(40)), 0);
  tell(small, { type: "ack", id: "a", outcome: "started" });
  small.submit(send("b", "x".repeat(40)), 0);
});

test("a command that waits and is too large for the server found next fails here and is not sent", () => {
  const connection = make();
  connection.submit({ type: "send", id: "big", text: "x".repeat(5_000) }, 0);
  open(connection);
  tell(connection, welcome());
  assert.deepEqual(
    sent(connection).map(({ type }) => type),
    ["hello"],
  );
  assert.equal(onlySettled(connection).error?.code, "too_large");
});

test("half a page of history is dropped with its connection, and asked for again", () => {
  const connection = live();
  const message = { id: "m", role: "user", parts: [], at: 1, seq: 1, after: null, status: "complete" };
  const page = { type: "page", id: "h", messages: [message], more: true, last: false };
  connection.submit({ type: "history", id: "h" }, 0);
  tell(connection, page);
  connection.closed(0, 1006);
  open(connection);
  tell(connection, welcome("tail"), { ...page, last: true });
  assert.deepEqual(onlySettled(connection).reply, { messages: [message], more: true });
  tell(connection, page);
  assert.deepEqual(connection.takeSettled(), []);
});
