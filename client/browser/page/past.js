/** Messages older than those the library holds, and the button that brings them. */

import { byId, setText } from "./dom.js";

/** @import {Message, Session, View} from "../holdfast/index.js" */
/** @import {Notices} from "./notices.js" */

const PAGE = 50;
/** So many old messages are held beside the library's; the oldest go, and can be loaded again. */
const MAX_HELD = 2_000;

export class Past {
  #session;
  #notices;
  #changed;
  #button = /** @type {HTMLButtonElement} */ (byId("load-earlier"));
  #messages = byId("messages");
  /** Oldest first. @type {Message[]} */
  #held = [];
  /** What the library had at the last look. @type {readonly Message[]} */
  #seen = [];
  /** Whether there are older ones than those held; null: as the view says. @type {boolean | null} */
  #more = null;
  #isLoading = false;
  /** Whether the last attempt to load some was refused. */
  #wasRefused = false;

  /**
   * @param {Session} session
   * @param {Notices} notices
   * @param {() => void} changed
   */
  constructor(session, notices, changed) {
    this.#session = session;
    this.#notices = notices;
    this.#changed = changed;
    this.#button.onclick = () => this.load();
    this.#button.hidden = true;
  }

  /**
   * All messages, those of `view` last. What the library has let go of since the last look is held here from now on.
   *
   * @param {View} view
   * @returns {Message[]}
   */
  before({ messages }) {
    const first = messages[0];
    if (first !== undefined && this.#seen[0] !== undefined && this.#seen[0].seq < first.seq) {
      const gone = this.#seen.filter(({ seq }) => seq < first.seq);
      this.#more ??= this.#session.view.more;
      this.#held.push(...gone);
      if (this.#held.length > MAX_HELD) {
        this.#held.splice(0, this.#held.length - MAX_HELD);
        this.#more = true;
      }
    }
    this.#seen = messages;
    return [...this.#held, ...messages];
  }

  /** Another log took this one's place. */
  forget() {
    this.#held = [];
    this.#seen = [];
    this.#more = null;
  }

  /**
   * Shows the button where there is something to load. When it goes, the focus that it had goes to the oldest message.
   *
   * @param {View} view
   */
  offer(view) {
    const hadFocus = document.activeElement === this.#button;
    this.#button.hidden = !(this.#more ?? view.more);
    if (hadFocus && this.#button.hidden) {
      const oldest = /** @type {HTMLElement | null} */ (this.#messages.firstElementChild);
      // When what is in sight has found its place again.
      queueMicrotask(() => (oldest ?? byId("message")).focus());
    }
    setText(this.#button, this.#isLoading ? "Loading earlier messages…" : "Load earlier messages");
  }

  /**
   * Loads more for a reader who is at the beginning already, where no scrolling tells that more is wanted. What was
   * refused is not tried again before the reader asks for it.
   */
  goOn() {
    if (!this.#wasRefused) this.load();
  }

  /** Loads the messages before the oldest here. Does nothing while it does so already, and where there are none. */
  async load() {
    if (this.#isLoading || this.#button.hidden) return;
    this.#isLoading = true;
    this.#wasRefused = false;
    this.#changed();
    const oldest = this.#held[0] ?? this.#session.view.messages[0];
    try {
      const { messages, more } = await this.#session.history({ before: oldest?.seq, limit: PAGE });
      if ((this.#held[0] ?? this.#session.view.messages[0]) === oldest) {
        this.#held.unshift(...messages);
        this.#more = more;
      }
    } catch (error) {
      this.#wasRefused = true;
      this.#notices.refused(error);
    }
    this.#isLoading = false;
    this.#changed();
  }
}
