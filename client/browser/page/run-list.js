/** The run list: what goes on, what waits, and how the last ones ended; each can be cancelled here. */

import { arrange, byId, el, setAttribute, setText } from "./dom.js";
import { outcome, shortened, textOf, words } from "./text.js";

/** @import {RunInfo, View} from "../holdfast/index.js" */
/** @import {Actions} from "./actions.js" */

/** Ended runs that are shown, beside all that have not. */
const MAX_ENDED = 12;

class Entry {
  element;
  #title = el("span", { class: "title" });
  #state = el("span", { class: "state" });
  #cancel;

  /**
   * @param {string} runId
   * @param {(runId: string) => void} cancel
   */
  constructor(runId, cancel) {
    this.#cancel = el("button", { type: "button", class: "quiet", text: "Cancel" });
    this.#cancel.addEventListener("click", () => cancel(runId));
    const head = el("span", { class: "run-head" }, this.#title, this.#cancel);
    this.element = el("li", { "data-run-id": runId, tabindex: -1 }, head, this.#state);
  }

  /**
   * @param {RunInfo} run
   * @param {string} title
   * @param {boolean} isStopping
   */
  update(run, title, isStopping) {
    const name = title || shortened(run.runId, 32);
    setText(this.#title, name);
    setAttribute(this.#cancel, "aria-label", `Cancel run: ${name}`);
    setAttribute(this.#title, "title", run.runId);
    setAttribute(this.element, "data-status", run.status);
    setAttribute(this.element, "data-reason", run.reason);
    setText(this.#state, stateOf(run, isStopping));
    const hadFocus = document.activeElement === this.#cancel;
    this.#cancel.hidden = run.status === "ended" || isStopping;
    if (hadFocus && this.#cancel.hidden) this.element.focus({ preventScroll: true });
  }
}

export class RunList {
  #list = byId("runs");
  #none = byId("no-runs");
  #all = byId("end-all");
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** What was asked, by run: the list outlives the transcript's beginning. @type {Map<string, string>} */
  #titles = new Map();
  #actions;

  /** @param {Actions} actions */
  constructor(actions) {
    this.#actions = actions;
    this.#all.onclick = () => actions.stopAll();
  }

  /** @param {View} view */
  update(view) {
    const stopping = this.#actions.stopping;
    const ended = view.runs.filter(({ status }) => status === "ended");
    const left = new Set(ended.slice(0, -MAX_ENDED).map(({ runId }) => runId));
    const shown = view.runs.filter(({ runId }) => !left.has(runId)).reverse();
    this.#learn(view, shown);
    const wanted = shown.map((run) => {
      let entry = this.#entries.get(run.runId);
      if (entry === undefined) {
        entry = new Entry(run.runId, (runId) => this.#actions.stop(runId));
        this.#entries.set(run.runId, entry);
      }
      entry.update(run, this.#titles.get(run.runId) ?? "", stopping.has(run.runId));
      return entry.element;
    });
    const ids = new Set(shown.map(({ runId }) => runId));
    for (const id of this.#entries.keys()) if (!ids.has(id)) this.#entries.delete(id);
    arrange(this.#list, wanted);
    this.#none.hidden = wanted.length > 0;
    const open = view.runs.filter(({ status, runId }) => status !== "ended" && !stopping.has(runId));
    const hadFocus = document.activeElement === this.#all;
    this.#all.hidden = open.length < 2;
    if (hadFocus && this.#all.hidden) byId("message").focus({ preventScroll: true });
  }

  /**
   * @param {View} view
   * @param {RunInfo[]} shown
   */
  #learn(view, shown) {
    const ids = new Set(shown.map(({ runId }) => runId));
    for (const id of this.#titles.keys()) if (!ids.has(id)) this.#titles.delete(id);
    if (shown.every(({ runId }) => this.#titles.has(runId))) return;
    for (const { runId, message } of shown) if (message) this.#titles.set(runId, shortened(textOf(message.parts)));
    for (const { role, runId, parts } of view.messages) {
      if (role === "user" && runId !== undefined && ids.has(runId)) this.#titles.set(runId, shortened(textOf(parts)));
    }
  }
}

/**
 * @param {RunInfo} run
 * @param {boolean} isStopping
 */
function stateOf(run, isStopping) {
  if (run.status !== "ended" && isStopping) return "Stopping…";
  switch (run.status) {
    case "queued":
      return "Queued";
    case "running":
      return "Running";
    case "waiting":
      return "Needs an answer";
    case "ended":
      return outcome({ ...run, by: undefined }) || "Completed";
    default: // of a newer server
      return words(run.status);
  }
}
