/**
 * Text on its way to the screen, in the order of the log. It is drawn in frames, as much as a frame has time for; what is
 * drawn is known by its position in the log, so that a stop can say what was really on screen.
 */

/** @import {Position} from "../holdfast/index.js" */

/** Drawn between two looks at the clock, in UTF-16 units. */
const SLICE = 4_096;
/** Beyond so many entries those of one paper are joined: a hidden page draws nothing, and must not gather chunks. */
const MAX_ENTRIES = 1_024;

/**
 * What is written on.
 * @typedef {{write(text: string): void}} Paper
 */

export class Ink {
  /** Up to where everything is on screen; null before anything is. @type {Position | null} */
  drawn = null;
  /** @type {{paper: Paper, text: string, position: Position}[]} */
  #entries = [];
  #next = 0;

  /** How many pieces wait to be drawn. */
  get length() {
    return this.#entries.length - this.#next;
  }

  /** Whether something waits to be drawn. */
  get waits() {
    return this.length > 0;
  }

  /**
   * @param {Paper} paper
   * @param {string} text
   * @param {Position} position of the log up to which `text` is all that there is to be drawn
   */
  add(paper, text, position) {
    const last = this.#entries.at(-1);
    if (last?.paper === paper && this.length > MAX_ENTRIES) {
      last.text += text;
      last.position = position;
    } else {
      this.#entries.push({ paper, text, position });
    }
  }

  /**
   * Forgets what waits for one paper.
   *
   * @param {Paper} paper
   */
  drop(paper) {
    this.#entries = this.#entries.slice(this.#next).filter((entry) => entry.paper !== paper);
    this.#next = 0;
  }

  /** Forgets everything, of another log. */
  clear() {
    this.#entries = [];
    this.#next = 0;
    this.drawn = null;
  }

  /**
   * Draws until `deadline`, and at least a little.
   *
   * @param {number} deadline of `performance.now()`
   * @param {Position} position up to which everything was added
   */
  draw(deadline, position) {
    do {
      const entry = this.#entries[this.#next];
      if (entry === undefined) {
        this.#entries = [];
        this.#next = 0;
        if (position.epoch !== "") this.drawn = position;
        return;
      }
      if (entry.text.length > SLICE) {
        const text = entry.text.slice(0, SLICE);
        entry.text = entry.text.slice(SLICE);
        entry.paper.write(text);
      } else {
        this.#next += 1;
        entry.paper.write(entry.text);
        this.drawn = entry.position;
      }
    } while (performance.now() < deadline);
    if (this.#next > MAX_ENTRIES) {
      this.#entries.splice(0, this.#next);
      this.#next = 0;
    }
  }
}
