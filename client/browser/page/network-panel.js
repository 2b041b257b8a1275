/** The network panel: spoils this tab's connection on purpose, and shows what the client holds while it does. */

import { byId, setText } from "./dom.js";
import { duration } from "./text.js";
import { FULL_SPEED } from "./throttled-socket.js";

/** @import {Position, Session, View} from "../holdfast/index.js" */
/** @import {Actions} from "./actions.js" */
/** @import {Network, Pace} from "./throttled-socket.js" */

/** @type {Record<string, Pace>} */
const PACES = {
  full: FULL_SPEED,
  far: { delayMs: 300, bytesPerSecond: Number.POSITIVE_INFINITY },
  slow: { delayMs: 300, bytesPerSecond: 2_000 },
  crawl: { delayMs: 1_000, bytesPerSecond: 400 },
};

export class NetworkPanel {
  #network;
  #panel = byId("network");
  #toggle = byId("network-toggle");
  #fields = new Map(
    [...this.#panel.querySelectorAll("[data-field]")].map((field) => [field.getAttribute("data-field"), field]),
  );

  /**
   * @param {Network} network
   * @param {(isOpen: boolean) => void} toggled
   */
  constructor(network, toggled) {
    this.#network = network;
    this.#toggle.addEventListener("click", () => {
      this.#panel.hidden = !this.#panel.hidden;
      this.#toggle.setAttribute("aria-expanded", String(!this.#panel.hidden));
      toggled(!this.#panel.hidden);
    });
    byId("cut").addEventListener("click", () => network.cut());
    const hold = /** @type {HTMLInputElement} */ (byId("hold-offline"));
    hold.addEventListener("change", () => {
      network.hold(hold.checked);
      // What a browser says when its network is back: the client does not wait out its backoff.
      if (!hold.checked) window.dispatchEvent(new Event("online"));
    });
    const throttle = /** @type {HTMLSelectElement} */ (byId("throttle"));
    throttle.addEventListener("change", () => {
      network.pace = PACES[throttle.value] ?? FULL_SPEED;
    });
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  /** Whether this tab's network is spoiled at the moment. */
  get isSpoiled() {
    return this.#network.isHeld || this.#network.pace !== FULL_SPEED;
  }

  close() {
    this.#panel.hidden = true;
    this.#toggle.setAttribute("aria-expanded", "false");
  }

  /**
   * @param {Session} session
   * @param {View} view
   * @param {Actions} actions
   * @param {Position | null} drawn
   * @param {number | null} at the time of the last event
   */
  update(session, view, actions, drawn, at) {
    this.#toggle.toggleAttribute("data-spoiled", this.isSpoiled);
    if (!this.isOpen) return;
    const { epoch, seq } = session.position;
    const wait = view.nextAttemptAt === null ? null : Math.max(0, view.nextAttemptAt - Date.now());
    this.#show("status", view.status);
    this.#show("epoch", epoch || "none yet");
    this.#show("seq", String(seq));
    this.#show("at", at === null ? "none yet" : new Date(at).toISOString().slice(11, 23));
    this.#show("drawn", drawn === null ? "nothing yet" : String(drawn.seq));
    this.#show("lastAck", actions.lastAck || "none yet");
    this.#show("nextAttempt", wait === null ? "none planned" : `in ${duration(wait)}`);
    const { length } = view.pending;
    this.#show("pending", length === 0 ? "none" : `${length}: ${view.pending.map(({ type }) => type).join(", ")}`);
  }

  /**
   * @param {string} name
   * @param {string} text
   */
  #show(name, text) {
    const field = this.#fields.get(name);
    if (field) setText(field, text);
  }
}
