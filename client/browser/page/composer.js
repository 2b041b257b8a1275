/** The message box, and the buttons that send, steer and stop. */

import { byId, isForInputMethod, setAttribute, setText } from "./dom.js";
import { recall, remember } from "./remembered.js";

/** @import {WhenBusy} from "./actions.js" */

/** What the button is called that does what Enter does. @type {Record<WhenBusy, string>} */
const VERBS = { steer: "Steer", queue: "Queue", interrupt: "Interrupt", alongside: "Alongside" };
const REMEMBERED = "when-busy";

/**
 * @typedef {object} Busy
 * @property {string | null} active the run that Stop stops
 * @property {boolean} isStopping something is being stopped
 * @property {boolean} isClosed nothing can be sent
 */

export class Composer {
  #say;
  #stop;
  #form = byId("composer");
  #box = /** @type {HTMLTextAreaElement} */ (byId("message"));
  /** Send, or Steer; or Stop, while there is nothing to send. One button, so that the focus stays on it. */
  #main = /** @type {HTMLButtonElement} */ (byId("submit"));
  /** Stop, while the main button sends. */
  #side = /** @type {HTMLButtonElement} */ (byId("stop-beside"));
  #modes = [.../** @type {NodeListOf<HTMLInputElement>} */ (this.#form.querySelectorAll("[name=when-busy]"))];
  /** @type {Busy} */
  #busy = { active: null, isStopping: false, isClosed: false };
  #becameStopAt = 0;

  /**
   * @param {(text: string, whenBusy: WhenBusy) => boolean} say returns whether the text was taken
   * @param {() => void} stop
   */
  constructor(say, stop) {
    this.#say = say;
    this.#stop = stop;
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#main.addEventListener("click", (event) => this.#press(event));
    this.#side.addEventListener("click", () => {
      this.#stop();
      this.#box.focus();
    });
    this.#box.addEventListener("input", () => this.#show());
    this.#box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || isForInputMethod(event)) return;
      event.preventDefault();
      this.#send();
    });
    const remembered = recall("localStorage", REMEMBERED);
    for (const mode of this.#modes) {
      mode.checked = mode.value === (remembered !== null && remembered in VERBS ? remembered : "steer");
      mode.addEventListener("change", () => {
        remember("localStorage", REMEMBERED, this.#mode);
        this.#show();
      });
    }
  }

  /** @param {Busy} busy */
  update(busy) {
    this.#busy = busy;
    this.#show();
  }

  focus() {
    this.#box.focus({ preventScroll: true });
  }

  /**
   * Puts a text that could not be sent back, if there is room for it.
   *
   * @param {string} text
   */
  giveBack(text) {
    if (this.#box.value !== "") return;
    this.#box.value = text;
    this.#show();
  }

  get #mode() {
    return /** @type {WhenBusy} */ (this.#modes.find(({ checked }) => checked)?.value ?? "steer");
  }

  get #isEmpty() {
    return this.#box.value.trim() === "";
  }

  #send() {
    const text = this.#box.value.trim();
    if (text === "" || this.#busy.isClosed) return;
    if (!this.#say(text, this.#mode)) return;
    this.#box.value = "";
    this.#show();
  }

  /** @param {MouseEvent} event */
  #press(event) {
    if (this.#main.dataset.does !== "stop") {
      this.#send();
    } else if (event.detail < 2 || event.timeStamp - this.#becameStopAt > 500) {
      // The second click of a double click on Send is not meant for the Stop that came under it.
      this.#stop();
    }
  }

  #show() {
    const { active, isStopping, isClosed } = this.#busy;
    const isStop = this.#isEmpty && (active !== null || isStopping);
    const does = isStop ? "stop" : "send";
    if (this.#main.dataset.does !== does) {
      this.#main.dataset.does = does;
      if (isStop) this.#becameStopAt = performance.now();
    }
    const label = isStop ? (active === null ? "Stopping…" : "Stop") : active === null ? "Send" : VERBS[this.#mode];
    setText(this.#main, label);
    const isIdle = isStop ? active === null : this.#isEmpty || isClosed;
    setAttribute(this.#main, "aria-disabled", isIdle ? "true" : null);
    const hadFocus = document.activeElement === this.#side;
    this.#side.hidden = isStop || active === null;
    if (hadFocus && this.#side.hidden) this.#main.focus();
    setAttribute(this.#form, "data-busy", active !== null);
    setAttribute(this.#box, "placeholder", active === null ? "Message" : "Say something to it…");
  }
}
