/**
 * Markdown that arrives in pieces, drawn as it comes. A piece costs its own length.
 *
 * The parser is streaming-markdown's; the elements are made here, from a fixed list, with the few attributes that are
 * set here. Where the parser would lose text, take time out of proportion, or nest without end, the bounds below apply, at
 * places of the text that do not depend on how it was cut: the same text gives the same elements.
 */

import { el, setAttribute } from "./dom.js";
import { link } from "./links.js";
import * as smd from "./vendor/streaming-markdown/smd.js";

/** Elements within elements; what is deeper is drawn flat. Layout engines recurse. */
const MAX_DEPTH = 24;
/** The parser's own stack. It has room for 24 by itself, and loses count beyond. */
const MAX_TOKENS = 512;
/** What the parser may hold back while it looks for an end. It looks through all of that again for every character. */
const MAX_PENDING = 2_048;
/** Beyond so many elements the rest of a text is drawn as it is. */
const MAX_ELEMENTS = 20_000;
/** How often the bounds are looked at, in UTF-16 units of the text. */
const STEP = 256;
/** Appending to a text node copies it, so a long text has several. */
const MAX_NODE = 2_048;

/** @type {Partial<Record<number, keyof HTMLElementTagNameMap>>} */
const ELEMENTS = {
  [smd.PARAGRAPH]: "p",
  [smd.LINE_BREAK]: "br",
  [smd.RULE]: "hr",
  [smd.BLOCKQUOTE]: "blockquote",
  [smd.ITALIC_AST]: "em",
  [smd.ITALIC_UND]: "em",
  [smd.STRONG_AST]: "strong",
  [smd.STRONG_UND]: "strong",
  [smd.STRIKE]: "s",
  [smd.CODE_INLINE]: "code",
  [smd.LINK]: "a",
  [smd.RAW_URL]: "a",
  [smd.IMAGE]: "a",
  [smd.LIST_UNORDERED]: "ul",
  [smd.LIST_ORDERED]: "ol",
  [smd.LIST_ITEM]: "li",
  [smd.CHECKBOX]: "span",
  [smd.TABLE_ROW]: "tr",
  [smd.EQUATION_BLOCK]: "div",
  [smd.EQUATION_INLINE]: "span",
};
const HEADINGS = [smd.HEADING_1, smd.HEADING_2, smd.HEADING_3, smd.HEADING_4, smd.HEADING_5, smd.HEADING_6];
/** Where a character that the parser still holds back can be shown already. @type {Set<number>} */
const TEXTUAL = new Set([
  smd.PARAGRAPH,
  ...HEADINGS,
  smd.LIST_ITEM,
  smd.TABLE_CELL,
  smd.ITALIC_AST,
  smd.ITALIC_UND,
  smd.STRONG_AST,
  smd.STRONG_UND,
  smd.STRIKE,
  smd.LINK,
  smd.CODE_BLOCK,
  smd.CODE_FENCE,
  smd.CODE_INLINE,
]);
const HARMLESS = /^[^\s\\`*_~#>|[\]()$!<-]$/u;

/** One text, growing. */
export class Markdown {
  #root;
  #page;
  #parser;
  #length = 0;
  #ended = false;
  /** The rest of a text that went over a bound. @type {HTMLElement | null} */
  #plain = null;
  /** What the parser holds back, shown until it has decided. */
  #held = document.createTextNode("");

  /** @param {HTMLElement} root its children become the text's; they are nobody else's */
  constructor(root) {
    this.#root = root;
    this.#page = new Elements(root);
    this.#parser = smd.parser(this.#page);
    this.#parser.tokens = new Uint32Array(MAX_TOKENS + STEP + 8);
    this.#parser.tokens[0] = smd.DOCUMENT;
    this.#parser.spaces = new Uint8Array(MAX_TOKENS + STEP + 8);
  }

  /** @param {string} text the next piece */
  write(text) {
    this.#held.remove();
    for (let at = 0; at < text.length; ) {
      const end = Math.min(text.length, at + STEP - (this.#length % STEP));
      this.#feed(text.slice(at, end));
      this.#length += end - at;
      at = end;
      if (this.#length % STEP === 0 && this.#plain === null && this.#isTooMuch()) this.#giveUp();
    }
    this.#showHeld();
  }

  /** Nothing more comes. */
  end() {
    if (this.#ended) return;
    this.#ended = true;
    this.#held.remove();
    if (this.#parser.pending.length > 0) this.#feed("\n");
    const { pending } = this.#parser;
    if (this.#plain === null && pending.trim() !== "") this.#page.add_text(this.#page.data, pending);
  }

  /** @param {string} piece */
  #feed(piece) {
    if (this.#plain !== null) {
      appendText(this.#plain, piece);
      return;
    }
    const parser = this.#parser;
    let from = 0;
    for (const { index } of piece.matchAll(/[\n)]/g)) {
      smd.parser_write(parser, piece.slice(from, index));
      from = index;
      if (piece[index] === "\n" && isDestination(parser)) {
        // An address does not go over the end of a line; the parser would swallow everything up to some later `)`.
        smd.parser_write(parser, ")");
      } else if (piece[index] === ")" && parser.token === smd.EQUATION_INLINE && parser.pending === "$") {
        // Of `$)` the parser drops the second character: it takes it for the end of `\(`.
        smd.parser_write(parser, ")");
      }
    }
    smd.parser_write(parser, piece.slice(from));
  }

  #isTooMuch() {
    const { len, pending } = this.#parser;
    return len > MAX_TOKENS || pending.length > MAX_PENDING || this.#page.count > MAX_ELEMENTS;
  }

  #giveUp() {
    this.#plain = el("p", { class: "plain" });
    this.#root.append(this.#plain);
    appendText(this.#plain, this.#parser.pending);
    this.#parser.pending = "";
  }

  #showHeld() {
    const { pending, token, tokens, len } = this.#parser;
    if (this.#plain !== null || token !== tokens[len] || !TEXTUAL.has(token) || !HARMLESS.test(pending)) return;
    this.#held.data = pending;
    this.#page.top.append(this.#held);
  }
}

/**
 * Whether a parser is within the `(…)` of a link or an image.
 *
 * @param {smd.Parser} parser
 */
function isDestination({ token, pending }) {
  return (token === smd.LINK || token === smd.IMAGE) && pending[0] === "]" && pending[1] === "(";
}

/** The parser's renderer: a stack of open elements. */
class Elements {
  /** How many were made. */
  count = 0;
  data = null;
  /** @type {{element: HTMLElement, type: number, made: boolean}[]} */
  #stack;
  /** Of the last heading, so that none is skipped. The page's own end at 2. */
  #heading = 2;
  /** @type {{head: HTMLElement, body: HTMLElement | null, rows: number} | null} */
  #table = null;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#stack = [{ element: root, type: smd.DOCUMENT, made: true }];
  }

  get top() {
    return this.#open.element;
  }

  get #open() {
    return /** @type {{element: HTMLElement, type: number, made: boolean}} */ (this.#stack.at(-1));
  }

  /**
   * @param {unknown} _data
   * @param {smd.Token} type
   */
  add_token = (_data, type) => {
    if (type === smd.DOCUMENT) return;
    const parent = this.top;
    if (this.#stack.length > MAX_DEPTH) {
      this.#stack.push({ element: parent, type, made: false });
      return;
    }
    this.count += 1;
    this.#stack.push({ element: this.#make(parent, type), type, made: true });
    if (type === smd.EQUATION_BLOCK) appendText(this.top, "$$");
    if (type === smd.EQUATION_INLINE) appendText(this.top, "$");
  };

  end_token = () => {
    if (this.#stack.length === 1) return;
    const { type } = this.#open;
    if (type === smd.EQUATION_BLOCK) appendText(this.top, "$$");
    if (type === smd.EQUATION_INLINE) appendText(this.top, "$");
    if (type === smd.TABLE) this.#table = null;
    this.#stack.pop();
  };

  /**
   * @param {unknown} _data
   * @param {string} text
   */
  add_text = (_data, text) => {
    appendText(this.top, text);
  };

  /**
   * @param {unknown} _data
   * @param {smd.Attr} type
   * @param {string} value
   */
  set_attr = (_data, type, value) => {
    const { element, made } = this.#open;
    switch (type) {
      case smd.HREF:
      case smd.SRC:
        this.#point(element, value);
        break;
      case smd.LANG:
        if (made) setAttribute(element, "data-language", value.trim().slice(0, 32));
        break;
      case smd.CHECKED:
        if (made) element.textContent = "☑ ";
        break;
      case smd.START:
        if (made) setAttribute(element, "start", Number.parseInt(value, 10) || 0);
        break;
    }
  };

  /**
   * @param {HTMLElement} element
   * @param {string} target an address, and perhaps a title behind it
   */
  #point(element, target) {
    const [address = ""] = target.trim().split(/\s+/, 1);
    const unwrapped = address.startsWith("<") && address.endsWith(">") ? address.slice(1, -1) : address;
    if (element instanceof HTMLAnchorElement && link(element, unwrapped)) {
      if (element.textContent === "") appendText(element, unwrapped);
    } else {
      // Nothing to follow, and nothing to hide either.
      appendText(element, `](${target})`);
    }
  }

  /**
   * @param {HTMLElement} parent
   * @param {smd.Token} type
   */
  #make(parent, type) {
    switch (type) {
      case smd.HEADING_1:
      case smd.HEADING_2:
      case smd.HEADING_3:
      case smd.HEADING_4:
      case smd.HEADING_5:
      case smd.HEADING_6: {
        this.#heading = Math.min(3 + HEADINGS.indexOf(type), this.#heading + 1, 6);
        return parent.appendChild(el(/** @type {"h3"} */ (`h${this.#heading}`)));
      }
      case smd.CODE_BLOCK:
      case smd.CODE_FENCE: {
        const code = el("code");
        // What scrolls must be reachable by keyboard.
        parent.append(el("pre", { tabindex: 0, role: "group", "aria-label": "Code" }, code));
        return code;
      }
      case smd.TABLE: {
        const head = el("thead");
        const table = el("table", {}, head);
        parent.append(el("div", { class: "table", tabindex: 0, role: "group", "aria-label": "Table" }, table));
        this.#table = { head, body: null, rows: 0 };
        return table;
      }
      case smd.TABLE_ROW:
        return this.#row(parent);
      case smd.TABLE_CELL: {
        const isHead = parent.parentElement?.localName === "thead";
        return parent.appendChild(isHead ? el("th", { scope: "col" }) : el("td"));
      }
      case smd.CHECKBOX:
        return parent.appendChild(el("span", { text: "☐ " }));
      case smd.IMAGE:
        return parent.appendChild(el("a", { class: "image" }));
      case smd.EQUATION_BLOCK:
      case smd.EQUATION_INLINE:
        return parent.appendChild(el(ELEMENTS[type] ?? "span", { class: "math" }));
      default:
        return parent.appendChild(el(ELEMENTS[type] ?? "span"));
    }
  }

  /** @param {HTMLElement} parent */
  #row(parent) {
    const table = this.#table;
    const row = el("tr");
    if (table === null) return parent.appendChild(row);
    table.rows += 1;
    if (table.rows === 1) return table.head.appendChild(row);
    table.body ??= parent.appendChild(el("tbody"));
    return table.body.appendChild(row);
  }
}

/**
 * @param {HTMLElement} element
 * @param {string} text
 */
export function appendText(element, text) {
  if (text === "") return;
  const last = element.lastChild;
  // Not between the halves of a surrogate pair: two nodes would show two broken characters.
  if (last instanceof Text && (last.length < MAX_NODE || /[\ud800-\udbff]$/.test(last.data.slice(-1)))) {
    last.appendData(text);
  } else {
    element.append(text);
  }
}
