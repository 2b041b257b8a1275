import assert from "node:assert/strict";
import test from "node:test";
import { outcome } from "../../../client/browser/page/text.js";

test("an end is told in words; one that is simply complete, or has not come, in none", () => {
  assert.equal(outcome({}), "");
  assert.equal(outcome({ reason: "completed" }), "");
  assert.equal(outcome({ reason: "cancelled", by: "ana", device: "phone" }), "Stopped by ana (phone)");
  assert.equal(outcome({ reason: "expired", cause: "deadline" }), "Expired: its time was up");
});

test("an end of a newer server is told by its name, or in the server's words", () => {
  assert.equal(outcome({ reason: "over_budget" }), "Ended: over budget");
  assert.equal(outcome({ reason: "over_budget", by: "ana" }), "Ended by ana: over budget");
  const error = { code: "budget", message: "The month's budget is used up." };
  assert.equal(outcome({ reason: "over_budget", error }), "Ended: The month's budget is used up.");
});
