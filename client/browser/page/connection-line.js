/** How the connection is, in a word or two. */

import { byId, setAttribute, setText } from "./dom.js";

/** @import {View} from "../holdfast/index.js" */

const WORDS = {
  connecting: "Connecting…",
  "catching up": "Catching up…",
  live: "Live",
  offline: "Offline",
  closed: "Closed",
};

export class ConnectionLine {
  #line = byId("connection");
  #word = byId("connection-word");
  /** Not read out: it changes every second. */
  #wait = byId("connection-wait");

  /** @param {View} view */
  update({ status, nextAttemptAt }) {
    setAttribute(this.#line, "data-status", status);
    setText(this.#word, WORDS[status]);
    const seconds = nextAttemptAt === null ? null : Math.max(0, Math.ceil((nextAttemptAt - Date.now()) / 1_000));
    setText(this.#wait, seconds === null ? "" : `next try in ${seconds} s`);
  }
}
