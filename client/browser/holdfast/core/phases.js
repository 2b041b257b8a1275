/**
 * The phases of one connection, as a table: phase, then what a message of the server means, then the next phase.
 *
 * A missing cell is lost contact: the client drops the connection and resumes from its cursor, it never guesses. An
 * `error` and a `goaway` may come at any time, and are in no cell.
 */

/**
 * `snapshot`: catching up, and the next thing about the log is a snapshot. `tail`: catching up, event by event.
 * `reloading`: live, in the middle of a snapshot of several messages.
 * @typedef {"offline" | "opening" | "greeting" | "snapshot" | "tail" | "live" | "reloading" | "closed"} Phase
 *
 * What a server's message means to the phase.
 * @typedef {"tail" | "reset" | "event" | "snapshotPart" | "snapshotLast" | "caughtUp" | "other"} Input
 *
 * Where the client stands with its server.
 * @typedef {"connecting" | "catching up" | "live" | "offline" | "closed"} Status
 */

/** @type {Readonly<Partial<Record<Phase, Readonly<Partial<Record<Input, Phase>>>>>>} */
export const TABLE = {
  greeting: {
    tail: "tail",
    reset: "snapshot",
  },
  snapshot: {
    snapshotPart: "snapshot",
    snapshotLast: "tail",
    other: "snapshot",
  },
  tail: {
    event: "tail",
    snapshotPart: "snapshot",
    snapshotLast: "tail",
    caughtUp: "live",
    other: "tail",
  },
  live: {
    event: "live",
    snapshotPart: "reloading",
    snapshotLast: "live",
    caughtUp: "live",
    other: "live",
  },
  reloading: {
    snapshotPart: "reloading",
    snapshotLast: "live",
    other: "reloading",
  },
};

/** @type {Readonly<Record<Phase, Status>>} */
export const STATUS = {
  offline: "offline",
  opening: "connecting",
  greeting: "connecting",
  snapshot: "catching up",
  tail: "catching up",
  live: "live",
  reloading: "live",
  closed: "closed",
};

/**
 * Whether commands are sent in this phase: the server has said `welcome`.
 * @param {Phase} phase
 */
export function isWelcomed(phase) {
  return phase in TABLE && phase !== "greeting";
}

/** The connection cannot be trusted any more. */
export class LostContact extends Error {}

/**
 * The phase after `input`. Throws LostContact where it does not belong.
 * @param {Phase} phase
 * @param {Input} input
 */
export function next(phase, input) {
  const after = TABLE[phase]?.[input];
  if (after === undefined) throw new LostContact(`${input} does not belong into ${phase}`);
  return after;
}
