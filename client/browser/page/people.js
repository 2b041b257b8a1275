/** Who is here: the devices that watch this session, this one marked. */

import { arrange, byId, el, setText } from "./dom.js";

/** @import {View} from "../holdfast/index.js" */

export class People {
  #list = byId("people");
  #more = byId("more-people");
  /** By connection. @type {Map<string, HTMLElement>} */
  #entries = new Map();
  /** @type {View["presence"] | null} */
  #shown = null;
  /** @type {string | null} */
  #device = null;

  /** @param {View} view */
  update({ presence, device, status }) {
    if (presence === this.#shown && device === this.#device) return;
    this.#shown = presence;
    this.#device = device;
    this.#entries = new Map(
      presence.devices.map((present) => [
        present.connection,
        this.#entries.get(present.connection) ?? entry(present.principal, present.device, present.device === device),
      ]),
    );
    arrange(this.#list, this.#entries.values());
    const unnamed = presence.total - presence.devices.length;
    setText(this.#more, unnamed > 0 ? `and ${unnamed} more` : status === "live" ? "" : "Not known while offline.");
    this.#more.hidden = this.#more.textContent === "";
  }
}

/**
 * @param {string} principal
 * @param {string} device
 * @param {boolean} isThis
 */
function entry(principal, device, isThis) {
  return el(
    "li",
    { "data-this": isThis },
    el("span", { class: "name", text: principal }),
    " ",
    el("code", { text: device }),
    isThis && el("span", { class: "tag", text: "this device" }),
  );
}
