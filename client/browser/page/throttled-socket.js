/**
 * A network of one's own: a WebSocket class whose connections can be cut, slowed down and refused, so that it can be seen
 * what a bad network does to a session. It touches this page only.
 */

/** What is delayed: each frame by `delayMs`, and by its length where a second carries no more than `bytesPerSecond`. */
/** @typedef {{delayMs: number, bytesPerSecond: number}} Pace */

/** @type {Pace} */
export const FULL_SPEED = { delayMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY };
/** What a browser says of a connection that was lost. */
const LOST = { code: 1006, reason: "", wasClean: false };

export class Network {
  /** Whether every connection fails. */
  isHeld = false;
  pace = FULL_SPEED;
  /** The WebSocket class of this network. @type {typeof WebSocket} */
  Socket;
  /** @type {Set<ThrottledSocket>} */
  #sockets = new Set();

  constructor() {
    const network = this;
    const sockets = this.#sockets;
    this.Socket = /** @type {any} */ (
      class extends ThrottledSocket {
        /**
         * @param {string | URL} url
         * @param {string | string[]} [protocols]
         */
        constructor(url, protocols) {
          super(url, protocols, network);
          sockets.add(this);
          this.addEventListener("close", () => sockets.delete(this));
        }
      }
    );
  }

  /** Every connection of the moment is lost, as if a cable had been pulled. New ones can be made. */
  cut() {
    for (const socket of [...this.#sockets]) socket.lose();
  }

  /** @param {boolean} isHeld whether there is no network at all */
  hold(isHeld) {
    this.isHeld = isHeld;
    if (isHeld) this.cut();
  }
}

/** Frames in one direction, in order, each when its time has come. */
class Lane {
  #network;
  #pass;
  /** @type {{value: unknown, due: number}[]} */
  #queue = [];
  #busyUntil = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {Network} network
   * @param {(value: any) => void} pass
   */
  constructor(network, pass) {
    this.#network = network;
    this.#pass = pass;
  }

  /**
   * @param {unknown} value
   * @param {number} bytes
   */
  put(value, bytes) {
    const { delayMs, bytesPerSecond } = this.#network.pace;
    const now = performance.now();
    this.#busyUntil = Math.max(this.#busyUntil, now) + (1_000 * bytes) / bytesPerSecond;
    const due = this.#busyUntil + delayMs;
    if (due <= now && this.#queue.length === 0) {
      this.#pass(value);
      return;
    }
    this.#queue.push({ value, due });
    this.#timer ??= setTimeout(() => this.#run(), due - now);
  }

  clear() {
    clearTimeout(this.#timer);
    this.#queue = [];
  }

  #run() {
    this.#timer = undefined;
    let passed = 0;
    const now = performance.now();
    for (const { value, due } of this.#queue) {
      if (due > now) break;
      passed += 1;
      this.#pass(value);
    }
    this.#queue.splice(0, passed);
    const next = this.#queue[0];
    if (next !== undefined) this.#timer = setTimeout(() => this.#run(), next.due - performance.now());
  }
}

/** One connection over a `Network`, with a WebSocket's interface. */
class ThrottledSocket extends EventTarget {
  /** @type {((event: Event) => void) | null} */
  onopen = null;
  /** @type {((event: MessageEvent) => void) | null} */
  onmessage = null;
  /** @type {((event: Event) => void) | null} */
  onerror = null;
  /** @type {((event: CloseEvent) => void) | null} */
  onclose = null;
  /** @type {WebSocket | null} */
  #inner = null;
  /** @type {number} */
  #state = WebSocket.CONNECTING;
  #url;
  #inbound;
  #outbound;

  /**
   * @param {string | URL} url
   * @param {string | string[] | undefined} protocols
   * @param {Network} network
   */
  constructor(url, protocols, network) {
    super();
    this.#url = String(url);
    this.#inbound = new Lane(network, (/** @type {Event} */ event) => this.#tell(event));
    this.#outbound = new Lane(network, (/** @type {string} */ data) => {
      // A page that comes back finds its socket closed before it is told so, and to send there is an error in the console.
      if (this.#inner?.readyState === WebSocket.OPEN) this.#inner.send(data);
    });
    if (network.isHeld) {
      setTimeout(() => this.lose());
      return;
    }
    const inner = new WebSocket(url, protocols);
    this.#inner = inner;
    inner.onopen = () => this.#inbound.put(new Event("open"), 0);
    inner.onmessage = ({ data }) => this.#inbound.put(new MessageEvent("message", { data }), String(data).length);
    // Behind what came before it.
    inner.onclose = ({ code, reason, wasClean }) =>
      this.#inbound.put(new CloseEvent("close", { code, reason, wasClean }), 0);
  }

  get readyState() {
    return this.#state;
  }

  get url() {
    return this.#inner?.url ?? this.#url;
  }

  get protocol() {
    return this.#inner?.protocol ?? "";
  }

  get bufferedAmount() {
    return this.#inner?.bufferedAmount ?? 0;
  }

  /** @param {string} data */
  send(data) {
    if (this.#state === WebSocket.OPEN) this.#outbound.put(data, data.length);
  }

  /**
   * @param {number} [code]
   * @param {string} [reason]
   */
  close(code, reason) {
    if (this.#state >= WebSocket.CLOSING) return;
    this.#state = WebSocket.CLOSING;
    if (this.#inner === null) this.lose();
    else this.#inner.close(code, reason);
  }

  /** The network is gone: nothing more comes or goes. */
  lose() {
    if (this.#state === WebSocket.CLOSED) return;
    const inner = this.#inner;
    this.#inner = null;
    this.#inbound.clear();
    this.#outbound.clear();
    if (inner !== null) {
      inner.onopen = null;
      inner.onmessage = null;
      inner.onclose = null;
      inner.close();
    }
    this.#tell(new Event("error"));
    this.#tell(new CloseEvent("close", LOST));
  }

  /** @param {Event} event */
  #tell(event) {
    if (this.#state === WebSocket.CLOSED) return;
    if (event.type === "open") this.#state = WebSocket.OPEN;
    if (event.type === "close") this.#state = WebSocket.CLOSED;
    const handlers = { open: this.onopen, message: this.onmessage, error: this.onerror, close: this.onclose };
    const handler = /** @type {((event: Event) => void) | null} */ (handlers[/** @type {"open"} */ (event.type)]);
    handler?.call(this, event);
    this.dispatchEvent(event);
  }
}
