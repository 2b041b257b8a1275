import assert from "node:assert/strict";
import test from "node:test";
import { outcome, resolution, standing } from "../../../client/browser/page/text.js";
import { ENDS } from "./wire.js";

test("an end is told in words; one that is simply complete, or has not come, in none", () => {
  assert.equal(outcome({}), "");
  assert.equal(outcome({ reason: "completed" }), "");
  assert.equal(outcome({ reason: "cancelled", by: "ana", device: "phone" }), "Stopped by ana (phone)");
  assert.equal(outcome({ reason: "expired", cause: "deadline" }), "Expired: its time was up");
});

test("every end and every cause has words of its own", () => {
  for (const [reason, { causes }] of Object.entries(ENDS)) {
    if (reason === "completed") continue;
    const told = [undefined, ...causes.filter((cause) => cause !== "user")].map((cause) => outcome({ reason, cause }));
    assert.equal(new Set(told).size, told.length);
    for (const line of told) assert.doesNotMatch(line, /^Ended|^$|_/);
  }
  assert.equal(
    outcome({ reason: "expired", cause: "deadline", by: "holdfast", device: "n" }),
    "Expired: its time was up",
  );
  assert.equal(outcome({ reason: "cancelled", cause: "prevented", by: "ana" }), "Stopped by ana before it began");
});

test("a cause of a newer server is told by its name", () => {
  assert.equal(outcome({ reason: "cancelled", cause: "over_quota", by: "ana" }), "Stopped by ana: over quota");
  assert.equal(outcome({ reason: "expired", cause: "constructor" }), "Expired: constructor");
});

test("what a request came to is told in words, that of a newer server by its name", () => {
  assert.equal(resolution({ outcome: "answered", kind: "approval", value: true }, "ana"), "Approved by ana");
  assert.equal(resolution({ outcome: "expired" }, ""), "Expired");
  assert.equal(resolution({ outcome: "withdrawn" }, ""), "Not answered");
  assert.equal(resolution({ outcome: "put_off" }, ""), "Not answered: put off");
});

test("an end of a newer server is told by its name, or in the server's words", () => {
  assert.equal(outcome({ reason: "over_budget" }), "Ended: over budget");
  assert.equal(outcome({ reason: "over_budget", by: "ana" }), "Ended by ana: over budget");
  const error = { code: "budget", message: "The month's budget is used up." };
  assert.equal(outcome({ reason: "over_budget", error }), "Ended: The month's budget is used up.");
});

test("a message's status of a newer server is told by its name, and no other", () => {
  for (const status of ["streaming", "complete", "interrupted", "error"]) assert.equal(standing(status), "");
  assert.equal(standing("on_hold"), "on hold");
  assert.equal(standing("constructor"), "constructor");
});
