import assert from "node:assert/strict";
import test from "node:test";
import { UnknownRunError } from "../../../client/browser/holdfast/core/errors.js";
import { collect, Page, rest, until } from "./fakes.js";
import { Server } from "./server.js";

test("iterating a run yields its text from the beginning, piece by piece, and ends with it", async () => {
  const server = new Server();
  const session = await new Page().live(server);
  const run = session.send("Hi");
  const { now, all } = collect(run);
  await until(() => run.status === "running");
  for (const delta of ["One ", "two ", "three"]) {
    server.text(run.id, delta);
    await rest();
  }
  assert.deepEqual(now, ["One ", "two ", "three"]);
  server.end(run.id);
  assert.deepEqual(await all, ["One ", "two ", "three"]);
  const { reason, text, message, returned } = await run.ended();
  assert.deepEqual([reason, text, message?.status, returned], ["completed", "One two three", "complete", []]);
  session.close();
});

test("a reader that is slow, or comes late, gets what there is as one piece", async () => {
  const server = new Server();
  server.start("r-1");
  server.text("r-1", "One ", "two ");
  const session = await new Page().live(server);
  const reader = session.run("r-1")[Symbol.asyncIterator]();
  assert.equal((await reader.next()).value, "One two ");
  server.text("r-1", "three ");
  server.text("r-1", "four");
  server.end("r-1");
  await until(() => session.run("r-1").status === "ended");
  assert.equal((await reader.next()).value, "three four");
  assert.deepEqual(await reader.next(), { done: true, value: undefined });
  assert.deepEqual(await reader.next(), { done: true, value: undefined });
  session.close();
});

test("breaking out of the iteration lets go of the run, and stops nothing", async () => {
  const server = new Server();
  server.start("r-1");
  server.text("r-1", "One ");
  const session = await new Page().live(server);
  for await (const text of session.run("r-1")) {
    assert.equal(text, "One ");
    break;
  }
  const reader = session.run("r-1")[Symbol.asyncIterator]();
  await reader.next();
  const waiting = reader.next();
  await rest();
  assert.deepEqual(await reader.return?.(), { done: true, value: undefined });
  assert.deepEqual(await waiting, { done: true, value: undefined });
  await rest();
  assert.equal(server.received("cancel").length, 0);
  assert.equal(server.runs.get("r-1")?.status, "running");
  session.close();
});

test("a stop of a run that is iterated keeps what its reader has taken, and what was yielded is not repeated", async () => {
  const server = new Server();
  server.start("r-1");
  server.text("r-1", "One ");
  const session = await new Page().live(server);
  session.subscribe(() => {});
  const run = session.run("r-1");
  const reader = run[Symbol.asyncIterator]();
  await reader.next();
  server.text("r-1", "two ");
  await until(() => session.position.seq === 4);
  assert.equal((await run.cancel()).outcome, "cancelled");
  assert.deepEqual(server.received("cancel")[0]?.seen, { epoch: "E1", seq: 3 });
  assert.equal(run.text, "One ");
  assert.deepEqual(await reader.next(), { done: true, value: undefined });
  session.close();
});

test("a snapshot in between neither repeats nor loses text", async () => {
  const server = new Server();
  server.start("r-1");
  server.text("r-1", "One ");
  const page = new Page();
  const session = await page.live(server);
  const { now, all } = collect(session.run("r-1"));
  await until(() => now.length === 1);
  server.network = "refused";
  server.cut();
  server.text("r-1", "two ");
  server.epoch = "E2";
  server.network = "up";
  await page.clock.advance(1_000);
  server.text("r-1", "three");
  server.end("r-1");
  assert.deepEqual(await all, ["One ", "two ", "three"]);
  session.close();
});

test("a run that another device cut below what was yielded yields nothing twice", async () => {
  const server = new Server();
  server.start("r-1");
  server.text("r-1", "One two three");
  const session = await new Page().live(server);
  const { now, all } = collect(session.run("r-1"));
  await until(() => now.length === 1);
  server.end("r-1", "cancelled", { cause: "user", by: "bo", device: "b", kept: [{ part: 0, length: 3 }] });
  assert.deepEqual(await all, ["One two three"]);
  const { text, by, device, reason } = await session.run("r-1").ended();
  assert.deepEqual([text, by, device, reason], ["One", "bo", "b", "cancelled"]);
  session.close();
});

test("a run older than what is held is found in the history", async () => {
  const server = new Server();
  server.start("r-old");
  server.text("r-old", "Long ago");
  server.end("r-old");
  server.start("r-new");
  server.end("r-new");
  server.trim();
  const session = await new Page().live(server);
  const run = session.run("r-old");
  assert.equal(run.status, "unknown");
  assert.deepEqual(await collect(run).all, ["Long ago"]);
  assert.equal(run.status, "ended");
  assert.equal((await run.ended()).text, "Long ago");
  assert.equal(server.received("history").length, 1, "it is looked for once");
  session.close();
});

test("a run that nobody knows is an error, once the client is live", async () => {
  const server = new Server();
  const session = new Page().open(server);
  await assert.rejects(collect(session.run("r-404")).all, UnknownRunError);
  await assert.rejects(session.run("r-404").ended(), { code: "unknown_run", runId: "r-404" });
  assert.equal(session.run("r-404").accepted, null);
  session.close();
});

test("a run whose send waits for its acknowledgement is waited for, not looked for", async () => {
  const server = new Server();
  server.loses.add("send");
  const page = new Page();
  const session = await page.live(server);
  const run = session.send("Hi");
  const { all } = collect(run);
  await rest();
  assert.equal(run.status, "unknown");
  assert.equal(server.received("history").length, 0);
  server.loses.clear();
  server.cut();
  await page.clock.advance(1_000);
  server.text(run.id, "late");
  server.end(run.id);
  assert.deepEqual(await all, ["late"]);
  session.close();
});

test("a send that was refused is what its run says, to whoever asks", async () => {
  const server = new Server();
  server.start("r-1");
  const session = await new Page().live(server);
  const run = session.send("Hi", { whenBusy: "reject" });
  await assert.rejects(async () => run.accepted, { code: "busy", retryable: true });
  await assert.rejects(collect(run).all, { code: "busy" });
  await assert.rejects(run.ended(), { code: "busy" });
  session.close();
});

test("a send of a run that was prevented long ago has ended, as its acknowledgement says", async () => {
  const server = new Server();
  server.end("r-1", "cancelled", { cause: "prevented", by: "ana", device: "b" });
  server.trim();
  const session = await new Page().live(server);
  const run = session.send("Hi", { runId: "r-1" });
  assert.deepEqual(await collect(run).all, []);
  assert.equal(run.status, "ended");
  const { reason, cause, message, returned } = await run.ended();
  assert.deepEqual([reason, cause, message, returned], ["cancelled", "prevented", null, []]);
  assert.equal(server.received("history").length, 0);
  session.close();
});

test("a send that became a steer is the run it went into", async () => {
  const server = new Server();
  server.start("r-1");
  server.text("r-1", "One ");
  const session = await new Page().live(server);
  const run = session.send("Rather in Portuguese", { whenBusy: "steer" });
  const steerId = run.id;
  const { all } = collect(run);
  assert.equal((await run.accepted)?.outcome, "steered");
  await rest();
  assert.equal(run.id, "r-1");
  assert.equal(session.run("r-1"), run);
  assert.notEqual(session.run(steerId), run, "that id may yet become a run of its own");
  server.end("r-1");
  assert.deepEqual(await all, ["One "]);
  session.close();
});

test("a run is the same object while somebody holds it", async () => {
  const server = new Server();
  const session = await new Page().live(server);
  const run = session.send("Hi");
  assert.equal(session.run(run.id), run);
  await run.accepted;
  assert.equal(session.run(run.id), run);
  session.close();
});

test("who comes after a run has failed, while the snapshot names it, gets its error and usage", async () => {
  const server = new Server();
  const error = { code: "agent_error", message: "The agent failed." };
  server.start("r-1");
  server.text("r-1", "half");
  server.end("r-1", "failed", { error, usage: { tokens: 3 } });
  const session = await new Page().live(server);
  const result = await session.run("r-1").ended();
  assert.deepEqual([result.reason, result.text, result.error, result.usage], ["failed", "half", error, { tokens: 3 }]);
  session.close();
});

test("a run that is held stays the same object when a send turns out to have become its steer", async () => {
  const server = new Server();
  server.start("r-1");
  const session = await new Page().live(server);
  const main = session.run("r-1");
  const sent = session.send("Rather in Portuguese", { whenBusy: "steer" });
  await sent.accepted;
  await rest();
  assert.equal(sent.id, "r-1");
  assert.equal(session.run("r-1"), main);
  session.close();
});

test("before the first contact nothing can have been seen, whatever was looked at", async () => {
  const server = new Server();
  const page = new Page();
  const session = page.open(server);
  const run = session.run("r-1");
  assert.equal(run.text, "");
  assert.equal(run.seen, null);
  await session.live();
  session.close();
});
