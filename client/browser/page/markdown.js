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
/**
 * A paragraph or a block of code longer than this goes on in another box, at its next space or line end: for a text that
 * grows, a browser lays out the whole box anew.
 */
const MAX_BOX = 8_192;
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
/** What stands in the `(…)` of a link: an address, perhaps in `<…>`, and perhaps a title. */
const DESTINATION = /^\s*((?:<([^<>\s]*)>)|\S+)(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?\s*$/;
/** Where no text stands by itself. @type {Set<number>} */
const TEXTLESS = new Set([smd.DOCUMENT, smd.BLOCKQUOTE, smd.LIST_ORDERED, smd.LIST_UNORDERED]);
/** What may go on in another box, and where. @type {Record<number, string>} */
const BOX_ENDS = { [smd.PARAGRAPH]: " ", [smd.CODE_FENCE]: "\n", [smd.CODE_BLOCK]: "\n" };
/** Ends with the first half of a surrogate pair. */
const HALF = /[\ud800-\udbff]$/;
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
  #plainLength = 0;
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
    this.#page.end();
  }

  /** @param {string} piece */
  #feed(piece) {
    if (this.#plain !== null) {
      this.#appendPlain(piece);
      return;
    }
    const parser = this.#parser;
    let from = 0;
    for (const { index } of piece.matchAll(/[\n)|]/g)) {
      smd.parser_write(parser, piece.slice(from, index));
      from = index + 1;
      mend(parser, piece[index]);
      // By itself, so that nothing which ends with it takes its last words along into what comes next.
      smd.parser_write(parser, piece.slice(index, from));
    }
    smd.parser_write(parser, piece.slice(from));
  }

  #isTooMuch() {
    const { len, pending } = this.#parser;
    return len > MAX_TOKENS || pending.length > MAX_PENDING || this.#page.count > MAX_ELEMENTS;
  }

  #giveUp() {
    this.#page.end();
    this.#plain = el("p", { class: "plain" });
    this.#root.append(this.#plain);
    this.#appendPlain(this.#parser.pending);
    this.#parser.pending = "";
  }

  /** @param {string} text */
  #appendPlain(text) {
    const plain = /** @type {HTMLElement} */ (this.#plain);
    const room = Math.max(0, MAX_BOX - this.#plainLength);
    const before = room > 0 ? text.slice(0, room) : (plain.lastChild?.textContent ?? "");
    const fits = HALF.test(before) ? room + 1 : room;
    appendText(plain, text.slice(0, fits));
    this.#plainLength += Math.min(fits, text.length);
    if (text.length <= fits) return;
    this.#plain = el("p", { class: "plain continued" });
    this.#plainLength = 0;
    plain.after(this.#plain);
    this.#appendPlain(text.slice(fits));
  }

  #showHeld() {
    const { pending, token, tokens, len } = this.#parser;
    if (this.#plain !== null || token !== tokens[len] || !TEXTUAL.has(token) || !HARMLESS.test(pending)) return;
    this.#held.data = pending;
    this.#page.top.append(this.#held);
  }
}

/**
 * Steps in where the parser would lose what it holds back.
 *
 * @param {smd.Parser} parser
 * @param {string | undefined} next the character that comes
 */
function mend(parser, next) {
  const { token, pending, fence_start, fence_end } = parser;
  if (next === ")") {
    // Of `$)` it drops the second character: it takes it for the end of `\(`.
    if (token === smd.EQUATION_INLINE && pending === "$") smd.parser_write(parser, ")");
  } else if (token === smd.LINK || token === smd.IMAGE) {
    // An address does not go over the end of a line; it would swallow everything up to some later `)`.
    if (pending[0] === "]" && pending[1] === "(") smd.parser_write(parser, ")");
  } else if (token === smd.CODE_FENCE && pending.length === fence_start + fence_end) {
    // A fence ends on a line of its own; it takes "x```" for such a line, without the x.
    if (pending[0] !== "\n" && pending[0] !== "`") {
      parser.text += pending;
      parser.pending = "";
    }
  }
}

/** @typedef {{element: HTMLElement, type: number, made: boolean, length: number}} OpenElement `length`: of its own text */

/** The parser's renderer: a stack of open elements. */
class Elements {
  /** How many were made. */
  count = 0;
  data = null;
  /** @type {OpenElement[]} */
  #stack;
  /** Of the last heading, so that none is skipped. The page's own end at 2. */
  #heading = 2;
  /** @type {{head: HTMLElement, body: HTMLElement | null, rows: number} | null} */
  #table = null;

  /** Text that came before the paragraph that it is for: the parser may be in the middle of giving up a table. */
  #early = "";

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#stack = [{ element: root, type: smd.DOCUMENT, made: true, length: 0 }];
  }

  get top() {
    return this.#open.element;
  }

  get #open() {
    return /** @type {OpenElement} */ (this.#stack.at(-1));
  }

  /**
   * @param {unknown} _data
   * @param {smd.Token} type
   */
  add_token = (_data, type) => {
    if (type === smd.DOCUMENT) return;
    const parent = this.top;
    if (this.#stack.length > MAX_DEPTH) {
      this.#stack.push({ element: parent, type, made: false, length: 0 });
      return;
    }
    this.count += 1;
    this.#stack.push({ element: this.#make(parent, type), type, made: true, length: 0 });
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
    if (TEXTLESS.has(this.#open.type)) {
      this.#early += text;
    } else {
      this.#write(this.#early + text);
      this.#early = "";
    }
  };

  /** @param {string} text */
  #write(text) {
    const open = this.#open;
    const end = this.#stack.length > 2 ? undefined : BOX_ENDS[open.type];
    let from = 0;
    while (end !== undefined) {
      const at = text.indexOf(end, from + Math.max(0, MAX_BOX - open.length));
      if (at === -1) break;
      appendText(open.element, text.slice(from, at + 1));
      const next = open.element.cloneNode(false);
      open.element.after(next);
      open.element = /** @type {HTMLElement} */ (next);
      open.element.className = "continued";
      open.length = 0;
      from = at + 1;
    }
    appendText(open.element, text.slice(from));
    open.length += text.length - from;
  }

  /** Nothing more comes. */
  end() {
    if (this.#early !== "") this.#stack[0]?.element.append(el("p", { text: this.#early }));
    this.#early = "";
  }

  /**
   * @param {unknown} _data
   * @param {smd.Attr} type
   * @param {string} value
   */
  set_attr = (_data, type, value) => {
    const { element, made, type: token } = this.#open;
    switch (type) {
      case smd.HREF:
      case smd.SRC:
        this.#point(element, value, token === smd.RAW_URL);
        break;
      case smd.LANG:
        if (made) setAttribute(element, "data-language", value.trim());
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
   * @param {boolean} isRaw the address is its own label
   */
  #point(element, target, isRaw) {
    const [, address = "", wrapped = address] = DESTINATION.exec(target) ?? [];
    if (element instanceof HTMLAnchorElement && link(element, wrapped)) {
      if (!isRaw && element.textContent === "") appendText(element, wrapped);
    } else if (!isRaw) {
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
  if (last instanceof Text && (last.length < MAX_NODE || HALF.test(last.data.slice(-1)))) {
    last.appendData(text);
  } else {
    element.append(text);
  }
}
