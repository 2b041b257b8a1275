/** What the assistant said: its parts as they grow, what its run asks for, and how it ended. */

import { RequestCard } from "./cards.js";
import { arrange, el, setAttribute, setText } from "./dom.js";
import { partView, ToolCall } from "./parts.js";
import { outcome, resolution, standing, textOf } from "./text.js";

/** @import {Message, Part, Position, RunInfo} from "../holdfast/index.js" */
/** @import {PendingSteer, Request, ReturnedSteer, RunChunk} from "../holdfast/core/wire.js" */
/** @import {Actions} from "./actions.js" */
/** @import {Ink} from "./ink.js" */
/** @import {PartView} from "./parts.js" */
/** @import {Resolved} from "./requests.js" */

/**
 * What is known of the run behind a message, beside the message itself.
 *
 * @typedef {object} RunState
 * @property {RunInfo | undefined} info
 * @property {import("../holdfast/index.js").RunResult | undefined} ending
 * @property {boolean} isStopping a stop was given here and is not acknowledged yet
 * @property {boolean} standsStill a stop was given here: until the run has ended, no more of the message is shown
 * @property {boolean} wasStopped a stop was given here, and was not refused
 * @property {readonly Resolved[]} resolved what became of its requests
 * @property {ReadonlySet<string>} answering requests that were answered here, likewise
 * @property {ReadonlySet<string>} withdrawing steers that were taken back here, likewise
 * @property {readonly {steerId: string, parts: Part[]}[]} steering steers that were given here, likewise
 * @property {ReadonlySet<string>} dismissed returned steers that were dealt with
 */

export class AssistantMessage {
  element;
  #ink;
  #actions;
  #body = el("div", { class: "body" });
  #asks = el("div", { class: "asks" });
  #resolved = el("div", { class: "resolved", hidden: true });
  #steers = el("div", { class: "steers" });
  #outcome = el("p", { class: "outcome" });
  #agent = "the assistant";
  /** @type {Message} */
  #message;
  /** @type {PartView[]} */
  #parts = [];
  /** @type {Map<string, RequestCard>} */
  #cards = new Map();
  /** @type {Map<string, HTMLElement>} */
  #steerCards = new Map();

  /**
   * @param {Message} message
   * @param {Ink} ink
   * @param {Actions} actions
   */
  constructor(message, ink, actions) {
    this.#ink = ink;
    this.#actions = actions;
    this.#message = { ...message, parts: [] };
    this.element = el(
      "article",
      { class: "said", "data-run-id": message.runId, tabindex: -1 },
      this.#body,
      this.#asks,
      this.#resolved,
      this.#steers,
      this.#outcome,
    );
  }

  get runId() {
    return this.#message.runId ?? "";
  }

  /**
   * Takes in a chunk, where that is nothing but more of a part that is here. Returns whether it did; otherwise `update`
   * is to be called.
   *
   * @param {RunChunk} event
   * @param {string} epoch
   */
  chunk(event, epoch) {
    const part = this.#parts[event.part];
    if (part?.grow === undefined || part.kind !== event.kind || "input" in event) return false;
    if (typeof event.delta === "string") part.grow(event.delta, { epoch, seq: event.seq });
    if (event.done) part.close?.();
    return true;
  }

  /**
   * Brings it to what the view says.
   *
   * @param {Message} message
   * @param {RunState} run
   * @param {Position} position of that view
   */
  update(message, run, position) {
    if (run.standsStill && message.status === "streaming") for (const part of this.#parts) part.halt?.();
    else if (message !== this.#message) this.#updateParts(message, position);
    this.#agent = run.info?.agent ?? this.#agent; // what an old run was is not told for ever
    setAttribute(this.element, "aria-label", `Message from ${this.#agent}`);
    setAttribute(this.element, "data-status", message.status);
    setAttribute(this.element, "aria-busy", message.status === "streaming" ? "true" : null);
    this.#showResolved(run.resolved);
    this.#updateRequests(run.info?.requests ?? [], run);
    this.#updateSteers(run);
    setText(this.#outcome, this.#told(message, run));
    this.#outcome.hidden = this.#outcome.textContent === "";
  }

  /**
   * @param {Message} message
   * @param {Position} position
   */
  #updateParts(message, position) {
    const had = this.#parts;
    const isSame = had.length <= message.parts.length && had.every((part, i) => part.kind === message.parts[i]?.kind);
    if (!isSame) {
      // A part was taken out, as nothing of it had been seen: those behind it have other numbers now.
      for (const part of had) if ("write" in part) this.#ink.drop(/** @type {any} */ (part));
      this.#parts = [];
      this.#body.replaceChildren();
    }
    for (const [index, part] of message.parts.entries()) {
      let view = this.#parts[index];
      if (view === undefined) {
        view = partView(
          part.kind,
          this.#ink,
          (callId) => this.#call(callId),
          (by, device) => this.#actions.actor(by, device),
        );
        this.#parts.push(view);
        if (view.element !== null) this.#body.append(view.element);
      }
      view.update(part, position);
      if (message.status !== "streaming") view.close?.();
    }
    this.#message = message;
  }

  /**
   * @param {readonly Request[]} requests
   * @param {RunState} run
   */
  #updateRequests(requests, run) {
    const open = new Set(requests.map(({ id }) => id));
    const hadFocus = this.#asks.contains(document.activeElement);
    for (const id of this.#cards.keys()) if (!open.has(id)) this.#cards.delete(id);
    for (const request of requests) {
      let card = this.#cards.get(request.id);
      if (card === undefined) {
        const runId = /** @type {string} */ (this.#message.runId);
        card = new RequestCard(request, (value) => this.#actions.answer(runId, request, value));
        this.#cards.set(request.id, card);
      }
      card.update(run.answering.has(request.id));
    }
    arrange(
      this.#asks,
      [...this.#cards.values()].map(({ element }) => element),
    );
    // The card with the focus has gone: to the next one, or to the message itself.
    if (hadFocus && !this.#asks.contains(document.activeElement)) {
      const next = /** @type {HTMLElement | null} */ (this.#asks.querySelector("button, input"));
      (next ?? this.element).focus({ preventScroll: true });
    }
  }

  /**
   * Who decided what: on the card of the tool call that it was about, or where the request was.
   *
   * @param {readonly Resolved[]} all
   */
  #showResolved(all) {
    const lines = [];
    for (const { request, outcome: came, value, by, device } of all) {
      const told = resolution({ outcome: came, value, kind: request?.kind }, this.#actions.actor(by, device));
      const call = request?.callId === undefined ? undefined : this.#call(request.callId);
      if (call === undefined) lines.push([request?.name ?? request?.prompt, told].filter(Boolean).join(": "));
      else call.resolve(told, request?.kind === "approval" && came === "answered" && value !== true);
    }
    const shown = [...this.#resolved.children].map(({ textContent }) => textContent);
    if (lines.join("\n") === shown.join("\n")) return;
    this.#resolved.hidden = lines.length === 0;
    this.#resolved.replaceChildren(...lines.map((text) => el("p", { class: "note", text })));
  }

  /** @param {unknown} callId */
  #call(callId) {
    return /** @type {ToolCall | undefined} */ (
      this.#parts.find((view) => view instanceof ToolCall && view.callId === callId)
    );
  }

  /** @param {RunState} run */
  #updateSteers(run) {
    /** @type {Map<string, () => HTMLElement>} */
    const wanted = new Map();
    for (const steer of run.info?.steers ?? []) wanted.set(`waiting ${steer.steerId}`, () => this.#waiting(steer));
    for (const steer of run.steering) wanted.set(`sending ${steer.steerId}`, () => sending(steer));
    for (const steer of run.info?.returned ?? []) {
      if (!run.dismissed.has(steer.steerId)) wanted.set(`returned ${steer.steerId}`, () => this.#returned(steer));
    }
    const hadFocus = this.#steers.contains(document.activeElement);
    for (const key of this.#steerCards.keys()) if (!wanted.has(key)) this.#steerCards.delete(key);
    for (const [key, make] of wanted) if (!this.#steerCards.has(key)) this.#steerCards.set(key, make());
    for (const [key, card] of this.#steerCards) {
      const steerId = key.slice(key.indexOf(" ") + 1);
      for (const button of card.querySelectorAll("button")) {
        setAttribute(button, "aria-disabled", run.withdrawing.has(steerId) ? "true" : null);
      }
    }
    arrange(this.#steers, this.#steerCards.values());
    if (hadFocus && !this.#steers.contains(document.activeElement)) this.element.focus({ preventScroll: true });
  }

  /** @param {PendingSteer} steer */
  #waiting(steer) {
    return el(
      "div",
      { class: "steer", "data-status": "waiting" },
      el("span", {
        class: "by",
        text: `Steer by ${this.#actions.actor(steer.by, steer.device)}, waiting to be taken up`,
      }),
      el("p", { class: "plain", text: textOf(steer.parts) }),
      el("button", { type: "button", text: "Withdraw", onclick: () => this.#actions.withdraw(steer.steerId) }),
    );
  }

  /** @param {ReturnedSteer} steer */
  #returned(steer) {
    const text = textOf(steer.parts);
    return el(
      "div",
      { class: "steer", "data-status": "returned" },
      el("span", { class: "by", text: "Came back: the run ended before it was taken up" }),
      el("p", { class: "plain", text }),
      el(
        "div",
        { class: "row" },
        el("button", { type: "button", text: "Try again", onclick: () => this.#actions.tryAgain(steer) }),
        el("button", { type: "button", text: "Dismiss", onclick: () => this.#actions.dismiss(steer.steerId) }),
      ),
    );
  }

  /**
   * @param {Message} message
   * @param {RunState} run
   */
  #told(message, { info, ending, isStopping, standsStill, wasStopped }) {
    if (message.status === "streaming") return isStopping || standsStill ? "Stopping…" : "";
    if (message.status === "complete" && wasStopped) return "It had already finished.";
    const { cause, error } = ending ?? info ?? {};
    const by = ending?.by && this.#actions.actor(ending.by, ending.device);
    return outcome({ reason: message.reason, cause, by, error }) || standing(message.status);
  }
}

/** @param {{parts: Part[]}} steer */
function sending(steer) {
  return el(
    "div",
    { class: "steer", "data-status": "sending" },
    el("span", { class: "by", text: "Sending…" }),
    el("p", { class: "plain", text: textOf(steer.parts) }),
  );
}
