import assert from "node:assert/strict";
import test from "node:test";
import { Ink } from "../../../client/browser/page/ink.js";

const ONE_STEP = Number.NEGATIVE_INFINITY;
const ALL = Number.POSITIVE_INFINITY;
/** @param {number} seq */
const at = (seq) => ({ epoch: "e", seq });

class Paper {
  text = "";

  /** @param {string} text */
  write(text) {
    this.text += text;
  }
}

test("What is drawn is known by the position of the last text that stands there whole.", () => {
  const ink = new Ink();
  const [first, second] = [new Paper(), new Paper()];
  ink.add(first, "one", at(1));
  ink.add(second, "x".repeat(5_000), at(2));
  ink.add(first, "three", at(3));
  assert.equal(ink.drawn, null);
  ink.draw(ONE_STEP, at(9));
  assert.deepEqual([ink.drawn, first.text], [at(1), "one"]);
  ink.draw(ONE_STEP, at(9));
  assert.deepEqual([ink.drawn, second.text.length], [at(1), 4_096]);
  ink.draw(ONE_STEP, at(9));
  assert.deepEqual([ink.drawn, second.text.length], [at(2), 5_000]);
  ink.draw(ALL, at(9));
  assert.deepEqual([ink.drawn, first.text, ink.waits], [at(9), "onethree", false]);
});

test("What is dropped is not drawn, and what is left keeps its order.", () => {
  const ink = new Ink();
  const [first, second] = [new Paper(), new Paper()];
  ink.add(first, "a", at(1));
  ink.add(second, "b", at(2));
  ink.add(first, "c", at(3));
  ink.drop(first);
  ink.draw(ALL, at(3));
  assert.deepEqual([first.text, second.text], ["", "b"]);
});

test("Of a log that is gone nothing counts as drawn.", () => {
  const ink = new Ink();
  ink.draw(ALL, at(5));
  ink.add(new Paper(), "a", at(6));
  ink.clear();
  assert.deepEqual([ink.drawn, ink.waits], [null, false]);
  ink.draw(ALL, { epoch: "", seq: 0 });
  assert.equal(ink.drawn, null);
});

test("A page that draws nothing gathers text, and not chunks; in the end it shows all of it.", () => {
  const ink = new Ink();
  const paper = new Paper();
  for (let seq = 1; seq <= 50_000; seq += 1) ink.add(paper, `${seq} `, at(seq));
  assert.ok(ink.length <= 1_100, `${ink.length} entries`);
  ink.draw(ALL, at(50_000));
  assert.equal(paper.text.split(" ").length, 50_001);
  assert.deepEqual(ink.drawn, at(50_000));
});
