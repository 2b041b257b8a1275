import assert from "node:assert/strict";
import test from "node:test";
import { LINGER_MS } from "../../../client/browser/holdfast/client.js";
import { ClientClosedError } from "../../../client/browser/holdfast/core/errors.js";
import { Clock, collect, Locks, Page, rest, TabStorage, until } from "./fakes.js";
import { Server } from "./server.js";

test("a reload in the middle of a run is the same device, and goes on from where it was", async () => {
  const server = new Server();
  const tab = new TabStorage();
  const page = new Page();
  const session = await page.live(server, { storage: tab });
  const run = session.send("Hi");
  await run.accepted;
  server.append(
    { type: "run.chunk", runId: run.id, part: 0, kind: "reasoning", delta: "Hm" },
    { type: "run.chunk", runId: run.id, part: 1, kind: "text", delta: "One " },
  );
  await until(() => run.text === "One ");
  page.happens("pagehide");
  server.append({ type: "run.chunk", runId: run.id, part: 1, kind: "text", delta: "two" });

  const after = await new Page().live(server, { storage: tab.copy() });
  assert.match(after.device ?? "", /^web-[0-9a-f]{8}$/);
  assert.equal(after.device, session.device);
  const cursor = server.received("hello").at(-1)?.cursor;
  assert.equal(cursor.seq, server.head - 1);
  assert.equal(after.run(run.id).text, "One two");
  assert.equal(after.run(run.id).status, "running");
  session.close();
  after.close();
});

test("a reload in the middle of a stop sends the same bytes again, and tells what came of it", async () => {
  const server = new Server();
  server.start("r-1");
  server.text("r-1", "One ");
  const tab = new TabStorage();
  const page = new Page();
  const session = await page.live(server, { storage: tab });
  assert.equal(session.view.status, "live");
  server.loses.add("cancel");
  const run = session.run("r-1");
  run.cancel();
  page.happens("pagehide");
  const reloaded = tab.copy();
  server.loses.clear();

  const after = new Page().open(server, { storage: reloaded });
  /** @type {any[]} */
  const settled = [];
  after.subscribe((change) => settled.push(...change.settled));
  await until(() => settled.length === 1);
  const [first, second, ...others] = server.frames.filter((frame) => frame.includes('"cancel"'));
  assert.equal(second, first);
  assert.deepEqual(others, []);
  assert.equal(settled[0].command.type, "cancel");
  assert.equal(settled[0].reply.outcome, "cancelled");
  assert.deepEqual(JSON.parse(first ?? "").seen, { epoch: "E1", seq: 3 });
  assert.equal(reloaded.parsed(":outbox"), null, "it has its reply");
  session.close();
  after.close();
});

test("a message sent and stopped offline, before a reload, becomes no run", async () => {
  const server = new Server();
  server.network = "refused";
  const tab = new TabStorage();
  const session = new Page().open(server, { storage: tab });
  const run = session.send("Hi");
  run.cancel();
  await until(() => tab.parsed(":outbox")?.commands.length === 2);
  server.network = "up";
  const after = await new Page().live(server, { storage: tab.copy() });
  await until(() => after.view.pending.length === 0);
  assert.equal(after.run(run.id).reason, "cancelled");
  assert.deepEqual(
    server.frames.slice(1).map((frame) => JSON.parse(frame).type),
    ["send", "cancel"],
  );
  session.close();
  after.close();
});

test("a send that an earlier page gave is waited for, and its stop prevents it while it is unacknowledged", async () => {
  const server = new Server();
  server.network = "refused";
  const tab = new TabStorage();
  const session = new Page().open(server, { storage: tab });
  const { id } = session.send("Hi");
  await until(() => tab.parsed(":outbox") !== null);
  const after = new Page().open(server, { storage: tab.copy() });
  await until(() => after.view.pending.length === 1);
  const { all } = collect(after.run(id));
  after.run(id).cancel();
  await until(() => after.view.pending.length === 2);
  assert.equal(after.view.pending[1]?.ifUnknown, "prevent");
  after.close();
  await assert.rejects(all, ClientClosedError);
  session.close();
});

test("closing keeps what has no reply for the next page, and lets go of its slot", async () => {
  const server = new Server();
  const tab = new TabStorage();
  const locks = new Locks();
  const before = new Page({ locks });
  const session = await before.live(server, { storage: tab });
  server.network = "silent";
  const { accepted } = session.send("Hi", { runId: "r-1" });
  session.history().catch(() => {});
  session.close();
  await before.clock.advance(LINGER_MS);
  await assert.rejects(async () => accepted, ClientClosedError);
  server.network = "up";
  const page = new Page({ locks });
  const after = page.open(server, { storage: tab });
  await until(() => after.run("r-1").status === "running");
  assert.equal(after.device, session.device);
  assert.equal(server.received("history").length, 0, "nobody waits for that reply any more");
  after.close();
});

test("what is put to sleep and closed before its storage was read leaves its commands there too", async () => {
  const server = new Server();
  const tab = new TabStorage();
  const locks = new Locks();
  const session = new Page({ locks }).open(server, { storage: tab });
  session.send("Hi", { runId: "r-1" });
  session.suspend();
  session.close();
  await until(() => tab.parsed(":outbox") !== null);
  await until(() => locks.held.size === 0);
  assert.equal(tab.parsed(":outbox").commands[0].id, "r-1");
  assert.equal(server.sockets.length, 0);
});

test("what is closed before its storage was read connects for its commands, and lets go of its slot", async () => {
  const server = new Server();
  const tab = new TabStorage();
  const locks = new Locks();
  const session = new Page({ locks }).open(server, { storage: tab });
  const { accepted } = session.send("Hi", { runId: "r-1" });
  session.close();
  assert.equal((await accepted)?.outcome, "started");
  await until(() => locks.held.size === 0);
  assert.equal(tab.parsed(":outbox"), null);
});

test("a duplicated tab is another device, and leaves the other's commands alone", async () => {
  const server = new Server();
  const locks = new Locks();
  const tab = new TabStorage();
  const clock = new Clock();
  const first = await new Page({ clock, locks }).live(server, { storage: tab });
  server.network = "silent";
  first.send("Hi", { runId: "r-1" });
  const page = new Page({ clock, locks });
  const second = page.open(server, { storage: tab.copy() });
  await rest();
  assert.equal(second.device, null, "it waits: the tab might be a reload, whose predecessor is about to go");
  await page.clock.advance(300);
  assert.notEqual(second.device, first.device);
  assert.equal(second.view.pending.length, 0);
  assert.deepEqual([...locks.held], ["holdfast:server.test:trip:0", "holdfast:server.test:trip:1"]);
  first.close();
  second.close();
  await clock.advance(LINGER_MS);
  assert.deepEqual([...locks.held], []);
});

test("a duplicated tab that is reloaded after the first is gone has its own commands", async () => {
  const server = new Server();
  server.start("r-1");
  const locks = new Locks();
  const tab = new TabStorage();
  const first = await new Page({ locks }).live(server, { storage: tab });
  const copy = tab.copy();
  const page = new Page({ locks });
  const second = page.open(server, { storage: copy });
  await page.clock.advance(300);
  await second.live();
  server.loses.add("cancel");
  second.run("r-1").cancel();
  server.loses.clear();
  first.close();
  second.close();
  await page.clock.advance(LINGER_MS);
  await until(() => locks.held.size === 0);

  const after = await new Page({ locks }).live(server, { storage: copy });
  assert.equal(after.device, second.device);
  await until(() => after.run("r-1").reason === "cancelled");
  after.close();
});

test("what one person asked for is not done in the name of the next in the same tab", async () => {
  const server = new Server();
  const tab = new TabStorage();
  const first = await new Page().live(server, { storage: tab });
  server.loses.add("send");
  first.send("I am ana", { runId: "r-1" });
  first.close();
  server.principal = "bo";

  const second = new Page().open(server, { storage: tab.copy() });
  /** @type {any[]} */
  const settled = [];
  second.subscribe((change) => settled.push(...change.settled));
  await second.live();
  assert.deepEqual(
    settled.map(({ command, error }) => [command.id, error.code]),
    [["r-1", "another_principal"]],
  );
  assert.equal(server.received("send").length, 1);
  assert.equal(second.view.pending.length, 0);
  second.close();
});

test("a reload that is faster than its predecessor's end waits for its slot", async () => {
  const server = new Server();
  const locks = new Locks();
  const tab = new TabStorage();
  const before = await new Page({ locks }).live(server, { storage: tab });
  const after = new Page({ locks }).open(server, { storage: tab.copy() });
  await rest();
  before.close();
  await after.live();
  assert.equal(after.device, before.device);
  after.close();
});

for (const locks of [undefined, null]) {
  test(`two sessions of one page, where its locks are ${locks}, do not share a slot`, async () => {
    const server = new Server();
    const tab = new TabStorage();
    const page = new Page({ locks: /** @type {any} */ (locks) });
    const first = await page.live(server, { storage: tab });
    const second = await page.live(server, { storage: tab });
    assert.notEqual(first.device, second.device);
    assert.equal(tab.parsed(":1:device"), second.device);
    first.close();
    second.close();
  });
}

test("records that are damaged, or of another version, count as absent", async () => {
  const server = new Server();
  server.start("r-1");
  for (const broken of ["{", "7", '{"format":2,"value":["x"]}', '{"format":1,"value":[{}]}']) {
    const tab = new TabStorage(
      ["device", "outbox", "state"].map((record) => [`holdfast:server.test:trip:0:${record}`, broken]),
    );
    const session = await new Page().live(server, { storage: tab });
    assert.match(session.device ?? "", /^web-/);
    assert.equal(session.view.runs.length, 1);
    assert.equal(session.view.pending.length, 0);
    session.close();
  }
});

test("what another version has written is neither read as a name nor sent", async () => {
  const server = new Server();
  const tab = new TabStorage([
    ["holdfast:server.test:trip:0:device", '{"format":2,"value":"web-other"}'],
    [
      "holdfast:server.test:trip:0:outbox",
      '{"format":2,"value":{"commands":[{"type":"cancel","id":"k-1","runId":"r-1"}]}}',
    ],
  ]);
  const session = await new Page().live(server, { storage: tab });
  await rest();
  assert.notEqual(session.device, "web-other");
  assert.deepEqual(server.received("cancel"), []);
  session.close();
});

test("a storage that is read too late is not used, and its slot is let go of", async () => {
  const server = new Server();
  const locks = new Locks();
  const tab = new TabStorage();
  /** @type {(value: null) => void} */
  let deliver = () => {};
  const page = new Page({ locks });
  const slow = () => new Promise((resolve) => (deliver = resolve));
  const getItem = (/** @type {string} */ key) => (key.endsWith(":last") ? null : slow());
  const storage = { getItem, setItem: () => assert.fail(), removeItem: () => assert.fail() };
  const session = page.open(server, { storage: /** @type {any} */ (storage) });
  await until(() => locks.held.size === 1);
  await page.clock.advance(2_000);
  await session.live();
  for (let records = 0; records < 3; records += 1) {
    deliver(null);
    await rest();
  }
  assert.equal(locks.held.size, 0);
  await session.send("Hi").accepted;
  assert.equal(tab.entries.size, 0);
  session.close();
});

test("a storage that takes its time is written to in order, and the slot is held until it is done", async () => {
  const server = new Server();
  const locks = new Locks();
  const tab = new TabStorage();
  /** @type {(() => void)[]} */
  const writing = [];
  const write = (/** @type {() => void} */ act) =>
    new Promise((resolve) => {
      assert.equal(writing.length, 0, "one at a time");
      writing.push(() => resolve(act()));
    });
  const storage = {
    getItem: (/** @type {string} */ key) => tab.getItem(key),
    setItem: (/** @type {string} */ key, /** @type {string} */ value) => write(() => tab.setItem(key, value)),
    removeItem: (/** @type {string} */ key) => write(() => tab.removeItem(key)),
  };
  const page = new Page({ locks });
  const session = await page.live(server, { storage });
  server.loses.add("steer");
  session.steer("one", { steerId: "s-1" });
  session.steer("two", { steerId: "s-2" });
  session.close();
  await page.clock.advance(LINGER_MS);
  for (;;) {
    await rest();
    const next = writing.shift();
    if (next === undefined) break;
    assert.equal(locks.held.size, 1);
    next();
  }
  assert.equal(tab.parsed(":outbox")?.commands.length, 2);
  assert.equal(locks.held.size, 0);
});

test("a slot that cannot be read is let go of, and nothing is written to it", async () => {
  const server = new Server();
  const locks = new Locks();
  const tab = new TabStorage();
  tab.getItem = (key) => {
    if (key.endsWith(":outbox")) throw new DOMException("no", "NotReadableError");
    return null;
  };
  const session = await new Page({ locks }).live(server, { storage: tab });
  await session.send("Hi").accepted;
  assert.equal(locks.held.size, 0);
  assert.equal(tab.entries.size, 0);
  session.close();
});

test("a storage that fails, or never comes to an end, costs what it should have kept and nothing else", async () => {
  const server = new Server();
  const no = () => {
    throw new DOMException("no", "QuotaExceededError");
  };
  const refuses = () => Promise.reject(new Error("no"));
  const never = () => /** @type {Promise<never>} */ (new Promise(() => {}));
  const empty = () => null;
  for (const storage of [
    { getItem: no, setItem: no, removeItem: no },
    { getItem: empty, setItem: no, removeItem: no },
    { getItem: refuses, setItem: refuses, removeItem: refuses },
    { getItem: async () => null, setItem: refuses, removeItem: refuses },
    { getItem: never, setItem: never, removeItem: never },
  ]) {
    const page = new Page();
    const session = page.open(server, { storage });
    await rest();
    await page.clock.advance(2_000);
    const run = session.send("Hi");
    await run.accepted;
    server.end(run.id);
    page.happens("pagehide");
    await run.ended();
    session.close();
    await rest();
  }
});

test("where there is no room for both, the commands stay and the folded log goes", async () => {
  const server = new Server();
  server.start("r-1");
  server.text("r-1", "x".repeat(1_000));
  for (const isAsync of [false, true]) {
    const tab = new TabStorage();
    const room = 2_000;
    const setItem = (/** @type {string} */ key, /** @type {string} */ value) => {
      const others = [...tab.entries].filter(([name]) => name !== key);
      if (others.reduce((sum, [, text]) => sum + text.length, value.length) > room) throw new Error("full");
      tab.setItem(key, value);
    };
    const storage = {
      getItem: (/** @type {string} */ key) => tab.getItem(key),
      setItem: isAsync
        ? async (/** @type {string} */ key, /** @type {string} */ value) => setItem(key, value)
        : setItem,
      removeItem: (/** @type {string} */ key) => tab.removeItem(key),
    };
    const page = new Page();
    const session = await page.live(server, { storage });
    page.becomes("hidden");
    await rest();
    assert.equal(tab.parsed(":state")?.seq, session.position.seq);
    server.loses.add("steer");
    session.steer("y".repeat(500));
    session.steer("z");
    await rest();
    assert.equal(tab.parsed(":outbox")?.commands.length, 2);
    assert.equal(tab.parsed(":state"), null);
    session.close();
    await rest();
  }
});

test("a command is in the storage before it is on the wire", async () => {
  const server = new Server();
  const tab = new TabStorage();
  const session = await new Page().live(server, { storage: tab });
  const { socket } = server;
  /** @type {unknown} */
  let stored;
  const send = socket.send.bind(socket);
  socket.send = (frame) => {
    stored ??= tab.parsed(":outbox")?.commands[0].id;
    send(frame);
  };
  const run = session.send("Hi");
  assert.equal(stored, run.id);
  await run.accepted;
  session.close();
});

test("a token is never in the storage", async () => {
  const server = new Server();
  const tab = new TabStorage();
  const page = new Page();
  const session = await page.live(server, { storage: tab, token: "secret" });
  server.network = "silent";
  session.refreshToken("secret").catch(() => {});
  session.send("Hi");
  page.happens("pagehide");
  assert.equal(JSON.stringify([...tab.entries]).includes("secret"), false);
  session.close();
});

test("the state is kept whenever a run ends, so that a crash costs little", async () => {
  const server = new Server();
  server.start("r-1");
  const tab = new TabStorage();
  const session = await new Page().live(server, { storage: tab });
  assert.equal(tab.parsed(":state"), null);
  server.end("r-1");
  await until(() => session.run("r-1").status === "ended");
  assert.equal(tab.parsed(":state")?.seq, 3);
  session.close();
});
