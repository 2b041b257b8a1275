/**
 * The first `count` Unicode code points of `text`, which is how the wire measures text; a lone surrogate counts as one.
 * @param {string} text
 * @param {number} count
 */
export function firstCodePoints(text, count) {
  let end = 0;
  for (let left = count; left > 0 && end < text.length; left--) {
    // A code point beyond the BMP takes two units of a JavaScript string.
    end += /** @type {number} */ (text.codePointAt(end)) > 0xffff ? 2 : 1;
  }
  return text.slice(0, end);
}
