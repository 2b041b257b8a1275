import assert from "node:assert/strict";
import test from "node:test";
import { LINGER_MS } from "../../../client/browser/holdfast/client.js";
import { ClientClosedError } from "../../../client/browser/holdfast/core/errors.js";
import { collect, Page, rest, until } from "./fakes.js";
import { Server } from "./server.js";

test("a session catches up, and its view shows what the log means", async () => {
  const server = new Server();
  server.start("r-1", "Hi");
  server.text("r-1", "One ", "two");
  const session = await new Page().live(server, { device: "phone" });
  const { view } = session;
  assert.equal(view.status, "live");
  assert.equal(view.principal, "ana");
  assert.equal(view.device, "phone");
  assert.deepEqual(view.position, { epoch: "E1", seq: 4 });
  assert.deepEqual(
    view.messages.map(({ role, parts }) => [role, parts[0]]),
    [
      ["user", { kind: "text", text: "Hi" }],
      ["assistant", { kind: "text", text: "One two" }],
    ],
  );
  assert.equal(view.runs[0]?.status, "running");
  session.close();
});

test("the view and its members stay the same objects until they change", async () => {
  const server = new Server();
  server.start("r-1");
  const session = await new Page().live(server);
  const before = session.view;
  assert.equal(session.view, before);
  server.broadcast({ type: "ping", head: server.head });
  await rest();
  assert.equal(session.view, before, "a heartbeat changes nothing");
  server.text("r-1", "a");
  await until(() => session.position.seq === 3);
  const after = session.view;
  assert.notEqual(after, before);
  assert.equal(after.messages[0], before.messages[0], "the message of the user did not change");
  assert.notEqual(after.messages[1], before.messages[1]);
  assert.equal(after.runs, before.runs);
  assert.equal(after.presence, before.presence);
  assert.equal(after.pending, before.pending);
  session.close();
});

test("listeners hear of each frame once, however many events it has, with a view that has them all", async () => {
  const server = new Server();
  server.start("r-1");
  const session = await new Page().live(server);
  /** @type {unknown[]} */
  const heard = [];
  session.subscribe(({ events, reset }) =>
    heard.push([events.map(({ seq }) => seq), reset, session.view.position.seq, session.run("r-1").text]),
  );
  server.text("r-1", "a", "b", "c");
  server.text("r-1", "d");
  await rest();
  assert.deepEqual(heard, [
    [[3, 4, 5], false, 5, "abc"],
    [[6], false, 6, "abcd"],
  ]);
  session.close();
});

test("a listener that throws, unsubscribes or closes disturbs nobody", async (t) => {
  const server = new Server();
  server.start("r-1");
  const session = await new Page().live(server);
  /** @type {unknown[]} */
  const reported = [];
  const reportTo = /** @type {any} */ (globalThis);
  reportTo.reportError = (/** @type {unknown} */ error) => reported.push(error);
  t.after(() => delete reportTo.reportError);
  const broken = new Error("mine");
  let last = "";
  let heardTooLate = false;
  session.subscribe(() => {
    throw broken;
  });
  const stop = session.subscribe(() => {
    stop();
    gone();
  });
  const gone = session.subscribe(() => {
    heardTooLate = true;
  });
  session.subscribe(() => {
    last = session.view.status;
    session.close();
  });
  server.text("r-1", "a");
  await until(() => last === "closed");
  assert.equal(reported[0], broken);
  assert.equal(heardTooLate, false, "it was unsubscribed before its turn");
});

test("a command tells listeners after its call, and shows among the pending until it has its reply", async () => {
  const server = new Server();
  const session = await new Page().live(server);
  server.network = "silent";
  let inCall = true;
  /** @type {string[][]} */
  const pending = [];
  session.subscribe(() => {
    assert.equal(inCall, false);
    pending.push(session.view.pending.map(({ type }) => type));
  });
  session.send("Hi");
  session.history().catch(() => {});
  session.cancel("r-0");
  inCall = false;
  await rest();
  assert.deepEqual(pending, [["send", "cancel"]], "a question is nobody's business but who asked it");
  session.close();
});

test("a stop pressed before the first chunk ends the run that its send began", async () => {
  const server = new Server();
  const session = await new Page().live(server);
  const run = session.send("Hi");
  const stopped = run.cancel();
  assert.equal((await stopped).outcome, "cancelled");
  assert.equal((await run.accepted)?.outcome, "started");
  assert.equal(server.received("cancel")[0]?.ifUnknown, "prevent");
  const { reason, cause, by, text } = await run.ended();
  assert.deepEqual([reason, cause, by, text], ["cancelled", "user", "ana", ""]);
  session.close();
});

test("a stop of a send that was lost prevents the run", async () => {
  const server = new Server();
  const session = await new Page().live(server);
  server.loses.add("send");
  const run = session.send("Hi");
  const { outcome } = await run.cancel();
  assert.equal(outcome, "cancelled");
  server.loses.clear();
  server.cut();
  const page = session.live();
  await until(() => session.status === "offline");
  session.suspend();
  session.resume();
  await page;
  assert.equal((await run.accepted)?.outcome, "ended");
  assert.deepEqual((await run.ended()).cause, "prevented");
  assert.equal(run.status, "ended");
  assert.equal(server.received("send")[0]?.id, run.id);
  assert.equal(
    server.log.some(({ type }) => type === "run.started"),
    false,
  );
  session.close();
});

test("a stop pressed offline is sent when the connection is back, with what was seen when it was pressed", async () => {
  const server = new Server();
  server.start("r-1");
  server.text("r-1", "One ");
  const page = new Page();
  const session = await page.live(server);
  session.subscribe(() => {});
  server.text("r-1", "two ");
  await until(() => session.position.seq === 4);
  server.network = "refused";
  server.cut();
  await until(() => session.status === "offline");
  const stopped = session.run("r-1").cancel();
  server.text("r-1", "three");
  await until(() => session.view.pending.length === 1);
  server.network = "up";
  await page.clock.advance(1_000);
  assert.equal((await stopped).outcome, "cancelled");
  assert.deepEqual(server.received("cancel")[0]?.seen, { epoch: "E1", seq: 4 });
  assert.equal(server.received("cancel")[0]?.ifUnknown, undefined);
  assert.equal(session.run("r-1").text, "One two ");
  session.close();
});

test("a stop pressed twice, and one of a run that has ended, are outcomes and no errors", async () => {
  const server = new Server();
  server.start("r-1");
  const session = await new Page().live(server);
  const run = session.run("r-1");
  const [first, second] = await Promise.all([run.cancel(), run.cancel()]);
  assert.equal(first.outcome, "cancelled");
  assert.equal(second.outcome, "already_ended");
  assert.equal(second.reason, "cancelled");
  assert.equal((await session.cancel("r-404")).outcome, "unknown_run");
  session.close();
});

test("a stop says what listeners were told of last, and nothing where there were none", async () => {
  const server = new Server();
  server.start("r-1");
  const session = await new Page().live(server);
  server.text("r-1", "a");
  await until(() => session.position.seq === 3);
  assert.equal(session.run("r-1").seen, null, "nobody has looked");
  const stop = session.subscribe(() => {});
  server.text("r-1", "b");
  await until(() => session.position.seq === 4);
  assert.equal(session.run("r-1").seen?.seq, 4);
  stop();
  server.text("r-1", "c");
  await until(() => session.position.seq === 5);
  assert.equal(session.run("r-1").seen?.seq, 4, "nobody listened to the last one");
  session.run("r-1").cancel({ seen: null });
  session.run("r-1").cancel();
  await until(() => server.received("cancel").length === 2);
  assert.deepEqual(
    server.received("cancel").map(({ seen }) => seen?.seq),
    [undefined, 4],
  );
  assert.equal(session.view.position.seq >= 5, true);
  assert.equal(session.run("r-1").seen?.seq, session.position.seq, "now it was looked at");
  session.close();
});

test("neither closing nor suspending says anything about a run", async () => {
  const server = new Server();
  server.start("r-1");
  const page = new Page();
  const session = await page.live(server);
  const sent = server.frames.length;
  session.suspend();
  await rest();
  assert.equal(session.status, "offline");
  assert.equal(session.view.nextAttemptAt, null);
  assert.equal(page.clock.timers, 0);
  server.text("r-1", "meanwhile");
  session.resume();
  await session.live();
  assert.equal(session.run("r-1").text, "meanwhile");
  session.close();
  await rest();
  assert.deepEqual(
    server.frames.slice(sent).map((frame) => JSON.parse(frame).type),
    ["hello"],
  );
  assert.equal(server.runs.get("r-1")?.status, "running");
});

test("after closing no timer is left, whoever waits is told, and nothing can be sent", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  server.network = "silent";
  const run = session.send("Hi");
  const stopped = session.cancel("r-0");
  const { all } = collect(run);
  const ended = run.ended();
  const events = collect(session.events());
  session.close();
  assert.equal(session.status, "closed");
  for (const waits of [ended, all, events.all, session.live(), session.send("Again").accepted]) {
    await assert.rejects(async () => waits, ClientClosedError);
  }
  await page.clock.advance(LINGER_MS);
  await assert.rejects(async () => stopped, ClientClosedError);
  assert.equal(page.clock.timers, 0);
});

test("what was given is sent before the goodbye, in order, and replied to after the session was closed", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  const { socket } = server;
  server.start("r-1");
  const run = session.send("Hi", { runId: "r-2" });
  const given = [
    session.steer("shorter", { runId: "r-1" }),
    session.withdraw("s-1"),
    session.answer("r-1", "q", true),
    session.cancel("r-1"),
    session.cancelAll(),
  ];
  session.close();
  assert.equal(session.status, "closed");
  const types = ["hello", "send", "steer", "withdraw", "answer", "cancel", "cancel"];
  assert.deepEqual(
    server.frames.map((frame) => JSON.parse(frame).type).filter((type) => type !== "ping"),
    types,
  );
  assert.equal(socket.closedWith, undefined, "it waits for the replies");
  await Promise.all([...given, run.accepted]);
  await rest();
  assert.equal(socket.closedWith, 1000);
  assert.equal(page.clock.timers, 0);
});

test("a cancel given while the server was away is sent when it is back, within the bound, and not before its wish", async () => {
  for (const [afterMs, arrives] of /** @type {const} */ ([
    [0, true],
    [1_900, true],
    [2_100, false],
  ])) {
    const server = new Server();
    const page = new Page();
    const session = await page.live(server);
    server.broadcast({ type: "goaway", reason: "draining", reconnectAfterMs: afterMs });
    await rest();
    server.cut();
    const stopped = session.cancel("r-1");
    session.close();
    session.suspend();
    session.resume();
    await page.clock.advance(Math.max(0, afterMs - 1));
    assert.equal(server.received("cancel").length, afterMs === 0 ? 1 : 0);
    await page.clock.advance(LINGER_MS);
    assert.equal(server.received("cancel").length, arrives ? 1 : 0);
    if (arrives) assert.equal((await stopped).outcome, "unknown_run");
    else await assert.rejects(async () => stopped, ClientClosedError);
    assert.equal(page.clock.timers, 0);
    assert.equal(server.sockets.length, arrives ? 2 : 1);
  }
});

test("a session that is closed waits for no question, and one that sleeps for nothing", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  server.loses.add("history");
  const asked = session.history();
  session.close();
  await assert.rejects(async () => asked, ClientClosedError);
  const asleep = await page.live(server);
  asleep.suspend();
  const stopped = asleep.cancel("r-1");
  asleep.close();
  await assert.rejects(async () => stopped, ClientClosedError);
  assert.equal(page.clock.timers, 0);
  assert.equal(server.received("cancel").length, 0);
});

test("a session that is closed and then refused for good tells its callers why, and leaves no timer", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  server.loses.add("cancel");
  const stopped = session.cancel("r-1");
  session.close();
  server.socket.drop(4505, "by operator");
  await assert.rejects(async () => stopped, { code: "connection_closed" });
  assert.equal(page.clock.timers, 0);
});

test("the rejection of a command that nobody looks at is not reported as unhandled", async (t) => {
  const unhandled = t.mock.fn();
  process.on("unhandledRejection", unhandled);
  t.after(() => process.off("unhandledRejection", unhandled));
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  server.network = "silent";
  session.send("Hi");
  session.cancel("r-0");
  session.send("Hi", { runId: "r-1" });
  session.send("Ho", { runId: "r-1" });
  session.close();
  session.cancel("r-0");
  await page.clock.advance(LINGER_MS);
  assert.equal(unhandled.mock.callCount(), 0);
});

test("what is no command at all is refused at once, by name", async () => {
  const server = new Server();
  const session = await new Page().live(server);
  const wrong = /** @type {any} */ (7);
  assert.throws(() => session.send(wrong), { code: "invalid", path: "$.text" });
  assert.throws(() => session.send("Hi", { runId: "with space" }), { code: "invalid", path: "$.id" });
  await assert.rejects(session.cancel(""), { code: "invalid", path: "$.runId" });
  await assert.rejects(session.steer("Hi", { steerId: "-" }), { path: "$.id" });
  assert.deepEqual(server.received("send"), []);
  session.close();
});

test("an option that is not given is left out, and null counts as not given but for an answer's value", async () => {
  const server = new Server();
  const session = await new Page().live(server);
  session.send("Hi", { runId: "r-1", agent: undefined, seen: null, whenAbandonedMs: 5 });
  session.answer("r-1", "q-1", null);
  await until(() => server.received("answer").length === 1);
  assert.deepEqual(server.received("send"), [
    { type: "send", id: "r-1", text: "Hi", whenAbandoned: { cancelAfterMs: 5 } },
  ]);
  assert.equal(server.received("answer")[0]?.value, null);
  session.close();
});

test("events are told one by one, with what a slow reader has missed", async () => {
  const server = new Server();
  server.start("r-1");
  const session = await new Page().live(server);
  const events = session.events();
  server.text("r-1", ...Array.from({ length: 1_001 }, () => "x"));
  await until(() => session.position.seq === 1_003);
  server.text("r-1", "x"); // another that it misses, before it was told of the first
  await until(() => session.position.seq === 1_004);
  assert.deepEqual((await events.next()).value, { type: "lagged", missed: 2 });
  assert.equal((await events.next()).value?.seq, 5);
  server.epoch = "E2";
  server.cut();
  session.suspend();
  session.resume();
  await session.live();
  let last;
  for (let left = 1_000; left > 0; left -= 1) last = (await events.next()).value;
  assert.equal(last?.type, "reset");
  const waiting = events.next();
  await events.return?.();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  session.close();
});

test("a session that the server refuses for good is closed, with the reason, and asks no more", async () => {
  const server = new Server();
  server.token = "good";
  const page = new Page();
  const session = page.open(server, { token: "bad" });
  const run = session.send("Hi");
  await assert.rejects(session.live(), { code: "connection_closed", closeCode: 4500, reason: "token rejected" });
  await assert.rejects(async () => run.accepted, { code: "connection_closed" });
  assert.equal(session.view.error?.code, "connection_closed");
  await page.clock.advance(60_000);
  assert.equal(server.sockets.length, 1);
});

test("a newer token is given to the server, and used for the next connection", async () => {
  const server = new Server();
  server.token = "old";
  const page = new Page();
  const session = await page.live(server, { token: "old" });
  assert.equal(await session.refreshToken("new"), 2_000);
  server.token = "new";
  server.cut();
  await page.clock.advance(1_000);
  assert.equal(session.status, "live");
  assert.deepEqual(
    server.received("hello").map(({ token }) => token),
    ["old", "new"],
  );
  session.close();
});
