/** Keeps the end of the conversation in sight, as long as the reader is there. */

import { byId } from "./dom.js";

/** So near to the end counts as there, in CSS pixels. */
const NEAR = 48;
/** So near to the beginning the past is loaded. */
const TOP = 240;

export class Follow {
  #scroller = byId("conversation");
  #messages = byId("messages");
  #jump = byId("jump");
  #isFollowing = true;
  #lastTop = 0;

  /** @param {() => void} reachedTop called when the reader scrolls up to the beginning */
  constructor(reachedTop) {
    this.#scroller.addEventListener(
      "scroll",
      () => {
        const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
        const isUp = scrollTop < this.#lastTop;
        this.#lastTop = scrollTop;
        // The end also moves away by itself, when something is drawn: only a reader who goes up leaves it.
        if (scrollHeight - clientHeight - scrollTop < NEAR) this.#set(true);
        else if (isUp) this.#set(false);
        if (isUp && scrollTop < TOP) reachedTop();
      },
      { passive: true },
    );
    this.#jump.addEventListener("click", () => {
      this.toEnd();
      byId("message").focus({ preventScroll: true });
    });
    // What is drawn late, such as an article that comes into sight, moves the end as well.
    const observer = new ResizeObserver(() => this.keep());
    observer.observe(this.#messages);
    observer.observe(this.#scroller);
  }

  /** After something was drawn. */
  keep() {
    if (!this.#isFollowing) return;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#lastTop = this.#scroller.scrollTop;
  }

  /** Goes to the end, and stays there. */
  toEnd() {
    this.#set(true);
    this.keep();
  }

  /**
   * Runs `change`, which may put something in above, without moving what is in sight.
   *
   * @param {() => void} change
   */
  hold(change) {
    const first = this.#isFollowing ? null : this.#messages.firstElementChild;
    const before = first?.getBoundingClientRect().top ?? 0;
    change();
    if (!first?.isConnected) return;
    const moved = first.getBoundingClientRect().top - before;
    if (moved !== 0) this.#scroller.scrollTop += moved;
    this.#lastTop = this.#scroller.scrollTop;
  }

  /** @param {boolean} isFollowing */
  #set(isFollowing) {
    this.#isFollowing = isFollowing;
    if (isFollowing && document.activeElement === this.#jump) byId("message").focus({ preventScroll: true });
    this.#jump.hidden = isFollowing;
  }
}
