import assert from "node:assert/strict";
import test from "node:test";
import { Window } from "happy-dom";

const dom = new Window();
Object.assign(globalThis, { document: dom.document });
const { RequestCard } = await import("../../../client/browser/page/cards.js");

/**
 * The card of a request, and what is given by pressing all its buttons.
 *
 * @param {Record<string, unknown>} request
 */
function shown(request) {
  /** @type {unknown[]} */
  const given = [];
  const card = new RequestCard(/** @type {any} */ ({ id: "q", ...request }), (value) => given.push(value));
  const buttons = [...card.element.querySelectorAll("button")];
  for (const button of buttons) {
    card.update(false);
    button.click();
  }
  return { text: card.element.textContent, given, labels: buttons.map(({ textContent }) => textContent) };
}

test("an approval is given or refused, and a choice is made of what there is", () => {
  assert.deepEqual(shown({ kind: "approval", name: "delete", callId: "c", input: {} }).given, [true, false]);
  assert.deepEqual(shown({ kind: "input", prompt: "Which?", schema: { enum: ["a", "b"] } }).given, ["a", "b"]);
  assert.deepEqual(shown({ kind: "tool", name: "where", callId: "c", input: {} }).labels, ["Answer"]);
});

test("a request of a kind of a newer server is told by its name, and cannot be answered here", () => {
  const { text, labels } = shown({ kind: "hand_signature", prompt: "Sign here" });
  assert.deepEqual(labels, []);
  assert.match(text ?? "", /hand signature/);
});
