/** The parts of a message, each with its element. `update` brings one to what the view says; `grow` adds a delta. */

import { el, setAttribute, setText } from "./dom.js";
import { link } from "./links.js";
import { appendText, Markdown } from "./markdown.js";
import { shown, textOf } from "./text.js";

/** @import {Position} from "../holdfast/index.js" */
/** @import {AnyPart} from "../holdfast/core/wire.js" */
/** @import {Ink} from "./ink.js" */

/**
 * @typedef {object} PartView
 * @property {string} kind
 * @property {HTMLElement | null} element null for a part that is shown within another one
 * @property {(part: AnyPart, position: Position) => void} update
 * @property {(delta: string, position: Position) => void} [grow] for kinds that take a delta without a look at the view
 * @property {() => void} [halt] what waits to be drawn is not drawn, until `update` is called again
 * @property {() => void} [close] nothing more comes
 */

/** @typedef {(by: string | undefined, device: string | undefined) => string} Actor who did something */

/** Text, and reasoning. @implements {PartView} */
class Prose {
  element;
  #body;
  #ink;
  /** @type {Markdown} */
  #markdown;
  /** In UTF-16 units: how much was handed over, and how much of it is drawn. */
  #given = 0;
  #written = 0;
  #closed = false;

  /**
   * @param {string} kind
   * @param {Ink} ink
   */
  constructor(kind, ink) {
    this.kind = kind;
    this.#ink = ink;
    this.#body = el("div", { class: "prose" });
    this.element =
      kind === "reasoning"
        ? el("details", { class: "reasoning" }, el("summary", { text: "Reasoning" }), this.#body)
        : this.#body;
    this.#markdown = new Markdown(this.#body);
  }

  /**
   * @param {string} delta
   * @param {Position} position
   */
  grow(delta, position) {
    this.#given += delta.length;
    this.#ink.add(this, delta, position);
  }

  /**
   * The text of a part only grows, or is cut at its end. So its length tells what is missing, and a text that was cut
   * where it is drawn is not drawn again.
   *
   * @param {AnyPart} part
   * @param {Position} position
   */
  update(part, position) {
    const text = String(part.text ?? "");
    if (text.length < this.#given) {
      this.halt();
      if (text.length < this.#written) this.#restart();
    }
    if (text.length > this.#given) this.grow(text.slice(this.#given), position);
    if (this.#closed) this.close();
  }

  halt() {
    if (this.#given === this.#written) return;
    this.#ink.drop(this);
    this.#given = this.#written;
  }

  close() {
    this.#closed = true;
    if (this.#written === this.#given) this.#markdown.end();
  }

  /** @param {string} text for the ink: it is this text's turn to be drawn */
  write(text) {
    this.#markdown.write(text);
    this.#written += text.length;
    if (this.#closed) this.close();
  }

  #restart() {
    this.#body.replaceChildren();
    this.#markdown = new Markdown(this.#body);
    this.#given = 0;
    this.#written = 0;
  }
}

/** A tool call, and what came of it. @implements {PartView} */
export class ToolCall {
  kind = "tool_call";
  element;
  #name = el("code");
  #state = el("span", { class: "state" });
  #input = el("pre", { tabindex: 0, role: "group", "aria-label": "Arguments" });
  #result = el("section");
  /** @type {AnyPart | null} */
  #part = null;
  #resolution = el("span", { class: "by" });
  #hasResult = false;
  #hasFailed = false;
  #isRefused = false;

  constructor() {
    const tool = el("span", { class: "tool", text: "Tool" });
    const summary = el("summary", {}, tool, this.#name, this.#resolution, this.#state);
    const asked = el("section", {}, el("h3", { text: "Arguments" }), this.#input);
    this.element = el("details", { class: "call", "data-state": "running" }, summary, asked, this.#result);
    this.#state.textContent = "running…";
  }

  get callId() {
    return this.#part?.callId;
  }

  /** @param {AnyPart} part */
  update(part) {
    if (part === this.#part) return;
    this.#part = part;
    setText(this.#name, String(part.name ?? "tool"));
    setText(this.#input, "input" in part ? shown(part.input) : String(part.arguments ?? ""));
  }

  /** @param {string} delta */
  grow(delta) {
    appendText(this.#input, delta);
  }

  /** @param {AnyPart} result */
  finish(result) {
    this.#hasResult = true;
    const failed = "error" in result;
    this.#hasFailed = failed;
    this.#showState();
    const value = shown(failed ? result.error : result.output);
    const pre = el("pre", { tabindex: 0, role: "group", "aria-label": failed ? "Error" : "Result", text: value });
    this.#result.replaceChildren(el("h3", { text: failed ? "Error" : "Result" }), pre);
  }

  /**
   * Somebody has decided on it.
   *
   * @param {string} told
   * @param {boolean} isRefused
   */
  resolve(told, isRefused) {
    setText(this.#resolution, told);
    this.#isRefused = isRefused;
    if (this.#hasResult) this.#showState();
  }

  #showState() {
    // What was not allowed to run did not fail.
    const state = !this.#hasFailed ? "done" : this.#isRefused ? "refused" : "failed";
    setAttribute(this.element, "data-state", state);
    setText(this.#state, state);
  }

  close() {
    if (this.#hasResult) return;
    setAttribute(this.element, "data-state", "failed");
    setText(this.#state, "no result");
  }
}

/** What came of a tool call: shown in the call's card. @implements {PartView} */
class ToolResult {
  kind = "tool_result";
  element = null;
  #calls;
  /** @type {AnyPart | null} */
  #part = null;

  /** @param {(callId: unknown) => ToolCall | undefined} calls */
  constructor(calls) {
    this.#calls = calls;
  }

  /** @param {AnyPart} part */
  update(part) {
    if (part === this.#part) return;
    this.#part = part;
    this.#calls(part.callId)?.finish(part);
  }
}

/** What somebody told the run while it went on. @implements {PartView} */
class Steer {
  kind = "steer";
  element = el("div", { class: "steer" });
  #actor;

  /** @param {Actor} actor */
  constructor(actor) {
    this.#actor = actor;
  }

  /** @param {AnyPart} part */
  update(part) {
    if (this.element.hasChildNodes()) return;
    const by = this.#actor(String(part.by ?? ""), String(part.device ?? ""));
    const text = textOf(/** @type {AnyPart[]} */ (part.parts));
    this.element.append(el("span", { class: "by", text: `Steered by ${by}` }), el("p", { class: "plain", text }));
  }
}

/** A source or a file: a link, never loaded. @implements {PartView} */
class Reference {
  element = el("p", { class: "reference" });

  /** @param {string} kind */
  constructor(kind) {
    this.kind = kind;
  }

  /** @param {AnyPart} part */
  update(part) {
    const url = String(part.url ?? "");
    const title = String(part.title ?? part.name ?? url);
    const anchor = el("a", { text: title });
    const isLink = link(anchor, url);
    const more = [isLink ? null : url, part.mediaType].filter((text) => text && text !== title).join(", ");
    const label = el("span", { class: "by", text: this.kind === "file" ? "File" : "Source" });
    this.element.replaceChildren(label, " ", isLink ? anchor : title, more && ` (${more})`);
  }
}

/** Data, and parts of a kind that this page does not know. @implements {PartView} */
class Opaque {
  element;
  #name = el("code");
  #value = el("pre", { tabindex: 0, role: "group", "aria-label": "Value" });
  /** @type {AnyPart | null} */
  #part = null;

  /** @param {string} kind */
  constructor(kind) {
    this.kind = kind;
    const summary = el("summary", {}, el("span", { class: "tool", text: "Data" }), this.#name);
    this.element = el("details", { class: "call" }, summary, this.#value);
  }

  /** @param {AnyPart} part */
  update(part) {
    if (part === this.#part) return;
    this.#part = part;
    const { kind, name, value, ...rest } = part;
    setText(this.#name, String(name ?? kind));
    setText(this.#value, shown(kind === "data" ? value : rest));
  }
}

/**
 * @param {string} kind
 * @param {Ink} ink
 * @param {(callId: unknown) => ToolCall | undefined} calls the tool calls of the same message
 * @param {Actor} actor
 * @returns {PartView}
 */
export function partView(kind, ink, calls, actor) {
  switch (kind) {
    case "text":
    case "reasoning":
      return new Prose(kind, ink);
    case "tool_call":
      return new ToolCall();
    case "tool_result":
      return new ToolResult(calls);
    case "steer":
      return new Steer(actor);
    case "source":
    case "file":
      return new Reference(kind);
    default:
      return new Opaque(kind);
  }
}
