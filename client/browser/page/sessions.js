/** The sessions this browser knows, and which of them the address names. */

import { arrange, byId, el, setAttribute, setText } from "./dom.js";
import { recall, remember } from "./remembered.js";

const KEY = "sessions";
const MAX_SESSIONS = 50;
const DEFAULT = "default";
const ID = /^[A-Za-z0-9][\w.:~-]{0,127}$/;
const ADJECTIVES = [
  "amber",
  "brisk",
  "calm",
  "clear",
  "deep",
  "early",
  "gentle",
  "quiet",
  "silver",
  "steady",
  "warm",
  "wide",
];
const NOUNS = [
  "anchor",
  "bay",
  "breeze",
  "current",
  "harbour",
  "island",
  "kelp",
  "lagoon",
  "reef",
  "shore",
  "tide",
  "wave",
];

/** @typedef {{id: string, title: string}} Known newest first; the title is the first thing that was said there */

export class Sessions {
  #list = byId("session-list");
  #open;
  #misnamed;
  #remove;
  /** @type {Map<string, {item: HTMLElement, link: HTMLAnchorElement, title: HTMLElement, name: HTMLElement}>} */
  #entries = new Map();
  #current = DEFAULT;

  /**
   * @param {(id: string) => void} open called when another session is to be shown
   * @param {(name: string) => void} misnamed called when the address named what cannot be one; the default one is shown
   */
  constructor(open, misnamed) {
    this.#open = open;
    this.#misnamed = misnamed;
    this.#remove = (/** @type {string} */ id) => this.#forget(id);
    byId("new-session").addEventListener("click", () => {
      this.go(newName(new Set(known().map((session) => session.id))));
      byId("message").focus({ preventScroll: true });
    });
    byId("skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address names a session, and no place in it
      byId("conversation").focus();
    });
    window.addEventListener("popstate", () => this.start());
    window.addEventListener("storage", ({ key }) => {
      if (key?.endsWith(KEY)) this.#draw();
    });
  }

  /** Shows the session that the address names. */
  start() {
    const name = new URL(location.href).searchParams.get("session") ?? DEFAULT;
    if (ID.test(name)) {
      this.#show(name);
      return;
    }
    history.replaceState(null, "", addressOf(DEFAULT));
    this.#show(DEFAULT);
    this.#misnamed(name);
  }

  /**
   * Shows a session, as a step of the tab's history.
   *
   * @param {string} id
   */
  go(id) {
    if (id === this.#current) return;
    history.pushState(null, "", addressOf(id));
    this.#show(id);
  }

  /**
   * What the current session is called in the list, once something was said in it.
   *
   * @param {string} title
   */
  name(title) {
    const sessions = known();
    const current = sessions.find(({ id }) => id === this.#current);
    if (current === undefined || current.title !== "" || title === "") return;
    current.title = title;
    save(sessions);
    this.#draw();
  }

  /** @param {string} id */
  #show(id) {
    this.#current = id;
    const sessions = known();
    if (!sessions.some((session) => session.id === id)) save([{ id, title: "" }, ...sessions].slice(0, MAX_SESSIONS));
    this.#draw();
    this.#entries.get(id)?.item.scrollIntoView({ block: "nearest" });
    this.#open(id);
  }

  /** @param {string} id */
  #forget(id) {
    save(known().filter((session) => session.id !== id));
    this.#draw();
    byId("new-session").focus();
  }

  #draw() {
    const sessions = known();
    const wanted = sessions.map(({ id, title }) => {
      let entry = this.#entries.get(id);
      if (entry === undefined) {
        entry = this.#entry(id);
        this.#entries.set(id, entry);
      }
      setText(entry.title, title || id);
      entry.name.hidden = title === "";
      setAttribute(entry.link, "aria-current", id === this.#current ? "page" : null);
      return entry.item;
    });
    arrange(this.#list, wanted);
  }

  /** @param {string} id */
  #entry(id) {
    const title = el("span", { class: "title" });
    const name = el("span", { class: "id", text: id });
    const link = el("a", { href: addressOf(id) }, title, name);
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.go(id);
    });
    const remove = el("button", {
      type: "button",
      class: "quiet remove",
      "aria-label": `Remove ${id} from this list`,
      text: "×",
    });
    remove.addEventListener("click", () => this.#remove(id));
    return { item: el("li", {}, link, remove), link, title, name };
  }
}

/** @param {string} id */
function addressOf(id) {
  return `?session=${encodeURIComponent(id)}`;
}

/** @returns {Known[]} */
function known() {
  try {
    const stored = JSON.parse(recall("localStorage", KEY) ?? "[]");
    return stored.filter((/** @type {Known} */ { id, title }) => ID.test(id) && typeof title === "string");
  } catch {
    return []; // another version's, or somebody's hand
  }
}

/** @param {Known[]} sessions */
function save(sessions) {
  remember("localStorage", KEY, JSON.stringify(sessions));
}

/** @param {Set<string>} taken */
function newName(taken) {
  const [a = 0, b = 0, c = 0] = crypto.getRandomValues(new Uint16Array(3));
  const name = `${ADJECTIVES[a % ADJECTIVES.length]}-${NOUNS[b % NOUNS.length]}-${c % 1000}`;
  return taken.has(name) ? `${name}-${a}` : name;
}
