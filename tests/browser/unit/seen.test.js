/** What a stop says was on screen: everything that was handed to the program, in whatever way, and nothing more. */

import assert from "node:assert/strict";
import test from "node:test";
import { Page, rest } from "./fakes.js";
import { Server } from "./server.js";

/** A session that has looked at its view once, before any text of the run `r-1` came. */
async function looked() {
  const server = new Server();
  server.start("r-1");
  const session = await new Page().live(server);
  assert.equal(session.view.position.seq, 2);
  return { server, session, run: session.run("r-1") };
}

test("an event that was taken from the session's events has been seen, one that waits there has not", async () => {
  const { server, session, run } = await looked();
  const events = session.events();
  server.text("r-1", "a", "b", "c");
  await rest();
  assert.equal(run.seen?.seq, 2);
  await events.next();
  await events.next();
  assert.deepEqual(run.seen, { epoch: "E1", seq: 4 });
  server.epoch = "E2";
  server.cut();
  session.suspend();
  session.resume();
  await session.live();
  await events.next();
  await events.next(); // the reset
  assert.deepEqual(run.seen, { epoch: "E2", seq: 5 });
  session.close();
});

test("a reader of events that is behind takes nothing back of what listeners were told", async () => {
  const { server, session, run } = await looked();
  const events = session.events();
  session.subscribe(() => {});
  server.text("r-1", "a", "b", "c");
  await rest();
  await events.next();
  assert.equal(run.seen?.seq, 5);
  session.close();
});

for (const look of /** @type {const} */ (["text", "message"])) {
  test(`a run's ${look} that was looked at has been seen`, async () => {
    const { server, session, run } = await looked();
    server.text("r-1", "a");
    await rest();
    assert.equal(run.seen?.seq, 2);
    assert.ok(run[look]);
    assert.equal(run.seen?.seq, 3);
    server.text("r-1", "b");
    await rest();
    assert.equal(run.seen?.seq, 3);
    session.close();
  });

  test(`a run's ${look} that was looked at while the run is iterated has been seen`, async () => {
    const { server, session, run } = await looked();
    const reader = run[Symbol.asyncIterator]();
    server.text("r-1", "a");
    await reader.next();
    server.text("r-1", "b");
    await rest();
    assert.equal(run.seen?.seq, 3);
    assert.ok(run[look]);
    assert.equal(run.seen?.seq, 4);
    session.close();
  });
}
