/**
 * The commands that have no reply yet, in the order they were given.
 *
 * They outlive connections, and pages where there is a storage: whatever is in here is sent again after every
 * reconnect, with the same id and the same bytes, until the server acknowledges or refuses it. The ids make that
 * harmless.
 */

/** @import {HoldfastError} from "./errors.js" */
/** @import {Ack, Command, Message} from "./wire.js" */

import { CommandError, OutboxFullError } from "./errors.js";

/** What the server remembers of commands at least; more could not be sent twice safely. */
const MAX_COMMANDS = 1_000;
const MAX_BYTES = 8 * 1024 * 1024;
/** How deep, and how long, what is in a command may be. */
const MAX_DEPTH = 32;
const MAX_ITEMS = 1_024;
const MAX_VALUES = 8_192;

/** Questions: they change nothing, and only who asked can use the reply. */
const QUESTIONS = ["history", "auth", "ping"];

const UTF8 = new TextEncoder();

/**
 * One command and what has happened to it.
 * @typedef {object} Entry
 * @property {Command} command
 * @property {string} frame what is sent
 * @property {number} bytes of the frame
 * @property {boolean} sent on the present connection
 * @property {number} heldUntil not sent before this time: the server asked to be spared
 * @property {number} refusals how often it was refused with an error that goes away by waiting
 * @property {Message[]} page what has come of the reply to `history`
 */

/**
 * Messages older than a point, ascending; `more`: there are older ones still.
 * @typedef {{messages: Message[], more: boolean}} HistoryPage
 *
 * What a command came to: its reply, or the error that its caller gets.
 * @typedef {{command: Command, reply: Ack | HistoryPage | null, error: HoldfastError | null}} Settled
 */

/**
 * The entry of a command that was not sent yet. Throws CommandError `invalid` for one that no server can read.
 * @param {Command} command
 * @returns {Entry}
 */
export function entryOf(command) {
  const frame = JSON.stringify(command);
  const copy = JSON.parse(frame); // what is sent again is what was sent, whatever the caller does to its own
  checkBounds(copy, 1, { values: MAX_VALUES });
  return {
    command: copy,
    frame,
    bytes: UTF8.encode(frame).length,
    sent: false,
    heldUntil: 0,
    refusals: 0,
    page: [],
  };
}

/**
 * A frame beyond these bounds is `malformed` as a whole: no reply could name the command, and it would be sent for ever.
 * @param {unknown} value
 * @param {number} depth
 * @param {{values: number}} left
 */
function checkBounds(value, depth, left) {
  const isObject = typeof value === "object" && value !== null;
  const items = isObject ? Object.values(value) : [];
  // From 1e21 on JSON has an exponent, and is no integer.
  const isInteger = Number.isInteger(value) && Math.abs(Number(value)) < 1e21;
  left.values -= 1;
  if (
    (isObject && depth > MAX_DEPTH) ||
    items.length > MAX_ITEMS ||
    left.values < 0 ||
    (isInteger && !Number.isSafeInteger(value))
  ) {
    throw new CommandError("invalid", "a value is too deep, too long or too large");
  }
  for (const item of items) checkBounds(item, depth + 1, left);
}

/**
 * What the caller gets of a command that the server would not take.
 * @param {Entry} entry
 * @param {number} limit in bytes
 */
export function tooLarge({ bytes }, limit) {
  return new CommandError("too_large", `the command has ${bytes} bytes, the server takes ${limit}`);
}

/** An ordered set of commands, bounded by count and bytes: a full one refuses new commands at once. */
export class Outbox {
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  #bytes = 0;
  #maxCommands;
  #maxBytes;
  /** @type {readonly Command[] | null} */
  #commands = null;
  /** @type {readonly Command[] | null} */
  #state = null;

  /** @param {{maxCommands?: number, maxBytes?: number}} [options] */
  constructor({ maxCommands = MAX_COMMANDS, maxBytes = MAX_BYTES } = {}) {
    this.#maxCommands = maxCommands;
    this.#maxBytes = maxBytes;
  }

  /** All commands that wait, oldest first; the same array until that changes. */
  get commands() {
    this.#commands ??= [...this.#entries.values()].map((entry) => entry.command);
    return this.#commands;
  }

  /**
   * What is worth keeping for the next page, as JSON: everything but questions, whose askers are gone by then (and
   * tokens do not belong into a storage). The same array until the commands changed.
   */
  state() {
    this.#state ??= this.commands.filter((command) => !QUESTIONS.includes(command.type));
    return this.#state;
  }

  /**
   * Takes a command in. Throws OutboxFullError and changes nothing where the bounds are reached.
   * @param {Entry} entry
   */
  add(entry) {
    if (this.#entries.size >= this.#maxCommands || this.#bytes + entry.bytes > this.#maxBytes) {
      throw new OutboxFullError();
    }
    this.#entries.set(entry.command.id, entry);
    this.#bytes += entry.bytes;
    this.#commands = this.#state = null;
  }

  /**
   * The command of that id, if it still waits.
   * @param {string} id
   */
  get(id) {
    return this.#entries.get(id);
  }

  /**
   * Takes a command out: it has its reply.
   * @param {string} id
   * @returns {Command | undefined} undefined where it is not in here (it had its reply before)
   */
  settle(id) {
    const entry = this.#entries.get(id);
    if (entry === undefined) return undefined;
    this.#entries.delete(id);
    this.#bytes -= entry.bytes;
    this.#commands = this.#state = null;
    return entry.command;
  }

  /** The connection is gone: everything is to be sent again, and half a page is none. */
  disconnected() {
    for (const entry of this.#entries.values()) {
      entry.sent = false;
      entry.page = [];
    }
  }

  /**
   * What is to be sent now, in order; the caller marks each `sent` or settles it.
   * @param {number} now
   */
  due(now) {
    return [...this.#entries.values()].filter((entry) => !entry.sent && entry.heldUntil <= now);
  }

  /** When the next command that is not sent becomes due; Infinity for never. */
  nextDue() {
    let due = Infinity;
    for (const entry of this.#entries.values()) if (!entry.sent) due = Math.min(due, entry.heldUntil);
    return due;
  }

  /**
   * Whether a send of that run waits for its reply: the server may not know the run yet.
   * @param {unknown} runId
   */
  startsRun(runId) {
    return this.commands.some((command) => command.type === "send" && (command.runId ?? command.id) === runId);
  }
}
