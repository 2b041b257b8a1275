/** Keeps the end of the conversation in sight, as long as the reader is there. */

import { byId } from "./dom.js";

/** So near to the end a reader who comes down is there, in CSS pixels. */
const NEAR = 48;
/** No further away is at the end itself: positions are fractions of a pixel. */
const AT_END = 1;
/** So near to the beginning the past is loaded. */
const TOP = 240;

export class Follow {
  #scroller = byId("conversation");
  #messages = byId("messages");
  #jump = byId("jump");
  #reachedTop;
  #isFollowing = true;
  /** Where the reader was at the last look. */
  #lastTop = 0;

  /** @param {() => void} reachedTop called when the reader scrolls up to the beginning */
  constructor(reachedTop) {
    this.#reachedTop = reachedTop;
    this.#scroller.addEventListener("scroll", () => this.look(), { passive: true });
    this.#jump.addEventListener("click", () => {
      this.toEnd();
      byId("message").focus({ preventScroll: true });
    });
    // What is drawn late, such as an article that comes into sight, moves the end as well.
    const observer = new ResizeObserver(() => {
      this.look();
      this.keep();
    });
    observer.observe(this.#messages);
    observer.observe(this.#scroller);
  }

  /**
   * Sees where the reader went since the last look. To be called before anything is drawn: the event of a scroll comes
   * when the next frame has begun, and by then `keep` would have undone it.
   */
  look() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const below = scrollHeight - clientHeight - scrollTop;
    const isUp = scrollTop < this.#lastTop;
    this.#lastTop = scrollTop;
    // Only a reader who goes up leaves the end, be it by the first pixels of a smooth scroll. It also moves by itself:
    // away, when something is drawn, and up together with what is in sight, when less is drawn than before.
    if (isUp && below > AT_END) this.#set(false);
    else if (below < NEAR) this.#set(true);
    if (isUp && scrollTop < TOP) this.#reachedTop();
  }

  /** Whether the reader stands at the beginning, or everything is in sight. */
  get isAtTop() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    return this.#isFollowing ? 0 < clientHeight && scrollHeight <= clientHeight : scrollTop < TOP;
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
    // While the end is followed, the browser does not move anything to keep something else in its place.
    this.#scroller.toggleAttribute("data-following", isFollowing);
    if (isFollowing && document.activeElement === this.#jump) byId("message").focus({ preventScroll: true });
    this.#jump.hidden = isFollowing;
  }
}
