/**
 * The page: one session at a time, drawn once a frame.
 *
 * What a frame of the server brings is put aside when it comes; what is on screen changes in animation frames alone. So
 * the position that was drawn is known, and is what a stop sends as seen.
 */

import { ConnectionClosedError, connect } from "../holdfast/index.js";
import { Actions } from "./actions.js";
import { tellWhetherAdmitted } from "./admission.js";
import { Announcer } from "./announcer.js";
import { Composer } from "./composer.js";
import { ConnectionLine } from "./connection-line.js";
import { Conversation, welcome } from "./conversation.js";
import { byId, isForInputMethod, setText } from "./dom.js";
import { Drawers } from "./drawers.js";
import { Follow } from "./follow.js";
import { Ink } from "./ink.js";
import { NetworkPanel } from "./network-panel.js";
import { Notices } from "./notices.js";
import { People } from "./people.js";
import { forgetSessions } from "./remembered.js";
import { RunList } from "./run-list.js";
import { Sessions } from "./sessions.js";
import { SignIn } from "./sign-in.js";
import { shortened, textOf } from "./text.js";
import { Network } from "./throttled-socket.js";

/** @import {Change, Session, View} from "../holdfast/index.js" */
/** @import {WhenBusy} from "./actions.js" */

/** What of a frame is spent on drawing text. */
const DRAWING_MS = 12;
/** How often what counts down is drawn. */
const TICK_MS = 250;
/** The close code of a token that was not taken. */
const TOKEN_REJECTED = 4500;

class App {
  #network = new Network();
  #notices = new Notices(byId("notices"), byId("message"));
  #announcer = new Announcer();
  #connectionLine = new ConnectionLine();
  #people = new People();
  #drawers = new Drawers();
  #networkPanel;
  #composer;
  #follow;
  #signIn;
  #sessions;
  /** What belongs to the session of the moment. @type {Open | null} */
  #open = null;
  #isDue = false;
  /** The refusal for which a token was asked for last. @type {Error | null} */
  #askedFor = null;

  constructor() {
    this.#networkPanel = new NetworkPanel(this.#network, (isOpen) => {
      if (isOpen) this.#drawers.activity.set(true);
      this.#draw();
    });
    this.#composer = new Composer(
      (text, whenBusy) => this.#say(text, whenBusy),
      () => this.#stop(),
    );
    this.#follow = new Follow(() => this.#open?.conversation.past.load());
    this.#signIn = new SignIn(
      () => this.#connect(),
      () => this.#signedOut(),
    );
    this.#sessions = new Sessions(
      (id) => {
        this.#drawers.close();
        this.#connect(id);
      },
      (name) =>
        this.#notices.tell(`“${shortened(name, 40)}” cannot be the name of a session: this is the default one.`),
    );
    byId("connect-again").addEventListener("click", () => {
      if (wantsToken(this.#open?.session.view.error)) {
        this.#signIn.ask();
        return;
      }
      this.#connect();
      this.#composer.focus();
    });
    byId("welcome").append(...welcome((text) => this.#say(text, "queue") && this.#composer.focus()));
    document.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("visibilitychange", () => this.#draw());
    setInterval(() => this.#tick(), TICK_MS);
    this.#sessions.start();
    this.#composer.focus();
  }

  /** The session of the moment. */
  get session() {
    return this.#open?.session ?? null;
  }

  /** @param {string} [id] by default the session of the moment, connected anew */
  #connect(id = this.#open?.session.id ?? "default") {
    // Leaving says nothing about any run: they go on.
    this.#open?.leave();
    const token = () => this.#signIn.token;
    const session = connect(".", { session: id, token, WebSocket: this.#network.Socket, client: "holdfast-page" });
    this.#notices.clear();
    this.#announcer.forget();
    this.#open = new Open(session, this.#notices, {
      draw: () => this.#draw(),
      took: (change) => this.#announcer.take(change),
      giveBack: (text) => this.#composer.giveBack(text),
    });
    setText(byId("title"), id);
    document.title = `${id} · Holdfast`;
    this.#follow.toEnd();
    this.#draw();
  }

  /** Nothing that was said is left in this tab for whoever comes next. */
  #signedOut() {
    this.#open?.leave(); // writes down what it knows: so it comes first
    forgetSessions();
    this.#composer.focus();
    this.#connect();
  }

  /**
   * @param {string} text
   * @param {WhenBusy} whenBusy
   */
  #say(text, whenBusy) {
    this.#notices.said();
    try {
      this.#open?.actions.say(text, whenBusy);
    } catch (error) {
      this.#notices.refused(error);
      return false;
    }
    this.#follow.toEnd();
    this.#draw();
    return true;
  }

  #stop() {
    const active = this.#open?.actions.active;
    if (active) this.#open?.actions.stop(active);
    this.#draw();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key !== "Escape" || isForInputMethod(event) || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]") !== null) return; // closes by itself
    if (this.#drawers.close()) return;
    this.#stop();
  }

  /** What is on screen is out of date. */
  #draw() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#frame();
    });
  }

  #tick() {
    const view = this.#open?.session.view;
    if (view && (view.nextAttemptAt !== null || this.#networkPanel.isOpen)) this.#draw();
  }

  #frame() {
    const open = this.#open;
    if (open === null) return;
    this.#follow.look();
    const { session, conversation, ink, actions } = open;
    const { position } = session;
    if (conversation.isStale) {
      const { view } = session;
      this.#follow.hold(() => conversation.update(view));
      open.runList.update(view);
      this.#people.update(view);
      this.#composer.update({
        active: actions.active,
        isStopping: actions.stopping.size > 0,
        isClosed: view.status === "closed",
      });
      this.#sessions.name(titleOf(view));
      this.#showEnd(view);
      if (this.#follow.isAtTop) conversation.past.goOn();
    }
    ink.draw(performance.now() + DRAWING_MS, position);
    this.#follow.keep();
    if (ink.waits) this.#draw();
    const { view } = session;
    this.#connectionLine.update(view);
    byId("welcome").hidden = !conversation.isEmpty || view.position.epoch === "";
    this.#networkPanel.update(session, view, actions, ink.drawn, open.at);
  }

  /** @param {View} view */
  #showEnd({ status, error }) {
    const isStranger = wantsToken(error);
    if (status === "closed" && isStranger && error !== this.#askedFor) {
      this.#askedFor = error;
      this.#signIn.ask();
    } else if (status === "live") this.#signIn.done();
    byId("ended").hidden = status !== "closed";
    setText(
      byId("ended-what"),
      isStranger ? "This server wants to know who you are." : "This page is no longer connected.",
    );
    setText(byId("ended-why"), error === null || isStranger ? "" : error.message);
    setText(byId("connect-again"), isStranger ? "Sign in" : "Connect again");
  }
}

/** A session and what shows it. */
class Open {
  ink = new Ink();
  /** The time of the last event. @type {number | null} */
  at = null;
  #unsubscribe;

  /**
   * @param {Session} session
   * @param {Notices} notices
   * @param {{draw: () => void, took: (change: Change) => void, giveBack: (text: string) => void}} page
   */
  constructor(session, notices, { draw, took, giveBack }) {
    this.session = session;
    const touched = () => {
      this.conversation.touch();
    };
    this.actions = new Actions(session, this.ink, notices, { changed: touched, giveBack });
    this.conversation = new Conversation(session, this.ink, this.actions, notices, draw);
    this.runList = new RunList(this.actions);
    this.#unsubscribe = session.subscribe((change) => {
      this.at = change.events.at(-1)?.at ?? this.at;
      this.conversation.take(change);
      for (const { error } of change.settled) if (error !== null) notices.refused(error);
      took(change);
      draw();
    });
  }

  leave() {
    this.#unsubscribe();
    this.session.close();
  }
}

/**
 * @param {Error | null | undefined} error
 * @returns {error is ConnectionClosedError}
 */
function wantsToken(error) {
  return error instanceof ConnectionClosedError && error.closeCode === TOKEN_REJECTED;
}

/** @param {View} view */
function titleOf({ messages, more }) {
  const first = more ? undefined : messages.find(({ role }) => role === "user");
  return first === undefined ? "" : shortened(textOf(first.parts), 48);
}

const app = new App();
tellWhetherAdmitted();

/** For the console: `holdfast.session` is the session on screen, with everything the library can do. */
Object.defineProperty(window, "holdfast", {
  value: Object.freeze({
    get session() {
      return app.session;
    },
  }),
});
