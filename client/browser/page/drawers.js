/** The side panels: columns where there is room, drawers over the conversation where there is none. */

import { byId } from "./dom.js";

const WIDE = "(min-width: 1180px)";
const MEDIUM = "(min-width: 800px)";

/** One panel and the button that opens it as a drawer. */
class Drawer {
  #panel;
  #button;
  #column;
  #changed;
  #isOpen = false;

  /**
   * @param {string} panel
   * @param {string} button
   * @param {string} column media query for when it is a column
   * @param {() => void} changed
   */
  constructor(panel, button, column, changed) {
    this.#panel = byId(panel);
    this.#button = byId(button);
    this.#column = matchMedia(column);
    this.#changed = changed;
    this.#button.addEventListener("click", () => this.set(!this.#isOpen));
    this.#column.addEventListener("change", () => this.set(false));
    this.set(false);
  }

  get isOpen() {
    return this.#isOpen;
  }

  get isColumn() {
    return this.#column.matches;
  }

  /** @param {boolean} isOpen */
  set(isOpen) {
    const wasOpen = this.#isOpen;
    this.#isOpen = isOpen && !this.isColumn;
    this.#panel.toggleAttribute("data-open", this.#isOpen);
    this.#button.setAttribute("aria-expanded", String(this.#isOpen));
    this.#changed();
    if (this.#isOpen) this.#panel.focus({ preventScroll: true });
    else if (wasOpen) (this.#button.checkVisibility() ? this.#button : byId("message")).focus({ preventScroll: true });
  }
}

export class Drawers {
  #covered = [byId("skip"), byId("main"), byId("bar")];
  #backdrop = byId("backdrop");
  /** @type {Drawer[]} */
  #drawers = [];

  constructor() {
    const changed = () => this.#changed();
    const sessions = new Drawer("sessions", "open-sessions", MEDIUM, changed);
    const activity = new Drawer("activity", "open-activity", WIDE, changed);
    this.#drawers = [sessions, activity];
    this.activity = activity;
    this.#backdrop.addEventListener("click", () => this.close());
    for (const button of document.querySelectorAll("[data-closes-drawer]")) {
      button.addEventListener("click", () => this.close());
    }
  }

  /** Closes what is open; returns whether something was. */
  close() {
    const open = this.#drawers.filter(({ isOpen }) => isOpen);
    for (const drawer of open) drawer.set(false);
    return open.length > 0;
  }

  #changed() {
    const isOpen = this.#drawers.some((drawer) => drawer.isOpen);
    this.#backdrop.hidden = !isOpen;
    // Neither Tab nor a screen reader's cursor leaves a drawer for what it covers.
    for (const element of this.#covered) element.inert = isOpen;
  }
}
