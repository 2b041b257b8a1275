/** The fold of a log: the same for who saw it from the beginning, came later, or reloaded its page; and its views. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { firstCodePoints } from "../../../client/browser/holdfast/core/text.js";
import { ENDED_RUNS_KEPT, Transcript } from "../../../client/browser/holdfast/core/transcript.js";
import { makeLog } from "./log.js";
import { snapshot } from "./wire.js";

/** @import {Event} from "../../../client/browser/holdfast/core/wire.js" */

/** A log as a test writes it: what it says, one after the other. */
class Written {
  transcript = new Transcript();

  /** @param {ConstructorParameters<typeof Transcript>[0]} [options] */
  constructor(options) {
    this.transcript = new Transcript(options);
  }

  /**
   * @param {string} type
   * @param {Record<string, unknown>} fields
   */
  say(type, fields) {
    const seq = this.transcript.seq + 1;
    this.transcript.apply(
      /** @type {Event} */ (/** @type {unknown} */ ({ type, seq, at: seq, runId: "r", ...fields })),
    );
    return this;
  }

  start(runId = "r") {
    const user = { id: `u-${runId}`, role: "user", parts: [], by: "p", device: "d", at: 1 };
    this.say("message", { runId, message: user, after: null });
    const names = { runId, messageId: `a-${runId}`, after: `u-${runId}` };
    return this.say("run.started", { ...names, agent: "x", by: "p", device: "d", attempt: 1, node: "n" });
  }

  /** @param {Record<string, unknown>} [fields] */
  chunk(delta = "", fields = {}) {
    return this.say("run.chunk", { part: 0, kind: "text", delta, ...fields });
  }

  /** @param {Record<string, unknown>} [fields] */
  end(reason = "completed", fields = {}) {
    return this.say("run.ended", { reason, returned: [], ...fields });
  }
}

/** @param {Event[]} events */
function folded(events) {
  const transcript = new Transcript();
  for (const event of events) transcript.apply(event);
  return transcript;
}

/** @param {Transcript} transcript */
function shown(transcript) {
  return structuredClone(transcript.state());
}

/**
 * Everything a reader is shown at this moment, by identity and by value.
 * @param {Transcript} transcript
 */
function held(transcript) {
  const views = [transcript.messages(), transcript.runs(), transcript.position];
  return { views, values: structuredClone(views) };
}

for (let seed = 1; seed <= 60; seed++) {
  test(`log ${seed}: what was handed out is never changed, and is the same object until it shows something else`, () => {
    const transcript = new Transcript();
    /** @type {ReturnType<typeof held>[]} */
    const handed = [];
    for (const event of makeLog(seed, 60)) {
      const before = held(transcript);
      handed.push(before);
      transcript.apply(event);
      for (const [now, was] of /** @type {[any[], any[]][]} */ ([
        [transcript.messages(), before.views[0]],
        [transcript.runs(), before.views[1]],
      ])) {
        for (const one of now) {
          const same = was.find((other) => keyOf(other) === keyOf(one));
          if (same === undefined) continue;
          if (one.runId !== /** @type {any} */ (event).runId) assert.equal(one, same, `at ${event.seq}`);
          for (const [number, part] of (one.parts ?? []).entries()) {
            if (event.type === "run.chunk" && number !== event.part) assert.equal(part, same.parts[number]);
          }
        }
        const different = now.length !== was.length || now.some((one, index) => one !== was[index]);
        assert.equal(now !== was, different, `an array at ${event.seq}`);
      }
    }
    for (const { views, values } of handed) assert.deepEqual(views, values);
  });

  test(`log ${seed}: a state kept anywhere, as JSON, folds on to the same`, () => {
    const events = makeLog(seed, 60);
    const whole = shown(folded(events));
    for (let cut = 0; cut <= events.length; cut++) {
      const late = new Transcript();
      late.restore(JSON.parse(JSON.stringify(folded(events.slice(0, cut)).state())));
      for (const event of events.slice(cut)) late.apply(event);
      assert.deepEqual(shown(late), whole, `kept after ${cut}`);
    }
  });

  test(`log ${seed}: a snapshot anywhere and the rest of the log are the whole log`, () => {
    const events = makeLog(seed, 60);
    const whole = folded(events);
    for (let cut = 0; cut <= events.length; cut += 7) {
      const source = folded(events.slice(0, cut));
      const { messages, runs } = source.state();
      const late = new Transcript();
      const half = Math.floor(messages.length / 2);
      const first = snapshot(source.seq, "E", { messages: messages.slice(0, half), last: false });
      const last = snapshot(source.seq, "E", { messages: messages.slice(half), runs });
      assert.equal(late.load(/** @type {any} */ (first)), null);
      assert.deepEqual(late.load(/** @type {any} */ (last))?.position, { epoch: "E", seq: source.seq });
      for (const event of events.slice(cut)) late.apply(event);
      assert.deepEqual([late.messages(), late.runs()], [whole.messages(), whole.runs()], `cut after ${cut}`);
    }
  });
}

/** @param {{id?: string, runId?: string}} view of a message or a run */
function keyOf({ id, runId }) {
  return id ?? runId;
}

test("a chunk that says nothing, or comes out of place, changes no view", () => {
  const written = new Written().start().chunk("One ");
  const before = written.transcript.messages();
  written.chunk("").chunk("", { done: true }).chunk("x", { part: 7 }).chunk("x", { runId: "other" });
  written.say("later.kind", {});
  assert.equal(written.transcript.messages(), before);
  assert.equal(written.transcript.seq, 8);
});

test("an ended message keeps its parts, and its run its end", () => {
  const { transcript } = new Written()
    .start()
    .chunk("One")
    .end("cancelled", { by: "ana", device: "web", cause: "user", usage: {}, returned: [{ steerId: "s", parts: [] }] });
  const ending = { reason: "cancelled", cause: "user", returned: [{ steerId: "s", parts: [] }] };
  assert.deepEqual(transcript.ending("r"), { runId: "r", by: "ana", device: "web", ...ending });
  const { reason, cause, returned, by } = /** @type {any} */ (transcript.run("r"));
  assert.deepEqual({ reason, cause, returned }, ending);
  assert.equal(by, "p", "who sent it stays");
  assert.equal(transcript.messageOf("r")?.status, "interrupted");
  transcript.load(/** @type {any} */ (snapshot(4, "E", { messages: transcript.messages(), runs: transcript.runs() })));
  assert.equal(transcript.ending("r")?.by, "ana", "a snapshot does not tell who ended it, and takes it from nobody");
});

test("a cut counts code points, and lone surrogates do not break it", () => {
  for (const [text, length, left] of /** @type {[string, number, string][]} */ ([
    ["a😀b", 2, "a😀"],
    ["a😀b", 3, "a😀b"],
    ["a😀b", 9, "a😀b"],
    ["👩‍💻", 1, "👩"],
    ["x", 0, ""],
    ["\ud83dx", 1, "\ud83d"],
    ["\udc00\udc00y", 2, "\udc00\udc00"],
    ["a\ud83d", 5, "a\ud83d"],
  ])) {
    assert.equal(firstCodePoints(text, length), left);
    for (let split = 0; split <= text.length; split++) {
      // A server does not split a code point over two chunks.
      if (/[\ud800-\udbff]$/.test(text.slice(0, split)) && text.codePointAt(split - 1) !== text.charCodeAt(split - 1))
        continue;
      const { transcript } = new Written()
        .start()
        .chunk(text.slice(0, split))
        .chunk(text.slice(split))
        .end("cancelled", { kept: [{ part: 0, length }] });
      assert.deepEqual(transcript.messageOf("r")?.parts, [{ kind: "text", text: left }]);
    }
  }
});

test("a reader gets each piece of the text once, whatever is cut, and however long it waits", () => {
  const written = new Written().start();
  /** @type {number[]} */
  const eager = [];
  /** @type {number[]} */
  const slow = [];
  let read = "";
  let slowRead = "";
  let text = "";
  for (let number = 0; number < 3_000; number++) {
    const delta = `${number} 👋 `;
    text += delta;
    written.chunk(delta);
    read += written.transcript.readText("r", eager);
    if (number % 700 === 0) slowRead += written.transcript.readText("r", slow);
  }
  assert.equal(read, text);
  written.chunk("Hm.", { part: 1, kind: "reasoning" }).chunk("more", { part: 2 });
  assert.equal(written.transcript.readText("r", eager), "more");
  written.end("cancelled", { kept: [{ part: 0, length: 5 }] });
  assert.equal(written.transcript.readText("r", eager), "", "what was read is not taken back");
  assert.equal(written.transcript.readText("r", []), [...text].slice(0, 5).join(""));
  assert.ok(text.startsWith(slowRead + written.transcript.readText("r", slow)));
  assert.equal(written.transcript.readText("nobody", []), "");
});

test("as many messages as are to be kept are kept, and then there are no more", () => {
  const { transcript } = new Written({ messagesKept: 2 }).start("a").end("lost", { runId: "a" });
  assert.deepEqual(
    transcript.messages().map(({ id }) => id),
    ["u-a", "a-a"],
  );
  assert.equal(transcript.more, false);
});

test("messages of a run in a state of a newer server are kept", () => {
  const transcript = new Transcript({ messagesKept: 1 });
  const said = {
    id: "a",
    role: "assistant",
    parts: [],
    at: 1,
    seq: 1,
    after: null,
    runId: "r",
    status: "streaming",
  };
  const run = { runId: "r", status: "paused", by: "p", device: "d", messageId: "a", requests: [], steers: [] };
  transcript.load(/** @type {any} */ (snapshot(1, "E", { messages: [said], runs: [run] })));
  const message = { id: "u", role: "user", parts: [], by: "p", device: "d", at: 1 };
  const ended = { type: "run.ended", seq: 3, at: 3, runId: "s", reason: "lost", returned: [] };
  transcript.apply(/** @type {any} */ ({ type: "message", seq: 2, at: 2, runId: "s", after: "a", message }));
  transcript.apply(/** @type {any} */ (ended));
  assert.deepEqual([transcript.status("r"), transcript.reason("r")], ["paused", undefined]);
  assert.deepEqual(
    transcript.messages().map(({ id }) => id),
    ["a", "u"],
  );
});

test("old messages are forgotten, those of open runs are not, and it is said that there are more", () => {
  const { transcript } = new Written({ messagesKept: 2 })
    .start("a")
    .end("lost", { runId: "a" })
    .start("b")
    .start("c")
    .end("lost", { runId: "c" });
  assert.deepEqual(
    transcript.messages().map(({ id }) => id),
    ["u-b", "a-b", "u-c", "a-c"],
  );
  assert.ok(transcript.more);
  assert.deepEqual(
    ["a", "b", "z"].map((id) => transcript.status(id)),
    ["ended", "running", "unknown"],
  );
  assert.equal(transcript.messageOf("a"), undefined);
});

test("only so many ended runs are kept, the first that ended goes first, and its end is remembered longer", () => {
  const written = new Written().start("first").start("second");
  written.end("failed", { runId: "second" }).end("completed", { runId: "first" });
  for (let number = 0; number < ENDED_RUNS_KEPT - 1; number++)
    written.start(`r${number}`).end("lost", { runId: `r${number}` });
  const { transcript } = written;
  assert.equal(transcript.run("second"), undefined);
  assert.equal(transcript.run("first")?.status, "ended");
  assert.equal(transcript.runs().length, ENDED_RUNS_KEPT);
  assert.deepEqual([transcript.status("second"), transcript.reason("second")], ["ended", "failed"]);
  for (let number = 0; number < 300; number++) written.end("cancelled", { runId: `prevented-${number}` });
  assert.equal(transcript.ending("second"), undefined);
  assert.equal(transcript.reason("second"), "failed", "the message still tells");
  assert.equal(transcript.reason("r7"), "lost");
});

test("a run that never started has no message to wait for", () => {
  const { transcript } = new Written().end("cancelled", { runId: "prevented" }).start("r");
  assert.deepEqual(
    ["prevented", "r", "nobody"].map((id) => transcript.messageExpected(id)),
    [false, true, true],
  );
});

test("half a snapshot changes nothing, and another one begins anew", () => {
  const { transcript } = new Written().start().chunk("One");
  const before = held(transcript);
  const message = { id: "m", role: "user", parts: [], at: 1, seq: 1, after: null, status: "complete" };
  const part = { messages: [message], last: false };
  assert.equal(transcript.load(/** @type {any} */ (snapshot(5, "E", part))), null);
  assert.deepEqual(held(transcript), before);
  assert.equal(transcript.load(/** @type {any} */ (snapshot(6, "E", part))), null);
  const last = { ...message, id: "n" };
  transcript.load(/** @type {any} */ (snapshot(6, "E", { messages: [last] })));
  assert.deepEqual(
    transcript.messages().map(({ id }) => id),
    ["m", "n"],
  );
});

test("an entry that goes on with the one before it is one message with it", () => {
  const transcript = new Transcript();
  const message = { id: "m", role: "assistant", runId: "r", at: 1, seq: 1, after: null, status: "complete" };
  const first = { ...message, parts: [{ kind: "text", text: "On" }] };
  const parts = [
    { kind: "text", text: "e", continued: true },
    { kind: "data", name: "n", value: 1 },
  ];
  const kept = structuredClone(first);
  transcript.load(/** @type {any} */ (snapshot(5, "E", { messages: [first], last: false })));
  transcript.load(/** @type {any} */ (snapshot(5, "E", { messages: [{ ...message, continued: true, parts }] })));
  const whole = [
    { kind: "text", text: "One" },
    { kind: "data", name: "n", value: 1 },
  ];
  assert.deepEqual(transcript.messages(), [{ ...message, parts: whole }]);
  assert.deepEqual(first, kept, "a snapshot is its sender's");
});

test("a run that ended in a log that is gone, and goes on in the next, goes on", () => {
  const transcript = new Transcript();
  const start = { type: "run.started", runId: "r", messageId: "a", agent: "x", by: "b", device: "d", after: "u" };
  transcript.apply(/** @type {any} */ ({ ...start, seq: 1, at: 1 }));
  transcript.apply(/** @type {any} */ ({ type: "run.ended", runId: "r", reason: "cancelled", seq: 2, at: 2 }));
  const run = { runId: "r", status: "running", by: "b", device: "d", messageId: "a", requests: [], steers: [] };
  const replaced = { type: "snapshot", epoch: "F", seq: 9, at: 9, messages: [], runs: [run], more: false, last: true };
  transcript.load(/** @type {any} */ (replaced));
  assert.equal(transcript.status("r"), "running");
  assert.equal(transcript.reason("r"), undefined);
  const restored = new Transcript();
  restored.restore(JSON.parse(JSON.stringify(transcript.state())));
  for (let n = 0; n < ENDED_RUNS_KEPT; n += 1) {
    const ended = { type: "run.ended", runId: `other-${n}`, reason: "cancelled", seq: 10 + n, at: 10 };
    restored.apply(/** @type {any} */ (ended));
  }
  assert.equal(restored.status("r"), "running", "only ended runs are forgotten");
});

test("the order of the ends is the snapshot's, where there was one", () => {
  const { transcript } = new Written().start("a").end("lost", { runId: "a" }).start("b").end("lost", { runId: "b" });
  const { messages, runs } = transcript.state();
  transcript.load(/** @type {any} */ (snapshot(9, "E", { messages, runs: [...runs].reverse() })));
  assert.deepEqual(
    transcript.state().endings.map(({ runId }) => runId),
    ["b", "a"],
  );
});
