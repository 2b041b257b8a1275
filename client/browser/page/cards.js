/** What a run asks a person for, as cards with buttons. */

import { el, isForInputMethod, setAttribute, setText } from "./dom.js";
import { clock, shown, words } from "./text.js";

/** @import {Request} from "../holdfast/core/wire.js" */

/**
 * A request and the way to answer it. The answer is given once; until the session has it, the card says so.
 */
export class RequestCard {
  element;
  #answer;
  #state = el("p", { class: "note" });
  /** @type {HTMLButtonElement[]} */
  #buttons = [];
  #isAnswered = false;

  /**
   * @param {Request} request
   * @param {(value: unknown) => void} answer
   */
  constructor(request, answer) {
    this.#answer = answer;
    this.element = this.#card(request);
    if (request.expiresAt !== undefined) {
      this.element.append(el("p", { class: "note", text: `Waits for an answer until ${clock(request.expiresAt)}.` }));
    }
    this.element.append(this.#state);
  }

  /** @param {boolean} isPending an answer was given here and is not acknowledged yet */
  update(isPending) {
    this.#isAnswered = isPending;
    // Not `disabled`: that would drop the focus.
    for (const button of this.#buttons) setAttribute(button, "aria-disabled", isPending ? "true" : null);
    setText(this.#state, isPending ? "Sending your answer…" : "");
  }

  /** @param {Request} request */
  #card(request) {
    switch (request.kind) {
      case "approval":
        return this.#approval(request);
      case "input":
      case "tool":
        return this.#input(request);
      default: // of a newer server: others may answer it
        return unanswerable(request);
    }
  }

  /** @param {Request} request */
  #approval(request) {
    const name = request.name ?? "this";
    return el(
      "section",
      { role: "group", class: "ask", "aria-label": `Approval: ${name}` },
      el("h3", {}, "May ", el("code", { text: name }), " run?"),
      request.input === undefined
        ? null
        : el("pre", { tabindex: 0, role: "group", "aria-label": "Arguments of the call", text: shown(request.input) }),
      el(
        "div",
        { class: "row" },
        this.#button("Approve", "primary", () => true),
        this.#button("Refuse", "", () => false),
      ),
    );
  }

  /** @param {Request} request */
  #input(request) {
    const isTool = request.kind === "tool";
    const prompt = request.prompt ?? (isTool ? `The result of ${request.name ?? "a tool"}` : "An answer");
    const schema = /** @type {{type?: unknown, enum?: unknown} | undefined} */ (request.schema);
    const choices = Array.isArray(schema?.enum) ? schema.enum : schema?.type === "boolean" ? [true, false] : null;
    const card = el("section", { role: "group", class: "ask", "aria-label": prompt }, el("h3", { text: prompt }));
    if (isTool && request.input !== undefined) {
      card.append(
        el("pre", { tabindex: 0, role: "group", "aria-label": "Arguments of the call", text: shown(request.input) }),
      );
    }
    if (choices !== null) {
      const buttons = choices.map((choice) => this.#button(shown(choice), "", () => choice));
      card.append(el("div", { class: "row" }, ...buttons));
      return card;
    }
    const box = el("input", { type: "text", "aria-label": prompt, autocomplete: "off" });
    const give = () => readAs(schema?.type, box.value);
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !isForInputMethod(event)) this.#give(give());
    });
    card.append(el("div", { class: "row" }, box, this.#button("Answer", "primary", give)));
    return card;
  }

  /**
   * @param {string} text
   * @param {string} className
   * @param {() => unknown} value
   */
  #button(text, className, value) {
    const button = el("button", { type: "button", class: className, text, onclick: () => this.#give(value()) });
    this.#buttons.push(button);
    return button;
  }

  /** @param {unknown} value */
  #give(value) {
    if (this.#isAnswered) return;
    this.update(true);
    this.#answer(value);
  }
}

/** @param {Request} request */
function unanswerable({ kind }) {
  const text = `This page cannot answer what is asked for: ${words(kind)}.`;
  return el("section", { role: "group", class: "ask", "aria-label": text }, el("p", { text }));
}

/**
 * What was typed, as the value that a schema asks for; as text where it is none.
 *
 * @param {unknown} type
 * @param {string} text
 */
function readAs(type, text) {
  if (type === undefined || type === "string") return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
