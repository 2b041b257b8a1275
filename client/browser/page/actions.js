/** What a person can do in a session, and what became of it: outcomes that need words, and errors. */

import { CommandError } from "../holdfast/index.js";
import { shortened, textOf, told, who, words } from "./text.js";

/** @import {Part, RunInfo, Session} from "../holdfast/index.js" */
/** @import {Request} from "../holdfast/core/wire.js" */
/** @import {Ink} from "./ink.js" */
/** @import {Notices} from "./notices.js" */

/** @typedef {"steer" | "queue" | "interrupt" | "alongside"} WhenBusy */

/** Why nothing came of an answer. @type {Record<string, string>} */
const TOO_LATE = {
  already_answered: "it had been answered already",
  already_ended: "its run had ended already",
  expired: "it had expired",
  unknown_request: "it was not asked for any more",
};

export class Actions {
  /** The last reply to a command, for the network panel. */
  lastAck = "";
  /** Returned steers that were sent again or put away. @type {Set<string>} */
  dismissed = new Set();
  #session;
  #ink;
  #notices;
  #changed;
  #giveBack;
  /** Runs that were sent `alongside` here: they are not the session's main run. @type {Set<string>} */
  #alongside = new Set();
  /** Runs that were told to stop here, and whether their messages stand still. @type {Map<string, boolean>} */
  #stops = new Map();

  /**
   * @param {Session} session
   * @param {Ink} ink
   * @param {Notices} notices
   * @param {{changed: () => void, giveBack: (text: string) => void}} page `changed`: something here is new that is not
   *   in the session's view; `giveBack`: a text that did not become a message
   */
  constructor(session, ink, notices, { changed, giveBack }) {
    this.#session = session;
    this.#ink = ink;
    this.#notices = notices;
    this.#changed = changed;
    this.#giveBack = giveBack;
  }

  /**
   * The run that Stop stops and a steer goes to: the main run where that is known, otherwise the newest that goes on, or
   * that was sent from here and has no reply yet. Null where nothing goes on, and where all that does is being stopped.
   */
  get active() {
    const { runs, pending } = this.#session.view;
    const stopping = this.stopping;
    // A status of a newer server is one of a run that goes on.
    const isOn = (/** @type {RunInfo} */ { status, runId }) =>
      status !== "queued" && status !== "ended" && !stopping.has(runId);
    const going = runs.filter(isOn);
    const main = going.findLast(({ runId }) => !this.#alongside.has(runId)) ?? going.at(-1);
    if (main !== undefined) return main.runId;
    const known = new Set(runs.map(({ runId }) => runId));
    const sent = pending.findLast(({ type, id }) => type === "send" && !known.has(id) && !stopping.has(id));
    return sent?.id ?? null;
  }

  /**
   * Who did something, as it is told here.
   *
   * @param {string | undefined} by
   * @param {string | undefined} device
   */
  actor(by, device) {
    return device !== undefined && device === this.#session.device ? "you" : who(by, device);
  }

  /** Runs that were told to stop here, without an acknowledgement yet. */
  get stopping() {
    const { pending, runs } = this.#session.view;
    const stopping = new Set(pending.flatMap(({ type, runId }) => (type === "cancel" && runId ? [String(runId)] : [])));
    if (pending.some(({ type, scope }) => type === "cancel" && scope === "session")) {
      for (const { runId, status } of runs) if (status !== "ended") stopping.add(runId);
    }
    return stopping;
  }

  /**
   * Sends a message; while something goes on, in the way that was chosen, and otherwise as the session's main run: one
   * that was sent alongside never makes a session busy, so that nothing could be queued behind it later. Throws
   * CommandError `invalid` for what cannot be sent at all.
   *
   * @param {string} text
   * @param {WhenBusy} whenBusy
   */
  say(text, whenBusy) {
    const active = this.active;
    const seen = this.#ink.drawn;
    if (active !== null && whenBusy === "steer") {
      this.#told("steer", this.#session.steer(text, { runId: active, ifEnded: "send", seen }), text);
      return;
    }
    // What is being stopped does not count as going on: the message waits for its end. Nor does what runs alongside
    // nothing any more, where the next main run is wanted.
    const isMain = active === null || (whenBusy === "alongside" && this.#alongside.has(active));
    const how = isMain || whenBusy === "steer" ? "queue" : whenBusy;
    const run = this.#session.send(text, { whenBusy: how, seen: how === "interrupt" ? seen : null });
    if (how === "alongside") this.#alongside.add(run.id);
    if (run.accepted !== null) this.#told("send", run.accepted, text);
  }

  /**
   * Stops a run. Its message stands still from now on: what the server keeps of it is what is on screen at this moment.
   *
   * @param {string} runId
   */
  stop(runId) {
    this.#stopped([runId], this.#session.run(runId).cancel({ seen: this.#ink.drawn }));
  }

  /** Stops everything that is queued or goes on, likewise. */
  stopAll() {
    const { runs, pending } = this.#session.view;
    const sent = pending.filter(({ type }) => type === "send").map(({ id }) => id);
    const open = runs.filter(({ status }) => status !== "ended").map(({ runId }) => runId);
    this.#stopped([...open, ...sent], this.#session.cancelAll({ seen: this.#ink.drawn }));
  }

  /**
   * Whether the message of a run stands still, while it goes on elsewhere: its stop was pressed here, and nothing has come
   * to say that it goes on nevertheless.
   *
   * @param {string} runId
   */
  standsStill(runId) {
    return this.#stops.get(runId) === true;
  }

  /** The messages go on: the log is another one, in which the place that was on screen means nothing. */
  release() {
    for (const runId of this.#stops.keys()) this.#stops.set(runId, false);
  }

  /**
   * Whether a run was told to stop here, and that was not refused.
   *
   * @param {string} runId
   */
  wasStopped(runId) {
    return this.#stops.has(runId);
  }

  /** @param {string} steerId */
  withdraw(steerId) {
    this.#told("withdraw", this.#session.withdraw(steerId));
  }

  /**
   * @param {string} runId
   * @param {Request} request
   * @param {unknown} value
   */
  answer(runId, request, value) {
    const promise = this.#session.answer(runId, request.id, value);
    this.#told("answer", promise);
    promise.then(
      ({ outcome }) => {
        if (outcome === "accepted") return;
        const why = told(TOO_LATE, outcome);
        const what = why === undefined ? `came to nothing: ${words(outcome)}` : `came too late: ${why}`;
        this.#notices.tell(`Your ${answerTo(request, value)} ${what}.`);
      },
      () => {}, // was told
    );
  }

  /**
   * Sends a steer that came back as a message of its own.
   *
   * @param {{steerId: string, parts: Part[]}} steer
   */
  tryAgain(steer) {
    this.dismiss(steer.steerId);
    this.say(textOf(steer.parts), "queue");
  }

  /** @param {string} steerId */
  dismiss(steerId) {
    this.dismissed.add(steerId);
    this.#changed();
  }

  /**
   * @param {string[]} runIds
   * @param {Promise<{outcome: string, seq?: number, runIds?: string[]}>} promise
   */
  #stopped(runIds, promise) {
    for (const runId of runIds) this.#stops.set(runId, true);
    promise.then(
      ({ outcome, runIds: ended = runIds }) => {
        // Those that the stop did end stand still on: their end may be behind this acknowledgement.
        const kept = new Set(outcome === "cancelled" ? ended : []);
        for (const runId of runIds) if (!kept.has(runId)) this.#stops.set(runId, false);
      },
      () => {
        for (const runId of runIds) this.#stops.delete(runId);
      },
    );
    this.#changed();
    this.#told("cancel", promise);
  }

  /**
   * @param {string} type
   * @param {Promise<{outcome: string, seq?: number}>} promise
   * @param {string} [text] what is given back if nothing came of it
   */
  async #told(type, promise, text = "") {
    const began = performance.now();
    try {
      const { outcome, seq } = await promise;
      const ms = Math.round(performance.now() - began);
      this.lastAck = `${type}: ${outcome}${seq === undefined ? "" : `, seq ${seq}`}, ${ms} ms`;
      if (type === "withdraw" && outcome === "already_applied") this.#notices.tell("That was taken up already.");
      if (type === "send" && outcome === "ended") {
        this.#notices.tell("It was stopped before the server had it: nothing was sent.");
        this.#giveBack(text);
      }
    } catch (error) {
      this.#notices.refused(error);
      if (error instanceof CommandError) this.#giveBack(text);
    }
    this.#changed();
  }
}

/**
 * @param {Request} request
 * @param {unknown} value
 */
function answerTo({ kind, name = "this", prompt }, value) {
  if (kind === "approval") return `${value === true ? "approval" : "refusal"} of ${name}`;
  return prompt === undefined ? `answer for ${name}` : `answer to “${shortened(prompt)}”`;
}
