/** What async iteration over a session or a run has in common. */

/** @import {Client} from "./client.js" */
/** @import {News} from "./core/transcript.js" */

/**
 * An async iterator that takes what there is and then waits for the next change. Ending it early, as `break` does, lets
 * go of it and nothing more.
 *
 * @template T
 */
export class Reader {
  #client;
  #done = false;

  /** @param {Client} client */
  constructor(client) {
    this.#client = client;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<T, undefined>>} */
  async next() {
    try {
      for (;;) {
        const { version } = this.#client;
        if (this.#done) break;
        this.#client.readers.add(this);
        let value = this.take();
        if (value === undefined && (await this.over())) {
          value = this.take();
          if (value === undefined) break;
        }
        if (value !== undefined && !this.#done) return { done: false, value };
        await this.#client.changed(version);
      }
    } catch (error) {
      this.#finish();
      throw error;
    }
    this.#finish();
    return { done: true, value: undefined };
  }

  /** @returns {Promise<IteratorResult<T, undefined>>} */
  async return() {
    this.#finish();
    this.#client.pulse(); // for a `next` that waits
    return { done: true, value: undefined };
  }

  /**
   * What there is to take, undefined for nothing.
   *
   * @returns {T | undefined}
   */
  take() {
    return undefined;
  }

  /** Whether nothing more will come; throws where it cannot come. */
  async over() {
    this.#client.check();
    return false;
  }

  /** @param {readonly News[]} _news what came since the last time */
  deliver(_news) {}

  #finish() {
    this.#done = true;
    this.#client.readers.delete(this);
  }
}
