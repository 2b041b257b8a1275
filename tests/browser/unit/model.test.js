/**
 * A client and a server over a line that does its worst: cuts in both directions, lost and repeated frames, merged
 * events, snapshots at any time and in parts, resets, restarts of the page, refusals, noise.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Connection } from "../../../client/browser/holdfast/core/connection.js";
import { Transcript } from "../../../client/browser/holdfast/core/transcript.js";
import { LogMaker } from "./log.js";
import { caughtUp, seeded, snapshot, welcome } from "./wire.js";

const SEEDS = 300;
const STEPS = 150;

/** @typedef {ReturnType<typeof seeded>} Random */

/** A server with one session: its log, what it remembers of commands, and at most one line to its client. */
class Server {
  epoch = "e0";
  /** What was merged, cut and left out is folded from here. */
  transcript = new Transcript();
  /** @type {Map<string, string>} the bytes of each command that was seen, by id */
  seen = new Map();
  /** @type {Map<string, number>} the seq of each command in the log */
  #done = new Map();
  #log;
  #random;
  /** @type {unknown[] | null} what is on its way to the client; null without a line */
  line = null;
  /** The line has been given everything up to here. */
  #sentTo = 0;
  #greeted = false;
  #keptFrom = 1;

  /** @param {Random} random */
  constructor(random) {
    this.#random = random;
    this.#log = new LogMaker(random.below(2 ** 31));
  }

  get head() {
    return this.#log.head;
  }

  /** Something happens in the session. */
  work() {
    this.#log.next();
    this.#fold();
  }

  #fold() {
    for (const event of this.#log.events.slice(this.transcript.seq)) this.transcript.apply(event);
  }

  /** The log is another one from here on; who is connected is told at once. */
  changeEpoch() {
    this.epoch = `e${Number(this.epoch.slice(1)) + 1}`;
    this.#keptFrom = this.head + 1;
    if (this.#greeted) this.sendSnapshot(true);
  }

  /** Raw events up to here are no longer kept. */
  compact() {
    this.#keptFrom = this.head;
  }

  accept() {
    this.line = [];
    this.#greeted = false;
  }

  cut() {
    this.line = null;
    this.#greeted = false;
  }

  /** @param {string} frame */
  receive(frame) {
    const message = JSON.parse(frame);
    if (message.type === "hello") this.#greet(message.cursor);
    else if (message.type === "ping") this.#say({ type: "ack", id: message.id, outcome: "pong", head: this.#sentTo });
    else if (message.type !== "pong") this.#command(message, frame);
  }

  /** @param {{epoch: string, seq: number, at?: number} | undefined} cursor */
  #greet(cursor) {
    this.#greeted = true;
    const event = this.#log.events[(cursor?.seq ?? 0) - 1];
    const kept = cursor !== undefined && cursor.seq + 1 >= this.#keptFrom && cursor.seq <= this.head;
    const tail =
      kept && cursor.epoch === this.epoch && (cursor.seq === 0 ? cursor.at === undefined : cursor.at === event?.at);
    const resume = tail ? "tail" : cursor === undefined ? "snapshot" : "reset";
    this.#say(welcome(resume, this.epoch, { head: this.head }));
    if (tail) this.#sentTo = cursor.seq;
    else this.sendSnapshot(cursor !== undefined && cursor.epoch !== this.epoch);
    this.sendEvents();
    this.#say(caughtUp(this.head));
  }

  /**
   * @param {{id: string, refuse?: string}} message
   * @param {string} frame
   */
  #command({ id, refuse }, frame) {
    assert.equal(this.seen.get(id) ?? frame, frame, "the same id is the same bytes");
    this.seen.set(id, frame);
    const done = this.#done.get(id);
    if (done !== undefined) {
      this.#say({ type: "ack", id, outcome: "started", seq: done, duplicate: true });
    } else if (this.#random.chance(0.1)) {
      this.#say({ type: "error", id, code: "unavailable", message: "later", retryable: true, retryAfterMs: 50 });
    } else if (refuse !== undefined) {
      this.#say({ type: "error", id, code: refuse, message: "no", retryable: false });
    } else {
      const { seq } = this.#log.emit("command.done", { command: id });
      this.#fold();
      this.#done.set(id, seq);
      this.sendEvents();
      this.#say({ type: "ack", id, outcome: "started", seq });
    }
  }

  /** Everything new goes out, now and then with adjacent events of one text merged. */
  sendEvents() {
    if (!this.#greeted) return;
    while (this.#sentTo < this.head) {
      /** @type {any} */
      let event = this.#log.events[this.#sentTo];
      for (;;) {
        /** @type {any} */
        const next = this.#log.events[event.seq];
        const merges = next && isText(event) && isText(next) && event.runId === next.runId && event.part === next.part;
        if (!merges || this.#random.chance(0.3)) break;
        const { done } = next;
        event = {
          ...event,
          seq: next.seq,
          at: next.at,
          from: event.from ?? event.seq,
          delta: event.delta + next.delta,
          done,
        };
      }
      this.#sentTo = event.seq;
      this.#say(event);
      if (this.#random.chance(0.05)) this.#say(event);
    }
  }

  /** All there is, in one or more messages. */
  sendSnapshot(reset = false) {
    if (!this.#greeted) return;
    const { seq, at, more } = this.transcript;
    const entries = this.transcript.messages().flatMap((message) => split(message, this.#random));
    const runs = [...this.transcript.runs()];
    this.#sentTo = seq;
    for (let last = false; !last; ) {
      last = (entries.length === 0 && runs.length === 0) || this.#random.chance(0.5);
      const messages = entries.splice(0, last ? entries.length : this.#random.below(entries.length + 1));
      const some = runs.splice(0, last ? runs.length : this.#random.below(runs.length + 1));
      this.#say(snapshot(seq, this.epoch, { at, more, reset, messages, runs: some, last }));
    }
  }

  /**
   * Some of the events on the line are lost, which a client can notice; that replies are, it could not.
   * @param {number} keep how many of them arrive
   */
  loseEvents(keep) {
    let kept = 0;
    const isEvent = (/** @type {any} */ { type }) => type === "message" || type.includes(".");
    this.line = this.line?.filter((message) => !isEvent(message) || kept++ < keep) ?? null;
  }

  heartbeat() {
    if (this.#greeted) this.#say({ type: "ping", head: this.#sentTo });
  }

  /** @param {unknown} message */
  #say(message) {
    this.line?.push(message);
  }
}

/** @param {any} event */
function isText({ type, kind }) {
  return type === "run.chunk" && (kind === "text" || kind === "reasoning");
}

/**
 * A message as one or two entries.
 * @param {import("../../../client/browser/holdfast/core/wire.js").Message} message
 * @param {Random} random
 */
function split(message, random) {
  if (random.chance(0.7) || message.parts.length < 2) return [message];
  const at = 1 + random.below(message.parts.length - 1);
  const { id, role, seq, after, status } = message;
  const rest = { id, role, at: message.at, seq, after, status, parts: message.parts.slice(at), continued: true };
  return [{ ...message, parts: message.parts.slice(0, at) }, rest];
}

/** A page with a client on it; what a shell does, without timers. */
class Page {
  now = 0;
  /** @type {Map<string, number>} how many replies each command had */
  replies = new Map();
  /** Up to where the news have told everything, since the last reset. */
  toldTo = 0;
  connection;
  #server;
  #random;

  /**
   * @param {Server} server
   * @param {Random} random
   */
  constructor(server, random) {
    this.#server = server;
    this.#random = random;
    this.connection = this.#make({});
  }

  /** @param {{transcript?: Transcript}} kept */
  #make(kept) {
    return new Connection({ random: this.#random.random, device: "d", client: "model", ...kept });
  }

  /** Another page takes over what a storage keeps. */
  reload() {
    const kept = JSON.parse(
      JSON.stringify({ commands: this.connection.outbox.state(), state: this.connection.transcript.state() }),
    );
    const transcript = new Transcript();
    transcript.restore(kept.state);
    this.#server.cut();
    this.connection = this.#make({ transcript });
    for (const command of kept.commands) this.connection.submit(command, this.now);
    this.connection.wake(this.now);
  }

  /** @param {string} id */
  submit(id) {
    const refuse = this.#random.chance(0.2) ? { refuse: "forbidden" } : {};
    this.replies.set(id, 0);
    this.connection.submit({ type: "send", id, text: "x", ...refuse }, this.now);
    this.settle();
  }

  /** What is due by now happens. */
  tick() {
    this.now += 100;
    if (this.connection.reconnectAt !== null && this.connection.reconnectAt <= this.now) {
      this.connection.opening();
      this.#server.accept();
      this.connection.opened(this.now);
    }
    const deadline = this.connection.deadline();
    if (deadline !== null && deadline <= this.now) this.connection.tick(this.now);
    this.settle();
  }

  /**
   * Some of what is on the line arrives, in one frame.
   * @param {number} count
   */
  deliver(count) {
    const messages = this.#server.line?.splice(0, count) ?? [];
    if (messages.length === 0) return;
    this.connection.received(JSON.parse(JSON.stringify(messages)), this.now);
    this.settle();
  }

  /** The line is cut; frames in it are lost. */
  cut() {
    if (this.#server.line === null) return;
    this.#server.cut();
    this.connection.closed(this.now, 1006);
    this.settle();
  }

  /** Takes what came of what happened. */
  settle() {
    for (const news of this.connection.takeNews()) {
      if (news.type === "reset") {
        this.toldTo = news.position.seq;
      } else {
        assert.equal(news.from ?? news.seq, this.toldTo + 1, "each seq is covered once");
        this.toldTo = news.seq;
      }
    }
    assert.equal(this.toldTo, this.connection.position.seq);
    for (const { command, reply, error } of this.connection.takeSettled()) {
      assert.equal(reply === null, error !== null);
      assert.equal(reply === null, "refuse" in command);
      this.replies.set(command.id, (this.replies.get(command.id) ?? 0) + 1);
    }
    if (this.connection.lost !== null) {
      this.#server.cut();
      this.connection.closed(this.now, 1000);
      this.settle();
      return;
    }
    for (const frame of this.connection.takeFrames()) if (this.#server.line !== null) this.#server.receive(frame);
  }
}

/** @type {((server: Server, page: Page, random: Random) => void)[]} in about the proportions of what happens */
const MISHAPS = [
  (_server, page) => page.cut(),
  (server, _page, random) => server.loseEvents(random.below(3)),
  (server) => void server.line?.push({ type: "run.chunk", seq: server.head + 1, at: 1 }), // noise
  (server) => server.sendSnapshot(),
  (server) => server.changeEpoch(),
  (server) => server.compact(),
  (_server, page) => page.reload(),
  (_server, page) => page.connection.wake(page.now),
  (_server, page) => {
    page.connection.networkGone();
    page.settle();
  },
];

/** @param {number} seed */
function run(seed) {
  const random = seeded(seed);
  const server = new Server(random);
  const page = new Page(server, random);
  page.connection.wake(0);
  for (let step = 0; step < STEPS; step++) {
    const what = random.below(20);
    if (what < 6) server.work();
    else if (what < 12) page.deliver(1 + random.below(6));
    else if (what < 14) page.submit(`c-${seed}-${step}`);
    else if (what < 17) page.tick();
    else if (what < 18) server.heartbeat();
    else MISHAPS[random.below(MISHAPS.length)]?.(server, page, random);
    if (random.chance(0.7)) server.sendEvents();
  }
  const settled = () =>
    page.connection.status === "live" &&
    page.connection.position.seq === server.head &&
    page.connection.position.epoch === server.epoch &&
    page.connection.outbox.commands.length === 0;
  for (let step = 0; step < 3_000 && !settled(); step++) {
    server.sendEvents();
    if (step % 5 === 0) server.heartbeat();
    page.deliver(3);
    page.tick();
  }
  return { server, page, settled };
}

test(`after each of ${SEEDS} schedules the client has the whole log, told once, and each command one reply`, () => {
  let reached = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      const { server, page, settled } = run(seed);
      assert.ok(settled(), "it comes back");
      assert.deepEqual(page.connection.position, { epoch: server.epoch, seq: server.head });
      assert.deepEqual(page.connection.transcript.messages(), server.transcript.messages());
      assert.deepEqual(page.connection.transcript.runs(), server.transcript.runs());
      for (const [id, replies] of page.replies) assert.equal(replies, 1, `replies to ${id}`);
      assert.deepEqual(new Set(page.replies.keys()), new Set(server.seen.keys()));
      reached += server.head;
    } catch (error) {
      throw new Error(`seed ${seed}: ${error}`, { cause: error });
    }
  }
  assert.ok(reached > SEEDS * 20, "there was something to be told");
});
