/** What may keep a command from its reply: a page that ends early, another person, a value that no server takes. */

import assert from "node:assert/strict";
import test from "node:test";
import { Page, rest, TabStorage, until } from "./fakes.js";
import { Server } from "./server.js";

test("whose command it is stays known when the page ends before the reply, also of one given before the contact", async () => {
  const server = new Server();
  server.loses.add("send");
  const tab = new TabStorage();
  const first = new Page().open(server, { storage: tab });
  first.send("I am ana", { runId: "r-1" });
  await first.live();
  server.principal = "bo"; // and the first page crashes here
  const second = await new Page().live(server, { storage: tab.copy() });
  assert.equal(server.received("send").length, 1);
  assert.equal(second.view.pending.length, 0);
  first.close();
  second.close();
});

test("a stop given before the storage was read prevents the run whose send is found there", async () => {
  const server = new Server();
  server.loses.add("send");
  const tab = new TabStorage();
  const first = await new Page().live(server, { storage: tab });
  first.send("Hi", { runId: "r-1" });
  first.send("Ho", { runId: "r-2" });
  first.close();
  const second = new Page().open(server, { storage: tab.copy() });
  second.cancel("r-1");
  second.cancel("r-2", { ifUnknown: "ignore" });
  second.cancel("r-3");
  await until(() => server.received("cancel").length === 3);
  assert.deepEqual(
    server.received("cancel").map(({ ifUnknown }) => ifUnknown),
    ["prevent", "ignore", undefined],
  );
  second.close();
});

test("a command that only a server with larger limits takes waits in the storage until a server says its own", async () => {
  const server = new Server();
  server.loses.add("send");
  server.frameBytes = 4_194_304;
  const tab = new TabStorage();
  const first = await new Page().live(server, { storage: tab });
  first.send("x".repeat(2_000_000), { runId: "r-1" });
  first.close();
  server.loses.clear();
  const second = await new Page().live(server, { storage: tab.copy() });
  await rest();
  assert.equal(second.run("r-1").status, "running");
  second.close();
});

/** @param {number} depth */
const nested = (depth) => JSON.parse("[".repeat(depth) + "]".repeat(depth));

for (const [what, value] of /** @type {[string, unknown][]} */ ([
  ["a list of more than 1,024", Array.from({ length: 1_025 }, () => 0)],
  ["an object of more than 1,024", Object.fromEntries(Array.from({ length: 1_025 }, (_, n) => [`k${n}`, n]))],
  ["more than 32 levels", nested(32)],
  ["more than 8,192 values", Array.from({ length: 9 }, () => Array.from({ length: 1_000 }, () => 0))],
  ["an integer that no double holds", { deep: [2 ** 53] }],
])) {
  test(`a command with ${what} is refused here: the server's refusal could not name it`, async () => {
    const server = new Server();
    const session = await new Page().live(server);
    await assert.rejects(session.answer("r-1", "q-1", value), { code: "invalid" });
    assert.equal(session.view.pending.length, 0);
    assert.equal(server.received("answer").length, 0);
    session.close();
  });
}

test("a command at the bounds is sent as it is", async () => {
  const server = new Server();
  const session = await new Page().live(server);
  const values = [Array.from({ length: 1_024 }, () => 0), nested(31), [2 ** 53 - 1, 1e300, 0.5, null, true]];
  for (const value of values) await session.answer("r-1", "q-1", value);
  assert.deepEqual(
    server.received("answer").map(({ value }) => value),
    values,
  );
  session.close();
});
