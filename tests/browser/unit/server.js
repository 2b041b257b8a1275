/** A server of one session, in memory: enough of the protocol to hold a client to its side of it. */

import { setImmediate } from "node:timers";
import { Transcript } from "../../../client/browser/holdfast/core/transcript.js";

/** @typedef {Record<string, any>} Json */

/** A socket as a page sees it. What happens to it is told in the next turns of the event loop, as in a browser. */
class ServerSocket {
  /** @type {((event: any) => void) | null} */
  onopen = null;
  /** @type {((event: any) => void) | null} */
  onmessage = null;
  /** @type {((event: any) => void) | null} */
  onclose = null;
  /**
   * Outside of browsers an error that nobody listens to ends the process, and so it ends the test here.
   *
   * @type {(event: any) => void}
   */
  onerror = () => {
    throw new Error("nobody listens to the socket's errors");
  };
  /** @type {"opening" | "open" | "closed"} */
  state = "opening";
  /** What the server thinks it has told. */
  isLive = false;
  device = "";

  /**
   * @param {Server} server
   * @param {string} url
   * @param {string[]} protocols
   */
  constructor(server, url, protocols) {
    this.server = server;
    this.url = url;
    this.protocols = protocols;
    server.sockets.push(this);
    if (server.network === "up") setImmediate(() => this.open());
    else if (server.network === "refused") setImmediate(() => this.drop(1006));
  }

  open() {
    if (this.state !== "opening") return;
    this.state = "open";
    this.onopen?.({});
  }

  /** @param {string} frame */
  send(frame) {
    if (this.state === "opening") throw new Error("not open yet");
    if (this.state === "open" && this.server.network === "up") this.server.receives(this, frame);
  }

  /** @param {number} [code] */
  close(code) {
    this.closedWith = code;
    const was = this.state;
    this.state = "closed";
    // On a dead network the browser waits for a reply that never comes.
    if (was !== "closed" && this.server.network === "up")
      setImmediate(() => this.onclose?.({ code: 1005, reason: "" }));
  }

  /** @param {Json | Json[]} message */
  tell(message) {
    const data = JSON.stringify(message);
    setImmediate(() => {
      if (this.state === "open" && this.server.network === "up") this.onmessage?.({ data });
    });
  }

  /**
   * @param {number} code
   * @param {string} [reason]
   */
  drop(code, reason = "") {
    if (this.state === "closed") return;
    if (this.state === "opening") this.onerror({});
    this.state = "closed";
    this.isLive = false;
    this.onclose?.({ code, reason });
  }
}

export class Server {
  epoch = "E1";
  /** `refused`: no connection can be opened; `silent`: nothing arrives in either direction, and nobody is told. @type {"up" | "refused" | "silent"} */
  network = "up";
  /** @type {ServerSocket[]} */
  sockets = [];
  /** Every frame that arrived. @type {string[]} */
  frames = [];
  /** Commands of these types get no reply, as if they had been lost. @type {Set<string>} */
  loses = new Set();
  /** The events of the log, all of them. @type {Json[]} */
  log = [];
  heartbeatMs = 20_000;
  frameBytes = 1_048_576;
  /** Who everybody is. */
  principal = "ana";
  /** Tokens that are good; null for any. @type {string | null} */
  token = null;
  /** @type {Map<string, {status: string, reason?: string, seq?: number, cause?: string, parts: number}>} */
  runs = new Map();
  /** @type {Map<string, Json>} the acknowledgements that are remembered */
  #replies = new Map();
  #transcript = new Transcript();
  #trimmed = 0;

  constructor() {
    const server = this;
    this.WebSocket = /** @type {typeof WebSocket} */ (
      /** @type {unknown} */ (
        class extends ServerSocket {
          /**
           * @param {string} url
           * @param {string[]} protocols
           */
          constructor(url, protocols) {
            super(server, url, protocols);
          }
        }
      )
    );
  }

  get head() {
    return this.log.length;
  }

  /** The connection of the moment. */
  get socket() {
    const socket = this.sockets.at(-1);
    if (socket === undefined) throw new Error("nobody has connected");
    return socket;
  }

  /** What has arrived, decoded. @param {string} type @returns {Json[]} */
  received(type) {
    return this.frames.map((frame) => JSON.parse(frame)).filter((message) => message.type === type);
  }

  /** Every connection is gone, without a word. */
  cut() {
    for (const socket of this.sockets) socket.drop(1006);
  }

  /** The raw events so far are kept no longer: a cursor among them gets a snapshot. */
  trim() {
    this.#trimmed = this.head;
  }

  /** @param {Json | Json[]} message to all who are live */
  broadcast(message) {
    for (const socket of this.sockets) if (socket.isLive) socket.tell(message);
  }

  // ---- what happens in the session

  /**
   * @param {Json[]} events appended in one go, and told in one frame
   */
  append(...events) {
    const first = this.head + 1;
    const stamped = events.map((event, number) => ({ ...event, seq: first + number, at: 1_000 + first + number }));
    for (const event of stamped) {
      this.log.push(event);
      this.#transcript.apply(/** @type {any} */ (event));
    }
    this.#transcript.epoch = this.epoch;
    this.broadcast(stamped.length === 1 ? /** @type {Json} */ (stamped[0]) : stamped);
    return this.head;
  }

  /**
   * @param {string} runId
   * @param {string} [text]
   * @param {string} [device]
   */
  start(runId, text = "Hello", device = "other") {
    this.runs.set(runId, { status: "running", parts: 0 });
    const message = { id: `u~${runId}`, role: "user", parts: [{ kind: "text", text }], by: "ana", device, at: 1_000 };
    return this.append(
      { type: "message", command: runId, runId, after: null, message },
      {
        type: "run.started",
        runId,
        agent: "demo",
        by: "ana",
        device,
        messageId: `a~${runId}`,
        after: `u~${runId}`,
        attempt: 1,
        node: "n-1",
      },
    );
  }

  /**
   * @param {string} runId
   * @param {string[]} deltas each an event; all in one frame
   */
  text(runId, ...deltas) {
    return this.append(...deltas.map((delta) => ({ type: "run.chunk", runId, part: 0, kind: "text", delta })));
  }

  /**
   * @param {string} runId
   * @param {string} [reason]
   * @param {Json} [fields]
   */
  end(runId, reason = "completed", fields = {}) {
    const seq = this.append({ type: "run.ended", runId, reason, returned: [], ...fields });
    this.runs.set(runId, { status: "ended", reason, seq, cause: fields.cause, parts: 0 });
    return seq;
  }

  // ---- what a client says

  /**
   * @param {ServerSocket} socket
   * @param {string} frame
   */
  receives(socket, frame) {
    this.frames.push(frame);
    const message = JSON.parse(frame);
    if (message.type === "hello") return this.#hello(socket, message);
    if (message.type === "pong" || this.loses.has(message.type)) return;
    const before = this.#replies.get(message.id);
    const reply = before === undefined ? this.#decide(socket, message) : { ...before, duplicate: true };
    if (reply.type === "ack" && reply.seq === this.head) this.#replies.set(message.id, reply);
    socket.tell(reply);
  }

  /**
   * @param {ServerSocket} socket
   * @param {Json} hello
   */
  #hello(socket, { token, device, cursor }) {
    if (this.token !== null && token !== this.token) {
      setImmediate(() => socket.drop(4500, "token rejected"));
      return;
    }
    socket.isLive = true;
    socket.device = device;
    const usable = cursor?.epoch === this.epoch && cursor.seq <= this.head && cursor.seq >= this.#trimmed;
    const resume = cursor === undefined ? "snapshot" : usable ? "tail" : "reset";
    const at = this.log.at(-1)?.at ?? 0;
    const { epoch, head, heartbeatMs, frameBytes } = this;
    const limits = {
      frameBytes,
      eventBytes: 262_144,
      messageBytes: 1_048_576,
      commandItems: 1_024,
      commandValues: 8_192,
    };
    socket.tell({
      type: "welcome",
      session: "trip",
      connection: `c-${this.sockets.length}`,
      principal: this.principal,
      device,
      at: 1_000,
      epoch,
      head,
      resume,
      heartbeatMs,
      features: [],
      limits,
    });
    if (usable) {
      for (const event of this.log.slice(cursor.seq)) socket.tell(event);
    } else {
      const messages = this.#transcript.messages().filter(({ seq }) => seq > this.#trimmed);
      const more = messages.length < this.#transcript.messages().length;
      const runs = this.#transcript.runs().filter(({ startedSeq = 0 }) => startedSeq > this.#trimmed);
      const reset = resume === "reset";
      socket.tell({ type: "snapshot", epoch, seq: head, at, reset, messages, runs, more, last: true });
    }
    socket.tell({ type: "caughtUp", seq: head, at: 1_000 });
  }

  /**
   * @param {ServerSocket} socket
   * @param {Json} command
   * @returns {Json}
   */
  #decide(socket, command) {
    const { id } = command;
    const ack = (/** @type {Json} */ fields) => ({ type: "ack", id, ...fields });
    switch (command.type) {
      case "send": {
        const known = this.runs.get(id);
        if (known !== undefined) return ack({ outcome: "ended", runId: id, reason: known.reason, cause: known.cause });
        const main = [...this.runs].find(([, run]) => run.status === "running")?.[0];
        if (command.whenBusy === "steer" && main !== undefined) return ack({ outcome: "steered", runId: main });
        if (command.whenBusy === "reject" && main !== undefined) {
          return { type: "error", id, code: "busy", message: "There is a run.", retryable: true };
        }
        return ack({ outcome: "started", runId: id, seq: this.start(id, command.text, socket.device) });
      }
      case "cancel": {
        const run = this.runs.get(command.runId);
        if (run?.status === "ended") {
          return ack({ outcome: "already_ended", runId: command.runId, reason: run.reason, seq: run.seq });
        }
        if (run === undefined && command.ifUnknown !== "prevent") return ack({ outcome: "unknown_run" });
        const cause = run === undefined ? "prevented" : "user";
        const kept = run !== undefined && command.seen !== undefined ? { kept: this.#kept(command) } : {};
        const ended = { cause, by: "ana", device: socket.device, ...kept };
        return ack({ outcome: "cancelled", runId: command.runId, seq: this.end(command.runId, "cancelled", ended) });
      }
      case "history": {
        const older = this.#transcript.messages().filter(({ seq }) => seq < (command.before ?? Infinity));
        const messages = older.slice(-(command.limit ?? 50));
        return { type: "page", id, messages, more: messages.length < older.length, last: true };
      }
      case "auth":
        return ack({ outcome: "refreshed", expiresAt: 2_000 });
      case "ping":
        return ack({ outcome: "pong", head: this.head });
      default:
        return ack({ outcome: "accepted", runId: command.runId });
    }
  }

  /** @param {Json} command */
  #kept({ runId, seen }) {
    const shown = this.log.filter(
      (event) => event.runId === runId && event.type === "run.chunk" && event.seq <= seen.seq,
    );
    const text = shown.map((event) => event.delta).join("");
    return text === "" ? [] : [{ part: 0, length: [...text].length }];
  }
}
