/** Elements, built by name. Text is always text: nothing here or anywhere on the page parses markup. */

/**
 * @typedef {Node | string | null | false} Child null and false stand for nothing
 * @typedef {Record<string, string | number | boolean | null | undefined | EventListener>} Properties attributes; `on…` is
 *   a listener, `text` the text, true an empty attribute, and false, null and undefined none
 */

/**
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Properties} [properties]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (key === "text") element.textContent = String(value ?? "");
    else setAttribute(element, key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== false));
  return element;
}

/**
 * @param {Element} element
 * @param {string} name
 * @param {string | number | boolean | null | undefined} value
 */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else {
    const text = value === true ? "" : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/**
 * Sets an element's text, and touches nothing where it is that already.
 *
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Whether a key is meant for an input method, which ends a composition with Enter. Safari tells that the composition has
 * ended before it tells of the key; 229, the code of a key that an input method has taken, is then all that says so.
 *
 * @param {KeyboardEvent} event
 */
export function isForInputMethod({ isComposing, keyCode }) {
  return isComposing || keyCode === 229;
}

/**
 * An element of `index.html`.
 *
 * @template {HTMLElement} [Type=HTMLElement]
 * @param {string} id
 * @returns {Type}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`index.html has no #${id}`);
  return /** @type {Type} */ (element);
}

/**
 * Makes the children of `parent` these, in this order. Those that stay in place are not touched, so that focus, selection
 * and scroll positions in them stay too.
 *
 * @param {Element} parent
 * @param {Iterable<Element>} wanted
 */
export function arrange(parent, wanted) {
  const elements = [...wanted];
  const kept = new Set(elements);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const element of elements) {
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
}
