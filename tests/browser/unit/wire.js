/** What a server says, and a client without I/O to say it to. */

import { readFileSync } from "node:fs";
import { Connection } from "../../../client/browser/holdfast/core/connection.js";

/** @import {Command} from "../../../client/browser/holdfast/core/wire.js" */

/** @type {{rule: string, in: {reason: string}, out: End}[]} */
const CASES = JSON.parse(readFileSync(new URL("../../../protocol/vectors/ends.json", import.meta.url), "utf8"));

/**
 * What follows from an end, by reason: the shared table.
 * @typedef {{of: string[], status: string, steers: string, settles: boolean, causes: string[]}} End
 * @type {Record<string, End>}
 */
export const ENDS = Object.fromEntries(
  CASES.filter(({ rule }) => rule !== "GROW.5").map(({ in: { reason }, out }) => [reason, out]),
);

/**
 * The reasons for which a run of this state can end.
 * @param {string} state
 */
export function endsOf(state) {
  return Object.keys(ENDS).filter((reason) => ENDS[reason]?.of.includes(state));
}

export const LIMITS = {
  frameBytes: 4096,
  eventBytes: 4096,
  messageBytes: 65536,
  commandItems: 64,
  commandValues: 256,
};

/**
 * A client whose random numbers are all `jitter`.
 * @param {{jitter?: number} & Partial<ConstructorParameters<typeof Connection>[0]>} [options]
 */
export function make({ jitter = 0, ...options } = {}) {
  return new Connection({ random: () => jitter, device: "d", client: "test", ...options });
}

/**
 * A connection was opened at the time `now`.
 * @param {Connection} connection
 */
export function open(connection, now = 0) {
  connection.opening();
  connection.opened(now);
}

/**
 * The server says something at the time 0, all in one frame.
 * @param {Connection} connection
 * @param {unknown[]} messages
 */
export function tell(connection, ...messages) {
  tellAt(connection, 0, ...messages);
}

/**
 * The server says something, all in one frame.
 * @param {Connection} connection
 * @param {number} now
 * @param {unknown[]} messages
 */
export function tellAt(connection, now, ...messages) {
  connection.received(JSON.parse(JSON.stringify(messages)), now);
}

/** @param {Record<string, unknown>} [fields] */
export function welcome(resume = "snapshot", epoch = "E", fields = {}) {
  return {
    type: "welcome",
    session: "s",
    connection: "c",
    principal: "p",
    device: "d",
    at: 1,
    epoch,
    head: 0,
    resume,
    heartbeatMs: 1000,
    features: [],
    limits: LIMITS,
    ...fields,
  };
}

/**
 * An empty snapshot.
 * @param {Record<string, unknown>} [fields]
 */
export function snapshot(seq = 0, epoch = "E", fields = {}) {
  return {
    type: "snapshot",
    epoch,
    seq,
    at: seq,
    reset: false,
    messages: [],
    runs: [],
    more: false,
    last: true,
    ...fields,
  };
}

export function caughtUp(seq = 0) {
  return { type: "caughtUp", seq, at: seq };
}

/**
 * A client that has caught up with an empty log at time 0.
 * @param {Parameters<typeof make>[0]} [options]
 */
export function live(options) {
  const connection = make(options);
  open(connection);
  tell(connection, welcome(), snapshot(), caughtUp());
  connection.takeFrames();
  connection.takeNews();
  return connection;
}

/**
 * What the client wrote, decoded.
 * @param {Connection} connection
 * @returns {any[]} plain JSON, to be compared
 */
export function sent(connection) {
  return connection.takeFrames().map((frame) => JSON.parse(frame));
}

/**
 * Some command.
 * @param {string} id
 * @returns {Command}
 */
export function command(id = "k") {
  return { type: "withdraw", id, steerId: "s" };
}

/**
 * Pseudo-random numbers in [0, 1) (mulberry32), so that a case that fails can be run again by its seed.
 * @param {number} seed
 */
export function seeded(seed) {
  let state = seed;
  const random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    random,
    /** A whole number in [0, below). */
    below: (/** @type {number} */ below) => Math.floor(random() * below),
    /** Whether something of this probability happens. */
    chance: (/** @type {number} */ probability) => random() < probability,
  };
}
