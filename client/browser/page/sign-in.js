/** Asks for the token where the server wants one. It stays in this tab, and never stands in the address. */

import { byId } from "./dom.js";
import { forget, recall, remember } from "./remembered.js";

const REMEMBERED = "token";

export class SignIn {
  #dialog = /** @type {HTMLDialogElement} */ (byId("sign-in"));
  #box = /** @type {HTMLInputElement} */ (byId("token"));
  #wrong = byId("token-wrong");
  #out = byId("sign-out");
  #token = recall("sessionStorage", REMEMBERED) ?? undefined;

  /**
   * @param {() => void} given called when there is another token to try
   * @param {() => void} signedOut called when the token is forgotten
   */
  constructor(given, signedOut) {
    this.#out.hidden = this.token === undefined;
    this.#out.addEventListener("click", () => {
      this.#token = undefined;
      forget("sessionStorage", REMEMBERED);
      this.#out.hidden = true;
      signedOut();
    });
    byId("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = this.#box.value.trim();
      if (token === "") return;
      this.#token = token;
      remember("sessionStorage", REMEMBERED, token);
      this.#out.hidden = false;
      given();
    });
  }

  get token() {
    return this.#token;
  }

  /** The server did not take the token of the moment, or wants one. */
  ask() {
    this.#wrong.hidden = this.token === undefined;
    this.#wrong.textContent = this.token === undefined ? "" : "The server did not take that. Try another one.";
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#box.focus();
    this.#box.select();
  }

  /** The server lets this tab in. */
  done() {
    if (!this.#dialog.open) return;
    this.#dialog.close();
    this.#box.value = "";
  }
}
