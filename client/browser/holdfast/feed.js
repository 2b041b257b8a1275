/** Events one by one, for a reader of its own pace. */

import { Reader } from "./reader.js";

/** @import {Client} from "./client.js" */
/** @import {News, Reset} from "./core/transcript.js" */
/** @import {Event} from "./core/wire.js" */

/** How many events wait for a reader; then the oldest go, and it is told how many. */
export const BUFFER = 1_000;

/**
 * So many events were dropped, because their reader was too slow.
 * @typedef {{type: "lagged", missed: number}} Lagged
 *
 * @typedef {Event | Reset | Lagged} FeedItem
 */

/** @extends {Reader<FeedItem>} */
export class Feed extends Reader {
  /** @type {News[]} */
  #news = [];
  #missed = 0;
  #client;

  /** @param {Client} client */
  constructor(client) {
    super(client);
    this.#client = client;
    client.readers.add(this); // from now on, and not from the first `next`
  }

  /** @override */
  take() {
    const missed = this.#missed;
    this.#missed = 0;
    if (missed > 0) return /** @type {FeedItem} */ ({ type: "lagged", missed });
    const item = this.#news.shift();
    if (item !== undefined) this.#client.saw(item.type === "reset" ? item.position.seq : item.seq);
    return item;
  }

  /**
   * @override
   * @param {readonly News[]} news
   */
  deliver(news) {
    this.#news.push(...news);
    this.#missed += this.#news.splice(0, this.#news.length - BUFFER).length;
  }
}
