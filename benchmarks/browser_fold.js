/**
 * What a streaming message costs the browser's client: the share of one core for 5,000 chunks a second, by the length of
 * the message. Each frame goes the way it goes in a page: JSON text, `Connection.received`, `takeNews`, the view.
 *
 *     node benchmarks/browser_fold.js
 *
 * `floor`: JSON.parse of the same frames and nothing else. `60 Hz`: the view is read as often as a page paints. `every
 * chunk`: it is read after each. `reader`: the text is read along, as `for await (const chunk of run)` does. None of
 * them may grow with the length of the message. `60 Hz, joined` also touches the whole text at every paint, which the
 * engine then has to join: the one cost that does grow, and the reason for a page to append what is new.
 */

import { Connection } from "../client/browser/holdfast/core/connection.js";

const CHUNKS_PER_SECOND = 5_000;
const LENGTHS = [1_000, 10_000, 100_000];
/** The messages before, which a page shows as well. */
const MESSAGES = 50;
/** So many chunks are measured at each length, over several messages where one is shorter. */
const MEASURED = 200_000;

const WORDS = ["Lisbon ", "is ", "hilly, ", "and ", "the ", "Alfama ", "é ", "👋 ", "old.\n", "So "];

/** @param {number} seq */
function chunk(seq) {
  const delta = WORDS[seq % WORDS.length];
  return JSON.stringify({
    type: "run.chunk",
    seq,
    at: 1_795_132_800_000 + seq,
    runId: "r-1",
    part: 0,
    kind: "text",
    delta,
  });
}

/** A client that has caught up with a session in which a run has just started. */
function client() {
  const connection = new Connection({ random: () => 0, device: "d", client: "benchmark" });
  const run = { runId: "r-1", status: "running", by: "p", device: "d", requests: [], steers: [], messageId: "a-1" };
  const fields = { at: 1, after: null, runId: "r-1", parts: [] };
  const messages = Array.from({ length: MESSAGES }, (_, n) => ({
    ...fields,
    id: `m-${n}`,
    role: "user",
    status: "complete",
  }));
  const message = { ...fields, id: "a-1", role: "assistant", status: "streaming" };
  const welcome = {
    type: "welcome",
    epoch: "e",
    resume: "snapshot",
    heartbeatMs: 20_000,
    limits: { frameBytes: 1_048_576 },
  };
  const snapshot = { type: "snapshot", epoch: "e", seq: 0, at: 0, runs: [run], more: false, last: true };
  connection.opening();
  connection.opened(0);
  connection.received(
    [welcome, { ...snapshot, messages: [...messages, message] }, { type: "caughtUp", seq: 0, at: 0 }],
    0,
  );
  connection.takeNews();
  return connection;
}

/**
 * Reads the view, as a page does that renders from it.
 * @param {Connection} connection
 */
function look({ transcript }) {
  return transcript.messages().length + transcript.runs().length + transcript.position.seq;
}

/**
 * Reads the view and the whole text of the message in it, which the engine then has to join.
 * @param {Connection} connection
 */
function join(connection) {
  look(connection);
  const part = connection.transcript.messageOf("r-1")?.parts[0];
  const text = part?.kind === "text" ? part.text : "";
  if (text === "" || text.charCodeAt(text.length - 1) === 0) throw new Error("nothing to paint");
}

/**
 * One way to take in frames: what is done for each frame, given its number.
 * @typedef {() => (frame: string, number: number) => unknown} Way
 */

/** @type {Record<string, Way>} */
const WAYS = {
  floor: () => (frame) => JSON.parse(frame),
  "60 Hz": () => painted(look),
  "every chunk": () => {
    const connection = client();
    return (frame, number) => {
      receive(connection, frame, number);
      look(connection);
    };
  },
  reader: () => {
    const connection = client();
    /** @type {number[]} */
    const taken = [];
    return (frame, number) => {
      receive(connection, frame, number);
      if (connection.transcript.readText("r-1", taken).length === 0) throw new Error("nothing to read");
    };
  },
  "60 Hz, joined": () => painted(join),
};

/** @param {(connection: Connection) => unknown} paint */
function painted(paint) {
  const connection = client();
  const paints = Math.round(CHUNKS_PER_SECOND / 60);
  return (/** @type {string} */ frame, /** @type {number} */ number) => {
    receive(connection, frame, number);
    if (number % paints === 0) paint(connection);
  };
}

/**
 * @param {Connection} connection
 * @param {string} frame
 * @param {number} number
 */
function receive(connection, frame, number) {
  connection.received(JSON.parse(frame), number);
  if (connection.takeNews().length !== 1) throw new Error("a chunk was not folded");
  connection.takeSettled();
  connection.takeFrames();
  connection.deadline();
}

/**
 * The share of a core, in percent.
 * @param {Way} way
 * @param {string[]} frames of one message
 * @param {number} messages
 */
function share(way, frames, messages) {
  const takers = Array.from({ length: messages }, () => way());
  const before = process.cpuUsage();
  for (const take of takers)
    for (let number = 0; number < frames.length; number++) take(String(frames[number]), number);
  const { user, system } = process.cpuUsage(before);
  return (((user + system) / (frames.length * messages)) * CHUNKS_PER_SECOND) / 1e4;
}

const names = Object.keys(WAYS);
console.log(`share of one core for ${CHUNKS_PER_SECOND} chunks/s, and as a multiple of JSON.parse alone`);
console.log(["chunks", ...names].map((name) => name.padStart(16)).join(""));
for (const length of LENGTHS) {
  const frames = Array.from({ length }, (_, number) => chunk(number + 1));
  const row = [];
  let floor = 0;
  for (const way of Object.values(WAYS)) {
    share(way, frames, Math.ceil(20_000 / length)); // warm
    const percent = share(way, frames, Math.ceil(MEASURED / length));
    floor ||= percent;
    row.push(`${percent.toFixed(2)} % (${(percent / floor).toFixed(1)}x)`.padStart(16));
  }
  console.log(String(length).padStart(16) + row.join(""));
}
