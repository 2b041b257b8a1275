import assert from "node:assert/strict";
import test from "node:test";
import { Page, rest, until } from "./fakes.js";
import { Server } from "./server.js";

test("the server is asked for the session, in JSON", async () => {
  const server = new Server();
  const session = await new Page().live(server, { session: "a:b" });
  assert.equal(server.socket.url, "ws://server.test/v1/sessions/a%3Ab");
  assert.deepEqual(server.socket.protocols, ["holdfast.v1.json"]);
  session.close();
});

test("without a server it tries again and again, says when, and connects in the end", async () => {
  const server = new Server();
  server.network = "refused";
  const page = new Page();
  const session = page.open(server);
  assert.equal(session.status, "connecting");
  await until(() => session.status === "offline");
  const { nextAttemptAt, error } = session.view;
  assert.equal(error?.code, "connection_failed");
  assert.equal(error?.retryable, true);
  assert.equal(nextAttemptAt, page.clock.unixTime() + 250, "half of the first bound, by the fake chance");
  await page.clock.advance(100);
  page.clock.setBy = 3;
  assert.equal(session.view.nextAttemptAt, nextAttemptAt, "it does not move with the clocks");
  await page.clock.advance(60_000);
  assert.ok(server.sockets.length > 3);
  server.network = "up";
  await page.clock.advance(30_000);
  assert.equal(session.status, "live");
  assert.equal(session.view.error, null);
  assert.equal(session.view.nextAttemptAt, null);
  session.close();
});

test("a socket that neither opens nor fails is dropped after ten seconds, and what it says later is not heard", async () => {
  const server = new Server();
  server.network = "silent";
  const page = new Page();
  const session = page.open(server);
  await rest();
  const stale = server.socket;
  await page.clock.advance(9_999);
  assert.equal(session.status, "connecting");
  await page.clock.advance(1);
  assert.equal(session.status, "offline");
  stale.onopen?.({});
  stale.onmessage?.({ data: "[]" });
  stale.onclose?.({ code: 4500, reason: "" });
  assert.equal(session.status, "offline");
  assert.equal(session.view.error?.message, "The server said nothing in time.");
  session.close();
});

test("a half-open connection is noticed after two heartbeats of silence, without waiting for its close", async () => {
  const server = new Server();
  server.start("r-1");
  const page = new Page();
  const session = await page.live(server);
  const first = server.socket;
  server.network = "silent";
  server.text("r-1", "unheard");
  await page.clock.advance(2 * server.heartbeatMs - 1);
  assert.equal(session.status, "live");
  await page.clock.advance(1);
  assert.equal(session.status, "offline");
  server.network = "up";
  await page.clock.advance(1_000);
  assert.equal(session.status, "live");
  assert.equal(session.run("r-1").text, "unheard");
  first.onclose?.({ code: 1006, reason: "" });
  await rest();
  assert.equal(session.status, "live", "the late close of a socket given up says nothing");
  session.close();
});

test("a heartbeat beyond what timers can wait keeps the connection, and is waited for in pieces", async () => {
  const server = new Server();
  server.heartbeatMs = 2 ** 30 + 60_000;
  const page = new Page();
  const session = await page.live(server);
  await page.clock.advance(2 * server.heartbeatMs - 1);
  assert.equal(session.status, "live");
  await page.clock.advance(1);
  assert.equal(session.status, "offline");
  session.close();
});

test("heartbeats keep a quiet connection, and are replied to", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  for (let beats = 0; beats < 5; beats += 1) {
    await page.clock.advance(server.heartbeatMs);
    server.broadcast({ type: "ping", head: 0 });
    await rest();
  }
  assert.equal(server.sockets.length, 1);
  assert.equal(server.frames.filter((frame) => frame === '{"type":"pong"}').length, 5);
  session.close();
});

for (const wake of [
  (/** @type {Page} */ page) => page.happens("online"),
  (/** @type {Page} */ page) => page.happens("pageshow"),
  (/** @type {Page} */ page) => page.becomes("visible"),
]) {
  test(`a page that wakes up connects at once (${String(wake).replace(/^.*=> page./, "")})`, async () => {
    const server = new Server();
    const page = new Page();
    const session = await page.live(server);
    server.network = "refused";
    server.cut();
    await page.clock.advance(20_000);
    assert.equal(session.status, "offline");
    server.network = "up";
    wake(page);
    await page.clock.advance(0);
    assert.equal(session.status, "live");
    session.close();
  });
}

test("a page that wakes up notices within five seconds that its connection is dead", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  page.becomes("visible");
  await rest();
  await page.clock.advance(5_000);
  assert.equal(server.sockets.length, 1, "a server that is heard keeps its connection");
  server.network = "silent";
  page.becomes("visible");
  await page.clock.advance(5_000);
  assert.equal(session.status, "offline");
  session.close();
});

test("a page that wakes up and then hears that its connection is gone connects at once, but once only", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  await page.clock.advance(1_000);
  page.happens("pageshow"); // out of the back/forward cache the news of the socket come after it
  server.network = "refused";
  server.cut();
  await page.clock.advance(0);
  assert.equal(server.sockets.length, 2);
  await page.clock.advance(0);
  assert.equal(server.sockets.length, 2, "the next try waits");
  server.network = "up";
  await page.clock.advance(1_000);
  assert.equal(session.status, "live");
  session.close();
});

test("a page that wakes up and is gone away from comes back no earlier than the server wished", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  server.broadcast({ type: "goaway", reason: "draining", reconnectAfterMs: 3_000 });
  await rest();
  server.network = "silent";
  page.happens("pageshow");
  server.network = "up";
  server.cut();
  await page.clock.advance(2_999);
  assert.equal(server.sockets.length, 1);
  await page.clock.advance(1);
  assert.equal(session.status, "live");
  session.close();
});

test("a token function that has none gives null, and hello has no token", async () => {
  const server = new Server();
  const session = await new Page().live(server, { token: () => null });
  assert.equal("token" in (server.received("hello")[0] ?? {}), false);
  session.close();
});

test("when the browser says that there is no network, the connection is given up at once", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  server.network = "silent";
  page.happens("offline");
  assert.equal(session.status, "offline");
  server.network = "up";
  page.happens("online");
  await page.clock.advance(0);
  assert.equal(session.status, "live");
  session.close();
});

test("a sleeping or closed session does not wake up with its page", async () => {
  const server = new Server();
  const page = new Page();
  const session = await page.live(server);
  session.suspend();
  page.happens("online");
  page.becomes("visible");
  session.close();
  page.happens("online");
  await page.clock.advance(60_000);
  assert.equal(server.sockets.length, 1);
});

test("the token is asked for at every connect, and a new one is used after the old has expired", async () => {
  const server = new Server();
  server.token = "t-1";
  let asked = 0;
  const page = new Page();
  const token = async () => {
    asked += 1;
    return `t-${asked}`;
  };
  const session = await page.live(server, { token });
  server.token = "t-2";
  server.socket.drop(4002, "token expired");
  await page.clock.advance(1_000);
  assert.equal(session.status, "live");
  assert.deepEqual(
    server.received("hello").map((hello) => hello.token),
    ["t-1", "t-2"],
  );
  session.close();
});

test("a token that cannot be had, now or in time, is asked for again", async () => {
  const server = new Server();
  const page = new Page();
  const given = [
    () => {
      throw new Error("signed out");
    },
    () => Promise.reject(new Error("no network")),
    () => /** @type {Promise<string>} */ (new Promise(() => {})),
    () => "good",
  ];
  const session = page.open(server, { token: () => /** @type {() => string} */ (given.shift())() });
  await until(() => session.status === "offline");
  assert.match(session.view.error?.message ?? "", /signed out/);
  await page.clock.advance(1_000);
  assert.equal(server.sockets.length, 0);
  await page.clock.advance(40_000);
  assert.equal(session.status, "live");
  assert.equal(server.received("hello")[0]?.token, "good");
  session.close();
});

test("a token that comes after the session was closed or put to sleep opens nothing", async () => {
  const server = new Server();
  for (const end of [/** @type {const} */ ("close"), /** @type {const} */ ("suspend")]) {
    const page = new Page();
    /** @type {((token: string) => void) | null} */
    let give = null;
    const session = page.open(server, {
      token: () =>
        new Promise((resolve) => {
          give = resolve;
        }),
    });
    await until(() => give !== null);
    session[end]();
    /** @type {any} */ (give)("late");
    await rest();
    assert.equal(server.sockets.length, 0);
    assert.equal(page.clock.timers, 0);
  }
});

test("frames that are no messages end the connection, and the next one goes on from the same place", async () => {
  const server = new Server();
  server.start("r-1");
  const page = new Page();
  const session = await page.live(server);
  for (const data of ["{", new ArrayBuffer(2)]) {
    server.socket.onmessage?.({ data });
    assert.equal(session.status, "offline");
    await page.clock.advance(1_000);
    assert.equal(session.status, "live");
    assert.deepEqual(server.received("hello").at(-1)?.cursor, { epoch: "E1", seq: 2, at: 1_002 });
  }
  session.close();
});

test("a browser that will not open a socket at all ends the session, with its words", async () => {
  const server = new Server();
  class Insecure {
    constructor() {
      throw new DOMException("insecure from a secure page", "SecurityError");
    }
  }
  const page = new Page();
  const session = page.open(server, { WebSocket: /** @type {any} */ (Insecure) });
  await assert.rejects(session.live(), { code: "connection_failed", retryable: false, message: /insecure/ });
  assert.equal(page.clock.timers, 0);
});
