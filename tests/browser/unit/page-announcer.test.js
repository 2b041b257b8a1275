import assert from "node:assert/strict";
import test from "node:test";
import { Narrator } from "../../../client/browser/page/narrator.js";

/** @import {Event} from "../../../client/browser/holdfast/index.js" */

const LONG_AFTER = 1_000_000;

/** A narrator and the events of its session; `told` is every line so far. */
class Listener {
  narrator = new Narrator();
  /** @type {string[]} */
  told = [];
  now = 0;

  /** @param {Record<string, unknown>} event */
  event(event) {
    const taken = /** @type {Event} */ (/** @type {unknown} */ ({ seq: 1, at: 1, ...event }));
    this.told.push(...this.narrator.take(taken, this.now));
  }

  start(runId = "r") {
    this.event({ type: "run.started", runId });
  }

  /**
   * @param {string} delta
   * @param {{runId?: string, part?: number, kind?: string, done?: boolean}} [chunk]
   */
  chunk(delta, chunk = {}) {
    this.event({ type: "run.chunk", runId: "r", part: 0, kind: "text", delta, ...chunk });
  }

  /** @param {Record<string, unknown>} [ending] */
  end(ending = {}) {
    this.event({ type: "run.ended", runId: "r", reason: "completed", returned: [], ...ending });
  }

  /** @param {number} ms */
  wait(ms) {
    this.now += ms;
    this.told.push(...this.narrator.due(this.now));
  }

  /** All that waits is told. */
  hearOut() {
    for (let deadline = this.narrator.deadline; deadline !== null; deadline = this.narrator.deadline) {
      this.wait(deadline - this.now);
    }
  }
}

test("Whole sentences are told in their order, in portions with a rest between them.", () => {
  const listener = new Listener();
  listener.start();
  for (const letter of "One is here. Two is here. Thr") listener.chunk(letter);
  listener.wait(3_999);
  assert.deepEqual(listener.told, ["Writing…"]);
  listener.wait(1);
  assert.deepEqual(listener.told, ["Writing…", "One is here. Two is here."]);
  listener.chunk("ee is here. ");
  listener.wait(4_000);
  assert.equal(listener.told.length, 2, "a sentence that may go on is not told");
  listener.end();
  assert.deepEqual(listener.told.slice(2), ["Three is here.", "Message complete."]);
  assert.equal(listener.narrator.deadline, null);
});

test("What waits is told in time when nothing more comes.", () => {
  const listener = new Listener();
  listener.start();
  listener.chunk("One is here. And");
  assert.equal(listener.narrator.deadline, 4_000);
  listener.hearOut();
  assert.deepEqual(listener.told, ["Writing…", "One is here."]);
});

test("Of a message too fast to be told, whole sentences are left out, which is said once; none are fused.", () => {
  const listener = new Listener();
  const sentences = Array.from({ length: 2_000 }, (_, i) => `Sentence ${i} says that a lost connection ends nothing.`);
  listener.start();
  for (const sentence of sentences) {
    listener.wait(20);
    for (const piece of `${sentence} `.match(/.{1,7}/gs) ?? []) listener.chunk(piece);
  }
  listener.end();
  const told = listener.told.slice(1, -1).join(" ");
  const numbers = [...told.matchAll(/Sentence (\d+) says that a lost connection ends nothing\./g)].map(([, n]) =>
    Number(n),
  );
  assert.ok(numbers.length > 20);
  assert.deepEqual(
    numbers,
    [...numbers].sort((a, b) => a - b),
  );
  const unheard = told
    .replace(/Sentence \d+ says that a lost connection ends nothing\./g, "")
    .replace("Some of this message is left out here; all of it is in the conversation.", "")
    .replaceAll("…", "");
  assert.equal(unheard.trim(), "", "nothing but whole sentences, and that some are left out, once");
});

test("A sentence without an end is left out whole, however long it grows.", () => {
  const listener = new Listener();
  listener.start();
  for (let number = 1; number <= 10_000; number += 1) listener.chunk(`${number} `);
  listener.chunk("end. This is next. Last");
  listener.wait(LONG_AFTER);
  assert.deepEqual(listener.told.slice(1), [
    "Some of this message is left out here; all of it is in the conversation. This is next.",
  ]);
});

test("Another message alongside takes nothing from the first.", () => {
  const listener = new Listener();
  listener.start("a");
  listener.chunk("The first begins. And ", { runId: "a" });
  listener.start("b");
  listener.chunk("The second begins. And ", { runId: "b" });
  listener.chunk("goes on. Still", { runId: "a" });
  listener.hearOut();
  listener.end({ runId: "b" });
  listener.chunk(" more.", { runId: "a" });
  listener.end({ runId: "a" });
  assert.deepEqual(listener.told, [
    "Writing…",
    "Writing another message…",
    "The first begins. And goes on.",
    "Another message: The second begins.",
    "And",
    "Message complete.",
    "Still more.",
    "Message complete.",
  ]);
});

test("Messages beyond a number are told by their beginnings and ends alone.", () => {
  const listener = new Listener();
  for (let number = 0; number < 9; number += 1) {
    listener.start(`r${number}`);
    listener.chunk("Words are here. And", { runId: `r${number}` });
  }
  listener.hearOut();
  assert.equal(listener.told.filter((line) => line.includes("Words are here.")).length, 8);
  listener.end({ runId: "r8" });
  assert.equal(listener.told.at(-1), "Message complete.");
});

test("The number of an item is told with the item, and marks of Markdown are not told.", () => {
  const listener = new Listener();
  listener.start();
  listener.chunk(
    "## Steps\n\n1. **Open** it.\n2. Read [the log](https://example.com/a.b) in `full`\n3. Close it, e.g. by hand.\n4. ",
  );
  listener.wait(4_000);
  assert.equal(listener.told.at(-1), "Steps 1. Open it. 2. Read the log in full 3. Close it, e.g. by hand.");
  listener.end();
  assert.deepEqual(listener.told.slice(2), ["Message complete."]);
});

test("Sentences end in quotation marks and with numbers too, and without spaces where a script has none.", () => {
  const listener = new Listener();
  listener.start();
  listener.chunk("He said “no.” It was 2024. 好。再");
  listener.wait(4_000);
  assert.equal(listener.told.at(-1), "He said “no.” It was 2024. 好。");
});

test("A part is not fused with the one before it.", () => {
  const listener = new Listener();
  listener.start();
  listener.chunk("I look it up");
  listener.chunk("{}", { part: 1, kind: "tool_call" });
  listener.chunk("It is sunny. So", { part: 2 });
  listener.wait(4_000);
  assert.equal(listener.told.at(-1), "I look it up It is sunny.");
});

test("What a message says is told before what it asks for.", () => {
  const listener = new Listener();
  listener.start();
  listener.chunk("I would delete it.");
  listener.event({ type: "run.requested", runId: "r", request: { id: "q", kind: "approval", name: "delete" } });
  assert.deepEqual(listener.told.slice(1), ["I would delete it.", "Approval needed: delete"]);
});

test("A steer is told when it is taken up; of a text that it cuts, what was not told is left out.", () => {
  const listener = new Listener();
  const steer = { type: "steer.accepted", runId: "r", parts: [{ kind: "text", text: "count to 7" }] };
  listener.start();
  listener.event({ ...steer, steerId: "s1" });
  listener.chunk("One is here. Two");
  listener.event({ type: "steer.applied", runId: "r", steerId: "s1" });
  assert.deepEqual(listener.told.slice(1), ["One is here. Two", "Steered: count to 7"]);
  listener.event({ ...steer, steerId: "s2" });
  listener.chunk("Three is here. Four");
  listener.event({ type: "steer.applied", runId: "r", steerId: "s2", kept: [{ part: 0, length: 3 }] });
  assert.deepEqual(listener.told.slice(3), [
    "Some of this message is left out here; all of it is in the conversation.",
    "Steered: count to 7",
  ]);
});

test("What is asked for in a way of a newer server, and an end of its own, are told by their names.", () => {
  const listener = new Listener();
  listener.start();
  listener.event({ type: "run.requested", runId: "r", request: { id: "q", kind: "hand_signature" } });
  listener.event({ type: "run.requested", runId: "r", request: { id: "p", kind: "constructor" } });
  listener.event({ type: "run.ended", runId: "r", reason: "over_budget", returned: [] });
  assert.deepEqual(listener.told.slice(1), [
    "Asked for: hand signature.",
    "Asked for: constructor.",
    "Ended: over budget.",
  ]);
});

test("A message that is stopped is told to be so, and nothing that was cut off is told.", () => {
  const listener = new Listener();
  listener.start();
  listener.chunk("One is here. Two");
  listener.end({ reason: "cancelled", cause: "user", by: "ana", device: "d-1" });
  assert.deepEqual(listener.told, ["Writing…", "Stopped."]);
  assert.equal(listener.narrator.deadline, null);
});

test("A message that fails is told up to there, and why it failed.", () => {
  const listener = new Listener();
  listener.start();
  listener.chunk("So far");
  listener.end({ reason: "failed", error: { code: "agent_error", message: "It broke" } });
  assert.deepEqual(listener.told.slice(1), ["So far", "Failed: It broke (agent_error)."]);
});

test("A message that was underway is told from its next sentence on, and nothing of a log that is gone is told.", () => {
  const listener = new Listener();
  listener.start("old");
  listener.chunk("Old words are here. And", { runId: "old" });
  listener.narrator.forget();
  listener.chunk("dle of it. This is whole. And");
  listener.wait(4_000);
  assert.deepEqual(listener.told.slice(1), [
    "Some of this message is left out here; all of it is in the conversation. This is whole.",
  ]);
});
