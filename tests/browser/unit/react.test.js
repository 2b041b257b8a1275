import assert from "node:assert/strict";
import test from "node:test";
import { Window } from "happy-dom";
import { Activity, act, createElement, StrictMode } from "react";
import { renderToString } from "react-dom/server";
import { connect } from "../../../client/browser/holdfast/connect.js";
import { useRun, useSession } from "../../../client/browser/holdfast/react.js";
import { rest, until } from "./fakes.js";
import { Server } from "./server.js";

const dom = new Window();
Object.assign(globalThis, { window: dom, document: dom.document, IS_REACT_ACT_ENVIRONMENT: true });
// Later versions of node have one of their own, which cannot be assigned to.
if (globalThis.navigator === undefined) Object.assign(globalThis, { navigator: dom.navigator });
// React looks at its surroundings when it is loaded.
const { createRoot, hydrateRoot } = await import("react-dom/client");

/**
 * A component on a page, under StrictMode.
 *
 * @param {(props: any) => any} component
 * @param {object} first
 */
async function mount(component, first) {
  const container = dom.document.createElement("div");
  const root = createRoot(/** @type {any} */ (container));
  const render = (/** @type {object} */ props) =>
    act(async () => root.render(createElement(StrictMode, null, createElement(component, props))));
  await render(first);
  return {
    text: () => container.textContent,
    render,
    unmount: () => act(async () => root.unmount()),
  };
}

/** Lets what is under way happen, and React with it. @param {() => unknown} condition */
const settled = (condition) => act(() => until(condition));

/** @param {any} props */
function Trip({ server, id, token, device, seen }) {
  const { session, status, messages } = useSession("ws://server.test", {
    session: id,
    token,
    device,
    storage: null,
    WebSocket: server.WebSocket,
  });
  seen?.push([id, session.id, status, messages.length, session]);
  return createElement("p", null, `${session.id} ${status} ${messages.length}`);
}

test("under StrictMode one connection is opened, and unmounting closes it without a word", async () => {
  const server = new Server();
  server.start("r-1");
  const page = await mount(Trip, { server, id: "trip" });
  await settled(() => page.text() === "trip live 2");
  assert.equal(server.sockets.length, 1);
  await page.unmount();
  await settled(() => server.socket.state === "closed");
  await rest();
  assert.deepEqual(
    server.frames.map((frame) => JSON.parse(frame).type),
    ["hello"],
  );
  assert.equal(server.runs.get("r-1")?.status, "running");
});

test("a component that stops a run and goes away in one breath has stopped it", async () => {
  const server = new Server();
  server.start("r-1");
  /** @type {any[]} */
  const seen = [];
  const page = await mount(Trip, { server, id: "trip", seen });
  await settled(() => page.text() === "trip live 2");
  const session = seen.at(-1)[4];
  session.run("r-1").cancel();
  await page.unmount();
  await settled(() => server.socket.state === "closed");
  assert.equal(server.runs.get("r-1")?.reason, "cancelled");
});

test("options that are new objects at each render do not connect again, and the latest token is used", async () => {
  const server = new Server();
  const page = await mount(Trip, { server, id: "trip", token: "t-1" });
  await settled(() => page.text() === "trip live 0");
  await page.render({ server, id: "trip", token: "t-2" });
  await page.render({ server, id: "trip", token: async () => "t-3" });
  assert.equal(server.sockets.length, 1);
  await act(async () => {
    server.cut();
    dom.dispatchEvent(new dom.Event("online"));
    await until(() => server.sockets.length === 2 && page.text() === "trip live 0");
  });
  assert.deepEqual(
    server.received("hello").map(({ token }) => token),
    ["t-1", "t-3"],
  );
  await page.unmount();
});

test("another id is another session at once, and nothing of the old one is shown once more", async () => {
  const server = new Server();
  server.start("r-1");
  /** @type {any[]} */
  const seen = [];
  const page = await mount(Trip, { server, id: "one", seen });
  await settled(() => page.text() === "one live 2");
  const old = seen.at(-1)[4];
  await page.render({ server, id: "two", seen });
  await settled(() => page.text() === "two live 2");
  const first = seen.findIndex(([id]) => id === "two");
  assert.deepEqual(seen[first].slice(0, 4), ["two", "two", "connecting", 0]);
  for (const [id, shown] of seen) assert.equal(id, shown);
  await settled(() => old.status === "closed");
  assert.equal(server.sockets.length, 2);
  assert.equal(server.received("cancel").length, 0);
  await page.unmount();
});

test("another device is another session too", async () => {
  const server = new Server();
  const page = await mount(Trip, { server, id: "trip", device: "a" });
  await settled(() => page.text() === "trip live 0");
  await page.render({ server, id: "trip", device: "b" });
  await settled(() => server.received("hello").length === 2);
  assert.deepEqual(
    server.received("hello").map(({ device }) => device),
    ["a", "b"],
  );
  await page.unmount();
});

test("on a server it renders, and opens nothing; a page takes that over", async () => {
  const server = new Server();
  const html = renderToString(createElement(Trip, { server, id: "trip" }));
  assert.equal(html, "<p>trip connecting 0</p>");
  await rest();
  assert.equal(server.sockets.length, 0);
  const container = dom.document.createElement("div");
  container.innerHTML = html;
  /** @type {unknown[]} */
  const mismatches = [];
  const root = await act(async () =>
    hydrateRoot(/** @type {any} */ (container), createElement(Trip, { server, id: "trip" }), {
      onRecoverableError: (error) => mismatches.push(error),
    }),
  );
  await settled(() => container.textContent === "trip live 0");
  assert.deepEqual(mismatches, []);
  await act(async () => root.unmount());
});

test("a tree that is hidden lets go of its connection, and has one again when it is shown", async () => {
  const server = new Server();
  const Hideable = (/** @type {{mode: "hidden" | "visible"}} */ { mode }) =>
    createElement(Activity, { mode, children: createElement(Trip, { server, id: "trip" }) });
  const page = await mount(Hideable, { mode: "visible" });
  await settled(() => page.text() === "trip live 0");
  await page.render({ mode: "hidden" });
  await settled(() => server.socket.state === "closed");
  await page.render({ mode: "visible" });
  await settled(() => server.sockets.length === 2 && page.text() === "trip live 0");
  await page.unmount();
});

test("a run is shown as it grows, and null where there is none", async () => {
  const server = new Server();
  server.start("r-1");
  const Told = (/** @type {{id: string | null}} */ { id }) => {
    const options = { session: "trip", storage: null, WebSocket: server.WebSocket };
    const run = useRun(useSession("ws://server.test", options).session, id);
    return createElement("b", null, run === null ? "none" : `${run.id} ${run.status} ${run.text}${run.reason}`);
  };
  const page = await mount(Told, { id: null });
  assert.equal(page.text(), "none");
  await page.render({ id: "r-1" });
  await settled(() => page.text() === "r-1 running null");
  server.text("r-1", "One ");
  await settled(() => page.text() === "r-1 running One null");
  server.end("r-1");
  await settled(() => page.text() === "r-1 ended One completed");
  await page.unmount();
});

test("what happens in another run renders nothing", async () => {
  const server = new Server();
  server.start("r-1");
  server.start("r-2");
  const session = connect("ws://server.test", { session: "trip", storage: null, WebSocket: server.WebSocket });
  await session.live();
  let renders = 0;
  const page = await mount(() => {
    renders += 1;
    return createElement("b", null, useRun(session, "r-1").text);
  }, {});
  const before = renders;
  server.text("r-2", "elsewhere");
  await settled(() => session.run("r-2").text === "elsewhere");
  assert.equal(renders, before);
  server.text("r-1", "here");
  await settled(() => page.text() === "here");
  assert.ok(renders > before);
  await page.unmount();
  session.close();
});

test("a stop pressed in a component keeps what was rendered", async () => {
  const server = new Server();
  server.start("r-1");
  /** @type {any} */
  let run;
  function Stoppable() {
    const { session } = useSession("ws://server.test", { session: "trip", storage: null, WebSocket: server.WebSocket });
    run = useRun(session, "r-1");
    return createElement("b", null, run.text);
  }
  const page = await mount(Stoppable, {});
  await settled(() => run.status === "running");
  server.text("r-1", "One ");
  await settled(() => page.text() === "One ");
  await act(async () => {
    const stopped = run.run.cancel();
    server.text("r-1", "two");
    await stopped;
  });
  await settled(() => run.reason === "cancelled");
  assert.equal(page.text(), "One ");
  await page.unmount();
});
