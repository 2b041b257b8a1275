import "fake-indexeddb/auto";
import assert from "node:assert/strict";
import test from "node:test";
import { indexedDBStorage } from "../../../client/browser/holdfast/browser/indexeddb.js";
import { LINGER_MS } from "../../../client/browser/holdfast/client.js";
import { Locks, Page, turn, until } from "./fakes.js";
import { Server } from "./server.js";

test("IndexedDB keeps a session like any other storage", async () => {
  const server = new Server();
  const locks = new Locks();
  const page = new Page({ locks });
  const session = await page.live(server, { storage: indexedDBStorage("session") });
  server.loses.add("send");
  session.send("Hi", { runId: "r-1" });
  session.close();
  await page.clock.advance(LINGER_MS);
  await until(() => locks.held.size === 0);
  server.loses.clear();
  const after = new Page({ locks }).open(server, { storage: indexedDBStorage("session") });
  await until(() => after.run("r-1").status === "running");
  assert.equal(after.device, session.device);
  after.close();
  await until(() => locks.held.size === 0);
});

test("IndexedDB records are set, replaced and removed, and the database may be deleted meanwhile", async () => {
  const storage = indexedDBStorage("records");
  assert.equal(await storage.getItem("a"), null);
  await storage.setItem("a", "1");
  await storage.setItem("a", "2");
  assert.equal(await indexedDBStorage("records").getItem("a"), "2");
  await new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase("records");
    request.onsuccess = resolve;
    request.onerror = reject;
  });
  assert.equal(await storage.getItem("a"), null);
  await storage.setItem("a", "3");
  await storage.removeItem("a");
  await turn();
  assert.equal(await storage.getItem("a"), null);
});
