import assert from "node:assert/strict";
import test, { mock } from "node:test";

mock.timers.enable({ apis: ["setTimeout"] });
let now = 0;
mock.method(performance, "now", () => now);

/** A socket in the hands of the test. */
class FakeSocket extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSING = 2;
  static CLOSED = 3;
  /** @type {FakeSocket[]} */
  static made = [];
  onopen = () => {};
  onmessage = (/** @type {{data: string}} */ _event) => {};
  onclose = (/** @type {{code: number, reason: string, wasClean: boolean}} */ _event) => {};
  /** @type {string[]} */
  sent = [];
  isClosed = false;
  readyState = FakeSocket.OPEN;

  constructor() {
    super();
    FakeSocket.made.push(this);
  }

  /** @param {string} data */
  send(data) {
    this.sent.push(data);
  }

  close() {
    this.isClosed = true;
  }
}

/** Node 20 has none. */
class FakeCloseEvent extends Event {
  /**
   * @param {string} type
   * @param {{code: number}} how
   */
  constructor(type, { code }) {
    super(type);
    this.code = code;
  }
}

Object.assign(globalThis, { WebSocket: FakeSocket, CloseEvent: FakeCloseEvent });
const { Network } = await import("../../../client/browser/page/throttled-socket.js");

/** @param {number} ms */
function pass(ms) {
  now += ms;
  mock.timers.tick(ms);
}

/** @param {InstanceType<typeof Network>} network */
function connected(network) {
  const socket = new network.Socket("ws://server/");
  const inner = /** @type {FakeSocket} */ (FakeSocket.made.at(-1));
  /** @type {string[]} */
  const heard = [];
  socket.onopen = () => heard.push("open");
  socket.onmessage = ({ data }) => heard.push(data);
  socket.onclose = ({ code }) => heard.push(`close ${code}`);
  inner.onopen();
  return { socket, inner, heard };
}

test("At full speed everything passes at once, in both directions.", () => {
  const { socket, inner, heard } = connected(new Network());
  inner.onmessage({ data: "hello" });
  socket.send("hi");
  inner.onclose({ code: 4001, reason: "", wasClean: true });
  assert.deepEqual([heard, inner.sent], [["open", "hello", "close 4001"], ["hi"]]);
  assert.equal(socket.readyState, FakeSocket.CLOSED);
});

test("A throttled connection delays by time and by length, and keeps the order.", () => {
  const network = new Network();
  const { socket, inner, heard } = connected(network);
  network.pace = { delayMs: 100, bytesPerSecond: 10 };
  inner.onmessage({ data: "12345" });
  inner.onmessage({ data: "67890" });
  socket.send("x");
  network.pace = { delayMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY };
  inner.onmessage({ data: "last" });
  pass(599);
  assert.deepEqual([heard, inner.sent], [["open"], ["x"]]);
  pass(1);
  assert.deepEqual(heard, ["open", "12345"]);
  pass(500);
  assert.deepEqual(heard, ["open", "12345", "67890", "last"]);
});

test("A connection that is cut is lost at once, and nothing comes of what was under way.", () => {
  const network = new Network();
  const { socket, inner, heard } = connected(network);
  network.pace = { delayMs: 100, bytesPerSecond: Number.POSITIVE_INFINITY };
  inner.onmessage({ data: "late" });
  network.cut();
  pass(1_000);
  inner.onmessage?.({ data: "later" });
  socket.send("too late");
  assert.deepEqual([heard, inner.sent, inner.isClosed], [["open", "close 1006"], [], true]);
});

test("What is sent to a socket that has closed without a word goes nowhere.", () => {
  const { socket, inner } = connected(new Network());
  inner.readyState = FakeSocket.CLOSED;
  socket.send("too late");
  assert.deepEqual(inner.sent, []);
});

test("While it is held offline no connection can be opened; afterwards one can.", () => {
  const network = new Network();
  network.hold(true);
  const made = FakeSocket.made.length;
  const socket = new network.Socket("ws://server/");
  /** @type {number[]} */
  const codes = [];
  socket.onclose = ({ code }) => codes.push(code);
  assert.deepEqual(codes, [], "not before its maker could listen");
  pass(0);
  assert.deepEqual([codes, FakeSocket.made.length], [[1006], made]);
  network.hold(false);
  assert.deepEqual(connected(network).heard, ["open"]);
});
