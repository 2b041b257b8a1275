/**
 * The conversation: the transcript, what is queued behind it, and what is still on its way.
 *
 * Chunks that only make a text longer go straight to their message; everything else is read from the view, once a frame.
 */

import { AssistantMessage } from "./assistant-message.js";
import { arrange, byId, el } from "./dom.js";
import { Past } from "./past.js";
import { Question } from "./question.js";
import { Requests } from "./requests.js";

/** @import {Change, Message, Part, RunInfo, RunResult, Session, View} from "../holdfast/index.js" */
/** @import {Command, RunChunk} from "../holdfast/core/wire.js" */
/** @import {Actions} from "./actions.js" */
/** @import {RunState} from "./assistant-message.js" */
/** @import {Ink} from "./ink.js" */
/** @import {Notices} from "./notices.js" */
/** @import {Asked} from "./question.js" */

const NONE = Object.freeze(/** @type {never[]} */ ([]));

export class Conversation {
  #session;
  #ink;
  #actions;
  #changed;
  #list = byId("messages");
  #past;
  /** @type {Map<string, Question>} */
  #questions = new Map();
  /** By message id. @type {Map<string, AssistantMessage>} */
  #said = new Map();
  /** Those that go on, by run id. @type {Map<string, AssistantMessage>} */
  #open = new Map();
  /** How runs ended, as far as that was asked. @type {Map<string, RunResult | undefined>} */
  #endings = new Map();
  #requests = new Requests();
  #isStale = true;
  #isReset = false;
  /** Of the log that is shown. */
  #epoch = "";

  /**
   * @param {Session} session
   * @param {Ink} ink
   * @param {Actions} actions
   * @param {Notices} notices
   * @param {() => void} changed called when there is something to draw that no change of the session tells of
   */
  constructor(session, ink, actions, notices, changed) {
    this.#session = session;
    this.#ink = ink;
    this.#actions = actions;
    this.#changed = changed;
    this.#past = new Past(session, notices, () => this.touch());
    this.#list.replaceChildren();
  }

  /** Older messages, and the button that brings them. */
  get past() {
    return this.#past;
  }

  /** How much is shown. */
  get isEmpty() {
    return this.#list.childElementCount === 0;
  }

  /** The next frame reads the view. */
  touch() {
    this.#isStale = true;
    this.#changed();
  }

  /** @param {Change} change */
  take({ events, reset, settled }) {
    if (reset) {
      // What waits to be drawn belongs to something that is gone.
      this.#ink.clear();
      this.#isReset = true;
    }
    if (reset || settled.length > 0 || events.length === 0) this.#isStale = true;
    const { epoch } = this.#session.position;
    for (const event of events) {
      if (event.type === "run.chunk" && !this.#isReset) {
        const chunk = /** @type {RunChunk} */ (event);
        if (this.#actions.standsStill(chunk.runId)) continue;
        if (this.#open.get(chunk.runId)?.chunk(chunk, epoch)) continue;
      }
      this.#requests.take(event);
      this.#isStale = true;
    }
  }

  /** Whether the view is to be read. */
  get isStale() {
    return this.#isStale;
  }

  /** @param {View} view */
  update(view) {
    this.#isStale = false;
    if (this.#isReset) {
      this.#isReset = false;
      this.#questions.clear();
      if (view.position.epoch !== this.#epoch) {
        this.#actions.release();
        this.#requests.forget();
      }
      for (const [id, said] of this.#said) {
        // One that stands still is not drawn again: until its end it shows what it showed when it was stopped.
        if (!this.#actions.standsStill(said.runId)) this.#said.delete(id);
      }
      this.#past.forget();
    }
    this.#epoch = view.position.epoch;
    this.#requests.look(view.runs);
    const states = this.#states(view);
    const runs = new Map(view.runs.map((run) => [run.runId, run]));
    /** @type {Map<string, HTMLElement>} */
    const wanted = new Map();
    this.#open.clear();
    for (const message of this.#past.before(view)) {
      if (message.role === "assistant") wanted.set(message.id, this.#tell(message, runs, states, view));
      else this.#ask(wanted, asked(message, view));
    }
    for (const run of view.runs) if (run.message !== undefined) this.#ask(wanted, queued(run, states, view));
    const known = new Set([...wanted.keys(), ...runs.keys()]);
    for (const command of view.pending) {
      if (command.type === "send" && !known.has(command.id)) this.#ask(wanted, sending(command, states, view));
    }
    for (const id of this.#questions.keys()) if (!wanted.has(id)) this.#questions.delete(id);
    for (const id of this.#said.keys()) if (!wanted.has(id)) this.#said.delete(id);
    const focused = this.#list.contains(document.activeElement) ? document.activeElement?.closest("article") : null;
    arrange(this.#list, wanted.values());
    if (focused && !focused.isConnected) {
      const last = /** @type {HTMLElement | null} */ (this.#list.lastElementChild);
      (last ?? byId("message")).focus({ preventScroll: true });
    }
    this.#past.offer(view);
  }

  /**
   * @param {Map<string, HTMLElement>} wanted
   * @param {Asked} asked
   */
  #ask(wanted, asked) {
    let question = this.#questions.get(asked.runId);
    if (question === undefined) {
      question = new Question(asked.runId, (runId) => this.#actions.stop(runId));
      this.#questions.set(asked.runId, question);
    }
    question.update(asked);
    wanted.set(asked.runId, question.element);
  }

  /**
   * @param {Message} message
   * @param {Map<string, RunInfo>} runs
   * @param {States} states
   * @param {View} view
   */
  #tell(message, runs, states, view) {
    const runId = message.runId ?? "";
    let said = this.#said.get(message.id);
    if (said === undefined) {
      said = new AssistantMessage(message, this.#ink, this.#actions);
      this.#said.set(message.id, said);
    }
    const info = runs.get(runId);
    /** @type {RunState} */
    const state = {
      info,
      ending: this.#ending(message, info),
      isStopping: states.stopping.has(runId),
      standsStill: this.#actions.standsStill(runId),
      wasStopped: this.#actions.wasStopped(runId),
      resolved: this.#requests.of(runId),
      answering: states.answering,
      withdrawing: states.withdrawing,
      steering: states.steering.filter((steer) => steer.runId === runId),
      dismissed: this.#actions.dismissed,
    };
    said.update(message, state, view.position);
    if (message.status === "streaming") this.#open.set(runId, said);
    return said.element;
  }

  /**
   * Who stopped it, which the message does not tell.
   *
   * @param {Message} message
   * @param {RunInfo | undefined} info
   */
  #ending(message, info) {
    if (["streaming", "complete", "error"].includes(message.status) || info === undefined) return undefined;
    const { runId } = info;
    if (!this.#endings.has(runId)) {
      this.#endings.set(runId, undefined);
      this.#session
        .run(runId)
        .ended()
        .then(
          (ending) => {
            this.#endings.set(runId, ending);
            this.touch();
          },
          () => {}, // the client was closed, or the run is forgotten: it stays untold
        );
    }
    return this.#endings.get(runId);
  }

  /** @param {View} view @returns {States} */
  #states({ pending, runs }) {
    const accepted = new Set(runs.flatMap(({ steers }) => steers.map(({ steerId }) => steerId)));
    const steering = pending.flatMap(({ type, id, runId, text, parts }) =>
      type === "steer" && !accepted.has(id)
        ? [{ runId: String(runId), steerId: id, parts: /** @type {Part[]} */ (parts ?? [{ kind: "text", text }]) }]
        : [],
    );
    return {
      stopping: this.#actions.stopping,
      answering: new Set(pending.flatMap(({ type, requestId }) => (type === "answer" ? [String(requestId)] : []))),
      withdrawing: new Set(pending.flatMap(({ type, steerId }) => (type === "withdraw" ? [String(steerId)] : []))),
      steering: steering.length > 0 ? steering : NONE,
    };
  }
}

/**
 * What was asked for here and has no reply yet.
 *
 * @typedef {object} States
 * @property {Set<string>} stopping
 * @property {Set<string>} answering
 * @property {Set<string>} withdrawing
 * @property {readonly {runId: string, steerId: string, parts: Part[]}[]} steering
 */

/**
 * @param {Message} message
 * @param {View} view
 * @returns {Asked}
 */
function asked({ id, runId = id, parts, by, device, at }, view) {
  return { runId, parts, by, device, at, status: "complete", note: "", isOwn: device === view.device };
}

/**
 * @param {RunInfo} run
 * @param {States} states
 * @param {View} view
 * @returns {Asked}
 */
function queued({ runId, message, by, device }, states, view) {
  const waiting = view.runs.filter(({ status }) => status === "queued");
  const place = waiting.findIndex((run) => run.runId === runId);
  return {
    runId,
    parts: message?.parts ?? NONE,
    by,
    device,
    at: message?.at,
    status: "queued",
    note: states.stopping.has(runId) ? "Cancelling…" : place === 0 ? "Queued: next" : `Queued: number ${place + 1}`,
    isOwn: device === view.device,
  };
}

/** The parts of a send, made once, so that they compare equal. @type {WeakMap<Command, readonly Part[]>} */
const partsOf = new WeakMap();

/**
 * @param {Command} command
 * @param {States} states
 * @param {View} view
 * @returns {Asked}
 */
function sending(command, states, view) {
  let parts = partsOf.get(command);
  if (parts === undefined) {
    parts = /** @type {Part[]} */ (command.parts ?? [{ kind: "text", text: command.text }]);
    partsOf.set(command, parts);
  }
  const isStopping = states.stopping.has(command.id);
  const note = view.status === "live" ? "Sending…" : "Waiting for the connection…";
  return {
    runId: command.id,
    parts,
    by: view.principal ?? undefined,
    device: view.device ?? undefined,
    at: undefined,
    status: "sending",
    note: isStopping ? "Stopping…" : note,
    isOwn: true,
  };
}

/** What there is to try where nothing was said yet. */
const EXAMPLES = ["What is the weather in Lisbon?", "count to 300", "delete my notes", "long"];

/**
 * The page of a session in which nothing was said yet.
 *
 * @param {(text: string) => void} say
 */
export function welcome(say) {
  const examples = EXAMPLES.map((text) => {
    const button = el("button", { type: "button", text, onclick: () => say(text) });
    return el("li", {}, button);
  });
  return [
    el("h3", { text: "Say something." }),
    el("p", {
      text: "Stop it, steer it, cut the line, reload, or open this address on a second device: the run goes on.",
    }),
    el("ul", { class: "examples", "aria-label": "Examples" }, ...examples),
  ];
}
